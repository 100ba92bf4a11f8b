/* turn with other members: what a member does that does not lead, and what it does for those that do not. The log is done at once,
 * stored applies at once. Effects are words; tags of reads are not shown, the last one is kept. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "raftd/turn.h"

struct rig {
    struct raft *raft;
    struct turn *turn;
    struct buf said;
    uint64_t now_ms, ticket, tag;
    bool no_way; /* to the leader */
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

static void do_send(void *arg, const struct raft_msg *m) { UNUSED(arg), UNUSED(m); }
static uint64_t do_persist(void *arg, const struct raft_ready *rd) { UNUSED(rd); return ++((struct rig *)arg)->ticket; }
static void do_apply(void *arg, const struct entry *e) { UNUSED(arg), UNUSED(e); }
static void do_serve(void *arg, unsigned slot, uint64_t index, uint64_t req, struct slice command)
{
    UNUSED(command);
    say(arg, "serve:%u:%" PRIu64 "@%" PRIu64, slot, req, index);
}
static bool do_room(void *arg) { UNUSED(arg); return true; }
static void do_refuse(void *arg, unsigned slot, uint64_t req, int err) { say(arg, "refuse:%u:%" PRIu64 ":%s", slot, req, err_name(err)); }
static void do_changed(void *arg) { UNUSED(arg); }
static void do_conf(void *arg, const struct entry *e) { UNUSED(arg), UNUSED(e); }
static void do_drop(void *arg, uint64_t below) { UNUSED(arg), UNUSED(below); }
static bool do_no_space(void *arg) { UNUSED(arg); return false; }
static bool do_forward(void *arg, uint64_t leader, unsigned slot, uint64_t req, const struct entry *e)
{
    struct rig *g = arg;

    UNUSED(e);
    if (!g->no_way)
        say(g, "forward:%" PRIu64 ":%u:%" PRIu64, leader, slot, req);
    return !g->no_way;
}
static void do_proposed(void *arg, unsigned slot, uint64_t req) { say(arg, "proposed:%u:%" PRIu64, slot, req); }
static bool do_read_index(void *arg, uint64_t leader, uint64_t tag)
{
    struct rig *g = arg;

    if (!g->no_way)
        say(g, "read_index:%" PRIu64, leader);
    g->tag = tag;
    return !g->no_way;
}
static void do_read_index_said(void *arg, unsigned slot, uint64_t tag, uint64_t index, int err)
{
    say(arg, "index_said:%u:%" PRIu64 "@%" PRIu64 ":%s", slot, tag, index, err ? err_name(err) : "OK");
}
static void do_new_leader(void *arg) { say(arg, "new_leader"); }

static const struct turn_ops ops = {.send = do_send,
                                    .persist = do_persist,
                                    .apply = do_apply,
                                    .serve = do_serve,
                                    .apply_room = do_room,
                                    .refuse = do_refuse,
                                    .changed = do_changed,
                                    .conf = do_conf,
                                    .drop = do_drop,
                                    .no_space = do_no_space,
                                    .forward = do_forward,
                                    .proposed = do_proposed,
                                    .read_index = do_read_index,
                                    .read_index_said = do_read_index_said,
                                    .new_leader = do_new_leader};

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

static void rig_init(struct rig *g)
{
    static const struct raft_member all[3] = {{1, false}, {2, false}, {3, false}};
    struct raft_conf rc = {.id = 1,
                           .seed = 7,
                           .election_ms = 1000,
                           .heartbeat_ms = 100,
                           .check_quorum = true,
                           .append_bytes_max = 1 << 20,
                           .inflight_bytes_max = 8 << 20,
                           .cache_bytes_max = 8 << 20,
                           .uncommitted_bytes_max = 1 << 20,
                           .storage = {no_term, no_entries, NULL}};
    struct raft_start start = {.first_index = 1, .members = all, .member_count = 3};
    struct turn_conf tc = {.wait_ms = 7000,
                           .read_again_ms = 500,
                           .tag_base = 1000,
                           .backlog_max = 10,
                           .apply_bytes_max = 100000,
                           .wait_bytes_max = 1000,
                           .wait_count_max = 5};

    *g = (struct rig){.now_ms = 1000};
    log_set_level(LOG_L_ERROR);
    g->raft = raft_new(&rc, &start, g->now_ms);
    g->turn = turn_new(g->raft, &ops, g, &tc, g->now_ms);
    turn_end(g->turn);
    cr_assert_eq(turn_stored_up(g->turn, 0, 0), 0);
}

static void rig_fini(struct rig *g)
{
    turn_free(g->turn);
    raft_free(g->raft);
    buf_fini(&g->said);
}

