/* change - a revision is born: put and delete, as commands of their own and inside transactions.
 * Comes from apply.c through mvcc.h; a change goes to the index, to the open batch, to the cache, to leases, and to
 * the hooks (watch). A command's changes share one main revision, which exists from the command's end on. Checks come
 * first: once a change is made the command cannot fail, except by a damaged disk, which is fatal. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/pb.h"
#include "stored/lease.h"
#include "stored/mvcc_inner.h"

void cmd_begin(struct mvcc *m)
{
    must(m->in_batch);
    pthread_rwlock_wrlock(&m->lock);
    m->cmd_sub = 0;
}

void cmd_end(struct mvcc *m)
{
    if (m->cmd_sub > 0) {
        atomic_store(&m->rev, atomic_load(&m->rev) + 1);
    }
    pthread_rwlock_unlock(&m->lock);
}

int64_t cmd_rev(const struct mvcc *m)
{
    return atomic_load(&m->rev) + (m->cmd_sub > 0);
}

void header_inner(struct buf *out, int64_t rev)
{
    pb_add_head(out, 1, rev == 0 ? 0 : 1 + pb_varint_size((uint64_t)rev));
    pb_add_int(out, 3, rev);
}

static void header_add(struct mvcc *m, bool inner, struct buf *out, int64_t rev)
{
    if (inner) {
        header_inner(out, rev);
    } else {
        mvcc_add_header(m, out, rev);
    }
}

/* The record of a live entry; apply cannot go on without it. */
static void prev_read(struct mvcc *m, const struct entry *e, struct buf *out)
{
    int err = record_append(m, e->latest, true, out);
    if (err != 0) {
        fatalx("mvcc: %s: cannot read revision %lld.%u, which apply needs: %s", db_dir(m->db),
               (long long)e->latest.main, e->latest.sub, err_text(err));
    }
}

static bool watcher_wants_prev(const struct mvcc *m, struct slice key)
{
    return m->hooks.want_prev != NULL && m->hooks.want_prev(m->hooks.arg, key);
}

/* Writes m->record as the next change of the command and tells everybody. */
static void change_make(struct mvcc *m, struct entry *e, const struct api_key_value *kv, bool tombstone, bool detach,
                        struct slice prev)
{
    int64_t old_lease = e != NULL && entry_is_live(e) ? entry_lease(e) : 0;
    bool was_live = e != NULL && entry_is_live(e);
    struct slice record = buf_slice(&m->record);
    struct change c = {.main = kv->mod_revision, .sub = m->cmd_sub++, .len = (uint32_t)record.len & INT32_MAX,
                       .tombstone = tombstone};
    index_change(m->ix, e, kv->key, c, kv->create_revision, kv->version, kv->lease);
    if (was_live == tombstone) {
        deltas_add(&m->deltas, c.main, kv->key, tombstone ? -1 : 1);
    }
    uint8_t key[REV_KEY_MAX];
    chain_add(&m->chain, record);
    db_batch_put(m->batch, slice_of(key, rev_key_encode(key, c.main, (int32_t)c.sub, tombstone)), record);
    pending_add(&m->pending, c.main, c.sub, record);
    if (!tombstone) {
        cache_put(m->cache, c.main, c.sub, record);
    }
    if (m->leases != NULL && detach && old_lease != kv->lease) {
        lease_attach(m->leases, kv->key, old_lease, kv->lease);
    }
    if (m->hooks.on_event != NULL) {
        struct mvcc_event ev = {.main = c.main, .sub = (int32_t)c.sub, .is_delete = tombstone, .key = kv->key,
                                .kv = record, .prev = prev};
        m->hooks.on_event(m->hooks.arg, &ev);
    }
}

/* --- put ---------------------------------------------------------------------------------------- */

int put_check(struct mvcc *m, const struct api_put *rq, bool in_txn)
{
    bool lease_missing = rq->lease != 0 && (m->leases == NULL || !lease_exists(m->leases, rq->lease));
    if (lease_missing && !in_txn) {
        return E_LEASE_NOT_FOUND;
    }
    if (rq->ignore_value || rq->ignore_lease) {
        const struct entry *e = index_find(m->ix, rq->key);
        if (e == NULL || !entry_is_live(e)) {
            return E_KEY_NOT_FOUND;
        }
    }
    return lease_missing ? E_LEASE_NOT_FOUND : 0;
}

