/* The index against a plain array, with random adds, cuts and drops. */
#include <stdlib.h>

#include <criterion/criterion.h>

#include "common/rand.h"
#include "raftd/wal_index.h"

Test(wal_index, it_agrees_with_a_plain_array)
{
    static uint64_t model[200000]; /* term of each index */
    struct wal_index x;
    struct rand r;
    uint64_t first = 1, last = 0;

    rand_seed(&r, 42);
    wal_index_init(&x, 1);
    for (uint64_t round = 1; round < 3000; round++) {
        uint64_t what = rand_below(&r, 10);

        if (what < 7 && last + 100 < 200000) {
            for (uint64_t n = rand_below(&r, 100); n > 0; n--) {
                model[++last] = round;
                wal_index_add(&x)->term = round;
            }
        } else if (what == 7) {
            uint64_t from = first + rand_below(&r, last - first + 2);

            from = from + 50 < last ? last - 50 : from;
            wal_index_cut(&x, from);
            last = from - 1;
        } else {
            first += rand_below(&r, last - first + 2) / (what == 8 ? 1 : 10);
            wal_index_drop(&x, first);
        }
        cr_assert_eq(x.first, first);
        cr_assert_eq(wal_index_last(&x), last);
        cr_assert_null(wal_index_at(&x, first - 1));
        cr_assert_null(wal_index_at(&x, last + 1));
        for (uint64_t i = first; i <= last; i += 1 + (last - first) / 17)
            cr_assert_eq(wal_index_at(&x, i)->term, model[i]);
    }
    wal_index_fini(&x);
}

Test(wal_index, memory_goes_back_after_a_large_drop)
{
    struct wal_index x;

    wal_index_init(&x, 1);
    for (uint64_t i = 1; i <= 1000000; i++)
        wal_index_add(&x)->term = i;
    size_t full = x.cap;
    wal_index_drop(&x, 999000);
    cr_assert_lt(x.cap, full / 100);
    cr_assert_eq(wal_index_at(&x, 999000)->term, 999000);
    cr_assert_eq(wal_index_at(&x, 1000000)->term, 1000000);

    /* Beyond its end: an empty index that goes on there. */
    wal_index_drop(&x, 2000000);
    cr_assert_eq(x.count, 0);
    cr_assert_eq(wal_index_last(&x), 1999999);
    wal_index_fini(&x);
}
