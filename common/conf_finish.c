/* conf_finish - what spans keys: contradictions, and defaults that follow from other keys.
 * Runs once, after file, environment and options; each single value is good by then (conf_set). */
#include "common/conf.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/tls.h"

/* Links add the number of their slot behind an ipc path (".16"). */
#define SLOT_SUFFIX_BYTES ((size_t)8)

/* Replaces a text of c. text is taken. */
static void take_text(const char **member, char *text)
{
    free((char *)(uintptr_t)*member);
    *member = text;
}

static int check_timing(const struct conf *c, struct buf *why)
{
    if (c->election_timeout_ms >= 5 * c->heartbeat_interval_ms)
        return OK;
    buf_printf(
        why, "--election-timeout[%" PRIu64 "ms] should be at least as 5 times as --heartbeat-interval[%" PRIu64 "ms]\n",
        c->election_timeout_ms, c->heartbeat_interval_ms);
    return E_INVALID;
}

/* The default would send clients to localhost, wherever they are. */
static int check_advertise(const struct conf *c, struct buf *why)
{
    if (!conf_is_given(c, "listen-client-urls") || conf_is_given(c, "advertise-client-urls"))
        return OK;
    buf_add_str(why, "--advertise-client-urls is required when --listen-client-urls is set explicitly\n");
    return E_INVALID;
}

static int check_retention(const struct conf *c, struct buf *why)
{
    uint64_t value;

    if (conf_parse_retention(c->auto_compaction_mode, c->auto_compaction_retention, &value) == OK)
        return OK;
    buf_printf(why, "auto-compaction-retention: \"%s\" is not %s, as auto-compaction-mode %s wants\n",
               c->auto_compaction_retention,
               strcmp(c->auto_compaction_mode, "revision") == 0 ? "a number of revisions"
                                                                : "a duration like 10m or a number of hours",
               c->auto_compaction_mode);
    return E_INVALID;
}

/* etcd's words. Better refused than served in the clear. */
static int check_tls_listen(const char *key, const char *urls, bool has_cert, struct buf *why)
{
    struct conf_url *list = NULL;
    size_t count = 0;
    int result = OK;

    if (has_cert || conf_parse_urls(urls, &list, &count) != OK)
        return OK;
    for (size_t i = 0; i < count; i++) {
        bool is_unix = strcmp(list[i].scheme, "unixs") == 0;
        if (!is_unix && strcmp(list[i].scheme, "https") != 0)
            continue;
        char *host = is_unix ? xstrdup(list[i].host) : xasprintf("%s:%u", list[i].host, list[i].port);
        if (strcmp(key, "listen-peer-urls") == 0)
            buf_printf(why, "cannot listen on TLS for %s: KeyFile and CertFile are not presented\n", host);
        else
            buf_printf(why, "TLS key/cert (--cert-file, --key-file) must be provided for client url %s://%s with HTTPS scheme\n",
                       list[i].scheme, host);
        free(host);
        result = E_INVALID;
    }
    conf_free_urls(list, count);
    return result;
}

/* What everybody on the network can read is served only to who says so. */
static int check_plaintext(const struct conf *c, const char *key, const char *urls, struct buf *why)
{
    struct conf_url *list = NULL;
    size_t count = 0;
    int result = OK;

    if (c->allow_plaintext || urls[0] == '\0' || conf_parse_urls(urls, &list, &count) != OK)
        return OK;
    for (size_t i = 0; i < count; i++) {
        if (!conf_url_is_open(&list[i]))
            continue;
        buf_printf(why, "--%s: http://%s:%u would serve clients of other machines in the clear: use https, or say --allow-plaintext=true\n", key,
                   list[i].host, list[i].port);
        result = E_INVALID;
    }
    conf_free_urls(list, count);
    return result;
}

/* Two keys that mean nothing without each other. */
static int check_pair(const char *first_key, const char *first, const char *second_key, const char *second, struct buf *why)
{
    if ((first[0] == '\0') == (second[0] == '\0'))
        return OK;
    buf_printf(why, "--%s and --%s must be given together\n", first_key, second_key);
    return E_INVALID;
}

