/* swap - a new store takes the place of the present one, by renames, whatever crash comes between them.
 * Inside DATA-DIR/store:
 *
 *   db/ SYNCED        the store
 *   new/db/           one that is being loaded; without meaning until it becomes
 *   next/             the rename new -> next decides: from here on the new store is the one
 *   old/              what was replaced, on its way out
 *   damaged-N/        what could not be opened, kept for whoever wants to look (N: seconds since 1970)
 */
#ifndef STORED_SWAP_H
#define STORED_SWAP_H

#include "common/base.h"

/* At start, before the store is opened: ends a swap that was decided, removes what is left of one that was not. fatal if
 * it cannot. */
void swap_recover(const char *store_dir);
/* Makes room for new/; returns the directory for its LevelDB. Given: free(). */
char *swap_prepare(const char *store_dir);
/* new/db is complete and durable, the present store is closed: it takes its place. fatal if it cannot. */
void swap_commit(const char *store_dir);
void swap_discard(const char *store_dir); /* what was loaded is not wanted */
/* Moves db/ and SYNCED out of the way; log names where to. fatal if it cannot. */
void swap_set_aside(const char *store_dir);

#endif
