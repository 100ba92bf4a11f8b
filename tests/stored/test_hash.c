/* stored/hash.c: the checksum that members compare. */
#include "common/crc32c.h"
#include "stored/rev.h"
#include "tests/stored/mvcc_help.h"

static uint32_t hash_at(struct store *s, int64_t rev)
{
    uint32_t hash;
    int64_t hash_rev, compact_rev;
    cr_assert_eq(mvcc_hash(s->m, rev, &hash, &hash_rev, &compact_rev), 0);
    cr_assert_eq(hash_rev, rev == 0 ? mvcc_rev(s->m) : rev);
    cr_assert_eq(compact_rev, mvcc_compact_rev(s->m));
    return hash;
}

static void example(struct store *s)
{
    store_new(s);
    put(s, "a", "1");
    put(s, "a", "2");
    put(s, "b", "1");
    del(s, "b"); /* 5 */
    put(s, "c", "1");
}

Test(hash, follows_etcds_rule_byte_for_byte)
{
    struct store s;
    store_new(&s);
    cr_assert_eq(hash_at(&s, 0), crc32c(0, "key", 3), "an empty store");
    put(&s, "a", "1");
    del(&s, "a");
    uint8_t bytes[128] = "key";
    size_t at = 3;
    rev_store64(bytes + at, 2);
    bytes[at + 8] = '_';
    rev_store64(bytes + at + 9, 0);
    at += 17;
    static const uint8_t kv[] = {0x0a, 1, 'a', 0x10, 2, 0x18, 2, 0x20, 1, 0x2a, 1, '1'};
    memcpy(bytes + at, kv, sizeof(kv));
    at += sizeof(kv);
    rev_store64(bytes + at, 3);
    bytes[at + 8] = '_';
    rev_store64(bytes + at + 9, 0);
    bytes[at + 17] = 't';
    at += 18;
    memcpy(bytes + at, kv, 3); /* a tombstone has only the key */
    at += 3;
    cr_assert_eq(hash_at(&s, 0), crc32c(0, bytes, at));
    store_remove(&s);
}

Test(hash, is_the_same_before_and_after_physical_compaction_and_a_restart)
{
    struct store s, t;
    example(&s);
    example(&t);
    for (int64_t rev = 2; rev <= 6; rev++) {
        compact(&s, rev);
        compact(&t, rev);
        uint32_t before = hash_at(&s, 0);
        compact_physically(&s);
        cr_assert_eq(hash_at(&s, 0), before);
        cr_assert_eq(hash_at(&t, 0), before, "one that never deletes agrees");
        store_reopen(&s);
        cr_assert_eq(hash_at(&s, 0), before);
    }
    store_remove(&s);
    store_remove(&t);
}

Test(hash, of_an_old_revision_ignores_what_came_later)
{
    struct store s;
    example(&s);
    uint32_t then = hash_at(&s, 4);
    put(&s, "z", "1");
    cr_assert_eq(hash_at(&s, 4), then);
    cr_assert_neq(hash_at(&s, 0), then);
    store_remove(&s);
}

Test(hash, refuses_future_and_compacted_revisions)
{
    struct store s;
    uint32_t hash;
    int64_t a, b;
    example(&s);
    cr_assert_eq(mvcc_hash(s.m, 7, &hash, &a, &b), E_FUTURE_REV);
    compact(&s, 4);
    cr_assert_eq(mvcc_hash(s.m, 3, &hash, &a, &b), E_COMPACTED);
    cr_assert_eq(mvcc_hash(s.m, 4, &hash, &a, &b), 0);
    store_remove(&s);
}
