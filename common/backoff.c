/* backoff - doubling delays. The jitter keeps many clients of one restarted sibling from coming back in step. */
#include "common/backoff.h"

void backoff_init(struct backoff *b, uint32_t min_ms, uint32_t max_ms)
{
    must(min_ms <= max_ms);
    *b = (struct backoff){.min_ms = min_ms, .max_ms = max_ms, .next_ms = min_ms};
}

uint32_t backoff_next(struct backoff *b, struct rand *r)
{
    uint64_t base = b->next_ms;
    uint64_t delay = base - base / 4 + rand_below(r, 2 * (base / 4) + 1);

    /* From min 0 doubling alone would never get anywhere. */
    b->next_ms = (uint32_t)MIN(base == 0 ? 1 : 2 * base, (uint64_t)b->max_ms);
    return (uint32_t)MIN(delay, (uint64_t)UINT32_MAX);
}

void backoff_reset(struct backoff *b)
{
    b->next_ms = b->min_ms;
}
