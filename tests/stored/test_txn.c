/* stored/txn.c: semantics.md §7, line by line. */
#include "tests/stored/mvcc_help.h"

static int txn_err(struct store *s, const struct api_txn *rq, Etcdserverpb__TxnResponse **response)
{
    struct buf out = BUF_INIT;
    begin(s);
    int err = mvcc_txn(s->m, rq, &out);
    end(s);
    *response = err != 0 ? NULL : etcdserverpb__txn_response__unpack(NULL, out.len, out.data);
    cr_assert(err != 0 ? out.len == 0 : *response != NULL);
    buf_fini(&out);
    return err;
}

static Etcdserverpb__TxnResponse *txn(struct store *s, const struct api_txn *rq)
{
    Etcdserverpb__TxnResponse *r;
    cr_assert_eq(txn_err(s, rq, &r), 0);
    return r;
}

static void txn_free(Etcdserverpb__TxnResponse *r)
{
    etcdserverpb__txn_response__free_unpacked(r, NULL);
}

/* Does a transaction with this compare alone succeed? */
static bool holds(struct store *s, struct api_compare c)
{
    struct api_txn rq = {.compares = &c, .compare_count = 1};
    Etcdserverpb__TxnResponse *r = txn(s, &rq);
    bool yes = r->succeeded;
    txn_free(r);
    return yes;
}

#define PUT(k, v) {.op = API_OP_PUT, .put = {.key = {(const uint8_t *)(k), sizeof(k) - 1}, .value = {(const uint8_t *)(v), sizeof(v) - 1}}}
#define GET(k) {.op = API_OP_RANGE, .range = {.key = {(const uint8_t *)(k), sizeof(k) - 1}}}
#define DEL(k) {.op = API_OP_DELETE, .del = {.key = {(const uint8_t *)(k), sizeof(k) - 1}}}

Test(txn, compares_of_each_target_and_relation)
{
    struct store s;
    store_new(&s);
    put(&s, "a", "m");
    put(&s, "a", "m");
    cr_assert(holds(&s, (struct api_compare){.key = S("a"), .target = API_VERSION, .result = API_EQUAL, .number = 2}));
    cr_assert(holds(&s, (struct api_compare){.key = S("a"), .target = API_CREATE, .result = API_LESS, .number = 3}));
    cr_assert(holds(&s, (struct api_compare){.key = S("a"), .target = API_MOD, .result = API_GREATER, .number = 2}));
    cr_assert(holds(&s, (struct api_compare){.key = S("a"), .target = API_LEASE, .result = API_NOT_EQUAL, .number = 1}));
    cr_assert(holds(&s, (struct api_compare){.key = S("a"), .target = API_VALUE, .result = API_LESS, .value = S("n")}));
    cr_assert_not(holds(&s, (struct api_compare){.key = S("a"), .target = API_VALUE, .result = API_GREATER, .value = S("m")}));
    cr_assert_not(holds(&s, (struct api_compare){.key = S("a"), .target = API_MOD, .result = API_EQUAL, .number = 2}));
    store_remove(&s);
}

Test(txn, a_missing_key_is_zero_but_has_no_value)
{
    struct store s;
    store_new(&s);
    cr_assert(holds(&s, (struct api_compare){.key = S("x"), .target = API_CREATE, .result = API_EQUAL}));
    cr_assert(holds(&s, (struct api_compare){.key = S("x"), .target = API_LEASE, .result = API_EQUAL}));
    cr_assert_not(holds(&s, (struct api_compare){.key = S("x"), .target = API_VERSION, .result = API_GREATER}));
    cr_assert_not(holds(&s, (struct api_compare){.key = S("x"), .target = API_VALUE, .result = API_EQUAL}));
    cr_assert_not(holds(&s, (struct api_compare){.key = S("x"), .target = API_VALUE, .result = API_NOT_EQUAL, .value = S("v")}));
    store_remove(&s);
}

