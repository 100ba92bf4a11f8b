/* json_in - JSON text -> protobuf's bytes. A strict reader (RFC 8259): no comments, no trailing commas, UTF-8 only. Accepts for each type
 * what protobuf's JSON mapping lists: 64-bit numbers also as strings, enums by name or number, bytes as base64 of either alphabet, null for
 * "not given". Unknown fields are read and dropped; a field or a oneof given twice is an error. From jsoncall.c.
 * Holds at all times: at <= end; nesting <= JSON_DEPTH_MAX. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/mem.h"
#include "gatewayd/json.h"
#include "proto/pb.h"

struct reader {
    const uint8_t *start, *at, *end;
    struct buf string; /* the last string, escapes resolved */
    unsigned depth;
    char *why;
};

static int read_message(struct reader *r, const ProtobufCMessageDescriptor *type, struct buf *out);

static int bad(struct reader *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
static int bad(struct reader *r, const char *fmt, ...)
{
    char what[160];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    if (r->why == NULL) {
        r->why = xasprintf("invalid JSON at byte %zu: %s", (size_t)(r->at - r->start), what);
    }
    return E_INVALID;
}

static void skip_blanks(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r')) {
        r->at++;
    }
}

/* Takes the byte, blanks in front of it included. */
static bool take(struct reader *r, uint8_t byte)
{
    skip_blanks(r);
    if (r->at < r->end && *r->at == byte) {
        r->at++;
        return true;
    }
    return false;
}

static bool take_word(struct reader *r, const char *word)
{
    size_t len = strlen(word);
    skip_blanks(r);
    if ((size_t)(r->end - r->at) >= len && memcmp(r->at, word, len) == 0) {
        r->at += len;
        return true;
    }
    return false;
}

static int enter(struct reader *r)
{
    return ++r->depth > JSON_DEPTH_MAX ? bad(r, "nested deeper than %d", JSON_DEPTH_MAX) : OK;
}

/* --- strings -------------------------------------------------------------------------------------- */

static int read_hex4(struct reader *r, uint32_t *value)
{
    *value = 0;
    if (r->end - r->at < 4) {
        return bad(r, "incomplete \\u");
    }
    for (int i = 0; i < 4; i++, r->at++) {
        uint8_t b = *r->at;
        uint32_t digit = b >= '0' && b <= '9' ? (uint32_t)(b - '0') : (b | 32) >= 'a' && (b | 32) <= 'f' ? (uint32_t)((b | 32) - 'a' + 10) : 16;
        if (digit == 16) {
            return bad(r, "\\u without four hexadecimal digits");
        }
        *value = 16 * *value + digit;
    }
    return OK;
}

static void add_utf8(struct buf *out, uint32_t c)
{
    if (c < 0x80) {
        buf_add_byte(out, (uint8_t)c);
    } else if (c < 0x800) {
        buf_add_byte(out, (uint8_t)(0xc0 | c >> 6));
        buf_add_byte(out, (uint8_t)(0x80 | (c & 63)));
    } else if (c < 0x10000) {
        buf_add_byte(out, (uint8_t)(0xe0 | c >> 12));
        buf_add_byte(out, (uint8_t)(0x80 | (c >> 6 & 63)));
        buf_add_byte(out, (uint8_t)(0x80 | (c & 63)));
    } else {
        buf_add_byte(out, (uint8_t)(0xf0 | c >> 18));
        buf_add_byte(out, (uint8_t)(0x80 | (c >> 12 & 63)));
        buf_add_byte(out, (uint8_t)(0x80 | (c >> 6 & 63)));
        buf_add_byte(out, (uint8_t)(0x80 | (c & 63)));
    }
}

