/* linear: correct histories pass both checks, and each kind of lie is found by at least the check that is there for it. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "tests/lib/linear.h"

static uint64_t by_search(const struct lin_op *ops, size_t count)
{
    uint64_t undecided = 0, violations = lin_check_registers(ops, count, 1000000, &undecided, NULL, NULL);
    cr_assert_eq(undecided, 0);
    return violations;
}

static uint64_t by_revisions(const struct lin_op *ops, size_t ops_count, const struct lin_event *events, size_t events_count)
{
    return lin_check_revisions(ops, ops_count, events, events_count, NULL, NULL);
}

#define SEARCH(ops) by_search(ops, ARRAY_LEN(ops))
#define REVISIONS(ops, events) by_revisions(ops, ARRAY_LEN(ops), events, ARRAY_LEN(events))

#define PUT(from, to, v, r) {.kind = LIN_PUT, .called = from, .ended = to, .value = v, .rev = r}
#define GET(from, to, v, vr, r) {.kind = LIN_GET, .called = from, .ended = to, .told = true, .found = v, .found_rev = vr, .rev = r}
#define LOST_PUT(from, v) {.kind = LIN_PUT, .called = from, .ended = LIN_OPEN, .value = v}

Test(linear, a_history_of_all_kinds_passes)
{
    struct lin_op ops[] = {
        GET(1, 2, 0, 0, 1), PUT(3, 6, 10, 2), GET(4, 5, 10, 2, 2), /* sees a put that has not ended yet */
        {.kind = LIN_CAS, .called = 7, .ended = 8, .value = 11, .expected = 10, .done = true, .rev = 3},
        {.kind = LIN_CAS, .called = 9, .ended = 10, .value = 12, .expected = 10, .told = true, .found = 11, .found_rev = 3, .rev = 3},
        {.kind = LIN_DELETE, .called = 11, .ended = 12, .done = true, .rev = 4},
        {.kind = LIN_DELETE, .called = 13, .ended = 14, .rev = 4},
        {.kind = LIN_SERIAL_GET, .called = 15, .ended = 16, .told = true, .found = 10, .found_rev = 2, .rev = 2}, /* old is fine */
        GET(17, 18, 0, 0, 4),
    };
    struct lin_event events[] = {{.rev = 2, .value = 10, .has_prev = true}, {.rev = 3, .value = 11, .has_prev = true, .prev = 10, .prev_rev = 2},
        {.rev = 4, .has_prev = true, .prev = 11, .prev_rev = 3}};

    cr_assert_eq(SEARCH(ops), 0);
    cr_assert_eq(REVISIONS(ops, events), 0);
}

Test(linear, a_stale_read_is_found)
{
    struct lin_op ops[] = {PUT(1, 2, 10, 2), PUT(3, 4, 11, 3), GET(5, 6, 10, 2, 2)};
    struct lin_event events[] = {{.rev = 2, .value = 10}, {.rev = 3, .value = 11}};

    cr_assert_eq(SEARCH(ops), 1);
    cr_assert_eq(REVISIONS(ops, events), 1);
}

Test(linear, a_stale_read_of_another_key_is_found_by_its_revision)
{
    struct lin_op ops[] = {PUT(1, 2, 10, 2), {.kind = LIN_GET, .key = 1, .called = 3, .ended = 4, .told = true, .rev = 1}};
    struct lin_event events[] = {{.rev = 2, .value = 10}};

    cr_assert_eq(REVISIONS(ops, events), 1);
}

Test(linear, a_lost_acknowledged_put_is_found)
{
    struct lin_op ops[] = {PUT(1, 2, 10, 2), PUT(3, 4, 11, 3), GET(5, 6, 12, 3, 3), PUT(7, 8, 12, 3)};
    struct lin_op gone[] = {PUT(1, 2, 10, 2), GET(3, 4, 0, 0, 2)};
    struct lin_event none[] = {{.rev = 3, .value = 12}};

    cr_assert_eq(SEARCH(ops), 1);
    cr_assert_geq(REVISIONS(ops, none), 1);
    cr_assert_eq(SEARCH(gone), 1);
}

Test(linear, a_put_without_an_answer_may_appear_later_but_not_vanish_again)
{
    struct lin_op late[] = {LOST_PUT(1, 10), PUT(2, 3, 11, 2), GET(4, 5, 11, 2, 2), GET(6, 7, 10, 3, 3)};
    struct lin_op never[] = {LOST_PUT(1, 10), PUT(2, 3, 11, 2), GET(4, 5, 11, 2, 2)};
    struct lin_op blinks[] = {LOST_PUT(1, 10), PUT(2, 3, 11, 2), GET(4, 5, 10, 3, 3), GET(6, 7, 11, 2, 2)};
    struct lin_event events[] = {{.rev = 2, .value = 11}, {.rev = 3, .value = 10}};

    cr_assert_eq(SEARCH(late), 0);
    cr_assert_eq(REVISIONS(late, events), 0);
    cr_assert_eq(SEARCH(never), 0);
    cr_assert_eq(by_revisions(never, ARRAY_LEN(never), events, 1), 0);
    cr_assert_eq(SEARCH(blinks), 1);
    cr_assert_geq(REVISIONS(blinks, events), 1);
}

Test(linear, an_effect_before_the_call_is_found)
{
    struct lin_op ops[] = {GET(1, 2, 10, 2, 2), LOST_PUT(3, 10)};
    struct lin_event events[] = {{.rev = 2, .value = 10}};

    cr_assert_eq(SEARCH(ops), 1);
    cr_assert_eq(REVISIONS(ops, events), 1);
}

