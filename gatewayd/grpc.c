/* grpc - one stream's headers and data become one method and its messages; errors become status and text.
 * Input: the carrier (h2.c). Output: the handler of route.c (or call_fail). A message is refused by its announced length before one byte of it is
 * kept. Idea: gRPC over HTTP/2 (doc/PROTOCOL-HTTP2.md), spec/wire.md "Transport rules". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "gatewayd/grpc.h"
#include "gatewayd/rate.h"

#define NAME_BYTES_MAX ((size_t)256) /* of a path or encoding that an error text repeats */
#define TIMEOUT_MS_MAX (UINT64_MAX / 4)

/* --- pure ---------------------------------------------------------------------------------------- */

int grpc_parse_timeout(struct slice value, uint64_t *ms)
{
    if (value.len < 2 || value.len > 9) {
        return E_INVALID;
    }
    uint64_t n = 0;
    for (size_t i = 0; i < value.len - 1; i++) {
        if (value.data[i] < '0' || value.data[i] > '9') {
            return E_INVALID;
        }
        n = 10 * n + (uint64_t)(value.data[i] - '0');
    }
    switch (value.data[value.len - 1]) {
    case 'H': *ms = n * 3600000; return OK;
    case 'M': *ms = n * 60000; return OK;
    case 'S': *ms = n * 1000; return OK;
    case 'm': *ms = n; return OK;
    case 'u': *ms = (n + 999) / 1000; return OK;
    case 'n': *ms = (n + 999999) / 1000000; return OK;
    default: return E_INVALID;
    }
}

char *grpc_encode_text(struct slice text)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = xmalloc(3 * text.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t b = text.data[i];
        if (b >= 0x20 && b <= 0x7e && b != '%') {
            out[n++] = (char)b;
        } else {
            out[n++] = '%';
            out[n++] = hex[b >> 4];
            out[n++] = hex[b & 15];
        }
    }
    out[n] = '\0';
    return out;
}

/* --- headers ------------------------------------------------------------------------------------- */

static bool slice_is(struct slice s, const char *word)
{
    size_t len = strlen(word);
    return s.len == len && memcmp(s.data, word, len) == 0;
}

static bool slice_starts(struct slice s, const char *word)
{
    size_t len = strlen(word);
    return s.len >= len && memcmp(s.data, word, len) == 0;
}

static void header_path(struct call *c, struct slice value)
{
    c->handler = c->gateway->find(value);
    if (c->handler == NULL && c->service_method == NULL) {
        c->service_method = slice_dup_str(slice_of(value.data, MIN(value.len, NAME_BYTES_MAX)));
    }
}

static void header_content_type(struct call *c, struct slice value)
{
    c->content_is_grpc = slice_starts(value, "application/grpc")
        && (value.len == 16 || value.data[16] == '+' || value.data[16] == ';');
}

static void header_token(struct call *c, struct slice value, bool is_authorization)
{
    if (is_authorization) {
        if (c->token != NULL) {
            return; /* `token` wins */
        }
        if (slice_starts(value, "Bearer ")) {
            value = slice_of(value.data + 7, value.len - 7);
        }
    }
    free(c->token);
    c->token = slice_dup_str(slice_of(value.data, MIN(value.len, TOKEN_BYTES_MAX))); /* cut, it is as bad as it was */
}

static void header_timeout(struct call *c, struct slice value)
{
    uint64_t ms = 0;
    c->bad_timeout = grpc_parse_timeout(value, &ms) != OK;
    if (!c->bad_timeout) {
        c->deadline_ms = gatewayd_now_ms(c->gateway) + MIN(ms, TIMEOUT_MS_MAX);
    }
}

int grpc_header(struct call *c, struct slice name, struct slice value)
{
    c->header_bytes += name.len + value.len + 32; /* as RFC 9113 counts */
    if (c->header_bytes > HEADER_LIST_BYTES_MAX) {
        return E_TOO_BIG;
    }
    if (c->headers_done) {
        return OK; /* trailers of a client mean nothing in gRPC */
    }
    switch (name.len) {
    case 5:
        if (slice_is(name, ":path")) {
            header_path(c, value);
        } else if (slice_is(name, "token")) {
            header_token(c, value, false);
        }
        break;
    case 7:
        if (slice_is(name, ":method")) {
            c->method_is_post = slice_is(value, "POST");
        }
        break;
    case 9:
        if (slice_is(name, "hasleader")) {
            c->wants_leader = slice_is(value, "true");
        }
        break;
    case 12:
        if (slice_is(name, "content-type")) {
            header_content_type(c, value);
        } else if (slice_is(name, "grpc-timeout")) {
            header_timeout(c, value);
        }
        break;
    case 13:
        if (slice_is(name, "authorization")) {
            header_token(c, value, true);
        } else if (slice_is(name, "grpc-encoding") && !slice_is(value, "identity")) {
            free(c->encoding);
            c->encoding = slice_dup_str(slice_of(value.data, MIN(value.len, NAME_BYTES_MAX)));
        }
        break;
    case 18:
        if (slice_is(name, "client-api-version")) {
            c->bad_api_version = !slice_is_utf8(value);
            c->api_version = c->bad_api_version ? 0 : stats_api_version(c->gateway, value);
        } else if (slice_is(name, "grpcgateway-accept")) {
            c->by_json = true;
        }
        break;
    default: break;
    }
    return OK;
}

