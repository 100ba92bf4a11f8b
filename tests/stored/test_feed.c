/* test_feed - live events, history, and the exactness of their join: every event once, in order, whatever is slow. */
#include "tests/stored/fake.h"

#include "common/interval.h"

static void watch(struct world *w, uint64_t id, const char *key, const char *end, bool prev)
{
    cr_assert_eq(fake_in(w->gate, FRAME(watch, WATCH, .token = id, .range_id = id, .want_prev = prev,
                                        .key = slice_str(key), .range_end = slice_str(end))), 0);
}

static void history(struct world *w, uint64_t token, int64_t from, const char *key, const char *end, bool prev)
{
    cr_assert_eq(fake_in(w->gate, FRAME(history, HISTORY, .token = token, .from = from, .want_prev = prev,
                                        .key = slice_str(key), .range_end = slice_str(end))), 0);
}

static void remove_key(struct world *w, const char *key, const char *end)
{
    struct api_delete rq = {.key = slice_str(key), .range_end = slice_str(end)};
    struct buf body = BUF_INIT;

    api_encode_delete(&body, &rq);
    world_apply(w, COMMAND_DELETE_RANGE, buf_slice(&body));
    buf_fini(&body);
}

Test(feed, a_watched_key_gives_one_event_and_another_none)
{
    struct world *w = world_new();
    struct frame f;

    watch(w, 1, "a", "", false);
    cr_assert(fake_take_type(w->gate, FR_WATCHING, &f));
    cr_assert_eq(f.watching.rev, 1);
    world_put(w, "b", "1");
    world_put(w, "a", "2");
    cr_assert(fake_take_type(w->gate, FR_EVENT, &f));
    cr_assert_eq(f.event.rev, 3);
    cr_assert_eq(f.event.type, 0);
    cr_assert_eq(f.event.last, 1);
    cr_assert(slice_eq(f.event.key, SLICE_LIT("a")));
    struct api_key_value kv;
    cr_assert_eq(api_decode_key_value(f.event.kv, &kv), 0);
    cr_assert(slice_eq(kv.value, SLICE_LIT("2")));
    cr_assert_eq(kv.mod_revision, 3);
    cr_assert_not(fake_take_type(w->gate, FR_EVENT, &f));
    world_free(w);
}

Test(feed, overlapping_ranges_give_one_event_and_unwatch_ends_it)
{
    struct world *w = world_new();
    struct frame f;

    watch(w, 1, "a", "", false);
    watch(w, 2, "a", "z", false);
    world_put(w, "a", "1");
    cr_assert(fake_take_type(w->gate, FR_EVENT, &f));
    cr_assert_not(fake_take_type(w->gate, FR_EVENT, &f));

    fake_in(w->gate, FRAME(unwatch, UNWATCH, .range_id = 1));
    world_put(w, "a", "2");
    cr_assert(fake_take_type(w->gate, FR_EVENT, &f));
    fake_in(w->gate, FRAME(unwatch, UNWATCH, .range_id = 2));
    fake_in(w->gate, FRAME(unwatch, UNWATCH, .range_id = 77));
    world_put(w, "a", "3");
    cr_assert_not(fake_take_type(w->gate, FR_EVENT, &f));
    world_free(w);
}

Test(feed, last_marks_the_last_matching_event_of_a_revision)
{
    struct world *w = world_new();
    struct frame f;

    world_put(w, "a1", "1");
    world_put(w, "a2", "1");
    world_put(w, "b1", "1");
    watch(w, 1, "a", "b", true);
    fake_drop_all(w->gate);
    remove_key(w, "a", "z");
    cr_assert(fake_take_type(w->gate, FR_EVENT, &f));
    cr_assert_eq(f.event.type, 1);
    cr_assert_eq(f.event.last, 0);
    cr_assert_gt(f.event.prev.len, 0);
    cr_assert(fake_take_type(w->gate, FR_EVENT, &f));
    cr_assert_eq(f.event.last, 1);
    cr_assert(slice_eq(f.event.key, SLICE_LIT("a2")));
    cr_assert_not(fake_take_type(w->gate, FR_EVENT, &f));
    world_free(w);
}

Test(feed, prev_is_sent_only_if_somebody_wants_it)
{
    struct world *w = world_new();
    struct frame f;

    world_put(w, "a", "1");
    watch(w, 1, "a", "", false);
    world_put(w, "a", "2");
    cr_assert(fake_take_type(w->gate, FR_EVENT, &f));
    cr_assert_eq(f.event.prev.len, 0);
    watch(w, 2, "a", "", true);
    world_put(w, "a", "3");
    cr_assert(fake_take_type(w->gate, FR_EVENT, &f));
    struct api_key_value kv;
    cr_assert_eq(api_decode_key_value(f.event.prev, &kv), 0);
    cr_assert(slice_eq(kv.value, SLICE_LIT("2")));
    world_free(w);
}

