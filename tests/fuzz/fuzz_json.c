/* fuzz_json - JSON from anybody, as a message of the type that byte 0 picks. What is accepted must be a message of its type, and what
 * is written of that must be accepted again, with the same bytes written the second time. The rest as protobuf: what encodes must decode. */
#include <stdlib.h>

#include "common/err.h"
#include "common/limits.h"
#include "gatewayd/json.h"
#include "gatewayd/jsonmap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void again(const ProtobufCMessageDescriptor *type, struct slice message)
{
    struct buf text = BUF_INIT, bytes = BUF_INIT, text2 = BUF_INIT;
    char *why = NULL;
    if (json_encode(type, message, JSON_TEXT_BYTES_MAX, &text) == OK) {
        must(json_decode(type, buf_slice(&text), &bytes, &why) == OK);
        must(json_encode(type, buf_slice(&bytes), JSON_TEXT_BYTES_MAX, &text2) == OK);
        must(slice_eq(buf_slice(&text), buf_slice(&text2)));
    }
    buf_fini(&text);
    buf_fini(&bytes);
    buf_fini(&text2);
}

static void cut(struct slice text)
{
    struct json_cut c = {0};
    for (size_t n; (n = json_cut(&c, text)) > 0; c = (struct json_cut){0}) {
        must(n <= text.len);
        text = slice_of(text.data + n, text.len - n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 20000) {
        return 0;
    }
    struct json_method m = json_method_at(data[0] / 2 % json_method_count());
    const ProtobufCMessageDescriptor *type = data[0] % 2 == 0 ? m.input : m.output;
    struct slice rest = slice_of(data + 1, size - 1);
    struct buf bytes = BUF_INIT;
    char *why = NULL;
    if (json_decode(type, rest, &bytes, &why) == OK) {
        ProtobufCMessage *message = protobuf_c_message_unpack(type, NULL, bytes.len, bytes.data);
        must(message != NULL);
        protobuf_c_message_free_unpacked(message, NULL);
        again(type, buf_slice(&bytes));
    } else {
        must(why != NULL && bytes.len == 0);
        free(why);
    }
    again(type, rest);
    cut(rest);
    buf_fini(&bytes);
    return 0;
}
