/* compact - forgetting history: the mark at once, the records in slices (semantics.md §9).
 *
 * mvcc_compact [apply] only sets and persists the mark; from then on nobody can ask for less. The physical part runs on a
 * worker, for marks whose raft index is durable. It walks the index by key: a slice's droppable records are
 * (1) listed under the read lock, (2) deleted from LevelDB, (3) dropped from the index under the write lock. Apply may add
 * revisions in between, but those are above the mark and change nothing about what is droppable at it. Since (2) comes before
 * (3), an index checkpoint never lacks a revision whose deletion is not in LevelDB yet. No scan over records: the index knows
 * them all. After the last slice 'm' 's' says so; a run that is cut off begins again, which only repeats deletions.
 *
 * A power cut may take some deletions and leave later ones. A put must not outlive the tombstone behind it, so there are two
 * walks: the first leaves tombstones alone, then all is synced, then the second takes them. And an index checkpoint from
 * before the mark could bring back a key whose tombstone is gone: 'm' 'p', synced before the first deletion, makes it void. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "stored/mvcc_inner.h"

/* Entries under one hold of a lock, and slices of one step. */
#define SLICE_ENTRIES 256
#define STEP_SLICES 16

int mvcc_compact(struct mvcc *m, int64_t rev, struct buf *out)
{
    must(m->in_batch);
    if (rev <= atomic_load(&m->compact_rev)) {
        return E_COMPACTED;
    }
    if (rev > atomic_load(&m->rev)) {
        return E_FUTURE_REV;
    }
    uint8_t value[8];
    rev_store64(value, (uint64_t)rev);
    own_put(m, 'c', slice_of(value, sizeof(value)));
    chain_add_numbers(&m->chain, 'c', (uint64_t)rev, 0);
    pthread_rwlock_wrlock(&m->lock);
    atomic_store(&m->compact_rev, rev);
    pthread_rwlock_unlock(&m->lock);
    pthread_mutex_lock(&m->write);
    if (m->order_count == COMPACT_ORDERS_MAX) {
        m->order_count--; /* the newest two become one: it waits a little longer for its index */
    }
    m->orders[m->order_count++] = (struct compact_order){.rev = rev};
    pthread_mutex_unlock(&m->write);
    mvcc_add_header(m, out, -1);
    return 0;
}

void compact_batch_ends(struct mvcc *m, uint64_t index)
{
    for (int i = 0; i < m->order_count; i++) {
        if (m->orders[i].index == 0) {
            m->orders[i].index = index;
        }
    }
}

/* The newest mark that may be worked on, and all below it, leave the list. -1: none. */
static int64_t take_order(struct mvcc *m, uint64_t durable_index)
{
    pthread_mutex_lock(&m->write);
    int take = 0;
    while (take < m->order_count && m->orders[take].index != 0 && m->orders[take].index <= durable_index) {
        take++;
    }
    int64_t rev = take == 0 ? -1 : m->orders[take - 1].rev;
    m->order_count -= take;
    memmove(m->orders, m->orders + take, (size_t)m->order_count * sizeof(m->orders[0]));
    pthread_mutex_unlock(&m->write);
    return rev;
}

struct slice_work {
    struct buf deletes; /* length(1) key of each record */
    size_t count;
    uint64_t bytes;
    struct buf next; /* where the next slice begins */
    bool last;
};

static void delete_add(struct slice_work *w, struct change c)
{
    uint8_t key[REV_KEY_MAX];
    size_t len = rev_key_encode(key, c.main, (int32_t)c.sub, c.tombstone);
    buf_add_byte(&w->deletes, (uint8_t)len);
    buf_add(&w->deletes, key, len);
    w->count++;
    w->bytes += c.len;
}

/* (1) */
static void list_droppable(struct mvcc *m, struct slice_work *w)
{
    struct index_iter it;
    w->last = true;
    pthread_rwlock_rdlock(&m->lock);
    index_seek(m->ix, buf_slice(&m->prune_from), &it);
    const struct entry *e = index_next(&it);
    for (size_t i = 0; e != NULL; e = index_next(&it), i++) {
        if (i == SLICE_ENTRIES) {
            buf_add_slice(&w->next, entry_key(e));
            w->last = false;
            break;
        }
        const struct change *older;
        size_t count = entry_older(e, &older), drop = entry_droppable(e, m->prune_rev, m->prune_tombstones);
        for (size_t k = 0; k < drop; k++) {
            delete_add(w, k < count ? older[k] : e->latest);
        }
    }
    pthread_rwlock_unlock(&m->lock);
}

