/* Changes of membership: etcd's checks one by one, one change at a time, forwarded, answered once. No core, no links: a table,
 * and a log of what was asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "common/err.h"
#include "common/mem.h"
#include "raftd/change.h"
#include "raftd/entry.h"

struct fixture {
    struct change *change;
    struct change_conf conf;
    struct members members;
    struct change_state state;
    char said[1024];            /* "req:err " per answer */
    uint64_t last_id;           /* of the last answer */
    uint64_t active[8];         /* since when; by id */
    uint64_t log_last;
    int refuse;                 /* the core's answer to the next proposal, by change_refused */
    struct entry *proposed;     /* the last one */
    uint64_t forwarded_to, forwarded_tag, forwards;
    bool no_way;
    uint64_t transferred;
};

static uint64_t fake_propose(void *arg, uint64_t tag, struct entry *e)
{
    struct fixture *f = arg;

    if (f->refuse) {
        change_refused(f->change, tag, f->refuse);
        entry_unref(e);
        return 0;
    }
    entry_unref(f->proposed);
    f->proposed = e;
    return ++f->log_last;
}

static void fake_transfer(void *arg, uint64_t member)
{
    ((struct fixture *)arg)->transferred = member;
}

static bool fake_forward(void *arg, uint64_t leader, uint64_t tag, const struct change_ask *ask)
{
    struct fixture *f = arg;

    UNUSED(ask);
    if (f->no_way)
        return false;
    f->forwarded_to = leader;
    f->forwarded_tag = tag;
    f->forwards++;
    return true;
}

static void fake_answer(void *arg, const struct change_ask *ask, int err, uint64_t id, uint64_t index)
{
    struct fixture *f = arg;

    UNUSED(index);
    f->last_id = id;
    sprintf(f->said + strlen(f->said), "%d:%s ", (int)ask->req, err_name(err));
}

static uint64_t fake_active(void *arg, uint64_t member)
{
    return ((struct fixture *)arg)->active[member];
}

static const struct change_ops ops = {.propose = fake_propose,
                                      .transfer = fake_transfer,
                                      .forward = fake_forward,
                                      .answer = fake_answer,
                                      .active_since = fake_active};

static void apply(struct fixture *f, enum raft_conf_op op, uint64_t id, const char *name, const char *urls)
{
    cr_assert_eq(members_apply(&f->members, &(struct raft_conf_change){.op = op,
                                                                       .id = id,
                                                                       .name = slice_str(name),
                                                                       .peer_urls = slice_str(urls)}),
                 0);
}

/* Members 1..count, all started and healthy; we are 1 and lead. */
static struct fixture *fixture_new(size_t count)
{
    struct fixture *f = xcalloc(1, sizeof(*f));

    f->conf = (struct change_conf){.token = "t", .max_learners = 1, .strict = true, .wait_ms = 7000};
    for (size_t i = 1; i <= count; i++) {
        char url[32];

        sprintf(url, "http://n%zu:2380", i);
        apply(f, RAFT_CONF_ADD, i, "started", url);
        f->active[i] = 1;
    }
    f->change = change_new(&f->conf, &ops, f);
    f->state = (struct change_state){
        .now_ms = 100000, .wall_s = 1700000000, .self = 1, .leader = 1, .leads = true, .term = 5, .members = &f->members};
    return f;
}

static void fixture_free(struct fixture *f)
{
    change_free(f->change);
    members_fini(&f->members);
    entry_unref(f->proposed);
    free(f);
}

static void add(struct fixture *f, uint64_t req, uint64_t op, uint64_t id, const char *urls)
{
    change_add(f->change,
               &(struct change_ask){.from = CHANGE_GATEWAY,
                                    .req = req,
                                    .op = op,
                                    .id = id,
                                    .fields = CHANGE_PEER_URLS,
                                    .peer_urls = slice_str(urls)},
               f->state.now_ms);
    change_run(f->change, &f->state);
}

