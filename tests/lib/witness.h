/* witness - a well-behaved client that looks on while others misbehave: after each abuse it still gets right answers, on its old
 * connection and on a new one, and all daemons are the processes that they were. */
#ifndef TESTS_LIB_WITNESS_H
#define TESTS_LIB_WITNESS_H

#include "tests/lib/node.h"

struct witness {
    struct node *node;
    struct gclient *client;
    long pids[3];
    unsigned count;
};

void witness_start(struct witness *w, struct node *n);
void witness_check(struct witness *w, const char *after); /* one CHECK or more */
void witness_stop(struct witness *w);

#endif
