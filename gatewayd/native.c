/* native - the nng door: requests in msgpack on a REP socket, live events on a PUB socket.
 *
 * A request is a map: "op" and the fields of the API's request message under their proto names (native_op.h). The
 * answer is the response message as a map, or {"error": text, "code": grpc status}. Requests take the same way as
 * gRPC's (kv.c, lease.c, pending.h); only bytes change their dress here. `history` is ours: {key, range_end,
 * start_revision, prev_kv} -> {header, next, compact_revision, events}. gatewayd.8 is the reference for clients.
 *
 * An event is published as its key, a newline, and the map {type, revision, key, value, create_revision, version,
 * lease} (value_size instead of a large value): the topic of nng's PUB is what a message begins with, so that a
 * subscription to "/config/" is a watch of that prefix.
 *
 * This is the one other file that knows nng (proto/link.c is for siblings). Threads: nng's callbacks only move a
 * finished context to the inbox and wake the loop; everything else runs on the loop's thread. Contexts are never
 * closed. */
#include <pthread.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <nng/nng.h>
#include <nng/protocol/pubsub0/pub.h>
#include <nng/protocol/reqrep0/rep.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "etcd/rpc.pb-c.h"
#include "gatewayd/native_op.h"
#include "gatewayd/pbmap.h"
#include "gatewayd/watch.h"
#include "proto/api.h"
#include "proto/pack.h"
#include "proto/pb.h"
#include "proto/wire_end.h"

/* Native requests under way at once; further ones wait in nng, which then pushes back. */
#define NATIVE_CONTEXTS 64
/* An answer in parts is put together here, because a msgpack answer is one message; a larger one must be asked for with
 * limits. */
#define NATIVE_ANSWER_BYTES_MAX (64 * MIB)
/* The same of all contexts together; above it the next large answer is refused with "too many requests". */
#define NATIVE_ANSWERS_BYTES_MAX (256 * MIB)
/* Events waiting for one subscriber before nng drops its next ones (it then fetches them by revision). */
#define NATIVE_PUB_QUEUE 1024
#define NATIVE_PUB_RECEIVE_BYTES_MAX 64
/* nng bounds that queue by messages only; so a larger value is not published, only its size, and a larger key not at
 * all. */
#define NATIVE_PUB_BYTES_MAX (64 * KIB)

struct native_call {
    struct native_door *door;
    nng_ctx ctx;
    nng_aio *aio;
    bool sending;               /* the aio's present work is a send */
    struct native_call *next;   /* in the inbox */
    const struct native_op *op; /* of the request under way */
    uint64_t req;
    struct buf answer; /* parts of a large answer; the events of a history */
    uint32_t events;
    struct history_reader reader;
};

struct pub_pipe {
    int id;
    bool is_in; /* a subscriber, and not somebody who is about to be refused */
};

/* A listener, and the probe that is under way at it. */
struct door_end {
    struct wire_end wire;
    int probe; /* a connection that has not been looked at yet; -1: none */
};

struct native_door {
    struct gatewayd *g;
    nng_socket rep, pub;
    struct native_call calls[NATIVE_CONTEXTS];
    pthread_mutex_t lock;
    struct door_end ends[2]; /* of rep and pub */
    struct deadline check;
    struct native_call *inbox; /* received, not yet taken by the loop; oldest first */
    struct native_call **inbox_end;
    struct loop_wake *wake;
    struct pub_pipe *pipes; /* of the PUB socket; under lock */
    size_t pipe_count, subscriber_count;
    struct buf scratch;
};

/* --- answering -------------------------------------------------------------------------------- */

static void native_send(struct native_call *c, const struct buf *bytes)
{
    nng_msg *msg;
    if (nng_msg_alloc(&msg, 0) != 0 || nng_msg_append(msg, bytes->data, bytes->len) != 0)
        fatalx("native: out of memory for an answer of %zu bytes", bytes->len);
    buf_fini(&c->answer);
    c->sending = true;
    nng_aio_set_msg(c->aio, msg);
    nng_ctx_send(c->ctx, c->aio);
}

