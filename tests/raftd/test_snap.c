/* Snapshots as raftd relays them, with a real core and a real log, and the test in the place of stored and of the other
 * members: what is said to whom, what stays on disk at which moment, and what a start makes of it. */
#include "tests/raftd/wal_box.h"

#include "common/rand.h"
#include "raftd/snap_int.h"

#define SELF 1
#define OTHER 2
#define THIRD 3
#define ID 77u

/* --- in the place of loop, links and peers ------------------------------------------------------------------- */

struct said {
    uint64_t to; /* a member; 0: stored */
    struct frame f;
};
static struct said said[64];
static size_t said_count;
static uint64_t now_ms = 1000000;
static bool peers_gone;

uint64_t loop_now_ms(const struct loop *l)
{
    UNUSED(l);
    return now_ms;
}

static void say(uint64_t to, const struct frame *f)
{
    cr_assert_lt(said_count, ARRAY_LEN(said));
    said[said_count++] = (struct said){to, *f};
}

void link_send(struct link *l, const struct frame *frame)
{
    UNUSED(l);
    say(0, frame);
}

bool peers_send(struct peers *p, uint64_t member, enum peer_stream stream, const struct frame *f)
{
    UNUSED(p);
    cr_assert_eq(stream, PEER_STREAM_SNAPS);
    if (!peers_gone)
        say(member, f);
    return !peers_gone;
}

void membership_changed(struct raftd *d) { UNUSED(d); }
void peering_members(struct raftd *d) { UNUSED(d); }
void out_tell_all(struct raftd *d) { UNUSED(d); }

/* The first frame of this type that was said, taken out. */
static const struct frame *heard(uint64_t to, enum frame_type type)
{
    static struct frame f;

    for (size_t i = 0; i < said_count; i++) {
        if (said[i].to != to || said[i].f.type != type)
            continue;
        f = said[i].f;
        memmove(&said[i], &said[i + 1], (--said_count - i) * sizeof(said[0]));
        return &f;
    }
    return NULL;
}

/* --- one raftd -------------------------------------------------------------------------------------------------- */

static void op_send(void *arg, const struct raft_msg *m)
{
    if (m->type == RAFT_MSG_SNAP)
        snap_need(arg, m->to);
}

static uint64_t op_persist(void *arg, const struct raft_ready *rd)
{
    struct raftd *d = arg;

    if (rd->hard_changed)
        wal_hard(d->wal, rd->term, rd->vote, rd->hard_seq);
    if (rd->truncate_from > 0)
        wal_truncate(d->wal, rd->truncate_from);
    wal_append(d->wal, rd->entries, rd->entry_count);
    return wal_submit(d->wal, raft_commit(d->raft));
}

static uint64_t applied_last;
static void op_apply(void *arg, const struct entry *e) { UNUSED(arg); applied_last = e->index; }
static void op_serve(void *a, unsigned s, uint64_t i, uint64_t r, struct slice c) { UNUSED(a); UNUSED(s); UNUSED(i); UNUSED(r); UNUSED(c); }
static bool op_room(void *arg) { UNUSED(arg); return true; }
static void op_refuse(void *a, unsigned s, uint64_t r, int e) { UNUSED(a); UNUSED(s); UNUSED(r); UNUSED(e); }
static void op_changed(void *arg) { UNUSED(arg); }
static void op_conf(void *arg, const struct entry *e) { UNUSED(arg); UNUSED(e); }
static void op_drop(void *arg, uint64_t below) { UNUSED(arg); UNUSED(below); }
static bool op_no_space(void *arg) { UNUSED(arg); return false; }

static const struct turn_ops ops = {.send = op_send, .persist = op_persist, .apply = op_apply, .serve = op_serve,
                                    .apply_room = op_room, .refuse = op_refuse, .changed = op_changed, .conf = op_conf,
                                    .drop = op_drop, .no_space = op_no_space};

struct node {
    struct raftd d;
    struct box box; /* its log */
};

