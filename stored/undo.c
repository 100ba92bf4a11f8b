/* undo - other modules' keys as they were at the last durable point, so that a store that lost a batch to a power cut
 * can go back there (sync.c).
 *
 * Records carry their revision, so those above the durable point are simply deleted. Meta keys are overwritten in
 * place; therefore each batch also writes, for each meta key it changes, what the key had *at the durable point*, not just
 * before: then any one of these that survives is enough, whichever batches were lost. While a sync runs there are two points,
 * the old one and the one being made, and both get their undo records; the base in the key tells them apart. */
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "stored/mvcc_inner.h"

#define DELETE_BATCH 1000

struct undo_base {
    UT_hash_handle hh;
    struct buf record; /* present(1) key length(4) key value: as it is written */
    struct slice key;  /* in record */
};

static struct undo_base *base_find(struct mvcc *m, struct undo_epoch *e, struct slice key)
{
    struct undo_base *b;
    HASH_FIND(hh, e->values, key.data, key.len, b);
    if (b != NULL) {
        return b;
    }
    b = xcalloc(1, sizeof(*b));
    uint8_t len[4];
    rev_store32(len, (uint32_t)key.len);
    buf_add_byte(&b->record, 1);
    buf_add(&b->record, len, sizeof(len));
    buf_add_slice(&b->record, key);
    int err = db_get(m->db, NULL, key, &b->record); /* not changed since the base: what is there is what was there */
    if (err == E_NOT_FOUND) {
        b->record.data[0] = 0;
    } else if (err != 0) {
        fatalx("mvcc: %s: cannot read a key that is about to change: %s", db_dir(m->db), err_text(err));
    }
    b->key = slice_of(b->record.data + 5, key.len);
    HASH_ADD_KEYPTR(hh, e->values, b->key.data, b->key.len, b);
    return b;
}

void undo_write(struct mvcc *m, uint64_t index)
{
    uint32_t seq = 0;
    for (size_t at = 0; at < m->meta_keys.len;) {
        size_t len = rev_load32(m->meta_keys.data + at);
        struct slice meta = {m->meta_keys.data + at + 4, len};
        at += 4 + len;
        for (int i = 0; i < m->epochs; i++) {
            uint8_t key[22] = {META_OWN, 'u'};
            rev_store64(key + 2, m->epoch[i].base);
            rev_store64(key + 10, index);
            rev_store32(key + 18, seq);
            db_batch_put(m->batch, slice_of(key, sizeof(key)), buf_slice(&base_find(m, &m->epoch[i], meta)->record));
        }
        seq++;
    }
}

void undo_epoch_fini(struct undo_epoch *e)
{
    struct undo_base *b, *tmp;
    HASH_ITER(hh, e->values, b, tmp) {
        HASH_DEL(e->values, b);
        buf_fini(&b->record);
        free(b);
    }
    *e = (struct undo_epoch){0};
}

int undo_apply(struct mvcc *m, uint64_t base, struct db_batch *b)
{
    uint8_t first[10] = {META_OWN, 'u'};
    struct slice key, value;
    struct db_iter *it = db_iter_new(m->db, NULL, true);
    int err = 0;
    rev_store64(first + 2, base);
    for (db_iter_seek(it, slice_of(first, 2)); err == 0 && db_iter_get(it, &key, &value); db_iter_next(it)) {
        if (key.len != 22 || memcmp(key.data, first, 2) != 0) {
            break;
        }
        db_batch_delete(b, key);
        if (memcmp(key.data, first, sizeof(first)) != 0) {
            continue; /* of an older point, left over */
        }
        size_t len = value.len < 5 ? SIZE_MAX : rev_load32(value.data + 1);
        if (len > value.len - 5) {
            log_error("mvcc: %s: an undo record is damaged", db_dir(m->db));
            err = E_DAMAGED;
            break;
        }
        struct slice meta = {value.data + 5, len};
        if (value.data[0] != 0) {
            db_batch_put(b, meta, slice_of(meta.data + len, value.len - 5 - len));
        } else {
            db_batch_delete(b, meta);
        }
    }
    if (err == 0) {
        err = db_iter_status(it);
    }
    db_iter_free(it);
    return err;
}

void undo_purge(struct mvcc *m, uint64_t below)
{
    const uint8_t first[2] = {META_OWN, 'u'};
    struct slice key, value;
    struct db_iter *it = db_iter_new(m->db, NULL, true);
    struct db_batch *b = db_batch_new();
    for (db_iter_seek(it, slice_of(first, 2)); db_iter_get(it, &key, &value); db_iter_next(it)) {
        if (key.len != 22 || memcmp(key.data, first, 2) != 0 || rev_load64(key.data + 2) >= below) {
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
