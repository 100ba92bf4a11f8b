/* raft_lead - the leader: what each follower has, what may be committed, beats, check-quorum, transfer (thesis 3.5,
 * 3.6.2, 3.10, 6.2, 10.2.1). Answers of followers come from raft_step; appends and beats are made by raft_lead_flush
 * when the ready is taken, into `early`: they may leave before our own sync.
 * Always: match < next; commit moves by counting only to entries of our own term; our own copy counts when it is on
 * disk, like anybody's. */
#include "raftd/raft_int.h"
#include "raftd/mutant.h"

#include "common/err.h"

/* --- followers -------------------------------------------------------------------------------- */

struct raft_peer *raft_peer_find(struct raft *r, uint64_t id)
{
    for (size_t i = 0; i < r->peer_count; i++)
        if (r->peers[i].id == id)
            return &r->peers[i];
    return NULL;
}

void raft_peer_probe(struct raft_peer *p, uint64_t next)
{
    p->progress = RAFT_PROBE;
    p->next = next;
    p->waits = p->nudge = false;
    p->inflight_count = p->inflight_bytes = 0;
    must(p->match < p->next);
}

static void peer_replicate(struct raft_peer *p)
{
    raft_peer_probe(p, p->match + 1);
    p->progress = RAFT_REPLICATE;
}

/* Nothing more until it answers a beat. A probe keeps its place: match may be far below it. */
static void peer_wait(struct raft_peer *p)
{
    raft_peer_probe(p, p->progress == RAFT_PROBE ? p->next : p->match + 1);
    p->waits = true;
}

static void peer_init(const struct raft *r, struct raft_peer *p, uint64_t id, uint64_t next)
{
    p->id = id;
    p->match = p->commit_sent = p->read_acked = p->sent_ms = p->snap_index = 0;
    p->heard_ms = r->now_ms; /* a period of grace for check-quorum */
    p->beat = p->gone = false;
    p->inflight_head = 0;
    raft_peer_probe(p, next);
}

static bool window_is_open(const struct raft *r, const struct raft_peer *p)
{
    return p->inflight_count < RAFT_INFLIGHT_MAX && p->inflight_bytes < r->conf.inflight_bytes_max;
}

static void inflight_add(struct raft_peer *p, uint64_t index, size_t bytes)
{
    must(p->inflight_count < RAFT_INFLIGHT_MAX);
    p->inflight[(p->inflight_head + p->inflight_count++) % RAFT_INFLIGHT_MAX] = (struct raft_inflight){index, bytes};
    p->inflight_bytes += bytes;
}

static void inflight_free(struct raft_peer *p)
{
    while (p->inflight_count > 0 && p->inflight[p->inflight_head].index <= p->match) {
        p->inflight_bytes -= p->inflight[p->inflight_head].bytes;
        p->inflight_head = (p->inflight_head + 1) % RAFT_INFLIGHT_MAX;
        p->inflight_count--;
    }
}

/* Members came or went: those that stay keep their progress. A new one is asked from our end on. */
void raft_lead_members_changed(struct raft *r)
{
    if (r->role != RAFT_LEADER)
        return;
    for (size_t i = 0; i < r->peer_count;)
        if (raft_config_find(&r->config, r->peers[i].id))
            i++;
        else
            r->peers[i] = r->peers[--r->peer_count];
    for (size_t i = 0; i < r->config.count; i++) {
        uint64_t id = r->config.members[i].id;

        if (id != r->conf.id && !raft_peer_find(r, id))
            peer_init(r, &r->peers[r->peer_count++], id, r->log.last);
    }
    if (r->transferee != RAFT_NONE && !raft_peer_find(r, r->transferee))
        r->transferee = RAFT_NONE;
    r->flush = true;
}

/* --- beginning and end ------------------------------------------------------------------------- */

void raft_lead_start(struct raft *r)
{
    must(r->role == RAFT_CANDIDATE && r->vote == r->conf.id && r->vote_seq == 0);
    r->role = RAFT_LEADER;
    r->leader = r->conf.id;
    r->term_start = r->log.last + 1;
    r->peer_count = 0;
    for (size_t i = 0; i < r->config.count; i++)
        if (r->config.members[i].id != r->conf.id)
            peer_init(r, &r->peers[r->peer_count++], r->config.members[i].id, r->log.last + 1);
    r->beat_at_ms = r->now_ms + r->conf.heartbeat_ms;
    /* An entry of the new term: only by committing it are the old terms' entries committed (thesis 3.6.2). */
    raft_append_own(r, entry_new(ENTRY_NOOP, SLICE_EMPTY));
}

void raft_lead_stop(struct raft *r)
{
    if (MUTATE(READS_OUTLIVE_LEADER, true, false))
        raft_read_drop(r, E_LEADER_CHANGED);
    r->peer_count = 0;
    r->transferee = r->transfer_failed = RAFT_NONE;
}

