/* keeper - the daemons stand still while the process that runs them is stopped (SIGSTOP, Ctrl-Z), and go on with it.
 * A stopped process can tell nobody. So a small process of its own looks at its state, a hundred times a second. */
#ifndef DROPIN_KEEPER_H
#define DROPIN_KEEPER_H

#include <stdatomic.h>
#include <sys/types.h>

#define KEEPER_PROGRAM "trine-keeper" /* its argv[0]: main() then is keeper_main */
#define KEPT_MAX 4

/* Shared memory. A pid is written by the child itself before it becomes a daemon, and taken out before it is waited for: what
 * is in here is never another process's number. */
struct kept {
    _Atomic pid_t pid[KEPT_MAX];
};

/* Where the keeper, and it alone, finds it open. */
#define KEEPER_FD 3
/* NULL with errno. */
struct kept *keeper_share(void);
/* Starts it; the child ends when we do. -1 with errno. */
pid_t keeper_start(void);
int keeper_main(void);

/* In a child after fork: ends it with its parent, whatever ends that. */
void keeper_bind_to(pid_t parent);

#endif
