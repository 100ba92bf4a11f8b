/* json - each rule of the mapping with one text that keeps it and texts that break it; and for every message type of the API, random
 * messages there and back, with jansson as a second opinion about what is JSON. */
#include "gatewayd/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <jansson.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/mem.h"
#include "common/rand.h"
#include "etcd/election.pb-c.h"
#include "etcd/lock.pb-c.h"
#include "etcd/rpc.pb-c.h"
#include "gatewayd/jsonmap.h"
#include "proto/pb.h"

#define RANGE &etcdserverpb__range_request__descriptor
#define PUT &etcdserverpb__put_request__descriptor
#define TXN &etcdserverpb__txn_request__descriptor
#define WATCH &etcdserverpb__watch_request__descriptor
#define HEADER &etcdserverpb__response_header__descriptor

static struct buf bytes;
static char *why;

static int decode(const ProtobufCMessageDescriptor *type, const char *text)
{
    buf_reset(&bytes);
    free(why);
    why = NULL;
    int err = json_decode(type, slice_str(text), &bytes, &why);
    cr_expect_eq(err == OK, why == NULL);
    return err;
}

static bool refused(const ProtobufCMessageDescriptor *type, const char *text, const char *reason)
{
    if (decode(type, text) != E_INVALID || strstr(why, reason) == NULL) {
        cr_log_error("%s -> %s", text, why != NULL ? why : "accepted");
        return false;
    }
    return bytes.len == 0;
}

/* The text as a struct of generated code. */
static void *unpacked(const ProtobufCMessageDescriptor *type, const char *text)
{
    cr_assert_eq(decode(type, text), OK, "%s: %s", text, why);
    void *m = protobuf_c_message_unpack(type, NULL, bytes.len, bytes.data);
    cr_assert_not_null(m);
    return m;
}

static void drop(void *m) { protobuf_c_message_free_unpacked(m, NULL); }

/* --- in ------------------------------------------------------------------------------------------------------------ */

Test(json, names_are_taken_as_in_the_proto_and_in_lower_camel_case)
{
    static const char *const texts[] = {"{\"key\":\"YQ==\",\"range_end\":\"Yg==\",\"serializable\":true,\"min_mod_revision\":7}",
        " {\n\"key\" :\t\"YQ\",\r\n\"rangeEnd\":\"Yg\", \"serializable\":true , \"minModRevision\":\"7\"}\n"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        Etcdserverpb__RangeRequest *m = unpacked(RANGE, texts[i]);
        cr_expect(m->key.len == 1 && m->key.data[0] == 'a' && m->range_end.len == 1 && m->range_end.data[0] == 'b');
        cr_expect(m->serializable && m->min_mod_revision == 7);
        drop(m);
    }
    cr_expect(json_name_is("peerURLs", SLICE_LIT("peerURLs")) && json_name_is("ID", SLICE_LIT("ID")));
    cr_expect_not(json_name_is("range_end", SLICE_LIT("RangeEnd")));
    cr_expect_not(json_name_is("range_end", SLICE_LIT("rangeEn")));
    cr_expect_not(json_name_is("range_end", SLICE_LIT("rangeEndX")));
}

Test(json, unknown_fields_are_read_and_dropped)
{
    Etcdserverpb__PutRequest *m = unpacked(PUT, "{\"x\":{\"a\":[1,2.5e3,{\"b\":null}],\"c\":\"\\u00e9\"},\"key\":\"YQ==\",\"y\":[],\"z\":{}}");
    cr_expect_eq(m->key.len, 1);
    drop(m);
    cr_expect(refused(PUT, "{\"x\":{\"a\":[1,]}}", "in front of"));
    cr_expect(refused(PUT, "{\"x\":{\"a\" 1}}", "expected \":\""));
    cr_expect(refused(PUT, "{\"x\":nul}", "expected a value"));
    cr_expect(refused(PUT, "{\"x\":[1 2]}", "expected \",\""));
    cr_expect(refused(PUT, "{\"x\":", "unexpected end"));
}

