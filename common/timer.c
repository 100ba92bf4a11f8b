/* timer - deadlines in a binary heap.
 * Holds at all times: slots[i]->pos == i + 1; no slot is due before its parent, slots[(i - 1) / 2]. */
#include "common/timer.h"

#include <stdlib.h>

#include "common/mem.h"

#define TIMER_SLOTS_FIRST 16

void timer_heap_init(struct timer_heap *h)
{
    *h = (struct timer_heap){0};
}

void timer_heap_fini(struct timer_heap *h)
{
    free(h->slots);
    timer_heap_init(h);
}

static void put_at(struct timer_heap *h, size_t i, struct timer *t)
{
    h->slots[i] = t;
    t->pos = i + 1;
}

/* Puts t where it belongs, at i or above. */
static void sift_up(struct timer_heap *h, size_t i, struct timer *t)
{
    while (i > 0 && h->slots[(i - 1) / 2]->at_ms > t->at_ms) {
        put_at(h, i, h->slots[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put_at(h, i, t);
}

/* Puts t where it belongs, at i or below. */
static void sift_down(struct timer_heap *h, size_t i, struct timer *t)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && h->slots[child + 1]->at_ms < h->slots[child]->at_ms)
            child++;
        if (h->slots[child]->at_ms >= t->at_ms)
            break;
        put_at(h, i, h->slots[child]);
        i = child;
    }
    put_at(h, i, t);
}

/* Puts t at i, then up or down from there: at most one of the two moves it. */
static void settle(struct timer_heap *h, size_t i, struct timer *t)
{
    sift_up(h, i, t);
    sift_down(h, t->pos - 1, t);
}

void timer_set(struct timer_heap *h, struct timer *t, uint64_t at_ms)
{
    t->at_ms = at_ms;
    if (timer_armed(t)) {
        must(t->pos <= h->count && h->slots[t->pos - 1] == t);
        settle(h, t->pos - 1, t);
        return;
    }
    if (h->count == h->cap) {
        h->cap = h->cap == 0 ? TIMER_SLOTS_FIRST : 2 * h->cap;
        h->slots = xrealloc(h->slots, h->cap * sizeof(struct timer *));
    }
    h->count++;
    sift_up(h, h->count - 1, t);
}

void timer_stop(struct timer_heap *h, struct timer *t)
{
    if (!timer_armed(t))
        return;
    must(t->pos <= h->count && h->slots[t->pos - 1] == t);
    size_t gap = t->pos - 1;
    struct timer *last = h->slots[--h->count];

    t->pos = 0;
    if (last != t)
        settle(h, gap, last);
}

struct timer *timer_pop(struct timer_heap *h, uint64_t now_ms)
{
    if (h->count == 0 || h->slots[0]->at_ms > now_ms)
        return NULL;
    struct timer *t = h->slots[0];

    timer_stop(h, t);
    return t;
}

uint64_t timer_next_ms(const struct timer_heap *h)
{
    return h->count == 0 ? UINT64_MAX : h->slots[0]->at_ms;
}
