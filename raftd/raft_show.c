/* raft_show - events, messages, ready and state as one line of text: one wording for logs, transcripts and dumps.
 * Called by turn.c's trace point and by tests, which compare it: the wording is part of the design. */
#include "raftd/raft_int.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

/* A text that ends quietly where its room ends. */
struct text {
    char *at;
    size_t left; /* with the NUL */
};

static void PRINTF_LIKE(2, 3) say(struct text *t, const char *fmt, ...)
{
    va_list args;

    if (t->left == 0)
        return;
    va_start(args, fmt);
    int len = vsnprintf(t->at, t->left, fmt, args);
    va_end(args);
    size_t used = len < 0 ? 0 : MIN((size_t)len, t->left - 1);

    t->at += used;
    t->left -= used;
}

const char *raft_role_name(enum raft_role role)
{
    static const char *const names[] = {"follower", "precandidate", "candidate", "leader"};

    return (size_t)role < ARRAY_LEN(names) ? names[role] : "unknown";
}

static const char *msg_name(enum raft_msg_type type)
{
    static const char *const names[] = {"PREVOTE", "PREVOTE_SAID", "VOTE", "VOTE_SAID", "APPEND",     "APPEND_SAID",
                                        "BEAT",    "BEAT_SAID",    "SNAP", "SNAP_SAID", "TIMEOUT_NOW"};

    return (size_t)type < ARRAY_LEN(names) ? names[type] : "UNKNOWN";
}

static void say_msg(struct text *t, const struct raft_msg *m)
{
    say(t, "%s %" PRIu64 "->%" PRIu64 " term %" PRIu64, msg_name(m->type), m->from, m->to, m->term);
    switch (m->type) {
    case RAFT_MSG_PREVOTE:
    case RAFT_MSG_VOTE:
        say(t, " last %" PRIu64 "/%" PRIu64 "%s", m->index, m->log_term, m->transfer ? " transfer" : "");
        break;
    case RAFT_MSG_PREVOTE_SAID:
    case RAFT_MSG_VOTE_SAID:
        say(t, m->reject ? " no" : " yes");
        break;
    case RAFT_MSG_APPEND:
        say(t, " prev %" PRIu64 "/%" PRIu64, m->index, m->log_term);
        if (m->entry_count > 0)
            say(t, " entries %" PRIu64 "..%" PRIu64, m->index + 1, m->index + m->entry_count);
        say(t, " commit %" PRIu64, m->commit);
        break;
    case RAFT_MSG_APPEND_SAID:
        if (m->reject)
            say(t, " no at %" PRIu64 " hint %" PRIu64 "/%" PRIu64, m->index, m->hint, m->log_term);
        else
            say(t, " match %" PRIu64, m->index);
        break;
    case RAFT_MSG_BEAT:
        say(t, " commit %" PRIu64 " read %" PRIu64, m->commit, m->read_id);
        break;
    case RAFT_MSG_BEAT_SAID:
        say(t, m->reject ? " no" : " read %" PRIu64, m->read_id);
        break;
    case RAFT_MSG_SNAP:
        say(t, " index %" PRIu64, m->index);
        break;
    case RAFT_MSG_SNAP_SAID:
    case RAFT_MSG_TIMEOUT_NOW:
        break;
    }
}

void raft_show_msg(const struct raft_msg *m, char *text, size_t size)
{
    struct text t = {text, size};

    say(&t, "%s", "");
    say_msg(&t, m);
}

void raft_show(const struct raft *r, char *text, size_t size)
{
    struct text t = {text, size};

    say(&t, "member %" PRIu64 " %s term %" PRIu64 " vote %" PRIu64 " leader %" PRIu64, r->conf.id,
        raft_role_name(r->role), r->term, r->vote, r->leader);
    say(&t, " log %" PRIu64 "..%" PRIu64 " persisted %" PRIu64 " commit %" PRIu64 " applied %" PRIu64, r->log.first,
        r->log.last, r->log.persisted, r->commit, r->applied);
    say(&t, " members");
    for (size_t i = 0; i < r->config.count; i++)
        say(&t, "%s%" PRIu64 "%s", i > 0 ? "," : " ", r->config.members[i].id,
            r->config.members[i].learner ? "(learner)" : "");
    if (r->config.count == 0)
        say(&t, " none");
    for (size_t i = 0; i < r->peer_count; i++) {
        static const char *const names[] = {"probe", "replicate", "snapshot"};
        const struct raft_peer *p = &r->peers[i];

        say(&t, "; %" PRIu64 " %s match %" PRIu64 " next %" PRIu64, p->id, names[p->progress], p->match, p->next);
    }
    if (r->transferee != RAFT_NONE)
        say(&t, "; transfer to %" PRIu64, r->transferee);
}

