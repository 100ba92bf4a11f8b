/* rig - a gateway's HTTP/2 side with no sockets: an nghttp2 client session on one end, gatewayd/h2.c on the other, and handlers of the
 * test's own. rig_pump moves bytes both ways until nobody has any. Included by the tests that need it. */
#ifndef TESTS_GATEWAYD_RIG_H
#define TESTS_GATEWAYD_RIG_H

#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <nghttp2/nghttp2.h>

#include "common/err.h"
#include "gatewayd/grpc.h"
#include "gatewayd/h2.h"

#define RIG_CALLS_MAX 4096

/* What the client has heard of one stream. */
struct rig_call {
    int32_t id;
    int http_status;  /* 0: none yet */
    int grpc_status;  /* -1: none yet */
    char message[256]; /* grpc-message as on the wire */
    struct buf body;  /* with prefixes */
    bool closed;
    uint32_t reset;   /* error code of the close */
    /* to send */
    struct buf out;
    size_t out_off;
    size_t frame_max; /* bytes per DATA frame; 0: as many as fit */
    bool end;         /* END_STREAM after out */
};

struct rig {
    struct conf conf;
    struct loop *loop;
    struct gatewayd g;
    struct h2 *h;
    nghttp2_session *client;
    struct buf to_server;
    struct buf to_client;
    struct rig_call calls[RIG_CALLS_MAX]; /* by (stream id - 1) / 2 */
    bool server_failed;  /* h2_receive or h2_write said so */
    bool stop_reading;   /* the client reads nothing */
    uint32_t goaway;     /* error code; UINT32_MAX: none */
    char goaway_text[64];
    size_t chunk;        /* bytes per h2_receive; 0: all */
};

/* --- handlers: what they saw, and what they do ---------------------------------------------------------------- */

static struct {
    struct call *call;      /* last one that got a message */
    size_t messages;
    struct buf last;        /* bytes of the last message */
    size_t half_closes, writables, closeds;
    struct slice answer;    /* echo answers this instead of the message, if data is not NULL */
    bool pause;             /* pause the call at its next message */
} seen;

static void seen_reset(void)
{
    buf_fini(&seen.last);
    memset(&seen, 0, sizeof(seen));
}

static void note(struct call *c, struct slice bytes)
{
    seen.call = c;
    seen.messages++;
    buf_reset(&seen.last);
    buf_add_slice(&seen.last, bytes);
    if (seen.pause) {
        seen.pause = false;
        call_pause(c, true);
    }
}

static void echo(struct call *c, struct slice bytes)
{
    note(c, bytes);
    call_reply(c, seen.answer.data != NULL ? seen.answer : bytes);
}

static void fail(struct call *c, struct slice bytes)
{
    note(c, bytes);
    call_fail(c, E_EMPTY_KEY, NULL);
}

static void echo_stream(struct call *c, struct slice bytes)
{
    note(c, bytes);
    call_send(c, bytes, NULL, 0);
}

static void seen_half_close(struct call *c)
{
    seen.half_closes++;
    call_end(c, OK, NULL);
}

static void seen_writable(struct call *c)
{
    UNUSED(c);
    seen.writables++;
}

static void seen_closed(struct call *c)
{
    UNUSED(c);
    seen.closeds++;
}

static const struct call_handler rig_handlers[] = {
    {"/t.T/Echo", "t.T", "Echo", false, false, echo, NULL, seen_writable, seen_closed},
    {"/t.T/Fail", "t.T", "Fail", false, false, fail, NULL, NULL, seen_closed},
    {"/t.T/Hold", "t.T", "Hold", false, false, note, NULL, seen_writable, seen_closed},
    {"/t.T/Stream", "t.T", "Stream", true, true, echo_stream, seen_half_close, seen_writable, seen_closed},
    {"/t.T/Open", "t.T", "Open", true, true, note, NULL, seen_writable, seen_closed},
};

static const struct call_handler *rig_find(struct slice path)
{
    for (size_t i = 0; i < ARRAY_LEN(rig_handlers); i++) {
        if (slice_eq(path, slice_str(rig_handlers[i].path))) {
            return &rig_handlers[i];
        }
    }
    return NULL;
}

