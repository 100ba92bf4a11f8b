/* node - see node.h. */
#include "tests/lib/node.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/rand.h"

#define NODE_START_MS 30000
#define NODE_STOP_MS 20000

static unsigned long passed, failed;

bool check_note(bool ok, const char *file, int line, const char *what, const char *fmt, ...)
{
    if (ok) {
        passed++;
        return true;
    }
    failed++;
    printf("FAIL  %s:%d: %s ", file, line, what);
    va_list args;
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    printf("\n");
    return false;
}

int check_summary(void)
{
    printf("%lu passed, %lu failed\n", passed, failed);
    return failed || !passed;
}

static bool port_answers(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool yes = connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0;
    close(fd);
    return yes;
}

int free_port(void)
{
    for (;;) {
        int port = 10000 + (int)(rand_system_u64() % 20000);
        if (!port_answers(port))
            return port;
    }
}

bool node_healthy(const struct node *n)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)n->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    static const char request[] = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    char answer[64] = "";
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval patience = {.tv_sec = 2};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    bool ok = connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 && send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) > 0 &&
              recv(fd, answer, sizeof(answer) - 1, 0) > 12 && memcmp(answer + 9, "200", 3) == 0;
    close(fd);
    return ok;
}

static bool wait_healthy(const struct node *n, int ms)
{
    uint64_t until = clock_now_ms() + (uint64_t)ms;
    while (!node_healthy(n)) {
        if (clock_now_ms() > until)
            return false;
        usleep(20000);
    }
    return true;
}

static void start(struct node *n, bool tls, const char *const *options)
{
    const char *build = getenv("TRINE_BUILD");
    char port[16], peer_port[16], tls_port[16], bin[256], log[160];
    const char *argv[64] = {"deploy/node.sh", "--dir", n->dir, "--port", port, "--peer-port", peer_port, "--bin", bin, "--tls-port", tls_port, "--"};
    size_t argc = 12;
    setvbuf(stdout, NULL, _IOLBF, 0); /* what hangs and is killed has said how far it came */
    strcpy(n->dir, "/tmp/trine-node.XXXXXX");
    if (!mkdtemp(n->dir))
        exit(2);
    n->port = free_port();
    snprintf(port, sizeof(port), "%d", n->port);
    n->tls_port = tls ? free_port() : 0;
    snprintf(tls_port, sizeof(tls_port), "%d", n->tls_port);
    snprintf(peer_port, sizeof(peer_port), "%d", free_port());
    snprintf(bin, sizeof(bin), "%s/bin", build ? build : "build");
    snprintf(log, sizeof(log), "%s.log", n->dir);
    for (; options && *options && argc < ARRAY_LEN(argv) - 1; options++)
        argv[argc++] = *options;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        setenv("LSAN_OPTIONS", "suppressions=tests/lsan.supp:print_suppressions=0", 0); /* for builds with sanitizers */
        execv(argv[0], (char **)(uintptr_t)argv);
        _exit(127);
    }
    n->runner = pid;
    if (wait_healthy(n, NODE_START_MS))
        return;
    printf("FAIL  the node is not ready; its log:\n");
    fflush(stdout);
    char command[256];
    snprintf(command, sizeof(command), "tail -40 %s", log);
    if (system(command) != 0)
        printf("(no log)\n");
    node_stop(n);
    exit(2);
}

void node_start(struct node *n, const char *const *options)
{
    start(n, false, options);
}

void node_start_tls(struct node *n, const char *const *options)
{
    start(n, true, options);
}

/* The runner gives each daemon 5 s. */
static void runner_stop(struct node *n)
{
    uint64_t until = clock_now_ms() + NODE_STOP_MS;
    kill((pid_t)n->runner, SIGTERM);
    while (waitpid((pid_t)n->runner, NULL, WNOHANG) == 0) {
        if (clock_now_ms() > until) {
            check_note(false, __FILE__, __LINE__, "the runner stops", "pid %ld", n->runner);
            kill((pid_t)n->runner, SIGTERM);
            waitpid((pid_t)n->runner, NULL, 0);
            return;
        }
        usleep(2000);
    }
}

/* In a build with sanitizers: whatever they have found in a daemon fails the test. */
static void reports_check(const struct node *n)
{
    char command[512];
    snprintf(command, sizeof(command), "! grep -E -A12 'Sanitizer|runtime error:' %s.log", n->dir);
    fflush(stdout);
    check_note(system(command) == 0, __FILE__, __LINE__, "no sanitizer has anything to report", "%s", "");
}

void node_stop(struct node *n)
{
    char command[512];
    runner_stop(n);
    reports_check(n);
    if (failed)
        printf("kept %s.log\n", n->dir);
    snprintf(command, sizeof(command), failed ? "rm -rf %s" : "rm -rf %s %s.log", n->dir, n->dir);
    if (system(command) != 0)
        printf("note: could not remove %s\n", n->dir);
}

long node_pid(const struct node *n, const char *daemon)
{
    char path[256], text[32] = "";
    snprintf(path, sizeof(path), "%s/%s.pid", n->dir, daemon);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
    if (fd >= 0)
        close(fd);
    return len > 0 ? atol(text) : 0;
}

void node_kill(const struct node *n, const char *daemon)
{
    long pid = node_pid(n, daemon);
    if (pid > 1)
        kill((pid_t)pid, SIGKILL);
}

void node_await(const struct node *n, const char *daemon, long old_pid)
{
    uint64_t until = clock_now_ms() + NODE_START_MS;
    while (clock_now_ms() < until) {
        long pid = node_pid(n, daemon);
        if (pid && pid != old_pid && wait_healthy(n, NODE_START_MS))
            return;
        usleep(5000);
    }
    check_note(false, __FILE__, __LINE__, "the daemon is started again", "%s", daemon);
}

struct gclient *node_connect(const struct node *n)
{
    struct gclient *c = gclient_connect("127.0.0.1", n->port);
    if (!c) {
        printf("FAIL  no connection to port %d\n", n->port);
        exit(2);
    }
    return c;
}
