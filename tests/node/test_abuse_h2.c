/* abuse_h2 - what HTTP/2 lets a client do to a server, over a real node: floods, bombs, windows that stay closed, frames where they do
 * not belong. After each, a well-behaved client is served as before (tests/lib/witness.h), memory is where it was, and what has a
 * counter was counted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/api.h"
#include "proto/pb.h"
#include "tests/lib/raw.h"
#include "tests/lib/witness.h"

#define KV "/etcdserverpb.KV/"
#define FLOOD "trine_gateway_dropped_total{reason=\"flood\"}"
#define MALFORMED "trine_gateway_dropped_total{reason=\"malformed\"}"
#define UNREAD "trine_gateway_dropped_total{reason=\"unread\"}"
#define ENHANCE_YOUR_CALM 11
/* Memory that a daemon may have gained by what was bounded by less. */
#define SLACK_MIB 60

static struct node node;
static struct witness witness;
static struct buf out, block, body;

/* A request's HEADERS frame; end: no message follows. */
static void request_add(uint32_t stream, const char *path, bool end)
{
    buf_reset(&block);
    h2_request(&block, path);
    h2_frame(&out, H2_HEADERS, H2_END_HEADERS | (end ? H2_END_STREAM : 0), stream, buf_slice(&block));
}

static struct slice range_body(const char *key, const char *end)
{
    buf_reset(&body);
    api_encode_range(&body, &(struct api_range){.key = slice_str(key), .range_end = slice_str(end), .serializable = true});
    return buf_slice(&body);
}

/* The session still answers: one range, one status. */
static bool still_answers(struct raw_h2 *h, uint32_t stream)
{
    request_add(stream, KV "Range", false);
    h2_message(&out, stream, H2_END_STREAM, range_body("witness", ""));
    h->grpc_status = H2_NOTHING;
    return h2_send(h, &out) && h2_read(h, &h->ended, h->ended + 1, 5000) && h->grpc_status == 0;
}

static void half_a_preface(void)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for (size_t n = 1; n < sizeof(preface) - 1; n += 5) {
        int fd = raw_connect(&node);
        raw_send(fd, slice_of(preface, n));
        close(fd);
    }
    int fd = raw_connect(&node);
    raw_send_str(fd, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    CHECK(raw_closed(fd, NULL, 3000), "a preface that goes wrong");
    close(fd);
    struct raw_h2 h;
    int64_t before = node_metric(&node, MALFORMED);
    h2_open(&h, &node);
    buf_add_str(&out, "\xff\xff\xff\xff this is not a frame");
    h2_send(&h, &out);
    CHECK(h2_read(&h, NULL, 0, 3000) && h.goaway == 6, "FRAME_SIZE_ERROR, got %lld", (long long)h.goaway);
    CHECK(node_metric(&node, MALFORMED) > before);
    h2_close(&h);
    witness_check(&witness, "half a preface");
}

static void rapid_reset(void)
{
    struct raw_h2 h;
    int64_t before = node_metric(&node, FLOOD);
    h2_open(&h, &node);
    bool open = true;
    for (uint32_t i = 0; i < 30000 && open; i++) {
        request_add(2 * i + 1, KV "Range", false);
        h2_message(&out, 2 * i + 1, H2_END_STREAM, range_body("a", "b"));
        buf_reset(&body);
        h2_u32(&body, 8);
        h2_frame(&out, H2_RST_STREAM, 0, 2 * i + 1, buf_slice(&body));
        if (out.len > 60000)
            open = h2_send(&h, &out);
    }
    buf_reset(&out);
    h2_read(&h, NULL, 0, 5000);
    CHECK(h.closed, "the rate of resets has a limit");
    CHECK(h.goaway == H2_NOTHING || h.goaway == ENHANCE_YOUR_CALM || h.goaway == 2, "%lld", (long long)h.goaway);
    CHECK(node_metric(&node, FLOOD) + node_metric(&node, MALFORMED) > before);
    h2_close(&h);
    witness_check(&witness, "rapid resets");
    CHECK(node_metric(&node, "trine_gateway_calls") == 0 && node_metric(&node, "trine_gateway_pending_requests") <= 1);
}

