/* stored - the daemon's state from its beginning to its end: opening, who we are, links, the orderly stop.
 * Called by main.c and in.c. Order at the start: store, leases, what else is kept in it, the background work, links. */
#include "stored/stored.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/notify.h"
#include "common/rand.h"
#include "proto/names.h"
#include "stored/auth.h"
#include "stored/db.h"
#include "stored/kin.h"
#include "stored/snap.h"
#include "stored/swap.h"

#define STOP_POLL_MS 5
#define STOP_DRAIN_MS 200 /* for results that are on their way to a gateway */

/* --- who we are ------------------------------------------------------------------------------------------- */

static const char IDENTITY_KEY[] = "id";

struct identity { /* value of META_IDENTITY, big endian */
    uint64_t cluster_id, member_id;
};

static int load_identity(void *arg, struct slice key, struct slice value)
{
    struct stored *s = arg;
    struct identity id;

    UNUSED(key);
    if (value.len != sizeof id)
        fatalx("stored: damaged identity in the store, %zu bytes", value.len);
    memcpy(&id, value.data, sizeof id);
    s->cluster_id = be64toh(id.cluster_id);
    s->member_id = be64toh(id.member_id);
    return 0;
}

static void keep_identity(struct stored *s)
{
    struct identity id = {htobe64(s->cluster_id), htobe64(s->member_id)};
    bool own_batch = !s->in_batch;

    if (own_batch)
        mvcc_batch_begin(s->mvcc);
    mvcc_meta_put(s->mvcc, META_IDENTITY, slice_str(IDENTITY_KEY), slice_of(&id, sizeof id));
    if (own_batch)
        mvcc_batch_end(s->mvcc, s->applied);
}

int stored_identify(struct stored *s, uint64_t cluster_id, uint64_t member_id)
{
    if (cluster_id == 0 || member_id == 0 || (cluster_id == s->cluster_id && member_id == s->member_id))
        return 0;
    if (s->member_id) {
        log_error("stored: the store belongs to member %llx of cluster %llx, raftd is member %llx of cluster %llx",
                  (unsigned long long)s->member_id, (unsigned long long)s->cluster_id, (unsigned long long)member_id,
                  (unsigned long long)cluster_id);
        return E_CLUSTER_ID_MISMATCH;
    }
    s->cluster_id = cluster_id;
    s->member_id = member_id;
    keep_identity(s);
    mvcc_set_identity(s->mvcc, cluster_id, member_id, s->term);
    out_hello(s);
    log_info("stored: member %llx of cluster %llx", (unsigned long long)member_id, (unsigned long long)cluster_id);
    return 0;
}

bool stored_is_leader(const struct stored *s)
{
    return s->raft_up && s->leader != 0 && s->leader == s->member_id;
}

struct gateway *stored_gateway(struct stored *s, uint64_t slot)
{
    if (slot > GATEWAY_SLOTS || !s->gateways[slot].up)
        return NULL;
    return &s->gateways[slot];
}

/* --- begin --------------------------------------------------------------------------------------------------- */

/* Grants give at least 1.5 election timeouts, in whole seconds (§11). */
static uint64_t min_ttl_s(const struct conf *conf)
{
    return (conf->election_timeout_ms * 3 / 2 + 999) / 1000;
}

static int ignore_pair(void *arg, struct slice key, struct slice value)
{
    UNUSED(arg);
    UNUSED(key);
    UNUSED(value);
    return 0;
}

/* mvcc_open reads what it needs itself; what other modules keep in the store must be readable too. */
static int try_open(struct stored *s, struct buf *why)
{
    static const char prefixes[] = {META_LEASE, META_ALARM, META_RESULTS, META_IDENTITY, META_DOWNGRADE,
                                    META_AUTH,  META_USER,  META_ROLE,    META_TOKEN};
    char *dir = xasprintf("%s/%s/db", s->conf->data_dir, NAME_STORE_DIR);
    struct mvcc_conf mc = {.dir = dir, .cache_bytes = s->conf->cache_bytes, .leases = s->leases};
    int err = mvcc_open(&s->mvcc, &mc, why);

    for (size_t i = 0; !err && i < sizeof prefixes; i++) {
        err = mvcc_meta_each(s->mvcc, prefixes[i], ignore_pair, NULL);
        if (err) {
            buf_printf(why, "%s: keys with prefix %c cannot be read", dir, prefixes[i]);
            mvcc_close(s->mvcc);
        }
    }
    free(dir);
    return err;
}

