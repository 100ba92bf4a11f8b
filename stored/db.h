/* db - LevelDB in our words; db.c is the only file that knows it, db_check.c the only one that knows its files.
 * Atomic batches, point reads, iterators, snapshots, range compaction, and what durability needs: syncing LevelDB's
 * log files from outside while it goes on writing, and looking at how much of a log is intact. Any thread may call anything here;
 * one batch or iterator is used by one thread at a time. Errors are logged with the directory, once, by who gets them. */
#ifndef STORED_DB_H
#define STORED_DB_H

#include "common/base.h"
#include "common/buf.h"

struct db;
struct db_batch;
struct db_iter;
struct db_snapshot;

/* Opens or creates. lenient: LevelDB may skip what is damaged in its own logs (only after a power loss, when the caller can
 * prove with markers what was lost). 0, E_LOCKED, E_DAMAGED, E_IO; the reason is appended to why. */
int db_open(struct db **db, const char *dir, bool lenient, struct buf *why);
void db_close(struct db *db); /* NULL is fine */
/* Has any read of this process, of any store, met damage? (Also by iterators and in the background: any thread.) */
bool db_saw_damage(void);
void db_forget_damage(void); /* that store is not used any more */
const char *db_dir(const struct db *db);
/* cb is called once, on any thread, before a write ends the process because LevelDB has met damage while it rewrote its tables:
 * the next start would open the store, and end the same way. dir: as for db_open. For the whole process. */
void db_on_damage(void (*cb)(void *arg, const char *dir), void *arg);

struct db_batch *db_batch_new(void);
void db_batch_free(struct db_batch *b);
void db_batch_clear(struct db_batch *b);
void db_batch_put(struct db_batch *b, struct slice key, struct slice value);
void db_batch_delete(struct db_batch *b, struct slice key);
size_t db_batch_bytes(const struct db_batch *b); /* about */
size_t db_batch_count(const struct db_batch *b);

/* Writes and clears the batch. A failure is fatal: memory and disk would disagree. */
void db_write(struct db *db, struct db_batch *b, bool sync);

/* Appends the value to out. 0, E_NOT_FOUND, E_DAMAGED, E_IO (logged). snap NULL: the newest state. */
int db_get(struct db *db, const struct db_snapshot *snap, struct slice key, struct buf *out);

struct db_snapshot *db_snapshot_new(struct db *db);
void db_snapshot_free(struct db *db, struct db_snapshot *s); /* NULL is fine */

/* An iterator sees the state of its birth (or of snap). bulk: does not displace LevelDB's block cache. */
struct db_iter *db_iter_new(struct db *db, const struct db_snapshot *snap, bool bulk);
void db_iter_free(struct db_iter *it);
void db_iter_seek(struct db_iter *it, struct slice key);
void db_iter_next(struct db_iter *it);
/* True while on a pair; key and value live until the next move. */
bool db_iter_get(struct db_iter *it, struct slice *key, struct slice *value);
/* After db_iter_get said false: 0 at the end, E_DAMAGED or E_IO (logged). */
int db_iter_status(struct db_iter *it);

void db_compact_all(struct db *db);
uint64_t db_disk_bytes(struct db *db); /* sum of the files' sizes; looked up at most twice a second */

/* Syncs what was written before the call: every log file and MANIFEST that LevelDB has at this moment, then the directory. A
 * log that vanishes meanwhile was flushed into tables, which LevelDB syncs itself. For each such file on_log is told how many bytes were
 * surely synced. A failure is fatal: the kernel drops the dirty page, so a second try would lie. */
void db_sync(struct db *db, void (*on_log)(void *arg, const char *name, uint64_t size), void *arg);

bool db_name_is_log(const char *name); /* a log or a MANIFEST, which has a log's format */
/* Checks the first `size` bytes of a log or MANIFEST: 0, E_NOT_FOUND (no such file), E_DAMAGED (offset in *at), E_IO. */
int db_log_check(const char *dir, const char *name, uint64_t size, uint64_t *at);
/* Appends which files have bytes that are not what was written, and where. Reads them all: for when the store is refused. */
void db_find_damage(const char *dir, struct buf *why);

#endif
