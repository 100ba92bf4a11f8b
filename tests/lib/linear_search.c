/* linear_search - lin_check_registers: is there an order of one key's operations in which each takes effect between its
 * call and its end, and each answer is right? Wing and Gong's search: walk the calls in order of time; an operation
 * that may come next is taken out and the search goes on from the front; at the first end of an operation that was not
 * taken the last one taken is put back. Lowe's memory: a set of operations taken that led to the same value before
 * leads nowhere now. Sets are remembered by a hash of 128 bits. */
#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"
#include "common/rand.h"
#include "tests/lib/linear.h"

struct node { /* a call or an end, in a list by time */
    struct node *prev, *next;
    struct node *end; /* of a call; NULL: this is an end */
    const struct lin_op *op;
    uint64_t mark[2]; /* random: the hash of a set is the xor of its marks */
};

struct taken {
    struct node *call;
    uint64_t value; /* before */
    bool forced;    /* nothing else needs to be tried in its place */
};

struct memo {
    uint64_t (*slots)[2];
    size_t cap, count;
};

struct search {
    struct node *nodes, head;
    struct taken *taken;
    size_t taken_count, most; /* most: how far it came, for the report */
    const struct lin_op *stuck;
    uint64_t set[2];
    struct memo memo;
};

enum verdict { VERDICT_YES, VERDICT_NO, VERDICT_UNDECIDED };

/* Whether op may happen when the key has this value; *after is its value then. */
static bool op_steps(const struct lin_op *op, uint64_t value, uint64_t *after)
{
    bool open = op->ended == LIN_OPEN;
    *after = value;
    switch (op->kind) {
    case LIN_GET:
        return op->found == value;
    case LIN_PUT:
        *after = op->value;
        return open || !op->told || op->found == value;
    case LIN_CAS:
        if (value == op->expected) {
            *after = op->value;
            return open || op->done;
        }
        return open || (!op->done && (!op->told || op->found == value));
    case LIN_DELETE:
        *after = 0;
        return open || op->done == (value != 0);
    case LIN_SERIAL_GET:
        break;
    }
    return true;
}

static void memo_put(struct memo *m, const uint64_t key[2])
{
    size_t at = key[0] & (m->cap - 1);
    while (m->slots[at][0] || m->slots[at][1])
        at = (at + 1) & (m->cap - 1);
    m->slots[at][0] = key[0];
    m->slots[at][1] = key[1];
}

/* False if it was there. */
static bool memo_add(struct memo *m, const uint64_t set[2], uint64_t value)
{
    uint64_t key[2] = {set[0] ^ value * 0x9e3779b97f4a7c15u, set[1] ^ (value + 1) * 0xc2b2ae3d27d4eb4fu};
    if (m->count * 2 >= m->cap) {
        struct memo old = *m;
        m->cap = old.cap ? old.cap * 2 : 4096;
        m->slots = xcalloc(m->cap, sizeof(*m->slots));
        for (size_t i = 0; i < old.cap; i++)
            if (old.slots[i][0] || old.slots[i][1])
                memo_put(m, old.slots[i]);
        free(old.slots);
    }
    for (size_t at = key[0] & (m->cap - 1); m->slots[at][0] || m->slots[at][1]; at = (at + 1) & (m->cap - 1))
        if (m->slots[at][0] == key[0] && m->slots[at][1] == key[1])
            return false;
    memo_put(m, key);
    m->count++;
    return true;
}

static void node_out(struct node *n)
{
    n->prev->next = n->next;
    if (n->next)
        n->next->prev = n->prev;
}

static void node_back(struct node *n)
{
    n->prev->next = n;
    if (n->next)
        n->next->prev = n;
}

static bool op_only_looks(const struct lin_op *op)
{
    return op->kind == LIN_GET ||
           (op->ended != LIN_OPEN && !op->done && (op->kind == LIN_CAS || op->kind == LIN_DELETE));
}

/* An operation that may come next, is right, and changes nothing: it can be taken here if it can be taken anywhere.
 * Without this, fifty reads that wait for the same leader are 2^50 sets. */
static struct node *look_next(const struct search *s, uint64_t value)
{
    uint64_t after;
    for (struct node *n = s->head.next; n && n->end; n = n->next)
        if (op_only_looks(n->op) && op_steps(n->op, value, &after))
            return n;
    return NULL;
}

/* False if the set that this makes is known to lead nowhere. */
static bool take(struct search *s, struct node *n, uint64_t *value, bool forced)
{
    uint64_t after, set[2] = {s->set[0] ^ n->mark[0], s->set[1] ^ n->mark[1]};
    if (!op_steps(n->op, *value, &after) || !memo_add(&s->memo, set, after))
        return false;
    s->taken[s->taken_count++] = (struct taken){n, *value, forced};
    s->set[0] = set[0], s->set[1] = set[1];
    *value = after;
    node_out(n);
    node_out(n->end);
    return true;
}

