/* stored - the storage daemon around mvcc.h: applies what raftd hands on, answers gateways, feeds their watchers.
 * Everything here belongs to the loop's thread, except what a worker job (read.c, past.c, upkeep.c) does with mvcc's
 * [any] functions between loop_work's `work` and `done`. Prototypes are grouped by file; the ring of one message is
 *
 *      in.c -> apply.c | read.c | feed.c | past.c | status.c -> mvcc.h, lease.h -> results.c -> out.c
 */
#ifndef STORED_STORED_H
#define STORED_STORED_H

#include <bsd/sys/queue.h>

#include "common/conf.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/metrics.h"
#include "proto/command.h"
#include "proto/frames.h"
#include "proto/link.h"
#include "stored/lease.h"
#include "stored/mvcc.h"
#include "stored/ring.h"

/* --- limits of this daemon (the shared ones: common/limits.h) -------------------------------------------- */
/* Point reads of one message that the loop answers itself rather than hand to a worker: the hand-over costs as much as a
 * few dozen of them. 0 switches it off. */
#define READ_INLINE_MAX 64
/* Answer bytes that one run of a read job gathers before they are sent; the rest of its requests wait for room. */
#define READ_JOB_BYTES (4 * MIB)
/* Large results of one gateway that wait for MORE; each may hold a LevelDB snapshot. Over it: "too many requests". */
#define OPEN_RESULTS_MAX 1024
/* Backups under way, over all gateways, each with a view of the store that keeps what is deleted meanwhile on the disk; over it: "too
 * many requests". A view whose reader is silent for so long, or that is held for so long altogether, is given up. */
#define BACKUPS_MAX 4
#define BACKUP_IDLE_MS (5 * 60 * 1000)
#define BACKUP_MS_MAX (2 * 3600 * 1000)
/* A body over this is not remembered: after a restart its request ends as ambiguous instead. */
#define RESULT_MEMORY_BODY_MAX (64 * KIB)
/* History requests of one gateway that wait (one per watcher at most); over it the gateway is at fault. */
#define HISTORY_QUEUE_MAX WATCHERS_PER_STREAM_MAX
/* Events looked at in memory for history in one turn, over all gateways, so that a crowd of watchers never holds up apply. */
#define HISTORY_TURN_EVENTS 50000
/* A revoke that was proposed and has not come back is proposed again after this. */
#define LEASE_ATTEMPT_MS 3000
/* The file DATA-DIR/store/reserve: room to go on with when somebody else has filled the disk, and from how few free bytes on
 * it is given up. A write buffer of LevelDB, the table made from it and a table of a compaction fit in. */
#define SPACE_RESERVE_BYTES (64 * MIB)
#define SPACE_RESERVE_LOW_BYTES (16 * MIB)
/* What an entry takes in raftd's log beside the command: header and padding. */
#define LOG_ENTRY_OVERHEAD 44
/* The quota is looked at after this many applied bytes, or at the next tick. */
#define QUOTA_CHECK_BYTES MIB
/* NOSPACE that was proposed and has not come back is proposed again after this. */
#define ALARM_ATTEMPT_MS 5000
/* Between index checkpoints (mvcc skips one if little has changed). */
#define CHECKPOINT_MS 60000
/* An orderly end waits this long for worker jobs before it leaves them behind. */
#define STOP_WAIT_MS 5000
/* Operations in one transaction that apply takes. Not the configured number: gatewayd enforces that one, and members whose
 * configurations differ must still apply alike. */
#define APPLY_TXN_OPS_MAX 1000000

/* fr_apply.kind of an entry that is a command (frames.h); the others only move the applied index. */
#define APPLY_COMMAND 1

/* Prefixes in the store (mvcc_meta_put); 'R', 'i', 'm' are mvcc's own. */
#define META_LEASE 'l'    /* id -> ttl, index of the grant */
#define META_RESULTS 'o'  /* index of the batch -> results of this node's gateways */
#define META_ALARM 'a'    /* member id, kind -> empty */
#define META_DOWNGRADE 'd' /* "target" -> version, while there is a job */
#define META_IDENTITY 'n' /* "id" -> cluster id, member id */
#define META_AUTH 'A'     /* these four: auth.h */
#define META_USER 'u'
#define META_ROLE 'r'
#define META_TOKEN 't'

struct stored;
struct open_result;
struct watch_range;
struct history_request;
struct results;
struct alarms;
struct auth;
struct space;
struct upkeep;
struct auto_compact;
struct read_request;
struct read_job;
struct snap;

