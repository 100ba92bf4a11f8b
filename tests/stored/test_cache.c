/* stored/cache.c: bounded, keeps what is asked for, never gives wrong bytes. */
#include <criterion/criterion.h>
#include <string.h>

#include "common/rand.h"
#include "stored/cache.h"

Test(cache, gives_back_what_was_put_and_nothing_else)
{
    struct cache *c = cache_new(1 << 20);
    uint8_t out[8];
    cache_put(c, 5, 1, slice_str("hello"));
    cr_assert(cache_get(c, 5, 1, out, 5));
    cr_assert_eq(memcmp(out, "hello", 5), 0);
    cr_assert_not(cache_get(c, 5, 0, out, 5));
    cr_assert_not(cache_get(c, 5, 1, out, 4), "another length is another record");
    cache_free(c);
}

Test(cache, of_no_size_remembers_nothing)
{
    struct cache *c = cache_new(0);
    uint8_t out[8];
    cache_put(c, 5, 1, slice_str("hello"));
    cr_assert_not(cache_get(c, 5, 1, out, 5));
    cache_free(c);
}

Test(cache, stays_in_bounds_and_keeps_hot_records)
{
    struct cache *c = cache_new(1 << 20);
    struct rand r;
    uint8_t record[3000], out[3000];
    rand_seed(&r, 3);
    memset(record, 'h', sizeof(record));
    cache_put(c, 1, 0, slice_of(record, 100));
    for (int64_t main = 2; main < 200000; main++) {
        size_t len = 1 + rand_below(&r, 2999);
        memset(record, (int)(main & 0xff), len);
        cache_put(c, main, 0, slice_of(record, len));
        if (main % 20 == 0) {
            cr_assert(cache_get(c, 1, 0, out, 100), "hot record lost at %lld", (long long)main);
            cr_assert_eq(out[99], 'h');
        }
        if (main % 7 == 0 && cache_get(c, main, 0, out, len)) { /* not each: then all would be hot */
            cr_assert_eq(memcmp(out, record, len), 0);
        }
    }
    cr_assert_leq(cache_stats(c).bytes, 1 << 20);
    cr_assert_gt(cache_stats(c).bytes, 900000);
    cache_free(c);
}
