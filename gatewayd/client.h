/* client - who is at the other end of a connection, and what its listener serves. Part of conn.c's connection; protocols and calls
 * borrow it, and live no longer. Tests that drive a protocol without a connection use CLIENT_ANY. */
#ifndef GATEWAYD_CLIENT_H
#define GATEWAYD_CLIENT_H

#include "common/buf.h"

struct rate;

/* What a listener serves. */
#define SERVES_GRPC 1u
#define SERVES_HTTP 2u    /* everything that HTTP offers */
#define SERVES_METRICS 4u /* only /metrics, /health, /livez and /readyz */

struct client {
    unsigned serves;
    bool is_tls;
    struct rate *rate; /* of its requests; NULL: not counted */
    char *common_name; /* of the certificate that was verified; owned, NULL: none */
};

/* A client without a name that is served everything. */
extern const struct client CLIENT_ANY;

#endif
