/* flags - see flags.h: the table, the values, and the command line. */
#include "deploy/etcd/flags.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/conf.h"
#include "common/err.h"
#include "common/mem.h"

#define NEW_OR_EXISTING (const char *const[]){"new", "existing", NULL}
#define EXIT_OR_PROXY (const char *const[]){"exit", "proxy", NULL}
#define V2_STAGES (const char *const[]){"write-only", "write-only-drop-data", "gone", NULL}

/* Rows: a key of ours; a key that the file has in a section of its own or not at all; meaningless here; ignored by etcd. */
#define KEY(n, t, d) {.name = n, .type = t, .use = USE_KEY, .def = d, .top = true}
#define KEY_NOT_TOP(n, t, d) {.name = n, .type = t, .use = USE_KEY, .def = d}
#define NOTHING(n, t, d, h) {.name = n, .type = t, .use = USE_NOTHING, .def = d, .top = true, .help = h}
#define DISCOVERY(n, t, d) {.name = n, .type = t, .use = USE_HERE, .def = d, .help = "discovery: refused, name the members in --initial-cluster"}
#define GONE(n) {.name = n, .type = FLAG_GONE, .use = USE_GONE, .def = "false", .help = "ignored, as by etcd"}

const struct flag flag_table[] = {
    /* member */
    KEY("name", FLAG_STR, "default"),
    {.name = "data-dir", .type = FLAG_STR, .use = USE_HERE, .def = "", .top = true, .help = "directory of the data; default NAME.etcd"},
    KEY("wal-dir", FLAG_STR, ""),
    NOTHING("snapshot-count", FLAG_UINT, "10000", "stored is on disk at any time: there are no snapshots to count up to"),
    KEY("snapshot-catchup-entries", FLAG_UINT, "5000"),
    KEY("heartbeat-interval", FLAG_UINT, "100"),
    KEY("election-timeout", FLAG_UINT, "1000"),
    KEY("initial-election-tick-advance", FLAG_BOOL, "true"),
    KEY("listen-peer-urls", FLAG_URLS, "http://localhost:2380"),
    KEY("listen-client-urls", FLAG_URLS, "http://localhost:2379"),
    KEY("listen-client-http-urls", FLAG_URLS, ""),
    NOTHING("max-snapshots", FLAG_UINT, "5", "there are no snapshot files"),
    NOTHING("max-wals", FLAG_UINT, "5", "files of the log go when nobody needs them any more"),
    KEY("memory-mlock", FLAG_BOOL, "false"),
    KEY("quota-backend-bytes", FLAG_INT, "0"),
    NOTHING("backend-bbolt-freelist-type", FLAG_STR, "map", "the store is not a bbolt file"),
    NOTHING("backend-batch-interval", FLAG_DUR, "0s", "the store is synced in the background: the log makes writes durable"),
    NOTHING("backend-batch-limit", FLAG_INT, "0", "the store is synced in the background: the log makes writes durable"),
    KEY("max-txn-ops", FLAG_UINT, "128"),
    KEY("max-request-bytes", FLAG_UINT, "1572864"),
    KEY("max-concurrent-streams", FLAG_UINT, "4294967295"),
    KEY("grpc-keepalive-min-time", FLAG_DUR, "5s"),
    KEY("grpc-keepalive-interval", FLAG_DUR, "2h0m0s"),
    KEY("grpc-keepalive-timeout", FLAG_DUR, "20s"),
    KEY_NOT_TOP("socket-reuse-port", FLAG_BOOL, "false"),
    {.name = "socket-reuse-address", .type = FLAG_BOOL, .use = USE_NOTHING, .def = "false",
     .help = "addresses on which old connections linger are always bound"},
    KEY("enable-grpc-gateway", FLAG_BOOL, "true"),
    KEY_NOT_TOP("raft-read-timeout", FLAG_DUR, "5s"),
    KEY_NOT_TOP("raft-write-timeout", FLAG_DUR, "5s"),
    KEY("max-learners", FLAG_INT, "1"),
    NOTHING("feature-gates", FLAG_STR, "", "what the gates switch is always on or not there: trine.conf(5)"),
    /* clustering */
    KEY("initial-advertise-peer-urls", FLAG_URLS, "http://localhost:2380"),
    KEY("advertise-client-urls", FLAG_URLS, "http://localhost:2379"),
    KEY("initial-cluster", FLAG_STR, ""),
    {.name = "initial-cluster-state", .type = FLAG_STR, .use = USE_KEY, .def = "new", .top = true, .choices = NEW_OR_EXISTING},
    KEY("initial-cluster-token", FLAG_STR, "etcd-cluster"),
    DISCOVERY("discovery-token", FLAG_STR, ""),
    DISCOVERY("discovery-endpoints", FLAG_LIST, ""),
    DISCOVERY("discovery-dial-timeout", FLAG_DUR, "2s"),
    DISCOVERY("discovery-request-timeout", FLAG_DUR, "5s"),
    DISCOVERY("discovery-keepalive-time", FLAG_DUR, "2s"),
    DISCOVERY("discovery-keepalive-timeout", FLAG_DUR, "6s"),
    DISCOVERY("discovery-insecure-transport", FLAG_BOOL, "true"),
    DISCOVERY("discovery-insecure-skip-tls-verify", FLAG_BOOL, "false"),
    DISCOVERY("discovery-cert", FLAG_STR, ""),
    DISCOVERY("discovery-key", FLAG_STR, ""),
    DISCOVERY("discovery-cacert", FLAG_STR, ""),
    DISCOVERY("discovery-user", FLAG_STR, ""),
    DISCOVERY("discovery-password", FLAG_STR, ""),
    {.name = "discovery-fallback", .type = FLAG_STR, .use = USE_HERE, .def = "exit", .choices = EXIT_OR_PROXY, .help = "exit"},
    {.name = "discovery-srv", .type = FLAG_STR, .use = USE_HERE, .def = "", .top = true,
     .help = "discovery: refused, name the members in --initial-cluster"},
    {.name = "discovery-srv-name", .type = FLAG_STR, .use = USE_HERE, .def = "", .top = true,
     .help = "discovery: refused, name the members in --initial-cluster"},
    KEY("strict-reconfig-check", FLAG_BOOL, "true"),
    KEY("pre-vote", FLAG_BOOL, "true"),
    KEY("auto-compaction-retention", FLAG_STR, "0"),
    KEY("auto-compaction-mode", FLAG_STR, "periodic"),
    {.name = "v2-deprecation", .type = FLAG_STR, .use = USE_NOTHING, .def = "write-only", .choices = V2_STAGES,
     .help = "there never was a v2 store"},
    /* security */
    KEY_NOT_TOP("cert-file", FLAG_STR, ""),
    KEY_NOT_TOP("key-file", FLAG_STR, ""),
    {.name = "client-cert-file", .type = FLAG_STR, .use = USE_NOTHING, .def = "",
     .help = "the node is no client of its own port: JSON is served inside gatewayd"},
    {.name = "client-key-file", .type = FLAG_STR, .use = USE_NOTHING, .def = "",
     .help = "the node is no client of its own port: JSON is served inside gatewayd"},
    KEY_NOT_TOP("client-cert-auth", FLAG_BOOL, "false"),
    KEY_NOT_TOP("trusted-ca-file", FLAG_STR, ""),
    KEY_NOT_TOP("client-crl-file", FLAG_STR, ""),
    KEY_NOT_TOP("client-cert-allowed-hostname", FLAG_LIST, ""),
    KEY_NOT_TOP("auto-tls", FLAG_BOOL, "false"),
    KEY_NOT_TOP("peer-cert-file", FLAG_STR, ""),
    KEY_NOT_TOP("peer-key-file", FLAG_STR, ""),
    KEY_NOT_TOP("peer-client-cert-file", FLAG_STR, ""),
    KEY_NOT_TOP("peer-client-key-file", FLAG_STR, ""),
    KEY_NOT_TOP("peer-client-cert-auth", FLAG_BOOL, "false"),
    KEY_NOT_TOP("peer-trusted-ca-file", FLAG_STR, ""),
    KEY_NOT_TOP("peer-crl-file", FLAG_STR, ""),
    KEY_NOT_TOP("peer-cert-allowed-cn", FLAG_LIST, ""),
    KEY_NOT_TOP("peer-cert-allowed-hostname", FLAG_LIST, ""),
    KEY_NOT_TOP("peer-auto-tls", FLAG_BOOL, "false"),
    KEY_NOT_TOP("peer-skip-client-san-verification", FLAG_BOOL, "false"),
    KEY("self-signed-cert-validity", FLAG_UINT, "1"),
    {.name = "cipher-suites", .type = FLAG_LIST, .use = USE_KEY, .def = "", .top = true, .sequence = true},
    KEY("tls-min-version", FLAG_STR, "TLS1.2"),
    KEY("tls-max-version", FLAG_STR, ""),
    KEY("cors", FLAG_LIST, "*"),
    KEY("host-whitelist", FLAG_LIST, "*"),
    /* users */
    KEY("auth-token", FLAG_STR, "simple"),
    KEY("bcrypt-cost", FLAG_UINT, "10"),
    KEY("auth-token-ttl", FLAG_UINT, "300"),
    /* what is said */
    NOTHING("enable-pprof", FLAG_BOOL, "false", "there is no Go runtime to be profiled; use perf"),
    KEY("metrics", FLAG_STR, "basic"),
    KEY("listen-metrics-urls", FLAG_URLS, ""),
    {.name = "logger", .type = FLAG_STR, .use = USE_HERE, .def = "zap", .top = true, .help = "zap"},
    {.name = "log-outputs", .type = FLAG_LIST, .use = USE_KEY, .def = "default", .top = true, .sequence = true},
    KEY("log-level", FLAG_STR, "info"),
    KEY("log-format", FLAG_STR, "json"),
    NOTHING("disable-log-sampling", FLAG_BOOL, "false", "no line is left out by sampling"),
    KEY("enable-log-rotation", FLAG_BOOL, "false"),
    KEY("log-rotation-config-json", FLAG_STR,
        "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}"),
    KEY("warning-unary-request-duration", FLAG_DUR, "300ms"),
    KEY("warning-apply-duration", FLAG_DUR, "100ms"),
    NOTHING("enable-distributed-tracing", FLAG_BOOL, "false", "no traces are sent"),
    NOTHING("distributed-tracing-address", FLAG_STR, "localhost:4317", "no traces are sent"),
    NOTHING("distributed-tracing-service-name", FLAG_STR, "etcd", "no traces are sent"),
    NOTHING("distributed-tracing-instance-id", FLAG_STR, "", "no traces are sent"),
    NOTHING("distributed-tracing-sampling-rate", FLAG_INT, "0", "no traces are sent"),
    /* features and unsafe */
    NOTHING("corrupt-check-time", FLAG_DUR, "0s", "the members compare hashes of all they have applied, all the time"),
    NOTHING("compact-hash-check-time", FLAG_DUR, "1m0s", "the members compare hashes of all they have applied, all the time"),
    KEY("compaction-batch-limit", FLAG_INT, "1000"),
    KEY("compaction-sleep-interval", FLAG_DUR, "10ms"),
    KEY("watch-progress-notify-interval", FLAG_DUR, "10m0s"),
    NOTHING("downgrade-check-time", FLAG_DUR, "5s", "a downgrade is answered at once: all versions of the data are one"),
    KEY("bootstrap-defrag-threshold-megabytes", FLAG_UINT, "0"),
    KEY("force-new-cluster", FLAG_BOOL, "false"),
    KEY("unsafe-no-fsync", FLAG_BOOL, "false"),
    {.name = "config-file", .type = FLAG_STR, .use = USE_HERE, .def = "",
     .help = "YAML or JSON; all other flags and variables are then ignored"},
    {.name = "version", .type = FLAG_BOOL, .use = USE_HERE, .def = "false", .help = "print the version and exit"},
    GONE("cluster-active-size"), GONE("cluster-remove-delay"), GONE("cluster-sync-interval"), GONE("config"), GONE("force"),
    GONE("max-result-buffer"), GONE("max-retry-attempts"), GONE("peer-heartbeat-interval"), GONE("peer-election-timeout"),
    GONE("retry-interval"), GONE("snapshot"), GONE("v"), GONE("vv"), GONE("test.coverprofile"), GONE("test.outputdir"),
};
const size_t flag_count = ARRAY_LEN(flag_table);
_Static_assert(ARRAY_LEN(flag_table) <= FLAGS_MAX, "struct flags has room for every flag");

