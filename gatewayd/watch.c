/* watch - the client's side of watching: streams, creation, cancellation, progress, responses; and listeners (watch.h).
 * The rules and texts are spec/semantics.md §10 and §19.3. Events come from watch_feed.c; see watch.h for the machine.
 */
#include "gatewayd/watch.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "etcd/rpc.pb-c.h"
#include "proto/api.h"
#include "proto/pb.h"

/* --- responses -------------------------------------------------------------------------------- */

/* WatchResponse without events. rev 0: left out, as in the cancellation of a compacted watcher. */
struct response {
    int64_t rev, watch_id, compact_rev;
    bool created, canceled, fragment;
    const char *reason;
};

static void encode_response(const struct gatewayd *g, struct buf *out, const struct response *r)
{
    uint8_t bytes[64];
    struct buf header = {bytes, 0, sizeof(bytes)};
    pb_add_uint(&header, 1, g->cluster_id);
    pb_add_uint(&header, 2, g->member_id);
    pb_add_int(&header, 3, r->rev);
    pb_add_uint(&header, 4, g->term);
    must(header.data == bytes); /* four numbers of at most 11 bytes */
    pb_add_message(out, 1, buf_slice(&header));
    pb_add_int(out, 2, r->watch_id);
    pb_add_uint(out, 3, r->created);
    pb_add_uint(out, 4, r->canceled);
    pb_add_int(out, 5, r->compact_rev);
    if (r->reason)
        pb_add_bytes(out, 6, slice_str(r->reason));
    pb_add_uint(out, 7, r->fragment);
}

static void send_response(struct stream *s, const struct response *r, struct shared_bytes *const *pieces, size_t count)
{
    uint8_t bytes[256];
    struct buf head = {bytes, 0, sizeof(bytes)};
    encode_response(s->hub->g, &head, r);
    must(head.data == bytes); /* our own reasons are short */
    call_send(s->call, buf_slice(&head), pieces, count);
}

/* A piece is field `events` of WatchResponse: an mvccpb.Event (watch_feed.c). */
static void listener_hear(struct listener *l, const struct shared_bytes *piece)
{
    struct slice bytes = slice_of(piece->data, piece->len), kv = SLICE_EMPTY;
    struct pb_field f;
    bool is_delete = false;
    must(pb_next(&bytes, &f) == 1);
    struct slice event = f.bytes;
    while (pb_next(&event, &f) == 1) {
        if (f.number == 1)
            is_delete = f.varint != 0;
        else if (f.number == 2)
            kv = f.bytes;
    }
    l->event(l, is_delete, kv);
}

void watcher_send_pieces(struct watcher *w, int64_t rev)
{
    if (w->stream->listener) {
        for (size_t i = 0; i < w->piece_count; i++)
            listener_hear(w->stream->listener, w->pieces[i]);
        watcher_drop_pieces(w);
        return;
    }
    uint64_t begun_us = clock_now_us();
    struct watch_hub *h = w->stream->hub;
    size_t count = w->piece_count;
    /* A response above the mark is cut if the client allows it; all parts but the last say so (§10). */
    size_t mark = w->fragment ? w->stream->hub->g->message_bytes_max : SIZE_MAX, first = 0;
    while (first < w->piece_count) {
        size_t end = first, bytes = 0;
        while (end < w->piece_count && (end == first || bytes + w->pieces[end]->len < mark))
            bytes += w->pieces[end++]->len;
        send_response(w->stream, &(struct response){.rev = rev, .watch_id = w->id, .fragment = end < w->piece_count},
                      w->pieces + first, end - first);
        first = end;
    }
    w->fed = true;
    watcher_drop_pieces(w);
    uint64_t us = clock_now_us() - begun_us;
    h->sent_count += count;
    histogram_observe_us(&h->send, us);
    if (count > 0)
        histogram_observe_us(&h->send_event, us / count);
}

void watcher_progress(struct watcher *w, int64_t rev)
{
    uint64_t begun_us = clock_now_us();
    send_response(w->stream, &(struct response){.rev = rev, .watch_id = w->id}, NULL, 0);
    histogram_observe_us(&w->stream->hub->progress, clock_now_us() - begun_us);
}

void stream_progress(struct stream *s, int64_t rev)
{
    struct watcher *w;
    /* Only if all are in step, and none waits for a revision of the future; else silence is the answer (§10). */
    if (s->count == 0)
        return;
    TAILQ_FOREACH (w, &s->all, of_stream)
        if (w->state != WATCHER_IN_STEP || w->start_rev > rev)
            return;
    send_response(s, &(struct response){.rev = rev, .watch_id = -1}, NULL, 0);
}

