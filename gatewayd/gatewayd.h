/* gatewayd - the gateway's state, and the prototypes of files that have no header of their own.
 * gRPC and HTTP on one side, frames on the other; keeps nothing that a restart would miss. One thread. */
#ifndef GATEWAYD_GATEWAYD_H
#define GATEWAYD_GATEWAYD_H

#include "common/conf.h"
#include "common/loop.h"
#include "common/timer.h"
#include "gatewayd/call.h"
#include "gatewayd/pending.h"
#include "proto/frames.h"
#include "proto/link.h"

struct conn;
struct server;
struct watch_hub;
struct native_door;
struct stats;
struct server_stats;
struct contender;
struct auth_gate;

/* A deadline of anything: embedded in what it belongs to, fired from the gateway's heap. */
struct deadline {
    struct timer timer;
    void (*fire)(struct deadline *d, uint64_t now_ms);
};

/* One member as raftd tells it. Strings are owned. */
struct member {
    uint64_t id;
    bool is_learner;
    char *name;
    char *peer_urls;   /* comma list */
    char *client_urls; /* comma list */
};

struct gatewayd {
    const struct conf *conf;
    struct loop *loop;
    uint64_t instance; /* random, new at every start */
    bool stopping;     /* SIGTERM came */

    /* --- siblings --- */
    struct link *raftd;
    struct link *stored;
    uint64_t cluster_id, member_id; /* 0 until raftd has told */
    uint64_t raftd_instance;        /* of the last raftd that was up */
    uint64_t stored_instance;       /* of the last stored that was up */
    uint64_t stored_session;        /* counts up with every `up` of the link to stored */
    bool raftd_up, stored_up;       /* the link is UP and our `up` has run */
    bool stored_heard;              /* and stored has said something since: it knows us */
    bool ready;                     /* both were up once */

    /* --- what raftd said last --- */
    bool has_leader; /* a LEADER frame with a leader, on the link as it is now */
    uint64_t term, leader;
    bool is_learner;
    uint64_t no_leader_since_ms; /* while !has_leader */
    struct member *members;
    size_t member_count;
    struct member *members_next; /* a list that is being received */
    size_t members_next_count;

    /* --- requests --- */
    struct pending_table pending;
    uint64_t request_timeout_ms; /* 5 s + 2 x election timeout */
    size_t message_bytes_max;    /* grpc receive limit: max-request-bytes + 512 KiB */
    uint64_t barrier_req;        /* a barrier is on its way; 0: none */
    uint64_t barrier_round, barrier_covers; /* retry.c: which proposals it can clear up */
    struct timer_heap timers;    /* struct deadline */
    struct loop_timer *wakeup;   /* at the nearest of timers and pending */
    uint64_t wakeup_at_ms;       /* what it is set to; UINT64_MAX: not set */

    /* --- clients --- */
    struct server *server; /* conn.c: listeners and connections */
    /* Finds a handler by method path; route_find, or a test's own. NULL: unknown. */
    const struct call_handler *(*find)(struct slice path);
    struct call *free_calls; /* call.c's slab */
    size_t free_call_count;
    size_t call_count;
    size_t inbound_bytes;    /* of messages that are not yet complete, over all calls */
    size_t outbound_bytes;   /* of answers that are not yet written, over all calls */
    struct call *leader_calls; /* streams that asked for a leader (hasleader: true) */
    struct deadline retry;     /* sends again what raftd refused for want of a leader */
    struct deadline no_leader; /* 3 election timeouts after the leader was lost: ends these */
    struct rate_user *rate_users; /* rate.c */
    struct stats *stats;
    struct server_stats *server_stats;

    /* --- parts with a state of their own --- */
    struct watch_hub *watch;    /* watch.c */
    struct contender *contenders; /* queue.c: waiting for a lock or an election, or leaving */
    size_t contender_count;
    struct native_door *native; /* native.c */
    struct auth_gate *auth;     /* identity.c */
    struct password_queue *passwords; /* password.c; NULL: none was hashed yet */
};

