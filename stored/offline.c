/* offline - see offline.h; the work is done in restore.c and backup_file.c. */
#include "stored/offline.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/names.h"
#include "stored/stored.h"

#define EXIT_WRONG_OPTION 2

_Noreturn static void usage(void)
{
    fprintf(stderr, "usage: stored restore FILE [--skip-hash-check] [--data-dir DIR ...]\n"
                    "       stored inspect FILE [--json]\n");
    exit(EXIT_WRONG_OPTION);
}

_Noreturn static void failed(const char *what, const struct buf *why)
{
    fprintf(stderr, "stored: %s: %.*s\n", what, (int)why->len, why->len ? (const char *)why->data : "");
    exit(EXIT_FAILURE);
}

/* --- inspect ---------------------------------------------------------------------------------------------- */

_Noreturn static void inspect(const char *path, bool json)
{
    struct backup_status st;
    struct backup_file f;
    struct buf why = BUF_INIT;
    const char *digest = "none";
    int err = backup_file_open(path, &f, &why);

    if (!err)
        err = backup_file_status(&f, &st, &why);
    if (err)
        failed(path, &why);
    if (f.digest.len && backup_file_check(&f, &why) != 0)
        failed(path, &why);
    if (f.digest.len)
        digest = "right";
    printf(json ? "{\"hash\":%u,\"revision\":%lld,\"totalKey\":%llu,\"totalSize\":%llu,\"digest\":\"%s\"}\n"
                : "hash %08x, revision %lld, %llu rows, %llu bytes, digest %s\n",
           st.hash, (long long)st.rev, (unsigned long long)st.rows, (unsigned long long)st.bytes, digest);
    backup_file_close(&f);
    exit(EXIT_SUCCESS);
}

/* --- arguments ------------------------------------------------------------------------------------------------ */

static bool take_flag(const char *flag, int *argc, char **argv)
{
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], flag) != 0)
            continue;
        memmove(argv + i, argv + i + 1, (size_t)(*argc - i) * sizeof *argv); /* with the NULL at the end */
        --*argc;
        return true;
    }
    return false;
}

void offline_take(struct offline *o, int *argc, char **argv)
{
    *o = (struct offline){0};
    if (*argc < 2 || argv[1][0] == '-')
        return;
    bool is_inspect = strcmp(argv[1], "inspect") == 0;
    if ((!is_inspect && strcmp(argv[1], "restore") != 0) || *argc < 3 || argv[2][0] == '-')
        usage();
    const char *file = argv[2];
    memmove(argv + 1, argv + 3, (size_t)(*argc - 2) * sizeof *argv);
    *argc -= 2;
    if (is_inspect) {
        bool json = take_flag("--json", argc, argv);
        if (*argc > 1)
            usage();
        inspect(file, json);
    }
    o->file = file;
    o->skip_check = take_flag("--skip-hash-check", argc, argv);
}

/* --- restore --------------------------------------------------------------------------------------------------- */

static bool has_entries(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *e;
    bool any = false;

    if (!dir)
        return false;
    while (!any && (e = readdir(dir)) != NULL)
        any = strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && strcmp(e->d_name, NAME_LOCK_FILE) != 0;
    closedir(dir);
    return any;
}

static void refuse_if_used(const char *path)
{
    struct buf why = BUF_INIT;

    if (has_entries(path)) {
        buf_printf(&why, "%s is not empty: only a new member can be restored", path);
        failed("restore", &why);
    }
}

static void refuse_if_used_below(const struct conf *conf, const char *name)
{
    char *path = xasprintf("%s/%s", conf->data_dir, name);

    refuse_if_used(path);
    free(path);
}

void offline_open(struct offline *o, const struct conf *conf)
{
    struct buf why = BUF_INIT;

    if (!o->file)
        return;
    refuse_if_used_below(conf, NAME_RAFT_DIR);
    refuse_if_used_below(conf, NAME_STORE_DIR);
    if (conf->wal_dir[0] != '\0')
        refuse_if_used(conf->wal_dir); /* an old log would be applied to what was restored */
    int err = backup_file_open(o->file, &o->bytes, &why);
    if (!err && !o->skip_check)
        err = backup_file_check(&o->bytes, &why);
    if (err)
        failed("restore", &why);
}

int offline_restore(struct offline *o, const struct conf *conf)
{
    struct buf why = BUF_INIT;
    struct restored done;
    char *store = xasprintf("%s/%s", conf->data_dir, NAME_STORE_DIR);

    if (restore_store(&o->bytes, store, &done, &why) != 0)
        failed("restore", &why);
    log_info("restore: %s: revision %lld, compacted %lld, %llu records, %llu leases, %llu users, %llu roles from %s", store,
             (long long)done.rev, (long long)done.compact_rev, (unsigned long long)done.records,
             (unsigned long long)done.leases, (unsigned long long)done.users, (unsigned long long)done.roles, o->file);
    backup_file_close(&o->bytes);
    free(store);
    return EXIT_SUCCESS;
}
