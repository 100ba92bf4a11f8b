/* join - what one that has no log yet learns from members that run: asked once, before the log is made. */
#ifndef RAFTD_JOIN_H
#define RAFTD_JOIN_H

#include "common/conf.h"
#include "raftd/boot.h"

/* initial-cluster-state=existing: who we are, from the members' own table. boot holds what initial-cluster says and becomes
 * what is true: cluster id, our member id, no members (they come by the log). E_INVALID or E_UNREACHABLE with etcd's words in why. */
int join_identity(const struct conf *conf, struct boot *boot, struct buf *why);
/* initial-cluster-state=new: has this member of this cluster run before, with a log that is lost? Then it may have voted, and
 * must not start as if it had not. Asks whoever answers quickly. E_MEMBER_EXIST with a line in why. */
int join_check_new(const struct conf *conf, const struct boot *boot, struct buf *why);

/* join_match's part, for tests: initial-cluster against the members' table. 0 and our id; E_INVALID and etcd's words. */
int join_match(const struct members *wanted, uint64_t self, const struct members *theirs, uint64_t *id, struct buf *why);

#endif
