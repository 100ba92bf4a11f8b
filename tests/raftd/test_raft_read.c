/* Linearizable reads: which index, when it is known to be fresh, and what ends the wait. */
#include "tests/raftd/box.h"

#define TERMS(...) ((const uint64_t[]){__VA_ARGS__, 0})

static void beat_said(struct box *b, uint64_t from, uint64_t read_id)
{
    box_recv(
        b, (struct raft_msg){.type = RAFT_MSG_BEAT_SAID, .from = from, .term = raft_term(b->raft), .read_id = read_id});
}

Test(raft_read, a_single_voter_answers_at_once)
{
    struct box *b = box_leader(1, 0, NULL);

    box_propose(b, 1, "x");
    box_read(b, 7);
    cr_assert_str_eq(b->reads, "7@2 ");
    box_free(b);
}

Test(raft_read, a_single_voter_that_has_committed_nothing_of_its_term_waits)
{
    struct box *b = box_new(1, 1, 3, TERMS(1, 1)); /* commit was forgotten by the restart */

    b->disk_stuck = true;
    box_tick(b, 0);
    box_sync(b); /* its vote */
    box_turn(b);
    cr_assert_eq(raft_role(b->raft), RAFT_LEADER);
    box_read(b, 7);
    cr_assert_str_eq(b->reads, "");
    b->disk_stuck = false;
    box_sync(b);
    box_turn(b);
    cr_assert_str_eq(b->reads, "7@3 ");
    box_free(b);
}

Test(raft_read, one_round_serves_all_reads_of_a_turn)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 2, 1);
    for (uint64_t tag = 1; tag <= 3; tag++)
        box_step(b, (struct raft_event){.type = RAFT_EV_READ, .tag = tag});
    box_turn(b);
    cr_assert_str_eq(b->said, "BEAT 1->2 term 1 commit 1 read 1\nBEAT 1->3 term 1 commit 0 read 1\n");
    cr_assert_str_eq(b->reads, "");
    beat_said(b, 3, 1);
    cr_assert_str_eq(b->reads, "1@1 2@1 3@1 ");
    box_free(b);
}

Test(raft_read, an_answer_to_an_earlier_beat_confirms_nothing)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 2, 1);
    box_tick(b, 10); /* a beat leaves */
    box_read(b, 1);
    beat_said(b, 2, 0); /* its answer was on the way when the read came */
    beat_said(b, 3, 0);
    cr_assert_str_eq(b->reads, "");
    box_read(b, 2);
    beat_said(b, 2, 1);
    cr_assert_str_eq(b->reads, "1@1 ");
    beat_said(b, 2, 99); /* more than was asked */
    cr_assert_str_eq(b->reads, "2@1 ");
    box_free(b);
}

Test(raft_read, a_later_round_confirms_the_earlier_ones)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 2, 1);
    box_read(b, 1);
    box_propose(b, 9, "x");
    box_match(b, 2, 2);
    box_read(b, 2);
    beat_said(b, 3, 2);
    cr_assert_str_eq(b->reads, "1@1 2@2 ");
    box_free(b);
}

Test(raft_read, the_next_beat_asks_again)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 2, 1);
    box_read(b, 1); /* both beats are lost */
    box_tick(b, 10);
    cr_assert_str_eq(b->said, "BEAT 1->2 term 1 commit 1 read 1\nBEAT 1->3 term 1 commit 0 read 1\n");
    beat_said(b, 2, 1);
    cr_assert_str_eq(b->reads, "1@1 ");
    box_free(b);
}

Test(raft_read, reads_wait_until_the_leader_has_committed_an_entry_of_its_term)
{
    struct box *b = box_leader(3, 4, TERMS(1, 2));

    box_read(b, 1);
    beat_said(b, 2, 0);
    cr_assert_str_eq(b->reads, "");
    box_match(b, 2, 3);
    cr_assert(strstr(b->said, "read 1\n")); /* only now the round begins, with the index that counts */
    beat_said(b, 2, 1);
    cr_assert_str_eq(b->reads, "1@3 ");
    box_free(b);
}

/* The process slept; meanwhile the others elected another and wrote. */
Test(raft_read, after_a_pause_no_stale_read_is_answered)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 2, 1);
    b->now_ms += 10000;
    box_read(b, 1); /* before any tick */
    cr_assert_str_eq(b->reads, "");
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_BEAT_SAID, .from = 2, .term = 5, .reject = true});
    cr_assert_str_eq(b->reads, "");
    cr_assert_str_eq(b->refused, "1:E_LEADER_CHANGED ");
    box_free(b);
}

Test(raft_read, a_leader_that_steps_down_drops_its_reads)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 2, 1);
    box_read(b, 1);
    box_tick(b, 500);
    cr_assert_str_eq(b->refused, "1:E_LEADER_CHANGED ");
    box_read(b, 2);
    cr_assert_str_eq(b->refused, "2:E_NO_LEADER ");
    box_free(b);
}

Test(raft_read, a_learner_confirms_nothing)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 2, 1);
    box_propose_conf(b, 1, RAFT_CONF_ADD_LEARNER, 4);
    box_match(b, 2, 2);
    box_read(b, 1);
    beat_said(b, 4, 1);
    cr_assert_str_eq(b->reads, "");
    beat_said(b, 2, 1);
    cr_assert_str_eq(b->reads, "1@2 ");
    box_free(b);
}

Test(raft_read, a_queue_that_never_empties_does_not_grow)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 2, 1);
    for (uint64_t round = 1; round <= 20000; round++) {
        box_read(b, round);
        if (round > 5)
            beat_said(b, 2, round - 5);
    }
    cr_assert_leq(b->raft->wait_cap, 4096);
    box_free(b);
}
