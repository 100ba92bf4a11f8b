/* dump - see dump.h. Read by snap.c on a worker thread, part by part; on the other side written by snap.c the same way.
 * One batch of LevelDB per part, without a sync; fill_end makes all of it durable at once. */
#include "stored/dump.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "stored/mvcc_inner.h"
#include "stored/stored.h"

#define PAIR_HEAD_BYTES 8
#define FILL_BATCH_BYTES ((size_t)1 << 20)

struct dump {
    struct mvcc *m;
    struct db_snapshot *view;
    struct db_iter *it; /* NULL: to be made at `place` */
    struct buf place;
};

struct fill {
    struct db *db;
    struct db_batch *batch;
    struct buf last; /* key */
    uint64_t pairs;
};

/* --- out ---------------------------------------------------------------------------------------------------- */

/* Belongs to this member or to this run. */
static bool is_own(struct slice key)
{
    if (key.len >= 2 && key.data[0] == META_OWN)
        return key.data[1] == 'b' || key.data[1] == 'u';
    return key.data[0] == 'i' || key.data[0] == META_RESULTS || key.data[0] == META_IDENTITY;
}

int dump_open(struct mvcc *m, struct dump **out, uint64_t *index)
{
    const uint8_t applied_key[2] = {META_OWN, 'a'};
    struct buf applied = BUF_INIT;
    struct dump *d = xcalloc(1, sizeof *d);

    d->m = m;
    d->view = db_snapshot_new(m->db);
    int err = db_get(m->db, d->view, slice_of(applied_key, sizeof applied_key), &applied);
    if (!err && applied.len != 16)
        err = E_DAMAGED;
    if (err == E_NOT_FOUND) {
        err = 0; /* nothing was applied yet */
        *index = 0;
    } else if (!err) {
        *index = rev_load64(applied.data);
    }
    buf_fini(&applied);
    if (err)
        dump_close(d);
    else
        *out = d;
    return err;
}

static void pair_add(struct buf *out, struct slice key, struct slice value)
{
    uint8_t *head = buf_extend(out, PAIR_HEAD_BYTES);

    rev_store32(head, (uint32_t)key.len);
    rev_store32(head + 4, (uint32_t)value.len);
    buf_add_slice(out, key);
    buf_add_slice(out, value);
}

int dump_part(struct dump *d, size_t bytes_max, struct buf *out, bool *more)
{
    struct slice key, value;
    size_t before = out->len;

    if (!d->it) {
        d->it = db_iter_new(d->m->db, d->view, true);
        db_iter_seek(d->it, buf_slice(&d->place));
    }
    *more = true;
    while (db_iter_get(d->it, &key, &value)) {
        if (is_own(key)) {
            db_iter_next(d->it);
            continue;
        }
        if (out->len > before && out->len - before + PAIR_HEAD_BYTES + key.len + value.len > bytes_max) {
            buf_reset(&d->place);
            buf_add_slice(&d->place, key);
            return 0;
        }
        pair_add(out, key, value);
        db_iter_next(d->it);
    }
    *more = false;
    return db_iter_status(d->it);
}

struct slice dump_place(const struct dump *d)
{
    return buf_slice(&d->place);
}

void dump_go(struct dump *d, struct slice place)
{
    db_iter_free(d->it);
    d->it = NULL;
    buf_reset(&d->place);
    buf_add_slice(&d->place, place);
}

void dump_close(struct dump *d)
{
    if (!d)
        return;
    db_iter_free(d->it);
    db_snapshot_free(d->m->db, d->view);
    buf_fini(&d->place);
    free(d);
}

/* --- in ------------------------------------------------------------------------------------------------------- */

int fill_open(struct fill **out, const char *dir, struct buf *why)
{
    struct fill *f = xcalloc(1, sizeof *f);
    int err = file_mkdir_p(dir, 0700);

    if (err)
        buf_printf(why, "%s: cannot make the directory", dir);
    else
        err = db_open(&f->db, dir, false, why);
    if (err) {
        free(f);
        return err;
    }
    f->batch = db_batch_new();
    *out = f;
    return 0;
}

/* Takes the next pair off *bytes. 1; 0 at the end; E_MALFORMED. */
static int pair_next(struct slice *bytes, struct slice *key, struct slice *value)
{
    if (bytes->len == 0)
        return 0;
    if (bytes->len < PAIR_HEAD_BYTES)
        return E_MALFORMED;
    size_t key_len = rev_load32(bytes->data), value_len = rev_load32(bytes->data + 4);
    if (key_len == 0 || key_len > bytes->len - PAIR_HEAD_BYTES ||
        value_len > bytes->len - PAIR_HEAD_BYTES - key_len)
        return E_MALFORMED;
    *key = slice_of(bytes->data + PAIR_HEAD_BYTES, key_len);
    *value = slice_of(key->data + key_len, value_len);
    *bytes = slice_of(value->data + value_len, bytes->len - PAIR_HEAD_BYTES - key_len - value_len);
    return 1;
}

