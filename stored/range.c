/* range - one range request against the index: which revision, how many keys, which records (semantics.md §3).
 *
 * The index is walked in slices of the read lock, all at one pinned revision: what is written meanwhile has a higher
 * revision and is not seen. Only a compaction that passes the pinned revision disturbs; then the walk says so. The count
 * comes from the tree when the revision is the newest, from the deltas when it is recent, from a full walk otherwise. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/pb.h"
#include "stored/range_inner.h"

/* Entries looked at under one hold of the read lock. */
#define SLICE_ENTRIES 512

void range_init(struct range *r, const struct api_range *rq, bool locked)
{
    *r = (struct range){.rq = rq, .in = api_interval(rq->key, rq->range_end), .locked = locked};
    r->plain = !rq->keys_only && !range_is_filtered(rq) && !range_is_sorted(rq);
    r->items = r->few;
    r->memory = r->few_memory;
    r->item_cap = RANGE_FEW;
}

void range_fini(struct range *r)
{
    if (r->items != r->few) {
        free(r->items);
    }
    if (r->memory != r->few_memory) {
        free(r->memory);
    }
    buf_fini(&r->bytes);
    free(r->found);
    buf_fini(&r->keys);
    buf_fini(&r->records);
}

static void items_add(struct range *r, struct change c)
{
    if (r->item_count == r->item_cap) {
        struct change *old = r->items;
        r->item_cap *= 4;
        r->items = xrealloc(old == r->few ? NULL : old, r->item_cap * sizeof(*r->items));
        if (old == r->few) {
            memcpy(r->items, r->few, sizeof(r->few));
            r->memory = NULL;
        }
    }
    r->items[r->item_count++] = c;
}

static void found_add(struct range *r, const struct entry *e, const struct sight *s)
{
    if (r->found_count == r->found_cap) {
        r->found_cap = r->found_cap == 0 ? 16 : r->found_cap * 2;
        r->found = xrealloc(r->found, r->found_cap * sizeof(*r->found));
    }
    struct found *f = &r->found[r->found_count++];
    *f = (struct found){.at = s->at, .known = s->newest, .key_len = e->key_len, .key = r->keys.len};
    buf_add_slice(&r->keys, entry_key(e));
    if (s->newest) {
        f->create = e->create;
        f->version = entry_version(e);
    }
}

/* Rule 1 of §3: how many keys the store reads at most; 0: all. */
static size_t walk_limit(const struct api_range *rq)
{
    bool in_order = rq->sort_order == API_SORT_NONE || (rq->sort_order == API_SORT_ASCEND && rq->sort_target == API_BY_KEY);
    if (rq->limit <= 0 || !in_order || range_is_filtered(rq)) {
        return 0;
    }
    return rq->limit == INT64_MAX ? SIZE_MAX : (size_t)rq->limit + 1;
}

struct walk {
    size_t limit;      /* results wanted; 0: all */
    bool count_known;
    size_t seen;       /* keys live at the revision */
    struct buf next;   /* where the next slice begins */
    bool done;
};

static size_t results(const struct range *r)
{
    return r->plain ? r->item_count : r->found_count;
}

/* Under the lock: up to SLICE_ENTRIES entries from w->next on. */
static void walk_slice(struct mvcc *m, struct range *r, struct walk *w)
{
    struct index_iter it;
    index_seek(m->ix, buf_slice(&w->next), &it);
    for (size_t i = 0;; i++) {
        const struct entry *e = index_next(&it);
        if (e == NULL || !api_interval_has(&r->in, entry_key(e))) {
            break;
        }
        if (!r->locked && i == SLICE_ENTRIES) {
            buf_reset(&w->next);
            buf_add_slice(&w->next, entry_key(e));
            return;
        }
        struct sight s;
        if (!entry_at(e, r->rev, &s) || s.at.tombstone) {
            continue;
        }
        w->seen++;
        if (!r->rq->count_only && (w->limit == 0 || results(r) < w->limit)) {
            if (r->plain) {
                items_add(r, s.at);
            } else {
                found_add(r, e, &s);
            }
        }
        if (w->count_known && w->limit != 0 && results(r) == w->limit) {
            break;
        }
    }
    w->done = true;
}

/* Under the lock, once: the revision, and the count if it costs no walk. */
static int walk_begin(struct mvcc *m, struct range *r, int64_t pin, struct walk *w)
{
    int64_t now = cmd_rev(m);
    if (!r->locked) {
        now = atomic_load(&m->rev);
    }
    r->header_rev = pin >= 0 ? pin : now;
    r->rev = r->rq->revision <= 0 ? r->header_rev : r->rq->revision;
    if (r->rev > r->header_rev) {
        return E_FUTURE_REV;
    }
    if (r->rev < atomic_load(&m->compact_rev)) {
        return E_COMPACTED;
    }
    int64_t since = 0;
    if (r->in.single) {
        return 0; /* the walk is the count */
    }
    w->count_known = r->rev == now || deltas_since(&m->deltas, r->rev, &r->in, &since);
    if (w->count_known) {
        r->count = (int64_t)index_count(m->ix, &r->in) + since;
        w->done = r->rq->count_only;
    }
    return 0;
}

