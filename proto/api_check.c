/* api_check - what can be said about a request from the request alone.
 * gatewayd asks it for its clients (before anything is proposed), stored asks again at apply. Rules and order of the
 * checks are etcd's: spec/semantics.md §3 (ranges), §5 (put), §6 (delete), §7 (transactions).
 *
 * Invariant: the answer depends on nothing but the request and ops_max, so all members give the same one. */
#include "proto/api.h"

#include <stdlib.h>

#include "common/err.h"

/* --- intervals ----------------------------------------------------------------------------------- */

struct api_interval api_interval(struct slice key, struct slice range_end)
{
    return (struct api_interval){
        .key = key,
        .end = range_end,
        .single = range_end.len == 0,
        .open = range_end.len == 1 && range_end.data[0] == 0,
    };
}

bool api_interval_has(const struct api_interval *i, struct slice key)
{
    if (i->single)
        return slice_eq(key, i->key);
    return slice_cmp(key, i->key) >= 0 && (i->open || slice_cmp(key, i->end) < 0);
}

/* --- single requests ----------------------------------------------------------------------------- */

int api_check_range(const struct api_range *m)
{
    if (m->key.len == 0)
        return E_EMPTY_KEY;
    if (m->sort_order < API_SORT_NONE || m->sort_order > API_SORT_DESCEND)
        return E_INVALID_SORT_OPTION;
    if (m->sort_target < API_BY_KEY || m->sort_target > API_BY_VALUE)
        return E_INVALID_SORT_OPTION;
    return 0;
}

int api_check_put(const struct api_put *m)
{
    if (m->key.len == 0)
        return E_EMPTY_KEY;
    if (m->ignore_value && m->value.len > 0)
        return E_VALUE_PROVIDED;
    if (m->ignore_lease && m->lease != 0)
        return E_LEASE_PROVIDED;
    return 0;
}

int api_check_delete(const struct api_delete *m)
{
    return m->key.len == 0 ? E_EMPTY_KEY : 0;
}

/* --- transactions: every operation on its own ------------------------------------------------------ */

static int check_txn_ops(const struct api_txn *m, uint64_t ops_max);

static int check_op(const struct api_request_op *op, uint64_t ops_max)
{
    switch (op->op) {
    case API_OP_RANGE:
        return api_check_range(&op->range);
    case API_OP_PUT:
        return api_check_put(&op->put);
    case API_OP_DELETE:
        return api_check_delete(&op->del);
    case API_OP_TXN:
        return check_txn_ops(op->txn, ops_max);
    case API_OP_NONE:
        break;
    }
    return E_KEY_NOT_FOUND; /* sic: etcd's answer to an operation that is none */
}

static int check_list(const struct api_request_op *ops, size_t count, uint64_t ops_max)
{
    for (size_t i = 0; i < count; i++) {
        int err = check_op(&ops[i], ops_max);
        if (err < 0)
            return err;
    }
    return 0;
}

static int check_txn_ops(const struct api_txn *m, uint64_t ops_max)
{
    size_t longest = MAX(m->compare_count, MAX(m->success_count, m->failure_count));

    if (longest > ops_max) /* API_TXN_TOO_MANY is longer than any */
        return E_TOO_MANY_OPS;
    for (size_t i = 0; i < m->compare_count; i++)
        if (m->compares[i].key.len == 0)
            return E_EMPTY_KEY;

    /* What this level uses up is not there for the levels below: nesting cannot multiply the limit. */
    int err = check_list(m->success, m->success_count, ops_max - longest);
    return err < 0 ? err : check_list(m->failure, m->failure_count, ops_max - longest);
}

/* --- transactions: no key is changed twice --------------------------------------------------------
 *
 * Two changes may meet in one execution if the place where their ways through the tree part is a branch (a list: all of
 * it runs), and may not if it is a transaction (then or else runs, never both). Forbidden are a put and another
 * put of the same key that may meet, and a put and a delete of an interval around its key that may meet.
 *
 *      txn --then--> [put a][txn --then--> [put b]          put a meets everything but the root's else;
 *        |                    `-else--> [put b]][del c]      the two puts of b never meet
 *        `---else--> [put a]
 *
 * All changes are numbered as they stand, so that a branch or an operation is a span of numbers. Then a line sweeps
 * over the keys. A change is set in a Fenwick tree under its number while the line is on its keys. Where
 * the line stands on a put, the put collides if any of the branches on its way up holds a set change outside of the
 * operation it came from. So the cost is O(n log n), times the depth of the tree for puts (TXN_DEPTH_MAX). */

