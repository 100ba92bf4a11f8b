/* test_frames - every frame of the list, through the list: what is added there is tested here without a new line.
 * The golden file holds one example of each frame. Run with TRINE_ACCEPT=1 to write it anew, after FRAMES_VERSION was
 * raised. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "proto/frames.h"
#include "proto/pack.h"
#include "tests/proto/seed.h"

#define GOLDEN "tests/golden/frames.txt"

#define TYPE(NAME, name, number, from, to, text) FR_##NAME,
static const enum frame_type types[] = {FRAMES(TYPE)};

/* --- examples: the same every time, and no two fields alike ---------------------------------------- */

#define EXAMPLE_U(member) f->member = (uint64_t)number << (7 * (++field % 9));
#define EXAMPLE_I(member) f->member = ++field % 2 ? -(int64_t)number * field * 100 : (int64_t)number << 20;
#define EXAMPLE_B(member) f->member = SLICE_LIT(#member);
#define EXAMPLE(NAME, name, type_number, from, to, text) \
    static void example_##name(struct fr_##name *f) \
    { \
        unsigned number = type_number; \
        int field = 0; \
        FR_##NAME##_FIELDS(EXAMPLE_U, EXAMPLE_I, EXAMPLE_B) UNUSED(number); \
        UNUSED(field); \
    }
FRAMES(EXAMPLE)

#define EXAMPLE_CASE(NAME, name, number, from, to, text) \
    case FR_##NAME: \
        example_##name(&f.name); \
        break;

static struct frame example(enum frame_type type)
{
    struct frame f = {.type = type, .seq = 1000};

    switch (type) {
        FRAMES(EXAMPLE_CASE)
    }
    return f;
}

/* --- random frames ------------------------------------------------------------------------------------ */

static uint8_t noise[70000];

static struct slice any_bytes(struct rand *r)
{
    static const size_t up_to[] = {1, 40, 300, sizeof(noise)};

    return slice_of(noise, (size_t)rand_below(r, up_to[rand_below(r, 4)]));
}

#define RANDOM_U(member) f->member = any_u64(r);
#define RANDOM_I(member) f->member = (int64_t)(rand_below(r, 2) ? any_u64(r) : ~any_u64(r));
#define RANDOM_B(member) f->member = any_bytes(r);
#define RANDOM(NAME, name, number, from, to, text) \
    static void random_##name(struct fr_##name *f, struct rand *r) \
    { \
        FR_##NAME##_FIELDS(RANDOM_U, RANDOM_I, RANDOM_B) \
    }
FRAMES(RANDOM)

#define RANDOM_CASE(NAME, name, number, from, to, text) \
    case FR_##NAME: \
        random_##name(&f.name, r); \
        break;

static struct frame random_frame(struct rand *r, enum frame_type type)
{
    struct frame f = {.type = type, .seq = any_u64(r)};

    switch (type) {
        FRAMES(RANDOM_CASE)
    }
    return f;
}

/* --- equality, field by field ---------------------------------------------------------------------------- */

#define SAME_N(member) cr_assert(a->member == b->member, #member);
#define SAME_B(member) cr_assert(slice_eq(a->member, b->member), #member);
#define SAME(NAME, name, number, from, to, text) \
    static void same_##name(const struct fr_##name *a, const struct fr_##name *b) \
    { \
        FR_##NAME##_FIELDS(SAME_N, SAME_N, SAME_B) \
    }
FRAMES(SAME)

#define SAME_CASE(NAME, name, number, from, to, text) \
    case FR_##NAME: \
        same_##name(&a->name, &b->name); \
        break;

static void assert_same(const struct frame *a, const struct frame *b)
{
    cr_assert_eq(a->type, b->type);
    cr_assert_eq(a->seq, b->seq);
    switch (a->type) {
        FRAMES(SAME_CASE)
    }
}

/* --- tests ------------------------------------------------------------------------------------------------- */

Test(frames, every_frame_comes_back_as_it_was_sent)
{
    struct rand r = seeded("frames/round");
    struct buf b = BUF_INIT;

    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < ARRAY_LEN(types); i++) {
            struct frame sent = random_frame(&r, types[i]), got;
            struct slice message;

            buf_reset(&b);
            frame_encode(&b, &sent);
            message = buf_slice(&b);
            cr_assert_eq(frame_decode(&message, &got), 1, "%s", frame_name(types[i]));
            cr_assert_eq(message.len, 0);
            assert_same(&sent, &got);
        }
    }
    buf_fini(&b);
}

