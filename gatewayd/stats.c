/* stats - what this gateway counts, as Prometheus text. etcd's names where etcd has them; every series of gRPC is there from
 * the start with 0, because alerts on rates need the step from 0 to 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/metrics.h"
#include "gatewayd/conn.h"

#define GRPC_CODES 17

struct method_stats {
    uint64_t started, received, sent;
    uint64_t handled[GRPC_CODES];
    struct histogram took; /* metrics = extensive */
};

struct stats {
    struct method_stats *methods; /* as in route.c's table */
    uint64_t received_bytes, sent_bytes;
    uint64_t dropped[DROP_COUNT];
    struct log_limit slow_limit;
};

void stats_init(struct gatewayd *g)
{
    g->stats = xcalloc(1, sizeof(*g->stats));
    server_stats_init(g);
    g->stats->methods = xcalloc(route_count(), sizeof(*g->stats->methods));
    for (size_t i = 0; i < route_count(); i++) {
        histogram_init(&g->stats->methods[i].took, 1000, 14);
    }
}

void stats_fini(struct gatewayd *g)
{
    server_stats_fini(g);
    free(g->stats->methods);
    free(g->stats);
    g->stats = NULL;
}

static struct method_stats *method_of(struct gatewayd *g, const struct call_handler *h)
{
    size_t pos = route_pos(h);
    return pos != SIZE_MAX ? &g->stats->methods[pos] : NULL;
}

void stats_started(struct gatewayd *g, const struct call_handler *h)
{
    struct method_stats *m = method_of(g, h);
    if (m != NULL) {
        m->started++;
    }
}

void stats_handled(struct gatewayd *g, const struct call_handler *h, int grpc_status)
{
    struct method_stats *m = method_of(g, h);
    if (m != NULL) {
        m->handled[grpc_status]++;
    }
}

/* Streams live as long as their clients want; who stands in line waits for others. */
static void warn_if_slow(struct gatewayd *g, const struct call_handler *h, uint64_t ms)
{
    uint64_t limit_ms = g->conf->warning_unary_request_duration_ms, swallowed;
    if (h->client_stream || h->server_stream || h->closed == queue_closed || limit_ms == 0 || ms <= limit_ms ||
        !log_allow(&g->stats->slow_limit, gatewayd_now_ms(g), &swallowed)) {
        return;
    }
    log_warnx("stats: a request took too long: %s, took %llu ms, expected less than %llu ms; %llu like it before", h->path,
        (unsigned long long)ms, (unsigned long long)limit_ms, (unsigned long long)swallowed);
}

void stats_took(struct gatewayd *g, const struct call_handler *h, uint64_t ms)
{
    struct method_stats *m = method_of(g, h);
    if (m != NULL) {
        histogram_observe_us(&m->took, ms * 1000);
        warn_if_slow(g, h, ms);
    }
}

void stats_received(struct gatewayd *g, const struct call_handler *h, size_t bytes)
{
    struct method_stats *m = method_of(g, h);
    if (m != NULL) {
        m->received++;
    }
    g->stats->received_bytes += bytes;
}

void stats_sent(struct gatewayd *g, const struct call_handler *h, size_t bytes)
{
    struct method_stats *m = method_of(g, h);
    if (m != NULL) {
        m->sent++;
    }
    g->stats->sent_bytes += bytes;
}

void stats_dropped(struct gatewayd *g, enum drop why) { g->stats->dropped[why]++; }

/* --- text -------------------------------------------------------------------------------------------------- */

static const char *grpc_type(const struct call_handler *h)
{
    if (h->client_stream) {
        return h->server_stream ? "bidi_stream" : "client_stream";
    }
    return h->server_stream ? "server_stream" : "unary";
}

static void per_method(struct gatewayd *g, struct buf *out, const char *name, const char *help, size_t offset)
{
    metrics_help(out, name, METRICS_COUNTER, help);
    for (size_t i = 0; i < route_count(); i++) {
        const struct call_handler *h = route_at(i);
        char labels[256];
        snprintf(labels, sizeof(labels), "grpc_method=\"%s\",grpc_service=\"%s\",grpc_type=\"%s\"", h->method, h->service,
            grpc_type(h));
        metrics_u64(out, name, labels, *(const uint64_t *)(const void *)((const char *)&g->stats->methods[i] + offset));
    }
}

