/* join - see join.h. A blocking client of peer.c's guests' door (HELLO without ids, MEMBERS_ASK, MEMBERS_TOLD): at this time
 * raftd has no loop's work to do, and nothing can start before the answer is here. Called by start.c. */
#include "raftd/join.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/tls.h"
#include "proto/frames.h"
#include "raftd/peer.h"

#define ASK_MS_MAX 1500   /* one peer */
#define JOIN_MS_MAX 10000 /* all attempts together: the one that was asked first may just be electing */
#define CHECK_MS_MAX 3000 /* a new cluster's members are not there yet, mostly */
#define PAUSE_MS 200
#define ANSWER_BYTES_MAX (1 * MIB)

/* --- one question ------------------------------------------------------------------------------------ */

struct asking {
    const struct conf *conf;
    int fd;
    struct tls *tls;
    uint64_t until_ms;
    struct buf in, out; /* plain */
    struct buf cipher;
};

static int wait_for(struct asking *a, short events)
{
    uint64_t now = clock_now_ms();
    struct pollfd p = {.fd = a->fd, .events = events};

    if (now >= a->until_ms || poll(&p, 1, (int)(a->until_ms - now)) != 1)
        return E_UNREACHABLE;
    return 0;
}

static int connect_one(struct asking *a, const struct addrinfo *to)
{
    int error = 0;
    socklen_t len = sizeof(error);

    a->fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (a->fd < 0)
        return E_UNREACHABLE;
    if (connect(a->fd, to->ai_addr, to->ai_addrlen) == 0)
        return 0;
    if (errno == EINPROGRESS && wait_for(a, POLLOUT) == 0 &&
        getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0)
        return 0;
    close(a->fd);
    a->fd = -1;
    return E_UNREACHABLE;
}

static int connect_to(struct asking *a, const struct conf_url *url)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    char port[8];
    int err = E_UNREACHABLE;

    snprintf(port, sizeof(port), "%u", (unsigned)url->port);
    if (getaddrinfo(url->host, port, &hints, &found) != 0)
        return E_UNREACHABLE;
    for (const struct addrinfo *i = found; i && err; i = i->ai_next)
        err = connect_one(a, i);
    freeaddrinfo(found);
    return err;
}

static int send_all(struct asking *a, struct buf *bytes)
{
    size_t at = 0;
    int err = 0;

    while (!err && at < bytes->len) {
        ssize_t n = send(a->fd, bytes->data + at, bytes->len - at, MSG_NOSIGNAL);

        if (n > 0)
            at += (size_t)n;
        else if (n < 0 && errno == EAGAIN)
            err = wait_for(a, POLLOUT);
        else
            err = E_UNREACHABLE;
    }
    buf_reset(bytes);
    return err;
}

static int flush(struct asking *a)
{
    if (!a->tls)
        return send_all(a, &a->out);
    if (a->out.len > 0) {
        int err = tls_write(a->tls, buf_slice(&a->out));

        if (err)
            return err;
        buf_reset(&a->out);
    }
    tls_output(a->tls, &a->cipher);
    return send_all(a, &a->cipher);
}

/* More bytes into `in`. */
static int receive(struct asking *a)
{
    uint8_t bytes[16384];
    int err = wait_for(a, POLLIN);
    ssize_t n = err ? 0 : recv(a->fd, bytes, sizeof(bytes), 0);

    if (n <= 0)
        return E_UNREACHABLE;
    if (!a->tls) {
        buf_add(&a->in, bytes, (size_t)n);
        return 0;
    }
    err = tls_input(a->tls, slice_of(bytes, (size_t)n));
    if (!err && !tls_is_ready(a->tls))
        err = tls_handshake(a->tls);
    if (!err && tls_is_ready(a->tls))
        err = tls_read(a->tls, &a->in);
    tls_output(a->tls, &a->cipher);
    int sent = send_all(a, &a->cipher);
    return err ? err : sent;
}

static void say(struct asking *a, const struct frame *f)
{
    size_t at = a->out.len;
    uint32_t be = 0;

    buf_add(&a->out, &be, sizeof(be));
    frame_encode(&a->out, f);
    be = htobe32((uint32_t)(a->out.len - at - sizeof(be)));
    memcpy(a->out.data + at, &be, sizeof(be));
}

