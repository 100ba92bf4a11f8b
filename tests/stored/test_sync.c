/* stored/sync.c and undo.c: power cuts. A cut is a copy of the files of a running store, opened under another boot id; a lost
 * batch is one whose keys are taken out of the copy, a torn log is one whose bytes are changed behind what was synced. */
#include <dirent.h>

#include "common/file.h"
#include "stored/db.h"
#include "stored/rev.h"
#include "tests/stored/mvcc_help.h"

static void copy(const char *a, const char *b)
{
    char cmd[512];
    snprintf(cmd, sizeof(cmd), "cp -r '%s' '%s'", a, b);

    cr_assert_eq(system(cmd), 0);
}

/* The store as another boot finds it; the running one stays as it is. */
static void power_cut(const struct store *s, struct store *cut)
{
    *cut = (struct store){.lease = s->lease};
    snprintf(cut->root, sizeof(cut->root), "%.40s-cut", s->root);
    snprintf(cut->dir, sizeof(cut->dir), "%.60s/db", cut->root);
    snprintf(cut->boot, sizeof(cut->boot), "boot-2");
    copy(s->root, cut->root);
}

/* Takes the batch with this raft index, whose changes have revision rev, out of the files. */
static void lose_batch(const struct store *cut, uint64_t index, int64_t rev)
{
    struct buf why = BUF_INIT;
    struct db *db;
    cr_assert_eq(db_open(&db, cut->dir, false, &why), 0);
    struct db_batch *b = db_batch_new();
    uint8_t marker[10] = {'m', 'b'}, record[REV_KEY_MAX];
    rev_store64(marker + 2, index);
    db_batch_delete(b, slice_of(marker, sizeof(marker)));
    db_batch_delete(b, slice_of(record, rev_key_encode(record, rev, 0, false)));
    struct db_iter *it = db_iter_new(db, NULL, true);
    struct slice key, value;
    for (db_iter_seek(it, S("mu")); db_iter_get(it, &key, &value) && key.len == 22; db_iter_next(it)) {
        if (rev_load64(key.data + 10) == index) {
            db_batch_delete(b, key);
        }
    }
    db_iter_free(it);
    db_write(db, b, true);
    db_batch_free(b);
    db_close(db);
}

static void meta(struct store *s, const char *key, const char *value)
{
    begin(s);
    if (value != NULL) {
        mvcc_meta_put(s->m, 'l', S(key), S(value));
    } else {
        mvcc_meta_delete(s->m, 'l', S(key));
    }
    end(s);
}

static int add_pair(void *arg, struct slice key, struct slice value)
{
    char *text = arg;
    size_t at = strlen(text);
    snprintf(text + at, 128 - at, "%.*s=%.*s ", (int)key.len, (const char *)key.data, (int)value.len,
             (const char *)value.data);
    return 0;
}

static const char *metas(struct store *s)
{
    static char text[128];
    text[0] = '\0';
    cr_assert_eq(mvcc_meta_each(s->m, 'l', add_pair, text), 0);
    return text;
}

Test(sync, durable_follows_applied_only_when_synced)
{
    struct store s;
    store_new(&s);
    put(&s, "a", "1");
    cr_assert_eq(mvcc_durable(s.m), 0);
    cr_assert_eq(mvcc_sync(s.m), 1);
    cr_assert_eq(mvcc_durable(s.m), 1);
    put(&s, "a", "2");
    cr_assert_eq(mvcc_durable(s.m), 1);
    store_reopen(&s);
    cr_assert_eq(mvcc_durable(s.m), 2, "an orderly end syncs");
    store_remove(&s);
}

Test(sync, a_complete_store_goes_on_where_it_was_after_a_power_cut)
{
    struct store s, cut;
    store_new(&s);
    put(&s, "a", "1");
    mvcc_sync(s.m);
    put(&s, "a", "2");
    put(&s, "b", "1");
    power_cut(&s, &cut);
    store_open(&cut);
    cr_assert_eq(mvcc_applied(cut.m), 3);
    cr_assert_str_eq(pairs_at(&cut, "a", "z", 0), "a=2 b=1");
    cr_assert_eq(mvcc_durable(cut.m), 3);
    store_remove(&cut);
    store_remove(&s);
}

