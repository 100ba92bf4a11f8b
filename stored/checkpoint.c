/* checkpoint - the index on disk, so that a restart need not read every record.
 *
 *   'i' generation(8) page(4)          -> crc(4) entry*
 *   'i' generation(8) 0xffffffff       -> crc(4) start revision(8) pages(4) entries(8)      written last
 *   entry = shared suffix_len suffix main sub len*2+tombstone create version lease older_count (main sub len*2+tombstone)*
 *           all numbers varints; shared: bytes in common with the key before it in the page
 *   crc   = CRC32C of what follows
 *
 * The walk is fuzzy: each page is a slice under the read lock, and changes go on between slices. An entry is whole as of its
 * moment; what happened after the start revision is in the records behind it, and replaying a record that an entry
 * has already changes nothing. That holds only while compaction has not deleted such records: a checkpoint that is older than
 * the running physical compaction's revision is void (compact.c renews it first). The commit is written only when all revisions that pages mention are in LevelDB. A page that
 * is missing or damaged makes the whole checkpoint void, and the records are read instead. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/crc32c.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/pb.h"
#include "stored/mvcc_inner.h"

#define PAGE_ENTRIES 512
#define PAGE_BYTES (64 * KIB)
#define COMMIT_PAGE UINT32_MAX
/* A checkpoint is worth its writing when replaying would cost about as much. */
#define REVS_MIN 20000
/* How long the commit waits for the open batch, in ms. */
#define FLUSH_WAIT_MS 5000
#define DELETE_BATCH 1000

static struct slice page_key(uint8_t key[13], uint64_t generation, uint32_t page)
{
    key[0] = 'i';
    rev_store64(key + 1, generation);
    rev_store32(key + 9, page);
    return slice_of(key, 13);
}

/* --- writing ------------------------------------------------------------------------------------ */

static void add_varint(struct buf *b, uint64_t v)
{
    pb_put_varint(buf_extend(b, pb_varint_size(v)), v);
}

static void add_change(struct buf *b, struct change c)
{
    add_varint(b, (uint64_t)c.main);
    add_varint(b, c.sub);
    add_varint(b, (uint64_t)c.len << 1 | c.tombstone);
}

static void add_entry(struct buf *b, const struct entry *e, struct slice before)
{
    struct slice key = entry_key(e);
    size_t shared = 0;
    while (shared < before.len && shared < key.len && before.data[shared] == key.data[shared]) {
        shared++;
    }
    const struct change *older;
    size_t older_count = entry_older(e, &older);
    add_varint(b, shared);
    add_varint(b, key.len - shared);
    buf_add(b, key.data + shared, key.len - shared);
    add_change(b, e->latest);
    add_varint(b, (uint64_t)e->create);
    add_varint(b, (uint64_t)entry_version(e));
    add_varint(b, (uint64_t)entry_lease(e));
    add_varint(b, older_count);
    for (size_t i = 0; i < older_count; i++) {
        add_change(b, older[i]);
    }
}

struct writing {
    uint64_t generation;
    uint32_t pages;
    uint64_t entries;
    int64_t start_rev, newest; /* newest revision that a page mentions */
    struct buf next;           /* key of the next page's first entry */
    bool done;
};

static void put_with_crc(struct mvcc *m, struct slice key, struct buf *value)
{
    struct db_batch *b = db_batch_new();
    rev_store32(value->data, crc32c(0, value->data + 4, value->len - 4));
    db_batch_put(b, key, buf_slice(value));
    db_write(m->db, b, false);
    db_batch_free(b);
}

static void write_page(struct mvcc *m, struct writing *w)
{
    struct buf page = BUF_INIT;
    struct index_iter it;
    struct slice before = SLICE_EMPTY;
    uint8_t key[13];
    buf_extend(&page, 4);
    w->done = true;
    pthread_rwlock_rdlock(&m->lock);
    index_seek(m->ix, buf_slice(&w->next), &it);
    const struct entry *e = index_next(&it);
    for (size_t i = 0; e != NULL; e = index_next(&it), i++) {
        if (i == PAGE_ENTRIES || page.len >= PAGE_BYTES) {
            buf_reset(&w->next);
            buf_add_slice(&w->next, entry_key(e));
            w->done = false;
            break;
        }
        add_entry(&page, e, before);
        before = entry_key(e);
        w->newest = MAX(w->newest, e->latest.main);
        w->entries++;
    }
    pthread_rwlock_unlock(&m->lock);
    put_with_crc(m, page_key(key, w->generation, w->pages++), &page);
    buf_fini(&page);
}

