/* node - see node.h. Numbers that etcd takes and the daemons do not (larger requests than 10 MiB, a batch limit of 0) become the
 * nearest that they take, with a warning: a manifest that starts etcd shall start. */
#include "deploy/etcd/node.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/names.h"

/* Room for "/stored.ipc" and a slot's number in a socket's name of 107 bytes. */
#define RUN_DIR_LEN_MAX 80

/* --- keys ------------------------------------------------------------------------------------------------ */

/* What etcd puts in place of a number that makes no sense; NULL: nothing. */
static const char *etcd_instead(const char *name, const char *value)
{
    static const struct {
        const char *name;
        const char *value;
        const char *instead;
    } rows[] = {
        {"compaction-batch-limit", "0", "1000"}, {"compaction-sleep-interval", "0ms", "10ms"}, {"auth-token-ttl", "0", "300"},
        {"self-signed-cert-validity", "0", "1"}, {"cors", "", "*"},                            {"host-whitelist", "", "*"},
        {"log-level", "", "info"},               {"auto-compaction-retention", "", "0"},       {"metrics", "", "basic"},
        {"auth-token", "", "simple"},            {"tls-min-version", "", "TLS1.2"},            {"name", "", "default"},
        {"log-outputs", "", "default"},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (strcmp(rows[i].name, name) == 0 && strcmp(rows[i].value, value) == 0)
            return rows[i].instead;
    }
    if (strcmp(name, "bcrypt-cost") == 0 && (strtoull(value, NULL, 10) < 4 || strtoull(value, NULL, 10) > 31))
        return "10";
    if ((strcmp(name, "raft-read-timeout") == 0 || strcmp(name, "raft-write-timeout") == 0) &&
        strtoull(value, NULL, 10) < 5000)
        return "5000ms";
    return NULL;
}

/* The value as the key takes it. Given. */
static char *fit(const struct flag *flag, const char *value)
{
    uint64_t min, max;
    const char *instead = etcd_instead(flag->name, value);

    if (instead != NULL)
        return xstrdup(instead);
    if (flag->type != FLAG_UINT && flag->type != FLAG_INT && flag->type != FLAG_DUR)
        return xstrdup(value);
    if (!conf_range(flag->name, &min, &max))
        return xstrdup(value);
    uint64_t number = value[0] == '-' ? 0 : strtoull(value, NULL, 10);
    uint64_t fitting = MAX(min, MIN(max, number));

    if (fitting == number && value[0] != '-')
        return xstrdup(value);
    char *text = xasprintf("%" PRIu64 "%s", fitting, flag->type == FLAG_DUR ? "ms" : "");

    log_warnx("--%s=%s is more or less than can be done here: it is %s", flag->name, value, text);
    return text;
}

static void add_option(struct node *n, char *option)
{
    n->options = xrealloc(n->options, (n->option_count + 2) * sizeof(char *));
    n->options[n->option_count++] = option;
    n->options[n->option_count] = NULL;
}

static int set_key(struct node *n, const char *key, const char *value, struct buf *why)
{
    char *where = xasprintf("--%s", key);
    int err = conf_set(&n->conf, key, value, where, why);

    free(where);
    if (err == OK)
        add_option(n, xasprintf("--%s=%s", key, value));
    return err;
}

/* Keys whose default is not etcd's, or that must not come from elsewhere. */
static bool is_always_said(const char *name)
{
    return strcmp(name, "log-format") == 0 || strcmp(name, "advertise-client-urls") == 0 ||
           strcmp(name, "listen-client-urls") == 0 || strcmp(name, "initial-advertise-peer-urls") == 0 ||
           strcmp(name, "listen-peer-urls") == 0;
}

/* Set to what it is anyway: nothing to talk about. */
static bool is_default(const struct flag *flag, const char *value)
{
    int64_t a, b;

    if (flag->type == FLAG_DUR)
        return value_duration(value, &a) && value_duration(flag->def, &b) && a == b;
    return strcmp(value, flag->def) == 0;
}

static int set_keys(struct node *n, const struct flags *f, struct buf *why)
{
    for (size_t i = 0; i < flag_count; i++) {
        const struct flag *flag = &flag_table[i];
        const char *value = flags_get(f, flag->name);
        if (flag->use == USE_NOTHING && f->source[i] != SET_NOT && !is_default(flag, value))
            log_warnx("--%s has no effect here: %s", flag->name, flag->help);
        if (flag->use == USE_GONE && f->source[i] != SET_NOT)
            log_warnx("flag is no longer supported - ignoring: -%s", flag->name);
        if (flag->use != USE_KEY || (f->source[i] == SET_NOT && !is_always_said(flag->name)))
            continue;
        if (strcmp(flag->name, "name") == 0) /* two arguments, at the front: see node_init */
            continue;
        if (flag->type == FLAG_URLS && value[0] == '\0' && is_always_said(flag->name))
            value = flag->def;
        char *fitting = fit(flag, value);
        int err = set_key(n, flag->name, fitting, why);
        free(fitting);
        if (err != OK)
            return err;
    }
    return OK;
}

