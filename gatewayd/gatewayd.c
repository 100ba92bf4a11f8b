/* gatewayd - the state of gatewayd.h: beginning and end, time, deadlines, and what is known of the leader. */
#include "gatewayd/gatewayd.h"

#include <stdlib.h>

#include "common/err.h"
#include "common/log.h"
#include "common/notify.h"
#include "common/rand.h"
#include "gatewayd/grpc.h"
#include "gatewayd/rate.h"

/* --- deadlines ----------------------------------------------------------------------------------------------- */

uint64_t gatewayd_now_ms(const struct gatewayd *g) { return loop_now_ms(g->loop); }

void deadline_set(struct gatewayd *g, struct deadline *d, uint64_t at_ms) { timer_set(&g->timers, &d->timer, at_ms); }
void deadline_stop(struct gatewayd *g, struct deadline *d) { timer_stop(&g->timers, &d->timer); }

void gatewayd_fire_timers(struct gatewayd *g, uint64_t now_ms)
{
    struct timer *t;
    while ((t = timer_pop(&g->timers, now_ms)) != NULL) {
        struct deadline *d = container_of(t, struct deadline, timer);
        d->fire(d, now_ms);
    }
    pending_expire(g, now_ms);
}

static void wakeup_fired(void *arg, uint64_t now_ms)
{
    struct gatewayd *g = arg;
    g->wakeup_at_ms = UINT64_MAX;
    gatewayd_fire_timers(g, now_ms);
}

/* At the turn's end: the loop's one timer is set to whatever is due first. */
void gatewayd_arm_wakeup(struct gatewayd *g)
{
    uint64_t timers = timer_next_ms(&g->timers), requests = pending_next_ms(&g->pending);
    uint64_t at = MIN(timers, requests);
    /* An earlier wake-up than needed does no harm, and requests that are answered in time leave one behind each turn:
     * only move it when it would come too late. */
    if (at < g->wakeup_at_ms) {
        g->wakeup_at_ms = at;
        loop_timer_set(g->wakeup, at);
    }
}

/* --- the leader ---------------------------------------------------------------------------------------------- */

static void no_leader_fired(struct deadline *d, uint64_t now_ms)
{
    UNUSED(now_ms);
    struct gatewayd *g = container_of(d, struct gatewayd, no_leader);
    for (struct call *c = g->leader_calls, *next; c != NULL; c = next) {
        next = c->leader_next;
        call_abort(c, E_NO_LEADER, NULL);
    }
}

static void retry_fired(struct deadline *d, uint64_t now_ms)
{
    UNUSED(now_ms);
    retry_unsent(container_of(d, struct gatewayd, retry));
}

void gatewayd_set_leader(struct gatewayd *g, uint64_t term, uint64_t leader, bool is_learner)
{
    bool had_leader = g->has_leader;
    g->term = term;
    g->leader = leader;
    g->is_learner = is_learner;
    g->has_leader = leader != 0;
    if (g->has_leader != had_leader)
        notify_status(g->has_leader ? "serving, the leader is %llx" : "no leader", (unsigned long long)leader);
    if (g->has_leader) {
        deadline_stop(g, &g->no_leader);
        retry_unsent(g);
    } else if (had_leader) {
        g->no_leader_since_ms = gatewayd_now_ms(g);
        deadline_set(g, &g->no_leader, g->no_leader_since_ms + 3 * g->conf->election_timeout_ms);
    }
}

/* --- life ------------------------------------------------------------------------------------------------------ */

void gatewayd_check_ready(struct gatewayd *g)
{
    if (!g->ready && g->raftd_up && g->stored_up) {
        g->ready = true;
        notify_ready();
        log_info("gatewayd: ready");
    }
}

void gatewayd_init(struct gatewayd *g, const struct conf *conf, struct loop *loop)
{
    *g = (struct gatewayd){
        .conf = conf,
        .loop = loop,
        .instance = rand_system_u64() | 1, /* never 0, which means unknown */
        .request_timeout_ms = REQUEST_TIMEOUT_BASE_MS + 2 * conf->election_timeout_ms,
        .message_bytes_max = conf->max_request_bytes + REQUEST_BYTES_OVERHEAD,
        .find = route_find,
        .wakeup_at_ms = UINT64_MAX,
        .retry = {.fire = retry_fired},
        .no_leader = {.fire = no_leader_fired},
    };
    timer_heap_init(&g->timers);
    pending_init(&g->pending);
    stats_init(g);
    identity_start(g);
    g->wakeup = loop_timer_new(loop, wakeup_fired, g);
}

static void free_calls(struct gatewayd *g)
{
    while (g->free_calls != NULL) {
        struct call *c = g->free_calls;
        g->free_calls = c->next;
        call_free(c);
    }
}

void gatewayd_fini(struct gatewayd *g)
{
    must(g->call_count == 0);
    free_calls(g);
    link_free(g->raftd);
    link_free(g->stored);
    cluster_forget(g->members, g->member_count);
    cluster_forget(g->members_next, g->members_next_count);
    loop_timer_free(g->wakeup);
    pending_fini(&g->pending);
    timer_heap_fini(&g->timers);
    rate_forget_users(g);
    stats_fini(g);
    identity_stop(g);
    password_stop(g);
}
