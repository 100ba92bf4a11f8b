/* read - queries: SERVE (linearizable, confirmed by raftd) and QUERY (this member's state).
 * From in.c, which gathers the requests of one message; to mvcc.h on a worker thread, one job per message; results leave
 * through out.c on the loop's thread. What needs the loop's own state (leases, alarms, barriers) is answered at once, and
 * so are a few point reads, because handing them over costs more than doing them.
 *
 *      arrived --index not applied--> parked --applied--> arrived --> job --(a link is full)--> stalled --> job --> answered
 *
 * A large range is kept open with its first part sent; each MORE fetches the next part, FORGET or the link's end closes it. A backup is
 * a large result whose first parts are empty: they are the steps of its plan, so that none of them takes long. */
#include "stored/stored.h"

#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/api.h"
#include "proto/names.h"
#include "stored/auth.h"
#include "stored/authorize.h"
#include "stored/backup.h"

/* An answer that raftd takes to another member: a lease with its keys, and far more than such a one has. */
#define RAFTD_RESULT_BYTES_MAX (8 * MIB)
/* How long a renewal waits for the end of its lease: about as long as a gateway does. */
#define RENEWAL_WAIT_MS 15000

struct read_request {
    TAILQ_ENTRY(read_request) link; /* of arrived, parked or a job */
    unsigned slot;
    uint64_t epoch; /* of the gateway when it asked */
    uint64_t index; /* SERVE: not before this is applied; QUERY: 0 */
    uint64_t req;
    struct command c; /* points into data */
    uint64_t auth_gen; /* of auth when it was allowed */
    uint64_t until_ms; /* a renewal that waits for its lease's end: not longer; 0: it does not */
    /* The answer; body is [body_at, body_at + body_len) of the job's out. */
    int err;
    size_t body_at, body_len, total;
    uint64_t took_us;
    struct range_job *range; /* there is more of it */
    uint8_t data[];
};

struct read_job {
    TAILQ_ENTRY(read_job) link; /* of stalled */
    struct stored *s;
    struct read_requests todo, done;
    struct buf out;
};

/* The rest of a large result: of a range, of a backup, or bytes that a command or a transaction gave. */
struct open_result {
    UT_hash_handle hh;
    uint64_t req;
    struct gateway *g;
    uint64_t epoch;
    struct range_job *range; /* or NULL */
    struct backup *backup;   /* or NULL */
    struct buf bytes;        /* the rest itself; for a range or a backup: the part that a worker has just made */
    size_t pos;
    uint64_t total;
    uint64_t begun_ms, asked_ms; /* backup: opened; asked for its last part */
    struct buf command; /* of a range or a backup: to be allowed again when auth has changed */
    uint64_t auth_gen;
    bool busy;      /* a worker is at it */
    bool forgotten; /* meanwhile nobody wants it; freed when the worker is done */
    bool more;
    int err;
};

/* --- large results ---------------------------------------------------------------------------------------- */

static void open_free(struct open_result *o)
{
    if (o->range)
        range_close(o->range);
    if (o->backup) {
        backup_close(o->backup);
        histogram_observe_us(&o->g->s->stats.backup, (loop_now_ms(o->g->s->loop) - o->begun_ms) * 1000);
        o->g->s->backups--;
    }
    buf_fini(&o->bytes);
    buf_fini(&o->command);
    free(o);
}

static struct open_result *open_add(struct gateway *g, uint64_t req, uint64_t total)
{
    struct open_result *o, *old;

    HASH_FIND(hh, g->opens, &req, sizeof req, old);
    if (old) /* asked again under the same number: the first asking is of no use to anybody */
        read_forget(g, req);
    o = xcalloc(1, sizeof *o);
    o->req = req;
    o->g = g;
    o->epoch = g->epoch;
    o->total = total;
    HASH_ADD(hh, g->opens, req, sizeof o->req, o);
    g->s->stats.results_large++;
    return o;
}

static void open_end(struct open_result *o)
{
    HASH_DELETE(hh, o->g->opens, o);
    if (o->busy)
        o->forgotten = true;
    else
        open_free(o);
}

static void part_work(void *arg)
{
    struct open_result *o = arg;

    buf_reset(&o->bytes);
    if (o->backup)
        o->err = backup_step(o->backup, RESULT_PART_BYTES, &o->bytes, &o->more);
    else
        o->err = range_next(o->range, RESULT_PART_BYTES, &o->bytes, &o->more);
}

