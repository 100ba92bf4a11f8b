/* bench - one load generator for any etcd v3 server: many connections x streams, closed loop, distinct keys; prints throughput,
 * latency percentiles, and the server's CPU per operation and memory as one JSON line. tests/bench/run.sh runs the same
 * rows against etcd and Trine in turn and prints the ratios.
 *
 *   trine-bench --port P[,P2,...] --op OP [--pids 1,2,3] [--conns 100] [--streams 10] [--keys 100000] [--value 256] [--seconds 5]
 *
 * Several ports: the members of a cluster; connections are spread over them in turn.
 * --lag N: beside the operation, a watcher on a connection of its own that starts N revisions in the past, and again whenever it
 * has caught up.
 * OP: load (puts every key once), put, get, get-serial, range500, txn, lease-grant, watch (every connection holds `streams`
 * watchers of one key; an operation is one delivered event). */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <jansson.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/rand.h"
#include "proto/api.h"
#include "proto/pb.h"
#include "tests/lib/gclient.h"

enum op { OP_LOAD, OP_PUT, OP_GET, OP_GET_SERIAL, OP_RANGE500, OP_TXN, OP_LEASE_GRANT, OP_WATCH };

static const struct {
    const char *name, *path;
} ops[] = {
    [OP_LOAD] = {"load", "/etcdserverpb.KV/Put"},
    [OP_PUT] = {"put", "/etcdserverpb.KV/Put"},
    [OP_GET] = {"get", "/etcdserverpb.KV/Range"},
    [OP_GET_SERIAL] = {"get-serial", "/etcdserverpb.KV/Range"},
    [OP_RANGE500] = {"range500", "/etcdserverpb.KV/Range"},
    [OP_TXN] = {"txn", "/etcdserverpb.KV/Txn"},
    [OP_LEASE_GRANT] = {"lease-grant", "/etcdserverpb.Lease/LeaseGrant"},
    [OP_WATCH] = {"watch", "/etcdserverpb.Watch/Watch"},
};

#define LATENCIES_MAX (16u << 20)
#define PIDS_MAX 64
#define PORTS_MAX 8

static struct {
    enum op op;
    int port, conns, streams; /* port: the first of them */
    int ports[PORTS_MAX], port_count;
    uint64_t keys, value_bytes;
    double seconds;
    long pids[PIDS_MAX];
    size_t pid_count;
    struct rand rand;
    struct buf value, request;
    uint64_t next_key;   /* load: the next one to put */
    bool stopping;       /* no new operations */
    uint64_t open, done, errors;
    uint64_t events;     /* watch: delivered */
    uint64_t watchers;   /* watch: created */
    uint32_t *latencies; /* microseconds */
    size_t latency_count;
    char first_error[256];
    int lost;                /* connections */
    uint64_t lag;            /* --lag */
    struct gclient *lagger;
    struct gcall *lag_call;
    uint64_t lag_events, lag_rounds;
} bench;

struct worker { /* one stream slot of one connection */
    struct gclient *client;
    uint64_t started_us;
};

static struct slice key_of(uint64_t n, char *text, size_t size)
{
    int len = snprintf(text, size, "bench/%010llu", (unsigned long long)n);
    return slice_of(text, (size_t)len);
}

static struct slice make_request(void)
{
    char text[64], end[64];
    struct buf *b = &bench.request;
    buf_reset(b);
    struct slice key = key_of(rand_below(&bench.rand, bench.keys), text, sizeof(text));
    switch (bench.op) {
    case OP_LOAD:
        key = key_of(bench.next_key++, text, sizeof(text));
        /* fall through */
    case OP_PUT:
        api_encode_put(b, &(struct api_put){.key = key, .value = buf_slice(&bench.value)});
        break;
    case OP_GET:
    case OP_GET_SERIAL:
        api_encode_range(b, &(struct api_range){.key = key, .serializable = bench.op == OP_GET_SERIAL});
        break;
    case OP_RANGE500:
        strcpy(end, "bench0"); /* '0' follows '/' */
        api_encode_range(b, &(struct api_range){.key = SLICE_LIT("bench/"), .range_end = slice_str(end), .limit = 500});
        break;
    case OP_TXN: {
        struct api_compare compare = {.target = API_MOD, .result = API_GREATER, .key = key, .number = 0};
        struct api_request_op put = {.op = API_OP_PUT, .put = {.key = key, .value = buf_slice(&bench.value)}};
        struct api_request_op get = {.op = API_OP_RANGE, .range = {.key = key}};
        api_encode_txn(b, &(struct api_txn){.compares = &compare, .compare_count = 1, .success = &put, .success_count = 1, .failure = &get, .failure_count = 1});
        break;
    }
    case OP_LEASE_GRANT:
        pb_add_int(b, 1, 3600);
        break;
    case OP_WATCH:
        break;
    }
    return slice_of(b->data ? b->data : (const uint8_t *)"", b->len);
}

