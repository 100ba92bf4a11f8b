/* The hash over what was applied: the same entries give the same one, whatever the batches, restarts and snapshots; any other
 * entry gives another. */
#include "tests/stored/fake.h"

#include "stored/chain.h"
#include "stored/dump.h"

static uint64_t hash_of(struct world *w)
{
    struct buf points = BUF_INIT;
    uint64_t hash = mvcc_chain(w->s.mvcc, 0, &points);

    buf_fini(&points);
    return hash;
}

static void some_entries(struct world *w)
{
    struct api_delete del = {.key = SLICE_LIT("a")};
    struct buf body = BUF_INIT;

    world_put(w, "a", "1");
    world_put(w, "b", "2");
    world_apply_ints(w, COMMAND_LEASE_GRANT, 10, 7, 0);
    world_put_lease(w, "c", "3", 7);
    api_encode_delete(&body, &del);
    world_apply(w, COMMAND_DELETE_RANGE, buf_slice(&body));
    world_apply_ints(w, COMMAND_COMPACT, 3, 0, 0);
    world_apply_ints(w, COMMAND_LEASE_REVOKE, 7, 0, 0);
    buf_fini(&body);
}

Test(chain, the_same_entries_give_the_same_hash_over_restarts_too)
{
    struct world *a = world_new(), *b = world_new();

    cr_assert_eq(hash_of(a), CHAIN_FIRST);
    some_entries(a);
    some_entries(b);
    cr_assert_eq(hash_of(a), hash_of(b));
    cr_assert_neq(hash_of(a), CHAIN_FIRST);
    world_restart(a);
    cr_assert_eq(hash_of(a), hash_of(b));
    world_put(a, "d", "4");
    world_put(b, "d", "4");
    cr_assert_eq(hash_of(a), hash_of(b));
    world_free(a);
    world_free(b);
}

Test(chain, another_value_key_lease_or_target_gives_another_hash)
{
    struct world *a = world_new(), *b = world_new();
    uint64_t before = hash_of(a);

    world_put(a, "a", "1");
    world_put(b, "a", "2");
    cr_assert_neq(hash_of(a), before);
    cr_assert_neq(hash_of(a), hash_of(b));
    world_free(a);
    world_free(b);

    a = world_new(), b = world_new();
    world_apply_ints(a, COMMAND_LEASE_GRANT, 10, 7, 0);
    world_apply_ints(b, COMMAND_LEASE_GRANT, 10, 8, 0);
    cr_assert_neq(hash_of(a), hash_of(b));
    world_free(a);
    world_free(b);

    a = world_new(), b = world_new();
    for (int i = 0; i < 2; i++)
        world_put(a, "a", "1"), world_put(b, "a", "1");
    cr_assert_eq(hash_of(a), hash_of(b));
    world_apply_ints(a, COMMAND_COMPACT, 2, 0, 0);
    world_apply_ints(b, COMMAND_COMPACT, 3, 0, 0);
    cr_assert_neq(hash_of(a), hash_of(b));
    world_free(a);
    world_free(b);
}

Test(chain, a_difference_lasts_and_so_does_where_it_was)
{
    struct chain a = {0}, b = {0};

    chain_start(&a, 0, CHAIN_FIRST);
    chain_start(&b, 0, CHAIN_FIRST);
    for (uint64_t i = 1; i <= 1000; i++) {
        chain_add(&a, SLICE_LIT("same"));
        chain_add(&b, i == 500 ? SLICE_LIT("samf") : SLICE_LIT("same"));
        chain_link(&a, i);
        chain_link(&b, i);
        cr_assert_eq(a.hash == b.hash, i < 500, "entry %llu", (unsigned long long)i);
    }
    /* Entries without changes count too, each in its place. */
    b = a;
    chain_link(&a, 1001);
    chain_link(&b, 1002);
    cr_assert_neq(a.hash, b.hash);
}

Test(chain, points_are_told_once_and_all_again_to_a_new_raftd)
{
    struct world *w = world_new();
    struct frame f;
    size_t bytes = 0;

    for (int i = 0; i < 300; i++)
        world_put(w, "a", "1");
    while (fake_take_type(w->raft, FR_APPLIED, &f)) {
        cr_assert_neq(f.applied.hash, 0);
        bytes += f.applied.points.len;
    }
    cr_assert_eq(bytes, w->index / CHAIN_EVERY * 8);
    cr_assert_geq(bytes, 32);
    fake_down(w->raft);
    fake_up(w->raft, 0x99);
    cr_assert(fake_take_type(w->raft, FR_APPLIED, &f));
    cr_assert_eq(f.applied.points.len, bytes);
    cr_assert_eq(f.applied.hash, hash_of(w));
    world_free(w);
}

Test(chain, a_store_of_which_nobody_knows_the_hash_says_so)
{
    struct chain c = {0};
    struct buf points = BUF_INIT;

    chain_start(&c, 100, 0);
    for (uint64_t i = 101; i < 300; i++)
        chain_link(&c, i);
    chain_points(&c, 0, &points);
    cr_assert_eq(c.hash, 0);
    cr_assert_eq(points.len, 0);
}

Test(chain, a_snapshot_brings_the_hash_of_its_sender)
{
    struct world *w = world_new();
    struct dump *d;
    struct buf bytes = BUF_INIT;
    uint64_t index;
    bool more = true, there = false;
    const uint8_t key[2] = {'m', 'h'};

    some_entries(w);
    cr_assert_eq(dump_open(w->s.mvcc, &d, &index), 0);
    while (more)
        cr_assert_eq(dump_part(d, 1 << 20, &bytes, &more), 0);
    for (size_t at = 0; at + 8 <= bytes.len && !there;) {
        uint32_t head[2];
        memcpy(head, bytes.data + at, 8);
        size_t key_len = __builtin_bswap32(head[0]), value_len = __builtin_bswap32(head[1]);
        if (key_len == 2 && memcmp(bytes.data + at + 8, key, 2) == 0) {
            uint64_t value;
            memcpy(&value, bytes.data + at + 10, 8);
            cr_assert_eq(__builtin_bswap64(value), hash_of(w));
            there = true;
        }
        at += 8 + key_len + value_len;
    }
    cr_assert(there);
    dump_close(d);
    buf_fini(&bytes);
    world_free(w);
}

Test(chain, raftd_found_a_difference_and_the_leader_proposes_corrupt_once_in_a_while)
{
    struct world *w = world_new();
    struct frame f;
    struct command c;

    world_lead(w, FAKE_TERM, 0xbb);
    fake_drop_all(w->raft);
    cr_assert_eq(fake_in(w->raft, FRAME(differs, DIFFERS, .member = 0xcc, .index = 1)), 0);
    cr_assert_not(fake_take_type(w->raft, FR_PROPOSE, &f), "another member leads");
    world_lead(w, FAKE_TERM + 1, FAKE_MEMBER);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(fake_in(w->raft, FRAME(differs, DIFFERS, .member = 0xcc, .index = 1)), 0);
    cr_assert(fake_take_type(w->raft, FR_PROPOSE, &f));
    cr_assert_eq(command_decode(f.propose.command, &c), 0);
    cr_assert_eq(c.kind, COMMAND_ALARM);
    world_apply(w, COMMAND_ALARM, c.body);
    cr_assert(alarm_active(&w->s, ALARM_CORRUPT));
    cr_assert_eq(fake_in(w->raft, FRAME(differs, DIFFERS, .member = 0xcc, .index = 1)), 0);
    cr_assert_not(fake_take_type(w->raft, FR_PROPOSE, &f), "it is raised, and was proposed once");
    world_free(w);
}
