/* peer - who the other members are, when to dial them, and what goes to whom. See peer.h; bytes are peer_conn.c's.
 * From out.c, forward.c and main.c; connections tell their turns of life by the peers_* functions below. */
#include "raftd/peer_int.h"

#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/mem.h"

#define DIAL_MS_MIN 20
#define DIAL_MS_MAX 1000
#define LISTEN_BACKLOG 128
#define READ_BYTES (256 * KIB)
/* Looked at this often: deadlines here are coarse. */
#define TICK_MS 25

struct peer *peers_find(const struct peers *p, uint64_t member)
{
    if (member == RAFT_NONE)
        return NULL;
    for (size_t i = 0; i < PEERS_MAX; i++) {
        if (p->list[i].id == member)
            return (struct peer *)&p->list[i];
    }
    return NULL;
}

int peers_place(const struct peers *p, uint64_t member)
{
    const struct peer *peer = peers_find(p, member);

    return peer ? (int)(peer - p->list) : -1;
}

uint64_t peers_at(const struct peers *p, unsigned place)
{
    return place < PEERS_MAX ? p->list[place].id : RAFT_NONE;
}

/* --- members -------------------------------------------------------------------------------------- */

static void targets_fini(struct peer *peer)
{
    for (size_t i = 0; i < peer->target_count; i++)
        free(peer->targets[i].host);
    free(peer->targets);
    free(peer->urls);
    peer->targets = NULL;
    peer->target_count = 0;
    peer->urls = NULL;
}

static void targets_set(struct peer *peer, const char *urls)
{
    struct conf_url *list = NULL;
    size_t count = 0;

    targets_fini(peer);
    peer->urls = xstrdup(urls);
    if (conf_parse_urls(urls, &list, &count) != 0) {
        if (urls[0])
            log_warnx("peer: member %" PRIx64 ": '%s' are no URLs", peer->id, urls);
        return;
    }
    peer->targets = xcalloc(count + 1, sizeof(*peer->targets));
    for (size_t i = 0; i < count; i++) {
        if (list[i].port == 0)
            continue;
        peer->targets[peer->target_count++] = (struct peer_target){
            .tls = strcmp(list[i].scheme, "https") == 0, .host = xstrdup(list[i].host), .port = list[i].port};
    }
    conf_free_urls(list, count);
}

/* Answers that were meant for it, and that it is out. */
static void last_words(struct peers *p, struct peer *peer)
{
    if (p->ops->was_removed(peer->id, p->arg))
        peers_send(p, peer->id, PEER_STREAM_BEATS,
                   FRAME(removed, REMOVED, .cluster_id = p->conf.cluster_id, .member_id = peer->id));
    for (unsigned s = 0; s < PEER_STREAMS; s++) {
        if (peer->streams[s].dialled)
            peer_conn_flush(peer->streams[s].dialled);
        if (peer->streams[s].accepted)
            peer_conn_flush(peer->streams[s].accepted);
    }
}

static void conns_close(struct peer *peer, bool dialled_only)
{
    for (unsigned s = 0; s < PEER_STREAMS; s++) {
        if (peer->streams[s].dialled)
            peer_conn_close(peer->streams[s].dialled, NULL);
        if (!dialled_only && peer->streams[s].accepted)
            peer_conn_close(peer->streams[s].accepted, NULL);
    }
}

static struct peer *peer_add(struct peers *p, uint64_t id)
{
    for (size_t i = 0; i < PEERS_MAX; i++) {
        struct peer *peer = &p->list[i];

        if (peer->id != RAFT_NONE)
            continue;
        *peer = (struct peer){.id = id};
        histogram_init(&peer->round_trip, 100, 15); /* etcd's: 0.0001 s * 2^k */
        for (unsigned s = 0; s < PEER_STREAMS; s++)
            backoff_init(&peer->streams[s].backoff, DIAL_MS_MIN, p->dial_ms_max);
        return peer;
    }
    return NULL;
}

static void peer_remove(struct peers *p, struct peer *peer)
{
    last_words(p, peer);
    conns_close(peer, false);
    targets_fini(peer);
    *peer = (struct peer){0};
}

static bool is_member(const struct members *members, uint64_t id)
{
    return members_find(members, id) != NULL;
}

