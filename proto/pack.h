/* pack - msgpack reader with bounds and writer (with pack_put.h the only file that knows msgpack's library).
 * The reader works on borrowed bytes, allocates nothing, and never reads past them: a hostile length is an
 * error before anything is done with it. */
#ifndef PROTO_PACK_H
#define PROTO_PACK_H

#include "common/buf.h"

/* --- writer --- */
void pack_array(struct buf *out, uint32_t count);
void pack_map(struct buf *out, uint32_t count);
void pack_u64(struct buf *out, uint64_t v); /* shortest form */
void pack_i64(struct buf *out, int64_t v);
void pack_bool(struct buf *out, bool v);
void pack_nil(struct buf *out);
void pack_bin(struct buf *out, struct slice s);
void pack_str(struct buf *out, struct slice s);
void pack_cstr(struct buf *out, const char *s);

/* --- reader: each takes one item off *in and returns 0, E_TRUNCATED, E_MALFORMED (another type) or E_TOO_BIG --- */
int unpack_array(struct slice *in, uint32_t count_max, uint32_t *count);
int unpack_map(struct slice *in, uint32_t count_max, uint32_t *count);
int unpack_u64(struct slice *in, uint64_t *v); /* non-negative int of any width */
int unpack_i64(struct slice *in, int64_t *v);
int unpack_bool(struct slice *in, bool *v);
int unpack_bytes(struct slice *in, size_t len_max, struct slice *s); /* str or bin */

/* What comes next, without taking it. The tag that msgpack never uses is shown as PACK_EXT; unpack_skip refuses it. */
enum pack_type { PACK_END, PACK_NIL, PACK_BOOL, PACK_INT, PACK_FLOAT, PACK_BYTES, PACK_ARRAY, PACK_MAP, PACK_EXT };
enum pack_type unpack_peek(struct slice in);
/* Takes one item of any kind with all it contains; nesting deeper than 32 is E_TOO_BIG. */
int unpack_skip(struct slice *in);

#endif
