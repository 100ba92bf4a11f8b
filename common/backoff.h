/* backoff - when to try again; pure, now as argument. Doubles from min to max with jitter of +-25 %. */
#ifndef COMMON_BACKOFF_H
#define COMMON_BACKOFF_H

#include "common/rand.h"

struct backoff {
    uint32_t min_ms, max_ms; /* min_ms <= max_ms */
    uint32_t next_ms;        /* the next delay before jitter */
};
void backoff_init(struct backoff *b, uint32_t min_ms, uint32_t max_ms);
uint32_t backoff_next(struct backoff *b, struct rand *r); /* delay in ms; doubles for the next time */
void backoff_reset(struct backoff *b);                    /* it worked: start from min again */

#endif