TAILQ_HEAD(history_queue, history_request);
TAILQ_HEAD(read_requests, read_request);
TAILQ_HEAD(read_jobs, read_job);

/* One slot for a gateway. While it is down, what is below the line is empty. */
struct gateway {
    struct stored *s;
    unsigned slot;
    struct link *link;
    bool up;
    uint64_t epoch; /* counts ups and downs: an answer made in another epoch is dropped */
    /* ---- */
    uint64_t instance;              /* of the peer */
    struct open_result *opens;      /* read.c: large results by request */
    struct interval_index *ranges;  /* feed.c: what it wants to hear of; NULL while down */
    struct watch_range *range_by_id;
    size_t prev_ranges;             /* of them, how many want prev_kv */
    int64_t sent_rev;               /* every live event up to it was sent on this link (or nobody wanted it) */
    bool feed_far;                  /* its feed is being fetched from the store (past.c) */
    bool feed_lost;                 /* its feed was overtaken by compaction: the link must start anew */
    struct history_queue near, far; /* past.c: requests to be served from the ring, from the store */
    size_t history_count;
};

struct stored_stats {
    uint64_t entries, duplicates, gaps, malformed; /* APPLY frames, by what became of them */
    uint64_t leases_granted, leases_renewed, leases_revoked, leases_expired;
    uint64_t events_sent, history_slices_near, history_slices_far;
    uint64_t results_large, results_repeated;
    struct histogram apply, commit, defrag, compaction_ms, lease_ttl, hash, hash_all;
    struct histogram ranges[2]; /* reads of keys: failed, answered */
    struct histogram backup, snap_save, snap_sync, compaction_pause_ms;
    struct op_stats {
        struct histogram took[2]; /* failed, done */
    } *ops;                       /* apply.c: by kind of command */
    uint64_t slow_applies;
    int64_t compacted_at; /* wall clock in seconds; 0: not since the start */
    uint64_t defrag_inflight;
};

struct stored {
    const struct conf *conf;
    struct loop *loop;
    struct mvcc *mvcc;
    struct leases *leases;
    struct ring *ring;

    /* Who we are; 0 until raftd was heard of once (kept in the store). */
    uint64_t cluster_id, member_id;
    uint64_t instance; /* of this start */

    /* What raftd said last. */
    struct link *raft;
    bool raft_up, raft_known; /* known: it has been up since our start */
    uint64_t term, leader, commit, members;
    bool is_learner;

    struct gateway gateways[GATEWAY_SLOTS + 1]; /* by slot; [0] is raftd, asking for another member */

    /* apply.c */
    bool in_batch;
    uint64_t applied; /* index of the last applied entry, the open batch included */
    size_t batch_bytes;
    uint64_t batch_us; /* when it began */
    struct buf response; /* of the command being applied */
    struct buf points;   /* for an APPLIED */
    uint64_t points_told; /* raftd has those up to this entry */

    struct results *results;
    struct alarms *alarms;
    struct auth *auth;
    uint64_t auth_starts; /* times that auth was loaded */
    struct space *space;
    struct upkeep *upkeep;
    struct auto_compact *auto_compact;

    /* read.c */
    struct read_requests arrived; /* of the message being read */
    struct read_requests parked;  /* SERVEs whose index is not applied yet */
    struct read_jobs stalled;     /* jobs that wait for room on a link */
    size_t backups;               /* views held for backups */

    /* past.c */
    bool history_running;
    unsigned history_turn_near, history_turn_far; /* slots that were served last */
    struct loop_timer *history_timer;

    struct snap *snap;
    char downgrade_target[24]; /* "3.6.0"; empty: no job */
    bool blank; /* the store was damaged and set aside: what is here lacks what was once told, until it has caught up */

    bool stopping;
    struct stored_stats stats;
    struct log_limit slow_limit; /* warning-apply-duration */
};