size_t flag_find(struct slice name)
{
    for (size_t i = 0; i < flag_count; i++) {
        if (slice_eq(name, slice_str(flag_table[i].name)))
            return i;
    }
    return flag_count;
}

/* --- values ---------------------------------------------------------------------------------------- */

void flags_fini(struct flags *f)
{
    for (size_t i = 0; i < flag_count; i++)
        free(f->value[i]);
    *f = (struct flags){0};
}

void flags_take(struct flags *f, size_t i, char *text, enum flag_source source)
{
    free(f->value[i]);
    f->value[i] = text;
    f->source[i] = source;
}

static int refuse(struct buf *why, const char *reason)
{
    buf_add_str(why, reason);
    return E_INVALID;
}

static bool is_choice(const struct flag *flag, const char *text)
{
    for (const char *const *c = flag->choices; c != NULL && *c != NULL; c++) {
        if (strcmp(*c, text) == 0)
            return true;
    }
    return flag->choices == NULL;
}

int flags_set(struct flags *f, size_t i, const char *text, enum flag_source source, struct buf *why)
{
    const struct flag *flag = &flag_table[i];
    uint64_t natural;
    int64_t whole, ns;
    bool truth;

    switch (flag->type) {
    case FLAG_GONE: /* any value, and it counts for nothing */
    case FLAG_STR:
    case FLAG_LIST:
        if (!is_choice(flag, text))
            return refuse(why, "invalid value");
        if (strcmp(flag->name, "feature-gates") == 0 && feature_parse(text, why) != OK)
            return E_INVALID;
        flags_take(f, i, xstrdup(text), source);
        return OK;
    case FLAG_URLS:
        if (text[0] != '\0' && conf_check_urls(text, false, why) != OK)
            return E_INVALID;
        flags_take(f, i, xstrdup(text), source);
        return OK;
    case FLAG_UINT:
        if (!value_uint(text, &natural))
            return refuse(why, "parse error");
        flags_take(f, i, xasprintf("%" PRIu64, natural), source);
        return OK;
    case FLAG_INT:
        if (!value_int(text, &whole))
            return refuse(why, "parse error");
        flags_take(f, i, xasprintf("%" PRId64, whole), source);
        return OK;
    case FLAG_BOOL:
        if (!value_bool(text, &truth))
            return refuse(why, "parse error");
        flags_take(f, i, xstrdup(truth ? "true" : "false"), source);
        return OK;
    case FLAG_DUR:
        break;
    }
    if (!value_duration(text, &ns))
        return refuse(why, "parse error");
    flags_take(f, i, value_duration_text(ns), source);
    return OK;
}

