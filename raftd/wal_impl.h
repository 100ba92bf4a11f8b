/* wal_impl - struct wal, shared by wal.c, wal_lay.c, wal_read.c and wal_recover.c, and by nobody else. */
#ifndef RAFTD_WAL_IMPL_H
#define RAFTD_WAL_IMPL_H

#include "raftd/disk.h"
#include "raftd/wal.h"
#include "raftd/wal_format.h"
#include "raftd/wal_index.h"
#include "raftd/wal_thread.h"

/* Payloads below it are copied beside their headers: one longer write beats many short vectors. */
#define WAL_COPY_BYTES_MAX 4096
/* Aimed size of one batch: bounds how long a sync takes and what one buffer holds. */
#define WAL_BATCH_BYTES_MAX ((size_t)8 << 20)

struct wal_segment {
    uint64_t number;
    uint64_t first; /* the entry that came next when it began: entries of segments before it are smaller, or dead */
    uint64_t size;
    int fd;
};

enum wal_op_kind { WAL_OP_ENTRY, WAL_OP_HARD, WAL_OP_TRUNCATE, WAL_OP_DROP, WAL_OP_RESET, WAL_OP_END };

/* One thing gathered. */
struct wal_op {
    enum wal_op_kind kind;
    uint32_t members_len; /* DROP, RESET */
    union {
        struct entry *entry; /* ENTRY: a reference */
        struct {
            uint64_t term, vote, seq;
        } hard;
        uint64_t from; /* TRUNCATE */
        struct {
            uint64_t below, prev_term, at;
            uint64_t cut;     /* RESET: the first entry that goes; 0: there is none */
            uint8_t *members; /* owned */
        } drop; /* DROP, RESET */
        struct {
            uint64_t ticket, commit;
        } end;
    };
};

/* What the log says when all batches up to some point are read: the contents of a segment's head. */
struct wal_laid {
    uint64_t term, vote, seq;
    uint64_t first, prev_term, last;
    struct buf members;
    uint64_t members_at;
    uint64_t commit;
};

/* A piece of a batch: staged bytes, or a payload written from where it is. */
struct wal_piece {
    const uint8_t *ref; /* NULL: staged */
    size_t offset, len;
};

struct wal {
    char *dir;
    int dirfd;
    uint64_t segment_bytes;
    bool no_fsync, threadless;
    const struct disk *disk;
    void (*notify)(void *arg);
    void *notify_arg;

    uint64_t cluster_id, member_id;
    struct wal_segment *segments; /* dense numbers, oldest first; the last one is active */
    size_t segment_count, segment_cap;

    /* As gathered: what questions are answered from. */
    struct wal_index index; /* index.first is first_index */
    uint64_t prev_term;     /* of entry first_index - 1 */
    struct wal_op *ops;
    size_t op_head, op_count, op_cap; /* ops[op_head .. op_head + op_count) */
    size_t op_submitted;              /* of these, up to the last END; <= op_count */
    uint64_t ticket_last, ticket_durable;
    struct entry **pending; /* references: entries not yet durable, contiguous up to last_index */
    size_t pending_head, pending_count, pending_cap;

    /* As laid out in batches, at most one of which is still on its way. */
    struct wal_laid laid;
    uint64_t batch;  /* number of the last batch laid out */
    uint32_t chain;  /* after it */
    uint64_t offset; /* behind it, in the active segment */

    /* The one on its way. */
    bool busy;
    struct wal_job job;
    uint64_t job_ticket;
    struct buf stage;
    struct wal_piece *pieces;
    size_t piece_count, piece_cap;
    struct entry **job_entries;
    size_t job_entry_count, job_entry_cap;

    struct wal_writer *writer;
    struct buf read_buf;
    uint64_t batches; /* written since the start */
};

/* wal.c */
struct wal *wal_alloc(const struct wal_conf *conf);
void wal_release(struct wal *w); /* no thread runs */
void wal_start_threads(struct wal *w);
/* wal_lay.c: lays out what was submitted, as much as one batch holds, and starts the write. Nothing: does nothing. */
void wal_job_start(struct wal *w);
struct wal_segment *wal_segment_add(struct wal *w, uint64_t number, uint64_t first, uint64_t size, int fd);

#endif