/* --- stored.c: the daemon's state from its beginning to its end ------------------------------------------ */
/* Opens the store below conf's data-dir (which exists and is locked by us). fatal if it cannot. */
void stored_init(struct stored *s, const struct conf *conf, struct loop *loop);
void stored_fini(struct stored *s); /* syncs and closes; no worker job may be running */
void stored_reopen(struct stored *s); /* snap.c: what was loaded takes the place of the store; no job may be running */
/* The store was found damaged while it ran, and others have it whole: ends the process; the next one sets it aside. */
void stored_give_up(struct stored *s);
void stored_links(struct stored *s); /* makes and starts the links */
/* raftd says who we are. E_CLUSTER_ID_MISMATCH if the store belongs to somebody else. */
int stored_identify(struct stored *s, uint64_t cluster_id, uint64_t member_id);
bool stored_is_leader(const struct stored *s);
struct gateway *stored_gateway(struct stored *s, uint64_t slot); /* NULL unless that slot is up; 0 is raftd */
void stored_stop(struct stored *s); /* on SIGTERM: finishes what runs, then stops the loop */

/* --- in.c: every frame that arrives ----------------------------------------------------------------------- */
extern const struct link_ops in_raft_ops;    /* arg: struct stored */
extern const struct link_ops in_gateway_ops; /* arg: struct gateway */

/* --- out.c: every frame that leaves ------------------------------------------------------------------------- */
void out_hello(struct stored *s); /* what the next HELLO on each link says */
void out_applied(struct stored *s);
void out_propose(struct stored *s, enum command_kind kind, struct slice body); /* by ourselves: nobody waits for a result */
void out_result(struct gateway *g, uint64_t req, int err, struct slice body);
void out_result_part(struct gateway *g, uint64_t req, uint64_t total, bool more, struct slice body);
void out_watching(struct gateway *g, uint64_t token);
void out_auth(struct gateway *g);
void out_event(struct gateway *g, const struct ring_event *e, bool last);
void out_past(struct gateway *g, uint64_t token, const struct ring_event *e, bool last, bool want_prev);
void out_past_end(struct gateway *g, uint64_t token, int64_t next, int64_t compact_rev);

/* --- apply.c: one committed command -> effects and result, exactly once --------------------------------------- */
void apply_init(struct stored *s);
void apply_fini(struct stored *s);
void apply_metrics(const struct stored *s, struct buf *out);
int apply_entry(struct stored *s, const struct fr_apply *fr); /* 0, or E_AGAIN: a gap */
void apply_end(struct stored *s);                             /* ends the batch, if one is open, and tells everybody */

/* --- lease_cmd.c: lease commands ------------------------------------------------------------------------------- */
/* Commands: 0 or an error; the response is appended to out. */
int lease_cmd_grant(struct stored *s, struct slice body, uint64_t index, struct buf *out);
int lease_cmd_revoke(struct stored *s, struct slice body, struct buf *out);
void lease_cmd_expire(struct stored *s, struct slice body, uint64_t entry_term);
/* Queries, on the loop's thread. */
bool lease_cmd_renewal_waits(const struct stored *s, struct slice body); /* its lease is due: wait until it is revoked */
int lease_cmd_keep_alive(struct stored *s, struct slice body, struct buf *out);
int lease_cmd_time_to_live(struct stored *s, struct slice body, struct buf *out);
int lease_cmd_leases(struct stored *s, struct buf *out);
void lease_cmd_load(struct stored *s);                 /* at start */
void lease_cmd_tick(struct stored *s, uint64_t now_ms); /* proposes one revoke for all that are due */

/* --- read.c: queries ------------------------------------------------------------------------------------------- */
void read_gather(struct stored *s, unsigned slot, uint64_t index, uint64_t req, struct slice command); /* copies */
void read_run(struct stored *s);                    /* end of a message, or of a batch: starts what may be answered */
void read_more(struct gateway *g, uint64_t req);    /* MORE */
void read_forget(struct gateway *g, uint64_t req);  /* FORGET */
void read_result(struct gateway *g, uint64_t req, struct slice body); /* sends it, in parts if it is large */
void read_drained(struct stored *s);                /* a link has room again */
void read_tick(struct stored *s, uint64_t now_ms);  /* gives up backups that nobody fetches, and renewals */
void read_gateway_down(struct gateway *g);
void read_fini(struct stored *s);

/* --- results.c: what this node's gateways are told about their commands, kept over a restart ---------------------- */
void results_load(struct stored *s);
void results_fini(struct stored *s);
void results_add(struct stored *s, const struct command *c, int err, struct slice body, bool delayed); /* in a batch */
void results_write(struct stored *s, uint64_t index); /* before mvcc_batch_end */
void results_send(struct stored *s);                  /* after it */
void results_repeat(struct gateway *g);               /* at its up */

