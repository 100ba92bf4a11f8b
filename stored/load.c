/* load - the index at start: the newest checkpoint and the records after it, or else all records.
 * Records are the truth; a checkpoint only saves time. A record that does not decode, or a read that LevelDB reports as
 * corrupt, ends the start with its place. So does a revision without a record above the compacted one: each has at least one, and
 * LevelDB does not notice when a table is gone from its lists. */
#include "common/err.h"
#include "common/log.h"
#include "stored/mvcc_inner.h"

static int replay_record(struct mvcc *m, struct slice key, struct slice record, struct buf *why)
{
    int64_t main;
    int32_t sub;
    bool tombstone;
    struct api_key_value kv;
    int err = record_decode(m, key, record, &kv);
    if (err != 0 || rev_key_decode(key, &main, &sub, &tombstone) != 0) {
        buf_printf(why, "%s: the record with key ", db_dir(m->db));
        for (size_t i = 0; i < key.len; i++) {
            buf_printf(why, "%02x", key.data[i]);
        }
        buf_printf(why, " is damaged");
        return E_DAMAGED;
    }
    struct entry *e = index_find(m->ix, kv.key);
    if (e != NULL && rev_cmp(main, sub, e->latest.main, (int32_t)e->latest.sub) <= 0) {
        return 0; /* the checkpoint has it already */
    }
    struct change c = {.main = main, .sub = (uint32_t)sub, .len = (uint32_t)record.len & INT32_MAX, .tombstone = tombstone};
    if (tombstone) {
        index_change(m->ix, e, kv.key, c, 0, 0, 0);
    } else {
        index_change(m->ix, e, kv.key, c, kv.create_revision, kv.version, kv.lease);
    }
    if (main > atomic_load(&m->rev)) {
        buf_printf(why, "%s: revision %lld is above the applied one, %lld", db_dir(m->db), (long long)main,
                   (long long)atomic_load(&m->rev));
        return E_DAMAGED;
    }
    return 0;
}

static int missing(struct mvcc *m, int64_t rev, struct buf *why)
{
    buf_printf(why, "%s: revision %lld is missing", db_dir(m->db), (long long)rev);
    return E_DAMAGED;
}

/* *next: the revision that must come next, if it is above the compacted one. */
static int order_check(struct mvcc *m, struct slice key, int64_t *next, struct buf *why)
{
    int64_t main;
    int32_t sub;
    bool tombstone;
    if (rev_key_decode(key, &main, &sub, &tombstone) != 0 || main < *next) {
        return 0;
    }
    if (main > *next) {
        return missing(m, *next, why);
    }
    ++*next;
    return 0;
}

static int replay(struct mvcc *m, int64_t from, struct buf *why, uint64_t *count)
{
    uint8_t first[REV_KEY_MAX];
    struct slice key, record;
    struct db_iter *it = db_iter_new(m->db, NULL, true);
    int64_t next = MAX(from, MAX(atomic_load(&m->compact_rev), (int64_t)1) + 1);
    int err = 0;
    *count = 0;
    db_iter_seek(it, slice_of(first, rev_key_encode(first, from, 0, false)));
    for (; err == 0 && db_iter_get(it, &key, &record); db_iter_next(it)) {
        if (key.data[0] != REV_PREFIX) {
            break;
        }
        err = replay_record(m, key, record, why);
        if (err == 0) {
            err = order_check(m, key, &next, why);
        }
        ++*count;
    }
    if (err == 0) {
        err = db_iter_status(it);
        if (err != 0) {
            buf_printf(why, "%s: reading records: %s", db_dir(m->db), err_text(err));
        } else if (next <= atomic_load(&m->rev)) {
            err = missing(m, next, why);
        }
    }
    db_iter_free(it);
    return err;
}

/* A checkpoint may be older than the last finished compaction: what that one dropped is gone. */
static void prune_swept(struct mvcc *m)
{
    int64_t swept = atomic_load(&m->swept);
    struct buf at = BUF_INIT;
    struct index_iter it;
    index_seek(m->ix, SLICE_EMPTY, &it);
    for (struct entry *e = index_next(&it); e != NULL; e = index_next(&it)) {
        if (entry_droppable(e, swept, true) == 0) {
            continue;
        }
        buf_reset(&at);
        buf_add_slice(&at, entry_key(e));
        index_prune(m->ix, e, swept, true);
        index_seek(m->ix, buf_slice(&at), &it);
    }
    buf_fini(&at);
}

int index_load(struct mvcc *m, struct buf *why)
{
    int64_t from = 1;
    uint64_t count;
    bool checkpoint = checkpoint_load(m, &from) == 0;
    int err = replay(m, from, why, &count);
    if (err != 0) {
        return err;
    }
    if (checkpoint) {
        prune_swept(m);
    } else {
        atomic_store(&m->swept, -1); /* records that a lost deletion left behind are in the index now: compact once more */
    }
    struct index_totals t = index_totals(m->ix);
    log_info("mvcc: loaded %llu keys, %llu revisions, revision %lld: %s and %llu records", (unsigned long long)t.live,
             (unsigned long long)t.changes, (long long)atomic_load(&m->rev), checkpoint ? "checkpoint" : "no checkpoint",
             (unsigned long long)count);
    return 0;
}
