/* test_apply - each entry once, in order; batches, results, reads behind their index, leases and compactions. */
#include "tests/stored/fake.h"

static struct slice range_body(struct buf *body, const char *key)
{
    struct api_range rq = {.key = slice_str(key)};

    buf_reset(body);
    api_encode_range(body, &rq);
    return buf_slice(body);
}

Test(apply, a_put_is_answered_to_the_gateway_that_asked_and_then_raftd_hears_of_it)
{
    struct world *w = world_new();
    struct frame f;
    uint64_t req = world_put(w, "a", "1");

    cr_assert_eq(world_result(w, req, &f), 0);
    cr_assert_eq(world_header_rev(f.result.body), 2);
    cr_assert(fake_take_type(w->raft, FR_APPLIED, &f));
    cr_assert_eq(f.applied.applied, 1);
    cr_assert_gt(f.applied.room, 0);
    world_free(w);
}

Test(apply, a_duplicate_is_skipped_and_a_gap_closes_the_link)
{
    struct world *w = world_new();
    struct buf body = BUF_INIT, bytes = BUF_INIT;
    struct api_put put = {.key = SLICE_LIT("a")};

    world_put(w, "a", "1");
    api_encode_put(&body, &put);
    command_encode(&bytes, &(struct command){.kind = COMMAND_PUT, .body = buf_slice(&body)});

    cr_assert_eq(fake_in(w->raft, FRAME(apply, APPLY, .index = 1, .kind = APPLY_COMMAND, .command = buf_slice(&bytes))), 0);
    cr_assert_eq(mvcc_rev(w->s.mvcc), 2);
    cr_assert_eq(w->s.stats.duplicates, 1);

    cr_assert_eq(fake_in(w->raft, FRAME(apply, APPLY, .index = 3, .kind = APPLY_COMMAND, .command = buf_slice(&bytes))),
                 E_AGAIN);
    cr_assert_eq(w->s.stats.gaps, 1);
    cr_assert_eq(mvcc_applied(w->s.mvcc), 1);
    buf_fini(&body);
    buf_fini(&bytes);
    world_free(w);
}

Test(apply, entries_before_a_gap_in_one_message_are_kept_when_the_link_goes_down)
{
    struct world *w = world_new();

    w->raft->ops->frame(w->raft, FRAME(apply, APPLY, .index = 1, .kind = 0), w->raft->arg);
    cr_assert_eq(w->raft->ops->frame(w->raft, FRAME(apply, APPLY, .index = 9, .kind = 0), w->raft->arg), E_AGAIN);
    fake_down(w->raft);
    cr_assert_eq(mvcc_applied(w->s.mvcc), 1);
    cr_assert_eq(w->raft->hello.applied, 1, "the next HELLO says where to go on");
    world_free(w);
}

Test(apply, bytes_that_are_no_command_only_move_the_index)
{
    struct world *w = world_new();

    cr_assert_eq(fake_in(w->raft, FRAME(apply, APPLY, .index = 1, .kind = APPLY_COMMAND, .command = SLICE_LIT("junk"))), 0);
    cr_assert_eq(mvcc_applied(w->s.mvcc), 1);
    cr_assert_eq(mvcc_rev(w->s.mvcc), 1);
    cr_assert_eq(w->s.stats.malformed, 1);
    world_free(w);
}

Test(apply, a_put_without_a_key_is_refused_by_name)
{
    struct world *w = world_new();
    struct frame f;

    cr_assert_eq(world_result(w, world_put(w, "", "1"), &f), E_EMPTY_KEY);
    cr_assert_eq(world_result(w, world_put_lease(w, "a", "1", 99), &f), E_LEASE_NOT_FOUND);
    cr_assert_eq(mvcc_rev(w->s.mvcc), 1);
    world_free(w);
}