static void native_fail(struct native_call *c, int err, struct slice text)
{
    struct buf b = BUF_INIT;
    pack_map(&b, 2);
    pack_cstr(&b, "error");
    pack_str(&b, text.len ? text : slice_str(err_text(err)));
    pack_cstr(&b, "code");
    pack_u64(&b, (uint64_t)err_grpc_status(err));
    native_send(c, &b);
    buf_fini(&b);
}

static void native_reply(struct native_call *c, struct slice message)
{
    struct buf b = BUF_INIT;
    int err = pbmap_from_message(c->op->response, message, &b);
    if (err)
        native_fail(c, err, SLICE_EMPTY);
    else
        native_send(c, &b);
    buf_fini(&b);
}

static size_t answers_bytes(const struct native_door *d)
{
    size_t bytes = 0;
    for (size_t i = 0; i < NATIVE_CONTEXTS; i++)
        bytes += d->calls[i].answer.len;
    return bytes;
}

static void native_answer(void *arg, const struct answer *a)
{
    struct native_call *c = arg;
    if (a->err) {
        native_fail(c, a->err, a->text);
        return;
    }
    if (!a->more && c->answer.len == 0) {
        native_reply(c, a->body);
        return;
    }
    bool too_big = a->total > NATIVE_ANSWER_BYTES_MAX || c->answer.len + a->body.len > NATIVE_ANSWER_BYTES_MAX;
    if (too_big || (a->first && answers_bytes(c->door) + a->total > NATIVE_ANSWERS_BYTES_MAX)) {
        if (a->more)
            pending_cancel(c->door->g, a->req);
        if (too_big)
            native_fail(c, E_TOO_BIG, SLICE_LIT("the answer is larger than 64 MiB: use limit"));
        else
            native_fail(c, E_REQUEST_TOO_MANY_REQUESTS, SLICE_EMPTY);
        return;
    }
    buf_add_slice(&c->answer, a->body);
    if (a->more)
        pending_more(c->door->g, a->req);
    else
        native_reply(c, buf_slice(&c->answer));
}

/* --- history ---------------------------------------------------------------------------------- */

static void pack_kv(struct buf *b, struct slice bytes)
{
    if (pbmap_from_message(&mvccpb__key_value__descriptor, bytes, b) != 0)
        pack_nil(b);
}

static void history_past(struct history_reader *r, const struct fr_past *m)
{
    struct native_call *c = container_of(r, struct native_call, reader);
    pack_map(&c->answer, m->prev.len ? 3 : 2);
    pack_cstr(&c->answer, "type");
    pack_cstr(&c->answer, m->type ? "DELETE" : "PUT");
    pack_cstr(&c->answer, "kv");
    pack_kv(&c->answer, m->kv);
    if (m->prev.len) {
        pack_cstr(&c->answer, "prev_kv");
        pack_kv(&c->answer, m->prev);
    }
    c->events++;
}

static void history_end(struct history_reader *r, int err, int64_t next, int64_t compact_rev, int64_t store_rev)
{
    struct native_call *c = container_of(r, struct native_call, reader);
    const struct gatewayd *g = c->door->g;
    struct buf b = BUF_INIT;
    if (err) {
        native_fail(c, err, SLICE_EMPTY);
        return;
    }
    pack_map(&b, 4);
    pack_cstr(&b, "header");
    pack_map(&b, 4);
    pack_cstr(&b, "cluster_id");
    pack_u64(&b, g->cluster_id);
    pack_cstr(&b, "member_id");
    pack_u64(&b, g->member_id);
    pack_cstr(&b, "revision");
    pack_i64(&b, store_rev);
    pack_cstr(&b, "raft_term");
    pack_u64(&b, g->term);
    pack_cstr(&b, "next");
    pack_i64(&b, next);
    pack_cstr(&b, "compact_revision");
    pack_i64(&b, MAX(compact_rev, 0));
    pack_cstr(&b, "events");
    pack_array(&b, c->events);
    buf_add_slice(&b, buf_slice(&c->answer));
    native_send(c, &b);
    buf_fini(&b);
}

