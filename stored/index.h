/* index - what the keyspace knows in memory: every key in order, its newest change, its older ones, and how many live
 * keys lie below any point.
 *
 * A B+-tree of up to 64 slots a node. Keys live in their entries, one small allocation each; nodes keep beside each
 * pointer the four bytes of the key that follow the prefix which all keys of the node share, so that a search
 * touches an entry only to make sure. Leaves keep a bit per live entry, inner nodes the live count of each child: the
 * rank of a key is a walk from the root to a leaf.
 *
 *   example   put a@2, put a@3, del a@4, put a@5:
 *             latest 5 (create 5, version 1), older 2, 3, 4t
 *             compact 3 drops 2; compact 4 keeps the tombstone *at* 4 and drops 3; compact 5 drops 4
 *
 * Invariants: older revisions ascend and are below the latest; an entry whose latest is a tombstone is dead and not
 * counted. No locks in here: mvcc.c has them. */
#ifndef STORED_INDEX_H
#define STORED_INDEX_H

#include "common/base.h"
#include "common/buf.h"
#include "proto/api.h"

/* One change of a key: where its record is. */
struct change {
    int64_t main;
    uint32_t sub;
    uint32_t len : 31; /* bytes of the record's value */
    uint32_t tombstone : 1;
};

struct entry_more; /* what few entries need */

struct entry {
    struct change latest;
    int64_t create;           /* of the present life; 0 when dead */
    struct entry_more *more;  /* NULL: no older revisions, no lease, version below 2^32 */
    uint32_t version;
    uint32_t key_len;
    uint8_t key[];
};

/* A revision of a key as a reader at some revision sees it. */
struct sight {
    struct change at;
    bool newest; /* it is the entry's latest: create, version and lease are the entry's */
};

static inline struct slice entry_key(const struct entry *e)
{
    return slice_of(e->key, e->key_len);
}
static inline bool entry_is_live(const struct entry *e)
{
    return !e->latest.tombstone;
}
int64_t entry_lease(const struct entry *e);
int64_t entry_version(const struct entry *e);
size_t entry_older(const struct entry *e, const struct change **older); /* ascending */
/* The newest change at or below rev; false: the key had none (or none is left). */
bool entry_at(const struct entry *e, int64_t rev, struct sight *out);
/* How many changes, oldest first, compaction at rev drops (§9 of semantics.md): older[0..n), and the latest too when
 * n is one more than there are older ones. tombstones false: leaves the tombstone that is the newest of the dropped ones. */
size_t entry_droppable(const struct entry *e, int64_t rev, bool tombstones);

struct index;
struct index *index_new(void);
void index_free(struct index *ix);

struct entry *index_find(const struct index *ix, struct slice key); /* NULL: never seen, or compacted away */

/* Makes a change the latest of its key; `found` is index_find's answer for the key. For a put create, version and lease
 * are those of the new record; for a tombstone they are 0. Returns the entry. */
struct entry *index_change(struct index *ix, struct entry *found, struct slice key, struct change c, int64_t create,
                           int64_t version, int64_t lease);
/* Adds a key that is greater than all others, with its older changes (loading a checkpoint). NULL: it is not greater. */
struct entry *index_append(struct index *ix, struct slice key, struct change latest, int64_t create, int64_t version,
                           int64_t lease, const struct change *older, size_t older_count);
/* Drops what compaction at rev drops of this entry; e is invalid afterwards if that is all of it (returns true). */
bool index_prune(struct index *ix, struct entry *e, int64_t rev, bool tombstones);

uint64_t index_rank(const struct index *ix, struct slice key); /* live keys below key */
uint64_t index_count(const struct index *ix, const struct api_interval *in);

struct index_totals {
    uint64_t entries;      /* dead ones included */
    uint64_t live;         /* live keys */
    uint64_t changes;      /* revisions, tombstones included */
    uint64_t record_bytes; /* of all changes */
    uint64_t bytes;        /* memory, about */
};
struct index_totals index_totals(const struct index *ix);

/* A position in key order; valid until the index changes. */
#define INDEX_DEPTH_MAX 12
struct index_node;
struct index_iter {
    const struct index_node *node[INDEX_DEPTH_MAX];
    int pos[INDEX_DEPTH_MAX];
    int depth; /* levels in use; 0: at the end */
};
void index_seek(const struct index *ix, struct slice key, struct index_iter *it); /* first entry >= key */
struct entry *index_next(struct index_iter *it);                                   /* the entry, and moves on; NULL at the end */

/* Walks the tree and checks every invariant; for tests. */
void index_check(const struct index *ix);

#endif