void peers_set(struct peers *p, const struct members *members)
{
    for (size_t i = 0; i < PEERS_MAX; i++) {
        if (p->list[i].id != RAFT_NONE && !is_member(members, p->list[i].id) && (members->count > 0 || p->told_members))
            peer_remove(p, &p->list[i]);
    }
    p->told_members = p->told_members || members->count > 0;
    for (size_t i = 0; i < members->count; i++) {
        const struct member *m = &members->list[i];
        struct peer *peer = peers_find(p, m->id);

        if (m->id == p->conf.member_id)
            continue;
        if (!peer)
            peer = peer_add(p, m->id);
        if (!peer || (peer->urls && strcmp(peer->urls, m->peer_urls) == 0))
            continue;
        targets_set(peer, m->peer_urls);
        conns_close(peer, true); /* they go to where it was */
    }
    loop_timer_set(p->timer, loop_now_ms(p->loop));
}

/* --- dialling -------------------------------------------------------------------------------------- */

static void dial_due(struct peers *p, struct peer *peer, uint64_t now_ms)
{
    for (unsigned s = 0; s < PEER_STREAMS && peer->target_count > 0; s++) {
        size_t attempt = peer->streams[s].attempts;

        if (peer->streams[s].dialled || now_ms < peer->streams[s].dial_ms)
            continue;
        peer->streams[s].dial_ms = now_ms + backoff_next(&peer->streams[s].backoff, &p->rand);
        peer->streams[s].attempts++;
        peer_conn_dial(p, peer, s, &peer->targets[attempt % peer->target_count]);
    }
}

static void tick_cb(void *arg, uint64_t now_ms)
{
    struct peers *p = arg;
    struct peer_conn *c, *next;
    bool any = false;

    for (c = LIST_FIRST(&p->conns); c; c = next) {
        next = LIST_NEXT(c, entry);
        any = true;
        peer_conn_tick(c, now_ms);
    }
    for (size_t i = 0; i < PEERS_MAX; i++) {
        if (p->list[i].id == RAFT_NONE)
            continue;
        any = true;
        dial_due(p, &p->list[i], now_ms);
    }
    if (any)
        loop_timer_set(p->timer, now_ms + TICK_MS);
}

/* --- what connections tell -------------------------------------------------------------------------- */

static struct peer_conn **conn_place(struct peer_conn *c)
{
    return c->dialled ? &c->peer->streams[c->stream].dialled : &c->peer->streams[c->stream].accepted;
}

static int hello_refuse(struct peer_conn *c, const struct fr_hello *h, const char *why)
{
    uint64_t swallowed;

    if (log_allow(&c->peers->refused_limit, loop_now_ms(c->peers->loop), &swallowed))
        log_warnx("peer: %s says it is member %" PRIx64 " of cluster %" PRIx64 ", frames version %" PRIu64
                  ": refused: %s (we are %" PRIx64 " of %" PRIx64 ", version %d)",
                  c->address, h->member_id, h->cluster_id, h->version, why, c->peers->conf.member_id,
                  c->peers->conf.cluster_id, FRAMES_VERSION);
    return E_CLUSTER_ID_MISMATCH;
}

bool peers_is_guest(const struct peer_conn *c, const struct fr_hello *h, bool *removed)
{
    const struct peers *p = c->peers;

    *removed = false;
    if (c->dialled || h->version != FRAMES_VERSION || h->role != ROLE_PEER)
        return false;
    if (h->cluster_id == 0 && h->member_id == RAFT_NONE)
        return true;
    *removed = h->cluster_id == p->conf.cluster_id && p->ops->was_removed(h->member_id, p->arg);
    return *removed;
}

/* It lives and reaches us: what was learned from failures is old. Attempts that a broken network has swallowed are not
 * waited for. */
static void dial_again(struct peers *p, struct peer *peer)
{
    uint64_t now_ms = loop_now_ms(p->loop);

    for (unsigned s = 0; s < PEER_STREAMS; s++) {
        struct peer_conn *c = peer->streams[s].dialled;

        if (c && c->state != PEER_CONN_UP &&
            now_ms - c->heard_ms >= (c->state == PEER_CONN_OPENING ? PEER_CONNECT_FRESH_MS : p->connect_ms))
            peer_conn_close(c, NULL);
        backoff_reset(&peer->streams[s].backoff);
        peer->streams[s].dial_ms = 0;
    }
    loop_timer_set(p->timer, now_ms);
}

