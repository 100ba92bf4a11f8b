/* pack - msgpack on borrowed bytes: writer and reader.
 * The writer is msgpack-c's pack template (pack_put.h). The reader is ours: msgpack-c's unpacker builds a tree of
 * objects and allocates for counts that the bytes only claim; this one takes one item at a time, allocates
 * nothing and never looks past the slice. tests/proto/test_pack.c holds both against msgpack-c.
 *
 *      item  = tag [length] [content]
 *      tag   : 00-7f 0..127    80-8f map        90-9f array     a0-bf str       c0 nil   c2 false  c3 true
 *              c4-c6 bin 8/16/32   c7-c9 ext 8/16/32   ca cb float 32/64   cc-cf uint 8..64   d0-d3 int 8..64
 *              d4-d8 fixext 1..16  d9-db str 8/16/32   dc dd array 16/32   de df map 16/32    e0-ff -32..-1
 *      All numbers are big endian; c1 is never used.
 *
 * Invariant: a reader that fails has not moved *in and not touched its results. */
#include "proto/pack.h"

#include <string.h>

#include "common/err.h"
#include "proto/pack_put.h"

#define NESTING_MAX 32

/* --- writer ------------------------------------------------------------------------------------ */

/* The two halves of every writer: room for at most `more` bytes, and what was written of it. */
static uint8_t *begin(struct buf *out, size_t more)
{
    buf_reserve(out, more);
    return out->data + out->len;
}

static void end(struct buf *out, const uint8_t *at)
{
    out->len = (size_t)(at - out->data);
}

void pack_array(struct buf *out, uint32_t count)
{
    end(out, pack_put_array(begin(out, PACK_HEAD_BYTES_MAX), count));
}

void pack_map(struct buf *out, uint32_t count)
{
    end(out, pack_put_map(begin(out, PACK_HEAD_BYTES_MAX), count));
}

void pack_u64(struct buf *out, uint64_t v)
{
    end(out, pack_put_uint64(begin(out, PACK_INT_BYTES_MAX), v));
}

void pack_i64(struct buf *out, int64_t v)
{
    end(out, pack_put_int64(begin(out, PACK_INT_BYTES_MAX), v));
}

void pack_bool(struct buf *out, bool v)
{
    uint8_t *at = begin(out, 1);

    end(out, v ? pack_put_true(at) : pack_put_false(at));
}

void pack_nil(struct buf *out)
{
    end(out, pack_put_nil(begin(out, 1)));
}

void pack_bin(struct buf *out, struct slice s)
{
    end(out, pack_put_slice(begin(out, PACK_HEAD_BYTES_MAX + s.len), s));
}

void pack_str(struct buf *out, struct slice s)
{
    uint8_t *at = begin(out, PACK_HEAD_BYTES_MAX + s.len);

    must(s.len <= UINT32_MAX);
    end(out, pack_put_raw(pack_put_str(at, s.len), s.data, s.len));
}

void pack_cstr(struct buf *out, const char *s)
{
    pack_str(out, slice_of(s, strlen(s)));
}

/* --- reader ------------------------------------------------------------------------------------ */

/* A big-endian number of width bytes that follows the tag. */
static int number_after_tag(struct slice in, size_t width, uint64_t *v)
{
    uint64_t n = 0;

    if (in.len - 1 < width)
        return E_TRUNCATED;
    for (size_t i = 1; i <= width; i++)
        n = n << 8 | in.data[i];
    *v = n;
    return 0;
}

static void advance(struct slice *in, size_t len)
{
    in->data += len;
    in->len -= len;
}

