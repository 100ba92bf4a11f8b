/* Snapshots as the core sees them: what a loaded one makes of the log, how long a leader keeps entries for those who
 * need them, and that who lost what it had acknowledged does not vote before it has it again. */
#include "tests/raftd/box.h"

static void box_loaded(struct box *b, uint64_t index, uint64_t term, size_t voters)
{
    struct raft_member members[RAFT_MEMBERS_MAX];

    for (size_t i = 0; i < voters; i++)
        members[i] = (struct raft_member){.id = i + 1};
    box_step(b, (struct raft_event){.type = RAFT_EV_SNAP_LOADED,
                                    .index = index,
                                    .entry_term = term,
                                    .members = voters > 0 ? members : NULL, /* none: the log has that entry */
                                    .member_count = voters});
}

/* The disk does what wal_reset does; the entry before its first one stands for the snapshot's end. */
static void box_disk_reset(struct box *b, uint64_t index, uint64_t term)
{
    for (uint64_t i = 1; i <= b->disk_last; i++)
        entry_unref(b->disk[i]);
    memset(b->disk, 0, sizeof(b->disk));
    b->disk_first = index + 1;
    b->disk_last = index;
    b->disk[index] = box_entry(index, term, "in the snapshot");
}

static void box_done(struct box *b)
{
    raft_free(b->raft);
    for (uint64_t i = b->disk_first - 1; i <= b->disk_last; i++)
        entry_unref(b->disk[i]);
    free(b);
}

static void box_append(struct box *b, uint64_t prev, uint64_t prev_term, uint64_t term, size_t count, uint64_t commit)
{
    struct entry *entries[16];

    for (size_t i = 0; i < count; i++)
        entries[i] = box_entry(prev + 1 + i, term, "new");
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_APPEND,
                                  .from = 2,
                                  .term = term,
                                  .index = prev,
                                  .log_term = prev_term,
                                  .commit = commit,
                                  .entries = entries,
                                  .entry_count = count});
    for (size_t i = 0; i < count; i++)
        entry_unref(entries[i]);
}

Test(raft_snap, a_log_without_the_snapshots_end_is_replaced_and_goes_on_behind_it)
{
    struct box *b = box_new(1, 3, 2, (uint64_t[]){1, 1, 2, 0});

    box_turn(b);
    box_disk_reset(b, 100, 4);
    box_loaded(b, 100, 4, 5);

    cr_assert_eq(raft_last_index(b->raft), 100);
    cr_assert_eq(raft_commit(b->raft), 100);
    cr_assert_eq(raft_applied(b->raft), 100);
    cr_assert_eq(raft_term(b->raft), 4);
    struct raft_member members[RAFT_MEMBERS_MAX];
    cr_assert_eq(raft_members(b->raft, members), 5);
    box_turn(b);
    cr_assert_eq(b->term, 4); /* persisted */
    box_append(b, 100, 4, 5, 3, 102);
    cr_assert_str_eq(b->said, "APPEND_SAID 1->2 term 5 match 103\n");
    cr_assert_eq(b->commit, 102);
    box_done(b);
}

Test(raft_snap, a_log_that_has_the_snapshots_end_keeps_what_follows)
{
    struct box *b = box_new(1, 3, 2, (uint64_t[]){1, 1, 2, 2, 2, 0});

    box_turn(b);
    box_loaded(b, 3, 2, 0);
    box_turn(b);

    cr_assert_eq(raft_last_index(b->raft), 5);
    cr_assert_eq(raft_commit(b->raft), 3);
    box_free(b);
}

Test(raft_snap, a_conflicting_tail_goes_with_the_log)
{
    struct box *b = box_new(1, 3, 2, (uint64_t[]){1, 1, 2, 2, 2, 0});

    box_turn(b);
    box_disk_reset(b, 4, 3);
    box_loaded(b, 4, 3, 3);
    box_turn(b);

    cr_assert_eq(raft_last_index(b->raft), 4);
    cr_assert_eq(raft_commit(b->raft), 4);
    box_done(b);
}

Test(raft_snap, a_report_from_before_the_snapshot_says_nothing_about_the_new_log)
{
    struct box *b = box_new(1, 3, 2, (uint64_t[]){1, 0});

    box_turn(b);
    uint64_t seq = b->hard_seq;
    box_disk_reset(b, 10, 2);
    box_loaded(b, 10, 2, 3);
    b->disk_stuck = true;
    box_append(b, 10, 2, 2, 2, 12);
    cr_assert_eq(b->commit, 10);

    box_step(b, (struct raft_event){.type = RAFT_EV_PERSISTED, .index = 11, .entry_term = 2, .hard_seq = seq});
    box_turn(b);
    cr_assert_eq(b->commit, 10); /* not on disk, whatever an old report says */

    box_sync(b);
    box_turn(b);
    cr_assert_eq(b->commit, 12);
    box_done(b);
}

