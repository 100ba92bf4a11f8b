/* sim_node - one member: the shipped turn on the shipped core and log, with effects that go into the simulated world.
 * Each effect is a place to die at (sim_node_effect), so a crash may come between any two of them. What out.c, in.c and
 * main.c do in raftd is done here in the same order: a turn of the loop gathers, reports what became durable, ticks,
 * ends. */
#include "common/err.h"
#include "common/limits.h"
#include "common/mem.h"
#include "tests/sim/sim.h"

#define CLUSTER_ID 0xc1u

/* --- clock, wake-ups ------------------------------------------------------------------------------------ */

struct sim_node *sim_node_of(struct sim *s, uint64_t id)
{
    struct sim_node *n = id > 0 ? s->nodes[(id - 1) % SIM_ID_STEP % SIM_SLOTS] : NULL;

    return n && n->id == id ? n : NULL;
}

uint64_t sim_node_now_ms(const struct sim_node *n)
{
    int64_t us = (int64_t)n->sim->now_us;

    return (uint64_t)(us + us * n->clock_ppm / 1000000 + n->clock_offset_us) / 1000;
}

void sim_node_wake(struct sim *s, struct sim_node *n, uint64_t in_us)
{
    if (n->turn_scheduled && n->turn_at_us <= s->now_us + in_us)
        return;
    n->turn_scheduled = true;
    n->turn_at_us = s->now_us + in_us;
    sim_at(s, n->turn_at_us, (struct sim_event){.kind = SIM_EV_TURN, .node = n->pos, .epoch = n->epoch});
}

/* Events of one turn of the loop come together, now and then many of them. */
void sim_node_gathered(struct sim *s, struct sim_node *n)
{
    sim_node_wake(s, n, s->manual || sim_chance(s, 600) ? 0 : sim_below(s, 400));
}

void sim_node_die(struct sim_node *n)
{
    must(n->sim->guard);
    siglongjmp(*n->sim->guard, 1);
}

void sim_node_effect(struct sim_node *n)
{
    if (n->fuse > 0 && --n->fuse == 0) {
        sim_trace(n->sim, "%" PRIu64 ": dies here", n->id);
        sim_node_die(n);
    }
}

/* --- effects of a turn ------------------------------------------------------------------------------------- */

static void op_send(void *arg, const struct raft_msg *m)
{
    struct sim_node *n = arg;

    sim_node_effect(n);
    sim_check_vote(n->sim, m);
    if (m->type == RAFT_MSG_SNAP)
        sim_snap_send(n->sim, n, m);
    else
        sim_net_send(n->sim, m);
}

static void disk_schedule(struct sim *s, struct sim_node *n, uint64_t us)
{
    if (n->disk_scheduled)
        return;
    n->disk_scheduled = true;
    sim_at(s, s->now_us + us, (struct sim_event){.kind = SIM_EV_DISK, .node = n->pos, .epoch = n->epoch});
}

/* Remembers what this batch makes of the log: when its ticket is done, no crash may take it away. */
static void promise(struct sim_node *n, uint64_t ticket, const struct raft_ready *rd)
{
    size_t last = n->promise_count;
    uint64_t from = rd->truncate_from;

    for (size_t i = 0; from > 0 && i < last; i++)
        if (n->promised[i].index >= from)
            n->promised[i].index = 0;
    if (from > 0 && n->safe.index >= from) {
        n->safe.index = from - 1;
        if (!wal_term(n->wal, from - 1, &n->safe.term))
            n->safe.index = n->safe.term = 0;
    }
    must(last < ARRAY_LEN(n->promised));
    n->promised[last].ticket = ticket;
    n->promised[last].index = wal_last_index(n->wal);
    if (!wal_term(n->wal, wal_last_index(n->wal), &n->promised[last].term))
        n->promised[last].index = 0;
    n->promised[last].hard_term = rd->term;
    n->promised[last].vote = rd->vote;
    n->promise_count++;
}

static void promises_keep(struct sim_node *n, uint64_t ticket)
{
    size_t done = 0;

    for (; done < n->promise_count && n->promised[done].ticket <= ticket; done++) {
        if (n->promised[done].index > 0) {
            n->safe.index = n->promised[done].index;
            n->safe.term = n->promised[done].term;
        }
        n->safe.hard_term = n->promised[done].hard_term;
        n->safe.vote = n->promised[done].vote;
    }
    n->promise_count -= done;
    memmove(n->promised, n->promised + done, n->promise_count * sizeof(n->promised[0]));
}