static void expect(struct rig *g, const char *effects)
{
    for (int i = 0; i < 3; i++) {
        turn_end(g->turn);
        turn_durable(g->turn, g->ticket);
    }
    turn_end(g->turn);
    buf_add_byte(&g->said, 0);
    cr_expect_str_eq((char *)g->said.data, effects);
    buf_reset(&g->said);
}

static void later(struct rig *g, uint64_t ms)
{
    g->now_ms += ms;
    turn_clock(g->turn, g->now_ms);
}

/* Member `from` leads term `term`, and its first entry is at `index`, committed. */
static void follow(struct rig *g, uint64_t from, uint64_t term, uint64_t index)
{
    struct entry *e = entry_new(ENTRY_NOOP, SLICE_EMPTY);

    e->index = index;
    e->term = term;
    turn_recv(g->turn, &(struct raft_msg){.type = RAFT_MSG_APPEND, .from = from, .to = 1, .term = term, .index = index - 1,
                                          .log_term = index > 1 ? term - 1 : 0, .commit = index, .entries = &e, .entry_count = 1});
    entry_unref(e);
}

/* We lead, term 1, and our first entry is committed. */
static void lead(struct rig *g)
{
    later(g, 2500);
    turn_tick(g->turn);
    expect(g, "");
    turn_recv(g->turn, &(struct raft_msg){.type = RAFT_MSG_VOTE_SAID, .from = 2, .to = 1, .term = 1});
    expect(g, "new_leader");
    turn_recv(g->turn, &(struct raft_msg){.type = RAFT_MSG_APPEND_SAID, .from = 2, .to = 1, .term = 1, .index = 1});
    expect(g, "");
    cr_assert(raft_is_settled(g->raft));
}

static void confirm(struct rig *g, uint64_t round)
{
    turn_recv(g->turn, &(struct raft_msg){.type = RAFT_MSG_BEAT_SAID, .from = 2, .to = 1, .term = 1, .read_id = round});
}

static void propose(struct rig *g, unsigned slot, uint64_t req)
{
    turn_propose(g->turn, slot, req, entry_new(ENTRY_COMMAND, SLICE_LIT("x")));
}

/* --- not leading ----------------------------------------------------------------------------------- */

Test(turn_peer, proposals_go_to_the_leader)
{
    struct rig g;
    rig_init(&g);

    propose(&g, 3, 7); /* no leader yet: it waits */
    expect(&g, "");
    follow(&g, 2, 1, 1);
    expect(&g, "forward:2:3:7 new_leader");
    propose(&g, 3, 8);
    expect(&g, "forward:2:3:8");
    g.no_way = true;
    propose(&g, 3, 9);
    expect(&g, "refuse:3:9:E_AGAIN");
    rig_fini(&g);
}

Test(turn_peer, what_another_member_sent_is_not_sent_on)
{
    struct rig g;
    rig_init(&g);
    follow(&g, 2, 1, 1);
    expect(&g, "new_leader");

    propose(&g, TURN_PEER_SLOT + 1, 7);
    expect(&g, "refuse:65:7:E_NOT_LEADER");
    turn_read_index(g.turn, TURN_PEER_SLOT + 1, 5);
    expect(&g, "index_said:65:5@0:E_NOT_LEADER");
    rig_fini(&g);
}

Test(turn_peer, reads_of_one_turn_ask_the_leader_once_and_are_served_here)
{
    struct rig g;
    rig_init(&g);
    follow(&g, 2, 1, 1);
    expect(&g, "new_leader");
    cr_assert_eq(turn_applied(g.turn, 1, 1, 100000), 0);

    turn_read(g.turn, 3, 1, SLICE_LIT("a"));
    turn_read(g.turn, 4, 2, SLICE_LIT("b"));
    expect(&g, "read_index:2");
    turn_read_index_said(g.turn, g.tag, 1, 0);
    expect(&g, "serve:3:1@1 serve:4:2@1");
    turn_read_index_said(g.turn, g.tag, 1, 0); /* said twice */
    expect(&g, "");
    rig_fini(&g);
}

Test(turn_peer, a_read_waits_until_its_index_is_here)
{
    struct rig g;
    rig_init(&g);
    follow(&g, 2, 1, 1);
    expect(&g, "new_leader");
    turn_read(g.turn, 3, 1, SLICE_LIT("a"));
    expect(&g, "read_index:2");
    turn_read_index_said(g.turn, g.tag, 2, 0);
    expect(&g, "");

    struct entry *e = entry_new(ENTRY_COMMAND, SLICE_LIT("x"));
    e->index = 2;
    e->term = 1;
    turn_recv(g.turn, &(struct raft_msg){.type = RAFT_MSG_APPEND, .from = 2, .to = 1, .term = 1, .index = 1, .log_term = 1,
                                         .commit = 2, .entries = &e, .entry_count = 1});
    entry_unref(e);
    expect(&g, "serve:3:1@2");
    rig_fini(&g);
}