static bool wait_flushed(struct mvcc *m, int64_t rev)
{
    for (int ms = 0; atomic_load(&m->flushed_rev) < rev; ms++) {
        if (ms == FLUSH_WAIT_MS) {
            return false;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return true;
}

static void write_commit(struct mvcc *m, const struct writing *w)
{
    struct buf value = BUF_INIT;
    uint8_t key[13], *at = buf_extend(&value, 24);
    rev_store64(at + 4, (uint64_t)w->start_rev);
    rev_store32(at + 12, w->pages);
    rev_store64(at + 16, w->entries);
    put_with_crc(m, page_key(key, w->generation, COMMIT_PAGE), &value);
    buf_fini(&value);
}

/* Deletes all pages of generations in [from, to). */
static void drop_generations(struct mvcc *m, uint64_t from, uint64_t to)
{
    uint8_t first[13];
    struct slice key, value;
    struct db_iter *it = db_iter_new(m->db, NULL, true);
    struct db_batch *b = db_batch_new();
    for (db_iter_seek(it, page_key(first, from, 0)); db_iter_get(it, &key, &value); db_iter_next(it)) {
        if (key.len != 13 || key.data[0] != 'i' || rev_load64(key.data + 1) >= to) {
            break;
        }
        db_batch_delete(b, key);
        if (db_batch_count(b) == DELETE_BATCH) {
            db_write(m->db, b, false);
        }
    }
    db_write(m->db, b, false);
    db_batch_free(b);
    db_iter_free(it);
}

void checkpoint_drop_all(struct mvcc *m)
{
    drop_generations(m, 0, UINT64_MAX);
}

static void checkpoint_write(struct mvcc *m)
{
    int64_t rev = atomic_load(&m->flushed_rev);
    struct writing w = {.generation = m->checkpoint_generation + 1, .start_rev = rev};
    while (!w.done) {
        write_page(m, &w);
    }
    m->checkpoint_generation = w.generation;
    if (wait_flushed(m, w.newest)) {
        write_commit(m, &w);
        drop_generations(m, 0, w.generation);
        m->checkpoint_rev = rev;
        log_debug("mvcc: checkpoint %llu: %llu keys at revision %lld", (unsigned long long)w.generation,
                  (unsigned long long)w.entries, (long long)rev);
    } else {
        drop_generations(m, w.generation, w.generation + 1);
    }
    buf_fini(&w.next);
}

void checkpoint_renew(struct mvcc *m, int64_t rev)
{
    if (m->checkpoint_rev > 0 && m->checkpoint_rev < rev) {
        checkpoint_write(m);
    }
}

void mvcc_checkpoint(struct mvcc *m)
{
    pthread_mutex_lock(&m->upkeep);
    pthread_rwlock_rdlock(&m->lock);
    struct index_totals t = index_totals(m->ix);
    pthread_rwlock_unlock(&m->lock);
    uint64_t enough = m->checkpoint_revs_min != 0 ? m->checkpoint_revs_min : MAX((uint64_t)REVS_MIN, t.entries / 4);
    if ((uint64_t)(atomic_load(&m->flushed_rev) - m->checkpoint_rev) >= enough) {
        checkpoint_write(m);
    }
    pthread_mutex_unlock(&m->upkeep);
}

/* --- reading ------------------------------------------------------------------------------------ */

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

static bool take_change(struct slice *in, struct change *c)
{
    uint64_t main, sub, len;
    if (!take_varint(in, &main) || !take_varint(in, &sub) || !take_varint(in, &len)) {
        return false;
    }
    *c = (struct change){.main = (int64_t)main, .sub = (uint32_t)sub, .len = (uint32_t)(len >> 1) & INT32_MAX,
                         .tombstone = len & 1};
    return main > 0 && main <= INT64_MAX;
}

struct reading {
    struct mvcc *m;
    struct buf key; /* of the entry before */
    struct change *older;
    size_t older_cap;
    uint64_t entries;
};

static bool take_older(struct reading *r, struct slice *in, size_t count)
{
    if (count > in->len) { /* each takes three bytes at least */
        return false;
    }
    if (count > r->older_cap) {
        r->older_cap = count;
        r->older = xrealloc(r->older, count * sizeof(*r->older));
    }
    for (size_t i = 0; i < count; i++) {
        if (!take_change(in, &r->older[i])) {
            return false;
        }
    }
    return true;
}

static bool take_entry(struct reading *r, struct slice *in)
{
    uint64_t shared, suffix, create, version, lease, older_count;
    struct change latest;
    if (!take_varint(in, &shared) || !take_varint(in, &suffix) || shared > r->key.len || suffix > in->len) {
        return false;
    }
    r->key.len = shared;
    buf_add(&r->key, in->data, suffix);
    in->data += suffix;
    in->len -= suffix;
    if (!take_change(in, &latest) || !take_varint(in, &create) || !take_varint(in, &version) ||
        !take_varint(in, &lease) || !take_varint(in, &older_count) || !take_older(r, in, older_count)) {
        return false;
    }
    r->entries++;
    return latest.main <= atomic_load(&r->m->rev) &&
           index_append(r->m->ix, buf_slice(&r->key), latest, (int64_t)create, (int64_t)version, (int64_t)lease, r->older,
                        older_count) != NULL;
}

static bool crc_is_right(struct slice value)
{
    return value.len >= 4 && crc32c(0, value.data + 4, value.len - 4) == rev_load32(value.data);
}

static bool read_pages(struct mvcc *m, uint64_t generation, uint32_t pages, uint64_t entries)
{
    struct reading r = {.m = m};
    uint8_t first[13], want[13];
    struct slice key, value;
    struct db_iter *it = db_iter_new(m->db, NULL, true);
    bool good = true;
    db_iter_seek(it, page_key(first, generation, 0));
    for (uint32_t page = 0; page < pages && good; page++, db_iter_next(it)) {
        good = db_iter_get(it, &key, &value) && slice_eq(key, page_key(want, generation, page)) && crc_is_right(value);
        if (!good) {
            break;
        }
        struct slice in = {value.data + 4, value.len - 4};
        buf_reset(&r.key);
        while (in.len > 0 && good) {
            good = take_entry(&r, &in);
        }
    }
    good = good && r.entries == entries;
    db_iter_free(it);
    buf_fini(&r.key);
    free(r.older);
    return good;
}

/* The newest generation that has a commit; *highest: of all pages. */
static bool find_commit(struct mvcc *m, uint64_t *generation, uint64_t *highest, struct buf *commit)
{
    const uint8_t first = 'i';
    uint8_t seek[13];
    struct slice key, value;
    struct db_iter *it = db_iter_new(m->db, NULL, true);
    bool found = false;
    db_iter_seek(it, slice_of(&first, 1));
    while (db_iter_get(it, &key, &value) && key.len == 13 && key.data[0] == 'i') {
        *highest = rev_load64(key.data + 1);
        db_iter_seek(it, page_key(seek, *highest, COMMIT_PAGE)); /* skips the pages */
        if (db_iter_get(it, &key, &value) && slice_eq(key, slice_of(seek, sizeof(seek)))) {
            found = true;
            *generation = *highest;
            buf_reset(commit);
            buf_add_slice(commit, value);
            db_iter_next(it);
        }
    }
    db_iter_free(it);
    return found;
}

int checkpoint_load(struct mvcc *m, int64_t *from_rev)
{
    struct buf commit = BUF_INIT;
    uint64_t generation = 0;
    bool found = find_commit(m, &generation, &m->checkpoint_generation, &commit);
    int64_t compacted = own_number(m, 'p', 0);
    if (found && commit.len == 24 && (int64_t)rev_load64(commit.data + 4) < compacted) {
        found = false; /* tombstones that it does not know of may be gone */
    }
    bool good = found && commit.len == 24 && crc_is_right(buf_slice(&commit)) &&
                read_pages(m, generation, rev_load32(commit.data + 12), rev_load64(commit.data + 16));
    if (good) {
        m->checkpoint_rev = (int64_t)rev_load64(commit.data + 4);
        *from_rev = m->checkpoint_rev + 1;
    } else if (found) {
        log_warnx("mvcc: %s: index checkpoint %llu is damaged: reading all records instead", db_dir(m->db),
                  (unsigned long long)generation);
        index_free(m->ix);
        m->ix = index_new();
    }
    buf_fini(&commit);
    return good ? 0 : E_NOT_FOUND;
}
