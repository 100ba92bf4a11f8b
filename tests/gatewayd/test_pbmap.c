/* pbmap, native_op - API messages as msgpack maps and back: random messages of every operation against protobuf-c and
 * msgpack-c, one example byte by byte, and requests that lie. */
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <msgpack.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/mem.h"
#include "etcd/rpc.pb-c.h"
#include "gatewayd/native_op.h"
#include "gatewayd/pbmap.h"
#include "proto/pack.h"
#include "proto/pb.h"
#include "tests/proto/seed.h"

/* --- random messages, made by descriptor as protobuf-c's own unpacking would make them ----------------------- */

static ProtobufCMessage *any_message(struct rand *r, const ProtobufCMessageDescriptor *d, unsigned depth);

static void any_bytes(struct rand *r, ProtobufCBinaryData *b, bool may_be_empty)
{
    b->len = (size_t)rand_below(r, 40) + !may_be_empty;
    b->data = xmalloc(b->len + 1);
    for (size_t i = 0; i < b->len; i++)
        b->data[i] = (uint8_t)rand_u64(r);
}

static void any_value(struct rand *r, const ProtobufCFieldDescriptor *f, void *at, unsigned depth)
{
    const ProtobufCEnumDescriptor *e;
    switch (f->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)at = any_message(r, f->descriptor, depth + 1);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        any_bytes(r, at, true);
        break;
    case PROTOBUF_C_TYPE_STRING:
        *(char **)at = xasprintf("text %llu", (unsigned long long)any_u64(r));
        break;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)at = (protobuf_c_boolean)rand_below(r, 2);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        e = f->descriptor; /* also numbers that have no name */
        *(int32_t *)at = rand_below(r, 4) ? e->values[rand_below(r, e->n_values)].value : (int32_t)rand_below(r, 100);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_INT32:
        *(uint32_t *)at = (uint32_t)any_u64(r);
        break;
    default:
        *(uint64_t *)at = rand_below(r, 2) ? any_u64(r) : ~any_u64(r);
        break;
    }
}

static size_t value_size(const ProtobufCFieldDescriptor *f)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        return 8;
    default:
        return 4;
    }
}

static void any_field(struct rand *r, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, unsigned depth)
{
    uint8_t *base = (uint8_t *)m;
    if (f->type == PROTOBUF_C_TYPE_MESSAGE && depth > 3)
        return;
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t count = (size_t)rand_below(r, 4);
        if (count == 0)
            return;
        uint8_t *array = xcalloc(count, value_size(f));
        for (size_t i = 0; i < count; i++)
            any_value(r, f, array + i * value_size(f), depth);
        *(size_t *)(void *)(base + f->quantifier_offset) = count;
        *(uint8_t **)(void *)(base + f->offset) = array;
        return;
    }
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        uint32_t *which = (uint32_t *)(void *)(base + f->quantifier_offset);
        if (*which) /* another branch has it */
            return;
        *which = f->id;
    }
    any_value(r, f, base + f->offset, depth);
}

static ProtobufCMessage *any_message(struct rand *r, const ProtobufCMessageDescriptor *d, unsigned depth)
{
    ProtobufCMessage *m = xmalloc(d->sizeof_message);
    d->message_init(m);
    for (unsigned i = 0; i < d->n_fields; i++)
        if (rand_below(r, 2))
            any_field(r, m, &d->fields[i], depth);
    return m;
}

static void pack_wire(const ProtobufCMessage *m, struct buf *out)
{
    buf_reset(out);
    buf_reserve(out, protobuf_c_message_get_packed_size(m) + 1);
    out->len = protobuf_c_message_pack(m, out->data);
}

/* The map's head was not taken off: what pbmap_from_message wrote. */
static int to_message(const ProtobufCMessageDescriptor *d, struct slice map, struct buf *out, struct buf *why)
{
    uint32_t count;
    buf_reset(out);
    buf_reset(why);
    int err = unpack_map(&map, UINT32_MAX, &count);
    if (!err)
        err = pbmap_to_message(d, &map, count, NULL, out, why);
    return err ? err : map.len ? E_TRAILING : 0;
}