/* The last proposal becomes a fact. */
static void commit(struct fixture *f)
{
    struct raft_conf_change c;

    cr_assert_eq(raft_conf_decode(entry_data(f->proposed), &c), 0);
    f->state.commit = f->log_last;
    change_committed(f->change, f->log_last, f->state.term, members_apply(&f->members, &c));
    change_run(f->change, &f->state);
}

static void expect(size_t count, void (*prepare)(struct fixture *f), uint64_t op, uint64_t id, const char *urls,
                   const char *said)
{
    struct fixture *f = fixture_new(count);

    if (prepare)
        prepare(f);
    add(f, 1, op, id, urls);
    cr_assert_str_eq(f->said, said, "said %s, not %s", f->said, said);
    fixture_free(f);
}

#define URL "http://new:2380"

/* --- checks ---------------------------------------------------------------------------------------- */

Test(change, urls_take_etcds_form)
{
    struct buf out = BUF_INIT;

    cr_assert_eq(change_urls(SLICE_LIT("http://b:2, https://a:1 ,http://[::1]:3"), &out), 0);
    cr_assert(slice_eq(buf_slice(&out), SLICE_LIT("http://[::1]:3,http://b:2,https://a:1")));
    buf_fini(&out);
}

Test(change, urls_that_are_none_are_refused)
{
    static const char *const bad[] = {"",         ",",        "a",           "http://a",       "http://a:1/",   "http://a:1,",
                                      "ftp://a:1", "unix://a", "http://:x",   "http://a:99999", "http://a:1?b=1", "//a:1",
                                      "http://a:1,,http://b:1", "http://[::1]"};

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        expect(1, NULL, RAFT_CONF_ADD, 0, bad[i], "1:E_MEMBER_BAD_URLS ");
}

static void old_member_is_removed(struct fixture *f)
{
    apply(f, RAFT_CONF_REMOVE, 3, "", "");
}

Test(change, an_id_that_was_removed_is_not_found_for_ever)
{
    expect(3, old_member_is_removed, RAFT_CONF_REMOVE, 3, "", "1:E_MEMBER_NOT_FOUND ");
    expect(3, old_member_is_removed, RAFT_CONF_UPDATE, 3, URL, "1:E_MEMBER_NOT_FOUND ");
    expect(3, old_member_is_removed, RAFT_CONF_PROMOTE, 3, "", "1:E_MEMBER_NOT_FOUND ");
    expect(3, NULL, RAFT_CONF_REMOVE, 77, "", "1:E_MEMBER_NOT_FOUND ");
    expect(3, NULL, RAFT_CONF_UPDATE, 77, URL, "1:E_MEMBER_NOT_FOUND ");
    expect(3, NULL, RAFT_CONF_PROMOTE, 77, "", "1:E_MEMBER_NOT_FOUND ");
}

Test(change, removed_ids_survive_the_disk_and_cannot_be_added_again)
{
    struct fixture *f = fixture_new(3);
    struct buf bytes = BUF_INIT;
    struct members again = {0};

    old_member_is_removed(f);
    members_encode(&f->members, &bytes);
    cr_assert_eq(members_decode(buf_slice(&bytes), &again), 0);
    cr_assert(members_was_removed(&again, 3));
    cr_assert_not(members_was_removed(&again, 2));
    cr_assert_eq(members_apply(&again, &(struct raft_conf_change){.op = RAFT_CONF_ADD, .id = 3}), E_MEMBER_NOT_FOUND);
    cr_assert_eq(again.count, 2);
    members_fini(&again);
    buf_fini(&bytes);
    fixture_free(f);
}

