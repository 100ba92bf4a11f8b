/* range_sort - ranges that ask for more than key order: filters, then sort, then limit (semantics.md §3, rules 2 and 3), and
 * keys_only, which is answered from the index. What the index does not know (create and version at an old revision, values) is
 * read from the records, all at once. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "stored/range_inner.h"

bool range_is_sorted(const struct api_range *rq)
{
    if (rq->sort_order == API_SORT_NONE) {
        return rq->sort_target != API_BY_KEY;
    }
    return rq->sort_order == API_SORT_DESCEND || rq->sort_target != API_BY_KEY;
}

bool range_is_filtered(const struct api_range *rq)
{
    return rq->min_mod != 0 || rq->max_mod != 0 || rq->min_create != 0 || rq->max_create != 0;
}

/* Reads the records of what the index could not tell; of everything if values are needed. */
static int read_records(struct mvcc *m, struct range *r, bool all)
{
    struct record_place *places = xmalloc((r->found_count + 1) * sizeof(*places));
    size_t count = 0;
    for (size_t i = 0; i < r->found_count; i++) {
        struct found *f = &r->found[i];
        if (all || !f->known) {
            f->record = r->records.len;
            places[count++] = (struct record_place){.at = f->at, .offset = f->record};
            buf_extend(&r->records, f->at.len);
        }
    }
    int err = count == 0 ? 0 : record_read_many(m, NULL, r->locked, places, count, r->records.data);
    free(places);
    for (size_t i = 0; i < r->found_count && err == 0; i++) {
        struct found *f = &r->found[i];
        if (!all && f->known) {
            continue;
        }
        uint8_t key[REV_KEY_MAX];
        struct slice rev_key = {key, rev_key_encode(key, f->at.main, (int32_t)f->at.sub, false)};
        struct api_key_value kv;
        err = record_decode(m, rev_key, slice_of(r->records.data + f->record, f->at.len), &kv);
        if (err == 0) {
            f->create = kv.create_revision;
            f->version = kv.version;
            f->lease = kv.lease;
            f->value = kv.value;
        }
    }
    return err;
}

static bool passes(const struct api_range *rq, const struct found *f)
{
    return (rq->max_mod == 0 || f->at.main <= rq->max_mod) && (rq->min_mod == 0 || f->at.main >= rq->min_mod) &&
           (rq->max_create == 0 || f->create <= rq->max_create) && (rq->min_create == 0 || f->create >= rq->min_create);
}

static void filter(struct range *r)
{
    size_t kept = 0;
    for (size_t i = 0; i < r->found_count; i++) {
        if (passes(r->rq, &r->found[i])) {
            r->found[kept++] = r->found[i];
        }
    }
    r->found_count = kept;
}

static int by_number(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b;
}

/* Equal ones keep their key order (offsets in keys ascend), so that all members answer alike. */
static int found_cmp(const void *a, const void *b, void *arg)
{
    const struct found *x = a, *y = b;
    const struct api_range *rq = arg;
    int order = 0;
    switch (rq->sort_target) {
    case API_BY_VERSION:
        order = by_number(x->version, y->version);
        break;
    case API_BY_CREATE:
        order = by_number(x->create, y->create);
        break;
    case API_BY_MOD:
        order = by_number(x->at.main, y->at.main);
        break;
    case API_BY_VALUE:
        order = slice_cmp(x->value, y->value);
        break;
    default:
        order = x->key < y->key ? -1 : x->key > y->key;
    }
    if (rq->sort_order == API_SORT_DESCEND) {
        order = -order;
    }
    return order != 0 ? order : x->key < y->key ? -1 : x->key > y->key;
}

/* Results become items; keys_only ones are encoded here, and so are those whose records were read anyway. */
static void make_items(struct range *r, bool with_records)
{
    const struct api_range *rq = r->rq;
    r->item_count = r->found_count;
    if (r->found_count > r->item_cap) {
        r->item_cap = r->found_count;
        r->items = xmalloc(r->item_cap * sizeof(*r->items));
        r->memory = xcalloc(r->item_cap, sizeof(*r->memory));
    }
    for (size_t i = 0; i < r->found_count; i++) {
        const struct found *f = &r->found[i];
        size_t at = r->bytes.len;
        r->items[i] = f->at;
        r->memory[i] = 0;
        if (rq->keys_only) {
            struct api_key_value kv = {.key = slice_of(r->keys.data + f->key, f->key_len), .create_revision = f->create,
                                       .mod_revision = f->at.main, .version = f->version,
                                       .lease = with_records ? f->lease : 0};
            api_encode_key_value(&r->bytes, &kv);
        } else if (with_records) {
            buf_add(&r->bytes, r->records.data + f->record, f->at.len);
        } else {
            continue;
        }
        r->memory[i] = at + 1;
        r->items[i].len = (uint32_t)(r->bytes.len - at) & INT32_MAX;
    }
}

int range_finish_found(struct mvcc *m, struct range *r)
{
    const struct api_range *rq = r->rq;
    bool with_records = rq->sort_target == API_BY_VALUE;
    int err = read_records(m, r, with_records);
    if (err != 0) {
        return err;
    }
    filter(r);
    if (range_is_sorted(rq) && r->found_count > 1) {
        qsort_r(r->found, r->found_count, sizeof(*r->found), found_cmp, (void *)(uintptr_t)rq);
    }
    if (rq->limit > 0 && r->found_count > (size_t)rq->limit) {
        r->found_count = (size_t)rq->limit;
        r->more = true;
    }
    make_items(r, with_records);
    free(r->found);
    r->found = NULL;
    buf_fini(&r->keys);
    buf_fini(&r->records);
    return 0;
}
