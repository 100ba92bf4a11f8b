/* stored/restore.c, backup_file.c: from a snapshot file to a store. The file of etcd is tests/golden/etcd-3.4.db (test_bolt.c says what
 * is in it); others are made by backup.c and bolt.c. A restored node serves clients in tests/node/test_backup.sh. */
#include <criterion/criterion.h>

#include <unistd.h>

#include "common/file.h"
#include "common/sha256.h"
#include "stored/backup.h"
#include "stored/bolt.h"
#include "stored/restore.h"
#include "stored/rev.h"
#include "stored/stored.h"
#include "tests/stored/mvcc_help.h"

#define GOLDEN "tests/golden/etcd-3.4.db"

/* A store that is made of a file: in s->root, to be opened by store_open. */
static int restored(struct store *s, const char *path, struct restored *done, struct buf *why)
{
    struct backup_file f;

    log_init("test", LOG_L_ERROR);
    *s = (struct store){.index = 0};
    snprintf(s->root, sizeof s->root, "/tmp/trine-mvcc-XXXXXX");
    cr_assert_not_null(mkdtemp(s->root));
    snprintf(s->dir, sizeof s->dir, "%s/db", s->root);
    snprintf(s->boot, sizeof s->boot, "boot-2"); /* the machine has been started anew since then */
    int err = backup_file_open(path, &f, why);
    if (!err)
        err = restore_store(&f, s->root, done, why);
    backup_file_close(&f);
    return err;
}

static void restored_whole(struct store *s, const char *path, struct restored *done)
{
    struct buf why = BUF_INIT;
    int err = restored(s, path, done, &why);

    cr_assert_eq(err, 0, "%s: %.*s", err_text(err), (int)why.len, (const char *)why.data);
    buf_fini(&why);
    store_open(s);
}

/* --- rows and files ------------------------------------------------------------------------------------------ */

static void note(struct buf *out, struct slice key, struct slice value)
{
    buf_printf(out, "%zu:", key.len);
    buf_add_slice(out, key);
    buf_printf(out, "%zu:", value.len);
    buf_add_slice(out, value);
}

/* All rows of a store but those of meta, which tells of this member's log. */
static struct buf rows_of(struct store *s)
{
    const struct rows_facts facts = {.member_id = 1};
    struct buf all = BUF_INIT;
    struct rows *r;
    struct row row;
    int got;

    cr_assert_eq(rows_open(s->m, &facts, &r), 0);
    while ((got = rows_next(r, &row)) == 1 && !(row.is_bucket && slice_eq(row.key, S("meta"))))
        note(&all, row.key, row.value);
    cr_assert(got >= 0);
    rows_close(r);
    return all;
}

static void file_write(const char *path, struct slice bytes)
{
    cr_assert_eq(file_replace(path, bytes.data, bytes.len), 0);
}

static void save(struct store *s, char *path)
{
    const struct rows_facts facts = {.member_id = 1, .term = 2};
    struct buf all = BUF_INIT;
    struct backup *b;
    bool more = true;

    cr_assert_eq(backup_open(s->m, &facts, &b), 0);
    while (more)
        cr_assert_eq(backup_step(b, 65536, &all, &more), 0);
    backup_close(b);
    strcpy(path, "/tmp/trine-file-XXXXXX");
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    close(fd);
    file_write(path, buf_slice(&all));
    buf_fini(&all);
}

static void meta_set(struct store *s, char prefix, struct slice key, struct slice value)
{
    begin(s);
    mvcc_meta_put(s->m, prefix, key, value);
    end(s);
}

/* --- from etcd --------------------------------------------------------------------------------------------------- */

static int count_pair(void *arg, struct slice key, struct slice value)
{
    struct buf *out = arg;

    note(out, key, value);
    return 0;
}

static struct buf metas(struct store *s, char prefix)
{
    struct buf out = BUF_INIT;

    cr_assert_eq(mvcc_meta_each(s->m, prefix, count_pair, &out), 0);
    return out;
}

