/* peering - raftd's end of peer.c: frames of other members become events of the turn, and the membership tells whom to
 * reach. From peer.c and out.c; to turn.c, forward.c and membership.c. */
#include "raftd/raftd.h"

#include <inttypes.h>

#include "common/err.h"
#include "common/mem.h"
#include "raftd/snap.h"

static int raft_frame(struct raftd *d, uint64_t member, const struct frame *f)
{
    int got = peer_msg_add(&d->peer_msg, member, d->member_id, f);

    if (got == 1) {
        turn_recv(d->turn, &d->peer_msg.msg);
        peer_msg_reset(&d->peer_msg);
    }
    return MIN(got, 0);
}

static int peering_frame(uint64_t member, const struct frame *f, void *arg)
{
    struct raftd *d = arg;

    turn_clock(d->turn, loop_now_ms(d->loop));
    switch (f->type) {
    case FR_RAFT:
    case FR_ENTRY:
        return raft_frame(d, member, f);
    case FR_HASH:
        return compared_frame(d, member, &f->hash);
    case FR_CHANGE_FORWARD:
    case FR_CHANGE_SAID:
    case FR_REMOVED:
        return membership_peer_frame(d, member, f);
    case FR_SNAP_OFFER:
    case FR_SNAP_PART:
    case FR_SNAP_MORE:
    case FR_SNAP_SAID:
    case FR_SNAP_ASK:
        return snap_peer_frame(d, member, f);
    default:
        return forward_frame(d, member, f);
    }
}

/* A message that ends, or a connection that breaks, in the middle of an append leaves nothing behind. */
static int peering_message_end(uint64_t member, void *arg)
{
    struct raftd *d = arg;
    bool open = d->peer_msg.open;

    UNUSED(member);
    peer_msg_reset(&d->peer_msg);
    return open ? E_MALFORMED : 0;
}

static void peering_lost(uint64_t member, void *arg)
{
    struct raftd *d = arg;

    turn_unreachable(d->turn, member);
}

static void peering_gone(uint64_t member, void *arg)
{
    struct raftd *d = arg;

    turn_gone(d->turn, member);
}

static void peering_reached(uint64_t member, enum peer_stream stream, const struct fr_hello *theirs, void *arg)
{
    if (stream == PEER_STREAM_APPENDS)
        forward_reached(arg, member, theirs);
}

static void peering_standing(struct fr_hello *ours, void *arg)
{
    const struct raftd *d = arg;

    ours->applied = raft_last_index(d->raft);
    ours->durable = raft_role(d->raft) == RAFT_LEADER ? raft_term(d->raft) : 0;
}

/* While we join, whoever is of our cluster may tell us: what the log has told so far is how the members were once, and who
 * leads now may have come later. It ends with the entry that adds us. */
static bool peering_may_talk(uint64_t member, void *arg)
{
    const struct raftd *d = arg;

    return !members_find(&d->members, d->member_id) && !members_was_removed(&d->members, member);
}

static bool peering_was_removed(uint64_t member, void *arg)
{
    const struct raftd *d = arg;

    return members_was_removed(&d->members, member);
}

static void peering_table(struct buf *out, void *arg)
{
    const struct raftd *d = arg;

    members_encode(&d->members, out);
}

static const struct peers_ops ops = {.frame = peering_frame,
                                     .message_end = peering_message_end,
                                     .lost = peering_lost,
                                     .gone = peering_gone,
                                     .reached = peering_reached,
                                     .standing = peering_standing,
                                     .may_talk = peering_may_talk,
                                     .was_removed = peering_was_removed,
                                     .table = peering_table};

void peering_members(struct raftd *d)
{
    d->peers_due = false;

    const struct entry *pending[RAFT_MEMBERS_MAX];
    size_t count = turn_confs(d->turn, pending, ARRAY_LEN(pending));
    struct members members = {0};

    /* A change counts from the moment it is in the log (thesis 4.1): a new voter must be reached to commit it. Who leaves is
     * still talked to until it is committed. */
    members_copy(&d->members, &members);
    for (size_t i = 0; i < count; i++) {
        struct raft_conf_change change;

        if (raft_conf_decode(entry_data(pending[i]), &change) == 0 && change.op != RAFT_CONF_REMOVE)
            members_apply(&members, &change);
    }
    if (members_find(&members, d->member_id)) /* else we join: connections that come to us will do */
        peers_set(d->peers, &members);
    members_fini(&members);
}

void peering_start(struct raftd *d)
{
    d->peers = peers_new(d->loop,
                         &(struct peers_conf){.conf = &d->conf,
                                              .cluster_id = d->cluster_id,
                                              .member_id = d->member_id,
                                              .instance = d->instance},
                         &ops, d);
    peers_listen(d->peers);
    peering_members(d);
}