/* The client does not read, so the answers (SETTINGS ack, PING ack) gather: nghttp2 ends it at 1000. */
static void unread_acks(unsigned type, const char *what)
{
    struct raw_h2 h;
    long rss = node_rss_mib(&node, "gatewayd");
    h2_open(&h, &node);
    bool open = true;
    for (unsigned i = 0; i < 400000 && open; i++) {
        h2_frame(&out, type, 0, 0, type == H2_PING ? SLICE_LIT("12345678") : SLICE_EMPTY);
        if (out.len > 60000)
            open = h2_send(&h, &out);
    }
    buf_reset(&out);
    CHECK(!open, "%s: the connection ends", what);
    CHECK(node_is_sanitized() || node_rss_mib(&node, "gatewayd") < rss + SLACK_MIB, "%s: memory", what);
    h2_close(&h);
    witness_check(&witness, what);
}

static void too_many_pings(void)
{
    struct raw_h2 h;
    int64_t before = node_metric(&node, FLOOD);
    h2_open(&h, &node);
    for (unsigned i = 0; i < 5; i++) {
        h2_frame(&out, H2_PING, 0, 0, SLICE_LIT("12345678"));
        h2_send(&h, &out);
        h2_read(&h, &h.ping_acks, i + 1, 1000);
    }
    CHECK(h2_read(&h, NULL, 0, 3000) && h.goaway == ENHANCE_YOUR_CALM && strcmp(h.goaway_text, "too_many_pings") == 0, "%lld \"%s\"", (long long)h.goaway,
          h.goaway_text);
    CHECK(node_metric(&node, FLOOD) == before + 1);
    h2_close(&h);
    witness_check(&witness, "pings");
}

static void continuations(void)
{
    struct raw_h2 h;
    long rss = node_rss_mib(&node, "gatewayd");
    char value[4000];
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    h2_open(&h, &node);
    buf_reset(&block);
    h2_request(&block, KV "Range");
    h2_frame(&out, H2_HEADERS, 0, 1, buf_slice(&block));
    bool open = true;
    for (int i = 0; i < 5000 && open; i++) {
        buf_reset(&block);
        h2_field(&block, "x-more", value);
        h2_frame(&out, H2_CONTINUATION, 0, 1, buf_slice(&block));
        if (out.len > 60000)
            open = h2_send(&h, &out);
    }
    buf_reset(&out);
    h2_read(&h, NULL, 0, 3000);
    CHECK(h.closed, "a header list of 20 MB in CONTINUATION frames");
    h2_close(&h);

    h2_open(&h, &node);
    request_add(1, KV "Range", false);
    h2_frame(&out, H2_CONTINUATION, H2_END_HEADERS, 1, SLICE_EMPTY);
    h2_send(&h, &out);
    CHECK(h2_read(&h, NULL, 0, 3000) && h.goaway == 1, "CONTINUATION out of place");
    h2_close(&h);

    h2_open(&h, &node);
    for (int i = 0; i < 200000 && h2_read(&h, NULL, 0, 0) == false; i++) { /* empty ones cost nothing to send */
        if (i == 0) {
            buf_reset(&block);
            h2_frame(&out, H2_HEADERS, 0, 1, SLICE_EMPTY);
        }
        h2_frame(&out, H2_CONTINUATION, 0, 1, SLICE_EMPTY);
        if (out.len > 60000 && !h2_send(&h, &out))
            break;
    }
    buf_reset(&out);
    h2_read(&h, NULL, 0, 3000);
    CHECK(h.closed, "empty CONTINUATION frames");
    h2_close(&h);
    CHECK(node_is_sanitized() || node_rss_mib(&node, "gatewayd") < rss + SLACK_MIB);
    witness_check(&witness, "continuations");
}

