/* loop - the event loop of loop.h on libuv.
 *
 * libuv's own order within one iteration is: timers, prepare, poll (I/O, wakes, jobs done), check, closing. The
 * turn of our words ends in *prepare*, right before the poll that sleeps:
 *
 *      poll wakes up -> callbacks -> timers -> [prepare: turn-end hooks] -> poll sleeps
 *
 * so whatever a callback or a timer left to be persisted or sent is persisted and sent before the loop sleeps,
 * and the sleep is computed after it (a timer set by a hook counts). libuv reads the clock after the poll, which is
 * the turn's time.
 *
 * Handles are closed by libuv later than asked for; each of ours is one allocation that its close callback frees. */
#include "common/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <unistd.h>

#include <uv.h>

#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"

#define STRINGIFY_(x) #x
#define STRINGIFY(x) STRINGIFY_(x)

/* Rounds of hooks in one turn; a chain of hooks that feed each other is never this long, so what still asks after
 * them gets the next turn at once instead of starving I/O. */
#define TURN_ROUNDS_MAX 8

/* A handle that the loop frees itself if its owner did not. First member of timer and wake. */
struct loop_handle {
    LIST_ENTRY(loop_handle) entry;
    void *memory; /* what to free once libuv has closed it */
};

struct loop_timer {
    uv_timer_t uv;
    struct loop_handle handle;
    struct loop *loop;
    loop_timer_cb *cb;
    void *arg;
};

struct loop_wake {
    uv_async_t uv;
    struct loop_handle handle;
    loop_wake_cb *cb;
    void *arg;
};

struct loop_job {
    uv_work_t uv;
    struct loop *loop;
    loop_work_cb *work;
    loop_work_cb *done;
    void *arg;
};

struct turn_hook {
    loop_turn_cb *cb;
    void *arg;
};

struct loop {
    uv_loop_t uv;
    uv_prepare_t prepare;
    bool is_running;

    struct turn_hook *hooks;
    size_t hook_count;
    bool again;               /* a hook, or what it called, wants the hooks to run again */
    struct loop_wake *retry;  /* used when TURN_ROUNDS_MAX was not enough */

    LIST_HEAD(loop_handles, loop_handle) handles; /* timers and wakes not yet freed by their owners */
    size_t jobs;

    struct loop_wake *signal_wake; /* NULL until loop_signals */
    void (*term_cb)(void *arg);
    void (*hup_cb)(void *arg);
    void *signal_arg;
    bool term_told; /* term_cb was called; a second signal never gets here */
};

static void handle_closed_cb(uv_handle_t *uv)
{
    free(uv->data);
}

/* uv is the first member of what is freed. */
static void handle_close(struct loop_handle *handle, uv_handle_t *uv)
{
    LIST_REMOVE(handle, entry);
    uv->data = handle->memory;
    uv_close(uv, handle_closed_cb);
}

/* --- turns ------------------------------------------------------------------------------------ */

static void turn_end(struct loop *l)
{
    unsigned rounds = 0;

    do {
        l->again = false;
        for (size_t i = 0; i < l->hook_count; i++)
            l->hooks[i].cb(l->hooks[i].arg);
    } while (l->again && ++rounds < TURN_ROUNDS_MAX);
    if (l->again)
        loop_wake(l->retry);
}

static void prepare_cb(uv_prepare_t *uv)
{
    turn_end(uv->data);
}

static void retry_cb(void *arg)
{
    UNUSED(arg); /* that there is another turn is all */
}

void loop_on_turn_end(struct loop *l, loop_turn_cb *cb, void *arg)
{
    l->hooks = xrealloc(l->hooks, (l->hook_count + 1) * sizeof(*l->hooks));
    l->hooks[l->hook_count++] = (struct turn_hook){cb, arg};
}

void loop_off_turn_end(struct loop *l, loop_turn_cb *cb, void *arg)
{
    size_t kept = 0;

    for (size_t i = 0; i < l->hook_count; i++) {
        if (l->hooks[i].cb != cb || l->hooks[i].arg != arg)
            l->hooks[kept++] = l->hooks[i];
    }
    l->hook_count = kept;
}