/* Of the voters that spoke lately, the one with the longest log; one that has just failed only if there is no other. */
static struct raft_peer *best_successor(struct raft *r)
{
    struct raft_peer *best = NULL;

    for (size_t i = 0; i < r->peer_count; i++) {
        struct raft_peer *p = &r->peers[i];
        bool again = p->id == r->transfer_failed, best_again = best && best->id == r->transfer_failed;

        if (!raft_config_is_voter(&r->config, p->id) || p->gone || r->now_ms - p->heard_ms >= r->conf.election_ms)
            continue;
        if (!best || (best_again && !again) || (again == best_again && p->match > best->match))
            best = p;
    }
    return best;
}

/* Our own removal is committed (thesis 4.2.2): tell the others, and the best of them to take over at once. */
static void lead_leave(struct raft *r)
{
    struct raft_peer *next = best_successor(r);

    raft_lead_flush(r);
    if (next)
        raft_say(r, false, RAFT_MSG_TIMEOUT_NOW, next->id);
    raft_become_follower(r, r->term, RAFT_NONE);
}

/* --- commit ------------------------------------------------------------------------------------ */

static uint64_t quorum_of(const struct raft *r, const struct raft_config *c, size_t member_offset, uint64_t own)
{
    uint64_t values[RAFT_MEMBERS_MAX];
    size_t count = 0;
    size_t quorum = raft_config_quorum(c);

    for (size_t i = 0; i < r->peer_count + 1; i++) {
        bool self = i == r->peer_count;
        uint64_t id = self ? r->conf.id : r->peers[i].id;
        uint64_t value = self ? own : *(const uint64_t *)(const void *)((const char *)&r->peers[i] + member_offset);
        size_t at = count;

        if (MUTATE(LEARNER_COUNTS, !raft_config_is_voter(c, id), false))
            continue;
        for (; at > 0 && values[at - 1] < value; at--)
            values[at] = values[at - 1];
        values[at] = value;
        count++;
    }
    return quorum <= count ? values[quorum - 1] : 0;
}

uint64_t raft_lead_quorum(const struct raft *r, size_t member_offset, uint64_t own)
{
    return quorum_of(r, &r->config, member_offset, own);
}

/* Changes of membership may also be committed by a majority of the members before them, as etcd does: a second voter can be
 * added to a lone one before it runs. It is as safe: a candidate that lacks the change goes by the old membership (or one
 * before it, whose successor is committed, see raft_conf_check), so any majority it could win has met the change. What
 * follows the change is committed by the new members alone. */
static uint64_t committed_by_old(const struct raft *r)
{
    uint64_t change = r->config.index;

    if (change <= r->commit || change < r->term_start)
        return 0;
    return quorum_of(r, &r->config_prev, offsetof(struct raft_peer, match), r->log.persisted) >= change ? change : 0;
}

/* May end our leadership: the caller must not look at its peers afterwards. */
void raft_lead_commit(struct raft *r)
{
    uint64_t own = MUTATE(OWN_COPY_UNSYNCED, r->log.persisted, r->log.last);
    uint64_t index = raft_lead_quorum(r, offsetof(struct raft_peer, match), own);

    index = MAX(index, committed_by_old(r));
    if (index > r->commit && index >= MUTATE(COMMIT_OLD_TERM, r->term_start, 0))
        raft_commit_to(r, index);
    if (r->commit >= r->config.index && !raft_config_find(&r->config, r->conf.id))
        lead_leave(r);
}

void raft_lead_propose(struct raft *r, uint64_t tag, struct entry *e)
{
    uint64_t waiting = raft_log_bytes_after(&r->log, r->commit);
    int err = 0;

    if (r->transferee != RAFT_NONE || !raft_config_find(&r->config, r->conf.id))
        err = E_LEADER_CHANGED; /* what we took now would only delay the change */
    else if (waiting > 0 && waiting + raft_entry_bytes(e) > r->conf.uncommitted_bytes_max)
        err = E_REQUEST_TOO_MANY_REQUESTS;
    else if (e->kind == ENTRY_CONF)
        err = raft_conf_check(r, e);
    if (err) {
        raft_refuse(r, tag, false, err);
        entry_unref(e);
        return;
    }
    raft_append_own(r, e);
}

/* --- sending ------------------------------------------------------------------------------------ */

static bool may_append(const struct raft *r, const struct raft_peer *p)
{
    switch (p->progress) {
    case RAFT_PROBE:
        return !p->waits && (p->next <= r->log.last || p->match + 1 < p->next);
    case RAFT_REPLICATE:
        return p->nudge || (p->next <= r->log.last && window_is_open(r, p));
    case RAFT_SNAPSHOT:
        break;
    }
    return false;
}