Test(change, a_url_belongs_to_one_member)
{
    expect(3, NULL, RAFT_CONF_ADD, 0, "http://x:1,http://n2:2380", "1:E_PEER_URL_EXIST ");
    expect(3, NULL, RAFT_CONF_ADD_LEARNER, 0, "http://n3:2380", "1:E_PEER_URL_EXIST ");
    expect(3, NULL, RAFT_CONF_UPDATE, 1, "http://n2:2380", "1:E_PEER_URL_EXIST ");
    expect(3, NULL, RAFT_CONF_UPDATE, 2, "http://n2:2380", ""); /* its own is fine */
}

static void a_learner(struct fixture *f)
{
    apply(f, RAFT_CONF_ADD_LEARNER, 7, "", "http://n7:2380");
}

Test(change, learners_are_few_and_only_learners_are_promoted)
{
    expect(3, a_learner, RAFT_CONF_ADD_LEARNER, 0, URL, "1:E_TOO_MANY_LEARNERS ");
    expect(3, a_learner, RAFT_CONF_ADD, 0, URL, "");
    expect(3, a_learner, RAFT_CONF_PROMOTE, 7, "", "");
    expect(3, a_learner, RAFT_CONF_PROMOTE, 2, "", "1:E_MEMBER_NOT_LEARNER ");
}

static void an_unstarted_voter(struct fixture *f)
{
    apply(f, RAFT_CONF_ADD, 7, "", "http://n7:2380");
}

static void not_strict(struct fixture *f)
{
    change_free(f->change);
    f->conf.strict = false;
    f->change = change_new(&f->conf, &ops, f);
}

static void unstarted_and_not_strict(struct fixture *f)
{
    an_unstarted_voter(f);
    not_strict(f);
}

Test(change, a_voter_needs_a_quorum_of_started_ones)
{
    expect(1, NULL, RAFT_CONF_ADD, 0, URL, ""); /* a lone voter may get a second */
    expect(1, an_unstarted_voter, RAFT_CONF_ADD, 0, URL, "1:E_MEMBER_NOT_ENOUGH_STARTED ");
    expect(1, unstarted_and_not_strict, RAFT_CONF_ADD, 0, URL, "");
    expect(2, an_unstarted_voter, RAFT_CONF_ADD, 0, URL, "1:E_MEMBER_NOT_ENOUGH_STARTED ");
    expect(1, an_unstarted_voter, RAFT_CONF_ADD_LEARNER, 0, URL, "1:E_UNHEALTHY ");
    expect(1, NULL, RAFT_CONF_REMOVE, 1, "", "1:E_MEMBER_NOT_ENOUGH_STARTED ");
    expect(2, an_unstarted_voter, RAFT_CONF_REMOVE, 1, "", "1:E_MEMBER_NOT_ENOUGH_STARTED ");
    expect(2, an_unstarted_voter, RAFT_CONF_REMOVE, 7, "", "");
    expect(3, a_learner, RAFT_CONF_REMOVE, 7, "", "");
}

static void one_is_down(struct fixture *f)
{
    f->active[3] = 0;
}

static void one_is_new(struct fixture *f)
{
    f->active[3] = f->state.now_ms - 4999;
}

static void one_is_just_old_enough(struct fixture *f)
{
    f->active[3] = f->state.now_ms - 5000;
}

static void one_is_down_and_not_strict(struct fixture *f)
{
    one_is_down(f);
    not_strict(f);
}

Test(change, an_unhealthy_cluster_is_not_changed)
{
    expect(3, one_is_down, RAFT_CONF_ADD, 0, URL, "1:E_UNHEALTHY ");
    expect(3, one_is_new, RAFT_CONF_ADD, 0, URL, "1:E_UNHEALTHY ");
    expect(3, one_is_just_old_enough, RAFT_CONF_ADD, 0, URL, "");
    expect(3, one_is_down_and_not_strict, RAFT_CONF_ADD, 0, URL, "");
    expect(3, one_is_down, RAFT_CONF_REMOVE, 2, "", "1:E_UNHEALTHY ");
    expect(3, one_is_down, RAFT_CONF_REMOVE, 1, "", "1:E_UNHEALTHY ");
    expect(3, one_is_down, RAFT_CONF_REMOVE, 3, "", ""); /* who is down may go */
    expect(3, one_is_down, RAFT_CONF_UPDATE, 3, URL, "");
}