static uint64_t op_persist(void *arg, const struct raft_ready *ready)
{
    struct sim_node *n = arg;

    sim_node_effect(n);
    if (ready->hard_changed)
        wal_hard(n->wal, ready->term, ready->vote, ready->hard_seq);
    if (ready->truncate_from > 0)
        wal_truncate(n->wal, ready->truncate_from);
    wal_append(n->wal, ready->entries, ready->entry_count);
    uint64_t ticket = wal_submit(n->wal, raft_commit(n->raft));
    promise(n, ticket, ready);
    disk_schedule(n->sim, n, n->sim->manual ? 0 : sim_below(n->sim, n->write_us));
    return ticket;
}

static void op_apply(void *arg, const struct entry *e)
{
    struct sim_node *n = arg;

    sim_node_effect(n);
    struct entry *copy = entry_new((enum entry_kind)e->kind, entry_data(e));
    copy->index = e->index;
    copy->term = e->term;
    sim_store_push(n->sim, n, (struct sim_item){.entry = copy});
}

static void op_serve(void *arg, unsigned slot, uint64_t index, uint64_t req, struct slice command)
{
    struct sim_node *n = arg;

    UNUSED(slot);
    UNUSED(command);
    sim_node_effect(n);
    sim_store_push(n->sim, n, (struct sim_item){.index = index, .op = req});
}

static bool op_apply_room(void *arg)
{
    struct sim_node *n = arg;

    return n->store.up && n->store.item_count < 200;
}

static void op_refuse(void *arg, unsigned slot, uint64_t req, int err)
{
    struct sim_node *n = arg;

    if (slot == SIM_CLIENTS && n->sim->manual)
        buf_printf(&n->sim->said, "change refused: %s\n", err_name(err));
    else if (slot < SIM_CLIENTS || slot >= TURN_PEER_SLOT)
        sim_answer(n->sim, n, req, (struct sim_result){.err = err}); /* of a forwarded one: the way back is not drawn */
}

/* --- what goes to the leader ------------------------------------------------------------------------------------ */

static bool word_send(struct sim_node *n, uint64_t to_id, const struct sim_word *word, struct slice bytes)
{
    struct sim *s = n->sim;
    struct sim_node *to = sim_node_of(s, to_id);

    sim_node_effect(n);
    if (!to || !sim_net_open(s, n->pos, to->pos))
        return false;
    if (sim_chance(s, s->net.loss))
        return true;
    struct sim_word *w = xmalloc(sizeof(*w) + bytes.len);
    *w = *word;
    w->from = n->pos;
    w->len = bytes.len;
    if (bytes.len > 0)
        memcpy(w->bytes, bytes.data, bytes.len);
    uint64_t delay = s->manual ? 0 : 100 + sim_below(s, s->net.latency_us + 1);
    sim_at(s, s->now_us + delay, (struct sim_event){.kind = SIM_EV_WORD, .node = to->pos, .index = to_id, .data = w});
    return true;
}

static bool op_forward(void *arg, uint64_t leader, unsigned slot, uint64_t req, const struct entry *e)
{
    UNUSED(slot);
    return word_send(arg, leader, &(struct sim_word){.kind = SIM_FORWARD, .tag = req}, entry_data(e));
}

static bool op_read_index(void *arg, uint64_t leader, uint64_t tag)
{
    return word_send(arg, leader, &(struct sim_word){.kind = SIM_READ_INDEX, .tag = tag}, SLICE_EMPTY);
}

static void op_read_index_said(void *arg, unsigned slot, uint64_t tag, uint64_t index, int err)
{
    struct sim_node *n = arg;

    word_send(n, n->sim->nodes[slot - TURN_PEER_SLOT]->id,
              &(struct sim_word){.kind = SIM_READ_INDEX_SAID, .tag = tag, .index = index, .err = err}, SLICE_EMPTY);
}

