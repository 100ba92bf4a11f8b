/* loop and notify: turns, timers, wakes from other threads, jobs, signals, the watchdog's pings. */
#include "common/loop.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "common/clock.h"
#include "common/notify.h"

/* What happened, as text: each callback appends one letter. */
struct story {
    struct loop *loop;
    struct loop_timer *timer;
    struct loop_wake *wake;
    char text[64];
    size_t len;
    unsigned turns, wakes;
    uint64_t at_ms;
};

static void tell(struct story *s, char letter)
{
    if (s->len < sizeof(s->text) - 1)
        s->text[s->len++] = letter;
}

static void stop_cb(void *arg, uint64_t now_ms)
{
    struct story *s = arg;

    s->at_ms = now_ms;
    tell(s, 't');
    loop_stop(s->loop);
}

static void first_hook_cb(void *arg)
{
    tell(arg, '1');
}

static void second_hook_cb(void *arg)
{
    tell(arg, '2');
}

Test(loop, a_timer_runs_once_at_its_time_and_hooks_end_the_turn_in_order)
{
    struct story s = {.loop = loop_new()};

    loop_on_turn_end(s.loop, first_hook_cb, &s);
    loop_on_turn_end(s.loop, second_hook_cb, &s);
    s.timer = loop_timer_new(s.loop, stop_cb, &s);
    uint64_t start_ms = loop_now_ms(s.loop);
    loop_timer_set(s.timer, start_ms + 5);
    loop_timer_set(s.timer, start_ms + 20);

    loop_run(s.loop);

    cr_assert_geq(s.at_ms, start_ms + 20);
    cr_assert_leq(s.at_ms, start_ms + 1000);
    cr_assert(strstr(s.text, "t12") != NULL, "%s", s.text);
    cr_assert_null(strstr(s.text, "21t2"));
    loop_timer_free(s.timer);
    loop_free(s.loop);
}

Test(loop, a_stopped_timer_does_not_run)
{
    struct story s = {.loop = loop_new()};
    struct loop_timer *never = loop_timer_new(s.loop, stop_cb, &s);

    loop_timer_set(never, loop_now_ms(s.loop) + 5);
    loop_timer_stop(never);
    s.timer = loop_timer_new(s.loop, stop_cb, &s);
    loop_timer_set(s.timer, loop_now_ms(s.loop) + 30);

    loop_run(s.loop);

    cr_assert_str_eq(s.text, "t");
    loop_free(s.loop); /* both timers are left to it */
}

static void again_hook_cb(void *arg)
{
    struct story *s = arg;

    if (++s->turns <= 3)
        loop_turn_again(s->loop);
    else
        loop_stop(s->loop);
}

Test(loop, hooks_that_give_each_other_work_run_again_before_the_loop_sleeps)
{
    struct story s = {.loop = loop_new()};

    loop_on_turn_end(s.loop, again_hook_cb, &s);
    loop_run(s.loop); /* would sleep forever after the first turn */

    cr_assert_geq(s.turns, 4);
    loop_free(s.loop);
}

static void endless_hook_cb(void *arg)
{
    struct story *s = arg;

    s->turns++;
    loop_turn_again(s->loop);
}

Test(loop, a_hook_that_always_wants_more_does_not_starve_the_timers)
{
    struct story s = {.loop = loop_new()};

    loop_on_turn_end(s.loop, endless_hook_cb, &s);
    s.timer = loop_timer_new(s.loop, stop_cb, &s);
    loop_timer_set(s.timer, loop_now_ms(s.loop) + 20);
    loop_run(s.loop);

    cr_assert_str_eq(s.text, "t");
    cr_assert_gt(s.turns, 8);
    loop_free(s.loop);
}

Test(loop, a_hook_that_was_taken_off_does_not_run)
{
    struct story s = {.loop = loop_new()};

    loop_on_turn_end(s.loop, first_hook_cb, &s);
    loop_on_turn_end(s.loop, second_hook_cb, &s);
    loop_off_turn_end(s.loop, first_hook_cb, &s);
    s.timer = loop_timer_new(s.loop, stop_cb, &s);
    loop_timer_set(s.timer, 0);
    loop_run(s.loop);

    cr_assert_null(strchr(s.text, '1'));
    cr_assert_not_null(strchr(s.text, '2'));
    loop_free(s.loop);
}

/* --- other threads ------------------------------------------------------------------------------ */

enum { WAKES = 1000 };

struct ringing {
    struct loop *loop;
    struct loop_wake *wake;
    atomic_uint rung;
    unsigned seen, calls;
};

static void *ring_main(void *arg)
{
    struct ringing *r = arg;

    for (unsigned i = 0; i < WAKES; i++) {
        atomic_fetch_add(&r->rung, 1);
        loop_wake(r->wake);
    }
    return NULL;
}

static void rung_cb(void *arg)
{
    struct ringing *r = arg;

    r->calls++;
    r->seen = atomic_load(&r->rung);
    if (r->seen == 2 * WAKES)
        loop_stop(r->loop);
}