Test(frames, a_message_is_a_batch_and_ends_with_its_last_frame)
{
    struct buf b = BUF_INIT;
    struct frame got;

    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        struct frame sent = example(types[i]);
        frame_encode(&b, &sent);
    }

    struct slice message = buf_slice(&b);
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        struct frame sent = example(types[i]);
        cr_assert_eq(frame_decode(&message, &got), 1);
        assert_same(&sent, &got);
    }
    cr_assert_eq(frame_decode(&message, &got), 0);
    buf_fini(&b);
}

static void add_golden_line(struct buf *out, enum frame_type type)
{
    struct frame f = example(type);
    struct buf b = BUF_INIT;

    frame_encode(&b, &f);
    buf_printf(out, "%s ", frame_name(type));
    for (size_t i = 0; i < b.len; i++)
        buf_printf(out, "%02x", b.data[i]);
    buf_add_str(out, "\n");
    buf_fini(&b);
}

Test(frames, bytes_on_the_wire_change_only_on_purpose)
{
    struct buf text = BUF_INIT;
    static char golden[65536];

    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        add_golden_line(&text, types[i]);
    if (getenv("TRINE_ACCEPT") != NULL) {
        FILE *f = fopen(GOLDEN, "w");
        cr_assert_eq(fwrite(text.data, 1, text.len, f), text.len);
        fclose(f);
    }

    FILE *f = fopen(GOLDEN, "r");
    cr_assert_not_null(f, "run from the top of the tree");
    golden[fread(golden, 1, sizeof(golden) - 1, f)] = '\0';
    fclose(f);
    buf_add_byte(&text, '\0');
    cr_assert_str_eq((const char *)text.data, golden);
    buf_fini(&text);
}

Test(frames, a_frame_that_is_cut_anywhere_is_refused_and_not_taken)
{
    struct buf b = BUF_INIT;

    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        struct frame sent = example(types[i]), got;
        buf_reset(&b);
        frame_encode(&b, &sent);
        for (size_t len = 1; len < b.len; len++) {
            /* A copy of exactly this size, so that the sanitizer sees a read past it. */
            uint8_t *cut = malloc(len);
            memcpy(cut, b.data, len);
            struct slice message = slice_of(cut, len);
            cr_assert_eq(frame_decode(&message, &got), E_TRUNCATED, "%s cut to %zu", frame_name(types[i]), len);
            cr_assert_eq(message.len, len);
            free(cut);
        }
    }
    buf_fini(&b);
}

Test(frames, mutated_frames_are_refused_or_mean_something_else_but_never_crash)
{
    struct rand r = seeded("frames/mutate");
    struct buf b = BUF_INIT, again = BUF_INIT;
    char line[200];

    for (int i = 0; i < 40000; i++) {
        struct frame got, sent = example(types[rand_below(&r, ARRAY_LEN(types))]);
        buf_reset(&b);
        frame_encode(&b, &sent);
        mutate(&r, &b);

        struct slice message = buf_slice(&b);
        while (frame_decode(&message, &got) == 1) {
            frame_show(&got, line, sizeof(line));
            buf_reset(&again);
            frame_encode(&again, &got);
        }
    }
    buf_fini(&again);
    buf_fini(&b);
}

Test(frames, a_frame_of_another_shape_is_refused)
{
    struct frame got;
    struct slice message = SLICE_LIT("\x94\x0a\x01\x07\xc4"); /* PROPOSE, then a bin that is cut */
    cr_assert_eq(frame_decode(&message, &got), E_TRUNCATED);

    message = SLICE_LIT("\x93\x0a\x01\x07"); /* PROPOSE with a field too few */
    cr_assert_eq(frame_decode(&message, &got), E_MALFORMED);
    message = SLICE_LIT("\x95\x0a\x01\x07\xa0\x00"); /* ... and one too many */
    cr_assert_eq(frame_decode(&message, &got), E_MALFORMED);
    message = SLICE_LIT("\x94\x0a\x01\xff\xa0"); /* req below zero */
    cr_assert_eq(frame_decode(&message, &got), E_MALFORMED);
    message = SLICE_LIT("\x93\x63\x01\x07"); /* type 99 */
    cr_assert_eq(frame_decode(&message, &got), E_VERSION);
    message = SLICE_LIT("\x91\x0a"); /* no seq */
    cr_assert_eq(frame_decode(&message, &got), E_MALFORMED);
    message = SLICE_LIT("\x80"); /* not an array */
    cr_assert_eq(frame_decode(&message, &got), E_MALFORMED);
    message = SLICE_LIT("\xdc\x00\x21\x0a\x01"); /* more fields than any frame has */
    cr_assert_eq(frame_decode(&message, &got), E_TOO_BIG);
    message = SLICE_LIT("\x94\x0a\x01\x07\xc6\x7f\xff\xff\xff"); /* a command of 2 GiB, or so it says */
    cr_assert_eq(frame_decode(&message, &got), E_TOO_BIG);
}