/* Fills scratch with what is next. False: nothing can be sent now. */
static bool next_entries(struct raft *r, struct raft_peer *p, int *count, bool *from_storage)
{
    *count = 0;
    *from_storage = false;
    if (p->next > r->log.last || (p->progress == RAFT_REPLICATE && !window_is_open(r, p)))
        return true; /* an empty append asks just as well */
    *count = raft_log_slice(&r->log, p->next, r->log.last, r->conf.append_bytes_max, r->scratch, RAFT_MSG_ENTRIES_MAX,
                            from_storage);
    if (*count > 0)
        return true;
    if (*count == 0) {
        raft_snap_need(r, p);
    } else {
        peer_wait(p); /* storage failed: again when the follower has answered a beat */
    }
    return false;
}

/* One append. True: another may follow. */
static bool send_append(struct raft *r, struct raft_peer *p)
{
    struct raft_out *o = &r->out[r->out_pos];
    uint64_t prev_term;
    int count;
    bool from_storage;
    size_t bytes = 0;

    if (!raft_log_term(&r->log, p->next - 1, &prev_term)) {
        raft_snap_need(r, p);
        return false;
    }
    if (!next_entries(r, p, &count, &from_storage))
        return false;

    struct raft_msg *m = raft_say(r, false, RAFT_MSG_APPEND, p->id);

    m->index = p->next - 1;
    m->log_term = prev_term;
    m->commit = r->commit;
    m->entry_count = (size_t)count;
    for (int i = 0; i < count; i++) {
        o->sent = raft_grow(o->sent, o->sent_count, &o->sent_cap, sizeof(*o->sent));
        o->sent[o->sent_count++] = r->scratch[i];
        bytes += raft_entry_bytes(r->scratch[i]);
    }
    p->commit_sent = MAX(p->commit_sent, MIN(r->commit, m->index + m->entry_count));
    p->sent_ms = r->now_ms;
    p->nudge = false;
    if (p->progress == RAFT_PROBE) {
        p->waits = true;
        return false;
    }
    if (count > 0) {
        p->next += (uint64_t)count;
        inflight_add(p, p->next - 1, bytes);
    }
    return count > 0 && !from_storage; /* disk reads are paced by the answers */
}

/* A beat when one is due, and when the follower would otherwise not hear of a commit. */
static void send_beat(struct raft *r, struct raft_peer *p)
{
    uint64_t commit = MUTATE(BEAT_COMMIT_UNCUT, MIN(p->match, r->commit), r->commit);

    if (!p->beat && p->commit_sent >= commit)
        return;
    struct raft_msg *m = raft_say(r, false, RAFT_MSG_BEAT, p->id);

    m->commit = commit;
    m->read_id = r->read_round;
    p->commit_sent = MAX(p->commit_sent, commit);
    p->beat = false;
}

void raft_lead_flush(struct raft *r)
{
    r->flush = false;
    if (r->role != RAFT_LEADER)
        return;
    raft_read_flush(r);
    for (size_t i = 0; i < r->peer_count; i++) {
        struct raft_peer *p = &r->peers[i];

        while (may_append(r, p) && send_append(r, p))
            continue;
        send_beat(r, p);
    }
}

/* --- transfer ----------------------------------------------------------------------------------- */

static void transfer_push(struct raft *r)
{
    struct raft_peer *p = raft_peer_find(r, r->transferee);

    if (p && p->match == r->log.last)
        raft_say(r, false, RAFT_MSG_TIMEOUT_NOW, p->id);
}

static void transfer_start(struct raft *r, uint64_t member)
{
    r->transferee = member;
    r->transfer_until_ms = r->now_ms + r->conf.election_ms;
    r->flush = true;
    transfer_push(r);
}

void raft_lead_transfer(struct raft *r, uint64_t tag, uint64_t member)
{
    if (r->role != RAFT_LEADER)
        raft_refuse(r, tag, false, r->leader == RAFT_NONE ? E_NO_LEADER : E_NOT_LEADER);
    else if (member == RAFT_NONE)
        raft_lead_hand_over(r);
    else if (!raft_config_is_voter(&r->config, member))
        raft_refuse(r, tag, false, E_BAD_LEADER_TRANSFEREE);
    else if (member != r->conf.id && member != r->transferee)
        transfer_start(r, member);
}

void raft_lead_hand_over(struct raft *r)
{
    struct raft_peer *p = best_successor(r);

    if (p)
        transfer_start(r, p->id);
}

/* Who stops takes nothing new, so it must find another one. */
static void transfer_failed(struct raft *r)
{
    r->transfer_failed = r->transferee;
    r->transferee = RAFT_NONE;
    if (r->stopping)
        raft_lead_hand_over(r);
}