Test(json, nothing_is_the_empty_message_and_what_follows_a_value_is_not_looked_at)
{
    cr_expect_eq(decode(PUT, ""), OK);
    cr_expect_eq(decode(PUT, " \n"), OK);
    cr_expect_eq(decode(PUT, "{}"), OK);
    cr_expect_eq(bytes.len, 0);
    cr_expect_eq(decode(PUT, "{} and so on"), OK);
    cr_expect_eq(json_decode(PUT, SLICE_EMPTY, &bytes, &why), OK);
    cr_expect(refused(PUT, "null", "expected an object"));
    cr_expect(refused(PUT, "[]", "expected an object"));
    cr_expect(refused(PUT, "{\"key\"", "expected \":\""));
    cr_expect(refused(PUT, "{\"key\":\"YQ==\"", "expected \",\" or \"}\""));
    cr_expect(refused(PUT, "{\"key\":\"YQ==\",}", "expected a string"));
    cr_expect(refused(PUT, "{key:\"YQ==\"}", "expected a string"));
    cr_expect(refused(PUT, "{'key':\"YQ==\"}", "expected a string"));
}

Test(json, null_is_not_given_and_nothing_is_given_twice)
{
    cr_expect_eq(decode(PUT, "{\"key\":null,\"lease\":null,\"prev_kv\":null}"), OK);
    cr_expect_eq(bytes.len, 0);
    cr_expect_eq(decode(TXN, "{\"compare\":null}"), OK);
    cr_expect(refused(TXN, "{\"compare\":[null]}", "expected an object"));
    cr_expect(refused(PUT, "{\"lease\":1,\"lease\":1}", "given twice"));
    cr_expect(refused(RANGE, "{\"range_end\":\"\",\"rangeEnd\":\"\"}", "given twice"));
}

Test(json, numbers_of_64_bits_are_numbers_or_strings_and_keep_all_bits)
{
    static const struct { const char *text; int64_t value; } good[] = {{"7", 7}, {"\"7\"", 7}, {"-1", -1}, {"\"-1\"", -1}, {"0", 0},
        {"-0", 0}, {"1e3", 1000}, {"1.5E1", 15}, {"\"1.0\"", 1}, {"120e-1", 12}, {"0.0", 0}, {"9007199254740993", 9007199254740993},
        {"9223372036854775807", INT64_MAX}, {"\"-9223372036854775808\"", INT64_MIN}, {"0e999999999999", 0}};
    static const char *const bad[] = {"\"\"", "\" 7\"", "\"7 \"", "\"seven\"", "1.5", "1e-1", "01", "+1", "1.", ".5", "0x10", "true", "[]",
        "{}", "9223372036854775808", "-9223372036854775809", "1e19", "1e99999999999", "NaN", "\"Infinity\"", "-", "1e", "--1"};
    char text[80];
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        snprintf(text, sizeof(text), "{\"lease\":%s}", good[i].text);
        Etcdserverpb__PutRequest *m = unpacked(PUT, text);
        cr_expect_eq(m->lease, good[i].value, "%s", text);
        drop(m);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(text, sizeof(text), "{\"lease\":%s}", bad[i]);
        cr_expect_eq(decode(PUT, text), E_INVALID, "%s", text);
    }
    Etcdserverpb__ResponseHeader *h = unpacked(HEADER, "{\"cluster_id\":18446744073709551615,\"member_id\":\"18446744073709551615\"}");
    cr_expect(h->cluster_id == UINT64_MAX && h->member_id == UINT64_MAX);
    drop(h);
    cr_expect(refused(HEADER, "{\"cluster_id\":18446744073709551616}", "64 bits"));
    cr_expect(refused(HEADER, "{\"cluster_id\":-1}", "out of the range"));
}

Test(json, numbers_of_32_bits_and_bools_are_what_they_are)
{
    const ProtobufCMessageDescriptor *hash = &etcdserverpb__hash_response__descriptor;
    Etcdserverpb__HashResponse *m = unpacked(hash, "{\"hash\":4294967295}");
    cr_expect_eq(m->hash, UINT32_MAX);
    drop(m);
    cr_expect(refused(hash, "{\"hash\":4294967296}", "out of the range"));
    cr_expect(refused(hash, "{\"hash\":-1}", "out of the range"));
    cr_expect(refused(PUT, "{\"prev_kv\":\"true\"}", "true or false"));
    cr_expect(refused(PUT, "{\"prev_kv\":1}", "true or false"));
    cr_expect(refused(PUT, "{\"prev_kv\":tru}", "true or false"));
}

