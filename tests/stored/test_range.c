/* stored/range*.c: semantics.md §3 and §4, line by line. */
#include "tests/stored/mvcc_help.h"

static void five_keys(struct store *s)
{
    store_new(s);
    put(s, "e", "1"); /* 2 */
    put(s, "d", "2"); /* 3 */
    put(s, "c", "3"); /* 4 */
    put(s, "b", "4"); /* 5 */
    put(s, "a", "5"); /* 6 */
    put(s, "e", "0"); /* 7, version 2 */
}

static const char *ask(struct store *s, struct api_range rq, int64_t *count, bool *more)
{
    Etcdserverpb__RangeResponse *r = range(s, rq);
    const char *text = pairs(r);
    if (count != NULL) {
        *count = r->count;
    }
    if (more != NULL) {
        *more = r->more;
    }
    range_free(r);
    return text;
}

Test(range, intervals_select_as_etcd_does)
{
    struct store s;
    five_keys(&s);
    struct slice zero = slice_of("", 1);
    cr_assert_str_eq(ask(&s, (struct api_range){.key = S("b")}, NULL, NULL), "b=4");
    cr_assert_str_eq(ask(&s, (struct api_range){.key = S("bb")}, NULL, NULL), "");
    cr_assert_str_eq(ask(&s, (struct api_range){.key = S("b"), .range_end = S("d")}, NULL, NULL), "b=4 c=3");
    cr_assert_str_eq(ask(&s, (struct api_range){.key = S("d"), .range_end = S("b")}, NULL, NULL), "");
    cr_assert_str_eq(ask(&s, (struct api_range){.key = S("b"), .range_end = S("b")}, NULL, NULL), "");
    cr_assert_str_eq(ask(&s, (struct api_range){.key = S("d"), .range_end = zero}, NULL, NULL), "d=2 e=0");
    cr_assert_str_eq(ask(&s, (struct api_range){.key = zero, .range_end = zero}, NULL, NULL), "a=5 b=4 c=3 d=2 e=0");
    store_remove(&s);
}

Test(range, old_revisions_read_old_states_and_the_header_is_current)
{
    struct store s;
    five_keys(&s);
    Etcdserverpb__RangeResponse *r = range(&s, (struct api_range){.key = S("a"), .range_end = S("z"), .revision = 3});
    cr_assert_str_eq(pairs(r), "d=2 e=1");
    cr_assert_eq(r->header->revision, 7);
    cr_assert_eq(r->count, 2);
    range_free(r);
    cr_assert_str_eq(pairs_at(&s, "a", "z", -5), "a=5 b=4 c=3 d=2 e=0", "<= 0 is the newest");
    cr_assert_eq(range_err(&s, (struct api_range){.key = S("a"), .revision = 8}), E_FUTURE_REV);
    compact(&s, 4);
    cr_assert_eq(range_err(&s, (struct api_range){.key = S("a"), .revision = 3}), E_COMPACTED);
    cr_assert_str_eq(pairs_at(&s, "a", "z", 4), "c=3 d=2 e=1", "the compacted revision itself is readable");
    store_remove(&s);
}

Test(range, count_ignores_limit_and_filters_and_more_says_what_was_cut)
{
    struct store s;
    int64_t count;
    bool more;
    five_keys(&s);
    struct api_range rq = {.key = S("a"), .range_end = S("z"), .limit = 2};
    cr_assert_str_eq(ask(&s, rq, &count, &more), "a=5 b=4");
    cr_assert(count == 5 && more);
    rq.limit = 5;
    ask(&s, rq, &count, &more);
    cr_assert(count == 5 && !more);
    rq = (struct api_range){.key = S("a"), .range_end = S("z"), .min_mod = 4, .max_mod = 5};
    cr_assert_str_eq(ask(&s, rq, &count, &more), "b=4 c=3");
    cr_assert(count == 5 && !more);
    rq = (struct api_range){.key = S("a"), .range_end = S("z"), .min_create = 2, .max_create = 3, .limit = 1};
    cr_assert_str_eq(ask(&s, rq, &count, &more), "d=2");
    cr_assert(count == 5 && more);
    store_remove(&s);
}

Test(range, count_only_has_no_pairs_and_no_more)
{
    struct store s;
    int64_t count;
    bool more;
    five_keys(&s);
    struct api_range rq = {.key = S("a"), .range_end = S("z"), .limit = 2, .count_only = true};
    cr_assert_str_eq(ask(&s, rq, &count, &more), "");
    cr_assert(count == 5 && !more);
    rq.revision = 4;
    ask(&s, rq, &count, &more);
    cr_assert_eq(count, 3);
    rq = (struct api_range){.key = S("c"), .count_only = true};
    ask(&s, rq, &count, &more);
    cr_assert_eq(count, 1);
    store_remove(&s);
}

