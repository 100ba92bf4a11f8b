/* watch_book - keeps what one watcher, which resumes after every interruption, was told, and checks etcd's guarantees
 * for watches as messages come:
 *
 *   ordered        events by revision, never backwards, also across resumptions
 *   unique         no event twice
 *   atomic         all events of a revision in one message
 *   bookmarkable   after a message that says "progress up to R" comes no event with a revision up to R, and resuming
 *                  after R misses nothing
 *   reliable, resumable   at the end: exactly the events of the history, none skipped (watch_book_settle) */
#ifndef TESTS_LIB_WATCH_BOOK_H
#define TESTS_LIB_WATCH_BOOK_H

#include "tests/lib/linear.h"

struct watch_book {
    const char *name; /* for reports */
    struct lin_event *events;
    size_t count, cap;
    int64_t reached; /* everything up to here was told: an event's revision or a bookmark; resume from the next */
    uint64_t violations, bookmarks, resumes;
    lin_report_fn *report;
    void *arg;
};

/* from: the first revision that the watcher asks for. */
void watch_book_init(struct watch_book *b, const char *name, int64_t from, lin_report_fn *report, void *arg);
void watch_book_fini(struct watch_book *b);

/* One response of the watcher. No events: a bookmark, if progress says so (a created message is none). */
void watch_book_message(struct watch_book *b, int64_t header_rev, const struct lin_event *events, size_t count,
                        bool progress);

/* The whole history is known. */
void watch_book_settle(struct watch_book *b, const struct lin_event *events, size_t count);

#endif