Test(sync, a_lost_batch_in_the_middle_takes_the_store_back_to_its_durable_point)
{
    struct store s, cut;
    store_new(&s);
    put(&s, "a", "1");   /* index 1, revision 2 */
    meta(&s, "k", "old"); /* 2 */
    meta(&s, "gone", "x"); /* 3 */
    mvcc_sync(s.m);
    put(&s, "a", "2");   /* 4, revision 3 */
    meta(&s, "k", "mid"); /* 5: will be lost, with its undo record */
    put(&s, "b", "1");   /* 6, revision 4 */
    meta(&s, "k", "new"); /* 7 */
    meta(&s, "born", "y"); /* 8 */
    meta(&s, "gone", NULL); /* 9 */
    compact(&s, 3);      /* 10 */
    power_cut(&s, &cut);
    lose_batch(&cut, 5, 1000);

    store_open(&cut);
    cr_assert_eq(mvcc_applied(cut.m), 3);
    cr_assert_eq(mvcc_rev(cut.m), 2);
    cr_assert_eq(mvcc_compact_rev(cut.m), -1, "the mark goes back too");
    cr_assert_str_eq(pairs_at(&cut, "a", "z", 0), "a=1");
    cr_assert_str_eq(metas(&cut), "gone=x k=old ");

    /* raftd brings the entries again */
    put(&cut, "a", "2");
    meta(&cut, "k", "mid");
    put(&cut, "b", "1");
    cr_assert_eq(mvcc_rev(cut.m), 4);
    store_reopen(&cut);
    cr_assert_str_eq(pairs_at(&cut, "a", "z", 0), "a=2 b=1");
    cr_assert_str_eq(metas(&cut), "gone=x k=mid ");
    store_remove(&cut);
    store_remove(&s);
}

Test(sync, a_lost_record_batch_goes_back_too_and_a_checkpoint_does_not_hide_it)
{
    struct store s, cut;
    store_new(&s);
    put(&s, "a", "1");
    mvcc_sync(s.m);
    uint64_t chain = chain_of(&s);
    put(&s, "b", "lost"); /* index 2, revision 3 */
    put(&s, "c", "2");
    mvcc_checkpoint(s.m);
    power_cut(&s, &cut);
    lose_batch(&cut, 2, 3);
    store_open(&cut);
    cr_assert_eq(mvcc_applied(cut.m), 1);
    cr_assert_str_eq(pairs_at(&cut, "a", "z", 0), "a=1");
    struct mvcc_stats st;
    mvcc_get_stats(cut.m, &st);
    cr_assert_eq(st.revisions, 1);
    cr_assert_eq(chain_of(&cut), chain, "the hash goes back with the rest");
    put(&cut, "b", "lost");
    put(&cut, "c", "2");
    cr_assert_eq(chain_of(&cut), chain_of(&s));
    store_remove(&cut);
    store_remove(&s);
}

Test(sync, on_the_same_boot_nothing_is_checked_because_nothing_can_be_missing)
{
    struct store s, cut;
    store_new(&s);
    put(&s, "a", "1");
    put(&s, "b", "1");
    power_cut(&s, &cut);
    snprintf(cut.boot, sizeof(cut.boot), "%s", s.boot);
    store_open(&cut);
    cr_assert_eq(mvcc_applied(cut.m), 2);
    store_remove(&cut);
    store_remove(&s);
}

/* --- LevelDB's own log -------------------------------------------------------------------------- */

static void log_path(const struct store *s, char *path, size_t size)
{
    DIR *d = opendir(s->dir);
    path[0] = '\0';
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        size_t len = strlen(e->d_name);
        if (len > 4 && strcmp(e->d_name + len - 4, ".log") == 0) {
            snprintf(path, size, "%s/%.60s", s->dir, e->d_name);
        }
    }
    closedir(d);
    cr_assert(path[0] != '\0');
}

static long file_size(const char *path)
{
    FILE *f = fopen(path, "re");
    cr_assert_not_null(f);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    fclose(f);
    return size;
}

static void spoil(const char *path, long at)
{
    FILE *f = fopen(path, "r+e");
    cr_assert_not_null(f);
    for (int i = 0; i < 64; i++) {
        fseek(f, at + i, SEEK_SET);
        fputc('#', f);
    }
    fclose(f);
}

