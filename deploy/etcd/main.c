/* etcd - a Trine node that takes etcd's place: same flags, variables and file, same words when it refuses, same signs of life;
 * behind it run raftd, stored and gatewayd, which start, stand still and end with it. This file is the table of contents. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "deploy/etcd/children.h"
#include "deploy/etcd/flags.h"
#include "deploy/etcd/keeper.h"
#include "deploy/etcd/node.h"

static void print_version(void)
{
    struct utsname machine;
    const char *arch = uname(&machine) != 0 ? "unknown" : machine.machine;

    arch = strcmp(arch, "x86_64") == 0 ? "amd64" : strcmp(arch, "aarch64") == 0 ? "arm64" : arch;
    printf("etcd Version: %s\nGit SHA: trine-%s\nGo Version: none (Trine %s, C)\nGo OS/Arch: linux/%s\n", TRINE_API_VERSION,
           TRINE_VERSION, TRINE_VERSION, arch);
}

/* etcd says in the log why it does not start, with its own or the default log. */
static _Noreturn void refuse(struct buf *why)
{
    while (why->len > 0 && why->data[why->len - 1] == '\n')
        why->len--;
    log_warnx("failed to verify flags: %.*s", (int)why->len, (const char *)why->data);
    exit(1);
}

static int read_file(struct flags *f, const char *path, struct buf *why)
{
    struct buf text = BUF_INIT;
    int err = file_read_all(path, MIB, &text);

    if (err == OK)
        err = file_read_flags(f, buf_slice(&text), why);
    else if (err == E_TOO_BIG)
        buf_printf(why, "%s: larger than 1 MiB", path);
    else
        buf_printf(why, "open %s: %m", path);
    buf_fini(&text);
    return err;
}

/* The file alone, if one is named by flag or variable; else flags and variables. */
static int read_flags(struct flags *f, int argc, char **argv, struct buf *why)
{
    const char *first, *path, *variable = getenv("ETCD_CONFIG_FILE");

    flags_parse(f, argc, argv, &first);
    if (first != NULL) {
        buf_printf(why, "\"%s\" is not a valid flag", first);
        return E_INVALID;
    }
    if (flags_is_true(f, "version")) {
        print_version();
        exit(0);
    }
    path = flags_get(f, "config-file");
    if (path[0] == '\0')
        path = variable != NULL ? variable : "";
    if (path[0] == '\0')
        return env_read(f, environ, why) != OK ? E_INVALID : check_flags(f, why);

    struct flags file = {0};
    int err = read_file(&file, path, why);

    log_info("loaded server configuration, other configuration command line flags and environment variables will be ignored if "
             "provided: path=%s", path);
    flags_fini(f);
    *f = file;
    return err != OK ? err : check_flags(f, why);
}

static void start_log(const struct flags *f, const struct conf *conf)
{
    enum log_level level = LOG_L_ERROR;
    struct log_rotation rotation;
    struct buf why = BUF_INIT;

    (void)log_level_parse(conf->log_level, &level);
    must(conf_log_rotation(conf, &rotation, &why) == OK);
    if (log_open(conf->log_outputs, &rotation, &why) != OK)
        refuse(&why);
    log_set_level(level);
    log_set_json(strcmp(flags_get(f, "log-format"), "json") == 0);
    buf_fini(&why);
}

/* etcd's subcommands, which are programs of their own and have nothing of a node. */
static void refuse_subcommand(const char *word)
{
    if (strcmp(word, "gateway") != 0 && strcmp(word, "grpc-proxy") != 0)
        return;
    fprintf(stderr, "etcd: \"%s\" is not part of Trine: run etcd's own, it works with Trine's nodes as endpoints\n", word);
    exit(1);
}

/* etcd dies by the signal that asked it to end, except as init. */
static int leave(int code, int by)
{
    if (by == 0 || getpid() == 1)
        return code;
    signal(by, SIG_DFL);
    raise(by);
    return code;
}

int main(int argc, char **argv)
{
    struct flags flags = {0};
    struct node node;
    struct buf why = BUF_INIT;
    int by = 0, code;

    if (argc > 0 && strcmp(argv[0], KEEPER_PROGRAM) == 0)
        return keeper_main();
    unsetenv("JOURNAL_STREAM"); /* lines are etcd's, also in the journal */
    log_init("etcd", LOG_L_INFO);
    log_set_json(true);
    if (argc > 1)
        refuse_subcommand(argv[1]);

    if (read_flags(&flags, argc, argv, &why) != OK)
        refuse(&why);
    if (node_init(&node, &flags, &why) != OK)
        refuse(&why);
    start_log(&flags, &node.conf);
    log_info("starting a Trine %s node as etcd %s: name=%s data-dir=%s", TRINE_VERSION, TRINE_API_VERSION, node.conf.name,
             node.conf.data_dir);
    if (node_make_dirs(&node, &why) != OK)
        refuse(&why);

    code = children_run(&node, &by);

    node_fini(&node);
    flags_fini(&flags);
    buf_fini(&why);
    return leave(code, by);
}