/* The integer in front of `in`: its value as 64 bits, whether it is below zero, and its encoded size. */
static int read_int(struct slice in, uint64_t *v, bool *negative, size_t *size)
{
    if (in.len == 0)
        return E_TRUNCATED;

    uint8_t tag = in.data[0];
    if (tag <= 0x7f || tag >= 0xe0) {
        *v = (uint64_t)(int64_t)(int8_t)tag;
        *negative = tag >= 0xe0;
        *size = 1;
        return 0;
    }
    if (tag < 0xcc || tag > 0xd3)
        return E_MALFORMED;

    size_t width = (size_t)1 << ((tag - 0xcc) & 3);
    uint64_t n;
    int err = number_after_tag(in, width, &n);
    if (err < 0)
        return err;
    if (tag >= 0xd0) {
        unsigned unused_bits = 64 - 8 * (unsigned)width;
        n = (uint64_t)((int64_t)(n << unused_bits) >> unused_bits);
    }
    *v = n;
    *negative = tag >= 0xd0 && (int64_t)n < 0;
    *size = 1 + width;
    return 0;
}

int unpack_u64(struct slice *in, uint64_t *v)
{
    uint64_t n;
    bool negative;
    size_t size;
    int err = read_int(*in, &n, &negative, &size);

    if (err < 0)
        return err;
    if (negative)
        return E_MALFORMED;
    *v = n;
    advance(in, size);
    return 0;
}

int unpack_i64(struct slice *in, int64_t *v)
{
    uint64_t n;
    bool negative;
    size_t size;
    int err = read_int(*in, &n, &negative, &size);

    if (err < 0)
        return err;
    if (!negative && n > INT64_MAX)
        return E_MALFORMED;
    *v = (int64_t)n;
    advance(in, size);
    return 0;
}

int unpack_bool(struct slice *in, bool *v)
{
    if (in->len == 0)
        return E_TRUNCATED;
    if (in->data[0] != 0xc2 && in->data[0] != 0xc3)
        return E_MALFORMED;
    *v = in->data[0] == 0xc3;
    advance(in, 1);
    return 0;
}

int unpack_bytes(struct slice *in, size_t len_max, struct slice *s)
{
    if (in->len == 0)
        return E_TRUNCATED;

    uint8_t tag = in->data[0];
    size_t width = 0;
    uint64_t len = 0;
    if (tag >= 0xa0 && tag <= 0xbf)
        len = tag & 0x1f;
    else if (tag >= 0xc4 && tag <= 0xc6)
        width = (size_t)1 << (tag - 0xc4);
    else if (tag >= 0xd9 && tag <= 0xdb)
        width = (size_t)1 << (tag - 0xd9);
    else
        return E_MALFORMED;

    int err = width > 0 ? number_after_tag(*in, width, &len) : 0;
    if (err < 0)
        return err;
    if (len > len_max)
        return E_TOO_BIG;
    if (in->len - 1 - width < len)
        return E_TRUNCATED;
    *s = slice_of(in->data + 1 + width, len);
    advance(in, 1 + width + len);
    return 0;
}

/* Head of an array or a map: fix is its first one-byte tag, wide its 16-bit tag (the 32-bit one follows). Every
 * item takes at least one byte, so a count that the remaining bytes cannot hold is refused here, before
 * anybody allocates for it. */
static int unpack_head(struct slice *in, uint8_t fix, uint8_t wide, size_t items_each, uint32_t count_max,
                       uint32_t *count)
{
    if (in->len == 0)
        return E_TRUNCATED;

    uint8_t tag = in->data[0];
    size_t width = 0;
    uint64_t n = tag & 0x0f;
    if (tag == wide || tag == wide + 1)
        width = tag == wide ? 2 : 4;
    else if ((tag & 0xf0) != fix)
        return E_MALFORMED;

    int err = width > 0 ? number_after_tag(*in, width, &n) : 0;
    if (err < 0)
        return err;
    if (n > count_max)
        return E_TOO_BIG;
    if ((in->len - 1 - width) / items_each < n)
        return E_TRUNCATED;
    *count = (uint32_t)n;
    advance(in, 1 + width);
    return 0;
}

