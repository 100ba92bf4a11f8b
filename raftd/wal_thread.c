/* wal_thread - see wal_thread.h. The loop's thread hands over a job, sleeps in its poll, and is woken by notify.
 *
 * Why zeros are written and not only allocated: on ext4 and xfs the first write to an allocated block changes
 * the file's map, and each fdatasync would have to commit the journal too. Zeroing goes in pieces, each synced,
 * so that a sync of the log never queues behind 64 MiB of them.
 *
 * When the disk is full: the reserve becomes the spare, whose blocks it has already, and from then on the files go in a
 * circle: what is dropped from the log's front is its next segment. So deletes and compactions, which make room, still
 * get through. Only while there is no spare at half of a segment is no_space raised and are proposals refused by turn.c; what
 * still comes (entries accepted before, term, vote) goes to the rest of the segment. The preparer tries again every
 * second, spare first. It never takes the last DISK_KEEP_BYTES, which are stored's, not even for the moment of trying. */
#include "raftd/wal_thread.h"
#include "raftd/mutant.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"

#define SPARE_NAME "spare"
#define SPARE_TMP "spare.tmp"
#define RESERVE_NAME "reserve"
#define RESERVE_TMP "reserve.tmp"
#define ZERO_PIECE ((size_t)1 << 20)
#define NO_SPACE_RETRY_S 1
#define RETIRED_MAX 1024 /* segments waiting to be removed; the preparer is never that far behind */

struct wal_writer {
    struct wal_writer_conf conf;
    pthread_t writer, preparer;
    pthread_mutex_t lock;   /* guards all up to `no_space` */
    pthread_cond_t work;    /* to the writer: a job, or stop */
    pthread_cond_t prepare; /* to the preparer: something wanted, or stop */
    pthread_cond_t done;    /* from both */
    struct wal_job *job;    /* NULL: none */
    bool job_written;       /* threadless: what is left is its sync */
    bool job_done;
    bool stop;
    bool want_spare, have_spare, have_reserve;
    uint64_t retired[RETIRED_MAX];
    size_t retired_count;
    unsigned failed; /* tries to make a spare */
    bool no_space; /* atomic */

    struct histogram sync_us, write_us; /* written by the writer only */
    uint64_t bytes;
};

void wal_segment_name(char name[WAL_NAME_BYTES], uint64_t number)
{
    snprintf(name, WAL_NAME_BYTES, "%016" PRIx64 ".wal", number);
}

void wal_sync_fd(const struct disk *disk, int fd, bool no_fsync, const char *name)
{
    if (!no_fsync && disk->fdatasync(fd) != 0)
        fatal("wal: fdatasync of %s", name);
}

static void dir_sync(const struct wal_writer *wr)
{
    if (!wr->conf.no_fsync && wr->conf.disk->sync_dir(wr->conf.dirfd) != 0)
        fatal("wal: fsync of the directory");
}

/* 0 or errno. */
static int zeros_write(const struct disk *disk, int fd, uint64_t from, uint64_t to, bool sync)
{
    void *zeros = xcalloc(1, ZERO_PIECE);
    int err = 0;

    while (from < to && !err) {
        struct iovec iov = {zeros, (size_t)MIN(to - from, (uint64_t)ZERO_PIECE)};
        ssize_t n = disk->pwritev(fd, &iov, 1, (off_t)from);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            err = n < 0 ? errno : EIO;
        else
            from += (uint64_t)n;
        if (!err && sync && disk->fdatasync(fd) != 0)
            err = errno;
    }
    free(zeros);
    return err;
}

void wal_pwrite_zeros(const struct disk *disk, int fd, uint64_t from, uint64_t to, const char *name)
{
    errno = zeros_write(disk, fd, from, to, false);
    if (errno)
        fatal("wal: write of %s", name);
}

/* --- the preparer ------------------------------------------------------------------------------- */

static bool is_full(int err)
{
    return err == ENOSPC || err == EDQUOT || err == EFBIG;
}

