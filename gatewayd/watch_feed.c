/* watch_feed - stored's side of watching: ranges, live events, history slices.
 * Input: in.c's watch_on_*; output: watchers' pieces, which watch.c wraps into responses. */
#include "gatewayd/watch.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/pb.h"

/* --- ranges ----------------------------------------------------------------------------------- */

struct range *range_get(struct watch_hub *h, struct slice key, struct slice end, bool want_prev)
{
    size_t len = 5 + key.len + end.len;
    struct range *r = xcalloc(1, sizeof(*r) + len), *found;
    uint32_t key_len = (uint32_t)key.len;
    r->name[0] = want_prev;
    memcpy(r->name + 1, &key_len, 4);
    memcpy(r->name + 5, key.data, key.len);
    if (end.len)
        memcpy(r->name + 5 + key.len, end.data, end.len);
    HASH_FIND(hh, h->ranges, r->name, len, found);
    if (found) {
        free(r);
        found->users++;
        return found;
    }
    r->id = ++h->next_range;
    r->want_prev = want_prev;
    r->users = 1;
    r->name_len = len;
    TAILQ_INIT(&r->in_step);
    HASH_ADD_KEYPTR(hh, h->ranges, r->name, len, r);
    h->range_bytes += len;
    interval_insert(h->index, &r->node, slice_of(r->name + 5, key.len), slice_of(r->name + 5 + key.len, end.len));
    return r;
}

void range_put(struct watch_hub *h, struct range *r)
{
    if (--r->users > 0)
        return;
    must(TAILQ_EMPTY(&r->in_step));
    out_unwatch(h->g, r->id);
    h->range_bytes -= r->name_len;
    interval_remove(h->index, &r->node);
    HASH_DELETE(hh, h->ranges, r);
    free(r);
}

/* --- tokens ----------------------------------------------------------------------------------- */

struct token *token_new(struct watch_hub *h, enum token_kind kind, struct stream *s, struct watcher *w)
{
    struct token *t = xcalloc(1, sizeof(*t));
    t->number = ++h->next_token;
    t->kind = kind;
    t->stream = s;
    t->watcher = w;
    if (s) {
        TAILQ_INSERT_TAIL(&s->tokens, t, of_stream);
        *(kind == TOKEN_HISTORY ? &s->asked : &s->waiting) += 1;
    }
    h->asked += kind == TOKEN_HISTORY;
    if (w) {
        must(w->token == NULL);
        w->token = t;
    }
    HASH_ADD(hh, h->tokens, number, sizeof(t->number), t);
    return t;
}

static void token_leave(struct token *t)
{
    if (t->stream) {
        TAILQ_REMOVE(&t->stream->tokens, t, of_stream);
        *(t->kind == TOKEN_HISTORY ? &t->stream->asked : &t->stream->waiting) -= 1;
    }
    if (t->watcher)
        t->watcher->token = NULL;
    t->stream = NULL;
    t->watcher = NULL;
}

void token_free(struct watch_hub *h, struct token *t)
{
    token_leave(t);
    h->asked -= t->kind == TOKEN_HISTORY;
    HASH_DELETE(hh, h->tokens, t);
    free(t);
}

void token_forget(struct watch_hub *h, struct token *t)
{
    /* A slice that nobody wants any more still counts until it came: who creates and cancels must not fill stored's
     * line. */
    if (t->kind == TOKEN_HISTORY)
        token_leave(t);
    else
        token_free(h, t);
}

struct token *token_find(struct watch_hub *h, uint64_t number)
{
    struct token *t;
    HASH_FIND(hh, h->tokens, &number, sizeof(number), t);
    return t;
}

/* --- states ----------------------------------------------------------------------------------- */

void feed_join(struct watcher *w)
{
    must(w->state != WATCHER_IN_STEP);
    w->state = WATCHER_IN_STEP;
    TAILQ_INSERT_TAIL(&w->range->in_step, w, of_range);
}

void watcher_drop_pieces(struct watcher *w)
{
    for (size_t i = 0; i < w->piece_count; i++)
        shared_bytes_unref(w->pieces[i]);
    w->piece_count = 0;
    if (w->dirty)
        TAILQ_REMOVE(&w->stream->hub->dirty, w, of_dirty);
    w->dirty = false;
}