Test(json, enums_are_names_or_numbers)
{
    static const char *const texts[] = {"{\"sort_order\":\"DESCEND\",\"sortTarget\":\"MOD\"}", "{\"sort_order\":2,\"sortTarget\":3}"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        Etcdserverpb__RangeRequest *m = unpacked(RANGE, texts[i]);
        cr_expect_eq(m->sort_order, ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__DESCEND);
        cr_expect_eq(m->sort_target, ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__MOD);
        drop(m);
    }
    cr_expect_eq(decode(RANGE, "{\"sort_order\":77}"), OK, "of a newer client: the handler decides");
    cr_expect(refused(RANGE, "{\"sort_order\":\"DESCENDING\"}", "unknown value"));
    cr_expect(refused(RANGE, "{\"sort_order\":\"descend\"}", "unknown value"));
    cr_expect(refused(RANGE, "{\"sort_order\":true}", "expected a number"));
    cr_expect(refused(RANGE, "{\"sort_order\":4294967296}", "out of the range"));
    Etcdserverpb__WatchRequest *w = unpacked(WATCH, "{\"create_request\":{\"filters\":[\"NODELETE\",\"NOPUT\",1]}}");
    cr_expect_eq(w->create_request->n_filters, 3);
    cr_expect_eq(w->create_request->filters[1], ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT);
    drop(w);
}

Test(json, oneofs_are_plain_fields_of_which_one_is_given)
{
    Etcdserverpb__TxnRequest *m = unpacked(TXN, "{\"compare\":[{\"target\":\"CREATE\",\"key\":\"Zm9v\",\"createRevision\":\"0\"}],"
        "\"success\":[{\"requestPut\":{\"key\":\"Zm9v\",\"value\":\"YmFy\"}},{\"request_range\":{}}],\"failure\":[{}]}");
    cr_expect_eq(m->n_compare, 1);
    cr_expect_eq(m->compare[0]->target_union_case, ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION, "given, though it is 0");
    cr_expect_eq(m->n_success, 2);
    cr_expect_eq(m->success[0]->request_case, ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT);
    cr_expect_eq(m->success[1]->request_case, ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE);
    cr_expect_eq(m->failure[0]->request_case, ETCDSERVERPB__REQUEST_OP__REQUEST__NOT_SET);
    drop(m);
    cr_expect(refused(TXN, "{\"compare\":[{\"version\":1,\"value\":\"\"}]}", "only one of it and version"));
    cr_expect(refused(TXN, "{\"success\":[{\"requestPut\":{},\"requestRange\":{}}]}", "only one of"));
    cr_expect(refused(TXN, "{\"success\":{}}", "expected an array"));
    cr_expect(refused(TXN, "{\"success\":[{},]}", "expected an object"));
    cr_expect(refused(TXN, "{\"success\":[{} {}]}", "expected \",\" or \"]\""));
    cr_expect(refused(TXN, "{\"success\":[1]}", "expected an object"));
}

Test(json, bytes_are_base64_of_either_alphabet)
{
    static const struct { const char *text; const char *bytes; size_t len; } good[] = {{"", "", 0}, {"AA==", "\0", 1}, {"AA", "\0", 1},
        {"-_-_", "\xfb\xff\xbf", 3}, {"+/+/", "\xfb\xff\xbf", 3}, {"Zm9vYg==", "foob", 4}, {"Zm9vYmE", "fooba", 5}, {"Zm9v\r\nYmFy", "foobar", 6},
        {"+w==", "\xfb", 1}, {"-w", "\xfb", 1}};
    static const char *const bad[] = {"A", "AA=", "AAA==", "AAAA=", "=", "AA==AA==", "A A=", "*", "+_+_", "Zm9vY", "\xc3\xa9"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct buf out = BUF_INIT;
        cr_expect_eq(json_base64_decode(slice_str(good[i].text), &out), OK, "%s", good[i].text);
        cr_expect(slice_eq(buf_slice(&out), slice_of(good[i].bytes, good[i].len)), "%s", good[i].text);
        buf_fini(&out);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct buf out = BUF_INIT;
        cr_expect_eq(json_base64_decode(slice_str(bad[i]), &out), E_INVALID, "%s", bad[i]);
        cr_expect_eq(out.len, 0);
        buf_fini(&out);
    }
    cr_expect(refused(PUT, "{\"key\":\"***\"}", "not base64"));
    cr_expect(refused(PUT, "{\"key\":1}", "expected a string"));
    cr_expect(refused(PUT, "{\"key\":[1]}", "expected a string"));
}

