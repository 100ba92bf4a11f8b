/* bolt_read - see bolt_read.h. For restore.c, and for tests that hold what bolt.c wrote against it. */
#include "stored/bolt_read.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"

#define MAGIC 0xED0CDAEDu
#define FORMAT_VERSION 2
#define HEAD_BYTES 16
#define META_BYTES 64
#define ELEMENT_BYTES 16
#define DEPTH_MAX 64
#define PAGE_BYTES_MIN 512
#define PAGE_BYTES_MAX 65536

enum { KIND_BRANCH = 0x01, KIND_LEAF = 0x02, KIND_META = 0x04 };
enum { FLAG_BUCKET = 0x01 };

struct bolt_file {
    struct slice bytes;
    size_t page_bytes;
    uint64_t pages, root;
    uint8_t *seen; /* a bit for each page: was looked at in the running walk */
};

typedef int row_cb(void *arg, struct slice key, struct slice value);

struct walk {
    struct bolt_file *f;
    row_cb *cb;
    void *arg;
    bool of_buckets;   /* the tree of buckets, else rows */
    bool any;
    struct slice last; /* key */
    struct buf *why;
};

static uint16_t get16(const uint8_t *at)
{
    uint16_t v;
    memcpy(&v, at, sizeof v);
    return le16toh(v);
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, sizeof v);
    return le32toh(v);
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, sizeof v);
    return le64toh(v);
}

static int damaged(struct buf *why, const char *what, uint64_t page)
{
    buf_printf(why, "page %llu: %s", (unsigned long long)page, what);
    return E_DAMAGED;
}

/* --- opening --------------------------------------------------------------------------------------------- */

static uint64_t checksum(const uint8_t *data, size_t len)
{
    uint64_t hash = 0xcbf29ce484222325ULL;

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ data[i]) * 0x100000001b3ULL;
    return hash;
}

static const uint8_t *meta_at(struct slice bytes, size_t page_bytes, unsigned which)
{
    if (bytes.len < (which + 1) * page_bytes)
        return NULL;
    const uint8_t *page = bytes.data + which * page_bytes, *meta = page + HEAD_BYTES;
    if (get16(page + 8) != KIND_META || get32(meta) != MAGIC || get64(meta + 56) != checksum(meta, 56))
        return NULL;
    return meta;
}

/* The page size stands in the meta pages, and tells where the second one is. */
static const uint8_t *meta_find(struct slice bytes)
{
    const uint8_t *best = meta_at(bytes, PAGE_BYTES_MIN, 0);

    for (size_t size = best ? get32(best + 8) : PAGE_BYTES_MIN; size >= PAGE_BYTES_MIN && size <= PAGE_BYTES_MAX; size *= 2) {
        const uint8_t *second = meta_at(bytes, size, 1);

        if (second && get32(second + 8) == size && (!best || get64(second + 48) > get64(best + 48)))
            best = second;
        if (best)
            break;
    }
    return best;
}

int bolt_open(struct slice bytes, struct bolt_file **out, struct buf *why)
{
    const uint8_t *meta = meta_find(bytes);

    if (!meta) {
        buf_add_str(why, "no page says what the file is");
        return E_DAMAGED;
    }
    size_t page_bytes = get32(meta + 8);
    if (get32(meta + 4) != FORMAT_VERSION || page_bytes < PAGE_BYTES_MIN || page_bytes > PAGE_BYTES_MAX ||
        (page_bytes & (page_bytes - 1)) != 0) {
        buf_printf(why, "format %u with pages of %zu bytes is not known", get32(meta + 4), page_bytes);
        return E_VERSION;
    }
    uint64_t pages = get64(meta + 40);
    if (pages > bytes.len / page_bytes) {
        buf_printf(why, "it has %zu pages of %llu", bytes.len / page_bytes, (unsigned long long)pages);
        return E_DAMAGED;
    }
    struct bolt_file *f = xcalloc(1, sizeof *f);
    *f = (struct bolt_file){.bytes = bytes, .page_bytes = page_bytes, .pages = pages, .root = get64(meta + 16)};
    f->seen = xcalloc(1, (size_t)(pages / 8) + 1);
    *out = f;
    return 0;
}

void bolt_close(struct bolt_file *f)
{
    if (!f)
        return;
    free(f->seen);
    free(f);
}

/* --- walking ------------------------------------------------------------------------------------------------- */

static int page_walk(struct walk *w, uint64_t id, unsigned depth);