void feed_fall_behind(struct watcher *w)
{
    if (w->state == WATCHER_IN_STEP) {
        TAILQ_REMOVE(&w->range->in_step, w, of_range);
        /* It may not have had an event for long: what it goes back to is the first one it was not given. */
        if (w->piece_count)
            w->next_rev = MAX(w->next_rev, w->first_rev);
    }
    w->state = WATCHER_BEHIND;
    watcher_drop_pieces(w);
}

void feed_leave(struct watcher *w)
{
    feed_fall_behind(w);
    if (w->in_line)
        TAILQ_REMOVE(&w->stream->behind, w, of_behind);
    w->in_line = false;
}

bool stream_has_room(const struct stream *s)
{
    /* While all clients together are slow, each may be so only as long as `writable` will tell that it is not any more.
     */
    bool crowded = s->hub->g->outbound_bytes > OUTBOUND_BYTES_MAX;
    return call_queued_bytes(s->call) <= (crowded ? CALL_QUEUE_LOW_BYTES : WATCH_STREAM_BYTES_MAX);
}

static void ask_first_in_line(struct watch_hub *h, struct stream *s)
{
    struct watcher *w = TAILQ_FIRST(&s->behind);
    TAILQ_REMOVE(&s->behind, w, of_behind);
    w->in_line = false;
    struct token *t = token_new(h, TOKEN_HISTORY, s, w);
    out_history(h->g, t->number, w->next_rev, w->range->want_prev, w->range->node.key, w->range->node.end);
}

void feed_pump(struct watch_hub *h, struct stream *s)
{
    if (s && !s->hungry && !TAILQ_EMPTY(&s->behind)) {
        s->hungry = true;
        TAILQ_INSERT_TAIL(&h->hungry, s, of_hungry);
    }
    while (h->g->stored_up && h->asked < WATCH_ASKED_MAX && (s = TAILQ_FIRST(&h->hungry)) != NULL) {
        TAILQ_REMOVE(&h->hungry, s, of_hungry);
        s->hungry = false;
        /* Comes back with its next PAST_END, or when its client has read (watch_writable). */
        if (TAILQ_EMPTY(&s->behind) || s->asked >= WATCH_STREAM_ASKED_MAX || !stream_has_room(s) ||
            call_is_over(s->call))
            continue;
        ask_first_in_line(h, s);
        s->hungry = true;
        TAILQ_INSERT_TAIL(&h->hungry, s, of_hungry);
    }
}

void feed_ask_history(struct watcher *w)
{
    struct stream *s = w->stream;
    if (w->state != WATCHER_BEHIND || w->token)
        return;
    if (!w->in_line)
        TAILQ_INSERT_TAIL(&s->behind, w, of_behind);
    w->in_line = true;
    feed_pump(s->hub, s);
}

/* --- events ----------------------------------------------------------------------------------- */

/* Field `events` of WatchResponse: one mvccpb.Event. */
static struct shared_bytes *encode_event(uint64_t type, struct slice kv, struct slice prev)
{
    uint8_t heads[64]; /* of the event, its type, kv and prev_kv: the bytes of the last two are copied once, into their
                          place */
    struct buf b = {heads, 0, sizeof(heads)};
    size_t prev_size = prev.len ? pb_head_size(3, prev.len) + prev.len : 0;
    pb_add_head(&b, 11, (type ? 2 : 0) + pb_head_size(2, kv.len) + kv.len + prev_size);
    pb_add_uint(&b, 1, type != 0);
    pb_add_head(&b, 2, kv.len);
    must(b.data == heads);
    struct shared_bytes *s = shared_bytes_new(b.len + kv.len + prev_size);
    uint8_t *at = s->data;
    memcpy(at, heads, b.len);
    at += b.len;
    memcpy(at, kv.data, kv.len);
    at += kv.len;
    if (prev.len) {
        b.len = 0;
        pb_add_head(&b, 3, prev.len);
        memcpy(at, heads, b.len);
        memcpy(at + b.len, prev.data, prev.len);
    }
    return s;
}

static void watcher_add(struct watcher *w, struct shared_bytes *piece, int64_t rev)
{
    if (w->piece_count == w->piece_cap) {
        w->piece_cap = w->piece_cap ? w->piece_cap * 2 : 4;
        w->pieces = xrealloc(w->pieces, w->piece_cap * sizeof(*w->pieces));
    }
    if (w->piece_count == 0)
        w->first_rev = rev;
    piece->refs++;
    w->pieces[w->piece_count++] = piece;
    if (!w->dirty && w->state == WATCHER_IN_STEP) {
        w->dirty = true;
        TAILQ_INSERT_TAIL(&w->stream->hub->dirty, w, of_dirty);
    }
}

