/* rand - a seeded generator (xoshiro-class quality is enough; not for secrets) for jitter and
 * simulation, and random bytes from the system for identities. */
#ifndef COMMON_RAND_H
#define COMMON_RAND_H

#include "common/base.h"

struct rand {
    uint64_t s[4];
};
void rand_seed(struct rand *r, uint64_t seed);
uint64_t rand_u64(struct rand *r);
uint64_t rand_below(struct rand *r, uint64_t limit); /* uniform in [0, limit); limit > 0 */

uint64_t rand_system_u64(void); /* getrandom(2); for instance ids and seeds */

#endif