static void node_word(struct sim *s, struct sim_node *n, const struct sim_word *w)
{
    if (!sim_net_open(s, w->from, n->pos))
        return;
    switch (w->kind) {
    case SIM_FORWARD:
        turn_propose(n->turn, TURN_PEER_SLOT + w->from, w->tag, entry_new(ENTRY_COMMAND, slice_of(w->bytes, w->len)));
        break;
    case SIM_READ_INDEX:
        turn_read_index(n->turn, TURN_PEER_SLOT + w->from, w->tag);
        break;
    case SIM_READ_INDEX_SAID:
        turn_read_index_said(n->turn, w->tag, w->index, w->err);
        break;
    }
}

static void op_proposed(void *arg, unsigned slot, uint64_t req)
{
    UNUSED(arg);
    UNUSED(slot);
    UNUSED(req);
}

static void op_new_leader(void *arg)
{
    UNUSED(arg);
}

/* --- what becomes of the node itself ---------------------------------------------------------------------------- */

static void op_changed(void *arg)
{
    sim_node_effect(arg);
}

static void op_conf(void *arg, const struct entry *e)
{
    struct sim_node *n = arg;
    struct raft_conf_change change;

    sim_node_effect(n);
    sim_must(n->sim, raft_conf_decode(entry_data(e), &change) == 0);
    (void)members_apply(&n->members, &change);
    if (change.op == RAFT_CONF_REMOVE && change.id == n->id)
        n->removed = true;
}

static void op_drop(void *arg, uint64_t below)
{
    struct sim_node *n = arg;
    struct buf table = BUF_INIT;

    sim_node_effect(n);
    members_encode(&n->members, &table);
    wal_drop(n->wal, below, buf_slice(&table), raft_commit(n->raft));
    buf_fini(&table);
    if (wal_no_space(n->wal))
        wal_submit(n->wal, raft_commit(n->raft));
}

static bool op_no_space(void *arg)
{
    struct sim_node *n = arg;

    return wal_no_space(n->wal);
}

static const struct turn_ops ops = {
    .send = op_send,
    .persist = op_persist,
    .apply = op_apply,
    .serve = op_serve,
    .apply_room = op_apply_room,
    .refuse = op_refuse,
    .changed = op_changed,
    .conf = op_conf,
    .drop = op_drop,
    .no_space = op_no_space,
    .forward = op_forward,
    .proposed = op_proposed,
    .read_index = op_read_index,
    .read_index_said = op_read_index_said,
    .new_leader = op_new_leader,
};

/* --- start ------------------------------------------------------------------------------------------------------ */

static struct wal_conf wal_conf_of(const struct sim_node *n)
{
    return (struct wal_conf){
        .dir = sim_disk_path(n->disk), .segment_bytes = SIM_SEGMENT_BYTES, .disk = &sim_disk_ops, .threadless = true};
}

/* The founders' logs begin with the changes that made the cluster, as etcd's do: a later member learns it from there.
 */
static void log_found(struct sim *s, struct sim_node *n)
{
    struct members none = {0};
    struct buf table = BUF_INIT;
    struct wal_conf wc = wal_conf_of(n);

    members_encode(&none, &table);
    struct wal *w = wal_create(
        &wc, &(struct wal_found){
                 .cluster_id = CLUSTER_ID, .member_id = n->id, .first_index = 1, .members = buf_slice(&table)});
    if (!n->joiner) {
        wal_hard(w, 1, RAFT_NONE, 1);
        for (uint64_t id = 1; id <= s->voters; id++) {
            struct buf bytes = BUF_INIT;

            raft_conf_encode(&bytes, &(struct raft_conf_change){.op = RAFT_CONF_ADD, .id = id});
            struct entry *e = entry_new(ENTRY_CONF, buf_slice(&bytes));
            e->index = id;
            e->term = 1;
            sim_oracle_commit(s, e, 1);
            wal_append(w, &e, 1);
            entry_unref(e);
            buf_fini(&bytes);
        }
        wal_submit(w, s->voters);
    }
    wal_close(w);
    buf_fini(&table);
}

