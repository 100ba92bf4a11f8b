/* snap - snapshots and repair, as raftd sees them: it relays between its stored and other members (peer.c, stream SNAPS),
 * and makes the log follow what stored has become. The bytes and their window are stored's business (stored/snap.h).
 *
 *   out   the core asks (a follower is behind the log), or a member does (SNAP_ASK)
 *         idle --SNAP_SAVE--> saving --SNAP_SAVED, SNAP_OFFER--> sending --SNAP_SAID, silence--> idle
 *   in    idle --SNAP_OFFER, SNAP_LOAD--> loading --SNAP_LOADED: the log follows, SNAP_SAID--> idle
 *
 * One of each at a time. Parts are relayed as they come and never kept, so credit is end to end; whatever is lost on
 * the way is asked for again by the receiver, once a second. While `in` lasts our core is a follower like any other.
 *
 * What stored tells in its HELLO decides whether it is handed entries:
 *   first - 1 <= applied <= last   yes
 *   applied > last                 the log was lost or a crash came between store and log: when our commit index is there
 *   applied < first - 1            the store was lost: never; a snapshot is asked for. (Alone: refused, as ever.)
 *
 * Of a log that was lost (keep.h: REPAIR): the leader is asked for a snapshot with `forgot`. It stops counting what we
 * acknowledged, and tells its last index; before that index is committed here we do not vote (raft_start.vote_from).
 */
#ifndef RAFTD_SNAP_H
#define RAFTD_SNAP_H

#include "common/metrics.h"
#include "proto/frames.h"

struct raftd;
struct snap;
struct keep_repair;

/* dir: of the log, copied. repair: NULL, or what the log's loss left to be done. */
void snap_start(struct raftd *d, const char *dir, const struct keep_repair *repair);
void snap_fini(struct raftd *d);

void snap_need(struct raftd *d, uint64_t member); /* the core: it is behind the log */
int snap_stored_frame(struct raftd *d, const struct frame *f);
int snap_peer_frame(struct raftd *d, uint64_t member, const struct frame *f);
int snap_stored_up(struct raftd *d, uint64_t applied, uint64_t durable); /* HELLO; 0, or it is refused */
void snap_stored_down(struct raftd *d);
int snap_applied(struct raftd *d, const struct fr_applied *f); /* APPLIED */
bool snap_is_repairing(const struct raftd *d);
bool snap_store_serves(const struct raftd *d); /* stored is here, and is handed entries */
uint64_t snap_votes_from(const struct raftd *d); /* raft_start.vote_from */

bool snap_run(struct raftd *d, uint64_t now_ms); /* after a turn; true: the core has a ready */
uint64_t snap_deadline(const struct raftd *d);

struct snap_stats {
    uint64_t sent, sent_failed, received, received_failed, parts;
};
void snap_stats(const struct raftd *d, struct snap_stats *s);

/* The same with each member, for etcd's names. */
struct snap_with {
    uint64_t member;
    uint64_t sent, sent_failed, received, received_failed;
    struct histogram send, receive; /* how long those that succeeded took */
};
size_t snap_with_all(const struct raftd *d, const struct snap_with **list);
uint64_t snap_sends_to(const struct raftd *d);        /* a member, now; RAFT_NONE: none */
uint64_t snap_receives_from(const struct raftd *d);

#endif
