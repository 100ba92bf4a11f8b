/* lincheck - records a short history of a cluster under load and checks it: linearizability by revisions and by search,
 * and the guarantees of watches.
 *
 *   trine-lincheck --endpoints H:P,H:P,... [--history NAME] [--clients 2] [--keys 4] [--rate 100] [--seconds 3]
 * [--settle 30] [--pretend]
 *
 * Load runs for --seconds (or until SIGTERM) while somebody else makes faults; these must be over within --settle
 * seconds afterwards, by then every endpoint must answer a linearizable read, and every watcher must have been told
 * everything up to its revision.
 * --pretend: reads are serializable but checked as linearizable; proves that a stale read would be seen.
 * The last line counts; exit code 1 when anything was violated. Each history has a NAME of its own: its keys are below
 * lin/NAME/. */
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "proto/api.h"
#include "proto/pb.h"
#include "tests/lib/linear.h"
#include "tests/lib/recorder.h"
#include "tests/lib/watcher.h"

#define SEARCH_STEPS_MAX 3000000
#define LEFT_OPEN_US 12000000 /* how long reads of probers may still be answered after the load */

static struct {
    struct endpoint endpoints[ENDPOINTS_MAX];
    int count, clients, keys;
    uint64_t rate;
    double seconds, settle;
    bool pretend;
    char prefix[64];
    struct recorder recorder;
    struct watcher live[ENDPOINTS_MAX], after[ENDPOINTS_MAX];
    bool watching, watching_after;
    uint64_t violations;
} run;

static volatile sig_atomic_t stopping;

static void on_term(int sig)
{
    UNUSED(sig);
    stopping = 1;
}

static void report(void *arg, const char *text)
{
    UNUSED(arg);
    static int reported;
    if (reported++ < 20)
        printf("VIOLATION: %s\n", text);
}

static void violated(const char *text)
{
    run.violations++;
    report(NULL, text);
}

static void turn(int ms)
{
    struct pollfd polls[128];
    struct gclient *clients[128];
    nfds_t count = 0;
    recorder_go(&run.recorder);
    for (size_t i = 0; i < run.recorder.client_count && count < 100; i++)
        if (run.recorder.clients[i].client)
            clients[count++] = run.recorder.clients[i].client;
    for (int i = 0; i < run.count && run.watching; i++) {
        watcher_go(&run.live[i]);
        if (run.watching_after)
            watcher_go(&run.after[i]);
        if (run.live[i].client)
            clients[count++] = run.live[i].client;
        if (run.after[i].client)
            clients[count++] = run.after[i].client;
    }
    for (nfds_t i = 0; i < count; i++) {
        gclient_flush(clients[i]);
        polls[i] = (struct pollfd){.fd = gclient_fd(clients[i]),
                                   .events = (short)(POLLIN | (gclient_wants_write(clients[i]) ? POLLOUT : 0))};
    }
    if (poll(polls, count, ms) > 0)
        for (nfds_t i = 0; i < count; i++)
            if (polls[i].revents)
                gclient_readable(clients[i]);
}

/* The revision of a linearizable read at this endpoint, which has until then to answer; 0: it did not. */
static int64_t revision_at(const struct endpoint *e, uint64_t until_us)
{
    struct buf request = BUF_INIT, reply = BUF_INIT;
    int64_t rev = 0;
    api_encode_range(&request, &(struct api_range){.key = SLICE_LIT("lin"), .count_only = true});
    do {
        struct gclient *c = gclient_connect(e->host, e->port);
        if (c && gclient_unary(c, "/etcdserverpb.KV/Range", buf_slice(&request), &reply, NULL, 2000) == 0) {
            struct slice in = buf_slice(&reply);
            struct pb_field f, h;
            while (pb_next(&in, &f) == 1)
                while (f.number == 1 && pb_next(&f.bytes, &h) == 1)
                    if (h.number == 3)
                        rev = (int64_t)h.varint;
        }
        gclient_free(c);
        for (uint64_t pause = clock_now_us() + 50000; !rev && clock_now_us() < pause;)
            turn(5);
    } while (!rev && clock_now_us() < until_us);
    buf_fini(&request);
    buf_fini(&reply);
    return rev;
}

