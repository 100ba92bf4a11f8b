/* h2_web - requests over HTTP/2 that are not gRPC: the same as over HTTP/1.1, as browsers and curl make them of TLS connections.
 * From h2.c; to web.c. The stream is a call without a handler, whose queue holds the body of the answer as it is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "gatewayd/h2_int.h"

#define NAME_BYTES_MAX 64 /* of our own headers */

struct h2_web {
    struct web web;
    struct call *call;
    struct buf head; /* what the request's slices point into */
    bool has_length; /* of the answer */
};

/* --- requests ------------------------------------------------------------------------------------ */

void h2_web_note(struct h2 *h, struct slice name, struct slice value)
{
    static const char *const names[H2_FIELD_COUNT] = {":method", ":path", ":authority", "host", "origin", "authorization",
        "grpc-timeout"};
    for (size_t i = 0; i < H2_FIELD_COUNT; i++) {
        if (slice_eq(name, slice_str(names[i])) && h->fields[i].len == 0) {
            h->fields[i].at = h->block.len;
            h->fields[i].len = value.len;
            buf_add_slice(&h->block, value);
            return;
        }
    }
}

bool h2_web_is(const struct h2 *h, const struct call *c)
{
    if ((h->client->serves & (SERVES_HTTP | SERVES_METRICS)) == 0 || h->fields[H2_PATH].len == 0) {
        return false;
    }
    return (h->client->serves & SERVES_GRPC) == 0 || (!c->content_is_grpc && c->handler == NULL);
}

static struct slice field(const struct h2 *h, const struct buf *head, enum h2_field f)
{
    return h->fields[f].len > 0 ? buf_part(head, h->fields[f].at, h->fields[f].len) : SLICE_EMPTY;
}

/* --- answers ---------------------------------------------------------------------------------------- */

static struct h2_web *h2_web_of(const struct web *w) { return w->owner; }

static nghttp2_nv nv_copied(const char *name, const char *value)
{
    nghttp2_nv field = h2_nv(name, value);
    field.flags = NGHTTP2_NV_FLAG_NONE;
    return field;
}

static void lower(char *to, const char *name)
{
    size_t i = 0;
    for (; name[i] != '\0' && i < NAME_BYTES_MAX - 1; i++) {
        to[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] - 'A' + 'a') : name[i];
    }
    to[i] = '\0';
}

static void h2_web_start(struct web *w, int64_t length)
{
    struct h2_web *x = h2_web_of(w);
    struct h2 *h = x->call->owner;
    nghttp2_nv fields[WEB_HEADERS_MAX + 3];
    char names[WEB_HEADERS_MAX][NAME_BYTES_MAX], status[8], size[24];
    size_t count = 0;
    snprintf(status, sizeof(status), "%d", w->status);
    fields[count++] = nv_copied(":status", status);
    if (w->content_type != NULL) {
        fields[count++] = nv_copied("content-type", w->content_type);
    }
    for (size_t i = 0; i < w->header_count; i++) {
        lower(names[i], w->headers[i].name);
        fields[count++] = nv_copied(names[i], w->headers[i].value);
    }
    if (length >= 0) {
        snprintf(size, sizeof(size), "%lld", (long long)length);
        fields[count++] = nv_copied("content-length", size);
    }
    nghttp2_data_provider provider = {.source = {.ptr = x->call}, .read_callback = h2_read_cb};
    bool has_body = length != 0 && !slice_eq(w->method, SLICE_LIT("HEAD"));
    x->call->response_sent = true;
    x->has_length = length >= 0;
    if (nghttp2_submit_response(h->session, x->call->stream_id, fields, count, has_body ? &provider : NULL) != 0) {
        nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, x->call->stream_id, NGHTTP2_INTERNAL_ERROR);
    }
    h->wants_write(h->arg);
}

static void h2_web_resume(struct h2_web *x)
{
    struct h2 *h = x->call->owner;
    nghttp2_session_resume_data(h->session, x->call->stream_id); /* not deferred: it is being sent anyway */
    h->wants_write(h->arg);
}

