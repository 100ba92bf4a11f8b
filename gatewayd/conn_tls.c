/* conn_tls - the TLS of a connection (common/tls.h): handshakes, which cost a signature each, are made by workers, a few at a time;
 * what comes after is encrypted and decrypted on the loop, between conn.c and the protocol.
 *
 *   waiting --a place is free--> jobs --worker--> handshakes (the client's turn) --bytes--> jobs ... --> READY
 *                                                     \\--silent for HANDSHAKE_PATIENCE_MS while others wait--> closed
 *
 * Holds at all times: handshake_count <= HANDSHAKES_MAX; jobs_running <= HANDSHAKE_JOBS_MAX; a connection with a job at work is not read
 * from, and its struct tls is the worker's. */
#include "gatewayd/conn_int.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/err.h"

static void start_jobs(struct server *s);

/* --- queues ------------------------------------------------------------------------------------- */

static void leave_queue(struct conn *c)
{
    if (c->queue != NULL) {
        TAILQ_REMOVE((struct conn_queue *)c->queue, c, handshake_entry);
        c->queue = NULL;
    }
}

static void join_queue(struct conn *c, struct conn_queue *queue)
{
    leave_queue(c);
    TAILQ_INSERT_TAIL(queue, c, handshake_entry);
    c->queue = (void *)queue;
}

/* --- a handshake that has failed ---------------------------------------------------------------- */

static void address_of(const struct conn *c, char *text, size_t size)
{
    struct sockaddr_storage from;
    int len = sizeof(from);
    snprintf(text, size, "unix");
    if (c->socket.handle.type != UV_TCP || uv_tcp_getpeername(&c->socket.tcp, (struct sockaddr *)&from, &len) != 0) {
        return;
    }
    if (from.ss_family == AF_INET) {
        uv_ip4_name((const struct sockaddr_in *)&from, text, size);
    } else {
        uv_ip6_name((const struct sockaddr_in6 *)&from, text, size);
    }
}

static void reject(struct conn *c, const char *why)
{
    struct server *s = c->server;
    uint64_t swallowed = 0;
    char address[INET6_ADDRSTRLEN];
    address_of(c, address, sizeof(address));
    if (log_allow(&s->rejected, gatewayd_now_ms(s->gateway), &swallowed)) {
        log_warnx("conn: rejected connection on client endpoint from %s: %s (%llu more not logged)", address, why,
            (unsigned long long)swallowed);
    }
    stats_dropped(s->gateway, DROP_TLS);
    conn_flush(c); /* an alert tells the client why, if the socket takes it at once */
    conn_close(c);
}

/* --- places --------------------------------------------------------------------------------------- */

static void place_take(struct conn *c)
{
    struct server *s = c->server;
    char address[INET6_ADDRSTRLEN];
    address_of(c, address, sizeof(address));
    c->tls = tls_new(s->tls, address);
    c->tls_state = CONN_TLS_HANDSHAKING;
    s->handshake_count++;
    must(tls_input(c->tls, buf_slice(&c->hello)) == OK);
    buf_fini(&c->hello);
    join_queue(c, &s->jobs);
    start_jobs(s);
}

static void fill_places(struct server *s)
{
    while (s->handshake_count < HANDSHAKES_MAX && !TAILQ_EMPTY(&s->waiting)) {
        place_take(TAILQ_FIRST(&s->waiting));
    }
}

/* Others wait: who has let us wait for too long goes. */
static void patience_fired(struct deadline *d, uint64_t now_ms)
{
    struct server *s = container_of(d, struct server, patience);
    struct conn *c;
    fill_places(s);
    while (!TAILQ_EMPTY(&s->waiting) && (c = TAILQ_FIRST(&s->handshakes)) != NULL
           && now_ms - c->handshake_ms >= HANDSHAKE_PATIENCE_MS) {
        stats_dropped(s->gateway, DROP_SLOW);
        conn_close(c); /* gives its place to the next */
    }
    if (!TAILQ_EMPTY(&s->waiting)) {
        c = TAILQ_FIRST(&s->handshakes);
        deadline_set(s->gateway, &s->patience, MAX(c != NULL ? c->handshake_ms + HANDSHAKE_PATIENCE_MS : 0, now_ms + 1));
    }
}

