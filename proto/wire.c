/* wire - see wire.h. Input: nng's threads; output: events for link.c on the loop's thread, and messages.
 *
 * What nng tells, and when (its threads): ADD_PRE before a pipe may carry anything, ADD_POST when it does, a message
 * through the receive aio, REM_POST when it is gone. Two orders are not guaranteed, and both are sorted out here:
 * a message may overtake the ADD_POST of its pipe, and a pipe's last messages may come after the next one's ADD_POST.
 * So ADD_PRE makes a pipe a *candidate*; the first ADD_POST or message of a candidate attaches it; messages of
 * any other pipe are of the past and dropped. PAIR0 refuses a second peer after ADD_PRE: it stays a candidate until its
 * REM_POST and is never seen by link.c.
 *
 * nng hands a message that could not leave to the next peer. One of our messages must reach the peer it was
 * made for or none, so the send is aborted when its pipe goes.
 *
 * Facts about nng 1.5.2 behind this (spec/libraries.md): messages are built whole or by append, sockets are closed
 * at exit only and by one thread, an aio is stopped before it is freed. */
#include "proto/wire.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>

#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/wire_end.h"

/* Pipes between ADD_PRE and ADD_POST or REM_POST: peers that nng is refusing this moment. More than these at once are a
 * flood on a taken slot; the oldest is forgotten. */
#define CANDIDATES_MAX 16
/* Pipes that may come and go before the loop's thread hears of the first one's end. */
#define GONE_PIPES 8

enum raw_type { RAW_ADD_PRE, RAW_ADD_POST, RAW_REM_POST, RAW_MESSAGE };

struct raw_event {
    enum raw_type type;
    uint32_t pipe; /* nng's id of it */
    nng_msg *msg;  /* RAW_MESSAGE */
};

struct raw_list {
    struct raw_event *events;
    size_t count, cap;
};

struct wire {
    const char *name;
    struct loop *loop;
    struct loop_wake *wake;
    struct loop_timer *check_timer; /* runs while no peer is attached */

    nng_socket socket;
    struct wire_end end;
    nng_aio *recv_aio;
    nng_aio *send_aio;

    /* Between nng's threads and the loop's, under mutex. */
    pthread_mutex_t mutex;
    struct raw_list inbox;
    size_t held_count; /* messages in inbox, in taken, or with link.c */
    size_t held_bytes;
    bool is_receiving; /* recv_aio is armed; false only while the inbox is full, and at the end */

    /* The loop's thread only. */
    struct raw_list taken; /* swapped out of the inbox; taken_pos is the next one */
    size_t taken_pos;
    uint32_t pipe; /* attached peer, 0 if none */
    uint32_t candidates[CANDIDATES_MAX];
    size_t candidate_count;

    /* Sending. send_mutex keeps an abort from hitting a later message than the one it is for, and a message
     * from being sent for a pipe whose end the loop has not heard of yet. */
    pthread_mutex_t send_mutex;
    uint32_t send_pipe;         /* whom the message on its way is for */
    uint32_t gone[GONE_PIPES];  /* the last ones that nng removed; a ring */
    unsigned gone_next;
    atomic_bool is_sending;
    atomic_bool wants_wake; /* the loop has more to send */
};

static void must_nng(int err, const char *what, const char *name)
{
    if (err != 0)
        fatalx("link: %s: %s: %s", name, what, nng_strerror(err));
}

/* --- nng's threads ------------------------------------------------------------------------------ */

static bool wire_has_room(const struct wire *w)
{
    return w->held_count < LINK_INBOX_MESSAGES_MAX && w->held_bytes < LINK_PENDING_BYTES_MAX;
}

/* Under mutex. True if the loop must be woken: it sleeps only on an empty inbox. */
static bool inbox_add(struct wire *w, struct raw_event event)
{
    struct raw_list *in = &w->inbox;

    if (in->count == in->cap) {
        in->cap = MAX(in->cap * 2, (size_t)16);
        in->events = xrealloc(in->events, in->cap * sizeof(*in->events));
    }
    in->events[in->count++] = event;
    return in->count == 1;
}

