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
    if (slot == 0 || slot > GATEWAY_SLOTS || !s->gateways[slot].up)
        return NULL;
    return &s->gateways[slot];
}

/* --- begin --------------------------------------------------------------------------------------------------- */

/* Grants give at least 1.5 election timeouts, in whole seconds (§11). */
static uint64_t min_ttl_s(const struct conf *conf)
{
    return (conf->election_timeout_ms * 3 / 2 + 999) / 1000;
}

static void open_store(struct stored *s)
{
    char *dir = xasprintf("%s/%s/db", s->conf->data_dir, NAME_STORE_DIR);
    struct mvcc_conf mc = {.dir = dir, .cache_bytes = s->conf->cache_bytes, .leases = s->leases};
    struct buf why = BUF_INIT;
    int err = mvcc_open(&s->mvcc, &mc, &why);

    if (err) {
        buf_add_byte(&why, '\0');
        fatalx("stored: %s cannot be opened: %s: %s", dir, err_text(err), (const char *)why.data);
    }
    buf_fini(&why);
    free(dir);
}

static void gateways_init(struct stored *s)
{
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++) {
        s->gateways[slot].s = s;
        s->gateways[slot].slot = slot;
    }
}

void stored_init(struct stored *s, const struct conf *conf, struct loop *loop)
{
    struct mvcc_stats stats;

    *s = (struct stored){.conf = conf, .loop = loop, .instance = rand_system_u64() | 1};
    TAILQ_INIT(&s->arrived);
    TAILQ_INIT(&s->parked);
    TAILQ_INIT(&s->stalled);
    gateways_init(s);
    status_init(s);

    s->leases = leases_new(min_ttl_s(conf));
    space_init(s);
    open_store(s);
    s->applied = mvcc_applied(s->mvcc);
    lease_cmd_load(s);
    alarm_load(s);
    results_load(s);
    if (mvcc_meta_each(s->mvcc, META_IDENTITY, load_identity, s) != 0)
        fatalx("stored: identity cannot be read from the store");
    mvcc_set_identity(s->mvcc, s->cluster_id, s->member_id, 0);
    feed_hooks(s);
    past_init(s);
    upkeep_init(s);

    mvcc_get_stats(s->mvcc, &stats);
    log_info("stored: store open, revision %lld, compacted %lld, keys %llu, leases %zu, applied %llu",
             (long long)stats.rev, (long long)stats.compact_rev, (unsigned long long)stats.keys,
             leases_count(s->leases), (unsigned long long)s->applied);
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
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++) {
        char *name = xasprintf("gateway %u", slot);

        s->gateways[slot].link = link_make(s, name, s->conf->stored_url, true, ROLE_GATEWAYD, slot, &in_gateway_ops,
                                           &s->gateways[slot]);
        free(name);
    }
    out_hello(s);
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
    read_fini(s);
    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++)
        if (s->gateways[slot].ranges)
            feed_gateway_down(&s->gateways[slot]);
    past_fini(s);
    upkeep_fini(s);
    results_fini(s);
    alarm_fini(s);
    space_fini(s);
    mvcc_close(s->mvcc);
    leases_free(s->leases);
    ring_free(s->ring);
    buf_fini(&s->response);
}
