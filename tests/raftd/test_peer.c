/* peer: members of one process over loopback; who is let in, what arrives, and what noise does. And peer_msg. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rand.h"
#include "raftd/peer.h"
#include "raftd/peer_msg.h"
#include "tests/lib/certs.h"

#define CLUSTER 77

struct box {
    struct conf conf;
    struct peers *peers;
    uint64_t id;
    int port;
    const char *scheme;
    struct peer_msg msg;
    /* what came */
    size_t frames, appends, beats, entries, messages, lost, gone, reached;
    size_t appends_before_beat;
    size_t bytes;
    bool answer; /* a BEAT is answered */
    bool open_door;
};

static struct loop *loop;

static int box_frame(uint64_t member, const struct frame *f, void *arg)
{
    struct box *b = arg;

    b->frames++;
    if (f->type != FR_RAFT && f->type != FR_ENTRY)
        return f->type == FR_FORWARD ? 0 : E_MALFORMED;
    int got = peer_msg_add(&b->msg, member, b->id, f);
    if (got != 1)
        return MIN(got, 0);
    if (b->msg.msg.type == RAFT_MSG_APPEND) {
        b->appends++;
        b->entries += b->msg.msg.entry_count;
        for (size_t i = 0; i < b->msg.msg.entry_count; i++)
            b->bytes += b->msg.msg.entries[i]->len;
    } else {
        if (b->beats++ == 0)
            b->appends_before_beat = b->appends;
        if (b->answer && b->msg.msg.type == RAFT_MSG_BEAT) {
            struct buf *out = peers_begin(b->peers, member, PEER_STREAM_BEATS);

            if (out) {
                peer_msg_encode(out, &(struct raft_msg){.type = RAFT_MSG_BEAT_SAID, .from = b->id, .to = member, .term = 1});
                peers_end(b->peers);
            }
        }
    }
    peer_msg_reset(&b->msg);
    return 0;
}
static int box_message_end(uint64_t member, void *arg)
{
    struct box *b = arg;
    bool open = b->msg.open;

    UNUSED(member);
    b->messages++;
    peer_msg_reset(&b->msg);
    return open ? E_MALFORMED : 0;
}
static void box_lost(uint64_t member, void *arg)
{
    UNUSED(member);
    ((struct box *)arg)->lost++;
}
static void box_gone(uint64_t member, void *arg)
{
    UNUSED(member);
    ((struct box *)arg)->gone++;
}
static void box_reached(uint64_t member, enum peer_stream stream, const struct fr_hello *theirs, void *arg)
{
    struct box *b = arg;

    UNUSED(stream);
    cr_assert_eq(theirs->applied, 1000 + member);
    b->reached++;
}
static void box_standing(struct fr_hello *ours, void *arg)
{
    ours->applied = 1000 + ((struct box *)arg)->id;
}
static bool box_may_talk(uint64_t member, void *arg)
{
    UNUSED(member);
    return ((struct box *)arg)->open_door;
}
static bool box_was_removed(uint64_t member, void *arg)
{
    UNUSED(member), UNUSED(arg);
    return false;
}
static void box_table(struct buf *out, void *arg)
{
    UNUSED(out), UNUSED(arg);
}
static const struct peers_ops ops = {.frame = box_frame,
                                     .message_end = box_message_end,
                                     .lost = box_lost,
                                     .gone = box_gone,
                                     .reached = box_reached,
                                     .standing = box_standing,
                                     .may_talk = box_may_talk,
                                     .was_removed = box_was_removed,
                                     .table = box_table};

static void report(void *arg) { peers_report(((struct box *)arg)->peers); }

static int port_free(void)
{
    for (;;) {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int port = 10000 + (int)(rand_system_u64() % 20000), fd = socket(AF_INET, SOCK_STREAM, 0);

        at.sin_port = htons((uint16_t)port);
        bool taken = bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0;
        close(fd);
        if (!taken)
            return port;
    }
}

