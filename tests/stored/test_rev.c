/* stored/rev.c: keys of records, held against golden bytes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "stored/rev.h"

static void hex(const uint8_t *at, size_t len, char *out)
{
    for (size_t i = 0; i < len; i++) {
        sprintf(out + 2 * i, "%02x", at[i]);
    }
}

Test(rev, keys_have_the_golden_bytes)
{
    FILE *f = fopen("tests/golden/record_keys.txt", "r");
    cr_assert_not_null(f, "run from the root of the tree");
    long long main;
    int sub, tombstone, lines = 0;
    char want[64], got[64];
    while (fscanf(f, "%lld %d %d %63s", &main, &sub, &tombstone, want) == 4) {
        uint8_t key[REV_KEY_MAX];
        size_t len = rev_key_encode(key, main, sub, tombstone != 0);
        hex(key, len, got);
        cr_assert_str_eq(got, want);

        int64_t main_back;
        int32_t sub_back;
        bool tombstone_back;
        cr_assert_eq(rev_key_decode(slice_of(key, len), &main_back, &sub_back, &tombstone_back), 0);
        cr_assert(main_back == main && sub_back == sub && tombstone_back == (tombstone != 0));
        lines++;
    }
    fclose(f);
    cr_assert_geq(lines, 4);
}

Test(rev, wrong_keys_are_refused)
{
    int64_t main;
    int32_t sub;
    bool tombstone;
    uint8_t key[REV_KEY_MAX + 1] = {0};
    size_t len = rev_key_encode(key, 5, 1, true);

    cr_assert_eq(rev_key_decode(slice_of(key, len + 1), &main, &sub, &tombstone), E_MALFORMED);
    cr_assert_eq(rev_key_decode(slice_of(key, 12), &main, &sub, &tombstone), E_MALFORMED);
    cr_assert_eq(rev_key_decode(SLICE_EMPTY, &main, &sub, &tombstone), E_MALFORMED);
    key[13] = 'x';
    cr_assert_eq(rev_key_decode(slice_of(key, 14), &main, &sub, &tombstone), E_MALFORMED);
    rev_key_encode(key, 0, 0, false);
    cr_assert_eq(rev_key_decode(slice_of(key, 13), &main, &sub, &tombstone), E_MALFORMED);
    key[0] = 'i';
    cr_assert_eq(rev_key_decode(slice_of(key, 13), &main, &sub, &tombstone), E_MALFORMED);
}

Test(rev, bytes_sort_like_revisions)
{
    uint8_t a[REV_KEY_MAX], b[REV_KEY_MAX];
    size_t la = rev_key_encode(a, 255, 7, true), lb = rev_key_encode(b, 256, 0, false);
    cr_assert_lt(slice_cmp(slice_of(a, la), slice_of(b, lb)), 0);
    cr_assert_lt(rev_cmp(255, 7, 256, 0), 0);
    cr_assert_gt(rev_cmp(256, 1, 256, 0), 0);
    cr_assert_eq(rev_cmp(3, 3, 3, 3), 0);
}