Test(frames, a_field_at_its_limit_is_taken_and_one_byte_more_is_not)
{
    struct buf b = BUF_INIT;
    uint8_t *big = calloc(1, FRAME_FIELD_BYTES_MAX + 1);
    struct frame got;

    frame_encode(&b, FRAME(propose, PROPOSE, .req = 1, .command = slice_of(big, FRAME_FIELD_BYTES_MAX)));
    struct slice message = buf_slice(&b);
    cr_assert_eq(frame_decode(&message, &got), 1);

    buf_reset(&b);
    frame_encode(&b, FRAME(propose, PROPOSE, .req = 1, .command = slice_of(big, FRAME_FIELD_BYTES_MAX + 1)));
    message = buf_slice(&b);
    cr_assert_eq(frame_decode(&message, &got), E_TOO_BIG);
    free(big);
    buf_fini(&b);
}

Test(frames, who_may_say_what_is_the_list_s_word)
{
    cr_assert(frame_may(FR_PROPOSE, ROLE_GATEWAYD, ROLE_RAFTD));
    cr_assert(frame_may(FR_PROPOSE, ROLE_STORED, ROLE_RAFTD));
    cr_assert(!frame_may(FR_PROPOSE, ROLE_RAFTD, ROLE_STORED));
    cr_assert(!frame_may(FR_PROPOSE, ROLE_GATEWAYD, ROLE_STORED));
    cr_assert(frame_may(FR_APPLY, ROLE_RAFTD, ROLE_STORED));
    cr_assert(!frame_may(FR_APPLY, ROLE_GATEWAYD, ROLE_STORED));
    cr_assert(frame_may(FR_HELLO, ROLE_STORED, ROLE_GATEWAYD));
    cr_assert(!frame_may(99, ROLE_ANY, ROLE_ANY));
}

Test(frames, a_frame_shows_itself_in_one_line)
{
    char line[200], narrow[12];

    frame_show(FRAME(propose, PROPOSE, .req = 12, .command = slice_of(noise, 41)), line, sizeof(line));
    cr_assert_str_eq(line, "PROPOSE seq 0 req 12 command 41 bytes");
    frame_show(FRAME(watching, WATCHING, .token = 3, .rev = 9, .compact_rev = -1), line, sizeof(line));
    cr_assert_str_eq(line, "WATCHING seq 0 token 3 rev 9 compact_rev -1");
    frame_show(FRAME(propose, PROPOSE, .req = 12), narrow, sizeof(narrow));
    cr_assert_str_eq(narrow, "PROPOSE seq");
    cr_assert_str_eq(frame_name(FR_PAST_END), "PAST_END");
    cr_assert_str_eq(frame_name(99), "?");
}

/* "gatewayd, stored" */
static void add_roles(struct buf *out, unsigned roles)
{
    static const struct {
        unsigned role;
        const char *name;
    } names[] = {{ROLE_GATEWAYD, "gatewayd"},
                 {ROLE_RAFTD, "raftd"},
                 {ROLE_STORED, "stored"},
                 {ROLE_PEER, "peer"},
                 {ROLE_CTL, "trinectl"}};
    const char *comma = "";

    if (roles == ROLE_ANY) {
        buf_add_str(out, "any");
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if ((roles & names[i].role) == 0)
            continue;
        buf_printf(out, "%s%s", comma, names[i].name);
        comma = ", ";
    }
}

#define README_FIELD(member) "`" #member "` "
#define README_ROW(NAME, name, number, from, to, text) \
    buf_printf(out, "| %d | `%s` | ", number, #NAME); \
    add_roles(out, from); \
    buf_add_str(out, " | "); \
    add_roles(out, to); \
    buf_add_str(out, " | " text " | " FR_##NAME##_FIELDS(README_FIELD, README_FIELD, README_FIELD) "|\n");

static void add_readme_table(struct buf *out){FRAMES(README_ROW)}

Test(frames, the_readme_has_the_table_of_the_list)
{
    static char readme[262144];
    struct buf table = BUF_INIT;
    FILE *f = fopen("proto/README.md", "r");

    cr_assert_not_null(f, "run from the top of the tree");
    readme[fread(readme, 1, sizeof(readme) - 1, f)] = '\0';
    fclose(f);
    add_readme_table(&table);
    if (getenv("TRINE_ACCEPT") != NULL)
        fwrite(table.data, 1, table.len, stderr);
    buf_add_byte(&table, '\0');
    cr_assert_not_null(strstr(readme, (const char *)table.data), "proto/README.md must hold these rows:\n%s",
                       (const char *)table.data);
    buf_fini(&table);
}
