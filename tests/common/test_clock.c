/* clock: what little can be said of a clock. */
#include <criterion/criterion.h>
#include <time.h>

#include "common/clock.h"

Test(clock, the_monotonic_clock_does_not_go_back_and_its_units_agree)
{
    uint64_t before_ms = clock_now_ms(), us = clock_now_us(), after_ms = clock_now_ms();

    cr_assert_leq(before_ms, us / 1000);
    cr_assert_leq(us / 1000, after_ms);
    for (int i = 0; i < 10000; i++) {
        uint64_t next = clock_now_us();
        cr_assert_geq(next, us);
        us = next;
    }
}

Test(clock, the_wall_clock_counts_from_the_epoch)
{
    int64_t seconds = (int64_t)time(NULL);

    cr_assert_leq(clock_wall_ms() / 1000 - seconds, 1);
    cr_assert_geq(clock_wall_ms() / 1000 - seconds, -1);
}
