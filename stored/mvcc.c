/* mvcc - the keyspace as a whole: opening and closing, batches, other modules' keys, headers, figures.
 * What happens inside is in files of their own: change.c (writes), range*.c and txn.c (reads and transactions), compact.c,
 * history.c, hash.c, checkpoint.c, sync.c. */
#include "stored/mvcc.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/pb.h"
#include "stored/lease.h"
#include "stored/mvcc_inner.h"

void own_key(struct buf *out, char kind)
{
    buf_reset(out);
    buf_add_byte(out, META_OWN);
    buf_add_byte(out, (uint8_t)kind);
}

/* --- opening ------------------------------------------------------------------------------------ */

static int number_load(struct mvcc *m, char kind, uint8_t *value, size_t len, struct buf *why)
{
    struct buf key = BUF_INIT, got = BUF_INIT;
    own_key(&key, kind);
    int err = db_get(m->db, NULL, buf_slice(&key), &got);
    if (err == 0 && got.len != len) {
        err = E_DAMAGED;
    }
    if (err == 0) {
        memcpy(value, got.data, len);
    } else if (err != E_NOT_FOUND) {
        buf_printf(why, "%s: key m%c: %s", db_dir(m->db), kind, err_text(err));
    }
    buf_fini(&key);
    buf_fini(&got);
    return err;
}

int64_t own_number(struct mvcc *m, char kind, int64_t fallback)
{
    struct buf why = BUF_INIT;
    uint8_t value[8];
    int err = number_load(m, kind, value, sizeof(value), &why);
    buf_fini(&why);
    return err == 0 ? (int64_t)rev_load64(value) : err == E_NOT_FOUND ? fallback : INT64_MAX;
}

static void format_write(struct mvcc *m)
{
    struct buf key = BUF_INIT;
    uint8_t value[4];
    own_key(&key, 'v');
    rev_store32(value, FORMAT_VERSION);
    db_batch_put(m->batch, buf_slice(&key), slice_of(value, sizeof(value)));
    db_write(m->db, m->batch, true);
    buf_fini(&key);
}

int numbers_load(struct mvcc *m, struct buf *why)
{
    uint8_t value[16];
    int err = number_load(m, 'v', value, 4, why);
    if (err == E_NOT_FOUND) {
        format_write(m);
    } else if (err != 0) {
        return err;
    } else if (rev_load32(value) != FORMAT_VERSION) {
        buf_printf(why, "%s: format %u, this program knows %d", db_dir(m->db), rev_load32(value), FORMAT_VERSION);
        return E_VERSION;
    }
    atomic_store(&m->compact_rev, -1);
    atomic_store(&m->swept, -1);
    err = number_load(m, 'a', value, 16, why);
    if (err == 0) {
        atomic_store(&m->applied, rev_load64(value));
        atomic_store(&m->rev, (int64_t)rev_load64(value + 8));
    } else if (err != E_NOT_FOUND) {
        return err;
    }
    err = number_load(m, 'c', value, 8, why);
    if (err == 0) {
        atomic_store(&m->compact_rev, (int64_t)rev_load64(value));
    } else if (err != E_NOT_FOUND) {
        return err;
    }
    err = number_load(m, 's', value, 8, why);
    if (err == 0) {
        atomic_store(&m->swept, (int64_t)rev_load64(value));
    } else if (err != E_NOT_FOUND) {
        return err;
    }
    err = number_load(m, 'h', value, 8, why);
    if (err != 0 && err != E_NOT_FOUND) {
        return err;
    }
    uint64_t applied = atomic_load(&m->applied);
    m->chain_written = err == 0 ? rev_load64(value) : applied == 0 ? CHAIN_FIRST : 0;
    chain_start(&m->chain, applied, m->chain_written);
    atomic_store(&m->flushed_rev, atomic_load(&m->rev));
    return 0;
}

static void leases_attach(struct mvcc *m)
{
    struct index_iter it;
    index_seek(m->ix, SLICE_EMPTY, &it);
    for (const struct entry *e = index_next(&it); e != NULL && m->leases != NULL; e = index_next(&it)) {
        if (entry_is_live(e) && entry_lease(e) != 0) {
            lease_attach(m->leases, entry_key(e), 0, entry_lease(e));
        }
    }
}

static void locks_init(struct mvcc *m)
{
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    /* Apply must not wait behind an endless row of readers. */
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&m->lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    pthread_mutex_init(&m->write, NULL);
    pthread_mutex_init(&m->upkeep, NULL);
    pthread_mutex_init(&m->sync, NULL);
}

static void mvcc_free(struct mvcc *m)
{
    db_batch_free(m->batch);
    db_close(m->db);
    index_free(m->ix);
    cache_free(m->cache);
    pending_fini(&m->pending);
    deltas_fini(&m->deltas);
    buf_fini(&m->record);
    buf_fini(&m->prev);
    buf_fini(&m->meta_keys);
    buf_fini(&m->prune_from);
    for (int i = 0; i < m->epochs; i++) {
        undo_epoch_fini(&m->epoch[i]);
    }
    pthread_rwlock_destroy(&m->lock);
    pthread_mutex_destroy(&m->write);
    pthread_mutex_destroy(&m->upkeep);
    pthread_mutex_destroy(&m->sync);
    free(m->synced);
    free(m->synced_path);
    free(m);
}

