/* test_alarm - NOSPACE: raised by proposal, refused everywhere, cleared by hand; kept over a restart. */
#include <unistd.h>

#include "tests/stored/fake.h"

static uint64_t list(struct world *w)
{
    return world_query_ints(w, COMMAND_ALARM, 0, 0, w->index);
}

static uint64_t raise_alarm(struct world *w, int64_t member, enum alarm_kind kind)
{
    return world_apply_ints(w, COMMAND_ALARM, 1, member, kind);
}

Test(alarm, nospace_refuses_what_grows_and_lets_the_rest_pass)
{
    struct world *w = world_new();
    struct api_delete del = {.key = SLICE_LIT("a")};
    struct buf body = BUF_INIT;
    struct frame f;

    cr_assert_eq(world_result(w, world_put(w, "a", "1"), &f), 0);
    cr_assert_eq(world_result(w, raise_alarm(w, 0xbb, ALARM_NOSPACE), &f), 0);
    cr_assert_eq(world_int(world_bytes(f.result.body, 2, 0), 1, 0, 0), 0xbb);
    cr_assert_eq(world_result(w, world_put(w, "a", "2"), &f), E_NO_SPACE);
    cr_assert_eq(world_result(w, world_apply_ints(w, COMMAND_LEASE_GRANT, 10, 7, 0), &f), E_NO_SPACE);
    api_encode_delete(&body, &del);
    cr_assert_eq(world_result(w, world_apply(w, COMMAND_DELETE_RANGE, buf_slice(&body)), &f), 0);
    cr_assert_eq(world_result(w, world_apply_ints(w, COMMAND_COMPACT, 3, 0, 0), &f), 0);
    buf_fini(&body);
    world_free(w);
}

Test(alarm, it_stays_over_a_restart_until_it_is_cleared_for_its_member)
{
    struct world *w = world_new();
    struct frame f;

    raise_alarm(w, 0xbb, ALARM_NOSPACE);
    raise_alarm(w, 0xbb, ALARM_NOSPACE); /* again: still one */
    world_restart(w);
    cr_assert_eq(world_result(w, list(w), &f), 0);
    cr_assert_eq(world_int(world_bytes(f.result.body, 2, 0), 2, 0, 0), ALARM_NOSPACE);
    cr_assert_eq(world_bytes(f.result.body, 2, 1).len, 0);

    cr_assert_eq(world_result(w, world_apply_ints(w, COMMAND_ALARM, 2, 0xcc, ALARM_NOSPACE), &f), 0);
    cr_assert_eq(world_bytes(f.result.body, 2, 0).len, 0, "nothing was active for that member");
    cr_assert_eq(world_result(w, world_put(w, "a", "2"), &f), E_NO_SPACE);
    cr_assert_eq(world_result(w, world_apply_ints(w, COMMAND_ALARM, 2, 0xbb, ALARM_NOSPACE), &f), 0);
    cr_assert_eq(world_result(w, world_put(w, "a", "2"), &f), 0);
    world_restart(w);
    cr_assert_not(alarm_active(&w->s, ALARM_NOSPACE));
    world_free(w);
}

Test(alarm, none_and_unknown_kinds_raise_nothing)
{
    struct world *w = world_new();
    struct frame f;

    cr_assert_eq(world_result(w, raise_alarm(w, 0xbb, ALARM_NONE), &f), 0);
    cr_assert_eq(world_result(w, raise_alarm(w, 0xbb, (enum alarm_kind)9), &f), E_INVALID);
    cr_assert_eq(world_result(w, list(w), &f), 0);
    cr_assert_eq(world_bytes(f.result.body, 2, 0).len, 0);
    world_free(w);
}

