/* watch - the watch guarantees over a real node: creation and its refusals, order, whole revisions, history, prev_kv, filters,
 * progress, cancellation, compaction, and that a restart of stored is invisible to a watcher (spec/semantics.md §10). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "etcd/rpc.pb-c.h"
#include "proto/api.h"
#include "proto/pb.h"
#include "tests/lib/node.h"

#define RESPONSES_MAX 100000

static struct node node;
static struct gclient *client;
static struct buf request, reply, text;

/* One Watch stream and all it has said. */
struct watching {
    struct gcall *call;
    Etcdserverpb__WatchResponse *said[RESPONSES_MAX];
    size_t count;
    bool enough; /* count reached wanted, or the stream ended */
    size_t wanted;
    int status;
    bool ended;
};

static void on_message(struct gcall *call, struct slice message, void *arg)
{
    struct watching *w = arg;
    UNUSED(call);
    if (w->count < RESPONSES_MAX)
        w->said[w->count++] = etcdserverpb__watch_response__unpack(NULL, message.len, message.data);
    w->enough = w->count >= w->wanted;
}

static void on_end(struct gcall *call, int status, const char *message, void *arg)
{
    struct watching *w = arg;
    UNUSED(call);
    UNUSED(message);
    w->status = status;
    w->ended = w->enough = true;
    w->call = NULL;
}

static struct watching *watch_open(void)
{
    static const struct gcall_ops ops = {on_message, on_end};
    struct watching *w = calloc(1, sizeof(*w));
    w->call = gcall_start(client, "/etcdserverpb.Watch/Watch", SLICE_EMPTY, false, NULL, &ops, w);
    return w;
}

static bool await(struct watching *w, size_t wanted, int ms)
{
    w->wanted = wanted;
    w->enough = w->count >= wanted;
    return gclient_run(client, &w->enough, ms) && w->count >= wanted;
}

static void watch_close(struct watching *w)
{
    if (w->call)
        gcall_cancel(w->call);
    w->wanted = SIZE_MAX;
    w->enough = false;
    if (!w->ended)
        gclient_run(client, &w->enough, 2000);
    for (size_t i = 0; i < w->count; i++)
        etcdserverpb__watch_response__free_unpacked(w->said[i], NULL);
    free(w);
}

static void create(struct watching *w, const Etcdserverpb__WatchCreateRequest *m)
{
    Etcdserverpb__WatchRequest r = ETCDSERVERPB__WATCH_REQUEST__INIT;
    uint8_t bytes[1024];
    r.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    r.create_request = (Etcdserverpb__WatchCreateRequest *)(uintptr_t)m;
    gcall_send(w->call, slice_of(bytes, etcdserverpb__watch_request__pack(&r, bytes)));
}

static Etcdserverpb__WatchCreateRequest want(const char *key, const char *end)
{
    Etcdserverpb__WatchCreateRequest m = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    m.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)(uintptr_t)key};
    if (end)
        m.range_end = (ProtobufCBinaryData){strlen(end), (uint8_t *)(uintptr_t)end};
    return m;
}

static void cancel(struct watching *w, int64_t id)
{
    struct buf inner = BUF_INIT, outer = BUF_INIT;
    pb_add_int(&inner, 1, id);
    pb_add_message(&outer, 2, inner.data ? buf_slice(&inner) : slice_of("", 0));
    gcall_send(w->call, buf_slice(&outer));
    buf_fini(&inner);
    buf_fini(&outer);
}

static void ask_progress(struct watching *w)
{
    struct buf outer = BUF_INIT;
    pb_add_message(&outer, 3, slice_of("", 0));
    gcall_send(w->call, buf_slice(&outer));
    buf_fini(&outer);
}

