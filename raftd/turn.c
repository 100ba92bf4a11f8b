/* turn - see turn.h. In from in.c and main.c, out by turn_ops (out.c). The order of effects:
 *
 *  1. A leader's appends and heartbeats leave first: followers may write while we do (thesis 10.2.1). Nothing in them
 *     promises that we have synced.
 *  2. Truncation, entries, term and vote go to the log, one batch, one sync.
 *  3. Only when that sync has ended, which the log's thread tells by a ticket, votes and answers leave (thesis 3.8: a
 *     server answers an RPC only after its state is on stable storage). What a later ready wants to say waits for
 *     all earlier tickets too, because its words may rest on them.
 *  4. Then the core is told; our own copy counts for commitment only from here on (thesis 10.2.1).
 *  5. Committed entries go to stored, in order, without a gap (thesis 3.5, state machine safety).
 *  6. A read goes to stored behind all entries up to its read index (thesis 6.4, step 4).
 *  7. The log's prefix is dropped last, and only below what stored has synced (thesis 5).
 *
 * A process that dies between any two of these has said nothing that it does not know after its restart. */
#include "raftd/turn.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "raftd/hand.h"
#include "raftd/mutant.h"

/* Memory of what gathers is kept between turns; the rings below are plain arrays that are emptied from the front. */
struct fifo {
    void *items;
    size_t head, count, cap;
};

struct asker {
    unsigned slot;
    uint64_t req;
};

struct held {
    struct asker who;
    struct entry *entry;
    uint64_t since_ms;
};

struct late {
    uint64_t ticket;
    struct raft_msg msg;
};

/* What becomes durable with a ticket. */
struct mark {
    uint64_t ticket;
    uint64_t since_ms;
    uint64_t index, term; /* last entry; 0: no entries */
    uint64_t hard_seq;
};

/* A read index that another member wants. Tags of the core: those of hand.c, or REMOTE_READ and a number. */
#define REMOTE_READ ((uint64_t)1 << 63)
struct remote_read {
    unsigned slot;
    uint64_t tag;
    bool done;
};

struct turn {
    struct raft *raft;
    const struct turn_ops *ops;
    void *arg;
    struct turn_conf conf;
    struct hand hand;
    uint64_t now_ms;
    uint64_t core_deadline_ms;
    bool stopping;

    struct fifo askers; /* struct asker: proposals since the last ready; tag = asker_base + position */
    uint64_t asker_base;
    struct fifo held; /* struct held: no leader yet */
    size_t held_bytes;
    struct fifo marks; /* struct mark, in order of ticket */
    struct fifo late;  /* struct late, in order of ticket */
    struct fifo confs; /* struct entry *: in the log, not committed */
    struct fifo remotes; /* struct remote_read, in order of their numbers */
    uint64_t remote_base;
    uint64_t ticket_last, ticket_durable;
    uint64_t start_commit; /* until stored has spoken, nothing is known to be behind it */
    uint64_t behind_index, behind_ms; /* committed at behind_ms, and not applied then; 0: nothing was */
    uint64_t still_at, still_ms; /* what is applied, and since when it is that while there was more */
    uint64_t leader, leader_term;
    uint64_t leader_changes, proposals, refused;
};

/* --- fifo --------------------------------------------------------------------------------------- */

static void *fifo_add(struct fifo *f, size_t size)
{
    if (f->count == 0)
        f->head = 0;
    if (f->head + f->count == f->cap) {
        if (f->head > f->cap / 2) {
            memmove(f->items, (uint8_t *)f->items + f->head * size, f->count * size);
            f->head = 0;
        } else {
            f->cap = MAX(f->cap * 2, 16);
            f->items = xrealloc(f->items, f->cap * size);
        }
    }
    return (uint8_t *)f->items + (f->head + f->count++) * size;
}

static void *fifo_at(const struct fifo *f, size_t pos, size_t size)
{
    return pos < f->count ? (uint8_t *)f->items + (f->head + pos) * size : NULL;
}

static void fifo_pop(struct fifo *f)
{
    must(f->count > 0);
    f->head++;
    f->count--;
}

