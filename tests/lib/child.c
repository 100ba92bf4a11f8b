/* child - fork, files as stdout and stderr, wait. Files, not pipes: nothing can block on a full one. */
#include "tests/lib/child.h"

#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void read_back(FILE *file, char *text)
{
    rewind(file);
    size_t len = fread(text, 1, CHILD_TEXT_BYTES_MAX - 1, file);
    text[len] = '\0';
    fclose(file);
}

void child_run(struct child *c, child_body_cb *body, void *arg)
{
    FILE *out = tmpfile(), *err = tmpfile();

    must(out != NULL && err != NULL);
    fflush(NULL); /* what is buffered now must not come out twice */
    pid_t pid = fork();

    must(pid >= 0);
    if (pid == 0) {
        struct rlimit no_core = {0, 0}; /* aborting is part of the test here */
        setrlimit(RLIMIT_CORE, &no_core);
        dup2(fileno(out), STDOUT_FILENO);
        dup2(fileno(err), STDERR_FILENO);
        body(arg);
        fflush(NULL);
        _exit(0);
    }
    int status;

    must(waitpid(pid, &status, 0) == pid);
    c->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    c->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    read_back(out, c->out);
    read_back(err, c->err);
}