Test(json, strings_have_escapes_and_are_utf8)
{
    const ProtobufCMessageDescriptor *user = &etcdserverpb__auth_user_get_request__descriptor;
    Etcdserverpb__AuthUserGetRequest *m = unpacked(user, "{\"name\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\xc3\xa9\"}");
    cr_expect_str_eq(m->name, "\"\\/\b\f\n\r\t\xc3\xa9\xf0\x9f\x98\x80\xc3\xa9");
    drop(m);
    cr_expect(refused(user, "{\"name\":\"\\x\"}", "unknown escape"));
    cr_expect(refused(user, "{\"name\":\"\\u12\"}", "\\u without"));
    cr_expect(refused(user, "{\"name\":\"\\ud800\"}", "surrogate"));
    cr_expect(refused(user, "{\"name\":\"\\ud800\\u0041\"}", "surrogate"));
    cr_expect(refused(user, "{\"name\":\"\\udc00\"}", "surrogate"));
    cr_expect(refused(user, "{\"name\":\"a\nb\"}", "control character"));
    cr_expect(refused(user, "{\"name\":\"\xff\"}", "not UTF-8"));
    cr_expect(refused(user, "{\"name\":\"a", "unexpected end"));
    cr_expect(refused(user, "{\"name\":\"\\", "unexpected end"));
    cr_expect(refused(user, "{\"name\":7}", "expected a string"));
    cr_expect_eq(decode(user, "{\"n\\u0061me\":\"x\"}"), OK, "keys too");
    cr_expect_gt(bytes.len, 0);
}

Test(json, nesting_has_an_end)
{
    struct buf text = BUF_INIT;
    for (int deep = JSON_DEPTH_MAX - 1; deep <= JSON_DEPTH_MAX; deep++) {
        buf_reset(&text);
        buf_add_str(&text, "{\"x\":");
        for (int i = 0; i < deep; i++)
            buf_add_byte(&text, '[');
        for (int i = 0; i < deep; i++)
            buf_add_byte(&text, ']');
        buf_add_str(&text, "}");
        buf_add_byte(&text, '\0');
        cr_expect_eq(decode(PUT, (const char *)text.data), deep < JSON_DEPTH_MAX ? OK : E_INVALID);
    }
    buf_reset(&text);
    for (int i = 0; i < 1000; i++)
        buf_add_str(&text, "{\"success\":[{\"requestTxn\":");
    buf_add_byte(&text, '\0');
    cr_expect(refused(TXN, (const char *)text.data, "nested deeper"));
    buf_fini(&text);
}

/* --- out ----------------------------------------------------------------------------------------------------------- */

static const char *encoded(const ProtobufCMessageDescriptor *type, struct slice message)
{
    static struct buf out;
    buf_reset(&out);
    cr_assert_eq(json_encode(type, message, JSON_TEXT_BYTES_MAX, &out), OK);
    buf_add_byte(&out, '\0');
    return (const char *)out.data;
}

