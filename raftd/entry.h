/* entry - one entry of the replicated log, counted, so that it travels from in.c to the log, to peers and to
 * stored without being copied. Immutable once it is in the log. Counts are atomic: the log's thread reads entries. */
#ifndef RAFTD_ENTRY_H
#define RAFTD_ENTRY_H

#include "common/base.h"
#include "common/buf.h"

enum entry_kind {
    ENTRY_NOOP = 0,    /* a leader's first entry of its term */
    ENTRY_COMMAND = 1, /* proto/command.h; raftd never looks inside */
    ENTRY_CONF = 2,    /* a change of membership: raftd/raft_conf.c */
};

struct entry {
    uint64_t index; /* 0 until it joins the log */
    uint64_t term;
    uint32_t kind; /* enum entry_kind */
    uint32_t refs; /* atomic */
    size_t len;
    uint8_t data[];
};

struct entry *entry_new(enum entry_kind kind, struct slice data); /* copies data; one reference */
struct entry *entry_ref(struct entry *e);
void entry_unref(struct entry *e); /* NULL is fine */
static inline struct slice entry_data(const struct entry *e) { return slice_of(e->data, e->len); }

#endif
