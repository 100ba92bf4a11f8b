/* server - all connections of clients together: their limits, and their turn. Sockets come from listener.c, each connection is
 * conn.c's.
 * Holds at all times: at most conn_max connections, of which at most HALF_OPEN_MAX have not said what they want. */
#include "gatewayd/conn_int.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "common/err.h"

static void server_turn_end(void *arg)
{
    struct server *s = arg;
    while (!LIST_EMPTY(&s->resting)) {
        conn_rested(LIST_FIRST(&s->resting));
    }
    struct conn *dirty = s->dirty;
    s->dirty = NULL;
    while (dirty != NULL) {
        struct conn *c = dirty;
        dirty = c->dirty_next;
        c->dirty = false;
        conn_flush(c);
    }
    if (s->dirty != NULL) {
        loop_wake(s->again); /* told again while it was flushed */
    }
    gatewayd_arm_wakeup(s->gateway);
}

void server_dirty_remove(struct conn *c)
{
    struct conn **at = &c->server->dirty;
    if (!c->dirty) {
        return;
    }
    while (*at != NULL && *at != c) {
        at = &(*at)->dirty_next;
    }
    if (*at == c) {
        *at = c->dirty_next;
    }
    c->dirty = false;
}

static void server_again(void *arg)
{
    UNUSED(arg); /* the turn's end does the work */
}

struct server *server_new(struct gatewayd *g)
{
    struct server *s = xcalloc(1, sizeof(*s));
    s->gateway = g;
    s->read_bytes = xmalloc(CONN_READ_BYTES);
    s->again = loop_wake_new(g->loop, server_again, s);
    s->conn_max = CONNECTIONS_MAX;
    LIST_INIT(&s->conns);
    LIST_INIT(&s->resting);
    TAILQ_INIT(&s->half_open);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur != RLIM_INFINITY) {
        size_t usable = files.rlim_cur > 2 * CONNECTION_SPARE_FILES ? files.rlim_cur - CONNECTION_SPARE_FILES : CONNECTION_SPARE_FILES;
        s->conn_max = MIN(s->conn_max, usable);
    }
    conn_tls_setup(s);
    listeners_open(s);
    loop_on_turn_end(g->loop, server_turn_end, s);
    return s;
}

void server_shutdown(struct server *s)
{
    s->stopping = true;
    listeners_close(s);
    for (struct conn *c = LIST_FIRST(&s->conns), *next; c != NULL; c = next) {
        next = LIST_NEXT(c, entry);
        if (c->self == NULL) {
            conn_close(c);
        } else {
            c->protocol->shutdown(c->self);
            conn_wants_write(c);
        }
    }
}

void server_free(struct server *s)
{
    if (s == NULL) {
        return;
    }
    listeners_close(s);
    while (!LIST_EMPTY(&s->conns)) {
        conn_close(LIST_FIRST(&s->conns));
    }
    while (s->jobs_running > 0) {
        uv_run(loop_uv(s->gateway->loop), UV_RUN_ONCE);
    }
    uv_run(loop_uv(s->gateway->loop), UV_RUN_NOWAIT); /* closed callbacks */
    conn_tls_stop(s);
    loop_wake_free(s->again);
    buf_fini(&s->scratch);
    buf_fini(&s->cipher);
    buf_fini(&s->plain);
    free(s->read_bytes);
    free(s);
}

size_t server_handshakes(const struct server *s) { return s->handshake_count; }

uint64_t server_tls_reloads(const struct server *s) { return s->tls != NULL ? tls_context_reloads(s->tls) : 0; }

size_t server_conn_count(const struct server *s) { return s->conn_count; }

uint16_t server_port(const struct server *s)
{
    struct sockaddr_storage a = {0};
    int len = sizeof(a);
    must(s->listener_count > 0 && uv_tcp_getsockname(&s->listeners[0].socket.tcp, (struct sockaddr *)&a, &len) == 0);
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port : ((struct sockaddr_in *)&a)->sin_port);
}
