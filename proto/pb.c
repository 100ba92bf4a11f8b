/* pb - protobuf's wire format, field by field, on borrowed bytes.
 * For api.c's hot messages and for stored's and gatewayd's responses that are put together from bytes which are
 * already encoded; everything else goes through the generated code. Source: protobuf's encoding page.
 *
 *      message = field*
 *      field   = tag content           tag = varint of (number << 3 | wire)
 *      content = varint | 8 bytes | varint length, bytes | 4 bytes        by wire 0 | 1 | 2 | 5
 *
 * The reader is a little stricter than the grammar: tags and lengths take at most five bytes (as in protobuf-c), and
 * a varint must fit 64 bits (as in Go). No encoder writes anything else, and so whatever is accepted here means
 * the same to every other decoder of the suite.
 *
 * Invariant: a read that fails has not moved *in. */
#include "proto/pb.h"

#include <string.h>

#include "common/err.h"

#define VARINT_BYTES_MAX 10
#define SHORT_VARINT_BYTES_MAX 5 /* tags and lengths: 32 bits */
#define TAG_SHIFT 3

/* Takes a varint of at most bytes_max bytes; false when it is longer, too wide, or cut off. */
static inline bool take_varint(struct slice *in, size_t bytes_max, uint64_t *v)
{
    size_t limit = MIN(in->len, bytes_max);
    uint64_t n = 0;

    for (size_t i = 0; i < limit; i++) {
        uint8_t byte = in->data[i];
        n |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            /* The tenth byte has room for one bit only. */
            if (i == VARINT_BYTES_MAX - 1 && byte > 1)
                return false;
            *v = n;
            in->data += i + 1;
            in->len -= i + 1;
            return true;
        }
    }
    return false;
}

static uint64_t little_endian(const uint8_t *at, size_t width)
{
    uint64_t v = 0;

    for (size_t i = 0; i < width; i++)
        v |= (uint64_t)at[i] << (8 * i);
    return v;
}

static inline int take_fixed(struct slice *in, size_t width, uint64_t *v)
{
    if (in->len < width)
        return E_MALFORMED;
    *v = little_endian(in->data, width);
    in->data += width;
    in->len -= width;
    return 0;
}

static inline int take_content(struct slice *in, struct pb_field *f)
{
    uint64_t len;

    switch (f->wire) {
    case PB_VARINT:
        return take_varint(in, VARINT_BYTES_MAX, &f->varint) ? 0 : E_MALFORMED;
    case PB_FIXED64:
        return take_fixed(in, 8, &f->varint);
    case PB_FIXED32:
        return take_fixed(in, 4, &f->varint);
    case PB_BYTES:
        if (!take_varint(in, SHORT_VARINT_BYTES_MAX, &len) || len > in->len)
            return E_MALFORMED;
        f->bytes = slice_of(in->data, (size_t)len);
        in->data += len;
        in->len -= (size_t)len;
        return 0;
    }
    return E_MALFORMED; /* groups, and wire types that do not exist */
}

int pb_next(struct slice *in, struct pb_field *f)
{
    struct slice rest = *in;
    uint64_t tag;

    if (rest.len == 0)
        return 0;
    if (!take_varint(&rest, SHORT_VARINT_BYTES_MAX, &tag) || tag > UINT32_MAX || tag >> TAG_SHIFT == 0)
        return E_MALFORMED;
    f->number = (uint32_t)(tag >> TAG_SHIFT);
    f->wire = (enum pb_wire)(tag & 7);

    int err = take_content(&rest, f);
    if (err < 0)
        return err;
    *in = rest;
    return 1;
}

/* --- writer ------------------------------------------------------------------------------------ */

size_t pb_varint_size(uint64_t v)
{
    /* ceil(bits / 7) without a division by 7: exact for 1..64 bits. */
    unsigned top_bit = 63 - (unsigned)__builtin_clzll(v | 1);

    return (top_bit * 9 + 73) / 64;
}

uint8_t *pb_put_varint(uint8_t *at, uint64_t v)
{
    while (v >= 0x80) {
        *at++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *at++ = (uint8_t)v;
    return at;
}

static uint64_t tag_of(uint32_t number, enum pb_wire wire)
{
    return (uint64_t)number << TAG_SHIFT | wire;
}

void pb_add_uint(struct buf *out, uint32_t number, uint64_t v)
{
    if (v == 0)
        return;
    buf_reserve(out, SHORT_VARINT_BYTES_MAX + VARINT_BYTES_MAX);

    uint8_t *at = pb_put_varint(out->data + out->len, tag_of(number, PB_VARINT));
    at = pb_put_varint(at, v);
    out->len = (size_t)(at - out->data);
}

void pb_add_bytes(struct buf *out, uint32_t number, struct slice s)
{
    if (s.len > 0)
        pb_add_message(out, number, s);
}

void pb_add_message(struct buf *out, uint32_t number, struct slice s)
{
    buf_reserve(out, 2 * SHORT_VARINT_BYTES_MAX + s.len);
    pb_add_head(out, number, s.len);
    if (s.len > 0)
        memcpy(out->data + out->len, s.data, s.len);
    out->len += s.len;
}

void pb_add_head(struct buf *out, uint32_t number, size_t len)
{
    must(len <= INT32_MAX); /* protobuf's limit for a message */
    buf_reserve(out, 2 * SHORT_VARINT_BYTES_MAX);

    uint8_t *at = pb_put_varint(out->data + out->len, tag_of(number, PB_BYTES));
    at = pb_put_varint(at, len);
    out->len = (size_t)(at - out->data);
}

size_t pb_head_size(uint32_t number, size_t len)
{
    return pb_varint_size(tag_of(number, PB_BYTES)) + pb_varint_size(len);
}
