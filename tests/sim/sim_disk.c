/* sim_disk - a disk per member, in memory, under the log (raftd/disk.h).
 *
 * A file is two images: what a reader sees (the page cache), and what a power cut leaves. Writes go to the first and
 * mark their sectors of 512 bytes; a sync carries the marked ones over. Names are the same: create, rename and unlink
 * count at once for readers, and after a sync of the folder for a power cut. At a power cut each marked sector is kept
 * or lost by chance, one may be torn in its middle; of the changes of names that were not synced the first few are
 * kept, in order, as a journal does. The end of a process alone loses nothing. Damage is of what was synced and has
 * later synced writes behind it: rot of a bit, or a write that went to the wrong place. (A lost *last* write cannot be
 * told from one that was never made; that is what the majority is for.) */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "common/mem.h"
#include "raftd/disk.h"
#include "tests/sim/sim.h"

#define SECTOR 512
#define FILES_MAX 64
#define FDS_MAX 1024
#define NAME_MAX_BYTES 32
#define CHANGES_MAX 256
#define WRITES_MAX 64

struct extent {
    uint64_t from, to;
};

struct sim_file {
    unsigned refs; /* names, in either folder, and open handles */
    uint8_t *data, *synced;
    bool *marked; /* by sector */
    uint64_t size, synced_size;
    struct extent writes[WRITES_MAX]; /* batches since the file got its present use, synced ones first */
    size_t write_count, write_synced;
};

struct name {
    char text[NAME_MAX_BYTES];
    struct sim_file *file;
};
struct folder {
    struct name names[FILES_MAX];
    size_t count;
};

struct change {                                    /* of the folder, not synced */
    char from[NAME_MAX_BYTES], to[NAME_MAX_BYTES]; /* from "": created; to "": removed */
    struct sim_file *file;
};

struct sim_disk {
    struct sim *sim;
    unsigned pos;
    char path[16];
    struct folder now, synced;
    struct change changes[CHANGES_MAX];
    size_t change_count;
    bool full;
};

static struct {
    struct sim_disk *disk;
    struct sim_file *file; /* NULL: the folder */
} fds[FDS_MAX];

/* --- files and names --------------------------------------------------------------------------------- */

static struct sim_file *file_ref(struct sim_file *f)
{
    f->refs++;
    return f;
}

static void file_unref(struct sim_file *f)
{
    if (--f->refs > 0)
        return;
    free(f->data);
    free(f->synced);
    free(f->marked);
    free(f);
}

static void file_size(struct sim_file *f, uint64_t size)
{
    uint64_t room = (MAX(size, f->size) + SECTOR - 1) / SECTOR * SECTOR,
             before = (f->size + SECTOR - 1) / SECTOR * SECTOR;

    if (size > f->size) {
        f->data = xrealloc(f->data, room);
        f->synced = xrealloc(f->synced, room);
        f->marked = xrealloc(f->marked, room / SECTOR * sizeof(*f->marked));
        memset(f->data + before, 0, room - before);
        memset(f->synced + before, 0, room - before);
        memset(f->marked + before / SECTOR, 0, (room - before) / SECTOR * sizeof(*f->marked));
        f->size = size;
    } else if (size < f->size) {
        memset(f->data + size, 0, before - size);
        f->size = size;
    }
}

static struct name *folder_find(struct folder *d, const char *name)
{
    for (size_t i = 0; i < d->count; i++)
        if (strcmp(d->names[i].text, name) == 0)
            return &d->names[i];
    return NULL;
}

static void folder_remove(struct folder *d, const char *name)
{
    struct name *n = folder_find(d, name);

    if (!n)
        return;
    file_unref(n->file);
    *n = d->names[--d->count];
}

static void folder_add(struct folder *d, const char *name, struct sim_file *f)
{
    folder_remove(d, name);
    must(d->count < FILES_MAX && strlen(name) < NAME_MAX_BYTES);
    struct name *n = &d->names[d->count++];
    strcpy(n->text, name);
    n->file = file_ref(f);
}

static void change_do(struct folder *d, const struct change *c)
{
    file_ref(c->file);
    if (c->from[0])
        folder_remove(d, c->from);
    if (c->to[0])
        folder_add(d, c->to, c->file);
    file_unref(c->file);
}

