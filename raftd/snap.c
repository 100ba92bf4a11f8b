/* snap - see snap.h. Frames come from in.c (stored) and peering.c (members); they go there again. What a loaded snapshot does
 * to log and core is in snap_install.c. */
#include "raftd/snap_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/mem.h"
#include "common/rand.h"

/* Whoever waits for parts asks again, and says that it is still there, after this. */
#define SNAP_AGAIN_MS 1000
/* The other side was silent this long: the transfer ends. */
#define SNAP_SILENCE_MS 15000
#define SNAP_RATE_MIN (256 * KIB)
/* A window of large values may cost more than this at such a rate: it is forgiven, so that nobody is taken for silent. */
#define SNAP_PAUSE_MS_MAX (SNAP_SILENCE_MS / 3)

static struct link *stored_link(struct raftd *d)
{
    return d->links[LINK_SLOT_STORED];
}

static bool to_peer(struct raftd *d, uint64_t member, const struct frame *f)
{
    return peers_send(d->peers, member, PEER_STREAM_SNAPS, f);
}

/* --- what is counted with each member ---------------------------------------------------------------------------- */

static struct snap_with *with_of(struct snap *n, uint64_t member)
{
    for (size_t i = 0; i < n->with_count; i++)
        if (n->with[i].member == member)
            return &n->with[i];
    if (n->with_count == ARRAY_LEN(n->with)) {
        memmove(n->with, n->with + 1, (n->with_count - 1) * sizeof(n->with[0]));
        n->with_count--;
    }
    struct snap_with *w = &n->with[n->with_count++];
    *w = (struct snap_with){.member = member};
    histogram_init(&w->send, 100000, 10); /* etcd's: 0.1 s * 2^k */
    histogram_init(&w->receive, 100000, 10);
    return w;
}

static void count_end(uint64_t *ended, uint64_t *failed, struct histogram *h, bool ok, uint64_t ms)
{
    if (!ok) {
        ++*failed;
        return;
    }
    ++*ended;
    histogram_observe_us(h, ms * 1000);
}

size_t snap_with_all(const struct raftd *d, const struct snap_with **list)
{
    /* Every other member has its line from the start: rates need the step from 0 to 1. */
    for (size_t i = 0; i < d->members.count; i++)
        if (d->members.list[i].id != d->member_id)
            (void)with_of(d->snap, d->members.list[i].id);
    *list = d->snap->with;
    return d->snap->with_count;
}

uint64_t snap_sends_to(const struct raftd *d)
{
    return d->snap->out.state == SNAP_IDLE ? RAFT_NONE : d->snap->out.to;
}

uint64_t snap_receives_from(const struct raftd *d)
{
    return d->snap->in.state == SNAP_IDLE ? RAFT_NONE : d->snap->in.from;
}

/* --- out: to a member that is behind --------------------------------------------------------------------------- */

static void sent_tell_core(struct raftd *d, bool ok)
{
    struct snap_out *o = &d->snap->out;

    turn_snap_sent(d->turn, o->to, o->index, ok);
    d->snap->stats.sent += ok;
    d->snap->stats.sent_failed += !ok;
    struct snap_with *w = with_of(d->snap, o->to);
    count_end(&w->sent, &w->sent_failed, &w->send, ok, loop_now_ms(d->loop) - o->begun_ms);
    d->snap->stepped = true;
}

static void out_end(struct raftd *d, int err)
{
    struct snap_out *o = &d->snap->out;

    if (o->state == SNAP_IDLE)
        return;
    if (err)
        log_warnx("snap: to member %" PRIx64 " as of entry %" PRIu64 ": %s", o->to, o->index, err_text(err));
    else
        log_info("snap: member %" PRIx64 " has the store as of entry %" PRIu64, o->to, o->index);
    link_send(stored_link(d), FRAME(snap_drop, SNAP_DROP, .id = o->id));
    sent_tell_core(d, !err);
    *o = (struct snap_out){0};
}