static void round_trip(struct rand *r, const ProtobufCMessageDescriptor *d)
{
    struct buf wire = BUF_INIT, map = BUF_INIT, back = BUF_INIT, again = BUF_INIT, why = BUF_INIT;
    ProtobufCMessage *m = any_message(r, d, 0);
    pack_wire(m, &wire);

    cr_assert_eq(pbmap_from_message(d, buf_slice(&wire), &map), 0, "%s", d->name);
    int err = to_message(d, buf_slice(&map), &back, &why);

    cr_assert_eq(err, 0, "%s: %s %.*s", d->name, err_name(err), (int)why.len, (const char *)why.data);
    ProtobufCMessage *theirs =
        protobuf_c_message_unpack(d, NULL, back.len, back.data ? back.data : (const uint8_t *)"");
    cr_assert_not_null(theirs, "%s", d->name);
    pack_wire(theirs, &again);
    cr_expect(slice_eq(buf_slice(&again), buf_slice(&wire)), "%s came back as another message", d->name);

    msgpack_unpacked object;
    msgpack_unpacked_init(&object);
    size_t at = 0;
    cr_expect_eq(msgpack_unpack_next(&object, (const char *)map.data, map.len, &at), MSGPACK_UNPACK_SUCCESS);
    cr_expect_eq(at, map.len);
    cr_expect_eq(object.data.type, MSGPACK_OBJECT_MAP);
    msgpack_unpacked_destroy(&object);
    protobuf_c_message_free_unpacked(theirs, NULL);
    protobuf_c_message_free_unpacked(m, NULL);
    buf_fini(&wire);
    buf_fini(&map);
    buf_fini(&back);
    buf_fini(&again);
    buf_fini(&why);
}

Test(pbmap, every_message_of_every_operation_survives_the_way_to_a_map_and_back)
{
    struct rand r = seeded("pbmap/round_trip");
    for (size_t i = 0; i < native_op_count(); i++) {
        const struct native_op *op = native_op_at(i);
        for (int k = 0; k < 300; k++) {
            round_trip(&r, op->request);
            if (op->response)
                round_trip(&r, op->response);
        }
    }
}

/* --- one example, byte by byte ---------------------------------------------------------------------------------- */

Test(pbmap, a_range_response_becomes_this_very_map)
{
    static const uint8_t wire[] = {0x0a, 0x04, 0x18, 0x07, 0x20, 0x02, /* header {revision 7, raft_term 2} */
                                   0x12, 0x0d, 0x0a, 0x01, 'k',  0x10, 0x05, 0x18,
                                   0x06, 0x20, 0x02, 0x2a, 0x02, 'v',  0x00, /* kvs */
                                   0x18, 0x01,                               /* more */
                                   0x20, 0xac, 0x02};                        /* count 300 */
    static const char map[] = "\x84\xa6"
                              "header\x82\xa8"
                              "revision\x07\xa9"
                              "raft_term\x02\xa3"
                              "kvs\x91\x85\xa3"
                              "key\xc4\x01k\xaf"
                              "create_revision\x05\xac"
                              "mod_revision\x06\xa7"
                              "version\x02\xa5"
                              "value\xc4\x02v\0\xa4"
                              "more\xc3\xa5"
                              "count\xcd\x01\x2c";
    struct buf out = BUF_INIT;
    cr_assert_eq(pbmap_from_message(&etcdserverpb__range_response__descriptor, slice_of(wire, sizeof(wire)), &out), 0);
    cr_expect(slice_eq(buf_slice(&out), SLICE_LIT(map)));
    buf_fini(&out);
}

static int read_request(const void *bytes, size_t len, struct buf *body, struct buf *why)
{
    const struct native_op *op = NULL;
    buf_reset(body);
    buf_reset(why);
    int err = native_op_read(slice_of(bytes, len), 2 * MIB, &op, body, why);
    cr_expect((err == 0) == (op != NULL));
    return err;
}
#define READ(literal) read_request(literal, sizeof(literal) - 1, &body, &why)

