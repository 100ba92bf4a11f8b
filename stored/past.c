/* past - past events to gateways, one slice per request, for watchers that are behind.
 * From in.c (HISTORY) and feed.c (a gateway's own feed fell behind the ring); from ring.h on the loop's thread when the slice
 * is there, else from mvcc_history on a worker; to out.c.
 *
 *      HISTORY -> near --in the ring--> PAST* PAST_END
 *                  |  \-- not (any more) --> far --one job at a time--> PAST* PAST_END
 *
 * Fairness: gateways take turns, requests of one gateway wait in line; one slice of the store is read at a time, so that any
 * number of watchers far behind leaves the other workers to reads; and what is looked at in the ring per turn is bounded,
 * so that apply goes on. A gateway whose link is full is passed over until it is drained.
 *
 * The join: PAST_END.feed_rev is the gateway's cursor (feed.c). A slice from the ring ends at the current revision, so its `next`
 * lies above the cursor and the watcher is in step; a slice from the store ends at the revision at which it was begun, and the
 * gateway asks on, until the ring has the rest. */
#include "stored/stored.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/api.h"

struct history_request {
    TAILQ_ENTRY(history_request) link; /* of near or far */
    uint64_t token;
    int64_t from;
    bool want_prev;
    bool is_feed; /* the gateway's own feed: all keys, goes out as EVENT */
    struct api_interval in; /* points into data */
    uint8_t data[];
};

struct history_job {
    struct stored *s;
    struct gateway *g;
    uint64_t epoch;
    struct history_request *rq;
    int64_t to, next;
    int err;
    struct buf events; /* struct ring_event, each at a multiple of 8 */
};

/* Puts events out with `last` on the last one of each revision, which is known only when the next one comes. */
struct sender {
    struct gateway *g;
    const struct history_request *rq;
    const struct ring_event *held;
};

static void sender_emit(struct sender *out, bool last)
{
    if (!out->held)
        return;
    if (out->rq->is_feed)
        out_event(out->g, out->held, last);
    else
        out_past(out->g, out->rq->token, out->held, last, out->rq->want_prev);
}

static void sender_add(struct sender *out, const struct ring_event *e)
{
    sender_emit(out, out->held && out->held->main != e->main);
    out->held = e;
}

/* --- asking -------------------------------------------------------------------------------------------------- */

static struct history_request *request_new(struct slice key, struct slice end)
{
    struct history_request *rq = xcalloc(1, sizeof *rq + key.len + end.len);

    if (key.len)
        memcpy(rq->data, key.data, key.len);
    if (end.len)
        memcpy(rq->data + key.len, end.data, end.len);
    rq->in = api_interval(slice_of(rq->data, key.len), slice_of(rq->data + key.len, end.len));
    return rq;
}

int past_ask(struct gateway *g, const struct fr_history *fr)
{
    struct history_request *rq;

    if (g->history_count >= HISTORY_QUEUE_MAX)
        return E_TOO_BIG;
    rq = request_new(fr->key, fr->range_end);
    rq->token = fr->token;
    rq->from = fr->from;
    rq->want_prev = fr->want_prev != 0;
    TAILQ_INSERT_TAIL(&g->near, rq, link);
    g->history_count++;
    return 0;
}

void past_ask_feed(struct gateway *g)
{
    const struct slice zero = slice_of("\0", 1);
    struct history_request *rq = request_new(zero, zero);

    must(!g->feed_far);
    g->feed_far = true;
    rq->is_feed = true;
    rq->from = g->sent_rev + 1;
    rq->want_prev = g->prev_ranges > 0;
    TAILQ_INSERT_HEAD(&g->far, rq, link);
    g->history_count++;
    log_debug("feed: gateway %u is at revision %lld, the ring begins at %lld: fetched from the store", g->slot,
              (long long)g->sent_rev, (long long)ring_start(g->s->ring));
    past_pump(g->s);
}

/* --- near: from the ring -------------------------------------------------------------------------------------- */

