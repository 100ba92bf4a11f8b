/* disk - see disk.h: the real one. Each function is one call of the kernel. */
#include "raftd/disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int real_open_dir(const char *path)
{
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int real_open(int dir, const char *name, int flags)
{
    return openat(dir, name, flags | O_CLOEXEC, 0600);
}

static void real_close(int fd)
{
    close(fd);
}

static ssize_t real_pread(int fd, void *to, size_t size, off_t offset)
{
    return pread(fd, to, size, offset);
}

static ssize_t real_pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    return pwritev(fd, iov, count, offset);
}

static int real_fdatasync(int fd)
{
    return fdatasync(fd);
}

static int real_fsync(int fd)
{
    return fsync(fd);
}

static int real_size(int fd, uint64_t *size)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return -1;
    *size = (uint64_t)st.st_size;
    return 0;
}

static int real_truncate(int fd, uint64_t size)
{
    return ftruncate(fd, (off_t)size);
}

static int real_allocate(int fd, uint64_t size)
{
    return posix_fallocate(fd, 0, (off_t)size);
}

static bool real_room(int fd, uint64_t size, uint64_t keep)
{
    struct statvfs fs;
    struct stat st;

    if (fstat(fd, &st) != 0 || fstatvfs(fd, &fs) != 0 || (uint64_t)st.st_blocks * 512 >= size)
        return true;
    return (uint64_t)fs.f_bavail * fs.f_frsize >= size + keep;
}

static void real_forget(int fd)
{
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
}

static int real_rename(int dir, const char *from, const char *to)
{
    return renameat(dir, from, dir, to);
}

static int real_unlink(int dir, const char *name)
{
    return unlinkat(dir, name, 0);
}

static bool real_exists(int dir, const char *name)
{
    return faccessat(dir, name, F_OK, 0) == 0;
}

static int real_list(const char *path, void (*cb)(void *arg, const char *name), void *arg)
{
    DIR *d = opendir(path);

    if (!d)
        return -1;
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        cb(arg, e->d_name);
    closedir(d);
    return 0;
}

const struct disk disk_real = {
    .open_dir = real_open_dir,
    .open = real_open,
    .close = real_close,
    .pread = real_pread,
    .pwritev = real_pwritev,
    .fdatasync = real_fdatasync,
    .fsync = real_fsync,
    .sync_dir = real_fsync,
    .size = real_size,
    .truncate = real_truncate,
    .allocate = real_allocate,
    .room = real_room,
    .forget = real_forget,
    .rename = real_rename,
    .unlink = real_unlink,
    .exists = real_exists,
    .list = real_list,
};
