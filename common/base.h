/* base - what every file of every daemon may assume.
 * Fixed-width types, a few macros that C lacks, and must(): our own bugs stop the process in every
 * build (NDEBUG has no meaning here), because a daemon that goes on with a broken invariant writes it
 * to disk and to its peers. What the outside does wrong is never a must(). */
#ifndef COMMON_BASE_H
#define COMMON_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRINE_VERSION "0.1.0"
#define TRINE_API_VERSION "3.7.1"        /* the etcd release whose API is served */
#define TRINE_CLUSTER_VERSION "3.7.0"    /* what /version and Status call cluster and storage version */

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define UNUSED(x) ((void)(x))

/* States what cannot be false unless we have a bug. Prints the expression and place, then aborts. */
#define must(expr) ((expr) ? (void)0 : must_failed(#expr, __FILE__, __LINE__, __func__))

_Noreturn void must_failed(const char *expr, const char *file, int line, const char *func);

#endif
