/* raftd - one consensus daemon: what its files share. Prototypes are grouped by file. */
#ifndef RAFTD_RAFTD_H
#define RAFTD_RAFTD_H

#include "common/conf.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/metrics.h"
#include "proto/link.h"
#include "proto/names.h"
#include "raftd/compare.h"
#include "raftd/forward.h"
#include "raftd/members.h"
#include "raftd/peer.h"
#include "raftd/peer_msg.h"
#include "raftd/raft.h"
#include "raftd/turn.h"
#include "raftd/wal.h"

#define RAFTD_SLOTS (GATEWAY_SLOTS + 1) /* slot 0 is stored */

/* STATUS frames that wait for stored, and how long. Beyond: refused, the gateway then tells what it can. */
#define STATUS_WAIT_MAX 256
#define STATUS_WAIT_MS 2000
/* How much larger than a request its command may be: the envelope, with a user name. */
#define COMMAND_OVERHEAD_BYTES ((size_t)4096)
/* Entries kept in memory after they were applied; the rest is read from the log when asked for. */
#define RAFT_CACHE_BYTES (4 * MIB)
#define RAFT_APPEND_BYTES (1 * MIB)
#define RAFT_INFLIGHT_BYTES (8 * MIB)
/* Exit code of a member that was removed from its cluster: starting it again is of no use (systemd: RestartPreventExitStatus). */
#define EXIT_REMOVED 3
/* An orderly end takes no longer, whatever the peers do. */
#define STOP_MS_MAX 5000

struct status_wait {
    unsigned slot;
    uint64_t req, what;
    uint64_t until_ms;
};

/* slow.c: how long our own syncs take, as of the last look, and when our store served last. */
struct slow {
    uint64_t served_ms;
    uint64_t turn_ms, late_beats; /* the last turn; turns that came too late for a heartbeat */
    bool led;                     /* then */
    uint64_t look_ms; /* the next look */
    uint64_t counts[HISTOGRAM_BUCKETS_MAX + 1]; /* of the log's histogram then */
    uint64_t quiet_ms; /* no hand-over before */
    uint64_t handed_over;
};

/* What was last logged about the core. */
struct raftd_said {
    enum raft_role role;
    uint64_t term, leader;
};

struct raftd {
    struct conf conf;
    struct loop *loop;
    struct loop_timer *timer;
    struct loop_wake *wal_wake;
    struct wal *wal;
    struct raft *raft;
    struct turn *turn;
    struct link *links[RAFTD_SLOTS];
    struct peers *peers;
    struct peer_msg peer_msg; /* that is being received */
    struct forward forward;
    struct slow slow;
    struct compare compare;
    uint64_t hash_said_ms; /* to the leader, last */
    struct snap *snap; /* snapshots and repair: snap.h */
    struct {
        char *dir; /* of the log; NULL: nothing is kept */
        uint64_t term, vote, hard_seq;
        bool written;
    } self; /* self.c */

    uint64_t cluster_id, member_id;
    uint64_t instance;      /* random, of this run */
    struct members members; /* as of the committed entries */
    struct change *change;  /* requests to change it */
    bool publish_due;       /* our attributes in it may be old */
    bool publish_asked;     /* and a request to change them is under way */
    uint64_t publish_at_ms; /* not before */
    size_t voters_said;     /* as last warned about */
    bool peers_due;         /* peers_set is to be told at the end of the turn: after the answers */
    uint64_t removed_at_ms; /* we are no member any more, and end then; 0: we are one */
    bool tell[RAFTD_SLOTS]; /* this link is owed LEAD, or LEADER and MEMBERs */

    struct status_wait status[STATUS_WAIT_MAX];
    size_t status_count;

    struct raftd_said said;
    bool stopping;
    uint64_t stop_until_ms;
    uint64_t stop_index; /* last entry of the log when we were told to stop */
    uint64_t conf_rejected; /* committed changes that the table refused: always 0 */
    struct log_limit behind_limit;
};

/* in.c: every frame raftd receives */
extern const struct link_ops in_ops; /* arg: struct raftd */

/* out.c: every frame raftd sends, and what else turn.c wants done */
extern const struct turn_ops out_ops;                                         /* arg: struct raftd */
void out_tell(struct raftd *d);                                               /* pays what d->tell owes */
void out_tell_all(struct raftd *d);                                           /* owes it to every link */
void out_status(struct raftd *d, unsigned slot, uint64_t req, uint64_t what); /* now, or when stored is back */
void out_status_expire(struct raftd *d, uint64_t now_ms);
bool out_stored_is_up(const struct raftd *d);

/* membership.c: requests to change the members, their answers, and what the members mean to us */
void membership_start(struct raftd *d);
void membership_gateway_asks(struct raftd *d, unsigned slot, const struct fr_member_change *f);
void membership_gateway_moves(struct raftd *d, unsigned slot, const struct fr_move_leader *f);
int membership_peer_frame(struct raftd *d, uint64_t member, const struct frame *f); /* CHANGE_FORWARD, CHANGE_SAID, REMOVED */
void membership_refused(struct raftd *d, uint64_t tag, int err);                    /* by the core */
void membership_committed(struct raftd *d, const struct entry *e, int err);
void membership_changed(struct raftd *d);                  /* d->members is another table now */
void membership_removed(struct raftd *d, const char *how); /* we end soon, with EXIT_REMOVED */
bool membership_run(struct raftd *d);                      /* at the end of a turn; true: the core has a ready */
uint64_t membership_deadline(const struct raftd *d);

/* force.c: force-new-cluster; found is the opened log, and becomes what it is then */
void force_new_cluster(struct raftd *d, struct wal_found *found);

/* self.c: term, vote and members are kept a second time */
void self_hard(struct raftd *d, uint64_t term, uint64_t vote, uint64_t hard_seq);
void self_members(struct raftd *d);

/* slow.c: a leader whose disk is slow or whose store does not serve hands its leadership over */
void slow_check(struct raftd *d, uint64_t now_ms);

/* compared.c: the hash of the state against the leader's */
int compared_applied(struct raftd *d, const struct fr_applied *f); /* APPLIED */
void compared_say(struct raftd *d, struct buf *out);               /* appends a HASH, if it is time for one */
int compared_frame(struct raftd *d, uint64_t member, const struct fr_hash *f);

/* peering.c: raftd's end of peer.c */
void peering_start(struct raftd *d);
void peering_members(struct raftd *d); /* who they are now, uncommitted changes included */

/* facts.c: what raftd adds to /metrics */
void facts_render(const struct raftd *d, struct buf *out);

/* start.c: log and identity -> core */
void start_log(struct raftd *d, const char *dir); /* fatal if it cannot */
void start_core(struct raftd *d, const struct wal_found *found, uint64_t now_ms);

#endif
