/* conn - one connection of a client: bytes from the socket, through TLS (conn_tls.c) if its listener wants it, to h2.c or http1.c, and
 * back. Which protocol a client speaks is told by its first bytes.
 * Holds at all times: a connection has at most one uv_write under way, and while it has, nothing more is taken from its protocol: what a
 * slow client does not read stays in its calls, which have limits of their own. Reading and the common case of writing use buffers
 * shared by all connections. */
#include "gatewayd/conn_int.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/err.h"
#include "gatewayd/h2.h"
#include "gatewayd/http1.h"

/* A protocol is told the time at least this often: it then looks for answers that nobody takes. */
#define TICK_MS_MAX 30000
/* A client that does not read while this many of its calls are open is not read from either. */
#define BUSY_CALLS_MAX 1024
/* Before the first byte of a handshake is looked at, no more than this is taken. */
#define HELLO_BYTES ((size_t)4 * KIB)

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
_Static_assert(sizeof(preface) - 1 == PREFACE_BYTES, "the preface of HTTP/2");

/* --- protocols ----------------------------------------------------------------------------------- */

static void *h2_open(struct gatewayd *g, const struct client *client, void (*wants_write)(void *arg), void *arg)
{
    struct h2 *h = h2_new(g, wants_write, arg);
    h2_set_client(h, client);
    return h;
}

static void h2_free_(void *self) { h2_free(self); }
static int h2_receive_(void *self, struct slice bytes) { return h2_receive(self, bytes); }
static int h2_write_(void *self, struct buf *out, size_t max) { return h2_write(self, out, max); }
static bool h2_has_output_(void *self) { return h2_has_output(self); }
static bool h2_is_finished_(void *self) { return h2_is_finished(self); }
static bool h2_end_of_input(void *self) { UNUSED(self); return false; }
static int h2_tick_(void *self, uint64_t now_ms) { return h2_tick(self, now_ms); }
static uint64_t h2_next_tick_(void *self) { return h2_next_tick_ms(self); }
static void h2_shutdown_(void *self) { h2_shutdown(self); }
static size_t h2_busy(void *self) { return h2_call_count(self); }

static const struct protocol protocol_h2 = {"h2", h2_open, h2_free_, h2_receive_, h2_write_, h2_has_output_, h2_is_finished_,
    h2_end_of_input, h2_tick_, h2_next_tick_, h2_shutdown_, h2_busy};

static void *http1_open(struct gatewayd *g, const struct client *client, void (*wants_write)(void *arg), void *arg)
{
    struct http1 *h = http1_new(g, wants_write, arg);
    http1_set_client(h, client);
    return h;
}

static void http1_free_(void *self) { http1_free(self); }
static int http1_receive_(void *self, struct slice bytes) { return http1_receive(self, bytes); }
static int http1_write_(void *self, struct buf *out, size_t max) { return http1_write(self, out, max); }
static bool http1_has_output_(void *self) { return http1_has_output(self); }
static bool http1_is_finished_(void *self) { return http1_is_finished(self); }
static bool http1_end_of_input_(void *self) { return http1_end_of_input(self); }
static int http1_tick_(void *self, uint64_t now_ms) { return http1_tick(self, now_ms); }
static uint64_t http1_next_tick_(void *self) { return http1_next_tick_ms(self); }
static void http1_shutdown_(void *self) { http1_shutdown(self); }
static size_t http1_busy(void *self) { return http1_is_busy(self); }

static const struct protocol protocol_http1 = {"http1", http1_open, http1_free_, http1_receive_, http1_write_, http1_has_output_,
    http1_is_finished_, http1_end_of_input_, http1_tick_, http1_next_tick_, http1_shutdown_, http1_busy};

const struct protocol *protocol_of(struct slice first_bytes)
{
    size_t n = MIN(first_bytes.len, PREFACE_BYTES);
    if (memcmp(first_bytes.data, preface, n) != 0) {
        return &protocol_http1; /* "PUT" and "POST" differ from "PRI" at the latest in their third byte */
    }
    return n == PREFACE_BYTES ? &protocol_h2 : NULL;
}

/* --- life ----------------------------------------------------------------------------------------- */

void conn_unhold(struct conn *c)
{
    must(c->holds > 0);
    if (--c->holds > 0) {
        return;
    }
    conn_tls_fini(c);
    free(c);
}

static void conn_closed(uv_handle_t *handle)
{
    conn_unhold(handle->data);
}

static void half_open_leave(struct conn *c)
{
    if (c->protocol == NULL) {
        TAILQ_REMOVE(&c->server->half_open, c, half_open_entry);
        c->server->half_open_count--;
    }
}

