/* rate - how many requests a client may make: a bucket that fills with time and that each request takes one of. Off unless
 * connection-rate-limit or user-rate-limit are set. */
#ifndef GATEWAYD_RATE_H
#define GATEWAYD_RATE_H

#include "common/base.h"

struct call;
struct gatewayd;

struct rate {
    uint64_t thousandths; /* of requests in the bucket; at most a second's worth, or one */
    uint64_t filled_ms;   /* when it was last looked at; 0: never, it is full */
};

/* Takes one. False: there is none. per_second > 0. */
bool rate_take(struct rate *r, uint64_t per_second, uint64_t now_ms);

/* May the call's connection and its user make one more request now? */
bool rate_allows(struct call *c);
void rate_forget_users(struct gatewayd *g);

#endif
