/* sim - the world: one clock, one heap of events, one source of chance. See sim.h.
 * Events of equal time come in the order they were made, so a run depends on the seed alone. */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"

bool sim_verbose;
struct sim *sim_now;

/* --- words ----------------------------------------------------------------------------------------- */

void sim_say(struct sim *s, const char *fmt, ...)
{
    va_list args;

    printf("%8" PRIu64 ".%03u  ", s->now_us / 1000, (unsigned)(s->now_us % 1000));
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
}

void sim_broken(struct sim *s, const char *promise, const char *fmt, ...)
{
    char text[700];
    va_list args;

    fflush(stdout);
    fprintf(stderr, "broken: seed %" PRIu64 " at %" PRIu64 " ms: %s: ", s->seed, s->now_us / 1000, promise);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    for (size_t i = 0; sim_verbose && i < s->node_count; i++) {
        struct sim_node *n = s->nodes[i];

        if (!n || !n->up)
            continue;
        raft_show(n->raft, text, sizeof(text));
        fprintf(stderr, "  %s; stored %" PRIu64 "\n", text, n->store.state.applied);
    }
    fflush(stderr);
    sim_mvcc_clean((long)getpid());
    _Exit(3);
}

/* The program is linked with --wrap for these: a member that gives up is a member that is down, and a broken invariant
 * of the shipped code is a finding with a seed. */
_Noreturn void __wrap_fatal(const char *fmt, ...) PRINTF_LIKE(1, 2);
_Noreturn void __wrap_fatalx(const char *fmt, ...) PRINTF_LIKE(1, 2);
_Noreturn void __wrap_must_failed(const char *expr, const char *file, int line, const char *func);

PRINTF_LIKE(1, 0) _Noreturn static void give_up(const char *fmt, va_list args)
{
    char text[300];

    vsnprintf(text, sizeof(text), fmt, args);
    if (!sim_now || !sim_now->guard) {
        fprintf(stderr, "sim: %s\n", text);
        _Exit(2);
    }
    sim_trace(sim_now, "fatal: %s", text);
    siglongjmp(*sim_now->guard, 2);
}

void __wrap_fatal(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    give_up(fmt, args);
}

void __wrap_fatalx(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    give_up(fmt, args);
}

void __wrap_must_failed(const char *expr, const char *file, int line, const char *func)
{
    if (sim_now)
        sim_broken(sim_now, expr, "must of %s:%d, %s", file, line, func);
    fprintf(stderr, "sim: must: %s, %s:%d, %s\n", expr, file, line, func);
    _Exit(2);
}

/* --- chance ------------------------------------------------------------------------------------------- */

uint64_t sim_below(struct sim *s, uint64_t limit)
{
    return rand_below(&s->rand, limit);
}

bool sim_chance(struct sim *s, uint32_t per_mille)
{
    return rand_below(&s->rand, 1000) < per_mille;
}

/* --- events -------------------------------------------------------------------------------------------- */

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

