/* stored/bolt.c, rows.c, backup.c and bolt_read.c: what is written is read back by the reader, which shares no code with the writer; the
 * reader itself is held against a file that etcd 3.4 has written (tests/golden/etcd-3.4.db: put a, put a, put b, delete a, a lease, compaction to
 * 3, put c, a user, a role). etcd's own tools read our files in tests/node/test_backup.sh. */
#include <criterion/criterion.h>

#include "common/file.h"
#include "common/rand.h"
#include "common/sha256.h"
#include "stored/backup.h"
#include "stored/bolt.h"
#include "stored/bolt_read.h"
#include "stored/rev.h"
#include "stored/stored.h"
#include "tests/stored/mvcc_help.h"

#define GOLDEN "tests/golden/etcd-3.4.db"

/* --- writing and reading in one line ---------------------------------------------------------------------- */

typedef void feed(struct bolt *b, void *arg);

static struct buf written(feed *rows, void *arg)
{
    struct bolt *b = bolt_new();
    struct buf file = BUF_INIT;

    rows(b, arg);
    cr_assert_eq(bolt_end(b), 0);
    rows(b, arg);
    cr_assert_eq(bolt_end(b), 0);
    buf_add_slice(&file, buf_slice(bolt_out(b)));
    cr_assert_eq(file.len, bolt_bytes(b));
    cr_assert_eq(file.len % BOLT_PAGE_BYTES, 0);
    bolt_free(b);
    return file;
}

static struct bolt_file *opened(struct slice bytes)
{
    struct buf why = BUF_INIT;
    struct bolt_file *f = NULL;
    int err = bolt_open(bytes, &f, &why);

    cr_assert_eq(err, 0, "%.*s", (int)why.len, (const char *)why.data);
    buf_fini(&why);
    return f;
}

static int note_row(void *arg, struct slice key, struct slice value)
{
    struct buf *out = arg;

    buf_printf(out, "%zu:", key.len);
    buf_add_slice(out, key);
    buf_printf(out, "%zu:", value.len);
    buf_add_slice(out, value);
    return 0;
}

static int note_bucket(void *arg, struct slice name, struct slice value)
{
    struct buf *out = arg;

    UNUSED(value);
    buf_printf(out, "%.*s ", (int)name.len, (const char *)name.data);
    return 0;
}

static struct buf rows_of(struct bolt_file *f, const char *bucket)
{
    struct buf rows = BUF_INIT, why = BUF_INIT;
    int err = bolt_each(f, S(bucket), note_row, &rows, &why);

    cr_assert_eq(err, 0, "%s: %s %.*s", bucket, err_text(err), (int)why.len, (const char *)why.data);
    buf_fini(&why);
    return rows;
}

static bool text_is(struct buf *b, const char *text)
{
    bool same = slice_eq(buf_slice(b), S(text));

    buf_fini(b);
    return same;
}

/* --- the reader and the file of etcd ------------------------------------------------------------------------- */

static struct buf golden(void)
{
    struct buf bytes = BUF_INIT;

    cr_assert_eq(file_read_all(GOLDEN, MIB, &bytes), 0);
    return bytes;
}

Test(bolt, reads_what_etcd_wrote)
{
    struct buf bytes = golden(), names = BUF_INIT, why = BUF_INIT;
    struct bolt_file *f = opened(buf_slice(&bytes));

    cr_assert_eq(bolt_each_bucket(f, note_bucket, &names, &why), 0);
    cr_assert(text_is(&names, "alarm auth authRoles authUsers cluster key lease members members_removed meta "));
    struct buf rows = rows_of(f, "authRoles");
    cr_assert(text_is(&rows, "2:r113:\n\x02r1\x12\x07\x08\x02\x12\x03" "foo"));
    rows = rows_of(f, "alarm");
    cr_assert_eq(rows.len, 0);
    cr_assert_eq(bolt_each(f, S("nothing"), note_row, &rows, &why), E_NOT_FOUND);
    bolt_close(f);
    buf_fini(&bytes);
}

/* Feeds a writer with what a reader finds. */
static int copy_row(void *arg, struct slice key, struct slice value)
{
    bolt_row(arg, key, value);
    return 0;
}

static void copy_feed(struct bolt *b, void *arg)
{
    static const char *const names[] = {"alarm", "auth",  "authRoles", "authUsers",       "cluster",
                                        "key",   "lease", "members",   "members_removed", "meta"};
    struct buf why = BUF_INIT;

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        bolt_bucket(b, S(names[i]));
        cr_assert_eq(bolt_each(arg, S(names[i]), copy_row, b, &why), 0);
    }
}

