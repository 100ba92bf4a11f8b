/* forward - see forward.h. From turn.c (by out_ops), in.c and peer frames; to peer.c and the links. */
#include "raftd/forward.h"

#include <stdlib.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/rand.h"
#include "raftd/peer.h"
#include "raftd/raftd.h"

void forward_init(struct forward *f)
{
    f->notes = xcalloc(FORWARD_RING, sizeof(*f->notes));
    f->asks = xcalloc(FORWARD_ASKS, sizeof(*f->asks));
    /* A late answer to an earlier run of ours must not hit one of this run. */
    f->first = f->next = (rand_system_u64() >> 2) + 1;
    f->ask_next = rand_system_u64() >> 2;
}

void forward_fini(struct forward *f)
{
    free(f->notes);
    free(f->asks);
}

void forward_gateway_up(struct raftd *d, unsigned slot)
{
    must(slot < ARRAY_LEN(d->forward.epochs));
    d->forward.epochs[slot]++;
}

/* --- ours ------------------------------------------------------------------------------------------ */

static struct forward_note *note_find(struct forward *f, uint64_t tag)
{
    return tag >= f->first && tag < f->next ? &f->notes[tag % FORWARD_RING] : NULL;
}

/* member: to whom it goes; RAFT_NONE: to our own log. */
static uint64_t note_add(struct raftd *d, unsigned slot, uint64_t req, bool query, uint64_t member)
{
    struct forward *f = &d->forward;
    uint64_t tag = f->next++, way = member == RAFT_NONE ? 0 : peers_way(d->peers, member, PEER_STREAM_APPENDS);

    if (f->next - f->first > FORWARD_RING)
        f->first++;
    f->notes[tag % FORWARD_RING] = (struct forward_note){
        .slot = slot, .query = query, .epoch = f->epochs[slot], .req = req, .term = raft_term(d->raft), .member = member, .way = way};
    return tag;
}

/* Is there still somebody to be told? Once only. */
static bool note_take(struct raftd *d, struct forward_note *n)
{
    bool yes = n->req != 0 && n->epoch == d->forward.epochs[n->slot];

    n->epoch = 0;
    return yes;
}

bool forward_propose(void *arg, uint64_t leader, unsigned slot, uint64_t req, const struct entry *e)
{
    struct raftd *d = arg;
    struct buf *out = peers_begin(d->peers, leader, PEER_STREAM_APPENDS);

    if (!out)
        return false;
    uint64_t tag = note_add(d, slot, req, false, leader);
    frame_encode(out, FRAME(forward, FORWARD, .tag = tag, .term = raft_term(d->raft), .kind = e->kind,
                            .data = entry_data(e)));
    peers_end(d->peers);
    d->forward.forwarded++;
    return true;
}

void forward_proposed(void *arg, unsigned slot, uint64_t req)
{
    struct raftd *d = arg;

    /* Alone nothing can take the leadership from us but a restart, which forgets this anyway. */
    if (slot < RAFTD_SLOTS && d->members.count > 1)
        note_add(d, slot, req, false, RAFT_NONE);
}

bool forward_read_index(void *arg, uint64_t leader, uint64_t tag)
{
    struct raftd *d = arg;

    return peers_send(d->peers, leader, PEER_STREAM_APPENDS, FRAME(read_index, READ_INDEX, .tag = tag));
}

void forward_query(struct raftd *d, unsigned slot, uint64_t req, struct slice command)
{
    uint64_t leader = raft_leader(d->raft);
    struct buf *out;

    if (raft_role(d->raft) == RAFT_LEADER) {
        turn_read(d->turn, slot, req, command);
        return;
    }
    out = leader == RAFT_NONE ? NULL : peers_begin(d->peers, leader, PEER_STREAM_APPENDS);
    if (!out) {
        out_ops.refuse(d, slot, req, leader == RAFT_NONE ? E_NO_LEADER : E_AGAIN);
        return;
    }
    uint64_t tag = note_add(d, slot, req, true, leader);
    frame_encode(out, FRAME(ask, ASK, .tag = tag, .command = command));
    peers_end(d->peers);
    d->forward.forwarded++;
}