void loop_turn_again(struct loop *l)
{
    l->again = true;
}

/* --- the loop --------------------------------------------------------------------------------- */

struct loop *loop_new(void)
{
    struct loop *l = xcalloc(1, sizeof(*l));

    /* The pool starts with the first job of the process; too late to change then. */
    setenv("UV_THREADPOOL_SIZE", STRINGIFY(WORKER_THREADS), 0);
    must(uv_loop_init(&l->uv) == 0);
    must(uv_prepare_init(&l->uv, &l->prepare) == 0);
    l->prepare.data = l;
    must(uv_prepare_start(&l->prepare, prepare_cb) == 0);
    LIST_INIT(&l->handles);
    l->retry = loop_wake_new(l, retry_cb, l);
    return l;
}

void loop_run(struct loop *l)
{
    must(!l->is_running);
    uv_update_time(&l->uv);
    l->is_running = true;
    uv_run(&l->uv, UV_RUN_DEFAULT);
    turn_end(l); /* of the turn that stopped it */
    l->is_running = false;
    l->uv.stop_flag = 0; /* a loop_stop from those hooks is of this run, not of the next one */
}

void loop_stop(struct loop *l)
{
    uv_stop(&l->uv);
}

struct uv_loop_s *loop_uv(struct loop *l)
{
    return &l->uv;
}

uint64_t loop_now_ms(const struct loop *l)
{
    /* Before and after loop_run there are no turns: a start may have taken seconds since the clock was read. */
    if (!l->is_running)
        uv_update_time((uv_loop_t *)&l->uv);
    return uv_now(&l->uv);
}

static void close_left_cb(uv_handle_t *uv, void *arg)
{
    UNUSED(arg);
    if (!uv_is_closing(uv))
        uv_close(uv, NULL);
}

static void signals_off(struct loop *l);

void loop_free(struct loop *l)
{
    struct loop_handle *h;
    struct loop_handle *next;

    if (!l)
        return;
    must(!l->is_running);
    signals_off(l);
    for (h = LIST_FIRST(&l->handles); h; h = next) {
        next = LIST_NEXT(h, entry);
        handle_close(h, h->memory); /* a uv handle is the first member of its memory */
    }
    uv_prepare_stop(&l->prepare);
    uv_walk(&l->uv, close_left_cb, NULL);
    uv_run(&l->uv, UV_RUN_DEFAULT); /* jobs end, handles close */
    must(uv_loop_close(&l->uv) == 0);
    free(l->hooks);
    free(l);
}

/* --- timers ----------------------------------------------------------------------------------- */

static void timer_cb(uv_timer_t *uv)
{
    struct loop_timer *t = uv->data;

    t->cb(t->arg, uv_now(&t->loop->uv));
}

struct loop_timer *loop_timer_new(struct loop *l, loop_timer_cb *cb, void *arg)
{
    struct loop_timer *t = xcalloc(1, sizeof(*t));

    t->loop = l;
    t->cb = cb;
    t->arg = arg;
    must(uv_timer_init(&l->uv, &t->uv) == 0);
    t->uv.data = t;
    t->handle.memory = t;
    LIST_INSERT_HEAD(&l->handles, &t->handle, entry);
    return t;
}

void loop_timer_set(struct loop_timer *t, uint64_t at_ms)
{
    uint64_t now_ms = loop_now_ms(t->loop);

    must(uv_timer_start(&t->uv, timer_cb, at_ms > now_ms ? at_ms - now_ms : 0, 0) == 0);
}

void loop_timer_stop(struct loop_timer *t)
{
    uv_timer_stop(&t->uv);
}

void loop_timer_free(struct loop_timer *t)
{
    if (t)
        handle_close(&t->handle, (uv_handle_t *)&t->uv);
}

/* --- wakes ------------------------------------------------------------------------------------ */

