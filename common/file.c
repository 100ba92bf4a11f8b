/* file - writing so that it is there after a crash.
 * A rename is durable only when the directory is synced, a new file's bytes only when the file is: file_replace does
 * both in the order that leaves either the old or the new content, never a mixture. A failed sync is reported, never
 * tried again: the kernel may already have dropped the pages (callers end the process). */
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/mem.h"

#define READ_PIECE_BYTES ((size_t)16384)

static int err_of_errno(void)
{
    switch (errno) {
    case ENOSPC:
    case EDQUOT:
        return E_NO_SPACE_LEFT;
    case ENOENT:
        return E_NOT_FOUND;
    default:
        return E_IO;
    }
}

/* close and free without disturbing the errno that the caller wants to report. */
static void close_quietly(int fd)
{
    int saved_errno = errno;

    close(fd);
    errno = saved_errno;
}

static void free_quietly(char *text)
{
    int saved_errno = errno;

    free(text);
    errno = saved_errno;
}

int file_write_all(int fd, const void *data, size_t len)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_of_errno();
        p += n;
        len -= (size_t)n;
    }
    return OK;
}

int file_pwrite_all(int fd, const void *data, size_t len, uint64_t off)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_of_errno();
        p += n;
        len -= (size_t)n;
        off += (uint64_t)n;
    }
    return OK;
}

/* Appends what fd has, at most size_max bytes. */
static int read_rest(int fd, size_t size_max, struct buf *out)
{
    size_t total = 0;

    for (;;) {
        buf_reserve(out, READ_PIECE_BYTES);
        ssize_t n = read(fd, out->data + out->len, READ_PIECE_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_of_errno();
        if (n == 0)
            return OK;
        total += (size_t)n;
        if (total > size_max) {
            errno = EFBIG;
            return E_TOO_BIG;
        }
        out->len += (size_t)n;
    }
}

int file_read_all(const char *path, size_t size_max, struct buf *out)
{
    size_t len_before = out->len;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_of_errno();
    int err = read_rest(fd, size_max, out);
    close_quietly(fd);
    if (err != OK)
        out->len = len_before;
    return err;
}

int file_sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return err_of_errno();
    int err = fsync(fd) == 0 ? OK : err_of_errno();

    close_quietly(fd);
    return err;
}

/* The directory that path lies in. Given. */
static char *dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        return xstrdup(".");
    if (slash == path)
        return xstrdup("/");
    return slice_dup_str(slice_of(path, (size_t)(slash - path)));
}

static int write_new_file(const char *path, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_of_errno();
    int err = file_write_all(fd, data, len);
    if (err == OK && fsync(fd) != 0)
        err = err_of_errno();
    close_quietly(fd);
    return err;
}

int file_replace(const char *path, const void *data, size_t len)
{
    char *tmp = xasprintf("%s.tmp", path);
    char *dir = dir_of(path);
    int err = write_new_file(tmp, data, len);

    if (err == OK && rename(tmp, path) != 0)
        err = err_of_errno();
    if (err == OK) {
        err = file_sync_dir(dir);
    } else {
        int saved_errno = errno;
        unlink(tmp);
        errno = saved_errno;
    }
    free_quietly(dir);
    free_quietly(tmp);
    return err;
}

/* Creates one directory and makes its name durable. Fine when it is there already. */
static int mkdir_one(const char *dir, unsigned mode)
{
    struct stat st;

    if (mkdir(dir, (mode_t)mode) == 0) {
        char *parent = dir_of(dir);
        int err = file_sync_dir(parent);
        free_quietly(parent);
        /* A parent that we may write but not read cannot be synced; the directory itself is there. */
        return err == OK || errno == EACCES ? OK : err;
    }
    if (errno != EEXIST && errno != EROFS && errno != EACCES)
        return err_of_errno();
    int why = errno;
    if (stat(dir, &st) != 0) {
        errno = why;
        return err_of_errno();
    }
    if (!S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        return E_IO;
    }
    return OK;
}

int file_mkdir_p(const char *dir, unsigned mode)
{
    char *path = xstrdup(dir);
    size_t len = strlen(path);
    int err = OK;

    while (len > 1 && path[len - 1] == '/') /* "a/b/" is "a/b" */
        path[--len] = '\0';
    for (char *p = path + 1; err == OK && len > 0 && *p != '\0'; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        err = mkdir_one(path, 0755);
        *p = '/';
    }
    if (err == OK)
        err = mkdir_one(path, mode);
    free_quietly(path);
    return err;
}

/* The pid that the holder of a lock file wrote there, 0 if there is none. */
static long read_holder(int fd)
{
    char text[32];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    if (n <= 0)
        return 0;
    text[n] = '\0';
    long pid = strtol(text, NULL, 10);

    return pid > 0 ? pid : 0;
}

int file_lock(const char *path, int *fd, long *holder)
{
    int new_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (new_fd < 0)
        return err_of_errno();
    if (flock(new_fd, LOCK_EX | LOCK_NB) != 0) {
        int err = errno == EWOULDBLOCK ? E_LOCKED : err_of_errno();
        if (err == E_LOCKED && holder != NULL)
            *holder = read_holder(new_fd);
        close_quietly(new_fd);
        return err;
    }

    /* The pid is for people. The lock is the flock: it goes with the process, however that ends. */
    char text[32];
    int len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

    if (ftruncate(new_fd, 0) != 0 || pwrite(new_fd, text, (size_t)len, 0) != len) {
        int err = err_of_errno();
        close_quietly(new_fd);
        return err;
    }
    *fd = new_fd;
    return OK;
}
