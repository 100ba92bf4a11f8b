/* pb - protobuf's wire format, in place: a reader that takes fields off borrowed bytes, and writers that append
 * to a buffer. For the hot messages (api.h) and for responses that are put together from stored bytes; everything
 * else uses the generated code. Source: protobuf's encoding page; spec/wire.md. */
#ifndef PROTO_PB_H
#define PROTO_PB_H

#include "common/buf.h"

enum pb_wire { PB_VARINT = 0, PB_FIXED64 = 1, PB_BYTES = 2, PB_FIXED32 = 5 };

struct pb_field {
    uint32_t number; /* 1..2^29-1 */
    enum pb_wire wire;
    uint64_t varint;    /* PB_VARINT, PB_FIXED64, PB_FIXED32 */
    struct slice bytes; /* PB_BYTES */
};

/* 1: one field taken off *in; 0: at the end; E_MALFORMED: not protobuf (also groups and field number 0). */
int pb_next(struct slice *in, struct pb_field *f);

size_t pb_varint_size(uint64_t v);
uint8_t *pb_put_varint(uint8_t *at, uint64_t v); /* returns the next byte; at has pb_varint_size(v) bytes */

/* proto3: a zero number and empty bytes are not written. */
void pb_add_uint(struct buf *out, uint32_t number, uint64_t v);
static inline void pb_add_int(struct buf *out, uint32_t number, int64_t v)
{
    pb_add_uint(out, number, (uint64_t)v);
}
void pb_add_bytes(struct buf *out, uint32_t number, struct slice s);
/* Written even when empty: for sub-messages and repeated fields. */
void pb_add_message(struct buf *out, uint32_t number, struct slice s);
/* Tag and length of a sub-message whose bytes follow. */
void pb_add_head(struct buf *out, uint32_t number, size_t len);
size_t pb_head_size(uint32_t number, size_t len); /* bytes that pb_add_head writes */

#endif
