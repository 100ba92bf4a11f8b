/* db - the only file that knows LevelDB's API; db_check.c knows its files.
 * Options and why: paranoid_checks (damage stops the open instead of losing records), no compression (values are small and
 * mostly unique, and the CPU is the budget: architecture §7), a write buffer of 16 MiB (fewer, larger tables), a block cache
 * of 8 MiB (hot records live in stored's own cache), checksums verified on every read. */
#include "stored/db.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <leveldb/c.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/file.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"

#define DB_WRITE_BUFFER (16 * MIB)
#define DB_BLOCK_CACHE (8 * MIB)
#define DB_OPEN_FILES 500
#define DB_FILE_BYTES (8 * MIB)
#define DB_SIZE_AGE_MS 500

struct db {
    leveldb_t *level;
    leveldb_options_t *options;
    leveldb_cache_t *blocks;
    leveldb_writeoptions_t *write, *write_sync;
    leveldb_readoptions_t *read;
    char *dir;
    pthread_mutex_t size_mutex; /* guards the two below */
    uint64_t size_bytes, size_at_ms;
};

struct db_batch {
    leveldb_writebatch_t *level;
    size_t bytes, count;
};

struct db_snapshot {
    const leveldb_snapshot_t *level;
    leveldb_readoptions_t *read;
};

struct db_iter {
    struct db *db;
    leveldb_iterator_t *level;
    leveldb_readoptions_t *read;
};

static _Atomic bool saw_damage;

bool db_saw_damage(void)
{
    return saw_damage;
}

void db_forget_damage(void)
{
    saw_damage = false;
}

static struct {
    void (*cb)(void *arg, const char *dir);
    void *arg;
} on_damage;

void db_on_damage(void (*cb)(void *arg, const char *dir), void *arg)
{
    on_damage.cb = cb;
    on_damage.arg = arg;
}

static int error_code(const char *text)
{
    if (strncmp(text, "Corruption", 10) == 0) {
        return E_DAMAGED;
    }
    if (strstr(text, "lock ") != NULL) {
        return E_LOCKED;
    }
    return E_IO;
}

