/* sim_mvcc - stored's keyspace itself (stored/mvcc.h) under the simulated stored, on a database in memory (ramdb.c).
 * Every write becomes one batch with its raft index; the hash of the keyspace by etcd's rule must be the same on all
 * members at the same index; after a power cut the store must come back at its durable point or behind it, never
 * between. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/mem.h"
#include "stored/mvcc.h"
#include "tests/lib/ramdb.h"
#include "tests/sim/sim.h"

struct sim_mvcc {
    struct mvcc *m;
    char dir[80];
};

static unsigned boots[SIM_SLOTS];

/* A folder in memory: only the file SYNCED is in it. */
static void dir_of(unsigned pos, char *dir, size_t size)
{
    snprintf(dir, size, "/dev/shm/trine-sim.%ld.%u", (long)getpid(), pos);
    mkdir(dir, 0700);
    snprintf(dir, size, "/dev/shm/trine-sim.%ld.%u/db", (long)getpid(), pos);
}

struct sim_mvcc *sim_mvcc_open(struct sim *s, unsigned pos)
{
    struct sim_mvcc *sm = xcalloc(1, sizeof(*sm));
    struct buf why = BUF_INIT;
    char boot[16];

    dir_of(pos, sm->dir, sizeof(sm->dir));
    snprintf(boot, sizeof(boot), "boot-%u", boots[pos]);
    if (mvcc_open(&sm->m, &(struct mvcc_conf){.dir = sm->dir, .cache_bytes = 1 << 16, .boot_id = boot}, &why) != 0)
        sim_broken(s, "the store opens", "%.*s", (int)why.len, (const char *)why.data);
    buf_fini(&why);
    return sm;
}

static bool keep_cb(void *arg)
{
    return sim_chance(arg, 800);
}

static void synced_path(const struct sim_mvcc *sm, char *path, size_t size)
{
    snprintf(path, size, "%.*s/SYNCED", (int)strlen(sm->dir) - 3, sm->dir);
}

/* A process that ends in the middle writes nothing any more: what mvcc_close would still put right is taken back. */
void sim_mvcc_close(struct sim *s, struct sim_mvcc *sm, unsigned pos, bool power)
{
    struct buf synced = BUF_INIT;
    char path[96];

    synced_path(sm, path, sizeof(path));
    bool had = file_read_all(path, 1 << 16, &synced) == 0;
    ramdb_freeze(sm->dir, true);
    mvcc_close(sm->m);
    ramdb_freeze(sm->dir, false);
    unlink(path);
    if (had && file_replace(path, synced.data, synced.len) != 0)
        sim_broken(s, "SYNCED can be written", "%s", path);
    buf_fini(&synced);
    if (power) {
        ramdb_power_cut(sm->dir, keep_cb, s);
        boots[pos]++;
    }
    free(sm);
}

void sim_mvcc_wipe(unsigned pos)
{
    char dir[80], synced[96];

    dir_of(pos, dir, sizeof(dir));
    ramdb_wipe(dir);
    snprintf(synced, sizeof(synced), "%.*s/SYNCED", (int)strlen(dir) - 3, dir);
    unlink(synced);
    rmdir(dir);
    dir[strlen(dir) - 3] = '\0';
    rmdir(dir);
}

void sim_mvcc_clean(long pid)
{
    char path[80];

    for (unsigned pos = 0; pos < SIM_SLOTS; pos++) {
        snprintf(path, sizeof(path), "/dev/shm/trine-sim.%ld.%u/SYNCED", pid, pos);
        unlink(path);
        snprintf(path, sizeof(path), "/dev/shm/trine-sim.%ld.%u/db", pid, pos);
        rmdir(path);
        *strrchr(path, '/') = '\0';
        rmdir(path);
    }
}

/* --- applying ----------------------------------------------------------------------------------------------- */

uint64_t sim_mvcc_applied(const struct sim_mvcc *sm)
{
    return mvcc_applied(sm->m);
}

uint64_t sim_mvcc_durable(const struct sim_mvcc *sm)
{
    return mvcc_durable(sm->m);
}

void sim_mvcc_apply(struct sim *s, struct sim_mvcc *sm, const struct entry *e, bool done)
{
    struct sim_command c;
    struct buf out = BUF_INIT;
    char key[16], value[32];

    mvcc_batch_begin(sm->m);
    if (done && sim_command_get(e, &c)) {
        snprintf(key, sizeof(key), "key%" PRIu64, c.key);
        snprintf(value, sizeof(value), "%" PRIu64, c.value);
        struct api_put rq = {.key = slice_str(key), .value = slice_str(value)};
        if (mvcc_put(sm->m, &rq, &out) != 0)
            sim_broken(s, "a put is applied", "entry %" PRIu64, e->index);
    }
    mvcc_batch_end(sm->m, e->index);
    buf_fini(&out);
}

/* Each write that did something is one revision; the hash is compared with whoever was first at this index. */
void sim_mvcc_check(struct sim *s, struct sim_mvcc *sm, uint64_t index)
{
    uint32_t hash;
    int64_t rev, compact;

    sim_must(s, mvcc_applied(sm->m) == index);
    if (mvcc_hash(sm->m, 0, &hash, &rev, &compact) != 0)
        sim_broken(s, "the keyspace has a hash", "at %" PRIu64, index);
    int64_t expect = 1;
    for (size_t k = 0; k < SIM_KEYS; k++)
        expect += (int64_t)sim_oracle_versions(s, k, index);
    if (rev != expect)
        sim_broken(s, "one revision per write", "%" PRId64 ", not %" PRId64 ", at %" PRIu64, rev, expect, index);
    uint64_t *first = &s->oracle.log[index].mvcc;
    if (*first == 0)
        *first = (uint64_t)hash | (uint64_t)1 << 32;
    if (*first != ((uint64_t)hash | (uint64_t)1 << 32))
        sim_broken(s, "the keyspaces have one hash", "at %" PRIu64, index);
}

void sim_mvcc_sync(struct sim_mvcc *sm)
{
    mvcc_sync(sm->m);
}
