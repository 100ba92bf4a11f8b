/* cluster - the member list as raftd tells it, what the requests to change it say, and what the answers hold. */
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "common/err.h"
#include "etcd/rpc.pb-c.h"
#include "gatewayd/gatewayd.h"

struct ring {
    struct conf conf;
    struct loop *loop;
    struct gatewayd g;
};

static struct ring *ring_new(void)
{
    static const struct link_ops ops;
    struct ring *r = xcalloc(1, sizeof(*r));
    struct link_conf link = {
        .name = "raftd", .url = "ipc:///tmp/trine-test-nobody", .self = ROLE_GATEWAYD, .peer = ROLE_RAFTD, .slot = 1};
    conf_init(&r->conf);
    r->loop = loop_new();
    gatewayd_init(&r->g, &r->conf, r->loop);
    identity_on_auth(&r->g, &(struct fr_auth){.enabled = 0});
    r->g.raftd = link_new(r->loop, &link, &ops, NULL);
    r->g.raftd_up = true;
    r->g.cluster_id = 1;
    r->g.member_id = 2;
    r->g.term = 3;
    return r;
}

static void ring_free(struct ring *r)
{
    gatewayd_fini(&r->g);
    loop_free(r->loop);
    conf_fini(&r->conf);
    free(r);
}

static void tell(struct ring *r, uint64_t pos, uint64_t count, uint64_t id, bool learner)
{
    cluster_receive(&r->g, &(struct fr_member){.pos = pos,
                                               .count = count,
                                               .id = id,
                                               .is_learner = learner,
                                               .name = SLICE_LIT("n"),
                                               .peer_urls = SLICE_LIT("http://a:1,http://b:1"),
                                               .client_urls = SLICE_EMPTY});
}

static void ignore(void *arg, const struct answer *a)
{
    UNUSED(arg);
    UNUSED(a);
}

static int add(struct ring *r, const char **urls, size_t count, bool learner, struct pending **p)
{
    Etcdserverpb__MemberAddRequest m = ETCDSERVERPB__MEMBER_ADD_REQUEST__INIT;
    uint8_t bytes[70000];
    uint64_t req = 0;
    m.n_peerurls = count;
    m.peerurls = (char **)(uintptr_t)urls;
    m.islearner = learner;
    cr_assert(etcdserverpb__member_add_request__get_packed_size(&m) <= sizeof(bytes));
    size_t len = etcdserverpb__member_add_request__pack(&m, bytes);
    int err = cluster_submit(&r->g, &IDENTITY_NONE, MEMBER_ADD, slice_of(bytes, len), ignore, NULL, &req);
    *p = pending_find(&r->g.pending, req);
    return err;
}

Test(cluster, a_list_counts_when_it_is_complete)
{
    struct ring *r = ring_new();

    tell(r, 0, 2, 5, false);
    cr_assert_eq(r->g.member_count, 0);
    tell(r, 1, 2, 6, true);
    cr_assert_eq(r->g.member_count, 2);
    tell(r, 1, 2, 7, true); /* out of order: the old one stays */
    cr_assert_eq(r->g.member_count, 2);
    ring_free(r);
}

Test(cluster, an_addition_is_answered_with_the_member_and_the_list)
{
    struct ring *r = ring_new();
    struct buf out = BUF_INIT;

    tell(r, 0, 2, 5, false);
    tell(r, 1, 2, 6, true);
    cluster_encode_change(&r->g, MEMBER_ADD, 6, &out);
    Etcdserverpb__MemberAddResponse *m = etcdserverpb__member_add_response__unpack(NULL, out.len, out.data);
    cr_assert_not_null(m);
    cr_assert_eq(m->member->id, 6);
    cr_assert(m->member->islearner);
    cr_assert_eq(m->member->n_peerurls, 2);
    cr_assert_str_eq(m->member->peerurls[1], "http://b:1");
    cr_assert_eq(m->n_members, 2);
    cr_assert_eq(m->header->cluster_id, 1);
    cr_assert_eq(m->header->member_id, 2);
    cr_assert_eq(m->header->raft_term, 3);
    cr_assert_eq(m->header->revision, 0);
    etcdserverpb__member_add_response__free_unpacked(m, NULL);
    buf_fini(&out);
    ring_free(r);
}

Test(cluster, the_other_changes_are_answered_with_the_list)
{
    struct ring *r = ring_new();
    struct buf out = BUF_INIT;

    tell(r, 0, 1, 5, false);
    cluster_encode_change(&r->g, MEMBER_REMOVE, 6, &out);
    Etcdserverpb__MemberRemoveResponse *m = etcdserverpb__member_remove_response__unpack(NULL, out.len, out.data);
    cr_assert_not_null(m);
    cr_assert_eq(m->n_members, 1);
    cr_assert_eq(m->members[0]->id, 5);
    etcdserverpb__member_remove_response__free_unpacked(m, NULL);
    buf_fini(&out);
    ring_free(r);
}

Test(cluster, urls_travel_as_a_list_and_learners_as_an_operation)
{
    struct ring *r = ring_new();
    struct pending *p;

    cr_assert_eq(add(r, (const char *[]){"http://a:1", "http://b:2"}, 2, true, &p), OK);
    cr_assert_eq(p->what, MEMBER_ADD_LEARNER);
    cr_assert(slice_eq(buf_slice(&p->command), SLICE_LIT("http://a:1,http://b:2")));
    cr_assert_eq(add(r, (const char *[]){"http://c:1"}, 1, false, &p), OK);
    cr_assert_eq(p->what, MEMBER_ADD);
    ring_free(r);
}

Test(cluster, a_url_with_a_comma_is_not_two)
{
    struct ring *r = ring_new();
    struct pending *p;
    char *longest = xcalloc(1, 60001);

    cr_assert_eq(add(r, (const char *[]){"http://a:1,http://b:2"}, 1, false, &p), E_MEMBER_BAD_URLS);
    cr_assert_eq(add(r, (const char *[]){""}, 1, false, &p), E_MEMBER_BAD_URLS);
    memset(longest, 'a', 60000);
    cr_assert_eq(add(r, (const char *[]){longest}, 1, false, &p), E_MEMBER_BAD_URLS);
    cr_assert_eq(r->g.pending.count, 0);
    free(longest);
    ring_free(r);
}

Test(cluster, bytes_that_are_no_request_are_refused)
{
    struct ring *r = ring_new();

    for (int op = MEMBER_ADD; op <= MEMBER_UPDATE; op++)
        cr_assert_eq(cluster_submit(&r->g, &IDENTITY_NONE, (enum member_op)op, SLICE_LIT("\x0a\xff"), ignore, NULL, NULL), E_MALFORMED_REQUEST);
    cr_assert_eq(move_leader_submit(&r->g, &IDENTITY_NONE, SLICE_LIT("\x08"), ignore, NULL, NULL), E_MALFORMED_REQUEST);
    ring_free(r);
}

Test(cluster, a_learner_changes_nothing)
{
    struct ring *r = ring_new();
    struct pending *p;

    r->g.is_learner = true;
    cr_assert_eq(add(r, (const char *[]){"http://a:1"}, 1, false, &p), E_NOT_SUPPORTED_FOR_LEARNER);
    cr_assert_eq(move_leader_submit(&r->g, &IDENTITY_NONE, SLICE_EMPTY, ignore, NULL, NULL), E_NOT_SUPPORTED_FOR_LEARNER);
    cr_assert_eq(r->g.pending.count, 0);
    ring_free(r);
}