static void worker_next(struct worker *w);

static void worker_end(struct gcall *call, int status, const char *text, void *arg)
{
    UNUSED(call);
    struct worker *w = arg;
    bench.open--;
    if (status != 0) {
        if (bench.errors++ == 0)
            snprintf(bench.first_error, sizeof(bench.first_error), "status %d: %s", status, text);
    } else {
        bench.done++;
        uint64_t us = clock_now_us() - w->started_us;
        if (bench.latency_count < LATENCIES_MAX)
            bench.latencies[bench.latency_count++] = (uint32_t)MIN(us, UINT32_MAX);
    }
    worker_next(w);
}

static void worker_next(struct worker *w)
{
    static const struct gcall_ops call_ops = {NULL, worker_end};
    if (bench.stopping || (bench.op == OP_LOAD && bench.next_key >= bench.keys))
        return;
    w->started_us = clock_now_us();
    if (gcall_start(w->client, ops[bench.op].path, make_request(), true, NULL, &call_ops, w))
        bench.open++;
}

/* --- watch: every stream holds one watcher, connection 0 puts --------------------------------- */

static void watcher_message(struct gcall *call, struct slice message, void *arg)
{
    UNUSED(call);
    UNUSED(arg);
    struct pb_field f;
    while (pb_next(&message, &f) == 1) {
        if (f.number == 3 && f.varint)
            bench.watchers++;
        if (f.number == 11)
            bench.events++;
    }
}

static void watcher_end(struct gcall *call, int status, const char *text, void *arg)
{
    UNUSED(call);
    UNUSED(arg);
    if (!bench.stopping && bench.errors++ == 0)
        snprintf(bench.first_error, sizeof(bench.first_error), "watch ended: status %d: %s", status, text);
}

static void watcher_open(struct gclient *c)
{
    static const struct gcall_ops call_ops = {watcher_message, watcher_end};
    struct buf create = BUF_INIT, request = BUF_INIT;
    pb_add_bytes(&create, 1, SLICE_LIT("bench/watched"));
    pb_add_message(&request, 1, buf_slice(&create));
    gcall_start(c, ops[OP_WATCH].path, buf_slice(&request), false, NULL, &call_ops, NULL);
    buf_fini(&create);
    buf_fini(&request);
}

/* --- the watcher in the past ------------------------------------------------------------------- */

static void lag_message(struct gcall *call, struct slice message, void *arg)
{
    UNUSED(arg);
    struct pb_field f;
    while (pb_next(&message, &f) == 1)
        bench.lag_events += f.number == 11;
    if (bench.lag_events >= bench.lag * (bench.lag_rounds + 1) && bench.lag_call) {
        bench.lag_rounds++;
        bench.lag_call = NULL;
        gcall_cancel(call);
    }
}

static void lag_end(struct gcall *call, int status, const char *text, void *arg)
{
    UNUSED(arg);
    if (call == bench.lag_call && !bench.stopping && bench.errors++ == 0)
        snprintf(bench.first_error, sizeof(bench.first_error), "lagging watch ended: status %d: %s", status, text);
}

static int64_t current_rev(struct gclient *c)
{
    struct buf b = BUF_INIT, reply = BUF_INIT;
    struct pb_field f, h;
    int64_t rev = 0;
    api_encode_range(&b, &(struct api_range){.key = SLICE_LIT("bench/none"), .serializable = true});
    gclient_unary(c, ops[OP_GET].path, buf_slice(&b), &reply, NULL, 10000);
    struct slice in = buf_slice(&reply);
    while (pb_next(&in, &f) == 1)
        while (f.number == 1 && pb_next(&f.bytes, &h) == 1)
            if (h.number == 3)
                rev = (int64_t)h.varint;
    buf_fini(&b);
    buf_fini(&reply);
    return rev;
}

static void lag_open(int64_t from)
{
    static const struct gcall_ops call_ops = {lag_message, lag_end};
    struct buf create = BUF_INIT, request = BUF_INIT;
    pb_add_bytes(&create, 1, SLICE_LIT("bench/"));
    pb_add_bytes(&create, 2, SLICE_LIT("bench0"));
    pb_add_int(&create, 3, from);
    pb_add_message(&request, 1, buf_slice(&create));
    bench.lag_call = gcall_start(bench.lagger, ops[OP_WATCH].path, buf_slice(&request), false, NULL, &call_ops, NULL);
    buf_fini(&create);
    buf_fini(&request);
}