/* May who asked for it still have it? */
static int open_check(struct open_result *o)
{
    struct stored *s = o->g->s;
    struct command c;

    if (o->auth_gen == s->auth->gen)
        return 0;
    o->auth_gen = s->auth->gen;
    must(command_decode(buf_slice(&o->command), &c) == 0);
    return authorize_again(s, &c);
}

static void part_done(void *arg)
{
    struct open_result *o = arg;

    o->busy = false;
    if (o->forgotten) {
        open_free(o);
        return;
    }
    if (o->backup)
        o->total = backup_bytes(o->backup);
    if (!o->err)
        o->err = open_check(o);
    if (o->err)
        out_result(o->g, o->req, o->err, SLICE_EMPTY);
    else
        out_result_part(o->g, o->req, o->total, o->more, buf_slice(&o->bytes));
    if (o->err || !o->more)
        open_end(o);
}

static void bytes_more(struct open_result *o)
{
    size_t len = MIN(o->bytes.len - o->pos, RESULT_PART_BYTES);
    bool more = o->pos + len < o->bytes.len;

    out_result_part(o->g, o->req, o->total, more, slice_of(o->bytes.data + o->pos, len));
    o->pos += len;
    if (!more)
        open_end(o);
}

void read_more(struct gateway *g, uint64_t req)
{
    struct open_result *o;

    HASH_FIND(hh, g->opens, &req, sizeof req, o);
    if (!o || o->busy) /* over already, or asked twice */
        return;
    if (!o->range && !o->backup) {
        bytes_more(o);
        return;
    }
    o->busy = true;
    o->asked_ms = loop_now_ms(g->s->loop);
    loop_work(g->s->loop, part_work, part_done, o);
}

void read_forget(struct gateway *g, uint64_t req)
{
    struct open_result *o;

    HASH_FIND(hh, g->opens, &req, sizeof req, o);
    if (o)
        open_end(o);
}

/* Of what a gateway has not taken yet. Large results are few. */
static size_t open_bytes(const struct gateway *g)
{
    size_t bytes = 0;

    for (const struct open_result *o = g->opens; o; o = o->hh.next)
        bytes += o->range || o->backup ? 0 : o->bytes.len;
    return bytes;
}

void read_result(struct gateway *g, uint64_t req, struct slice body)
{
    struct open_result *o;

    /* raftd passes on what comes in one piece. */
    if (g->slot == LINK_SLOT_STORED && body.len > RAFTD_RESULT_BYTES_MAX) {
        out_result(g, req, E_TOO_BIG, SLICE_EMPTY);
        return;
    }
    if (body.len <= RESULT_PART_BYTES || g->slot == LINK_SLOT_STORED) {
        out_result(g, req, 0, body);
        return;
    }
    if (open_bytes(g) + body.len > RESULTS_BYTES_MAX) {
        out_result(g, req, E_TOO_BIG, SLICE_EMPTY);
        return;
    }
    o = open_add(g, req, body.len);
    buf_add_slice(&o->bytes, body);
    bytes_more(o);
}

/* --- backups ------------------------------------------------------------------------------------------------ */

/* Its first part is empty, and comes at once: the gateway's clock for it stands until it asks for more. */
static int backup_begin(struct gateway *g, uint64_t req, const struct command *c)
{
    struct stored *s = g->s;
    struct rows_facts facts = {.member_id = s->member_id, .term = s->term, .members = c->body};
    struct backup *backup;

    if (s->backups >= BACKUPS_MAX || HASH_COUNT(g->opens) >= OPEN_RESULTS_MAX)
        return E_REQUEST_TOO_MANY_REQUESTS;
    int err = backup_open(s->mvcc, &facts, &backup);
    if (err)
        return err;
    struct open_result *o = open_add(g, req, 0);
    o->backup = backup;
    command_encode(&o->command, c);
    o->auth_gen = s->auth->gen;
    o->begun_ms = o->asked_ms = loop_now_ms(s->loop);
    s->backups++;
    out_result_part(g, req, 0, true, SLICE_EMPTY);
    return 0;
}

static bool backup_is_stale(const struct open_result *o, uint64_t now_ms)
{
    return o->backup && !o->busy &&
           (now_ms >= o->asked_ms + BACKUP_IDLE_MS || now_ms >= o->begun_ms + BACKUP_MS_MAX);
}

