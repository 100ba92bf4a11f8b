/* restore - see restore.h. From the rows of a bolt file (rows.h lists them) to the pairs of a store, which must come in their order:
 *
 *   'A' auth's state   'R' records   'l' leases   'm' numbers   'r' roles   'u' users
 *
 * The pairs go through dump.h's fill, as those of a snapshot from another member do. The store is as of entry 0: raftd begins a
 * new log. The hash that members compare begins with the file's digest, so members that were restored from different files
 * find out. Nobody knows which compacted records the file still has, so the first start compacts once more. */
#include "stored/restore.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/mem.h"
#include "common/sha256.h"
#include "proto/api.h"
#include "proto/pb.h"
#include "stored/bolt_read.h"
#include "stored/dump.h"
#include "stored/mvcc_inner.h"
#include "stored/stored.h"
#include "stored/swap.h"

#define PART_BYTES MIB

struct restore {
    struct bolt_file *bolt;
    struct fill *fill;
    struct buf part;   /* pairs on their way */
    struct buf record; /* scratch */
    int64_t rev, compact_rev;
    bool auth_enabled;
    uint64_t auth_rev;
    struct restored *done;
    struct buf *why;
};

static int malformed(struct restore *r, const char *what)
{
    buf_printf(r->why, "%s, after revision %lld", what, (long long)r->rev);
    return E_MALFORMED;
}

/* --- pairs -------------------------------------------------------------------------------------------------- */

static int part_flush(struct restore *r)
{
    int err = r->part.len ? fill_part(r->fill, buf_slice(&r->part)) : 0;

    if (err)
        buf_printf(r->why, "rows cannot be written: %s", err_text(err));
    buf_reset(&r->part);
    return err;
}

static int pair_add(struct restore *r, char prefix, struct slice key, struct slice value)
{
    uint8_t *head = buf_extend(&r->part, 8);

    rev_store32(head, (uint32_t)key.len + 1);
    rev_store32(head + 4, (uint32_t)value.len);
    buf_add_byte(&r->part, (uint8_t)prefix);
    buf_add_slice(&r->part, key);
    buf_add_slice(&r->part, value);
    return r->part.len >= PART_BYTES ? part_flush(r) : 0;
}

/* --- rows ------------------------------------------------------------------------------------------------------ */

static int key_row(void *arg, struct slice key, struct slice value)
{
    struct restore *r = arg;
    uint8_t rev_key[REV_KEY_MAX];
    struct api_key_value kv;
    bool tombstone = key.len == 18 && key.data[17] == 't';

    if ((key.len != 17 && !tombstone) || key.data[8] != '_')
        return malformed(r, "a row of bucket key is no revision");
    uint64_t main = rev_load64(key.data), sub = rev_load64(key.data + 9);
    if (main == 0 || main > INT64_MAX || sub > INT32_MAX)
        return malformed(r, "a revision is out of range");
    r->rev = MAX(r->rev, (int64_t)main);
    if (!value.len)
        return 0; /* etcdutl's restore puts such a one to make the revision jump */
    if (api_decode_key_value(value, &kv) != 0 || !kv.key.len ||
        (!tombstone && (kv.mod_revision != (int64_t)main || kv.create_revision <= 0)))
        return malformed(r, "a row of bucket key is no key and value");
    if (tombstone) { /* ours knows its revision, too */
        buf_reset(&r->record);
        pb_add_bytes(&r->record, 1, kv.key);
        pb_add_uint(&r->record, 3, main);
        value = buf_slice(&r->record);
    }
    size_t len = rev_key_encode(rev_key, (int64_t)main, (int32_t)sub, tombstone);
    r->done->records++;
    return pair_add(r, REV_PREFIX, slice_of(rev_key + 1, len - 1), value);
}

/* leasepb.Lease: 1 ID, 2 TTL. */
static int lease_row(void *arg, struct slice key, struct slice value)
{
    struct restore *r = arg;
    uint8_t record[16];
    struct pb_field f;
    int64_t ttl = 0;
    int got;

    while ((got = pb_next(&value, &f)) == 1)
        if (f.number == 2 && f.wire == PB_VARINT)
            ttl = (int64_t)f.varint;
    if (got < 0 || key.len != 8 || ttl <= 0 || ttl > LEASE_TTL_MAX)
        return malformed(r, "a row of bucket lease is no lease");
    rev_store64(record, (uint64_t)ttl);
    rev_store64(record + 8, 0);
    r->done->leases++;
    return pair_add(r, META_LEASE, key, slice_of(record, sizeof record));
}

static int meta_row(void *arg, struct slice key, struct slice value)
{
    struct restore *r = arg;

    /* What was to be compacted counts, be it done or not. */
    if ((slice_eq(key, slice_str("scheduledCompactRev")) || slice_eq(key, slice_str("finishedCompactRev"))) &&
        value.len >= 8)
        r->compact_rev = MAX(r->compact_rev, (int64_t)MIN(rev_load64(value.data), (uint64_t)INT64_MAX));
    return 0;
}