Test(alarm, a_store_over_its_quota_proposes_nospace_for_itself_once)
{
    struct world *w = world_new();
    char *value = xmalloc(200001);
    struct command c;
    struct frame f;

    memset(value, 'v', 200000);
    value[200000] = '\0';
    w->conf.quota_backend_bytes = 1000;
    for (int i = 0; i < 8; i++)
        world_put(w, "a", value);
    usleep(600000); /* db_disk_bytes looks at most twice a second, by the real clock */
    fake_advance(w->loop, 1000);
    cr_assert(fake_take_type(w->raft, FR_PROPOSE, &f));
    cr_assert_eq(command_decode(f.propose.command, &c), 0);
    cr_assert_eq(c.kind, COMMAND_ALARM);
    cr_assert_eq(world_int(c.body, 1, 0, 0), 1);
    cr_assert_eq(world_int(c.body, 2, 0, 0), FAKE_MEMBER);
    cr_assert_eq(world_int(c.body, 3, 0, 0), ALARM_NOSPACE);
    cr_assert_not(fake_take_type(w->raft, FR_PROPOSE, &f));

    raise_alarm(w, FAKE_MEMBER, ALARM_NOSPACE);
    fake_advance(w->loop, 20000);
    cr_assert_not(fake_take_type(w->raft, FR_PROPOSE, &f));
    free(value);
    world_free(w);
}

Test(alarm, corrupt_refuses_every_change_and_every_linearizable_range)
{
    struct world *w = world_new();
    struct api_range rq = {.key = SLICE_LIT("a")};
    struct buf body = BUF_INIT;
    struct frame f;
    uint64_t req;

    raise_alarm(w, 0xbb, ALARM_CORRUPT);
    cr_assert_eq(world_result(w, world_put(w, "a", "2"), &f), E_CORRUPT);
    cr_assert_eq(world_result(w, world_apply_ints(w, COMMAND_COMPACT, 1, 0, 0), &f), E_CORRUPT);
    api_encode_range(&body, &rq);
    req = world_query(w, COMMAND_RANGE, buf_slice(&body), w->index);
    fake_settle(w->loop);
    cr_assert_eq(world_result(w, req, &f), E_CORRUPT);
    cr_assert_eq(world_result(w, world_apply_ints(w, COMMAND_ALARM, 2, 0xbb, ALARM_CORRUPT), &f), 0);
    cr_assert_eq(world_result(w, world_put(w, "a", "2"), &f), 0);
    buf_fini(&body);
    world_free(w);
}

/* As stored itself proposes it when the disk is full. */
static void raise_by_disk(struct world *w)
{
    struct buf body = BUF_INIT;

    pb_add_uint(&body, 1, 1);
    pb_add_uint(&body, 2, FAKE_MEMBER);
    pb_add_uint(&body, 3, ALARM_NOSPACE);
    pb_add_uint(&body, 100, 1);
    world_apply(w, COMMAND_ALARM, buf_slice(&body));
    buf_fini(&body);
}

Test(alarm, nospace_for_the_disk_is_taken_back_when_there_is_room_also_after_a_restart)
{
    struct world *w = world_new();
    struct command c;
    struct frame f;

    raise_by_disk(w);
    cr_assert_eq(world_result(w, world_put(w, "a", "1"), &f), E_NO_SPACE);
    world_restart(w);
    cr_assert(alarm_active(&w->s, ALARM_NOSPACE));
    fake_advance(w->loop, 2000); /* the disk under the tests has room */
    cr_assert(fake_take_type(w->raft, FR_PROPOSE, &f));
    cr_assert_eq(command_decode(f.propose.command, &c), 0);
    cr_assert_eq(c.kind, COMMAND_ALARM);
    cr_assert_eq(world_int(c.body, 1, 0, 0), 2);
    cr_assert_eq(world_int(c.body, 2, 0, 0), FAKE_MEMBER);
    cr_assert_eq(world_int(c.body, 3, 0, 0), ALARM_NOSPACE);
    cr_assert_eq(world_result(w, world_apply(w, COMMAND_ALARM, c.body), &f), 0);
    cr_assert_eq(world_result(w, world_put(w, "a", "1"), &f), 0);
    world_free(w);
}

Test(alarm, nospace_that_was_raised_by_hand_stays)
{
    struct world *w = world_new();
    struct frame f;

    raise_alarm(w, FAKE_MEMBER, ALARM_NOSPACE);
    raise_by_disk(w); /* later, and not what it was raised for */
    fake_advance(w->loop, 20000);
    cr_assert_not(fake_take_type(w->raft, FR_PROPOSE, &f));
    cr_assert(alarm_active(&w->s, ALARM_NOSPACE));
    world_free(w);
}
