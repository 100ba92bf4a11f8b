/* watch_rig - watch.c and watch_feed.c between a fake client (call_*) and a fake stored (out_*), all in one thread.
 *
 * The stored of the rig keeps every event there ever was, answers WATCH and HISTORY as frames.h says, and has two
 * queues, to and from the gateway, which a test moves as slowly as it likes: that is where joins go wrong. A message of
 * the fake client's queue counts as 256 KiB, so that 17 of them make a slow client. Included by test_watch.c only. */
#ifndef TESTS_GATEWAYD_WATCH_RIG_H
#define TESTS_GATEWAYD_WATCH_RIG_H

#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "common/err.h"
#include "common/mem.h"
#include "etcd/rpc.pb-c.h"
#include "gatewayd/watch.h"
#include "proto/pb.h"
#include "tests/proto/seed.h"

#define MESSAGE_COUNTS_AS (256 * KIB)

/* --- the client -------------------------------------------------------------------------------------------------- */

struct call {
    struct gatewayd *g;
    void *state;
    size_t unread; /* messages */
    bool above_low, paused, over;
    int end_err;
    Etcdserverpb__WatchResponse **said;
    size_t said_count, taken; /* taken: how many the test has looked at */
    struct buf held;          /* requests that came while paused: length, bytes */
};

struct gatewayd *call_gateway(struct call *c)
{
    return c->g;
}
void call_set_state(struct call *c, void *state)
{
    c->state = state;
}
void *call_state(const struct call *c)
{
    return c->state;
}
size_t call_queued_bytes(const struct call *c)
{
    return c->unread * MESSAGE_COUNTS_AS;
}
bool call_is_over(const struct call *c)
{
    return c->over;
}

/* Auth: off, unless a test says otherwise; then the question of each creation waits for its answer. */
static struct {
    bool on;
    int identity_err;
    answer_cb *cb; /* of the question under way; NULL: none */
    void *arg;
    struct buf asked; /* its body */
    size_t count, cancelled;
} rig_auth;

const struct identity IDENTITY_NONE = {.user = {NULL, 0}, .auth_rev = 0};

const struct identity *call_identity(const struct call *c)
{
    UNUSED(c);
    return &IDENTITY_NONE;
}
int call_identity_err(const struct call *c)
{
    UNUSED(c);
    return rig_auth.identity_err;
}
bool identity_auth_may_be_on(const struct gatewayd *g)
{
    UNUSED(g);
    return rig_auth.on;
}
int auth_authorize(struct gatewayd *g, const struct identity *who, struct slice body, answer_cb *cb, void *arg, uint64_t *req)
{
    UNUSED(g);
    UNUSED(who);
    cr_assert_null(rig_auth.cb);
    rig_auth.cb = cb;
    rig_auth.arg = arg;
    buf_reset(&rig_auth.asked);
    buf_add_slice(&rig_auth.asked, body);
    *req = ++rig_auth.count;
    return OK;
}
void pending_cancel(struct gatewayd *g, uint64_t req)
{
    UNUSED(g);
    UNUSED(req);
    rig_auth.cb = NULL;
    rig_auth.cancelled++;
}

void call_end(struct call *c, int err, const char *text)
{
    UNUSED(text);
    c->over = true;
    c->end_err = err;
}

void call_send(struct call *c, struct slice head, struct shared_bytes *const *pieces, size_t piece_count)
{
    struct buf b = BUF_INIT;
    if (c->over)
        return;
    buf_add_slice(&b, head);
    for (size_t i = 0; i < piece_count; i++)
        buf_add(&b, pieces[i]->data, pieces[i]->len);
    Etcdserverpb__WatchResponse *m = etcdserverpb__watch_response__unpack(NULL, b.len, b.data);
    cr_assert_not_null(m, "a response that is not protobuf");
    buf_fini(&b);
    c->said = xrealloc(c->said, (c->said_count + 1) * sizeof(*c->said));
    c->said[c->said_count++] = m;
    c->unread++;
    c->g->outbound_bytes += MESSAGE_COUNTS_AS;
    c->above_low |= call_queued_bytes(c) > CALL_QUEUE_LOW_BYTES;
}