static int auth_row(void *arg, struct slice key, struct slice value)
{
    struct restore *r = arg;

    if (slice_eq(key, slice_str("authEnabled")))
        r->auth_enabled = value.len == 1 && value.data[0] == 1;
    if (slice_eq(key, slice_str("authRevision")) && value.len == 8)
        r->auth_rev = rev_load64(value.data);
    return 0;
}

/* authpb.User and Role begin with their name, which is their key. */
static int name_check(struct restore *r, struct slice key, struct slice value)
{
    struct pb_field f;
    bool named = false;
    int got;

    while ((got = pb_next(&value, &f)) == 1)
        if (f.number == 1 && f.wire == PB_BYTES)
            named = slice_eq(f.bytes, key);
    return got < 0 || !named ? malformed(r, "a user or a role is not what its row says") : 0;
}

static int role_row(void *arg, struct slice key, struct slice value)
{
    struct restore *r = arg;
    int err = name_check(r, key, value);

    r->done->roles++;
    return err ? err : pair_add(r, META_ROLE, key, value);
}

static int user_row(void *arg, struct slice key, struct slice value)
{
    struct restore *r = arg;
    int err = name_check(r, key, value);

    r->done->users++;
    return err ? err : pair_add(r, META_USER, key, value);
}

/* --- all -------------------------------------------------------------------------------------------------------- */

/* A bucket that is not there is empty: not all versions make all of them. */
static int bucket_read(struct restore *r, const char *name, int (*cb)(void *arg, struct slice key, struct slice value))
{
    int err = bolt_each(r->bolt, slice_str(name), cb, r, r->why);

    return err == E_NOT_FOUND ? 0 : err;
}

static int auth_write(struct restore *r)
{
    uint8_t state[16];

    if (!r->auth_rev)
        return 0; /* as it is in a new store */
    rev_store64(state, r->auth_enabled);
    rev_store64(state + 8, r->auth_rev);
    return pair_add(r, META_AUTH, slice_str("state"), slice_of(state, sizeof state));
}

static int number_write(struct restore *r, char kind, uint64_t first, const uint64_t *second)
{
    uint8_t value[16];

    rev_store64(value, first);
    if (second)
        rev_store64(value + 8, *second);
    return pair_add(r, META_OWN, slice_of(&kind, 1), slice_of(value, second ? 16 : 8));
}

/* mvcc's own (mvcc_inner.h): applied and revision, compacted revision, hash, format. */
static int numbers_write(struct restore *r, struct slice body)
{
    uint64_t rev = (uint64_t)MAX(r->rev, r->compact_rev);
    uint8_t digest[SHA256_BYTES], format[4];
    struct sha256 *sha = sha256_new();

    sha256_add(sha, body.data, body.len);
    sha256_end(sha, digest);
    sha256_free(sha);
    rev_store32(format, FORMAT_VERSION);
    int err = number_write(r, 'a', 0, &rev);
    if (!err && r->compact_rev > 0)
        err = number_write(r, 'c', (uint64_t)r->compact_rev, NULL);
    if (!err)
        err = number_write(r, 'h', rev_load64(digest) | 1, NULL);
    return err ? err : pair_add(r, META_OWN, SLICE_LIT("v"), slice_of(format, sizeof format));
}

static int rows_write(struct restore *r, struct slice body)
{
    int err = bucket_read(r, "meta", meta_row);

    if (!err)
        err = bucket_read(r, "auth", auth_row);
    if (!err)
        err = auth_write(r);
    if (!err)
        err = bucket_read(r, "key", key_row);
    if (!err)
        err = bucket_read(r, "lease", lease_row);
    if (!err)
        err = numbers_write(r, body);
    if (!err)
        err = bucket_read(r, "authRoles", role_row);
    if (!err)
        err = bucket_read(r, "authUsers", user_row);
    return err ? err : part_flush(r);
}

static int store_make(struct restore *r, struct slice body, const char *dir)
{
    int err = fill_open(&r->fill, dir, r->why);

    if (err)
        return err;
    err = rows_write(r, body);
    if (err) {
        fill_free(r->fill);
        return err;
    }
    return fill_end(r->fill, 0, r->why);
}

int restore_store(const struct backup_file *f, const char *store_dir, struct restored *done, struct buf *why)
{
    struct restore r = {.rev = 1, .done = done, .why = why};

    *done = (struct restored){0};
    int err = bolt_open(f->body, &r.bolt, why);
    if (err)
        return err;
    char *dir = swap_prepare(store_dir);
    err = store_make(&r, f->body, dir);
    free(dir);
    bolt_close(r.bolt);
    buf_fini(&r.part);
    buf_fini(&r.record);
    if (err) {
        swap_discard(store_dir);
        return err;
    }
    swap_commit(store_dir);
    done->rev = MAX(r.rev, r.compact_rev);
    done->compact_rev = r.compact_rev;
    return 0;
}
