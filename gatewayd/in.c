/* in - every frame gatewayd receives, and its two links. A frame that this gateway cannot take ends the link (link.c counts
 * and logs it); the link heals, and retry.c and watch.c go on from what the next HELLO says. */
#include <stdlib.h>

#include "common/err.h"
#include "common/log.h"
#include "gatewayd/gatewayd.h"

/* --- hello ------------------------------------------------------------------------------------------------ */

void in_set_hello(struct gatewayd *g)
{
    struct fr_hello hello = {
        .version = FRAMES_VERSION,
        .role = ROLE_GATEWAYD,
        .cluster_id = g->cluster_id,
        .member_id = g->member_id,
        .instance = g->instance,
        .slot = g->conf->gateway_id,
    };
    link_set_hello(g->raftd, &hello);
    link_set_hello(g->stored, &hello);
}

/* Ids are learned once; another cluster or member behind the same socket is refused. */
static int learn_ids(struct gatewayd *g, const struct fr_hello *hello)
{
    if (hello->cluster_id == 0 || hello->member_id == 0) {
        return OK;
    }
    if (g->member_id != 0 && (hello->member_id != g->member_id || hello->cluster_id != g->cluster_id)) {
        log_warnx("in: a sibling of member %llx of cluster %llx, but we belong to %llx of %llx",
            (unsigned long long)hello->member_id, (unsigned long long)hello->cluster_id, (unsigned long long)g->member_id,
            (unsigned long long)g->cluster_id);
        return E_CLUSTER_ID_MISMATCH;
    }
    g->cluster_id = hello->cluster_id;
    g->member_id = hello->member_id;
    in_set_hello(g);
    return OK;
}

/* --- raftd ------------------------------------------------------------------------------------------------- */

static int raftd_up(struct link *link, const struct fr_hello *hello, void *arg)
{
    UNUSED(link);
    struct gatewayd *g = arg;
    int err = learn_ids(g, hello);
    if (err != OK) {
        return err;
    }
    g->raftd_up = true;
    retry_on_raftd_up(g, hello->instance);
    gatewayd_check_ready(g);
    return OK;
}

static void raftd_down(struct link *link, void *arg)
{
    UNUSED(link);
    struct gatewayd *g = arg;
    g->raftd_up = false;
    gatewayd_set_leader(g, g->term, 0, g->is_learner); /* nobody tells us any more */
}

static void in_leader(struct gatewayd *g, const struct fr_leader *m)
{
    if (m->member_id != 0) {
        g->member_id = m->member_id;
        g->cluster_id = m->cluster_id;
        in_set_hello(g);
    }
    gatewayd_set_leader(g, m->term, m->leader, m->is_learner != 0);
}

static int raftd_frame(struct link *link, const struct frame *f, void *arg)
{
    UNUSED(link);
    struct gatewayd *g = arg;
    switch (f->type) {
    case FR_RESULT: retry_answer(g, &f->result); return OK; /* of the leader's stored */
    case FR_REFUSED: retry_refused(g, &f->refused); return OK;
    case FR_LEADER: in_leader(g, &f->leader); return OK;
    case FR_MEMBER: cluster_receive(g, &f->member); return OK;
    case FR_MEMBER_SAID: retry_member_said(g, &f->member_said); return OK;
    default: return E_MALFORMED;
    }
}

/* --- stored ------------------------------------------------------------------------------------------------- */

static int stored_up(struct link *link, const struct fr_hello *hello, void *arg)
{
    UNUSED(link);
    struct gatewayd *g = arg;
    int err = learn_ids(g, hello);
    if (err != OK) {
        return err;
    }
    g->stored_up = true;
    g->stored_heard = false;
    g->stored_session++;
    g->stored_instance = hello->instance;
    retry_on_stored_up(g);
    watch_on_stored_up(g);
    gatewayd_check_ready(g);
    return OK;
}

static void stored_down(struct link *link, void *arg)
{
    UNUSED(link);
    struct gatewayd *g = arg;
    g->stored_up = false;
    watch_on_stored_down(g);
}

static int stored_frame(struct link *link, const struct frame *f, void *arg)
{
    UNUSED(link);
    struct gatewayd *g = arg;
    if (!g->stored_heard) { /* AUTH: it says that first */
        g->stored_heard = true;
        retry_on_stored_heard(g);
    }
    switch (f->type) {
    case FR_RESULT: retry_answer(g, &f->result); return OK;
    case FR_WATCHING: watch_on_watching(g, &f->watching); return OK;
    case FR_EVENT: watch_on_event(g, &f->event); return OK;
    case FR_PAST: watch_on_past(g, &f->past); return OK;
    case FR_PAST_END: watch_on_past_end(g, &f->past_end); return OK;
    case FR_AUTH: identity_on_auth(g, &f->auth); return OK;
    default: return E_MALFORMED;
    }
}

static void stored_batch_end(struct link *link, void *arg)
{
    UNUSED(link);
    watch_on_batch_end(arg);
}

/* --- both ----------------------------------------------------------------------------------------------------- */

static struct link *start_link(struct gatewayd *g, const char *name, const char *base, enum role peer, const struct link_ops *ops)
{
    char *url = link_url(base, (unsigned)g->conf->gateway_id);
    if (url == NULL) {
        fatalx("in: %s-url %s cannot be understood", name, base);
    }
    struct link_conf conf = {
        .name = name,
        .url = url,
        .listen = false,
        .self = ROLE_GATEWAYD,
        .peer = peer,
        .slot = (unsigned)g->conf->gateway_id,
    };
    struct link *l = link_new(g->loop, &conf, ops, g);
    free(url);
    return l;
}

void in_start_links(struct gatewayd *g)
{
    static const struct link_ops raftd_ops = {.up = raftd_up, .down = raftd_down, .frame = raftd_frame};
    static const struct link_ops stored_ops = {
        .up = stored_up, .down = stored_down, .frame = stored_frame, .batch_end = stored_batch_end};
    g->raftd = start_link(g, "raftd", g->conf->raftd_url, ROLE_RAFTD, &raftd_ops);
    g->stored = start_link(g, "stored", g->conf->stored_url, ROLE_STORED, &stored_ops);
    in_set_hello(g);
    link_start(g->raftd);
    link_start(g->stored);
}