static bool all_reached(const struct watcher *watchers, int64_t rev)
{
    for (int i = 0; i < run.count; i++)
        if (watchers[i].book.reached < rev)
            return false;
    return true;
}

/* Everything that happened up to rev is in the books; what came later (an operation that nobody waited for) is left
 * out. */
static void books_fill(struct watcher *watchers, int64_t rev, uint64_t until_us)
{
    while (!all_reached(watchers, rev) && clock_now_us() < until_us)
        turn(20);
    for (int i = 0; i < run.count; i++) {
        struct watch_book *b = &watchers[i].book;
        if (b->reached < rev) {
            char text[256];
            snprintf(text, sizeof(text), "%s was told up to revision %lld only, instead of %lld", watchers[i].name,
                     (long long)b->reached, (long long)rev);
            violated(text);
        }
        while (b->count && b->events[b->count - 1].rev > rev)
            b->count--;
    }
}

/* Changes without an answer that no event tells of did not happen; the search need not wonder when they did. */
static size_t ops_for_search(const struct watch_book *truth, struct lin_op *ops)
{
    const struct recorder *r = &run.recorder;
    int64_t deletes[RECORDER_KEYS_MAX] = {0}; /* by key: that nobody was told of */
    size_t count = 0;
    for (size_t k = 0; k < truth->count; k++)
        deletes[truth->events[k].key] += truth->events[k].value == 0;
    for (size_t i = 0; i < r->op_count; i++)
        if (r->ops[i].kind == LIN_DELETE && r->ops[i].done)
            deletes[r->ops[i].key]--;
    for (size_t i = 0; i < r->op_count; i++) {
        const struct lin_op *op = &r->ops[i];
        bool happened = op->ended != LIN_OPEN || (op->kind == LIN_DELETE && deletes[op->key] > 0);
        for (size_t k = 0; !happened && op->value && k < truth->count; k++)
            happened = truth->events[k].value == op->value && truth->events[k].key == op->key;
        if (happened)
            ops[count++] = *op;
    }
    return count;
}

static void settle(int64_t from)
{
    uint64_t until = clock_now_us() + LEFT_OPEN_US;
    run.recorder.stopped = true;
    while (recorder_open(&run.recorder) && clock_now_us() < until)
        turn(20);
    until = clock_now_us() + (uint64_t)(run.settle * 1e6);
    int64_t last = 0;
    for (int i = 0; i < run.count; i++) {
        int64_t rev = revision_at(&run.endpoints[i], until);
        if (!rev) {
            char text[256];
            snprintf(text, sizeof(text), "endpoint %s:%d does not serve after the faults", run.endpoints[i].host,
                     run.endpoints[i].port);
            violated(text);
        }
        last = MAX(last, rev);
    }
    books_fill(run.live, last, until);
    run.watching_after = true;
    for (int i = 0; i < run.count; i++)
        watcher_init(&run.after[i], "a watcher of the past", &run.recorder, &run.endpoints[i], from, report, NULL);
    books_fill(run.after, last, until);

    const struct watch_book *truth = &run.after[0].book;
    uint64_t undecided = 0, ambiguous = 0, bookmarks = 0, resumes = 0;
    for (int i = 0; i < run.count; i++) {
        watch_book_settle(&run.after[i].book, truth->events, truth->count);
        watch_book_settle(&run.live[i].book, truth->events, truth->count);
        run.violations += run.after[i].book.violations + run.live[i].book.violations;
        bookmarks += run.live[i].book.bookmarks;
        resumes += run.live[i].book.resumes;
    }
    struct recorder *r = &run.recorder;
    run.violations += lin_check_revisions(r->ops, r->op_count, truth->events, truth->count, report, NULL);
    struct lin_op *ops = xcalloc(r->op_count + 1, sizeof(*ops));
    run.violations += lin_check_registers(ops, ops_for_search(truth, ops), SEARCH_STEPS_MAX, &undecided, report, NULL);
    free(ops);
    if (r->bad_answers)
        violated(r->last_error);
    for (size_t i = 0; i < r->op_count; i++)
        ambiguous += r->ops[i].ended == LIN_OPEN;
    if (ambiguous == r->op_count)
        violated("no operation was answered at all");
    printf("histories checked 1, operations %zu, unanswered %llu, events %zu, bookmarks %llu, watches opened %llu, "
           "undecided %llu, violations %llu%s%s\n",
           r->op_count, (unsigned long long)ambiguous, truth->count, (unsigned long long)bookmarks,
           (unsigned long long)resumes, (unsigned long long)undecided, (unsigned long long)run.violations,
           r->last_error[0] ? "; last error: " : "", r->last_error);
}