static bool watcher_wants(const struct watcher *w, int64_t rev, uint64_t type)
{
    return rev >= w->next_rev && !(type == 0 && w->no_put) && !(type == 1 && w->no_delete);
}

/* The event under way, encoded at most once per form however many watchers it has. */
struct event_bytes {
    const struct fr_event *frame;
    struct shared_bytes *plain, *with_prev;
};

static void event_to_range(struct interval_node *node, void *arg)
{
    struct event_bytes *e = arg;
    struct range *r = container_of(node, struct range, node);
    struct watcher *w;
    if (TAILQ_EMPTY(&r->in_step))
        return;
    struct shared_bytes **form = r->want_prev ? &e->with_prev : &e->plain;
    if (!*form)
        *form = encode_event(e->frame->type, e->frame->kv, r->want_prev ? e->frame->prev : SLICE_EMPTY);
    TAILQ_FOREACH (w, &r->in_step, of_range)
        if (watcher_wants(w, e->frame->rev, e->frame->type))
            watcher_add(w, *form, e->frame->rev);
}

void watch_on_event(struct gatewayd *g, const struct fr_event *m)
{
    struct watch_hub *h = g->watch;
    struct event_bytes e = {.frame = m};
    h->event_count++;
    h->feed_rev = m->rev;
    h->mid_revision = !m->last;
    interval_stab(h->index, m->key, event_to_range, &e);
    if (h->publish_range)
        h->publish(g, m);
    if (e.plain)
        shared_bytes_unref(e.plain);
    if (e.with_prev)
        shared_bytes_unref(e.with_prev);
}

void feed_flush(struct watch_hub *h)
{
    struct watcher *w;
    /* All events of a revision come in one response, so a revision that a message has cut waits for its rest. */
    if (h->mid_revision)
        return;
    while ((w = TAILQ_FIRST(&h->dirty)) != NULL) {
        if (!stream_has_room(w->stream)) {
            h->slow_count++;
            feed_fall_behind(w);
            feed_ask_history(w); /* in line: its turn comes when the client has read (watch_writable) */
            continue;
        }
        watcher_send_pieces(w, h->feed_rev);
        w->next_rev = h->feed_rev + 1;
    }
}

void watch_on_batch_end(struct gatewayd *g)
{
    feed_flush(g->watch);
}

/* --- answers of stored ------------------------------------------------------------------------ */

static void progress_tick(struct watch_hub *h, int64_t rev)
{
    struct stream *s;
    struct watcher *w;
    TAILQ_FOREACH (s, &h->streams, of_hub) {
        TAILQ_FOREACH (w, &s->all, of_stream) {
            if (w->progress_notify && !w->fed && w->state == WATCHER_IN_STEP && w->start_rev <= rev &&
                stream_has_room(s))
                watcher_progress(w, rev);
            w->fed = false;
        }
    }
}

void watch_on_watching(struct gatewayd *g, const struct fr_watching *m)
{
    struct watch_hub *h = g->watch;
    struct token *t = token_find(h, m->token);
    /* Every event up to m->rev came before; what we say about m->rev must not overtake them. */
    feed_flush(h);
    h->feed_rev = MAX(h->feed_rev, m->rev);
    if (!t)
        return;
    enum token_kind kind = t->kind;
    struct watcher *w = t->watcher;
    struct stream *s = t->stream;
    struct history_reader *reader = t->reader;
    token_free(h, t);
    if (kind == TOKEN_READER)
        reader->end(reader, 0, m->rev + 1, 0, m->rev);
    if (kind == TOKEN_CREATE)
        watcher_created(w, m);
    else if (kind == TOKEN_PROGRESS)
        stream_progress(s, m->rev);
    else if (kind == TOKEN_TICK)
        progress_tick(h, m->rev);
    if (s)
        stream_pace(s);
}

void watch_on_past(struct gatewayd *g, const struct fr_past *m)
{
    struct token *t = token_find(g->watch, m->token);
    if (t && t->reader)
        t->reader->past(t->reader, m);
    if (!t || !t->watcher || !watcher_wants(t->watcher, m->rev, m->type))
        return;
    struct shared_bytes *piece = encode_event(m->type, m->kv, t->watcher->range->want_prev ? m->prev : SLICE_EMPTY);
    watcher_add(t->watcher, piece, m->rev);
    shared_bytes_unref(piece);
}