/* What follows a backslash. */
static int read_escape(struct reader *r)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (r->at == r->end) {
        return bad(r, "unexpected end in a string");
    }
    uint8_t b = *r->at++;
    const char *found = b != '\0' ? strchr(from, b) : NULL;
    if (found != NULL) {
        buf_add_byte(&r->string, (uint8_t)to[found - from]);
        return OK;
    }
    uint32_t c = 0, low = 0;
    if (b != 'u') {
        return bad(r, "unknown escape in a string");
    }
    int err = read_hex4(r, &c);
    if (err == OK && c >= 0xd800 && c <= 0xdfff) {
        if (c > 0xdbff || r->end - r->at < 2 || r->at[0] != '\\' || r->at[1] != 'u') {
            return bad(r, "half a surrogate pair");
        }
        r->at += 2;
        err = read_hex4(r, &low);
        if (err == OK && (low < 0xdc00 || low > 0xdfff)) {
            return bad(r, "half a surrogate pair");
        }
        c = 0x10000 + ((c & 0x3ff) << 10) + (low & 0x3ff);
    }
    if (err == OK) {
        add_utf8(&r->string, c);
    }
    return err;
}

/* Into r->string. */
static int read_string(struct reader *r)
{
    if (!take(r, '"')) {
        return bad(r, "expected a string");
    }
    buf_reset(&r->string);
    for (;;) {
        const uint8_t *from = r->at;
        while (r->at < r->end && *r->at >= 0x20 && *r->at != '"' && *r->at != '\\') {
            r->at++;
        }
        buf_add(&r->string, from, (size_t)(r->at - from));
        if (r->at == r->end) {
            return bad(r, "unexpected end in a string");
        }
        uint8_t b = *r->at++;
        if (b == '"') {
            return slice_is_utf8(buf_slice(&r->string)) ? OK : bad(r, "a string is not UTF-8");
        }
        if (b != '\\') {
            return bad(r, "control character in a string");
        }
        int err = read_escape(r);
        if (err != OK) {
            return err;
        }
    }
}

/* --- numbers -------------------------------------------------------------------------------------- */

static size_t digits_at(const uint8_t *at, const uint8_t *end)
{
    const uint8_t *from = at;
    while (at < end && *at >= '0' && *at <= '9') {
        at++;
    }
    return (size_t)(at - from);
}

/* How long is the number that text begins with, by JSON's grammar? 0: none. */
static size_t number_len(const uint8_t *from, const uint8_t *end)
{
    const uint8_t *at = from;
    if (at < end && *at == '-') {
        at++;
    }
    size_t whole = digits_at(at, end);
    if (whole == 0 || (whole > 1 && *at == '0')) {
        return 0;
    }
    at += whole;
    if (at < end && *at == '.') {
        size_t part = digits_at(at + 1, end);
        if (part == 0) {
            return 0;
        }
        at += 1 + part;
    }
    if (at < end && (*at | 32) == 'e') {
        const uint8_t *sign = at + 1;
        if (sign < end && (*sign == '+' || *sign == '-')) {
            sign++;
        }
        size_t exponent = digits_at(sign, end);
        if (exponent == 0) {
            return 0;
        }
        at = sign + exponent;
    }
    return (size_t)(at - from);
}

/* A number by its grammar whose value is whole ("12", "1.5e1"): its size and its sign. False: it is not, or above 64 bits. */
static bool number_whole(struct slice text, bool *negative, uint64_t *size)
{
    const uint8_t *at = text.data, *end = at + text.len;
    *negative = at < end && *at == '-';
    at += *negative;
    const uint8_t *mark = at;
    while (mark < end && (*mark | 32) != 'e') {
        mark++;
    }
    int64_t exponent = 0;
    if (mark < end) {
        bool minus = mark + 1 < end && mark[1] == '-';
        for (const uint8_t *e = mark + 1; e < end; e++) {
            if (*e >= '0' && *e <= '9' && exponent < 100000000) {
                exponent = 10 * exponent + (*e - '0');
            }
        }
        exponent = minus ? -exponent : exponent;
    }
    bool fraction = false;
    uint64_t n = 0;
    int64_t shift = exponent; /* the digit after the one at hand has this weight, as a power of ten, plus the digits still in front of the point */
    const uint8_t *point = memchr(at, '.', (size_t)(mark - at));
    int64_t left = point != NULL ? point - at : mark - at;
    for (; at < mark; at++) {
        if (*at == '.') {
            fraction = true;
            continue;
        }
        left -= !fraction;
        shift = fraction ? shift - 1 : shift;
        int64_t weight = fraction ? shift : exponent + left;
        unsigned digit = (unsigned)(*at - '0');
        if (digit == 0) {
            continue;
        }
        if (weight < 0 || weight > 19) {
            return false;
        }
        uint64_t value = digit;
        for (int64_t i = 0; i < weight; i++) {
            if (__builtin_mul_overflow(value, 10u, &value)) {
                return false;
            }
        }
        if (__builtin_add_overflow(n, value, &n)) {
            return false;
        }
    }
    *size = n;
    return true;
}