static int64_t put(const char *key, const char *value)
{
    api_encode_put(&request, &(struct api_put){.key = slice_str(key), .value = slice_str(value)});
    int status = gclient_unary(client, "/etcdserverpb.KV/Put", buf_slice(&request), &reply, &text, 10000);
    buf_reset(&request);
    CHECK(status == 0, "put %s", key);
    Etcdserverpb__PutResponse *r = etcdserverpb__put_response__unpack(NULL, reply.len, reply.data);
    int64_t rev = r ? r->header->revision : -1;
    etcdserverpb__put_response__free_unpacked(r, NULL);
    return rev;
}

static void del(const char *key, const char *end)
{
    api_encode_delete(&request, &(struct api_delete){.key = slice_str(key), .range_end = end ? slice_str(end) : SLICE_EMPTY});
    CHECK(gclient_unary(client, "/etcdserverpb.KV/DeleteRange", buf_slice(&request), NULL, NULL, 10000) == 0);
    buf_reset(&request);
}

static void compact(int64_t rev)
{
    pb_add_int(&request, 1, rev);
    CHECK(gclient_unary(client, "/etcdserverpb.KV/Compact", buf_slice(&request), NULL, NULL, 10000) == 0);
    buf_reset(&request);
}

static bool is(const ProtobufCBinaryData *b, const char *s)
{
    return b->len == strlen(s) && memcmp(b->data, s, b->len) == 0;
}

static void live_events(void)
{
    struct watching *w = watch_open();
    Etcdserverpb__WatchCreateRequest m = want("live/", "live0");
    m.prev_kv = true;
    create(w, &m);
    if (!CHECK(await(w, 1, 5000)))
        return;
    CHECK(w->said[0]->created && w->said[0]->watch_id == 0 && w->said[0]->n_events == 0 && w->said[0]->header->revision >= 1 && w->said[0]->header->cluster_id,
          "quirk 12: ids start at 0");
    int64_t first = put("live/a", "1");
    put("other", "x");
    put("live/a", "2");
    del("live/a", NULL);
    CHECK(await(w, 4, 5000), "%zu responses", w->count);
    if (w->count >= 4) {
        Mvccpb__Event *e = w->said[1]->events[0];
        CHECK(e->type == 0 && is(&e->kv->value, "1") && e->kv->mod_revision == first && e->kv->version == 1 && !e->prev_kv);
        e = w->said[2]->events[0];
        CHECK(e->kv->mod_revision == first + 2 && e->prev_kv && is(&e->prev_kv->value, "1"));
        e = w->said[3]->events[0];
        CHECK(e->type == 1 && is(&e->kv->key, "live/a") && e->kv->mod_revision == first + 3 && e->kv->create_revision == 0 && e->kv->version == 0 &&
                  e->prev_kv && is(&e->prev_kv->value, "2"),
              "quirk 9: a deletion has key and revision only");
        CHECK(w->said[3]->header->revision >= first + 3);
    }
    /* Everything of one revision in one response. */
    put("live/x", "1");
    put("live/y", "1");
    size_t before = w->count;
    await(w, 6, 5000);
    before = w->count;
    del("live/", "live0");
    CHECK(await(w, before + 1, 5000) && w->said[before]->n_events == 2, "two deletions of one revision come together");
    watch_close(w);
}

