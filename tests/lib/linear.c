/* linear - see linear.h: the check by revisions. The search is in linear_search.c. */
#include "tests/lib/linear.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"

struct check {
    const struct lin_op *ops;
    size_t op_count;
    const struct lin_event *events;
    size_t event_count;
    int64_t *floors;  /* by op: the newest revision that was answered before it was called */
    uint8_t *claimed; /* by event: an operation says that it made it */
    uint64_t violations;
    lin_report_fn *report;
    void *arg;
};

static const char *const kind_names[] = {[LIN_GET] = "get",
                                         [LIN_SERIAL_GET] = "serializable get",
                                         [LIN_PUT] = "put",
                                         [LIN_CAS] = "cas",
                                         [LIN_DELETE] = "delete"};

static void violation(struct check *c, const struct lin_op *op, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void violation(struct check *c, const struct lin_op *op, const char *fmt, ...)
{
    char text[512];
    int n = 0;
    c->violations++;
    if (!c->report)
        return;
    if (op)
        n = snprintf(text, sizeof(text),
                     "%s of key %d at endpoint %d (called %llu, ended %lld, revision %lld): ", kind_names[op->kind],
                     op->key, op->place, (unsigned long long)op->called, (long long)op->ended, (long long)op->rev);
    va_list args;
    va_start(args, fmt);
    vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, args);
    va_end(args);
    c->report(c->arg, text);
}

