/* raft - consensus as a function: events in, ready out.
 *
 * No socket, file, clock, thread, log call, nor randomness but the seed. raft_step takes one event; raft_ready then
 * lists what must be done; turn.c does it in the one right order and reports back with further events. Same events,
 * same seed: same ready, forever. Source of the rules: Ongaro's thesis; sections are cited where they are obeyed.
 *
 * Holds at all times (raft_check, after every step):
 *   first_index - 1 <= applied <= commit <= last_index        persisted <= last_index
 *   handed <= commit                                            (entries given out to be applied)
 *   term never goes back; at most one vote per term
 *   role LEADER  =>  leader == id, and every entry of ours at term start and after is of our term
 *   commit moves only to an entry of the current term by counting (thesis 3.6.2)
 */
#ifndef RAFTD_RAFT_H
#define RAFTD_RAFT_H

#include "common/base.h"
#include "common/buf.h"
#include "raftd/entry.h"

#define RAFT_NONE 0 /* no member: ids are never 0 */
#define RAFT_MEMBERS_MAX 16
#define RAFT_MSG_ENTRIES_MAX 1024 /* entries of one append, also bounded by append_bytes_max */

/* follower --election timeout--> precandidate --quorum would vote--> candidate --quorum voted--> leader
 *     ^------------- higher term, or a leader of this term speaks, or quorum not heard ----------------' */
