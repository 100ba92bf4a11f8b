/* sim - whole clusters in one process on a false clock, network and disk, all from one seed, running the shipped core,
 * turn, log and (in one mode) apply code.
 *
 *   sim.c         the world: clock, events, chance, trace          sim_node.c    one member: turn, log, start, crash
 *   sim_disk.c    files whose unsynced bytes a power cut loses     sim_store.c   its stored: applies, reads, snapshots
 *   sim_net.c     messages, cuts, loss                             sim_client.c  puts, gets, swaps and their history
 *   sim_fault.c   what goes wrong, and when                        sim_check.c   the promises, after every step
 *   scenario.c    text scenarios on the same world                 main.c        seeds, workers, replay
 *
 * Nothing here looks at a real clock, an address or a hash order: the same seed is the same run, forever. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/rand.h"
#include "raftd/members.h"
#include "raftd/raft.h"
#include "raftd/raft_int.h"
#include "raftd/turn.h"
#include "raftd/wal.h"

#define SIM_SLOTS 7 /* places for members: those of the beginning, and others that come later */
#define SIM_KEYS 6
#define SIM_CLIENTS 4
#define SIM_INDEX_MAX 16384
#define SIM_TERM_MAX 4096
#define SIM_ELECTION_MS 100
#define SIM_HEARTBEAT_MS 20
#define SIM_MS 1000 /* the clock counts microseconds */
#define SIM_SEGMENT_BYTES 16384
#define SIM_ID_STEP 10 /* a member that comes after another one in its place has an id larger by this */

/* --- the world (sim.c) ----------------------------------------------------------------------------- */

enum sim_event_kind {
    SIM_EV_MSG,     /* msg arrives at node */
    SIM_EV_TURN,    /* end of a turn of the loop; also timers */
    SIM_EV_DISK,    /* the log's writer takes a step */
    SIM_EV_STORE,   /* stored takes what waits */
    SIM_EV_APPLIED, /* raftd hears APPLIED: index, aux durable */
    SIM_EV_STORE_UP,
    SIM_EV_START,   /* of a member that is down */
    SIM_EV_CLIENT,  /* client `index` asks, or gives up operation `aux` */
    SIM_EV_REQUEST, /* operation `index` arrives at node */
    SIM_EV_ANSWER,  /* operation `index` is answered: aux = error */
    SIM_EV_FAULT,
    SIM_EV_SNAP,      /* a snapshot arrives whole: data struct sim_snap */
    SIM_EV_SNAP_SAID, /* how that ended: member aux, index; epoch 1: well */
    SIM_EV_WORD,      /* what members say to each other beside raft messages: data struct sim_word */
    SIM_EV_FLAP,      /* a flapping link turns over */
    SIM_EV_RESUME,    /* clears what a fault made slow: aux = what */
};

struct sim_event {
    uint64_t at_us, order;
    enum sim_event_kind kind;
    unsigned node;  /* position */
    uint64_t epoch; /* of the node (of its stored): of an earlier life it is dropped */
    uint64_t index, aux;
    void *data; /* MSG: struct raft_msg with its entries; ANSWER, SNAP: owned */
};

struct sim_faults { /* what may happen in this seed */
    bool crash, power, disk, damage, net, partition, clock, pause, members, transfer, snapshots, full, store;
    uint64_t every_us; /* about one fault in this time */
    uint32_t leaders;  /* per mille of new leaders that soon end, or are cut off */
};

struct sim_net {
    bool cut[SIM_SLOTS][SIM_SLOTS];
    uint32_t loss, twice, late; /* per mille */
    uint64_t latency_us;
    bool flapping;
    bool flap[SIM_SLOTS][SIM_SLOTS];
};

struct sim_state {
    uint64_t applied, hash;
    uint64_t value[SIM_KEYS], mod[SIM_KEYS];
    struct raft_member members[RAFT_MEMBERS_MAX];
    size_t member_count;
    uint64_t conf_index;
};

struct sim_log_entry { /* what is committed at an index */
    struct entry *entry;
    uint64_t term; /* in which it was committed, or a later one: leaders of the terms after it have the entry */
    uint64_t hash; /* of the state after it */
    uint64_t mvcc; /* of stored's keyspace then, with bit 32 set; 0: nobody has told */
};

