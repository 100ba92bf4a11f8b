/* retry - what restarts of siblings mean for what is pending. The links exist but are never started: what would be
 * sent shows in the entries (sent, wire name). */
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "common/err.h"
#include "gatewayd/gatewayd.h"

struct ring {
    struct conf conf;
    struct loop *loop;
    struct gatewayd g;
};

/* What the owner heard last. */
static struct {
    size_t count;
    int err;
    bool first, more;
    size_t body_len;
} heard;

static void hear(void *arg, const struct answer *a)
{
    UNUSED(arg);
    heard.count++;
    heard.err = a->err;
    heard.first = a->first;
    heard.more = a->more;
    heard.body_len = a->body.len;
}

static struct link *idle_link(struct loop *loop, const char *name, enum role peer)
{
    static const struct link_ops ops;
    struct link_conf conf = {.name = name, .url = "ipc:///tmp/trine-test-nobody", .self = ROLE_GATEWAYD, .peer = peer, .slot = 1};
    return link_new(loop, &conf, &ops, NULL);
}

static struct ring *ring_new(void)
{
    struct ring *r = xcalloc(1, sizeof(*r));
    memset(&heard, 0, sizeof(heard));
    conf_init(&r->conf);
    r->loop = loop_new();
    gatewayd_init(&r->g, &r->conf, r->loop);
    identity_on_auth(&r->g, &(struct fr_auth){.enabled = 0});
    r->g.raftd = idle_link(r->loop, "raftd", ROLE_RAFTD);
    r->g.stored = idle_link(r->loop, "stored", ROLE_STORED);
    r->g.member_id = 7;
    r->g.cluster_id = 8;
    r->g.member_count = 1;
    r->g.members = xcalloc(1, sizeof(*r->g.members));
    return r;
}

static void ring_free(struct ring *r)
{
    gatewayd_fini(&r->g);
    loop_free(r->loop);
    conf_fini(&r->conf);
    free(r);
}

static void raftd_up(struct ring *r, uint64_t instance)
{
    r->g.raftd_up = true;
    retry_on_raftd_up(&r->g, instance);
}

static void stored_up(struct ring *r)
{
    r->g.stored_up = true;
    r->g.stored_session++;
    retry_on_stored_up(&r->g);
    retry_on_stored_heard(&r->g);
}

static struct ring *ring_up(void)
{
    struct ring *r = ring_new();
    raftd_up(r, 100);
    stored_up(r);
    return r;
}

static struct pending *ask(struct ring *r, enum pending_via via)
{
    uint64_t req = 0;
    cr_assert_eq(pending_command(&r->g, &IDENTITY_NONE, via, via == VIA_PROPOSE ? COMMAND_PUT : COMMAND_RANGE, SLICE_LIT("\n\1a"), hear, NULL, &req), OK);
    return pending_find(&r->g.pending, req);
}

static void result(struct ring *r, uint64_t wire, uint64_t err, bool more)
{
    retry_answer(&r->g, &(struct fr_result){.req = wire, .err = err, .more = more, .total = 10, .body = SLICE_LIT("hello")});
}

Test(retry, an_answer_reaches_its_owner_once)
{
    struct ring *r = ring_up();
    uint64_t wire = ask(r, VIA_PROPOSE)->wire;
    result(r, wire, 0, false);
    result(r, wire, 0, false);
    cr_expect_eq(heard.count, 1);
    cr_expect_eq(heard.err, OK);
    cr_expect_eq(r->g.pending.count, 0);
    ring_free(r);
}

Test(retry, parts_are_told_as_such_and_the_client_sets_their_pace)
{
    struct ring *r = ring_up();
    struct pending *p = ask(r, VIA_READ);
    uint64_t wire = p->wire, req = p->req;
    result(r, wire, 0, true);
    cr_expect(heard.first && heard.more);
    pending_expire(&r->g, UINT64_MAX); /* it waits for its client, not for the ring */
    cr_expect_eq(heard.count, 1);
    pending_more(&r->g, req);
    cr_expect_neq(pending_next_ms(&r->g.pending), UINT64_MAX);
    result(r, wire, 0, false);
    cr_expect(!heard.first && !heard.more);
    cr_expect_eq(heard.count, 2);
    ring_free(r);
}

Test(retry, a_request_without_an_answer_times_out)
{
    struct ring *r = ring_up();
    const struct pending *p = ask(r, VIA_PROPOSE);
    uint64_t wire = p->wire, deadline_ms = p->deadline_ms;
    cr_expect_leq(deadline_ms, loop_now_ms(r->loop) + r->g.request_timeout_ms);
    pending_expire(&r->g, deadline_ms - 1);
    cr_expect_eq(heard.count, 0);
    pending_expire(&r->g, deadline_ms);
    cr_expect_eq(heard.err, E_TIMEOUT);
    result(r, wire, 0, false);
    cr_expect_eq(heard.count, 1);
    ring_free(r);
}