Test(json, defaults_are_left_out_and_types_written_as_etcd_does)
{
    struct buf m = BUF_INIT, kv = BUF_INIT, header = BUF_INIT;
    pb_add_uint(&header, 1, UINT64_MAX);
    pb_add_int(&header, 3, -5);
    pb_add_bytes(&kv, 1, SLICE_LIT("foo"));
    pb_add_int(&kv, 2, 2);
    pb_add_message(&m, 1, buf_slice(&header));
    pb_add_message(&m, 2, buf_slice(&kv));
    pb_add_message(&m, 2, SLICE_EMPTY);
    pb_add_uint(&m, 3, 1);
    cr_expect_str_eq(encoded(&etcdserverpb__range_response__descriptor, buf_slice(&m)),
        "{\"header\":{\"cluster_id\":\"18446744073709551615\",\"revision\":\"-5\"},\"kvs\":[{\"key\":\"Zm9v\",\"create_revision\":\"2\"},{}],\"more\":true}");
    cr_expect_str_eq(encoded(&etcdserverpb__range_response__descriptor, SLICE_EMPTY), "{}");
    buf_reset(&m);
    pb_add_uint(&m, 1, 1);
    cr_expect_str_eq(encoded(&mvccpb__event__descriptor, buf_slice(&m)), "{\"type\":\"DELETE\"}");
    buf_reset(&m);
    pb_add_uint(&m, 1, 9);
    cr_expect_str_eq(encoded(&mvccpb__event__descriptor, buf_slice(&m)), "{\"type\":9}");
    buf_reset(&m);
    pb_add_uint(&m, 2, 4000000000u);
    cr_expect_str_eq(encoded(&etcdserverpb__hash_response__descriptor, buf_slice(&m)), "{\"hash\":4000000000}");
    buf_reset(&m);
    pb_add_message(&m, 2, SLICE_LIT("a\"\\\n\x01\xff\xc3\xa9"));
    cr_expect_str_eq(encoded(&etcdserverpb__auth_user_list_response__descriptor, buf_slice(&m)),
        "{\"users\":[\"a\\\"\\\\\\n\\u0001\xef\xbf\xbd\xc3\xa9\"]}");
    buf_fini(&m), buf_fini(&kv), buf_fini(&header);
}

Test(json, the_last_one_counts_and_unknown_fields_are_passed_over)
{
    struct buf m = BUF_INIT;
    pb_add_int(&m, 4, 1);
    pb_add_bytes(&m, 99, SLICE_LIT("new"));
    pb_add_int(&m, 4, 2);
    cr_expect_str_eq(encoded(&etcdserverpb__range_response__descriptor, buf_slice(&m)), "{\"count\":\"2\"}");
    buf_reset(&m);
    pb_add_bytes(&m, 4, SLICE_LIT("not a number"));
    cr_expect_str_eq(encoded(&etcdserverpb__range_response__descriptor, buf_slice(&m)), "{}");
    buf_reset(&m); /* packed, as other encoders write it */
    pb_add_bytes(&m, 5, SLICE_LIT("\x00\x01"));
    cr_expect_str_eq(encoded(&etcdserverpb__watch_create_request__descriptor, buf_slice(&m)), "{\"filters\":[\"NOPUT\",\"NODELETE\"]}");
    buf_fini(&m);
}

Test(json, what_is_no_message_or_too_large_is_not_written)
{
    struct buf out = BUF_INIT, m = BUF_INIT;
    cr_expect_eq(json_encode(RANGE, SLICE_LIT("\x0a\x05x"), 1000, &out), E_MALFORMED);
    pb_add_bytes(&m, 1, SLICE_LIT("0123456789"));
    cr_expect_eq(json_encode(RANGE, buf_slice(&m), 1000, &out), OK);
    buf_reset(&out);
    cr_expect_eq(json_encode(RANGE, buf_slice(&m), 20, &out), E_TOO_BIG);
    struct buf deep = BUF_INIT, next = BUF_INIT; /* {"success":[{"request_txn":{...}}]} deeper than can be */
    for (int i = 0; i < JSON_DEPTH_MAX; i++) {
        buf_reset(&next);
        pb_add_message(&next, 4, buf_slice(&deep));
        buf_reset(&deep);
        pb_add_message(&deep, 2, buf_slice(&next));
    }
    buf_reset(&out);
    cr_expect_eq(json_encode(TXN, buf_slice(&deep), SIZE_MAX / 2, &out), E_MALFORMED);
    buf_fini(&out), buf_fini(&m), buf_fini(&deep), buf_fini(&next);
}

/* --- every type ------------------------------------------------------------------------------------------------------ */

static void add_random(struct rand *r, const ProtobufCMessageDescriptor *type, unsigned depth, struct buf *out);

