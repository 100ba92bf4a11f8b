/* timer - deadlines in a binary heap; pure: time is an argument.
 * A timer is embedded in what it belongs to. The heap holds pointers, never owns. */
#ifndef COMMON_TIMER_H
#define COMMON_TIMER_H

#include "common/base.h"

struct timer {
    uint64_t at_ms;
    size_t pos; /* 1 + position in the heap; 0 = not armed */
};

struct timer_heap {
    struct timer **slots;
    size_t count;
    size_t cap;
};

void timer_heap_init(struct timer_heap *h);
void timer_heap_fini(struct timer_heap *h); /* frees the array, not the timers */
/* Arms or re-arms t. O(log n). */
void timer_set(struct timer_heap *h, struct timer *t, uint64_t at_ms);
void timer_stop(struct timer_heap *h, struct timer *t); /* fine when not armed */
static inline bool timer_armed(const struct timer *t) { return t->pos != 0; }
/* The earliest timer due at now_ms, disarmed; NULL if none. Ties in any order. */
struct timer *timer_pop(struct timer_heap *h, uint64_t now_ms);
/* When the earliest timer is due; UINT64_MAX if none. */
uint64_t timer_next_ms(const struct timer_heap *h);

#endif
