/* test_lease - grants, attachments, deadlines; time is counted, not waited for. */
#include "stored/lease.h"

#include <stdlib.h>

#include <criterion/criterion.h>

#include "common/err.h"
#include "common/limits.h"

static struct leases *leading_leases(void)
{
    struct leases *l = leases_new(2);

    leases_loaded(l);
    leases_lead(l, true, 0, 0);
    return l;
}

Test(lease, a_granted_ttl_is_at_least_the_minimum)
{
    struct leases *l = leading_leases();
    int64_t ttl = 0;

    cr_assert_eq(lease_grant(l, 7, -5, &ttl, 0), 0);
    cr_assert_eq(ttl, 2);
    cr_assert_eq(lease_grant(l, 8, 10, &ttl, 0), 0);
    cr_assert_eq(ttl, 10);
    cr_assert_eq(leases_count(l), 2);
    leases_free(l);
}

Test(lease, a_taken_id_and_a_ttl_over_the_limit_are_refused)
{
    struct leases *l = leading_leases();
    int64_t ttl = 0;

    cr_assert_eq(lease_grant(l, 7, LEASE_TTL_MAX, &ttl, 0), 0);
    cr_assert_eq(lease_grant(l, 7, 10, &ttl, 0), E_LEASE_EXIST);
    cr_assert_eq(lease_grant(l, 8, LEASE_TTL_MAX + 1, &ttl, 0), E_LEASE_TTL_TOO_LARGE);
    cr_assert_not(lease_exists(l, 8));
    cr_assert_eq(lease_drop(l, 8), E_LEASE_NOT_FOUND);
    leases_free(l);
}

static bool is_below(void *limit, struct slice key)
{
    return slice_cmp(key, *(const struct slice *)limit) < 0;
}

Test(lease, a_question_about_all_keys_is_no_when_one_says_no)
{
    struct leases *l = leading_leases();
    struct slice limit = SLICE_LIT("c");
    int64_t ttl;

    lease_grant(l, 1, 10, &ttl, 0);
    cr_assert(lease_keys_all(l, 1, is_below, &limit), "no keys");
    cr_assert(lease_keys_all(l, 99, is_below, &limit), "no lease");
    lease_attach(l, SLICE_LIT("b"), 0, 1);
    lease_attach(l, SLICE_LIT("a"), 0, 1);
    cr_assert(lease_keys_all(l, 1, is_below, &limit));
    lease_attach(l, SLICE_LIT("c"), 0, 1);
    cr_assert_not(lease_keys_all(l, 1, is_below, &limit));
    leases_free(l);
}

Test(lease, keys_come_in_byte_order_and_move_with_their_lease)
{
    struct leases *l = leading_leases();
    struct slice *keys;
    int64_t ttl;

    lease_grant(l, 1, 10, &ttl, 0);
    lease_grant(l, 2, 10, &ttl, 0);
    lease_attach(l, SLICE_LIT("b"), 0, 1);
    lease_attach(l, SLICE_LIT("a"), 0, 1);
    lease_attach(l, SLICE_LIT("c"), 0, 1);
    cr_assert_eq(lease_keys(l, 1, &keys), 3);
    cr_assert(slice_eq(keys[0], SLICE_LIT("a")) && slice_eq(keys[1], SLICE_LIT("b")));
    free(keys);

    lease_attach(l, SLICE_LIT("b"), 1, 2);
    lease_attach(l, SLICE_LIT("a"), 1, 0);
    cr_assert_eq(lease_keys(l, 1, &keys), 1);
    cr_assert(slice_eq(keys[0], SLICE_LIT("c")));
    free(keys);
    cr_assert_eq(lease_keys(l, 2, &keys), 1);
    free(keys);

    cr_assert_eq(lease_drop(l, 2), 0);
    cr_assert_eq(lease_keys(l, 2, &keys), 0);
    free(keys);
    lease_attach(l, SLICE_LIT("x"), 0, 99); /* unknown */
    cr_assert_eq(lease_keys(l, 99, &keys), 0);
    free(keys);
    leases_free(l);
}

