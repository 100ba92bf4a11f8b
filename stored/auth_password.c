/* auth_password - PASSWORD: is this user's password right?
 * From read.c; the check runs on a worker thread, a few at a time (PASSWORD_PARALLEL), the rest waits in order; the
 * answer goes to the gateway, which then has a token made (auth_token.c). What is asked for stands in memory only, and
 * is wiped.
 *
 * A user who does not exist costs as much as one who does, and gets the same answer: names cannot be found out by
 * asking. The answer carries the auth revision of the hash that was compared: a token is only made while that is still
 * the present one. */
#include "stored/auth.h"

#include <stdlib.h>

#include <sodium.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/mem.h"
#include "proto/pb.h"
#include "stored/password.h"
#include "stored/snap.h"
#include "stored/stored.h"

struct password_job {
    TAILQ_ENTRY(password_job) link; /* of waiting */
    struct stored *s;
    unsigned slot;
    uint64_t epoch; /* of the gateway when it asked */
    uint64_t req;
    uint64_t auth_rev; /* of the hash */
    struct buf hash, password;
    bool known; /* there is such a user */
    bool right;
};

struct password_queue {
    TAILQ_HEAD(, password_job) waiting;
    size_t waiting_count, running;
};

static void job_free(struct password_job *j)
{
    if (j->password.len)
        sodium_memzero(j->password.data, j->password.len);
    buf_fini(&j->password);
    buf_fini(&j->hash);
    free(j);
}

static void job_work(void *arg)
{
    struct password_job *j = arg;

    j->right = password_is_right(buf_slice(&j->hash), buf_slice(&j->password)) && j->known;
}

static void job_answer(const struct password_job *j)
{
    struct gateway *g = stored_gateway(j->s, j->slot);
    struct buf out = BUF_INIT;

    if (!g || g->epoch != j->epoch)
        return;
    if (!j->right) {
        out_result(g, j->req, E_AUTH_FAILED, SLICE_EMPTY);
        return;
    }
    mvcc_add_header(j->s->mvcc, &out, -1);
    pb_add_uint(&out, 2, j->s->auth->enabled);
    pb_add_uint(&out, 3, j->auth_rev);
    out_result(g, j->req, 0, buf_slice(&out));
    buf_fini(&out);
}

static void queue_run(struct stored *s);

static void job_done(void *arg)
{
    struct password_job *j = arg;
    struct stored *s = j->s;

    s->auth->passwords->running--;
    job_answer(j);
    job_free(j);
    queue_run(s);
}

static void queue_run(struct stored *s)
{
    struct password_queue *q = s->auth->passwords;
    struct password_job *j;

    /* A store that is about to be replaced waits for all jobs; gateways ask again when it is. */
    while (q->running < PASSWORD_PARALLEL && !snap_is_swapping(s) && (j = TAILQ_FIRST(&q->waiting)) != NULL) {
        TAILQ_REMOVE(&q->waiting, j, link);
        q->waiting_count--;
        q->running++;
        loop_work(s->loop, job_work, job_done, j);
    }
}

static struct password_queue *queue_of(struct auth *a)
{
    if (!a->passwords) {
        a->passwords = xcalloc(1, sizeof *a->passwords);
        TAILQ_INIT(&a->passwords->waiting);
    }
    return a->passwords;
}

/* AuthenticateRequest: 1 name, 2 password. What can be said without a check is said at once. */
static int prepare(struct auth *a, struct slice body, struct password_job *j)
{
    struct slice name = SLICE_EMPTY, password = SLICE_EMPTY;
    const struct auth_user *u;
    struct pb_field f;
    int got;

    while ((got = pb_next(&body, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_BYTES)
            name = f.bytes;
        if (f.number == 2 && f.wire == PB_BYTES)
            password = f.bytes;
    }
    if (got < 0)
        return got;
    if (!a->enabled)
        return E_AUTH_NOT_ENABLED;
    u = auth_user(a, name);
    if (u && u->no_password)
        return E_NO_PASSWORD_USER;
    j->known = u && u->password.len;
    j->auth_rev = a->rev;
    buf_add_slice(&j->hash, j->known ? buf_slice(&u->password) : password_nobody());
    buf_add_slice(&j->password, password);
    return 0;
}

void auth_password_ask(struct gateway *g, uint64_t req, struct slice body)
{
    struct password_queue *q = queue_of(g->s->auth);
    struct password_job *j;
    int err;

    if (q->waiting_count >= PASSWORD_QUEUE_MAX) {
        out_result(g, req, E_REQUEST_TOO_MANY_REQUESTS, SLICE_EMPTY);
        return;
    }
    j = xcalloc(1, sizeof *j);
    j->s = g->s;
    j->slot = g->slot;
    j->epoch = g->epoch;
    j->req = req;
    err = prepare(g->s->auth, body, j);
    if (err) {
        job_free(j);
        out_result(g, req, err, SLICE_EMPTY);
        return;
    }
    TAILQ_INSERT_TAIL(&q->waiting, j, link);
    q->waiting_count++;
    queue_run(g->s);
}

void auth_passwords_fini(struct stored *s)
{
    struct password_queue *q = s->auth->passwords;
    struct password_job *j;

    if (!q)
        return;
    while ((j = TAILQ_FIRST(&q->waiting)) != NULL) {
        TAILQ_REMOVE(&q->waiting, j, link);
        job_free(j);
    }
    free(q);
    s->auth->passwords = NULL;
}