static int check_tls(const struct conf *c, struct buf *why)
{
    bool peer_cert = c->peer_auto_tls || (c->peer_cert_file[0] != '\0' && c->peer_key_file[0] != '\0');
    bool cert = c->auto_tls || (c->cert_file[0] != '\0' && c->key_file[0] != '\0');
    int result = OK;

    if (check_pair("cert-file", c->cert_file, "key-file", c->key_file, why) != OK)
        result = E_INVALID;
    if (check_pair("peer-cert-file", c->peer_cert_file, "peer-key-file", c->peer_key_file, why) != OK)
        result = E_INVALID;
    if (check_pair("peer-client-cert-file", c->peer_client_cert_file, "peer-client-key-file", c->peer_client_key_file, why) != OK)
        result = E_INVALID;
    if (check_tls_listen("listen-client-urls", c->listen_client_urls, cert, why) != OK)
        result = E_INVALID;
    if (check_tls_listen("listen-client-http-urls", c->listen_client_http_urls, cert, why) != OK)
        result = E_INVALID;
    if (check_tls_listen("listen-metrics-urls", c->listen_metrics_urls, cert, why) != OK)
        result = E_INVALID;
    if (check_tls_listen("listen-peer-urls", c->listen_peer_urls, peer_cert, why) != OK)
        result = E_INVALID;
    if (c->peer_cert_allowed_cn[0] != '\0' && c->peer_cert_allowed_hostname[0] != '\0') {
        buf_add_str(why, "--peer-cert-allowed-cn and --peer-cert-allowed-hostname exclude each other\n");
        result = E_INVALID;
    }
    return result;
}

/* Texts are etcd's. */
static int check_tls_rules(const struct conf *c, struct buf *why)
{
    bool newest_only = strcmp(c->tls_min_version, "TLS1.3") == 0;
    struct buf reason = BUF_INIT;
    int result = OK;

    if (c->client_cert_allowed_cn[0] != '\0' && c->client_cert_allowed_hostname[0] != '\0') {
        buf_printf(why, "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[%s], hostnames=[%s])\n", c->client_cert_allowed_cn,
                   c->client_cert_allowed_hostname);
        result = E_INVALID;
    }
    if (newest_only && strcmp(c->tls_max_version, "TLS1.2") == 0) {
        buf_printf(why, "min version (%s) is greater than max version (%s)\n", c->tls_min_version, c->tls_max_version);
        result = E_INVALID;
    }
    if (newest_only && c->cipher_suites[0] != '\0') {
        buf_add_str(why, "cipher suites cannot be configured when only TLS1.3 is enabled\n");
        result = E_INVALID;
    }
    if (tls_check_suites(c->cipher_suites, &reason) != OK) {
        buf_printf(why, "--cipher-suites: %.*s\n", (int)reason.len, (const char *)reason.data);
        result = E_INVALID;
    }
    buf_fini(&reason);
    return result;
}

