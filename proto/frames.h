/* frames - THE list of what daemons say to each other.
 *
 * A frame is a msgpack array [type, seq, field...]; a message on a link is one or more frames, end to end,
 * and nothing after them: the message is the batch (see link.h). Fields are flat: unsigned and signed 64-bit
 * integers and bin. From this list come the enum, the names for logs, the structs, encode and decode, the
 * sender check, and the table in proto/README.md. Raise FRAMES_VERSION with every change. */
#ifndef PROTO_FRAMES_H
#define PROTO_FRAMES_H

#include "common/base.h"
#include "common/buf.h"

#define FRAMES_VERSION 1

/* Roles are bits, so that a frame can name several senders. */
enum role { ROLE_GATEWAYD = 1, ROLE_RAFTD = 2, ROLE_STORED = 4, ROLE_PEER = 8, ROLE_CTL = 16, ROLE_ANY = 31 };

/* X(NAME, name, number, senders, receivers, "one sentence"), grouped by receiver. */
#define FRAMES(X) \
    X(HELLO, hello, 1, ROLE_ANY, ROLE_ANY, "who I am; the first frame on every link, both ways") \
    /* to raftd */ \
    X(PROPOSE, propose, 10, ROLE_GATEWAYD | ROLE_STORED, ROLE_RAFTD, "a command to be agreed on") \
    X(READ, read, 11, ROLE_GATEWAYD, ROLE_RAFTD, "a query to be served linearizably") \
    X(STATUS, status, 12, ROLE_GATEWAYD | ROLE_RAFTD, ROLE_RAFTD | ROLE_STORED, "what is your state; each daemon adds its facts") \
    X(APPLIED, applied, 13, ROLE_STORED, ROLE_RAFTD, "how far the store has applied, and how far it is durable") \
    /* to stored */ \
    X(APPLY, apply, 20, ROLE_RAFTD, ROLE_STORED, "one committed entry, in order of index") \
    X(SERVE, serve, 21, ROLE_RAFTD, ROLE_STORED, "a READ whose index is confirmed") \
    X(LEAD, lead, 22, ROLE_RAFTD, ROLE_STORED, "term, leader and commit index, at every change") \
    X(QUERY, query, 23, ROLE_GATEWAYD, ROLE_STORED, "a query that needs no consensus") \
    X(MORE, more, 24, ROLE_GATEWAYD, ROLE_STORED, "room for the next part of a large result") \
    X(FORGET, forget, 25, ROLE_GATEWAYD, ROLE_STORED, "the rest of a large result is not wanted") \
    X(WATCH, watch, 26, ROLE_GATEWAYD, ROLE_STORED, "tell me the events of this range from now on") \
    X(UNWATCH, unwatch, 27, ROLE_GATEWAYD, ROLE_STORED, "no longer") \
    X(HISTORY, history, 28, ROLE_GATEWAYD, ROLE_STORED, "one slice of past events of a range") \
    /* to gatewayd */ \
    X(REFUSED, refused, 30, ROLE_RAFTD, ROLE_GATEWAYD | ROLE_STORED, "a PROPOSE or READ that will not happen, and why") \
    X(LEADER, leader, 31, ROLE_RAFTD, ROLE_GATEWAYD, "who leads, at every change") \
    X(MEMBER, member, 32, ROLE_RAFTD, ROLE_GATEWAYD, "one member of the cluster; the whole list at every change") \
    X(RESULT, result, 33, ROLE_STORED, ROLE_GATEWAYD, "the answer to one request, or a part of it") \
    X(WATCHING, watching, 34, ROLE_STORED, ROLE_GATEWAYD, "a WATCH is in force; events after rev follow") \
    X(EVENT, event, 35, ROLE_STORED, ROLE_GATEWAYD, "one live event, in order of revision") \
    X(PAST, past, 36, ROLE_STORED, ROLE_GATEWAYD, "one event of a history slice") \
    X(PAST_END, past_end, 37, ROLE_STORED, ROLE_GATEWAYD, "end of a history slice")

/* Field lists. U: uint64_t, I: int64_t, B: struct slice (bin). */

/* version: FRAMES_VERSION. instance: random, new at every start. slot: of the link. applied, durable: raft indexes
 * (stored only). cluster_id, member_id: 0 while unknown (stored and gatewayd learn them from raftd's HELLO). */
#define FR_HELLO_FIELDS(U, I, B) \
    U(version) U(role) U(cluster_id) U(member_id) U(instance) U(slot) U(applied) U(durable)

/* req: unique among all that this instance ever sent. command: command.h. */
#define FR_PROPOSE_FIELDS(U, I, B) U(req) B(command)
#define FR_READ_FIELDS(U, I, B) U(req) B(command)

/* what: enum status_what. slot: 0 from the gateway; raftd fills it when it sends the frame on to stored. The gateway
 * sends it to stored itself, with no raft facts, while raftd is away. facts: one bin per daemon: for STATUS_API unused,
 * for STATUS_METRICS Prometheus text so far. */
#define FR_STATUS_FIELDS(U, I, B) \
    U(req) U(what) U(slot) U(term) U(leader) U(commit) U(is_learner) U(raft_known) B(facts)

/* applied: last index applied; durable: last index that survives a power cut; room: bytes of APPLY that stored
 * takes beyond what it has got. */
#define FR_APPLIED_FIELDS(U, I, B) U(applied) U(durable) U(room)

