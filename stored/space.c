/* space - the disk under the store: how full it is, and a reserve to go on with when somebody else has filled it.
 * From the tick of upkeep.c; asked by alarm.c. LevelDB must write to delete, to compact, and even to open; a failed write ends
 * the process. So the file DATA-DIR/store/reserve holds allocated blocks, and is removed when free bytes run out:
 * deletes and compaction go on in its place. It is made again when there is room.
 *
 *      free bytes   0 ... LOW ........ FULL = KEEP + one log segment ........ AMPLE = FULL * 3/2 ...
 *                   reserve given up   NOSPACE is raised                      NOSPACE ends, if the disk was its cause
 *
 * FULL leaves room for the segment that raftd may still make, which itself leaves KEEP to us. The gap up to AMPLE keeps the
 * alarm from going on and off. */
#include "stored/stored.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/names.h"

struct space {
    char *dir, *reserve; /* DATA-DIR/store, and the file in it */
    bool have_reserve;
    bool unsupported;   /* the filesystem cannot allocate ahead: said once */
    bool statvfs_failed; /* said once */
};

/* UINT64_MAX if the filesystem does not tell. */
static uint64_t free_bytes(struct space *sp)
{
    struct statvfs fs;

    if (statvfs(sp->dir, &fs) != 0) {
        if (!sp->statvfs_failed)
            log_warn("space: cannot ask for the free space of %s", sp->dir);
        sp->statvfs_failed = true;
        return UINT64_MAX;
    }
    return (uint64_t)fs.f_bavail * fs.f_frsize;
}

static uint64_t full_bytes(const struct stored *s)
{
    return DISK_KEEP_BYTES + s->conf->wal_segment_bytes;
}

static uint64_t ample_bytes(const struct stored *s)
{
    return full_bytes(s) * 3 / 2;
}

static void reserve_give_up(struct space *sp)
{
    if (unlink(sp->reserve) != 0 && errno != ENOENT) {
        log_warn("space: cannot remove %s", sp->reserve);
        return;
    }
    sp->have_reserve = false;
    log_warnx("space: the disk of %s is full: using the reserve of %zu MiB", sp->dir, (size_t)SPACE_RESERVE_BYTES / MIB);
}

/* Called with more free than it takes, so that trying never takes the last block from a write. */
static void reserve_make(struct space *sp)
{
    int fd = open(sp->reserve, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0) {
        log_debug("space: cannot make %s", sp->reserve);
        return;
    }
    if (fallocate(fd, 0, 0, SPACE_RESERVE_BYTES) == 0) {
        sp->have_reserve = true;
    } else {
        sp->unsupported = errno == EOPNOTSUPP || errno == ENOSYS;
        if (sp->unsupported)
            log_info("space: no reserve: the filesystem of %s cannot allocate blocks ahead of need", sp->dir);
        unlink(sp->reserve);
    }
    close(fd);
}

void space_init(struct stored *s)
{
    struct space *sp = xcalloc(1, sizeof *sp);
    struct stat st;

    s->space = sp;
    sp->dir = xasprintf("%s/%s", s->conf->data_dir, NAME_STORE_DIR);
    sp->reserve = xasprintf("%s/%s", sp->dir, NAME_RESERVE_FILE);
    sp->have_reserve = stat(sp->reserve, &st) == 0 && (uint64_t)st.st_blocks * 512 >= SPACE_RESERVE_BYTES;
    if (sp->have_reserve && free_bytes(sp) < SPACE_RESERVE_LOW_BYTES)
        reserve_give_up(sp);
}

void space_fini(struct stored *s)
{
    if (!s->space)
        return;
    free(s->space->dir);
    free(s->space->reserve);
    free(s->space);
    s->space = NULL;
}

void space_tick(struct stored *s)
{
    struct space *sp = s->space;
    uint64_t bytes = free_bytes(sp);

    if (sp->have_reserve && bytes < SPACE_RESERVE_LOW_BYTES)
        reserve_give_up(sp);
    else if (!sp->have_reserve && !sp->unsupported && bytes != UINT64_MAX && bytes >= ample_bytes(s) + SPACE_RESERVE_BYTES)
        reserve_make(sp);
}

enum space_state space_state(const struct stored *s)
{
    struct space *sp = s->space;
    uint64_t bytes = free_bytes(sp);

    if (bytes < full_bytes(s))
        return SPACE_FULL;
    return bytes >= ample_bytes(s) && (sp->have_reserve || sp->unsupported) ? SPACE_AMPLE : SPACE_TIGHT;
}

bool space_can_defragment(const struct stored *s)
{
    struct mvcc_stats stats;

    mvcc_get_stats(s->mvcc, &stats);
    return free_bytes(s->space) >= MIN(stats.disk_used_bytes, (uint64_t)SPACE_RESERVE_BYTES);
}