/* Bytes that the socket has not taken; what TLS has made of answers counts like the answers. */
static void out_set(struct conn *c, struct slice bytes)
{
    struct gatewayd *g = c->server->gateway;
    g->outbound_bytes -= c->out.len;
    if (bytes.len > 0) {
        buf_add_slice(&c->out, bytes);
    } else {
        buf_fini(&c->out);
    }
    g->outbound_bytes += c->out.len;
}

void conn_close(struct conn *c)
{
    if (c->closing) {
        return;
    }
    c->closing = true;
    struct server *s = c->server;
    if (c->self != NULL) {
        c->protocol->free(c->self);
        c->self = NULL;
    }
    if (c->resting) {
        LIST_REMOVE(c, resting_entry);
        c->resting = false;
    }
    half_open_leave(c);
    deadline_stop(s->gateway, &c->tick);
    server_dirty_remove(c);
    LIST_REMOVE(c, entry);
    s->conn_count--;
    conn_tls_forget(c);
    if (!c->writing) {
        out_set(c, SLICE_EMPTY);
    }
    uv_close(&c->socket.handle, conn_closed); /* a write under way hears of it first */
}

void conn_wants_write(void *arg)
{
    struct conn *c = arg;
    if (!c->dirty && !c->flushing && !c->closing) {
        c->dirty = true;
        c->dirty_next = c->server->dirty;
        c->server->dirty = c;
    }
}

static void conn_set_tick(struct conn *c)
{
    struct gatewayd *g = c->server->gateway;
    uint64_t at = c->protocol->next_tick_ms(c->self);
    deadline_set(g, &c->tick, MIN(at, gatewayd_now_ms(g) + TICK_MS_MAX));
}

/* Has the socket taken nothing for a long time? What it is to take is memory here. */
static bool is_stuck(struct conn *c, uint64_t now_ms)
{
    size_t left = c->writing ? uv_stream_get_write_queue_size(&c->socket.stream) : 0;
    if (left == 0 || left != c->unwritten) {
        c->unwritten = left;
        c->moved_ms = now_ms;
    }
    return left > 0 && now_ms - c->moved_ms >= ANSWER_STALL_MS_MAX;
}

static void conn_tick(struct deadline *d, uint64_t now_ms)
{
    struct conn *c = container_of(d, struct conn, tick);
    enum drop why = DROP_SLOW;
    if (is_stuck(c, now_ms)) {
        why = DROP_UNREAD;
    } else if (c->protocol != NULL && c->protocol->tick(c->self, now_ms) == OK) {
        conn_set_tick(c);
        return;
    }
    stats_dropped(c->server->gateway, why); /* too slow to say what it wants, or does not answer pings */
    conn_close(c);
}

/* --- in ------------------------------------------------------------------------------------------- */

/* Does the listener serve it? What does not is closed, as etcd's is. */
static bool protocol_is_served(const struct conn *c, const struct protocol *p)
{
    if (c->client.serves & SERVES_HTTP) {
        return true;
    }
    return p == &protocol_h2 ? (c->client.serves & SERVES_GRPC) || c->client.is_tls : (c->client.serves & SERVES_METRICS) != 0;
}

/* Bytes of a connection whose protocol is not yet known. */
static void conn_sniff(struct conn *c, struct slice bytes)
{
    size_t n = MIN(bytes.len, PREFACE_BYTES - c->first_len);
    memcpy(c->first + c->first_len, bytes.data, n);
    c->first_len += (uint8_t)n;
    const struct protocol *protocol = protocol_of(slice_of(c->first, c->first_len));
    if (protocol == NULL) {
        return;
    }
    if (!protocol_is_served(c, protocol)) {
        stats_dropped(c->server->gateway, DROP_MALFORMED);
        conn_close(c);
        return;
    }
    half_open_leave(c);
    c->protocol = protocol;
    c->self = protocol->open(c->server->gateway, &c->client, conn_wants_write, c);
    int err = protocol->receive(c->self, slice_of(c->first, c->first_len));
    if (err == OK && bytes.len > n) {
        err = protocol->receive(c->self, slice_of(bytes.data + n, bytes.len - n));
    }
    if (err != OK) {
        conn_flush(c); /* what it still has to say, a GOAWAY or "400", leaves if the socket takes it at once */
        conn_close(c);
        return;
    }
    conn_set_tick(c);
}

