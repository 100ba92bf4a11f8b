/* h2_int - what h2.c and h2_web.c share: the connection. h2_web.c makes requests that are not gRPC (a call without a handler) into
 * web.h's, and their answers into HEADERS and DATA. */
#ifndef GATEWAYD_H2_INT_H
#define GATEWAYD_H2_INT_H

#include <nghttp2/nghttp2.h>

#include "gatewayd/grpc.h"
#include "gatewayd/h2.h"
#include "gatewayd/web.h"

/* Headers of the block at hand that a web request is made of; gRPC's own are in the call. */
enum h2_field { H2_METHOD, H2_PATH, H2_AUTHORITY, H2_HOST, H2_ORIGIN, H2_AUTHORIZATION, H2_TIMEOUT, H2_FIELD_COUNT };

struct h2 {
    struct gatewayd *gateway;
    nghttp2_session *session;
    const struct client *client;
    void (*wants_write)(void *arg);
    void *arg;
    struct call *calls;    /* all that are open */
    size_t call_count;
    size_t web_count;      /* of them, web requests */
    size_t answers_bytes;  /* queued by calls with one request message: what the client asked for and has not taken */
    struct call *writable; /* to be told after the current write */
    struct buf *out;       /* only during h2_write */
    size_t out_max;
    unsigned long_lists;   /* header lists that were refused for their size */
    bool failed;           /* end after writing what is left */
    /* --- the header block being received: blocks of two streams never mix --- */
    struct buf block;
    struct { size_t at, len; } fields[H2_FIELD_COUNT];
    /* --- pings --- */
    uint64_t last_ping_ms;
    unsigned ping_strikes;
    bool ping_forgiven;    /* we sent HEADERS or DATA since the last ping */
    uint64_t last_read_ms;
    uint64_t ping_sent_ms; /* ours; NOTHING: none on its way */
};

/* A name that is a literal, and a value, both without copies: they live until they are sent. */
nghttp2_nv h2_nv(const char *name, const char *value);
ssize_t h2_read_cb(nghttp2_session *session, int32_t stream_id, uint8_t *buf, size_t length, uint32_t *data_flags,
    nghttp2_data_source *source, void *user_data);

/* --- h2_web.c --- */
void h2_web_note(struct h2 *h, struct slice name, struct slice value); /* one header, whatever it will be part of */
bool h2_web_is(const struct h2 *h, const struct call *c);              /* c's headers are complete: is it a web request? */
void h2_web_begin(struct h2 *h, struct call *c);
void h2_web_data(struct call *c, struct slice bytes);
void h2_web_end_of_data(struct call *c);
void h2_web_turn(struct h2 *h);
bool h2_web_has_more(const struct h2 *h);
bool h2_web_is_stream(const struct call *c);
bool h2_web_has_length(const struct call *c); /* its answer tells how long it is */
void h2_web_shutdown(struct call *c);
void h2_web_close(struct h2 *h, struct call *c);

#endif