static void turn(struct node *n)
{
    turn_clock(n->d.turn, now_ms);
    for (int i = 0; i < 20; i++) {
        turn_end(n->d.turn);
        wal_flush(n->d.wal);
        turn_durable(n->d.turn, wal_poll(n->d.wal));
        if (!snap_run(&n->d, now_ms) && !raft_has_ready(n->d.raft))
            break;
    }
}

/* A member of three (of one if `alone`) on the log in the box, whose entries 1..last are of term 1. */
static void node_start(struct node *n, size_t members, const struct keep_repair *repair)
{
    struct raft_member list[3] = {{.id = SELF}, {.id = OTHER}, {.id = THIRD}};
    struct raftd *d = &n->d;

    *d = (struct raftd){.cluster_id = BOX_CLUSTER, .member_id = SELF, .wal = n->box.wal};
    for (size_t i = 0; i < members; i++)
        cr_assert_eq(members_apply(&d->members, &(struct raft_conf_change){.op = RAFT_CONF_ADD, .id = list[i].id}), 0);
    snap_start(d, n->box.dir, repair);
    struct wal_found *f = &n->box.found;
    d->raft = raft_new(&(struct raft_conf){.id = SELF, .seed = 1, .election_ms = 1000, .heartbeat_ms = 100,
                                           .append_bytes_max = 1 << 20, .inflight_bytes_max = 1 << 20,
                                           .cache_bytes_max = 1 << 20, .uncommitted_bytes_max = 1 << 20,
                                           .check_quorum = true,
                                           .storage = {wal_term, wal_entries, d->wal}},
                       &(struct raft_start){.term = f->term, .vote = f->vote, .first_index = f->first_index,
                                            .first_prev_term = f->prev_term, .last_index = f->last_index,
                                            .last_term = f->last_term, .commit = f->commit, .members = list,
                                            .member_count = members, .vote_from = snap_votes_from(d)},
                       now_ms);
    d->turn = turn_new(d->raft, &ops, d, &(struct turn_conf){.wait_ms = 5000, .backlog_max = 5000,
                                                             .apply_bytes_max = 1 << 20, .wait_bytes_max = 1 << 20,
                                                             .wait_count_max = 100},
                       now_ms);
    said_count = 0;
    applied_last = 0;
    turn(n);
}

static void node_new(struct node *n, size_t members, uint64_t last)
{
    memset(n, 0, sizeof(*n));
    box_init(&n->box);
    box_create(&n->box);
    box_hard(&n->box, 1, 0, 1);
    if (last > 0)
        box_batch(&n->box, 1, last, 10);
    cr_assert(box_reopen(&n->box), "%s", n->box.why.data);
    node_start(n, members, NULL);
}

static void node_end(struct node *n)
{
    turn_free(n->d.turn);
    raft_free(n->d.raft);
    members_fini(&n->d.members);
    snap_fini(&n->d);
}

/* kill -9, and a start. */
static void node_restart(struct node *n, size_t members)
{
    struct keep_repair repair;

    node_end(n);
    cr_assert(box_reopen(&n->box), "%s", n->box.why.data);
    node_start(n, members, keep_repair_read(n->box.dir, &repair) == 0 ? &repair : NULL);
}

static void node_fini(struct node *n)
{
    node_end(n);
    box_fini(&n->box);
}

static bool file_is_there(struct node *n, const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", n->box.dir, name);
    return access(path, F_OK) == 0;
}

static struct buf table_of_three(void)
{
    struct members m = {0};
    struct buf b = BUF_INIT;

    for (uint64_t id = 1; id <= 3; id++)
        members_apply(&m, &(struct raft_conf_change){.op = RAFT_CONF_ADD, .id = id});
    members_encode(&m, &b);
    members_fini(&m);
    return b;
}

static void offer(struct node *n, uint64_t index, uint64_t log_term, uint64_t vote_from)
{
    struct buf table = table_of_three();

    cr_assert_eq(snap_peer_frame(&n->d, OTHER, FRAME(snap_offer, SNAP_OFFER, .id = ID, .term = 5, .index = index,
                                                     .log_term = log_term, .vote_from = vote_from,
                                                     .members = buf_slice(&table))), 0);
    buf_fini(&table);
    turn(n);
}

