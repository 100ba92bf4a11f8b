/* pbmap - see pbmap.h. Reads hostile maps: depth and counts are bounded by the size of what was received. */
#include "gatewayd/pbmap.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "proto/pack.h"
#include "proto/pb.h"

/* A map inside a map inside a map: a transaction's worth of nesting, three levels of map for each of its own. */
#define PBMAP_DEPTH_MAX (3 * TXN_DEPTH_MAX)

static int message_to_wire(const ProtobufCMessageDescriptor *d, struct slice *in, uint32_t count, const char *skip, unsigned depth, struct buf *out,
                           struct buf *why);

static const ProtobufCFieldDescriptor *field_by_name(const ProtobufCMessageDescriptor *d, struct slice name)
{
    for (unsigned i = 0; i < d->n_fields; i++)
        if (slice_eq(slice_str(d->fields[i].name), name))
            return &d->fields[i];
    return NULL;
}

static int bad(struct buf *why, const ProtobufCFieldDescriptor *f, const char *wanted)
{
    buf_printf(why, "field \"%s\": must be %s", f->name, wanted);
    return E_INVALID;
}

static int enum_value(const ProtobufCFieldDescriptor *f, struct slice *in, uint64_t *v, struct buf *why)
{
    const ProtobufCEnumDescriptor *e = f->descriptor;
    struct slice name;
    int64_t number;
    if (unpack_peek(*in) == PACK_INT && unpack_i64(in, &number) == 0) {
        *v = (uint64_t)number;
        return 0;
    }
    if (unpack_bytes(in, 256, &name) == 0) {
        for (unsigned i = 0; i < e->n_values; i++) {
            if (slice_eq(slice_str(e->values[i].name), name)) {
                *v = (uint64_t)(int64_t)e->values[i].value;
                return 0;
            }
        }
    }
    return bad(why, f, "one of the names of its enum");
}

/* One value in wire format. In a repeated field, or a branch of a oneof, it is written even if it is the default. */
static int value_to_wire(const ProtobufCFieldDescriptor *f, struct slice *in, bool always, unsigned depth, struct buf *out, struct buf *why)
{
    struct slice bytes;
    uint64_t v = 0;
    int64_t number;
    uint32_t count;
    bool truth;
    int err;
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
        if (unpack_bytes(in, SIZE_MAX, &bytes) != 0)
            return bad(why, f, "a string");
        if (always || bytes.len)
            pb_add_message(out, f->id, bytes);
        return 0;
    case PROTOBUF_C_TYPE_MESSAGE: {
        struct buf inner = BUF_INIT;
        if (unpack_peek(*in) != PACK_MAP || unpack_map(in, UINT32_MAX, &count) != 0)
            return bad(why, f, "a map");
        err = message_to_wire(f->descriptor, in, count, NULL, depth + 1, &inner, why);
        if (!err)
            pb_add_message(out, f->id, buf_slice(&inner));
        buf_fini(&inner);
        return err;
    }
    case PROTOBUF_C_TYPE_ENUM:
        if ((err = enum_value(f, in, &v, why)) != 0)
            return err;
        break;
    case PROTOBUF_C_TYPE_BOOL:
        if (unpack_bool(in, &truth) != 0)
            return bad(why, f, "true or false");
        v = truth;
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_UINT64: /* negative: the same bits, as tools without unsigned numbers write an id */
        if (unpack_u64(in, &v) != 0) {
            if (unpack_i64(in, &number) != 0)
                return bad(why, f, "a number");
            v = (uint64_t)number;
        }
        break;
    default:
        if (unpack_i64(in, &number) != 0)
            return bad(why, f, "a number");
        v = (uint64_t)number;
    }
    if (v || always) {
        uint8_t bytes_of[20], *p = pb_put_varint(bytes_of, (uint64_t)f->id << 3 | PB_VARINT);
        p = pb_put_varint(p, v);
        buf_add(out, bytes_of, (size_t)(p - bytes_of));
    }
    return 0;
}

