/* test_api - our decoders and encoders against protobuf's generated ones, on random messages made from the descriptors.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "proto/pb.h"
#include "tests/proto/seed.h"
#include "tests/proto/twin.h"

#define DEPTH_MAX 4 /* of random transactions */
#define OPS_MAX 1000000

/* --- random messages, whatever their type; all memory is the arena's ---------------------------------- */

static ProtobufCMessage *random_message(const ProtobufCMessageDescriptor *d, struct rand *r, struct arena *arena,
                                        int depth);

static ProtobufCBinaryData random_bytes(struct rand *r, struct arena *arena)
{
    size_t len = (size_t)(rand_below(r, 20) == 0 ? rand_below(r, 400) : rand_below(r, 6));
    ProtobufCBinaryData b = {len, arena_alloc(arena, len + 1)};

    for (size_t i = 0; i < len; i++)
        b.data[i] = (uint8_t)rand_u64(r);
    return b;
}

/* Sets one value at `at`. */
static void random_value(const ProtobufCFieldDescriptor *f, void *at, struct rand *r, struct arena *arena, int depth)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        *(uint64_t *)at = rand_below(r, 2) ? any_u64(r) : ~any_u64(r);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        *(int32_t *)at = rand_below(r, 10) == 0 ? (int32_t)any_u64(r) : (int32_t)rand_below(r, 5);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)at = rand_below(r, 2) != 0;
        break;
    case PROTOBUF_C_TYPE_BYTES:
        *(ProtobufCBinaryData *)at = random_bytes(r, arena);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)at = random_message(f->descriptor, r, arena, depth + 1);
        break;
    default:
        cr_assert_fail("a hot message has a field of type %d", (int)f->type);
    }
}

static ProtobufCMessage *random_message(const ProtobufCMessageDescriptor *d, struct rand *r, struct arena *arena,
                                        int depth)
{
    ProtobufCMessage *m = arena_zalloc(arena, d->sizeof_message);

    protobuf_c_message_init(d, m);
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        void *member = (uint8_t *)m + f->offset, *quantifier = (uint8_t *)m + f->quantifier_offset;

        if (rand_below(r, 3) == 0 || (f->type == PROTOBUF_C_TYPE_MESSAGE && depth > 2 * DEPTH_MAX))
            continue;
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t count = (size_t)rand_below(r, 4);
            void **items = arena_zalloc(arena, (count + 1) * sizeof(items[0]));
            for (size_t k = 0; k < count; k++)
                random_value(f, &items[k], r, arena, depth);
            *(size_t *)quantifier = count;
            *(void ***)member = items;
            continue;
        }
        if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
            if (rand_below(r, 2) == 0)
                continue;
            *(uint32_t *)quantifier = f->id; /* the last of them stands */
        }
        random_value(f, member, r, arena, depth);
    }
    return m;
}

static void pack(struct buf *out, const ProtobufCMessage *m)
{
    size_t size = protobuf_c_message_get_packed_size(m);

    buf_reset(out);
    buf_reserve(out, size + 1);
    out->len = protobuf_c_message_pack(m, out->data);
    cr_assert_eq(out->len, size);
}

/* --- against the generated code ------------------------------------------------------------------------ */

Test(api, we_decode_what_the_generated_code_encodes)
{
    struct rand r = seeded("api/decode");
    struct buf b = BUF_INIT;
    struct arena ours, theirs;
    arena_init(&ours);
    arena_init(&theirs);

    for (int i = 0; i < 20000; i++) {
        enum twin kind = (enum twin)(i % TWIN_COUNT);
        struct twin_decoded d;
        ProtobufCMessage *m = random_message(twin_descriptor(kind), &r, &theirs, 0);

        pack(&b, m);
        cr_assert_eq(twin_decode(kind, buf_slice(&b), &ours, &d), 0);
        cr_assert(twin_same(kind, &d, m), "message %d of kind %d", i, (int)kind);
        arena_reset(&ours);
        arena_reset(&theirs);
    }
    arena_fini(&theirs);
    arena_fini(&ours);
    buf_fini(&b);
}