/* "/service/Method" that no table has: says which half is unknown, in grpc-go's words. */
static void fail_unknown(struct call *c)
{
    const char *path = c->service_method != NULL ? c->service_method : "";
    const char *slash = path[0] == '/' ? strchr(path + 1, '/') : NULL;
    char *text = NULL;
    if (slash == NULL) {
        text = xasprintf("malformed method name: \"%s\"", path);
    } else {
        struct slice service = slice_of(path + 1, (size_t)(slash - path - 1));
        text = route_has_service(service)
            ? xasprintf("unknown method %s for service %.*s", slash + 1, (int)service.len, (const char *)service.data)
            : xasprintf("unknown service %.*s", (int)service.len, (const char *)service.data);
    }
    call_abort(c, E_UNIMPLEMENTED, text);
    free(text);
}

static bool is_stream(const struct call *c)
{
    return c->handler->client_stream || c->handler->server_stream;
}

void grpc_headers_done(struct call *c)
{
    struct gatewayd *g = c->gateway;
    c->headers_done = true;
    if (c->handler != NULL) {
        stats_started(g, c->handler);
        stats_client_request(g, is_stream(c), c->api_version);
    }
    if (!c->content_is_grpc) {
        c->http_status = 415;
        call_abort(c, E_INVALID, "invalid gRPC request content-type");
    } else if (!c->method_is_post) {
        c->http_status = 405;
        call_abort(c, E_MALFORMED, "gRPC needs method POST");
    } else if (c->bad_timeout) {
        c->http_status = 400; /* as grpc-go: a deadline that cannot be read must not become none */
        call_abort(c, E_MALFORMED, "malformed grpc-timeout");
    } else if (c->handler == NULL) {
        fail_unknown(c);
    } else if (g->stopping) {
        call_abort(c, E_STOPPED, NULL);
    } else if (c->bad_api_version) {
        call_abort(c, E_INVALID_CLIENT_API_VERSION, NULL);
    } else if (c->wants_leader && !g->has_leader) {
        call_abort(c, E_NO_LEADER, NULL);
    } else if (c->deadline_ms <= gatewayd_now_ms(g)) {
        call_abort(c, E_DEADLINE_EXCEEDED, NULL);
    } else if (!is_stream(c) && call_is_crowded(c)) {
        stats_dropped(g, DROP_UNREAD);
        call_abort(c, E_REQUEST_TOO_MANY_REQUESTS, NULL);
    } else {
        if (c->deadline_ms != UINT64_MAX) {
            deadline_set(g, &c->deadline, c->deadline_ms);
        }
        if (c->wants_leader && is_stream(c)) {
            call_join_leader_list(c);
        }
    }
}

/* --- messages ------------------------------------------------------------------------------------ */

static void fail_compressed(struct call *c)
{
    char *text = c->encoding != NULL
        ? xasprintf("grpc: Decompressor is not installed for grpc-encoding \"%s\"", c->encoding)
        : xstrdup("grpc: compressed flag set with identity or empty encoding");
    call_abort(c, E_UNIMPLEMENTED, text);
    free(text);
}

/* The prefix is complete. False: the call has failed. */
static bool prefix_check(struct call *c)
{
    const uint8_t *p = c->prefix;
    size_t max = c->gateway->message_bytes_max;
    c->message_len = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
    if (p[0] == 1) {
        fail_compressed(c);
        return false;
    }
    if (p[0] != 0) {
        char text[64];
        snprintf(text, sizeof(text), "grpc: received unexpected payload format %u", p[0]);
        call_abort(c, E_MALFORMED, text);
        return false;
    }
    if (c->message_len > max) {
        char text[96];
        snprintf(text, sizeof(text), "grpc: received message larger than max (%u vs. %zu)", c->message_len, max);
        call_abort(c, E_TOO_BIG, text);
        return false;
    }
    if (c->gateway->inbound_bytes + c->message_len > INBOUND_BYTES_MAX) {
        call_abort(c, E_REQUEST_TOO_MANY_REQUESTS, NULL);
        return false;
    }
    return true;
}

bool grpc_is_held(const struct call *c) { return c->paused || c->login != NULL; }

