/* gclient - see gclient.h. */
#include "tests/lib/gclient.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <nghttp2/nghttp2.h>

#include "common/mem.h"
#include "common/tls.h"

#define GCLIENT_WINDOW (1 << 30)

struct gclient {
    int fd;
    bool lost;
    struct tls *tls; /* NULL: cleartext */
    struct buf plain; /* TLS: what a read gave */
    nghttp2_session *session;
    struct buf out; /* bytes the socket has not taken yet */
    size_t out_pos;
    struct gcall *calls; /* all open ones */
    char authority[64];
};

struct gcall {
    struct gclient *client;
    struct gcall *prev, *next;
    int32_t stream;
    const struct gcall_ops *ops;
    void *arg;
    struct buf send; /* not yet taken by nghttp2 */
    bool closing;    /* half-close after what is queued */
    bool deferred;   /* nghttp2 waits for data */
    struct buf recv; /* incomplete message */
    int status;
    char *text;
};

static void call_free(struct gcall *call)
{
    struct gclient *c = call->client;
    if (call->prev)
        call->prev->next = call->next;
    else
        c->calls = call->next;
    if (call->next)
        call->next->prev = call->prev;
    buf_fini(&call->send);
    buf_fini(&call->recv);
    free(call->text);
    free(call);
}

static void call_end(struct gcall *call, int status)
{
    call->ops->end(call, status, call->text ? call->text : "", call->arg);
    call_free(call);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static char *percent_decode(const uint8_t *value, size_t len)
{
    char *out = xmalloc(len + 1);
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (value[i] == '%' && i + 2 < len && hex_digit((char)value[i + 1]) >= 0 && hex_digit((char)value[i + 2]) >= 0) {
            out[n++] = (char)(hex_digit((char)value[i + 1]) * 16 + hex_digit((char)value[i + 2]));
            i += 2;
        } else {
            out[n++] = (char)value[i];
        }
    }
    out[n] = '\0';
    return out;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len, const uint8_t *value,
                     size_t value_len, uint8_t flags, void *arg)
{
    UNUSED(flags);
    UNUSED(arg);
    struct gcall *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!call)
        return 0;
    if (name_len == 11 && memcmp(name, "grpc-status", 11) == 0) {
        call->status = atoi((const char *)value);
    } else if (name_len == 12 && memcmp(name, "grpc-message", 12) == 0) {
        free(call->text);
        call->text = percent_decode(value, value_len);
    } else if (name_len == 7 && memcmp(name, ":status", 7) == 0 && !(value_len == 3 && memcmp(value, "200", 3) == 0)) {
        free(call->text);
        call->text = percent_decode(value, value_len);
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t len, void *arg)
{
    UNUSED(flags);
    UNUSED(arg);
    struct gcall *call = nghttp2_session_get_stream_user_data(session, stream);
    if (!call)
        return 0;
    struct slice in = slice_of(data, len);
    if (call->recv.len) {
        buf_add(&call->recv, data, len);
        in = buf_slice(&call->recv);
    }
    size_t used = 0;
    while (in.len - used >= 5) {
        const uint8_t *p = in.data + used;
        size_t size = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
        if (in.len - used - 5 < size)
            break;
        if (call->ops->message)
            call->ops->message(call, slice_of(p + 5, size), call->arg);
        used += 5 + size;
    }
    if (call->recv.len)
        buf_consume(&call->recv, used);
    else if (used < len)
        buf_add(&call->recv, data + used, len - used);
    return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t error, void *arg)
{
    UNUSED(arg);
    struct gcall *call = nghttp2_session_get_stream_user_data(session, stream);
    if (!call)
        return 0;
    nghttp2_session_set_stream_user_data(session, stream, NULL);
    int status = call->status;
    if (status == GCALL_STATUS_NOT_GRPC && error != NGHTTP2_NO_ERROR)
        status = GCALL_STATUS_RESET;
    call_end(call, status);
    return 0;
}