static void conf_put(struct conf *c, const char *key, const char *value)
{
    struct buf why = BUF_INIT;

    cr_assert_eq(conf_set(c, key, value, "test", &why), 0, "%s = %s", key, value);
    buf_fini(&why);
}

static int port_wanted; /* by the next box; 0: any */

/* pairs: further keys and values. */
static struct box *box_new(uint64_t id, uint64_t cluster, const char *scheme, const char *const *pairs)
{
    struct box *b = xcalloc(1, sizeof(*b));
    char url[64];

    if (!loop) {
        loop = loop_new();
        log_set_level(getenv("VERBOSE") ? LOG_L_DEBUG : LOG_L_ERROR);
    }
    b->id = id;
    b->port = port_wanted ? port_wanted : port_free();
    b->scheme = scheme;
    conf_init(&b->conf);
    snprintf(url, sizeof(url), "%s://127.0.0.1:%d", scheme, b->port);
    conf_put(&b->conf, "listen-peer-urls", url);
    conf_put(&b->conf, "heartbeat-interval", "20");
    conf_put(&b->conf, "election-timeout", "200");
    for (; pairs && *pairs; pairs += 2)
        conf_put(&b->conf, pairs[0], pairs[1]);
    b->peers = peers_new(loop, &(struct peers_conf){.conf = &b->conf, .cluster_id = cluster, .member_id = id, .instance = id}, &ops, b);
    peers_listen(b->peers);
    loop_on_turn_end(loop, report, b);
    return b;
}

static void box_free(struct box *b)
{
    loop_off_turn_end(loop, report, b);
    peers_free(b->peers);
    peer_msg_fini(&b->msg);
    /* conf stays until the loop is gone: nothing of it is used, but connections close later */
}

/* b hears that these are the members. */
static void know(struct box *b, struct box *const *boxes, size_t count)
{
    struct members m = {0};

    for (size_t i = 0; i < count; i++) {
        char url[64];

        snprintf(url, sizeof(url), "%s://127.0.0.1:%d", boxes[i]->scheme, boxes[i]->port);
        cr_assert_eq(members_apply(&m, &(struct raft_conf_change){.op = RAFT_CONF_ADD, .id = boxes[i]->id, .peer_urls = slice_str(url)}), 0);
    }
    peers_set(b->peers, &m);
    members_fini(&m);
}

static struct {
    bool (*done)(void *arg);
    void *arg;
    uint64_t until_ms;
    bool yes;
    struct loop_timer *timer;
} waiting;

static void wait_cb(void *arg, uint64_t now_ms)
{
    UNUSED(arg);
    waiting.yes = waiting.done && waiting.done(waiting.arg);
    if (waiting.yes || now_ms >= waiting.until_ms)
        loop_stop(loop);
    else
        loop_timer_set(waiting.timer, now_ms + 2);
}

/* Runs the loop until done, at most ms. */
static bool wait_for(unsigned ms, bool (*done)(void *arg), void *arg)
{
    waiting.done = done;
    waiting.arg = arg;
    waiting.until_ms = loop_now_ms(loop) + ms;
    waiting.timer = loop_timer_new(loop, wait_cb, NULL);
    loop_timer_set(waiting.timer, 0);
    loop_run(loop);
    loop_timer_free(waiting.timer);
    return waiting.yes;
}

struct pair {
    struct box *a, *b;
};
static bool both_up(void *arg)
{
    struct pair *p = arg;

    return peers_is_up(p->a->peers, p->b->id) && peers_is_up(p->b->peers, p->a->id);
}
static bool a_up(void *arg)
{
    struct pair *p = arg;

    return peers_is_up(p->a->peers, p->b->id);
}
static bool appends_up(void *arg)
{
    struct pair *p = arg;
    struct buf *out = peers_begin(p->a->peers, p->b->id, PEER_STREAM_APPENDS);

    if (out) {
        frame_encode(out, FRAME(forward, FORWARD, .kind = ENTRY_COMMAND, .data = SLICE_LIT("x")));
        peers_end(p->a->peers);
    }
    return out != NULL && peers_is_up(p->a->peers, p->b->id);
}

