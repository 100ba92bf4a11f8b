/* test_authorize_model - random roles, random nested requests, and the promise: no byte outside the granted intervals is ever
 * returned or written.
 *
 * The model is simple-minded on purpose: it knows the granted permissions as a list, and a request as a tree that it walks on
 * its own; an interval is allowed if each point of it is, and the points are all that can make a difference: every key that
 * may stand at an interval's end, and the key right after it. For each case:
 *   - denied by the model: the answer is "permission denied", it has no body, and nothing has changed;
 *   - allowed: the answer is anything but that; no key of an answer is unreadable, no value of an unreadable key is in its bytes
 *     (values spell their keys), and each key that has changed was writable.
 *
 *   CASES=100000 TRINE_SEED=7 build/tests/stored/test_authorize_model       or make auth-property CASES=100000 SEED=7 */
#include "common/log.h"
#include "common/rand.h"
#include "etcd/rpc.pb-c.h"
#include "tests/stored/auth_help.h"

#define CASES_DEFAULT 5000
#define ROLES 4
#define PERMS_MAX 5
#define LEASES 4
#define LEASE_TTL 1000000
#define DEPTH_MAX 3
#define NEEDS_MAX 4096

/* --- keys and points ------------------------------------------------------------------------------------------- */

#define LETTERS 3
#define KEYS (LETTERS + LETTERS * LETTERS + LETTERS * LETTERS * LETTERS)
#define POINTS (2 * KEYS + 1)

static char keys[KEYS][4]; /* a aa aaa aab ..., in byte order */

