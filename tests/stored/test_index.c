/* stored/index.c against a sorted array: find, order, ranks, histories, pruning. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rand.h"
#include "stored/index.h"

#define MODEL_KEYS 3000

struct model_key {
    char text[40];
    bool known, live;
    int64_t mains[64]; /* changes, oldest first */
    bool tombs[64];
    int changes;
};
static struct model_key model[MODEL_KEYS];

static int by_text(const void *a, const void *b)
{
    const struct model_key *x = a, *y = b;
    return strcmp(x->text, y->text);
}

static void model_init(struct rand *r)
{
    memset(model, 0, sizeof(model));
    for (int i = 0; i < MODEL_KEYS; i++) {
        snprintf(model[i].text, sizeof(model[i].text), "%s%06u%s", i % 3 == 1 ? "" : "/registry/pods/ns-",
                 (unsigned)rand_below(r, 1000000), i % 3 == 0 ? "/x" : "");
    }
    qsort(model, MODEL_KEYS, sizeof(model[0]), by_text);
    for (int i = 1; i < MODEL_KEYS; i++) { /* no two alike */
        if (strcmp(model[i].text, model[i - 1].text) == 0) {
            strcat(model[i].text, "!");
        }
    }
    qsort(model, MODEL_KEYS, sizeof(model[0]), by_text);
}

static void change(struct index *ix, struct model_key *k, int64_t main, bool tombstone)
{
    struct slice key = slice_str(k->text);
    struct entry *e = index_find(ix, key);
    cr_assert_eq(e != NULL, k->known);
    struct change c = {.main = main, .len = 10, .tombstone = tombstone};
    index_change(ix, e, key, c, tombstone ? 0 : main, tombstone ? 0 : 1, tombstone ? 0 : main % 3);
    k->known = true;
    k->live = !tombstone;
    if (k->changes == 64) {
        memmove(k->mains, k->mains + 1, 63 * sizeof(k->mains[0]));
        memmove(k->tombs, k->tombs + 1, 63 * sizeof(k->tombs[0]));
        k->changes--;
    }
    k->mains[k->changes] = main;
    k->tombs[k->changes++] = tombstone;
}

static void check(const struct index *ix, struct rand *r)
{
    index_check(ix);
    struct index_iter it;
    index_seek(ix, SLICE_EMPTY, &it);
    uint64_t live = 0;
    for (int i = 0; i < MODEL_KEYS; i++) {
        struct slice key = slice_str(model[i].text);
        if (i % 7 == 0) {
            cr_assert_eq(index_rank(ix, key), live);
        }
        live += model[i].live;
        struct entry *e = index_find(ix, key);
        cr_assert_eq(e != NULL, model[i].known);
        if (e == NULL) {
            continue;
        }
        cr_assert_eq(index_next(&it), e);
        cr_assert_eq(e->latest.main, model[i].mains[model[i].changes - 1]);
        cr_assert_eq(entry_lease(e), e->latest.tombstone ? 0 : e->latest.main % 3);
        int at = (int)rand_below(r, (uint64_t)model[i].changes);
        struct sight s;
        const struct change *older;
        if (entry_older(e, &older) + 1 == (size_t)model[i].changes) {
            cr_assert(entry_at(e, model[i].mains[at], &s));
            cr_assert_eq(s.at.main, model[i].mains[at]);
            cr_assert_eq(s.at.tombstone, model[i].tombs[at]);
        }
    }
    cr_assert_null(index_next(&it));
    cr_assert_eq(index_totals(ix).live, live);
}

static void prune_all(struct index *ix, int64_t rev)
{
    for (int i = 0; i < MODEL_KEYS; i++) {
        struct model_key *k = &model[i];
        struct entry *e = k->known ? index_find(ix, slice_str(k->text)) : NULL;
        if (e == NULL || entry_droppable(e, rev, true) == 0) {
            continue;
        }
        const struct change *older;
        size_t drop = entry_droppable(e, rev, true), count = entry_older(e, &older) + 1;
        bool gone = index_prune(ix, e, rev, true);
        cr_assert_eq(gone, drop == count);
        if (gone) {
            k->known = false;
            k->changes = 0;
            cr_assert_not(k->live);
        }
    }
}