/* --- feed.c: live events to gateways -------------------------------------------------------------------------------- */
void feed_hooks(struct stored *s); /* at start */
void feed_gateway_up(struct gateway *g);
void feed_gateway_down(struct gateway *g);
int feed_watch(struct gateway *g, const struct fr_watch *fr);
void feed_unwatch(struct gateway *g, uint64_t range_id);
void feed_send(struct gateway *g); /* as far as link and ring allow */
bool feed_wants(const struct gateway *g, struct slice key);
size_t feed_range_count(const struct gateway *g);

/* --- past.c: past events to gateways ------------------------------------------------------------------------------ */
int past_ask(struct gateway *g, const struct fr_history *fr);
void past_ask_feed(struct gateway *g); /* its live feed fell behind the ring */
void past_pump(struct stored *s);      /* serves what can be served now */
void past_gateway_down(struct gateway *g);
void past_init(struct stored *s);
void past_fini(struct stored *s);

/* --- upkeep.c: what runs in the background ------------------------------------------------------------------------------ */
void upkeep_init(struct stored *s);
void upkeep_fini(struct stored *s);
void upkeep_applied(struct stored *s, size_t bytes); /* a batch was applied */
void upkeep_compacted(struct stored *s, uint64_t index); /* a compaction was applied at index */
/* ... whose result, body, may be told when the records are gone. */
void upkeep_wait_compacted(struct stored *s, const struct command *c, struct slice body);
bool upkeep_barrier(struct gateway *g, uint64_t req, struct slice body); /* true: answered later, after physical compactions */
void upkeep_defragment(struct gateway *g, uint64_t req);
void upkeep_defragment_at_start(struct stored *s); /* if it frees bootstrap-defrag-threshold-megabytes */
void upkeep_hash(struct gateway *g, uint64_t req, struct slice body);
void upkeep_hash_all(struct gateway *g, uint64_t req);

/* --- auto_compact.c: proposes compactions by time or by count ------------------------------------------------------------ */
struct auto_compact *auto_compact_new(const struct conf *conf, uint64_t now_ms);
void auto_compact_free(struct auto_compact *a);
/* The revision to compact to now, or 0. To be called at least every second. */
int64_t auto_compact_tick(struct auto_compact *a, uint64_t now_ms, int64_t rev, bool leading);

/* --- downgrade.c --- answers are DowngradeResponse */
void downgrade_load(struct stored *s);
int downgrade_apply(struct stored *s, struct slice body, struct buf *out);    /* ENABLE, CANCEL */
int downgrade_validate(struct stored *s, struct slice body, struct buf *out); /* VALIDATE */
void downgrade_add_info(const struct stored *s, struct buf *out);             /* to StatusResponse */

/* --- alarm.c ------------------------------------------------------------------------------------------------------------- */
enum alarm_kind { ALARM_NONE = 0, ALARM_NOSPACE = 1, ALARM_CORRUPT = 2 };
void alarm_load(struct stored *s);
void alarm_fini(struct stored *s);
bool alarm_active(const struct stored *s, enum alarm_kind kind); /* on any member */
int alarm_apply(struct stored *s, struct slice body, struct buf *out); /* ACTIVATE, DEACTIVATE */
int alarm_get(struct stored *s, struct slice body, struct buf *out);
void alarm_each(const struct stored *s, void (*cb)(void *arg, uint64_t member, enum alarm_kind kind), void *arg);
const char *alarm_name(enum alarm_kind kind); /* "NOSPACE" */
/* Proposes NOSPACE if the store is too large or the disk too full; or its end, if it was for the disk and there is room. */
void alarm_check_space(struct stored *s, uint64_t now_ms);
void alarm_differs(struct stored *s, uint64_t member, uint64_t now_ms); /* proposes CORRUPT, if we lead */
uint64_t alarm_quota(const struct stored *s); /* bytes; 0: none */

/* --- space.c: the disk under the store ------------------------------------------------------------------------------------- */
enum space_state { SPACE_FULL, SPACE_TIGHT, SPACE_AMPLE }; /* tight: neither a reason to raise NOSPACE nor to end it */
void space_init(struct stored *s); /* before the store is opened: opening writes */
void space_fini(struct stored *s);
void space_tick(struct stored *s); /* makes the reserve, or gives it up */
enum space_state space_state(const struct stored *s);
bool space_can_defragment(const struct stored *s); /* there is room for the tables that it writes before it deletes others */

/* --- status.c ---------------------------------------------------------------------------------------------------------------- */
void status_init(struct stored *s);
void status_answer(struct gateway *g, const struct fr_status *fr);

#endif
