/* link - HELLO, frames, batches and their limits on top of a wire (see link.h for the machine and the promises).
 * In: messages from wire.c, cut into frames for the daemon's in.c. Out: frames from the daemon's out.c, gathered
 * into messages for wire.c.
 *
 *      from    to      by
 *      DOWN    HELLO   link_attached: a pipe is there; the listening end's HELLO is due
 *      HELLO   UP      hello_take: the peer's HELLO fits and `up` agreed; now the dialing end's HELLO is due
 *      HELLO   DOWN    link_close (refused, malformed, too late) or link_lost (pipe gone)
 *      UP      DOWN    the same two; `down` is called
 *
 * Pending bytes, with the cuts at which they may be parted into messages (each one at the end of a frame):
 *
 *      data   head          cuts[0]      cuts[1]   len        0 <= head <= cuts[i] < cuts[i+1] <= len
 *       |-sent-|-- message 1 --|-- message 2 --|-- rest --|   link_cut is the last cut, or head
 */
#include "proto/link.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/wire.h"

/* Memory that an idle link keeps after a burst. */
#define PENDING_KEEP_BYTES (4 * MIB)
/* Bytes already sent in front of the pending ones that are worth moving the rest for. */
#define PENDING_MOVE_BYTES (1 * MIB)
#define FRAME_TEXT_BYTES 256
#define REASON_BYTES 256
#define DRAIN_POLL_US 200
#define DRAIN_SETTLE_US 2000

struct link {
    struct loop *loop;
    struct wire *wire;
    const struct link_ops *ops;
    void *arg;
    char *name;
    enum role self, peer_role;
    unsigned slot;
    bool speaks_first; /* the listening end */

    enum link_state state;
    struct fr_hello hello; /* what we say */
    struct fr_hello peer;  /* what the peer said; valid when UP */
    struct loop_timer *hello_timer; /* no HELLO in time; or the end of a refused one */
    bool is_refused; /* the HELLO did not fit: nothing more is heard until the pipe is closed */
    bool is_paused;

    /* Out. */
    bool hello_due; /* our HELLO goes before anything else */
    uint64_t seq_out;
    struct buf pending;
    size_t head;  /* bytes of pending that are sent */
    size_t *cuts; /* cut_first <= i < cut_count are ahead of head */
    size_t cut_first, cut_count, cut_cap;
    size_t last_cut;
    bool is_full; /* from LINK_PENDING_BYTES_MAX until half of it has left */

    /* In. */
    bool has_message; /* `message` is being handed up; `rest` of it is still to do */
    struct wire_event message;
    struct slice rest;
    uint64_t seq_in;

    struct link_stats stats;
    struct log_limit refused_limit;
};

static bool is_tracing(void)
{
    return log_get_level() >= LOG_L_TRACE;
}

static void frame_trace(const struct link *l, const char *way, const struct frame *frame)
{
    char text[FRAME_TEXT_BYTES];

    frame_show(frame, text, sizeof(text));
    log_trace("link: %s %s %s", l->name, way, text);
}

/* --- pending bytes ------------------------------------------------------------------------------ */

static void pending_reset(struct link *l)
{
    if (l->pending.cap > PENDING_KEEP_BYTES)
        buf_fini(&l->pending);
    buf_reset(&l->pending);
    l->head = 0;
    l->last_cut = 0;
    l->cut_first = 0;
    l->cut_count = 0;
}

static void cut_add(struct link *l, size_t at)
{
    if (at == l->last_cut)
        return;
    if (l->cut_count == l->cut_cap) {
        l->cut_cap = MAX(l->cut_cap * 2, (size_t)16);
        l->cuts = xrealloc(l->cuts, l->cut_cap * sizeof(*l->cuts));
    }
    l->cuts[l->cut_count++] = at;
    l->last_cut = at;
}

/* A frame was appended at start. A message closes when it has reached the soft size; a frame that is larger
 * than that goes alone, so a message is either one frame or smaller than twice the soft size. */
static void pending_cut(struct link *l, size_t start)
{
    must(l->pending.len - start <= LINK_MESSAGE_BYTES_MAX);
    if (l->pending.len - start > LINK_MESSAGE_BYTES_SOFT)
        cut_add(l, start);
    if (l->pending.len - l->last_cut >= LINK_MESSAGE_BYTES_SOFT)
        cut_add(l, l->pending.len);
}

/* Moves the bytes that wait to the front, now and then, and drops the cuts that are behind. */
static void pending_move(struct link *l)
{
    if (l->head == l->pending.len) {
        pending_reset(l);
        return;
    }
    if (l->head < PENDING_MOVE_BYTES || l->head < l->pending.len / 2)
        return;
    l->cut_count -= l->cut_first;
    for (size_t i = 0; i < l->cut_count; i++)
        l->cuts[i] = l->cuts[l->cut_first + i] - l->head;
    l->cut_first = 0;
    l->last_cut -= l->head;
    buf_consume(&l->pending, l->head);
    l->head = 0;
}

