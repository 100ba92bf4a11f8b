/* httpapi - what is served over HTTP beside the JSON gateway: /health, /livez, /readyz, /version, /metrics, /debug/vars
 * (spec/surface.md §2). From web.c; what needs the siblings goes round the ring like any request.
 *
 * A check of health asks at most twice: STATUS of this node (its alarms; and stored answered, which is what a serializable read needs),
 * then a barrier (a linearizable read is one of nothing). Neither looks at users: who asks for health has no name. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/metrics.h"
#include "gatewayd/conn.h"
#include "gatewayd/json.h"
#include "gatewayd/web.h"
#include "proto/pb.h"

#define TEXT "text/plain; charset=utf-8"
#define JSON "application/json"
#define METRICS "text/plain; version=0.0.4; charset=utf-8"
#define STATUS_RESPONSE_ERRORS 8 /* field number; each is "memberID:N alarm:NAME " */

/* In the order in which they are listed. */
enum check { CHECK_CORRUPTION, CHECK_SERIALIZABLE, CHECK_LINEARIZABLE, CHECK_NON_LEARNER, CHECK_COUNT };

_Static_assert(CHECK_COUNT == STATS_CHECKS, "each check is counted");
const char *const stats_check_names[CHECK_COUNT] = {"data_corruption", "serializable_read", "linearizable_read", "non_learner"};
#define BIT(check) (1u << (check))
#define LIVEZ_CHECKS BIT(CHECK_SERIALIZABLE)
#define READYZ_CHECKS (BIT(CHECK_CORRUPTION) | BIT(CHECK_SERIALIZABLE) | BIT(CHECK_LINEARIZABLE) | BIT(CHECK_NON_LEARNER))

bool stats_check_in_livez(unsigned check) { return (LIVEZ_CHECKS & BIT(check)) != 0; }

struct web_checks {
    bool is_readyz;
    bool is_health;    /* /health: one answer of its own shape */
    bool serializable; /* /health?serializable=true */
    bool no_space_is_fine, corrupt_is_fine;
    bool verbose;
    bool no_space, corrupt; /* alarms that are raised */
    unsigned wanted;   /* BIT of each check */
    int local, linear; /* how STATUS and the barrier went */
};

/* --- answers ----------------------------------------------------------------------------------------------------- */

/* reason NULL: healthy. */
static void respond_health(struct web *w, const char *reason)
{
    struct buf body = BUF_INIT;
    stats_health(w->gateway, reason == NULL);
    buf_printf(&body, "{\"health\":\"%s\",\"reason\":", reason == NULL ? "true" : "false");
    json_add_string(&body, slice_str(reason != NULL ? reason : ""));
    buf_add_byte(&body, '}');
    web_respond(w, reason == NULL ? 200 : 503, JSON, buf_slice(&body));
    buf_fini(&body);
}

static void finish_health(struct web *w)
{
    const struct web_checks *k = w->checks;
    int err = k->local != OK ? k->local : k->linear;
    if (k->no_space && !k->no_space_is_fine) {
        respond_health(w, "ALARM NOSPACE");
    } else if (k->corrupt && !k->corrupt_is_fine) {
        respond_health(w, "ALARM CORRUPT");
    } else if (!k->serializable && !w->gateway->has_leader) {
        respond_health(w, "RAFT NO LEADER");
    } else if (err != OK) {
        char *reason = xasprintf("RANGE ERROR:%s", err_text(err));
        respond_health(w, reason);
        free(reason);
    } else {
        respond_health(w, NULL);
    }
}

/* Why a check failed; NULL: it did not. */
static const char *failure_of(const struct web *w, enum check c)
{
    const struct web_checks *k = w->checks;
    switch (c) {
    case CHECK_CORRUPTION: return k->local != OK ? err_text(k->local) : k->corrupt ? "alarm activated: CORRUPT" : NULL;
    case CHECK_SERIALIZABLE: return k->local != OK ? err_text(k->local) : NULL;
    case CHECK_LINEARIZABLE: return k->linear != OK ? err_text(k->linear) : NULL;
    default: return w->gateway->is_learner ? "this member is a learner" : NULL;
    }
}

