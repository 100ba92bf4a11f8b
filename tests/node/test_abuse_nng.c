/* abuse_nng - the daemons' own sockets: who may open them (the node's user) is trusted with nothing but that. Bytes that are no
 * SP handshake, messages that are no frames, frames that lie, on free slots and on taken ones, on raftd, stored and the native door.
 * After each, clients are served as before; at the end siblings that restart find their doors open. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/rand.h"
#include "proto/command.h"
#include "proto/frames.h"
#include "proto/names.h"
#include "proto/pack.h"
#include "tests/lib/raw.h"
#include "tests/lib/witness.h"

/* nng's protocol numbers in the SP handshake. */
enum { SP_PAIR = 0x10, SP_PUB = 0x20, SP_SUB = 0x21, SP_REQ = 0x30, SP_REP = 0x31 };

static struct node node;
static struct witness witness;
static struct rand rnd;
static struct buf out, answer;

static void path_of(char path[static 256], const char *socket)
{
    snprintf(path, 256, "%s/sock/%s", node.dir, socket);
}

/* The socket, again and again for 3 s: a listener that met bad bytes is renewed within a moment (proto/wire_end.h). */
static int dial(const char *socket)
{
    char path[256];
    uint64_t until = clock_now_ms() + 3000;
    path_of(path, socket);
    int fd;
    while ((fd = raw_connect_unix(path)) < 0 && clock_now_ms() < until)
        usleep(10000);
    return fd;
}

static bool handshake(int fd, unsigned protocol)
{
    uint8_t hello[8] = {0, 'S', 'P', 0, 0, (uint8_t)protocol, 0, 0};
    buf_reset(&answer);
    return raw_send(fd, slice_of(hello, 8)) && raw_read_until(fd, &answer, "SP", 1000);
}

/* The other side of a link says HELLO first thing. To a second peer, while the one before is not gone for nng, it says nothing. */
static bool is_attached(int fd)
{
    return answer.len > 8 || raw_read_until(fd, &answer, "\1", 1000);
}

/* Connected and past the handshake; -1 if it cannot be had within 5 s. */
static int dial_sp(const char *socket, unsigned protocol)
{
    for (uint64_t until = clock_now_ms() + 5000; clock_now_ms() < until; usleep(50000)) {
        int fd = dial(socket);
        if (fd >= 0 && handshake(fd, protocol) && (protocol != SP_PAIR || strstr(socket, "native") || is_attached(fd)))
            return fd;
        if (fd >= 0)
            close(fd);
    }
    return -1;
}

static bool send_sized(int fd, uint64_t size, struct slice bytes)
{
    uint8_t head[9] = {1};
    for (int i = 0; i < 8; i++)
        head[1 + i] = (uint8_t)(size >> (56 - 8 * i));
    return raw_send(fd, slice_of(head, 9)) && raw_send(fd, bytes);
}

static bool send_message(int fd, struct slice bytes)
{
    return send_sized(fd, bytes.len, bytes);
}

static struct slice random_bytes(size_t max)
{
    static uint8_t bytes[65536];
    size_t len = 1 + (size_t)rand_below(&rnd, MIN(max, sizeof(bytes)) - 1);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)rand_u64(&rnd);
    return slice_of(bytes, len);
}

/* --- below the frames ------------------------------------------------------------------------------ */

static void no_handshake(const char *socket)
{
    for (int i = 0; i < 20; i++) {
        int fd = dial(socket);
        if (fd < 0)
            break;
        if (i % 4 == 0)
            raw_send(fd, random_bytes(200));
        else if (i % 4 == 1)
            raw_send(fd, slice_of("\0SP", 3));
        else if (i % 4 == 2)
            raw_send(fd, slice_of("\0SP\0\0\xff\0\0", 8));
        close(fd);
    }
}

static void sizes_that_lie(const char *socket, unsigned protocol)
{
    static const uint64_t sizes[] = {UINT64_MAX, INT64_MAX, (uint64_t)1 << 40, 17 << 20, 0};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        int fd = dial_sp(socket, protocol);
        if (!CHECK(fd >= 0, "%s is open", socket))
            return;
        send_sized(fd, sizes[i], SLICE_LIT("no such many"));
        usleep(20000);
        close(fd);
    }
}

/* --- frames ------------------------------------------------------------------------------------------ */

static void hello_add(uint64_t version, uint64_t role, uint64_t slot)
{
    struct frame f = {.type = FR_HELLO, .seq = 0, .hello = {.version = version, .role = role, .instance = rand_u64(&rnd), .slot = slot}};
    frame_encode(&out, &f);
}