size_t link_pending_bytes(const struct link *l)
{
    return l->pending.len - l->head;
}

/* --- sending ------------------------------------------------------------------------------------ */

static void message_send(struct link *l, struct slice bytes)
{
    l->stats.messages_out++;
    l->stats.bytes_out += bytes.len;
    wire_send(l->wire, bytes);
}

static void hello_send(struct link *l)
{
    struct frame frame = {.type = FR_HELLO, .seq = 0, .hello = l->hello};
    struct buf out = BUF_INIT;

    l->hello_due = false;
    frame_encode(&out, &frame);
    l->stats.frames_out++;
    if (is_tracing())
        frame_trace(l, "<-", &frame);
    message_send(l, buf_slice(&out));
    buf_fini(&out);
}

static void pending_send(struct link *l)
{
    size_t end = l->pending.len;

    if (l->cut_first < l->cut_count)
        end = l->cuts[l->cut_first++];
    else
        l->last_cut = end;
    message_send(l, slice_of(l->pending.data + l->head, end - l->head));
    l->head = end;
    pending_move(l);
    if (l->is_full && link_pending_bytes(l) <= LINK_PENDING_BYTES_MAX / 2) {
        l->is_full = false;
        if (l->ops->drained)
            l->ops->drained(l, l->arg);
    }
}

static bool link_has_to_speak(const struct link *l)
{
    return l->state != LINK_DOWN && (l->hello_due || (l->state == LINK_UP && link_pending_bytes(l) > 0));
}

/* The end of every turn. wire_can_send asks for a wake when it says no, so what is left goes then. */
static void link_speak_cb(void *arg)
{
    struct link *l = arg;

    while (link_has_to_speak(l) && wire_can_send(l->wire)) {
        if (l->hello_due)
            hello_send(l);
        else
            pending_send(l);
    }
}

void link_send(struct link *l, const struct frame *frame)
{
    if (l->state != LINK_UP)
        return;
    must(frame_may(frame->type, l->self, (enum role)l->peer.role));

    struct frame numbered = *frame;
    size_t start = l->pending.len;

    numbered.seq = l->seq_out++;
    frame_encode(&l->pending, &numbered);
    pending_cut(l, start);
    l->stats.frames_out++;
    if (link_pending_bytes(l) >= LINK_PENDING_BYTES_MAX)
        l->is_full = true;
    if (is_tracing())
        frame_trace(l, "<-", &numbered);
    loop_turn_again(l->loop);
}

bool link_is_full(const struct link *l)
{
    return l->is_full;
}

void link_drain(struct link *l, unsigned ms)
{
    uint64_t deadline_ms = clock_now_ms() + ms;

    link_speak_cb(l);
    while (l->state == LINK_UP && (link_pending_bytes(l) > 0 || !wire_can_send(l->wire))) {
        if (clock_now_ms() >= deadline_ms)
            return;
        usleep(DRAIN_POLL_US);
        link_speak_cb(l);
    }
    /* nng says "sent" when its transport has the message; a moment for the write itself. */
    if (l->state == LINK_UP)
        usleep(DRAIN_SETTLE_US);
}

/* --- states ------------------------------------------------------------------------------------- */

static void link_attached(struct link *l)
{
    must(l->state == LINK_DOWN);
    log_debug("link: %s: attached", l->name);
    l->state = LINK_HELLO;
    l->seq_out = 1; /* 0 is the HELLO, which may leave after frames were queued behind it */
    l->seq_in = 0;
    l->hello_due = l->speaks_first;
    pending_reset(l);
    loop_timer_set(l->hello_timer, loop_now_ms(l->loop) + LINK_HELLO_MS_MAX);
    loop_turn_again(l->loop);
}

/* The pipe is gone, by whoever's doing. */
static void link_lost(struct link *l)
{
    enum link_state before = l->state;

    l->state = LINK_DOWN;
    l->hello_due = false;
    l->is_refused = false;
    l->is_full = false;
    l->peer = (struct fr_hello){0};
    pending_reset(l);
    loop_timer_stop(l->hello_timer);
    if (before == LINK_UP) {
        l->stats.downs++;
        log_info("link: %s: down", l->name);
        l->ops->down(l, l->arg);
    }
}