void put_run(struct mvcc *m, const struct api_put *rq, bool inner, struct buf *out)
{
    struct entry *e = index_find(m->ix, rq->key);
    bool live = e != NULL && entry_is_live(e);
    bool watched = live && watcher_wants_prev(m, rq->key);
    struct api_key_value kv = {.key = rq->key, .value = rq->value, .lease = rq->lease,
                               .mod_revision = atomic_load(&m->rev) + 1, .version = 1};
    kv.create_revision = kv.mod_revision;
    buf_reset(&m->prev);
    if (live) {
        kv.create_revision = e->create;
        kv.version = entry_version(e) + 1;
        kv.lease = rq->ignore_lease ? entry_lease(e) : rq->lease;
    }
    if (live && (rq->prev_kv || rq->ignore_value || watched)) {
        prev_read(m, e, &m->prev);
    }
    if (rq->ignore_value) {
        struct api_key_value old;
        must(api_decode_key_value(buf_slice(&m->prev), &old) == 0);
        kv.value = old.value;
    }
    buf_reset(&m->record);
    api_encode_key_value(&m->record, &kv);
    change_make(m, e, &kv, false, true, watched ? buf_slice(&m->prev) : SLICE_EMPTY);
    header_add(m, inner, out, kv.mod_revision);
    if (rq->prev_kv && live) {
        pb_add_message(out, 2, buf_slice(&m->prev));
    }
    atomic_fetch_add_explicit(&m->puts, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->put_bytes, m->record.len, memory_order_relaxed);
}

int mvcc_put(struct mvcc *m, const struct api_put *rq, struct buf *out)
{
    cmd_begin(m);
    int err = put_check(m, rq, false);
    if (err == 0) {
        put_run(m, rq, false, out);
    }
    cmd_end(m);
    return err;
}

/* --- delete ------------------------------------------------------------------------------------- */

/* detach false: the lease itself is going away, and the keys are its own slices. */
static void delete_one(struct mvcc *m, struct entry *e, bool want_prev, bool detach, struct buf *prevs)
{
    bool watched = watcher_wants_prev(m, entry_key(e));
    buf_reset(&m->prev);
    if (want_prev || watched) {
        prev_read(m, e, &m->prev);
    }
    struct api_key_value kv = {.key = entry_key(e), .mod_revision = atomic_load(&m->rev) + 1};
    buf_reset(&m->record);
    api_encode_key_value(&m->record, &kv);
    change_make(m, e, &kv, true, detach, watched ? buf_slice(&m->prev) : SLICE_EMPTY);
    if (want_prev) {
        pb_add_message(prevs, 3, buf_slice(&m->prev));
    }
    atomic_fetch_add_explicit(&m->deletes, 1, memory_order_relaxed);
}

/* The live entries of an interval; given: free(). Deleting moves no entry, so the pointers stay good. */
static size_t live_entries(const struct mvcc *m, const struct api_interval *in, struct entry ***out)
{
    size_t count = 0, cap = 0;
    struct index_iter it;
    *out = NULL;
    index_seek(m->ix, in->key, &it);
    for (struct entry *e = index_next(&it); e != NULL && api_interval_has(in, entry_key(e)); e = index_next(&it)) {
        if (!entry_is_live(e)) {
            continue;
        }
        if (count == cap) {
            cap = cap == 0 ? 16 : cap * 2;
            *out = xrealloc(*out, cap * sizeof(**out));
        }
        (*out)[count++] = e;
    }
    return count;
}

void delete_run(struct mvcc *m, const struct api_delete *rq, bool inner, struct buf *out)
{
    struct api_interval in = api_interval(rq->key, rq->range_end);
    struct buf prevs = BUF_INIT;
    size_t deleted = 0;
    if (in.single) {
        struct entry *e = index_find(m->ix, rq->key);
        if (e != NULL && entry_is_live(e)) {
            delete_one(m, e, rq->prev_kv, true, &prevs);
            deleted = 1;
        }
    } else {
        struct entry **entries;
        deleted = live_entries(m, &in, &entries);
        for (size_t i = 0; i < deleted; i++) {
            delete_one(m, entries[i], rq->prev_kv, true, &prevs);
        }
        free(entries);
    }
    header_add(m, inner, out, cmd_rev(m));
    pb_add_int(out, 2, (int64_t)deleted);
    buf_add_slice(out, buf_slice(&prevs));
    buf_fini(&prevs);
}

int mvcc_delete(struct mvcc *m, const struct api_delete *rq, struct buf *out)
{
    cmd_begin(m);
    delete_run(m, rq, false, out);
    cmd_end(m);
    return 0;
}

void mvcc_delete_keys(struct mvcc *m, const struct slice *keys, size_t count)
{
    cmd_begin(m);
    for (size_t i = 0; i < count; i++) {
        struct entry *e = index_find(m->ix, keys[i]);
        if (e != NULL && entry_is_live(e)) {
            delete_one(m, e, false, false, NULL);
        }
    }
    cmd_end(m);
}