/* After priv_drop the working directory is /. */
static int make_absolute(const char *key, const char **member, struct buf *why)
{
    char cwd[PATH_MAX];

    if ((*member)[0] == '/')
        return OK;
    if (getcwd(cwd, sizeof(cwd)) == NULL) {
        buf_printf(why, "%s: the directory that \"%s\" is relative to: %s\n", key, *member, strerror(errno));
        return E_INVALID;
    }
    const char *rest = strncmp(*member, "./", 2) == 0 ? *member + 2 : *member;

    take_text(member, xasprintf("%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, rest));
    return OK;
}

/* They are read again while the daemon runs. */
static int make_files_absolute(struct conf *c, struct buf *why)
{
    const struct {
        const char *key;
        const char **member;
    } files[] = {
        {"cert-file", &c->cert_file},
        {"key-file", &c->key_file},
        {"trusted-ca-file", &c->trusted_ca_file},
        {"client-crl-file", &c->client_crl_file},
        {"peer-cert-file", &c->peer_cert_file},
        {"peer-key-file", &c->peer_key_file},
        {"peer-client-cert-file", &c->peer_client_cert_file},
        {"peer-client-key-file", &c->peer_client_key_file},
        {"peer-trusted-ca-file", &c->peer_trusted_ca_file},
        {"peer-crl-file", &c->peer_crl_file},
    };
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        if ((*files[i].member)[0] != '\0' && make_absolute(files[i].key, files[i].member, why) != OK)
            return E_INVALID;
    }
    return OK;
}

/* name is the socket's in run-dir; gateways after the first have their number in it: native.2.ipc. */
static void default_url(struct conf *c, const char **member, const char *name, uint64_t gateway_id)
{
    if ((*member)[0] != '\0')
        return;
    if (gateway_id <= 1)
        take_text(member, xasprintf("ipc://%s/%s.ipc", c->run_dir, name));
    else
        take_text(member, xasprintf("ipc://%s/%s.%" PRIu64 ".ipc", c->run_dir, name, gateway_id));
}

/* nng would fail later, and name neither the key nor the limit. */
static int check_ipc_path(const char *key, const char *url, struct buf *why)
{
    size_t path_max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1 - SLOT_SUFFIX_BYTES;

    if (strncmp(url, "ipc://", strlen("ipc://")) != 0 || strlen(url + strlen("ipc://")) <= path_max)
        return OK;
    buf_printf(why,
               "%s: the path in %s is longer than the %zu bytes that a socket's name has room for: "
               "choose a shorter run-dir\n",
               key, url, path_max);
    return E_INVALID;
}

/* NAME=URL for each of initial-advertise-peer-urls. */
static void default_cluster(struct conf *c)
{
    struct buf text = BUF_INIT;

    if (c->initial_cluster[0] != '\0')
        return;
    for (const char *next = c->initial_advertise_peer_urls; next != NULL;) {
        struct slice url = conf_next_item(&next);
        buf_printf(&text, "%s%s=", text.len == 0 ? "" : ",", c->name);
        buf_add_slice(&text, url);
    }
    take_text(&c->initial_cluster, slice_dup_str(buf_slice(&text)));
    buf_fini(&text);
}

static int check_log(const struct conf *c, struct buf *why)
{
    struct log_rotation rotation;

    return conf_log_rotation(c, &rotation, why);
}

int conf_finish(struct conf *c, struct buf *why)
{
    int result = OK;

    /* All of them, so that all faults are told at once. */
    if (check_timing(c, why) != OK)
        result = E_INVALID;
    if (check_advertise(c, why) != OK)
        result = E_INVALID;
    if (check_retention(c, why) != OK)
        result = E_INVALID;
    if (check_tls(c, why) != OK)
        result = E_INVALID;
    if (check_tls_rules(c, why) != OK)
        result = E_INVALID;
    if (check_plaintext(c, "listen-client-urls", c->listen_client_urls, why) != OK)
        result = E_INVALID;
    if (check_plaintext(c, "listen-client-http-urls", c->listen_client_http_urls, why) != OK)
        result = E_INVALID;
    if (check_plaintext(c, "listen-metrics-urls", c->listen_metrics_urls, why) != OK)
        result = E_INVALID;
    if (make_files_absolute(c, why) != OK)
        return E_INVALID;
    if (check_log(c, why) != OK)
        result = E_INVALID;
    if (c->wal_dir[0] != '\0' && make_absolute("wal-dir", &c->wal_dir, why) != OK)
        return E_INVALID;
    if (make_absolute("data-dir", &c->data_dir, why) != OK || make_absolute("run-dir", &c->run_dir, why) != OK)
        return E_INVALID;

    default_cluster(c);
    const struct {
        const char *key;
        const char **member;
        const char *socket;
        uint64_t gateway_id; /* 0: one per node */
    } urls[] = {
        {"raftd-url", &c->raftd_url, "raftd", 0},
        {"stored-url", &c->stored_url, "stored", 0},
        {"native-url", &c->native_url, "native", c->gateway_id},
        {"native-pub-url", &c->native_pub_url, "events", c->gateway_id},
    };
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        default_url(c, urls[i].member, urls[i].socket, urls[i].gateway_id);
        if (check_ipc_path(urls[i].key, *urls[i].member, why) != OK)
            result = E_INVALID;
    }
    return result;
}