/* Another member's state; that it cannot be reached is an answer too, and not worth waiting for. */
void forward_status(struct raftd *d, unsigned slot, uint64_t req, uint64_t member)
{
    struct buf *out = members_find(&d->members, member) ? peers_begin(d->peers, member, PEER_STREAM_APPENDS) : NULL;

    if (!out) {
        link_send(d->links[slot], FRAME(result, RESULT, .req = req, .err = (uint64_t)-E_UNREACHABLE,
                                        .text = SLICE_LIT("the member cannot be reached")));
        return;
    }
    frame_encode(out, FRAME(status_ask, STATUS_ASK, .tag = note_add(d, slot, req, true, member)));
    peers_end(d->peers);
}

void forward_new_leader(void *arg)
{
    struct raftd *d = arg;
    struct forward *f = &d->forward;

    for (; f->first < f->next; f->first++) {
        struct forward_note *n = &f->notes[f->first % FORWARD_RING];

        if (n->term >= raft_term(d->raft))
            break; /* terms rise along the ring */
        if (!note_take(d, n))
            continue;
        f->told++;
        out_ops.refuse(d, n->slot, n->req, n->query ? E_AGAIN : E_AMBIGUOUS);
    }
}

void forward_reached(struct raftd *d, uint64_t member, const struct fr_hello *theirs)
{
    struct forward *f = &d->forward;

    /* Its first beat may still be on its way to us: who leads is what it says. If it leads no more, or leads another term than we
     * know of, that is forward_new_leader's business. */
    if (theirs->durable == 0 || theirs->durable != raft_term(d->raft))
        return;
    f->fence.tag = f->next;
    f->fence.index = theirs->applied;
    f->fence.term = theirs->durable;
    f->fence.member = member;
    f->fence.way = peers_way(d->peers, member, PEER_STREAM_APPENDS);
}

void forward_run(struct raftd *d)
{
    struct forward *f = &d->forward;

    if (f->fence.tag == 0 || (raft_term(d->raft) == f->fence.term && raft_commit(d->raft) < f->fence.index))
        return;
    for (uint64_t tag = MAX(f->first, f->fence.tag - MIN(f->fence.tag, (uint64_t)FORWARD_RING));
         tag < f->fence.tag && raft_term(d->raft) == f->fence.term; tag++) {
        struct forward_note *n = &f->notes[tag % FORWARD_RING];

        if (n->way == 0 || n->way == f->fence.way || n->member != f->fence.member || !note_take(d, n))
            continue;
        f->told++;
        out_ops.refuse(d, n->slot, n->req, n->query ? E_AGAIN : E_AMBIGUOUS);
    }
    f->fence.tag = 0;
}

static int in_refused(struct raftd *d, const struct fr_forward_refused *fr)
{
    struct forward_note *n = note_find(&d->forward, fr->tag);
    int err = err_from_number(fr->err);

    if (!n || !note_take(d, n))
        return 0;
    d->forward.refused++;
    /* It leads no more, or is about to end: another one will. */
    if (err == E_NOT_LEADER || err == E_LEADER_CHANGED || err == E_NO_LEADER || err == E_STOPPED)
        err = E_AGAIN;
    out_ops.refuse(d, n->slot, n->req, err);
    return 0;
}

static int in_asked(struct raftd *d, const struct fr_asked *fr)
{
    struct forward_note *n = note_find(&d->forward, fr->tag);

    if (n && n->query && note_take(d, n))
        link_send(d->links[n->slot], FRAME(result, RESULT, .req = n->req, .err = fr->err, .total = fr->body.len,
                                           .text = fr->text, .body = fr->body));
    return 0;
}

/* --- others' ----------------------------------------------------------------------------------------- */

static unsigned peer_slot(const struct raftd *d, uint64_t member)
{
    int place = peers_place(d->peers, member);

    must(place >= 0 && TURN_PEER_SLOT + (unsigned)place < TURN_PEER_SLOT_END);
    return TURN_PEER_SLOT + (unsigned)place;
}

void forward_refuse(struct raftd *d, unsigned slot, uint64_t tag, int err)
{
    peers_send(d->peers, peers_at(d->peers, slot - TURN_PEER_SLOT), PEER_STREAM_APPENDS,
               FRAME(forward_refused, FORWARD_REFUSED, .tag = tag, .err = (uint64_t)-err));
}

