/* ws - WebSocket (RFC 6455) on a connection that http1.c has switched over. From jsoncall.c and back. wslay does the frames, masks,
 * fragments, pings and close codes; here are its limits and the handshake.
 * Holds at all times: a message being received is at most WS_MESSAGE_BYTES_MAX (else close code 1009). */
#include "gatewayd/ws.h"

#include <stdlib.h>
#include <string.h>

#include <wslay/wslay.h>

#include <openssl/sha.h>

#include "common/err.h"
#include "common/limits.h"
#include "gatewayd/json.h"

/* Messages that wait for the client: more come of pings only, one for each. */
#define WS_QUEUED_MAX 16384

struct ws {
    wslay_event_context_ptr context;
    void (*message)(void *arg, struct slice text);
    void *arg;
    struct slice in;     /* during ws_receive */
    struct buf *out;     /* during ws_write */
    size_t out_max;
    bool failed;
    bool close_wanted; /* by us, after the messages that are queued: wslay would send it first, and them never */
    bool close_queued;
};

void ws_accept_of(struct slice key, char accept[29])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t hash[SHA_DIGEST_LENGTH];
    struct buf text = BUF_INIT, base64 = BUF_INIT;
    buf_add_slice(&text, key);
    buf_add_str(&text, guid);
    SHA1(text.data, text.len, hash);
    json_base64_encode(slice_of(hash, sizeof(hash)), &base64);
    must(base64.len == 28);
    memcpy(accept, base64.data, 28);
    accept[28] = '\0';
    buf_fini(&text);
    buf_fini(&base64);
}

/* --- wslay's callbacks ----------------------------------------------------------------------------- */

static ssize_t recv_cb(wslay_event_context_ptr context, uint8_t *to, size_t len, int flags, void *arg)
{
    UNUSED(flags);
    struct ws *s = arg;
    if (s->in.len == 0) {
        wslay_event_set_error(context, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    size_t n = MIN(len, s->in.len);
    memcpy(to, s->in.data, n);
    s->in = slice_of(s->in.data + n, s->in.len - n);
    return (ssize_t)n;
}

static ssize_t send_cb(wslay_event_context_ptr context, const uint8_t *data, size_t len, int flags, void *arg)
{
    UNUSED(flags);
    struct ws *s = arg;
    if (s->out == NULL || s->out->len >= s->out_max) {
        wslay_event_set_error(context, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    buf_add(s->out, data, len);
    return (ssize_t)len;
}

static void message_cb(wslay_event_context_ptr context, const struct wslay_event_on_msg_recv_arg *m, void *arg)
{
    UNUSED(context);
    struct ws *s = arg;
    if (!wslay_is_ctrl_frame(m->opcode) && !s->close_wanted) {
        s->message(s->arg, slice_of(m->msg, m->msg_length));
    }
}

/* --- life ------------------------------------------------------------------------------------------- */

/* The token that came as a protocol (jsoncall.c) must be answered by one that was offered. */
static void accept_protocol(struct web *w)
{
    struct slice p = w->socket_protocol;
    static const char word[] = "Bearer";
    if (p.len < sizeof(word) - 1 || memcmp(p.data, word, sizeof(word) - 1) != 0) {
        return;
    }
    web_header(w, "Sec-WebSocket-Protocol", word);
}

struct ws *ws_new(struct web *w, void (*message)(void *arg, struct slice text), void *arg)
{
    struct ws *s = xcalloc(1, sizeof(*s));
    struct wslay_event_callbacks callbacks = {.recv_callback = recv_cb, .send_callback = send_cb, .on_msg_recv_callback = message_cb};
    must(wslay_event_context_server_init(&s->context, &callbacks, s) == 0);
    wslay_event_config_set_max_recv_msg_length(s->context, WS_MESSAGE_BYTES_MAX);
    s->message = message;
    s->arg = arg;
    char accept[29];
    ws_accept_of(w->socket_key, accept);
    web_header(w, "Upgrade", "websocket");
    web_header(w, "Sec-WebSocket-Accept", accept);
    accept_protocol(w);
    w->status = 101;
    w->started = true;
    w->carrier->switch_protocol(w);
    return s;
}

void ws_free(struct ws *s)
{
    if (s != NULL) {
        wslay_event_context_free(s->context);
        free(s);
    }
}

int ws_receive(struct ws *s, struct slice bytes)
{
    s->in = bytes;
    int rv = s->failed ? -1 : wslay_event_recv(s->context);
    s->in = SLICE_EMPTY;
    if (rv != 0 || wslay_event_get_queued_msg_count(s->context) > WS_QUEUED_MAX) {
        s->failed = true;
        return E_MALFORMED;
    }
    return OK;
}

static void queue(struct ws *s, uint8_t opcode, struct slice text)
{
    struct wslay_event_msg m = {.opcode = opcode, .msg = text.data, .msg_length = text.len};
    if (wslay_event_queue_msg(s->context, &m) != 0) {
        s->failed = true; /* a close is under way: nothing may follow it */
    }
}

void ws_send(struct ws *s, struct slice text)
{
    if (!s->failed && !s->close_wanted && !wslay_event_get_close_received(s->context)) {
        queue(s, WSLAY_TEXT_FRAME, text);
    }
}

size_t ws_queued(const struct ws *s)
{
    if (s->failed) {
        return 0;
    }
    size_t bytes = wslay_event_get_queued_msg_length(s->context);
    return bytes > 0 ? bytes : wslay_event_want_write(s->context) != 0 || (s->close_wanted && !s->close_queued);
}

void ws_write(struct ws *s, struct buf *out, size_t max)
{
    s->out = out;
    s->out_max = out->len + max;
    bool sent = !wslay_event_want_write(s->context) || wslay_event_send(s->context) == 0;
    if (sent && s->close_wanted && !s->close_queued && wslay_event_get_queued_msg_count(s->context) == 0) {
        s->close_queued = true;
        wslay_event_queue_close(s->context, WSLAY_CODE_NORMAL_CLOSURE, NULL, 0);
        sent = wslay_event_send(s->context) == 0;
    }
    s->failed |= !sent;
    s->out = NULL;
}

void ws_close(struct ws *s) { s->close_wanted = true; }

bool ws_is_closed(const struct ws *s)
{
    if (s->failed) {
        return true;
    }
    bool quiet = !wslay_event_want_write(s->context);
    return quiet && (wslay_event_get_close_sent(s->context) || !wslay_event_want_read(s->context));
}
