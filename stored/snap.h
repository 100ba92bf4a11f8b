/* snap - snapshots through this stored: saving (parts of a consistent view, for another member) and loading (parts into a new
 * store, which then takes the place of ours). raftd gives the orders and the credit (in.c); it relays between nodes.
 *
 *   save   SNAP_SAVE -> SNAP_SAVED{index}, then for SNAP_MORE{until}: SNAP_PARTs below it, in order. A MORE with `again`
 *          goes back to its `from`: parts were lost. SNAP_DROP ends it.
 *   load   SNAP_LOAD -> SNAP_MORE{0, n}; a SNAP_PART that is the next one is written, and answered by SNAP_MORE when it is.
 *          Any other, and one whose checksum is wrong, is refused: SNAP_MORE with `again`. After the last one:
 *
 *          loading --last part written, read again--> closing --gateways gone, no job runs--> swapped, SNAP_LOADED
 *
 * One of each at a time. Apply and reads go on beside both, but for the moment of the swap. Gateways are sent away
 * before it and come back after it: they register their watches again and read what they missed as history. */
#ifndef STORED_SNAP_H
#define STORED_SNAP_H

#include "proto/frames.h"

struct stored;

/* Bytes of one part, and how many of them are under way between two stores. Together: the memory it takes on each of
 * four daemons, and what may stand before other frames on a link. */
#define SNAP_PART_BYTES ((size_t)512 * KIB)
#define SNAP_WINDOW 4

void snap_init(struct stored *s);
void snap_fini(struct stored *s); /* no worker job may be running */
int snap_frame(struct stored *s, const struct frame *f); /* SNAP_* from raftd */
void snap_raft_down(struct stored *s); /* whoever gave the orders is gone */
/* The store is changing hands, or is known to lack what it once told: gateways are not to be served. */
bool snap_is_closed(const struct stored *s);
/* After a change of that: gateways wait in front of the door, or come in. */
void snap_door(struct stored *s);
bool snap_is_loading(const struct stored *s); /* a snapshot is coming */
bool snap_is_swapping(const struct stored *s); /* no new jobs on the store, please */

#endif
