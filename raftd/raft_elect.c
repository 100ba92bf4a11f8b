/* raft_elect - timeouts, pre-vote, vote, tally (thesis 3.4, 3.6.1, 4.2.3, 9.6).
 * Questions and answers come from raft_step; the messages go into `late`, because a vote, our own included, counts
 * only when it is on disk. Always: one vote per term; whoever grants has a log that is not newer than the asker's.
 *
 * Pre-vote and check-quorum live together by three rules: a voter that heard a leader lately ignores questions
 * (here), a refusal of a pre-vote carries the voter's own term so that the asker can catch up (raft.c: recv_older,
 * and here), and a stale leader is told of a later term by the answer to its beat (raft.c: recv_older). */
#include "raftd/raft_int.h"
#include "raftd/mutant.h"

void raft_elect_timer(struct raft *r)
{
    r->election_at_ms = r->now_ms + r->conf.election_ms + rand_below(&r->rand, r->conf.election_ms);
}

/* At the start nobody was heard yet. With pre-vote it disturbs nobody to ask early: time enough for a leader's beats. */
void raft_elect_first_timer(struct raft *r)
{
    raft_elect_timer(r);
    if (r->conf.hasten && r->conf.pre_vote)
        r->election_at_ms -= MAX(r->conf.election_ms, 3 * r->conf.heartbeat_ms) - 3 * r->conf.heartbeat_ms;
}

/* A leader knows that it is heard as long as check-quorum lets it lead. */
bool raft_elect_is_sticky(const struct raft *r)
{
    if (r->role == RAFT_LEADER)
        return r->conf.check_quorum;
    return r->leader != RAFT_NONE && r->now_ms - r->heard_ms < r->conf.election_ms;
}

static void vote_count_in(struct raft *r, uint64_t from, bool granted)
{
    for (size_t i = 0; i < r->vote_count; i++)
        if (MUTATE(VOTE_COUNTED_TWICE, r->votes[i].from == from, false))
            return;
    must(r->vote_count < RAFT_MEMBERS_MAX);
    r->votes[r->vote_count].from = from;
    r->votes[r->vote_count++].granted = granted;
}

static size_t votes_of(const struct raft *r, bool granted)
{
    size_t count = 0;

    for (size_t i = 0; i < r->vote_count; i++)
        if (r->votes[i].granted == granted && raft_config_is_voter(&r->config, r->votes[i].from))
            count++;
    return count;
}

static void ask_all(struct raft *r, enum raft_msg_type type, uint64_t term, bool transfer)
{
    for (size_t i = 0; i < r->config.count; i++) {
        const struct raft_member *member = &r->config.members[i];

        if (member->learner || member->id == r->conf.id)
            continue;
        struct raft_msg *m = raft_say(r, true, type, member->id);

        m->term = term;
        m->index = r->log.last;
        m->log_term = r->log.last_term;
        m->transfer = transfer;
    }
}

static void become_candidate(struct raft *r, bool transfer)
{
    r->role = RAFT_CANDIDATE;
    r->leader = RAFT_NONE;
    r->term++;
    r->vote = r->conf.id;
    r->vote_count = 0;
    r->vote_seq = r->hard_seq + 1; /* the next ready carries this term and vote */
    raft_elect_timer(r);
    ask_all(r, RAFT_MSG_VOTE, r->term, transfer);
}

/* A quorum lost to refusals ends the attempt early: as a follower we hear the leader who is the reason for them. */
static void tally(struct raft *r)
{
    size_t quorum = raft_config_quorum(&r->config);
    size_t voters = 0;

    for (size_t i = 0; i < r->config.count; i++)
        voters += !r->config.members[i].learner;
    if (votes_of(r, true) >= quorum) {
        /* Not before our term is on disk, even if the others suffice: after a crash we would ask for the same term
         * again, get it again from those who gave it, and lead it twice with different entries. */
        if (r->vote_seq > 0)
            return;
        if (r->role == RAFT_PRECANDIDATE)
            become_candidate(r, false);
        else
            raft_lead_start(r);
    } else if (voters - votes_of(r, false) < quorum) {
        raft_become_follower(r, r->term, RAFT_NONE);
    }
}

static void become_precandidate(struct raft *r)
{
    r->role = RAFT_PRECANDIDATE;
    r->leader = RAFT_NONE;
    r->vote_count = 0;
    r->vote_seq = 0;
    raft_elect_timer(r);
    ask_all(r, RAFT_MSG_PREVOTE, r->term + 1, false);
    vote_count_in(r, r->conf.id, true); /* nothing to persist: it promises nothing */
    tally(r);
}

