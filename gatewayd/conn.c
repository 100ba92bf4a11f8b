/* conn - sockets of clients (libuv). Bytes from the kernel to h2.c or http1.c and back.
 * Holds at all times: at most CONNECTIONS_MAX connections; a connection has at most one uv_write under way, and
 * while it has, nothing more is taken from its protocol: what a slow client does not read stays in its calls, which have
 * limits of their own. Reading and the common case of writing use buffers shared by all connections. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <uv.h>
#undef MIN /* libuv brings sys/param.h's, base.h has the same */
#undef MAX

#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "gatewayd/conn.h"
#include "gatewayd/h2.h"
#include "gatewayd/http1.h"

#define READ_BYTES (64 * KIB)
#define LISTENERS_MAX 16
/* A protocol is told the time at least this often: it then looks for answers that nobody takes. */
#define TICK_MS_MAX 30000
#define LISTEN_BACKLOG 1024
/* A client that does not read while this many of its calls are open is not read from either. */
#define BUSY_CALLS_MAX 4096

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
#define PREFACE_BYTES (sizeof(preface) - 1)

struct conn {
    struct server *server;
    struct conn *prev, *next;
    struct conn *dirty_next;
    struct client client;
    uv_tcp_t tcp;
    uv_write_t write_request;
    const struct protocol *protocol; /* NULL: not yet known */
    void *self;                      /* the protocol's */
    struct deadline tick;
    struct buf out; /* what uv_write is writing */
    uint8_t first[PREFACE_BYTES];
    uint8_t first_len;
    bool writing;
    bool dirty;    /* in the server's list */
    bool flushing; /* conn_flush is at work: it sees by itself what is new */
    bool closing;
    bool reading;
    bool input_ended;
};

struct server {
    struct gatewayd *gateway;
    uv_tcp_t listeners[LISTENERS_MAX];
    size_t listener_count;
    struct conn *conns;
    size_t conn_count, conn_max;
    struct conn *dirty;
    struct buf scratch;     /* one write */
    uint8_t *read_bytes;
    struct loop_wake *again; /* a connection was not finished within its share of the turn */
    struct log_limit refused;
    bool stopping;
};

static void conn_flush(struct conn *c);

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

/* --- one connection ------------------------------------------------------------------------------ */

static void conn_closed(uv_handle_t *handle)
{
    struct conn *c = handle->data;
    buf_fini(&c->out);
    free(c->client.common_name);
    free(c);
}

static void conn_close(struct conn *c)
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
    deadline_stop(s->gateway, &c->tick);
    if (c->dirty) {
        struct conn **at = &s->dirty;
        while (*at != NULL && *at != c) {
            at = &(*at)->dirty_next;
        }
        if (*at == c) {
            *at = c->dirty_next;
        }
        c->dirty = false;
    }
    *(c->prev != NULL ? &c->prev->next : &s->conns) = c->next;
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    s->conn_count--;
    uv_close((uv_handle_t *)&c->tcp, conn_closed);
}

static void conn_wants_write(void *arg)
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

static void conn_tick(struct deadline *d, uint64_t now_ms)
{
    struct conn *c = container_of(d, struct conn, tick);
    if (c->protocol == NULL || c->protocol->tick(c->self, now_ms) != OK) {
        stats_dropped(c->server->gateway, DROP_SLOW);
        conn_close(c); /* too slow to say what it wants, or does not answer pings */
        return;
    }
    conn_set_tick(c);
}

/* Bytes of a connection whose protocol is not yet known. False: it is gone. */
static bool conn_sniff(struct conn *c, struct slice bytes)
{
    size_t n = MIN(bytes.len, PREFACE_BYTES - c->first_len);
    memcpy(c->first + c->first_len, bytes.data, n);
    c->first_len += (uint8_t)n;
    c->protocol = protocol_of(slice_of(c->first, c->first_len));
    if (c->protocol == NULL) {
        return true;
    }
    c->self = c->protocol->open(c->server->gateway, &c->client, conn_wants_write, c);
    int err = c->protocol->receive(c->self, slice_of(c->first, c->first_len));
    if (err == OK && bytes.len > n) {
        err = c->protocol->receive(c->self, slice_of(bytes.data + n, bytes.len - n));
    }
    if (err != OK) {
        conn_flush(c); /* what it still has to say, a GOAWAY or "400", leaves if the socket takes it at once */
        conn_close(c);
        return false;
    }
    conn_set_tick(c);
    return true;
}

