/* stored/db.c: batches, reads, snapshots, refusals; and the bytes that a store consists of, against golden ones. */
#include <unistd.h>

#include "common/file.h"
#include "stored/db.h"
#include "tests/stored/mvcc_help.h"

static char dir[64];

static struct db *db_fresh(void)
{
    struct db *db;
    struct buf why = BUF_INIT;
    log_init("test", LOG_L_ERROR);
    snprintf(dir, sizeof(dir), "/tmp/trine-db-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    cr_assert_eq(db_open(&db, dir, false, &why), 0);
    return db;
}

static void db_remove(struct db *db)
{
    char cmd[128];
    db_close(db);
    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
    cr_assert_eq(system(cmd), 0);
}

static void set(struct db *db, const char *key, const char *value)
{
    struct db_batch *b = db_batch_new();
    db_batch_put(b, S(key), S(value));
    db_write(db, b, false);
    cr_assert_eq(db_batch_count(b), 0, "a written batch is empty");
    db_batch_free(b);
}

static bool has(struct db *db, const struct db_snapshot *snap, const char *key, const char *value)
{
    struct buf out = BUF_INIT;
    int err = db_get(db, snap, S(key), &out);
    bool same = err == 0 && slice_eq(buf_slice(&out), S(value));
    buf_fini(&out);
    return same;
}

Test(db, a_snapshot_keeps_what_later_writes_change)
{
    struct db *db = db_fresh();
    set(db, "a", "1");
    struct db_snapshot *snap = db_snapshot_new(db);
    set(db, "a", "2");
    cr_assert(has(db, snap, "a", "1"));
    cr_assert(has(db, NULL, "a", "2"));
    db_snapshot_free(db, snap);
    struct buf out = BUF_INIT;
    cr_assert_eq(db_get(db, NULL, S("b"), &out), E_NOT_FOUND);
    buf_fini(&out);
    db_remove(db);
}

Test(db, an_iterator_walks_in_byte_order)
{
    struct db *db = db_fresh();
    struct slice key, value;
    set(db, "b", "2");
    set(db, "a\xff", "1");
    set(db, "c", "3");
    struct db_iter *it = db_iter_new(db, NULL, false);
    db_iter_seek(it, S("a"));
    cr_assert(db_iter_get(it, &key, &value) && slice_eq(key, S("a\xff")));
    db_iter_next(it);
    cr_assert(db_iter_get(it, &key, &value) && slice_eq(value, S("2")));
    db_iter_next(it);
    db_iter_next(it);
    cr_assert_not(db_iter_get(it, &key, &value));
    cr_assert_eq(db_iter_status(it), 0);
    db_iter_free(it);
    db_remove(db);
}

struct logs {
    int count, manifests;
    uint64_t size;
    char name[64];
};
static void on_log(void *arg, const char *name, uint64_t size)
{
    struct logs *l = arg;
    if (strncmp(name, "MANIFEST-", 9) == 0) {
        l->manifests++;
        return;
    }
    l->count++;
    l->size = size;
    snprintf(l->name, sizeof(l->name), "%s", name);
}

Test(db, sync_names_its_logs_and_their_bytes_can_be_checked)
{
    struct db *db = db_fresh();
    struct logs logs = {0};
    uint64_t at;
    for (int i = 0; i < 3000; i++) {
        char key[16];
        snprintf(key, sizeof(key), "key%d", i);
        set(db, key, "some value that fills the blocks of the log");
    }
    db_sync(db, on_log, &logs);
    cr_assert_eq(logs.count, 1);
    cr_assert_eq(logs.manifests, 1);
    cr_assert_gt(logs.size, 2 * 32768);
    cr_assert_eq(db_log_check(dir, logs.name, logs.size, &at), 0);
    cr_assert_eq(db_log_check(dir, "000000.log", 1, &at), E_NOT_FOUND);
    cr_assert_eq(db_log_check(dir, logs.name, logs.size + 1, &at), E_DAMAGED, "shorter than what was synced");

    char path[160];
    snprintf(path, sizeof(path), "%s/%s", dir, logs.name);
    FILE *f = fopen(path, "r+e");
    fseek(f, 40000, SEEK_SET);
    fputc(0, f);
    fclose(f);
    cr_assert_eq(db_log_check(dir, logs.name, logs.size, &at), E_DAMAGED);
    cr_assert(at <= 40000 && at > 39800);
    db_remove(db);
}

/* The path of the one table of the directory. */
static void table_path(char *path, size_t size)
{
    char cmd[128];
    snprintf(cmd, sizeof(cmd), "ls %s/*.ldb", dir);
    FILE *f = popen(cmd, "r");
    cr_assert_not_null(f);
    cr_assert_not_null(fgets(path, (int)size, f));
    path[strcspn(path, "\n")] = '\0';
    pclose(f);
}

static void flip(const char *path, long at)
{
    FILE *f = fopen(path, "r+e");
    fseek(f, at, SEEK_SET);
    int byte = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(byte ^ 1, f);
    fclose(f);
}

Test(db, what_was_put_and_deleted_within_one_flush_is_reclaimed)
{
    struct db *db = db_fresh();
    char key[16], value[10001];
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    struct db_batch *batch = db_batch_new();
    for (int i = 0; i < 500; i++) { /* 5 MB: less than LevelDB keeps in memory */
        snprintf(key, sizeof(key), "key%04d", i);
        set(db, key, value);
    }
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof(key), "key%04d", i);
        db_batch_delete(batch, S(key));
    }
    set(db, "kept", "until the end");
    db_write(db, batch, false);
    db_batch_free(batch);
    db_compact_all(db);
    db_close(db); /* the size is remembered for a moment: a fresh look */
    struct buf why = BUF_INIT;
    cr_assert_eq(db_open(&db, dir, false, &why), 0, "%.*s", (int)why.len, (const char *)why.data);
    cr_assert_lt(db_disk_bytes(db), 100000u);
    struct db_iter *it = db_iter_new(db, NULL, false);
    struct slice k, v;
    db_iter_seek(it, SLICE_EMPTY);
    cr_assert(db_iter_get(it, &k, &v) && slice_eq(k, S("kept")), "nothing of the compaction itself is seen");
    db_iter_next(it);
    cr_assert(!db_iter_get(it, &k, &v));
    db_iter_free(it);
    buf_fini(&why);
    db_remove(db);
}

