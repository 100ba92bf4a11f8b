/* Membership: the payload, who counts, one change at a time, and what happens when a change is cut off. */
#include "tests/raftd/box.h"

#define TERMS(...) ((const uint64_t[]){__VA_ARGS__, 0})

static const char *members(struct box *b)
{
    static char text[256];
    struct raft_member m[RAFT_MEMBERS_MAX];
    size_t count = raft_members(b->raft, m);

    text[0] = '\0';
    for (size_t i = 0; i < count; i++)
        sprintf(text + strlen(text), "%d%s ", (int)m[i].id, m[i].learner ? "l" : "");
    return text;
}

Test(raft_conf, a_change_survives_the_wire)
{
    struct buf bytes = BUF_INIT;
    struct raft_conf_change c;

    raft_conf_encode(&bytes, &(struct raft_conf_change){.op = RAFT_CONF_PROMOTE,
                                                        .id = UINT64_MAX,
                                                        .name = SLICE_LIT("n1"),
                                                        .peer_urls = SLICE_LIT("https://a:2380,https://b:2380"),
                                                        .client_urls = SLICE_EMPTY});
    cr_assert_eq(raft_conf_decode(buf_slice(&bytes), &c), 0);
    cr_assert_eq(c.op, RAFT_CONF_PROMOTE);
    cr_assert_eq(c.id, UINT64_MAX);
    cr_assert(slice_eq(c.name, SLICE_LIT("n1")));
    cr_assert(slice_eq(c.peer_urls, SLICE_LIT("https://a:2380,https://b:2380")));
    cr_assert_eq(c.client_urls.len, 0);
    buf_fini(&bytes);
}

Test(raft_conf, bad_bytes_are_errors)
{
    struct buf bytes = BUF_INIT;
    struct raft_conf_change c;

    raft_conf_encode(&bytes, &(struct raft_conf_change){.op = RAFT_CONF_ADD, .id = 3, .name = SLICE_LIT("n")});
    for (size_t len = 0; len < bytes.len; len++)
        cr_assert_neq(raft_conf_decode(slice_of(bytes.data, len), &c), 0);
    buf_add_byte(&bytes, 0);
    cr_assert_eq(raft_conf_decode(buf_slice(&bytes), &c), E_TRAILING);
    buf_reset(&bytes);
    raft_conf_encode(&bytes, &(struct raft_conf_change){.op = RAFT_CONF_UPDATE + 1, .id = 3});
    cr_assert_eq(raft_conf_decode(buf_slice(&bytes), &c), E_MALFORMED);
    buf_reset(&bytes);
    raft_conf_encode(&bytes, &(struct raft_conf_change){.op = RAFT_CONF_ADD, .id = RAFT_NONE});
    cr_assert_eq(raft_conf_decode(buf_slice(&bytes), &c), E_MALFORMED);
    buf_fini(&bytes);
}

Test(raft_conf, a_change_counts_from_when_it_is_in_the_log)
{
    struct box *b = box_leader(1, 0, NULL);

    box_propose_conf(b, 5, RAFT_CONF_ADD, 2);
    cr_assert_str_eq(members(b), "1 2 ");
    cr_assert_eq(b->commit, 2); /* the change itself: by those who were members before it */
    box_propose(b, 6, "x");
    cr_assert_eq(b->commit, 2); /* now it takes both */
    box_match(b, 2, 2);
    cr_assert_eq(b->commit, 2);
    box_match(b, 2, 3);
    cr_assert_eq(b->commit, 3);
    box_free(b);
}