Test(bolt, the_same_rows_make_the_page_that_etcd_made)
{
    struct buf theirs = golden();
    struct bolt_file *f = opened(buf_slice(&theirs));
    struct buf ours = written(copy_feed, f);
    const uint8_t *a = theirs.data + 3 * BOLT_PAGE_BYTES, *b = ours.data + 3 * BOLT_PAGE_BYTES;
    size_t used = 16;

    /* Up to the end of its last row: what lies behind it is what etcd's memory had there. */
    cr_assert_eq(a[10], 10, "ten buckets, all of them small");
    uint32_t last[4];
    memcpy(last, a + 16 + 9 * 16, sizeof last);
    used = 16 + 9 * 16 + last[1] + last[2] + last[3];
    cr_assert(used > 1000 && used < BOLT_PAGE_BYTES);
    cr_assert_arr_eq(a, b, used);
    cr_assert_eq(ours.len, 4 * BOLT_PAGE_BYTES);
    /* The meta pages differ in the freelist, which ours has, and in the count of transactions. */
    cr_assert_arr_eq(theirs.data, ours.data, 48);
    bolt_close(f);
    buf_fini(&theirs);
    buf_fini(&ours);
}

/* --- shapes --------------------------------------------------------------------------------------------------- */

struct shape {
    size_t count, key_len;
    size_t (*value_len)(size_t i);
};

static void shape_row(const struct shape *s, size_t i, uint8_t *key, struct buf *value)
{
    memset(key, 'k', s->key_len);
    rev_store64(key, i);
    buf_reset(value);
    size_t len = s->value_len(i);
    if (len)
        memset(buf_extend(value, len), (int)('a' + i % 26), len);
}

static void shape_feed(struct bolt *b, void *arg)
{
    const struct shape *s = arg;
    uint8_t *key = xmalloc(s->key_len);
    struct buf value = BUF_INIT;

    bolt_bucket(b, S("a"));
    bolt_row(b, S("first"), S("1"));
    bolt_bucket(b, S("b"));
    for (size_t i = 0; i < s->count; i++) {
        shape_row(s, i, key, &value);
        bolt_row(b, slice_of(key, s->key_len), buf_slice(&value));
    }
    bolt_bucket(b, S("c"));
    bolt_row(b, S("last"), S("2"));
    free(key);
    buf_fini(&value);
}

struct against {
    const struct shape *s;
    size_t at;
    uint8_t *key;
    struct buf value;
};

static int against_row(void *arg, struct slice key, struct slice value)
{
    struct against *a = arg;

    shape_row(a->s, a->at++, a->key, &a->value);
    return slice_eq(key, slice_of(a->key, a->s->key_len)) && slice_eq(value, buf_slice(&a->value)) ? 0 : E_INVALID;
}

static struct buf shape_check(const struct shape *s)
{
    struct buf file = written(shape_feed, (void *)(uintptr_t)s), why = BUF_INIT;
    struct bolt_file *f = opened(buf_slice(&file));
    struct against a = {.s = s, .key = xmalloc(s->key_len)};

    int err = bolt_each(f, S("b"), against_row, &a, &why);
    cr_assert_eq(err, 0, "row %zu: %s %.*s", a.at, err_text(err), (int)why.len, (const char *)why.data);
    cr_assert_eq(a.at, s->count);
    struct buf rows = rows_of(f, "a");
    cr_assert(text_is(&rows, "5:first1:1"));
    rows = rows_of(f, "c");
    cr_assert(text_is(&rows, "4:last1:2"));
    bolt_close(f);
    free(a.key);
    buf_fini(&a.value);
    return file;
}

static size_t small(size_t i)
{
    return 10 + i % 40;
}
static size_t large(size_t i)
{
    return i % 3 == 0 ? 1500000 : i * 1000;
}
/* A page takes exactly one row, or one byte is too many. */
static size_t around_a_page(size_t i)
{
    return BOLT_PAGE_BYTES - 16 - 16 - 17 - 5 + i % 11;
}
static size_t around_half_a_page(size_t i)
{
    return BOLT_PAGE_BYTES / 2 - 8 - 16 - 17 - 5 + i % 11;
}
static size_t nothing(size_t i)
{
    UNUSED(i);
    return 0;
}

Test(bolt, a_tree_of_many_rows_is_deep_and_whole)
{
    struct shape s = {150000, 17, small};
    struct buf file = shape_check(&s);

    cr_assert(file.len > 150000 * 60 && file.len < 150000 * 80, "%zu bytes", file.len);
    buf_fini(&file);
}

