/* identity - who asks: what a handler passes on with every request, so that stored can tell whether it may. */
#ifndef GATEWAYD_IDENTITY_H
#define GATEWAYD_IDENTITY_H

#include "common/buf.h"

struct identity {
    struct slice user; /* authenticated name; empty: none was given, or auth is off */
    uint64_t auth_rev; /* revision of the auth store at which the user was authenticated; 0 while auth is off */
};

/* Nobody: what the gateway asks for itself, and what clients of a door without credentials are. */
extern const struct identity IDENTITY_NONE;

#endif