static void backups_give_up(struct stored *s, uint64_t now_ms)
{
    if (!s->backups)
        return;
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++) {
        struct gateway *g = &s->gateways[slot];
        struct open_result *o, *next;

        HASH_ITER(hh, g->opens, o, next)
            if (backup_is_stale(o, now_ms)) {
                log_warnx("backup: given up, its reader takes too long");
                out_result(g, o->req, E_TIMEOUT, SLICE_EMPTY);
                open_end(o);
            }
    }
}

/* --- one query, on any thread ------------------------------------------------------------------------------ */

static int read_range(struct mvcc *m, struct read_request *r, struct buf *out)
{
    bool stream = r->c.kind == COMMAND_RANGE_STREAM, more = true;
    struct range_job *job;
    struct api_range rq;
    int err = api_decode_range(r->c.body, &rq);

    if (!err)
        err = api_check_range(&rq);
    if (!err)
        err = range_open(m, &rq, stream, &job);
    if (err)
        return err;
    r->total = range_total(job);
    do
        err = range_next(job, RESULT_PART_BYTES, out, &more);
    while (!err && more && !stream && r->total <= RESULT_PART_BYTES);
    if (!err && more)
        r->range = job;
    else
        range_close(job);
    return err;
}

static int read_txn(struct mvcc *m, const struct read_request *r, struct buf *out)
{
    struct arena arena;
    struct api_txn *rq;
    int err;

    arena_init(&arena);
    err = api_decode_txn(r->c.body, &arena, APPLY_TXN_OPS_MAX, &rq);
    if (!err)
        err = api_check_txn(rq, APPLY_TXN_OPS_MAX);
    if (!err && !api_txn_is_read_only(rq))
        err = E_INVALID;
    if (!err)
        err = mvcc_txn_read(m, rq, out);
    arena_fini(&arena);
    return err;
}

static void read_one(struct mvcc *m, struct read_request *r, struct buf *out)
{
    r->body_at = out->len;
    r->err = r->c.kind == COMMAND_TXN ? read_txn(m, r, out) : read_range(m, r, out);
    if (r->err)
        out->len = r->body_at;
    r->body_len = out->len - r->body_at;
}

/* --- jobs --------------------------------------------------------------------------------------------------- */

static struct gateway *asker(struct stored *s, const struct read_request *r)
{
    struct gateway *g = stored_gateway(s, r->slot);

    return g && g->epoch == r->epoch ? g : NULL;
}

static void request_free(struct read_request *r)
{
    if (r->range)
        range_close(r->range);
    free(r);
}

static void requests_free(struct read_requests *rs)
{
    struct read_request *r;

    while ((r = TAILQ_FIRST(rs)) != NULL) {
        TAILQ_REMOVE(rs, r, link);
        request_free(r);
    }
}

static void job_work(void *arg)
{
    struct read_job *job = arg;
    struct read_request *r;

    while (job->out.len < READ_JOB_BYTES && (r = TAILQ_FIRST(&job->todo)) != NULL) {
        TAILQ_REMOVE(&job->todo, r, link);
        uint64_t begun_us = clock_now_us();

        read_one(job->s->mvcc, r, &job->out);
        r->took_us = clock_now_us() - begun_us;
        TAILQ_INSERT_TAIL(&job->done, r, link);
    }
}

static void request_answer(struct stored *s, struct read_request *r, const struct buf *out)
{
    struct gateway *g = asker(s, r);
    struct slice body = buf_part(out, r->body_at, r->body_len);

    if (r->c.kind == COMMAND_RANGE)
        histogram_observe_us(&s->stats.ranges[r->err == 0], r->took_us);
    if (!g)
        return;
    /* Auth has changed since it was allowed, and it may have read what was written after that. */
    if (!r->err && r->auth_gen != s->auth->gen)
        r->err = authorize_again(s, &r->c);
    if (r->err) {
        out_result(g, r->req, r->err, SLICE_EMPTY);
    } else if (!r->range) {
        read_result(g, r->req, body);
    } else if (HASH_COUNT(g->opens) >= OPEN_RESULTS_MAX) {
        out_result(g, r->req, E_REQUEST_TOO_MANY_REQUESTS, SLICE_EMPTY);
    } else {
        struct open_result *o = open_add(g, r->req, r->total);

        o->range = r->range;
        r->range = NULL;
        command_encode(&o->command, &r->c);
        o->auth_gen = s->auth->gen;
        out_result_part(g, r->req, o->total, true, body);
    }
}

static void job_submit(struct read_job *job);

