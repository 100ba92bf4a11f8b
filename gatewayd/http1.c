/* http1 - HTTP/1.1 on one connection: a strict parser, one request at a time, keep-alive. From conn.c to httpapi.c and back.
 *
 *   HEAD --complete, no body--> ANSWERING --http1_respond--> HEAD (keep-alive) or closing
 *     \--complete, with body--> BODY --all of it read and thrown away--> ANSWERING
 *
 * Strict: CRLF only, no folded lines, no space before a colon, no two lengths, no chunked bodies (nothing here takes one).
 * What could be read in two ways is refused, so that nothing in front of us can read it differently. */
#include "gatewayd/http1.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/err.h"
#include "common/limits.h"

#define ANSWER_CHECK_MS 10000 /* while answering there is nothing to time out here: look again later */

enum http1_state { HTTP1_HEAD, HTTP1_BODY, HTTP1_ANSWERING };

struct http1 {
    struct gatewayd *gateway;
    const struct client *client;
    void (*wants_write)(void *arg);
    void *arg;
    enum http1_state state;
    struct buf in;
    struct buf out;
    size_t out_off;
    size_t head_len;    /* BODY: the head, which stays in `in` until its body is over */
    uint64_t body_left; /* BODY: still to be thrown away */
    uint64_t since_ms; /* HEAD: of its first byte, or of the last answer; BODY: of its head */
    struct http1_answer answer;
    bool is_head;      /* the request being answered was HEAD */
    bool is_old;       /* ... or HTTP/1.0 */
    bool keep_alive;
    bool closing;      /* after what is in out */
    bool input_ended;
    bool processing;   /* http1_process is on the stack */
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

static void parse_connection(struct slice value, struct http1_request *r)
{
    while (value.len > 0) {
        const uint8_t *comma = memchr(value.data, ',', value.len);
        size_t len = comma != NULL ? (size_t)(comma - value.data) : value.len;
        struct slice word = trim(slice_of(value.data, len));
        if (is_word(word, "close")) {
            r->keep_alive = false;
        } else if (is_word(word, "keep-alive")) {
            r->keep_alive = true;
        }
        len += comma != NULL;
        value = slice_of(value.data + len, value.len - len);
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
        r->chunked = true;
    } else if (is_word(name, "connection")) {
        parse_connection(value, r);
    } else if (is_word(name, "expect")) {
        r->expect_continue = is_word(value, "100-continue");
    } else if (is_word(name, "host")) {
        (*hosts)++;
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
    if (hosts > 1 || (hosts == 0 && !r->is_old) || (r->chunked && has_length)) {
        return E_MALFORMED;
    }
    return (int)head_len;
}

bool http1_query_has(struct slice query, const char *name, const char *value)
{
    while (query.len > 0) {
        const uint8_t *amp = memchr(query.data, '&', query.len);
        size_t len = amp != NULL ? (size_t)(amp - query.data) : query.len;
        size_t name_len = strlen(name);
        if (len == name_len + 1 + strlen(value) && memcmp(query.data, name, name_len) == 0 && query.data[name_len] == '='
            && memcmp(query.data + name_len + 1, value, strlen(value)) == 0) {
            return true;
        }
        len += amp != NULL;
        query = slice_of(query.data + len, query.len - len);
    }
    return false;
}

/* --- answers -------------------------------------------------------------------------------------------------- */

static const char *reason_of(int status)
{
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 413: return "Content Too Large";
    case 431: return "Request Header Fields Too Large";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Error";
    }
}

static void http1_process(struct http1 *h);

void http1_respond(struct http1 *h, int status, const char *content_type, struct slice body)
{
    must(h->state == HTTP1_ANSWERING);
    bool keep = h->keep_alive && !h->input_ended && !h->gateway->stopping;
    buf_printf(&h->out, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n", status, reason_of(status), content_type,
        body.len);
    if (status == 405) {
        buf_add_str(&h->out, "Allow: GET, HEAD\r\n");
    }
    buf_add_str(&h->out, keep ? (h->is_old ? "Connection: keep-alive\r\n\r\n" : "\r\n") : "Connection: close\r\n\r\n");
    if (!h->is_head) {
        buf_add_slice(&h->out, body);
    }
    h->closing = !keep;
    h->answer.req = 0;
    buf_reset(&h->answer.text);
    h->state = HTTP1_HEAD;
    h->since_ms = gatewayd_now_ms(h->gateway);
    h->wants_write(h->arg);
    if (!h->processing) {
        http1_process(h); /* a pipelined request may have come meanwhile */
    }
}

/* For what is not worth or not able to be parsed further: says why, then closes. */
static int refuse(struct http1 *h, int err)
{
    stats_dropped(h->gateway, DROP_MALFORMED);
    int status = err == E_VERSION ? 505 : err == E_TOO_BIG ? (h->in.len >= HTTP1_HEAD_BYTES_MAX ? 431 : 413) : 400;
    h->state = HTTP1_ANSWERING;
    h->keep_alive = false;
    h->is_head = false;
    h->processing = true;
    struct slice text = slice_str(reason_of(status));
    http1_respond(h, status, "text/plain; charset=utf-8", text);
    h->processing = false;
    buf_reset(&h->in);
    return OK;
}

static void begin_answer(struct http1 *h, const struct http1_request *r)
{
    h->state = HTTP1_ANSWERING;
    h->is_head = slice_eq(r->method, SLICE_LIT("HEAD"));
    h->is_old = r->is_old;
    h->keep_alive = r->keep_alive;
    if (r->chunked) {
        h->keep_alive = false; /* its end cannot be told */
        http1_respond(h, 501, "text/plain; charset=utf-8", SLICE_LIT("chunked bodies are not taken\n"));
        return;
    }
    httpapi_handle(h->gateway, h, r);
}

/* Throws away what is there of the body. False: more of it is to come. */
static bool body_drop(struct http1 *h)
{
    size_t rest = h->in.len - h->head_len, n = (size_t)MIN(h->body_left, (uint64_t)rest);
    if (n > 0) {
        memmove(h->in.data + h->head_len, h->in.data + h->head_len + n, rest - n);
        h->in.len -= n;
        h->body_left -= n;
    }
    return h->body_left == 0;
}

/* Goes through what was received as far as it goes. */
static void http1_process(struct http1 *h)
{
    h->processing = true;
    while (!h->closing && h->in.len > 0) {
        /* A client that does not read its answers gets no more of them. */
        if (h->state == HTTP1_ANSWERING || h->out.len - h->out_off > HTTP1_OUT_BYTES_MAX) {
            break;
        }
        if (h->state == HTTP1_BODY && !body_drop(h)) {
            break;
        }
        struct http1_request r;
        int n = http1_parse_head(buf_slice(&h->in), &r);
        if (n < 0) {
            refuse(h, n);
            break;
        }
        if (n == 0) {
            break;
        }
        if (r.expect_continue && h->state == HTTP1_HEAD && r.body_len > 0) {
            buf_add_str(&h->out, "HTTP/1.1 100 Continue\r\n\r\n");
            h->wants_write(h->arg);
        }
        if (r.body_len > 0 && h->state == HTTP1_HEAD) {
            h->state = HTTP1_BODY;
            h->head_len = (size_t)n;
            h->body_left = r.body_len;
            continue;
        }
        begin_answer(h, &r); /* borrows h->in until it returns */
        buf_consume(&h->in, (size_t)n);
    }
    h->processing = false;
}

/* --- the connection ---------------------------------------------------------------------------------------------- */

struct http1 *http1_new(struct gatewayd *g, void (*wants_write)(void *arg), void *arg)
{
    struct http1 *h = xcalloc(1, sizeof(*h));
    h->gateway = g;
    h->client = &CLIENT_ANY;
    h->wants_write = wants_write;
    h->arg = arg;
    h->since_ms = gatewayd_now_ms(g);
    return h;
}

void http1_set_client(struct http1 *h, const struct client *client) { h->client = client; }

void http1_free(struct http1 *h)
{
    if (h == NULL) {
        return;
    }
    pending_cancel(h->gateway, h->answer.req);
    buf_fini(&h->answer.text);
    buf_fini(&h->in);
    buf_fini(&h->out);
    free(h);
}

struct http1_answer *http1_answer_of(struct http1 *h) { return &h->answer; }
struct gatewayd *http1_gateway(struct http1 *h) { return h->gateway; }
const struct client *http1_client(const struct http1 *h) { return h->client; }

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

int http1_write(struct http1 *h, struct buf *out, size_t max)
{
    size_t n = MIN(h->out.len - h->out_off, max > out->len ? max - out->len : 0);
    buf_add_slice(out, buf_part(&h->out, h->out_off, n));
    h->out_off += n;
    if (h->out_off == h->out.len) {
        buf_fini(&h->out);
        h->out_off = 0;
        http1_process(h); /* a pipelined request that waited for it */
    }
    return OK;
}

bool http1_has_output(const struct http1 *h) { return h->out.len > h->out_off; }

bool http1_is_finished(const struct http1 *h)
{
    return !http1_has_output(h) && (h->closing || (h->input_ended && h->state != HTTP1_ANSWERING));
}

bool http1_is_busy(const struct http1 *h) { return h->state == HTTP1_ANSWERING; }

bool http1_end_of_input(struct http1 *h)
{
    h->input_ended = true;
    return h->state == HTTP1_ANSWERING || http1_has_output(h);
}

uint64_t http1_next_tick_ms(const struct http1 *h)
{
    if (h->state == HTTP1_ANSWERING) {
        return gatewayd_now_ms(h->gateway) + ANSWER_CHECK_MS;
    }
    bool is_idle = h->state == HTTP1_HEAD && h->in.len == 0;
    return h->since_ms + (is_idle ? HTTP1_IDLE_MS_MAX : HTTP1_HEAD_MS_MAX);
}

int http1_tick(struct http1 *h, uint64_t now_ms)
{
    return now_ms >= http1_next_tick_ms(h) ? E_TIMEOUT : OK;
}

void http1_shutdown(struct http1 *h)
{
    if (h->state != HTTP1_ANSWERING) {
        h->closing = true;
    }
}