/* The next start gets the store of another member, if there are others; alone it says what is damaged. */
static void suspect(void *arg, const char *db)
{
    struct stored *s = arg;
    char *dir = xasprintf("%s/%s", s->conf->data_dir, NAME_STORE_DIR);

    if (strncmp(db, dir, strlen(dir)) == 0 && strcmp(db + strlen(dir), "/db") == 0) /* not one that is being loaded */
        kin_suspect(dir);
    free(dir);
}

/* A damaged store is refused, unless there are other members who have the same: then it is set aside, and raftd will
 * see to it that we get theirs (HELLO says that nothing is applied). Nothing is lost: what was applied is in a
 * majority's logs or snapshots. */
static void open_store(struct stored *s)
{
    char *dir = xasprintf("%s/%s", s->conf->data_dir, NAME_STORE_DIR);
    struct buf why = BUF_INIT;
    struct kin kin;

    s->leases = leases_new(min_ttl_s(s->conf));
    db_on_damage(suspect, s);
    bool suspected = kin_is_suspect(dir) && kin_read(dir, &kin) && kin.members > 1;
    int err = suspected ? E_DAMAGED : try_open(s, &why);
    if (suspected)
        buf_printf(&why, "%s/db: a read failed its checks", dir);
    if (err == E_DAMAGED && kin_read(dir, &kin) && kin.members > 1) {
        log_error("stored: the store is damaged, asking the other members for theirs: %.*s", (int)why.len,
                  (const char *)why.data);
        buf_reset(&why);
        swap_set_aside(dir);
        kin_trust(dir);
        db_forget_damage();
        leases_free(s->leases);
        s->leases = leases_new(min_ttl_s(s->conf));
        err = try_open(s, &why);
        s->blank = true;
        s->cluster_id = kin.cluster_id;
        s->member_id = kin.member_id;
    }
    if (err) {
        buf_add_byte(&why, '\0');
        fatalx("stored: %s/db cannot be opened: %s: %s", dir, err_text(err), (const char *)why.data);
    }
    buf_fini(&why);
    free(dir);
}

static void gateways_init(struct stored *s)
{
    for (unsigned slot = 0; slot <= GATEWAY_SLOTS; slot++) {
        s->gateways[slot].s = s;
        s->gateways[slot].slot = slot;
    }
}

/* The store and all that is kept in it or remembers something of it. */
static void store_begin(struct stored *s)
{
    struct mvcc_stats stats;

    open_store(s);
    s->applied = mvcc_applied(s->mvcc);
    lease_cmd_load(s);
    alarm_load(s);
    downgrade_load(s);
    auth_load(s);
    results_load(s);
    if (mvcc_meta_each(s->mvcc, META_IDENTITY, load_identity, s) != 0)
        fatalx("stored: identity cannot be read from the store");
    mvcc_set_identity(s->mvcc, s->cluster_id, s->member_id, s->term);
    feed_hooks(s);
    past_init(s);
    upkeep_init(s);

    mvcc_get_stats(s->mvcc, &stats);
    log_info("stored: store open, revision %lld, compacted %lld, keys %llu, leases %zu, applied %llu",
             (long long)stats.rev, (long long)stats.compact_rev, (unsigned long long)stats.keys,
             leases_count(s->leases), (unsigned long long)s->applied);
}

static void store_end(struct stored *s)
{
    read_fini(s);
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++)
        if (s->gateways[slot].ranges)
            feed_gateway_down(&s->gateways[slot]);
    past_fini(s);
    upkeep_fini(s);
    results_fini(s);
    auth_fini(s);
    alarm_fini(s);
    mvcc_close(s->mvcc);
    leases_free(s->leases);
    ring_free(s->ring);
    s->mvcc = NULL;
    s->leases = NULL;
    s->ring = NULL;
}

