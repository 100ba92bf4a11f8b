/* range_job - a resolved range given in parts, and whole ranges for transactions.
 * A small result is read when it is opened. A large one holds a LevelDB snapshot, so that physical compaction cannot take
 * records away from it; the few records that were not in LevelDB yet when the snapshot was taken are copied. */
#include <stdlib.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/pb.h"
#include "stored/range_inner.h"

/* Results up to this size are read at once. */
#define EAGER_BYTES RESULT_PART_BYTES
/* How often a read of the newest state starts again because a compaction passed by. */
#define TRIES_MAX 10
#define STREAM_KEYS_FIRST 10
/* A stream's message stays well below LINK_MESSAGE_BYTES_MAX, whatever its number of keys should be. */
#define STREAM_BYTES_MAX (8 * MIB)

struct range_job {
    struct mvcc *m;
    struct api_range rq; /* its slices are not used after opening */
    struct range range;
    struct buf frame; /* of the RangeResponse: header before the kvs, more and count behind them */
    size_t head_len;
    struct db_snapshot *snap;
    bool stream;
    size_t next;        /* item */
    bool head_done;
    size_t stream_keys; /* of the next message */
};

/* Records that the snapshot lacks. */
static int copy_unflushed(struct mvcc *m, struct range *r, int64_t flushed)
{
    for (size_t i = 0; i < r->item_count; i++) {
        if (r->items[i].main <= flushed || (r->memory != NULL && r->memory[i] != 0)) {
            continue;
        }
        if (r->memory == NULL) {
            r->memory = xcalloc(r->item_cap, sizeof(*r->memory));
        }
        r->memory[i] = r->bytes.len + 1;
        int err = record_append(m, r->items[i], r->locked, &r->bytes);
        if (err != 0) {
            return err;
        }
    }
    return 0;
}

static int job_hold(struct range_job *job, bool *passed)
{
    struct mvcc *m = job->m;
    int err;
    if (range_kvs_size(&job->range, 0, job->range.item_count) <= EAGER_BYTES) {
        err = range_read_all(m, &job->range);
    } else {
        int64_t flushed = atomic_load(&m->flushed_rev);
        job->snap = db_snapshot_new(m->db);
        /* Deletion follows the mark: while the mark is not above our revision, nothing of ours was deleted. */
        err = job->range.rev < atomic_load(&m->compact_rev) ? E_COMPACTED : copy_unflushed(m, &job->range, flushed);
    }
    *passed = err == E_COMPACTED;
    return err;
}

static int job_try(struct range_job *job, int64_t pin, bool *passed)
{
    range_init(&job->range, &job->rq, false);
    int err = range_resolve(job->m, &job->range, pin, passed);
    if (err == 0) {
        err = job_hold(job, passed);
    }
    if (err != 0) {
        range_fini(&job->range);
        db_snapshot_free(job->m->db, job->snap);
        job->snap = NULL;
    }
    return err;
}

static int stream_check(const struct api_range *rq)
{
    if (rq->sort_order == API_SORT_DESCEND || (rq->sort_order == API_SORT_ASCEND && rq->sort_target != API_BY_KEY)) {
        return E_STREAM_SORT;
    }
    return range_is_filtered(rq) ? E_STREAM_FILTER : 0;
}

int range_open(struct mvcc *m, const struct api_range *rq, bool stream, struct range_job **out)
{
    int err = stream ? stream_check(rq) : 0;
    if (err != 0) {
        return err;
    }
    struct range_job *job = xcalloc(1, sizeof(*job));
    job->m = m;
    job->rq = *rq;
    job->stream = stream;
    job->stream_keys = STREAM_KEYS_FIRST;
    if (stream) {
        job->rq.sort_target = API_BY_KEY; /* without an order any target counts as the default */
    }
    bool passed = false;
    for (int i = 0; i < TRIES_MAX; i++) {
        err = job_try(job, -1, &passed);
        if (err == 0 || !passed || rq->revision > 0) {
            break;
        }
    }
    if (err != 0) {
        free(job);
        return err;
    }
    mvcc_add_header(m, &job->frame, job->range.header_rev);
    job->head_len = job->frame.len;
    range_add_tail(&job->range, &job->frame);
    atomic_fetch_add_explicit(&m->ranges, 1, memory_order_relaxed);
    *out = job;
    return 0;
}

size_t range_total(const struct range_job *job)
{
    if (job->stream) {
        return 0;
    }
    return job->frame.len + range_kvs_size(&job->range, 0, job->range.item_count);
}

static int job_add_kvs(struct range_job *job, size_t upto, struct buf *out)
{
    int err = range_add_kvs(job->m, job->snap, &job->range, job->next, upto, out);
    if (err == E_COMPACTED) { /* the snapshot has what the index said, or the store is damaged */
        log_error("mvcc: %s: a record of revision <= %lld is missing", db_dir(job->m->db), (long long)job->range.rev);
        return E_DAMAGED;
    }
    return err;
}

