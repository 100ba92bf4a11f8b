/* seed - the seed of a property test: printed, so that a failing run can be repeated with TRINE_SEED=N. */
#ifndef TESTS_PROTO_SEED_H
#define TESTS_PROTO_SEED_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/rand.h"

static inline struct rand seeded(const char *test)
{
    const char *given = getenv("TRINE_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : rand_system_u64();
    struct rand r;

    fprintf(stderr, "%s: TRINE_SEED=%" PRIu64 "\n", test, seed);
    rand_seed(&r, seed);
    return r;
}

/* A number of any magnitude: as many small ones as large ones. */
static inline uint64_t any_u64(struct rand *r)
{
    uint64_t bits = rand_below(r, 65);

    return bits == 0 ? 0 : rand_u64(r) >> (64 - bits);
}

/* Changes, drops, doubles or appends a few bytes. */
static inline void mutate(struct rand *r, struct buf *b)
{
    for (uint64_t times = 1 + rand_below(r, 4); times > 0 && b->len > 0; times--) {
        size_t at = (size_t)rand_below(r, b->len);

        switch (rand_below(r, 4)) {
        case 0:
            b->data[at] = (uint8_t)rand_u64(r);
            break;
        case 1:
            b->data[at] ^= (uint8_t)(1u << rand_below(r, 8));
            break;
        case 2:
            b->len = at;
            break;
        default:
            buf_add_byte(b, (uint8_t)rand_u64(r));
            break;
        }
    }
}

#endif