static void pipe_event(struct wire *w, enum raw_type type, nng_pipe pipe)
{
    pthread_mutex_lock(&w->mutex);
    bool wake = inbox_add(w, (struct raw_event){.type = type, .pipe = pipe.id});
    pthread_mutex_unlock(&w->mutex);
    if (wake)
        loop_wake(w->wake);
}

/* The pipe is gone. Ends the message on its way if it is for this pipe: nng would give it to the next peer. */
static void send_abort(struct wire *w, uint32_t pipe)
{
    pthread_mutex_lock(&w->send_mutex);
    w->gone[w->gone_next++ % GONE_PIPES] = pipe;
    if (atomic_load(&w->is_sending) && w->send_pipe == pipe)
        nng_aio_abort(w->send_aio, NNG_ECONNRESET);
    pthread_mutex_unlock(&w->send_mutex);
}

static void pipe_cb(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct wire *w = arg;

    switch (event) {
    case NNG_PIPE_EV_ADD_PRE:
        pipe_event(w, RAW_ADD_PRE, pipe);
        break;
    case NNG_PIPE_EV_ADD_POST:
        pipe_event(w, RAW_ADD_POST, pipe);
        break;
    case NNG_PIPE_EV_REM_POST:
        send_abort(w, pipe.id);
        pipe_event(w, RAW_REM_POST, pipe);
        break;
    default:
        break;
    }
}

static void recv_cb(void *arg)
{
    struct wire *w = arg;
    int err = nng_aio_result(w->recv_aio);
    bool wake = false;
    bool again = true;

    if (err == NNG_ECLOSED || err == NNG_ECANCELED)
        return; /* wire_free */
    if (err == 0) {
        nng_msg *msg = nng_aio_get_msg(w->recv_aio);

        pthread_mutex_lock(&w->mutex);
        wake = inbox_add(w, (struct raw_event){RAW_MESSAGE, nng_msg_get_pipe(msg).id, msg});
        w->held_count++;
        w->held_bytes += nng_msg_len(msg);
        again = w->is_receiving = wire_has_room(w);
        pthread_mutex_unlock(&w->mutex);
    }
    if (wake)
        loop_wake(w->wake);
    if (again)
        nng_recv_aio(w->socket, w->recv_aio);
}

/* Takes no lock: nng may call it from within wire_send or send_abort. */
static void send_cb(void *arg)
{
    struct wire *w = arg;

    if (nng_aio_result(w->send_aio) != 0) {
        nng_msg_free(nng_aio_get_msg(w->send_aio));
        nng_aio_set_msg(w->send_aio, NULL);
    }
    atomic_store(&w->is_sending, false);
    if (atomic_exchange(&w->wants_wake, false))
        loop_wake(w->wake);
}

/* --- receiving, on the loop's thread -------------------------------------------------------------- */

static void candidate_add(struct wire *w, uint32_t pipe)
{
    if (w->candidate_count == CANDIDATES_MAX) {
        memmove(w->candidates, w->candidates + 1, sizeof(w->candidates) - sizeof(w->candidates[0]));
        w->candidate_count--;
    }
    w->candidates[w->candidate_count++] = pipe;
}

static bool candidate_take(struct wire *w, uint32_t pipe)
{
    for (size_t i = 0; i < w->candidate_count; i++) {
        if (w->candidates[i] == pipe) {
            w->candidates[i] = w->candidates[--w->candidate_count];
            return true;
        }
    }
    return false;
}

static struct raw_event *raw_peek(struct wire *w)
{
    if (w->taken_pos == w->taken.count) {
        struct raw_list empty = w->taken;

        empty.count = 0;
        w->taken_pos = 0;
        pthread_mutex_lock(&w->mutex);
        w->taken = w->inbox;
        w->inbox = empty;
        pthread_mutex_unlock(&w->mutex);
    }
    return w->taken_pos < w->taken.count ? &w->taken.events[w->taken_pos] : NULL;
}

static void held_release(struct wire *w, nng_msg *msg)
{
    bool again = false;

    pthread_mutex_lock(&w->mutex);
    w->held_count--;
    w->held_bytes -= nng_msg_len(msg);
    if (!w->is_receiving && wire_has_room(w))
        again = w->is_receiving = true;
    pthread_mutex_unlock(&w->mutex);
    nng_msg_free(msg);
    if (again)
        nng_recv_aio(w->socket, w->recv_aio);
}