/* c->in was the message; what Authenticate and its like bring does not lie about. */
static void inbound_done(struct call *c)
{
    c->gateway->inbound_bytes -= c->in.len;
    if (auth_has_secret(c->handler)) {
        secret_wipe(c->in.data, c->in.len);
    }
    buf_reset(&c->in);
}

/* A request goes to its handler, unless there were too many. */
static void call_handle(struct call *c, struct slice message)
{
    if (rate_allows(c)) {
        c->handler->message(c, message);
        return;
    }
    stats_dropped(c->gateway, DROP_RATE);
    call_abort(c, E_REQUEST_TOO_MANY_REQUESTS, NULL);
}

/* A message is complete. Unary handlers get it at the half-close; streams at once, if it is known who asks. */
static void message_done(struct call *c, struct slice message)
{
    if (!c->handler->client_stream) {
        if (c->got_message) {
            call_abort(c, E_MALFORMED, "grpc: a second message in a unary call");
            return;
        }
        c->got_message = true;
        if (message.data != c->in.data) {
            buf_add_slice(&c->in, message);
            c->gateway->inbound_bytes += message.len;
        }
        return; /* in c->in until the half-close */
    }
    stats_received(c->gateway, c->handler, message.len);
    c->prefix_len = 0;
    if (identity_admit(c)) {
        call_handle(c, message);
        inbound_done(c);
    } else if (!c->over && message.data != c->in.data) {
        buf_add_slice(&c->in, message);
        c->gateway->inbound_bytes += message.len;
    }
}

size_t grpc_data(struct call *c, struct slice bytes)
{
    size_t all = bytes.len;
    while (bytes.len > 0 && !c->over) {
        if (grpc_is_held(c)) {
            buf_add_slice(&c->held, bytes); /* bounded by the stream's window: not given back until taken */
            return all - bytes.len;
        }
        if (c->got_message) {
            call_abort(c, E_MALFORMED, "grpc: a second message in a unary call");
            break;
        }
        if (c->prefix_len < GRPC_PREFIX_BYTES) {
            size_t n = MIN(bytes.len, (size_t)(GRPC_PREFIX_BYTES - c->prefix_len));
            memcpy(c->prefix + c->prefix_len, bytes.data, n);
            c->prefix_len += (uint8_t)n;
            bytes = slice_of(bytes.data + n, bytes.len - n);
            if (c->prefix_len < GRPC_PREFIX_BYTES || !prefix_check(c)) {
                continue;
            }
        }
        size_t missing = c->message_len - c->in.len;
        size_t n = MIN(bytes.len, missing);
        if (n == c->message_len) {
            message_done(c, slice_of(bytes.data, n)); /* whole in one piece: no copy for streams */
        } else {
            buf_add(&c->in, bytes.data, n);
            c->gateway->inbound_bytes += n;
            if (n == missing) {
                message_done(c, buf_slice(&c->in));
            }
        }
        bytes = slice_of(bytes.data + n, bytes.len - n);
    }
    if (!c->over && !c->got_message && !grpc_is_held(c) && c->prefix_len == GRPC_PREFIX_BYTES && c->message_len == 0) {
        message_done(c, SLICE_EMPTY); /* an empty message has no byte that would end it */
    }
    return all;
}

/* The client's half-close, once everything before it was looked at. */
static void half_close_now(struct call *c)
{
    if (c->over || c->half_close_told) {
        return;
    }
    c->half_close_told = true;
    if (c->prefix_len != 0 && !c->got_message) {
        call_abort(c, E_MALFORMED_REQUEST, "unexpected EOF");
    } else if (c->handler->client_stream) {
        if (c->handler->half_close != NULL) {
            c->handler->half_close(c);
        }
    } else if (!c->got_message) {
        call_abort(c, E_MALFORMED_REQUEST, "EOF");
    } else {
        stats_received(c->gateway, c->handler, c->in.len);
        if (identity_admit(c)) {
            call_handle(c, buf_slice(&c->in));
            inbound_done(c);
        }
    }
}

void grpc_admitted(struct call *c)
{
    call_handle(c, buf_slice(&c->in));
    inbound_done(c);
    if (!grpc_is_held(c)) {
        grpc_resume(c);
    }
}

void grpc_half_close(struct call *c)
{
    c->half_closed = true;
    if (!grpc_is_held(c)) {
        half_close_now(c);
    }
}

void grpc_resume(struct call *c)
{
    struct buf held = c->held;
    c->held = BUF_INIT;
    size_t taken = held.len > 0 ? grpc_data(c, buf_slice(&held)) : 0;
    c->carrier->consumed(c, taken); /* also nothing: the carrier may keep more in front of us */
    if (c->held.data == NULL) {
        buf_reset(&held);
        c->held = held;
    } else {
        buf_fini(&held);
    }
    if (c->half_closed && !grpc_is_held(c)) {
        half_close_now(c);
    }
}