static void out_begin(struct raftd *d, uint64_t member, bool forgot)
{
    struct snap_out *o = &d->snap->out;

    *o = (struct snap_out){.state = SNAP_SAVING,
                           .id = rand_system_u64() | 1,
                           .to = member,
                           .forgot = forgot,
                           .vote_from = forgot ? raft_last_index(d->raft) : 0,
                           .begun_ms = loop_now_ms(d->loop),
                           .heard_ms = loop_now_ms(d->loop)};
    if (forgot) {
        turn_forgot(d->turn, member);
        d->snap->stepped = true;
    }
    link_send(stored_link(d), FRAME(snap_save, SNAP_SAVE, .id = o->id));
}

static int in_saved(struct raftd *d, const struct fr_snap_saved *f)
{
    struct snap_out *o = &d->snap->out;
    struct buf table = BUF_INIT;

    if (f->id != o->id || o->state != SNAP_SAVING) {
        if (f->id == o->id && f->err) /* it was open, and cannot be read any further */
            out_end(d, err_from_number(f->err));
        return 0;
    }
    o->index = f->index;
    if (f->err || !wal_term(d->wal, f->index, &o->term)) {
        out_end(d, f->err ? err_from_number(f->err) : E_COMPACTED);
        return 0;
    }
    /* The membership of now, which is committed, instead of that of then: changes in between are repeated by the log
     * and change nothing more. */
    members_encode(&d->members, &table);
    o->state = SNAP_SENDING;
    bool told = to_peer(d, o->to, FRAME(snap_offer, SNAP_OFFER, .id = o->id, .term = raft_term(d->raft), .index = o->index,
                                        .log_term = o->term, .vote_from = o->vote_from, .members = buf_slice(&table)));
    buf_fini(&table);
    if (!told)
        out_end(d, E_UNREACHABLE);
    else
        log_info("snap: sending member %" PRIx64 " the store as of entry %" PRIu64, o->to, o->index);
    return 0;
}

static void out_ask(struct raftd *d, uint64_t member, const struct fr_snap_ask *f)
{
    struct snap_out *o = &d->snap->out;

    /* What a member forgot only the leader can forget too. A store whose own log is not whole is no source. */
    if ((f->forgot && raft_role(d->raft) != RAFT_LEADER) || !snap_is_handing(d) || snap_is_repairing(d) ||
        f->above > raft_applied(d->raft))
        return;
    if (o->state != SNAP_IDLE && o->to == member && !o->forgot && f->forgot)
        out_end(d, E_AGAIN); /* it lost more than we knew */
    if (o->state == SNAP_IDLE)
        out_begin(d, member, f->forgot != 0);
}

void snap_need(struct raftd *d, uint64_t member)
{
    struct snap *n = d->snap;

    for (size_t i = 0; i < n->need_count; i++)
        if (n->need[i] == member)
            return;
    if (n->need_count < ARRAY_LEN(n->need))
        n->need[n->need_count++] = member;
}

/* Those that the core asked for: one is served, the others are told to ask again at their next sign of life. */
static void out_run(struct raftd *d)
{
    struct snap *n = d->snap;

    for (size_t i = 0; i < n->need_count; i++) {
        if (n->out.state == SNAP_IDLE && snap_is_handing(d)) {
            out_begin(d, n->need[i], false);
        } else if (n->out.state == SNAP_IDLE || n->out.to != n->need[i]) {
            turn_snap_sent(d->turn, n->need[i], 0, false);
            n->stepped = true;
        }
    }
    n->need_count = 0;
}

/* --- in: from a member that has more ---------------------------------------------------------------------------- */

static void in_said(struct raftd *d, uint64_t member, uint64_t id, int err)
{
    to_peer(d, member, FRAME(snap_said, SNAP_SAID, .id = id, .err = (uint64_t)-err));
}