/* The first message: HELLO, perhaps with more behind it. consumed: bytes of `in` that it takes. */
static int next_message(struct asking *a, struct slice *message, size_t *consumed)
{
    for (;;) {
        uint32_t be;

        if (a->in.len >= sizeof(be)) {
            memcpy(&be, a->in.data, sizeof(be));
            size_t len = be32toh(be);

            if (len == 0 || len > ANSWER_BYTES_MAX)
                return E_TOO_BIG;
            if (a->in.len >= sizeof(be) + len) {
                *message = slice_of(a->in.data + sizeof(be), len);
                *consumed = sizeof(be) + len;
                return 0;
            }
        }
        int err = receive(a);
        if (err)
            return err;
    }
}

static int answer_take(const struct frame *f, uint64_t *cluster_id, struct members *members, bool *done)
{
    if (f->type == FR_HELLO)
        return f->hello.version == FRAMES_VERSION && f->hello.role == ROLE_PEER ? 0 : E_VERSION;
    if (f->type != FR_MEMBERS_TOLD || f->members_told.cluster_id == 0)
        return E_MALFORMED;
    int err = members_decode(f->members_told.table, members);
    if (!err) {
        *cluster_id = f->members_told.cluster_id;
        *done = true;
    }
    return err;
}

static int answer_read(struct asking *a, uint64_t *cluster_id, struct members *members)
{
    bool done = false;
    int err = 0;

    while (!err && !done) {
        struct slice message;
        size_t consumed;
        struct frame f;
        int got = 0;

        err = next_message(a, &message, &consumed);
        if (err)
            break;
        while (!err && !done && (got = frame_decode(&message, &f)) == 1)
            err = answer_take(&f, cluster_id, members, &done);
        if (!err && got < 0)
            err = got;
        buf_consume(&a->in, consumed);
    }
    return err;
}

static int ask_tls(struct asking *a, const struct conf_url *url, struct tls_context **context)
{
    struct buf why = BUF_INIT;
    int err = 0;

    *context = peers_tls(a->conf, false, &why);
    if (!*context) {
        log_warnx("join: %s: its URL is https, but there are no certificates: %.*s", url->host, (int)why.len,
                  (const char *)why.data);
        buf_fini(&why);
        return E_INVALID;
    }
    buf_fini(&why);
    a->tls = tls_new(*context, url->host);
    if (!a->tls)
        return E_INVALID;
    err = tls_handshake(a->tls);
    if (!err)
        err = flush(a);
    while (!err && !tls_is_ready(a->tls))
        err = receive(a);
    if (err)
        log_warnx("join: %s:%u: %s", url->host, (unsigned)url->port, tls_why(a->tls));
    return err;
}

/* What the peer at this URL says about the members. Into an empty table. */
static int ask(const struct conf *conf, const struct conf_url *url, uint64_t until_ms, uint64_t *cluster_id,
               struct members *members)
{
    struct asking a = {.conf = conf, .fd = -1, .until_ms = MIN(until_ms, clock_now_ms() + ASK_MS_MAX)};
    struct tls_context *context = NULL;
    int err = connect_to(&a, url);

    if (!err && strcmp(url->scheme, "https") == 0)
        err = ask_tls(&a, url, &context);
    if (!err) {
        say(&a, FRAME(hello, HELLO, .version = FRAMES_VERSION, .role = ROLE_PEER));
        say(&a, FRAME(members_ask, MEMBERS_ASK, .name = slice_str(conf->name)));
        err = flush(&a);
    }
    if (!err)
        err = answer_read(&a, cluster_id, members);
    if (a.fd >= 0)
        close(a.fd);
    tls_free(a.tls);
    tls_context_free(context);
    buf_fini(&a.in);
    buf_fini(&a.out);
    buf_fini(&a.cipher);
    return err;
}

/* Asks one member after the other at all its URLs until good says yes (0). */
static int ask_any(const struct conf *conf, const struct boot *boot, uint64_t until_ms, uint64_t *cluster_id,
                   struct members *theirs)
{
    int err = E_UNREACHABLE;

    for (size_t i = 0; i < boot->members.count && err; i++) {
        struct conf_url *urls = NULL;
        size_t count = 0;

        if (boot->members.list[i].id == boot->member_id ||
            conf_parse_urls(boot->members.list[i].peer_urls, &urls, &count) != 0)
            continue;
        for (size_t k = 0; k < count && err; k++) {
            if (clock_now_ms() < until_ms && urls[k].port > 0)
                err = ask(conf, &urls[k], until_ms, cluster_id, theirs);
            if (!err && theirs->count == 0) { /* it joins itself, and knows nothing yet */
                members_fini(theirs);
                err = E_UNREACHABLE;
            }
        }
        conf_free_urls(urls, count);
    }
    return err;
}

