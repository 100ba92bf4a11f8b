/* cache - records in memory while they are hot, by revision. Records never change, so nothing is ever invalid; what
 * nobody asks for again is overtaken. Bounded, sharded, any thread. */
#ifndef STORED_CACHE_H
#define STORED_CACHE_H

#include "common/base.h"
#include "common/buf.h"

struct cache;
struct cache *cache_new(size_t bytes); /* 0: remembers nothing */
void cache_free(struct cache *c);
void cache_put(struct cache *c, int64_t main, uint32_t sub, struct slice record);
/* Copies the record to `to` if it is here and len bytes long. */
bool cache_get(struct cache *c, int64_t main, uint32_t sub, uint8_t *to, size_t len);

struct cache_stats {
    uint64_t bytes, hits, misses;
};
struct cache_stats cache_stats(struct cache *c);

#endif
