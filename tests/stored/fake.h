/* fake - a loop and links without threads, clocks and sockets, under the names of common/loop.h and proto/link.h, so that
 * stored's own files are tested as they are shipped. Included by one test file each; time is moved by hand, jobs run when the
 * test says so, and every frame that stored sends is kept, encoded and decoded again, for the test to take.
 *
 * A world is a stored with its store in a temporary directory, raftd and gateway 1 attached. */
#ifndef TESTS_STORED_FAKE_H
#define TESTS_STORED_FAKE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <criterion/criterion.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/mem.h"
#include "proto/api.h"
#include "proto/pb.h"
#include "stored/stored.h"

#define FAKE_CLUSTER 0xc1
#define FAKE_MEMBER 0xa1
#define FAKE_INSTANCE 0x77
#define FAKE_TERM 5
#define FAKE_QUEUE 64

/* --- loop --------------------------------------------------------------------------------------------------- */

struct loop_timer {
    struct loop *loop;
    loop_timer_cb *cb;
    void *arg;
    uint64_t at_ms; /* 0: not set */
    struct loop_timer *next;
};

struct fake_job {
    loop_work_cb *work, *done;
    void *arg;
};

struct loop {
    uint64_t now_ms;
    struct loop_timer *timers;
    struct fake_job jobs[FAKE_QUEUE];
    size_t job_count;
};

struct loop *loop_new(void)
{
    struct loop *l = xcalloc(1, sizeof *l);

    l->now_ms = 1000000;
    return l;
}

void loop_free(struct loop *l)
{
    cr_assert_null(l->timers, "a timer was not freed");
    free(l);
}

void loop_run(struct loop *l) { UNUSED(l); }
void loop_stop(struct loop *l) { UNUSED(l); }
struct uv_loop_s *loop_uv(struct loop *l) { UNUSED(l); return NULL; }
uint64_t loop_now_ms(const struct loop *l) { return l->now_ms; }
void loop_on_turn_end(struct loop *l, loop_turn_cb *cb, void *arg) { UNUSED(l); UNUSED(cb); UNUSED(arg); }
void loop_off_turn_end(struct loop *l, loop_turn_cb *cb, void *arg) { UNUSED(l); UNUSED(cb); UNUSED(arg); }
void loop_turn_again(struct loop *l) { UNUSED(l); }
struct loop_wake *loop_wake_new(struct loop *l, loop_wake_cb *cb, void *arg) { UNUSED(l); UNUSED(cb); UNUSED(arg); return NULL; }
void loop_wake(struct loop_wake *w) { UNUSED(w); }
void loop_wake_free(struct loop_wake *w) { UNUSED(w); }
void loop_signals(struct loop *l, void (*t)(void *), void (*h)(void *), void *a) { UNUSED(l); UNUSED(t); UNUSED(h); UNUSED(a); }

struct loop_timer *loop_timer_new(struct loop *l, loop_timer_cb *cb, void *arg)
{
    struct loop_timer *t = xcalloc(1, sizeof *t);

    t->loop = l;
    t->cb = cb;
    t->arg = arg;
    t->next = l->timers;
    l->timers = t;
    return t;
}

void loop_timer_set(struct loop_timer *t, uint64_t at_ms) { t->at_ms = at_ms ? at_ms : 1; }
void loop_timer_stop(struct loop_timer *t) { t->at_ms = 0; }

void loop_timer_free(struct loop_timer *t)
{
    struct loop_timer **at = &t->loop->timers;

    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    free(t);
}

void loop_work(struct loop *l, loop_work_cb *work, loop_work_cb *done, void *arg)
{
    cr_assert_lt(l->job_count, FAKE_QUEUE);
    l->jobs[l->job_count++] = (struct fake_job){work, done, arg};
}

size_t loop_work_pending(const struct loop *l) { return l->job_count; }