Test(txn, a_compare_of_an_interval_must_hold_for_every_key)
{
    struct store s;
    store_new(&s);
    put(&s, "a", "1");
    put(&s, "b", "1");
    struct api_compare c = {.key = S("a"), .range_end = S("z"), .target = API_VERSION, .result = API_EQUAL, .number = 1};
    cr_assert(holds(&s, c));
    put(&s, "b", "2");
    cr_assert_not(holds(&s, c));
    c = (struct api_compare){.key = S("m"), .range_end = S("z"), .target = API_CREATE, .result = API_EQUAL};
    cr_assert(holds(&s, c), "an empty interval is a missing key");
    c.target = API_VALUE;
    cr_assert_not(holds(&s, c));
    store_remove(&s);
}

Test(txn, one_revision_with_subs_and_reads_see_earlier_writes)
{
    struct store s;
    store_new(&s);
    put(&s, "b", "old"); /* 2 */
    struct api_request_op ops[] = {GET("a"), PUT("a", "1"), GET("a"), DEL("b"), DEL("none"), GET("b")};
    Etcdserverpb__TxnResponse *r = txn(&s, &(struct api_txn){.success = ops, .success_count = 6});
    cr_assert(r->succeeded && r->header->revision == 3 && r->n_responses == 6);
    cr_assert_eq(r->responses[0]->response_range->header->revision, 2);
    cr_assert_eq(r->responses[0]->response_range->count, 0);
    cr_assert_eq(r->responses[1]->response_put->header->revision, 3);
    cr_assert_eq(r->responses[2]->response_range->header->revision, 3);
    cr_assert_str_eq(pairs(r->responses[2]->response_range), "a=1");
    cr_assert_eq(r->responses[2]->response_range->kvs[0]->mod_revision, 3);
    cr_assert_eq(r->responses[3]->response_delete_range->deleted, 1);
    cr_assert_eq(r->responses[4]->response_delete_range->deleted, 0);
    cr_assert_eq(r->responses[4]->response_delete_range->header->revision, 3);
    cr_assert_eq(r->responses[5]->response_range->count, 0);
    cr_assert_eq(r->header->member_id, r->responses[1]->response_put->header->member_id);
    txn_free(r);
    cr_assert_eq(mvcc_rev(s.m), 3);
    store_remove(&s);
}

Test(txn, inner_headers_have_only_the_revision_and_a_nested_one_is_empty)
{
    struct store s;
    store_new(&s);
    mvcc_set_identity(s.m, 1, 2, 3);
    struct api_request_op inner[] = {PUT("a", "1")};
    struct api_txn nested = {.success = inner, .success_count = 1};
    struct api_request_op ops[] = {{.op = API_OP_TXN, .txn = &nested}};
    Etcdserverpb__TxnResponse *r = txn(&s, &(struct api_txn){.success = ops, .success_count = 1});
    cr_assert(r->header->cluster_id == 1 && r->header->member_id == 2 && r->header->raft_term == 3);
    Etcdserverpb__TxnResponse *n = r->responses[0]->response_txn;
    cr_assert_not_null(n->header);
    cr_assert(n->header->revision == 0 && n->header->cluster_id == 0 && n->succeeded);
    Etcdserverpb__ResponseHeader *h = n->responses[0]->response_put->header;
    cr_assert(h->revision == 2 && h->cluster_id == 0 && h->member_id == 0 && h->raft_term == 0);
    txn_free(r);
    store_remove(&s);
}

Test(txn, nested_compares_see_the_state_before_the_transaction)
{
    struct store s;
    store_new(&s);
    struct api_compare exists = {.key = S("a"), .target = API_CREATE, .result = API_GREATER};
    struct api_request_op yes[] = {PUT("b", "yes")}, no[] = {PUT("b", "no")};
    struct api_txn nested = {.compares = &exists, .compare_count = 1, .success = yes, .success_count = 1, .failure = no,
                             .failure_count = 1};
    struct api_request_op ops[] = {PUT("a", "1"), {.op = API_OP_TXN, .txn = &nested}};
    Etcdserverpb__TxnResponse *r = txn(&s, &(struct api_txn){.success = ops, .success_count = 2});
    cr_assert_not(r->responses[1]->response_txn->succeeded);
    txn_free(r);
    cr_assert_str_eq(pairs_at(&s, "a", "z", 0), "a=1 b=no");
    cr_assert_eq(mvcc_rev(s.m), 2);
    store_remove(&s);
}

