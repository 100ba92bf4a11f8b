/* link (with wire and link_url): two ends on one loop, ends in other processes, and a raw socket that lies.
 * The host is a stored that listens on a slot, the guest a gatewayd that dials it. Frames are real ones: QUERY
 * from guest to host, RESULT the other way; req counts, so that order and loss show. */
#include "proto/link.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rand.h"

#define WAIT_MS 20000
#define SLOT 3

/* One end of a link and what happened to it. */
struct end {
    struct link *link;
    unsigned ups, downs, batches, drains;
    uint64_t next_req;     /* the req that the next frame must carry */
    uint64_t peer_instance;
    bool out_of_order;
    int up_answer;         /* what `up` returns */
    int frame_answer;      /* what `frame` returns */
    uint64_t send_in_up;   /* frames to send from within `up` */
    bool echo;             /* answers each QUERY with a RESULT */
    uint64_t pause_at;     /* pauses at this req, if not 0 */
};

struct pair {
    char dir[64], url[96];
    struct loop *loop;
    struct loop_timer *tick;
    struct end host, guest;
    bool (*done)(const struct pair *p);
    uint64_t deadline_ms;
    bool timed_out;
};

static void send_query(struct end *e, uint64_t req, size_t len)
{
    static uint8_t bytes[FRAME_FIELD_BYTES_MAX];

    link_send(e->link, FRAME(query, QUERY, .req = req, .command = {bytes, len}));
}

static int up_cb(struct link *link, const struct fr_hello *hello, void *arg)
{
    struct end *e = arg;

    if (e->up_answer != 0)
        return e->up_answer;
    cr_assert_eq(link_state(link), LINK_UP);
    cr_assert_eq(link_peer(link), hello);
    e->ups++;
    e->next_req = 0;
    e->peer_instance = hello->instance;
    for (uint64_t req = 0; req < e->send_in_up; req++)
        send_query(e, req, 1);
    return 0;
}

static void down_cb(struct link *link, void *arg)
{
    struct end *e = arg;

    cr_assert_null(link_peer(link));
    cr_assert_eq(link_state(link), LINK_DOWN);
    e->downs++;
    send_query(e, 99, 1); /* ignored */
}

static int frame_cb(struct link *link, const struct frame *frame, void *arg)
{
    struct end *e = arg;
    uint64_t req = frame->type == FR_QUERY ? frame->query.req : frame->result.req;

    if (req != e->next_req++)
        e->out_of_order = true;
    if (e->echo)
        link_send(link, FRAME(result, RESULT, .req = req));
    if (e->pause_at != 0 && req == e->pause_at)
        link_pause(link, true);
    return e->frame_answer;
}

static void batch_end_cb(struct link *link, void *arg)
{
    UNUSED(link);
    ((struct end *)arg)->batches++;
}

static void drained_cb(struct link *link, void *arg)
{
    cr_assert_not(link_is_full(link));
    ((struct end *)arg)->drains++;
}

static const struct link_ops ops = {up_cb, down_cb, frame_cb, batch_end_cb, drained_cb};

/* --- running ------------------------------------------------------------------------------------ */

static void check_hook_cb(void *arg)
{
    struct pair *p = arg;

    if (p->done && p->done(p))
        loop_stop(p->loop);
}

static void tick_cb(void *arg, uint64_t now_ms)
{
    struct pair *p = arg;

    if (now_ms >= p->deadline_ms) {
        p->timed_out = true;
        loop_stop(p->loop);
    }
    loop_timer_set(p->tick, now_ms + 5);
}

static bool run_ms(struct pair *p, bool (*done)(const struct pair *p), unsigned ms)
{
    p->done = done;
    p->timed_out = false;
    p->deadline_ms = loop_now_ms(p->loop) + ms;
    loop_timer_set(p->tick, loop_now_ms(p->loop));
    loop_run(p->loop);
    p->done = NULL;
    return !p->timed_out;
}

static bool run(struct pair *p, bool (*done)(const struct pair *p))
{
    return run_ms(p, done, WAIT_MS);
}

