/* pbmap - API messages as msgpack maps and back, by descriptor: the native door's translation.
 * A map's keys are the proto's field names. bytes are msgpack bin or str, text is str, enums are written as names and
 * read as names or numbers, sub-messages are maps, repeated fields arrays; a oneof's branches are plain keys. Fields
 * with their default value are left out, as in protobuf itself. */
#ifndef GATEWAYD_PBMAP_H
#define GATEWAYD_PBMAP_H

#include <protobuf-c/protobuf-c.h>

#include "common/buf.h"

/* Takes count key-value pairs off *in and appends the message's wire bytes. Skips the key named skip (NULL: none). On
 * an error appends one sentence that names the field to why and returns E_INVALID, or what the unpacking said. */
int pbmap_to_message(const ProtobufCMessageDescriptor *d, struct slice *in, uint32_t count, const char *skip,
                     struct buf *out, struct buf *why);

/* Appends the map. E_MALFORMED if bytes are not such a message, E_TOO_BIG if they nest too deeply; then nothing is
 * appended. Of a singular field that comes twice the last one counts. */
int pbmap_from_message(const ProtobufCMessageDescriptor *d, struct slice bytes, struct buf *out);

/* Appends "word" for an error's text, with what is not printable as a question mark. */
void pbmap_quote(struct buf *text, struct slice word);

#endif
