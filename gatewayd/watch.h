/* watch - watchers and how they are fed; shared by watch.c (the client's side) and watch_feed.c (stored's side).
 *
 * stored knows nothing of watchers: it knows ranges, and sends each live event once per gateway. Here a watcher is a
 * cursor, next_rev: every matching event below it has been given to HTTP/2.
 *
 *      CREATING --WATCHING--> IN_STEP <--PAST_END, next > feed_rev-- BEHIND
 *                     '--start_revision is in the past-->  BEHIND      ^
 *                          IN_STEP --queue of its stream full, or stored went away--'
 *
 *   CREATING  the client has not been told yet; gets nothing
 *   IN_STEP   on its range's list; live events reach it; next_rev > every revision it was given
 *   BEHIND    in its stream's line for history, or a slice is under way; live events pass it by
 *
 * Limits: a stream has at most WATCH_STREAM_ASKED_MAX slices under way and asks for none while its client does not
 * read; streams take turns; all together have at most WATCH_ASKED_MAX. A client that creates watchers faster than
 * stored answers, or does not read the answers, is not listened to (call_pause).
 *
 * The join is exact because stored's answers and live events share one ordered link: see PAST_END in proto/frames.h. */
#ifndef GATEWAYD_WATCH_H
#define GATEWAYD_WATCH_H

#include <sys/queue.h>

#include <uthash.h>

#include "common/interval.h"
#include "common/metrics.h"
#include "common/rand.h"
#include "gatewayd/gatewayd.h"

/* History slices under way: of one stream (each may queue HISTORY_SLICE_BYTES above the mark), and of all. */
#define WATCH_STREAM_ASKED_MAX 16
#define WATCH_ASKED_MAX 1024
/* Creations and progress requests of one stream that wait for stored; above it the stream is paused. */
#define WATCH_STREAM_WAITING_MAX 1024
/* Watchers of one gateway, and bytes of the distinct ranges they have; more are refused ("too many requests"). */
#define WATCHERS_MAX 4000000
#define WATCH_RANGE_BYTES_MAX (512 * MIB)

enum watcher_state { WATCHER_CREATING, WATCHER_IN_STEP, WATCHER_BEHIND };

struct range;
struct stream;

/* Somebody in this process who watches on behalf of a call of another kind (lock, election): one range, from one revision on, each
 * event once and in order, also across restarts of the siblings. From within its callbacks it may not stop listening. */
struct listener {
    void (*event)(struct listener *l, bool is_delete, struct slice kv); /* mvccpb.KeyValue */
    void (*lost)(struct listener *l); /* what came next for it is compacted: it hears nothing more */
    struct stream *stream;            /* NULL: it does not listen */
};

