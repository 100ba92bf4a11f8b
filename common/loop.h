/* loop - the event loop (libuv) in our words: turns, timers, wake-ups, jobs, signals.
 * One loop per thread; all callbacks run on the thread that runs it. A turn is: gather (callbacks),
 * then the turn-end hooks (persist, speak), then sleep. gatewayd/conn.c uses loop_uv for its TCP
 * handles; nobody else sees libuv. */
#ifndef COMMON_LOOP_H
#define COMMON_LOOP_H

#include "common/base.h"

struct loop;
struct uv_loop_s;

struct loop *loop_new(void);
void loop_free(struct loop *l);  /* after loop_run returned; closes what is left */
void loop_run(struct loop *l);   /* returns after loop_stop */
void loop_stop(struct loop *l);  /* from the loop's thread */
struct uv_loop_s *loop_uv(struct loop *l);

uint64_t loop_now_ms(const struct loop *l); /* the turn's time: read once per turn */

/* Calls cb at the end of every turn, before the loop sleeps, in order of registration. */
typedef void loop_turn_cb(void *arg);
void loop_on_turn_end(struct loop *l, loop_turn_cb *cb, void *arg);
void loop_off_turn_end(struct loop *l, loop_turn_cb *cb, void *arg); /* not from within a hook */
/* Has the hooks run once more before the loop sleeps; for what a later hook gives an earlier one to do. Cheap. */
void loop_turn_again(struct loop *l);

/* A single timer. cb runs once at or after at_ms. Setting again moves it. Timers and wakes that are left when the
 * loop is freed are freed with it: free them before, or not at all. */
struct loop_timer;
typedef void loop_timer_cb(void *arg, uint64_t now_ms);
struct loop_timer *loop_timer_new(struct loop *l, loop_timer_cb *cb, void *arg);
void loop_timer_set(struct loop_timer *t, uint64_t at_ms);
void loop_timer_stop(struct loop_timer *t);
void loop_timer_free(struct loop_timer *t);

/* Wakes the loop from any thread; several wakes may become one call of cb. */
struct loop_wake;
typedef void loop_wake_cb(void *arg);
struct loop_wake *loop_wake_new(struct loop *l, loop_wake_cb *cb, void *arg);
void loop_wake(struct loop_wake *w); /* any thread, async-signal-safe */
void loop_wake_free(struct loop_wake *w);

/* Runs work on a pool thread, then done on the loop's thread. Jobs start in order. Threads of the pool:
 * WORKER_THREADS. arg is passed through, owned by the caller. */
typedef void loop_work_cb(void *arg);
void loop_work(struct loop *l, loop_work_cb *work, loop_work_cb *done, void *arg);
size_t loop_work_pending(const struct loop *l); /* jobs not yet done */

/* SIGTERM and SIGINT call cb on the loop's thread (the second one ends the process at once); SIGHUP calls
 * hup_cb if it is not NULL; SIGPIPE is ignored. */
void loop_signals(struct loop *l, void (*term_cb)(void *arg), void (*hup_cb)(void *arg), void *arg);

#endif
