/* httpapi - /health, /version, /metrics over HTTP/1.1 (spec/surface.md §2). From http1.c; what needs the siblings goes round the
 * ring like any request. */
#include <stdlib.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/metrics.h"
#include "gatewayd/http1.h"
#include "proto/pb.h"

#define TEXT "text/plain; charset=utf-8"
#define JSON "application/json"
#define METRICS "text/plain; version=0.0.4; charset=utf-8"
enum { ALARM_NOSPACE = 1, ALARM_CORRUPT = 2 };

/* --- /health --------------------------------------------------------------------------------------------------- */

/* reason NULL: healthy. Texts are ours or an err's: nothing in them needs escaping in JSON but quotes, which none has. */
static void respond_health(struct http1 *h, const char *reason)
{
    struct buf body = BUF_INIT;
    buf_printf(&body, "{\"health\":\"%s\",\"reason\":\"%s\"}", reason == NULL ? "true" : "false", reason == NULL ? "" : reason);
    http1_respond(h, reason == NULL ? 200 : 503, JSON, buf_slice(&body));
    buf_fini(&body);
}

/* The first alarm of an AlarmResponse that was not excluded; NULL if none. */
static const char *alarm_in(struct slice response, const struct http1_answer *a)
{
    struct pb_field f, m;
    const char *found = NULL;
    while (pb_next(&response, &f) == 1) {
        if (f.number != 2 || f.wire != PB_BYTES) {
            continue;
        }
        struct slice member = f.bytes;
        while (pb_next(&member, &m) == 1) {
            if (m.number == 2 && m.varint == ALARM_NOSPACE && !a->no_space_is_fine && found == NULL) {
                found = "ALARM NOSPACE";
            } else if (m.number == 2 && m.varint == ALARM_CORRUPT && !a->corrupt_is_fine && found == NULL) {
                found = "ALARM CORRUPT";
            }
        }
    }
    return found;
}

static void health_answer(void *arg, const struct answer *a)
{
    struct http1 *h = arg;
    struct http1_answer *mine = http1_answer_of(h);
    if (a->err != OK) {
        mine->req = 0;
        if (!mine->serializable && !http1_gateway(h)->has_leader) {
            respond_health(h, "RAFT NO LEADER");
            return;
        }
        char *reason = xasprintf("RANGE ERROR:%s", err_text(a->err));
        respond_health(h, reason);
        free(reason);
        return;
    }
    buf_add_slice(&mine->text, a->body);
    if (a->more) {
        pending_more(http1_gateway(h), a->req);
        return;
    }
    const char *reason = alarm_in(buf_slice(&mine->text), mine);
    if (reason == NULL && !mine->serializable && !http1_gateway(h)->has_leader) {
        reason = "RAFT NO LEADER";
    }
    respond_health(h, reason);
}

/* One read of the alarm list is both: the alarms, and the proof that a linearizable read works. */
static void handle_health(struct gatewayd *g, struct http1 *h, struct slice query)
{
    struct http1_answer *mine = http1_answer_of(h);
    mine->serializable = http1_query_has(query, "serializable", "true");
    mine->no_space_is_fine = http1_query_has(query, "exclude", "NOSPACE");
    mine->corrupt_is_fine = http1_query_has(query, "exclude", "CORRUPT");
    if (!g->has_leader && !g->stored_up && !mine->serializable) {
        respond_health(h, "RAFT NO LEADER");
        return;
    }
    enum pending_via via = mine->serializable || !g->has_leader ? VIA_QUERY : VIA_READ;
    int err = pending_command(g, &IDENTITY_NONE, via, COMMAND_ALARM, SLICE_EMPTY, health_answer, h, &mine->req);
    if (err != OK) {
        health_answer(h, &(struct answer){.err = err});
    }
}

/* --- /version, /metrics ------------------------------------------------------------------------------------------ */

static void handle_version(struct gatewayd *g, struct http1 *h)
{
    struct buf body = BUF_INIT;
    bool is_known = g->cluster_id != 0;
    buf_printf(&body, "{\"etcdserver\":\"%s\",\"etcdcluster\":\"%s\",\"storage\":\"%s\"}", TRINE_API_VERSION,
        is_known ? TRINE_CLUSTER_VERSION : "not_decided", is_known ? TRINE_CLUSTER_VERSION : "unknown");
    http1_respond(h, 200, JSON, buf_slice(&body));
    buf_fini(&body);
}

static void respond_metrics(struct http1 *h)
{
    struct gatewayd *g = http1_gateway(h);
    struct buf body = BUF_INIT;
    buf_add_slice(&body, buf_slice(&http1_answer_of(h)->text));
    stats_text(g, &body);
    watch_metrics(g, &body);
    metrics_process(&body);
    http1_respond(h, 200, METRICS, buf_slice(&body));
    buf_fini(&body);
}

static void metrics_answer(void *arg, const struct answer *a)
{
    struct http1 *h = arg;
    struct http1_answer *mine = http1_answer_of(h);
    if (a->err != OK) {
        buf_reset(&mine->text); /* half a text of the siblings would not parse */
    } else {
        buf_add_slice(&mine->text, a->body);
        if (a->more) {
            pending_more(http1_gateway(h), a->req);
            return;
        }
    }
    respond_metrics(h);
}

/* What raftd and stored count comes round the ring; while stored is away we answer with our own. */
static void handle_metrics(struct gatewayd *g, struct http1 *h)
{
    struct http1_answer *mine = http1_answer_of(h);
    if (!g->stored_up || pending_status(g, STATUS_METRICS, 0, metrics_answer, h, &mine->req) != OK) {
        respond_metrics(h);
    }
}

/* --- paths --------------------------------------------------------------------------------------------------------- */

void httpapi_handle(struct gatewayd *g, struct http1 *h, const struct http1_request *r)
{
    static const char *const paths[] = {"/health", "/version", "/metrics"};
    size_t which = 0;
    while (which < ARRAY_LEN(paths) && !slice_eq(r->path, slice_str(paths[which]))) {
        which++;
    }
    if (which == ARRAY_LEN(paths)) {
        http1_respond(h, 404, TEXT, SLICE_LIT("404 page not found\n"));
    } else if (!slice_eq(r->method, SLICE_LIT("GET")) && !slice_eq(r->method, SLICE_LIT("HEAD"))) {
        http1_respond(h, 405, TEXT, SLICE_LIT("Method Not Allowed\n"));
    } else if (which == 0) {
        handle_health(g, h, r->query);
    } else if (which == 1) {
        handle_version(g, h);
    } else {
        handle_metrics(g, h);
    }
}
