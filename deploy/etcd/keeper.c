/* keeper - see keeper.h. */
#include "deploy/etcd/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "common/base.h"

/* So long the daemons may go on after a stop. A look costs some 5 us. */
#define LOOK_NS 8000000

/* Ours, to be given to each keeper. */
static int kept_fd = -1;

struct kept *keeper_share(void)
{
    void *page;

    kept_fd = memfd_create("trine-kept", MFD_CLOEXEC);
    if (kept_fd < 0 || ftruncate(kept_fd, sizeof(struct kept)) != 0)
        return NULL;
    page = mmap(NULL, sizeof(struct kept), PROT_READ | PROT_WRITE, MAP_SHARED, kept_fd, 0);
    return page == MAP_FAILED ? NULL : page;
}

void keeper_bind_to(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before the line above */
        _exit(1);
}

pid_t keeper_start(void)
{
    pid_t parent = getpid(), pid = fork();
    static char name[] = KEEPER_PROGRAM;

    if (pid != 0)
        return pid;
    keeper_bind_to(parent);
    setpgid(0, 0); /* a stop of our group must not stop the keeper */
    if (kept_fd == KEEPER_FD)
        fcntl(KEEPER_FD, F_SETFD, 0);
    else
        dup2(kept_fd, KEEPER_FD);
    execv("/proc/self/exe", (char *[]){name, NULL});
    _exit(1);
}

/* Whether the process of that stat file is stopped: the letter behind the name in parentheses. */
static bool is_stopped(int fd)
{
    char text[256];
    ssize_t len = pread(fd, text, sizeof(text) - 1, 0);

    if (len <= 0)
        _exit(0);
    text[len] = '\0';
    const char *end = strrchr(text, ')');

    return end != NULL && end[1] == ' ' && end[2] == 'T';
}

static void signal_all(struct kept *kept, int signal)
{
    for (size_t i = 0; i < KEPT_MAX; i++) {
        pid_t pid = atomic_load(&kept->pid[i]);
        if (pid > 0)
            kill(pid, signal);
    }
}

int keeper_main(void)
{
    const struct timespec pause = {.tv_nsec = LOOK_NS};
    pid_t parent = getppid();
    char path[64];
    struct kept *kept = mmap(NULL, sizeof(*kept), PROT_READ | PROT_WRITE, MAP_SHARED, KEEPER_FD, 0);
    bool held = true; /* a keeper before us may have been killed while it held them */

    prctl(PR_SET_NAME, KEEPER_PROGRAM);
    snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", (int)parent, (int)parent);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (kept == MAP_FAILED || fd < 0 || getppid() != parent)
        return 1;
    for (;;) {
        bool stopped = is_stopped(fd);
        if (stopped)
            signal_all(kept, SIGSTOP); /* each time: one may have been started in the moment of the stop */
        else if (held)
            signal_all(kept, SIGCONT);
        held = stopped;
        nanosleep(&pause, NULL);
    }
}
