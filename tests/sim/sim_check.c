/* sim_check - Raft's promises, looked at after every event: one leader per term, one vote per term, leader
 * completeness, log matching, state machine agreement, what was synced is found again; and liveness when the faults are
 * over. The oracle is the one history that all members must show: entries by index, the state after each, versions of
 * each key. */
#include "common/err.h"
#include "common/mem.h"
#include "tests/sim/sim.h"

/* --- the oracle ----------------------------------------------------------------------------------------- */

/* The state after an entry that all have agreed on. */
void sim_oracle_state(const struct sim *s, uint64_t index, struct sim_state *st)
{
    *st = (struct sim_state){.applied = index, .hash = s->oracle.log[index].hash};
    for (size_t k = 0; k < SIM_KEYS; k++)
        st->value[k] = sim_oracle_value(s, k, index, &st->mod[k]);
    for (uint64_t i = 1; i <= index; i++) {
        const struct entry *e = s->oracle.log[i].entry;
        struct raft_conf_change change;

        if (e->kind != ENTRY_CONF || raft_conf_decode(entry_data(e), &change) != 0 || change.op == RAFT_CONF_UPDATE)
            continue;
        st->member_count = raft_conf_apply(st->members, st->member_count, &change);
        st->conf_index = i;
    }
}

static void oracle_advance(struct sim *s)
{
    struct sim_oracle *o = &s->oracle;

    while (o->applied < o->last && o->log[o->applied + 1].entry) {
        struct entry *e = o->log[o->applied + 1].entry;
        struct sim_state st = o->state;
        struct sim_command c;
        bool done;

        sim_state_apply(&st, e, &done);
        o->log[++o->applied].hash = st.hash;
        o->state = st;
        struct raft_conf_change change;
        if (e->kind == ENTRY_CONF && raft_conf_decode(entry_data(e), &change) == 0 && change.op == RAFT_CONF_REMOVE &&
            sim_node_of(s, change.id))
            sim_node_of(s, change.id)->gone = true;
        if (!sim_command_get(e, &c))
            continue;
        struct sim_op *op = &s->ops[c.op - 1];
        if (op->done && !op->unknown && op->index == 0)
            sim_broken(s, "what was refused is not in the log", "op %" PRIu64 " at %" PRIu64, op->id, e->index);
        if (op->index > 0 && op->index != e->index)
            sim_broken(s, "a command is in the log once", "op %" PRIu64 " at %" PRIu64, op->id, e->index);
        if (!done)
            continue;
        if (o->version_count[c.key] == o->version_cap[c.key]) {
            o->version_cap[c.key] = MAX(o->version_cap[c.key] * 2, 64);
            o->versions[c.key] = xrealloc(o->versions[c.key], o->version_cap[c.key] * sizeof(struct sim_version));
        }
        o->versions[c.key][o->version_count[c.key]++] = (struct sim_version){e->index, c.value};
    }
}

void sim_oracle_commit(struct sim *s, struct entry *e, uint64_t term)
{
    struct sim_oracle *o = &s->oracle;

    if (e->index >= SIM_INDEX_MAX)
        sim_broken(s, "enough room", "entry %" PRIu64, e->index);
    if (!o->log[e->index].entry) {
        o->log[e->index].term = term;
        o->log[e->index].entry = entry_new((enum entry_kind)e->kind, entry_data(e));
        o->log[e->index].entry->index = e->index;
        o->log[e->index].entry->term = e->term;
        o->last = MAX(o->last, e->index);
        s->stats.commits++;
        oracle_advance(s);
    }
}

