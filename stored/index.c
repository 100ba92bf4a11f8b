/* index - the tree over the entries: see index.h for its shape.
 * All leaves have the same depth. A node is never empty (but the root of an empty index); a thin one is merged into a neighbour
 * when there is room, so that a keyspace that shrank gives its memory back. Splitting at the right edge leaves the
 * left node full: keys often arrive in order. */
#include "stored/index.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "stored/index_inner.h"

#define SLOTS 64
#define SLOTS_THIN 16
#define SLOTS_MERGED_MAX 48

struct index_node {
    uint16_t count;
    bool leaf;
    uint32_t shared;            /* bytes that all keys of the node have in common (perhaps more) */
    uint64_t alive;             /* leaf: bit i: entry i is live */
    uint32_t head[SLOTS];       /* the four bytes of each key behind the shared ones, zero padded */
    struct entry *entry[SLOTS]; /* leaf: the entries; inner: the smallest entry below child i */
};

struct inner {
    struct index_node node;
    struct index_node *child[SLOTS];
    uint64_t live[SLOTS]; /* live entries below child i */
};

struct path {
    struct index_node *node[INDEX_DEPTH_MAX];
    int pos[INDEX_DEPTH_MAX];
    int depth;
};

static struct inner *inner_of(struct index_node *n)
{
    return container_of(n, struct inner, node);
}

static const struct inner *inner_of_const(const struct index_node *n)
{
    return (const struct inner *)(const void *)n;
}

/* --- one node ----------------------------------------------------------------------------------- */

static struct index_node *node_new(struct index *ix, bool leaf)
{
    size_t size = leaf ? sizeof(struct index_node) : sizeof(struct inner);
    struct index_node *n = xcalloc(1, size);
    n->leaf = leaf;
    ix->totals.bytes += size;
    return n;
}

static void node_free(struct index *ix, struct index_node *n)
{
    ix->totals.bytes -= n->leaf ? sizeof(struct index_node) : sizeof(struct inner);
    free(n);
}

static uint32_t key_head(struct slice key, uint32_t shared)
{
    uint32_t head = 0;
    size_t left = key.len > shared ? MIN(key.len - shared, (size_t)4) : 0;
    for (size_t i = 0; i < left; i++) {
        head |= (uint32_t)key.data[shared + i] << (24 - 8 * i);
    }
    return head;
}

static uint32_t common_prefix(struct slice a, struct slice b)
{
    size_t max = MIN(a.len, b.len), i = 0;
    while (i < max && a.data[i] == b.data[i]) {
        i++;
    }
    return (uint32_t)i;
}

static void node_set_heads(struct index_node *n)
{
    if (n->count == 0) {
        n->shared = 0;
        return;
    }
    n->shared = common_prefix(entry_key(n->entry[0]), entry_key(n->entry[n->count - 1]));
    for (int i = 0; i < n->count; i++) {
        n->head[i] = key_head(entry_key(n->entry[i]), n->shared);
    }
}

/* Slot i got another entry: its head, or all heads when an edge no longer shares the prefix. */
static void node_head_changed(struct index_node *n, int i)
{
    if ((i == 0 || i == n->count - 1) &&
        common_prefix(entry_key(n->entry[0]), entry_key(n->entry[n->count - 1])) < n->shared) {
        node_set_heads(n);
    } else {
        n->head[i] = key_head(entry_key(n->entry[i]), n->shared);
    }
}

