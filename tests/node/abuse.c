/* abuse - hostile clients beside a well-behaved one, over a real node: for each abuse a process of its own does nothing else for a
 * while, and meanwhile the p99 of the well-behaved client's puts and gets and the memory of the daemons are measured. Before that,
 * an honest load that is as large as it gets: many ranges of a large keyspace at once, which gives the measure of memory.
 * Afterwards nothing may be left: no connection, call, handshake, open file, queued byte.
 *   trine-abuse            `make abuse`: times and memory are judged     trine-abuse --short      part of `make check`: they are not */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/limits.h"
#include "common/rand.h"
#include "common/tls.h"
#include "proto/api.h"
#include "tests/lib/raw.h"

#define KV "/etcdserverpb.KV/"
#define SAMPLES_MAX 200000
#define VALUE_BYTES 100000
/* A p99 of a millisecond may double for a reason that is nobody's fault. */
#define P99_SLACK_US 5000
#define SETTLE_MS 15000

struct phase {
    uint64_t p50_us, p99_us, failed;
    size_t count;
    long gateway_mib, stored_mib; /* most of them seen */
    int64_t queued;               /* most bytes that waited for clients */
};

static struct node node;
static struct buf out, block, body, hello;
static bool is_short;
static unsigned phase_ms;
static long daemons[2]; /* pids of gatewayd and stored: looked up once, before what is measured */
static uint64_t *samples;
static struct tls_context *tls; /* of clients */

/* --- what the hostile say -------------------------------------------------------------------------- */

static void request_add(uint32_t stream, const char *path, bool end)
{
    buf_reset(&block);
    h2_request(&block, path);
    h2_frame(&out, H2_HEADERS, H2_END_HEADERS | (end ? H2_END_STREAM : 0), stream, buf_slice(&block));
}

static struct slice range_body(const char *key, const char *end)
{
    buf_reset(&body);
    api_encode_range(&body, &(struct api_range){.key = slice_str(key), .range_end = slice_str(end), .serializable = true});
    return buf_slice(&body);
}

/* A flood of frames, as fast as the server reads them; a new connection whenever it has ended the last. */
static void flood(void (*frames)(uint32_t n))
{
    struct raw_h2 h;
    for (;;) {
        h2_open(&h, &node);
        bool open = true;
        for (uint32_t n = 0; n < 400000 && open; n++) {
            frames(n);
            if (out.len > 30000) {
                open = h2_send(&h, &out);
                if (n % 64 == 0)
                    h2_read(&h, NULL, 0, 0);
            }
        }
        buf_reset(&out);
        h2_close(&h);
        usleep(5000);
    }
}

