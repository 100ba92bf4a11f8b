/* sim_client - clients that put, get and swap, and the history of what they were told.
 *
 * Values are unique and every answer names the index at which it took place, so linearizability needs no search: the
 * order of the log is the witness. An operation must lie behind everything that was done when it was asked (floor), a
 * write must be in the log at its index with its own outcome, a read must have seen the state at its index, and what
 * was refused for certain must never be in the log. */
#include "common/err.h"
#include "common/mem.h"
#include "tests/sim/sim.h"

#define PATIENCE_US (1500 * SIM_MS)

struct sim_op *sim_op_new(struct sim *s, unsigned client, enum sim_op_kind kind, uint64_t key)
{
    if (s->op_count == s->op_cap) {
        s->op_cap = MAX(s->op_cap * 2, 1024);
        s->ops = xrealloc(s->ops, s->op_cap * sizeof(*s->ops));
    }
    struct sim_op *op = &s->ops[s->op_count++];

    *op = (struct sim_op){.id = s->op_count,
                          .client = client,
                          .kind = kind,
                          .key = key,
                          .value = s->op_count,
                          .asked_us = s->now_us,
                          .floor = s->oracle.floor};
    /* A swap expects what the newest state has: it succeeds when nobody is faster. */
    if (kind == SIM_CAS)
        op->expect = sim_oracle_value(s, key, s->oracle.applied, NULL);
    return op;
}

/* --- at the member ---------------------------------------------------------------------------------------- */

void sim_request(struct sim *s, struct sim_node *n, struct sim_op *op)
{
    static const uint8_t padding[6000];
    struct sim_command c = {.op = op->id,
                            .kind = (uint64_t)op->kind,
                            .key = op->key,
                            .value = op->value,
                            .expect = op->expect,
                            .node = n->id};
    struct buf bytes = BUF_INIT;

    sim_trace(s, "%" PRIu64 ": client %u asks %s key %" PRIu64 " op %" PRIu64, n->id, op->client,
              op->kind == SIM_GET   ? "get"
              : op->kind == SIM_PUT ? "put"
                                    : "swap",
              op->key, op->id);
    buf_add(&bytes, &c, sizeof(c));
    if (op->kind == SIM_GET) {
        turn_read(n->turn, op->client, op->id, buf_slice(&bytes));
    } else {
        if (!s->manual)
            buf_add(&bytes, padding, sim_below(s, sim_chance(s, 20) ? sizeof(padding) : 200));
        turn_propose(n->turn, op->client, op->id, entry_new(ENTRY_COMMAND, buf_slice(&bytes)));
    }
    buf_fini(&bytes);
}

void sim_answer(struct sim *s, struct sim_node *n, uint64_t op, struct sim_result r)
{
    sim_node_effect(n);
    if (op == 0)
        return;
    sim_at(s, s->now_us + (s->manual ? 0 : 50 + sim_below(s, 500)),
           (struct sim_event){.kind = SIM_EV_ANSWER, .index = op, .data = xmemdup(&r, sizeof(r))});
}

/* --- at the client ------------------------------------------------------------------------------------------ */

static void ask(struct sim *s, unsigned client)
{
    unsigned target = s->client_target[client];
    enum sim_op_kind kind = sim_chance(s, 400) ? SIM_GET : sim_chance(s, 300) ? SIM_CAS : SIM_PUT;
    struct sim_op *op = sim_op_new(s, client, kind, sim_below(s, SIM_KEYS));

    /* A client stays with who answers, also if that one leads no more and does not know it. */
    if (sim_chance(s, 30))
        target = (unsigned)sim_below(s, s->node_count);
    op->node = target;
    sim_at(s, s->now_us + 50 + sim_below(s, 500),
           (struct sim_event){.kind = SIM_EV_REQUEST, .node = target, .index = op->id});
    sim_at(s, s->now_us + PATIENCE_US, (struct sim_event){.kind = SIM_EV_CLIENT, .index = client, .aux = op->id});
}