/* --- watchers --------------------------------------------------------------------------------- */

void watcher_free(struct watcher *w)
{
    struct stream *s = w->stream;
    struct watch_hub *h = s->hub;
    if (w->token)
        token_forget(h, w->token);
    feed_leave(w);
    if (w->range) {
        HASH_DELETE(hh, s->watchers, w);
        range_put(h, w->range);
        s->count--;
        h->watcher_count--;
    }
    TAILQ_REMOVE(&s->all, w, of_stream);
    free(w->pieces);
    free(w);
}

void watcher_compacted(struct watcher *w, int64_t compact_rev)
{
    struct listener *l = w->stream->listener;
    if (l) {
        watcher_free(w);
        l->lost(l);
        return;
    }
    send_response(w->stream, &(struct response){.watch_id = w->id, .canceled = true, .compact_rev = compact_rev}, NULL,
                  0);
    watcher_free(w);
}

static void watcher_cancel(struct watcher *w)
{
    send_response(w->stream, &(struct response){.rev = w->stream->hub->feed_rev, .watch_id = w->id, .canceled = true},
                  NULL, 0);
    watcher_free(w);
}

void watcher_created(struct watcher *w, const struct fr_watching *m)
{
    struct stream *s = w->stream;
    if (!w->range) {
        send_response(
            s,
            &(struct response){.rev = m->rev, .watch_id = -1, .created = true, .canceled = true, .reason = w->refusal},
            NULL, 0);
        watcher_free(w);
        return;
    }
    if (!s->listener) {
        uint64_t begun_us = clock_now_us();
        send_response(s, &(struct response){.rev = m->rev, .watch_id = w->id, .created = true}, NULL, 0);
        histogram_observe_us(&s->hub->control, clock_now_us() - begun_us);
    }
    w->next_rev = w->start_rev ? w->start_rev : m->rev + 1;
    w->fed = true;
    if (w->cancel_wanted) {
        watcher_cancel(w);
    } else if (w->next_rev < m->compact_rev) {
        watcher_compacted(w, m->compact_rev);
    } else if (w->next_rev > m->rev) {
        feed_join(w);
    } else {
        feed_fall_behind(w);
        feed_ask_history(w);
    }
}

/* --- requests --------------------------------------------------------------------------------- */

static struct watcher *stream_find(struct stream *s, int64_t id)
{
    struct watcher *w;
    HASH_FIND(hh, s->watchers, &id, sizeof(id), w);
    return w;
}

static bool hub_is_full(const struct watch_hub *h)
{
    /* One range less than stored takes: the native door has one of its own. */
    return h->watcher_count >= WATCHERS_MAX || HASH_COUNT(h->ranges) >= WATCH_RANGES_MAX - 1 ||
           h->range_bytes >= WATCH_RANGE_BYTES_MAX;
}

/* Why this creation is refused; NULL: it is not. */
static const char *create_refusal(struct stream *s, const Etcdserverpb__WatchCreateRequest *m, struct slice key,
                                  struct slice end)
{
    bool open = end.len == 1 && end.data[0] == 0;
    if (end.len && !open && slice_cmp(key, end) >= 0)
        return err_text(E_WATCH_EMPTY_RANGE);
    if (m->start_revision < 0)
        return err_text(E_COMPACTED);
    if (m->watch_id != 0 && stream_find(s, m->watch_id))
        return err_text(E_WATCH_DUPLICATE_ID);
    if (s->count >= WATCHERS_PER_STREAM_MAX || hub_is_full(s->hub))
        return err_text(E_REQUEST_TOO_MANY_REQUESTS);
    return NULL;
}

/* A watcher whose range is known; its id is not yet taken. */
static void watcher_begin(struct watcher *w, struct token *t, struct slice key, struct slice end, bool want_prev)
{
    struct stream *s = w->stream;
    HASH_ADD(hh, s->watchers, id, sizeof(w->id), w);
    s->count++;
    s->hub->watcher_count++;
    w->range = range_get(s->hub, key, end, want_prev);
    out_watch(s->hub->g, t->number, w->range->id, w->range->want_prev, w->range->node.key, w->range->node.end);
}

static struct watcher *watcher_new(struct stream *s, int64_t start_rev)
{
    struct watcher *w = xcalloc(1, sizeof(*w));
    w->stream = s;
    w->state = WATCHER_CREATING;
    w->start_rev = start_rev;
    TAILQ_INSERT_TAIL(&s->all, w, of_stream);
    return w;
}