Test(linear, a_put_applied_twice_is_found)
{
    struct lin_op ops[] = {PUT(1, 2, 10, 2), PUT(3, 4, 11, 3), GET(5, 6, 10, 4, 4)};
    struct lin_event events[] = {{.rev = 2, .value = 10}, {.rev = 3, .value = 11}, {.rev = 4, .value = 10}};

    cr_assert_eq(SEARCH(ops), 1);
    cr_assert_eq(REVISIONS(ops, events), 1);
}

Test(linear, two_winners_of_one_comparison_are_found)
{
    struct lin_op ops[] = {PUT(1, 2, 10, 2),
        {.kind = LIN_CAS, .called = 3, .ended = 6, .value = 11, .expected = 10, .done = true, .rev = 3},
        {.kind = LIN_CAS, .called = 4, .ended = 5, .value = 12, .expected = 10, .done = true, .rev = 4}};
    struct lin_event events[] = {{.rev = 2, .value = 10}, {.rev = 3, .value = 11}, {.rev = 4, .value = 12}};

    cr_assert_eq(SEARCH(ops), 1);
    cr_assert_eq(REVISIONS(ops, events), 1);
}

Test(linear, a_comparison_that_failed_for_no_reason_is_found)
{
    struct lin_op ops[] = {PUT(1, 2, 10, 2),
        {.kind = LIN_CAS, .called = 3, .ended = 4, .value = 11, .expected = 10, .told = true, .found = 10, .found_rev = 2, .rev = 2}};
    struct lin_event events[] = {{.rev = 2, .value = 10}};

    cr_assert_eq(SEARCH(ops), 1);
    cr_assert_eq(REVISIONS(ops, events), 1);
}

Test(linear, a_deletion_of_nothing_beside_something_is_found)
{
    struct lin_op ops[] = {PUT(1, 2, 10, 2), {.kind = LIN_DELETE, .called = 3, .ended = 4, .rev = 2}};
    struct lin_event events[] = {{.rev = 2, .value = 10}};

    cr_assert_eq(SEARCH(ops), 1);
    cr_assert_eq(REVISIONS(ops, events), 1);
}

Test(linear, revisions_against_real_time_are_found)
{
    struct lin_op ops[] = {PUT(1, 2, 10, 3), {.kind = LIN_PUT, .key = 1, .called = 3, .ended = 4, .value = 11, .rev = 2}};
    struct lin_event events[] = {{.rev = 2, .key = 1, .value = 11}, {.rev = 3, .value = 10}};

    cr_assert_eq(SEARCH(ops), 0); /* the keys alone are fine */
    cr_assert_eq(REVISIONS(ops, events), 1);
}

Test(linear, a_wrong_previous_value_is_found)
{
    struct lin_op ops[] = {PUT(1, 2, 10, 2),
        {.kind = LIN_PUT, .called = 3, .ended = 4, .value = 11, .rev = 3, .told = true, .found = 9, .found_rev = 2}};
    struct lin_event events[] = {{.rev = 2, .value = 10}, {.rev = 3, .value = 11, .has_prev = true, .prev = 9, .prev_rev = 2}};

    cr_assert_eq(SEARCH(ops), 1);
    cr_assert_eq(REVISIONS(ops, events), 2); /* the answer and the event */
}

Test(linear, an_event_that_nobody_made_is_found)
{
    struct lin_op ops[] = {PUT(1, 2, 10, 2)};
    struct lin_event events[] = {{.rev = 2, .value = 10}, {.rev = 3, .value = 77}, {.rev = 4}};

    cr_assert_eq(REVISIONS(ops, events), 2);
}

Test(linear, a_torn_read_at_a_wrong_revision_is_found_even_if_serializable)
{
    struct lin_op ops[] = {PUT(1, 2, 10, 2), PUT(3, 4, 11, 3),
        {.kind = LIN_SERIAL_GET, .called = 5, .ended = 6, .told = true, .found = 11, .found_rev = 3, .rev = 2}};
    struct lin_event events[] = {{.rev = 2, .value = 10}, {.rev = 3, .value = 11}};

    cr_assert_eq(REVISIONS(ops, events), 1);
}

/* What the search does on many histories that are right by construction, and on the same with one answer changed. */
Test(linear, random_histories_pass_and_a_changed_one_fails)
{
    unsigned seed = 7;
    for (int round = 0; round < 50; round++) {
        struct lin_op ops[120] = {0};
        uint64_t value = 0, base = 0;
        for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
            /* Each takes effect at 10 * i; it is called up to 40 before and ends up to 40 after. */
            base = 100 + 10 * i;
            ops[i].called = base - 1 - (uint64_t)rand_r(&seed) % 40;
            ops[i].ended = base + 1 + (uint64_t)rand_r(&seed) % 40;
            if (rand_r(&seed) % 2) {
                ops[i].kind = LIN_PUT;
                ops[i].value = value = 1000 + i;
                if (rand_r(&seed) % 24 == 0)
                    ops[i].ended = LIN_OPEN;
            } else {
                ops[i].kind = LIN_GET;
                ops[i].told = true;
                ops[i].found = value;
            }
        }
        cr_assert_eq(SEARCH(ops), 0, "round %d", round);
        /* The last read finds the first value of all. */
        struct lin_op last = {.kind = LIN_GET, .called = base + 100, .ended = base + 101, .told = true, .found = 0};
        ops[ARRAY_LEN(ops) - 1] = last;
        cr_assert_eq(SEARCH(ops), 1, "round %d, changed", round);
    }
}
