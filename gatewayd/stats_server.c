/* stats_server - etcd's own words for what its server does with requests, as far as this gateway sees it: who asks, how long it takes,
 * versions, health, promotions. Part of stats.c's text; spec/surface.md §10. What has no meaning here is listed in gatewayd(8). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/metrics.h"
#include "gatewayd/gatewayd.h"

/* Distinct client-api-versions that are told apart; further ones are "other". */
#define API_VERSIONS_MAX 16
#define API_VERSION_BYTES_MAX 64

struct api_version {
    char *name;
    uint64_t requests[2]; /* unary, stream */
};

struct duration {
    struct histogram took[2]; /* failed, answered */
};

struct server_stats {
    struct api_version versions[API_VERSIONS_MAX + 1]; /* [0] is "unknown": the client does not tell */
    size_t version_count;
    struct duration *durations; /* as in route.c's table */
    uint64_t health[2];         /* failed, answered */
    uint64_t checks[2][STATS_CHECKS][2];
    bool checked[2][STATS_CHECKS], check_was_good[2][STATS_CHECKS];
    uint64_t promoted, not_promoted[3];
    uint64_t stream_failures[2];
};

void server_stats_init(struct gatewayd *g)
{
    struct server_stats *s = g->server_stats = xcalloc(1, sizeof(*s));
    s->versions[0].name = xstrdup("unknown");
    s->version_count = 1;
    s->durations = xcalloc(route_count(), sizeof(*s->durations));
    for (size_t i = 0; i < route_count(); i++) {
        histogram_init(&s->durations[i].took[0], 1000, 14);
        histogram_init(&s->durations[i].took[1], 1000, 14);
    }
}

void server_stats_fini(struct gatewayd *g)
{
    struct server_stats *s = g->server_stats;
    for (size_t i = 0; i < s->version_count; i++) {
        free(s->versions[i].name);
    }
    free(s->durations);
    free(s);
    g->server_stats = NULL;
}

/* --- counting -------------------------------------------------------------------------------------------------- */

unsigned stats_api_version(struct gatewayd *g, struct slice name)
{
    struct server_stats *s = g->server_stats;
    name.len = MIN(name.len, (size_t)API_VERSION_BYTES_MAX);
    for (size_t i = 0; i < s->version_count; i++) {
        if (slice_eq(name, slice_str(s->versions[i].name))) {
            return (unsigned)i;
        }
    }
    if (s->version_count == API_VERSIONS_MAX) { /* the last one is for all that come after */
        s->versions[s->version_count++].name = xstrdup("other");
    }
    if (s->version_count > API_VERSIONS_MAX) {
        return API_VERSIONS_MAX;
    }
    s->versions[s->version_count].name = slice_dup_str(name);
    return (unsigned)s->version_count++;
}

void stats_client_request(struct gatewayd *g, bool is_stream, unsigned api_version)
{
    g->server_stats->versions[api_version].requests[is_stream]++;
}

void stats_answered(struct gatewayd *g, const struct call_handler *h, uint64_t ms, int grpc_status)
{
    struct server_stats *s = g->server_stats;
    size_t pos = route_pos(h);
    if (pos == SIZE_MAX) {
        return;
    }
    if (h->client_stream) {
        /* What the client sent could not be taken. */
        bool is_watch = strcmp(h->method, "Watch") == 0;
        bool failed = grpc_status == err_grpc_status(E_MALFORMED) || grpc_status == err_grpc_status(E_TOO_BIG);
        s->stream_failures[is_watch] += failed;
    } else if (!h->server_stream) {
        histogram_observe_us(&s->durations[pos].took[grpc_status == 0], ms * 1000);
    }
}

void stats_health(struct gatewayd *g, bool good) { g->server_stats->health[good]++; }

void stats_check(struct gatewayd *g, bool is_readyz, unsigned check, bool good)
{
    struct server_stats *s = g->server_stats;
    s->checks[is_readyz][check][good]++;
    s->checked[is_readyz][check] = true;
    s->check_was_good[is_readyz][check] = good;
}

void stats_promoted(struct gatewayd *g, int err)
{
    struct server_stats *s = g->server_stats;
    if (err == OK) {
        s->promoted++;
    } else {
        s->not_promoted[err == E_LEARNER_NOT_READY ? 0 : err == E_MEMBER_NOT_LEARNER ? 1 : 2]++;
    }
}

/* --- text ------------------------------------------------------------------------------------------------------------ */

static void one_labelled(struct buf *out, const char *name, const char *help, const char *labels)
{
    metrics_help(out, name, METRICS_GAUGE, help);
    metrics_u64(out, name, labels, 1);
}

static void requests_text(const struct server_stats *s, struct buf *out)
{
    static const char name[] = "etcd_server_client_requests_total";
    metrics_help(out, name, METRICS_COUNTER, "The total number of client requests per client version.");
    for (size_t i = 0; i < s->version_count; i++) {
        for (size_t k = 0; k < 2; k++) {
            struct buf labels = BUF_INIT;
            metrics_label(&labels, "client_api_version", slice_str(s->versions[i].name));
            buf_printf(&labels, ",type=\"%s\"", k == 0 ? "unary" : "stream");
            buf_add_byte(&labels, 0);
            metrics_u64(out, name, (const char *)labels.data, s->versions[i].requests[k]);
            buf_fini(&labels);
        }
    }
}