static void conn_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    UNUSED(suggested);
    struct conn *c = handle->data;
    *buf = uv_buf_init((char *)c->server->read_bytes, READ_BYTES);
}

static void conn_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct conn *c = stream->data;
    if (n == 0 || c->closing) {
        return;
    }
    if (n < 0) {
        if (n == UV_EOF && c->self != NULL && c->protocol->end_of_input(c->self)) {
            c->input_ended = true; /* read no more, answer what was asked */
            uv_read_stop(stream);
            c->reading = false;
            conn_wants_write(c);
            return;
        }
        conn_close(c);
        return;
    }
    struct slice bytes = slice_of(buf->base, (size_t)n);
    if (c->protocol == NULL) {
        conn_sniff(c, bytes);
    } else if (c->protocol->receive(c->self, bytes) != OK) {
        conn_flush(c);
        conn_close(c);
    } else if (c->protocol == &protocol_http1) {
        conn_set_tick(c); /* its deadline moves with what was read; h2's only ever moves later by itself */
    }
}

static void conn_set_reading(struct conn *c, bool reading)
{
    if (c->closing || c->input_ended || reading == c->reading) {
        return;
    }
    c->reading = reading;
    if (reading) {
        uv_read_start((uv_stream_t *)&c->tcp, conn_alloc, conn_read);
    } else {
        uv_read_stop((uv_stream_t *)&c->tcp);
    }
}

static void conn_written(uv_write_t *request, int status)
{
    struct conn *c = request->data;
    c->writing = false;
    buf_fini(&c->out);
    if (c->closing) {
        return;
    }
    if (status != 0) {
        conn_close(c);
        return;
    }
    conn_set_reading(c, true);
    conn_wants_write(c);
}

/* Gives the kernel what it takes now and libuv the rest. */
static int conn_write(struct conn *c, struct slice bytes)
{
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)bytes.data, (unsigned)bytes.len);
    int n = uv_try_write((uv_stream_t *)&c->tcp, &buf, 1);
    if (n < 0 && n != UV_EAGAIN) {
        return E_IO;
    }
    size_t written = n > 0 ? (size_t)n : 0;
    if (written == bytes.len) {
        return OK;
    }
    buf_add(&c->out, bytes.data + written, bytes.len - written);
    buf = uv_buf_init((char *)c->out.data, (unsigned)c->out.len);
    c->write_request.data = c;
    if (uv_write(&c->write_request, (uv_stream_t *)&c->tcp, &buf, 1, conn_written) != 0) {
        return E_IO;
    }
    c->writing = true;
    conn_set_reading(c, c->protocol->busy(c->self) <= BUSY_CALLS_MAX);
    return OK;
}