static int row_give(struct walk *w, uint64_t id, uint32_t flags, struct slice key, struct slice value)
{
    if (w->any && slice_cmp(w->last, key) >= 0)
        return damaged(w->why, "its keys are not in order", id);
    if (((flags & FLAG_BUCKET) != 0) != w->of_buckets)
        return damaged(w->why, w->of_buckets ? "a row is no bucket" : "a bucket is in a bucket", id);
    w->any = true;
    w->last = key;
    return w->cb(w->arg, key, value);
}

/* page: from its header to the end of the last one that it takes. */
static int elements_walk(struct walk *w, struct slice page, uint64_t id, unsigned depth)
{
    if (page.len < HEAD_BYTES)
        return damaged(w->why, "it is cut off", id);
    uint16_t kind = get16(page.data + 8);
    size_t count = get16(page.data + 10);
    if ((kind != KIND_LEAF && kind != KIND_BRANCH) || HEAD_BYTES + count * ELEMENT_BYTES > page.len)
        return damaged(w->why, "it is neither a leaf nor a branch", id);
    int err = 0;
    for (size_t i = 0; i < count && !err; i++) {
        size_t at = HEAD_BYTES + i * ELEMENT_BYTES;
        const uint8_t *e = page.data + at;
        bool leaf = kind == KIND_LEAF;
        uint64_t pos = get32(leaf ? e + 4 : e), key_len = get32(leaf ? e + 8 : e + 4), value_len = leaf ? get32(e + 12) : 0;

        if (at + pos + key_len + value_len > page.len)
            err = damaged(w->why, "a row reaches beyond it", id);
        else if (leaf)
            err = row_give(w, id, get32(e), slice_of(e + pos, (size_t)key_len),
                           slice_of(e + pos + key_len, (size_t)value_len));
        else
            err = page_walk(w, get64(e + 8), depth + 1);
    }
    return err;
}

static int page_walk(struct walk *w, uint64_t id, unsigned depth)
{
    struct bolt_file *f = w->f;

    if (id < 2 || id >= f->pages || depth > DEPTH_MAX)
        return damaged(w->why, "it is not one of the tree", id);
    if (f->seen[id / 8] & (1u << id % 8))
        return damaged(w->why, "it is there twice", id);
    f->seen[id / 8] |= (uint8_t)(1u << id % 8);
    const uint8_t *page = f->bytes.data + id * f->page_bytes;
    uint64_t more = get32(page + 12);
    if (get64(page) != id || more >= f->pages - id)
        return damaged(w->why, "it says to be another", id);
    return elements_walk(w, slice_of(page, (size_t)(more + 1) * f->page_bytes), id, depth);
}

static int tree_walk(struct bolt_file *f, uint64_t root, bool of_buckets, row_cb *cb, void *arg, struct buf *why)
{
    struct walk w = {.f = f, .cb = cb, .arg = arg, .of_buckets = of_buckets, .why = why};

    memset(f->seen, 0, (size_t)(f->pages / 8) + 1);
    return page_walk(&w, root, 0);
}

struct lookup {
    struct slice name, value;
    bool found;
};

static int lookup_cb(void *arg, struct slice key, struct slice value)
{
    struct lookup *l = arg;

    if (slice_eq(key, l->name)) {
        l->value = value;
        l->found = true;
    }
    return 0;
}

int bolt_each(struct bolt_file *f, struct slice bucket, row_cb *cb, void *arg, struct buf *why)
{
    struct lookup l = {.name = bucket};
    int err = tree_walk(f, f->root, true, lookup_cb, &l, why);

    if (err)
        return err;
    if (!l.found)
        return E_NOT_FOUND;
    if (l.value.len < 16)
        return damaged(why, "a bucket has no root", f->root);
    uint64_t root = get64(l.value.data);
    if (root)
        return tree_walk(f, root, false, cb, arg, why);
    struct walk w = {.f = f, .cb = cb, .arg = arg, .why = why};
    if (l.value.len >= 16 + HEAD_BYTES && get16(l.value.data + 16 + 8) != KIND_LEAF)
        return damaged(why, "a small bucket is no leaf", f->root);
    return elements_walk(&w, slice_of(l.value.data + 16, l.value.len - 16), 0, 0);
}

struct names {
    row_cb *cb;
    void *arg;
};

static int names_cb(void *arg, struct slice key, struct slice value)
{
    struct names *n = arg;

    UNUSED(value);
    return n->cb(n->arg, key, SLICE_EMPTY);
}

int bolt_each_bucket(struct bolt_file *f, row_cb *cb, void *arg, struct buf *why)
{
    struct names n = {cb, arg};

    return tree_walk(f, f->root, true, names_cb, &n, why);
}
