/* stored/mvcc.c and change.c: what puts and deletes do, line by line of semantics.md §1, §2, §5, §6, §20. */
#include "tests/stored/mvcc_help.h"

Test(mvcc, a_fresh_store_has_revision_1_and_was_never_compacted)
{
    struct store s;
    store_new(&s);
    cr_assert_eq(mvcc_rev(s.m), 1);
    cr_assert_eq(mvcc_compact_rev(s.m), -1);
    cr_assert_eq(mvcc_applied(s.m), 0);
    cr_assert_eq(put(&s, "a", "1"), 2, "the first write gets 2");
    store_remove(&s);
}

Test(mvcc, a_put_creates_then_counts_versions_and_a_delete_ends_the_life)
{
    struct store s;
    store_new(&s);
    put(&s, "a", "1");
    put(&s, "a", "2");
    Etcdserverpb__RangeResponse *r = range(&s, (struct api_range){.key = S("a")});
    cr_assert_eq(r->n_kvs, 1);
    cr_assert(r->kvs[0]->create_revision == 2 && r->kvs[0]->mod_revision == 3 && r->kvs[0]->version == 2);
    range_free(r);

    cr_assert_eq(del(&s, "a"), 4);
    cr_assert_str_eq(pairs_at(&s, "a", "", 0), "");
    cr_assert_eq(put(&s, "a", "3"), 5);
    r = range(&s, (struct api_range){.key = S("a")});
    cr_assert(r->kvs[0]->create_revision == 5 && r->kvs[0]->mod_revision == 5 && r->kvs[0]->version == 1);
    range_free(r);
    cr_assert_str_eq(pairs_at(&s, "a", "", 3), "a=2");
    store_remove(&s);
}

Test(mvcc, header_has_identity_and_the_revision_of_the_write)
{
    struct store s;
    store_new(&s);
    mvcc_set_identity(s.m, 11, 22, 33);
    Etcdserverpb__PutResponse *p;
    cr_assert_eq(put_rq(&s, (struct api_put){.key = S("a")}, &p), 0);
    cr_assert(p->header->cluster_id == 11 && p->header->member_id == 22 && p->header->raft_term == 33);
    cr_assert_eq(p->header->revision, 2);
    cr_assert_null(p->prev_kv);
    etcdserverpb__put_response__free_unpacked(p, NULL);
    store_remove(&s);
}

Test(mvcc, prev_kv_is_the_old_pair_or_unset)
{
    struct store s;
    store_new(&s);
    Etcdserverpb__PutResponse *p;
    put_rq(&s, (struct api_put){.key = S("a"), .value = S("old"), .prev_kv = true}, &p);
    cr_assert_null(p->prev_kv);
    etcdserverpb__put_response__free_unpacked(p, NULL);
    put_rq(&s, (struct api_put){.key = S("a"), .value = S("new"), .prev_kv = true}, &p);
    cr_assert(bytes_are(p->prev_kv->value, "old"));
    cr_assert_eq(p->prev_kv->mod_revision, 2);
    etcdserverpb__put_response__free_unpacked(p, NULL);
    store_remove(&s);
}

Test(mvcc, ignore_value_and_ignore_lease_keep_what_is_there_and_need_a_key)
{
    struct store s;
    int64_t ttl;
    store_new(&s);
    cr_assert_eq(put_rq(&s, (struct api_put){.key = S("a"), .ignore_value = true}, NULL), E_KEY_NOT_FOUND);
    cr_assert_eq(put_rq(&s, (struct api_put){.key = S("a"), .ignore_lease = true}, NULL), E_KEY_NOT_FOUND);
    cr_assert_eq(mvcc_rev(s.m), 1);

    cr_assert_eq(lease_grant(s.leases, 7, 100, &ttl, 0), 0);
    cr_assert_eq(put_rq(&s, (struct api_put){.key = S("a"), .value = S("v"), .lease = 7}, NULL), 0);
    cr_assert_eq(put_rq(&s, (struct api_put){.key = S("a"), .value = S("w"), .ignore_lease = true}, NULL), 0);
    Etcdserverpb__RangeResponse *r = range(&s, (struct api_range){.key = S("a")});
    cr_assert_eq(r->kvs[0]->lease, 7);
    range_free(r);
    cr_assert_eq(put_rq(&s, (struct api_put){.key = S("a"), .ignore_value = true}, NULL), 0);
    r = range(&s, (struct api_range){.key = S("a")});
    cr_assert(bytes_are(r->kvs[0]->value, "w"));
    cr_assert_eq(r->kvs[0]->lease, 0);
    cr_assert_eq(r->kvs[0]->version, 3);
    range_free(r);

    del(&s, "a");
    cr_assert_eq(put_rq(&s, (struct api_put){.key = S("a"), .ignore_value = true}, NULL), E_KEY_NOT_FOUND);
    store_remove(&s);
}