Test(restore, a_file_of_etcd_becomes_a_store)
{
    struct restored done;
    struct store s;
    restored_whole(&s, GOLDEN, &done);

    cr_assert_eq(done.rev, 6);
    cr_assert_eq(done.compact_rev, 3);
    cr_assert_eq(done.records, 4);
    cr_assert_eq(mvcc_rev(s.m), 6);
    cr_assert_eq(mvcc_compact_rev(s.m), 3);
    cr_assert_eq(mvcc_applied(s.m), 0, "a new log begins");
    cr_assert_str_eq(pairs_at(&s, "a", "z", 0), "b=3 c=4");
    cr_assert_str_eq(pairs_at(&s, "a", "z", 4), "a=2 b=3");
    cr_assert_eq(range_err(&s, (struct api_range){.key = S("a"), .revision = 2}), E_COMPACTED);
    Etcdserverpb__RangeResponse *r = range(&s, (struct api_range){.key = S("a"), .revision = 3});
    cr_assert(r->n_kvs == 1 && r->kvs[0]->create_revision == 2 && r->kvs[0]->mod_revision == 3 && r->kvs[0]->version == 2);
    range_free(r);
    struct buf leases = metas(&s, META_LEASE), users = metas(&s, META_USER), roles = metas(&s, META_ROLE),
               alarms = metas(&s, META_ALARM), auth = metas(&s, META_AUTH);
    cr_assert_eq(leases.len, 2 + 8 + 3 + 16);
    cr_assert(memmem(users.data, users.len, "$2a$10$", 7) != NULL, "a bcrypt hash stays what it is");
    cr_assert(memmem(roles.data, roles.len, "r1", 2) != NULL);
    cr_assert_eq(alarms.len, 0);
    cr_assert(memmem(auth.data, auth.len, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\5", 16) != NULL, "off, revision 5");
    buf_fini(&leases);
    buf_fini(&users);
    buf_fini(&roles);
    buf_fini(&auth);

    /* It goes on from there, over restarts and a physical compaction. */
    cr_assert_eq(put(&s, "a", "new"), 7);
    store_reopen(&s);
    compact_physically(&s);
    cr_assert_eq(mvcc_compacted_physically(s.m), 3);
    cr_assert_str_eq(pairs_at(&s, "a", "z", 0), "a=new b=3 c=4");
    cr_assert_str_eq(pairs_at(&s, "a", "z", 4), "a=2 b=3");
    store_remove(&s);
}

Test(restore, members_of_one_file_have_one_hash_and_those_of_another_a_different_one)
{
    struct restored done;
    struct store s, t, u;
    char path[64];

    restored_whole(&s, GOLDEN, &done);
    restored_whole(&t, GOLDEN, &done);
    save(&s, path);
    restored_whole(&u, path, &done);
    put(&s, "k", "v");
    put(&t, "k", "v");
    put(&u, "k", "v");
    cr_assert_neq(chain_of(&s), 0);
    cr_assert_eq(chain_of(&s), chain_of(&t));
    cr_assert_neq(chain_of(&s), chain_of(&u));
    store_remove(&s);
    store_remove(&t);
    store_remove(&u);
    unlink(path);
}

/* --- round trips ------------------------------------------------------------------------------------------------------ */

Test(restore, what_was_saved_comes_back)
{
    struct store s, t;
    struct restored done;
    char path[64], key[32];

    store_new(&s);
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "key/%d", i % 700);
        put(&s, key, "a value that is as long as many values are");
        if (i % 50 == 0)
            del(&s, key);
    }
    begin(&s); /* three changes of one revision, and some of the next */
    struct buf out = BUF_INIT;
    for (int i = 0; i < 3; i++)
        put_in_batch(&s, "same", "batch");
    struct api_delete rq = {.key = S("key/1"), .range_end = S("key/2")};
    cr_assert_eq(mvcc_delete(s.m, &rq, &out), 0);
    end(&s);
    buf_fini(&out);
    meta_set(&s, META_LEASE, SLICE_LIT("\0\0\0\0\0\0\0\7"), SLICE_LIT("\0\0\0\0\0\0\0\x64\0\0\0\0\0\0\0\0"));
    meta_set(&s, META_AUTH, S("state"), SLICE_LIT("\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\x9"));
    meta_set(&s, META_ROLE, S("reader"), SLICE_LIT("\n\6reader\x12\3\x12\1k"));
    meta_set(&s, META_USER, S("root"), SLICE_LIT("\n\4root\x12\4hash\"\0"));
    compact(&s, 3000);
    save(&s, path);
    restored_whole(&t, path, &done);
    cr_assert_eq(done.leases, 1);
    cr_assert_eq(done.users, 1);
    cr_assert_eq(done.roles, 1);
    cr_assert_eq(mvcc_rev(t.m), mvcc_rev(s.m));
    struct buf a = rows_of(&s), b = rows_of(&t);
    cr_assert(slice_eq(buf_slice(&a), buf_slice(&b)), "%zu and %zu bytes", a.len, b.len);
    buf_fini(&a);
    buf_fini(&b);
    put(&s, "after", "1");
    put(&t, "after", "1");
    compact_physically(&s);
    compact_physically(&t);
    a = rows_of(&s);
    b = rows_of(&t);
    cr_assert(slice_eq(buf_slice(&a), buf_slice(&b)), "after compaction: %zu and %zu bytes", a.len, b.len);
    buf_fini(&a);
    buf_fini(&b);
    store_remove(&s);
    store_remove(&t);
    unlink(path);
}

