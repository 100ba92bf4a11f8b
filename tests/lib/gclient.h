/* gclient - a small gRPC client over HTTP/2 (nghttp2), cleartext or TLS, for tests and the benchmark: what etcdctl cannot say,
 * and what it cannot say fast enough. Single-threaded and non-blocking inside; tests use the waiting forms. */
#ifndef TESTS_LIB_GCLIENT_H
#define TESTS_LIB_GCLIENT_H

#include "common/buf.h"

struct gclient;
struct gcall;
struct tls_context;

/* How a call ended: the gRPC status, or one of these when the connection said otherwise. */
enum { GCALL_STATUS_CONNECTION_LOST = -1, GCALL_STATUS_RESET = -2, GCALL_STATUS_NOT_GRPC = -3 };

struct gcall_ops {
    void (*message)(struct gcall *call, struct slice message, void *arg); /* borrowed; may be NULL */
    /* The last one heard of the call, which is freed afterwards. text: grpc-message, percent-decoded. */
    void (*end)(struct gcall *call, int status, const char *text, void *arg);
};

/* Connects (blocking). NULL if refused. */
struct gclient *gclient_connect(const char *host, int port);
/* The same by TLS; borrowed. NULL if refused, or if the handshake fails at our end or does not come about within 10 s. */
struct gclient *gclient_connect_tls(const char *host, int port, struct tls_context *tls);
void gclient_free(struct gclient *c); /* open calls end with CONNECTION_LOST first */

/* Starts a call; message is queued at once if not NULL data. half_close: no more messages follow. extra: name, value pairs
 * ended by NULL, or NULL. Returns NULL when the connection is gone. */
struct gcall *gcall_start(struct gclient *c, const char *path, struct slice message, bool half_close, const char *const *extra,
                          const struct gcall_ops *ops, void *arg);
void gcall_send(struct gcall *call, struct slice message);
void gcall_send_raw(struct gcall *call, struct slice bytes); /* without the 5-byte prefix: for bad input */
void gcall_half_close(struct gcall *call);
void gcall_cancel(struct gcall *call); /* RST_STREAM(CANCEL); end is still called */

/* For a caller's own poll loop. */
int gclient_fd(const struct gclient *c);
bool gclient_wants_write(const struct gclient *c);
bool gclient_lost(const struct gclient *c);
void gclient_readable(struct gclient *c); /* reads and handles what is there */
void gclient_flush(struct gclient *c);    /* writes what is queued, as far as the socket takes it */

/* Polls this connection for at most ms, or until *done becomes true. Returns *done. */
bool gclient_run(struct gclient *c, const bool *done, int ms);

/* A unary call, waited for. reply (may be NULL) is reset and filled with the response message; text (may be NULL) with
 * grpc-message. Returns the status; GCALL_STATUS_RESET after timeout_ms. */
int gclient_unary(struct gclient *c, const char *path, struct slice request, struct buf *reply, struct buf *text, int timeout_ms);

#endif