Test(change, sixteen_members_are_the_most)
{
    struct fixture *f = fixture_new(0);
    char url[32];

    not_strict(f);
    for (uint64_t i = 1; i <= RAFT_MEMBERS_MAX; i++) {
        sprintf(url, "http://n%d:1", (int)i);
        apply(f, RAFT_CONF_ADD, i, "n", url);
    }
    add(f, 1, RAFT_CONF_ADD, 0, URL);
    cr_assert_str_eq(f->said, "1:E_TOO_BIG ");
    fixture_free(f);
}

/* --- the way of a request ---------------------------------------------------------------------------- */

Test(change, it_is_answered_when_it_is_committed_and_in_the_table)
{
    struct fixture *f = fixture_new(1);

    add(f, 1, RAFT_CONF_ADD_LEARNER, 0, URL);
    change_run(f->change, &f->state);
    cr_assert_str_eq(f->said, "");
    commit(f);
    cr_assert_str_eq(f->said, "1:OK ");
    cr_assert_eq(f->members.count, 2);
    cr_assert(members_find(&f->members, f->last_id)->is_learner);
    cr_assert_eq(change_deadline(f->change), UINT64_MAX);
    fixture_free(f);
}

Test(change, two_of_the_same_url_get_different_ids_and_the_second_is_refused)
{
    struct fixture *f = fixture_new(1);

    add(f, 1, RAFT_CONF_ADD_LEARNER, 0, URL);
    add(f, 2, RAFT_CONF_ADD_LEARNER, 0, URL);
    cr_assert_eq(f->log_last, 1); /* one at a time */
    commit(f);
    cr_assert_str_eq(f->said, "1:OK 2:E_PEER_URL_EXIST ");
    uint64_t first = f->members.list[1].id;
    add(f, 3, RAFT_CONF_REMOVE, first, "");
    commit(f);
    add(f, 4, RAFT_CONF_ADD_LEARNER, 0, URL); /* in the same second */
    commit(f);
    cr_assert_str_eq(f->said, "1:OK 2:E_PEER_URL_EXIST 3:OK 4:OK ");
    cr_assert_neq(f->last_id, first);
    fixture_free(f);
}

Test(change, an_update_leaves_what_it_does_not_set)
{
    struct fixture *f = fixture_new(2);

    add(f, 1, RAFT_CONF_UPDATE, 2, "http://z:1,http://y:1");
    commit(f);
    cr_assert_str_eq(members_find(&f->members, 2)->peer_urls, "http://y:1,http://z:1");
    cr_assert_str_eq(members_find(&f->members, 2)->name, "started");
    change_add(f->change,
               &(struct change_ask){.from = CHANGE_OWN,
                                    .req = 2,
                                    .op = RAFT_CONF_UPDATE,
                                    .id = 2,
                                    .fields = CHANGE_NAME | CHANGE_CLIENT_URLS,
                                    .name = SLICE_LIT("other"),
                                    .client_urls = SLICE_LIT("http://c:1")},
               f->state.now_ms);
    change_run(f->change, &f->state);
    commit(f);
    cr_assert_str_eq(f->said, "1:OK 2:OK ");
    cr_assert_str_eq(members_find(&f->members, 2)->peer_urls, "http://y:1,http://z:1");
    cr_assert_str_eq(members_find(&f->members, 2)->name, "other");
    cr_assert_str_eq(members_find(&f->members, 2)->client_urls, "http://c:1");
    fixture_free(f);
}