static void conn_flush(struct conn *c)
{
    struct server *s = c->server;
    size_t bytes = 0;
    bool again = false;
    c->flushing = true;
    while (!c->writing && !c->closing && c->self != NULL) {
        buf_reset(&s->scratch);
        int err = c->protocol->write(c->self, &s->scratch, H2_WRITE_BYTES);
        if (err != OK || (s->scratch.len > 0 && conn_write(c, buf_slice(&s->scratch)) != OK)) {
            conn_close(c);
            return;
        }
        bytes += s->scratch.len;
        if (!c->protocol->has_output(c->self)) {
            break;
        }
        if (s->scratch.len == 0 || bytes >= H2_TURN_BYTES_MAX) {
            again = s->scratch.len > 0; /* else the client's windows are closed */
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

/* --- the server ---------------------------------------------------------------------------------- */

static void server_turn_end(void *arg)
{
    struct server *s = arg;
    struct conn *dirty = s->dirty;
    s->dirty = NULL;
    while (dirty != NULL) {
        struct conn *c = dirty;
        dirty = c->dirty_next;
        c->dirty = false;
        conn_flush(c);
    }
    if (s->dirty != NULL) {
        loop_wake(s->again); /* told again while it was flushed */
    }
    gatewayd_arm_wakeup(s->gateway);
}

static void server_again(void *arg)
{
    UNUSED(arg); /* the turn's end does the work */
}

static void refused_closed(uv_handle_t *handle) { free(handle); }

/* Over the limit: take the connection off the queue and close it, so that it does not wait there. */
static void server_refuse(struct server *s, uv_stream_t *listener)
{
    uv_tcp_t *tcp = xcalloc(1, sizeof(*tcp));
    must(uv_tcp_init(loop_uv(s->gateway->loop), tcp) == 0);
    uv_accept(listener, (uv_stream_t *)tcp);
    uv_close((uv_handle_t *)tcp, refused_closed);
    stats_dropped(s->gateway, DROP_LIMIT);
    uint64_t swallowed = 0;
    if (log_allow(&s->refused, gatewayd_now_ms(s->gateway), &swallowed)) {
        log_warnx("conn: refused a client, %zu connections are open (%llu more refusals not logged)", s->conn_count,
            (unsigned long long)swallowed);
    }
}

static void server_accept(uv_stream_t *listener, int status)
{
    struct server *s = listener->data;
    if (status < 0) {
        log_debug("conn: accept: %s", uv_strerror(status));
        return;
    }
    if (s->conn_count >= s->conn_max || s->stopping) {
        server_refuse(s, listener);
        return;
    }
    struct conn *c = xcalloc(1, sizeof(*c));
    c->server = s;
    c->tick.fire = conn_tick;
    c->client.serves = SERVES_GRPC | SERVES_HTTP;
    must(uv_tcp_init(loop_uv(s->gateway->loop), &c->tcp) == 0);
    c->tcp.data = c;
    c->next = s->conns;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    s->conns = c;
    s->conn_count++;
    if (uv_accept(listener, (uv_stream_t *)&c->tcp) != 0) {
        conn_close(c);
        return;
    }
    uv_tcp_nodelay(&c->tcp, 1);
    uv_tcp_keepalive(&c->tcp, 1, 30);
    deadline_set(s->gateway, &c->tick, gatewayd_now_ms(s->gateway) + HTTP1_HEAD_MS_MAX);
    conn_set_reading(c, true);
}

/* One address. 0 or a libuv error. */
static int listen_on(struct server *s, const struct addrinfo *a)
{
    if (s->listener_count == LISTENERS_MAX) {
        return UV_E2BIG;
    }
    uv_tcp_t *tcp = &s->listeners[s->listener_count];
    int rv = uv_tcp_init_ex(loop_uv(s->gateway->loop), tcp, (unsigned)a->ai_family);
    if (rv != 0) {
        return rv;
    }
    tcp->data = s;
    uv_os_fd_t fd;
    if (s->gateway->conf->socket_reuse_port && uv_fileno((uv_handle_t *)tcp, &fd) == 0) {
        int on = 1;
        if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0) {
            log_warn("conn: SO_REUSEPORT");
        }
    }
    /* An address for all IPv6 must not take the IPv4 one too, which may be listed on its own. */
    rv = uv_tcp_bind(tcp, a->ai_addr, a->ai_family == AF_INET6 ? UV_TCP_IPV6ONLY : 0);
    if (rv == 0) {
        rv = uv_listen((uv_stream_t *)tcp, LISTEN_BACKLOG, server_accept);
    }
    s->listener_count++; /* also a failed one: it is closed with the rest */
    return rv;
}

static void listen_url(struct server *s, const struct conf_url *url)
{
    if (strcmp(url->scheme, "http") != 0) {
        fatalx("conn: listen-client-urls: scheme %s is not served, only http", url->scheme);
    }
    char port[8];
    snprintf(port, sizeof(port), "%u", url->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
    int rv = getaddrinfo(url->host, port, &hints, &list);
    if (rv != 0) {
        fatalx("conn: cannot resolve %s of listen-client-urls: %s", url->host, gai_strerror(rv));
    }
    size_t good = 0;
    int last = 0;
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        char name[NI_MAXHOST];
        if (getnameinfo(a->ai_addr, a->ai_addrlen, name, sizeof(name), NULL, 0, NI_NUMERICHOST) != 0) {
            strcpy(name, "?");
        }
        int err = listen_on(s, a);
        if (err == UV_EADDRINUSE) {
            fatalx("conn: cannot listen on %s port %s (%s:%s): address already in use", name, port, url->host, port);
        }
        if (err != 0) {
            last = err; /* "localhost" may name ::1 on a host without IPv6 */
            log_debug("conn: cannot listen on %s port %s: %s", name, port, uv_strerror(err));
            continue;
        }
        log_info("conn: listening on %s port %s", name, port);
        good++;
    }
    freeaddrinfo(list);
    if (good == 0) {
        fatalx("conn: cannot listen on %s:%s: %s", url->host, port, uv_strerror(last));
    }
}

struct server *server_new(struct gatewayd *g)
{
    struct server *s = xcalloc(1, sizeof(*s));
    s->gateway = g;
    s->read_bytes = xmalloc(READ_BYTES);
    s->again = loop_wake_new(g->loop, server_again, s);
    s->conn_max = CONNECTIONS_MAX;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur != RLIM_INFINITY) {
        size_t usable = files.rlim_cur > 2 * CONNECTION_SPARE_FILES ? files.rlim_cur - CONNECTION_SPARE_FILES : CONNECTION_SPARE_FILES;
        s->conn_max = MIN(s->conn_max, usable);
    }
    struct conf_url *urls = NULL;
    size_t count = 0;
    if (conf_parse_urls(g->conf->listen_client_urls, &urls, &count) != OK) {
        fatalx("conn: listen-client-urls %s cannot be understood", g->conf->listen_client_urls);
    }
    for (size_t i = 0; i < count; i++) {
        listen_url(s, &urls[i]);
    }
    conf_free_urls(urls, count);
    loop_on_turn_end(g->loop, server_turn_end, s);
    return s;
}

static void stop_listening(struct server *s)
{
    for (size_t i = 0; i < s->listener_count; i++) {
        if (!uv_is_closing((uv_handle_t *)&s->listeners[i])) {
            uv_close((uv_handle_t *)&s->listeners[i], NULL);
        }
    }
}

void server_shutdown(struct server *s)
{
    s->stopping = true;
    stop_listening(s);
    for (struct conn *c = s->conns, *next; c != NULL; c = next) {
        next = c->next;
        if (c->self == NULL) {
            conn_close(c);
        } else {
            c->protocol->shutdown(c->self);
            conn_wants_write(c);
        }
    }
}

void server_free(struct server *s)
{
    if (s == NULL) {
        return;
    }
    stop_listening(s);
    while (s->conns != NULL) {
        conn_close(s->conns);
    }
    uv_run(loop_uv(s->gateway->loop), UV_RUN_NOWAIT); /* closed callbacks */
    loop_wake_free(s->again);
    buf_fini(&s->scratch);
    free(s->read_bytes);
    free(s);
}

size_t server_conn_count(const struct server *s) { return s->conn_count; }

uint16_t server_port(const struct server *s)
{
    struct sockaddr_storage a = {0};
    int len = sizeof(a);
    must(s->listener_count > 0 && uv_tcp_getsockname(&s->listeners[0], (struct sockaddr *)&a, &len) == 0);
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port : ((struct sockaddr_in *)&a)->sin_port);
}
