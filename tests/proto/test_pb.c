/* test_pb - protobuf's wire format by the examples of its encoding page, at its limits, and beyond them. */
#include <criterion/criterion.h>
#include <string.h>

#include "common/err.h"
#include "proto/pb.h"
#include "tests/proto/seed.h"

static int next(struct slice bytes, struct pb_field *f)
{
    return pb_next(&bytes, f);
}

Test(pb, fields_of_every_wire_type_are_taken_in_order)
{
    struct slice in = SLICE_LIT("\x08\x96\x01\x12\x07testing\x1d\x01\x02\x03\x04\x21\x01\x02\x03\x04\x05\x06\x07\x08");
    struct pb_field f;

    cr_assert_eq(pb_next(&in, &f), 1);
    cr_assert(f.number == 1 && f.wire == PB_VARINT && f.varint == 150);
    cr_assert_eq(pb_next(&in, &f), 1);
    cr_assert(f.number == 2 && f.wire == PB_BYTES && slice_eq(f.bytes, SLICE_LIT("testing")));
    cr_assert_eq(pb_next(&in, &f), 1);
    cr_assert(f.number == 3 && f.wire == PB_FIXED32 && f.varint == 0x04030201);
    cr_assert_eq(pb_next(&in, &f), 1);
    cr_assert(f.number == 4 && f.wire == PB_FIXED64 && f.varint == 0x0807060504030201);
    cr_assert_eq(pb_next(&in, &f), 0);
    cr_assert_eq(pb_next(&in, &f), 0);
}

Test(pb, what_is_written_is_read)
{
    struct rand r = seeded("pb/round");
    struct buf b = BUF_INIT;
    struct pb_field f;
    uint8_t bytes[300] = {1, 2, 3};

    for (int i = 0; i < 20000; i++) {
        uint32_t number = 1 + (uint32_t)(any_u64(&r) % ((1u << 29) - 1));
        uint64_t v = any_u64(&r) | 1;
        struct slice s = slice_of(bytes, (size_t)rand_below(&r, sizeof(bytes)));

        buf_reset(&b);
        pb_add_uint(&b, number, v);
        pb_add_message(&b, number, s);
        pb_add_head(&b, number, s.len);
        buf_add_slice(&b, s);

        struct slice in = buf_slice(&b);
        cr_assert_eq(pb_next(&in, &f), 1);
        cr_assert(f.number == number && f.wire == PB_VARINT && f.varint == v);
        size_t before = in.len;
        cr_assert_eq(pb_next(&in, &f), 1);
        cr_assert(f.number == number && f.wire == PB_BYTES && slice_eq(f.bytes, s));
        cr_assert_eq(before - in.len, pb_head_size(number, s.len) + s.len);
        cr_assert_eq(pb_next(&in, &f), 1);
        cr_assert(slice_eq(f.bytes, s));
        cr_assert_eq(in.len, 0);
    }
    buf_fini(&b);
}

Test(pb, a_varint_takes_a_byte_for_every_seven_bits)
{
    uint8_t bytes[10];

    for (unsigned bits = 0; bits <= 64; bits++) {
        uint64_t largest = bits == 0 ? 0 : UINT64_MAX >> (64 - bits);
        size_t size = bits == 0 ? 1 : (bits + 6) / 7;

        cr_assert_eq(pb_varint_size(largest), size, "%u bits", bits);
        cr_assert_eq((size_t)(pb_put_varint(bytes, largest) - bytes), size);
    }
}

Test(pb, defaults_are_not_written_but_an_empty_message_is)
{
    struct buf b = BUF_INIT;

    pb_add_uint(&b, 1, 0);
    pb_add_int(&b, 2, 0);
    pb_add_bytes(&b, 3, SLICE_EMPTY);
    cr_assert_eq(b.len, 0);
    pb_add_message(&b, 4, SLICE_EMPTY);
    cr_assert(slice_eq(buf_slice(&b), SLICE_LIT("\x22\x00")));
    buf_fini(&b);
}

Test(pb, a_negative_number_is_ten_bytes)
{
    struct buf b = BUF_INIT;
    struct pb_field f;

    pb_add_int(&b, 1, -1);
    cr_assert(slice_eq(buf_slice(&b), SLICE_LIT("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")));
    cr_assert_eq(next(buf_slice(&b), &f), 1);
    cr_assert_eq((int64_t)f.varint, -1);
    buf_fini(&b);
}

Test(pb, what_is_not_protobuf_is_malformed_and_not_taken)
{
    static const struct {
        const char *what;
        struct slice bytes;
    } bad[] = {
        {"a tag alone", {(const uint8_t *)"\x08", 1}},
        {"a tag that goes on", {(const uint8_t *)"\x88", 1}},
        {"a varint that goes on", {(const uint8_t *)"\x08\x80", 2}},
        {"eleven bytes of varint", {(const uint8_t *)"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 12}},
        {"more than 64 bits", {(const uint8_t *)"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11}},
        {"field number 0", {(const uint8_t *)"\x00\x01", 2}},
        {"a tag of more than 32 bits", {(const uint8_t *)"\xf8\xff\xff\xff\x1f\x01", 6}},
        {"a tag of six bytes", {(const uint8_t *)"\x88\x80\x80\x80\x80\x00\x01", 7}},
        {"a group", {(const uint8_t *)"\x0b\x0c", 2}},
        {"end of a group", {(const uint8_t *)"\x0c", 1}},
        {"wire type 6", {(const uint8_t *)"\x0e\x01", 2}},
        {"wire type 7", {(const uint8_t *)"\x0f\x01", 2}},
        {"bytes cut off",
         {(const uint8_t *)"\x0a\x03"
                           "ab",
          4}},
        {"bytes of 4 GiB",
         {(const uint8_t *)"\x0a\xff\xff\xff\xff\x0f"
                           "ab",
          8}},
        {"a length of six bytes", {(const uint8_t *)"\x0a\x80\x80\x80\x80\x80\x00", 7}},
        {"32 bits cut off", {(const uint8_t *)"\x0d\x01\x02\x03", 4}},
        {"64 bits cut off", {(const uint8_t *)"\x09\x01\x02\x03\x04\x05\x06\x07", 8}},
    };
    struct pb_field f;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct slice in = bad[i].bytes;
        cr_assert_eq(pb_next(&in, &f), E_MALFORMED, "%s", bad[i].what);
        cr_assert(in.data == bad[i].bytes.data && in.len == bad[i].bytes.len, "%s", bad[i].what);
    }
}

Test(pb, the_largest_field_number_is_taken)
{
    struct pb_field f;

    cr_assert_eq(next(SLICE_LIT("\xf8\xff\xff\xff\x0f\x01"), &f), 1);
    cr_assert_eq(f.number, (1u << 29) - 1);
}