static int name_cmp(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void keys_init(void)
{
    size_t n = 0;

    for (char a = 'a'; a < 'a' + LETTERS; a++) {
        snprintf(keys[n++], 4, "%c", a);
        for (char b = 'a'; b < 'a' + LETTERS; b++) {
            snprintf(keys[n++], 4, "%c%c", a, b);
            for (char c = 'a'; c < 'a' + LETTERS; c++)
                snprintf(keys[n++], 4, "%c%c%c", a, b, c);
        }
    }
    cr_assert_eq(n, KEYS);
    qsort(keys, KEYS, sizeof *keys, name_cmp);
}

/* Point 0 is the smallest key of all; then each key and the one right after it. */
static struct slice point(size_t n)
{
    return n == 0 ? slice_of("", 1) : slice_of(keys[(n - 1) / 2], strlen(keys[(n - 1) / 2]) + (n - 1) % 2);
}

static bool is_open(struct slice end)
{
    return end.len == 1 && end.data[0] == 0;
}

static bool holds(struct slice key, struct slice end, struct slice x)
{
    if (end.len == 0)
        return slice_eq(key, x);
    return slice_cmp(key, x) <= 0 && (is_open(end) || slice_cmp(x, end) < 0);
}

/* --- the model ---------------------------------------------------------------------------------------------------- */

struct grant_row {
    int64_t type;
    struct slice key, end; /* of `keys`, or literals */
};

struct lease_row {
    bool exists;
};

/* What of the store matters: for each key, is it there, since when, with which lease. */
struct state {
    int64_t mod[KEYS], lease[KEYS];
};

struct model {
    struct world *w;
    struct rand r;
    struct grant_row grants[ROLES][PERMS_MAX];
    size_t grant_count[ROLES];
    bool has[ROLES]; /* the user has this role */
    struct lease_row leases[LEASES];
    bool readable[POINTS], writable[POINTS];
    struct state state;
    uint64_t value; /* counts values */
};

/* What one request needs. */
struct need {
    bool write;
    struct slice key, end;
};
struct needs {
    struct need list[NEEDS_MAX];
    size_t count;
};

static void points_make(struct model *m)
{
    for (size_t n = 0; n < POINTS; n++) {
        m->readable[n] = m->writable[n] = false;
        for (size_t role = 0; role < ROLES; role++)
            for (size_t i = 0; m->has[role] && i < m->grant_count[role]; i++) {
                const struct grant_row *g = &m->grants[role][i];

                if (!holds(g->key, g->end, point(n)))
                    continue;
                m->readable[n] |= g->type != PERM_WRITE;
                m->writable[n] |= g->type != PERM_READ;
            }
    }
}

static size_t key_number(struct slice key)
{
    for (size_t i = 0; i < KEYS; i++)
        if (slice_eq(slice_str(keys[i]), key))
            return i;
    cr_assert_fail("a key that nobody ever put: %.*s", (int)key.len, (const char *)key.data);
    return 0;
}

static bool key_is(const bool *points, struct slice key)
{
    return points[1 + 2 * key_number(key)];
}

enum verdict { DENIED, ALLOWED, EITHER };

/* EITHER: an interval without a point gives nobody anything; whether it is refused is tested in test_perm.c. */
static enum verdict verdict_of(const struct model *m, const struct needs *needs)
{
    enum verdict verdict = ALLOWED;

    for (size_t i = 0; i < needs->count; i++) {
        const struct need *need = &needs->list[i];
        bool any = false;

        for (size_t n = 0; n < POINTS; n++) {
            if (!holds(need->key, need->end, point(n)))
                continue;
            any = true;
            if (!(need->write ? m->writable : m->readable)[n])
                return DENIED;
        }
        if (!any)
            verdict = EITHER;
    }
    return verdict;
}

static void need(struct needs *needs, bool write, struct slice key, struct slice end)
{
    cr_assert_lt(needs->count, NEEDS_MAX);
    needs->list[needs->count++] = (struct need){write, key, end};
}

static void need_lease(const struct model *m, struct needs *needs, bool write, int64_t id)
{
    for (size_t i = 0; i < KEYS; i++)
        if (id && m->state.mod[i] && m->state.lease[i] == id)
            need(needs, write, slice_str(keys[i]), SLICE_EMPTY);
}

/* --- random requests ------------------------------------------------------------------------------------------------ */

static size_t below(struct model *m, size_t limit)
{
    return (size_t)rand_below(&m->r, limit);
}

static struct slice any_key(struct model *m)
{
    return slice_str(keys[below(m, KEYS)]);
}

static struct slice any_end(struct model *m)
{
    switch (below(m, 8)) {
    case 0:
    case 1:
    case 2:
        return SLICE_EMPTY;
    case 3:
        return slice_of("", 1);
    default:
        return point(1 + below(m, POINTS - 1));
    }
}

/* Mostly one that the user may have: all of a grant, or a part of it. */
static void any_interval(struct model *m, struct slice *key, struct slice *end)
{
    const struct grant_row *g;
    size_t role = below(m, ROLES);

    *key = any_key(m);
    *end = any_end(m);
    if (below(m, 4) == 0 || !m->grant_count[role])
        return;
    g = &m->grants[role][below(m, m->grant_count[role])];
    if (below(m, 2))
        *key = g->key;
    if (!holds(g->key, g->end, *key))
        *key = g->key;
    if (below(m, 2))
        *end = below(m, 2) ? SLICE_EMPTY : g->end;
    if (below(m, 4) == 0 && m->grant_count[role = below(m, ROLES)]) /* from one grant into another */
        *end = m->grants[role][below(m, m->grant_count[role])].end;
}

static struct slice value_of(struct model *m, struct slice key, char *text, size_t size)
{
    int len = snprintf(text, size, "<%.*s>%llu", (int)key.len, (const char *)key.data, (unsigned long long)++m->value);

    return slice_of(text, (size_t)len);
}

static int64_t any_lease(struct model *m)
{
    return below(m, 3) ? 0 : 1 + (int64_t)below(m, LEASES + 1);
}

static struct api_range any_range(struct model *m, struct needs *needs)
{
    struct api_range rq = {.limit = below(m, 4) ? 0 : (int64_t)below(m, 5),
                           .sort_order = (int64_t)below(m, 3),
                           .sort_target = (int64_t)below(m, 5),
                           .keys_only = below(m, 5) == 0,
                           .count_only = below(m, 5) == 0,
                           .serializable = below(m, 2)};

    if (below(m, 4) == 0)
        rq.revision = 1 + (int64_t)below(m, (size_t)mvcc_rev(m->w->s.mvcc));
    any_interval(m, &rq.key, &rq.range_end);
    need(needs, false, rq.key, rq.range_end);
    return rq;
}

/* value: 32 bytes for the value's text. */
static struct api_put any_put(struct model *m, struct needs *needs, char *value)
{
    struct slice unused;
    struct api_put rq = {.lease = any_lease(m), .prev_kv = below(m, 3) == 0};

    any_interval(m, &rq.key, &unused);
    rq.value = value_of(m, rq.key, value, 32);
    if (below(m, 8) == 0) {
        rq.ignore_lease = true;
        rq.lease = 0;
    }
    if (below(m, 8) == 0) {
        rq.ignore_value = true;
        rq.value = SLICE_EMPTY;
    }
    need(needs, true, rq.key, SLICE_EMPTY);
    if (rq.prev_kv)
        need(needs, false, rq.key, SLICE_EMPTY);
    need_lease(m, needs, true, rq.lease);
    return rq;
}

static struct api_delete any_delete(struct model *m, struct needs *needs)
{
    struct api_delete rq = {.prev_kv = below(m, 3) == 0};

    any_interval(m, &rq.key, &rq.range_end);
    need(needs, true, rq.key, rq.range_end);
    if (rq.prev_kv)
        need(needs, false, rq.key, rq.range_end);
    return rq;
}

static struct api_txn *any_txn(struct model *m, struct needs *needs, struct arena *arena, int depth, bool reads_only);

static void any_ops(struct model *m, struct needs *needs, struct arena *arena, int depth, bool reads_only,
                    struct api_request_op **ops, size_t *count)
{
    *count = below(m, 3);
    *ops = arena_zalloc(arena, (*count + 1) * sizeof **ops);
    for (size_t i = 0; i < *count; i++) {
        struct api_request_op *op = &(*ops)[i];

        switch (reads_only ? 0 : below(m, depth < DEPTH_MAX ? 5 : 3)) {
        case 0:
            *op = (struct api_request_op){.op = API_OP_RANGE, .range = any_range(m, needs)};
            break;
        case 1:
            *op = (struct api_request_op){.op = API_OP_PUT, .put = any_put(m, needs, arena_alloc(arena, 32))};
            break;
        case 2:
            *op = (struct api_request_op){.op = API_OP_DELETE, .del = any_delete(m, needs)};
            break;
        default:
            *op = (struct api_request_op){.op = API_OP_TXN, .txn = any_txn(m, needs, arena, depth + 1, false)};
        }
    }
}

static struct api_txn *any_txn(struct model *m, struct needs *needs, struct arena *arena, int depth, bool reads_only)
{
    struct api_txn *rq = arena_zalloc(arena, sizeof *rq);

    rq->compare_count = below(m, 3);
    rq->compares = arena_zalloc(arena, (rq->compare_count + 1) * sizeof *rq->compares);
    for (size_t i = 0; i < rq->compare_count; i++) {
        struct api_compare *c = &rq->compares[i];

        *c = (struct api_compare){.target = (int64_t)below(m, 5), .result = (int64_t)below(m, 4)};
        any_interval(m, &c->key, &c->range_end);
        need(needs, false, c->key, c->range_end);
    }
    any_ops(m, needs, arena, depth, reads_only, &rq->success, &rq->success_count);
    any_ops(m, needs, arena, depth, reads_only, &rq->failure, &rq->failure_count);
    return rq;
}

/* --- what an answer may hold ------------------------------------------------------------------------------------------- */

static void check_key(const struct model *m, ProtobufCBinaryData key)
{
    cr_assert(key_is(m->readable, slice_of(key.data, key.len)), "key %.*s was told, and is not hers to read", (int)key.len,
              (const char *)key.data);
}

static void check_range(const struct model *m, const Etcdserverpb__RangeResponse *r)
{
    for (size_t i = 0; i < r->n_kvs; i++)
        check_key(m, r->kvs[i]->key);
}

static void check_txn(const struct model *m, const Etcdserverpb__TxnResponse *r)
{
    for (size_t i = 0; i < r->n_responses; i++) {
        const Etcdserverpb__ResponseOp *op = r->responses[i];

        if (op->response_case == ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE)
            check_range(m, op->response_range);
        if (op->response_case == ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_PUT && op->response_put->prev_kv)
            check_key(m, op->response_put->prev_kv->key);
        if (op->response_case == ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_DELETE_RANGE)
            for (size_t n = 0; n < op->response_delete_range->n_prev_kvs; n++)
                check_key(m, op->response_delete_range->prev_kvs[n]->key);
        if (op->response_case == ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_TXN)
            check_txn(m, op->response_txn);
    }
}

/* The bytes as they are, whatever message they make: the secret of no unreadable key. */
static void check_bytes(const struct model *m, struct slice body)
{
    for (size_t i = 0; body.len && i < KEYS; i++) {
        char secret[8];
        int len = snprintf(secret, sizeof secret, "<%s>", keys[i]);

        if (!m->readable[1 + 2 * i])
            cr_assert_null(memmem(body.data, body.len, secret, (size_t)len), "the value of %s was told", keys[i]);
    }
}

#define UNPACKED(type, name, body) \
    Etcdserverpb__##type *r = etcdserverpb__##name##__unpack(NULL, (body).len, (body).data); \
    cr_assert_not_null(r)

static void check_message(const struct model *m, enum command_kind kind, struct slice body)
{
    if (kind == COMMAND_RANGE) {
        UNPACKED(RangeResponse, range_response, body);
        check_range(m, r);
        etcdserverpb__range_response__free_unpacked(r, NULL);
    } else if (kind == COMMAND_RANGE_STREAM) {
        UNPACKED(RangeStreamResponse, range_stream_response, body);
        check_range(m, r->range_response);
        etcdserverpb__range_stream_response__free_unpacked(r, NULL);
    } else if (kind == COMMAND_PUT) {
        UNPACKED(PutResponse, put_response, body);
        if (r->prev_kv)
            check_key(m, r->prev_kv->key);
        etcdserverpb__put_response__free_unpacked(r, NULL);
    } else if (kind == COMMAND_DELETE_RANGE) {
        UNPACKED(DeleteRangeResponse, delete_range_response, body);
        for (size_t i = 0; i < r->n_prev_kvs; i++)
            check_key(m, r->prev_kvs[i]->key);
        etcdserverpb__delete_range_response__free_unpacked(r, NULL);
    } else if (kind == COMMAND_TXN) {
        UNPACKED(TxnResponse, txn_response, body);
        check_txn(m, r);
        etcdserverpb__txn_response__free_unpacked(r, NULL);
    } else if (kind == COMMAND_LEASE_TIME_TO_LIVE) {
        UNPACKED(LeaseTimeToLiveResponse, lease_time_to_live_response, body);
        for (size_t i = 0; i < r->n_keys; i++)
            check_key(m, r->keys[i]);
        etcdserverpb__lease_time_to_live_response__free_unpacked(r, NULL);
    }
}

/* --- what has changed ---------------------------------------------------------------------------------------------------- */

static void state_read(struct model *m, struct state *state)
{
    Etcdserverpb__RangeResponse *r;
    struct frame f;

    *state = (struct state){.mod = {0}};
    cr_assert_eq(range_as(m->w, "root", (struct api_range){.key = SLICE_LIT("a"), .range_end = SLICE_LIT("\0")}, &f), 0);
    r = etcdserverpb__range_response__unpack(NULL, f.result.body.len, f.result.body.data);
    cr_assert_not_null(r);
    for (size_t i = 0; i < r->n_kvs; i++) {
        size_t n = key_number(slice_of(r->kvs[i]->key.data, r->kvs[i]->key.len));

        state->mod[n] = r->kvs[i]->mod_revision;
        state->lease[n] = r->kvs[i]->lease;
    }
    etcdserverpb__range_response__free_unpacked(r, NULL);
}

static void check_changes(struct model *m, bool denied)
{
    struct state now;

    state_read(m, &now);
    for (size_t i = 0; i < KEYS; i++) {
        bool same = now.mod[i] == m->state.mod[i] && now.lease[i] == m->state.lease[i];

        cr_assert(same || (!denied && m->writable[1 + 2 * i]), "%s has changed", keys[i]);
    }
    m->state = now;
}

/* --- cases ------------------------------------------------------------------------------------------------------------------ */

static void run(struct model *m, enum command_kind kind, struct slice body, bool as_read, const struct needs *needs)
{
    enum verdict verdict = verdict_of(m, needs);
    uint64_t rev = m->w->s.auth->rev;
    struct frame f;
    int err = (as_read ? read_at : apply_at)(m->w, "anna", rev, kind, body, &f);

    if (verdict == DENIED)
        cr_assert_eq(err, E_PERMISSION_DENIED, "%s: %s", command_name(kind), err_text(err));
    if (verdict == ALLOWED)
        cr_assert_neq(err, E_PERMISSION_DENIED, "%s", command_name(kind));
    if (err)
        cr_assert_eq(f.result.body.len, 0);
    check_bytes(m, f.result.body);
    if (!err)
        check_message(m, kind, f.result.body);
    if (!as_read)
        check_changes(m, verdict == DENIED || err);
}

static void one_lease_case(struct model *m, struct needs *needs, struct buf *body)
{
    static const enum command_kind kinds[] = {COMMAND_LEASE_REVOKE, COMMAND_LEASE_KEEP_ALIVE, COMMAND_LEASE_TIME_TO_LIVE,
                                              COMMAND_LEASE_LEASES};
    enum command_kind kind = kinds[below(m, ARRAY_LEN(kinds))];
    int64_t id = 1 + (int64_t)below(m, LEASES + 1);
    bool want_keys = below(m, 2);

    if (kind == COMMAND_LEASE_LEASES) {
        for (int64_t each = 1; each <= LEASES; each++)
            need_lease(m, needs, false, each);
    } else if (kind == COMMAND_LEASE_TIME_TO_LIVE) {
        if (want_keys)
            need_lease(m, needs, false, id);
        pb_add_uint(body, 2, want_keys);
    } else {
        need_lease(m, needs, true, id);
    }
    if (kind != COMMAND_LEASE_LEASES)
        pb_add_int(body, 1, id);
    run(m, kind, buf_slice(body), kind != COMMAND_LEASE_REVOKE, needs);
}

static void one_case(struct model *m, struct needs *needs)
{
    struct buf body = BUF_INIT;
    struct arena arena;
    char value[32];

    arena_init(&arena);
    needs->count = 0;
    switch (below(m, 10)) {
    case 0:
    case 1: {
        struct api_range rq = any_range(m, needs);
        bool stream = below(m, 3) == 0;

        if (stream)
            rq.sort_order = rq.sort_target = 0;
        api_encode_range(&body, &rq);
        run(m, stream ? COMMAND_RANGE_STREAM : COMMAND_RANGE, buf_slice(&body), true, needs);
        break;
    }
    case 2: {
        struct api_put rq = any_put(m, needs, value);

        api_encode_put(&body, &rq);
        run(m, COMMAND_PUT, buf_slice(&body), false, needs);
        break;
    }
    case 3: {
        struct api_delete rq = any_delete(m, needs);

        api_encode_delete(&body, &rq);
        run(m, COMMAND_DELETE_RANGE, buf_slice(&body), false, needs);
        break;
    }
    case 4:
        one_lease_case(m, needs, &body);
        break;
    default: {
        bool reads_only = below(m, 5) == 0;

        api_encode_txn(&body, any_txn(m, needs, &arena, 0, reads_only));
        run(m, COMMAND_TXN, buf_slice(&body), reads_only, needs);
    }
    }
    buf_fini(&body);
    arena_fini(&arena);
}

/* --- what goes on beside ------------------------------------------------------------------------------------------------------ */

static const char *role_name(size_t role)
{
    static const char *const names[ROLES] = {"r0", "r1", "r2", "r3"};

    return names[role];
}

static void change_grant(struct model *m, size_t role)
{
    struct grant_row g = {.type = (int64_t)below(m, 3), .key = any_key(m), .end = any_end(m)};
    struct buf body = BUF_INIT;
    struct frame f;
    size_t i = 0;

    if (m->grant_count[role] && below(m, 3) == 0) {
        i = below(m, m->grant_count[role]);
        g = m->grants[role][i];
        pb_add_bytes(&body, 1, slice_str(role_name(role)));
        pb_add_bytes(&body, 2, g.key);
        pb_add_bytes(&body, 3, g.end);
        cr_assert_eq(as(m->w, "root", COMMAND_ROLE_REVOKE, buf_slice(&body), &f), 0);
        buf_fini(&body);
        m->grants[role][i] = m->grants[role][--m->grant_count[role]];
        return;
    }
    if (m->grant_count[role] && below(m, 3) == 0) { /* begin where another one ends */
        struct slice end = m->grants[role][below(m, m->grant_count[role])].end;

        if (end.len && end.data[end.len - 1])
            g.key = end;
    }
    if (g.end.len && !is_open(g.end) && slice_cmp(g.end, g.key) <= 0)
        g.end = SLICE_EMPTY;
    while (i < m->grant_count[role] && !(slice_eq(m->grants[role][i].key, g.key) && slice_eq(m->grants[role][i].end, g.end)))
        i++;
    if (i == PERMS_MAX)
        return;
    cr_assert_eq(grant(m->w, "root", role_name(role), g.type, g.key, g.end), 0);
    m->grants[role][i] = g;
    m->grant_count[role] = MAX(m->grant_count[role], i + 1);
}

static void change_roles(struct model *m, size_t role)
{
    must_do(m->w, "root", m->has[role] ? COMMAND_USER_REVOKE_ROLE : COMMAND_USER_GRANT_ROLE, "anna", role_name(role), NULL,
            NULL);
    m->has[role] = !m->has[role];
}

/* root sees to it that there is something to be told and to be broken. */
static void put_something(struct model *m)
{
    struct slice key = any_key(m);
    struct frame f;
    char value[32];
    int64_t lease = 1 + (int64_t)below(m, LEASES);

    as_ints(m->w, "root", COMMAND_LEASE_GRANT, LEASE_TTL, lease, &f); /* if it is gone */
    cr_assert_eq(put_as(m->w, "root", (struct api_put){.key = key, .value = value_of(m, key, value, sizeof value),
                                                       .lease = below(m, 3) ? 0 : lease}, &f), 0);
    state_read(m, &m->state);
}

static void beside(struct model *m)
{
    switch (below(m, 6)) {
    case 0:
        change_roles(m, below(m, ROLES));
        points_make(m);
        break;
    case 1:
    case 2:
        change_grant(m, below(m, ROLES));
        points_make(m);
        break;
    default:
        put_something(m);
    }
}

static uint64_t number_of(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 10) : fallback;
}

