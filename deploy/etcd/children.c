/* children - see children.h.
 *
 *     down -> up       child_start; when its time has come (start_at_ms)
 *     up   -> down     reap: it ended. Again at once if it had lived a while, else later and later; too often: we end
 *     up   -> leaving  stop: SIGTERM, one daemon after the other, gatewayd first: what it accepted is answered
 *     leaving -> down  reap; SIGKILL after STOP_MS_MAX
 *
 * They are ready when gatewayd says that it serves: it has met the other two (READY=1) and knows a leader (STATUS=serving). */
#include "deploy/etcd/children.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/notify.h"
#include "deploy/etcd/keeper.h"

/* A daemon gives its requests 5 s; raftd hands over the leadership meanwhile. */
#define STOP_MS_MAX 8000
/* One that lived so long is started again at once; others after 50 ms, 100 ms, ... */
#define LIVED_MS 500
#define DELAY_MS_MIN 50
#define DELAY_MS_MAX 5000
/* Deaths of one daemon in DEATHS_MS: more, and what supervises us shall know. */
#define DEATHS_MAX 8
#define DEATHS_MS 60000

/* raftd's word for: this member was removed from its cluster. */
#define EXIT_REMOVED 3

/* In the order in which they are stopped. */
enum { GATEWAYD, RAFTD, STORED, KEEPER, CHILDREN };

struct child {
    const char *name;
    char *path;
    pid_t pid; /* 0: down */
    uint64_t started_ms;
    uint64_t start_at_ms;
    uint64_t delay_ms;
    uint64_t died_ms[DEATHS_MAX]; /* the last ones, a ring */
    unsigned deaths;
};

struct children {
    const struct node *node;
    struct child child[CHILDREN];
    struct kept *kept;
    int signal_fd;
    int notify_fd;
    char notify_name[32]; /* NOTIFY_SOCKET of the daemons */
    bool met, serving, ready;
    bool stopping;
    int stopping_child;  /* the one that was told to end */
    uint64_t kill_at_ms; /* if it has not */
    int signal;          /* that asked us to end */
    int code;
};

/* --- starting ---------------------------------------------------------------------------------------- */

/* A socket with a name that the kernel chooses, in no directory. */
static void notify_open(struct children *c)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(address);
    int on = 1;

    c->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->notify_fd < 0 || bind(c->notify_fd, (struct sockaddr *)&address, sizeof(sa_family_t)) != 0 ||
        setsockopt(c->notify_fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0 ||
        getsockname(c->notify_fd, (struct sockaddr *)&address, &len) != 0)
        fatal("children: socket for readiness");
    snprintf(c->notify_name, sizeof(c->notify_name), "@%.*s", (int)(len - sizeof(sa_family_t) - 1), address.sun_path + 1);
}

static void find_programs(struct children *c)
{
    static const char *const names[] = {[GATEWAYD] = "gatewayd", [RAFTD] = "raftd", [STORED] = "stored"};

    c->child[KEEPER].name = KEEPER_PROGRAM;
    for (int i = 0; i < KEEPER; i++) {
        c->child[i].name = names[i];
        c->child[i].path = node_find_program(names[i]);
        if (c->child[i].path == NULL)
            fatalx("children: %s is neither beside this program nor in ../sbin, ../../sbin or ../libexec/trine", names[i]);
    }
}