/* --- main.c's parts: gatewayd.c --- */
void gatewayd_init(struct gatewayd *g, const struct conf *conf, struct loop *loop);
void gatewayd_fini(struct gatewayd *g);
uint64_t gatewayd_now_ms(const struct gatewayd *g);
void deadline_set(struct gatewayd *g, struct deadline *d, uint64_t at_ms); /* also moves it */
void deadline_stop(struct gatewayd *g, struct deadline *d);
void gatewayd_fire_timers(struct gatewayd *g, uint64_t now_ms);
void gatewayd_arm_wakeup(struct gatewayd *g);
void gatewayd_check_ready(struct gatewayd *g);
void gatewayd_set_leader(struct gatewayd *g, uint64_t term, uint64_t leader, bool is_learner); /* leader 0: none known */

/* --- out.c: every frame gatewayd sends. Ignored while the link is not up: `up` resumes. --- */
void out_propose(struct gatewayd *g, uint64_t req, struct slice command);
void out_read(struct gatewayd *g, uint64_t req, bool of_leader, struct slice command); /* of_leader: its stored answers */
void out_query(struct gatewayd *g, uint64_t req, struct slice command);
void out_status(struct gatewayd *g, uint64_t req, uint64_t what);
void out_member_change(struct gatewayd *g, uint64_t req, uint64_t op, uint64_t id, struct slice peer_urls);
void out_member_status(struct gatewayd *g, uint64_t req, uint64_t id);
void out_move_leader(struct gatewayd *g, uint64_t req, uint64_t target);
void out_more(struct gatewayd *g, uint64_t req);
void out_forget(struct gatewayd *g, uint64_t req);
void out_watch(struct gatewayd *g, uint64_t token, uint64_t range_id, bool want_prev, struct slice key, struct slice range_end);
void out_unwatch(struct gatewayd *g, uint64_t range_id);
void out_history(struct gatewayd *g, uint64_t token, int64_t from, bool want_prev, struct slice key, struct slice range_end);

/* --- in.c: every frame gatewayd receives --- */
void in_start_links(struct gatewayd *g);
void in_set_hello(struct gatewayd *g);

/* --- retry.c: what restarts of siblings mean for what is pending (also most of pending.h's second half) --- */
void retry_on_raftd_up(struct gatewayd *g, uint64_t instance);
void retry_on_stored_up(struct gatewayd *g);
void retry_on_stored_heard(struct gatewayd *g); /* its first frame since */
void retry_answer(struct gatewayd *g, const struct fr_result *r);
void retry_unsent(struct gatewayd *g); /* a leader is there again */
void retry_refused(struct gatewayd *g, const struct fr_refused *r);
void retry_member_said(struct gatewayd *g, const struct fr_member_said *m);

/* --- kv.c --- Requests from anybody (who): checks body, chooses the way, sends. 0 or etcd's error at once (then cb is never called). */
int kv_submit(struct gatewayd *g, const struct identity *who, enum command_kind kind, struct slice body, answer_cb *cb, void *arg,
    uint64_t *req);
/* A call's answer is the answer of a request: passes body on, in parts if need be; arg is the call. Its state holds the req. */
void call_answer(void *arg, const struct answer *a);
/* Ends the call for err, or notes req as its state. For handlers right after kv_submit and the like. */
void call_submitted(struct call *c, int err, uint64_t req);
void call_more(struct call *c);   /* `writable` of handlers whose state is a req */
void call_forget(struct call *c); /* `closed` of handlers whose state is a req */
void kv_range(struct call *c, struct slice bytes);
void kv_range_stream(struct call *c, struct slice bytes);
void kv_put(struct call *c, struct slice bytes);
void kv_delete_range(struct call *c, struct slice bytes);
void kv_txn(struct call *c, struct slice bytes);
void kv_compact(struct call *c, struct slice bytes);

/* --- lease.c --- kind: LEASE_GRANT, _REVOKE, _KEEP_ALIVE (one request), _TIME_TO_LIVE, _LEASES --- */
int lease_submit(struct gatewayd *g, const struct identity *who, enum command_kind kind, struct slice body, answer_cb *cb, void *arg,
    uint64_t *req);
void lease_grant(struct call *c, struct slice bytes);
void lease_revoke(struct call *c, struct slice bytes);
void lease_time_to_live(struct call *c, struct slice bytes);
void lease_leases(struct call *c, struct slice bytes);
void lease_keep_alive(struct call *c, struct slice bytes);
void lease_keep_alive_half_close(struct call *c);
void lease_keep_alive_writable(struct call *c);
void lease_keep_alive_closed(struct call *c);

