/* forward: what becomes of proposals and queries when the connection to the leader breaks, or the leader changes. A real core that
 * follows, and the test in the place of links and peers. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "raftd/raftd.h"

#define SELF 1
#define LEADER 2
#define THIRD 3
#define LAST 20
#define TERM 5
#define SLOT 3

static char told[512];  /* "req:ERROR " */
static uint64_t way;    /* of peers_way */
static struct buf wire = BUF_INIT;
static bool broken;

/* --- in the place of links and peers ---------------------------------------------------------------------------- */

struct buf *peers_begin(struct peers *p, uint64_t member, enum peer_stream stream)
{
    UNUSED(p), UNUSED(member);
    cr_assert_eq(stream, PEER_STREAM_APPENDS);
    return broken ? NULL : &wire;
}
void peers_end(struct peers *p) { UNUSED(p); }
bool peers_send(struct peers *p, uint64_t member, enum peer_stream stream, const struct frame *f)
{
    UNUSED(p), UNUSED(member), UNUSED(stream), UNUSED(f);
    return !broken;
}
uint64_t peers_way(const struct peers *p, uint64_t member, enum peer_stream stream)
{
    UNUSED(p), UNUSED(member), UNUSED(stream);
    return way;
}
int peers_place(const struct peers *p, uint64_t member) { UNUSED(p); return (int)member; }
uint64_t peers_at(const struct peers *p, unsigned place) { UNUSED(p); return place; }
void link_send(struct link *l, const struct frame *f) { UNUSED(l), UNUSED(f); }
bool out_stored_is_up(const struct raftd *d) { UNUSED(d); return true; }
void out_status(struct raftd *d, unsigned slot, uint64_t req, uint64_t what) { UNUSED(d), UNUSED(slot), UNUSED(req), UNUSED(what); }

static void refuse(void *arg, unsigned slot, uint64_t req, int err)
{
    UNUSED(arg);
    cr_assert_eq(slot, SLOT);
    sprintf(told + strlen(told), "%d:%s ", (int)req, err_name(err));
}
const struct turn_ops out_ops = {.refuse = refuse};

/* --- a member that follows ---------------------------------------------------------------------------------------- */

static bool term_of(void *arg, uint64_t index, uint64_t *term)
{
    UNUSED(arg);
    *term = TERM;
    return index > 0 && index <= LAST;
}
static int no_entries(void *arg, uint64_t from, uint64_t to, size_t bytes_max, struct entry **out)
{
    UNUSED(arg), UNUSED(from), UNUSED(to), UNUSED(bytes_max), UNUSED(out);
    return 0;
}

static void hear_beat(struct raftd *d, uint64_t from, uint64_t term, uint64_t commit)
{
    struct raft_msg m = {.type = RAFT_MSG_BEAT, .from = from, .to = SELF, .term = term, .commit = commit};
    struct raft_ready ready;

    raft_step(d->raft, &(struct raft_event){.type = RAFT_EV_RECV, .now_ms = 1000, .msg = &m});
    raft_ready(d->raft, &ready);
}

static struct raftd *follower(void)
{
    static struct raftd d;
    static const struct raft_member list[] = {{SELF, false}, {LEADER, false}, {THIRD, false}};

    memset(&d, 0, sizeof(d));
    d.member_id = SELF;
    for (size_t i = 0; i < ARRAY_LEN(list); i++)
        cr_assert_eq(members_apply(&d.members, &(struct raft_conf_change){.op = RAFT_CONF_ADD, .id = list[i].id}), 0);
    d.raft = raft_new(&(struct raft_conf){.id = SELF, .seed = 1, .election_ms = 1000, .heartbeat_ms = 100, .check_quorum = true, .pre_vote = true,
                                          .append_bytes_max = MIB, .inflight_bytes_max = MIB, .cache_bytes_max = MIB,
                                          .uncommitted_bytes_max = MIB, .storage = {term_of, no_entries, NULL}},
                      &(struct raft_start){.term = TERM, .first_index = 1, .last_index = LAST, .last_term = TERM,
                                           .members = list, .member_count = ARRAY_LEN(list)},
                      1000);
    forward_init(&d.forward);
    forward_gateway_up(&d, SLOT);
    told[0] = '\0';
    way = 1;
    broken = false;
    hear_beat(&d, LEADER, TERM, 0);
    cr_assert_eq(raft_leader(d.raft), LEADER);
    return &d;
}

