/* raft - life, raft_step and the changes of role; see raft.h for the contract.
 * Events come from turn.c (in.c and peer.c make them); what they lead to is collected in raft_ready.c. All rules that
 * belong to one role live in the file of that role; here is what is common to all: terms (thesis 3.3) and what is on
 * disk.
 * Always: raft_check, after every step. */
#include "raftd/raft_int.h"
#include "raftd/mutant.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"

/* --- life ------------------------------------------------------------------------------------- */

static void start_config(struct raft_config *c, uint64_t index, const struct raft_member *members, size_t count)
{
    must(count <= RAFT_MEMBERS_MAX);
    c->index = index;
    c->count = count;
    for (size_t i = 0; i < count; i++)
        c->members[i] = members[i];
}

static void start_members(struct raft *r, const struct raft_start *start)
{
    start_config(&r->config, start->conf_index, start->members, start->member_count);
    r->config_prev = r->config;
    if (start->prev_members)
        start_config(&r->config_prev, start->prev_conf_index, start->prev_members, start->prev_member_count);
}

struct raft *raft_new(const struct raft_conf *conf, const struct raft_start *start, uint64_t now_ms)
{
    struct raft *r = xcalloc(1, sizeof(*r));

    must(conf->id != RAFT_NONE && conf->election_ms > 0 && conf->heartbeat_ms > 0);
    must(start->commit + 1 >= start->first_index && start->commit <= start->last_index);
    r->conf = *conf;
    if (r->conf.keep_entries == 0)
        r->conf.keep_entries = RAFT_KEEP_ENTRIES;
    rand_seed(&r->rand, conf->seed);
    r->now_ms = now_ms;
    r->term = r->told_term = start->term;
    r->vote = r->told_vote = start->vote;
    if (start->last_term > start->term) {
        /* A crash between entries and hard state. No vote of ours left in that term, and it has its leader. */
        r->term = start->last_term;
        r->vote = RAFT_NONE;
    }
    raft_log_init(&r->log, &r->conf, start);
    r->commit = r->told_commit = start->commit;
    r->applied = r->handed = r->durable = start->first_index - 1;
    r->drop_below = r->told_drop = start->first_index;
    r->vote_from = start->vote_from;

    start_members(r, start);
    raft_elect_first_timer(r);
    if (raft_config_quorum(&r->config) == 1 && raft_config_is_voter(&r->config, conf->id))
        r->election_at_ms = now_ms; /* no one could object: why wait */
    r->told_soft = (struct raft_soft){.role = r->role, .term = r->term};
    raft_check(r);
    return r;
}

void raft_free(struct raft *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < ARRAY_LEN(r->out); i++)
        raft_out_fini(&r->out[i]);
    raft_log_fini(&r->log);
    free(r->waits);
    free(r);
}

void raft_append_own(struct raft *r, struct entry *e)
{
    must(r->role == RAFT_LEADER && e->index == 0);
    e->index = r->log.last + 1;
    e->term = r->term;
    raft_log_append(&r->log, e);
    r->flush = true;
    if (e->kind == ENTRY_CONF)
        raft_conf_joined(r, e);
}

/* --- changes of role -------------------------------------------------------------------------- */

/* Any role -> follower, of the same or a later term. A leader's or candidate's unfinished business ends here. */
void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader)
{
    must(term >= r->term);
    if (r->role == RAFT_LEADER)
        raft_lead_stop(r);
    if (term > r->term) {
        r->term = term;
        r->vote = RAFT_NONE;
    }
    if (r->role != RAFT_FOLLOWER || r->leader != leader)
        raft_elect_timer(r);
    r->role = RAFT_FOLLOWER;
    r->leader = leader;
    r->vote_seq = 0;
}

void raft_commit_to(struct raft *r, uint64_t index)
{
    index = MIN(index, r->log.last);
    if (index <= r->commit)
        return;
    r->commit = index;
    r->flush = true;
}

/* What is committed but not yet on our own disk must not reach stored: after a crash stored would be ahead of the
 * log, and the log's next entries would not be the ones it has applied. */
uint64_t raft_handable(const struct raft *r)
{
    return MUTATE(APPLY_UNSYNCED, MIN(r->commit, r->log.persisted), r->commit);
}

/* --- events ----------------------------------------------------------------------------------- */

/* A report older than the last truncation may speak of an entry that has been cut and joined the log again, with the
 * same index and term, but is not on disk again yet. So it must carry the truncation's own hard_seq. */