static ssize_t read_data(nghttp2_session *session, int32_t stream, uint8_t *to, size_t len, uint32_t *flags, nghttp2_data_source *source,
                         void *arg)
{
    UNUSED(session);
    UNUSED(stream);
    UNUSED(arg);
    struct gcall *call = source->ptr;
    size_t n = MIN(len, call->send.len);
    if (n == 0 && !call->closing) {
        call->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (n) {
        memcpy(to, call->send.data, n);
        buf_consume(&call->send, n);
    }
    if (call->closing && call->send.len == 0)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

/* On a blocking socket. */
static bool tls_meet(struct tls *t, int fd)
{
    struct timeval patience = {.tv_sec = 10};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    int err = tls_handshake(t);
    struct buf cipher = BUF_INIT;
    uint8_t in[4096];
    while (!err) {
        tls_output(t, &cipher);
        if (cipher.len > 0 && send(fd, cipher.data, cipher.len, MSG_NOSIGNAL) != (ssize_t)cipher.len)
            err = -1;
        buf_reset(&cipher);
        if (err || tls_is_ready(t))
            break;
        ssize_t n = recv(fd, in, sizeof(in), 0);
        err = n > 0 ? tls_input(t, slice_of(in, (size_t)n)) : -1;
        if (!err)
            err = tls_handshake(t);
    }
    buf_fini(&cipher);
    return !err;
}

static struct gclient *connect_to(const char *host, int port, struct tls_context *context)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &to.sin_addr) != 1)
        return NULL;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(fd >= 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
        close(fd);
        return NULL;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    struct tls *tls = context ? tls_new(context, host) : NULL;
    if (tls && !tls_meet(tls, fd)) {
        tls_free(tls);
        close(fd);
        return NULL;
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);

    struct gclient *c = xcalloc(1, sizeof(*c));
    c->fd = fd;
    c->tls = tls;
    snprintf(c->authority, sizeof(c->authority), "%s:%d", host, port);
    nghttp2_session_callbacks *cb;
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
    nghttp2_session_client_new(&c->session, cb, c);
    nghttp2_session_callbacks_del(cb);
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, GCLIENT_WINDOW}, {NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
    nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings));
    nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, GCLIENT_WINDOW);
    return c;
}

struct gclient *gclient_connect(const char *host, int port)
{
    return connect_to(host, port, NULL);
}

struct gclient *gclient_connect_tls(const char *host, int port, struct tls_context *tls)
{
    return connect_to(host, port, tls);
}

static void client_lose(struct gclient *c)
{
    c->lost = true;
    while (c->calls) {
        struct gcall *call = c->calls;
        nghttp2_session_set_stream_user_data(c->session, call->stream, NULL);
        call_end(call, GCALL_STATUS_CONNECTION_LOST);
    }
}

void gclient_free(struct gclient *c)
{
    if (!c)
        return;
    client_lose(c);
    nghttp2_session_del(c->session);
    close(c->fd);
    tls_free(c->tls);
    buf_fini(&c->plain);
    buf_fini(&c->out);
    free(c);
}

#define HEADER(n, v) \
    (nghttp2_nv) \
    { \
        (uint8_t *)(n), (uint8_t *)(v), strlen(n), strlen(v), NGHTTP2_NV_FLAG_NONE \
    }

struct gcall *gcall_start(struct gclient *c, const char *path, struct slice message, bool half_close, const char *const *extra,
                          const struct gcall_ops *ops, void *arg)
{
    if (c->lost)
        return NULL;
    struct gcall *call = xcalloc(1, sizeof(*call));
    call->client = c;
    call->ops = ops;
    call->arg = arg;
    call->status = GCALL_STATUS_NOT_GRPC;
    call->closing = half_close;
    nghttp2_nv headers[16] = {HEADER(":method", "POST"), HEADER(":scheme", "http"), HEADER(":path", path), HEADER(":authority", c->authority),
                              HEADER("te", "trailers"), HEADER("content-type", "application/grpc")};
    size_t count = 6;
    for (; extra && extra[0] && count < ARRAY_LEN(headers); extra += 2)
        headers[count++] = HEADER(extra[0], extra[1]);
    nghttp2_data_provider provider = {.source.ptr = call, .read_callback = read_data};
    if (message.data)
        gcall_send(call, message);
    int32_t stream = nghttp2_submit_request(c->session, NULL, headers, count, &provider, call);
    if (stream < 0) {
        buf_fini(&call->send);
        free(call);
        return NULL;
    }
    call->stream = stream;
    call->next = c->calls;
    if (c->calls)
        c->calls->prev = call;
    c->calls = call;
    return call;
}

static void call_resume(struct gcall *call)
{
    if (!call->deferred)
        return;
    call->deferred = false;
    nghttp2_session_resume_data(call->client->session, call->stream);
}

void gcall_send_raw(struct gcall *call, struct slice bytes)
{
    buf_add_slice(&call->send, bytes);
    call_resume(call);
}