void conn_receive(struct conn *c, struct slice bytes)
{
    if (c->protocol == NULL) {
        conn_sniff(c, bytes);
    } else if (c->protocol->receive(c->self, bytes) != OK) {
        conn_flush(c);
        conn_close(c);
        return;
    } else if (c->protocol == &protocol_http1) {
        conn_set_tick(c); /* its deadline moves with what was read; h2's only ever moves later by itself */
    }
    if (c->writing && c->self != NULL && c->protocol->busy(c->self) > BUSY_CALLS_MAX) {
        conn_set_reading(c, false); /* until what is being written has left */
    }
}

void conn_ended(struct conn *c)
{
    if (c->self == NULL || !c->protocol->end_of_input(c->self)) {
        conn_close(c);
        return;
    }
    conn_set_reading(c, false);
    c->input_ended = true; /* read no more, answer what was asked */
    conn_wants_write(c);
}

static void conn_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);

static void conn_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    UNUSED(suggested);
    struct conn *c = handle->data;
    *buf = uv_buf_init((char *)c->server->read_bytes, c->tls_state == CONN_TLS_WAITING ? HELLO_BYTES : CONN_READ_BYTES);
}

/* It has more than its share of the turn: what is left is read in the next one. */
static void conn_rest(struct conn *c)
{
    uv_read_stop(&c->socket.stream); /* libuv would go on reading many times */
    c->resting = true;
    LIST_INSERT_HEAD(&c->server->resting, c, resting_entry);
}

void conn_rested(struct conn *c)
{
    LIST_REMOVE(c, resting_entry);
    c->resting = false;
    if (c->reading) {
        uv_read_start(&c->socket.stream, conn_alloc, conn_read);
    }
}

static void conn_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct conn *c = stream->data;
    if (n == 0 || c->closing) {
        return;
    }
    if (n == (ssize_t)CONN_READ_BYTES) {
        conn_rest(c);
    }
    if (n == UV_EOF) {
        conn_ended(c);
    } else if (n < 0) {
        conn_close(c);
    } else if (c->tls_state != CONN_TLS_NONE) {
        conn_tls_receive(c, slice_of(buf->base, (size_t)n));
    } else {
        conn_receive(c, slice_of(buf->base, (size_t)n));
    }
}

void conn_set_reading(struct conn *c, bool reading)
{
    if (c->closing || c->input_ended || reading == c->reading) {
        return;
    }
    c->reading = reading;
    if (c->resting) {
        return; /* takes effect when it has rested */
    }
    if (reading) {
        uv_read_start(&c->socket.stream, conn_alloc, conn_read);
    } else {
        uv_read_stop(&c->socket.stream);
    }
}

/* --- out ------------------------------------------------------------------------------------------ */

static void conn_written(uv_write_t *request, int status)
{
    struct conn *c = request->data;
    c->writing = false;
    out_set(c, SLICE_EMPTY);
    if (c->closing) {
        return;
    }
    if (status != 0) {
        conn_close(c);
        return;
    }
    if (c->tls_state != CONN_TLS_HANDSHAKING) { /* then a worker may have the struct tls: conn_tls.c says when to read */
        conn_set_reading(c, true);
    }
    conn_wants_write(c);
}

/* Gives the kernel what it takes now and libuv the rest. */
int conn_write(struct conn *c, struct slice bytes)
{
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)bytes.data, (unsigned)bytes.len);
    int n = uv_try_write(&c->socket.stream, &buf, 1);
    if (n < 0 && n != UV_EAGAIN) {
        return E_IO;
    }
    size_t written = n > 0 ? (size_t)n : 0;
    if (written == bytes.len) {
        return OK;
    }
    out_set(c, slice_of(bytes.data + written, bytes.len - written));
    buf = uv_buf_init((char *)c->out.data, (unsigned)c->out.len);
    c->write_request.data = c;
    if (uv_write(&c->write_request, &c->socket.stream, &buf, 1, conn_written) != 0) {
        return E_IO;
    }
    c->writing = true;
    c->unwritten = 0; /* is_stuck begins anew */
    if (c->self != NULL) {
        conn_set_reading(c, c->protocol->busy(c->self) <= BUSY_CALLS_MAX);
    }
    return OK;
}

/* One piece of the protocol's, if there is any, and what TLS has to say. */
static int conn_write_piece(struct conn *c, struct slice plain)
{
    struct server *s = c->server;
    if (c->tls_state == CONN_TLS_NONE) {
        return plain.len > 0 ? conn_write(c, plain) : OK;
    }
    buf_reset(&s->cipher);
    int err = conn_tls_write(c, plain, &s->cipher);
    if (err == OK && s->cipher.len > 0) {
        err = conn_write(c, buf_slice(&s->cipher));
    }
    return err;
}

