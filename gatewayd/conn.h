/* conn - listening sockets, accepted connections, and their bytes; which protocol a connection speaks is told by its first
 * bytes. Turn: all that clients sent goes to h2.c or http1.c; at the turn's end each connection that has something
 * to say gets one write. */
#ifndef GATEWAYD_CONN_H
#define GATEWAYD_CONN_H

#include "gatewayd/gatewayd.h"

struct server;

/* Listens on all of conf's listen-client-urls; a port that is taken is fatal. Call before the links are made: their turn-end work
 * comes after ours, so that what a flush asks of a sibling leaves in the same turn. */
struct server *server_new(struct gatewayd *g);
void server_free(struct server *s); /* after the loop has ended */
/* Takes no new connections and asks the present ones to end. */
void server_shutdown(struct server *s);
size_t server_conn_count(const struct server *s);
size_t server_handshakes(const struct server *s);          /* under way */
uint64_t server_tls_reloads(const struct server *s); /* files that were read again */
uint16_t server_port(const struct server *s); /* of the first listener, for tests that listen on port 0 */

struct slice conn_common_name(const struct conn *c); /* of the client certificate that was verified; empty: none */

/* What a protocol gives to conn.c; self is its own struct. h2.h describes the functions. */
struct protocol {
    const char *name;
    void *(*open)(struct gatewayd *g, const struct client *client, void (*wants_write)(void *arg), void *arg);
    void (*free)(void *self);
    int (*receive)(void *self, struct slice bytes);
    int (*write)(void *self, struct buf *out, size_t max);
    bool (*has_output)(void *self);
    bool (*is_finished)(void *self);
    bool (*end_of_input)(void *self); /* the client sends no more; true: an answer is still to come */
    int (*tick)(void *self, uint64_t now_ms);
    uint64_t (*next_tick_ms)(void *self);
    void (*shutdown)(void *self);
    size_t (*busy)(void *self); /* calls that are open */
};

/* The protocol that bytes begin: NULL while they are too few to tell. */
const struct protocol *protocol_of(struct slice first_bytes);

#endif