/* --- the server's side, from /proc ------------------------------------------------------------ */

static double cpu_seconds(void)
{
    double sum = 0;
    for (size_t i = 0; i < bench.pid_count; i++) {
        char path[64], line[1024];
        snprintf(path, sizeof(path), "/proc/%ld/stat", bench.pids[i]);
        FILE *f = fopen(path, "r");
        unsigned long user = 0, system = 0;
        if (f && fgets(line, sizeof(line), f)) {
            char *p = strrchr(line, ')');
            if (p && sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2)
                sum += (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
        }
        if (f)
            fclose(f);
    }
    return sum;
}

static uint64_t rss_kb(void)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < bench.pid_count; i++) {
        char path[64], line[256];
        unsigned long kb;
        snprintf(path, sizeof(path), "/proc/%ld/status", bench.pids[i]);
        FILE *f = fopen(path, "r");
        while (f && fgets(line, sizeof(line), f))
            if (sscanf(line, "VmRSS: %lu", &kb) == 1)
                sum += kb;
        if (f)
            fclose(f);
    }
    return sum;
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile(double p)
{
    return bench.latency_count ? bench.latencies[(size_t)((double)(bench.latency_count - 1) * p)] : 0;
}

static void usage(void)
{
    fprintf(stderr, "usage: trine-bench --port P[,P2] --op OP [--pids 1,2] [--conns N] [--streams N] [--keys N] [--value BYTES] [--seconds S] "
                    "[--lag REVISIONS]\n");
    exit(2);
}

static void parse(int argc, char **argv)
{
    static const struct option options[] = {{"port", 1, 0, 'p'}, {"op", 1, 0, 'o'}, {"pids", 1, 0, 'i'}, {"conns", 1, 0, 'c'},
        {"streams", 1, 0, 's'}, {"keys", 1, 0, 'k'}, {"value", 1, 0, 'v'}, {"seconds", 1, 0, 't'}, {"lag", 1, 0, 'l'}, {0, 0, 0, 0}};
    bench.conns = 100, bench.streams = 10, bench.keys = 100000, bench.value_bytes = 256, bench.seconds = 5;
    const char *op = NULL;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'p':
            for (char *p = strtok(optarg, ","); p && bench.port_count < PORTS_MAX; p = strtok(NULL, ","))
                bench.ports[bench.port_count++] = atoi(p);
            bench.port = bench.ports[0];
            break;
        case 'o': op = optarg; break;
        case 'c': bench.conns = atoi(optarg); break;
        case 's': bench.streams = atoi(optarg); break;
        case 'k': bench.keys = strtoull(optarg, NULL, 10); break;
        case 'v': bench.value_bytes = strtoull(optarg, NULL, 10); break;
        case 't': bench.seconds = atof(optarg); break;
        case 'l': bench.lag = strtoull(optarg, NULL, 10); break;
        case 'i':
            for (char *p = strtok(optarg, ","); p && bench.pid_count < PIDS_MAX; p = strtok(NULL, ","))
                bench.pids[bench.pid_count++] = atol(p);
            break;
        default: usage();
        }
    }
    size_t i = 0;
    while (op && i < ARRAY_LEN(ops) && strcmp(ops[i].name, op) != 0)
        i++;
    if (!op || i == ARRAY_LEN(ops) || !bench.port || bench.conns < 1 || bench.streams < 1 || bench.keys < 1)
        usage();
    bench.op = (enum op)i;
}

static void poll_once(int epoll, struct gclient **clients, int ms)
{
    struct epoll_event events[256];
    int n = epoll_wait(epoll, events, ARRAY_LEN(events), ms);
    for (int i = 0; i < n; i++) {
        struct gclient *c = clients[events[i].data.u32];
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            gclient_readable(c);
        gclient_flush(c);
        if (gclient_lost(c)) {
            epoll_ctl(epoll, EPOLL_CTL_DEL, gclient_fd(c), NULL);
            bench.lost++;
            continue;
        }
        struct epoll_event ev = {.events = EPOLLIN | (gclient_wants_write(c) ? (uint32_t)EPOLLOUT : 0u), .data = events[i].data};
        epoll_ctl(epoll, EPOLL_CTL_MOD, gclient_fd(c), &ev);
    }
}