/* Keys must ascend, over parts too. *last: the last of them. */
static int part_check(const struct fill *f, struct slice bytes, struct slice *last)
{
    struct slice key, value;
    int got;

    *last = buf_slice(&f->last);
    while ((got = pair_next(&bytes, &key, &value)) == 1) {
        if (slice_cmp(*last, key) >= 0 || is_own(key))
            return E_MALFORMED;
        *last = key;
    }
    return got;
}

int fill_part(struct fill *f, struct slice bytes)
{
    struct slice key, value, last;
    int err = part_check(f, bytes, &last);

    if (err)
        return err;
    if (bytes.len > 0) {
        struct buf kept = BUF_INIT;

        buf_add_slice(&kept, last);
        buf_fini(&f->last);
        f->last = kept;
    }
    while (pair_next(&bytes, &key, &value) == 1) {
        db_batch_put(f->batch, key, value);
        f->pairs++;
        if (db_batch_bytes(f->batch) >= FILL_BATCH_BYTES)
            db_write(f->db, f->batch, false);
    }
    db_write(f->db, f->batch, false);
    return 0;
}

/* What mvcc_open asks of a store that no power cut may have touched: a chain of markers from nothing to `index`. */
static void marker_write(struct fill *f, uint64_t index)
{
    uint8_t key[10] = {META_OWN, 'b'}, before[8];

    rev_store64(key + 2, index);
    rev_store64(before, 0);
    db_batch_put(f->batch, slice_of(key, sizeof key), slice_of(before, sizeof before));
    db_write(f->db, f->batch, true);
    f->pairs++;
}

/* All of it, from the disk, with LevelDB's checksums. */
static int read_again(struct fill *f, struct buf *why)
{
    struct db_iter *it = db_iter_new(f->db, NULL, true);
    struct slice key, value;
    uint64_t pairs = 0;

    for (db_iter_seek(it, SLICE_EMPTY); db_iter_get(it, &key, &value); db_iter_next(it))
        pairs++;
    int err = db_iter_status(it);
    db_iter_free(it);
    if (!err && pairs != f->pairs) {
        buf_printf(why, "%s: %llu pairs were written, %llu are there", db_dir(f->db), (unsigned long long)f->pairs,
                   (unsigned long long)pairs);
        err = E_DAMAGED;
    }
    return err;
}

static int applied_check(struct fill *f, uint64_t index, struct buf *why)
{
    const uint8_t key[2] = {META_OWN, 'a'};
    struct buf applied = BUF_INIT;
    int err = db_get(f->db, NULL, slice_of(key, sizeof key), &applied);

    if (!err && (applied.len != 16 || rev_load64(applied.data) != index))
        err = E_DAMAGED;
    if (err == E_NOT_FOUND)
        err = E_DAMAGED;
    if (err)
        buf_printf(why, "%s: not the state as of entry %llu", db_dir(f->db), (unsigned long long)index);
    buf_fini(&applied);
    return err;
}

/* Opens it once, as it will be opened when it takes its place: damage is found before that, and the index is written down, so
 * that the moment of the change is short. What the opening noted about durability is taken back: it belongs to the directory
 * that the store moves out of, and the marker says the same. */
static int open_once(const char *dir, uint64_t index, struct buf *why)
{
    struct leases *leases = leases_new(1);
    struct mvcc_conf conf = {.dir = dir, .cache_bytes = 1, .leases = leases, .checkpoint_revs_min = 1};
    struct fill f = {.batch = db_batch_new()};
    struct mvcc *m;
    int err = mvcc_open(&m, &conf, why);

    if (!err) {
        mvcc_checkpoint(m);
        mvcc_close(m);
        char *synced = xasprintf("%.*sSYNCED", (int)(strrchr(dir, '/') + 1 - dir), dir);
        if (unlink(synced) != 0)
            fatal("snap: removal of %s", synced);
        free(synced);
        err = db_open(&f.db, dir, false, why);
    }
    if (!err) {
        marker_write(&f, index);
        db_close(f.db);
    }
    db_batch_free(f.batch);
    leases_free(leases);
    return err;
}

int fill_end(struct fill *f, uint64_t index, struct buf *why)
{
    char *dir = xstrdup(db_dir(f->db));
    int err = applied_check(f, index, why);

    if (!err) {
        marker_write(f, index);
        db_sync(f->db, NULL, NULL);
        err = read_again(f, why);
    }
    fill_free(f);
    if (!err)
        err = open_once(dir, index, why);
    free(dir);
    return err;
}

void fill_free(struct fill *f)
{
    if (!f)
        return;
    db_batch_free(f->batch);
    db_close(f->db);
    buf_fini(&f->last);
    free(f);
}
