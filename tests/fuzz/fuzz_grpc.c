/* fuzz_grpc - the bytes of one call's stream: framing, messages, and every handler of the gateway. Input: byte 0 the method,
 * byte 1 the length of a DATA frame, the rest the stream's data, inside HTTP/2 frames that are correct. */
#include "common/buf.h"
#include "common/err.h"
#include "gatewayd/gatewayd.h"
#include "gatewayd/h2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct conf conf;
static struct gatewayd g;

static void no_wake(void *arg) { UNUSED(arg); }

static void begin(void)
{
    static bool begun;
    if (!begun) {
        begun = true;
        conf_init(&conf);
        gatewayd_init(&g, &conf, loop_new());
        identity_on_auth(&g, &(struct fr_auth){.enabled = 0});
        watch_start(&g);
        g.has_leader = true;
    }
}

static void frame(struct buf *out, size_t len, uint8_t type, uint8_t flags, uint8_t stream)
{
    uint8_t head[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, type, flags, 0, 0, 0, stream};
    buf_add(out, head, sizeof(head));
}

/* A literal header field without indexing, with names and values shorter than 127 bytes. */
static void field(struct buf *out, const char *name, const char *value)
{
    struct slice n = slice_str(name), v = slice_str(value);
    buf_add_byte(out, 0);
    buf_add_byte(out, (uint8_t)n.len);
    buf_add_slice(out, n);
    buf_add_byte(out, (uint8_t)v.len);
    buf_add_slice(out, v);
}

static void request(struct buf *out, const char *path, const uint8_t *data, size_t size, size_t piece)
{
    struct buf fields = BUF_INIT;
    field(&fields, ":method", "POST");
    field(&fields, ":scheme", "http");
    field(&fields, ":path", path);
    field(&fields, ":authority", "x");
    field(&fields, "content-type", "application/grpc");
    buf_add_str(out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    frame(out, 0, 4, 0, 0);
    frame(out, fields.len, 1, 4, 1);
    buf_add_slice(out, buf_slice(&fields));
    buf_fini(&fields);
    for (size_t off = 0; off < size; off += piece) {
        size_t n = piece < size - off ? piece : size - off;
        frame(out, n, 0, 0, 1);
        buf_add(out, data + off, n);
    }
    frame(out, 0, 0, 1, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 200000) {
        return 0;
    }
    begin();
    struct h2 *h = h2_new(&g, no_wake, NULL);
    struct buf in = BUF_INIT, out = BUF_INIT;
    request(&in, route_at(data[0] % route_count())->path, data + 2, size - 2, data[1] != 0 ? data[1] : 16384);
    must(h2_receive(h, buf_slice(&in)) == OK);
    must(h2_write(h, &out, SIZE_MAX) == OK);
    must(out.len > 0);
    /* Whatever is on its way round the ring times out; the call hears it. */
    pending_expire(&g, UINT64_MAX);
    must(g.pending.count == 0 && g.pending.bytes == 0);
    must(h2_write(h, &out, SIZE_MAX) == OK);
    h2_free(h);
    buf_fini(&in);
    buf_fini(&out);
    must(g.call_count == 0 && g.inbound_bytes == 0 && g.outbound_bytes == 0);
    return 0;
}