static void wake_cb(uv_async_t *uv)
{
    struct loop_wake *w = uv->data;

    w->cb(w->arg);
}

struct loop_wake *loop_wake_new(struct loop *l, loop_wake_cb *cb, void *arg)
{
    struct loop_wake *w = xcalloc(1, sizeof(*w));

    w->cb = cb;
    w->arg = arg;
    must(uv_async_init(&l->uv, &w->uv, wake_cb) == 0);
    w->uv.data = w;
    w->handle.memory = w;
    LIST_INSERT_HEAD(&l->handles, &w->handle, entry);
    return w;
}

void loop_wake(struct loop_wake *w)
{
    uv_async_send(&w->uv);
}

void loop_wake_free(struct loop_wake *w)
{
    if (w)
        handle_close(&w->handle, (uv_handle_t *)&w->uv);
}

/* --- jobs ------------------------------------------------------------------------------------- */

static void job_work_cb(uv_work_t *uv)
{
    struct loop_job *job = uv->data;

    job->work(job->arg);
}

static void job_done_cb(uv_work_t *uv, int status)
{
    struct loop_job *job = uv->data;

    UNUSED(status); /* jobs are never cancelled */
    job->loop->jobs--;
    if (job->done)
        job->done(job->arg);
    free(job);
}

void loop_work(struct loop *l, loop_work_cb *work, loop_work_cb *done, void *arg)
{
    struct loop_job *job = xcalloc(1, sizeof(*job));

    *job = (struct loop_job){.loop = l, .work = work, .done = done, .arg = arg};
    job->uv.data = job;
    l->jobs++;
    must(uv_queue_work(&l->uv, &job->uv, job_work_cb, job_done_cb) == 0);
}

size_t loop_work_pending(const struct loop *l)
{
    return l->jobs;
}

/* --- signals ---------------------------------------------------------------------------------- */

/* Handlers of our own instead of uv_signal_t: the second SIGTERM must end the process even when its loop hangs. */
static struct loop *signal_loop; /* whose callbacks are called; one per process */
static atomic_int term_count;    /* SIGTERM and SIGINT so far */
static atomic_bool hup_due;

static void signal_handler(int number)
{
    int saved_errno = errno;

    if (number == SIGHUP)
        atomic_store(&hup_due, true);
    else if (atomic_fetch_add(&term_count, 1) > 0)
        _exit(128 + number);
    loop_wake(signal_loop->signal_wake);
    errno = saved_errno;
}

static void signal_wake_cb(void *arg)
{
    struct loop *l = arg;

    if (atomic_exchange(&hup_due, false) && l->hup_cb)
        l->hup_cb(l->signal_arg);
    if (atomic_load(&term_count) > 0 && !l->term_told) {
        l->term_told = true;
        l->term_cb(l->signal_arg);
    }
}

static void signal_set(int number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};

    sigemptyset(&action.sa_mask);
    must(sigaction(number, &action, NULL) == 0);
}

void loop_signals(struct loop *l, void (*term_cb)(void *arg), void (*hup_cb)(void *arg), void *arg)
{
    must(!signal_loop);
    l->term_cb = term_cb;
    l->hup_cb = hup_cb;
    l->signal_arg = arg;
    l->signal_wake = loop_wake_new(l, signal_wake_cb, l);
    signal_loop = l;
    signal_set(SIGPIPE, SIG_IGN);
    signal_set(SIGTERM, signal_handler);
    signal_set(SIGINT, signal_handler);
    if (hup_cb)
        signal_set(SIGHUP, signal_handler);
}

/* At the end: from here on SIGTERM ends the process at once, as it does by default. */
static void signals_off(struct loop *l)
{
    if (signal_loop != l)
        return;
    signal_set(SIGTERM, SIG_DFL);
    signal_set(SIGINT, SIG_DFL);
    if (l->hup_cb)
        signal_set(SIGHUP, SIG_IGN);
    signal_loop = NULL;
    atomic_store(&term_count, 0);
}