/* Where a slice that begins at `from` ends: position, and the revision to go on from. false: the store must be asked. */
static bool near_extent(struct stored *s, const struct history_request *rq, uint64_t *end, int64_t *next, size_t *looked)
{
    uint64_t start = ring_find(s->ring, rq->from), pos = start, begin = start;
    size_t revs = 0, bytes = 0;
    const struct ring_event *e;
    int64_t main = -1;

    for (; (e = ring_at(s->ring, pos)) != NULL; pos++, (*looked)++) {
        if (e->main != main) {
            if (revs == HISTORY_SLICE_REVS || bytes >= HISTORY_SLICE_BYTES)
                break;
            revs++;
            main = e->main;
            begin = pos;
        }
        if (!api_interval_has(&rq->in, ring_key(e)))
            continue;
        if (rq->want_prev && !e->prev_known) {
            if (begin == start)
                return false;
            pos = begin; /* what comes before can be given */
            break;
        }
        bytes += (size_t)e->key_len + e->kv_len + e->prev_len;
    }
    *end = pos;
    e = ring_at(s->ring, pos);
    *next = e ? e->main : mvcc_rev(s->mvcc) + 1;
    return true;
}

/* True if the request was answered. */
static bool serve_near(struct gateway *g, const struct history_request *rq, size_t *looked)
{
    struct sender out = {.g = g, .rq = rq};
    struct stored *s = g->s;
    uint64_t end;
    int64_t next;

    if (rq->from < mvcc_compact_rev(s->mvcc)) {
        out_past_end(g, rq->token, rq->from, mvcc_compact_rev(s->mvcc));
        return true;
    }
    if (rq->from > mvcc_rev(s->mvcc)) {
        out_past_end(g, rq->token, rq->from, 0);
        return true;
    }
    if (rq->from < ring_start(s->ring) || !near_extent(s, rq, &end, &next, looked))
        return false;
    for (uint64_t pos = ring_find(s->ring, rq->from); pos < end; pos++) {
        const struct ring_event *e = ring_at(s->ring, pos);

        if (api_interval_has(&rq->in, ring_key(e)))
            sender_add(&out, e);
    }
    sender_emit(&out, true);
    out_past_end(g, rq->token, next, 0);
    s->stats.history_slices_near++;
    return true;
}

/* --- far: from the store ---------------------------------------------------------------------------------------- */

static void keep_event(void *arg, const struct mvcc_event *ev)
{
    struct history_job *job = arg;
    size_t bytes = sizeof(struct ring_event) + ev->key.len + ev->kv.len + ev->prev.len;
    struct ring_event *e = (void *)buf_extend(&job->events, (bytes + 7) & ~(size_t)7);
    uint8_t *at = e->data;

    *e = (struct ring_event){.main = ev->main,
                             .is_delete = ev->is_delete,
                             .prev_known = job->rq->want_prev,
                             .key_len = (uint32_t)ev->key.len,
                             .kv_len = (uint32_t)ev->kv.len,
                             .prev_len = (uint32_t)ev->prev.len};
    memcpy(at, ev->key.data, ev->key.len);
    if (ev->kv.len)
        memcpy(at + ev->key.len, ev->kv.data, ev->kv.len);
    if (ev->prev.len)
        memcpy(at + ev->key.len + ev->kv.len, ev->prev.data, ev->prev.len);
}

static const struct ring_event *job_event(const struct history_job *job, size_t *at)
{
    const struct ring_event *e;

    if (*at == job->events.len)
        return NULL;
    e = (const void *)(job->events.data + *at);
    *at += (sizeof *e + e->key_len + e->kv_len + e->prev_len + 7) & ~(size_t)7;
    return e;
}

static void far_work(void *arg)
{
    struct history_job *job = arg;
    const struct history_request *rq = job->rq;

    job->err = mvcc_history(job->s->mvcc, &rq->in, rq->from, job->to, rq->want_prev, HISTORY_SLICE_REVS,
                            HISTORY_SLICE_BYTES, keep_event, job, &job->next);
}

static void send_events(const struct history_job *job)
{
    struct sender out = {.g = job->g, .rq = job->rq};
    const struct ring_event *e;
    size_t at = 0;

    while ((e = job_event(job, &at)) != NULL)
        if (!job->rq->is_feed || feed_wants(job->g, ring_key(e)))
            sender_add(&out, e);
    sender_emit(&out, true);
}

static void feed_fetched(const struct history_job *job)
{
    struct gateway *g = job->g;

    g->feed_far = false;
    if (job->err) {
        log_warnx("feed: gateway %u was too slow, revision %lld is gone (%s): its link will start anew", g->slot,
                  (long long)job->rq->from, err_text(job->err));
        g->feed_lost = true;
        return;
    }
    send_events(job);
    g->sent_rev = MAX(g->sent_rev, job->next - 1);
    feed_send(g);
}

