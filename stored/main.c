/* main - stored's table of contents. What happens in between: stored.c, in.c; `stored restore` and `stored inspect`: offline.c. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/notify.h"
#include "common/opt.h"
#include "common/priv.h"
#include "proto/names.h"
#include "stored/offline.h"
#include "stored/stored.h"

#define DIR_MODE 0700
/* A predecessor that was just killed may still be on its way out: its lock goes with it. */
#define LOCK_TRIES 40
#define LOCK_TRY_US 50000

static void make_dirs(const struct conf *conf)
{
    char *store = xasprintf("%s/%s", conf->data_dir, NAME_STORE_DIR);

    if (priv_mkdir(store, DIR_MODE, conf->user) != 0)
        fatal("stored: cannot create %s", store);
    if (priv_mkdir(conf->run_dir, DIR_MODE, conf->user) != 0)
        fatal("stored: cannot create %s", conf->run_dir);
    free(store);
}

/* Held until the process ends: LevelDB has its own lock, but ours says who has it. */
static void take_lock(const struct conf *conf)
{
    char *path = xasprintf("%s/%s/%s", conf->data_dir, NAME_STORE_DIR, NAME_LOCK_FILE);
    long holder = 0;
    int fd, err = file_lock(path, &fd, &holder);

    for (unsigned i = 0; err == E_LOCKED && i < LOCK_TRIES; i++) {
        usleep(LOCK_TRY_US);
        err = file_lock(path, &fd, &holder);
    }
    if (err == E_LOCKED)
        fatalx("stored: %s is held by process %ld", path, holder);
    if (err)
        fatal("stored: cannot lock %s", path);
    free(path);
}

/* Before rights are given up: locking needs one, keeping it does not. */
static void lock_memory(const struct conf *conf)
{
    if (conf->memory_mlock && mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        fatal("stored: memory-mlock: cannot lock memory (LimitMEMLOCK=infinity lets it)");
}

static void term_cb(void *arg)
{
    stored_stop(arg);
}

int main(int argc, char **argv)
{
    static struct stored s;
    struct offline offline;
    struct conf conf;
    struct loop *loop;

    offline_take(&offline, &argc, argv);
    opt_load(&conf, argc, argv);
    offline_open(&offline, &conf); /* a file that only we may read, perhaps */
    make_dirs(&conf);
    priv_limits();
    lock_memory(&conf);
    priv_drop(conf.user);
    take_lock(&conf);
    if (offline.file)
        return offline_restore(&offline, &conf);

    loop = loop_new();
    loop_signals(loop, term_cb, NULL, &s);
    stored_init(&s, &conf, loop);
    stored_links(&s);
    notify_watchdog_start(loop);
    loop_run(loop);

    if (loop_work_pending(loop)) {
        /* A long job (a defragmentation) is still at it. Leaving it is safe: what was not synced is in raftd's log. */
        log_info("stored: stopped, leaving %zu jobs behind", loop_work_pending(loop));
        _exit(0);
    }
    stored_fini(&s);
    log_info("stored: stopped");
    conf_fini(&conf);
    return 0;
}
