/* wire_end - listening and dialing that nng 1.5.2 does not stop doing by itself.
 *
 * A peer that leaves during nng's first exchange of 8 bytes (it was killed, say) makes the accept or the dial end
 * with "closed", which nng takes for the listener's or dialer's own end: it never accepts, or dials, again. It
 * happens on ipc too: one connect(2) and close(2) is enough. nng tells nobody, but its statistics show it:
 *
 *      listener   an error was counted. Perhaps it still accepts; to be sure it is renewed (errors are rare).
 *      dialer     every attempt that fails is counted, and LINK_RETRY_MS_MAX bounds the pause between them; one
 *                 that counted nothing from one check to the next has stopped.
 *
 * Renewal closes only what has no peer. For the same reason nobody here finds out by connect(2) whether a socket
 * file is alive, which would do this very harm to a living daemon; a lock file beside it says so. */
#include "proto/wire_end.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <nng/transport/ipc/ipc.h>

#include "common/err.h"
#include "common/file.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"

#define LOCK_SUFFIX ".lock"
#define IPC_SCHEME "ipc://"

/* The path of an ipc URL; NULL for others. */
static const char *ipc_path(const char *url)
{
    return strncmp(url, IPC_SCHEME, strlen(IPC_SCHEME)) ? NULL : url + strlen(IPC_SCHEME);
}

/* --- the counters of nng ------------------------------------------------------------------------ */

static bool counts_errors(const char *name)
{
    static const char *const names[] = {"refused", "disconnect", "canceled", "other", "timeout",
                                        "proto",   "auth",       "oom",      "reject"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!strcmp(name, names[i]))
            return true;
    }
    return false;
}

/* Does this node hold the statistics of kind ("listener", "dialer") id? Then adds up its errors. */
static bool stat_errors(nng_stat *node, const char *kind, uint64_t id, uint64_t *errors)
{
    uint64_t sum = 0;
    bool found = false;

    if (strcmp(nng_stat_name(node), kind))
        return false;
    for (nng_stat *s = nng_stat_child(node); s; s = nng_stat_next(s)) {
        if (!strcmp(nng_stat_name(s), "id"))
            found = nng_stat_value(s) == id;
        else if (counts_errors(nng_stat_name(s)))
            sum += nng_stat_value(s);
    }
    if (found)
        *errors = sum;
    return found;
}

/* One snapshot serves all wires that are checked in the same turn: it covers the whole process. */
static nng_stat *stats_of_turn(uint64_t now_ms)
{
    static _Thread_local nng_stat *stats;
    static _Thread_local uint64_t taken_ms;

    if (stats && taken_ms == now_ms)
        return stats;
    if (stats)
        nng_stats_free(stats);
    stats = NULL;
    taken_ms = now_ms;
    return nng_stats_get(&stats) == 0 ? stats : NULL;
}

static uint64_t end_errors(const struct wire_end *e, uint64_t now_ms)
{
    nng_stat *root = stats_of_turn(now_ms);
    const char *kind = e->is_listener ? "listener" : "dialer";
    uint64_t id = (uint64_t)(e->is_listener ? nng_listener_id(e->listener) : nng_dialer_id(e->dialer));
    uint64_t errors = 0;

    for (nng_stat *s = root ? nng_stat_child(root) : NULL; s; s = nng_stat_next(s)) {
        if (stat_errors(s, kind, id, &errors))
            break;
    }
    return errors;
}

/* --- life --------------------------------------------------------------------------------------- */

static int end_create(struct wire_end *e)
{
    return e->is_listener ? nng_listener_create(&e->listener, e->socket, e->url)
                          : nng_dialer_create(&e->dialer, e->socket, e->url);
}

static int end_start(struct wire_end *e)
{
    e->looked = false;
    if (!e->is_listener)
        return nng_dialer_start(e->dialer, NNG_FLAG_NONBLOCK);
    if (ipc_path(e->url)) {
        int err = nng_listener_set_int(e->listener, NNG_OPT_IPC_PERMISSIONS, 0600);

        if (err != 0)
            return err;
    }
    return nng_listener_start(e->listener, 0);
}

/* A killed process leaves its socket file behind, and bind(2) refuses to reuse it. */
static void ipc_take_over(struct wire_end *e, const char *path)
{
    char *lock = xasprintf("%s" LOCK_SUFFIX, path);
    struct stat st;
    long holder = 0;

    if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
        fatalx("link: %s: socket path is too long: %s", e->name, path);
    int err = file_lock(lock, &e->lock_fd, &holder);
    if (err == E_LOCKED)
        fatalx("link: %s: process %ld listens on %s", e->name, holder, path);
    if (err != 0)
        fatal("link: %s: %s", e->name, lock);
    if (lstat(path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            fatalx("link: %s: %s exists and is not a socket", e->name, path);
        if (unlink(path) != 0)
            fatal("link: %s: unlink %s", e->name, path);
    }
    free(lock);
}

void wire_end_init(struct wire_end *e, const char *name, const char *url, bool listen, nng_socket socket)
{
    *e = (struct wire_end){.name = name, .url = xstrdup(url), .is_listener = listen, .socket = socket, .lock_fd = -1};

    int err = end_create(e);

    if (err != 0)
        fatalx("link: %s: %s: %s", name, url, nng_strerror(err));
}

void wire_end_start(struct wire_end *e)
{
    if (e->is_listener && ipc_path(e->url))
        ipc_take_over(e, ipc_path(e->url));

    int err = end_start(e);

    if (err != 0)
        fatalx("link: %s: %s: %s", e->name, e->url, nng_strerror(err));
}

void wire_end_renew(struct wire_end *e)
{
    e->renewals++;
    log_debug("link: %s: %s anew, nng may have stopped", e->name, e->is_listener ? "listens" : "dials");
    if (e->is_listener)
        nng_listener_close(e->listener);
    else
        nng_dialer_close(e->dialer);
    if (e->is_listener && ipc_path(e->url))
        unlink(ipc_path(e->url)); /* ours: we hold its lock; nng has usually done it */

    int err = end_create(e);

    if (err == 0)
        err = end_start(e);
    /* Such as no more file descriptors. The next check comes, finds a listener or dialer that does nothing, and tries
     * again. */
    if (err != 0)
        log_warnx("link: %s: %s: %s", e->name, e->url, nng_strerror(err));
    e->looked = err != 0;
    e->errors = e->is_listener ? UINT64_MAX : 0;
}

void wire_end_check(struct wire_end *e, uint64_t now_ms)
{
    uint64_t errors = end_errors(e, now_ms);
    uint64_t before = e->looked ? e->errors : 0;
    bool stopped = e->is_listener ? errors != before : e->looked && errors == before;

    e->errors = errors;
    e->looked = true;
    if (stopped)
        wire_end_renew(e);
}

void wire_end_fini(struct wire_end *e)
{
    if (e->lock_fd >= 0)
        close(e->lock_fd);
    free(e->url);
}
