/* base: a broken invariant ends the process, says where, and leaves a core. */
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

#include "common/base.h"
#include "tests/lib/child.h"

static void break_invariant(void *arg)
{
    int count = *(int *)arg;
    must(count == 3);
}

Test(base, must_lets_the_truth_pass)
{
    static struct child c;
    int count = 3;

    child_run(&c, break_invariant, &count);

    cr_assert_eq(c.code, 0);
    cr_assert_str_eq(c.err, "");
}

Test(base, must_aborts_and_names_the_expression_and_the_place)
{
    static struct child c;
    int count = 4;

    child_run(&c, break_invariant, &count);

    cr_assert_eq(c.signal, SIGABRT);
    cr_assert_not_null(strstr(c.err, "must(count == 3)"), "%s", c.err);
    cr_assert_not_null(strstr(c.err, "test_base.c:"), "%s", c.err);
    cr_assert_not_null(strstr(c.err, "break_invariant"), "%s", c.err);
}

struct outer {
    int first;
    int inner;
};

Test(base, container_of_finds_the_struct_around_a_member)
{
    struct outer o = {1, 2};

    cr_assert_eq(container_of(&o.inner, struct outer, inner), &o);
}
