/* in - every frame that stored receives: the only file of this daemon that reads frames. Decoded and sender-checked by link.c;
 * here: may it be said now, and one call. An error closes the pipe: the sender is at fault, and both sides resume
 * from their HELLOs.
 *
 * A message of raftd is one batch of apply: SERVE frames in it wait in read.c until the batch has ended. */
#include "stored/kin.h"
#include "stored/snap.h"
#include "stored/stored.h"

#include <stdlib.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/notify.h"
#include "proto/names.h"

/* --- raftd ------------------------------------------------------------------------------------------------ */

static int raft_up(struct link *link, const struct fr_hello *hello, void *arg)
{
    struct stored *s = arg;
    UNUSED(link);
    if (snap_is_swapping(s)) /* what we are is told when it is decided */
        return E_AGAIN;
    int err = stored_identify(s, hello->cluster_id, hello->member_id);
    if (err)
        return err;
    s->raft_up = true;
    s->gateways[LINK_SLOT_STORED].up = true;
    s->raft_known = true;
    log_info("stored: raftd is here, applied %llu, durable %llu", (unsigned long long)mvcc_applied(s->mvcc),
             (unsigned long long)mvcc_durable(s->mvcc));
    s->points_told = 0;
    out_applied(s);
    notify_ready();
    return 0;
}

/* Reads by QUERY go on. Leases do not expire: another member may lead by now. */
static void raft_down(struct link *link, void *arg)
{
    struct stored *s = arg;

    UNUSED(link);
    apply_end(s);
    snap_raft_down(s);
    s->raft_up = false;
    s->gateways[LINK_SLOT_STORED].up = false;
    s->gateways[LINK_SLOT_STORED].epoch++;
    s->leader = 0;
    leases_lead(s->leases, false, loop_now_ms(s->loop), 0);
    out_hello(s);
    log_info("stored: raftd is gone, applied %llu", (unsigned long long)mvcc_applied(s->mvcc));
}

static int in_apply(struct stored *s, const struct fr_apply *fr)
{
    return apply_entry(s, fr);
}

/* Slot 0 is raftd itself, which asks for a gateway of another member. */
static int in_serve(struct stored *s, const struct fr_serve *fr)
{
    if (fr->slot > GATEWAY_SLOTS)
        return E_MALFORMED;
    if (stored_gateway(s, fr->slot)) /* else its gateway is gone, and asks again when it is back */
        read_gather(s, (unsigned)fr->slot, fr->index, fr->req, fr->command);
    return 0;
}

static void in_members(struct stored *s, uint64_t members)
{
    struct kin kin = {s->cluster_id, s->member_id, members};
    char *dir;

    if (members == s->members || !s->member_id)
        return;
    s->members = members;
    dir = xasprintf("%s/%s", s->conf->data_dir, NAME_STORE_DIR);
    kin_write(dir, &kin);
    free(dir);
}

static int in_lead(struct stored *s, const struct fr_lead *fr)
{
    int err = stored_identify(s, fr->cluster_id, fr->member_id);
    bool led = stored_is_leader(s), leads = fr->leader != 0 && fr->leader == fr->member_id;
    bool new_term = fr->term != s->term;

    if (err)
        return err;
    s->term = fr->term;
    s->leader = fr->leader;
    s->commit = fr->commit;
    s->is_learner = fr->is_learner;
    in_members(s, fr->members);
    mvcc_set_identity(s->mvcc, s->cluster_id, s->member_id, s->term);
    /* Leading again in another term is a new leadership: somebody else may have renewed in between. */
    if (led != leads || (leads && new_term))
        leases_lead(s->leases, leads, loop_now_ms(s->loop), s->conf->election_timeout_ms);
    if (led != leads)
        log_info("lease: %s, term %llu, leases %zu", leads ? "deadlines are ours" : "deadlines are another member's",
                 (unsigned long long)s->term, leases_count(s->leases));
    return 0;
}