static bool any_up(const struct peer *peer)
{
    for (unsigned s = 0; s < PEER_STREAMS; s++) {
        const struct peer_conn *ours = peer->streams[s].dialled, *theirs = peer->streams[s].accepted;

        if ((ours && ours->state == PEER_CONN_UP) || (theirs && theirs->state == PEER_CONN_UP))
            return true;
    }
    return false;
}

static void instance_note(struct peer *peer, uint64_t instance)
{
    peer->gone = peer->gone || (peer->instance != 0 && peer->instance != instance);
    peer->instance = instance;
    peer->refused = false;
}

int peers_hello(struct peer_conn *c, const struct fr_hello *h)
{
    struct peers *p = c->peers;
    struct peer *peer;

    if (h->version != FRAMES_VERSION) {
        hello_refuse(c, h, "another version");
        return E_VERSION;
    }
    if (h->role != ROLE_PEER || h->slot >= PEER_STREAMS)
        return E_MALFORMED;
    if (h->cluster_id != p->conf.cluster_id)
        return hello_refuse(c, h, "another cluster");
    if (h->member_id == p->conf.member_id || h->member_id == RAFT_NONE)
        return hello_refuse(c, h, "that is our own id");
    if (c->dialled) {
        if (h->member_id != c->peer->id || h->slot != c->stream)
            return hello_refuse(c, h, "not who was called");
        instance_note(c->peer, h->instance);
        return 0;
    }

    peer = peers_find(p, h->member_id);
    if (!peer && p->ops->may_talk(h->member_id, p->arg))
        peer = peer_add(p, h->member_id);
    if (!peer)
        return hello_refuse(c, h, "not a member");
    c->peer = peer;
    c->stream = (unsigned)h->slot;
    /* It dials again when it has lost a connection; we may not have noticed yet. */
    if (peer->streams[c->stream].accepted)
        peer_conn_close(peer->streams[c->stream].accepted, NULL);
    peer->streams[c->stream].accepted = c;
    instance_note(peer, h->instance);
    dial_again(p, peer);
    return 0;
}

void peers_conn_refused(struct peer_conn *c)
{
    c->peer->refused = c->peer->instance != 0;
}

/* Nobody listens where it was heard before, and nobody speaks to us any more: its process has ended. While it speaks it lives: its
 * URL is wrong, or something between us refuses one way. Told once; after that it is just away. */
static void refused_judge(struct peer *peer)
{
    if (!peer->refused || any_up(peer))
        return;
    peer->gone = true;
    peer->refused = false;
    peer->instance = 0;
}

void peers_conn_up(struct peer_conn *c, const struct fr_hello *theirs)
{
    struct peer *peer = c->peer;

    if (!c->dialled)
        return;
    backoff_reset(&peer->streams[c->stream].backoff);
    if (c->peers->ops->reached)
        c->peers->ops->reached(peer->id, (enum peer_stream)c->stream, theirs, c->peers->arg);
    if (c->stream == PEER_STREAM_BEATS) {
        log_info("peer: member %" PRIx64 " is reached at %s%s%s", peer->id, c->address, c->tls ? ", " : "",
                 c->tls ? tls_version(c->tls) : "");
    }
}

void peers_conn_gone(struct peer_conn *c)
{
    struct peer *peer = c->peer;

    if (!peer)
        return;
    if (*conn_place(c) == c)
        *conn_place(c) = NULL;
    if (c->dialled && c->state != PEER_CONN_UP && c->stream == PEER_STREAM_BEATS)
        counter_add(&peer->sent_failures, 1);
    if (c->state != PEER_CONN_UP)
        return;
    peer->lost = true;
    if (c->dialled && c->stream == PEER_STREAM_BEATS) {
        counter_add(&peer->downs, 1);
        if (!c->peers->ending)
            log_info("peer: member %" PRIx64 " is not reached any more at %s", peer->id, c->address);
    }
    /* At once: it was there a moment ago. Either it still is, or we shall know that it is not. */
    if (c->dialled && !c->peers->ending) {
        peer->streams[c->stream].dial_ms = 0;
        loop_timer_set(c->peers->timer, loop_now_ms(c->peers->loop));
    }
}