/* --- who may vote ------------------------------------------------------------------------------------------ */

Test(raft_snap, who_lost_its_log_votes_for_nobody_until_it_has_it_again)
{
    struct box *b = box_new(1, 3, 2, NULL);

    box_step(b, (struct raft_event){.type = RAFT_EV_VOTE_FROM, .index = UINT64_MAX});
    cr_assert(!raft_may_vote(b->raft));
    b->now_ms += 1000;
    box_step(b, (struct raft_event){.type = RAFT_EV_TICK});
    box_turn(b);
    cr_assert_str_eq(b->said, ""); /* no candidate either */
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_VOTE, .from = 2, .term = 3, .index = 50, .log_term = 2});
    cr_assert_str_eq(b->said, "VOTE_SAID 1->2 term 3 no\n");
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_PREVOTE, .from = 2, .term = 4, .index = 50, .log_term = 2});
    cr_assert_str_eq(b->said, "PREVOTE_SAID 1->2 term 3 no\n");

    /* the leader tells how far it must be */
    box_step(b, (struct raft_event){.type = RAFT_EV_VOTE_FROM, .index = 3});
    box_append(b, 0, 0, 3, 3, 2);
    cr_assert(!raft_may_vote(b->raft)); /* it has entry 3, but does not know that it is committed */
    box_append(b, 3, 3, 3, 1, 3);
    cr_assert(raft_may_vote(b->raft));
    b->now_ms += 1000;
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_VOTE, .from = 3, .term = 9, .index = 50, .log_term = 8});
    cr_assert_str_eq(b->said, "VOTE_SAID 1->3 term 9 yes\n");
    box_free(b);
}

/* --- the leader ---------------------------------------------------------------------------------------------- */

static void beat_said(struct box *b, uint64_t from)
{
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_BEAT_SAID, .from = from, .term = raft_term(b->raft)});
}

static struct box *leader_with_entries(uint64_t last)
{
    struct box *b = box_leader(3, 0, NULL);

    b->raft->conf.keep_entries = 2;
    box_match(b, 2, 1);
    box_match(b, 3, 1);
    for (uint64_t i = 2; i <= last; i++) {
        box_propose(b, i, "x");
        box_match(b, 2, i);
    }
    return b;
}

Test(raft_snap, entries_that_a_living_follower_needs_are_kept)
{
    struct box *b = leader_with_entries(20);

    box_match(b, 3, 10);
    box_step(b, (struct raft_event){.type = RAFT_EV_APPLIED, .index = 20, .durable = 20});
    box_turn(b);
    cr_assert_eq(b->drop_below, 11);

    /* unless it does not answer any more */
    for (int i = 0; i < 120; i++) {
        b->now_ms += 10;
        beat_said(b, 2);
        box_step(b, (struct raft_event){.type = RAFT_EV_TICK});
        box_turn(b);
    }
    box_step(b, (struct raft_event){.type = RAFT_EV_APPLIED, .index = 20, .durable = 20});
    box_turn(b);
    cr_assert_eq(b->drop_below, 19);
    box_free(b);
}

Test(raft_snap, what_a_member_acknowledged_before_it_lost_its_log_counts_no_more)
{
    struct box *b = leader_with_entries(5);

    b->disk_stuck = true; /* our own copy does not count yet */
    box_propose(b, 6, "y");
    box_match(b, 2, 6);
    box_step(b, (struct raft_event){.type = RAFT_EV_FORGOT, .member = 2});
    box_match(b, 3, 5);
    b->disk_stuck = false;
    box_sync(b);
    box_turn(b);
    cr_assert_eq(raft_commit(b->raft), 5); /* entry 6: one copy of three */

    /* and it gets nothing until its snapshot was sent */
    box_propose(b, 7, "z");
    cr_assert_null(strstr(b->said, "1->2"));
    box_step(b, (struct raft_event){.type = RAFT_EV_SNAP_SENT, .member = 2, .index = 5, .ok = true});
    box_turn(b);
    cr_assert_not_null(strstr(b->said, "APPEND 1->2 term 1 prev 5/1 entries 6..7"));
    box_free(b);
}
