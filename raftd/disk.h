/* disk - the file system as the log sees it: a table of functions in the words of POSIX, so that the simulator can put
 * a disk of its own in its place that loses, tears and misplaces what was not synced (tests/sim/sim_disk.c).
 * Input: wal*.c. Functions return what the call of their name returns, and set errno; names are relative to `dir`. */
#ifndef RAFTD_DISK_H
#define RAFTD_DISK_H

#include <sys/types.h>
#include <sys/uio.h>

#include "common/base.h"

struct disk {
    int (*open_dir)(const char *path);
    /* flags as of open(2); a new file has mode 0600. */
    int (*open)(int dir, const char *name, int flags);
    void (*close)(int fd); /* of a file or a folder */
    ssize_t (*pread)(int fd, void *to, size_t size, off_t offset);
    ssize_t (*pwritev)(int fd, const struct iovec *iov, int count, off_t offset);
    int (*fdatasync)(int fd);
    int (*fsync)(int fd);
    int (*sync_dir)(int dir);
    int (*size)(int fd, uint64_t *size);
    int (*truncate)(int fd, uint64_t size);
    int (*allocate)(int fd, uint64_t size); /* 0 or an errno, as posix_fallocate; errno stays */
    /* May the file grow to size, with `keep` bytes of the file system left free? True where it does not tell. */
    bool (*room)(int fd, uint64_t size, uint64_t keep);
    void (*forget)(int fd); /* what is cached and clean, so that reads come from the disk */
    int (*rename)(int dir, const char *from, const char *to);
    int (*unlink)(int dir, const char *name);
    bool (*exists)(int dir, const char *name);
    /* Each name of the folder, in no order; -1 if it cannot be read. */
    int (*list)(const char *path, void (*cb)(void *arg, const char *name), void *arg);
};

extern const struct disk disk_real;

#endif
