/* test_auto_compact - by count and by time; time is counted. */
#include "stored/stored.h"

#include <criterion/criterion.h>

#define MINUTE 60000u

static struct auto_compact *compactor(const char *mode, const char *retention)
{
    struct conf conf = {.auto_compaction_mode = mode, .auto_compaction_retention = retention};

    return auto_compact_new(&conf, 0);
}

Test(auto_compact, zero_is_off)
{
    struct auto_compact *a = compactor("periodic", "0");

    for (uint64_t t = 0; t < 10000 * MINUTE; t += MINUTE)
        cr_assert_eq(auto_compact_tick(a, t, 1000 + (int64_t)t, true), 0);
    auto_compact_free(a);
}

Test(auto_compact, by_revision_keeps_that_many_every_five_minutes)
{
    struct auto_compact *a = compactor("revision", "100");

    cr_assert_eq(auto_compact_tick(a, 4 * MINUTE, 1000, true), 0);
    cr_assert_eq(auto_compact_tick(a, 5 * MINUTE, 1000, true), 900);
    cr_assert_eq(auto_compact_tick(a, 6 * MINUTE, 2000, true), 0);
    cr_assert_eq(auto_compact_tick(a, 10 * MINUTE, 1000, true), 0, "nothing new");
    cr_assert_eq(auto_compact_tick(a, 15 * MINUTE, 1050, false), 0, "not the leader");
    cr_assert_eq(auto_compact_tick(a, 20 * MINUTE, 1050, true), 950);
    auto_compact_free(a);
}

/* One write per minute: the revision is the minute. */
Test(auto_compact, a_short_retention_compacts_once_per_retention_to_its_beginning)
{
    struct auto_compact *a = compactor("periodic", "30m");
    int64_t first = 0;
    unsigned count = 0;

    for (unsigned minute = 0; minute <= 120; minute++) {
        int64_t rev = auto_compact_tick(a, minute * (uint64_t)MINUTE, 10 + minute, true);

        if (!rev)
            continue;
        count++;
        if (!first)
            first = rev;
        cr_assert_leq(rev, 10 + minute - 30, "the last 30 minutes stay");
        cr_assert_geq(rev, 10 + minute - 34, "and not much more");
    }
    cr_assert_eq(first, 10);
    cr_assert_eq(count, 4);
    auto_compact_free(a);
}

Test(auto_compact, a_bare_number_is_hours_and_a_long_retention_compacts_hourly)
{
    struct auto_compact *a = compactor("periodic", "5");
    unsigned count = 0;

    for (unsigned minute = 0; minute <= 10 * 60; minute++) {
        int64_t rev = auto_compact_tick(a, minute * (uint64_t)MINUTE, 10 + minute, true);

        if (!rev)
            continue;
        count++;
        cr_assert_geq(minute, 300);
        cr_assert_leq(rev, 10 + minute - 300);
    }
    cr_assert_eq(count, 6);
    auto_compact_free(a);
}
