/* rand: the same seed gives the same numbers, forever; other seeds others. */
#include <criterion/criterion.h>
#include <signal.h>

#include "common/rand.h"
#include "tests/lib/child.h"

Test(rand, a_seed_is_a_sequence)
{
    struct rand a, b, other;

    rand_seed(&a, 7);
    rand_seed(&b, 7);
    rand_seed(&other, 8);
    uint64_t first = rand_u64(&a);

    cr_assert_eq(first, rand_u64(&b));
    cr_assert_neq(first, rand_u64(&other));
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(rand_u64(&a), rand_u64(&b));
}

/* splitmix64(0) as published begins with this; a changed generator would change every recorded simulation. */
Test(rand, seeding_is_the_published_splitmix64)
{
    struct rand r;

    rand_seed(&r, 0);

    cr_assert_eq(r.s[0], 0xe220a8397b1dcdaf);
    cr_assert_eq(r.s[1], 0x6e789e6aa1b965f4);
}

/* From the authors' xoshiro256**, with the state 1, 2, 3, 4. */
Test(rand, the_generator_is_the_published_xoshiro256)
{
    struct rand r = {{1, 2, 3, 4}};

    cr_assert_eq(rand_u64(&r), 11520);
    cr_assert_eq(rand_u64(&r), 0);
    cr_assert_eq(rand_u64(&r), 1509978240);
    cr_assert_eq(rand_u64(&r), 1215971899390074240);
}

Test(rand, below_stays_below_and_reaches_everything)
{
    struct rand r;
    int seen[7] = {0};

    rand_seed(&r, 1);
    for (int i = 0; i < 7000; i++)
        seen[rand_below(&r, 7)]++;

    for (int i = 0; i < 7; i++)
        cr_assert(seen[i] > 800 && seen[i] < 1200, "%d: %d times", i, seen[i]);
    cr_assert_eq(rand_below(&r, 1), 0);
    for (int i = 0; i < 100; i++)
        cr_assert_lt(rand_below(&r, UINT64_MAX), UINT64_MAX);
}

static void below_nothing(void *arg)
{
    UNUSED(arg);
    struct rand r;
    rand_seed(&r, 1);
    rand_below(&r, 0);
}

Test(rand, below_zero_is_a_bug)
{
    static struct child c;

    child_run(&c, below_nothing, NULL);

    cr_assert_eq(c.signal, SIGABRT);
}

Test(rand, the_system_gives_different_numbers)
{
    cr_assert_neq(rand_system_u64(), rand_system_u64());
}
