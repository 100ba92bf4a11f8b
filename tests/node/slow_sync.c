/* slow_sync - a disk that is slow when a test wants it: preloaded into a daemon, each fsync and fdatasync takes at least as many
 * milliseconds longer as the file named by SLOW_SYNC says. No such file: none. Nothing is left out: the real sync follows.
 * Built by the script that needs it (tests/node/test_handover.sh), not part of any library. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int fsync(int fd);
int fdatasync(int fd);

static void wait_as_told(void)
{
    const char *path = getenv("SLOW_SYNC");
    FILE *f = path ? fopen(path, "re") : NULL;
    long ms = 0;

    if (!f)
        return;
    if (fscanf(f, "%ld", &ms) == 1 && ms > 0)
        nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
    fclose(f);
}

static int real(const char *name, int fd)
{
    union {
        void *symbol;
        int (*call)(int);
    } next = {.symbol = dlsym(RTLD_NEXT, name)};

    wait_as_told();
    return next.call(fd);
}

int fsync(int fd)
{
    return real("fsync", fd);
}

int fdatasync(int fd)
{
    return real("fdatasync", fd);
}