/* An integer of `bits` bits, as a number or as a string of one; as protobuf's varint. */
static int read_integer(struct reader *r, const char *field, unsigned bits, bool is_signed, uint64_t *varint)
{
    skip_blanks(r);
    struct slice text;
    if (r->at < r->end && *r->at == '"') {
        int err = read_string(r);
        if (err != OK) {
            return err;
        }
        text = buf_slice(&r->string);
        if (text.len == 0 || number_len(text.data, text.data + text.len) != text.len) {
            return bad(r, "%s: the string is not a number", field);
        }
    } else {
        text = slice_of(r->at, number_len(r->at, r->end));
        if (text.len == 0) {
            return bad(r, "%s: expected a number", field);
        }
        r->at += text.len;
    }
    bool negative = false;
    uint64_t n = 0;
    if (!number_whole(text, &negative, &n)) {
        return bad(r, "%s: not an integer of %u bits", field, bits);
    }
    uint64_t top = is_signed ? (UINT64_C(1) << (bits - 1)) - !negative : bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    if (n > top || (negative && !is_signed && n != 0)) {
        return bad(r, "%s: out of the range of its type", field);
    }
    *varint = negative ? 0 - n : n;
    return OK;
}

/* --- what is dropped -------------------------------------------------------------------------------- */

/* Any value, of an unknown field. */
static int skip_value(struct reader *r)
{
    skip_blanks(r);
    if (r->at == r->end) {
        return bad(r, "unexpected end");
    }
    uint8_t first = *r->at;
    int err = OK;
    if (first == '"') {
        return read_string(r);
    }
    if (first == '{' || first == '[') {
        uint8_t last = first == '{' ? '}' : ']';
        r->at++;
        if ((err = enter(r)) != OK) {
            return err;
        }
        for (bool more = !take(r, last); more; more = !take(r, last)) {
            if (first == '{' && ((err = read_string(r)) != OK || (!take(r, ':') && (err = bad(r, "expected \":\"")) != OK))) {
                return err;
            }
            if ((err = skip_value(r)) != OK) {
                return err;
            }
            if (!take(r, ',')) {
                if (!take(r, last)) {
                    return bad(r, "expected \",\" or \"%c\"", last);
                }
                break;
            }
            skip_blanks(r);
            if (r->at < r->end && *r->at == last) {
                return bad(r, "\",\" in front of \"%c\"", last);
            }
        }
        r->depth--;
        return OK;
    }
    if (take_word(r, "true") || take_word(r, "false") || take_word(r, "null")) {
        return OK;
    }
    size_t len = number_len(r->at, r->end);
    r->at += len;
    return len > 0 ? OK : bad(r, "expected a value");
}

/* --- fields ----------------------------------------------------------------------------------------- */

static int read_enum(struct reader *r, const ProtobufCFieldDescriptor *f, uint64_t *varint)
{
    const ProtobufCEnumDescriptor *names = f->descriptor;
    skip_blanks(r);
    if (r->at == r->end || *r->at != '"') {
        return read_integer(r, f->name, 32, true, varint);
    }
    int err = read_string(r);
    if (err != OK) {
        return err;
    }
    for (unsigned i = 0; i < names->n_values; i++) {
        if (slice_eq(buf_slice(&r->string), slice_str(names->values[i].name))) {
            *varint = (uint64_t)(int64_t)names->values[i].value;
            return OK;
        }
    }
    return bad(r, "%s: unknown value of %s", f->name, names->short_name);
}