static int native_history(struct native_call *c, struct slice body)
{
    Etcdserverpb__WatchCreateRequest *m = etcdserverpb__watch_create_request__unpack(NULL, body.len, body.data);
    if (!m)
        return E_MALFORMED_REQUEST;
    struct gatewayd *g = c->door->g;
    int err = 0;
    if (!g->stored_up)
        err = E_UNREACHABLE;
    else if (m->key.len == 0)
        err = E_EMPTY_KEY;
    else if (m->start_revision < 0)
        err = E_COMPACTED;
    else
        feed_read(g->watch, &c->reader, m->start_revision, m->prev_kv, slice_of(m->key.data, m->key.len),
                  slice_of(m->range_end.data, m->range_end.len));
    etcdserverpb__watch_create_request__free_unpacked(m, NULL);
    return err;
}

/* --- requests --------------------------------------------------------------------------------- */

/* The barrier was answered: raftd has told the members as they were when the question came (cluster.c). */
static void native_members(void *arg, const struct answer *a)
{
    struct native_call *c = arg;
    struct buf members = BUF_INIT;
    if (a->err) {
        native_fail(c, a->err, a->text);
        return;
    }
    cluster_encode_members(c->door->g, &members);
    native_reply(c, buf_slice(&members));
    buf_fini(&members);
}

/* The membership or the leadership has changed. */
static void native_changed(void *arg, const struct answer *a)
{
    struct native_call *c = arg;
    struct buf response = BUF_INIT;
    if (a->err) {
        native_fail(c, a->err, a->text);
        return;
    }
    if (c->op->way == NATIVE_CHANGE)
        cluster_encode_change(c->door->g, c->op->kind, a->member, &response);
    native_reply(c, buf_slice(&response));
    buf_fini(&response);
}

/* Field 1, a number: AlarmRequest.action, MemberListRequest.linearizable. */
static uint64_t first_varint(struct slice body)
{
    struct pb_field f;
    uint64_t v = 0;
    while (pb_next(&body, &f) == 1)
        if (f.number == 1)
            v = f.varint;
    return v;
}

/* Whether stored itself says that nobody may not. The others must know whether auth is on. */
static bool stored_checks(enum native_way way)
{
    switch (way) {
    case NATIVE_KV:
    case NATIVE_LEASE:
    case NATIVE_QUERY:
    case NATIVE_ALARM:
    case NATIVE_CHANGE:
    case NATIVE_MOVE_LEADER: return true;
    case NATIVE_STATUS:
    case NATIVE_MEMBER_STATUS:
    case NATIVE_MEMBERS:
    case NATIVE_HISTORY: return false;
    }
    return false;
}

static int native_dispatch(struct native_call *c, struct slice body)
{
    struct gatewayd *g = c->door->g;
    const struct identity *who = &IDENTITY_NONE; /* this door knows no credentials */
    enum command_kind kind = c->op->kind;
    /* kv.c and lease.c know themselves what a learner may serve; of the rest it is the status (spec/semantics.md §17).
     */
    if (g->is_learner && c->op->way > NATIVE_STATUS)
        return E_NOT_SUPPORTED_FOR_LEARNER;
    /* What stored is not asked about by a command is refused here: with auth on this door is closed. */
    int err = identity_check_user(g, who);
    if (err && !(err == E_UNREACHABLE && stored_checks(c->op->way)))
        return err;
    switch (c->op->way) {
    case NATIVE_KV: return kv_submit(g, who, kind, body, native_answer, c, &c->req);
    case NATIVE_LEASE: return lease_submit(g, who, kind, body, native_answer, c, &c->req);
    case NATIVE_STATUS: return pending_status(g, STATUS_API, 0, native_answer, c, &c->req);
    case NATIVE_MEMBER_STATUS: return pending_status(g, STATUS_API, first_varint(body), native_answer, c, &c->req);
    case NATIVE_QUERY: return pending_command(g, who, VIA_QUERY, kind, body, native_answer, c, &c->req);
    case NATIVE_ALARM:
        return pending_command(g, who, first_varint(body) ? VIA_PROPOSE : VIA_READ, kind, body, native_answer, c, &c->req);
    case NATIVE_MEMBERS:
        if (g->member_count == 0 || first_varint(body)) /* linearizable: true */
            return pending_command(g, who, VIA_READ, COMMAND_BARRIER, SLICE_EMPTY, native_members, c, &c->req);
        native_members(c, &(struct answer){.err = OK});
        return 0;
    case NATIVE_CHANGE: return cluster_submit(g, who, c->op->kind, body, native_changed, c, &c->req);
    case NATIVE_MOVE_LEADER: return move_leader_submit(g, who, body, native_changed, c, &c->req);
    case NATIVE_HISTORY: return native_history(c, body);
    }
    return E_UNIMPLEMENTED;
}