/* Makes tmp a file of segment_bytes and gives it its name. False: no space. */
static bool file_make(struct wal_writer *wr, const char *tmp, const char *name, bool zeroed)
{
    const struct disk *disk = wr->conf.disk;
    int fd = disk->open(wr->conf.dirfd, tmp, O_RDWR | O_CREAT);
    int err;

    if (fd < 0) {
        if (is_full(errno))
            return false;
        fatal("wal: open of %s", tmp);
    }
    if (!disk->room(fd, wr->conf.segment_bytes, DISK_KEEP_BYTES)) {
        disk->unlink(wr->conf.dirfd, tmp);
        disk->close(fd);
        return false;
    }
    /* Allocation tells about a full disk before 64 MiB were written. Where it is not supported, writing tells. */
    err = disk->allocate(fd, wr->conf.segment_bytes);
    if (err == EOPNOTSUPP || err == EINVAL)
        err = zeros_write(disk, fd, 0, wr->conf.segment_bytes, false);
    if (!err && zeroed)
        err = zeros_write(disk, fd, 0, wr->conf.segment_bytes, !wr->conf.no_fsync);
    if (!err && disk->truncate(fd, wr->conf.segment_bytes) != 0)
        err = errno;
    if (is_full(err)) {
        disk->unlink(wr->conf.dirfd, tmp);
        disk->close(fd);
        return false;
    }
    errno = err;
    if (err || (!wr->conf.no_fsync && disk->fsync(fd) != 0) || disk->rename(wr->conf.dirfd, tmp, name) != 0)
        fatal("wal: making %s", name);
    disk->close(fd);
    dir_sync(wr);
    return true;
}

/* A retired segment becomes the raw material of the spare, which costs no new blocks; or it goes. */
static void segment_retire(struct wal_writer *wr, uint64_t number, bool reuse)
{
    const struct disk *disk = wr->conf.disk;
    char name[WAL_NAME_BYTES];

    wal_segment_name(name, number);
    if (reuse ? disk->rename(wr->conf.dirfd, name, SPARE_TMP) : disk->unlink(wr->conf.dirfd, name))
        fatal("wal: removal of %s", name);
    /* In order, and each one known to be gone before the next: what is left never has a gap. */
    dir_sync(wr);
    log_debug("wal: segment %" PRIx64 " %s", number, reuse ? "recycled" : "removed");
}

static void no_space_set(struct wal_writer *wr, bool full)
{
    if (__atomic_exchange_n(&wr->no_space, full, __ATOMIC_RELAXED) == full)
        return;
    if (full)
        log_warnx("wal: no space for the next segment: proposals are refused until there is");
    else
        log_info("wal: there is space again");
}

enum prepared { PREPARED_NOTHING, PREPARED_SOMETHING, PREPARED_DISK_FULL };

/* The reserve becomes the spare: its blocks are there already. */
static bool reserve_use(struct wal_writer *wr)
{
    if (wr->conf.disk->rename(wr->conf.dirfd, RESERVE_NAME, SPARE_TMP) != 0)
        fatal("wal: rename of %s", RESERVE_NAME);
    dir_sync(wr);
    log_warnx("wal: the disk is full: the reserved segment is the next one");
    return file_make(wr, SPARE_TMP, SPARE_NAME, true);
}

/* A spare that an earlier life left behind may have the head of a segment in it: zeroed again it is one, where blocks are
 * scarce; elsewhere a new one costs less than the zeros. */
static void spare_leftover(struct wal_writer *wr)
{
    const struct disk *disk = wr->conf.disk;
    int dirfd = wr->conf.dirfd;

    disk->unlink(dirfd, SPARE_TMP);
    if (!disk->exists(dirfd, SPARE_NAME))
        return;
    wr->want_spare = !disk->room(dirfd, wr->conf.segment_bytes, DISK_KEEP_BYTES);
    if (wr->want_spare ? disk->rename(dirfd, SPARE_NAME, SPARE_TMP) : disk->unlink(dirfd, SPARE_NAME))
        fatal("wal: removal of %s", SPARE_NAME);
}

