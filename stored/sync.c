/* sync - the durable point: up to which raft index this store survives a power cut, and the way back to it.
 *
 * Batches are written without a sync; the log of raftd can bring them again. So it is enough to know, after the power was
 * gone, what is surely here. mvcc_sync notes the applied index A, syncs LevelDB's log files, and then names A in the file
 * SYNCED beside LevelDB's directory. raftd keeps its log above A.
 *
 *   SYNCED    lines: "index N" "rev N" "boot ID" "clean 0|1" "log NAME BYTES"* "crc HEX" (CRC32C of the lines before)
 *
 * After a start on another boot id than SYNCED's everything above A may be missing in any pattern: LevelDB's recovery drops a
 * lost block of its log and goes on. The markers tell: each batch wrote index -> index before, so from A on they must
 * be a chain to the applied index. If they are not, the store goes back to A: records above its revision are deleted, meta keys
 * get their values of then (undo.c), and raftd sends the entries again.
 *
 * The bytes that were synced are checked by themselves before LevelDB sees them, because it takes a log or MANIFEST that became
 * shorter for one that was never longer. Damage in them is refused. Damage behind them is what a power cut does.
 *
 * On the boot of the last run nothing can be missing but what was never written: the page cache outlives the process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/err.h"
#include "common/file.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "stored/mvcc_inner.h"

#define SYNCED_BYTES_MAX (64 * KIB)
#define SYNCED_LOGS_MAX 16
#define DELETE_BATCH 1000

struct synced_log {
    char name[64];
    unsigned long long size;
};
struct synced_file {
    bool found;
    bool other_boot;
    unsigned long long index;
    long long rev;
    char boot_id[64];
    int clean;
    struct synced_log logs[SYNCED_LOGS_MAX];
    int log_count;
};

/* --- the file ----------------------------------------------------------------------------------- */

static char *synced_path(const char *dir)
{
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/') {
        len--;
    }
    while (len > 0 && dir[len - 1] != '/') {
        len--;
    }
    return xasprintf("%.*sSYNCED", (int)len, dir);
}

static bool synced_line(struct synced_file *s, const char *line)
{
    struct synced_log *log = &s->logs[s->log_count];
    if (sscanf(line, "index %llu", &s->index) == 1 || sscanf(line, "rev %lld", &s->rev) == 1 ||
        sscanf(line, "boot %63s", s->boot_id) == 1 || sscanf(line, "clean %d", &s->clean) == 1) {
        return true;
    }
    if (s->log_count < SYNCED_LOGS_MAX && sscanf(line, "log %63s %llu", log->name, &log->size) == 2) {
        s->log_count++;
        return true;
    }
    return false;
}

static int synced_parse(struct synced_file *s, char *text)
{
    char *crc = strstr(text, "crc ");
    unsigned sum = 0;
    if (crc == NULL || sscanf(crc, "crc %x", &sum) != 1 || crc32c(0, text, (size_t)(crc - text)) != sum) {
        return E_DAMAGED;
    }
    *crc = '\0';
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        if (!synced_line(s, line)) {
            return E_DAMAGED;
        }
    }
    s->found = true;
    return 0;
}

static int synced_read(struct mvcc *m, struct synced_file *s, struct buf *why)
{
    struct buf text = BUF_INIT;
    FILE *probe = fopen(m->synced_path, "re");
    if (probe == NULL) {
        return 0; /* a new store, or one that lost it: synced_check decides */
    }
    fclose(probe);
    int err = file_read_all(m->synced_path, SYNCED_BYTES_MAX, &text);
    if (err == 0) {
        buf_add_byte(&text, 0);
        err = synced_parse(s, (char *)text.data);
    }
    if (err != 0) {
        buf_printf(why, "%s: %s", m->synced_path, err_text(err));
    }
    buf_fini(&text);
    return err;
}

static void synced_write(struct mvcc *m, const struct synced_file *s)
{
    struct buf b = BUF_INIT;
    buf_printf(&b, "index %llu\nrev %lld\nboot %s\nclean %d\n", s->index, s->rev, m->boot_id, s->clean);
    for (int i = 0; i < s->log_count; i++) {
        buf_printf(&b, "log %s %llu\n", s->logs[i].name, s->logs[i].size);
    }
    buf_printf(&b, "crc %08x\n", crc32c(0, b.data, b.len));
    if (file_replace(m->synced_path, b.data, b.len) != 0) {
        fatal("mvcc: cannot write %s", m->synced_path);
    }
    buf_fini(&b);
}

/* --- opening ------------------------------------------------------------------------------------ */

