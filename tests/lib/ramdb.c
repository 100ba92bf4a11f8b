/* ramdb - see ramdb.h. A table is an array of counted pairs in order of key; iterators and snapshots hold a copy of the
 * array, so they see the state of their birth. */
#include "tests/lib/ramdb.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "stored/db.h"

struct pair {
    unsigned refs;
    size_t key_len, value_len;
    uint8_t bytes[];
};

struct table {
    struct pair **pairs;
    size_t count, cap;
};

struct db_batch {
    struct pair **ops; /* value_len SIZE_MAX: deletion */
    size_t count, cap, bytes;
};

struct db {
    struct db *next;
    char *dir;
    bool open, frozen;
    struct table now, synced;
    struct db_batch *unsynced; /* in order */
    size_t unsynced_count, unsynced_cap;
};

struct db_snapshot {
    struct table table;
};

struct db_iter {
    struct table table;
    size_t at;
};

static struct db *all;

/* --- pairs and tables ------------------------------------------------------------------------------ */

static struct pair *pair_new(struct slice key, struct slice value, bool deletion)
{
    struct pair *p = xmalloc(sizeof(*p) + key.len + value.len);

    p->refs = 1;
    p->key_len = key.len;
    p->value_len = deletion ? SIZE_MAX : value.len;
    memcpy(p->bytes, key.data, key.len);
    if (value.len > 0)
        memcpy(p->bytes + key.len, value.data, value.len);
    return p;
}

static struct pair *pair_ref(struct pair *p)
{
    p->refs++;
    return p;
}

static void pair_unref(struct pair *p)
{
    if (--p->refs == 0)
        free(p);
}

static struct slice pair_key(const struct pair *p)
{
    return slice_of(p->bytes, p->key_len);
}

static struct slice pair_value(const struct pair *p)
{
    return slice_of(p->bytes + p->key_len, p->value_len);
}