void forward_read_index_said(void *arg, unsigned slot, uint64_t tag, uint64_t index, int err)
{
    struct raftd *d = arg;

    peers_send(d->peers, peers_at(d->peers, slot - TURN_PEER_SLOT), PEER_STREAM_APPENDS,
               FRAME(read_index_said, READ_INDEX_SAID, .tag = tag, .index = index, .err = (uint64_t)-err));
}

void forward_serve(struct raftd *d, unsigned slot, uint64_t index, uint64_t tag, struct slice command)
{
    uint64_t number = d->forward.ask_next++;

    d->forward.asks[number % FORWARD_ASKS] =
        (struct forward_ask){.slot = slot, .member = peers_at(d->peers, slot - TURN_PEER_SLOT), .tag = tag};
    link_send(d->links[LINK_SLOT_STORED], FRAME(serve, SERVE, .slot = LINK_SLOT_STORED, .index = index, .req = number,
                                                .command = command));
}

int forward_result(struct raftd *d, const struct fr_result *r)
{
    struct forward *f = &d->forward;
    struct forward_ask *a = &f->asks[r->req % FORWARD_ASKS];

    if (r->req >= f->ask_next || r->more)
        return E_MALFORMED;
    if (f->ask_next - r->req > FORWARD_ASKS || a->member == RAFT_NONE)
        return 0;
    peers_send(d->peers, a->member, PEER_STREAM_APPENDS,
               FRAME(asked, ASKED, .tag = a->tag, .err = r->err, .text = r->text, .body = r->body));
    a->member = RAFT_NONE;
    return 0;
}

static int in_forward(struct raftd *d, uint64_t member, const struct fr_forward *fr)
{
    unsigned slot = peer_slot(d, member);

    if (fr->kind != ENTRY_COMMAND || fr->data.len == 0)
        return E_MALFORMED;
    if (raft_role(d->raft) != RAFT_LEADER || raft_term(d->raft) != fr->term)
        forward_refuse(d, slot, fr->tag, E_NOT_LEADER);
    else
        turn_propose(d->turn, slot, fr->tag, entry_new(ENTRY_COMMAND, fr->data));
    return 0;
}

static int in_ask(struct raftd *d, uint64_t member, const struct fr_ask *fr)
{
    unsigned slot = peer_slot(d, member);

    if (fr->command.len == 0)
        return E_MALFORMED;
    if (raft_role(d->raft) != RAFT_LEADER)
        forward_refuse(d, slot, fr->tag, E_NOT_LEADER);
    else
        turn_read(d->turn, slot, fr->tag, fr->command);
    return 0;
}

/* Round our own ring, and back to the other member. */
static void in_status_ask(struct raftd *d, uint64_t member, uint64_t tag)
{
    if (!out_stored_is_up(d)) {
        peers_send(d->peers, member, PEER_STREAM_APPENDS,
                   FRAME(asked, ASKED, .tag = tag, .err = (uint64_t)-E_UNREACHABLE, .text = SLICE_LIT("its store is away")));
        return;
    }
    uint64_t number = d->forward.ask_next++;

    d->forward.asks[number % FORWARD_ASKS] =
        (struct forward_ask){.slot = peer_slot(d, member), .member = member, .tag = tag};
    out_status(d, LINK_SLOT_STORED, number, STATUS_API);
}

int forward_frame(struct raftd *d, uint64_t member, const struct frame *f)
{
    switch (f->type) {
    case FR_FORWARD:
        return in_forward(d, member, &f->forward);
    case FR_ASK:
        return in_ask(d, member, &f->ask);
    case FR_STATUS_ASK:
        in_status_ask(d, member, f->status_ask.tag);
        return 0;
    case FR_READ_INDEX:
        turn_read_index(d->turn, peer_slot(d, member), f->read_index.tag);
        return 0;
    case FR_READ_INDEX_SAID:
        turn_read_index_said(d->turn, f->read_index_said.tag, f->read_index_said.index,
                             f->read_index_said.err ? err_from_number(f->read_index_said.err) : 0);
        return 0;
    case FR_ASKED:
        return in_asked(d, &f->asked);
    case FR_FORWARD_REFUSED:
        return in_refused(d, &f->forward_refused);
    default:
        return E_MALFORMED;
    }
}
