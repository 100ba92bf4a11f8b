/* db_check - the bytes of LevelDB's files, looked at without LevelDB: are they what was written, and if not, which file is
 * damaged and where? LevelDB says "checksum mismatch" and no more. Read-only; from sync.c and mvcc.c at the start.
 *
 * log, MANIFEST  = block*                     a block is 32 KiB, the last may be shorter
 *   block        = record* trailer            trailer: fewer than 7 bytes left, ignored
 *   record       = crc(4, LE, masked CRC32C of type and data) length(2, LE) type(1) data
 *   A record of type 0 and length 0 is preallocated space and skips the rest of its block: nothing of ours is.
 * table (.ldb)   = block* footer              we write no compressed blocks
 *   block        = content type(1) crc(4, LE, masked CRC32C of content and type)
 *   footer       = handle of the metaindex, handle of the index, zeros up to 40 bytes, magic(8, LE)
 *   handle       = offset size                varints
 *   index        = entry* restart(4)* restart count(4);  entry = shared suffix_len value_len suffix value, value = handle */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/err.h"
#include "common/mem.h"
#include "stored/db.h"

#define LOG_BLOCK 32768
#define LOG_HEAD 7
#define TABLE_FOOTER 48
#define TABLE_MAGIC 0xdb4775248b80fb57u
#define BLOCK_TRAILER 5
#define BLOCK_BYTES_MAX ((size_t)1 << 30)

static uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t unmask(uint32_t masked)
{
    uint32_t rot = masked - 0xa282ead8u;
    return (rot >> 17) | (rot << 15);
}

bool db_name_is_log(const char *name)
{
    size_t len = strlen(name);
    return strncmp(name, "MANIFEST-", 9) == 0 || (len > 4 && strcmp(name + len - 4, ".log") == 0);
}

/* --- logs --------------------------------------------------------------------------------------- */

/* E_DAMAGED at *at, which is moved over the sound records of the block; a record that ends behind `len` is not judged. */
static int log_block_check(const uint8_t *block, size_t len, size_t *at)
{
    while (*at + LOG_HEAD <= len) {
        const uint8_t *p = block + *at;
        size_t size = (size_t)p[4] | (size_t)p[5] << 8;
        if (p[6] == 0 && size == 0) {
            return E_DAMAGED; /* zeros in synced bytes are a lost page */
        }
        if (*at + LOG_HEAD + size > LOG_BLOCK) {
            return E_DAMAGED;
        }
        if (*at + LOG_HEAD + size > len) {
            return 0;
        }
        if (crc32c(0, p + 6, 1 + size) != unmask(load32(p))) {
            return E_DAMAGED;
        }
        *at += LOG_HEAD + size;
    }
    return 0;
}

int db_log_check(const char *dir, const char *name, uint64_t size, uint64_t *at)
{
    char *path = xasprintf("%s/%s", dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    free(path);
    if (fd < 0) {
        return errno == ENOENT ? E_NOT_FOUND : E_IO;
    }
    uint8_t *block = xmalloc(LOG_BLOCK);
    int err = 0;
    for (uint64_t start = 0; start < size && err == 0; start += LOG_BLOCK) {
        size_t want = (size_t)MIN(size - start, (uint64_t)LOG_BLOCK);
        ssize_t got = pread(fd, block, want, (off_t)start);
        size_t in_block = 0;
        if (got < 0) {
            err = E_IO;
        } else {
            err = log_block_check(block, (size_t)got, &in_block);
            if (err == 0 && (size_t)got < want) {
                err = E_DAMAGED; /* shorter than what was synced */
                in_block = (size_t)got;
            }
        }
        *at = start + in_block;
    }
    free(block);
    close(fd);
    return err;
}

/* --- tables ------------------------------------------------------------------------------------- */

struct handle {
    uint64_t offset, size;
};

static bool take_varint(struct slice *in, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; shift < 64 && in->len > 0; shift += 7) {
        uint8_t byte = *in->data++;
        in->len--;
        *v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return true;
        }
    }
    return false;
}

static bool take_handle(struct slice *in, struct handle *h)
{
    return take_varint(in, &h->offset) && take_varint(in, &h->size);
}