static void pair_init(struct pair *p)
{
    *p = (struct pair){0};
    log_init("test_link", getenv("TRINE_TEST_TRACE") ? LOG_L_TRACE : LOG_L_ERROR);
    snprintf(p->dir, sizeof(p->dir), "/tmp/trine-link-XXXXXX");
    cr_assert_not_null(mkdtemp(p->dir));
    snprintf(p->url, sizeof(p->url), "ipc://%s/s", p->dir);
    p->loop = loop_new();
    p->tick = loop_timer_new(p->loop, tick_cb, p);
    loop_on_turn_end(p->loop, check_hook_cb, p);
}

static void end_open(struct pair *p, struct end *e, struct link_conf conf, struct fr_hello hello)
{
    conf.url = p->url;
    e->link = link_new(p->loop, &conf, &ops, e);
    link_set_hello(e->link, &hello);
    link_start(e->link);
}

static const struct link_conf host_conf = {
    .name = "guest", .listen = true, .self = ROLE_STORED, .peer = ROLE_GATEWAYD, .slot = SLOT};
static const struct link_conf guest_conf = {.name = "host", .self = ROLE_GATEWAYD, .peer = ROLE_STORED, .slot = SLOT};

static void host_open(struct pair *p)
{
    end_open(p, &p->host, host_conf, (struct fr_hello){.instance = 1, .applied = 41, .cluster_id = 7});
}

static void guest_open(struct pair *p)
{
    end_open(p, &p->guest, guest_conf, (struct fr_hello){.instance = 2});
}

static void pair_fini(struct pair *p)
{
    char path[128];

    link_free(p->guest.link);
    link_free(p->host.link);
    loop_free(p->loop);
    snprintf(path, sizeof(path), "%s/s", p->dir);
    unlink(path);
    snprintf(path, sizeof(path), "%s/s.lock", p->dir);
    unlink(path);
    rmdir(p->dir);
}

static bool both_up(const struct pair *p)
{
    return p->host.ups > p->host.downs && p->guest.ups > p->guest.downs;
}

static bool never(const struct pair *p)
{
    UNUSED(p);
    return false;
}

/* --- URLs ----------------------------------------------------------------------------------------- */

static void assert_url(const char *base, unsigned slot, const char *expected)
{
    char *url = link_url(base, slot);

    if (expected)
        cr_assert_str_eq(url, expected);
    else
        cr_assert_null(url, "%s slot %u gives %s", base, slot, url);
    free(url);
}

Test(link, a_slot_has_a_url_of_its_own)
{
    assert_url("ipc:///run/trine/raftd.ipc", 0, "ipc:///run/trine/raftd.ipc");
    assert_url("ipc:///run/trine/raftd.ipc", 3, "ipc:///run/trine/raftd.ipc.3");
    assert_url("inproc://x", 1, "inproc://x.1");
    assert_url("tcp://127.0.0.1:2390", 2, "tcp://127.0.0.1:2392");
    assert_url("tls+tcp://[::1]:2390", 0, "tls+tcp://[::1]:2390");
}

Test(link, what_is_not_a_url_has_no_slots)
{
    assert_url("", 1, NULL);
    assert_url("ipc://", 1, NULL);
    assert_url("http://x:1", 1, NULL);
    assert_url("tcp://host", 1, NULL);
    assert_url("tcp://host:", 1, NULL);
    assert_url("tcp://host:12x", 1, NULL);
    assert_url("tcp://host:-5", 1, NULL);
    assert_url("tcp://host:65535", 1, NULL);
    assert_url("tcp://host:65535", 0, "tcp://host:65535");
}

/* --- HELLO ---------------------------------------------------------------------------------------- */

Test(link, both_ends_say_hello_and_are_up, .timeout = 60)
{
    struct pair p;
    struct stat st;
    char path[128];

    pair_init(&p);
    guest_open(&p); /* dials again until somebody listens */
    cr_assert_not(run_ms(&p, both_up, 100));
    host_open(&p);

    cr_assert(run(&p, both_up));

    cr_assert_eq(link_peer(p.host.link)->role, ROLE_GATEWAYD);
    cr_assert_eq(link_peer(p.host.link)->instance, 2);
    cr_assert_eq(link_peer(p.guest.link)->applied, 41);
    cr_assert_eq(link_slot(p.guest.link), SLOT);
    snprintf(path, sizeof(path), "%s/s", p.dir);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    pair_fini(&p);
}

/* The host speaks first: what the guest sees to be wrong in its HELLO, the guest refuses; the rest the host. */
static bool both_refused_twice(const struct pair *p)
{
    return link_stats(p->host.link)->refused_hellos + link_stats(p->guest.link)->refused_hellos >= 2;
}

