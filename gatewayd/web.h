/* web - one HTTP request and its answer, whichever version of HTTP carries it. http1.c and h2.c bring requests in and take answers
 * away; web.c looks at who may ask (hosts, origins) and gives the request to httpapi.c (/health, ...) or jsoncall.c (/v3/...).
 *
 *   web_begin --body--> web_body* --> web_body_end --> answer: web_respond, or web_start web_send* web_end --> web_close
 *
 * An answer may start before the body has ended (streams). The carrier calls web_close once, after the answer's end or when the client
 * has gone; it is never called from within one of the other web_ functions. */
#ifndef GATEWAYD_WEB_H
#define GATEWAYD_WEB_H

#include "gatewayd/gatewayd.h"

struct json_call;
struct web;

#define WEB_HEADERS_MAX 8

struct web_header {
    const char *name; /* as HTTP/1.1 writes it; HTTP/2 makes it small */
    char *value;      /* owned */
};

struct web_carrier {
    /* The answer's head: w->status, w->content_type (may be NULL), w->headers. length < 0: not known before its end. */
    void (*start)(struct web *w, int64_t length);
    void (*send)(struct web *w, struct slice bytes);
    void (*end)(struct web *w);
    size_t (*queued)(const struct web *w); /* sent and not yet taken by the client's connection */
    void (*wants_write)(struct web *w);    /* web_turn when there is room */
    /* "101 Switching Protocols"; from now on bytes go both ways as they are. NULL: cannot. */
    void (*switch_protocol)(struct web *w);
};

struct web {
    struct gatewayd *gateway;
    const struct web_carrier *carrier;
    void *owner; /* the carrier's */
    const struct client *client; /* who asks, and what the listener serves */

    /* --- request: borrowed from the carrier until web_close --- */
    struct slice method, path, query;
    struct slice host, origin, authorization, timeout;
    struct slice socket_key, socket_protocol; /* Sec-WebSocket-Key, -Protocol */
    bool wants_socket;                        /* a complete WebSocket handshake, version 13 */

    /* --- what answers it --- */
    struct json_call *json; /* NULL: httpapi.c */
    uint64_t req;           /* httpapi: the pending request it needs; 0: none */
    struct web_checks *checks; /* httpapi: of /health, /livez, /readyz; owned */
    struct buf text;        /* httpapi: gathered so far */

    /* --- answer --- */
    int status;
    const char *content_type;
    struct web_header headers[WEB_HEADERS_MAX];
    size_t header_count;
    bool started, ended;
};

/* --- carrier -> web.c: w's gateway, carrier, owner, client and request are set --- */
void web_begin(struct web *w);
int web_body(struct web *w, struct slice bytes); /* E_TOO_BIG: 413, ... */
void web_body_end(struct web *w);
void web_raw(struct web *w, struct slice bytes); /* after switch_protocol */
void web_turn(struct web *w);                    /* there is room: says more, if it has more */
bool web_has_more(const struct web *w);
bool web_is_stream(const struct web *w);         /* may stay open as long as the client likes */
void web_shutdown(struct web *w);                /* streams end */
void web_close(struct web *w);                   /* all of it is given back; w can be used again */

/* --- what answers -> web.c --- */
void web_header(struct web *w, const char *name, const char *value);
void web_respond(struct web *w, int status, const char *content_type, struct slice body);
void web_start(struct web *w, int status, const char *content_type);
void web_send(struct web *w, struct slice bytes);
void web_end(struct web *w);

/* --- pure --- */
const char *web_status_text(int status); /* "Not Found" */
int web_status_of_grpc(int grpc_status); /* 3 -> 400 */
/* Is `name=value` one of the query's parts? value NULL: any, or none. */
bool web_query_has(struct slice query, const char *name, const char *value);
/* The next value of name in *query: 1, or 0 at the end. Not decoded: what we look for needs no escapes. */
bool web_query_next(struct slice *query, const char *name, struct slice *value);
struct slice web_host_name(struct slice host); /* without its port */
/* Is word one of the comma list's items, or is "*"? */
bool web_list_has(const char *list, struct slice word);

/* --- httpapi.c --- */
void httpapi_handle(struct web *w);
void httpapi_close(struct web *w);

#endif
