/* base - the end of a process that found one of its own bugs.
 * Writes straight to stderr: the log may be what is broken. abort() leaves the core for the debugger. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void must_failed(const char *expr, const char *file, int line, const char *func)
{
    fprintf(stderr, "BUG: must(%s) failed in %s, %s:%d\n", expr, func, file, line);
    fflush(stderr);
    abort();
}
