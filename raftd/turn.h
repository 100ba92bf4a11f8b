/* turn - the five beats of raftd, and the order of effects, written once.
 *
 * What in.c gathers goes to the core at once (raft_step is pure); turn_end then does what the core's ready lists, by
 * a struct of functions: main.c gives it the real log and links, tests give it fakes. The tested order is the
 * shipped order. The rules stand in turn.c. */
#ifndef RAFTD_TURN_H
#define RAFTD_TURN_H

#include "common/base.h"
#include "common/buf.h"
#include "raftd/raft.h"

struct turn;

/* Effects. None of them calls back into the turn. */
struct turn_ops {
    /* To a peer, now. Borrowed. */
    void (*send)(void *arg, const struct raft_msg *m);
    /* Begins to make truncation, entries and hard state of the ready durable; returns a ticket for turn_durable.
     * Tickets rise. */
    uint64_t (*persist)(void *arg, const struct raft_ready *ready);
    /* To stored. apply: in order of index, nothing left out; serve: after the applies up to index. */
    void (*apply)(void *arg, const struct entry *e);
    void (*serve)(void *arg, unsigned slot, uint64_t index, uint64_t req, struct slice command);
    /* May more be sent to stored now? (It is up: turn knows that; its link is not full.) */
    bool (*apply_room)(void *arg);
    /* To whoever asked. */
    void (*refuse)(void *arg, unsigned slot, uint64_t req, int err);
    /* Role, leader, term, membership or settledness changed. */
    void (*changed)(void *arg);
    /* A change of membership is committed. In order of index. */
    void (*conf)(void *arg, const struct entry *e);
    /* Log entries below it may leave the disk. */
    void (*drop)(void *arg, uint64_t below);
    /* The log's disk is full: proposals are to be refused. */
    bool (*no_space)(void *arg);
    /* Another member leads: a proposal of this node's for it. False: it cannot be told now. This and the next four may be
     * NULL: then there is nobody else. */
    bool (*forward)(void *arg, uint64_t leader, unsigned slot, uint64_t req, const struct entry *e);
    /* A proposal of this node's was given to our own core; what is not refused joins the log in this term. */
    void (*proposed)(void *arg, unsigned slot, uint64_t req);
    /* The leader's read index is wanted; its answer is turn_read_index_said. */
    bool (*read_index)(void *arg, uint64_t leader, uint64_t tag);
    /* The answer to turn_read_index. */
    void (*read_index_said)(void *arg, unsigned slot, uint64_t tag, uint64_t index, int err);
    /* A leader of a new term is known: what was proposed in older ones and has no result yet either stands in the log before
     * its first entry, or never will. */
    void (*new_leader)(void *arg);
};

struct turn_conf {
    uint64_t wait_ms;       /* how long a request waits for a leader or for stored */
    uint64_t tag_base;      /* random and below 2^62: an answer to a question of an earlier run finds nobody */
    uint64_t read_again_ms; /* a read index that does not come from the leader is asked for again after this */
    uint64_t backlog_max;   /* committed - applied above which proposals are refused, if stored ... */
    uint64_t backlog_ms;    /* ... has not applied what was committed so long ago */
    size_t apply_bytes_max; /* of entries on their way to stored */
    size_t wait_bytes_max;  /* of requests that wait, each kind */
    size_t wait_count_max;
};

struct turn_stats {
    uint64_t proposals, proposals_refused; /* counted when they come, and when they are refused */
    uint64_t reads, read_rounds, reads_refused, reads_slow;
    uint64_t applies; /* entries handed to stored, again ones included */
    uint64_t leader_changes;
    uint64_t held;          /* proposals waiting for a leader, now */
    uint64_t reads_waiting; /* now */
    uint64_t applied;       /* as stored says */
    uint64_t behind_ms;     /* what it has not applied yet has been committed for at least so long */
    uint64_t stuck_ms;      /* so long it has applied nothing, and there was something */
};

/* raft, ops and arg are kept; raft's state must be what the log says. */
struct turn *turn_new(struct raft *raft, const struct turn_ops *ops, void *arg, const struct turn_conf *conf,
                      uint64_t now_ms);
void turn_free(struct turn *t);
/* The time of all that follows: once per turn of the loop. */
void turn_clock(struct turn *t, uint64_t now_ms);

/* --- gather --- */
#define TURN_NOBODY (~0u)     /* slot of a proposal that nobody waits for */
#define TURN_CHANGE (~0u - 1) /* slot of one that change.c waits for; req is its tag */
void turn_propose(struct turn *t, unsigned slot, uint64_t req, struct entry *e);   /* takes e */
void turn_read(struct turn *t, unsigned slot, uint64_t req, struct slice command); /* copies */
void turn_recv(struct turn *t, const struct raft_msg *m);
/* Slots from here on are other members (their place in peer.h): what they ask for is never sent on once more. */
#define TURN_PEER_SLOT 64
#define TURN_PEER_SLOT_END (TURN_PEER_SLOT + 64)
void turn_read_index(struct turn *t, unsigned slot, uint64_t tag); /* of a member that does not lead */
void turn_read_index_said(struct turn *t, uint64_t tag, uint64_t index, int err);
void turn_unreachable(struct turn *t, uint64_t member);
void turn_gone(struct turn *t, uint64_t member); /* its process has ended */
void turn_tick(struct turn *t);
/* Snapshots (snap.c). sent: how a transfer to a member ended. forgot: it lost its log. vote_from: of our own loss.
 * loaded: stored is the snapshot; ticket: of the log's replacement, 0: the log has that entry and stays. turn_end was
 * called before, and stored is down for us until turn_stored_up. */
void turn_snap_sent(struct turn *t, uint64_t member, uint64_t index, bool ok);
void turn_forgot(struct turn *t, uint64_t member);
void turn_vote_from(struct turn *t, uint64_t index);
void turn_snap_loaded(struct turn *t, uint64_t index, uint64_t term, uint64_t ticket, const struct raft_member *members,
                      size_t member_count);
void turn_durable(struct turn *t, uint64_t ticket); /* all up to this ticket is */
/* stored said HELLO: resume after `applied`, which our log still has (in.c looked). 0; E_FULL if stored is ahead of our
 * log: the data of one of the two is not what it should be. */
int turn_stored_up(struct turn *t, uint64_t applied, uint64_t durable);
void turn_stored_down(struct turn *t);
/* E_MALFORMED if it cannot be true. */
int turn_applied(struct turn *t, uint64_t applied, uint64_t durable, uint64_t room);
void turn_transfer(struct turn *t, uint64_t member); /* leadership, to this voter */
void turn_hand_over(struct turn *t); /* leadership, to the best follower */
void turn_stop(struct turn *t); /* refuse what is new, hand leadership over */
/* An entry of the log that changes the membership and is not known to be committed (start only). Takes e. */
void turn_conf_pending(struct turn *t, struct entry *e);
/* The changes of membership in the log that are not committed, in order; borrowed. */
size_t turn_confs(const struct turn *t, const struct entry **out, size_t max);

/* --- think, persist, speak --- */
void turn_end(struct turn *t);
/* --- sleep until --- */
uint64_t turn_deadline(const struct turn *t);

bool turn_is_quiet(const struct turn *t); /* nothing waits for the disk */
uint64_t turn_disk_ms(const struct turn *t); /* how long the oldest batch has been waiting for the disk; 0: none is */
void turn_stats(const struct turn *t, struct turn_stats *s);

#endif
