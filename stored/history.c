/* history - past events of an interval, in order, from the records. One iterator, no lock but for looking up previous
 * values; what is still in the open batch is left for the next call. */
#include "common/err.h"
#include "stored/mvcc_inner.h"

/* The record before a change, if it is of the same life and not compacted; else prev stays empty. */
static int prev_find(struct mvcc *m, struct slice key, int64_t main, struct buf *prev)
{
    struct sight s;
    buf_reset(prev);
    pthread_rwlock_rdlock(&m->lock);
    const struct entry *e = index_find(m->ix, key);
    bool found = main - 1 >= atomic_load(&m->compact_rev) && e != NULL && entry_at(e, main - 1, &s) && !s.at.tombstone;
    pthread_rwlock_unlock(&m->lock);
    int err = found ? record_append(m, s.at, false, prev) : 0;
    return err == E_COMPACTED ? 0 : err;
}

struct scan {
    struct mvcc *m;
    const struct api_interval *in;
    int64_t upto; /* last revision */
    bool want_prev;
    size_t revs_max, bytes_max;
    void (*cb)(void *arg, const struct mvcc_event *ev);
    void *arg;
    int64_t at; /* revision that is being read; 0: none yet */
    size_t revs, bytes;
    struct buf prev;
};

static int scan_record(struct scan *s, struct slice key, struct slice record, struct mvcc_event *ev)
{
    struct api_key_value kv;
    int err = record_decode(s->m, key, record, &kv);
    if (err != 0 || !api_interval_has(s->in, kv.key)) {
        return err;
    }
    ev->key = kv.key;
    ev->kv = record;
    ev->prev = SLICE_EMPTY;
    if (s->want_prev) {
        err = prev_find(s->m, kv.key, ev->main, &s->prev);
        ev->prev = buf_slice(&s->prev);
    }
    if (err == 0) {
        s->bytes += ev->kv.len + ev->prev.len;
        s->cb(s->arg, ev);
    }
    return err;
}

static int scan_run(struct scan *s, struct db_iter *it, int64_t *next)
{
    struct slice key, record;
    for (; db_iter_get(it, &key, &record); db_iter_next(it)) {
        struct mvcc_event ev = {0};
        if (key.data[0] != REV_PREFIX) {
            break;
        }
        int err = rev_key_decode(key, &ev.main, &ev.sub, &ev.is_delete);
        if (err != 0 || ev.main > s->upto) {
            *next = s->upto + 1;
            return err != 0 ? E_DAMAGED : 0;
        }
        if (ev.main != s->at) {
            if (s->revs == s->revs_max || s->bytes >= s->bytes_max) {
                *next = ev.main;
                return 0;
            }
            s->at = ev.main;
            s->revs++;
        }
        err = scan_record(s, key, record, &ev);
        if (err != 0) {
            return err;
        }
    }
    *next = s->upto + 1;
    return db_iter_status(it);
}

int mvcc_history(struct mvcc *m, const struct api_interval *in, int64_t from, int64_t to, bool want_prev, size_t revs_max,
                 size_t bytes_max, void (*cb)(void *arg, const struct mvcc_event *ev), void *arg, int64_t *next)
{
    struct scan s = {.m = m, .in = in, .upto = MIN(to, atomic_load(&m->flushed_rev)), .want_prev = want_prev,
                     .revs_max = MAX(revs_max, (size_t)1), .bytes_max = MAX(bytes_max, (size_t)1), .cb = cb, .arg = arg};
    *next = from;
    if (from < atomic_load(&m->compact_rev)) {
        return E_COMPACTED;
    }
    if (from > s.upto) {
        return 0;
    }
    struct db_iter *it = db_iter_new(m->db, NULL, true);
    /* The mark comes before any deletion: if it is still below, the iterator sees every record from there on. */
    int err = from < atomic_load(&m->compact_rev) ? E_COMPACTED : 0;
    if (err == 0) {
        uint8_t first[REV_KEY_MAX];
        db_iter_seek(it, slice_of(first, rev_key_encode(first, MAX(from, (int64_t)1), 0, false)));
        err = scan_run(&s, it, next);
    }
    db_iter_free(it);
    buf_fini(&s.prev);
    return err;
}