void conn_flush(struct conn *c)
{
    struct server *s = c->server;
    size_t bytes = 0;
    bool again = false;
    c->flushing = true;
    if (c->self == NULL && !c->writing && !c->closing && conn_write_piece(c, SLICE_EMPTY) != OK) {
        conn_close(c); /* TLS alone had something to say */
        return;
    }
    while (!c->writing && !c->closing && c->self != NULL) {
        buf_reset(&s->scratch);
        int err = c->protocol->write(c->self, &s->scratch, H2_WRITE_BYTES);
        size_t len = s->scratch.len;
        if (err != OK || conn_write_piece(c, buf_slice(&s->scratch)) != OK) {
            conn_close(c);
            return;
        }
        bytes += len;
        if (!c->protocol->has_output(c->self)) {
            break;
        }
        if (len == 0 || bytes >= H2_TURN_BYTES_MAX) {
            again = len > 0; /* else the client's windows are closed */
            break;
        }
    }
    c->flushing = false;
    if (again && !c->closing) {
        conn_wants_write(c);
        loop_wake(s->again);
    }
    if (!c->closing && !c->writing && c->self != NULL && c->protocol->is_finished(c->self)) {
        conn_close(c);
    }
}

struct slice conn_common_name(const struct conn *c)
{
    return c->client.common_name != NULL ? slice_str(c->client.common_name) : SLICE_EMPTY;
}

/* --- accepting ------------------------------------------------------------------------------------ */

static void socket_init(struct listener *l, union socket *socket)
{
    uv_loop_t *uv = loop_uv(l->server->gateway->loop);
    must((l->is_unix ? uv_pipe_init(uv, &socket->pipe, 0) : uv_tcp_init(uv, &socket->tcp)) == 0);
}

static void refused_closed(uv_handle_t *handle) { free(handle->data); }

/* Over the limit: take the connection off the queue and close it, so that it does not wait there. */
static void refuse(struct listener *l)
{
    struct server *s = l->server;
    union socket *socket = xcalloc(1, sizeof(*socket));
    socket_init(l, socket);
    socket->handle.data = socket;
    uv_accept(&l->socket.stream, &socket->stream);
    uv_close(&socket->handle, refused_closed);
    stats_dropped(s->gateway, DROP_LIMIT);
    uint64_t swallowed = 0;
    if (log_allow(&s->refused, gatewayd_now_ms(s->gateway), &swallowed)) {
        log_warnx("conn: refused a client, %zu connections are open (%llu more refusals not logged)", s->conn_count,
            (unsigned long long)swallowed);
    }
}

/* What is not sent yet waits here, where it can still be put in a better order, rather than in the kernel. */
static void tcp_options(struct conn *c)
{
    uv_os_fd_t fd;
    int unsent = CONN_UNSENT_BYTES;
    uv_tcp_nodelay(&c->socket.tcp, 1);
    uv_tcp_keepalive(&c->socket.tcp, 1, 30);
    if (uv_fileno(&c->socket.handle, &fd) == 0 && setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent)) != 0) {
        log_debug("conn: TCP_NOTSENT_LOWAT");
    }
}

void conn_accept(struct listener *l)
{
    struct server *s = l->server;
    if (s->half_open_count >= HALF_OPEN_MAX || (s->conn_count >= s->conn_max && s->half_open_count > HALF_OPEN_KEPT)) {
        stats_dropped(s->gateway, DROP_LIMIT);
        conn_close(TAILQ_FIRST(&s->half_open)); /* it had its time: a client that means it speaks at once */
    }
    if (s->conn_count >= s->conn_max || s->stopping) {
        refuse(l);
        return;
    }
    struct conn *c = xcalloc(1, sizeof(*c));
    c->server = s;
    c->holds = 1;
    c->tick.fire = conn_tick;
    c->client.serves = l->serves;
    c->client.is_tls = l->is_tls;
    c->client.rate = &c->rate;
    socket_init(l, &c->socket);
    c->socket.handle.data = c;
    LIST_INSERT_HEAD(&s->conns, c, entry);
    s->conn_count++;
    TAILQ_INSERT_TAIL(&s->half_open, c, half_open_entry);
    s->half_open_count++;
    if (uv_accept(&l->socket.stream, &c->socket.stream) != 0) {
        conn_close(c);
        return;
    }
    if (!l->is_unix) {
        tcp_options(c);
    }
    if (l->is_tls) {
        conn_tls_begin(c);
    }
    deadline_set(s->gateway, &c->tick, gatewayd_now_ms(s->gateway) + HTTP1_HEAD_MS_MAX);
    conn_set_reading(c, true);
}