/* --- sending ---------------------------------------------------------------------------------------- */

static struct peer_conn *way_to(const struct peer *peer, unsigned stream)
{
    struct peer_conn *c = peer->streams[stream].dialled;

    if (c && c->state == PEER_CONN_UP)
        return c;
    c = peer->streams[stream].accepted; /* theirs, for want of a way of our own */
    return c && c->state == PEER_CONN_UP ? c : NULL;
}

struct buf *peers_begin(struct peers *p, uint64_t member, enum peer_stream stream)
{
    struct peer *peer = peers_find(p, member);
    struct peer_conn *c = peer ? way_to(peer, stream) : NULL;

    must(!p->open);
    if (!c || c->out.len + c->sending.len >= PEER_PENDING_BYTES_MAX) {
        if (peer) {
            counter_add(&peer->sent_failures, 1);
            peer->lost = true;
        }
        return NULL;
    }
    peer_conn_open_message(c);
    p->open = c;
    return &c->out;
}

void peers_end(struct peers *p)
{
    must(p->open);
    p->open = NULL;
}

bool peers_send(struct peers *p, uint64_t member, enum peer_stream stream, const struct frame *f)
{
    struct buf *out = peers_begin(p, member, stream);

    if (!out)
        return false;
    frame_encode(out, f);
    peers_end(p);
    return true;
}

uint64_t peers_way(const struct peers *p, uint64_t member, enum peer_stream stream)
{
    const struct peer *peer = peers_find(p, member);
    const struct peer_conn *c = peer ? way_to(peer, stream) : NULL;

    return c && c->dialled ? c->number : 0;
}

bool peers_is_up(const struct peers *p, uint64_t member)
{
    const struct peer *peer = peers_find(p, member);

    return peer && way_to(peer, PEER_STREAM_BEATS);
}

uint64_t peers_up_since_ms(const struct peers *p, uint64_t member)
{
    const struct peer *peer = peers_find(p, member);
    const struct peer_conn *c = peer ? way_to(peer, PEER_STREAM_BEATS) : NULL;

    return c ? c->up_ms : UINT64_MAX;
}

void peers_report(struct peers *p)
{
    for (size_t i = 0; i < PEERS_MAX; i++) {
        struct peer *peer = &p->list[i];

        refused_judge(peer);
        if (peer->lost)
            p->ops->lost(peer->id, p->arg);
        if (peer->gone && p->ops->gone)
            p->ops->gone(peer->id, p->arg);
        peer->lost = peer->gone = false;
    }
}

static void turn_end_cb(void *arg)
{
    struct peers *p = arg;
    struct peer_conn *c, *next;

    for (c = LIST_FIRST(&p->conns); c; c = next) {
        next = LIST_NEXT(c, entry);
        if (c->out.len > 0)
            peer_conn_flush(c);
    }
}

/* --- listening -------------------------------------------------------------------------------------- */

static void connection_cb(uv_stream_t *stream, int status)
{
    struct peer_listener *l = stream->data;

    if (status == 0)
        peer_conn_accept(l->peers, stream, l->tls);
}

static void listener_closed_cb(uv_handle_t *handle)
{
    free(handle->data);
}

static void listen_at(struct peers *p, const struct sockaddr *at, bool tls, const char *url)
{
    struct peer_listener *l = xcalloc(1, sizeof(*l));
    int err;

    if (p->listener_count == PEER_LISTENERS_MAX)
        fatalx("peer: listen-peer-urls: more than %d addresses", PEER_LISTENERS_MAX);
    must(uv_tcp_init(loop_uv(p->loop), &l->tcp) == 0);
    l->tcp.data = l;
    l->peers = p;
    l->tls = tls;
    p->listeners[p->listener_count++] = l;
    err = uv_tcp_bind(&l->tcp, at, 0);
    if (!err)
        err = uv_listen((uv_stream_t *)&l->tcp, LISTEN_BACKLOG, connection_cb);
    if (err)
        fatalx("peer: listen-peer-urls: %s cannot be listened on: %s", url, uv_strerror(err));
}

