/* rand - xoshiro256** (Blackman and Vigna), seeded through splitmix64 as they recommend: the same seed gives the
 * same numbers on every machine, which is what replaying a simulation needs. */
#include "common/rand.h"

#include <errno.h>
#include <sys/random.h>

#include "common/log.h"

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static uint64_t rotl(uint64_t x, int bits)
{
    return (x << bits) | (x >> (64 - bits));
}

void rand_seed(struct rand *r, uint64_t seed)
{
    for (size_t i = 0; i < ARRAY_LEN(r->s); i++)
        r->s[i] = splitmix64(&seed);
}

uint64_t rand_u64(struct rand *r)
{
    uint64_t *s = r->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t rand_below(struct rand *r, uint64_t limit)
{
    must(limit > 0);
    /* 2^64 mod limit values at the bottom are drawn again: what remains is a multiple of limit. */
    uint64_t bottom = (0 - limit) % limit;
    uint64_t value;

    do
        value = rand_u64(r);
    while (value < bottom);
    return value % limit;
}

uint64_t rand_system_u64(void)
{
    uint64_t value;
    ssize_t got;

    do
        got = getrandom(&value, sizeof(value), 0);
    while (got < 0 && errno == EINTR);
    if (got != (ssize_t)sizeof(value))
        fatal("rand: getrandom");
    return value;
}