void sim_at(struct sim *s, uint64_t at_us, struct sim_event ev)
{
    size_t at = s->heap_count++;

    if (at == s->heap_cap) {
        s->heap_cap = MAX(s->heap_cap * 2, 1024);
        s->heap = xrealloc(s->heap, s->heap_cap * sizeof(*s->heap));
    }
    ev.at_us = MAX(at_us, s->now_us);
    ev.order = s->orders++;
    while (at > 0 && earlier(&ev, &s->heap[(at - 1) / 2])) {
        s->heap[at] = s->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    s->heap[at] = ev;
}

static struct sim_event heap_take(struct sim *s)
{
    struct sim_event first = s->heap[0], last = s->heap[--s->heap_count];
    size_t at = 0, child;

    while ((child = at * 2 + 1) < s->heap_count) {
        if (child + 1 < s->heap_count && earlier(&s->heap[child + 1], &s->heap[child]))
            child++;
        if (!earlier(&s->heap[child], &last))
            break;
        s->heap[at] = s->heap[child];
        at = child;
    }
    if (s->heap_count > 0)
        s->heap[at] = last;
    return first;
}

static void event_free(struct sim_event *ev)
{
    if (ev->kind == SIM_EV_MSG)
        sim_msg_free(ev->data);
    else
        free(ev->data);
}

static bool is_of_node(enum sim_event_kind kind)
{
    return kind != SIM_EV_CLIENT && kind != SIM_EV_ANSWER && kind != SIM_EV_FAULT && kind != SIM_EV_FLAP &&
           kind != SIM_EV_RESUME;
}

/* A member's doings, with a way out in the middle: siglongjmp is how it dies between two effects. What was under way
 * then stays allocated; the workers of main.c are short-lived for that reason. */
static void node_guarded(struct sim *s, struct sim_node *n, const struct sim_event *ev)
{
    sigjmp_buf guard;
    sigjmp_buf *volatile before = s->guard;
    int died = sigsetjmp(guard, 0);

    if (died == 0) {
        s->guard = &guard;
        sim_node_event(s, n, ev);
        s->guard = before;
        return;
    }
    s->guard = before;
    bool power = died == 1 && n->fuse_power;
    sim_node_crash(s, n, power);
    if (s->manual)
        return;
    if (!power)
        sim_fault_gone(s, n);
    sim_fault_start_later(s, n);
}

static void dispatch(struct sim *s, struct sim_event *ev)
{
    if (!is_of_node(ev->kind)) {
        if (ev->kind == SIM_EV_CLIENT || ev->kind == SIM_EV_ANSWER)
            sim_client_event(s, ev);
        else
            sim_fault_event(s, ev);
        return;
    }
    struct sim_node *n = s->nodes[ev->node];
    bool lives = ev->kind == SIM_EV_START || ev->kind == SIM_EV_STORE_UP || n->up;

    if (lives && n->paused_until_us > s->now_us) {
        struct sim_event again = *ev; /* a stopped process finds it in its sockets later */

        ev->data = NULL;
        ev->kind = SIM_EV_TURN;
        sim_at(s, n->paused_until_us, again);
        return;
    }
    node_guarded(s, n, ev);
    if (n->up)
        sim_check(s, n);
}

void sim_event_do(struct sim *s, struct sim_event *ev)
{
    s->steps++;
    s->stats.events++;
    dispatch(s, ev);
    event_free(ev);
}

bool sim_step(struct sim *s, uint64_t until_us)
{
    if (s->heap_count == 0 || s->heap[0].at_us > until_us)
        return false;
    struct sim_event ev = heap_take(s);

    s->now_us = ev.at_us;
    sim_event_do(s, &ev);
    return true;
}

void sim_run(struct sim *s, uint64_t us)
{
    uint64_t until = s->now_us + us;

    while (sim_step(s, until))
        continue;
    s->now_us = until;
}

/* --- life -------------------------------------------------------------------------------------------------- */

void sim_init(struct sim *s, uint64_t seed)
{
    s->seed = seed;
    s->now_us = 1000 * SIM_MS;
    sim_now = s;
    rand_seed(&s->rand, seed * 0x9e3779b97f4a7c15u + 1);
    s->net.latency_us = 500;
    s->append_bytes = 3000;
    s->keep_entries = 400;
    log_set_level(LOG_L_ERROR);
}

void sim_fini(struct sim *s)
{
    for (size_t i = 0; i < SIM_SLOTS; i++) {
        struct sim_node *n = s->nodes[i];

        if (!n)
            continue;
        if (n->up)
            sim_node_crash(s, n, false);
        sim_store_crash(s, n, false);
        if (s->mvcc)
            sim_mvcc_wipe((unsigned)i);
        sim_disk_free(n->disk);
        members_fini(&n->members);
        free(n->store.items);
        free(n);
    }
    while (s->heap_count > 0) {
        struct sim_event ev = heap_take(s);

        event_free(&ev);
    }
    free(s->heap);
    free(s->ops);
    buf_fini(&s->said);
    sim_oracle_fini(&s->oracle);
    sim_now = NULL;
}
