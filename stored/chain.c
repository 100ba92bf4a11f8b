/* chain - see chain.h. Fed by change.c, compact.c, lease_cmd.c and alarm.c (through mvcc.h), linked by apply.c for each entry;
 * told to raftd by out.c. It must cost next to nothing: one CRC32C of each record and a few multiplications. */
#include "stored/chain.h"

#include "common/crc32c.h"
#include "stored/rev.h"

/* splitmix64's: every bit of the result depends on every bit of a and b. */
static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = a * UINT64_C(0x9e3779b97f4a7c15) + b + UINT64_C(0xd1b54a32d192ed03);

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void chain_start(struct chain *c, uint64_t index, uint64_t hash)
{
    c->hash = hash;
    c->sum = 0;
    c->first = c->end = index / CHAIN_EVERY + 1;
}

void chain_add(struct chain *c, struct slice what)
{
    c->sum = mix(c->sum, ((uint64_t)what.len << 32) ^ crc32c(0, what.data, what.len));
}

void chain_add_numbers(struct chain *c, char kind, uint64_t one, uint64_t two)
{
    c->sum = mix(mix(mix(c->sum, (uint64_t)kind), one), two);
}

void chain_link(struct chain *c, uint64_t index)
{
    if (c->hash != 0) {
        c->hash = mix(mix(c->hash, index), c->sum);
        c->hash += c->hash == 0;
    }
    c->sum = 0;
    if (c->hash == 0 || index % CHAIN_EVERY != 0)
        return;
    c->points[index / CHAIN_EVERY % CHAIN_POINTS] = c->hash;
    c->end = index / CHAIN_EVERY + 1;
    if (c->end - c->first > CHAIN_POINTS)
        c->first = c->end - CHAIN_POINTS;
}

void chain_points(const struct chain *c, uint64_t above, struct buf *out)
{
    for (uint64_t n = MAX(c->first, above / CHAIN_EVERY + 1); n < c->end; n++)
        rev_store64(buf_extend(out, 8), c->points[n % CHAIN_POINTS]);
}
