/* sim_store - a member's stored: takes APPLY and SERVE in the order raftd sent them, late, and tells APPLIED. Its state
 * is small (a value and a revision per key, the membership, a hash over all that was applied), so a snapshot is a copy.
 * What it applied outlives its process; a power cut takes it back to its durable point. */
#include "common/crc32c.h"
#include "common/mem.h"
#include "tests/sim/sim.h"

/* --- the state machine --------------------------------------------------------------------------------- */

bool sim_command_get(const struct entry *e, struct sim_command *c)
{
    if (e->kind != ENTRY_COMMAND || e->len < sizeof(*c))
        return false;
    memcpy(c, e->data, sizeof(*c));
    return true;
}

static uint64_t hash_step(uint64_t hash, const struct entry *e)
{
    uint64_t parts[] = {hash, e->index, e->term, e->kind, crc32c(0, e->data, e->len)};

    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        hash = (hash ^ parts[i]) * 0x9e3779b97f4a7c15u + (hash >> 29);
    return hash;
}

/* done: the command did something (a swap that did not find what it expected did not). */
void sim_state_apply(struct sim_state *st, const struct entry *e, bool *done)
{
    struct sim_command c;
    struct raft_conf_change change;

    *done = false;
    st->applied = e->index;
    st->hash = hash_step(st->hash, e);
    if (e->kind == ENTRY_CONF && raft_conf_decode(entry_data(e), &change) == 0 && change.op != RAFT_CONF_UPDATE) {
        st->member_count = raft_conf_apply(st->members, st->member_count, &change);
        st->conf_index = e->index;
    }
    if (!sim_command_get(e, &c) || (c.kind == SIM_CAS && st->value[c.key] != c.expect))
        return;
    st->value[c.key] = c.value;
    st->mod[c.key] = e->index;
    *done = true;
}

/* --- in ------------------------------------------------------------------------------------------------------ */

void sim_store_push(struct sim *s, struct sim_node *n, struct sim_item item)
{
    struct sim_store *st = &n->store;

    if (st->item_head + st->item_count == st->item_cap) {
        if (st->item_head > 0) {
            memmove(st->items, st->items + st->item_head, st->item_count * sizeof(*st->items));
            st->item_head = 0;
        } else {
            st->item_cap = MAX(st->item_cap * 2, 64);
            st->items = xrealloc(st->items, st->item_cap * sizeof(*st->items));
        }
    }
    st->items[st->item_head + st->item_count++] = item;
    if (!st->scheduled) {
        st->scheduled = true;
        sim_at(s, s->now_us + (s->manual ? 0 : 20 + sim_below(s, sim_chance(s, 50) ? 30 * SIM_MS : 500)),
               (struct sim_event){.kind = SIM_EV_STORE, .node = n->pos, .epoch = st->epoch});
    }
}

static void items_drop(struct sim_store *st)
{
    for (size_t i = 0; i < st->item_count; i++)
        entry_unref(st->items[st->item_head + i].entry);
    st->item_head = st->item_count = 0;
    st->scheduled = false;
}

/* The link to raftd ends: what was on it is lost, in both directions. */
void sim_store_unlink(struct sim_store *st)
{
    items_drop(st);
    st->epoch++;
}

/* --- work ------------------------------------------------------------------------------------------------------- */

static void store_apply(struct sim *s, struct sim_node *n, const struct entry *e)
{
    struct sim_store *st = &n->store;
    struct sim_command c;
    bool done;

    if (e->index <= st->state.applied)
        return; /* sent again after a resume */
    sim_must(s, e->index == st->state.applied + 1);
    sim_check_applied(s, n, e);
    sim_state_apply(&st->state, e, &done);
    if (st->mvcc)
        sim_mvcc_apply(s, st->mvcc, e, done);
    if (st->state.hash != s->oracle.log[e->index].hash)
        sim_broken(s, "state machine agreement", "member %" PRIu64 " at %" PRIu64, n->id, e->index);
    if (sim_command_get(e, &c) && c.node == n->id)
        sim_answer(s, n, c.op, (struct sim_result){.done = done, .index = e->index});
}

static void store_serve(struct sim *s, struct sim_node *n, const struct sim_item *item)
{
    const struct sim_state *st = &n->store.state;
    const struct sim_op *op = &s->ops[item->op - 1];

    sim_must(s, st->applied >= item->index);
    sim_answer(s, n, item->op,
               (struct sim_result){.index = st->applied, .value = st->value[op->key], .mod = st->mod[op->key]});
}

void sim_store_sync(struct sim *s, struct sim_node *n)
{
    (void)s;
    n->store.durable = n->store.state;
    if (n->store.mvcc)
        sim_mvcc_sync(n->store.mvcc);
}

void sim_store_work(struct sim *s, struct sim_node *n)
{
    struct sim_store *st = &n->store;

    st->scheduled = false;
    if (!st->up)
        return;
    for (; st->item_count > 0; st->item_count--) {
        struct sim_item *item = &st->items[st->item_head];

        if (item->entry)
            store_apply(s, n, item->entry);
        else
            store_serve(s, n, item);
        entry_unref(item->entry);
        st->item_head++;
    }
    st->item_head = 0;
    if (st->mvcc && sim_chance(s, 100))
        sim_mvcc_check(s, st->mvcc, st->state.applied);
    if (s->manual || sim_chance(s, 100))
        sim_store_sync(s, n);
    uint64_t at = s->now_us + (s->manual ? 0 : sim_below(s, 200));

    st->told_us = MAX(st->told_us, at); /* a link keeps its order */
    sim_at(s, st->told_us,
           (struct sim_event){.kind = SIM_EV_APPLIED,
                              .node = n->pos,
                              .epoch = st->epoch,
                              .index = st->state.applied,
                              .aux = st->durable.applied});
}

/* --- life -----------------------------------------------------------------------------------------------------------
 */

void sim_store_start(struct sim *s, struct sim_node *n)
{
    struct sim_store *st = &n->store;

    if (st->up)
        return;
    st->up = true;
    st->epoch++;
    if (s->mvcc) {
        /* After a power cut: anywhere from the durable point on where nothing is missing. */
        st->mvcc = sim_mvcc_open(s, n->pos);
        uint64_t applied = sim_mvcc_applied(st->mvcc);

        if (applied < st->state.applied || applied > st->applied_before)
            sim_broken(s, "stored is at its durable point or behind it",
                       "member %" PRIu64 ": %" PRIu64 " of %" PRIu64 "..%" PRIu64, n->id, applied, st->state.applied,
                       st->applied_before);
        sim_oracle_state(s, applied, &st->state);
        st->durable = st->state;
        sim_mvcc_check(s, st->mvcc, applied);
    }
}

void sim_store_crash(struct sim *s, struct sim_node *n, bool power)
{
    struct sim_store *st = &n->store;

    sim_store_unlink(st);
    st->up = false;
    st->applied_before = st->state.applied;
    if (power)
        st->state = st->durable;
    if (st->mvcc)
        sim_mvcc_close(s, st->mvcc, n->pos, power);
    st->mvcc = NULL;
}
