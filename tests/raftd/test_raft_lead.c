/* A leader: what is sent, what is committed, when it steps down or hands over. */
#include "tests/raftd/box.h"

#define TERMS(...) ((const uint64_t[]){__VA_ARGS__, 0})

static void beat_said(struct box *b, uint64_t from, uint64_t read_id)
{
    box_recv(
        b, (struct raft_msg){.type = RAFT_MSG_BEAT_SAID, .from = from, .term = raft_term(b->raft), .read_id = read_id});
}

Test(raft_lead, a_proposal_goes_to_all_and_is_committed_by_a_majority)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 2, 1);
    box_match(b, 3, 1);
    box_propose(b, 7, "x");
    cr_assert_str_eq(b->said, "APPEND 1->2 term 1 prev 1/1 entries 2..2 commit 1\n"
                              "APPEND 1->3 term 1 prev 1/1 entries 2..2 commit 1\n");
    cr_assert_eq(b->commit, 1);
    box_match(b, 3, 2);
    cr_assert_eq(b->commit, 2);
    cr_assert_str_eq(b->said, "BEAT 1->3 term 1 commit 2 read 0\n"); /* it would not hear of it otherwise */
    box_free(b);
}

Test(raft_lead, appends_leave_before_our_own_sync_which_counts_only_afterwards)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 2, 1);
    b->disk_stuck = true;
    box_propose(b, 7, "x");
    cr_assert_str_eq(b->said, "APPEND 1->2 term 1 prev 1/1 entries 2..2 commit 1\n");
    box_match(b, 2, 2);
    cr_assert_eq(raft_commit(b->raft), 1); /* one copy of three */
    box_sync(b);
    cr_assert_eq(raft_commit(b->raft), 2);
    box_free(b);
}

Test(raft_lead, what_others_committed_is_not_handed_on_before_our_own_sync)
{
    struct box *b = box_leader(3, 0, NULL);
    struct entry *out[4];

    box_match(b, 2, 1);
    b->disk_stuck = true;
    box_propose(b, 7, "x");
    box_match(b, 2, 2);
    box_match(b, 3, 2);
    cr_assert_eq(raft_commit(b->raft), 2);
    cr_assert_eq(b->commit, 1);
    cr_assert_eq(raft_committed(b->raft, 1, 1000, out, 4), 0);
    b->disk_stuck = false;
    box_sync(b);
    box_turn(b);
    cr_assert_eq(b->commit, 2);
    cr_assert_eq(raft_committed(b->raft, 1, 1000, out, 4), 1);
    cr_assert(slice_eq(entry_data(out[0]), slice_str("x")));
    entry_unref(out[0]);
    box_free(b);
}

Test(raft_lead, appends_are_pipelined_once_the_follower_has_answered)
{
    struct box *b = box_leader(2, 0, NULL);

    box_propose(b, 1, "a");
    cr_assert_str_eq(b->said, ""); /* probing: one at a time */
    box_match(b, 2, 1);
    cr_assert_str_eq(b->said, "APPEND 1->2 term 1 prev 1/1 entries 2..2 commit 1\n");
    box_propose(b, 2, "b");
    box_propose(b, 3, "c");
    cr_assert_str_eq(b->said, "APPEND 1->2 term 1 prev 3/1 entries 4..4 commit 1\n");
    box_free(b);
}

Test(raft_lead, proposals_of_one_turn_share_a_message)
{
    struct box *b = box_leader(2, 0, NULL);

    box_match(b, 2, 1);
    for (int i = 0; i < 5; i++)
        box_step(b, (struct raft_event){.type = RAFT_EV_PROPOSE, .entry = entry_new(ENTRY_COMMAND, SLICE_EMPTY)});
    box_turn(b);
    cr_assert_str_eq(b->said, "APPEND 1->2 term 1 prev 1/1 entries 2..6 commit 1\n");
    box_free(b);
}

Test(raft_lead, the_window_of_a_silent_follower_fills_and_opens_again)
{
    struct box *b = box_leader(2, 0, NULL);
    size_t sent = 0;

    b->raft->conf.inflight_bytes_max = 3 * (sizeof(struct entry) + 1);
    box_match(b, 2, 1);
    for (int i = 0; i < 10; i++) {
        box_propose(b, 1, "x");
        sent += b->said[0] != '\0';
    }
    cr_assert_eq(sent, 3);
    box_match(b, 2, 3);
    cr_assert_str_eq(b->said, "APPEND 1->2 term 1 prev 4/1 entries 5..11 commit 3\n");
    box_free(b);
}

Test(raft_lead, a_lost_append_is_found_by_the_answer_to_a_beat)
{
    struct box *b = box_leader(2, 0, NULL);

    box_match(b, 2, 1);
    box_propose(b, 1, "x"); /* lost */
    box_tick(b, 10);
    beat_said(b, 2, 0);
    cr_assert_str_eq(b->said, "APPEND 1->2 term 1 prev 2/1 commit 1\n"); /* do you have it? */
    box_recv(
        b,
        (struct raft_msg){
            .type = RAFT_MSG_APPEND_SAID, .from = 2, .term = 1, .reject = true, .index = 2, .hint = 1, .log_term = 1});
    cr_assert_str_eq(b->said, "APPEND 1->2 term 1 prev 1/1 entries 2..2 commit 1\n");
    box_free(b);
}

