/* mvcc_inner - what the files behind mvcc.h share: struct mvcc and who may touch which part of it.
 *
 * Order of locks: upkeep -> write -> lock. Under `lock` nobody waits for anything but LevelDB's reads.
 * Keys in LevelDB besides the records ('R', rev.h):
 *   'm' 'v'                            -> format version(4)
 *   'm' 'a'                            -> applied index(8) revision(8)
 *   'm' 'h'                            -> hash(8) of all that was applied (chain.h), absent: unknown
 *   'm' 'c'                            -> compacted revision(8), absent: never
 *   'm' 'p'                            -> physical compaction up to it has begun(8), absent: none
 *   'm' 's'                            -> records below it are gone(8), absent: none
 *   'm' 'b' index(8)                   -> index(8) of the batch before: the dense marker
 *   'm' 'u' base(8) index(8) seq(4)    -> present(1) key length(4) key value: what a meta key had at durable point `base`
 *   'i' generation(8) page(4)          -> index checkpoint (checkpoint.c)
 *   any other letter                   -> other modules' (mvcc_meta_put) */
#ifndef STORED_MVCC_INNER_H
#define STORED_MVCC_INNER_H

#include <pthread.h>
#include <stdatomic.h>

#include "stored/cache.h"
#include "stored/chain.h"
#include "stored/db.h"
#include "stored/index.h"
#include "stored/mvcc.h"
#include "stored/rev.h"

#define FORMAT_VERSION 1
#define META_OWN 'm'

/* --- record.c: records of the open batch, and reading any record ---------------------------------- */
struct pending_item {
    int64_t main;
    uint32_t sub, len;
    size_t at; /* in bytes */
};
struct pending {
    struct buf bytes;
    struct pending_item *items; /* ascending */
    size_t count, cap;
};

/* --- deltas.c: recent births and deaths of keys --------------------------------------------------- */
struct delta {
    int64_t rev;
    uint32_t key_len;
    int8_t by; /* +1 or -1 */
    uint8_t *key;
};
struct deltas {
    struct delta *ring; /* allocated at the first one */
    uint64_t first, end; /* positions; slot = position % DELTAS_MAX */
    size_t key_bytes;
    int64_t floor; /* all deltas above this revision are here */
};

/* --- undo.c: what meta keys had at the last durable point ------------------------------------------ */
struct undo_base;
struct undo_epoch {
    uint64_t base;
    struct undo_base *values; /* by key; filled at the first change after base */
};

struct synced_file;

struct compact_order {
    int64_t rev;
    uint64_t index; /* raft index that applied it; 0: the open batch's */
};
#define COMPACT_ORDERS_MAX 64

struct mvcc {
    struct db *db;
    char *synced_path;
    char boot_id[64];
    struct synced_file *synced; /* while opening: what the last run left */
    struct leases *leases; /* borrowed; may be NULL in tests */
    struct mvcc_hooks hooks;
    struct cache *cache;

    pthread_rwlock_t lock; /* guards: */
    struct index *ix;
    struct pending pending;
    struct deltas deltas;

    /* written under lock, read by anybody; compact_rev <= rev, flushed_rev <= rev, swept <= compact_rev */
    _Atomic int64_t rev, compact_rev, swept;
    _Atomic int64_t flushed_rev; /* records up to it are in LevelDB */
    _Atomic uint64_t applied, durable;
    _Atomic uint64_t cluster_id, member_id, term;

    /* [apply] only */
    bool in_batch;
    struct db_batch *batch;
    struct chain chain;
    uint64_t chain_written; /* its hash at `applied` */
    uint32_t cmd_sub;           /* changes made by the running command */
    struct buf record, prev;    /* scratch */
    struct buf meta_keys;       /* length(4) key of each meta change of the open batch */

    pthread_mutex_t write; /* a batch's end against sync's "what is applied now"; guards: */
    struct undo_epoch epoch[2];
    int epochs; /* 1, or 2 while a sync runs */
    struct compact_order orders[COMPACT_ORDERS_MAX];
    int order_count;

    pthread_mutex_t upkeep; /* one of checkpoint, compact_step at a time; guards: */
    struct buf prune_from;  /* next key of the running physical compaction */
    int64_t prune_rev;      /* its target; 0: none */
    bool prune_tombstones;  /* its second walk */
    uint64_t checkpoint_generation;
    int64_t checkpoint_rev;
    uint64_t checkpoint_revs_min; /* set when opened */
    pthread_mutex_t sync;   /* one mvcc_sync at a time */

    _Atomic uint64_t puts, put_bytes, pruned, deletes, ranges, txns, compaction_bytes;
};