static void parse(int argc, char **argv)
{
    static const struct option options[] = {{"endpoints", 1, 0, 'e'}, {"history", 1, 0, 'h'}, {"clients", 1, 0, 'c'},
                                            {"keys", 1, 0, 'k'},      {"rate", 1, 0, 'r'},    {"seconds", 1, 0, 's'},
                                            {"settle", 1, 0, 't'},    {"pretend", 0, 0, 'p'}, {0, 0, 0, 0}};
    const char *history = NULL;
    char random[32];
    run.clients = 2, run.keys = 4, run.rate = 100, run.seconds = 3, run.settle = 30;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'e':
            run.count = endpoints_parse(optarg, run.endpoints);
            break;
        case 'h':
            history = optarg;
            break;
        case 'c':
            run.clients = MIN(MAX(atoi(optarg), 1), 8);
            break;
        case 'k':
            run.keys = MIN(MAX(atoi(optarg), 1), RECORDER_KEYS_MAX);
            break;
        case 'r':
            run.rate = MIN(MAX(strtoull(optarg, NULL, 10), 1u), 100000u);
            break;
        case 's':
            run.seconds = atof(optarg);
            break;
        case 't':
            run.settle = atof(optarg);
            break;
        case 'p':
            run.pretend = true;
            break;
        default:
            exit(2);
        }
    }
    if (!run.count) {
        fprintf(stderr, "usage: trine-lincheck --endpoints HOST:PORT,... [--history NAME] [--clients N] [--keys N] "
                        "[--rate N] [--seconds S] "
                        "[--settle S] [--pretend]\n");
        exit(2);
    }
    snprintf(random, sizeof(random), "%llx", (unsigned long long)rand_system_u64());
    snprintf(run.prefix, sizeof(run.prefix), "lin/%.40s/", history ? history : random);
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    signal(SIGTERM, on_term);
    signal(SIGINT, on_term);
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int64_t rev = revision_at(&run.endpoints[0], clock_now_us() + (uint64_t)(run.settle * 1e6));
    if (!rev) {
        printf("VIOLATION: %s:%d does not serve before the history\n", run.endpoints[0].host, run.endpoints[0].port);
        return 1;
    }
    recorder_init(&run.recorder, run.endpoints, run.count, run.prefix, run.clients);
    run.recorder.key_count = run.keys;
    run.recorder.rate = run.rate;
    run.recorder.pretend = run.pretend;
    for (int i = 0; i < run.count; i++) {
        watcher_init(&run.live[i], "the watcher", &run.recorder, &run.endpoints[i], rev + 1, report, NULL);
        run.live[i].breaks_us = 400000 + 170000 * (uint64_t)i;
    }
    run.watching = true;
    for (uint64_t until = clock_now_us() + (uint64_t)(run.seconds * 1e6); !stopping && clock_now_us() < until;)
        turn(2);
    settle(rev + 1);
    recorder_fini(&run.recorder);
    for (int i = 0; i < run.count; i++) {
        watcher_fini(&run.live[i]);
        watcher_fini(&run.after[i]);
    }
    return run.violations ? 1 : 0;
}