/* At whole multiples, so that all wires that wait are checked in one turn. */
static void check_soon(struct wire *w)
{
    loop_timer_set(w->check_timer, (loop_now_ms(w->loop) / WIRE_CHECK_MS + 1) * WIRE_CHECK_MS);
}

static void check_cb(void *arg, uint64_t now_ms)
{
    struct wire *w = arg;

    if (w->pipe != 0)
        return; /* until it is gone: wire_is_alone */
    if (w->candidate_count == 0)
        wire_end_check(&w->end, now_ms);
    check_soon(w);
}

static void wire_is_alone(struct wire *w)
{
    w->pipe = 0;
    check_soon(w);
}

/* A pipe's first sign of life. PAIR0 has one pipe at a time, so a former one is gone even if its REM_POST is late:
 * then DETACHED comes first and the sign is looked at again. */
static void wire_attach(struct wire *w, uint32_t pipe, struct wire_event *event)
{
    if (w->pipe != 0) {
        wire_is_alone(w);
        event->type = WIRE_DETACHED;
        return;
    }
    candidate_take(w, pipe);
    w->pipe = pipe;
    event->type = WIRE_ATTACHED;
}

static bool is_candidate(const struct wire *w, uint32_t pipe)
{
    for (size_t i = 0; i < w->candidate_count; i++) {
        if (w->candidates[i] == pipe)
            return true;
    }
    return false;
}

bool wire_next(struct wire *w, struct wire_event *event)
{
    struct raw_event *raw;

    *event = (struct wire_event){0};
    while ((raw = raw_peek(w)) != NULL) {
        if ((raw->type == RAW_MESSAGE || raw->type == RAW_ADD_POST) && is_candidate(w, raw->pipe)) {
            wire_attach(w, raw->pipe, event);
            return true; /* raw stays: the message follows, an ADD_POST is ignored then */
        }
        w->taken_pos++;
        switch (raw->type) {
        case RAW_ADD_PRE:
            candidate_add(w, raw->pipe);
            break;
        case RAW_ADD_POST:
            break; /* attached by its first message, or already removed */
        case RAW_REM_POST:
            candidate_take(w, raw->pipe);
            if (raw->pipe == w->pipe) {
                wire_is_alone(w);
                event->type = WIRE_DETACHED;
                return true;
            }
            break;
        case RAW_MESSAGE:
            if (raw->pipe == w->pipe) {
                event->type = WIRE_MESSAGE;
                event->bytes = slice_of(nng_msg_body(raw->msg), nng_msg_len(raw->msg));
                event->handle = raw->msg;
                return true;
            }
            held_release(w, raw->msg); /* of a peer that is gone or was refused */
            break;
        }
    }
    return false;
}

void wire_release(struct wire *w, struct wire_event *event)
{
    held_release(w, event->handle);
    *event = (struct wire_event){0};
}

void wire_wake(struct wire *w)
{
    loop_wake(w->wake);
}

/* --- sending, on the loop's thread ---------------------------------------------------------------- */

bool wire_can_send(struct wire *w)
{
    if (!atomic_load(&w->is_sending))
        return true;
    /* Say so first, then look again: send_cb does these two the other way round, so one of us sees the other. */
    atomic_store(&w->wants_wake, true);
    if (atomic_load(&w->is_sending))
        return false;
    atomic_store(&w->wants_wake, false);
    return true;
}

/* Under send_mutex. */
static bool pipe_is_gone(const struct wire *w, uint32_t pipe)
{
    for (size_t i = 0; i < GONE_PIPES; i++) {
        if (w->gone[i] == pipe)
            return true;
    }
    return false;
}