static void step_persisted(struct raft *r, const struct raft_event *ev)
{
    uint64_t term;

    must(ev->hard_seq <= r->hard_seq);
    r->hard_done = MAX(r->hard_done, ev->hard_seq);
    if (ev->index > r->log.persisted && ev->index <= r->log.offered && ev->hard_seq >= r->truncate_seq &&
        raft_log_term(&r->log, ev->index, &term) && term == ev->entry_term) {
        r->log.persisted = ev->index;
        raft_log_evict(&r->log);
    }
    raft_elect_persisted(r);
    if (r->role == RAFT_LEADER)
        raft_lead_commit(r); /* only now our own copy counts (thesis 10.2.1) */
}

/* A message of a term that has passed. Requests are answered with our term: a stale leader steps down by it, and a
 * member that pre-vote or check-quorum left behind learns where the others are, instead of asking forever. */
static void recv_older(struct raft *r, const struct raft_msg *m)
{
    enum raft_msg_type answer;

    switch (m->type) {
    case RAFT_MSG_PREVOTE:
        answer = RAFT_MSG_PREVOTE_SAID;
        break;
    case RAFT_MSG_VOTE:
        answer = RAFT_MSG_VOTE_SAID;
        break;
    case RAFT_MSG_APPEND:
    case RAFT_MSG_BEAT:
    case RAFT_MSG_SNAP:
        answer = RAFT_MSG_BEAT_SAID; /* says nothing about the log, and confirms no read (read_id 0) */
        break;
    default:
        return; /* an answer that comes too late */
    }
    raft_say(r, true, answer, m->from)->reject = true;
}

/* A message of a later term. False: it is to be ignored. */
static bool recv_newer(struct raft *r, const struct raft_msg *m)
{
    switch (m->type) {
    case RAFT_MSG_PREVOTE:
        return m->transfer || !raft_elect_is_sticky(r); /* its term is only a question */
    case RAFT_MSG_PREVOTE_SAID:
        if (m->reject)
            raft_become_follower(r, m->term, RAFT_NONE);
        return true; /* a grant carries the term that we asked about */
    case RAFT_MSG_VOTE:
        if (!m->transfer && raft_elect_is_sticky(r))
            return false; /* thesis 4.2.3: not even the term is taken */
        raft_become_follower(r, m->term, RAFT_NONE);
        return true;
    case RAFT_MSG_APPEND:
    case RAFT_MSG_BEAT:
    case RAFT_MSG_SNAP:
    case RAFT_MSG_TIMEOUT_NOW:
        raft_become_follower(r, m->term, m->from);
        return true;
    default:
        raft_become_follower(r, m->term, RAFT_NONE);
        return true;
    }
}

/* The sender leads our term. */
static bool recv_from_leader(struct raft *r, const struct raft_msg *m)
{
    if (r->role == RAFT_LEADER)
        return false; /* two leaders of one term: not of our cluster, or an id given twice */
    if (r->role != RAFT_FOLLOWER || r->leader != m->from)
        raft_become_follower(r, r->term, m->from);
    r->heard_ms = r->now_ms;
    raft_elect_timer(r);
    return true;
}

static void step_recv(struct raft *r, const struct raft_msg *m)
{
    if (m->from == RAFT_NONE || m->from == r->conf.id || m->to != r->conf.id || !raft_append_is_sane(m))
        return;
    if (m->term < r->term && MUTATE(OLD_ANSWER_COUNTS, true, m->type != RAFT_MSG_APPEND_SAID)) {
        recv_older(r, m);
        return;
    }
    if (m->term > r->term && !recv_newer(r, m))
        return;

    switch (m->type) {
    case RAFT_MSG_PREVOTE:
    case RAFT_MSG_VOTE:
        raft_elect_asked(r, m);
        break;
    case RAFT_MSG_PREVOTE_SAID:
    case RAFT_MSG_VOTE_SAID:
        raft_elect_said(r, m);
        break;
    case RAFT_MSG_APPEND:
        if (recv_from_leader(r, m))
            raft_append_recv(r, m);
        break;
    case RAFT_MSG_BEAT:
        if (recv_from_leader(r, m))
            raft_append_beat(r, m);
        break;
    case RAFT_MSG_SNAP:
        recv_from_leader(r, m); /* turn.c takes the bytes; a raft_new on top of them follows */
        break;
    case RAFT_MSG_APPEND_SAID:
        raft_lead_append_said(r, m);
        break;
    case RAFT_MSG_BEAT_SAID:
    case RAFT_MSG_SNAP_SAID:
        raft_lead_beat_said(r, m);
        break;
    case RAFT_MSG_TIMEOUT_NOW:
        raft_elect_timeout_now(r, m);
        break;
    }
}

static void step_stop(struct raft *r)
{
    r->stopping = true;
    if (r->role == RAFT_LEADER)
        raft_lead_hand_over(r);
}

