/* priv - giving up rights, once, in main.c, after what needs them has been opened. */
#ifndef COMMON_PRIV_H
#define COMMON_PRIV_H

#include "common/base.h"

/* Creates dir (and what is missing above it) and, when we are root and user is not empty, gives it to user: so
 * that after priv_drop the daemon can write there. 0 or a negative code with errno kept. */
int priv_mkdir(const char *dir, unsigned mode, const char *user);

/* When started as root and user is not empty: changes to /, to the user's groups, group and user, for good.
 * Always: no new privileges by exec, umask 077, core dumps stay possible. user is borrowed, "" for none.
 * Ends the process if a right that should go does not go, or if there is no such user. */
void priv_drop(const char *user);

/* Raises the soft limit of open files to the hard one. Never lowers; a failure is logged only. */
void priv_limits(void);

#endif