static void rig_request(struct call *c, const Etcdserverpb__WatchRequest *m);

void call_pause(struct call *c, bool paused)
{
    bool was = c->paused;
    c->paused = paused;
    if (!was || paused)
        return;
    struct buf held = c->held;
    c->held = BUF_INIT;
    for (size_t at = 0; at < held.len;) {
        size_t len;
        memcpy(&len, held.data + at, sizeof(len));
        if (c->paused) {
            buf_add(&c->held, held.data + at, sizeof(len) + len);
        } else if (!c->over) {
            watch_message(c, slice_of(held.data + at + sizeof(len), len));
        }
        at += sizeof(len) + len;
    }
    buf_fini(&held);
}

struct shared_bytes *shared_bytes_new(size_t len)
{
    struct shared_bytes *s = xmalloc(sizeof(*s) + len);
    s->refs = 1;
    s->len = len;
    return s;
}

void shared_bytes_unref(struct shared_bytes *s)
{
    if (--s->refs == 0)
        free(s);
}

/* The client reads everything that waits for it. */
static void rig_read(struct call *c)
{
    c->g->outbound_bytes -= c->unread * MESSAGE_COUNTS_AS;
    c->unread = 0;
    if (c->above_low) {
        c->above_low = false;
        watch_writable(c);
    }
}

static void rig_request(struct call *c, const Etcdserverpb__WatchRequest *m)
{
    size_t len = etcdserverpb__watch_request__get_packed_size(m);
    uint8_t *bytes = xmalloc(len + 1);
    etcdserverpb__watch_request__pack(m, bytes);
    if (c->paused) {
        buf_add(&c->held, &len, sizeof(len));
        buf_add(&c->held, bytes, len);
    } else if (!c->over) {
        watch_message(c, slice_of(bytes, len));
    }
    free(bytes);
}

static void rig_create(struct call *c, const Etcdserverpb__WatchCreateRequest *create)
{
    Etcdserverpb__WatchRequest m = ETCDSERVERPB__WATCH_REQUEST__INIT;
    m.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    m.create_request = (Etcdserverpb__WatchCreateRequest *)(uintptr_t)create;
    rig_request(c, &m);
}

static Etcdserverpb__WatchCreateRequest rig_range(const char *key, const char *end, int64_t start)
{
    Etcdserverpb__WatchCreateRequest m = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    m.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)(uintptr_t)key};
    m.range_end = (ProtobufCBinaryData){strlen(end), (uint8_t *)(uintptr_t)end};
    m.start_revision = start;
    return m;
}

static void rig_watch(struct call *c, const char *key, const char *end, int64_t start)
{
    Etcdserverpb__WatchCreateRequest m = rig_range(key, end, start);
    rig_create(c, &m);
}

static void rig_cancel(struct call *c, int64_t id)
{
    Etcdserverpb__WatchCancelRequest cancel = ETCDSERVERPB__WATCH_CANCEL_REQUEST__INIT;
    Etcdserverpb__WatchRequest m = ETCDSERVERPB__WATCH_REQUEST__INIT;
    cancel.watch_id = id;
    m.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST;
    m.cancel_request = &cancel;
    rig_request(c, &m);
}

static void rig_progress(struct call *c)
{
    Etcdserverpb__WatchProgressRequest progress = ETCDSERVERPB__WATCH_PROGRESS_REQUEST__INIT;
    Etcdserverpb__WatchRequest m = ETCDSERVERPB__WATCH_REQUEST__INIT;
    m.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    m.progress_request = &progress;
    rig_request(c, &m);
}

/* --- stored ------------------------------------------------------------------------------------------------------- */

struct rig_event {
    int64_t rev;
    uint64_t type;
    char key[8];
    uint8_t kv[32];
    size_t kv_len;
    size_t value_len; /* of a value made of x's, for large events */
};

struct rig_range {
    uint64_t id;
    char key[8], end[8];
    size_t key_len, end_len;
};