const char *flags_get(const struct flags *f, const char *name)
{
    size_t i = flag_find(slice_str(name));

    must(i < flag_count);
    return f->value[i] != NULL ? f->value[i] : flag_table[i].def;
}

bool flags_is_set(const struct flags *f, const char *name)
{
    size_t i = flag_find(slice_str(name));

    must(i < flag_count);
    return f->source[i] != SET_NOT;
}

bool flags_is_true(const struct flags *f, const char *name)
{
    return strcmp(flags_get(f, name), "true") == 0;
}

/* --- the command line -------------------------------------------------------------------------------- */

static void print_usage(FILE *to)
{
    fputs("Usage:\n\n"
          "  etcd [flags]\n    Start a Trine node that takes etcd's place.\n\n"
          "  etcd --version\n    Show the version.\n\n"
          "  etcd -h | --help\n    Show all flags.\n\n"
          "  etcd --config-file FILE\n    Take the configuration from a YAML or JSON file; other flags and variables are ignored.\n\n",
          to);
}

static const char *help_of(const struct flag *flag)
{
    return flag->help != NULL ? flag->help : conf_help(flag->name);
}

static _Noreturn void print_help(struct flags *f)
{
    print_usage(stderr);
    printf("Flags; each is also an environment variable, --data-dir ETCD_DATA_DIR:\n\n");
    for (size_t i = 0; i < flag_count; i++) {
        const struct flag *flag = &flag_table[i];
        printf("  --%s '%s'\n    %s%s\n", flag->name, flag->def,
               flag->use == USE_NOTHING ? "Accepted without effect: " : "", help_of(flag));
    }
    flags_fini(f);
    exit(0);
}

