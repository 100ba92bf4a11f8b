/* snap_install - the log and the core follow what stored has become, and what stored may be handed. See snap.h.
 *
 * stored swaps first, the log follows; SNAPSHOT (keep.h) is on disk before stored can swap and goes when the log's new
 * beginning is durable. So after any crash: without the file the two fit as ever; with it, stored's HELLO tells on
 * which side of the swap it is. */
#include "raftd/snap_int.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/err.h"
#include "common/mem.h"

static bool log_has(const struct raftd *d, uint64_t index, uint64_t term)
{
    uint64_t found;

    return wal_term(d->wal, index, &found) && found == term;
}

/* All of the log goes; the snapshot's end is the place that it goes on from. */
static void log_replace(struct raftd *d, uint64_t index, uint64_t term, struct slice table)
{
    struct raft_member members[RAFT_MEMBERS_MAX];
    struct members new = {0};

    if (raft_role(d->raft) == RAFT_LEADER)
        fatalx("snap: we lead and our log lacks entry %" PRIu64 " term %" PRIu64 " of a snapshot", index, term);
    must(members_decode(table, &new) == 0); /* snap.c looked */
    wal_reset(d->wal, index, term, table);
    uint64_t ticket = wal_submit(d->wal, index);
    turn_snap_loaded(d->turn, index, term, ticket, members, members_raft(&new, members));
    wal_flush(d->wal);
    members_fini(&d->members);
    d->members = new;
    membership_changed(d);
    peering_members(d);
    log_info("snap: the log begins behind entry %" PRIu64 " term %" PRIu64 ", members %zu", index, term,
             d->members.count);
}

int snap_install(struct raftd *d, uint64_t index, uint64_t term, struct slice members)
{
    struct snap *n = d->snap;

    if (index + 1 < wal_first_index(d->wal))
        return E_COMPACTED;
    /* What the core wants done about the log that was is done before. */
    turn_clock(d->turn, loop_now_ms(d->loop));
    turn_end(d->turn);
    turn_stored_down(d->turn);
    n->handing = false;
    if (log_has(d, index, term))
        turn_snap_loaded(d->turn, index, term, 0, NULL, 0);
    else
        log_replace(d, index, term, members);
    n->stepped = true;
    n->store_lost = n->stored_applied + 1 < wal_first_index(d->wal);
    n->ahead = n->stored_applied > raft_last_index(d->raft);
    keep_snapshot_remove(n->dir);
    n->in.kept = false;
    snap_hand_try(d);
    out_tell_all(d);
    return 0;
}

/* --- what stored may be handed -------------------------------------------------------------------------------------- */

bool snap_is_handing(const struct raftd *d)
{
    return d->snap->handing;
}

bool snap_store_serves(const struct raftd *d)
{
    return d->snap->stored_up && d->snap->handing;
}

void snap_hand_try(struct raftd *d)
{
    struct snap *n = d->snap;

    if (n->handing || !n->stored_up || n->store_lost || n->in.kept)
        return;
    /* The tail of a log says nothing about entries that it has not committed: they may be others than stored's. */
    if (n->ahead && raft_commit(d->raft) < n->stored_applied)
        return;
    int err = turn_stored_up(d->turn, n->stored_applied, n->stored_durable);
    must(!err);
    n->handing = true;
    n->ahead = false;
    n->stepped = true;
    log_info("raftd: stored is here, applied %" PRIu64 " of %" PRIu64 ", durable %" PRIu64, n->stored_applied,
             raft_last_index(d->raft), n->stored_durable);
}

/* A swap was about to happen when one of us ended. Did it? */
static void snapshot_resume(struct raftd *d, uint64_t applied)
{
    struct keep_snapshot k;
    int err = keep_snapshot_read(d->snap->dir, &k);
    struct members table = {0};

    if (err == E_NOT_FOUND)
        return;
    if (!err && members_decode(buf_slice(&k.members), &table) != 0)
        err = E_DAMAGED;
    members_fini(&table);
    if (err)
        fatalx("snap: %s/SNAPSHOT is damaged: remove the whole data of this member and let it join again", d->snap->dir);
    if (applied >= k.index) {
        log_info("snap: stored is the snapshot as of entry %" PRIu64 ": the log follows", k.index);
        if (snap_install(d, k.index, k.term, buf_slice(&k.members)) != 0)
            keep_snapshot_remove(d->snap->dir); /* the log went on beyond it: that is whole too */
    } else {
        keep_snapshot_remove(d->snap->dir);
    }
    buf_fini(&k.members);
}