static struct slice create_key(const Etcdserverpb__WatchCreateRequest *m)
{
    return m->key.len ? slice_of(m->key.data, m->key.len) : slice_of("\0", 1);
}

/* refusal: NULL, or why the user may not. */
static void watch_create(struct stream *s, const Etcdserverpb__WatchCreateRequest *m, const char *refusal)
{
    struct watch_hub *h = s->hub;
    struct slice key = create_key(m);
    struct slice end = slice_of(m->range_end.data, m->range_end.len);
    struct watcher *w = watcher_new(s, m->start_revision);
    w->progress_notify = m->progress_notify;
    w->fragment = m->fragment;
    for (size_t i = 0; i < m->n_filters; i++) {
        w->no_put = w->no_put || m->filters[i] == ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT;
        w->no_delete = w->no_delete || m->filters[i] == ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NODELETE;
    }
    w->refusal = refusal ? refusal : create_refusal(s, m, key, end);
    struct token *t = token_new(h, TOKEN_CREATE, s, w);
    if (w->refusal) {
        /* Asks for the revision all the same: its header tells it, and creations are answered in the order they came.
         */
        out_watch(h->g, t->number, 0, false, SLICE_EMPTY, SLICE_EMPTY);
        return;
    }
    w->id = m->watch_id;
    while (w->id == 0 && stream_find(s, s->next_id))
        s->next_id++;
    if (w->id == 0)
        w->id = s->next_id++;
    watcher_begin(w, t, key, end, m->prev_kv);
}

/* The long form of an error, as etcd tells it inside the stream. */
static const char *long_reason(int err)
{
    switch (err) {
    case E_PERMISSION_DENIED: return "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    case E_INVALID_AUTH_TOKEN: return "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    case E_USER_EMPTY: return "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";
    case E_AUTH_OLD_REVISION: return "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old";
    default: return err_text(err);
    }
}

static void check_answered(void *arg, const struct answer *a)
{
    struct stream *s = arg;
    Etcdserverpb__WatchRequest *m = etcdserverpb__watch_request__unpack(NULL, s->checked.len, s->checked.data);
    must(m && m->request_union_case == ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST);
    s->check = 0;
    buf_fini(&s->checked);
    watch_create(s, m->create_request, a->err ? long_reason(a->err) : NULL);
    etcdserverpb__watch_request__free_unpacked(m, NULL);
    stream_pace(s);
}

/* With auth on stored says whether the user may read the range. Meanwhile the stream is paused, so that what the client
 * asked for behind it stays behind it. bytes: the whole request. */
static void watch_create_checked(struct stream *s, const Etcdserverpb__WatchCreateRequest *m, struct slice bytes)
{
    struct gatewayd *g = s->hub->g;
    if (!identity_auth_may_be_on(g)) {
        watch_create(s, m, NULL);
        return;
    }
    int err = call_identity_err(s->call);
    if (!err) {
        struct buf range = BUF_INIT;
        api_encode_range(&range, &(struct api_range){.key = create_key(m), .range_end = slice_of(m->range_end.data, m->range_end.len)});
        err = auth_authorize(g, call_identity(s->call), buf_slice(&range), check_answered, s, &s->check);
        buf_fini(&range);
    }
    if (err)
        watch_create(s, m, long_reason(err));
    else
        buf_add_slice(&s->checked, bytes);
}

static void watch_cancel(struct stream *s, int64_t id)
{
    struct watcher *w = stream_find(s, id);
    if (w && w->state == WATCHER_CREATING)
        w->cancel_wanted = true;
    else if (w)
        watcher_cancel(w);
}

static struct stream *stream_new(struct call *c, struct listener *l)
{
    struct stream *s = xcalloc(1, sizeof(*s));
    s->call = c;
    s->listener = l;
    s->hub = call_gateway(c)->watch;
    TAILQ_INIT(&s->all);
    TAILQ_INIT(&s->tokens);
    TAILQ_INIT(&s->behind);
    TAILQ_INSERT_TAIL(&s->hub->streams, s, of_hub);
    s->hub->stream_count++;
    return s;
}

static void stream_free(struct stream *s)
{
    struct watcher *w;
    struct token *t;
    while ((w = TAILQ_FIRST(&s->all)) != NULL)
        watcher_free(w);
    while ((t = TAILQ_FIRST(&s->tokens)) != NULL)
        token_free(s->hub, t);
    if (s->check)
        pending_cancel(s->hub->g, s->check);
    buf_fini(&s->checked);
    if (s->hungry)
        TAILQ_REMOVE(&s->hub->hungry, s, of_hungry);
    TAILQ_REMOVE(&s->hub->streams, s, of_hub);
    s->hub->stream_count--;
    free(s);
}