static struct pair pair_new(uint64_t cluster_of_b, const char *scheme, const char *const *pairs)
{
    struct pair p = {box_new(1, CLUSTER, scheme, pairs), box_new(2, cluster_of_b, scheme, pairs)};
    struct box *all[] = {p.a, p.b};

    know(p.a, all, 2);
    know(p.b, all, 2);
    return p;
}
static void pair_free(struct pair *p)
{
    box_free(p->a);
    box_free(p->b);
    loop_free(loop);
    loop = NULL;
    conf_fini(&p->a->conf);
    conf_fini(&p->b->conf);
    free(p->a);
    free(p->b);
}

static struct entry *entry_of(uint64_t index, size_t len)
{
    uint8_t *bytes = xcalloc(1, len + 1);
    struct entry *e = entry_new(ENTRY_COMMAND, slice_of(bytes, len));

    e->index = index;
    e->term = 1;
    free(bytes);
    return e;
}

static bool append_send(struct pair *p, size_t count, size_t len)
{
    struct buf *out = peers_begin(p->a->peers, 2, PEER_STREAM_APPENDS);
    struct entry *entries[RAFT_MSG_ENTRIES_MAX];

    if (!out)
        return false;
    for (size_t i = 0; i < count; i++)
        entries[i] = entry_of(i + 1, len);
    peer_msg_encode(out, &(struct raft_msg){.type = RAFT_MSG_APPEND, .from = 1, .to = 2, .term = 1, .entries = entries, .entry_count = count});
    peers_end(p->a->peers);
    for (size_t i = 0; i < count; i++)
        entry_unref(entries[i]);
    return true;
}

static bool beat_send(struct box *from, uint64_t to)
{
    struct buf *out = peers_begin(from->peers, to, PEER_STREAM_BEATS);

    if (!out)
        return false;
    peer_msg_encode(out, &(struct raft_msg){.type = RAFT_MSG_BEAT, .from = from->id, .to = to, .term = 1});
    peers_end(from->peers);
    return true;
}

static bool b_has_two_appends(void *arg) { return ((struct pair *)arg)->b->appends == 2; }
static bool b_has_beat(void *arg) { return ((struct pair *)arg)->b->beats > 0; }
static bool a_has_beat(void *arg) { return ((struct pair *)arg)->a->beats > 0; }
static bool a_lost(void *arg) { return ((struct pair *)arg)->a->lost > 0; }
static bool a_down(void *arg) { return !a_up(arg); }

/* --- what arrives ------------------------------------------------------------------------------------ */

Test(peer, members_find_each_other_and_appends_arrive_whole)
{
    struct pair p = pair_new(CLUSTER, "http", NULL);

    cr_assert(wait_for(3000, both_up, &p));
    cr_assert(wait_for(3000, appends_up, &p));
    cr_expect(append_send(&p, 1024, 100));
    cr_expect(append_send(&p, 3, 400000));
    cr_assert(wait_for(3000, b_has_two_appends, &p));
    cr_expect_eq(p.b->entries, 1027);
    cr_expect_eq(p.b->bytes, 1024 * 100 + 3 * 400000);
    cr_expect_eq(peers_place(p.a->peers, 2), 0);
    cr_expect_eq(peers_at(p.a->peers, 0), 2);
    cr_expect_eq(peers_place(p.a->peers, 9), -1);
    pair_free(&p);
}

Test(peer, a_beat_overtakes_appends_that_were_queued_before_it)
{
    struct pair p = pair_new(CLUSTER, "http", NULL);
    size_t sent = 0;

    cr_assert(wait_for(3000, appends_up, &p));
    while (append_send(&p, 8, 128 * 1024))
        sent++;
    cr_assert_gt(sent, 15, "at least 16 MiB under way, not %zu", sent);
    cr_assert(beat_send(p.a, 2));
    cr_assert(wait_for(5000, b_has_beat, &p));
    cr_expect_lt(p.b->appends_before_beat, sent / 2, "%zu of %zu appends came first", p.b->appends_before_beat, sent);
    pair_free(&p);
}