struct span {
    uint32_t first, end; /* numbers of changes: first <= n < end */
};

struct branch {
    const struct branch *parent; /* NULL: of the root transaction */
    struct span all;             /* changes in this branch, with all below */
    const struct span *txn;      /* changes in the transaction that this branch belongs to; NULL for the root */
};

/* Order of what happens at one key: an interval that ends before it is gone, one that begins with it is there, and
 * all puts of it are there before the first one is judged. */
enum sweep { SWEEP_END, SWEEP_BEGIN, SWEEP_JUDGE, SWEEP_LAST };

struct event {
    struct slice key;
    enum sweep sweep;
    uint32_t change;
    const struct branch *branch; /* of a put, for SWEEP_JUDGE */
};

struct sizes {
    size_t changes, events, txns; /* puts and deletes; their events at most; nested transactions */
};

struct check {
    struct branch *branches;
    size_t branch_count;
    struct span *txns;
    size_t txn_count;
    struct event *events;
    size_t event_count;
    uint32_t change_count;
};

static void measure(const struct api_request_op *ops, size_t count, struct sizes *s)
{
    for (size_t i = 0; i < count; i++) {
        if (ops[i].op == API_OP_PUT || ops[i].op == API_OP_DELETE) {
            s->changes++;
            s->events += ops[i].op == API_OP_PUT ? 3 : 2;
        } else if (ops[i].op == API_OP_TXN) {
            s->txns++;
            measure(ops[i].txn->success, ops[i].txn->success_count, s);
            measure(ops[i].txn->failure, ops[i].txn->failure_count, s);
        }
    }
}

static void add_event(struct check *c, struct slice key, enum sweep sweep, const struct branch *branch)
{
    c->events[c->event_count++] =
        (struct event){.key = key, .sweep = sweep, .change = c->change_count, .branch = branch};
}

static void add_put(struct check *c, const struct api_put *put, const struct branch *branch)
{
    add_event(c, put->key, SWEEP_BEGIN, NULL);
    add_event(c, put->key, SWEEP_JUDGE, branch);
    add_event(c, put->key, SWEEP_LAST, NULL);
    c->change_count++;
}

static void add_delete(struct check *c, const struct api_delete *del)
{
    struct api_interval interval = api_interval(del->key, del->range_end);

    /* An interval without keys still takes its number, which measure() counted. */
    if (interval.single || interval.open || slice_cmp(interval.key, interval.end) < 0) {
        add_event(c, interval.key, SWEEP_BEGIN, NULL);
        if (interval.single)
            add_event(c, interval.key, SWEEP_LAST, NULL);
        else if (!interval.open)
            add_event(c, interval.end, SWEEP_END, NULL);
    }
    c->change_count++;
}

static void collect(struct check *c, const struct api_request_op *ops, size_t count, const struct branch *parent,
                    const struct span *txn)
{
    struct branch *branch = &c->branches[c->branch_count++];

    *branch = (struct branch){.parent = parent, .all = {c->change_count, 0}, .txn = txn};
    for (size_t i = 0; i < count; i++) {
        if (ops[i].op == API_OP_PUT) {
            add_put(c, &ops[i].put, branch);
        } else if (ops[i].op == API_OP_DELETE) {
            add_delete(c, &ops[i].del);
        } else if (ops[i].op == API_OP_TXN) {
            struct span *span = &c->txns[c->txn_count++];
            *span = (struct span){c->change_count, 0};
            collect(c, ops[i].txn->success, ops[i].txn->success_count, branch, span);
            collect(c, ops[i].txn->failure, ops[i].txn->failure_count, branch, span);
            span->end = c->change_count;
        }
    }
    branch->all.end = c->change_count;
}

