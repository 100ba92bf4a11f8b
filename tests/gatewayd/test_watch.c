/* watch, watch_feed - watchers between a fake client and a fake stored (watch_rig.h): the guarantees of
 * spec/semantics.md §10 one by one, and then all together under a random schedule of writes, restarts, compactions,
 * slow clients and cancellations. */
#include "tests/gatewayd/watch_rig.h"

/* The two files under test, with the rig's out_* and call_* in place of the library's. */
#include "gatewayd/watch.c"
#include "gatewayd/watch_feed.c"

/* --- one by one
 * --------------------------------------------------------------------------------------------------------- */

static void expect_created(struct call *c, int64_t id)
{
    const Etcdserverpb__WatchResponse *m = rig_next(c);
    cr_assert_not_null(m);
    cr_expect(m->created && !m->canceled);
    cr_expect_eq(m->watch_id, id);
    cr_expect_eq(m->n_events, 0);
}

static void expect_events(struct call *c, int64_t id, const int64_t *revs, size_t count)
{
    const Etcdserverpb__WatchResponse *m = rig_next(c);
    cr_assert_not_null(m, "no events");
    cr_expect_eq(m->watch_id, id);
    cr_assert_eq(m->n_events, count, "%zu events instead of %zu", m->n_events, count);
    for (size_t i = 0; i < count; i++)
        cr_expect_eq(m->events[i]->kv->mod_revision, revs[i]);
    if (count)
        cr_expect_geq(m->header->revision, revs[count - 1]);
}
#define EXPECT_EVENTS(c, id, ...) \
    expect_events(c, id, (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

Test(watch, a_watcher_is_told_that_it_exists_and_then_what_happens)
{
    rig_start();
    struct call *c = rig_call();
    rig_put("a");
    rig_watch(c, "a", "", 0);
    rig_settle();
    expect_created(c, 0);
    cr_expect_eq(c->said[0]->header->revision, 2);
    cr_expect_eq(c->said[0]->header->cluster_id, 5);
    rig_put("a");
    rig_put("b");
    rig_add_event(rig.rev + 1, "a", 1, 0);
    rig_settle();
    const Etcdserverpb__WatchResponse *m = rig_next(c);
    cr_assert_eq(m->n_events, 2);
    cr_expect_eq(m->events[0]->type, MVCCPB__EVENT__EVENT_TYPE__PUT);
    cr_expect_eq(m->events[1]->type, MVCCPB__EVENT__EVENT_TYPE__DELETE);
    cr_expect_eq(m->events[1]->kv->mod_revision, 5);
    cr_expect_null(rig_next(c));
    rig_close(c);
    rig_stop();
}

Test(watch, history_comes_first_and_live_events_follow_without_gap_or_double)
{
    rig_start();
    struct call *c = rig_call();
    for (int i = 0; i < 10; i++)
        rig_put("a"); /* revisions 2..11 */
    rig_watch(c, "a", "", 3);
    while (rig_stored_step()) { /* WATCH */
    }
    rig_deliver(SIZE_MAX);
    /* While the first slice is on its way, live events overtake the watcher. */
    rig_put("a");
    rig_feed();
    rig_put("a");
    rig_settle();
    expect_created(c, 0);
    EXPECT_EVENTS(c, 0, 3, 4, 5);
    EXPECT_EVENTS(c, 0, 6, 7, 8);
    EXPECT_EVENTS(c, 0, 9, 10, 11);
    EXPECT_EVENTS(c, 0, 12, 13);
    rig_put("a");
    rig_settle();
    EXPECT_EVENTS(c, 0, 14);
    cr_expect_null(rig_next(c));
    rig_close(c);
    rig_stop();
}

Test(watch, all_events_of_a_revision_come_together_even_if_a_message_cuts_it)
{
    rig_start();
    struct call *c = rig_call();
    rig_watch(c, "a", "z", 0);
    rig_settle();
    expect_created(c, 0);
    int64_t rev = rig.rev + 1;
    rig_add_event(rev, "a", 0, 0);
    rig_add_event(rev, "b", 0, 0);
    rig_add_event(rev, "c", 0, 0);
    rig_feed();
    rig_deliver(1);
    rig_deliver(1);
    cr_expect_null(rig_next(c));
    rig_deliver(1);
    EXPECT_EVENTS(c, 0, rev, rev, rev);
    rig_close(c);
    rig_stop();
}

Test(watch, a_revision_that_is_cut_by_the_loss_of_stored_is_read_again_as_a_whole)
{
    rig_start();
    struct call *c = rig_call();
    rig_watch(c, "a", "z", 0);
    rig_watch(c, "c", "", 0); /* its event is in the part that never came */
    rig_settle();
    expect_created(c, 0);
    expect_created(c, 1);
    int64_t rev = rig.rev + 1;
    rig_add_event(rev, "a", 0, 0);
    rig_add_event(rev, "c", 0, 0);
    rig_feed();
    rig_deliver(1);
    rig_down();
    cr_expect_null(rig_next(c));
    rig_up();
    rig_settle();
    EXPECT_EVENTS(c, 0, rev, rev);
    EXPECT_EVENTS(c, 1, rev);
    cr_expect_null(rig_next(c));
    rig_close(c);
    rig_stop();
}

Test(watch, a_restart_of_stored_is_not_seen_by_watchers)
{
    rig_start();
    struct call *c = rig_call();
    rig_watch(c, "a", "", 0);
    rig_settle();
    expect_created(c, 0);
    rig_put("a");
    rig_settle();
    EXPECT_EVENTS(c, 0, 2);
    rig_down();
    rig_put("a");
    rig_put("b");
    rig_put("a");
    rig_up();
    rig_put("a");
    rig_settle();
    EXPECT_EVENTS(c, 0, 3, 5);
    EXPECT_EVENTS(c, 0, 6);
    cr_expect_null(rig_next(c));
    rig_close(c);
    rig_stop();
}

Test(watch, what_was_asked_while_stored_was_away_is_asked_when_it_is_back)
{
    rig_start();
    struct call *c = rig_call();
    rig_down();
    rig_watch(c, "a", "", 0);
    rig_watch(c, "a", "", 0);
    rig_watch(c, "b", "a", 0); /* refused, in its turn */
    rig_watch(c, "b", "", 0);
    cr_expect_null(rig_next(c));
    rig_up();
    rig_settle();
    expect_created(c, 0);
    expect_created(c, 1);
    const Etcdserverpb__WatchResponse *m = rig_next(c);
    cr_expect(m->created && m->canceled);
    cr_expect_eq(m->watch_id, -1);
    expect_created(c, 2);
    rig_put("a");
    rig_settle();
    EXPECT_EVENTS(c, 0, 2);
    EXPECT_EVENTS(c, 1, 2);
    rig_close(c);
    rig_stop();
}

Test(watch, a_client_that_does_not_read_falls_behind_and_comes_back_complete)
{
    rig_start();
    struct call *c = rig_call();
    rig_watch(c, "a", "", 0);
    rig_settle();
    expect_created(c, 0);
    rig_read(c);
    for (int i = 0; i < 40; i++) {
        rig_put("a");
        rig_settle();
    }
    cr_expect_eq(rig.g.watch->slow_count, 1);
    cr_expect_leq(c->unread, 17 + WATCH_STREAM_ASKED_MAX); /* WATCH_STREAM_BYTES_MAX and what was under way */
    size_t asked = rig.histories;
    for (int i = 0; i < 100; i++) {
        rig_put("b");
        rig_settle();
    }
    cr_expect_eq(rig.histories, asked, "history was asked for while the client does not read");
    while (c->unread) {
        rig_read(c);
        rig_settle();
    }
    int64_t next = 2;
    for (const Etcdserverpb__WatchResponse *m; (m = rig_next(c)) != NULL;)
        for (size_t i = 0; i < m->n_events; i++)
            cr_expect_eq(m->events[i]->kv->mod_revision, next++);
    cr_expect_eq(next, 42);
    rig_put("a");
    rig_settle();
    EXPECT_EVENTS(c, 0, 142);
    rig_close(c);
    rig_stop();
}

Test(watch, who_falls_behind_after_long_silence_goes_back_to_what_it_missed_and_not_further)
{
    rig_start();
    struct call *c = rig_call();
    rig_watch(c, "a", "", 0);
    rig_watch(c, "noise", "", 0);
    rig_settle();
    for (int i = 0; i < 40; i++) { /* the noise fills the client's queue; "a" is silent */
        rig_put("noise");
        rig_settle();
    }
    rig.compact_rev = rig.rev; /* where "a" joined is compacted */
    rig_put("a");
    rig_settle();
    while (c->unread) {
        rig_read(c);
        rig_settle();
    }
    size_t a_events = 0;
    for (const Etcdserverpb__WatchResponse *m; (m = rig_next(c)) != NULL;) {
        cr_expect(!m->canceled || m->watch_id == 1, "watcher 0 has missed nothing that is compacted");
        a_events += m->watch_id == 0 ? m->n_events : 0;
    }
    cr_expect_eq(a_events, 1);
    rig_close(c);
    rig_stop();
}

Test(watch, an_idle_watcher_survives_a_compaction_and_a_restart_of_stored)
{
    rig_start();
    struct call *c = rig_call();
    rig_watch(c, "a", "", 0);
    rig_settle();
    expect_created(c, 0);
    for (int i = 0; i < 50; i++)
        rig_put("other");
    rig.g.watch->position.fire(&rig.g.watch->position, 10000);
    rig_settle();
    rig.compact_rev = rig.rev;
    rig_down();
    rig_up();
    rig_put("a");
    rig_settle();
    EXPECT_EVENTS(c, 0, 52);
    cr_expect_null(rig_next(c));
    rig_close(c);
    rig_stop();
}

Test(watch, a_start_below_the_compaction_is_created_and_then_cancelled)
{
    rig_start();
    struct call *c = rig_call();
    for (int i = 0; i < 8; i++)
        rig_put("a");
    rig.compact_rev = 5;
    rig_watch(c, "a", "", 4);
    rig_watch(c, "a", "", 5);
    rig_settle();
    expect_created(c, 0);
    const Etcdserverpb__WatchResponse *m = rig_next(c);
    cr_expect(m->canceled && !m->created);
    cr_expect_eq(m->compact_revision, 5);
    cr_expect_eq(m->header->revision, 0);
    cr_expect_str_empty(m->cancel_reason);
    expect_created(c, 1);
    EXPECT_EVENTS(c, 1, 5, 6, 7);
    rig_close(c);
    rig_stop();
}

Test(watch, history_that_is_overtaken_by_compaction_cancels_the_watcher)
{
    rig_start();
    struct call *c = rig_call();
    for (int i = 0; i < 8; i++)
        rig_put("a");
    rig_watch(c, "a", "", 2);
    rig_stored_step();
    rig_deliver(SIZE_MAX);
    rig.compact_rev = 6;
    rig_settle();
    expect_created(c, 0);
    const Etcdserverpb__WatchResponse *m = rig_next(c);
    cr_expect(m->canceled);
    cr_expect_eq(m->compact_revision, 6);
    cr_expect_eq(rig.g.watch->watcher_count, 0);
    rig_put("a");
    rig_settle();
    cr_expect_null(rig_next(c));
    rig_close(c);
    rig_stop();
}

Test(watch, refusals_carry_their_words_and_leave_the_stream_open)
{
    rig_start();
    struct call *c = rig_call();
    Etcdserverpb__WatchCreateRequest m = rig_range("a", "", 0);
    m.watch_id = 9;
    rig_create(c, &m);
    rig_create(c, &m);
    rig_watch(c, "b", "a", 0);
    rig_watch(c, "b", "b", 0);
    rig_watch(c, "a", "", -1);
    rig_watch(c, "a", "", 0);
    rig_settle();
    static const char *const reasons[] = {"mvcc: duplicate watch ID provided on the WatchStream",
                                          "mvcc: watcher range is empty", "mvcc: watcher range is empty",
                                          "etcdserver: mvcc: required revision has been compacted"};
    expect_created(c, 9);
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
        const Etcdserverpb__WatchResponse *r = rig_next(c);
        cr_expect(r->created && r->canceled);
        cr_expect_eq(r->watch_id, -1);
        cr_expect_eq(r->header->revision, 1);
        cr_expect_str_eq(r->cancel_reason, reasons[i]);
    }
    expect_created(c, 0);
    cr_expect(!c->over);
    rig_close(c);
    rig_stop();
}

/* The question of a creation is answered. */
static void rig_authorize(int err)
{
    answer_cb *cb = rig_auth.cb;
    cr_assert_not_null(cb);
    rig_auth.cb = NULL;
    cb(rig_auth.arg, &(struct answer){.err = err});
}

Test(watch, with_auth_on_stored_says_who_may_and_all_requests_keep_their_order)
{
    rig_start();
    rig_auth.on = true;
    struct call *c = rig_call();
    rig_watch(c, "a", "c", 0);
    rig_watch(c, "x", "", 0); /* waits for the first */
    rig_watch(c, "", "", 0);
    rig_settle();
    cr_expect_eq(c->said_count, 0);
    cr_expect_eq(rig_auth.count, 1);
    cr_expect(slice_eq(buf_slice(&rig_auth.asked), SLICE_LIT("\12\1a\22\1c")), "a RangeRequest of the range");
    rig_authorize(OK);
    cr_expect_eq(rig_auth.count, 2);
    rig_authorize(E_PERMISSION_DENIED);
    cr_expect(slice_eq(buf_slice(&rig_auth.asked), SLICE_LIT("\12\1\0")), "no key is the first key");
    rig_authorize(E_AUTH_OLD_REVISION);
    rig_settle();
    expect_created(c, 0);
    static const char *const reasons[] = {"rpc error: code = PermissionDenied desc = etcdserver: permission denied",
                                          "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old"};
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
        const Etcdserverpb__WatchResponse *r = rig_next(c);
        cr_expect(r->created && r->canceled);
        cr_expect_eq(r->watch_id, -1);
        cr_expect_str_eq(r->cancel_reason, reasons[i]);
    }
    rig_put("b");
    rig_settle();
    cr_expect_eq(rig_next(c)->n_events, 1);
    rig_close(c);
    rig_stop();
    buf_fini(&rig_auth.asked);
}

