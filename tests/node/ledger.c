/* ledger - writes through a gateway that is killed now and then, and keeps book of what was acknowledged.
 *
 *   trine-ledger --port P [--writers 8] [--rate 2000] [--strict]        runs until SIGTERM, then settles the book
 *
 * Each writer puts its keys one after the other, with a value that it never uses again. A watcher follows the prefix from the first
 * revision and resumes from the last revision it has seen. Nobody else writes to the store, so the watcher must see every
 * revision exactly once, in order: a gap is a missed event, a repetition a duplicate. At the end:
 *   every acknowledged put is among the events            (nothing acknowledged is lost)
 *   no put is among the events twice                      (nothing is applied twice)
 *   a read of all keys equals the events replayed         (the store is what its history says)
 * A put whose connection was lost or that was answered with an error is ambiguous: it may or may not be there, at most once.
 * --port may be a list, 1,2,3: the nodes of a cluster. Writers are spread over them, and go on at the next one when theirs is lost.
 * SIGUSR1 prints how long the longest time without an acknowledgement was since the last SIGUSR1.
 * --shared: others write to the store too, so revisions between two events need not be ours.
 * --strict: errors other than a lost connection are failures too (the node lost no gateway for good). */
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "proto/api.h"
#include "proto/pb.h"
#include "tests/lib/gclient.h"

#define WRITERS_MAX 64
#define KEYS_PER_WRITER 50
#define PREFIX "ledger/"
#define PUT_PATH "/etcdserverpb.KV/Put"

enum fate { FATE_OPEN, FATE_ACKED, FATE_AMBIGUOUS };

struct writer {
    int number, port; /* port: position in the list */
    struct gclient *client;
    bool busy;
    uint64_t seq;      /* of the put under way, or the next one */
    uint8_t *fates;    /* enum fate by seq */
    uint8_t *seen;     /* events by seq */
    size_t cap;
    uint64_t next_us;  /* not before */
};

static struct {
    int ports[8], port_count, writer_count;
    uint64_t acked_us, gap_us; /* last acknowledgement, longest time between two */
    int64_t gap_end_ms;        /* when that ended, by the clock that logs show */
    uint64_t rate;
    bool strict, shared;
    struct writer writers[WRITERS_MAX];
    struct gclient *watch_client;
    int watch_port;
    struct gcall *watch_call;
    int64_t watch_rev; /* last revision seen; 1: none */
    uint64_t watch_retry_us;
    uint64_t acked, ambiguous, errors, events, resumes, problems;
    uint64_t longest_us; /* slowest acknowledged put */
    char last_error[256];
} book;

static volatile sig_atomic_t stopping, telling;

static void on_usr1(int sig)
{
    UNUSED(sig);
    telling = 1;
}

static void gap_note(uint64_t now)
{
    if (book.acked_us && now - book.acked_us > book.gap_us) {
        book.gap_us = now - book.acked_us;
        book.gap_end_ms = clock_wall_ms();
    }
    book.acked_us = now;
}

static struct gclient *connect_at(int *port)
{
    *port = (*port + 1) % book.port_count;
    return gclient_connect("127.0.0.1", book.ports[*port]);
}

static void on_term(int sig)
{
    UNUSED(sig);
    stopping = 1;
}

static void problem(const char *what, uint64_t a, uint64_t b)
{
    if (book.problems++ < 20)
        printf("PROBLEM: %s (%llu, %llu)\n", what, (unsigned long long)a, (unsigned long long)b);
}

static void writer_note(struct writer *w, uint64_t seq)
{
    if (seq < w->cap)
        return;
    size_t cap = w->cap ? w->cap * 2 : 4096;
    while (cap <= seq)
        cap *= 2;
    w->fates = xrealloc(w->fates, cap);
    w->seen = xrealloc(w->seen, cap);
    memset(w->fates + w->cap, 0, cap - w->cap);
    memset(w->seen + w->cap, 0, cap - w->cap);
    w->cap = cap;
}

static void put_end(struct gcall *call, int status, const char *text, void *arg)
{
    UNUSED(call);
    struct writer *w = arg;
    uint64_t now = clock_now_us();
    if (status == 0) {
        w->fates[w->seq] = FATE_ACKED;
        book.acked++;
        gap_note(now);
    } else {
        w->fates[w->seq] = FATE_AMBIGUOUS;
        book.ambiguous++;
        if (status != GCALL_STATUS_CONNECTION_LOST) {
            book.errors++;
            snprintf(book.last_error, sizeof(book.last_error), "status %d: %s", status, text);
        }
    }
    w->busy = false;
    w->seq++;
    w->next_us = MAX(w->next_us, now - 100000) + (uint64_t)book.writer_count * 1000000 / book.rate;
}

