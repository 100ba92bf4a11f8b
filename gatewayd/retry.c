/* retry - a request's way through the ring when siblings come and go. Input: kv.c and friends (pending_command), in.c (answers,
 * refusals, links up). Output: out.c, and the owner's callback, exactly once per request or part.
 *
 * What may be sent twice? A read, always, as long as no part of its answer came: it gets another wire name, and an answer to the old
 * name finds nobody. A proposal, only when it provably was not applied:
 *   - it was never sent, or raftd itself refused it; or
 *   - raftd says that the leader it was for leads no more (REFUSED with E_AMBIGUOUS), and a barrier read that was sent after that was
 *     answered, on the same connection again: raftd's forward.h says why nothing of an old leader comes behind it; or
 *   - it was sent to a raftd that has since restarted, the cluster has one member, and a barrier read that the new raftd
 *     served was answered by stored *on the same connection of our link to stored* on which the proposal's own result would
 *     have come. The new raftd serves reads only after everything in its recovered log is committed, stored answers only after
 *     it has applied that, and frames on a link stay in order: so a result that is not there then will never come.
 * In every other case (stored restarted too, more members) the outcome is unknown and the client hears E_AMBIGUOUS at once.
 * A restart of stored alone needs nothing for proposals: it tells its last results again when the link is up. What goes to it by
 * way of raftd may be there before our HELLO is, and then its answer knows no way to us: such reads are sent again as soon as stored
 * has said something, since that comes after our HELLO. */
#include "common/err.h"
#include "common/log.h"
#include "gatewayd/gatewayd.h"
#include "proto/pb.h"

/* What may take long by its nature; a call's own deadline ends it earlier. */
#define LONG_TIMEOUT_MS ((uint64_t)10 * 60 * 1000)
/* How soon to try again what was refused because there is no leader right now. */
#define RETRY_MS 20

/* --- sending --------------------------------------------------------------------------------------- */

/* The name and the origin are inside the command too. */
static void refresh_command(struct gatewayd *g, struct pending *p)
{
    if (p->via == VIA_STATUS || p->via == VIA_CHANGE) {
        return; /* raftd sees whom they come from */
    }
    struct buf old = p->command;
    p->command = BUF_INIT;
    g->pending.bytes -= old.len;
    struct command c;
    must(command_decode(buf_slice(&old), &c) == OK);
    c.req = p->wire;
    c.origin = g->member_id;
    pending_keep(&g->pending, p, &c);
    if (p->is_secret) {
        secret_wipe(old.data, old.len);
    }
    buf_fini(&old);
}

static bool has_way(const struct gatewayd *g, const struct pending *p)
{
    switch (p->via) {
    case VIA_PROPOSE: return g->raftd_up && g->member_id != 0;
    case VIA_READ:
    case VIA_CHANGE: return g->raftd_up;
    case VIA_QUERY: return g->stored_up;
    case VIA_STATUS: return g->raftd_up || (g->stored_up && p->member == 0);
    }
    return false;
}

/* A question that stored gets from raftd. */
static bool goes_by_raftd(const struct gatewayd *g, const struct pending *p)
{
    return p->via == VIA_READ || (p->via == VIA_STATUS && g->raftd_up);
}

static void send_now(struct gatewayd *g, struct pending *p)
{
    p->sent = false;
    if (!has_way(g, p)) {
        return; /* the link's `up` sends it */
    }
    if (p->origin != g->member_id) {
        refresh_command(g, p);
    }
    switch (p->via) {
    case VIA_PROPOSE: out_propose(g, p->wire, buf_slice(&p->command)); break;
    case VIA_READ: out_read(g, p->wire, p->of_leader, buf_slice(&p->command)); break;
    case VIA_QUERY: out_query(g, p->wire, buf_slice(&p->command)); break;
    case VIA_STATUS:
        if (p->member == 0) {
            out_status(g, p->wire, p->what);
        } else {
            out_member_status(g, p->wire, p->member);
        }
        break;
    case VIA_CHANGE:
        if (p->what == 0) {
            out_move_leader(g, p->wire, p->member);
        } else {
            out_member_change(g, p->wire, p->what, p->member, buf_slice(&p->command));
        }
        break;
    }
    p->sent = true;
    p->sent_term = g->has_leader ? g->term : 0;
    p->raftd_instance = g->raftd_instance;
    p->stored_session = g->stored_up ? g->stored_session : 0; /* 0 proves nothing, see barrier_done */
}

static void send_again(struct gatewayd *g, struct pending *p)
{
    pending_rename(&g->pending, p);
    refresh_command(g, p);
    send_now(g, p);
}

