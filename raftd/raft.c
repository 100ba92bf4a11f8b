/* raft - raft_step, raft_ready and the changes of role; see raft.h for the contract.
 * Events come from turn.c (in.c and peer.c make them), the ready goes back there. All rules that belong to one role
 * live in the file of that role; here is what is common to all: terms (thesis 3.3), what is on disk, the product.
 * Always: raft_check, after every step. */
#include "raftd/raft_int.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"

/* --- life ------------------------------------------------------------------------------------- */

struct raft *raft_new(const struct raft_conf *conf, const struct raft_start *start, uint64_t now_ms)
{
    struct raft *r = xcalloc(1, sizeof(*r));

    must(conf->id != RAFT_NONE && conf->election_ms > 0 && conf->heartbeat_ms > 0);
    must(start->member_count <= RAFT_MEMBERS_MAX && start->prev_member_count <= RAFT_MEMBERS_MAX);
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

    r->config.index = start->conf_index;
    r->config.count = start->member_count;
    for (size_t i = 0; i < start->member_count; i++)
        r->config.members[i] = start->members[i];
    r->config_prev = r->config;
    if (start->prev_members) {
        r->config_prev.index = start->prev_conf_index;
        r->config_prev.count = start->prev_member_count;
        for (size_t i = 0; i < start->prev_member_count; i++)
            r->config_prev.members[i] = start->prev_members[i];
    }

    raft_elect_timer(r);
    if (r->config.count == 1 && raft_config_is_voter(&r->config, conf->id))
        r->election_at_ms = now_ms; /* no one could object: why wait */
    r->told_soft = (struct raft_soft){.role = r->role, .term = r->term};
    raft_check(r);
    return r;
}

static void out_reset(struct raft_out *o)
{
    for (size_t i = 0; i < o->sent_count; i++)
        entry_unref(o->sent[i]);
    for (size_t i = 0; i < o->entry_count; i++)
        entry_unref(o->entries[i]);
    o->early_count = o->late_count = o->sent_count = o->entry_count = o->read_count = o->refused_count = 0;
}

void raft_free(struct raft *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < ARRAY_LEN(r->out); i++) {
        struct raft_out *o = &r->out[i];

        out_reset(o);
        free(o->early);
        free(o->late);
        free(o->sent);
        free(o->entries);
        free(o->reads);
        free(o->refused);
    }
    raft_log_fini(&r->log);
    free(r->waits);
    free(r);
}

/* --- helpers of all roles --------------------------------------------------------------------- */

void *raft_grow(void *items, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return items;
    *cap = *cap > 0 ? *cap * 2 : 16;
    return xrealloc(items, *cap * size);
}

struct raft_msg *raft_say(struct raft *r, bool late, enum raft_msg_type type, uint64_t to)
{
    struct raft_out *o = &r->out[r->out_pos];
    struct raft_msg *m;

    if (late) {
        o->late = raft_grow(o->late, o->late_count, &o->late_cap, sizeof(*o->late));
        m = &o->late[o->late_count++];
    } else {
        o->early = raft_grow(o->early, o->early_count, &o->early_cap, sizeof(*o->early));
        m = &o->early[o->early_count++];
    }
    *m = (struct raft_msg){.type = type, .from = r->conf.id, .to = to, .term = r->term};
    return m;
}

void raft_refuse(struct raft *r, uint64_t tag, bool is_read, int err)
{
    struct raft_out *o = &r->out[r->out_pos];

    o->refused = raft_grow(o->refused, o->refused_count, &o->refused_cap, sizeof(*o->refused));
    o->refused[o->refused_count++] = (struct raft_refused){.tag = tag, .is_read = is_read, .err = err};
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
    return MIN(r->commit, r->log.persisted);
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
    if (m->term < r->term) {
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
    case RAFT_EV_UNREACHABLE:
        raft_lead_unreachable(r, ev->member);
        break;
    case RAFT_EV_STOP:
        step_stop(r);
        break;
    }
    raft_check(r);
    r->stepping = false;
}

/* --- ready ------------------------------------------------------------------------------------ */

static struct raft_soft soft_now(const struct raft *r)
{
    return (struct raft_soft){.role = r->role, .leader = r->leader, .term = r->term, .conf_seq = r->conf_seq,
                              .settled = raft_is_settled(r)};
}

