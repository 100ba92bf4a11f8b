/* backup_file - a snapshot file on disk: a bolt file, and in most cases 32 bytes behind it, its SHA-256. See restore.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/err.h"
#include "common/sha256.h"
#include "stored/bolt_read.h"
#include "stored/restore.h"
#include "stored/rev.h"

/* Bolt files are made of pages, and pages of sectors: a size that is not a multiple has a digest in it. */
#define SECTOR_BYTES 512

static int map(int fd, const char *path, struct slice *all, struct buf *why)
{
    struct stat st;

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) {
        buf_printf(why, "%s: not a file with something in it", path);
        return E_IO;
    }
    void *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED) {
        buf_printf(why, "%s: %s", path, strerror(errno));
        return E_IO;
    }
    *all = slice_of(at, (size_t)st.st_size);
    return 0;
}

int backup_file_open(const char *path, struct backup_file *f, struct buf *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    *f = (struct backup_file){0};
    if (fd < 0) {
        buf_printf(why, "%s: %s", path, strerror(errno));
        return errno == ENOENT ? E_NOT_FOUND : E_IO;
    }
    int err = map(fd, path, &f->all, why);
    close(fd);
    if (err)
        return err;
    f->body = f->all;
    if (f->all.len % SECTOR_BYTES == SHA256_BYTES) {
        f->body.len -= SHA256_BYTES;
        f->digest = slice_of(f->all.data + f->body.len, SHA256_BYTES);
    }
    return 0;
}

int backup_file_check(const struct backup_file *f, struct buf *why)
{
    uint8_t digest[SHA256_BYTES];
    struct sha256 *sha;

    if (!f->digest.len) {
        buf_add_str(why, "the file has no digest behind it (--skip-hash-check takes it nevertheless)");
        return E_DAMAGED;
    }
    sha = sha256_new();
    sha256_add(sha, f->body.data, f->body.len);
    sha256_end(sha, digest);
    sha256_free(sha);
    if (memcmp(digest, f->digest.data, SHA256_BYTES) == 0)
        return 0;
    buf_add_str(why, "the file is not what its digest says");
    return E_DAMAGED;
}

void backup_file_close(struct backup_file *f)
{
    if (f->all.len)
        munmap((void *)(uintptr_t)f->all.data, f->all.len);
    *f = (struct backup_file){0};
}

/* --- status --------------------------------------------------------------------------------------------------- */

struct sum {
    struct bolt_file *bolt;
    struct backup_status *status;
    bool is_key; /* the bucket of revisions */
    struct buf names; /* length(1) name, of all buckets */
};

static int sum_row(void *arg, struct slice key, struct slice value)
{
    struct sum *s = arg;

    s->status->hash = crc32c(s->status->hash, key.data, key.len);
    s->status->hash = crc32c(s->status->hash, value.data, value.len);
    s->status->rows++;
    if (s->is_key && key.len >= 8)
        s->status->rev = (int64_t)rev_load64(key.data);
    return 0;
}

static int sum_name(void *arg, struct slice name, struct slice value)
{
    struct sum *s = arg;

    UNUSED(value);
    if (name.len > UINT8_MAX)
        return E_DAMAGED;
    buf_add_byte(&s->names, (uint8_t)name.len);
    buf_add_slice(&s->names, name);
    return 0;
}

int backup_file_status(const struct backup_file *f, struct backup_status *status, struct buf *why)
{
    struct sum s = {.status = status};
    int err = bolt_open(f->body, &s.bolt, why);

    *status = (struct backup_status){.bytes = f->body.len};
    if (err)
        return err;
    err = bolt_each_bucket(s.bolt, sum_name, &s, why);
    for (size_t at = 0; !err && at < s.names.len; at += 1 + s.names.data[at]) {
        struct slice name = buf_part(&s.names, at + 1, s.names.data[at]);

        status->hash = crc32c(status->hash, name.data, name.len);
        s.is_key = slice_eq(name, slice_str("key"));
        err = bolt_each(s.bolt, name, sum_row, &s, why);
    }
    bolt_close(s.bolt);
    buf_fini(&s.names);
    return err;
}
