/* trinectl - table of contents: options, the list of commands, and the way to each. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/conf.h"
#include "common/mem.h"
#include "trinectl/trinectl.h"

static const struct command_def commands[] = {
    {"get",
     "KEY [RANGE_END] [--prefix] [--from-key] [--limit N] [--rev N] [--keys-only] [--count-only] [--print-value-only] "
     "[--order "
     "ASCEND|DESCEND] [--sort-by KEY|VERSION|CREATE|MODIFY|VALUE] [--consistency l|s]",
     "print keys and values", get_run},
    {"put", "KEY [VALUE] [--lease ID] [--prev-kv] [--ignore-value] [--ignore-lease]",
     "write a key (value from stdin if absent)", put_run},
    {"del", "KEY [RANGE_END] [--prefix] [--from-key] [--prev-kv]", "delete keys", del_run},
    {"txn", "", "a transaction from stdin: compares, then success, then failure operations, ended by blank lines",
     txn_run},
    {"watch", "KEY [RANGE_END] [--prefix] [--rev N] [--prev-kv] [--count N]", "print events as they happen", watch_run},
    {"compaction", "REVISION [--physical]", "discard history up to a revision", compaction_run},
    {"lease grant", "TTL", "create a lease of TTL seconds", lease_grant_run},
    {"lease revoke", "ID", "delete a lease and its keys", lease_revoke_run},
    {"lease timetolive", "ID [--keys]", "what is left of a lease", lease_timetolive_run},
    {"lease keep-alive", "ID [--once]", "renew a lease", lease_keep_alive_run},
    {"lease list", "", "all leases", lease_list_run},
    {"defrag", "", "compact the store's files; reads and writes go on", defrag_run},
    {"endpoint status", "[--cluster]", "the node's state, or that of all members", status_run},
    {"endpoint health", "", "whether the node serves", health_run},
    {"endpoint hashkv", "[--rev N]", "checksum of the history", hashkv_run},
    {"member list", "[--consistency l|s]", "the members of the cluster", member_list_run},
    {"member add", "NAME --peer-urls URLS [--learner]", "add a member, which then is to be started", member_add_run},
    {"member remove", "ID", "remove a member for ever", member_remove_run},
    {"member update", "ID --peer-urls URLS", "change a member's peer URLs", member_update_run},
    {"member promote", "ID", "make a learner a voting member", member_promote_run},
    {"move-leader", "ID", "hand leadership to another member; asks the leader's node", move_leader_run},
    {"snapshot status", "FILE", "hash, revision and size of a snapshot file, after a look at all of it", snapshot_status_run},
    {"snapshot restore", "FILE --data-dir DIR [--skip-hash-check] [stored's options]",
     "a new member's data directory from a snapshot file, of this suite or of etcd", snapshot_restore_run},
    {"alarm list", "", "alarms that are raised", alarm_list_run},
    {"alarm disarm", "", "take all alarms back", alarm_disarm_run},
};

static void help(FILE *to)
{
    fprintf(to,
            "trinectl %s - the operator's tool of Trine\n\n"
            "usage: trinectl [options] COMMAND ...\n\n"
            "  --url URL          native socket of a gateway (default ipc://RUN-DIR/native.ipc)\n"
            "  --events-url URL   its socket of live events (default ipc://RUN-DIR/events.ipc)\n"
            "  --run-dir DIR      where the sockets are (default $TRINE_RUN_DIR or /run/trine)\n"
            "  -w, --write-out F  simple, json or table\n"
            "  --hex              print byte strings as \\x..\n"
            "  --command-timeout D  how long to wait for an answer (default 5s)\n"
            "  -V, --version      print the version\n\n",
            TRINE_VERSION);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(to, "  %-18s %s\n", commands[i].words, commands[i].help);
    fprintf(to, "\nFor auth, user, role, lock, elect and snapshot save use etcdctl.\n");
}

/* Commands that need a user, or many requests: the native door knows neither. */
static bool is_etcdctls(const char *first, const char *second)
{
    static const char *const words[] = {"auth", "user", "role", "lock", "elect", "check", "make-mirror"};

    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strcmp(first, words[i]) == 0)
            return true;
    return strcmp(first, "snapshot") == 0 && second != NULL && strcmp(second, "save") == 0;
}

void usage_of(const char *words)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(commands[i].words, words) == 0)
            fprintf(stderr, "usage: trinectl %s %s\n", words, commands[i].usage);
    exit(EXIT_USAGE);
}

