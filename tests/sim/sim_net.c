/* sim_net - the network between members: late, lost, doubled, overtaking messages; links cut one way or both.
 * From a turn's send; into the heap as SIM_EV_MSG. A cut is looked at when a message leaves and when it arrives. */
#include "tests/sim/sim.h"

#include "common/mem.h"

void sim_msg_free(struct raft_msg *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->entry_count; i++)
        entry_unref(m->entries[i]);
    free(m->entries);
    free(m);
}

/* Entries are copied, as a wire would: two members never share one in memory. */
struct raft_msg *sim_msg_copy(const struct raft_msg *m)
{
    struct raft_msg *copy = xmemdup(m, sizeof(*m));

    copy->entries = xmalloc((m->entry_count + 1) * sizeof(*copy->entries));
    for (size_t i = 0; i < m->entry_count; i++) {
        const struct entry *e = m->entries[i];

        copy->entries[i] = entry_new((enum entry_kind)e->kind, entry_data(e));
        copy->entries[i]->index = e->index;
        copy->entries[i]->term = e->term;
    }
    return copy;
}

bool sim_net_open(const struct sim *s, unsigned from, unsigned to)
{
    return !s->net.cut[from][to] && !s->net.flap[from][to];
}

static uint64_t delay_us(struct sim *s)
{
    uint64_t us = 100 + sim_below(s, s->net.latency_us + 1);

    if (sim_chance(s, s->net.late))
        us += sim_below(s, sim_chance(s, 150) ? 1500 * SIM_MS : 150 * SIM_MS);
    return us;
}

static void send_one(struct sim *s, const struct raft_msg *m, unsigned to)
{
    s->stats.messages++;
    sim_at(s, s->now_us + (s->manual ? 0 : delay_us(s)),
           (struct sim_event){.kind = SIM_EV_MSG, .node = to, .data = sim_msg_copy(m)});
}

void sim_net_send(struct sim *s, const struct raft_msg *m)
{
    struct sim_node *from = sim_node_of(s, m->from), *to = sim_node_of(s, m->to);

    if (!from || !to || !sim_net_open(s, from->pos, to->pos))
        return;
    if (!sim_chance(s, s->net.loss))
        send_one(s, m, to->pos);
    if (s->net.twice > 0 && sim_chance(s, s->net.twice))
        send_one(s, m, to->pos);
}
