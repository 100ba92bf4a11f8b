/* out - every frame that raftd sends, and the other effects of a turn: what turn.c wants done is done here. Frames are
 * encoded into the link at once; the link sends them as one message at the end of the loop's turn. The next files
 * of the ring: stored/in.c for APPLY, SERVE, LEAD and STATUS; gatewayd/in.c for REFUSED, LEADER and MEMBER. */
#include "raftd/raftd.h"

#include <inttypes.h>

#include "common/err.h"
#include "common/mem.h"
#include "raftd/snap.h"

bool out_stored_is_up(const struct raftd *d)
{
    return link_state(d->links[LINK_SLOT_STORED]) == LINK_UP;
}

/* --- effects of a turn -------------------------------------------------------------------------- */

/* To another member, in the same message as what else goes there. What cannot be queued is dropped: the core copes, and is
 * told (peers_report). Answers and heartbeats never stand behind an append. */
static void out_send(void *arg, const struct raft_msg *m)
{
    struct raftd *d = arg;

    if (m->type == RAFT_MSG_SNAP) { /* the core only says that one is needed */
        snap_need(d, m->to);
        return;
    }
    struct buf *out = peers_begin(d->peers, m->to, m->type == RAFT_MSG_APPEND ? PEER_STREAM_APPENDS : PEER_STREAM_BEATS);

    if (!out)
        return;
    peer_msg_encode(out, m);
    if (m->type == RAFT_MSG_BEAT_SAID)
        compared_say(d, out);
    peers_end(d->peers);
}

static uint64_t out_persist(void *arg, const struct raft_ready *ready)
{
    struct raftd *d = arg;

    /* Term and vote first: entries of a term are never on disk without it (wal_recover.c checks). */
    if (ready->hard_changed)
        self_hard(d, ready->term, ready->vote, ready->hard_seq);
    if (ready->hard_changed)
        wal_hard(d->wal, ready->term, ready->vote, ready->hard_seq);
    if (ready->truncate_from > 0)
        wal_truncate(d->wal, ready->truncate_from);
    wal_append(d->wal, ready->entries, ready->entry_count);
    return wal_submit(d->wal, raft_commit(d->raft));
}

static bool out_apply_room(void *arg)
{
    const struct raftd *d = arg;

    return out_stored_is_up(d) && !link_is_full(d->links[LINK_SLOT_STORED]);
}

static void out_apply(void *arg, const struct entry *e)
{
    struct raftd *d = arg;

    link_send(d->links[LINK_SLOT_STORED],
              FRAME(apply, APPLY, .index = e->index, .term = e->term, .kind = e->kind, .command = entry_data(e)));
}

static void out_serve(void *arg, unsigned slot, uint64_t index, uint64_t req, struct slice command)
{
    struct raftd *d = arg;

    if (slot >= TURN_PEER_SLOT) {
        forward_serve(d, slot, index, req, command);
        return;
    }
    link_send(d->links[LINK_SLOT_STORED],
              FRAME(serve, SERVE, .slot = slot, .index = index, .req = req, .command = command));
}

static void out_refused(void *arg, unsigned slot, uint64_t req, int err)
{
    struct raftd *d = arg;

    if (slot == TURN_CHANGE) {
        membership_refused(d, req, err);
        return;
    }
    if (slot >= TURN_PEER_SLOT) {
        forward_refuse(d, slot, req, err);
        return;
    }
    must(slot < RAFTD_SLOTS);
    /* Nothing that a client must hear of: another member leads, or will in a moment, and the gateway asks again. */
    if (d->members.count > 1 && (err == E_LEADER_CHANGED || err == E_NOT_LEADER || err == E_STOPPED))
        err = E_AGAIN;
    log_debug("raftd: refused request %" PRIu64 " of %s: %s", req, link_name(d->links[slot]), err_text(err));
    link_send(d->links[slot], FRAME(refused, REFUSED, .req = req, .err = (uint64_t)-err));
}

static void out_changed(void *arg)
{
    struct raftd *d = arg;
    struct raftd_said now = {raft_role(d->raft), raft_term(d->raft), raft_leader(d->raft)};

    /* Settledness and membership change too; what an operator wants to read is who leads. */
    if (now.role != d->said.role || now.term != d->said.term || now.leader != d->said.leader)
        log_info("raft: %s, term %" PRIu64 ", leader %" PRIx64 ", last %" PRIu64, raft_role_name(now.role), now.term,
                 now.leader, raft_last_index(d->raft));
    d->said = now;
    d->publish_due = true;
    peering_members(d);
    out_tell_all(d);
}

static const char *conf_op_name(uint64_t op)
{
    static const char *const names[] = {[RAFT_CONF_ADD] = "add",
                                        [RAFT_CONF_ADD_LEARNER] = "add as learner",
                                        [RAFT_CONF_PROMOTE] = "promote",
                                        [RAFT_CONF_REMOVE] = "remove",
                                        [RAFT_CONF_UPDATE] = "update"};
    return op < ARRAY_LEN(names) && names[op] != NULL ? names[op] : "unknown";
}

