/* Elections: who asks, who is asked, when a vote leaves and when it counts. The other members are played by hand. */
#include "tests/raftd/box.h"

#define TERMS(...) ((const uint64_t[]){__VA_ARGS__, 0})

static struct raft_msg vote(uint64_t from, uint64_t term, uint64_t last, uint64_t last_term)
{
    return (struct raft_msg){.type = RAFT_MSG_VOTE, .from = from, .term = term, .index = last, .log_term = last_term};
}

static struct raft_msg prevote(uint64_t from, uint64_t term, uint64_t last, uint64_t last_term)
{
    struct raft_msg m = vote(from, term, last, last_term);

    m.type = RAFT_MSG_PREVOTE;
    return m;
}

static void beat(struct box *b, uint64_t from, uint64_t term)
{
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_BEAT, .from = from, .term = term});
}

Test(raft_elect, a_single_voter_leads_at_its_first_tick_by_the_same_road)
{
    struct box *b = box_new(1, 1, 0, NULL);

    box_turn(b);
    cr_assert_eq(b->deadline_ms, b->now_ms);
    b->disk_stuck = true;
    box_tick(b, 0);
    cr_assert_eq(raft_role(b->raft), RAFT_CANDIDATE);
    b->disk_stuck = false;
    box_sync(b);
    box_turn(b);

    cr_assert_eq(raft_role(b->raft), RAFT_LEADER);
    cr_assert_eq(raft_term(b->raft), 1);
    cr_assert(raft_is_settled(b->raft));
    cr_assert_eq(b->commit, 1); /* its first entry */
    box_free(b);
}

Test(raft_elect, a_member_asks_for_a_prevote_first_and_keeps_its_term)
{
    struct box *b = box_new(1, 3, 4, TERMS(1, 4));

    box_tick(b, 200);

    cr_assert_str_eq(b->said, "PREVOTE 1->2 term 5 last 2/4\nPREVOTE 1->3 term 5 last 2/4\n");
    cr_assert_eq(raft_role(b->raft), RAFT_PRECANDIDATE);
    cr_assert_eq(raft_term(b->raft), 4);
    box_free(b);
}

Test(raft_elect, a_partitioned_candidate_never_raises_its_term)
{
    struct box *b = box_new(1, 3, 4, TERMS(1));

    for (int i = 0; i < 50; i++)
        box_tick(b, 200);

    cr_assert_eq(raft_term(b->raft), 4);
    box_free(b);
}

Test(raft_elect, a_quorum_of_prevotes_then_of_votes_makes_a_leader)
{
    struct box *b = box_new(1, 3, 4, TERMS(1, 4));

    box_tick(b, 200);
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_PREVOTE_SAID, .from = 2, .term = 5});
    cr_assert_str_eq(b->said, "VOTE 1->2 term 5 last 2/4\nVOTE 1->3 term 5 last 2/4\n");
    cr_assert_eq(b->vote, 1);
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_VOTE_SAID, .from = 3, .term = 5});

    cr_assert_eq(raft_role(b->raft), RAFT_LEADER);
    cr_assert_str_eq(b->said, "APPEND 1->2 term 5 prev 2/4 entries 3..3 commit 0\n"
                              "APPEND 1->3 term 5 prev 2/4 entries 3..3 commit 0\n");
    box_free(b);
}

Test(raft_elect, votes_of_an_older_question_do_not_count)
{
    struct box *b = box_new(1, 5, 4, NULL);

    box_tick(b, 200);
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_PREVOTE_SAID, .from = 2, .term = 4}); /* another term */
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_PREVOTE_SAID, .from = 3, .term = 5});
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_PREVOTE_SAID, .from = 3, .term = 5}); /* twice the same */
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_PREVOTE_SAID, .from = 9, .term = 5}); /* a stranger */

    cr_assert_eq(raft_role(b->raft), RAFT_PRECANDIDATE);
    box_free(b);
}

