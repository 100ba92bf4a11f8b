/* fuzz_api - a request from a client: the first byte picks the message, the rest is its protobuf.
 * What we take, protobuf's generated code takes too, and both see the same; what only the generated code takes must be
 * an oddity of its encoding, so that the same message in plain encoding is taken by us. The checks run on
 * whatever was taken. */
#include <stdlib.h>

#include "common/err.h"
#include "common/limits.h"
#include "tests/proto/twin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run_checks(enum twin kind, const struct twin_decoded *d)
{
    switch (kind) {
    case TWIN_RANGE:
        must(err_text(api_check_range(&d->range)) != NULL);
        break;
    case TWIN_PUT:
        must(err_text(api_check_put(&d->put)) != NULL);
        break;
    case TWIN_DELETE:
        must(err_text(api_check_delete(&d->del)) != NULL);
        break;
    case TWIN_TXN:
        must(err_text(api_check_txn(d->txn, TXN_OPS_DEFAULT)) != NULL);
        must(!api_txn_is_serializable(d->txn) || api_txn_is_read_only(d->txn));
        must(!api_txn_is_read_only(d->txn) || !api_txn_has_put(d->txn));
        break;
    default:
        break;
    }
}

/* We took it: so must they, and our own encoding of it must say the same once more. */
static void check_taken(enum twin kind, struct slice bytes, const struct twin_decoded *d, struct arena *arena)
{
    ProtobufCMessage *theirs = protobuf_c_message_unpack(twin_descriptor(kind), NULL, bytes.len, bytes.data);
    struct buf ours = BUF_INIT;
    struct twin_decoded again;

    must(theirs != NULL && twin_same(kind, d, theirs));
    twin_encode(kind, &ours, d);
    must(twin_decode(kind, buf_slice(&ours), arena, &again) == 0 && twin_same(kind, &again, theirs));
    run_checks(kind, d);
    buf_fini(&ours);
    protobuf_c_message_free_unpacked(theirs, NULL);
}

/* We refused it: if they do not, the same message without its oddities is taken. */
static void check_refused(enum twin kind, struct slice bytes, struct arena *arena)
{
    ProtobufCMessage *theirs = protobuf_c_message_unpack(twin_descriptor(kind), NULL, bytes.len, bytes.data);
    struct buf plain = BUF_INIT;
    struct twin_decoded d;

    if (theirs == NULL)
        return;
    twin_drop_unknown(theirs);
    buf_reserve(&plain, protobuf_c_message_get_packed_size(theirs) + 1);
    plain.len = protobuf_c_message_pack(theirs, plain.data);
    must(twin_decode(kind, buf_slice(&plain), arena, &d) == 0 && twin_same(kind, &d, theirs));
    buf_fini(&plain);
    protobuf_c_message_free_unpacked(theirs, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct twin_decoded d;

    if (size == 0)
        return 0;

    enum twin kind = (enum twin)(data[0] % TWIN_COUNT);
    struct slice bytes = slice_of(data + 1, size - 1);
    arena_init(&arena);
    int err = twin_decode(kind, bytes, &arena, &d);
    if (err == 0)
        check_taken(kind, bytes, &d, &arena);
    else if (err == E_MALFORMED)
        check_refused(kind, bytes, &arena);
    else
        must(err == E_TOO_MANY_OPS && kind == TWIN_TXN);
    arena_fini(&arena);
    return 0;
}