int mvcc_open(struct mvcc **out, const struct mvcc_conf *conf, struct buf *why)
{
    struct mvcc *m = xcalloc(1, sizeof(*m));
    locks_init(m);
    m->leases = conf->leases;
    m->checkpoint_revs_min = conf->checkpoint_revs_min;
    m->ix = index_new();
    m->cache = cache_new(conf->cache_bytes);
    m->batch = db_batch_new();
    atomic_store(&m->rev, 1);
    atomic_store(&m->flushed_rev, 1);
    atomic_store(&m->compact_rev, -1);
    atomic_store(&m->swept, -1);
    int err = file_mkdir_p(conf->dir, 0700);
    if (err != 0) {
        buf_printf(why, "%s: cannot make the directory", conf->dir);
    } else {
        err = synced_open(m, conf, why);
    }
    if (err == 0) {
        err = numbers_load(m, why);
    }
    if (err == 0) {
        err = synced_check(m, why);
    }
    if (err == 0) {
        err = index_load(m, why);
    }
    if (err != 0) {
        if (err == E_DAMAGED && memmem(why->data, why->len, " is damaged at byte ", 20) == NULL) {
            db_find_damage(conf->dir, why);
        }
        mvcc_free(m);
        return err;
    }
    m->deltas.floor = atomic_load(&m->rev);
    if (atomic_load(&m->compact_rev) > atomic_load(&m->swept)) {
        m->orders[m->order_count++] =
            (struct compact_order){.rev = atomic_load(&m->compact_rev), .index = atomic_load(&m->applied)};
    }
    leases_attach(m);
    synced_start(m);
    *out = m;
    return 0;
}

void mvcc_close(struct mvcc *m)
{
    if (m == NULL) {
        return;
    }
    must(!m->in_batch);
    synced_close(m);
    mvcc_free(m);
}

void mvcc_set_hooks(struct mvcc *m, const struct mvcc_hooks *hooks)
{
    m->hooks = *hooks;
}

/* --- facts -------------------------------------------------------------------------------------- */

void mvcc_set_identity(struct mvcc *m, uint64_t cluster_id, uint64_t member_id, uint64_t term)
{
    atomic_store(&m->cluster_id, cluster_id);
    atomic_store(&m->member_id, member_id);
    atomic_store(&m->term, term);
}

static size_t number_size(uint64_t v)
{
    return v == 0 ? 0 : 1 + pb_varint_size(v);
}

void mvcc_add_header(struct mvcc *m, struct buf *out, int64_t rev)
{
    uint64_t cluster = atomic_load(&m->cluster_id), member = atomic_load(&m->member_id), term = atomic_load(&m->term);
    uint64_t revision = rev < 0 ? (uint64_t)atomic_load(&m->rev) : (uint64_t)rev;
    pb_add_head(out, 1, number_size(cluster) + number_size(member) + number_size(revision) + number_size(term));
    pb_add_uint(out, 1, cluster);
    pb_add_uint(out, 2, member);
    pb_add_uint(out, 3, revision);
    pb_add_uint(out, 4, term);
}

int64_t mvcc_rev(const struct mvcc *m)
{
    return atomic_load(&m->rev);
}

int64_t mvcc_compact_rev(const struct mvcc *m)
{
    return atomic_load(&m->compact_rev);
}

uint64_t mvcc_applied(const struct mvcc *m)
{
    return atomic_load(&m->applied);
}

uint64_t mvcc_durable(const struct mvcc *m)
{
    return atomic_load(&m->durable);
}

int64_t mvcc_compacted_physically(const struct mvcc *m)
{
    return atomic_load(&m->swept);
}

void mvcc_defragment(struct mvcc *m)
{
    db_compact_all(m->db);
}

void mvcc_get_stats(struct mvcc *m, struct mvcc_stats *out)
{
    pthread_rwlock_rdlock(&m->lock);
    struct index_totals t = index_totals(m->ix);
    pthread_rwlock_unlock(&m->lock);
    struct cache_stats c = cache_stats(m->cache);
    *out = (struct mvcc_stats){.rev = atomic_load(&m->rev),
                               .compact_rev = atomic_load(&m->compact_rev),
                               .keys = t.live,
                               .revisions = t.changes,
                               .disk_bytes = db_disk_bytes(m->db),
                               .disk_used_bytes = t.record_bytes + t.changes * (REV_KEY_MAX + 8),
                               .index_bytes = t.bytes,
                               .cache_bytes = c.bytes,
                               .cache_hits = c.hits,
                               .cache_misses = c.misses,
                               .puts = atomic_load(&m->puts),
                               .put_bytes = atomic_load(&m->put_bytes),
                               .pruned = atomic_load(&m->pruned),
                               .deletes = atomic_load(&m->deletes),
                               .ranges = atomic_load(&m->ranges),
                               .txns = atomic_load(&m->txns),
                               .compactions_bytes = atomic_load(&m->compaction_bytes)};
    out->disk_used_bytes = MIN(out->disk_used_bytes, out->disk_bytes);
}