static void native_request(struct native_call *c, struct slice request)
{
    struct gatewayd *g = c->door->g;
    struct buf body = BUF_INIT, why = BUF_INIT;
    c->events = 0;
    int err = native_op_read(request, g->message_bytes_max, &c->op, &body, &why);
    if (!err)
        err = g->stopping ? E_STOPPED : native_dispatch(c, buf_slice(&body));
    if (err)
        native_fail(c, err, buf_slice(&why));
    buf_fini(&body);
    buf_fini(&why);
}

/* --- nng's side ------------------------------------------------------------------------------- */

/* On one of nng's threads. */
static void native_aio_cb(void *arg)
{
    struct native_call *c = arg;
    int rv = nng_aio_result(c->aio);
    if (c->sending) {
        if (rv != 0) /* the client is gone: its answer goes with it */
            nng_msg_free(nng_aio_get_msg(c->aio));
        c->sending = false;
        nng_ctx_recv(c->ctx, c->aio);
        return;
    }
    if (rv == NNG_ECLOSED || rv == NNG_ECANCELED)
        return;
    if (rv != 0) {
        nng_ctx_recv(c->ctx, c->aio);
        return;
    }
    pthread_mutex_lock(&c->door->lock);
    c->next = NULL;
    *c->door->inbox_end = c;
    c->door->inbox_end = &c->next;
    pthread_mutex_unlock(&c->door->lock);
    loop_wake(c->door->wake);
}

static void native_woken(void *arg)
{
    struct native_door *d = arg;
    pthread_mutex_lock(&d->lock);
    struct native_call *c = d->inbox;
    d->inbox = NULL;
    d->inbox_end = &d->inbox;
    bool wanted = d->subscriber_count > 0;
    pthread_mutex_unlock(&d->lock);
    /* Before the requests: a subscriber that then asks for history misses nothing between the two. */
    feed_publish(d->g->watch, wanted);
    while (c) {
        struct native_call *next = c->next;
        nng_msg *msg = nng_aio_get_msg(c->aio);
        /* The request's bytes are needed only until it was sent on its way. */
        native_request(c, slice_of(nng_msg_body(msg), nng_msg_len(msg)));
        nng_msg_free(msg);
        c = next;
    }
}

/* ADD_PRE comes first and REM_POST last, for whoever knocks; ADD_POST, between or behind them, only for who was let in.
 */
static void native_pipe_cb(nng_pipe pipe, nng_pipe_ev ev, void *arg)
{
    struct native_door *d = arg;
    int id = nng_pipe_id(pipe);
    size_t at = 0;
    pthread_mutex_lock(&d->lock);
    while (at < d->pipe_count && d->pipes[at].id != id)
        at++;
    bool known = at < d->pipe_count;
    if (ev == NNG_PIPE_EV_ADD_PRE && !known) {
        d->pipes = xrealloc(d->pipes, (d->pipe_count + 1) * sizeof(*d->pipes));
        d->pipes[d->pipe_count++] = (struct pub_pipe){.id = id};
    } else if (ev == NNG_PIPE_EV_ADD_POST && known && !d->pipes[at].is_in) {
        d->pipes[at].is_in = true;
        d->subscriber_count++;
    } else if (ev == NNG_PIPE_EV_REM_POST && known) {
        d->subscriber_count -= d->pipes[at].is_in;
        d->pipes[at] = d->pipes[--d->pipe_count];
    }
    pthread_mutex_unlock(&d->lock);
    if (ev != NNG_PIPE_EV_ADD_PRE)
        loop_wake(d->wake);
}