Test(raft_conf, one_change_at_a_time)
{
    struct box *b = box_leader(3, 0, NULL);

    box_match(b, 2, 1);
    box_propose_conf(b, 5, RAFT_CONF_ADD_LEARNER, 4);
    box_propose_conf(b, 6, RAFT_CONF_ADD_LEARNER, 5);
    cr_assert_str_eq(b->refused, "6:E_UNHEALTHY ");
    box_propose_conf(b, 7, RAFT_CONF_UPDATE, 3); /* changes no quorum */
    cr_assert_str_eq(b->refused, "");
    box_match(b, 2, 2);
    box_propose_conf(b, 8, RAFT_CONF_ADD_LEARNER, 5);
    cr_assert_str_eq(b->refused, "");
    box_free(b);
}

/* Ongaro's correction of 2015: without this, two leaders' changes may have majorities that do not meet. */
Test(raft_conf, no_change_before_an_entry_of_the_leaders_term_is_committed)
{
    struct box *b = box_leader(3, 4, TERMS(1));

    box_propose_conf(b, 5, RAFT_CONF_ADD, 4);
    cr_assert_str_eq(b->refused, "5:E_UNHEALTHY ");
    box_match(b, 2, 2);
    box_propose_conf(b, 6, RAFT_CONF_ADD, 4);
    cr_assert_str_eq(b->refused, "");
    box_free(b);
}

Test(raft_conf, what_does_not_fit_is_refused)
{
    struct box *b = box_leader(1, 0, NULL);

    box_propose_conf(b, 1, RAFT_CONF_REMOVE, 1);
    cr_assert_str_eq(b->refused, "1:E_MEMBER_NOT_ENOUGH_STARTED ");
    box_propose_conf(b, 2, RAFT_CONF_REMOVE, 9);
    cr_assert_str_eq(b->refused, "2:E_MEMBER_NOT_FOUND ");
    box_propose_conf(b, 3, RAFT_CONF_ADD, 1);
    cr_assert_str_eq(b->refused, "3:E_MEMBER_EXIST ");
    box_propose_conf(b, 4, RAFT_CONF_PROMOTE, 1);
    cr_assert_str_eq(b->refused, "4:E_MEMBER_NOT_LEARNER ");
    box_step(b, (struct raft_event){
                    .type = RAFT_EV_PROPOSE, .tag = 5, .entry = entry_new(ENTRY_CONF, SLICE_LIT("garbage"))});
    box_turn(b);
    cr_assert_neq(b->refused[0], '\0');
    cr_assert_str_eq(members(b), "1 ");
    box_free(b);
}

Test(raft_conf, a_learner_gets_the_log_but_does_not_count)
{
    struct box *b = box_leader(1, 0, NULL);

    box_propose_conf(b, 1, RAFT_CONF_ADD_LEARNER, 2);
    cr_assert_str_eq(members(b), "1 2l ");
    cr_assert_eq(b->commit, 2); /* our own copy is a majority */
    box_propose_conf(b, 2, RAFT_CONF_PROMOTE, 2);
    cr_assert_str_eq(b->refused, "2:E_LEARNER_NOT_READY ");
    box_match(b, 2, 2);
    box_propose_conf(b, 3, RAFT_CONF_PROMOTE, 2);
    cr_assert_str_eq(members(b), "1 2 ");
    cr_assert_eq(b->commit, 3); /* its promotion: by the voter before it */
    box_propose(b, 4, "x");
    cr_assert_eq(b->commit, 3);
    box_match(b, 2, 4);
    cr_assert_eq(b->commit, 4);
    box_free(b);
}

Test(raft_conf, a_removed_leader_leads_without_counting_itself_and_leaves_when_it_is_committed)
{
    struct box *b = box_leader(5, 0, NULL);

    box_match(b, 2, 1);
    box_match(b, 3, 1);
    box_propose_conf(b, 1, RAFT_CONF_REMOVE, 1);
    cr_assert_str_eq(members(b), "2 3 4 5 ");
    box_match(b, 2, 2);
    cr_assert_eq(raft_commit(b->raft), 1); /* two of the five before it, one of the four after it */
    cr_assert_eq(raft_role(b->raft), RAFT_LEADER);
    box_match(b, 3, 2);
    cr_assert_eq(b->commit, 2);
    cr_assert_eq(raft_role(b->raft), RAFT_FOLLOWER);
    cr_assert(strstr(b->said, "commit 2"));
    cr_assert(strstr(b->said, "TIMEOUT_NOW 1->2 term 1\n"));
    box_tick(b, 1000);
    cr_assert_str_eq(b->said, ""); /* it is out */
    box_free(b);
}

