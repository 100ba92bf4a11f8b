/* wire_end - the listener or dialer of a wire, and the watch over it (see wire_end.c for why it needs one).
 * For wire.c, and for the native door's sockets (gatewayd/native.c), which tells in its own way whether a listener is alive. */
#ifndef PROTO_WIRE_END_H
#define PROTO_WIRE_END_H

#include <nng/nng.h>

#include "common/base.h"

struct wire_end {
    const char *name; /* for logs; borrowed */
    char *url;
    bool is_listener;
    nng_socket socket;
    nng_dialer dialer;     /* one of the two */
    nng_listener listener;
    int lock_fd;           /* ipc listener: held while we live; else -1 */
    uint64_t errors;       /* what nng's counters said at the last look */
    bool looked;           /* errors is of this dialer or listener */
    uint64_t renewals;
};

/* name is borrowed. fatalx() if url is not one. */
void wire_end_init(struct wire_end *e, const char *name, const char *url, bool listen, nng_socket socket);
/* fatalx() if the address is taken by a living process. A dead one's socket file is removed first. */
void wire_end_start(struct wire_end *e);
/* To be called every WIRE_CHECK_MS while no peer is attached. */
void wire_end_check(struct wire_end *e, uint64_t now_ms);
/* Listens or dials anew. Also closes what a listener has accepted. */
void wire_end_renew(struct wire_end *e);
void wire_end_fini(struct wire_end *e); /* after the socket was closed */

/* A healthy dialer tries several times within this (LINK_RETRY_MS_MAX). */
#define WIRE_CHECK_MS 500

#endif