Test(apply, another_nodes_command_is_applied_and_not_answered)
{
    struct world *w = world_new();
    struct buf body = BUF_INIT, bytes = BUF_INIT;
    struct api_put put = {.key = SLICE_LIT("a")};
    struct frame f;

    api_encode_put(&body, &put);
    command_encode(&bytes, &(struct command){.kind = COMMAND_PUT, .origin = 0xbb, .slot = 1, .instance = FAKE_INSTANCE,
                                             .req = 5, .body = buf_slice(&body)});
    fake_in(w->raft, FRAME(apply, APPLY, .index = 1, .kind = APPLY_COMMAND, .command = buf_slice(&bytes)));
    cr_assert_eq(mvcc_rev(w->s.mvcc), 2);
    cr_assert_not(fake_take_type(w->gate, FR_RESULT, &f));
    buf_fini(&body);
    buf_fini(&bytes);
    world_free(w);
}

Test(apply, a_read_waits_for_its_index_and_then_sees_it)
{
    struct world *w = world_new();
    struct buf body = BUF_INIT;
    struct frame f;
    uint64_t req = world_query(w, COMMAND_RANGE, range_body(&body, "a"), 1);

    fake_settle(w->loop);
    cr_assert_not(fake_take_type(w->gate, FR_RESULT, &f));
    world_put(w, "a", "1");
    fake_settle(w->loop);
    cr_assert_eq(world_result(w, req, &f), 0);
    cr_assert_eq(world_int(f.result.body, 4, 0, 0), 1, "count");
    buf_fini(&body);
    world_free(w);
}

Test(apply, a_query_of_a_gateway_that_left_is_not_answered_to_its_successor)
{
    struct world *w = world_new();
    struct buf body = BUF_INIT;
    struct frame f;

    world_query(w, COMMAND_RANGE, range_body(&body, "a"), 1);
    fake_down(w->gate);
    fake_up(w->gate, FAKE_INSTANCE + 1);
    world_put(w, "a", "1");
    fake_settle(w->loop);
    cr_assert_not(fake_take_type(w->gate, FR_RESULT, &f));
    buf_fini(&body);
    world_free(w);
}

Test(apply, a_large_range_comes_in_parts_that_are_asked_for)
{
    struct world *w = world_new();
    char *value = xmalloc(400001), key[16];
    struct api_range rq = {.key = SLICE_LIT("k"), .range_end = SLICE_LIT("l")};
    struct buf body = BUF_INIT, all = BUF_INIT;
    struct frame f;
    uint64_t req, total;

    memset(value, 'v', 400000);
    value[400000] = '\0';
    for (int i = 0; i < 5; i++) {
        snprintf(key, sizeof key, "k%d", i);
        world_put(w, key, value);
    }
    api_encode_range(&body, &rq);
    req = world_query(w, COMMAND_RANGE, buf_slice(&body), 0);
    fake_settle(w->loop);
    cr_assert_eq(world_result(w, req, &f), 0);
    total = f.result.total;
    cr_assert_gt(total, 2000000);
    cr_assert(f.result.more);
    buf_add_slice(&all, f.result.body);
    while (f.result.more) {
        fake_in(w->gate, FRAME(more, MORE, .req = req));
        fake_settle(w->loop);
        cr_assert_eq(world_result(w, req, &f), 0);
        buf_add_slice(&all, f.result.body);
    }
    cr_assert_eq(all.len, total);
    cr_assert_eq(world_int(buf_slice(&all), 4, 0, 0), 5, "count");
    cr_assert_null(w->s.gateways[1].opens);
    buf_fini(&all);
    buf_fini(&body);
    free(value);
    world_free(w);
}