static void changes_keep(struct sim_disk *d, size_t count)
{
    for (size_t i = 0; i < d->change_count; i++) {
        if (i < count)
            change_do(&d->synced, &d->changes[i]);
        file_unref(d->changes[i].file);
    }
    d->change_count = 0;
}

static void change_add(struct sim_disk *d, const char *from, const char *to, struct sim_file *f)
{
    if (d->change_count == CHANGES_MAX)
        changes_keep(d, SIZE_MAX); /* a journal is written out sooner or later */
    struct change *c = &d->changes[d->change_count++];
    snprintf(c->from, sizeof(c->from), "%s", from);
    snprintf(c->to, sizeof(c->to), "%s", to);
    c->file = file_ref(f);
    change_do(&d->now, c);
}

/* --- the table of disk.h ------------------------------------------------------------------------------- */

/* Each effect on the disk is a place to die at. */
static void effect(int fd)
{
    struct sim_disk *d = fds[fd].disk;

    sim_node_effect(d->sim->nodes[d->pos]);
}

static int fd_new(struct sim_disk *d, struct sim_file *f)
{
    for (int fd = 3; fd < FDS_MAX; fd++)
        if (!fds[fd].disk) {
            fds[fd].disk = d;
            fds[fd].file = f ? file_ref(f) : NULL;
            return fd;
        }
    errno = EMFILE;
    return -1;
}

static struct sim_disk *disk_at(const char *path)
{
    unsigned pos = (unsigned)strtoul(path + 4, NULL, 10); /* "disk3" */

    return sim_now->nodes[pos]->disk;
}

static int op_open_dir(const char *path)
{
    return fd_new(disk_at(path), NULL);
}

static int op_open(int dir, const char *name, int flags)
{
    struct sim_disk *d = fds[dir].disk;
    struct name *n = folder_find(&d->now, name);

    if (!n && !(flags & O_CREAT)) {
        errno = ENOENT;
        return -1;
    }
    if (!n) {
        effect(dir);
        change_add(d, "", name, xcalloc(1, sizeof(struct sim_file)));
        n = folder_find(&d->now, name);
    }
    return fd_new(d, n->file);
}

static void op_close(int fd)
{
    if (fd < 0 || !fds[fd].disk)
        return;
    if (fds[fd].file)
        file_unref(fds[fd].file);
    fds[fd].disk = NULL;
    fds[fd].file = NULL;
}

static ssize_t op_pread(int fd, void *to, size_t size, off_t offset)
{
    struct sim_file *f = fds[fd].file;

    if ((uint64_t)offset >= f->size)
        return 0;
    size = (size_t)MIN((uint64_t)size, f->size - (uint64_t)offset);
    memcpy(to, f->data + offset, size);
    return (ssize_t)size;
}

static ssize_t op_pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    struct sim_file *f = fds[fd].file;
    uint64_t at = (uint64_t)offset, end = at;

    effect(fd);
    for (int i = 0; i < count; i++)
        end += iov[i].iov_len;
    if (end > f->size && fds[fd].disk->full) {
        errno = ENOSPC;
        return -1;
    }
    if (end > f->size)
        file_size(f, end);
    for (int i = 0; i < count; at += iov[i++].iov_len)
        memcpy(f->data + at, iov[i].iov_base, iov[i].iov_len);
    for (uint64_t k = (uint64_t)offset / SECTOR; k * SECTOR < end; k++)
        f->marked[k] = true;
    if ((uint64_t)offset == 0 || f->write_count == WRITES_MAX)
        f->write_count = f->write_synced = 0; /* a new use of the file; or forget the oldest */
    f->writes[f->write_count++] = (struct extent){(uint64_t)offset, end};
    return (ssize_t)(end - (uint64_t)offset);
}

static int op_sync(int fd)
{
    struct sim_file *f = fds[fd].file;

    effect(fd);
    for (uint64_t k = 0; k * SECTOR < f->size; k++)
        if (f->marked[k]) {
            memcpy(f->synced + k * SECTOR, f->data + k * SECTOR, SECTOR);
            f->marked[k] = false;
        }
    f->synced_size = f->size;
    f->write_synced = f->write_count;
    return 0;
}

