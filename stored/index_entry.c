/* index_entry - one key's history in memory: the latest change in the entry itself, the older ones in a block beside it that
 * exists only while it is needed. Memory is counted as it is asked for, plus malloc's own word. */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "stored/index_inner.h"

#define MALLOC_WORD 8
#define OLDER_FIRST 3

static size_t more_bytes(uint32_t cap)
{
    return sizeof(struct entry_more) + cap * sizeof(struct change);
}

static size_t entry_bytes(const struct entry *e)
{
    return sizeof(*e) + e->key_len + MALLOC_WORD;
}

int64_t entry_lease(const struct entry *e)
{
    return e->more == NULL ? 0 : e->more->lease;
}

int64_t entry_version(const struct entry *e)
{
    uint64_t high = e->more == NULL ? 0 : e->more->version_high;
    return (int64_t)(high << 32 | e->version);
}

size_t entry_older(const struct entry *e, const struct change **older)
{
    if (e->more == NULL) {
        *older = NULL;
        return 0;
    }
    *older = e->more->older;
    return e->more->count;
}

bool entry_at(const struct entry *e, int64_t rev, struct sight *out)
{
    if (e->latest.main <= rev) {
        *out = (struct sight){.at = e->latest, .newest = true};
        return true;
    }
    const struct change *older;
    size_t lo = 0, hi = entry_older(e, &older);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (older[mid].main <= rev) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    if (lo == 0) {
        return false;
    }
    *out = (struct sight){.at = older[lo - 1], .newest = false};
    return true;
}

size_t entry_droppable(const struct entry *e, int64_t rev, bool tombstones)
{
    const struct change *older;
    size_t count = entry_older(e, &older);
    size_t below = 0; /* changes at or below rev */
    while (below < count && older[below].main <= rev) {
        below++;
    }
    struct change keep = below > 0 ? older[below - 1] : e->latest;
    if (below == count && e->latest.main <= rev) {
        keep = e->latest;
        below++;
    }
    if (below == 0) {
        return 0;
    }
    /* The newest of them stays, unless it says "deleted" and nobody may ask for its revision any more. */
    return tombstones && keep.tombstone && keep.main < rev ? below : below - 1;
}

struct entry *entry_new(struct index *ix, struct slice key)
{
    struct entry *e = xmalloc(sizeof(*e) + key.len);
    *e = (struct entry){.key_len = (uint32_t)key.len};
    if (key.len > 0) {
        memcpy(e->key, key.data, key.len);
    }
    ix->totals.entries++;
    ix->totals.bytes += entry_bytes(e);
    return e;
}

static void more_free(struct index *ix, struct entry *e)
{
    if (e->more != NULL) {
        ix->totals.bytes -= more_bytes(e->more->cap) + MALLOC_WORD;
        free(e->more);
        e->more = NULL;
    }
}

void entry_free(struct index *ix, struct entry *e)
{
    entry_drop_older(ix, e, e->more == NULL ? 0 : e->more->count);
    more_free(ix, e);
    ix->totals.entries--;
    ix->totals.changes--;
    ix->totals.record_bytes -= e->latest.len;
    ix->totals.bytes -= entry_bytes(e);
    free(e);
}

/* Makes room for at least cap older changes. */
static struct entry_more *more_reserve(struct index *ix, struct entry *e, uint32_t cap)
{
    uint32_t have = e->more == NULL ? 0 : e->more->cap;
    if (e->more != NULL && have >= cap) {
        return e->more;
    }
    uint32_t want = have == 0 ? cap : MAX(cap, have + have / 2 + 1);
    struct entry_more *more = xrealloc(e->more, more_bytes(want));
    if (e->more == NULL) {
        *more = (struct entry_more){.cap = want};
        ix->totals.bytes += MALLOC_WORD;
    }
    ix->totals.bytes += more_bytes(want) - (e->more == NULL ? 0 : more_bytes(have));
    more->cap = want;
    e->more = more;
    return more;
}

void entry_push(struct index *ix, struct entry *e, struct change c)
{
    if (e->latest.main != 0) {
        uint32_t count = e->more == NULL ? 0 : e->more->count;
        struct entry_more *more = more_reserve(ix, e, count == 0 ? OLDER_FIRST : count + 1);
        more->older[more->count++] = e->latest;
    }
    e->latest = c;
    ix->totals.changes++;
    ix->totals.record_bytes += c.len;
}

void entry_set_life(struct index *ix, struct entry *e, int64_t create, int64_t version, int64_t lease)
{
    uint32_t high = (uint32_t)((uint64_t)version >> 32);
    e->create = create;
    e->version = (uint32_t)version;
    if (e->more == NULL && (lease != 0 || high != 0)) {
        more_reserve(ix, e, 0);
    }
    if (e->more != NULL) {
        e->more->lease = lease;
        e->more->version_high = high;
        if (e->more->cap == 0 && lease == 0 && high == 0) {
            more_free(ix, e);
        }
    }
}

void entry_set_older(struct index *ix, struct entry *e, const struct change *older, size_t count)
{
    if (count == 0) {
        return;
    }
    struct entry_more *more = more_reserve(ix, e, (uint32_t)count);
    memcpy(more->older, older, count * sizeof(*older));
    more->count = (uint32_t)count;
    ix->totals.changes += count;
    for (size_t i = 0; i < count; i++) {
        ix->totals.record_bytes += older[i].len;
    }
}

void entry_drop_older(struct index *ix, struct entry *e, size_t n)
{
    if (n == 0) {
        return;
    }
    struct entry_more *more = e->more;
    for (size_t i = 0; i < n; i++) {
        ix->totals.record_bytes -= more->older[i].len;
    }
    ix->totals.changes -= n;
    more->count -= (uint32_t)n;
    memmove(more->older, more->older + n, more->count * sizeof(more->older[0]));
    if (more->count > 0 && more->count >= more->cap / 2) {
        return;
    }
    if (more->count == 0 && more->lease == 0 && more->version_high == 0) {
        more_free(ix, e);
        return;
    }
    uint32_t cap = more->count; /* a long history that was compacted gives its memory back */
    ix->totals.bytes -= more_bytes(more->cap) - more_bytes(cap);
    e->more = xrealloc(more, more_bytes(cap));
    e->more->cap = cap;
}