static void next_in(struct sim *s, unsigned client, uint64_t us)
{
    sim_at(s, s->now_us + us, (struct sim_event){.kind = SIM_EV_CLIENT, .index = client});
}

void sim_result_check(struct sim *s, struct sim_op *op, const struct sim_result *r)
{
    struct sim_command c;
    uint64_t mod;

    op->index = r->index;
    if (op->kind == SIM_GET) {
        if (r->index < op->floor)
            sim_broken(s, "linearizability", "op %" PRIu64 " read the state at %" PRIu64 ", but %" PRIu64 " was known",
                       op->id, r->index, op->floor);
        if (sim_oracle_value(s, op->key, r->index, &mod) != r->value || mod != r->mod)
            sim_broken(s, "reads see the state", "op %" PRIu64 " at %" PRIu64, op->id, r->index);
        s->stats.reads_ok++;
    } else {
        const struct entry *e = r->index < SIM_INDEX_MAX ? s->oracle.log[r->index].entry : NULL;
        uint64_t now = sim_oracle_value(s, op->key, r->index, &mod);

        if (r->index <= op->floor)
            sim_broken(s, "linearizability", "op %" PRIu64 " took place at %" PRIu64 ", but %" PRIu64 " was known",
                       op->id, r->index, op->floor);
        if (!e || !sim_command_get(e, &c) || c.op != op->id)
            sim_broken(s, "an acknowledged write is in the log", "op %" PRIu64 " at %" PRIu64, op->id, r->index);
        if (r->done != (now == op->value && mod == r->index))
            sim_broken(s, "a write's outcome", "op %" PRIu64 " at %" PRIu64, op->id, r->index);
        s->stats.writes_ok++;
    }
    /* A read may see what is committed; from now on everybody must. */
    s->oracle.floor = MAX(s->oracle.floor, op->kind == SIM_GET ? r->mod : r->index);
}

static void target_change(struct sim *s, unsigned client)
{
    struct sim_node *leader = sim_leader(s);

    s->client_target[client] = leader && sim_chance(s, 500) ? leader->pos : (unsigned)sim_below(s, s->node_count);
}

static void answered(struct sim *s, struct sim_op *op, const struct sim_result *r)
{
    if (op->done)
        return; /* too late, or twice */
    op->done = true;
    op->told_err = r->err;
    op->told_value = r->value;
    op->told_mod = r->mod;
    sim_trace(s, "client %u: op %" PRIu64 " %s at %" PRIu64, op->client, op->id, err_name(r->err), r->index);
    if (r->err) {
        s->stats.refused++;
        target_change(s, op->client);
        op->unknown = r->err == E_AMBIGUOUS;
        if (!s->manual)
            next_in(s, op->client, 5 * SIM_MS + sim_below(s, 60 * SIM_MS));
        return;
    }
    sim_result_check(s, op, r);
    if (!s->manual)
        next_in(s, op->client, sim_below(s, sim_chance(s, 300) ? 30 * SIM_MS : 3 * SIM_MS));
}

void sim_client_event(struct sim *s, const struct sim_event *ev)
{
    if (ev->kind == SIM_EV_ANSWER) {
        answered(s, &s->ops[ev->index - 1], ev->data);
        return;
    }
    if (ev->aux > 0) {
        struct sim_op *op = &s->ops[ev->aux - 1];

        if (op->done)
            return;
        op->done = op->unknown = true;
        target_change(s, op->client);
        s->stats.writes_unknown += op->kind != SIM_GET;
    }
    if (s->now_us < s->clients_until_us)
        ask(s, (unsigned)ev->index);
}

void sim_client_start(struct sim *s)
{
    for (unsigned i = 0; i < SIM_CLIENTS; i++)
        next_in(s, i, sim_below(s, 10 * SIM_MS));
}