Test(raft_elect, our_own_vote_leaves_and_counts_only_after_the_sync)
{
    struct box *b = box_new(1, 3, 4, NULL);

    box_tick(b, 200);
    b->disk_stuck = true;
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_PREVOTE_SAID, .from = 2, .term = 5});
    cr_assert_str_eq(b->said, ""); /* the question too: it tells that we gave our vote */
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_VOTE_SAID, .from = 2, .term = 5});
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_VOTE_SAID, .from = 3, .term = 5});
    cr_assert_eq(raft_role(b->raft), RAFT_CANDIDATE); /* not even if the others suffice */

    box_sync(b);
    cr_assert_eq(raft_role(b->raft), RAFT_LEADER);
    box_free(b);
}

Test(raft_elect, a_vote_for_another_leaves_only_after_the_sync)
{
    struct box *b = box_new(1, 3, 4, NULL);

    b->disk_stuck = true;
    box_recv(b, vote(2, 5, 0, 0));
    cr_assert_str_eq(b->said, "");
    cr_assert_eq(b->vote, 2); /* handed out to be persisted */

    box_sync(b);
    cr_assert_str_eq(b->said, "VOTE_SAID 1->2 term 5 yes\n");
    box_free(b);
}

Test(raft_elect, there_is_one_vote_per_term_also_after_a_restart)
{
    struct box *b = box_new(1, 3, 4, NULL);

    box_recv(b, vote(2, 5, 0, 0));
    box_recv(b, vote(3, 5, 9, 4));
    cr_assert_str_eq(b->said, "VOTE_SAID 1->3 term 5 no\n");
    box_recv(b, vote(2, 5, 0, 0)); /* the same again */
    cr_assert_str_eq(b->said, "VOTE_SAID 1->2 term 5 yes\n");

    struct raft *again =
        raft_new(&b->conf, &(struct raft_start){.term = b->term, .vote = b->vote, .first_index = 1}, b->now_ms);

    raft_free(b->raft);
    b->raft = again;
    box_recv(b, vote(3, 5, 9, 4));
    cr_assert_str_eq(b->said, "VOTE_SAID 1->3 term 5 no\n");
    box_free(b);
}

Test(raft_elect, a_candidate_with_a_shorter_or_older_log_gets_no_vote)
{
    struct box *b = box_new(1, 3, 4, TERMS(1, 3, 3));

    box_recv(b, vote(2, 5, 2, 3)); /* shorter */
    cr_assert_str_eq(b->said, "VOTE_SAID 1->2 term 5 no\n");
    box_recv(b, vote(2, 6, 9, 2)); /* longer, but of an older term */
    cr_assert_str_eq(b->said, "VOTE_SAID 1->2 term 6 no\n");
    box_recv(b, vote(3, 7, 1, 4)); /* short, but newer */
    cr_assert_str_eq(b->said, "VOTE_SAID 1->3 term 7 yes\n");
    box_free(b);
}

Test(raft_elect, who_hears_a_leader_ignores_candidates)
{
    struct box *b = box_new(1, 3, 4, NULL);

    beat(b, 3, 4);
    b->now_ms += 99;
    box_recv(b, vote(2, 9, 9, 9));
    cr_assert_str_eq(b->said, "");
    box_recv(b, prevote(2, 9, 9, 9));
    cr_assert_str_eq(b->said, "");
    cr_assert_eq(raft_term(b->raft), 4);

    b->now_ms += 1; /* election_ms of silence */
    box_recv(b, prevote(2, 9, 9, 9));
    cr_assert_str_eq(b->said, "PREVOTE_SAID 1->2 term 9 yes\n");
    cr_assert_eq(raft_term(b->raft), 4);
    box_free(b);
}

Test(raft_elect, a_transfer_overrides_stickiness)
{
    struct box *b = box_new(1, 3, 4, NULL);
    struct raft_msg m = vote(2, 5, 0, 0);

    beat(b, 3, 4);
    m.transfer = true;
    box_recv(b, m);

    cr_assert_str_eq(b->said, "VOTE_SAID 1->2 term 5 yes\n");
    box_free(b);
}

