/* h2 - HTTP/2 on one connection (h2.c is the only file that knows nghttp2). No socket in it: bytes go in, bytes come out, so that
 * tests and the fuzzer drive it without one. */
#ifndef GATEWAYD_H2_H
#define GATEWAYD_H2_H

#include "gatewayd/gatewayd.h"

struct h2;

/* wants_write(arg) tells that h2_write has something new; it may come from any call of call.h. */
struct h2 *h2_new(struct gatewayd *g, void (*wants_write)(void *arg), void *arg);
void h2_set_client(struct h2 *h, const struct client *client); /* borrowed; before anything is received */
void h2_free(struct h2 *h); /* all its calls hear `closed` */

/* Bytes of the client, from its preface on. Non-zero: beyond repair, close after writing what h2_write still has. */
int h2_receive(struct h2 *h, struct slice bytes);
/* Appends to out what should be written now, until out->len >= max. Non-zero: close. */
int h2_write(struct h2 *h, struct buf *out, size_t max);
bool h2_has_output(const struct h2 *h);
bool h2_is_finished(const struct h2 *h); /* neither wants to read nor to write: close */

/* Server's keepalive: now is told often enough (any timer). Non-zero: the client did not answer in time, close. */
int h2_tick(struct h2 *h, uint64_t now_ms);
uint64_t h2_next_tick_ms(const struct h2 *h);

/* Graceful end: no new streams; streaming calls end with "server stopped", unary ones finish. */
void h2_shutdown(struct h2 *h);
size_t h2_call_count(const struct h2 *h);

#endif
