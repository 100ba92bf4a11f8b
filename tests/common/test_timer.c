/* timer: deadlines come out in order, whatever was done to them before. */
#include <criterion/criterion.h>

#include "common/rand.h"
#include "common/timer.h"

Test(timer, timers_come_out_in_order_of_their_time_and_not_before_it)
{
    struct timer_heap h;
    struct timer late = {0}, early = {0}, middle = {0};

    timer_heap_init(&h);
    timer_set(&h, &late, 30);
    timer_set(&h, &early, 10);
    timer_set(&h, &middle, 20);

    cr_assert_eq(timer_next_ms(&h), 10);
    cr_assert_null(timer_pop(&h, 9));
    cr_assert_eq(timer_pop(&h, 20), &early);
    cr_assert_not(timer_armed(&early));
    cr_assert_eq(timer_pop(&h, 20), &middle);
    cr_assert_null(timer_pop(&h, 20));
    cr_assert_eq(timer_pop(&h, UINT64_MAX), &late);
    cr_assert_eq(timer_next_ms(&h), UINT64_MAX);
    timer_heap_fini(&h);
}

Test(timer, setting_again_moves_and_stopping_twice_is_fine)
{
    struct timer_heap h;
    struct timer a = {0}, b = {0};

    timer_heap_init(&h);
    timer_stop(&h, &a); /* never armed */
    timer_set(&h, &a, 10);
    timer_set(&h, &b, 20);
    timer_set(&h, &a, 30);
    cr_assert_eq(timer_next_ms(&h), 20);
    timer_set(&h, &a, 5);
    cr_assert_eq(timer_next_ms(&h), 5);

    timer_stop(&h, &a);
    timer_stop(&h, &a);
    cr_assert_eq(timer_pop(&h, 100), &b);
    cr_assert_null(timer_pop(&h, 100));
    timer_heap_fini(&h);
}

static void check_heap(const struct timer_heap *h)
{
    for (size_t i = 0; i < h->count; i++) {
        cr_assert_eq(h->slots[i]->pos, i + 1);
        cr_assert(i == 0 || h->slots[(i - 1) / 2]->at_ms <= h->slots[i]->at_ms);
    }
}

/* Against the slowest possible model: an array that is searched. */
Test(timer, a_random_sequence_agrees_with_a_plain_array)
{
    enum { TIMERS = 200, STEPS = 20000 };
    static struct timer timers[TIMERS];
    struct timer_heap h;
    struct rand r;
    uint64_t now = 0;

    rand_seed(&r, 42);
    timer_heap_init(&h);
    for (int step = 0; step < STEPS; step++) {
        struct timer *t = &timers[rand_below(&r, TIMERS)];
        switch (rand_below(&r, 4)) {
        case 0:
        case 1:
            timer_set(&h, t, now + rand_below(&r, 1000));
            break;
        case 2:
            timer_stop(&h, t);
            break;
        default:
            now += rand_below(&r, 50);
            while ((t = timer_pop(&h, now)) != NULL)
                cr_assert_leq(t->at_ms, now);
        }
        uint64_t next = UINT64_MAX, armed = 0;
        for (int i = 0; i < TIMERS; i++) {
            if (timer_armed(&timers[i])) {
                armed++;
                next = MIN(next, timers[i].at_ms);
            }
        }
        cr_assert_eq(h.count, armed);
        cr_assert_eq(timer_next_ms(&h), next);
        if (step % 100 == 0)
            check_heap(&h);
    }
    timer_heap_fini(&h);
}