struct watcher {
    int64_t id;
    struct stream *stream;
    struct range *range; /* NULL: a creation that is refused as soon as the revision for its header is known */
    enum watcher_state state;
    int64_t start_rev; /* as asked */
    int64_t next_rev;  /* first revision not yet given */
    bool no_put, no_delete, progress_notify, fragment;
    bool cancel_wanted;           /* cancelled while CREATING */
    bool dirty;                   /* on the hub's list: has pieces to send */
    bool in_line;                 /* on its stream's list `behind`: waits for its turn to ask for history */
    bool fed;                     /* was sent something since the last progress tick */
    const char *refusal;          /* cancel_reason of a creation that is refused */
    struct token *token;          /* what it waits for from stored; NULL: nothing */
    struct shared_bytes **pieces; /* encoded `events` fields, not yet sent */
    size_t piece_count, piece_cap;
    int64_t first_rev;             /* of the first piece: everything below it was given */
    TAILQ_ENTRY(watcher) of_range; /* IN_STEP */
    TAILQ_ENTRY(watcher) of_stream;
    TAILQ_ENTRY(watcher) of_dirty;
    TAILQ_ENTRY(watcher) of_behind;
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

/* One Watch call; or one listener, whose call is then not paused and gets no WatchResponse. */
struct stream {
    struct call *call;
    struct listener *listener; /* NULL: the client itself is told */
    struct watch_hub *hub;
    struct watcher *watchers; /* hash by id */
    struct watcher_list all;  /* refused ones too */
    int64_t next_id;
    size_t count;
    struct watcher_list behind; /* in line for history */
    size_t asked;               /* slices under way */
    uint64_t check;             /* stored is asked whether a creation is allowed; 0: no. The stream is paused */
    struct buf checked;         /* that request */
    size_t waiting;             /* tokens CREATE and PROGRESS */
    bool hungry;                /* on the hub's list */
    TAILQ_ENTRY(stream) of_hungry;
    TAILQ_ENTRY(stream) of_hub;
    TAILQ_HEAD(, token) tokens;
};

/* An answer we wait for. The token of a slice whose watcher went away stays until the answer came: stored still works
 * for it. */
enum token_kind { TOKEN_CREATE, TOKEN_HISTORY, TOKEN_PROGRESS, TOKEN_TICK, TOKEN_POSITION, TOKEN_READER };
struct token {
    uint64_t number;
    enum token_kind kind;
    struct watcher *watcher;       /* CREATE, HISTORY; NULL: gone */
    struct stream *stream;         /* CREATE, HISTORY, PROGRESS; NULL: gone */
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
    TAILQ_HEAD(, stream) hungry; /* streams with watchers in line; take turns */
    size_t asked;                /* history slices under way, orphans too */
    size_t range_bytes;          /* of all ranges' names */
    struct watcher_list dirty;
    int64_t feed_rev;                    /* every live event up to it was received */
    bool mid_revision;                   /* its `last` event has not come yet */
    struct deadline tick;                /* progress_notify */
    struct deadline position;            /* keeps feed_rev near the present while nothing matches */
    uint64_t tick_token, position_token; /* the last ones asked with */
    /* The native door listens to everything while it has subscribers. */
    struct range *publish_range; /* NULL: it has none */
    void (*publish)(struct gatewayd *g, const struct fr_event *m);
    struct rand rand;
    uint64_t stream_count, watcher_count, event_count, slow_count; /* slow: times that a watcher fell behind */
    uint64_t sent_count;                       /* events given to clients */
    struct histogram send, send_event, control, progress; /* time of making one response for a client */
};

/* --- watch_feed.c --- */
struct range *range_get(struct watch_hub *h, struct slice key, struct slice end, bool want_prev); /* counts one user */
void range_put(struct watch_hub *h, struct range *r);
struct token *token_new(struct watch_hub *h, enum token_kind kind, struct stream *s, struct watcher *w);
void token_free(struct watch_hub *h, struct token *t);
void token_forget(struct watch_hub *h, struct token *t); /* its watcher goes away */
struct token *token_find(struct watch_hub *h, uint64_t number);
void feed_join(struct watcher *w);                     /* -> IN_STEP */
void feed_fall_behind(struct watcher *w);              /* -> BEHIND; drops pieces */
void feed_ask_history(struct watcher *w);              /* if BEHIND: in line, asks as soon as it may */
void feed_pump(struct watch_hub *h, struct stream *s); /* s (may be NULL) has room again: asks for what may be asked */
void feed_leave(struct watcher *w);                    /* off all lists, for watcher_free */
bool stream_has_room(const struct stream *s);
void feed_flush(struct watch_hub *h); /* sends what is dirty */
void feed_read(struct watch_hub *h, struct history_reader *r, int64_t from, bool want_prev, struct slice key,
               struct slice end);
void feed_publish(struct watch_hub *h, bool wanted); /* registers or leaves the range of everything */
void watcher_drop_pieces(struct watcher *w);

/* --- watch.c --- */
void watcher_free(struct watcher *w);
void watcher_send_pieces(struct watcher *w, int64_t rev);       /* one response, or fragments; rev: of the header */
void watcher_compacted(struct watcher *w, int64_t compact_rev); /* tells the client, frees w */
void watcher_created(struct watcher *w, const struct fr_watching *m);
void stream_progress(struct stream *s, int64_t rev);
void stream_pace(struct stream *s); /* listens to the client, or not; s may be gone afterwards */
void watcher_progress(struct watcher *w, int64_t rev);
/* c lives at least until listener_stop. 0, or E_REQUEST_TOO_MANY_REQUESTS. */
int listener_start(struct listener *l, struct call *c, struct slice key, struct slice end, int64_t from);
void listener_stop(struct listener *l); /* fine for one who does not listen */
void listener_writable(struct listener *l); /* its call has room again */

#endif