Test(index, agrees_with_a_sorted_array)
{
    struct rand r;
    rand_seed(&r, 7);
    model_init(&r);
    struct index *ix = index_new();
    int64_t main = 1;
    for (int round = 0; round < 30; round++) {
        for (int i = 0; i < 2000; i++) {
            struct model_key *k = &model[rand_below(&r, MODEL_KEYS)];
            change(ix, k, ++main, k->live && rand_below(&r, round % 10 < 5 ? 4 : 2) == 0);
        }
        check(ix, &r);
        if (round % 3 == 2) {
            prune_all(ix, main - 500);
            index_check(ix);
        }
    }
    /* everything dies and is forgotten: the tree is small again, and its memory given back */
    for (int i = 0; i < MODEL_KEYS; i++) {
        if (model[i].live) {
            change(ix, &model[i], ++main, true);
        }
    }
    prune_all(ix, main + 1);
    struct index_totals t = index_totals(ix);
    cr_assert(t.entries == 0 && t.live == 0 && t.changes == 0 && t.record_bytes == 0);
    cr_assert_lt(t.bytes, 2000);
    index_free(ix);
}

Test(index, keys_in_order_fill_their_nodes)
{
    struct index *ix = index_new();
    char key[80];
    for (int i = 0; i < 200000; i++) {
        snprintf(key, sizeof(key), "/registry/some/long/prefix/for/the/keys/of/this/test-%011d", i);
        struct change c = {.main = i + 2, .len = 300};
        cr_assert_not_null(index_append(ix, slice_str(key), c, c.main, 1, 0, NULL, 0));
    }
    index_check(ix);
    cr_assert_eq(strlen(key), 64);
    cr_assert_lt(index_totals(ix).bytes / 200000, 150, "bytes per key of 64");
    index_free(ix);
}

Test(index, append_refuses_a_key_that_is_not_greater)
{
    struct index *ix = index_new();
    struct change c = {.main = 2, .len = 1};
    cr_assert_not_null(index_append(ix, slice_str("b"), c, 2, 1, 0, NULL, 0));
    cr_assert_null(index_append(ix, slice_str("b"), c, 2, 1, 0, NULL, 0));
    cr_assert_null(index_append(ix, slice_str("a"), c, 2, 1, 0, NULL, 0));
    index_free(ix);
}

Test(index, compaction_keeps_the_newest_and_a_tombstone_exactly_at_its_revision)
{
    /* the example of index.h: put 2, put 3, del 4, put 5 */
    struct index *ix = index_new();
    struct slice a = slice_str("a");
    struct change c = {.main = 2, .len = 1};
    struct entry *e = index_change(ix, NULL, a, c, 2, 1, 0);
    index_change(ix, e, a, (struct change){.main = 3, .len = 1}, 2, 2, 0);
    index_change(ix, e, a, (struct change){.main = 4, .len = 1, .tombstone = 1}, 0, 0, 0);
    index_change(ix, e, a, (struct change){.main = 5, .len = 1}, 5, 1, 0);

    cr_assert_eq(entry_droppable(e, 1, true), 0);
    cr_assert_eq(entry_droppable(e, 2, true), 0);
    cr_assert_eq(entry_droppable(e, 3, true), 1);
    cr_assert_eq(entry_droppable(e, 4, true), 2);
    cr_assert_eq(entry_droppable(e, 5, true), 3);
    cr_assert_not(index_prune(ix, e, 4, true));
    struct sight s;
    cr_assert_not(entry_at(e, 3, &s));
    cr_assert(entry_at(e, 4, &s) && s.at.tombstone);
    cr_assert(entry_at(e, 9, &s) && s.newest && s.at.main == 5);
    index_free(ix);
}

Test(index, a_version_above_32_bits_and_a_lease_are_kept)
{
    struct index *ix = index_new();
    struct change c = {.main = 2, .len = 1};
    struct entry *e = index_change(ix, NULL, slice_str("a"), c, 2, (int64_t)5 << 32 | 6, -7);
    cr_assert_eq(entry_version(e), (int64_t)5 << 32 | 6);
    cr_assert_eq(entry_lease(e), -7);
    index_free(ix);
}
