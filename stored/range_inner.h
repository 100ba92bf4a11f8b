/* range_inner - a range between its request and its bytes: resolved against the index (range.c), filtered and sorted if it asks
 * for that (range_sort.c), given in parts (range_job.c). */
#ifndef STORED_RANGE_INNER_H
#define STORED_RANGE_INNER_H

#include "stored/mvcc_inner.h"

/* A result with what filters, sorting and keys_only need to know about it. */
struct found {
    struct change at;
    bool known;     /* create and version are */
    uint32_t key_len;
    size_t key;     /* offset in range.keys */
    size_t record;  /* offset in range.records, if they were read */
    int64_t create, version;
    struct slice value;
    int64_t lease;
};

#define RANGE_FEW 4

struct range {
    const struct api_range *rq; /* while resolving */
    struct api_interval in;
    int64_t header_rev; /* current revision when it was resolved */
    int64_t rev;        /* the state that is read: compacted <= rev <= header_rev */
    bool locked;        /* the caller holds m->lock for the whole time */
    bool plain;         /* key order, no filters, not keys_only: items straight from the index */

    int64_t count;      /* keys in the interval */
    bool more;
    struct change *items; /* results in order; len is the size of what is sent */
    size_t *memory;       /* for each item: its bytes' offset in bytes, + 1; 0: read the record. NULL: all 0 */
    size_t item_count, item_cap;
    struct buf bytes;

    struct found *found; /* not plain */
    size_t found_count, found_cap;
    struct buf keys, records;

    struct change few[RANGE_FEW]; /* items and memory of small results */
    size_t few_memory[RANGE_FEW];
};

void range_init(struct range *r, const struct api_range *rq, bool locked);
void range_fini(struct range *r);
/* Fills items, count, more. pin: the newest revision that may be seen, -1: the current one. 0, E_FUTURE_REV, E_COMPACTED (also
 * when compaction passed by; then *passed is set and a new pin may succeed), E_DAMAGED, E_IO. */
int range_resolve(struct mvcc *m, struct range *r, int64_t pin, bool *passed);
/* Reads all items that are not in memory yet. */
int range_read_all(struct mvcc *m, struct range *r);
size_t range_kvs_size(const struct range *r, size_t from, size_t to);
/* Appends items [from, to) as field 2 of a RangeResponse. */
int range_add_kvs(struct mvcc *m, const struct db_snapshot *snap, const struct range *r, size_t from, size_t to,
                  struct buf *out);
void range_add_tail(const struct range *r, struct buf *out); /* more and count */

/* range_sort.c: found -> items, by §3's rules 3 */
bool range_is_sorted(const struct api_range *rq); /* needs sorting, after the default order */
bool range_is_filtered(const struct api_range *rq);
int range_finish_found(struct mvcc *m, struct range *r);

#endif