static void PRINTF_LIKE(3, 0) link_complain(struct link *l, uint64_t *counter, const char *fmt, va_list ap)
{
    uint64_t swallowed = 0;
    char reason[REASON_BYTES];

    (*counter)++;
    if (!log_allow(&l->refused_limit, loop_now_ms(l->loop), &swallowed))
        return;
    vsnprintf(reason, sizeof(reason), fmt, ap);
    log_warnx("link: %s: %s, closed (%" PRIu64 " more not logged)", l->name, reason, swallowed);
}

/* The peer is at fault: says so, counts it, closes the pipe. nng will let it, or another one, come again. */
static void PRINTF_LIKE(3, 4) link_close(struct link *l, uint64_t *counter, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    link_complain(l, counter, fmt, ap);
    va_end(ap);
    wire_detach(l->wire);
    link_lost(l);
}

/* The same for a HELLO that does not fit, but the pipe is closed only after a pause: the peer dials again at once, and will say
 * the same. Besides, nng 1.5.2 may wait for ever for a pipe that is closed while both ends are still saying HELLO. */
static void PRINTF_LIKE(2, 3) link_refuse(struct link *l, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    link_complain(l, &l->stats.refused_hellos, fmt, ap);
    va_end(ap);
    l->is_refused = true;
    l->hello_due = false;
    loop_timer_set(l->hello_timer, loop_now_ms(l->loop) + LINK_RETRY_MS_MAX);
}

static void hello_late_cb(void *arg, uint64_t now_ms)
{
    struct link *l = arg;

    UNUSED(now_ms);
    if (l->is_refused) {
        wire_detach(l->wire);
        link_lost(l);
    } else if (l->state == LINK_HELLO) {
        link_close(l, &l->stats.refused_hellos, "peer said no HELLO within %d ms", LINK_HELLO_MS_MAX);
    }
}

/* Why the HELLO does not fit, into reason; false if it does. */
static bool hello_is_refused(const struct link *l, const struct fr_hello *h, char *reason, size_t size)
{
    if (h->version != FRAMES_VERSION)
        snprintf(reason, size, "frame version %" PRIu64 ", ours is %d", h->version, FRAMES_VERSION);
    else if (h->role == 0 || (h->role & (h->role - 1)) != 0 || (h->role & (uint64_t)l->peer_role) != h->role)
        snprintf(reason, size, "role %" PRIu64 ", expected %d", h->role, (int)l->peer_role);
    else if (h->slot != l->slot)
        snprintf(reason, size, "slot %" PRIu64 ", this is slot %u", h->slot, l->slot);
    else if (h->cluster_id != 0 && l->hello.cluster_id != 0 && h->cluster_id != l->hello.cluster_id)
        snprintf(reason, size, "cluster %016" PRIx64 ", ours is %016" PRIx64, h->cluster_id, l->hello.cluster_id);
    else
        return false;
    return true;
}

static void hello_take(struct link *l, const struct frame *frame)
{
    char reason[REASON_BYTES];
    int err;

    if (hello_is_refused(l, &frame->hello, reason, sizeof(reason))) {
        link_refuse(l, "HELLO refused: %s", reason);
        return;
    }
    loop_timer_stop(l->hello_timer);
    if (!l->speaks_first)
        l->hello_due = true;
    l->peer = frame->hello;
    l->state = LINK_UP;
    err = l->ops->up(l, &l->peer, l->arg);
    if (err != 0) {
        l->state = LINK_HELLO; /* for the owner it never was up */
        link_refuse(l, "HELLO refused by us: %s", err_text(err));
        return;
    }
    log_info("link: %s: up, instance %016" PRIx64, l->name, frame->hello.instance);
}

/* --- receiving ---------------------------------------------------------------------------------- */

static void frame_take(struct link *l, const struct frame *frame)
{
    int err;

    l->stats.frames_in++;
    if (frame->seq != l->seq_in++) {
        link_close(l, &l->stats.malformed, "%s has seq %" PRIu64 ", expected %" PRIu64, frame_name(frame->type),
                   frame->seq, l->seq_in - 1);
    } else if (l->state == LINK_HELLO) {
        if (frame->type == FR_HELLO)
            hello_take(l, frame);
        else
            link_close(l, &l->stats.malformed, "%s before HELLO", frame_name(frame->type));
    } else if (frame->type == FR_HELLO) {
        link_close(l, &l->stats.malformed, "a second HELLO");
    } else if (!frame_may(frame->type, (enum role)l->peer.role, l->self)) {
        link_close(l, &l->stats.malformed, "%s is not for this peer to say", frame_name(frame->type));
    } else if ((err = l->ops->frame(l, frame, l->arg)) != 0 && l->state == LINK_UP) {
        link_close(l, &l->stats.malformed, "%s seq %" PRIu64 ": %s", frame_name(frame->type), frame->seq,
                   err_text(err));
    }
}

