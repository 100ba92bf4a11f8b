/* peer_conn - one connection to another member: socket, TLS, messages, HELLO, PING. See peer.h for its states.
 * From libuv and peer.c; frames go to peers_ops, its life's turns to peer.c.
 *
 *   out --flush, nothing on its way--> sending --written--> (again)        out is cut into messages near
 *   LINK_MESSAGE_BYTES_SOFT; a group of frames (peers_begin .. peers_end) is never cut.
 *
 * Memory of a connection goes when libuv has given back all it holds of it (holds). */
#include "raftd/peer_int.h"

#include <endian.h>
#include <inttypes.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/mem.h"

#define LENGTH_BYTES 4
#define READ_BYTES (256 * KIB)
#define NO_MESSAGE SIZE_MAX

/* --- life --------------------------------------------------------------------------------------- */

static void conn_unhold(struct peer_conn *c)
{
    must(c->holds > 0);
    if (--c->holds > 0)
        return;
    tls_free(c->tls);
    buf_fini(&c->in);
    buf_fini(&c->out);
    buf_fini(&c->sending);
    free(c);
}

static void closed_cb(uv_handle_t *handle)
{
    conn_unhold(handle->data);
}

void peer_conn_close(struct peer_conn *c, const char *why)
{
    uint64_t swallowed;
    struct log_limit *limit = c->peer ? &c->peer->limit : &c->peers->refused_limit;

    if (c->state == PEER_CONN_CLOSED)
        return;
    if (why && !c->peers->ending && log_allow(limit, loop_now_ms(c->peers->loop), &swallowed))
        log_warnx("peer: connection %s %s%s%" PRIx64 " closed: %s", c->dialled ? "to" : "from", c->address,
                  c->peer ? ", member " : ", not introduced ", c->peer ? c->peer->id : 0, why);
    LIST_REMOVE(c, entry);
    if (!c->dialled)
        c->peers->accepted_count--;
    peers_conn_gone(c);
    c->state = PEER_CONN_CLOSED;
    if (c->resolving)
        uv_cancel((uv_req_t *)&c->resolve);
    if (c->tcp_open)
        uv_close((uv_handle_t *)&c->tcp, closed_cb);
    else
        conn_unhold(c);
}

static struct peer_conn *conn_new(struct peers *p, bool dialled)
{
    struct peer_conn *c = xcalloc(1, sizeof(*c));

    c->peers = p;
    c->dialled = dialled;
    c->open_at = NO_MESSAGE;
    c->holds = 1;
    c->heard_ms = loop_now_ms(p->loop);
    c->deadline_ms = c->heard_ms + (dialled ? p->connect_ms : PEER_HELLO_MS_MAX);
    c->number = ++p->conn_count;
    LIST_INSERT_HEAD(&p->conns, c, entry);
    return c;
}

/* --- out ---------------------------------------------------------------------------------------- */

static void message_close(struct peer_conn *c)
{
    if (c->open_at == NO_MESSAGE)
        return;
    size_t len = c->out.len - c->open_at - LENGTH_BYTES;
    uint32_t be = htobe32((uint32_t)len);

    memcpy(c->out.data + c->open_at, &be, sizeof(be));
    c->open_at = NO_MESSAGE;
}

void peer_conn_open_message(struct peer_conn *c)
{
    if (c->open_at != NO_MESSAGE && c->out.len - c->open_at >= LINK_MESSAGE_BYTES_SOFT)
        message_close(c);
    if (c->open_at != NO_MESSAGE)
        return;
    c->open_at = c->out.len;
    memset(buf_extend(&c->out, LENGTH_BYTES), 0, LENGTH_BYTES);
}

static void say(struct peer_conn *c, const struct frame *f)
{
    peer_conn_open_message(c);
    frame_encode(&c->out, f);
}

static void written_cb(uv_write_t *request, int status)
{
    struct peer_conn *c = request->data;

    c->writing = false;
    buf_reset(&c->sending);
    if (c->sending.cap > 4 * LINK_MESSAGE_BYTES_SOFT)
        buf_fini(&c->sending);
    if (c->state != PEER_CONN_CLOSED) {
        if (status != 0)
            peer_conn_close(c, uv_strerror(status));
        else
            peer_conn_flush(c);
    }
    conn_unhold(c);
}

/* What is to go next, as it goes over the socket, into `sending`. */
static void take_output(struct peer_conn *c)
{
    struct buf empty = c->sending;

    if (!c->tls) {
        message_close(c);
        c->sending = c->out;
        c->out = empty;
        return;
    }
    if (c->out.len > 0 && tls_is_ready(c->tls)) {
        message_close(c);
        if (tls_write(c->tls, buf_slice(&c->out)) != 0) {
            peer_conn_close(c, tls_why(c->tls));
            return;
        }
        buf_reset(&c->out);
    }
    tls_output(c->tls, &c->sending);
}