Test(restore, of_an_empty_store_is_one)
{
    struct store s, t;
    struct restored done;
    char path[64];

    store_new(&s);
    save(&s, path);
    restored_whole(&t, path, &done);
    cr_assert_eq(mvcc_rev(t.m), 1);
    cr_assert_eq(mvcc_compact_rev(t.m), -1);
    cr_assert_eq(put(&t, "a", "1"), 2);
    store_remove(&s);
    store_remove(&t);
    unlink(path);
}

Test(restore, a_field_of_ours_does_not_leave_with_a_user)
{
    struct store s;

    store_new(&s);
    meta_set(&s, META_USER, S("u"), SLICE_LIT("\n\1u\x12\4hash\"\0\xa0\6\5"));
    struct buf rows = rows_of(&s);
    cr_assert(memmem(rows.data, rows.len, "1:u11:\n\1u\x12\4hash\"\0", 17) != NULL);
    buf_fini(&rows);
    store_remove(&s);
}

/* --- what is refused ------------------------------------------------------------------------------------------------------ */

struct one_row {
    const char *bucket;
    struct slice key, value;
};

static void one_row_file(const struct one_row *row, char *path)
{
    struct bolt *b = bolt_new();

    for (int pass = 0; pass < 2; pass++) {
        bolt_bucket(b, S(row->bucket));
        bolt_row(b, row->key, row->value);
        cr_assert_eq(bolt_end(b), 0);
    }
    strcpy(path, "/tmp/trine-file-XXXXXX");
    close(mkstemp(path));
    file_write(path, buf_slice(bolt_out(b)));
    bolt_free(b);
}

Test(restore, rows_that_make_no_sense_are_refused_and_nothing_is_left)
{
    static const struct one_row rows[] = {
        {"key", SLICE_LIT("k"), SLICE_LIT("v")},
        {"key", SLICE_LIT("\0\0\0\0\0\0\0\0_\0\0\0\0\0\0\0\0"), SLICE_LIT("\n\1a\x10\2\x18\2 \1")},
        {"key", SLICE_LIT("\0\0\0\0\0\0\0\2-\0\0\0\0\0\0\0\0"), SLICE_LIT("\n\1a\x10\2\x18\2 \1")},
        {"key", SLICE_LIT("\0\0\0\0\0\0\0\2_\0\0\0\0\0\0\0\0x"), SLICE_LIT("\n\1a\x10\2\x18\2 \1")},
        {"key", SLICE_LIT("\0\0\0\0\0\0\0\2_\xff\0\0\0\0\0\0\0"), SLICE_LIT("\n\1a\x10\2\x18\2 \1")},
        {"key", SLICE_LIT("\0\0\0\0\0\0\0\2_\0\0\0\0\0\0\0\0"), SLICE_LIT("\n\1a\x10\2\x18\3 \1")},
        {"key", SLICE_LIT("\0\0\0\0\0\0\0\2_\0\0\0\0\0\0\0\0"), SLICE_LIT("not protobuf")},
        {"key", SLICE_LIT("\0\0\0\0\0\0\0\3_\0\0\0\0\0\0\0\0"), SLICE_LIT("\n\1a\x10\3\x18\3 \1")}, /* where is 2? */
        {"lease", SLICE_LIT("short"), SLICE_LIT("\x08\1\x10\2")},
        {"lease", SLICE_LIT("\0\0\0\0\0\0\0\1"), SLICE_LIT("\x08\1")},
        {"authUsers", SLICE_LIT("me"), SLICE_LIT("\n\5other")},
        {"authRoles", SLICE_LIT("me"), SLICE_LIT("\n\x7f")},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct restored done;
        struct store s;
        struct buf why = BUF_INIT;
        char path[64], left[96];

        one_row_file(&rows[i], path);
        cr_assert_lt(restored(&s, path, &done, &why), 0, "row %zu", i);
        cr_assert(why.len > 0);
        cr_assert_neq(access(s.dir, F_OK), 0, "row %zu", i);
        snprintf(left, sizeof left, "%s/new", s.root);
        cr_assert_neq(access(left, F_OK), 0, "row %zu", i);
        cr_assert_eq(rmdir(s.root), 0, "nothing else either");
        unlink(path);
        buf_fini(&why);
    }
}

