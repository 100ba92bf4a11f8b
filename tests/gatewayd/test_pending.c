/* pending - ids, slots, order of deadlines, limits. */
#include <criterion/criterion.h>

#include "common/mem.h"
#include "gatewayd/pending.h"

static void no_answer(void *arg, const struct answer *a)
{
    UNUSED(arg);
    UNUSED(a);
}

static struct pending *add(struct pending_table *t, uint64_t deadline_ms)
{
    return pending_new(t, VIA_PROPOSE, no_answer, NULL, deadline_ms);
}

Test(pending, an_entry_is_found_by_its_id_until_it_is_freed)
{
    struct pending_table t;
    pending_init(&t);
    struct pending *a = add(&t, 10), *b = add(&t, 10);
    uint64_t req = a->req;
    cr_expect_neq(a->req, b->req);
    cr_expect_eq(pending_find(&t, a->req), a);
    cr_expect_eq(pending_find(&t, b->req), b);
    pending_free(&t, a);
    cr_expect_null(pending_find(&t, req));
    struct pending *c = add(&t, 10); /* the same slot under another id */
    cr_expect_eq(c, a);
    cr_expect_null(pending_find(&t, req));
    pending_fini(&t);
}

Test(pending, ids_that_never_were_find_nothing)
{
    struct pending_table t;
    pending_init(&t);
    cr_expect_null(pending_find(&t, 0));
    cr_expect_null(pending_find(&t, 1));
    add(&t, 1);
    cr_expect_null(pending_find(&t, 0));
    cr_expect_null(pending_find(&t, UINT64_MAX));
    cr_expect_null(pending_find_wire(&t, 5));
    pending_fini(&t);
}

Test(pending, a_renamed_entry_keeps_its_handle_and_hears_only_the_new_name)
{
    struct pending_table t;
    pending_init(&t);
    struct pending *p = add(&t, 10);
    uint64_t req = p->req, wire = p->wire;
    pending_rename(&t, p);
    cr_expect_eq(pending_find(&t, req), p);
    cr_expect_null(pending_find_wire(&t, wire));
    cr_expect_eq(pending_find_wire(&t, p->wire), p);
    pending_fini(&t);
}

Test(pending, the_first_deadline_is_the_earliest_one)
{
    struct pending_table t;
    pending_init(&t);
    cr_expect_eq(pending_next_ms(&t), UINT64_MAX);
    const uint64_t at[] = {100, 700, 100, 50, 300, 50};
    struct pending *p[ARRAY_LEN(at)];
    for (size_t i = 0; i < ARRAY_LEN(at); i++) {
        p[i] = add(&t, at[i]);
    }
    uint64_t last = 0;
    size_t count = 0;
    for (struct pending *q = t.first; q != NULL; q = q->next, count++) {
        cr_expect_geq(q->deadline_ms, last);
        last = q->deadline_ms;
    }
    cr_expect_eq(count, ARRAY_LEN(at));
    cr_expect_eq(pending_next_ms(&t), 50);
    cr_expect_eq(t.first, p[3]); /* of equal ones the older first */
    pending_unlist(&t, p[3]);
    pending_unlist(&t, p[3]);
    pending_free(&t, p[5]);
    cr_expect_eq(pending_next_ms(&t), 100);
    pending_list(&t, p[3], 20);
    cr_expect_eq(pending_next_ms(&t), 20);
    pending_fini(&t);
}

Test(pending, at_the_limit_there_is_no_new_entry)
{
    struct pending_table t;
    pending_init(&t);
    struct pending *one = NULL;
    for (size_t i = 0; i < PENDING_REQUESTS_MAX; i++) {
        one = add(&t, 1);
        cr_assert_not_null(one);
    }
    cr_expect_null(add(&t, 1));
    pending_free(&t, one);
    cr_expect_not_null(add(&t, 1));
    pending_fini(&t);
}

Test(pending, kept_bytes_are_counted_and_limited)
{
    struct pending_table t;
    pending_init(&t);
    struct buf body = BUF_INIT;
    buf_extend(&body, 1 * MIB);
    struct command c = {.kind = COMMAND_PUT, .body = buf_slice(&body)};
    struct pending *p = NULL;
    size_t count = 0;
    while ((p = add(&t, 1)) != NULL) {
        pending_keep(&t, p, &c);
        pending_keep(&t, p, &c); /* again, for another member id */
        count++;
    }
    cr_expect_geq(t.bytes, PENDING_BYTES_MAX);
    cr_expect_leq(count, PENDING_BYTES_MAX / MIB);
    while (t.first != NULL) {
        pending_free(&t, t.first);
    }
    cr_expect_eq(t.bytes, 0);
    cr_expect_eq(t.count, 0);
    buf_fini(&body);
    pending_fini(&t);
}