Test(feed, range_zero_only_tells_the_revision)
{
    struct world *w = world_new();
    struct frame f;

    world_put(w, "a", "1");
    watch(w, 0, "", "", false);
    cr_assert(fake_take_type(w->gate, FR_WATCHING, &f));
    cr_assert_eq(f.watching.rev, 2);
    world_put(w, "a", "1");
    cr_assert_not(fake_take_type(w->gate, FR_EVENT, &f));
    world_free(w);
}

Test(feed, recent_history_comes_at_once_and_in_step)
{
    struct world *w = world_new();
    struct frame f;

    world_put(w, "a", "1");
    world_put(w, "b", "1");
    world_put(w, "a", "2");
    fake_drop_all(w->gate);
    history(w, 9, 2, "a", "", false);
    cr_assert(fake_take(w->gate, &f) && f.type == FR_PAST && f.past.rev == 2 && f.past.last == 1 && f.past.token == 9);
    cr_assert(fake_take(w->gate, &f) && f.type == FR_PAST && f.past.rev == 4);
    cr_assert(fake_take(w->gate, &f) && f.type == FR_PAST_END);
    cr_assert_eq(f.past_end.next, 5);
    cr_assert_eq(f.past_end.feed_rev, 4);
    cr_assert_eq(f.past_end.compact_rev, 0);
    cr_assert_eq(w->s.stats.history_slices_near, 1);

    history(w, 9, 50, "a", "", false);
    cr_assert(fake_take(w->gate, &f) && f.type == FR_PAST_END);
    cr_assert_eq(f.past_end.next, 50, "the future: in step, nothing sent");
    world_free(w);
}

Test(feed, history_from_before_the_start_comes_from_the_store)
{
    struct world *w = world_new();
    struct frame f;

    world_put(w, "a", "1");
    world_put(w, "a", "2");
    remove_key(w, "a", "");
    world_restart(w); /* the ring is empty now */
    fake_drop_all(w->gate);
    history(w, 9, 2, "a", "", true);
    fake_settle(w->loop);
    cr_assert(fake_take(w->gate, &f) && f.type == FR_PAST && f.past.rev == 2 && f.past.prev.len == 0);
    cr_assert(fake_take(w->gate, &f) && f.type == FR_PAST && f.past.rev == 3 && f.past.prev.len > 0);
    cr_assert(fake_take(w->gate, &f) && f.type == FR_PAST && f.past.rev == 4 && f.past.type == 1);
    cr_assert(fake_take(w->gate, &f) && f.type == FR_PAST_END && f.past_end.next == 5);
    cr_assert_eq(w->s.stats.history_slices_far, 1);
    world_free(w);
}

Test(feed, history_below_the_compacted_revision_says_so_and_at_it_does_not)
{
    struct world *w = world_new();
    struct frame f;

    for (int i = 0; i < 5; i++)
        world_put(w, "a", "1");
    world_apply_ints(w, COMMAND_COMPACT, 4, 0, 0);
    fake_drop_all(w->gate);
    history(w, 9, 3, "a", "", false);
    fake_settle(w->loop);
    cr_assert(fake_take(w->gate, &f) && f.type == FR_PAST_END);
    cr_assert_eq(f.past_end.compact_rev, 4);
    history(w, 9, 4, "a", "", false);
    fake_settle(w->loop);
    cr_assert(fake_take(w->gate, &f) && f.type == FR_PAST && f.past.rev == 4);
    world_free(w);
}

/* A watcher as the gateway keeps it: history until in step, then live events from its cursor on. */
struct watcher {
    int64_t next; /* next revision wanted */
    bool in_step;
    int64_t seen; /* events counted; each must have the next revision */
};

static void watcher_take(struct watcher *x, int64_t rev)
{
    if (rev < x->next)
        return;
    cr_assert_eq(rev, x->next, "an event is missing: %lld instead of %lld", (long long)rev, (long long)x->next);
    x->next = rev + 1;
    x->seen++;
}