static _Noreturn void wrong(struct flags *f, const char *text)
{
    fprintf(stderr, "%s\n", text);
    print_usage(stderr);
    flags_fini(f);
    exit(2);
}

/* Go's words for a value that flags_set refused. */
static _Noreturn void wrong_value(struct flags *f, const struct flag *flag, const char *value, struct buf *why)
{
    char *text = flag->type == FLAG_BOOL
                     ? xasprintf("invalid boolean value \"%s\" for -%s: %.*s", value, flag->name, (int)why->len, (char *)why->data)
                     : xasprintf("invalid value \"%s\" for flag -%s: %.*s", value, flag->name, (int)why->len, (char *)why->data);

    buf_fini(why);
    fprintf(stderr, "%s\n", text);
    free(text);
    print_usage(stderr);
    flags_fini(f);
    exit(2);
}

static _Noreturn void wrong_argument(struct flags *f, const char *words, const char *argument)
{
    fprintf(stderr, "%s%s\n", words, argument);
    wrong(f, "");
}

/* One argument that begins with a hyphen. Returns how many further ones it used. */
static int parse_one(struct flags *f, const char *argument, const char *next)
{
    const char *name = argument + (argument[1] == '-' ? 2 : 1), *equal = strchr(name, '=');
    struct slice key = slice_of(name, equal == NULL ? strlen(name) : (size_t)(equal - name));
    struct buf why = BUF_INIT;
    size_t i = flag_find(key);
    int used = 0;

    if (key.len == 0 || name[0] == '-')
        wrong_argument(f, "bad flag syntax: ", argument);
    if (i == flag_count) {
        if (slice_eq(key, SLICE_LIT("help")) || slice_eq(key, SLICE_LIT("h")))
            print_help(f);
        fprintf(stderr, "flag provided but not defined: -%.*s\n", (int)key.len, (const char *)key.data);
        wrong(f, "");
    }
    bool alone = flag_table[i].type == FLAG_BOOL || flag_table[i].type == FLAG_GONE; /* takes the next argument never */
    const char *value = equal != NULL ? equal + 1 : alone ? "true" : next;

    if (value == NULL)
        wrong_argument(f, "flag needs an argument: -", flag_table[i].name);
    used = value == next;
    if (flags_set(f, i, value, SET_FLAG, &why) != OK)
        wrong_value(f, &flag_table[i], value, &why);
    return used;
}

void flags_parse(struct flags *f, int argc, char **argv, const char **first)
{
    int i = 1;

    while (i < argc && argv[i][0] == '-' && argv[i][1] != '\0') {
        if (strcmp(argv[i], "--") == 0) {
            i++;
            break;
        }
        i += 1 + parse_one(f, argv[i], i + 1 < argc ? argv[i + 1] : NULL);
    }
    *first = i < argc ? argv[i] : NULL;
}