static void job_done(void *arg)
{
    struct read_job *job = arg;
    struct read_request *r;

    TAILQ_FOREACH(r, &job->done, link)
        request_answer(job->s, r, &job->out);
    requests_free(&job->done);
    buf_reset(&job->out);
    if (!TAILQ_EMPTY(&job->todo)) {
        job_submit(job);
        return;
    }
    buf_fini(&job->out);
    free(job);
}

/* Does somebody who would be answered by job not take any more at the moment? */
static bool job_must_wait(const struct read_job *job)
{
    const struct read_request *r;
    bool seen[GATEWAY_SLOTS + 1] = {false};

    TAILQ_FOREACH(r, &job->todo, link) {
        struct gateway *g;

        if (seen[r->slot])
            continue;
        seen[r->slot] = true;
        g = asker(job->s, r);
        if (g && link_is_full(g->link))
            return true;
    }
    return false;
}

static bool is_point_read(const struct read_request *r)
{
    struct api_range rq;

    return r->c.kind == COMMAND_RANGE && api_decode_range(r->c.body, &rq) == 0 && rq.range_end.len == 0;
}

static bool job_is_small(const struct read_job *job)
{
    const struct read_request *r;
    size_t count = 0;

    TAILQ_FOREACH(r, &job->todo, link)
        if (++count > READ_INLINE_MAX || !is_point_read(r))
            return false;
    return true;
}

static void job_submit(struct read_job *job)
{
    if (job_must_wait(job))
        TAILQ_INSERT_TAIL(&job->s->stalled, job, link);
    else
        loop_work(job->s->loop, job_work, job_done, job);
}

static void job_start(struct read_job *job)
{
    if (job_must_wait(job)) {
        TAILQ_INSERT_TAIL(&job->s->stalled, job, link);
    } else if (job_is_small(job)) {
        job_work(job);
        job_done(job);
    } else {
        loop_work(job->s->loop, job_work, job_done, job);
    }
}

void read_drained(struct stored *s)
{
    struct read_jobs waiting = TAILQ_HEAD_INITIALIZER(waiting);
    struct read_job *job;

    TAILQ_CONCAT(&waiting, &s->stalled, link);
    while ((job = TAILQ_FIRST(&waiting)) != NULL) {
        TAILQ_REMOVE(&waiting, job, link);
        job_submit(job);
    }
}

/* --- arriving ------------------------------------------------------------------------------------------------ */

void read_gather(struct stored *s, unsigned slot, uint64_t index, uint64_t req, struct slice command)
{
    struct read_request *r = xmalloc(sizeof *r + command.len);

    memset(r, 0, sizeof *r);
    r->slot = slot;
    r->epoch = s->gateways[slot].epoch;
    r->index = index;
    r->req = req;
    if (command.len)
        memcpy(r->data, command.data, command.len);
    r->err = command_decode(slice_of(r->data, command.len), &r->c);
    TAILQ_INSERT_TAIL(&s->arrived, r, link);
}

/* What the loop answers itself. false: a job's business. */
static bool answer_now(struct stored *s, struct gateway *g, struct read_request *r)
{
    struct buf out = BUF_INIT;
    int err = r->err;

    if (!err && s->stopping)
        err = E_STOPPED;
    if (!err && r->index && r->c.kind == COMMAND_RANGE && alarm_active(s, ALARM_CORRUPT))
        err = E_CORRUPT;
    if (!err)
        err = authorize(s, &r->c);
    if (!err) {
        r->auth_gen = s->auth->gen;
        switch (r->c.kind) {
        case COMMAND_RANGE:
        case COMMAND_RANGE_STREAM:
        case COMMAND_TXN:
            return false;
        case COMMAND_HASH_KV:
            upkeep_hash(g, r->req, r->c.body);
            return true;
        case COMMAND_HASH:
            upkeep_hash_all(g, r->req);
            return true;
        case COMMAND_DEFRAGMENT:
            upkeep_defragment(g, r->req);
            return true;
        case COMMAND_SNAPSHOT:
            err = g->slot == LINK_SLOT_STORED ? E_INVALID : backup_begin(g, r->req, &r->c);
            if (err)
                break;
            return true;
        case COMMAND_BARRIER:
            mvcc_add_header(s->mvcc, &out, -1);
            if (upkeep_barrier(g, r->req, buf_slice(&out))) {
                buf_fini(&out);
                return true;
            }
            break;
        case COMMAND_LEASE_KEEP_ALIVE:
            err = lease_cmd_keep_alive(s, r->c.body, &out);
            break;
        case COMMAND_LEASE_TIME_TO_LIVE:
            err = lease_cmd_time_to_live(s, r->c.body, &out);
            break;
        case COMMAND_LEASE_LEASES:
            err = lease_cmd_leases(s, &out);
            break;
        case COMMAND_ALARM:
            err = alarm_get(s, r->c.body, &out);
            break;
        case COMMAND_DOWNGRADE:
            err = downgrade_validate(s, r->c.body, &out);
            break;
        case COMMAND_PASSWORD:
            auth_password_ask(g, r->req, r->c.body);
            return true;
        default:
            err = auth_query(s, &r->c, &out);
        }
    }
    if (err)
        out_result(g, r->req, err, SLICE_EMPTY);
    else
        read_result(g, r->req, buf_slice(&out));
    buf_fini(&out);
    return true;
}

