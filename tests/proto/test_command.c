/* test_command - the envelope comes back as it went, and nothing that is not one is taken for one. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "proto/command.h"
#include "tests/proto/seed.h"

static const struct command example = {
    .kind = COMMAND_PUT,
    .origin = 0x8e9e05c52164694d,
    .slot = 2,
    .instance = 77,
    .req = 4242,
    .user = {(const uint8_t *)"root", 4},
    .auth_rev = 3,
    .body = {(const uint8_t *)"\x0a\x03key\x12\x05value", 12},
};

/* The layout of a log entry: it may change only together with COMMAND_VERSION. */
static const char example_bytes[] = "\x99\x01\x02\xcf\x8e\x9e\x05\xc5\x21\x64\x69\x4d\x02\x4d\xcd\x10\x92\xc4\x04root"
                                    "\x03\xc4\x0c\x0a\x03key\x12\x05value";

static void assert_same(const struct command *a, const struct command *b)
{
    cr_assert_eq(a->kind, b->kind);
    cr_assert_eq(a->origin, b->origin);
    cr_assert_eq(a->slot, b->slot);
    cr_assert_eq(a->instance, b->instance);
    cr_assert_eq(a->req, b->req);
    cr_assert(slice_eq(a->user, b->user));
    cr_assert_eq(a->auth_rev, b->auth_rev);
    cr_assert(slice_eq(a->body, b->body));
}

Test(command, its_bytes_are_those_that_logs_hold)
{
    struct buf b = BUF_INIT;
    struct command got;

    command_encode(&b, &example);
    cr_assert(slice_eq(buf_slice(&b), slice_of(example_bytes, sizeof(example_bytes) - 1)));
    cr_assert_eq(command_decode(buf_slice(&b), &got), 0);
    assert_same(&example, &got);
    buf_fini(&b);
}

Test(command, any_command_comes_back)
{
    struct rand r = seeded("command/round");
    struct buf b = BUF_INIT;
    static uint8_t bytes[70000];

    for (int i = 0; i < 5000; i++) {
        struct command got, sent = {
                                .kind = any_u64(&r),
                                .origin = any_u64(&r),
                                .slot = any_u64(&r),
                                .instance = any_u64(&r),
                                .req = any_u64(&r),
                                .user = slice_of(bytes, (size_t)rand_below(&r, 300)),
                                .auth_rev = any_u64(&r),
                                .body = slice_of(bytes, (size_t)rand_below(&r, i % 10 == 0 ? sizeof(bytes) : 300)),
                            };
        buf_reset(&b);
        command_encode(&b, &sent);
        cr_assert_eq(command_decode(buf_slice(&b), &got), 0);
        assert_same(&sent, &got);
    }
    buf_fini(&b);
}

Test(command, a_command_that_is_cut_anywhere_is_refused)
{
    for (size_t len = 0; len < sizeof(example_bytes) - 1; len++) {
        uint8_t *cut = malloc(len + 1);
        struct command got;

        memcpy(cut, example_bytes, len);
        cr_assert_eq(command_decode(slice_of(cut, len), &got), E_TRUNCATED, "cut to %zu", len);
        free(cut);
    }
}

Test(command, what_is_left_over_is_an_error)
{
    struct command got;

    cr_assert_eq(command_decode(slice_of(example_bytes, sizeof(example_bytes)), &got), E_TRAILING); /* its NUL */
}

Test(command, another_version_or_shape_is_refused_by_its_name)
{
    struct command got;

    cr_assert_eq(command_decode(SLICE_LIT("\x99\x02\x02\0\0\0\0\xc4\0\0\xc4\0"), &got), E_VERSION);
    cr_assert_eq(command_decode(SLICE_LIT("\x91\x02"), &got), E_VERSION); /* whatever its fields are */
    cr_assert_eq(command_decode(SLICE_LIT("\x91\x01"), &got), E_MALFORMED);
    cr_assert_eq(command_decode(SLICE_LIT("\x90"), &got), E_MALFORMED);
    cr_assert_eq(command_decode(SLICE_LIT("\x99\x01\x02\0\0\0\0\0\0\xc4\0"), &got), E_MALFORMED); /* user: an int */
    cr_assert_eq(command_decode(SLICE_LIT("\xc0"), &got), E_MALFORMED);
}

Test(command, mutated_bytes_never_crash)
{
    struct rand r = seeded("command/mutate");
    struct buf b = BUF_INIT;

    for (int i = 0; i < 50000; i++) {
        struct command got;

        buf_reset(&b);
        command_encode(&b, &example);
        mutate(&r, &b);
        if (command_decode(buf_slice(&b), &got) == 0)
            cr_assert(got.user.len + got.body.len <= b.len);
    }
    buf_fini(&b);
}

Test(command, kinds_have_names)
{
    cr_assert_str_eq(command_name(COMMAND_PUT), "PUT");
    cr_assert_str_eq(command_name(COMMAND_BARRIER), "BARRIER");
    cr_assert_str_eq(command_name(0), "?");
    cr_assert_str_eq(command_name(UINT64_MAX), "?");
}
