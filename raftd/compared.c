/* compared - members tell the leader what their stores have come to, and it compares: a difference is found within a
 * heartbeat or two. From in.c, out.c and peering.c; to stored, which proposes the alarm. The judgement itself: compare.c.
 * A difference lasts: the hash is over all that was ever applied, so it ends when the member has got another's store. */
#include "raftd/raftd.h"

#include <inttypes.h>

#include "common/err.h"
#include "raftd/snap.h"

int compared_applied(struct raftd *d, const struct fr_applied *f)
{
    int err = compare_own(&d->compare, f->applied, f->hash, f->points);

    return err ? err : snap_applied(d, f);
}

/* Answers to heartbeats are more when linearizable reads are many; half an interval apart is often enough. */
void compared_say(struct raftd *d, struct buf *out)
{
    uint64_t now_ms = loop_now_ms(d->loop), point, point_hash;

    if (d->compare.hash == 0 || now_ms - d->hash_said_ms < d->conf.heartbeat_interval_ms / 2)
        return;
    d->hash_said_ms = now_ms;
    point = compare_point(&d->compare, &point_hash);
    frame_encode(out, FRAME(hash, HASH, .index = d->compare.index, .hash = d->compare.hash, .point = point,
                            .point_hash = point_hash));
}

static void found(struct raftd *d, uint64_t member, enum compared what, uint64_t at)
{
    bool news = compare_note(&d->compare, member, what, at);

    if (what == COMPARED_DIFFERENT) {
        if (news)
            log_error("raftd: members %" PRIx64 " and %" PRIx64 " have different states after entry %" PRIu64
                      ": one of them is corrupt", d->member_id, member, at);
        if (out_stored_is_up(d))
            link_send(d->links[LINK_SLOT_STORED], FRAME(differs, DIFFERS, .member = member, .index = at));
    } else if (what == COMPARED_SAME && news) {
        log_info("raftd: member %" PRIx64 " has the same state again, after entry %" PRIu64, member, at);
    }
}

int compared_frame(struct raftd *d, uint64_t member, const struct fr_hash *f)
{
    enum compared what;
    uint64_t at;

    if (f->point > f->index || f->point % HASH_EVERY != 0)
        return E_MALFORMED;
    if (raft_role(d->raft) != RAFT_LEADER || !members_find(&d->members, member))
        return 0;
    what = compare_said(&d->compare, member, f->index, f->hash, &at);
    if (what == COMPARED_UNKNOWN && f->point != 0)
        what = compare_said(&d->compare, member, f->point, f->point_hash, &at);
    found(d, member, what, at);
    return 0;
}
