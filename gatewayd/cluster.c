/* cluster - the member list: received from raftd (in.c), told to clients. Changes of membership are not served yet. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "gatewayd/gatewayd.h"
#include "proto/pb.h"

#define MEMBERS_MAX 1000 /* a list longer than this is not believed */

void cluster_forget(struct member *members, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(members[i].name);
        free(members[i].peer_urls);
        free(members[i].client_urls);
    }
    free(members);
}

/* The list comes as frames 0 .. count-1 in order; it replaces the old one when it is complete. */
void cluster_receive(struct gatewayd *g, const struct fr_member *m)
{
    if (m->pos == 0) {
        cluster_forget(g->members_next, g->members_next_count);
        g->members_next = NULL;
        g->members_next_count = 0;
    }
    if (m->count > MEMBERS_MAX || m->pos != g->members_next_count || m->pos >= m->count) {
        log_warnx("cluster: member %llu of %llu is out of order", (unsigned long long)m->pos, (unsigned long long)m->count);
        return;
    }
    g->members_next = xrealloc(g->members_next, (size_t)m->count * sizeof(*g->members_next));
    g->members_next[g->members_next_count++] = (struct member){
        .id = m->id,
        .is_learner = m->is_learner != 0,
        .name = slice_dup_str(m->name),
        .peer_urls = slice_dup_str(m->peer_urls),
        .client_urls = slice_dup_str(m->client_urls),
    };
    if (g->members_next_count == m->count) {
        cluster_forget(g->members, g->member_count);
        g->members = g->members_next;
        g->member_count = g->members_next_count;
        g->members_next = NULL;
        g->members_next_count = 0;
    }
}

static void encode_urls(struct buf *out, uint32_t number, const char *list)
{
    while (*list != '\0') {
        size_t len = strcspn(list, ",");
        if (len > 0) {
            pb_add_bytes(out, number, slice_of(list, len));
        }
        list += len + (list[len] == ',');
    }
}

/* Answers of the Cluster service carry no revision (spec/semantics.md §1). */
void gateway_encode_header(const struct gatewayd *g, struct buf *out, uint32_t number)
{
    struct buf header = BUF_INIT;
    pb_add_uint(&header, 1, g->cluster_id);
    pb_add_uint(&header, 2, g->member_id);
    pb_add_uint(&header, 4, g->term);
    pb_add_message(out, number, buf_slice(&header));
    buf_fini(&header);
}

void cluster_encode_members(const struct gatewayd *g, struct buf *out)
{
    gateway_encode_header(g, out, 1);
    struct buf one = BUF_INIT;
    for (size_t i = 0; i < g->member_count; i++) {
        const struct member *m = &g->members[i];
        buf_reset(&one);
        pb_add_uint(&one, 1, m->id);
        pb_add_bytes(&one, 2, slice_str(m->name));
        encode_urls(&one, 3, m->peer_urls);
        encode_urls(&one, 4, m->client_urls);
        pb_add_uint(&one, 5, m->is_learner);
        pb_add_message(out, 2, buf_slice(&one));
    }
    buf_fini(&one);
}

static void reply_members(struct call *c)
{
    struct buf out = BUF_INIT;
    cluster_encode_members(call_gateway(c), &out);
    call_reply(c, buf_slice(&out));
    buf_fini(&out);
}

/* The barrier was answered: this member has seen everything that was agreed before the question. */
static void members_confirmed(void *arg, const struct answer *a)
{
    struct call *c = arg;
    call_set_state(c, NULL);
    if (a->err != OK) {
        call_fail(c, a->err, NULL);
    } else {
        reply_members(c);
    }
}

void cluster_member_list(struct call *c, struct slice bytes)
{
    struct gatewayd *g = call_gateway(c);
    if (g->is_learner) {
        call_fail(c, E_NOT_SUPPORTED_FOR_LEARNER, NULL);
        return;
    }
    bool linearizable = false;
    struct pb_field f;
    while (pb_next(&bytes, &f) == 1) {
        if (f.number == 1 && f.wire == PB_VARINT) {
            linearizable = f.varint != 0;
        }
    }
    /* Without a list yet (raftd has not said hello since we started) the barrier is also what waits for it. */
    if (!linearizable && g->member_count > 0) {
        reply_members(c);
        return;
    }
    uint64_t req = 0;
    int err = pending_command(g, VIA_READ, COMMAND_BARRIER, SLICE_EMPTY, members_confirmed, c, &req);
    call_submitted(c, err, req);
}
