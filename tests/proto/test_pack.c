/* test_pack - our reader and writer against msgpack-c, and against bytes that lie. */
#include <criterion/criterion.h>
#include <msgpack.h>
#include <string.h>

#include "common/err.h"
#include "proto/pack.h"
#include "tests/proto/seed.h"

/* Decodes one item with msgpack-c; the whole buffer must be that item. */
static msgpack_object theirs(msgpack_zone *zone, struct slice s)
{
    msgpack_object o;
    size_t at = 0;

    cr_assert_eq(msgpack_unpack((const char *)s.data, s.len, &at, zone, &o), MSGPACK_UNPACK_SUCCESS);
    cr_assert_eq(at, s.len);
    return o;
}

Test(pack, what_we_write_is_what_msgpack_c_reads)
{
    struct rand r = seeded("pack/write");
    struct buf b = BUF_INIT;
    msgpack_zone zone;
    msgpack_zone_init(&zone, 1024);

    for (int i = 0; i < 20000; i++) {
        uint64_t v = any_u64(&r);
        buf_reset(&b);
        pack_u64(&b, v);
        msgpack_object o = theirs(&zone, buf_slice(&b));
        cr_assert_eq(o.type, MSGPACK_OBJECT_POSITIVE_INTEGER);
        cr_assert_eq(o.via.u64, v);

        int64_t n = (int64_t)(rand_below(&r, 2) ? v : ~v);
        buf_reset(&b);
        pack_i64(&b, n);
        o = theirs(&zone, buf_slice(&b));
        cr_assert_eq(o.type, n < 0 ? MSGPACK_OBJECT_NEGATIVE_INTEGER : MSGPACK_OBJECT_POSITIVE_INTEGER);
        cr_assert_eq(o.via.i64, n);
        msgpack_zone_clear(&zone);
    }
    msgpack_zone_destroy(&zone);
    buf_fini(&b);
}

Test(pack, what_msgpack_c_writes_is_what_we_read)
{
    struct rand r = seeded("pack/read");
    msgpack_sbuffer sb;
    msgpack_packer pk;
    msgpack_sbuffer_init(&sb);
    msgpack_packer_init(&pk, &sb, msgpack_sbuffer_write);

    for (int i = 0; i < 5000; i++) {
        static const size_t lengths[] = {0, 1, 31, 32, 255, 256, 65535, 65536};
        static char bytes[65536];
        uint64_t u = any_u64(&r), got_u;
        int64_t n = (int64_t)(rand_below(&r, 2) ? any_u64(&r) : ~any_u64(&r)), got_n;
        size_t len = lengths[rand_below(&r, 8)];
        uint32_t count = (uint32_t)rand_below(&r, 40);
        struct slice got;
        bool flag;

        msgpack_sbuffer_clear(&sb);
        msgpack_pack_uint64(&pk, u);
        msgpack_pack_int64(&pk, n);
        msgpack_pack_bin_with_body(&pk, bytes, len);
        msgpack_pack_str_with_body(&pk, bytes, len);
        msgpack_pack_true(&pk);
        msgpack_pack_map(&pk, 1);
        msgpack_pack_nil(&pk);
        msgpack_pack_array(&pk, count);
        for (uint32_t k = 0; k < count; k++)
            msgpack_pack_double(&pk, k);

        struct slice in = slice_of(sb.data, sb.size);
        cr_assert_eq(unpack_u64(&in, &got_u), 0);
        cr_assert_eq(got_u, u);
        cr_assert_eq(unpack_i64(&in, &got_n), 0);
        cr_assert_eq(got_n, n);
        cr_assert_eq(unpack_bytes(&in, len, &got), 0);
        cr_assert_eq(got.len, len);
        cr_assert_eq(unpack_bytes(&in, len, &got), 0);
        cr_assert_eq(got.len, len);
        cr_assert_eq(unpack_bool(&in, &flag), 0);
        cr_assert(flag);
        cr_assert_eq(unpack_peek(in), PACK_MAP);
        cr_assert_eq(unpack_skip(&in), 0); /* the map takes nil and the array with it */
        cr_assert_eq(in.len, 0);
    }
    msgpack_sbuffer_destroy(&sb);
}

Test(pack, every_kind_comes_back)
{
    struct buf b = BUF_INIT;
    struct slice in, s;
    uint32_t count;
    bool flag;

    pack_array(&b, 3);
    pack_map(&b, 1);
    pack_str(&b, SLICE_LIT("key"));
    pack_cstr(&b, "value");
    pack_bool(&b, false);
    pack_bin(&b, SLICE_EMPTY);
    pack_nil(&b);

    in = buf_slice(&b);
    cr_assert_eq(unpack_array(&in, 3, &count), 0);
    cr_assert_eq(count, 3);
    cr_assert_eq(unpack_map(&in, 1, &count), 0);
    cr_assert_eq(count, 1);
    cr_assert_eq(unpack_bytes(&in, 3, &s), 0);
    cr_assert(slice_eq(s, SLICE_LIT("key")));
    cr_assert_eq(unpack_bytes(&in, 5, &s), 0);
    cr_assert(slice_eq(s, SLICE_LIT("value")));
    cr_assert_eq(unpack_bool(&in, &flag), 0);
    cr_assert(!flag);
    cr_assert_eq(unpack_bytes(&in, 0, &s), 0);
    cr_assert_eq(s.len, 0);
    cr_assert_eq(unpack_peek(in), PACK_NIL);
    cr_assert_eq(unpack_skip(&in), 0);
    cr_assert_eq(unpack_peek(in), PACK_END);
    buf_fini(&b);
}