Test(peer, what_is_too_much_is_dropped_and_told)
{
    struct pair p = pair_new(CLUSTER, "http", NULL);

    cr_assert(wait_for(3000, appends_up, &p));
    wait_for(20, NULL, NULL);
    p.a->lost = 0; /* of the time before it was reached */
    while (append_send(&p, 8, 128 * 1024))
        continue;
    cr_expect(wait_for(1000, a_lost, &p));
    cr_expect(a_up(&p), "the connection is as good as before");
    pair_free(&p);
}

Test(peer, one_that_knows_no_urls_answers_on_the_connection_it_was_called_on)
{
    struct pair p = {box_new(1, CLUSTER, "http", NULL), box_new(2, CLUSTER, "http", NULL)};
    struct box *all[] = {p.a, p.b};

    p.b->open_door = p.b->answer = true;
    know(p.a, all, 2);
    know(p.b, all, 0);
    cr_assert(wait_for(3000, a_up, &p));
    cr_assert(beat_send(p.a, 2));
    cr_expect(wait_for(3000, a_has_beat, &p));
    pair_free(&p);
}

Test(peer, a_member_that_ends_is_lost_and_one_that_comes_back_is_reached)
{
    struct pair p = pair_new(CLUSTER, "http", NULL);
    struct box *gone = p.b, *all[2];

    cr_assert(wait_for(3000, both_up, &p));
    cr_expect_neq(peers_up_since_ms(p.a->peers, 2), UINT64_MAX);
    box_free(p.b);
    cr_assert(wait_for(3000, a_down, &p));
    cr_expect(wait_for(1000, a_lost, &p));
    cr_expect_not(beat_send(p.a, 2));
    cr_expect_eq(peers_up_since_ms(p.a->peers, 2), UINT64_MAX);

    p.b = box_new(2, CLUSTER, "http", NULL); /* at another place, which the membership tells */
    all[0] = p.a, all[1] = p.b;
    know(p.b, all, 2);
    know(p.a, all, 2);
    cr_expect(wait_for(3000, both_up, &p));
    pair_free(&p);
    conf_fini(&gone->conf);
    free(gone);
}

static bool a_knows_it_gone(void *arg) { return ((struct pair *)arg)->a->gone > 0; }
static bool never(void *arg)
{
    UNUSED(arg);
    return false;
}

/* Nobody listens any more where it was heard a moment ago: its process has ended. It is told once, and soon. */
Test(peer, a_process_that_has_ended_is_known_to_be_gone_at_once)
{
    struct pair p = pair_new(CLUSTER, "http", NULL);
    struct box *gone = p.b;

    cr_assert(wait_for(3000, both_up, &p));
    cr_expect_eq(p.a->gone, 0);
    cr_expect_gt(p.a->reached, 0);
    box_free(p.b);
    uint64_t before_ms = loop_now_ms(loop);
    cr_expect(wait_for(3000, a_knows_it_gone, &p));
    cr_expect_lt(loop_now_ms(loop) - before_ms, 1000);
    wait_for(300, never, NULL);
    cr_expect_eq(p.a->gone, 1);
    p.b = box_new(3, CLUSTER, "http", NULL);
    pair_free(&p);
    conf_fini(&gone->conf);
    free(gone);
}

/* Its URL is no longer right, or a firewall refuses one way; but it speaks to us: it lives. When that ends as well it is gone. */
Test(peer, who_refuses_us_but_speaks_to_us_is_not_gone)
{
    struct pair p = pair_new(CLUSTER, "http", NULL);
    struct box *gone = p.b, *all[] = {p.a, p.b};

    cr_assert(wait_for(3000, both_up, &p));
    wait_for(100, never, NULL); /* all streams */
    p.b->port = port_free(); /* nobody there */
    know(p.a, all, 2);
    wait_for(400, never, NULL);
    cr_expect_eq(p.a->gone, 0);
    box_free(p.b);
    cr_expect(wait_for(1000, a_knows_it_gone, &p));
    wait_for(300, never, NULL);
    cr_expect_eq(p.a->gone, 1);
    p.b = box_new(3, CLUSTER, "http", NULL);
    pair_free(&p);
    conf_fini(&gone->conf);
    free(gone);
}

