/* txn - compare, then one branch or the other (semantics.md §7).
 *
 * Four passes over the tree, all against the state before the transaction except the last:
 *   1 compares choose the branches, those of nested transactions on the chosen path included;
 *   2 every put on the path is checked, 3 every range on it;
 *   4 the path is run: from here on nothing can fail, so a transaction is whole or not at all. (Its answer can: one above
 *     TXN_ANSWER_BYTES_MAX is not told. What was changed is, by watches and to whoever reads next.)
 * The choices are kept in the order of the walk, one byte a transaction, and each later pass takes them off again. */
#include <stdlib.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/pb.h"
#include "stored/mvcc_inner.h"

#define READ_TRIES_MAX 10

struct choices {
    struct buf taken; /* 1: success */
    size_t next;      /* of the running pass */
    size_t answered;  /* bytes of the answer so far */
    bool too_big;     /* it is over the limit: nothing more is read or answered */
};

struct branch {
    const struct api_request_op *ops;
    size_t count;
};

static struct branch branch_of(const struct api_txn *t, bool success)
{
    return success ? (struct branch){t->success, t->success_count} : (struct branch){t->failure, t->failure_count};
}

static struct branch branch_next(struct choices *ch, const struct api_txn *t)
{
    return branch_of(t, ch->taken.data[ch->next++] != 0);
}

/* --- compares ----------------------------------------------------------------------------------- */

int key_state_at(struct mvcc *m, const struct entry *e, int64_t rev, struct key_state *out)
{
    struct sight s;
    *out = (struct key_state){0};
    if (e == NULL || !entry_at(e, rev, &s) || s.at.tombstone) {
        return 0;
    }
    *out = (struct key_state){.exists = true, .create = e->create, .mod = s.at.main, .version = entry_version(e),
                              .lease = entry_lease(e)};
    if (s.newest) {
        return 0;
    }
    struct buf record = BUF_INIT;
    struct api_key_value kv;
    int err = record_append(m, s.at, true, &record);
    if (err == 0 && api_decode_key_value(buf_slice(&record), &kv) != 0) {
        err = E_DAMAGED;
    }
    if (err == 0) {
        *out = (struct key_state){.exists = true, .create = kv.create_revision, .mod = s.at.main, .version = kv.version,
                                  .lease = kv.lease};
    }
    buf_fini(&record);
    return err;
}

static int by_number(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b;
}

static bool order_holds(int64_t result, int order)
{
    switch (result) {
    case API_EQUAL:
        return order == 0;
    case API_GREATER:
        return order > 0;
    case API_LESS:
        return order < 0;
    case API_NOT_EQUAL:
        return order != 0;
    default:
        return true; /* as etcd: an unknown relation does not object */
    }
}

static bool number_holds(const struct api_compare *c, const struct key_state *s)
{
    int order = 0;
    switch (c->target) {
    case API_VERSION:
        order = by_number(s->version, c->number);
        break;
    case API_CREATE:
        order = by_number(s->create, c->number);
        break;
    case API_MOD:
        order = by_number(s->mod, c->number);
        break;
    case API_LEASE:
        order = by_number(s->lease, c->number);
        break;
    default:
        break;
    }
    return order_holds(c->result, order);
}

static int value_holds(struct mvcc *m, const struct api_compare *c, const struct entry *e, int64_t rev, bool *holds)
{
    struct sight s;
    *holds = false; /* a missing key has no value to compare, not even for NOT_EQUAL */
    if (e == NULL || !entry_at(e, rev, &s) || s.at.tombstone) {
        return 0;
    }
    struct buf record = BUF_INIT;
    struct api_key_value kv;
    int err = record_append(m, s.at, true, &record);
    if (err == 0 && api_decode_key_value(buf_slice(&record), &kv) != 0) {
        err = E_DAMAGED;
    }
    if (err == 0) {
        *holds = order_holds(c->result, slice_cmp(kv.value, c->value));
    }
    buf_fini(&record);
    return err;
}

