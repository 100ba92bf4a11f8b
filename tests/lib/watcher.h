/* watcher - watches a prefix at one endpoint, with previous values and requests for progress, and resumes after
 * whatever interrupts it, also by itself now and then; what it is told goes into a watch_book. */
#ifndef TESTS_LIB_WATCHER_H
#define TESTS_LIB_WATCHER_H

#include "tests/lib/gclient.h"
#include "tests/lib/recorder.h"
#include "tests/lib/watch_book.h"

struct watcher {
    const struct recorder *recorder; /* its keys */
    const struct endpoint *endpoint;
    struct watch_book book;
    char name[128];
    struct gclient *client;
    struct gcall *call;
    uint64_t breaks_us; /* ends its own connection after about this long; 0: never */
    uint64_t retry_us, progress_us, break_us;
};

void watcher_init(struct watcher *w, const char *kind, const struct recorder *r, const struct endpoint *e, int64_t from,
                  lin_report_fn *report, void *arg);
void watcher_fini(struct watcher *w);
void watcher_go(struct watcher *w);

#endif
