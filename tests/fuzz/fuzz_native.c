/* fuzz_native - what comes in at the native door: a request in msgpack, or (first byte odd) the protobuf of an answer
 * that becomes a map. What is taken is a message for protobuf's generated code too, and as a map and back it is the
 * same message. */
#include <stdlib.h>

#include "common/err.h"
#include "common/limits.h"
#include "gatewayd/native_op.h"
#include "gatewayd/pbmap.h"
#include "proto/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *bytes_of(const struct buf *b)
{
    return b->data ? b->data : (const uint8_t *)"";
}

/* A map of ours is read again, and says the same. */
static void check_map(const ProtobufCMessageDescriptor *d, const struct buf *map)
{
    struct slice in = buf_slice(map);
    struct buf wire = BUF_INIT, again = BUF_INIT, why = BUF_INIT;
    uint32_t count;
    must(unpack_map(&in, UINT32_MAX, &count) == 0);
    must(pbmap_to_message(d, &in, count, NULL, &wire, &why) == 0 && in.len == 0);
    ProtobufCMessage *m = protobuf_c_message_unpack(d, NULL, wire.len, bytes_of(&wire));
    must(m != NULL);
    protobuf_c_message_free_unpacked(m, NULL);
    must(pbmap_from_message(d, slice_of(bytes_of(&wire), wire.len), &again) == 0);
    must(slice_eq(buf_slice(&again), buf_slice(map)));
    buf_fini(&wire);
    buf_fini(&again);
    buf_fini(&why);
}

static void request(struct slice bytes)
{
    const struct native_op *op = NULL;
    struct buf body = BUF_INIT, why = BUF_INIT, map = BUF_INIT;
    int err = native_op_read(bytes, 2 * MIB, &op, &body, &why);
    must((err == 0) == (op != NULL));
    for (size_t i = 0; i < why.len; i++)
        must(why.data[i] >= 0x20 && why.data[i] < 0x7f);
    if (!err) {
        ProtobufCMessage *m = protobuf_c_message_unpack(op->request, NULL, body.len, bytes_of(&body));
        must(m != NULL);
        protobuf_c_message_free_unpacked(m, NULL);
        err = pbmap_from_message(op->request, slice_of(bytes_of(&body), body.len), &map);
        must(err == 0);
        check_map(op->request, &map);
    }
    buf_fini(&body);
    buf_fini(&why);
    buf_fini(&map);
}

static void answer(size_t pick, struct slice bytes)
{
    const struct native_op *op = native_op_at(pick % native_op_count());
    const ProtobufCMessageDescriptor *d = op->response ? op->response : op->request;
    struct buf map = BUF_INIT;
    if (pbmap_from_message(d, bytes, &map) == 0)
        check_map(d, &map);
    else
        must(map.len == 0);
    buf_fini(&map);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] % 2)
        answer(data[0] / 2, slice_of(data + 1, size - 1));
    else
        request(slice_of(data + 1, size - 1));
    return 0;
}