Test(raft_elect, a_prevote_gives_nothing_away)
{
    struct box *b = box_new(1, 3, 4, NULL);

    box_recv(b, prevote(2, 5, 0, 0));
    cr_assert_str_eq(b->said, "PREVOTE_SAID 1->2 term 5 yes\n");
    box_recv(b, prevote(3, 5, 0, 0));
    cr_assert_str_eq(b->said, "PREVOTE_SAID 1->3 term 5 yes\n");
    cr_assert_eq(b->vote, RAFT_NONE);
    cr_assert_eq(raft_term(b->raft), 4);
    box_free(b);
}

Test(raft_elect, whoever_asks_for_an_old_term_learns_the_new_one)
{
    struct box *b = box_new(1, 3, 7, TERMS(7));

    box_recv(b, prevote(2, 5, 0, 0));
    cr_assert_str_eq(b->said, "PREVOTE_SAID 1->2 term 7 no\n");
    box_recv(b, vote(2, 5, 0, 0));
    cr_assert_str_eq(b->said, "VOTE_SAID 1->2 term 7 no\n");
    box_free(b);
}

Test(raft_elect, a_precandidate_that_is_told_of_a_later_term_takes_it)
{
    struct box *b = box_new(1, 3, 4, NULL);

    box_tick(b, 200);
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_PREVOTE_SAID, .from = 2, .term = 7, .reject = true});

    cr_assert_eq(raft_role(b->raft), RAFT_FOLLOWER);
    cr_assert_eq(raft_term(b->raft), 7);
    box_free(b);
}

/* A candidate with a later term whom nobody answers, because all hear the old leader, gets in by the leader's beat. */
Test(raft_elect, a_stuck_candidate_deposes_the_stale_leader_by_its_answer)
{
    struct box *b = box_new(1, 3, 4, NULL);

    box_tick(b, 200);
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_PREVOTE_SAID, .from = 2, .term = 5});
    cr_assert_eq(raft_role(b->raft), RAFT_CANDIDATE);
    beat(b, 3, 4);

    cr_assert_str_eq(b->said, "BEAT_SAID 1->3 term 5 no\n");
    box_free(b);
}

Test(raft_elect, refusals_of_a_majority_end_the_attempt)
{
    struct box *b = box_new(1, 3, 4, NULL);

    box_tick(b, 200);
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_PREVOTE_SAID, .from = 2, .term = 4, .reject = true});
    cr_assert_eq(raft_role(b->raft), RAFT_PRECANDIDATE);
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_PREVOTE_SAID, .from = 3, .term = 4, .reject = true});
    cr_assert_eq(raft_role(b->raft), RAFT_FOLLOWER);
    cr_assert_eq(raft_term(b->raft), 4);
    box_free(b);
}

Test(raft_elect, a_learner_neither_campaigns_nor_is_asked_nor_counted)
{
    /* given a member 1 of voters 1, 2, 3 that has learner 4, and the learner itself */
    struct box *b = box_new(1, 3, 4, NULL), *learner = box_new(4, 3, 4, NULL);
    struct entry *e[] = {box_conf_entry(RAFT_CONF_ADD_LEARNER, 4)};
    struct raft_msg append = {.type = RAFT_MSG_APPEND, .from = 2, .term = 4, .entries = e, .entry_count = 1};

    e[0]->index = 1;
    e[0]->term = 4;
    box_recv(b, append);
    box_recv(learner, append);

    /* when both hear nothing */
    box_tick(b, 500);
    box_tick(learner, 500);

    /* then only the voter asks, only the voters, and the learner's word is nothing */
    cr_assert_str_eq(b->said, "PREVOTE 1->2 term 5 last 1/4\nPREVOTE 1->3 term 5 last 1/4\n");
    cr_assert_str_eq(learner->said, "");
    cr_assert_eq(raft_role(learner->raft), RAFT_FOLLOWER);
    cr_assert_eq(raft_leader(learner->raft), RAFT_NONE);
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_PREVOTE_SAID, .from = 4, .term = 5});
    cr_assert_eq(raft_role(b->raft), RAFT_PRECANDIDATE);
    /* but asked, it answers: it may have been promoted without knowing */
    box_recv(learner, vote(2, 5, 1, 4));
    cr_assert_str_eq(learner->said, "VOTE_SAID 4->2 term 5 yes\n");
    entry_unref(e[0]);
    box_free(b);
    box_free(learner);
}

