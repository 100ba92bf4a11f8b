/* sim_fault - what goes wrong, and when: each seed draws which kinds of fault it has and how often they come; each
 * fault draws its victim and its end. Nothing is broken beyond what the cluster must survive: damage hits a minority.
 */
#include "common/err.h"
#include "tests/sim/sim.h"

enum resume { RESUME_DISK = 1, RESUME_SPACE, RESUME_NET, RESUME_STOP };

static struct sim_node *any_node(struct sim *s)
{
    return s->nodes[sim_below(s, s->node_count)];
}

static struct sim_node *running(struct sim *s)
{
    struct sim_node *leader = sim_leader(s), *n = any_node(s);

    if (leader && sim_chance(s, 400))
        return leader; /* the most interesting victim */
    return n->up ? n : NULL;
}

void sim_fault_start_later(struct sim *s, struct sim_node *n)
{
    uint64_t us = 5 * SIM_MS + sim_below(s, sim_chance(s, 250) ? 900 * SIM_MS : 120 * SIM_MS);

    sim_at(s, s->now_us + us, (struct sim_event){.kind = SIM_EV_START, .node = n->pos});
}

static void resume_later(struct sim *s, unsigned pos, enum resume what, uint64_t us)
{
    sim_at(s, s->now_us + us, (struct sim_event){.kind = SIM_EV_RESUME, .index = pos, .aux = what});
}

/* --- ends of processes and machines ------------------------------------------------------------------------ */

/* Connections to a process that ended break at once; not everybody notices. */
void sim_fault_gone(struct sim *s, const struct sim_node *ended)
{
    for (size_t i = 0; i < s->node_count; i++) {
        struct sim_node *n = s->nodes[i];

        if (n == ended || !n->up || n->paused_until_us > s->now_us || !sim_chance(s, 700))
            continue;
        turn_clock(n->turn, sim_node_now_ms(n));
        turn_gone(n->turn, ended->id);
        sim_node_gathered(s, n);
    }
}

static void crash_now(struct sim *s, struct sim_node *n, bool power)
{
    sim_node_crash(s, n, power);
    if (!power)
        sim_fault_gone(s, n);
    sim_fault_start_later(s, n);
}

static void fault_crash(struct sim *s)
{
    struct sim_node *n = running(s);

    if (!n)
        return;
    n->fuse_power = s->faults.power && sim_chance(s, 500);
    if (sim_chance(s, 250))
        crash_now(s, n, n->fuse_power);
    else if (sim_chance(s, 200))
        n->fuse_names = true;
    else
        n->fuse = 1 + sim_below(s, 40); /* between any two effects */
}

static void damage(struct sim *s, struct sim_node *n)
{
    char what[80];
    uint64_t damaged = 0;

    for (size_t i = 0; i < s->node_count; i++)
        damaged += s->nodes[i]->damaged;
    if (n->damaged || damaged >= s->damaged_max || s->stats.damaged >= s->damaged_max ||
        !sim_disk_damage(n->disk, what, sizeof(what)))
        return;
    s->stats.damaged++;
    sim_trace(s, "%" PRIu64 ": damage: %s", n->id, what);
}

/* The power of several machines at the same time, all of them now and then. */
static void fault_power(struct sim *s)
{
    uint64_t mask = sim_chance(s, 300) ? UINT64_MAX : rand_u64(&s->rand);

    for (size_t i = 0; i < s->node_count; i++) {
        struct sim_node *n = s->nodes[i];

        if (!(mask >> i & 1) || !n->up)
            continue;
        sim_node_crash(s, n, true);
        if (s->faults.damage && sim_chance(s, 500))
            damage(s, n);
        sim_fault_start_later(s, n);
    }
}

static void fault_store(struct sim *s)
{
    struct sim_node *n = running(s);

    if (!n || !n->store.up)
        return;
    sim_trace(s, "%" PRIu64 ": stored ends", n->id);
    sim_store_crash(s, n, false);
    turn_stored_down(n->turn);
    sim_node_wake(s, n, 0);
    sim_at(s, s->now_us + sim_below(s, 100 * SIM_MS), (struct sim_event){.kind = SIM_EV_STORE_UP, .node = n->pos});
}

static void fault_pause(struct sim *s)
{
    struct sim_node *n = running(s);

    if (!n)
        return;
    /* Never shortens a pause: what waits for its end would come after what is sent to the node meanwhile. */
    uint64_t until = s->now_us + sim_below(s, 600 * SIM_MS);

    n->paused_until_us = MAX(n->paused_until_us, until);
    sim_trace(s, "%" PRIu64 ": stands still for %" PRIu64 " ms", n->id, (n->paused_until_us - s->now_us) / 1000);
}