/* Runs one job, `work` and `done`; false if there was none. */
static inline bool fake_job_run(struct loop *l)
{
    struct fake_job job;

    if (!l->job_count)
        return false;
    job = l->jobs[0];
    l->job_count--;
    memmove(l->jobs, l->jobs + 1, l->job_count * sizeof job);
    job.work(job.arg);
    job.done(job.arg);
    return true;
}

static inline void fake_settle(struct loop *l)
{
    while (fake_job_run(l))
        ;
}

/* Moves time, and runs what is due on the way, timers and jobs. */
static inline void fake_advance(struct loop *l, uint64_t ms)
{
    uint64_t end = l->now_ms + ms;

    for (;;) {
        struct loop_timer *first = NULL;

        for (struct loop_timer *t = l->timers; t; t = t->next)
            if (t->at_ms && t->at_ms <= end && (!first || t->at_ms < first->at_ms))
                first = t;
        if (!first)
            break;
        l->now_ms = MAX(l->now_ms, first->at_ms);
        first->at_ms = 0;
        first->cb(first->arg, l->now_ms);
        fake_settle(l);
    }
    l->now_ms = end;
}

/* --- links ------------------------------------------------------------------------------------------------------ */

struct fake_sent {
    struct buf bytes;
    struct fake_sent *next;
};

struct link {
    const struct link_ops *ops;
    void *arg;
    struct fr_hello hello, peer;
    enum link_state state;
    bool full;
    struct fake_sent *first, **last;
    struct fake_sent *taken; /* lives until the next take */
};

struct link *link_new(struct loop *loop, const struct link_conf *conf, const struct link_ops *ops, void *arg)
{
    struct link *l = xcalloc(1, sizeof *l);

    UNUSED(loop);
    UNUSED(conf);
    l->ops = ops;
    l->arg = arg;
    l->last = &l->first;
    return l;
}

void link_set_hello(struct link *l, const struct fr_hello *hello) { l->hello = *hello; }
void link_start(struct link *l) { UNUSED(l); }
bool link_is_full(const struct link *l) { return l->full; }
size_t link_pending_bytes(const struct link *l) { UNUSED(l); return 0; }
void link_pause(struct link *l, bool paused) { UNUSED(l); UNUSED(paused); }
enum link_state link_state(const struct link *l) { return l->state; }
const struct fr_hello *link_peer(const struct link *l) { return l->state == LINK_UP ? &l->peer : NULL; }
const char *link_name(const struct link *l) { UNUSED(l); return "fake"; }
unsigned link_slot(const struct link *l) { UNUSED(l); return 0; }
const struct link_stats *link_stats(const struct link *l) { UNUSED(l); return NULL; }
void link_drain(struct link *l, unsigned ms) { UNUSED(l); UNUSED(ms); }

void link_kick(struct link *l, const char *why)
{
    UNUSED(why);
    if (l->state != LINK_UP)
        return;
    l->state = LINK_DOWN;
    l->full = false;
    l->ops->down(l, l->arg);
}

void link_send(struct link *l, const struct frame *frame)
{
    struct fake_sent *sent;

    if (l->state != LINK_UP)
        return;
    sent = xcalloc(1, sizeof *sent);
    frame_encode(&sent->bytes, frame);
    *l->last = sent;
    l->last = &sent->next;
}

/* Takes the oldest frame that stored sent; false if there is none. Its slices live until the next take. */
static inline bool fake_take(struct link *l, struct frame *frame)
{
    struct fake_sent *sent = l->first;
    struct slice bytes;

    if (!sent)
        return false;
    if (l->taken) {
        buf_fini(&l->taken->bytes);
        free(l->taken);
    }
    l->taken = sent;
    l->first = sent->next;
    if (!l->first)
        l->last = &l->first;
    bytes = buf_slice(&sent->bytes);
    cr_assert_eq(frame_decode(&bytes, frame), 1);
    return true;
}

/* Takes frames until one of `type`; false if none came. */
static inline bool fake_take_type(struct link *l, enum frame_type type, struct frame *frame)
{
    while (fake_take(l, frame))
        if (frame->type == type)
            return true;
    return false;
}