static void per_code(struct gatewayd *g, struct buf *out)
{
    static const char *const codes[GRPC_CODES] = {"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound",
        "AlreadyExists", "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented",
        "Internal", "Unavailable", "DataLoss", "Unauthenticated"};
    static const char name[] = "grpc_server_handled_total";
    metrics_help(out, name, METRICS_COUNTER, "Total number of RPCs completed on the server, regardless of success or failure.");
    for (size_t i = 0; i < route_count(); i++) {
        const struct call_handler *h = route_at(i);
        for (size_t code = 0; code < GRPC_CODES; code++) {
            char labels[256];
            snprintf(labels, sizeof(labels), "grpc_code=\"%s\",grpc_method=\"%s\",grpc_service=\"%s\",grpc_type=\"%s\"",
                codes[code], h->method, h->service, grpc_type(h));
            metrics_u64(out, name, labels, g->stats->methods[i].handled[code]);
        }
    }
}

static void per_time(struct gatewayd *g, struct buf *out)
{
    static const char name[] = "grpc_server_handling_seconds";
    metrics_help(out, name, METRICS_HISTOGRAM,
        "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.");
    for (size_t i = 0; i < route_count(); i++) {
        const struct call_handler *h = route_at(i);
        char labels[256];
        snprintf(labels, sizeof(labels), "grpc_method=\"%s\",grpc_service=\"%s\",grpc_type=\"%s\"", h->method, h->service,
            grpc_type(h));
        histogram_render(out, name, labels, &g->stats->methods[i].took);
    }
}

static void one(struct buf *out, const char *name, const char *type, const char *help, uint64_t value)
{
    metrics_help(out, name, type, help);
    metrics_u64(out, name, NULL, value);
}

static void per_drop(struct gatewayd *g, struct buf *out)
{
    static const char name[] = "trine_gateway_dropped_total";
    static const char *const reasons[DROP_COUNT] = {
        [DROP_LIMIT] = "reason=\"limit\"", [DROP_SLOW] = "reason=\"slow\"", [DROP_MALFORMED] = "reason=\"malformed\"",
        [DROP_FLOOD] = "reason=\"flood\"", [DROP_UNREAD] = "reason=\"unread\"",
        [DROP_TLS] = "reason=\"tls\"", [DROP_RATE] = "reason=\"rate\""};
    metrics_help(out, name, METRICS_COUNTER,
        "Connections refused (limit, tls) or ended (slow, malformed, flood), and requests refused for answers not read (unread) or too many (rate).");
    for (size_t i = 0; i < DROP_COUNT; i++) {
        metrics_u64(out, name, reasons[i], g->stats->dropped[i]);
    }
}

static void one_link(struct buf *out, struct link *link)
{
    if (link == NULL) {
        return;
    }
    const struct link_stats *s = link_stats(link);
    char labels[64];
    snprintf(labels, sizeof(labels), "link=\"%s\"", link_name(link));
    metrics_u64(out, "trine_gateway_link_downs_total", labels, s->downs);
}

void stats_text(struct gatewayd *g, struct buf *out)
{
    per_method(g, out, "grpc_server_started_total", "Total number of RPCs started on the server.",
        offsetof(struct method_stats, started));
    per_code(g, out);
    if (strcmp(g->conf->metrics, "extensive") == 0) {
        per_time(g, out);
    }
    per_method(g, out, "grpc_server_msg_received_total", "Total number of RPC stream messages received on the server.",
        offsetof(struct method_stats, received));
    per_method(g, out, "grpc_server_msg_sent_total", "Total number of gRPC stream messages sent by the server.",
        offsetof(struct method_stats, sent));
    one(out, "etcd_network_client_grpc_received_bytes_total", METRICS_COUNTER,
        "The total number of bytes received from grpc clients.", g->stats->received_bytes);
    one(out, "etcd_network_client_grpc_sent_bytes_total", METRICS_COUNTER, "The total number of bytes sent to grpc clients.",
        g->stats->sent_bytes);
    server_stats_text(g, out);
    one(out, "trine_gateway_connections", METRICS_GAUGE, "Client connections that are open.",
        g->server != NULL ? server_conn_count(g->server) : 0);
    one(out, "trine_gateway_calls", METRICS_GAUGE, "gRPC calls that are open.", g->call_count);
    one(out, "trine_gateway_pending_requests", METRICS_GAUGE, "Requests on their way round the ring.", g->pending.count);
    one(out, "trine_gateway_queued_bytes", METRICS_GAUGE, "Bytes of answers that clients have not taken yet.", g->outbound_bytes);
    one(out, "trine_gateway_tls_reloads_total", METRICS_COUNTER, "How often certificates, authorities or revocations were read again.",
        g->server != NULL ? server_tls_reloads(g->server) : 0);
    one(out, "trine_gateway_tls_handshakes", METRICS_GAUGE, "TLS handshakes under way.", g->server != NULL ? server_handshakes(g->server) : 0);
    per_drop(g, out);
    metrics_help(out, "trine_gateway_link_downs_total", METRICS_COUNTER, "How often the link to a sibling was lost.");
    one_link(out, g->raftd);
    one_link(out, g->stored);
}