/* --- the client ---------------------------------------------------------------------------------------------------- */

static struct rig_call *rig_call_of(struct rig *r, int32_t id)
{
    size_t pos = (size_t)(id - 1) / 2;
    cr_assert(pos < RIG_CALLS_MAX);
    return &r->calls[pos];
}

static int rig_on_header(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *name, size_t name_len, const uint8_t *value,
                         size_t value_len, uint8_t flags, void *arg)
{
    UNUSED(s);
    UNUSED(flags);
    struct rig_call *c = rig_call_of(arg, f->hd.stream_id);
    struct slice n = slice_of(name, name_len);
    char text[256] = "";
    memcpy(text, value, MIN(value_len, sizeof(text) - 1));
    if (slice_eq(n, SLICE_LIT(":status"))) {
        c->http_status = atoi(text);
    } else if (slice_eq(n, SLICE_LIT("grpc-status"))) {
        c->grpc_status = atoi(text);
    } else if (slice_eq(n, SLICE_LIT("grpc-message"))) {
        memcpy(c->message, text, sizeof(text));
    }
    return 0;
}

static int rig_on_data(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
    UNUSED(s);
    UNUSED(flags);
    buf_add(&rig_call_of(arg, id)->body, data, len);
    return 0;
}

static int rig_on_close(nghttp2_session *s, int32_t id, uint32_t code, void *arg)
{
    UNUSED(s);
    struct rig_call *c = rig_call_of(arg, id);
    c->closed = true;
    c->reset = code;
    return 0;
}

static int rig_on_frame(nghttp2_session *s, const nghttp2_frame *f, void *arg)
{
    UNUSED(s);
    struct rig *r = arg;
    if (f->hd.type == NGHTTP2_GOAWAY) {
        r->goaway = f->goaway.error_code;
        size_t n = MIN(f->goaway.opaque_data_len, sizeof(r->goaway_text) - 1);
        if (n > 0) { /* else there may be no bytes to point at; so below */
            memcpy(r->goaway_text, f->goaway.opaque_data, n);
        }
        r->goaway_text[n] = '\0';
    }
    return 0;
}

static ssize_t rig_send(nghttp2_session *s, const uint8_t *data, size_t len, int flags, void *arg)
{
    UNUSED(s);
    UNUSED(flags);
    buf_add(&((struct rig *)arg)->to_server, data, len);
    return (ssize_t)len;
}

static ssize_t rig_body(nghttp2_session *s, int32_t id, uint8_t *buf, size_t len, uint32_t *flags, nghttp2_data_source *source,
                        void *arg)
{
    UNUSED(s);
    UNUSED(source);
    struct rig_call *c = rig_call_of(arg, id);
    size_t n = MIN(len, c->out.len - c->out_off);
    if (c->frame_max != 0) {
        n = MIN(n, c->frame_max);
    }
    if (n == 0 && !c->end) {
        return NGHTTP2_ERR_DEFERRED;
    }
    if (n > 0) {
        memcpy(buf, c->out.data + c->out_off, n);
    }
    c->out_off += n;
    if (c->end && c->out_off == c->out.len) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    return (ssize_t)n;
}

static void rig_wants_write(void *arg) { UNUSED(arg); }

static struct rig *rig_new(void)
{
    struct rig *r = xcalloc(1, sizeof(*r));
    seen_reset();
    conf_init(&r->conf);
    r->loop = loop_new();
    gatewayd_init(&r->g, &r->conf, r->loop);
    r->g.find = rig_find;
    identity_on_auth(&r->g, &(struct fr_auth){.enabled = 0, .auth_rev = 1});
    r->goaway = UINT32_MAX;
    for (size_t i = 0; i < RIG_CALLS_MAX; i++) {
        r->calls[i].grpc_status = -1;
    }
    r->h = h2_new(&r->g, rig_wants_write, r);
    nghttp2_session_callbacks *cb;
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_send_callback(cb, rig_send);
    nghttp2_session_callbacks_set_on_header_callback(cb, rig_on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, rig_on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, rig_on_close);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, rig_on_frame);
    nghttp2_session_client_new(&r->client, cb, r);
    nghttp2_session_callbacks_del(cb);
    nghttp2_submit_settings(r->client, NGHTTP2_FLAG_NONE, NULL, 0);
    return r;
}