Test(retry, what_is_asked_while_a_sibling_is_away_is_sent_when_it_comes)
{
    struct ring *r = ring_new();
    struct pending *propose = ask(r, VIA_PROPOSE), *query = ask(r, VIA_QUERY);
    cr_expect_not(propose->sent);
    cr_expect_not(query->sent);
    raftd_up(r, 100);
    cr_expect(propose->sent);
    cr_expect_not(query->sent);
    stored_up(r);
    cr_expect(query->sent);
    ring_free(r);
}

Test(retry, reads_are_sent_again_under_another_name_after_any_restart)
{
    struct ring *r = ring_up();
    struct pending *p = ask(r, VIA_READ);
    uint64_t first = p->wire;
    raftd_up(r, 101);
    uint64_t second = p->wire;
    stored_up(r);
    cr_expect_neq(first, second);
    cr_expect_neq(second, p->wire);
    result(r, first, 0, false);
    result(r, second, 0, false);
    cr_expect_eq(heard.count, 0); /* late answers find nobody */
    result(r, p->wire, 0, false);
    cr_expect_eq(heard.count, 1);
    ring_free(r);
}

Test(retry, a_read_that_may_have_come_to_stored_before_us_is_sent_again)
{
    /* given a read and a question from before stored was lost, and a read from after its HELLO */
    struct ring *r = ring_up();
    struct pending *old = ask(r, VIA_READ), *query = ask(r, VIA_QUERY);
    uint64_t old_wire = old->wire, query_wire = query->wire;
    r->g.stored_session++;
    retry_on_stored_up(&r->g);
    struct pending *new = ask(r, VIA_READ);
    uint64_t new_wire = new->wire;

    /* the question follows our HELLO on the same link */
    cr_expect_neq(query->wire, query_wire);
    query_wire = query->wire;
    cr_expect_eq(old->wire, old_wire, "before stored knows us its answer would be lost");

    retry_on_stored_heard(&r->g);
    cr_expect_neq(old->wire, old_wire);
    cr_expect_neq(new->wire, new_wire);
    cr_expect_eq(query->wire, query_wire);
    result(r, old->wire, 0, false);
    result(r, new->wire, 0, false);
    result(r, query->wire, 0, false);
    cr_expect_eq(heard.count, 3);
    ring_free(r);
}

Test(retry, half_an_answer_ends_when_stored_is_lost)
{
    struct ring *r = ring_up();
    result(r, ask(r, VIA_READ)->wire, 0, true);
    stored_up(r);
    cr_expect_eq(heard.count, 2);
    cr_expect_eq(heard.err, E_TIMEOUT_DUE_TO_CONNECTION_LOST);
    ring_free(r);
}

static struct pending *barrier_of(struct ring *r) { return pending_find(&r->g.pending, r->g.barrier_req); }

Test(retry, a_lost_proposal_is_proposed_again_once_a_barrier_proves_it_was_not_applied)
{
    struct ring *r = ring_up();
    struct pending *p = ask(r, VIA_PROPOSE);
    uint64_t wire = p->wire;
    raftd_up(r, 101);
    cr_expect(p->ambiguous);
    cr_assert_not_null(barrier_of(r));
    result(r, barrier_of(r)->wire, 0, false);
    cr_expect_eq(heard.count, 0);
    cr_expect_not(p->ambiguous);
    cr_expect_neq(p->wire, wire, "what is still said about the lost one must find nobody");
    cr_expect_eq(p->raftd_instance, 101);
    result(r, p->wire, 0, false);
    cr_expect_eq(heard.err, OK);
    ring_free(r);
}

static void refused(struct ring *r, uint64_t wire, int err)
{
    retry_refused(&r->g, &(struct fr_refused){.req = wire, .err = (uint64_t)-err});
}

Test(retry, a_proposal_to_a_leader_that_is_gone_is_proposed_again_after_a_barrier)
{
    /* given a proposal whose leader has changed */
    struct ring *r = ring_up();
    struct pending *p = ask(r, VIA_PROPOSE);
    uint64_t wire = p->wire;
    refused(r, wire, E_AMBIGUOUS);
    cr_expect(p->ambiguous);
    cr_expect_eq(heard.count, 0);

    /* when the barrier is answered first, it was lost: it goes again under another name */
    result(r, barrier_of(r)->wire, 0, false);
    cr_expect_not(p->ambiguous);
    cr_expect_neq(p->wire, wire);
    result(r, wire, 0, false);
    cr_expect_eq(heard.count, 0);
    result(r, p->wire, 0, false);
    cr_expect_eq(heard.err, OK);
    ring_free(r);
}

