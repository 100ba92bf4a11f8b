/* lease - the set of leases: by id in a hash table, by deadline in a heap; keys in one more hash table.
 *
 * A key is attached to at most one lease, so one table of attachments, keyed by the key, serves all leases; each lease
 * has its own in a list. Byte order is made when somebody asks (a revoke), which is rarer than a put.
 *
 *      granted, leading      in the heap, deadline = now + ttl
 *      due                   popped from the heap by leases_due; renewals are refused from the deadline on, so that a
 *                            proposed revoke can never meet a lease that was renewed after it
 *      not leading           in no heap; the deadline means nothing
 *      loading               a lease known only by its keys has granted == 0 until lease_load; see lease.h
 */
#include "stored/lease.h"

#include <stdlib.h>
#include <string.h>

#include <bsd/sys/queue.h>
#include <uthash.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/mem.h"
#include "common/timer.h"

struct attachment {
    struct lease *lease;
    LIST_ENTRY(attachment) link; /* of lease->keys */
    UT_hash_handle hh;           /* of leases->attachments */
    size_t len;
    uint8_t key[];
};

struct lease {
    int64_t id;
    int64_t granted;      /* seconds; 0: only its keys are known yet */
    uint64_t deadline_ms; /* leading: when it is due */
    struct timer timer;   /* armed while leading; at_ms is the deadline, or the next attempt to revoke it */
    LIST_HEAD(, attachment) keys;
    size_t key_count;
    UT_hash_handle hh; /* of leases->by_id */
};

struct leases {
    struct lease *by_id;
    struct attachment *attachments;
    struct timer_heap heap;
    size_t count; /* without the ones that are known by their keys only */
    uint64_t min_ttl_s;
    bool leading, loading;
};

struct leases *leases_new(uint64_t min_ttl_s)
{
    struct leases *l = xcalloc(1, sizeof *l);

    l->min_ttl_s = min_ttl_s;
    l->loading = true;
    timer_heap_init(&l->heap);
    return l;
}

static void attachment_free(struct leases *l, struct attachment *a)
{
    LIST_REMOVE(a, link);
    a->lease->key_count--;
    HASH_DEL(l->attachments, a);
    free(a);
}

static void lease_free(struct leases *l, struct lease *le)
{
    while (!LIST_EMPTY(&le->keys))
        attachment_free(l, LIST_FIRST(&le->keys));
    timer_stop(&l->heap, &le->timer);
    HASH_DEL(l->by_id, le);
    if (le->granted)
        l->count--;
    free(le);
}

void leases_free(struct leases *l)
{
    struct lease *le, *next;

    if (!l)
        return;
    HASH_ITER(hh, l->by_id, le, next)
        lease_free(l, le);
    timer_heap_fini(&l->heap);
    free(l);
}

/* With the ones that are known by their keys only. */
static struct lease *lease_find_any(const struct leases *l, int64_t id)
{
    struct lease *le;

    HASH_FIND(hh, l->by_id, &id, sizeof id, le);
    return le;
}

static struct lease *lease_find(const struct leases *l, int64_t id)
{
    struct lease *le = lease_find_any(l, id);

    return le && le->granted ? le : NULL;
}

static struct lease *lease_add(struct leases *l, int64_t id)
{
    struct lease *le = xcalloc(1, sizeof *le);

    le->id = id;
    LIST_INIT(&le->keys);
    HASH_ADD(hh, l->by_id, id, sizeof le->id, le);
    return le;
}

static void lease_arm(struct leases *l, struct lease *le, uint64_t now_ms, uint64_t extend_ms)
{
    le->deadline_ms = now_ms + (uint64_t)le->granted * 1000 + extend_ms;
    timer_set(&l->heap, &le->timer, le->deadline_ms);
}

void lease_load(struct leases *l, int64_t id, int64_t ttl_s)
{
    struct lease *le = lease_find_any(l, id);

    must(l->loading && ttl_s > 0 && ttl_s <= LEASE_TTL_MAX);
    if (!le)
        le = lease_add(l, id);
    must(!le->granted);
    le->granted = ttl_s;
    l->count++;
}

size_t leases_loaded(struct leases *l)
{
    struct lease *le, *next;
    size_t unknown = 0;

    HASH_ITER(hh, l->by_id, le, next) {
        if (!le->granted) {
            lease_free(l, le);
            unknown++;
        }
    }
    l->loading = false;
    return unknown;
}

int lease_grant(struct leases *l, int64_t id, int64_t ttl_s, int64_t *granted, uint64_t now_ms)
{
    struct lease *le;

    /* etcd's order: the TTL is looked at before the id. */
    if (ttl_s > LEASE_TTL_MAX)
        return E_LEASE_TTL_TOO_LARGE;
    if (id == 0 || lease_exists(l, id))
        return E_LEASE_EXIST;
    must(!l->loading);
    le = lease_add(l, id);
    le->granted = MAX(ttl_s, (int64_t)MAX(l->min_ttl_s, 1));
    l->count++;
    if (l->leading)
        lease_arm(l, le, now_ms, 0);
    *granted = le->granted;
    return 0;
}