enum rig_kind { RIG_WATCH, RIG_HISTORY, RIG_WATCHING, RIG_EVENT, RIG_PAST, RIG_PAST_END };
struct rig_frame {
    enum rig_kind kind;
    uint64_t token;
    int64_t rev, compact_rev, next, feed_rev; /* next: also `from` */
    size_t event;                             /* position */
    bool last;
    struct rig_range range;
};

struct rig_queue {
    struct rig_frame *frames;
    size_t first, count, cap;
};

static struct {
    struct gatewayd g;
    struct conf conf;
    uint64_t now_ms;
    struct rig_event *events;
    size_t event_count;
    int64_t rev, compact_rev, sent_rev;
    struct rig_range *ranges;
    size_t range_count, unwatches, watches, histories;
    size_t history_revs;      /* revisions per slice */
    struct rig_queue in, out; /* seen from stored */
} rig;

static struct rig_frame *queue_add(struct rig_queue *q)
{
    if (q->count == q->cap) {
        q->cap = q->cap ? 2 * q->cap : 64;
        q->frames = xrealloc(q->frames, q->cap * sizeof(*q->frames));
    }
    struct rig_frame *f = &q->frames[q->count++];
    memset(f, 0, sizeof(*f));
    return f;
}

uint64_t gatewayd_now_ms(const struct gatewayd *g)
{
    UNUSED(g);
    return rig.now_ms;
}
void deadline_set(struct gatewayd *g, struct deadline *d, uint64_t at_ms)
{
    UNUSED(g);
    d->timer.at_ms = at_ms;
}
void deadline_stop(struct gatewayd *g, struct deadline *d)
{
    UNUSED(g);
    UNUSED(d);
}

static struct rig_range range_of(uint64_t id, struct slice key, struct slice end)
{
    struct rig_range r = {.id = id, .key_len = key.len, .end_len = end.len};
    must(key.len <= sizeof(r.key) && end.len <= sizeof(r.end));
    memcpy(r.key, key.data ? key.data : (const uint8_t *)"", key.len);
    memcpy(r.end, end.data ? end.data : (const uint8_t *)"", end.len);
    return r;
}

void out_watch(struct gatewayd *g, uint64_t token, uint64_t range_id, bool want_prev, struct slice key,
               struct slice range_end)
{
    UNUSED(want_prev);
    if (!g->stored_up)
        return;
    rig.watches++;
    struct rig_frame *f = queue_add(&rig.in);
    f->kind = RIG_WATCH;
    f->token = token;
    f->range = range_of(range_id, key, range_end);
}

void out_unwatch(struct gatewayd *g, uint64_t range_id)
{
    if (!g->stored_up)
        return;
    rig.unwatches++;
    struct rig_frame *f = queue_add(&rig.in);
    f->kind = RIG_WATCH;
    f->next = -1; /* marks an UNWATCH */
    f->range.id = range_id;
}

void out_history(struct gatewayd *g, uint64_t token, int64_t from, bool want_prev, struct slice key,
                 struct slice range_end)
{
    UNUSED(want_prev);
    if (!g->stored_up)
        return;
    rig.histories++;
    struct rig_frame *f = queue_add(&rig.in);
    f->kind = RIG_HISTORY;
    f->token = token;
    f->next = from;
    f->range = range_of(0, key, range_end);
}

static bool range_has(const struct rig_range *r, const char *key)
{
    return interval_holds(slice_of(r->key, r->key_len), slice_of(r->end, r->end_len), slice_str(key));
}

/* One event of revision rev.. (rig.rev + 1 begins a new one). */
static void rig_add_event(int64_t rev, const char *key, uint64_t type, size_t value_len)
{
    struct buf kv = BUF_INIT;
    rig.events = xrealloc(rig.events, (rig.event_count + 1) * sizeof(*rig.events));
    struct rig_event *e = &rig.events[rig.event_count++];
    *e = (struct rig_event){.rev = rev, .type = type, .value_len = value_len};
    strcpy(e->key, key);
    pb_add_bytes(&kv, 1, slice_str(key));
    pb_add_int(&kv, 3, rev);
    memcpy(e->kv, kv.data, kv.len);
    e->kv_len = kv.len;
    buf_fini(&kv);
    rig.rev = rev;
}

