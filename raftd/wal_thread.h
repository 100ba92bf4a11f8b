/* wal_thread - the two threads of the log: the writer, which makes one job at a time durable, and the preparer, which
 * makes segment files ahead of need. Owned by wal.c; files are named here.
 *
 *   NUMBER.wal       a segment of the log
 *   spare            whole, zeroed, synced: the next segment
 *   reserve          allocated: becomes the spare when the disk is full
 *   *.tmp            not finished; removed at start */
#ifndef RAFTD_WAL_THREAD_H
#define RAFTD_WAL_THREAD_H

#include <sys/uio.h>

#include "common/base.h"
#include "common/buf.h"
#include "raftd/disk.h"

struct wal_writer;
struct histogram;

/* One batch on its way to the disk. Filled by wal.c, read by the writer; untouched in between. */
struct wal_job {
    bool roll; /* first make segment `number` the active one */
    uint64_t number;
    struct buf head;   /* its head batch */
    uint64_t size;     /* bytes of the segment's file, at least */
    struct iovec *iov; /* what to write at `offset` */
    size_t iov_count, iov_cap;
    uint64_t offset;
    size_t bytes;
    int fd; /* of the active segment; set by the writer on a roll */
};

struct wal_writer_conf {
    const struct disk *disk;
    bool threadless; /* no threads: wal_writer_work and _wait do what they would */
    int dirfd;
    uint64_t segment_bytes;
    bool no_fsync;
    void (*notify)(void *arg);
    void *arg;
};

struct wal_writer *wal_writer_new(const struct wal_writer_conf *conf);
void wal_writer_free(struct wal_writer *wr); /* threads: only when no job is on its way */
void wal_writer_start(struct wal_writer *wr, struct wal_job *job);
bool wal_writer_done(struct wal_writer *wr); /* the started job is durable */
/* Threadless: the next step (a batch has two: write, sync), then the preparer's wants. False: nothing to do. */
bool wal_writer_work(struct wal_writer *wr);
void wal_writer_wait(struct wal_writer *wr); /* until it is */
/* Segment `number` is not needed any more: reuse or remove its file, in order of the calls. */
void wal_writer_retire(struct wal_writer *wr, uint64_t number);
bool wal_writer_no_space(const struct wal_writer *wr);
const struct histogram *wal_writer_sync_us(const struct wal_writer *wr);
const struct histogram *wal_writer_write_us(const struct wal_writer *wr);
uint64_t wal_writer_bytes(const struct wal_writer *wr);

/* Shared with wal_recover.c. */
#define WAL_NAME_BYTES 24
void wal_segment_name(char name[WAL_NAME_BYTES], uint64_t number);
/* Both fatal() on failure. */
void wal_pwrite_zeros(const struct disk *disk, int fd, uint64_t from, uint64_t to, const char *name);
void wal_sync_fd(const struct disk *disk, int fd, bool no_fsync, const char *name);

#endif