/* (2), in batches, so that apply's own writes to LevelDB wait for no more than one of them */
static void delete_records(struct mvcc *m, const struct slice_work *w, size_t batch_limit)
{
    struct db_batch *b = db_batch_new();
    for (size_t at = 0; at < w->deletes.len;) {
        size_t len = w->deletes.data[at];
        db_batch_delete(b, slice_of(w->deletes.data + at + 1, len));
        at += 1 + len;
        if (db_batch_count(b) >= batch_limit || at == w->deletes.len) {
            db_write(m->db, b, false);
        }
    }
    db_batch_free(b);
}

/* (3) */
static void drop_from_index(struct mvcc *m, const struct slice_work *w)
{
    struct entry *drop[SLICE_ENTRIES];
    for (bool more = true; more;) {
        struct index_iter it;
        size_t count = 0;
        pthread_rwlock_wrlock(&m->lock);
        index_seek(m->ix, buf_slice(&m->prune_from), &it);
        struct entry *e = index_next(&it);
        while (e != NULL && count < SLICE_ENTRIES && (w->last || slice_cmp(entry_key(e), buf_slice(&w->next)) < 0)) {
            if (entry_droppable(e, m->prune_rev, m->prune_tombstones) > 0) {
                drop[count++] = e;
            }
            e = index_next(&it);
        }
        for (size_t i = 0; i < count; i++) {
            index_prune(m->ix, drop[i], m->prune_rev, m->prune_tombstones);
        }
        pthread_rwlock_unlock(&m->lock);
        more = count == SLICE_ENTRIES;
    }
}

static void own_number_write(struct mvcc *m, char kind, int64_t rev)
{
    uint8_t key[2] = {META_OWN, (uint8_t)kind}, value[8];
    struct db_batch *b = db_batch_new();
    rev_store64(value, (uint64_t)rev);
    db_batch_put(b, slice_of(key, sizeof(key)), slice_of(value, sizeof(value)));
    db_write(m->db, b, false);
    db_batch_free(b);
}

static void prune_begin(struct mvcc *m, int64_t rev)
{
    m->prune_rev = rev;
    m->prune_tombstones = false;
    buf_reset(&m->prune_from);
    checkpoint_renew(m, rev);
    own_number_write(m, 'p', rev);
    db_sync(m->db, NULL, NULL);
}

/* The end of a walk. */
static void prune_done(struct mvcc *m)
{
    buf_reset(&m->prune_from);
    if (!m->prune_tombstones) {
        db_sync(m->db, NULL, NULL);
        m->prune_tombstones = true;
        return;
    }
    own_number_write(m, 's', m->prune_rev);
    atomic_store(&m->swept, m->prune_rev);
    log_info("compact: finished scheduled compaction at revision %lld", (long long)m->prune_rev);
    m->prune_rev = 0;
}

/* One slice; how many records it deleted. */
static size_t prune_slice(struct mvcc *m, size_t batch_limit)
{
    struct slice_work w = {.last = false};
    list_droppable(m, &w);
    if (w.count > 0) {
        delete_records(m, &w, batch_limit);
        drop_from_index(m, &w);
        atomic_fetch_add(&m->compaction_bytes, w.bytes);
    }
    buf_reset(&m->prune_from);
    buf_add_slice(&m->prune_from, buf_slice(&w.next));
    if (w.last) {
        prune_done(m);
    }
    buf_fini(&w.deletes);
    buf_fini(&w.next);
    return w.count;
}

bool mvcc_compact_step(struct mvcc *m, size_t batch_limit, uint64_t durable_index)
{
    pthread_mutex_lock(&m->upkeep);
    if (m->prune_rev == 0) {
        int64_t rev = take_order(m, durable_index);
        if (rev > 0) {
            prune_begin(m, rev);
        } else if (rev == 0) {
            atomic_store(&m->swept, MAX(atomic_load(&m->swept), (int64_t)0)); /* nothing lies below it */
        }
    }
    size_t deleted = 0;
    for (int i = 0; i < STEP_SLICES && m->prune_rev != 0 && deleted < batch_limit; i++) {
        deleted += prune_slice(m, batch_limit);
    }
    atomic_fetch_add(&m->pruned, deleted);
    bool more = m->prune_rev != 0;
    pthread_mutex_unlock(&m->upkeep);
    return more;
}