/* The block's content; E_DAMAGED if it is not what its checksum says. */
static int block_read(int fd, uint64_t file_size, struct handle h, struct buf *out)
{
    buf_reset(out);
    if (h.size > BLOCK_BYTES_MAX || h.offset > file_size || h.size + BLOCK_TRAILER > file_size - h.offset) {
        return E_DAMAGED;
    }
    size_t want = (size_t)h.size + BLOCK_TRAILER;
    uint8_t *bytes = buf_extend(out, want);
    for (size_t got = 0; got < want;) {
        ssize_t n = pread(fd, bytes + got, want - got, (off_t)(h.offset + got));
        if (n <= 0) {
            return E_IO;
        }
        got += (size_t)n;
    }
    if (crc32c(0, bytes, (size_t)h.size + 1) != unmask(load32(bytes + h.size + 1))) {
        return E_DAMAGED;
    }
    out->len = (size_t)h.size;
    return 0;
}

/* Every block that the index names. */
static int blocks_check(int fd, uint64_t file_size, struct slice index, uint64_t *at)
{
    struct buf block = BUF_INIT;
    int err = index.len < 4 ? E_DAMAGED : 0;
    size_t restarts = err == 0 ? load32(index.data + index.len - 4) : 0;
    if (err != 0 || restarts > (index.len - 4) / 4) {
        return E_DAMAGED;
    }
    index.len -= 4 + 4 * restarts;
    while (index.len > 0 && err == 0) {
        uint64_t shared, suffix, value_len;
        struct handle h;
        if (!take_varint(&index, &shared) || !take_varint(&index, &suffix) || !take_varint(&index, &value_len) ||
            suffix > index.len || value_len > index.len - suffix) {
            err = E_DAMAGED;
            break;
        }
        struct slice value = {index.data + suffix, (size_t)value_len};
        index.data += suffix + value_len;
        index.len -= suffix + value_len;
        err = take_handle(&value, &h) ? block_read(fd, file_size, h, &block) : E_DAMAGED;
        if (err != 0) {
            *at = h.offset;
        }
    }
    buf_fini(&block);
    return err;
}

/* Offset of the first damage in *at. */
static int table_check(int fd, uint64_t *at)
{
    uint8_t footer[TABLE_FOOTER];
    struct stat st;
    struct handle meta, index;
    struct buf block = BUF_INIT;
    *at = 0;
    if (fstat(fd, &st) != 0) {
        return E_IO;
    }
    uint64_t size = (uint64_t)st.st_size;
    if (size < TABLE_FOOTER) {
        return E_DAMAGED;
    }
    *at = size - TABLE_FOOTER;
    if (pread(fd, footer, TABLE_FOOTER, (off_t)*at) != TABLE_FOOTER) {
        return E_IO;
    }
    struct slice handles = {footer, 40};
    uint64_t magic = (uint64_t)load32(footer + 44) << 32 | load32(footer + 40);
    if (magic != TABLE_MAGIC || !take_handle(&handles, &meta) || !take_handle(&handles, &index)) {
        return E_DAMAGED;
    }
    int err = block_read(fd, size, index, &block);
    *at = index.offset;
    if (err == 0) {
        err = blocks_check(fd, size, buf_slice(&block), at);
    }
    buf_fini(&block);
    return err;
}

/* --- all of them -------------------------------------------------------------------------------- */

static int file_check(const char *dir, int dir_fd, const char *name, uint64_t *at)
{
    const char *dot = strrchr(name, '.');
    struct stat st;
    if (db_name_is_log(name)) {
        return fstatat(dir_fd, name, &st, 0) == 0 ? db_log_check(dir, name, (uint64_t)st.st_size, at) : 0;
    }
    if (dot == NULL || strcmp(dot, ".ldb") != 0) {
        return 0;
    }
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    int err = table_check(fd, at);
    close(fd);
    return err;
}

void db_find_damage(const char *dir, struct buf *why)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    while (d != NULL && (e = readdir(d)) != NULL) {
        uint64_t at = 0;
        if (file_check(dir, dirfd(d), e->d_name, &at) == E_DAMAGED) {
            buf_printf(why, "; %s/%s is damaged at byte %llu", dir, e->d_name, (unsigned long long)at);
        }
    }
    if (d != NULL) {
        closedir(d);
    }
}
