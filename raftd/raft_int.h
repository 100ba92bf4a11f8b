/* raft_int - what the files of the consensus core share, and nobody else sees.
 *
 *   raft.c         life, raft_step, changes of role          raft_ready.c   the product
 *   raft_elect.c   timeouts, pre-vote, vote, tally           raft_append.c  a follower's log
 *   raft_lead.c    a leader's followers, commit, transfer    raft_log.c     entries, terms, what is on disk
 *   raft_conf.c    membership                                raft_read.c    linearizable reads
 *   raft_snap.c    followers behind the log's start          raft_show.c    all of it as text
 *
 * Appends and beats of a leader are not made in raft_step but when raft_ready is called: whatever gathered in a
 * turn leaves in one message per follower, and a proposal costs no more than its place in the log. */
#ifndef RAFTD_RAFT_INT_H
#define RAFTD_RAFT_INT_H

#include "common/rand.h"
#include "raftd/raft.h"

/* Entries kept on disk below what stored has made durable, so that a follower that was away for a moment needs no
 * snapshot. Counted only when there is a follower at all. etcd keeps as many. */
#define RAFT_KEEP_ENTRIES 5000
/* Appends under way to one follower; beyond it we wait, whatever their bytes. */
#define RAFT_INFLIGHT_MAX 256

/* --- the log (raft_log.c) -------------------------------------------------------------------- */
struct raft_slot {
    struct entry *entry; /* a reference of the log's */
    uint64_t bytes_end;  /* bytes of all entries ever in memory up to and with this one */
};

/*   first ........ mem_first ......... persisted ...... offered ...... last
 *   |  storage only  |        slots: in memory          (not yet handed out)
 * first <= mem_first <= last + 1;   mem_first - 1 <= persisted <= offered <= last */
struct raft_log {
    const struct raft_storage *storage;
    uint64_t first, first_prev_term;
    uint64_t last, last_term;
    uint64_t persisted;     /* on disk, by a report that is younger than the last truncation */
    uint64_t offered;       /* given out to be persisted */
    uint64_t truncate_from; /* for the next ready; 0: nothing */

    struct raft_slot *slots; /* ring: index & (slot_count - 1) */
    uint64_t slot_count;     /* a power of two */
    uint64_t mem_first;
    uint64_t bytes_start; /* bytes_end of the entry before mem_first */
    size_t cache_bytes_max;
};

void raft_log_init(struct raft_log *log, const struct raft_conf *conf, const struct raft_start *start);
void raft_log_fini(struct raft_log *log);
/* False if the index is outside [first - 1, last], or storage does not know. */
bool raft_log_term(const struct raft_log *log, uint64_t index, uint64_t *term);
void raft_log_append(struct raft_log *log, struct entry *e); /* takes e, whose index and term are set */
void raft_log_truncate(struct raft_log *log, uint64_t from);
/* Entries from..to, each with a reference: at most out_max, at most bytes_max but at least one. *from_storage tells
 * whether they cost a read. 0: compacted. */
int raft_log_slice(const struct raft_log *log, uint64_t from, uint64_t to, size_t bytes_max, struct entry **out,
                   size_t out_max, bool *from_storage);
/* Largest index <= `index` whose term is <= `term`; first - 1 if there is none. */
uint64_t raft_log_floor(const struct raft_log *log, uint64_t index, uint64_t term);
bool raft_log_is_newer(const struct raft_log *log, uint64_t last_index, uint64_t last_term); /* ours than those? */
void raft_log_evict(struct raft_log *log); /* memory above cache_bytes_max that is on disk */
void raft_log_compact(struct raft_log *log, uint64_t first);
void raft_log_replace(struct raft_log *log, uint64_t index, uint64_t term); /* by a snapshot with this last entry */
/* Bytes in memory of the entries after `index`. */
uint64_t raft_log_bytes_after(const struct raft_log *log, uint64_t index);
size_t raft_entry_bytes(const struct entry *e);

/* --- membership (raft_conf.c) ---------------------------------------------------------------- */
struct raft_config {
    uint64_t index; /* entry that made it; 0: bootstrap */
    size_t count;
    struct raft_member members[RAFT_MEMBERS_MAX];
};