static void writer_go(struct writer *w)
{
    static const struct gcall_ops ops = {NULL, put_end};
    uint64_t now = clock_now_us();
    if (w->client && gclient_lost(w->client)) {
        gclient_free(w->client);
        w->client = NULL;
        w->next_us = now + 20000;
    }
    if (w->busy || stopping || now < w->next_us)
        return;
    if (!w->client && !(w->client = connect_at(&w->port))) {
        w->next_us = now + 20000;
        return;
    }
    char key[64], value[64];
    writer_note(w, w->seq);
    snprintf(key, sizeof(key), PREFIX "%d/%llu", w->number, (unsigned long long)(w->seq % KEYS_PER_WRITER));
    snprintf(value, sizeof(value), "%d %llu", w->number, (unsigned long long)w->seq);
    struct buf request = BUF_INIT;
    api_encode_put(&request, &(struct api_put){.key = slice_str(key), .value = slice_str(value)});
    w->busy = true;
    if (!gcall_start(w->client, PUT_PATH, buf_slice(&request), true, NULL, &ops, w))
        w->busy = false;
    buf_fini(&request);
}

/* --- the watcher ------------------------------------------------------------------------------ */

static void event_seen(struct slice bytes)
{
    struct pb_field f;
    struct slice kv = SLICE_EMPTY;
    while (pb_next(&bytes, &f) == 1)
        if (f.number == 2)
            kv = f.bytes;
    struct api_key_value m;
    int writer;
    unsigned long long seq;
    char value[64];
    if (api_decode_key_value(kv, &m) != 0 || m.value.len >= sizeof(value)) {
        problem("an event that cannot be read", 0, 0);
        return;
    }
    memcpy(value, m.value.data, m.value.len);
    value[m.value.len] = '\0';
    if (sscanf(value, "%d %llu", &writer, &seq) != 2 || writer < 0 || writer >= book.writer_count) {
        problem("an event with a foreign value", (uint64_t)m.mod_revision, 0);
        return;
    }
    if (m.mod_revision <= book.watch_rev || (!book.shared && m.mod_revision != book.watch_rev + 1))
        problem(m.mod_revision <= book.watch_rev ? "an event again or out of order" : "a missed event", (uint64_t)book.watch_rev,
                (uint64_t)m.mod_revision);
    book.watch_rev = MAX(book.watch_rev, m.mod_revision);
    struct writer *w = &book.writers[writer];
    writer_note(w, seq);
    if (w->seen[seq]++)
        problem("a put applied twice", (uint64_t)writer, seq);
    book.events++;
}

static void watch_message(struct gcall *call, struct slice message, void *arg)
{
    UNUSED(call);
    UNUSED(arg);
    struct pb_field f;
    while (pb_next(&message, &f) == 1) {
        if (f.number == 4 && f.varint)
            problem("the watcher was cancelled", (uint64_t)book.watch_rev, 0);
        if (f.number == 11)
            event_seen(f.bytes);
    }
}

static void watch_end(struct gcall *call, int status, const char *text, void *arg)
{
    UNUSED(call);
    UNUSED(status);
    UNUSED(text);
    UNUSED(arg);
    book.watch_call = NULL;
}

static void watch_go(void)
{
    static const struct gcall_ops ops = {watch_message, watch_end};
    uint64_t now = clock_now_us();
    if (book.watch_client && gclient_lost(book.watch_client)) {
        gclient_free(book.watch_client);
        book.watch_client = NULL;
    }
    if (book.watch_call || now < book.watch_retry_us)
        return;
    book.watch_retry_us = now + 50000;
    if (!book.watch_client && !(book.watch_client = connect_at(&book.watch_port)))
        return;
    struct buf create = BUF_INIT, request = BUF_INIT;
    pb_add_bytes(&create, 1, SLICE_LIT("ledger/"));
    pb_add_bytes(&create, 2, SLICE_LIT("ledger0"));
    pb_add_int(&create, 3, book.watch_rev + 1);
    pb_add_message(&request, 1, buf_slice(&create));
    book.watch_call = gcall_start(book.watch_client, "/etcdserverpb.Watch/Watch", buf_slice(&request), false, NULL, &ops, NULL);
    book.resumes++;
    buf_fini(&create);
    buf_fini(&request);
}

static void turn(int ms)
{
    struct pollfd polls[WRITERS_MAX + 1];
    struct gclient *clients[WRITERS_MAX + 1];
    nfds_t count = 0;
    watch_go();
    for (int i = 0; i < book.writer_count; i++) {
        writer_go(&book.writers[i]);
        clients[count] = book.writers[i].client;
        count += clients[count] != NULL;
    }
    clients[count] = book.watch_client;
    count += clients[count] != NULL;
    for (nfds_t i = 0; i < count; i++) {
        gclient_flush(clients[i]);
        polls[i] = (struct pollfd){.fd = gclient_fd(clients[i]), .events = (short)(POLLIN | (gclient_wants_write(clients[i]) ? POLLOUT : 0))};
    }
    if (poll(polls, count, ms) > 0)
        for (nfds_t i = 0; i < count; i++)
            if (polls[i].revents)
                gclient_readable(clients[i]);
}