static void step_propose(struct raft *r, const struct raft_event *ev)
{
    must(ev->entry && ev->entry->index == 0);
    if (r->role == RAFT_LEADER && !r->stopping) {
        raft_lead_propose(r, ev->tag, ev->entry);
        return;
    }
    raft_refuse(r, ev->tag, false, r->stopping ? E_STOPPED : r->leader == RAFT_NONE ? E_NO_LEADER : E_NOT_LEADER);
    entry_unref(ev->entry);
}

static void step_read(struct raft *r, const struct raft_event *ev)
{
    if (r->role == RAFT_LEADER && !r->stopping)
        raft_read_ask(r, ev->tag);
    else
        raft_refuse(r, ev->tag, true, r->stopping ? E_STOPPED : r->leader == RAFT_NONE ? E_NO_LEADER : E_NOT_LEADER);
}

void raft_step(struct raft *r, const struct raft_event *ev)
{
    must(!r->stepping);
    r->stepping = true;
    r->now_ms = MAX(r->now_ms, ev->now_ms);

    switch (ev->type) {
    case RAFT_EV_TICK:
        if (r->role == RAFT_LEADER)
            raft_lead_tick(r);
        else
            raft_elect_tick(r);
        break;
    case RAFT_EV_PROPOSE:
        step_propose(r, ev);
        break;
    case RAFT_EV_READ:
        step_read(r, ev);
        break;
    case RAFT_EV_RECV:
        step_recv(r, ev->msg);
        break;
    case RAFT_EV_PERSISTED:
        step_persisted(r, ev);
        break;
    case RAFT_EV_APPLIED:
        raft_snap_applied(r, ev->index, ev->durable);
        break;
    case RAFT_EV_TRANSFER:
        raft_lead_transfer(r, ev->tag, ev->member);
        break;
    case RAFT_EV_SNAP_SENT:
        raft_snap_sent(r, ev->member, ev->index, ev->ok);
        break;
    case RAFT_EV_SNAP_LOADED:
        raft_snap_loaded(r, ev);
        break;
    case RAFT_EV_FORGOT:
        raft_snap_forgot(r, ev->member);
        break;
    case RAFT_EV_VOTE_FROM:
        r->vote_from = ev->index;
        break;
    case RAFT_EV_UNREACHABLE:
        raft_lead_unreachable(r, ev->member);
        break;
    case RAFT_EV_GONE:
        raft_lead_gone(r, ev->member);
        raft_elect_gone(r, ev->member);
        break;
    case RAFT_EV_STOP:
        step_stop(r);
        break;
    }
    raft_check(r);
    r->stepping = false;
}

/* --- questions -------------------------------------------------------------------------------- */

enum raft_role raft_role(const struct raft *r)
{
    return r->role;
}

uint64_t raft_term(const struct raft *r)
{
    return r->term;
}

uint64_t raft_leader(const struct raft *r)
{
    return r->leader;
}

uint64_t raft_commit(const struct raft *r)
{
    return r->commit;
}

uint64_t raft_last_index(const struct raft *r)
{
    return r->log.last;
}

uint64_t raft_applied(const struct raft *r)
{
    return r->applied;
}

size_t raft_members(const struct raft *r, struct raft_member *out)
{
    memcpy(out, r->config.members, r->config.count * sizeof(*out));
    return r->config.count;
}

bool raft_is_settled(const struct raft *r)
{
    return r->role == RAFT_LEADER && r->commit >= r->term_start;
}

/* Committed and on our own disk, it cannot be lost again. */
bool raft_may_vote(const struct raft *r)
{
    return raft_handable(r) >= r->vote_from;
}

void raft_check(const struct raft *r)
{
    const struct raft_log *log = &r->log;

    must(log->first - 1 <= r->applied && r->applied <= r->commit && r->commit <= log->last);
    must(r->handed <= r->commit);
    must(log->mem_first >= log->first && log->mem_first <= log->persisted + 1);
    must(log->persisted <= log->offered && log->offered <= log->last);
    must(log->last_term <= r->term);
    must(r->term >= r->told_term);
    must(r->term != r->told_term || r->told_vote == RAFT_NONE || r->vote == r->told_vote);
    must(r->wait_count == 0 || r->role == RAFT_LEADER);
    if (r->role == RAFT_LEADER) {
        must(r->leader == r->conf.id && r->vote == r->conf.id);
        must(r->term_start <= log->last && log->last_term == r->term);
    } else {
        must(r->leader != r->conf.id && r->peer_count == 0 && r->transferee == RAFT_NONE);
    }
}
