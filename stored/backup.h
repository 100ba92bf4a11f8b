/* backup - the Snapshot rpc's stream: a bolt file (bolt.h) of the store's rows (rows.h), and the SHA-256 of it.
 * Made in steps on worker threads: first the steps of the plan, which give no bytes, then those that write. A view of the store is
 * held from the beginning to the end; nothing else is but the pages under construction. */
#ifndef STORED_BACKUP_H
#define STORED_BACKUP_H

#include "stored/rows.h"

struct backup;

int backup_open(struct mvcc *m, const struct rows_facts *facts, struct backup **backup); /* as rows_open */
/* Appends the next part, exactly part_bytes but for the last one; or nothing, while it is being planned. *more: false with the
 * last one. 0, E_DAMAGED, E_IO (logged). [any thread, one at a time] */
int backup_step(struct backup *b, size_t part_bytes, struct buf *out, bool *more);
uint64_t backup_bytes(const struct backup *b); /* of the whole stream; 0 while it is being planned */
void backup_close(struct backup *b);           /* before mvcc_close; NULL is fine */

#endif