static void boot_id_read(struct mvcc *m, const char *given)
{
    FILE *f = given != NULL ? NULL : fopen("/proc/sys/kernel/random/boot_id", "re");
    snprintf(m->boot_id, sizeof(m->boot_id), "%s", given != NULL ? given : "unknown");
    if (f != NULL) {
        if (fscanf(f, "%63s", m->boot_id) != 1) {
            snprintf(m->boot_id, sizeof(m->boot_id), "unknown");
        }
        fclose(f);
    }
}

/* Is all that was synced still there and sound? */
static int synced_bytes_check(const struct synced_file *s, const char *dir, struct buf *why)
{
    for (int i = 0; i < s->log_count; i++) {
        uint64_t at = 0;
        int err = db_log_check(dir, s->logs[i].name, s->logs[i].size, &at);
        if (err != 0 && err != E_NOT_FOUND) { /* not found: flushed into a table, or a MANIFEST written anew: LevelDB synced it */
            buf_printf(why, "%s/%s is damaged at byte %llu of %llu synced", dir, s->logs[i].name,
                       (unsigned long long)at, s->logs[i].size);
            return E_DAMAGED;
        }
    }
    return 0;
}

int synced_open(struct mvcc *m, const struct mvcc_conf *conf, struct buf *why)
{
    m->synced = xcalloc(1, sizeof(*m->synced));
    m->synced_path = synced_path(conf->dir);
    boot_id_read(m, conf->boot_id);
    int err = synced_read(m, m->synced, why);
    if (err != 0) {
        return err;
    }
    m->synced->other_boot = !m->synced->found || strcmp(m->synced->boot_id, m->boot_id) != 0;
    err = synced_bytes_check(m->synced, conf->dir, why);
    if (err != 0) {
        return err;
    }
    err = db_open(&m->db, conf->dir, false, why);
    if (err != E_DAMAGED || !m->synced->found || !m->synced->other_boot || m->synced->log_count == 0) {
        return err;
    }
    log_warnx("mvcc: %.*s: only bytes that were never synced are damaged, after a power loss: opening without them",
              (int)why->len, (const char *)why->data);
    buf_reset(why);
    return db_open(&m->db, conf->dir, true, why);
}

/* From the durable point on each batch names the one before: 0, E_NOT_FOUND (a batch is missing), E_DAMAGED, E_IO. */
static int markers_check(struct mvcc *m, uint64_t from)
{
    uint8_t first[10] = {META_OWN, 'b'};
    uint64_t expect = from, applied = atomic_load(&m->applied);
    struct slice key, value;
    struct db_iter *it = db_iter_new(m->db, NULL, true);
    int err = 0;
    rev_store64(first + 2, from + 1);
    for (db_iter_seek(it, slice_of(first, sizeof(first))); err == 0 && db_iter_get(it, &key, &value); db_iter_next(it)) {
        if (key.len != sizeof(first) || memcmp(key.data, first, 2) != 0) {
            break;
        }
        if (value.len != 8 || rev_load64(value.data) != expect) {
            err = E_NOT_FOUND;
        }
        expect = rev_load64(key.data + 2);
    }
    if (err == 0) {
        err = db_iter_status(it);
    }
    db_iter_free(it);
    return err != 0 ? err : expect == applied ? 0 : E_NOT_FOUND;
}

/* Deletes every key from `first` on that begins with its first `same` bytes. */
static int delete_from(struct mvcc *m, struct slice first, size_t same, struct db_batch *b)
{
    struct slice key, value;
    struct db_iter *it = db_iter_new(m->db, NULL, true);
    for (db_iter_seek(it, first); db_iter_get(it, &key, &value); db_iter_next(it)) {
        if (key.len < same || memcmp(key.data, first.data, same) != 0) {
            break;
        }
        db_batch_delete(b, key);
        if (db_batch_count(b) == DELETE_BATCH) {
            db_write(m->db, b, false);
        }
    }
    int err = db_iter_status(it);
    db_iter_free(it);
    return err;
}

/* Back to the durable point. The last batch is synced and holds what makes it true; all before it can be repeated. */
static int roll_back(struct mvcc *m, uint64_t index, int64_t rev)
{
    struct db_batch *b = db_batch_new();
    uint8_t record[REV_KEY_MAX], marker[10] = {META_OWN, 'b'}, applied[16];
    struct slice first = {record, rev_key_encode(record, rev + 1, 0, false)};
    checkpoint_drop_all(m);
    int err = delete_from(m, first, 1, b);
    if (err == 0) {
        db_write(m->db, b, false);
        err = undo_apply(m, index, b);
    }
    if (err == 0) {
        const uint8_t applied_key[2] = {META_OWN, 'a'}, swept_key[2] = {META_OWN, 's'};
        rev_store64(applied, index);
        rev_store64(applied + 8, (uint64_t)rev);
        db_batch_put(b, slice_of(applied_key, 2), slice_of(applied, sizeof(applied)));
        db_batch_delete(b, slice_of(swept_key, 2)); /* a lost deletion is made again */
        db_write(m->db, b, true);
        rev_store64(marker + 2, index + 1);
        err = delete_from(m, slice_of(marker, sizeof(marker)), 2, b);
        db_write(m->db, b, true);
    }
    db_batch_free(b);
    return err;
}