int unpack_array(struct slice *in, uint32_t count_max, uint32_t *count)
{
    return unpack_head(in, 0x90, 0xdc, 1, count_max, count);
}

int unpack_map(struct slice *in, uint32_t count_max, uint32_t *count)
{
    return unpack_head(in, 0x80, 0xde, 2, count_max, count);
}

enum pack_type unpack_peek(struct slice in)
{
    if (in.len == 0)
        return PACK_END;

    uint8_t tag = in.data[0];
    if (tag <= 0x7f || tag >= 0xe0 || (tag >= 0xcc && tag <= 0xd3))
        return PACK_INT;
    if (tag <= 0x8f || tag >= 0xde)
        return PACK_MAP;
    if (tag <= 0x9f || tag >= 0xdc)
        return PACK_ARRAY;
    if (tag <= 0xbf || tag >= 0xd9 || (tag >= 0xc4 && tag <= 0xc6))
        return PACK_BYTES;
    if (tag == 0xc0)
        return PACK_NIL;
    if (tag == 0xc2 || tag == 0xc3)
        return PACK_BOOL;
    return tag == 0xca || tag == 0xcb ? PACK_FLOAT : PACK_EXT;
}

static int skip_bytes(struct slice *in, size_t len)
{
    if (in->len < len)
        return E_TRUNCATED;
    advance(in, len);
    return 0;
}

/* An ext: tag, [length], one byte of type, content. */
static int skip_ext(struct slice *in)
{
    uint8_t tag = in->data[0];
    size_t width = 0;
    uint64_t len = 0;

    if (tag >= 0xd4 && tag <= 0xd8)
        len = (uint64_t)1 << (tag - 0xd4);
    else if (tag >= 0xc7 && tag <= 0xc9)
        width = (size_t)1 << (tag - 0xc7);
    else
        return E_MALFORMED; /* c1 */

    int err = width > 0 ? number_after_tag(*in, width, &len) : 0;
    return err < 0 ? err : skip_bytes(in, 1 + width + 1 + (size_t)len);
}

/* Takes one item that is not a container; for a container only its head, with what it holds in *items. */
static int skip_one(struct slice *in, uint64_t *items)
{
    uint32_t count;
    uint64_t n;
    bool negative;
    size_t size;
    struct slice bytes;
    int err;

    switch (unpack_peek(*in)) {
    case PACK_END:
        return E_TRUNCATED;
    case PACK_NIL:
    case PACK_BOOL:
        return skip_bytes(in, 1);
    case PACK_INT:
        err = read_int(*in, &n, &negative, &size);
        return err < 0 ? err : skip_bytes(in, size);
    case PACK_FLOAT:
        return skip_bytes(in, in->data[0] == 0xca ? 5 : 9);
    case PACK_BYTES:
        return unpack_bytes(in, SIZE_MAX, &bytes);
    case PACK_EXT:
        return skip_ext(in);
    case PACK_ARRAY:
        err = unpack_array(in, UINT32_MAX, &count);
        *items = err < 0 ? 0 : count;
        return err;
    case PACK_MAP:
        err = unpack_map(in, UINT32_MAX, &count);
        *items = err < 0 ? 0 : 2 * (uint64_t)count;
        return err;
    }
    return E_MALFORMED;
}

int unpack_skip(struct slice *in)
{
    struct slice rest = *in;
    uint64_t left[NESTING_MAX + 1] = {1}; /* items still to take at each level */
    int depth = 0;

    /* A stack of counts instead of recursion: the depth comes from outside. */
    while (depth >= 0) {
        uint64_t items = 0;

        if (left[depth] == 0) {
            depth--;
            continue;
        }
        left[depth]--;
        int err = skip_one(&rest, &items);
        if (err < 0)
            return err;
        if (items > 0) {
            if (depth == NESTING_MAX)
                return E_TOO_BIG;
            left[++depth] = items;
        }
    }
    *in = rest;
    return 0;
}
