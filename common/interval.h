/* interval - which of many key ranges hold a given key?
 * A set of intrusive nodes over byte strings in etcd's notation: (key, range_end) where an empty range_end means
 * the single key, the one byte "\0" means everything from key on, and anything else the half-open [key, range_end).
 * Single keys live in a hash table, true ranges in a treap ordered by key that knows each subtree's greatest end:
 * a stab costs O(1) for the single keys plus O(log n) per hit for the ranges. Equal ranges may be present many
 * times. A range whose end is not after its key holds nothing; it may be inserted and never hits.
 *
 * Nodes are embedded in what owns them (container_of). The bytes of key and end are borrowed from the owner and
 * must stay as they are while the node is in an index. Nothing here is thread-safe. */
#ifndef COMMON_INTERVAL_H
#define COMMON_INTERVAL_H

#include "common/buf.h"

struct interval_node {
    struct slice key; /* first key; set by interval_insert */
    struct slice end; /* range_end as given; set by interval_insert */

    /* Private to interval.c. */
    uint64_t hash;                     /* single: of key; range: the treap's priority */
    struct interval_node *left;        /* range: child; single: next head in the bucket */
    struct interval_node *right;       /* range: child; single: next node of the same key */
    struct interval_node *max;         /* range: who has the greatest end below here; single: previous of the same key */
    uint8_t kind;                      /* 0: in no index */
};

struct interval_index;

struct interval_index *interval_index_new(void);
void interval_index_free(struct interval_index *ix); /* forgets the nodes, does not touch them */

/* Inserts node (zero-initialised, or removed before) for [key, end) in the notation above. Borrows the bytes. */
void interval_insert(struct interval_index *ix, struct interval_node *node, struct slice key, struct slice end);
/* Removes node; does nothing if it is in no index. */
void interval_remove(struct interval_index *ix, struct interval_node *node);
bool interval_is_in(const struct interval_node *node);
size_t interval_count(const struct interval_index *ix);

/* Calls cb for every node whose range holds key: single keys first, then ranges in order of key, end.
 * cb must not insert into or remove from ix. */
typedef void interval_cb(struct interval_node *node, void *arg);
void interval_stab(const struct interval_index *ix, struct slice key, interval_cb *cb, void *arg);

/* Does the range (key, end) hold k? The same notation, for one range. */
bool interval_holds(struct slice key, struct slice end, struct slice k);

#endif