static void header_bombs(void)
{
    struct raw_h2 h;
    long rss = node_rss_mib(&node, "gatewayd");
    /* One entry of 4000 bytes in the dynamic table, then 1000 streams that name it 15 times a byte: each a list of 60 MB. */
    char value[3900];
    memset(value, 'b', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    h2_open(&h, &node);
    buf_reset(&block);
    h2_request(&block, KV "Range");
    size_t plain = block.len;
    h2_field(&block, "x-bomb", value);
    block.data[plain] = 0x40; /* with indexing */
    h2_frame(&out, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, 1, buf_slice(&block));
    for (uint32_t i = 1; i <= 200; i++) {
        buf_reset(&block);
        h2_request(&block, KV "Range");
        for (int k = 0; k < 15000; k++)
            buf_add_byte(&block, 0x80 | 62);
        h2_frame(&out, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, 2 * i + 1, buf_slice(&block));
        if (!h2_send(&h, &out))
            break;
    }
    h2_read(&h, &h.resets, 200, 3000);
    CHECK(h.closed || h.resets >= 200, "header lists of 60 MB: %u streams were reset", h.resets);
    h2_close(&h);
    CHECK(node_is_sanitized() || node_rss_mib(&node, "gatewayd") < rss + SLACK_MIB);

    /* An index that is not there; a table size beyond what is allowed; an integer without end. */
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {{"\xff\xff\xff\xff\xff\xff\xff\xff\xff", 9}, {"\x3f\xe1\xff\xff\xff\x07", 6}, {"\xc5", 1}, {"\x00\x7f\xff\xff\xff\xff\x0f", 7}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        h2_open(&h, &node);
        h2_frame(&out, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, 1, slice_of(bad[i].bytes, bad[i].len));
        h2_send(&h, &out);
        CHECK(h2_read(&h, NULL, 0, 3000) && h.goaway == 9, "HPACK case %zu: COMPRESSION_ERROR, got %lld", i, (long long)h.goaway);
        h2_close(&h);
    }
    witness_check(&witness, "header bombs");
}

static void fill_store(void)
{
    struct gclient *c = node_connect(&node);
    char *value = malloc(100001);
    memset(value, 'x', 100000);
    value[100000] = '\0';
    for (int i = 0; i < 200; i++) { /* 20 MB below big/, 3 x 100 kB below mid/ */
        char key[32];
        snprintf(key, sizeof(key), "%s/%03d", i < 3 ? "mid" : "big", i);
        buf_reset(&body);
        api_encode_put(&body, &(struct api_put){.key = slice_str(key), .value = slice_str(value)});
        must(gclient_unary(c, KV "Put", buf_slice(&body), NULL, NULL, 10000) == 0);
    }
    free(value);
    gclient_free(c);
}

/* SETTINGS_INITIAL_WINDOW_SIZE 0. */
static void close_windows(void)
{
    buf_reset(&body);
    buf_add(&body, "\0\4", 2);
    h2_u32(&body, 0);
    h2_frame(&out, H2_SETTINGS, 0, 0, buf_slice(&body));
}

static void closed_windows(const char *key, const char *end, unsigned calls, const char *what)
{
    struct raw_h2 h;
    long gateway = node_rss_mib(&node, "gatewayd"), stored = node_rss_mib(&node, "stored");
    int64_t unread = node_metric(&node, UNREAD);
    h2_open(&h, &node);
    close_windows();
    for (uint32_t i = 0; i < calls; i++) {
        request_add(2 * i + 1, KV "Range", false);
        h2_message(&out, 2 * i + 1, H2_END_STREAM, range_body(key, end));
        if (out.len > 60000)
            h2_send(&h, &out);
    }
    h2_send(&h, &out);
    h2_read(&h, &h.responses, calls, 30000);
    CHECK(!h.closed && h.responses >= calls && h.data_bytes == 0, "%s: %u of %u began", what, h.responses, calls);
    long gained = node_rss_mib(&node, "gatewayd") - gateway, stored_gained = node_rss_mib(&node, "stored") - stored;
    CHECK(node_is_sanitized() || gained < 64 + 2 * SLACK_MIB, "%s: gatewayd holds %ld MiB more", what, gained);
    CHECK(node_is_sanitized() || stored_gained < 64 + 2 * SLACK_MIB, "%s: stored holds %ld MiB more", what, stored_gained);
    CHECK(node_metric(&node, UNREAD) > unread, "%s: refusals are counted", what);
    witness_check(&witness, what);
    h2_close(&h);
    for (int i = 0; i < 50 && node_metric(&node, "trine_gateway_queued_bytes") > 0; i++)
        usleep(50000);
    CHECK(node_metric(&node, "trine_gateway_queued_bytes") == 0, "%s: all is given back", what);
}

/* Neither does the client read its socket. */
static void never_reads(void)
{
    struct raw_h2 h;
    long rss = node_rss_mib(&node, "gatewayd");
    h2_open(&h, &node);
    buf_reset(&body);
    h2_u32(&body, 0x7fff0000 - 65535);
    struct buf window = body;
    body = BUF_INIT;
    h2_frame(&out, H2_WINDOW_UPDATE, 0, 0, buf_slice(&window));
    buf_reset(&window);
    buf_add(&window, "\0\4", 2);
    h2_u32(&window, 0x7fffffff);
    h2_frame(&out, H2_SETTINGS, 0, 0, buf_slice(&window));
    buf_fini(&window);
    for (uint32_t i = 0; i < 3000; i++) {
        request_add(2 * i + 1, KV "Range", false);
        h2_message(&out, 2 * i + 1, H2_END_STREAM, range_body("mid/", "mid0"));
    }
    h2_send(&h, &out);
    buf_reset(&out);
    usleep(1500000);
    long gained = node_rss_mib(&node, "gatewayd") - rss;
    CHECK(node_is_sanitized() || gained < 64 + 2 * SLACK_MIB, "gatewayd holds %ld MiB more", gained);
    witness_check(&witness, "a client that never reads");
    h2_close(&h);
}

static void windows(void)
{
    struct raw_h2 h;
    h2_open(&h, &node);
    request_add(1, KV "Put", false);
    buf_reset(&body);
    h2_u32(&body, 0x7fffffff);
    h2_frame(&out, H2_WINDOW_UPDATE, 0, 1, buf_slice(&body));
    h2_send(&h, &out);
    CHECK(h2_read(&h, &h.resets, 1, 3000) && h.reset_code == 3, "a stream's window overflows: FLOW_CONTROL_ERROR");
    CHECK(still_answers(&h, 3), "and the connection goes on");
    buf_reset(&body);
    h2_u32(&body, 0x7fffffff);
    h2_frame(&out, H2_WINDOW_UPDATE, 0, 0, buf_slice(&body));
    h2_send(&h, &out);
    CHECK(h2_read(&h, NULL, 0, 3000) && h.goaway == 3, "the connection's window overflows: %lld", (long long)h.goaway);
    h2_close(&h);

    h2_open(&h, &node); /* more data than the stream's window of 256 KiB, on a stream that takes none: KeepAlive does not read it */
    request_add(1, "/etcdserverpb.Watch/Watch", false);
    h2_send(&h, &out);
    char *junk = calloc(1, 16384);
    bool open = true;
    for (int i = 0; i < 200 && open; i++) {
        h2_frame(&out, H2_DATA, 0, 1, slice_of(junk, 16384));
        open = h2_send(&h, &out);
    }
    free(junk);
    buf_reset(&out);
    h2_read(&h, &h.ended, 1, 2000);
    /* A server that gives windows back as fast as it reads sees no rule broken: these are empty messages, which mean nothing. */
    CHECK(h.closed || h.ended || h.resets || still_answers(&h, 3), "data against the window's rules, or not messages at all");
    h2_close(&h);
    witness_check(&witness, "windows");
}

static void out_of_place(void)
{
    struct raw_h2 h;
    h2_open(&h, &node);
    CHECK(still_answers(&h, 1));
    for (unsigned type = 10; type < 256; type += 7)
        h2_frame(&out, type, 0xff, type % 3, SLICE_LIT("whatever this is"));
    CHECK(still_answers(&h, 3), "unknown frames are ignored");
    h2_message(&out, 1, H2_END_STREAM, SLICE_LIT("late"));
    h2_send(&h, &out);
    h2_read(&h, &h.resets, 1, 1000);
    CHECK(h.closed || h.resets >= 1 || still_answers(&h, 5), "data on a closed stream");
    h2_close(&h);

    static const struct {
        unsigned type, flags;
        uint32_t stream;
        const char *payload;
        size_t len;
    } bad[] = {
        {H2_DATA, 0, 0, "x", 1},                                 /* stream 0 */
        {H2_DATA, 8, 1, "\xff", 1},                              /* padding longer than the frame */
        {H2_HEADERS, H2_END_HEADERS, 0, "", 0},                  /* stream 0 */
        {H2_HEADERS, H2_END_HEADERS, 2, "\x82", 1},              /* an even stream */
        {H2_RST_STREAM, 0, 7, "\0\0\0\0", 4},                    /* an idle stream */
        {H2_RST_STREAM, 0, 0, "\0\0\0\0", 4},                    /* stream 0 */
        {H2_RST_STREAM, 0, 1, "\0", 1},                          /* length */
        {H2_SETTINGS, 0, 0, "\0\0\0", 3},                        /* length */
        {H2_SETTINGS, H2_ACK, 0, "\0\4\0\0\0\0", 6},             /* an ack with content */
        {H2_SETTINGS, 0, 0, "\0\4\xff\xff\xff\xff", 6},          /* a window above 2^31 */
        {H2_SETTINGS, 0, 0, "\0\5\0\0\0\1", 6},                  /* frames below 16384 */
        {H2_PUSH_PROMISE, H2_END_HEADERS, 1, "\0\0\0\2\x82", 5}, /* not for a client to say */
        {H2_PING, 0, 0, "1234", 4},                              /* length */
        {H2_PING, 0, 1, "12345678", 8},                          /* on a stream */
        {H2_GOAWAY, 0, 0, "\0\0", 2},                            /* length */
        {H2_WINDOW_UPDATE, 0, 0, "\0\0\0\0", 4},                 /* zero */
        {H2_WINDOW_UPDATE, 0, 0, "\0\0", 2},                     /* length */
        {H2_CONTINUATION, H2_END_HEADERS, 1, "", 0},             /* of nothing */
    };
    int64_t before = node_metric(&node, MALFORMED);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        h2_open(&h, &node);
        h2_frame(&out, bad[i].type, bad[i].flags, bad[i].stream, slice_of(bad[i].payload, bad[i].len));
        h2_send(&h, &out);
        CHECK(h2_read(&h, NULL, 0, 3000), "frame %zu ends the connection", i);
        h2_close(&h);
    }
    CHECK(node_metric(&node, MALFORMED) >= before + (int64_t)ARRAY_LEN(bad) - 1);
    witness_check(&witness, "frames out of place");
}