Test(loop, no_wake_from_another_thread_is_lost, .timeout = 30)
{
    struct ringing r = {.loop = loop_new()};
    pthread_t threads[2];

    r.wake = loop_wake_new(r.loop, rung_cb, &r);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, ring_main, &r);
    loop_run(r.loop);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);

    cr_assert_eq(r.seen, 2 * WAKES);
    cr_assert_leq(r.calls, 2 * WAKES);
    loop_wake_free(r.wake);
    loop_free(r.loop);
}

enum { JOBS = 50 };

struct jobs {
    struct loop *loop;
    pthread_t loop_thread;
    atomic_uint worked;
    unsigned done;
    bool wrong_thread;
};

static void job_work_cb(void *arg)
{
    struct jobs *j = arg;

    if (pthread_equal(pthread_self(), j->loop_thread))
        j->wrong_thread = true;
    atomic_fetch_add(&j->worked, 1);
}

static void job_done_cb(void *arg)
{
    struct jobs *j = arg;

    if (!pthread_equal(pthread_self(), j->loop_thread))
        j->wrong_thread = true;
    if (++j->done == JOBS)
        loop_stop(j->loop);
}

Test(loop, jobs_work_on_pool_threads_and_end_on_the_loops, .timeout = 30)
{
    struct jobs j = {.loop = loop_new(), .loop_thread = pthread_self()};

    for (unsigned i = 0; i < JOBS; i++)
        loop_work(j.loop, job_work_cb, job_done_cb, &j);
    cr_assert_eq(loop_work_pending(j.loop), JOBS);
    loop_run(j.loop);

    cr_assert_eq(atomic_load(&j.worked), JOBS);
    cr_assert_eq(j.done, JOBS);
    cr_assert_not(j.wrong_thread);
    cr_assert_eq(loop_work_pending(j.loop), 0);
    loop_free(j.loop);
}

/* --- signals -------------------------------------------------------------------------------------- */

static void term_cb(void *arg)
{
    struct story *s = arg;

    tell(s, 'T');
    loop_stop(s->loop);
}

static void hup_cb(void *arg)
{
    tell(arg, 'H');
    raise(SIGTERM);
}

static void raise_hup_cb(void *arg, uint64_t now_ms)
{
    UNUSED(arg);
    UNUSED(now_ms);
    raise(SIGPIPE);
    raise(SIGHUP);
}

Test(loop, signals_arrive_on_the_loop, .timeout = 30)
{
    struct story s = {.loop = loop_new()};

    loop_signals(s.loop, term_cb, hup_cb, &s);
    s.timer = loop_timer_new(s.loop, raise_hup_cb, &s);
    loop_timer_set(s.timer, 0);
    loop_run(s.loop);

    cr_assert_str_eq(s.text, "HT");
    loop_free(s.loop);
}

static void ignore_cb(void *arg)
{
    UNUSED(arg);
}

static void hang_cb(void *arg, uint64_t now_ms)
{
    UNUSED(arg);
    UNUSED(now_ms);
    raise(SIGTERM);
    raise(SIGTERM);
    _exit(0); /* not reached */
}

Test(loop, the_second_term_ends_even_a_loop_that_hangs, .timeout = 30)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        struct loop *l = loop_new();
        struct loop_timer *t = loop_timer_new(l, hang_cb, NULL);

        loop_signals(l, ignore_cb, NULL, NULL);
        loop_timer_set(t, 0);
        loop_run(l);
        _exit(0);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGTERM, "status %d", status);
}

/* --- notify --------------------------------------------------------------------------------------- */

static int notify_socket(char *path, size_t size)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

    snprintf(path, size, "/tmp/trine-notify-%d", (int)getpid());
    unlink(path);
    memcpy(sun.sun_path, path, strlen(path));
    cr_assert_eq(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
    return fd;
}

static unsigned count_messages(int fd, const char *prefix)
{
    char text[600];
    ssize_t len;
    unsigned count = 0;

    while ((len = recv(fd, text, sizeof(text) - 1, 0)) > 0) {
        text[len] = '\0';
        count += !strncmp(text, prefix, strlen(prefix));
    }
    return count;
}

Test(notify, tells_systemd_and_pings_its_watchdog)
{
    struct story s = {.loop = loop_new()};
    char path[64];
    char pid[16];
    int fd = notify_socket(path, sizeof(path));

    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    setenv("NOTIFY_SOCKET", path, 1);
    setenv("WATCHDOG_USEC", "40000", 1);
    setenv("WATCHDOG_PID", pid, 1);

    notify_ready();
    cr_assert_eq(count_messages(fd, "READY=1"), 1);
    notify_status("term %d", 7);
    cr_assert_eq(count_messages(fd, "STATUS=term 7"), 1);
    notify_watchdog_start(s.loop);
    s.timer = loop_timer_new(s.loop, stop_cb, &s);
    loop_timer_set(s.timer, loop_now_ms(s.loop) + 110);
    loop_run(s.loop);

    unsigned pings = count_messages(fd, "WATCHDOG=1");
    cr_assert(pings >= 3 && pings <= 7, "%u pings in 110 ms at 20 ms each", pings);
    notify_stopping();
    cr_assert_eq(count_messages(fd, "STOPPING=1"), 1);
    loop_free(s.loop);
    close(fd);
    unlink(path);
}

Test(notify, says_nothing_without_systemd)
{
    struct loop *l = loop_new();

    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    notify_ready();
    notify_watchdog_start(l);
    loop_free(l);
}
