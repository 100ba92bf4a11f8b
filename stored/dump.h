/* dump - a whole store as bytes: what a snapshot for another member is made of, and a store made from it.
 *
 *   dump   = pair*          pairs ascend by key
 *   pair   = key length(4) value length(4) key value          big endian
 *
 * Everything in LevelDB goes but what belongs to this member or this run: identity, remembered results, durable markers
 * and undo values, index checkpoints. A dump is cut into parts anywhere between two pairs. */
#ifndef STORED_DUMP_H
#define STORED_DUMP_H

#include "stored/mvcc.h"

/* --- out [any thread, one at a time] ----------------------------------------------------------------------- */
struct dump;
/* A consistent view; apply and reads go on beside it. *index: the entry that it ends with. 0, E_DAMAGED, E_IO. */
int dump_open(struct mvcc *m, struct dump **dump, uint64_t *index);
/* Appends pairs, about bytes_max of them and at least one. *more: false with the last. 0, E_DAMAGED, E_IO (logged). */
int dump_part(struct dump *d, size_t bytes_max, struct buf *out, bool *more);
/* Where the next part begins; and going back to such a place. */
struct slice dump_place(const struct dump *d);
void dump_go(struct dump *d, struct slice place);
void dump_close(struct dump *d); /* before mvcc_close; NULL is fine */

/* --- in [any thread, one at a time] ------------------------------------------------------------------------ */
struct fill;
/* A new LevelDB in dir, which is made and was not there. 0, E_IO with the reason in why. */
int fill_open(struct fill **fill, const char *dir, struct buf *why);
/* 0; E_MALFORMED: not pairs, or not behind those before: nothing of it was written. */
int fill_part(struct fill *f, struct slice bytes);
/* Syncs, reads all of it again, writes its index down, closes; the store can be opened by mvcc_open then, quickly. E_DAMAGED: it is not a store as of
 * index. Frees f in any case. */
int fill_end(struct fill *f, uint64_t index, struct buf *why);
void fill_free(struct fill *f); /* gives up; NULL is fine. What is in dir is the caller's to remove. */

#endif
