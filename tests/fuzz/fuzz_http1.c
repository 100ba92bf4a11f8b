/* fuzz_http1 - HTTP/1.1 from anybody, the JSON gateway behind it: the parser, and a connection that gets the bytes in pieces
 * (byte 0: their length). Siblings are away. */
#include "common/buf.h"
#include "common/err.h"
#include "gatewayd/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct conf conf;
static struct gatewayd g;

static void no_wake(void *arg) { UNUSED(arg); }

static void feed(const uint8_t *data, size_t size, size_t piece, struct buf *out)
{
    struct http1 *h = http1_new(&g, no_wake, NULL);
    for (size_t off = 0; off < size; off += piece) {
        if (http1_receive(h, slice_of(data + off, piece < size - off ? piece : size - off)) != OK) {
            break;
        }
        http1_write(h, out, SIZE_MAX);
    }
    http1_free(h);
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
    if (size < 1 || size > 20000) {
        return 0;
    }
    struct http1_request r;
    int n = http1_parse_head(slice_of(data + 1, size - 1), &r);
    must(n <= (int)size - 1);
    if (n > 0) {
        must(r.path.len > 0 && r.path.data[0] == '/');
    }
    struct buf out = BUF_INIT;
    feed(data + 1, size - 1, data[0] != 0 ? data[0] : size, &out);
    buf_fini(&out);
    must(g.pending.count == 0 && g.call_count == 0 && g.inbound_bytes == 0 && g.outbound_bytes == 0);
    return 0;
}