Test(watch, a_bad_token_refuses_the_creation_and_a_stream_that_closes_takes_its_question_along)
{
    rig_start();
    rig_auth.on = true;
    struct call *c = rig_call();
    rig_auth.identity_err = E_INVALID_AUTH_TOKEN;
    rig_watch(c, "a", "", 0);
    rig_settle();
    cr_expect_eq(rig_auth.count, 0);
    const Etcdserverpb__WatchResponse *r = rig_next(c);
    cr_expect_str_eq(r->cancel_reason, "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token");
    cr_expect(!c->over);
    rig_auth.identity_err = OK;
    rig_watch(c, "a", "", 0);
    cr_expect_not_null(rig_auth.cb);
    rig_close(c);
    cr_expect_eq(rig_auth.cancelled, 1);
    rig_stop();
    buf_fini(&rig_auth.asked);
}

Test(watch, ids_count_up_from_zero_and_pass_over_those_in_use)
{
    rig_start();
    struct call *c = rig_call();
    Etcdserverpb__WatchCreateRequest m = rig_range("a", "", 0);
    m.watch_id = 1;
    rig_create(c, &m);
    rig_watch(c, "a", "", 0);
    rig_watch(c, "a", "", 0);
    rig_settle();
    expect_created(c, 1);
    expect_created(c, 0);
    expect_created(c, 2);
    rig_close(c);
    rig_stop();
}