/* Parked requests whose index is applied now go in front: they came first. */
static void unpark(struct stored *s, uint64_t applied)
{
    struct read_requests ready = TAILQ_HEAD_INITIALIZER(ready);
    struct read_request *r, *next;

    if (TAILQ_EMPTY(&s->parked))
        return;
    for (r = TAILQ_FIRST(&s->parked); r; r = next) {
        next = TAILQ_NEXT(r, link);
        if (r->index > applied && asker(s, r))
            continue;
        TAILQ_REMOVE(&s->parked, r, link);
        TAILQ_INSERT_TAIL(&ready, r, link);
    }
    TAILQ_CONCAT(&ready, &s->arrived, link);
    TAILQ_CONCAT(&s->arrived, &ready, link);
}

void read_run(struct stored *s)
{
    uint64_t applied = mvcc_applied(s->mvcc);
    struct read_job *job = NULL;
    struct read_request *r;

    unpark(s, applied);
    while ((r = TAILQ_FIRST(&s->arrived)) != NULL) {
        struct gateway *g = asker(s, r);

        TAILQ_REMOVE(&s->arrived, r, link);
        if (g && !r->err && r->c.kind == COMMAND_LEASE_KEEP_ALIVE && r->index <= applied && lease_cmd_renewal_waits(s, r->c.body)) {
            r->index = applied + 1; /* looks again with each entry; the revoke is one of them */
            if (r->until_ms == 0)
                r->until_ms = loop_now_ms(s->loop) + RENEWAL_WAIT_MS;
        }
        if (g && r->index > applied) {
            TAILQ_INSERT_TAIL(&s->parked, r, link);
        } else if (!g || answer_now(s, g, r)) {
            request_free(r);
        } else {
            if (!job) {
                job = xcalloc(1, sizeof *job);
                job->s = s;
                TAILQ_INIT(&job->todo);
                TAILQ_INIT(&job->done);
            }
            TAILQ_INSERT_TAIL(&job->todo, r, link);
        }
    }
    if (job)
        job_start(job);
}

/* Nobody waits for them any more; an end that cannot come (no leader, CORRUPT) would let them gather. */
static void renewals_give_up(struct stored *s, uint64_t now_ms)
{
    struct read_request *r, *next;

    for (r = TAILQ_FIRST(&s->parked); r; r = next) {
        struct gateway *g = asker(s, r);

        next = TAILQ_NEXT(r, link);
        if (g && (r->until_ms == 0 || now_ms < r->until_ms))
            continue;
        TAILQ_REMOVE(&s->parked, r, link);
        if (g)
            out_result(g, r->req, E_TIMEOUT, SLICE_EMPTY);
        request_free(r);
    }
}

void read_tick(struct stored *s, uint64_t now_ms)
{
    renewals_give_up(s, now_ms);
    backups_give_up(s, now_ms);
}

void read_gateway_down(struct gateway *g)
{
    struct open_result *o, *next;

    HASH_ITER(hh, g->opens, o, next)
        open_end(o);
    read_drained(g->s); /* nobody waits for room on this link any more */
}

void read_fini(struct stored *s)
{
    struct read_job *job;

    requests_free(&s->arrived);
    requests_free(&s->parked);
    while ((job = TAILQ_FIRST(&s->stalled)) != NULL) {
        TAILQ_REMOVE(&s->stalled, job, link);
        requests_free(&job->todo);
        buf_fini(&job->out);
        free(job);
    }
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++) {
        struct open_result *o, *next;

        HASH_ITER(hh, s->gateways[slot].opens, o, next)
            open_end(o);
    }
}
