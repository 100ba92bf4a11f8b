/* json_out - protobuf's bytes -> JSON text, field by field in the order of the descriptor: names as in the proto, 64-bit numbers as
 * strings, enums by name, bytes as base64, default values left out (spec/surface.md §1). From jsoncall.c.
 * The bytes are walked where they lie; per field of a message one pass over its heads. */
#include <inttypes.h>

#include "common/err.h"
#include "common/limits.h"
#include "gatewayd/json.h"
#include "proto/pb.h"

struct writer {
    struct buf *out;
    size_t end_max; /* of out->len */
    unsigned depth;
};

static int write_message(struct writer *w, const ProtobufCMessageDescriptor *type, struct slice message);

/* --- values --------------------------------------------------------------------------------------- */

/* Length of the well-formed character that s begins with; 0: there is none. */
static size_t character(struct slice s)
{
    for (size_t n = 1; n <= 4 && n <= s.len; n++) {
        if (slice_is_utf8(slice_of(s.data, n))) {
            return n;
        }
    }
    return 0;
}

void json_add_string(struct buf *out, struct slice text)
{
    buf_add_byte(out, '"');
    while (text.len > 0) {
        uint8_t b = text.data[0];
        size_t n = b < 0x80 ? 1 : character(text);
        if (b == '"' || b == '\\') {
            buf_add_byte(out, '\\');
            buf_add_byte(out, b);
        } else if (b == '\n' || b == '\r' || b == '\t') {
            buf_add_str(out, b == '\n' ? "\\n" : b == '\r' ? "\\r" : "\\t");
        } else if (b < 0x20 || b == 0x7f) {
            buf_printf(out, "\\u%04x", b);
        } else if (n == 0) {
            buf_add_str(out, "\xef\xbf\xbd");
            n = 1;
        } else {
            buf_add(out, text.data, n);
        }
        text = slice_of(text.data + n, text.len - n);
    }
    buf_add_byte(out, '"');
}

static void write_number(struct writer *w, const ProtobufCFieldDescriptor *f, uint64_t v)
{
    const ProtobufCEnumDescriptor *names = f->descriptor;
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32: buf_printf(w->out, "%" PRId32, (int32_t)v); return;
    case PROTOBUF_C_TYPE_UINT32: buf_printf(w->out, "%" PRIu32, (uint32_t)v); return;
    case PROTOBUF_C_TYPE_INT64: buf_printf(w->out, "\"%" PRId64 "\"", (int64_t)v); return;
    case PROTOBUF_C_TYPE_UINT64: buf_printf(w->out, "\"%" PRIu64 "\"", v); return;
    case PROTOBUF_C_TYPE_BOOL: buf_add_str(w->out, v != 0 ? "true" : "false"); return;
    case PROTOBUF_C_TYPE_ENUM:
        for (unsigned i = 0; i < names->n_values; i++) {
            if (names->values[i].value == (int32_t)v) {
                json_add_string(w->out, slice_str(names->values[i].name));
                return;
            }
        }
        buf_printf(w->out, "%" PRId32, (int32_t)v); /* of a newer sender */
        return;
    default: must(false); /* the API has no other types; test_json.c looks at all of them */
    }
}

static bool is_bytes(const ProtobufCFieldDescriptor *f)
{
    return f->type == PROTOBUF_C_TYPE_MESSAGE || f->type == PROTOBUF_C_TYPE_BYTES || f->type == PROTOBUF_C_TYPE_STRING;
}

static int write_value(struct writer *w, const ProtobufCFieldDescriptor *f, const struct pb_field *v)
{
    if (w->out->len > w->end_max || (is_bytes(f) && v->bytes.len / 3 * 4 > w->end_max - w->out->len)) {
        return E_TOO_BIG;
    }
    if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        return write_message(w, f->descriptor, v->bytes);
    }
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        json_add_string(w->out, v->bytes);
    } else if (f->type == PROTOBUF_C_TYPE_BYTES) {
        buf_add_byte(w->out, '"');
        json_base64_encode(v->bytes, w->out);
        buf_add_byte(w->out, '"');
    } else {
        write_number(w, f, v->varint);
    }
    return OK;
}

