/* watch_book - see watch_book.h. */
#include "tests/lib/watch_book.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"

static void violation(struct watch_book *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void violation(struct watch_book *b, const char *fmt, ...)
{
    char text[512];
    int n = snprintf(text, sizeof(text), "%s: ", b->name);
    va_list args;
    va_start(args, fmt);
    vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, args);
    va_end(args);
    b->violations++;
    if (b->report)
        b->report(b->arg, text);
}

void watch_book_init(struct watch_book *b, const char *name, int64_t from, lin_report_fn *report, void *arg)
{
    *b = (struct watch_book){.name = name, .reached = from - 1, .report = report, .arg = arg};
}

void watch_book_fini(struct watch_book *b)
{
    free(b->events);
    b->events = NULL;
}

static void event_add(struct watch_book *b, const struct lin_event *e)
{
    if (b->count == b->cap) {
        b->cap = b->cap ? b->cap * 2 : 256;
        b->events = xrealloc(b->events, b->cap * sizeof(*b->events));
    }
    b->events[b->count++] = *e;
}

void watch_book_message(struct watch_book *b, int64_t header_rev, const struct lin_event *events, size_t count,
                        bool progress)
{
    int64_t before = b->reached, newest = before;
    for (size_t i = 0; i < count; i++) {
        const struct lin_event *e = &events[i];
        if (e->rev <= before)
            violation(b, "an event of revision %lld after revision %lld was told as complete", (long long)e->rev,
                      (long long)before);
        else if (e->rev < newest)
            violation(b, "revision %lld after revision %lld in one message", (long long)e->rev, (long long)newest);
        for (size_t k = 0; k < i; k++)
            if (events[k].rev == e->rev && events[k].key == e->key)
                violation(b, "key %d twice in revision %lld", e->key, (long long)e->rev);
        newest = MAX(newest, e->rev);
        event_add(b, e);
    }
    if (count && header_rev < newest)
        violation(b, "a header with revision %lld tells of revision %lld", (long long)header_rev, (long long)newest);
    if (!count && progress) {
        newest = MAX(newest, header_rev);
        b->bookmarks++;
    }
    b->reached = newest;
}

static bool event_eq(const struct lin_event *a, const struct lin_event *b)
{
    return a->rev == b->rev && a->key == b->key && a->value == b->value && a->has_prev == b->has_prev &&
           (!a->has_prev || (a->prev == b->prev && a->prev_rev == b->prev_rev));
}

void watch_book_settle(struct watch_book *b, const struct lin_event *events, size_t count)
{
    for (size_t i = 0; i < MIN(count, b->count); i++)
        if (!event_eq(&b->events[i], &events[i])) {
            violation(b, "event %zu is key %d of revision %lld, in the history it is key %d of revision %lld%s", i,
                      b->events[i].key, (long long)b->events[i].rev, events[i].key, (long long)events[i].rev,
                      b->events[i].rev == events[i].rev && b->events[i].key == events[i].key ? " (with other values)"
                                                                                             : "");
            return;
        }
    if (b->count != count)
        violation(b, "was told %zu events, the history has %zu; the last one told is of revision %lld", b->count, count,
                  (long long)(b->count ? b->events[b->count - 1].rev : 0));
}
