/* election - Campaign, Proclaim, Leader, Observe, Resign (spec/semantics.md §13). From grpc.c; to queue.c, inner.c, watch.c. */
#include <stdlib.h>

#include "common/err.h"
#include "gatewayd/queue.h"
#include "gatewayd/watch.h"
#include "proto/api.h"
#include "proto/pb.h"

/* The fields of all requests of the service. */
struct election_request {
    struct slice name, key, value;
    int64_t rev, lease;
    bool has_leader; /* message LeaderKey is there */
};

static int decode_leader_key(struct slice bytes, struct election_request *m)
{
    struct pb_field f;
    int rv;
    m->has_leader = true;
    while ((rv = pb_next(&bytes, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_BYTES) {
            m->name = f.bytes;
        } else if (f.number == 2 && f.wire == PB_BYTES) {
            m->key = f.bytes;
        } else if (f.number == 3 && f.wire == PB_VARINT) {
            m->rev = (int64_t)f.varint;
        } else if (f.number == 4 && f.wire == PB_VARINT) {
            m->lease = (int64_t)f.varint;
        }
    }
    return rv == 0 ? OK : E_MALFORMED_REQUEST;
}

/* --- Campaign -------------------------------------------------------------------------------------------------- */

static void campaign_won(struct call *c, const struct place *p)
{
    struct slice name = slice_of(p->key.data, p->key.len);
    while (name.len > 0 && name.data[name.len - 1] != '/') { /* the lease's hex has none */
        name.len--;
    }
    name.len--;
    struct buf leader = BUF_INIT, out = BUF_INIT;
    pb_add_bytes(&leader, 1, name);
    pb_add_bytes(&leader, 2, p->key);
    pb_add_int(&leader, 3, p->rev);
    pb_add_int(&leader, 4, p->lease);
    pb_add_message(&out, 1, p->entry); /* as etcd: of the transaction that entered the line, not of the victory */
    pb_add_message(&out, 2, buf_slice(&leader));
    call_reply(c, buf_slice(&out));
    buf_fini(&leader);
    buf_fini(&out);
}

#define NOT_LEADER "election: not leader"

static const struct queue_kind elections = {.has_value = true, .lost_text = NOT_LEADER, .won = campaign_won};

void election_campaign(struct call *c, struct slice bytes)
{
    struct election_request m = {.lease = 0};
    struct pb_field f;
    int rv;
    while ((rv = pb_next(&bytes, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_BYTES) {
            m.name = f.bytes;
        } else if (f.number == 2 && f.wire == PB_VARINT) {
            m.lease = (int64_t)f.varint;
        } else if (f.number == 3 && f.wire == PB_BYTES) {
            m.value = f.bytes;
        }
    }
    if (rv != 0) {
        call_fail(c, E_MALFORMED_REQUEST, NULL);
    } else {
        queue_join(c, &elections, m.name, m.lease, m.value);
    }
}

/* --- Proclaim, Resign -------------------------------------------------------------------------------------------- */

/* Both requests are { 1 LeaderKey, 2 value }. false: the call has ended. */
static bool decode_handle(struct call *c, struct slice bytes, struct election_request *m)
{
    struct pb_field f;
    int rv, err = OK;
    while ((rv = pb_next(&bytes, &f)) == 1 && err == OK) {
        if (f.number == 1 && f.wire == PB_BYTES) {
            err = decode_leader_key(f.bytes, m);
        } else if (f.number == 2 && f.wire == PB_BYTES) {
            m->value = f.bytes;
        }
    }
    if (rv < 0 || err != OK) {
        call_fail(c, E_MALFORMED_REQUEST, NULL);
        return false;
    }
    if (!m->has_leader) {
        inner_fail(c, E_INNER, SLICE_LIT("\"leader\" field must be provided"));
        return false;
    }
    return true;
}

static void if_leading(struct call *c, const struct election_request *m, struct api_request_op op, inner_reply *reply)
{
    struct api_compare same = {.result = API_EQUAL, .target = API_CREATE, .key = m->key, .number = m->rev};
    struct buf body = BUF_INIT;
    api_encode_txn(&body, &(struct api_txn){.compares = &same, .compare_count = 1, .success = &op, .success_count = 1});
    inner_call(c, COMMAND_TXN, buf_slice(&body), reply);
    buf_fini(&body);
}

static int proclaimed(struct slice answer, struct buf *out, const char **text)
{
    struct inner_txn t;
    if (!inner_txn_decode(answer, &t)) {
        return E_MALFORMED;
    }
    if (!t.succeeded) {
        *text = NOT_LEADER;
        return E_INNER;
    }
    pb_add_message(out, 1, t.header);
    return OK;
}

void election_proclaim(struct call *c, struct slice bytes)
{
    struct election_request m = {.lease = 0};
    if (decode_handle(c, bytes, &m)) {
        /* A handle without a lease leaves the key to the one it has: it must not outlive its owner. */
        struct api_put put = {.key = m.key, .value = m.value, .lease = m.lease, .ignore_lease = m.lease == 0};
        if_leading(c, &m, (struct api_request_op){.op = API_OP_PUT, .put = put}, proclaimed);
    }
}

static int resigned(struct slice answer, struct buf *out, const char **text)
{
    struct inner_txn t;
    UNUSED(text); /* who leads no more has resigned already */
    if (!inner_txn_decode(answer, &t)) {
        return E_MALFORMED;
    }
    pb_add_message(out, 1, t.header);
    return OK;
}

void election_resign(struct call *c, struct slice bytes)
{
    struct election_request m = {.lease = 0};
    if (decode_handle(c, bytes, &m)) {
        if_leading(c, &m, (struct api_request_op){.op = API_OP_DELETE, .del = {.key = m.key}}, resigned);
    }
}

/* --- Leader ------------------------------------------------------------------------------------------------------- */

/* The name as a prefix, and its end. false: the call has ended. */
static bool decode_name(struct call *c, struct slice bytes, struct buf *prefix, struct buf *end)
{
    struct slice name = SLICE_EMPTY;
    struct pb_field f;
    int rv;
    while ((rv = pb_next(&bytes, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_BYTES) {
            name = f.bytes;
        }
    }
    if (rv != 0) {
        call_fail(c, E_MALFORMED_REQUEST, NULL);
        return false;
    }
    buf_add_slice(prefix, name);
    buf_add_byte(prefix, '/');
    inner_prefix_end(end, buf_slice(prefix));
    return true;
}

static void encode_leader(struct buf *out, struct slice header, struct slice kv)
{
    pb_add_message(out, 1, header);
    pb_add_message(out, 2, kv);
}

static int leader_told(struct slice answer, struct buf *out, const char **text)
{
    struct inner_range r;
    if (!inner_range_decode(answer, &r)) {
        return E_MALFORMED;
    }
    if (r.kv.len == 0) {
        *text = "election: no leader";
        return E_INNER;
    }
    encode_leader(out, r.header, r.kv);
    return OK;
}

void election_leader(struct call *c, struct slice bytes)
{
    struct buf prefix = BUF_INIT, end = BUF_INIT, body = BUF_INIT;
    if (decode_name(c, bytes, &prefix, &end)) {
        struct api_range oldest = inner_oldest(buf_slice(&prefix), buf_slice(&end));
        api_encode_range(&body, &oldest);
        inner_call(c, COMMAND_RANGE, buf_slice(&body), leader_told);
    }
    buf_fini(&prefix);
    buf_fini(&end);
    buf_fini(&body);
}

/* --- Observe -------------------------------------------------------------------------------------------------------- *
 * The leader now, then every version of its key; when that is deleted, the leader then. Without one, the first key that is put. */

#define OBSERVE_RETRY_MS 500

struct observer {
    struct call *call;
    struct inner inner;
    struct listener listener; /* on the leader's key; without a leader on all */
    struct deadline again;    /* looks who leads */
    bool has_leader, done;    /* done with what it listens to: `again` is set */
    struct buf prefix, end;
    struct buf follow;        /* the key that was put while there was no leader: listen to it from told + 1 */
    int64_t told; /* mod revision of what was sent last */
};

static void observe_again(struct observer *o, uint64_t after_ms)
{
    struct gatewayd *g = call_gateway(o->call);
    o->done = true;
    deadline_set(g, &o->again, gatewayd_now_ms(g) + after_ms);
}

static void observe_failed(struct observer *o, int err)
{
    if (inner_may_retry(&o->inner, err)) {
        observe_again(o, OBSERVE_RETRY_MS);
    } else if (err == E_NOT_SUPPORTED_FOR_LEARNER) {
        call_end(o->call, err, NULL);
    } else {
        call_end(o->call, E_INNER, "election: observe closed early");
    }
}

static void observe_tell(struct observer *o, struct slice header, struct slice kv, int64_t mod)
{
    if (mod == o->told) {
        return; /* looked again after a loss: nothing new */
    }
    o->told = mod;
    struct buf out = BUF_INIT;
    encode_leader(&out, header, kv);
    call_send(o->call, buf_slice(&out), NULL, 0);
    buf_fini(&out);
}

static void observe_heard(struct listener *l, bool is_delete, struct slice kv)
{
    struct observer *o = container_of(l, struct observer, listener);
    struct gatewayd *g = call_gateway(o->call);
    struct api_key_value m;
    if (o->done || api_decode_key_value(kv, &m) != OK) {
        return;
    }
    if (!is_delete) {
        struct buf header = BUF_INIT;
        gateway_fill_header(g, &header, m.mod_revision);
        observe_tell(o, buf_slice(&header), kv, m.mod_revision);
        buf_fini(&header);
        if (!o->has_leader) {
            buf_add_slice(&o->follow, m.key);
            observe_again(o, 0);
        }
    } else if (o->has_leader) {
        observe_again(o, 0); /* somebody else leads, or nobody */
    }
}

static void observe_lost(struct listener *l)
{
    observe_again(container_of(l, struct observer, listener), 0);
}

static void observe_looked(struct inner *in, int err)
{
    struct observer *o = container_of(in, struct observer, inner);
    struct inner_range r;
    struct api_key_value m;
    if (err == OK && !inner_range_decode(buf_slice(&in->body), &r)) {
        err = E_MALFORMED;
    }
    if (err == OK && r.kv.len > 0) {
        err = api_decode_key_value(r.kv, &m);
    }
    if (err == OK) {
        o->has_leader = r.kv.len > 0;
        o->done = false;
        if (o->has_leader) {
            observe_tell(o, r.header, r.kv, m.mod_revision);
            err = listener_start(&o->listener, o->call, m.key, SLICE_EMPTY, r.revision + 1);
        } else {
            err = listener_start(&o->listener, o->call, buf_slice(&o->prefix), buf_slice(&o->end), r.revision + 1);
        }
    }
    if (err != OK) {
        observe_failed(o, err);
    }
}

static void observe_follow(struct observer *o)
{
    listener_stop(&o->listener);
    int err = listener_start(&o->listener, o->call, buf_slice(&o->follow), SLICE_EMPTY, o->told + 1);
    buf_reset(&o->follow);
    o->has_leader = true;
    o->done = false;
    if (err != OK) {
        observe_failed(o, err);
    }
}

static void observe_look(struct observer *o)
{
    struct buf body = BUF_INIT;
    struct api_range oldest = inner_oldest(buf_slice(&o->prefix), buf_slice(&o->end));
    listener_stop(&o->listener);
    api_encode_range(&body, &oldest);
    int err = inner_send(&o->inner, call_identity(o->call), COMMAND_RANGE, buf_slice(&body));
    buf_fini(&body);
    if (err != OK) {
        observe_failed(o, err);
    }
}

static void observe_fired(struct deadline *d, uint64_t now_ms)
{
    UNUSED(now_ms);
    struct observer *o = container_of(d, struct observer, again);
    if (o->follow.len > 0) {
        observe_follow(o);
    } else {
        observe_look(o);
    }
}

void election_observe(struct call *c, struct slice bytes)
{
    struct buf prefix = BUF_INIT, end = BUF_INIT;
    if (!decode_name(c, bytes, &prefix, &end)) {
        return;
    }
    struct observer *o = xcalloc(1, sizeof(*o));
    o->call = c;
    o->prefix = prefix;
    o->end = end;
    o->again.fire = observe_fired;
    o->listener = (struct listener){.event = observe_heard, .lost = observe_lost};
    inner_init(&o->inner, call_gateway(c), observe_looked);
    call_set_state(c, o);
    observe_look(o);
}

void election_observe_writable(struct call *c)
{
    struct observer *o = call_state(c);
    if (o != NULL) {
        listener_writable(&o->listener);
    }
}

void election_observe_closed(struct call *c)
{
    struct observer *o = call_state(c);
    if (o == NULL) {
        return;
    }
    call_set_state(c, NULL);
    listener_stop(&o->listener);
    deadline_stop(call_gateway(c), &o->again);
    inner_fini(&o->inner);
    buf_fini(&o->prefix);
    buf_fini(&o->end);
    buf_fini(&o->follow);
    free(o);
}