static void frame_add(struct frame *f, uint64_t seq)
{
    f->seq = seq;
    frame_encode(&out, f);
}

static bool send_out(int fd)
{
    bool ok = send_message(fd, buf_slice(&out));
    buf_reset(&out);
    return ok;
}

static bool is_closed(int fd)
{
    return raw_closed(fd, NULL, 3000);
}

static void bad_hellos(const char *socket, uint64_t slot)
{
    static const struct {
        uint64_t version, role, slot_off;
    } rows[] = {{FRAMES_VERSION + 1, ROLE_GATEWAYD, 0}, {FRAMES_VERSION, ROLE_RAFTD, 0}, {FRAMES_VERSION, 0, 0},
                {FRAMES_VERSION, UINT64_MAX, 0},         {FRAMES_VERSION, ROLE_GATEWAYD, 1}, {FRAMES_VERSION, ROLE_GATEWAYD, UINT64_MAX}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int fd = dial_sp(socket, SP_PAIR);
        hello_add(rows[i].version, rows[i].role, slot + rows[i].slot_off);
        CHECK(fd >= 0 && send_out(fd) && is_closed(fd), "%s: HELLO %zu is refused", socket, i);
        close(fd);
    }
}

static void no_frames(const char *socket, uint64_t slot)
{
    for (int i = 0; i < 12; i++) {
        int fd = dial_sp(socket, SP_PAIR);
        if (!CHECK(fd >= 0, "%s is open", socket))
            return;
        if (i % 2) {
            hello_add(FRAMES_VERSION, ROLE_GATEWAYD, slot);
            send_out(fd);
        }
        buf_reset(&out);
        if (i < 4)
            buf_add_slice(&out, random_bytes(4000));
        else if (i < 6) /* an array of 4 billion */
            buf_add(&out, "\xdd\xff\xff\xff\xff", 5);
        else if (i < 8) /* a bin of 4 GB */
            buf_add(&out, "\x93\x17\x01\xc6\xff\xff\xff\xff", 8);
        else if (i < 10)
            for (int k = 0; k < 60000; k++)
                buf_add_byte(&out, 0x91);
        else
            hello_add(FRAMES_VERSION, ROLE_GATEWAYD, slot), hello_add(FRAMES_VERSION, ROLE_GATEWAYD, slot);
        send_out(fd);
        CHECK(is_closed(fd), "%s: case %d ends the link", socket, i);
        close(fd);
    }
}

/* As a gateway that both took for one: what it may say, with nonsense in it. */
static void lies_to_raftd(void)
{
    struct buf command = BUF_INIT;
    int64_t malformed = node_metric(&node, "trine_stored_malformed_entries_total");
    for (int i = 0; i < 8; i++) {
        int fd = dial_sp("raftd.ipc.5", SP_PAIR);
        if (!CHECK(fd >= 0))
            return;
        hello_add(FRAMES_VERSION, ROLE_GATEWAYD, 5);
        send_out(fd);
        buf_reset(&command);
        command_encode(&command, &(struct command){.kind = i % 2 ? 200 : COMMAND_TXN, .slot = 99, .req = 1, .body = random_bytes(100)});
        if (i == 0)
            frame_add(FRAME(propose, PROPOSE, .req = 1, .command = random_bytes(100)), 1);
        else if (i == 1)
            frame_add(FRAME(propose, PROPOSE, .req = 1, .command = SLICE_EMPTY), 1);
        else if (i < 4)
            frame_add(FRAME(propose, PROPOSE, .req = 1, .command = buf_slice(&command)), 1);
        else if (i < 6)
            frame_add(FRAME(read, READ, .req = 1, .command = i % 2 ? buf_slice(&command) : random_bytes(50)), 1);
        else if (i == 6)
            frame_add(FRAME(status, STATUS, .req = 1, .what = 77, .slot = UINT64_MAX, .facts = random_bytes(500)), 1);
        else
            frame_add(FRAME(applied, APPLIED, .applied = UINT64_MAX, .durable = UINT64_MAX, .room = UINT64_MAX), 1); /* not a gateway's to say */
        send_out(fd);
        raw_closed(fd, NULL, 100);
        close(fd);
    }
    buf_fini(&command);
    witness_check(&witness, "lies to raftd");
    CHECK(node_metric(&node, "trine_stored_malformed_entries_total") > malformed, "entries that are no commands are skipped and counted");
}

