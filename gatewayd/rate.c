/* rate - see rate.h. From grpc.c, right before a request message goes to its handler.
 * Holds at all times: at most RATE_USERS_MAX users are remembered; one whose bucket is full is as good as forgotten. */
#include "gatewayd/rate.h"

#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "common/limits.h"
#include "gatewayd/grpc.h"

#define ONE 1000u

struct rate_user {
    struct rate rate;
    UT_hash_handle hh;
    size_t name_len;
    uint8_t name[];
};

static uint64_t full(uint64_t per_second) { return MAX(per_second, 1) * ONE; }

static void rate_fill(struct rate *r, uint64_t per_second, uint64_t now_ms)
{
    uint64_t passed = now_ms - r->filled_ms;
    if (r->filled_ms == 0 || passed >= ONE) {
        r->thousandths = full(per_second); /* a second fills it, however empty it was */
    } else {
        r->thousandths = MIN(full(per_second), r->thousandths + passed * per_second);
    }
    r->filled_ms = now_ms;
}

bool rate_take(struct rate *r, uint64_t per_second, uint64_t now_ms)
{
    rate_fill(r, per_second, now_ms);
    if (r->thousandths < ONE) {
        return false;
    }
    r->thousandths -= ONE;
    return true;
}

/* --- users ------------------------------------------------------------------------------------- */

/* Makes room: users who have asked nothing for a second have a full bucket. */
static void drop_idle(struct gatewayd *g, uint64_t now_ms)
{
    struct rate_user *u, *next;
    HASH_ITER(hh, g->rate_users, u, next) {
        if (now_ms - u->rate.filled_ms >= ONE) {
            HASH_DEL(g->rate_users, u);
            free(u);
        }
    }
}

static struct rate_user *user_of(struct gatewayd *g, struct slice name, uint64_t now_ms)
{
    struct rate_user *u = NULL;
    HASH_FIND(hh, g->rate_users, name.data, name.len, u);
    if (u != NULL) {
        return u;
    }
    if (HASH_COUNT(g->rate_users) >= RATE_USERS_MAX) {
        drop_idle(g, now_ms);
    }
    if (HASH_COUNT(g->rate_users) >= RATE_USERS_MAX) {
        return NULL;
    }
    u = xcalloc(1, sizeof(*u) + name.len);
    u->name_len = name.len;
    memcpy(u->name, name.data, name.len);
    HASH_ADD_KEYPTR(hh, g->rate_users, u->name, u->name_len, u);
    return u;
}

void rate_forget_users(struct gatewayd *g)
{
    struct rate_user *u, *next;
    HASH_ITER(hh, g->rate_users, u, next) {
        HASH_DEL(g->rate_users, u);
        free(u);
    }
}

bool rate_allows(struct call *c)
{
    struct gatewayd *g = c->gateway;
    const struct conf *conf = g->conf;
    uint64_t now_ms = gatewayd_now_ms(g);
    if (conf->connection_rate_limit > 0 && c->client->rate != NULL && !rate_take(c->client->rate, conf->connection_rate_limit, now_ms)) {
        return false;
    }
    struct slice name = c->identity.user;
    if (conf->user_rate_limit == 0 || name.len == 0) {
        return true;
    }
    struct rate_user *u = user_of(g, name, now_ms);
    return u != NULL && rate_take(&u->rate, conf->user_rate_limit, now_ms);
}