#define FIFO_ADD(f, type) ((type *)fifo_add(f, sizeof(type)))
#define FIFO_AT(f, pos, type) ((type *)fifo_at(f, pos, sizeof(type)))
#define FIFO_FIRST(f, type) FIFO_AT(f, 0, type)

/* --- life cycle --------------------------------------------------------------------------------- */

struct turn *turn_new(struct raft *raft, const struct turn_ops *ops, void *arg, const struct turn_conf *conf,
                      uint64_t now_ms)
{
    struct turn *t = xcalloc(1, sizeof(*t));

    t->raft = raft;
    t->ops = ops;
    t->arg = arg;
    t->conf = *conf;
    t->now_ms = now_ms;
    t->core_deadline_ms = now_ms;
    t->asker_base = 1;
    t->start_commit = raft_commit(raft);
    hand_init(&t->hand, raft, ops, arg, &t->conf);
    must(conf->tag_base < REMOTE_READ / 2);
    t->hand.tag_last = conf->tag_base;
    return t;
}

void turn_free(struct turn *t)
{
    if (!t)
        return;
    for (; t->held.count > 0; fifo_pop(&t->held))
        entry_unref(FIFO_FIRST(&t->held, struct held)->entry);
    for (; t->confs.count > 0; fifo_pop(&t->confs))
        entry_unref(*FIFO_FIRST(&t->confs, struct entry *));
    hand_fini(&t->hand);
    free(t->askers.items);
    free(t->held.items);
    free(t->marks.items);
    free(t->late.items);
    free(t->confs.items);
    free(t->remotes.items);
    free(t);
}

void turn_clock(struct turn *t, uint64_t now_ms)
{
    t->now_ms = now_ms;
}

static void step(struct turn *t, struct raft_event ev)
{
    ev.now_ms = t->now_ms;
    if (log_get_level() >= LOG_L_TRACE) {
        char text[256];

        raft_show_event(&ev, text, sizeof(text));
        log_trace("raft: event %s", text);
    }
    raft_step(t->raft, &ev);
}

/* --- gather ------------------------------------------------------------------------------------- */

static void refuse(struct turn *t, unsigned slot, uint64_t req, int err)
{
    t->refused++;
    if (slot != TURN_NOBODY)
        t->ops->refuse(t->arg, slot, req, err);
}

static bool is_peer(unsigned slot)
{
    return slot >= TURN_PEER_SLOT && slot < TURN_PEER_SLOT_END;
}

static void forward(struct turn *t, unsigned slot, uint64_t req, struct entry *e)
{
    bool ours = !is_peer(slot) && slot != TURN_NOBODY && slot != TURN_CHANGE;

    if (!ours || !t->ops->forward)
        refuse(t, slot, req, E_NOT_LEADER);
    else if (!t->ops->forward(t->arg, raft_leader(t->raft), slot, req, e))
        refuse(t, slot, req, E_AGAIN);
    entry_unref(e);
}

/* A leader is known. */
static void propose_now(struct turn *t, unsigned slot, uint64_t req, struct entry *e)
{
    if (raft_role(t->raft) != RAFT_LEADER) {
        forward(t, slot, req, e);
        return;
    }
    if (t->ops->proposed && !is_peer(slot))
        t->ops->proposed(t->arg, slot, req);
    struct asker *who = FIFO_ADD(&t->askers, struct asker);

    *who = (struct asker){.slot = slot, .req = req};
    step(t, (struct raft_event){.type = RAFT_EV_PROPOSE, .entry = e, .tag = t->asker_base + t->askers.count - 1});
}

/* As far as is known. */
static uint64_t applied_index(const struct turn *t)
{
    return t->hand.ever_up ? t->hand.applied : t->start_commit;
}

/* One mark is enough: what is committed behind it is judged when stored has come so far. */
static void behind_note(struct turn *t)
{
    if (applied_index(t) != t->still_at || raft_commit(t->raft) <= applied_index(t)) {
        t->still_at = applied_index(t);
        t->still_ms = t->now_ms;
    }
    if (applied_index(t) < t->behind_index)
        return;
    t->behind_index = raft_commit(t->raft) > applied_index(t) ? raft_commit(t->raft) : 0;
    t->behind_ms = t->now_ms;
}

