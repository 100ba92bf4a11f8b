/* node - real daemons for tests written in C: starts deploy/node.sh on free ports in a temporary directory, kills and awaits its
 * daemons, and cleans up. Build directory: $TRINE_BUILD or "build". Also the count of checks that such a test closes with. */
#ifndef TESTS_LIB_NODE_H
#define TESTS_LIB_NODE_H

#include "common/buf.h"
#include "tests/lib/gclient.h"

struct node {
    char dir[128];
    int port;
    int tls_port; /* 0: none */
    long runner; /* pid of node.sh */
};

/* Starts a node and waits until it is healthy; options (NULL-ended, may be NULL) go to all daemons. Exits with a message on failure. */
void node_start(struct node *n, const char *const *options);
/* The same, with a further port for https; options say whose certificate. */
void node_start_tls(struct node *n, const char *const *options);
void node_stop(struct node *n); /* orderly; removes the directory */
long node_pid(const struct node *n, const char *daemon);
void node_kill(const struct node *n, const char *daemon); /* SIGKILL */
/* Waits until a killed daemon was started again (another pid) and the node is healthy. */
void node_await(const struct node *n, const char *daemon, long old_pid);
bool node_healthy(const struct node *n);
struct gclient *node_connect(const struct node *n); /* exits if refused */
int free_port(void);

/* One check: counted, printed when it fails. */
#define CHECK(cond, ...) check_note((cond), __FILE__, __LINE__, #cond, " " __VA_ARGS__)
bool check_note(bool ok, const char *file, int line, const char *what, const char *fmt, ...) PRINTF_LIKE(5, 6);
int check_summary(void); /* prints "N passed, N failed"; the exit code */

#endif