enum raft_role { RAFT_FOLLOWER, RAFT_PRECANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

struct raft_member {
    uint64_t id;
    bool learner;
};

/* What the log can tell about entries that the core no longer holds in memory. Read-only, must not block for long. */
struct raft_storage {
    /* Term of an entry in [first-1, last] of the log; false if it is not there. */
    bool (*term)(void *arg, uint64_t index, uint64_t *term);
    /* Entries from..to (inclusive), at most bytes_max but at least one; out has room for RAFT_MSG_ENTRIES_MAX. Each
     * returned entry carries a reference for the caller. Returns their count, 0 if `from` is compacted, or an error. */
    int (*entries)(void *arg, uint64_t from, uint64_t to, size_t bytes_max, struct entry **out);
    void *arg;
};

struct raft_conf {
    uint64_t id;
    uint64_t seed;
    uint32_t election_ms;  /* timeouts are drawn from [election_ms, 2 * election_ms) */
    uint32_t heartbeat_ms;
    bool pre_vote;         /* thesis 9.6 */
    bool check_quorum;     /* thesis 6.2: a leader that hears no quorum for election_ms steps down */
    size_t append_bytes_max;   /* of one append message */
    size_t inflight_bytes_max; /* of un-acknowledged appends per follower */
    size_t cache_bytes_max;    /* applied entries kept in memory for followers and stored */
    size_t uncommitted_bytes_max; /* proposals above it are refused */
    uint64_t keep_entries; /* kept below what is durable, so that a follower needs no snapshot; 0: 5000 */
    bool hasten; /* do not wait a whole timeout for the first election */
    struct raft_storage storage;
};

/* State found on disk. */
struct raft_start {
    uint64_t term, vote;        /* hard state */
    uint64_t first_index;       /* first entry in the log; 1 for a new member */
    uint64_t first_prev_term;   /* term of entry first_index - 1; 0 for a new member */
    uint64_t last_index, last_term;
    uint64_t commit;            /* known committed: at least what stored has applied; >= first_index - 1 */
    const struct raft_member *members; /* membership as of `last_index` */
    size_t member_count;
    uint64_t conf_index;        /* index of the entry that made it; 0: bootstrap */
    /* The membership before conf_index, for the case that its entry is still cut off by a new leader. NULL: it
     * cannot be (conf_index is 0 or committed). A member that joins a running cluster starts with no members at all
     * and learns them from the log or a snapshot: it must not campaign among members it has only been told about. */
    const struct raft_member *prev_members;
    size_t prev_member_count;
    uint64_t prev_conf_index;
    /* > 0: this member lost entries that it had acknowledged. Until it has this one, committed, it neither votes nor
     * campaigns: its vote could make a leader of one who lacks them. UINT64_MAX: not known yet (RAFT_EV_VOTE_FROM). */
    uint64_t vote_from;
};

enum raft_msg_type {
    RAFT_MSG_PREVOTE, RAFT_MSG_PREVOTE_SAID,
    RAFT_MSG_VOTE, RAFT_MSG_VOTE_SAID,
    RAFT_MSG_APPEND, RAFT_MSG_APPEND_SAID,
    RAFT_MSG_BEAT, RAFT_MSG_BEAT_SAID, /* heartbeats carry the read id that they confirm */
    RAFT_MSG_SNAP, RAFT_MSG_SNAP_SAID, /* the core only says that one is needed; turn.c streams it */
    RAFT_MSG_TIMEOUT_NOW,              /* leadership transfer, thesis 3.10 */
};

struct raft_msg {
    enum raft_msg_type type;
    uint64_t from, to, term;
    uint64_t index;      /* APPEND: previous index; votes: last index; APPEND_SAID: match or rejected index */
    uint64_t log_term;   /* APPEND: its term; votes: last term; APPEND_SAID rejected: term of the hint */
    uint64_t commit;     /* APPEND, BEAT */
    uint64_t hint;       /* APPEND_SAID rejected: where to try next (conflict hint, thesis 5.3 end / 3.5) */
    uint64_t read_id;    /* BEAT, BEAT_SAID: highest read round that this confirms */
    bool reject;         /* *_SAID */
    bool transfer;       /* VOTE, PREVOTE: asked for by a leader; overrides stickiness (thesis 4.2.3) */
    struct entry **entries; /* APPEND; borrowed during step; owned by the ready in ready */
    size_t entry_count;
};

enum raft_event_type {
    RAFT_EV_TICK,      /* time passed; now_ms */
    RAFT_EV_PROPOSE,   /* entry (taken), tag */
    RAFT_EV_READ,      /* tag: a batch of reads wants an index */
    RAFT_EV_RECV,      /* msg (borrowed) */
    RAFT_EV_PERSISTED, /* index: all entries up to it, and hard state up to hard_seq, are on disk; entry_term: term of entry `index` */
    RAFT_EV_APPLIED,   /* index: stored has applied; durable: its prefix may leave memory and log */
    RAFT_EV_TRANSFER,  /* member; RAFT_NONE: the best follower, if there is one */
    RAFT_EV_SNAP_SENT, /* member, index, ok */
    RAFT_EV_SNAP_LOADED, /* index, entry_term, members: stored is the snapshot now. The ready before it was taken and done,
                          * and if the log has not this entry, the log on disk was replaced. Not for a leader then. */
    RAFT_EV_FORGOT,    /* member: it lost its log. What it acknowledged counts no more; SNAP_SENT ends its waiting */
    RAFT_EV_VOTE_FROM, /* index: see raft_start.vote_from */
    RAFT_EV_UNREACHABLE, /* member: its link went down */
    RAFT_EV_GONE,        /* member: its process has ended, as far as can be seen: if it led, it leads no more */
    RAFT_EV_STOP,      /* hand leadership over if possible, refuse what is new */
};

struct raft_event {
    enum raft_event_type type;
    uint64_t now_ms; /* always set */
    uint64_t tag;
    uint64_t index, durable, entry_term, hard_seq;
    uint64_t member;
    bool ok;
    struct entry *entry;
    const struct raft_msg *msg;
    /* SNAP_LOADED: the membership as of index, if the log on disk was replaced; NULL: the log has that entry and stays */
    const struct raft_member *members;
    size_t member_count;
};

struct raft_refused {
    uint64_t tag;
    bool is_read;
    int err; /* E_NO_LEADER, E_NOT_LEADER, E_LEADER_CHANGED (also while a transfer runs), E_STOPPED,
              * E_REQUEST_TOO_MANY_REQUESTS; ENTRY_CONF: E_UNHEALTHY (not settled, or another change is not yet
              * committed), E_MEMBER_..., E_LEARNER_NOT_READY, E_FULL, E_MALFORMED; TRANSFER (its tag):
              * E_BAD_LEADER_TRANSFEREE */
};
struct raft_read {
    uint64_t tag;
    uint64_t index; /* answer from a state that has applied it */
};

/* What must be done, in this order (turn.c):
 *  1. send `early` (a leader's appends and heartbeats: may leave before our own sync, thesis 10.2.1);
 *  2. persist: truncate the log's suffix from truncate_from if it is > 0, then append `entries`, then hard state;
 *  3. after the sync: send `late` (votes and answers that depend on it), report RAFT_EV_PERSISTED with hard_seq;
 *  4. hand committed entries up to `commit` on to stored, then `reads`; tell who was `refused`.
 * A `late` message waits for what its own ready and all readies before it have to persist: they leave in order, also
 * those of a ready that persists nothing while an earlier sync is still under way.
 * `commit`, raft_committed and `reads` never go beyond what is committed *and* persisted here, so stored is never
 * ahead of the log that a crash leaves behind.
 * A snapshot is installed outside: if the log has its last entry (same index and term) what follows it must stay,
 * for it may have been acknowledged; else the whole log goes. Then RAFT_EV_SNAP_LOADED, or raft_new on top of it.
 * Arrays belong to the raft and live until its next raft_ready. Entries there are references of the ready:
 * valid until the next raft_ready call; keep one with entry_ref. */
struct raft_ready {
    bool hard_changed;
    uint64_t term, vote, hard_seq;
    uint64_t truncate_from;
    struct entry **entries;
    size_t entry_count;
    struct raft_msg *early;
    size_t early_count;
    struct raft_msg *late;
    size_t late_count;
    uint64_t commit;
    struct raft_read *reads;
    size_t read_count;
    struct raft_refused *refused;
    size_t refused_count;
    bool soft_changed; /* role, leader, term, membership or raft_is_settled changed */
    uint64_t deadline_ms; /* when the next TICK is due at the latest */
    uint64_t drop_below;  /* log entries with a smaller index may leave the disk; 0 = no news */
};

struct raft;

/* Both borrow their arguments' pointers only until they return (storage is kept). now_ms starts the clocks. A
 * single voter campaigns at its first tick: no one could object. */
struct raft *raft_new(const struct raft_conf *conf, const struct raft_start *start, uint64_t now_ms);
void raft_free(struct raft *r);

/* One event. Not re-entrant (must). Never fails: what cannot be done shows up in `refused`. */
void raft_step(struct raft *r, const struct raft_event *ev);
/* Everything to do since the last call. Cheap when nothing is. */
void raft_ready(struct raft *r, struct raft_ready *ready);
bool raft_has_ready(const struct raft *r);

/* Committed entries after `handed`: up to out_max entries and bytes_max (at least one), each with a reference
 * for the caller; from memory or storage. Moves nothing: the caller says how far it handed on by asking for more. */
int raft_committed(struct raft *r, uint64_t after, size_t bytes_max, struct entry **out, size_t out_max);

/* Questions. */
enum raft_role raft_role(const struct raft *r);
uint64_t raft_term(const struct raft *r);
uint64_t raft_leader(const struct raft *r); /* RAFT_NONE if unknown */
uint64_t raft_commit(const struct raft *r);
uint64_t raft_last_index(const struct raft *r);
uint64_t raft_applied(const struct raft *r);
size_t raft_members(const struct raft *r, struct raft_member *out); /* RAFT_MEMBERS_MAX places */
/* Ready to propose and read: leader, and an entry of its term committed (thesis 6.4 step 1). */
bool raft_is_settled(const struct raft *r);
bool raft_may_vote(const struct raft *r); /* has all that it ever acknowledged */
void raft_check(const struct raft *r); /* must()s the invariants above */

/* raft_conf.c: the payload of ENTRY_CONF. Attributes travel with it, so membership has one source of truth. */
enum raft_conf_op { RAFT_CONF_ADD = 1, RAFT_CONF_ADD_LEARNER, RAFT_CONF_PROMOTE, RAFT_CONF_REMOVE, RAFT_CONF_UPDATE };
struct raft_conf_change {
    uint64_t op; /* enum raft_conf_op; UPDATE: attributes only, the quorum does not change */
    uint64_t id;
    struct slice name, peer_urls, client_urls; /* comma lists */
};
void raft_conf_encode(struct buf *out, const struct raft_conf_change *c); /* msgpack array */
int raft_conf_decode(struct slice bytes, struct raft_conf_change *c);
/* What a change makes of a membership (RAFT_MEMBERS_MAX places); the new count. What does not fit changes nothing.
 * For whoever replays a log: the same code that the core uses. */
size_t raft_conf_apply(struct raft_member *members, size_t count, const struct raft_conf_change *c);

/* raft_show.c: one wording for logs, transcripts and dumps. At most size bytes, NUL-terminated. */
const char *raft_role_name(enum raft_role role);
void raft_show(const struct raft *r, char *text, size_t size);
void raft_show_event(const struct raft_event *ev, char *text, size_t size);
void raft_show_msg(const struct raft_msg *m, char *text, size_t size);
void raft_show_ready(const struct raft_ready *ready, char *text, size_t size);

#endif