int snap_stored_up(struct raftd *d, uint64_t applied, uint64_t durable)
{
    struct snap *n = d->snap;
    uint64_t first, last;
    bool alone = d->members.count == 1 && !n->repairing;

    turn_clock(d->turn, loop_now_ms(d->loop));
    n->stored_up = true;
    n->stored_applied = applied;
    n->stored_durable = MIN(durable, applied);
    n->handing = false;
    snapshot_resume(d, applied);
    if (n->handing)
        return 0;
    first = wal_first_index(d->wal);
    last = raft_last_index(d->raft);
    if (alone && applied > last)
        fatalx("raftd: the store has applied entry %" PRIu64 ", but the log ends at %" PRIu64
               ": raft/ and store/ of %s do not belong together; restore both from the same time",
               applied, last, d->conf.data_dir);
    if (alone && applied + 1 < first) {
        uint64_t swallowed;

        if (log_allow(&d->behind_limit, loop_now_ms(d->loop), &swallowed))
            log_error("raftd: the store has applied only up to entry %" PRIu64 ", but the log begins at %" PRIu64
                      ": raft/ and store/ of %s do not belong together; restore both from the same time",
                      applied, first, d->conf.data_dir);
        n->stored_up = false;
        return E_COMPACTED;
    }
    n->ahead = applied > last || n->repairing;
    n->store_lost = applied + 1 < first;
    if (n->store_lost)
        log_warnx("snap: the store has applied only up to entry %" PRIu64 ", the log begins at %" PRIu64
                  ": asking another member for a snapshot",
                  applied, first);
    else if (applied > last)
        log_warnx("snap: the store has applied entry %" PRIu64 ", the log ends at %" PRIu64
                  ": the other members have what lies between",
                  applied, last);
    snap_hand_try(d);
    return 0;
}

void snap_stored_down(struct raftd *d)
{
    struct snap *n = d->snap;

    turn_stored_down(d->turn);
    n->stored_up = n->handing = n->store_lost = false;
    snap_out_abort(d);
    if (n->in.kept) {
        /* Its next HELLO tells whether it swapped; SNAPSHOT stays until then. */
        n->in.kept = false;
        snap_in_end(d, E_AGAIN);
    } else {
        snap_in_end(d, E_UNREACHABLE);
    }
}

int snap_applied(struct raftd *d, const struct fr_applied *f)
{
    struct snap *n = d->snap;

    if (f->durable > f->applied)
        return E_MALFORMED;
    if (n->handing) {
        int err = turn_applied(d->turn, f->applied, f->durable, f->room);

        if (err)
            return err;
    }
    n->stored_applied = f->applied;
    n->stored_durable = f->durable;
    return 0;
}

/* --- repair of the log ------------------------------------------------------------------------------------------------ */

bool snap_is_repairing(const struct raftd *d)
{
    return d->snap->repairing;
}

uint64_t snap_votes_from(const struct raftd *d)
{
    return d->snap->repairing ? d->snap->repair.vote_from : 0;
}

/* The leader counts on nothing that we acknowledged before, and its log ends here. */
void snap_vote_from(struct raftd *d, uint64_t index)
{
    struct snap *n = d->snap;

    n->repair.vote_from = index;
    keep_repair_write(n->dir, &n->repair);
    turn_vote_from(d->turn, index);
    n->stepped = true;
    log_info("snap: we vote again when entry %" PRIu64 " is committed here", index);
}

void snap_repair_check(struct raftd *d)
{
    struct snap *n = d->snap;

    if (!n->repairing || n->repair.vote_from == UINT64_MAX || !raft_may_vote(d->raft))
        return;
    keep_repair_remove(n->dir);
    n->repairing = false;
    log_info("snap: the log is whole again, last entry %" PRIu64 ": we vote", raft_last_index(d->raft));
}

void snap_start(struct raftd *d, const char *dir, const struct keep_repair *repair)
{
    d->snap = xcalloc(1, sizeof(*d->snap));
    d->snap->dir = xstrdup(dir);
    if (repair) {
        d->snap->repairing = true;
        d->snap->repair = *repair;
    }
}

void snap_fini(struct raftd *d)
{
    if (!d->snap)
        return;
    buf_fini(&d->snap->in.members);
    free(d->snap->dir);
    free(d->snap);
    d->snap = NULL;
}