Test(range, sorts_by_each_target)
{
    struct store s;
    five_keys(&s);
    struct api_range rq = {.key = S("a"), .range_end = S("z"), .sort_order = API_SORT_DESCEND};
    cr_assert_str_eq(ask(&s, rq, NULL, NULL), "e=0 d=2 c=3 b=4 a=5");
    rq.sort_target = API_BY_MOD;
    cr_assert_str_eq(ask(&s, rq, NULL, NULL), "e=0 a=5 b=4 c=3 d=2");
    rq.sort_target = API_BY_CREATE;
    cr_assert_str_eq(ask(&s, rq, NULL, NULL), "a=5 b=4 c=3 d=2 e=0");
    rq.sort_target = API_BY_VERSION;
    rq.limit = 1;
    cr_assert_str_eq(ask(&s, rq, NULL, NULL), "e=0");
    rq = (struct api_range){.key = S("a"), .range_end = S("z"), .sort_order = API_SORT_ASCEND,
                            .sort_target = API_BY_VALUE, .limit = 2};
    cr_assert_str_eq(ask(&s, rq, NULL, NULL), "e=0 d=2", "all are read, then sorted, then cut");
    store_remove(&s);
}

Test(range, order_none_with_another_target_cuts_first_and_sorts_then)
{
    struct store s;
    bool more;
    five_keys(&s);
    struct api_range rq = {.key = S("a"), .range_end = S("z"), .sort_target = API_BY_MOD, .limit = 2};
    /* limit + 1 keys in key order (a b c), by mod: c b a, cut to two */
    cr_assert_str_eq(ask(&s, rq, NULL, &more), "c=3 b=4");
    cr_assert(more);
    store_remove(&s);
}

Test(range, keys_only_drops_value_and_lease_but_not_the_lease_when_sorted_by_value)
{
    struct store s;
    int64_t ttl;
    store_new(&s);
    lease_grant(s.leases, 7, 100, &ttl, 0);
    put_rq(&s, (struct api_put){.key = S("a"), .value = S("v"), .lease = 7}, NULL);
    struct api_range rq = {.key = S("a"), .keys_only = true};
    Etcdserverpb__RangeResponse *r = range(&s, rq);
    cr_assert(r->n_kvs == 1 && r->kvs[0]->value.len == 0 && r->kvs[0]->lease == 0 && r->kvs[0]->version == 1);
    cr_assert(r->kvs[0]->create_revision == 2 && r->kvs[0]->mod_revision == 2);
    range_free(r);
    rq.sort_target = API_BY_VALUE;
    r = range(&s, rq);
    cr_assert(r->kvs[0]->value.len == 0 && r->kvs[0]->lease == 7);
    range_free(r);
    put(&s, "a", "w");
    rq = (struct api_range){.key = S("a"), .keys_only = true, .revision = 2};
    r = range(&s, rq);
    cr_assert(r->kvs[0]->mod_revision == 2 && r->kvs[0]->version == 1 && r->kvs[0]->lease == 0);
    range_free(r);
    rq.key = S("none");
    r = range(&s, rq);
    cr_assert(r->n_kvs == 0 && r->count == 0);
    range_free(r);
    store_remove(&s);
}

/* --- parts and streams -------------------------------------------------------------------------- */

static void many_keys(struct store *s, int count)
{
    static char value[2001];
    char key[16];
    memset(value, 'v', 2000);
    store_new(s);
    begin(s);
    for (int i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "k%06d", i * 7919 % count);
        put_in_batch(s, key, value);
    }
    end(s);
}

Test(range, a_large_result_comes_in_parts_and_is_not_disturbed_by_compaction)
{
    struct store s;
    many_keys(&s, 1000); /* 2 MB: above what is read at once */
    struct range_job *job;
    struct api_range rq = {.key = S("k"), .range_end = S("l")};
    struct buf out = BUF_INIT;
    bool more = true;
    size_t parts = 0;
    cr_assert_eq(range_open(s.m, &rq, false, &job), 0);
    cr_assert_eq(range_next(job, 100000, &out, &more), 0);

    delete_rq(&s, (struct api_delete){.key = S("k"), .range_end = S("l")}, NULL);
    put(&s, "x", "y");
    compact(&s, mvcc_rev(s.m));
    compact_physically(&s);
    while (more) {
        cr_assert_eq(range_next(job, 100000, &out, &more), 0);
        parts++;
    }
    cr_assert_eq(out.len, range_total(job));
    cr_assert_gt(parts, 15);
    range_close(job);
    Etcdserverpb__RangeResponse *r = etcdserverpb__range_response__unpack(NULL, out.len, out.data);
    cr_assert(r->n_kvs == 1000 && r->count == 1000 && bytes_are(r->kvs[999]->key, "k000999"));
    cr_assert_eq(r->kvs[999]->value.len, 2000);
    range_free(r);
    buf_fini(&out);
    cr_assert_str_eq(pairs_at(&s, "a", "z", 0), "x=y");
    store_remove(&s);
}

