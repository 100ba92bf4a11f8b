/* wal - the durable raft log of one member: entries, term and vote, membership at its first entry.
 *
 * Written by turn.c (through out_persist) once per turn, read once at start and then by the core for entries that
 * left its memory. Format: wal_format.h. The loop's thread gathers and lays out; one thread of ours writes and syncs,
 * one batch at a time, while the next one gathers; another one makes segments ahead of need (wal_thread.c).
 *
 *      gathering --wal_submit, thread idle--> on its way --written and synced--> done(ticket)
 *
 * Holds at all times:
 *   first_index - 1 <= written <= last_index     entries first_index..last_index are contiguous
 *   batches reach the disk in the order of wal_submit; a ticket is done when all before it is durable
 *   a failed write, sync or rename ends the process: nothing is retried, nothing acknowledged after it
 * All functions belong to the loop's thread. */
#ifndef RAFTD_WAL_H
#define RAFTD_WAL_H

#include "common/base.h"
#include "common/buf.h"
#include "raftd/entry.h"

struct disk;
struct wal;
struct histogram;

struct wal_conf {
    const char *dir;        /* exists; copied */
    uint64_t segment_bytes; /* multiple of 4096 */
    bool no_fsync;
    const struct disk *disk; /* NULL: the real one */
    bool threadless;         /* nothing is written but in wal_work and wal_flush: for the simulator */
    /* Called on the writer's thread when a batch is durable: wake the loop, which calls wal_poll. May be NULL. */
    void (*notify)(void *arg);
    void *arg;
};

/* What a log is told at its birth, and what was found in an old one. */
struct wal_found {
    uint64_t cluster_id, member_id;
    uint64_t term, vote, hard_seq;
    uint64_t first_index, prev_term; /* 1 and 0 in a new log */
    uint64_t last_index, last_term;
    uint64_t commit;      /* highest commit index that a batch knew of, within [first_index - 1, last_index] */
    uint64_t members_at;  /* `members` is the membership after this entry */
    struct slice members; /* borrowed from the wal until its next wal_drop */
    uint64_t cut_bytes;   /* of a torn batch at the tail, zeroed */
    size_t segment_count;
};

/* Is there a log in dir (of the real disk)? */
bool wal_exists(const char *dir);
/* Makes a new log; fatal() if that fails. found: ids, term 0, members and members_at. */
struct wal *wal_create(const struct wal_conf *conf, const struct wal_found *found);
/* Reads the log in dir. On failure NULL, and why says file, offset, what, and which entry. */
struct wal *wal_open(const struct wal_conf *conf, struct wal_found *found, struct buf *why);
/* Waits for what is on its way, then closes. */
void wal_close(struct wal *w);

/* --- gathering; in the order of the calls --- */
void wal_hard(struct wal *w, uint64_t term, uint64_t vote, uint64_t seq);
void wal_truncate(struct wal *w, uint64_t from); /* first_index <= from <= last_index + 1 */
/* Takes a reference of each. Indexes follow last_index. */
void wal_append(struct wal *w, struct entry *const *entries, size_t count);
/* Entries below `below` may go; members: the membership after entry at, below - 1 <= at <= last_index. Segments that
 * hold nothing else are removed once this is durable; it is worth no sync of its own and may ride with the next submit.
 */
void wal_drop(struct wal *w, uint64_t below, struct slice members, uint64_t at);

/* A snapshot took the place of the whole log: no entry is left, the next one is index + 1. term: of entry index;
 * members: the membership as of it. One record batch holds all of it, so a crash leaves the old log or the new one. */
void wal_reset(struct wal *w, uint64_t index, uint64_t term, struct slice members);

/* Ends the gathering; returns its ticket. commit: raft's commit index, a hint for the next start. Starts the write
 * if none is on its way. Nothing gathered: returns the last ticket. */
uint64_t wal_submit(struct wal *w, uint64_t commit);
/* Takes note of finished batches and starts the next. Returns the highest ticket that is durable. */
uint64_t wal_poll(struct wal *w);
/* Threadless: the next step of what the threads would do. A batch takes two, its write and its sync. False: none. */
bool wal_work(struct wal *w);
bool wal_is_idle(const struct wal *w); /* nothing gathered, nothing on its way (as of the last poll) */
/* Closes without a flush, as a crash would (threadless only). */
void wal_abandon(struct wal *w);
/* Blocks until all that was submitted is durable (orderly end, tests). */
void wal_flush(struct wal *w);

/* --- reading: struct raft_storage's functions, arg is the wal --- */
bool wal_term(void *arg, uint64_t index, uint64_t *term);
int wal_entries(void *arg, uint64_t from, uint64_t to, size_t bytes_max, struct entry **out);
/* The first entry of the kind at or after `from`; 0 if none. No I/O. */
uint64_t wal_find_kind(const struct wal *w, uint64_t from, uint32_t kind);

uint64_t wal_first_index(const struct wal *w);
uint64_t wal_last_index(const struct wal *w);

/* The disk is full: the next segment could not be made. Proposals are to be refused; what was accepted before, and
 * term and vote, still have the rest of this segment. */
bool wal_no_space(const struct wal *w);

struct wal_stats {
    const struct histogram *sync_us;  /* one fdatasync */
    const struct histogram *write_us; /* one pwritev */
    uint64_t bytes;                   /* written as batches */
    uint64_t batches;
    uint64_t entries;     /* in the log now */
    uint64_t segments;    /* files in the log now */
    uint64_t index_bytes; /* memory of the index */
};
void wal_stats(const struct wal *w, struct wal_stats *s);

#endif
