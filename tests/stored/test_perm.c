/* test_perm - unions of intervals: examples, and against a list of all points that can make a difference. */
#include <criterion/criterion.h>
#include <string.h>

#include "common/rand.h"
#include "stored/perm.h"

#define S SLICE_LIT

static struct perms made(const char *const (*list)[2], size_t count)
{
    struct perms p;

    perms_init(&p);
    for (size_t i = 0; i < count; i++)
        perms_add(&p, slice_str(list[i][0]), list[i][1] ? slice_str(list[i][1]) : slice_of("", 1));
    perms_merge(&p);
    return p;
}

Test(perm, adjacent_and_overlapping_intervals_are_one)
{
    static const char *const list[][2] = {{"c", "f"}, {"a", "c"}, {"e", "g"}, {"g", ""}};
    struct perms p = made(list, 4);

    cr_assert_eq(p.count, 1);
    cr_assert(perms_cover(&p, S("a"), S("g")));
    cr_assert(perms_cover(&p, S("b"), S("e")));
    cr_assert(perms_cover(&p, S("b"), S("g\0")), "the single key g is part of it");
    cr_assert(perms_cover(&p, S("g"), S("")));
    cr_assert_not(perms_cover(&p, S("g\0"), S("")));
    cr_assert_not(perms_cover(&p, S("a"), S("g\0\0")));
    cr_assert_not(perms_cover(&p, S("a"), S("\0")), "not open");
    cr_assert_not(perms_cover(&p, S("A"), S("b")));
    perms_fini(&p);
}

Test(perm, a_hole_of_one_key_is_a_hole)
{
    static const char *const list[][2] = {{"a", "b"}, {"c", "d"}};
    struct perms p = made(list, 2);

    cr_assert(perms_cover(&p, S("a"), S("b")));
    cr_assert_not(perms_cover(&p, S("a"), S("d")));
    cr_assert_not(perms_cover(&p, S("b"), S("")));
    perms_fini(&p);
}

Test(perm, only_an_open_interval_covers_an_open_request)
{
    static const char *const list[][2] = {{"m", NULL}, {"a", "b"}};
    struct perms p = made(list, 2);

    cr_assert(perms_cover(&p, S("m"), S("\0")));
    cr_assert(perms_cover(&p, S("z"), S("\0")));
    cr_assert(perms_cover(&p, S("n"), S("\xff\xff")));
    cr_assert_not(perms_cover(&p, S("a"), S("\0")));
    cr_assert_not(perms_cover(&p, S("l"), S("\0")));
    perms_fini(&p);
}

Test(perm, nothing_covers_nothing)
{
    struct perms p = made(NULL, 0);

    cr_assert_not(perms_cover(&p, S("a"), S("")));
    cr_assert_not(perms_cover(&p, S("\0"), S("\0")));
    cr_assert_not(perms_cover(&p, S("b"), S("a")));
    perms_fini(&p);
}

Test(perm, an_empty_interval_must_lie_inside)
{
    static const char *const list[][2] = {{"b", "m"}, {"x", "a"}}; /* the second one is empty itself */
    struct perms p = made(list, 2);

    cr_assert_eq(p.count, 1);
    cr_assert(perms_cover(&p, S("e"), S("c")));
    cr_assert(perms_cover(&p, S("e"), S("e")));
    cr_assert_not(perms_cover(&p, S("e"), S("a")));
    cr_assert_not(perms_cover(&p, S("z"), S("c")));
    cr_assert_not(perms_cover(&p, S("y"), S("a")));
    perms_fini(&p);
}

/* --- against points ------------------------------------------------------------------------------------------- */

#define NAMES 8
static const char names[NAMES][3] = {"a", "aa", "ab", "b", "ba", "c", "cc", "d"};

/* Between two neighbours of these nothing can change: each name, and the key right after it. */
static struct slice point(size_t n)
{
    return slice_of(names[n / 2], strlen(names[n / 2]) + n % 2);
}

static bool holds(struct slice key, struct slice end, struct slice x)
{
    if (end.len == 0)
        return slice_eq(key, x);
    return slice_cmp(key, x) <= 0 && ((end.len == 1 && !end.data[0]) || slice_cmp(x, end) < 0);
}

Test(perm, it_agrees_with_a_look_at_every_point)
{
    struct rand r;
    struct { struct slice key, end; } list[6];

    rand_seed(&r, 7);
    for (int round = 0; round < 20000; round++) {
        size_t count = (size_t)rand_below(&r, 6);
        struct perms p;

        perms_init(&p);
        for (size_t i = 0; i < count; i++) {
            list[i].key = slice_str(names[rand_below(&r, NAMES)]);
            list[i].end = rand_below(&r, 3) == 0 ? SLICE_EMPTY
                          : rand_below(&r, 6) == 0 ? slice_of("", 1) : slice_str(names[rand_below(&r, NAMES)]);
            perms_add(&p, list[i].key, list[i].end);
        }
        perms_merge(&p);
        for (int ask = 0; ask < 10; ask++) {
            struct slice key = point((size_t)rand_below(&r, 2 * NAMES));
            struct slice end = rand_below(&r, 3) == 0 ? SLICE_EMPTY
                               : rand_below(&r, 6) == 0 ? slice_of("", 1) : point((size_t)rand_below(&r, 2 * NAMES));
            bool all = true, any = false;

            for (size_t n = 0; n < 2 * NAMES; n++) {
                bool granted = false;

                if (!holds(key, end, point(n)))
                    continue;
                any = true;
                for (size_t i = 0; i < count; i++)
                    granted |= holds(list[i].key, list[i].end, point(n));
                all &= granted;
            }
            if (any)
                cr_assert_eq(perms_cover(&p, key, end), all, "round %d", round);
        }
        perms_fini(&p);
    }
}
