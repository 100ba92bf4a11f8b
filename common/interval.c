/* interval - the set of key ranges behind interval.h.
 *
 * Single keys: a hash table whose buckets chain one *head* per distinct key (through `left`); further nodes of
 * the same key hang off their head in a doubly linked list (`right` forward, `max` back). So a stab compares keys
 * once per distinct key of a bucket, however many watchers share one.
 *
 * True ranges: a treap, that is a binary search tree by (key, end, address) and a heap by random priority, which
 * keeps its expected depth at about 2 ln n whatever order clients choose their ranges in. Every node knows who
 * below it has the greatest end:
 *
 *                  [d, f) max k                    stab "h": root's max k > h, so look; left subtree's max k > h:
 *                 /            \                   visit, [b, k) holds it; the root ends before h; right subtree
 *        [b, k) max k      [g, g5) max g5          has max g5 <= h: skipped whole.
 *
 * Always: left <= node <= right in order; hash(node) >= hash(children) as priority; max is right for each node. */
#include "common/interval.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/rand.h"

enum interval_kind { KIND_NONE, KIND_SINGLE, KIND_RANGE, KIND_EMPTY };

#define BUCKETS_MIN 64

struct interval_index {
    struct interval_node **buckets; /* heads of single keys; bucket_count is a power of two */
    size_t bucket_count;
    size_t head_count; /* distinct single keys; <= bucket_count */
    struct interval_node *root;
    size_t count; /* all nodes */
    uint64_t seed;
    struct rand rand; /* priorities */
};

static bool end_is_open(struct slice end)
{
    return end.len == 1 && end.data[0] == 0;
}

/* etcd clients also write a single key as [k, k"\0"). */
static bool end_is_next(struct slice key, struct slice end)
{
    return end.len == key.len + 1 && end.data[key.len] == 0 && (key.len == 0 || !memcmp(key.data, end.data, key.len));
}

static int end_cmp(struct slice a, struct slice b)
{
    bool a_open = end_is_open(a);
    bool b_open = end_is_open(b);

    return a_open || b_open ? a_open - b_open : slice_cmp(a, b);
}

static bool end_is_after(struct slice end, struct slice key)
{
    return end_is_open(end) || slice_cmp(end, key) > 0;
}

static enum interval_kind kind_of(struct slice key, struct slice end)
{
    if (end.len == 0)
        return KIND_SINGLE;
    if (end_is_open(end))
        return KIND_RANGE;
    if (end_is_next(key, end))
        return KIND_SINGLE;
    return slice_cmp(key, end) < 0 ? KIND_RANGE : KIND_EMPTY;
}

bool interval_holds(struct slice key, struct slice end, struct slice k)
{
    if (end.len == 0)
        return slice_eq(key, k);
    return slice_cmp(key, k) <= 0 && end_is_after(end, k);
}

/* --- single keys ------------------------------------------------------------------------------ */

static uint64_t key_hash(const struct interval_index *ix, struct slice key)
{
    uint64_t h = ix->seed ^ (key.len * 0x9e3779b97f4a7c15ULL);
    const uint8_t *p = key.data;
    size_t left = key.len;

    while (left > 0) {
        uint64_t word = 0;
        size_t n = MIN(left, sizeof(word));

        memcpy(&word, p, n);
        h = (h ^ word) * 0xff51afd7ed558ccdULL;
        h ^= h >> 32;
        p += n;
        left -= n;
    }
    h *= 0xc4ceb9fe1a85ec53ULL;
    return h ^ (h >> 29);
}

/* Where the pointer to the head of key is, or the NULL at the end of its bucket's chain. */
static struct interval_node **head_find(const struct interval_index *ix, uint64_t hash, struct slice key)
{
    struct interval_node **at = &ix->buckets[hash & (ix->bucket_count - 1)];

    while (*at && ((*at)->hash != hash || !slice_eq((*at)->key, key)))
        at = &(*at)->left;
    return at;
}

static void buckets_grow(struct interval_index *ix)
{
    size_t count = ix->bucket_count * 2;
    struct interval_node **buckets = xcalloc(count, sizeof(*buckets));

    for (size_t i = 0; i < ix->bucket_count; i++) {
        struct interval_node *n = ix->buckets[i];

        while (n) {
            struct interval_node *next = n->left;

            n->left = buckets[n->hash & (count - 1)];
            buckets[n->hash & (count - 1)] = n;
            n = next;
        }
    }
    free(ix->buckets);
    ix->buckets = buckets;
    ix->bucket_count = count;
}

static void single_insert(struct interval_index *ix, struct interval_node *n)
{
    n->hash = key_hash(ix, n->key);

    struct interval_node **at = head_find(ix, n->hash, n->key);

    if (*at) {
        struct interval_node *head = *at;

        n->max = head;
        n->right = head->right;
        if (n->right)
            n->right->max = n;
        head->right = n;
        return;
    }
    *at = n;
    if (++ix->head_count > ix->bucket_count)
        buckets_grow(ix);
}

