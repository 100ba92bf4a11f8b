/* out - every frame gatewayd sends, one function each. Frames leave in batches at the turn's end (link.c). */
#include "gatewayd/gatewayd.h"

void out_propose(struct gatewayd *g, uint64_t req, struct slice command)
{
    link_send(g->raftd, FRAME(propose, PROPOSE, .req = req, .command = command));
}

void out_read(struct gatewayd *g, uint64_t req, struct slice command)
{
    link_send(g->raftd, FRAME(read, READ, .req = req, .command = command));
}

void out_query(struct gatewayd *g, uint64_t req, struct slice command)
{
    link_send(g->stored, FRAME(query, QUERY, .req = req, .command = command));
}

/* Round the ring; straight to stored, with no facts of raft, while raftd is away. */
void out_status(struct gatewayd *g, uint64_t req, uint64_t what)
{
    link_send(g->raftd_up ? g->raftd : g->stored, FRAME(status, STATUS, .req = req, .what = what));
}

void out_more(struct gatewayd *g, uint64_t req) { link_send(g->stored, FRAME(more, MORE, .req = req)); }

void out_forget(struct gatewayd *g, uint64_t req) { link_send(g->stored, FRAME(forget, FORGET, .req = req)); }

void out_watch(struct gatewayd *g, uint64_t token, uint64_t range_id, bool want_prev, struct slice key, struct slice range_end)
{
    link_send(g->stored, FRAME(watch, WATCH, .token = token, .range_id = range_id, .want_prev = want_prev, .key = key,
        .range_end = range_end));
}

void out_unwatch(struct gatewayd *g, uint64_t range_id)
{
    link_send(g->stored, FRAME(unwatch, UNWATCH, .range_id = range_id));
}

void out_history(struct gatewayd *g, uint64_t token, int64_t from, bool want_prev, struct slice key, struct slice range_end)
{
    link_send(g->stored, FRAME(history, HISTORY, .token = token, .from = from, .want_prev = want_prev, .key = key,
        .range_end = range_end));
}
