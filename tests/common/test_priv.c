/* priv: after priv_drop there is no way back. What needs root to be shown is left out without it. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/priv.h"
#include "tests/lib/child.h"

#define SOMEBODY "nobody"

static void drop_and_look(void *arg)
{
    char cwd[200];

    log_init("test", LOG_L_ERROR);
    priv_drop(arg);
    printf("uid %d gid %d dir %s umask %03o nnp %d dump %d back %d groups %d\n", (int)geteuid(), (int)getegid(),
           getcwd(cwd, sizeof(cwd)), (unsigned)umask(0), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
           prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), setuid(0), getgroups(0, NULL));
}

Test(priv, as_root_the_user_changes_for_good)
{
    static struct child c;
    const struct passwd *pw = getpwnam(SOMEBODY);
    char expected[200];

    if (geteuid() != 0 || pw == NULL)
        cr_skip_test("needs root and the user " SOMEBODY);
    snprintf(expected, sizeof(expected), "uid %d gid %d dir / umask 077 nnp 1 dump 1 back -1 groups 1\n",
             (int)pw->pw_uid, (int)pw->pw_gid);

    child_run(&c, drop_and_look, (char[]){SOMEBODY});

    cr_assert_eq(c.code, 0, "%s", c.err);
    cr_assert_str_eq(c.out, expected);
}

Test(priv, without_a_user_only_the_harmless_part_is_done)
{
    static struct child c;
    char expected[80];

    snprintf(expected, sizeof(expected), "uid %d gid %d dir ", (int)geteuid(), (int)getegid());

    child_run(&c, drop_and_look, (char[]){""});

    cr_assert_eq(c.code, 0, "%s", c.err);
    cr_assert_eq(strncmp(c.out, expected, strlen(expected)), 0, "%s", c.out);
    cr_assert_not_null(strstr(c.out, " umask 077 nnp 1 dump 1 "), "%s", c.out);
    cr_assert_null(strstr(c.out, "dir / "), "%s", c.out);
}

Test(priv, a_user_that_does_not_exist_ends_the_process)
{
    static struct child c;

    if (geteuid() != 0)
        cr_skip_test("needs root");
    child_run(&c, drop_and_look, (char[]){"no-such-user"});

    cr_assert_eq(c.code, 1);
    cr_assert_not_null(strstr(c.err, "priv: there is no user no-such-user"), "%s", c.err);
}

Test(priv, a_directory_is_given_to_the_user)
{
    char base[] = "/tmp/trine-test-priv.XXXXXX";
    const struct passwd *pw = getpwnam(SOMEBODY);
    struct stat st;

    if (geteuid() != 0 || pw == NULL)
        cr_skip_test("needs root and the user " SOMEBODY);
    cr_assert_not_null(mkdtemp(base));
    char *dir = xasprintf("%s/data", base);

    cr_assert_eq(priv_mkdir(dir, 0700, ""), OK);
    cr_assert_eq(stat(dir, &st), 0);
    cr_assert_eq(st.st_uid, 0);
    cr_assert_eq(priv_mkdir(dir, 0700, SOMEBODY), OK);
    cr_assert_eq(stat(dir, &st), 0);
    cr_assert_eq(st.st_uid, pw->pw_uid);
    cr_assert_eq(st.st_mode & 0777, 0700);
    cr_assert_eq(priv_mkdir("/dev/null/x", 0700, SOMEBODY), E_IO);

    rmdir(dir);
    rmdir(base);
    free(dir);
}

static void raise_limit(void *arg)
{
    struct rlimit *limit = arg;

    setrlimit(RLIMIT_NOFILE, limit);
    priv_limits();
    getrlimit(RLIMIT_NOFILE, limit);
    printf("%d", (int)limit->rlim_cur);
}

Test(priv, the_limit_of_open_files_rises_to_the_hard_one)
{
    static struct child c;
    struct rlimit limit = {64, 128};

    child_run(&c, raise_limit, &limit);

    cr_assert_str_eq(c.out, "128");
}
