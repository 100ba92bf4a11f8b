/* abuse - malformed and hostile input over a real node: bytes that are no protocol, HTTP/1.1, gRPC, protobuf, transactions, watches,
 * connections without end. After each, a well-behaved client is served as before, memory is bounded, and what has a counter was
 * counted. HTTP/2's frames are in test_abuse_h2.c, the daemons' own sockets in test_abuse_nng.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/rand.h"
#include "proto/api.h"
#include "proto/pb.h"
#include "tests/lib/raw.h"
#include "tests/lib/witness.h"

#define KV "/etcdserverpb.KV/"
#define DROPPED(reason) "trine_gateway_dropped_total{reason=\"" reason "\"}"
/* Open files of the daemons and of this test: what CONNECTIONS_MAX is lowered to has room in both. */
#define FILES_MAX 1200
#define SLACK_MIB 60

static struct node node;
static struct witness witness;
static struct rand rnd;
static struct buf out, block, body, answer;

/* --- no protocol --------------------------------------------------------------------------------- */

static void garbage(void)
{
    uint8_t bytes[3000];
    for (int i = 0; i < 300; i++) {
        int fd = raw_connect(&node);
        for (size_t k = 0; k < sizeof(bytes); k++)
            bytes[k] = (uint8_t)rand_u64(&rnd);
        raw_send(fd, slice_of(bytes, 1 + (size_t)rand_below(&rnd, sizeof(bytes) - 1)));
        close(fd);
    }
    /* A TLS ClientHello on the cleartext port. */
    int fd = raw_connect(&node);
    raw_send(fd, slice_of("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 13));
    CHECK(raw_closed(fd, NULL, 3000), "TLS where none is spoken");
    close(fd);
    witness_check(&witness, "garbage");
}

/* --- HTTP/1.1 ------------------------------------------------------------------------------------- */

static bool http_says(const char *request, const char *status)
{
    raw_http(&node, request, &answer);
    return strncmp((const char *)answer.data, status, strlen(status)) == 0;
}

static void http1_requests(void)
{
    int64_t before = node_metric(&node, DROPPED("malformed"));
    static const struct {
        const char *request, *status;
    } rows[] = {
        {"BREW /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 405"},
        {"GET /health\r\n\r\n", "HTTP/1.1 400"},
        {"GET /health HTTP/9.9\r\nHost: x\r\n\r\n", "HTTP/1.1 505"},
        {"GET /health HTTP/1.1\nHost: x\n\n", "HTTP/1.1 400"},
        {"GET /health HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", "HTTP/1.1 400"},
        {"GET /health HTTP/1.1\r\nHost : x\r\n\r\n", "HTTP/1.1 400"},
        {"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "HTTP/1.1 400"},
        {"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 400"},
        {"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", "HTTP/1.1 400"},
        {"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", "HTTP/1.1 413"},
        {"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json"},
        {"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n", "HTTP/1.1 400"},
        {"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 501"},
        {"GET /health HTTP/1.1\r\nHost: x\r\nX: a\x01z\r\n\r\n", "HTTP/1.1 400"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        CHECK(http_says(rows[i].request, rows[i].status), "%s -> %s", rows[i].request, (const char *)answer.data);

    struct buf huge = BUF_INIT;
    buf_add_str(&huge, "GET /health HTTP/1.1\r\nHost: x\r\nX-Huge: ");
    for (int i = 0; i < 2000; i++)
        buf_add_str(&huge, "0123456789");
    buf_add_str(&huge, "\r\n\r\n");
    buf_add_byte(&huge, 0);
    CHECK(http_says((const char *)huge.data, "HTTP/1.1 431"), "%.40s", (const char *)answer.data);
    buf_fini(&huge);
    CHECK(node_metric(&node, DROPPED("malformed")) >= before + 10);
    witness_check(&witness, "bad HTTP/1.1");
}

/* Bodies are thrown away as they come: 200 connections that each owe the last byte of 2 MB hold nothing. */
static void http1_bodies(void)
{
    long rss = node_rss_mib(&node, "gatewayd");
    int fds[200];
    char *junk = calloc(1, 1999999);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = raw_connect(&node);
        raw_send_str(fds[i], "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\nConnection: close\r\n\r\n");
        raw_send(fds[i], slice_of(junk, 1999999));
    }
    long gained = node_rss_mib(&node, "gatewayd") - rss;
    CHECK(node_is_sanitized() || gained < SLACK_MIB, "gatewayd holds %ld MiB more", gained);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        raw_send(fds[i], slice_of("x", 1));
        buf_reset(&answer);
        if (i % 50 == 0)
            CHECK(raw_closed(fds[i], &answer, 3000) && answer.len > 12 && memcmp(answer.data, "HTTP/1.1 405", 12) == 0, "the body was read to its end");
        close(fds[i]);
    }
    free(junk);
    witness_check(&witness, "bodies that do not end");
}

static void http1_pipelines(void)
{
    static const char ask[] = "GET /version HTTP/1.1\r\nHost: x\r\n\r\n", last[] = "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    int fd = raw_connect(&node);
    size_t count = 0;
    buf_reset(&out);
    for (int i = 0; i < 100; i++)
        buf_add_str(&out, ask);
    buf_add_str(&out, last);
    raw_send(fd, buf_slice(&out));
    buf_reset(&answer);
    CHECK(raw_closed(fd, &answer, 5000));
    buf_add_byte(&answer, 0);
    for (const char *at = (const char *)answer.data; (at = strstr(at, "HTTP/1.1 200 OK")) != NULL; at++)
        count++;
    CHECK(count == 101, "%zu of 101 answers to a pipeline", count);
    close(fd);

    /* Asks for 5 GB of metrics and reads none. */
    long rss = node_rss_mib(&node, "gatewayd");
    fd = raw_connect(&node);
    buf_reset(&out);
    for (int i = 0; i < 1000; i++)
        buf_add_str(&out, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < 50 && raw_send(fd, buf_slice(&out)); i++) {
    }
    buf_reset(&out);
    usleep(300000);
    long gained = node_rss_mib(&node, "gatewayd") - rss;
    CHECK(node_is_sanitized() || gained < SLACK_MIB, "gatewayd holds %ld MiB more", gained);
    close(fd);
    witness_check(&witness, "pipelines");
}

/* One byte now and then: begun first, looked at last. */
static int slow_fds[50];
static uint64_t slow_since_ms;

static void slow_headers_begin(void)
{
    for (size_t i = 0; i < ARRAY_LEN(slow_fds); i++) {
        slow_fds[i] = raw_connect(&node);
        raw_send_str(slow_fds[i], i % 2 ? "GET /health HTTP/1.1\r\nHo" : "P");
    }
    slow_since_ms = clock_now_ms();
}

static void slow_headers_go_on(void)
{
    for (size_t i = 0; i < ARRAY_LEN(slow_fds); i++)
        if (i % 2)
            raw_send_str(slow_fds[i], "s");
}

static void slow_headers_end(void)
{
    while (clock_now_ms() < slow_since_ms + 10500) {
        slow_headers_go_on();
        usleep(250000);
    }
    size_t closed = 0;
    for (size_t i = 0; i < ARRAY_LEN(slow_fds); i++) {
        closed += raw_closed(slow_fds[i], NULL, 1000);
        close(slow_fds[i]);
    }
    CHECK(closed == ARRAY_LEN(slow_fds), "%zu of %zu slow connections were closed after 10 s", closed, ARRAY_LEN(slow_fds));
    CHECK(node_metric(&node, DROPPED("slow")) >= (int64_t)ARRAY_LEN(slow_fds));
    witness_check(&witness, "slow headers");
}

/* --- gRPC ------------------------------------------------------------------------------------------ */

static void grpc_request(const char *path, const char *name, const char *value, bool end)
{
    buf_reset(&block);
    h2_request(&block, path);
    if (name)
        h2_field(&block, name, value);
    h2_frame(&out, H2_HEADERS, H2_END_HEADERS | (end ? H2_END_STREAM : 0), 1, buf_slice(&block));
}

/* Sends what is in out on a connection of its own; the status that comes back, or H2_NOTHING. */
static struct raw_h2 h2;
static int grpc_status_of(void)
{
    h2_open(&h2, &node);
    h2_send(&h2, &out);
    h2_read(&h2, &h2.ended, 1, 5000);
    h2_close(&h2);
    return h2.grpc_status;
}

static struct slice range_bytes(void)
{
    buf_reset(&body);
    api_encode_range(&body, &(struct api_range){.key = SLICE_LIT("witness")});
    return buf_slice(&body);
}

#define EXPECT(status, text) \
    do { \
        int got_ = grpc_status_of(); \
        CHECK(got_ == (status) && (!*(text) || strcmp(h2.grpc_message, text) == 0), "got %d \"%s\"", got_, h2.grpc_message); \
    } while (0)

static void grpc_framing(void)
{
    grpc_request(KV "Range", NULL, NULL, false);
    h2_frame(&out, H2_DATA, H2_END_STREAM, 1, SLICE_LIT("\1\0\0\0\1x"));
    EXPECT(12, "grpc: compressed flag set with identity or empty encoding");
    grpc_request(KV "Range", "grpc-encoding", "gzip", false);
    h2_frame(&out, H2_DATA, H2_END_STREAM, 1, SLICE_LIT("\1\0\0\0\1x"));
    EXPECT(12, "grpc: Decompressor is not installed for grpc-encoding \"gzip\"");
    grpc_request(KV "Range", NULL, NULL, false);
    h2_frame(&out, H2_DATA, H2_END_STREAM, 1, SLICE_LIT("\7\0\0\0\1x"));
    EXPECT(13, "grpc: received unexpected payload format 7");
    grpc_request(KV "Range", NULL, NULL, false);
    h2_frame(&out, H2_DATA, H2_END_STREAM, 1, SLICE_LIT("\0\0\0\0\x20only this"));
    EXPECT(13, "");
    grpc_request(KV "Range", NULL, NULL, false);
    h2_frame(&out, H2_DATA, H2_END_STREAM, 1, SLICE_LIT("\0\0\0"));
    EXPECT(13, "");
    grpc_request(KV "Range", NULL, NULL, true);
    EXPECT(13, "");
    grpc_request(KV "Range", NULL, NULL, false);
    h2_message(&out, 1, 0, range_bytes());
    h2_message(&out, 1, H2_END_STREAM, range_bytes());
    EXPECT(13, "");

    long rss = node_rss_mib(&node, "gatewayd");
    h2_open(&h2, &node);
    for (uint32_t i = 0; i < 2000; i++) { /* each says that 2 GB follow */
        buf_reset(&block);
        h2_request(&block, KV "Put");
        h2_frame(&out, H2_HEADERS, H2_END_HEADERS, 2 * i + 1, buf_slice(&block));
        h2_frame(&out, H2_DATA, 0, 2 * i + 1, SLICE_LIT("\0\x7f\xff\xff\xff" "abc"));
    }
    h2_send(&h2, &out);
    h2_read(&h2, &h2.ended, 2000, 5000);
    CHECK(h2.ended >= 2000 && h2.grpc_status == 8 && strcmp(h2.grpc_message, "grpc: received message larger than max (2147483647 vs. 2097152)") == 0, "%u %d %s",
          h2.ended, h2.grpc_status, h2.grpc_message);
    CHECK(node_is_sanitized() || node_rss_mib(&node, "gatewayd") - rss < 20, "before any memory is taken");
    h2_close(&h2);
    witness_check(&witness, "bad gRPC framing");
}

static void field_add(const char *name, const char *value)
{
    h2_field(&block, name, value);
}

static void grpc_metadata(void)
{
    buf_reset(&block); /* content type */
    field_add(":method", "POST"), field_add(":scheme", "http"), field_add(":path", KV "Range"), field_add("content-type", "text/html");
    h2_frame(&out, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, 1, buf_slice(&block));
    grpc_status_of();
    CHECK(strcmp(h2.http_status, "415") == 0, "%s", h2.http_status);
    buf_reset(&block); /* method */
    field_add(":method", "GET"), field_add(":scheme", "http"), field_add(":path", KV "Range"), field_add("content-type", "application/grpc");
    h2_frame(&out, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, 1, buf_slice(&block));
    grpc_status_of();
    CHECK(strcmp(h2.http_status, "405") == 0, "%s", h2.http_status);
    buf_reset(&block); /* no te: served all the same, as grpc-go does */
    field_add(":method", "POST"), field_add(":scheme", "http"), field_add(":path", KV "Range"), field_add("content-type", "application/grpc");
    h2_frame(&out, H2_HEADERS, H2_END_HEADERS, 1, buf_slice(&block));
    h2_message(&out, 1, H2_END_STREAM, range_bytes());
    EXPECT(0, "");
    buf_reset(&block); /* nothing at all */
    h2_frame(&out, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, 1, buf_slice(&block));
    grpc_status_of();
    CHECK(strcmp(h2.http_status, "415") == 0 || h2.resets || h2.closed, "%s", h2.http_status);

    static const char *const timeouts[] = {"", "1", "S", "xS", "123456789S", "-1S", "1s", "99999999H", "1 S", "0x1S"};
    for (size_t i = 0; i < ARRAY_LEN(timeouts); i++) {
        bool good = strcmp(timeouts[i], "99999999H") == 0;
        grpc_request(KV "Range", "grpc-timeout", timeouts[i], false);
        h2_message(&out, 1, H2_END_STREAM, range_bytes());
        int status = grpc_status_of();
        CHECK(good ? status == 0 : status == 13 && strncmp(h2.grpc_message, "malformed grpc-timeout", 22) == 0, "\"%s\": %d %s", timeouts[i], status,
              h2.grpc_message);
    }
    grpc_request(KV "Range", "grpc-timeout", "1n", false);
    EXPECT(4, "context deadline exceeded");
    grpc_request("/etcdserverpb.Watch/Watch", "grpc-timeout", "20m", false);
    EXPECT(4, "context deadline exceeded");

    grpc_request(KV "Range", "client-api-version", "\xff\xfe\x80", false);
    h2_message(&out, 1, H2_END_STREAM, range_bytes());
    EXPECT(3, "etcdserver: invalid client api version");
    static const char *const fields[][2] = {{"authorization", "\xff\xff"}, {"token", "%%%zz%"},   {"x-bin", "not base64 !!"}, {"grpc-tags-bin", "\x01\x02"},
                                            {"hasleader", "\xc0\x80"},     {"user-agent", "%00"}, {"grpc-accept-encoding", ",,,"}, {"UPPER", "case"}};
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        grpc_request(KV "Range", fields[i][0], fields[i][1], false);
        h2_message(&out, 1, H2_END_STREAM, range_bytes());
        int status = grpc_status_of();
        CHECK(status == 0 || h2.resets || h2.closed, "%s: %d", fields[i][0], status);
    }

    char path[5000];
    memset(path, 'p', sizeof(path) - 1);
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    const char *const paths[] = {"", "x", "/", "//", "/a/b/c", "/etcdserverpb.KV/", "/etcdserverpb.KV", "/\xff\xfe/%", KV "Range/", path};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        grpc_request(paths[i], NULL, NULL, true);
        EXPECT(12, "");
    }
    witness_check(&witness, "bad metadata");
}

/* --- protobuf --------------------------------------------------------------------------------------- */

static const char *const unary_paths[] = {
    KV "Range", KV "Put", KV "DeleteRange", KV "Txn", KV "Compact", "/etcdserverpb.Lease/LeaseGrant", "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseTimeToLive", "/etcdserverpb.Lease/LeaseLeases", "/etcdserverpb.Cluster/MemberList", "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/Status", "/etcdserverpb.Maintenance/Defragment", "/etcdserverpb.Maintenance/HashKV", "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List", "/etcdserverpb.Auth/Authenticate", "/v3lockpb.Lock/Lock"};
static const char *const stream_paths[] = {KV "RangeStream", "/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive", "/grpc.health.v1.Health/Watch"};

/* Never a valid message: wire type 7 at the end. */
static struct slice garbage_bytes(void)
{
    size_t len = (size_t)rand_below(&rnd, 200);
    buf_reset(&body);
    for (size_t i = 0; i < len; i++)
        buf_add_byte(&body, i % 3 == 0 ? (uint8_t)(rand_below(&rnd, 20) << 3 | rand_below(&rnd, 6)) : (uint8_t)rand_u64(&rnd));
    buf_add_str(&body, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
    return buf_slice(&body);
}

struct ended {
    bool done;
    int status;
};

static void ended(struct gcall *call, int status, const char *text, void *arg)
{
    UNUSED(call);
    UNUSED(text);
    *(struct ended *)arg = (struct ended){true, status};
}

static void protobuf(void)
{
    struct gclient *c = node_connect(&node);
    for (size_t p = 0; p < ARRAY_LEN(unary_paths); p++) {
        int odd = 0;
        for (int i = 0; i < 100; i++) {
            int status = gclient_unary(c, unary_paths[p], garbage_bytes(), NULL, NULL, 5000);
            odd += status < 0 || status == 14;
        }
        CHECK(odd == 0, "%s: %d of 100 without a proper status", unary_paths[p], odd);
    }
    static const struct gcall_ops ops = {.end = ended};
    for (size_t p = 0; p < ARRAY_LEN(stream_paths); p++) {
        for (int i = 0; i < 50; i++) {
            struct ended e = {0};
            struct gcall *call = gcall_start(c, stream_paths[p], garbage_bytes(), true, NULL, &ops, &e);
            if (!gclient_run(c, &e.done, 20) && !e.done) {
                gcall_cancel(call);
                gclient_run(c, &e.done, 2000);
            }
            if (!CHECK(e.done && !gclient_lost(c), "%s", stream_paths[p]))
                break;
        }
    }
    gclient_free(c);
    witness_check(&witness, "protobuf garbage");
}

/* --- transactions ------------------------------------------------------------------------------------ */

static int txn_status(struct slice bytes)
{
    struct gclient *c = node_connect(&node);
    buf_reset(&answer);
    int status = gclient_unary(c, KV "Txn", bytes, NULL, &answer, 20000);
    buf_add_byte(&answer, 0);
    gclient_free(c);
    return status;
}

/* Every level's head is 2 x (tag + length) around the level below: built from the inside out, backwards. */
static struct slice deep_txn(size_t levels)
{
    struct buf lens = BUF_INIT; /* of each level, innermost first */
    uint64_t len = 0;
    for (size_t i = 0; i < levels; i++) {
        buf_add(&lens, &len, sizeof(len));
        len = pb_head_size(API_OP_TXN, len) + len;
        len = pb_head_size(2, len) + len;
    }
    buf_reset(&body);
    for (size_t i = levels; i-- > 0;) {
        memcpy(&len, lens.data + i * sizeof(len), sizeof(len));
        pb_add_head(&body, 2, pb_head_size(API_OP_TXN, len) + len);
        pb_add_head(&body, API_OP_TXN, len);
    }
    buf_fini(&lens);
    return buf_slice(&body);
}

static void transactions(void)
{
    static const char too_many[] = "etcdserver: too many operations in txn request";
    long gateway = node_rss_mib(&node, "gatewayd"), stored = node_rss_mib(&node, "stored");
    CHECK(txn_status(deep_txn(64)) == 0 || txn_status(deep_txn(64)) == 3, "64 levels");
    CHECK(txn_status(deep_txn(65)) == 3 && strcmp((char *)answer.data, too_many) == 0, "65 levels");
    CHECK(txn_status(deep_txn(150000)) == 3 && strcmp((char *)answer.data, too_many) == 0, "150000 levels");

    for (unsigned number = 1; number <= 3; number++) {
        buf_reset(&body);
        while (body.len < 2000000)
            pb_add_message(&body, number, SLICE_EMPTY);
        CHECK(txn_status(buf_slice(&body)) == 3 && strcmp((char *)answer.data, too_many) == 0, "a million empty items in field %u: %s", number, (char *)answer.data);
    }
    /* 64 x 32 x 16 x 8: within the limit at each level */
    struct buf below = BUF_INIT, op = BUF_INIT;
    for (unsigned width = 8; width <= 64; width *= 2) {
        struct buf level = BUF_INIT;
        buf_reset(&op);
        pb_add_message(&op, API_OP_TXN, buf_slice(&below));
        for (unsigned i = 0; i < width; i++)
            pb_add_message(&level, 2, buf_slice(&op));
        buf_fini(&below);
        below = level;
    }
    CHECK(txn_status(buf_slice(&below)) == 3, "a tree that multiplies");
    buf_fini(&below);
    buf_fini(&op);
    CHECK(node_is_sanitized() || node_rss_mib(&node, "gatewayd") - gateway < SLACK_MIB, "gatewayd");
    CHECK(node_is_sanitized() || node_rss_mib(&node, "stored") - stored < SLACK_MIB, "stored");
    witness_check(&witness, "hostile transactions");
}

static void large_answers(void)
{
    struct gclient *c = node_connect(&node);
    struct api_request_op ops[128];
    char *value = calloc(1, 1000000);
    for (int i = 0; i < 8; i++) {
        char key[16];
        snprintf(key, sizeof(key), "fat/%d", i);
        buf_reset(&body);
        api_encode_put(&body, &(struct api_put){.key = slice_str(key), .value = slice_of(value, 1000000)});
        CHECK(gclient_unary(c, KV "Put", buf_slice(&body), NULL, NULL, 10000) == 0);
    }
    free(value);
    gclient_free(c);

    /* 127 times 8 MB: as a read, then together with a change, which happens all the same. */
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        ops[i] = (struct api_request_op){.op = API_OP_RANGE, .range = {.key = SLICE_LIT("fat/"), .range_end = SLICE_LIT("fat0")}};
    buf_reset(&body);
    api_encode_txn(&body, &(struct api_txn){.success = ops, .success_count = ARRAY_LEN(ops)});
    CHECK(txn_status(buf_slice(&body)) == 8, "%s", (char *)answer.data);
    ops[0] = (struct api_request_op){.op = API_OP_PUT, .put = {.key = SLICE_LIT("happened"), .value = SLICE_LIT("yes")}};
    buf_reset(&body);
    api_encode_txn(&body, &(struct api_txn){.success = ops, .success_count = ARRAY_LEN(ops)});
    CHECK(txn_status(buf_slice(&body)) == 8, "%s", (char *)answer.data);
    struct api_compare there = {.target = API_VALUE, .key = SLICE_LIT("happened"), .value = SLICE_LIT("yes")};
    struct api_request_op del = {.op = API_OP_DELETE, .del = {.key = SLICE_LIT("fat/"), .range_end = SLICE_LIT("fat0"), .prev_kv = true}};
    buf_reset(&body);
    api_encode_txn(&body, &(struct api_txn){.compares = &there, .compare_count = 1, .success = &del, .success_count = 1});
    CHECK(txn_status(buf_slice(&body)) == 0, "%s", (char *)answer.data);
    CHECK(node_is_sanitized() || node_rss_mib(&node, "stored") < 450, "stored has %ld MiB", node_rss_mib(&node, "stored"));
    witness_check(&witness, "answers without measure");
}

/* --- watches ------------------------------------------------------------------------------------------ */

static struct slice create_request(int number, int64_t start_rev)
{
    struct buf create = BUF_INIT;
    char key[32];
    snprintf(key, sizeof(key), "w/%d", number);
    pb_add_bytes(&create, 1, slice_str(key));
    pb_add_int(&create, 3, start_rev);
    buf_reset(&body);
    pb_add_message(&body, 1, buf_slice(&create));
    buf_fini(&create);
    return buf_slice(&body);
}

static unsigned responses;

static void count_message(struct gcall *call, struct slice message, void *arg)
{
    UNUSED(call);
    UNUSED(message);
    UNUSED(arg);
    responses++;
}

static bool metric_becomes(const char *series, int64_t value)
{
    for (int i = 0; i < 100; i++) {
        if (node_metric(&node, series) == value)
            return true;
        usleep(30000);
    }
    return false;
}

static void watches(void)
{
    static const struct gcall_ops ops = {count_message, ended};
    struct ended e[100] = {0};
    struct gclient *c = node_connect(&node);
    responses = 0;
    for (size_t s = 0; s < ARRAY_LEN(e); s++) {
        struct gcall *call = gcall_start(c, "/etcdserverpb.Watch/Watch", create_request((int)s, 0), false, NULL, &ops, &e[s]);
        for (int i = 0; i < 99; i++)
            gcall_send(call, create_request((int)s * 100 + i, i % 2));
    }
    for (int i = 0; i < 500 && responses < 10000; i++)
        gclient_run(c, NULL, 20);
    CHECK(responses >= 10000, "%u watches were created", responses);
    CHECK(node_metric(&node, "etcd_debugging_mvcc_watcher_total") == 10000);
    gclient_free(c);
    CHECK(metric_becomes("etcd_debugging_mvcc_watcher_total", 0), "all are gone with the connection");
    CHECK(metric_becomes("trine_stored_watch_ranges", 0), "and their ranges in stored");

    c = node_connect(&node); /* created and cancelled before anybody could answer */
    struct ended one = {0};
    struct gcall *call = gcall_start(c, "/etcdserverpb.Watch/Watch", create_request(0, 1), false, NULL, &ops, &one);
    for (int i = 0; i < 5000; i++) {
        struct buf cancel = BUF_INIT;
        gcall_send(call, create_request(i, 1));
        pb_add_int(&cancel, 1, i);
        buf_reset(&body);
        pb_add_message(&body, 2, buf_slice(&cancel));
        gcall_send(call, buf_slice(&body));
        buf_fini(&cancel);
    }
    gclient_run(c, NULL, 1000);
    CHECK(!one.done);
    gclient_free(c);
    CHECK(metric_becomes("etcd_debugging_mvcc_watcher_total", 0));
    witness_check(&witness, "thousands of watches");
}

/* 20 clients watch all from the first revision on, with 20 MB to come, and do not read. */
static void watchers_that_never_read(void)
{
    struct raw_h2 sleepers[20];
    struct buf create = BUF_INIT, window = BUF_INIT;
    long rss = node_rss_mib(&node, "gatewayd");
    pb_add_bytes(&create, 1, slice_of("\0", 1));
    pb_add_bytes(&create, 2, slice_of("\0", 1));
    pb_add_int(&create, 3, 1);
    buf_reset(&body);
    pb_add_message(&body, 1, buf_slice(&create));
    h2_u32(&window, 0x7fff0000 - 65535);
    for (size_t i = 0; i < ARRAY_LEN(sleepers); i++) {
        h2_open(&sleepers[i], &node);
        h2_frame(&out, H2_SETTINGS, 0, 0, SLICE_LIT("\0\4\x7f\xff\xff\xff"));
        h2_frame(&out, H2_WINDOW_UPDATE, 0, 0, buf_slice(&window));
        buf_reset(&block);
        h2_request(&block, "/etcdserverpb.Watch/Watch");
        h2_frame(&out, H2_HEADERS, H2_END_HEADERS, 1, buf_slice(&block));
        h2_message(&out, 1, 0, buf_slice(&body));
        h2_send(&sleepers[i], &out);
    }
    struct gclient *c = node_connect(&node);
    char *value = calloc(1, 200000);
    for (int i = 0; i < 100; i++) {
        buf_reset(&body);
        api_encode_put(&body, &(struct api_put){.key = SLICE_LIT("loud"), .value = slice_of(value, 200000)});
        CHECK(gclient_unary(c, KV "Put", buf_slice(&body), NULL, NULL, 10000) == 0);
    }
    free(value);
    gclient_free(c);
    long gained = node_rss_mib(&node, "gatewayd") - rss;
    CHECK(node_is_sanitized() || gained < 20 * 9 + SLACK_MIB, "20 streams of at most 4 MiB and a slice each: %ld MiB", gained);
    for (size_t i = 0; i < ARRAY_LEN(sleepers); i++)
        h2_close(&sleepers[i]);
    buf_fini(&create);
    buf_fini(&window);
    CHECK(metric_becomes("trine_gateway_queued_bytes", 0));
    witness_check(&witness, "watchers that never read");
}

/* Asks faster than can be answered, and reads nothing: the stream is not read from either. */
static void keep_alives(void)
{
    long rss = node_rss_mib(&node, "gatewayd");
    struct raw_h2 h;
    h2_open(&h, &node);
    buf_reset(&block);
    h2_request(&block, "/etcdserverpb.Lease/LeaseKeepAlive");
    h2_frame(&out, H2_HEADERS, H2_END_HEADERS, 1, buf_slice(&block));
    buf_reset(&body);
    pb_add_int(&body, 1, 4711);
    for (int i = 0; i < 16000; i++) /* within the window of 256 KiB, with frames of their own */
        h2_message(&out, 1, 0, buf_slice(&body));
    h2_send(&h, &out);
    usleep(300000);
    long gained = node_rss_mib(&node, "gatewayd") - rss;
    CHECK(node_is_sanitized() || gained < SLACK_MIB, "gatewayd holds %ld MiB more", gained);
    h2_close(&h);
    CHECK(metric_becomes("trine_gateway_calls", 0));
    witness_check(&witness, "keep-alives");
}

/* --- connections ---------------------------------------------------------------------------------------- */

static void idle_connections(void)
{
    static int fds[FILES_MAX];
    size_t count = 0, made_room = 0;
    int64_t before = node_metric(&node, DROPPED("limit"));
    while (count < FILES_MAX - 30) {
        fds[count] = raw_connect(&node);
        if (!CHECK(fds[count] >= 0))
            break;
        count++;
    }
    /* Who has said nothing for longest makes room; who is in already and who comes are served. */
    for (size_t i = 0; i < 30; i++)
        made_room += raw_closed(fds[i], NULL, 100);
    CHECK(made_room > 0, "connections over the limit take the place of idle ones");
    buf_reset(&answer);
    CHECK(gclient_unary(witness.client, KV "Range", range_bytes(), NULL, NULL, 5000) == 0);
    witness_check(&witness, "while idle connections fill every place");
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
    usleep(200000);
    CHECK(node_metric(&node, DROPPED("limit")) >= before + (int64_t)made_room);
    witness_check(&witness, "connections up to the limit");
}

int main(void)
{
    struct rlimit files = {FILES_MAX, FILES_MAX};
    must(setrlimit(RLIMIT_NOFILE, &files) == 0);
    rand_seed(&rnd, 20260101);
    node_start(&node, NULL);
    witness_start(&witness, &node);
    garbage();
    slow_headers_begin();
    http1_requests();
    http1_bodies();
    slow_headers_go_on();
    http1_pipelines();
    grpc_framing();
    grpc_metadata();
    slow_headers_go_on();
    protobuf();
    transactions();
    slow_headers_go_on();
    keep_alives();
    large_answers();
    watches();
    watchers_that_never_read();
    slow_headers_end();
    idle_connections();
    witness_stop(&witness);
    node_stop(&node);
    return check_summary();
}
