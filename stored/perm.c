/* perm - see perm.h. etcd's rules: spec/semantics.md §14.4; what an empty interval needs is what etcd's interval tree
 * asks. */
#include "stored/perm.h"

#include <stdlib.h>
#include <string.h>

#include "proto/api.h"

void perms_init(struct perms *p)
{
    *p = (struct perms){.count = 0};
    arena_init(&p->bytes);
}

void perms_fini(struct perms *p)
{
    free(p->spans);
    arena_fini(&p->bytes);
    *p = (struct perms){.count = 0};
}

/* The smallest key that is greater: key and a zero byte. */
static struct slice after(struct perms *p, struct slice key)
{
    uint8_t *bytes = arena_alloc(&p->bytes, key.len + 1);

    if (key.len)
        memcpy(bytes, key.data, key.len);
    bytes[key.len] = 0;
    return slice_of(bytes, key.len + 1);
}

static struct slice copy(struct perms *p, struct slice s)
{
    return slice_of(arena_dup(&p->bytes, s.data, s.len), s.len);
}

void perms_add(struct perms *p, struct slice key, struct slice range_end)
{
    struct api_interval in = api_interval(key, range_end);
    struct perm_span span = {.begin = copy(p, key), .open = in.open};

    if (!in.single && !in.open && slice_cmp(range_end, key) <= 0)
        return;
    if (!in.open)
        span.end = in.single ? after(p, key) : copy(p, range_end);
    if (p->count == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 8;
        p->spans = xrealloc(p->spans, p->cap * sizeof *p->spans);
    }
    p->spans[p->count++] = span;
}

static int span_cmp(const void *a, const void *b)
{
    return slice_cmp(((const struct perm_span *)a)->begin, ((const struct perm_span *)b)->begin);
}

void perms_merge(struct perms *p)
{
    size_t kept = 0;

    if (!p->count)
        return;
    qsort(p->spans, p->count, sizeof *p->spans, span_cmp);
    for (size_t i = 1; i < p->count; i++) {
        struct perm_span *last = &p->spans[kept], *next = &p->spans[i];

        if (!last->open && slice_cmp(next->begin, last->end) > 0) {
            p->spans[++kept] = *next;
        } else if (next->open) {
            last->open = true;
        } else if (!last->open && slice_cmp(next->end, last->end) > 0) {
            last->end = next->end;
        }
    }
    p->count = kept + 1;
}

/* The last span that begins at or before key; NULL: none. */
static const struct perm_span *span_before(const struct perms *p, struct slice key)
{
    size_t low = 0, high = p->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (slice_cmp(p->spans[middle].begin, key) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &p->spans[low - 1] : NULL;
}

bool perms_cover(const struct perms *p, struct slice key, struct slice range_end)
{
    const struct perm_span *span = span_before(p, key);
    struct api_interval in = api_interval(key, range_end);

    if (!span)
        return false;
    if (span->open)
        return in.single || in.open || slice_cmp(span->begin, range_end) < 0;
    if (in.open || slice_cmp(key, span->end) >= 0)
        return false;
    return in.single || (slice_cmp(range_end, span->end) <= 0 && slice_cmp(span->begin, range_end) < 0);
}