/* A number, bool or enum, as its varint. */
static int read_scalar(struct reader *r, const ProtobufCFieldDescriptor *f, uint64_t *varint)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32: return read_integer(r, f->name, 32, true, varint);
    case PROTOBUF_C_TYPE_UINT32: return read_integer(r, f->name, 32, false, varint);
    case PROTOBUF_C_TYPE_INT64: return read_integer(r, f->name, 64, true, varint);
    case PROTOBUF_C_TYPE_UINT64: return read_integer(r, f->name, 64, false, varint);
    case PROTOBUF_C_TYPE_ENUM: return read_enum(r, f, varint);
    case PROTOBUF_C_TYPE_BOOL:
        *varint = take_word(r, "true");
        return *varint != 0 || take_word(r, "false") ? OK : bad(r, "%s: expected true or false", f->name);
    default: must(false); /* the API has no other types; test_json.c looks at all of them */
    }
    return E_INVALID;
}

/* Puts a length in front of what was appended from `from` on. */
static void add_length(struct buf *out, size_t from)
{
    size_t len = out->len - from, head = pb_varint_size(len);
    buf_extend(out, head);
    memmove(out->data + from + head, out->data + from, len);
    pb_put_varint(out->data + from, len);
}

static void add_tag(struct buf *out, const ProtobufCFieldDescriptor *f, enum pb_wire wire)
{
    uint8_t bytes[10];
    buf_add(out, bytes, (size_t)(pb_put_varint(bytes, (uint64_t)f->id << 3 | (uint64_t)wire) - bytes));
}

static int read_value(struct reader *r, const ProtobufCFieldDescriptor *f, bool keep_zero, struct buf *out)
{
    int err = OK;
    size_t before = out->len;
    if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        add_tag(out, f, PB_BYTES);
        size_t from = out->len;
        err = read_message(r, f->descriptor, out);
        if (err == OK) {
            add_length(out, from);
        }
    } else if (f->type == PROTOBUF_C_TYPE_BYTES || f->type == PROTOBUF_C_TYPE_STRING) {
        err = read_string(r);
        add_tag(out, f, PB_BYTES);
        size_t from = out->len;
        if (err == OK && f->type == PROTOBUF_C_TYPE_STRING) {
            buf_add_slice(out, buf_slice(&r->string));
        } else if (err == OK && json_base64_decode(buf_slice(&r->string), out) != OK) {
            err = bad(r, "%s: not base64", f->name);
        }
        if (out->len == from && !keep_zero) {
            out->len = before;
        } else {
            add_length(out, from);
        }
    } else {
        uint64_t varint = 0;
        err = read_scalar(r, f, &varint);
        if (err == OK && (varint != 0 || keep_zero)) {
            uint8_t bytes[10];
            add_tag(out, f, PB_VARINT);
            buf_add(out, bytes, (size_t)(pb_put_varint(bytes, varint) - bytes));
        }
    }
    return err;
}

static int read_array(struct reader *r, const ProtobufCFieldDescriptor *f, struct buf *out)
{
    int err = take(r, '[') ? enter(r) : bad(r, "%s: expected an array", f->name);
    if (err != OK || take(r, ']')) {
        r->depth -= err == OK;
        return err;
    }
    do {
        if ((err = read_value(r, f, true, out)) != OK) {
            return err;
        }
    } while (take(r, ','));
    r->depth--;
    return take(r, ']') ? OK : bad(r, "%s: expected \",\" or \"]\"", f->name);
}

