/* jsoncall - the JSON gateway: carries a struct call as h2.c does, with JSON on the other side. From web.c; to grpc.c.
 *
 *   body --json_cut, json_decode--> a gRPC message --grpc_data--> handler
 *   handler --> the call's queue --call_take--> a gRPC message --json_encode--> web_respond, or one line of web_send, or ws_send
 *
 * So handlers, tokens, deadlines and limits are those of gRPC. Answers are taken from the call only while what was said before is
 * nearly taken by the client; until then they wait in the call, as in HTTP/2.
 * Holds at all times: `in` counts in inbound_bytes; `answer` in outbound_bytes; the call is gone (NULL) once its end was said. */
#include "gatewayd/jsoncall.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "gatewayd/grpc.h"
#include "gatewayd/json.h"
#include "gatewayd/jsonmap.h"
#include "gatewayd/ws.h"

#define JSON "application/json"
#define GRPC_INVALID_ARGUMENT 3
#define GRPC_NOT_FOUND 5
#define GRPC_RESOURCE_EXHAUSTED 8
#define GRPC_UNIMPLEMENTED 12
#define GRPC_INTERNAL 13
#define GRPC_UNAVAILABLE 14

struct json_call {
    struct web *web;
    struct call *call; /* NULL: over */
    struct ws *ws;     /* NULL: plain HTTP */
    struct json_method method;
    struct client client; /* as the connection's, without the certificate's name: it is no identity here */
    struct json_cut cut;
    struct buf in;     /* text not yet converted */
    struct buf answer; /* the prefix of the message that is being taken from the call, and its bytes so far */
    size_t answers;    /* bytes that wait in the call, for its limits */
    bool has_many_in;  /* the rpc takes several messages ... */
    bool has_many_out; /* ... or answers several */
    bool body_ended;
    bool writable_due;
};

/* --- errors ---------------------------------------------------------------------------------------- */

void jsoncall_add_error(struct buf *out, int grpc_status, const char *text)
{
    buf_add_str(out, "{\"error\":");
    json_add_string(out, slice_str(text));
    buf_add_str(out, ",\"message\":");
    json_add_string(out, slice_str(text));
    buf_printf(out, ",\"code\":%d}", grpc_status);
}

void jsoncall_add_stream_error(struct buf *out, int grpc_status, const char *text)
{
    int status = web_status_of_grpc(grpc_status);
    buf_printf(out, "{\"error\":{\"grpc_code\":%d,\"http_code\":%d,\"message\":", grpc_status, status);
    json_add_string(out, slice_str(text));
    buf_printf(out, ",\"http_status\":\"%s\",\"code\":%d}}", web_status_text(status), grpc_status);
}

static void respond_error(struct web *w, int grpc_status, const char *text)
{
    struct buf out = BUF_INIT;
    jsoncall_add_error(&out, grpc_status, text);
    web_respond(w, web_status_of_grpc(grpc_status), JSON, buf_slice(&out));
    buf_fini(&out);
}

/* --- what the client hears ---------------------------------------------------------------------------- */

static bool is_line_stream(const struct json_call *j) { return j->has_many_out || j->ws != NULL; }

/* One line, and with it one chunk: python3-etcd3gw takes each chunk for one object. */
static void say_line(struct json_call *j, struct buf *line, int status)
{
    if (j->ws != NULL) {
        ws_send(j->ws, buf_slice(line));
        return;
    }
    if (!j->web->started) {
        web_start(j->web, status, JSON);
    }
    buf_add_str(line, "\n");
    web_send(j->web, buf_slice(line));
}

/* The answer's end: OK, or an error. The call is over. */
static void say_end(struct json_call *j, int grpc_status, const char *text)
{
    struct web *w = j->web;
    if (w->ended) {
        return;
    }
    if (!is_line_stream(j)) {
        must(!w->started);
        respond_error(w, grpc_status != 0 ? grpc_status : GRPC_INTERNAL, grpc_status != 0 ? text : "no answer");
        return;
    }
    struct buf out = BUF_INIT;
    if (grpc_status != 0) {
        jsoncall_add_stream_error(&out, grpc_status, text);
        if (j->ws == NULL && !w->started) { /* all there will be */
            buf_add_str(&out, "\n");
            web_respond(w, web_status_of_grpc(grpc_status), JSON, buf_slice(&out));
            buf_fini(&out);
            return;
        }
        say_line(j, &out, web_status_of_grpc(grpc_status));
        buf_fini(&out);
    }
    if (j->ws != NULL) {
        ws_close(j->ws); /* the connection ends with the client's own close */
        w->carrier->wants_write(w);
        return;
    }
    if (!w->started) {
        web_start(w, 200, JSON);
    }
    web_end(w);
}