int synced_check(struct mvcc *m, struct buf *why)
{
    const struct synced_file *s = m->synced;
    uint64_t applied = atomic_load(&m->applied);
    uint64_t index = s->found ? s->index : 0;
    int64_t rev = s->found ? s->rev : 1;
    if (index > applied) {
        buf_printf(why, "%s: index %llu was synced, but only %llu is there: the store lost what was durable",
                   db_dir(m->db), (unsigned long long)index, (unsigned long long)applied);
        return E_DAMAGED;
    }
    if (!s->other_boot) {
        return 0;
    }
    int err = markers_check(m, index);
    if (err == 0) {
        return 0;
    }
    if (err != E_NOT_FOUND || !s->found) {
        buf_printf(why, "%s: %s", err == E_NOT_FOUND ? m->synced_path : db_dir(m->db),
                   err == E_NOT_FOUND ? "missing, and the store does not reach back to its beginning" : err_text(err));
        return E_DAMAGED;
    }
    err = roll_back(m, index, rev);
    if (err != 0) {
        buf_printf(why, "%s: %s while going back to index %llu", db_dir(m->db), err_text(err), (unsigned long long)index);
        return err;
    }
    log_warnx("mvcc: %s lost a batch to a power loss: went back from index %llu to %llu (revision %lld); "
              "the log brings the rest again",
              db_dir(m->db), (unsigned long long)applied, (unsigned long long)index, (long long)rev);
    return numbers_load(m, why);
}

void synced_start(struct mvcc *m)
{
    free(m->synced);
    m->synced = NULL;
    m->epoch[0] = (struct undo_epoch){.base = UINT64_MAX}; /* of no point yet: mvcc_sync makes the first */
    m->epochs = 1;
    mvcc_sync(m);
}

/* --- syncing ------------------------------------------------------------------------------------ */

static void note_log(void *arg, const char *name, uint64_t size)
{
    struct synced_file *s = arg;
    if (s->log_count < SYNCED_LOGS_MAX) {
        struct synced_log *log = &s->logs[s->log_count++];
        snprintf(log->name, sizeof(log->name), "%s", name);
        log->size = size;
    }
}

static void markers_purge(struct mvcc *m, uint64_t upto)
{
    const uint8_t first[2] = {META_OWN, 'b'};
    struct slice key, value;
    struct db_iter *it = db_iter_new(m->db, NULL, true);
    struct db_batch *b = db_batch_new();
    for (db_iter_seek(it, slice_of(first, 2)); db_iter_get(it, &key, &value); db_iter_next(it)) {
        if (key.len != 10 || memcmp(key.data, first, 2) != 0 || rev_load64(key.data + 2) > upto) {
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

static uint64_t sync_now(struct mvcc *m, bool clean)
{
    struct synced_file s = {.clean = clean};
    pthread_mutex_lock(&m->sync);
    pthread_mutex_lock(&m->write);
    s.index = atomic_load(&m->applied);
    s.rev = atomic_load(&m->flushed_rev);
    bool news = m->epoch[0].base != s.index;
    if (news) {
        m->epoch[1] = (struct undo_epoch){.base = s.index};
        m->epochs = 2;
    }
    pthread_mutex_unlock(&m->write);
    if (!news && !clean) {
        pthread_mutex_unlock(&m->sync);
        return s.index;
    }
    db_sync(m->db, note_log, &s);
    synced_write(m, &s);
    if (news) {
        pthread_mutex_lock(&m->write);
        undo_epoch_fini(&m->epoch[0]);
        m->epoch[0] = m->epoch[1];
        m->epoch[1] = (struct undo_epoch){0};
        m->epochs = 1;
        pthread_mutex_unlock(&m->write);
    }
    atomic_store(&m->durable, s.index);
    markers_purge(m, s.index);
    undo_purge(m, s.index);
    pthread_mutex_unlock(&m->sync);
    return s.index;
}

uint64_t mvcc_sync(struct mvcc *m)
{
    return sync_now(m, false);
}

void synced_close(struct mvcc *m)
{
    sync_now(m, true);
}
