/* wal_recover - reads the log at start: every segment, in order, from the disk and not from the page cache (a page
 * whose write failed is marked clean, and would be believed). Fills struct wal as wal.c would have left it.
 *
 * A batch at the tail that is not whole was never acknowledged: it is zeroed and said so. Anything else that does not
 * fit is damage: refused, with file, offset, and the entry. Never cut, because what lies behind was acknowledged. */
#include "raftd/wal_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "raftd/mutant.h"

/* A file larger than any segment that we write: limit of conf.h, and one batch. */
#define SEGMENT_BYTES_MAX ((uint64_t)2 << 30)

struct recovery {
    struct wal *w;
    bool members_seen, entries_begun;
};

static bool name_is_segment(const char *name, uint64_t *number)
{
    char back[WAL_NAME_BYTES];

    if (strlen(name) != 20 || strcmp(name + 16, ".wal") != 0)
        return false;
    *number = strtoull(name, NULL, 16);
    wal_segment_name(back, *number);
    return strcmp(back, name) == 0;
}

static int number_cmp(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

struct numbers {
    uint64_t *list;
    size_t count, cap;
};

static void name_cb(void *arg, const char *name)
{
    struct numbers *n = arg;
    uint64_t number;

    if (!name_is_segment(name, &number))
        return;
    if (n->count == n->cap) {
        n->cap = n->cap ? n->cap * 2 : 16;
        n->list = xrealloc(n->list, n->cap * sizeof(*n->list));
    }
    n->list[n->count++] = number;
}

/* Numbers of the segments in dir, sorted. Given: free(). -1 if dir cannot be read. */
static ssize_t segments_list(const struct disk *disk, const char *dir, uint64_t **numbers)
{
    struct numbers found = {0};
    int err = disk->list(dir, name_cb, &found);

    if (found.count > 1)
        qsort(found.list, found.count, sizeof(*found.list), number_cmp);
    *numbers = found.list;
    return err ? -1 : (ssize_t)found.count;
}

bool wal_exists(const char *dir)
{
    uint64_t *numbers;
    ssize_t count = segments_list(&disk_real, dir, &numbers);

    free(numbers);
    return count > 0;
}

/* --- one record after the other ----------------------------------------------------------------- */

static int entry_recover(struct recovery *rec, const struct wal_record *r, uint64_t offset, struct buf *why)
{
    struct wal *w = rec->w;
    uint64_t before = w->laid.prev_term;

    wal_term(w, wal_index_last(&w->index), &before);
    if (r->index != wal_index_last(&w->index) + 1 || r->term < before || r->term > w->laid.term) {
        buf_printf(why,
                   "offset %" PRIu64 ": entry %" PRIu64 " term %" PRIu64 " cannot follow entry %" PRIu64
                   " (term now %" PRIu64 ")",
                   offset, r->index, r->term, wal_index_last(&w->index), w->laid.term);
        return E_DAMAGED;
    }
    *wal_index_add(&w->index) = (struct wal_slot){
        .term = r->term,
        .segment = (uint32_t)w->segments[w->segment_count - 1].number,
        .place = (uint32_t)(offset / 8),
        .length = r->length,
        .kind = r->entry_kind,
    };
    w->laid.last = r->index;
    return 0;
}

/* The log's first entry is r->index from now on. The index may begin later while earlier segments are already
 * gone: a PREFIX in a later batch then says so, which wal_open checks at the end. */
static int prefix_recover(struct wal *w, const struct wal_record *r)
{
    if (r->index < w->laid.first)
        return E_DAMAGED;
    w->laid.first = r->index;
    w->laid.prev_term = r->term;
    if (r->index > wal_index_last(&w->index) + 1)
        wal_index_cut(&w->index, w->index.first);
    wal_index_drop(&w->index, r->index);
    w->laid.last = wal_index_last(&w->index);
    return 0;
}

/* What it cuts may begin in a segment that is already gone: then nothing of ours is left before it. */
static int truncate_recover(struct wal *w, const struct wal_record *r)
{
    if (r->index > wal_index_last(&w->index) + 1 || r->index < w->laid.first)
        return E_DAMAGED;
    if (r->index < w->index.first) {
        wal_index_fini(&w->index);
        wal_index_init(&w->index, r->index);
    } else {
        wal_index_cut(&w->index, r->index);
    }
    w->laid.last = r->index - 1;
    return 0;
}

static int record_recover_cb(void *arg, const struct wal_record *r, uint64_t offset, struct slice payload,
                             struct buf *why)
{
    struct recovery *rec = arg;
    struct wal *w = rec->w;

    switch ((enum wal_kind)r->kind) {
    case WAL_SEGMENT:
        if (!rec->entries_begun) {
            wal_index_fini(&w->index);
            wal_index_init(&w->index, r->index);
            w->laid.last = r->index - 1;
            rec->entries_begun = true;
        }
        if (r->index == 0 || r->index != wal_index_last(&w->index) + 1)
            return E_DAMAGED;
        w->segments[w->segment_count - 1].first = r->index;
        return 0;
    case WAL_ENTRY:
        return entry_recover(rec, r, offset, why);
    case WAL_HARD:
        if (payload.len != WAL_HARD_PAYLOAD_BYTES || r->term < w->laid.term)
            return E_DAMAGED;
        w->laid.term = r->term;
        w->laid.vote = wal_u64_get(payload.data);
        w->laid.seq = r->index;
        return 0;
    case WAL_TRUNCATE:
        return truncate_recover(w, r);
    case WAL_PREFIX:
        return prefix_recover(w, r);
    case WAL_MEMBERS:
        buf_reset(&w->laid.members);
        buf_add_slice(&w->laid.members, payload);
        w->laid.members_at = r->index;
        rec->members_seen = true;
        return 0;
    case WAL_COMMIT:
        w->laid.commit = MAX(w->laid.commit, r->index);
        return 0;
    }
    return E_DAMAGED;
}

/* --- files -------------------------------------------------------------------------------------- */

/* The whole file, from the disk. Given: free(). NULL with a reason. */
static uint8_t *segment_read(const struct disk *disk, int fd, size_t *size, struct buf *why)
{
    uint64_t found;
    size_t got = 0;

    if (disk->size(fd, &found) != 0 || found > SEGMENT_BYTES_MAX) {
        buf_add_str(why, "cannot be read: not a log segment's size");
        return NULL;
    }
    /* Dirty pages are not dropped by the advice: write them first, then forget them. */
    if (disk->fdatasync(fd) != 0) {
        buf_printf(why, "cannot be synced: %s", strerror(errno));
        return NULL;
    }
    disk->forget(fd);
    *size = (size_t)found;
    uint8_t *bytes = xmalloc(*size + 1);
    while (got < *size) {
        ssize_t n = disk->pread(fd, bytes + got, *size - got, (off_t)got);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            buf_printf(why, "offset %zu: cannot be read: %s", got, n < 0 ? strerror(errno) : "the file became shorter");
            free(bytes);
            return NULL;
        }
        got += (size_t)n;
    }
    return bytes;
}