/* A slice is complete. */
static void watcher_fed(struct watcher *w, const struct fr_past_end *m)
{
    if (m->compact_rev > 0) {
        watcher_compacted(w, m->compact_rev);
        return;
    }
    if (w->piece_count)
        watcher_send_pieces(w, m->store_rev);
    w->next_rev = MAX(w->next_rev, m->next);
    if (m->next > m->feed_rev)
        feed_join(w);
    else
        feed_ask_history(w);
}

void watch_on_past_end(struct gatewayd *g, const struct fr_past_end *m)
{
    struct watch_hub *h = g->watch;
    struct token *t = token_find(h, m->token);
    feed_flush(h);
    if (!t)
        return;
    struct watcher *w = t->watcher;
    struct stream *s = t->stream;
    struct history_reader *reader = t->reader;
    token_free(h, t);
    if (reader)
        reader->end(reader, 0, m->next, m->compact_rev, m->store_rev);
    else if (w)
        watcher_fed(w, m);
    feed_pump(h, s);
}

void watch_on_stored_down(struct gatewayd *g)
{
    struct watch_hub *h = g->watch;
    struct stream *s;
    struct watcher *w;
    struct token *t, *t_next;
    /* A watcher in step that has nothing to send has all up to feed_rev; a revision that the loss has cut is read
     * again. */
    int64_t have = h->feed_rev + !h->mid_revision;
    h->mid_revision = false;
    TAILQ_FOREACH (s, &h->streams, of_hub) {
        TAILQ_FOREACH (w, &s->all, of_stream) {
            if (w->state == WATCHER_CREATING)
                continue; /* its token stays: asked again at `up` */
            if (w->state == WATCHER_IN_STEP && !w->dirty)
                w->next_rev = MAX(w->next_rev, have);
            feed_fall_behind(w);
        }
    }
    HASH_ITER(hh, h->tokens, t, t_next)
    {
        struct history_reader *reader = t->reader;
        if (t->kind == TOKEN_HISTORY || reader)
            token_free(h, t); /* the slices died with stored; the other questions are asked again at `up` */
        if (reader)
            reader->end(reader, E_UNREACHABLE, 0, 0, 0);
    }
}

void watch_on_stored_up(struct gatewayd *g)
{
    struct watch_hub *h = g->watch;
    struct range *r, *r_next;
    struct token *t, *t_next;
    struct stream *s;
    struct watcher *w;
    /* Ranges first: what happens after a range is registered comes live, what happened before comes from history. */
    HASH_ITER(hh, h->ranges, r, r_next)
    out_watch(g, 0, r->id, r->want_prev, r->node.key, r->node.end);
    HASH_ITER(hh, h->tokens, t, t_next)
    {
        struct range *of = t->watcher ? t->watcher->range : NULL;
        if (t->kind == TOKEN_CREATE && of)
            out_watch(g, t->number, of->id, of->want_prev, of->node.key, of->node.end);
        else
            out_watch(g, t->number, 0, false, SLICE_EMPTY, SLICE_EMPTY);
    }
    TAILQ_FOREACH (s, &h->streams, of_hub)
        TAILQ_FOREACH (w, &s->all, of_stream)
            feed_ask_history(w);
}

/* --- others who listen ------------------------------------------------------------------------ */

void feed_read(struct watch_hub *h, struct history_reader *r, int64_t from, bool want_prev, struct slice key,
               struct slice end)
{
    struct token *t = token_new(h, TOKEN_READER, NULL, NULL);
    t->reader = r;
    if (from > 0)
        out_history(h->g, t->number, from, want_prev, key, end);
    else
        out_watch(h->g, t->number, 0, false, SLICE_EMPTY, SLICE_EMPTY);
}

void feed_publish(struct watch_hub *h, bool wanted)
{
    struct slice zero = slice_of("\0", 1);
    if (wanted && !h->publish_range) {
        h->publish_range = range_get(h, zero, zero, false);
        out_watch(h->g, 0, h->publish_range->id, false, zero, zero);
    } else if (!wanted && h->publish_range) {
        struct range *r = h->publish_range;
        h->publish_range = NULL;
        range_put(h, r);
    }
}
