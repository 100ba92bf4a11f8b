/* json - messages of the API as JSON and back, by their descriptors. Pure: text in, protobuf's bytes out, or the other way round; the
 * rules are spec/surface.md §1. From and to jsoncall.c.
 *
 * There is no tree in between: a field goes from text to bytes as it is read. So nothing is allocated that is not as large as what
 * the client sent, 64-bit numbers keep all their bits, and base64 is decoded straight into its place. */
#ifndef GATEWAYD_JSON_H
#define GATEWAYD_JSON_H

#include <protobuf-c/protobuf-c.h>

#include "common/buf.h"

/* The first JSON value of text as a message of this type, appended to out. What comes after that value is not looked at; a text without
 * any value is the empty message (both as etcd's gateway has it). E_INVALID: *why (given) says what is wrong and where; out is as before. */
int json_decode(const ProtobufCMessageDescriptor *type, struct slice text, struct buf *out, char **why);

/* The message as JSON, appended to out. E_MALFORMED: not a message of this type; E_TOO_BIG: its text would be longer than
 * bytes_max. On failure out has what was written until then. */
int json_encode(const ProtobufCMessageDescriptor *type, struct slice message, size_t bytes_max, struct buf *out);

/* A string in its quotes; what is not UTF-8 becomes U+FFFD. */
void json_add_string(struct buf *out, struct slice text);

/* Cuts a stream of values: where does the first one end? Remembers how far it has looked, so that text may grow between two calls. */
struct json_cut {
    size_t seen; /* bytes looked at */
    unsigned depth;
    bool begun, in_string, escaped;
};
/* Length of what belongs to the first value, blanks in front included; 0: not complete. After it: *c = (struct json_cut){0}. A value
 * that is no object is all of the rest: no message begins like that, and decoding it says so. */
size_t json_cut(struct json_cut *c, struct slice text);

/* base64, either alphabet, with or without padding, CR and LF left out. */
int json_base64_decode(struct slice text, struct buf *out);
void json_base64_encode(struct slice bytes, struct buf *out);

/* Does the key name this field: as the proto has it (create_revision), or in lowerCamelCase (createRevision)? */
bool json_name_is(const char *field_name, struct slice key);

#endif
