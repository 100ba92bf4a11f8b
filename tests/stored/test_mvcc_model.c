/* Random operations against a naive model: every state of every revision is kept as an array, and ranges of all kinds at all
 * readable revisions are held against it; between them compactions, checkpoints, syncs and restarts. */
#include "common/rand.h"
#include "tests/stored/mvcc_help.h"

#define KEYS 24
#define REVS_MAX 4000
#define STEPS 2500

struct cell {
    bool live;
    int64_t create, mod, version;
    int value;
};

struct model {
    struct cell state[REVS_MAX][KEYS];
    int64_t rev, compact_rev;
};

static char key_text[KEYS][24];

static void model_init(struct model *md)
{
    md->rev = 1;
    md->compact_rev = -1;
    for (int i = 0; i < KEYS; i++) {
        /* prefixes of each other, long common parts, and single letters: in order */
        snprintf(key_text[i], sizeof(key_text[i]), "%c%s%s", 'a' + i / 4, i % 4 > 0 ? "/common/part" : "",
                 i % 4 == 2 ? "/x" : i % 4 == 3 ? "/y" : "");
    }
}

static struct cell *model_next(struct model *md)
{
    memcpy(md->state[md->rev + 1], md->state[md->rev], sizeof(md->state[0]));
    return md->state[++md->rev];
}

static void model_put(struct cell *cells, int k, int value, int64_t rev)
{
    struct cell *c = &cells[k];
    *c = (struct cell){true, c->live ? c->create : rev, rev, c->live ? c->version + 1 : 1, value};
}

/* --- operations ---------------------------------------------------------------------------------- */

static void do_put(struct store *s, struct model *md, struct rand *r)
{
    int k = (int)rand_below(r, KEYS), value = (int)rand_below(r, 1000);
    char text[16];
    snprintf(text, sizeof(text), "%d", value);
    put_in_batch(s, key_text[k], text);
    struct cell *cells = model_next(md);
    model_put(cells, k, value, md->rev);
}

static void do_delete(struct store *s, struct model *md, struct rand *r)
{
    int from = (int)rand_below(r, KEYS), to = from + (int)rand_below(r, 4);
    struct api_delete rq = {.key = S(key_text[from]), .range_end = to == from ? SLICE_EMPTY : S(key_text[MIN(to, KEYS - 1)])};
    bool any = false;
    int last = to == from ? from : MIN(to, KEYS - 1) - 1;
    for (int k = from; k <= last; k++) {
        any = any || md->state[md->rev][k].live;
    }
    if (any) {
        struct cell *cells = model_next(md);
        for (int k = from; k <= last; k++) {
            cells[k] = (struct cell){0};
        }
    }
    struct buf out = BUF_INIT;
    cr_assert_eq(mvcc_delete(s->m, &rq, &out), 0);
    buf_fini(&out);
}

static void do_txn(struct store *s, struct model *md, struct rand *r)
{
    int a = (int)rand_below(r, KEYS), b = (int)rand_below(r, KEYS), c = (int)rand_below(r, KEYS);
    if (a == b || a == c || b == c) {
        return;
    }
    const struct cell *before = md->state[md->rev];
    struct api_request_op yes[] = {{.op = API_OP_PUT, .put = {.key = S(key_text[a]), .value = S("7")}},
                                   {.op = API_OP_RANGE, .range = {.key = S("a"), .range_end = S("z")}},
                                   {.op = API_OP_DELETE, .del = {.key = S(key_text[b])}}};
    struct api_request_op no[] = {{.op = API_OP_DELETE, .del = {.key = S(key_text[b])}}};
    struct api_compare cmp = {.key = S(key_text[c]), .target = API_MOD, .result = API_EQUAL, .number = before[c].mod};
    bool wrong = rand_below(r, 3) == 0;
    cmp.number += wrong;
    struct api_txn txn = {.compares = &cmp, .compare_count = 1, .success = yes, .success_count = 3, .failure = no,
                          .failure_count = 1};
    bool changes = !wrong || before[b].live;
    if (changes) {
        struct cell *cells = model_next(md);
        if (!wrong) {
            model_put(cells, a, 7, md->rev);
        }
        cells[b] = (struct cell){0};
    }
    struct buf out = BUF_INIT;
    cr_assert_eq(mvcc_txn(s->m, &txn, &out), 0);
    buf_fini(&out);
}

/* --- reading ------------------------------------------------------------------------------------- */

struct want {
    int key[KEYS];
    size_t count;
};

static const struct cell *sort_cells;
static int64_t sort_target, sort_sign;

