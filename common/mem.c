/* mem - malloc that ends the process instead of returning NULL, and the arena of one request.
 * No log call on the way out: that would need memory itself. */
#include "common/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Noreturn void out_of_memory(size_t size)
{
    char line[80];
    int len = snprintf(line, sizeof(line), "fatal: out of memory (%zu bytes wanted)\n", size);

    if (write(STDERR_FILENO, line, (size_t)len) < 0)
        _exit(1); /* nobody is left who could be told */
    _exit(1);
}

/* malloc(0) may return NULL; ours never does, so that a pointer is always freeable and comparable. */
void *xmalloc(size_t size)
{
    void *p = malloc(size == 0 ? 1 : size);

    if (p == NULL)
        out_of_memory(size);
    return p;
}

void *xcalloc(size_t count, size_t size)
{
    void *p = calloc(count == 0 ? 1 : count, size == 0 ? 1 : size);

    if (p == NULL) /* also when count * size overflows */
        out_of_memory(size > 0 && count > SIZE_MAX / size ? SIZE_MAX : count * size);
    return p;
}

void *xrealloc(void *ptr, size_t size)
{
    void *p = realloc(ptr, size == 0 ? 1 : size);

    if (p == NULL)
        out_of_memory(size);
    return p;
}

char *xstrdup(const char *s)
{
    return xmemdup(s, strlen(s) + 1);
}

void *xmemdup(const void *data, size_t len)
{
    void *p = xmalloc(len);

    if (len > 0)
        memcpy(p, data, len);
    return p;
}

char *xasprintf(const char *fmt, ...)
{
    char *text = NULL;
    va_list args;

    va_start(args, fmt);
    int len = vasprintf(&text, fmt, args);
    va_end(args);
    if (len < 0)
        out_of_memory(0);
    return text;
}

/* --- arena --------------------------------------------------------------------------------------
 * Blocks form a list, the current one first. Small requests share blocks of ARENA_BLOCK_BYTES; what would
 * not fit well into one gets a block of its own behind the current one, whose room stays in use. */
#define ARENA_ALIGN ((size_t)16)
#define ARENA_BLOCK_BYTES ((size_t)4096)
#define ARENA_OWN_BLOCK_BYTES (ARENA_BLOCK_BYTES / 4)

struct arena_block {
    struct arena_block *next;
    size_t size; /* bytes at data */
    _Alignas(16) uint8_t data[];
};

void arena_init(struct arena *a)
{
    *a = (struct arena){0};
}

static struct arena_block *block_new(size_t size)
{
    must(size <= SIZE_MAX - sizeof(struct arena_block));
    struct arena_block *block = xmalloc(sizeof(*block) + size);

    block->next = NULL;
    block->size = size;
    return block;
}

/* A block of its own for a large piece, so that the rest of the current block is not wasted. */
static void *alloc_alone(struct arena *a, size_t size)
{
    struct arena_block *block = block_new(size);

    if (a->blocks == NULL) {
        a->blocks = block; /* nothing is left in it: left stays 0 */
    } else {
        block->next = a->blocks->next;
        a->blocks->next = block;
    }
    return block->data;
}

void *arena_alloc(struct arena *a, size_t size)
{
    must(size <= SIZE_MAX / 2);
    size_t rounded = size == 0 ? ARENA_ALIGN : (size + ARENA_ALIGN - 1) & ~(ARENA_ALIGN - 1);

    a->total += size;
    if (rounded > a->left) {
        if (rounded > ARENA_OWN_BLOCK_BYTES)
            return alloc_alone(a, rounded);
        struct arena_block *block = block_new(ARENA_BLOCK_BYTES);
        block->next = a->blocks;
        a->blocks = block;
        a->next = block->data;
        a->left = block->size;
    }
    void *p = a->next;

    a->next += rounded;
    a->left -= rounded;
    return p;
}

void *arena_zalloc(struct arena *a, size_t size)
{
    return memset(arena_alloc(a, size), 0, size);
}

void *arena_dup(struct arena *a, const void *data, size_t len)
{
    void *p = arena_alloc(a, len);

    if (len > 0)
        memcpy(p, data, len);
    return p;
}

/* Keeps one ordinary block: an arena that is used again for small requests then allocates nothing, and one
 * that once held a large request does not hold on to its size. */
void arena_reset(struct arena *a)
{
    struct arena_block *kept = NULL;

    while (a->blocks != NULL) {
        struct arena_block *block = a->blocks;
        a->blocks = block->next;
        if (kept == NULL && block->size == ARENA_BLOCK_BYTES)
            kept = block;
        else
            free(block);
    }
    arena_init(a);
    if (kept != NULL) {
        kept->next = NULL;
        a->blocks = kept;
        a->next = kept->data;
        a->left = kept->size;
    }
}

void arena_fini(struct arena *a)
{
    while (a->blocks != NULL) {
        struct arena_block *block = a->blocks;
        a->blocks = block->next;
        free(block);
    }
    arena_init(a);
}