size_t sim_oracle_versions(const struct sim *s, uint64_t key, uint64_t index)
{
    const struct sim_version *v = s->oracle.versions[key];
    size_t low = 0, high = s->oracle.version_count[key];

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (v[middle].index <= index)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The value of a key in the state at index; 0: none yet. */
uint64_t sim_oracle_value(const struct sim *s, uint64_t key, uint64_t index, uint64_t *mod)
{
    const struct sim_version *v = s->oracle.versions[key];
    size_t count = sim_oracle_versions(s, key, index);

    if (mod)
        *mod = count > 0 ? v[count - 1].index : 0;
    return count > 0 ? v[count - 1].value : 0;
}

void sim_oracle_fini(struct sim_oracle *o)
{
    for (size_t i = 0; i < SIM_INDEX_MAX; i++)
        entry_unref(o->log[i].entry);
    for (size_t k = 0; k < SIM_KEYS; k++)
        free(o->versions[k]);
}

/* --- safety ------------------------------------------------------------------------------------------------- */

static bool entry_same(const struct entry *a, const struct entry *b)
{
    return a->index == b->index && a->term == b->term && a->kind == b->kind && a->len == b->len &&
           memcmp(a->data, b->data, a->len) == 0;
}

static void check_committed(struct sim *s, struct sim_node *n)
{
    uint64_t commit = raft_commit(n->raft);
    struct raft_log *log = &n->raft->log;

    n->seen_commit = MAX(n->seen_commit, log->first - 1);
    while (n->seen_commit < commit) {
        uint64_t index = ++n->seen_commit;
        struct entry *e;
        bool from_storage;

        if (raft_log_slice(log, index, index, SIZE_MAX, &e, 1, &from_storage) != 1)
            sim_broken(s, "a committed entry can be read", "member %" PRIu64 ", entry %" PRIu64, n->id, index);
        sim_oracle_commit(s, e, raft_term(n->raft));
        if (!entry_same(s->oracle.log[index].entry, e))
            sim_broken(s, "state machine safety", "member %" PRIu64 " has committed another entry %" PRIu64, n->id,
                       index);
        entry_unref(e);
    }
}

static void check_leader(struct sim *s, struct sim_node *n)
{
    uint64_t term = raft_term(n->raft), found;
    struct sim_oracle *o = &s->oracle;

    if (raft_role(n->raft) != RAFT_LEADER) {
        n->was_leader = false;
        return;
    }
    sim_must(s, term < SIM_TERM_MAX);
    if (o->leader_of[term] != 0 && o->leader_of[term] != n->id)
        sim_broken(s, "one leader per term", "term %" PRIu64 ": %" PRIu64 " and %" PRIu64, term, o->leader_of[term],
                   n->id);
    o->leader_of[term] = n->id;
    if (n->was_leader)
        return;
    n->was_leader = true;
    s->stats.elections++;
    sim_trace(s, "%" PRIu64 ": leads term %" PRIu64, n->id, term);
    sim_fault_leader(s, n);
    for (uint64_t i = n->raft->log.first; i <= o->last; i++)
        if (o->log[i].entry && (!raft_log_term(&n->raft->log, i, &found) || found != o->log[i].entry->term) &&
            o->log[i].term < term)
            sim_broken(s, "leader completeness", "leader %" PRIu64 " of term %" PRIu64 " lacks entry %" PRIu64, n->id,
                       term, i);
}

/* The membership that counts is the latest in the log, committed or not (thesis 4.1). */
static void check_config(struct sim *s, struct sim_node *n)
{
    const struct raft_log *log = &n->raft->log;
    const struct raft_config *c = &n->raft->config;
    struct sim_state st;

    if (log->offered != log->last || log->truncate_from > 0)
        return; /* the log on disk does not know it yet */
    sim_oracle_state(s, log->first - 1, &st);
    for (uint64_t i = wal_find_kind(n->wal, log->first, ENTRY_CONF); i > 0;
         i = wal_find_kind(n->wal, i + 1, ENTRY_CONF)) {
        struct raft_conf_change change;
        struct entry *e;
        bool from_storage;

        sim_must(s, raft_log_slice(log, i, i, SIZE_MAX, &e, 1, &from_storage) == 1);
        if (raft_conf_decode(entry_data(e), &change) == 0)
            st.member_count = raft_conf_apply(st.members, st.member_count, &change);
        entry_unref(e);
    }
    for (size_t i = 0; i < st.member_count; i++) {
        const struct raft_member *m = raft_config_find(c, st.members[i].id);

        if (c->count != st.member_count || !m || m->learner != st.members[i].learner)
            sim_broken(s, "the membership is the log's latest", "member %" PRIu64 ": %zu members, log %zu", n->id,
                       c->count, st.member_count);
    }
}

/* If two logs agree at an index, they agree before it. */
void sim_check_matching(struct sim *s)
{
    for (size_t i = 0; i < s->node_count; i++)
        if (s->nodes[i]->up)
            check_config(s, s->nodes[i]);
    for (size_t a = 0; a < s->node_count; a++)
        for (size_t b = a + 1; b < s->node_count; b++) {
            struct sim_node *x = s->nodes[a], *y = s->nodes[b];
            bool agree = false;

            if (!x->up || !y->up)
                continue;
            uint64_t low = MAX(x->raft->log.first, y->raft->log.first);

            for (uint64_t i = MIN(x->raft->log.last, y->raft->log.last); i >= low; i--) {
                uint64_t tx, ty;

                sim_must(s, raft_log_term(&x->raft->log, i, &tx) && raft_log_term(&y->raft->log, i, &ty));
                if (tx != ty && agree)
                    sim_broken(s, "log matching", "%" PRIu64 " and %" PRIu64 " at %" PRIu64, x->id, y->id, i);
                agree = tx == ty;
            }
        }
}

void sim_check_vote(struct sim *s, const struct raft_msg *m)
{
    struct sim_node *n = sim_node_of(s, m->from);

    if (m->type != RAFT_MSG_VOTE_SAID || m->reject || !n)
        return;
    sim_must(s, m->term < SIM_TERM_MAX);
    if (s->oracle.vote_by[m->term][n->pos] == n->id && s->oracle.vote_of[m->term][n->pos] != m->to)
        sim_broken(s, "one vote per term", "member %" PRIu64 " term %" PRIu64 ": %" PRIu64 " and %" PRIu64, n->id,
                   m->term, s->oracle.vote_of[m->term][n->pos], m->to);
    s->oracle.vote_by[m->term][n->pos] = n->id;
    s->oracle.vote_of[m->term][n->pos] = m->to;
}

void sim_check_applied(struct sim *s, struct sim_node *n, const struct entry *e)
{
    if (!s->oracle.log[e->index].entry || !entry_same(s->oracle.log[e->index].entry, e))
        sim_broken(s, "only what is committed is applied", "member %" PRIu64 " at %" PRIu64, n->id, e->index);
}

void sim_check(struct sim *s, struct sim_node *n)
{
    check_committed(s, n);
    check_leader(s, n);
    if (s->steps % 256 == 0)
        sim_check_matching(s);
}

/* What was reported as synced must be there after any crash. */
void sim_check_found(struct sim *s, struct sim_node *n, const struct wal_found *found, struct wal *w)
{
    uint64_t term = 0;

    if (found->term < n->safe.hard_term ||
        (found->term == n->safe.hard_term && n->safe.vote != 0 && found->vote != n->safe.vote))
        sim_broken(s, "term and vote outlive a crash", "member %" PRIu64 ": found %" PRIu64 "/%" PRIu64, n->id,
                   found->term, found->vote);
    if (found->last_index < n->safe.index ||
        (n->safe.index + 1 >= found->first_index && (!wal_term(w, n->safe.index, &term) || term != n->safe.term)))
        sim_broken(s, "synced entries outlive a crash",
                   "member %" PRIu64 ": entry %" PRIu64 " term %" PRIu64 ", found %" PRIu64 "..%" PRIu64
                   " term %" PRIu64,
                   n->id, n->safe.index, n->safe.term, found->first_index, found->last_index, term);
}

/* --- liveness --------------------------------------------------------------------------------------------------- */

struct sim_node *sim_leader(struct sim *s)
{
    struct sim_node *best = NULL;

    for (size_t i = 0; i < s->node_count; i++) {
        struct sim_node *n = s->nodes[i];

        if (n->up && raft_is_settled(n->raft) && (!best || raft_term(n->raft) > raft_term(best->raft)))
            best = n;
    }
    return best;
}

/* Faults are over: a leader settles within a few elections, serves, and its members come to have all that it has. */
void sim_check_live(struct sim *s)
{
    sim_fault_heal(s);
    sim_run(s, 4 * SIM_ELECTION_MS * SIM_MS); /* what is still under way */
    uint64_t elections = s->stats.elections, writes = s->stats.writes_ok, reads = s->stats.reads_ok;

    sim_run(s, 20 * SIM_ELECTION_MS * SIM_MS);
    struct sim_node *leader = sim_leader(s);

    if (!leader)
        sim_broken(s, "liveness", "no leader");
    if (s->stats.elections - elections > 5)
        sim_broken(s, "liveness", "%" PRIu64 " elections", s->stats.elections - elections);
    if (s->stats.writes_ok == writes || s->stats.reads_ok == reads)
        sim_broken(s, "liveness", "nothing is written or read");
    s->clients_until_us = 0;
    sim_run(s, 5 * SIM_ELECTION_MS * SIM_MS);
    leader = sim_leader(s);
    if (!leader)
        sim_broken(s, "liveness", "no leader at the end");
    for (size_t i = 0; i < leader->raft->config.count; i++) {
        struct sim_node *n = sim_node_of(s, leader->raft->config.members[i].id);

        if (!n || n->damaged)
            continue;
        if (!n->up || raft_leader(n->raft) != leader->id || raft_commit(n->raft) != raft_commit(leader->raft) ||
            n->store.state.applied != raft_commit(leader->raft))
            sim_broken(s, "liveness", "member %" PRIu64 " does not catch up: up %d, commit %" PRIu64 " of %" PRIu64,
                       n->id, n->up, n->up ? raft_commit(n->raft) : 0, raft_commit(leader->raft));
        if (n->store.state.hash != leader->store.state.hash)
            sim_broken(s, "state machine agreement", "member %" PRIu64 " at the end", n->id);
    }
    if (leader->store.state.applied < s->oracle.floor)
        sim_broken(s, "no acknowledged write is lost", "%" PRIu64 " was known", s->oracle.floor);
    sim_check_matching(s);
}