/* Each head with nothing behind it, and what must come of it. */
Test(pack, a_length_without_its_bytes_is_truncated)
{
    static const struct {
        const char *bytes;
        size_t len;
    } heads[] = {
        {"", 0},
        {"\xcc", 1},
        {"\xcd\x01", 2},
        {"\xcf\x01\x02\x03\x04\x05\x06\x07", 8},
        {"\xd3\xff", 2},
        {"\xca\x01\x02\x03", 4},
        {"\xcb", 1},
        {"\xa5"
         "abcd",
         5},
        {"\xc4\x02\x01", 3},
        {"\xc6\xff\xff\xff\xff", 5},
        {"\xdb\xff\xff", 3},
        {"\x92\x01", 2},
        {"\xdd\xff\xff\xff\xff\x01", 6},
        {"\xdf\xff\xff\xff\xff", 5},
        {"\x81\x01", 2},
        {"\xd8\x01", 2},
        {"\xc9\xff\xff\xff\xff\x01", 6},
    };

    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        struct slice in = slice_of(heads[i].bytes, heads[i].len), before = in;

        cr_assert_eq(unpack_skip(&in), E_TRUNCATED, "head %zu", i);
        cr_assert(in.data == before.data && in.len == before.len);
    }
}

Test(pack, another_type_than_the_expected_is_malformed)
{
    struct slice in = SLICE_LIT("\xc0"), s;
    uint32_t count;
    uint64_t u;
    int64_t n;
    bool flag;

    cr_assert_eq(unpack_u64(&in, &u), E_MALFORMED);
    cr_assert_eq(unpack_i64(&in, &n), E_MALFORMED);
    cr_assert_eq(unpack_bool(&in, &flag), E_MALFORMED);
    cr_assert_eq(unpack_bytes(&in, 1, &s), E_MALFORMED);
    cr_assert_eq(unpack_array(&in, 1, &count), E_MALFORMED);
    cr_assert_eq(unpack_map(&in, 1, &count), E_MALFORMED);

    in = SLICE_LIT("\xff");
    cr_assert_eq(unpack_u64(&in, &u), E_MALFORMED); /* -1 */
    cr_assert_eq(unpack_i64(&in, &n), 0);
    cr_assert_eq(n, -1);
    in = SLICE_LIT("\xcf\x80\0\0\0\0\0\0\0");
    cr_assert_eq(unpack_i64(&in, &n), E_MALFORMED); /* 2^63 */
    cr_assert_eq(unpack_u64(&in, &u), 0);
    cr_assert_eq(u, (uint64_t)1 << 63);
    in = SLICE_LIT("\xc1");
    cr_assert_eq(unpack_skip(&in), E_MALFORMED);
}

Test(pack, a_count_or_length_over_its_limit_is_refused_before_its_bytes_are_looked_at)
{
    struct slice in = SLICE_LIT("\xdd\x00\x01\x00\x00"), s;
    uint32_t count;

    cr_assert_eq(unpack_array(&in, 65535, &count), E_TOO_BIG);
    cr_assert_eq(unpack_array(&in, 65536, &count), E_TRUNCATED);
    in = SLICE_LIT("\xc5\x00\x05");
    cr_assert_eq(unpack_bytes(&in, 4, &s), E_TOO_BIG);
    cr_assert_eq(unpack_bytes(&in, 5, &s), E_TRUNCATED);
}

Test(pack, nesting_is_taken_down_to_32_and_no_deeper)
{
    uint8_t bytes[34];
    struct slice in;

    memset(bytes, 0x91, sizeof(bytes));
    bytes[32] = 1; /* 32 arrays around a number */
    in = slice_of(bytes, 33);
    cr_assert_eq(unpack_skip(&in), 0);
    cr_assert_eq(in.len, 0);

    bytes[32] = 0x91;
    bytes[33] = 1;
    in = slice_of(bytes, 34);
    cr_assert_eq(unpack_skip(&in), E_TOO_BIG);
    cr_assert_eq(in.len, 34);
}

Test(pack, random_bytes_are_skipped_exactly_where_msgpack_c_would_take_them)
{
    struct rand r = seeded("pack/skip");

    for (int i = 0; i < 50000; i++) {
        uint8_t bytes[24];
        size_t len = 1 + (size_t)rand_below(&r, sizeof(bytes)), at = 0;
        for (size_t k = 0; k < len; k++) {
            bytes[k] = (uint8_t)(rand_below(&r, 2) ? 0x80 + rand_below(&r, 128) : rand_below(&r, 4));
            /* For counts of 32 bits msgpack-c asks malloc for all of it at once, which is why we do not use it. */
            if (bytes[k] == 0xdd || bytes[k] == 0xdf)
                bytes[k] = 0x92;
        }

        struct slice in = slice_of(bytes, len);
        int err = unpack_skip(&in);
        msgpack_zone zone;
        msgpack_object o;
        msgpack_zone_init(&zone, 1024);
        msgpack_unpack_return theirs_said = msgpack_unpack((const char *)bytes, len, &at, &zone, &o);
        msgpack_zone_destroy(&zone);

        bool taken = theirs_said == MSGPACK_UNPACK_SUCCESS || theirs_said == MSGPACK_UNPACK_EXTRA_BYTES;
        cr_assert_eq(err == 0, taken, "ours %d, theirs %d", err, (int)theirs_said);
        if (taken)
            cr_assert_eq(len - in.len, at);
    }
}
