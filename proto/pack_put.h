/* pack_put - msgpack-c's own pack template, writing straight to memory that was reserved before.
 * For pack.c, frames.c and command.c only: the hot encoders reserve once for a whole frame and then store byte
 * after byte, instead of asking a buffer for room at every field. Each function writes at `at` and
 * returns the byte behind what it wrote; the caller holds that there is room: PACK_*_BYTES_MAX. */
#ifndef PROTO_PACK_PUT_H
#define PROTO_PACK_PUT_H

#include <limits.h>
#include <string.h>

#include <msgpack/timestamp.h>

#include "common/buf.h"

#define PACK_INT_BYTES_MAX 9  /* tag and 64 bits */
#define PACK_HEAD_BYTES_MAX 5 /* tag and 32 bits: head of a bin, str, array or map */

static inline uint8_t *pack_put_raw(uint8_t *at, const void *data, size_t len)
{
    /* memcpy must not be given NULL, which is what an empty slice may hold. */
    if (len > 0)
        memcpy(at, data, len);
    return at + len;
}

#define msgpack_pack_inline_func(name) static inline uint8_t *pack_put##name
#define msgpack_pack_inline_func_cint(name) static inline uint8_t *pack_put##name
#define msgpack_pack_inline_func_fixint(name) static inline uint8_t *pack_put_fix##name
#define msgpack_pack_user uint8_t *
#define msgpack_pack_append_buffer(at, data, len) return pack_put_raw(at, data, len)
#include <msgpack/pack_template.h>

/* A whole bin: PACK_HEAD_BYTES_MAX + s.len bytes at most. The length has been compared with a limit (must). */
static inline uint8_t *pack_put_slice(uint8_t *at, struct slice s)
{
    must(s.len <= UINT32_MAX);
    return pack_put_raw(pack_put_bin(at, s.len), s.data, s.len);
}

#endif
