/* apply - one committed command -> effects and result, exactly once.
 * From in.c, in order of index; to mvcc.h, lease_cmd.c, alarm.c; results leave through results.c when the batch is written.
 *
 * All APPLY frames of one message are one batch: one LevelDB write that holds their effects, their results and the applied
 * index. Index applied + 1 is applied; a lower one is a duplicate of a resumed link; a higher one is a gap: the link is
 * closed, and our next HELLO tells raftd where to go on.
 *
 * Determinism: what happens here may depend on the entry and on the store, on nothing else. A command that cannot be
 * decoded is an error on every member alike, so it is skipped, never fatal. */
#include "stored/auth.h"
#include "stored/authorize.h"
#include "stored/snap.h"
#include "stored/stored.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "proto/api.h"
#include "proto/pb.h"

static void auth_tell(struct stored *s)
{
    if (s->auth->told == s->auth->gen)
        return;
    s->auth->told = s->auth->gen;
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++)
        if (s->gateways[slot].up)
            out_auth(&s->gateways[slot]);
}

/* --- how long commands take --------------------------------------------------------------------------------------- */

#define KINDS_MAX 64

/* By etcd's names; the rest, and what no etcd knows, are named after the command. */
static const char *op_name(uint64_t kind)
{
    switch (kind) {
    case COMMAND_PUT: return "Put";
    case COMMAND_DELETE_RANGE: return "DeleteRange";
    case COMMAND_TXN: return "Txn";
    case COMMAND_COMPACT: return "Compaction";
    case COMMAND_LEASE_GRANT: return "LeaseGrant";
    case COMMAND_LEASE_REVOKE: return "LeaseRevoke";
    case COMMAND_ALARM: return "Alarm";
    case COMMAND_AUTHENTICATE: return "Authenticate";
    case COMMAND_AUTH_ENABLE: return "AuthEnable";
    case COMMAND_AUTH_DISABLE: return "AuthDisable";
    default: return command_name(kind);
    }
}

void apply_init(struct stored *s)
{
    s->stats.ops = xcalloc(KINDS_MAX, sizeof *s->stats.ops);
    for (size_t i = 0; i < KINDS_MAX; i++)
        for (size_t k = 0; k < 2; k++)
            histogram_init(&s->stats.ops[i].took[k], 100, 20);
}

void apply_fini(struct stored *s)
{
    free(s->stats.ops);
    s->stats.ops = NULL;
}

void apply_metrics(const struct stored *s, struct buf *out)
{
    static const char name[] = "etcd_server_apply_duration_seconds";

    metrics_help(out, name, METRICS_HISTOGRAM, "Time of applying one entry, by kind.");
    for (size_t i = 0; i < KINDS_MAX; i++) {
        for (size_t k = 0; k < 2; k++) {
            char labels[96];

            /* One is always there. */
            if (histogram_count(&s->stats.ops[i].took[k]) == 0 && !(i == COMMAND_PUT && k == 1))
                continue;
            snprintf(labels, sizeof labels, "op=\"%s\",success=\"%s\",version=\"v3\"", op_name(i), k ? "true" : "false");
            histogram_render(out, name, labels, &s->stats.ops[i].took[k]);
        }
    }
}

static void apply_took(struct stored *s, uint64_t kind, int err, uint64_t us)
{
    uint64_t limit_ms = s->conf->warning_apply_duration_ms;

    if (kind < KINDS_MAX)
        histogram_observe_us(&s->stats.ops[kind].took[err == 0], us);
    s->stats.slow_applies += limit_ms > 0 && us > limit_ms * 1000;
}

/* --- the batch ------------------------------------------------------------------------------------------------------ */

static void apply_begin(struct stored *s)
{
    if (s->in_batch)
        return;
    s->in_batch = true;
    s->batch_bytes = 0;
    s->batch_us = clock_now_us();
    mvcc_batch_begin(s->mvcc);
}

static int apply_put(struct stored *s, struct slice body, struct buf *out)
{
    struct api_put rq;
    int err = api_decode_put(body, &rq);

    if (!err)
        err = api_check_put(&rq);
    if (!err && alarm_active(s, ALARM_NOSPACE))
        err = E_NO_SPACE;
    return err ? err : mvcc_put(s->mvcc, &rq, out);
}

static int apply_delete(struct stored *s, struct slice body, struct buf *out)
{
    struct api_delete rq;
    int err = api_decode_delete(body, &rq);

    if (!err)
        err = api_check_delete(&rq);
    return err ? err : mvcc_delete(s->mvcc, &rq, out);
}

static int apply_txn(struct stored *s, struct slice body, struct buf *out)
{
    struct arena arena;
    struct api_txn *rq;
    int err;

    arena_init(&arena);
    err = api_decode_txn(body, &arena, APPLY_TXN_OPS_MAX, &rq);
    if (!err)
        err = api_check_txn(rq, APPLY_TXN_OPS_MAX);
    if (!err && alarm_active(s, ALARM_NOSPACE) && api_txn_has_put(rq))
        err = E_NO_SPACE;
    if (!err)
        err = mvcc_txn(s->mvcc, rq, out);
    arena_fini(&arena);
    return err;
}

