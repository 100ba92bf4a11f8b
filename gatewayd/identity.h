/* identity - who asks: what a handler passes on with every request, so that stored can tell whether it may. */
#ifndef GATEWAYD_IDENTITY_H
#define GATEWAYD_IDENTITY_H

#include "common/buf.h"

struct identity {
    struct slice user; /* authenticated name; empty: none was given, or auth is off */
    uint64_t auth_rev; /* revision of the auth store at which the user was authenticated; 0 while auth is off */
};

struct call;
struct gatewayd;
struct fr_auth;
struct jwt;

/* Nobody: what the gateway asks for itself, and what clients of a door without credentials are. */
extern const struct identity IDENTITY_NONE;

void identity_start(struct gatewayd *g); /* makes g->auth; fatal if auth-token is no good */
void identity_stop(struct gatewayd *g);
void identity_on_auth(struct gatewayd *g, const struct fr_auth *m); /* stored says whether auth is on */
bool identity_auth_is_on(const struct gatewayd *g);                 /* as far as stored has told */
bool identity_auth_may_be_on(const struct gatewayd *g);             /* the same, and also while it has not told */
uint64_t identity_auth_rev(const struct gatewayd *g);               /* the same; 0 while it is off */
struct jwt *identity_jwt(const struct gatewayd *g);                 /* NULL: tokens are stored's */

/* E_USER_EMPTY if auth is on and who is nobody, E_UNREACHABLE while it is not known whether it is; for what no command asks stored for. */
int identity_check_user(const struct gatewayd *g, const struct identity *who);

/* --- grpc.c, call.c --- */
/* A message is to reach its handler. True: it may, c's identity is set. False: it may not yet, grpc_admitted comes later; or
 * never, the call is over. */
bool identity_admit(struct call *c);
void identity_leave(struct call *c); /* c ends */

#endif
