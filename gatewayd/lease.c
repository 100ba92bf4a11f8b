/* lease - Grant, Revoke, TimeToLive, Leases, and the KeepAlive stream. From grpc.c or native.c; to retry.c.
 * The id of a lease that the client leaves to us is chosen here, before the proposal: what is random must not be
 * decided by the members (proto/command.h). KeepAlive answers in the order of its requests, although the ring may answer in another:
 *
 *   waiting: first -> [answered] -> [waits] -> [answered] -> last      sent: only from the front, while answered */
#include <stdlib.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/rand.h"
#include "gatewayd/gatewayd.h"
#include "proto/pb.h"

/* --- requests of one message ------------------------------------------------------------------------------ */

static int decode_grant(struct slice body, int64_t *ttl, int64_t *id)
{
    struct pb_field f;
    int rv;
    while ((rv = pb_next(&body, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_VARINT) {
            *ttl = (int64_t)f.varint;
        } else if (f.number == 2 && f.wire == PB_VARINT) {
            *id = (int64_t)f.varint;
        }
    }
    return rv == 0 ? OK : E_MALFORMED_REQUEST;
}

static int submit_grant(struct gatewayd *g, const struct identity *who, struct slice body, answer_cb *cb, void *arg, uint64_t *req)
{
    int64_t ttl = 0, id = 0;
    int err = decode_grant(body, &ttl, &id);
    if (err != OK) {
        return err;
    }
    if (ttl > LEASE_TTL_MAX) {
        return E_LEASE_TTL_TOO_LARGE;
    }
    if (id != 0) {
        return pending_command(g, who, VIA_PROPOSE, COMMAND_LEASE_GRANT, body, cb, arg, req);
    }
    do {
        id = (int64_t)(rand_system_u64() & INT64_MAX); /* 63 random bits: two equal ones will not meet */
    } while (id == 0);
    struct buf chosen = BUF_INIT;
    pb_add_int(&chosen, 1, ttl);
    pb_add_int(&chosen, 2, id);
    err = pending_command(g, who, VIA_PROPOSE, COMMAND_LEASE_GRANT, buf_slice(&chosen), cb, arg, req);
    buf_fini(&chosen);
    return err;
}

int lease_submit(struct gatewayd *g, const struct identity *who, enum command_kind kind, struct slice body, answer_cb *cb, void *arg,
    uint64_t *req)
{
    if (g->is_learner) {
        return E_NOT_SUPPORTED_FOR_LEARNER;
    }
    int64_t ttl, id;
    switch (kind) {
    case COMMAND_LEASE_GRANT: return submit_grant(g, who, body, cb, arg, req);
    case COMMAND_LEASE_REVOKE:
    case COMMAND_LEASE_KEEP_ALIVE:
    case COMMAND_LEASE_TIME_TO_LIVE:
    case COMMAND_LEASE_LEASES: break;
    default: return E_INVALID;
    }
    if (decode_grant(body, &ttl, &id) != OK) { /* only: is it protobuf? */
        return E_MALFORMED_REQUEST;
    }
    enum pending_via via = kind == COMMAND_LEASE_REVOKE ? VIA_PROPOSE : kind == COMMAND_LEASE_LEASES ? VIA_QUERY : VIA_READ;
    return pending_command(g, who, via, kind, body, cb, arg, req);
}

static void lease_call(struct call *c, enum command_kind kind, struct slice bytes)
{
    uint64_t req = 0;
    int err = lease_submit(call_gateway(c), call_identity(c), kind, bytes, call_answer, c, &req);
    call_submitted(c, err, req);
}

void lease_grant(struct call *c, struct slice bytes) { lease_call(c, COMMAND_LEASE_GRANT, bytes); }
void lease_revoke(struct call *c, struct slice bytes) { lease_call(c, COMMAND_LEASE_REVOKE, bytes); }
void lease_time_to_live(struct call *c, struct slice bytes) { lease_call(c, COMMAND_LEASE_TIME_TO_LIVE, bytes); }
void lease_leases(struct call *c, struct slice bytes) { lease_call(c, COMMAND_LEASE_LEASES, bytes); }

/* --- KeepAlive ---------------------------------------------------------------------------------------------- */

struct keep_alive;

struct renewal {
    struct keep_alive *stream;
    struct renewal *next;
    uint64_t req;
    bool answered;
    int err;
    struct buf text; /* of err, if it has its own */
    struct buf body; /* the response */
};

struct keep_alive {
    struct call *call;
    struct renewal *first, *last;
    size_t count;
    bool half_closed;
};

static void renewal_free(struct renewal *r)
{
    buf_fini(&r->text);
    buf_fini(&r->body);
    free(r);
}

/* Stops reading while too much waits, in the ring or in the queue to the client. */
static void keep_alive_pace(struct keep_alive *k)
{
    call_pause(k->call, k->count >= KEEP_ALIVE_WAITING_MAX || call_queued_bytes(k->call) > CALL_QUEUE_LOW_BYTES);
}

/* Sends what is answered, from the front; an error ends the stream. */
static void keep_alive_send(struct keep_alive *k)
{
    struct call *c = k->call;
    while (k->first != NULL && k->first->answered && !call_is_over(c)) {
        struct renewal *r = k->first;
        if (r->err != OK) {
            char *text = r->text.len > 0 ? slice_dup_str(buf_slice(&r->text)) : NULL;
            call_end(c, r->err, text);
            free(text);
            return; /* `closed` frees the rest */
        }
        call_send(c, buf_slice(&r->body), NULL, 0);
        k->first = r->next;
        k->last = k->first != NULL ? k->last : NULL;
        k->count--;
        renewal_free(r);
    }
    if (k->half_closed && k->first == NULL) {
        call_end(c, OK, NULL);
    }
}

static void renewal_answer(void *arg, const struct answer *a)
{
    struct renewal *r = arg;
    struct keep_alive *k = r->stream;
    buf_add_slice(&r->body, a->body);
    if (a->more) {
        pending_more(call_gateway(k->call), a->req);
        return;
    }
    r->req = 0;
    r->err = a->err;
    buf_add_slice(&r->text, a->text);
    r->answered = true;
    struct call *c = k->call;
    keep_alive_send(k);
    if (!call_is_over(c)) {
        keep_alive_pace(k);
    }
}

void lease_keep_alive(struct call *c, struct slice bytes)
{
    struct keep_alive *k = call_state(c);
    if (k == NULL) {
        k = xcalloc(1, sizeof(*k));
        k->call = c;
        call_set_state(c, k);
    }
    struct renewal *r = xcalloc(1, sizeof(*r));
    r->stream = k;
    *(k->last != NULL ? &k->last->next : &k->first) = r;
    k->last = r;
    k->count++;
    int err = lease_submit(call_gateway(c), call_identity(c), COMMAND_LEASE_KEEP_ALIVE, bytes, renewal_answer, r, &r->req);
    if (err != OK) {
        r->answered = true; /* takes its turn behind what was asked before */
        r->err = err;
        keep_alive_send(k);
    }
    if (!call_is_over(c)) {
        keep_alive_pace(k);
    }
}

void lease_keep_alive_half_close(struct call *c)
{
    struct keep_alive *k = call_state(c);
    if (k == NULL) {
        call_end(c, OK, NULL);
        return;
    }
    k->half_closed = true;
    keep_alive_send(k);
}

void lease_keep_alive_writable(struct call *c)
{
    if (call_state(c) != NULL) {
        keep_alive_pace(call_state(c));
    }
}

void lease_keep_alive_closed(struct call *c)
{
    struct keep_alive *k = call_state(c);
    if (k == NULL) {
        return;
    }
    call_set_state(c, NULL);
    while (k->first != NULL) {
        struct renewal *r = k->first;
        k->first = r->next;
        if (r->req != 0) {
            pending_cancel(call_gateway(c), r->req);
        }
        renewal_free(r);
    }
    free(k);
}
