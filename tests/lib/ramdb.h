/* ramdb - stored/db.h in memory, for programs that link it in the place of db.c: a sorted table per directory name that
 * outlives db_close, as files would. What db_sync has not covered is lost by ramdb_power_cut, batch by batch, in any
 * pattern. One thread. */
#ifndef TESTS_LIB_RAMDB_H
#define TESTS_LIB_RAMDB_H

#include "common/base.h"

void ramdb_wipe(const char *dir);
/* While frozen, writes and syncs do nothing: what a killed process would not have done any more. */
void ramdb_freeze(const char *dir, bool frozen);
void ramdb_power_cut(const char *dir, bool (*keep)(void *arg), void *arg); /* keep: is this batch still there? */

#endif