/* CompactionRequest: 1 revision, 2 physical. */
static int apply_compact(struct stored *s, struct slice body, uint64_t index, struct buf *out, bool *physical)
{
    struct pb_field f;
    int64_t rev = 0;
    int got, err;

    while ((got = pb_next(&body, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_VARINT)
            rev = (int64_t)f.varint;
        if (f.number == 2 && f.wire == PB_VARINT)
            *physical = f.varint != 0;
    }
    err = got < 0 ? got : mvcc_compact(s->mvcc, rev, out);
    if (!err) {
        upkeep_compacted(s, index);
        /* The log gets a line here and one when the records are gone: compactions are what an operator looks for. */
        log_info("compact: to revision %lld, current %lld", (long long)rev, (long long)mvcc_rev(s->mvcc));
    }
    return err;
}

/* While CORRUPT is raised no key and no lease changes (§15). Alarms do, and so does auth: who is to disarm it must log in. */
static bool refused_when_corrupt(uint64_t kind)
{
    switch (kind) {
    case COMMAND_PUT:
    case COMMAND_DELETE_RANGE:
    case COMMAND_TXN:
    case COMMAND_COMPACT:
    case COMMAND_LEASE_GRANT:
    case COMMAND_LEASE_REVOKE:
    case COMMAND_LEASE_EXPIRE:
        return true;
    default:
        return false;
    }
}

static int apply_kind(struct stored *s, const struct command *c, const struct fr_apply *fr, struct buf *out,
                      bool *physical)
{
    int err;

    if (refused_when_corrupt(c->kind) && alarm_active(s, ALARM_CORRUPT))
        return E_CORRUPT;
    err = authorize(s, c);
    if (err)
        return err;
    switch (c->kind) {
    case COMMAND_PUT:
        return apply_put(s, c->body, out);
    case COMMAND_DELETE_RANGE:
        return apply_delete(s, c->body, out);
    case COMMAND_TXN:
        return apply_txn(s, c->body, out);
    case COMMAND_COMPACT:
        return apply_compact(s, c->body, fr->index, out, physical);
    case COMMAND_LEASE_GRANT:
        return alarm_active(s, ALARM_NOSPACE) ? E_NO_SPACE : lease_cmd_grant(s, c->body, fr->index, out);
    case COMMAND_LEASE_REVOKE:
        return lease_cmd_revoke(s, c->body, out);
    case COMMAND_LEASE_EXPIRE:
        lease_cmd_expire(s, c->body, fr->term);
        return 0;
    case COMMAND_ALARM:
        return alarm_apply(s, c->body, out);
    case COMMAND_DOWNGRADE:
        return downgrade_apply(s, c->body, out);
    default:
        return auth_apply(s, c, fr->index, out);
    }
}

static void apply_command(struct stored *s, const struct fr_apply *fr)
{
    struct buf *out = &s->response;
    struct command c;
    bool physical = false;
    uint64_t us;
    int err = command_decode(fr->command, &c);

    if (err) {
        s->stats.malformed++;
        log_warnx("apply: entry %llu cannot be decoded (%s): skipped, on every member alike",
                  (unsigned long long)fr->index, err_text(err));
        return;
    }
    buf_reset(out);
    us = clock_now_us();
    err = apply_kind(s, &c, fr, out, &physical);
    apply_took(s, c.kind, err, clock_now_us() - us);
    physical = physical && !err;
    results_add(s, &c, err, buf_slice(out), physical);
    if (physical)
        upkeep_wait_compacted(s, &c, buf_slice(out));
    if (out->cap > RESULTS_KEEP_BYTES)
        buf_fini(out);
}

int apply_entry(struct stored *s, const struct fr_apply *fr)
{
    if (fr->index <= s->applied) {
        s->stats.duplicates++;
        return 0;
    }
    if (fr->index != s->applied + 1) {
        s->stats.gaps++;
        log_warnx("apply: got entry %llu after %llu: a message was lost, asking raftd again",
                  (unsigned long long)fr->index, (unsigned long long)s->applied);
        return E_AGAIN;
    }
    apply_begin(s);
    s->stats.entries++;
    s->batch_bytes += fr->command.len + LOG_ENTRY_OVERHEAD;
    if (fr->kind == APPLY_COMMAND)
        apply_command(s, fr);
    mvcc_chain_link(s->mvcc, fr->index);
    s->applied = fr->index;
    return 0;
}

/* What clients feel: entries are applied one after the other. */
static void warn_if_slow(struct stored *s, uint64_t us)
{
    uint64_t limit_ms = s->conf->warning_apply_duration_ms, swallowed;

    if (limit_ms > 0 && us > limit_ms * 1000 && log_allow(&s->slow_limit, loop_now_ms(s->loop), &swallowed))
        log_warnx("apply: entries took too long: up to %llu, took %llu ms, expected less than %llu ms, %zu bytes; %llu like it before",
                  (unsigned long long)s->applied, (unsigned long long)(us / 1000), (unsigned long long)limit_ms, s->batch_bytes,
                  (unsigned long long)swallowed);
}

void apply_end(struct stored *s)
{
    uint64_t us;

    if (!s->in_batch)
        return;
    us = clock_now_us();
    results_write(s, s->applied);
    mvcc_batch_end(s->mvcc, s->applied);
    s->in_batch = false;
    if (s->blank && s->commit > 0 && s->applied >= s->commit) {
        s->blank = false;
        snap_door(s);
        log_info("stored: the log has made the store whole again, applied %llu", (unsigned long long)s->applied);
    }
    histogram_observe_us(&s->stats.commit, clock_now_us() - us);
    us = clock_now_us() - s->batch_us;
    histogram_observe_us(&s->stats.apply, us);
    warn_if_slow(s, us);

    /* Written: now it may be told. Results first, somebody waits for them; but before the result of a change of auth, what
     * it is now, so that the gateway looks at its next request with that in mind. */
    auth_tell(s);
    results_send(s);
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++)
        if (s->gateways[slot].up)
            feed_send(&s->gateways[slot]);
    out_hello(s);
    out_applied(s);
    upkeep_applied(s, s->batch_bytes);
}