struct sim_version {
    uint64_t index, value;
};

struct sim_oracle { /* what all must agree on */
    struct sim_log_entry log[SIM_INDEX_MAX];
    uint64_t last;          /* highest committed index that anyone has shown */
    uint64_t applied;       /* versions and hashes are known up to here */
    struct sim_state state; /* after it */
    uint64_t leader_of[SIM_TERM_MAX];
    uint64_t vote_of[SIM_TERM_MAX][SIM_SLOTS];
    uint64_t vote_by[SIM_TERM_MAX][SIM_SLOTS];
    struct sim_version *versions[SIM_KEYS];
    size_t version_count[SIM_KEYS], version_cap[SIM_KEYS];
    uint64_t floor; /* index of the latest operation that a client knows to be done */
};

struct sim_stats {
    uint64_t events, messages, elections, commits, writes_ok, reads_ok, writes_unknown, refused, crashes, powers, snaps,
        damaged, faults, restarts;
};

struct sim_node;
struct sim_op;

struct sim {
    uint64_t seed, now_us, steps;
    struct rand rand;
    struct sim_event *heap;
    size_t heap_count, heap_cap;
    uint64_t orders;
    struct sim_faults faults;
    bool faults_on, manual; /* manual: a scenario moves the messages and the clock */
    bool mvcc;              /* stored's own apply code */
    size_t voters, node_count;
    size_t append_bytes;
    uint64_t keep_entries; /* below what is durable: few make snapshots */
    struct sim_node *nodes[SIM_SLOTS];
    struct sim_net net;
    struct sim_oracle oracle;
    struct sim_op *ops;
    size_t op_count, op_cap;
    uint64_t clients_until_us;
    unsigned client_target[SIM_CLIENTS];
    uint64_t damaged_max;
    struct sim_stats stats;
    struct buf said; /* scenario: what happened since it was last looked at */

    sigjmp_buf *guard; /* where the running member dies */
};

extern bool sim_verbose;
extern struct sim *sim_now;