static void many_streams(void)
{
    struct raw_h2 h;
    long rss = node_rss_mib(&node, "gatewayd");
    h2_open(&h, &node);
    for (uint32_t i = 0; i < 20000; i++) { /* requests without a message, left open */
        request_add(2 * i + 1, KV "Put", false);
        if (out.len > 60000)
            h2_send(&h, &out);
    }
    h2_send(&h, &out);
    for (int i = 0; i < 100 && node_metric(&node, "trine_gateway_calls") < 20000; i++)
        usleep(20000);
    CHECK(node_metric(&node, "trine_gateway_calls") >= 20000);
    long gained = node_rss_mib(&node, "gatewayd") - rss;
    CHECK(node_is_sanitized() || gained < SLACK_MIB, "20000 open calls take %ld MiB", gained);
    witness_check(&witness, "20000 streams left open");
    h2_close(&h);
    for (int i = 0; i < 50 && node_metric(&node, "trine_gateway_calls") > 0; i++)
        usleep(20000);
    CHECK(node_metric(&node, "trine_gateway_calls") == 0);
}

int main(void)
{
    node_start(&node, NULL);
    witness_start(&witness, &node);
    half_a_preface();
    rapid_reset();
    unread_acks(H2_SETTINGS, "SETTINGS");
    unread_acks(H2_PING, "PINGs");
    too_many_pings();
    continuations();
    header_bombs();
    out_of_place();
    windows();
    many_streams();
    fill_store();
    closed_windows("mid/", "mid0", 1500, "closed windows, 1500 answers of 300 kB");
    closed_windows("big/", "big0", 300, "closed windows, 300 answers of 20 MB");
    never_reads();
    witness_stop(&witness);
    node_stop(&node);
    return check_summary();
}
