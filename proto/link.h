/* link - a link to one sibling: listen or dial, HELLO, send, receive (on wire.h, the only file that knows nng).
 *
 * One link is one nng PAIR0 socket and one peer. A daemon that serves several peers (raftd and stored
 * serve up to GATEWAY_SLOTS gateways) listens once per slot: link_url() derives a slot's URL from the base URL.
 * PAIR0 gives each peer its own back-pressure, which nng's polyamorous and raw modes do not (they drop).
 * A second peer on a taken slot is refused by nng and never sees a HELLO.
 *
 *      DOWN --pipe attached--> HELLO --peer's HELLO accepted--> UP --pipe lost or malformed frame--> DOWN
 *
 * A message is a batch: link_send() encodes a frame into the pending bytes; at the end of the turn, if
 * no message is on its way, all that is pending leaves as one message (cut at frame borders near
 * LINK_MESSAGE_BYTES_SOFT). While a message is on its way the next one gathers. There is no timer in it.
 *
 * HELLO travels alone, each side's first message on a pipe. The listening end says it first: nng's listener closes the
 * pipe of a second peer at once, and nng 1.5.2 leaks a message that is just being sent then. Frames count
 * from HELLO (seq), so one that went missing or came from an earlier connection closes the pipe instead of being
 * taken for another.
 *
 * Nothing relies on delivery: frames queued when a link goes down are dropped, and `down` tells the owner,
 * who resumes from what the next HELLO says. All functions and callbacks belong to the loop's thread. */
#ifndef PROTO_LINK_H
#define PROTO_LINK_H

#include "common/buf.h"
#include "common/loop.h"
#include "proto/frames.h"

struct link;

enum link_state { LINK_DOWN, LINK_HELLO, LINK_UP };

struct link_ops {
    /* HELLO of the peer was accepted (version, role and, where both know it, cluster id fit). hello is
     * borrowed. Return 0, or an error to refuse this peer (logged, pipe closed). */
    int (*up)(struct link *link, const struct fr_hello *hello, void *arg);
    /* The peer is gone; what was pending is dropped. Only after up. */
    void (*down)(struct link *link, void *arg);
    /* One frame; borrowed, its slices point into the message. Non-zero: the peer is at fault; the frame
     * is counted and logged by name, the pipe closed. */
    int (*frame)(struct link *link, const struct frame *frame, void *arg);
    /* All frames of one message were given to `frame`. May be NULL. */
    void (*batch_end)(struct link *link, void *arg);
    /* link_is_full() was true and is no longer. May be NULL. */
    void (*drained)(struct link *link, void *arg);
};

struct link_conf {
    const char *name; /* for logs: "stored", "gateway 3" */
    const char *url;  /* this link's URL, from link_url */
    bool listen;      /* else dial, again and again */
    enum role self;   /* who we are */
    enum role peer;   /* who may be at the other end */
    unsigned slot;    /* sent in HELLO */
};

struct link_stats {
    uint64_t messages_in, messages_out, bytes_in, bytes_out, frames_in, frames_out;
    uint64_t refused_hellos, malformed; /* refusals, by reason */
    uint64_t downs;
};

/* conf's strings are copied. fatal() when the URL is invalid. */
struct link *link_new(struct loop *loop, const struct link_conf *conf, const struct link_ops *ops, void *arg);
void link_free(struct link *l); /* at exit only */

/* What our next HELLO says; call before link_start and whenever it changes. Borrowed, copied. */
void link_set_hello(struct link *l, const struct fr_hello *hello);
/* Begins to listen or dial. fatal() when the URL cannot be listened on: a stale ipc socket file of a dead process
 * is removed first, one that somebody answers on is fatal. */
void link_start(struct link *l);

/* Queues one frame; encoded before it returns, nothing is kept. Ignored unless UP (the owner resumes at
 * `up`). Never fails: check link_is_full() where growth is possible. Frames that end a wait (RESULT,
 * APPLIED) may be sent when full; LINK_MESSAGE_BYTES_MAX bounds one frame (must). */
void link_send(struct link *l, const struct frame *frame);
bool link_is_full(const struct link *l);
size_t link_pending_bytes(const struct link *l);

/* Closes the pipe to the peer, if there is one (`down` is called): it will come again and say HELLO. why: for the log. */
void link_kick(struct link *l, const char *why);

/* Stops handing frames up until resumed; nng then pushes back to the peer. */
void link_pause(struct link *l, bool paused);

enum link_state link_state(const struct link *l);
const struct fr_hello *link_peer(const struct link *l); /* the peer's HELLO; NULL unless UP */
const char *link_name(const struct link *l);
unsigned link_slot(const struct link *l);
const struct link_stats *link_stats(const struct link *l);
/* Waits at most ms for what is pending to leave; for an orderly end. */
void link_drain(struct link *l, unsigned ms);

/* The URL of a slot: slot 0 is the base itself; "ipc://P" -> "ipc://P.3"; "tls+tcp://H:2390" -> port + slot.
 * Given: free() it. NULL if the base is not a URL of a known scheme. */
char *link_url(const char *base, unsigned slot);

#endif