static int want_cmp(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    const struct cell *cx = &sort_cells[x], *cy = &sort_cells[y];
    int64_t d = 0;
    char tx[16], ty[16];
    snprintf(tx, sizeof(tx), "%d", cx->value);
    snprintf(ty, sizeof(ty), "%d", cy->value);
    switch (sort_target) {
    case API_BY_KEY:
        d = x - y;
        break;
    case API_BY_VERSION:
        d = cx->version - cy->version;
        break;
    case API_BY_CREATE:
        d = cx->create - cy->create;
        break;
    case API_BY_MOD:
        d = cx->mod - cy->mod;
        break;
    default:
        d = strcmp(tx, ty);
    }
    d *= sort_sign;
    return d < 0 ? -1 : d > 0 ? 1 : x - y;
}

static struct want model_range(const struct cell *cells, const struct api_range *rq, int from, int to, size_t *count)
{
    struct want w = {.count = 0};
    bool filtered = rq->max_mod != 0 || rq->min_create != 0;
    bool cut = rq->limit > 0 && !filtered &&
               (rq->sort_order == API_SORT_NONE || (rq->sort_order == API_SORT_ASCEND && rq->sort_target == API_BY_KEY));
    *count = 0;
    for (int k = from; k < to; k++) {
        if (!cells[k].live) {
            continue;
        }
        ++*count;
        if (cut && w.count == (size_t)rq->limit + 1) {
            continue;
        }
        if ((rq->max_mod == 0 || cells[k].mod <= rq->max_mod) && (rq->min_create == 0 || cells[k].create >= rq->min_create)) {
            w.key[w.count++] = k;
        }
    }
    sort_cells = cells;
    sort_target = rq->sort_target;
    sort_sign = rq->sort_order == API_SORT_DESCEND ? -1 : 1;
    if (rq->sort_order != API_SORT_NONE || rq->sort_target != API_BY_KEY) {
        qsort(w.key, w.count, sizeof(w.key[0]), want_cmp);
    }
    return w;
}

static void check_range(struct store *s, const struct model *md, struct rand *r)
{
    int from = (int)rand_below(r, KEYS), to = from + (int)rand_below(r, (uint64_t)(KEYS - from));
    int64_t lowest = MAX(md->compact_rev, 1);
    int64_t rev = rand_below(r, 3) == 0 ? 0 : lowest + (int64_t)rand_below(r, (uint64_t)(md->rev - lowest) + 1);
    struct api_range rq = {.key = S(key_text[from]), .range_end = S(key_text[to]), .revision = rev,
                           .limit = (int64_t)rand_below(r, 4), .sort_order = (int64_t)rand_below(r, 3),
                           .sort_target = (int64_t)rand_below(r, 5), .keys_only = rand_below(r, 3) == 0,
                           .count_only = rand_below(r, 8) == 0};
    if (rand_below(r, 2) == 0) {
        rq.sort_order = API_SORT_NONE;
        rq.sort_target = API_BY_KEY;
    }
    if (rand_below(r, 4) == 0) {
        rq.max_mod = (int64_t)rand_below(r, (uint64_t)md->rev + 1);
        rq.min_create = (int64_t)rand_below(r, (uint64_t)md->rev + 1);
    }
    const struct cell *cells = md->state[rev == 0 ? md->rev : rev];
    size_t count;
    struct want w = model_range(cells, &rq, from, to, &count);

    Etcdserverpb__RangeResponse *got;
    int err = range_rq(s, rq, 1 + rand_below(r, 200), &got);
    cr_assert_eq(err, 0, "range at %lld (compacted %lld, now %lld): %s", (long long)rev, (long long)md->compact_rev,
                 (long long)md->rev, err_text(err));
    cr_assert_eq(got->count, (int64_t)count, "count of [%s, %s) at %lld: %lld, not %zu", key_text[from], key_text[to],
                 (long long)rev, (long long)got->count, count);
    cr_assert_eq(got->header->revision, md->rev);
    size_t expect = rq.count_only ? 0 : rq.limit > 0 ? MIN(w.count, (size_t)rq.limit) : w.count;
    cr_assert_eq(got->n_kvs, expect);
    cr_assert_eq(got->more, !rq.count_only && rq.limit > 0 && w.count > (size_t)rq.limit);
    for (size_t i = 0; i < got->n_kvs; i++) {
        const Mvccpb__KeyValue *kv = got->kvs[i];
        const struct cell *c = &cells[w.key[i]];
        char value[16];
        snprintf(value, sizeof(value), "%d", c->value);
        cr_assert(bytes_are(kv->key, key_text[w.key[i]]));
        cr_assert(bytes_are(kv->value, rq.keys_only ? "" : value));
        cr_assert_eq(kv->mod_revision, c->mod, "%s at %lld: mod %lld, not %lld", key_text[w.key[i]], (long long)rev,
                     (long long)kv->mod_revision, (long long)c->mod);
        cr_assert_eq(kv->create_revision, c->create);
        cr_assert_eq(kv->version, c->version);
    }
    range_free(got);
}

struct seen {
    const struct model *md;
    int64_t last;
    size_t events;
};