/* The first event with a revision of at least rev. */
static size_t event_from(const struct check *c, int64_t rev)
{
    size_t low = 0, high = c->event_count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (c->events[mid].rev < rev)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* The last event of the key up to rev; NULL if there is none. */
static const struct lin_event *state_at(const struct check *c, int key, int64_t rev)
{
    for (size_t i = event_from(c, rev + 1); i-- > 0;)
        if (c->events[i].key == key)
            return &c->events[i];
    return NULL;
}

static void check_events(struct check *c)
{
    for (size_t i = 0; i < c->event_count; i++) {
        const struct lin_event *e = &c->events[i];
        if (i && c->events[i - 1].rev > e->rev)
            violation(c, NULL, "events out of order at revision %lld", (long long)e->rev);
        for (size_t k = i; k-- > 0 && c->events[k].rev == e->rev;)
            if (c->events[k].key == e->key)
                violation(c, NULL, "two events of key %d in revision %lld", e->key, (long long)e->rev);
        const struct lin_event *before = state_at(c, e->key, e->rev - 1);
        uint64_t value = before ? before->value : 0;
        if (e->has_prev && (e->prev != value || (value && e->prev_rev != before->rev)))
            violation(c, NULL, "the event of key %d in revision %lld has %llu as its previous value instead of %llu",
                      e->key, (long long)e->rev, (unsigned long long)e->prev, (unsigned long long)value);
        if (!e->value && !value)
            violation(c, NULL, "revision %lld deletes key %d, which is absent", (long long)e->rev, e->key);
    }
}

static bool op_changes(const struct lin_op *op)
{
    return op->kind == LIN_PUT || (op->kind == LIN_CAS && op->done) || (op->kind == LIN_DELETE && op->done);
}

/* What was read must be what the events say of this revision. */
static void check_found(struct check *c, const struct lin_op *op, int64_t rev)
{
    const struct lin_event *e = state_at(c, op->key, rev);
    uint64_t value = e ? e->value : 0;
    if (op->told && (op->found != value || (value && op->found_rev != e->rev)))
        violation(c, op, "found %llu of revision %lld, but at that time there was %llu of revision %lld",
                  (unsigned long long)op->found, (long long)op->found_rev, (unsigned long long)value,
                  (long long)(e ? e->rev : 0));
    if (op->kind == LIN_DELETE && !op->done && value)
        violation(c, op, "deleted nothing, but there was %llu", (unsigned long long)value);
    if (op->kind == LIN_CAS && op->done && value != op->expected)
        violation(c, op, "succeeded, but there was %llu instead of %llu", (unsigned long long)value,
                  (unsigned long long)op->expected);
    if (op->kind == LIN_CAS && !op->done && value == op->expected)
        violation(c, op, "failed, but there was %llu, as it expected", (unsigned long long)value);
}

/* The event that an answered change says it made: at exactly its revision. */
static void check_own_event(struct check *c, const struct lin_op *op)
{
    uint64_t value = op->kind == LIN_DELETE ? 0 : op->value;
    for (size_t i = event_from(c, op->rev); i < c->event_count && c->events[i].rev == op->rev; i++) {
        if (c->events[i].key != op->key || c->events[i].value != value)
            continue;
        if (c->claimed[i]++)
            violation(c, op, "another operation was told the same revision");
        return;
    }
    violation(c, op, "was acknowledged, but no event tells of it");
}

static void check_answer(struct check *c, size_t at)
{
    const struct lin_op *op = &c->ops[at];
    if (op->kind == LIN_SERIAL_GET) {
        check_found(c, op, op->rev);
        return;
    }
    if (op_changes(op)) {
        if (op->rev <= c->floors[at])
            violation(c, op, "changed something before revision %lld, which was answered before this was called",
                      (long long)c->floors[at]);
        check_own_event(c, op);
        check_found(c, op, op->rev - 1);
    } else {
        if (op->rev < c->floors[at])
            violation(c, op, "is stale: revision %lld was answered before this was called", (long long)c->floors[at]);
        check_found(c, op, op->rev);
    }
}

/* Events that nobody was told of are the work of operations that got no answer, each once, and none before its call. */
static void check_unclaimed(struct check *c)
{
    uint8_t *used = xcalloc(c->op_count ? c->op_count : 1, 1);
    for (size_t i = 0; i < c->event_count; i++) {
        const struct lin_event *e = &c->events[i];
        size_t at = SIZE_MAX;
        /* Of several open deletes the first called; as events are taken in order, a fitting choice is found if there is
         * one. */
        for (size_t k = 0; !c->claimed[i] && k < c->op_count && at == SIZE_MAX; k++) {
            const struct lin_op *op = &c->ops[k];
            bool same = e->value ? (op->kind == LIN_PUT || op->kind == LIN_CAS) && op->value == e->value
                                 : op->kind == LIN_DELETE;
            if (op->ended == LIN_OPEN && op->key == e->key && same && !used[k])
                at = k;
        }
        if (c->claimed[i])
            continue;
        if (at == SIZE_MAX) {
            violation(c, NULL, "revision %lld changed key %d to %llu, and no operation can have done that",
                      (long long)e->rev, e->key, (unsigned long long)e->value);
            continue;
        }
        used[at] = 1;
        const struct lin_op *op = &c->ops[at];
        if (e->rev <= c->floors[at])
            violation(c, op,
                      "without an answer, changed revision %lld, but revision %lld was answered before this was called",
                      (long long)e->rev, (long long)c->floors[at]);
        const struct lin_event *before = state_at(c, e->key, e->rev - 1);
        if (op->kind == LIN_CAS && (before ? before->value : 0) != op->expected)
            violation(c, op, "without an answer, replaced %llu instead of %llu",
                      (unsigned long long)(before ? before->value : 0), (unsigned long long)op->expected);
    }
    free(used);
}

struct moment {
    uint64_t time;
    size_t op;
};

static int moment_cmp(const void *a, const void *b)
{
    const struct moment *x = a, *y = b;
    return x->time < y->time ? -1 : x->time > y->time;
}

/* One walk through time: at each call, the newest revision answered so far. Serializable reads promise nothing and
 * demand nothing. */
static void floors_fill(struct check *c)
{
    struct moment *moments = xcalloc(2 * c->op_count + 1, sizeof(*moments));
    size_t count = 0;
    for (size_t i = 0; i < c->op_count; i++) {
        moments[count++] = (struct moment){c->ops[i].called, i};
        if (c->ops[i].ended != LIN_OPEN)
            moments[count++] = (struct moment){c->ops[i].ended, i};
    }
    qsort(moments, count, sizeof(*moments), moment_cmp);
    int64_t newest = 0;
    for (size_t i = 0; i < count; i++) {
        const struct lin_op *op = &c->ops[moments[i].op];
        if (moments[i].time == op->called)
            c->floors[moments[i].op] = newest;
        else if (op->kind != LIN_SERIAL_GET)
            newest = MAX(newest, op->rev);
    }
    free(moments);
}

uint64_t lin_check_revisions(const struct lin_op *ops, size_t op_count, const struct lin_event *events,
                             size_t event_count, lin_report_fn *report, void *arg)
{
    struct check c = {
        .ops = ops, .op_count = op_count, .events = events, .event_count = event_count, .report = report, .arg = arg};
    c.floors = xcalloc(op_count + 1, sizeof(*c.floors));
    c.claimed = xcalloc(event_count + 1, 1);
    floors_fill(&c);
    check_events(&c);
    for (size_t i = 0; i < op_count; i++)
        if (ops[i].ended != LIN_OPEN)
            check_answer(&c, i);
    check_unclaimed(&c);
    free(c.floors);
    free(c.claimed);
    return c.violations;
}
