/* out - every frame that stored sends: the only file of this daemon that builds frames.
 * From apply.c, read.c, feed.c, past.c, status.c; to raftd's and gatewayd's in.c. */
#include "stored/stored.h"

#include "common/limits.h"
#include "proto/names.h"
#include "stored/auth.h"

void out_hello(struct stored *s)
{
    struct fr_hello hello = {.version = FRAMES_VERSION,
                             .role = ROLE_STORED,
                             .cluster_id = s->cluster_id,
                             .member_id = s->member_id,
                             .instance = s->instance,
                             .slot = LINK_SLOT_STORED,
                             .applied = mvcc_applied(s->mvcc),
                             .durable = mvcc_durable(s->mvcc)};

    if (s->raft)
        link_set_hello(s->raft, &hello);
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++) {
        hello.slot = slot;
        if (s->gateways[slot].link)
            link_set_hello(s->gateways[slot].link, &hello);
    }
}

/* Apply works off a message before it takes the next one, so the room is always the whole of it. */
void out_applied(struct stored *s)
{
    struct buf *points = &s->points;
    uint64_t hash;

    if (!s->raft_up)
        return;
    buf_reset(points);
    hash = mvcc_chain(s->mvcc, s->points_told, points);
    s->points_told = mvcc_applied(s->mvcc);
    link_send(s->raft, FRAME(applied, APPLIED, .applied = mvcc_applied(s->mvcc), .durable = mvcc_durable(s->mvcc),
                             .room = APPLY_INFLIGHT_BYTES_MAX, .hash = hash, .points = buf_slice(points)));
}

void out_propose(struct stored *s, enum command_kind kind, struct slice body)
{
    struct buf bytes = BUF_INIT;

    if (!s->raft_up)
        return;
    command_encode(&bytes, &(struct command){.kind = kind, .body = body});
    link_send(s->raft, FRAME(propose, PROPOSE, .req = 0, .command = buf_slice(&bytes)));
    buf_fini(&bytes);
}

void out_result(struct gateway *g, uint64_t req, int err, struct slice body)
{
    link_send(g->link, FRAME(result, RESULT, .req = req, .err = (uint64_t)-err, .total = body.len, .body = body));
}

void out_result_part(struct gateway *g, uint64_t req, uint64_t total, bool more, struct slice body)
{
    link_send(g->link, FRAME(result, RESULT, .req = req, .total = total, .more = more, .body = body));
}

void out_watching(struct gateway *g, uint64_t token)
{
    link_send(g->link, FRAME(watching, WATCHING, .token = token, .rev = g->sent_rev,
                             .compact_rev = mvcc_compact_rev(g->s->mvcc)));
}

void out_auth(struct gateway *g)
{
    link_send(g->link, FRAME(auth, AUTH, .enabled = g->s->auth->enabled, .auth_rev = g->s->auth->rev));
}

void out_event(struct gateway *g, const struct ring_event *e, bool last)
{
    struct slice prev = g->prev_ranges ? ring_prev(e) : SLICE_EMPTY;

    g->s->stats.events_sent++;
    link_send(g->link, FRAME(event, EVENT, .rev = e->main, .last = last, .type = e->is_delete,
                             .store_rev = mvcc_rev(g->s->mvcc), .key = ring_key(e), .kv = ring_kv(e), .prev = prev));
}

void out_past(struct gateway *g, uint64_t token, const struct ring_event *e, bool last, bool want_prev)
{
    link_send(g->link, FRAME(past, PAST, .token = token, .rev = e->main, .last = last, .type = e->is_delete,
                             .key = ring_key(e), .kv = ring_kv(e), .prev = want_prev ? ring_prev(e) : SLICE_EMPTY));
}

void out_past_end(struct gateway *g, uint64_t token, int64_t next, int64_t compact_rev)
{
    link_send(g->link, FRAME(past_end, PAST_END, .token = token, .next = next, .feed_rev = g->sent_rev,
                             .compact_rev = compact_rev, .store_rev = mvcc_rev(g->s->mvcc)));
}
