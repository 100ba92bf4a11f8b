/* ring - recent events in memory, in order of (main, sub): what live feeds and nearly caught-up watchers are served from.
 * Filled by apply (through feed.c), read by feed.c and past.c, all on the loop's thread.
 * Holds at all times: every event of every revision in [ring_start, current] is here; count and bytes are within their
 * limits (a revision that alone is larger than the ring is not in it, and start lies above it). */
#ifndef STORED_RING_H
#define STORED_RING_H

#include "common/base.h"
#include "stored/mvcc.h"

struct ring;

struct ring_event {
    int64_t main;
    bool is_delete;
    bool prev_known; /* prev is the record before, or there was none; else nobody wanted it */
    uint32_t key_len, kv_len, prev_len;
    uint8_t data[]; /* key, kv, prev */
};

static inline struct slice ring_key(const struct ring_event *e) { return slice_of(e->data, e->key_len); }
static inline struct slice ring_kv(const struct ring_event *e) { return slice_of(e->data + e->key_len, e->kv_len); }
static inline struct slice ring_prev(const struct ring_event *e)
{
    return slice_of(e->data + e->key_len + e->kv_len, e->prev_len);
}

/* Empty; the first event will be of revision start or later. */
struct ring *ring_new(size_t count_max, size_t bytes_max, int64_t start);
void ring_free(struct ring *r);

void ring_push(struct ring *r, const struct mvcc_event *ev, bool prev_known); /* copies; drops the oldest revisions if it must */
int64_t ring_start(const struct ring *r);
size_t ring_count(const struct ring *r);
size_t ring_bytes(const struct ring *r);

/* Position of the first event of revision `from` or later (from >= ring_start). Valid until the next push. */
uint64_t ring_find(const struct ring *r, int64_t from);
const struct ring_event *ring_at(const struct ring *r, uint64_t pos); /* NULL: past the newest */

#endif
