/* queue - standing in line for a name: what Lock and Campaign share (spec/semantics.md §12, §13).
 *
 * Everybody in line has a key "name/" + hex(lease); the line is in the order of their create revisions, and whose is the lowest
 * has its turn. Each one waits for the deletion of the one key before its own and for nothing else, so a turn that ends wakes one.
 *
 *      GRANTING -> ENTERING -> [PROCLAIMING] -> LOOKING <-> WAITING      the call has its answer when its turn comes: the place is freed
 *      (lease 0)       '--nobody is before us--'    '------------'
 *                                     any of them -> LEAVING             the call went away or failed: what it left behind is deleted
 *
 * A place outlives its call: in GRANTING and ENTERING until it is known what to delete, in LEAVING until that was done. */
#ifndef GATEWAYD_QUEUE_H
#define GATEWAYD_QUEUE_H

#include "gatewayd/inner.h"

/* The lease of those who bring none; kept alive as long as the call waits. */
#define QUEUE_LEASE_S 60

struct place {
    struct slice key;    /* ours */
    int64_t rev;         /* its create revision */
    int64_t lease;
    struct slice entry;  /* ResponseHeader of the transaction that put it there, or found it */
    struct slice header; /* ResponseHeader of the last answer */
};

struct queue_kind {
    bool has_value;         /* a key of ours that is there already gets the value */
    const char *lost_text;  /* our key is gone: its lease has expired, or somebody has deleted it */
    void (*won)(struct call *c, const struct place *p); /* answers the call */
};

/* Ends the call, later, by won or with an error. lease 0: one of our own. Takes the call's state. */
void queue_join(struct call *c, const struct queue_kind *kind, struct slice name, int64_t lease, struct slice value);

#endif