static void reset_frames(uint32_t n)
{
    request_add(2 * n + 1, KV "Range", false);
    h2_message(&out, 2 * n + 1, H2_END_STREAM, range_body("a", "b"));
    buf_reset(&body);
    h2_u32(&body, 8);
    h2_frame(&out, H2_RST_STREAM, 0, 2 * n + 1, buf_slice(&body));
}
static void ping_frames(uint32_t n) { UNUSED(n); h2_frame(&out, H2_PING, 0, 0, SLICE_LIT("12345678")); }
static void settings_frames(uint32_t n) { UNUSED(n); h2_frame(&out, H2_SETTINGS, 0, 0, SLICE_EMPTY); }
static void continuation_frames(uint32_t n)
{
    char value[2000];
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    buf_reset(&block);
    if (n == 0) {
        h2_request(&block, KV "Range");
        h2_frame(&out, H2_HEADERS, 0, 1, buf_slice(&block));
        return;
    }
    h2_field(&block, "x-more", value);
    h2_frame(&out, H2_CONTINUATION, 0, 1, buf_slice(&block));
}
static void bomb_frames(uint32_t n)
{
    char value[3900];
    memset(value, 'b', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    buf_reset(&block);
    h2_request(&block, KV "Range");
    if (n == 0) {
        size_t plain = block.len;
        h2_field(&block, "x-bomb", value);
        block.data[plain] = 0x40; /* with indexing: what follows names it by one byte */
    }
    for (int k = 0; n > 0 && k < 15000; k++)
        buf_add_byte(&block, 0x80 | 62);
    h2_frame(&out, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, 2 * n + 1, buf_slice(&block));
}
static void oversized_frames(uint32_t n)
{
    request_add(2 * n + 1, KV "Put", false);
    h2_frame(&out, H2_DATA, 0, 2 * n + 1, slice_of("\0\xff\xff\xff\xff much too long", 19));
}
static void truncated_frames(uint32_t n)
{
    request_add(2 * n + 1, KV "Put", false);
    h2_frame(&out, H2_DATA, H2_END_STREAM, 2 * n + 1, slice_of("\0\0\0\1\0 of 256 bytes", 18));
}
static void rapid_reset(void) { flood(reset_frames); }
static void pings(void) { flood(ping_frames); }
static void settings(void) { flood(settings_frames); }
static void continuations(void) { flood(continuation_frames); }
static void header_bombs(void) { flood(bomb_frames); }
static void oversized(void) { flood(oversized_frames); }
static void truncated(void) { flood(truncated_frames); }

/* Many connections that each say a byte now and then. */
static void slow_headers(void)
{
    enum { COUNT = 500 };
    static const char request[] = "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    int fds[COUNT];
    size_t at[COUNT] = {0};
    for (int i = 0; i < COUNT; i++)
        fds[i] = -1;
    for (;;) {
        for (int i = 0; i < COUNT; i++) {
            if (fds[i] < 0) {
                fds[i] = raw_connect(&node);
                at[i] = 0;
            }
            if (at[i] < sizeof(request) - 1 && fds[i] >= 0 && !raw_send(fds[i], slice_of(request + at[i]++, 1))) {
                close(fds[i]);
                fds[i] = -1;
            }
        }
        usleep(100000);
    }
}

/* Large answers that are asked for and not taken: the client's window is closed, or its socket is not read. */
static void unread(bool closed_window)
{
    enum { COUNT = 8 };
    static struct raw_h2 conns[COUNT];
    for (int i = 0; i < COUNT; i++) {
        h2_open(&conns[i], &node);
        buf_reset(&body);
        buf_add(&body, "\0\4", 2);
        h2_u32(&body, closed_window ? 0 : 0x7fffffff);
        h2_frame(&out, H2_SETTINGS, 0, 0, buf_slice(&body));
        buf_reset(&body);
        h2_u32(&body, 0x7fff0000 - 65535);
        h2_frame(&out, H2_WINDOW_UPDATE, 0, 0, buf_slice(&body));
        for (uint32_t k = 0; k < 4; k++) {
            request_add(2 * k + 1, KV "Range", false);
            h2_message(&out, 2 * k + 1, H2_END_STREAM, range_body("big/", "big0"));
        }
        h2_send(&conns[i], &out);
    }
    for (;;)
        pause();
}
static void slow_readers(void) { unread(false); }
static void zero_windows(void) { unread(true); }

/* TLS connections by the thousand that never get beyond their first words; when the server closes one, the next comes. */
static void half_open_tls(void)
{
    enum { COUNT = 3000 };
    static int fds[COUNT];
    struct node to = node;
    to.port = node.tls_port;
    for (int i = 0; i < COUNT; i++)
        fds[i] = -1;
    for (unsigned i = 0;; i = (i + 1) % COUNT) {
        uint8_t byte;
        if (fds[i] >= 0 && recv(fds[i], &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0) {
            close(fds[i]);
            fds[i] = -1;
        }
        if (fds[i] < 0 && (fds[i] = raw_connect(&to)) >= 0)
            raw_send(fds[i], i % 3 == 0 ? buf_part(&hello, 0, hello.len / 2) : buf_slice(&hello));
        if (i % 20 == 0)
            usleep(10000); /* 2000 a second */
    }
}

static void tls_garbage(void)
{
    struct node to = node;
    struct rand rnd;
    uint8_t bytes[3000];
    to.port = node.tls_port;
    rand_seed(&rnd, 1);
    for (unsigned n = 0;; n++) {
        int fd = raw_connect(&to);
        for (size_t k = 0; k < sizeof(bytes); k++)
            bytes[k] = (uint8_t)rand_u64(&rnd);
        if (n % 2 == 0)
            memcpy(bytes, hello.data, MIN(hello.len, (size_t)(n % 400)));
        raw_send(fd, slice_of(bytes, sizeof(bytes)));
        close(fd);
        usleep(1000);
    }
}

static const struct {
    const char *name;
    void (*attack)(void);
} abuses[] = {
    {"rapid reset", rapid_reset},     {"CONTINUATION flood", continuations}, {"SETTINGS flood", settings},    {"PING flood", pings},
    {"header bombs", header_bombs},   {"oversized messages", oversized},     {"truncated messages", truncated}, {"slow headers", slow_headers},
    {"slow readers", slow_readers},   {"zero windows", zero_windows},        {"half-open TLS", half_open_tls}, {"TLS garbage", tls_garbage},
};

/* --- what is measured ------------------------------------------------------------------------------ */

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static long rss_mib(long pid)
{
    char path[64];
    long size = 0, resident = 0;
    snprintf(path, sizeof(path), "/proc/%ld/statm", pid);
    FILE *f = fopen(path, "r");
    if (!f || fscanf(f, "%ld %ld", &size, &resident) != 2)
        resident = 0;
    if (f)
        fclose(f);
    return resident * sysconf(_SC_PAGESIZE) / (1024 * 1024);
}

static void sample_memory(struct phase *p)
{
    p->gateway_mib = MAX(p->gateway_mib, rss_mib(daemons[0]));
    p->stored_mib = MAX(p->stored_mib, rss_mib(daemons[1]));
}

/* The well-behaved client: a put and a get in turn, a hundred times a second. */
static struct phase measure(void)
{
    struct phase p = {0};
    struct gclient *c = node_connect(&node);
    struct buf request = BUF_INIT;
    uint64_t until = clock_now_ms() + phase_ms;
    for (unsigned n = 0; clock_now_ms() < until && p.count < SAMPLES_MAX; n++) {
        buf_reset(&request);
        if (n % 2 == 0)
            api_encode_put(&request, &(struct api_put){.key = SLICE_LIT("well"), .value = SLICE_LIT("behaved")});
        else
            api_encode_range(&request, &(struct api_range){.key = SLICE_LIT("well")});
        uint64_t begun = clock_now_us();
        p.failed += gclient_unary(c, n % 2 == 0 ? KV "Put" : KV "Range", buf_slice(&request), NULL, NULL, 10000) != 0;
        samples[p.count++] = clock_now_us() - begun;
        if (gclient_lost(c)) {
            gclient_free(c);
            c = node_connect(&node);
        }
        if (n % 16 == 0)
            sample_memory(&p);
        usleep(5000);
    }
    qsort(samples, p.count, sizeof(*samples), by_size);
    p.p50_us = samples[p.count / 2];
    p.p99_us = samples[p.count * 99 / 100];
    buf_fini(&request);
    gclient_free(c);
    return p;
}

static unsigned open_files(long pid)
{
    char path[64];
    unsigned count = 0;
    snprintf(path, sizeof(path), "/proc/%ld/fd", pid);
    DIR *d = opendir(path);
    while (d && readdir(d))
        count++;
    if (d)
        closedir(d);
    return count;
}

/* What should be there when nobody is: this asking connection and no more. */
static bool is_quiet(unsigned files)
{
    return node_metric(&node, "trine_gateway_connections") <= 1 && node_metric(&node, "trine_gateway_calls") == 0 &&
           node_metric(&node, "trine_gateway_tls_handshakes") == 0 && node_metric(&node, "trine_gateway_queued_bytes") <= (int64_t)(256 * KIB) &&
           open_files(daemons[0]) <= files + 2;
}

/* --- honest load ----------------------------------------------------------------------------------- */

static void fill(unsigned megabytes)
{
    struct gclient *c = node_connect(&node);
    char *value = malloc(VALUE_BYTES);
    memset(value, 'x', VALUE_BYTES);
    for (unsigned i = 0; i < megabytes * 10; i++) {
        char key[32];
        snprintf(key, sizeof(key), "big/%05u", i);
        buf_reset(&body);
        api_encode_put(&body, &(struct api_put){.key = slice_str(key), .value = slice_of(value, VALUE_BYTES)});
        must(gclient_unary(c, KV "Put", buf_slice(&body), NULL, NULL, 20000) == 0);
    }
    free(value);
    gclient_free(c);
}

/* Ranges of everything at once, each on its connection, taken as fast as this process can. */
static struct phase many_ranges(unsigned count, unsigned megabytes)
{
    struct raw_h2 *conns = calloc(count, sizeof(*conns));
    struct phase p = {0};
    unsigned ended = 0;
    for (unsigned i = 0; i < count; i++) {
        h2_open(&conns[i], &node);
        buf_reset(&body);
        buf_add(&body, "\0\4", 2);
        h2_u32(&body, 0x7fffffff);
        h2_frame(&out, H2_SETTINGS, 0, 0, buf_slice(&body));
        buf_reset(&body);
        h2_u32(&body, 0x7fff0000 - 65535);
        h2_frame(&out, H2_WINDOW_UPDATE, 0, 0, buf_slice(&body));
        request_add(1, KV "Range", false);
        h2_message(&out, 1, H2_END_STREAM, range_body("big/", "big0"));
        h2_send(&conns[i], &out);
    }
    uint64_t until = clock_now_ms() + 300000;
    for (unsigned round = 0; ended < count && clock_now_ms() < until; round++) {
        ended = 0;
        for (unsigned i = 0; i < count; i++) {
            if (conns[i].ended == 0 && !conns[i].closed)
                h2_read(&conns[i], &conns[i].ended, 1, 1);
            ended += conns[i].ended > 0 || conns[i].closed;
        }
        sample_memory(&p);
        if (round % 8 == 0)
            p.queued = MAX(p.queued, node_metric(&node, "trine_gateway_queued_bytes"));
    }
    for (unsigned i = 0; i < count; i++) {
        p.count += conns[i].ended > 0 && conns[i].grpc_status == 0 && conns[i].data_bytes >= (uint64_t)megabytes * 10 * VALUE_BYTES;
        h2_close(&conns[i]);
    }
    free(conns);
    CHECK(p.count == count, "%zu of %u ranges came whole", p.count, count);
    CHECK(p.queued <= (int64_t)OUTBOUND_BYTES_MAX, "%lld bytes were queued", (long long)p.queued);
    CHECK(node_is_sanitized() || p.gateway_mib < (long)(OUTBOUND_BYTES_MAX / MIB), "gatewayd took %ld MiB", p.gateway_mib);
    printf("%u ranges of %u MB at once: at most %lld KiB queued, gatewayd %ld MiB, stored %ld MiB\n", count, megabytes, (long long)p.queued / 1024,
           p.gateway_mib, p.stored_mib);
    return p;
}

/* --- the table -------------------------------------------------------------------------------------- */

static void abuse(size_t i, const struct phase *honest, unsigned files)
{
    const char *name = abuses[i].name;
    struct phase before = measure();
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        abuses[i].attack();
        _exit(0);
    }
    usleep(is_short ? 100000 : 500000); /* let it get going */
    struct phase p = measure();
    uint64_t begun = clock_now_ms();
    struct gclient *by_tls = gclient_connect_tls("127.0.0.1", node.tls_port, tls);
    buf_reset(&body);
    api_encode_range(&body, &(struct api_range){.key = SLICE_LIT("well")});
    bool served = by_tls && gclient_unary(by_tls, KV "Range", buf_slice(&body), NULL, NULL, 10000) == 0;
    gclient_free(by_tls);
    CHECK(served, "%s: a TLS client comes in meanwhile, %llu ms", name, (unsigned long long)(clock_now_ms() - begun));
    bool at_it = waitpid(pid, NULL, WNOHANG) == 0;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    uint64_t until = clock_now_ms() + SETTLE_MS;
    while (!is_quiet(files) && clock_now_ms() < until)
        usleep(50000);
    /* What else this machine does changes by the second: the slower of the two neighbours is the measure. */
    struct phase after = measure();
    uint64_t alone_us = MAX(before.p99_us, after.p99_us);
    printf("%-20s p50 %6.2f ms  p99 %6.2f ms, alone %6.2f ms (%4.1fx)  failed %llu of %zu  gatewayd %ld MiB, stored %ld MiB\n", name, (double)p.p50_us / 1000,
           (double)p.p99_us / 1000, (double)alone_us / 1000, (double)p.p99_us / (double)alone_us, (unsigned long long)p.failed, p.count, p.gateway_mib, p.stored_mib);
    CHECK(at_it, "%s: it goes on to the end", name);
    CHECK(p.failed == 0, "%s: %llu requests of the well-behaved client failed", name, (unsigned long long)p.failed);
    CHECK(is_quiet(files), "%s: connections %lld, calls %lld, handshakes %lld, queued %lld, files %u of %u", name,
          (long long)node_metric(&node, "trine_gateway_connections"), (long long)node_metric(&node, "trine_gateway_calls"),
          (long long)node_metric(&node, "trine_gateway_tls_handshakes"), (long long)node_metric(&node, "trine_gateway_queued_bytes"),
          open_files(daemons[0]), files);
    CHECK(node_pid(&node, "gatewayd") == daemons[0] && node_pid(&node, "stored") == daemons[1], "%s: the daemons live", name);
    if (is_short || node_is_sanitized())
        return;
    CHECK(p.p99_us <= 2 * alone_us + P99_SLACK_US, "%s: p99 %llu us, alone %llu us", name, (unsigned long long)p.p99_us,
          (unsigned long long)alone_us);
    CHECK(p.gateway_mib <= 2 * honest->gateway_mib && p.stored_mib <= 2 * honest->stored_mib, "%s: memory", name);
}

static void make_hello(void)
{
    struct buf why = BUF_INIT;
    tls = tls_context_new(&(struct tls_conf){.self_signed = true}, &why);
    struct tls *t = tls_new(tls, "localhost");
    must(tls_handshake(t) == 0);
    tls_output(t, &hello);
    tls_free(t);
}

int main(int argc, char **argv)
{
    is_short = argc > 1 && strcmp(argv[1], "--short") == 0;
    phase_ms = is_short ? 300 : 4000;
    unsigned megabytes = is_short ? 10 : 200, ranges = is_short ? 20 : 50;
    struct rlimit files_max;
    if (getrlimit(RLIMIT_NOFILE, &files_max) == 0) {
        files_max.rlim_cur = MIN(files_max.rlim_max, 20000);
        setrlimit(RLIMIT_NOFILE, &files_max);
    }
    samples = malloc(SAMPLES_MAX * sizeof(*samples));
    node_start_tls(&node, (const char *const[]){"--auto-tls=true", "--quota-backend-bytes=8589934592", NULL});
    daemons[0] = node_pid(&node, "gatewayd");
    daemons[1] = node_pid(&node, "stored");
    make_hello();
    fill(megabytes);
    struct phase honest = many_ranges(ranges, megabytes);
    struct phase alone = measure();
    sample_memory(&honest);
    unsigned files = open_files(daemons[0]);
    printf("%-20s p50 %6.2f ms  p99 %6.2f ms          of %zu, gatewayd %ld MiB, stored %ld MiB, %u files\n", "alone", (double)alone.p50_us / 1000,
           (double)alone.p99_us / 1000, alone.count, rss_mib(daemons[0]), rss_mib(daemons[1]), files);
    for (size_t i = 0; i < ARRAY_LEN(abuses); i++) {
        if (argc > 2 ? strstr(abuses[i].name, argv[2]) != NULL : true)
            abuse(i, &honest, files);
    }
    node_stop(&node);
    free(samples);
    tls_context_free(tls);
    buf_fini(&hello);
    return check_summary();
}