Test(bolt, large_values_take_pages_of_their_own)
{
    struct shape s = {10, 18, large};
    struct buf file = shape_check(&s);

    buf_fini(&file);
}

Test(bolt, rows_that_just_fit_and_just_do_not)
{
    for (size_t count = 0; count < 40; count++) {
        struct shape whole = {count, 17, around_a_page}, half = {count, 17, around_half_a_page}, none = {count, 9, nothing};
        struct buf a = shape_check(&whole), b = shape_check(&half), c = shape_check(&none);

        buf_fini(&a);
        buf_fini(&b);
        buf_fini(&c);
    }
}

Test(bolt, a_tree_of_huge_keys_narrows_too)
{
    struct shape s = {300, BOLT_KEY_MAX, nothing};
    struct buf file = shape_check(&s);

    cr_assert(file.len < 300 * 3 * (BOLT_KEY_MAX + BOLT_PAGE_BYTES));
    buf_fini(&file);
}

Test(bolt, other_rows_than_planned_are_noticed)
{
    struct bolt *b = bolt_new();

    bolt_bucket(b, S("a"));
    bolt_row(b, S("k"), S("v"));
    cr_assert_eq(bolt_end(b), 0);
    bolt_bucket(b, S("a"));
    for (uint64_t i = 0; i < 1000; i++) {
        uint8_t key[8];

        rev_store64(key, i);
        bolt_row(b, slice_of(key, 8), S("vvvvvvvvvvvvvvv"));
    }
    cr_assert_eq(bolt_end(b), E_DAMAGED);
    bolt_free(b);
}

/* --- files of strangers ------------------------------------------------------------------------------------------ */

static int count_row(void *arg, struct slice key, struct slice value)
{
    size_t *bytes = arg;

    for (size_t i = 0; i < key.len; i++)
        *bytes += key.data[i];
    for (size_t i = 0; i < value.len; i++)
        *bytes += value.data[i];
    return 0;
}

static int read_all(struct slice bytes)
{
    static const char *const names[] = {"a", "b", "c", "key", "meta"};
    struct buf why = BUF_INIT;
    struct bolt_file *f = NULL;
    size_t sum = 0;
    int err = bolt_open(bytes, &f, &why);

    for (size_t i = 0; i < ARRAY_LEN(names) && (!err || err == E_NOT_FOUND); i++)
        err = bolt_each(f, S(names[i]), count_row, &sum, &why);
    bolt_close(f);
    buf_fini(&why);
    return err == E_NOT_FOUND ? 0 : err;
}

Test(bolt, what_is_no_such_file_is_refused)
{
    struct shape s = {2000, 17, small};
    struct buf file = shape_check(&s);
    struct buf zeros = BUF_INIT;

    memset(buf_extend(&zeros, 65536), 0, 65536);
    cr_assert_eq(read_all(SLICE_EMPTY), E_DAMAGED);
    cr_assert_eq(read_all(S("not a database")), E_DAMAGED);
    cr_assert_eq(read_all(buf_slice(&zeros)), E_DAMAGED);
    cr_assert_eq(read_all(buf_part(&file, 0, file.len - 1)), E_DAMAGED, "cut off");
    /* A damaged meta page: the other one counts; both: refused. */
    file.data[20] ^= 1;
    cr_assert_eq(read_all(buf_slice(&file)), 0);
    file.data[BOLT_PAGE_BYTES + 20] ^= 1;
    cr_assert_eq(read_all(buf_slice(&file)), E_DAMAGED);
    buf_fini(&file);
    buf_fini(&zeros);
}

Test(bolt, a_page_that_points_to_itself_is_damage)
{
    struct shape s = {2000, 17, small};
    struct buf file = shape_check(&s);
    size_t found = 0;

    for (size_t page = 3; page < file.len / BOLT_PAGE_BYTES; page++) {
        uint8_t *at = file.data + page * BOLT_PAGE_BYTES;

        if (at[8] != 1) /* a branch */
            continue;
        memcpy(at + 16 + 8, at, 8);
        found++;
    }
    cr_assert(found > 0);
    cr_assert_eq(read_all(buf_slice(&file)), E_DAMAGED);
    buf_fini(&file);
}

Test(bolt, no_flipped_bit_brings_the_reader_down)
{
    struct shape s = {500, 17, small};
    struct buf file = shape_check(&s), theirs = golden();
    struct rand rand;

    rand_seed(&rand, 11);
    for (int i = 0; i < 4000; i++) {
        struct buf *b = i % 2 ? &file : &theirs;
        size_t at = rand_below(&rand, b->len);
        uint8_t was = b->data[at];

        b->data[at] ^= (uint8_t)(1u << rand_below(&rand, 8));
        int err = read_all(buf_slice(b));
        cr_assert(err == 0 || err == E_DAMAGED || err == E_VERSION);
        b->data[at] = was;
    }
    buf_fini(&file);
    buf_fini(&theirs);
}

