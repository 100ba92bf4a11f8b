/* call - the life of a call and what is to be sent on it: call.h's functions. Handlers above, the call's carrier below.
 * Calls come from a slab (g->free_calls) and keep their small buffers, so that a put allocates nothing here.
 * Holds at all times: queued = sum of the segments' bytes; bytes of own segments lie in `own` from own_off on, in order. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "gatewayd/grpc.h"

/* Buffers larger than this are given back when a call ends. */
#define CALL_KEEP_BYTES ((size_t)4096)
#define CALL_KEEP_SEGMENTS 8
/* Own bytes already sent are moved out of the way at this mark. */
#define CALL_COMPACT_BYTES (64 * KIB)
#define MESSAGE_SEND_BYTES_MAX ((size_t)INT32_MAX) /* grpc's own limit */

const struct client CLIENT_ANY = {.serves = SERVES_GRPC | SERVES_HTTP};

/* --- birth and death --------------------------------------------------------------------------- */

static void deadline_fired(struct deadline *d, uint64_t now_ms)
{
    UNUSED(now_ms);
    call_abort(container_of(d, struct call, deadline), E_DEADLINE_EXCEEDED, NULL);
}

struct call *call_open(struct gatewayd *g, const struct call_carrier *carrier, void *owner)
{
    if (g->call_count >= CALLS_MAX) {
        return NULL;
    }
    struct call *c = g->free_calls;
    if (c != NULL) {
        g->free_calls = c->next;
        g->free_call_count--;
    } else {
        c = xmalloc(sizeof(*c));
        c->in = c->held = c->own = c->user = BUF_INIT;
        c->segments = NULL;
        c->segment_cap = 0;
    }
    /* All but the memory that is kept. */
    struct buf in = c->in, held = c->held, own = c->own, user = c->user;
    struct segment *segments = c->segments;
    size_t segment_cap = c->segment_cap;
    *c = (struct call){
        .gateway = g,
        .carrier = carrier,
        .owner = owner,
        .client = &CLIENT_ANY,
        .opened_ms = gatewayd_now_ms(g),
        .deadline = {.fire = deadline_fired},
        .deadline_ms = UINT64_MAX,
        .in = in,
        .held = held,
        .own = own,
        .user = user,
        .segments = segments,
        .segment_cap = segment_cap,
        .http_status = 200,
    };
    g->call_count++;
    return c;
}

static void buf_keep_small(struct buf *b)
{
    if (b->cap > CALL_KEEP_BYTES) {
        buf_fini(b);
    } else {
        buf_reset(b);
    }
}

/* Every change of c->queued. */
static void queue_grow(struct call *c, size_t bytes)
{
    if (c->queued == 0) {
        c->taken_ms = gatewayd_now_ms(c->gateway);
    }
    c->queued += bytes;
    c->gateway->outbound_bytes += bytes;
    if (c->handler != NULL && !c->handler->client_stream) {
        c->carrier->answers_queued(c, bytes);
    }
}

static void queue_shrink(struct call *c, size_t bytes)
{
    c->queued -= bytes;
    c->gateway->outbound_bytes -= bytes;
    if (c->handler != NULL && !c->handler->client_stream) {
        c->carrier->answers_taken(c, bytes);
    }
}

static void segments_drop(struct call *c)
{
    for (size_t i = c->first_segment; i < c->segment_count; i++) {
        if (c->segments[i].shared != NULL) {
            shared_bytes_unref(c->segments[i].shared);
        }
    }
    queue_shrink(c, c->queued);
    c->first_segment = c->segment_count = 0;
    c->own_off = 0;
    buf_reset(&c->own);
}

static void inbound_drop(struct call *c)
{
    c->gateway->inbound_bytes -= c->in.len;
    buf_keep_small(&c->in);
}

void call_join_leader_list(struct call *c)
{
    c->leader_prev = NULL;
    c->leader_next = c->gateway->leader_calls;
    if (c->leader_next != NULL) {
        c->leader_next->leader_prev = c;
    }
    c->gateway->leader_calls = c;
    c->in_leader_list = true;
}

static void leader_list_leave(struct call *c)
{
    if (!c->in_leader_list) {
        return;
    }
    *(c->leader_prev != NULL ? &c->leader_prev->leader_next : &c->gateway->leader_calls) = c->leader_next;
    if (c->leader_next != NULL) {
        c->leader_next->leader_prev = c->leader_prev;
    }
    c->in_leader_list = false;
}

void call_told_closed(struct call *c)
{
    if (c->closed_told) {
        return;
    }
    c->closed_told = true;
    if (c->handler != NULL && c->handler->closed != NULL && c->headers_done) {
        c->handler->closed(c);
    }
    c->state = NULL;
}

void call_free(struct call *c)
{
    buf_fini(&c->in);
    buf_fini(&c->held);
    buf_fini(&c->own);
    buf_fini(&c->user);
    free(c->segments);
    free(c);
}