static uint64_t timeout_of(const struct gatewayd *g, enum command_kind kind, struct slice body)
{
    if (kind == COMMAND_DEFRAGMENT || kind == COMMAND_HASH_KV || kind == COMMAND_HASH) {
        return LONG_TIMEOUT_MS;
    }
    if (kind == COMMAND_COMPACT) {
        struct pb_field f;
        while (pb_next(&body, &f) == 1) {
            if (f.number == 2 && f.varint != 0) {
                return LONG_TIMEOUT_MS; /* physical: answered when the data is gone */
            }
        }
    }
    return g->request_timeout_ms;
}

static bool is_crowded(const struct gatewayd *g, enum pending_via via)
{
    if (via == VIA_PROPOSE || via == VIA_READ || via == VIA_CHANGE) {
        return g->raftd_up && link_is_full(g->raftd);
    }
    return g->stored_up && link_is_full(g->stored);
}

int pending_command(struct gatewayd *g, const struct identity *who, enum pending_via via, enum command_kind kind, struct slice body,
    answer_cb *cb, void *arg, uint64_t *req)
{
    if (is_crowded(g, via)) {
        return E_REQUEST_TOO_MANY_REQUESTS;
    }
    uint64_t deadline = gatewayd_now_ms(g) + timeout_of(g, kind, body);
    struct pending *p = pending_new(&g->pending, via, cb, arg, deadline);
    if (p == NULL) {
        return E_REQUEST_TOO_MANY_REQUESTS;
    }
    struct command c = {
        .kind = kind,
        .origin = g->member_id,
        .slot = g->conf->gateway_id,
        .instance = g->instance,
        .req = p->wire,
        .user = who->user,
        .auth_rev = who->auth_rev,
        .body = body,
    };
    /* Deadlines of leases live in the leader's stored alone. */
    p->of_leader = kind == COMMAND_LEASE_KEEP_ALIVE || kind == COMMAND_LEASE_TIME_TO_LIVE;
    pending_keep(&g->pending, p, &c);
    if (via == VIA_PROPOSE && p->command.len > g->conf->max_request_bytes) {
        pending_free(&g->pending, p);
        return E_REQUEST_TOO_LARGE;
    }
    send_now(g, p);
    if (req != NULL) {
        *req = p->req;
    }
    return OK;
}

/* A change of membership begins its life as the question whether its user may: all rules for a READ hold for it until then. Not for a
 * QUERY: our store may be far behind, and the change is of all members. */
static void check_first(struct gatewayd *g, const struct identity *who, struct pending *p, struct slice peer_urls)
{
    struct command c = {
        .kind = COMMAND_AUTHORIZE,
        .origin = g->member_id,
        .slot = g->conf->gateway_id,
        .instance = g->instance,
        .req = p->wire,
        .user = who->user,
        .auth_rev = who->auth_rev,
    };
    p->via = VIA_READ;
    p->checking = true;
    buf_add_slice(&p->change, peer_urls);
    g->pending.bytes += p->change.len;
    pending_keep(&g->pending, p, &c);
}

/* He may. */
static void change_checked(struct gatewayd *g, struct pending *p)
{
    g->pending.bytes -= p->command.len;
    buf_fini(&p->command);
    p->command = p->change;
    p->change = BUF_INIT;
    p->checking = false;
    p->via = VIA_CHANGE;
    pending_rename(&g->pending, p);
    send_now(g, p);
}

int pending_status(struct gatewayd *g, uint64_t what, uint64_t member, answer_cb *cb, void *arg, uint64_t *req)
{
    struct pending *p = pending_new(&g->pending, VIA_STATUS, cb, arg, gatewayd_now_ms(g) + g->request_timeout_ms);
    if (p == NULL) {
        return E_REQUEST_TOO_MANY_REQUESTS;
    }
    p->what = what;
    p->member = member;
    p->origin = g->member_id;
    send_now(g, p);
    if (req != NULL) {
        *req = p->req;
    }
    return OK;
}

/* raftd gives up a little earlier, and knows better why. */
#define CHANGE_GRACE_MS 500

int pending_change(struct gatewayd *g, const struct identity *who, uint64_t op, uint64_t member, struct slice peer_urls, answer_cb *cb,
    void *arg, uint64_t *req)
{
    if (is_crowded(g, VIA_CHANGE)) {
        return E_REQUEST_TOO_MANY_REQUESTS;
    }
    uint64_t deadline = gatewayd_now_ms(g) + g->request_timeout_ms + CHANGE_GRACE_MS;
    struct pending *p = pending_new(&g->pending, VIA_CHANGE, cb, arg, deadline);
    if (p == NULL) {
        return E_REQUEST_TOO_MANY_REQUESTS;
    }
    p->what = op;
    p->member = member;
    p->origin = g->member_id;
    if (identity_auth_may_be_on(g)) {
        check_first(g, who, p, peer_urls);
    } else {
        buf_add_slice(&p->command, peer_urls);
        g->pending.bytes += p->command.len;
    }
    send_now(g, p);
    if (req != NULL) {
        *req = p->req;
    }
    return OK;
}