void peer_conn_flush(struct peer_conn *c)
{
    if (c->writing || c->state == PEER_CONN_OPENING || c->state == PEER_CONN_CLOSED)
        return;
    take_output(c);
    if (c->state == PEER_CONN_CLOSED || c->sending.len == 0)
        return;
    if (c->peer)
        counter_add(&c->peer->sent_bytes, c->sending.len);

    uv_buf_t bytes = uv_buf_init((char *)c->sending.data, (unsigned)c->sending.len);
    int n = uv_try_write((uv_stream_t *)&c->tcp, &bytes, 1);
    if (n < 0 && n != UV_EAGAIN) {
        peer_conn_close(c, uv_strerror(n));
        return;
    }
    size_t done = n > 0 ? (size_t)n : 0;
    if (done == c->sending.len) {
        buf_reset(&c->sending);
        return;
    }
    bytes = uv_buf_init((char *)c->sending.data + done, (unsigned)(c->sending.len - done));
    c->write.data = c;
    if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &bytes, 1, written_cb) != 0) {
        peer_conn_close(c, "write");
        return;
    }
    c->writing = true;
    c->holds++;
}

/* --- in ----------------------------------------------------------------------------------------- */

static void say_hello(struct peer_conn *c)
{
    const struct peers_conf *conf = &c->peers->conf;

    struct frame f = {.type = FR_HELLO,
                      .hello = {.version = FRAMES_VERSION,
                                .role = ROLE_PEER,
                                .cluster_id = conf->cluster_id,
                                .member_id = conf->member_id,
                                .instance = conf->instance,
                                .slot = c->stream}};

    if (c->peers->ops->standing)
        c->peers->ops->standing(&f.hello, c->peers->arg);
    say(c, &f);
}

static void conn_up(struct peer_conn *c, const struct fr_hello *theirs)
{
    c->state = PEER_CONN_UP;
    c->up_ms = loop_now_ms(c->peers->loop);
    c->ping_ms = c->up_ms;
    peers_conn_up(c, theirs);
}

static int hello_in(struct peer_conn *c, const struct frame *f)
{
    bool removed;

    if (f->type != FR_HELLO)
        return E_MALFORMED;
    if (peers_is_guest(c, &f->hello, &removed)) {
        c->stream = (unsigned)f->hello.slot; /* ours echoes it */
        say_hello(c);
        c->state = PEER_CONN_GUEST; /* until deadline_ms */
        if (removed)
            say(c, FRAME(removed, REMOVED, .cluster_id = f->hello.cluster_id, .member_id = f->hello.member_id));
        return 0;
    }
    int err = peers_hello(c, &f->hello);
    if (err)
        return err;
    if (!c->dialled)
        say_hello(c);
    conn_up(c, &f->hello);
    return 0;
}

static int guest_in(struct peer_conn *c, const struct frame *f)
{
    struct buf table = BUF_INIT;

    if (f->type != FR_MEMBERS_ASK)
        return 0; /* what a removed member says before it hears that it is one */
    log_info("peer: \"%.*s\" at %s asks who the members are", (int)MIN(f->members_ask.name.len, 64),
             (const char *)f->members_ask.name.data, c->address);
    c->peers->ops->table(&table, c->peers->arg);
    say(c, FRAME(members_told, MEMBERS_TOLD, .cluster_id = c->peers->conf.cluster_id, .table = buf_slice(&table)));
    buf_fini(&table);
    return 0;
}

static int frame_in(struct peer_conn *c, const struct frame *f)
{
    struct peers *p = c->peers;

    if (c->state == PEER_CONN_HELLO)
        return hello_in(c, f);
    if (c->state == PEER_CONN_GUEST)
        return guest_in(c, f);
    if (!frame_may(f->type, ROLE_PEER, ROLE_PEER) || f->type == FR_HELLO)
        return E_MALFORMED;
    if (f->type == FR_PING) {
        say(c, FRAME(pong, PONG, .at_us = f->ping.at_us));
        return 0;
    }
    if (f->type == FR_PONG) {
        uint64_t now_us = clock_now_us();

        if (c->dialled && f->pong.at_us <= now_us)
            histogram_observe_us(&c->peer->round_trip, now_us - f->pong.at_us);
        return 0;
    }
    return p->ops->frame(c->peer->id, f, p->arg);
}

static int message_in(struct peer_conn *c, struct slice message)
{
    struct frame f;
    int got, err = 0;
    bool up = c->state == PEER_CONN_UP;

    if (message.len == 0)
        return E_MALFORMED;
    while (!err && (got = frame_decode(&message, &f)) != 0) {
        err = got < 0 ? got : frame_in(c, &f);
        if (c->state == PEER_CONN_CLOSED)
            break;
    }
    /* Also of one that is no good: what it began must not be taken for the beginning of the next. */
    int end = up ? c->peers->ops->message_end(c->peer->id, c->peers->arg) : 0;
    if (c->state == PEER_CONN_CLOSED)
        return 0;
    return err ? err : end;
}