static void end(struct raftd *d)
{
    raft_free(d->raft);
    forward_fini(&d->forward);
    members_fini(&d->members);
    buf_fini(&wire);
}

static void propose(struct raftd *d, uint64_t req)
{
    struct entry *e = entry_new(ENTRY_COMMAND, SLICE_LIT("x"));

    cr_assert(forward_propose(d, LEADER, SLOT, req, e));
    entry_unref(e);
}

static void reached(struct raftd *d, uint64_t member, uint64_t last, uint64_t term)
{
    way++;
    forward_reached(d, member, &(struct fr_hello){.applied = last, .durable = term});
}

/* --- a connection that breaks --------------------------------------------------------------------------------------- */

Test(forward, what_a_broken_connection_took_is_told_when_the_leaders_log_of_then_is_committed_here)
{
    struct raftd *d = follower();

    propose(d, 10);
    forward_query(d, SLOT, 11, SLICE_LIT("q"));
    reached(d, LEADER, LAST, TERM);
    propose(d, 12);
    forward_run(d);
    cr_assert_str_eq(told, "", "not before: it may stand in the leader's log");
    hear_beat(d, LEADER, TERM, LAST - 1);
    forward_run(d);
    cr_assert_str_eq(told, "");
    hear_beat(d, LEADER, TERM, LAST);
    forward_run(d);
    cr_assert_str_eq(told, "10:E_AMBIGUOUS 11:E_AGAIN ");
    forward_run(d);
    cr_assert_str_eq(told, "10:E_AMBIGUOUS 11:E_AGAIN ", "once");
    end(d);
}

/* After a cut the connection is there before the leader's next beat. */
Test(forward, a_leader_that_is_not_heard_again_yet_is_known_by_its_hello)
{
    struct raftd *d = follower();

    propose(d, 10);
    hear_beat(d, LEADER, TERM, LAST);
    raft_step(d->raft, &(struct raft_event){.type = RAFT_EV_TICK, .now_ms = 5000});
    cr_assert_eq(raft_leader(d->raft), RAFT_NONE);
    reached(d, LEADER, LAST, TERM);
    forward_run(d);
    cr_assert_str_eq(told, "10:E_AMBIGUOUS ");
    end(d);
}

Test(forward, one_that_leads_no_more_or_another_term_tells_nothing)
{
    struct raftd *d = follower();

    propose(d, 10);
    reached(d, LEADER, 0, 0);
    forward_run(d);
    reached(d, LEADER, 0, TERM + 1);
    forward_run(d);
    reached(d, THIRD, 0, TERM);
    forward_run(d);
    cr_assert_str_eq(told, "");
    end(d);
}

Test(forward, what_went_to_our_own_log_or_a_way_that_is_not_ours_is_not_told_by_a_connection)
{
    struct raftd *d = follower();

    forward_proposed(d, SLOT, 9);
    way = 0;
    propose(d, 10);
    way = 1;
    reached(d, LEADER, 0, TERM);
    forward_run(d);
    cr_assert_str_eq(told, "");
    end(d);
}

Test(forward, a_new_leader_tells_all_of_the_old_ones_and_once_only)
{
    struct raftd *d = follower();

    propose(d, 10);
    reached(d, LEADER, LAST, TERM);
    propose(d, 11);
    hear_beat(d, THIRD, TERM + 1, 0);
    forward_new_leader(d);
    cr_assert_str_eq(told, "10:E_AMBIGUOUS 11:E_AMBIGUOUS ");
    hear_beat(d, THIRD, TERM + 1, LAST);
    forward_run(d);
    cr_assert_str_eq(told, "10:E_AMBIGUOUS 11:E_AMBIGUOUS ");
    end(d);
}

Test(forward, a_gateway_that_went_away_is_told_nothing)
{
    struct raftd *d = follower();

    propose(d, 10);
    forward_gateway_up(d, SLOT);
    reached(d, LEADER, 0, TERM);
    forward_run(d);
    cr_assert_str_eq(told, "");
    end(d);
}