Test(watch, a_cancelled_watcher_hears_that_and_nothing_after_it)
{
    rig_start();
    struct call *c = rig_call();
    rig_watch(c, "a", "", 0);
    rig_settle();
    expect_created(c, 0);
    rig_put("a");
    rig_feed(); /* on its way */
    rig_cancel(c, 0);
    rig_cancel(c, 77);
    rig_settle();
    const Etcdserverpb__WatchResponse *m = rig_next(c);
    cr_expect(m->canceled && !m->created);
    cr_expect_str_empty(m->cancel_reason);
    cr_expect_eq(m->compact_revision, 0);
    cr_expect_null(rig_next(c));
    cr_expect_eq(rig.unwatches, 1);
    cr_expect_eq(rig.range_count, 0);
    rig_close(c);
    rig_stop();
}

Test(watch, a_cancel_that_comes_before_the_creation_is_answered_follows_it)
{
    rig_start();
    struct call *c = rig_call();
    rig_watch(c, "a", "", 100);
    rig_cancel(c, 0);
    rig_cancel(c, 0);
    rig_settle();
    expect_created(c, 0);
    const Etcdserverpb__WatchResponse *m = rig_next(c);
    cr_expect(m->canceled);
    cr_expect_eq(m->header->revision, 1);
    cr_expect_null(rig_next(c));
    rig_close(c);
    rig_stop();
}

