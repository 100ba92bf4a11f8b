/* The order of effects. A real core, and fakes that write down what turn.c does: the log of effects is the test. The
 * fake disk is done when the test says so. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "raftd/turn.h"

struct rig {
    struct raft *raft;
    struct turn *turn;
    struct buf said; /* effects, one word each, separated by spaces */
    uint64_t now_ms, ticket;
    bool room, no_space;
    uint64_t dropped;
};

static void say(struct rig *g, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void say(struct rig *g, const char *fmt, ...)
{
    char text[128];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    buf_printf(&g->said, "%s%s", g->said.len ? " " : "", text);
}

static void fake_send(void *arg, const struct raft_msg *m)
{
    static const char *const names[] = {"prevote", "prevote_said", "vote", "vote_said", "append",     "append_said",
                                        "beat",    "beat_said",    "snap", "snap_said", "timeout_now"};
    say(arg, "send:%s", names[m->type]);
}
static uint64_t fake_persist(void *arg, const struct raft_ready *rd)
{
    struct rig *g = arg;
    say(g, "persist:%s%zu", rd->hard_changed ? "hard+" : "", rd->entry_count);
    return ++g->ticket;
}
static void fake_apply(void *arg, const struct entry *e)
{
    say(arg, "apply:%" PRIu64, e->index);
}
static void fake_serve(void *arg, unsigned slot, uint64_t index, uint64_t req, struct slice command)
{
    say(arg, "serve:%u:%" PRIu64 "@%" PRIu64 ":%.*s", slot, req, index, (int)command.len, (const char *)command.data);
}
static bool fake_room(void *arg)
{
    return ((struct rig *)arg)->room;
}
static void fake_refuse(void *arg, unsigned slot, uint64_t req, int err)
{
    say(arg, "refuse:%u:%" PRIu64 ":%s", slot, req, err_name(err));
}
static void fake_changed(void *arg)
{
    UNUSED(arg);
}
static void fake_conf(void *arg, const struct entry *e)
{
    say(arg, "conf:%" PRIu64, e->index);
}
static void fake_drop(void *arg, uint64_t below)
{
    ((struct rig *)arg)->dropped = below;
    say(arg, "drop:%" PRIu64, below);
}
static bool fake_no_space(void *arg)
{
    return ((struct rig *)arg)->no_space;
}
static const struct turn_ops fakes = {.send = fake_send,
                                      .persist = fake_persist,
                                      .apply = fake_apply,
                                      .serve = fake_serve,
                                      .apply_room = fake_room,
                                      .refuse = fake_refuse,
                                      .changed = fake_changed,
                                      .conf = fake_conf,
                                      .drop = fake_drop,
                                      .no_space = fake_no_space};

static bool no_term(void *arg, uint64_t index, uint64_t *term)
{
    UNUSED(arg);
    *term = 0;
    return index == 0;
}
static int no_entries(void *arg, uint64_t from, uint64_t to, size_t bytes_max, struct entry **out)
{
    UNUSED(arg), UNUSED(from), UNUSED(to), UNUSED(bytes_max), UNUSED(out);
    return 0;
}

static void rig_init(struct rig *g, size_t members)
{
    static const struct raft_member all[3] = {{1, false}, {2, false}, {3, false}};
    struct raft_conf rc = {.id = 1,
                           .seed = 7,
                           .election_ms = 1000,
                           .heartbeat_ms = 100,
                           .pre_vote = false,
                           .check_quorum = true,
                           .append_bytes_max = 1 << 20,
                           .inflight_bytes_max = 8 << 20,
                           .cache_bytes_max = 8 << 20,
                           .uncommitted_bytes_max = 1 << 20,
                           .storage = {no_term, no_entries, NULL}};
    struct raft_start start = {.first_index = 1, .members = all, .member_count = members};
    struct turn_conf tc = {
        .wait_ms = 7000, .backlog_max = 10, .apply_bytes_max = 100000, .wait_bytes_max = 1000, .wait_count_max = 5};

    *g = (struct rig){.now_ms = 1000, .room = true};
    log_set_level(LOG_L_ERROR);
    g->raft = raft_new(&rc, &start, g->now_ms);
    g->turn = turn_new(g->raft, &fakes, g, &tc, g->now_ms);
}

static void rig_fini(struct rig *g)
{
    turn_free(g->turn);
    raft_free(g->raft);
    buf_fini(&g->said);
}

/* Ends the turn and expects exactly these effects. */
static void expect(struct rig *g, const char *effects)
{
    turn_end(g->turn);
    buf_add_byte(&g->said, 0);
    cr_assert_str_eq((char *)g->said.data, effects);
    buf_reset(&g->said);
}

static void propose(struct rig *g, uint64_t req, size_t len)
{
    uint8_t *bytes = xcalloc(1, len + 1);

    turn_propose(g->turn, 1, req, entry_new(ENTRY_COMMAND, slice_of(bytes, len)));
    free(bytes);
}

/* A single member that leads, with its no-op (entry 1) applied by a stored that is here. */
static void lead(struct rig *g)
{
    turn_tick(g->turn);
    turn_end(g->turn);
    for (int i = 0; i < 3; i++) {
        turn_durable(g->turn, g->ticket);
        turn_end(g->turn);
    }
    cr_assert(raft_is_settled(g->raft));
    cr_assert_eq(turn_stored_up(g->turn, 0, 0), 0);
    turn_end(g->turn);
    cr_assert_eq(turn_applied(g->turn, 1, 0, 100000), 0);
    turn_end(g->turn);
    buf_reset(&g->said);
}

Test(turn, an_entry_goes_to_stored_only_after_its_sync)
{
    struct rig g;
    rig_init(&g, 1);
    lead(&g);

    propose(&g, 7, 10);
    propose(&g, 8, 10);
    expect(&g, "persist:2");
    expect(&g, "");
    turn_durable(g.turn, g.ticket);
    expect(&g, "apply:2 apply:3");
    rig_fini(&g);
}

Test(turn, batches_gather_while_one_syncs_and_become_durable_in_order)
{
    struct rig g;
    rig_init(&g, 1);
    lead(&g);

    propose(&g, 1, 10);
    expect(&g, "persist:1");
    uint64_t first = g.ticket;
    propose(&g, 2, 10);
    expect(&g, "persist:1");
    turn_durable(g.turn, first);
    expect(&g, "apply:2");
    turn_durable(g.turn, g.ticket);
    expect(&g, "apply:3");
    rig_fini(&g);
}

Test(turn, reads_of_one_turn_share_an_index_and_follow_the_entries_up_to_it)
{
    struct rig g;
    struct turn_stats s;
    rig_init(&g, 1);
    lead(&g);

    g.room = false; /* stored's link is full: entry 2 is committed and waits */
    propose(&g, 1, 10);
    turn_end(g.turn);
    turn_durable(g.turn, g.ticket);
    turn_read(g.turn, 3, 70, SLICE_LIT("a"));
    turn_read(g.turn, 4, 71, SLICE_LIT("bc"));
    expect(&g, "persist:1");
    g.room = true;
    expect(&g, "apply:2 serve:3:70@2:a serve:4:71@2:bc");
    turn_stats(g.turn, &s);
    cr_assert_eq(s.reads, 2);
    cr_assert_eq(s.read_rounds, 1);
    rig_fini(&g);
}

Test(turn, reads_wait_while_stored_is_away_and_are_refused_when_it_takes_too_long)
{
    struct rig g;
    rig_init(&g, 1);
    lead(&g);

    turn_stored_down(g.turn);
    turn_read(g.turn, 1, 1, SLICE_LIT("x"));
    expect(&g, "");
    cr_assert_eq(turn_stored_up(g.turn, 1, 0), 0);
    expect(&g, "serve:1:1@1:x");

    turn_stored_down(g.turn);
    turn_read(g.turn, 1, 2, SLICE_LIT("x"));
    expect(&g, "");
    g.now_ms += 7000;
    turn_clock(g.turn, g.now_ms);
    expect(&g, "refuse:1:2:E_TIMEOUT");
    rig_fini(&g);
}

Test(turn, waiting_reads_are_bounded_by_count_and_bytes)
{
    struct rig g;
    rig_init(&g, 1);
    lead(&g);
    turn_stored_down(g.turn);

    uint8_t kilo[999] = {0};
    turn_read(g.turn, 1, 1, slice_of(kilo, sizeof(kilo)));
    turn_read(g.turn, 1, 2, SLICE_LIT("xy"));
    expect(&g, "refuse:1:2:E_REQUEST_TOO_MANY_REQUESTS");
    for (uint64_t i = 3; i < 8; i++)
        turn_read(g.turn, 1, i, SLICE_EMPTY);
    expect(&g, "refuse:1:7:E_REQUEST_TOO_MANY_REQUESTS");
    rig_fini(&g);
}

Test(turn, a_stored_that_comes_back_gets_everything_after_what_it_applied)
{
    struct rig g;
    rig_init(&g, 1);
    lead(&g);
    for (uint64_t i = 0; i < 4; i++)
        propose(&g, i, 10);
    turn_end(g.turn);
    turn_durable(g.turn, g.ticket);
    expect(&g, "persist:4 apply:2 apply:3 apply:4 apply:5");

    turn_stored_down(g.turn);
    cr_assert_eq(turn_stored_up(g.turn, 3, 2), 0);
    expect(&g, "apply:4 apply:5 drop:3");
    turn_stored_down(g.turn);
    cr_assert_eq(turn_stored_up(g.turn, 5, 2), 0);
    expect(&g, "");
    rig_fini(&g);
}

Test(turn, a_store_ahead_of_the_log_is_refused)
{
    struct rig g;
    rig_init(&g, 1);
    lead(&g);
    turn_stored_down(g.turn);

    cr_assert_eq(turn_stored_up(g.turn, 2, 0), E_FULL);
    cr_assert_eq(turn_stored_up(g.turn, 1, 0), 0);
    rig_fini(&g);
}

Test(turn, reports_of_stored_that_cannot_be_true_are_malformed)
{
    struct rig g;
    rig_init(&g, 1);
    lead(&g);

    cr_assert_eq(turn_applied(g.turn, 2, 0, 1000), E_MALFORMED, "never handed over");
    cr_assert_eq(turn_applied(g.turn, 1, 2, 1000), E_MALFORMED, "durable, but not applied");
    cr_assert_eq(turn_applied(g.turn, 0, 0, 1000), E_MALFORMED, "went back");
    cr_assert_eq(turn_applied(g.turn, 1, 1, 1000), 0);
    rig_fini(&g);
}

Test(turn, entries_stop_at_the_credit_and_go_on_when_there_is_more)
{
    struct rig g;
    rig_init(&g, 1);
    lead(&g);
    cr_assert_eq(turn_applied(g.turn, 1, 0, 2000), 0);

    for (uint64_t i = 0; i < 5; i++)
        propose(&g, i, 900);
    turn_end(g.turn);
    turn_durable(g.turn, g.ticket);
    expect(&g, "persist:5 apply:2 apply:3");
    expect(&g, "");
    cr_assert_eq(turn_applied(g.turn, 3, 0, 0), 0);
    expect(&g, "apply:4"); /* no room at all, but nothing under way: one */
    cr_assert_eq(turn_applied(g.turn, 4, 0, 100000), 0);
    expect(&g, "apply:5 apply:6");
    rig_fini(&g);
}

Test(turn, proposals_wait_for_the_first_leader)
{
    struct rig g;
    rig_init(&g, 1);

    propose(&g, 1, 10);
    propose(&g, 2, 10);
    turn_tick(g.turn);
    turn_end(g.turn);
    turn_durable(g.turn, g.ticket);
    turn_end(g.turn);
    turn_durable(g.turn, g.ticket);
    turn_end(g.turn);
    buf_reset(&g.said);
    cr_assert_eq(turn_stored_up(g.turn, 0, 0), 0);
    turn_durable(g.turn, g.ticket);
    expect(&g, "apply:1 apply:2 apply:3");
    rig_fini(&g);
}

Test(turn, proposals_that_find_no_leader_are_refused_in_the_end)
{
    struct rig g;
    rig_init(&g, 3);

    for (uint64_t i = 1; i <= 6; i++)
        propose(&g, i, 10);
    expect(&g, "refuse:1:6:E_REQUEST_TOO_MANY_REQUESTS");
    cr_assert_leq(turn_deadline(g.turn), g.now_ms + 7000);
    turn_clock(g.turn, g.now_ms + 7000);
    expect(&g,
           "refuse:1:1:E_TIMEOUT refuse:1:2:E_TIMEOUT refuse:1:3:E_TIMEOUT refuse:1:4:E_TIMEOUT refuse:1:5:E_TIMEOUT");
    rig_fini(&g);
}

Test(turn, a_store_that_falls_behind_stops_proposals)
{
    struct rig g;
    rig_init(&g, 1);
    lead(&g);

    g.room = false;
    for (uint64_t i = 1; i <= 11; i++)
        propose(&g, i, 10);
    turn_end(g.turn);
    turn_durable(g.turn, g.ticket);
    turn_end(g.turn);
    buf_reset(&g.said);
    propose(&g, 12, 10);
    expect(&g, "refuse:1:12:E_REQUEST_TOO_MANY_REQUESTS");
    rig_fini(&g);
}

/* Many entries are no reason to refuse more while stored is only a moment behind. */
Test(turn, a_store_is_behind_by_entries_and_by_time)
{
    struct rig g;
    struct turn_stats s;
    rig_init(&g, 1);
    lead(&g);
    turn_free(g.turn);
    struct turn_conf tc = {.wait_ms = 7000, .backlog_max = 10, .backlog_ms = 500, .apply_bytes_max = 100000,
                           .wait_bytes_max = 1000, .wait_count_max = 5};
    g.turn = turn_new(g.raft, &fakes, &g, &tc, g.now_ms);
    cr_assert_eq(turn_stored_up(g.turn, 1, 0), 0);

    g.ticket = 0;
    for (uint64_t i = 1; i <= 11; i++)
        propose(&g, i, 10);
    turn_end(g.turn);
    turn_durable(g.turn, g.ticket);
    turn_end(g.turn);
    buf_reset(&g.said);

    g.now_ms += 499;
    turn_clock(g.turn, g.now_ms);
    propose(&g, 12, 10);
    expect(&g, "persist:1");
    g.now_ms += 1;
    turn_clock(g.turn, g.now_ms);
    propose(&g, 13, 10);
    expect(&g, "refuse:1:13:E_REQUEST_TOO_MANY_REQUESTS");

    /* when stored has applied what was waiting at first, the rest is judged by its own time */
    cr_assert_eq(turn_applied(g.turn, 12, 0, 100000), 0);
    turn_durable(g.turn, g.ticket);
    turn_end(g.turn);
    turn_stats(g.turn, &s);
    cr_assert_eq(s.behind_ms, 0);
    rig_fini(&g);
}

/* Behind, as every store is under too much load; but not stuck, which a leader's store must not be. */
Test(turn, a_store_that_is_behind_but_moves_is_not_stuck)
{
    struct rig g;
    struct turn_stats s;
    rig_init(&g, 1);
    lead(&g);

    for (uint64_t i = 1; i <= 8; i++)
        propose(&g, i, 10);
    turn_end(g.turn);
    turn_durable(g.turn, g.ticket);
    turn_end(g.turn);
    for (uint64_t applied = 2; applied <= 5; applied++) {
        g.now_ms += 1000;
        turn_clock(g.turn, g.now_ms);
        cr_assert_eq(turn_applied(g.turn, applied, 0, 100000), 0);
        turn_end(g.turn);
        turn_stats(g.turn, &s);
        cr_assert_eq(s.stuck_ms, 0);
        cr_assert_eq(s.behind_ms, (applied - 1) * 1000);
    }
    g.now_ms += 3000;
    turn_clock(g.turn, g.now_ms);
    turn_end(g.turn);
    turn_stats(g.turn, &s);
    cr_assert_eq(s.stuck_ms, 3000);
    /* With nothing left to apply it is idle. */
    cr_assert_eq(turn_applied(g.turn, 9, 0, 100000), 0);
    turn_end(g.turn);
    g.now_ms += 3000;
    turn_clock(g.turn, g.now_ms);
    turn_stats(g.turn, &s);
    cr_assert_eq(s.stuck_ms, 0);
    cr_assert_eq(s.behind_ms, 0);
    rig_fini(&g);
}

Test(turn, a_full_disk_refuses_proposals_but_not_reads)
{
    struct rig g;
    rig_init(&g, 1);
    lead(&g);

    g.no_space = true;
    propose(&g, 1, 10);
    turn_read(g.turn, 1, 2, SLICE_LIT("r"));
    expect(&g, "refuse:1:1:E_NO_SPACE serve:1:2@1:r");
    rig_fini(&g);
}

Test(turn, what_is_new_is_refused_after_stop_and_what_was_taken_is_finished)
{
    struct rig g;
    rig_init(&g, 1);
    lead(&g);

    propose(&g, 1, 10);
    expect(&g, "persist:1");
    turn_stop(g.turn);
    propose(&g, 2, 10);
    turn_read(g.turn, 1, 3, SLICE_LIT("r"));
    expect(&g, "refuse:1:2:E_STOPPED refuse:1:3:E_STOPPED");
    cr_assert(!turn_is_quiet(g.turn));
    turn_durable(g.turn, g.ticket);
    expect(&g, "apply:2");
    cr_assert(turn_is_quiet(g.turn));
    rig_fini(&g);
}

Test(turn, the_prefix_is_dropped_after_stored_is_durable_and_not_before)
{
    struct rig g;
    rig_init(&g, 1);
    lead(&g);
    propose(&g, 1, 10);
    turn_end(g.turn);
    turn_durable(g.turn, g.ticket);
    turn_end(g.turn);
    buf_reset(&g.said);

    cr_assert_eq(turn_applied(g.turn, 2, 0, 1000), 0);
    expect(&g, "");
    cr_assert_eq(turn_applied(g.turn, 2, 2, 1000), 0);
    expect(&g, "drop:3");
    rig_fini(&g);
}

Test(turn, a_vote_is_said_only_after_it_is_on_disk)
{
    struct rig g;
    rig_init(&g, 3);
    turn_end(g.turn);

    turn_recv(g.turn, &(struct raft_msg){.type = RAFT_MSG_VOTE, .from = 2, .to = 1, .term = 5});
    expect(&g, "persist:hard+0");
    expect(&g, "");
    turn_durable(g.turn, g.ticket);
    expect(&g, "send:vote_said");
    rig_fini(&g);
}

Test(turn, answers_wait_for_all_that_was_submitted_before_them)
{
    struct rig g;
    struct entry *e = entry_new(ENTRY_COMMAND, SLICE_LIT("x"));
    rig_init(&g, 3);
    turn_end(g.turn);
    e->index = 1;
    e->term = 5;

    struct raft_msg append = {.type = RAFT_MSG_APPEND, .from = 2, .to = 1, .term = 5, .entries = &e, .entry_count = 1};
    turn_recv(g.turn, &append);
    expect(&g, "persist:hard+1");
    /* The same append again changes nothing on disk, yet its answer says that entry 1 is there. */
    turn_recv(g.turn, &append);
    turn_end(g.turn);
    cr_assert_eq(g.said.len, 0);
    turn_durable(g.turn, g.ticket);
    turn_end(g.turn);
    buf_add_byte(&g.said, 0);
    cr_assert(strncmp((char *)g.said.data, "send:append_said", 16) == 0, "%s", g.said.data);
    entry_unref(e);
    rig_fini(&g);
}

Test(turn, a_leader_sends_before_its_own_disk_is_done)
{
    struct rig g;
    rig_init(&g, 3);
    turn_clock(g.turn, g.now_ms += 3000);
    turn_tick(g.turn);
    expect(&g, "persist:hard+0");
    turn_durable(g.turn, g.ticket);
    turn_end(g.turn);
    turn_recv(g.turn, &(struct raft_msg){.type = RAFT_MSG_VOTE_SAID, .from = 2, .to = 1, .term = raft_term(g.raft)});
    turn_end(g.turn);
    cr_assert_eq(raft_role(g.raft), RAFT_LEADER);
    turn_durable(g.turn, g.ticket);
    turn_end(g.turn);
    turn_recv(g.turn, &(struct raft_msg){
                          .type = RAFT_MSG_APPEND_SAID, .from = 2, .to = 1, .term = raft_term(g.raft), .index = 1});
    turn_end(g.turn);
    buf_reset(&g.said);

    propose(&g, 1, 10);
    turn_end(g.turn);
    buf_add_byte(&g.said, 0);
    cr_assert(strstr((char *)g.said.data, "send:append"), "%s", g.said.data);
    cr_assert_lt(strstr((char *)g.said.data, "send:append"), strstr((char *)g.said.data, "persist:1"), "%s",
                 g.said.data);
    rig_fini(&g);
}

Test(turn, a_change_of_membership_is_told_when_it_is_committed)
{
    struct rig g;
    struct buf change = BUF_INIT;
    rig_init(&g, 1);
    lead(&g);

    raft_conf_encode(&change, &(struct raft_conf_change){.op = RAFT_CONF_UPDATE, .id = 1, .name = SLICE_LIT("n")});
    turn_propose(g.turn, TURN_NOBODY, 0, entry_new(ENTRY_CONF, buf_slice(&change)));
    expect(&g, "persist:1");
    turn_durable(g.turn, g.ticket);
    expect(&g, "conf:2 apply:2");
    buf_fini(&change);
    rig_fini(&g);
}