static uint64_t behind_ms(const struct turn *t)
{
    return t->behind_index > applied_index(t) ? t->now_ms - t->behind_ms : 0;
}

/* Why a proposal cannot be taken; 0 if it can. */
static int propose_check(const struct turn *t, const struct entry *e)
{
    uint64_t applied = applied_index(t), commit = raft_commit(t->raft);

    if (t->stopping)
        return E_STOPPED;
    if (t->ops->no_space(t->arg))
        return E_NO_SPACE;
    if (commit > applied && commit - applied > t->conf.backlog_max && behind_ms(t) >= t->conf.backlog_ms)
        return E_REQUEST_TOO_MANY_REQUESTS;
    if (raft_leader(t->raft) == RAFT_NONE &&
        (t->held.count >= t->conf.wait_count_max || t->held_bytes + e->len > t->conf.wait_bytes_max))
        return E_REQUEST_TOO_MANY_REQUESTS;
    return 0;
}

void turn_propose(struct turn *t, unsigned slot, uint64_t req, struct entry *e)
{
    int err = propose_check(t, e);

    t->proposals++;
    if (err) {
        refuse(t, slot, req, err);
        entry_unref(e);
    } else if (raft_leader(t->raft) == RAFT_NONE) {
        /* An election is under way, or about to be: the first one takes a tick. */
        *FIFO_ADD(&t->held, struct held) = (struct held){.who = {slot, req}, .entry = e, .since_ms = t->now_ms};
        t->held_bytes += e->len;
    } else {
        propose_now(t, slot, req, e);
    }
}

void turn_read(struct turn *t, unsigned slot, uint64_t req, struct slice command)
{
    if (t->stopping)
        t->ops->refuse(t->arg, slot, req, E_STOPPED);
    else
        hand_read_add(&t->hand, slot, req, command, t->now_ms);
}

void turn_recv(struct turn *t, const struct raft_msg *m)
{
    step(t, (struct raft_event){.type = RAFT_EV_RECV, .msg = m});
}

void turn_read_index(struct turn *t, unsigned slot, uint64_t tag)
{
    if (raft_role(t->raft) != RAFT_LEADER || t->stopping) {
        t->ops->read_index_said(t->arg, slot, tag, 0, E_NOT_LEADER);
        return;
    }
    *FIFO_ADD(&t->remotes, struct remote_read) = (struct remote_read){.slot = slot, .tag = tag};
    step(t, (struct raft_event){.type = RAFT_EV_READ, .tag = REMOTE_READ | (t->remote_base + t->remotes.count - 1)});
}

void turn_read_index_said(struct turn *t, uint64_t tag, uint64_t index, int err)
{
    if (err)
        hand_again(&t->hand, tag, t->now_ms);
    else
        hand_confirmed(&t->hand, tag, index);
}

void turn_unreachable(struct turn *t, uint64_t member)
{
    step(t, (struct raft_event){.type = RAFT_EV_UNREACHABLE, .member = member});
}

void turn_gone(struct turn *t, uint64_t member)
{
    step(t, (struct raft_event){.type = RAFT_EV_GONE, .member = member});
}

void turn_snap_sent(struct turn *t, uint64_t member, uint64_t index, bool ok)
{
    step(t, (struct raft_event){.type = RAFT_EV_SNAP_SENT, .member = member, .index = index, .ok = ok});
}

void turn_forgot(struct turn *t, uint64_t member)
{
    step(t, (struct raft_event){.type = RAFT_EV_FORGOT, .member = member});
}

void turn_vote_from(struct turn *t, uint64_t index)
{
    step(t, (struct raft_event){.type = RAFT_EV_VOTE_FROM, .index = index});
}

void turn_snap_loaded(struct turn *t, uint64_t index, uint64_t term, uint64_t ticket, const struct raft_member *members,
                      size_t member_count)
{
    must(!t->hand.up);
    if (ticket > 0) {
        /* Reports of the old log's entries say nothing about the new one; what is said from now on waits for it. */
        must(ticket > t->ticket_last);
        t->ticket_last = ticket;
        for (size_t i = 0; i < t->marks.count; i++)
            FIFO_AT(&t->marks, i, struct mark)->index = 0;
        for (; t->confs.count > 0; fifo_pop(&t->confs))
            entry_unref(*FIFO_FIRST(&t->confs, struct entry *));
    }
    step(t, (struct raft_event){.type = RAFT_EV_SNAP_LOADED,
                                .index = index,
                                .entry_term = term,
                                .members = members,
                                .member_count = member_count});
}

