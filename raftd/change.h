/* change - requests to change the membership, and to move the leadership: checked, agreed on, answered.
 *
 * They come from gateways (in.c), from other members that do not lead (peer frames), and from ourselves (our name and client
 * URLs, main.c). Who leads checks and proposes; everybody else forwards. The answer leaves when the change is committed
 * and in our own table, so that the member list which the gateway tells next holds it.
 *
 *     waits --we lead, it is its turn, checks pass--> proposed --committed--> answered
 *       |  ^-- the core refused, or its entry was cut --'
 *       '--another leads--> forwarded --its answer--> agreed --our commit index is there--> answered
 *
 * One change at a time: none is proposed before the one before it is committed, so each is checked against the table that it
 * will change. What waits too long ends with E_TIMEOUT; a forwarded one is not repeated (it may have been done), except for
 * updates, which may be done twice. Rules and texts: spec/semantics.md §15-16, etcd's.
 * Pure: time, role and table are arguments, effects are a table of functions. */
#ifndef RAFTD_CHANGE_H
#define RAFTD_CHANGE_H

#include "common/base.h"
#include "common/buf.h"
#include "raftd/members.h"

/* Requests that wait at one raftd; more are refused with "too many requests". */
#define CHANGE_ASKS_MAX 256
/* Bytes of a name or a list of URLs. */
#define CHANGE_TEXT_BYTES_MAX ((size_t)16 * 1024)
/* A member counts as healthy when it has been connected for this long (etcd's HealthInterval). */
#define CHANGE_HEALTH_MS 5000

struct change;

enum change_from { CHANGE_GATEWAY, CHANGE_PEER, CHANGE_OWN };
enum { CHANGE_NAME = 1, CHANGE_PEER_URLS = 2, CHANGE_CLIENT_URLS = 4 }; /* what an UPDATE sets */

#define CHANGE_MOVE_LEADER 100 /* op beside enum raft_conf_op: id is the member that is to lead */

struct change_ask {
    enum change_from from;
    uint64_t asker; /* the gateway's slot, or the peer's id */
    uint64_t req;   /* the asker's */
    uint64_t op;    /* enum raft_conf_op, or CHANGE_MOVE_LEADER */
    uint64_t id;    /* 0 for additions */
    uint64_t fields;
    struct slice name, peer_urls, client_urls;
};

/* What is known now. */
struct change_state {
    uint64_t now_ms;
    uint64_t wall_s; /* goes into the ids of new members */
    uint64_t self;
    uint64_t leader; /* RAFT_NONE: unknown */
    bool leads;      /* we do, and an entry of our term is committed */
    uint64_t term, commit;
    const struct members *members; /* as of commit */
};

struct change_ops {
    /* Proposes an entry (taken): its index, or 0 if it did not join the log; then change_refused may tell why. */
    uint64_t (*propose)(void *arg, uint64_t tag, struct entry *e);
    void (*transfer)(void *arg, uint64_t member);
    /* To the leader's raftd; false: no way there now. Borrowed. */
    bool (*forward)(void *arg, uint64_t leader, uint64_t tag, const struct change_ask *ask);
    /* The end of a request. index: of its entry, if it was done. */
    void (*answer)(void *arg, const struct change_ask *ask, int err, uint64_t id, uint64_t index);
    /* Since when we are connected with this member; 0: we are not. */
    uint64_t (*active_since)(void *arg, uint64_t member);
};

struct change_conf {
    const char *token; /* initial-cluster-token; kept */
    uint64_t max_learners;
    bool strict; /* strict-reconfig-check */
    uint64_t wait_ms;
};

struct change *change_new(const struct change_conf *conf, const struct change_ops *ops, void *arg);
void change_free(struct change *c);

/* A new request (copied). Answered at once if it is malformed, else by a later call. */
void change_add(struct change *c, const struct change_ask *ask, uint64_t now_ms);
/* The leader's answer to what was forwarded under tag. */
void change_said(struct change *c, uint64_t tag, int err, uint64_t id, uint64_t index);
/* The core refused what was proposed under tag. */
void change_refused(struct change *c, uint64_t tag, int err);
/* An ENTRY_CONF was committed; err: what the table said. */
void change_committed(struct change *c, uint64_t index, uint64_t term, int err);
/* Does what can be done now. At the end of every turn. True: proposed or transferred something, the core has a ready. */
bool change_run(struct change *c, const struct change_state *s);
uint64_t change_deadline(const struct change *c); /* UINT64_MAX: nothing waits */

/* May the change be made in this state? 0 or etcd's error. The core checks further: that a learner is in sync, and that
 * nothing else is under way. */
int change_check(const struct change_conf *conf, const struct change_state *s, const struct change_ops *ops, void *arg,
                 const struct raft_conf_change *change);
/* A list of peer URLs in etcd's form: each a URL with a port and no path, sorted. Appends to out; E_MEMBER_BAD_URLS. */
int change_urls(struct slice list, struct buf *out);

#endif