static void part(struct node *n, uint64_t number, bool last)
{
    cr_assert_eq(snap_peer_frame(&n->d, OTHER, FRAME(snap_part, SNAP_PART, .id = ID, .part = number, .last = last,
                                                     .bytes = SLICE_LIT("pairs"))), 0);
    turn(n);
}

static void follow(struct node *n, uint64_t term, uint64_t commit)
{
    turn_clock(n->d.turn, now_ms);
    turn_recv(n->d.turn, &(struct raft_msg){.type = RAFT_MSG_BEAT, .from = OTHER, .to = SELF, .term = term,
                                            .commit = commit});
    turn(n);
}

static void lead(struct node *n)
{
    now_ms += 5000;
    turn_clock(n->d.turn, now_ms);
    turn_tick(n->d.turn);
    turn(n);
    turn_recv(n->d.turn, &(struct raft_msg){.type = RAFT_MSG_VOTE_SAID, .from = THIRD, .to = SELF,
                                            .term = raft_term(n->d.raft)});
    turn(n);
    cr_assert_eq(raft_role(n->d.raft), RAFT_LEADER);
}

/* --- to a member that is behind -------------------------------------------------------------------------------- */

Test(snap, a_member_that_is_behind_gets_the_store_part_by_part)
{
    struct node n;
    const struct frame *f;
    node_new(&n, 3, 20);
    cr_assert_eq(snap_stored_up(&n.d, 20, 20), 0);
    turn(&n);

    snap_need(&n.d, OTHER);
    turn(&n);
    cr_assert((f = heard(0, FR_SNAP_SAVE)));
    uint64_t id = f->snap_save.id;
    cr_assert_eq(snap_stored_frame(&n.d, FRAME(snap_saved, SNAP_SAVED, .id = id, .index = 20)), 0);
    cr_assert((f = heard(OTHER, FR_SNAP_OFFER)));
    cr_assert_eq(f->snap_offer.index, 20);
    cr_assert_eq(f->snap_offer.log_term, 1);

    /* credit and parts pass through; those of another transfer do not */
    snap_peer_frame(&n.d, OTHER, FRAME(snap_more, SNAP_MORE, .id = id, .from = 0, .until = 4));
    cr_assert((f = heard(0, FR_SNAP_MORE)));
    cr_assert_eq(f->snap_more.until, 4);
    snap_peer_frame(&n.d, THIRD, FRAME(snap_more, SNAP_MORE, .id = id, .from = 0, .until = 4));
    cr_assert_not(heard(0, FR_SNAP_MORE));
    snap_stored_frame(&n.d, FRAME(snap_part, SNAP_PART, .id = id, .part = 0, .bytes = SLICE_LIT("x")));
    cr_assert(heard(OTHER, FR_SNAP_PART));
    snap_stored_frame(&n.d, FRAME(snap_part, SNAP_PART, .id = id + 1, .part = 0, .bytes = SLICE_LIT("x")));
    cr_assert_not(heard(OTHER, FR_SNAP_PART));

    /* another one that needs one waits; this one ends it */
    snap_need(&n.d, THIRD);
    turn(&n);
    cr_assert_not(heard(0, FR_SNAP_SAVE));
    snap_peer_frame(&n.d, OTHER, FRAME(snap_said, SNAP_SAID, .id = id, .err = 0));
    cr_assert(heard(0, FR_SNAP_DROP));
    snap_need(&n.d, THIRD);
    turn(&n);
    cr_assert(heard(0, FR_SNAP_SAVE));
    struct snap_stats s;
    snap_stats(&n.d, &s);
    cr_assert_eq(s.sent, 1);
    node_fini(&n);
}

