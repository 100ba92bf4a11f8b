/* out - every frame gatewayd sends, one function each. Frames leave in batches at the turn's end (link.c). What is said while
 * the sibling is away is dropped here: its `up` makes retry.c and watch.c say what still matters. */
#include "gatewayd/gatewayd.h"

static void to_raftd(struct gatewayd *g, const struct frame *f)
{
    if (g->raftd_up) {
        link_send(g->raftd, f);
    }
}

static void to_stored(struct gatewayd *g, const struct frame *f)
{
    if (g->stored_up) {
        link_send(g->stored, f);
    }
}

void out_propose(struct gatewayd *g, uint64_t req, struct slice command)
{
    to_raftd(g, FRAME(propose, PROPOSE, .req = req, .command = command));
}

void out_read(struct gatewayd *g, uint64_t req, bool of_leader, struct slice command)
{
    to_raftd(g, FRAME(read, READ, .req = req, .where = of_leader, .command = command));
}

void out_query(struct gatewayd *g, uint64_t req, struct slice command)
{
    to_stored(g, FRAME(query, QUERY, .req = req, .command = command));
}

/* Round the ring; straight to stored, with no facts of raft, while raftd is away. */
void out_status(struct gatewayd *g, uint64_t req, uint64_t what)
{
    const struct frame *f = FRAME(status, STATUS, .req = req, .what = what);
    if (g->raftd_up) {
        to_raftd(g, f);
    } else {
        to_stored(g, f);
    }
}

void out_member_change(struct gatewayd *g, uint64_t req, uint64_t op, uint64_t id, struct slice peer_urls)
{
    to_raftd(g, FRAME(member_change, MEMBER_CHANGE, .req = req, .op = op, .id = id, .peer_urls = peer_urls));
}

void out_member_status(struct gatewayd *g, uint64_t req, uint64_t id)
{
    to_raftd(g, FRAME(member_status, MEMBER_STATUS, .req = req, .id = id));
}

void out_move_leader(struct gatewayd *g, uint64_t req, uint64_t target)
{
    to_raftd(g, FRAME(move_leader, MOVE_LEADER, .req = req, .target = target));
}

void out_more(struct gatewayd *g, uint64_t req) { to_stored(g, FRAME(more, MORE, .req = req)); }

void out_forget(struct gatewayd *g, uint64_t req) { to_stored(g, FRAME(forget, FORGET, .req = req)); }

void out_watch(struct gatewayd *g, uint64_t token, uint64_t range_id, bool want_prev, struct slice key, struct slice range_end)
{
    to_stored(g, FRAME(watch, WATCH, .token = token, .range_id = range_id, .want_prev = want_prev, .key = key,
        .range_end = range_end));
}

void out_unwatch(struct gatewayd *g, uint64_t range_id)
{
    to_stored(g, FRAME(unwatch, UNWATCH, .range_id = range_id));
}

void out_history(struct gatewayd *g, uint64_t token, int64_t from, bool want_prev, struct slice key, struct slice range_end)
{
    to_stored(g, FRAME(history, HISTORY, .token = token, .from = from, .want_prev = want_prev, .key = key,
        .range_end = range_end));
}
