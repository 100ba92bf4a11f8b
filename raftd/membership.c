/* membership - what raftd does about its members beside the core: the way of requests to change.c and of its answers, our own
 * name and client URLs, peers' questions about members, and our end when we are removed.
 * From in.c (gateways), forward.c (peers' frames), out.c (committed changes) and main.c (every turn). Rules: change.h. */
#include "raftd/raftd.h"

#include <inttypes.h>
#include <time.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/mem.h"
#include "raftd/change.h"

/* A publication that failed is tried again after this. */
#define PUBLISH_RETRY_MS 1000
/* A removed member lives this long, so that others hear of the commit, and the client of its answer. etcd waits as long. */
#define REMOVED_MS 1000

_Static_assert((int)MEMBER_ADD == RAFT_CONF_ADD && (int)MEMBER_ADD_LEARNER == RAFT_CONF_ADD_LEARNER &&
                   (int)MEMBER_PROMOTE == RAFT_CONF_PROMOTE && (int)MEMBER_REMOVE == RAFT_CONF_REMOVE &&
                   (int)MEMBER_UPDATE == RAFT_CONF_UPDATE,
               "frames and entries count alike");

/* --- effects of change.c --------------------------------------------------------------------------- */

static uint64_t do_propose(void *arg, uint64_t tag, struct entry *e)
{
    struct raftd *d = arg;
    uint64_t before = raft_last_index(d->raft);

    turn_propose(d->turn, TURN_CHANGE, tag, e);
    uint64_t after = raft_last_index(d->raft);
    return after > before ? after : 0;
}

static void do_transfer(void *arg, uint64_t member)
{
    struct raftd *d = arg;

    log_info("raft: moving the leadership to member %" PRIx64, member);
    turn_transfer(d->turn, member);
}

static bool do_forward(void *arg, uint64_t leader, uint64_t tag, const struct change_ask *ask)
{
    struct raftd *d = arg;

    return peers_send(d->peers, leader, PEER_STREAM_APPENDS,
                      FRAME(change_forward, CHANGE_FORWARD, .tag = tag, .op = ask->op, .id = ask->id,
                            .fields = ask->fields, .name = ask->name, .peer_urls = ask->peer_urls,
                            .client_urls = ask->client_urls));
}

static void publish_answer(struct raftd *d, int err)
{
    d->publish_asked = false;
    if (!err)
        return;
    log_info("members: our name and client URLs are not published yet: %s", err_text(err));
    d->publish_due = true;
    d->publish_at_ms = loop_now_ms(d->loop) + PUBLISH_RETRY_MS;
}

/* The leader said that our own removal is committed; the entry itself does not come to us any more. */
static void own_removal(struct raftd *d)
{
    if (members_apply(&d->members, &(struct raft_conf_change){.op = RAFT_CONF_REMOVE, .id = d->member_id}) == 0)
        membership_changed(d);
}

static void do_answer(void *arg, const struct change_ask *ask, int err, uint64_t id, uint64_t index)
{
    struct raftd *d = arg;

    switch (ask->from) {
    case CHANGE_GATEWAY:
        if (!err && ask->op == RAFT_CONF_REMOVE && id == d->member_id)
            own_removal(d);
        out_tell(d); /* the list that holds the change goes before */
        link_send(d->links[ask->asker],
                  FRAME(member_said, MEMBER_SAID, .req = ask->req, .err = (uint64_t)-err, .id = id));
        break;
    case CHANGE_PEER:
        peers_send(d->peers, ask->asker, PEER_STREAM_APPENDS,
                   FRAME(change_said, CHANGE_SAID, .tag = ask->req, .err = (uint64_t)-err, .id = id, .index = index));
        break;
    case CHANGE_OWN:
        publish_answer(d, err);
        break;
    }
}

static uint64_t do_active_since(void *arg, uint64_t member)
{
    const struct raftd *d = arg;
    uint64_t since = peers_up_since_ms(d->peers, member);

    return since == UINT64_MAX ? 0 : MAX(since, 1);
}

static const struct change_ops ops = {.propose = do_propose,
                                      .transfer = do_transfer,
                                      .forward = do_forward,
                                      .answer = do_answer,
                                      .active_since = do_active_since};

void membership_start(struct raftd *d)
{
    const struct change_conf conf = {
        .token = d->conf.initial_cluster_token,
        .max_learners = d->conf.max_learners,
        .strict = d->conf.strict_reconfig_check,
        .wait_ms = REQUEST_TIMEOUT_BASE_MS + 2 * d->conf.election_timeout_ms,
    };

    d->change = change_new(&conf, &ops, d);
    d->publish_due = true;
}

/* --- requests --------------------------------------------------------------------------------------- */

void membership_gateway_asks(struct raftd *d, unsigned slot, const struct fr_member_change *f)
{
    change_add(d->change,
               &(struct change_ask){.from = CHANGE_GATEWAY,
                                    .asker = slot,
                                    .req = f->req,
                                    .op = f->op,
                                    .id = f->id,
                                    .fields = CHANGE_PEER_URLS,
                                    .peer_urls = f->peer_urls},
               loop_now_ms(d->loop));
}