static void fault_stop(struct sim *s)
{
    struct sim_node *n = running(s);

    if (!n || n->stopping_at_us > 0)
        return;
    sim_trace(s, "%" PRIu64 ": is asked to stop", n->id);
    turn_clock(n->turn, sim_node_now_ms(n));
    turn_stop(n->turn);
    n->stopping_at_us = s->now_us + 200 * SIM_MS;
    sim_node_wake(s, n, 0);
}

/* --- network and clocks ------------------------------------------------------------------------------------- */

static void fault_partition(struct sim *s)
{
    uint64_t kind = sim_below(s, 6), mask = rand_u64(&s->rand), one = sim_below(s, s->node_count);
    struct sim_node *leader = sim_leader(s);

    if (kind >= 2 && leader && sim_chance(s, 600))
        one = leader->pos;
    for (size_t a = 0; a < s->node_count; a++)
        for (size_t b = 0; b < s->node_count; b++) {
            bool halves = (mask >> a & 1) != (mask >> b & 1), with_one = a == one || b == one;

            s->net.cut[a][b] = kind == 0   ? halves
                               : kind == 1 ? halves && (mask >> a & 1)
                               : kind == 2 ? with_one
                               : kind == 3 ? a == one            /* is heard by nobody */
                               : kind == 4 ? b == one            /* hears nobody */
                                           : with_one && halves; /* one link of the three */
        }
    sim_trace(s, "partition of kind %" PRIu64 ", around %" PRIu64, kind, one + 1);
}

static void fault_heal_net(struct sim *s)
{
    memset(s->net.cut, 0, sizeof(s->net.cut));
    sim_trace(s, "the network is whole");
}

static void fault_net(struct sim *s)
{
    s->net.loss = sim_chance(s, 500) ? (uint32_t)sim_below(s, 250) : 0;
    s->net.twice = sim_chance(s, 500) ? (uint32_t)sim_below(s, sim_chance(s, 200) ? 600 : 150) : 0;
    s->net.late = sim_chance(s, 500) ? (uint32_t)sim_below(s, 200) : 5;
    s->net.latency_us = sim_chance(s, 200) ? 30 * SIM_MS : 1 + sim_below(s, 4 * SIM_MS);
    sim_trace(s, "network: loss %u, twice %u, late %u", s->net.loss, s->net.twice, s->net.late);
    resume_later(s, 0, RESUME_NET, sim_below(s, 1500 * SIM_MS));
}

static void flap(struct sim *s, const struct sim_event *ev)
{
    uint64_t a = ev->index / SIM_SLOTS, b = ev->index % SIM_SLOTS;

    s->net.flap[a][b] = s->faults_on && ev->aux > 0 && !s->net.flap[a][b];
    if (s->faults_on && ev->aux > 0)
        sim_at(s, s->now_us + 10 * SIM_MS + sim_below(s, 80 * SIM_MS),
               (struct sim_event){.kind = SIM_EV_FLAP, .index = ev->index, .aux = ev->aux - 1});
}

static void fault_flap(struct sim *s)
{
    flap(s, &(struct sim_event){.index = sim_below(s, s->node_count) * SIM_SLOTS + sim_below(s, s->node_count),
                                .aux = 20});
}

static void fault_clock(struct sim *s)
{
    struct sim_node *n = any_node(s);

    if (sim_chance(s, 500))
        n->clock_offset_us += (int64_t)sim_below(s, 2 * SIM_ELECTION_MS * SIM_MS);
    else if (sim_chance(s, 500))
        n->clock_offset_us -= (int64_t)sim_below(s, SIM_ELECTION_MS * SIM_MS);
    else
        n->clock_ppm = (int64_t)sim_below(s, 200000) - 100000; /* a tenth: far beyond any real clock */
    sim_trace(s, "%" PRIu64 ": clock %" PRId64 " us, %" PRId64 " ppm", n->id, n->clock_offset_us, n->clock_ppm);
}

static void fault_unreachable(struct sim *s)
{
    struct sim_node *n = running(s);

    if (n) {
        turn_clock(n->turn, sim_node_now_ms(n));
        if (sim_chance(s, 700))
            turn_unreachable(n->turn, any_node(s)->id);
        else
            turn_gone(n->turn, any_node(s)->id); /* it may be wrong */
        sim_node_gathered(s, n);
    }
}

/* --- disks ----------------------------------------------------------------------------------------------------- */

