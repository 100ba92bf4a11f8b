/* snap_int - what snap.c (transfers) and snap_install.c (log and core follow stored) share. */
#ifndef RAFTD_SNAP_INT_H
#define RAFTD_SNAP_INT_H

#include "raftd/keep.h"
#include "raftd/raftd.h"
#include "raftd/snap.h"

enum snap_state { SNAP_IDLE, SNAP_SAVING, SNAP_SENDING, SNAP_LOADING };

struct snap_out {
    enum snap_state state; /* IDLE, SAVING, SENDING */
    uint64_t id, to;
    uint64_t index, term; /* of the last entry in it; known when SENDING */
    bool forgot;
    uint64_t vote_from;
    uint64_t begun_ms, heard_ms; /* of the member */
    /* Bandwidth: what was sent is paid for at pace_us; credit that comes before is given to stored then. */
    uint64_t pace_us;
    bool more_waits;
    struct fr_snap_more more;
};

struct snap_in {
    enum snap_state state; /* IDLE, LOADING */
    uint64_t id, from;
    uint64_t index, term;
    struct buf members;
    uint64_t from_part, until; /* what stored has room for, as it said last */
    bool kept;                 /* the last part came, SNAPSHOT is on disk */
    uint64_t begun_ms, heard_ms, again_ms;
};

struct snap {
    char *dir;
    struct snap_out out;
    struct snap_in in;
    uint64_t need[RAFT_MEMBERS_MAX];
    size_t need_count;

    /* Where stored stands. */
    bool stored_up;
    bool handing;    /* it gets entries */
    bool ahead;      /* of the log: not before our commit index is there */
    bool store_lost; /* behind the log's start: not before it is a snapshot */
    uint64_t stored_applied, stored_durable;

    bool repairing;
    struct keep_repair repair;
    uint64_t ask_ms;
    size_t ask_pos;
    bool stepped; /* the core got an event since the last snap_run */
    struct snap_stats stats;
    struct snap_with with[RAFT_MEMBERS_MAX]; /* those met last, if there were more */
    size_t with_count;
};

/* snap.c */
void snap_in_end(struct raftd *d, int err);
void snap_out_abort(struct raftd *d);

/* snap_install.c */
/* stored has become the snapshot, or has more than it. 0; E_COMPACTED: the log begins behind it. */
int snap_install(struct raftd *d, uint64_t index, uint64_t term, struct slice members);
bool snap_is_handing(const struct raftd *d);
void snap_hand_try(struct raftd *d);
void snap_vote_from(struct raftd *d, uint64_t index);
void snap_repair_check(struct raftd *d);

#endif