Test(watch, a_stream_that_closes_while_answers_are_on_their_way_leaves_nothing_behind)
{
    rig_start();
    struct call *c = rig_call();
    for (int i = 0; i < 20; i++)
        rig_put("a");
    rig_watch(c, "a", "", 2);
    rig_stored_step();
    rig_deliver(SIZE_MAX); /* created, a slice is asked for */
    rig_watch(c, "b", "", 0);
    rig_progress(c);
    rig_close(c);
    cr_expect_eq(rig.g.watch->asked, 1, "stored still works for it");
    rig_settle();
    cr_expect_eq(rig.g.watch->asked, 0);
    cr_expect_eq(HASH_COUNT(rig.g.watch->tokens), 0);
    rig_stop();
}

Test(watch, progress_is_told_only_when_every_watcher_of_the_stream_is_in_step)
{
    rig_start();
    struct call *c = rig_call();
    rig_progress(c); /* no watcher: silence */
    for (int i = 0; i < 8; i++)
        rig_put("a");
    rig_watch(c, "a", "", 0);
    rig_settle();
    expect_created(c, 0);
    rig_progress(c);
    rig_settle();
    const Etcdserverpb__WatchResponse *m = rig_next(c);
    cr_assert_not_null(m);
    cr_expect_eq(m->watch_id, -1);
    cr_expect_eq(m->header->revision, 9);
    cr_expect_eq(m->n_events, 0);

    rig_watch(c, "a", "", 2);
    rig_progress(c); /* asked while watcher 1 is behind */
    rig_stored_step();
    rig_stored_step();
    rig_deliver(SIZE_MAX);
    expect_created(c, 1);
    cr_expect_null(rig_next(c));
    rig_settle();
    for (int i = 0; i < 3; i++)
        cr_expect_eq(rig_next(c)->watch_id, 1);
    cr_expect_null(rig_next(c));

    rig_watch(c, "a", "", 10); /* starts in the future */
    rig_settle();
    expect_created(c, 2);
    rig_progress(c);
    rig_settle();
    cr_expect_null(rig_next(c));
    rig_put("b");
    rig_progress(c);
    rig_settle();
    m = rig_next(c);
    cr_assert_not_null(m);
    cr_expect_eq(m->header->revision, 10);
    rig_close(c);
    rig_stop();
}

Test(watch, progress_never_overtakes_an_event)
{
    rig_start();
    struct call *c = rig_call();
    rig_watch(c, "a", "", 0);
    rig_settle();
    expect_created(c, 0);
    rig_put("a");
    rig_progress(c);
    rig_stored_step(); /* feeds, then answers */
    rig_deliver(SIZE_MAX);
    EXPECT_EVENTS(c, 0, 2);
    cr_expect_eq(rig_next(c)->header->revision, 2);
    rig_close(c);
    rig_stop();
}