/* Guest and host do not fit in one thing; one says no, again and again, and both stay well. */
static void assert_refused(struct link_conf conf, struct fr_hello hello)
{
    struct pair p;

    pair_init(&p);
    host_open(&p);
    end_open(&p, &p.guest, conf, hello);

    cr_assert(run(&p, both_refused_twice));

    cr_assert_eq(p.host.ups, 0);
    cr_assert_eq(p.host.downs, 0, "down without up");
    cr_assert_eq(link_state(p.host.link) == LINK_UP, false);
    pair_fini(&p);
}

Test(link, a_peer_of_another_role_is_refused, .timeout = 60)
{
    struct link_conf conf = guest_conf;

    conf.self = ROLE_RAFTD;
    assert_refused(conf, (struct fr_hello){.instance = 2});
}

Test(link, a_peer_for_another_slot_is_refused, .timeout = 60)
{
    struct link_conf conf = guest_conf;

    conf.slot = SLOT + 1;
    assert_refused(conf, (struct fr_hello){.instance = 2});
}

Test(link, a_peer_of_another_cluster_is_refused, .timeout = 60)
{
    assert_refused(guest_conf, (struct fr_hello){.instance = 2, .cluster_id = 8});
}

Test(link, the_owner_may_refuse_a_peer, .timeout = 60)
{
    struct pair p;

    pair_init(&p);
    p.host.up_answer = E_AGAIN;
    host_open(&p);
    guest_open(&p);

    cr_assert(run(&p, both_refused_twice));
    cr_assert_eq(p.host.ups + p.host.downs, 0);
    p.host.up_answer = 0;
    cr_assert(run(&p, both_up));
    pair_fini(&p);
}

Test(link, an_address_in_use_is_fatal, .exit_code = 1, .timeout = 60)
{
    struct pair p;

    pair_init(&p);
    host_open(&p);
    end_open(&p, &p.guest, host_conf, (struct fr_hello){0});
}

Test(link, a_url_of_no_known_scheme_is_fatal, .exit_code = 1, .timeout = 60)
{
    struct pair p;

    pair_init(&p);
    snprintf(p.url, sizeof(p.url), "nonsense");
    guest_open(&p);
}

/* --- batches ---------------------------------------------------------------------------------------- */

enum { MANY = 100000, PER_TURN = 1000 };

static bool host_has_many(const struct pair *p)
{
    return p->host.next_req == MANY;
}

static uint64_t fed;

static void feed_hook_cb(void *arg)
{
    struct pair *p = arg;

    if (p->guest.ups == 0)
        return;
    for (unsigned i = 0; i < PER_TURN && fed < MANY; i++)
        send_query(&p->guest, fed++, 10);
    if (fed < MANY)
        loop_timer_set(p->tick, 0); /* another turn */
}

Test(link, a_hundred_thousand_frames_arrive_in_order_and_in_few_messages, .timeout = 60)
{
    struct pair p;
    const struct link_stats *in;
    const struct link_stats *out;

    pair_init(&p);
    host_open(&p);
    guest_open(&p);
    loop_on_turn_end(p.loop, feed_hook_cb, &p); /* after the link's own hook: it must run again */

    cr_assert(run(&p, host_has_many));

    in = link_stats(p.host.link);
    out = link_stats(p.guest.link);
    cr_assert_not(p.host.out_of_order);
    cr_assert_eq(out->frames_out, MANY + 1);
    cr_assert_eq(in->frames_in, MANY + 1);
    cr_assert_eq(in->messages_in, out->messages_out);
    cr_assert_lt(out->messages_out, MANY / 500, "%lu messages", (unsigned long)out->messages_out);
    cr_assert_eq(p.host.batches, in->messages_in);
    cr_assert_eq(in->bytes_in, out->bytes_out);
    pair_fini(&p);
}

Test(link, frames_sent_in_up_follow_the_hello, .timeout = 60)
{
    struct pair p;

    pair_init(&p);
    p.guest.send_in_up = MANY;
    host_open(&p);
    guest_open(&p);

    cr_assert(run(&p, host_has_many));

    cr_assert_not(p.host.out_of_order);
    cr_assert_eq(p.host.ups, 1);
    /* All at once: about as many messages as the soft size asks for. */
    cr_assert_lt(link_stats(p.guest.link)->messages_out, 12);
    pair_fini(&p);
}

