/* snapshot - what is done with a snapshot file without a node: stored knows the formats, so it is asked to do it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"
#include "trinectl/trinectl.h"

/* The daemons are installed in sbin beside our bin, and built into the directory that we are built into. */
static const char *const places[] = {"stored", "../sbin/stored"};

_Noreturn static void stored_exec(char **args)
{
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);

    while (len > 0 && self[len - 1] != '/')
        len--;
    for (size_t i = 0; len > 0 && i < ARRAY_LEN(places); i++) {
        char *path = xasprintf("%.*s%s", (int)len, self, places[i]);
        if (access(path, X_OK) == 0)
            execv(path, args);
        free(path);
    }
    execvp(args[0], args);
    fprintf(stderr, "trinectl: cannot run stored: %s\n", strerror(errno));
    exit(EXIT_REFUSED);
}

int snapshot_status_run(struct ctl *ctl, int argc, char **argv)
{
    if (argc != 2 || argv[1][0] == '-')
        usage_of("snapshot status");
    stored_exec((char *[]){"stored", "inspect", argv[1], ctl->output == OUTPUT_JSON ? "--json" : NULL, NULL});
}

int snapshot_restore_run(struct ctl *ctl, int argc, char **argv)
{
    UNUSED(ctl);
    if (argc < 3 || argv[1][0] == '-') /* where to is not left to a default */
        usage_of("snapshot restore");
    char **args = xcalloc((size_t)argc + 2, sizeof *args);
    args[0] = "stored";
    args[1] = "restore";
    memcpy(args + 2, argv + 1, (size_t)argc * sizeof *args); /* with the NULL at the end */
    stored_exec(args);
}
