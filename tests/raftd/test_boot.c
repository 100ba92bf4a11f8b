/* Ids as etcd makes them, and what is said about a wrong initial-cluster. */
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "common/err.h"
#include "raftd/boot.h"

struct fixture {
    struct conf conf;
    struct boot boot;
    struct buf why;
};

static int identity(struct fixture *f, const char *name, const char *cluster, const char *peer_urls)
{
    memset(f, 0, sizeof(*f));
    conf_init(&f->conf);
    cr_assert_eq(conf_set(&f->conf, "name", name, "test", &f->why), 0);
    cr_assert_eq(conf_set(&f->conf, "initial-advertise-peer-urls", peer_urls, "test", &f->why), 0);
    /* Past conf_set, which refuses some of them earlier. */
    const char *theirs = f->conf.initial_cluster;
    f->conf.initial_cluster = cluster;
    int err = boot_identity(&f->conf, &f->boot, &f->why);
    f->conf.initial_cluster = theirs;
    buf_add_byte(&f->why, 0);
    return err;
}

static void fini(struct fixture *f)
{
    boot_fini(&f->boot);
    conf_fini(&f->conf);
    buf_fini(&f->why);
}

static void expect_refusal(const char *name, const char *cluster, const char *peer_urls, const char *text)
{
    struct fixture f;

    cr_assert_eq(identity(&f, name, cluster, peer_urls), E_INVALID, "%s", cluster);
    cr_assert(strstr((char *)f.why.data, text), "said: %s\nnot: %s", f.why.data, text);
    fini(&f);
}

/* What etcd 3.5 logs for these: "member-id":"8e9e05c52164694d","cluster-id":"cdf818194e3a8c32". */
Test(boot, the_ids_of_a_default_member_are_etcds)
{
    struct fixture f;

    cr_assert_eq(identity(&f, "default", "default=http://localhost:2380", "http://localhost:2380"), 0, "%s",
                 f.why.data);
    cr_assert_eq(f.boot.member_id, 0x8e9e05c52164694d);
    cr_assert_eq(f.boot.cluster_id, 0xcdf818194e3a8c32);
    cr_assert_eq(f.boot.members.count, 1);
    cr_assert_str_eq(f.boot.members.list[0].name, "default");
    cr_assert_str_eq(f.boot.members.list[0].peer_urls, "http://localhost:2380");
    cr_assert_str_eq(f.boot.members.list[0].client_urls, "");
    fini(&f);
}

Test(boot, an_empty_initial_cluster_is_this_member_alone)
{
    struct fixture f;

    cr_assert_eq(identity(&f, "default", "", "http://localhost:2380"), 0, "%s", f.why.data);
    cr_assert_eq(f.boot.member_id, 0x8e9e05c52164694d);
    cr_assert_eq(f.boot.cluster_id, 0xcdf818194e3a8c32);
    fini(&f);
}

Test(boot, all_members_of_one_cluster_compute_the_same_ids)
{
    static const char *const cluster = "c=http://10.0.0.3:2380,a=http://10.0.0.1:2380,b=http://10.0.0.2:2380";
    struct fixture a, b;

    cr_assert_eq(identity(&a, "a", cluster, "http://10.0.0.1:2380"), 0, "%s", a.why.data);
    cr_assert_eq(identity(&b, "b", cluster, "http://10.0.0.2:2380"), 0, "%s", b.why.data);
    cr_assert_eq(a.boot.cluster_id, b.boot.cluster_id);
    cr_assert_neq(a.boot.member_id, b.boot.member_id);
    cr_assert_eq(a.boot.members.count, 3);
    cr_assert(a.boot.members.list[0].id < a.boot.members.list[1].id &&
              a.boot.members.list[1].id < a.boot.members.list[2].id);
    fini(&a);
    fini(&b);
}

Test(boot, the_order_of_a_members_urls_does_not_matter_but_the_token_does)
{
    uint64_t id = boot_member_id("http://a:1,http://b:2", "t");

    cr_assert_eq(id, boot_member_id("http://b:2,http://a:1", "t"));
    cr_assert_neq(id, boot_member_id("http://b:2,http://a:1", "u"));
    cr_assert_neq(id, boot_member_id("http://a:1", "t"));
}

Test(boot, a_member_may_have_several_peer_urls)
{
    struct fixture f;

    cr_assert_eq(identity(&f, "n", "n=http://h:1,n=http://h:2", "http://h:2,http://h:1"), 0, "%s", f.why.data);
    cr_assert_eq(f.boot.members.count, 1);
    cr_assert_str_eq(f.boot.members.list[0].peer_urls, "http://h:1,http://h:2");
    fini(&f);
}

