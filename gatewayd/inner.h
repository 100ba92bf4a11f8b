/* inner - what a call asks of the ring by itself, as a client of this gateway would: one request at a time, its answer in one
 * piece. Lock and Election are made of these. Errors of an inner request reach the client as status Unknown with etcd's text
 * (spec/semantics.md §13, §19.2), because etcd's own services are clients of their server too. */
#ifndef GATEWAYD_INNER_H
#define GATEWAYD_INNER_H

#include "gatewayd/gatewayd.h"

/* Embedded in what it works for. body and text are the answer, until the next request is sent. */
struct inner {
    struct gatewayd *g;
    uint64_t req; /* under way; 0: none */
    struct buf body, text;
    void (*done)(struct inner *in, int err);
    /* --- while it is asked whether who is still good --- */
    enum command_kind kind;
    struct buf user, request;
};

void inner_init(struct inner *in, struct gatewayd *g, void (*done)(struct inner *in, int err));
void inner_fini(struct inner *in); /* forgets what is under way */
/* who was resolved when the call began, and what is inside it may last: the user stays who he was, as long as his password is the
 * same, and stored asks what he may do by now. (A JWT tells the revision that it is good for.) Range, Put, DeleteRange, Txn,
 * LeaseGrant, LeaseRevoke, LeaseKeepAlive. 0, or an error at once, and then done is not called;
 * done is never called from within. It may send the next one. */
int inner_send(struct inner *in, const struct identity *who, enum command_kind kind, struct slice body);
/* The whole of a unary call: one request, whose answer reply turns into the call's response. It returns 0, or an error and perhaps a
 * text for it. Takes the call's state; `closed` is inner_closed. */
typedef int inner_reply(struct slice answer, struct buf *response, const char **text);
void inner_call(struct call *c, enum command_kind kind, struct slice body, inner_reply *reply);
/* Worth to ask again: a sibling or the leader is away, or all are busy. */
bool inner_may_retry(const struct inner *in, int err);
/* Ends the call as etcd would with an error of a request made inside. */
void inner_fail(struct call *c, int err, struct slice text);

/* --- answers: what is in body. Slices borrow it. --- */

struct inner_range {
    struct slice header; /* ResponseHeader */
    int64_t revision;    /* of it */
    struct slice kv;     /* the first mvccpb.KeyValue; empty: no key was found */
};
struct inner_txn {
    struct slice header;
    int64_t revision;
    bool succeeded;
    struct inner_range ranges[2]; /* of the first two operations, where they read */
};
/* false: not what was asked for. */
bool inner_range_decode(struct slice body, struct inner_range *r);
bool inner_txn_decode(struct slice body, struct inner_txn *t);

/* --- requests: keys of an election or lock --- */

/* The oldest key with this prefix, which must not end in 0xff; end is where the prefix ends, made by inner_prefix_end. */
struct api_range;
void inner_prefix_end(struct buf *end, struct slice prefix);
struct api_range inner_oldest(struct slice prefix, struct slice end);

#endif