void stored_init(struct stored *s, const struct conf *conf, struct loop *loop)
{
    char *dir = xasprintf("%s/%s", conf->data_dir, NAME_STORE_DIR);

    *s = (struct stored){.conf = conf, .loop = loop, .instance = rand_system_u64() | 1};
    TAILQ_INIT(&s->arrived);
    TAILQ_INIT(&s->parked);
    TAILQ_INIT(&s->stalled);
    gateways_init(s);
    status_init(s);
    apply_init(s);
    snap_init(s);
    space_init(s);
    swap_recover(dir);
    free(dir);
    store_begin(s);
    if (s->blank)
        keep_identity(s);
    upkeep_defragment_at_start(s);
}

void stored_reopen(struct stored *s)
{
    char *dir = xasprintf("%s/%s", s->conf->data_dir, NAME_STORE_DIR);

    must(!s->in_batch && loop_work_pending(s->loop) == 0);
    store_end(s);
    swap_commit(dir);
    free(dir);
    store_begin(s);
    s->blank = false;
    db_forget_damage();
    /* For gateways we are another stored: what they have asked for may have been applied without a result for them. */
    s->instance = rand_system_u64() | 1;
    keep_identity(s); /* a snapshot has nobody's */
    leases_lead(s->leases, stored_is_leader(s), loop_now_ms(s->loop), s->conf->election_timeout_ms);
}

void stored_give_up(struct stored *s)
{
    char *dir = xasprintf("%s/%s", s->conf->data_dir, NAME_STORE_DIR);

    kin_suspect(dir);
    fatalx("stored: the store in %s is damaged: starting anew with the store of another member", dir);
}

static struct link *link_make(struct stored *s, const char *name, const char *base, bool listen, enum role peer,
                              unsigned slot, const struct link_ops *ops, void *arg)
{
    char *url = link_url(base, slot);
    struct link_conf lc = {
        .name = name, .url = url, .listen = listen, .self = ROLE_STORED, .peer = peer, .slot = slot};
    struct link *link;

    if (!url)
        fatalx("link: \"%s\" is not a URL of a known scheme", base);
    link = link_new(s->loop, &lc, ops, arg);
    free(url);
    return link;
}

void stored_links(struct stored *s)
{
    s->raft = link_make(s, "raftd", s->conf->raftd_url, false, ROLE_RAFTD, LINK_SLOT_STORED, &in_raft_ops, s);
    s->gateways[LINK_SLOT_STORED].link = s->raft;
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++) {
        char *name = xasprintf("gateway %u", slot);

        s->gateways[slot].link = link_make(s, name, s->conf->stored_url, true, ROLE_GATEWAYD, slot, &in_gateway_ops,
                                           &s->gateways[slot]);
        free(name);
    }
    out_hello(s);
    snap_door(s);
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++)
        link_start(s->gateways[slot].link);
    link_start(s->raft);
}

/* --- end -------------------------------------------------------------------------------------------------------- */

struct stop {
    struct stored *s;
    struct loop_timer *timer;
    uint64_t deadline_ms;
};

static void stop_poll_cb(void *arg, uint64_t now_ms)
{
    struct stop *stop = arg;
    struct stored *s = stop->s;

    if (loop_work_pending(s->loop) && now_ms < stop->deadline_ms) {
        loop_timer_set(stop->timer, now_ms + STOP_POLL_MS);
        return;
    }
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++)
        if (s->gateways[slot].up)
            link_drain(s->gateways[slot].link, STOP_DRAIN_MS);
    loop_timer_free(stop->timer);
    free(stop);
    loop_stop(s->loop);
}

void stored_stop(struct stored *s)
{
    struct stop *stop;

    if (s->stopping)
        return;
    log_info("stored: stopping, applied %llu", (unsigned long long)s->applied);
    notify_stopping();
    s->stopping = true;
    link_pause(s->raft, true); /* no further batches; those applied are answered */
    stop = xcalloc(1, sizeof *stop);
    stop->s = s;
    stop->timer = loop_timer_new(s->loop, stop_poll_cb, stop);
    stop->deadline_ms = loop_now_ms(s->loop) + STOP_WAIT_MS;
    loop_timer_set(stop->timer, loop_now_ms(s->loop));
}

void stored_fini(struct stored *s)
{
    apply_end(s);
    mvcc_sync(s->mvcc);
    snap_fini(s);
    store_end(s);
    space_fini(s);
    apply_fini(s);
    buf_fini(&s->response);
    buf_fini(&s->points);
}
