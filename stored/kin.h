/* kin - what stored has to know when its store cannot be opened: whose it is, and whether there are others to get it
 * from. Kept in the file KIN beside LevelDB's directory, written when raftd says something new. */
#ifndef STORED_KIN_H
#define STORED_KIN_H

#include "common/base.h"

struct kin {
    uint64_t cluster_id, member_id;
    uint64_t members; /* of the cluster, us included */
};

void kin_write(const char *store_dir, const struct kin *k); /* fatal if it cannot */
bool kin_read(const char *store_dir, struct kin *k);        /* false: not there, or damaged */

/* A mark that the store cannot be trusted although it opens. */
void kin_suspect(const char *store_dir);
bool kin_is_suspect(const char *store_dir);
void kin_trust(const char *store_dir);

#endif