Test(change, what_the_core_cannot_take_now_waits_and_what_it_refuses_is_refused)
{
    struct fixture *f = fixture_new(3);

    a_learner(f);
    f->refuse = E_UNHEALTHY;
    add(f, 1, RAFT_CONF_PROMOTE, 7, "");
    cr_assert_str_eq(f->said, "");
    f->refuse = E_LEARNER_NOT_READY;
    change_run(f->change, &f->state);
    cr_assert_str_eq(f->said, "1:E_LEARNER_NOT_READY ");
    f->refuse = 0;
    add(f, 2, RAFT_CONF_PROMOTE, 7, "");
    commit(f);
    cr_assert_str_eq(f->said, "1:E_LEARNER_NOT_READY 2:OK ");
    fixture_free(f);
}

Test(change, without_a_leader_it_waits_until_its_time_is_over)
{
    struct fixture *f = fixture_new(3);

    f->state.leads = false;
    f->state.leader = RAFT_NONE;
    add(f, 1, RAFT_CONF_REMOVE, 3, "");
    cr_assert_eq(change_deadline(f->change), f->state.now_ms + 7000);
    f->state.now_ms += 6999;
    change_run(f->change, &f->state);
    cr_assert_str_eq(f->said, "");
    f->state.now_ms++;
    change_run(f->change, &f->state);
    cr_assert_str_eq(f->said, "1:E_TIMEOUT ");
    fixture_free(f);
}

Test(change, a_follower_forwards_and_answers_when_it_has_the_change_itself)
{
    struct fixture *f = fixture_new(3);

    f->state.leads = false;
    f->state.leader = 2;
    f->no_way = true;
    add(f, 1, RAFT_CONF_ADD, 0, URL);
    cr_assert_eq(f->forwards, 0);
    f->no_way = false;
    change_run(f->change, &f->state);
    change_run(f->change, &f->state);
    cr_assert_eq(f->forwarded_to, 2);
    cr_assert_eq(f->forwards, 1);
    change_said(f->change, f->forwarded_tag, 0, 99, 10);
    f->state.commit = 9;
    change_run(f->change, &f->state);
    cr_assert_str_eq(f->said, "");
    f->state.commit = 10;
    change_run(f->change, &f->state);
    cr_assert_str_eq(f->said, "1:OK ");
    cr_assert_eq(f->last_id, 99);
    fixture_free(f);
}

Test(change, a_followers_error_is_the_leaders)
{
    struct fixture *f = fixture_new(3);

    f->state.leads = false;
    f->state.leader = 2;
    add(f, 1, RAFT_CONF_ADD, 0, URL);
    change_said(f->change, f->forwarded_tag + 1, E_UNHEALTHY, 0, 0); /* somebody else's */
    change_said(f->change, f->forwarded_tag, E_PEER_URL_EXIST, 0, 0);
    change_run(f->change, &f->state);
    cr_assert_str_eq(f->said, "1:E_PEER_URL_EXIST ");
    add(f, 2, RAFT_CONF_REMOVE, 3, "");
    change_said(f->change, f->forwarded_tag, E_NO_LEADER, 0, 0); /* did nothing: asked again */
    f->state.leader = 3;
    change_run(f->change, &f->state);
    cr_assert_eq(f->forwarded_to, 3);
    fixture_free(f);
}

/* It may have been done: only what may be done twice is sent again. */
Test(change, a_forwarded_change_is_not_repeated_to_another_leader_but_an_update_is)
{
    struct fixture *f = fixture_new(3);

    f->state.leads = false;
    f->state.leader = 2;
    add(f, 1, RAFT_CONF_REMOVE, 1, "");
    add(f, 2, RAFT_CONF_UPDATE, 1, URL);
    cr_assert_eq(f->forwards, 2);
    f->state.leader = 3;
    change_run(f->change, &f->state);
    cr_assert_eq(f->forwards, 3);
    f->state.now_ms += 7000;
    change_run(f->change, &f->state);
    cr_assert_str_eq(f->said, "1:E_TIMEOUT 2:E_TIMEOUT ");
    fixture_free(f);
}