static void finish_checks(struct web *w)
{
    struct buf list = BUF_INIT;
    bool fine = true;
    for (enum check c = 0; c < CHECK_COUNT; c++) {
        if ((w->checks->wanted & BIT(c)) == 0) {
            continue;
        }
        const char *failure = failure_of(w, c);
        fine = fine && failure == NULL;
        stats_check(w->gateway, w->checks->is_readyz, c, failure == NULL);
        if (failure == NULL) {
            buf_printf(&list, "[+]%s ok\n", stats_check_names[c]);
        } else {
            bool is_read = c == CHECK_SERIALIZABLE || c == CHECK_LINEARIZABLE;
            buf_printf(&list, "[-]%s failed: %s%s\n", stats_check_names[c], is_read ? "range error: " : "", failure);
        }
    }
    if (fine && !w->checks->verbose) {
        buf_reset(&list);
    }
    if (fine) {
        buf_add_str(&list, "ok\n");
    }
    web_header(w, "X-Content-Type-Options", "nosniff");
    web_respond(w, fine ? 200 : 503, TEXT, buf_slice(&list));
    buf_fini(&list);
}

static void finish(struct web *w)
{
    if (w->checks->is_health) {
        finish_health(w);
    } else {
        finish_checks(w);
    }
}

/* --- questions ----------------------------------------------------------------------------------------------------- */

static void linear_answer(void *arg, const struct answer *a)
{
    struct web *w = arg;
    w->req = 0;
    w->checks->linear = a->err;
    finish(w);
}

static void ask_linear(struct web *w)
{
    struct gatewayd *g = w->gateway;
    struct web_checks *k = w->checks;
    k->linear = OK;
    bool decided = k->is_health && (k->serializable || !g->has_leader || k->local != OK || (k->no_space && !k->no_space_is_fine)
        || (k->corrupt && !k->corrupt_is_fine));
    if (decided || (!k->is_health && (k->wanted & BIT(CHECK_LINEARIZABLE)) == 0)) {
        finish(w);
        return;
    }
    if (!g->has_leader) {
        k->linear = E_NO_LEADER; /* no use in waiting until the request times out */
        finish(w);
        return;
    }
    k->linear = pending_command(g, &IDENTITY_NONE, VIA_READ, COMMAND_BARRIER, SLICE_EMPTY, linear_answer, w, &w->req);
    if (k->linear != OK) {
        finish(w);
    }
}

static bool has_text(struct slice s, const char *text) { return memmem(s.data, s.len, text, strlen(text)) != NULL; }

static void note_alarms(struct web_checks *k, struct slice status)
{
    struct pb_field f;
    while (pb_next(&status, &f) == 1) {
        if (f.number == STATUS_RESPONSE_ERRORS && f.wire == PB_BYTES) {
            k->no_space |= has_text(f.bytes, "alarm:NOSPACE");
            k->corrupt |= has_text(f.bytes, "alarm:CORRUPT");
        }
    }
}

static void local_answer(void *arg, const struct answer *a)
{
    struct web *w = arg;
    if (a->err == OK) {
        buf_add_slice(&w->text, a->body);
        if (a->more) {
            pending_more(w->gateway, a->req);
            return;
        }
        note_alarms(w->checks, buf_slice(&w->text));
    }
    w->req = 0;
    w->checks->local = a->err;
    ask_linear(w);
}

static void ask_local(struct web *w)
{
    struct gatewayd *g = w->gateway;
    struct web_checks *k = w->checks;
    if (!g->stored_up && k->is_health && !k->serializable && !g->has_leader) {
        finish(w); /* "no leader", at once */
        return;
    }
    k->local = g->stored_up ? pending_status(g, STATUS_API, 0, local_answer, w, &w->req) : E_UNREACHABLE;
    if (k->local != OK) {
        ask_linear(w);
    }
}

