/* watch - watchers and how they are fed; shared by watch.c (the client's side) and watch_feed.c (stored's side).
 *
 * stored knows nothing of watchers: it knows ranges, and sends each live event once per gateway. Here a watcher is a cursor,
 * next_rev: every matching event below it has been given to HTTP/2.
 *
 *      CREATING --WATCHING--> IN_STEP <--PAST_END, next > feed_rev-- BEHIND
 *                     '--start_revision is in the past-->  BEHIND      ^
 *                          IN_STEP --queue of its stream full, or stored went away--'
 *
 *   CREATING  the client has not been told yet; gets nothing
 *   IN_STEP   on its range's list; live events reach it; next_rev > every revision it was given
 *   BEHIND    fed from history by one slice at a time, while its stream has room; live events pass it by
 *
 * The join is exact because stored's answers and live events share one ordered link: see PAST_END in proto/frames.h. */
#ifndef GATEWAYD_WATCH_H
#define GATEWAYD_WATCH_H

#include <sys/queue.h>

#include <uthash.h>

#include "common/interval.h"
#include "common/rand.h"
#include "gatewayd/gatewayd.h"

enum watcher_state { WATCHER_CREATING, WATCHER_IN_STEP, WATCHER_BEHIND };

struct range;
struct stream;

struct watcher {
    int64_t id;
    struct stream *stream;
    struct range *range; /* NULL: a creation that is refused as soon as the revision for its header is known */
    enum watcher_state state;
    int64_t start_rev;   /* as asked */
    int64_t next_rev;    /* first revision not yet given */
    bool no_put, no_delete, progress_notify, fragment;
    bool cancel_wanted;  /* cancelled while CREATING */
    bool dirty;          /* on the hub's list: has pieces to send */
    bool fed;            /* was sent something since the last progress tick */
    const char *refusal; /* cancel_reason of a creation that is refused */
    struct token *token; /* what it waits for from stored; NULL: nothing */
    struct shared_bytes **pieces; /* encoded `events` fields, not yet sent */
    int64_t *piece_revs;
    size_t piece_count, piece_cap;
    TAILQ_ENTRY(watcher) of_range;  /* IN_STEP */
    TAILQ_ENTRY(watcher) of_stream;
    TAILQ_ENTRY(watcher) of_dirty;
    UT_hash_handle hh; /* in the stream, by id; not while refused */
};
TAILQ_HEAD(watcher_list, watcher);

/* One distinct (key, range_end, want_prev) that watchers of this gateway have. */
struct range {
    struct interval_node node; /* holds key and end, which point into bytes */
    uint64_t id;
    bool want_prev;
    size_t users; /* watchers, in any state */
    struct watcher_list in_step;
    UT_hash_handle hh; /* in the hub, by name */
    size_t name_len;
    uint8_t name[]; /* want_prev, length of key (4 bytes), key, end */
};

/* One Watch call. */
struct stream {
    struct call *call;
    struct watch_hub *hub;
    struct watcher *watchers; /* hash by id */
    struct watcher_list all;  /* refused ones too */
    int64_t next_id;
    size_t count;
    TAILQ_ENTRY(stream) of_hub;
    TAILQ_HEAD(, token) tokens;
};

/* An answer we wait for. */
enum token_kind { TOKEN_CREATE, TOKEN_HISTORY, TOKEN_PROGRESS, TOKEN_TICK, TOKEN_POSITION, TOKEN_READER };
struct token {
    uint64_t number;
    enum token_kind kind;
    struct watcher *watcher; /* CREATE, HISTORY */
    struct stream *stream;   /* CREATE, HISTORY, PROGRESS */
    struct history_reader *reader; /* READER */
    TAILQ_ENTRY(token) of_stream;
    UT_hash_handle hh;
};

/* Somebody other than a watcher who reads history (the native door): one slice, or only the present revision. Both end
 * with `end`, also when stored goes away (err). The reader lives until then. */
struct history_reader {
    void (*past)(struct history_reader *r, const struct fr_past *m);
    void (*end)(struct history_reader *r, int err, int64_t next, int64_t compact_rev, int64_t store_rev);
};

struct watch_hub {
    struct gatewayd *g;
    struct interval_index *index; /* of ranges */
    struct range *ranges;         /* hash by name */
    struct token *tokens;         /* hash by number */
    uint64_t next_token, next_range;
    TAILQ_HEAD(, stream) streams;
    struct watcher_list dirty;
    int64_t feed_rev;   /* every live event up to it was received */
    bool mid_revision;  /* its `last` event has not come yet */
    struct deadline tick;         /* progress_notify */
    struct deadline position;     /* keeps feed_rev near the present while nothing matches */
    /* The native door listens to everything while it has subscribers. */
    struct range *publish_range;  /* NULL: it has none */
    void (*publish)(struct gatewayd *g, const struct fr_event *m);
    struct rand rand;
    uint64_t stream_count, watcher_count, event_count, slow_count; /* slow: times that a watcher fell behind */
};

/* --- watch_feed.c --- */
struct range *range_get(struct watch_hub *h, struct slice key, struct slice end, bool want_prev); /* counts one user */
void range_put(struct watch_hub *h, struct range *r);
struct token *token_new(struct watch_hub *h, enum token_kind kind, struct stream *s, struct watcher *w);
void token_free(struct watch_hub *h, struct token *t);
void feed_join(struct watcher *w);           /* -> IN_STEP */
void feed_fall_behind(struct watcher *w);    /* -> BEHIND; drops pieces */
void feed_ask_history(struct watcher *w);    /* if BEHIND, stored is up, its stream has room, and nothing is under way */
void feed_flush(struct watch_hub *h);        /* sends what is dirty */
void feed_read(struct watch_hub *h, struct history_reader *r, int64_t from, bool want_prev, struct slice key, struct slice end);
void feed_publish(struct watch_hub *h, bool wanted); /* registers or leaves the range of everything */
void watcher_drop_pieces(struct watcher *w);

/* --- watch.c --- */
void watcher_free(struct watcher *w);
void watcher_send_pieces(struct watcher *w, int64_t rev); /* one response, or fragments; rev: of the header */
void watcher_compacted(struct watcher *w, int64_t compact_rev); /* tells the client, frees w */
void watcher_created(struct watcher *w, const struct fr_watching *m);
void stream_progress(struct stream *s, int64_t rev);
void watcher_progress(struct watcher *w, int64_t rev);

#endif
