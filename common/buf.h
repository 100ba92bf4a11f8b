/* buf - a growing byte buffer, and a slice: bytes that somebody else owns.
 * Growth goes through mem.h and therefore never fails; whoever appends bytes that come from outside
 * has compared their count with a named limit before. */
#ifndef COMMON_BUF_H
#define COMMON_BUF_H

#include "common/base.h"

/* Borrowed bytes. {NULL, 0} is the empty slice; data is never written through. */
struct slice {
    const uint8_t *data;
    size_t len;
};

#define SLICE_EMPTY ((struct slice){NULL, 0})
#define SLICE_LIT(s) ((struct slice){(const uint8_t *)(s), sizeof(s) - 1})

static inline struct slice slice_of(const void *data, size_t len)
{
    return (struct slice){data, len};
}

/* The bytes of a C string without its NUL. Borrows s. */
struct slice slice_str(const char *s);

/* <0, 0, >0 in unsigned bytewise order, a prefix before what extends it (etcd's key order). */
int slice_cmp(struct slice a, struct slice b);
bool slice_eq(struct slice a, struct slice b);

/* Well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF. */
bool slice_is_utf8(struct slice s);

/* A copy with a NUL appended (for text). Given: free() it. */
char *slice_dup_str(struct slice s);

struct buf {
    uint8_t *data;
    size_t len; /* bytes in use */
    size_t cap; /* bytes allocated, cap >= len */
};

#define BUF_INIT ((struct buf){NULL, 0, 0})

void buf_fini(struct buf *b);                 /* frees the bytes; b is BUF_INIT again */
void buf_reset(struct buf *b);                /* len = 0, keeps the memory */
void buf_reserve(struct buf *b, size_t more); /* afterwards cap - len >= more */
void buf_add(struct buf *b, const void *data, size_t len);
void buf_add_slice(struct buf *b, struct slice s);
void buf_add_str(struct buf *b, const char *s);
void buf_add_byte(struct buf *b, uint8_t byte);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Appends len uninitialised bytes and returns where they start; valid until the next growth. */
uint8_t *buf_extend(struct buf *b, size_t len);
/* Drops the first len bytes (memmove). */
void buf_consume(struct buf *b, size_t len);
struct slice buf_slice(const struct buf *b); /* borrows b's bytes until its next change */
/* len of its bytes from pos on; an empty part of an empty buffer is fine (NULL + 0 is not defined in C). */
struct slice buf_part(const struct buf *b, size_t pos, size_t len);

#endif
