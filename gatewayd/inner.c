/* inner - requests that calls make by themselves: inner.h. From lock.c, election.c, queue.c; to kv.c and lease.c. */
#include "gatewayd/inner.h"

#include <stdlib.h>

#include "common/err.h"
#include "proto/api.h"
#include "proto/pb.h"

void inner_init(struct inner *in, struct gatewayd *g, void (*done)(struct inner *in, int err))
{
    *in = (struct inner){.g = g, .body = BUF_INIT, .text = BUF_INIT, .user = BUF_INIT, .request = BUF_INIT, .done = done};
}

void inner_fini(struct inner *in)
{
    if (in->req != 0) {
        pending_cancel(in->g, in->req);
    }
    in->req = 0;
    buf_fini(&in->body);
    buf_fini(&in->text);
    buf_fini(&in->user);
    buf_fini(&in->request);
}

static void answered(void *arg, const struct answer *a)
{
    struct inner *in = arg;
    buf_add_slice(&in->body, a->body);
    buf_add_slice(&in->text, a->text);
    if (a->more) {
        pending_more(in->g, a->req);
        return;
    }
    in->req = 0;
    in->done(in, a->err);
}

static int submit(struct inner *in, const struct identity *who, enum command_kind kind, struct slice body)
{
    switch (kind) {
    case COMMAND_LEASE_GRANT:
    case COMMAND_LEASE_REVOKE:
    case COMMAND_LEASE_KEEP_ALIVE: return lease_submit(in->g, who, kind, body, answered, in, &in->req);
    default: return kv_submit(in->g, who, kind, body, answered, in, &in->req);
    }
}

/* --- who has asked for it a while ago ----------------------------------------------------------------------- */

static void checked(void *arg, const struct answer *a)
{
    struct inner *in = arg;
    int err = a->err;
    if (a->more) {
        pending_more(in->g, a->req);
        return;
    }
    in->req = 0;
    if (err == OK) {
        /* stored has told its revision before it answered. */
        struct identity now = {.user = buf_slice(&in->user), .auth_rev = identity_auth_rev(in->g)};
        err = submit(in, &now, in->kind, buf_slice(&in->request));
    } else if (err == E_AUTH_OLD_REVISION || err == E_USER_NOT_FOUND) {
        err = E_INVALID_AUTH_TOKEN; /* another password, or another user of that name */
    }
    if (err != OK) {
        in->done(in, err);
    }
}

/* Users may look at themselves with whatever revision their password is good for. */
static int check(struct inner *in, const struct identity *who, enum command_kind kind, struct slice body)
{
    struct buf name = BUF_INIT;
    in->kind = kind;
    buf_reset(&in->user);
    buf_add_slice(&in->user, who->user);
    buf_reset(&in->request);
    buf_add_slice(&in->request, body);
    pb_add_bytes(&name, 1, who->user);
    int err = pending_command(in->g, who, VIA_QUERY, COMMAND_USER_GET, buf_slice(&name), checked, in, &in->req);
    buf_fini(&name);
    return err;
}

int inner_send(struct inner *in, const struct identity *who, enum command_kind kind, struct slice body)
{
    must(in->req == 0);
    buf_reset(&in->body);
    buf_reset(&in->text);
    bool is_old = identity_auth_is_on(in->g) && who->user.len > 0 && who->auth_rev != identity_auth_rev(in->g);
    return is_old && identity_jwt(in->g) == NULL ? check(in, who, kind, body) : submit(in, who, kind, body);
}

bool inner_may_retry(const struct inner *in, int err)
{
    if (err == E_AUTH_OLD_REVISION) {
        return identity_jwt(in->g) == NULL; /* stored is a moment ahead of what it told us */
    }
    return err == E_REQUEST_TOO_MANY_REQUESTS || err_grpc_status(err) == err_grpc_status(E_AGAIN);
}