void snap_in_end(struct raftd *d, int err)
{
    struct snap_in *in = &d->snap->in;

    if (in->state == SNAP_IDLE)
        return;
    in_said(d, in->from, in->id, err);
    struct snap_with *w = with_of(d->snap, in->from);
    count_end(&w->received, &w->received_failed, &w->receive, !err, loop_now_ms(d->loop) - in->begun_ms);
    if (err) {
        log_warnx("snap: from member %" PRIx64 " as of entry %" PRIu64 ": %s", in->from, in->index, err_text(err));
        link_send(stored_link(d), FRAME(snap_drop, SNAP_DROP, .id = in->id));
        if (in->kept)
            keep_snapshot_remove(d->snap->dir);
        d->snap->stats.received_failed++;
    } else {
        d->snap->stats.received++;
    }
    buf_fini(&in->members);
    *in = (struct snap_in){0};
}

/* The log is the only thing that is missing: stored has all that the snapshot has. */
static bool store_has(const struct raftd *d, uint64_t index)
{
    return d->snap->stored_up && d->snap->stored_applied >= index;
}

static int in_offer(struct raftd *d, uint64_t member, const struct fr_snap_offer *f)
{
    struct snap *n = d->snap;
    struct snap_in *in = &n->in;
    struct members table = {0};

    if (f->id == 0 || members_decode(f->members, &table) != 0)
        return E_MALFORMED;
    members_fini(&table);
    if (in->state != SNAP_IDLE && in->from != member) {
        in_said(d, member, f->id, E_AGAIN);
        return 0;
    }
    snap_in_end(d, E_AGAIN); /* it began anew */
    if (f->term < raft_term(d->raft) || f->index + 1 < wal_first_index(d->wal) || !n->stored_up) {
        in_said(d, member, f->id, f->index + 1 < wal_first_index(d->wal) ? E_COMPACTED : E_AGAIN);
        return 0;
    }
    *in = (struct snap_in){.state = SNAP_LOADING,
                           .id = f->id,
                           .from = member,
                           .index = f->index,
                           .term = f->log_term,
                           .begun_ms = loop_now_ms(d->loop),
                           .heard_ms = loop_now_ms(d->loop),
                           .again_ms = loop_now_ms(d->loop) + SNAP_AGAIN_MS};
    buf_add_slice(&in->members, f->members);
    if (snap_is_repairing(d) && f->vote_from > 0)
        snap_vote_from(d, f->vote_from);
    if (store_has(d, f->index)) {
        int err = snap_install(d, in->index, in->term, buf_slice(&in->members));

        snap_in_end(d, err);
        return 0;
    }
    log_info("snap: member %" PRIx64 " sends its store as of entry %" PRIu64 ", ours has applied %" PRIu64, member,
             f->index, n->stored_applied);
    link_send(stored_link(d), FRAME(snap_load, SNAP_LOAD, .id = f->id, .index = f->index));
    return 0;
}

/* stored has room. */
static int in_more(struct raftd *d, const struct fr_snap_more *f)
{
    struct snap_in *in = &d->snap->in;

    if (f->id != in->id || in->state == SNAP_IDLE)
        return 0;
    in->from_part = f->from;
    in->until = f->until;
    in->again_ms = loop_now_ms(d->loop) + SNAP_AGAIN_MS;
    to_peer(d, in->from,
            FRAME(snap_more, SNAP_MORE, .id = f->id, .from = f->from, .until = f->until, .again = f->again));
    return 0;
}

static int in_part(struct raftd *d, uint64_t member, const struct fr_snap_part *f)
{
    struct snap_in *in = &d->snap->in;

    if (f->id != in->id || in->state == SNAP_IDLE || member != in->from)
        return 0;
    in->heard_ms = loop_now_ms(d->loop);
    in->again_ms = in->heard_ms + SNAP_AGAIN_MS;
    d->snap->stats.parts++;
    if (f->last) {
        /* From here on stored may become the snapshot at any moment; a crash must not leave us guessing whose log ours
         * is then. */
        struct keep_snapshot keep = {.index = in->index, .term = in->term, .members = in->members};

        if (!in->kept)
            keep_snapshot_write(d->snap->dir, &keep);
        in->kept = true;
        in->from_part = f->part + 1;
        in->until = f->part + 1;
    }
    link_send(stored_link(d), &(struct frame){.type = FR_SNAP_PART, .snap_part = *f});
    return 0;
}