static void handle_health(struct web *w)
{
    struct web_checks *k = w->checks = xcalloc(1, sizeof(*k));
    k->is_health = true;
    k->serializable = web_query_has(w->query, "serializable", "true");
    k->no_space_is_fine = web_query_has(w->query, "exclude", "NOSPACE");
    k->corrupt_is_fine = web_query_has(w->query, "exclude", "CORRUPT");
    ask_local(w);
}

static void handle_checks(struct web *w, unsigned wanted)
{
    struct web_checks *k = w->checks = xcalloc(1, sizeof(*k));
    struct slice query = w->query, name;
    k->wanted = wanted;
    k->is_readyz = slice_eq(slice_of(w->path.data, MIN(w->path.len, 7)), SLICE_LIT("/readyz"));
    k->verbose = web_query_has(w->query, "verbose", NULL);
    while (web_query_next(&query, "exclude", &name)) {
        unsigned known = 0;
        for (enum check c = 0; c < CHECK_COUNT; c++) {
            known |= slice_eq(name, slice_str(stats_check_names[c])) ? BIT(c) : 0;
        }
        k->wanted &= ~known;
        if ((known & wanted) == 0) {
            log_debug("http: exclude=%.*s names no check", (int)MIN(name.len, 64), (const char *)name.data);
        }
    }
    if ((k->wanted & ~BIT(CHECK_NON_LEARNER)) == 0) {
        finish(w);
    } else if ((k->wanted & (BIT(CHECK_CORRUPTION) | BIT(CHECK_SERIALIZABLE))) == 0) {
        ask_linear(w);
    } else {
        ask_local(w);
    }
}

/* --- /version, /metrics, /debug/vars -------------------------------------------------------------------------------- */

static void handle_version(struct web *w)
{
    struct buf body = BUF_INIT;
    bool is_known = w->gateway->cluster_id != 0;
    buf_printf(&body, "{\"etcdserver\":\"%s\",\"etcdcluster\":\"%s\",\"storage\":\"%s\"}", TRINE_API_VERSION,
        is_known ? TRINE_CLUSTER_VERSION : "not_decided", is_known ? TRINE_CLUSTER_VERSION : "unknown");
    web_respond(w, 200, JSON, buf_slice(&body));
    buf_fini(&body);
}

static void respond_metrics(struct web *w)
{
    struct buf body = BUF_INIT;
    buf_add_slice(&body, buf_slice(&w->text));
    stats_text(w->gateway, &body);
    watch_metrics(w->gateway, &body);
    metrics_process(&body);
    web_respond(w, 200, METRICS, buf_slice(&body));
    buf_fini(&body);
}

static void metrics_answer(void *arg, const struct answer *a)
{
    struct web *w = arg;
    if (a->err != OK) {
        buf_reset(&w->text); /* half a text of the siblings would not parse */
    } else {
        buf_add_slice(&w->text, a->body);
        if (a->more) {
            pending_more(w->gateway, a->req);
            return;
        }
    }
    w->req = 0;
    respond_metrics(w);
}

/* What raftd and stored count comes round the ring; while stored is away we answer with our own. */
static void handle_metrics(struct web *w)
{
    struct gatewayd *g = w->gateway;
    if (!g->stored_up || pending_status(g, STATUS_METRICS, 0, metrics_answer, w, &w->req) != OK) {
        respond_metrics(w);
    }
}