Test(mvcc, a_put_attaches_moves_and_detaches_leases)
{
    struct store s;
    struct slice *keys;
    int64_t ttl;
    store_new(&s);
    cr_assert_eq(put_rq(&s, (struct api_put){.key = S("a"), .lease = 7}, NULL), E_LEASE_NOT_FOUND);
    cr_assert_eq(put_rq(&s, (struct api_put){.key = S("a"), .lease = -7}, NULL), E_LEASE_NOT_FOUND);
    lease_grant(s.leases, 7, 100, &ttl, 0);
    lease_grant(s.leases, 8, 100, &ttl, 0);
    put_rq(&s, (struct api_put){.key = S("a"), .lease = 7}, NULL);
    put_rq(&s, (struct api_put){.key = S("b"), .lease = 7}, NULL);
    cr_assert_eq(lease_keys(s.leases, 7, &keys), 2);
    free(keys);
    put_rq(&s, (struct api_put){.key = S("a"), .lease = 8}, NULL);
    cr_assert_eq(lease_keys(s.leases, 8, &keys), 1);
    free(keys);
    put_rq(&s, (struct api_put){.key = S("a")}, NULL);
    cr_assert_eq(lease_keys(s.leases, 8, &keys), 0);
    free(keys);
    del(&s, "b");
    cr_assert_eq(lease_keys(s.leases, 7, &keys), 0);
    free(keys);
    store_remove(&s);
}

Test(mvcc, keys_of_a_lease_die_in_one_revision)
{
    struct store s;
    struct slice *keys;
    int64_t ttl;
    store_new(&s);
    lease_grant(s.leases, 7, 100, &ttl, 0);
    put_rq(&s, (struct api_put){.key = S("b"), .lease = 7}, NULL);
    put_rq(&s, (struct api_put){.key = S("a"), .lease = 7}, NULL);
    put(&s, "c", "stays");
    size_t count = lease_keys(s.leases, 7, &keys);
    begin(&s);
    mvcc_delete_keys(s.m, keys, count);
    end(&s);
    free(keys);
    cr_assert_eq(mvcc_rev(s.m), 5);
    cr_assert_str_eq(pairs_at(&s, "a", "z", 0), "c=stays");
    begin(&s);
    mvcc_delete_keys(s.m, NULL, 0);
    end(&s);
    cr_assert_eq(mvcc_rev(s.m), 5, "no keys: no revision");
    store_remove(&s);
}

Test(mvcc, delete_counts_and_gives_the_old_pairs_in_key_order)
{
    struct store s;
    store_new(&s);
    put(&s, "b", "2");
    put(&s, "a", "1");
    put(&s, "c", "3");
    Etcdserverpb__DeleteRangeResponse *d;
    cr_assert_eq(delete_rq(&s, (struct api_delete){.key = S("a"), .range_end = S("c"), .prev_kv = true}, &d), 2);
    cr_assert_eq(d->header->revision, 5);
    cr_assert_eq(d->n_prev_kvs, 2);
    cr_assert(bytes_are(d->prev_kvs[0]->key, "a") && bytes_are(d->prev_kvs[1]->value, "2"));
    etcdserverpb__delete_range_response__free_unpacked(d, NULL);
    store_remove(&s);
}

Test(mvcc, deleting_nothing_does_not_bump)
{
    struct store s;
    store_new(&s);
    put(&s, "a", "1");
    Etcdserverpb__DeleteRangeResponse *d;
    cr_assert_eq(delete_rq(&s, (struct api_delete){.key = S("x")}, &d), 0);
    cr_assert_eq(d->header->revision, 2);
    etcdserverpb__delete_range_response__free_unpacked(d, NULL);
    cr_assert_eq(delete_rq(&s, (struct api_delete){.key = S("z"), .range_end = S("b")}, NULL), 0);
    cr_assert_eq(mvcc_rev(s.m), 2);
    store_remove(&s);
}

/* --- events ------------------------------------------------------------------------------------- */