/* etcdutl restore --bump-revision puts an empty row at the new revision, and marks all below as compacted. */
Test(restore, a_revision_that_was_made_to_jump_is_kept)
{
    struct bolt *b = bolt_new();
    struct restored done;
    struct store s;
    char path[64] = "/tmp/trine-file-XXXXXX";

    for (int pass = 0; pass < 2; pass++) {
        bolt_bucket(b, S("key"));
        bolt_row(b, SLICE_LIT("\0\0\0\0\0\0\0\2_\0\0\0\0\0\0\0\0"), SLICE_LIT("\n\1a\x10\2\x18\2 \1*\1" "1"));
        bolt_row(b, SLICE_LIT("\0\0\0\0\0\x0f\0\2_\0\0\0\0\0\0\0\0"), SLICE_EMPTY);
        bolt_bucket(b, S("meta"));
        bolt_row(b, S("scheduledCompactRev"), SLICE_LIT("\0\0\0\0\0\x0f\0\2_\0\0\0\0\0\0\0\0"));
        cr_assert_eq(bolt_end(b), 0);
    }
    close(mkstemp(path));
    file_write(path, buf_slice(bolt_out(b)));
    bolt_free(b);
    restored_whole(&s, path, &done);
    cr_assert_eq(mvcc_rev(s.m), 0xf0002);
    cr_assert_eq(mvcc_compact_rev(s.m), 0xf0002);
    cr_assert_str_eq(pairs_at(&s, "a", "", 0), "a=1");
    cr_assert_eq(put(&s, "b", "2"), 0xf0003);
    store_remove(&s);
    unlink(path);
}

Test(backup_file, the_digest_is_wanted_and_right)
{
    struct backup_file f;
    struct buf why = BUF_INIT, bytes = BUF_INIT;
    char path[64] = "/tmp/trine-file-XXXXXX";

    cr_assert_eq(backup_file_open(GOLDEN, &f, &why), 0);
    cr_assert_eq(backup_file_check(&f, &why), 0);
    cr_assert_eq(f.body.len, 20480);
    buf_add_slice(&bytes, f.all);
    backup_file_close(&f);

    close(mkstemp(path));
    bytes.data[9000] ^= 1;
    file_write(path, buf_slice(&bytes));
    cr_assert_eq(backup_file_open(path, &f, &why), 0);
    cr_assert_eq(backup_file_check(&f, &why), E_DAMAGED);
    backup_file_close(&f);
    file_write(path, buf_part(&bytes, 0, 20480));
    cr_assert_eq(backup_file_open(path, &f, &why), 0);
    cr_assert_eq(backup_file_check(&f, &why), E_DAMAGED, "there is none");
    backup_file_close(&f);
    file_write(path, SLICE_EMPTY);
    cr_assert_eq(backup_file_open(path, &f, &why), E_IO);
    unlink(path);
    cr_assert_eq(backup_file_open(path, &f, &why), E_NOT_FOUND);
    cr_assert_eq(backup_file_open("/tmp", &f, &why), E_IO);
    buf_fini(&bytes);
    buf_fini(&why);
}

Test(backup_file, its_status_is_what_etcdctl_says)
{
    struct backup_file f;
    struct backup_status st;
    struct buf why = BUF_INIT;

    cr_assert_eq(backup_file_open(GOLDEN, &f, &why), 0);
    cr_assert_eq(backup_file_status(&f, &st, &why), 0);
    cr_assert_eq(st.hash, 0xbd80474f);
    cr_assert_eq(st.rev, 6);
    cr_assert_eq(st.rows, 13);
    cr_assert_eq(st.bytes, 20480);
    backup_file_close(&f);
}
