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

#define FRAMES_VERSION 3

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
    X(DIFFERS, differs, 29, ROLE_RAFTD, ROLE_STORED, "another member has applied the same entries and has another hash") \
    /* to gatewayd */ \
    X(REFUSED, refused, 30, ROLE_RAFTD, ROLE_GATEWAYD | ROLE_STORED, "a PROPOSE or READ that will not happen, and why") \
    X(LEADER, leader, 31, ROLE_RAFTD, ROLE_GATEWAYD, "who leads, at every change") \
    X(MEMBER, member, 32, ROLE_RAFTD, ROLE_GATEWAYD, "one member of the cluster; the whole list at every change") \
    X(RESULT, result, 33, ROLE_STORED | ROLE_RAFTD, ROLE_GATEWAYD | ROLE_RAFTD, "the answer to one request, or a part of it") \
    X(WATCHING, watching, 34, ROLE_STORED, ROLE_GATEWAYD, "a WATCH is in force; events after rev follow") \
    X(EVENT, event, 35, ROLE_STORED, ROLE_GATEWAYD, "one live event, in order of revision") \
    X(PAST, past, 36, ROLE_STORED, ROLE_GATEWAYD, "one event of a history slice") \
    X(PAST_END, past_end, 37, ROLE_STORED, ROLE_GATEWAYD, "end of a history slice") \
    X(AUTH, auth, 38, ROLE_STORED, ROLE_GATEWAYD, "is auth on, and its revision: at every up and every change, before the RESULT of the change") \
    /* between the raftds of a cluster: raftd/peer.h */ \
    X(RAFT, raft, 40, ROLE_PEER, ROLE_PEER, "one message of the consensus core; its ENTRYs follow in the same message") \
    X(ENTRY, entry, 41, ROLE_PEER, ROLE_PEER, "one entry of the RAFT before it") \
    X(FORWARD, forward, 42, ROLE_PEER, ROLE_PEER, "a proposal for the leader of this term") \
    X(READ_INDEX, read_index, 43, ROLE_PEER, ROLE_PEER, "the leader's read index is wanted") \
    X(READ_INDEX_SAID, read_index_said, 44, ROLE_PEER, ROLE_PEER, "the read index, or why there is none") \
    X(ASK, ask, 45, ROLE_PEER, ROLE_PEER, "a query that only the leader's stored can answer") \
    X(ASKED, asked, 46, ROLE_PEER, ROLE_PEER, "the answer to an ASK") \
    X(FORWARD_REFUSED, forward_refused, 47, ROLE_PEER, ROLE_PEER, "a FORWARD or ASK that will not happen, and why") \
    X(PING, ping, 48, ROLE_PEER, ROLE_PEER, "are you there") \
    X(PONG, pong, 49, ROLE_PEER, ROLE_PEER, "yes") \
    X(HASH, hash, 50, ROLE_PEER, ROLE_PEER, "what came of the entries applied so far; beside answers to heartbeats") \
    /* membership */ \
    X(MEMBER_CHANGE, member_change, 60, ROLE_GATEWAYD, ROLE_RAFTD, "a change of membership that a client asks for") \
    X(MOVE_LEADER, move_leader, 61, ROLE_GATEWAYD, ROLE_RAFTD, "hand leadership to this member") \
    X(MEMBER_SAID, member_said, 62, ROLE_RAFTD, ROLE_GATEWAYD, "what became of a MEMBER_CHANGE or MOVE_LEADER") \
    X(CHANGE_FORWARD, change_forward, 63, ROLE_PEER, ROLE_PEER, "a change of membership, from a follower to the leader") \
    X(CHANGE_SAID, change_said, 64, ROLE_PEER, ROLE_PEER, "what became of a CHANGE_FORWARD") \
    X(MEMBERS_ASK, members_ask, 65, ROLE_PEER, ROLE_PEER, "who are the members: asked by one that is to join") \
    X(MEMBERS_TOLD, members_told, 66, ROLE_PEER, ROLE_PEER, "the answer to MEMBERS_ASK") \
    X(REMOVED, removed, 67, ROLE_PEER, ROLE_PEER, "you are no member any more") \
    X(MEMBER_STATUS, member_status, 68, ROLE_GATEWAYD, ROLE_RAFTD, "what is the state of this other member; answered by a RESULT") \
    X(STATUS_ASK, status_ask, 69, ROLE_PEER, ROLE_PEER, "what is your state; answered by an ASKED") \
    /* snapshots: raftd <-> stored on a node, raftd <-> raftd on stream 2; ids are the sender's */ \
    X(SNAP_SAVE, snap_save, 70, ROLE_RAFTD, ROLE_STORED, "open a consistent view of the store") \
    X(SNAP_SAVED, snap_saved, 71, ROLE_STORED, ROLE_RAFTD, "the view is open, as of this index; or why it is not") \
    X(SNAP_OFFER, snap_offer, 72, ROLE_PEER, ROLE_PEER, "a snapshot for you: ask for its parts") \
    X(SNAP_LOAD, snap_load, 73, ROLE_RAFTD, ROLE_STORED, "a snapshot is coming: make room beside the store") \
    X(SNAP_MORE, snap_more, 74, ROLE_RAFTD | ROLE_STORED | ROLE_PEER, ROLE_RAFTD | ROLE_STORED | ROLE_PEER, "credit: the parts from one number to another") \
    X(SNAP_PART, snap_part, 75, ROLE_RAFTD | ROLE_STORED | ROLE_PEER, ROLE_RAFTD | ROLE_STORED | ROLE_PEER, "one part, with its checksum") \
    X(SNAP_LOADED, snap_loaded, 76, ROLE_STORED, ROLE_RAFTD, "the store is now the snapshot's; or why it is not") \
    X(SNAP_SAID, snap_said, 77, ROLE_PEER, ROLE_PEER, "how the transfer ended") \
    X(SNAP_ASK, snap_ask, 78, ROLE_PEER, ROLE_PEER, "send me a snapshot: my store, or my log, is lost") \
    X(SNAP_DROP, snap_drop, 79, ROLE_RAFTD, ROLE_STORED, "the view, or what was loaded so far, is not wanted any more")