Test(watch, the_tick_tells_quiet_watchers_that_asked_for_it)
{
    rig_start();
    struct call *c = rig_call();
    Etcdserverpb__WatchCreateRequest m = rig_range("a", "", 0);
    m.progress_notify = true;
    rig_create(c, &m);
    rig_watch(c, "a", "", 0); /* has not asked */
    m.start_revision = 50;
    rig_create(c, &m); /* of the future */
    rig_settle();
    for (int i = 0; i < 3; i++)
        expect_created(c, i);
    struct deadline *tick = &rig.g.watch->tick;
    tick->fire(tick, 1000); /* all were told something since the last one */
    rig_settle();
    cr_expect_null(rig_next(c));
    rig_put("b");
    tick->fire(tick, 2000);
    tick->fire(tick, 2100); /* the question is still on its way: not asked twice */
    rig_settle();
    const Etcdserverpb__WatchResponse *r = rig_next(c);
    cr_assert_not_null(r);
    cr_expect_eq(r->watch_id, 0);
    cr_expect_eq(r->header->revision, 2);
    cr_expect_null(rig_next(c));
    rig_put("a");
    rig_settle();
    rig_next(c);
    rig_next(c);
    tick->fire(tick, 3000); /* it had an event */
    rig_settle();
    cr_expect_null(rig_next(c));
    rig_close(c);
    rig_stop();
}

Test(watch, nothing_is_told_before_a_start_in_the_future)
{
    rig_start();
    struct call *c = rig_call();
    rig_watch(c, "a", "", 4);
    rig_settle();
    expect_created(c, 0);
    rig_put("a");
    rig_settle();
    rig_down();
    rig_put("a");
    rig_up();
    rig_settle();
    cr_expect_null(rig_next(c));
    rig_put("a");
    rig_settle();
    EXPECT_EVENTS(c, 0, 4);
    rig_close(c);
    rig_stop();
}

Test(watch, filters_leave_out_and_say_nothing_of_it)
{
    rig_start();
    struct call *c = rig_call();
    Etcdserverpb__WatchCreateRequest__FilterType no_put = ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT;
    Etcdserverpb__WatchCreateRequest m = rig_range("a", "", 0);
    m.n_filters = 1;
    m.filters = &no_put;
    rig_create(c, &m);
    rig_settle();
    m.start_revision = 2;
    rig_put("a");
    rig_add_event(rig.rev + 1, "a", 1, 0);
    rig_create(c, &m);
    rig_settle();
    expect_created(c, 0);
    EXPECT_EVENTS(c, 0, 3);
    expect_created(c, 1);
    EXPECT_EVENTS(c, 1, 3);
    rig_put("a");
    rig_settle();
    cr_expect_null(rig_next(c));
    rig_close(c);
    rig_stop();
}

Test(watch, a_large_revision_comes_in_fragments_if_the_client_allows_it)
{
    rig_start();
    struct call *c = rig_call();
    Etcdserverpb__WatchCreateRequest m = rig_range("a", "z", 0);
    m.fragment = true;
    rig_create(c, &m);
    rig_watch(c, "a", "z", 0);
    rig_settle();
    expect_created(c, 0);
    expect_created(c, 1);
    int64_t rev = rig.rev + 1;
    for (int i = 0; i < 5; i++)
        rig_add_event(rev, "k", 0, 900 * 1024); /* two fit below 2 MiB */
    rig_settle();
    size_t parts = 0, events = 0, whole = 0;
    bool more = false;
    for (const Etcdserverpb__WatchResponse *r; (r = rig_next(c)) != NULL;) {
        if (r->watch_id == 1) {
            whole += r->n_events;
            cr_expect(!r->fragment);
            continue;
        }
        parts++;
        events += r->n_events;
        more = r->fragment;
        cr_expect_eq(r->header->revision, rev);
    }
    cr_expect_eq(parts, 3);
    cr_expect_eq(events, 5);
    cr_expect(!more, "the last part says that more comes");
    cr_expect_eq(whole, 5);
    rig_close(c);
    rig_stop();
}

Test(watch, watchers_of_one_range_share_it_and_the_last_one_takes_it_away)
{
    rig_start();
    struct call *c = rig_call(), *d = rig_call();
    rig_watch(c, "a", "z", 0);
    rig_watch(d, "a", "z", 0);
    rig_watch(d, "a", "z", 0);
    rig_settle();
    cr_expect_eq(rig.range_count, 1);
    rig_put("k");
    rig_settle();
    cr_expect_eq(rig.g.watch->event_count, 1);
    cr_expect_eq(c->said_count, 2);
    cr_expect_eq(d->said_count, 4);
    rig_close(c);
    rig_cancel(d, 0);
    rig_settle();
    cr_expect_eq(rig.range_count, 1);
    rig_close(d);
    rig_settle();
    cr_expect_eq(rig.range_count, 0);
    rig_stop();
}

/* --- limits
 * --------------------------------------------------------------------------------------------------------------- */