static void slice_fetched(const struct history_job *job)
{
    struct gateway *g = job->g;
    int64_t gone = mvcc_compact_rev(job->s->mvcc);

    if (job->err) {
        /* What cannot be read is gone for the watcher, as if it were compacted: its client must list again. */
        if (job->err != E_COMPACTED) {
            log_error("history: revision %lld cannot be read: %s", (long long)job->rq->from, err_text(job->err));
            gone = mvcc_rev(job->s->mvcc);
        }
        out_past_end(g, job->rq->token, job->rq->from, MAX(gone, 1));
        return;
    }
    send_events(job);
    out_past_end(g, job->rq->token, job->next, 0);
    job->s->stats.history_slices_far++;
}

static void far_done(void *arg)
{
    struct history_job *job = arg;
    struct stored *s = job->s;

    s->history_running = false;
    if (job->g->up && job->g->epoch == job->epoch) {
        if (job->rq->is_feed)
            feed_fetched(job);
        else
            slice_fetched(job);
    }
    free(job->rq);
    buf_fini(&job->events);
    free(job);
    past_pump(s);
}

static void far_start(struct gateway *g, struct history_request *rq)
{
    struct history_job *job = xcalloc(1, sizeof *job);

    job->s = g->s;
    job->g = g;
    job->epoch = g->epoch;
    job->rq = rq;
    job->to = mvcc_rev(g->s->mvcc);
    g->s->history_running = true;
    loop_work(g->s->loop, far_work, far_done, job);
}

/* --- turns ---------------------------------------------------------------------------------------------------------- */

/* The next gateway, after the one whose turn it was, that waits in near (or far) and can be sent to; NULL if none. */
static struct gateway *next_turn(struct stored *s, bool near, unsigned *turn)
{
    for (unsigned i = 1; i <= GATEWAY_SLOTS; i++) {
        unsigned slot = (*turn + i - 1) % GATEWAY_SLOTS + 1;
        struct gateway *g = &s->gateways[slot];

        if (!g->up || link_is_full(g->link) || TAILQ_EMPTY(near ? &g->near : &g->far))
            continue;
        *turn = slot;
        return g;
    }
    return NULL;
}

void past_pump(struct stored *s)
{
    struct history_request *rq;
    struct gateway *g;
    size_t looked = 0;

    if (s->stopping)
        return;
    while (looked < HISTORY_TURN_EVENTS && (g = next_turn(s, true, &s->history_turn_near)) != NULL) {
        rq = TAILQ_FIRST(&g->near);
        TAILQ_REMOVE(&g->near, rq, link);
        looked++;
        if (!serve_near(g, rq, &looked)) {
            TAILQ_INSERT_TAIL(&g->far, rq, link);
            continue;
        }
        g->history_count--;
        free(rq);
    }
    if (looked >= HISTORY_TURN_EVENTS)
        loop_timer_set(s->history_timer, loop_now_ms(s->loop));
    if (!s->history_running && (g = next_turn(s, false, &s->history_turn_far)) != NULL) {
        rq = TAILQ_FIRST(&g->far);
        TAILQ_REMOVE(&g->far, rq, link);
        g->history_count--;
        far_start(g, rq);
    }
}

static void history_timer_cb(void *arg, uint64_t now_ms)
{
    UNUSED(now_ms);
    past_pump(arg);
}

static void queue_free(struct history_queue *q)
{
    struct history_request *rq;

    while ((rq = TAILQ_FIRST(q)) != NULL) {
        TAILQ_REMOVE(q, rq, link);
        free(rq);
    }
}

void past_gateway_down(struct gateway *g)
{
    queue_free(&g->near);
    queue_free(&g->far);
    g->history_count = 0;
}

void past_init(struct stored *s)
{
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++) {
        TAILQ_INIT(&s->gateways[slot].near);
        TAILQ_INIT(&s->gateways[slot].far);
    }
    s->history_timer = loop_timer_new(s->loop, history_timer_cb, s);
}

void past_fini(struct stored *s)
{
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++)
        past_gateway_down(&s->gateways[slot]);
    loop_timer_free(s->history_timer);
    s->history_timer = NULL;
}