/* Also who reads of its own removal, until that is committed: the others may need its log to commit it (thesis
 * 4.2.2, figure 4.6). It asks for votes then, and does not count its own. */
static bool may_campaign(const struct raft *r)
{
    return !r->stopping && raft_may_vote(r) && (raft_config_is_voter(&r->config, r->conf.id) ||
                            (r->config.index > r->commit && raft_config_is_voter(&r->config_prev, r->conf.id)));
}

/* A transfer skips pre-vote: the leader itself wants us to disturb it (thesis 3.10). */
void raft_elect_campaign(struct raft *r, bool transfer)
{
    if (!may_campaign(r))
        return;
    must(r->role != RAFT_LEADER);
    if (r->conf.pre_vote && !transfer)
        become_precandidate(r);
    else
        become_candidate(r, transfer);
}

void raft_elect_tick(struct raft *r)
{
    if (r->now_ms < r->election_at_ms)
        return;
    raft_elect_timer(r);
    r->leader = RAFT_NONE; /* also for who may not campaign: its clients want to know */
    raft_elect_campaign(r, false);
}

/* Its process has ended, so its leadership has: no need to wait for a timeout. One after the other, in the order of ids, so
 * that no two of us divide the votes: the next one's turn comes if the first cannot win, or is gone too. A moment before
 * the first, for the others to see it as well. If it was a mistake the others hear their leader and ignore us. */
void raft_elect_gone(struct raft *r, uint64_t member)
{
    uint64_t before = 0;

    if (r->role != RAFT_FOLLOWER || r->leader != member || member == RAFT_NONE)
        return;
    for (size_t i = 0; i < r->config.count; i++) {
        const struct raft_member *m = &r->config.members[i];

        before += !m->learner && m->id != member && m->id < r->conf.id;
    }
    r->leader = RAFT_NONE;
    r->election_at_ms = MIN(r->election_at_ms, r->now_ms + r->conf.heartbeat_ms / 2 + before * r->conf.election_ms / 4);
}

/* Our own vote is on disk. */
void raft_elect_persisted(struct raft *r)
{
    if (r->role != RAFT_CANDIDATE || r->vote_seq == 0 || r->hard_done < r->vote_seq)
        return;
    r->vote_seq = 0;
    vote_count_in(r, r->conf.id, true);
    tally(r);
}

/* May the asker have our vote? In a pre-vote for a later term nothing is given away, whomever we voted for. */
static bool may_grant(const struct raft *r, const struct raft_msg *m)
{
    bool free = r->vote == m->from || (r->vote == RAFT_NONE && r->leader == RAFT_NONE) ||
                (m->type == RAFT_MSG_PREVOTE && m->term > r->term);

    return MUTATE(VOTE_TWICE, free, true) &&
           MUTATE(VOTE_FOR_SHORT_LOG, !raft_log_is_newer(&r->log, m->index, m->log_term), true);
}

/* Whoever asks is answered, learners included: the asker counts by a membership that may be newer than ours, and a
 * learner that has not yet heard of its promotion may be the vote that is needed. Who is not a voter there is
 * neither asked nor counted. */
void raft_elect_asked(struct raft *r, const struct raft_msg *m)
{
    bool granted = raft_may_vote(r) && may_grant(r, m);
    bool real = m->type == RAFT_MSG_VOTE;
    struct raft_msg *said = raft_say(r, true, real ? RAFT_MSG_VOTE_SAID : RAFT_MSG_PREVOTE_SAID, m->from);

    said->reject = !granted;
    if (granted)
        said->term = m->term; /* of a pre-vote: the term asked about */
    if (granted && real) {
        must(r->role == RAFT_FOLLOWER || r->role == RAFT_PRECANDIDATE); /* the others voted for themselves */
        if (r->role == RAFT_PRECANDIDATE)
            raft_become_follower(r, r->term, RAFT_NONE); /* somebody was faster */
        r->vote = m->from;
        raft_elect_timer(r);
    }
}

void raft_elect_said(struct raft *r, const struct raft_msg *m)
{
    bool real = m->type == RAFT_MSG_VOTE_SAID;
    uint64_t asked = real || m->reject ? r->term : r->term + 1;

    if (r->role != (real ? RAFT_CANDIDATE : RAFT_PRECANDIDATE) || m->term != asked ||
        !raft_config_is_voter(&r->config, m->from))
        return;
    vote_count_in(r, m->from, !m->reject);
    tally(r);
}

void raft_elect_timeout_now(struct raft *r, const struct raft_msg *m)
{
    if (r->role == RAFT_FOLLOWER && r->leader == m->from)
        raft_elect_campaign(r, true);
}
