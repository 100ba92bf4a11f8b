/* swap - see swap.h. Called by snap.c and stored.c. Every step is a rename or a removal that may be done twice; the
 * directory is synced between steps whose order matters. */
#include "stored/swap.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"

#define REMOVE_OPEN_DIRS 16

static bool is_there(const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s", dir, name);
    struct stat st;
    bool there = stat(path, &st) == 0;

    if (!there && errno != ENOENT)
        fatal("swap: %s", path);
    free(path);
    return there;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    UNUSED(st);
    UNUSED(flag);
    UNUSED(ftw);
    return remove(path);
}

static void remove_tree(const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s", dir, name);

    if (is_there(dir, name) && nftw(path, remove_one, REMOVE_OPEN_DIRS, FTW_DEPTH | FTW_PHYS) != 0)
        fatal("swap: removal of %s", path);
    free(path);
}

static void move(const char *dir, const char *from, const char *to)
{
    char *old = xasprintf("%s/%s", dir, from), *new = xasprintf("%s/%s", dir, to);

    if (rename(old, new) != 0)
        fatal("swap: rename of %s to %s", old, new);
    free(old);
    free(new);
}

static void sync_dir(const char *dir)
{
    if (file_sync_dir(dir) != 0)
        fatal("swap: fsync of %s", dir);
}

/* next/ is there: it is the store. SYNCED speaks of the old one until it is gone, and nobody opens the new one before. */
static void finish(const char *dir)
{
    if (is_there(dir, "next/db")) {
        if (is_there(dir, "db")) {
            remove_tree(dir, "old");
            move(dir, "db", "old");
        }
        remove_tree(dir, "SYNCED");
        sync_dir(dir);
        move(dir, "next/db", "db");
        sync_dir(dir);
    }
    remove_tree(dir, "next");
    remove_tree(dir, "old");
    sync_dir(dir);
}

void swap_recover(const char *dir)
{
    if (is_there(dir, "next")) {
        log_warnx("swap: %s: ending the change to a snapshot's store that was under way", dir);
        finish(dir);
    }
    remove_tree(dir, "new");
    remove_tree(dir, "old");
}

char *swap_prepare(const char *dir)
{
    char *new = xasprintf("%s/new", dir);

    remove_tree(dir, "new");
    if (file_mkdir_p(new, 0700) != 0)
        fatal("swap: making %s", new);
    char *db = xasprintf("%s/db", new);
    free(new);
    return db;
}

void swap_commit(const char *dir)
{
    char *new = xasprintf("%s/new", dir);

    sync_dir(new);
    free(new);
    move(dir, "new", "next");
    sync_dir(dir);
    finish(dir);
}

void swap_discard(const char *dir)
{
    remove_tree(dir, "new");
}

void swap_set_aside(const char *dir)
{
    char *name = xasprintf("damaged-%lld", (long long)time(NULL)), *path = xasprintf("%s/%s", dir, name);
    char *db = xasprintf("%s/db", name), *synced = xasprintf("%s/SYNCED", name);

    if (file_mkdir_p(path, 0700) != 0)
        fatal("swap: making %s", path);
    if (is_there(dir, "db"))
        move(dir, "db", db);
    if (is_there(dir, "SYNCED"))
        move(dir, "SYNCED", synced);
    sync_dir(path);
    sync_dir(dir);
    log_warnx("swap: what could not be opened is now in %s", path);
    free(name);
    free(path);
    free(db);
    free(synced);
}