Test(watch, a_client_that_creates_and_does_not_read_is_not_listened_to)
{
    rig_start();
    struct call *c = rig_call();
    for (int i = 0; i < 100; i++) {
        rig_watch(c, "b", "a", 0);
        rig_settle();
    }
    cr_expect(c->paused);
    cr_expect_leq(c->said_count, 17); /* WATCH_STREAM_BYTES_MAX, and the one that crossed it */
    for (int i = 0; i < 100; i++) {
        rig_read(c);
        rig_settle();
    }
    cr_expect_eq(c->said_count, 100);
    rig_close(c);
    rig_stop();
}

Test(watch, a_client_that_asks_faster_than_stored_answers_is_not_listened_to)
{
    rig_start();
    struct call *c = rig_call();
    rig_down();
    for (int i = 0; i < 3 * WATCH_STREAM_WAITING_MAX; i++)
        rig_watch(c, "a", "", 0);
    cr_expect(c->paused);
    cr_expect_eq(HASH_COUNT(rig.g.watch->tokens), WATCH_STREAM_WAITING_MAX);
    rig_up();
    for (int i = 0; i < 10000 && c->said_count < 3 * WATCH_STREAM_WAITING_MAX; i++) {
        rig_settle();
        rig_read(c);
    }
    cr_expect_eq(rig.g.watch->watcher_count, 3 * WATCH_STREAM_WAITING_MAX);
    cr_expect_eq(c->said_count, 3 * WATCH_STREAM_WAITING_MAX);
    rig_close(c);
    rig_stop();
}

Test(watch, slices_under_way_are_bounded_and_streams_take_turns)
{
    rig_start();
    struct call *calls[100];
    for (int i = 0; i < 30; i++)
        rig_put("a");
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        calls[i] = rig_call();
        for (int k = 0; k < 20; k++)
            rig_watch(calls[i], "a", "", 2); /* one message each when created, ten with events */
    }
    while (rig_stored_step()) { /* all creations */
    }
    rig_deliver(SIZE_MAX);
    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        rig_read(calls[i]);
    cr_expect_leq(rig.g.watch->asked, WATCH_ASKED_MAX);
    cr_expect_geq(rig.g.watch->asked, WATCH_ASKED_MAX / 2);
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        struct stream *s = call_state(calls[i]);
        cr_expect_leq(s->asked, WATCH_STREAM_ASKED_MAX);
    }
    for (int i = 0; i < 1000; i++) {
        rig_settle();
        for (size_t k = 0; k < ARRAY_LEN(calls); k++)
            rig_read(calls[k]);
    }
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        size_t events = 0;
        for (const Etcdserverpb__WatchResponse *m; (m = rig_next(calls[i])) != NULL;)
            events += m->n_events;
        cr_expect_eq(events, 20 * 30);
        rig_close(calls[i]);
    }
    rig_stop();
}

Test(watch, creating_and_cancelling_does_not_fill_the_line_at_stored)
{
    rig_start();
    struct call *c = rig_call();
    for (int i = 0; i < 30; i++)
        rig_put("a");
    for (int i = 0; i < 5 * WATCH_ASKED_MAX; i++) {
        rig_watch(c, "a", "", 2);
        while (rig.in.first < rig.in.count && rig.in.frames[rig.in.first].kind == RIG_WATCH)
            rig_stored_step(); /* answers WATCH; slices wait */
        rig_deliver(SIZE_MAX);
        rig_cancel(c, i);
        rig_read(c);
        if (rig.in.first < rig.in.count && rig.in.frames[rig.in.first].kind == RIG_HISTORY)
            break; /* the line has begun: WATCH frames now wait behind it */
    }
    cr_expect_leq(rig.g.watch->asked, WATCH_ASKED_MAX);
    rig_close(c);
    rig_settle();
    cr_expect_eq(rig.g.watch->asked, 0);
    rig_stop();
}

Test(watch, a_learner_serves_no_watches)
{
    rig_start();
    struct call *c = rig_call();
    rig.g.is_learner = true;
    rig_watch(c, "a", "", 0);
    cr_expect(c->over);
    cr_expect_eq(c->end_err, E_NOT_SUPPORTED_FOR_LEARNER);
    rig_close(c);
    rig_stop();
}

Test(watch, what_is_not_protobuf_ends_the_stream)
{
    rig_start();
    struct call *c = rig_call();
    watch_message(c, SLICE_LIT("\xff\xff\xff"));
    cr_expect(c->over);
    cr_expect_eq(c->end_err, E_MALFORMED_REQUEST);
    rig_close(c);
    rig_stop();
}

/* --- others who listen
 * --------------------------------------------------------------------------------------------------- */

static struct {
    int err;
    size_t past, published, ends;
    int64_t next, compact_rev, store_rev;
} heard;

static void reader_past(struct history_reader *r, const struct fr_past *m)
{
    UNUSED(r);
    UNUSED(m);
    heard.past++;
}

