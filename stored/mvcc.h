/* mvcc - the keyspace: revisions of keys on LevelDB, an ordered counted index in memory, ranges, transactions.
 *
 * Threads: one writer (apply, on the loop's thread) calls what is marked [apply]; readers on any thread call what is
 * marked [any]. The index is guarded by a read-write lock inside; apply holds it for one command at a time; a
 * reader holds it only while it walks a bounded slice of the index.
 *
 *   record      'R' main(8, big endian) sub(4, big endian) ['t'] -> protobuf KeyValue as it goes to clients; a tombstone's has only key
 *               and mod_revision
 *   example     put a: rev 2 (create 2, version 1); put a: rev 3 (version 2); del a: rev 4 (tombstone); put a: rev 5 (create 5,
 *               version 1). compact 4 keeps the tombstone *at* 4 (a watcher from 4 must see it) and drops 2 and 3;
 *               compact 5 drops 4. Source: spec/semantics.md §2, §9.
 *
 * A batch is what one message of APPLY frames brings: mvcc_batch_begin, commands, mvcc_batch_end: one LevelDB WriteBatch
 * that also holds the applied index and its dense marker, no sync. Readers on other threads see a command's effect
 * when the command has ended (records of the open batch are served from memory until the batch is written). */
#ifndef STORED_MVCC_H
#define STORED_MVCC_H

#include "common/base.h"
#include "common/buf.h"
#include "proto/api.h"

struct mvcc;
struct leases; /* stored/lease.h */

struct mvcc_conf {
    const char *dir; /* LevelDB's directory: DATA-DIR/store/db */
    size_t cache_bytes;
    struct leases *leases; /* told of attachments; borrowed */
    const char *boot_id;   /* NULL: the kernel's; tests simulate a reboot with it */
    uint64_t checkpoint_revs_min; /* revisions that make a checkpoint worth while; 0: the default */
};

/* One change, told to `on_event` while its command runs [apply]; slices live until the callback returns. prev is filled only
 * if want_prev says so (reading it may cost a disk read). */
struct mvcc_event {
    int64_t main;
    int32_t sub;
    bool is_delete;
    struct slice key;
    struct slice kv;   /* KeyValue bytes */
    struct slice prev; /* KeyValue bytes before; empty: none, or not wanted */
};
struct mvcc_hooks {
    bool (*want_prev)(void *arg, struct slice key);
    void (*on_event)(void *arg, const struct mvcc_event *ev);
    void *arg;
};

/* Opens or creates. Loads the index: newest complete checkpoint plus the records after it. Damage is an error whose text
 * (file, and offset where known) is appended to why: E_DAMAGED, E_LOCKED, E_IO, E_VERSION. Never repairs silently.
 * Calls lease_attach for each live key that has a lease (leases were loaded before through mvcc_meta_each). */
int mvcc_open(struct mvcc **m, const struct mvcc_conf *conf, struct buf *why);
void mvcc_close(struct mvcc *m); /* NULL is fine */
void mvcc_set_hooks(struct mvcc *m, const struct mvcc_hooks *hooks);

/* Header facts for responses, from raftd [apply]. */
void mvcc_set_identity(struct mvcc *m, uint64_t cluster_id, uint64_t member_id, uint64_t term);
/* Appends a ResponseHeader as field 1 of a response. rev < 0: the current revision. [any] */
void mvcc_add_header(struct mvcc *m, struct buf *out, int64_t rev);

int64_t mvcc_rev(const struct mvcc *m);          /* current revision, >= 1 [any] */
int64_t mvcc_compact_rev(const struct mvcc *m);  /* -1: never compacted [any] */
uint64_t mvcc_applied(const struct mvcc *m);     /* raft index in the last ended batch [any] */

/* --- apply: commands ----------------------------------------------------------------------- [apply] */
void mvcc_batch_begin(struct mvcc *m);
/* index: last raft index of the batch. A failed write is fatal (memory and disk would disagree). */
void mvcc_batch_end(struct mvcc *m, uint64_t index);
/* Raw keys of other modules in the same batch (leases, result memory, alarms). prefix: one byte, not 'R', 'i', 'm'. */
void mvcc_meta_put(struct mvcc *m, char prefix, struct slice key, struct slice value);
void mvcc_meta_delete(struct mvcc *m, char prefix, struct slice key);
/* All written pairs of a prefix in key order (not the open batch's). cb returns 0 to go on; else its value is returned. */
int mvcc_meta_each(struct mvcc *m, char prefix, int (*cb)(void *arg, struct slice key, struct slice value), void *arg);

/* What else an entry changes, for the hash that members compare (chain.h); records and compactions are added by themselves. */
void mvcc_chain_add(struct mvcc *m, char kind, uint64_t one, uint64_t two);
void mvcc_chain_link(struct mvcc *m, uint64_t index); /* the entry at index was applied; before its batch ends */
/* The hash at mvcc_applied; 0: unknown. To points are appended those of fixed entries above `above` (8 bytes each). */
uint64_t mvcc_chain(const struct mvcc *m, uint64_t above, struct buf *points);

