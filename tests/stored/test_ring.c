/* test_ring - whole revisions, in order, within limits. */
#include "stored/ring.h"

#include <criterion/criterion.h>

static void push(struct ring *r, int64_t main, size_t bytes)
{
    static const uint8_t zeros[4096];
    struct mvcc_event ev = {.main = main, .key = SLICE_LIT("key"), .kv = slice_of(zeros, bytes)};

    ring_push(r, &ev, true);
}

Test(ring, events_are_found_by_revision)
{
    struct ring *r = ring_new(10, 100000, 5);

    push(r, 5, 10);
    push(r, 6, 10);
    push(r, 6, 20);
    push(r, 8, 10);
    cr_assert_eq(ring_at(r, ring_find(r, 6))->kv_len, 10);
    cr_assert_eq(ring_at(r, ring_find(r, 7))->main, 8);
    cr_assert_null(ring_at(r, ring_find(r, 9)));
    cr_assert(slice_eq(ring_key(ring_at(r, ring_find(r, 5))), SLICE_LIT("key")));
    ring_free(r);
}

Test(ring, at_its_count_the_oldest_revision_goes_whole)
{
    struct ring *r = ring_new(4, 100000, 2);

    push(r, 2, 1);
    push(r, 2, 1);
    push(r, 2, 1);
    push(r, 3, 1);
    cr_assert_eq(ring_start(r), 2);
    push(r, 4, 1);
    cr_assert_eq(ring_start(r), 3);
    cr_assert_eq(ring_count(r), 2);
    ring_free(r);
}

Test(ring, at_its_bytes_too)
{
    struct ring *r = ring_new(100, 2000, 2);

    push(r, 2, 900);
    push(r, 3, 900);
    push(r, 4, 900);
    cr_assert_gt(ring_start(r), 2);
    cr_assert_leq(ring_bytes(r), 2000);
    ring_free(r);
}

Test(ring, a_revision_larger_than_the_ring_is_not_in_it)
{
    struct ring *r = ring_new(4, 100000, 2);

    push(r, 2, 1);
    for (int i = 0; i < 9; i++)
        push(r, 3, 1);
    cr_assert_eq(ring_start(r), 4);
    cr_assert_eq(ring_count(r), 0);
    push(r, 4, 1);
    cr_assert_eq(ring_at(r, ring_find(r, 4))->main, 4);
    ring_free(r);
}

Test(ring, an_event_larger_than_the_ring_is_not_in_it)
{
    struct ring *r = ring_new(4, 1000, 2);

    push(r, 2, 1);
    push(r, 3, 2000);
    cr_assert_eq(ring_start(r), 4);
    cr_assert_eq(ring_count(r), 0);
    ring_free(r);
}