static void rig_free(struct rig *r)
{
    h2_free(r->h);
    cr_expect_eq(r->g.call_count, 0);
    cr_expect_eq(r->g.inbound_bytes, 0);
    cr_expect_eq(r->g.outbound_bytes, 0);
    nghttp2_session_del(r->client);
    buf_fini(&r->to_server);
    buf_fini(&r->to_client);
    for (size_t i = 0; i < RIG_CALLS_MAX; i++) {
        buf_fini(&r->calls[i].body);
        buf_fini(&r->calls[i].out);
    }
    gatewayd_fini(&r->g);
    loop_free(r->loop);
    conf_fini(&r->conf);
    seen_reset();
    free(r);
}

/* One exchange of everything; returns whether anything moved. */
static bool rig_step(struct rig *r)
{
    bool moved = false;
    nghttp2_session_send(r->client);
    for (size_t off = 0; off < r->to_server.len && !r->server_failed;) {
        size_t n = r->chunk != 0 ? MIN(r->chunk, r->to_server.len - off) : r->to_server.len;
        r->server_failed = h2_receive(r->h, slice_of(r->to_server.data + off, n)) != OK;
        off += n;
        moved = true;
    }
    buf_reset(&r->to_server);
    size_t before = r->to_client.len;
    h2_write(r->h, &r->to_client, before + 65536);
    moved |= r->to_client.len > before;
    if (!r->stop_reading && r->to_client.len > 0) {
        nghttp2_session_mem_recv(r->client, r->to_client.data, r->to_client.len);
        buf_reset(&r->to_client);
        moved = true;
    }
    return moved;
}

static void rig_pump(struct rig *r)
{
    while (rig_step(r)) {
    }
}

/* Appends a gRPC frame to what the call sends. */
static void rig_message(struct rig_call *c, const void *data, size_t len)
{
    uint8_t prefix[5] = {0, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
    buf_add(&c->out, prefix, 5);
    buf_add(&c->out, data, len);
}

/* Starts a call; the body is what rig_message put into the returned call afterwards. extra: one more header, or NULL. */
static struct rig_call *rig_start(struct rig *r, const char *path, const char *extra_name, const char *extra_value)
{
    const char *fields[][2] = {{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "x"},
        {"content-type", "application/grpc"}, {"te", "trailers"}, {extra_name, extra_value}};
    nghttp2_nv nva[7];
    size_t count = extra_name != NULL ? 7 : 6;
    for (size_t i = 0; i < count; i++) {
        nva[i] = (nghttp2_nv){(uint8_t *)(uintptr_t)fields[i][0], (uint8_t *)(uintptr_t)fields[i][1], strlen(fields[i][0]),
            strlen(fields[i][1]), NGHTTP2_NV_FLAG_NONE};
    }
    nghttp2_data_provider provider = {.read_callback = rig_body};
    int32_t id = nghttp2_submit_request(r->client, NULL, nva, count, &provider, NULL);
    cr_assert(id > 0);
    struct rig_call *c = rig_call_of(r, id);
    c->id = id;
    return c;
}

/* A whole unary call. */
static inline struct rig_call *rig_unary(struct rig *r, const char *path, const char *message)
{
    struct rig_call *c = rig_start(r, path, NULL, NULL);
    rig_message(c, message, strlen(message));
    c->end = true;
    rig_pump(r);
    return c;
}

static inline void rig_resume(struct rig *r, struct rig_call *c)
{
    nghttp2_session_resume_data(r->client, c->id);
    rig_pump(r);
}

static void expect_body(const struct rig_call *c, const char *message)
{
    size_t len = strlen(message);
    cr_assert_eq(c->body.len, 5 + len);
    cr_expect_eq(c->body.data[0], 0);
    cr_expect_eq((size_t)(c->body.data[3] << 8 | c->body.data[4]), len);
    cr_expect(memcmp(c->body.data + 5, message, len) == 0);
}

#endif