static void listen_url(struct peers *p, const struct conf_url *url)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    char port[8], *text = xasprintf("%s://%s:%u", url->scheme, url->host, (unsigned)url->port);
    bool tls = strcmp(url->scheme, "https") == 0;

    /* etcd's reading of localhost, too. */
    if (strcmp(url->host, "localhost") == 0)
        hints.ai_family = AF_INET;
    snprintf(port, sizeof(port), "%u", (unsigned)url->port);
    if (tls && !p->tls_server)
        fatalx("peer: cannot listen on TLS for %s: peer-key-file and peer-cert-file are not given", text);
    int err = getaddrinfo(url->host, port, &hints, &found);
    if (err)
        fatalx("peer: listen-peer-urls: %s: %s", text, gai_strerror(err));
    listen_at(p, found->ai_addr, tls, text);
    freeaddrinfo(found);
    free(text);
}

void peers_listen(struct peers *p)
{
    struct conf_url *urls = NULL;
    size_t count = 0;

    if (conf_parse_urls(p->conf.conf->listen_peer_urls, &urls, &count) != 0)
        fatalx("peer: listen-peer-urls: '%s' are no URLs", p->conf.conf->listen_peer_urls);
    for (size_t i = 0; i < count; i++)
        listen_url(p, &urls[i]);
    conf_free_urls(urls, count);
}

/* --- beginning and end ------------------------------------------------------------------------------- */

struct tls_context *peers_tls(const struct conf *c, bool server, struct buf *why)
{
    bool own_client = !server && c->peer_client_cert_file[0] != '\0';

    if (!c->peer_cert_file[0] && !c->peer_auto_tls)
        return NULL;
    struct tls_conf tc = {
        .server = server,
        .cert_file = own_client ? c->peer_client_cert_file : c->peer_cert_file,
        .key_file = own_client ? c->peer_client_key_file : c->peer_key_file,
        .ca_file = c->peer_trusted_ca_file,
        .crl_file = c->peer_crl_file,
        .require_cert = c->peer_client_cert_auth || c->peer_trusted_ca_file[0],
        .self_signed = !c->peer_cert_file[0],
        .allowed_cn = c->peer_cert_allowed_cn,
        .allowed_hostname = c->peer_cert_allowed_hostname,
        .check_address = !c->peer_skip_client_san_verification,
        .min_version = c->tls_min_version,
        .max_version = c->tls_max_version,
        .cipher_suites = c->cipher_suites,
        .self_signed_years = (unsigned)c->self_signed_cert_validity,
    };
    return tls_context_new(&tc, why);
}

static void tls_setup(struct peers *p)
{
    struct buf why = BUF_INIT;

    p->tls_server = peers_tls(p->conf.conf, true, &why);
    if (why.len == 0)
        p->tls_client = peers_tls(p->conf.conf, false, &why);
    if (why.len > 0)
        fatalx("peer: %.*s", (int)why.len, (const char *)why.data);
    buf_fini(&why);
}

struct peers *peers_new(struct loop *loop, const struct peers_conf *conf, const struct peers_ops *ops, void *arg)
{
    struct peers *p = xcalloc(1, sizeof(*p));

    p->loop = loop;
    p->conf = *conf;
    p->ops = ops;
    p->arg = arg;
    p->ping_ms = 5 * conf->conf->heartbeat_interval_ms;
    p->dead_ms = MAX(3 * p->ping_ms, conf_is_given(conf->conf, "raft-read-timeout") ? conf->conf->raft_read_timeout_ms
                                                                                   : 2 * conf->conf->election_timeout_ms);
    p->connect_ms = MIN(MAX(conf->conf->election_timeout_ms, PEER_CONNECT_MS_MIN), PEER_CONNECT_MS_MAX);
    p->hello_ms = MIN(MAX(2 * conf->conf->election_timeout_ms, PEER_HELLO_MS_MIN), PEER_HELLO_MS_MAX);
    p->dial_ms_max = MIN(MAX(conf->conf->election_timeout_ms / 2, 2 * DIAL_MS_MIN), DIAL_MS_MAX);
    p->read_bytes = xmalloc(READ_BYTES);
    rand_seed(&p->rand, conf->instance);
    LIST_INIT(&p->conns);
    tls_setup(p);
    p->timer = loop_timer_new(loop, tick_cb, p);
    loop_on_turn_end(loop, turn_end_cb, p);
    return p;
}