Test(authorize_model, no_byte_outside_the_granted_intervals_is_ever_returned_or_written, .timeout = 3600)
{
    uint64_t cases = number_of("CASES", CASES_DEFAULT), seed = number_of("TRINE_SEED", 1), allowed = 0;
    struct model *m = xcalloc(1, sizeof *m);
    struct needs *needs = xcalloc(1, sizeof *needs);

    log_init("test", LOG_L_ERROR);
    keys_init();
    fprintf(stderr, "authorize_model: TRINE_SEED=%llu\n", (unsigned long long)seed);
    rand_seed(&m->r, seed);
    m->w = world_new();
    m->w->conf.wal_segment_bytes = WAL_SEGMENT_BYTES; /* no sync after each command */
    auth_on(m->w);
    must_do(m->w, "root", COMMAND_USER_ADD, "anna", NULL, NULL, NULL);
    for (size_t role = 0; role < ROLES; role++) {
        must_do(m->w, "root", COMMAND_ROLE_ADD, role_name(role), NULL, NULL, NULL);
        change_roles(m, role);
    }
    points_make(m);
    for (int i = 0; i < 2 * KEYS; i++)
        put_something(m);
    for (uint64_t i = 0; i < cases; i++) {
        if (below(m, 3) == 0)
            beside(m);
        one_case(m, needs);
        allowed += verdict_of(m, needs) == ALLOWED;
        fake_drop_all(m->w->raft);
        if (i % 1000 == 999) {
            fake_advance(m->w->loop, 1000);
            fprintf(stderr, "authorize_model: %llu cases, %llu allowed\n", (unsigned long long)(i + 1), (unsigned long long)allowed);
        }
    }
    cr_assert(cases < 100 || (allowed > cases / 10 && allowed < cases * 9 / 10), "%llu of %llu were allowed",
              (unsigned long long)allowed, (unsigned long long)cases);
    world_free(m->w);
    free(needs);
    free(m);
}