/* record.c */
void pending_add(struct pending *p, int64_t main, uint32_t sub, struct slice record);
void pending_clear(struct pending *p);
void pending_fini(struct pending *p);
/* The record of a change into c.len bytes at `to`. locked: the caller holds m->lock. 0, E_COMPACTED (gone),
 * E_DAMAGED, E_IO (both logged with the key). */
int record_read(struct mvcc *m, struct change c, bool locked, uint8_t *to);
int record_append(struct mvcc *m, struct change c, bool locked, struct buf *out);
/* Many records, each into its place: read in revision order, which LevelDB has them in. places are reordered. */
struct record_place {
    struct change at;
    size_t offset; /* in the bytes at `to` */
};
int record_read_many(struct mvcc *m, const struct db_snapshot *snap, bool locked, struct record_place *places, size_t count,
                     uint8_t *to);
/* Decodes and checks a stored record against the key it was found under; E_DAMAGED (logged). */
int record_decode(const struct mvcc *m, struct slice rev_key, struct slice record, struct api_key_value *kv);

/* deltas.c */
void deltas_add(struct deltas *d, int64_t rev, struct slice key, int by);
void deltas_fini(struct deltas *d);
/* What to add to the newest count of an interval to get that at rev; false: rev is older than what is remembered. */
bool deltas_since(const struct deltas *d, int64_t rev, const struct api_interval *in, int64_t *sum);

/* change.c: a command's changes; all under m->lock held for writing, between cmd_begin and cmd_end. */
void cmd_begin(struct mvcc *m);
void cmd_end(struct mvcc *m);
int64_t cmd_rev(const struct mvcc *m); /* what a read inside the command sees: rev, or rev + 1 after a change */
int put_check(struct mvcc *m, const struct api_put *rq, bool in_txn);
void put_run(struct mvcc *m, const struct api_put *rq, bool inner, struct buf *out);
void delete_run(struct mvcc *m, const struct api_delete *rq, bool inner, struct buf *out);

/* range.c: a whole RangeResponse at the revision of the running command (m->lock is held), inner header. */
int range_check_inner(const struct mvcc *m, const struct api_range *rq);
int range_run_locked(struct mvcc *m, const struct api_range *rq, size_t bytes_max, struct buf *out); /* 0 or E_TOO_BIG */
/* The same from outside, pinned: reads see revision `rev` as the newest. */
int range_run_pinned(struct mvcc *m, const struct api_range *rq, int64_t rev, size_t bytes_max, struct buf *out);

/* Version, create, mod and lease of a key as it was at a revision. */
struct key_state {
    bool exists;
    int64_t create, mod, version, lease;
};
int key_state_at(struct mvcc *m, const struct entry *e, int64_t rev, struct key_state *out); /* m->lock is held */

void own_put(struct mvcc *m, char kind, struct slice value); /* mvcc's own key in the open batch, with undo */
void header_inner(struct buf *out, int64_t rev); /* only the revision, as inside a TxnResponse */
void own_key(struct buf *out, char kind);        /* 'm' kind */

/* mvcc.c: applied index, revisions and marks from LevelDB */
int numbers_load(struct mvcc *m, struct buf *why);
/* One number of kind `kind`; fallback if it is absent, INT64_MAX if it is damaged. */
int64_t own_number(struct mvcc *m, char kind, int64_t fallback);

/* load.c */
int index_load(struct mvcc *m, struct buf *why);
/* checkpoint.c: 0 and the revision from which records must be replayed; E_NOT_FOUND: none (complete). */
int checkpoint_load(struct mvcc *m, int64_t *from_rev);
void checkpoint_drop_all(struct mvcc *m);
/* If there is a checkpoint from before rev, a new one takes its place (m->upkeep is held). */
void checkpoint_renew(struct mvcc *m, int64_t rev);

/* sync.c */
int synced_open(struct mvcc *m, const struct mvcc_conf *conf, struct buf *why); /* opens m->db */
int synced_check(struct mvcc *m, struct buf *why); /* after a power loss: is all of it there? rolls back if not */
void synced_start(struct mvcc *m);                 /* what was loaded becomes the durable point */
void synced_close(struct mvcc *m);

/* undo.c: under m->write */
void undo_write(struct mvcc *m, uint64_t index); /* for the meta keys of the open batch */
void undo_epoch_fini(struct undo_epoch *e);
int undo_apply(struct mvcc *m, uint64_t base, struct db_batch *b); /* adds to b what brings meta keys back to base */
void undo_purge(struct mvcc *m, uint64_t below);                    /* deletes undo records of bases below */

/* compact.c: under m->write */
void compact_batch_ends(struct mvcc *m, uint64_t index);

#endif