/* kind: enum entry_kind of raftd/raft.h (0 no-op, 1 command, 2 configuration). */
#define FR_APPLY_FIELDS(U, I, B) U(index) U(term) U(kind) B(command)

/* slot: the gateway that asked. index: answer only from a store that has applied it. */
#define FR_SERVE_FIELDS(U, I, B) U(slot) U(index) U(req) B(command)

#define FR_LEAD_FIELDS(U, I, B) U(cluster_id) U(member_id) U(term) U(leader) U(commit) U(is_learner)

#define FR_QUERY_FIELDS(U, I, B) U(req) B(command)
#define FR_MORE_FIELDS(U, I, B) U(req)
#define FR_FORGET_FIELDS(U, I, B) U(req)

/* token: echoed in WATCHING. range_id: chosen by the gateway; known already: only answered (which tells the revision up to
 * which every live event was sent). want_prev: send prev_kv too. key/range_end: etcd's interval rules. range_id 0:
 * registers nothing, only asks for the revision. */
#define FR_WATCH_FIELDS(U, I, B) U(token) U(range_id) U(want_prev) B(key) B(range_end)
#define FR_UNWATCH_FIELDS(U, I, B) U(range_id)

/* from: first revision wanted. Slices are asked for one after the other: the answer tells where to go on. */
#define FR_HISTORY_FIELDS(U, I, B) U(token) I(from) U(want_prev) B(key) B(range_end)

#define FR_REFUSED_FIELDS(U, I, B) U(req) U(err)
#define FR_LEADER_FIELDS(U, I, B) U(term) U(leader) U(member_id) U(cluster_id) U(is_learner)

/* pos of count; urls are comma lists. name empty: not yet started. */
#define FR_MEMBER_FIELDS(U, I, B) U(pos) U(count) U(id) U(is_learner) B(name) B(peer_urls) B(client_urls)

/* err: 0 or the number of err.h; text: replaces the err's text when not empty. body: the API's response message as
 * protobuf (first part: its beginning). total: bytes of the whole message; more: not the last part. parts are
 * in order; stored sends the next one after MORE. messages: > 0 for RangeStream: body is one whole message of the stream. */
#define FR_RESULT_FIELDS(U, I, B) U(req) U(err) U(total) U(more) B(text) B(body)

#define FR_WATCHING_FIELDS(U, I, B) U(token) I(rev) I(compact_rev)

/* last: no further event of this revision comes on this link. type: mvccpb.Event.EventType. kv, prev: mvccpb.KeyValue as
 * stored (prev empty: none or not wanted). store_rev: current revision when it was sent. */
#define FR_EVENT_FIELDS(U, I, B) I(rev) U(last) U(type) I(store_rev) B(key) B(kv) B(prev)
#define FR_PAST_FIELDS(U, I, B) U(token) I(rev) U(last) U(type) B(key) B(kv) B(prev)

/* next: all events below it were sent. feed_rev: every live event up to it was sent on this link before this frame; so
 * next > feed_rev means that the watcher is in step. compact_rev: > 0 when `from` was compacted (no events sent).
 * store_rev: current revision. */
#define FR_PAST_END_FIELDS(U, I, B) U(token) I(next) I(feed_rev) I(compact_rev) I(store_rev)

enum status_what { STATUS_API = 0, STATUS_METRICS = 1, STATUS_HEALTH = 2 };

enum frame_type {
#define FRAME_ENUM(NAME, name, number, from, to, text) FR_##NAME = number,
    FRAMES(FRAME_ENUM)
#undef FRAME_ENUM
};

#define FRAME_U(member) uint64_t member;
#define FRAME_I(member) int64_t member;
#define FRAME_B(member) struct slice member;
#define FRAME_STRUCT(NAME, name, number, from, to, text) \
    struct fr_##name { FR_##NAME##_FIELDS(FRAME_U, FRAME_I, FRAME_B) };
FRAMES(FRAME_STRUCT)
#undef FRAME_STRUCT

struct frame {
    enum frame_type type;
    uint64_t seq; /* set by the link: counts frames of one direction since HELLO */
    union {
#define FRAME_MEMBER(NAME, name, number, from, to, text) struct fr_##name name;
        FRAMES(FRAME_MEMBER)
#undef FRAME_MEMBER
    };
};

/* A frame as an expression: link_send(l, FRAME(propose, PROPOSE, .req = 7, .command = c)) */
#define FRAME(member, TYPE, ...) (&(struct frame){.type = FR_##TYPE, .member = {__VA_ARGS__}})

const char *frame_name(uint64_t type); /* "PROPOSE"; "?" when unknown */
bool frame_may(uint64_t type, enum role from, enum role to); /* may this sender say this to that receiver */

/* Appends the encoded frame. */
void frame_encode(struct buf *out, const struct frame *frame);

/* Takes the next frame off *message (which is advanced). 1: got one, its slices borrow the message; 0: the message is
 * at its end; else E_MALFORMED, E_TRUNCATED, E_TOO_BIG (a field over FRAME_FIELD_BYTES_MAX), E_VERSION (unknown type). */
int frame_decode(struct slice *message, struct frame *frame);

/* One line of text for traces: "PROPOSE seq 7 req 12 command 41 bytes". Writes at most size bytes. */
void frame_show(const struct frame *frame, char *text, size_t size);

#endif