static void lies_to_stored(void)
{
    struct buf command = BUF_INIT;
    struct slice zero = slice_of("\0", 1);
    command_encode(&command, &(struct command){.kind = COMMAND_RANGE, .slot = 99, .req = 1, .body = SLICE_LIT("\xff\xff\xff")});
    struct frame frames[] = {
        *FRAME(query, QUERY, .req = 1, .command = SLICE_LIT("\xc1 no command")),
        *FRAME(query, QUERY, .req = 2, .command = buf_slice(&command)),
        *FRAME(query, QUERY, .req = 3, .command = SLICE_EMPTY),
        *FRAME(more, MORE, .req = 77),
        *FRAME(forget, FORGET, .req = UINT64_MAX),
        *FRAME(watch, WATCH, .token = 1, .range_id = 1, .want_prev = UINT64_MAX, .key = SLICE_EMPTY, .range_end = zero),
        *FRAME(watch, WATCH, .token = 1, .range_id = 1, .key = SLICE_LIT("z"), .range_end = SLICE_LIT("a")),
        *FRAME(unwatch, UNWATCH, .range_id = 12345),
        *FRAME(history, HISTORY, .token = 1, .from = INT64_MIN, .key = zero, .range_end = zero),
        *FRAME(history, HISTORY, .token = 1, .from = 0, .key = SLICE_EMPTY, .range_end = SLICE_EMPTY),
        *FRAME(history, HISTORY, .token = 1, .from = INT64_MAX, .key = zero, .range_end = zero),
        *FRAME(history, HISTORY, .token = 1, .from = 1, .want_prev = 1, .key = zero, .range_end = zero),
        *FRAME(status, STATUS, .req = 1, .what = 77, .slot = UINT64_MAX, .facts = SLICE_LIT("not\nmetrics")),
        *FRAME(status, STATUS, .req = 1, .what = STATUS_API, .slot = 16, .term = UINT64_MAX, .leader = 1, .commit = UINT64_MAX),
        *FRAME(apply, APPLY, .index = 1, .command = buf_slice(&command)), /* not a gateway's to say */
        *FRAME(serve, SERVE, .slot = 1, .index = UINT64_MAX, .req = 1, .command = buf_slice(&command)),
        *FRAME(lead, LEAD, .term = 99, .leader = 99),
    };
    for (size_t i = 0; i < ARRAY_LEN(frames); i++) {
        int fd = dial_sp("stored.ipc.5", SP_PAIR);
        if (!CHECK(fd >= 0))
            return;
        hello_add(FRAMES_VERSION, ROLE_GATEWAYD, 5);
        send_out(fd);
        frame_add(&frames[i], 1);
        send_out(fd);
        raw_closed(fd, NULL, 50);
        close(fd);
    }
    buf_fini(&command);
    witness_check(&witness, "lies to stored");
    CHECK(node_metric_sum(&node, "trine_stored_link_malformed_total", "gateway 5") >= 3, "frames that are not a gateway's to say");
}

/* --- the native door ----------------------------------------------------------------------------------- */

static bool native_ask(int fd, struct slice request, const char *wanted)
{
    struct buf m = BUF_INIT;
    buf_add(&m, "\x80\0\0\1", 4); /* REQ's header: the request's number */
    buf_add_slice(&m, request);
    buf_reset(&answer);
    bool ok = send_message(fd, buf_slice(&m)) && raw_read_until(fd, &answer, wanted, 3000);
    buf_fini(&m);
    return ok;
}

static bool native_works(void)
{
    struct buf m = BUF_INIT;
    int fd = dial_sp("native.ipc", SP_REQ);
    pack_map(&m, 2);
    pack_cstr(&m, "op");
    pack_cstr(&m, "range");
    pack_cstr(&m, "key");
    pack_bin(&m, SLICE_LIT("witness"));
    bool ok = fd >= 0 && native_ask(fd, buf_slice(&m), "witness");
    close(fd);
    buf_fini(&m);
    return ok;
}