void call_close(struct call *c)
{
    struct gatewayd *g = c->gateway;
    if (c->handler != NULL && c->headers_done && !c->over) {
        stats_handled(g, c->handler, err_grpc_status(E_CANCELED)); /* the client went away */
    }
    c->over = true;
    call_told_closed(c);
    identity_leave(c);
    leader_list_leave(c);
    deadline_stop(g, &c->deadline);
    c->carrier->unlink(c);
    segments_drop(c);
    inbound_drop(c);
    buf_keep_small(&c->held);
    buf_keep_small(&c->own);
    buf_keep_small(&c->user);
    if (c->segment_cap > CALL_KEEP_SEGMENTS) {
        free(c->segments);
        c->segments = NULL;
        c->segment_cap = 0;
    }
    free(c->service_method);
    free(c->token);
    free(c->encoding);
    free(c->status_text);
    free(c->status_encoded);
    c->owner = NULL;
    must(g->call_count > 0);
    g->call_count--;
    if (g->free_call_count >= CALLS_KEPT_MAX) {
        call_free(c);
        return;
    }
    g->free_call_count++;
    c->next = g->free_calls;
    g->free_calls = c;
}

/* --- what handlers ask -------------------------------------------------------------------------- */

struct gatewayd *call_gateway(struct call *c) { return c->gateway; }
const struct call_handler *call_handler(const struct call *c) { return c->handler; }
void call_set_state(struct call *c, void *state) { c->state = state; }
void *call_state(const struct call *c) { return c->state; }
const struct client *call_client(const struct call *c) { return c->client; }
const struct identity *call_identity(const struct call *c) { return &c->identity; }
int call_identity_err(const struct call *c) { return c->identity_err; }
bool call_has_leader(const struct call *c) { return c->wants_leader; }
uint64_t call_deadline_ms(const struct call *c) { return c->deadline_ms; }
size_t call_queued_bytes(const struct call *c) { return c->queued; }
bool call_is_over(const struct call *c) { return c->over; }

bool call_is_crowded(const struct call *c)
{
    return c->carrier->answers_bytes(c) > H2_CONNECTION_ANSWERS_MAX || c->gateway->outbound_bytes > OUTBOUND_BYTES_MAX;
}

struct slice call_token(const struct call *c)
{
    return c->token != NULL ? slice_str(c->token) : SLICE_EMPTY;
}

struct slice call_common_name(const struct call *c)
{
    return c->client->common_name != NULL ? slice_str(c->client->common_name) : SLICE_EMPTY;
}

void call_pause(struct call *c, bool paused)
{
    if (c->paused == paused) {
        return;
    }
    c->paused = paused;
    if (!paused && c->login == NULL) {
        grpc_resume(c);
    }
}

/* --- the queue ---------------------------------------------------------------------------------- */

static void segment_add(struct call *c, struct shared_bytes *shared, size_t len)
{
    if (len == 0) {
        return;
    }
    queue_grow(c, len);
    c->above_low |= c->queued > CALL_QUEUE_LOW_BYTES;
    if (shared == NULL && c->segment_count > c->first_segment && c->segments[c->segment_count - 1].shared == NULL) {
        c->segments[c->segment_count - 1].len += len;
        return;
    }
    if (c->segment_count == c->segment_cap) {
        if (c->first_segment > c->segment_cap / 2) {
            memmove(c->segments, c->segments + c->first_segment,
                (c->segment_count - c->first_segment) * sizeof(*c->segments));
            c->segment_count -= c->first_segment;
            c->first_segment = 0;
        } else {
            c->segment_cap = c->segment_cap != 0 ? 2 * c->segment_cap : 4;
            c->segments = xrealloc(c->segments, c->segment_cap * sizeof(*c->segments));
        }
    }
    if (shared != NULL) {
        shared->refs++;
    }
    c->segments[c->segment_count++] = (struct segment){shared, len};
}

static void own_add(struct call *c, const void *data, size_t len)
{
    if (c->own_off >= CALL_COMPACT_BYTES && c->own_off >= c->own.len / 2) {
        buf_consume(&c->own, c->own_off);
        c->own_off = 0;
    }
    buf_add(&c->own, data, len);
    segment_add(c, NULL, len);
}

