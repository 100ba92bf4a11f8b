/* command - the envelope around an API message in the log and in queries.
 * Made by gatewayd (and by stored for what it proposes itself), carried by raftd without a look inside, opened by
 * stored. The bytes are what the log keeps: a change of the layout needs a new COMMAND_VERSION, and the old one
 * must stay readable for as long as logs with it may exist.
 *
 *      command = array [version, kind, origin, slot, instance, req, user: bin, auth_rev, body: bin] */
#include "proto/command.h"

#include "common/err.h"
#include "common/limits.h"
#include "proto/pack.h"
#include "proto/pack_put.h"

#define COMMAND_FIELDS 9
#define COMMAND_INTS 7

void command_encode(struct buf *out, const struct command *c)
{
    buf_reserve(out, 3 * PACK_HEAD_BYTES_MAX + COMMAND_INTS * PACK_INT_BYTES_MAX + c->user.len + c->body.len);

    uint8_t *at = out->data + out->len;
    at = pack_put_array(at, COMMAND_FIELDS);
    at = pack_put_uint64(at, COMMAND_VERSION);
    at = pack_put_uint64(at, c->kind);
    at = pack_put_uint64(at, c->origin);
    at = pack_put_uint64(at, c->slot);
    at = pack_put_uint64(at, c->instance);
    at = pack_put_uint64(at, c->req);
    at = pack_put_slice(at, c->user);
    at = pack_put_uint64(at, c->auth_rev);
    at = pack_put_slice(at, c->body);
    out->len = (size_t)(at - out->data);
}

/* The fields behind the version, in order; what is left of *in is the caller's to judge. */
static int decode_fields(struct slice *in, struct command *c)
{
    uint64_t *const numbers[] = {&c->kind, &c->origin, &c->slot, &c->instance, &c->req};
    int err = 0;

    for (size_t i = 0; err == 0 && i < ARRAY_LEN(numbers); i++)
        err = unpack_u64(in, numbers[i]);
    if (err == 0)
        err = unpack_bytes(in, FRAME_FIELD_BYTES_MAX, &c->user);
    if (err == 0)
        err = unpack_u64(in, &c->auth_rev);
    if (err == 0)
        err = unpack_bytes(in, FRAME_FIELD_BYTES_MAX, &c->body);
    return err;
}

int command_decode(struct slice bytes, struct command *c)
{
    struct command got;
    uint32_t count;
    uint64_t version;
    int err = unpack_array(&bytes, UINT32_MAX, &count);

    if (err == 0 && count == 0)
        err = E_MALFORMED;
    if (err == 0)
        err = unpack_u64(&bytes, &version);
    if (err < 0)
        return err;
    /* The version first: another one may have another number of fields. */
    if (version != COMMAND_VERSION)
        return E_VERSION;
    if (count != COMMAND_FIELDS)
        return E_MALFORMED;
    err = decode_fields(&bytes, &got);
    if (err < 0)
        return err;
    if (bytes.len > 0)
        return E_TRAILING;
    *c = got;
    return 0;
}

#define COMMAND_NAME(NAME, number, body, is_write) \
    case number: \
        return #NAME;

const char *command_name(uint64_t kind)
{
    switch (kind) {
        COMMANDS(COMMAND_NAME)
    default:
        return "?";
    }
}