/* --- a leader's view of one other member (raft_lead.c, raft_snap.c) --------------------------- */
/* probe --an append is accepted--> replicate --rejected, link down--> probe
 *   |--needs entries that are gone--> snapshot --sent or failed--> probe
 * probe: one append per beat, to find where the logs agree. replicate: next runs ahead of match, bounded by the
 * inflight window. snapshot: nothing but beats until turn.c says how the transfer went. */
enum raft_progress { RAFT_PROBE, RAFT_REPLICATE, RAFT_SNAPSHOT };

struct raft_inflight {
    uint64_t index; /* last index of the append */
    size_t bytes;
};

struct raft_peer { /* match < next; probe: at most one append under way */
    uint64_t id;
    enum raft_progress progress;
    uint64_t match, next;
    uint64_t commit_sent; /* commit index that it knows if nothing was lost */
    uint64_t read_acked;  /* highest read round that it confirmed */
    uint64_t heard_ms;    /* last message of this term */
    uint64_t sent_ms;     /* last append */
    uint64_t snap_index;  /* the last snapshot that it needed has at least this index; 0: none */
    bool waits;           /* probe: the append is under way; replicate: unused */
    bool beat;            /* owed a beat */
    bool gone;            /* its process has ended; until it is heard again */
    bool nudge;           /* owed an append even with a full window or without entries: something may be lost */
    size_t inflight_head, inflight_count, inflight_bytes;
    struct raft_inflight inflight[RAFT_INFLIGHT_MAX];
};

/* --- the product ----------------------------------------------------------------------------- */
struct raft_out {
    struct raft_msg *early, *late;
    size_t early_count, early_cap, late_count, late_cap;
    struct entry **sent; /* entries of `early`, in its order, with references */
    size_t sent_count, sent_cap;
    struct entry **entries; /* to persist, with references */
    size_t entry_count, entry_cap;
    struct raft_read *reads;
    size_t read_count, read_cap;
    struct raft_refused *refused;
    size_t refused_count, refused_cap;
};

struct raft_wait {              /* a read that waits */
    uint64_t tag, index, round; /* round 0: not yet asked for */
};

struct raft_soft {
    enum raft_role role;
    uint64_t leader, term, conf_seq;
    bool settled;
};

struct raft {
    struct raft_conf conf;
    struct rand rand;
    uint64_t now_ms;
    bool stepping;
    bool stopping; /* RAFT_EV_STOP: refuse what is new, never campaign */

    /* persistent: changed here, on disk when PERSISTED says so */
    uint64_t term, vote;
    struct raft_log log;
    uint64_t told_term, told_vote; /* of the last ready */
    uint64_t hard_seq;             /* of the last ready that had hard_changed */
    uint64_t hard_done;            /* highest reported */
    bool log_replaced;             /* by a snapshot, since the last ready */
    uint64_t vote_from;            /* no vote before it is committed; 0: no such limit */
    uint64_t truncate_seq;         /* reports below it say nothing about our log (raft.c: step_persisted) */

    /* volatile */
    enum raft_role role;
    uint64_t leader;
    uint64_t commit, applied, handed, durable;
    uint64_t told_commit, drop_below, told_drop;
    uint64_t election_at_ms; /* unless leader */
    uint64_t heard_ms;       /* when a leader of this term last spoke */
    uint64_t told_deadline_ms;
    struct raft_soft told_soft;

    /* membership: the latest in the log, committed or not (thesis 4.1), and the one to go back to if its entry is
     * cut off. One step back is enough: a change enters a log only after the one before it was committed. */
    struct raft_config config, config_prev;
    uint64_t conf_seq; /* counts changes, attributes included */

    /* candidate and precandidate */
    struct {
        uint64_t from;
        bool granted;
    } votes[RAFT_MEMBERS_MAX];
    size_t vote_count;
    uint64_t vote_seq; /* our own vote counts when this hard state is on disk; 0: counted */

    /* leader */
    uint64_t term_start;                      /* index of our first entry of this term */
    struct raft_peer peers[RAFT_MEMBERS_MAX]; /* all members but us */
    size_t peer_count;
    uint64_t beat_at_ms;
    uint64_t transferee, transfer_until_ms;
    uint64_t transfer_failed; /* the last one that did not take over */
    bool flush; /* raft_lead_flush has something to look at */

    struct raft_wait *waits;                           /* in order of arrival, so rounds and indexes never fall */
    size_t wait_first, wait_count, wait_cap, wait_new; /* [first, count) wait; [new, count) have no round */
    uint64_t read_round, read_confirmed;