static void big_puts(struct store *s, int count)
{
    static char value[5001];
    char key[16];
    memset(value, 'v', 5000);
    for (int i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "k%03d", i);
        put(s, key, value);
    }
}

Test(sync, a_torn_log_behind_the_synced_bytes_is_what_a_power_cut_does)
{
    struct store s, cut;
    char path[256];
    store_new(&s);
    big_puts(&s, 20);
    mvcc_sync(s.m);
    log_path(&s, path, sizeof(path));
    long synced = file_size(path);
    big_puts(&s, 40); /* several blocks of LevelDB's log */
    power_cut(&s, &cut);
    log_path(&cut, path, sizeof(path));
    spoil(path, synced + 6000);
    store_open(&cut);
    cr_assert_eq(mvcc_applied(cut.m), 20);
    cr_assert_eq(mvcc_rev(cut.m), 21);
    Etcdserverpb__RangeResponse *r = range(&cut, (struct api_range){.key = S("k"), .range_end = S("l")});
    cr_assert_eq(r->count, 20);
    range_free(r);
    store_remove(&cut);
    store_remove(&s);
}

Test(sync, damage_in_synced_bytes_is_refused_with_file_and_offset)
{
    struct store s, cut;
    char path[256];
    struct buf why = BUF_INIT;
    store_new(&s);
    big_puts(&s, 20);
    mvcc_sync(s.m);
    power_cut(&s, &cut);
    log_path(&cut, path, sizeof(path));
    spoil(path, 40000);
    cr_assert_eq(store_try_open(&cut, &why), E_DAMAGED);
    buf_add_byte(&why, 0);
    cr_assert_not_null(strstr((char *)why.data, ".log is damaged at byte"), "%s", (char *)why.data);
    buf_fini(&why);
    store_remove(&cut);
    store_remove(&s);
}

Test(sync, a_log_or_manifest_that_became_shorter_is_refused_also_without_a_reboot)
{
    static const char *const files[] = {"*.log", "MANIFEST-*"};
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct store s, cut;
        char cmd[512];
        struct buf why = BUF_INIT;
        store_new(&s);
        big_puts(&s, 20);
        mvcc_sync(s.m);
        power_cut(&s, &cut);
        snprintf(cut.boot, sizeof(cut.boot), "%s", s.boot);
        snprintf(cmd, sizeof(cmd), "truncate -s 40 %s/db/%s", cut.root, files[i]);
        cr_assert_eq(system(cmd), 0);
        cr_assert_eq(store_try_open(&cut, &why), E_DAMAGED);
        cr_assert(memmem(why.data, why.len, " is damaged at byte ", 20) != NULL);
        buf_fini(&why);
        store_remove(&cut);
        store_remove(&s);
    }
}

Test(sync, a_damaged_or_missing_synced_file_is_refused)
{
    struct store s, cut;
    char path[256];
    struct buf why = BUF_INIT;
    store_new(&s);
    put(&s, "a", "1");
    mvcc_sync(s.m);
    power_cut(&s, &cut);
    snprintf(path, sizeof(path), "%s/SYNCED", cut.root);
    spoil(path, 2);
    cr_assert_eq(store_try_open(&cut, &why), E_DAMAGED);
    remove(path);
    cr_assert_eq(store_try_open(&cut, &why), E_DAMAGED, "what was purged cannot be checked");
    buf_fini(&why);
    store_remove(&cut);
    store_remove(&s);
}

Test(sync, a_store_that_lost_durable_batches_is_refused)
{
    struct store s, cut;
    char cmd[512];
    struct buf why = BUF_INIT;
    store_new(&s);
    put(&s, "a", "1");
    power_cut(&s, &cut);
    put(&s, "a", "2");
    mvcc_sync(s.m);
    snprintf(cmd, sizeof(cmd), "cp '%s/SYNCED' '%s/SYNCED'", s.root, cut.root);
    cr_assert_eq(system(cmd), 0);
    cr_assert_eq(store_try_open(&cut, &why), E_DAMAGED);
    buf_fini(&why);
    store_remove(&cut);
    store_remove(&s);
}