static void native_publish(struct gatewayd *g, const struct fr_event *m)
{
    struct native_door *d = g->native;
    struct buf *b = &d->scratch;
    struct api_key_value kv;
    nng_msg *msg;
    if (identity_auth_may_be_on(g)) /* nobody knows who listens */
        return;
    if (m->key.len > NATIVE_PUB_BYTES_MAX || api_decode_key_value(m->kv, &kv) != 0)
        return;
    buf_reset(b);
    buf_add_slice(b, m->key);
    buf_add_byte(b, '\n');
    pack_map(b, m->type ? 3 : 7);
    pack_cstr(b, "type");
    pack_cstr(b, m->type ? "DELETE" : "PUT");
    pack_cstr(b, "revision");
    pack_i64(b, m->rev);
    pack_cstr(b, "key");
    pack_bin(b, m->key);
    if (!m->type) {
        if (kv.value.len > NATIVE_PUB_BYTES_MAX) {
            pack_cstr(b, "value_size");
            pack_u64(b, kv.value.len);
        } else {
            pack_cstr(b, "value");
            pack_bin(b, kv.value);
        }
        pack_cstr(b, "create_revision");
        pack_i64(b, kv.create_revision);
        pack_cstr(b, "version");
        pack_i64(b, kv.version);
        pack_cstr(b, "lease");
        pack_i64(b, kv.lease);
    }
    if (nng_msg_alloc(&msg, 0) != 0)
        return;
    /* PUB never waits: a subscriber whose queue is full misses this one, and fetches it by revision. */
    if (nng_msg_append(msg, b->data, b->len) != 0 || nng_sendmsg(d->pub, msg, NNG_FLAG_NONBLOCK) != 0)
        nng_msg_free(msg);
}

/* --- the listeners ----------------------------------------------------------------------------
 * A client that leaves in the middle of nng's handshake ends a listener for good (proto/wire_end.c), and nng's error
 * counters, by which links notice it, also count clients that leave in order. So we knock at our own door, as a client
 * that wants a protocol nobody has: a living listener says its 8 bytes and hangs up, whatever else it has to do. Only
 * on ipc, where it costs nothing. */

#define KNOCK_MS 1000

static int knock(const char *url)
{
    static const uint8_t hello[8] = {0, 'S', 'P', 0, 0, 0x10 /* PAIR0 */, 0, 0};
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strncmp(url, "ipc://", 6) != 0 || strlen(url + 6) >= sizeof(to.sun_path))
        return -1;
    memcpy(to.sun_path, url + 6, strlen(url + 6));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1; /* out of files: nothing can be said about the listener */
    /* A full backlog looks the same as silence: nobody accepts. */
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 && send(fd, hello, sizeof(hello), MSG_NOSIGNAL) < 0)
        log_debug("native: knocking: %s", strerror(errno));
    return fd;
}

static bool is_answered(int fd)
{
    /* nng's transport says hello even when its listener has ended; only a living one goes on to refuse us. */
    uint8_t hello[8];
    return recv(fd, hello, sizeof(hello), 0) == (ssize_t)sizeof(hello) && recv(fd, hello, 1, 0) == 0;
}