/* --- fields ----------------------------------------------------------------------------------------- */

/* The next value of f in the message: the wire type is right, or it is a packed run (only of numbers). */
static int next_of(struct slice *message, const ProtobufCFieldDescriptor *f, struct pb_field *v)
{
    int rv;
    while ((rv = pb_next(message, v)) == 1) {
        if (v->number != f->id) {
            continue;
        }
        bool packed = v->wire == PB_BYTES && !is_bytes(f) && f->label == PROTOBUF_C_LABEL_REPEATED;
        if (packed || v->wire == (is_bytes(f) ? PB_BYTES : PB_VARINT)) {
            return 1;
        }
    }
    return rv;
}

static void write_name(struct writer *w, const ProtobufCFieldDescriptor *f, bool *first)
{
    buf_add_str(w->out, *first ? "\"" : ",\"");
    buf_add_str(w->out, f->name);
    buf_add_str(w->out, "\":");
    *first = false;
}

static int varint_take(struct slice *bytes, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; bytes->len > 0 && shift < 64; shift += 7) {
        uint8_t b = bytes->data[0];
        *bytes = slice_of(bytes->data + 1, bytes->len - 1);
        *v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) {
            return OK;
        }
    }
    return E_MALFORMED;
}

static int write_run(struct writer *w, const ProtobufCFieldDescriptor *f, struct slice run, bool *first)
{
    while (run.len > 0) {
        struct pb_field one = {.number = f->id, .wire = PB_VARINT};
        if (varint_take(&run, &one.varint) != OK) {
            return E_MALFORMED;
        }
        buf_add_str(w->out, *first ? "" : ",");
        *first = false;
        int err = write_value(w, f, &one);
        if (err != OK) {
            return err;
        }
    }
    return OK;
}

static int write_repeated(struct writer *w, const ProtobufCFieldDescriptor *f, struct slice message, bool *first)
{
    struct pb_field v;
    bool none = true, first_value = true;
    while (next_of(&message, f, &v) == 1) {
        if (none) {
            write_name(w, f, first);
            buf_add_byte(w->out, '[');
            none = false;
        }
        int err = OK;
        if (v.wire == PB_BYTES && !is_bytes(f)) {
            err = write_run(w, f, v.bytes, &first_value);
        } else {
            buf_add_str(w->out, first_value ? "" : ",");
            first_value = false;
            err = write_value(w, f, &v);
        }
        if (err != OK) {
            return err;
        }
    }
    if (!none) {
        buf_add_byte(w->out, ']');
    }
    return OK;
}

/* The last one counts, as in any decoder. */
static int write_single(struct writer *w, const ProtobufCFieldDescriptor *f, struct slice message, bool *first)
{
    struct pb_field v, last = {0};
    while (next_of(&message, f, &v) == 1) {
        last = v;
    }
    if (last.number == 0) {
        return OK;
    }
    bool is_default = f->type == PROTOBUF_C_TYPE_MESSAGE ? false : is_bytes(f) ? last.bytes.len == 0 : last.varint == 0;
    if (is_default && (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0) {
        return OK;
    }
    write_name(w, f, first);
    return write_value(w, f, &last);
}

static int write_message(struct writer *w, const ProtobufCMessageDescriptor *type, struct slice message)
{
    struct pb_field v;
    struct slice all = message;
    int rv;
    while ((rv = pb_next(&all, &v)) == 1) {
    }
    if (rv < 0 || ++w->depth > JSON_DEPTH_MAX) {
        return E_MALFORMED;
    }
    bool first = true;
    buf_add_byte(w->out, '{');
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &type->fields[i];
        int err = f->label == PROTOBUF_C_LABEL_REPEATED ? write_repeated(w, f, message, &first) : write_single(w, f, message, &first);
        if (err != OK) {
            return err;
        }
    }
    buf_add_byte(w->out, '}');
    w->depth--;
    return w->out->len > w->end_max ? E_TOO_BIG : OK;
}

int json_encode(const ProtobufCMessageDescriptor *type, struct slice message, size_t bytes_max, struct buf *out)
{
    struct writer w = {.out = out, .end_max = out->len + bytes_max};
    return write_message(&w, type, message);
}