/* One key needs no walk. */
static void look_up(struct mvcc *m, struct range *r, struct walk *w)
{
    const struct entry *e = index_find(m->ix, r->in.key);
    struct sight s;
    w->done = true;
    if (e == NULL || !entry_at(e, r->rev, &s) || s.at.tombstone) {
        return;
    }
    w->seen = 1;
    if (!r->rq->count_only && r->plain) {
        items_add(r, s.at);
    } else if (!r->rq->count_only) {
        found_add(r, e, &s);
    }
}

static int walk_run(struct mvcc *m, struct range *r, int64_t pin, struct walk *w, bool *passed)
{
    bool begun = false;
    int err = 0;
    while (!w->done && err == 0) {
        if (!r->locked) {
            pthread_rwlock_rdlock(&m->lock);
        }
        if (!begun) {
            err = walk_begin(m, r, pin, w);
            *passed = err == E_COMPACTED && r->rq->revision <= 0;
            begun = true;
        } else if (r->rev < atomic_load(&m->compact_rev)) {
            err = E_COMPACTED;
            *passed = true;
        }
        if (err == 0 && r->in.single) {
            look_up(m, r, w);
        } else if (err == 0 && !w->done) {
            walk_slice(m, r, w);
        }
        if (!r->locked) {
            pthread_rwlock_unlock(&m->lock);
        }
    }
    return err;
}

int range_resolve(struct mvcc *m, struct range *r, int64_t pin, bool *passed)
{
    struct walk w = {.limit = walk_limit(r->rq)};
    *passed = false;
    if (!r->in.single) {
        buf_add_slice(&w.next, r->in.key);
    }
    int err = walk_run(m, r, pin, &w, passed);
    buf_fini(&w.next);
    if (err != 0) {
        return err;
    }
    if (!w.count_known) {
        r->count = (int64_t)w.seen;
    }
    if (r->rq->count_only) {
        return 0;
    }
    if (!r->plain) {
        err = range_finish_found(m, r);
        *passed = err == E_COMPACTED;
        return err;
    }
    if (r->rq->limit > 0 && r->item_count > (size_t)r->rq->limit) {
        r->item_count = (size_t)r->rq->limit;
        r->more = true;
    }
    return 0;
}

/* --- bytes -------------------------------------------------------------------------------------- */

static size_t memory_of(const struct range *r, size_t i)
{
    return r->memory == NULL ? 0 : r->memory[i];
}

int range_read_all(struct mvcc *m, struct range *r)
{
    size_t count = 0;
    struct record_place few[RANGE_FEW];
    struct record_place *places =
        r->item_count <= RANGE_FEW ? few : xmalloc(r->item_count * sizeof(*places));
    if (r->memory == NULL) {
        r->memory = xcalloc(r->item_cap, sizeof(*r->memory));
    }
    for (size_t i = 0; i < r->item_count; i++) {
        if (r->memory[i] == 0) {
            r->memory[i] = r->bytes.len + 1;
            places[count++] = (struct record_place){.at = r->items[i], .offset = r->bytes.len};
            buf_extend(&r->bytes, r->items[i].len);
        }
    }
    int err = record_read_many(m, NULL, r->locked, places, count, r->bytes.data);
    if (places != few) {
        free(places);
    }
    return err;
}

size_t range_kvs_size(const struct range *r, size_t from, size_t to)
{
    size_t size = 0;
    for (size_t i = from; i < to; i++) {
        size += pb_head_size(2, r->items[i].len) + r->items[i].len;
    }
    return size;
}

int range_add_kvs(struct mvcc *m, const struct db_snapshot *snap, const struct range *r, size_t from, size_t to,
                  struct buf *out)
{
    size_t before = out->len, count = 0;
    struct record_place *places = NULL;
    buf_reserve(out, range_kvs_size(r, from, to));
    for (size_t i = from; i < to; i++) {
        pb_add_head(out, 2, r->items[i].len);
        if (memory_of(r, i) != 0) {
            buf_add(out, r->bytes.data + memory_of(r, i) - 1, r->items[i].len);
            continue;
        }
        if (places == NULL) {
            places = xmalloc((to - i) * sizeof(*places));
        }
        places[count++] = (struct record_place){.at = r->items[i], .offset = out->len};
        buf_extend(out, r->items[i].len);
    }
    int err = count == 0 ? 0 : record_read_many(m, snap, r->locked, places, count, out->data);
    free(places);
    if (err != 0) {
        out->len = before;
    }
    return err;
}

void range_add_tail(const struct range *r, struct buf *out)
{
    pb_add_uint(out, 3, r->more);
    pb_add_int(out, 4, r->count);
}
