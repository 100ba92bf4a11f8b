/* wal_index - an array that grows at its end and is forgotten from its front. The front's room is taken back when
 * it is the larger half, so that adding and dropping stay constant on average. */
#include "raftd/wal_index.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

#define WAL_INDEX_CAP_MIN 1024

void wal_index_init(struct wal_index *x, uint64_t first)
{
    *x = (struct wal_index){.first = first};
}

void wal_index_fini(struct wal_index *x)
{
    free(x->slots);
    x->slots = NULL;
}

struct wal_slot *wal_index_add(struct wal_index *x)
{
    if (x->head + x->count == x->cap) {
        if (x->head > x->cap / 2) {
            memmove(x->slots, x->slots + x->head, x->count * sizeof(*x->slots));
            x->head = 0;
        } else {
            x->cap = MAX(x->cap * 2, WAL_INDEX_CAP_MIN);
            x->slots = xrealloc(x->slots, x->cap * sizeof(*x->slots));
        }
    }
    struct wal_slot *slot = &x->slots[x->head + x->count++];
    memset(slot, 0, sizeof(*slot));
    return slot;
}

struct wal_slot *wal_index_at(const struct wal_index *x, uint64_t index)
{
    if (index < x->first || index - x->first >= x->count)
        return NULL;
    return &x->slots[x->head + (index - x->first)];
}

void wal_index_cut(struct wal_index *x, uint64_t from)
{
    must(from >= x->first);
    x->count = MIN(x->count, (size_t)(from - x->first));
}

void wal_index_drop(struct wal_index *x, uint64_t below)
{
    if (below <= x->first)
        return;
    size_t gone = (size_t)MIN(below - x->first, (uint64_t)x->count);
    x->head += gone;
    x->count -= gone;
    x->first = below;
    /* After a large drop the memory goes back. */
    if (x->cap > 16 * WAL_INDEX_CAP_MIN && x->count < x->cap / 8) {
        size_t cap = MAX(x->count * 2, WAL_INDEX_CAP_MIN);
        struct wal_slot *slots = xmalloc(cap * sizeof(*slots));

        memcpy(slots, x->slots + x->head, x->count * sizeof(*slots));
        free(x->slots);
        x->slots = slots;
        x->cap = cap;
        x->head = 0;
    }
}