/* The window is what may go ahead; then credit waits until what was sent is paid for. */
Test(snap, a_transfer_is_no_faster_than_it_may_be)
{
    static uint8_t bytes[512 * KIB];
    static struct node n;
    node_new(&n, 3, 20);
    n.d.conf.snapshot_bytes_per_second = 1 * MIB;
    snap_stored_up(&n.d, 20, 20);
    turn(&n);
    snap_need(&n.d, OTHER);
    turn(&n);
    uint64_t id = heard(0, FR_SNAP_SAVE)->snap_save.id;
    snap_stored_frame(&n.d, FRAME(snap_saved, SNAP_SAVED, .id = id, .index = 20));
    snap_peer_frame(&n.d, OTHER, FRAME(snap_more, SNAP_MORE, .id = id, .from = 0, .until = 4));
    cr_assert(heard(0, FR_SNAP_MORE), "nothing was sent yet");
    for (uint64_t part = 0; part < 2; part++)
        snap_stored_frame(&n.d, FRAME(snap_part, SNAP_PART, .id = id, .part = part, .bytes = slice_of(bytes, sizeof(bytes))));

    uint64_t sent_ms = now_ms;
    snap_peer_frame(&n.d, OTHER, FRAME(snap_more, SNAP_MORE, .id = id, .from = 1, .until = 5));
    snap_peer_frame(&n.d, OTHER, FRAME(snap_more, SNAP_MORE, .id = id, .from = 2, .until = 6));
    cr_assert_not(heard(0, FR_SNAP_MORE));
    cr_assert_eq(snap_deadline(&n.d), sent_ms + 1000);
    now_ms = sent_ms + 999;
    turn(&n);
    cr_assert_not(heard(0, FR_SNAP_MORE));
    now_ms = sent_ms + 1000;
    turn(&n);
    const struct frame *f = heard(0, FR_SNAP_MORE);
    cr_assert(f);
    cr_assert_eq(f->snap_more.until, 6);
    cr_assert_not(heard(0, FR_SNAP_MORE), "once");
    cr_assert_gt(snap_deadline(&n.d), now_ms);
    node_fini(&n);
}

/* Its values may be as large as a request may be: a window of them at a low rate must not look like silence. */
Test(snap, a_slow_transfer_never_pauses_so_long_that_it_is_given_up)
{
    static uint8_t bytes[8 * MIB];
    static struct node n;
    node_new(&n, 3, 20);
    n.d.conf.snapshot_bytes_per_second = 1;
    snap_stored_up(&n.d, 20, 20);
    turn(&n);
    snap_need(&n.d, OTHER);
    turn(&n);
    uint64_t id = heard(0, FR_SNAP_SAVE)->snap_save.id;
    snap_stored_frame(&n.d, FRAME(snap_saved, SNAP_SAVED, .id = id, .index = 20));
    snap_peer_frame(&n.d, OTHER, FRAME(snap_more, SNAP_MORE, .id = id, .from = 0, .until = 4));
    cr_assert(heard(0, FR_SNAP_MORE));
    for (uint64_t part = 0; part < 4; part++)
        snap_stored_frame(&n.d, FRAME(snap_part, SNAP_PART, .id = id, .part = part, .bytes = slice_of(bytes, sizeof(bytes))));
    snap_peer_frame(&n.d, OTHER, FRAME(snap_more, SNAP_MORE, .id = id, .from = 4, .until = 8));
    cr_assert_not(heard(0, FR_SNAP_MORE));
    now_ms += 10000;
    turn(&n);
    cr_assert(heard(0, FR_SNAP_MORE));
    node_fini(&n);
}

Test(snap, a_member_that_falls_silent_ends_the_transfer)
{
    struct node n;
    const struct frame *f;
    node_new(&n, 3, 20);
    snap_stored_up(&n.d, 20, 20);
    snap_need(&n.d, OTHER);
    turn(&n);
    cr_assert((f = heard(0, FR_SNAP_SAVE)));
    uint64_t id = f->snap_save.id;
    snap_stored_frame(&n.d, FRAME(snap_saved, SNAP_SAVED, .id = id, .index = 20));

    now_ms += 10000;
    snap_peer_frame(&n.d, OTHER, FRAME(snap_more, SNAP_MORE, .id = id, .from = 0, .until = 4));
    now_ms += 10000;
    turn(&n);
    cr_assert_not(heard(0, FR_SNAP_DROP));
    now_ms += 10000;
    turn(&n);
    cr_assert(heard(0, FR_SNAP_DROP));

    /* and one that speaks of a transfer that we know nothing of is told */
    snap_peer_frame(&n.d, OTHER, FRAME(snap_more, SNAP_MORE, .id = id, .from = 3, .until = 7));
    cr_assert((f = heard(OTHER, FR_SNAP_SAID)));
    cr_assert_neq(f->snap_said.err, 0);
    node_fini(&n);
}