static void reader_end(struct history_reader *r, int err, int64_t next, int64_t compact_rev, int64_t store_rev)
{
    UNUSED(r);
    heard.ends++;
    heard.err = err;
    heard.next = next;
    heard.compact_rev = compact_rev;
    heard.store_rev = store_rev;
}

static void published(struct gatewayd *g, const struct fr_event *m)
{
    UNUSED(g);
    UNUSED(m);
    heard.published++;
}

Test(watch, a_reader_gets_one_slice_or_the_present_revision_or_an_error)
{
    struct history_reader reader = {reader_past, reader_end};
    rig_start();
    struct watch_hub *h = rig.g.watch;
    memset(&heard, 0, sizeof(heard));
    for (int i = 0; i < 8; i++)
        rig_put("a");
    feed_read(h, &reader, 3, false, SLICE_LIT("a"), SLICE_EMPTY);
    rig_settle();
    cr_expect_eq(heard.past, 3);
    cr_expect_eq(heard.next, 6);
    cr_expect_eq(heard.store_rev, 9);
    feed_read(h, &reader, 0, false, SLICE_LIT("a"), SLICE_EMPTY);
    rig_settle();
    cr_expect_eq(heard.next, 10);
    cr_expect_eq(heard.past, 3);
    rig.compact_rev = 5;
    feed_read(h, &reader, 3, false, SLICE_LIT("a"), SLICE_EMPTY);
    rig_settle();
    cr_expect_eq(heard.compact_rev, 5);
    feed_read(h, &reader, 6, false, SLICE_LIT("a"), SLICE_EMPTY);
    rig_down();
    cr_expect_eq(heard.err, E_UNREACHABLE);
    cr_expect_eq(heard.ends, 4);
    rig_up();
    rig_settle();
    cr_expect_eq(heard.ends, 4);
    rig_stop();
}

Test(watch, the_native_door_hears_everything_while_it_wants_to)
{
    rig_start();
    struct watch_hub *h = rig.g.watch;
    memset(&heard, 0, sizeof(heard));
    h->publish = published;
    rig_put("a");
    feed_publish(h, true);
    feed_publish(h, true);
    rig_settle();
    rig_put("b");
    rig_settle();
    cr_expect_eq(heard.published, 1);
    rig_down();
    rig_up();
    rig_settle();
    rig_put("c");
    rig_settle();
    cr_expect_eq(heard.published, 2);
    feed_publish(h, false);
    rig_settle();
    rig_put("d");
    rig_settle();
    cr_expect_eq(heard.published, 2);
    rig_stop();
}

/* --- all together
 * --------------------------------------------------------------------------------------------------------- */

#define STREAMS 4
#define KEYS 5

/* What the test knows of one watcher of a stream, by id. */
struct expected {
    bool asked, created, gone, compacted;
    struct rig_range range;
    int64_t start; /* effective, once created */
    int64_t last_rev;
    size_t next_event; /* position among all events: what must come next is the first from here that matches */
    bool in_fragments;
};

static struct expected world[STREAMS][2000];

static size_t next_match(const struct expected *w, size_t from)
{
    while (from < rig.event_count && (rig.events[from].rev < w->start || !range_has(&w->range, rig.events[from].key)))
        from++;
    return from;
}

static void check_said(struct expected *all, const Etcdserverpb__WatchResponse *m)
{
    if (m->watch_id == -1) { /* progress of the stream: everybody has everything up to it */
        for (size_t i = 0; i < ARRAY_LEN(world[0]); i++) {
            struct expected *w = &all[i];
            if (!w->created || w->gone)
                continue;
            size_t at = next_match(w, w->next_event);
            cr_assert(at == rig.event_count || rig.events[at].rev > m->header->revision,
                      "progress %lld overtook revision %lld", (long long)m->header->revision,
                      (long long)rig.events[at].rev);
        }
        return;
    }
    struct expected *w = &all[m->watch_id];
    cr_assert(w->asked && !w->gone);
    if (m->created) {
        cr_assert(!w->created);
        w->created = true;
        w->start = w->start ? w->start : m->header->revision + 1;
        return;
    }
    cr_assert(w->created);
    if (m->canceled) {
        w->gone = true;
        w->compacted = m->compact_revision > 0;
        size_t at = next_match(w, w->next_event);
        if (w->compacted)
            cr_assert(m->compact_revision <= rig.compact_rev && at <= rig.event_count);
        return;
    }
    for (size_t i = 0; i < m->n_events; i++) {
        size_t at = next_match(w, w->next_event);
        cr_assert_lt(at, rig.event_count, "an event that never was");
        cr_assert_eq(m->events[i]->kv->mod_revision, rig.events[at].rev, "watcher %lld: revision %lld instead of %lld",
                     (long long)m->watch_id, (long long)m->events[i]->kv->mod_revision, (long long)rig.events[at].rev);
        cr_assert_eq(
            slice_cmp(slice_of(m->events[i]->kv->key.data, m->events[i]->kv->key.len), slice_str(rig.events[at].key)),
            0);
        w->next_event = at + 1;
        w->last_rev = rig.events[at].rev;
    }
    if (m->n_events) { /* whole revisions: what comes next is of a later one */
        size_t at = next_match(w, w->next_event);
        cr_assert(at == rig.event_count || rig.events[at].rev > w->last_rev, "revision %lld was cut",
                  (long long)w->last_rev);
        cr_assert_geq(m->header->revision, w->last_rev);
    }
}