static inline void fake_drop_all(struct link *l)
{
    struct frame frame;

    while (fake_take(l, &frame))
        ;
}

void link_free(struct link *l)
{
    fake_drop_all(l);
    if (l->taken)
        buf_fini(&l->taken->bytes);
    free(l->taken);
    free(l);
}

static inline void fake_up(struct link *l, uint64_t instance)
{
    l->peer = (struct fr_hello){.instance = instance, .cluster_id = FAKE_CLUSTER, .member_id = FAKE_MEMBER};
    l->state = LINK_UP;
    cr_assert_eq(l->ops->up(l, &l->peer, l->arg), 0);
}

static inline void fake_down(struct link *l)
{
    l->state = LINK_DOWN;
    l->full = false;
    fake_drop_all(l);
    l->ops->down(l, l->arg);
}

/* One message of one frame. */
static inline int fake_in(struct link *l, const struct frame *frame)
{
    int err = l->ops->frame(l, frame, l->arg);

    if (!err)
        l->ops->batch_end(l, l->arg);
    return err;
}

/* --- world ---------------------------------------------------------------------------------------------------------- */

struct world {
    struct conf conf;
    struct loop *loop;
    struct stored s;
    struct link *raft, *gate; /* gate: gateway 1 */
    char dir[64];
    uint64_t index, req;
};

static inline void world_lead(struct world *w, uint64_t term, uint64_t leader)
{
    cr_assert_eq(fake_in(w->raft, FRAME(lead, LEAD, .cluster_id = FAKE_CLUSTER, .member_id = FAKE_MEMBER, .term = term,
                                        .leader = leader, .commit = w->index)), 0);
}

static inline void world_open(struct world *w)
{
    stored_init(&w->s, &w->conf, w->loop);
    stored_links(&w->s);
    w->raft = w->s.raft;
    w->gate = w->s.gateways[1].link;
    fake_up(w->raft, 1);
    world_lead(w, FAKE_TERM, FAKE_MEMBER);
    fake_up(w->gate, FAKE_INSTANCE);
    fake_drop_all(w->raft);
}

static inline struct world *world_new(void)
{
    struct world *w = xcalloc(1, sizeof *w);
    char store[80];

    snprintf(w->dir, sizeof w->dir, "/tmp/trine-test-stored-XXXXXX");
    cr_assert_not_null(mkdtemp(w->dir));
    snprintf(store, sizeof store, "%s/store", w->dir);
    cr_assert_eq(mkdir(store, 0700), 0);
    w->conf = (struct conf){.election_timeout_ms = 1000,
                            .cache_bytes = MIB,
                            .auto_compaction_mode = "periodic",
                            .auto_compaction_retention = "0",
                            .compaction_batch_limit = 1000,
                            .compaction_sleep_interval_ms = 10};
    w->conf.data_dir = xstrdup(w->dir);
    w->conf.raftd_url = "ipc:///nowhere/r";
    w->conf.stored_url = "ipc:///nowhere/s";
    w->loop = loop_new();
    world_open(w);
    return w;
}

static inline void world_close(struct world *w)
{
    fake_settle(w->loop);
    stored_fini(&w->s);
    link_free(w->s.raft);
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++)
        link_free(w->s.gateways[slot].link);
}

/* An orderly end and a new start on the same store. */
static inline void world_restart(struct world *w)
{
    world_close(w);
    world_open(w);
}

static inline void world_free(struct world *w)
{
    char command[128];

    world_close(w);
    snprintf(command, sizeof command, "rm -rf %s", w->dir);
    cr_assert_eq(system(command), 0);
    loop_free(w->loop);
    free((char *)w->conf.data_dir);
    free(w);
}