static bool host_has_seven(const struct pair *p)
{
    return p->host.next_req == 7;
}

Test(link, a_frame_of_the_largest_size_travels_between_small_ones, .timeout = 60)
{
    struct pair p;

    pair_init(&p);
    host_open(&p);
    guest_open(&p);
    cr_assert(run(&p, both_up));

    for (uint64_t req = 0; req < 7; req++)
        send_query(&p.guest, req, req % 2 ? FRAME_FIELD_BYTES_MAX : 1);
    cr_assert(link_is_full(p.guest.link));

    cr_assert(run(&p, host_has_seven));
    cr_assert_not(p.host.out_of_order);
    cr_assert_not(link_is_full(p.guest.link));
    cr_assert_eq(p.guest.drains, 1);
    cr_assert_eq(link_stats(p.guest.link)->messages_out, 8, "large frames go alone");
    pair_fini(&p);
}

/* --- back-pressure ---------------------------------------------------------------------------------- */

static bool guest_is_stuck(const struct pair *p)
{
    return p->host.next_req == 11 && link_is_full(p->guest.link);
}

static uint64_t pressed;
#define PRESS_BYTES (64 * KIB)

static void press_hook_cb(void *arg)
{
    struct pair *p = arg;

    if (p->guest.ups == 1 && !link_is_full(p->guest.link) && p->guest.drains == 0)
        send_query(&p->guest, pressed++, PRESS_BYTES);
}

static bool host_has_pressed(const struct pair *p)
{
    return p->host.next_req == pressed;
}

Test(link, a_paused_link_pushes_back_and_loses_nothing, .timeout = 60)
{
    struct pair p;

    pair_init(&p);
    p.host.pause_at = 10;
    host_open(&p);
    guest_open(&p);
    loop_on_turn_end(p.loop, press_hook_cb, &p);

    cr_assert(run(&p, guest_is_stuck));
    cr_assert_not(run_ms(&p, never, 200));

    /* What is under way is bounded: the inbox, a socket's buffer, and what the sender holds. */
    cr_assert_eq(p.host.next_req, 11, "nothing is handed up while paused");
    cr_assert_leq(link_pending_bytes(p.guest.link), LINK_PENDING_BYTES_MAX + 2 * PRESS_BYTES);
    cr_assert_lt(pressed * PRESS_BYTES, 2 * LINK_PENDING_BYTES_MAX + 4 * MIB);

    link_pause(p.host.link, false);
    cr_assert(run(&p, host_has_pressed));
    cr_assert_not(p.host.out_of_order);
    cr_assert_geq(p.guest.drains, 1);
    pair_fini(&p);
}

/* Many small messages instead of large bytes: the count of messages held is bounded too. */
static bool guest_has_waiting(const struct pair *p)
{
    return link_pending_bytes(p->guest.link) > 0 && p->host.next_req == 11;
}

static void drip_hook_cb(void *arg)
{
    struct pair *p = arg;

    if (p->guest.ups == 1 && pressed < 100000 && link_pending_bytes(p->guest.link) == 0)
        send_query(&p->guest, pressed++, 1000);
    loop_timer_set(p->tick, 0);
}

Test(link, a_paused_link_holds_few_messages, .timeout = 60)
{
    struct pair p;

    pair_init(&p);
    p.host.pause_at = 10;
    host_open(&p);
    guest_open(&p);
    loop_on_turn_end(p.loop, drip_hook_cb, &p);

    cr_assert(run(&p, guest_has_waiting));
    cr_assert_lt(pressed, 2000, "inbox and socket buffer");

    loop_off_turn_end(p.loop, drip_hook_cb, &p);
    link_pause(p.host.link, false);
    cr_assert(run(&p, host_has_pressed));
    cr_assert_not(p.host.out_of_order);
    pair_fini(&p);
}

Test(link, drain_sends_what_is_pending_without_the_loop, .timeout = 60)
{
    struct pair p;

    pair_init(&p);
    host_open(&p);
    guest_open(&p);
    cr_assert(run(&p, both_up));
    for (uint64_t req = 0; req < 7; req++)
        send_query(&p.guest, req, 200 * KIB);
    link_drain(p.guest.link, 2000);

    cr_assert_eq(link_pending_bytes(p.guest.link), 0);
    link_free(p.guest.link);
    p.guest.link = NULL;
    cr_assert(run(&p, host_has_seven), "got %lu", (unsigned long)p.host.next_req);
    pair_fini(&p);
}

