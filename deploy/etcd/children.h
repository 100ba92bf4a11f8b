/* children - the three daemons as children of this process: started, watched, started again, stopped in order. */
#ifndef DROPIN_CHILDREN_H
#define DROPIN_CHILDREN_H

#include "deploy/etcd/node.h"

/* Runs them until a signal asks us to end, or one of them cannot go on. Returns the exit code; *signal is the signal that asked
 * (0: none). */
int children_run(const struct node *n, int *signal);

#endif
