/* api - the hot messages of etcd's API: decoded in place, encoded straight.
 * Requests come from clients (gatewayd), from the log and from other members (stored); the checks of their content are
 * in api_check.c. A known field with a wrong wire type is malformed, an unknown field is skipped, the last of a
 * repeated scalar wins, and so does the last member of a oneof.
 *
 * Invariants: slices borrow the request's bytes; a failed decode leaves *m untouched. */
#include "proto/api.h"

#include "common/err.h"
#include "common/limits.h"
#include "proto/pb.h"

/* --- one field ----------------------------------------------------------------------------------- */

static inline int take_bytes(const struct pb_field *f, struct slice *s)
{
    if (f->wire != PB_BYTES)
        return E_MALFORMED;
    *s = f->bytes;
    return 0;
}

static inline int take_int(const struct pb_field *f, int64_t *v)
{
    if (f->wire != PB_VARINT)
        return E_MALFORMED;
    *v = (int64_t)f->varint;
    return 0;
}

/* Enums are 32 bits wide: what a longer varint has above them does not count. */
static inline int take_enum(const struct pb_field *f, int64_t *v)
{
    if (f->wire != PB_VARINT)
        return E_MALFORMED;
    *v = (int32_t)(uint32_t)f->varint;
    return 0;
}

static inline int take_bool(const struct pb_field *f, bool *v)
{
    if (f->wire != PB_VARINT)
        return E_MALFORMED;
    *v = f->varint != 0;
    return 0;
}

/* --- flat requests ------------------------------------------------------------------------------- */

static int set_range_field(const struct pb_field *f, struct api_range *m)
{
    switch (f->number) {
    case 1:
        return take_bytes(f, &m->key);
    case 2:
        return take_bytes(f, &m->range_end);
    case 3:
        return take_int(f, &m->limit);
    case 4:
        return take_int(f, &m->revision);
    case 5:
        return take_enum(f, &m->sort_order);
    case 6:
        return take_enum(f, &m->sort_target);
    case 7:
        return take_bool(f, &m->serializable);
    case 8:
        return take_bool(f, &m->keys_only);
    case 9:
        return take_bool(f, &m->count_only);
    case 10:
        return take_int(f, &m->min_mod);
    case 11:
        return take_int(f, &m->max_mod);
    case 12:
        return take_int(f, &m->min_create);
    case 13:
        return take_int(f, &m->max_create);
    default:
        return 0;
    }
}

static int set_put_field(const struct pb_field *f, struct api_put *m)
{
    switch (f->number) {
    case 1:
        return take_bytes(f, &m->key);
    case 2:
        return take_bytes(f, &m->value);
    case 3:
        return take_int(f, &m->lease);
    case 4:
        return take_bool(f, &m->prev_kv);
    case 5:
        return take_bool(f, &m->ignore_value);
    case 6:
        return take_bool(f, &m->ignore_lease);
    default:
        return 0;
    }
}

static int set_delete_field(const struct pb_field *f, struct api_delete *m)
{
    switch (f->number) {
    case 1:
        return take_bytes(f, &m->key);
    case 2:
        return take_bytes(f, &m->range_end);
    case 3:
        return take_bool(f, &m->prev_kv);
    default:
        return 0;
    }
}

static int set_key_value_field(const struct pb_field *f, struct api_key_value *m)
{
    switch (f->number) {
    case 1:
        return take_bytes(f, &m->key);
    case 2:
        return take_int(f, &m->create_revision);
    case 3:
        return take_int(f, &m->mod_revision);
    case 4:
        return take_int(f, &m->version);
    case 5:
        return take_bytes(f, &m->value);
    case 6:
        return take_int(f, &m->lease);
    default:
        return 0;
    }
}

/* The same loop for each of them: api_decode_x from set_x_field. */
#define DECODE(x) \
    int api_decode_##x(struct slice bytes, struct api_##x *m) \
    { \
        struct api_##x got = {0}; \
        struct pb_field f; \
        int r; \
\
        while ((r = pb_next(&bytes, &f)) > 0) { \
            r = set_##x##_field(&f, &got); \
            if (r < 0) \
                return r; \
        } \
        if (r < 0) \
            return r; \
        *m = got; \
        return 0; \
    }
