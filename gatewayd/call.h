/* call - one gRPC call, as handlers see it: what h2.c and grpc.c offer to kv.c, watch.c, lease.c ... and what these give
 * back. A call lives from its request headers until its end was sent or the client went away; handlers may keep the pointer until
 * `closed`, which is called exactly once and is the last they hear of it. All on the loop's thread. */
#ifndef GATEWAYD_CALL_H
#define GATEWAYD_CALL_H

#include "common/buf.h"
#include "common/mem.h"
#include "gatewayd/client.h"
#include "gatewayd/identity.h"

struct call;
struct gatewayd;

struct call_handler {
    const char *path;    /* "/etcdserverpb.KV/Put" */
    const char *service; /* "etcdserverpb.KV", "Put": labels of metrics */
    const char *method;
    bool client_stream;  /* several request messages */
    bool server_stream;
    /* One request message; borrowed, and so are slices into it: they live until the function returns. For unary calls this is called
     * once, after the message is complete and the client has half-closed. */
    void (*message)(struct call *c, struct slice bytes);
    /* The client sends no more (streams only; may be NULL). */
    void (*half_close)(struct call *c);
    /* Room again after call_send's queue was over its limit (streams only; may be NULL). */
    void (*writable)(struct call *c);
    /* The call is over: ended by us, cancelled, timed out, or its connection is gone. NULL if the handler keeps nothing. */
    void (*closed)(struct call *c);
};

struct gatewayd *call_gateway(struct call *c);
const struct call_handler *call_handler(const struct call *c);
void call_set_state(struct call *c, void *state); /* the handler's own */
void *call_state(const struct call *c);
bool call_has_leader(const struct call *c);       /* metadata hasleader: true */
uint64_t call_deadline_ms(const struct call *c);  /* from grpc-timeout; UINT64_MAX: none */
struct slice call_token(const struct call *c);    /* metadata token/authorization; empty: none */
/* The connection it came by, and the CommonName of the certificate that its client has shown; empty: none. */
const struct client *call_client(const struct call *c);
struct slice call_common_name(const struct call *c);
/* Who asks; borrowed, valid as long as the call. Known before a message reaches its handler. */
const struct identity *call_identity(const struct call *c);
/* Watch only, whose creations are refused one by one: OK, or why it is not known who asks. Other calls end with it before. */
int call_identity_err(const struct call *c);

/* Unary: message, trailers OK. Bytes are copied. Ends the call. */
void call_reply(struct call *c, struct slice message);
/* The same in parts: total bytes of the message first announced, then all its bytes; ends by itself with the last one. */
void call_reply_begin(struct call *c, size_t total);
void call_reply_part(struct call *c, struct slice part);
/* Trailers with the status and text of err, percent-encoded; text may be NULL for the err's own. Ends the call. */
void call_fail(struct call *c, int err, const char *text);

/* Streams: queues one message made of head (copied) and pieces (referenced, so that one event's bytes serve many
 * watchers), in this order. */
struct shared_bytes {
    uint32_t refs;
    size_t len;
    uint8_t data[];
};
struct shared_bytes *shared_bytes_new(size_t len); /* one reference */
void shared_bytes_unref(struct shared_bytes *s);
void call_send(struct call *c, struct slice head, struct shared_bytes *const *pieces, size_t piece_count);
size_t call_queued_bytes(const struct call *c); /* not yet taken by HTTP/2: compare with a limit and stop */
/* Below this many queued bytes `writable` is called, if they were above it before. */
#define CALL_QUEUE_LOW_BYTES ((size_t)64 * 1024)
/* Streams: no further messages until resumed; what the client sends then waits behind HTTP/2's flow control. */
void call_pause(struct call *c, bool paused);
/* Too many bytes of answers are not read by the client: a read's answer is better refused than kept. */
bool call_is_crowded(const struct call *c);
bool call_is_over(const struct call *c); /* its end was decided: sending does nothing any more */
void call_end(struct call *c, int err, const char *text); /* err 0: OK */

#endif
