/* members - the table of the cluster's members with their attributes, as of one entry of the log.
 * Changed by committed ENTRY_CONF entries only; written into the log's MEMBERS record, so that membership has one
 * source of truth. */
#ifndef RAFTD_MEMBERS_H
#define RAFTD_MEMBERS_H

#include "common/base.h"
#include "common/buf.h"
#include "raftd/raft.h"

struct member {
    uint64_t id;
    bool is_learner;
    char *name;      /* "" : not started yet */
    char *peer_urls; /* comma lists */
    char *client_urls;
};

/* Ids of members that were removed are remembered, so that none comes back: beyond this many the oldest is forgotten. */
#define MEMBERS_REMOVED_MAX 4096

struct members {
    struct member list[RAFT_MEMBERS_MAX]; /* in order of id */
    size_t count;
    uint64_t *removed; /* in order of their removal */
    size_t removed_count;
};

void members_fini(struct members *m);
struct member *members_find(const struct members *m, uint64_t id);
bool members_was_removed(const struct members *m, uint64_t id);
size_t members_voters(const struct members *m);
/* 0, E_MEMBER_EXIST, E_MEMBER_NOT_FOUND (also for an addition of a removed id) or E_FULL; change.c and the core have checked
 * whether the change is allowed now. */
int members_apply(struct members *m, const struct raft_conf_change *c);

void members_encode(const struct members *m, struct buf *out);
int members_decode(struct slice bytes, struct members *m); /* into an empty table; E_MALFORMED, E_TRAILING, ... */
size_t members_raft(const struct members *m, struct raft_member *out); /* RAFT_MEMBERS_MAX places */
void members_copy(const struct members *from, struct members *to); /* into an empty table */

#endif