/* Its log may be what the others need to commit the removal (thesis 4.2.2). */
Test(raft_conf, a_leader_that_lost_its_role_before_its_removal_was_committed_campaigns_again)
{
    struct box *b = box_leader(2, 0, NULL);

    box_match(b, 2, 1);
    box_propose_conf(b, 1, RAFT_CONF_REMOVE, 1);
    box_tick(b, 200);
    cr_assert_eq(raft_role(b->raft), RAFT_FOLLOWER);
    box_tick(b, 200);
    cr_assert_str_eq(b->said, "PREVOTE 1->2 term 2 last 2/1\n");
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_PREVOTE_SAID, .from = 2, .term = 2});
    cr_assert_eq(raft_role(b->raft), RAFT_CANDIDATE); /* its own vote does not count, 2's does */
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_VOTE_SAID, .from = 2, .term = 2});
    cr_assert_eq(raft_role(b->raft), RAFT_LEADER);
    box_match(b, 2, 3);
    cr_assert_eq(b->commit, 3);
    cr_assert_eq(raft_role(b->raft), RAFT_FOLLOWER);
    box_free(b);
}

Test(raft_conf, a_change_that_is_cut_off_is_taken_back)
{
    struct box *b = box_new(1, 3, 2, NULL);
    struct entry *e = box_conf_entry(RAFT_CONF_ADD, 4);

    e->index = 1;
    e->term = 2;
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_APPEND, .from = 2, .term = 2, .entries = &e, .entry_count = 1});
    cr_assert_str_eq(members(b), "1 2 3 4 ");
    box_recv_append(b, 3, 3, 0, 0, TERMS(3), 0);
    cr_assert_str_eq(members(b), "1 2 3 ");
    entry_unref(e);
    box_free(b);
}

Test(raft_conf, a_change_found_on_disk_can_be_taken_back_too)
{
    struct box *b = box_new(1, 3, 2, TERMS(2));
    struct raft_member now[] = {{.id = 1}, {.id = 2}, {.id = 3}, {.id = 4}},
                       before[] = {{.id = 1}, {.id = 2}, {.id = 3}};

    raft_free(b->raft);
    b->raft = raft_new(&b->conf,
                       &(struct raft_start){.term = 2,
                                            .first_index = 1,
                                            .last_index = 1,
                                            .last_term = 2,
                                            .members = now,
                                            .member_count = 4,
                                            .conf_index = 1,
                                            .prev_members = before,
                                            .prev_member_count = 3},
                       b->now_ms);
    cr_assert_str_eq(members(b), "1 2 3 4 ");
    box_recv_append(b, 3, 3, 0, 0, TERMS(3), 0);
    cr_assert_str_eq(members(b), "1 2 3 ");
    box_free(b);
}

Test(raft_conf, sixteen_members_are_the_most)
{
    struct raft_member m[RAFT_MEMBERS_MAX];
    size_t count = 0;

    for (uint64_t id = 1; id <= 20; id++)
        count = raft_conf_apply(m, count, &(struct raft_conf_change){.op = RAFT_CONF_ADD, .id = id});
    cr_assert_eq(count, 16);
    count = raft_conf_apply(m, count, &(struct raft_conf_change){.op = RAFT_CONF_REMOVE, .id = 1});
    cr_assert_eq(count, 15);
    cr_assert_eq(m[0].id, 2);
    cr_assert_eq(raft_conf_apply(m, count, &(struct raft_conf_change){.op = RAFT_CONF_REMOVE, .id = 1}), 15);
}
