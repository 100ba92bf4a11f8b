/* file - writing so that it is there after a crash. Errors are negative codes of err.h with errno kept. */
#ifndef COMMON_FILE_H
#define COMMON_FILE_H

#include "common/base.h"
#include "common/buf.h"

int file_write_all(int fd, const void *data, size_t len);                 /* retries short writes and EINTR */
int file_pwrite_all(int fd, const void *data, size_t len, uint64_t off);
int file_read_all(const char *path, size_t size_max, struct buf *out);    /* E_TOO_BIG over size_max */
int file_sync_dir(const char *dir);                                        /* fsync of the directory */
/* Writes data to path.tmp, syncs it, renames it over path and syncs the directory. */
int file_replace(const char *path, const void *data, size_t len);
int file_mkdir_p(const char *dir, unsigned mode);
/* Takes an exclusive lock on path (created if missing), held until the process ends or *fd is closed.
 * E_LOCKED if somebody has it; then *holder is the pid written there, 0 if unknown. */
int file_lock(const char *path, int *fd, long *holder);

#endif