Test(boot, a_wrong_initial_cluster_is_refused_in_etcds_words)
{
    expect_refusal("x", "a=http://h:1", "http://h:1",
                   "couldn't find local name \"x\" in the initial cluster configuration");
    expect_refusal("a", "a=http://h:1", "http://h:2",
                   "--initial-cluster has a=http://h:1 but missing from --initial-advertise-peer-urls=http://h:2");
    expect_refusal("a", "a=http://h:1", "http://h:1,http://h:2",
                   "--initial-advertise-peer-urls has http://h:2 but missing from --initial-cluster");
    expect_refusal("a", "a=http://h:1,b=http://h:1", "http://h:1", "given twice");
    expect_refusal("a", "a", "http://h:1", "is not NAME=URL");
    expect_refusal("a", "a=", "http://h:1", "is not NAME=URL");
    expect_refusal("a", "a=nonsense", "http://h:1", "is not a URL");
}

Test(boot, more_members_than_a_cluster_may_have_are_refused)
{
    struct buf list = BUF_INIT;

    for (int i = 0; i <= RAFT_MEMBERS_MAX; i++)
        buf_printf(&list, "%sm%d=http://h:%d", i ? "," : "", i, 1000 + i);
    buf_add_byte(&list, 0);
    expect_refusal("m0", (char *)list.data, "http://h:1000", "more than 16 members");
    buf_fini(&list);
}

/* --- the table ---------------------------------------------------------------------------------- */

static struct raft_conf_change change(uint64_t op, uint64_t id, const char *name)
{
    return (struct raft_conf_change){.op = op,
                                     .id = id,
                                     .name = slice_str(name),
                                     .peer_urls = SLICE_LIT("http://p:1"),
                                     .client_urls = SLICE_LIT("http://c:1")};
}

Test(members, changes_are_applied_and_survive_their_own_encoding)
{
    struct members m = {0}, again = {0};
    struct buf bytes = BUF_INIT;
    struct raft_conf_change c;

    c = change(RAFT_CONF_ADD, 30, "c");
    cr_assert_eq(members_apply(&m, &c), 0);
    c = change(RAFT_CONF_ADD_LEARNER, 10, "a");
    cr_assert_eq(members_apply(&m, &c), 0);
    c = change(RAFT_CONF_ADD, 20, "");
    cr_assert_eq(members_apply(&m, &c), 0);
    c = change(RAFT_CONF_UPDATE, 20, "b");
    cr_assert_eq(members_apply(&m, &c), 0);
    members_encode(&m, &bytes);
    cr_assert_eq(members_decode(buf_slice(&bytes), &again), 0);
    cr_assert_eq(again.count, 3);
    cr_assert(again.list[0].id == 10 && again.list[0].is_learner);
    cr_assert_str_eq(again.list[1].name, "b");
    cr_assert(again.list[2].id == 30 && !again.list[2].is_learner);

    c = change(RAFT_CONF_PROMOTE, 10, "");
    cr_assert_eq(members_apply(&m, &c), 0);
    cr_assert(!members_find(&m, 10)->is_learner);
    c = change(RAFT_CONF_REMOVE, 20, "");
    cr_assert_eq(members_apply(&m, &c), 0);
    cr_assert_null(members_find(&m, 20));
    cr_assert_eq(m.count, 2);
    members_fini(&m);
    members_fini(&again);
    buf_fini(&bytes);
}

Test(members, changes_that_cannot_be_are_refused)
{
    struct members m = {0};
    struct raft_conf_change c = change(RAFT_CONF_ADD, 1, "a");

    cr_assert_eq(members_apply(&m, &c), 0);
    cr_assert_eq(members_apply(&m, &c), E_MEMBER_EXIST);
    c = change(RAFT_CONF_REMOVE, 2, "");
    cr_assert_eq(members_apply(&m, &c), E_MEMBER_NOT_FOUND);
    c = change(99, 1, "");
    cr_assert_eq(members_apply(&m, &c), E_MALFORMED);
    cr_assert_eq(m.count, 1);
    members_fini(&m);
}

Test(members, hostile_tables_are_errors)
{
    struct members m = {0}, again = {0};
    struct buf bytes = BUF_INIT;
    struct raft_conf_change c = change(RAFT_CONF_ADD, 1, "a");

    members_apply(&m, &c);
    members_encode(&m, &bytes);
    for (size_t len = 0; len < bytes.len; len++)
        cr_assert_neq(members_decode(slice_of(bytes.data, len), &again), 0, "%zu bytes", len);
    buf_add_byte(&bytes, 0);
    cr_assert_eq(members_decode(buf_slice(&bytes), &again), E_TRAILING);
    cr_assert_eq(again.count, 0);
    members_fini(&m);
    buf_fini(&bytes);
}