static struct stream *stream_of(struct call *c)
{
    struct stream *s = call_state(c);
    if (!s) {
        s = stream_new(c, NULL);
        call_set_state(c, s);
    }
    return s;
}

void stream_pace(struct stream *s)
{
    if (s->listener)
        return;
    call_pause(s->call, s->check != 0 || s->waiting >= WATCH_STREAM_WAITING_MAX || !stream_has_room(s));
}

void watch_message(struct call *c, struct slice bytes)
{
    if (call_gateway(c)->is_learner) {
        call_end(c, E_NOT_SUPPORTED_FOR_LEARNER, NULL);
        return;
    }
    struct stream *s = stream_of(c);
    Etcdserverpb__WatchRequest *m = etcdserverpb__watch_request__unpack(NULL, bytes.len, bytes.data);
    if (!m) {
        call_end(c, E_MALFORMED_REQUEST, NULL);
        return;
    }
    switch (m->request_union_case) {
    case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST:
        watch_create_checked(s, m->create_request, bytes);
        break;
    case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST:
        watch_cancel(s, m->cancel_request->watch_id);
        break;
    case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST:
        if (s->count) {
            struct token *t = token_new(s->hub, TOKEN_PROGRESS, s, NULL);
            out_watch(s->hub->g, t->number, 0, false, SLICE_EMPTY, SLICE_EMPTY);
        }
        break;
    default:
        break; /* an empty union: nothing asked, nothing answered, as etcd does */
    }
    etcdserverpb__watch_request__free_unpacked(m, NULL);
    stream_pace(s);
}

void watch_half_close(struct call *c)
{
    stream_of(c); /* the client sends no more, but goes on listening (§10) */
}

void watch_writable(struct call *c)
{
    struct stream *s = call_state(c);
    if (!s)
        return;
    feed_pump(s->hub, s);
    stream_pace(s);
}

void watch_closed(struct call *c)
{
    struct stream *s = call_state(c);
    if (!s)
        return;
    call_set_state(c, NULL);
    stream_free(s);
}

/* --- listeners -------------------------------------------------------------------------------- */

int listener_start(struct listener *l, struct call *c, struct slice key, struct slice end, int64_t from)
{
    struct watch_hub *h = call_gateway(c)->watch;
    must(!l->stream);
    if (hub_is_full(h))
        return E_REQUEST_TOO_MANY_REQUESTS;
    l->stream = stream_new(c, l);
    struct watcher *w = watcher_new(l->stream, from);
    watcher_begin(w, token_new(h, TOKEN_CREATE, l->stream, w), key, end, false);
    return OK;
}

void listener_stop(struct listener *l)
{
    if (l->stream)
        stream_free(l->stream);
    l->stream = NULL;
}

void listener_writable(struct listener *l)
{
    if (l->stream)
        feed_pump(l->stream->hub, l->stream);
}

/* --- the hub ---------------------------------------------------------------------------------- */

/* Every interval, plus up to a tenth so that gateways do not all ask at once. */
static void tick_arm(struct watch_hub *h)
{
    uint64_t interval = h->g->conf->watch_progress_notify_interval_ms;
    deadline_set(h->g, &h->tick, gatewayd_now_ms(h->g) + interval + rand_below(&h->rand, interval / 10 + 1));
}

/* Asks stored for the revision, unless it was asked and has not answered yet. */
static void hub_ask(struct watch_hub *h, enum token_kind kind, uint64_t *last)
{
    if (h->watcher_count == 0 || !h->g->stored_up || token_find(h, *last))
        return;
    *last = token_new(h, kind, NULL, NULL)->number;
    out_watch(h->g, *last, 0, false, SLICE_EMPTY, SLICE_EMPTY);
}

static void tick_fire(struct deadline *d, uint64_t now_ms)
{
    struct watch_hub *h = container_of(d, struct watch_hub, tick);
    UNUSED(now_ms);
    tick_arm(h);
    hub_ask(h, TOKEN_TICK, &h->tick_token);
}

/* The revision that idle watchers are known to have: they go on from there after a restart of stored, not from a
 * revision that has been compacted since. */
#define WATCH_POSITION_MS 10000

