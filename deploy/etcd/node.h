/* node - what the three daemons are started with: etcd's flags as keys of common/conf.h, and the places on disk. */
#ifndef DROPIN_NODE_H
#define DROPIN_NODE_H

#include "common/conf.h"
#include "deploy/etcd/flags.h"

struct node {
    struct conf conf; /* as the daemons will see it */
    char **options;   /* --key=value, NULL-terminated, without argv[0] */
    size_t option_count;
};

/* Fills n from flags; makes nothing yet. E_INVALID: told in why. */
int node_init(struct node *n, const struct flags *f, struct buf *why);
void node_fini(struct node *n);
/* Makes data-dir and the directory of the sockets. E_INVALID, E_IO: told in why. */
int node_make_dirs(const struct node *n, struct buf *why);
/* The program beside us, or where it is installed. Given. NULL: nowhere. */
char *node_find_program(const char *name);

#endif
