/* raw - a client that says whatever it is told to, byte by byte: for tests of what must be refused. Sockets with a timeout, HTTP/2
 * frames built by hand (nghttp2 would not send the wrong ones), and what a test wants to know of the daemons: counters, memory, pids. */
#ifndef TESTS_LIB_RAW_H
#define TESTS_LIB_RAW_H

#include "common/buf.h"
#include "tests/lib/node.h"

/* --- bytes --- */
int raw_connect(const struct node *n);                 /* TCP to the client port; -1 if refused */
int raw_connect_unix(const char *path);                /* -1 if refused */
bool raw_send(int fd, struct slice bytes);             /* false: the other side has closed, or takes nothing for 2 s */
bool raw_send_str(int fd, const char *text);
/* Reads until the other side closes (true), or ms have passed. out may be NULL. */
bool raw_closed(int fd, struct buf *out, int ms);
/* Reads until out contains text (true), the other side closes, or ms have passed. */
bool raw_read_until(int fd, struct buf *out, const char *text, int ms);
/* One HTTP/1.1 request on a connection of its own; the whole answer. False if there was none. */
bool raw_http(const struct node *n, const char *request, struct buf *answer);

/* --- HTTP/2 --- */
enum { H2_DATA, H2_HEADERS, H2_PRIORITY, H2_RST_STREAM, H2_SETTINGS, H2_PUSH_PROMISE, H2_PING, H2_GOAWAY, H2_WINDOW_UPDATE, H2_CONTINUATION };
enum { H2_END_STREAM = 1, H2_ACK = 1, H2_END_HEADERS = 4 };
#define H2_NOTHING (-1)

/* What the server said on one connection. */
struct raw_h2 {
    int fd;
    struct buf in;         /* incomplete frame */
    void *inflater;        /* HPACK state */
    bool closed;
    int64_t goaway;        /* error code; H2_NOTHING: none */
    char goaway_text[64];
    unsigned frames, resets, setting_acks, ping_acks, responses, ended;
    int64_t reset_code;    /* of the last RST_STREAM */
    uint64_t data_bytes;
    int grpc_status;       /* of the last trailers; H2_NOTHING: none yet */
    char grpc_message[256]; /* as on the wire */
    char http_status[4];
};
void h2_open(struct raw_h2 *h, const struct node *n); /* preface and SETTINGS are sent */
void h2_close(struct raw_h2 *h);
void h2_frame(struct buf *out, unsigned type, unsigned flags, uint32_t stream, struct slice payload);
void h2_u32(struct buf *out, uint32_t v);
void h2_field(struct buf *block, const char *name, const char *value); /* literal, not indexed, no Huffman */
void h2_request(struct buf *block, const char *path);                  /* the headers of a gRPC request */
void h2_message(struct buf *out, uint32_t stream, unsigned flags, struct slice message); /* DATA frames with the 5-byte prefix */
bool h2_send(struct raw_h2 *h, struct buf *bytes);                     /* sends and resets bytes; false: closed */
/* Reads for at most ms, or until *count >= wanted (count NULL: the end). True if that was reached, or the end. */
bool h2_read(struct raw_h2 *h, const unsigned *count, unsigned wanted, int ms);

/* --- what is to be known --- */
int64_t node_metric(const struct node *n, const char *series); /* "name" or "name{labels}"; -1: not there */
/* Sum of all series that begin with prefix and contain part. */
int64_t node_metric_sum(const struct node *n, const char *prefix, const char *part);
long node_rss_mib(const struct node *n, const char *daemon);
bool node_is_sanitized(void); /* memory means nothing then */

#endif