/* --- from a member that has more -------------------------------------------------------------------------------- */

Test(snap, the_log_follows_when_stored_has_become_the_snapshot)
{
    struct node n;
    const struct frame *f;
    node_new(&n, 3, 20);
    snap_stored_up(&n.d, 10, 10);
    follow(&n, 5, 12);

    offer(&n, 1000, 4, 0);
    cr_assert(heard(0, FR_SNAP_LOAD));
    snap_stored_frame(&n.d, FRAME(snap_more, SNAP_MORE, .id = ID, .from = 0, .until = 4));
    cr_assert((f = heard(OTHER, FR_SNAP_MORE)));
    cr_assert_eq(f->snap_more.again, 0);
    part(&n, 0, false);
    cr_assert(heard(0, FR_SNAP_PART));
    cr_assert_not(file_is_there(&n, "SNAPSHOT"));
    part(&n, 1, true);
    cr_assert(heard(0, FR_SNAP_PART));
    cr_assert(file_is_there(&n, "SNAPSHOT")); /* before stored can have swapped */
    cr_assert_eq(raft_last_index(n.d.raft), 20);

    cr_assert_eq(snap_stored_frame(&n.d, FRAME(snap_loaded, SNAP_LOADED, .id = ID, .index = 1000)), 0);
    cr_assert_eq(raft_last_index(n.d.raft), 1000);
    cr_assert_eq(raft_commit(n.d.raft), 1000);
    cr_assert_eq(wal_first_index(n.d.wal), 1001);
    cr_assert_not(file_is_there(&n, "SNAPSHOT"));
    cr_assert((f = heard(OTHER, FR_SNAP_SAID)));
    cr_assert_eq(f->snap_said.err, 0);
    cr_assert_eq(snap_applied(&n.d, &(struct fr_applied){.applied = 1000, .durable = 1000, .room = 1000}), 0);

    /* entries behind it are handed on, and all of it is there after a restart */
    struct entry *e = box_entry(1001, 5, 10);
    turn_recv(n.d.turn, &(struct raft_msg){.type = RAFT_MSG_APPEND, .from = OTHER, .to = SELF, .term = 5, .index = 1000,
                                           .log_term = 4, .commit = 1001, .entries = &e, .entry_count = 1});
    entry_unref(e);
    turn(&n);
    cr_assert_eq(applied_last, 1001);
    node_restart(&n, 3);
    cr_assert_eq(raft_last_index(n.d.raft), 1001);
    cr_assert_eq(n.box.found.first_index, 1001);
    node_fini(&n);
}

Test(snap, a_log_that_has_the_snapshots_end_stays)
{
    struct node n;
    node_new(&n, 3, 20);
    snap_stored_up(&n.d, 0, 0); /* the store was lost, the log was not */

    offer(&n, 15, 1, 0);
    cr_assert(heard(0, FR_SNAP_LOAD));
    part(&n, 0, true);
    snap_stored_frame(&n.d, FRAME(snap_loaded, SNAP_LOADED, .id = ID, .index = 15));
    cr_assert_eq(raft_last_index(n.d.raft), 20);
    cr_assert_eq(wal_first_index(n.d.wal), 1);
    cr_assert_eq(raft_commit(n.d.raft), 20);
    cr_assert_not(file_is_there(&n, "SNAPSHOT"));
    turn(&n);
    cr_assert_eq(applied_last, 20);
    node_fini(&n);
}

