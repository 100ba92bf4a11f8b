/* priv - giving up rights. The order is the only one that works: groups while still root, then the group, then the
 * user, and a proof at the end that root cannot be had back. Any failure ends the process: a daemon that believes it
 * has no rights and has them is worse than one that does not start. */
#include "common/priv.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"

/* Not every failure of getpwnam sets errno: then there is simply no such user. */
static const struct passwd *find_user(const char *user)
{
    errno = 0;
    const struct passwd *pw = getpwnam(user);

    if (pw == NULL && errno != 0 && errno != ENOENT)
        fatal("priv: looking up user %s", user);
    if (pw == NULL)
        fatalx("priv: there is no user %s; create it or change the key \"user\"", user);
    return pw;
}

static bool must_change_user(const char *user)
{
    return geteuid() == 0 && user[0] != '\0';
}

int priv_mkdir(const char *dir, unsigned mode, const char *user)
{
    int err = file_mkdir_p(dir, mode);

    if (err != OK || !must_change_user(user))
        return err;
    const struct passwd *pw = find_user(user);

    return chown(dir, pw->pw_uid, pw->pw_gid) == 0 ? OK : E_IO;
}

static void change_user(const char *user)
{
    const struct passwd *pw = find_user(user);
    uid_t uid = pw->pw_uid;
    gid_t gid = pw->pw_gid;

    if (chdir("/") != 0)
        fatal("priv: chdir /");
    if (initgroups(user, gid) != 0) /* setgroups with what the user belongs to */
        fatal("priv: groups of user %s", user);
    if (setgid(gid) != 0)
        fatal("priv: group %ld of user %s", (long)gid, user);
    if (setuid(uid) != 0)
        fatal("priv: user %s", user);
    if (uid != 0 && setuid(0) == 0)
        fatalx("priv: root came back after changing to user %s", user);
}

void priv_drop(const char *user)
{
    bool change = must_change_user(user);
    pid_t parent = getppid();
    int parent_signal = 0;

    /* Changing the user also forgets what ends us with our parent. */
    (void)prctl(PR_GET_PDEATHSIG, &parent_signal);
    if (change)
        change_user(user);
    if (parent_signal != 0 && (prctl(PR_SET_PDEATHSIG, parent_signal) != 0 || getppid() != parent))
        fatal("priv: the parent is gone");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        fatal("priv: no_new_privs");
    /* Changing the user made us undumpable, and must() relies on a core. */
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0)
        log_warn("priv: core dumps stay off");
    umask(077);
    if (change)
        log_info("priv: running as user %s", user);
}

void priv_limits(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        log_warn("priv: reading the limit of open files");
        return;
    }
    if (limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        log_warn("priv: raising the limit of open files to %llu", (unsigned long long)limit.rlim_max);
}