/* A command of gateway 1 comes out of the log; returns its request id. */
static inline uint64_t world_apply(struct world *w, enum command_kind kind, struct slice body)
{
    struct buf bytes = BUF_INIT;

    command_encode(&bytes, &(struct command){.kind = kind, .origin = FAKE_MEMBER, .slot = 1, .instance = FAKE_INSTANCE,
                                             .req = ++w->req, .body = body});
    cr_assert_eq(fake_in(w->raft, FRAME(apply, APPLY, .index = ++w->index, .term = FAKE_TERM, .kind = APPLY_COMMAND,
                                        .command = buf_slice(&bytes))), 0);
    buf_fini(&bytes);
    return w->req;
}

static inline uint64_t world_put_lease(struct world *w, const char *key, const char *value, int64_t lease)
{
    struct api_put rq = {.key = slice_str(key), .value = slice_str(value), .lease = lease};
    struct buf body = BUF_INIT;
    uint64_t req;

    api_encode_put(&body, &rq);
    req = world_apply(w, COMMAND_PUT, buf_slice(&body));
    buf_fini(&body);
    return req;
}

static inline uint64_t world_put(struct world *w, const char *key, const char *value)
{
    return world_put_lease(w, key, value, 0);
}

/* A body of varint fields 1, 2, 3. */
static inline struct buf world_body(int64_t one, int64_t two, int64_t three)
{
    struct buf body = BUF_INIT;

    pb_add_int(&body, 1, one);
    pb_add_int(&body, 2, two);
    pb_add_int(&body, 3, three);
    return body;
}

static inline uint64_t world_apply_ints(struct world *w, enum command_kind kind, int64_t one, int64_t two, int64_t three)
{
    struct buf body = world_body(one, two, three);
    uint64_t req = world_apply(w, kind, buf_slice(&body));

    buf_fini(&body);
    return req;
}

/* A query of gateway 1, linearizable at index, or direct (0). */
static inline uint64_t world_query(struct world *w, enum command_kind kind, struct slice body, uint64_t index)
{
    struct buf bytes = BUF_INIT;

    command_encode(&bytes, &(struct command){.kind = kind, .slot = 1, .instance = FAKE_INSTANCE, .req = ++w->req, .body = body});
    if (index)
        cr_assert_eq(fake_in(w->raft, FRAME(serve, SERVE, .slot = 1, .index = index, .req = w->req,
                                            .command = buf_slice(&bytes))), 0);
    else
        cr_assert_eq(fake_in(w->gate, FRAME(query, QUERY, .req = w->req, .command = buf_slice(&bytes))), 0);
    buf_fini(&bytes);
    return w->req;
}

static inline uint64_t world_query_ints(struct world *w, enum command_kind kind, int64_t one, int64_t two, uint64_t index)
{
    struct buf body = world_body(one, two, 0);
    uint64_t req = world_query(w, kind, buf_slice(&body), index);

    buf_fini(&body);
    return req;
}

/* The err of the RESULT of req, which must be there; body is left in *frame. */
static inline int world_result(struct world *w, uint64_t req, struct frame *frame)
{
    while (fake_take_type(w->gate, FR_RESULT, frame))
        if (frame->result.req == req)
            return frame->result.err ? err_from_number(frame->result.err) : 0;
    cr_assert_fail("no RESULT of request %llu", (unsigned long long)req);
    return 0;
}

/* Field `number` of a protobuf message, a varint: the nth of them (from 0); def if it is not there. */
static inline int64_t world_int(struct slice message, uint32_t number, unsigned nth, int64_t def)
{
    struct pb_field f;

    while (pb_next(&message, &f) == 1)
        if (f.number == number && f.wire == PB_VARINT && nth-- == 0)
            return (int64_t)f.varint;
    return def;
}

static inline struct slice world_bytes(struct slice message, uint32_t number, unsigned nth)
{
    struct pb_field f;

    while (pb_next(&message, &f) == 1)
        if (f.number == number && f.wire == PB_BYTES && nth-- == 0)
            return f.bytes;
    return SLICE_EMPTY;
}

/* header.revision */
static inline int64_t world_header_rev(struct slice message)
{
    return world_int(world_bytes(message, 1, 0), 3, 0, 0);
}

#endif
