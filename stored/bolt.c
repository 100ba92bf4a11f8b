/* bolt - see bolt.h. Rows from backup.c. A tree grows from its leaves: a page that the next row does not fit into is emitted and
 * gives its parent an element; a parent that is full is emitted in the same way. So children precede their parents in the
 * file, and pages of two trees (a bucket's, and the one of all buckets) may alternate. */
#include "stored/bolt.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"

#define MAGIC 0xED0CDAEDu
#define FORMAT_VERSION 2
#define PAGE_HEAD_BYTES 16
#define ELEMENT_BYTES 16
#define FREELIST_PAGE 2
#define FIRST_PAGE 3
#define TRANSACTION 2 /* even: the meta page 0 is the newer one */
#define INLINE_BYTES_MAX (BOLT_PAGE_BYTES / 4)
#define BRANCH_MIN 2  /* children, so that a tree of huge keys narrows too */
#define DEPTH_MAX 40  /* even with two children each: more than there can be pages */

enum page_kind { PAGE_BRANCH = 0x01, PAGE_LEAF = 0x02, PAGE_META = 0x04, PAGE_FREELIST = 0x10 };
enum { LEAF_BUCKET = 1 };

struct element {
    uint32_t flags, key_len, value_len;
    uint64_t child;
};

/* A page under construction. */
struct node {
    struct element *elements;
    size_t count, cap;
    struct buf bytes; /* of keys and values, as they will stand behind the elements */
};

struct tree {
    struct node level[DEPTH_MAX]; /* 0: leaves */
};

struct bolt {
    bool writing;
    uint64_t next_page;
    uint64_t planned_pages, planned_root;
    bool in_bucket;
    struct buf name; /* of the open bucket */
    struct tree buckets, rows;
    struct buf out;
};

/* --- numbers --------------------------------------------------------------------------------------------- */

static void put16(uint8_t *at, uint16_t v)
{
    v = htole16(v);
    memcpy(at, &v, sizeof v);
}

static void put32(uint8_t *at, uint32_t v)
{
    v = htole32(v);
    memcpy(at, &v, sizeof v);
}

static void put64(uint8_t *at, uint64_t v)
{
    v = htole64(v);
    memcpy(at, &v, sizeof v);
}

static uint64_t fnv1a(const uint8_t *data, size_t len)
{
    uint64_t hash = 0xcbf29ce484222325ULL;

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ data[i]) * 0x100000001b3ULL;
    return hash;
}

/* --- pages ------------------------------------------------------------------------------------------------ */

static void head_put(uint8_t *page, uint64_t id, enum page_kind kind, size_t count, uint64_t pages)
{
    put64(page, id);
    put16(page + 8, (uint16_t)kind);
    put16(page + 10, (uint16_t)count);
    put32(page + 12, (uint32_t)(pages - 1));
}

static void meta_put(uint8_t *page, uint64_t id, uint64_t root, uint64_t pages)
{
    uint8_t *meta = page + PAGE_HEAD_BYTES;

    head_put(page, id, PAGE_META, 0, 1);
    put32(meta, MAGIC);
    put32(meta + 4, FORMAT_VERSION);
    put32(meta + 8, (uint32_t)BOLT_PAGE_BYTES);
    put32(meta + 12, 0);
    put64(meta + 16, root);
    put64(meta + 24, 0);
    put64(meta + 32, FREELIST_PAGE);
    put64(meta + 40, pages);
    put64(meta + 48, TRANSACTION - id);
    put64(meta + 56, fnv1a(meta, 56));
}

static uint8_t *page_new(struct bolt *b, uint64_t pages)
{
    uint8_t *page = buf_extend(&b->out, (size_t)pages * BOLT_PAGE_BYTES);

    memset(page, 0, (size_t)pages * BOLT_PAGE_BYTES);
    return page;
}

static void front_write(struct bolt *b)
{
    meta_put(page_new(b, 1), 0, b->planned_root, b->planned_pages);
    meta_put(page_new(b, 1), 1, b->planned_root, b->planned_pages);
    head_put(page_new(b, 1), FREELIST_PAGE, PAGE_FREELIST, 0, 1);
}

static size_t node_bytes(const struct node *n)
{
    return PAGE_HEAD_BYTES + n->count * ELEMENT_BYTES + n->bytes.len;
}

/* The page's bytes, without what fills it up. */
static void node_put(const struct node *n, uint8_t *page, uint64_t id, enum page_kind kind, uint64_t pages)
{
    uint8_t *element = page + PAGE_HEAD_BYTES, *bytes = element + n->count * ELEMENT_BYTES;

    head_put(page, id, kind, n->count, pages);
    if (n->bytes.len)
        memcpy(bytes, n->bytes.data, n->bytes.len);
    for (size_t i = 0; i < n->count; i++, element += ELEMENT_BYTES) {
        const struct element *e = &n->elements[i];

        if (kind == PAGE_LEAF) {
            put32(element, e->flags);
            put32(element + 4, (uint32_t)(bytes - element));
            put32(element + 8, e->key_len);
            put32(element + 12, e->value_len);
        } else {
            put32(element, (uint32_t)(bytes - element));
            put32(element + 4, e->key_len);
            put64(element + 8, e->child);
        }
        bytes += e->key_len + e->value_len;
    }
}

