/* grpc - one gRPC call, whatever carries it, and struct call, which the carriers, grpc.c and call.c share.
 * A carrier (h2.c for gRPC proper, jsoncall.c for the JSON gateway) feeds headers and data in; grpc.c makes messages of them and
 * calls the handler; call.c is what handlers call back (call.h) and keeps what is to be sent until the carrier takes it.
 *
 *   HEADERS --route found--> OPEN --message, half-close--> handler runs --call_reply/_end/_fail--> OVER --stream closed--> freed
 *                               \\--wrong request, deadline, client's reset----------------------------^
 */
#ifndef GATEWAYD_GRPC_H
#define GATEWAYD_GRPC_H

#include "gatewayd/gatewayd.h"

#define GRPC_PREFIX_BYTES 5

struct call;

/* What brings a call's bytes in and takes its answers away. All run on the loop's thread, from any call of call.h. */
struct call_carrier {
    void (*submit)(struct call *c);                 /* the call has bytes or an end to send */
    void (*consumed)(struct call *c, size_t bytes); /* held bytes were taken */
    void (*writable_later)(struct call *c);         /* call_writable after the current write */
    void (*answers_queued)(struct call *c, size_t more); /* bytes of an answer wait for the client, ... */
    void (*answers_taken)(struct call *c, size_t less);  /* ... and no longer */
    size_t (*answers_bytes)(const struct call *c);       /* of all calls of c's connection */
    void (*unlink)(struct call *c);                 /* c ends: leaves the lists of its connection */
};

/* One piece of what is to be sent: own bytes of the call, or a reference. */
struct segment {
    struct shared_bytes *shared; /* NULL: the next len bytes of call->own */
    size_t len;
};

struct call {
    struct gatewayd *gateway;
    const struct call_carrier *carrier;
    const struct client *client; /* who asks; set by the carrier */
    uint64_t opened_ms;
    void *owner;       /* the carrier's: h2.c's connection, ... */
    int32_t stream_id; /* HTTP/2's; 0: another carrier */
    struct h2_web *web; /* h2_web.c's: this is no gRPC call, and has no handler; else NULL */
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
    int identity_err;           /* Watch: why there is none */
    struct login *login;        /* identity.c: its next message waits for this; NULL: it does not wait */
    struct call *login_prev, *login_next;
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
    unsigned api_version; /* stats_api_version; 0: not told */
    bool bad_timeout;
    bool wants_leader;
    bool by_json;        /* the JSON gateway asks for its own client: no identity from a certificate */
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
    bool is_ranked;     /* the carrier has said what goes first, ... */
    bool is_small;      /* ... and that this does */
    bool above_low;     /* queued was over CALL_QUEUE_LOW_BYTES */
    bool writable_due;  /* in h2's list */
    struct call *writable_next;
    bool over;          /* the end was decided: status and text are set */
    bool trailers_sent; /* submitted */
    bool closed_told;
    int status;         /* grpc-status */
    char *status_text;  /* owned, NULL: none */
    char *status_encoded; /* the same percent-encoded, once trailers are made of it; owned */
    int http_status;    /* 200, or 400, 405, 415 */
};

/* --- pure --- */
/* "100m" -> ms, rounded up. E_INVALID. */
int grpc_parse_timeout(struct slice value, uint64_t *ms);
/* Percent-encodes for grpc-message. Given: free() it. */
char *grpc_encode_text(struct slice text);

/* --- carrier -> grpc.c, call.c --- */
struct call *call_open(struct gatewayd *g, const struct call_carrier *carrier, void *owner); /* NULL: too many */
int grpc_header(struct call *c, struct slice name, struct slice value);       /* E_TOO_BIG: the list is too long */
void grpc_headers_done(struct call *c);
/* Returns how many bytes were taken for good (flow control may give them back); the rest is held. */
size_t grpc_data(struct call *c, struct slice bytes);
bool grpc_is_held(const struct call *c); /* nothing reaches the handler now; `consumed` tells when it goes on */
void grpc_half_close(struct call *c);
/* The stream is gone: the handler hears `closed`, the call is freed. */
void call_close(struct call *c);
void call_free(struct call *c); /* one that is closed: its memory */
/* Moves queued bytes to `to`; len <= c->queued. */
void call_take(struct call *c, uint8_t *to, size_t len);
/* Queues bytes as they are: of a web request's answer. */
void call_send_raw(struct call *c, struct slice bytes);

/* --- between grpc.c and call.c --- */
void call_abort(struct call *c, int err, const char *text); /* call_fail, and `closed` at once: the handler did not ask for it */
void call_writable(struct call *c);                         /* tells the handler */
void call_told_closed(struct call *c);
void grpc_resume(struct call *c); /* looks at held bytes */
void grpc_admitted(struct call *c); /* identity.c: the message that waits may reach its handler */
void call_join_leader_list(struct call *c);

#endif
