/* backup - Maintenance.Snapshot: the bytes of a bolt file and their SHA-256, as stored makes them, cut into messages.
 * From grpc.c (route.c's table), as a query to this node's stored; the answer comes in parts, of which the next is asked for when
 * the client has taken most of the last one. The first parts are empty: stored is planning the file.
 *
 *   stream = SnapshotResponse{remaining_bytes, blob of at most 32 KiB, version}* SnapshotResponse{0, SHA-256, version}
 *
 * Local, as etcd's: the state of the member that is asked, also of a learner. */
#include <stdlib.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/sha256.h"
#include "gatewayd/gatewayd.h"
#include "proto/pb.h"

#define BLOB_BYTES (32 * KIB)

struct backup {
    uint64_t req;
    uint64_t left; /* bytes of the file, without the digest */
    bool sized;    /* its size is known */
};

static void send_blob(struct call *c, const struct backup *b, struct slice blob)
{
    struct buf out = BUF_INIT;
    pb_add_uint(&out, 2, b->left);
    pb_add_bytes(&out, 3, blob);
    pb_add_bytes(&out, 4, SLICE_LIT(TRINE_CLUSTER_VERSION));
    call_send(c, buf_slice(&out), NULL, 0);
    buf_fini(&out);
}

/* The digest is a message of its own. */
static int send_part(struct call *c, struct backup *b, struct slice part)
{
    while (part.len > 0) {
        size_t len = MIN(part.len, BLOB_BYTES);
        if (b->left > 0) {
            len = MIN(len, b->left);
            b->left -= len;
        } else if (len != SHA256_BYTES) {
            return E_MALFORMED;
        }
        send_blob(c, b, slice_of(part.data, len));
        part = slice_of(part.data + len, part.len - len);
    }
    return OK;
}

static void backup_drop(struct call *c)
{
    free(call_state(c));
    call_set_state(c, NULL);
}

static void backup_answer(void *arg, const struct answer *a)
{
    struct call *c = arg;
    struct gatewayd *g = call_gateway(c);
    struct backup *b = call_state(c);
    int err = a->err;
    if (err == OK && a->first && call_is_crowded(c)) {
        stats_dropped(g, DROP_UNREAD);
        err = E_REQUEST_TOO_MANY_REQUESTS;
    }
    if (err == OK && !b->sized && a->total > SHA256_BYTES) {
        b->left = a->total - SHA256_BYTES;
        b->sized = true;
    }
    if (err == OK && a->body.len > 0) {
        err = b->sized ? send_part(c, b, a->body) : E_MALFORMED;
    }
    if (err == OK && !a->more && (!b->sized || b->left > 0)) {
        err = E_MALFORMED;
    }
    if (err != OK || !a->more || call_is_over(c)) {
        char *text = a->text.len > 0 ? slice_dup_str(a->text) : NULL;
        pending_cancel(g, a->req); /* if there is more of it */
        backup_drop(c);
        if (err != OK) {
            call_fail(c, err, text);
        } else {
            call_end(c, OK, NULL);
        }
        free(text);
    } else if (call_queued_bytes(c) <= CALL_QUEUE_LOW_BYTES) {
        pending_more(g, a->req);
    }
}

void backup_snapshot(struct call *c, struct slice bytes)
{
    UNUSED(bytes);
    struct gatewayd *g = call_gateway(c);
    struct buf members = BUF_INIT;
    if (call_state(c) != NULL) {
        return; /* one request is all that the stream takes */
    }
    struct backup *b = xcalloc(1, sizeof(*b));
    call_set_state(c, b);
    cluster_encode_members(g, &members);
    int err = pending_command(g, call_identity(c), VIA_QUERY, COMMAND_SNAPSHOT, buf_slice(&members), backup_answer, c, &b->req);
    buf_fini(&members);
    if (err != OK) {
        backup_drop(c);
        call_fail(c, err, NULL);
    }
}

void backup_writable(struct call *c)
{
    struct backup *b = call_state(c);
    if (b != NULL) {
        pending_more(call_gateway(c), b->req);
    }
}

void backup_closed(struct call *c)
{
    struct backup *b = call_state(c);
    if (b != NULL) {
        pending_cancel(call_gateway(c), b->req);
        backup_drop(c);
    }
}
