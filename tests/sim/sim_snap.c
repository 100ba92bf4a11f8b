/* sim_snap - snapshots from member to member. What snap*.c of raftd does over its links and files is one event here;
 * the order of effects is theirs: stored swaps first, the log follows, and a note that outlives any end (n->pending)
 * tells the next start that the two have yet to be brought together. */
#include "common/mem.h"
#include "tests/sim/sim.h"

static void said(struct sim *s, uint64_t to_id, uint64_t member, uint64_t index, bool ok, uint64_t in_us)
{
    struct sim_node *to = sim_node_of(s, to_id);

    if (to)
        sim_at(
            s, s->now_us + in_us,
            (struct sim_event){.kind = SIM_EV_SNAP_SAID, .node = to->pos, .index = index, .aux = member, .epoch = ok});
}

void sim_snap_send(struct sim *s, struct sim_node *n, const struct raft_msg *m)
{
    struct sim_node *to = sim_node_of(s, m->to);
    struct sim_snap snap = {.from = n->id, .state = n->store.state};
    uint64_t us = s->manual ? 0 : 1 * SIM_MS + sim_below(s, 30 * SIM_MS);

    if (!to || !n->store.up || !sim_net_open(s, n->pos, to->pos) || sim_chance(s, s->net.loss) ||
        !wal_term(n->wal, snap.state.applied, &snap.term)) {
        said(s, n->id, m->to, m->index, false, us);
        return;
    }
    sim_trace(s, "%" PRIu64 ": sends a snapshot at %" PRIu64 " to %" PRIu64, n->id, snap.state.applied, m->to);
    sim_at(s, s->now_us + us,
           (struct sim_event){.kind = SIM_EV_SNAP, .node = to->pos, .data = xmemdup(&snap, sizeof(snap))});
    said(s, n->id, m->to, m->index, false, 300 * SIM_MS); /* if it ends meanwhile: the link tells */
}

/* --- the receiver ------------------------------------------------------------------------------------------------- */

static void members_of(const struct sim_state *st, struct members *table)
{
    for (size_t i = 0; i < st->member_count; i++)
        (void)members_apply(
            table, &(struct raft_conf_change){.op = st->members[i].learner ? RAFT_CONF_ADD_LEARNER : RAFT_CONF_ADD,
                                              .id = st->members[i].id});
}

static void log_replace(struct sim_node *n, const struct sim_snap *snap)
{
    struct raft_member members[RAFT_MEMBERS_MAX];
    struct members table = {0};
    struct buf bytes = BUF_INIT;

    members_of(&snap->state, &table);
    members_encode(&table, &bytes);
    for (size_t i = 0; i < n->promise_count; i++)
        n->promised[i].index = 0;
    n->safe.index = n->safe.term = 0;
    wal_reset(n->wal, snap->state.applied, snap->term, buf_slice(&bytes));
    buf_fini(&bytes);
    uint64_t ticket = wal_submit(n->wal, snap->state.applied);
    turn_snap_loaded(n->turn, snap->state.applied, snap->term, ticket, members, members_raft(&table, members));
    members_fini(&n->members);
    n->members = table;
    wal_flush(n->wal);
    n->safe.index = snap->state.applied;
    n->safe.term = snap->term;
    n->seen_commit = MAX(n->seen_commit, snap->state.applied);
}

/* The log follows stored. */
static void install(struct sim *s, struct sim_node *n)
{
    struct sim_snap snap = n->pending;
    uint64_t index = snap.state.applied, ours;

    if (index + 1 >= wal_first_index(n->wal)) {
        turn_clock(n->turn, sim_node_now_ms(n));
        turn_end(n->turn);
        turn_stored_down(n->turn);
        if (wal_term(n->wal, index, &ours) && ours == snap.term) {
            turn_snap_loaded(n->turn, index, snap.term, 0, NULL, 0);
        } else {
            if (raft_role(n->raft) == RAFT_LEADER)
                sim_broken(s, "a leader's log has all that is committed", "leader %" PRIu64 " lacks %" PRIu64, n->id,
                           index);
            log_replace(n, &snap);
        }
        sim_trace(s, "%" PRIu64 ": is at %" PRIu64 " by a snapshot of %" PRIu64, n->id, index, snap.from);
    }
    memset(&n->pending, 0, sizeof(n->pending));
    sim_node_effect(n);
}

void sim_snap_resume(struct sim *s, struct sim_node *n)
{
    if (n->pending.state.applied == 0)
        return;
    if (n->store.state.applied >= n->pending.state.applied)
        install(s, n);
    else
        memset(&n->pending, 0, sizeof(n->pending)); /* stored had not swapped */
}

static void load(struct sim *s, struct sim_node *n, const struct sim_snap *snap)
{
    uint64_t index = snap->state.applied;

    if (!n->store.up || raft_role(n->raft) == RAFT_LEADER || index <= n->store.state.applied) {
        said(s, snap->from, n->id, index, n->store.up && index <= raft_commit(n->raft), 2 * SIM_MS);
        return;
    }
    s->stats.snaps++;
    n->pending = *snap;
    sim_node_effect(n);
    turn_stored_down(n->turn);
    sim_store_unlink(&n->store);
    n->store.state = n->store.durable = snap->state;
    n->snap_index = index;
    sim_node_effect(n);
    install(s, n);
    said(s, snap->from, n->id, index, true, 2 * SIM_MS);
    sim_at(s, s->now_us, (struct sim_event){.kind = SIM_EV_STORE_UP, .node = n->pos});
}

void sim_snap_event(struct sim *s, struct sim_node *n, const struct sim_event *ev)
{
    if (ev->kind == SIM_EV_SNAP)
        load(s, n, ev->data);
    else
        turn_snap_sent(n->turn, ev->aux, ev->index, ev->epoch != 0);
}