Test(raft_lead, an_old_rejection_changes_nothing)
{
    struct box *b = box_leader(2, 0, NULL);

    box_match(b, 2, 1);
    box_propose(b, 1, "x");
    box_match(b, 2, 2);
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_APPEND_SAID, .from = 2, .term = 1, .reject = true, .index = 1});
    box_propose(b, 1, "y");
    cr_assert_str_eq(b->said, "APPEND 1->2 term 1 prev 2/1 entries 3..3 commit 2\n");
    box_free(b);
}

Test(raft_lead, an_acknowledgement_of_what_we_never_sent_is_ignored)
{
    struct box *b = box_leader(2, 0, NULL);

    box_match(b, 2, 99);
    cr_assert_eq(b->commit, 0);
    box_match(b, 7, 1); /* nor does a stranger count */
    cr_assert_eq(b->commit, 0);
    box_free(b);
}

/* Figure 3.7 (8 in the paper), (c): an entry of term 2 is on a majority under the leader of term 4, which must not
 * call it committed, for (d) may still overwrite it; (e): with an entry of its own term it may. */
Test(raft_lead, an_entry_of_an_older_term_is_not_committed_by_counting)
{
    struct box *b = box_leader(5, 3, TERMS(1, 2));

    box_match(b, 2, 2);
    box_match(b, 3, 2);
    cr_assert_eq(raft_commit(b->raft), 0);
    box_match(b, 2, 3);
    box_match(b, 3, 3);
    cr_assert_eq(raft_commit(b->raft), 3);
    box_free(b);
}

Test(raft_lead, beats_carry_no_more_commit_than_the_follower_has)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 2, 1);
    box_tick(b, 10);
    cr_assert_str_eq(b->said, "BEAT 1->2 term 1 commit 1 read 0\nBEAT 1->3 term 1 commit 0 read 0\n");
    box_free(b);
}

Test(raft_lead, a_leader_that_hears_no_majority_steps_down)
{
    struct box *b = box_leader(3, 0, NULL);

    box_tick(b, 60);
    beat_said(b, 2, 0);
    box_tick(b, 60);
    cr_assert_eq(raft_role(b->raft), RAFT_LEADER); /* 2 was heard 60 ms ago */
    box_tick(b, 40);
    cr_assert_eq(raft_role(b->raft), RAFT_FOLLOWER);
    cr_assert_eq(raft_leader(b->raft), RAFT_NONE);
    box_propose(b, 5, "x");
    cr_assert_str_eq(b->refused, "5:E_NO_LEADER ");
    box_free(b);
}

Test(raft_lead, a_leader_steps_down_for_a_later_term)
{
    struct box *b = box_leader(3, 0, NULL);

    box_recv(b, (struct raft_msg){.type = RAFT_MSG_BEAT_SAID, .from = 2, .term = 9, .reject = true});
    cr_assert_eq(raft_role(b->raft), RAFT_FOLLOWER);
    cr_assert_eq(b->term, 9);
    box_propose(b, 5, "x");
    cr_assert_str_eq(b->refused, "5:E_NO_LEADER ");
    box_free(b);
}

Test(raft_lead, a_follower_refuses_proposals_and_names_no_error_of_its_own)
{
    struct box *b = box_new(1, 3, 4, NULL);

    box_recv(b, (struct raft_msg){.type = RAFT_MSG_BEAT, .from = 3, .term = 4});
    box_propose(b, 5, "x");
    cr_assert_str_eq(b->refused, "5:E_NOT_LEADER ");
    cr_assert_eq(raft_leader(b->raft), 3);
    box_free(b);
}

Test(raft_lead, too_much_that_is_uncommitted_is_refused)
{
    struct box *b = box_leader(2, 0, NULL);

    b->raft->conf.uncommitted_bytes_max = 3 * (sizeof(struct entry) + 1);
    box_match(b, 2, 1);
    for (uint64_t i = 2; i <= 4; i++)
        box_propose(b, i, "x");
    cr_assert_str_eq(b->refused, "");
    box_propose(b, 5, "x");
    cr_assert_str_eq(b->refused, "5:E_REQUEST_TOO_MANY_REQUESTS ");
    box_match(b, 2, 2);
    box_propose(b, 6, "x");
    cr_assert_str_eq(b->refused, "");
    box_free(b);
}