/* Fenwick tree over the numbers of changes, counting those that are set. Slot 0 is not used. */

static void fenwick_add(uint32_t *tree, uint32_t count, uint32_t change, bool set)
{
    for (uint32_t i = change + 1; i <= count; i += i & -i)
        tree[i] += set ? 1 : UINT32_MAX; /* wraps: minus one */
}

static uint32_t fenwick_sum(const uint32_t *tree, uint32_t end)
{
    uint32_t sum = 0;

    for (uint32_t i = end; i > 0; i -= i & -i)
        sum += tree[i];
    return sum;
}

static uint32_t fenwick_count(const uint32_t *tree, struct span span)
{
    return fenwick_sum(tree, span.end) - fenwick_sum(tree, span.first);
}

static bool collides(const uint32_t *tree, const struct branch *branch, uint32_t put)
{
    struct span from = {put, put + 1};

    for (; branch != NULL; branch = branch->parent) {
        if (fenwick_count(tree, branch->all) != fenwick_count(tree, from))
            return true;
        if (branch->txn != NULL)
            from = *branch->txn;
    }
    return false;
}

static int event_cmp(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    int order = slice_cmp(x->key, y->key);

    return order != 0 ? order : (int)x->sweep - (int)y->sweep;
}

static int sweep(struct check *c, uint32_t *tree)
{
    qsort(c->events, c->event_count, sizeof(c->events[0]), event_cmp);
    for (size_t i = 0; i < c->event_count; i++) {
        const struct event *e = &c->events[i];

        if (e->sweep != SWEEP_JUDGE)
            fenwick_add(tree, c->change_count, e->change, e->sweep == SWEEP_BEGIN);
        else if (collides(tree, e->branch, e->change))
            return E_DUPLICATE_KEY;
    }
    return 0;
}

static int check_duplicates(const struct api_txn *m)
{
    struct sizes success = {0, 0, 0}, failure = {0, 0, 0};

    measure(m->success, m->success_count, &success);
    measure(m->failure, m->failure_count, &failure);
    /* The common transaction changes one key: there is nothing that could collide. */
    if (success.changes < 2 && failure.changes < 2)
        return 0;

    size_t changes = success.changes + failure.changes, txns = success.txns + failure.txns;
    must(changes < UINT32_MAX / 4); /* a request of 12 MiB has not that many */
    struct check c = {
        .branches = xcalloc(2 + 2 * txns, sizeof(c.branches[0])),
        .txns = xcalloc(txns + 1, sizeof(c.txns[0])),
        .events = xcalloc(success.events + failure.events, sizeof(c.events[0])),
    };
    uint32_t *tree = xcalloc(changes + 1, sizeof(tree[0]));

    collect(&c, m->success, m->success_count, NULL, NULL);
    collect(&c, m->failure, m->failure_count, NULL, NULL);
    int err = sweep(&c, tree);

    free(tree);
    free(c.events);
    free(c.txns);
    free(c.branches);
    return err;
}

int api_check_txn(const struct api_txn *m, uint64_t ops_max)
{
    int err = check_txn_ops(m, ops_max);

    return err < 0 ? err : check_duplicates(m);
}

/* --- what kind of transaction it is ---------------------------------------------------------------- */

static bool only_ranges(const struct api_request_op *ops, size_t count, bool serializable)
{
    for (size_t i = 0; i < count; i++)
        if (ops[i].op != API_OP_RANGE || (serializable && !ops[i].range.serializable))
            return false;
    return true;
}

bool api_txn_is_read_only(const struct api_txn *m)
{
    return only_ranges(m->success, m->success_count, false) && only_ranges(m->failure, m->failure_count, false);
}

bool api_txn_is_serializable(const struct api_txn *m)
{
    return only_ranges(m->success, m->success_count, true) && only_ranges(m->failure, m->failure_count, true);
}

static bool has_put(const struct api_request_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (ops[i].op == API_OP_PUT || (ops[i].op == API_OP_TXN && api_txn_has_put(ops[i].txn)))
            return true;
    return false;
}

bool api_txn_has_put(const struct api_txn *m)
{
    return has_put(m->success, m->success_count) || has_put(m->failure, m->failure_count);
}
