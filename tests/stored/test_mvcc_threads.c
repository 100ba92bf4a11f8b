/* Apply on one thread, readers on others, and all upkeep beside them. Each write transaction gives all keys of the group one
 * value and creates or deletes a few others: a reader must always see one value, and a count that fits it. Meant to be run under
 * the thread sanitizer too. */
#include <pthread.h>
#include <stdatomic.h>

#include "common/rand.h"
#include "tests/stored/mvcc_help.h"

#define GROUP 40
#define TURNS 1500

static struct store shared;
static atomic_bool done;

static void write_turn(struct store *s, int turn)
{
    static struct api_request_op ops[GROUP + 2];
    static char keys[GROUP][16];
    char value[16], extra[16], old[16];
    snprintf(value, sizeof(value), "%d", turn);
    for (int i = 0; i < GROUP; i++) {
        snprintf(keys[i], sizeof(keys[i]), "g%03d", i);
        ops[i] = (struct api_request_op){.op = API_OP_PUT, .put = {.key = S(keys[i]), .value = S(value)}};
    }
    snprintf(extra, sizeof(extra), "x%d", turn);
    snprintf(old, sizeof(old), "x%d", turn - 1);
    ops[GROUP] = (struct api_request_op){.op = API_OP_PUT, .put = {.key = S(extra), .value = S(value)}};
    ops[GROUP + 1] = (struct api_request_op){.op = API_OP_DELETE, .del = {.key = S(old)}};
    struct api_txn txn = {.success = ops, .success_count = GROUP + 2};
    struct buf out = BUF_INIT;
    begin(s);
    cr_assert_eq(mvcc_txn(s->m, &txn, &out), 0);
    if (turn % 50 == 49) {
        cr_assert_eq(mvcc_compact(s->m, mvcc_rev(s->m) - 5, &out), 0);
    }
    end(s);
    buf_fini(&out);
}

static void check_state(const Etcdserverpb__RangeResponse *r)
{
    if (r->n_kvs == 0) {
        return; /* before the first turn */
    }
    cr_assert_eq(r->n_kvs, GROUP + 1);
    cr_assert_eq(r->count, GROUP + 1);
    for (size_t i = 1; i < r->n_kvs; i++) {
        cr_assert_eq(r->kvs[i]->mod_revision, r->kvs[0]->mod_revision);
        cr_assert_eq(r->kvs[i]->value.len, r->kvs[0]->value.len);
        cr_assert_eq(memcmp(r->kvs[i]->value.data, r->kvs[0]->value.data, r->kvs[0]->value.len), 0);
    }
}

static void *read_loop(void *arg)
{
    struct rand r;
    rand_seed(&r, (uint64_t)(uintptr_t)arg);
    while (!atomic_load(&done)) {
        Etcdserverpb__RangeResponse *got;
        struct api_range rq = {.key = S("a"), .range_end = S("z"), .keys_only = false};
        if (rand_below(&r, 2) == 0) {
            rq.revision = MAX(mvcc_rev(shared.m) - (int64_t)rand_below(&r, 8), 1);
        }
        int err = range_rq(&shared, rq, 300, &got);
        cr_assert(err == 0 || (err == E_COMPACTED && rq.revision > 0), "%s", err_text(err));
        if (err == 0) {
            check_state(got);
        }
        range_free(got);
    }
    return NULL;
}

static void count_event(void *arg, const struct mvcc_event *ev)
{
    UNUSED(ev);
    ++*(int *)arg;
}

static void *upkeep_loop(void *arg)
{
    UNUSED(arg);
    while (!atomic_load(&done)) {
        int events = 0;
        uint32_t hash;
        int64_t a, b, next;
        struct api_interval all = api_interval(S("a"), S("z"));
        uint64_t durable = mvcc_sync(shared.m);
        mvcc_checkpoint(shared.m);
        while (mvcc_compact_step(shared.m, 100, durable)) {
        }
        int err = mvcc_history(shared.m, &all, MAX(mvcc_rev(shared.m) - 3, 1), mvcc_rev(shared.m), true, 10, 1 << 20,
                               count_event, &events, &next);
        cr_assert(err == 0 || err == E_COMPACTED);
        err = mvcc_hash(shared.m, 0, &hash, &a, &b);
        cr_assert(err == 0 || err == E_AGAIN);
    }
    return NULL;
}

Test(mvcc_threads, readers_always_see_one_state, .timeout = 120)
{
    pthread_t thread[4];
    store_new(&shared);
    for (uintptr_t i = 0; i < 3; i++) {
        cr_assert_eq(pthread_create(&thread[i], NULL, read_loop, (void *)(i + 1)), 0);
    }
    cr_assert_eq(pthread_create(&thread[3], NULL, upkeep_loop, NULL), 0);
    for (int turn = 0; turn < TURNS; turn++) {
        write_turn(&shared, turn);
    }
    atomic_store(&done, true);
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
    }
    store_reopen(&shared);
    Etcdserverpb__RangeResponse *r = range(&shared, (struct api_range){.key = S("a"), .range_end = S("z")});
    check_state(r);
    range_free(r);
    store_remove(&shared);
}
