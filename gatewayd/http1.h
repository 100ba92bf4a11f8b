/* http1 - the HTTP/1.1 side of the port. Like h2.h: bytes in, bytes out, no socket; a request goes to web.h. One request at a time per
 * connection; pipelined ones wait. */
#ifndef GATEWAYD_HTTP1_H
#define GATEWAYD_HTTP1_H

#include "gatewayd/gatewayd.h"

struct http1;

struct http1 *http1_new(struct gatewayd *g, void (*wants_write)(void *arg), void *arg);
void http1_set_client(struct http1 *h, const struct client *client); /* borrowed; before anything is received */
void http1_free(struct http1 *h);
int http1_receive(struct http1 *h, struct slice bytes);
int http1_write(struct http1 *h, struct buf *out, size_t max);
bool http1_has_output(const struct http1 *h);
bool http1_is_finished(const struct http1 *h);
bool http1_end_of_input(struct http1 *h);
int http1_tick(struct http1 *h, uint64_t now_ms);
uint64_t http1_next_tick_ms(const struct http1 *h);
void http1_shutdown(struct http1 *h);
bool http1_is_busy(const struct http1 *h);

/* --- the parser, pure --- */
struct http1_request {
    struct slice method, path, query; /* borrowed from the head */
    bool is_old;                      /* HTTP/1.0 */
    bool keep_alive;
    bool chunked;
    bool bad_coding;                  /* a transfer coding that is not "chunked" */
    bool expect_continue;
    uint64_t body_len; /* content-length; 0 if none */
    struct slice host, origin, authorization, timeout;
    bool upgrade;                     /* connection: upgrade */
    bool upgrade_socket;              /* upgrade: websocket */
    struct slice socket_key, socket_protocol, socket_version;
};
/* Looks for a whole head in bytes. > 0: its length, *r is filled; 0: not complete; E_MALFORMED: 400, E_TOO_BIG: 431 or
 * 413, E_VERSION: 505. */
int http1_parse_head(struct slice bytes, struct http1_request *r);

#endif