Test(retry, a_barrier_that_was_under_way_clears_up_nothing_that_came_later)
{
    struct ring *r = ring_up();
    struct pending *first = ask(r, VIA_PROPOSE), *second = ask(r, VIA_PROPOSE);
    refused(r, first->wire, E_AMBIGUOUS);
    uint64_t barrier = barrier_of(r)->wire;
    refused(r, second->wire, E_AMBIGUOUS);
    result(r, barrier, 0, false);
    cr_expect_not(first->ambiguous);
    cr_expect(second->ambiguous);
    cr_assert_not_null(barrier_of(r));
    cr_expect_neq(barrier_of(r)->wire, barrier);
    result(r, barrier_of(r)->wire, 0, false);
    cr_expect_not(second->ambiguous);
    ring_free(r);
}

Test(retry, a_barrier_that_fails_leaves_the_outcome_unknown)
{
    struct ring *r = ring_up();
    refused(r, ask(r, VIA_PROPOSE)->wire, E_AMBIGUOUS);
    result(r, barrier_of(r)->wire, (uint64_t)-E_TIMEOUT, false);
    cr_expect_eq(heard.count, 1);
    cr_expect_eq(heard.err, E_AMBIGUOUS);
    ring_free(r);
}

Test(retry, what_was_refused_for_want_of_a_leader_is_sent_again_under_another_name)
{
    struct ring *r = ring_up();
    struct pending *p = ask(r, VIA_PROPOSE);
    uint64_t wire = p->wire;
    refused(r, wire, E_AGAIN);
    cr_expect_not(p->sent);
    cr_expect_neq(p->wire, wire);
    refused(r, wire, E_AMBIGUOUS); /* about the old name: too late */
    cr_expect_not(p->ambiguous);
    ring_free(r);
}

Test(retry, a_refusal_by_a_leader_that_another_has_followed_is_no_reason_to_wait)
{
    struct ring *r = ring_up();
    gatewayd_set_leader(&r->g, 4, 9, false);
    struct pending *p = ask(r, VIA_PROPOSE);
    uint64_t wire = p->wire;
    gatewayd_set_leader(&r->g, 5, 7, false);
    refused(r, wire, E_AGAIN);
    cr_expect(p->sent);
    cr_expect_neq(p->wire, wire);
    /* refused by the one we know: after a moment only */
    refused(r, p->wire, E_AGAIN);
    cr_expect_not(p->sent);
    ring_free(r);
}

Test(retry, a_proposal_that_was_applied_is_answered_before_the_barrier)
{
    struct ring *r = ring_up();
    struct pending *p = ask(r, VIA_PROPOSE);
    raftd_up(r, 101);
    result(r, p->wire, 0, false);
    result(r, barrier_of(r)->wire, 0, false);
    cr_expect_eq(heard.count, 1);
    cr_expect_eq(heard.err, OK);
    cr_expect_eq(r->g.pending.count, 0);
    ring_free(r);
}

Test(retry, without_proof_the_outcome_is_unknown_and_the_client_hears_it_at_once)
{
    /* stored's link was lost between the sending and raftd's return */
    struct ring *r = ring_up();
    ask(r, VIA_PROPOSE);
    stored_up(r);
    cr_expect_eq(heard.count, 0); /* a restart of stored alone means nothing for proposals */
    raftd_up(r, 101);
    cr_expect_eq(heard.err, E_AMBIGUOUS);
    ring_free(r);

    /* ... or while the barrier was on its way */
    r = ring_up();
    ask(r, VIA_PROPOSE);
    raftd_up(r, 101);
    stored_up(r);
    result(r, barrier_of(r)->wire, 0, false);
    cr_expect_eq(heard.count, 1);
    cr_expect_eq(heard.err, E_AMBIGUOUS);
    ring_free(r);

    /* ... or another member may have it in its log */
    r = ring_up();
    r->g.member_count = 3;
    ask(r, VIA_PROPOSE);
    raftd_up(r, 101);
    cr_expect_eq(heard.count, 1);
    cr_expect_eq(heard.err, E_AMBIGUOUS);
    cr_expect_null(barrier_of(r));
    r->g.member_count = 1;
    ring_free(r);
}

Test(retry, a_link_that_was_lost_and_found_without_a_restart_leaves_proposals_waiting)
{
    struct ring *r = ring_up();
    struct pending *p = ask(r, VIA_PROPOSE);
    raftd_up(r, 100);
    cr_expect_not(p->ambiguous);
    cr_expect_eq(heard.count, 0);
    ring_free(r);
}