Test(change, a_peers_request_has_no_second_hop)
{
    struct fixture *f = fixture_new(3);

    f->state.leads = false;
    f->state.leader = 2;
    change_add(f->change, &(struct change_ask){.from = CHANGE_PEER, .asker = 3, .req = 1, .op = RAFT_CONF_REMOVE, .id = 3},
               f->state.now_ms);
    change_run(f->change, &f->state);
    cr_assert_str_eq(f->said, "1:E_NO_LEADER ");
    cr_assert_eq(f->forwards, 0);
    fixture_free(f);
}

Test(change, a_proposal_that_another_term_cut_off_is_made_again)
{
    struct fixture *f = fixture_new(3);

    add(f, 1, RAFT_CONF_REMOVE, 3, "");
    cr_assert_eq(f->log_last, 1);
    f->state.leads = false;
    f->state.leader = RAFT_NONE;
    f->state.term = 6;
    change_run(f->change, &f->state);
    change_committed(f->change, 1, 6, 0); /* another entry took its place */
    f->state.leads = true;
    f->state.leader = 1;
    f->state.commit = 2;
    f->log_last = 2;
    change_run(f->change, &f->state);
    cr_assert_eq(f->log_last, 3);
    commit(f);
    cr_assert_str_eq(f->said, "1:OK ");
    fixture_free(f);
}

Test(change, too_many_requests_are_refused)
{
    struct fixture *f = fixture_new(3);

    f->state.leader = RAFT_NONE;
    f->state.leads = false;
    for (int i = 0; i < CHANGE_ASKS_MAX; i++)
        add(f, 1, RAFT_CONF_REMOVE, 3, "");
    cr_assert_str_eq(f->said, "");
    add(f, 9, RAFT_CONF_REMOVE, 3, "");
    cr_assert_str_eq(f->said, "9:E_REQUEST_TOO_MANY_REQUESTS ");
    add(f, 8, 77, 3, "");
    cr_assert_str_eq(f->said, "9:E_REQUEST_TOO_MANY_REQUESTS 8:E_MALFORMED_REQUEST ");
    fixture_free(f);
}

/* --- moving the leadership ------------------------------------------------------------------------------ */

Test(change, leadership_is_moved_by_the_leader_to_a_voter)
{
    struct fixture *f = fixture_new(3);

    a_learner(f);
    add(f, 1, CHANGE_MOVE_LEADER, 2, "");
    cr_assert_eq(f->transferred, 2);
    cr_assert_str_eq(f->said, "");
    f->state.leads = false;
    f->state.leader = RAFT_NONE;
    change_run(f->change, &f->state);
    f->state.leader = 2;
    change_run(f->change, &f->state);
    cr_assert_str_eq(f->said, "1:OK ");
    add(f, 2, CHANGE_MOVE_LEADER, 3, "");
    cr_assert_str_eq(f->said, "1:OK 2:E_NOT_LEADER ");
    fixture_free(f);
}

Test(change, leadership_is_not_moved_to_strangers_and_learners_and_not_for_ever)
{
    struct fixture *f = fixture_new(3);

    a_learner(f);
    add(f, 1, CHANGE_MOVE_LEADER, 7, "");
    add(f, 2, CHANGE_MOVE_LEADER, 99, "");
    add(f, 3, CHANGE_MOVE_LEADER, 1, ""); /* we lead already */
    change_run(f->change, &f->state);
    cr_assert_str_eq(f->said, "1:E_BAD_LEADER_TRANSFEREE 2:E_BAD_LEADER_TRANSFEREE 3:OK ");
    cr_assert_eq(f->transferred, 0);
    add(f, 4, CHANGE_MOVE_LEADER, 2, "");
    f->state.now_ms += 7000;
    change_run(f->change, &f->state);
    cr_assert(strstr(f->said, "4:E_TIMEOUT_LEADER_TRANSFER "));
    fixture_free(f);
}