void turn_tick(struct turn *t)
{
    step(t, (struct raft_event){.type = RAFT_EV_TICK});
}

void turn_durable(struct turn *t, uint64_t ticket)
{
    struct mark *m;
    struct late *l;

    /* The log may have given out tickets before us: they say nothing here. */
    ticket = MIN(ticket, t->ticket_last);
    must(ticket >= t->ticket_durable);
    t->ticket_durable = ticket;
    /* Rule 3 before rule 4: what the report sets free must not overtake what waited. */
    while ((l = FIFO_FIRST(&t->late, struct late)) && l->ticket <= ticket) {
        t->ops->send(t->arg, &l->msg);
        fifo_pop(&t->late);
    }
    while ((m = FIFO_FIRST(&t->marks, struct mark)) && m->ticket <= ticket) {
        step(t, (struct raft_event){
                    .type = RAFT_EV_PERSISTED, .index = m->index, .entry_term = m->term, .hard_seq = m->hard_seq});
        fifo_pop(&t->marks);
    }
}

int turn_stored_up(struct turn *t, uint64_t applied, uint64_t durable)
{
    if (applied > raft_last_index(t->raft))
        return E_FULL;
    hand_up(&t->hand, applied);
    step(t, (struct raft_event){.type = RAFT_EV_APPLIED, .index = applied, .durable = MIN(durable, applied)});
    return 0;
}

void turn_stored_down(struct turn *t)
{
    hand_down(&t->hand);
}

int turn_applied(struct turn *t, uint64_t applied, uint64_t durable, uint64_t room)
{
    if (applied < t->hand.applied || applied > t->hand.handed || durable > applied)
        return E_MALFORMED;
    hand_applied(&t->hand, applied, room);
    step(t, (struct raft_event){.type = RAFT_EV_APPLIED, .index = applied, .durable = durable});
    return 0;
}

void turn_transfer(struct turn *t, uint64_t member)
{
    step(t, (struct raft_event){.type = RAFT_EV_TRANSFER, .member = member});
}

void turn_hand_over(struct turn *t)
{
    if (raft_role(t->raft) == RAFT_LEADER)
        step(t, (struct raft_event){.type = RAFT_EV_TRANSFER, .member = RAFT_NONE});
}

void turn_stop(struct turn *t)
{
    t->stopping = true;
    step(t, (struct raft_event){.type = RAFT_EV_STOP});
}

void turn_conf_pending(struct turn *t, struct entry *e)
{
    *FIFO_ADD(&t->confs, struct entry *) = e;
}

size_t turn_confs(const struct turn *t, const struct entry **out, size_t max)
{
    size_t count = MIN(t->confs.count, max);

    for (size_t i = 0; i < count; i++)
        out[i] = *FIFO_AT(&t->confs, i, struct entry *);
    return count;
}

/* --- think -------------------------------------------------------------------------------------- */

/* What waited for a leader goes to the core, in the order it came. */
static void held_release(struct turn *t)
{
    struct held *h;

    while (raft_leader(t->raft) != RAFT_NONE && (h = FIFO_FIRST(&t->held, struct held))) {
        t->held_bytes -= h->entry->len;
        propose_now(t, h->who.slot, h->who.req, h->entry);
        fifo_pop(&t->held);
    }
    while ((h = FIFO_FIRST(&t->held, struct held)) && (t->stopping || h->since_ms + t->conf.wait_ms <= t->now_ms)) {
        t->held_bytes -= h->entry->len;
        refuse(t, h->who.slot, h->who.req, t->stopping ? E_STOPPED : E_TIMEOUT);
        entry_unref(h->entry);
        fifo_pop(&t->held);
    }
}

