/* in - every frame that raftd receives, from gatewayd/out.c and stored/out.c: checked here, once, and given to
 * turn.c as structs. What a sibling says wrongly closes its link (link.c logs it by name); what a client asked for too
 * much of is refused to the one who asked. */
#include "raftd/raftd.h"

#include <inttypes.h>

#include "common/err.h"
#include "raftd/snap.h"

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
        return compared_applied(d, &f->applied);
    case FR_RESULT:
        return forward_result(d, &f->result);
    case FR_MEMBER_CHANGE:
        membership_gateway_asks(d, link_slot(l), &f->member_change);
        return 0;
    case FR_MEMBER_STATUS:
        forward_status(d, link_slot(l), f->member_status.req, f->member_status.id);
        return 0;
    case FR_MOVE_LEADER:
        membership_gateway_moves(d, link_slot(l), &f->move_leader);
        return 0;
    default:
        return snap_stored_frame(d, f);
    }
}

static int in_up(struct link *l, const struct fr_hello *hello, void *arg)
{
    struct raftd *d = arg;

    d->tell[link_slot(l)] = true;
    forward_gateway_up(d, link_slot(l));
    if (link_slot(l) == LINK_SLOT_STORED)
        return snap_stored_up(d, hello->applied, hello->durable);
    log_info("raftd: %s is here", link_name(l));
    return 0;
}

static void in_down(struct link *l, void *arg)
{
    struct raftd *d = arg;

    log_info("raftd: %s is gone", link_name(l));
    if (link_slot(l) == LINK_SLOT_STORED) {
        compare_forget(&d->compare);
        snap_stored_down(d);
    }
}

const struct link_ops in_ops = {.up = in_up, .down = in_down, .frame = in_frame};