static size_t table_find(const struct table *t, struct slice key)
{
    size_t low = 0, high = t->count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (slice_cmp(pair_key(t->pairs[middle]), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void table_do(struct table *t, struct pair *op)
{
    size_t at = table_find(t, pair_key(op));
    bool found = at < t->count && slice_eq(pair_key(t->pairs[at]), pair_key(op));

    if (found) {
        pair_unref(t->pairs[at]);
        if (op->value_len != SIZE_MAX) {
            t->pairs[at] = pair_ref(op);
            return;
        }
        memmove(t->pairs + at, t->pairs + at + 1, (--t->count - at) * sizeof(*t->pairs));
        return;
    }
    if (op->value_len == SIZE_MAX)
        return;
    if (t->count == t->cap) {
        t->cap = MAX(t->cap * 2, 64);
        t->pairs = xrealloc(t->pairs, t->cap * sizeof(*t->pairs));
    }
    memmove(t->pairs + at + 1, t->pairs + at, (t->count++ - at) * sizeof(*t->pairs));
    t->pairs[at] = pair_ref(op);
}

static void table_fini(struct table *t)
{
    for (size_t i = 0; i < t->count; i++)
        pair_unref(t->pairs[i]);
    free(t->pairs);
    *t = (struct table){0};
}

static void table_copy(struct table *to, const struct table *from)
{
    *to = (struct table){.count = from->count, .cap = from->count + 1};
    to->pairs = xmalloc(to->cap * sizeof(*to->pairs));
    for (size_t i = 0; i < from->count; i++)
        to->pairs[i] = pair_ref(from->pairs[i]);
}

/* --- batches ------------------------------------------------------------------------------------------ */

struct db_batch *db_batch_new(void)
{
    return xcalloc(1, sizeof(struct db_batch));
}

void db_batch_clear(struct db_batch *b)
{
    for (size_t i = 0; i < b->count; i++)
        pair_unref(b->ops[i]);
    b->count = b->bytes = 0;
}

static void batch_fini(struct db_batch *b)
{
    db_batch_clear(b);
    free(b->ops);
    *b = (struct db_batch){0};
}

void db_batch_free(struct db_batch *b)
{
    if (!b)
        return;
    batch_fini(b);
    free(b);
}

static void batch_add(struct db_batch *b, struct pair *op)
{
    if (b->count == b->cap) {
        b->cap = MAX(b->cap * 2, 16);
        b->ops = xrealloc(b->ops, b->cap * sizeof(struct pair *));
    }
    b->ops[b->count++] = op;
    b->bytes += op->key_len + (op->value_len == SIZE_MAX ? 0 : op->value_len);
}

void db_batch_put(struct db_batch *b, struct slice key, struct slice value)
{
    batch_add(b, pair_new(key, value, false));
}

void db_batch_delete(struct db_batch *b, struct slice key)
{
    batch_add(b, pair_new(key, SLICE_EMPTY, true));
}

size_t db_batch_bytes(const struct db_batch *b)
{
    return b->bytes;
}

size_t db_batch_count(const struct db_batch *b)
{
    return b->count;
}

void db_write(struct db *db, struct db_batch *b, bool sync)
{
    if (db->frozen) {
        db_batch_clear(b);
        return;
    }
    for (size_t i = 0; i < b->count; i++)
        table_do(&db->now, b->ops[i]);
    if (db->unsynced_count == db->unsynced_cap) {
        db->unsynced_cap = MAX(db->unsynced_cap * 2, 16);
        db->unsynced = xrealloc(db->unsynced, db->unsynced_cap * sizeof(*db->unsynced));
    }
    db->unsynced[db->unsynced_count++] = *b;
    *b = (struct db_batch){0};
    if (sync)
        db_sync(db, NULL, NULL);
}

void db_sync(struct db *db, void (*on_log)(void *arg, const char *name, uint64_t size), void *arg)
{
    UNUSED(on_log); /* there are no log files */
    UNUSED(arg);
    for (size_t i = 0; i < db->unsynced_count && !db->frozen; i++) {
        for (size_t k = 0; k < db->unsynced[i].count; k++)
            table_do(&db->synced, db->unsynced[i].ops[k]);
        batch_fini(&db->unsynced[i]);
    }
    if (!db->frozen)
        db->unsynced_count = 0;
}

/* --- life ----------------------------------------------------------------------------------------------- */

static struct db *find(const char *dir)
{
    for (struct db *db = all; db; db = db->next)
        if (strcmp(db->dir, dir) == 0)
            return db;
    return NULL;
}

int db_open(struct db **db, const char *dir, bool lenient, struct buf *why)
{
    struct db *found = find(dir);

    UNUSED(lenient);
    if (!found) {
        found = xcalloc(1, sizeof(*found));
        found->dir = xstrdup(dir);
        found->next = all;
        all = found;
    }
    if (found->open) {
        buf_printf(why, "%s: is open", dir);
        return E_LOCKED;
    }
    found->open = true;
    *db = found;
    return 0;
}

void db_close(struct db *db)
{
    if (db)
        db->open = false;
}

const char *db_dir(const struct db *db)
{
    return db->dir;
}

void ramdb_freeze(const char *dir, bool frozen)
{
    struct db *db = find(dir);

    if (db)
        db->frozen = frozen;
}

void ramdb_power_cut(const char *dir, bool (*keep)(void *arg), void *arg)
{
    struct db *db = find(dir);

    if (!db)
        return;
    for (size_t i = 0; i < db->unsynced_count; i++)
        if (!keep(arg)) {
            batch_fini(&db->unsynced[i]);
            db->unsynced[i] = (struct db_batch){0};
        }
    db_sync(db, NULL, NULL);
    table_fini(&db->now);
    table_copy(&db->now, &db->synced);
}

void ramdb_wipe(const char *dir)
{
    for (struct db **at = &all; *at; at = &(*at)->next) {
        struct db *db = *at;

        if (strcmp(db->dir, dir) != 0)
            continue;
        must(!db->open);
        *at = db->next;
        for (size_t i = 0; i < db->unsynced_count; i++)
            batch_fini(&db->unsynced[i]);
        free(db->unsynced);
        table_fini(&db->now);
        table_fini(&db->synced);
        free(db->dir);
        free(db);
        return;
    }
}

/* --- reads ------------------------------------------------------------------------------------------------- */

int db_get(struct db *db, const struct db_snapshot *snap, struct slice key, struct buf *out)
{
    const struct table *t = snap ? &snap->table : &db->now;
    size_t at = table_find(t, key);

    if (at == t->count || !slice_eq(pair_key(t->pairs[at]), key))
        return E_NOT_FOUND;
    buf_add_slice(out, pair_value(t->pairs[at]));
    return 0;
}

struct db_snapshot *db_snapshot_new(struct db *db)
{
    struct db_snapshot *s = xcalloc(1, sizeof(*s));

    table_copy(&s->table, &db->now);
    return s;
}

void db_snapshot_free(struct db *db, struct db_snapshot *s)
{
    UNUSED(db);
    if (!s)
        return;
    table_fini(&s->table);
    free(s);
}

struct db_iter *db_iter_new(struct db *db, const struct db_snapshot *snap, bool bulk)
{
    struct db_iter *it = xcalloc(1, sizeof(*it));

    UNUSED(bulk);
    table_copy(&it->table, snap ? &snap->table : &db->now);
    it->at = it->table.count;
    return it;
}

void db_iter_free(struct db_iter *it)
{
    table_fini(&it->table);
    free(it);
}

void db_iter_seek(struct db_iter *it, struct slice key)
{
    it->at = table_find(&it->table, key);
}

void db_iter_next(struct db_iter *it)
{
    it->at++;
}

bool db_iter_get(struct db_iter *it, struct slice *key, struct slice *value)
{
    if (it->at >= it->table.count)
        return false;
    *key = pair_key(it->table.pairs[it->at]);
    *value = pair_value(it->table.pairs[it->at]);
    return true;
}

int db_iter_status(struct db_iter *it)
{
    UNUSED(it);
    return 0;
}

void db_compact_all(struct db *db)
{
    UNUSED(db);
}

uint64_t db_disk_bytes(struct db *db)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < db->now.count; i++)
        bytes += db->now.pairs[i]->key_len + db->now.pairs[i]->value_len;
    return bytes;
}

int db_log_check(const char *dir, const char *name, uint64_t size, uint64_t *at)
{
    UNUSED(dir);
    UNUSED(name);
    UNUSED(size);
    UNUSED(at);
    return E_NOT_FOUND;
}

/* Memory is not damaged. */
bool db_saw_damage(void)
{
    return false;
}

void db_forget_damage(void)
{
}

void db_on_damage(void (*cb)(void *arg, const char *dir), void *arg)
{
    UNUSED(cb);
    UNUSED(arg);
}

bool db_name_is_log(const char *name)
{
    UNUSED(name);
    return false;
}

void db_find_damage(const char *dir, struct buf *why)
{
    UNUSED(dir);
    UNUSED(why);
}