static int op_sync_dir(int dir)
{
    struct sim_disk *d = fds[dir].disk;

    effect(dir);
    if (d->sim->nodes[d->pos]->fuse_names && d->change_count > 0)
        sim_node_die(d->sim->nodes[d->pos]);
    changes_keep(fds[dir].disk, SIZE_MAX);
    return 0;
}

static int op_size(int fd, uint64_t *size)
{
    *size = fds[fd].file->size;
    return 0;
}

static int op_truncate(int fd, uint64_t size)
{
    effect(fd);
    file_size(fds[fd].file, size);
    return 0;
}

static int op_allocate(int fd, uint64_t size)
{
    effect(fd);
    if (fds[fd].disk->full && size > fds[fd].file->size)
        return ENOSPC;
    if (size > fds[fd].file->size)
        file_size(fds[fd].file, size);
    return 0;
}

static bool op_room(int fd, uint64_t size, uint64_t keep)
{
    UNUSED(keep);
    const struct sim_file *f = fds[fd].file; /* NULL: the folder */

    return !fds[fd].disk->full || (f && size <= f->size);
}

static void op_forget(int fd)
{
    struct sim_file *f = fds[fd].file;

    for (uint64_t k = 0; k * SECTOR < MIN(f->size, f->synced_size); k++)
        if (!f->marked[k])
            memcpy(f->data + k * SECTOR, f->synced + k * SECTOR, SECTOR);
}

static int op_rename(int dir, const char *from, const char *to)
{
    struct sim_disk *d = fds[dir].disk;
    struct name *n = folder_find(&d->now, from);

    effect(dir);
    if (!n) {
        errno = ENOENT;
        return -1;
    }
    change_add(d, from, to, n->file);
    return 0;
}

static int op_unlink(int dir, const char *name)
{
    struct sim_disk *d = fds[dir].disk;
    struct name *n = folder_find(&d->now, name);

    effect(dir);
    if (!n) {
        errno = ENOENT;
        return -1;
    }
    change_add(d, name, "", n->file);
    return 0;
}

static bool op_exists(int dir, const char *name)
{
    return folder_find(&fds[dir].disk->now, name) != NULL;
}

static int op_list(const char *path, void (*cb)(void *arg, const char *name), void *arg)
{
    struct sim_disk *d = disk_at(path);

    for (size_t i = 0; i < d->now.count; i++)
        cb(arg, d->now.names[i].text);
    return 0;
}

const struct disk sim_disk_ops = {
    .open_dir = op_open_dir,
    .open = op_open,
    .close = op_close,
    .pread = op_pread,
    .pwritev = op_pwritev,
    .fdatasync = op_sync,
    .fsync = op_sync,
    .sync_dir = op_sync_dir,
    .size = op_size,
    .truncate = op_truncate,
    .allocate = op_allocate,
    .room = op_room,
    .forget = op_forget,
    .rename = op_rename,
    .unlink = op_unlink,
    .exists = op_exists,
    .list = op_list,
};

/* --- what happens to it ------------------------------------------------------------------------------------ */

struct sim_disk *sim_disk_new(struct sim *s, unsigned pos)
{
    struct sim_disk *d = xcalloc(1, sizeof(*d));

    d->sim = s;
    d->pos = pos;
    snprintf(d->path, sizeof(d->path), "disk%u", pos);
    return d;
}

void sim_disk_wipe(struct sim_disk *d)
{
    for (int fd = 0; fd < FDS_MAX; fd++)
        if (fds[fd].disk == d)
            op_close(fd);
    changes_keep(d, 0);
    while (d->now.count > 0)
        folder_remove(&d->now, d->now.names[0].text);
    while (d->synced.count > 0)
        folder_remove(&d->synced, d->synced.names[0].text);
    d->full = false;
}

void sim_disk_free(struct sim_disk *d)
{
    sim_disk_wipe(d);
    free(d);
}