/* One that was never heard is only away. */
Test(peer, a_process_that_was_never_there_is_not_gone)
{
    struct box *a = box_new(1, CLUSTER, "http", NULL), *b = box_new(2, CLUSTER, "http", NULL);
    struct pair p = {a, b};
    struct box *all[] = {a, b};

    b->port = port_free(); /* nobody there */
    know(a, all, 2);
    wait_for(300, never, NULL);
    cr_expect_eq(a->gone, 0);
    pair_free(&p);
}

/* A broken network swallows SYNs, and the kernel repeats them after one, three, seven seconds: neither that nor a long backoff is
 * waited for when the member itself is heard. */
Test(peer, who_is_heard_again_is_dialled_at_once)
{
    static const char *const slow[] = {"election-timeout", "5000", NULL};
    struct pair p = {box_new(1, CLUSTER, "http", slow), NULL};
    struct box other = {.id = 2, .port = port_free(), .scheme = "http"}, *all[] = {p.a, &other};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)other.port)};
    int fds[3], full = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

    /* given a place whose backlog is full: connections to it hang */
    setsockopt(full, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    cr_assert_eq(bind(full, (struct sockaddr *)&at, sizeof(at)), 0);
    cr_assert_eq(listen(full, 0), 0);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fds[i], (struct sockaddr *)&at, sizeof(at));
    }
    know(p.a, all, 2);
    wait_for(1200, never, NULL);
    cr_expect_eq(p.a->reached, 0);

    /* when the member is there now, and calls */
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        close(fds[i]);
    close(full);
    port_wanted = other.port;
    p.b = all[1] = box_new(2, CLUSTER, "http", slow);
    port_wanted = 0;
    know(p.b, all, 2);
    uint64_t before_ms = loop_now_ms(loop);
    cr_expect(wait_for(3000, both_up, &p));
    cr_expect_lt(loop_now_ms(loop) - before_ms, 700);
    pair_free(&p);
}

/* --- who is let in ----------------------------------------------------------------------------------- */

Test(peer, another_cluster_is_refused)
{
    struct pair p = pair_new(CLUSTER + 1, "http", NULL);

    cr_expect_not(wait_for(300, a_up, &p));
    cr_expect_not(peers_is_up(p.b->peers, 1));
    cr_expect_eq(p.b->frames, 0);
    pair_free(&p);
}

Test(peer, who_is_no_member_is_refused)
{
    struct pair p = {box_new(1, CLUSTER, "http", NULL), box_new(2, CLUSTER, "http", NULL)};
    struct box *all[] = {p.a, p.b}, *alone[] = {p.b};

    know(p.a, all, 2);
    know(p.b, alone, 1);
    cr_expect_not(wait_for(300, a_up, &p));
    pair_free(&p);
}

Test(peer, one_that_left_is_not_talked_to_any_more)
{
    struct pair p = pair_new(CLUSTER, "http", NULL);
    struct box *alone[] = {p.a};

    cr_assert(wait_for(3000, both_up, &p));
    know(p.a, alone, 1);
    wait_for(100, NULL, NULL);
    cr_expect_not(beat_send(p.a, 2));
    cr_expect_not(peers_is_up(p.b->peers, 1));
    pair_free(&p);
}

/* --- noise ------------------------------------------------------------------------------------------- */

static int raw_connect(const struct box *b)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)b->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void raw_send(int fd, struct slice bytes) { (void)!send(fd, bytes.data, bytes.len, MSG_NOSIGNAL); }

