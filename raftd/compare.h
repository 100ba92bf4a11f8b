/* compare - do the members agree on what came of the log? The same entries must give the same state, so the same hash over it
 * (stored/chain.h); one that differs has computed, or kept, something else. Pure: no links, no clock.
 *
 * Ours: the hash at the last entry applied, and those at entries HASH_EVERY apart, for a while back. A member says two pairs of
 * its own the same way. At rest the last entries are the same; under load, when everybody's batches end elsewhere, the points
 * are. What we have not applied yet is kept until we have: one pair of each member, the oldest, so that a leader whose store
 * is always a little behind still compares. */
#ifndef RAFTD_COMPARE_H
#define RAFTD_COMPARE_H

#include "common/base.h"
#include "common/buf.h"
#include "proto/frames.h"
#include "raftd/raft.h"

#define COMPARE_POINTS 1024

enum compared { COMPARED_UNKNOWN, COMPARED_SAME, COMPARED_DIFFERENT };

struct compare_member {
    uint64_t id;
    uint64_t index, hash; /* said, and ahead of us; hash 0: none */
    uint64_t differs_at;  /* newest entry after which it had another hash; 0: it agrees */
};

/* Zeroed: nothing is known. */
struct compare {
    uint64_t index, hash; /* last applied; hash 0: unknown */
    uint64_t points[COMPARE_POINTS]; /* of entry HASH_EVERY * n at n % COMPARE_POINTS; from first to end - 1 */
    uint64_t first, end;
    struct compare_member members[RAFT_MEMBERS_MAX];
    size_t member_count;
    uint64_t same, different; /* how often that was found */
};

/* What stored has told in an APPLIED. 0, E_MALFORMED. */
int compare_own(struct compare *c, uint64_t index, uint64_t hash, struct slice points);
/* Our store is away: what comes back may be another one. What members were found to have is remembered. */
void compare_forget(struct compare *c);
uint64_t compare_point(const struct compare *c, uint64_t *hash); /* our newest; 0: none */
/* A member's pair; now or later *at is the entry it was judged at. */
enum compared compare_said(struct compare *c, uint64_t member, uint64_t index, uint64_t hash, uint64_t *at);
/* Notes what was found; true if it is news. */
bool compare_note(struct compare *c, uint64_t member, enum compared found, uint64_t at);

#endif