static void door_check(struct deadline *deadline, uint64_t now_ms)
{
    struct native_door *d = container_of(deadline, struct native_door, check);
    for (size_t i = 0; i < ARRAY_LEN(d->ends); i++) {
        struct door_end *e = &d->ends[i];
        if (e->probe >= 0) {
            if (!is_answered(e->probe)) {
                log_warnx("native: nobody accepts at %s: listening anew", e->wire.url);
                wire_end_renew(&e->wire);
            }
            close(e->probe);
        }
        e->probe = knock(e->wire.url);
    }
    deadline_set(d->g, deadline, now_ms + KNOCK_MS);
}

static void door_open(struct door_end *e, const char *name, const char *url, nng_socket socket)
{
    wire_end_init(&e->wire, name, url, true, socket);
    wire_end_start(&e->wire);
    e->probe = -1;
}

static void door_close(struct door_end *e)
{
    if (e->probe >= 0)
        close(e->probe);
    wire_end_fini(&e->wire);
}

/* --- life --------------------------------------------------------------------------------------- */

void native_start(struct gatewayd *g)
{
    struct native_door *d = g->native = xcalloc(1, sizeof(*d));
    int rv;
    d->g = g;
    d->inbox_end = &d->inbox;
    pthread_mutex_init(&d->lock, NULL);
    d->wake = loop_wake_new(g->loop, native_woken, d);
    if ((rv = nng_rep0_open(&d->rep)) != 0 || (rv = nng_pub0_open(&d->pub)) != 0)
        fatalx("native: %s", nng_strerror(rv));
    nng_socket_set_size(d->rep, NNG_OPT_RECVMAXSZ, g->message_bytes_max);
    /* Subscribers say nothing: nng filters at their end. Without a limit one could announce a message of 2^63 bytes. */
    nng_socket_set_size(d->pub, NNG_OPT_RECVMAXSZ, NATIVE_PUB_RECEIVE_BYTES_MAX);
    nng_socket_set_int(d->pub, NNG_OPT_SENDBUF, NATIVE_PUB_QUEUE);
    g->watch->publish = native_publish;
    nng_pipe_notify(d->pub, NNG_PIPE_EV_ADD_PRE, native_pipe_cb, d);
    nng_pipe_notify(d->pub, NNG_PIPE_EV_ADD_POST, native_pipe_cb, d);
    nng_pipe_notify(d->pub, NNG_PIPE_EV_REM_POST, native_pipe_cb, d);
    for (size_t i = 0; i < NATIVE_CONTEXTS; i++) {
        struct native_call *c = &d->calls[i];
        c->door = d;
        c->reader = (struct history_reader){history_past, history_end};
        if ((rv = nng_ctx_open(&c->ctx, d->rep)) != 0 || (rv = nng_aio_alloc(&c->aio, native_aio_cb, c)) != 0)
            fatalx("native: %s", nng_strerror(rv));
        nng_ctx_recv(c->ctx, c->aio);
    }
    door_open(&d->ends[0], "native-url", g->conf->native_url, d->rep);
    door_open(&d->ends[1], "native-pub-url", g->conf->native_pub_url, d->pub);
    d->check.fire = door_check;
    deadline_set(g, &d->check, gatewayd_now_ms(g) + KNOCK_MS);
}

/* At exit: sockets first, so that no callback starts anything new; then what they used. */
void native_stop(struct gatewayd *g)
{
    struct native_door *d = g->native;
    if (!d)
        return;
    deadline_stop(g, &d->check);
    nng_close(d->rep);
    nng_close(d->pub);
    for (size_t i = 0; i < NATIVE_CONTEXTS; i++)
        nng_aio_stop(d->calls[i].aio);
    for (struct native_call *c = d->inbox; c; c = c->next)
        nng_msg_free(nng_aio_get_msg(c->aio)); /* came too late */
    for (size_t i = 0; i < NATIVE_CONTEXTS; i++) {
        nng_aio_free(d->calls[i].aio);
        buf_fini(&d->calls[i].answer);
    }
    door_close(&d->ends[0]);
    door_close(&d->ends[1]);
    loop_wake_free(d->wake);
    pthread_mutex_destroy(&d->lock);
    free(d->pipes);
    buf_fini(&d->scratch);
    free(d);
    g->native = NULL;
}
