/* grpc - gRPC on one HTTP/2 stream, and struct call, which h2.c, grpc.c and call.c share.
 * h2.c feeds headers and data in; grpc.c makes messages of them and calls the handler; call.c is what handlers call back
 * (call.h) and keeps what is to be sent until h2.c takes it.
 *
 *   HEADERS --route found--> OPEN --message, half-close--> handler runs --call_reply/_end/_fail--> OVER --stream closed--> freed
 *                               \\--wrong request, deadline, client's reset----------------------------^
 */
#ifndef GATEWAYD_GRPC_H
#define GATEWAYD_GRPC_H

#include "gatewayd/gatewayd.h"

struct h2;

#define GRPC_PREFIX_BYTES 5

/* One piece of what is to be sent: own bytes of the call, or a reference. */
struct segment {
    struct shared_bytes *shared; /* NULL: the next len bytes of call->own */
    size_t len;
};

struct call {
    struct gatewayd *gateway;
    struct h2 *h2; /* the connection */
    int32_t stream_id;
    const struct call_handler *handler; /* NULL until the path was seen, or unknown */
    void *state;                        /* the handler's */
    struct call *prev, *next;           /* of the connection; next also links free ones */
    struct call *leader_prev, *leader_next; /* in gatewayd.leader_calls, if in_leader_list */

    /* --- request --- */
    size_t header_bytes;
    char *service_method; /* the path, only if no handler was found; owned */
    char *token;          /* owned; NULL: none */
    struct buf user;      /* the identity's bytes */
    struct identity identity;
    char *encoding;       /* grpc-encoding other than identity; owned */
    struct deadline deadline;
    uint64_t deadline_ms;
    uint8_t prefix[GRPC_PREFIX_BYTES];
    uint8_t prefix_len;
    uint32_t message_len; /* of the message being received; valid once prefix_len == 5 */
    struct buf in;        /* its bytes so far; or, while paused, raw bytes not yet looked at */
    struct buf held;      /* raw bytes that came while paused */
    bool method_is_post;
    bool content_is_grpc;
    bool bad_api_version;
    bool bad_timeout;
    bool wants_leader;
    bool in_leader_list;
    bool headers_done;
    bool got_message;   /* unary: one message is complete */
    bool half_closed;   /* the client's END_STREAM came */
    bool half_close_told;
    bool paused;

    /* --- response --- */
    struct buf own; /* bytes of own segments, from own_off on */
    size_t own_off;
    struct segment *segments; /* a queue: first_segment .. segment_count */
    size_t first_segment, segment_count, segment_cap;
    size_t queued;      /* bytes in all segments */
    uint64_t taken_ms;  /* when HTTP/2 last took of them, or the first came */
    uint64_t reply_left; /* call_reply_begin: bytes still to come */
    bool replying;
    bool response_sent; /* HEADERS were submitted */
    bool above_low;     /* queued was over CALL_QUEUE_LOW_BYTES */
    bool writable_due;  /* in h2's list */
    struct call *writable_next;
    bool over;          /* the end was decided: status and text are set */
    bool trailers_sent; /* submitted */
    bool closed_told;
    int status;         /* grpc-status */
    char *status_text;  /* percent-encoded; owned, NULL: none */
    int http_status;    /* 200, or 400, 405, 415 */
};

/* --- pure --- */
/* "100m" -> ms, rounded up. E_INVALID. */
int grpc_parse_timeout(struct slice value, uint64_t *ms);
/* Percent-encodes for grpc-message. Given: free() it. */
char *grpc_encode_text(struct slice text);

/* --- h2.c -> grpc.c --- */
struct call *call_open(struct gatewayd *g, struct h2 *h2, int32_t stream_id); /* NULL: too many */
int grpc_header(struct call *c, struct slice name, struct slice value);       /* E_TOO_BIG: the list is too long */
void grpc_headers_done(struct call *c);
/* Returns how many bytes were taken for good (flow control may give them back); the rest is held. */
size_t grpc_data(struct call *c, struct slice bytes);
void grpc_half_close(struct call *c);
/* The stream is gone: the handler hears `closed`, the call is freed. */
void call_close(struct call *c);
/* Moves queued bytes to `to`; len <= c->queued. */
void call_take(struct call *c, uint8_t *to, size_t len);

/* --- grpc.c, call.c -> h2.c --- */
void h2_submit(struct call *c);                 /* the call has bytes or an end to send */
void h2_consumed(struct call *c, size_t bytes); /* held bytes were taken */
void h2_writable_later(struct call *c);         /* call_writable after the current write */
void h2_answers_queued(struct call *c, size_t more); /* bytes of an answer wait for the client, ... */
void h2_answers_taken(struct call *c, size_t less);  /* ... and no longer */
size_t h2_answers_bytes(const struct call *c);       /* of all calls of c's connection */
void h2_unlink(struct call *c);                 /* leaves the lists of its connection */

/* --- between grpc.c and call.c --- */
void call_abort(struct call *c, int err, const char *text); /* call_fail, and `closed` at once: the handler did not ask for it */
void call_writable(struct call *c);                         /* tells the handler */
void call_told_closed(struct call *c);
void grpc_resume(struct call *c); /* looks at held bytes */
void call_join_leader_list(struct call *c);

#endif
