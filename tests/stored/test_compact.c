/* stored/compact.c: semantics.md §9. */
#include "stored/db.h"
#include "stored/rev.h"
#include "tests/stored/mvcc_help.h"

/* "2 3 4t" : the records that are in LevelDB. The store is closed meanwhile. */
static const char *records(struct store *s)
{
    static char text[1024];
    struct buf why = BUF_INIT;
    struct db *db;
    struct slice key, value;
    size_t at = 0;
    store_close(s);
    cr_assert_eq(db_open(&db, s->dir, false, &why), 0);
    struct db_iter *it = db_iter_new(db, NULL, true);
    text[0] = '\0';
    for (db_iter_seek(it, S("R")); db_iter_get(it, &key, &value) && key.data[0] == 'R'; db_iter_next(it)) {
        int64_t main;
        int32_t sub;
        bool tombstone;
        cr_assert_eq(rev_key_decode(key, &main, &sub, &tombstone), 0);
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%lld%s", at == 0 ? "" : " ", (long long)main,
                               tombstone ? "t" : "");
    }
    db_iter_free(it);
    db_close(db);
    store_open(s);
    return text;
}

static void example(struct store *s)
{
    store_new(s);
    put(s, "a", "1"); /* 2 */
    put(s, "a", "2"); /* 3 */
    del(s, "a");      /* 4 */
    put(s, "a", "3"); /* 5 */
    put(s, "b", "1"); /* 6 */
}

Test(compact, refuses_future_and_repeated_revisions)
{
    struct store s;
    example(&s);
    cr_assert_eq(compact(&s, 7), E_FUTURE_REV);
    cr_assert_eq(compact(&s, -1), E_COMPACTED);
    cr_assert_eq(compact(&s, 0), 0, "accepted on a store never compacted");
    cr_assert_eq(compact(&s, 4), 0);
    cr_assert_eq(compact(&s, 4), E_COMPACTED);
    cr_assert_eq(compact(&s, 3), E_COMPACTED);
    cr_assert_eq(mvcc_compact_rev(s.m), 4);
    cr_assert_eq(mvcc_rev(s.m), 6, "it does not bump");
    store_remove(&s);
}

Test(compact, below_the_mark_nothing_can_be_read_at_once)
{
    struct store s;
    example(&s);
    compact(&s, 4);
    cr_assert_eq(range_err(&s, (struct api_range){.key = S("a"), .revision = 3}), E_COMPACTED);
    cr_assert_str_eq(pairs_at(&s, "a", "z", 4), "");
    cr_assert_eq(mvcc_compacted_physically(s.m), -1);
    store_remove(&s);
}

Test(compact, keeps_the_tombstone_at_its_revision_until_the_next_one)
{
    struct store s;
    example(&s);
    cr_assert_str_eq(records(&s), "2 3 4t 5 6");
    compact(&s, 4);
    compact_physically(&s);
    cr_assert_eq(mvcc_compacted_physically(s.m), 4);
    cr_assert_str_eq(records(&s), "4t 5 6");
    compact(&s, 5);
    compact_physically(&s);
    cr_assert_str_eq(records(&s), "5 6");
    cr_assert_str_eq(pairs_at(&s, "a", "z", 0), "a=3 b=1");
    store_remove(&s);
}

Test(compact, a_dead_key_is_forgotten_whole)
{
    struct store s;
    struct mvcc_stats st;
    example(&s);
    del(&s, "a"); /* 7 */
    put(&s, "b", "2"); /* 8 */
    compact(&s, 8);
    compact_physically(&s);
    mvcc_get_stats(s.m, &st);
    cr_assert(st.keys == 1 && st.revisions == 1);
    cr_assert_str_eq(records(&s), "8");
    cr_assert_eq(put(&s, "a", "new"), 9);
    store_remove(&s);
}

Test(compact, only_durable_marks_are_worked_on)
{
    struct store s;
    example(&s);
    compact(&s, 5);
    cr_assert_not(mvcc_compact_step(s.m, 100, mvcc_durable(s.m)), "not durable yet: nothing to do");
    cr_assert_eq(mvcc_compacted_physically(s.m), -1);
    cr_assert_lt(mvcc_durable(s.m), mvcc_applied(s.m));
    compact_physically(&s);
    cr_assert_eq(mvcc_compacted_physically(s.m), 5);
    store_remove(&s);
}

Test(compact, goes_on_after_a_restart)
{
    struct store s;
    example(&s);
    compact(&s, 5);
    store_reopen(&s);
    cr_assert_eq(mvcc_compact_rev(s.m), 5);
    compact_physically(&s);
    cr_assert_str_eq(records(&s), "5 6");
    store_remove(&s);
}

Test(compact, works_in_steps)
{
    struct store s;
    store_new(&s);
    begin(&s);
    for (int i = 0; i < 9000; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%d", i / 2);
        put_in_batch(&s, key, "v");
    }
    end(&s);
    compact(&s, mvcc_rev(s.m));
    mvcc_sync(s.m);
    int steps = 1;
    while (mvcc_compact_step(s.m, 500, mvcc_durable(s.m))) {
        steps++;
    }
    cr_assert_gt(steps, 5);
    struct mvcc_stats st;
    mvcc_get_stats(s.m, &st);
    cr_assert_eq(st.revisions, 4500);
    store_remove(&s);
}
