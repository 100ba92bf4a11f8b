/* offline - what stored does instead of being a daemon: `stored restore FILE` and `stored inspect FILE`. Both end the process. */
#ifndef STORED_OFFLINE_H
#define STORED_OFFLINE_H

#include "common/conf.h"
#include "stored/restore.h"

struct offline {
    const char *file; /* to be restored; NULL: none, be a daemon */
    bool skip_check;  /* of the digest */
    struct backup_file bytes;
};

/* Takes our words off the arguments; what is left is for opt.h. Does all of `inspect`. */
void offline_take(struct offline *o, int *argc, char **argv);
/* Opens and checks the file, and sees that there is no member in conf's data-dir yet. */
void offline_open(struct offline *o, const struct conf *conf);
int offline_restore(struct offline *o, const struct conf *conf); /* the exit code */

#endif