static bool soft_is_news(const struct raft *r)
{
    struct raft_soft now = soft_now(r), told = r->told_soft;

    return now.role != told.role || now.leader != told.leader || now.term != told.term ||
           now.conf_seq != told.conf_seq || now.settled != told.settled;
}

static bool hard_is_news(const struct raft *r)
{
    return r->hard_force || r->term != r->told_term || r->vote != r->told_vote || r->log.truncate_from > 0;
}

static uint64_t deadline(const struct raft *r)
{
    return r->role == RAFT_LEADER ? raft_lead_deadline(r) : r->election_at_ms;
}

bool raft_has_ready(const struct raft *r)
{
    const struct raft_out *o = &r->out[r->out_pos];

    return r->flush || o->early_count > 0 || o->late_count > 0 || o->refused_count > 0 ||
           r->log.offered < r->log.last || hard_is_news(r) || raft_handable(r) != r->told_commit ||
           raft_read_has_ready(r) || r->drop_below != r->told_drop || soft_is_news(r) ||
           /* The deadline that the caller knows has passed and is no longer ours: else it would tick in a circle. */
           (r->now_ms >= r->told_deadline_ms && deadline(r) != r->told_deadline_ms);
}

static void ready_hard(struct raft *r, struct raft_ready *ready)
{
    /* A truncation counts as a change of hard state, so that reports can be told to be older or younger than it. */
    ready->hard_changed = hard_is_news(r);
    ready->truncate_from = r->log.truncate_from;
    r->log.truncate_from = 0;
    if (ready->hard_changed) {
        r->hard_seq++;
        r->hard_force = false;
        r->told_term = r->term;
        r->told_vote = r->vote;
    }
    if (ready->truncate_from > 0)
        r->truncate_seq = r->hard_seq;
    ready->term = r->term;
    ready->vote = r->vote;
    ready->hard_seq = r->hard_seq;
}

static void ready_entries(struct raft *r, struct raft_out *o)
{
    while (r->log.offered < r->log.last) {
        bool from_storage;

        o->entries = raft_grow(o->entries, o->entry_count, &o->entry_cap, sizeof(*o->entries));
        int count = raft_log_slice(&r->log, r->log.offered + 1, r->log.last, SIZE_MAX, o->entries + o->entry_count,
                                   o->entry_cap - o->entry_count, &from_storage);

        must(count > 0 && !from_storage); /* what was never handed out cannot have left memory */
        o->entry_count += (size_t)count;
        r->log.offered += (uint64_t)count;
    }
}

/* Messages of `early` took their entries from `sent` in the same order; it has stopped moving now. */
static void ready_messages(struct raft_out *o)
{
    struct entry **next = o->sent;

    for (size_t i = 0; i < o->early_count; i++) {
        o->early[i].entries = o->early[i].entry_count > 0 ? next : NULL;
        next += o->early[i].entry_count;
    }
    must(next == o->sent + o->sent_count);
}

void raft_ready(struct raft *r, struct raft_ready *ready)
{
    struct raft_out *o = &r->out[r->out_pos];

    must(!r->stepping);
    out_reset(&r->out[1 - r->out_pos]); /* the caller is done with it */
    if (r->flush)
        raft_lead_flush(r);
    raft_read_release(r);

    *ready = (struct raft_ready){0};
    ready_hard(r, ready);
    ready_entries(r, o);
    ready_messages(o);
    ready->entries = o->entries;
    ready->entry_count = o->entry_count;
    ready->early = o->early;
    ready->early_count = o->early_count;
    ready->late = o->late;
    ready->late_count = o->late_count;
    ready->commit = r->told_commit = raft_handable(r);
    ready->reads = o->reads;
    ready->read_count = o->read_count;
    ready->refused = o->refused;
    ready->refused_count = o->refused_count;
    ready->soft_changed = soft_is_news(r);
    r->told_soft = soft_now(r);
    ready->deadline_ms = r->told_deadline_ms = deadline(r);
    ready->drop_below = r->drop_below != r->told_drop ? r->drop_below : 0;
    r->told_drop = r->drop_below;
    r->out_pos = 1 - r->out_pos;
}

int raft_committed(struct raft *r, uint64_t after, size_t bytes_max, struct entry **out, size_t out_max)
{
    bool from_storage;
    uint64_t to = raft_handable(r);

    r->handed = MIN(after, r->commit);
    if (after >= to)
        return 0;
    return raft_log_slice(&r->log, after + 1, to, bytes_max, out, out_max, &from_storage);
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
