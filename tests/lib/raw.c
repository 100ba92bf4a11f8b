/* raw - see raw.h. */
#include "tests/lib/raw.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <nghttp2/nghttp2.h>

#include "common/clock.h"

/* --- bytes ----------------------------------------------------------------------------------- */

static int patient(int fd)
{
    struct timeval patience = {.tv_sec = 2};
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

int raw_connect(const struct node *n)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)n->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
        return patient(fd);
    if (fd >= 0)
        close(fd);
    return -1;
}

int raw_connect_unix(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
        return patient(fd);
    if (fd >= 0)
        close(fd);
    return -1;
}

bool raw_send(int fd, struct slice bytes)
{
    while (bytes.len > 0) {
        ssize_t n = send(fd, bytes.data, bytes.len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        bytes = slice_of(bytes.data + n, bytes.len - (size_t)n);
    }
    return true;
}

bool raw_send_str(int fd, const char *text)
{
    return raw_send(fd, slice_str(text));
}

/* Bytes that came within ms: > 0; 0: the end; -1: none came. */
static ssize_t read_some(int fd, uint8_t *to, size_t len, int64_t ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (ms < 0 || poll(&p, 1, (int)ms) <= 0)
        return -1;
    ssize_t n = recv(fd, to, len, 0);
    return n > 0 ? n : 0; /* a reset is an end too */
}

bool raw_read_until(int fd, struct buf *out, const char *text, int ms)
{
    uint64_t until = clock_now_ms() + (uint64_t)ms;
    static uint8_t bytes[65536];
    ssize_t n;
    while ((n = read_some(fd, bytes, sizeof(bytes), (int64_t)(until - clock_now_ms()))) > 0) {
        buf_add(out, bytes, (size_t)n);
        if (memmem(out->data, out->len, text, strlen(text)))
            return true;
    }
    return false;
}

bool raw_closed(int fd, struct buf *out, int ms)
{
    uint64_t until = clock_now_ms() + (uint64_t)ms;
    static uint8_t bytes[65536];
    ssize_t n;
    while ((n = read_some(fd, bytes, sizeof(bytes), (int64_t)(until - clock_now_ms()))) > 0)
        if (out)
            buf_add(out, bytes, (size_t)n);
    return n == 0;
}

bool raw_http(const struct node *n, const char *request, struct buf *answer)
{
    int fd = raw_connect(n);
    buf_reset(answer);
    bool ok = fd >= 0 && raw_send_str(fd, request) && raw_closed(fd, answer, 5000);
    buf_add_byte(answer, 0);
    if (fd >= 0)
        close(fd);
    return ok;
}

/* --- HTTP/2: out ------------------------------------------------------------------------------- */

void h2_u32(struct buf *out, uint32_t v)
{
    uint8_t bytes[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
    buf_add(out, bytes, sizeof(bytes));
}

void h2_frame(struct buf *out, unsigned type, unsigned flags, uint32_t stream, struct slice payload)
{
    uint8_t head[5] = {(uint8_t)(payload.len >> 16), (uint8_t)(payload.len >> 8), (uint8_t)payload.len, (uint8_t)type, (uint8_t)flags};
    buf_add(out, head, sizeof(head));
    h2_u32(out, stream);
    buf_add_slice(out, payload);
}

/* An HPACK string's length: 7 bits, then groups of 7. */
static void string_add(struct buf *block, const char *s)
{
    size_t len = strlen(s);
    if (len < 127) {
        buf_add_byte(block, (uint8_t)len);
    } else {
        buf_add_byte(block, 127);
        size_t rest = len - 127;
        for (; rest >= 128; rest >>= 7)
            buf_add_byte(block, (uint8_t)(rest | 128));
        buf_add_byte(block, (uint8_t)rest);
    }
    buf_add_str(block, s);
}

void h2_field(struct buf *block, const char *name, const char *value)
{
    buf_add_byte(block, 0);
    string_add(block, name);
    string_add(block, value);
}

void h2_request(struct buf *block, const char *path)
{
    h2_field(block, ":method", "POST");
    h2_field(block, ":scheme", "http");
    h2_field(block, ":path", path);
    h2_field(block, ":authority", "localhost");
    h2_field(block, "te", "trailers");
    h2_field(block, "content-type", "application/grpc");
}

void h2_message(struct buf *out, uint32_t stream, unsigned flags, struct slice message)
{
    struct buf whole = BUF_INIT;
    buf_add_byte(&whole, 0);
    h2_u32(&whole, (uint32_t)message.len);
    buf_add_slice(&whole, message);
    for (size_t at = 0; at < whole.len; at += 16384) {
        size_t n = MIN(whole.len - at, (size_t)16384);
        h2_frame(out, H2_DATA, at + n == whole.len ? flags : 0, stream, slice_of(whole.data + at, n));
    }
    buf_fini(&whole);
}

bool h2_send(struct raw_h2 *h, struct buf *bytes)
{
    bool ok = raw_send(h->fd, buf_slice(bytes));
    buf_reset(bytes);
    return ok;
}

/* --- HTTP/2: in -------------------------------------------------------------------------------- */

void h2_open(struct raw_h2 *h, const struct node *n)
{
    struct buf out = BUF_INIT;
    nghttp2_hd_inflater *inflater;
    *h = (struct raw_h2){.fd = raw_connect(n), .goaway = H2_NOTHING, .grpc_status = H2_NOTHING, .reset_code = H2_NOTHING};
    must(h->fd >= 0 && nghttp2_hd_inflate_new(&inflater) == 0);
    h->inflater = inflater;
    buf_add_str(&out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    h2_frame(&out, H2_SETTINGS, 0, 0, SLICE_EMPTY);
    must(h2_send(h, &out));
    buf_fini(&out);
}

void h2_close(struct raw_h2 *h)
{
    close(h->fd);
    buf_fini(&h->in);
    nghttp2_hd_inflate_del(h->inflater);
}

static void text_take(char *to, size_t size, const uint8_t *bytes, size_t len)
{
    snprintf(to, size, "%.*s", (int)MIN(len, size - 1), (const char *)bytes);
}

static void headers_take(struct raw_h2 *h, struct slice block, bool end)
{
    nghttp2_nv nv;
    int flags = 0;
    h->responses++;
    h->ended += end;
    while (!(flags & NGHTTP2_HD_INFLATE_FINAL)) {
        ssize_t n = nghttp2_hd_inflate_hd2(h->inflater, &nv, &flags, block.data, block.len, 1);
        if (n < 0 || (n == 0 && !(flags & NGHTTP2_HD_INFLATE_EMIT)))
            break;
        block = slice_of(block.data + n, block.len - (size_t)n);
        if (!(flags & NGHTTP2_HD_INFLATE_EMIT))
            continue;
        if (nv.namelen == 11 && memcmp(nv.name, "grpc-status", 11) == 0)
            h->grpc_status = atoi((const char *)nv.value);
        if (nv.namelen == 12 && memcmp(nv.name, "grpc-message", 12) == 0)
            text_take(h->grpc_message, sizeof(h->grpc_message), nv.value, nv.valuelen);
        if (nv.namelen == 7 && memcmp(nv.name, ":status", 7) == 0)
            text_take(h->http_status, sizeof(h->http_status), nv.value, nv.valuelen);
    }
    nghttp2_hd_inflate_end_headers(h->inflater);
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void frame_take(struct raw_h2 *h, unsigned type, unsigned flags, struct slice payload)
{
    h->frames++;
    switch (type) {
    case H2_DATA:
        h->data_bytes += payload.len;
        h->ended += (flags & H2_END_STREAM) != 0;
        break;
    case H2_HEADERS: headers_take(h, payload, flags & H2_END_STREAM); break;
    case H2_RST_STREAM:
        h->resets++;
        h->reset_code = u32_at(payload.data);
        break;
    case H2_SETTINGS: h->setting_acks += (flags & H2_ACK) != 0; break;
    case H2_PING: h->ping_acks += (flags & H2_ACK) != 0; break;
    case H2_GOAWAY:
        h->goaway = u32_at(payload.data + 4);
        text_take(h->goaway_text, sizeof(h->goaway_text), payload.data + 8, payload.len - 8);
        break;
    default: break;
    }
}

static void frames_take(struct raw_h2 *h)
{
    size_t used = 0;
    while (h->in.len - used >= 9) {
        const uint8_t *p = h->in.data + used;
        size_t len = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
        if (h->in.len - used < 9 + len)
            break;
        frame_take(h, p[3], p[4], slice_of(p + 9, len));
        used += 9 + len;
    }
    buf_consume(&h->in, used);
}

bool h2_read(struct raw_h2 *h, const unsigned *count, unsigned wanted, int ms)
{
    uint64_t until = clock_now_ms() + (uint64_t)ms;
    static uint8_t bytes[65536];
    while (!h->closed && !(count && *count >= wanted)) {
        ssize_t n = read_some(h->fd, bytes, sizeof(bytes), (int64_t)(until - clock_now_ms()));
        if (n < 0)
            return false;
        h->closed = n == 0;
        buf_add(&h->in, bytes, (size_t)n);
        frames_take(h);
    }
    return count ? *count >= wanted : h->closed;
}

/* --- what is to be known ------------------------------------------------------------------------ */

static struct buf metrics;

static const char *metrics_fetch(const struct node *n)
{
    if (!raw_http(n, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &metrics))
        return NULL;
    return (const char *)metrics.data;
}

int64_t node_metric(const struct node *n, const char *series)
{
    const char *at = metrics_fetch(n);
    size_t len = strlen(series);
    for (; at; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (strncmp(at, series, len) == 0 && at[len] == ' ')
            return (int64_t)strtod(at + len, NULL);
    }
    return -1;
}

int64_t node_metric_sum(const struct node *n, const char *prefix, const char *part)
{
    const char *at = metrics_fetch(n);
    int64_t sum = 0;
    for (; at; at = strchr(at, '\n')) {
        at += *at == '\n';
        const char *found = strstr(at, part), *end = strchr(at, '\n');
        if (strncmp(at, prefix, strlen(prefix)) == 0 && found && end && found < end && strstr(at, "} ") < end)
            sum += (int64_t)strtod(strstr(at, "} ") + 2, NULL);
    }
    return sum;
}

long node_rss_mib(const struct node *n, const char *daemon)
{
    char path[64];
    long size = 0, resident = 0;
    snprintf(path, sizeof(path), "/proc/%ld/statm", node_pid(n, daemon));
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    if (fscanf(f, "%ld %ld", &size, &resident) != 2)
        resident = -1;
    fclose(f);
    return resident * (sysconf(_SC_PAGESIZE) / 1024) / 1024;
}

bool node_is_sanitized(void)
{
    const char *build = getenv("TRINE_BUILD");
    return build && strstr(build, "san-");
}