/* --- a peer that lies --------------------------------------------------------------------------------- */

/* A socket in the guest's place that speaks nng's ipc framing by hand: a greeting of 8 bytes each way (version
 * 0, PAIR0 is protocol 16), then for each message a byte 1 and its length in 64 bits. Not an nng socket, because closing one
 * whose pipe is being closed from the other side can hang in 1.5.2. */
static int raw_connect(const struct pair *p)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    struct timeval timeout = {.tv_sec = 10};
    uint8_t greeting[8];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/s", p->dir);
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)), 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
    cr_assert_eq(write(fd, "\0SP\0\0\x10\0\0", 8), 8);
    cr_assert_eq(recv(fd, greeting, 8, MSG_WAITALL), 8);
    return fd;
}

static bool host_waits_for_hello(const struct pair *p)
{
    return link_state(p->host.link) == LINK_HELLO;
}

/* Until the host takes it: nng refuses the next one while it is still taking the last one down. */
static int raw_dial(struct pair *p)
{
    for (unsigned tries = 0; tries < 50; tries++) {
        int fd = raw_connect(p);

        if (run_ms(p, host_waits_for_hello, 200))
            return fd;
        close(fd);
    }
    cr_assert_fail("the host takes nobody");
    return -1;
}

static void raw_send_bytes(int fd, const void *data, size_t len)
{
    uint8_t head[9] = {1};

    for (unsigned i = 0; i < 8; i++)
        head[8 - i] = (uint8_t)((uint64_t)len >> (8 * i));
    cr_assert_eq(write(fd, head, sizeof(head)), (ssize_t)sizeof(head));
    cr_assert_eq(write(fd, data, len), (ssize_t)len);
}

static void raw_send(int fd, struct frame *frame, uint64_t seq)
{
    struct buf out = BUF_INIT;

    frame->seq = seq;
    frame_encode(&out, frame);
    raw_send_bytes(fd, out.data, out.len);
    buf_fini(&out);
}

static void raw_hello(int s, uint64_t version)
{
    raw_send(s, FRAME(hello, HELLO, .version = version, .role = ROLE_GATEWAYD, .instance = 9, .slot = SLOT), 0);
}

static uint64_t faults_expected;

static bool host_has_faults(const struct pair *p)
{
    return link_stats(p->host.link)->malformed + link_stats(p->host.link)->refused_hellos >= faults_expected;
}

static bool host_is_up(const struct pair *p)
{
    return link_state(p->host.link) == LINK_UP;
}

static bool host_is_down(const struct pair *p)
{
    return p->host.ups == p->host.downs && link_state(p->host.link) == LINK_DOWN && p->host.ups > 0;
}

static bool host_has_nobody(const struct pair *p)
{
    return link_state(p->host.link) == LINK_DOWN;
}

static void assert_closed(struct pair *p, int s)
{
    faults_expected++;
    cr_assert(run(p, host_has_faults));
    cr_assert(run(p, host_has_nobody)); /* at once, or after the pause of a refused HELLO */
    close(s);
}