static bool link_is_held(const struct link *l)
{
    return l->is_paused && l->state == LINK_UP;
}

/* Hands up the frames of the message at hand until it ends, the pipe is closed, or the owner pauses. */
static void message_take(struct link *l)
{
    bool trace = is_tracing();
    struct frame frame;

    /* An owner that pauses at the last frame of a message still gets its batch_end. */
    while (l->state != LINK_DOWN && !l->is_refused && (l->rest.len == 0 || !link_is_held(l))) {
        int got = frame_decode(&l->rest, &frame);

        if (got == 0) {
            l->has_message = false;
            if (l->ops->batch_end && l->state == LINK_UP)
                l->ops->batch_end(l, l->arg);
            break;
        }
        if (got < 0) {
            link_close(l, &l->stats.malformed, "message of %zu bytes: %s at byte %zu", l->message.bytes.len,
                       err_text(got), l->message.bytes.len - l->rest.len);
            break;
        }
        if (trace)
            frame_trace(l, "->", &frame);
        frame_take(l, &frame);
    }
    if (l->state == LINK_DOWN || l->is_refused)
        l->has_message = false;
    if (!l->has_message)
        wire_release(l->wire, &l->message);
}

static void message_begin(struct link *l, const struct wire_event *event)
{
    l->message = *event;
    l->rest = event->bytes;
    l->has_message = true;
    l->stats.messages_in++;
    l->stats.bytes_in += event->bytes.len;
    if (event->bytes.len == 0 && !l->is_refused)
        link_close(l, &l->stats.malformed, "an empty message");
    message_take(l);
}

/* The wire has something, or can send again (then the turn's end does it). Takes no more than an inbox full at
 * a time, so that a fast peer does not keep the loop from its other duties. */
static void link_gather_cb(void *arg)
{
    struct link *l = arg;
    struct wire_event event;

    for (unsigned taken = 0; taken < LINK_INBOX_MESSAGES_MAX; taken++) {
        if (l->has_message)
            message_take(l);
        if (link_is_held(l) || !wire_next(l->wire, &event))
            return;
        if (event.type == WIRE_ATTACHED)
            link_attached(l);
        else if (event.type == WIRE_DETACHED)
            link_lost(l);
        else
            message_begin(l, &event);
    }
    wire_wake(l->wire);
}

void link_kick(struct link *l, const char *why)
{
    if (l->state == LINK_DOWN)
        return;
    log_info("link: %s: closed by us: %s", l->name, why);
    wire_detach(l->wire);
    link_lost(l);
    wire_wake(l->wire); /* what is left of a message goes */
}

void link_pause(struct link *l, bool paused)
{
    if (l->is_paused && !paused)
        wire_wake(l->wire);
    l->is_paused = paused;
}

/* --- life --------------------------------------------------------------------------------------- */

struct link *link_new(struct loop *loop, const struct link_conf *conf, const struct link_ops *ops, void *arg)
{
    struct link *l = xcalloc(1, sizeof(*l));

    l->loop = loop;
    l->ops = ops;
    l->arg = arg;
    l->name = xstrdup(conf->name);
    l->self = conf->self;
    l->peer_role = conf->peer;
    l->slot = conf->slot;
    l->speaks_first = conf->listen;
    l->hello_timer = loop_timer_new(loop, hello_late_cb, l);
    l->wire = wire_new(loop, l->name, conf->url, conf->listen, link_gather_cb, l);
    loop_on_turn_end(loop, link_speak_cb, l);
    link_set_hello(l, &(struct fr_hello){0});
    return l;
}

void link_free(struct link *l)
{
    if (!l)
        return;
    loop_off_turn_end(l->loop, link_speak_cb, l);
    if (l->has_message)
        wire_release(l->wire, &l->message);
    wire_free(l->wire);
    loop_timer_free(l->hello_timer);
    buf_fini(&l->pending);
    free(l->cuts);
    free(l->name);
    free(l);
}

void link_set_hello(struct link *l, const struct fr_hello *hello)
{
    l->hello = *hello;
    l->hello.version = FRAMES_VERSION;
    l->hello.role = l->self;
    l->hello.slot = l->slot;
}

void link_start(struct link *l)
{
    wire_start(l->wire);
}

enum link_state link_state(const struct link *l)
{
    return l->state;
}

const struct fr_hello *link_peer(const struct link *l)
{
    return l->state == LINK_UP ? &l->peer : NULL;
}

const char *link_name(const struct link *l)
{
    return l->name;
}

unsigned link_slot(const struct link *l)
{
    return l->slot;
}

const struct link_stats *link_stats(const struct link *l)
{
    return &l->stats;
}