static void fault_disk(struct sim *s)
{
    struct sim_node *n = any_node(s);

    if (s->faults.full && sim_chance(s, 300)) {
        sim_disk_full(n->disk, true);
        sim_trace(s, "%" PRIu64 ": disk full", n->id);
        resume_later(s, n->pos, RESUME_SPACE, sim_below(s, 800 * SIM_MS));
        return;
    }
    n->write_us = 1 + sim_below(s, 50 * SIM_MS);
    n->sync_us = 1 + sim_below(s, 300 * SIM_MS);
    sim_trace(s, "%" PRIu64 ": slow disk, %" PRIu64 " us", n->id, n->sync_us);
    resume_later(s, n->pos, RESUME_DISK, sim_below(s, 1000 * SIM_MS));
}

/* --- membership -------------------------------------------------------------------------------------------------- */

static void propose_change(struct sim *s, struct sim_node *leader, enum raft_conf_op op, uint64_t id)
{
    struct buf bytes = BUF_INIT;

    sim_trace(s, "%" PRIu64 ": change %d of member %" PRIu64 " proposed", leader->id, (int)op, id);
    raft_conf_encode(&bytes, &(struct raft_conf_change){.op = op, .id = id});
    turn_clock(leader->turn, sim_node_now_ms(leader));
    turn_propose(leader->turn, TURN_NOBODY, 0, entry_new(ENTRY_CONF, buf_slice(&bytes)));
    buf_fini(&bytes);
    sim_node_wake(s, leader, 0);
}

static void fault_members(struct sim *s)
{
    struct sim_node *leader = sim_leader(s);
    unsigned pos = (unsigned)sim_below(s, SIM_SLOTS);
    struct sim_node *n = s->nodes[pos];

    if (!leader)
        return;
    if (!n || n->removed) {
        /* A new machine: it starts empty, and is added under an id that nobody had. */
        if (s->node_count < pos)
            return;
        sim_node_use(s, pos, n ? n->id + SIM_ID_STEP : pos + 1, true);
        sim_at(s, s->now_us + sim_below(s, 50 * SIM_MS), (struct sim_event){.kind = SIM_EV_START, .node = pos});
        propose_change(s, leader, sim_chance(s, 500) ? RAFT_CONF_ADD : RAFT_CONF_ADD_LEARNER, s->nodes[pos]->id);
        return;
    }
    const struct raft_member *m = raft_config_find(&leader->raft->config, n->id);
    if (!m && n->gone) {
        /* It may never hear of it: an operator takes it away. Until then it asks for votes in vain. */
        if (n->up)
            sim_node_crash(s, n, false);
        n->removed = true;
    } else if (!m)
        propose_change(s, leader, sim_chance(s, 500) ? RAFT_CONF_ADD : RAFT_CONF_ADD_LEARNER, n->id);
    else if (m->learner)
        propose_change(s, leader, RAFT_CONF_PROMOTE, n->id);
    else if (leader->raft->config.count > 3 || sim_chance(s, 100))
        propose_change(s, leader, RAFT_CONF_REMOVE, n->id);
}

static void fault_transfer(struct sim *s)
{
    struct sim_node *leader = sim_leader(s), *to = any_node(s);

    if (!leader || sim_chance(s, 400)) {
        fault_stop(s);
        return;
    }
    sim_trace(s, "%" PRIu64 ": is asked to hand over to %" PRIu64, leader->id, to->id);
    turn_clock(leader->turn, sim_node_now_ms(leader));
    if (sim_chance(s, 300))
        turn_hand_over(leader->turn);
    else
        turn_transfer(leader->turn, to->id);
    sim_node_gathered(s, leader);
}

/* What was begun and not ended is where mistakes hide: the first moments of a leader. */
void sim_fault_leader(struct sim *s, struct sim_node *n)
{
    if (!s->faults_on || !sim_chance(s, s->faults.leaders))
        return;
    if (s->faults.partition && sim_chance(s, 500)) {
        sim_trace(s, "%" PRIu64 ": is cut off from some as it begins to lead", n->id);
        for (size_t i = 0; i < s->node_count; i++)
            if (i != n->pos && sim_chance(s, 600))
                s->net.cut[i][n->pos] = s->net.cut[n->pos][i] = true;
    } else if (s->faults.crash) {
        n->fuse = 1 + sim_below(s, sim_chance(s, 500) ? 12 : 120);
        n->fuse_power = s->faults.power && sim_chance(s, 500);
    }
}

/* --- drawing ------------------------------------------------------------------------------------------------------ */

