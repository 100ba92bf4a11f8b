/* upkeep - what runs in the background: syncs, compaction slices, and the slow chores (checkpoint, defragment, hash).
 * Driven by a tick, by applied bytes and by applied compactions; works through mvcc.h on worker threads.
 *
 * Lanes, so that reads always find a worker (WORKER_THREADS is 4): one for what the disk must do soon (a sync or a compaction
 * slice), one for chores, one for history (past.c); the fourth is never taken by anything long.
 *
 *      compaction   applied --synced up to its index--> slices, with a pause between --records gone--> those who asked for
 *                   `physical` are answered. The target is in the store, so it goes on after a restart.
 */
#include "stored/stored.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/pb.h"
#include "stored/db.h"
#include "stored/rows.h"
#include "stored/snap.h"

/* Chores that wait; over it: "too many requests". */
#define CHORES_MAX 64

enum chore_kind { CHORE_CHECKPOINT, CHORE_DEFRAGMENT, CHORE_HASH, CHORE_HASH_ALL };

struct chore {
    TAILQ_ENTRY(chore) link;
    enum chore_kind kind;
    struct stored *s;
    unsigned slot; /* 0: our own */
    uint64_t epoch, req;
    int64_t rev; /* HASH */
    uint64_t begun_us;
    struct buf out;
    int err;
};

/* A result that may be told when the records below rev are gone. */
struct waiter {
    TAILQ_ENTRY(waiter) link;
    uint64_t slot, instance, req;
    int64_t rev;
    struct buf body;
};

struct upkeep {
    struct loop_timer *tick, *slice_timer;
    bool disk_busy; /* a sync or a slice runs */
    bool stepped_more;
    uint64_t step_us; /* how long the last slice took */

    bool sync_wanted;
    size_t unsynced_bytes;
    uint64_t unsynced_ms; /* when the first of them was applied; 0: none */

    uint64_t compact_index;    /* of the last compaction applied: to be durable before its records go */
    uint64_t compact_begun_ms; /* 0: none under way */
    uint64_t slice_ms;         /* the next slice not before */
    TAILQ_HEAD(, waiter) waiters;

    TAILQ_HEAD(, chore) chores; /* the first one runs */
    size_t chore_count;
    bool chore_runs;

    uint64_t checkpoint_ms; /* the next one */
    size_t unchecked_bytes; /* applied since the quota was looked at */
};

/* --- the disk lane: syncs and compaction slices -------------------------------------------------------------- */

static void disk_next(struct stored *s);

static bool compaction_is_pending(const struct stored *s)
{
    return mvcc_compacted_physically(s->mvcc) < mvcc_compact_rev(s->mvcc);
}

static void sync_work(void *arg)
{
    struct stored *s = arg;

    mvcc_sync(s->mvcc);
}

static void sync_done(void *arg)
{
    struct stored *s = arg;

    s->upkeep->disk_busy = false;
    out_hello(s);
    out_applied(s);
    disk_next(s);
}

static void sync_start(struct stored *s)
{
    struct upkeep *u = s->upkeep;

    u->sync_wanted = false;
    u->unsynced_bytes = 0;
    u->unsynced_ms = 0;
    u->disk_busy = true;
    loop_work(s->loop, sync_work, sync_done, s);
}

static void waiter_free(struct upkeep *u, struct waiter *w)
{
    TAILQ_REMOVE(&u->waiters, w, link);
    buf_fini(&w->body);
    free(w);
}

static void answer_waiters(struct stored *s)
{
    int64_t gone = mvcc_compacted_physically(s->mvcc);
    struct waiter *w, *next;

    for (w = TAILQ_FIRST(&s->upkeep->waiters); w; w = next) {
        struct gateway *g = stored_gateway(s, w->slot);

        next = TAILQ_NEXT(w, link);
        if (w->rev > gone)
            continue;
        if (g && g->instance == w->instance)
            out_result(g, w->req, 0, buf_slice(&w->body));
        waiter_free(s->upkeep, w);
    }
}

static void slice_work(void *arg)
{
    struct stored *s = arg;

    uint64_t begun_us = clock_now_us();

    s->upkeep->stepped_more = mvcc_compact_step(s->mvcc, s->conf->compaction_batch_limit, mvcc_durable(s->mvcc));
    s->upkeep->step_us = clock_now_us() - begun_us;
}