/* Entries of these terms at the end of a log whose member is down: a scenario's past. */
void sim_node_write(struct sim_node *n, const uint64_t *terms, size_t count)
{
    struct wal_found found;
    struct wal_conf wc = wal_conf_of(n);
    struct buf why = BUF_INIT;
    struct wal *w = wal_open(&wc, &found, &why);

    must(w && count > 0);
    wal_hard(w, terms[count - 1], terms[count - 1] == found.term ? found.vote : RAFT_NONE, found.hard_seq + 1);
    for (size_t i = 0; i < count; i++) {
        struct entry *e = entry_new(ENTRY_NOOP, SLICE_EMPTY);

        e->index = found.last_index + 1 + i;
        e->term = terms[i];
        wal_append(w, &e, 1);
        entry_unref(e);
    }
    wal_submit(w, found.commit);
    wal_close(w);
    buf_fini(&why);
}

/* As start_core: the members as of the last entry, one change back, and what is not known to be committed. */
static size_t conf_replay(struct sim_node *n, const struct wal_found *found, struct raft_start *start,
                          struct raft_member *now, struct raft_member *before, struct entry **changes, size_t max)
{
    size_t count = 0;

    start->member_count = start->prev_member_count = members_raft(&n->members, now);
    members_raft(&n->members, before);
    for (uint64_t i = wal_find_kind(n->wal, found->members_at + 1, ENTRY_CONF); i > 0;
         i = wal_find_kind(n->wal, i + 1, ENTRY_CONF)) {
        struct raft_conf_change change;

        must(count < max && wal_entries(n->wal, i, i, SIZE_MAX, &changes[count]) == 1);
        must(raft_conf_decode(entry_data(changes[count++]), &change) == 0);
        if (change.op == RAFT_CONF_UPDATE)
            continue;
        memcpy(before, now, RAFT_MEMBERS_MAX * sizeof(*now));
        start->prev_member_count = start->member_count;
        start->prev_conf_index = start->conf_index;
        start->member_count = raft_conf_apply(now, start->member_count, &change);
        start->conf_index = i;
    }
    return count;
}

static void core_start(struct sim *s, struct sim_node *n, const struct wal_found *found)
{
    struct raft_member now[RAFT_MEMBERS_MAX], before[RAFT_MEMBERS_MAX];
    struct entry *changes[256];
    struct raft_start start = {.term = found->term,
                               .vote = found->vote,
                               .first_index = found->first_index,
                               .first_prev_term = found->prev_term,
                               .last_index = found->last_index,
                               .last_term = found->last_term,
                               .commit = found->commit,
                               .members = now,
                               .conf_index = found->members_at,
                               .prev_members = before,
                               .prev_conf_index = found->members_at};
    struct raft_conf rc = {.id = n->id,
                           .seed = rand_u64(&s->rand),
                           .election_ms = SIM_ELECTION_MS,
                           .heartbeat_ms = SIM_HEARTBEAT_MS,
                           .pre_vote = s->seed % 8 != 7 || s->faults.members || s->manual,
                           .check_quorum = s->seed % 16 != 5 || s->manual,
                           .append_bytes_max = s->append_bytes,
                           .inflight_bytes_max = 9000,
                           .cache_bytes_max = 4000,
                           .uncommitted_bytes_max = 100000,
                           .keep_entries = s->keep_entries,
                           .storage = {wal_term, wal_entries, n->wal}};
    struct turn_conf tc = {.tag_base = rand_u64(&s->rand) >> 3,
                           .read_again_ms = 2 * SIM_HEARTBEAT_MS,
                           .wait_ms = 3 * SIM_ELECTION_MS,
                           .backlog_max = 1000,
                           .backlog_ms = 100,
                           .apply_bytes_max = 6000,
                           .wait_bytes_max = 100000,
                           .wait_count_max = 1000};

    members_fini(&n->members);
    must(members_decode(found->members, &n->members) == 0);
    size_t count = conf_replay(n, found, &start, now, before, changes, ARRAY_LEN(changes));
    n->raft = raft_new(&rc, &start, sim_node_now_ms(n));
    n->turn = turn_new(n->raft, &ops, n, &tc, sim_node_now_ms(n));
    for (size_t i = 0; i < count; i++) {
        struct raft_conf_change change;

        if (changes[i]->index > found->commit) {
            turn_conf_pending(n->turn, changes[i]);
            continue;
        }
        must(raft_conf_decode(entry_data(changes[i]), &change) == 0);
        (void)members_apply(&n->members, &change);
        entry_unref(changes[i]);
    }
}