/* --- time ----------------------------------------------------------------------------------------- */

void raft_lead_tick(struct raft *r)
{
    uint64_t heard = raft_lead_quorum(r, offsetof(struct raft_peer, heard_ms), r->now_ms);

    if (r->conf.check_quorum && r->now_ms - heard >= r->conf.election_ms) {
        raft_become_follower(r, r->term, RAFT_NONE); /* thesis 6.2: clients should look elsewhere */
        return;
    }
    if (r->transferee != RAFT_NONE && r->now_ms >= r->transfer_until_ms)
        transfer_failed(r);
    if (r->now_ms < r->beat_at_ms)
        return;
    r->beat_at_ms = r->now_ms + r->conf.heartbeat_ms;
    for (size_t i = 0; i < r->peer_count; i++)
        r->peers[i].beat = true;
    r->flush = r->flush || r->peer_count > 0;
    if (r->transferee != RAFT_NONE)
        transfer_push(r);
}

uint64_t raft_lead_deadline(const struct raft *r)
{
    uint64_t at = r->peer_count > 0 ? r->beat_at_ms : r->now_ms + r->conf.election_ms;

    return r->transferee != RAFT_NONE ? MIN(at, r->transfer_until_ms) : at;
}

/* --- answers --------------------------------------------------------------------------------------- */

static void append_rejected(struct raft *r, struct raft_peer *p, const struct raft_msg *m)
{
    if (p->progress == RAFT_REPLICATE && m->index > p->match) {
        raft_peer_probe(p, p->match + 1); /* something was lost under way */
    } else if (p->progress == RAFT_PROBE && m->index + 1 == p->next) {
        /* Our half of the hint: the last place of ours whose term is not above the follower's there. A place before
         * our log's start stays what it is: the follower needs a snapshot. */
        uint64_t floor = m->hint + 1 < r->log.first ? m->hint : raft_log_floor(&r->log, m->hint, m->log_term);

        raft_peer_probe(p, MUTATE(HINT_IGNORED, MAX(MIN(floor + 1, m->index), p->match + 1), p->next));
    } else {
        return; /* an old answer */
    }
    r->flush = true;
}

static void append_accepted(struct raft *r, struct raft_peer *p, const struct raft_msg *m)
{
    bool grew = m->index > p->match;

    if (m->index > r->log.last)
        return;
    p->match = MAX(p->match, m->index);
    if ((p->progress == RAFT_PROBE && m->index == p->match) ||
        (p->progress == RAFT_SNAPSHOT && grew && p->match + 1 >= r->log.first))
        peer_replicate(p);
    p->next = MAX(p->next, p->match + 1);
    inflight_free(p);
    r->flush = true;
    if (!grew)
        return;
    if (p->id == r->transferee)
        transfer_push(r);
    raft_lead_commit(r);
}

void raft_lead_append_said(struct raft *r, const struct raft_msg *m)
{
    struct raft_peer *p = r->role == RAFT_LEADER ? raft_peer_find(r, m->from) : NULL;

    if (!p)
        return;
    p->heard_ms = r->now_ms;
    p->gone = false;
    if (m->reject)
        append_rejected(r, p, m);
    else
        append_accepted(r, p, m);
}

void raft_lead_beat_said(struct raft *r, const struct raft_msg *m)
{
    struct raft_peer *p = r->role == RAFT_LEADER ? raft_peer_find(r, m->from) : NULL;

    if (!p)
        return;
    p->heard_ms = r->now_ms;
    p->gone = false;
    if (m->reject)
        return; /* the answer to a beat of an older term */
    if (m->read_id > p->read_acked) {
        p->read_acked = MIN(m->read_id, r->read_round);
        raft_read_confirm(r);
    }
    /* It lives and lacks something that we sent a while ago: ask. */
    if (p->progress == RAFT_PROBE)
        p->waits = MUTATE(PROBE_STUCK, false, p->waits);
    else if (p->match < r->log.last && r->now_ms - p->sent_ms >= r->conf.heartbeat_ms)
        p->nudge = MUTATE(NUDGE_FORGOTTEN, true, false);
    r->flush = r->flush || p->match < r->log.last;
}

void raft_lead_gone(struct raft *r, uint64_t member)
{
    struct raft_peer *p = r->role == RAFT_LEADER ? raft_peer_find(r, member) : NULL;

    if (!p)
        return;
    p->gone = true;
    if (r->transferee == member)
        transfer_failed(r);
}

void raft_lead_unreachable(struct raft *r, uint64_t member)
{
    struct raft_peer *p = r->role == RAFT_LEADER ? raft_peer_find(r, member) : NULL;

    if (p && p->progress != RAFT_SNAPSHOT)
        peer_wait(p);
}
