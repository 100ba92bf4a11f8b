/* stored/checkpoint.c and load.c: starting from a checkpoint is the same as starting from the records. */
#include "common/rand.h"
#include "stored/db.h"
#include "stored/rev.h"
#include "tests/stored/mvcc_help.h"

static void fill(struct store *s, int count, uint64_t seed)
{
    struct rand r;
    rand_seed(&r, seed);
    char key[32];
    for (int i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "/some/prefix/%04d", (int)rand_below(&r, 1500));
        if (rand_below(&r, 5) == 0) {
            del(s, key);
        } else {
            put(s, key, "value");
        }
    }
}

static uint32_t hash(struct store *s)
{
    uint32_t h;
    int64_t a, b;
    cr_assert_eq(mvcc_hash(s->m, 0, &h, &a, &b), 0);
    return h;
}

static void figures(struct store *s, uint64_t *keys, uint64_t *revisions)
{
    struct mvcc_stats st;
    mvcc_get_stats(s->m, &st);
    *keys = st.keys;
    *revisions = st.revisions;
}

/* How many pages with prefix 'i' there are; spoils one of them if asked to (-1: none, -2: deletes the first). */
static int pages(struct store *s, int spoil)
{
    struct buf why = BUF_INIT, value = BUF_INIT;
    struct db *db;
    struct slice key, old;
    int count = 0;
    store_close(s);
    cr_assert_eq(db_open(&db, s->dir, false, &why), 0);
    struct db_batch *b = db_batch_new();
    struct db_iter *it = db_iter_new(db, NULL, true);
    for (db_iter_seek(it, S("i")); db_iter_get(it, &key, &old) && key.data[0] == 'i'; db_iter_next(it), count++) {
        if (count == spoil) {
            buf_add_slice(&value, old);
            value.data[value.len / 2] ^= 1;
            db_batch_put(b, key, buf_slice(&value));
        } else if (count == 0 && spoil == -2) {
            db_batch_delete(b, key);
        }
    }
    db_iter_free(it);
    db_write(db, b, true);
    db_batch_free(b);
    db_close(db);
    buf_fini(&value);
    return count;
}

static void same_after_restart(int spoil)
{
    struct store s;
    uint64_t keys, revisions, keys_again, revisions_again;
    store_new(&s);
    fill(&s, 4000, 1);
    mvcc_checkpoint(s.m);
    fill(&s, 500, 2); /* replayed */
    figures(&s, &keys, &revisions);
    uint32_t before = hash(&s);

    cr_assert_gt(pages(&s, spoil), 2, "some pages and their commit");
    store_open(&s);
    figures(&s, &keys_again, &revisions_again);
    cr_assert(keys == keys_again && revisions == revisions_again);
    cr_assert_eq(hash(&s), before);
    fill(&s, 100, 3);
    store_remove(&s);
}

Test(checkpoint, a_restart_from_it_and_the_records_behind_it_is_complete)
{
    same_after_restart(-1);
}

Test(checkpoint, a_damaged_page_makes_it_void_and_the_records_are_read)
{
    same_after_restart(1);
}

Test(checkpoint, a_missing_page_makes_it_void)
{
    same_after_restart(-2);
}

Test(checkpoint, only_the_newest_one_is_kept)
{
    struct store s;
    store_new(&s);
    fill(&s, 2000, 1);
    mvcc_checkpoint(s.m);
    int once = pages(&s, -1);
    store_open(&s);
    fill(&s, 100, 2);
    mvcc_checkpoint(s.m);
    mvcc_checkpoint(s.m);
    cr_assert_leq(pages(&s, -1), once + 1);
    store_open(&s);
    store_remove(&s);
}

Test(checkpoint, one_from_before_a_compaction_does_not_bring_keys_back)
{
    struct store s;
    store_new(&s);
    put(&s, "dies", "1");
    put(&s, "lives", "1");
    mvcc_checkpoint(s.m);
    del(&s, "dies");
    put(&s, "lives", "2");
    compact(&s, mvcc_rev(s.m));
    compact_physically(&s);
    store_reopen(&s);
    cr_assert_str_eq(pairs_at(&s, "a", "z", 0), "lives=2");
    uint64_t keys, revisions;
    figures(&s, &keys, &revisions);
    cr_assert(keys == 1 && revisions == 1);
    store_remove(&s);
}

Test(checkpoint, a_damaged_record_is_refused_with_its_key)
{
    struct store s;
    struct buf why = BUF_INIT;
    struct db *db;
    uint8_t key[REV_KEY_MAX];
    store_new(&s);
    put(&s, "a", "1");
    store_close(&s);
    cr_assert_eq(db_open(&db, s.dir, false, &why), 0);
    struct db_batch *b = db_batch_new();
    db_batch_put(b, slice_of(key, rev_key_encode(key, 2, 0, false)), S("\x0a\x7f not a KeyValue"));
    db_write(db, b, true);
    db_batch_free(b);
    db_close(db);

    log_set_level(LOG_L_ERROR);
    cr_assert_eq(store_try_open(&s, &why), E_DAMAGED);
    buf_add_byte(&why, 0);
    cr_assert_not_null(strstr((char *)why.data, "52000000000000000200000000"), "%s", (char *)why.data);
    buf_fini(&why);
    s.m = NULL;
    store_remove(&s);
}

Test(checkpoint, a_revision_without_a_record_is_refused_but_not_below_the_compacted_one)
{
    for (int64_t lost = 3; lost <= 5; lost++) {
        struct store s;
        struct buf why = BUF_INIT;
        struct db *db;
        uint8_t key[REV_KEY_MAX];
        store_new(&s);
        put(&s, "a", "1");
        put(&s, "b", "1");
        put(&s, "c", "1");
        put(&s, "d", "1");
        if (lost == 3) {
            cr_assert_eq(compact(&s, 3), 0);
        }
        store_close(&s);
        cr_assert_eq(db_open(&db, s.dir, false, &why), 0);
        struct db_batch *b = db_batch_new();
        db_batch_delete(b, slice_of(key, rev_key_encode(key, lost, 0, false)));
        db_write(db, b, true);
        db_batch_free(b);
        db_close(db);

        log_set_level(LOG_L_ERROR);
        int err = store_try_open(&s, &why);
        if (lost == 3) {
            cr_assert_eq(err, 0);
        } else {
            cr_assert_eq(err, E_DAMAGED);
            buf_add_byte(&why, 0);
            cr_assert_not_null(strstr((char *)why.data, lost == 4 ? "revision 4 is missing" : "revision 5 is missing"));
            s.m = NULL;
        }
        buf_fini(&why);
        store_remove(&s);
    }
}