bool lease_exists(const struct leases *l, int64_t id)
{
    return lease_find(l, id) != NULL;
}

int lease_drop(struct leases *l, int64_t id)
{
    struct lease *le = lease_find(l, id);

    if (!le)
        return E_LEASE_NOT_FOUND;
    lease_free(l, le);
    return 0;
}

void lease_attach(struct leases *l, struct slice key, int64_t old, int64_t id)
{
    struct lease *le = id ? lease_find_any(l, id) : NULL;
    struct attachment *a;

    UNUSED(old); /* the table knows it */
    if (!le && id && l->loading)
        le = lease_add(l, id);
    HASH_FIND(hh, l->attachments, key.data, key.len, a);
    if (a && a->lease == le)
        return;
    if (a && !le) {
        attachment_free(l, a);
        return;
    }
    if (!le)
        return;
    if (a) {
        LIST_REMOVE(a, link);
        a->lease->key_count--;
    } else {
        a = xcalloc(1, sizeof *a + key.len);
        a->len = key.len;
        memcpy(a->key, key.data, key.len);
        HASH_ADD_KEYPTR(hh, l->attachments, a->key, a->len, a);
    }
    a->lease = le;
    LIST_INSERT_HEAD(&le->keys, a, link);
    le->key_count++;
}

static int slice_sort_cmp(const void *a, const void *b)
{
    return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

size_t lease_keys(const struct leases *l, int64_t id, struct slice **keys)
{
    const struct lease *le = lease_find(l, id);
    const struct attachment *a;
    size_t n = 0;

    *keys = NULL;
    if (!le || !le->key_count)
        return 0;
    *keys = xmalloc(le->key_count * sizeof **keys);
    LIST_FOREACH(a, &le->keys, link)
        (*keys)[n++] = slice_of(a->key, a->len);
    must(n == le->key_count);
    qsort(*keys, n, sizeof **keys, slice_sort_cmp);
    return n;
}

bool lease_keys_all(const struct leases *l, int64_t id, bool (*cb)(void *arg, struct slice key), void *arg)
{
    const struct lease *le = lease_find(l, id);
    const struct attachment *a;

    if (!le)
        return true;
    LIST_FOREACH(a, &le->keys, link)
        if (!cb(arg, slice_of(a->key, a->len)))
            return false;
    return true;
}

void leases_lead(struct leases *l, bool leading, uint64_t now_ms, uint64_t extend_ms)
{
    struct lease *le, *next;

    l->leading = leading;
    HASH_ITER(hh, l->by_id, le, next) {
        if (leading && le->granted)
            lease_arm(l, le, now_ms, extend_ms);
        else
            timer_stop(&l->heap, &le->timer);
    }
}

bool leases_leading(const struct leases *l)
{
    return l->leading;
}

int lease_renew(struct leases *l, int64_t id, int64_t *ttl, uint64_t now_ms)
{
    struct lease *le = lease_find(l, id);

    if (!l->leading)
        return E_NOT_PRIMARY_LESSOR;
    if (!le || now_ms >= le->deadline_ms)
        return E_LEASE_NOT_FOUND;
    lease_arm(l, le, now_ms, 0);
    *ttl = le->granted;
    return 0;
}

int lease_time_to_live(const struct leases *l, int64_t id, int64_t *remaining, int64_t *granted, uint64_t now_ms)
{
    const struct lease *le = lease_find(l, id);

    if (!l->leading)
        return E_NOT_PRIMARY_LESSOR;
    if (!le || now_ms >= le->deadline_ms)
        return E_LEASE_NOT_FOUND;
    *remaining = (int64_t)((le->deadline_ms - now_ms + 500) / 1000);
    *granted = le->granted;
    return 0;
}

size_t leases_due(struct leases *l, int64_t *ids, size_t max, uint64_t now_ms, uint64_t attempt_ms)
{
    struct timer *t;
    size_t n = 0;

    while (n < max && (t = timer_pop(&l->heap, now_ms)) != NULL) {
        struct lease *le = container_of(t, struct lease, timer);

        ids[n++] = le->id;
        timer_set(&l->heap, &le->timer, now_ms + MAX(attempt_ms, 1));
    }
    return n;
}

static int by_deadline(const void *a, const void *b)
{
    const struct lease *x = *(struct lease *const *)a, *y = *(struct lease *const *)b;

    if (x->deadline_ms != y->deadline_ms)
        return x->deadline_ms < y->deadline_ms ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

size_t leases_list(const struct leases *l, int64_t **ids)
{
    struct lease **all = xmalloc((l->count + 1) * sizeof(struct lease *));
    struct lease *le, *next;
    size_t n = 0;

    HASH_ITER(hh, l->by_id, le, next) {
        if (le->granted)
            all[n++] = le;
    }
    must(n == l->count);
    qsort(all, n, sizeof(struct lease *), by_deadline);
    *ids = xmalloc((n + 1) * sizeof **ids);
    for (size_t i = 0; i < n; i++)
        (*ids)[i] = all[i]->id;
    free(all);
    return n;
}

size_t leases_count(const struct leases *l)
{
    return l->count;
}