static void report(double elapsed, double cpu, uint64_t operations)
{
    qsort(bench.latencies, bench.latency_count, sizeof(uint32_t), compare_u32);
    json_t *j = json_pack("{s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "op", ops[bench.op].name, "operations", (json_int_t)operations, "errors",
                          (json_int_t)bench.errors, "seconds", elapsed, "per_second", (double)operations / elapsed, "p50_us", percentile(0.5),
                          "p99_us", percentile(0.99), "max_us", percentile(1), "cpu_us_per_op", operations ? cpu * 1e6 / (double)operations : 0,
                          "rss_kb", (json_int_t)rss_kb());
    if (bench.lag)
        json_object_set_new(j, "lag_events", json_integer((json_int_t)bench.lag_events));
    if (bench.errors)
        json_object_set_new(j, "first_error", json_string(bench.first_error));
    json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    printf("\n");
    json_decref(j);
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    rand_seed(&bench.rand, rand_system_u64());
    for (uint64_t i = 0; i < bench.value_bytes; i++)
        buf_add_byte(&bench.value, (uint8_t)('a' + rand_below(&bench.rand, 26)));
    bench.latencies = xmalloc(LATENCIES_MAX * sizeof(uint32_t));

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct gclient **clients = xcalloc((size_t)bench.conns, sizeof(*clients));
    struct worker *workers = xcalloc((size_t)bench.conns * (size_t)bench.streams, sizeof(*workers));
    for (int i = 0; i < bench.conns; i++) {
        int port = bench.ports[i % bench.port_count];
        clients[i] = gclient_connect("127.0.0.1", port);
        if (!clients[i]) {
            fprintf(stderr, "trine-bench: cannot connect to 127.0.0.1:%d: %s\n", port, strerror(errno));
            return 1;
        }
        struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.u32 = (uint32_t)i};
        epoll_ctl(epoll, EPOLL_CTL_ADD, gclient_fd(clients[i]), &ev);
        for (int s = 0; s < bench.streams; s++)
            workers[i * bench.streams + s].client = clients[i];
    }

    size_t worker_count = (size_t)bench.conns * (size_t)bench.streams;
    if (bench.op == OP_WATCH) {
        for (size_t i = 0; i < worker_count; i++)
            watcher_open(workers[i].client);
        while (bench.watchers < worker_count && !bench.errors && bench.lost < bench.conns)
            poll_once(epoll, clients, 100);
    }
    int64_t lag_from = 1;
    if (bench.lag) {
        bench.lagger = gclient_connect("127.0.0.1", bench.port);
        must(bench.lagger != NULL);
        lag_from = MAX(current_rev(bench.lagger) - (int64_t)bench.lag, 2);
    }
    double cpu = cpu_seconds();
    uint64_t start = clock_now_us(), end = start + (uint64_t)(bench.seconds * 1e6);
    bool all = bench.op == OP_LOAD;
    if (bench.op == OP_WATCH) {
        struct gclient *putter = gclient_connect("127.0.0.1", bench.port);
        struct buf put = BUF_INIT;
        api_encode_put(&put, &(struct api_put){.key = SLICE_LIT("bench/watched"), .value = buf_slice(&bench.value)});
        for (uint64_t puts = 0; clock_now_us() < end && !bench.errors;) {
            uint64_t sent_us = clock_now_us();
            if (gclient_unary(putter, ops[OP_PUT].path, buf_slice(&put), NULL, NULL, 10000) != 0)
                break;
            puts++;
            while (bench.events < puts * worker_count && !bench.errors && clock_now_us() < end + 5000000)
                poll_once(epoll, clients, 100);
            if (bench.latency_count < LATENCIES_MAX)
                bench.latencies[bench.latency_count++] = (uint32_t)(clock_now_us() - sent_us);
        }
        bench.done = bench.events;
    } else {
        for (size_t i = 0; i < worker_count; i++)
            worker_next(&workers[i]);
        while (bench.lost < bench.conns && (all ? bench.open > 0 : clock_now_us() < end)) {
            poll_once(epoll, clients, bench.lag ? 1 : 50);
            if (!bench.lag)
                continue;
            if (!bench.lag_call)
                lag_open(lag_from);
            gclient_flush(bench.lagger);
            gclient_readable(bench.lagger);
        }
    }
    double elapsed = (double)(clock_now_us() - start) / 1e6;
    cpu = cpu_seconds() - cpu;
    bench.stopping = true;
    report(elapsed, cpu, bench.done);
    bool failed = bench.errors > 0; /* what is under way now ends with its connection */
    for (int i = 0; i < bench.conns; i++)
        gclient_free(clients[i]);
    gclient_free(bench.lagger);
    return failed ? 1 : 0;
}
