/* peer_msg - messages of the consensus core as frames, and back. A RAFT frame and the ENTRY frames of its append travel in
 * one message of peer.c: a receiver that sees one without the others has a peer that lies. */
#ifndef RAFTD_PEER_MSG_H
#define RAFTD_PEER_MSG_H

#include "common/buf.h"
#include "proto/frames.h"
#include "raftd/raft.h"

/* An append that is being put together. Zeroed: empty. */
struct peer_msg {
    struct raft_msg msg;
    struct entry **entries;
    size_t wanted, cap;
    bool open; /* entries are missing */
};

void peer_msg_fini(struct peer_msg *m);
void peer_msg_encode(struct buf *out, const struct raft_msg *m);
/* Takes a RAFT or ENTRY frame from member `from` to `to`. 1: m->msg is whole (until peer_msg_reset); 0: more must come;
 * E_MALFORMED: no honest peer says this. */
int peer_msg_add(struct peer_msg *m, uint64_t from, uint64_t to, const struct frame *f);
void peer_msg_reset(struct peer_msg *m); /* lets go of the entries */

#endif
