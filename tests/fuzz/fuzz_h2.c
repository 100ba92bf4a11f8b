/* fuzz_h2 - whatever a client may send: bytes into a server connection with no socket, the gateway's own routes behind
 * it, siblings away. The first byte cuts the input into pieces; the preface is ours, so that the fuzzer does not have to find it.
 * Afterwards everything must be given back. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    begin();
    struct h2 *h = h2_new(&g, no_wake, NULL);
    struct buf out = BUF_INIT;
    int err = h2_receive(h, SLICE_LIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    size_t piece = data[0] != 0 ? data[0] : size;
    for (size_t off = 1; off < size && err == OK; off += piece) {
        err = h2_receive(h, slice_of(data + off, piece < size - off ? piece : size - off));
        buf_reset(&out);
        if (h2_write(h, &out, 65536) != OK) {
            break;
        }
    }
    h2_free(h);
    buf_fini(&out);
    must(g.call_count == 0 && g.inbound_bytes == 0 && g.outbound_bytes == 0);
    while (g.pending.first != NULL) { /* what was proposed for a client that is gone */
        pending_cancel(&g, g.pending.first->req);
    }
    must(g.pending.bytes == 0);
    return 0;
}
