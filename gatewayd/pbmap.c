/* pbmap - see pbmap.h. Reads hostile maps: a count is believed only as far as bytes follow (proto/pack.h), the depth
 * has a limit, and nothing is allocated but the output, which is at most a dozen times the input (a one-byte -1 is ten
 * bytes of varint). */
#include "gatewayd/pbmap.h"

#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "proto/pack.h"
#include "proto/pb.h"

/* A map inside a map inside a map: a transaction's worth of nesting, three levels of map for each of its own. */
#define PBMAP_DEPTH_MAX (3 * TXN_DEPTH_MAX)

static int message_to_wire(const ProtobufCMessageDescriptor *d, struct slice *in, uint32_t count, const char *skip,
                           unsigned depth, struct buf *out, struct buf *why);

static const ProtobufCFieldDescriptor *field_by_name(const ProtobufCMessageDescriptor *d, struct slice name)
{
    for (unsigned i = 0; i < d->n_fields; i++)
        if (slice_eq(slice_str(d->fields[i].name), name))
            return &d->fields[i];
    return NULL;
}

void pbmap_quote(struct buf *text, struct slice word)
{
    buf_add_byte(text, '"');
    for (size_t i = 0; i < word.len && i < 64; i++)
        buf_add_byte(text, word.data[i] >= 0x20 && word.data[i] < 0x7f ? word.data[i] : '?');
    buf_add_byte(text, '"');
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
static int value_to_wire(const ProtobufCFieldDescriptor *f, struct slice *in, bool always, unsigned depth,
                         struct buf *out, struct buf *why)
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

static int message_to_wire(const ProtobufCMessageDescriptor *d, struct slice *in, uint32_t count, const char *skip,
                           unsigned depth, struct buf *out, struct buf *why)
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
            buf_add_str(why, "unknown field ");
            pbmap_quote(why, name);
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
            if ((err = value_to_wire(f, in, repeated || (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF), depth, out, why)) !=
                0)
                return err;
    }
    return 0;
}

int pbmap_to_message(const ProtobufCMessageDescriptor *d, struct slice *in, uint32_t count, const char *skip,
                     struct buf *out, struct buf *why)
{
    return message_to_wire(d, in, count, skip, 0, out, why);
}

/* --- the other way ----------------------------------------------------------------------------
 * From wire bytes to msgpack without a tree in between: a range answer of many small pairs, unpacked, would take ten
 * times its bytes. A map begins with its count, so each message is looked through first and written second. */

#define FIELDS_MAX 32 /* no message of the API has more */

/* What one message's bytes hold of each field of its descriptor. */
struct found {
    uint32_t count[FIELDS_MAX];       /* of values; 0: the field is left out */
    struct pb_field last[FIELDS_MAX]; /* the last one, which is the one that counts unless the field is repeated */
};

static bool is_number(const ProtobufCFieldDescriptor *f)
{
    return f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_BYTES && f->type != PROTOBUF_C_TYPE_MESSAGE;
}

static bool is_repeated(const ProtobufCFieldDescriptor *f)
{
    return f->label == PROTOBUF_C_LABEL_REPEATED;
}

/* Repeated numbers may come packed: varints end to end in one field. Takes one off; false at the end or when malformed.
 */
static bool take_packed(struct slice *in, uint64_t *v)
{
    uint64_t n = 0;
    for (size_t i = 0; i < in->len && i < 10; i++) {
        n |= (uint64_t)(in->data[i] & 0x7f) << (7 * i);
        if (in->data[i] < 0x80) {
            *v = n;
            *in = slice_of(in->data + i + 1, in->len - i - 1);
            return true;
        }
    }
    return false;
}

static int note_field(const ProtobufCMessageDescriptor *d, unsigned pos, const struct pb_field *field,
                      struct found *found)
{
    const ProtobufCFieldDescriptor *f = &d->fields[pos];
    enum pb_wire wanted = is_number(f) ? PB_VARINT : PB_BYTES;
    if (is_number(f) && is_repeated(f) && field->wire == PB_BYTES) {
        struct slice packed = field->bytes;
        uint64_t v;
        while (take_packed(&packed, &v))
            found->count[pos]++;
        return packed.len ? E_MALFORMED : 0;
    }
    if (field->wire != wanted)
        return E_MALFORMED;
    found->last[pos] = *field;
    if (is_repeated(f)) {
        found->count[pos]++;
        return 0;
    }
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        for (unsigned i = 0; i < d->n_fields; i++) /* the last branch wins, even with its default */
            if ((d->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
                d->fields[i].quantifier_offset == f->quantifier_offset)
                found->count[i] = 0;
        found->count[pos] = 1;
        return 0;
    }
    found->count[pos] =
        f->type == PROTOBUF_C_TYPE_MESSAGE || (wanted == PB_VARINT ? field->varint != 0 : field->bytes.len != 0);
    return 0;
}