static void single_remove(struct interval_index *ix, struct interval_node *n)
{
    if (n->max) {
        n->max->right = n->right;
        if (n->right)
            n->right->max = n->max;
        return;
    }

    struct interval_node **at = head_find(ix, n->hash, n->key);

    must(*at == n);
    if (n->right) {
        n->right->max = NULL;
        n->right->left = n->left;
        *at = n->right;
    } else {
        *at = n->left;
        ix->head_count--;
    }
}

static void single_stab(const struct interval_index *ix, struct slice key, interval_cb *cb, void *arg)
{
    if (ix->head_count == 0)
        return;
    for (struct interval_node *n = *head_find(ix, key_hash(ix, key), key); n; n = n->right)
        cb(n, arg);
}

/* --- ranges ----------------------------------------------------------------------------------- */

static int node_cmp(const struct interval_node *a, const struct interval_node *b)
{
    int c = slice_cmp(a->key, b->key);

    if (c == 0)
        c = end_cmp(a->end, b->end);
    if (c == 0)
        c = (a > b) - (a < b);
    return c;
}

static void node_update(struct interval_node *n)
{
    n->max = n;
    if (n->left && end_cmp(n->left->max->end, n->max->end) > 0)
        n->max = n->left->max;
    if (n->right && end_cmp(n->right->max->end, n->max->end) > 0)
        n->max = n->right->max;
}

/* Splits tree t into what is before n and what is after it. */
static void tree_split(struct interval_node *t, const struct interval_node *n, struct interval_node **before,
                       struct interval_node **after)
{
    if (!t) {
        *before = NULL;
        *after = NULL;
    } else if (node_cmp(t, n) < 0) {
        tree_split(t->right, n, &t->right, after);
        node_update(t);
        *before = t;
    } else {
        tree_split(t->left, n, before, &t->left);
        node_update(t);
        *after = t;
    }
}

/* Everything in a is before everything in b. */
static struct interval_node *tree_merge(struct interval_node *a, struct interval_node *b)
{
    if (!a || !b)
        return a ? a : b;
    if (a->hash > b->hash) {
        a->right = tree_merge(a->right, b);
        node_update(a);
        return a;
    }
    b->left = tree_merge(a, b->left);
    node_update(b);
    return b;
}

static struct interval_node *tree_insert(struct interval_node *t, struct interval_node *n)
{
    if (!t || n->hash > t->hash) {
        tree_split(t, n, &n->left, &n->right);
        node_update(n);
        return n;
    }
    if (node_cmp(n, t) < 0)
        t->left = tree_insert(t->left, n);
    else
        t->right = tree_insert(t->right, n);
    node_update(t);
    return t;
}

static struct interval_node *tree_remove(struct interval_node *t, struct interval_node *n)
{
    must(t != NULL);
    if (t == n)
        return tree_merge(t->left, t->right);
    if (node_cmp(n, t) < 0)
        t->left = tree_remove(t->left, n);
    else
        t->right = tree_remove(t->right, n);
    node_update(t);
    return t;
}

static void tree_stab(struct interval_node *t, struct slice key, interval_cb *cb, void *arg)
{
    while (t && end_is_after(t->max->end, key)) {
        tree_stab(t->left, key, cb, arg);
        if (slice_cmp(t->key, key) > 0)
            return; /* and so does all that is right of it */
        if (end_is_after(t->end, key))
            cb(t, arg);
        t = t->right;
    }
}

/* --- the index -------------------------------------------------------------------------------- */

struct interval_index *interval_index_new(void)
{
    struct interval_index *ix = xcalloc(1, sizeof(*ix));

    ix->bucket_count = BUCKETS_MIN;
    ix->buckets = xcalloc(ix->bucket_count, sizeof(struct interval_node *));
    ix->seed = rand_system_u64();
    rand_seed(&ix->rand, rand_system_u64());
    return ix;
}

void interval_index_free(struct interval_index *ix)
{
    if (!ix)
        return;
    free(ix->buckets);
    free(ix);
}

void interval_insert(struct interval_index *ix, struct interval_node *node, struct slice key, struct slice end)
{
    must(node->kind == KIND_NONE);
    *node = (struct interval_node){.key = key, .end = end, .kind = (uint8_t)kind_of(key, end)};
    if (node->kind == KIND_SINGLE) {
        single_insert(ix, node);
    } else if (node->kind == KIND_RANGE) {
        node->hash = rand_u64(&ix->rand);
        ix->root = tree_insert(ix->root, node);
    }
    ix->count++;
}

void interval_remove(struct interval_index *ix, struct interval_node *node)
{
    if (node->kind == KIND_NONE)
        return;
    if (node->kind == KIND_SINGLE)
        single_remove(ix, node);
    else if (node->kind == KIND_RANGE)
        ix->root = tree_remove(ix->root, node);
    *node = (struct interval_node){.kind = KIND_NONE};
    ix->count--;
}

bool interval_is_in(const struct interval_node *node)
{
    return node->kind != KIND_NONE;
}

size_t interval_count(const struct interval_index *ix)
{
    return ix->count;
}

void interval_stab(const struct interval_index *ix, struct slice key, interval_cb *cb, void *arg)
{
    single_stab(ix, key, cb, arg);
    tree_stab(ix->root, key, cb, arg);
}
