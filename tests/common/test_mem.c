/* mem: allocation that cannot fail but ends the process, and the arena. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "tests/lib/child.h"

Test(mem, zero_bytes_give_a_pointer_that_can_be_freed)
{
    void *pointers[] = {xmalloc(0), xcalloc(0, 8), xcalloc(8, 0), xrealloc(NULL, 0), xmemdup(NULL, 0)};

    for (size_t i = 0; i < ARRAY_LEN(pointers); i++) {
        cr_assert_not_null(pointers[i]);
        free(pointers[i]);
    }
}

Test(mem, copies_are_copies)
{
    char text[] = "abc";
    char *dup = xstrdup(text), *mem = xmemdup(text, 2), *printed = xasprintf("%s-%d", text, 7);

    text[0] = 'X';

    cr_assert_str_eq(dup, "abc");
    cr_assert_arr_eq(mem, "ab", 2);
    cr_assert_str_eq(printed, "abc-7");
    free(dup);
    free(mem);
    free(printed);
}

Test(mem, calloc_gives_zeroes)
{
    uint8_t *p = xcalloc(3, 5);

    for (size_t i = 0; i < 15; i++)
        cr_assert_eq(p[i], 0);
    free(p);
}

/* Sanitizers end the process themselves at an absurd size, unless they are asked not to. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

/* Volatile, so that the compiler does not see the absurd size and refuse it. */
static volatile size_t absurd = PTRDIFF_MAX;

static void take_too_much(void *arg)
{
    UNUSED(arg);
    free(xmalloc(absurd));
}

static void overflow_calloc(void *arg)
{
    UNUSED(arg);
    free(xcalloc(absurd, 16));
}

Test(mem, out_of_memory_ends_the_process_and_says_how_much_was_wanted)
{
    static struct child c;

    child_run(&c, take_too_much, NULL);
    cr_assert_eq(c.code, 1);
    cr_assert_not_null(strstr(c.err, "out of memory"), "%s", c.err);

    child_run(&c, overflow_calloc, NULL);
    cr_assert_eq(c.code, 1);
    cr_assert_not_null(strstr(c.err, "out of memory"), "%s", c.err);
}

Test(arena, pieces_are_aligned_apart_and_writable)
{
    struct arena a;
    uint8_t *pieces[2000];

    arena_init(&a);
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        size_t size = i % 67;
        pieces[i] = arena_alloc(&a, size);
        cr_assert_eq((uintptr_t)pieces[i] % 16, 0);
        memset(pieces[i], (int)(i % 251), size);
    }

    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        for (size_t j = 0; j < i % 67; j++)
            cr_assert_eq(pieces[i][j], i % 251);
    }
    arena_fini(&a);
}

Test(arena, large_pieces_do_not_waste_the_current_block)
{
    struct arena a;

    arena_init(&a);
    uint8_t *first = arena_alloc(&a, 16);
    memset(arena_alloc(&a, 1000000), 1, 1000000);
    uint8_t *second = arena_alloc(&a, 16);

    cr_assert_eq(second, first + 16);
    cr_assert_eq(a.total, 1000032);
    arena_fini(&a);
}

Test(arena, a_large_piece_may_come_first)
{
    struct arena a;

    arena_init(&a);
    memset(arena_alloc(&a, 100000), 1, 100000);
    memset(arena_alloc(&a, 10), 2, 10);
    arena_reset(&a);
    memset(arena_alloc(&a, 10), 3, 10);
    arena_fini(&a);
}

Test(arena, a_reset_keeps_one_block_and_starts_over_in_it)
{
    struct arena a;

    arena_init(&a);
    for (int i = 0; i < 1000; i++)
        arena_alloc(&a, 100);
    arena_reset(&a);
    cr_assert_eq(a.total, 0);
    cr_assert_gt(a.left, 0);

    void *once = arena_alloc(&a, 100);
    arena_reset(&a);
    void *again = arena_alloc(&a, 100);

    cr_assert_eq(once, again);
    arena_fini(&a);
}

Test(arena, zalloc_is_zero_and_dup_copies)
{
    struct arena a;

    arena_init(&a);
    memset(arena_alloc(&a, 64), 0xff, 64);
    arena_reset(&a);
    uint8_t *zeroes = arena_zalloc(&a, 64);
    char *copy = arena_dup(&a, "abc", 4);

    for (size_t i = 0; i < 64; i++)
        cr_assert_eq(zeroes[i], 0);
    cr_assert_str_eq(copy, "abc");
    cr_assert_not_null(arena_dup(&a, NULL, 0));
    arena_fini(&a);
    arena_fini(&a); /* twice is fine */
}
