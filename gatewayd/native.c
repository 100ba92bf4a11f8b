/* native - the nng door: requests in msgpack on a REP socket, live events on a PUB socket.
 *
 * A request is a map: "op" and the fields of the API's request message under their proto names. The answer is the
 * response message as a map, or {"error": text, "code": grpc status}. Requests take the same way as gRPC's (kv.c, lease.c, pending.h); only
 * bytes change their dress here. `history` is ours: {key, range_end, start_revision, prev_kv} -> {header, events, next, compact_revision}.
 *
 * An event is published as its key, a newline, and the map {type, revision, key, value, create_revision, version, lease}: the topic of
 * nng's PUB is what a message begins with, so that a subscription to "/config/" is a watch of that prefix.
 *
 * This is the one other file that knows nng (proto/link.c is for siblings). Threads: nng's callbacks only move a finished
 * context to the inbox and wake the loop; everything else runs on the loop's thread. Contexts are never closed. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nng/nng.h>
#include <nng/protocol/pubsub0/pub.h>
#include <nng/protocol/reqrep0/rep.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "etcd/rpc.pb-c.h"
#include "gatewayd/pbmap.h"
#include "gatewayd/watch.h"
#include "proto/api.h"
#include "proto/pack.h"
#include "proto/pb.h"

/* Native requests under way at once; further ones wait in nng, which then pushes back. */
#define NATIVE_CONTEXTS 64
/* An answer in parts is put together here, because a msgpack answer is one message; a larger one must be asked for with limits. */
#define NATIVE_ANSWER_BYTES_MAX (64 * MIB)
/* Events waiting for one subscriber before nng drops its next ones (it then fetches them by revision). */
#define NATIVE_PUB_QUEUE 1024

struct native_call {
    struct native_door *door;
    nng_ctx ctx;
    nng_aio *aio;
    bool sending;            /* the aio's present work is a send */
    struct native_call *next; /* in the inbox */
    const struct native_op *op; /* of the request under way */
    uint64_t req;
    struct buf answer;       /* parts of a large answer; the events of a history */
    uint32_t events;
    struct history_reader reader;
};

struct native_door {
    struct gatewayd *g;
    nng_socket rep, pub;
    struct native_call calls[NATIVE_CONTEXTS];
    pthread_mutex_t lock;
    struct native_call *inbox;  /* received, not yet taken by the loop */
    struct loop_wake *wake;
    atomic_int subscribers;     /* pipes of the PUB socket */
    struct buf scratch;
};

struct native_op {
    const char *name;
    const ProtobufCMessageDescriptor *request, *response;
    enum { OP_KV, OP_LEASE, OP_STATUS, OP_QUERY, OP_READ, OP_MEMBERS, OP_HISTORY } way;
    enum command_kind kind;
};

