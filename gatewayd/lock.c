/* lock - Lock and Unlock (spec/semantics.md §12). From grpc.c; to queue.c and inner.c. */
#include <stdlib.h>

#include "common/err.h"
#include "gatewayd/queue.h"
#include "proto/api.h"
#include "proto/pb.h"

static void lock_won(struct call *c, const struct place *p)
{
    struct buf out = BUF_INIT;
    pb_add_message(&out, 1, p->header);
    pb_add_bytes(&out, 2, p->key);
    call_reply(c, buf_slice(&out));
    buf_fini(&out);
}

static const struct queue_kind locks = {.lost_text = "mutex: session is expired", .won = lock_won};

void lock_lock(struct call *c, struct slice bytes)
{
    struct slice name = SLICE_EMPTY;
    int64_t lease = 0;
    struct pb_field f;
    int rv;
    while ((rv = pb_next(&bytes, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_BYTES) {
            name = f.bytes;
        } else if (f.number == 2 && f.wire == PB_VARINT) {
            lease = (int64_t)f.varint;
        }
    }
    if (rv != 0) {
        call_fail(c, E_MALFORMED_REQUEST, NULL);
    } else {
        queue_join(c, &locks, name, lease, SLICE_EMPTY);
    }
}

/* DeleteRangeResponse -> UnlockResponse: the header. */
static int unlocked(struct slice answer, struct buf *out, const char **text)
{
    struct inner_range r; /* its header is where a range's is */
    UNUSED(text);
    if (!inner_range_decode(answer, &r)) {
        return E_MALFORMED;
    }
    pb_add_message(out, 1, r.header);
    return OK;
}

void lock_unlock(struct call *c, struct slice bytes)
{
    struct slice key = SLICE_EMPTY;
    struct pb_field f;
    int rv;
    while ((rv = pb_next(&bytes, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_BYTES) {
            key = f.bytes;
        }
    }
    if (rv != 0) {
        call_fail(c, E_MALFORMED_REQUEST, NULL);
        return;
    }
    struct buf body = BUF_INIT;
    api_encode_delete(&body, &(struct api_delete){.key = key});
    inner_call(c, COMMAND_DELETE_RANGE, buf_slice(&body), unlocked);
    buf_fini(&body);
}