Test(snap, parts_that_do_not_come_are_asked_for_again_and_at_last_given_up)
{
    struct node n;
    const struct frame *f;
    node_new(&n, 3, 20);
    snap_stored_up(&n.d, 10, 10);
    offer(&n, 1000, 4, 0);
    snap_stored_frame(&n.d, FRAME(snap_more, SNAP_MORE, .id = ID, .from = 3, .until = 7));
    cr_assert(heard(OTHER, FR_SNAP_MORE));

    now_ms += 1000;
    turn(&n);
    cr_assert((f = heard(OTHER, FR_SNAP_MORE)));
    cr_assert_eq(f->snap_more.from, 3);
    cr_assert_eq(f->snap_more.again, 1);
    for (int i = 0; i < 20; i++) {
        now_ms += 1000;
        turn(&n);
        heard(OTHER, FR_SNAP_MORE);
    }
    cr_assert(heard(0, FR_SNAP_DROP));
    cr_assert((f = heard(OTHER, FR_SNAP_SAID)));
    cr_assert_neq(f->snap_said.err, 0);
    cr_assert_eq(raft_last_index(n.d.raft), 20);
    node_fini(&n);
}

Test(snap, one_transfer_at_a_time_and_none_of_the_past_or_without_a_store)
{
    struct node n;
    const struct frame *f;
    node_new(&n, 3, 20);
    offer(&n, 1000, 4, 0); /* stored is not here */
    cr_assert((f = heard(OTHER, FR_SNAP_SAID)));
    cr_assert_neq(f->snap_said.err, 0);
    snap_stored_up(&n.d, 10, 10);
    offer(&n, 1000, 4, 0);
    struct buf table = table_of_three();
    snap_peer_frame(&n.d, THIRD, FRAME(snap_offer, SNAP_OFFER, .id = 9, .term = 5, .index = 2000, .log_term = 4,
                                       .members = buf_slice(&table)));
    cr_assert((f = heard(THIRD, FR_SNAP_SAID)));
    cr_assert_neq(f->snap_said.err, 0);
    /* bytes that are no members */
    cr_assert_neq(snap_peer_frame(&n.d, OTHER, FRAME(snap_offer, SNAP_OFFER, .id = 9, .term = 5, .index = 2000,
                                                     .members = SLICE_LIT("nonsense"))), 0);
    buf_fini(&table);
    node_fini(&n);
}

/* --- crashes between stored and the log -------------------------------------------------------------------------- */

static void crash_before_loaded(struct node *n)
{
    node_new(n, 3, 20);
    snap_stored_up(&n->d, 10, 10);
    follow(n, 5, 12);
    offer(n, 1000, 4, 0);
    part(n, 0, true);
    node_restart(n, 3);
}

Test(snap, after_a_crash_the_log_follows_a_store_that_had_swapped)
{
    struct node n;
    crash_before_loaded(&n);
    cr_assert_eq(raft_last_index(n.d.raft), 20);
    cr_assert_eq(snap_stored_up(&n.d, 1000, 1000), 0);
    turn(&n);
    cr_assert_eq(raft_last_index(n.d.raft), 1000);
    cr_assert_eq(raft_commit(n.d.raft), 1000);
    cr_assert_not(file_is_there(&n, "SNAPSHOT"));
    cr_assert(snap_is_handing(&n.d));
    node_restart(&n, 3);
    cr_assert_eq(raft_last_index(n.d.raft), 1000);
    node_fini(&n);
}

Test(snap, after_a_crash_the_log_stays_with_a_store_that_had_not)
{
    struct node n;
    crash_before_loaded(&n);
    cr_assert_eq(snap_stored_up(&n.d, 10, 10), 0);
    turn(&n);
    cr_assert_eq(raft_last_index(n.d.raft), 20);
    cr_assert_not(file_is_there(&n, "SNAPSHOT"));
    cr_assert(snap_is_handing(&n.d));
    node_fini(&n);
}

/* --- what is lost ---------------------------------------------------------------------------------------------------- */