bool json_name_is(const char *field_name, struct slice key)
{
    if (slice_eq(slice_str(field_name), key)) {
        return true;
    }
    size_t n = 0;
    bool upper = false;
    for (const char *at = field_name; *at != '\0'; at++) {
        if (*at == '_') {
            upper = true;
            continue;
        }
        uint8_t want = (uint8_t)(upper && *at >= 'a' && *at <= 'z' ? *at - 'a' + 'A' : *at);
        upper = false;
        if (n == key.len || key.data[n++] != want) {
            return false;
        }
    }
    return n == key.len;
}

/* --- messages ----------------------------------------------------------------------------------------- */

static bool is_oneof(const ProtobufCFieldDescriptor *f) { return (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0; }

/* The value of the key in r->string. seen: one bit per field of type. */
static int read_field(struct reader *r, const ProtobufCMessageDescriptor *type, uint64_t *seen, struct buf *out)
{
    unsigned i = 0;
    while (i < type->n_fields && !json_name_is(type->fields[i].name, buf_slice(&r->string))) {
        i++;
    }
    if (i == type->n_fields) {
        return skip_value(r);
    }
    const ProtobufCFieldDescriptor *f = &type->fields[i];
    if ((*seen & UINT64_C(1) << i) != 0) {
        return bad(r, "%s: given twice", f->name);
    }
    *seen |= UINT64_C(1) << i;
    if (take_word(r, "null")) {
        return OK;
    }
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        return read_array(r, f, out);
    }
    for (unsigned k = 0; is_oneof(f) && k < type->n_fields; k++) {
        const ProtobufCFieldDescriptor *other = &type->fields[k];
        if (k != i && (*seen & UINT64_C(1) << k) != 0 && is_oneof(other) && other->quantifier_offset == f->quantifier_offset) {
            return bad(r, "%s: only one of it and %s can be given", f->name, other->name);
        }
    }
    return read_value(r, f, is_oneof(f), out);
}

static int read_message(struct reader *r, const ProtobufCMessageDescriptor *type, struct buf *out)
{
    must(type->n_fields <= 64);
    int err = take(r, '{') ? enter(r) : bad(r, "expected an object (%s)", type->short_name);
    if (err != OK || take(r, '}')) {
        r->depth -= err == OK;
        return err;
    }
    uint64_t seen = 0;
    do {
        if ((err = read_string(r)) != OK) {
            return err;
        }
        if (!take(r, ':')) {
            return bad(r, "expected \":\"");
        }
        if ((err = read_field(r, type, &seen, out)) != OK) {
            return err;
        }
    } while (take(r, ','));
    r->depth--;
    return take(r, '}') ? OK : bad(r, "expected \",\" or \"}\"");
}

int json_decode(const ProtobufCMessageDescriptor *type, struct slice text, struct buf *out, char **why)
{
    /* An empty text may come without an address. */
    const uint8_t *from = text.len > 0 ? text.data : (const uint8_t *)"";
    struct reader r = {.start = from, .at = from, .end = from + text.len};
    size_t before = out->len;
    skip_blanks(&r);
    int err = r.at == r.end ? OK : read_message(&r, type, out);
    if (err != OK) {
        out->len = before;
        *why = r.why;
    } else {
        free(r.why);
    }
    buf_fini(&r.string);
    return err;
}

/* --- streams of values ----------------------------------------------------------------------------------- */

size_t json_cut(struct json_cut *c, struct slice text)
{
    for (; c->seen < text.len; c->seen++) {
        uint8_t b = text.data[c->seen];
        if (c->in_string) {
            c->in_string = c->escaped || b != '"';
            c->escaped = !c->escaped && b == '\\';
        } else if (!c->begun) {
            if (b == ' ' || b == '\t' || b == '\n' || b == '\r') {
                continue;
            }
            if (b != '{') {
                return text.len;
            }
            c->begun = true;
            c->depth = 1;
        } else if (b == '"') {
            c->in_string = true;
        } else if (b == '{' || b == '[') {
            c->depth++;
        } else if ((b == '}' || b == ']') && --c->depth == 0) {
            return ++c->seen;
        }
    }
    return 0;
}
