/* raftd - the consensus daemon: decides what happens and in which order; does not know what a key is.
 * This file is the table of contents: options, log, what needs rights, the log on disk, links, loop, orderly end. */
#include "raftd/raftd.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/mem.h"
#include "common/notify.h"
#include "common/opt.h"
#include "common/priv.h"
#include "common/rand.h"
#include "raftd/change.h"
#include "raftd/snap.h"

/* --- one turn ----------------------------------------------------------------------------------- */

static void stop_begin(struct raftd *d)
{
    log_info("raftd: stopping");
    notify_stopping();
    d->stopping = true;
    d->stop_until_ms = loop_now_ms(d->loop) + STOP_MS_MAX;
    d->stop_index = raft_last_index(d->raft);
    turn_stop(d->turn);
}

static void stop_continue(struct raftd *d, uint64_t now_ms)
{
    bool leads = raft_role(d->raft) == RAFT_LEADER && d->members.count > 1;
    /* What was accepted here is answered here, if the next leader agrees on it in time. */
    bool open = raft_leader(d->raft) != RAFT_NONE && raft_commit(d->raft) < d->stop_index;

    if ((!turn_is_quiet(d->turn) || leads || open) && now_ms < d->stop_until_ms)
        return;
    loop_stop(d->loop);
}

static void timer_set(struct raftd *d)
{
    uint64_t at = turn_deadline(d->turn);

    if (d->status_count > 0)
        at = MIN(at, d->status[0].until_ms);
    at = MIN(at, membership_deadline(d));
    at = MIN(at, snap_deadline(d));
    if (d->stopping)
        at = MIN(at, d->stop_until_ms);
    loop_timer_set(d->timer, at);
}

/* The beats after gathering: think, persist, speak, and when to wake up. The links, whose hooks come after this
 * one, then send what was said. */
static void turn_end_cb(void *arg)
{
    struct raftd *d = arg;
    uint64_t now_ms = loop_now_ms(d->loop);

    turn_clock(d->turn, now_ms);
    out_tell(d);
    peers_report(d->peers);
    slow_check(d, now_ms);
    turn_end(d->turn);
    forward_run(d);
    /* Twice, so that a request that the core refuses at once is answered at once. */
    for (int i = 0; i < 2 && membership_run(d); i++)
        turn_end(d->turn);
    for (int i = 0; i < 2 && snap_run(d, now_ms); i++)
        turn_end(d->turn);
    out_tell(d);
    if (d->peers_due)
        peering_members(d);
    if (d->status_count > 0)
        out_status_expire(d, now_ms);
    if (d->removed_at_ms > 0 && d->removed_at_ms <= now_ms && !d->stopping)
        stop_begin(d);
    if (d->stopping)
        stop_continue(d, now_ms);
    timer_set(d);
}

static void timer_cb(void *arg, uint64_t now_ms)
{
    struct raftd *d = arg;

    turn_clock(d->turn, now_ms);
    turn_tick(d->turn);
}

static void wal_wake_cb(void *arg)
{
    struct raftd *d = arg;

    turn_clock(d->turn, loop_now_ms(d->loop));
    turn_durable(d->turn, wal_poll(d->wal));
}

static void term_cb(void *arg)
{
    struct raftd *d = arg;

    turn_clock(d->turn, loop_now_ms(d->loop));
    stop_begin(d);
}

/* --- start and end ------------------------------------------------------------------------------ */

/* Held as long as the process lives: two raftd on one log would vote twice. */
static void dir_lock(const char *dir)
{
    char *path = xasprintf("%s/%s", dir, NAME_LOCK_FILE);
    int fd, err;
    long holder = 0;

    err = file_lock(path, &fd, &holder);
    if (err == E_LOCKED)
        fatalx("raftd: %s is in use by another raftd, pid %ld", dir, holder);
    if (err)
        fatal("raftd: lock of %s", path);
    free(path);
}

static char *dirs_open(const struct conf *c)
{
    char *dir = c->wal_dir[0] != '\0' ? xstrdup(c->wal_dir) : xasprintf("%s/%s", c->data_dir, NAME_RAFT_DIR);

    if (priv_mkdir(c->data_dir, 0700, c->user) != 0 || priv_mkdir(dir, 0700, c->user) != 0)
        fatal("raftd: making %s", dir);
    if (priv_mkdir(c->run_dir, 0700, c->user) != 0)
        fatal("raftd: making %s", c->run_dir);
    return dir;
}

static void links_listen(struct raftd *d)
{
    for (unsigned slot = 0; slot < RAFTD_SLOTS; slot++) {
        bool stored = slot == LINK_SLOT_STORED;
        char *url = link_url(d->conf.raftd_url, slot);
        char *name = stored ? xstrdup("stored") : xasprintf("gateway %u", slot);

        if (!url)
            fatalx("raftd: raftd-url: '%s' is not a URL that can be listened on", d->conf.raftd_url);
        d->links[slot] = link_new(d->loop,
                                  &(struct link_conf){.name = name,
                                                      .url = url,
                                                      .listen = true,
                                                      .self = ROLE_RAFTD,
                                                      .peer = stored ? ROLE_STORED : ROLE_GATEWAYD,
                                                      .slot = slot},
                                  &in_ops, d);
        link_set_hello(d->links[slot], &(struct fr_hello){.version = FRAMES_VERSION,
                                                          .role = ROLE_RAFTD,
                                                          .cluster_id = d->cluster_id,
                                                          .member_id = d->member_id,
                                                          .instance = d->instance,
                                                          .slot = slot});
        free(name);
        free(url);
    }
    for (unsigned slot = 0; slot < RAFTD_SLOTS; slot++)
        link_start(d->links[slot]);
}

static void end(struct raftd *d)
{
    for (unsigned slot = 0; slot < RAFTD_SLOTS; slot++)
        link_drain(d->links[slot], 200);
    for (unsigned slot = 0; slot < RAFTD_SLOTS; slot++)
        link_free(d->links[slot]);
    peers_free(d->peers);
    peer_msg_fini(&d->peer_msg);
    forward_fini(&d->forward);
    change_free(d->change);
    snap_fini(d);
    free(d->self.dir);
    turn_free(d->turn);
    raft_free(d->raft);
    wal_close(d->wal);
    loop_wake_free(d->wal_wake);
    loop_timer_free(d->timer);
    loop_free(d->loop);
    members_fini(&d->members);
    conf_fini(&d->conf);
}

int main(int argc, char **argv)
{
    static struct raftd d;

    opt_load(&d.conf, argc, argv);
    log_info("raftd: version %s, name %s", TRINE_VERSION, d.conf.name);
    char *dir = dirs_open(&d.conf);
    priv_limits();
    priv_drop(d.conf.user);
    dir_lock(dir);

    d.loop = loop_new();
    d.instance = rand_system_u64() | 1;
    d.wal_wake = loop_wake_new(d.loop, wal_wake_cb, &d);
    d.timer = loop_timer_new(d.loop, timer_cb, &d);
    forward_init(&d.forward);
    start_log(&d, dir);
    free(dir);
    membership_start(&d);

    /* Ours first: the hooks of peers and links send what this one says. */
    loop_on_turn_end(d.loop, turn_end_cb, &d);
    peering_start(&d);
    links_listen(&d);
    loop_signals(d.loop, term_cb, NULL, &d);
    loop_timer_set(d.timer, loop_now_ms(d.loop));
    notify_watchdog_start(d.loop);
    notify_ready();
    log_info("raftd: ready");

    loop_run(d.loop);

    end(&d);
    log_info("raftd: stopped");
    return d.removed_at_ms > 0 ? EXIT_REMOVED : 0;
}