void sim_init(struct sim *s, uint64_t seed);
void sim_fini(struct sim *s);
void sim_at(struct sim *s, uint64_t at_us, struct sim_event ev);
bool sim_step(struct sim *s, uint64_t until_us); /* one event; false: none before until_us */
void sim_run(struct sim *s, uint64_t us);
void sim_event_do(struct sim *s, struct sim_event *ev); /* now; frees its data */
bool sim_chance(struct sim *s, uint32_t per_mille);
uint64_t sim_below(struct sim *s, uint64_t limit);
#define sim_trace(s, ...) (sim_verbose ? sim_say(s, __VA_ARGS__) : (void)0)
void sim_say(struct sim *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
_Noreturn void sim_broken(struct sim *s, const char *promise, const char *fmt, ...) PRINTF_LIKE(3, 4);
#define sim_must(s, expr) ((expr) ? (void)0 : sim_broken(s, #expr, " "))

/* --- sim_disk.c ------------------------------------------------------------------------------------- */
struct sim_disk;
extern const struct disk sim_disk_ops;
struct sim_disk *sim_disk_new(struct sim *s, unsigned pos);
void sim_disk_free(struct sim_disk *d);
void sim_disk_wipe(struct sim_disk *d);
void sim_disk_crash(struct sim_disk *d, bool power);               /* power: what is not synced goes, in part */
bool sim_disk_damage(struct sim_disk *d, char *what, size_t size); /* of what was synced; false: nothing to damage */
void sim_disk_full(struct sim_disk *d, bool full);
bool sim_disk_has_log(const struct sim_disk *d);
const char *sim_disk_path(const struct sim_disk *d);

/* --- sim_net.c --------------------------------------------------------------------------------------- */
void sim_net_send(struct sim *s, const struct raft_msg *m);
void sim_msg_free(struct raft_msg *m);
struct raft_msg *sim_msg_copy(const struct raft_msg *m);
bool sim_net_open(const struct sim *s, unsigned from, unsigned to);

/* Forwarded proposals and read indexes. */
struct sim_word {
    enum { SIM_FORWARD, SIM_READ_INDEX, SIM_READ_INDEX_SAID } kind;
    unsigned from;
    uint64_t tag, index; /* FORWARD: tag is the operation */
    int err;
    size_t len; /* of a forwarded command */
    uint8_t bytes[];
};

/* --- sim_store.c: stored ------------------------------------------------------------------------------- */
struct sim_snap {
    uint64_t from, term; /* member; term of entry state.applied */
    struct sim_state state;
};
struct sim_mvcc;
struct sim_item {        /* on its way from raftd to stored */
    struct entry *entry; /* APPLY */
    uint64_t index, op;  /* SERVE */
};
struct sim_store {
    bool up;
    uint64_t epoch;
    struct sim_state state, durable;
    uint64_t applied_before; /* its last end */
    struct sim_item *items;
    size_t item_head, item_count, item_cap;
    bool scheduled;
    uint64_t told_us; /* when its last APPLIED arrives */
    struct sim_mvcc *mvcc;
};
struct sim_command {
    uint64_t op, kind, key, value, expect, node, life; /* node, life: who waits for it */
};
enum sim_op_kind { SIM_PUT, SIM_GET, SIM_CAS };
void sim_state_apply(struct sim_state *st, const struct entry *e, bool *done);
bool sim_command_get(const struct entry *e, struct sim_command *c);
void sim_store_push(struct sim *s, struct sim_node *n, struct sim_item item);
void sim_store_work(struct sim *s, struct sim_node *n);
void sim_store_start(struct sim *s, struct sim_node *n);
void sim_store_unlink(struct sim_store *st);
void sim_store_crash(struct sim *s, struct sim_node *n, bool power);
void sim_store_sync(struct sim *s, struct sim_node *n);

/* --- sim_mvcc.c: stored's mvcc on a database in memory, beside the simple state --------------------------- */
struct sim_mvcc *sim_mvcc_open(struct sim *s, unsigned pos);
void sim_mvcc_close(struct sim *s, struct sim_mvcc *sm, unsigned pos, bool power);
void sim_mvcc_wipe(unsigned pos);
void sim_mvcc_clean(long pid); /* of a worker that has ended */
void sim_mvcc_apply(struct sim *s, struct sim_mvcc *sm, const struct entry *e, bool done);
void sim_mvcc_check(struct sim *s, struct sim_mvcc *sm, uint64_t index);
uint64_t sim_mvcc_applied(const struct sim_mvcc *sm);
uint64_t sim_mvcc_durable(const struct sim_mvcc *sm);
void sim_mvcc_sync(struct sim_mvcc *sm);

/* --- sim_node.c: one member ------------------------------------------------------------------------------ */
struct sim_node {
    struct sim *sim;
    unsigned pos;
    uint64_t id;
    bool used, up, damaged, removed, joiner;
    uint64_t epoch, life; /* of its raftd: rises with each end */
    struct sim_disk *disk;
    struct wal *wal;
    struct raft *raft;
    struct turn *turn;
    struct members members; /* as raftd's: of committed entries */
    struct sim_store store;

    uint64_t fuse; /* dies after so many effects; 0: none */
    bool fuse_power;
    bool fuse_names; /* dies when it is about to sync its folder: a rare moment, and a delicate one */
    uint64_t paused_until_us;
    int64_t clock_offset_us, clock_ppm;
    uint64_t sync_us, write_us; /* slow disk */
    bool turn_scheduled, disk_scheduled;
    uint64_t turn_at_us, tick_at_us;
    uint64_t stopping_at_us;

    /* what a restart must find again */
    struct {
        uint64_t ticket, index, term, hard_term, vote;
    } promised[256], safe;
    size_t promise_count;

    bool was_leader;
    uint64_t seen_commit;
    bool gone;           /* the cluster has removed it, whether it knows or not */
    uint64_t snap_index; /* of the last snapshot that stored took */
    bool ahead;          /* stored is ahead of the log: it waits */
    /* stored is, or will be, this snapshot, and the log not yet; state.applied 0: none. Outlives ends. */
    struct sim_snap pending;
};
struct sim_node *sim_node_of(struct sim *s, uint64_t id); /* NULL: nobody */
uint64_t sim_node_now_ms(const struct sim_node *n);
void sim_node_use(struct sim *s, unsigned pos, uint64_t id, bool joiner);
void sim_node_start(struct sim *s, struct sim_node *n);
void sim_node_crash(struct sim *s, struct sim_node *n, bool power);
void sim_node_effect(struct sim_node *n); /* counts down to a death that was planned */
void sim_node_event(struct sim *s, struct sim_node *n, const struct sim_event *ev);
void sim_node_wake(struct sim *s, struct sim_node *n, uint64_t in_us);
void sim_node_write(struct sim_node *n, const uint64_t *terms, size_t count);
void sim_node_gathered(struct sim *s, struct sim_node *n);
_Noreturn void sim_node_die(struct sim_node *n);

/* --- sim_snap.c: snapshots from member to member ------------------------------------------------------------ */
void sim_snap_send(struct sim *s, struct sim_node *n, const struct raft_msg *m);
void sim_snap_event(struct sim *s, struct sim_node *n, const struct sim_event *ev);
void sim_snap_resume(struct sim *s, struct sim_node *n); /* stored has come back: on which side of the swap? */

/* --- sim_client.c ------------------------------------------------------------------------------------------ */
struct sim_op {
    uint64_t id; /* position + 1 */
    unsigned client;
    enum sim_op_kind kind;
    uint64_t key, value, expect;
    uint64_t asked_us, floor;
    unsigned node;
    bool done, unknown;
    uint64_t index; /* where it took place */
    int told_err;
    uint64_t told_value, told_mod;
};
struct sim_result { /* given to an ANSWER */
    int err;
    bool done;           /* CAS: swapped */
    uint64_t index;      /* of the entry; of the state that was read */
    uint64_t value, mod; /* GET */
};
void sim_client_start(struct sim *s);
void sim_client_event(struct sim *s, const struct sim_event *ev);
void sim_answer(struct sim *s, struct sim_node *n, uint64_t op, struct sim_result r);
struct sim_op *sim_op_new(struct sim *s, unsigned client, enum sim_op_kind kind, uint64_t key);
void sim_request(struct sim *s, struct sim_node *n, struct sim_op *op);
void sim_result_check(struct sim *s, struct sim_op *op, const struct sim_result *r);

/* --- sim_fault.c --------------------------------------------------------------------------------------------- */
void sim_fault_init(struct sim *s);
void sim_fault_event(struct sim *s, const struct sim_event *ev);
void sim_fault_leader(struct sim *s, struct sim_node *n); /* has just been elected */
void sim_fault_heal(struct sim *s);
void sim_fault_start_later(struct sim *s, struct sim_node *n);
void sim_fault_gone(struct sim *s, const struct sim_node *ended); /* its process; the others may notice */

/* --- sim_check.c ----------------------------------------------------------------------------------------------- */
void sim_check(struct sim *s, struct sim_node *n);
void sim_check_matching(struct sim *s);
void sim_check_vote(struct sim *s, const struct raft_msg *m);
void sim_check_applied(struct sim *s, struct sim_node *n, const struct entry *e);
void sim_check_found(struct sim *s, struct sim_node *n, const struct wal_found *found, struct wal *w);
void sim_check_live(struct sim *s);
void sim_oracle_fini(struct sim_oracle *o);
void sim_oracle_commit(struct sim *s, struct entry *e, uint64_t term); /* borrows; term: of who shows it */
uint64_t sim_oracle_value(const struct sim *s, uint64_t key, uint64_t index, uint64_t *mod);
size_t sim_oracle_versions(const struct sim *s, uint64_t key, uint64_t index); /* of a key, up to index */
void sim_oracle_state(const struct sim *s, uint64_t index, struct sim_state *st);
struct sim_node *sim_leader(struct sim *s);

/* --- scenario.c -------------------------------------------------------------------------------------------------- */
int scenario_run(const char *path, bool accept);

#endif