Test(turn_peer, a_read_index_that_does_not_come_is_asked_for_again_under_another_tag)
{
    struct rig g;
    rig_init(&g);
    follow(&g, 2, 1, 1);
    expect(&g, "new_leader");
    turn_read(g.turn, 3, 1, SLICE_LIT("a"));
    expect(&g, "read_index:2");
    uint64_t first = g.tag;
    cr_expect_leq(turn_deadline(g.turn), g.now_ms + 500);

    later(&g, 501);
    expect(&g, "read_index:2");
    cr_expect_neq(g.tag, first);
    turn_read_index_said(g.turn, first, 1, 0); /* too late */
    expect(&g, "");

    /* refused: in a moment */
    turn_read_index_said(g.turn, g.tag, 0, E_NOT_LEADER);
    expect(&g, "");
    later(&g, 21);
    expect(&g, "read_index:2");
    turn_read_index_said(g.turn, g.tag, 1, 0);
    expect(&g, "serve:3:1@1");
    rig_fini(&g);
}

Test(turn_peer, a_new_leader_is_asked_at_once_what_the_old_one_did_not_answer)
{
    struct rig g;
    rig_init(&g);
    follow(&g, 2, 1, 1);
    expect(&g, "new_leader");
    turn_read(g.turn, 3, 1, SLICE_LIT("a"));
    expect(&g, "read_index:2");
    uint64_t first = g.tag;
    follow(&g, 3, 2, 2);
    expect(&g, "new_leader read_index:3");
    turn_read_index_said(g.turn, first, 1, 0); /* of the old leader, which may have been deposed when it said so */
    expect(&g, "");
    turn_read_index_said(g.turn, g.tag, 2, 0);
    expect(&g, "serve:3:1@2");
    rig_fini(&g);
}

Test(turn_peer, a_read_that_is_never_confirmed_is_refused_in_the_end)
{
    struct rig g;
    rig_init(&g);
    follow(&g, 2, 1, 1);
    expect(&g, "new_leader");
    g.no_way = true;
    turn_read(g.turn, 3, 1, SLICE_LIT("a"));
    expect(&g, "");
    later(&g, 7000);
    expect(&g, "refuse:3:1:E_TIMEOUT");
    rig_fini(&g);
}

/* --- leading ------------------------------------------------------------------------------------------ */

Test(turn_peer, a_member_gets_the_read_index_after_a_quorum_confirmed_it)
{
    struct rig g;
    rig_init(&g);
    lead(&g);
    turn_read_index(g.turn, TURN_PEER_SLOT, 70);
    turn_read_index(g.turn, TURN_PEER_SLOT + 1, 71);
    expect(&g, "");
    confirm(&g, 1);
    expect(&g, "index_said:64:70@1:OK index_said:65:71@1:OK");
    rig_fini(&g);
}

Test(turn_peer, a_leader_that_steps_down_tells_members_and_keeps_its_own_reads)
{
    struct rig g;
    rig_init(&g);
    lead(&g);
    cr_assert_eq(turn_applied(g.turn, 1, 1, 100000), 0);
    turn_read_index(g.turn, TURN_PEER_SLOT, 70);
    turn_read(g.turn, 3, 1, SLICE_LIT("a"));
    expect(&g, "");
    follow(&g, 2, 2, 2);
    expect(&g, "index_said:64:70@0:E_LEADER_CHANGED new_leader read_index:2");
    turn_read_index_said(g.turn, g.tag, 2, 0);
    expect(&g, "serve:3:1@2");
    rig_fini(&g);
}

Test(turn_peer, own_proposals_are_noted_and_those_of_members_are_not)
{
    struct rig g;
    rig_init(&g);
    lead(&g);
    propose(&g, 3, 7);
    propose(&g, TURN_PEER_SLOT, 8);
    expect(&g, "proposed:3:7");
    cr_expect_eq(raft_last_index(g.raft), 3);
    rig_fini(&g);
}

Test(turn_peer, who_stops_takes_nothing_from_members)
{
    struct rig g;
    rig_init(&g);
    lead(&g);
    turn_stop(g.turn);
    turn_read_index(g.turn, TURN_PEER_SLOT, 70);
    propose(&g, TURN_PEER_SLOT, 8);
    expect(&g, "index_said:64:70@0:E_NOT_LEADER refuse:64:8:E_STOPPED");
    rig_fini(&g);
}