static bool has_current(const char *dir)
{
    char *path = xasprintf("%s/CURRENT", dir);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

/* LevelDB takes a directory without CURRENT for a new one, and throws away the tables that it finds there. It writes CURRENT
 * before any of them. */
static int check_current(const char *dir, struct buf *why)
{
    DIR *d = opendir(dir);
    const char *orphan = NULL;
    if (d == NULL) {
        return 0; /* LevelDB says what is wrong with it */
    }
    if (faccessat(dirfd(d), "CURRENT", F_OK, 0) != 0 && errno == ENOENT) {
        struct dirent *e;
        while (orphan == NULL && (e = readdir(d)) != NULL) {
            const char *dot = strrchr(e->d_name, '.');
            orphan = dot != NULL && (strcmp(dot, ".ldb") == 0 || strcmp(dot, ".log") == 0) ? e->d_name : NULL;
        }
    }
    if (orphan != NULL) {
        buf_printf(why, "%s/CURRENT: missing, but %s is there", dir, orphan);
    }
    closedir(d);
    return orphan != NULL ? E_DAMAGED : 0;
}

int db_open(struct db **out, const char *dir, bool lenient, struct buf *why)
{
    if (check_current(dir, why) != 0) {
        return E_DAMAGED;
    }
    struct db *db = xcalloc(1, sizeof(*db));
    db->dir = xstrdup(dir);
    pthread_mutex_init(&db->size_mutex, NULL);
    db->blocks = leveldb_cache_create_lru(DB_BLOCK_CACHE);
    db->options = leveldb_options_create();
    leveldb_options_set_create_if_missing(db->options, 1);
    leveldb_options_set_paranoid_checks(db->options, lenient ? 0 : 1);
    leveldb_options_set_write_buffer_size(db->options, DB_WRITE_BUFFER);
    leveldb_options_set_max_open_files(db->options, DB_OPEN_FILES);
    leveldb_options_set_max_file_size(db->options, DB_FILE_BYTES);
    leveldb_options_set_cache(db->options, db->blocks);
    leveldb_options_set_compression(db->options, leveldb_no_compression);
    db->write = leveldb_writeoptions_create();
    db->write_sync = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(db->write_sync, 1);
    db->read = leveldb_readoptions_create();
    leveldb_readoptions_set_verify_checksums(db->read, 1);

    char *error = NULL;
    db->level = leveldb_open(db->options, dir, &error);
    if (db->level == NULL) {
        int err = error_code(error);
        /* A file that LevelDB knows of and does not find is damage like any other. */
        if (err == E_IO && strstr(error, "No such file") != NULL && has_current(dir)) {
            err = E_DAMAGED;
        }
        buf_printf(why, "%s: %s", dir, error);
        leveldb_free(error);
        db_close(db);
        return err;
    }
    *out = db;
    return 0;
}

void db_close(struct db *db)
{
    if (db == NULL) {
        return;
    }
    if (db->level != NULL) {
        leveldb_close(db->level);
    }
    leveldb_options_destroy(db->options);
    leveldb_cache_destroy(db->blocks);
    leveldb_writeoptions_destroy(db->write);
    leveldb_writeoptions_destroy(db->write_sync);
    leveldb_readoptions_destroy(db->read);
    pthread_mutex_destroy(&db->size_mutex);
    free(db->dir);
    free(db);
}

const char *db_dir(const struct db *db)
{
    return db->dir;
}

/* --- batches ------------------------------------------------------------------------------------ */

struct db_batch *db_batch_new(void)
{
    struct db_batch *b = xcalloc(1, sizeof(*b));
    b->level = leveldb_writebatch_create();
    return b;
}

void db_batch_free(struct db_batch *b)
{
    if (b != NULL) {
        leveldb_writebatch_destroy(b->level);
        free(b);
    }
}

void db_batch_clear(struct db_batch *b)
{
    leveldb_writebatch_clear(b->level);
    b->bytes = 0;
    b->count = 0;
}

void db_batch_put(struct db_batch *b, struct slice key, struct slice value)
{
    leveldb_writebatch_put(b->level, (const char *)key.data, key.len, (const char *)value.data, value.len);
    b->bytes += key.len + value.len;
    b->count++;
}

void db_batch_delete(struct db_batch *b, struct slice key)
{
    leveldb_writebatch_delete(b->level, (const char *)key.data, key.len);
    b->bytes += key.len;
    b->count++;
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
    char *error = NULL;
    leveldb_write(db->level, sync ? db->write_sync : db->write, b->level, &error);
    if (error != NULL) {
        if (error_code(error) == E_DAMAGED && on_damage.cb != NULL) {
            on_damage.cb(on_damage.arg, db->dir);
        }
        fatalx("db: write to %s failed: %s", db->dir, error);
    }
    db_batch_clear(b);
}

/* --- reads -------------------------------------------------------------------------------------- */

static int read_failed(const struct db *db, char *error)
{
    int err = error_code(error);
    log_error("db: read from %s failed: %s", db->dir, error);
    if (err == E_DAMAGED)
        saw_damage = true;
    leveldb_free(error);
    return err == E_LOCKED ? E_IO : err;
}

int db_get(struct db *db, const struct db_snapshot *snap, struct slice key, struct buf *out)
{
    char *error = NULL;
    size_t len = 0;
    const leveldb_readoptions_t *read = snap != NULL ? snap->read : db->read;
    char *value = leveldb_get(db->level, read, (const char *)key.data, key.len, &len, &error);
    if (error != NULL) {
        leveldb_free(value);
        return read_failed(db, error);
    }
    if (value == NULL) {
        return E_NOT_FOUND;
    }
    buf_add(out, value, len);
    leveldb_free(value);
    return 0;
}

struct db_snapshot *db_snapshot_new(struct db *db)
{
    struct db_snapshot *s = xcalloc(1, sizeof(*s));
    s->level = leveldb_create_snapshot(db->level);
    s->read = leveldb_readoptions_create();
    leveldb_readoptions_set_verify_checksums(s->read, 1);
    leveldb_readoptions_set_snapshot(s->read, s->level);
    return s;
}

void db_snapshot_free(struct db *db, struct db_snapshot *s)
{
    if (s != NULL) {
        leveldb_readoptions_destroy(s->read);
        leveldb_release_snapshot(db->level, s->level);
        free(s);
    }
}

struct db_iter *db_iter_new(struct db *db, const struct db_snapshot *snap, bool bulk)
{
    struct db_iter *it = xcalloc(1, sizeof(*it));
    it->db = db;
    it->read = leveldb_readoptions_create();
    leveldb_readoptions_set_verify_checksums(it->read, 1);
    leveldb_readoptions_set_fill_cache(it->read, bulk ? 0 : 1);
    if (snap != NULL) {
        leveldb_readoptions_set_snapshot(it->read, snap->level);
    }
    it->level = leveldb_create_iterator(db->level, it->read);
    return it;
}

void db_iter_free(struct db_iter *it)
{
    if (it != NULL) {
        leveldb_iter_destroy(it->level);
        leveldb_readoptions_destroy(it->read);
        free(it);
    }
}

void db_iter_seek(struct db_iter *it, struct slice key)
{
    leveldb_iter_seek(it->level, (const char *)key.data, key.len);
}

void db_iter_next(struct db_iter *it)
{
    leveldb_iter_next(it->level);
}

bool db_iter_get(struct db_iter *it, struct slice *key, struct slice *value)
{
    if (!leveldb_iter_valid(it->level)) {
        return false;
    }
    key->data = (const uint8_t *)leveldb_iter_key(it->level, &key->len);
    value->data = (const uint8_t *)leveldb_iter_value(it->level, &value->len);
    return true;
}

int db_iter_status(struct db_iter *it)
{
    char *error = NULL;
    leveldb_iter_get_error(it->level, &error);
    return error == NULL ? 0 : read_failed(it->db, error);
}

/* --- upkeep ------------------------------------------------------------------------------------- */

/* LevelDB rewrites a level's table only when one above overlaps it, and looks how deep the tables lie before it flushes
 * what is in memory: keys put and deleted within one flush would stay for good. So: flush, then lay a table over all of
 * it (its two keys lie outside every prefix), which pushes each level into the next one. Above ten tables a level LevelDB cuts that
 * table in two, and only what ordinary compaction would merge is merged. */
void db_compact_all(struct db *db)
{
    static const uint8_t first[1] = {0x00}, last[1] = {0xff};
    struct slice ends[2] = {slice_of(first, sizeof(first)), slice_of(last, sizeof(last))};
    struct db_batch *batch = db_batch_new();

    leveldb_compact_range(db->level, NULL, 0, NULL, 0);
    for (int i = 0; i < 2; i++) {
        db_batch_put(batch, ends[i], SLICE_EMPTY);
    }
    db_write(db, batch, false);
    leveldb_compact_range(db->level, NULL, 0, NULL, 0); /* finds them in memory: flushes them, above what is there */
    for (int i = 0; i < 2; i++) {
        db_batch_delete(batch, ends[i]);
    }
    db_write(db, batch, false);
    db_batch_free(batch);
}

/* Calls cb with the name of each file of the directory until it says stop. */
static void each_file(const char *dir, void (*cb)(void *arg, int dir_fd, const char *name), void *arg)
{
    DIR *d = opendir(dir);
    if (d == NULL) {
        fatal("db: cannot list %s", dir);
    }
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        if (e->d_name[0] != '.') {
            cb(arg, dirfd(d), e->d_name);
        }
    }
    closedir(d);
}