Test(apply, a_forgotten_range_is_closed_even_while_a_worker_is_at_it)
{
    struct world *w = world_new();
    char *value = xmalloc(600001);
    struct api_range rq = {.key = SLICE_LIT("k"), .range_end = SLICE_LIT("l")};
    struct buf body = BUF_INIT;
    struct frame f;
    uint64_t req;

    memset(value, 'v', 600000);
    value[600000] = '\0';
    world_put(w, "k1", value);
    world_put(w, "k2", value);
    api_encode_range(&body, &rq);
    req = world_query(w, COMMAND_RANGE, buf_slice(&body), 0);
    fake_settle(w->loop);
    world_result(w, req, &f);
    fake_in(w->gate, FRAME(more, MORE, .req = req));
    fake_in(w->gate, FRAME(forget, FORGET, .req = req));
    fake_settle(w->loop);
    cr_assert_not(fake_take_type(w->gate, FR_RESULT, &f));
    cr_assert_null(w->s.gateways[1].opens);
    buf_fini(&body);
    free(value);
    world_free(w);
}

Test(apply, leases_are_granted_kept_alive_expired_and_survive_a_restart)
{
    struct world *w = world_new();
    struct frame f;

    cr_assert_eq(world_result(w, world_apply_ints(w, COMMAND_LEASE_GRANT, 10, 7, 0), &f), 0);
    cr_assert_eq(world_int(f.result.body, 2, 0, 0), 7);
    cr_assert_eq(world_int(f.result.body, 3, 0, 0), 10);
    cr_assert_eq(world_result(w, world_apply_ints(w, COMMAND_LEASE_GRANT, 10, 7, 0), &f), E_LEASE_EXIST);
    cr_assert_eq(world_result(w, world_put_lease(w, "a", "1", 7), &f), 0);
    cr_assert_eq(world_result(w, world_put_lease(w, "b", "1", 7), &f), 0);

    world_restart(w);
    cr_assert_eq(world_result(w, world_query_ints(w, COMMAND_LEASE_TIME_TO_LIVE, 7, 1, w->index), &f), 0);
    cr_assert_eq(world_int(f.result.body, 4, 0, 0), 10);
    cr_assert(slice_eq(world_bytes(f.result.body, 5, 1), SLICE_LIT("b")));
    cr_assert_eq(world_result(w, world_query_ints(w, COMMAND_LEASE_KEEP_ALIVE, 7, 0, w->index), &f), 0);
    cr_assert_eq(world_int(f.result.body, 3, 0, 0), 10);
    cr_assert_eq(world_result(w, world_query_ints(w, COMMAND_LEASE_TIME_TO_LIVE, 8, 0, w->index), &f), 0);
    cr_assert_eq(world_int(f.result.body, 3, 0, 0), -1);

    /* Due: one proposal; until it is applied the lease cannot be renewed. */
    fake_drop_all(w->raft);
    fake_advance(w->loop, 12000);
    cr_assert(fake_take_type(w->raft, FR_PROPOSE, &f));
    struct command c;
    cr_assert_eq(command_decode(f.propose.command, &c), 0);
    cr_assert_eq(c.kind, COMMAND_LEASE_EXPIRE);
    cr_assert_eq(c.origin, 0);
    struct buf expire = BUF_INIT;
    buf_add_slice(&expire, c.body);
    uint64_t renewal = world_query_ints(w, COMMAND_LEASE_KEEP_ALIVE, 7, 0, w->index);
    fake_settle(w->loop);
    cr_assert_eq(lease_exists(w->s.leases, 7), true);
    cr_assert_not(fake_take_type(w->gate, FR_RESULT, &f), "it is answered when the lease is gone");
    world_put(w, "other", "1");

    int64_t rev = mvcc_rev(w->s.mvcc);
    world_apply(w, COMMAND_LEASE_EXPIRE, buf_slice(&expire));
    cr_assert_eq(world_result(w, renewal, &f), 0);
    cr_assert_eq(world_int(f.result.body, 3, 0, -9), -9, "TTL 0 is not written");
    cr_assert_eq(mvcc_rev(w->s.mvcc), rev + 1);
    cr_assert_eq(w->s.stats.leases_expired, 1);
    cr_assert_not(lease_exists(w->s.leases, 7));
    world_apply(w, COMMAND_LEASE_EXPIRE, buf_slice(&expire));
    cr_assert_eq(mvcc_rev(w->s.mvcc), rev + 1, "a second revoke of the same finds nothing");
    world_restart(w);
    cr_assert_not(lease_exists(w->s.leases, 7));
    buf_fini(&expire);
    world_free(w);
}