Test(link, lies_close_the_pipe_and_nothing_else, .timeout = 60)
{
    struct pair p;
    int s;
    uint8_t garbage[512];
    struct rand rand;

    pair_init(&p);
    host_open(&p);

    s = raw_dial(&p); /* another version */
    raw_hello(s, FRAMES_VERSION + 1);
    assert_closed(&p, s);
    cr_assert_eq(link_stats(p.host.link)->refused_hellos, 1);

    s = raw_dial(&p); /* no HELLO first */
    raw_send(s, FRAME(query, QUERY, .req = 1), 0);
    assert_closed(&p, s);

    s = raw_dial(&p); /* seq does not begin at 0 */
    raw_send(s, FRAME(hello, HELLO, .version = FRAMES_VERSION, .role = ROLE_GATEWAYD, .slot = SLOT), 1);
    assert_closed(&p, s);
    cr_assert_eq(p.host.ups, 0);

    s = raw_dial(&p); /* a second HELLO */
    raw_hello(s, FRAMES_VERSION);
    raw_send(s, FRAME(hello, HELLO, .version = FRAMES_VERSION, .role = ROLE_GATEWAYD, .slot = SLOT), 1);
    assert_closed(&p, s);
    cr_assert_eq(p.host.ups, 1);

    s = raw_dial(&p); /* a frame is missing */
    raw_hello(s, FRAMES_VERSION);
    raw_send(s, FRAME(query, QUERY, .req = 0), 2);
    assert_closed(&p, s);

    s = raw_dial(&p); /* not for a gateway to say */
    raw_hello(s, FRAMES_VERSION);
    raw_send(s, FRAME(apply, APPLY, .index = 1), 1);
    assert_closed(&p, s);

    s = raw_dial(&p); /* an empty message */
    raw_hello(s, FRAMES_VERSION);
    raw_send_bytes(s, "", 0);
    assert_closed(&p, s);
    cr_assert_eq(p.host.next_req, 0, "none of it reached the owner");

    p.host.frame_answer = E_INVALID; /* the owner does not like a frame */
    s = raw_dial(&p);
    raw_hello(s, FRAMES_VERSION);
    raw_send(s, FRAME(query, QUERY, .req = 0), 1);
    assert_closed(&p, s);

    rand_seed(&rand, 3);
    for (unsigned i = 0; i < 20; i++) {
        for (size_t j = 0; j < sizeof(garbage); j++)
            garbage[j] = (uint8_t)rand_u64(&rand);
        s = raw_dial(&p);
        if (i % 2)
            raw_hello(s, FRAMES_VERSION);
        raw_send_bytes(s, garbage, 1 + rand_below(&rand, sizeof(garbage) - 1));
        assert_closed(&p, s);
    }
    cr_assert_eq(p.host.ups, p.host.downs);

    p.host.frame_answer = 0; /* and it still serves who behaves */
    p.guest.send_in_up = 7;
    guest_open(&p);
    cr_assert(run(&p, host_has_seven));
    pair_fini(&p);
}

Test(link, a_message_over_the_limit_closes_the_pipe, .timeout = 60)
{
    struct pair p;
    int s;
    static const uint8_t head[9] = {1, 0, 0, 0, 0, 1, 0, 0, 1}; /* 16 MiB + 1 */

    pair_init(&p);
    host_open(&p);
    s = raw_dial(&p);
    raw_hello(s, FRAMES_VERSION);
    cr_assert(run(&p, host_is_up));
    cr_assert_eq(write(s, head, sizeof(head)), (ssize_t)sizeof(head)); /* the claim is enough */

    cr_assert(run(&p, host_is_down));
    cr_assert_eq(link_stats(p.host.link)->malformed, 0, "nng refused it before it was read");
    close(s);
    pair_fini(&p);
}

Test(link, a_silent_peer_is_closed, .timeout = 60)
{
    struct pair p;
    int s;
    uint64_t start_ms;

    pair_init(&p);
    host_open(&p);
    s = raw_dial(&p);
    start_ms = clock_now_ms();
    assert_closed(&p, s);

    cr_assert_geq(clock_now_ms() - start_ms, LINK_HELLO_MS_MAX - 500);
    cr_assert_eq(link_stats(p.host.link)->refused_hellos, 1);
    pair_fini(&p);
}

Test(link, a_second_peer_on_a_taken_slot_is_turned_away, .timeout = 60)
{
    struct pair p;
    struct end intruder = {0};

    pair_init(&p);
    host_open(&p);
    guest_open(&p);
    cr_assert(run(&p, both_up));
    end_open(&p, &intruder, guest_conf, (struct fr_hello){.instance = 66});
    cr_assert_not(run_ms(&p, never, 300));

    cr_assert_eq(intruder.ups, 0);
    cr_assert_eq(p.host.downs + p.guest.downs, 0);
    send_query(&p.guest, 0, 1);
    cr_assert_not(run_ms(&p, never, 50));
    cr_assert_eq(p.host.next_req, 1);
    link_free(intruder.link);
    pair_fini(&p);
}

/* nng 1.5.2 stops accepting, or dialing, when the other side leaves in the middle of its handshake. */
Test(link, peers_that_leave_in_the_handshake_do_not_stop_the_listener, .timeout = 60)
{
    struct pair p;
    struct sockaddr_un sun = {.sun_family = AF_UNIX};

    pair_init(&p);
    host_open(&p);
    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/s", p.dir);
    for (unsigned i = 0; i < 60; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);

        cr_assert_eq(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
        if (i % 3 == 1)
            cr_assert_eq(write(fd, "\0SP", 3), 3);
        if (i % 3 == 2)
            cr_assert_eq(write(fd, "GET / HTTP/1.1\r\n\r\n", 18), 18);
        close(fd);
    }
    guest_open(&p);
    cr_assert(run(&p, both_up));
    pair_fini(&p);
}