void raft_show_event(const struct raft_event *ev, char *text, size_t size)
{
    struct text t = {text, size};

    say(&t, "%" PRIu64 " ", ev->now_ms);
    switch (ev->type) {
    case RAFT_EV_TICK:
        say(&t, "tick");
        break;
    case RAFT_EV_PROPOSE:
        say(&t, "propose tag %" PRIu64 " bytes %zu", ev->tag, ev->entry ? ev->entry->len : 0);
        break;
    case RAFT_EV_READ:
        say(&t, "read tag %" PRIu64, ev->tag);
        break;
    case RAFT_EV_RECV:
        say(&t, "recv ");
        if (ev->msg)
            say_msg(&t, ev->msg);
        break;
    case RAFT_EV_PERSISTED:
        say(&t, "persisted %" PRIu64 "/%" PRIu64 " hard %" PRIu64, ev->index, ev->entry_term, ev->hard_seq);
        break;
    case RAFT_EV_APPLIED:
        say(&t, "applied %" PRIu64 " durable %" PRIu64, ev->index, ev->durable);
        break;
    case RAFT_EV_TRANSFER:
        say(&t, "transfer to %" PRIu64, ev->member);
        break;
    case RAFT_EV_SNAP_SENT:
        say(&t, "snap sent to %" PRIu64 " index %" PRIu64 " %s", ev->member, ev->index, ev->ok ? "ok" : "failed");
        break;
    case RAFT_EV_SNAP_LOADED:
        say(&t, "snap loaded %" PRIu64 "/%" PRIu64 " members %zu", ev->index, ev->entry_term, ev->member_count);
        break;
    case RAFT_EV_FORGOT:
        say(&t, "forgot %" PRIu64, ev->member);
        break;
    case RAFT_EV_VOTE_FROM:
        say(&t, "vote from %" PRIu64, ev->index);
        break;
    case RAFT_EV_UNREACHABLE:
        say(&t, "unreachable %" PRIu64, ev->member);
        break;
    case RAFT_EV_GONE:
        say(&t, "gone %" PRIu64, ev->member);
        break;
    case RAFT_EV_STOP:
        say(&t, "stop");
        break;
    }
}

static void say_msgs(struct text *t, const char *name, const struct raft_msg *msgs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        say(t, "; %s ", name);
        say_msg(t, &msgs[i]);
    }
}

void raft_show_ready(const struct raft_ready *ready, char *text, size_t size)
{
    struct text t = {text, size};

    say(&t, "commit %" PRIu64, ready->commit);
    if (ready->hard_changed)
        say(&t, "; hard %" PRIu64 " term %" PRIu64 " vote %" PRIu64, ready->hard_seq, ready->term, ready->vote);
    if (ready->truncate_from > 0)
        say(&t, "; truncate from %" PRIu64, ready->truncate_from);
    if (ready->entry_count > 0)
        say(&t, "; append %" PRIu64 "..%" PRIu64, ready->entries[0]->index,
            ready->entries[ready->entry_count - 1]->index);
    say_msgs(&t, "early", ready->early, ready->early_count);
    say_msgs(&t, "late", ready->late, ready->late_count);
    for (size_t i = 0; i < ready->read_count; i++)
        say(&t, "; read tag %" PRIu64 " at %" PRIu64, ready->reads[i].tag, ready->reads[i].index);
    for (size_t i = 0; i < ready->refused_count; i++)
        say(&t, "; refused %s tag %" PRIu64 " err %d", ready->refused[i].is_read ? "read" : "proposal",
            ready->refused[i].tag, ready->refused[i].err);
    if (ready->drop_below > 0)
        say(&t, "; drop below %" PRIu64, ready->drop_below);
    if (ready->soft_changed)
        say(&t, "; soft");
}