/* --- jobs ----------------------------------------------------------------------------------------- */

static void job_work(void *arg)
{
    struct conn *c = arg;
    c->job_err = tls_handshake(c->tls);
}

static void handshake_over(struct conn *c)
{
    struct server *s = c->server;
    c->tls_state = CONN_TLS_READY;
    c->client.common_name = tls_common_name(c->tls);
    s->handshake_count--;
    fill_places(s);
    conn_set_reading(c, true);
    conn_tls_receive(c, SLICE_EMPTY); /* what came with the handshake's last words */
}

static void job_done(void *arg)
{
    struct conn *c = arg;
    struct server *s = c->server;
    c->job_running = false;
    s->jobs_running--;
    start_jobs(s);
    if (c->closing) {
        s->handshake_count--;
        fill_places(s);
    } else if (c->job_err != OK) {
        reject(c, tls_why(c->tls));
    } else {
        conn_wants_write(c);
        if (tls_is_ready(c->tls)) {
            handshake_over(c);
        } else {
            c->handshake_ms = gatewayd_now_ms(s->gateway);
            join_queue(c, &s->handshakes);
            conn_set_reading(c, true);
        }
    }
    conn_unhold(c);
}

static void start_jobs(struct server *s)
{
    struct conn *c;
    while (s->jobs_running < HANDSHAKE_JOBS_MAX && (c = TAILQ_FIRST(&s->jobs)) != NULL) {
        leave_queue(c);
        c->job_running = true;
        c->holds++;
        s->jobs_running++;
        loop_work(s->gateway->loop, job_work, job_done, c);
    }
}

/* --- bytes ------------------------------------------------------------------------------------------ */

void conn_tls_begin(struct conn *c) { c->tls_state = CONN_TLS_WAITING; }

static void hello_received(struct conn *c, struct slice bytes)
{
    struct server *s = c->server;
    buf_add_slice(&c->hello, bytes);
    conn_set_reading(c, false);
    join_queue(c, &s->waiting);
    fill_places(s);
    if (!TAILQ_EMPTY(&s->waiting)) {
        patience_fired(&s->patience, gatewayd_now_ms(s->gateway));
    }
}

void conn_tls_receive(struct conn *c, struct slice bytes)
{
    struct server *s = c->server;
    if (c->tls_state == CONN_TLS_WAITING) {
        hello_received(c, bytes);
        return;
    }
    int err = bytes.len > 0 ? tls_input(c->tls, bytes) : OK;
    if (c->tls_state == CONN_TLS_HANDSHAKING) {
        c->handshake_bytes += bytes.len;
        if (err != OK || c->handshake_bytes > HANDSHAKE_BYTES_MAX) {
            reject(c, "its handshake is too long");
            return;
        }
        conn_set_reading(c, false);
        join_queue(c, &s->jobs);
        start_jobs(s);
        return;
    }
    buf_reset(&s->plain);
    if (err == OK) {
        err = tls_read(c->tls, &s->plain);
    }
    if (tls_output_bytes(c->tls) > 0) {
        conn_wants_write(c);
        if (c->writing && tls_output_bytes(c->tls) > TLS_ANSWERS_BYTES_MAX) {
            conn_set_reading(c, false); /* it makes TLS answer and does not take the answers */
        }
    }
    if (s->plain.len > 0) {
        conn_receive(c, buf_slice(&s->plain));
    }
    if (err != OK && !c->closing) {
        conn_ended(c);
    }
}

int conn_tls_write(struct conn *c, struct slice plain, struct buf *cipher)
{
    int err = OK;
    if (c->tls == NULL || c->job_running) {
        return OK;
    }
    if (plain.len > 0) {
        err = tls_write(c->tls, plain);
    }
    tls_output(c->tls, cipher);
    return err;
}