static const char *any_key(struct rand *r)
{
    static const char *const keys[KEYS] = {"a", "b", "c", "d", "e"};
    return keys[rand_below(r, KEYS)];
}

static void any_create(struct rand *r, struct call *c, struct expected *all, int64_t *next_id)
{
    static const char *const ends[] = {"", "c", "e", "z"};
    const char *key = any_key(r), *end = ends[rand_below(r, ARRAY_LEN(ends))];
    if (*next_id == (int64_t)ARRAY_LEN(world[0]) || c->paused)
        return;
    Etcdserverpb__WatchCreateRequest m =
        rig_range(key, end, rand_below(r, 2) ? 0 : 1 + (int64_t)rand_below(r, (uint64_t)rig.rev + 5));
    rig_create(c, &m);
    if (*end && strcmp(key, end) >= 0)
        return; /* refused: has no id */
    struct expected *w = &all[(*next_id)++];
    *w = (struct expected){
        .asked = true, .range = range_of(0, slice_str(key), slice_str(end)), .start = m.start_revision};
}

static void any_write(struct rand *r)
{
    int64_t rev = rig.rev + 1;
    for (uint64_t i = 1 + rand_below(r, 3); i > 0; i--)
        rig_add_event(rev, any_key(r), rand_below(r, 4) == 0, 0);
}

static void step(struct rand *r, struct call **calls, int64_t *next_ids)
{
    size_t k = (size_t)rand_below(r, STREAMS);
    switch (rand_below(r, 16)) {
    case 0:
        any_create(r, calls[k], world[k], &next_ids[k]);
        break;
    case 1:
        if (next_ids[k])
            rig_cancel(calls[k], (int64_t)rand_below(r, (uint64_t)next_ids[k]));
        break;
    case 2:
        rig_progress(calls[k]);
        break;
    case 3:
        if (rand_below(r, 20) == 0 && rig.g.stored_up)
            rig_down();
        else if (!rig.g.stored_up)
            rig_up();
        break;
    case 4:
        if (rand_below(r, 30) == 0) {
            int64_t rev = rig.rev - (int64_t)rand_below(r, 10);
            rig.compact_rev = MAX(rig.compact_rev, rev);
        }
        break;
    case 5:
    case 6:
    case 7:
        any_write(r);
        break;
    case 8:
        rig_feed();
        break;
    case 9:
        rig_read(calls[k]);
        break;
    case 10:
    case 11:
    case 12:
        rig_stored_step();
        break;
    default:
        rig_deliver(1 + (size_t)rand_below(r, 4));
        break;
    }
}

static void take_said(struct call **calls)
{
    const Etcdserverpb__WatchResponse *m;
    for (size_t k = 0; k < STREAMS; k++)
        while ((m = rig_next(calls[k])) != NULL)
            if (!(m->created && m->canceled))
                check_said(world[k], m);
}

static void one_world(struct rand *r)
{
    struct call *calls[STREAMS];
    int64_t next_ids[STREAMS] = {0};
    memset(world, 0, sizeof(world));
    rig_start();
    rig.history_revs = 1 + (size_t)rand_below(r, 5);
    for (size_t k = 0; k < STREAMS; k++)
        calls[k] = rig_call();
    for (int i = 0; i < 3000; i++) {
        step(r, calls, next_ids);
        take_said(calls);
    }
    if (!rig.g.stored_up)
        rig_up();
    for (int i = 0; i < 2000; i++) {
        rig_settle();
        for (size_t k = 0; k < STREAMS; k++)
            rig_read(calls[k]);
    }
    take_said(calls);
    size_t alive = 0;
    for (size_t k = 0; k < STREAMS; k++) {
        for (int64_t id = 0; id < next_ids[k]; id++) {
            struct expected *w = &world[k][id];
            cr_assert(w->created, "stream %zu watcher %lld was never created", k, (long long)id);
            size_t at = next_match(w, w->next_event);
            cr_assert(w->gone || at == rig.event_count, "stream %zu watcher %lld lacks revision %lld of %lld", k,
                      (long long)id, (long long)rig.events[at].rev, (long long)rig.rev);
            alive += !w->gone;
        }
        rig_close(calls[k]);
    }
    cr_expect_gt(alive, 0);
    rig_settle();
    cr_expect_eq(rig.range_count, 0);
    cr_expect_eq(HASH_COUNT(rig.g.watch->tokens), 0);
    rig_stop();
}

Test(watch, under_any_schedule_each_watcher_gets_each_event_once_and_in_order, .timeout = 120)
{
    struct rand r = seeded("watch/world");
    for (int i = 0; i < 60; i++)
        one_world(&r);
}