/* --- maint.c, cluster.c --- */
void maint_status(struct call *c, struct slice bytes);
void maint_hash_kv(struct call *c, struct slice bytes);
void maint_hash(struct call *c, struct slice bytes);
void maint_defragment(struct call *c, struct slice bytes);
void maint_alarm(struct call *c, struct slice bytes);
void maint_downgrade(struct call *c, struct slice bytes);
void health_check(struct call *c, struct slice bytes); /* grpc.health.v1 */
void health_watch(struct call *c, struct slice bytes);
void health_list(struct call *c, struct slice bytes);
void maint_move_leader(struct call *c, struct slice bytes);
void cluster_member_add(struct call *c, struct slice bytes);
void cluster_member_remove(struct call *c, struct slice bytes);
void cluster_member_update(struct call *c, struct slice bytes);
void cluster_member_promote(struct call *c, struct slice bytes);
void cluster_member_list(struct call *c, struct slice bytes);
/* Requests from anybody: op is MEMBER_ADD (also of learners), _PROMOTE, _REMOVE, _UPDATE, body the API's request message. 0 or
 * etcd's error at once. And the response to it, when the answer has come: header, the new member, all members. */
int cluster_submit(struct gatewayd *g, const struct identity *who, enum member_op op, struct slice body, answer_cb *cb, void *arg,
    uint64_t *req);
void cluster_encode_change(const struct gatewayd *g, enum member_op op, uint64_t id, struct buf *out);
int move_leader_submit(struct gatewayd *g, const struct identity *who, struct slice body, answer_cb *cb, void *arg, uint64_t *req);
void cluster_encode_members(const struct gatewayd *g, struct buf *out); /* MemberListResponse, for the native door too */
void gateway_encode_header(const struct gatewayd *g, struct buf *out, uint32_t number); /* ResponseHeader without revision, as field number */
void gateway_fill_header(const struct gatewayd *g, struct buf *out, int64_t revision); /* its fields alone */
void cluster_receive(struct gatewayd *g, const struct fr_member *m);    /* one MEMBER frame */
void cluster_forget(struct member *members, size_t count);

/* --- lock.c, election.c --- */
void lock_lock(struct call *c, struct slice bytes);
void lock_unlock(struct call *c, struct slice bytes);
void election_campaign(struct call *c, struct slice bytes);
void election_proclaim(struct call *c, struct slice bytes);
void election_leader(struct call *c, struct slice bytes);
void election_observe(struct call *c, struct slice bytes);
void election_observe_writable(struct call *c);
void election_observe_closed(struct call *c);
void election_resign(struct call *c, struct slice bytes);
void queue_closed(struct call *c);   /* `closed` of Lock and Campaign */
void queue_shutdown(struct gatewayd *g); /* who waits is told that we stop, and leaves the line */
void queue_stop(struct gatewayd *g); /* all calls were closed: forgets who is still leaving */
void inner_closed(struct call *c);   /* `closed` of the other four unary ones */
/* --- backup.c --- */
void backup_snapshot(struct call *c, struct slice bytes);
void backup_writable(struct call *c);
void backup_closed(struct call *c);

/* --- auth.c: the Auth service --- */
void auth_enable(struct call *c, struct slice bytes);
void auth_disable(struct call *c, struct slice bytes);
void auth_status(struct call *c, struct slice bytes);
void auth_user_get(struct call *c, struct slice bytes);
void auth_user_list(struct call *c, struct slice bytes);
void auth_user_delete(struct call *c, struct slice bytes);
void auth_user_grant_role(struct call *c, struct slice bytes);
void auth_user_revoke_role(struct call *c, struct slice bytes);
void auth_role_add(struct call *c, struct slice bytes);
void auth_role_get(struct call *c, struct slice bytes);
void auth_role_list(struct call *c, struct slice bytes);
void auth_role_delete(struct call *c, struct slice bytes);
void auth_role_grant(struct call *c, struct slice bytes);
void auth_role_revoke(struct call *c, struct slice bytes);
/* Those that take a password; auth_closed is their `closed`. */
void auth_user_add(struct call *c, struct slice bytes);
void auth_user_change_password(struct call *c, struct slice bytes);
void auth_authenticate(struct call *c, struct slice bytes);
void auth_closed(struct call *c);
bool auth_has_secret(const struct call_handler *h); /* its request holds a password */
/* Asks stored whether who may read body's range (a RangeRequest), or, if body is empty, has role root. */
int auth_authorize(struct gatewayd *g, const struct identity *who, struct slice body, answer_cb *cb, void *arg, uint64_t *req);

