/* index_inner - what index.c (the tree) and index_entry.c (one key's history) share. */
#ifndef STORED_INDEX_INNER_H
#define STORED_INDEX_INNER_H

#include "stored/index.h"

struct entry_more {
    int64_t lease;
    uint32_t version_high;
    uint32_t count, cap; /* older changes, count <= cap */
    struct change older[];
};

struct index_node;
struct index {
    struct index_node *root;
    struct index_totals totals;
};

struct entry *entry_new(struct index *ix, struct slice key);
void entry_free(struct index *ix, struct entry *e);
/* The latest joins the older ones and c takes its place. */
void entry_push(struct index *ix, struct entry *e, struct change c);
void entry_set_life(struct index *ix, struct entry *e, int64_t create, int64_t version, int64_t lease);
void entry_set_older(struct index *ix, struct entry *e, const struct change *older, size_t count);
/* Drops the first n older changes (n <= their count). */
void entry_drop_older(struct index *ix, struct entry *e, size_t n);

#endif