static void answer_reset(struct json_call *j)
{
    j->web->gateway->outbound_bytes -= j->answer.len;
    if (j->answer.cap > 64 * KIB) {
        buf_fini(&j->answer);
    } else {
        buf_reset(&j->answer);
    }
}

/* A password in it does not lie about. */
static void wipe(const struct json_call *j, struct buf *b)
{
    if (b->cap > 0 && (j->call == NULL || j->call->handler == NULL || auth_has_secret(j->call->handler))) {
        secret_wipe(b->data, b->cap);
    }
    buf_fini(b);
}

static void in_reset(struct json_call *j)
{
    j->web->gateway->inbound_bytes -= j->in.len;
    wipe(j, &j->in);
    j->cut = (struct json_cut){0};
}

static void call_drop(struct json_call *j)
{
    if (j->call != NULL) {
        struct call *c = j->call;
        j->call = NULL;
        call_close(c);
    }
    answer_reset(j);
    in_reset(j);
}

/* Ends the exchange with an error of our own, whatever the call says. */
static void give_up(struct json_call *j, int grpc_status, const char *text)
{
    call_drop(j);
    say_end(j, grpc_status, text);
}

/* --- from the call to the client ------------------------------------------------------------------------ */

static uint32_t prefix_len(const uint8_t *prefix)
{
    return (uint32_t)prefix[1] << 24 | (uint32_t)prefix[2] << 16 | (uint32_t)prefix[3] << 8 | prefix[4];
}

/* One whole message lies in j->answer. */
static void say_message(struct json_call *j)
{
    struct buf text = BUF_INIT;
    if (is_line_stream(j)) {
        buf_add_str(&text, "{\"result\":");
    }
    int err = json_encode(j->method.output, buf_part(&j->answer, GRPC_PREFIX_BYTES, j->answer.len - GRPC_PREFIX_BYTES), JSON_TEXT_BYTES_MAX, &text);
    answer_reset(j);
    if (err != OK) {
        give_up(j, err == E_TOO_BIG ? GRPC_RESOURCE_EXHAUSTED : GRPC_INTERNAL, err_text(err));
    } else if (is_line_stream(j)) {
        buf_add_byte(&text, '}');
        say_line(j, &text, 200);
    } else {
        web_respond(j->web, 200, JSON, buf_slice(&text));
    }
    buf_fini(&text);
}

/* Takes of the call's queue what belongs to the next message. */
static void take_answer(struct json_call *j)
{
    struct call *c = j->call;
    size_t whole = GRPC_PREFIX_BYTES;
    if (j->answer.len >= GRPC_PREFIX_BYTES) {
        whole += prefix_len(j->answer.data);
    }
    size_t n = MIN(c->queued, whole - j->answer.len);
    call_take(c, buf_extend(&j->answer, n), n);
    j->web->gateway->outbound_bytes += n;
    if (j->answer.len < GRPC_PREFIX_BYTES) {
        return;
    }
    uint32_t len = prefix_len(j->answer.data);
    if (len > JSON_ANSWER_BYTES_MAX) {
        give_up(j, GRPC_RESOURCE_EXHAUSTED, "answer is larger than the JSON gateway converts");
    } else if (j->answer.len == GRPC_PREFIX_BYTES + len) {
        say_message(j);
    }
}

static bool has_room(const struct json_call *j)
{
    return j->ws != NULL ? ws_queued(j->ws) < WS_OUT_BYTES_MAX : j->web->carrier->queued(j->web) < HTTP1_OUT_BYTES_MAX;
}

static void pump_out(struct json_call *j)
{
    while (j->call != NULL && has_room(j)) {
        struct call *c = j->call;
        if (c->queued > 0) {
            take_answer(j);
        } else if (c->over) {
            int status = c->status;
            char *text = xstrdup(c->status_text != NULL ? c->status_text : "");
            call_drop(j);
            say_end(j, status, text);
            free(text);
        } else {
            break;
        }
    }
}

/* --- from the client to the call -------------------------------------------------------------------------- */