static int entry_holds(struct mvcc *m, const struct api_compare *c, const struct entry *e, int64_t rev, bool *holds)
{
    if (c->target == API_VALUE) {
        return value_holds(m, c, e, rev, holds);
    }
    struct key_state s;
    int err = key_state_at(m, e, rev, &s);
    *holds = err == 0 && number_holds(c, &s);
    return err;
}

static int compare_holds(struct mvcc *m, const struct api_compare *c, int64_t rev, bool *holds)
{
    struct api_interval in = api_interval(c->key, c->range_end);
    if (in.single) {
        return entry_holds(m, c, index_find(m->ix, c->key), rev, holds);
    }
    struct index_iter it;
    bool any = false;
    *holds = true;
    index_seek(m->ix, in.key, &it);
    for (const struct entry *e = index_next(&it); e != NULL && *holds && api_interval_has(&in, entry_key(e));
         e = index_next(&it)) {
        struct sight s;
        if (!entry_at(e, rev, &s) || s.at.tombstone) {
            continue;
        }
        any = true;
        int err = entry_holds(m, c, e, rev, holds);
        if (err != 0) {
            return err;
        }
    }
    return any ? 0 : entry_holds(m, c, NULL, rev, holds);
}

static int choose(struct mvcc *m, const struct api_txn *t, int64_t rev, struct choices *ch)
{
    bool success = true;
    for (size_t i = 0; i < t->compare_count && success; i++) {
        int err = compare_holds(m, &t->compares[i], rev, &success);
        if (err != 0) {
            return err;
        }
    }
    buf_add_byte(&ch->taken, success);
    struct branch b = branch_of(t, success);
    for (size_t i = 0; i < b.count; i++) {
        int err = b.ops[i].op == API_OP_TXN ? choose(m, b.ops[i].txn, rev, ch) : 0;
        if (err != 0) {
            return err;
        }
    }
    return 0;
}

/* --- checks ------------------------------------------------------------------------------------- */

static int check(struct mvcc *m, const struct api_txn *t, enum api_op what, struct choices *ch)
{
    struct branch b = branch_next(ch, t);
    int err = 0;
    for (size_t i = 0; i < b.count && err == 0; i++) {
        const struct api_request_op *op = &b.ops[i];
        if (op->op == API_OP_TXN) {
            err = check(m, op->txn, what, ch);
        } else if (op->op == what) {
            err = what == API_OP_PUT ? put_check(m, &op->put, true) : range_check_inner(m, &op->range);
        }
    }
    return err;
}

static int check_path(struct mvcc *m, const struct api_txn *t, struct choices *ch)
{
    ch->next = 0;
    int err = check(m, t, API_OP_PUT, ch);
    if (err == 0) {
        ch->next = 0;
        err = check(m, t, API_OP_RANGE, ch);
    }
    ch->next = 0;
    return err;
}

/* --- running ------------------------------------------------------------------------------------ */

/* Fields of a ResponseOp by kind of operation. */
static const uint32_t response_field[] = {
    [API_OP_RANGE] = 1, [API_OP_PUT] = 2, [API_OP_DELETE] = 3, [API_OP_TXN] = 4};

static void response_add(struct buf *out, enum api_op op, struct slice body)
{
    uint32_t field = response_field[op];
    pb_add_head(out, 3, pb_head_size(field, body.len) + body.len);
    pb_add_message(out, field, body);
}

static int run_range(struct mvcc *m, const struct api_range *rq, int64_t pin, struct choices *ch, struct buf *out)
{
    size_t left = TXN_ANSWER_BYTES_MAX - ch->answered;
    if (ch->too_big) {
        return 0;
    }
    int err = pin >= 0 ? range_run_pinned(m, rq, pin, left, out) : range_run_locked(m, rq, left, out);
    if (err == E_TOO_BIG) {
        ch->too_big = true;
        err = 0;
    }
    return err;
}