static void creations(void)
{
    struct watching *w = watch_open();
    Etcdserverpb__WatchCreateRequest a = want("k", NULL), empty = want("b", "a"), negative = want("k", NULL), chosen = want("k", NULL);
    negative.start_revision = -1;
    chosen.watch_id = 7;
    create(w, &a);
    create(w, &empty);
    create(w, &negative);
    create(w, &chosen);
    create(w, &chosen);
    create(w, &a);
    if (!CHECK(await(w, 6, 5000), "%zu responses", w->count))
        return;
    CHECK(w->said[0]->created && !w->said[0]->canceled && w->said[0]->watch_id == 0);
    CHECK(w->said[1]->created && w->said[1]->canceled && w->said[1]->watch_id == -1 && strcmp(w->said[1]->cancel_reason, "mvcc: watcher range is empty") == 0);
    CHECK(w->said[2]->created && w->said[2]->canceled && w->said[2]->watch_id == -1 &&
          strcmp(w->said[2]->cancel_reason, "etcdserver: mvcc: required revision has been compacted") == 0);
    CHECK(w->said[3]->created && w->said[3]->watch_id == 7 && !w->said[3]->canceled);
    CHECK(w->said[4]->created && w->said[4]->canceled && w->said[4]->watch_id == -1 &&
          strcmp(w->said[4]->cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream") == 0);
    CHECK(w->said[5]->created && w->said[5]->watch_id == 1);
    cancel(w, 7);
    cancel(w, 99);
    if (CHECK(await(w, 7, 5000)))
        CHECK(w->said[6]->canceled && !w->said[6]->created && w->said[6]->watch_id == 7 && w->said[6]->cancel_reason[0] == '\0');
    put("k", "v");
    CHECK(await(w, 9, 5000), "the two others get it");
    CHECK(!await(w, 10, 300), "an unknown id gets no answer");
    watch_close(w);
}

static void history_and_filters(void)
{
    int64_t first = put("h/1", "a");
    put("h/1", "b");
    del("h/1", NULL);
    int64_t last = put("h/2", "c");
    struct watching *w = watch_open();
    Etcdserverpb__WatchCreateRequest m = want("h/", "h0");
    m.start_revision = first;
    create(w, &m);
    size_t events = 0;
    int64_t rev = first - 1;
    for (size_t i = 1; events < 4 && await(w, i + 1, 5000); i++)
        for (size_t k = 0; k < w->said[i]->n_events; k++, events++) {
            CHECK(w->said[i]->events[k]->kv->mod_revision > rev, "in order");
            rev = w->said[i]->events[k]->kv->mod_revision;
        }
    CHECK(events == 4 && rev == last, "%zu events", events);
    watch_close(w);

    w = watch_open();
    m.n_filters = 1;
    m.filters = (Etcdserverpb__WatchCreateRequest__FilterType[]){ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT};
    create(w, &m);
    CHECK(await(w, 2, 5000) && w->said[1]->n_events == 1 && w->said[1]->events[0]->type == 1, "only the deletion");
    watch_close(w);

    /* A revision of the future: nothing before it. */
    w = watch_open();
    Etcdserverpb__WatchCreateRequest future = want("h/", "h0");
    future.start_revision = last + 3;
    create(w, &future);
    CHECK(await(w, 1, 5000) && w->said[0]->created);
    put("h/3", "1");
    put("h/3", "2");
    ask_progress(w);
    CHECK(!await(w, 2, 300), "neither events nor progress");
    put("h/3", "3");
    CHECK(await(w, 2, 5000) && w->said[1]->events[0]->kv->mod_revision == last + 3);
    watch_close(w);
}

static void progress(void)
{
    struct watching *w = watch_open();
    Etcdserverpb__WatchCreateRequest m = want("p", NULL);
    ask_progress(w);
    CHECK(!await(w, 1, 300), "no watcher, no answer");
    create(w, &m);
    CHECK(await(w, 1, 5000));
    int64_t rev = put("elsewhere", "1");
    ask_progress(w);
    if (CHECK(await(w, 2, 5000)))
        CHECK(w->said[1]->watch_id == -1 && w->said[1]->n_events == 0 && w->said[1]->header->revision >= rev, "quirk 13");
    watch_close(w);

    w = watch_open(); /* the node runs with watch-progress-notify-interval 200ms */
    m.progress_notify = true;
    create(w, &m);
    if (CHECK(await(w, 2, 5000)))
        CHECK(w->said[1]->watch_id == 0 && w->said[1]->n_events == 0 && w->said[1]->header->revision >= rev);
    watch_close(w);
}

static void compacted(void)
{
    int64_t first = put("c", "1");
    put("c", "2");
    int64_t last = put("c", "3");
    compact(last);
    struct watching *w = watch_open();
    Etcdserverpb__WatchCreateRequest m = want("c", NULL);
    m.start_revision = first;
    create(w, &m);
    if (CHECK(await(w, 2, 5000))) {
        CHECK(w->said[0]->created && !w->said[0]->canceled);
        CHECK(w->said[1]->canceled && w->said[1]->compact_revision == last && w->said[1]->header->revision == 0 && w->said[1]->cancel_reason[0] == '\0',
              "quirk 15");
    }
    m.start_revision = last;
    create(w, &m);
    CHECK(await(w, 4, 5000) && w->said[3]->n_events == 1 && w->said[3]->events[0]->kv->mod_revision == last, "at the compacted revision it is fine");
    watch_close(w);
}

static void half_closed_goes_on(void)
{
    struct watching *w = watch_open();
    Etcdserverpb__WatchCreateRequest m = want("half", NULL);
    create(w, &m);
    CHECK(await(w, 1, 5000));
    gcall_half_close(w->call);
    put("half", "1");
    CHECK(await(w, 2, 5000) && !w->ended, "quirk 14");
    watch_close(w);
}

/* stored and raftd are killed while a watcher is open: its stream goes on, every event once. */
static void siblings_restart(void)
{
    static const char *const daemons[] = {"stored", "raftd"};
    struct watching *w = watch_open();
    Etcdserverpb__WatchCreateRequest m = want("s/", "s0");
    create(w, &m);
    CHECK(await(w, 1, 5000));
    int64_t wanted = 0;
    for (size_t d = 0; d < ARRAY_LEN(daemons); d++) {
        put("s/a", "before");
        long old = node_pid(&node, daemons[d]);
        node_kill(&node, daemons[d]);
        put("s/a", "meanwhile"); /* waits for the restart */
        node_await(&node, daemons[d], old);
        put("s/a", "after");
        wanted += 3;
    }
    size_t events = 0;
    int64_t rev = 0;
    bool ordered = true;
    for (size_t i = 1; events < (size_t)wanted && await(w, i + 1, 10000); i++)
        for (size_t k = 0; k < w->said[i]->n_events; k++, events++) {
            ordered = ordered && w->said[i]->events[k]->kv->mod_revision > rev;
            rev = w->said[i]->events[k]->kv->mod_revision;
        }
    CHECK(events == (size_t)wanted && ordered && !w->ended, "%zu of %lld events", events, (long long)wanted);
    CHECK(!await(w, w->count + 1, 300), "and none twice");
    watch_close(w);
}

/* A client that does not read for a while gets everything, in order, when it does. */
static void slow_client(void)
{
    struct gclient *fast = client, *slow = node_connect(&node);
    client = slow;
    struct watching *w = watch_open();
    Etcdserverpb__WatchCreateRequest m = want("slow", NULL);
    create(w, &m);
    CHECK(await(w, 1, 5000));
    client = fast;
    char *value = malloc(100001);
    memset(value, 'v', 100000);
    value[100000] = '\0';
    const size_t puts = 300; /* 30 MB: more than sockets and queues hold */
    int64_t last = 0;
    for (size_t i = 0; i < puts; i++)
        last = put("slow", value);
    free(value);
    client = slow;
    size_t events = 0;
    int64_t rev = last - (int64_t)puts;
    bool ordered = true;
    for (size_t i = 1; events < puts && await(w, i + 1, 10000); i++)
        for (size_t k = 0; k < w->said[i]->n_events; k++, events++)
            ordered = ordered && w->said[i]->events[k]->kv->mod_revision == ++rev;
    CHECK(events == puts && ordered && rev == last, "%zu events", events);
    watch_close(w);
    gclient_free(slow);
    client = fast;
}

int main(void)
{
    node_start(&node, (const char *const[]){"--watch-progress-notify-interval", "200ms", NULL});
    client = node_connect(&node);
    live_events();
    creations();
    history_and_filters();
    progress();
    compacted();
    half_closed_goes_on();
    siblings_restart();
    slow_client();
    gclient_free(client);
    node_stop(&node);
    return check_summary();
}