Test(raft_lead, a_transfer_waits_until_the_target_has_everything)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 2, 1);
    box_propose(b, 1, "x");
    box_step(b, (struct raft_event){.type = RAFT_EV_TRANSFER, .member = 2});
    box_propose(b, 2, "y");
    cr_assert_str_eq(b->refused, "2:E_LEADER_CHANGED ");
    box_match(b, 2, 2);
    cr_assert(strstr(b->said, "TIMEOUT_NOW 1->2 term 1\n"));
    /* and is given up after an election time */
    beat_said(b, 2, 0);
    beat_said(b, 3, 0);
    box_tick(b, 99);
    beat_said(b, 2, 0);
    box_tick(b, 1);
    box_propose(b, 3, "z");
    cr_assert_str_eq(b->refused, "");
    box_free(b);
}

Test(raft_lead, the_target_of_a_transfer_campaigns_at_once_and_is_heard)
{
    struct box *b = box_new(2, 3, 4, NULL);

    box_recv(b, (struct raft_msg){.type = RAFT_MSG_BEAT, .from = 1, .term = 4});
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_TIMEOUT_NOW, .from = 1, .term = 4});
    cr_assert_str_eq(b->said, "VOTE 2->1 term 5 last 0/0 transfer\nVOTE 2->3 term 5 last 0/0 transfer\n");
    box_free(b);
}

Test(raft_lead, only_a_voter_is_a_target)
{
    struct box *b = box_leader(3, 0, NULL);

    box_step(b, (struct raft_event){.type = RAFT_EV_TRANSFER, .member = 9, .tag = 4});
    box_turn(b);
    cr_assert_str_eq(b->refused, "4:E_BAD_LEADER_TRANSFEREE ");
    box_free(b);
}

Test(raft_lead, a_leader_that_stops_hands_over_to_the_best_follower)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 3, 1);
    box_step(b, (struct raft_event){.type = RAFT_EV_STOP});
    box_turn(b);
    cr_assert(strstr(b->said, "TIMEOUT_NOW 1->3 term 1\n"));
    box_propose(b, 1, "x");
    cr_assert_str_eq(b->refused, "1:E_STOPPED ");
    box_free(b);
}

Test(raft_lead, a_leader_that_stops_tries_another_when_its_successor_does_not_take_over)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 3, 1);
    box_match(b, 2, 1);
    box_step(b, (struct raft_event){.type = RAFT_EV_STOP});
    box_turn(b);
    cr_assert(strstr(b->said, "TIMEOUT_NOW 1->2 term 1\n") || strstr(b->said, "TIMEOUT_NOW 1->3 term 1\n"));
    uint64_t first = strstr(b->said, "TIMEOUT_NOW 1->2") ? 2 : 3, other = 5 - first;

    /* when the first one is gone: at once */
    box_step(b, (struct raft_event){.type = RAFT_EV_GONE, .member = first});
    box_turn(b);
    cr_assert_eq(b->raft->transferee, other);
    cr_assert(strstr(b->said, other == 2 ? "TIMEOUT_NOW 1->2" : "TIMEOUT_NOW 1->3"));

    /* when the second one is silent and the first one back: after an election time */
    beat_said(b, first, 0);
    box_tick(b, 60);
    beat_said(b, 2, 0);
    beat_said(b, 3, 0);
    box_tick(b, 40);
    cr_assert_eq(b->raft->transferee, first);
    box_free(b);
}

Test(raft_lead, a_follower_behind_the_logs_start_needs_a_snapshot)
{
    struct box *b = box_leader(2, 0, NULL);

    b->raft->conf.keep_entries = 2;
    box_match(b, 2, 1);
    for (uint64_t i = 2; i <= 10; i++) {
        box_propose(b, i, "x");
        box_match(b, 2, i);
    }
    box_step(b, (struct raft_event){.type = RAFT_EV_APPLIED, .index = 10, .durable = 10});
    box_turn(b);
    cr_assert_eq(b->drop_below, 9);

    /* when it comes back with an empty disk, which it says by its rejections */
    box_step(b, (struct raft_event){.type = RAFT_EV_UNREACHABLE, .member = 2});
    b->raft->peers[0].match = 0;
    beat_said(b, 2, 0);
    box_propose(b, 11, "y");
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_APPEND_SAID, .from = 2, .term = 1, .reject = true, .index = 10});
    cr_assert_str_eq(b->said, "SNAP 1->2 term 1 index 10\n");
    box_propose(b, 12, "z");
    cr_assert_str_eq(b->said, ""); /* it gets nothing else */

    /* then a failed transfer is tried again at its next sign of life, a good one goes on behind it */
    box_step(b, (struct raft_event){.type = RAFT_EV_SNAP_SENT, .member = 2, .index = 10, .ok = false});
    box_turn(b);
    cr_assert_str_eq(b->said, "");
    beat_said(b, 2, 0);
    cr_assert_str_eq(b->said, "SNAP 1->2 term 1 index 10\n");
    box_step(b, (struct raft_event){.type = RAFT_EV_SNAP_SENT, .member = 2, .index = 10, .ok = true});
    box_turn(b);
    cr_assert_str_eq(b->said, "APPEND 1->2 term 1 prev 10/1 entries 11..12 commit 10\n");
    box_free(b);
}
