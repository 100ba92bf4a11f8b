/* cache - a ring of records with a second chance (CLOCK) in each of 16 shards.
 * A shard is one block of memory, written like a log: new records go to the head, the oldest leave at the tail, and one that was
 * asked for since it was written is copied to the head once more. No allocation per record, no fragmentation. A table of
 * chains finds a record by its revision. The block is touched only as far as it is used. */
#include "stored/cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/limits.h"
#include "common/mem.h"

#define SHARDS 16
#define SHARD_BYTES_MIN (16 * KIB)
#define BYTES_PER_BUCKET 256
#define SECOND_CHANCES_MAX 16 /* copies per insertion: keeps its cost bounded */

/* In the ring, 8-byte aligned; size covers head, bytes and padding. len UINT32_MAX: filler up to the end of the block. */
struct item {
    int64_t main;
    uint32_t sub;
    uint32_t len;
    uint32_t next; /* offset / 8 + 1 of the next item of the chain; 0: none */
    uint32_t size : 31;
    uint32_t hot : 1;
};
#define FILLER UINT32_MAX

struct shard {
    pthread_mutex_t mutex;
    uint8_t *ring;
    size_t cap;
    uint64_t head, tail; /* ever written, ever dropped; head - tail <= cap */
    uint32_t *bucket;
    uint32_t bucket_mask;
    uint64_t hits, misses;
    struct buf moved; /* an item on its second chance */
};

struct cache {
    bool on;
    struct shard shard[SHARDS];
};

static uint64_t rev_hash(int64_t main, uint32_t sub)
{
    uint64_t h = ((uint64_t)main ^ (uint64_t)sub << 40) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

static struct item *item_at(const struct shard *s, uint32_t ref)
{
    return (struct item *)(void *)(s->ring + (size_t)(ref - 1) * 8);
}

static uint32_t *bucket_of(struct shard *s, int64_t main, uint32_t sub)
{
    return &s->bucket[rev_hash(main, sub) >> 32 & s->bucket_mask];
}

static struct item *shard_find(struct shard *s, int64_t main, uint32_t sub)
{
    for (uint32_t ref = *bucket_of(s, main, sub); ref != 0;) {
        struct item *it = item_at(s, ref);
        if (it->main == main && it->sub == sub) {
            return it;
        }
        ref = it->next;
    }
    return NULL;
}

static void shard_unlink(struct shard *s, struct item *it, uint32_t ref)
{
    uint32_t *link = bucket_of(s, it->main, it->sub);
    while (*link != ref) {
        must(*link != 0);
        link = &item_at(s, *link)->next;
    }
    *link = it->next;
}

static void shard_insert(struct shard *s, int64_t main, uint32_t sub, struct slice record, unsigned chances);

/* Drops the oldest item; a hot one goes to the head again while chances last. */
static void shard_drop(struct shard *s, unsigned *chances)
{
    size_t at = s->tail % s->cap;
    uint32_t ref = (uint32_t)(at / 8) + 1;
    struct item *it = item_at(s, ref);
    if (s->cap - at < sizeof(*it) || it->len == FILLER) {
        s->tail += s->cap - at;
        return;
    }
    shard_unlink(s, it, ref);
    s->tail += it->size;
    if (it->hot && *chances > 0) {
        --*chances;
        int64_t main = it->main;
        uint32_t sub = it->sub;
        buf_reset(&s->moved);
        buf_add(&s->moved, it + 1, it->len);
        shard_insert(s, main, sub, buf_slice(&s->moved), 0);
    }
}

static void shard_insert(struct shard *s, int64_t main, uint32_t sub, struct slice record, unsigned chances)
{
    size_t size = (sizeof(struct item) + record.len + 7) & ~(size_t)7;
    size_t at = s->head % s->cap, filler = 0;
    if (at + size > s->cap) {
        filler = s->cap - at;
    }
    while (s->head + filler + size - s->tail > s->cap) {
        shard_drop(s, &chances);
        at = s->head % s->cap; /* a second chance moves the head */
        filler = at + size > s->cap ? s->cap - at : 0;
    }
    if (filler >= sizeof(struct item)) {
        item_at(s, (uint32_t)(at / 8) + 1)->len = FILLER;
    }
    s->head += filler;
    at = s->head % s->cap;
    uint32_t ref = (uint32_t)(at / 8) + 1;
    uint32_t *bucket = bucket_of(s, main, sub);
    struct item *it = item_at(s, ref);
    *it = (struct item){.main = main, .sub = sub, .len = (uint32_t)record.len, .next = *bucket, .size = (uint32_t)size};
    memcpy(it + 1, record.data, record.len);
    *bucket = ref;
    s->head += size;
}

struct cache *cache_new(size_t bytes)
{
    struct cache *c = xcalloc(1, sizeof(*c));
    size_t cap = bytes / SHARDS / sizeof(struct item) * sizeof(struct item);
    c->on = cap >= SHARD_BYTES_MIN;
    for (int i = 0; c->on && i < SHARDS; i++) {
        struct shard *s = &c->shard[i];
        uint32_t buckets = 64;
        while (buckets < cap / BYTES_PER_BUCKET) {
            buckets *= 2;
        }
        pthread_mutex_init(&s->mutex, NULL);
        s->cap = MIN(cap, (size_t)UINT32_MAX * 4);
        s->ring = xmalloc(s->cap);
        s->bucket = xcalloc(buckets, sizeof(*s->bucket));
        s->bucket_mask = buckets - 1;
    }
    return c;
}

void cache_free(struct cache *c)
{
    if (c == NULL) {
        return;
    }
    for (int i = 0; c->on && i < SHARDS; i++) {
        pthread_mutex_destroy(&c->shard[i].mutex);
        free(c->shard[i].ring);
        free(c->shard[i].bucket);
        buf_fini(&c->shard[i].moved);
    }
    free(c);
}

static struct shard *shard_of(struct cache *c, int64_t main, uint32_t sub)
{
    return &c->shard[rev_hash(main, sub) % SHARDS];
}

void cache_put(struct cache *c, int64_t main, uint32_t sub, struct slice record)
{
    if (!c->on) {
        return;
    }
    struct shard *s = shard_of(c, main, sub);
    if (record.len > s->cap / 8) {
        return;
    }
    pthread_mutex_lock(&s->mutex);
    /* Not looked for first: two readers that miss at once leave two equal copies, which is rare and harmless. */
    shard_insert(s, main, sub, record, SECOND_CHANCES_MAX);
    pthread_mutex_unlock(&s->mutex);
}

bool cache_get(struct cache *c, int64_t main, uint32_t sub, uint8_t *to, size_t len)
{
    if (!c->on) {
        return false;
    }
    struct shard *s = shard_of(c, main, sub);
    pthread_mutex_lock(&s->mutex);
    struct item *it = shard_find(s, main, sub);
    bool hit = it != NULL && it->len == len;
    if (hit) {
        it->hot = 1;
        memcpy(to, it + 1, len);
        s->hits++;
    } else {
        s->misses++;
    }
    pthread_mutex_unlock(&s->mutex);
    return hit;
}

struct cache_stats cache_stats(struct cache *c)
{
    struct cache_stats sum = {0};
    for (int i = 0; c->on && i < SHARDS; i++) {
        struct shard *s = &c->shard[i];
        pthread_mutex_lock(&s->mutex);
        sum.bytes += s->head - s->tail;
        sum.hits += s->hits;
        sum.misses += s->misses;
        pthread_mutex_unlock(&s->mutex);
    }
    return sum;
}
