/* kv - Range, RangeStream, Put, DeleteRange, Txn, Compact: a request is checked, its way is chosen, and it goes round the ring;
 * the answer's bytes pass through. From grpc.c (route.c's table) or native.c; to retry.c and back by call_answer.
 * Writes are proposed; reads go through raftd for a read index unless they are serializable; a transaction that only reads is
 * a read (spec/semantics.md §3, §7). */
#include <stdlib.h>

#include "common/err.h"
#include "common/limits.h"
#include "gatewayd/gatewayd.h"
#include "proto/api.h"
#include "proto/pb.h"

/* --- answers, for all handlers whose state is one req ------------------------------------------------- */

static void answer_stream(struct call *c, const struct answer *a)
{
    if (a->body.len > 0) {
        call_send(c, a->body, NULL, 0); /* every part is a whole message */
    }
    if (!a->more) {
        call_end(c, OK, NULL);
    }
}

static void answer_unary(struct call *c, const struct answer *a)
{
    if (a->first && !a->more) {
        call_reply(c, a->body);
        return;
    }
    if (a->first) {
        call_reply_begin(c, a->total);
    }
    call_reply_part(c, a->body);
    if (!a->more && !call_is_over(c)) {
        call_fail(c, E_MALFORMED, "answer ended before its announced size");
    }
}

/* Refusing one would be about as long. */
#define CALL_SMALL_ANSWER_BYTES ((uint64_t)1024)

void call_answer(void *arg, const struct answer *a)
{
    struct call *c = arg;
    struct gatewayd *g = call_gateway(c);
    if (a->err != OK) {
        char *text = a->text.len > 0 ? slice_dup_str(a->text) : NULL;
        call_set_state(c, NULL);
        call_fail(c, a->err, text);
        free(text);
        return;
    }
    /* What was read can be refused; what was written has happened, and is said. */
    if (a->first && a->is_read && a->total > CALL_SMALL_ANSWER_BYTES && call_is_crowded(c)) {
        stats_dropped(g, DROP_UNREAD);
        pending_cancel(g, a->req); /* if there is more of it */
        call_set_state(c, NULL);
        call_fail(c, E_REQUEST_TOO_MANY_REQUESTS, NULL);
        return;
    }
    if (!a->more) {
        call_set_state(c, NULL);
    }
    if (call_handler(c)->server_stream) {
        answer_stream(c, a);
    } else {
        answer_unary(c, a);
    }
    if (a->more && call_is_over(c)) {
        pending_cancel(g, a->req);
        call_set_state(c, NULL);
    } else if (a->more && call_queued_bytes(c) <= CALL_QUEUE_LOW_BYTES) {
        pending_more(g, a->req);
    }
}

static uint64_t state_req(const struct call *c) { return (uint64_t)(uintptr_t)call_state(c); }

void call_submitted(struct call *c, int err, uint64_t req)
{
    if (err != OK) {
        call_fail(c, err, NULL);
    } else {
        call_set_state(c, (void *)(uintptr_t)req);
    }
}

void call_more(struct call *c)
{
    if (state_req(c) != 0) {
        pending_more(call_gateway(c), state_req(c));
    }
}

void call_forget(struct call *c)
{
    if (state_req(c) != 0) {
        pending_cancel(call_gateway(c), state_req(c));
    }
}

/* --- checks and ways ----------------------------------------------------------------------------------- */

static int prepare_range(const struct gatewayd *g, struct slice body, enum pending_via *via)
{
    struct api_range r;
    if (api_decode_range(body, &r) != OK) {
        return E_MALFORMED_REQUEST;
    }
    if (g->is_learner && !r.serializable) {
        return E_NOT_SUPPORTED_FOR_LEARNER;
    }
    *via = r.serializable ? VIA_QUERY : VIA_READ;
    return api_check_range(&r);
}