static const struct native_op native_ops[] = {
    {"range", &etcdserverpb__range_request__descriptor, &etcdserverpb__range_response__descriptor, OP_KV, COMMAND_RANGE},
    {"put", &etcdserverpb__put_request__descriptor, &etcdserverpb__put_response__descriptor, OP_KV, COMMAND_PUT},
    {"delete_range", &etcdserverpb__delete_range_request__descriptor, &etcdserverpb__delete_range_response__descriptor, OP_KV, COMMAND_DELETE_RANGE},
    {"txn", &etcdserverpb__txn_request__descriptor, &etcdserverpb__txn_response__descriptor, OP_KV, COMMAND_TXN},
    {"compact", &etcdserverpb__compaction_request__descriptor, &etcdserverpb__compaction_response__descriptor, OP_KV, COMMAND_COMPACT},
    {"lease_grant", &etcdserverpb__lease_grant_request__descriptor, &etcdserverpb__lease_grant_response__descriptor, OP_LEASE, COMMAND_LEASE_GRANT},
    {"lease_revoke", &etcdserverpb__lease_revoke_request__descriptor, &etcdserverpb__lease_revoke_response__descriptor, OP_LEASE, COMMAND_LEASE_REVOKE},
    {"lease_keep_alive", &etcdserverpb__lease_keep_alive_request__descriptor, &etcdserverpb__lease_keep_alive_response__descriptor, OP_LEASE,
     COMMAND_LEASE_KEEP_ALIVE},
    {"lease_time_to_live", &etcdserverpb__lease_time_to_live_request__descriptor, &etcdserverpb__lease_time_to_live_response__descriptor, OP_LEASE,
     COMMAND_LEASE_TIME_TO_LIVE},
    {"lease_leases", &etcdserverpb__lease_leases_request__descriptor, &etcdserverpb__lease_leases_response__descriptor, OP_LEASE, COMMAND_LEASE_LEASES},
    {"status", &etcdserverpb__status_request__descriptor, &etcdserverpb__status_response__descriptor, OP_STATUS, 0},
    {"hash_kv", &etcdserverpb__hash_kvrequest__descriptor, &etcdserverpb__hash_kvresponse__descriptor, OP_QUERY, COMMAND_HASH_KV},
    {"defragment", &etcdserverpb__defragment_request__descriptor, &etcdserverpb__defragment_response__descriptor, OP_QUERY, COMMAND_DEFRAGMENT},
    {"alarm", &etcdserverpb__alarm_request__descriptor, &etcdserverpb__alarm_response__descriptor, OP_READ, COMMAND_ALARM},
    {"member_list", &etcdserverpb__member_list_request__descriptor, &etcdserverpb__member_list_response__descriptor, OP_MEMBERS, 0},
    {"history", &etcdserverpb__watch_create_request__descriptor, NULL, OP_HISTORY, 0},
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
    if (a->total > NATIVE_ANSWER_BYTES_MAX) {
        if (a->more)
            pending_cancel(c->door->g, a->req);
        native_fail(c, E_TOO_BIG, SLICE_LIT("the answer is larger than 64 MiB: use limit"));
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
        feed_read(g->watch, &c->reader, m->start_revision, m->prev_kv, slice_of(m->key.data, m->key.len), slice_of(m->range_end.data, m->range_end.len));
    etcdserverpb__watch_create_request__free_unpacked(m, NULL);
    return err;
}

/* --- requests --------------------------------------------------------------------------------- */

static const struct native_op *op_of(struct slice request, struct buf *why)
{
    uint32_t count;
    if (unpack_peek(request) != PACK_MAP || unpack_map(&request, UINT32_MAX, &count) != 0) {
        buf_add_str(why, "a request is a msgpack map with the key \"op\"");
        return NULL;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct slice key, name;
        if (unpack_bytes(&request, 256, &key) != 0)
            break;
        if (!slice_eq(key, SLICE_LIT("op"))) {
            if (unpack_skip(&request) != 0)
                break;
            continue;
        }
        if (unpack_bytes(&request, 64, &name) != 0)
            break;
        for (size_t k = 0; k < ARRAY_LEN(native_ops); k++)
            if (slice_eq(name, slice_str(native_ops[k].name)))
                return &native_ops[k];
        buf_printf(why, "unknown op \"%.*s\"", (int)name.len, (const char *)name.data);
        return NULL;
    }
    buf_add_str(why, "the map has no \"op\"");
    return NULL;
}

static int native_dispatch(struct native_call *c, struct slice body)
{
    struct gatewayd *g = c->door->g;
    struct buf members = BUF_INIT;
    switch (c->op->way) {
    case OP_KV: return kv_submit(g, c->op->kind, body, native_answer, c, &c->req);
    case OP_LEASE: return lease_submit(g, c->op->kind, body, native_answer, c, &c->req);
    case OP_STATUS: return pending_status(g, STATUS_API, native_answer, c, &c->req);
    case OP_QUERY: return pending_command(g, VIA_QUERY, c->op->kind, body, native_answer, c, &c->req);
    case OP_READ:
        if (body.len) /* alarms are only listed here: an empty AlarmRequest is GET of all */
            return E_UNIMPLEMENTED;
        return pending_command(g, VIA_READ, c->op->kind, body, native_answer, c, &c->req);
    case OP_MEMBERS:
        cluster_encode_members(g, &members);
        native_reply(c, buf_slice(&members));
        buf_fini(&members);
        return 0;
    case OP_HISTORY: return native_history(c, body);
    }
    return E_UNIMPLEMENTED;
}

static void native_request(struct native_call *c, struct slice request)
{
    struct buf body = BUF_INIT, why = BUF_INIT;
    uint32_t count = 0;
    int err = E_INVALID;
    c->events = 0;
    c->op = op_of(request, &why);
    if (c->op && (err = unpack_map(&request, UINT32_MAX, &count)) == 0 &&
        (err = pbmap_to_message(c->op->request, &request, count, "op", &body, &why)) == 0 && request.len)
        err = E_TRAILING;
    if (!err)
        err = native_dispatch(c, buf_slice(&body));
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
    c->next = c->door->inbox;
    c->door->inbox = c;
    pthread_mutex_unlock(&c->door->lock);
    loop_wake(c->door->wake);
}

static void native_woken(void *arg)
{
    struct native_door *d = arg;
    pthread_mutex_lock(&d->lock);
    struct native_call *c = d->inbox;
    d->inbox = NULL;
    pthread_mutex_unlock(&d->lock);
    feed_publish(d->g->watch, atomic_load(&d->subscribers) > 0);
    while (c) {
        struct native_call *next = c->next;
        nng_msg *msg = nng_aio_get_msg(c->aio);
        /* The request's bytes are needed only until it was sent on its way. */
        native_request(c, slice_of(nng_msg_body(msg), nng_msg_len(msg)));
        nng_msg_free(msg);
        c = next;
    }
}

static void native_pipe_cb(nng_pipe pipe, nng_pipe_ev ev, void *arg)
{
    struct native_door *d = arg;
    UNUSED(pipe);
    atomic_fetch_add(&d->subscribers, ev == NNG_PIPE_EV_ADD_POST ? 1 : -1);
    loop_wake(d->wake);
}

static void native_publish(struct gatewayd *g, const struct fr_event *m)
{
    struct native_door *d = g->native;
    struct buf *b = &d->scratch;
    struct api_key_value kv;
    nng_msg *msg;
    if (api_decode_key_value(m->kv, &kv) != 0)
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
        pack_cstr(b, "value");
        pack_bin(b, kv.value);
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

static void native_listen(nng_socket socket, const char *what, const char *url)
{
    /* A socket file left behind by a killed gateway would be in the way; one in use refuses the connection test in nng's listen. */
    int rv = nng_listen(socket, url, NULL, 0);
    if (rv == NNG_EADDRINUSE && strncmp(url, "ipc://", 6) == 0) {
        nng_socket probe;
        if (nng_pub0_open(&probe) == 0) {
            bool alive = nng_dial(probe, url, NULL, 0) == 0;
            nng_close(probe);
            if (!alive && remove(url + 6) == 0)
                rv = nng_listen(socket, url, NULL, 0);
        }
    }
    if (rv != 0)
        fatalx("native: cannot listen on %s %s: %s", what, url, nng_strerror(rv));
}

void native_start(struct gatewayd *g)
{
    struct native_door *d = g->native = xcalloc(1, sizeof(*d));
    int rv;
    d->g = g;
    pthread_mutex_init(&d->lock, NULL);
    d->wake = loop_wake_new(g->loop, native_woken, d);
    if ((rv = nng_rep0_open(&d->rep)) != 0 || (rv = nng_pub0_open(&d->pub)) != 0)
        fatalx("native: %s", nng_strerror(rv));
    nng_socket_set_size(d->rep, NNG_OPT_RECVMAXSZ, g->message_bytes_max);
    nng_socket_set_int(d->pub, NNG_OPT_SENDBUF, NATIVE_PUB_QUEUE);
    g->watch->publish = native_publish;
    nng_pipe_notify(d->pub, NNG_PIPE_EV_ADD_POST, native_pipe_cb, d);
    nng_pipe_notify(d->pub, NNG_PIPE_EV_REM_POST, native_pipe_cb, d);
    native_listen(d->rep, "native-url", g->conf->native_url);
    native_listen(d->pub, "native-pub-url", g->conf->native_pub_url);
    for (size_t i = 0; i < NATIVE_CONTEXTS; i++) {
        struct native_call *c = &d->calls[i];
        c->door = d;
        c->reader = (struct history_reader){history_past, history_end};
        if ((rv = nng_ctx_open(&c->ctx, d->rep)) != 0 || (rv = nng_aio_alloc(&c->aio, native_aio_cb, c)) != 0)
            fatalx("native: %s", nng_strerror(rv));
        nng_ctx_recv(c->ctx, c->aio);
    }
}

/* At exit: sockets first, so that no callback starts anything new; then what they used. */
void native_stop(struct gatewayd *g)
{
    struct native_door *d = g->native;
    if (!d)
        return;
    nng_close(d->rep);
    nng_close(d->pub);
    for (size_t i = 0; i < NATIVE_CONTEXTS; i++) {
        nng_aio_stop(d->calls[i].aio);
        nng_aio_free(d->calls[i].aio);
        buf_fini(&d->calls[i].answer);
    }
    loop_wake_free(d->wake);
    pthread_mutex_destroy(&d->lock);
    buf_fini(&d->scratch);
    free(d);
    g->native = NULL;
}