Test(native_op, a_put_of_the_readme_becomes_a_put_request)
{
    struct buf body = BUF_INIT, why = BUF_INIT;
    cr_assert_eq(READ("\x83\xa2op\xa3put\xa3key\xa8greeting\xa5value\xa5hello"), 0);
    cr_expect(slice_eq(buf_slice(&body), SLICE_LIT("\x0a\x08greeting\x12\x05hello")));
    /* "op" may stand last, strings may be bin, nil is as good as nothing, an enum may be a name or a number */
    cr_assert_eq(READ("\x84\xa3key\xc4\x01k\xa5lease\xc0\xaasort_order\xa7"
                      "DESCEND\xa2op\xa5range"),
                 E_INVALID); /* lease is no field of a range */
    cr_assert_eq(READ("\x84\xa3key\xc4\x01k\xa5limit\xc0\xaasort_order\xa7"
                      "DESCEND\xa2op\xa5range"),
                 0);
    cr_expect(slice_eq(buf_slice(&body), SLICE_LIT("\x0a\x01k\x28\x02")));
    cr_assert_eq(READ("\x82\xaasort_order\x02\xa2op\xa5range"), 0);
    cr_expect(slice_eq(buf_slice(&body), SLICE_LIT("\x28\x02")));
    buf_fini(&body);
    buf_fini(&why);
}

/* --- requests that lie ----------------------------------------------------------------------------------------------
 */

static bool says(const struct buf *why, const char *text)
{
    char *s = slice_dup_str(buf_slice(why));
    bool found = strstr(s, text) != NULL;
    if (!found)
        fprintf(stderr, "said \"%s\", not \"%s\"\n", s, text);
    free(s);
    return found;
}

Test(native_op, what_is_wrong_is_said_with_its_name)
{
    struct buf body = BUF_INIT, why = BUF_INIT;
    cr_expect_eq(READ(""), E_INVALID);
    cr_expect(says(&why, "a request is a msgpack map"));
    cr_expect_eq(READ("GET / HTTP/1.1\r\n\r\n"), E_INVALID);
    cr_expect_eq(READ("\x91\xa3put"), E_INVALID);
    cr_expect(says(&why, "a request is a msgpack map"));
    cr_expect_eq(READ("\x80"), E_INVALID);
    cr_expect(says(&why, "the map has no \"op\""));
    cr_expect_eq(READ("\x81\xa2op\xa4puts"), E_INVALID);
    cr_expect(says(&why, "unknown op \"puts\""));
    cr_expect_eq(READ("\x81\xa2op\x01"), E_INVALID);
    cr_expect(says(&why, "\"op\" is not a string"));
    cr_expect_eq(READ("\x81\x01\xa2op"), E_INVALID);
    cr_expect(says(&why, "a key of the map"));
    cr_expect_eq(READ("\x82\xa2op\xa3put\xa4keys\xa1x"), E_INVALID);
    cr_expect(says(&why, "unknown field \"keys\""));
    cr_expect_eq(READ("\x82\xa2op\xa3put\xa3key\x07"), E_INVALID);
    cr_expect(says(&why, "field \"key\": must be a string"));
    cr_expect_eq(READ("\x82\xa2op\xa3put\xa5lease\xa1x"), E_INVALID);
    cr_expect(says(&why, "field \"lease\": must be a number"));
    cr_expect_eq(READ("\x82\xa2op\xa3put\xa5lease\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"), E_INVALID);
    cr_expect_eq(READ("\x82\xa2op\xa3put\xa7prev_kv\x01"), E_INVALID);
    cr_expect(says(&why, "field \"prev_kv\": must be true or false"));
    cr_expect_eq(READ("\x82\xa2op\xa3txn\xa7"
                      "compare\x80"),
                 E_INVALID);
    cr_expect(says(&why, "field \"compare\": must be an array"));
    cr_expect_eq(READ("\x82\xa2op\xa3txn\xa7"
                      "compare\x91\x01"),
                 E_INVALID);
    cr_expect(says(&why, "field \"compare\": must be a map"));
    cr_expect_eq(READ("\x82\xa2op\xa5range\xaasort_order\xa2UP"), E_INVALID);
    cr_expect(says(&why, "field \"sort_order\""));
    cr_expect_eq(READ("\x81\xa2op\xa6status\x00"), E_INVALID);
    cr_expect(says(&why, "left over"));
    buf_fini(&body);
    buf_fini(&why);
}

