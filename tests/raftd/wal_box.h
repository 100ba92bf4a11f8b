/* wal_box - a log in a folder of its own, for tests: entries with known bytes, images of segments, damage. */
#ifndef TESTS_RAFTD_WAL_BOX_H
#define TESTS_RAFTD_WAL_BOX_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "raftd/wal.h"
#include "raftd/wal_format.h"
#include "raftd/wal_thread.h"

#define BOX_CLUSTER 0xcdf818194e3a8c32u
#define BOX_MEMBER 0x8e9e05c52164694du
#define BOX_SEGMENT 16384

struct box {
    char dir[64];
    struct wal *wal;
    struct wal_found found;
    struct buf why;
    uint64_t segment_bytes;
};

static inline void box_init(struct box *b)
{
    memset(b, 0, sizeof(*b));
    snprintf(b->dir, sizeof(b->dir), "/tmp/trine-wal.XXXXXX");
    cr_assert(mkdtemp(b->dir));
    b->segment_bytes = BOX_SEGMENT;
    log_set_level(LOG_L_ERROR);
}

static inline struct wal_conf box_conf(struct box *b)
{
    return (struct wal_conf){.dir = b->dir, .segment_bytes = b->segment_bytes, .no_fsync = true};
}

static inline void box_create(struct box *b)
{
    struct wal_conf c = box_conf(b);

    b->wal = wal_create(&c, &(struct wal_found){.cluster_id = BOX_CLUSTER,
                                                .member_id = BOX_MEMBER,
                                                .first_index = 1,
                                                .members = SLICE_LIT("the members")});
}

static inline void box_close(struct box *b)
{
    if (b->wal)
        wal_close(b->wal);
    b->wal = NULL;
}

static inline bool box_open(struct box *b)
{
    struct wal_conf c = box_conf(b);

    buf_fini(&b->why);
    b->wal = wal_open(&c, &b->found, &b->why);
    buf_add_byte(&b->why, 0);
    return b->wal != NULL;
}

static inline bool box_reopen(struct box *b)
{
    box_close(b);
    return box_open(b);
}

static inline void box_fini(struct box *b)
{
    DIR *d;

    box_close(b);
    if ((d = opendir(b->dir))) {
        for (struct dirent *e = readdir(d); e; e = readdir(d))
            unlinkat(dirfd(d), e->d_name, 0);
        closedir(d);
    }
    rmdir(b->dir);
    buf_fini(&b->why);
}

/* An entry's bytes are a function of index and term. */
static inline struct entry *box_entry(uint64_t index, uint64_t term, size_t len)
{
    uint8_t *data = xmalloc(len + 1);

    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(index * 31 + term * 7 + i);
    struct entry *e = entry_new(ENTRY_COMMAND, slice_of(data, len));
    e->index = index;
    e->term = term;
    free(data);
    return e;
}

static inline void box_add(struct box *b, uint64_t term, size_t len)
{
    struct entry *e = box_entry(wal_last_index(b->wal) + 1, term, len);

    wal_append(b->wal, &e, 1);
    entry_unref(e);
}

/* `count` entries of one batch, durable afterwards. */
static inline void box_batch(struct box *b, uint64_t term, size_t count, size_t len)
{
    for (size_t i = 0; i < count; i++)
        box_add(b, term, len);
    wal_submit(b->wal, wal_last_index(b->wal));
    wal_flush(b->wal);
}

static inline void box_hard(struct box *b, uint64_t term, uint64_t vote, uint64_t seq)
{
    wal_hard(b->wal, term, vote, seq);
    wal_submit(b->wal, 0);
    wal_flush(b->wal);
}

static inline void box_expect_entry(struct box *b, uint64_t index, uint64_t term, size_t len)
{
    struct entry *got = NULL, *want = box_entry(index, term, len);

    cr_assert_eq(wal_entries(b->wal, index, index, SIZE_MAX, &got), 1, "entry %d", (int)index);
    cr_assert_eq(got->index, index);
    cr_assert_eq(got->term, term, "entry %d has term %d", (int)index, (int)got->term);
    cr_assert(slice_eq(entry_data(got), entry_data(want)), "bytes of entry %d", (int)index);
    entry_unref(got);
    entry_unref(want);
}

static inline char *box_path(struct box *b, uint64_t segment)
{
    char name[WAL_NAME_BYTES];

    wal_segment_name(name, segment);
    return xasprintf("%s/%s", b->dir, name);
}

static inline struct buf box_read(struct box *b, uint64_t segment)
{
    struct buf bytes = BUF_INIT;
    char *path = box_path(b, segment);

    cr_assert_eq(file_read_all(path, 1 << 30, &bytes), 0, "%s", path);
    free(path);
    return bytes;
}

static inline void box_write(struct box *b, uint64_t segment, struct slice bytes)
{
    char *path = box_path(b, segment);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    cr_assert(fd >= 0);
    cr_assert_eq(file_write_all(fd, bytes.data, bytes.len), 0);
    close(fd);
    free(path);
}

#endif
