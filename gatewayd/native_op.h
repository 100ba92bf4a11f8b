/* native_op - the operations of the native door: their names, messages, and the way each takes; and how a request is
 * read. Between native.c, which has the sockets, and pbmap.h, which has the messages. Pure: no socket, no state. */
#ifndef GATEWAYD_NATIVE_OP_H
#define GATEWAYD_NATIVE_OP_H

#include <protobuf-c/protobuf-c.h>

#include "common/buf.h"
#include "proto/command.h"

enum native_way {
    NATIVE_KV,      /* kv_submit */
    NATIVE_LEASE,   /* lease_submit */
    NATIVE_STATUS,  /* round the ring */
    NATIVE_QUERY,   /* the local store */
    NATIVE_ALARM,   /* a read, or a proposal */
    NATIVE_MEMBERS, /* what raftd told */
    NATIVE_CHANGE,  /* cluster_submit; kind is enum member_op */
    NATIVE_MOVE_LEADER,
    NATIVE_MEMBER_STATUS, /* ours: another member's status, asked by way of raftd */
    NATIVE_HISTORY, /* ours: past events */
};

struct native_op {
    const char *name;
    const ProtobufCMessageDescriptor *request, *response; /* response NULL: HISTORY makes its own map */
    enum native_way way;
    unsigned kind; /* enum command_kind */
};

size_t native_op_count(void);
const struct native_op *native_op_at(size_t pos);

/* Reads a request: a map with the key "op", and the fields of that operation's request message. On success *op is set
 * and body has the message's bytes, at most bytes_max. Else an error, and perhaps a sentence in why. */
int native_op_read(struct slice request, size_t bytes_max, const struct native_op **op, struct buf *body,
                   struct buf *why);

#endif