void peers_free(struct peers *p)
{
    struct peer_conn *c;

    if (!p)
        return;
    p->ending = true;
    turn_end_cb(p); /* last words: who leads now */
    loop_off_turn_end(p->loop, turn_end_cb, p);
    while ((c = LIST_FIRST(&p->conns)))
        peer_conn_close(c, NULL);
    for (size_t i = 0; i < p->listener_count; i++)
        uv_close((uv_handle_t *)&p->listeners[i]->tcp, listener_closed_cb);
    loop_timer_free(p->timer);
    /* Memory of connections goes in loop_free, when libuv gives back what it holds of them. */
    for (size_t i = 0; i < PEERS_MAX; i++)
        targets_fini(&p->list[i]);
    tls_context_free(p->tls_server);
    tls_context_free(p->tls_client);
    free(p->read_bytes);
    free(p);
}

/* --- metrics ------------------------------------------------------------------------------------------ */

static void render(const struct peers *p, struct buf *out, const char *name, const char *type, const char *help,
                   const char *label, bool local, uint64_t (*value)(const struct peer *))
{
    char labels[96];

    metrics_help(out, name, type, help);
    for (size_t i = 0; i < PEERS_MAX; i++) {
        const struct peer *peer = &p->list[i];

        if (peer->id == RAFT_NONE)
            continue;
        if (local)
            snprintf(labels, sizeof(labels), "Local=\"%" PRIx64 "\",Remote=\"%" PRIx64 "\"", p->conf.member_id, peer->id);
        else
            snprintf(labels, sizeof(labels), "%s=\"%" PRIx64 "\"", label, peer->id);
        metrics_u64(out, name, labels, value(peer));
    }
}

static uint64_t sent_bytes(const struct peer *peer) { return counter_read(&peer->sent_bytes); }
static uint64_t received_bytes(const struct peer *peer) { return counter_read(&peer->received_bytes); }
static uint64_t sent_failures(const struct peer *peer) { return counter_read(&peer->sent_failures); }
static uint64_t received_failures(const struct peer *peer) { return counter_read(&peer->received_failures); }
static uint64_t is_active(const struct peer *peer) { return way_to(peer, PEER_STREAM_BEATS) != NULL; }
static uint64_t downs(const struct peer *peer) { return counter_read(&peer->downs); }

void peers_render(const struct peers *p, struct buf *out)
{
    char labels[64];

    render(p, out, "etcd_network_peer_sent_bytes_total", METRICS_COUNTER, "The total number of bytes sent to peers.", "To",
           false, sent_bytes);
    render(p, out, "etcd_network_peer_received_bytes_total", METRICS_COUNTER,
           "The total number of bytes received from peers.", "From", false, received_bytes);
    render(p, out, "etcd_network_peer_sent_failures_total", METRICS_COUNTER,
           "The total number of send failures from peers.", "To", false, sent_failures);
    render(p, out, "etcd_network_peer_received_failures_total", METRICS_COUNTER,
           "The total number of receive failures from peers.", "From", false, received_failures);
    render(p, out, "etcd_network_active_peers", METRICS_GAUGE, "The current number of active peer connections.", NULL, true,
           is_active);
    render(p, out, "etcd_network_disconnected_peers_total", METRICS_COUNTER, "The total number of disconnected peers.",
           NULL, true, downs);
    metrics_help(out, "etcd_network_peer_round_trip_time_seconds", METRICS_HISTOGRAM,
                 "Round-Trip-Time histogram between peers");
    for (size_t i = 0; i < PEERS_MAX; i++) {
        if (p->list[i].id == RAFT_NONE)
            continue;
        snprintf(labels, sizeof(labels), "To=\"%" PRIx64 "\"", p->list[i].id);
        histogram_render(out, "etcd_network_peer_round_trip_time_seconds", labels, &p->list[i].round_trip);
    }
}