DECODE(range)
DECODE(put)
DECODE(delete)
DECODE(key_value)

/* --- transactions -------------------------------------------------------------------------------- */

#define COMPARE_OPERAND_FIRST 4 /* version; then create_revision, mod_revision, value, lease: as the targets */
#define COMPARE_OPERAND_VALUE (COMPARE_OPERAND_FIRST + API_VALUE)
#define COMPARE_OPERAND_LAST (COMPARE_OPERAND_FIRST + API_LEASE)

static int decode_compare(struct slice bytes, struct api_compare *m)
{
    struct api_compare got = {0};
    int64_t operand = 0; /* field of the oneof that came last */
    struct pb_field f;
    int r;

    while ((r = pb_next(&bytes, &f)) > 0) {
        if (f.number == 1)
            r = take_enum(&f, &got.result);
        else if (f.number == 2)
            r = take_enum(&f, &got.target);
        else if (f.number == 3)
            r = take_bytes(&f, &got.key);
        else if (f.number == 64)
            r = take_bytes(&f, &got.range_end);
        else if (f.number == COMPARE_OPERAND_VALUE)
            r = take_bytes(&f, &got.value);
        else if (f.number >= COMPARE_OPERAND_FIRST && f.number <= COMPARE_OPERAND_LAST)
            r = take_int(&f, &got.number);
        if (r < 0)
            return r;
        if (f.number >= COMPARE_OPERAND_FIRST && f.number <= COMPARE_OPERAND_LAST)
            operand = f.number;
    }
    if (r < 0)
        return r;

    /* An operand that is not the target's counts as missing (spec/semantics.md §7). */
    if (operand != COMPARE_OPERAND_FIRST + got.target || operand == COMPARE_OPERAND_VALUE)
        got.number = 0;
    if (operand != COMPARE_OPERAND_FIRST + got.target || operand != COMPARE_OPERAND_VALUE)
        got.value = SLICE_EMPTY;
    *m = got;
    return 0;
}

/* One transaction with all that is nested in it. What is over a limit is still read to its end, because a malformed request
 * is malformed whatever its length, but gets no memory: 2 MiB of empty operations would take 110 MB. */
struct txn_reader {
    struct arena *arena;
    uint64_t left;     /* items that may still get memory, of the whole tree */
    unsigned skipping; /* > 0: inside of what is over a limit */
};

static int decode_txn(struct slice bytes, struct txn_reader *r, unsigned depth, uint64_t ops_max, struct api_txn *m);

static int decode_nested(struct slice bytes, struct txn_reader *r, unsigned depth, uint64_t ops_max, struct api_request_op *m)
{
    struct api_txn txn;
    int err = decode_txn(bytes, r, depth, ops_max, &txn);

    if (err < 0 || r->skipping)
        return err;
    m->txn = arena_dup(r->arena, &txn, sizeof(txn));
    return 0;
}

/* The last member of the oneof replaces those before it. */
static int decode_op(struct slice bytes, struct txn_reader *reader, unsigned depth, uint64_t ops_max, struct api_request_op *m)
{
    struct pb_field f;
    int r;

    m->op = API_OP_NONE;
    while ((r = pb_next(&bytes, &f)) > 0) {
        if (f.number > API_OP_TXN)
            continue;
        if (f.wire != PB_BYTES)
            return E_MALFORMED;
        m->op = (enum api_op)f.number; /* enum api_op has the numbers of the fields */
        if (m->op == API_OP_RANGE)
            r = api_decode_range(f.bytes, &m->range);
        else if (m->op == API_OP_PUT)
            r = api_decode_put(f.bytes, &m->put);
        else if (m->op == API_OP_DELETE)
            r = api_decode_delete(f.bytes, &m->del);
        else
            r = decode_nested(f.bytes, reader, depth + 1, ops_max, m);
        if (r < 0)
            return r;
    }
    return r;
}