Test(api, the_generated_code_decodes_what_we_encode)
{
    struct rand r = seeded("api/encode");
    struct buf b = BUF_INIT, again = BUF_INIT;
    struct arena ours, theirs;
    arena_init(&ours);
    arena_init(&theirs);

    for (int i = 0; i < 20000; i++) {
        enum twin kind = (enum twin)(i % TWIN_COUNT);
        struct twin_decoded d;

        pack(&b, random_message(twin_descriptor(kind), &r, &theirs, 0));
        cr_assert_eq(twin_decode(kind, buf_slice(&b), &ours, &d), 0);
        buf_reset(&again);
        twin_encode(kind, &again, &d);
        if (kind == TWIN_KEY_VALUE)
            cr_assert_eq(api_key_value_size(&d.kv), again.len);
        ProtobufCMessage *m = protobuf_c_message_unpack(twin_descriptor(kind), NULL, again.len, again.data);
        cr_assert_not_null(m);
        cr_assert(twin_same(kind, &d, m), "message %d of kind %d", i, (int)kind);
        protobuf_c_message_free_unpacked(m, NULL);
        arena_reset(&ours);
        arena_reset(&theirs);
    }
    arena_fini(&theirs);
    arena_fini(&ours);
    buf_fini(&again);
    buf_fini(&b);
}

Test(api, mutated_bytes_mean_the_same_to_both_or_nothing_to_us)
{
    struct rand r = seeded("api/mutate");
    struct buf b = BUF_INIT;
    struct arena arena;
    int taken = 0;
    arena_init(&arena);

    for (int i = 0; i < 40000; i++) {
        enum twin kind = (enum twin)(i % TWIN_COUNT);
        struct twin_decoded d;

        pack(&b, random_message(twin_descriptor(kind), &r, &arena, 0));
        mutate(&r, &b);
        if (twin_decode(kind, buf_slice(&b), &arena, &d) == 0) {
            ProtobufCMessage *m = protobuf_c_message_unpack(twin_descriptor(kind), NULL, b.len, b.data);
            cr_assert_not_null(m);
            cr_assert(twin_same(kind, &d, m));
            protobuf_c_message_free_unpacked(m, NULL);
            taken++;
        }
        arena_reset(&arena);
    }
    cr_assert_gt(taken, 1000);
    arena_fini(&arena);
    buf_fini(&b);
}

/* --- rules of the format --------------------------------------------------------------------------------- */

Test(api, unknown_fields_are_skipped_and_the_last_scalar_wins)
{
    struct api_put m;

    cr_assert_eq(api_decode_put(SLICE_LIT("\x0a\x01"
                                          "a\xf8\x07\x05\x0a\x01"
                                          "b\xfa\x07\x02xy\x20\x02"),
                                &m),
                 0);
    cr_assert(slice_eq(m.key, SLICE_LIT("b")));
    cr_assert(m.prev_kv);
}

Test(api, a_known_field_of_another_wire_type_is_malformed_and_leaves_the_result_alone)
{
    struct api_put m = {.lease = 7};
    struct arena arena;
    struct api_txn *txn = NULL;
    arena_init(&arena);

    cr_assert_eq(api_decode_put(SLICE_LIT("\x08\x01"), &m), E_MALFORMED);
    cr_assert_eq(api_decode_put(SLICE_LIT("\x1a\x01x"), &m), E_MALFORMED);
    cr_assert_eq(m.lease, 7);
    cr_assert_eq(api_decode_txn(SLICE_LIT("\x08\x01"), &arena, OPS_MAX, &txn), E_MALFORMED);
    cr_assert_eq(api_decode_txn(SLICE_LIT("\x12\x02\x10\x01"), &arena, OPS_MAX, &txn), E_MALFORMED);
    cr_assert_null(txn);
    arena_fini(&arena);
}

Test(api, the_last_member_of_a_oneof_stands)
{
    struct arena arena;
    struct api_txn *txn;
    arena_init(&arena);

    /* an operation that is a put, then a range; a compare of VALUE with a value, then a version */
    cr_assert_eq(
        api_decode_txn(SLICE_LIT("\x12\x0a\x12\x03\x0a\x01p\x0a\x03\x0a\x01r\x0a\x07\x10\x03\x3a\x01v\x20\x05"), &arena,
                       OPS_MAX, &txn),
        0);
    cr_assert_eq(txn->success[0].op, API_OP_RANGE);
    cr_assert(slice_eq(txn->success[0].range.key, SLICE_LIT("r")));
    cr_assert_eq(txn->compares[0].target, API_VALUE);
    cr_assert_eq(txn->compares[0].value.len, 0);
    cr_assert_eq(txn->compares[0].number, 0);
    arena_fini(&arena);
}