Test(apply, a_hundred_thousand_leases_expire_in_a_handful_of_entries)
{
    enum { COUNT = 100000 };
    struct world *w = world_new();
    struct command c;
    struct frame f;
    unsigned entries = 0;

    for (int64_t id = 1; id <= COUNT; id++) {
        world_apply_ints(w, COMMAND_LEASE_GRANT, 10, id, 0);
        if (id % 1000 == 0) {
            world_put_lease(w, "some", "1", id); /* moves on from lease to lease */
            fake_drop_all(w->gate);
            fake_drop_all(w->raft);
        }
    }
    cr_assert_eq(leases_count(w->s.leases), COUNT);
    fake_drop_all(w->raft);
    fake_advance(w->loop, 12000);
    for (int turn = 0; turn < 100 && leases_count(w->s.leases) > 0; turn++) {
        while (fake_take_type(w->raft, FR_PROPOSE, &f)) {
            struct buf body = BUF_INIT;

            cr_assert_eq(command_decode(f.propose.command, &c), 0);
            cr_assert_eq(c.kind, COMMAND_LEASE_EXPIRE);
            cr_assert_lt(f.propose.command.len, 1000000);
            buf_add_slice(&body, c.body);
            world_apply(w, COMMAND_LEASE_EXPIRE, buf_slice(&body));
            buf_fini(&body);
            entries++;
        }
        fake_advance(w->loop, LEASE_EXPIRE_CHECK_MS);
    }
    cr_assert_eq(leases_count(w->s.leases), 0);
    cr_assert_eq(entries, COUNT / LEASE_EXPIRE_BATCH_MAX);
    cr_assert_eq(w->s.stats.leases_expired, COUNT);
    world_free(w);
}

Test(apply, an_expiry_of_another_term_does_not_take_the_lease)
{
    struct world *w = world_new();
    struct buf body = BUF_INIT;

    world_apply_ints(w, COMMAND_LEASE_GRANT, 10, 7, 0);
    pb_add_head(&body, 1, 2);
    pb_add_uint(&body, 4, FAKE_TERM - 1);
    pb_add_head(&body, 2, 2);
    pb_add_uint(&body, 1, 7);
    world_apply(w, COMMAND_LEASE_EXPIRE, buf_slice(&body));
    cr_assert(lease_exists(w->s.leases, 7));
    buf_fini(&body);
    world_free(w);
}

Test(apply, a_renewal_does_not_wait_for_ever_for_an_end_that_does_not_come)
{
    struct world *w = world_new();
    struct frame f;

    world_apply_ints(w, COMMAND_LEASE_GRANT, 10, 7, 0);
    fake_advance(w->loop, 12000);
    uint64_t renewal = world_query_ints(w, COMMAND_LEASE_KEEP_ALIVE, 7, 0, w->index);
    fake_settle(w->loop);
    cr_assert_not(TAILQ_EMPTY(&w->s.parked));
    for (int i = 0; i < 40; i++) { /* nothing is committed */
        fake_advance(w->loop, 500);
        fake_settle(w->loop);
    }
    cr_assert(TAILQ_EMPTY(&w->s.parked));
    cr_assert_eq(world_result(w, renewal, &f), E_TIMEOUT);
    /* Who has gone away meanwhile is not kept either. */
    world_query_ints(w, COMMAND_LEASE_KEEP_ALIVE, 7, 0, w->index);
    fake_settle(w->loop);
    fake_down(w->gate);
    fake_advance(w->loop, 500);
    fake_settle(w->loop);
    cr_assert(TAILQ_EMPTY(&w->s.parked));
    world_free(w);
}

