/* interval: checked against a list that is searched from one end to the other. */
#include "common/interval.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/rand.h"

struct range {
    struct interval_node node;
    char key[8], end[8];
    size_t key_len, end_len;
    unsigned hits;
};

static void hit_cb(struct interval_node *node, void *arg)
{
    container_of(node, struct range, node)->hits++;
    (*(size_t *)arg)++;
}

static size_t stab(struct interval_index *ix, const char *key, size_t len)
{
    size_t hits = 0;

    interval_stab(ix, slice_of(key, len), hit_cb, &hits);
    return hits;
}

static void insert(struct interval_index *ix, struct range *r)
{
    interval_insert(ix, &r->node, slice_of(r->key, r->key_len), slice_of(r->end, r->end_len));
}

static void set(struct range *r, const char *key, const char *end, size_t end_len)
{
    *r = (struct range){.key_len = strlen(key), .end_len = end_len};
    memcpy(r->key, key, r->key_len);
    memcpy(r->end, end, end_len);
}

Test(interval, holds_single_keys_ranges_and_open_ends)
{
    struct interval_index *ix = interval_index_new();
    struct range single;
    struct range half_open;
    struct range open;

    set(&single, "b", "", 0);
    set(&half_open, "b", "d", 1);
    set(&open, "c", "\0", 1);
    insert(ix, &single);
    insert(ix, &half_open);
    insert(ix, &open);

    cr_assert_eq(stab(ix, "a", 1), 0);
    cr_assert_eq(stab(ix, "b", 1), 2);
    cr_assert_eq(stab(ix, "b\0", 2), 1, "the key after b is in [b, d) only");
    cr_assert_eq(stab(ix, "c", 1), 2);
    cr_assert_eq(stab(ix, "d", 1), 1, "the end is not in the range");
    cr_assert_eq(stab(ix, "\xff\xff", 2), 1);
    cr_assert_eq(interval_count(ix), 3);

    interval_remove(ix, &half_open.node);
    cr_assert_not(interval_is_in(&half_open.node));
    interval_remove(ix, &half_open.node);
    cr_assert_eq(interval_count(ix), 2);
    cr_assert_eq(stab(ix, "b", 1), 1);
    interval_index_free(ix);
}

Test(interval, a_range_to_the_next_key_is_a_single_key)
{
    struct interval_index *ix = interval_index_new();
    struct range r;

    set(&r, "k", "k\0", 2);
    insert(ix, &r);

    cr_assert_eq(stab(ix, "k", 1), 1);
    cr_assert_eq(stab(ix, "k\0", 2), 0);
    interval_remove(ix, &r.node);
    cr_assert_eq(stab(ix, "k", 1), 0);
    interval_index_free(ix);
}

Test(interval, a_range_that_ends_before_it_begins_never_hits)
{
    struct interval_index *ix = interval_index_new();
    struct range backwards;
    struct range nothing;

    set(&backwards, "d", "b", 1);
    set(&nothing, "c", "c", 1);
    insert(ix, &backwards);
    insert(ix, &nothing);

    cr_assert_eq(stab(ix, "b", 1) + stab(ix, "c", 1) + stab(ix, "d", 1), 0);
    cr_assert_eq(interval_count(ix), 2);
    interval_remove(ix, &backwards.node);
    interval_remove(ix, &nothing.node);
    cr_assert_eq(interval_count(ix), 0);
    interval_index_free(ix);
}

Test(interval, all_keys_are_held_by_an_open_range_from_the_first)
{
    struct interval_index *ix = interval_index_new();
    struct range all = {.key_len = 1, .end_len = 1}; /* "\0", "\0" */
    struct range all_empty = {.key_len = 0, .end_len = 1};

    insert(ix, &all);
    insert(ix, &all_empty);

    cr_assert_eq(stab(ix, "", 0), 1);
    cr_assert_eq(stab(ix, "\0", 1), 2);
    cr_assert_eq(stab(ix, "zz", 2), 2);
    interval_index_free(ix);
}