/* One read index for all reads of the turn; and once more for those that got no answer. */
static void reads_ask(struct turn *t)
{
    bool own = raft_role(t->raft) == RAFT_LEADER || !t->ops->read_index;
    uint64_t tag, leader = raft_leader(t->raft);

    if (leader == RAFT_NONE)
        return;
    while ((tag = hand_ask(&t->hand, t->now_ms, own ? UINT64_MAX : t->now_ms + t->conf.read_again_ms))) {
        if (own)
            step(t, (struct raft_event){.type = RAFT_EV_READ, .tag = tag});
        else if (!t->ops->read_index(t->arg, leader, tag))
            hand_again(&t->hand, tag, t->now_ms);
    }
}

/* --- persist, speak ----------------------------------------------------------------------------- */

/* A change that a truncation takes away was never one. */
static void confs_note(struct turn *t, const struct raft_ready *rd)
{
    struct entry **last;

    while (rd->truncate_from > 0 && (last = FIFO_AT(&t->confs, t->confs.count - 1, struct entry *)) &&
           (*last)->index >= rd->truncate_from) {
        entry_unref(*last);
        t->confs.count--;
    }
    for (size_t i = 0; i < rd->entry_count; i++) {
        if (rd->entries[i]->kind == ENTRY_CONF)
            *FIFO_ADD(&t->confs, struct entry *) = entry_ref(rd->entries[i]);
    }
}

static void ready_persist(struct turn *t, const struct raft_ready *rd)
{
    const struct entry *last = rd->entry_count > 0 ? rd->entries[rd->entry_count - 1] : NULL;

    if (!rd->hard_changed && rd->truncate_from == 0 && !last)
        return;
    confs_note(t, rd);
    uint64_t ticket = t->ops->persist(t->arg, rd);
    must(ticket > t->ticket_last);
    t->ticket_last = ticket;
    *FIFO_ADD(&t->marks, struct mark) = (struct mark){
        .ticket = ticket, .since_ms = t->now_ms, .index = last ? last->index : 0, .term = last ? last->term : 0, .hard_seq = rd->hard_seq};
}

static void ready_late(struct turn *t, const struct raft_ready *rd)
{
    for (size_t i = 0; i < rd->late_count; i++) {
        must(rd->late[i].entry_count == 0);
        if (MUTATE(ACK_BEFORE_SYNC, t->ticket_durable == t->ticket_last, true))
            t->ops->send(t->arg, &rd->late[i]);
        else
            *FIFO_ADD(&t->late, struct late) = (struct late){.ticket = t->ticket_last, .msg = rd->late[i]};
    }
}

static void remote_done(struct turn *t, uint64_t core_tag, uint64_t index, int err)
{
    uint64_t number = core_tag & ~REMOTE_READ;
    struct remote_read *r;

    must(number >= t->remote_base);
    r = FIFO_AT(&t->remotes, number - t->remote_base, struct remote_read);
    must(r && !r->done);
    r->done = true;
    t->ops->read_index_said(t->arg, r->slot, r->tag, index, err);
    while ((r = FIFO_FIRST(&t->remotes, struct remote_read)) && r->done) {
        fifo_pop(&t->remotes);
        t->remote_base++;
    }
}

/* Whoever leads next may confirm it: the reads wait for that. */
static void read_refused(struct turn *t, uint64_t tag, int err)
{
    bool may_come = err == E_LEADER_CHANGED || err == E_NO_LEADER || err == E_NOT_LEADER;

    if (may_come && t->ops->read_index && !t->stopping)
        hand_again(&t->hand, tag, t->now_ms);
    else
        hand_refused(&t->hand, tag, err);
}

static void ready_refused(struct turn *t, const struct raft_ready *rd)
{
    for (size_t i = 0; i < rd->refused_count; i++) {
        const struct raft_refused *r = &rd->refused[i];

        if (r->is_read && (r->tag & REMOTE_READ)) {
            remote_done(t, r->tag, 0, r->err);
        } else if (r->is_read) {
            read_refused(t, r->tag, r->err);
        } else if (r->tag >= t->asker_base) {
            const struct asker *who = FIFO_AT(&t->askers, r->tag - t->asker_base, struct asker);

            must(who);
            refuse(t, who->slot, who->req, r->err);
        }
    }
    /* The core refuses in the ready that follows the proposal, or never. */
    t->asker_base += t->askers.count;
    t->askers.count = 0;
}

