/* perm - the union of key intervals that somebody may read, or write.
 * Filled from permissions in etcd's notation (key, range_end), merged once, then asked. Pure; used by auth.c and
 * authorize.c.
 *
 *   example     [a, c) and [c, f) and the single key f      merged: [a, f\0)
 *   asked       [b, e): yes. f: yes. [b, g): no, nobody granted g. [b, ...): no, only an open span holds an
 *               open request. */
#ifndef STORED_PERM_H
#define STORED_PERM_H

#include "common/buf.h"
#include "common/mem.h"

struct perm_span { /* begin <= x < end, or begin <= x when open */
    struct slice begin, end;
    bool open;
};

/* Merged: spans ascend, none is empty, and between any two there is a key that neither holds. */
struct perms {
    struct perm_span *spans;
    size_t count, cap;
    struct arena bytes;
};

void perms_init(struct perms *p);
void perms_fini(struct perms *p);
void perms_add(struct perms *p, struct slice key, struct slice range_end); /* copies; an empty interval adds nothing */
void perms_merge(struct perms *p); /* after the last one */
/* Is all of (key, range_end) inside? An interval that is empty (range_end <= key) must lie between keys that are. */
bool perms_cover(const struct perms *p, struct slice key, struct slice range_end);

#endif