static void prefix_add(struct call *c, size_t len)
{
    must(len <= UINT32_MAX);
    uint8_t prefix[GRPC_PREFIX_BYTES] = {0, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
    own_add(c, prefix, sizeof(prefix));
    stats_sent(c->gateway, c->handler, len);
}

void call_send_raw(struct call *c, struct slice bytes) { own_add(c, bytes.data, bytes.len); }

void call_take(struct call *c, uint8_t *to, size_t len)
{
    must(len <= c->queued);
    queue_shrink(c, len);
    c->taken_ms = gatewayd_now_ms(c->gateway);
    while (len > 0) {
        struct segment *s = &c->segments[c->first_segment];
        size_t n = MIN(len, s->len);
        if (s->shared == NULL) {
            memcpy(to, c->own.data + c->own_off, n);
            c->own_off += n;
        } else {
            /* A shared segment always runs to the end of its bytes. */
            memcpy(to, s->shared->data + (s->shared->len - s->len), n);
        }
        s->len -= n;
        to += n;
        len -= n;
        if (s->len == 0) {
            if (s->shared != NULL) {
                shared_bytes_unref(s->shared);
            }
            c->first_segment++;
        }
    }
    if (c->queued == 0) {
        c->first_segment = c->segment_count = 0;
        c->own_off = 0;
        buf_reset(&c->own);
    }
    if (c->above_low && c->queued <= CALL_QUEUE_LOW_BYTES) {
        c->above_low = false;
        c->carrier->writable_later(c);
    }
}

void call_writable(struct call *c)
{
    if (!c->over && !c->closed_told && c->handler != NULL && c->handler->writable != NULL) {
        c->handler->writable(c);
    }
}

/* --- answers ------------------------------------------------------------------------------------- */

/* Decides how the call ends. What is queued is still sent before the trailers. */
static void call_finish(struct call *c, int status, const char *text)
{
    c->over = true;
    c->status = status;
    if (text != NULL && text[0] != '\0') {
        c->status_text = xstrdup(text);
    }
    deadline_stop(c->gateway, &c->deadline);
    if (c->handler != NULL) {
        stats_handled(c->gateway, c->handler, status);
        stats_took(c->gateway, c->handler, gatewayd_now_ms(c->gateway) - c->opened_ms);
        stats_answered(c->gateway, c->handler, gatewayd_now_ms(c->gateway) - c->opened_ms, status);
    }
    c->carrier->submit(c);
}

void call_reply(struct call *c, struct slice message)
{
    if (c->over) {
        return;
    }
    if (message.len > MESSAGE_SEND_BYTES_MAX) {
        call_reply_begin(c, message.len); /* refuses it */
        return;
    }
    prefix_add(c, message.len);
    own_add(c, message.data, message.len);
    call_finish(c, 0, NULL);
}

void call_reply_begin(struct call *c, size_t total)
{
    must(!c->replying);
    if (c->over) {
        return;
    }
    if (total > MESSAGE_SEND_BYTES_MAX) {
        char text[96];
        snprintf(text, sizeof(text), "trying to send message larger than max (%zu vs. %zu)", total, MESSAGE_SEND_BYTES_MAX);
        call_fail(c, E_TOO_BIG, text);
        return;
    }
    c->replying = true;
    c->reply_left = total;
    prefix_add(c, total);
    if (total == 0) {
        call_finish(c, 0, NULL);
    }
}

void call_reply_part(struct call *c, struct slice part)
{
    if (c->over) {
        return;
    }
    must(c->replying);
    if (part.len > c->reply_left) { /* the part comes from a sibling: its fault must not be ours */
        call_fail(c, E_MALFORMED, "answer is longer than its announced size");
        return;
    }
    c->reply_left -= part.len;
    own_add(c, part.data, part.len);
    if (c->reply_left == 0) {
        call_finish(c, 0, NULL);
    } else {
        c->carrier->submit(c);
    }
}

void call_fail(struct call *c, int err, const char *text)
{
    if (c->over) {
        return;
    }
    must(err != OK);
    segments_drop(c); /* an error comes at once; a message that was begun is worth nothing without its end */
    call_finish(c, err_grpc_status(err), text != NULL ? text : err_text(err));
}

void call_abort(struct call *c, int err, const char *text)
{
    call_fail(c, err, text);
    call_told_closed(c);
}

void call_end(struct call *c, int err, const char *text)
{
    if (c->over) {
        return;
    }
    if (err == OK) {
        call_finish(c, 0, NULL);
    } else {
        call_finish(c, err_grpc_status(err), text != NULL ? text : err_text(err));
    }
}

struct shared_bytes *shared_bytes_new(size_t len)
{
    struct shared_bytes *s = xmalloc(sizeof(*s) + len);
    s->refs = 1;
    s->len = len;
    return s;
}

void shared_bytes_unref(struct shared_bytes *s)
{
    if (s == NULL) {
        return;
    }
    must(s->refs > 0);
    if (--s->refs == 0) {
        free(s);
    }
}

void call_send(struct call *c, struct slice head, struct shared_bytes *const *pieces, size_t piece_count)
{
    if (c->over) {
        return;
    }
    size_t total = head.len;
    for (size_t i = 0; i < piece_count; i++) {
        total += pieces[i]->len;
    }
    prefix_add(c, total);
    own_add(c, head.data, head.len);
    for (size_t i = 0; i < piece_count; i++) {
        segment_add(c, pieces[i], pieces[i]->len);
    }
    c->carrier->submit(c);
}