/* Field lists. U: uint64_t, I: int64_t, B: struct slice (bin). */

/* version: FRAMES_VERSION. instance: random, new at every start. slot: of the link. applied, durable: raft indexes
 * (stored only; of a raftd to another one: the last entry of its log, and the term that it leads, or 0). cluster_id,
 * member_id: 0 while unknown (stored and gatewayd learn them from raftd's HELLO). */
#define FR_HELLO_FIELDS(U, I, B) \
    U(version) U(role) U(cluster_id) U(member_id) U(instance) U(slot) U(applied) U(durable)

/* req: unique among all that this instance ever sent. command: command.h. */
#define FR_PROPOSE_FIELDS(U, I, B) U(req) B(command)
/* where: 0: this node's stored answers, at a read index; 1: the leader's stored does (what only it knows). */
#define FR_READ_FIELDS(U, I, B) U(req) U(where) B(command)

/* what: enum status_what. slot: 0 from the gateway; raftd fills it when it sends the frame on to stored. The gateway
 * sends it to stored itself, with no raft facts, while raftd is away. facts: one bin per daemon: for STATUS_API unused,
 * for STATUS_METRICS Prometheus text so far. */
#define FR_STATUS_FIELDS(U, I, B) \
    U(req) U(what) U(slot) U(term) U(leader) U(commit) U(is_learner) U(raft_known) B(facts)

/* applied: last index applied; durable: last index that survives a power cut; room: bytes of APPLY that stored
 * takes beyond what it has got. hash: over all that was applied (stored/chain.h); 0: unknown. points: the same as of
 * entries at fixed distances (HASH_EVERY), 8 bytes each, big endian; those new since the last APPLIED of this link, the last
 * one that of the newest such entry that was applied. */
#define FR_APPLIED_FIELDS(U, I, B) U(applied) U(durable) U(room) U(hash) B(points)
#define HASH_EVERY 64

/* kind: enum entry_kind of raftd/raft.h (0 no-op, 1 command, 2 configuration). */
#define FR_APPLY_FIELDS(U, I, B) U(index) U(term) U(kind) B(command)

/* slot: the gateway that asked; 0: raftd itself did, for another member: the RESULT goes back to it. index: answer only from a store that has applied it. */
#define FR_SERVE_FIELDS(U, I, B) U(slot) U(index) U(req) B(command)

/* members: how many the cluster has. */
#define FR_LEAD_FIELDS(U, I, B) U(cluster_id) U(member_id) U(term) U(leader) U(commit) U(is_learner) U(members)

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

/* index: the newest entry at which the two were compared. */
#define FR_DIFFERS_FIELDS(U, I, B) U(member) U(index)

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

#define FR_AUTH_FIELDS(U, I, B) U(enabled) U(auth_rev)

/* op: enum member_op. id: of the member; 0 for additions (raftd makes it from the URLs and the time). peer_urls: comma list. */
#define FR_MEMBER_CHANGE_FIELDS(U, I, B) U(req) U(op) U(id) B(peer_urls)
#define FR_MOVE_LEADER_FIELDS(U, I, B) U(req) U(target)
/* err: 0 or the number of err.h. After a success the list of MEMBERs that holds the change has been sent before it. id: of the
 * member, also of an added one. */
