/* watcher - see watcher.h. */
#include "tests/lib/watcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "proto/api.h"
#include "proto/pb.h"

#define RETRY_US 50000
#define PROGRESS_EVERY_US 100000

static bool event_read(const struct watcher *w, struct slice bytes, struct lin_event *e)
{
    struct pb_field f;
    struct slice kv = SLICE_EMPTY, prev = SLICE_EMPTY;
    struct api_key_value m;
    bool deleted = false;
    while (pb_next(&bytes, &f) == 1) {
        if (f.number == 1)
            deleted = f.varint == 1;
        else if (f.number == 2)
            kv = f.bytes;
        else if (f.number == 3)
            prev = f.bytes;
    }
    if (api_decode_key_value(kv, &m) != 0)
        return false;
    *e = (struct lin_event){.rev = m.mod_revision, .key = recorder_key(w->recorder, m.key), .has_prev = true};
    e->value = deleted ? 0 : recorder_value(m.value);
    if (e->key < 0 || (!deleted && !e->value))
        return false;
    /* A key that was absent has no prev_kv. */
    if (prev.len && api_decode_key_value(prev, &m) == 0) {
        e->prev = recorder_value(m.value);
        e->prev_rev = m.mod_revision;
    }
    return true;
}

static void bad(struct watcher *w, const char *what)
{
    char text[256];
    snprintf(text, sizeof(text), "%s: %s", w->name, what);
    w->book.violations++;
    w->book.report(w->book.arg, text);
}

static void watch_message(struct gcall *call, struct slice message, void *arg)
{
    UNUSED(call);
    struct watcher *w = arg;
    struct pb_field f, h;
    struct lin_event *events = NULL;
    size_t count = 0;
    int64_t rev = 0;
    bool created = false;
    for (struct slice in = message; pb_next(&in, &f) == 1;) {
        if (f.number == 1) {
            while (pb_next(&f.bytes, &h) == 1)
                if (h.number == 3)
                    rev = (int64_t)h.varint;
        } else if (f.number == 3) {
            created = f.varint;
        } else if (f.number == 4 && f.varint) {
            bad(w, "the watch was cancelled");
        } else if (f.number == 11) {
            events = xrealloc(events, (count + 1) * sizeof(*events));
            if (event_read(w, f.bytes, &events[count]))
                count++;
            else
                bad(w, "an event that cannot be read");
        }
    }
    watch_book_message(&w->book, rev, events, count, !created);
    free(events);
}

static void watch_end(struct gcall *call, int status, const char *text, void *arg)
{
    UNUSED(call);
    UNUSED(status);
    UNUSED(text);
    struct watcher *w = arg;
    w->call = NULL;
}

void watcher_init(struct watcher *w, const char *kind, const struct recorder *r, const struct endpoint *e, int64_t from,
                  lin_report_fn *report, void *arg)
{
    *w = (struct watcher){.recorder = r, .endpoint = e};
    snprintf(w->name, sizeof(w->name), "%s at %s:%d", kind, e->host, e->port);
    watch_book_init(&w->book, w->name, from, report, arg);
}

void watcher_fini(struct watcher *w)
{
    gclient_free(w->client);
    w->client = NULL;
    watch_book_fini(&w->book);
}

static void watch_open(struct watcher *w)
{
    static const struct gcall_ops ops = {watch_message, watch_end};
    struct buf create = BUF_INIT, request = BUF_INIT;
    char end[64];
    struct slice prefix = slice_str(w->recorder->prefix);
    snprintf(end, sizeof(end), "%s", w->recorder->prefix);
    end[prefix.len - 1]++; /* "/" has a successor */
    pb_add_bytes(&create, 1, prefix);
    pb_add_bytes(&create, 2, slice_str(end));
    pb_add_int(&create, 3, w->book.reached + 1);
    pb_add_int(&create, 6, 1); /* prev_kv */
    pb_add_message(&request, 1, buf_slice(&create));
    w->call = gcall_start(w->client, "/etcdserverpb.Watch/Watch", buf_slice(&request), false, NULL, &ops, w);
    w->book.resumes++;
    buf_fini(&create);
    buf_fini(&request);
}

static void progress_ask(struct watcher *w)
{
    struct buf request = BUF_INIT;
    pb_add_message(&request, 3, SLICE_EMPTY);
    gcall_send(w->call, buf_slice(&request));
    buf_fini(&request);
}

void watcher_go(struct watcher *w)
{
    uint64_t now = clock_now_us();
    bool tired = w->breaks_us && w->break_us && now > w->break_us;
    if (w->client && (tired || gclient_lost(w->client))) {
        gclient_free(w->client);
        w->client = NULL;
    }
    if (!w->call) {
        if (now < w->retry_us)
            return;
        w->retry_us = now + RETRY_US;
        if (!w->client && !(w->client = gclient_connect(w->endpoint->host, w->endpoint->port)))
            return;
        watch_open(w);
        w->progress_us = now + PROGRESS_EVERY_US;
        w->break_us = now + w->breaks_us;
    } else if (now >= w->progress_us) {
        w->progress_us = now + PROGRESS_EVERY_US;
        progress_ask(w);
    }
}