Test(apply, a_follower_does_not_expire_or_renew)
{
    struct world *w = world_new();
    struct frame f;

    world_apply_ints(w, COMMAND_LEASE_GRANT, 10, 7, 0);
    world_lead(w, FAKE_TERM + 1, 0xbb);
    fake_drop_all(w->raft);
    fake_advance(w->loop, 60000);
    cr_assert_not(fake_take_type(w->raft, FR_PROPOSE, &f));
    cr_assert_eq(world_result(w, world_query_ints(w, COMMAND_LEASE_KEEP_ALIVE, 7, 0, w->index), &f), E_NOT_PRIMARY_LESSOR);
    world_free(w);
}

Test(apply, a_physical_compaction_is_answered_when_the_records_are_gone_and_a_barrier_waits_behind_it)
{
    struct world *w = world_new();
    struct frame f;
    uint64_t req, barrier;

    for (int i = 0; i < 10; i++)
        world_put(w, "a", "1");
    fake_drop_all(w->gate);
    req = world_apply_ints(w, COMMAND_COMPACT, 8, 1, 0);
    barrier = world_query(w, COMMAND_BARRIER, SLICE_EMPTY, w->index);
    cr_assert_not(fake_take_type(w->gate, FR_RESULT, &f));
    fake_advance(w->loop, 2000);
    cr_assert_eq(world_result(w, req, &f), 0);
    cr_assert_eq(mvcc_compacted_physically(w->s.mvcc), 8);
    cr_assert_eq(world_result(w, barrier, &f), 0);

    cr_assert_eq(world_result(w, world_apply_ints(w, COMMAND_COMPACT, 8, 0, 0), &f), E_COMPACTED);
    cr_assert_eq(world_result(w, world_apply_ints(w, COMMAND_COMPACT, 800, 0, 0), &f), E_FUTURE_REV);
    cr_assert_eq(world_result(w, world_query(w, COMMAND_BARRIER, SLICE_EMPTY, w->index), &f), 0);
    world_free(w);
}

Test(apply, what_was_applied_becomes_durable_within_the_sync_interval)
{
    struct world *w = world_new();
    struct frame f;
    uint64_t durable = 0;

    world_put(w, "a", "1");
    fake_drop_all(w->raft);
    fake_advance(w->loop, SYNC_MS + 2 * LEASE_EXPIRE_CHECK_MS);
    while (fake_take_type(w->raft, FR_APPLIED, &f))
        durable = f.applied.durable;
    cr_assert_eq(durable, 1);
    world_free(w);
}

Test(apply, hash_and_defragment_are_answered_by_a_worker)
{
    struct world *w = world_new();
    struct frame f;
    uint64_t hash, defrag, future;

    world_put(w, "a", "1");
    hash = world_query_ints(w, COMMAND_HASH_KV, 0, 0, 0);
    defrag = world_query(w, COMMAND_DEFRAGMENT, SLICE_EMPTY, 0);
    future = world_query_ints(w, COMMAND_HASH_KV, 50, 0, 0);
    fake_settle(w->loop);
    cr_assert_eq(world_result(w, hash, &f), 0);
    cr_assert_eq(world_int(f.result.body, 3, 0, 0), -1);
    cr_assert_eq(world_int(f.result.body, 4, 0, 0), 2);
    cr_assert_eq(world_result(w, defrag, &f), 0);
    cr_assert_eq(f.result.body.len, 0);
    cr_assert_eq(world_result(w, future, &f), E_FUTURE_REV);
    world_free(w);
}

Test(apply, another_clusters_raftd_is_refused)
{
    struct world *w = world_new();
    struct fr_hello hello = {.cluster_id = FAKE_CLUSTER, .member_id = FAKE_MEMBER + 1, .instance = 1};

    fake_down(w->raft);
    cr_assert_eq(w->raft->ops->up(w->raft, &hello, w->raft->arg), E_CLUSTER_ID_MISMATCH);
    hello.member_id = FAKE_MEMBER;
    w->raft->state = LINK_UP;
    cr_assert_eq(w->raft->ops->up(w->raft, &hello, w->raft->arg), 0);
    world_free(w);
}