#define FR_MEMBER_SAID_FIELDS(U, I, B) U(req) U(err) U(id)

/* tag: the asker's, echoed. fields: what of name (1), peer_urls (2), client_urls (4) an UPDATE sets. index: of the entry, committed.
 * Lost ones are not repeated: the asker's request times out. */
#define FR_CHANGE_FORWARD_FIELDS(U, I, B) U(tag) U(op) U(id) U(fields) B(name) B(peer_urls) B(client_urls)
#define FR_CHANGE_SAID_FIELDS(U, I, B) U(tag) U(err) U(id) U(index)

#define FR_MEMBER_STATUS_FIELDS(U, I, B) U(req) U(id)
#define FR_STATUS_ASK_FIELDS(U, I, B) U(tag)

/* Said after a HELLO without ids, by one whose log is empty (join.c); answered once, then the connection ends. table: members.h. */
#define FR_MEMBERS_ASK_FIELDS(U, I, B) B(name)
#define FR_MEMBERS_TOLD_FIELDS(U, I, B) U(cluster_id) B(table)
/* The answer to the HELLO of a member that was removed; it stops. */
#define FR_REMOVED_FIELDS(U, I, B) U(cluster_id) U(member_id)

/* struct raft_msg of raftd/raft.h, field by field; kind is its type, entry_count ENTRY frames follow. */
#define FR_RAFT_FIELDS(U, I, B) \
    U(kind) U(from) U(to) U(term) U(index) U(log_term) U(commit) U(hint) U(read_id) U(reject) U(transfer) U(entry_count)
#define FR_ENTRY_FIELDS(U, I, B) U(index) U(term) U(kind) B(data)

/* tag: the sender's own, echoed in the answer. term: refused by a leader of any other term, so that what was sent to an
 * old leader can never be agreed on after a new one's first entry. kind: enum entry_kind. A FORWARD that entered the log
 * is not answered: its RESULT comes from the sender's own stored. */
#define FR_FORWARD_FIELDS(U, I, B) U(tag) U(term) U(kind) B(data)
#define FR_READ_INDEX_FIELDS(U, I, B) U(tag)
#define FR_READ_INDEX_SAID_FIELDS(U, I, B) U(tag) U(index) U(err)
#define FR_ASK_FIELDS(U, I, B) U(tag) B(command)
#define FR_ASKED_FIELDS(U, I, B) U(tag) U(err) B(text) B(body)
#define FR_FORWARD_REFUSED_FIELDS(U, I, B) U(tag) U(err)
/* Two entries, the last one applied and the newest at a fixed distance, each with the hash then; hash 0: unknown. */
#define FR_HASH_FIELDS(U, I, B) U(index) U(hash) U(point) U(point_hash)
/* at_us: the sender's clock, echoed. */
#define FR_PING_FIELDS(U, I, B) U(at_us)
#define FR_PONG_FIELDS(U, I, B) U(at_us)

/* id: of the transfer, random, never 0; the same in all its frames. */
#define FR_SNAP_SAVE_FIELDS(U, I, B) U(id)
#define FR_SNAP_SAVED_FIELDS(U, I, B) U(id) U(err) U(index)
/* index, log_term: last entry in it. members: the membership, as members.h encodes it. vote_from: for a receiver that asked
 * with `forgot`: once this index is committed there it may vote again; else 0. */
#define FR_SNAP_OFFER_FIELDS(U, I, B) U(id) U(term) U(index) U(log_term) U(vote_from) B(members)
#define FR_SNAP_LOAD_FIELDS(U, I, B) U(id) U(index)
/* from: the part wanted next, in order; until: send none from this number on. again: parts were lost, go back to from. */
#define FR_SNAP_MORE_FIELDS(U, I, B) U(id) U(from) U(until) U(again)
/* part: 0 ... chain: CRC32C over the bytes of all parts up to and with this one, begun with the id's low half. last: none
 * follows. bytes: pairs, each key length (4) value length (4) key value, big endian. */
#define FR_SNAP_PART_FIELDS(U, I, B) U(id) U(part) U(last) U(chain) B(bytes)
#define FR_SNAP_LOADED_FIELDS(U, I, B) U(id) U(err) U(index)
#define FR_SNAP_SAID_FIELDS(U, I, B) U(id) U(err)
/* above: one whose index is at least this. forgot: the log that acknowledged entries is gone (leader: count none of them). */
#define FR_SNAP_ASK_FIELDS(U, I, B) U(above) U(forgot)
#define FR_SNAP_DROP_FIELDS(U, I, B) U(id)

enum member_op { MEMBER_ADD = 1, MEMBER_ADD_LEARNER, MEMBER_PROMOTE, MEMBER_REMOVE, MEMBER_UPDATE };

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
