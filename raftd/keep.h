/* keep - three small files beside the log, for the days on which the log alone does not do.
 *
 *   SELF       who we are, term and vote, the members: written again at each change. If the log is damaged, this is what
 *              keeps the member from voting twice and tells whom to ask.
 *   REPAIR     the log was damaged and set aside; we acknowledged entries that we no longer have. Removed when we have them
 *              again.
 *   SNAPSHOT   stored is about to become, or has become, this snapshot; the log has not followed yet.
 *
 * Each is replaced as a whole and carries its checksum. A one-member cluster has none of them. */
#ifndef RAFTD_KEEP_H
#define RAFTD_KEEP_H

#include "common/base.h"
#include "common/buf.h"

struct keep_self {
    uint64_t cluster_id, member_id;
    uint64_t term, vote, hard_seq;
    struct buf members; /* as members.h encodes them; owned */
};

struct keep_repair {
    bool moved;         /* the new log is in place */
    uint64_t vote_from; /* raft_start.vote_from; UINT64_MAX: not told yet */
};

struct keep_snapshot {
    uint64_t index, term;
    struct buf members; /* owned */
};

/* Writing and removing is durable on return; fatal if it fails. Reading: 0; E_NOT_FOUND; E_DAMAGED. */
void keep_self_write(const char *dir, const struct keep_self *k);
int keep_self_read(const char *dir, struct keep_self *k);
void keep_repair_write(const char *dir, const struct keep_repair *k);
int keep_repair_read(const char *dir, struct keep_repair *k);
void keep_repair_remove(const char *dir);
void keep_snapshot_write(const char *dir, const struct keep_snapshot *k);
int keep_snapshot_read(const char *dir, struct keep_snapshot *k);
void keep_snapshot_remove(const char *dir);

/* Moves all segments of the log in dir into dir/damaged-N (N: seconds since 1970). */
void keep_set_log_aside(const char *dir);

#endif