void sim_node_use(struct sim *s, unsigned pos, uint64_t id, bool joiner)
{
    struct sim_node *n = s->nodes[pos];

    if (!n) {
        n = s->nodes[pos] = xcalloc(1, sizeof(*n));
        n->sim = s;
        n->pos = pos;
        n->disk = sim_disk_new(s, pos);
        s->node_count = MAX(s->node_count, (size_t)pos + 1);
    }
    if (n->up)
        sim_node_crash(s, n, false);
    sim_store_crash(s, n, false);
    sim_disk_wipe(n->disk);
    if (s->mvcc)
        sim_mvcc_wipe(pos);
    n->store.state = n->store.durable = (struct sim_state){0};
    n->id = id;
    n->used = true;
    n->joiner = joiner;
    n->removed = n->damaged = false;
    n->fuse = 0;
    n->write_us = 200;
    n->sync_us = 1500;
    n->seen_commit = 0;
    memset(&n->safe, 0, sizeof(n->safe));
    memset(&n->pending, 0, sizeof(n->pending));
    n->snap_index = 0;
    n->gone = false;
    log_found(s, n);
}

void sim_node_start(struct sim *s, struct sim_node *n)
{
    struct wal_found found;
    struct buf why = BUF_INIT;
    struct wal_conf wc = wal_conf_of(n);

    if (n->up || n->damaged || n->removed)
        return;
    n->epoch++;
    n->turn_scheduled = n->disk_scheduled = false;
    n->promise_count = 0;
    n->ahead = false;
    n->stopping_at_us = n->tick_at_us = 0;
    n->wal = wal_open(&wc, &found, &why);
    if (!n->wal) {
        sim_trace(s, "%" PRIu64 ": does not start: %.*s", n->id, (int)why.len, (const char *)why.data);
        buf_fini(&why);
        if (s->damaged_max == 0)
            sim_broken(s, "only damage keeps a log from being read", "member %" PRIu64, n->id);
        n->damaged = true;
        return;
    }
    buf_fini(&why);
    sim_check_found(s, n, &found, n->wal);
    core_start(s, n, &found);
    sim_trace(s, "%" PRIu64 ": starts, term %" PRIu64 ", entries %" PRIu64 "..%" PRIu64 ", commit %" PRIu64, n->id,
              found.term, found.first_index, found.last_index, found.commit);
    n->up = true;
    n->was_leader = false;
    n->seen_commit = found.first_index - 1;
    s->stats.restarts++;
    sim_store_start(s, n);
    sim_at(s, s->now_us + (s->manual ? 0 : sim_below(s, 3 * SIM_MS)),
           (struct sim_event){.kind = SIM_EV_STORE_UP, .node = n->pos, .epoch = n->epoch});
    sim_node_wake(s, n, 0);
}

void sim_node_crash(struct sim *s, struct sim_node *n, bool power)
{
    sim_trace(s, "%" PRIu64 ": %s", n->id, power ? "power cut" : "ends");
    s->stats.crashes++;
    s->stats.powers += power;
    turn_free(n->turn);
    raft_free(n->raft);
    if (n->wal)
        wal_abandon(n->wal);
    n->turn = NULL;
    n->raft = NULL;
    n->wal = NULL;
    n->up = false;
    n->fuse = 0;
    n->fuse_names = false;
    n->epoch++;
    sim_disk_crash(n->disk, power);
    if (power)
        sim_store_crash(s, n, true);
    else
        sim_store_unlink(&n->store);
}

/* --- events --------------------------------------------------------------------------------------------------------
 */

static void node_store_up(struct sim *s, struct sim_node *n)
{
    if (!n->up || !n->store.up)
        return;
    sim_snap_resume(s, n);
    uint64_t applied = n->store.state.applied, last = raft_last_index(n->raft);

    /* Only a snapshot may bring stored further than the log on disk; what lies between is nobody's promise. Until it is
     * here and committed, stored gets nothing (snap_hand_try). */
    if (applied + 1 < wal_first_index(n->wal) || (applied > last && applied != n->snap_index))
        sim_broken(s, "stored and log belong together",
                   "member %" PRIu64 ": stored %" PRIu64 ", log %" PRIu64 "..%" PRIu64, n->id, applied,
                   wal_first_index(n->wal), last);
    n->ahead = n->ahead || applied > last;
    if (n->ahead && raft_commit(n->raft) < applied)
        return;
    n->ahead = false;
    sim_store_unlink(&n->store);
    sim_must(s, turn_stored_up(n->turn, applied, n->store.durable.applied) == 0);
}

