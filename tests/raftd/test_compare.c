/* The comparison of members' hashes: at the last entry, at the points, later; and what is no comparison at all. */
#include <criterion/criterion.h>

#include "common/err.h"
#include "raftd/compare.h"

#define MEMBER 7

/* A hash for each entry, as an honest member has it. */
static uint64_t honest(uint64_t index) { return index * 1000003 + 1; }

static void own(struct compare *c, uint64_t from, uint64_t index)
{
    struct buf points = BUF_INIT;

    for (uint64_t p = (from / HASH_EVERY + 1) * HASH_EVERY; p <= index; p += HASH_EVERY)
        for (int shift = 56; shift >= 0; shift -= 8)
            buf_add_byte(&points, (uint8_t)(honest(p) >> shift));
    cr_assert_eq(compare_own(c, index, honest(index), buf_slice(&points)), 0);
    buf_fini(&points);
}

static enum compared said(struct compare *c, uint64_t index, uint64_t hash)
{
    uint64_t at;

    return compare_said(c, MEMBER, index, hash, &at);
}

Test(compare, the_last_entry_is_compared)
{
    static struct compare c;

    cr_assert_eq(said(&c, 10, honest(10)), COMPARED_UNKNOWN, "we know nothing yet");
    own(&c, 0, 10);
    cr_assert_eq(said(&c, 10, honest(10)), COMPARED_SAME);
    cr_assert_eq(said(&c, 10, honest(11)), COMPARED_DIFFERENT);
    cr_assert_eq(said(&c, 9, honest(10)), COMPARED_UNKNOWN, "not kept of that entry");
    cr_assert_eq(said(&c, 10, 0), COMPARED_UNKNOWN, "it does not know its own");
}

Test(compare, points_are_compared_for_a_while_and_only_those)
{
    static struct compare c;

    own(&c, 0, 1000);
    own(&c, 1000, 1001);
    cr_assert_eq(said(&c, 64, honest(64)), COMPARED_SAME);
    cr_assert_eq(said(&c, 960, honest(961)), COMPARED_DIFFERENT);
    cr_assert_eq(said(&c, 1000, 5), COMPARED_UNKNOWN, "no point");
    for (uint64_t index = 1001; index < HASH_EVERY * (COMPARE_POINTS + 100); index += 50)
        own(&c, index, index + 50);
    cr_assert_eq(said(&c, 64, 5), COMPARED_UNKNOWN, "long ago");
    cr_assert_eq(said(&c, 64 * 1000, 5), COMPARED_DIFFERENT);
}

Test(compare, what_is_ahead_of_us_is_compared_when_we_are_there)
{
    static struct compare c;
    uint64_t at;

    own(&c, 0, 100);
    cr_assert_eq(said(&c, 128, 5), COMPARED_UNKNOWN);
    cr_assert_eq(said(&c, 192, honest(192)), COMPARED_UNKNOWN, "the older one is kept");
    own(&c, 100, 180);
    cr_assert_eq(compare_said(&c, MEMBER, 256, honest(256), &at), COMPARED_DIFFERENT);
    cr_assert_eq(at, 128);
}

Test(compare, another_store_has_no_points_of_before)
{
    static struct compare c;
    uint64_t hash;

    own(&c, 0, 500);
    own(&c, 1000, 1030); /* a snapshot: the points between are nobody's */
    cr_assert_eq(said(&c, 448, 5), COMPARED_UNKNOWN);
    cr_assert_eq(said(&c, 1024, 5), COMPARED_DIFFERENT);
    cr_assert_eq(compare_point(&c, &hash), 1024);
    cr_assert_eq(hash, honest(1024));
    compare_forget(&c);
    cr_assert_eq(said(&c, 1030, 5), COMPARED_UNKNOWN);
    cr_assert_eq(compare_point(&c, &hash), 0);
}

Test(compare, a_finding_is_news_once)
{
    static struct compare c;

    cr_assert_not(compare_note(&c, MEMBER, COMPARED_SAME, 1));
    cr_assert(compare_note(&c, MEMBER, COMPARED_DIFFERENT, 2));
    cr_assert_not(compare_note(&c, MEMBER, COMPARED_DIFFERENT, 3));
    cr_assert_not(compare_note(&c, MEMBER, COMPARED_UNKNOWN, 4));
    cr_assert(compare_note(&c, MEMBER, COMPARED_SAME, 5));
    for (uint64_t id = 100; id < 200; id++)
        compare_note(&c, id, COMPARED_SAME, 5);
    cr_assert_eq(c.member_count, RAFT_MEMBERS_MAX);
}

Test(compare, points_that_cannot_be_are_refused)
{
    static struct compare c;
    const uint8_t bytes[16] = {0};

    cr_assert_eq(compare_own(&c, 64, 1, slice_of(bytes, 7)), E_MALFORMED);
    cr_assert_eq(compare_own(&c, 64, 1, slice_of(bytes, 16)), E_MALFORMED, "two below entry 64");
    cr_assert_eq(compare_own(&c, 64, 1, slice_of(bytes, 8)), 0);
}