/* Small keys over three letters, so that equal keys, equal ranges, prefixes and empty ranges are frequent. */
static void random_range(struct range *r, struct rand *rand)
{
    *r = (struct range){.key_len = rand_below(rand, 4), .end_len = rand_below(rand, 4)};
    for (size_t i = 0; i < r->key_len; i++)
        r->key[i] = (char)rand_below(rand, 3);
    for (size_t i = 0; i < r->end_len; i++)
        r->end[i] = (char)rand_below(rand, 3);
}

Test(interval, agrees_with_a_list_whatever_is_inserted_and_removed)
{
    enum { COUNT = 300, STEPS = 6000 };
    struct interval_index *ix = interval_index_new();
    struct range *ranges = xcalloc(COUNT, sizeof(*ranges));
    struct rand rand;

    rand_seed(&rand, 7);
    for (unsigned step = 0; step < STEPS; step++) {
        struct range *r = &ranges[rand_below(&rand, COUNT)];

        if (interval_is_in(&r->node)) {
            interval_remove(ix, &r->node);
        } else {
            random_range(r, &rand);
            insert(ix, r);
        }

        struct range probe;
        size_t expected = 0;

        random_range(&probe, &rand);
        for (size_t i = 0; i < COUNT; i++)
            ranges[i].hits = 0;
        size_t hits = stab(ix, probe.key, probe.key_len);
        for (size_t i = 0; i < COUNT; i++) {
            bool holds = interval_is_in(&ranges[i].node) &&
                         interval_holds(ranges[i].node.key, ranges[i].node.end, slice_of(probe.key, probe.key_len));

            expected += holds;
            cr_assert_eq(ranges[i].hits, holds, "step %u range %zu", step, i);
        }
        cr_assert_eq(hits, expected);
    }
    interval_index_free(ix);
    free(ranges);
}

Test(interval, a_hundred_thousand_nodes_are_fast)
{
    enum { COUNT = 100000 };
    struct interval_index *ix = interval_index_new();
    struct range *ranges = xcalloc(COUNT, sizeof(*ranges));
    uint64_t begin_us = clock_now_us();
    size_t hits = 0;

    /* Ascending order: the worst one for a tree that does not balance. */
    for (unsigned i = 0; i < COUNT; i++) {
        struct range *r = &ranges[i];

        r->key_len = (size_t)snprintf(r->key, sizeof(r->key), "%06u", i);
        r->end_len = i % 2 ? (size_t)snprintf(r->end, sizeof(r->end), "%06u", i + 3) : 0;
        insert(ix, r);
    }
    uint64_t inserted_us = clock_now_us();
    for (unsigned i = 0; i < COUNT; i++)
        hits += stab(ix, ranges[i].key, ranges[i].key_len);
    uint64_t stabbed_us = clock_now_us();
    for (unsigned i = 0; i < COUNT; i++)
        interval_remove(ix, &ranges[i].node);
    uint64_t removed_us = clock_now_us();

    cr_log_info("100k: insert %lu us, stab %lu us, remove %lu us", (unsigned long)(inserted_us - begin_us),
                (unsigned long)(stabbed_us - inserted_us), (unsigned long)(removed_us - stabbed_us));
    /* An even key: itself and the odd range that began one before; an odd one: itself and the one two before. */
    cr_assert_eq(hits, 2 * COUNT - 2);
    cr_assert_eq(interval_count(ix), 0);
    cr_assert_lt(removed_us - begin_us, 5000000);

    /* Many nodes on one key: removing them does not search. */
    for (unsigned i = 0; i < COUNT; i++) {
        set(&ranges[i], "same", "", 0);
        insert(ix, &ranges[i]);
    }
    cr_assert_eq(stab(ix, "same", 4), COUNT);
    begin_us = clock_now_us();
    for (unsigned i = 0; i < COUNT; i++)
        interval_remove(ix, &ranges[i].node);
    cr_assert_lt(clock_now_us() - begin_us, 2000000);
    cr_assert_eq(stab(ix, "same", 4), 0);
    interval_index_free(ix);
    free(ranges);
}
