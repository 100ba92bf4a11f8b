/* mem - allocation that does not return NULL, and an arena for one request.
 * Out of memory ends the process (the supervisor restarts it); therefore sizes from outside are
 * compared with a named limit before they reach this file. Everything is released with free(). */
#ifndef COMMON_MEM_H
#define COMMON_MEM_H

#include "common/base.h"

void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *ptr, size_t size);
char *xstrdup(const char *s);
void *xmemdup(const void *data, size_t len); /* len 0 gives a valid, freeable pointer */
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* An arena hands out memory that is freed whole. It keeps a block over arena_reset, so that a small request in an
 * arena that is used again allocates nothing. Not thread-safe. */
struct arena_block;
struct arena {
    struct arena_block *blocks;
    uint8_t *next; /* next free byte of the current block */
    size_t left;   /* bytes left there */
    size_t total;  /* bytes handed out since the last reset */
};
void arena_init(struct arena *a);
void *arena_alloc(struct arena *a, size_t size); /* 16-byte aligned, uninitialised */
void *arena_zalloc(struct arena *a, size_t size);
void *arena_dup(struct arena *a, const void *data, size_t len);
void arena_reset(struct arena *a); /* everything handed out is invalid; keeps at most one block */
void arena_fini(struct arena *a);

#endif