void inner_fail(struct call *c, int err, struct slice text)
{
    /* What the client itself has ended, and what is refused before the service is reached, keeps its status. */
    if (err == E_CANCELED || err == E_DEADLINE_EXCEEDED || err == E_NOT_SUPPORTED_FOR_LEARNER) {
        call_fail(c, err, NULL);
        return;
    }
    char *own = text.len > 0 ? slice_dup_str(text) : NULL;
    call_fail(c, E_INNER, own != NULL ? own : err_text(err));
    free(own);
}

/* --- a call of one request ------------------------------------------------------------------------------------- */

struct inner_call {
    struct inner inner;
    struct call *call;
    inner_reply *reply;
};

static void inner_call_free(struct inner_call *ic)
{
    call_set_state(ic->call, NULL);
    inner_fini(&ic->inner);
    free(ic);
}

static void inner_call_done(struct inner *in, int err)
{
    struct inner_call *ic = container_of(in, struct inner_call, inner);
    struct buf out = BUF_INIT;
    const char *text = NULL;
    if (err == OK) {
        err = ic->reply(buf_slice(&in->body), &out, &text);
    }
    if (err == OK) {
        call_reply(ic->call, buf_slice(&out));
    } else {
        inner_fail(ic->call, err, text != NULL ? slice_str(text) : buf_slice(&in->text));
    }
    buf_fini(&out);
    inner_call_free(ic);
}

void inner_call(struct call *c, enum command_kind kind, struct slice body, inner_reply *reply)
{
    struct inner_call *ic = xcalloc(1, sizeof(*ic));
    ic->call = c;
    ic->reply = reply;
    inner_init(&ic->inner, call_gateway(c), inner_call_done);
    call_set_state(c, ic);
    int err = inner_send(&ic->inner, call_identity(c), kind, body);
    if (err != OK) {
        inner_call_free(ic);
        inner_fail(c, err, SLICE_EMPTY);
    }
}

void inner_closed(struct call *c)
{
    if (call_state(c) != NULL) {
        inner_call_free(call_state(c));
    }
}

/* --- answers ------------------------------------------------------------------------------------------------- */

static int64_t header_revision(struct slice header)
{
    struct pb_field f;
    int64_t revision = 0;
    while (pb_next(&header, &f) == 1) {
        if (f.number == 3 && f.wire == PB_VARINT) {
            revision = (int64_t)f.varint;
        }
    }
    return revision;
}

bool inner_range_decode(struct slice body, struct inner_range *r)
{
    struct pb_field f;
    int rv;
    *r = (struct inner_range){.header = SLICE_EMPTY};
    while ((rv = pb_next(&body, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_BYTES) {
            r->header = f.bytes;
        } else if (f.number == 2 && f.wire == PB_BYTES && r->kv.len == 0) {
            r->kv = f.bytes;
        }
    }
    r->revision = header_revision(r->header);
    return rv == 0;
}

bool inner_txn_decode(struct slice body, struct inner_txn *t)
{
    struct pb_field f, op;
    int rv;
    size_t count = 0;
    *t = (struct inner_txn){.header = SLICE_EMPTY};
    while ((rv = pb_next(&body, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_BYTES) {
            t->header = f.bytes;
        } else if (f.number == 2 && f.wire == PB_VARINT) {
            t->succeeded = f.varint != 0;
        } else if (f.number == 3 && f.wire == PB_BYTES && count < ARRAY_LEN(t->ranges)) {
            struct slice response = f.bytes;
            if (pb_next(&response, &op) == 1 && op.number == API_OP_RANGE && op.wire == PB_BYTES &&
                !inner_range_decode(op.bytes, &t->ranges[count])) {
                return false;
            }
            count++;
        }
    }
    t->revision = header_revision(t->header);
    return rv == 0;
}

/* --- requests ------------------------------------------------------------------------------------------------ */

void inner_prefix_end(struct buf *end, struct slice prefix)
{
    buf_add_slice(end, prefix);
    must(end->len > 0 && end->data[end->len - 1] != 0xff);
    end->data[end->len - 1]++;
}

struct api_range inner_oldest(struct slice prefix, struct slice end)
{
    return (struct api_range){.key = prefix, .range_end = end, .limit = 1, .sort_order = API_SORT_ASCEND, .sort_target = API_BY_CREATE};
}
