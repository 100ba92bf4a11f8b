/* What one that joins makes of the members' table: who it is, or etcd's words about why not. (The question itself is asked in
 * tests/node/test_members.sh.) */
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "common/err.h"
#include "raftd/join.h"

static void put(struct members *m, uint64_t id, const char *urls, const char *client_urls)
{
    cr_assert_eq(members_apply(m, &(struct raft_conf_change){.op = RAFT_CONF_ADD,
                                                             .id = id,
                                                             .name = SLICE_LIT("n"),
                                                             .peer_urls = slice_str(urls),
                                                             .client_urls = slice_str(client_urls)}),
                 0);
}

struct fixture {
    struct members wanted, theirs;
    struct buf why;
    uint64_t id;
};

static struct fixture given(void)
{
    struct fixture f = {0};

    put(&f.wanted, 1, "http://a:1", "");
    put(&f.wanted, 2, "http://b:1,http://b:2", "");
    put(&f.theirs, 77, "http://b:2,http://b:1", "");
    put(&f.theirs, 99, "http://a:1", "http://client:1");
    return f;
}

static void fini(struct fixture *f)
{
    members_fini(&f->wanted);
    members_fini(&f->theirs);
    buf_fini(&f->why);
}

static void refused(struct fixture *f, uint64_t self, const char *text)
{
    cr_assert_eq(join_match(&f->wanted, self, &f->theirs, &f->id, &f->why), E_INVALID);
    buf_add_byte(&f->why, 0);
    cr_assert(strstr((char *)f->why.data, text), "said: %s", (char *)f->why.data);
    cr_assert_eq(f->id, 0);
}

Test(join, its_id_is_the_one_with_its_urls_in_any_order)
{
    struct fixture f = given();

    cr_assert_eq(join_match(&f.wanted, 2, &f.theirs, &f.id, &f.why), 0);
    cr_assert_eq(f.id, 77);
    fini(&f);
}

Test(join, other_counts_are_unequal)
{
    struct fixture f = given();

    put(&f.theirs, 100, "http://c:1", "");
    refused(&f, 2, "member count is unequal");
    fini(&f);
}

Test(join, other_urls_are_unmatched)
{
    struct fixture f = given();

    cr_assert_eq(members_apply(&f.theirs, &(struct raft_conf_change){.op = RAFT_CONF_UPDATE, .id = 77, .peer_urls = SLICE_LIT("http://b:1")}), 0);
    refused(&f, 2, "unmatched member while checking PeerURLs");
    fini(&f);
}

/* It has published itself, so it has run, and may have voted: its log cannot be an empty one. */
Test(join, a_member_that_has_run_before_does_not_begin_again)
{
    struct fixture f = given();

    refused(&f, 1, "already been bootstrapped");
    fini(&f);
}
