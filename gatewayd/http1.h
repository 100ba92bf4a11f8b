/* http1 - the HTTP/1.1 side of the port: /health, /version, /metrics. Like h2.h: bytes in, bytes out, no socket. One request
 * at a time per connection; pipelined ones wait. */
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
    bool expect_continue;
    uint64_t body_len; /* content-length; 0 if none */
};
/* Looks for a whole head in bytes. > 0: its length, *r is filled; 0: not complete; E_MALFORMED: 400, E_TOO_BIG: 431 or
 * 413, E_VERSION: 505. */
int http1_parse_head(struct slice bytes, struct http1_request *r);

/* --- httpapi.c: what is served --- */
/* Begins to answer: http1_respond is called now or later. What is kept until then is in the connection: */
struct http1_answer {
    uint64_t req;      /* the pending request it needs; 0: none. Cancelled by http1_free */
    bool serializable; /* /health?serializable=true */
    bool no_space_is_fine;
    bool corrupt_is_fine;
    struct buf text;   /* gathered so far */
};
void httpapi_handle(struct gatewayd *g, struct http1 *h, const struct http1_request *r);
struct http1_answer *http1_answer_of(struct http1 *h);
struct gatewayd *http1_gateway(struct http1 *h);
const struct client *http1_client(const struct http1 *h);
void http1_respond(struct http1 *h, int status, const char *content_type, struct slice body);
/* Is `name=value` one of the query's parts? */
bool http1_query_has(struct slice query, const char *name, const char *value);

#endif
