/* frames - encode, decode, show and check every frame of the list in frames.h.
 * Structs come from the daemons' out.c through link.c and go to the other side's link.c and in.c. Nothing here knows
 * a single frame: each function below is made from the list once per frame, from its fields, by one level
 * of macros, so a new frame needs no line in this file.
 *
 *      frame = array [type, seq, field...]     in the order of the list
 *      field = U: non-negative int   I: int   B: bin (a str is taken too, for bindings that have no bin)
 *
 * Invariants: frame_encode asks for room once and then stores straight; frame_decode borrows, allocates nothing,
 * and moves the message only past a whole frame. */
#include "proto/frames.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/err.h"
#include "common/limits.h"
#include "proto/pack.h"
#include "proto/pack_put.h"

#define HEAD_FIELDS 2 /* type and seq */
#define HEAD_BYTES_MAX (PACK_HEAD_BYTES_MAX + HEAD_FIELDS * PACK_INT_BYTES_MAX)
#define FIELDS_MAX 32 /* more than any frame has; what a hostile head may claim */

/* --- what a frame counts ------------------------------------------------------------------------- */

#define COUNT(member) +1
#define FRAME_COUNT(NAME, name, number, from, to, text) \
    FIELDS_##NAME = HEAD_FIELDS FR_##NAME##_FIELDS(COUNT, COUNT, COUNT),
enum { FRAMES(FRAME_COUNT) };

#define FRAME_FITS(NAME, name, number, from, to, text) \
    _Static_assert(FIELDS_##NAME <= FIELDS_MAX, #NAME " has more fields than a decoder takes");
FRAMES(FRAME_FITS)

/* --- sizes: an upper bound for the room to reserve ------------------------------------------------ */

#define SIZE_INT(member) +PACK_INT_BYTES_MAX
#define SIZE_BIN(member) +PACK_HEAD_BYTES_MAX + f->member.len
#define FRAME_SIZE(NAME, name, number, from, to, text) \
    static inline size_t size_##name(const struct fr_##name *f) \
    { \
        UNUSED(f); \
        return (size_t)HEAD_BYTES_MAX FR_##NAME##_FIELDS(SIZE_INT, SIZE_INT, SIZE_BIN); \
    }
FRAMES(FRAME_SIZE)

/* --- writing -------------------------------------------------------------------------------------- */

#define PUT_U(member) at = pack_put_uint64(at, f->member);
#define PUT_I(member) at = pack_put_int64(at, f->member);
#define PUT_B(member) at = pack_put_slice(at, f->member);
#define FRAME_PUT(NAME, name, number, from, to, text) \
    static inline uint8_t *put_##name(uint8_t *at, const struct fr_##name *f) \
    { \
        FR_##NAME##_FIELDS(PUT_U, PUT_I, PUT_B) \
        return at; \
    }
FRAMES(FRAME_PUT)

static uint8_t *put_head(uint8_t *at, size_t fields, const struct frame *frame)
{
    at = pack_put_array(at, fields);
    at = pack_put_uint64(at, (uint64_t)frame->type);
    return pack_put_uint64(at, frame->seq);
}

#define FRAME_ENCODE(NAME, name, number, from, to, text) \
    case FR_##NAME: \
        buf_reserve(out, size_##name(&frame->name)); \
        at = put_head(out->data + out->len, FIELDS_##NAME, frame); \
        at = put_##name(at, &frame->name); \
        break;

void frame_encode(struct buf *out, const struct frame *frame)
{
    uint8_t *at = NULL;

    switch (frame->type) {
        FRAMES(FRAME_ENCODE)
    }
    must(at != NULL); /* a type that is not in the list is our bug: we made the struct */
    out->len = (size_t)(at - out->data);
}

/* --- reading -------------------------------------------------------------------------------------- */

#define GET_U(member) \
    if (err == 0) \
        err = unpack_u64(in, &f->member);
#define GET_I(member) \
    if (err == 0) \
        err = unpack_i64(in, &f->member);
#define GET_B(member) \
    if (err == 0) \
        err = unpack_bytes(in, FRAME_FIELD_BYTES_MAX, &f->member);
#define FRAME_GET(NAME, name, number, from, to, text) \
    static inline int get_##name(struct slice *in, struct fr_##name *f) \
    { \
        int err = 0; \
        FR_##NAME##_FIELDS(GET_U, GET_I, GET_B) \
        return err; \
    }
FRAMES(FRAME_GET)

#define FRAME_DECODE(NAME, name, number, from, to, text) \
    case FR_##NAME: \
        frame->type = FR_##NAME; \
        err = count == FIELDS_##NAME ? get_##name(&in, &frame->name) : E_MALFORMED; \
        break;

int frame_decode(struct slice *message, struct frame *frame)
{
    struct slice in = *message;
    uint32_t count = 0;
    uint64_t type = 0;

    if (in.len == 0)
        return 0;

    int err = unpack_array(&in, FIELDS_MAX, &count);
    if (err == 0 && count < HEAD_FIELDS)
        err = E_MALFORMED;
    if (err == 0)
        err = unpack_u64(&in, &type);
    if (err == 0)
        err = unpack_u64(&in, &frame->seq);
    if (err < 0)
        return err;

    switch (type) {
        FRAMES(FRAME_DECODE)
    default:
        err = E_VERSION;
    }
    if (err < 0)
        return err;
    *message = in;
    return 1;
}

/* --- names and rights ----------------------------------------------------------------------------- */

#define FRAME_NAME(NAME, name, number, from, to, text) \
    case number: \
        return #NAME;

const char *frame_name(uint64_t type)
{
    switch (type) {
        FRAMES(FRAME_NAME)
    default:
        return "?";
    }
}

#define FRAME_MAY(NAME, name, number, from_roles, to_roles, text) \
    case number: \
        return (from & (from_roles)) != 0 && (to & (to_roles)) != 0;

bool frame_may(uint64_t type, enum role from, enum role to)
{
    switch (type) {
        FRAMES(FRAME_MAY)
    default:
        return false;
    }
}

/* --- traces --------------------------------------------------------------------------------------- */

struct line {
    char *text;
    size_t len, size;
};

static void line_add(struct line *l, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void line_add(struct line *l, const char *fmt, ...)
{
    va_list args;

    if (l->len >= l->size)
        return;
    va_start(args, fmt);
    int n = vsnprintf(l->text + l->len, l->size - l->len, fmt, args);
    va_end(args);
    if (n > 0)
        l->len = MIN(l->len + (size_t)n, l->size);
}

#define SHOW_U(member) line_add(l, " " #member " %" PRIu64, f->member);
#define SHOW_I(member) line_add(l, " " #member " %" PRId64, f->member);
#define SHOW_B(member) line_add(l, " " #member " %zu bytes", f->member.len);
#define FRAME_SHOW(NAME, name, number, from, to, text) \
    static void show_##name(struct line *l, const struct fr_##name *f) \
    { \
        FR_##NAME##_FIELDS(SHOW_U, SHOW_I, SHOW_B) \
    }
FRAMES(FRAME_SHOW)

#define FRAME_SHOW_CASE(NAME, name, number, from, to, text) \
    case FR_##NAME: \
        show_##name(&l, &frame->name); \
        break;

void frame_show(const struct frame *frame, char *text, size_t size)
{
    struct line l = {.text = text, .len = 0, .size = size};

    line_add(&l, "%s seq %" PRIu64, frame_name((uint64_t)frame->type), frame->seq);
    switch (frame->type) {
        FRAMES(FRAME_SHOW_CASE)
    }
}