static void raw_message(int fd, const struct buf *frames)
{
    uint32_t be = htobe32((uint32_t)frames->len);

    raw_send(fd, slice_of(&be, 4));
    raw_send(fd, buf_slice(frames));
}

static void raw_hello(int fd, uint64_t version, uint64_t role, uint64_t cluster, uint64_t member, uint64_t stream)
{
    struct buf out = BUF_INIT;

    frame_encode(&out, FRAME(hello, HELLO, .version = version, .role = role, .cluster_id = cluster, .member_id = member,
                             .instance = 5, .slot = stream));
    raw_message(fd, &out);
    buf_fini(&out);
}

static bool raw_is_closed(void *arg)
{
    uint8_t bytes[512];
    ssize_t n;

    while ((n = recv(*(int *)arg, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
        continue;
    return n == 0 || errno != EAGAIN;
}

/* A connection that lies is closed, and nothing of it is heard. */
static void expect_closed(struct box *b, int fd, const char *what)
{
    size_t frames = b->frames;

    cr_expect(wait_for(1000, raw_is_closed, &fd), "%s: is closed", what);
    cr_expect_eq(b->frames, frames, "%s: is not heard", what);
    close(fd);
}

Test(peer, hellos_that_lie_close_the_connection)
{
    struct pair p = pair_new(CLUSTER, "http", NULL);
    static const struct {
        uint64_t version, role, cluster, member, stream;
        const char *what;
    } lies[] = {
        {FRAMES_VERSION + 1, ROLE_PEER, CLUSTER, 2, 0, "another version"},
        {FRAMES_VERSION, ROLE_STORED, CLUSTER, 2, 0, "another role"},
        {FRAMES_VERSION, ROLE_PEER, CLUSTER + 1, 2, 0, "another cluster"},
        {FRAMES_VERSION, ROLE_PEER, CLUSTER, 1, 0, "our own id"},
        {FRAMES_VERSION, ROLE_PEER, CLUSTER, 3, 0, "a stranger"},
        {FRAMES_VERSION, ROLE_PEER, CLUSTER, 2, PEER_STREAMS, "a stream too many"},
    };

    cr_assert(wait_for(3000, both_up, &p));
    for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
        int fd = raw_connect(p.a);

        raw_hello(fd, lies[i].version, lies[i].role, lies[i].cluster, lies[i].member, lies[i].stream);
        expect_closed(p.a, fd, lies[i].what);
    }
    cr_expect(both_up(&p), "nobody else suffers");
    pair_free(&p);
}

Test(peer, bytes_that_are_no_messages_close_the_connection)
{
    struct pair p = pair_new(CLUSTER, "http", NULL);
    struct buf out = BUF_INIT;
    struct rand r;

    cr_assert(wait_for(3000, both_up, &p));
    rand_seed(&r, 3);
    for (int i = 0; i < 40; i++) {
        uint8_t noise[300];
        int fd = raw_connect(p.a);
        size_t len = 4 + (size_t)rand_below(&r, sizeof(noise) - 4);

        for (size_t k = 0; k < len; k++)
            noise[k] = (uint8_t)rand_u64(&r);
        noise[0] |= 1; /* a length beyond what a HELLO has, or, every other time, just right */
        if (i % 2)
            memcpy(noise, "\0\0\0\x08\x9a\x01\xcd\x03", 8), len = MAX(len, (size_t)12);
        raw_send(fd, slice_of(noise, len));
        expect_closed(p.a, fd, "noise");
    }

    /* Behind a good HELLO. */
    static const struct {
        const char *what;
        struct slice bytes;
    } lies[] = {
        {"an empty message", {(const uint8_t *)"\0\0\0\0", 4}},
        {"a message too large", {(const uint8_t *)"\xff\xff\xff\xff", 4}},
        {"no frame", {(const uint8_t *)"\0\0\0\x03"
                                       "abc",
                      7}},
    };
    for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
        int fd = raw_connect(p.a);

        raw_hello(fd, FRAMES_VERSION, ROLE_PEER, CLUSTER, 2, PEER_STREAM_SNAPS);
        raw_send(fd, lies[i].bytes);
        expect_closed(p.a, fd, lies[i].what);
    }
    /* A frame that only gateways say. */
    int fd = raw_connect(p.a);
    frame_encode(&out, FRAME(propose, PROPOSE, .req = 1, .command = SLICE_LIT("x")));
    raw_hello(fd, FRAMES_VERSION, ROLE_PEER, CLUSTER, 2, PEER_STREAM_SNAPS);
    raw_message(fd, &out);
    expect_closed(p.a, fd, "a gateway's frame");
    buf_fini(&out);
    cr_expect(both_up(&p));
    pair_free(&p);
}

Test(peer, an_append_that_breaks_off_leaves_nothing_behind)
{
    struct pair p = pair_new(CLUSTER, "http", NULL);
    struct buf out = BUF_INIT;
    int fd;

    cr_assert(wait_for(3000, both_up, &p));
    fd = raw_connect(p.b);
    frame_encode(&out, FRAME(raft, RAFT, .kind = RAFT_MSG_APPEND, .from = 1, .to = 2, .term = 1, .entry_count = 2));
    frame_encode(&out, FRAME(entry, ENTRY, .index = 1, .term = 1, .kind = ENTRY_COMMAND, .data = SLICE_LIT("x")));
    raw_hello(fd, FRAMES_VERSION, ROLE_PEER, CLUSTER, 1, PEER_STREAM_SNAPS);
    raw_message(fd, &out);
    cr_expect(wait_for(1000, raw_is_closed, &fd));
    cr_expect_eq(p.b->appends, 0);
    close(fd);
    cr_assert(beat_send(p.a, 2));
    cr_expect(wait_for(1000, b_has_beat, &p));
    buf_fini(&out);
    pair_free(&p);
}

/* --- TLS --------------------------------------------------------------------------------------------- */

Test(peer, members_with_certificates_of_one_authority_find_each_other)
{
    struct certs pki;

    certs_init(&pki, "authority");
    certs_make(&pki, "m", "member", "IP:127.0.0.1");
    const char *pairs[] = {"peer-cert-file",        certs_path(&pki, "m.pem"), "peer-key-file", certs_path(&pki, "m.key"),
                           "peer-trusted-ca-file",  certs_path(&pki, "ca.pem"), "peer-client-cert-auth", "true", NULL};
    struct pair p = pair_new(CLUSTER, "https", pairs);

    cr_assert(wait_for(3000, both_up, &p));
    cr_assert(wait_for(3000, appends_up, &p));
    cr_expect(append_send(&p, 1000, 1000));
    cr_expect(append_send(&p, 4, 500000));
    cr_assert(wait_for(3000, b_has_two_appends, &p));
    cr_expect_eq(p.b->bytes, 1000 * 1000 + 4 * 500000);

    /* who speaks no TLS is not heard */
    int fd = raw_connect(p.a);
    raw_hello(fd, FRAMES_VERSION, ROLE_PEER, CLUSTER, 2, 0);
    expect_closed(p.a, fd, "plain bytes");
    cr_expect(both_up(&p));
    pair_free(&p);
    certs_fini(&pki);
}

Test(peer, a_member_with_a_certificate_of_another_authority_is_refused)
{
    struct certs pki, foreign;

    certs_init(&pki, "authority");
    certs_make(&pki, "m", "member", "IP:127.0.0.1");
    certs_init(&foreign, "somebody");
    certs_make(&foreign, "m", "member", "IP:127.0.0.1");
    const char *good[] = {"peer-cert-file",       certs_path(&pki, "m.pem"), "peer-key-file", certs_path(&pki, "m.key"),
                          "peer-trusted-ca-file", certs_path(&pki, "ca.pem"), NULL};
    const char *bad[] = {"peer-cert-file",       certs_path(&foreign, "m.pem"), "peer-key-file", certs_path(&foreign, "m.key"),
                         "peer-trusted-ca-file", certs_path(&pki, "ca.pem"), NULL};
    struct pair p = {box_new(1, CLUSTER, "https", good), box_new(2, CLUSTER, "https", bad)};
    struct box *all[] = {p.a, p.b};

    know(p.a, all, 2);
    know(p.b, all, 2);
    cr_expect_not(wait_for(300, a_up, &p));
    cr_expect_not(peers_is_up(p.b->peers, 1));
    pair_free(&p);
    certs_fini(&pki);
    certs_fini(&foreign);
}

/* --- messages as frames ------------------------------------------------------------------------------ */

static int add_all(struct peer_msg *m, struct slice in)
{
    struct frame f;
    int got = 0, rv;

    while (got == 0 && (rv = frame_decode(&in, &f)) == 1)
        got = peer_msg_add(m, 1, 2, &f);
    return got;
}

Test(peer_msg, every_field_comes_back)
{
    struct entry *entries[] = {entry_of(8, 3), entry_of(9, 0)};
    struct raft_msg said = {.type = RAFT_MSG_APPEND, .from = 1, .to = 2, .term = 3, .index = 7, .log_term = 1, .commit = 6, .hint = 5,
                            .read_id = 4, .reject = true, .transfer = true, .entries = entries, .entry_count = 2};
    struct peer_msg m = {0};
    struct buf out = BUF_INIT;

    peer_msg_encode(&out, &said);
    cr_assert_eq(add_all(&m, buf_slice(&out)), 1);
    const struct raft_msg *got = &m.msg;
    cr_expect(got->type == said.type && got->from == 1 && got->to == 2 && got->term == 3 && got->index == 7 && got->log_term == 1);
    cr_expect(got->commit == 6 && got->hint == 5 && got->read_id == 4 && got->reject && got->transfer && got->entry_count == 2);
    cr_expect(got->entries[0]->index == 8 && got->entries[0]->len == 3 && got->entries[1]->index == 9);
    peer_msg_fini(&m);
    buf_fini(&out);
    entry_unref(entries[0]);
    entry_unref(entries[1]);
}

Test(peer_msg, what_no_honest_member_says_is_refused)
{
    static const struct fr_raft good = {.kind = RAFT_MSG_BEAT, .from = 1, .to = 2, .term = 1};
    struct peer_msg m = {0};
    struct frame f = {.type = FR_RAFT, .raft = good};

    f.raft.from = 3;
    cr_expect_eq(peer_msg_add(&m, 1, 2, &f), E_MALFORMED);
    f.raft = good, f.raft.to = 3;
    cr_expect_eq(peer_msg_add(&m, 1, 2, &f), E_MALFORMED);
    f.raft = good, f.raft.kind = 99;
    cr_expect_eq(peer_msg_add(&m, 1, 2, &f), E_MALFORMED);
    f.raft = good, f.raft.entry_count = 1; /* only appends have entries */
    cr_expect_eq(peer_msg_add(&m, 1, 2, &f), E_MALFORMED);
    f.raft = good, f.raft.kind = RAFT_MSG_APPEND, f.raft.entry_count = RAFT_MSG_ENTRIES_MAX + 1;
    cr_expect_eq(peer_msg_add(&m, 1, 2, &f), E_MALFORMED);
    struct frame e = {.type = FR_ENTRY, .entry = {.index = 1, .term = 1, .kind = ENTRY_COMMAND}};
    cr_expect_eq(peer_msg_add(&m, 1, 2, &e), E_MALFORMED, "an entry of nothing");
    f.raft = good, f.raft.kind = RAFT_MSG_APPEND, f.raft.entry_count = 2;
    cr_expect_eq(peer_msg_add(&m, 1, 2, &f), 0);
    cr_expect_eq(peer_msg_add(&m, 1, 2, &f), E_MALFORMED, "another message in the middle of one");
    e.entry.kind = 9;
    cr_expect_eq(peer_msg_add(&m, 1, 2, &e), E_MALFORMED);
    peer_msg_fini(&m);
}
