/* A follower's log: what it takes, refuses, cuts, and says. */
#include "tests/raftd/box.h"

#define TERMS(...) ((const uint64_t[]){__VA_ARGS__, 0})

/* The log of the leader of figure 3.6 (thesis), term 8. */
#define FIGURE_3_6 TERMS(1, 1, 1, 4, 4, 5, 5, 6, 6, 6)

Test(raft_append, entries_that_fit_are_taken_and_acknowledged_after_the_sync)
{
    struct box *b = box_new(1, 3, 2, TERMS(1, 2));

    b->disk_stuck = true;
    box_recv_append(b, 2, 2, 2, 2, TERMS(2, 2), 3);
    cr_assert_str_eq(b->said, "");
    cr_assert_eq(b->commit, 2); /* committed up to 3, on our disk up to 2 */
    cr_assert_eq(raft_commit(b->raft), 3);
    b->disk_stuck = false;
    box_sync(b);
    cr_assert_str_eq(b->said, "APPEND_SAID 1->2 term 2 match 4\n");
    box_turn(b);
    cr_assert_eq(b->commit, 3);
    box_free(b);
}

Test(raft_append, a_gap_is_refused_with_our_end_as_hint)
{
    struct box *b = box_new(1, 3, 6, TERMS(1, 1, 1, 4, 4, 5, 5, 6, 6)); /* (a) of figure 3.6 */

    box_recv_append(b, 2, 8, 10, 6, TERMS(8), 0);
    cr_assert_str_eq(b->said, "APPEND_SAID 1->2 term 8 no at 10 hint 9/6\n");
    box_free(b);
}

Test(raft_append, a_conflict_is_answered_with_the_last_place_that_may_agree)
{
    struct box *f = box_new(1, 3, 7, TERMS(1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3)); /* (f) */

    box_recv_append(f, 2, 8, 10, 6, TERMS(8), 0);
    cr_assert_str_eq(f->said, "APPEND_SAID 1->2 term 8 no at 10 hint 10/3\n");
    /* the leader goes back to its last entry of a term <= 3: index 3; our prev there agrees */
    box_recv_append(f, 2, 8, 3, 1, TERMS(4, 4, 5, 5, 6, 6, 6, 8), 0);
    cr_assert_str_eq(f->said, "APPEND_SAID 1->2 term 8 match 11\n");
    cr_assert_eq(f->disk_last, 11);
    cr_assert_eq(f->disk[4]->term, 4);
    cr_assert_eq(f->disk[11]->term, 8);
    box_free(f);
}

Test(raft_append, all_logs_of_figure_3_6_end_up_like_the_leaders)
{
    const uint64_t *logs[] = {
        TERMS(1, 1, 1, 4, 4, 5, 5, 6, 6),          TERMS(1, 1, 1, 4),          TERMS(1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
        TERMS(1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7), TERMS(1, 1, 1, 4, 4, 4, 4), TERMS(1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
    };

    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        /* given the leader, and follower 2 with one of the logs; only their messages, by hand */
        struct box *leader = box_leader(2, 7, FIGURE_3_6), *follower = box_new(2, 2, 7, logs[i]);
        struct raft_ready ready, answer;
        int rounds = 0;

        /* box_leader threw its first append away: a beat makes it ask again */
        box_step(leader, (struct raft_event){
                             .type = RAFT_EV_RECV,
                             .msg = &(struct raft_msg){.type = RAFT_MSG_BEAT_SAID, .from = 2, .to = 1, .term = 8}});
        while (raft_commit(leader->raft) < 11 && ++rounds < 10) {
            raft_ready(leader->raft, &ready);
            for (size_t m = 0; m < ready.early_count; m++)
                box_step(follower, (struct raft_event){.type = RAFT_EV_RECV, .msg = &ready.early[m]});
            raft_ready(follower->raft, &answer);
            box_persist(follower, &answer);
            box_sync(follower);
            for (size_t m = 0; m < answer.late_count; m++)
                box_step(leader, (struct raft_event){.type = RAFT_EV_RECV, .msg = &answer.late[m]});
        }

        cr_assert_leq(rounds, 4, "log %zu took %d rounds", i, rounds);
        cr_assert_eq(follower->disk_last, 11);
        for (uint64_t k = 1; k <= 11; k++)
            cr_assert_eq(follower->disk[k]->term, leader->disk[k]->term);
        box_free(leader);
        box_free(follower);
    }
}

Test(raft_append, what_we_have_is_not_cut_by_an_append_that_came_late)
{
    struct box *b = box_new(1, 3, 2, TERMS(1, 2));

    box_recv_append(b, 2, 2, 2, 2, TERMS(2, 2, 2), 0);
    box_recv_append(b, 2, 2, 2, 2, TERMS(2), 0); /* the first part, again */
    cr_assert_str_eq(b->said, "APPEND_SAID 1->2 term 2 match 3\n");
    cr_assert_eq(raft_last_index(b->raft), 5);
    box_free(b);
}

Test(raft_append, an_append_below_the_commit_index_is_answered_with_it)
{
    struct box *b = box_new(1, 3, 2, TERMS(1, 2));

    box_recv_append(b, 2, 2, 2, 2, TERMS(2, 2), 4);
    box_recv_append(b, 2, 2, 1, 1, TERMS(2), 4);
    cr_assert_str_eq(b->said, "APPEND_SAID 1->2 term 2 match 4\n");
    box_free(b);
}

Test(raft_append, commit_does_not_run_ahead_of_what_the_append_proved)
{
    struct box *b = box_new(1, 3, 2, TERMS(1, 1, 1));

    box_recv_append(b, 2, 2, 1, 1, NULL, 3); /* 2 and 3 may still differ from the leader's */
    cr_assert_eq(raft_commit(b->raft), 1);
    box_free(b);
}

Test(raft_append, a_stale_leader_is_told_the_term)
{
    struct box *b = box_new(1, 3, 5, TERMS(1));

    box_recv_append(b, 2, 4, 1, 1, TERMS(4), 2);
    cr_assert_str_eq(b->said, "BEAT_SAID 1->2 term 5 no\n");
    cr_assert_eq(raft_last_index(b->raft), 1);
    box_free(b);
}

Test(raft_append, an_append_that_contradicts_itself_is_ignored)
{
    struct box *b = box_new(1, 3, 2, TERMS(1, 2));

    box_recv_append(b, 2, 3, 2, 2, TERMS(3, 2), 0); /* terms fall */
    cr_assert_str_eq(b->said, "");
    box_recv_append(b, 2, 3, 2, 2, TERMS(4), 0); /* an entry of a later term than the leader's */
    cr_assert_str_eq(b->said, "");
    cr_assert_eq(raft_last_index(b->raft), 2);
    cr_assert_eq(raft_term(b->raft), 2);
    box_free(b);
}

Test(raft_append, a_beat_moves_commit_and_is_answered_with_its_read_id)
{
    struct box *b = box_new(1, 3, 2, TERMS(1, 2));

    box_recv(b, (struct raft_msg){.type = RAFT_MSG_BEAT, .from = 2, .term = 2, .commit = 2, .read_id = 9});
    cr_assert_str_eq(b->said, "BEAT_SAID 1->2 term 2 read 9\n");
    cr_assert_eq(b->commit, 2);
    box_free(b);
}