static void add_random_field(struct rand *r, const ProtobufCFieldDescriptor *f, unsigned depth, struct buf *out)
{
    struct buf inner = BUF_INIT;
    const ProtobufCEnumDescriptor *names = f->descriptor;
    uint64_t v = rand_below(r, 2) == 0 ? rand_below(r, 1000) + 1 : rand_u64(r) | 1;
    switch (f->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        add_random(r, f->descriptor, depth + 1, &inner);
        pb_add_message(out, f->id, buf_slice(&inner));
        break;
    case PROTOBUF_C_TYPE_BYTES:
        for (uint64_t n = rand_below(r, 20) + 1; n > 0; n--)
            buf_add_byte(&inner, (uint8_t)rand_below(r, 256));
        pb_add_message(out, f->id, buf_slice(&inner));
        break;
    case PROTOBUF_C_TYPE_STRING:
        for (uint64_t n = rand_below(r, 20) + 1; n > 0; n--)
            buf_add_str(&inner, (const char *const[]){"a", "\"", "\\", "\n", "\x01", "\xc3\xa9", "\xf0\x9f\x98\x80", "/"}[rand_below(r, 8)]);
        pb_add_message(out, f->id, buf_slice(&inner));
        break;
    case PROTOBUF_C_TYPE_BOOL: pb_add_uint(out, f->id, 1); break;
    case PROTOBUF_C_TYPE_ENUM: {
        uint64_t value = (uint64_t)names->values[rand_below(r, names->n_values)].value;
        uint8_t head[16];
        if (value != 0 || f->label == PROTOBUF_C_LABEL_REPEATED) {
            uint8_t *at = pb_put_varint(head, (uint64_t)f->id << 3);
            buf_add(out, head, (size_t)(pb_put_varint(at, value) - head));
        }
        break;
    }
    case PROTOBUF_C_TYPE_INT32: pb_add_int(out, f->id, (int64_t)((int32_t)(uint32_t)v | 1)); break;
    case PROTOBUF_C_TYPE_UINT32: pb_add_uint(out, f->id, (uint32_t)v | 1); break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64: pb_add_uint(out, f->id, v); break;
    default: cr_assert(false, "a type that json does not know: %s", f->name);
    }
    buf_fini(&inner);
}

static void add_random(struct rand *r, const ProtobufCMessageDescriptor *type, unsigned depth, struct buf *out)
{
    bool chosen = false;
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &type->fields[i];
        if (rand_below(r, 3) == 0 || (depth > 4 && f->type == PROTOBUF_C_TYPE_MESSAGE))
            continue;
        if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
            if (chosen)
                continue;
            chosen = true;
        }
        uint64_t times = f->label == PROTOBUF_C_LABEL_REPEATED ? rand_below(r, 4) : 1;
        for (; times > 0; times--)
            add_random_field(r, f, depth, out);
    }
}

static void there_and_back(struct rand *r, const ProtobufCMessageDescriptor *type)
{
    for (int i = 0; i < 30; i++) {
        struct buf m = BUF_INIT, text = BUF_INIT, again = BUF_INIT;
        char *reason = NULL;
        add_random(r, type, 0, &m);
        cr_assert_eq(json_encode(type, buf_slice(&m), JSON_TEXT_BYTES_MAX, &text), OK);
        json_t *tree = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
        cr_assert_not_null(tree, "%s: %.*s", type->name, (int)text.len, (const char *)text.data);
        json_decref(tree);
        cr_assert_eq(json_decode(type, buf_slice(&text), &again, &reason), OK, "%s", reason);
        cr_assert(slice_eq(buf_slice(&m), buf_slice(&again)), "%s: %.*s", type->name, (int)text.len, (const char *)text.data);
        buf_fini(&m), buf_fini(&text), buf_fini(&again);
    }
}

Test(json, every_message_of_the_gateway_goes_there_and_back)
{
    struct rand r;
    uint64_t seed = getenv("TRINE_SEED") != NULL ? strtoull(getenv("TRINE_SEED"), NULL, 10) : 4711;
    rand_seed(&r, seed);
    cr_log_info("TRINE_SEED=%llu", (unsigned long long)seed);
    for (size_t i = 0; i < json_method_count(); i++) {
        there_and_back(&r, json_method_at(i).input);
        there_and_back(&r, json_method_at(i).output);
    }
}