static int message_to_wire(const ProtobufCMessageDescriptor *d, struct slice *in, uint32_t count, const char *skip, unsigned depth, struct buf *out,
                           struct buf *why)
{
    if (depth > PBMAP_DEPTH_MAX)
        return E_TOO_BIG;
    for (uint32_t i = 0; i < count; i++) {
        struct slice name;
        int err = unpack_bytes(in, 256, &name);
        if (err)
            return err;
        if (skip && slice_eq(name, slice_str(skip))) {
            if ((err = unpack_skip(in)) != 0)
                return err;
            continue;
        }
        const ProtobufCFieldDescriptor *f = field_by_name(d, name);
        if (!f) {
            buf_printf(why, "unknown field \"%.*s\"", (int)MIN(name.len, 64u), (const char *)name.data);
            return E_INVALID;
        }
        uint32_t items = 1;
        bool repeated = f->label == PROTOBUF_C_LABEL_REPEATED;
        if (unpack_peek(*in) == PACK_NIL) {
            if ((err = unpack_skip(in)) != 0)
                return err;
            continue;
        }
        if (repeated && (unpack_peek(*in) != PACK_ARRAY || unpack_array(in, UINT32_MAX, &items) != 0))
            return bad(why, f, "an array");
        for (uint32_t k = 0; k < items; k++)
            if ((err = value_to_wire(f, in, repeated || (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF), depth, out, why)) != 0)
                return err;
    }
    return 0;
}

int pbmap_to_message(const ProtobufCMessageDescriptor *d, struct slice *in, uint32_t count, const char *skip, struct buf *out, struct buf *why)
{
    return message_to_wire(d, in, count, skip, 0, out, why);
}

/* --- the other way ---------------------------------------------------------------------------- */

static void pack_message(const ProtobufCMessage *m, struct buf *out);

static size_t value_size(const ProtobufCFieldDescriptor *f)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE: return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES: return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64: return 8;
    default: return 4;
    }
}

static void pack_value(const ProtobufCFieldDescriptor *f, const void *at, struct buf *out)
{
    const ProtobufCEnumDescriptor *e;
    const ProtobufCEnumValue *value;
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING: pack_cstr(out, *(char *const *)at ? *(char *const *)at : ""); break;
    case PROTOBUF_C_TYPE_BYTES: {
        const ProtobufCBinaryData *b = at;
        pack_bin(out, slice_of(b->data, b->len));
        break;
    }
    case PROTOBUF_C_TYPE_MESSAGE: pack_message(*(ProtobufCMessage *const *)at, out); break;
    case PROTOBUF_C_TYPE_BOOL: pack_bool(out, *(const protobuf_c_boolean *)at); break;
    case PROTOBUF_C_TYPE_ENUM:
        e = f->descriptor;
        value = protobuf_c_enum_descriptor_get_value(e, *(const int *)at);
        if (value)
            pack_cstr(out, value->name);
        else
            pack_i64(out, *(const int *)at);
        break;
    case PROTOBUF_C_TYPE_UINT64: pack_u64(out, *(const uint64_t *)at); break;
    case PROTOBUF_C_TYPE_UINT32: pack_u64(out, *(const uint32_t *)at); break;
    case PROTOBUF_C_TYPE_INT32: pack_i64(out, *(const int32_t *)at); break;
    default: pack_i64(out, *(const int64_t *)at); break;
    }
}

static bool is_default(const ProtobufCFieldDescriptor *f, const void *at)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING: return !*(char *const *)at || !**(char *const *)at;
    case PROTOBUF_C_TYPE_BYTES: return ((const ProtobufCBinaryData *)at)->len == 0;
    case PROTOBUF_C_TYPE_MESSAGE: return *(ProtobufCMessage *const *)at == NULL;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64: return *(const uint64_t *)at == 0;
    default: return *(const uint32_t *)at == 0;
    }
}

static bool is_present(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    const uint8_t *base = (const uint8_t *)m;
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return *(const size_t *)(const void *)(base + f->quantifier_offset) > 0;
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        return *(const uint32_t *)(const void *)(base + f->quantifier_offset) == f->id;
    return !is_default(f, base + f->offset);
}

static void pack_message(const ProtobufCMessage *m, struct buf *out)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;
    const uint8_t *base = (const uint8_t *)m;
    uint32_t count = 0;
    for (unsigned i = 0; i < d->n_fields; i++)
        count += is_present(m, &d->fields[i]);
    pack_map(out, count);
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        if (!is_present(m, f))
            continue;
        pack_cstr(out, f->name);
        if (f->label != PROTOBUF_C_LABEL_REPEATED) {
            pack_value(f, base + f->offset, out);
            continue;
        }
        size_t items = *(const size_t *)(const void *)(base + f->quantifier_offset);
        const uint8_t *array = *(uint8_t *const *)(const void *)(base + f->offset);
        pack_array(out, (uint32_t)items);
        for (size_t k = 0; k < items; k++)
            pack_value(f, array + k * value_size(f), out);
    }
}

int pbmap_from_message(const ProtobufCMessageDescriptor *d, struct slice bytes, struct buf *out)
{
    ProtobufCMessage *m = protobuf_c_message_unpack(d, NULL, bytes.len, bytes.data);
    if (!m)
        return E_MALFORMED;
    pack_message(m, out);
    protobuf_c_message_free_unpacked(m, NULL);
    return 0;
}