Test(db, every_damaged_byte_of_a_table_is_found_with_its_file)
{
    struct db *db = db_fresh();
    struct buf why = BUF_INIT;
    char path[160];
    for (int i = 0; i < 2000; i++) {
        char key[16];
        snprintf(key, sizeof(key), "key%04d", i);
        set(db, key, "some value that fills the blocks of the table");
    }
    db_compact_all(db);
    table_path(path, sizeof(path));
    db_find_damage(dir, &why);
    cr_assert_eq(why.len, 0, "%.*s", (int)why.len, (const char *)why.data);
    for (long at = 0; at < 100000; at += 997) {
        flip(path, at);
        db_find_damage(dir, &why);
        cr_assert(memmem(why.data, why.len, path, strlen(path)) != NULL, "byte %ld", at);
        buf_reset(&why);
        flip(path, at);
    }
    cr_assert_eq(truncate(path, 20), 0);
    db_find_damage(dir, &why);
    cr_assert_gt(why.len, 0);
    buf_fini(&why);
    db_remove(db);
}

static void fill(struct db *db, const char *value)
{
    for (int i = 0; i < 2000; i++) {
        char key[16];
        snprintf(key, sizeof(key), "key%04d", i);
        set(db, key, value);
    }
}

enum { WAS_TOLD = 7 };