enum txn_list { TXN_COMPARE = 1, TXN_SUCCESS = 2, TXN_FAILURE = 3 };

/* How many of each list there are, so that each gets one array of the right size. */
static int count_lists(struct slice bytes, size_t counts[static TXN_FAILURE + 1])
{
    struct pb_field f;
    int r;

    while ((r = pb_next(&bytes, &f)) > 0) {
        if (f.number > TXN_FAILURE)
            continue;
        if (f.wire != PB_BYTES)
            return E_MALFORMED;
        counts[f.number]++;
    }
    return r;
}

static int fill_lists(struct slice bytes, struct txn_reader *reader, unsigned depth, uint64_t ops_max, struct api_txn *txn)
{
    struct api_compare no_compare;
    struct api_request_op no_op;
    bool skip = reader->skipping;
    struct pb_field f;
    int r;

    while ((r = pb_next(&bytes, &f)) > 0) {
        if (f.number == TXN_COMPARE)
            r = decode_compare(f.bytes, skip ? &no_compare : &txn->compares[txn->compare_count++]);
        else if (f.number == TXN_SUCCESS)
            r = decode_op(f.bytes, reader, depth, ops_max, skip ? &no_op : &txn->success[txn->success_count++]);
        else if (f.number == TXN_FAILURE)
            r = decode_op(f.bytes, reader, depth, ops_max, skip ? &no_op : &txn->failure[txn->failure_count++]);
        if (r < 0)
            return r;
    }
    return r;
}

static int decode_txn(struct slice bytes, struct txn_reader *r, unsigned depth, uint64_t ops_max, struct api_txn *m)
{
    size_t counts[TXN_FAILURE + 1] = {0};

    *m = (struct api_txn){0};
    if (depth > TXN_DEPTH_MAX)
        return E_TOO_MANY_OPS;
    int err = count_lists(bytes, counts);
    if (err < 0)
        return err;

    size_t longest = MAX(counts[TXN_COMPARE], MAX(counts[TXN_SUCCESS], counts[TXN_FAILURE]));
    uint64_t all = 1 + (uint64_t)counts[TXN_COMPARE] + counts[TXN_SUCCESS] + counts[TXN_FAILURE];
    if (r->skipping || longest > ops_max || all > r->left) {
        m->compare_count = API_TXN_TOO_MANY;
        r->skipping++;
        err = fill_lists(bytes, r, depth, 0, m);
        r->skipping--;
        return err;
    }
    r->left -= all;
    m->compares = arena_alloc(r->arena, counts[TXN_COMPARE] * sizeof(m->compares[0]));
    m->success = arena_alloc(r->arena, counts[TXN_SUCCESS] * sizeof(m->success[0]));
    m->failure = arena_alloc(r->arena, counts[TXN_FAILURE] * sizeof(m->failure[0]));
    return fill_lists(bytes, r, depth, ops_max - longest, m);
}

int api_decode_txn(struct slice bytes, struct arena *arena, uint64_t ops_max, struct api_txn **m)
{
    struct txn_reader reader = {.arena = arena, .left = 1 + MAX(ops_max, (uint64_t)TXN_ALL_OPS_MAX)};
    struct api_txn txn;
    int err = decode_txn(bytes, &reader, 0, ops_max, &txn);

    if (err == 0 && txn.compare_count == API_TXN_TOO_MANY)
        err = E_TOO_MANY_OPS; /* the first check that etcd makes; of a nested one it is api_check_txn that says so */
    if (err < 0)
        return err;
    *m = arena_dup(arena, &txn, sizeof(txn));
    return 0;
}

/* --- encoders ------------------------------------------------------------------------------------ */

static size_t int_size(int64_t v)
{
    return v == 0 ? 0 : 1 + pb_varint_size((uint64_t)v);
}

static size_t bytes_size(struct slice s)
{
    return s.len == 0 ? 0 : 1 + pb_varint_size(s.len) + s.len;
}

size_t api_key_value_size(const struct api_key_value *m)
{
    return bytes_size(m->key) + int_size(m->create_revision) + int_size(m->mod_revision) + int_size(m->version) +
           bytes_size(m->value) + int_size(m->lease);
}