/* Its number. */
static uint64_t node_emit(struct bolt *b, const struct node *n, enum page_kind kind)
{
    uint64_t id = b->next_page, pages = (node_bytes(n) + BOLT_PAGE_BYTES - 1) / BOLT_PAGE_BYTES;

    b->next_page += pages;
    if (b->writing)
        node_put(n, page_new(b, pages), id, kind, pages);
    return id;
}

/* --- trees -------------------------------------------------------------------------------------------------- */

static void node_clear(struct node *n)
{
    n->count = 0;
    if (n->bytes.cap > 16 * BOLT_PAGE_BYTES) /* a large value went by */
        buf_fini(&n->bytes);
    buf_reset(&n->bytes);
}

static void tree_add(struct bolt *b, struct tree *t, unsigned depth, struct element e, struct slice key, struct slice value);

static void tree_flush(struct bolt *b, struct tree *t, unsigned depth)
{
    struct node *n = &t->level[depth];
    struct element up = {.key_len = n->elements[0].key_len, .child = node_emit(b, n, depth ? PAGE_BRANCH : PAGE_LEAF)};

    tree_add(b, t, depth + 1, up, buf_part(&n->bytes, 0, up.key_len), SLICE_EMPTY);
    node_clear(n);
}

static void tree_add(struct bolt *b, struct tree *t, unsigned depth, struct element e, struct slice key, struct slice value)
{
    must(depth < DEPTH_MAX);
    struct node *n = &t->level[depth];

    if (n->count >= (depth ? BRANCH_MIN : 1) &&
        node_bytes(n) + ELEMENT_BYTES + key.len + value.len > BOLT_PAGE_BYTES)
        tree_flush(b, t, depth);
    if (n->count == n->cap) {
        n->cap = n->cap ? n->cap * 2 : 16;
        n->elements = xrealloc(n->elements, n->cap * sizeof *n->elements);
    }
    n->elements[n->count++] = e;
    buf_add_slice(&n->bytes, key);
    buf_add_slice(&n->bytes, value);
}

/* What is left goes out, from the leaves up. Returns the root's number; the tree is empty again. */
static uint64_t tree_end(struct bolt *b, struct tree *t)
{
    unsigned depth = 0;

    for (; depth + 1 < DEPTH_MAX && t->level[depth + 1].count; depth++)
        tree_flush(b, t, depth);
    uint64_t root = node_emit(b, &t->level[depth], depth ? PAGE_BRANCH : PAGE_LEAF);
    node_clear(&t->level[depth]);
    return root;
}

static void tree_fini(struct tree *t)
{
    for (size_t i = 0; i < DEPTH_MAX; i++) {
        free(t->level[i].elements);
        buf_fini(&t->level[i].bytes);
    }
}

/* --- buckets ------------------------------------------------------------------------------------------------- */

static void leaf_add(struct bolt *b, struct tree *t, uint32_t flags, struct slice key, struct slice value)
{
    struct element e = {.flags = flags, .key_len = (uint32_t)key.len, .value_len = (uint32_t)value.len};

    tree_add(b, t, 0, e, key, value);
}

static bool is_small(const struct tree *t)
{
    return t->level[1].count == 0 && node_bytes(&t->level[0]) <= INLINE_BYTES_MAX;
}

static void bucket_end(struct bolt *b)
{
    uint8_t value[16 + INLINE_BYTES_MAX] = {0};
    struct node *leaf = &b->rows.level[0];
    size_t len = 16;

    if (!b->in_bucket)
        return;
    b->in_bucket = false;
    if (is_small(&b->rows)) {
        node_put(leaf, value + 16, 0, PAGE_LEAF, 1);
        len += node_bytes(leaf);
        node_clear(leaf);
    } else {
        put64(value, tree_end(b, &b->rows));
    }
    leaf_add(b, &b->buckets, LEAF_BUCKET, buf_slice(&b->name), slice_of(value, len));
}

void bolt_bucket(struct bolt *b, struct slice name)
{
    bucket_end(b);
    buf_reset(&b->name);
    buf_add_slice(&b->name, name);
    b->in_bucket = true;
}

void bolt_row(struct bolt *b, struct slice key, struct slice value)
{
    must(b->in_bucket && key.len <= INT32_MAX && value.len <= INT32_MAX);
    leaf_add(b, &b->rows, 0, key, value);
}

int bolt_end(struct bolt *b)
{
    bucket_end(b);
    uint64_t root = tree_end(b, &b->buckets), pages = b->next_page;

    if (b->writing)
        return root == b->planned_root && pages == b->planned_pages ? 0 : E_DAMAGED;
    b->planned_root = root;
    b->planned_pages = pages;
    b->next_page = FIRST_PAGE;
    b->writing = true;
    front_write(b);
    return 0;
}

uint64_t bolt_bytes(const struct bolt *b)
{
    return b->planned_pages * BOLT_PAGE_BYTES;
}

struct buf *bolt_out(struct bolt *b)
{
    return &b->out;
}

struct bolt *bolt_new(void)
{
    struct bolt *b = xcalloc(1, sizeof *b);

    b->next_page = FIRST_PAGE;
    return b;
}

void bolt_free(struct bolt *b)
{
    if (!b)
        return;
    tree_fini(&b->buckets);
    tree_fini(&b->rows);
    buf_fini(&b->name);
    buf_fini(&b->out);
    free(b);
}