/* --- life --------------------------------------------------------------------------------------------- */

void conn_tls_forget(struct conn *c)
{
    leave_queue(c);
    if (c->tls_state == CONN_TLS_HANDSHAKING && !c->job_running) {
        c->tls_state = CONN_TLS_WAITING;
        c->server->handshake_count--;
        fill_places(c->server);
    }
}

void conn_tls_fini(struct conn *c)
{
    tls_free(c->tls);
    buf_fini(&c->hello);
    free(c->client.common_name);
}

/* Where auto-tls keeps what it has made. The gateway runs as the owner of the data, or does without. */
static char *own_directory(const struct conf *conf)
{
    char *fixtures = xasprintf("%s/fixtures", conf->data_dir), *dir = xasprintf("%s/fixtures/client", conf->data_dir);
    bool there = (mkdir(fixtures, 0700) == 0 || errno == EEXIST) && (mkdir(dir, 0700) == 0 || errno == EEXIST);
    free(fixtures);
    if (!there) {
        log_warn("conn: the certificate of auto-tls cannot be kept in %s", dir);
        dir[0] = '\0';
    }
    return dir;
}

/* Hosts of all URLs, as names in the certificate of auto-tls. */
static char *own_hosts(const struct conf *conf)
{
    const char *lists[] = {conf->listen_client_urls, conf->listen_client_http_urls, conf->listen_metrics_urls};
    struct buf hosts = BUF_INIT;
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        struct conf_url *urls = NULL;
        size_t count = 0;
        if (lists[i][0] == '\0' || conf_parse_urls(lists[i], &urls, &count) != OK) {
            continue;
        }
        for (size_t k = 0; k < count; k++) {
            if (strcmp(urls[k].scheme, "https") == 0) {
                buf_printf(&hosts, "%s%s", hosts.len > 0 ? "," : "", urls[k].host);
            }
        }
        conf_free_urls(urls, count);
    }
    buf_add_byte(&hosts, '\0');
    return (char *)hosts.data;
}

void conn_tls_setup(struct server *s)
{
    const struct conf *conf = s->gateway->conf;
    TAILQ_INIT(&s->waiting);
    TAILQ_INIT(&s->handshakes);
    TAILQ_INIT(&s->jobs);
    s->patience.fire = patience_fired;
    bool self_signed = conf->auto_tls && conf->cert_file[0] == '\0';
    if (conf->cert_file[0] == '\0' && !self_signed) {
        return; /* conf_finish has seen that no URL needs it */
    }
    char *dir = self_signed ? own_directory(conf) : NULL, *hosts = self_signed ? own_hosts(conf) : NULL;
    struct tls_conf tc = {
        .server = true,
        .cert_file = conf->cert_file,
        .key_file = conf->key_file,
        .ca_file = conf->trusted_ca_file,
        .crl_file = conf->client_crl_file,
        .crl_partial = true,
        .require_cert = conf->client_cert_auth || conf->trusted_ca_file[0] != '\0',
        .self_signed = self_signed,
        .self_signed_dir = dir,
        .self_signed_hosts = hosts,
        .self_signed_years = (unsigned)conf->self_signed_cert_validity,
        .allowed_cn = conf->client_cert_allowed_cn,
        .allowed_hostname = conf->client_cert_allowed_hostname,
        .min_version = conf->tls_min_version,
        .max_version = conf->tls_max_version,
        .cipher_suites = conf->cipher_suites,
        .alpn = "h2,http/1.1",
    };
    struct buf why = BUF_INIT;
    s->tls = tls_context_new(&tc, &why);
    if (s->tls == NULL) {
        fatalx("conn: %.*s", (int)why.len, (const char *)why.data);
    }
    if (self_signed) {
        log_warnx("conn: auto-tls: clients are served with a certificate of our own making, and nobody is authenticated by it");
    }
    free(dir);
    free(hosts);
}

void conn_tls_stop(struct server *s)
{
    deadline_stop(s->gateway, &s->patience);
    tls_context_free(s->tls);
    s->tls = NULL;
}
