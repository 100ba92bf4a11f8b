/* cluster - the members: their list is received from raftd (in.c) and told to clients; changes of it go to raftd (retry.c), which
 * checks and agrees on them. raftd sends the new list before it says that a change is done, so answers are made of our list. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "gatewayd/gatewayd.h"
#include "proto/pb.h"

#define MEMBERS_MAX 1000 /* a list longer than this is not believed */
#define PEER_URLS_BYTES_MAX ((size_t)16 * 1024) /* of one member */

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

void gateway_fill_header(const struct gatewayd *g, struct buf *out, int64_t revision)
{
    pb_add_uint(out, 1, g->cluster_id);
    pb_add_uint(out, 2, g->member_id);
    pb_add_int(out, 3, revision);
    pb_add_uint(out, 4, g->term);
}

/* Answers of the Cluster service carry no revision (spec/semantics.md §1). */
void gateway_encode_header(const struct gatewayd *g, struct buf *out, uint32_t number)
{
    struct buf header = BUF_INIT;
    gateway_fill_header(g, &header, 0);
    pb_add_message(out, number, buf_slice(&header));
    buf_fini(&header);
}

static void encode_member(const struct member *m, struct buf *out, uint32_t number)
{
    struct buf one = BUF_INIT;
    pb_add_uint(&one, 1, m->id);
    pb_add_bytes(&one, 2, slice_str(m->name));
    encode_urls(&one, 3, m->peer_urls);
    encode_urls(&one, 4, m->client_urls);
    pb_add_uint(&one, 5, m->is_learner);
    pb_add_message(out, number, buf_slice(&one));
    buf_fini(&one);
}

static void encode_list(const struct gatewayd *g, struct buf *out, uint32_t number)
{
    for (size_t i = 0; i < g->member_count; i++) {
        encode_member(&g->members[i], out, number);
    }
}

void cluster_encode_members(const struct gatewayd *g, struct buf *out)
{
    gateway_encode_header(g, out, 1);
    encode_list(g, out, 2);
}

/* Additions tell the new member before the list. */
void cluster_encode_change(const struct gatewayd *g, enum member_op op, uint64_t id, struct buf *out)
{
    if (op != MEMBER_ADD) {
        cluster_encode_members(g, out);
        return;
    }
    gateway_encode_header(g, out, 1);
    for (size_t i = 0; i < g->member_count; i++) {
        if (g->members[i].id == id) {
            encode_member(&g->members[i], out, 2);
        }
    }
    encode_list(g, out, 3);
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
    int err = identity_check_user(g, call_identity(c));
    if (err != OK) {
        call_fail(c, err, NULL);
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
    err = pending_command(g, &IDENTITY_NONE, VIA_READ, COMMAND_BARRIER, SLICE_EMPTY, members_confirmed, c, &req);
    call_submitted(c, err, req);
}

/* --- changes ------------------------------------------------------------------------------------------------ */

/* The fields of all four requests; their numbers differ. */
struct change {
    uint64_t id;
    bool is_learner;
    struct buf peer_urls; /* comma list */
};

/* A comma inside a URL would make two of it; no URL of a peer has one. */
static int add_url(struct change *ch, struct slice url)
{
    if (url.len == 0 || memchr(url.data, ',', url.len) != NULL || ch->peer_urls.len + url.len > PEER_URLS_BYTES_MAX) {
        return E_MEMBER_BAD_URLS;
    }
    if (ch->peer_urls.len > 0) {
        buf_add_byte(&ch->peer_urls, ',');
    }
    buf_add_slice(&ch->peer_urls, url);
    return OK;
}

static int decode_change(enum member_op op, struct slice body, struct change *ch)
{
    uint32_t id_field = op == MEMBER_ADD ? 0 : 1;
    uint32_t urls_field = op == MEMBER_ADD ? 1 : op == MEMBER_UPDATE ? 2 : 0;
    uint32_t learner_field = op == MEMBER_ADD ? 2 : 0;
    struct pb_field f;
    int rv, err = OK;
    while ((rv = pb_next(&body, &f)) == 1) {
        if (f.wire == PB_VARINT && id_field != 0 && f.number == id_field) {
            ch->id = f.varint;
        } else if (f.wire == PB_VARINT && learner_field != 0 && f.number == learner_field) {
            ch->is_learner = f.varint != 0;
        } else if (f.wire == PB_BYTES && urls_field != 0 && f.number == urls_field && err == OK) {
            err = add_url(ch, f.bytes);
        }
    }
    return rv != 0 ? E_MALFORMED_REQUEST : err;
}

int cluster_submit(struct gatewayd *g, const struct identity *who, enum member_op op, struct slice body, answer_cb *cb, void *arg,
    uint64_t *req)
{
    struct change ch = {.peer_urls = BUF_INIT};
    int err = g->is_learner ? E_NOT_SUPPORTED_FOR_LEARNER : decode_change(op, body, &ch);
    if (err == OK) {
        enum member_op sent = op == MEMBER_ADD && ch.is_learner ? MEMBER_ADD_LEARNER : op;
        err = pending_change(g, who, sent, ch.id, buf_slice(&ch.peer_urls), cb, arg, req);
    }
    buf_fini(&ch.peer_urls);
    return err;
}

static void reply_change(struct call *c, enum member_op op, const struct answer *a)
{
    call_set_state(c, NULL);
    if (a->err != OK) {
        call_fail(c, a->err, NULL);
        return;
    }
    struct buf out = BUF_INIT;
    cluster_encode_change(call_gateway(c), op, a->member, &out);
    call_reply(c, buf_slice(&out));
    buf_fini(&out);
}

static void added(void *arg, const struct answer *a) { reply_change(arg, MEMBER_ADD, a); }
static void changed(void *arg, const struct answer *a) { reply_change(arg, MEMBER_UPDATE, a); }

static void promoted(void *arg, const struct answer *a)
{
    stats_promoted(call_gateway(arg), a->err);
    reply_change(arg, MEMBER_PROMOTE, a);
}

static void submit(struct call *c, enum member_op op, struct slice bytes)
{
    uint64_t req = 0;
    answer_cb *done = op == MEMBER_ADD ? added : op == MEMBER_PROMOTE ? promoted : changed;
    int err = cluster_submit(call_gateway(c), call_identity(c), op, bytes, done, c, &req);
    call_submitted(c, err, req);
}

void cluster_member_add(struct call *c, struct slice bytes) { submit(c, MEMBER_ADD, bytes); }
void cluster_member_remove(struct call *c, struct slice bytes) { submit(c, MEMBER_REMOVE, bytes); }
void cluster_member_update(struct call *c, struct slice bytes) { submit(c, MEMBER_UPDATE, bytes); }
void cluster_member_promote(struct call *c, struct slice bytes) { submit(c, MEMBER_PROMOTE, bytes); }
