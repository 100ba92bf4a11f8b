/* http1 - HTTP/1.1 on one connection: a strict parser, one request at a time, keep-alive. From conn.c to web.c and back.
 *
 *   HEAD --complete--> BODY --its end--> ANSWERING --answer's end--> HEAD (keep-alive) or closing
 *                        \--an answer's end before the body's: closing          \--switched over--> RAW (WebSocket)
 *
 * Strict: CRLF only, no folded lines, no space before a colon, no two lengths, no coding but chunked. What could be read in two ways
 * is refused, so that nothing in front of us can read it differently.
 * Holds at all times: `out` counts in outbound_bytes; the request's slices point into `head`. */
#include "gatewayd/http1.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/err.h"
#include "common/limits.h"
#include "gatewayd/web.h"

#define ANSWER_CHECK_MS 10000 /* while answering there is nothing to time out here: look again later */

enum http1_state { HTTP1_HEAD, HTTP1_BODY, HTTP1_ANSWERING, HTTP1_RAW };

/* Where in a body are we? A length: only DATA. Chunked: SIZE, DATA, DATA_END, SIZE, ..., TRAILER. */
enum body_part { BODY_DATA, BODY_SIZE, BODY_DATA_END, BODY_TRAILER };

struct http1 {
    struct gatewayd *gateway;
    const struct client *client;
    void (*wants_write)(void *arg);
    void *arg;
    enum http1_state state;
    struct buf in;
    struct buf out;
    size_t out_off;
    size_t out_counted; /* of out, in outbound_bytes */
    uint64_t taken_ms;  /* when the client last took of out, or the first of it came */
    uint64_t since_ms;  /* HEAD: of its first byte, or of the last answer; BODY: of its head */

    /* --- the request being served --- */
    struct buf head;
    struct web web;
    enum body_part part;
    uint64_t body_left; /* BODY_DATA: of the body, or of its chunk */
    uint64_t body_seen;
    bool is_chunked;
    bool expects;       /* the client waits for "100 Continue" */
    bool is_head;       /* its method is HEAD */
    bool is_old;        /* HTTP/1.0 */
    bool keep_alive;
    bool chunks_out;    /* its answer is chunked */
    bool answered;      /* the answer's end was said; what is kept for the request goes in http1_process */

    bool closing;       /* after what is in out */
    bool input_ended;
    bool processing;    /* http1_process or a turn of web.c is on the stack */
};

/* --- parser ------------------------------------------------------------------------------------------------- */

static bool is_token_char(uint8_t b)
{
    return (b >= '0' && b <= '9') || (b >= 'A' && b <= 'Z') || (b >= 'a' && b <= 'z') || (b != '\0' && strchr("!#$%&'*+-.^_`|~", b) != NULL);
}

static bool is_word(struct slice s, const char *word)
{
    return s.len == strlen(word) && strncasecmp((const char *)s.data, word, s.len) == 0;
}

static struct slice trim(struct slice s)
{
    while (s.len > 0 && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s = slice_of(s.data + 1, s.len - 1);
    }
    while (s.len > 0 && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t')) {
        s.len--;
    }
    return s;
}