    struct raft_out out[2]; /* one is filled while the caller holds the other */
    int out_pos;
    struct entry *scratch[RAFT_MSG_ENTRIES_MAX];
};

/* raft.c */
void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader);
void raft_commit_to(struct raft *r, uint64_t index);
uint64_t raft_handable(const struct raft *r);          /* committed and on our own disk: may be applied */
void raft_append_own(struct raft *r, struct entry *e); /* leader: takes e, gives it index and term */

/* raft_ready.c */
struct raft_msg *raft_say(struct raft *r, bool late, enum raft_msg_type type, uint64_t to); /* valid until the next */
void raft_refuse(struct raft *r, uint64_t tag, bool is_read, int err);
void *raft_grow(void *items, size_t count, size_t *cap, size_t size); /* room for one more */
void raft_out_fini(struct raft_out *o);

/* raft_elect.c */
void raft_elect_timer(struct raft *r);
void raft_elect_first_timer(struct raft *r); /* draws a new timeout */
void raft_elect_gone(struct raft *r, uint64_t member);
void raft_elect_tick(struct raft *r);
void raft_elect_campaign(struct raft *r, bool transfer);
bool raft_elect_is_sticky(const struct raft *r);
void raft_elect_asked(struct raft *r, const struct raft_msg *m); /* PREVOTE, VOTE */
void raft_elect_said(struct raft *r, const struct raft_msg *m);  /* PREVOTE_SAID, VOTE_SAID */
void raft_elect_timeout_now(struct raft *r, const struct raft_msg *m);
void raft_elect_persisted(struct raft *r);

/* raft_append.c */
void raft_append_recv(struct raft *r, const struct raft_msg *m);
void raft_append_beat(struct raft *r, const struct raft_msg *m);
bool raft_append_is_sane(const struct raft_msg *m);

/* raft_lead.c */
void raft_lead_start(struct raft *r);
void raft_lead_stop(struct raft *r);
void raft_lead_tick(struct raft *r);
uint64_t raft_lead_deadline(const struct raft *r);
void raft_lead_propose(struct raft *r, uint64_t tag, struct entry *e); /* takes e */
void raft_lead_append_said(struct raft *r, const struct raft_msg *m);
void raft_lead_beat_said(struct raft *r, const struct raft_msg *m);
void raft_lead_commit(struct raft *r);
void raft_lead_flush(struct raft *r);
void raft_lead_transfer(struct raft *r, uint64_t tag, uint64_t member);
void raft_lead_hand_over(struct raft *r); /* to the best follower, for a stop */
void raft_lead_unreachable(struct raft *r, uint64_t member);
void raft_lead_gone(struct raft *r, uint64_t member);
void raft_lead_members_changed(struct raft *r);
void raft_peer_probe(struct raft_peer *p, uint64_t next);
struct raft_peer *raft_peer_find(struct raft *r, uint64_t id);
/* The largest value that a quorum of voters has reached; `own` is ours. */
uint64_t raft_lead_quorum(const struct raft *r, size_t member_offset, uint64_t own);

/* raft_conf.c */
const struct raft_member *raft_config_find(const struct raft_config *c, uint64_t id);
bool raft_config_is_voter(const struct raft_config *c, uint64_t id);
size_t raft_config_quorum(const struct raft_config *c);       /* votes needed; SIZE_MAX without voters */
void raft_conf_joined(struct raft *r, const struct entry *e); /* an entry joined our log */
void raft_conf_cut(struct raft *r, uint64_t from);            /* entries from here left it */
int raft_conf_check(struct raft *r, const struct entry *e);   /* may the leader propose it now? */

/* raft_read.c */
void raft_read_ask(struct raft *r, uint64_t tag);
void raft_read_flush(struct raft *r); /* starts a round for those that have none */
void raft_read_confirm(struct raft *r);
void raft_read_drop(struct raft *r, int err);
bool raft_read_has_ready(const struct raft *r);
void raft_read_release(struct raft *r); /* confirmed ones go into the ready */

/* raft_snap.c */
void raft_snap_need(struct raft *r, struct raft_peer *p);
void raft_snap_sent(struct raft *r, uint64_t member, uint64_t index, bool ok);
void raft_snap_applied(struct raft *r, uint64_t applied, uint64_t durable);
void raft_snap_loaded(struct raft *r, const struct raft_event *ev);
void raft_snap_forgot(struct raft *r, uint64_t member);

#endif
