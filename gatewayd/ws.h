/* ws - the WebSocket side of a request (RFC 6455; ws.c is the only file that knows wslay). Bytes in, messages out, and back. */
#ifndef GATEWAYD_WS_H
#define GATEWAYD_WS_H

#include "gatewayd/web.h"

struct ws;

/* Answers the handshake of w, whose carrier can switch protocols. message gets each whole text or binary message, borrowed. */
struct ws *ws_new(struct web *w, void (*message)(void *arg, struct slice text), void *arg);
void ws_free(struct ws *s);
int ws_receive(struct ws *s, struct slice bytes); /* E_MALFORMED: close after writing what there is */
void ws_send(struct ws *s, struct slice text);
size_t ws_queued(const struct ws *s); /* bytes of messages not yet given to ws_write's caller */
/* Appends what should be written now, about max bytes. */
void ws_write(struct ws *s, struct buf *out, size_t max);
void ws_close(struct ws *s); /* "normal closure", after what is queued */
bool ws_is_closed(const struct ws *s); /* nothing more in either direction */

/* Sec-WebSocket-Accept of a key: 28 characters. */
void ws_accept_of(struct slice key, char accept[29]);

#endif