static void add_size(void *arg, int dir_fd, const char *name)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, 0) == 0 && S_ISREG(st.st_mode)) {
        *(uint64_t *)arg += (uint64_t)st.st_size;
    }
}

uint64_t db_disk_bytes(struct db *db)
{
    uint64_t now = clock_now_ms();
    pthread_mutex_lock(&db->size_mutex);
    if (db->size_at_ms == 0 || now - db->size_at_ms >= DB_SIZE_AGE_MS) {
        uint64_t bytes = 0;
        each_file(db->dir, add_size, &bytes);
        db->size_bytes = bytes;
        db->size_at_ms = now;
    }
    uint64_t bytes = db->size_bytes;
    pthread_mutex_unlock(&db->size_mutex);
    return bytes;
}

struct sync_walk {
    struct db *db;
    void (*on_log)(void *arg, const char *name, uint64_t size);
    void *arg;
};

static void sync_log(void *arg, int dir_fd, const char *name)
{
    struct sync_walk *w = arg;
    if (!db_name_is_log(name)) {
        return;
    }
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        return;
    }
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0 || fdatasync(fd) != 0) {
        fatal("db: cannot sync %s/%s", w->db->dir, name);
    }
    close(fd);
    if (w->on_log != NULL) {
        w->on_log(w->arg, name, (uint64_t)st.st_size);
    }
}

void db_sync(struct db *db, void (*on_log)(void *arg, const char *name, uint64_t size), void *arg)
{
    struct sync_walk w = {.db = db, .on_log = on_log, .arg = arg};
    each_file(db->dir, sync_log, &w);
    if (file_sync_dir(db->dir) != 0) {
        fatal("db: cannot sync %s", db->dir);
    }
}