/* A transaction in a transaction in ..., levels deep below the first. */
static void nest(struct buf *b, unsigned levels)
{
    struct buf op = BUF_INIT;

    buf_reset(b);
    for (unsigned i = 0; i < levels; i++) {
        buf_reset(&op);
        pb_add_message(&op, API_OP_TXN, buf_slice(b));
        buf_reset(b);
        pb_add_message(b, 2, buf_slice(&op));
    }
    buf_fini(&op);
}

Test(api, transactions_nest_down_to_the_limit_and_no_deeper)
{
    struct buf b = BUF_INIT;
    struct arena arena;
    struct api_txn *txn;
    arena_init(&arena);

    nest(&b, TXN_DEPTH_MAX);
    cr_assert_eq(api_decode_txn(buf_slice(&b), &arena, OPS_MAX, &txn), 0);
    nest(&b, TXN_DEPTH_MAX + 1);
    cr_assert_eq(api_decode_txn(buf_slice(&b), &arena, OPS_MAX, &txn), E_TOO_MANY_OPS);
    arena_fini(&arena);
    buf_fini(&b);
}

Test(api, a_list_longer_than_may_ever_be_allowed_is_refused_before_it_has_memory)
{
    struct buf b = BUF_INIT;
    struct arena arena;
    struct api_txn *txn;
    arena_init(&arena);

    for (size_t i = 0; i <= OPS_MAX; i++)
        pb_add_message(&b, 2, SLICE_EMPTY);
    cr_assert_eq(api_decode_txn(buf_slice(&b), &arena, OPS_MAX, &txn), E_TOO_MANY_OPS);
    cr_assert_eq(arena.total, 0);
    arena_fini(&arena);
    buf_fini(&b);
}

/* {success: [op] * count}, each op a transaction of that shape one level down; {} at the bottom. */
static void tree(struct buf *b, const unsigned *widths, size_t levels)
{
    struct buf below = BUF_INIT, op = BUF_INIT;

    if (levels > 0) {
        tree(&below, widths + 1, levels - 1);
        pb_add_message(&op, API_OP_TXN, buf_slice(&below));
        for (unsigned i = 0; i < widths[0]; i++)
            pb_add_message(b, 2, buf_slice(&op));
    }
    buf_fini(&below);
    buf_fini(&op);
}

/* 64 + 32 + ... + 1 operations on each way down keep the rule of max-txn-ops 128, and are two million. */
Test(api, a_tree_that_multiplies_within_the_rules_of_each_level_gets_no_memory)
{
    static const unsigned widths[] = {64, 32, 16, 8, 4};
    struct buf b = BUF_INIT;
    struct arena arena;
    struct api_txn *txn;
    arena_init(&arena);

    tree(&b, widths, ARRAY_LEN(widths));
    cr_assert_gt(b.len, 64 * 32 * 16 * 8 * 4 * 2);
    cr_assert_eq(api_decode_txn(buf_slice(&b), &arena, TXN_OPS_DEFAULT, &txn), 0);
    cr_assert_eq(api_check_txn(txn, TXN_OPS_DEFAULT), E_TOO_MANY_OPS);
    cr_assert_lt(arena.total, 2 * TXN_ALL_OPS_MAX * sizeof(struct api_request_op));
    arena_fini(&arena);
    buf_fini(&b);
}

Test(api, what_is_over_the_limit_is_still_malformed_when_it_is)
{
    struct buf b = BUF_INIT;
    struct arena arena;
    struct api_txn *txn = NULL;
    arena_init(&arena);

    for (int i = 0; i < 3; i++)
        pb_add_message(&b, 2, SLICE_EMPTY);
    cr_assert_eq(api_decode_txn(buf_slice(&b), &arena, 3, &txn), 0);
    cr_assert_eq(api_decode_txn(buf_slice(&b), &arena, 2, &txn), E_TOO_MANY_OPS);
    pb_add_message(&b, 2, SLICE_LIT("\x12\x02\x08\x01")); /* a put whose key is a number */
    cr_assert_eq(api_decode_txn(buf_slice(&b), &arena, 2, &txn), E_MALFORMED);
    arena_fini(&arena);
    buf_fini(&b);
}