static void node_turn(struct sim *s, struct sim_node *n, const struct sim_event *ev)
{
    if (ev->at_us >= n->turn_at_us)
        n->turn_scheduled = false;
    uint64_t now = sim_node_now_ms(n), ticket = wal_poll(n->wal);

    turn_clock(n->turn, now);
    promises_keep(n, ticket);
    turn_durable(n->turn, ticket);
    if (turn_deadline(n->turn) <= now)
        turn_tick(n->turn);
    turn_end(n->turn);
    if (n->ahead && raft_commit(n->raft) >= n->store.state.applied)
        node_store_up(s, n);
    if (n->stopping_at_us > 0 && (s->now_us >= n->stopping_at_us || raft_role(n->raft) != RAFT_LEADER))
        sim_node_die(n);
    if (!wal_is_idle(n->wal) || wal_no_space(n->wal))
        disk_schedule(s, n, s->manual ? 0 : sim_below(s, wal_no_space(n->wal) ? 50 * SIM_MS : n->write_us));
    uint64_t deadline = turn_deadline(n->turn);
    if (s->manual)
        return;
    sim_node_wake(s, n, (deadline > now ? deadline - now : 1) * SIM_MS);
}

static void node_disk(struct sim *s, struct sim_node *n)
{
    n->disk_scheduled = false;
    if (!wal_work(n->wal))
        return;
    sim_node_gathered(s, n);
    disk_schedule(s, n, s->manual ? 0 : 20 + sim_below(s, n->sync_us));
}

static void node_request(struct sim *s, struct sim_node *n, uint64_t op)
{
    if (n->up)
        sim_request(s, n, &s->ops[op - 1]);
    else
        sim_answer(s, n, op, (struct sim_result){.err = E_UNREACHABLE});
}

static void node_running(struct sim *s, struct sim_node *n, const struct sim_event *ev)
{
    turn_clock(n->turn, sim_node_now_ms(n));
    switch (ev->kind) {
    case SIM_EV_MSG: {
        const struct raft_msg *m = ev->data;
        const struct sim_node *from = sim_node_of(s, m->from);

        if (m->to != n->id || !from || !sim_net_open(s, from->pos, n->pos))
            return;
        if (sim_verbose) {
            char text[200];

            raft_show_msg(m, text, sizeof(text));
            sim_trace(s, "%s", text);
        }
        turn_recv(n->turn, m);
        break;
    }
    case SIM_EV_APPLIED:
        if (ev->epoch == n->store.epoch)
            if (turn_applied(n->turn, ev->index, ev->aux, 4000) != 0)
                sim_broken(s, "APPLIED can be true", "member %" PRIu64 ": %" PRIu64 " %" PRIu64, n->id, ev->index,
                           ev->aux);
        break;
    case SIM_EV_WORD:
        node_word(s, n, ev->data);
        break;
    case SIM_EV_SNAP:
    case SIM_EV_SNAP_SAID:
        sim_snap_event(s, n, ev);
        break;
    default:
        break;
    }
    sim_node_gathered(s, n);
}

void sim_node_event(struct sim *s, struct sim_node *n, const struct sim_event *ev)
{
    switch (ev->kind) {
    case SIM_EV_START:
        sim_store_start(s, n);
        sim_node_start(s, n);
        break;
    case SIM_EV_STORE_UP:
        sim_store_start(s, n);
        if (n->up)
            turn_clock(n->turn, sim_node_now_ms(n));
        node_store_up(s, n);
        if (n->up)
            sim_node_gathered(s, n);
        break;
    case SIM_EV_STORE:
        if (ev->epoch == n->store.epoch)
            sim_store_work(s, n);
        break;
    case SIM_EV_REQUEST:
        node_request(s, n, ev->index);
        if (n->up)
            sim_node_gathered(s, n);
        break;
    case SIM_EV_TURN:
        if (n->up && ev->epoch == n->epoch)
            node_turn(s, n, ev);
        break;
    case SIM_EV_DISK:
        if (n->up && ev->epoch == n->epoch)
            node_disk(s, n);
        break;
    default:
        if (n->up)
            node_running(s, n, ev);
        break;
    }
}