/* Each appends the API's response message (protobuf, header included) to out and returns 0, or an error and leaves out
 * and the store unchanged. Requests were checked with api_check_*. */
int mvcc_put(struct mvcc *m, const struct api_put *rq, struct buf *out);
int mvcc_delete(struct mvcc *m, const struct api_delete *rq, struct buf *out);
/* Also E_TOO_BIG: it was carried out, but what its ranges read is more than TXN_ANSWER_BYTES_MAX and cannot be told. */
int mvcc_txn(struct mvcc *m, const struct api_txn *rq, struct buf *out);
/* All keys of a revoked lease, sorted, in one revision; no keys: no revision. Keys as lease_each_key gives them.
 * Detaches nothing in leases: the caller drops the lease itself afterwards. */
void mvcc_delete_keys(struct mvcc *m, const struct slice *keys, size_t count);
/* Checks and sets the compacted revision (persisted in the batch); from here on reads below it fail. Pruning the index and
 * deleting records is left to mvcc_compact_step. out: CompactionResponse. */
int mvcc_compact(struct mvcc *m, int64_t rev, struct buf *out);

/* --- reads ---------------------------------------------------------------------------------- [any] */
/* A read-only transaction, on one consistent state. */
int mvcc_txn_read(struct mvcc *m, const struct api_txn *rq, struct buf *out);

/* A range as a job that gives its answer in parts: the interval is resolved against the index once (short read-locked
 * slices at one pinned revision), the total size is known at once, and records are fetched as parts are asked for. Holds a
 * LevelDB snapshot while it has more than one part, so compaction does not disturb it. */
struct range_job;
/* stream: parts are whole RangeStreamResponse messages, sized by §4's rule with part_bytes as the target. 0, E_COMPACTED,
 * E_FUTURE_REV, E_STREAM_SORT, E_STREAM_FILTER. */
int range_open(struct mvcc *m, const struct api_range *rq, bool stream, struct range_job **job);
size_t range_total(const struct range_job *job); /* bytes of the whole RangeResponse; 0 for streams */
/* Appends the next part (about part_bytes, at least one record). *more: false with the last one. 0, or E_IO/E_DAMAGED
 * (logged with the file). For streams exactly one message is appended. */
int range_next(struct range_job *job, size_t part_bytes, struct buf *out, bool *more);
void range_close(struct range_job *job);

/* Past events of an interval, from revision `from` up, whole revisions only, at most revs_max revisions scanned and about
 * bytes_max bytes. cb gets each event; *next: the revision to go on from (everything below was given). prev records are
 * read if want_prev. 0, E_COMPACTED (from below the compacted revision), E_IO. */
int mvcc_history(struct mvcc *m, const struct api_interval *in, int64_t from, int64_t to, bool want_prev, size_t revs_max,
                 size_t bytes_max, void (*cb)(void *arg, const struct mvcc_event *ev), void *arg, int64_t *next);

/* CRC32C by §15's rule at rev (0: current). Slow: worker thread. */
int mvcc_hash(struct mvcc *m, int64_t rev, uint32_t *hash, int64_t *hash_rev, int64_t *compact_rev);

/* --- upkeep ---------------------------------------------------------------------------------- [any, one at a time each] */
/* Deletes records below the compacted revision, and drops them from the index: about batch_limit revisions per call, all of
 * one key at once. true while there is more. The
 * target is persisted, so it goes on after a restart. durable_index: only compactions applied at or below it are worked on
 * (a store that is rolled back to its durable point must still have the records of that point). */
bool mvcc_compact_step(struct mvcc *m, size_t batch_limit, uint64_t durable_index);
int64_t mvcc_compacted_physically(const struct mvcc *m); /* records below it are gone; -1: none */
/* Makes everything applied up to the returned index durable: syncs LevelDB's log files, writes the SYNCED file (index, revision,
 * boot id). Runs beside apply, on a worker thread; a failed sync is fatal. */
uint64_t mvcc_sync(struct mvcc *m);
uint64_t mvcc_durable(const struct mvcc *m);
/* Writes an index checkpoint if enough has changed since the last one. Slow: worker thread; bounded read-locked slices. */
void mvcc_checkpoint(struct mvcc *m);
/* LevelDB's full-range compaction: worker thread; never stops reads or writes. */
void mvcc_defragment(struct mvcc *m);

struct mvcc_stats {
    int64_t rev, compact_rev;
    uint64_t keys;            /* live */
    uint64_t revisions;       /* records not yet dropped from the index, tombstones included */
    uint64_t disk_bytes;      /* LevelDB's files */
    uint64_t disk_used_bytes; /* estimate of live bytes */
    uint64_t index_bytes, cache_bytes, cache_hits, cache_misses;
    uint64_t puts, deletes, ranges, txns;
    uint64_t put_bytes;    /* of the records that were put */
    uint64_t pruned;       /* records that compactions took */
    uint64_t compactions_bytes;
};
void mvcc_get_stats(struct mvcc *m, struct mvcc_stats *out); /* [any], cheap enough for every STATUS */

#endif
