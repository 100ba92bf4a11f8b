/* rows - the store's content as the rows of etcd's buckets, in the order in which a bolt file wants them: what a backup is made of
 * (backup.c) and what the Hash rpc runs over. One consistent view; apply and reads go on beside it.
 *
 *   alarm            AlarmMember -> ""
 *   auth             "authEnabled" -> 0 or 1 (1 byte), "authRevision" -> number(8)
 *   authRoles        name -> authpb.Role
 *   authUsers        name -> authpb.User. A password hash that is not bcrypt's means nothing to etcd: such a user must be given
 *                    a new one there
 *   cluster          empty: a new cluster agrees on its version again, so older versions of etcd take the file too
 *   key              main(8) '_' sub(8) ['t'] -> KeyValue; a tombstone's has only the key
 *   lease            id(8) -> leasepb.Lease {1 ID, 2 TTL}
 *   members, members_removed  empty: a cluster that begins from the file has members of its own, and not every version of etcd would
 *                    take ours out
 *   meta             confState (JSON), consistent_index(8), finishedCompactRev and scheduledCompactRev (17-byte revisions), term(8).
 *                    No storageVersion: what has confState and a term is taken as 3.5's layout, which 3.5 and later read
 *
 * Numbers are big endian. */
#ifndef STORED_ROWS_H
#define STORED_ROWS_H

#include "stored/mvcc.h"

#define ROWS_KEY_BYTES_MAX 18 /* of a revision */

/* What is not in the store. */
struct rows_facts {
    uint64_t member_id;
    uint64_t term;
    struct slice members; /* MemberListResponse, of which field 2 is read, for confState; borrowed while opening */
};

struct row {
    bool is_bucket; /* a bucket begins; key is its name */
    struct slice key, value; /* until the next call */
};

struct rows;
/* 0, E_DAMAGED, E_IO, E_MALFORMED (members). [any thread, one at a time] */
int rows_open(struct mvcc *m, const struct rows_facts *facts, struct rows **rows);
void rows_rewind(struct rows *r); /* the same view from the beginning */
int rows_next(struct rows *r, struct row *row); /* 1: a row, 0: the end, E_DAMAGED, E_IO (logged) */
void rows_close(struct rows *r); /* before mvcc_close; NULL is fine */

int64_t rows_rev(const struct rows *r);    /* the view's revision */
uint64_t rows_index(const struct rows *r); /* and the entry that it ends with */

/* CRC32C over all rows that are the same on members at rest: not those of meta, members and cluster. Slow. *rev: of the view. */
int rows_hash(struct mvcc *m, uint32_t *hash, int64_t *rev);

#endif