static int prepare_range_stream(struct slice body, enum pending_via *via)
{
    struct api_range r;
    if (api_decode_range(body, &r) != OK) {
        return E_MALFORMED_REQUEST;
    }
    int err = api_check_range(&r);
    if (err != OK) {
        return err;
    }
    bool is_default = r.sort_order == API_SORT_NONE || (r.sort_order == API_SORT_ASCEND && r.sort_target == API_BY_KEY);
    if (!is_default) {
        return E_STREAM_SORT;
    }
    if (r.min_mod != 0 || r.max_mod != 0 || r.min_create != 0 || r.max_create != 0) {
        return E_STREAM_FILTER;
    }
    *via = r.serializable ? VIA_QUERY : VIA_READ;
    return OK;
}

static int prepare_put(struct slice body)
{
    struct api_put m;
    return api_decode_put(body, &m) != OK ? E_MALFORMED_REQUEST : api_check_put(&m);
}

static int prepare_delete(struct slice body)
{
    struct api_delete m;
    return api_decode_delete(body, &m) != OK ? E_MALFORMED_REQUEST : api_check_delete(&m);
}

static int prepare_txn(const struct gatewayd *g, struct slice body, enum pending_via *via)
{
    struct arena arena;
    arena_init(&arena);
    struct api_txn *txn = NULL;
    int err = api_decode_txn(body, &arena, g->conf->max_txn_ops, &txn);
    if (err == OK) {
        err = api_check_txn(txn, g->conf->max_txn_ops);
        if (api_txn_is_read_only(txn)) {
            *via = api_txn_is_serializable(txn) ? VIA_QUERY : VIA_READ;
        }
    } else if (err != E_TOO_MANY_OPS) {
        err = E_MALFORMED_REQUEST;
    }
    arena_fini(&arena);
    return err;
}

static int prepare_other(struct slice body)
{
    struct pb_field f;
    int rv;
    while ((rv = pb_next(&body, &f)) == 1) {
    }
    return rv == 0 ? OK : E_MALFORMED_REQUEST;
}

int kv_submit(struct gatewayd *g, const struct identity *who, enum command_kind kind, struct slice body, answer_cb *cb, void *arg,
    uint64_t *req)
{
    if (g->is_learner && kind != COMMAND_RANGE) {
        return E_NOT_SUPPORTED_FOR_LEARNER;
    }
    enum pending_via via = VIA_PROPOSE;
    int err;
    switch (kind) {
    case COMMAND_RANGE: err = prepare_range(g, body, &via); break;
    case COMMAND_RANGE_STREAM: err = prepare_range_stream(body, &via); break;
    case COMMAND_PUT: err = prepare_put(body); break;
    case COMMAND_DELETE_RANGE: err = prepare_delete(body); break;
    case COMMAND_TXN: err = prepare_txn(g, body, &via); break;
    case COMMAND_COMPACT: err = prepare_other(body); break;
    default: err = E_INVALID; break;
    }
    return err != OK ? err : pending_command(g, who, via, kind, body, cb, arg, req);
}

/* --- handlers -------------------------------------------------------------------------------------------- */

static void kv_call(struct call *c, enum command_kind kind, struct slice bytes)
{
    uint64_t req = 0;
    int err = kv_submit(call_gateway(c), call_identity(c), kind, bytes, call_answer, c, &req);
    call_submitted(c, err, req);
}

void kv_range(struct call *c, struct slice bytes) { kv_call(c, COMMAND_RANGE, bytes); }
void kv_range_stream(struct call *c, struct slice bytes) { kv_call(c, COMMAND_RANGE_STREAM, bytes); }
void kv_put(struct call *c, struct slice bytes) { kv_call(c, COMMAND_PUT, bytes); }
void kv_delete_range(struct call *c, struct slice bytes) { kv_call(c, COMMAND_DELETE_RANGE, bytes); }
void kv_txn(struct call *c, struct slice bytes) { kv_call(c, COMMAND_TXN, bytes); }
void kv_compact(struct call *c, struct slice bytes) { kv_call(c, COMMAND_COMPACT, bytes); }