/* In the child. Its own group: a Ctrl-C is for us, who stop them in order. */
static _Noreturn void become(struct children *c, int i, pid_t parent)
{
    const struct node *n = c->node;
    const char *file = getenv("TRINE_CONFIG_FILE");
    char **argv = xcalloc(n->option_count + 4, sizeof(char *));
    sigset_t none;
    int null_fd = open("/dev/null", O_RDONLY);

    keeper_bind_to(parent);
    atomic_store(&c->kept->pid[i], getpid());
    setpgid(0, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (null_fd >= 0)
        dup2(null_fd, STDIN_FILENO);
    setenv("NOTIFY_SOCKET", c->notify_name, 1);
    unsetenv("WATCHDOG_USEC");
    if (file == NULL || file[0] == '\0')
        file = "/dev/null"; /* not /etc/trine/trine.conf: etcd's flags are all there is */
    argv[0] = c->child[i].path;
    memcpy(argv + 1, n->options, n->option_count * sizeof(char *));
    static char option[] = "-c";

    argv[1 + n->option_count] = option;
    argv[2 + n->option_count] = (char *)(uintptr_t)file;
    execv(c->child[i].path, argv);
    fatal("children: %s", c->child[i].path);
}

static void child_start(struct children *c, int i, uint64_t now_ms)
{
    pid_t parent = getpid(), pid = i == KEEPER ? keeper_start() : fork();

    if (pid == 0)
        become(c, i, parent);
    if (pid < 0) {
        log_warn("children: starting %s", c->child[i].name);
        c->child[i].start_at_ms = now_ms + DELAY_MS_MAX;
        return;
    }
    c->child[i].pid = pid;
    c->child[i].started_ms = now_ms;
}

/* --- ending -------------------------------------------------------------------------------------------- */

static void stop_next(struct children *c, uint64_t now_ms)
{
    while (++c->stopping_child < KEEPER) {
        struct child *child = &c->child[c->stopping_child];
        if (child->pid == 0)
            continue;
        kill(child->pid, SIGTERM);
        c->kill_at_ms = now_ms + STOP_MS_MAX;
        return;
    }
}

static void stop(struct children *c, int code, int signal, uint64_t now_ms)
{
    if (c->stopping)
        return;
    c->stopping = true;
    c->code = code;
    c->signal = signal;
    c->stopping_child = -1;
    notify_stopping();
    stop_next(c, now_ms);
}

/* Too often: true. */
static bool count_death(struct child *child, uint64_t now_ms)
{
    uint64_t *oldest = &child->died_ms[child->deaths++ % DEATHS_MAX];
    bool often = child->deaths > DEATHS_MAX && now_ms - *oldest < DEATHS_MS;

    *oldest = now_ms;
    return often;
}

/* One of them ended without being told to. */
static void died(struct children *c, int i, int status, uint64_t now_ms)
{
    struct child *child = &c->child[i];
    bool exited = WIFEXITED(status);

    if (i == RAFTD && exited && WEXITSTATUS(status) == EXIT_REMOVED) {
        log_warnx("children: this member was removed from its cluster: its data can be deleted");
        stop(c, 0, 0, now_ms);
        return;
    }
    if (!c->ready && i != KEEPER && exited) {
        log_error("children: %s ended with exit code %d before it served", child->name, WEXITSTATUS(status));
        stop(c, 1, 0, now_ms);
        return;
    }
    if (count_death(child, now_ms)) {
        log_error("children: %s ended %d times within %d s: giving up", child->name, DEATHS_MAX, DEATHS_MS / 1000);
        stop(c, 1, 0, now_ms);
        return;
    }
    if (now_ms - child->started_ms > LIVED_MS)
        child->delay_ms = 0;
    log_warnx("children: %s %s %d; starting it again in %llu ms", child->name, exited ? "ended with exit code" : "was killed by signal",
              exited ? WEXITSTATUS(status) : WTERMSIG(status), (unsigned long long)child->delay_ms);
    child->start_at_ms = now_ms + child->delay_ms;
    child->delay_ms = MIN(MAX(2 * child->delay_ms, (uint64_t)DELAY_MS_MIN), (uint64_t)DELAY_MS_MAX);
}

static void reap(struct children *c, uint64_t now_ms)
{
    siginfo_t info = {0};

    /* The number is taken from the keeper's page before it can be another process's. */
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
        int status = 0, which = -1;
        for (int i = 0; i < CHILDREN; i++) {
            if (c->child[i].pid == info.si_pid)
                which = i;
        }
        if (which >= 0)
            atomic_store(&c->kept->pid[which], 0);
        waitpid(info.si_pid, &status, 0);
        info = (siginfo_t){0};
        if (which < 0)
            continue;
        c->child[which].pid = 0;
        if (!c->stopping)
            died(c, which, status, now_ms);
        else if (which == c->stopping_child)
            stop_next(c, now_ms);
    }
}

/* --- events -------------------------------------------------------------------------------------------- */