/* --- batches ------------------------------------------------------------------------------------ */

void mvcc_batch_begin(struct mvcc *m)
{
    must(!m->in_batch);
    m->in_batch = true;
}

static void marker_add(struct mvcc *m, uint64_t index, uint64_t before)
{
    uint8_t key[10] = {META_OWN, 'b'}, value[8];
    rev_store64(key + 2, index);
    rev_store64(value, before);
    db_batch_put(m->batch, slice_of(key, sizeof(key)), slice_of(value, sizeof(value)));
}

static void applied_add(struct mvcc *m, uint64_t index, int64_t rev)
{
    uint8_t key[2] = {META_OWN, 'a'}, value[16];
    rev_store64(value, index);
    rev_store64(value + 8, (uint64_t)rev);
    db_batch_put(m->batch, slice_of(key, sizeof(key)), slice_of(value, sizeof(value)));
}

static void chain_write(struct mvcc *m)
{
    if (m->chain.hash == m->chain_written) {
        return;
    }
    uint8_t value[8];
    rev_store64(value, m->chain.hash);
    own_put(m, 'h', slice_of(value, sizeof(value)));
}

void mvcc_batch_end(struct mvcc *m, uint64_t index)
{
    must(m->in_batch);
    uint64_t before = atomic_load(&m->applied);
    int64_t rev = atomic_load(&m->rev);
    must(index >= before);
    chain_write(m);

    pthread_mutex_lock(&m->write);
    compact_batch_ends(m, index);
    undo_write(m, index);
    if (index > before) {
        marker_add(m, index, before);
    }
    applied_add(m, index, rev);
    db_write(m->db, m->batch, false);
    atomic_store(&m->flushed_rev, rev);
    atomic_store(&m->applied, index);
    m->chain_written = m->chain.hash;
    pthread_mutex_unlock(&m->write);

    pthread_rwlock_wrlock(&m->lock);
    pending_clear(&m->pending);
    pthread_rwlock_unlock(&m->lock);
    buf_reset(&m->meta_keys);
    m->in_batch = false;
}

void mvcc_chain_add(struct mvcc *m, char kind, uint64_t one, uint64_t two)
{
    chain_add_numbers(&m->chain, kind, one, two);
}

void mvcc_chain_link(struct mvcc *m, uint64_t index)
{
    must(m->in_batch);
    chain_link(&m->chain, index);
}

uint64_t mvcc_chain(const struct mvcc *m, uint64_t above, struct buf *points)
{
    if (!m->in_batch) { /* else the newest points are ahead of what is written */
        chain_points(&m->chain, above, points);
    }
    return m->chain_written;
}

/* --- other modules' keys ------------------------------------------------------------------------ */

/* The key is noted, so that undo.c can remember what it had at the durable point. */
static struct slice meta_note(struct mvcc *m, char prefix, struct slice key)
{
    must(m->in_batch);
    uint8_t len[4];
    rev_store32(len, (uint32_t)key.len + 1);
    buf_add(&m->meta_keys, len, sizeof(len));
    size_t at = m->meta_keys.len;
    buf_add_byte(&m->meta_keys, (uint8_t)prefix);
    buf_add_slice(&m->meta_keys, key);
    return slice_of(m->meta_keys.data + at, key.len + 1);
}

static bool prefix_is_free(char prefix)
{
    return prefix != REV_PREFIX && prefix != 'i' && prefix != META_OWN;
}

void mvcc_meta_put(struct mvcc *m, char prefix, struct slice key, struct slice value)
{
    must(prefix_is_free(prefix));
    db_batch_put(m->batch, meta_note(m, prefix, key), value);
}

void mvcc_meta_delete(struct mvcc *m, char prefix, struct slice key)
{
    must(prefix_is_free(prefix));
    db_batch_delete(m->batch, meta_note(m, prefix, key));
}

void own_put(struct mvcc *m, char kind, struct slice value)
{
    uint8_t byte = (uint8_t)kind;
    db_batch_put(m->batch, meta_note(m, META_OWN, slice_of(&byte, 1)), value);
}

int mvcc_meta_each(struct mvcc *m, char prefix, int (*cb)(void *arg, struct slice key, struct slice value), void *arg)
{
    struct db_iter *it = db_iter_new(m->db, NULL, true);
    struct slice key, value;
    uint8_t first = (uint8_t)prefix;
    int stop = 0;
    for (db_iter_seek(it, slice_of(&first, 1)); stop == 0 && db_iter_get(it, &key, &value); db_iter_next(it)) {
        if (key.data[0] != first) {
            break;
        }
        stop = cb(arg, slice_of(key.data + 1, key.len - 1), value);
    }
    int err = stop != 0 ? stop : db_iter_status(it);
    db_iter_free(it);
    return err;
}
