/* fuzz_ws - a WebSocket from anybody: after a good handshake the bytes come in pieces (byte 0: their length); bit 7 of byte 1 makes
 * them frames that are masked with zeros, so that messages arrive whole and reach the JSON gateway. Siblings are away. */
#include "common/buf.h"
#include "common/err.h"
#include "gatewayd/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct conf conf;
static struct gatewayd g;
static struct buf out;

#define HANDSHAKE " HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

static void no_wake(void *arg) { UNUSED(arg); }

static void feed(struct http1 *h, const uint8_t *data, size_t size, size_t piece)
{
    for (size_t off = 0; off < size && !http1_is_finished(h); off += piece) {
        if (http1_receive(h, slice_of(data + off, MIN(piece, size - off))) != OK) {
            return;
        }
        buf_reset(&out);
        http1_write(h, &out, SIZE_MAX);
    }
}

static void feed_frame(struct http1 *h, const uint8_t *data, size_t size, size_t piece)
{
    struct buf frame = BUF_INIT;
    buf_add_byte(&frame, 0x81);
    buf_add_byte(&frame, 0xfe);
    buf_add_byte(&frame, (uint8_t)(size >> 8));
    buf_add_byte(&frame, (uint8_t)size);
    buf_add(&frame, "\0\0\0\0", 4);
    buf_add(&frame, data, size);
    feed(h, frame.data, frame.len, piece);
    buf_fini(&frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool begun;
    if (!begun) {
        begun = true;
        conf_init(&conf);
        gatewayd_init(&g, &conf, loop_new());
        g.find = route_find;
        identity_on_auth(&g, &(struct fr_auth){.enabled = 0});
        watch_start(&g);
    }
    if (size < 2 || size > 20000) {
        return 0;
    }
    struct http1 *h = http1_new(&g, no_wake, NULL);
    must(http1_receive(h, data[1] % 2 == 0 ? SLICE_LIT("GET /v3/watch" HANDSHAKE) : SLICE_LIT("GET /v3/lease/keepalive" HANDSHAKE)) == OK);
    http1_write(h, &out, SIZE_MAX);
    size_t piece = data[0] != 0 ? data[0] : size;
    if ((data[1] & 0x80) != 0 && size - 2 >= 126) {
        feed_frame(h, data + 2, size - 2, piece);
    } else {
        feed(h, data + 2, size - 2, piece);
    }
    http1_free(h);
    must(g.call_count == 0 && g.inbound_bytes == 0 && g.outbound_bytes == 0 && g.pending.count == 0);
    buf_fini(&out);
    return 0;
}