void membership_gateway_moves(struct raftd *d, unsigned slot, const struct fr_move_leader *f)
{
    change_add(
        d->change,
        &(struct change_ask){
            .from = CHANGE_GATEWAY, .asker = slot, .req = f->req, .op = CHANGE_MOVE_LEADER, .id = f->target},
        loop_now_ms(d->loop));
}

static int peer_forwards(struct raftd *d, uint64_t member, const struct fr_change_forward *f)
{
    if (f->op == CHANGE_MOVE_LEADER)
        return E_MALFORMED; /* only for who leads, by who is asked */
    change_add(d->change,
               &(struct change_ask){.from = CHANGE_PEER,
                                    .asker = member,
                                    .req = f->tag,
                                    .op = f->op,
                                    .id = f->id,
                                    .fields = f->fields,
                                    .name = f->name,
                                    .peer_urls = f->peer_urls,
                                    .client_urls = f->client_urls},
               loop_now_ms(d->loop));
    return 0;
}

int membership_peer_frame(struct raftd *d, uint64_t member, const struct frame *f)
{
    switch (f->type) {
    case FR_CHANGE_FORWARD:
        return peer_forwards(d, member, &f->change_forward);
    case FR_CHANGE_SAID:
        change_said(d->change, f->change_said.tag, f->change_said.err ? err_from_number(f->change_said.err) : 0,
                    f->change_said.id, f->change_said.index);
        return 0;
    case FR_REMOVED:
        if (f->removed.cluster_id != d->cluster_id || f->removed.member_id != d->member_id)
            return E_MALFORMED;
        membership_removed(d, "the others say so");
        return 0;
    default:
        return E_MALFORMED;
    }
}

void membership_refused(struct raftd *d, uint64_t tag, int err)
{
    change_refused(d->change, tag, err);
}

/* A change in the log is a fact. */
void membership_committed(struct raftd *d, const struct entry *e, int err)
{
    if (d->change)
        change_committed(d->change, e->index, e->term, err);
}

/* --- the table has changed ---------------------------------------------------------------------------- */

/* An even number of voters survives no more failures than one less. */
static void warn_even(struct raftd *d)
{
    size_t voters = members_voters(&d->members);

    if (voters == d->voters_said)
        return;
    d->voters_said = voters;
    if (voters > 0 && voters % 2 == 0)
        log_warnx("members: %zu voting members survive the loss of %zu, as %zu would: an even number adds a machine that can "
                  "fail, and no safety",
                  voters, (voters - 1) / 2, voters - 1);
}

void membership_changed(struct raftd *d)
{
    d->publish_due = true;
    d->peers_due = true;
    self_members(d);
    warn_even(d);
    if (members_was_removed(&d->members, d->member_id))
        membership_removed(d, "its log says so");
    out_tell_all(d);
}

/* etcd's words. Its data may be looked at, but never used by a member again. */
void membership_removed(struct raftd *d, const char *how)
{
    if (d->removed_at_ms > 0)
        return;
    d->removed_at_ms = loop_now_ms(d->loop) + REMOVED_MS;
    log_error("raftd: the member has been permanently removed from the cluster (%s); the data directory %s can be deleted",
              how, d->conf.data_dir);
}

/* --- our own attributes -------------------------------------------------------------------------------- */

/* Our name and client URLs stand in the log, so that all members tell the same; etcd calls this publishing. */
static void publish(struct raftd *d)
{
    const struct member *self = members_find(&d->members, d->member_id);

    if (!d->publish_due || d->publish_asked || d->stopping || raft_leader(d->raft) == RAFT_NONE ||
        loop_now_ms(d->loop) < d->publish_at_ms || (raft_role(d->raft) == RAFT_LEADER && !raft_is_settled(d->raft)))
        return;
    d->publish_due = false;
    if (!self || (slice_eq(slice_str(self->name), slice_str(d->conf.name)) &&
                  slice_eq(slice_str(self->client_urls), slice_str(d->conf.advertise_client_urls))))
        return;
    d->publish_asked = true;
    change_add(d->change,
               &(struct change_ask){.from = CHANGE_OWN,
                                    .op = RAFT_CONF_UPDATE,
                                    .id = d->member_id,
                                    .fields = CHANGE_NAME | CHANGE_CLIENT_URLS,
                                    .name = slice_str(d->conf.name),
                                    .client_urls = slice_str(d->conf.advertise_client_urls)},
               loop_now_ms(d->loop));
}

bool membership_run(struct raftd *d)
{
    struct change_state state = {
        .now_ms = loop_now_ms(d->loop),
        .wall_s = (uint64_t)(clock_wall_ms() / 1000),
        .self = d->member_id,
        .leader = raft_leader(d->raft),
        .leads = raft_is_settled(d->raft),
        .term = raft_term(d->raft),
        .commit = raft_commit(d->raft),
        .members = &d->members,
    };

    publish(d);
    return change_run(d->change, &state);
}

uint64_t membership_deadline(const struct raftd *d)
{
    uint64_t at = change_deadline(d->change);

    if (d->publish_due && !d->publish_asked && d->publish_at_ms > loop_now_ms(d->loop))
        at = MIN(at, d->publish_at_ms);
    return d->removed_at_ms > 0 && !d->stopping ? MIN(at, d->removed_at_ms) : at;
}