static void compaction_end(struct stored *s, uint64_t now_ms)
{
    struct upkeep *u = s->upkeep;

    histogram_observe(&s->stats.compaction_ms, now_ms - u->compact_begun_ms);
    s->stats.compacted_at = clock_wall_ms() / 1000;
    log_debug("compact: took %llu ms in slices", (unsigned long long)(now_ms - u->compact_begun_ms));
    u->compact_begun_ms = 0;
    answer_waiters(s);
}

static void slice_done(void *arg)
{
    struct stored *s = arg;
    struct upkeep *u = s->upkeep;
    uint64_t now_ms = loop_now_ms(s->loop);

    u->disk_busy = false;
    histogram_observe(&s->stats.compaction_pause_ms, u->step_us / 1000);
    u->slice_ms = now_ms + s->conf->compaction_sleep_interval_ms;
    if (!compaction_is_pending(s)) {
        compaction_end(s, now_ms);
    } else if (!u->stepped_more) {
        /* It waits for durability that we thought was there: sync once more, and look again at leisure. */
        u->sync_wanted = true;
        u->slice_ms = now_ms + LEASE_EXPIRE_CHECK_MS;
    }
    disk_next(s);
}

/* What the lane does next, if it is free. */
static void disk_next(struct stored *s)
{
    struct upkeep *u = s->upkeep;
    uint64_t now_ms = loop_now_ms(s->loop);

    if (u->disk_busy || s->stopping || snap_is_swapping(s))
        return;
    if (u->sync_wanted) {
        sync_start(s);
        return;
    }
    if (!compaction_is_pending(s))
        return;
    if (mvcc_durable(s->mvcc) < u->compact_index) {
        sync_start(s);
        return;
    }
    if (!u->compact_begun_ms)
        u->compact_begun_ms = MAX(now_ms, 1);
    if (now_ms < u->slice_ms) {
        loop_timer_set(u->slice_timer, u->slice_ms);
        return;
    }
    u->disk_busy = true;
    loop_work(s->loop, slice_work, slice_done, s);
}

static void slice_timer_cb(void *arg, uint64_t now_ms)
{
    UNUSED(now_ms);
    disk_next(arg);
}

void upkeep_applied(struct stored *s, size_t bytes)
{
    struct upkeep *u = s->upkeep;

    u->unsynced_bytes += bytes;
    u->unchecked_bytes += bytes;
    if (!u->unsynced_ms)
        u->unsynced_ms = MAX(loop_now_ms(s->loop), 1);
    /* raftd drops nothing above our durable point: half a segment later its last one is free to be used again, which on a full
     * disk is the only one it gets. */
    if (u->unsynced_bytes >= MIN((uint64_t)SYNC_BYTES, s->conf->wal_segment_bytes / 2))
        u->sync_wanted = true;
    if (u->unchecked_bytes >= QUOTA_CHECK_BYTES) {
        u->unchecked_bytes = 0;
        alarm_check_space(s, loop_now_ms(s->loop));
    }
    disk_next(s);
}

void upkeep_compacted(struct stored *s, uint64_t index)
{
    s->upkeep->compact_index = index; /* the lane looks at it when the batch is written */
}

static void waiter_add(struct stored *s, uint64_t slot, uint64_t instance, uint64_t req, int64_t rev, struct slice body)
{
    struct waiter *w = xcalloc(1, sizeof *w);

    w->slot = slot;
    w->instance = instance;
    w->req = req;
    w->rev = rev;
    buf_add_slice(&w->body, body);
    TAILQ_INSERT_TAIL(&s->upkeep->waiters, w, link);
}

void upkeep_wait_compacted(struct stored *s, const struct command *c, struct slice body)
{
    if (c->origin != 0 && c->origin == s->member_id)
        waiter_add(s, c->slot, c->instance, c->req, mvcc_compact_rev(s->mvcc), body);
}

/* A barrier proves that what has no result was not applied; a compaction that was applied and waits to be answered would
 * make it a lie, so the barrier waits behind it. */
bool upkeep_barrier(struct gateway *g, uint64_t req, struct slice body)
{
    struct stored *s = g->s;
    const struct waiter *w;
    int64_t rev = -1;

    TAILQ_FOREACH(w, &s->upkeep->waiters, link)
        if (w->slot == g->slot && w->instance == g->instance)
            rev = MAX(rev, w->rev);
    if (rev < 0)
        return false;
    waiter_add(s, g->slot, g->instance, req, rev, body);
    return true;
}