/* --- a store's backup -------------------------------------------------------------------------------------------- */

static void grant(struct store *s, int64_t id, uint64_t ttl)
{
    uint8_t key[8], value[16];

    rev_store64(key, (uint64_t)id);
    rev_store64(value, ttl);
    rev_store64(value + 8, 7);
    begin(s);
    mvcc_meta_put(s->m, META_LEASE, slice_of(key, 8), slice_of(value, 16));
    end(s);
}

static struct backup *backup_of(struct store *s)
{
    /* Members 10, and 11 a learner. */
    static const uint8_t members[] = {0x0a, 0, 0x12, 2, 0x08, 10, 0x12, 4, 0x08, 11, 0x28, 1};
    struct rows_facts facts = {.member_id = 10, .term = 3, .members = {members, sizeof members}};
    struct backup *b = NULL;

    cr_assert_eq(backup_open(s->m, &facts, &b), 0);
    return b;
}

/* The whole stream without its digest, which is checked. */
static struct buf fetched(struct backup *b, size_t part)
{
    struct buf all = BUF_INIT;
    bool more = true;

    while (more) {
        size_t before = all.len;

        cr_assert_eq(backup_step(b, part, &all, &more), 0);
        cr_assert(all.len - before <= part);
        cr_assert(!more || all.len == before || all.len - before == part, "only the last part is short");
    }
    cr_assert_eq(all.len, backup_bytes(b));
    cr_assert_eq(all.len % 512, SHA256_BYTES);
    uint8_t digest[SHA256_BYTES];
    struct sha256 *sha = sha256_new();
    sha256_add(sha, all.data, all.len - SHA256_BYTES);
    sha256_end(sha, digest);
    sha256_free(sha);
    cr_assert_arr_eq(digest, all.data + all.len - SHA256_BYTES, SHA256_BYTES);
    all.len -= SHA256_BYTES;
    backup_close(b);
    return all;
}

static bool has_row(struct bolt_file *f, const char *bucket, struct slice key, struct slice value)
{
    struct buf rows = rows_of(f, bucket), want = BUF_INIT;

    note_row(&want, key, value);
    bool found = memmem(rows.data, rows.len, want.data, want.len) != NULL;
    buf_fini(&rows);
    buf_fini(&want);
    return found;
}

#define ROW(f, bucket, key, value) cr_assert(has_row(f, bucket, SLICE_LIT(key), SLICE_LIT(value)))

Test(backup, has_the_rows_that_etcd_would_have)
{
    struct store s;
    store_new(&s);
    put(&s, "a", "1");
    put(&s, "a", "2");
    put(&s, "b", "3");
    del(&s, "a"); /* 5 */
    grant(&s, 0x1234, 300);
    compact(&s, 3);
    put(&s, "c", "4"); /* 6 */
    struct buf file = fetched(backup_of(&s), 1000);
    struct bolt_file *f = opened(buf_slice(&file));

    ROW(f, "key", "\0\0\0\0\0\0\0\3_\0\0\0\0\0\0\0\0", "\n\1a\x10\2\x18\3 \2*\1" "2");
    ROW(f, "key", "\0\0\0\0\0\0\0\5_\0\0\0\0\0\0\0\0t", "\n\1a");
    ROW(f, "key", "\0\0\0\0\0\0\0\6_\0\0\0\0\0\0\0\0", "\n\1c\x10\6\x18\6 \1*\1" "4");
    ROW(f, "lease", "\0\0\0\0\0\0\x12\x34", "\x08\xb4\x24\x10\xac\2");
    ROW(f, "meta", "confState", "{\"voters\":[10],\"learners\":[11],\"auto_leave\":false}");
    ROW(f, "meta", "consistent_index", "\0\0\0\0\0\0\0\7");
    ROW(f, "meta", "scheduledCompactRev", "\0\0\0\0\0\0\0\3_\0\0\0\0\0\0\0\0");
    ROW(f, "meta", "term", "\0\0\0\0\0\0\0\3");
    struct buf rows = rows_of(f, "meta");
    cr_assert_null(memmem(rows.data, rows.len, "finishedCompactRev", 18), "the records are there still");
    buf_fini(&rows);
    bolt_close(f);
    buf_fini(&file);

    compact_physically(&s);
    file = fetched(backup_of(&s), 100000);
    f = opened(buf_slice(&file));
    ROW(f, "meta", "finishedCompactRev", "\0\0\0\0\0\0\0\3_\0\0\0\0\0\0\0\0");
    cr_assert_not(has_row(f, "key", SLICE_LIT("\0\0\0\0\0\0\0\2_\0\0\0\0\0\0\0\0"),
                          SLICE_LIT("\n\1a\x10\2\x18\2 \1*\1" "1")));
    bolt_close(f);
    buf_fini(&file);
    store_remove(&s);
}

