/* raft_append - a follower's side: the consistency check, the append, the conflict hint, the commit index of a
 * beat (thesis 3.5). Messages come from raft_step, checked for term and sender; answers go into `late`, because
 * "I have it" must mean on disk. Always: nothing committed is ever cut. */
#include "raftd/raft_int.h"
#include "raftd/mutant.h"

/* What no honest member sends. The numbers of a message are taken on trust nowhere else. */
bool raft_append_is_sane(const struct raft_msg *m)
{
    uint64_t term = m->log_term;

    if (m->type != RAFT_MSG_APPEND)
        return m->entry_count == 0;
    if (m->entry_count > RAFT_MSG_ENTRIES_MAX || (m->entry_count > 0 && !m->entries))
        return false;
    for (size_t i = 0; i < m->entry_count; i++) {
        const struct entry *e = m->entries[i];

        if (e->index != m->index + 1 + i || e->term < term || e->term > m->term)
            return false;
        term = e->term;
    }
    return true;
}

static void say_match(struct raft *r, uint64_t to, uint64_t index)
{
    raft_say(r, true, RAFT_MSG_APPEND_SAID, to)->index = index;
}

/* The hint: the last place of ours whose term is not above the term that the leader has at its. All between is of
 * terms that the leader cannot have there, so it need not ask entry by entry (thesis 3.5, end). */
static void say_conflict(struct raft *r, const struct raft_msg *m)
{
    struct raft_msg *said = raft_say(r, true, RAFT_MSG_APPEND_SAID, m->from);

    said->reject = true;
    said->index = m->index;
    said->hint = raft_log_floor(&r->log, MIN(m->index, r->log.last), m->log_term);
    if (!raft_log_term(&r->log, said->hint, &said->log_term))
        said->log_term = 0;
}

/* Skips what we have; the first entry that differs takes all of ours behind it away. */
static void append_entries(struct raft *r, const struct raft_msg *m)
{
    size_t i = 0;
    uint64_t term;

    while (i < m->entry_count && raft_log_term(&r->log, m->entries[i]->index, &term) &&
           MUTATE(CONFLICT_NOT_SEEN, term == m->entries[i]->term, true))
        i++;
    if (i < m->entry_count && m->entries[i]->index <= r->log.last) {
        must(m->entries[i]->index > r->commit);
        raft_conf_cut(r, m->entries[i]->index);
        raft_log_truncate(&r->log, m->entries[i]->index);
    }
    for (; i < m->entry_count; i++) {
        raft_log_append(&r->log, entry_ref(m->entries[i]));
        if (m->entries[i]->kind == ENTRY_CONF)
            raft_conf_joined(r, m->entries[i]);
    }
}

void raft_append_recv(struct raft *r, const struct raft_msg *m)
{
    uint64_t term;
    uint64_t match = m->index + m->entry_count;

    if (m->index < r->commit) {
        say_match(r, m->from, r->commit); /* what is committed is the same everywhere */
        return;
    }
    if (!raft_log_term(&r->log, m->index, &term) || MUTATE(NO_CONSISTENCY_CHECK, term != m->log_term, false)) {
        say_conflict(r, m);
        return;
    }
    append_entries(r, m);
    raft_commit_to(r, MIN(m->commit, match));
    say_match(r, m->from, match);
}

void raft_append_beat(struct raft *r, const struct raft_msg *m)
{
    raft_commit_to(r, m->commit); /* the leader has cut it to what we acknowledged */
    raft_say(r, true, RAFT_MSG_BEAT_SAID, m->from)->read_id = m->read_id;
}