/* Removes or reuses the oldest retired segment. Called with the lock, which it lets go meanwhile. */
static void prepare_retired(struct wal_writer *wr)
{
    uint64_t number = wr->retired[0];
    bool reuse = !wr->have_spare;

    memmove(wr->retired, wr->retired + 1, --wr->retired_count * sizeof(number));
    wr->want_spare |= reuse;
    pthread_mutex_unlock(&wr->lock);
    segment_retire(wr, number, reuse);
    pthread_mutex_lock(&wr->lock);
    pthread_cond_broadcast(&wr->done);
}

/* One thing that is wanted, in order of need. Called with the lock. full: the last attempt found no space. */
static enum prepared prepare_one(struct wal_writer *wr, bool full)
{
    if (wr->retired_count > 0) {
        prepare_retired(wr);
        return PREPARED_SOMETHING;
    }
    bool reserve = !wr->have_reserve, spare = wr->want_spare && !wr->have_spare;
    if (!reserve && !spare)
        return PREPARED_NOTHING;
    if (full)
        return PREPARED_DISK_FULL;
    pthread_mutex_unlock(&wr->lock);
    bool made = spare ? file_make(wr, SPARE_TMP, SPARE_NAME, true) : file_make(wr, RESERVE_TMP, RESERVE_NAME, false);
    bool use = spare && !made && !reserve;
    if (use)
        made = reserve_use(wr);
    pthread_mutex_lock(&wr->lock);
    if (spare) {
        wr->have_spare = made;
        wr->have_reserve = wr->have_reserve && !use;
        wr->failed += !made;
        no_space_set(wr, !made);
    } else {
        wr->have_reserve = made;
    }
    pthread_cond_broadcast(&wr->done);
    return made ? PREPARED_SOMETHING : PREPARED_DISK_FULL;
}

static void *preparer_run(void *arg)
{
    struct wal_writer *wr = arg;
    bool full = false;

    pthread_mutex_lock(&wr->lock);
    while (!wr->stop) {
        enum prepared did = prepare_one(wr, full);

        if (did == PREPARED_NOTHING) {
            full = false;
            pthread_cond_wait(&wr->prepare, &wr->lock);
        } else if (did == PREPARED_DISK_FULL && full) {
            /* A failed attempt: wait, unless a retired segment gives room earlier. */
            struct timespec until;

            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_sec += NO_SPACE_RETRY_S;
            full = false;
            pthread_cond_timedwait(&wr->prepare, &wr->lock, &until);
        } else {
            full = did == PREPARED_DISK_FULL;
        }
    }
    pthread_mutex_unlock(&wr->lock);
    return NULL;
}

/* --- the writer --------------------------------------------------------------------------------- */

/* Takes the spare, which the preparer makes of the reserve when the disk is full. */
static void spare_take(struct wal_writer *wr)
{
    pthread_mutex_lock(&wr->lock);
    wr->want_spare = true;
    pthread_cond_signal(&wr->prepare);
    /* A try that began before our signal may fail for what is gone by now; the next one counts. */
    for (unsigned failed = wr->failed; !wr->have_spare;) {
        if (wr->failed - failed >= 2)
            fatalx("wal: no space left on device, and the reserved segment is used up");
        if (wr->conf.threadless)
            prepare_one(wr, false);
        else
            pthread_cond_wait(&wr->done, &wr->lock);
    }
    wr->have_spare = wr->want_spare = false;
    pthread_cond_signal(&wr->prepare);
    pthread_mutex_unlock(&wr->lock);
}

