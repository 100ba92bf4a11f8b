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

struct members {
    struct member list[RAFT_MEMBERS_MAX]; /* in order of id */
    size_t count;
};

void members_fini(struct members *m);
struct member *members_find(const struct members *m, uint64_t id);
/* 0, E_MEMBER_EXIST, E_MEMBER_NOT_FOUND or E_FULL; the core has checked whether the change is allowed now. */
int members_apply(struct members *m, const struct raft_conf_change *c);

void members_encode(const struct members *m, struct buf *out);
int members_decode(struct slice bytes, struct members *m); /* into an empty table; E_MALFORMED, E_TRAILING, ... */
size_t members_raft(const struct members *m, struct raft_member *out); /* RAFT_MEMBERS_MAX places */

#endif
