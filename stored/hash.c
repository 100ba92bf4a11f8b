/* hash - a checksum of the keyspace that members compare (HashKV, semantics.md §15):
 * CRC32C over "key" and then, for each record in order of revision, main(8, BE) '_' sub(8, BE) ['t'] and the KeyValue as etcd
 * stores it (a tombstone's has only the key). Records above the asked revision are skipped, and so are those
 * at or below the compacted one that compaction does not keep, whether they are gone already or not. */
#include <time.h>

#include "common/crc32c.h"
#include "common/err.h"
#include "proto/pb.h"
#include "stored/mvcc_inner.h"

#define TRIES_MAX 10

/* Is this record what compaction at compact_rev keeps of its key? */
static bool is_kept(struct mvcc *m, struct slice key, int64_t main, int32_t sub, int64_t compact_rev)
{
    struct sight s;
    pthread_rwlock_rdlock(&m->lock);
    const struct entry *e = index_find(m->ix, key);
    bool found = e != NULL && entry_at(e, compact_rev, &s);
    pthread_rwlock_unlock(&m->lock);
    return found && s.at.main == main && (int32_t)s.at.sub == sub && (!s.at.tombstone || main == compact_rev);
}

static uint32_t hash_record(uint32_t crc, int64_t main, int32_t sub, bool tombstone, const struct api_key_value *kv,
                            struct slice record)
{
    uint8_t key[18];
    rev_store64(key, (uint64_t)main);
    key[8] = '_';
    rev_store64(key + 9, (uint64_t)sub);
    key[17] = 't';
    crc = crc32c(crc, key, tombstone ? 18 : 17);
    if (!tombstone) {
        return crc32c(crc, record.data, record.len);
    }
    struct buf plain = BUF_INIT;
    pb_add_bytes(&plain, 1, kv->key);
    crc = crc32c(crc, plain.data, plain.len);
    buf_fini(&plain);
    return crc;
}

static int hash_scan(struct mvcc *m, struct db_iter *it, int64_t rev, int64_t compact_rev, uint32_t *hash)
{
    const uint8_t first = REV_PREFIX;
    struct slice key, record;
    uint32_t crc = crc32c(0, "key", 3);
    for (db_iter_seek(it, slice_of(&first, 1)); db_iter_get(it, &key, &record); db_iter_next(it)) {
        int64_t main;
        int32_t sub;
        bool tombstone;
        struct api_key_value kv;
        if (key.data[0] != REV_PREFIX) {
            break;
        }
        int err = record_decode(m, key, record, &kv);
        if (err != 0) {
            return err;
        }
        rev_key_decode(key, &main, &sub, &tombstone);
        if (main > rev) {
            break;
        }
        if (main > compact_rev || is_kept(m, kv.key, main, sub, compact_rev)) {
            crc = hash_record(crc, main, sub, tombstone, &kv, record);
        }
    }
    *hash = crc;
    return db_iter_status(it);
}

/* Revision 0, the current one, is that of the last written batch. */
static int hash_once(struct mvcc *m, int64_t rev, uint32_t *hash, int64_t *hash_rev, int64_t *compact_rev)
{
    struct db_iter *it = NULL;
    int64_t flushed = atomic_load(&m->flushed_rev);
    *compact_rev = atomic_load(&m->compact_rev);
    *hash_rev = rev > 0 ? rev : flushed;
    if (rev > flushed) {
        return rev > atomic_load(&m->rev) ? E_FUTURE_REV : E_AGAIN; /* in the open batch, which is written soon */
    }
    if (rev > 0 && rev < *compact_rev) {
        return E_COMPACTED;
    }
    it = db_iter_new(m->db, NULL, true);
    int err = hash_scan(m, it, *hash_rev, *compact_rev, hash);
    db_iter_free(it);
    return err;
}

int mvcc_hash(struct mvcc *m, int64_t rev, uint32_t *hash, int64_t *hash_rev, int64_t *compact_rev)
{
    for (int i = 0; i < TRIES_MAX; i++) {
        int err = hash_once(m, rev, hash, hash_rev, compact_rev);
        if (err == E_AGAIN) {
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
            continue;
        }
        /* A compaction meanwhile: the index no longer tells what the older mark kept. */
        if (err != 0 || *compact_rev == atomic_load(&m->compact_rev)) {
            return err;
        }
    }
    return E_AGAIN;
}
