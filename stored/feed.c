/* feed - live events to gateways: what each wants to hear of, and how far it has been told.
 * From mvcc's on_event into ring.h while a command runs; after the batch is written feed_send brings each gateway up to the
 * current revision: one EVENT per event and gateway, however many watchers it has. A gateway is a cursor (sent_rev):
 *
 *      in step --its link is full--> waits, cursor stays --drained--> sent from the ring --cursor fell off the ring-->
 *      fetched from the store by past.c --> in step;      overtaken by compaction: feed_lost, the link starts anew
 *
 * so apply never waits for a gateway, and nothing is kept for one. PAST_END and WATCHING carry the cursor, which is what
 * makes the join of history and live events exact. */
#include "stored/stored.h"

#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "common/err.h"
#include "common/interval.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"

struct watch_range {
    struct interval_node node;
    UT_hash_handle hh;
    uint64_t id;
    bool want_prev;
    uint8_t data[]; /* key, range_end */
};

static void range_wants_prev(struct interval_node *node, void *arg)
{
    if (container_of(node, struct watch_range, node)->want_prev)
        *(bool *)arg = true;
}

static void range_hit(struct interval_node *node, void *arg)
{
    UNUSED(node);
    *(bool *)arg = true;
}

bool feed_wants(const struct gateway *g, struct slice key)
{
    bool hit = false;

    interval_stab(g->ranges, key, range_hit, &hit);
    return hit;
}

size_t feed_range_count(const struct gateway *g)
{
    return interval_count(g->ranges);
}

static bool want_prev(void *arg, struct slice key)
{
    struct stored *s = arg;
    bool wanted = false;

    for (unsigned slot = 1; slot <= GATEWAY_SLOTS && !wanted; slot++) {
        const struct gateway *g = &s->gateways[slot];

        if (g->prev_ranges)
            interval_stab(g->ranges, key, range_wants_prev, &wanted);
    }
    return wanted;
}

/* mvcc asks want_prev just before, for the same key, so asking again gives what prev was filled by. */
static void on_event(void *arg, const struct mvcc_event *ev)
{
    struct stored *s = arg;

    ring_push(s->ring, ev, ev->prev.len > 0 || want_prev(arg, ev->key));
}

void feed_hooks(struct stored *s)
{
    struct mvcc_hooks hooks = {.want_prev = want_prev, .on_event = on_event, .arg = s};

    s->ring = ring_new(EVENT_RING_COUNT, EVENT_RING_BYTES_MAX, mvcc_rev(s->mvcc) + 1);
    mvcc_set_hooks(s->mvcc, &hooks);
}

void feed_gateway_up(struct gateway *g)
{
    must(!g->ranges);
    g->ranges = interval_index_new();
    g->prev_ranges = 0;
    g->sent_rev = mvcc_rev(g->s->mvcc);
    g->feed_far = false;
    g->feed_lost = false;
}

void feed_gateway_down(struct gateway *g)
{
    struct watch_range *r, *next;

    HASH_ITER(hh, g->range_by_id, r, next) {
        HASH_DELETE(hh, g->range_by_id, r);
        interval_remove(g->ranges, &r->node);
        free(r);
    }
    interval_index_free(g->ranges);
    g->ranges = NULL;
    g->prev_ranges = 0;
}

static void range_want_prev(struct gateway *g, struct watch_range *r, bool wanted)
{
    if (wanted && !r->want_prev) {
        r->want_prev = true;
        g->prev_ranges++;
    }
}

int feed_watch(struct gateway *g, const struct fr_watch *fr)
{
    struct watch_range *r = NULL;

    if (fr->range_id) {
        HASH_FIND(hh, g->range_by_id, &fr->range_id, sizeof fr->range_id, r);
        if (!r && HASH_COUNT(g->range_by_id) >= WATCH_RANGES_MAX)
            return E_TOO_BIG;
    }
    /* What is due goes first, so that the answer's revision is the current one whenever the link has room. */
    feed_send(g);
    if (fr->range_id && !r) {
        r = xcalloc(1, sizeof *r + fr->key.len + fr->range_end.len);
        r->id = fr->range_id;
        if (fr->key.len)
            memcpy(r->data, fr->key.data, fr->key.len);
        if (fr->range_end.len)
            memcpy(r->data + fr->key.len, fr->range_end.data, fr->range_end.len);
        interval_insert(g->ranges, &r->node, slice_of(r->data, fr->key.len),
                        slice_of(r->data + fr->key.len, fr->range_end.len));
        HASH_ADD(hh, g->range_by_id, id, sizeof r->id, r);
    }
    if (r)
        range_want_prev(g, r, fr->want_prev);
    out_watching(g, fr->token);
    return 0;
}

void feed_unwatch(struct gateway *g, uint64_t range_id)
{
    struct watch_range *r;

    HASH_FIND(hh, g->range_by_id, &range_id, sizeof range_id, r);
    if (!r)
        return;
    if (r->want_prev)
        g->prev_ranges--;
    HASH_DELETE(hh, g->range_by_id, r);
    interval_remove(g->ranges, &r->node);
    free(r);
}

/* All events of one revision, from pos on; returns the position behind it. The last one that matters says so. */
static uint64_t send_revision(struct gateway *g, uint64_t pos, int64_t rev)
{
    const struct ring_event *e, *hit = NULL;

    for (; (e = ring_at(g->s->ring, pos)) != NULL && e->main == rev; pos++) {
        if (!feed_wants(g, ring_key(e)))
            continue;
        if (hit)
            out_event(g, hit, false);
        hit = e;
    }
    if (hit)
        out_event(g, hit, true);
    return pos;
}

void feed_send(struct gateway *g)
{
    struct stored *s = g->s;
    int64_t rev = mvcc_rev(s->mvcc);
    const struct ring_event *e;
    uint64_t pos;

    if (!g->up || g->feed_far || g->feed_lost || g->sent_rev >= rev)
        return;
    must(!s->in_batch); /* the ring has whole revisions only between batches */
    if (interval_count(g->ranges) == 0) {
        g->sent_rev = rev;
        return;
    }
    if (g->sent_rev + 1 < ring_start(s->ring)) {
        if (!link_is_full(g->link))
            past_ask_feed(g);
        return;
    }
    pos = ring_find(s->ring, g->sent_rev + 1);
    while (!link_is_full(g->link) && (e = ring_at(s->ring, pos)) != NULL) {
        int64_t main = e->main;

        pos = send_revision(g, pos, main);
        g->sent_rev = main;
    }
    if (!ring_at(s->ring, pos))
        g->sent_rev = rev;
}