static void position_fire(struct deadline *d, uint64_t now_ms)
{
    struct watch_hub *h = container_of(d, struct watch_hub, position);
    deadline_set(h->g, d, now_ms + WATCH_POSITION_MS);
    hub_ask(h, TOKEN_POSITION, &h->position_token);
}

void watch_start(struct gatewayd *g)
{
    struct watch_hub *h = g->watch = xcalloc(1, sizeof(*h));
    h->g = g;
    h->index = interval_index_new();
    h->tick.fire = tick_fire;
    TAILQ_INIT(&h->streams);
    TAILQ_INIT(&h->hungry);
    TAILQ_INIT(&h->dirty);
    rand_seed(&h->rand, g->instance);
    histogram_init(&h->send, 1000, 14);
    histogram_init(&h->send_event, 1000, 14);
    histogram_init(&h->control, 1000, 14);
    histogram_init(&h->progress, 1000, 14);
    tick_arm(h);
    h->position.fire = position_fire;
    deadline_set(g, &h->position, gatewayd_now_ms(g) + WATCH_POSITION_MS);
}

void watch_stop(struct gatewayd *g)
{
    struct watch_hub *h = g->watch;
    struct token *t, *next;
    if (!h)
        return;
    must(TAILQ_EMPTY(&h->streams)); /* calls were closed before */
    deadline_stop(g, &h->tick);
    deadline_stop(g, &h->position);
    feed_publish(h, false);
    HASH_ITER(hh, h->tokens, t, next)
    token_free(h, t);
    interval_index_free(h->index);
    free(h);
    g->watch = NULL;
}

static void histogram_text(struct buf *out, const char *name, const char *help, const struct histogram *h)
{
    metrics_help(out, name, METRICS_HISTOGRAM, help);
    histogram_render(out, name, NULL, h);
}

static void send_metrics(const struct watch_hub *h, uint64_t pending, struct buf *out)
{
    metrics_help(out, "etcd_debugging_mvcc_events_total", METRICS_COUNTER, "Events sent to clients of this gateway.");
    metrics_u64(out, "etcd_debugging_mvcc_events_total", NULL, h->sent_count);
    metrics_help(out, "etcd_debugging_mvcc_pending_events_total", METRICS_GAUGE, "Events that wait to be sent.");
    metrics_u64(out, "etcd_debugging_mvcc_pending_events_total", NULL, pending);
#define SEND_LOOP "etcd_debugging_server_watch_send_loop_"
    histogram_text(out, SEND_LOOP "watch_stream_duration_seconds", "Time of making one response with events.", &h->send);
    histogram_text(out, SEND_LOOP "watch_stream_duration_per_event_seconds", "The same, per event in it.", &h->send_event);
    histogram_text(out, SEND_LOOP "control_stream_duration_seconds", "Time of making an answer to a creation or cancellation.",
                   &h->control);
    histogram_text(out, SEND_LOOP "progress_duration_seconds", "Time of making one notification of progress.", &h->progress);
}

void watch_metrics(struct gatewayd *g, struct buf *out)
{
    const struct watch_hub *h = g->watch;
    uint64_t slow = 0, pending = 0;
    struct stream *s;
    struct watcher *w;
    TAILQ_FOREACH (s, &h->streams, of_hub)
        TAILQ_FOREACH (w, &s->all, of_stream) {
            slow += w->state == WATCHER_BEHIND;
            pending += w->piece_count;
        }
    send_metrics(h, pending, out);
    metrics_help(out, "etcd_debugging_mvcc_watch_stream_total", "gauge", "Watch streams that are open.");
    metrics_u64(out, "etcd_debugging_mvcc_watch_stream_total", NULL, h->stream_count);
    metrics_help(out, "etcd_debugging_mvcc_watcher_total", "gauge", "Watchers.");
    metrics_u64(out, "etcd_debugging_mvcc_watcher_total", NULL, h->watcher_count);
    metrics_help(out, "etcd_debugging_mvcc_slow_watcher_total", "gauge", "Watchers that are fed from history.");
    metrics_u64(out, "etcd_debugging_mvcc_slow_watcher_total", NULL, slow);
    metrics_help(out, "trine_gateway_watch_events_total", "counter", "Live events received from stored.");
    metrics_u64(out, "trine_gateway_watch_events_total", NULL, h->event_count);
    metrics_help(out, "trine_gateway_watch_fell_behind_total", "counter",
                 "Times that a client read too slowly and went back to history.");
    metrics_u64(out, "trine_gateway_watch_fell_behind_total", NULL, h->slow_count);
}
