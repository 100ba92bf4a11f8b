/* ring - a circular array of pointers; positions count events ever pushed, so a position stays meaningful while it lives. */
#include "stored/ring.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

struct ring {
    struct ring_event **slots;
    size_t count_max, bytes_max;
    uint64_t head, tail; /* events are at [head, tail), slot = position % count_max */
    size_t bytes;
    int64_t start;
};

static size_t event_bytes(const struct ring_event *e)
{
    return sizeof *e + e->key_len + e->kv_len + e->prev_len;
}

struct ring *ring_new(size_t count_max, size_t bytes_max, int64_t start)
{
    struct ring *r = xcalloc(1, sizeof *r);

    must(count_max > 0);
    r->slots = xcalloc(count_max, sizeof *r->slots);
    r->count_max = count_max;
    r->bytes_max = bytes_max;
    r->start = start;
    return r;
}

static void ring_drop_oldest(struct ring *r)
{
    struct ring_event *e = r->slots[r->head % r->count_max];

    r->head++;
    r->bytes -= event_bytes(e);
    r->start = e->main + 1;
    free(e);
}

/* Whole revisions only: half a revision is of no use, and start could not tell. */
static void ring_drop_oldest_revision(struct ring *r)
{
    int64_t main = r->slots[r->head % r->count_max]->main;

    while (r->head < r->tail && r->slots[r->head % r->count_max]->main == main)
        ring_drop_oldest(r);
}

void ring_free(struct ring *r)
{
    if (!r)
        return;
    while (r->head < r->tail)
        ring_drop_oldest(r);
    free(r->slots);
    free(r);
}

void ring_push(struct ring *r, const struct mvcc_event *ev, bool prev_known)
{
    size_t bytes = sizeof(struct ring_event) + ev->key.len + ev->kv.len + ev->prev.len;
    struct ring_event *e;
    uint8_t *at;

    while (r->head < r->tail && (r->tail - r->head == r->count_max || r->bytes + bytes > r->bytes_max))
        ring_drop_oldest_revision(r);
    if (bytes > r->bytes_max)
        r->start = ev->main + 1;
    if (ev->main < r->start) /* its revision is too large: the first events of it were just dropped */
        return;
    must(r->head == r->tail || ev->main >= r->slots[(r->tail - 1) % r->count_max]->main);

    e = xmalloc(bytes);
    *e = (struct ring_event){.main = ev->main,
                             .is_delete = ev->is_delete,
                             .prev_known = prev_known,
                             .key_len = (uint32_t)ev->key.len,
                             .kv_len = (uint32_t)ev->kv.len,
                             .prev_len = (uint32_t)ev->prev.len};
    at = e->data;
    if (ev->key.len)
        memcpy(at, ev->key.data, ev->key.len);
    if (ev->kv.len)
        memcpy(at + ev->key.len, ev->kv.data, ev->kv.len);
    if (ev->prev.len)
        memcpy(at + ev->key.len + ev->kv.len, ev->prev.data, ev->prev.len);
    r->slots[r->tail % r->count_max] = e;
    r->tail++;
    r->bytes += bytes;
}

int64_t ring_start(const struct ring *r)
{
    return r->start;
}

size_t ring_count(const struct ring *r)
{
    return (size_t)(r->tail - r->head);
}

size_t ring_bytes(const struct ring *r)
{
    return r->bytes;
}

uint64_t ring_find(const struct ring *r, int64_t from)
{
    uint64_t low = r->head, high = r->tail;

    must(from >= r->start);
    while (low < high) {
        uint64_t mid = low + (high - low) / 2;

        if (r->slots[mid % r->count_max]->main < from)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

const struct ring_event *ring_at(const struct ring *r, uint64_t pos)
{
    must(pos >= r->head);
    return pos < r->tail ? r->slots[pos % r->count_max] : NULL;
}
