/* chain - a hash over everything that applied entries have ever changed: two members that have applied the same entry have
 * the same hash, or their stores are not the same.
 *
 *   entry's sum   over what the entry changed, in order: records (key, value, revisions, lease), leases granted and revoked,
 *                 compaction targets, alarms. Nothing of this member or run: no clocks, no results, no settings.
 *   hash          of entry i = mix(hash of entry i - 1, i, sum of entry i); one number, never 0
 *
 * The hash is written with the applied index in each batch ('m' 'h'), goes back with it after a power loss, and travels in
 * snapshots. A store from before there was one has none: 0, "unknown". Of every CHAIN_EVERYth entry the hash is kept in
 * memory for a while, so that members whose batches end at different entries have some in common. [apply] only. */
#ifndef STORED_CHAIN_H
#define STORED_CHAIN_H

#include "common/base.h"
#include "common/buf.h"
#include "proto/frames.h"

#define CHAIN_EVERY HASH_EVERY
#define CHAIN_POINTS 256
#define CHAIN_FIRST UINT64_C(0x7472696e65) /* of a store in which nothing was applied */

struct chain {
    uint64_t hash; /* 0: unknown, and stays so */
    uint64_t sum;  /* of the entry that is being applied */
    uint64_t points[CHAIN_POINTS]; /* of entry CHAIN_EVERY * n at n % CHAIN_POINTS; those from first to end - 1 */
    uint64_t first, end;
};

void chain_start(struct chain *c, uint64_t index, uint64_t hash);
void chain_add(struct chain *c, struct slice what);
void chain_add_numbers(struct chain *c, char kind, uint64_t one, uint64_t two);
void chain_link(struct chain *c, uint64_t index); /* the entry ends */
/* Appends the hashes, 8 bytes each, big endian, of points above entry `above`: the last one is of the newest point. */
void chain_points(const struct chain *c, uint64_t above, struct buf *out);

#endif
