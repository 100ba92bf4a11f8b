/* lock - the Lock and Election services over a real node: one story told to etcd and to Trine, whose transcripts must be equal; then
 * what only Trine promises: a line of a hundred in which nobody is woken in vain, restarts while waiting, nothing left behind. */
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "etcd/election.pb-c.h"
#include "etcd/lock.pb-c.h"
#include "etcd/rpc.pb-c.h"
#include "proto/api.h"
#include "proto/pb.h"
#include "tests/lib/node.h"

#define KV "/etcdserverpb.KV/"
#define LEASE "/etcdserverpb.Lease/"
#define LOCK "/v3lockpb.Lock/"
#define ELECTION "/v3electionpb.Election/"

static struct gclient *client;
static struct buf reply, text, transcript, observations;
static bool is_etcd;

static void say(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void say(const char *fmt, ...)
{
    char line[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    buf_add_str(&transcript, line);
    buf_add_byte(&transcript, '\n');
}

/* --- calls -------------------------------------------------------------------------------------------------------- */

/* One that is waited for by hand. */
struct waiting {
    struct gcall *call;
    bool done;
    int status;
    struct buf text, body;
    size_t messages;
    void (*told)(struct slice message);
    unsigned *order; /* counts who ended */
    unsigned place;
};

static void got(struct gcall *call, struct slice message, void *arg)
{
    struct waiting *w = arg;
    UNUSED(call);
    w->messages++;
    buf_reset(&w->body);
    buf_add_slice(&w->body, message);
    if (w->told)
        w->told(message);
}

static void ended(struct gcall *call, int status, const char *message, void *arg)
{
    struct waiting *w = arg;
    UNUSED(call);
    w->done = true;
    w->status = status;
    buf_reset(&w->text);
    buf_add(&w->text, message ? message : "", message ? strlen(message) + 1 : 1);
    if (w->order)
        w->place = ++*w->order;
}

static const struct gcall_ops waiting_ops = {.message = got, .end = ended};

static void start(struct waiting *w, struct gclient *c, const char *path, const struct buf *body, const char *timeout)
{
    const char *const extra[] = {"grpc-timeout", timeout, NULL};
    w->done = false;
    w->call = gcall_start(c, path, buf_slice(body), true, timeout ? extra : NULL, &waiting_ops, w);
}

static bool await(struct waiting *w, int ms)
{
    return gclient_run(client, &w->done, ms);
}

static void waiting_fini(struct waiting *w)
{
    buf_fini(&w->text);
    buf_fini(&w->body);
    *w = (struct waiting){.call = NULL};
}

static int unary(const char *path, struct buf *body)
{
    int status = gclient_unary(client, path, buf_slice(body), &reply, &text, 15000);
    buf_add_byte(&text, 0);
    buf_reset(body);
    return status;
}

/* --- requests ------------------------------------------------------------------------------------------------------ */

static struct buf body;

static void lock_body(const char *name, int64_t lease)
{
    buf_reset(&body);
    pb_add_bytes(&body, 1, slice_str(name));
    pb_add_int(&body, 2, lease);
}

static void campaign_body(const char *name, int64_t lease, const char *value)
{
    lock_body(name, lease);
    pb_add_bytes(&body, 3, slice_str(value));
}

static void handle_body(const char *name, const char *key, int64_t rev, int64_t lease, const char *value)
{
    struct buf leader = BUF_INIT;
    pb_add_bytes(&leader, 1, slice_str(name));
    pb_add_bytes(&leader, 2, slice_str(key));
    pb_add_int(&leader, 3, rev);
    pb_add_int(&leader, 4, lease);
    buf_reset(&body);
    pb_add_message(&body, 1, buf_slice(&leader));
    if (value)
        pb_add_bytes(&body, 2, slice_str(value));
    buf_fini(&leader);
}

static void grant(int64_t id, int64_t ttl)
{
    buf_reset(&body);
    pb_add_int(&body, 1, ttl);
    pb_add_int(&body, 2, id);
    CHECK(unary(LEASE "LeaseGrant", &body) == 0, "%s", (char *)text.data);
}

static void revoke_lease(int64_t id)
{
    buf_reset(&body);
    pb_add_int(&body, 1, id);
    CHECK(unary(LEASE "LeaseRevoke", &body) == 0, "%s", (char *)text.data);
}

static void unlock(const char *key)
{
    buf_reset(&body);
    pb_add_bytes(&body, 1, slice_str(key));
    CHECK(unary(LOCK "Unlock", &body) == 0, "%s", (char *)text.data);
}

/* Number of keys with this prefix, which ends in '/'. */
static int64_t keys_below(const char *prefix)
{
    char end[64];
    size_t len = strlen(prefix);
    memcpy(end, prefix, len + 1);
    end[len - 1]++;
    buf_reset(&body);
    api_encode_range(&body, &(struct api_range){.key = slice_str(prefix), .range_end = slice_str(end), .count_only = true});
    if (!CHECK(unary(KV "Range", &body) == 0, "%s", (char *)text.data))
        return -1;
    Etcdserverpb__RangeResponse *r = etcdserverpb__range_response__unpack(NULL, reply.len, reply.data);
    int64_t count = r ? r->count : -1;
    etcdserverpb__range_response__free_unpacked(r, NULL);
    return count;
}

static bool keys_become(const char *prefix, int64_t wanted)
{
    for (int i = 0; i < 100; i++) {
        if (keys_below(prefix) == wanted)
            return true;
        usleep(50000);
    }
    return false;
}

static size_t lease_count(void)
{
    buf_reset(&body);
    if (!CHECK(unary(LEASE "LeaseLeases", &body) == 0, "%s", (char *)text.data))
        return SIZE_MAX;
    Etcdserverpb__LeaseLeasesResponse *r = etcdserverpb__lease_leases_response__unpack(NULL, reply.len, reply.data);
    size_t count = r ? r->n_leases : SIZE_MAX;
    etcdserverpb__lease_leases_response__free_unpacked(r, NULL);
    return count;
}

/* --- what is said ------------------------------------------------------------------------------------------------------- */

static const char *str(ProtobufCBinaryData b)
{
    static char out[4][128];
    static unsigned turn;
    char *to = out[turn++ % 4];
    snprintf(to, sizeof(out[0]), "%.*s", (int)MIN(b.len, 120u), b.len ? (const char *)b.data : "");
    return to;
}

static int64_t rev_of(const Etcdserverpb__ResponseHeader *h)
{
    return h && h->cluster_id && h->member_id && h->raft_term ? h->revision : -1;
}

static void say_lock(const char *what, int status, const char *why, struct slice message)
{
    if (status != 0) {
        say("%s: %d \"%s\"", what, status, why);
        return;
    }
    V3lockpb__LockResponse *r = v3lockpb__lock_response__unpack(NULL, message.len, message.data);
    say("%s: key %s revision %" PRId64, what, r ? str(r->key) : "?", r ? rev_of(r->header) : -1);
    v3lockpb__lock_response__free_unpacked(r, NULL);
}

static void lock_now(const char *what, const char *name, int64_t lease)
{
    lock_body(name, lease);
    int status = unary(LOCK "Lock", &body);
    say_lock(what, status, (char *)text.data, buf_slice(&reply));
}

static void say_unlock(const char *what, const char *key)
{
    buf_reset(&body);
    pb_add_bytes(&body, 1, slice_str(key));
    int status = unary(LOCK "Unlock", &body);
    V3lockpb__UnlockResponse *r = status == 0 ? v3lockpb__unlock_response__unpack(NULL, reply.len, reply.data) : NULL;
    say("%s: %d \"%s\" revision %" PRId64, what, status, (char *)text.data, r ? rev_of(r->header) : -1);
    v3lockpb__unlock_response__free_unpacked(r, NULL);
}

static void say_campaign(const char *what, int status, const char *why, struct slice message)
{
    if (status != 0) {
        say("%s: %d \"%s\"", what, status, why);
        return;
    }
    V3electionpb__CampaignResponse *r = v3electionpb__campaign_response__unpack(NULL, message.len, message.data);
    if (r && r->leader)
        say("%s: name %s key %s rev %" PRId64 " lease %" PRIx64 " revision %" PRId64, what, str(r->leader->name), str(r->leader->key),
            r->leader->rev, (uint64_t)r->leader->lease, rev_of(r->header));
    v3electionpb__campaign_response__free_unpacked(r, NULL);
}

static void campaign_now(const char *what, const char *name, int64_t lease, const char *value)
{
    campaign_body(name, lease, value);
    int status = unary(ELECTION "Campaign", &body);
    say_campaign(what, status, (char *)text.data, buf_slice(&reply));
}

/* Of Proclaim and Resign: nothing but a header. */
static void say_handled(const char *what, const char *method)
{
    char path[64];
    snprintf(path, sizeof(path), ELECTION "%s", method);
    int status = unary(path, &body);
    V3electionpb__ResignResponse *r = status == 0 ? v3electionpb__resign_response__unpack(NULL, reply.len, reply.data) : NULL;
    say("%s: %d \"%s\" revision %" PRId64, what, status, (char *)text.data, r ? rev_of(r->header) : -1);
    v3electionpb__resign_response__free_unpacked(r, NULL);
}

static void say_kv(const char *what, struct slice message)
{
    V3electionpb__LeaderResponse *r = v3electionpb__leader_response__unpack(NULL, message.len, message.data);
    if (r && r->kv)
        say("%s: key %s value %s create %" PRId64 " mod %" PRId64 " version %" PRId64 " lease %" PRIx64 " revision %" PRId64, what,
            str(r->kv->key), str(r->kv->value), r->kv->create_revision, r->kv->mod_revision, r->kv->version, (uint64_t)r->kv->lease,
            rev_of(r->header));
    else
        say("%s: no kv", what);
    v3electionpb__leader_response__free_unpacked(r, NULL);
}

static void say_leader(const char *what, const char *name)
{
    buf_reset(&body);
    pb_add_bytes(&body, 1, slice_str(name));
    int status = unary(ELECTION "Leader", &body);
    if (status != 0)
        say("%s: %d \"%s\"", what, status, (char *)text.data);
    else
        say_kv(what, buf_slice(&reply));
}

/* --- the story ------------------------------------------------------------------------------------------------------------ */

static void tell_locks(void)
{
    struct waiting w = {.call = NULL};
    for (int64_t id = 0x11; id <= 0x16; id++)
        grant(id, 600);
    lock_now("lock", "l", 0x11);
    lock_now("the same lease again", "l", 0x11);
    lock_now("another name", "k", 0x11);
    lock_now("no name", "", 0x11);
    lock_now("an unknown lease", "l", 0x7777);
    lock_now("a negative lease", "l", -5);

    lock_body("l", 0x12);
    start(&w, client, LOCK "Lock", &body, NULL);
    say("the second waits: %d", !await(&w, 300));
    say("two are in line: %" PRId64, keys_below("l/"));
    say_unlock("unlock", "l/11");
    say("the second has it: %d", await(&w, 5000));
    say_lock("second", w.status, (char *)w.text.data, buf_slice(&w.body));
    say_unlock("unlock what is gone", "l/11");
    say_unlock("unlock without a key", "");

    lock_body("l", 0x13);
    start(&w, client, LOCK "Lock", &body, NULL);
    await(&w, 200);
    gcall_cancel(w.call);
    await(&w, 2000);
    say("a cancelled one leaves the line: %d", keys_become("l/", 1));

    lock_body("l", 0x13);
    start(&w, client, LOCK "Lock", &body, "300m");
    say("the deadline ends it: %d", await(&w, 3000));
    /* etcd 3.4 says Unknown here, 3.7 DeadlineExceeded. */
    say("deadline: %d \"%s\"", w.status == 2 ? 4 : w.status, (char *)w.text.data);
    say("and it leaves the line: %d", keys_become("l/", 1));

    lock_body("l", 0x14);
    start(&w, client, LOCK "Lock", &body, NULL);
    await(&w, 200);
    revoke_lease(0x14);
    say_unlock("unlock before an expired one", "l/12");
    say("the expired one hears of it: %d", await(&w, 5000));
    /* etcd 3.4 lets it in all the same. */
    if (!is_etcd)
        CHECK(w.status == 2 && strcmp((char *)w.text.data, "mutex: session is expired") == 0, "%d %s", w.status, (char *)w.text.data);

    /* Three in line, the middle one goes. */
    struct waiting x = {.call = NULL};
    lock_now("first of three", "m", 0x11);
    lock_body("m", 0x12);
    start(&w, client, LOCK "Lock", &body, NULL);
    await(&w, 200);
    lock_body("m", 0x13);
    start(&x, client, LOCK "Lock", &body, NULL);
    await(&x, 200);
    gcall_cancel(w.call);
    await(&w, 2000);
    say("the third still waits: %d", !await(&x, 300));
    revoke_lease(0x11);
    say("the third has it: %d", await(&x, 5000));
    say_lock("third", x.status, (char *)x.text.data, buf_slice(&x.body));
    waiting_fini(&w);
    waiting_fini(&x);
    say("malformed: %d", gclient_unary(client, LOCK "Lock", SLICE_LIT("\xff\xff"), &reply, &text, 5000));
}

static void tell_own_lease(void)
{
    struct waiting w = {.call = NULL};
    size_t before = lease_count();
    lock_body("own", 0);
    int status = unary(LOCK "Lock", &body);
    V3lockpb__LockResponse *r = v3lockpb__lock_response__unpack(NULL, reply.len, reply.data);
    say("a lock without a lease: %d, %zu more leases", status, lease_count() - before);
    if (!CHECK(r && r->key.len > 4))
        return;
    pb_add_int(&body, 1, (int64_t)strtoull(str(r->key) + 4, NULL, 16));
    status = unary(LEASE "LeaseTimeToLive", &body);
    Etcdserverpb__LeaseTimeToLiveResponse *t = etcdserverpb__lease_time_to_live_response__unpack(NULL, reply.len, reply.data);
    say("its lease: granted %" PRId64 ", alive %d", t ? t->grantedttl : -1, t && t->ttl > 50);
    etcdserverpb__lease_time_to_live_response__free_unpacked(t, NULL);
    lock_body("own", 0);
    start(&w, client, LOCK "Lock", &body, NULL);
    say("the second waits: %d", !await(&w, 300));
    unlock(str(r->key));
    say("the second has it: %d status %d", await(&w, 5000), w.status);
    v3lockpb__lock_response__free_unpacked(r, NULL);
    waiting_fini(&w);
}

static void tell_elections(void)
{
    struct waiting w = {.call = NULL};
    for (int64_t id = 0x21; id <= 0x24; id++)
        grant(id, 600);
    say_leader("nobody leads", "e");
    campaign_now("campaign", "e", 0x21, "a");
    say_leader("leader", "e");
    campaign_now("the same again", "e", 0x21, "a");
    campaign_now("with another value", "e", 0x21, "b");
    say_leader("leader", "e");
    campaign_now("an unknown lease", "e", 0x7777, "z");

    buf_reset(&body);
    pb_add_bytes(&body, 1, SLICE_LIT("e"));
    unary(ELECTION "Leader", &body);
    V3electionpb__LeaderResponse *r = v3electionpb__leader_response__unpack(NULL, reply.len, reply.data);
    int64_t rev = r && r->kv ? r->kv->create_revision : 0;
    v3electionpb__leader_response__free_unpacked(r, NULL);

    campaign_body("e", 0x22, "c");
    start(&w, client, ELECTION "Campaign", &body, NULL);
    say("the second waits: %d", !await(&w, 300));
    handle_body("e", "e/21", rev, 0x21, "proclaimed");
    say_handled("proclaim", "Proclaim");
    handle_body("e", "e/21", rev + 1, 0x21, "x");
    say_handled("proclaim with a wrong revision", "Proclaim");
    handle_body("e", "e/99", rev, 0x21, "x");
    say_handled("proclaim with a wrong key", "Proclaim");
    handle_body("e", "", rev, 0x21, "x");
    say_handled("proclaim without a key", "Proclaim");
    handle_body("e", "e/21", rev, 0x7777, "x");
    say_handled("proclaim with an unknown lease", "Proclaim");
    buf_reset(&body);
    pb_add_bytes(&body, 2, SLICE_LIT("x"));
    say_handled("proclaim without a leader", "Proclaim");
    buf_reset(&body);
    say_handled("resign without a leader", "Resign");
    say_leader("leader", "e");
    handle_body("e", "e/21", rev + 1, 0x21, NULL);
    say_handled("resign with a wrong revision", "Resign");
    say("the second still waits: %d", !await(&w, 200));
    handle_body("e", "e/21", rev, 0x21, NULL);
    say_handled("resign", "Resign");
    say("the second leads: %d", await(&w, 5000));
    say_campaign("second", w.status, (char *)w.text.data, buf_slice(&w.body));
    handle_body("e", "e/21", rev, 0x21, NULL);
    say_handled("resign again", "Resign");
    handle_body("e", "e/21", rev, 0x21, "x");
    say_handled("proclaim after the end", "Proclaim");
    say_leader("leader", "e");

    campaign_body("e", 0x23, "d");
    start(&w, client, ELECTION "Campaign", &body, NULL);
    await(&w, 200);
    gcall_cancel(w.call);
    await(&w, 2000);
    say("a cancelled candidate leaves the line: %d", keys_become("e/", 1));
    waiting_fini(&w);
}

/* What is observed comes in its own order, beside the answers of other calls. */
static void told(struct slice message)
{
    struct buf rest = transcript;
    transcript = observations;
    say_kv("observed", message);
    observations = transcript;
    transcript = rest;
}

/* Runs until the observer was told `count` times. */
static void observe_until(struct waiting *w, size_t count)
{
    bool never = false;
    for (int i = 0; i < 250 && w->messages < count && !w->done; i++)
        gclient_run(client, &never, 20);
}

static void tell_observer(void)
{
    struct waiting w = {.told = told}, second = {.call = NULL};
    buf_reset(&body);
    pb_add_bytes(&body, 1, SLICE_LIT("o"));
    struct buf name = body;
    body = BUF_INIT;
    start(&w, client, ELECTION "Observe", &name, NULL);
    bool never = false;
    gclient_run(client, &never, 400);
    campaign_now("campaign", "o", 0x21, "one");
    observe_until(&w, 1);
    campaign_now("another value", "o", 0x21, "two");
    observe_until(&w, 2);
    campaign_body("o", 0x22, "three");
    start(&second, client, ELECTION "Campaign", &body, NULL);
    await(&second, 200);
    campaign_now("another value", "o", 0x21, "four");
    observe_until(&w, 3);
    unlock("o/21"); /* any deletion ends a leadership */
    await(&second, 5000);
    observe_until(&w, 4);
    unlock("o/22");
    gclient_run(client, &never, 300);
    campaign_now("campaign", "o", 0x24, "five");
    observe_until(&w, 5);
    gcall_cancel(w.call);
    await(&w, 2000);
    say("observed %zu times", w.messages);
    buf_add_slice(&transcript, buf_slice(&observations));
    buf_reset(&observations);

    struct waiting late = {.told = told};
    start(&late, client, ELECTION "Observe", &name, NULL);
    observe_until(&late, 1);
    say("a late observer is told the present: %zu", late.messages);
    buf_add_slice(&transcript, buf_slice(&observations));
    buf_reset(&observations);
    gcall_cancel(late.call);
    await(&late, 2000);
    buf_fini(&name);
    waiting_fini(&w);
    waiting_fini(&late);
    waiting_fini(&second);
}

static struct buf tell(const struct node *n)
{
    client = node_connect(n);
    transcript = BUF_INIT;
    tell_locks();
    tell_own_lease();
    tell_elections();
    tell_observer();
    gclient_free(client);
    return transcript;
}

/* Debian's etcd in n->dir. */
static bool etcd_start(struct node *n)
{
    char clients[64], peers[64], cluster[96], dir[160], log[160];
    strcpy(n->dir, "/tmp/trine-etcd.XXXXXX");
    if (!mkdtemp(n->dir))
        return false;
    n->port = free_port();
    snprintf(clients, sizeof(clients), "http://127.0.0.1:%d", n->port);
    snprintf(peers, sizeof(peers), "http://127.0.0.1:%d", free_port());
    snprintf(cluster, sizeof(cluster), "default=%s", peers);
    snprintf(dir, sizeof(dir), "%s/data", n->dir);
    snprintf(log, sizeof(log), "%s/log", n->dir);
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen(log, "w", stdout) || dup2(1, 2) < 0)
            _exit(126);
        execlp("etcd", "etcd", "--data-dir", dir, "--listen-client-urls", clients, "--advertise-client-urls", clients, "--listen-peer-urls",
               peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", cluster, "--log-level", "error", (char *)NULL);
        _exit(127);
    }
    n->runner = pid;
    for (int i = 0; i < 400; i++) {
        if (node_healthy(n))
            return true;
        usleep(50000);
    }
    return false;
}

static void etcd_stop(struct node *n)
{
    char command[200];
    kill((pid_t)n->runner, SIGTERM);
    waitpid((pid_t)n->runner, NULL, 0);
    snprintf(command, sizeof(command), "rm -rf %s", n->dir);
    if (system(command) != 0)
        printf("note: could not remove %s\n", n->dir);
}

static void compare(struct buf *etcd, struct buf *trine)
{
    buf_add_byte(etcd, 0);
    buf_add_byte(trine, 0);
    if (getenv("VERBOSE"))
        printf("%s", (char *)trine->data);
    char *a = (char *)etcd->data, *b = (char *)trine->data;
    while (*a || *b) {
        size_t la = strcspn(a, "\n"), lb = strcspn(b, "\n");
        check_note(la == lb && memcmp(a, b, la) == 0, __FILE__, __LINE__, "the same as etcd", "etcd \"%.*s\", Trine \"%.*s\"", (int)la, a, (int)lb, b);
        a += la + (a[la] != 0);
        b += lb + (b[lb] != 0);
    }
}

/* --- a long line ------------------------------------------------------------------------------------------------------------ */

#define LINE_LENGTH 100
#define LINE_CONNECTIONS 4

static long metric(const struct node *n, const char *name)
{
    char command[256], line[64] = "";
    snprintf(command, sizeof(command), "curl -fsS http://127.0.0.1:%d/metrics | awk '$1 == \"%s\" { print $2 }'", n->port, name);
    fflush(stdout);
    FILE *f = popen(command, "r");
    if (f && !fgets(line, sizeof(line), f))
        line[0] = 0;
    if (f)
        pclose(f);
    return line[0] ? atol(line) : -1;
}

static void run_all(struct gclient **c, size_t count, int ms)
{
    bool never = false;
    for (size_t i = 0; i < count; i++)
        gclient_run(c[i], &never, ms);
}

static void a_long_line(const struct node *n)
{
    static struct waiting line[LINE_LENGTH];
    struct gclient *c[LINE_CONNECTIONS];
    unsigned order = 0;
    for (size_t i = 0; i < LINE_CONNECTIONS; i++)
        c[i] = node_connect(n);
    lock_body("line", 0x11);
    for (int64_t i = 0; i < LINE_LENGTH; i++)
        grant(0x1000 + i, 600);
    lock_body("line", 0x15);
    CHECK(unary(LOCK "Lock", &body) == 0, "%s", (char *)text.data);
    for (size_t i = 0; i < LINE_LENGTH; i++) {
        line[i].order = &order;
        lock_body("line", 0x1000 + (int64_t)i);
        start(&line[i], c[i % LINE_CONNECTIONS], LOCK "Lock", &body, NULL);
        if (i % LINE_CONNECTIONS == LINE_CONNECTIONS - 1)
            run_all(c, LINE_CONNECTIONS, 1);
    }
    for (int i = 0; i < 200 && keys_below("line/") < LINE_LENGTH + 1; i++)
        run_all(c, LINE_CONNECTIONS, 5);
    for (int i = 0; i < 100 && metric(n, "etcd_debugging_mvcc_watcher_total") < LINE_LENGTH; i++)
        run_all(c, LINE_CONNECTIONS, 5);
    CHECK(order == 0, "%u were let in while the first held it", order);
    CHECK(metric(n, "etcd_debugging_mvcc_watcher_total") == LINE_LENGTH, "each waits for one key");
    long ranges = metric(n, "etcd_mvcc_range_total");

    /* Whoever holds it lets go; the next one is the one with the next create revision. */
    char holder[64] = "line/15";
    bool held[LINE_LENGTH] = {false};
    int64_t last_rev = 0;
    for (unsigned turn = 1; turn <= LINE_LENGTH; turn++) {
        unlock(holder);
        for (int i = 0; i < 2000 && order < turn; i++)
            run_all(c, LINE_CONNECTIONS, 1);
        size_t who = LINE_LENGTH, count = 0;
        for (size_t i = 0; i < LINE_LENGTH; i++) {
            if (line[i].done && !held[i]) {
                who = i;
                count++;
            }
        }
        if (!CHECK(count == 1 && line[who].status == 0, "turn %u: %zu have it", turn, count))
            break;
        held[who] = true;
        snprintf(holder, sizeof(holder), "line/%zx", 0x1000 + who);
        buf_reset(&body);
        api_encode_range(&body, &(struct api_range){.key = slice_str(holder)});
        unary(KV "Range", &body);
        Etcdserverpb__RangeResponse *r = etcdserverpb__range_response__unpack(NULL, reply.len, reply.data);
        int64_t rev = r && r->n_kvs == 1 ? r->kvs[0]->create_revision : 0;
        etcdserverpb__range_response__free_unpacked(r, NULL);
        CHECK(rev > last_rev, "turn %u: in the order of create revisions", turn);
        last_rev = rev;
    }
    unlock(holder);
    CHECK(keys_below("line/") == 0);
    CHECK(metric(n, "etcd_debugging_mvcc_watcher_total") == 0);
    long per_turn = (metric(n, "etcd_mvcc_range_total") - ranges) / LINE_LENGTH;
    CHECK(per_turn <= 5, "a turn costs %ld reads, two of which are this test's", per_turn);
    for (size_t i = 0; i < LINE_LENGTH; i++)
        waiting_fini(&line[i]);
    for (size_t i = 0; i < LINE_CONNECTIONS; i++)
        gclient_free(c[i]);
}

/* --- restarts while waiting ------------------------------------------------------------------------------------------------------ */

static void kill_and_await(const struct node *n, const char *daemon)
{
    long pid = node_pid(n, daemon);
    node_kill(n, daemon);
    node_await(n, daemon, pid);
}

static void restarts(const struct node *n)
{
    enum { COUNT = 6 };
    struct waiting line[COUNT] = {{.call = NULL}};
    struct waiting observer = {.told = NULL};
    static const char *const daemons[] = {"stored", "raftd", "stored"};
    unsigned order = 0;
    campaign_now("leads", "r", 0x15, "first");
    buf_reset(&body);
    pb_add_bytes(&body, 1, SLICE_LIT("r"));
    start(&observer, client, ELECTION "Observe", &body, NULL);
    for (size_t i = 0; i < COUNT; i++) {
        line[i].order = &order;
        campaign_body("r", 0x1000 + (int64_t)i, "next");
        start(&line[i], client, ELECTION "Campaign", &body, NULL);
        await(&line[i], 100);
    }
    for (size_t i = 0; i < COUNT; i++) {
        char key[32];
        snprintf(key, sizeof(key), "r/%x", i == 0 ? 0x15 : 0x1000 + (unsigned)i - 1);
        if (i < ARRAY_LEN(daemons))
            kill_and_await(n, daemons[i]);
        unlock(key);
        CHECK(await(&line[i], 20000) && line[i].status == 0, "contender %zu: %d %s", i, line[i].status, (char *)line[i].text.data);
        CHECK(order == i + 1);
        observe_until(&observer, i + 2);
        CHECK(observer.messages == i + 2, "the observer was told %zu times", observer.messages);
    }
    unlock("r/1005");
    gcall_cancel(observer.call);
    await(&observer, 2000);
    for (size_t i = 0; i < COUNT; i++)
        waiting_fini(&line[i]);
    waiting_fini(&observer);
    CHECK(keys_below("r/") == 0);
}

/* --- nothing is left behind ------------------------------------------------------------------------------------------------------- */

static void fickle(const struct node *n)
{
    enum { COUNT = 200 };
    static struct waiting w[COUNT];
    size_t leases = lease_count();
    lock_body("fickle", 0x15);
    CHECK(unary(LOCK "Lock", &body) == 0);
    for (unsigned i = 0; i < COUNT; i++) {
        lock_body("fickle", 0);
        start(&w[i], client, LOCK "Lock", &body, NULL);
        bool never = false;
        gclient_run(client, &never, (int)(i % 5)); /* cancelled at every stage */
        gcall_cancel(w[i].call);
    }
    struct gclient *gone = node_connect(n);
    struct waiting dropped[10] = {{.call = NULL}};
    for (size_t i = 0; i < ARRAY_LEN(dropped); i++) {
        lock_body("fickle", 0);
        start(&dropped[i], gone, LOCK "Lock", &body, NULL);
    }
    bool never = false;
    gclient_run(gone, &never, 100);
    gclient_free(gone); /* a connection that breaks is a cancellation too */
    for (unsigned i = 0; i < COUNT; i++)
        await(&w[i], 2000);
    CHECK(keys_become("fickle/", 1), "%" PRId64 " keys are left", keys_below("fickle/"));
    for (int i = 0; i < 100 && lease_count() != leases; i++)
        usleep(50000);
    CHECK(lease_count() == leases, "leases of those who went away: %zu, before %zu", lease_count(), leases);
    CHECK(metric(n, "etcd_debugging_mvcc_watcher_total") == 0);
    unlock("fickle/15");
    for (unsigned i = 0; i < COUNT; i++)
        waiting_fini(&w[i]);
    for (size_t i = 0; i < ARRAY_LEN(dropped); i++)
        waiting_fini(&dropped[i]);
}

/* --- the end of a gateway -------------------------------------------------------------------------------------------------------- */

static void an_orderly_end(const struct node *n)
{
    struct waiting w = {.call = NULL};
    long pid = node_pid(n, "gatewayd");
    lock_body("end", 0x15);
    CHECK(unary(LOCK "Lock", &body) == 0);
    lock_body("end", 0);
    start(&w, client, LOCK "Lock", &body, NULL);
    CHECK(!await(&w, 300));
    uint64_t begun = clock_now_ms();
    kill((pid_t)pid, SIGTERM);
    CHECK(await(&w, 10000) && w.status == 14 && strcmp((char *)w.text.data, "etcdserver: server stopped") == 0, "%d %s", w.status, (char *)w.text.data);
    CHECK(clock_now_ms() - begun < 4000, "who waits does not hold up the end: %d ms", (int)(clock_now_ms() - begun));
    gclient_free(client);
    node_await(n, "gatewayd", pid);
    client = node_connect(n);
    CHECK(keys_become("end/", 1), "it has left the line");
    unlock("end/15");
    waiting_fini(&w);
}

/* --- users --------------------------------------------------------------------------------------------------------------------- */

#define AUTH "/etcdserverpb.Auth/"

static const char *token; /* NULL: none */

/* With the token; the answer is in w. */
static int as_user(struct waiting *w, const char *path)
{
    const char *const extra[] = {"token", token, NULL};
    w->done = false;
    w->call = gcall_start(client, path, buf_slice(&body), true, token ? extra : NULL, &waiting_ops, w);
    buf_reset(&body);
    return await(w, 10000) ? w->status : -9;
}

static void two_texts(const char *one, const char *two)
{
    buf_reset(&body);
    pb_add_bytes(&body, 1, slice_str(one));
    pb_add_bytes(&body, 2, slice_str(two));
}

static char *login(const char *user)
{
    char *got_token = NULL;
    two_texts(user, "secret");
    if (!CHECK(unary(AUTH "Authenticate", &body) == 0, "%s", (char *)text.data))
        return NULL;
    Etcdserverpb__AuthenticateResponse *r = etcdserverpb__authenticate_response__unpack(NULL, reply.len, reply.data);
    if (r)
        got_token = xstrdup(r->token);
    etcdserverpb__authenticate_response__free_unpacked(r, NULL);
    return got_token;
}

static void auth_set_up(void)
{
    static const char *const users[] = {"root", "anna"};
    struct buf perm = BUF_INIT;
    for (size_t i = 0; i < ARRAY_LEN(users); i++) {
        two_texts(users[i], "secret");
        CHECK(unary(AUTH "UserAdd", &body) == 0, "%s", (char *)text.data);
    }
    two_texts("root", "root");
    CHECK(unary(AUTH "UserGrantRole", &body) == 0, "%s", (char *)text.data);
    two_texts("locker", "");
    CHECK(unary(AUTH "RoleAdd", &body) == 0, "%s", (char *)text.data);
    pb_add_uint(&perm, 1, 2); /* READWRITE */
    pb_add_bytes(&perm, 2, SLICE_LIT("hers/"));
    pb_add_bytes(&perm, 3, SLICE_LIT("hers0"));
    two_texts("locker", "");
    pb_add_message(&body, 2, buf_slice(&perm));
    CHECK(unary(AUTH "RoleGrantPermission", &body) == 0, "%s", (char *)text.data);
    buf_fini(&perm);
    two_texts("anna", "locker");
    CHECK(unary(AUTH "UserGrantRole", &body) == 0, "%s", (char *)text.data);
    CHECK(unary(AUTH "AuthEnable", &body) == 0, "%s", (char *)text.data);
}

static void users(void)
{
    struct waiting w = {.call = NULL}, second = {.call = NULL};
    auth_set_up();
    char *anna = login("anna"), *root = login("root");
    lock_body("hers", 0);
    CHECK(as_user(&w, LOCK "Lock") == 2 && strcmp((char *)w.text.data, "etcdserver: user name is empty") == 0, "%d %s", w.status, (char *)w.text.data);
    token = anna;
    lock_body("others", 0);
    CHECK(as_user(&w, LOCK "Lock") == 2 && strcmp((char *)w.text.data, "etcdserver: permission denied") == 0, "%d %s", w.status, (char *)w.text.data);
    campaign_body("others", 0x15, "v");
    CHECK(as_user(&w, ELECTION "Campaign") == 2 && strcmp((char *)w.text.data, "etcdserver: permission denied") == 0, "%s", (char *)w.text.data);
    lock_body("hers", 0);
    CHECK(as_user(&w, LOCK "Lock") == 0, "%s", (char *)w.text.data);
    V3lockpb__LockResponse *r = v3lockpb__lock_response__unpack(NULL, w.body.len, w.body.data);
    char key[64];
    snprintf(key, sizeof(key), "%s", r ? str(r->key) : "");
    v3lockpb__lock_response__free_unpacked(r, NULL);

    /* Who waits while permissions change is asked about by those that are in force when its turn comes. */
    const char *const extra[] = {"token", anna, NULL};
    lock_body("hers", 0);
    second.call = gcall_start(client, LOCK "Lock", buf_slice(&body), true, extra, &waiting_ops, &second);
    CHECK(!await(&second, 300));
    token = root;
    two_texts("further", "");
    CHECK(as_user(&w, AUTH "RoleAdd") == 0, "%s", (char *)w.text.data);
    buf_reset(&body);
    pb_add_bytes(&body, 1, slice_str(key));
    CHECK(as_user(&w, LOCK "Unlock") == 0, "%s", (char *)w.text.data);
    CHECK(await(&second, 10000) && second.status == 0, "%d %s", second.status, (char *)second.text.data);
    buf_reset(&body);
    CHECK(as_user(&w, AUTH "AuthDisable") == 0, "%s", (char *)w.text.data);
    token = NULL;
    free(anna);
    free(root);
    waiting_fini(&w);
    waiting_fini(&second);
}

int main(void)
{
    struct node etcd, trine;
    node_start(&trine, NULL);
    struct buf ours = tell(&trine), theirs;
    if (CHECK(etcd_start(&etcd), "Debian's etcd starts")) {
        is_etcd = true;
        theirs = tell(&etcd);
        is_etcd = false;
        compare(&theirs, &ours);
        buf_fini(&theirs);
    }
    etcd_stop(&etcd);
    client = node_connect(&trine);
    a_long_line(&trine);
    restarts(&trine);
    fickle(&trine);
    an_orderly_end(&trine);
    users();
    gclient_free(client);
    node_stop(&trine);
    buf_fini(&ours);
    buf_fini(&observations);
    buf_fini(&body);
    buf_fini(&reply);
    buf_fini(&text);
    return check_summary();
}