struct seen {
    char text[512];
    bool want;
};
static bool want_prev(void *arg, struct slice key)
{
    UNUSED(key);
    return ((struct seen *)arg)->want;
}
static void on_event(void *arg, const struct mvcc_event *ev)
{
    struct seen *s = arg;
    struct api_key_value kv, prev = {.value = S("-")};
    cr_assert_eq(api_decode_key_value(ev->kv, &kv), 0);
    cr_assert(ev->prev.len == 0 || api_decode_key_value(ev->prev, &prev) == 0);
    cr_assert(slice_eq(kv.key, ev->key) && kv.mod_revision == ev->main);
    cr_assert(!ev->is_delete || (kv.create_revision == 0 && kv.version == 0 && kv.value.len == 0 && kv.lease == 0));
    size_t at = strlen(s->text);
    snprintf(s->text + at, sizeof(s->text) - at, "%s%lld.%d %.*s prev %.*s; ", ev->is_delete ? "del " : "put ",
             (long long)ev->main, ev->sub, (int)ev->key.len, (const char *)ev->key.data, (int)prev.value.len,
             (const char *)prev.value.data);
}

Test(mvcc, each_change_is_told_with_prev_if_somebody_wants_it)
{
    struct store s;
    struct seen seen = {.want = true};
    store_new(&s);
    mvcc_set_hooks(s.m, &(struct mvcc_hooks){.want_prev = want_prev, .on_event = on_event, .arg = &seen});
    put(&s, "a", "1");
    put(&s, "b", "2");
    put(&s, "a", "3");
    delete_rq(&s, (struct api_delete){.key = S("a"), .range_end = S("z")}, NULL);
    seen.want = false;
    put(&s, "a", "4");
    put(&s, "a", "5");
    cr_assert_str_eq(seen.text, "put 2.0 a prev -; put 3.0 b prev -; put 4.0 a prev 1; del 5.0 a prev 3; "
                                "del 5.1 b prev 2; put 6.0 a prev -; put 7.0 a prev -; ");
    store_remove(&s);
}

/* --- the rest ----------------------------------------------------------------------------------- */

Test(mvcc, state_and_leases_survive_a_restart)
{
    struct store s;
    struct slice *keys;
    int64_t ttl;
    store_new(&s);
    lease_grant(s.leases, 7, 100, &ttl, 0);
    put_rq(&s, (struct api_put){.key = S("a"), .value = S("1"), .lease = 7}, NULL);
    put(&s, "b", "2");
    del(&s, "b");
    s.lease = 7;
    store_reopen(&s);
    cr_assert_eq(mvcc_rev(s.m), 4);
    cr_assert_eq(mvcc_applied(s.m), 3);
    cr_assert_str_eq(pairs_at(&s, "a", "z", 0), "a=1");
    cr_assert_str_eq(pairs_at(&s, "a", "z", 3), "a=1 b=2");
    cr_assert_eq(lease_keys(s.leases, 7, &keys), 1);
    free(keys);
    store_remove(&s);
}

static int count_pair(void *arg, struct slice key, struct slice value)
{
    char *text = arg;
    size_t at = strlen(text);
    snprintf(text + at, 64 - at, "%.*s=%.*s ", (int)key.len, (const char *)key.data, (int)value.len,
             (const char *)value.data);
    return 0;
}

Test(mvcc, keys_of_other_modules_are_written_with_the_batch)
{
    struct store s;
    char text[64] = "";
    store_new(&s);
    begin(&s);
    mvcc_meta_put(s.m, 'l', S("2"), S("two"));
    mvcc_meta_put(s.m, 'l', S("1"), S("one"));
    mvcc_meta_put(s.m, 'k', S("0"), S("other"));
    end(&s);
    begin(&s);
    mvcc_meta_delete(s.m, 'l', S("2"));
    mvcc_meta_put(s.m, 'l', S("3"), S(""));
    end(&s);
    store_reopen(&s);
    cr_assert_eq(mvcc_meta_each(s.m, 'l', count_pair, text), 0);
    cr_assert_str_eq(text, "1=one 3= ");
    store_remove(&s);
}

Test(mvcc, a_second_store_on_the_directory_is_refused)
{
    struct store s;
    store_new(&s);
    struct store other = s;
    struct buf why = BUF_INIT;
    cr_assert_eq(store_try_open(&other, &why), E_LOCKED);
    cr_assert_gt(why.len, 0);
    buf_fini(&why);
    store_remove(&s);
}

Test(mvcc, figures_count_keys_and_revisions)
{
    struct store s;
    struct mvcc_stats st;
    store_new(&s);
    put(&s, "a", "1");
    put(&s, "a", "2");
    put(&s, "b", "1");
    del(&s, "b");
    mvcc_get_stats(s.m, &st);
    cr_assert(st.keys == 1 && st.revisions == 4 && st.rev == 5 && st.puts == 3 && st.deletes == 1);
    cr_assert(st.disk_bytes > 0 && st.disk_used_bytes <= st.disk_bytes && st.index_bytes > 0);
    store_remove(&s);
}