static void h2_web_send(struct web *w, struct slice bytes)
{
    if (!slice_eq(w->method, SLICE_LIT("HEAD"))) {
        call_send_raw(h2_web_of(w)->call, bytes);
        h2_web_resume(h2_web_of(w));
    }
}

static void h2_web_answer_end(struct web *w)
{
    h2_web_of(w)->call->over = true;
    h2_web_resume(h2_web_of(w));
}

static size_t h2_web_queued(const struct web *w) { return h2_web_of(w)->call->queued; }

static void h2_web_wants_write(struct web *w)
{
    struct h2 *h = h2_web_of(w)->call->owner;
    h->wants_write(h->arg);
}

static const struct web_carrier h2_web_carrier = {h2_web_start, h2_web_send, h2_web_answer_end, h2_web_queued, h2_web_wants_write, NULL};

/* --- from h2.c ------------------------------------------------------------------------------------------ */

void h2_web_begin(struct h2 *h, struct call *c)
{
    struct h2_web *x = xcalloc(1, sizeof(*x));
    struct web *w = &x->web;
    x->call = c;
    c->web = x;
    c->handler = NULL;
    h->web_count++;
    *w = (struct web){.gateway = h->gateway, .carrier = &h2_web_carrier, .owner = x, .client = h->client};
    buf_add_slice(&x->head, buf_slice(&h->block));
    w->method = field(h, &x->head, H2_METHOD);
    struct slice target = field(h, &x->head, H2_PATH);
    const uint8_t *mark = memchr(target.data, '?', target.len);
    w->path = slice_of(target.data, mark != NULL ? (size_t)(mark - target.data) : target.len);
    w->query = mark != NULL ? slice_of(mark + 1, target.len - w->path.len - 1) : SLICE_EMPTY;
    w->host = field(h, &x->head, h->fields[H2_AUTHORITY].len > 0 ? H2_AUTHORITY : H2_HOST);
    w->origin = field(h, &x->head, H2_ORIGIN);
    w->authorization = field(h, &x->head, H2_AUTHORIZATION);
    w->timeout = field(h, &x->head, H2_TIMEOUT);
    if (h->gateway->stopping) {
        web_respond(w, 503, "text/plain; charset=utf-8", slice_str(web_status_text(503)));
    } else {
        web_begin(w);
    }
}

void h2_web_data(struct call *c, struct slice bytes)
{
    struct web *w = &c->web->web;
    if (w->ended || web_body(w, bytes) == OK) {
        return;
    }
    struct h2 *h = c->owner;
    stats_dropped(h->gateway, DROP_MALFORMED);
    if (!w->started) {
        web_respond(w, 413, "text/plain; charset=utf-8", slice_str(web_status_text(413)));
    } else {
        nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, c->stream_id, NGHTTP2_ENHANCE_YOUR_CALM);
    }
}

void h2_web_end_of_data(struct call *c)
{
    if (!c->half_closed) {
        c->half_closed = true;
        web_body_end(&c->web->web);
    }
}

void h2_web_turn(struct h2 *h)
{
    if (h->web_count > 0) {
        for (struct call *c = h->calls; c != NULL; c = c->next) {
            if (c->web != NULL) {
                web_turn(&c->web->web);
            }
        }
    }
}

bool h2_web_has_more(const struct h2 *h)
{
    for (const struct call *c = h->web_count > 0 ? h->calls : NULL; c != NULL; c = c->next) {
        if (c->web != NULL && web_has_more(&c->web->web)) {
            return true;
        }
    }
    return false;
}

bool h2_web_is_stream(const struct call *c) { return web_is_stream(&c->web->web); }
bool h2_web_has_length(const struct call *c) { return c->web->has_length; }
void h2_web_shutdown(struct call *c) { web_shutdown(&c->web->web); }

void h2_web_close(struct h2 *h, struct call *c)
{
    struct h2_web *x = c->web;
    c->web = NULL;
    h->web_count--;
    web_close(&x->web);
    buf_fini(&x->head);
    free(x);
}
