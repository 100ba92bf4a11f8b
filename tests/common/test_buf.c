/* buf: growth, text, consumption; slices in key order. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"

static int sign(int x)
{
    return (x > 0) - (x < 0);
}

Test(slice, order_is_unsigned_bytewise_and_a_prefix_comes_first)
{
    const struct {
        struct slice a, b;
        int order;
    } cases[] = {
        {SLICE_EMPTY, SLICE_EMPTY, 0},
        {SLICE_EMPTY, SLICE_LIT("a"), -1},
        {SLICE_LIT("a"), SLICE_LIT("ab"), -1},
        {SLICE_LIT("ab"), SLICE_LIT("b"), -1},
        {SLICE_LIT("\x7f"), SLICE_LIT("\x80"), -1},
        {SLICE_LIT("a\0b"), SLICE_LIT("a\0c"), -1},
        {SLICE_LIT("same"), SLICE_LIT("same"), 0},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        cr_assert_eq(sign(slice_cmp(cases[i].a, cases[i].b)), cases[i].order, "case %zu", i);
        cr_assert_eq(sign(slice_cmp(cases[i].b, cases[i].a)), -cases[i].order, "case %zu", i);
        cr_assert_eq(slice_eq(cases[i].a, cases[i].b), cases[i].order == 0, "case %zu", i);
    }
}

Test(slice, dup_str_ends_with_a_nul)
{
    char *text = slice_dup_str(slice_of("abcdef", 3)), *empty = slice_dup_str(SLICE_EMPTY);

    cr_assert_str_eq(text, "abc");
    cr_assert_str_eq(empty, "");
    cr_assert(slice_eq(slice_str("abc"), SLICE_LIT("abc")));
    free(text);
    free(empty);
}

Test(buf, appending_keeps_what_was_there)
{
    struct buf b = BUF_INIT;

    for (int i = 0; i < 10000; i++)
        buf_add_byte(&b, (uint8_t)i);

    cr_assert_eq(b.len, 10000);
    cr_assert_geq(b.cap, b.len);
    for (int i = 0; i < 10000; i++)
        cr_assert_eq(b.data[i], (uint8_t)i);
    buf_fini(&b);
    cr_assert_null(b.data);
    cr_assert_eq(b.cap, 0);
}

Test(buf, appending_nothing_is_fine_even_to_nothing)
{
    struct buf b = BUF_INIT;

    buf_add(&b, NULL, 0);
    buf_add_slice(&b, SLICE_EMPTY);
    buf_add_str(&b, "");
    buf_consume(&b, 0);
    cr_assert_eq(b.len, 0);
    cr_assert_eq(buf_slice(&b).len, 0);
    cr_assert_not_null(buf_extend(&b, 0));
    buf_fini(&b);
    buf_fini(&b); /* twice is fine */
}

Test(buf, printf_grows_to_any_length)
{
    struct buf b = BUF_INIT;
    char *long_text = malloc(5001);

    memset(long_text, 'x', 5000);
    long_text[5000] = '\0';

    buf_add_str(&b, "<");
    buf_printf(&b, "%d %s", 7, long_text);
    buf_printf(&b, "%s", ">");

    cr_assert_eq(b.len, 1 + 2 + 5000 + 1);
    cr_assert_arr_eq(b.data, "<7 xxx", 6);
    cr_assert_eq(b.data[b.len - 1], '>');
    free(long_text);
    buf_fini(&b);
}

/* Lengths around the capacity, where a NUL too many would be written or a byte lost. */
Test(buf, printf_is_right_at_every_length)
{
    for (int len = 0; len < 300; len++) {
        struct buf b = BUF_INIT;
        buf_printf(&b, "%*s", len, "");
        cr_assert_eq(b.len, (size_t)len);
        buf_printf(&b, "%*s|", len, "");
        cr_assert_eq(b.len, (size_t)(2 * len + 1));
        cr_assert_eq(b.data[b.len - 1], '|');
        buf_fini(&b);
    }
}

Test(buf, consume_drops_the_front)
{
    struct buf b = BUF_INIT;

    buf_add_str(&b, "abcdef");
    buf_consume(&b, 2);
    cr_assert(slice_eq(buf_slice(&b), SLICE_LIT("cdef")));
    buf_consume(&b, 4);
    cr_assert_eq(b.len, 0);
    buf_fini(&b);
}

Test(buf, reset_keeps_the_memory)
{
    struct buf b = BUF_INIT;

    buf_reserve(&b, 1000);
    uint8_t *memory = b.data;
    memset(buf_extend(&b, 1000), 1, 1000);
    buf_reset(&b);
    buf_reserve(&b, 1000);

    cr_assert_eq(b.len, 0);
    cr_assert_eq(b.data, memory);
    buf_fini(&b);
}