/* Makes what lies behind `end` zero again, up to the last byte that is not, and the file as long as it should be. */
static uint64_t tail_cut(struct wal *w, struct wal_segment *seg, const uint8_t *bytes, size_t size, size_t end,
                         const char *name)
{
    size_t used = size;

    while (used > end && bytes[used - 1] == 0)
        used--;
    if (used > end)
        wal_pwrite_zeros(w->disk, seg->fd, end, used, name);
    if (size < w->segment_bytes)
        wal_pwrite_zeros(w->disk, seg->fd, size, w->segment_bytes, name);
    seg->size = MAX((uint64_t)size, w->segment_bytes);
    if (used > end || size < w->segment_bytes)
        wal_sync_fd(w->disk, seg->fd, w->no_fsync, name);
    return used - end;
}

static int segment_recover(struct recovery *rec, struct wal_scan *scan, uint64_t number, bool is_last,
                           struct wal_found *found, struct buf *why)
{
    struct wal *w = rec->w;
    char name[WAL_NAME_BYTES];
    size_t size = 0, end = 0, reason;
    int err;

    wal_segment_name(name, number);
    buf_printf(why, "%s/%s: ", w->dir, name);
    reason = why->len;
    int fd = w->disk->open(w->dirfd, name, O_RDWR);
    if (fd < 0) {
        buf_printf(why, "cannot be opened: %s", strerror(errno));
        return E_IO;
    }
    struct wal_segment *seg = wal_segment_add(w, number, 0, 0, fd);
    uint8_t *bytes = segment_read(w->disk, fd, &size, why);
    if (!bytes)
        return E_IO;
    seg->size = size;
    err = wal_scan_segment(scan, number, slice_of(bytes, size), record_recover_cb, rec, &end, why);
    if (err == E_TRUNCATED && is_last) {
        /* One line, as an operator wants to know it in a year. */
        found->cut_bytes = tail_cut(w, seg, bytes, size, end, name);
        log_warnx("wal: %.*s: torn batch at the tail, %" PRIu64 " bytes from offset %zu cut, last entry %" PRIu64,
                  (int)why->len, (const char *)why->data, found->cut_bytes, end, w->laid.last);
        err = 0;
    } else if (!err && is_last) {
        tail_cut(w, seg, bytes, size, end, name);
    }
    free(bytes);
    if (err) {
        must(why->len > reason);
        return err == E_TRUNCATED ? E_DAMAGED : err;
    }
    w->offset = end;
    buf_reset(why);
    return 0;
}