/* Reads what came; asks on when a slice has ended. */
static void watcher_run(struct world *w, struct watcher *x)
{
    struct frame f;

    while (fake_take(w->gate, &f)) {
        if (f.type == FR_PAST)
            watcher_take(x, f.past.rev);
        if (f.type == FR_EVENT && x->in_step)
            watcher_take(x, f.event.rev);
        if (f.type == FR_PAST_END) {
            cr_assert_eq(f.past_end.compact_rev, 0);
            x->next = MAX(x->next, f.past_end.next);
            x->in_step = f.past_end.next > f.past_end.feed_rev;
            if (!x->in_step)
                history(w, 9, x->next, "a", "", false);
        }
    }
}

Test(feed, a_watcher_that_joins_while_writes_go_on_sees_each_event_once)
{
    struct world *w = world_new();
    struct watcher x = {.next = 2};

    for (int i = 0; i < 300; i++)
        world_put(w, "a", "1");
    world_restart(w);
    watch(w, 1, "a", "", false);
    fake_drop_all(w->gate);
    history(w, 9, 2, "a", "", false);
    for (int i = 0; i < 500; i++) {
        world_put(w, "a", "1");
        if (i % 3 == 0)
            fake_job_run(w->loop); /* the store's slices come late */
        watcher_run(w, &x);
    }
    cr_assert(x.in_step);
    cr_assert_eq(x.seen, 800);
    cr_assert_eq(x.next, mvcc_rev(w->s.mvcc) + 1);
    world_free(w);
}

Test(feed, a_full_link_stops_its_feed_and_loses_nothing)
{
    struct world *w = world_new();
    struct watcher x = {.next = 2, .in_step = true};

    watch(w, 1, "a", "", false);
    fake_drop_all(w->gate);
    world_put(w, "a", "1");
    w->gate->full = true;
    for (int i = 0; i < 50; i++)
        world_put(w, "a", "1");
    watcher_run(w, &x);
    cr_assert_eq(x.seen, 1);
    w->gate->full = false;
    w->gate->ops->drained(w->gate, w->gate->arg);
    watcher_run(w, &x);
    cr_assert_eq(x.seen, 51);
    world_free(w);
}

Test(feed, a_gateway_that_fell_behind_the_ring_is_fed_from_the_store)
{
    struct world *w = world_new();
    struct watcher x = {.next = 2, .in_step = true};
    char *value = xmalloc(100001);

    memset(value, 'v', 100000);
    value[100000] = '\0';
    watch(w, 1, "a", "", false);
    fake_drop_all(w->gate);
    w->gate->full = true;
    for (int i = 0; i < 300; i++) /* 30 MB */
        world_put(w, "a", value);
    cr_assert_gt(ring_start(w->s.ring), 2);
    w->gate->full = false;
    w->gate->ops->drained(w->gate, w->gate->arg);
    fake_settle(w->loop);
    world_put(w, "a", "1");
    fake_settle(w->loop);
    watcher_run(w, &x);
    cr_assert_eq(x.seen, 301);
    free(value);
    world_free(w);
}

Test(feed, a_gateway_overtaken_by_compaction_has_to_come_again)
{
    struct world *w = world_new();
    char *value = xmalloc(100001);

    memset(value, 'v', 100000);
    value[100000] = '\0';
    watch(w, 1, "a", "", false);
    w->gate->full = true;
    for (int i = 0; i < 300; i++)
        world_put(w, "a", value);
    world_apply_ints(w, COMMAND_COMPACT, 200, 0, 0);
    w->gate->full = false;
    w->gate->ops->drained(w->gate, w->gate->arg);
    fake_settle(w->loop);
    cr_assert(w->s.gateways[1].feed_lost);
    cr_assert_eq(fake_in(w->gate, FRAME(unwatch, UNWATCH, .range_id = 9)), E_COMPACTED);
    fake_down(w->gate);
    fake_up(w->gate, FAKE_INSTANCE);
    watch(w, 1, "a", "", false);
    free(value);
    world_free(w);
}

Test(feed, ranges_and_questions_of_a_lost_gateway_are_forgotten)
{
    struct world *w = world_new();
    struct frame f;

    world_put(w, "a", "1");
    world_restart(w);
    watch(w, 1, "a", "", true);
    history(w, 9, 2, "a", "", false); /* goes to a worker */
    fake_down(w->gate);
    fake_up(w->gate, FAKE_INSTANCE);
    fake_settle(w->loop);
    world_put(w, "a", "2");
    cr_assert_not(fake_take_type(w->gate, FR_EVENT, &f));
    cr_assert_not(fake_take_type(w->gate, FR_PAST_END, &f));
    cr_assert_eq(w->s.gateways[1].history_count, 0);
    world_free(w);
}