Test(range, records_of_the_open_batch_are_in_large_results_too)
{
    struct store s;
    many_keys(&s, 600);
    begin(&s);
    put_in_batch(&s, "k000300", "changed");
    struct api_range rq = {.key = S("k"), .range_end = S("l")};
    Etcdserverpb__RangeResponse *r;
    cr_assert_eq(range_rq(&s, rq, 50000, &r), 0);
    cr_assert(bytes_are(r->kvs[300]->value, "changed"));
    range_free(r);
    end(&s);
    store_remove(&s);
}

Test(range, a_stream_starts_with_ten_keys_and_its_messages_add_up_to_the_unary_answer)
{
    struct store s;
    many_keys(&s, 700);
    struct range_job *job;
    struct api_range rq = {.key = S("k"), .range_end = S("l"), .limit = 650};
    struct buf all = BUF_INIT, unary = BUF_INIT, out = BUF_INIT;
    size_t sizes[64], parts = 0;
    bool more = true;
    cr_assert_eq(range_open(s.m, &rq, true, &job), 0);
    cr_assert_eq(range_total(job), 0);
    while (more) {
        buf_reset(&out);
        cr_assert_eq(range_next(job, 100000, &out, &more), 0);
        Etcdserverpb__RangeStreamResponse *m = etcdserverpb__range_stream_response__unpack(NULL, out.len, out.data);
        cr_assert_not_null(m);
        sizes[parts++] = m->range_response->n_kvs;
        cr_assert_eq(m->range_response->header != NULL, !more);
        cr_assert_eq(m->range_response->count, more ? 0 : 700);
        cr_assert_eq(m->range_response->more, !more);
        size_t len = etcdserverpb__range_response__get_packed_size(m->range_response);
        etcdserverpb__range_response__pack(m->range_response, buf_extend(&all, len));
        etcdserverpb__range_stream_response__free_unpacked(m, NULL);
    }
    range_close(job);
    /* 10 x 2 kB, 20 x 2 kB are below half of 100 kB: twice as many each time; 40 are not */
    cr_assert(sizes[0] == 10 && sizes[1] == 20 && sizes[2] == 40 && sizes[3] == 40);

    Etcdserverpb__RangeResponse *merged = etcdserverpb__range_response__unpack(NULL, all.len, all.data), *one;
    cr_assert_eq(range_rq(&s, rq, 1 << 20, &one), 0);
    buf_extend(&unary, etcdserverpb__range_response__get_packed_size(one));
    buf_reset(&all);
    buf_extend(&all, etcdserverpb__range_response__get_packed_size(merged));
    etcdserverpb__range_response__pack(one, unary.data);
    etcdserverpb__range_response__pack(merged, all.data);
    cr_assert(slice_eq(buf_slice(&unary), buf_slice(&all)));
    range_free(merged);
    range_free(one);
    buf_fini(&all);
    buf_fini(&unary);
    buf_fini(&out);
    store_remove(&s);
}

Test(range, a_stream_takes_only_the_default_order_and_no_filters)
{
    struct store s;
    struct range_job *job;
    five_keys(&s);
    struct api_range rq = {.key = S("a"), .range_end = S("z"), .sort_order = API_SORT_DESCEND};
    cr_assert_eq(range_open(s.m, &rq, true, &job), E_STREAM_SORT);
    rq = (struct api_range){.key = S("a"), .sort_order = API_SORT_ASCEND, .sort_target = API_BY_MOD};
    cr_assert_eq(range_open(s.m, &rq, true, &job), E_STREAM_SORT);
    rq = (struct api_range){.key = S("a"), .min_mod = 1};
    cr_assert_eq(range_open(s.m, &rq, true, &job), E_STREAM_FILTER);
    rq = (struct api_range){.key = S("a"), .sort_target = API_BY_VALUE, .count_only = true};
    cr_assert_eq(range_open(s.m, &rq, true, &job), 0, "order NONE is the default with any target");
    struct buf out = BUF_INIT;
    bool more;
    cr_assert_eq(range_next(job, 1000, &out, &more), 0);
    cr_assert_not(more);
    range_close(job);
    buf_fini(&out);
    store_remove(&s);
}