static void native_door(void)
{
    CHECK(native_works());
    no_handshake("native.ipc");
    no_handshake("events.ipc");
    sizes_that_lie("native.ipc", SP_REQ);
    sizes_that_lie("events.ipc", SP_SUB);
    int fd = dial_sp("native.ipc", SP_REQ);
    send_message(fd, SLICE_LIT("no number of a request"));
    close(fd);
    fd = dial_sp("native.ipc", SP_PAIR);
    CHECK(fd < 0 || !native_ask(fd, SLICE_LIT("\x80"), "error"), "another protocol");
    close(fd);

    static const struct slice bad[] = {SLICE_LIT(""), SLICE_LIT("\xc0"), SLICE_LIT("\x80"), SLICE_LIT("\x81\xa2op\xa4what"), SLICE_LIT("\x81\xa2op\xc0"),
                                       SLICE_LIT("\xdf\xff\xff\xff\xff"), SLICE_LIT("\x82\xa2op\xa5range\xa3key\xc6\xff\xff\xff\xff"), SLICE_LIT("\x82\xa2op\xa5range\xa3key\x93\1\2\3"),
                                       SLICE_LIT("\x82\xa2op\xa3txn\xa7success\xdd\xff\xff\xff\xff"), SLICE_LIT("\x81\xa2op\xa5rangetrailing")};
    fd = dial_sp("native.ipc", SP_REQ);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK(native_ask(fd, bad[i], "error"), "request %zu is answered with an error", i);
    struct buf deep = BUF_INIT;
    buf_add_str(&deep, "\x82\xa3key");
    for (int i = 0; i < 500000; i++)
        buf_add_byte(&deep, 0x91);
    CHECK(native_ask(fd, buf_slice(&deep), "error"), "an array of arrays of ...");
    buf_reset(&deep);
    buf_add_str(&deep, "\x82\xa2op\xa3txn\xa7success");
    for (int i = 0; i < 20000; i++)
        buf_add_str(&deep, "\x91\x81\xabrequest_txn\x81\xa7success");
    CHECK(native_ask(fd, buf_slice(&deep), "error"), "transactions in transactions in ...");
    buf_fini(&deep);
    for (int i = 0; i < 300; i++)
        CHECK(native_ask(fd, random_bytes(300), "error"));
    close(fd);
    for (int i = 0; i < 200; i++) { /* asked, and gone before the answer */
        fd = dial("native.ipc");
        if (fd < 0 || !handshake(fd, SP_REQ)) {
            close(fd);
            continue;
        }
        send_message(fd, SLICE_LIT("\x80\0\0\1\x81\xa2op\xa6status"));
        close(fd);
    }
    CHECK(native_works(), "the door is open");
    witness_check(&witness, "nonsense at the native door");
}

static void taken_slots(void)
{
    static const char *const sockets[] = {"raftd.ipc", "raftd.ipc.1", "stored.ipc.1"};
    for (size_t i = 0; i < ARRAY_LEN(sockets); i++) {
        no_handshake(sockets[i]);
        int fd = dial(sockets[i]);
        if (fd >= 0) {
            handshake(fd, SP_PAIR);
            hello_add(FRAMES_VERSION, ROLE_GATEWAYD, 1);
            send_out(fd);
            raw_closed(fd, NULL, 200);
            close(fd);
        }
    }
    witness_check(&witness, "strangers on taken slots");
}

/* The doors were spoilt while nobody needed them; now somebody does. */
static void restarts(void)
{
    static const char *const daemons[] = {"gatewayd", "stored", "raftd"};
    for (size_t i = 0; i < ARRAY_LEN(daemons); i++) {
        long pid = node_pid(&node, daemons[i]);
        node_kill(&node, daemons[i]);
        node_await(&node, daemons[i], pid);
        CHECK(node_healthy(&node), "%s is back", daemons[i]);
    }
    witness_stop(&witness);
    witness_start(&witness, &node);
    witness_check(&witness, "restarts");
    CHECK(native_works());
}

int main(void)
{
    rand_seed(&rnd, 20260102);
    node_start(&node, NULL);
    witness_start(&witness, &node);
    witness_check(&witness, "nothing");
    no_handshake("raftd.ipc.2");
    no_handshake("stored.ipc.2");
    sizes_that_lie("raftd.ipc.3", SP_PAIR);
    sizes_that_lie("stored.ipc.3", SP_PAIR);
    witness_check(&witness, "bytes below the frames");
    bad_hellos("raftd.ipc.4", 4);
    bad_hellos("stored.ipc.4", 4);
    no_frames("raftd.ipc.16", 16);
    no_frames("stored.ipc.16", 16);
    witness_check(&witness, "messages that are no frames");
    CHECK(node_metric_sum(&node, "trine_raftd_link_malformed_total", "gateway 16") >= 6);
    CHECK(node_metric_sum(&node, "trine_raftd_link_refused_hellos_total", "gateway 4") >= 6);
    CHECK(node_metric_sum(&node, "trine_stored_link_refused_hellos_total", "gateway 4") >= 6);
    lies_to_raftd();
    lies_to_stored();
    native_door();
    taken_slots();
    restarts();
    witness_stop(&witness);
    node_stop(&node);
    return check_summary();
}
