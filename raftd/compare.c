/* compare - see compare.h. Fed by compared.c with APPLIED of our stored and HASH of the other members. */
#include "raftd/compare.h"

#include "common/err.h"

static uint64_t load64(const uint8_t *p)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

int compare_own(struct compare *c, uint64_t index, uint64_t hash, struct slice points)
{
    uint64_t count = points.len / 8, end = index / HASH_EVERY + 1;

    if (points.len % 8 != 0 || count > COMPARE_POINTS || count >= end)
        return E_MALFORMED;
    c->index = index;
    c->hash = hash;
    if (end - count != c->end) /* not the next ones: a snapshot, or a store that has just come */
        c->first = end - count;
    for (uint64_t n = 0; n < count; n++)
        c->points[(end - count + n) % COMPARE_POINTS] = load64(points.data + 8 * n);
    c->end = end;
    if (c->end - c->first > COMPARE_POINTS)
        c->first = c->end - COMPARE_POINTS;
    return 0;
}

void compare_forget(struct compare *c)
{
    c->index = c->hash = 0;
    c->first = c->end = 0;
    for (size_t i = 0; i < c->member_count; i++)
        c->members[i].hash = 0;
}

/* Our hash after an entry; 0: not known, or not any more. */
static uint64_t hash_at(const struct compare *c, uint64_t index)
{
    uint64_t n = index / HASH_EVERY;

    if (index == c->index)
        return c->hash;
    return index % HASH_EVERY == 0 && n >= c->first && n < c->end ? c->points[n % COMPARE_POINTS] : 0;
}

uint64_t compare_point(const struct compare *c, uint64_t *hash)
{
    *hash = 0;
    if (c->end == c->first)
        return 0;
    *hash = c->points[(c->end - 1) % COMPARE_POINTS];
    return (c->end - 1) * HASH_EVERY;
}

static enum compared judge(const struct compare *c, uint64_t index, uint64_t hash)
{
    uint64_t ours = hash_at(c, index);

    if (ours == 0 || hash == 0)
        return COMPARED_UNKNOWN;
    return ours == hash ? COMPARED_SAME : COMPARED_DIFFERENT;
}

/* Of a full table one that nothing is kept of gives way: members come and go. */
static struct compare_member *member_find(struct compare *c, uint64_t id)
{
    for (size_t i = 0; i < c->member_count; i++)
        if (c->members[i].id == id)
            return &c->members[i];

    size_t place = c->member_count < RAFT_MEMBERS_MAX ? c->member_count++ : id % RAFT_MEMBERS_MAX;

    c->members[place] = (struct compare_member){.id = id};
    return &c->members[place];
}

enum compared compare_said(struct compare *c, uint64_t member, uint64_t index, uint64_t hash, uint64_t *at)
{
    struct compare_member *m = member_find(c, member);
    enum compared found = judge(c, index, hash);

    *at = index;
    if (found == COMPARED_UNKNOWN && m->hash != 0 && c->index >= m->index) {
        found = judge(c, m->index, m->hash);
        *at = m->index;
        m->hash = 0;
    }
    /* Only a point is worth keeping: we may never stop at its last entry. */
    if (m->hash == 0 && hash != 0 && index > c->index && index % HASH_EVERY == 0) {
        m->index = index;
        m->hash = hash;
    }
    return found;
}

bool compare_note(struct compare *c, uint64_t member, enum compared found, uint64_t at)
{
    struct compare_member *m = member_find(c, member);
    bool differed = m->differs_at != 0;

    if (found == COMPARED_UNKNOWN)
        return false;
    c->same += found == COMPARED_SAME;
    c->different += found == COMPARED_DIFFERENT;
    m->differs_at = found == COMPARED_DIFFERENT ? at : 0;
    return differed != (m->differs_at != 0);
}