static void rig_put(const char *key)
{
    rig_add_event(rig.rev + 1, key, 0, 0);
}

/* stored brings the gateway up to its revision: whole revisions, `last` on the last one that matters. */
static void rig_feed(void)
{
    for (size_t i = 0; i < rig.event_count && rig.g.stored_up; i++) {
        struct rig_event *e = &rig.events[i];
        bool wanted = false;
        for (size_t k = 0; e->rev > rig.sent_rev && k < rig.range_count; k++)
            wanted |= range_has(&rig.ranges[k], e->key);
        if (!wanted)
            continue;
        struct rig_frame *before = rig.out.count > rig.out.first ? &rig.out.frames[rig.out.count - 1] : NULL;
        if (before && before->kind == RIG_EVENT && rig.events[before->event].rev == e->rev)
            before->last = false;
        struct rig_frame *f = queue_add(&rig.out);
        f->kind = RIG_EVENT;
        f->event = i;
        f->last = true;
    }
    rig.sent_rev = rig.rev;
}

static void stored_watch(const struct rig_frame *f)
{
    size_t at = 0;
    while (at < rig.range_count && rig.ranges[at].id != f->range.id)
        at++;
    if (f->next == -1) {
        cr_assert_lt(at, rig.range_count, "UNWATCH of what was not watched");
        rig.ranges[at] = rig.ranges[--rig.range_count];
        return;
    }
    rig_feed();
    if (f->range.id && at == rig.range_count) {
        rig.ranges = xrealloc(rig.ranges, (rig.range_count + 1) * sizeof(*rig.ranges));
        rig.ranges[rig.range_count++] = f->range;
    }
    struct rig_frame *answer = queue_add(&rig.out);
    answer->kind = RIG_WATCHING;
    answer->token = f->token;
    answer->rev = rig.sent_rev;
    answer->compact_rev = rig.compact_rev;
}

static void stored_history(const struct rig_frame *f)
{
    int64_t next = f->next, upto = MIN(rig.rev, f->next + (int64_t)rig.history_revs - 1);
    bool gone = f->next < rig.compact_rev;
    for (size_t i = 0; i < rig.event_count && !gone; i++) {
        struct rig_event *e = &rig.events[i];
        if (e->rev < f->next || e->rev > upto || !range_has(&f->range, e->key))
            continue;
        struct rig_frame *past = queue_add(&rig.out);
        past->kind = RIG_PAST;
        past->token = f->token;
        past->event = i;
    }
    if (!gone)
        next = MAX(next, upto + 1);
    struct rig_frame *end = queue_add(&rig.out);
    end->kind = RIG_PAST_END;
    end->token = f->token;
    end->next = next;
    end->feed_rev = rig.sent_rev;
    end->compact_rev = gone ? rig.compact_rev : 0;
    end->rev = rig.rev;
}

/* stored takes one frame; false: there is none. */
static bool rig_stored_step(void)
{
    if (rig.in.first == rig.in.count)
        return false;
    struct rig_frame f = rig.in.frames[rig.in.first++];
    if (f.kind == RIG_WATCH)
        stored_watch(&f);
    else
        stored_history(&f);
    return true;
}