static int in_loaded(struct raftd *d, const struct fr_snap_loaded *f)
{
    struct snap_in *in = &d->snap->in;
    int err = f->err ? err_from_number(f->err) : 0;

    if (f->id != in->id || in->state == SNAP_IDLE) {
        if (f->err)
            return 0;
        return E_MALFORMED; /* it became something that we know nothing of: its HELLO will tell */
    }
    if (!err) {
        d->snap->stored_applied = d->snap->stored_durable = f->index;
        err = snap_install(d, in->index, in->term, buf_slice(&in->members));
    }
    snap_in_end(d, err);
    return 0;
}

/* --- asking -------------------------------------------------------------------------------------------------------- */

/* Whom to ask: the leader; if that is us, or for a lost store nobody leads, the others in turn. */
static uint64_t ask_whom(struct raftd *d, bool forgot)
{
    struct snap *n = d->snap;
    uint64_t leader = raft_leader(d->raft);

    if (leader != RAFT_NONE && leader != d->member_id)
        return leader;
    for (size_t i = 0; !forgot && i < d->members.count; i++) {
        uint64_t id = d->members.list[n->ask_pos++ % d->members.count].id;

        if (id != d->member_id)
            return id;
    }
    return RAFT_NONE;
}

static void ask_run(struct raftd *d, uint64_t now_ms)
{
    struct snap *n = d->snap;
    bool forgot = snap_is_repairing(d) && n->repair.vote_from == UINT64_MAX;

    if ((!forgot && !n->store_lost) || n->in.state != SNAP_IDLE || now_ms < n->ask_ms)
        return;
    n->ask_ms = now_ms + SNAP_AGAIN_MS;
    uint64_t whom = ask_whom(d, forgot);
    if (whom != RAFT_NONE)
        to_peer(d, whom, FRAME(snap_ask, SNAP_ASK, .above = wal_first_index(d->wal) - 1, .forgot = forgot));
}

/* --- frames ------------------------------------------------------------------------------------------------------------ */

/* Parts are paid for when they leave; the window is what may be ahead of it. */
static void part_out(struct raftd *d, const struct frame *f)
{
    struct snap_out *o = &d->snap->out;
    uint64_t rate = d->conf.snapshot_bytes_per_second, now_us = loop_now_ms(d->loop) * 1000;

    /* Slower, and the member would take us for silent. */
    if (rate > 0)
        rate = MAX(rate, (uint64_t)SNAP_RATE_MIN);
    if (rate > 0)
        o->pace_us = MAX(o->pace_us, now_us) + (uint64_t)f->snap_part.bytes.len * 1000000 / rate;
    o->pace_us = MIN(o->pace_us, now_us + (uint64_t)SNAP_PAUSE_MS_MAX * 1000);
    to_peer(d, o->to, f); /* dropped: asked for again */
}

static void more_run(struct raftd *d, uint64_t now_ms)
{
    struct snap_out *o = &d->snap->out;

    if (!o->more_waits || o->state != SNAP_SENDING || now_ms * 1000 < o->pace_us)
        return;
    o->more_waits = false;
    link_send(stored_link(d), &(struct frame){.type = FR_SNAP_MORE, .snap_more = o->more});
}

int snap_stored_frame(struct raftd *d, const struct frame *f)
{
    struct snap_out *o = &d->snap->out;

    switch (f->type) {
    case FR_SNAP_SAVED:
        return in_saved(d, &f->snap_saved);
    case FR_SNAP_PART:
        if (f->snap_part.id == o->id && o->state == SNAP_SENDING)
            part_out(d, f);
        return 0;
    case FR_SNAP_MORE:
        return in_more(d, &f->snap_more);
    case FR_SNAP_LOADED:
        return in_loaded(d, &f->snap_loaded);
    default:
        return E_MALFORMED;
    }
}