Test(native_op, a_text_of_ours_never_repeats_bytes_that_are_not_text)
{
    struct buf body = BUF_INIT, why = BUF_INIT;
    cr_expect_eq(READ("\x81\xa2op\xa4\x1b[\xff\n"), E_INVALID);
    cr_expect(says(&why, "unknown op \"?[??\""));
    cr_expect_eq(READ("\x82\xa2op\xa3put\xa3\x00\x80\x07\x01"), E_INVALID);
    cr_expect(says(&why, "unknown field \"???\""));
    buf_fini(&body);
    buf_fini(&why);
}

Test(native_op, a_request_that_ends_too_early_is_refused_wherever_it_ends)
{
    static const char whole[] = "\x84\xa2op\xa3txn\xa7"
                                "compare\x91\x83\xa3key\xc4\x01k\xa6target\xa7VERSION\xa7version\xcd\x01\x00\xa7success"
                                "\x91\x81\xabrequest_put\x82"
                                "\xa3key\xa1k\xa5value\xda\x00\x02vv\xa7"
                                "failure\x90";
    struct buf body = BUF_INIT, why = BUF_INIT;
    cr_assert_eq(READ(whole), 0);
    for (size_t len = 0; len < sizeof(whole) - 1; len++) {
        /* a copy of its own, so that a sanitizer sees one byte too many */
        uint8_t *copy = xmemdup(whole, len);
        cr_expect_neq(read_request(copy, len, &body, &why), 0, "%zu bytes were enough", len);
        free(copy);
    }
    buf_fini(&body);
    buf_fini(&why);
}

Test(native_op, counts_with_no_bytes_behind_them_cost_nothing)
{
    struct buf body = BUF_INIT, why = BUF_INIT;
    cr_expect_neq(READ("\xdf\xff\xff\xff\xff\xa2op\xa3put"), 0);
    cr_expect_neq(READ("\x82\xa2op\xa3txn\xa7"
                       "compare\xdd\xff\xff\xff\xff"),
                  0);
    cr_expect_neq(READ("\x82\xa2op\xa3txn\xa7"
                       "compare\x91\xdf\xff\xff\xff\xff"),
                  0);
    cr_expect_neq(READ("\x82\xa2op\xa3put\xa3key\xc6\xff\xff\xff\xff"), 0);
    cr_expect_lt(body.cap, 4096u);
    buf_fini(&body);
    buf_fini(&why);
}

/* A transaction inside a transaction, and so on. */
static void nested_txn(struct buf *b, unsigned depth)
{
    pack_map(b, 2);
    pack_cstr(b, "op");
    pack_cstr(b, "txn");
    pack_cstr(b, "success");
    for (unsigned i = 0; i < depth; i++) {
        pack_array(b, 1);
        pack_map(b, 1);
        pack_cstr(b, "request_txn");
        pack_map(b, 1);
        pack_cstr(b, "success");
    }
    pack_array(b, 0);
}

Test(native_op, nesting_is_taken_as_deep_as_a_transaction_may_be_and_no_deeper)
{
    struct buf in = BUF_INIT, body = BUF_INIT, why = BUF_INIT;
    nested_txn(&in, TXN_DEPTH_MAX);
    cr_expect_eq(read_request(in.data, in.len, &body, &why), 0);
    buf_reset(&in);
    nested_txn(&in, 100000);
    cr_expect_eq(read_request(in.data, in.len, &body, &why), E_TOO_BIG);
    buf_fini(&in);
    buf_fini(&body);
    buf_fini(&why);
}

Test(native_op, a_request_that_grows_beyond_the_limit_as_protobuf_is_refused)
{
    struct buf in = BUF_INIT, body = BUF_INIT, why = BUF_INIT;
    const struct native_op *op = NULL;
    pack_map(&in, 2);
    pack_cstr(&in, "op");
    pack_cstr(&in, "history");
    pack_cstr(&in, "filters");
    pack_array(&in, 200000);
    for (int i = 0; i < 200000; i++)
        pack_i64(&in, -1); /* one byte here, eleven there */
    cr_expect_eq(native_op_read(buf_slice(&in), 2 * MIB, &op, &body, &why), E_REQUEST_TOO_LARGE);
    cr_expect_null(op);
    buf_fini(&in);
    buf_fini(&body);
    buf_fini(&why);
}