/* What is on the platter becomes what is seen. */
static void file_cut(struct sim *s, struct sim_file *f)
{
    uint64_t torn = UINT64_MAX;

    if (f->size != f->synced_size && sim_chance(s, 500))
        f->synced_size = f->size; /* a journal may have been faster than the data */
    for (uint64_t k = 0; k * SECTOR < f->size; k++) {
        if (!f->marked[k])
            continue;
        size_t keep = sim_chance(s, 500) ? SECTOR : 0;

        if (keep == 0 && torn == UINT64_MAX && sim_chance(s, 200)) {
            torn = k;
            keep = sim_below(s, SECTOR);
        }
        memcpy(f->synced + k * SECTOR, f->data + k * SECTOR, keep);
        f->marked[k] = false;
    }
    if (f->size > 0)
        memcpy(f->data, f->synced, (f->size + SECTOR - 1) / SECTOR * SECTOR);
    file_size(f, f->synced_size);
    f->write_count = f->write_synced;
}

void sim_disk_crash(struct sim_disk *d, bool power)
{
    for (int fd = 0; fd < FDS_MAX; fd++)
        if (fds[fd].disk == d)
            op_close(fd);
    if (!power)
        return;
    changes_keep(d, d->change_count > 0 ? sim_below(d->sim, d->change_count + 1) : 0);
    while (d->now.count > 0)
        folder_remove(&d->now, d->now.names[0].text);
    for (size_t i = 0; i < d->synced.count; i++) {
        folder_add(&d->now, d->synced.names[i].text, d->synced.names[i].file);
        file_cut(d->sim, d->synced.names[i].file);
    }
}

static void rot(struct sim *s, struct sim_file *f, struct extent w, char *what, size_t size)
{
    uint64_t at = w.from + sim_below(s, w.to - w.from);
    unsigned bit = (unsigned)sim_below(s, 8);

    f->synced[at] ^= (uint8_t)(1u << bit);
    f->data[at] = f->synced[at];
    snprintf(what, size, "bit %u of byte %" PRIu64 " rots", bit, at);
}

/* The batch lies further ahead, where zeros were, and where it should be are zeros. */
static void misplace(struct sim_file *f, struct extent w, uint64_t to, char *what, size_t size)
{
    memcpy(f->synced + to, f->synced + w.from, w.to - w.from);
    memset(f->synced + w.from, 0, w.to - w.from);
    memcpy(f->data, f->synced, f->size);
    snprintf(what, size, "bytes %" PRIu64 "..%" PRIu64 " went to %" PRIu64, w.from, w.to - 1, to);
}

bool sim_disk_damage(struct sim_disk *d, char *what, size_t size)
{
    struct sim *s = d->sim;
    struct name *last = NULL;

    for (size_t i = 0; i < d->now.count; i++) { /* the active segment has the highest name */
        struct name *n = &d->now.names[i];

        if (strlen(n->text) == 20 && (!last || strcmp(n->text, last->text) > 0))
            last = n;
    }
    if (!last || last->file->write_synced < 3 || last->file->write_synced != last->file->write_count)
        return false;
    struct sim_file *f = last->file;
    struct extent w = f->writes[sim_below(s, f->write_synced - 1)], tail = w;

    for (size_t i = 0; i < f->write_synced; i++) /* the last batch: the zeroing of a torn tail is a write too */
        if (f->writes[i].from > tail.from && f->synced[f->writes[i].from] != 0)
            tail = f->writes[i];
    uint64_t to = (tail.to / SECTOR + 1 + sim_below(s, 4)) * SECTOR + w.from % SECTOR;
    if (tail.from < w.to || f->synced[w.from] == 0)
        return false;
    if (sim_chance(s, 400) && w.from > 0 && to + (w.to - w.from) <= f->size)
        misplace(f, w, to, what, size);
    else
        rot(s, f, w, what, size);
    return true;
}

void sim_disk_full(struct sim_disk *d, bool full)
{
    d->full = full;
}

bool sim_disk_has_log(const struct sim_disk *d)
{
    for (size_t i = 0; i < d->now.count; i++)
        if (strlen(d->now.names[i].text) == 20)
            return true;
    return false;
}

const char *sim_disk_path(const struct sim_disk *d)
{
    return d->path;
}