static void read_signals(struct children *c, uint64_t now_ms)
{
    struct signalfd_siginfo info;

    while (read(c->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCHLD) {
            reap(c, now_ms);
        } else if (c->stopping) { /* asked again: now */
            c->kill_at_ms = now_ms;
        } else {
            log_info("children: received signal; shutting down: signal=%s",
                     info.ssi_signo == SIGTERM ? "terminated" : "interrupt");
            stop(c, 0, (int)info.ssi_signo, now_ms);
        }
    }
}

static bool has_line(const char *text, const char *start)
{
    for (; text != NULL; text = strchr(text, '\n')) {
        text += *text == '\n';
        if (strncmp(text, start, strlen(start)) == 0)
            return true;
    }
    return false;
}

static void say_ready(struct children *c)
{
    if (c->ready || !c->met || !c->serving || c->stopping)
        return;
    c->ready = true;
    log_info("ready to serve client requests");
    log_info("serving client traffic: %s", c->node->conf.listen_client_urls);
    notify_ready();
}

/* What gatewayd tells systemd. */
static void read_notes(struct children *c)
{
    char text[1024], room[CMSG_SPACE(sizeof(struct ucred))];
    struct iovec part = {.iov_base = text, .iov_len = sizeof(text) - 1};

    for (;;) {
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
        ssize_t len = recvmsg(c->notify_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        struct ucred from;
        if (len < 0)
            return;
        if (head == NULL || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_CREDENTIALS)
            continue;
        memcpy(&from, CMSG_DATA(head), sizeof(from));
        if (from.pid != c->child[GATEWAYD].pid)
            continue;
        text[len] = '\0';
        c->met = c->met || has_line(text, "READY=1");
        c->serving = c->serving || has_line(text, "STATUS=serving");
        say_ready(c);
    }
}

static uint64_t next_ms(const struct children *c)
{
    uint64_t at = UINT64_MAX;

    for (int i = 0; i < CHILDREN && !c->stopping; i++) {
        if (c->child[i].pid == 0)
            at = MIN(at, c->child[i].start_at_ms);
    }
    return c->stopping ? MIN(at, c->kill_at_ms) : at;
}

static void run_timers(struct children *c, uint64_t now_ms)
{
    for (int i = 0; i < CHILDREN && !c->stopping; i++) {
        if (c->child[i].pid == 0 && c->child[i].start_at_ms <= now_ms)
            child_start(c, i, now_ms);
    }
    if (c->stopping && c->stopping_child < KEEPER && now_ms >= c->kill_at_ms) {
        log_warnx("children: %s did not end in time: killing it", c->child[c->stopping_child].name);
        kill(c->child[c->stopping_child].pid, SIGKILL);
        c->kill_at_ms = now_ms + STOP_MS_MAX;
    }
}

static void loop(struct children *c)
{
    struct pollfd fds[] = {{.fd = c->signal_fd, .events = POLLIN}, {.fd = c->notify_fd, .events = POLLIN}};

    while (!c->stopping || c->stopping_child < KEEPER) {
        uint64_t now_ms = clock_now_ms(), at = next_ms(c);
        int wait_ms = at == UINT64_MAX ? -1 : at <= now_ms ? 0 : (int)MIN(at - now_ms, (uint64_t)60000);
        if (poll(fds, ARRAY_LEN(fds), wait_ms) < 0 && errno != EINTR)
            fatal("children: poll");
        now_ms = clock_now_ms();
        read_notes(c);
        read_signals(c, now_ms);
        run_timers(c, now_ms);
    }
}

int children_run(const struct node *n, int *signal)
{
    static struct children c;
    sigset_t set;

    c.node = n;
    find_programs(&c);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    c.signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    c.kept = keeper_share();
    if (c.signal_fd < 0 || c.kept == NULL)
        fatal("children: signals and shared memory");
    notify_open(&c);

    loop(&c);

    for (int i = 0; i < CHILDREN; i++) {
        if (c.child[i].pid > 0) { /* the keeper is left */
            kill(c.child[i].pid, SIGKILL);
            waitpid(c.child[i].pid, NULL, 0);
        }
        free(c.child[i].path);
    }
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    *signal = c.signal;
    return c.code;
}
