/* restore - the way in: a snapshot file, of this suite or of etcd (3.0 and later), becomes the store of a new member. And looking at such a
 * file. Both without a running daemon: `stored restore FILE` and `stored inspect FILE` (main.c). */
#ifndef STORED_RESTORE_H
#define STORED_RESTORE_H

#include "common/buf.h"

/* A snapshot file in memory (mapped, not read). */
struct backup_file {
    struct slice all;    /* its bytes */
    struct slice body;   /* the bolt file in it */
    struct slice digest; /* behind that; empty: it has none (a file from a data directory) */
};

/* 0, E_NOT_FOUND, E_IO with the reason in why. Nothing is checked yet. */
int backup_file_open(const char *path, struct backup_file *f, struct buf *why);
/* Is the digest there, and right? E_DAMAGED with the reason in why. */
int backup_file_check(const struct backup_file *f, struct buf *why);
void backup_file_close(struct backup_file *f);

/* What `etcdctl snapshot status` tells of a file. */
struct backup_status {
    uint32_t hash; /* CRC32C over the names of buckets and their rows */
    int64_t rev;
    uint64_t rows; /* "total keys" */
    uint64_t bytes;
};
int backup_file_status(const struct backup_file *f, struct backup_status *status, struct buf *why);

struct restored {
    int64_t rev, compact_rev;
    uint64_t records, leases, users, roles;
};
/* Makes a store of the body in store_dir, where none is. Nothing is applied in it yet: it belongs to whatever cluster comes first. Alarms are
 * left behind, for they are of members that are not there. 0; E_DAMAGED,
 * E_MALFORMED, E_VERSION, E_IO with the reason in why, and nothing left behind. */
int restore_store(const struct backup_file *f, const char *store_dir, struct restored *done, struct buf *why);

#endif
