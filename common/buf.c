/* buf - growing bytes and borrowed ones. Capacity doubles, so that appending n bytes piece by piece costs O(n). */
#include "common/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

#define BUF_BYTES_FIRST ((size_t)64)

struct slice slice_str(const char *s)
{
    return slice_of(s, strlen(s));
}

int slice_cmp(struct slice a, struct slice b)
{
    size_t common = MIN(a.len, b.len);
    int order = common == 0 ? 0 : memcmp(a.data, b.data, common);

    if (order != 0)
        return order;
    return a.len < b.len ? -1 : a.len > b.len;
}

bool slice_eq(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

char *slice_dup_str(struct slice s)
{
    char *text = xmalloc(s.len + 1);

    if (s.len > 0)
        memcpy(text, s.data, s.len);
    text[s.len] = '\0';
    return text;
}

void buf_fini(struct buf *b)
{
    free(b->data);
    *b = BUF_INIT;
}

void buf_reset(struct buf *b)
{
    b->len = 0;
}

void buf_reserve(struct buf *b, size_t more)
{
    if (b->cap - b->len >= more)
        return;
    /* A size that came from outside has met its limit long before half of the address space. */
    must(more <= SIZE_MAX / 2 - b->len);
    size_t cap = MAX(b->cap, BUF_BYTES_FIRST);

    while (cap - b->len < more)
        cap *= 2;
    b->data = xrealloc(b->data, cap);
    b->cap = cap;
}

uint8_t *buf_extend(struct buf *b, size_t len)
{
    buf_reserve(b, len);
    if (b->data == NULL) /* len 0 on an empty buffer: still give an address that may be passed to memcpy */
        buf_reserve(b, 1);
    uint8_t *start = b->data + b->len;

    b->len += len;
    return start;
}

void buf_add(struct buf *b, const void *data, size_t len)
{
    if (len > 0)
        memcpy(buf_extend(b, len), data, len);
}

void buf_add_slice(struct buf *b, struct slice s)
{
    buf_add(b, s.data, s.len);
}

void buf_add_str(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_add_byte(struct buf *b, uint8_t byte)
{
    *buf_extend(b, 1) = byte;
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args, again;

    va_start(args, fmt);
    va_copy(again, args);
    buf_reserve(b, BUF_BYTES_FIRST); /* most texts fit at the first attempt */
    int len = vsnprintf((char *)b->data + b->len, b->cap - b->len, fmt, args);
    must(len >= 0); /* our formats have no multibyte conversions, which are all that can fail */

    if ((size_t)len >= b->cap - b->len) {
        buf_reserve(b, (size_t)len + 1); /* the NUL is written, but is not part of the buffer */
        vsnprintf((char *)b->data + b->len, (size_t)len + 1, fmt, again);
    }
    b->len += (size_t)len;
    va_end(again);
    va_end(args);
}

void buf_consume(struct buf *b, size_t len)
{
    must(len <= b->len);
    if (len > 0 && len < b->len)
        memmove(b->data, b->data + len, b->len - len);
    b->len -= len;
}

struct slice buf_slice(const struct buf *b)
{
    return slice_of(b->data, b->len);
}

struct slice buf_part(const struct buf *b, size_t pos, size_t len)
{
    must(pos <= b->len && len <= b->len - pos);
    return len == 0 ? SLICE_EMPTY : slice_of(b->data + pos, len);
}

bool slice_is_utf8(struct slice s)
{
    for (size_t i = 0; i < s.len;) {
        uint8_t b = s.data[i++];
        if (b < 0x80) {
            continue;
        }
        size_t more = b >= 0xf0 ? 3 : b >= 0xe0 ? 2 : 1;
        if (b < 0xc2 || b > 0xf4 || s.len - i < more) {
            return false;
        }
        uint8_t low = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
        uint8_t high = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
        for (; more > 0; more--, i++, low = 0x80, high = 0xbf) {
            if (s.data[i] < low || s.data[i] > high) {
                return false;
            }
        }
    }
    return true;
}