Test(backup, of_an_empty_store_is_a_file_too)
{
    struct store s;
    store_new(&s);
    struct buf file = fetched(backup_of(&s), 4096), names = BUF_INIT, why = BUF_INIT;
    struct bolt_file *f = opened(buf_slice(&file));

    cr_assert_eq(bolt_each_bucket(f, note_bucket, &names, &why), 0);
    cr_assert(text_is(&names, "alarm auth authRoles authUsers cluster key lease members members_removed meta "));
    struct buf rows = rows_of(f, "key");
    cr_assert_eq(rows.len, 0);
    ROW(f, "meta", "consistent_index", "\0\0\0\0\0\0\0\0");
    bolt_close(f);
    buf_fini(&file);
    store_remove(&s);
}

Test(backup, is_the_state_of_its_beginning_whatever_happens_meanwhile)
{
    struct store s;
    struct buf all = BUF_INIT;
    bool more = true;
    char key[32];

    store_new(&s);
    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof key, "key/%d", i);
        put(&s, key, "a value of some length, so that there are some pages");
    }
    struct buf before = fetched(backup_of(&s), 8192);
    struct backup *b = backup_of(&s);
    for (int i = 0; more; i++) {
        cr_assert_eq(backup_step(b, 8192, &all, &more), 0);
        snprintf(key, sizeof key, "key/%d", i);
        del(&s, key);
        put(&s, key, "another value");
        if (i == 5) {
            compact(&s, 3001);
            compact_physically(&s);
            mvcc_defragment(s.m);
        }
    }
    backup_close(b);
    cr_assert_eq(all.len, before.len + SHA256_BYTES);
    cr_assert_arr_eq(all.data, before.data, before.len);
    buf_fini(&all);
    buf_fini(&before);
    store_remove(&s);
}

Test(backup, that_nobody_fetches_to_the_end_leaves_nothing_behind)
{
    struct store s;
    struct buf some = BUF_INIT;
    bool more;

    store_new(&s);
    put(&s, "a", "1");
    struct backup *b = backup_of(&s);
    backup_close(b);
    b = backup_of(&s);
    cr_assert_eq(backup_step(b, 1000, &some, &more), 0);
    cr_assert_eq(some.len, 0);
    cr_assert_eq(backup_bytes(b) > 0, more);
    cr_assert_eq(backup_step(b, 1000, &some, &more), 0);
    cr_assert_eq(some.len, 1000);
    backup_close(b);
    buf_fini(&some);
    store_remove(&s);
}

Test(backup, of_members_that_nobody_understands_is_refused)
{
    struct store s;
    struct backup *b;
    struct rows_facts facts = {.members = SLICE_LIT("\x12\x7f")};

    store_new(&s);
    cr_assert_eq(backup_open(s.m, &facts, &b), E_MALFORMED);
    store_remove(&s);
}

/* --- the hash over all ---------------------------------------------------------------------------------------------- */

static uint32_t hash_of(struct store *s)
{
    uint32_t hash;
    int64_t rev;

    cr_assert_eq(rows_hash(s->m, &hash, &rev), 0);
    cr_assert_eq(rev, mvcc_rev(s->m));
    return hash;
}

Test(hash_all, is_equal_for_equal_states_and_no_others)
{
    struct store s, t;

    store_new(&s);
    store_new(&t);
    cr_assert_eq(hash_of(&s), hash_of(&t));
    put(&s, "a", "1");
    cr_assert_neq(hash_of(&s), hash_of(&t));
    put(&t, "a", "1");
    cr_assert_eq(hash_of(&s), hash_of(&t));
    grant(&s, 5, 10);
    cr_assert_neq(hash_of(&s), hash_of(&t));
    grant(&t, 5, 11);
    cr_assert_neq(hash_of(&s), hash_of(&t));
    grant(&t, 5, 10);
    cr_assert_eq(hash_of(&s), hash_of(&t), "another index is no other state");
    store_reopen(&t);
    cr_assert_eq(hash_of(&s), hash_of(&t));
    store_remove(&s);
    store_remove(&t);
}