/* --- ends ------------------------------------------------------------------------------------------ */

/* The entry is gone before its owner hears of it: the owner may ask for something new at once. */
static void end_with(struct gatewayd *g, struct pending *p, int err)
{
    struct answer a = {.req = p->req, .err = err};
    answer_cb *cb = p->cb;
    void *arg = p->arg;
    if (p->sent && p->started) {
        out_forget(g, p->wire);
    }
    pending_free(&g->pending, p);
    cb(arg, &a);
}

/* Ends what was marked. By position, since callbacks may add and remove entries anywhere. */
static void end_doomed(struct gatewayd *g)
{
    for (uint32_t i = 0; i < g->pending.slot_count; i++) {
        struct pending *p = g->pending.slots[i];
        if (p->req != 0 && p->doomed != OK) {
            end_with(g, p, p->doomed);
        }
    }
}

void retry_answer(struct gatewayd *g, const struct fr_result *r)
{
    struct pending *p = pending_find_wire(&g->pending, r->req);
    if (p == NULL) {
        if (r->more) {
            out_forget(g, r->req); /* its owner is gone, or it was asked again under another name */
        }
        return;
    }
    if (p->checking && r->err == 0) {
        change_checked(g, p);
        return;
    }
    struct answer a = {
        .req = p->req,
        .err = r->err != 0 ? err_from_number(r->err) : OK,
        .text = r->text,
        .body = r->body,
        .total = r->total,
        .is_read = p->via != VIA_PROPOSE,
        .first = !p->started,
        .more = r->err == 0 && r->more != 0,
    };
    answer_cb *cb = p->cb;
    void *arg = p->arg;
    if (a.more) {
        p->started = true;
        pending_unlist(&g->pending, p); /* from now on the client sets the pace */
    } else {
        pending_free(&g->pending, p);
    }
    cb(arg, &a);
}

void retry_member_said(struct gatewayd *g, const struct fr_member_said *m)
{
    struct pending *p = pending_find_wire(&g->pending, m->req);
    if (p == NULL || p->via != VIA_CHANGE) {
        return;
    }
    struct answer a = {.req = p->req, .err = m->err != 0 ? err_from_number(m->err) : OK, .first = true, .member = m->id};
    answer_cb *cb = p->cb;
    void *arg = p->arg;
    pending_free(&g->pending, p);
    cb(arg, &a);
}

void pending_more(struct gatewayd *g, uint64_t req)
{
    struct pending *p = pending_find(&g->pending, req);
    if (p == NULL || p->listed) {
        return; /* gone, or asked already */
    }
    pending_list(&g->pending, p, gatewayd_now_ms(g) + g->request_timeout_ms);
    out_more(g, p->wire);
}

void pending_cancel(struct gatewayd *g, uint64_t req)
{
    struct pending *p = pending_find(&g->pending, req);
    if (p != NULL) {
        if (p->started) {
            out_forget(g, p->wire);
        }
        pending_free(&g->pending, p);
    }
}

void pending_expire(struct gatewayd *g, uint64_t now_ms)
{
    while (g->pending.first != NULL && g->pending.first->deadline_ms <= now_ms) {
        end_with(g, g->pending.first, E_TIMEOUT);
    }
}

/* --- barriers --------------------------------------------------------------------------------------- */

static void barrier_start(struct gatewayd *g);

static bool has_proof(const struct gatewayd *g, const struct pending *p)
{
    return g->stored_up && p->stored_session != 0 && p->stored_session == g->stored_session;
}

static void barrier_done(void *arg, const struct answer *a)
{
    struct gatewayd *g = arg;
    g->barrier_req = 0;
    size_t again = 0;
    bool wants_another = false;
    for (struct pending *p = g->pending.first; p != NULL; p = p->next) {
        if (!p->ambiguous) {
            continue;
        }
        if (p->round > g->barrier_covers) {
            wants_another = true; /* in doubt only since this one is under way */
            continue;
        }
        p->ambiguous = p->of_old_leader = false;
        if (a->err == OK && has_proof(g, p)) {
            send_again(g, p);
            again++;
        } else {
            p->doomed = E_AMBIGUOUS;
        }
    }
    if (again > 0) {
        log_info("retry: %zu proposals were lost with an old raftd or leader and are proposed again", again);
    }
    if (wants_another) {
        barrier_start(g);
    }
    end_doomed(g);
}