Test(txn, a_failing_check_on_the_path_fails_the_whole_before_anything_is_written)
{
    struct store s;
    Etcdserverpb__TxnResponse *r;
    store_new(&s);
    put(&s, "a", "1");
    struct api_request_op lease[] = {PUT("b", "1"), {.op = API_OP_PUT, .put = {.key = S("c"), .lease = 9}}};
    cr_assert_eq(txn_err(&s, &(struct api_txn){.success = lease, .success_count = 2}, &r), E_LEASE_NOT_FOUND);
    struct api_request_op keep[] = {PUT("b", "1"), {.op = API_OP_PUT, .put = {.key = S("c"), .ignore_value = true}}};
    cr_assert_eq(txn_err(&s, &(struct api_txn){.success = keep, .success_count = 2}, &r), E_KEY_NOT_FOUND);
    struct api_request_op future[] = {PUT("b", "1"), {.op = API_OP_RANGE, .range = {.key = S("a"), .revision = 3}}};
    cr_assert_eq(txn_err(&s, &(struct api_txn){.success = future, .success_count = 2}, &r), E_FUTURE_REV);
    compact(&s, 2);
    future[1].range.revision = -1;
    cr_assert_eq(txn_err(&s, &(struct api_txn){.success = future, .success_count = 2}, &r), E_COMPACTED);
    cr_assert_eq(mvcc_rev(s.m), 2);
    cr_assert_str_eq(pairs_at(&s, "a", "z", 0), "a=1");
    /* the other branch is not on the path: its lease is not asked for */
    struct api_compare wrong = {.key = S("a"), .target = API_MOD, .result = API_EQUAL, .number = 1};
    r = txn(&s, &(struct api_txn){.compares = &wrong, .compare_count = 1, .success = lease, .success_count = 2});
    cr_assert_not(r->succeeded);
    txn_free(r);
    store_remove(&s);
}

Test(txn, a_branch_that_changes_nothing_does_not_bump)
{
    struct store s;
    store_new(&s);
    put(&s, "a", "1");
    struct api_request_op ops[] = {DEL("none"), GET("a")};
    Etcdserverpb__TxnResponse *r = txn(&s, &(struct api_txn){.success = ops, .success_count = 2});
    cr_assert_eq(r->header->revision, 2);
    cr_assert_eq(r->responses[0]->response_delete_range->header->revision, 2);
    txn_free(r);
    cr_assert_eq(mvcc_rev(s.m), 2);
    store_remove(&s);
}

Test(txn, a_read_only_one_reads_one_state_outside_the_log)
{
    struct store s;
    store_new(&s);
    put(&s, "a", "1");
    put(&s, "b", "2");
    struct api_compare c = {.key = S("a"), .target = API_VALUE, .result = API_EQUAL, .value = S("1")};
    struct api_request_op ops[] = {GET("a"), {.op = API_OP_RANGE, .range = {.key = S("a"), .range_end = S("z"), .revision = 2}}};
    struct api_txn rq = {.compares = &c, .compare_count = 1, .success = ops, .success_count = 2};
    struct buf out = BUF_INIT;
    cr_assert_eq(mvcc_txn_read(s.m, &rq, &out), 0);
    Etcdserverpb__TxnResponse *r = etcdserverpb__txn_response__unpack(NULL, out.len, out.data);
    cr_assert(r->succeeded && r->header->revision == 3 && r->n_responses == 2);
    cr_assert_str_eq(pairs(r->responses[0]->response_range), "a=1");
    cr_assert_str_eq(pairs(r->responses[1]->response_range), "a=1");
    cr_assert_eq(r->responses[1]->response_range->header->revision, 3);
    txn_free(r);
    buf_reset(&out);
    ops[1].range.revision = 4;
    cr_assert_eq(mvcc_txn_read(s.m, &rq, &out), E_FUTURE_REV);
    cr_assert_eq(out.len, 0);
    buf_fini(&out);
    store_remove(&s);
}