Test(native_op, mutated_requests_give_an_error_or_a_message_that_protobuf_takes)
{
    struct rand r = seeded("native_op/mutate");
    struct buf in = BUF_INIT, map = BUF_INIT, wire = BUF_INIT, body = BUF_INIT, why = BUF_INIT;
    for (int i = 0; i < 20000; i++) {
        const struct native_op *op = native_op_at((size_t)rand_below(&r, native_op_count())), *found = NULL;
        ProtobufCMessage *m = any_message(&r, op->request, 0);
        uint32_t count;
        pack_wire(m, &wire);
        protobuf_c_message_free_unpacked(m, NULL);
        buf_reset(&map);
        cr_assert_eq(pbmap_from_message(op->request, buf_slice(&wire), &map), 0);
        struct slice rest = buf_slice(&map);
        cr_assert_eq(unpack_map(&rest, UINT32_MAX, &count), 0);
        buf_reset(&in);
        pack_map(&in, count + 1);
        pack_cstr(&in, "op");
        pack_cstr(&in, op->name);
        buf_add_slice(&in, rest);
        mutate(&r, &in);

        buf_reset(&body);
        buf_reset(&why);
        if (native_op_read(buf_slice(&in), 2 * MIB, &found, &body, &why) == 0) {
            m = protobuf_c_message_unpack(found->request, NULL, body.len, body.data ? body.data : (const uint8_t *)"");
            cr_assert_not_null(m);
            protobuf_c_message_free_unpacked(m, NULL);
        }
    }
    buf_fini(&in);
    buf_fini(&map);
    buf_fini(&wire);
    buf_fini(&body);
    buf_fini(&why);
}

/* --- answers that lie: stored is a sibling, but its bytes are still bytes ------------------------------------------
 */

Test(pbmap, what_is_not_such_a_message_appends_nothing)
{
    const ProtobufCMessageDescriptor *d = &etcdserverpb__range_response__descriptor;
    struct buf out = BUF_INIT;
    buf_add_byte(&out, 0xc0);
    cr_expect_eq(pbmap_from_message(d, SLICE_LIT("\x20"), &out), E_MALFORMED);         /* a tag alone */
    cr_expect_eq(pbmap_from_message(d, SLICE_LIT("\x22\x01x"), &out), E_MALFORMED);    /* count as bytes */
    cr_expect_eq(pbmap_from_message(d, SLICE_LIT("\x08\x01"), &out), E_MALFORMED);     /* header as a number */
    cr_expect_eq(pbmap_from_message(d, SLICE_LIT("\x0a\x02\x18"), &out), E_MALFORMED); /* header cut short */
    cr_expect_eq(pbmap_from_message(d, SLICE_LIT("\x12\x02\x0a\x05"), &out),
                 E_MALFORMED); /* a key longer than its pair */
    cr_expect_eq(out.len, 1);
    cr_expect_eq(pbmap_from_message(d, SLICE_LIT("\xf8\x07\x01\x20\x03\x20\x02"), &out),
                 0); /* unknown field; count twice */
    cr_expect(slice_eq(buf_slice(&out), SLICE_LIT("\xc0\x81\xa5"
                                                  "count\x02")));
    buf_fini(&out);
}

Test(pbmap, answers_may_nest_but_not_without_end)
{
    const ProtobufCMessageDescriptor *d = &etcdserverpb__txn_response__descriptor;
    struct buf wire = BUF_INIT, outer = BUF_INIT, out = BUF_INIT;
    for (unsigned depth = 0; depth < 2 * TXN_DEPTH_MAX;
         depth++) { /* TxnResponse.responses, ResponseOp.response_txn in turn */
        buf_reset(&outer);
        pb_add_message(&outer, depth % 2 ? 3 : 4, wire.data ? buf_slice(&wire) : SLICE_LIT(""));
        struct buf swap = wire;
        wire = outer;
        outer = swap;
    }
    cr_expect_eq(pbmap_from_message(d, buf_slice(&wire), &out), 0);
    for (unsigned depth = 0; depth < 1000; depth++) {
        buf_reset(&outer);
        pb_add_message(&outer, depth % 2 ? 3 : 4, buf_slice(&wire));
        struct buf swap = wire;
        wire = outer;
        outer = swap;
    }
    buf_reset(&out);
    cr_expect_eq(pbmap_from_message(d, buf_slice(&wire), &out), E_TOO_BIG);
    cr_expect_eq(out.len, 0);
    buf_fini(&wire);
    buf_fini(&outer);
    buf_fini(&out);
}