static void fault_one(struct sim *s)
{
    const struct sim_faults *f = &s->faults;

    s->stats.faults++;
    switch (sim_below(s, 13)) {
    case 0:
    case 1:
        if (f->crash)
            fault_crash(s);
        break;
    case 2:
        if (f->power)
            fault_power(s);
        break;
    case 3:
        if (f->store)
            fault_store(s);
        break;
    case 4:
        if (f->pause)
            fault_pause(s);
        break;
    case 5:
    case 6:
        if (f->partition)
            fault_partition(s);
        break;
    case 7:
        if (f->partition)
            sim_chance(s, 500) ? fault_heal_net(s) : fault_flap(s);
        break;
    case 8:
        if (f->net)
            sim_chance(s, 800) ? fault_net(s) : fault_unreachable(s);
        break;
    case 9:
        if (f->clock)
            fault_clock(s);
        break;
    case 10:
        if (f->disk)
            fault_disk(s);
        break;
    case 11:
        if (f->members)
            fault_members(s);
        break;
    case 12:
        if (f->transfer)
            fault_transfer(s);
        break;
    }
}

static void resume(struct sim *s, const struct sim_event *ev)
{
    struct sim_node *n = s->nodes[ev->index];

    if (ev->aux == RESUME_DISK) {
        n->write_us = 200;
        n->sync_us = 1500;
    } else if (ev->aux == RESUME_SPACE) {
        sim_disk_full(n->disk, false);
    } else {
        s->net.loss = s->net.twice = s->net.late = 0;
        s->net.latency_us = 500;
    }
}

void sim_fault_event(struct sim *s, const struct sim_event *ev)
{
    if (ev->kind == SIM_EV_RESUME) {
        resume(s, ev);
    } else if (ev->kind == SIM_EV_FLAP) {
        flap(s, ev);
    } else if (s->faults_on) {
        fault_one(s);
        sim_at(s, s->now_us + 1 + sim_below(s, 2 * s->faults.every_us), (struct sim_event){.kind = SIM_EV_FAULT});
    }
}

void sim_fault_init(struct sim *s)
{
    uint64_t bits = rand_u64(&s->rand), all = rand_u64(&s->rand) % 3 == 0 ? UINT64_MAX : 0;
    struct sim_faults *f = &s->faults;

    s->faults_on = true;
    bits |= all;
    f->crash = bits & 1;
    f->power = bits & 2;
    f->disk = bits & 4;
    f->full = bits & 8;
    f->net = bits & 16;
    f->partition = bits & 32;
    f->clock = bits & 64;
    f->pause = bits & 128;
    f->transfer = bits & 256;
    f->snapshots = bits & 512;
    f->store = bits & 1024;
    f->members = sim_chance(s, 300);
    /* Who is damaged stays away for good: not while the membership shrinks. */
    f->damage = f->power && !f->members && sim_chance(s, 300);
    s->damaged_max = f->damage ? (s->voters - 1) / 2 : 0;
    f->every_us = (sim_chance(s, 300) ? 8 : sim_chance(s, 500) ? 30 : 120) * SIM_MS;
    f->leaders = sim_chance(s, 400) ? 0 : (uint32_t)sim_below(s, 500);
    s->append_bytes = sim_chance(s, 300) ? 200 : 3000;
    s->mvcc = s->seed % 16 == 3;
    f->snapshots = f->snapshots && !s->mvcc;
    s->keep_entries = f->snapshots ? 1 + sim_below(s, 12) : s->mvcc ? SIM_INDEX_MAX : 400;
    f->members = f->members && !s->mvcc; /* a new member would need a snapshot of it */
    sim_at(s, s->now_us + 300 * SIM_MS, (struct sim_event){.kind = SIM_EV_FAULT});
}

/* The end of all faults: links, disks, clocks' speed, and whoever is down comes back. */
void sim_fault_heal(struct sim *s)
{
    s->faults_on = false;
    s->net = (struct sim_net){.latency_us = 500};
    sim_trace(s, "faults are over");
    for (size_t i = 0; i < s->node_count; i++) {
        struct sim_node *n = s->nodes[i];

        sim_disk_full(n->disk, false);
        n->write_us = 200;
        n->sync_us = 1500;
        n->fuse = 0;
        n->fuse_names = false;
        n->clock_ppm = 0;
        sim_at(s, s->now_us, (struct sim_event){.kind = SIM_EV_START, .node = n->pos});
        sim_at(s, s->now_us + 1, (struct sim_event){.kind = SIM_EV_STORE_UP, .node = n->pos});
    }
}