/* --- the chore lane --------------------------------------------------------------------------------------------- */

static void chore_work(void *arg)
{
    struct chore *c = arg;
    struct mvcc *m = c->s->mvcc;
    int64_t hash_rev, compact_rev;
    uint32_t hash;

    c->begun_us = clock_now_us();
    switch (c->kind) {
    case CHORE_CHECKPOINT:
        mvcc_checkpoint(m);
        break;
    case CHORE_DEFRAGMENT: /* its response has no header (§1) */
        mvcc_defragment(m);
        break;
    case CHORE_HASH:
        c->err = mvcc_hash(m, c->rev, &hash, &hash_rev, &compact_rev);
        if (c->err)
            break;
        mvcc_add_header(m, &c->out, -1);
        pb_add_uint(&c->out, 2, hash);
        pb_add_int(&c->out, 3, compact_rev);
        pb_add_int(&c->out, 4, hash_rev);
        break;
    case CHORE_HASH_ALL:
        c->err = rows_hash(m, &hash, &hash_rev);
        if (c->err)
            break;
        mvcc_add_header(m, &c->out, hash_rev);
        pb_add_uint(&c->out, 2, hash);
        break;
    }
}

static void chores_run(struct stored *s);

static void chore_done(void *arg)
{
    struct chore *c = arg;
    struct stored *s = c->s;
    struct gateway *g = c->slot ? stored_gateway(s, c->slot) : NULL;
    uint64_t us = clock_now_us() - c->begun_us;

    if (c->kind == CHORE_DEFRAGMENT) {
        s->stats.defrag_inflight = 0;
        histogram_observe_us(&s->stats.defrag, us);
        log_info("defrag: finished, took %llu ms", (unsigned long long)(us / 1000));
    }
    if (c->kind == CHORE_HASH || c->kind == CHORE_HASH_ALL)
        histogram_observe_us(c->kind == CHORE_HASH ? &s->stats.hash : &s->stats.hash_all, us);
    if (g && g->epoch == c->epoch)
        out_result(g, c->req, c->err, buf_slice(&c->out));
    s->upkeep->chore_runs = false;
    TAILQ_REMOVE(&s->upkeep->chores, c, link);
    s->upkeep->chore_count--;
    buf_fini(&c->out);
    free(c);
    chores_run(s);
}

static void chores_run(struct stored *s)
{
    struct upkeep *u = s->upkeep;
    struct chore *c = TAILQ_FIRST(&u->chores);

    if (!c || u->chore_runs || s->stopping || snap_is_swapping(s))
        return;
    u->chore_runs = true;
    if (c->kind == CHORE_DEFRAGMENT) {
        s->stats.defrag_inflight = 1;
        log_info("defrag: begun");
    }
    loop_work(s->loop, chore_work, chore_done, c);
}

static struct chore *chore_add(struct stored *s, enum chore_kind kind, const struct gateway *g, uint64_t req)
{
    struct chore *c = xcalloc(1, sizeof *c);

    c->kind = kind;
    c->s = s;
    c->slot = g ? g->slot : 0;
    c->epoch = g ? g->epoch : 0;
    c->req = req;
    TAILQ_INSERT_TAIL(&s->upkeep->chores, c, link);
    s->upkeep->chore_count++;
    return c;
}

static bool chores_are_full(struct gateway *g, uint64_t req)
{
    if (g->s->upkeep->chore_count < CHORES_MAX)
        return false;
    out_result(g, req, E_REQUEST_TOO_MANY_REQUESTS, SLICE_EMPTY);
    return true;
}

void upkeep_defragment_at_start(struct stored *s)
{
    uint64_t least = s->conf->bootstrap_defrag_threshold_megabytes * MIB;
    struct mvcc_stats stats;

    mvcc_get_stats(s->mvcc, &stats);
    uint64_t frees = stats.disk_bytes - MIN(stats.disk_bytes, stats.disk_used_bytes);

    if (least == 0 || frees < least)
        return;
    if (!space_can_defragment(s)) {
        log_warnx("defrag: not at this start: the disk is full");
        return;
    }
    log_info("defrag: at the start, to free some %llu bytes", (unsigned long long)frees);
    chore_add(s, CHORE_DEFRAGMENT, NULL, 0);
    chores_run(s);
}

