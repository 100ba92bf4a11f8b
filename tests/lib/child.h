/* child - runs a function in a process of its own and tells how it ended and what it said: for code that exits,
 * aborts or gives up rights. */
#ifndef TESTS_LIB_CHILD_H
#define TESTS_LIB_CHILD_H

#include "common/base.h"

#define CHILD_TEXT_BYTES_MAX 65536

struct child {
    int code;                       /* exit code; -1 if a signal ended it */
    int signal;                     /* 0 if it exited */
    char out[CHILD_TEXT_BYTES_MAX]; /* stdout and stderr, cut at the size */
    char err[CHILD_TEXT_BYTES_MAX];
};

/* Fills c. A body that returns exits with code 0. */
typedef void child_body_cb(void *arg);
void child_run(struct child *c, child_body_cb *body, void *arg);

#endif
