/* test_status - what the daemon says of itself, with raftd's facts and without. */
#include "tests/stored/fake.h"

static struct slice ask(struct world *w, struct frame *f, enum status_what what, bool raft_known, const char *facts)
{
    struct frame status = {.type = FR_STATUS,
                           .status = {.req = ++w->req, .what = what, .slot = raft_known ? 1 : 0, .facts = slice_str(facts)}};

    if (raft_known) {
        status.status.raft_known = 1;
        status.status.term = 9;
        status.status.leader = FAKE_MEMBER;
        status.status.commit = 42;
    }
    cr_assert_eq(fake_in(raft_known ? w->raft : w->gate, &status), 0);
    cr_assert_eq(world_result(w, w->req, f), 0);
    return f->result.body;
}

static bool has(struct slice text, const char *what)
{
    return memmem(text.data, text.len, what, strlen(what)) != NULL;
}

Test(status, the_api_answer_has_every_field)
{
    struct world *w = world_new();
    struct frame f;
    struct slice body;

    world_put(w, "a", "1");
    body = ask(w, &f, STATUS_API, true, "");
    cr_assert_eq(world_header_rev(body), 2);
    cr_assert(slice_eq(world_bytes(body, 2, 0), slice_str(TRINE_API_VERSION)));
    cr_assert_gt(world_int(body, 3, 0, 0), 0);
    cr_assert_eq(world_int(body, 4, 0, 0), FAKE_MEMBER);
    cr_assert_eq(world_int(body, 5, 0, 0), 42);
    cr_assert_eq(world_int(body, 6, 0, 0), 9);
    cr_assert_eq(world_int(body, 7, 0, 0), 1);
    cr_assert_eq(world_bytes(body, 8, 0).len, 0);
    cr_assert(slice_eq(world_bytes(body, 11, 0), slice_str(TRINE_CLUSTER_VERSION)));
    cr_assert_eq(world_int(body, 12, 0, 0), 2147483648);
    cr_assert(has(body, "\x6a"), "downgradeInfo is set, and empty");
    world_free(w);
}

Test(status, without_raftd_there_is_no_leader_and_it_says_so)
{
    struct world *w = world_new();
    struct frame f;
    struct slice body;

    world_apply_ints(w, COMMAND_ALARM, 1, 123, ALARM_NOSPACE);
    body = ask(w, &f, STATUS_API, false, "");
    cr_assert_eq(world_int(body, 4, 0, 0), 0);
    cr_assert(slice_eq(world_bytes(body, 8, 0), SLICE_LIT("etcdserver: no leader")));
    cr_assert(slice_eq(world_bytes(body, 8, 1), SLICE_LIT("memberID:123 alarm:NOSPACE ")));
    body = ask(w, &f, STATUS_HEALTH, false, "");
    cr_assert(slice_eq(body, SLICE_LIT("ALARM NOSPACE\nRAFT NO LEADER\n")));
    world_free(w);
}

Test(status, metrics_follow_raftds_facts_and_repeat_none_of_them)
{
    struct world *w = world_new();
    struct frame f;
    struct slice text;

    world_put(w, "a", "1");
    text = ask(w, &f, STATUS_METRICS, true, "# TYPE etcd_server_proposals_applied_total gauge\nx 1\n");
    cr_assert(has(text, "etcd_mvcc_db_total_size_in_bytes "));
    cr_assert(has(text, "etcd_disk_backend_commit_duration_seconds_bucket{le=\"0.001\"}"));
    cr_assert(has(text, "etcd_mvcc_put_total 1\n"));
    cr_assert(has(text, "etcd_debugging_auth_revision 1\n"));
    cr_assert(has(text, "etcd_debugging_auth_revision 1\n"));
    cr_assert_not(has(text, "\netcd_server_proposals_applied_total "));
    world_free(w);
}

Test(status, an_unknown_question_is_an_error_and_a_wrong_slot_closes_the_link)
{
    struct world *w = world_new();
    struct frame f;

    cr_assert_eq(fake_in(w->gate, FRAME(status, STATUS, .req = ++w->req, .what = 77)), 0);
    cr_assert_eq(world_result(w, w->req, &f), E_INVALID);
    cr_assert_eq(fake_in(w->raft, FRAME(status, STATUS, .req = 5, .slot = 99)), E_MALFORMED);
    cr_assert_eq(fake_in(w->raft, FRAME(serve, SERVE, .req = 5, .slot = 99)), E_MALFORMED);
    world_free(w);
}