static enum output output_of(const char *word)
{
    if (strcmp(word, "simple") == 0)
        return OUTPUT_SIMPLE;
    if (strcmp(word, "json") == 0)
        return OUTPUT_JSON;
    if (strcmp(word, "table") == 0)
        return OUTPUT_TABLE;
    fprintf(stderr, "trinectl: -w %s: is not simple, json or table\n", word);
    exit(EXIT_USAGE);
}

/* The global options stand before or after the command's words; what is not ours is left for the command. */
static int take_globals(struct ctl *ctl, int argc, char **argv)
{
    const char *run_dir = getenv("TRINE_RUN_DIR");
    char *url = NULL, *events = NULL;
    int left = 1;
    for (int i = 1; i < argc; i++) {
        char *arg = argv[i], *value = NULL;
        if (strcmp(arg, "--") == 0) {
            while (i < argc)
                argv[left++] = argv[i++];
            break;
        }
        static const char *const takes[] = {"--url",       "--events-url", "--run-dir",
                                            "--write-out", "-w",           "--command-timeout"};
        size_t which = ARRAY_LEN(takes);
        for (size_t t = 0; t < ARRAY_LEN(takes); t++) {
            size_t n = strlen(takes[t]);
            if (strcmp(arg, takes[t]) == 0) {
                which = t;
                if (i + 1 == argc) {
                    fprintf(stderr, "trinectl: %s needs a value\n", arg);
                    exit(EXIT_USAGE);
                }
                value = argv[++i];
                break;
            }
            if (strncmp(arg, takes[t], n) == 0 && arg[n] == '=') {
                which = t;
                value = arg + n + 1;
                break;
            }
        }
        uint64_t ms;
        switch (which) {
        case 0:
            url = value;
            break;
        case 1:
            events = value;
            break;
        case 2:
            run_dir = value;
            break;
        case 3:
        case 4:
            ctl->output = output_of(value);
            break;
        case 5:
            if (conf_parse_duration(value, &ms) != 0 || ms == 0 || ms > 86400000) {
                fprintf(stderr, "trinectl: --command-timeout %s: is not a duration like 5s\n", value);
                exit(EXIT_USAGE);
            }
            ctl->timeout_ms = (unsigned)ms;
            break;
        default:
            if (strcmp(arg, "--hex") == 0) {
                ctl->hex = true;
            } else if (strcmp(arg, "-V") == 0 || strcmp(arg, "--version") == 0) {
                printf("trinectl %s (API of etcd %s)\n", TRINE_VERSION, TRINE_API_VERSION);
                exit(0);
            } else if (strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0) {
                help(stdout);
                exit(0);
            } else {
                argv[left++] = arg;
            }
        }
    }
    if (!run_dir || !*run_dir)
        run_dir = "/run/trine";
    ctl->url = url ? url : xasprintf("ipc://%s/native.ipc", run_dir);
    if (events) {
        ctl->events_url = events;
    } else if (url) { /* the sockets of one gateway stand beside each other: native.2.ipc, events.2.ipc */
        const char *slash = strrchr(url, '/');
        const char *rest = slash && strncmp(slash, "/native", 7) == 0 ? slash + 7 : ".ipc";
        ctl->events_url = xasprintf("%.*s/events%s", slash ? (int)(slash - url) : 0, url, rest);
    } else {
        ctl->events_url = xasprintf("ipc://%s/events.ipc", run_dir);
    }
    argv[left] = NULL;
    return left;
}

int main(int argc, char **argv)
{
    static struct ctl ctl = {.timeout_ms = 5000}; /* lives as long as the process, and so do its strings */
    signal(SIGPIPE, SIG_DFL); /* "trinectl watch x | head -1" ends when head does, whatever was inherited */
    argc = take_globals(&ctl, argc, argv);
    if (argc < 2) {
        help(stderr);
        return EXIT_USAGE;
    }
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        char first[32] = "", second[32] = "";
        int words = sscanf(commands[i].words, "%31s %31s", first, second);
        if (strcmp(argv[1], first) != 0 || (words == 2 && (argc < 3 || strcmp(argv[2], second) != 0)))
            continue;
        int code = commands[i].run(&ctl, argc - words, argv + words);
        print_flush();
        return code;
    }
    if (is_etcdctls(argv[1], argc > 2 ? argv[2] : NULL))
        fprintf(stderr, "trinectl: \"%s%s%s\" is a command of etcdctl, which works with this node\n", argv[1], argc > 2 ? " " : "",
                argc > 2 ? argv[2] : "");
    else
        fprintf(stderr, "trinectl: unknown command \"%s%s%s\"; trinectl --help lists them\n", argv[1], argc > 2 ? " " : "",
                argc > 2 ? argv[2] : "");
    return EXIT_USAGE;
}