static void answer_op(struct choices *ch, enum api_op op, struct slice body, struct buf *out)
{
    if (op != API_OP_TXN) { /* whose parts were counted one by one */
        ch->too_big = ch->too_big || body.len > TXN_ANSWER_BYTES_MAX - ch->answered;
        ch->answered += ch->too_big ? 0 : body.len;
    }
    if (!ch->too_big) {
        response_add(out, op, body);
    }
}

/* pin < 0: a write transaction, under the lock; else a read-only one at that revision. */
static int run(struct mvcc *m, const struct api_txn *t, int64_t pin, struct choices *ch, struct buf *out)
{
    bool success = ch->taken.data[ch->next] != 0;
    struct branch b = branch_next(ch, t);
    struct buf body = BUF_INIT;
    int err = 0;
    pb_add_uint(out, 2, success);
    for (size_t i = 0; i < b.count && err == 0; i++) {
        const struct api_request_op *op = &b.ops[i];
        buf_reset(&body);
        switch (op->op) {
        case API_OP_RANGE:
            err = run_range(m, &op->range, pin, ch, &body);
            break;
        case API_OP_PUT:
            must(pin < 0);
            put_run(m, &op->put, true, &body);
            break;
        case API_OP_DELETE:
            must(pin < 0);
            delete_run(m, &op->del, true, &body);
            break;
        case API_OP_TXN:
            pb_add_head(&body, 1, 0); /* an empty header message */
            err = run(m, op->txn, pin, ch, &body);
            break;
        default:
            continue; /* refused by api_check_txn; without meaning here */
        }
        if (err == 0) {
            answer_op(ch, op->op, buf_slice(&body), out);
        }
    }
    buf_fini(&body);
    return err;
}

int mvcc_txn(struct mvcc *m, const struct api_txn *rq, struct buf *out)
{
    struct choices ch = {.taken = BUF_INIT};
    struct buf body = BUF_INIT;
    cmd_begin(m);
    int err = choose(m, rq, atomic_load(&m->rev), &ch);
    if (err == E_DAMAGED || err == E_IO) {
        fatalx("mvcc: %s: a compare that apply needs failed: %s", db_dir(m->db), err_text(err));
    }
    if (err == 0) {
        err = check_path(m, rq, &ch);
    }
    if (err == 0) {
        err = run(m, rq, -1, &ch, &body);
        must(err == 0);
        err = ch.too_big ? E_TOO_BIG : 0;
        if (err == 0) {
            mvcc_add_header(m, out, cmd_rev(m));
            buf_add_slice(out, buf_slice(&body));
        }
        atomic_fetch_add_explicit(&m->txns, 1, memory_order_relaxed);
    }
    cmd_end(m);
    buf_fini(&body);
    buf_fini(&ch.taken);
    return err;
}

/* One attempt at one revision; *passed: compaction overtook it between the checks and the reads. */
static int read_once(struct mvcc *m, const struct api_txn *rq, struct buf *out, bool *passed)
{
    struct choices ch = {.taken = BUF_INIT};
    struct buf body = BUF_INIT;
    pthread_rwlock_rdlock(&m->lock);
    int64_t pin = atomic_load(&m->rev);
    int err = choose(m, rq, pin, &ch);
    if (err == 0) {
        err = check_path(m, rq, &ch);
    }
    pthread_rwlock_unlock(&m->lock);
    if (err == 0) {
        err = run(m, rq, pin, &ch, &body);
        *passed = err == E_COMPACTED;
        err = err == 0 && ch.too_big ? E_TOO_BIG : err;
    }
    if (err == 0) {
        mvcc_add_header(m, out, pin);
        buf_add_slice(out, buf_slice(&body));
        atomic_fetch_add_explicit(&m->txns, 1, memory_order_relaxed);
    }
    buf_fini(&body);
    buf_fini(&ch.taken);
    return err;
}

int mvcc_txn_read(struct mvcc *m, const struct api_txn *rq, struct buf *out)
{
    int err = 0;
    for (int i = 0; i < READ_TRIES_MAX; i++) {
        bool passed = false;
        err = read_once(m, rq, out, &passed);
        if (!passed) {
            break;
        }
    }
    return err;
}