/* First slot whose key is >= key; *equal when it is the key. */
static int node_search(const struct index_node *n, struct slice key, bool *equal)
{
    *equal = false;
    if (n->count == 0) {
        return 0;
    }
    if (n->shared > 0) {
        size_t len = MIN(key.len, (size_t)n->shared);
        int order = len == 0 ? 0 : memcmp(key.data, n->entry[0]->key, len);
        if (order != 0) {
            return order < 0 ? 0 : n->count;
        }
        if (len < n->shared) {
            return 0;
        }
    }
    uint32_t head = key_head(key, n->shared);
    int lo = 0, hi = n->count;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (n->head[mid] < head) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    hi = lo;
    while (hi < n->count && n->head[hi] == head) {
        hi++;
    }
    while (lo < hi) { /* keys with the same head: usually none or one */
        int mid = (lo + hi) / 2;
        int order = slice_cmp(entry_key(n->entry[mid]), key);
        if (order == 0) {
            *equal = true;
            return mid;
        }
        if (order < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static uint64_t node_live(const struct index_node *n)
{
    if (n->leaf) {
        return (uint64_t)__builtin_popcountll(n->alive);
    }
    uint64_t sum = 0;
    for (int i = 0; i < n->count; i++) {
        sum += inner_of_const(n)->live[i];
    }
    return sum;
}

static uint64_t bits_below(int i)
{
    return i >= 64 ? ~0ull : (1ull << i) - 1;
}

static void node_make_room(struct index_node *n, int at)
{
    int move = n->count - at;
    memmove(n->head + at + 1, n->head + at, (size_t)move * sizeof(n->head[0]));
    memmove(n->entry + at + 1, n->entry + at, (size_t)move * sizeof(n->entry[0]));
    if (n->leaf) {
        uint64_t low = n->alive & bits_below(at);
        n->alive = low | (n->alive & ~bits_below(at)) << 1;
    } else {
        struct inner *in = inner_of(n);
        memmove(in->child + at + 1, in->child + at, (size_t)move * sizeof(in->child[0]));
        memmove(in->live + at + 1, in->live + at, (size_t)move * sizeof(in->live[0]));
    }
    n->count++;
}

static void node_take_out(struct index_node *n, int at)
{
    n->count--;
    int move = n->count - at;
    memmove(n->head + at, n->head + at + 1, (size_t)move * sizeof(n->head[0]));
    memmove(n->entry + at, n->entry + at + 1, (size_t)move * sizeof(n->entry[0]));
    if (n->leaf) {
        uint64_t low = n->alive & bits_below(at);
        n->alive = low | ((n->alive >> 1) & ~bits_below(at));
    } else {
        struct inner *in = inner_of(n);
        memmove(in->child + at, in->child + at + 1, (size_t)move * sizeof(in->child[0]));
        memmove(in->live + at, in->live + at + 1, (size_t)move * sizeof(in->live[0]));
    }
}

/* Moves the slots from `from` up to the end of `to`; heads of `to` must be set afterwards. */
static void node_move(struct index_node *n, int from, struct index_node *to)
{
    int move = n->count - from;
    memcpy(to->entry + to->count, n->entry + from, (size_t)move * sizeof(n->entry[0]));
    if (n->leaf) {
        uint64_t high = from >= 64 ? 0 : n->alive >> from;
        to->alive |= high << to->count;
        n->alive &= bits_below(from);
    } else {
        memcpy(inner_of(to)->child + to->count, inner_of(n)->child + from, (size_t)move * sizeof(struct index_node *));
        memcpy(inner_of(to)->live + to->count, inner_of(n)->live + from, (size_t)move * sizeof(uint64_t));
    }
    to->count = (uint16_t)(to->count + move);
    n->count = (uint16_t)from;
}

/* --- paths -------------------------------------------------------------------------------------- */

static int child_for(const struct index_node *n, struct slice key)
{
    bool equal;
    int i = node_search(n, key, &equal);
    return equal || i == 0 ? i : i - 1;
}

/* From the root to the leaf that has the key or would get it; true: it has it. */
static bool path_find(const struct index *ix, struct slice key, struct path *p)
{
    struct index_node *n = ix->root;
    p->depth = 0;
    while (!n->leaf) {
        must(p->depth < INDEX_DEPTH_MAX - 1);
        p->node[p->depth] = n;
        p->pos[p->depth] = child_for(n, key);
        n = inner_of(n)->child[p->pos[p->depth++]];
    }
    bool equal;
    p->node[p->depth] = n;
    p->pos[p->depth] = node_search(n, key, &equal);
    p->depth++;
    return equal;
}

/* The parent's slot for the node at this level of the path tells the truth again. */
static void path_refresh(struct path *p, int level)
{
    struct index_node *n = p->node[level], *parent = p->node[level - 1];
    int at = p->pos[level - 1];
    inner_of(parent)->live[at] = node_live(n);
    if (parent->entry[at] != n->entry[0]) {
        parent->entry[at] = n->entry[0];
        node_head_changed(parent, at);
    }
}

static void path_add_live(struct path *p, int64_t delta)
{
    for (int level = p->depth - 2; level >= 0; level--) {
        inner_of(p->node[level])->live[p->pos[level]] += (uint64_t)delta;
    }
}

/* --- insert ------------------------------------------------------------------------------------- */

static void slot_insert(struct index_node *n, int at, struct entry *e, struct index_node *child)
{
    node_make_room(n, at);
    n->entry[at] = e;
    if (n->leaf) {
        if (entry_is_live(e)) {
            n->alive |= 1ull << at;
        }
    } else {
        inner_of(n)->child[at] = child;
        inner_of(n)->live[at] = node_live(child);
    }
    node_head_changed(n, at);
}

/* Splits a full node for an insertion at `at`; returns the new right neighbour. */
static struct index_node *node_split(struct index *ix, struct index_node *n, int at)
{
    struct index_node *right = node_new(ix, n->leaf);
    node_move(n, at == SLOTS ? SLOTS - 1 : SLOTS / 2, right);
    node_set_heads(n);
    node_set_heads(right);
    return right;
}

static void root_grow(struct index *ix, struct index_node *left, struct index_node *right)
{
    struct index_node *root = node_new(ix, false);
    root->count = 2;
    root->entry[0] = left->entry[0];
    root->entry[1] = right->entry[0];
    inner_of(root)->child[0] = left;
    inner_of(root)->child[1] = right;
    inner_of(root)->live[0] = node_live(left);
    inner_of(root)->live[1] = node_live(right);
    node_set_heads(root);
    ix->root = root;
}

static void path_insert(struct index *ix, struct path *p, struct entry *e)
{
    struct index_node *child = NULL; /* what the level below split off */
    struct entry *smallest = e;
    for (int level = p->depth - 1; level >= 0; level--) {
        struct index_node *n = p->node[level], *right = NULL;
        if (level < p->depth - 1) {
            path_refresh(p, level + 1);
        }
        if (level == p->depth - 1 || child != NULL) {
            int at = level == p->depth - 1 ? p->pos[level] : p->pos[level] + 1;
            if (n->count == SLOTS) {
                right = node_split(ix, n, at);
            }
            if (right != NULL && at > n->count) {
                slot_insert(right, at - n->count, smallest, child);
            } else {
                slot_insert(n, at, smallest, child);
            }
        }
        child = right;
        smallest = right == NULL ? NULL : right->entry[0];
    }
    if (child != NULL) {
        root_grow(ix, ix->root, child);
    }
}

struct entry *index_change(struct index *ix, struct entry *found, struct slice key, struct change c, int64_t create,
                           int64_t version, int64_t lease)
{
    if (found == NULL) {
        struct path p;
        must(!path_find(ix, key, &p));
        struct entry *e = entry_new(ix, key);
        entry_push(ix, e, c);
        entry_set_life(ix, e, create, version, lease);
        path_insert(ix, &p, e);
        ix->totals.live += !c.tombstone;
        return e;
    }
    bool was_live = entry_is_live(found);
    entry_push(ix, found, c);
    entry_set_life(ix, found, create, version, lease);
    if (was_live != entry_is_live(found)) {
        struct path p;
        must(path_find(ix, key, &p));
        p.node[p.depth - 1]->alive ^= 1ull << p.pos[p.depth - 1];
        path_add_live(&p, was_live ? -1 : 1);
        ix->totals.live += was_live ? (uint64_t)-1 : 1;
    }
    return found;
}

struct entry *index_append(struct index *ix, struct slice key, struct change latest, int64_t create, int64_t version,
                           int64_t lease, const struct change *older, size_t older_count)
{
    struct path p;
    if (path_find(ix, key, &p) || p.pos[p.depth - 1] != p.node[p.depth - 1]->count) {
        return NULL;
    }
    struct entry *e = entry_new(ix, key);
    entry_push(ix, e, latest);
    entry_set_older(ix, e, older, older_count);
    entry_set_life(ix, e, create, version, lease);
    path_insert(ix, &p, e);
    ix->totals.live += !latest.tombstone;
    return e;
}

/* --- remove ------------------------------------------------------------------------------------- */

/* Joins a thin child with a neighbour if both fit into one with room left. */
static void node_merge(struct index *ix, struct index_node *parent, int at)
{
    struct inner *in = inner_of(parent);
    if (in->child[at]->count >= SLOTS_THIN || parent->count < 2) {
        return;
    }
    int left = at > 0 ? at - 1 : at;
    struct index_node *a = in->child[left], *b = in->child[left + 1];
    if (a->count + b->count > SLOTS_MERGED_MAX) {
        return;
    }
    node_move(b, 0, a);
    node_set_heads(a);
    in->live[left] = node_live(a);
    node_free(ix, b);
    node_take_out(parent, left + 1);
}

static void path_remove(struct index *ix, struct path *p)
{
    node_take_out(p->node[p->depth - 1], p->pos[p->depth - 1]);
    for (int level = p->depth - 1; level > 0; level--) {
        struct index_node *n = p->node[level], *parent = p->node[level - 1];
        if (n->count == 0) {
            node_free(ix, n);
            node_take_out(parent, p->pos[level - 1]);
        } else {
            path_refresh(p, level);
            node_merge(ix, parent, p->pos[level - 1]);
        }
    }
    while (!ix->root->leaf && ix->root->count <= 1) {
        struct index_node *old = ix->root;
        ix->root = old->count == 1 ? inner_of(old)->child[0] : node_new(ix, true);
        node_free(ix, old);
    }
}

bool index_prune(struct index *ix, struct entry *e, int64_t rev, bool tombstones)
{
    const struct change *older;
    size_t count = entry_older(e, &older);
    size_t drop = entry_droppable(e, rev, tombstones);
    if (drop <= count) {
        entry_drop_older(ix, e, drop);
        return false;
    }
    struct path p;
    must(path_find(ix, entry_key(e), &p));
    path_remove(ix, &p); /* dead: no live count changes */
    entry_free(ix, e);
    return true;
}

/* --- look up ------------------------------------------------------------------------------------ */

struct entry *index_find(const struct index *ix, struct slice key)
{
    const struct index_node *n = ix->root;
    while (!n->leaf) {
        n = inner_of_const(n)->child[child_for(n, key)];
    }
    bool equal;
    int at = node_search(n, key, &equal);
    return equal ? n->entry[at] : NULL;
}

uint64_t index_rank(const struct index *ix, struct slice key)
{
    const struct index_node *n = ix->root;
    uint64_t rank = 0;
    while (!n->leaf) {
        int at = child_for(n, key);
        for (int i = 0; i < at; i++) {
            rank += inner_of_const(n)->live[i];
        }
        n = inner_of_const(n)->child[at];
    }
    bool equal;
    int at = node_search(n, key, &equal);
    return rank + (uint64_t)__builtin_popcountll(n->alive & bits_below(at));
}

uint64_t index_count(const struct index *ix, const struct api_interval *in)
{
    if (in->single) {
        const struct entry *e = index_find(ix, in->key);
        return e != NULL && entry_is_live(e);
    }
    uint64_t below = index_rank(ix, in->key);
    uint64_t upto = in->open ? ix->totals.live : index_rank(ix, in->end);
    return upto > below ? upto - below : 0;
}

struct index_totals index_totals(const struct index *ix)
{
    return ix->totals;
}

void index_seek(const struct index *ix, struct slice key, struct index_iter *it)
{
    struct path p;
    path_find(ix, key, &p);
    it->depth = p.depth;
    for (int i = 0; i < p.depth; i++) {
        it->node[i] = p.node[i];
        it->pos[i] = p.pos[i];
    }
}

struct entry *index_next(struct index_iter *it)
{
    while (it->depth > 0) {
        const struct index_node *n = it->node[it->depth - 1];
        int at = it->pos[it->depth - 1];
        if (at >= n->count) {
            it->depth--;
            if (it->depth > 0) {
                it->pos[it->depth - 1]++;
            }
        } else if (n->leaf) {
            it->pos[it->depth - 1]++;
            return n->entry[at];
        } else {
            it->node[it->depth] = inner_of_const(n)->child[at];
            it->pos[it->depth++] = 0;
        }
    }
    return NULL;
}

/* --- life --------------------------------------------------------------------------------------- */

struct index *index_new(void)
{
    struct index *ix = xcalloc(1, sizeof(*ix));
    ix->root = node_new(ix, true);
    return ix;
}

static void subtree_free(struct index *ix, struct index_node *n)
{
    for (int i = 0; i < n->count; i++) {
        if (n->leaf) {
            entry_free(ix, n->entry[i]);
        } else {
            subtree_free(ix, inner_of(n)->child[i]);
        }
    }
    node_free(ix, n);
}

void index_free(struct index *ix)
{
    if (ix != NULL) {
        subtree_free(ix, ix->root);
        free(ix);
    }
}

static int subtree_check(const struct index_node *n, const struct entry **last, uint64_t *live)
{
    int depth = 0;
    for (int i = 0; i < n->count; i++) {
        must(n->head[i] == key_head(entry_key(n->entry[i]), n->shared));
        must(common_prefix(entry_key(n->entry[i]), entry_key(n->entry[0])) >= n->shared);
        if (!n->leaf) {
            const struct index_node *c = inner_of_const(n)->child[i];
            uint64_t below = 0;
            must(c->count > 0 && n->entry[i] == c->entry[0]);
            int d = subtree_check(c, last, &below);
            must(i == 0 || d == depth);
            must(below == inner_of_const(n)->live[i]);
            depth = d;
            *live += below;
            continue;
        }
        must(*last == NULL || slice_cmp(entry_key(*last), entry_key(n->entry[i])) < 0);
        must(((n->alive >> i) & 1) == entry_is_live(n->entry[i]));
        *live += entry_is_live(n->entry[i]);
        *last = n->entry[i];
    }
    must(!n->leaf || (n->alive & ~bits_below(n->count)) == 0);
    return depth + 1;
}

void index_check(const struct index *ix)
{
    const struct entry *last = NULL;
    uint64_t live = 0;
    subtree_check(ix->root, &last, &live);
    must(live == ix->totals.live);
}
