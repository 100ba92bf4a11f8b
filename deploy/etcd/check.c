/* check - what etcd refuses before it starts, in its order and its words. What is not here is refused by the configuration
 * of the daemons (common/conf_finish.c), which is asked after this. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/conf.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "deploy/etcd/flags.h"

#define ELECTION_MS_MAX 50000

static int refuse(struct buf *why, const char *text)
{
    buf_add_str(why, text);
    return E_INVALID;
}

static int check_log(const struct flags *f, struct buf *why)
{
    const char *logger = flags_get(f, "logger"), *format = flags_get(f, "log-format"), *level = flags_get(f, "log-level");
    enum log_level parsed;

    if (strcmp(logger, "capnslog") == 0)
        return refuse(why, "--logger=capnslog is removed in v3.5");
    if (strcmp(logger, "zap") != 0) {
        buf_printf(why, "unknown logger option \"%s\"", logger);
        return E_INVALID;
    }
    if (strcmp(format, "json") != 0 && strcmp(format, "console") != 0) {
        buf_printf(why, "unknown log format: %s, supported values json, console", format);
        return E_INVALID;
    }
    if (log_level_parse(level, &parsed) != OK && strcmp(level, "panic") != 0 && strcmp(level, "fatal") != 0) {
        buf_printf(why, "unrecognized level: \"%s\"", level);
        return E_INVALID;
    }
    return OK;
}

static int check_listen(const struct flags *f, struct buf *why)
{
    static const char *const names[] = {"listen-peer-urls", "listen-client-urls", "listen-client-http-urls",
                                        "listen-metrics-urls"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *urls = flags_get(f, names[i]);
        if (urls[0] != '\0' && conf_check_urls(urls, true, why) != OK)
            return E_INVALID;
    }
    return OK;
}

static int check_bootstrap(const struct flags *f, struct buf *why)
{
    bool endpoints = flags_get(f, "discovery-endpoints")[0] != '\0', token = flags_get(f, "discovery-token")[0] != '\0';
    bool srv = flags_get(f, "discovery-srv")[0] != '\0', cluster = flags_get(f, "initial-cluster")[0] != '\0';

    if (cluster + srv + endpoints > 1)
        return refuse(why, "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", "
                           "\"discovery-endpoints\" or \"discovery-srv\"");
    if (token != endpoints)
        return refuse(why, "both --discovery-token and --discovery-endpoints must be set");
    return OK;
}

static int check_timing(const struct flags *f, struct buf *why)
{
    uint64_t heartbeat = strtoull(flags_get(f, "heartbeat-interval"), NULL, 10);
    uint64_t election = strtoull(flags_get(f, "election-timeout"), NULL, 10);

    if (heartbeat == 0)
        return refuse(why, "--heartbeat-interval must be >0 (set to 0ms)");
    if (election == 0)
        return refuse(why, "--election-timeout must be >0 (set to 0ms)");
    if (heartbeat > election / 5) {
        buf_printf(why,
                   "--election-timeout[%" PRIu64 "ms] should be at least as 5 times as --heartbeat-interval[%" PRIu64 "ms]",
                   election, heartbeat);
        return E_INVALID;
    }
    if (election > ELECTION_MS_MAX) {
        buf_printf(why, "--election-timeout[%" PRIu64 "ms] is too long, and should be set less than %dms", election,
                   ELECTION_MS_MAX);
        return E_INVALID;
    }
    return OK;
}

/* By the file alone the default is advertised (etcd does not look there). */
static int check_advertise(const struct flags *f, struct buf *why)
{
    size_t listen = flag_find(SLICE_LIT("listen-client-urls"));

    if (f->source[listen] != SET_FLAG && f->source[listen] != SET_ENV)
        return OK;
    if (!flags_is_set(f, "advertise-client-urls") || flags_get(f, "advertise-client-urls")[0] == '\0')
        return refuse(why, "--advertise-client-urls is required when --listen-client-urls is set explicitly");
    return OK;
}

static int check_compaction(const struct flags *f, struct buf *why)
{
    const char *mode = flags_get(f, "auto-compaction-mode");

    if (mode[0] == '\0')
        return refuse(why, "undefined auto-compaction-mode");
    if (strcmp(mode, "periodic") != 0 && strcmp(mode, "revision") != 0) {
        buf_printf(why, "unknown auto-compaction-mode \"%s\"", mode);
        return E_INVALID;
    }
    return OK;
}

static int check_tls(const struct flags *f, struct buf *why)
{
    static const char *const names[] = {"tls-min-version", "tls-max-version"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *version = flags_get(f, names[i]);
        if (version[0] != '\0' && strcmp(version, "TLS1.2") != 0 && strcmp(version, "TLS1.3") != 0) {
            buf_printf(why, "unexpected TLS version \"%s\" (must be one of: TLS1.2, TLS1.3)", version);
            return E_INVALID;
        }
    }
    if (strcmp(flags_get(f, "tls-min-version"), "TLS1.3") == 0 && strcmp(flags_get(f, "tls-max-version"), "TLS1.2") == 0)
        return refuse(why, "min version (TLS1.3) is greater than max version (TLS1.2)");
    if (strcmp(flags_get(f, "tls-min-version"), "TLS1.3") == 0 && flags_get(f, "cipher-suites")[0] != '\0')
        return refuse(why, "cipher suites cannot be configured when only TLS1.3 is enabled");
    return OK;
}

int check_flags(const struct flags *f, struct buf *why)
{
    if (strcmp(flags_get(f, "discovery-fallback"), "proxy") == 0)
        return refuse(why, "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"");
    if (check_log(f, why) != OK || check_listen(f, why) != OK || check_bootstrap(f, why) != OK || check_timing(f, why) != OK ||
        check_advertise(f, why) != OK || check_compaction(f, why) != OK)
        return E_INVALID;
    if (feature_check(flags_get(f, "feature-gates"), why) != OK)
        return E_INVALID;
    if (strcmp(flags_get(f, "compact-hash-check-time"), "0ms") == 0)
        return refuse(why, "--compact-hash-check-time must be >0 (set to 0s)");
    return check_tls(f, why);
}