static void peer_more(struct raftd *d, uint64_t member, const struct frame *f)
{
    struct snap_out *o = &d->snap->out;

    if (f->snap_more.id != o->id || member != o->to || o->state != SNAP_SENDING) {
        in_said(d, member, f->snap_more.id, E_NOT_FOUND); /* of an earlier run of ours */
        return;
    }
    o->heard_ms = loop_now_ms(d->loop);
    o->more = f->snap_more; /* the latest says all that an earlier one did, or is repeated */
    o->more_waits = true;
    more_run(d, o->heard_ms);
}

static void peer_said(struct raftd *d, uint64_t member, const struct fr_snap_said *f)
{
    struct snap_out *o = &d->snap->out;
    struct snap_in *in = &d->snap->in;
    int err = f->err ? err_from_number(f->err) : 0;

    if (f->id == o->id && o->state != SNAP_IDLE && member == o->to)
        out_end(d, err);
    else if (f->id == in->id && in->state != SNAP_IDLE && member == in->from && !in->kept)
        snap_in_end(d, err ? err : E_AGAIN);
}

int snap_peer_frame(struct raftd *d, uint64_t member, const struct frame *f)
{
    switch (f->type) {
    case FR_SNAP_OFFER:
        return in_offer(d, member, &f->snap_offer);
    case FR_SNAP_PART:
        return in_part(d, member, &f->snap_part);
    case FR_SNAP_MORE:
        peer_more(d, member, f);
        return 0;
    case FR_SNAP_SAID:
        peer_said(d, member, &f->snap_said);
        return 0;
    case FR_SNAP_ASK:
        out_ask(d, member, &f->snap_ask);
        return 0;
    default:
        return E_MALFORMED;
    }
}

/* --- time -------------------------------------------------------------------------------------------------------------- */

static void silence_check(struct raftd *d, uint64_t now_ms)
{
    struct snap_out *o = &d->snap->out;
    struct snap_in *in = &d->snap->in;

    if (o->state != SNAP_IDLE && now_ms >= o->heard_ms + SNAP_SILENCE_MS)
        out_end(d, E_TIMEOUT);
    if (in->state == SNAP_IDLE || now_ms < in->again_ms)
        return;
    /* With all parts here only stored is waited for, however long it takes; its link tells if it is gone. */
    if (!in->kept && now_ms >= in->heard_ms + SNAP_SILENCE_MS) {
        snap_in_end(d, E_TIMEOUT);
        return;
    }
    in->again_ms = now_ms + SNAP_AGAIN_MS;
    to_peer(d, in->from,
            FRAME(snap_more, SNAP_MORE, .id = in->id, .from = in->from_part, .until = in->until, .again = 1));
}

bool snap_run(struct raftd *d, uint64_t now_ms)
{
    struct snap *n = d->snap;

    out_run(d);
    ask_run(d, now_ms);
    more_run(d, now_ms);
    silence_check(d, now_ms);
    snap_hand_try(d);
    snap_repair_check(d);
    bool stepped = n->stepped;
    n->stepped = false;
    return stepped;
}

uint64_t snap_deadline(const struct raftd *d)
{
    const struct snap *n = d->snap;
    uint64_t at = UINT64_MAX;

    if (n->out.state != SNAP_IDLE)
        at = MIN(at, n->out.heard_ms + SNAP_SILENCE_MS);
    if (n->out.more_waits)
        at = MIN(at, (n->out.pace_us + 999) / 1000);
    if (n->in.state != SNAP_IDLE)
        at = MIN(at, n->in.again_ms);
    else if (n->store_lost || (n->repairing && n->repair.vote_from == UINT64_MAX))
        at = MIN(at, n->ask_ms);
    return at;
}

void snap_out_abort(struct raftd *d)
{
    struct snap_out *o = &d->snap->out;

    if (o->state == SNAP_SENDING)
        in_said(d, o->to, o->id, E_AGAIN);
    out_end(d, E_UNREACHABLE);
}

void snap_stats(const struct raftd *d, struct snap_stats *s)
{
    *s = d->snap->stats;
}