void api_encode_key_value(struct buf *out, const struct api_key_value *m)
{
    buf_reserve(out, api_key_value_size(m));
    pb_add_bytes(out, 1, m->key);
    pb_add_int(out, 2, m->create_revision);
    pb_add_int(out, 3, m->mod_revision);
    pb_add_int(out, 4, m->version);
    pb_add_bytes(out, 5, m->value);
    pb_add_int(out, 6, m->lease);
}

void api_encode_range(struct buf *out, const struct api_range *m)
{
    pb_add_bytes(out, 1, m->key);
    pb_add_bytes(out, 2, m->range_end);
    pb_add_int(out, 3, m->limit);
    pb_add_int(out, 4, m->revision);
    pb_add_int(out, 5, m->sort_order);
    pb_add_int(out, 6, m->sort_target);
    pb_add_uint(out, 7, m->serializable);
    pb_add_uint(out, 8, m->keys_only);
    pb_add_uint(out, 9, m->count_only);
    pb_add_int(out, 10, m->min_mod);
    pb_add_int(out, 11, m->max_mod);
    pb_add_int(out, 12, m->min_create);
    pb_add_int(out, 13, m->max_create);
}

void api_encode_put(struct buf *out, const struct api_put *m)
{
    pb_add_bytes(out, 1, m->key);
    pb_add_bytes(out, 2, m->value);
    pb_add_int(out, 3, m->lease);
    pb_add_uint(out, 4, m->prev_kv);
    pb_add_uint(out, 5, m->ignore_value);
    pb_add_uint(out, 6, m->ignore_lease);
}

void api_encode_delete(struct buf *out, const struct api_delete *m)
{
    pb_add_bytes(out, 1, m->key);
    pb_add_bytes(out, 2, m->range_end);
    pb_add_uint(out, 3, m->prev_kv);
}

static void encode_compare(struct buf *out, const struct api_compare *m)
{
    pb_add_int(out, 1, m->result);
    pb_add_int(out, 2, m->target);
    pb_add_bytes(out, 3, m->key);
    /* A missing operand means the same as zero, so zero is left out here too. */
    if (m->target == API_VALUE)
        pb_add_bytes(out, COMPARE_OPERAND_VALUE, m->value);
    else if (m->target >= API_VERSION && m->target <= API_LEASE)
        pb_add_int(out, COMPARE_OPERAND_FIRST + (uint32_t)m->target, m->number);
    pb_add_bytes(out, 64, m->range_end);
}

static void encode_op(struct buf *out, const struct api_request_op *m)
{
    struct buf body = BUF_INIT;

    switch (m->op) {
    case API_OP_NONE:
        return;
    case API_OP_RANGE:
        api_encode_range(&body, &m->range);
        break;
    case API_OP_PUT:
        api_encode_put(&body, &m->put);
        break;
    case API_OP_DELETE:
        api_encode_delete(&body, &m->del);
        break;
    case API_OP_TXN:
        api_encode_txn(&body, m->txn);
        break;
    }
    pb_add_message(out, (uint32_t)m->op, buf_slice(&body));
    buf_fini(&body);
}

static void encode_ops(struct buf *out, uint32_t number, const struct api_request_op *ops, size_t count)
{
    struct buf body = BUF_INIT;

    for (size_t i = 0; i < count; i++) {
        buf_reset(&body);
        encode_op(&body, &ops[i]);
        pb_add_message(out, number, buf_slice(&body));
    }
    buf_fini(&body);
}

void api_encode_txn(struct buf *out, const struct api_txn *m)
{
    struct buf body = BUF_INIT;

    for (size_t i = 0; i < m->compare_count; i++) {
        buf_reset(&body);
        encode_compare(&body, &m->compares[i]);
        pb_add_message(out, TXN_COMPARE, buf_slice(&body));
    }
    buf_fini(&body);
    encode_ops(out, TXN_SUCCESS, m->success, m->success_count);
    encode_ops(out, TXN_FAILURE, m->failure, m->failure_count);
}