/* All whole messages in c->in. */
static int messages_in(struct peer_conn *c)
{
    size_t at = 0;
    int err = 0;

    while (!err && c->state != PEER_CONN_CLOSED && c->in.len - at >= LENGTH_BYTES) {
        uint32_t be;

        memcpy(&be, c->in.data + at, sizeof(be));
        size_t len = be32toh(be);
        if (len > (c->state == PEER_CONN_UP ? LINK_MESSAGE_BYTES_MAX : PEER_HELLO_BYTES_MAX))
            return E_TOO_BIG;
        if (c->in.len - at - LENGTH_BYTES < len) {
            buf_reserve(&c->in, len + LENGTH_BYTES - (c->in.len - at));
            break;
        }
        err = message_in(c, slice_of(c->in.data + at + LENGTH_BYTES, len));
        at += LENGTH_BYTES + len;
    }
    buf_consume(&c->in, at);
    if (c->in.len == 0 && c->in.cap > 4 * LINK_MESSAGE_BYTES_SOFT)
        buf_fini(&c->in);
    return err;
}

static void conn_hello_begins(struct peer_conn *c)
{
    c->state = PEER_CONN_HELLO;
    if (c->dialled)
        say_hello(c);
}

static int bytes_in(struct peer_conn *c, struct slice bytes)
{
    int err;

    if (!c->tls) {
        buf_add_slice(&c->in, bytes);
        return messages_in(c);
    }
    err = tls_input(c->tls, bytes);
    if (!err && c->state == PEER_CONN_TLS) {
        err = tls_handshake(c->tls);
        if (!err && tls_is_ready(c->tls))
            conn_hello_begins(c);
    }
    if (!err && tls_is_ready(c->tls)) {
        err = tls_read(c->tls, &c->in);
        if (c->in.len > 0) {
            int first = messages_in(c);

            err = first ? first : err;
        }
    }
    return err;
}

static void alloc_cb(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct peer_conn *c = handle->data;

    UNUSED(suggested);
    *buf = uv_buf_init((char *)c->peers->read_bytes, READ_BYTES);
}

static void read_cb(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct peer_conn *c = stream->data;

    if (n == 0 || c->state == PEER_CONN_CLOSED)
        return;
    if (n < 0) {
        bool was_up = c->state == PEER_CONN_UP;

        peer_conn_close(c, was_up || n != UV_EOF ? uv_strerror((int)n) : c->dialled ? "refused by the other side" : NULL);
        return;
    }
    c->heard_ms = loop_now_ms(c->peers->loop);
    int err = bytes_in(c, slice_of(buf->base, (size_t)n));
    if (c->peer)
        counter_add(&c->peer->received_bytes, (uint64_t)n);
    if (c->state == PEER_CONN_CLOSED)
        return;
    if (err) {
        if (c->peer)
            counter_add(&c->peer->received_failures, 1);
        peer_conn_flush(c); /* a TLS alert tells the other side why */
        peer_conn_close(c, c->tls && tls_why(c->tls)[0] ? tls_why(c->tls) : err_text(err));
        return;
    }
    if (c->tls || c->out.len > 0)
        peer_conn_flush(c); /* handshakes and PONGs do not wait for the turn's end */
}