static void out_conf(void *arg, const struct entry *e)
{
    struct raftd *d = arg;
    struct raft_conf_change change;
    int err = raft_conf_decode(entry_data(e), &change);

    if (!err)
        err = members_apply(&d->members, &change);
    membership_committed(d, e, err);
    if (err) {
        d->conf_rejected++;
        log_warnx("members: entry %" PRIu64 " changes nothing: %s", e->index, err_name(err));
        return;
    }
    log_info("members: entry %" PRIu64 ", %s member %" PRIx64 ", now %zu members", e->index, conf_op_name(change.op), change.id,
             d->members.count);
    membership_changed(d);
}

static void out_drop(void *arg, uint64_t below)
{
    struct raftd *d = arg;
    struct buf table = BUF_INIT;

    /* All changes up to the commit index are in the table (turn.c did them before); later ones are in the log. */
    members_encode(&d->members, &table);
    wal_drop(d->wal, below, buf_slice(&table), raft_commit(d->raft));
    buf_fini(&table);
    /* It rides with the next batch, unless there will be none because the space that it frees is missing. */
    if (wal_no_space(d->wal))
        wal_submit(d->wal, raft_commit(d->raft));
}

static bool out_no_space(void *arg)
{
    const struct raftd *d = arg;

    return wal_no_space(d->wal);
}

const struct turn_ops out_ops = {
    .send = out_send,
    .persist = out_persist,
    .apply = out_apply,
    .serve = out_serve,
    .apply_room = out_apply_room,
    .refuse = out_refused,
    .changed = out_changed,
    .conf = out_conf,
    .drop = out_drop,
    .no_space = out_no_space,
    .forward = forward_propose,
    .proposed = forward_proposed,
    .read_index = forward_read_index,
    .read_index_said = forward_read_index_said,
    .new_leader = forward_new_leader,
};

/* --- what siblings are told when it changes, and when they come -------------------------------- */

static bool is_learner(const struct raftd *d)
{
    const struct member *self = members_find(&d->members, d->member_id);

    return self && self->is_learner;
}

static void out_lead(struct raftd *d)
{
    link_send(d->links[LINK_SLOT_STORED],
              FRAME(lead, LEAD, .cluster_id = d->cluster_id, .member_id = d->member_id, .term = raft_term(d->raft),
                    .leader = raft_leader(d->raft), .commit = raft_commit(d->raft), .is_learner = is_learner(d),
                    .members = d->members.count));
}

static void out_leader(struct raftd *d, struct link *l)
{
    link_send(l, FRAME(leader, LEADER, .term = raft_term(d->raft), .leader = raft_leader(d->raft),
                       .member_id = d->member_id, .cluster_id = d->cluster_id, .is_learner = is_learner(d)));
}

static void out_members(struct raftd *d, struct link *l)
{
    for (size_t i = 0; i < d->members.count; i++) {
        const struct member *m = &d->members.list[i];

        link_send(l, FRAME(member, MEMBER, .pos = i, .count = d->members.count, .id = m->id,
                           .is_learner = m->is_learner, .name = slice_str(m->name),
                           .peer_urls = slice_str(m->peer_urls), .client_urls = slice_str(m->client_urls)));
    }
}

void out_tell_all(struct raftd *d)
{
    for (unsigned i = 0; i < RAFTD_SLOTS; i++)
        d->tell[i] = true;
}

void out_tell(struct raftd *d)
{
    for (unsigned i = 0; i < RAFTD_SLOTS; i++) {
        if (!d->tell[i])
            continue;
        d->tell[i] = false;
        if (link_state(d->links[i]) != LINK_UP)
            continue; /* it is told when it comes */
        if (i == LINK_SLOT_STORED) {
            out_lead(d);
        } else {
            out_leader(d, d->links[i]);
            out_members(d, d->links[i]);
        }
    }
}

/* --- STATUS: goes round the ring, each daemon adding its facts ---------------------------------- */

static void out_status_now(struct raftd *d, unsigned slot, uint64_t req, uint64_t what)
{
    struct buf facts = BUF_INIT;

    if (what == STATUS_METRICS)
        facts_render(d, &facts);
    link_send(d->links[LINK_SLOT_STORED],
              FRAME(status, STATUS, .req = req, .what = what, .slot = slot, .term = raft_term(d->raft),
                    .leader = raft_leader(d->raft), .commit = raft_commit(d->raft), .is_learner = is_learner(d),
                    .raft_known = 1, .facts = buf_slice(&facts)));
    buf_fini(&facts);
}

void out_status(struct raftd *d, unsigned slot, uint64_t req, uint64_t what)
{
    if (out_stored_is_up(d))
        out_status_now(d, slot, req, what);
    else if (d->status_count == STATUS_WAIT_MAX)
        out_refused(d, slot, req, E_REQUEST_TOO_MANY_REQUESTS);
    else
        d->status[d->status_count++] = (struct status_wait){
            .slot = slot, .req = req, .what = what, .until_ms = loop_now_ms(d->loop) + STATUS_WAIT_MS};
}

void out_status_expire(struct raftd *d, uint64_t now_ms)
{
    size_t kept = 0;

    for (size_t i = 0; i < d->status_count; i++) {
        struct status_wait *s = &d->status[i];

        if (out_stored_is_up(d))
            out_status_now(d, s->slot, s->req, s->what);
        else if (s->until_ms <= now_ms)
            out_refused(d, s->slot, s->req, E_UNREACHABLE);
        else
            d->status[kept++] = *s;
    }
    d->status_count = kept;
}