static void end_told(void *arg, const char *where)
{
    char cmd[128];
    int code = strcmp(where, arg) == 0 ? WAS_TOLD : 8;
    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
    _exit(system(cmd) == 0 ? code : 9);
}

Test(db, damage_that_compaction_meets_is_told_before_a_write_ends_the_process, .exit_code = WAS_TOLD)
{
    struct db *db = db_fresh();
    struct buf why = BUF_INIT;
    char path[160];
    fill(db, "some value that fills the blocks of the table");
    db_compact_all(db);
    table_path(path, sizeof(path));
    db_close(db);
    flip(path, 20000);
    db_on_damage(end_told, dir);
    cr_assert_eq(db_open(&db, dir, false, &why), 0, "it opens: nobody reads that block");
    fill(db, "another value");
    db_compact_all(db);
    fill(db, "a third one");
    cr_assert_fail("written over damage");
}

Test(db, tables_without_current_are_no_new_store)
{
    struct db *db = db_fresh();
    struct buf why = BUF_INIT;
    char path[160];
    set(db, "a", "1");
    db_close(db);
    snprintf(path, sizeof(path), "%s/CURRENT", dir);
    cr_assert_eq(remove(path), 0);
    cr_assert_eq(db_open(&db, dir, false, &why), E_DAMAGED);
    buf_add_byte(&why, 0);
    cr_assert_not_null(strstr((char *)why.data, "/CURRENT: missing"), "%s", (char *)why.data);
    buf_fini(&why);
    db_remove(NULL);
}

Test(db, a_directory_in_use_or_impossible_is_an_error_with_a_reason)
{
    struct db *db = db_fresh(), *other;
    struct buf why = BUF_INIT;
    cr_assert_eq(db_open(&other, dir, false, &why), E_LOCKED);
    cr_assert_eq(db_open(&other, "/proc/nowhere", false, &why), E_IO);
    cr_assert_gt(why.len, 0);
    buf_fini(&why);
    db_remove(db);
}

/* Every key and value of a small store, in hex, but for those that change with time or place. */
static void dump(struct store *s, struct buf *out)
{
    struct buf why = BUF_INIT;
    struct db *db;
    struct slice key, value;
    store_close(s);
    cr_assert_eq(db_open(&db, s->dir, false, &why), 0);
    struct db_iter *it = db_iter_new(db, NULL, true);
    for (db_iter_seek(it, SLICE_EMPTY); db_iter_get(it, &key, &value); db_iter_next(it)) {
        for (size_t i = 0; i < key.len; i++) {
            buf_printf(out, "%02x", key.data[i]);
        }
        buf_add_str(out, " ");
        for (size_t i = 0; i < value.len; i++) {
            buf_printf(out, "%02x", value.data[i]);
        }
        buf_add_str(out, "\n");
    }
    db_iter_free(it);
    db_close(db);
}

Test(db, a_store_has_the_golden_bytes)
{
    struct store s;
    struct buf got = BUF_INIT, want = BUF_INIT;
    int64_t ttl;
    store_new(&s);
    lease_grant(s.leases, 7, 100, &ttl, 0);
    put_rq(&s, (struct api_put){.key = S("a"), .value = S("1"), .lease = 7}, NULL);
    put(&s, "a", "2");
    put(&s, "b", "");
    del(&s, "a");
    begin(&s);
    mvcc_meta_put(s.m, 'l', S("k"), S("v"));
    end(&s);
    compact(&s, 3);
    mvcc_checkpoint(s.m);
    dump(&s, &got);
    s.m = NULL;
    cr_assert_eq(file_read_all("tests/golden/store.txt", 1 << 20, &want), 0, "run from the root of the tree");
    cr_assert(slice_eq(buf_slice(&got), buf_slice(&want)), "formats change only on purpose; now:\n%.*s", (int)got.len,
              (char *)got.data);
    buf_fini(&got);
    buf_fini(&want);
    store_remove(&s);
}