void wire_send(struct wire *w, struct slice bytes)
{
    nng_msg *msg = NULL;

    must(w->pipe != 0);
    must(!atomic_load(&w->is_sending));
    must_nng(nng_msg_alloc(&msg, bytes.len), "message", w->name);
    memcpy(nng_msg_body(msg), bytes.data, bytes.len);

    pthread_mutex_lock(&w->send_mutex);
    bool is_gone = pipe_is_gone(w, w->pipe);
    if (!is_gone) {
        w->send_pipe = w->pipe;
        atomic_store(&w->is_sending, true);
        nng_aio_set_msg(w->send_aio, msg);
        nng_send_aio(w->socket, w->send_aio);
    }
    pthread_mutex_unlock(&w->send_mutex);
    if (is_gone)
        nng_msg_free(msg); /* DETACHED is about to say so */
}

void wire_detach(struct wire *w)
{
    if (w->pipe == 0)
        return;
    send_abort(w, w->pipe);
    nng_pipe_close((nng_pipe){.id = w->pipe});
    wire_is_alone(w);
}

/* --- beginning and end ---------------------------------------------------------------------------- */

static void socket_open(struct wire *w)
{
    must_nng(nng_pair0_open(&w->socket), "socket", w->name);
    /* Small, so that what waits gathers into batches in link.c and back-pressure is felt at once. */
    must_nng(nng_socket_set_int(w->socket, NNG_OPT_SENDBUF, 0), "send buffer", w->name);
    must_nng(nng_socket_set_int(w->socket, NNG_OPT_RECVBUF, 0), "receive buffer", w->name);
    must_nng(nng_socket_set_size(w->socket, NNG_OPT_RECVMAXSZ, LINK_MESSAGE_BYTES_MAX), "size limit", w->name);
    must_nng(nng_socket_set_ms(w->socket, NNG_OPT_RECONNMINT, LINK_RETRY_MS_MIN), "retry delay", w->name);
    must_nng(nng_socket_set_ms(w->socket, NNG_OPT_RECONNMAXT, LINK_RETRY_MS_MAX), "retry delay", w->name);
    for (int event = NNG_PIPE_EV_ADD_PRE; event <= NNG_PIPE_EV_REM_POST; event++)
        must_nng(nng_pipe_notify(w->socket, (nng_pipe_ev)event, pipe_cb, w), "pipe events", w->name);
    must_nng(nng_aio_alloc(&w->recv_aio, recv_cb, w), "aio", w->name);
    must_nng(nng_aio_alloc(&w->send_aio, send_cb, w), "aio", w->name);
    nng_aio_set_timeout(w->recv_aio, NNG_DURATION_INFINITE);
    nng_aio_set_timeout(w->send_aio, NNG_DURATION_INFINITE);
}

struct wire *wire_new(struct loop *loop, const char *name, const char *url, bool listen, loop_wake_cb *wake_cb,
                      void *arg)
{
    struct wire *w = xcalloc(1, sizeof(*w));

    w->name = name;
    w->loop = loop;
    w->check_timer = loop_timer_new(loop, check_cb, w);
    w->wake = loop_wake_new(loop, wake_cb, arg);
    must(pthread_mutex_init(&w->mutex, NULL) == 0);
    must(pthread_mutex_init(&w->send_mutex, NULL) == 0);
    socket_open(w);
    wire_end_init(&w->end, name, url, listen, w->socket);
    return w;
}

void wire_start(struct wire *w)
{
    w->is_receiving = true;
    nng_recv_aio(w->socket, w->recv_aio);
    wire_end_start(&w->end);
    check_soon(w);
}

static void raw_list_fini(struct raw_list *list, size_t pos)
{
    for (size_t i = pos; i < list->count; i++) {
        if (list->events[i].type == RAW_MESSAGE)
            nng_msg_free(list->events[i].msg);
    }
    free(list->events);
}

void wire_free(struct wire *w)
{
    if (!w)
        return;
    nng_aio_stop(w->recv_aio);
    nng_aio_stop(w->send_aio);
    nng_close(w->socket);
    nng_aio_free(w->recv_aio);
    nng_aio_free(w->send_aio);
    raw_list_fini(&w->taken, w->taken_pos);
    raw_list_fini(&w->inbox, 0);
    pthread_mutex_destroy(&w->mutex);
    pthread_mutex_destroy(&w->send_mutex);
    loop_wake_free(w->wake);
    loop_timer_free(w->check_timer);
    wire_end_fini(&w->end);
    free(w);
}