static void deliver(const struct rig_frame *f)
{
    struct gatewayd *g = &rig.g;
    struct buf kv = BUF_INIT;
    const struct rig_event *e = f->kind == RIG_EVENT || f->kind == RIG_PAST ? &rig.events[f->event] : NULL;
    if (e) {
        buf_add(&kv, e->kv, e->kv_len);
        if (e->value_len) {
            uint8_t *value = xcalloc(1, e->value_len);
            pb_add_bytes(&kv, 5, slice_of(value, e->value_len));
            free(value);
        }
    }
    switch (f->kind) {
    case RIG_WATCHING:
        watch_on_watching(g, &(struct fr_watching){.token = f->token, .rev = f->rev, .compact_rev = f->compact_rev});
        break;
    case RIG_EVENT:
        watch_on_event(g, &(struct fr_event){.rev = e->rev,
                                             .last = f->last,
                                             .type = e->type,
                                             .store_rev = e->rev,
                                             .key = slice_str(e->key),
                                             .kv = buf_slice(&kv)});
        break;
    case RIG_PAST:
        watch_on_past(
            g, &(struct fr_past){
                   .token = f->token, .rev = e->rev, .type = e->type, .key = slice_str(e->key), .kv = buf_slice(&kv)});
        break;
    default:
        watch_on_past_end(g, &(struct fr_past_end){.token = f->token,
                                                   .next = f->next,
                                                   .feed_rev = f->feed_rev,
                                                   .compact_rev = f->compact_rev,
                                                   .store_rev = f->rev});
    }
    buf_fini(&kv);
}

/* One message of at most `frames` frames reaches the gateway; false: there is none. */
static bool rig_deliver(size_t frames)
{
    if (rig.out.first == rig.out.count)
        return false;
    while (frames-- > 0 && rig.out.first < rig.out.count) {
        struct rig_frame f = rig.out.frames[rig.out.first++];
        deliver(&f);
    }
    watch_on_batch_end(&rig.g);
    return true;
}

/* Everything that is on its way arrives; clients do not read. */
static void rig_settle(void)
{
    bool moved = true;
    while (moved) {
        moved = rig_stored_step();
        if (!moved) {
            int64_t before = rig.sent_rev;
            rig_feed();
            moved = rig.sent_rev != before;
        }
        moved |= rig_deliver(SIZE_MAX);
    }
}

static void rig_down(void)
{
    rig.g.stored_up = false;
    rig.in.first = rig.in.count = rig.out.first = rig.out.count = 0;
    rig.range_count = 0;
    watch_on_stored_down(&rig.g);
}

static void rig_up(void)
{
    rig.g.stored_up = true;
    rig.sent_rev = rig.rev;
    watch_on_stored_up(&rig.g);
}

/* --- life ------------------------------------------------------------------------------------------------------------
 */

static void rig_start(void)
{
    memset(&rig, 0, sizeof(rig));
    rig.conf.watch_progress_notify_interval_ms = 1000;
    rig.g = (struct gatewayd){.conf = &rig.conf,
                              .instance = 1,
                              .message_bytes_max = 2 * MIB,
                              .cluster_id = 5,
                              .member_id = 6,
                              .term = 7,
                              .stored_up = true};
    rig.rev = rig.sent_rev = 1;
    rig.compact_rev = -1;
    rig.history_revs = 3;
    watch_start(&rig.g);
}

static struct call *rig_call(void)
{
    struct call *c = xcalloc(1, sizeof(*c));
    c->g = &rig.g;
    return c;
}

static void rig_close(struct call *c)
{
    watch_closed(c);
    cr_expect_null(c->state);
    rig.g.outbound_bytes -= c->unread * MESSAGE_COUNTS_AS;
    for (size_t i = 0; i < c->said_count; i++)
        etcdserverpb__watch_response__free_unpacked(c->said[i], NULL);
    free(c->said);
    buf_fini(&c->held);
    free(c);
}

static void rig_stop(void)
{
    cr_expect_eq(rig.g.watch->stream_count, 0);
    cr_expect_eq(rig.g.watch->watcher_count, 0);
    cr_expect_eq(HASH_COUNT(rig.g.watch->ranges), 0);
    cr_expect_eq(rig.g.watch->range_bytes, 0);
    cr_expect_eq(rig.g.outbound_bytes, 0);
    watch_stop(&rig.g);
    free(rig.events);
    free(rig.ranges);
    free(rig.in.frames);
    free(rig.out.frames);
}

/* The next thing the client was told; NULL: nothing new. */
static const Etcdserverpb__WatchResponse *rig_next(struct call *c)
{
    return c->taken < c->said_count ? c->said[c->taken++] : NULL;
}

#endif