static int in_raft_status(struct stored *s, const struct fr_status *fr)
{
    struct gateway *g = stored_gateway(s, fr->slot);

    if (fr->slot > GATEWAY_SLOTS)
        return E_MALFORMED;
    if (g)
        status_answer(g, fr);
    return 0;
}

static int in_differs(struct stored *s, const struct fr_differs *fr)
{
    alarm_differs(s, fr->member, loop_now_ms(s->loop));
    return 0;
}

/* What we propose ourselves is proposed again by its own timer. */
static int in_refused(const struct fr_refused *fr)
{
    log_debug("propose: refused by raftd: %s", err_text(err_from_number(fr->err)));
    return 0;
}

static int raft_frame(struct link *link, const struct frame *frame, void *arg)
{
    struct stored *s = arg;

    UNUSED(link);
    switch (frame->type) {
    case FR_APPLY:
        return in_apply(s, &frame->apply);
    case FR_SERVE:
        return in_serve(s, &frame->serve);
    case FR_LEAD:
        return in_lead(s, &frame->lead);
    case FR_STATUS:
        return in_raft_status(s, &frame->status);
    case FR_DIFFERS:
        return in_differs(s, &frame->differs);
    case FR_REFUSED:
        return in_refused(&frame->refused);
    default:
        return snap_frame(s, frame);
    }
}

static void raft_batch_end(struct link *link, void *arg)
{
    struct stored *s = arg;

    UNUSED(link);
    apply_end(s);
    read_run(s);
}

const struct link_ops in_raft_ops = {
    .up = raft_up, .down = raft_down, .frame = raft_frame, .batch_end = raft_batch_end};

/* --- gateways --------------------------------------------------------------------------------------------- */

static int gateway_up(struct link *link, const struct fr_hello *hello, void *arg)
{
    struct gateway *g = arg;

    UNUSED(link);
    if (snap_is_closed(g->s))
        return E_AGAIN;
    g->up = true;
    g->epoch++;
    g->instance = hello->instance;
    out_auth(g);
    feed_gateway_up(g);
    results_repeat(g);
    log_debug("link: gateway %u is up", g->slot);
    return 0;
}

static void gateway_down(struct link *link, void *arg)
{
    struct gateway *g = arg;

    UNUSED(link);
    g->up = false;
    g->epoch++;
    read_gateway_down(g);
    past_gateway_down(g);
    feed_gateway_down(g);
    log_debug("link: gateway %u is gone", g->slot);
}

static int in_query(struct gateway *g, const struct fr_query *fr)
{
    read_gather(g->s, g->slot, 0, fr->req, fr->command);
    return 0;
}

static int gateway_frame(struct link *link, const struct frame *frame, void *arg)
{
    struct gateway *g = arg;

    UNUSED(link);
    if (g->feed_lost)
        return E_COMPACTED; /* events were lost for it: only a new link can tell it so */
    switch (frame->type) {
    case FR_STATUS:
        status_answer(g, &frame->status);
        return 0;
    case FR_QUERY:
        return in_query(g, &frame->query);
    case FR_MORE:
        read_more(g, frame->more.req);
        return 0;
    case FR_FORGET:
        read_forget(g, frame->forget.req);
        return 0;
    case FR_WATCH:
        return feed_watch(g, &frame->watch);
    case FR_UNWATCH:
        feed_unwatch(g, frame->unwatch.range_id);
        return 0;
    case FR_HISTORY:
        return past_ask(g, &frame->history);
    default:
        return E_MALFORMED;
    }
}

static void gateway_batch_end(struct link *link, void *arg)
{
    struct gateway *g = arg;

    UNUSED(link);
    read_run(g->s);
    past_pump(g->s);
}

static void gateway_drained(struct link *link, void *arg)
{
    struct gateway *g = arg;

    UNUSED(link);
    feed_send(g);
    past_pump(g->s);
    read_drained(g->s);
}

const struct link_ops in_gateway_ops = {.up = gateway_up,
                                        .down = gateway_down,
                                        .frame = gateway_frame,
                                        .batch_end = gateway_batch_end,
                                        .drained = gateway_drained};