/* What etcd's page of variables has that means something here. */
static void handle_vars(struct web *w)
{
    const struct gatewayd *g = w->gateway;
    struct buf body = BUF_INIT;
    long pages[2] = {0, 0};
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm != NULL) {
        if (fscanf(statm, "%ld %ld", &pages[0], &pages[1]) != 2) {
            pages[1] = 0;
        }
        fclose(statm);
    }
    buf_add_str(&body, "{\n\"cmdline\": [\"gatewayd\"],\n");
    buf_printf(&body, "\"file_descriptor_limit\": %ld,\n", sysconf(_SC_OPEN_MAX));
    buf_printf(&body, "\"memstats\": {\"Sys\": %ld},\n", pages[1] * sysconf(_SC_PAGESIZE));
    buf_printf(&body, "\"raft.status\": {\"id\":\"%" PRIx64 "\",\"term\":%" PRIu64 ",\"lead\":\"%" PRIx64 "\",\"raftState\":\"%s\"},\n",
        g->member_id, g->term, g->leader,
        g->is_learner ? "StateLearner" : g->leader == 0 ? "StateNoLeader" : g->leader == g->member_id ? "StateLeader" : "StateFollower");
    buf_printf(&body, "\"gateway\": {\"connections\":%zu,\"calls\":%zu,\"pending\":%zu,\"inbound_bytes\":%zu,\"outbound_bytes\":%zu}\n}\n",
        g->server != NULL ? server_conn_count(g->server) : 0, g->call_count, (size_t)g->pending.count, g->inbound_bytes, g->outbound_bytes);
    web_respond(w, 200, "application/json; charset=utf-8", buf_slice(&body));
    buf_fini(&body);
}

/* --- paths --------------------------------------------------------------------------------------------------------- */

static void handle_livez(struct web *w) { handle_checks(w, LIVEZ_CHECKS); }
static void handle_readyz(struct web *w) { handle_checks(w, READYZ_CHECKS); }

static const struct {
    const char *path;
    void (*handle)(struct web *w);
    bool head_too;       /* HEAD as well as GET */
    bool among_metrics;  /* also where only metrics are served */
    unsigned checks;     /* each has a path below this one */
} paths[] = {
    {"/health", handle_health, false, true, 0},
    {"/livez", handle_livez, false, true, LIVEZ_CHECKS},
    {"/readyz", handle_readyz, false, true, READYZ_CHECKS},
    {"/metrics", handle_metrics, true, true, 0},
    {"/version", handle_version, true, false, 0},
    {"/debug/vars", handle_vars, true, false, 0},
};

/* "/readyz/linearizable_read" -> its bit; 0: no such path. */
static unsigned check_of_path(struct slice path, const char *above, unsigned checks)
{
    size_t len = strlen(above);
    if (checks == 0 || path.len <= len + 1 || memcmp(path.data, above, len) != 0 || path.data[len] != '/') {
        return 0;
    }
    for (enum check c = 0; c < CHECK_COUNT; c++) {
        if (slice_eq(slice_of(path.data + len + 1, path.len - len - 1), slice_str(stats_check_names[c]))) {
            return checks & BIT(c);
        }
    }
    return 0;
}

void httpapi_handle(struct web *w)
{
    bool is_get = slice_eq(w->method, SLICE_LIT("GET")), is_head = slice_eq(w->method, SLICE_LIT("HEAD"));
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        unsigned check = check_of_path(w->path, paths[i].path, paths[i].checks);
        if ((check == 0 && !slice_eq(w->path, slice_str(paths[i].path)))
            || (!paths[i].among_metrics && (w->client->serves & SERVES_HTTP) == 0)) {
            continue;
        }
        if (!is_get && !(is_head && paths[i].head_too)) {
            web_header(w, "Allow", paths[i].head_too ? "GET, HEAD" : "GET");
            web_respond(w, 405, TEXT, SLICE_LIT("Method Not Allowed\n"));
        } else if (check != 0) {
            handle_checks(w, check);
        } else {
            paths[i].handle(w);
        }
        return;
    }
    web_respond(w, 404, TEXT, SLICE_LIT("404 page not found\n"));
}

void httpapi_close(struct web *w)
{
    if (w->req != 0) {
        pending_cancel(w->gateway, w->req);
    }
    free(w->checks);
}
