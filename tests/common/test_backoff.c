/* backoff: doubles from min to max, jitters by a quarter at most, starts over. */
#include <criterion/criterion.h>
#include <signal.h>

#include "common/backoff.h"
#include "tests/lib/child.h"

static void check_next(struct backoff *b, struct rand *r, uint32_t base)
{
    uint32_t delay = backoff_next(b, r);

    cr_assert(delay >= base - base / 4 && delay <= base + base / 4, "%u for %u", delay, base);
}

Test(backoff, doubles_up_to_the_maximum_and_stays_there)
{
    struct backoff b;
    struct rand r;

    rand_seed(&r, 3);
    backoff_init(&b, 100, 1000);

    uint32_t bases[] = {100, 200, 400, 800, 1000, 1000, 1000};
    for (size_t i = 0; i < ARRAY_LEN(bases); i++)
        check_next(&b, &r, bases[i]);
    backoff_reset(&b);
    check_next(&b, &r, 100);
}

Test(backoff, two_clients_do_not_stay_in_step)
{
    struct rand r;
    uint32_t least = UINT32_MAX, most = 0;

    rand_seed(&r, 3);
    for (int i = 0; i < 1000; i++) {
        struct backoff b;
        backoff_init(&b, 100, 1000);
        uint32_t delay = backoff_next(&b, &r);
        least = MIN(least, delay);
        most = MAX(most, delay);
    }

    cr_assert_lt(least, 80);
    cr_assert_gt(most, 120);
}

Test(backoff, extremes_neither_stick_nor_overflow)
{
    struct backoff zero, huge, fixed;
    struct rand r;

    rand_seed(&r, 3);
    backoff_init(&zero, 0, 100);
    cr_assert_eq(backoff_next(&zero, &r), 0);
    cr_assert_eq(backoff_next(&zero, &r), 1);
    cr_assert_eq(backoff_next(&zero, &r), 2);

    backoff_init(&huge, UINT32_MAX, UINT32_MAX);
    for (int i = 0; i < 10; i++)
        cr_assert_geq(backoff_next(&huge, &r), UINT32_MAX / 4 * 3);

    backoff_init(&fixed, 50, 50);
    check_next(&fixed, &r, 50);
    check_next(&fixed, &r, 50);
}

static void init_upside_down(void *arg)
{
    UNUSED(arg);
    struct backoff b;
    backoff_init(&b, 2, 1);
}

Test(backoff, a_minimum_above_the_maximum_is_a_bug)
{
    static struct child c;

    child_run(&c, init_upside_down, NULL);

    cr_assert_eq(c.signal, SIGABRT);
}