static void feed(struct json_call *j, struct slice text)
{
    struct buf frame = BUF_INIT;
    char *why = NULL;
    buf_extend(&frame, GRPC_PREFIX_BYTES);
    if (json_decode(j->method.input, text, &frame, &why) != OK) {
        call_abort(j->call, E_INVALID, why);
        free(why);
    } else {
        size_t len = frame.len - GRPC_PREFIX_BYTES;
        uint8_t prefix[GRPC_PREFIX_BYTES] = {0, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
        memcpy(frame.data, prefix, sizeof(prefix));
        grpc_data(j->call, buf_slice(&frame));
    }
    wipe(j, &frame);
}

/* Gives the call what is complete of j->in, unless it is paused or its user is not known yet. */
static void pump_in(struct json_call *j)
{
    size_t done = 0;
    while (j->call != NULL && !j->call->over && !grpc_is_held(j->call)) {
        struct slice rest = buf_part(&j->in, done, j->in.len - done);
        size_t n = j->has_many_in ? json_cut(&j->cut, rest) : 0;
        if (n > 0) {
            done += n;
            j->cut = (struct json_cut){0};
            feed(j, slice_of(rest.data, n));
            continue;
        }
        if (j->body_ended && !j->call->half_closed) {
            /* One message, or what is left of several: blanks, or a value that was cut off. */
            if (!j->has_many_in || j->cut.begun) {
                feed(j, rest);
            }
            done = j->in.len;
            grpc_half_close(j->call);
        }
        break;
    }
    if (done > 0) {
        j->web->gateway->inbound_bytes -= done;
        buf_consume(&j->in, done);
        if (j->in.len == 0) {
            wipe(j, &j->in);
        }
    }
}

static int in_add(struct json_call *j, struct slice bytes)
{
    struct gatewayd *g = j->web->gateway;
    if (j->in.len + bytes.len > JSON_BODY_BYTES_MAX || g->inbound_bytes + bytes.len > INBOUND_BYTES_MAX) {
        return E_TOO_BIG;
    }
    buf_add_slice(&j->in, bytes);
    g->inbound_bytes += bytes.len;
    return OK;
}

static void socket_message(void *arg, struct slice text)
{
    struct json_call *j = arg;
    if (j->call == NULL) {
        return;
    }
    if (in_add(j, text) != OK) {
        give_up(j, GRPC_RESOURCE_EXHAUSTED, err_text(E_TOO_BIG));
        return;
    }
    pump_in(j);
}

/* --- as a carrier -------------------------------------------------------------------------------------------- */

static void json_wants_write(struct call *c)
{
    struct json_call *j = c->owner;
    j->web->carrier->wants_write(j->web);
}

static void json_consumed(struct call *c, size_t bytes)
{
    UNUSED(bytes);
    json_wants_write(c); /* it goes on: so may what waits in j->in */
}

static void json_writable_later(struct call *c)
{
    ((struct json_call *)c->owner)->writable_due = true;
}

static void json_answers_queued(struct call *c, size_t more) { ((struct json_call *)c->owner)->answers += more; }
static void json_answers_taken(struct call *c, size_t less) { ((struct json_call *)c->owner)->answers -= less; }
static size_t json_answers_bytes(const struct call *c) { return ((const struct json_call *)c->owner)->answers; }
static void json_unlink(struct call *c) { UNUSED(c); }

static const struct call_carrier json_carrier = {json_wants_write, json_consumed, json_writable_later, json_answers_queued,
    json_answers_taken, json_answers_bytes, json_unlink};

/* --- from web.c -------------------------------------------------------------------------------------------------- */

/* A browser's script cannot set headers of a WebSocket's handshake; by custom it offers "Bearer, TOKEN" as protocols. */
static struct slice token_of_protocols(struct slice p)
{
    const uint8_t *comma = p.len > 6 && memcmp(p.data, "Bearer", 6) == 0 ? memchr(p.data, ',', p.len) : NULL;
    if (comma == NULL) {
        return SLICE_EMPTY;
    }
    struct slice token = slice_of(comma + 1, (size_t)(p.data + p.len - comma - 1));
    while (token.len > 0 && token.data[0] == ' ') {
        token = slice_of(token.data + 1, token.len - 1);
    }
    return token;
}

static struct call *open_call(struct json_call *j)
{
    struct web *w = j->web;
    struct call *c = call_open(w->gateway, &json_carrier, j);
    if (c == NULL) {
        return NULL;
    }
    c->client = &j->client;
    grpc_header(c, SLICE_LIT(":path"), slice_str(j->method.rpc));
    grpc_header(c, SLICE_LIT(":method"), SLICE_LIT("POST"));
    grpc_header(c, SLICE_LIT("content-type"), SLICE_LIT("application/grpc"));
    grpc_header(c, SLICE_LIT("grpcgateway-accept"), SLICE_LIT(JSON));
    struct slice token = w->authorization.len > 0 ? w->authorization : token_of_protocols(w->socket_protocol);
    if (token.len > 0) {
        grpc_header(c, SLICE_LIT("authorization"), token);
    }
    if (w->timeout.len > 0) {
        grpc_header(c, SLICE_LIT("grpc-timeout"), w->timeout);
    }
    j->has_many_in = c->handler != NULL && c->handler->client_stream;
    j->has_many_out = c->handler != NULL && c->handler->server_stream;
    return c;
}

void jsoncall_begin(struct web *w)
{
    struct json_method m;
    if (!json_method_find(w->path, &m)) {
        respond_error(w, GRPC_NOT_FOUND, "Not Found");
        return;
    }
    if (!w->wants_socket && !slice_eq(w->method, SLICE_LIT("POST"))) {
        respond_error(w, GRPC_UNIMPLEMENTED, "Method Not Allowed");
        return;
    }
    struct json_call *j = xcalloc(1, sizeof(*j));
    j->web = w;
    j->method = m;
    j->client = (struct client){.serves = w->client->serves, .is_tls = w->client->is_tls, .rate = w->client->rate};
    j->call = open_call(j);
    if (j->call == NULL) {
        free(j);
        respond_error(w, GRPC_UNAVAILABLE, err_text(E_REQUEST_TOO_MANY_REQUESTS));
        return;
    }
    if (w->wants_socket && (!j->has_many_in || w->carrier->switch_protocol == NULL)) {
        call_close(j->call);
        free(j);
        respond_error(w, GRPC_INVALID_ARGUMENT, "only streams are served on a WebSocket");
        return;
    }
    w->json = j;
    if (w->wants_socket) {
        j->ws = ws_new(w, socket_message, j);
    }
    grpc_headers_done(j->call);
    w->carrier->wants_write(w); /* it may be refused already */
}

int jsoncall_body(struct json_call *j, struct slice bytes)
{
    if (j->call == NULL || j->call->over) {
        return OK; /* the end is said in the next turn */
    }
    int err = in_add(j, bytes);
    if (err == OK && j->has_many_in) {
        pump_in(j);
    }
    return err;
}

void jsoncall_body_end(struct json_call *j)
{
    j->body_ended = true;
    pump_in(j);
}

void jsoncall_raw(struct json_call *j, struct slice bytes)
{
    must(j->ws != NULL);
    if (ws_receive(j->ws, bytes) != OK || ws_is_closed(j->ws)) {
        call_drop(j);
    }
    j->web->carrier->wants_write(j->web);
}

void jsoncall_turn(struct json_call *j)
{
    pump_in(j);
    pump_out(j);
    if (j->writable_due && j->call != NULL) {
        j->writable_due = false;
        call_writable(j->call);
    }
    if (j->ws != NULL && j->web->carrier->queued(j->web) < HTTP1_OUT_BYTES_MAX) {
        struct buf out = BUF_INIT;
        ws_write(j->ws, &out, WS_OUT_BYTES_MAX);
        if (out.len > 0) {
            web_send(j->web, buf_slice(&out));
        }
        buf_fini(&out);
        if (ws_is_closed(j->ws) && !j->web->ended) {
            call_drop(j);
            web_end(j->web);
        }
    }
}

bool jsoncall_has_more(const struct json_call *j)
{
    if (j->ws != NULL && (ws_queued(j->ws) > 0 || ws_is_closed(j->ws))) {
        return true;
    }
    return j->call != NULL && (j->call->queued > 0 || j->call->over || j->writable_due);
}

bool jsoncall_is_stream(const struct json_call *j) { return j->has_many_in || j->has_many_out; }

void jsoncall_shutdown(struct json_call *j)
{
    if (j->call != NULL && jsoncall_is_stream(j) && !j->call->over) {
        call_abort(j->call, E_STOPPED, NULL);
    }
}

void jsoncall_close(struct json_call *j)
{
    call_drop(j);
    buf_fini(&j->answer);
    ws_free(j->ws);
    free(j);
}