/* What no single record can tell. */
static int log_check(struct recovery *rec, struct buf *why)
{
    struct wal *w = rec->w;
    struct wal_laid *l = &w->laid;

    if (l->first < w->segments[0].first) {
        char name[WAL_NAME_BYTES];

        wal_segment_name(name, w->segments[0].number - 1);
        buf_printf(why, "%s/%s: segment is missing, it holds entries from %" PRIu64 " to %" PRIu64, w->dir, name,
                   l->first, w->segments[0].first - 1);
        return E_DAMAGED;
    }
    if (!rec->members_seen || l->members_at + 1 < l->first || l->members_at > l->last) {
        buf_printf(why, "%s: membership as of entry %" PRIu64 " does not fit entries %" PRIu64 "..%" PRIu64, w->dir,
                   l->members_at, l->first, l->last);
        return E_DAMAGED;
    }
    return 0;
}

/* Segments that a crash left over before a gap: their removal was ordered, so what counts begins after the last gap. */
static size_t first_dense(const uint64_t *numbers, size_t count)
{
    size_t first = count - 1;

    while (first > 0 && numbers[first - 1] + 1 == numbers[first])
        first--;
    return first;
}

struct wal *wal_open(const struct wal_conf *conf, struct wal_found *found, struct buf *why)
{
    struct wal *w = wal_alloc(conf);
    struct recovery rec = {.w = w};
    struct wal_scan scan = {0};
    uint64_t *numbers;
    ssize_t count = segments_list(w->disk, conf->dir, &numbers);

    /* A process that died between the rename of a new segment and the sync of the folder left us a name that a power
     * cut may still take back, with all that we would put under it. (Found by the simulator.) */
    if (!MUTATE(WAL_OPEN_NAMES, w->no_fsync, true) && w->disk->sync_dir(w->dirfd) != 0)
        fatal("wal: fsync of %s", conf->dir);

    memset(found, 0, sizeof(*found));
    wal_index_init(&w->index, 1);
    if (count <= 0) {
        buf_printf(why, "%s: no log here", conf->dir);
        goto fail;
    }
    for (size_t i = first_dense(numbers, (size_t)count); i < (size_t)count; i++) {
        if (segment_recover(&rec, &scan, numbers[i], i + 1 == (size_t)count, found, why))
            goto fail;
    }
    if (log_check(&rec, why))
        goto fail;
    for (size_t i = 0; i < first_dense(numbers, (size_t)count); i++) {
        char name[WAL_NAME_BYTES];

        wal_segment_name(name, numbers[i]);
        log_info("wal: %s was dropped before, removed", name);
        if (w->disk->unlink(w->dirfd, name) != 0)
            fatal("wal: removal of %s", name);
    }
    free(numbers);

    struct wal_laid *l = &w->laid;
    w->cluster_id = scan.cluster_id;
    w->member_id = scan.member_id;
    w->batch = scan.batch;
    w->chain = scan.chain;
    w->prev_term = l->prev_term;
    l->commit = MIN(MAX(l->commit, l->first - 1), l->last);
    found->cluster_id = w->cluster_id;
    found->member_id = w->member_id;
    found->term = l->term;
    found->vote = l->vote;
    found->hard_seq = l->seq;
    found->first_index = l->first;
    found->prev_term = l->prev_term;
    found->last_index = l->last;
    if (!wal_term(w, l->last, &found->last_term))
        must(!"the last entry has a term");
    found->commit = l->commit;
    found->members_at = l->members_at;
    found->members = buf_slice(&l->members);
    found->segment_count = w->segment_count;
    wal_start_threads(w);
    return w;

fail:
    free(numbers);
    wal_release(w);
    return NULL;
}