/* Texts that are broken a little: we may be stricter about types, never laxer about JSON itself. */
Test(json, what_jansson_refuses_is_refused)
{
    static const char base[] = "{\"compare\":[{\"result\":\"LESS\",\"target\":3,\"key\":\"Zm9v\",\"value\":\"YmFy\"}],\"success\":[{\"requestPut\":"
                               "{\"key\":\"YQ==\",\"lease\":\"12\"}}],\"x\":[1,-2.5e+3,true,false,null,\"\\u00e9\\n\",{\"y\":{}}]}";
    static const char spice[] = "{}[]\",:\\ 019-+.eEtfnu\x01\xff\n";
    struct rand r;
    rand_seed(&r, 5);
    size_t accepted = 0;
    for (int i = 0; i < 20000; i++) {
        char text[sizeof(base)];
        memcpy(text, base, sizeof(base));
        for (uint64_t n = rand_below(&r, 3) + 1; n > 0; n--)
            text[rand_below(&r, sizeof(base) - 1)] = spice[rand_below(&r, sizeof(spice) - 1)];
        if (decode(TXN, text) != OK)
            continue;
        accepted++;
        json_error_t error;
        json_t *tree = json_loads(text, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
        cr_expect(tree != NULL || strstr(error.text, "too big") != NULL || strstr(error.text, "overflow") != NULL, "%s: %s", error.text, text);
        json_decref(tree);
    }
    cr_expect_gt(accepted, 100);
}

/* --- streams of values, paths ------------------------------------------------------------------------------------------ */

Test(json, a_stream_is_cut_into_values_however_it_arrives)
{
    static const char text[] = " {\"a\":\"}\\\"{\"}\n{} {\"b\":[{},[]]}";
    for (size_t piece = 1; piece < sizeof(text); piece++) {
        struct json_cut c = {0};
        struct buf in = BUF_INIT;
        size_t values = 0;
        for (size_t at = 0; at < sizeof(text) - 1; at += piece) {
            buf_add(&in, text + at, MIN(piece, sizeof(text) - 1 - at));
            for (size_t n; (n = json_cut(&c, buf_slice(&in))) > 0; values++) {
                buf_consume(&in, n);
                c = (struct json_cut){0};
            }
        }
        cr_expect_eq(values, 3, "pieces of %zu", piece);
        cr_expect_eq(in.len, 0);
        buf_fini(&in);
    }
    struct json_cut c = {0};
    cr_expect_eq(json_cut(&c, SLICE_LIT("  \n")), 0);
    cr_expect_not(c.begun);
    c = (struct json_cut){0};
    cr_expect_eq(json_cut(&c, SLICE_LIT(" nonsense {}")), 12, "all of it: it will not decode");
}

Test(json, every_path_has_its_method_and_its_older_names)
{
    struct json_method m;
    cr_assert_eq(json_method_count(), 51);
    for (size_t i = 0; i < json_method_count(); i++) {
        struct json_method want = json_method_at(i);
        static const char *const versions[] = {"/v3/", "/v3beta/", "/v3alpha/"};
        for (size_t v = 0; v < ARRAY_LEN(versions); v++) {
            char path[100];
            snprintf(path, sizeof(path), "%s%s", versions[v], want.path + 4);
            cr_assert(json_method_find(slice_str(path), &m), "%s", path);
            cr_expect(strcmp(m.rpc, want.rpc) == 0 && m.input == want.input && m.output == want.output);
        }
        for (size_t k = 0; k < i; k++)
            cr_expect_str_neq(json_method_at(k).path, want.path);
    }
    cr_expect_not(json_method_find(SLICE_LIT("/v3/kv/rangestream"), &m), "gRPC only");
    cr_expect_not(json_method_find(SLICE_LIT("/v3/kv/range/"), &m));
    cr_expect_not(json_method_find(SLICE_LIT("/v3"), &m));
    cr_expect_not(json_method_find(SLICE_LIT("/v2/kv/range"), &m));
    cr_assert(json_method_find(SLICE_LIT("/v3/kv/txn"), &m));
    cr_expect_str_eq(m.rpc, "/etcdserverpb.KV/Txn");
    cr_expect(m.input == TXN);
}
