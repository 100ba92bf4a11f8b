/* record - reading the record of a change: from the cache, from the open batch, from LevelDB.
 * The open batch is asked before LevelDB: it is written there before it is cleared, so a record is always in one of
 * the two. Who wants many records (range.c) gets them in revision order from one iterator, because that is how
 * they lie on disk, and has told beforehand where each belongs. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "stored/mvcc_inner.h"

/* An iterator walks this many records to reach the next wanted one before it seeks. */
#define WALK_MAX 8
/* So many missing records are read one by one: an iterator costs more to make. */
#define FEW_RECORDS 4

void pending_add(struct pending *p, int64_t main, uint32_t sub, struct slice record)
{
    if (p->count == p->cap) {
        p->cap = p->cap == 0 ? 64 : p->cap * 2;
        p->items = xrealloc(p->items, p->cap * sizeof(*p->items));
    }
    p->items[p->count++] =
        (struct pending_item){.main = main, .sub = sub, .len = (uint32_t)record.len, .at = p->bytes.len};
    buf_add_slice(&p->bytes, record);
}

void pending_clear(struct pending *p)
{
    p->count = 0;
    if (p->bytes.cap > 1024 * 1024) {
        buf_fini(&p->bytes);
    }
    buf_reset(&p->bytes);
}

void pending_fini(struct pending *p)
{
    buf_fini(&p->bytes);
    free(p->items);
    *p = (struct pending){0};
}

static bool pending_get(const struct pending *p, struct change c, uint8_t *to)
{
    size_t lo = 0, hi = p->count;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int order = rev_cmp(p->items[mid].main, (int32_t)p->items[mid].sub, c.main, (int32_t)c.sub);
        if (order == 0) {
            memcpy(to, p->bytes.data + p->items[mid].at, MIN(p->items[mid].len, (uint32_t)c.len));
            return p->items[mid].len == c.len;
        }
        if (order < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return false;
}

static int length_differs(const struct mvcc *m, struct change c, size_t got)
{
    log_error("mvcc: %s: the record of revision %lld.%u has %zu bytes, not %u: the store is damaged", db_dir(m->db),
              (long long)c.main, c.sub, got, (unsigned)c.len);
    return E_DAMAGED;
}

static int read_from_db(struct mvcc *m, const struct db_snapshot *snap, struct change c, uint8_t *to)
{
    uint8_t key[REV_KEY_MAX];
    size_t key_len = rev_key_encode(key, c.main, (int32_t)c.sub, c.tombstone);
    struct buf value = BUF_INIT;
    int err = db_get(m->db, snap, slice_of(key, key_len), &value);
    if (err == E_NOT_FOUND) {
        err = E_COMPACTED;
    } else if (err == 0 && value.len != c.len) {
        err = length_differs(m, c, value.len);
    } else if (err == 0) {
        memcpy(to, value.data, value.len);
    }
    buf_fini(&value);
    return err;
}

static bool read_from_memory(struct mvcc *m, struct change c, bool locked, uint8_t *to)
{
    if (cache_get(m->cache, c.main, c.sub, to, c.len)) {
        return true;
    }
    if (c.main <= atomic_load(&m->flushed_rev)) {
        return false;
    }
    if (!locked) {
        pthread_rwlock_rdlock(&m->lock);
    }
    bool found = pending_get(&m->pending, c, to);
    if (!locked) {
        pthread_rwlock_unlock(&m->lock);
    }
    return found;
}

int record_read(struct mvcc *m, struct change c, bool locked, uint8_t *to)
{
    if (read_from_memory(m, c, locked, to)) {
        return 0;
    }
    int err = read_from_db(m, NULL, c, to);
    if (err == 0) {
        cache_put(m->cache, c.main, c.sub, slice_of(to, c.len));
    }
    return err;
}

int record_append(struct mvcc *m, struct change c, bool locked, struct buf *out)
{
    size_t before = out->len;
    int err = record_read(m, c, locked, buf_extend(out, c.len));
    if (err != 0) {
        out->len = before;
    }
    return err;
}

static int place_cmp(const void *a, const void *b)
{
    const struct record_place *x = a, *y = b;
    return rev_cmp(x->at.main, (int32_t)x->at.sub, y->at.main, (int32_t)y->at.sub);
}

/* Moves the iterator to exactly this record. */
static int iter_find(struct mvcc *m, struct db_iter *it, struct change c, bool *placed, struct slice *value)
{
    uint8_t want[REV_KEY_MAX];
    struct slice want_key = {want, rev_key_encode(want, c.main, (int32_t)c.sub, c.tombstone)}, key;
    for (int step = 0; *placed && step < WALK_MAX; step++) {
        if (!db_iter_get(it, &key, value) || slice_cmp(key, want_key) >= 0) {
            break;
        }
        db_iter_next(it);
    }
    if (!*placed || !db_iter_get(it, &key, value) || slice_cmp(key, want_key) < 0) {
        db_iter_seek(it, want_key);
        *placed = true;
    }
    if (!db_iter_get(it, &key, value)) {
        int err = db_iter_status(it);
        return err != 0 ? err : E_COMPACTED;
    }
    if (!slice_eq(key, want_key)) {
        return E_COMPACTED;
    }
    return value->len == c.len ? 0 : length_differs(m, c, value->len);
}

int record_read_many(struct mvcc *m, const struct db_snapshot *snap, bool locked, struct record_place *places, size_t count,
                     uint8_t *to)
{
    size_t missing = 0;
    for (size_t i = 0; i < count; i++) {
        struct record_place p = places[i];
        if (!read_from_memory(m, p.at, locked, to + p.offset)) {
            places[missing++] = p;
        }
    }
    if (missing <= FEW_RECORDS) {
        int err = 0;
        for (size_t i = 0; i < missing && err == 0; i++) {
            struct change c = places[i].at;
            err = read_from_db(m, snap, c, to + places[i].offset);
            if (err == 0) {
                cache_put(m->cache, c.main, c.sub, slice_of(to + places[i].offset, c.len));
            }
        }
        return err;
    }
    qsort(places, missing, sizeof(*places), place_cmp);
    struct db_iter *it = db_iter_new(m->db, snap, false);
    bool placed = false;
    int err = 0;
    for (size_t i = 0; i < missing && err == 0; i++) {
        struct slice value;
        err = iter_find(m, it, places[i].at, &placed, &value);
        if (err == 0) {
            memcpy(to + places[i].offset, value.data, value.len);
            if (snap == NULL) { /* a result of moderate size; a large one would only push out what is hot */
                cache_put(m->cache, places[i].at.main, places[i].at.sub, value);
            }
        }
    }
    db_iter_free(it);
    return err;
}

int record_decode(const struct mvcc *m, struct slice rev_key, struct slice record, struct api_key_value *kv)
{
    int64_t main = 0;
    int32_t sub = 0;
    bool tombstone = false;
    int err = rev_key_decode(rev_key, &main, &sub, &tombstone);
    if (err == 0) {
        err = api_decode_key_value(record, kv);
    }
    if (err != 0 || kv->key.len == 0 || kv->mod_revision != main || (!tombstone && kv->create_revision <= 0)) {
        log_error("mvcc: %s: the record of revision %lld.%d is damaged", db_dir(m->db), (long long)main, (int)sub);
        return E_DAMAGED;
    }
    return 0;
}