Test(snap, a_store_behind_the_logs_start_is_asked_for)
{
    struct node n;
    const struct frame *f;
    node_new(&n, 3, 20);
    wal_drop(n.d.wal, 15, SLICE_LIT("members"), 20);
    wal_submit(n.d.wal, 20);
    wal_flush(n.d.wal);
    follow(&n, 5, 20);

    cr_assert_eq(snap_stored_up(&n.d, 0, 0), 0);
    cr_assert_not(snap_is_handing(&n.d));
    turn(&n);
    cr_assert((f = heard(OTHER, FR_SNAP_ASK))); /* the leader */
    cr_assert_eq(f->snap_ask.above, 14);
    cr_assert_eq(f->snap_ask.forgot, 0);
    now_ms += 1000;
    turn(&n);
    cr_assert(heard(OTHER, FR_SNAP_ASK));
    offer(&n, 18, 1, 0);
    part(&n, 0, true);
    snap_stored_frame(&n.d, FRAME(snap_loaded, SNAP_LOADED, .id = ID, .index = 18));
    cr_assert(snap_is_handing(&n.d));
    now_ms += 1000;
    turn(&n);
    cr_assert_not(heard(OTHER, FR_SNAP_ASK));
    node_fini(&n);
}

Test(snap, a_lone_member_with_a_store_behind_its_log_is_refused)
{
    struct node n;
    node_new(&n, 1, 20);
    wal_drop(n.d.wal, 15, SLICE_LIT("members"), 20);
    wal_submit(n.d.wal, 20);
    wal_flush(n.d.wal);
    cr_assert_neq(snap_stored_up(&n.d, 0, 0), 0);
    node_fini(&n);
}

Test(snap, a_lone_member_with_a_store_ahead_of_its_log_ends, .exit_code = 1)
{
    struct node n;
    node_new(&n, 1, 20);
    snap_stored_up(&n.d, 21, 21);
}

Test(snap, a_store_ahead_of_the_log_waits_for_the_commit_index)
{
    struct node n;
    node_new(&n, 3, 20);
    follow(&n, 5, 0);
    cr_assert_eq(snap_stored_up(&n.d, 22, 22), 0);
    cr_assert_not(snap_is_handing(&n.d));
    cr_assert_eq(snap_applied(&n.d, &(struct fr_applied){.applied = 22, .durable = 22}), 0);

    struct entry *e[3] = {box_entry(21, 5, 1), box_entry(22, 5, 1), box_entry(23, 5, 1)};
    turn_recv(n.d.turn, &(struct raft_msg){.type = RAFT_MSG_APPEND, .from = OTHER, .to = SELF, .term = 5, .index = 20,
                                           .log_term = 1, .commit = 21, .entries = e, .entry_count = 3});
    turn(&n);
    cr_assert_not(snap_is_handing(&n.d)); /* entry 22 may be another than stored's */
    follow(&n, 5, 23);
    cr_assert(snap_is_handing(&n.d));
    turn(&n);
    cr_assert_eq(applied_last, 23);
    for (int i = 0; i < 3; i++)
        entry_unref(e[i]);
    node_fini(&n);
}

Test(snap, who_lost_its_log_asks_the_leader_to_forget_and_votes_when_it_has_everything)
{
    struct node n;
    const struct frame *f;
    struct keep_repair repair = {.moved = true, .vote_from = UINT64_MAX};
    memset(&n, 0, sizeof(n));
    box_init(&n.box);
    box_create(&n.box);
    box_hard(&n.box, 4, SELF, 1);
    cr_assert(box_reopen(&n.box));
    keep_repair_write(n.box.dir, &repair);
    node_start(&n, 3, &repair);
    cr_assert_eq(snap_stored_up(&n.d, 900, 900), 0); /* the store is whole */
    turn(&n);
    cr_assert_eq(said_count, 0); /* nobody leads yet */

    follow(&n, 5, 0);
    now_ms += 1000;
    turn(&n);
    cr_assert((f = heard(OTHER, FR_SNAP_ASK)));
    cr_assert_eq(f->snap_ask.forgot, 1);
    cr_assert_not(raft_may_vote(n.d.raft));
    /* what stored has already need not be sent */
    offer(&n, 880, 4, 950);
    cr_assert_not(heard(0, FR_SNAP_LOAD));
    cr_assert((f = heard(OTHER, FR_SNAP_SAID)));
    cr_assert_eq(f->snap_said.err, 0);
    cr_assert_eq(raft_last_index(n.d.raft), 880);
    cr_assert_not(snap_is_handing(&n.d));

    /* it keeps that over a restart */
    node_restart(&n, 3);
    cr_assert_not(raft_may_vote(n.d.raft));
    cr_assert_eq(snap_stored_up(&n.d, 900, 900), 0);
    struct entry *e[70];
    for (uint64_t i = 0; i < 70; i++)
        e[i] = box_entry(881 + i, 4, 1);
    turn_recv(n.d.turn, &(struct raft_msg){.type = RAFT_MSG_APPEND, .from = OTHER, .to = SELF, .term = 5, .index = 880,
                                           .log_term = 4, .commit = 940, .entries = e, .entry_count = 70});
    turn(&n);
    cr_assert(snap_is_handing(&n.d));
    cr_assert_not(raft_may_vote(n.d.raft));
    cr_assert(file_is_there(&n, "REPAIR"));
    follow(&n, 5, 950);
    cr_assert(raft_may_vote(n.d.raft));
    cr_assert_not(file_is_there(&n, "REPAIR"));
    for (uint64_t i = 0; i < 70; i++)
        entry_unref(e[i]);
    node_fini(&n);
}

