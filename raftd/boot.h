/* boot - who this member is: computed once from the configuration, kept in the log ever after.
 * Ids are etcd's (spec: semantics §16), so that the same initial-cluster and token give the same ids. */
#ifndef RAFTD_BOOT_H
#define RAFTD_BOOT_H

#include "common/conf.h"
#include "raftd/members.h"

struct boot {
    uint64_t cluster_id, member_id;
    struct members members; /* at bootstrap: names and peer URLs of initial-cluster */
};

/* From initial-cluster, initial-advertise-peer-urls, name and token. E_INVALID with one line in why: what is wrong and
 * what would be right. Fills boot (boot_fini) only on success. */
int boot_identity(const struct conf *conf, struct boot *boot, struct buf *why);
void boot_fini(struct boot *boot);

/* First 8 bytes of SHA-1 over the sorted URLs and the token, big endian. urls: comma list. */
uint64_t boot_member_id(const char *peer_urls, const char *token);
/* First 8 bytes of SHA-1 over the sorted member ids, 8 bytes each, big endian. */
uint64_t boot_cluster_id(const struct members *members);

#endif