static void check_event(void *arg, const struct mvcc_event *ev)
{
    struct seen *seen = arg;
    const struct cell *now = seen->md->state[ev->main], *before = seen->md->state[ev->main - 1];
    int k = 0;
    while (k < KEYS && !slice_eq(S(key_text[k]), ev->key)) {
        k++;
    }
    cr_assert_lt(k, KEYS);
    cr_assert_geq(ev->main, seen->last);
    cr_assert_eq(ev->is_delete, !now[k].live);
    cr_assert_eq(ev->prev.len > 0, before[k].live && ev->main - 1 >= MAX(seen->md->compact_rev, 1));
    seen->last = ev->main;
    seen->events++;
}

static void check_history(struct store *s, const struct model *md, struct rand *r)
{
    int64_t from = MAX(md->compact_rev, 2);
    if (from > md->rev) {
        return;
    }
    from += (int64_t)rand_below(r, (uint64_t)(md->rev - from) + 1);
    struct api_interval all = api_interval(S("a"), slice_of("", 1));
    struct seen seen = {.md = md};
    size_t expect = 0;
    for (int64_t rev = from; rev <= md->rev; rev++) {
        for (int k = 0; k < KEYS; k++) {
            const struct cell *a = &md->state[rev - 1][k], *b = &md->state[rev][k];
            expect += a->mod != b->mod;
        }
    }
    for (int64_t next = from; next <= md->rev;) {
        cr_assert_eq(mvcc_history(s->m, &all, next, md->rev, true, 1 + rand_below(r, 50), 500, check_event, &seen, &next), 0);
    }
    cr_assert_eq(seen.events, expect);
}

static void check_limits(struct store *s, const struct model *md)
{
    cr_assert_eq(range_err(s, (struct api_range){.key = S("a"), .revision = md->rev + 1}), E_FUTURE_REV);
    if (md->compact_rev > 1) {
        cr_assert_eq(range_err(s, (struct api_range){.key = S("a"), .revision = md->compact_rev - 1}), E_COMPACTED);
    }
}

static void do_compact(struct store *s, struct model *md, struct rand *r)
{
    int64_t lowest = MAX(md->compact_rev, 1);
    int64_t rev = lowest + (int64_t)rand_below(r, (uint64_t)(md->rev - lowest) / 2 + 1);
    if (rev <= md->compact_rev) {
        return;
    }
    uint32_t hash, again;
    int64_t hash_rev, compact_rev;
    cr_assert_eq(compact(s, rev), 0);
    md->compact_rev = rev;
    cr_assert_eq(mvcc_hash(s->m, 0, &hash, &hash_rev, &compact_rev), 0);
    mvcc_sync(s->m);
    for (uint64_t i = rand_below(r, 30); i > 0 && mvcc_compact_step(s->m, 3, mvcc_durable(s->m)); i--) {
    }
    cr_assert_eq(mvcc_hash(s->m, 0, &again, &hash_rev, &compact_rev), 0);
    cr_assert_eq(hash, again);
    cr_assert_eq(compact_rev, rev);
}

static void run_seed(uint64_t seed)
{
    static struct model md;
    struct store s;
    struct rand r;
    rand_seed(&r, seed);
    memset(&md, 0, sizeof(md));
    model_init(&md);
    store_new(&s);
    for (int step = 0; step < STEPS && md.rev < REVS_MAX - 40; step++) {
        begin(&s);
        for (uint64_t n = 1 + rand_below(&r, 4); n > 0; n--) {
            uint64_t what = rand_below(&r, 10);
            if (what < 6) {
                do_put(&s, &md, &r);
            } else if (what < 8) {
                do_delete(&s, &md, &r);
            } else {
                do_txn(&s, &md, &r);
            }
            cr_assert_eq(mvcc_rev(s.m), md.rev);
            check_range(&s, &md, &r); /* also while the batch is open */
        }
        end(&s);
        check_range(&s, &md, &r);
        uint64_t upkeep = rand_below(&r, 100);
        if (upkeep < 3) {
            do_compact(&s, &md, &r);
        } else if (upkeep < 6) {
            mvcc_checkpoint(s.m);
        } else if (upkeep < 8) {
            mvcc_sync(s.m);
        } else if (upkeep < 10) {
            store_reopen(&s);
            cr_assert_eq(mvcc_rev(s.m), md.rev);
            cr_assert_eq(mvcc_compact_rev(s.m), md.compact_rev);
        } else if (upkeep < 14) {
            check_history(&s, &md, &r);
            check_limits(&s, &md);
        }
    }
    store_remove(&s);
}

Test(mvcc_model, random_operations_and_restarts_read_as_the_model_says, .timeout = 120)
{
    run_seed(1);
}

Test(mvcc_model, another_seed, .timeout = 120)
{
    run_seed(20261123);
}