void gcall_send(struct gcall *call, struct slice message)
{
    uint8_t head[5] = {0, (uint8_t)(message.len >> 24), (uint8_t)(message.len >> 16), (uint8_t)(message.len >> 8), (uint8_t)message.len};
    buf_add(&call->send, head, sizeof(head));
    gcall_send_raw(call, message);
}

void gcall_half_close(struct gcall *call)
{
    call->closing = true;
    call_resume(call);
}

void gcall_cancel(struct gcall *call)
{
    nghttp2_submit_rst_stream(call->client->session, NGHTTP2_FLAG_NONE, call->stream, NGHTTP2_CANCEL);
}

int gclient_fd(const struct gclient *c)
{
    return c->fd;
}

bool gclient_lost(const struct gclient *c)
{
    return c->lost;
}

bool gclient_wants_write(const struct gclient *c)
{
    return !c->lost && (c->out_pos < c->out.len || nghttp2_session_want_write(c->session));
}

void gclient_flush(struct gclient *c)
{
    while (!c->lost) {
        if (c->out_pos == c->out.len) {
            buf_reset(&c->out);
            c->out_pos = 0;
            const uint8_t *data;
            ssize_t n;
            while (c->out.len < 64 * 1024 && (n = nghttp2_session_mem_send(c->session, &data)) > 0)
                buf_add(&c->out, data, (size_t)n);
            if (c->tls) {
                if (c->out.len > 0 && tls_write(c->tls, buf_slice(&c->out)) != 0) {
                    client_lose(c);
                    return;
                }
                buf_reset(&c->out);
                tls_output(c->tls, &c->out);
            }
            if (c->out.len == 0)
                return;
        }
        ssize_t n = send(c->fd, c->out.data + c->out_pos, c->out.len - c->out_pos, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            client_lose(c);
            return;
        }
        c->out_pos += (size_t)n;
    }
}

/* False: the connection is over. */
static bool received(struct gclient *c, struct slice bytes)
{
    int err = 0;
    if (c->tls) {
        buf_reset(&c->plain);
        err = tls_input(c->tls, bytes);
        if (!err)
            err = tls_read(c->tls, &c->plain);
        bytes = buf_slice(&c->plain);
    }
    if (bytes.len > 0 && nghttp2_session_mem_recv(c->session, bytes.data, bytes.len) < 0)
        return false;
    return !err;
}

void gclient_readable(struct gclient *c)
{
    uint8_t data[65536];
    while (!c->lost) {
        ssize_t n = recv(c->fd, data, sizeof(data), 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0 || !received(c, slice_of(data, (size_t)n))) {
            client_lose(c);
            return;
        }
        if ((size_t)n < sizeof(data))
            return;
    }
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool gclient_run(struct gclient *c, const bool *done, int ms)
{
    int64_t until = now_ms() + ms;
    static const bool never;
    if (!done)
        done = &never;
    while (!*done && !c->lost) {
        gclient_flush(c);
        int64_t left = until - now_ms();
        if (left <= 0 || *done)
            break;
        struct pollfd p = {.fd = c->fd, .events = (short)(POLLIN | (gclient_wants_write(c) ? POLLOUT : 0))};
        if (poll(&p, 1, (int)left) > 0 && (p.revents & (POLLIN | POLLHUP | POLLERR)))
            gclient_readable(c);
    }
    return *done;
}

struct unary {
    struct buf *reply, *text;
    bool done;
    int status;
};

static void unary_message(struct gcall *call, struct slice message, void *arg)
{
    UNUSED(call);
    struct unary *u = arg;
    if (u->reply)
        buf_add_slice(u->reply, message);
}

static void unary_end(struct gcall *call, int status, const char *text, void *arg)
{
    UNUSED(call);
    struct unary *u = arg;
    u->status = status;
    u->done = true;
    if (u->text)
        buf_add_str(u->text, text);
}

int gclient_unary(struct gclient *c, const char *path, struct slice request, struct buf *reply, struct buf *text, int timeout_ms)
{
    static const struct gcall_ops ops = {unary_message, unary_end};
    struct unary u = {.reply = reply, .text = text, .status = GCALL_STATUS_RESET};
    if (reply)
        buf_reset(reply);
    if (text)
        buf_reset(text);
    if (!request.data)
        request = slice_of("", 0);
    struct gcall *call = gcall_start(c, path, request, true, NULL, &ops, &u);
    if (!call)
        return GCALL_STATUS_CONNECTION_LOST;
    if (!gclient_run(c, &u.done, timeout_ms) && !u.done) {
        gcall_cancel(call);
        gclient_run(c, &u.done, 1000);
        must(u.done || c->lost);
    }
    return u.status;
}