/* --- what the answer means ----------------------------------------------------------------------------- */

static int text_cmp(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The URLs of a comma list in order, as one text. Given. */
static char *urls_sorted(const char *list)
{
    char *items[64], *text;
    size_t count = 0;
    struct buf out = BUF_INIT;

    for (const char *next = list; next && count < ARRAY_LEN(items);)
        items[count++] = slice_dup_str(conf_next_item(&next));
    qsort(items, count, sizeof(items[0]), text_cmp);
    for (size_t i = 0; i < count; i++) {
        buf_printf(&out, "%s%s", i > 0 ? "," : "", items[i]);
        free(items[i]);
    }
    text = slice_dup_str(buf_slice(&out));
    buf_fini(&out);
    return text;
}

static const struct member *find_urls(const struct members *m, const char *urls)
{
    char *wanted = urls_sorted(urls);
    const struct member *found = NULL;

    for (size_t i = 0; i < m->count && !found; i++) {
        char *theirs = urls_sorted(m->list[i].peer_urls);

        if (strcmp(theirs, wanted) == 0)
            found = &m->list[i];
        free(theirs);
    }
    free(wanted);
    return found;
}

int join_match(const struct members *wanted, uint64_t self, const struct members *theirs, uint64_t *id, struct buf *why)
{
    uint64_t found = RAFT_NONE;

    if (wanted->count != theirs->count) {
        buf_printf(why,
                   "error validating peerURLs: member count is unequal: initial-cluster has %zu, the cluster has %zu",
                   wanted->count, theirs->count);
        return E_INVALID;
    }
    for (size_t i = 0; i < wanted->count; i++) {
        const struct member *m = find_urls(theirs, wanted->list[i].peer_urls);

        if (!m) {
            buf_printf(why, "error validating peerURLs: unmatched member while checking PeerURLs: no member has %s",
                       wanted->list[i].peer_urls);
            return E_INVALID;
        }
        if (wanted->list[i].id == self) {
            found = m->id;
            if (m->client_urls[0] != '\0') {
                buf_printf(why,
                           "member %" PRIx64 " has already been bootstrapped, and its log is not here: remove it from the "
                           "cluster and add it again",
                           m->id);
                return E_INVALID;
            }
        }
    }
    must(found != RAFT_NONE);
    *id = found;
    return 0;
}

static void pause_ms(unsigned ms)
{
    struct timespec t = {.tv_nsec = (long)ms * 1000000};

    nanosleep(&t, NULL);
}

int join_identity(const struct conf *conf, struct boot *boot, struct buf *why)
{
    uint64_t until = clock_now_ms() + JOIN_MS_MAX, cluster_id = 0, id = RAFT_NONE;
    int err;

    /* A member that was asked may not have heard of our addition yet: its table is compared again, until time is over. */
    do {
        struct members theirs = {0};

        buf_reset(why);
        err = ask_any(conf, boot, until, &cluster_id, &theirs);
        if (err)
            buf_add_str(why, "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given "
                             "URLs: ");
        if (err)
            buf_add_str(why, conf->initial_cluster);
        else
            err = join_match(&boot->members, boot->member_id, &theirs, &id, why);
        members_fini(&theirs);
        if (err)
            pause_ms(PAUSE_MS);
    } while (err && clock_now_ms() < until);
    if (err)
        return err;
    boot->cluster_id = cluster_id;
    boot->member_id = id;
    members_fini(&boot->members);
    return 0;
}

int join_check_new(const struct conf *conf, const struct boot *boot, struct buf *why)
{
    struct members theirs = {0};
    uint64_t cluster_id = 0;
    int err = 0;

    if (ask_any(conf, boot, clock_now_ms() + CHECK_MS_MAX, &cluster_id, &theirs) == 0 && cluster_id == boot->cluster_id) {
        const struct member *self = members_find(&theirs, boot->member_id);

        if (members_was_removed(&theirs, boot->member_id) || (self && self->client_urls[0] != '\0')) {
            buf_printf(why,
                       "member %" PRIx64 " has already been bootstrapped, and its log is not here: remove it from the cluster, "
                       "add it again, and start it with initial-cluster-state=existing",
                       boot->member_id);
            err = E_MEMBER_EXIST;
        }
    }
    members_fini(&theirs);
    return err;
}