static void all_written(struct wal_writer *wr, int fd, struct iovec *iov, size_t count, uint64_t offset)
{
    size_t pos = 0;

    while (pos < count) {
        ssize_t n = wr->conf.disk->pwritev(fd, iov + pos, (int)MIN(count - pos, (size_t)IOV_MAX), (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            fatal("wal: write of the log");
        counter_add(&wr->bytes, (uint64_t)n);
        offset += (uint64_t)n;
        while (pos < count && (size_t)n >= iov[pos].iov_len)
            n -= (ssize_t)iov[pos++].iov_len;
        if (n > 0) {
            iov[pos].iov_base = (uint8_t *)iov[pos].iov_base + n;
            iov[pos].iov_len -= (size_t)n;
        }
    }
}

/* The head batch is durable before the file gets its name: a segment with a bad head is damaged, never torn. */
static void segment_roll(struct wal_writer *wr, struct wal_job *job)
{
    char name[WAL_NAME_BYTES];
    const struct disk *disk = wr->conf.disk;
    struct iovec head = {job->head.data, job->head.len};

    spare_take(wr);
    int fd = disk->open(wr->conf.dirfd, SPARE_NAME, O_RDWR);
    if (fd < 0)
        fatal("wal: open of %s", SPARE_NAME);
    wal_segment_name(name, job->number);
    if (job->size > wr->conf.segment_bytes)
        wal_pwrite_zeros(disk, fd, wr->conf.segment_bytes, job->size, name);
    all_written(wr, fd, &head, 1, 0);
    wal_sync_fd(disk, fd, MUTATE(WAL_HEAD_UNSYNCED, wr->conf.no_fsync, true), name);
    if (disk->rename(wr->conf.dirfd, SPARE_NAME, name) != 0)
        fatal("wal: rename of %s to %s", SPARE_NAME, name);
    if (MUTATE(WAL_NO_DIR_SYNC, true, false))
        dir_sync(wr);
    job->fd = fd;
    log_debug("wal: segment %" PRIx64 " begins", job->number);
}

static void job_write(struct wal_writer *wr, struct wal_job *job)
{
    if (job->roll)
        segment_roll(wr, job);

    uint64_t start = clock_now_us();
    all_written(wr, job->fd, job->iov, job->iov_count, job->offset);
    histogram_observe_us(&wr->write_us, clock_now_us() - start);
}

static void job_sync(struct wal_writer *wr, struct wal_job *job)
{
    uint64_t start = clock_now_us();

    if (MUTATE(WAL_NO_SYNC, wr->conf.no_fsync, true))
        return;
    wal_sync_fd(wr->conf.disk, job->fd, false, "the log");
    histogram_observe_us(&wr->sync_us, clock_now_us() - start);
}

/* Called with the lock. */
static void job_end(struct wal_writer *wr, const struct wal_job *job)
{
    wr->job_done = true;
    if (job->offset + job->bytes > job->size / 2 && !wr->have_spare && !wr->want_spare) {
        wr->want_spare = true;
        pthread_cond_signal(&wr->prepare);
    }
    pthread_cond_broadcast(&wr->done);
}

static void *writer_run(void *arg)
{
    struct wal_writer *wr = arg;

    pthread_mutex_lock(&wr->lock);
    while (true) {
        if (wr->job && !wr->job_done) {
            struct wal_job *job = wr->job;

            pthread_mutex_unlock(&wr->lock);
            job_write(wr, job);
            job_sync(wr, job);
            pthread_mutex_lock(&wr->lock);
            job_end(wr, job);
            if (wr->conf.notify) {
                pthread_mutex_unlock(&wr->lock);
                wr->conf.notify(wr->conf.arg);
                pthread_mutex_lock(&wr->lock);
            }
        } else if (wr->stop) {
            break;
        } else {
            pthread_cond_wait(&wr->work, &wr->lock);
        }
    }
    pthread_mutex_unlock(&wr->lock);
    return NULL;
}

/* --- what wal.c calls --------------------------------------------------------------------------- */

struct wal_writer *wal_writer_new(const struct wal_writer_conf *conf)
{
    struct wal_writer *wr = xcalloc(1, sizeof(*wr));
    sigset_t all, before;

    wr->conf = *conf;
    /* etcd's buckets of etcd_disk_wal_fsync_duration_seconds. */
    histogram_init(&wr->sync_us, 1000, 14);
    histogram_init(&wr->write_us, 1000, 14);
    spare_leftover(wr);
    conf->disk->unlink(conf->dirfd, RESERVE_TMP);
    wr->have_reserve = conf->disk->exists(conf->dirfd, RESERVE_NAME);
    pthread_mutex_init(&wr->lock, NULL);
    pthread_cond_init(&wr->work, NULL);
    pthread_cond_init(&wr->prepare, NULL);
    pthread_cond_init(&wr->done, NULL);
    if (conf->threadless)
        return wr;
    /* Signals belong to the loop's thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&wr->writer, NULL, writer_run, wr) != 0 ||
        pthread_create(&wr->preparer, NULL, preparer_run, wr) != 0)
        fatalx("wal: cannot start a thread");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return wr;
}

void wal_writer_free(struct wal_writer *wr)
{
    if (!wr->conf.threadless) {
        pthread_mutex_lock(&wr->lock);
        must(!wr->job);
        wr->stop = true;
        pthread_cond_broadcast(&wr->work);
        pthread_cond_broadcast(&wr->prepare);
        pthread_mutex_unlock(&wr->lock);
        pthread_join(wr->writer, NULL);
        pthread_join(wr->preparer, NULL);
    }
    pthread_cond_destroy(&wr->work);
    pthread_cond_destroy(&wr->prepare);
    pthread_cond_destroy(&wr->done);
    pthread_mutex_destroy(&wr->lock);
    free(wr);
}

void wal_writer_start(struct wal_writer *wr, struct wal_job *job)
{
    pthread_mutex_lock(&wr->lock);
    must(!wr->job);
    wr->job = job;
    wr->job_written = wr->job_done = false;
    pthread_cond_signal(&wr->work);
    pthread_mutex_unlock(&wr->lock);
}

bool wal_writer_done(struct wal_writer *wr)
{
    pthread_mutex_lock(&wr->lock);
    bool done = wr->job && wr->job_done;
    if (done)
        wr->job = NULL;
    pthread_mutex_unlock(&wr->lock);
    return done;
}

bool wal_writer_work(struct wal_writer *wr)
{
    bool did = true;

    pthread_mutex_lock(&wr->lock);
    if (!wr->job || wr->job_done) {
        did = prepare_one(wr, false) == PREPARED_SOMETHING;
    } else if (!wr->job_written) {
        struct wal_job *job = wr->job;

        /* A roll may call for the preparer, which takes the lock. */
        pthread_mutex_unlock(&wr->lock);
        job_write(wr, job);
        pthread_mutex_lock(&wr->lock);
        wr->job_written = true;
    } else {
        job_sync(wr, wr->job);
        job_end(wr, wr->job);
    }
    pthread_mutex_unlock(&wr->lock);
    return did;
}

void wal_writer_wait(struct wal_writer *wr)
{
    while (wr->conf.threadless && wr->job && !wr->job_done)
        wal_writer_work(wr);
    pthread_mutex_lock(&wr->lock);
    while (wr->job && !wr->job_done)
        pthread_cond_wait(&wr->done, &wr->lock);
    pthread_mutex_unlock(&wr->lock);
}

void wal_writer_retire(struct wal_writer *wr, uint64_t number)
{
    pthread_mutex_lock(&wr->lock);
    while (wr->retired_count == RETIRED_MAX)
        pthread_cond_wait(&wr->done, &wr->lock);
    wr->retired[wr->retired_count++] = number;
    pthread_cond_signal(&wr->prepare);
    pthread_mutex_unlock(&wr->lock);
}

bool wal_writer_no_space(const struct wal_writer *wr)
{
    return __atomic_load_n(&wr->no_space, __ATOMIC_RELAXED);
}

const struct histogram *wal_writer_sync_us(const struct wal_writer *wr)
{
    return &wr->sync_us;
}

const struct histogram *wal_writer_write_us(const struct wal_writer *wr)
{
    return &wr->write_us;
}

uint64_t wal_writer_bytes(const struct wal_writer *wr)
{
    return counter_read(&wr->bytes);
}
