/* keep - see keep.h. A file is: version, the fields of its struct in order (msgpack), and 4 bytes CRC32C of them. */
#include "raftd/keep.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/pack.h"

#define SELF_NAME "SELF"
#define REPAIR_NAME "REPAIR"
#define SNAPSHOT_NAME "SNAPSHOT"
#define KEEP_VERSION 1
#define KEEP_BYTES_MAX ((size_t)4 << 20)
#define SUM_BYTES 4

static void file_write(const char *dir, const char *name, struct buf *bytes)
{
    char *path = xasprintf("%s/%s", dir, name);
    uint32_t sum = crc32c(0, bytes->data, bytes->len);
    uint8_t tail[SUM_BYTES] = {(uint8_t)(sum >> 24), (uint8_t)(sum >> 16), (uint8_t)(sum >> 8), (uint8_t)sum};

    buf_add(bytes, tail, sizeof(tail));
    if (file_replace(path, bytes->data, bytes->len) != 0)
        fatal("keep: writing %s", path);
    buf_fini(bytes);
    free(path);
}

static void file_remove(const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s", dir, name);

    if (unlink(path) == 0) {
        if (file_sync_dir(dir) != 0)
            fatal("keep: fsync of %s", dir);
    } else if (errno != ENOENT) {
        fatal("keep: removal of %s", path);
    }
    free(path);
}

/* The fields, without version and sum, into *in, which borrows bytes. */
static int file_read(const char *dir, const char *name, struct buf *bytes, struct slice *in)
{
    char *path = xasprintf("%s/%s", dir, name);
    uint64_t version;
    bool there = access(path, F_OK) == 0;
    int err = there ? file_read_all(path, KEEP_BYTES_MAX, bytes) : E_NOT_FOUND;

    free(path);
    if (err)
        return there ? E_DAMAGED : err;
    if (bytes->len < SUM_BYTES)
        return E_DAMAGED;
    const uint8_t *tail = bytes->data + bytes->len - SUM_BYTES;
    uint32_t sum = (uint32_t)tail[0] << 24 | (uint32_t)tail[1] << 16 | (uint32_t)tail[2] << 8 | tail[3];
    *in = slice_of(bytes->data, bytes->len - SUM_BYTES);
    if (crc32c(0, in->data, in->len) != sum || unpack_u64(in, &version) != 0 || version != KEEP_VERSION)
        return E_DAMAGED;
    return 0;
}

static int numbers_read(struct slice *in, uint64_t **numbers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (unpack_u64(in, numbers[i]) != 0)
            return E_DAMAGED;
    return 0;
}

static int members_read(struct slice *in, struct buf *members)
{
    struct slice table;

    if (unpack_bytes(in, KEEP_BYTES_MAX, &table) != 0 || in->len > 0)
        return E_DAMAGED;
    *members = (struct buf)BUF_INIT;
    buf_add_slice(members, table);
    return 0;
}

/* --- the three ----------------------------------------------------------------------------------------------- */

void keep_self_write(const char *dir, const struct keep_self *k)
{
    struct buf bytes = BUF_INIT;

    pack_u64(&bytes, KEEP_VERSION);
    pack_u64(&bytes, k->cluster_id);
    pack_u64(&bytes, k->member_id);
    pack_u64(&bytes, k->term);
    pack_u64(&bytes, k->vote);
    pack_u64(&bytes, k->hard_seq);
    pack_bin(&bytes, buf_slice(&k->members));
    file_write(dir, SELF_NAME, &bytes);
}

int keep_self_read(const char *dir, struct keep_self *k)
{
    struct buf bytes = BUF_INIT;
    struct slice in;
    int err = file_read(dir, SELF_NAME, &bytes, &in);

    if (!err)
        err = numbers_read(&in, (uint64_t *[]){&k->cluster_id, &k->member_id, &k->term, &k->vote, &k->hard_seq}, 5);
    if (!err)
        err = members_read(&in, &k->members);
    buf_fini(&bytes);
    return err;
}

void keep_repair_write(const char *dir, const struct keep_repair *k)
{
    struct buf bytes = BUF_INIT;

    pack_u64(&bytes, KEEP_VERSION);
    pack_u64(&bytes, k->moved);
    pack_u64(&bytes, k->vote_from);
    file_write(dir, REPAIR_NAME, &bytes);
}

int keep_repair_read(const char *dir, struct keep_repair *k)
{
    struct buf bytes = BUF_INIT;
    struct slice in;
    uint64_t moved = 0;
    int err = file_read(dir, REPAIR_NAME, &bytes, &in);

    if (!err)
        err = numbers_read(&in, (uint64_t *[]){&moved, &k->vote_from}, 2);
    k->moved = moved != 0;
    buf_fini(&bytes);
    return err;
}

void keep_repair_remove(const char *dir)
{
    file_remove(dir, REPAIR_NAME);
}

void keep_snapshot_write(const char *dir, const struct keep_snapshot *k)
{
    struct buf bytes = BUF_INIT;

    pack_u64(&bytes, KEEP_VERSION);
    pack_u64(&bytes, k->index);
    pack_u64(&bytes, k->term);
    pack_bin(&bytes, buf_slice(&k->members));
    file_write(dir, SNAPSHOT_NAME, &bytes);
}

int keep_snapshot_read(const char *dir, struct keep_snapshot *k)
{
    struct buf bytes = BUF_INIT;
    struct slice in;
    int err = file_read(dir, SNAPSHOT_NAME, &bytes, &in);

    if (!err)
        err = numbers_read(&in, (uint64_t *[]){&k->index, &k->term}, 2);
    if (!err)
        err = members_read(&in, &k->members);
    buf_fini(&bytes);
    return err;
}

void keep_snapshot_remove(const char *dir)
{
    file_remove(dir, SNAPSHOT_NAME);
}

/* --- a damaged log -------------------------------------------------------------------------------------------- */

void keep_set_log_aside(const char *dir)
{
    char *aside = xasprintf("%s/damaged-%lld", dir, (long long)time(NULL));
    DIR *d = opendir(dir);

    if (!d || file_mkdir_p(aside, 0700) != 0)
        fatal("keep: making %s", aside);
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        size_t len = strlen(e->d_name);

        if (len < 4 || strcmp(e->d_name + len - 4, ".wal") != 0)
            continue;
        char *from = xasprintf("%s/%s", dir, e->d_name), *to = xasprintf("%s/%s", aside, e->d_name);
        if (rename(from, to) != 0)
            fatal("keep: moving %s", from);
        free(from);
        free(to);
    }
    closedir(d);
    if (file_sync_dir(aside) != 0 || file_sync_dir(dir) != 0)
        fatal("keep: fsync of %s", dir);
    log_warnx("wal: what was left of the log is now in %s", aside);
    free(aside);
}