Test(lease, a_due_lease_is_given_out_once_per_attempt_until_it_is_dropped)
{
    struct leases *l = leading_leases();
    int64_t ids[4], ttl;

    lease_grant(l, 5, 2, &ttl, 1000);
    cr_assert_eq(leases_due(l, ids, 4, 2999, 3000), 0);
    cr_assert_eq(leases_due(l, ids, 4, 3000, 3000), 1);
    cr_assert_eq(ids[0], 5);
    cr_assert_eq(leases_due(l, ids, 4, 5999, 3000), 0);
    cr_assert_eq(leases_due(l, ids, 4, 6000, 3000), 1);
    cr_assert_eq(lease_drop(l, 5), 0);
    cr_assert_eq(leases_due(l, ids, 4, 100000, 3000), 0);
    leases_free(l);
}

Test(lease, a_renewal_before_the_deadline_counts_and_one_after_it_does_not)
{
    struct leases *l = leading_leases();
    int64_t ids[4], ttl = 0, left = 0, granted = 0;

    lease_grant(l, 5, 10, &ttl, 0);
    cr_assert_eq(lease_renew(l, 5, &ttl, 9999), 0);
    cr_assert_eq(leases_due(l, ids, 4, 19998, 500), 0);
    cr_assert_eq(lease_time_to_live(l, 5, &left, &granted, 12000), 0);
    cr_assert_eq(left, 8);
    cr_assert_eq(granted, 10);

    cr_assert_eq(leases_due(l, ids, 4, 19999, 500), 1);
    cr_assert_eq(lease_renew(l, 5, &ttl, 20000), E_LEASE_NOT_FOUND);
    cr_assert_eq(lease_time_to_live(l, 5, &left, &granted, 20000), E_LEASE_NOT_FOUND);
    cr_assert(lease_exists(l, 5), "keys live until the revoke is applied");
    leases_free(l);
}

Test(lease, nothing_is_due_or_renewed_without_leadership_and_a_new_leader_gives_the_full_ttl)
{
    struct leases *l = leading_leases();
    int64_t ids[4], ttl;

    lease_grant(l, 5, 10, &ttl, 0);
    leases_lead(l, false, 1000, 0);
    cr_assert_eq(leases_due(l, ids, 4, 50000, 500), 0);
    cr_assert_eq(lease_renew(l, 5, &ttl, 1000), E_NOT_PRIMARY_LESSOR);

    leases_lead(l, true, 60000, 1000);
    cr_assert_eq(leases_due(l, ids, 4, 70999, 500), 0);
    cr_assert_eq(leases_due(l, ids, 4, 71000, 500), 1);
    leases_free(l);
}

Test(lease, keys_told_before_their_lease_was_loaded_are_kept_and_those_of_nobody_are_not)
{
    struct leases *l = leases_new(2);
    struct slice *keys;

    lease_attach(l, SLICE_LIT("k"), 0, 5);
    lease_attach(l, SLICE_LIT("lost"), 0, 6);
    lease_load(l, 5, 60);
    cr_assert_eq(leases_loaded(l), 1);
    cr_assert(lease_exists(l, 5));
    cr_assert_not(lease_exists(l, 6));
    cr_assert_eq(lease_keys(l, 5, &keys), 1);
    free(keys);
    leases_free(l);
}

Test(lease, the_list_is_ordered_by_expiry)
{
    struct leases *l = leading_leases();
    int64_t ttl, *ids;

    lease_grant(l, 1, 30, &ttl, 0);
    lease_grant(l, 2, 10, &ttl, 0);
    lease_grant(l, 3, 20, &ttl, 0);
    cr_assert_eq(leases_list(l, &ids), 3);
    cr_assert(ids[0] == 2 && ids[1] == 3 && ids[2] == 1);
    free(ids);
    leases_free(l);
}