Test(link, listeners_that_leave_in_the_handshake_do_not_stop_the_dialer, .timeout = 60)
{
    struct pair p;
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    uint64_t start_ms;

    pair_init(&p);
    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/s", p.dir);
    cr_assert_eq(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
    cr_assert_eq(listen(fd, 5), 0);
    guest_open(&p);
    for (unsigned i = 0; i < 2; i++) {
        int peer;

        cr_assert_not(run_ms(&p, never, 1200)); /* long enough to notice, and to dial anew */
        peer = accept(fd, NULL, NULL);
        cr_assert_geq(peer, 0);
        close(peer);
    }
    close(fd);

    host_open(&p); /* removes the socket file */
    start_ms = clock_now_ms();
    cr_assert(run(&p, both_up));
    cr_assert_lt(clock_now_ms() - start_ms, 2500);
    pair_fini(&p);
}

/* --- other processes ------------------------------------------------------------------------------------ */

/* A host in a process of its own, forked before this process used nng; it waits for a byte on fd. */
static pid_t fork_host(const struct pair *p, int fd, uint64_t instance)
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;

    struct pair own = *p;
    char byte;

    if (read(fd, &byte, 1) != 1)
        _exit(9);
    own.loop = loop_new();
    own.host.echo = true;
    end_open(&own, &own.host, host_conf, (struct fr_hello){.instance = instance});
    loop_run(own.loop);
    _exit(0);
}

static bool guest_is_up(const struct pair *p)
{
    return p->guest.ups > p->guest.downs;
}

static bool guest_is_down(const struct pair *p)
{
    return p->guest.ups == p->guest.downs;
}

static uint64_t echoes_expected;

static bool guest_has_echoes(const struct pair *p)
{
    return p->guest.next_req == echoes_expected;
}

Test(link, a_killed_peer_comes_back_as_a_new_instance, .timeout = 60)
{
    enum { LIVES = 5 };
    struct pair p = {0};
    int pipes[LIVES][2];
    pid_t pids[LIVES];

    snprintf(p.dir, sizeof(p.dir), "/tmp/trine-link-XXXXXX");
    cr_assert_not_null(mkdtemp(p.dir));
    snprintf(p.url, sizeof(p.url), "ipc://%s/s", p.dir);
    log_init("test_link", LOG_L_ERROR);
    for (unsigned life = 0; life < LIVES; life++) {
        cr_assert_eq(pipe(pipes[life]), 0);
        pids[life] = fork_host(&p, pipes[life][0], 100 + life);
    }
    p.loop = loop_new();
    p.tick = loop_timer_new(p.loop, tick_cb, &p);
    loop_on_turn_end(p.loop, check_hook_cb, &p);
    guest_open(&p);

    for (unsigned life = 0; life < LIVES; life++) {
        cr_assert_eq(write(pipes[life][1], "g", 1), 1);
        cr_assert(run(&p, guest_is_up), "life %u", life);
        cr_assert_eq(p.guest.peer_instance, 100 + life);
        echoes_expected = 1000;
        for (uint64_t req = 0; req < 1000; req++)
            send_query(&p.guest, req, 100);
        cr_assert(run(&p, guest_has_echoes));

        /* Killed while it does not read and much is under way: none of it may reach the next life. */
        kill(pids[life], SIGSTOP);
        for (uint64_t req = 1000; req < 1040; req++)
            send_query(&p.guest, req, PRESS_BYTES);
        cr_assert_not(run_ms(&p, never, 30));
        kill(pids[life], SIGKILL);
        cr_assert_eq(waitpid(pids[life], NULL, 0), pids[life]);
        cr_assert(run(&p, guest_is_down), "life %u", life);
        cr_assert_eq(link_pending_bytes(p.guest.link), 0);
    }
    cr_assert_eq(p.guest.ups, LIVES, "each life came up once, at the first try");
    cr_assert_not(p.guest.out_of_order);
    cr_assert_eq(link_stats(p.guest.link)->malformed, 0);
    pair_fini(&p);
}