static void ready_changed(struct turn *t, const struct raft_ready *rd)
{
    struct entry **e;

    while ((e = FIFO_FIRST(&t->confs, struct entry *)) && (*e)->index <= raft_commit(t->raft)) {
        t->ops->conf(t->arg, *e);
        entry_unref(*e);
        fifo_pop(&t->confs);
    }
    if (!rd->soft_changed)
        return;
    if (raft_leader(t->raft) != t->leader) {
        t->leader = raft_leader(t->raft);
        t->leader_changes += t->leader != RAFT_NONE;
    }
    if (t->leader != RAFT_NONE && raft_term(t->raft) != t->leader_term) {
        t->leader_term = raft_term(t->raft);
        hand_leader_changed(&t->hand);
        if (t->ops->new_leader)
            t->ops->new_leader(t->arg);
    }
    t->ops->changed(t->arg);
}

static void ready_do(struct turn *t, const struct raft_ready *rd)
{
    for (size_t i = 0; i < rd->early_count; i++)
        t->ops->send(t->arg, &rd->early[i]);
    ready_persist(t, rd);
    ready_late(t, rd);
    ready_refused(t, rd);
    ready_changed(t, rd);
    for (size_t i = 0; i < rd->read_count; i++) {
        if (rd->reads[i].tag & REMOTE_READ)
            remote_done(t, rd->reads[i].tag, rd->reads[i].index, 0);
        else
            hand_confirmed(&t->hand, rd->reads[i].tag, rd->reads[i].index);
    }
    hand_run(&t->hand, t->now_ms);
    if (rd->drop_below > 0)
        t->ops->drop(t->arg, rd->drop_below);
    t->core_deadline_ms = rd->deadline_ms;
}

void turn_end(struct turn *t)
{
    hand_expire(&t->hand, t->now_ms);
    behind_note(t);
    do {
        struct raft_ready rd = {0};

        held_release(t);
        reads_ask(t);
        raft_ready(t->raft, &rd);
        if (log_get_level() >= LOG_L_TRACE) {
            char text[512];

            raft_show_ready(&rd, text, sizeof(text));
            log_trace("raft: ready %s", text);
        }
        ready_do(t, &rd);
    } while (raft_has_ready(t->raft) || (t->held.count > 0 && raft_leader(t->raft) != RAFT_NONE));
}

uint64_t turn_deadline(const struct turn *t)
{
    const struct held *h = FIFO_FIRST(&t->held, struct held);
    const struct hand_batch *asked = TAILQ_FIRST(&t->hand.asked), *gathering = t->hand.gathering;
    uint64_t at = t->core_deadline_ms;

    if (h)
        at = MIN(at, h->since_ms + t->conf.wait_ms);
    if (asked)
        at = MIN(at, asked->since_ms + t->conf.wait_ms);
    if (gathering)
        at = MIN(at, gathering->since_ms + t->conf.wait_ms);
    if (raft_leader(t->raft) != RAFT_NONE)
        at = MIN(at, hand_ask_ms(&t->hand));
    return at;
}

bool turn_is_quiet(const struct turn *t)
{
    return t->ticket_durable == t->ticket_last;
}

uint64_t turn_disk_ms(const struct turn *t)
{
    const struct mark *m = FIFO_FIRST(&t->marks, struct mark);

    return m ? t->now_ms - m->since_ms : 0;
}

void turn_stats(const struct turn *t, struct turn_stats *s)
{
    const struct hand *h = &t->hand;

    *s = (struct turn_stats){
        .proposals = t->proposals,
        .proposals_refused = t->refused,
        .reads = h->reads,
        .read_rounds = h->rounds,
        .reads_refused = h->refused,
        .reads_slow = h->slow,
        .applies = h->applies,
        .leader_changes = t->leader_changes,
        .held = t->held.count,
        .reads_waiting = h->wait_count,
        .applied = h->applied,
        .behind_ms = behind_ms(t),
        .stuck_ms = raft_commit(t->raft) > applied_index(t) && applied_index(t) == t->still_at ? t->now_ms - t->still_ms : 0,
    };
}
