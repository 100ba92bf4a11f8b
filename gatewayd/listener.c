/* listener - the sockets that clients connect to: one for each address of listen-client-urls, listen-client-http-urls and
 * listen-metrics-urls. What a listener serves and whether it encrypts is handed on to its connections (conn.c). */
#include "gatewayd/conn_int.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"

#define LISTEN_BACKLOG 1024

static void accept_cb(uv_stream_t *stream, int status)
{
    if (status < 0) {
        log_debug("conn: accept: %s", uv_strerror(status));
        return;
    }
    conn_accept(stream->data);
}

static struct listener *listener_add(struct server *s, const struct conf_url *url, unsigned serves)
{
    if (s->listener_count == LISTENERS_MAX) {
        fatalx("conn: more than %d addresses to listen on", LISTENERS_MAX);
    }
    struct listener *l = &s->listeners[s->listener_count++];
    *l = (struct listener){.server = s, .serves = serves};
    l->is_tls = strcmp(url->scheme, "https") == 0 || strcmp(url->scheme, "unixs") == 0;
    l->is_unix = strncmp(url->scheme, "unix", 4) == 0;
    return l;
}

static void set_option(uv_handle_t *handle, int option, const char *name)
{
    uv_os_fd_t fd;
    int on = 1;
    if (uv_fileno(handle, &fd) == 0 && setsockopt(fd, SOL_SOCKET, option, &on, sizeof(on)) != 0) {
        log_warn("conn: %s", name);
    }
}

/* One address. 0 or a libuv error. */
static int listen_on(struct server *s, const struct addrinfo *a, const struct conf_url *url, unsigned serves)
{
    struct listener *l = listener_add(s, url, serves); /* also a failed one: it is closed with the rest */
    uv_tcp_t *tcp = &l->socket.tcp;
    int rv = uv_tcp_init_ex(loop_uv(s->gateway->loop), tcp, (unsigned)a->ai_family);
    if (rv != 0) {
        s->listener_count--;
        return rv;
    }
    tcp->data = l;
    if (s->gateway->conf->socket_reuse_port) {
        set_option(&l->socket.handle, SO_REUSEPORT, "SO_REUSEPORT");
    }
    /* An address for all IPv6 must not take the IPv4 one too, which may be listed on its own. libuv sets SO_REUSEADDR. */
    rv = uv_tcp_bind(tcp, a->ai_addr, a->ai_family == AF_INET6 ? UV_TCP_IPV6ONLY : 0);
    return rv == 0 ? uv_listen(&l->socket.stream, LISTEN_BACKLOG, accept_cb) : rv;
}

static void listen_unix(struct server *s, const struct conf_url *url, unsigned serves)
{
    struct listener *l = listener_add(s, url, serves);
    struct stat st;
    if (lstat(url->host, &st) == 0 && S_ISSOCK(st.st_mode)) {
        unlink(url->host); /* of an earlier run, which was killed */
    }
    must(uv_pipe_init(loop_uv(s->gateway->loop), &l->socket.pipe, 0) == 0);
    l->socket.pipe.data = l;
    int rv = uv_pipe_bind(&l->socket.pipe, url->host);
    if (rv == 0) {
        rv = uv_listen(&l->socket.stream, LISTEN_BACKLOG, accept_cb);
    }
    if (rv != 0) {
        fatalx("conn: cannot listen on %s://%s: %s", url->scheme, url->host, uv_strerror(rv));
    }
    log_info("conn: listening on %s://%s", url->scheme, url->host);
}

static void listen_tcp(struct server *s, const char *key, const struct conf_url *url, unsigned serves)
{
    char port[8];
    snprintf(port, sizeof(port), "%u", url->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
    int rv = getaddrinfo(url->host, port, &hints, &list);
    if (rv != 0) {
        fatalx("conn: cannot resolve %s of %s: %s", url->host, key, gai_strerror(rv));
    }
    size_t good = 0;
    int last = 0;
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        char name[NI_MAXHOST];
        if (getnameinfo(a->ai_addr, a->ai_addrlen, name, sizeof(name), NULL, 0, NI_NUMERICHOST) != 0) {
            strcpy(name, "?");
        }
        int err = listen_on(s, a, url, serves);
        if (err == UV_EADDRINUSE) {
            fatalx("conn: cannot listen on %s port %s (%s:%s): address already in use", name, port, url->host, port);
        }
        if (err != 0) {
            last = err; /* "localhost" may name ::1 on a host without IPv6 */
            log_debug("conn: cannot listen on %s port %s: %s", name, port, uv_strerror(err));
            continue;
        }
        log_info("conn: listening on %s port %s%s", name, port, s->listeners[s->listener_count - 1].is_tls ? ", TLS" : "");
        good++;
    }
    freeaddrinfo(list);
    if (good == 0) {
        fatalx("conn: cannot listen on %s:%s: %s", url->host, port, uv_strerror(last));
    }
}

static void listen_list(struct server *s, const char *key, const char *list, unsigned serves)
{
    struct conf_url *urls = NULL;
    size_t count = 0;
    if (list[0] == '\0') {
        return;
    }
    if (conf_parse_urls(list, &urls, &count) != OK) {
        fatalx("conn: %s %s cannot be understood", key, list);
    }
    for (size_t i = 0; i < count; i++) {
        if (conf_url_is_open(&urls[i])) {
            log_warnx("conn: %s: %s://%s:%u serves everybody who can reach it, in the clear; this is strongly discouraged", key,
                urls[i].scheme, urls[i].host, urls[i].port);
        }
        if (strncmp(urls[i].scheme, "unix", 4) == 0) {
            listen_unix(s, &urls[i], serves);
        } else {
            listen_tcp(s, key, &urls[i], serves);
        }
    }
    conf_free_urls(urls, count);
}

void listeners_open(struct server *s)
{
    const struct conf *conf = s->gateway->conf;
    bool split = conf->listen_client_http_urls[0] != '\0';
    listen_list(s, "listen-client-urls", conf->listen_client_urls, split ? SERVES_GRPC : SERVES_GRPC | SERVES_HTTP);
    listen_list(s, "listen-client-http-urls", conf->listen_client_http_urls, SERVES_HTTP);
    listen_list(s, "listen-metrics-urls", conf->listen_metrics_urls, SERVES_METRICS);
}

void listeners_close(struct server *s)
{
    for (size_t i = 0; i < s->listener_count; i++) {
        if (!uv_is_closing(&s->listeners[i].socket.handle)) {
            uv_close(&s->listeners[i].socket.handle, NULL);
        }
    }
}