static int next_unary(struct range_job *job, size_t part_bytes, struct buf *out, bool *more)
{
    size_t before = out->len, upto = job->next, size = 0;
    while (upto < job->range.item_count && (size < part_bytes || upto == job->next)) {
        size += range_kvs_size(&job->range, upto, upto + 1);
        upto++;
    }
    if (!job->head_done) {
        buf_add(out, job->frame.data, job->head_len);
    }
    int err = job_add_kvs(job, upto, out);
    if (err != 0) {
        out->len = before;
        return err;
    }
    job->head_done = true;
    job->next = upto;
    *more = upto < job->range.item_count;
    if (!*more) {
        buf_add(out, job->frame.data + job->head_len, job->frame.len - job->head_len);
    }
    return 0;
}

/* §4: ten keys first; twice as many after a message below half the target, half as many after one above twice it. */
static int next_stream(struct range_job *job, size_t part_bytes, struct buf *out, bool *more)
{
    size_t before = out->len, upto = job->next, size = 0;
    while (upto < job->range.item_count && upto - job->next < job->stream_keys) {
        size_t one = range_kvs_size(&job->range, upto, upto + 1);
        if (upto > job->next && size + one > STREAM_BYTES_MAX) {
            break;
        }
        size += one;
        upto++;
    }
    bool last = upto == job->range.item_count;
    size_t whole = size + (last ? job->frame.len : 0);
    pb_add_head(out, 1, whole);
    if (last) {
        buf_add(out, job->frame.data, job->head_len);
    }
    int err = job_add_kvs(job, upto, out);
    if (err != 0) {
        out->len = before;
        return err;
    }
    if (last) {
        buf_add(out, job->frame.data + job->head_len, job->frame.len - job->head_len);
    }
    if (size < part_bytes / 2) {
        job->stream_keys *= 2;
    } else if (size > part_bytes * 2) {
        job->stream_keys = MAX(job->stream_keys / 2, (size_t)1);
    }
    job->next = upto;
    *more = !last;
    return 0;
}

int range_next(struct range_job *job, size_t part_bytes, struct buf *out, bool *more)
{
    return job->stream ? next_stream(job, part_bytes, out, more) : next_unary(job, part_bytes, out, more);
}

void range_close(struct range_job *job)
{
    if (job == NULL) {
        return;
    }
    range_fini(&job->range);
    db_snapshot_free(job->m->db, job->snap);
    buf_fini(&job->frame);
    free(job);
}

/* --- inside transactions ------------------------------------------------------------------------ */

int range_check_inner(const struct mvcc *m, const struct api_range *rq)
{
    if (rq->revision == 0) {
        return 0;
    }
    if (rq->revision > atomic_load(&m->rev)) {
        return E_FUTURE_REV;
    }
    return rq->revision < atomic_load(&m->compact_rev) ? E_COMPACTED : 0;
}

int range_run_locked(struct mvcc *m, const struct api_range *rq, size_t bytes_max, struct buf *out)
{
    struct range r;
    bool passed;
    range_init(&r, rq, true);
    int err = range_resolve(m, &r, -1, &passed);
    if (err == 0 && range_kvs_size(&r, 0, r.item_count) > bytes_max) {
        range_fini(&r);
        return E_TOO_BIG;
    }
    header_inner(out, r.header_rev);
    if (err == 0) {
        err = range_add_kvs(m, NULL, &r, 0, r.item_count, out);
    }
    if (err != 0) { /* its revision was checked before anything was written: only the disk is left */
        fatalx("mvcc: %s: a range that apply needs failed: %s", db_dir(m->db), err_text(err));
    }
    range_add_tail(&r, out);
    range_fini(&r);
    atomic_fetch_add_explicit(&m->ranges, 1, memory_order_relaxed);
    return 0;
}

int range_run_pinned(struct mvcc *m, const struct api_range *rq, int64_t rev, size_t bytes_max, struct buf *out)
{
    struct range_job job = {.m = m, .rq = *rq};
    bool passed;
    int err = job_try(&job, rev, &passed);
    if (err != 0) {
        return err;
    }
    size_t before = out->len;
    header_inner(out, job.range.header_rev);
    err = range_kvs_size(&job.range, 0, job.range.item_count) > bytes_max ? E_TOO_BIG
                                                                          : job_add_kvs(&job, job.range.item_count, out);
    if (err == 0) {
        range_add_tail(&job.range, out);
    } else {
        out->len = before;
    }
    range_fini(&job.range);
    db_snapshot_free(m->db, job.snap);
    atomic_fetch_add_explicit(&m->ranges, 1, memory_order_relaxed);
    return err;
}