Test(retry, want_of_a_leader_is_waited_out_and_other_refusals_are_told)
{
    struct ring *r = ring_up();
    struct pending *p = ask(r, VIA_PROPOSE);
    retry_refused(&r->g, &(struct fr_refused){.req = p->wire, .err = (uint64_t)-E_NO_LEADER});
    cr_expect_eq(heard.count, 0);
    cr_expect_not(p->sent);
    gatewayd_set_leader(&r->g, 2, 7, false);
    cr_expect(p->sent);
    retry_refused(&r->g, &(struct fr_refused){.req = p->wire, .err = (uint64_t)-E_REQUEST_TOO_MANY_REQUESTS});
    cr_expect_eq(heard.err, E_REQUEST_TOO_MANY_REQUESTS);
    ring_free(r);
}

Test(retry, a_cancelled_request_is_heard_of_no_more)
{
    struct ring *r = ring_up();
    struct pending *p = ask(r, VIA_READ);
    uint64_t wire = p->wire;
    pending_cancel(&r->g, p->req);
    pending_cancel(&r->g, 0);
    result(r, wire, 0, true);
    cr_expect_eq(heard.count, 0);
    ring_free(r);
}

Test(retry, an_entry_over_the_request_limit_is_refused)
{
    struct ring *r = ring_up();
    struct buf body = BUF_INIT;
    buf_extend(&body, r->conf.max_request_bytes);
    memset(body.data, 0, body.len);
    uint64_t req = 0;
    cr_expect_eq(pending_command(&r->g, &IDENTITY_NONE, VIA_PROPOSE, COMMAND_PUT, buf_slice(&body), hear, NULL, &req), E_REQUEST_TOO_LARGE);
    cr_expect_eq(pending_command(&r->g, &IDENTITY_NONE, VIA_READ, COMMAND_RANGE, buf_slice(&body), hear, NULL, &req), OK);
    cr_expect_eq(r->g.pending.count, 1);
    buf_fini(&body);
    ring_free(r);
}

/* --- changes of membership ---------------------------------------------------------------------------------- */

static uint64_t change(struct ring *r)
{
    uint64_t req;
    cr_assert_eq(pending_change(&r->g, &IDENTITY_NONE, MEMBER_ADD, 0, SLICE_LIT("http://a:1"), hear, NULL, &req), OK);
    return req;
}

Test(retry, a_change_of_membership_waits_for_raftd_and_is_answered_once)
{
    struct ring *r = ring_new();
    uint64_t req = change(r);
    struct pending *p = pending_find(&r->g.pending, req);

    cr_assert_not(p->sent);
    raftd_up(r, 1);
    cr_assert(p->sent);
    cr_assert(slice_eq(buf_slice(&p->command), SLICE_LIT("http://a:1")));
    stored_up(r); /* it has nothing to do with it */
    uint64_t wire = p->wire;
    cr_assert_eq(wire, req);
    retry_member_said(&r->g, &(struct fr_member_said){.req = wire + 1});
    cr_assert_eq(heard.count, 0);
    retry_member_said(&r->g, &(struct fr_member_said){.req = wire, .id = 99});
    retry_member_said(&r->g, &(struct fr_member_said){.req = wire, .id = 99});
    cr_assert_eq(heard.count, 1);
    cr_assert_eq(heard.err, OK);
    cr_assert_eq(r->g.pending.bytes, 0);
    ring_free(r);
}

Test(retry, a_change_that_an_old_raftd_got_is_in_doubt_even_in_a_cluster_of_one)
{
    struct ring *r = ring_new();

    raftd_up(r, 1);
    stored_up(r);
    uint64_t req = change(r);
    raftd_up(r, 2);
    cr_assert_null(pending_find(&r->g.pending, req));
    cr_assert_eq(heard.count, 1);
    cr_assert_eq(heard.err, E_AMBIGUOUS);
    ring_free(r);
}

Test(retry, an_answer_to_a_change_is_not_one_to_another_request)
{
    struct ring *r = ring_new();
    uint64_t req;

    raftd_up(r, 1);
    cr_assert_eq(pending_status(&r->g, STATUS_API, 0, hear, NULL, &req), OK);
    retry_member_said(&r->g, &(struct fr_member_said){.req = req});
    cr_assert_eq(heard.count, 0);
    ring_free(r);
}

Test(retry, another_members_status_is_asked_of_raftd_alone)
{
    struct ring *r = ring_new();
    uint64_t own, other;

    stored_up(r);
    cr_assert_eq(pending_status(&r->g, STATUS_API, 0, hear, NULL, &own), OK);
    cr_assert_eq(pending_status(&r->g, STATUS_API, 12, hear, NULL, &other), OK);
    cr_assert(pending_find(&r->g.pending, own)->sent);
    cr_assert_not(pending_find(&r->g.pending, other)->sent);
    raftd_up(r, 1);
    cr_assert(pending_find(&r->g.pending, other)->sent);
    ring_free(r);
}
