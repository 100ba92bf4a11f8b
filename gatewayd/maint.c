/* maint - Status, HashKV, Defragment, Alarm, MoveLeader, and grpc.health.v1. From grpc.c; to retry.c. */
#include "common/err.h"
#include "gatewayd/gatewayd.h"
#include "proto/pb.h"

enum { ALARM_GET = 0 };
enum { DOWNGRADE_ENABLE = 1, DOWNGRADE_CANCEL = 2 };
enum { HEALTH_SERVING = 1, HEALTH_NOT_SERVING = 2, HEALTH_SERVICE_UNKNOWN = 3 };

/* The varint in field `number`; 0 if it is not there. Non-zero return: not protobuf. */
static int read_uint(struct slice body, uint32_t number, uint64_t *v)
{
    struct pb_field f;
    int rv;
    *v = 0;
    while ((rv = pb_next(&body, &f)) == 1) {
        if (f.number == number && f.wire == PB_VARINT) {
            *v = f.varint;
        }
    }
    return rv == 0 ? OK : E_MALFORMED_REQUEST;
}

void maint_status(struct call *c, struct slice bytes)
{
    UNUSED(bytes);
    uint64_t req = 0;
    int err = identity_check_user(call_gateway(c), call_identity(c));
    if (err != OK) {
        call_fail(c, err, NULL);
        return;
    }
    err = pending_status(call_gateway(c), STATUS_API, 0, call_answer, c, &req);
    call_submitted(c, err, req);
}

/* Queries of the local store with no argument that we must look at. */
static void local_query(struct call *c, enum command_kind kind, struct slice bytes)
{
    uint64_t ignored, req = 0;
    int err = call_gateway(c)->is_learner ? E_NOT_SUPPORTED_FOR_LEARNER : read_uint(bytes, 1, &ignored);
    if (err == OK) {
        err = pending_command(call_gateway(c), call_identity(c), VIA_QUERY, kind, bytes, call_answer, c, &req);
    }
    call_submitted(c, err, req);
}

void maint_hash_kv(struct call *c, struct slice bytes) { local_query(c, COMMAND_HASH_KV, bytes); }
void maint_hash(struct call *c, struct slice bytes) { local_query(c, COMMAND_HASH, bytes); }
void maint_defragment(struct call *c, struct slice bytes) { local_query(c, COMMAND_DEFRAGMENT, bytes); }

void maint_alarm(struct call *c, struct slice bytes)
{
    struct gatewayd *g = call_gateway(c);
    uint64_t action = 0, req = 0;
    int err = g->is_learner ? E_NOT_SUPPORTED_FOR_LEARNER : read_uint(bytes, 1, &action);
    if (err == OK) {
        err = identity_check_user(g, call_identity(c));
    }
    if (err == OK) {
        enum pending_via via = action == ALARM_GET ? VIA_READ : VIA_PROPOSE;
        err = pending_command(g, call_identity(c), via, COMMAND_ALARM, bytes, call_answer, c, &req);
    }
    call_submitted(c, err, req);
}

/* Which actions there are, and whether the target will do, stored knows. */
void maint_downgrade(struct call *c, struct slice bytes)
{
    struct gatewayd *g = call_gateway(c);
    uint64_t action = 0, req = 0;
    int err = g->is_learner ? E_NOT_SUPPORTED_FOR_LEARNER : read_uint(bytes, 1, &action);
    if (err == OK) {
        enum pending_via via = action == DOWNGRADE_ENABLE || action == DOWNGRADE_CANCEL ? VIA_PROPOSE : VIA_READ;
        err = pending_command(g, call_identity(c), via, COMMAND_DOWNGRADE, bytes, call_answer, c, &req);
    }
    call_submitted(c, err, req);
}

/* raftd checks that it leads and that the target can. */
int move_leader_submit(struct gatewayd *g, const struct identity *who, struct slice body, answer_cb *cb, void *arg, uint64_t *req)
{
    uint64_t target = 0;
    int err = g->is_learner ? E_NOT_SUPPORTED_FOR_LEARNER : read_uint(body, 1, &target);
    return err != OK ? err : pending_change(g, who, 0, target, SLICE_EMPTY, cb, arg, req);
}

/* MoveLeaderResponse comes without a header (spec/semantics.md §1): it is empty. */
static void moved(void *arg, const struct answer *a)
{
    struct call *c = arg;
    call_set_state(c, NULL);
    if (a->err != OK) {
        call_fail(c, a->err, NULL);
    } else {
        call_reply(c, SLICE_EMPTY);
    }
}

void maint_move_leader(struct call *c, struct slice bytes)
{
    uint64_t req = 0;
    int err = move_leader_submit(call_gateway(c), call_identity(c), bytes, moved, c, &req);
    call_submitted(c, err, req);
}

/* --- grpc.health.v1: the empty service name is the whole server ------------------------------------------- */

static bool names_server(struct slice body)
{
    struct pb_field f;
    bool is_empty = true;
    while (pb_next(&body, &f) == 1) {
        if (f.number == 1 && f.wire == PB_BYTES) {
            is_empty = f.bytes.len == 0;
        }
    }
    return is_empty;
}

static uint64_t health_now(const struct gatewayd *g)
{
    return g->stopping ? HEALTH_NOT_SERVING : HEALTH_SERVING;
}

static void health_encode(struct buf *out, uint64_t status) { pb_add_uint(out, 1, status); }

void health_check(struct call *c, struct slice bytes)
{
    if (!names_server(bytes)) {
        call_fail(c, E_NOT_FOUND, "unknown service");
        return;
    }
    struct buf out = BUF_INIT;
    health_encode(&out, health_now(call_gateway(c)));
    call_reply(c, buf_slice(&out));
    buf_fini(&out);
}

/* Says the status and stays open: it changes only when the server stops, and then the stream ends. */
void health_watch(struct call *c, struct slice bytes)
{
    struct buf out = BUF_INIT;
    health_encode(&out, names_server(bytes) ? health_now(call_gateway(c)) : (uint64_t)HEALTH_SERVICE_UNKNOWN);
    call_send(c, buf_slice(&out), NULL, 0);
    buf_fini(&out);
}

/* map<string, HealthCheckResponse>: one entry, the empty name. */
void health_list(struct call *c, struct slice bytes)
{
    UNUSED(bytes);
    struct buf status = BUF_INIT, entry = BUF_INIT, out = BUF_INIT;
    health_encode(&status, health_now(call_gateway(c)));
    pb_add_message(&entry, 1, SLICE_EMPTY);
    pb_add_message(&entry, 2, buf_slice(&status));
    pb_add_message(&out, 1, buf_slice(&entry));
    call_reply(c, buf_slice(&out));
    buf_fini(&status);
    buf_fini(&entry);
    buf_fini(&out);
}