static void barrier_start(struct gatewayd *g)
{
    g->barrier_covers = g->barrier_round++;
    if (pending_command(g, &IDENTITY_NONE, VIA_READ, COMMAND_BARRIER, SLICE_EMPTY, barrier_done, g, &g->barrier_req) != OK) {
        barrier_done(g, &(struct answer){.err = E_REQUEST_TOO_MANY_REQUESTS});
    }
}

static void barrier_want(struct gatewayd *g)
{
    if (pending_find(&g->pending, g->barrier_req) == NULL) {
        barrier_start(g);
    }
}

static void put_in_doubt(struct gatewayd *g, struct pending *p)
{
    p->ambiguous = true;
    p->round = g->barrier_round;
}

/* --- refusals -------------------------------------------------------------------------------------- */

void retry_unsent(struct gatewayd *g)
{
    for (struct pending *p = g->pending.first; p != NULL; p = p->next) {
        if (!p->sent) {
            send_now(g, p);
        }
    }
}

void retry_refused(struct gatewayd *g, const struct fr_refused *r)
{
    struct pending *p = pending_find_wire(&g->pending, r->req);
    if (p == NULL) {
        return;
    }
    int err = err_from_number(r->err);
    if (err == E_AMBIGUOUS && p->via == VIA_PROPOSE) {
        put_in_doubt(g, p);
        p->of_old_leader = true;
        barrier_want(g);
        return;
    }
    if (err == E_NO_LEADER || err == E_AGAIN || err == E_UNREACHABLE) {
        /* It did not and will not happen under this name: wait for a leader, up to the deadline. */
        pending_rename(&g->pending, p);
        refresh_command(g, p);
        p->sent = false;
        if (g->has_leader && g->term > p->sent_term) {
            send_now(g, p); /* the one it was refused by is not the one we know of now */
            return;
        }
        if (!timer_armed(&g->retry.timer)) {
            deadline_set(g, &g->retry, gatewayd_now_ms(g) + RETRY_MS);
        }
        return;
    }
    end_with(g, p, err);
}

/* --- raftd is back ---------------------------------------------------------------------------------- */

/* Proposals that an older raftd got. True: at least one can be cleared up by a barrier. */
static bool sort_out_proposals(struct gatewayd *g)
{
    bool wants_barrier = false;
    size_t lost = 0;
    for (struct pending *p = g->pending.first; p != NULL; p = p->next) {
        bool is_change = p->via == VIA_PROPOSE || p->via == VIA_CHANGE;
        if (!is_change || !p->sent || p->of_old_leader || p->raftd_instance == g->raftd_instance) {
            continue; /* of_old_leader: the barrier for it is asked again, and proves as much */
        }
        if (g->member_count == 1 && p->via == VIA_PROPOSE && has_proof(g, p)) {
            put_in_doubt(g, p);
            wants_barrier = true;
        } else {
            p->doomed = E_AMBIGUOUS;
            lost++;
        }
    }
    if (lost > 0) {
        log_info("retry: outcome of %zu proposals unknown, raftd restarted", lost);
    }
    return wants_barrier;
}

void retry_on_raftd_up(struct gatewayd *g, uint64_t instance)
{
    g->raftd_instance = instance;
    bool wants_barrier = sort_out_proposals(g);
    for (struct pending *p = g->pending.first; p != NULL; p = p->next) {
        bool is_read = p->via == VIA_READ || p->via == VIA_STATUS;
        if (!p->sent) {
            send_now(g, p);
        } else if (is_read && !p->started) {
            send_again(g, p); /* also a barrier that is under way */
        }
    }
    if (wants_barrier) {
        barrier_want(g);
    }
    end_doomed(g);
}

/* --- stored is back --------------------------------------------------------------------------------- */

void retry_on_stored_up(struct gatewayd *g)
{
    for (uint32_t i = 0; i < g->pending.slot_count; i++) {
        struct pending *p = g->pending.slots[i];
        if (p->req != 0 && p->started) {
            p->doomed = E_TIMEOUT_DUE_TO_CONNECTION_LOST; /* half an answer cannot be continued by another stored */
        }
    }
    for (struct pending *p = g->pending.first; p != NULL; p = p->next) {
        if (p->via == VIA_PROPOSE || p->via == VIA_CHANGE || p->doomed != OK) {
            continue;
        }
        if (!p->sent) {
            send_now(g, p);
        } else if (!goes_by_raftd(g, p)) {
            send_again(g, p);
        }
    }
    end_doomed(g);
}

void retry_on_stored_heard(struct gatewayd *g)
{
    for (struct pending *p = g->pending.first; p != NULL; p = p->next) {
        if (p->sent && !p->started && goes_by_raftd(g, p)) {
            send_again(g, p); /* also one that was sent since the link is up */
        }
    }
}