static unsigned pos_of(const ProtobufCMessageDescriptor *d, uint32_t number)
{
    unsigned i = 0;
    while (i < d->n_fields && d->fields[i].id != number)
        i++;
    return i;
}

static int look_through(const ProtobufCMessageDescriptor *d, struct slice bytes, struct found *found)
{
    struct pb_field field;
    int rv;
    must(d->n_fields <= FIELDS_MAX);
    memset(found->count, 0, sizeof(found->count));
    while ((rv = pb_next(&bytes, &field)) == 1) {
        unsigned pos = pos_of(d, field.number); /* a field of a later version is passed over */
        if (pos < d->n_fields && (rv = note_field(d, pos, &field, found)) != 0)
            return rv;
    }
    return rv;
}

static int pack_message(const ProtobufCMessageDescriptor *d, struct slice bytes, unsigned depth, struct buf *out);

static void pack_number(const ProtobufCFieldDescriptor *f, uint64_t v, struct buf *out)
{
    const ProtobufCEnumValue *value;
    switch (f->type) {
    case PROTOBUF_C_TYPE_BOOL:
        pack_bool(out, v != 0);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        value = protobuf_c_enum_descriptor_get_value(f->descriptor, (int32_t)v);
        if (value)
            pack_cstr(out, value->name);
        else
            pack_i64(out, (int32_t)v);
        break;
    case PROTOBUF_C_TYPE_UINT64:
        pack_u64(out, v);
        break;
    case PROTOBUF_C_TYPE_UINT32:
        pack_u64(out, (uint32_t)v);
        break;
    case PROTOBUF_C_TYPE_INT32:
        pack_i64(out, (int32_t)v);
        break;
    default:
        pack_i64(out, (int64_t)v);
        break;
    }
}

static int pack_value(const ProtobufCFieldDescriptor *f, const struct pb_field *field, unsigned depth, struct buf *out)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
        pack_str(out, field->bytes);
        return 0;
    case PROTOBUF_C_TYPE_BYTES:
        pack_bin(out, field->bytes);
        return 0;
    case PROTOBUF_C_TYPE_MESSAGE:
        return pack_message(f->descriptor, field->bytes, depth + 1, out);
    default:
        pack_number(f, field->varint, out);
        return 0;
    }
}

static int pack_list(const ProtobufCFieldDescriptor *f, struct slice bytes, unsigned depth, struct buf *out)
{
    struct pb_field field;
    int err = 0;
    while (!err && pb_next(&bytes, &field) == 1) {
        if (field.number != f->id)
            continue;
        if (is_number(f) && field.wire == PB_BYTES) {
            while (take_packed(&field.bytes, &field.varint))
                pack_number(f, field.varint, out);
        } else {
            err = pack_value(f, &field, depth, out);
        }
    }
    return err;
}

static int pack_message(const ProtobufCMessageDescriptor *d, struct slice bytes, unsigned depth, struct buf *out)
{
    struct found found;
    uint32_t count = 0;
    int err = depth > PBMAP_DEPTH_MAX ? E_TOO_BIG : look_through(d, bytes, &found);
    if (err)
        return err;
    for (unsigned i = 0; i < d->n_fields; i++)
        count += found.count[i] > 0;
    pack_map(out, count);
    for (unsigned i = 0; i < d->n_fields && !err; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        if (!found.count[i])
            continue;
        pack_cstr(out, f->name);
        if (is_repeated(f)) {
            pack_array(out, found.count[i]);
            err = pack_list(f, bytes, depth, out);
        } else {
            err = pack_value(f, &found.last[i], depth, out);
        }
    }
    return err;
}

int pbmap_from_message(const ProtobufCMessageDescriptor *d, struct slice bytes, struct buf *out)
{
    size_t before = out->len;
    int err = pack_message(d, bytes, 0, out);
    if (err)
        out->len = before;
    return err;
}