/* Puts back up to the last one that was chosen. Returns where to go on; NULL: all choices were tried. */
static struct node *put_back(struct search *s, uint64_t *value)
{
    while (s->taken_count) {
        struct taken *last = &s->taken[--s->taken_count];
        *value = last->value;
        s->set[0] ^= last->call->mark[0], s->set[1] ^= last->call->mark[1];
        node_back(last->call->end);
        node_back(last->call);
        if (!last->forced)
            return last->call->next;
    }
    return NULL;
}

static enum verdict search_run(struct search *s, uint64_t steps_max)
{
    uint64_t value = 0;
    struct node *at = NULL; /* NULL: nothing was tried here yet */
    for (uint64_t steps = 0; s->head.next; steps++) {
        if (steps > steps_max)
            return VERDICT_UNDECIDED;
        struct node *look = at ? NULL : look_next(s, value);
        if (look) {
            if (take(s, look, &value, true))
                continue;
        } else {
            for (at = at ? at : s->head.next; at->end && !take(s, at, &value, false); at = at->next)
                steps++;
            if (at->end) {
                at = NULL;
                continue;
            }
            if (!s->stuck || s->taken_count > s->most) {
                s->most = s->taken_count;
                s->stuck = at->op;
            }
        }
        at = put_back(s, &value);
        if (!at)
            return VERDICT_NO;
    }
    return VERDICT_YES;
}

static int node_cmp(const void *a, const void *b)
{
    const struct node *x = *(struct node *const *)a, *y = *(struct node *const *)b;
    uint64_t s = x->end ? x->op->called : x->op->ended, t = y->end ? y->op->called : y->op->ended;
    return s < t ? -1 : s > t;
}

static enum verdict key_search(const struct lin_op *ops, size_t op_count, int key, uint64_t steps_max,
                               struct lin_op *stuck)
{
    struct search s = {.nodes = xcalloc(2 * op_count + 1, sizeof(*s.nodes)),
                       .taken = xcalloc(op_count + 1, sizeof(*s.taken))};
    struct node **order = xcalloc(2 * op_count + 1, sizeof(*order));
    struct rand rand;
    size_t count = 0;
    rand_seed(&rand, 1);
    for (size_t i = 0; i < op_count; i++) {
        /* A read without an answer says nothing; a serializable one may be old. */
        if (ops[i].key != key || ops[i].kind == LIN_SERIAL_GET || (ops[i].kind == LIN_GET && ops[i].ended == LIN_OPEN))
            continue;
        struct node *call = &s.nodes[count], *end = &s.nodes[count + 1];
        *call = (struct node){.op = &ops[i], .end = end, .mark = {rand_u64(&rand), rand_u64(&rand)}};
        end->op = &ops[i];
        order[count++] = call;
        order[count++] = end;
    }
    qsort(order, count, sizeof(*order), node_cmp);
    struct node *last = &s.head;
    for (size_t i = 0; i < count; i++) {
        last->next = order[i];
        order[i]->prev = last;
        last = order[i];
    }
    enum verdict verdict = search_run(&s, steps_max);
    if (s.stuck)
        *stuck = *s.stuck;
    free(s.memo.slots);
    free(s.nodes);
    free(s.taken);
    free(order);
    return verdict;
}

uint64_t lin_check_registers(const struct lin_op *ops, size_t op_count, uint64_t steps_max, uint64_t *undecided,
                             lin_report_fn *report, void *arg)
{
    int keys = 0;
    uint64_t violations = 0;
    for (size_t i = 0; i < op_count; i++)
        keys = MAX(keys, ops[i].key + 1);
    for (int key = 0; key < keys; key++) {
        struct lin_op stuck = {0};
        switch (key_search(ops, op_count, key, steps_max, &stuck)) {
        case VERDICT_YES:
            break;
        case VERDICT_UNDECIDED:
            if (undecided)
                ++*undecided;
            break;
        case VERDICT_NO:
            violations++;
            char text[256];
            snprintf(text, sizeof(text),
                     "key %d has no order of its operations that fits; furthest at the one called %llu, ended %llu, "
                     "value %llu, found %llu",
                     key, (unsigned long long)stuck.called, (unsigned long long)stuck.ended,
                     (unsigned long long)stuck.value, (unsigned long long)stuck.found);
            if (report)
                report(arg, text);
            break;
        }
    }
    return violations;
}