void upkeep_defragment(struct gateway *g, uint64_t req)
{
    if (chores_are_full(g, req))
        return;
    if (!space_can_defragment(g->s)) {
        log_warnx("defrag: refused: the disk is full");
        out_result(g, req, E_NO_SPACE_LEFT, SLICE_EMPTY);
        return;
    }
    chore_add(g->s, CHORE_DEFRAGMENT, g, req);
    chores_run(g->s);
}

/* HashKVRequest: 1 revision. */
void upkeep_hash(struct gateway *g, uint64_t req, struct slice body)
{
    struct pb_field f;
    int64_t rev = 0;
    int got;

    while ((got = pb_next(&body, &f)) == 1)
        if (f.number == 1 && f.wire == PB_VARINT)
            rev = (int64_t)f.varint;
    if (got < 0) {
        out_result(g, req, got, SLICE_EMPTY);
        return;
    }
    if (chores_are_full(g, req))
        return;
    chore_add(g->s, CHORE_HASH, g, req)->rev = rev;
    chores_run(g->s);
}

void upkeep_hash_all(struct gateway *g, uint64_t req)
{
    if (chores_are_full(g, req))
        return;
    chore_add(g->s, CHORE_HASH_ALL, g, req);
    chores_run(g->s);
}

/* --- the tick ------------------------------------------------------------------------------------------------------ */

static void compact_by_itself(struct stored *s, uint64_t now_ms)
{
    struct buf body = BUF_INIT;
    int64_t rev = auto_compact_tick(s->auto_compact, now_ms, mvcc_rev(s->mvcc), stored_is_leader(s));

    if (!rev || rev <= mvcc_compact_rev(s->mvcc))
        return;
    log_info("compact: automatic, to revision %lld", (long long)rev);
    pb_add_int(&body, 1, rev);
    out_propose(s, COMMAND_COMPACT, buf_slice(&body));
    buf_fini(&body);
}

static void tick_cb(void *arg, uint64_t now_ms)
{
    struct stored *s = arg;
    struct upkeep *u = s->upkeep;

    loop_timer_set(u->tick, now_ms + LEASE_EXPIRE_CHECK_MS);
    if (s->stopping)
        return;
    if (db_saw_damage() && s->members > 1)
        stored_give_up(s);
    lease_cmd_tick(s, now_ms);
    read_tick(s, now_ms);
    space_tick(s);
    alarm_check_space(s, now_ms);
    compact_by_itself(s, now_ms);
    if (u->unsynced_ms && now_ms - u->unsynced_ms >= SYNC_MS)
        u->sync_wanted = true;
    disk_next(s);
    if (now_ms >= u->checkpoint_ms) {
        u->checkpoint_ms = now_ms + CHECKPOINT_MS;
        if (u->chore_count < CHORES_MAX)
            chore_add(s, CHORE_CHECKPOINT, NULL, 0);
        chores_run(s);
    }
}

void upkeep_init(struct stored *s)
{
    uint64_t now_ms = loop_now_ms(s->loop);
    struct upkeep *u = xcalloc(1, sizeof *u);

    s->upkeep = u;
    TAILQ_INIT(&u->waiters);
    TAILQ_INIT(&u->chores);
    u->tick = loop_timer_new(s->loop, tick_cb, s);
    u->slice_timer = loop_timer_new(s->loop, slice_timer_cb, s);
    u->checkpoint_ms = now_ms + CHECKPOINT_MS;
    u->compact_index = mvcc_applied(s->mvcc); /* a compaction found in the store was applied at or below it */
    s->auto_compact = auto_compact_new(s->conf, now_ms);
    loop_timer_set(u->tick, now_ms + LEASE_EXPIRE_CHECK_MS);
    disk_next(s);
}

void upkeep_fini(struct stored *s)
{
    struct upkeep *u = s->upkeep;
    struct chore *c;

    if (!u)
        return;
    while (!TAILQ_EMPTY(&u->waiters))
        waiter_free(u, TAILQ_FIRST(&u->waiters));
    while ((c = TAILQ_FIRST(&u->chores)) != NULL) {
        TAILQ_REMOVE(&u->chores, c, link);
        buf_fini(&c->out);
        free(c);
    }
    loop_timer_free(u->tick);
    loop_timer_free(u->slice_timer);
    auto_compact_free(s->auto_compact);
    s->auto_compact = NULL;
    free(u);
    s->upkeep = NULL;
}
