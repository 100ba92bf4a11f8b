/* peer - the other members of the cluster, as seen from one raftd: connections to and from them over TCP or TLS.
 *
 * Each member dials every other one for what it sends itself, three times: so a large append or a snapshot never stands in
 * front of a heartbeat. On a connection both sides say HELLO first (role PEER, cluster id, member id, `slot` is the
 * stream); then the dialler sends, and the other side only answers PINGs, unless it knows no way of its own to the
 * dialler (a member that joins knows no URLs yet): then it sends there too.
 *
 *   message = length(4 bytes, big endian) frame*      frame: proto/frames.h, ROLE_PEER to ROLE_PEER
 *
 *   dialled:  WAIT --backoff--> RESOLVE -> CONNECT -> (TLS) -> HELLO --theirs is good--> UP --lost, silent--> WAIT
 *   accepted:                                         (TLS) -> HELLO --theirs is good, ours is said--> UP -> gone
 *                                                                 '--nobody's, or a removed member's--> GUEST -> gone
 *
 * Nothing relies on delivery: what cannot be queued is dropped, and `lost` tells it. A peer is not trusted to be well
 * formed: sizes are checked before memory is taken, and bytes that are no frame close the connection. */
#ifndef RAFTD_PEER_H
#define RAFTD_PEER_H

#include "common/buf.h"
#include "common/conf.h"
#include "common/loop.h"
#include "proto/frames.h"
#include "raftd/members.h"

enum peer_stream {
    PEER_STREAM_BEATS,   /* heartbeats, votes, answers */
    PEER_STREAM_APPENDS, /* appends, and requests that are forwarded */
    PEER_STREAM_SNAPS,
    PEER_STREAMS,
};

/* Bytes that wait for one connection before what comes is dropped: more than the core keeps under way to one member. */
#define PEER_PENDING_BYTES_MAX (24 * MIB)
#define PEERS_MAX 64 /* members that were ever heard of in one run and have not been forgotten */

struct peers;
struct tls_context;

struct peers_ops {
    /* One frame of a member; borrowed. Non-zero: the peer is at fault, the connection is closed. */
    int (*frame)(uint64_t member, const struct frame *f, void *arg);
    /* All frames of one message were given to `frame`. Non-zero: as above. */
    int (*message_end)(uint64_t member, void *arg);
    /* Something that was to go to this member was dropped, or a connection to it went down. From peers_report only. */
    void (*lost)(uint64_t member, void *arg);
    /* The process of this member has ended: nobody listens where it was, and it speaks to us no more; or another one speaks in its name. From
     * peers_report only. */
    void (*gone)(uint64_t member, void *arg);
    /* A connection that we dialled is up; what was sent on an earlier one and has not arrived by now never will: the other side
     * closes that before it says HELLO. */
    void (*reached)(uint64_t member, enum peer_stream stream, const struct fr_hello *theirs, void *arg);
    /* What our HELLO says of our log (applied: its last entry, durable: the term that we lead; 0: we do not). */
    void (*standing)(struct fr_hello *ours, void *arg);
    /* May this member, which is not among those of peers_set, talk to us? */
    bool (*may_talk)(uint64_t member, void *arg);
    /* Guests, who only get one answer: a removed member is told so, and one that is to join (its HELLO has no ids) may ask for
     * the members' table (appends it). */
    bool (*was_removed)(uint64_t member, void *arg);
    void (*table)(struct buf *out, void *arg);
};

struct peers_conf {
    const struct conf *conf; /* URLs, timing, TLS; borrowed for life */
    uint64_t cluster_id, member_id, instance;
};

/* The TLS of this configuration; NULL: none is configured, or why says what is wrong. Given. */
struct tls_context *peers_tls(const struct conf *conf, bool server, struct buf *why);

struct peers *peers_new(struct loop *loop, const struct peers_conf *conf, const struct peers_ops *ops, void *arg);
void peers_free(struct peers *p); /* at exit only, before loop_free */
/* Listens on all of listen-peer-urls; fatalx() if it cannot. */
void peers_listen(struct peers *p);
/* Who the members are now (as of the last entry of the log): dials new ones, lets go of those that left. */
void peers_set(struct peers *p, const struct members *members);

/* Begins a group of frames that travel in one message: encode them into the result, then peers_end. NULL: the member cannot
 * be told now (no connection, or too much waits); it is `lost`. Sent at the end of the turn. */
struct buf *peers_begin(struct peers *p, uint64_t member, enum peer_stream stream);
void peers_end(struct peers *p);
bool peers_send(struct peers *p, uint64_t member, enum peer_stream stream, const struct frame *f); /* one frame */
/* Which of our own connections would carry it now: they are counted; 0: none, or one that the member dialled. */
uint64_t peers_way(const struct peers *p, uint64_t member, enum peer_stream stream);
bool peers_is_up(const struct peers *p, uint64_t member); /* heartbeats can be sent */
/* Since when heartbeats can be sent without interruption; UINT64_MAX: they cannot. */
uint64_t peers_up_since_ms(const struct peers *p, uint64_t member);
void peers_report(struct peers *p); /* calls `lost` and `gone` for those they are due for */

/* A small number for a member, stable as long as the member is known: 0..PEERS_MAX-1; -1: not known. And back. */
int peers_place(const struct peers *p, uint64_t member);
uint64_t peers_at(const struct peers *p, unsigned place); /* RAFT_NONE: nobody */

void peers_render(const struct peers *p, struct buf *out); /* /metrics */

#endif