/* --- places ------------------------------------------------------------------------------------------------ */

static uint64_t hash_of(const char *text)
{
    uint64_t hash = 14695981039346656037ULL; /* FNV-1a: a name, nothing that must not be guessed */

    for (; *text != '\0'; text++)
        hash = (hash ^ (unsigned char)*text) * 1099511628211ULL;
    return hash;
}

/* Below data-dir, or in /tmp if that makes names too long for sockets; the same name at every start. */
static char *run_dir_of(const char *data_dir)
{
    if (strlen(data_dir) + strlen("/sock") <= RUN_DIR_LEN_MAX)
        return xasprintf("%s/sock", data_dir);
    return xasprintf("/tmp/trine-%u-%016" PRIx64, (unsigned)geteuid(), hash_of(data_dir));
}

static char *data_dir_of(const struct flags *f)
{
    const char *dir = flags_get(f, "data-dir"), *name = flags_get(f, "name");

    if (dir[0] != '\0')
        return xstrdup(dir);
    return xasprintf("%s.etcd", name[0] == '\0' ? "default" : name);
}

/* Discovery finds the members of a new cluster; one that has its data does not ask. */
static int check_discovery(const struct flags *f, const char *data_dir, struct buf *why)
{
    static const char *const names[] = {"discovery-endpoints", "discovery-srv", "discovery-srv-name"};
    char *raft = xasprintf("%s/%s", data_dir, NAME_RAFT_DIR);
    bool has_data = access(raft, F_OK) == 0;

    free(raft);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (flags_get(f, names[i])[0] == '\0')
            continue;
        if (!has_data) {
            buf_printf(why, "--%s: Trine does not discover its members: name them in --initial-cluster", names[i]);
            return E_INVALID;
        }
        log_warnx("--%s is ignored: the member has its data", names[i]);
    }
    return OK;
}

int node_init(struct node *n, const struct flags *f, struct buf *why)
{
    const char *name = flags_get(f, "name");
    char *data_dir = data_dir_of(f);
    int err = check_discovery(f, data_dir, why);

    *n = (struct node){0};
    conf_init(&n->conf);
    if (name[0] == '\0')
        name = "default";
    /* Test suites find a member by these two words. */
    add_option(n, xstrdup("--name"));
    add_option(n, xstrdup(name));
    if (err == OK)
        err = conf_set(&n->conf, "name", name, "--name", why);
    if (err == OK)
        err = set_key(n, "allow-plaintext", "true", why); /* as etcd does */
    if (err == OK)
        err = set_keys(n, f, why);
    if (err == OK)
        err = conf_set(&n->conf, "data-dir", data_dir, "--data-dir", why);
    if (err == OK)
        err = conf_finish(&n->conf, why); /* data-dir is absolute now */
    free(data_dir);
    if (err != OK)
        return err;
    char *run_dir = run_dir_of(n->conf.data_dir);

    err = set_key(n, "run-dir", run_dir, why);
    free(run_dir);
    add_option(n, xasprintf("--data-dir=%s", n->conf.data_dir));
    return err;
}

void node_fini(struct node *n)
{
    conf_fini(&n->conf);
    for (size_t i = 0; i < n->option_count; i++)
        free(n->options[i]);
    free(n->options);
    *n = (struct node){0};
}

/* In /tmp anybody may have made it before. */
static int check_private(const char *dir, struct buf *why)
{
    struct stat st;

    if (lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 077) == 0)
        return OK;
    buf_printf(why, "%s is not a directory of ours alone: remove it", dir);
    return E_INVALID;
}

static int make_dir(const char *dir, struct buf *why)
{
    if (file_mkdir_p(dir, 0700) == OK)
        return OK;
    buf_printf(why, "cannot create %s: %s", dir, strerror(errno));
    return E_IO;
}

int node_make_dirs(const struct node *n, struct buf *why)
{
    char *member = xasprintf("%s/member", n->conf.data_dir);
    bool is_etcds = access(member, F_OK) == 0;

    free(member);
    if (is_etcds) {
        buf_printf(why, "%s holds the data of an etcd (member/), which Trine cannot read: choose another --data-dir; to move it, "
                        "take a snapshot of the running etcd (etcdctl snapshot save) and restore it with trinectl snapshot restore",
                   n->conf.data_dir);
        return E_INVALID;
    }
    if (make_dir(n->conf.data_dir, why) != OK || make_dir(n->conf.run_dir, why) != OK)
        return E_IO;
    return check_private(n->conf.run_dir, why);
}

/* --- programs ------------------------------------------------------------------------------------------------ */

char *node_find_program(const char *name)
{
    static const char *const places[] = {"", "/../sbin", "/../../sbin", "/../libexec/trine"};
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (len <= 0)
        return NULL;
    self[len] = '\0';
    *strrchr(self, '/') = '\0';
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        char *path = xasprintf("%s%s/%s", self, places[i], name);
        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    return NULL;
}
