/* wal_index - where each entry of the log is: 24 bytes of memory per entry, no bytes of the entry itself.
 * Belongs to wal.c; filled by wal_recover.c at start. Slots are in order of index, without gaps. */
#ifndef RAFTD_WAL_INDEX_H
#define RAFTD_WAL_INDEX_H

#include "common/base.h"

struct wal_slot {
    uint64_t term;
    uint32_t segment; /* low half of its segment's number: no more than 2^31 are ever alive */
    uint32_t place;   /* offset of the record / 8; 0: not laid out yet */
    uint32_t length;  /* of the payload */
    uint32_t kind;    /* enum entry_kind */
};

struct wal_index {
    uint64_t first; /* index of the first slot; first + count is the next to come */
    struct wal_slot *slots;
    size_t head; /* position of the first slot */
    size_t count;
    size_t cap; /* head + count <= cap */
};

void wal_index_init(struct wal_index *x, uint64_t first);
void wal_index_fini(struct wal_index *x);
struct wal_slot *wal_index_add(struct wal_index *x);                      /* slot of first + count */
struct wal_slot *wal_index_at(const struct wal_index *x, uint64_t index); /* NULL if not there */
void wal_index_cut(struct wal_index *x, uint64_t from);                   /* forgets from and after */
void wal_index_drop(struct wal_index *x, uint64_t below);                 /* forgets what is before */
static inline uint64_t wal_index_last(const struct wal_index *x)
{
    return x->first + x->count - 1;
}

#endif