Test(snap, only_the_leader_forgets_and_it_tells_where_its_log_ends)
{
    struct node n;
    const struct frame *f;
    node_new(&n, 3, 20);
    snap_stored_up(&n.d, 20, 20);
    snap_peer_frame(&n.d, OTHER, FRAME(snap_ask, SNAP_ASK, .forgot = 1));
    turn(&n);
    cr_assert_not(heard(0, FR_SNAP_SAVE));

    lead(&n);
    snap_peer_frame(&n.d, OTHER, FRAME(snap_ask, SNAP_ASK, .forgot = 1));
    turn(&n);
    cr_assert((f = heard(0, FR_SNAP_SAVE)));
    uint64_t id = f->snap_save.id, last = raft_last_index(n.d.raft);
    cr_assert_eq(last, 21);
    snap_stored_frame(&n.d, FRAME(snap_saved, SNAP_SAVED, .id = id, .index = 20));
    cr_assert((f = heard(OTHER, FR_SNAP_OFFER)));
    cr_assert_eq(f->snap_offer.vote_from, last);
    node_fini(&n);
}

/* --- the files --------------------------------------------------------------------------------------------------------- */

Test(snap, what_is_kept_beside_the_log_is_read_back_or_known_to_be_damaged)
{
    struct box b;
    struct keep_self k = {.cluster_id = 1, .member_id = 2, .term = 3, .vote = 4, .hard_seq = 5}, got;
    char path[128];
    box_init(&b);
    cr_assert_eq(keep_self_read(b.dir, &got), E_NOT_FOUND);
    buf_add_str(&k.members, "a table");
    keep_self_write(b.dir, &k);
    cr_assert_eq(keep_self_read(b.dir, &got), 0);
    cr_assert_eq(got.term, 3);
    cr_assert_eq(got.vote, 4);
    cr_assert(slice_eq(buf_slice(&got.members), SLICE_LIT("a table")));
    buf_fini(&got.members);
    buf_fini(&k.members);

    snprintf(path, sizeof(path), "%s/SELF", b.dir);
    struct buf bytes = BUF_INIT;
    cr_assert_eq(file_read_all(path, 1000, &bytes), 0);
    for (size_t i = 0; i < bytes.len; i++) {
        bytes.data[i] ^= 4;
        cr_assert_eq(file_replace(path, bytes.data, bytes.len), 0);
        cr_assert_eq(keep_self_read(b.dir, &got), E_DAMAGED, "byte %d", (int)i);
        bytes.data[i] ^= 4;
    }
    for (size_t len = 0; len < bytes.len; len++) {
        cr_assert_eq(file_replace(path, bytes.data, len), 0);
        cr_assert_eq(keep_self_read(b.dir, &got), E_DAMAGED, "%d bytes", (int)len);
    }
    buf_fini(&bytes);
    box_fini(&b);
}