/* What the other side's kernel does not take for so long will not be taken: the connection ends (raft-write-timeout). */
static void limit_stall(struct peer_conn *c)
{
    unsigned ms = (unsigned)MIN(c->peers->conf.conf->raft_write_timeout_ms, (uint64_t)INT_MAX);
    uv_os_fd_t fd;

    if (uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

static void conn_begin(struct peer_conn *c)
{
    struct peers *p = c->peers;

    uv_tcp_nodelay(&c->tcp, 1);
    limit_stall(c);
    if (uv_read_start((uv_stream_t *)&c->tcp, alloc_cb, read_cb) != 0) {
        peer_conn_close(c, "read");
        return;
    }
    c->deadline_ms = loop_now_ms(p->loop) + (c->dialled ? p->hello_ms : PEER_HELLO_MS_MAX);
    if (!c->tls) {
        conn_hello_begins(c);
    } else {
        c->state = PEER_CONN_TLS;
        if (c->dialled && tls_handshake(c->tls) != 0) {
            peer_conn_close(c, tls_why(c->tls));
            return;
        }
    }
    peer_conn_flush(c);
}

static void tcp_open(struct peer_conn *c)
{
    must(uv_tcp_init(loop_uv(c->peers->loop), &c->tcp) == 0);
    c->tcp.data = c;
    c->tcp_open = true;
}

/* --- dialling ------------------------------------------------------------------------------------- */

static void connect_cb(uv_connect_t *request, int status)
{
    struct peer_conn *c = request->data;

    if (c->state != PEER_CONN_CLOSED) {
        if (status == UV_ECONNREFUSED)
            peers_conn_refused(c);
        if (status != 0)
            peer_conn_close(c, NULL); /* peer.c tells once that the member is away */
        else
            conn_begin(c);
    }
    conn_unhold(c);
}

static void connect_to(struct peer_conn *c, const struct sockaddr *to)
{
    tcp_open(c);
    c->connect.data = c;
    c->holds++;
    if (uv_tcp_connect(&c->connect, &c->tcp, to, connect_cb) != 0) {
        c->holds--;
        peer_conn_close(c, NULL);
    }
}

static void resolved_cb(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct peer_conn *c = request->data;

    c->resolving = false;
    if (c->state != PEER_CONN_CLOSED) {
        size_t count = 0, pick;

        for (const struct addrinfo *a = found; a; a = a->ai_next)
            count++;
        if (status != 0 || count == 0) {
            peer_conn_close(c, status != 0 ? uv_strerror(status) : "the host has no address");
        } else {
            /* Another one at each attempt. */
            const struct addrinfo *a = found;

            for (pick = c->peer->streams[c->stream].attempts % count; pick > 0; pick--)
                a = a->ai_next;
            connect_to(c, a->ai_addr);
        }
    }
    uv_freeaddrinfo(found);
    conn_unhold(c);
}

void peer_conn_dial(struct peers *p, struct peer *peer, unsigned stream, const struct peer_target *to)
{
    struct peer_conn *c = conn_new(p, true);
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    char port[8];
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};

    c->peer = peer;
    c->stream = stream;
    snprintf(c->address, sizeof(c->address), "%.64s:%u", to->host, (unsigned)to->port);
    peer->streams[stream].dialled = c;
    if (to->tls) {
        c->tls = p->tls_client ? tls_new(p->tls_client, to->host) : NULL;
        if (!c->tls) {
            peer_conn_close(c, "its URL is https, but there are no certificates");
            return;
        }
    }
    if (uv_ip4_addr(to->host, to->port, &v4) == 0) {
        connect_to(c, (const struct sockaddr *)&v4);
    } else if (uv_ip6_addr(to->host, to->port, &v6) == 0) {
        connect_to(c, (const struct sockaddr *)&v6);
    } else {
        snprintf(port, sizeof(port), "%u", (unsigned)to->port);
        c->resolve.data = c;
        c->resolving = true;
        c->holds++;
        if (uv_getaddrinfo(loop_uv(p->loop), &c->resolve, resolved_cb, to->host, port, &hints) != 0) {
            c->resolving = false;
            c->holds--;
            peer_conn_close(c, NULL);
        }
    }
}

/* --- accepting ------------------------------------------------------------------------------------ */

static void address_note(struct peer_conn *c)
{
    struct sockaddr_storage from;
    int len = sizeof(from);

    if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&from, &len) != 0)
        return;
    if (from.ss_family == AF_INET)
        uv_ip4_name((const struct sockaddr_in *)&from, c->address, sizeof(c->address));
    else
        uv_ip6_name((const struct sockaddr_in6 *)&from, c->address, sizeof(c->address));
}

void peer_conn_accept(struct peers *p, uv_stream_t *listener, bool tls)
{
    struct peer_conn *c = conn_new(p, false);

    p->accepted_count++;
    tcp_open(c);
    if (uv_accept(listener, (uv_stream_t *)&c->tcp) != 0) {
        peer_conn_close(c, NULL);
        return;
    }
    address_note(c);
    if (p->accepted_count > PEER_ACCEPTED_MAX) {
        peer_conn_close(c, "too many connections");
        return;
    }
    if (tls)
        c->tls = tls_new(p->tls_server, c->address);
    conn_begin(c);
}

/* --- time ----------------------------------------------------------------------------------------- */

void peer_conn_tick(struct peer_conn *c, uint64_t now_ms)
{
    struct peers *p = c->peers;

    if (c->state != PEER_CONN_UP) {
        if (now_ms >= c->deadline_ms)
            peer_conn_close(c, c->state == PEER_CONN_OPENING || c->state == PEER_CONN_GUEST ? NULL : "no HELLO in time");
        return;
    }
    if (now_ms - c->heard_ms >= p->dead_ms) {
        peer_conn_close(c, "silent for too long");
        return;
    }
    if (!c->dialled || now_ms < c->ping_ms)
        return;
    c->ping_ms = now_ms + p->ping_ms;
    say(c, FRAME(ping, PING, .at_us = clock_now_us()));
    peer_conn_flush(c);
}