/* Takes a line without its CRLF off *in. False: there is none, or it has a control character. */
static bool take_line(struct slice *in, struct slice *line)
{
    const uint8_t *cr = memchr(in->data, '\r', in->len);
    if (cr == NULL || cr + 1 >= in->data + in->len || cr[1] != '\n') {
        return false;
    }
    *line = slice_of(in->data, (size_t)(cr - in->data));
    *in = slice_of(cr + 2, in->len - line->len - 2);
    for (size_t i = 0; i < line->len; i++) {
        if ((line->data[i] < 0x20 && line->data[i] != '\t') || line->data[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

static int parse_target(struct slice target, struct http1_request *r)
{
    /* Absolute form, as proxies send it: what comes after the host is the path. */
    if (target.len > 7 && strncasecmp((const char *)target.data, "http://", 7) == 0) {
        const uint8_t *slash = memchr(target.data + 7, '/', target.len - 7);
        target = slash != NULL ? slice_of(slash, target.len - (size_t)(slash - target.data)) : SLICE_LIT("/");
    }
    if (target.len == 0 || target.data[0] != '/') {
        return E_MALFORMED;
    }
    const uint8_t *mark = memchr(target.data, '?', target.len);
    r->path = mark != NULL ? slice_of(target.data, (size_t)(mark - target.data)) : target;
    r->query = mark != NULL ? slice_of(mark + 1, target.len - r->path.len - 1) : SLICE_EMPTY;
    return OK;
}

static int parse_request_line(struct slice line, struct http1_request *r)
{
    const uint8_t *first = memchr(line.data, ' ', line.len);
    if (first == NULL || first == line.data) {
        return E_MALFORMED;
    }
    r->method = slice_of(line.data, (size_t)(first - line.data));
    for (size_t i = 0; i < r->method.len; i++) {
        if (!is_token_char(r->method.data[i])) {
            return E_MALFORMED;
        }
    }
    struct slice rest = slice_of(first + 1, line.len - r->method.len - 1);
    const uint8_t *second = memchr(rest.data, ' ', rest.len);
    if (second == NULL) {
        return E_MALFORMED;
    }
    struct slice target = slice_of(rest.data, (size_t)(second - rest.data));
    struct slice version = slice_of(second + 1, rest.len - target.len - 1);
    if (version.len != 8 || memcmp(version.data, "HTTP/", 5) != 0) {
        return E_MALFORMED;
    }
    if (memcmp(version.data, "HTTP/1.", 7) != 0 || (version.data[7] != '0' && version.data[7] != '1')) {
        return E_VERSION;
    }
    r->is_old = version.data[7] == '0';
    r->keep_alive = !r->is_old;
    return parse_target(target, r);
}

static int parse_length(struct slice value, bool *seen, uint64_t *len)
{
    uint64_t n = 0;
    if (value.len == 0 || value.len > 18) {
        return E_MALFORMED;
    }
    for (size_t i = 0; i < value.len; i++) {
        if (value.data[i] < '0' || value.data[i] > '9') {
            return E_MALFORMED;
        }
        n = 10 * n + (uint64_t)(value.data[i] - '0');
    }
    if (*seen && n != *len) {
        return E_MALFORMED;
    }
    *seen = true;
    *len = n;
    return n > HTTP1_BODY_BYTES_MAX ? E_TOO_BIG : OK;
}

static bool next_word(struct slice *value, struct slice *word)
{
    if (value->len == 0) {
        return false;
    }
    const uint8_t *comma = memchr(value->data, ',', value->len);
    size_t len = comma != NULL ? (size_t)(comma - value->data) : value->len;
    *word = trim(slice_of(value->data, len));
    len += comma != NULL;
    *value = slice_of(value->data + len, value->len - len);
    return true;
}

static void parse_connection(struct slice value, struct http1_request *r)
{
    struct slice word;
    while (next_word(&value, &word)) {
        if (is_word(word, "close")) {
            r->keep_alive = false;
        } else if (is_word(word, "keep-alive")) {
            r->keep_alive = true;
        } else if (is_word(word, "upgrade")) {
            r->upgrade = true;
        }
    }
}

static void parse_upgrade(struct slice value, struct http1_request *r)
{
    struct slice word;
    while (next_word(&value, &word)) {
        r->upgrade_socket |= is_word(word, "websocket");
    }
}

/* What only web.c looks at; the first one counts. */
static void parse_other(struct slice name, struct slice value, struct http1_request *r)
{
    const struct { const char *name; struct slice *to; } wanted[] = {{"origin", &r->origin}, {"authorization", &r->authorization},
        {"grpc-timeout", &r->timeout}, {"sec-websocket-key", &r->socket_key}, {"sec-websocket-protocol", &r->socket_protocol},
        {"sec-websocket-version", &r->socket_version}};
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        if (is_word(name, wanted[i].name) && wanted[i].to->data == NULL) {
            *wanted[i].to = value;
        }
    }
}

static int parse_field(struct slice line, struct http1_request *r, bool *has_length, unsigned *hosts)
{
    const uint8_t *colon = memchr(line.data, ':', line.len);
    if (colon == NULL || colon == line.data) {
        return E_MALFORMED;
    }
    struct slice name = slice_of(line.data, (size_t)(colon - line.data));
    for (size_t i = 0; i < name.len; i++) {
        if (!is_token_char(name.data[i])) {
            return E_MALFORMED; /* also a folded line, which begins with a space */
        }
    }
    struct slice value = trim(slice_of(colon + 1, line.len - name.len - 1));
    if (is_word(name, "content-length")) {
        return parse_length(value, has_length, &r->body_len);
    }
    if (is_word(name, "transfer-encoding")) {
        r->bad_coding |= r->chunked || !is_word(value, "chunked");
        r->chunked = true;
    } else if (is_word(name, "connection")) {
        parse_connection(value, r);
    } else if (is_word(name, "expect")) {
        r->expect_continue = is_word(value, "100-continue");
    } else if (is_word(name, "host")) {
        (*hosts)++;
        r->host = value;
    } else if (is_word(name, "upgrade")) {
        parse_upgrade(value, r);
    } else {
        parse_other(name, value, r);
    }
    return OK;
}

int http1_parse_head(struct slice bytes, struct http1_request *r)
{
    *r = (struct http1_request){0};
    const uint8_t *end = memmem(bytes.data, MIN(bytes.len, HTTP1_HEAD_BYTES_MAX), "\r\n\r\n", 4);
    if (end == NULL) {
        /* What does not begin with a word (TLS, say) and a bare LF will never become a head; say so before the deadline does. */
        if (bytes.len > 0 && !is_token_char(bytes.data[0])) {
            return E_MALFORMED;
        }
        const uint8_t *lf = memchr(bytes.data, '\n', bytes.len);
        if (lf != NULL && (lf == bytes.data || lf[-1] != '\r')) {
            return E_MALFORMED;
        }
        return bytes.len >= HTTP1_HEAD_BYTES_MAX ? E_TOO_BIG : 0;
    }
    size_t head_len = (size_t)(end - bytes.data) + 4;
    struct slice in = slice_of(bytes.data, head_len - 2), line;
    int err = take_line(&in, &line) ? parse_request_line(line, r) : E_MALFORMED;
    bool has_length = false;
    unsigned hosts = 0;
    while (err == OK && in.len > 0) {
        err = take_line(&in, &line) ? parse_field(line, r, &has_length, &hosts) : E_MALFORMED;
    }
    if (err != OK) {
        return err;
    }
    /* A chunked body of HTTP/1.0 has no end that an old proxy would see. */
    if (hosts > 1 || (hosts == 0 && !r->is_old) || (r->chunked && (has_length || r->is_old))) {
        return E_MALFORMED;
    }
    return (int)head_len;
}

/* "1a;x=y" -> 26. E_MALFORMED, E_TOO_BIG. */
static int parse_chunk_size(struct slice line, uint64_t *size)
{
    size_t n = 0;
    *size = 0;
    while (n < line.len && strchr("0123456789abcdefABCDEF", line.data[n]) != NULL && line.data[n] != '\0') {
        uint8_t b = line.data[n];
        *size = 16 * *size + (uint64_t)(b <= '9' ? b - '0' : (b | 32) - 'a' + 10);
        if (++n > 8) {
            return E_TOO_BIG;
        }
    }
    return n > 0 && (n == line.len || line.data[n] == ';' || line.data[n] == ' ' || line.data[n] == '\t') ? OK : E_MALFORMED;
}

/* --- answers: web.c's carrier -------------------------------------------------------------------------------- */

static void http1_process(struct http1 *h);

static struct http1 *http1_of(const struct web *w) { return w->owner; }

static size_t out_len(const struct http1 *h) { return h->out.len - h->out_off; }

/* After every change of out. */
static void out_count(struct http1 *h)
{
    h->gateway->outbound_bytes += h->out.len - h->out_counted;
    h->out_counted = h->out.len;
}

static void out_begin(struct http1 *h)
{
    if (out_len(h) == 0) {
        h->taken_ms = gatewayd_now_ms(h->gateway);
    }
}

static bool will_keep(const struct http1 *h)
{
    /* A body that is still on its way is read and dropped, unless it has no end, or waits to be asked for. */
    bool in_step = h->state == HTTP1_ANSWERING || (h->state == HTTP1_BODY && !h->expects && !web_is_stream(&h->web));
    return h->keep_alive && !h->input_ended && !h->gateway->stopping && in_step;
}

static void add_headers(struct http1 *h)
{
    const struct web *w = &h->web;
    if (w->content_type != NULL) {
        buf_printf(&h->out, "Content-Type: %s\r\n", w->content_type);
    }
    for (size_t i = 0; i < w->header_count; i++) {
        buf_printf(&h->out, "%s: %s\r\n", w->headers[i].name, w->headers[i].value);
    }
}

static void http1_start(struct web *w, int64_t length)
{
    struct http1 *h = http1_of(w);
    out_begin(h);
    buf_printf(&h->out, "HTTP/1.1 %d %s\r\n", w->status, web_status_text(w->status));
    add_headers(h);
    h->chunks_out = length < 0 && !h->is_old;
    if (length >= 0) {
        buf_printf(&h->out, "Content-Length: %lld\r\n", (long long)length);
    } else if (h->chunks_out) {
        buf_add_str(&h->out, "Transfer-Encoding: chunked\r\n");
    }
    if (!will_keep(h) || (length < 0 && h->is_old)) {
        h->keep_alive = false;
        buf_add_str(&h->out, "Connection: close\r\n\r\n");
    } else {
        buf_add_str(&h->out, h->is_old ? "Connection: keep-alive\r\n\r\n" : "\r\n");
    }
    out_count(h);
    h->wants_write(h->arg);
}

static void http1_send(struct web *w, struct slice bytes)
{
    struct http1 *h = http1_of(w);
    if (h->is_head || bytes.len == 0) {
        return;
    }
    out_begin(h);
    if (h->chunks_out) {
        buf_printf(&h->out, "%zx\r\n", bytes.len);
    }
    buf_add_slice(&h->out, bytes);
    if (h->chunks_out) {
        buf_add_str(&h->out, "\r\n");
    }
    out_count(h);
    h->wants_write(h->arg);
}

static void http1_end(struct web *w)
{
    struct http1 *h = http1_of(w);
    if (h->chunks_out && !h->is_head) {
        out_begin(h);
        buf_add_str(&h->out, "0\r\n\r\n");
        out_count(h);
    }
    h->answered = true;
    h->wants_write(h->arg);
    http1_process(h); /* a pipelined request may have come meanwhile */
}

static size_t http1_queued(const struct web *w) { return out_len(http1_of(w)); }

static void http1_web_wants_write(struct web *w)
{
    struct http1 *h = http1_of(w);
    h->wants_write(h->arg);
}

static void http1_switch_protocol(struct web *w)
{
    struct http1 *h = http1_of(w);
    out_begin(h);
    buf_printf(&h->out, "HTTP/1.1 101 %s\r\nConnection: Upgrade\r\n", web_status_text(101));
    add_headers(h);
    buf_add_str(&h->out, "\r\n");
    out_count(h);
    h->chunks_out = false;
    h->keep_alive = false;
    h->state = HTTP1_RAW;
    h->wants_write(h->arg);
}

static const struct web_carrier http1_carrier = {http1_start, http1_send, http1_end, http1_queued, http1_web_wants_write,
    http1_switch_protocol};

/* For what is not worth or not able to be parsed further: says why, then closes. */
static void refuse(struct http1 *h, int status)
{
    stats_dropped(h->gateway, DROP_MALFORMED);
    if (!h->web.started) {
        h->keep_alive = false;
        h->is_head = h->is_head && h->state != HTTP1_HEAD;
        web_respond(&h->web, status, "text/plain; charset=utf-8", slice_str(web_status_text(status)));
    }
    h->answered = false;
    h->closing = true;
    web_close(&h->web);
    buf_reset(&h->in);
    h->wants_write(h->arg);
}

/* --- requests --------------------------------------------------------------------------------------------------- */

static void request_set(struct http1 *h, const struct http1_request *r)
{
    struct web *w = &h->web;
    w->method = r->method;
    w->path = r->path;
    w->query = r->query;
    w->host = r->host;
    w->origin = r->origin;
    w->authorization = r->authorization;
    w->timeout = r->timeout;
    w->socket_key = r->socket_key;
    w->socket_protocol = r->socket_protocol;
    w->wants_socket = r->upgrade && r->upgrade_socket && !r->is_old && slice_eq(r->method, SLICE_LIT("GET"))
        && slice_eq(r->socket_version, SLICE_LIT("13")) && r->socket_key.len == 24;
    h->is_head = slice_eq(r->method, SLICE_LIT("HEAD"));
    h->is_old = r->is_old;
    h->keep_alive = r->keep_alive;
    h->is_chunked = r->chunked;
    h->body_left = r->body_len;
    h->body_seen = 0;
    h->chunks_out = false;
    h->part = r->chunked ? BODY_SIZE : BODY_DATA;
}

/* A complete head lies in front of h->in. */
static void begin_request(struct http1 *h, size_t head_len)
{
    struct http1_request r;
    buf_reset(&h->head);
    buf_add(&h->head, h->in.data, head_len);
    buf_consume(&h->in, head_len);
    must(http1_parse_head(buf_slice(&h->head), &r) == (int)head_len);
    request_set(h, &r);
    if (r.bad_coding) {
        refuse(h, 501);
        return;
    }
    bool has_body = r.chunked || r.body_len > 0;
    h->state = has_body ? HTTP1_BODY : HTTP1_ANSWERING;
    h->since_ms = gatewayd_now_ms(h->gateway);
    if (has_body && h->web.wants_socket) {
        refuse(h, 400);
        return;
    }
    h->expects = has_body && r.expect_continue;
    web_begin(&h->web);
    if (h->expects && !h->web.ended) {
        h->expects = false;
        out_begin(h);
        buf_add_str(&h->out, "HTTP/1.1 100 Continue\r\n\r\n");
        out_count(h);
        h->wants_write(h->arg);
    }
    if (!has_body && h->state == HTTP1_ANSWERING && !h->web.ended) {
        web_body_end(&h->web);
    }
}

static void body_ended(struct http1 *h)
{
    h->state = HTTP1_ANSWERING;
    web_body_end(&h->web);
}

/* One part of the body. 1: there was one; 0: more of it must come; or E_MALFORMED, E_TOO_BIG. */
static int take_body(struct http1 *h)
{
    struct slice in = buf_slice(&h->in), line;
    if (h->part == BODY_DATA) {
        size_t n = (size_t)MIN(h->body_left, (uint64_t)in.len);
        h->body_seen += n;
        if (h->body_seen > HTTP1_BODY_BYTES_MAX && !web_is_stream(&h->web)) {
            return E_TOO_BIG;
        }
        int err = n > 0 ? web_body(&h->web, slice_of(in.data, n)) : OK;
        buf_consume(&h->in, n);
        h->body_left -= n;
        if (err != OK || h->body_left > 0) {
            return err;
        }
        h->part = BODY_DATA_END;
        if (!h->is_chunked) {
            body_ended(h);
        }
        return 1;
    }
    size_t line_max = h->part == BODY_TRAILER ? HTTP1_TRAILER_BYTES_MAX : HTTP1_CHUNK_LINE_BYTES_MAX;
    struct slice rest = slice_of(in.data, MIN(in.len, line_max));
    if (memchr(rest.data, '\n', rest.len) == NULL) {
        return in.len < line_max ? 0 : E_MALFORMED;
    }
    if (!take_line(&rest, &line)) {
        return E_MALFORMED;
    }
    int err = OK;
    if (h->part == BODY_SIZE) {
        err = parse_chunk_size(line, &h->body_left);
        h->part = h->body_left > 0 ? BODY_DATA : BODY_TRAILER;
        h->body_seen += 8; /* so that empty trailers or tiny chunks have an end as well */
    } else if (h->part == BODY_DATA_END) {
        err = line.len == 0 ? OK : E_MALFORMED;
        h->part = BODY_SIZE;
    } else if (line.len > 0) {
        h->body_seen += line.len;
        err = h->body_seen > HTTP1_BODY_BYTES_MAX ? E_TOO_BIG : OK; /* trailers mean nothing to us */
    }
    bool is_end = h->part == BODY_TRAILER && line.len == 0;
    buf_consume(&h->in, (size_t)(rest.data - in.data));
    if (err == OK && is_end) {
        body_ended(h);
    }
    return err == OK ? 1 : err;
}

/* The answer is complete: what is kept for the request goes. */
static void end_request(struct http1 *h)
{
    h->answered = false;
    h->closing |= !h->keep_alive || h->state != HTTP1_ANSWERING;
    web_close(&h->web);
    h->state = HTTP1_HEAD;
    h->since_ms = gatewayd_now_ms(h->gateway);
    if (h->closing) {
        buf_reset(&h->in);
    }
}

/* Goes one step on with what was received. False: there is nothing to do until more comes. */
static bool step(struct http1 *h)
{
    if (h->answered && (h->state != HTTP1_BODY || !h->keep_alive)) {
        end_request(h);
        return true;
    }
    if (h->closing || h->in.len == 0) {
        return false;
    }
    if (h->state == HTTP1_RAW) {
        web_raw(&h->web, buf_slice(&h->in));
        buf_reset(&h->in);
        return false;
    }
    if (h->state == HTTP1_BODY) {
        int rv = take_body(h);
        if (rv < 0) {
            refuse(h, rv == E_TOO_BIG ? 413 : 400);
        }
        return rv > 0;
    }
    /* A client that does not read its answers gets no more of them. */
    if (h->state == HTTP1_ANSWERING || out_len(h) > HTTP1_OUT_BYTES_MAX) {
        return false;
    }
    struct http1_request r;
    int n = http1_parse_head(buf_slice(&h->in), &r);
    if (n < 0) {
        refuse(h, n == E_VERSION ? 505 : n == E_TOO_BIG ? (h->in.len >= HTTP1_HEAD_BYTES_MAX ? 431 : 413) : 400);
    } else if (n > 0) {
        begin_request(h, (size_t)n);
    }
    return n > 0;
}

static void http1_process(struct http1 *h)
{
    if (h->processing) {
        return; /* whoever is at it goes on with it */
    }
    h->processing = true;
    while (step(h)) {
    }
    h->processing = false;
}

/* --- the connection ---------------------------------------------------------------------------------------------- */

struct http1 *http1_new(struct gatewayd *g, void (*wants_write)(void *arg), void *arg)
{
    struct http1 *h = xcalloc(1, sizeof(*h));
    h->gateway = g;
    h->wants_write = wants_write;
    h->arg = arg;
    h->since_ms = gatewayd_now_ms(g);
    h->web = (struct web){.gateway = g, .carrier = &http1_carrier, .owner = h};
    http1_set_client(h, &CLIENT_ANY);
    return h;
}

void http1_set_client(struct http1 *h, const struct client *client)
{
    h->client = client;
    h->web.client = client;
}

void http1_free(struct http1 *h)
{
    if (h == NULL) {
        return;
    }
    h->processing = true;
    web_close(&h->web);
    buf_fini(&h->head);
    buf_fini(&h->in);
    buf_fini(&h->out);
    out_count(h);
    free(h);
}

int http1_receive(struct http1 *h, struct slice bytes)
{
    if (h->closing) {
        return OK; /* waits only for its answer to leave */
    }
    if (h->state == HTTP1_HEAD && h->in.len == 0) {
        h->since_ms = gatewayd_now_ms(h->gateway);
    }
    if (h->in.len + bytes.len > HTTP1_IN_BYTES_MAX) {
        return E_TOO_BIG; /* pipelines without waiting for answers */
    }
    buf_add_slice(&h->in, bytes);
    http1_process(h);
    return OK;
}

static void out_take(struct http1 *h, struct buf *out, size_t max)
{
    size_t n = MIN(out_len(h), max > out->len ? max - out->len : 0);
    if (n == 0) {
        return;
    }
    buf_add_slice(out, buf_part(&h->out, h->out_off, n));
    h->out_off += n;
    h->taken_ms = gatewayd_now_ms(h->gateway);
    if (h->out_off == h->out.len) {
        buf_fini(&h->out);
        h->out_off = 0;
        out_count(h);
    } else if (h->out_off >= HTTP1_OUT_BYTES_MAX && h->out_off >= h->out.len / 2) {
        buf_consume(&h->out, h->out_off); /* a stream's may never be empty */
        h->out_off = 0;
        out_count(h);
    }
}

int http1_write(struct http1 *h, struct buf *out, size_t max)
{
    out_take(h, out, max);
    h->processing = true;
    web_turn(&h->web);
    h->processing = false;
    out_take(h, out, max);
    http1_process(h); /* a pipelined request that waited for its turn */
    return OK;
}

bool http1_has_output(const struct http1 *h) { return out_len(h) > 0 || (!h->closing && web_has_more(&h->web)); }

static bool is_busy(const struct http1 *h) { return h->state == HTTP1_ANSWERING || h->state == HTTP1_RAW; }

bool http1_is_finished(const struct http1 *h)
{
    return !http1_has_output(h) && (h->closing || (h->input_ended && !is_busy(h)));
}

bool http1_is_busy(const struct http1 *h) { return is_busy(h); }

bool http1_end_of_input(struct http1 *h)
{
    h->input_ended = true;
    if (h->state == HTTP1_RAW || web_is_stream(&h->web)) {
        return false; /* nobody would tell us later that it has gone */
    }
    return h->state == HTTP1_ANSWERING || http1_has_output(h);
}

uint64_t http1_next_tick_ms(const struct http1 *h)
{
    if (is_busy(h) || web_is_stream(&h->web)) {
        return gatewayd_now_ms(h->gateway) + ANSWER_CHECK_MS;
    }
    bool is_idle = h->state == HTTP1_HEAD && h->in.len == 0;
    return h->since_ms + (is_idle ? HTTP1_IDLE_MS_MAX : h->state == HTTP1_BODY ? HTTP1_BODY_MS_MAX : HTTP1_HEAD_MS_MAX);
}

int http1_tick(struct http1 *h, uint64_t now_ms)
{
    /* An answer that nobody takes holds memory. Streams are exempt: they are bounded and may be left alone for hours. */
    if (out_len(h) > 0 && !web_is_stream(&h->web) && now_ms - h->taken_ms >= ANSWER_STALL_MS_MAX) {
        return E_TIMEOUT;
    }
    return now_ms >= http1_next_tick_ms(h) ? E_TIMEOUT : OK;
}

void http1_shutdown(struct http1 *h)
{
    h->keep_alive = false;
    web_shutdown(&h->web);
    if (!is_busy(h) && !web_is_stream(&h->web)) {
        h->closing = true;
    }
}
