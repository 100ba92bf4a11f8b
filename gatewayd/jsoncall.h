/* jsoncall - a call of the JSON gateway: between web.c's request and struct call. */
#ifndef GATEWAYD_JSONCALL_H
#define GATEWAYD_JSONCALL_H

#include "gatewayd/web.h"

void jsoncall_begin(struct web *w); /* w's path begins with /v3: answers at once, or sets w->json */
int jsoncall_body(struct json_call *j, struct slice bytes);
void jsoncall_body_end(struct json_call *j);
void jsoncall_raw(struct json_call *j, struct slice bytes);
void jsoncall_turn(struct json_call *j);
bool jsoncall_has_more(const struct json_call *j);
bool jsoncall_is_stream(const struct json_call *j);
void jsoncall_shutdown(struct json_call *j);
void jsoncall_close(struct json_call *j);

/* The two shapes of an error: of a whole answer, and in a stream. Old clients of the gateway read error, grpc_code, http_code; newer ones
 * code and message: both are there. */
void jsoncall_add_error(struct buf *out, int grpc_status, const char *text);
void jsoncall_add_stream_error(struct buf *out, int grpc_status, const char *text);

#endif