Test(raft_elect, a_member_without_members_waits)
{
    struct box *b = box_new(4, 0, 0, NULL);

    box_tick(b, 1000);
    cr_assert_str_eq(b->said, "");
    cr_assert_gt(b->deadline_ms, b->now_ms);
    box_free(b);
}

Test(raft_elect, timeouts_differ_and_lie_between_one_and_two_election_times)
{
    struct box *b = box_new(1, 3, 4, NULL);
    uint64_t first = 0;
    bool differ = false;

    for (int i = 0; i < 20; i++) {
        beat(b, 3, 4);
        uint64_t wait = b->deadline_ms - b->now_ms;

        cr_assert(wait >= 100 && wait < 200);
        differ = differ || (first && wait != first);
        first = wait;
    }
    cr_assert(differ);
    box_free(b);
}

Test(raft_elect, a_stopping_member_does_not_campaign)
{
    struct box *b = box_new(1, 3, 4, NULL);

    box_step(b, (struct raft_event){.type = RAFT_EV_STOP});
    box_tick(b, 500);
    cr_assert_str_eq(b->said, "");
    box_propose(b, 8, "x");
    cr_assert_str_eq(b->refused, "8:E_STOPPED ");
    box_free(b);
}

Test(raft_elect, a_leader_whose_process_has_ended_is_followed_at_once_in_the_order_of_ids)
{
    struct box *first = box_new(2, 3, 4, NULL), *second = box_new(3, 3, 4, NULL);

    /* given followers of member 1, which is gone */
    beat(first, 1, 4);
    beat(second, 1, 4);
    box_step(first, (struct raft_event){.type = RAFT_EV_GONE, .member = 1});
    box_step(second, (struct raft_event){.type = RAFT_EV_GONE, .member = 1});
    box_turn(first);
    box_turn(second);
    cr_assert_eq(raft_leader(first->raft), RAFT_NONE);

    /* when half a heartbeat has passed the first asks, and the second, which waits, is not sticky */
    box_tick(first, 5);
    box_tick(second, 5);
    cr_assert_eq(raft_role(first->raft), RAFT_PRECANDIDATE);
    cr_assert_eq(raft_role(second->raft), RAFT_FOLLOWER);
    box_recv(second, prevote(2, 5, 0, 0));
    cr_assert_str_eq(second->said, "PREVOTE_SAID 3->2 term 5 yes\n");

    /* and when the first does nothing the second's turn comes, well before a timeout */
    box_tick(second, 25);
    cr_assert_eq(raft_role(second->raft), RAFT_PRECANDIDATE);
    box_free(first);
    box_free(second);
}

Test(raft_elect, who_is_gone_but_does_not_lead_changes_nothing)
{
    struct box *b = box_new(2, 3, 4, NULL);

    beat(b, 1, 4);
    box_step(b, (struct raft_event){.type = RAFT_EV_GONE, .member = 3});
    box_tick(b, 99);
    cr_assert_eq(raft_role(b->raft), RAFT_FOLLOWER);
    cr_assert_eq(raft_leader(b->raft), 1);
    box_free(b);
}

Test(raft_elect, a_leader_that_was_thought_gone_and_is_heard_again_is_followed)
{
    struct box *b = box_new(2, 3, 4, NULL);

    beat(b, 1, 4);
    box_step(b, (struct raft_event){.type = RAFT_EV_GONE, .member = 1});
    box_tick(b, 5);
    cr_assert_eq(raft_role(b->raft), RAFT_PRECANDIDATE);
    beat(b, 1, 4);
    cr_assert_eq(raft_role(b->raft), RAFT_FOLLOWER);
    cr_assert_eq(raft_leader(b->raft), 1);
    cr_assert_eq(raft_term(b->raft), 4);
    box_free(b);
}