/* --- password.c --- */
struct password_job;
typedef void password_cb(void *arg, int err, const char *hash); /* err: E_FULL, no memory for it */
/* Hashes on a worker thread, one after the other; done comes later, on the loop. E_REQUEST_TOO_MANY_REQUESTS. */
int password_hash(struct gatewayd *g, struct slice password, password_cb *done, void *arg, struct password_job **job);
void password_forget(struct password_job *job); /* done is not called any more */
void password_stop(struct gatewayd *g);
bool password_is_bcrypt(struct slice text); /* base64 of a bcrypt hash? */
void secret_wipe(void *bytes, size_t len);

/* --- route.c --- */
const struct call_handler *route_find(struct slice path);
size_t route_count(void);
const struct call_handler *route_at(size_t pos);
size_t route_pos(const struct call_handler *h); /* SIZE_MAX: not one of the table (a test's) */
bool route_has_service(struct slice service);

/* --- watch.c: the handlers of Watch and what in.c tells it; all borrowed --- */
void watch_start(struct gatewayd *g); /* makes g->watch */
void watch_stop(struct gatewayd *g);
void watch_message(struct call *c, struct slice bytes);
void watch_half_close(struct call *c);
void watch_writable(struct call *c);
void watch_closed(struct call *c);
void watch_on_watching(struct gatewayd *g, const struct fr_watching *m);
void watch_on_event(struct gatewayd *g, const struct fr_event *m);
void watch_on_past(struct gatewayd *g, const struct fr_past *m);
void watch_on_past_end(struct gatewayd *g, const struct fr_past_end *m);
void watch_on_batch_end(struct gatewayd *g);   /* all frames of one message of stored were given */
void watch_on_stored_up(struct gatewayd *g);   /* register all ranges again */
void watch_on_stored_down(struct gatewayd *g);
void watch_metrics(struct gatewayd *g, struct buf *out); /* Prometheus text: watchers, streams, slow ones */

/* --- native.c: the nng door --- */
void native_start(struct gatewayd *g); /* makes g->native; fatal if its URLs cannot be listened on */
void native_stop(struct gatewayd *g);

/* --- stats.c: what this gateway counts --- */
void stats_init(struct gatewayd *g);
void stats_fini(struct gatewayd *g);
void stats_started(struct gatewayd *g, const struct call_handler *h);
void stats_handled(struct gatewayd *g, const struct call_handler *h, int grpc_status);
void stats_took(struct gatewayd *g, const struct call_handler *h, uint64_t ms); /* a call, from its headers to its end */
void stats_received(struct gatewayd *g, const struct call_handler *h, size_t bytes);
void stats_sent(struct gatewayd *g, const struct call_handler *h, size_t bytes);
/* Why a client, or something of it, was not served on: counted by reason. */
enum drop { DROP_LIMIT, DROP_SLOW, DROP_MALFORMED, DROP_FLOOD, DROP_UNREAD, DROP_TLS, DROP_RATE, DROP_COUNT };
void stats_dropped(struct gatewayd *g, enum drop why);
void stats_text(struct gatewayd *g, struct buf *out); /* Prometheus text, gatewayd's own part */

/* --- stats_server.c: etcd's words for it --- */
void server_stats_init(struct gatewayd *g);
void server_stats_fini(struct gatewayd *g);
unsigned stats_api_version(struct gatewayd *g, struct slice name); /* a number for what a client says of itself; 0: nothing */
void stats_client_request(struct gatewayd *g, bool is_stream, unsigned api_version);
void stats_answered(struct gatewayd *g, const struct call_handler *h, uint64_t ms, int grpc_status);
void stats_health(struct gatewayd *g, bool good);
#define STATS_CHECKS 4 /* httpapi.c's checks */
extern const char *const stats_check_names[STATS_CHECKS];
bool stats_check_in_livez(unsigned check);
void stats_check(struct gatewayd *g, bool is_readyz, unsigned check, bool good);
void stats_promoted(struct gatewayd *g, int err);
void server_stats_text(struct gatewayd *g, struct buf *out);

#endif