/* The store as a read shows it, against the last event of each key. */
static void settle_reads(void)
{
    int any = 0;
    struct gclient *c = connect_at(&any);
    struct buf request = BUF_INIT, reply = BUF_INIT, text = BUF_INIT;
    if (!c) {
        problem("no connection for the last read", 0, 0);
        return;
    }
    api_encode_range(&request, &(struct api_range){.key = SLICE_LIT("ledger/"), .range_end = SLICE_LIT("ledger0")});
    int status = gclient_unary(c, "/etcdserverpb.KV/Range", buf_slice(&request), &reply, &text, 10000);
    if (status != 0)
        problem("the last read failed", (uint64_t)status, 0);
    struct slice in = buf_slice(&reply);
    struct pb_field f;
    uint64_t keys = 0;
    while (pb_next(&in, &f) == 1) {
        struct api_key_value m;
        int writer;
        unsigned long long seq, newest;
        char value[64] = "";
        if (f.number != 2 || api_decode_key_value(f.bytes, &m) != 0 || m.value.len >= sizeof(value))
            continue;
        memcpy(value, m.value.data, m.value.len);
        if (sscanf(value, "%d %llu", &writer, &seq) != 2 || writer < 0 || writer >= book.writer_count)
            continue;
        keys++;
        struct writer *w = &book.writers[writer];
        for (newest = w->seq + KEYS_PER_WRITER; newest-- > 0;)
            if (newest % KEYS_PER_WRITER == seq % KEYS_PER_WRITER && newest < w->cap && w->seen[newest])
                break;
        if (newest != seq)
            problem("a key is not what its last event says", seq, newest);
    }
    if (keys == 0)
        problem("the last read found no keys", 0, 0);
    buf_fini(&request);
    buf_fini(&reply);
    buf_fini(&text);
    gclient_free(c);
}

static void settle(void)
{
    uint64_t until = clock_now_us() + 20000000;
    bool busy = true;
    while (busy && clock_now_us() < until) {
        turn(50);
        busy = false;
        for (int i = 0; i < book.writer_count; i++)
            busy = busy || book.writers[i].busy;
    }
    /* The watcher has all when it has seen each acknowledged put; give it time to. */
    uint64_t missing = 1;
    while (missing && clock_now_us() < until) {
        turn(50);
        missing = 0;
        for (int i = 0; i < book.writer_count; i++) {
            struct writer *w = &book.writers[i];
            for (uint64_t s = 0; s < w->seq; s++)
                missing += w->fates[s] == FATE_ACKED && !w->seen[s];
        }
    }
    if (missing)
        problem("acknowledged puts that no event tells of", missing, 0);
    settle_reads();
    if (book.acked == 0)
        problem("nothing was acknowledged at all", 0, 0);
    if (book.strict && book.errors)
        problem("requests failed other than by a lost connection", book.errors, 0);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"port", 1, 0, 'p'}, {"writers", 1, 0, 'w'}, {"rate", 1, 0, 'r'}, {"strict", 0, 0, 's'}, {"shared", 0, 0, 'o'}, {0, 0, 0, 0}};
    book.writer_count = 8, book.rate = 2000, book.watch_rev = 1;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'p':
            for (char *at = optarg; *at && book.port_count < (int)ARRAY_LEN(book.ports); at += *at == ',')
                book.ports[book.port_count++] = (int)strtol(at, &at, 10);
            break;
        case 'w': book.writer_count = MIN(MAX(atoi(optarg), 1), WRITERS_MAX); break;
        case 'r': book.rate = MAX(strtoull(optarg, NULL, 10), 1u); break;
        case 's': book.strict = true; break;
        case 'o': book.shared = true; break;
        default: return 2;
        }
    }
    if (book.port_count == 0)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGUSR1, on_usr1);
    signal(SIGTERM, on_term);
    signal(SIGINT, on_term);
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < book.writer_count; i++)
        book.writers[i].number = book.writers[i].port = i;
    while (!stopping) {
        turn(2);
        if (!telling)
            continue;
        telling = 0;
        gap_note(clock_now_us());
        time_t end_s = (time_t)(book.gap_end_ms / 1000);
        char at[16];
        strftime(at, sizeof(at), "%H:%M:%S", gmtime(&end_s));
        printf("gap %llu ms, until %s.%03d\n", (unsigned long long)book.gap_us / 1000, at, (int)(book.gap_end_ms % 1000));
        book.gap_us = 0;
    }
    settle();
    printf("acknowledged %llu, ambiguous %llu (errors %llu%s%s), events %llu, watch resumed %llu times, problems %llu\n",
           (unsigned long long)book.acked, (unsigned long long)book.ambiguous, (unsigned long long)book.errors, book.errors ? ", last " : "",
           book.last_error, (unsigned long long)book.events, (unsigned long long)book.resumes - 1, (unsigned long long)book.problems);
    return book.problems ? 1 : 0;
}
