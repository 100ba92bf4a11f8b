/* wire - one nng PAIR0 socket as seen from the loop's thread (wire.c is the only file of links that knows nng).
 * link.c speaks HELLO and frames; the wire beneath it moves messages and says when a peer comes and goes.
 *
 * nng's callbacks run on nng's threads; they put events into a bounded inbox and wake the loop. wire_next hands
 * the events out in an order that link.c can trust: ATTACHED, MESSAGE*, DETACHED, again and again. Every message
 * between ATTACHED and DETACHED came from that peer, whatever nng still had queued from an earlier one. */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

#include "common/buf.h"
#include "common/loop.h"

struct wire;

enum wire_event_type { WIRE_ATTACHED, WIRE_MESSAGE, WIRE_DETACHED };

struct wire_event {
    enum wire_event_type type;
    struct slice bytes; /* MESSAGE: borrowed from handle */
    void *handle;       /* MESSAGE: for wire_release */
};

/* wake_cb is called on the loop's thread when wire_next has something, or when wire_can_send has become true after
 * it was false. fatalx() if url is not one. name is for logs, borrowed for the wire's life. */
struct wire *wire_new(struct loop *loop, const char *name, const char *url, bool listen, loop_wake_cb *wake_cb,
                      void *arg);
/* Listens or begins to dial. A dead process's ipc socket file is removed first; fatalx() if the address is taken. */
void wire_start(struct wire *w);
void wire_free(struct wire *w); /* at exit only */

/* The next event, in order. A MESSAGE stays valid until it is released; at most LINK_INBOX_MESSAGES_MAX messages are
 * held, then nng is left to push back to the peer. */
bool wire_next(struct wire *w, struct wire_event *event);
void wire_release(struct wire *w, struct wire_event *event);

/* Has wake_cb called again though nothing new came: the caller left something undone. */
void wire_wake(struct wire *w);

/* Is nothing on its way? If false, wake_cb is called once it has left. */
bool wire_can_send(struct wire *w);
/* Copies bytes into one message and sends it to the attached peer. Only when attached and wire_can_send. */
void wire_send(struct wire *w, struct slice bytes);

/* Closes the pipe to the attached peer, if any. No DETACHED follows, nor any message of that peer. */
void wire_detach(struct wire *w);

#endif
