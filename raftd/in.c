/* in - every frame that raftd receives, from gatewayd/out.c and stored/out.c: checked here, once, and given to
 * turn.c as structs. What a sibling says wrongly closes its link (link.c logs it by name); what a client asked for too
 * much of is refused to the one who asked. */
#include "raftd/raftd.h"

#include <inttypes.h>

#include "common/err.h"

static bool command_fits(const struct raftd *d, struct slice command)
{
    return command.len <= d->conf.max_request_bytes + COMMAND_OVERHEAD_BYTES;
}

static int in_propose(struct raftd *d, struct link *l, const struct fr_propose *f)
{
    if (f->command.len == 0)
        return E_MALFORMED;
    if (!command_fits(d, f->command)) {
        out_ops.refuse(d, link_slot(l), f->req, E_REQUEST_TOO_LARGE);
        return 0;
    }
    turn_propose(d->turn, link_slot(l), f->req, entry_new(ENTRY_COMMAND, f->command));
    return 0;
}

static int in_read(struct raftd *d, struct link *l, const struct fr_read *f)
{
    if (f->command.len == 0)
        return E_MALFORMED;
    if (!command_fits(d, f->command)) {
        out_ops.refuse(d, link_slot(l), f->req, E_REQUEST_TOO_LARGE);
        return 0;
    }
    if (f->where == 1)
        forward_query(d, link_slot(l), f->req, f->command);
    else
        turn_read(d->turn, link_slot(l), f->req, f->command);
    return 0;
}

static int in_status(struct raftd *d, struct link *l, const struct fr_status *f)
{
    if (f->what > STATUS_HEALTH)
        return E_MALFORMED;
    out_status(d, link_slot(l), f->req, f->what);
    return 0;
}

static int in_applied(struct raftd *d, const struct fr_applied *f)
{
    return turn_applied(d->turn, f->applied, f->durable, f->room);
}

/* Its sender was checked against the list by link.c: a gateway cannot say APPLIED. */
static int in_frame(struct link *l, const struct frame *f, void *arg)
{
    struct raftd *d = arg;

    turn_clock(d->turn, loop_now_ms(d->loop));
    switch (f->type) {
    case FR_PROPOSE:
        return in_propose(d, l, &f->propose);
    case FR_READ:
        return in_read(d, l, &f->read);
    case FR_STATUS:
        return in_status(d, l, &f->status);
    case FR_APPLIED:
        return in_applied(d, &f->applied);
    case FR_RESULT:
        return forward_result(d, &f->result);
    case FR_MEMBER_CHANGE:
        membership_gateway_asks(d, link_slot(l), &f->member_change);
        return 0;
    case FR_MOVE_LEADER:
        membership_gateway_moves(d, link_slot(l), &f->move_leader);
        return 0;
    default:
        return E_MALFORMED;
    }
}

/* Stored says where it stands. A store ahead of the log, or behind its start, is not of this log's making: to go on
 * would be to guess, so nobody is served until an operator has put the matching pair back. */
static int in_stored_up(struct raftd *d, const struct fr_hello *hello)
{
    uint64_t first = wal_first_index(d->wal), last = raft_last_index(d->raft);

    if (hello->applied > last)
        fatalx("raftd: the store has applied entry %" PRIu64 ", but the log ends at %" PRIu64
               ": raft/ and store/ of %s do not belong together; restore both from the same time",
               hello->applied, last, d->conf.data_dir);
    if (hello->applied + 1 < first) {
        uint64_t swallowed;

        if (log_allow(&d->behind_limit, loop_now_ms(d->loop), &swallowed))
            log_error("raftd: the store has applied only up to entry %" PRIu64 ", but the log begins at %" PRIu64
                      ": raft/ and store/ of %s do not belong together; restore both from the same time",
                      hello->applied, first, d->conf.data_dir);
        return E_COMPACTED;
    }
    turn_clock(d->turn, loop_now_ms(d->loop));
    int err = turn_stored_up(d->turn, hello->applied, hello->durable);
    must(!err);
    log_info("raftd: stored is here, applied %" PRIu64 " of %" PRIu64 ", durable %" PRIu64, hello->applied, last,
             hello->durable);
    return 0;
}

static int in_up(struct link *l, const struct fr_hello *hello, void *arg)
{
    struct raftd *d = arg;

    d->tell[link_slot(l)] = true;
    forward_gateway_up(d, link_slot(l));
    if (link_slot(l) == LINK_SLOT_STORED)
        return in_stored_up(d, hello);
    log_info("raftd: %s is here", link_name(l));
    return 0;
}

static void in_down(struct link *l, void *arg)
{
    struct raftd *d = arg;

    log_info("raftd: %s is gone", link_name(l));
    if (link_slot(l) == LINK_SLOT_STORED)
        turn_stored_down(d->turn);
}

const struct link_ops in_ops = {.up = in_up, .down = in_down, .frame = in_frame};