static void durations_text(const struct server_stats *s, struct buf *out)
{
    static const char name[] = "etcd_server_request_duration_seconds";
    metrics_help(out, name, METRICS_HISTOGRAM, "Response latency distribution in seconds for each type.");
    for (size_t i = 0; i < route_count(); i++) {
        const struct call_handler *h = route_at(i);
        for (size_t k = 0; k < 2; k++) {
            char labels[96];
            bool always = k == 1 && i == 0; /* the first row is Range: the metric is never without a series */
            if (strncmp(h->service, "etcdserverpb.", 13) != 0 || (histogram_count(&s->durations[i].took[k]) == 0 && !always)) {
                continue;
            }
            snprintf(labels, sizeof(labels), "success=\"%s\",type=\"%s\"", k == 1 ? "true" : "false", h->method);
            histogram_render(out, name, labels, &s->durations[i].took[k]);
        }
    }
}

static void checks_text(const struct server_stats *s, struct buf *out)
{
    static const char *const types[] = {"livez", "readyz"}, *const states[] = {"error", "success"};
    char labels[128];
    metrics_help(out, "etcd_server_healthcheck", METRICS_GAUGE, "The result of each kind of healthcheck.");
    for (size_t t = 0; t < 2; t++) {
        for (unsigned c = 0; c < STATS_CHECKS; c++) {
            if (s->checked[t][c]) {
                snprintf(labels, sizeof(labels), "name=\"%s\",type=\"%s\"", stats_check_names[c], types[t]);
                metrics_u64(out, "etcd_server_healthcheck", labels, s->check_was_good[t][c]);
            }
        }
    }
    metrics_help(out, "etcd_server_healthchecks_total", METRICS_COUNTER, "The total number of each kind of healthcheck.");
    for (size_t t = 0; t < 2; t++) {
        for (unsigned c = 0; c < STATS_CHECKS; c++) {
            for (size_t k = 0; k < 2 && (t == 1 || stats_check_in_livez(c)); k++) {
                snprintf(labels, sizeof(labels), "name=\"%s\",status=\"%s\",type=\"%s\"", stats_check_names[c], states[k], types[t]);
                metrics_u64(out, "etcd_server_healthchecks_total", labels, s->checks[t][c][k]);
            }
        }
    }
}

static void counter(struct buf *out, const char *name, const char *help, uint64_t value)
{
    metrics_help(out, name, METRICS_COUNTER, help);
    metrics_u64(out, name, NULL, value);
}

static void promotions_text(const struct server_stats *s, struct buf *out)
{
    static const char *const reasons[] = {"Reason=\"not ready\"", "Reason=\"not a learner\"", "Reason=\"other\""};
    counter(out, "etcd_server_learner_promote_successes", "Promotions of learners asked of this member that were done.", s->promoted);
    metrics_help(out, "etcd_server_learner_promote_failures", METRICS_COUNTER, "Those that were not, by reason.");
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
        metrics_u64(out, "etcd_server_learner_promote_failures", reasons[i], s->not_promoted[i]);
    }
}

static void streams_text(const struct server_stats *s, struct buf *out)
{
    static const char name[] = "etcd_network_server_stream_failures_total";
    metrics_help(out, name, METRICS_COUNTER, "Streams that ended because what the client sent could not be taken.");
    metrics_u64(out, name, "API=\"watch\",Type=\"receive\"", s->stream_failures[1]);
    metrics_u64(out, name, "API=\"lease-keepalive\",Type=\"receive\"", s->stream_failures[0]);
}

static void fds_text(struct buf *out)
{
    struct process_usage u;
    process_usage_read(&u);
    metrics_help(out, "os_fd_used", METRICS_GAUGE, "The number of used file descriptors.");
    metrics_u64(out, "os_fd_used", NULL, u.open_fds);
    metrics_help(out, "os_fd_limit", METRICS_GAUGE, "The file descriptor limit.");
    metrics_u64(out, "os_fd_limit", NULL, u.max_fds);
}

void server_stats_text(struct gatewayd *g, struct buf *out)
{
    const struct server_stats *s = g->server_stats;
    char label[64];
    /* "3.7.0" -> "3.7" */
    snprintf(label, sizeof(label), "cluster_version=\"%.*s\"", (int)(strrchr(TRINE_CLUSTER_VERSION, '.') - TRINE_CLUSTER_VERSION),
        TRINE_CLUSTER_VERSION);
    one_labelled(out, "etcd_cluster_version", "Which version is running. 1 for 'cluster_version' label with current cluster version.", label);
    one_labelled(out, "etcd_server_version", "Which version is running. 1 for 'server_version' label with current version.",
        "server_version=\"" TRINE_API_VERSION "\"");
    requests_text(s, out);
    durations_text(s, out);
    counter(out, "etcd_server_health_success", "The total number of successful health checks.", s->health[1]);
    counter(out, "etcd_server_health_failures", "The total number of failed health checks.", s->health[0]);
    checks_text(s, out);
    promotions_text(s, out);
    streams_text(s, out);
    fds_text(out);
}
