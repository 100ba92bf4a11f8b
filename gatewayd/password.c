/* password - new passwords become hashes (argon2id, libsodium), on worker threads and few at a time: one takes some 50 ms
 * and 64 MiB (password_cost.h). From auth.c. A password is wiped from memory as soon as it is not needed. */
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "common/err.h"
#include "common/log.h"
#include "common/password_cost.h"
#include "gatewayd/gatewayd.h"

#define BCRYPT_BYTES 60

struct password_job {
    struct password_queue *queue;
    struct password_job *next;
    password_cb *done; /* NULL: nobody waits any more */
    void *arg;
    unsigned long long passes;
    size_t memory;
    int rv;
    char hash[crypto_pwhash_STRBYTES];
    size_t len;
    uint8_t password[];
};

struct password_queue {
    struct loop *loop; /* NULL: the gateway is gone; the last job frees the queue */
    struct password_job *first, *last;
    size_t waiting, running;
};

void secret_wipe(void *bytes, size_t len)
{
    if (len > 0) {
        sodium_memzero(bytes, len);
    }
}

static void job_free(struct password_job *job)
{
    secret_wipe(job->password, job->len);
    free(job);
}

static void job_work(void *arg)
{
    struct password_job *job = arg;
    job->rv = crypto_pwhash_str_alg(job->hash, (const char *)job->password, job->len, job->passes, job->memory,
        crypto_pwhash_ALG_ARGON2ID13);
    secret_wipe(job->password, job->len);
}

static void queue_pump(struct password_queue *q);

static void job_done(void *arg)
{
    struct password_job *job = arg;
    struct password_queue *q = job->queue;
    q->running--;
    if (q->loop == NULL) {
        if (q->running == 0) {
            free(q);
        }
    } else {
        queue_pump(q);
        if (job->done != NULL) {
            job->done(job->arg, job->rv == 0 ? OK : E_FULL, job->hash);
        }
    }
    job_free(job);
}

static void queue_pump(struct password_queue *q)
{
    while (q->running < PASSWORD_HASHES_MAX && q->first != NULL) {
        struct password_job *job = q->first;
        q->first = job->next;
        q->waiting--;
        if (job->done == NULL) { /* its client went away while it waited */
            job_free(job);
            continue;
        }
        q->running++;
        loop_work(q->loop, job_work, job_done, job);
    }
    if (q->first == NULL) {
        q->last = NULL;
    }
}

int password_hash(struct gatewayd *g, struct slice password, password_cb *done, void *arg, struct password_job **handle)
{
    if (g->passwords == NULL) {
        must(sodium_init() >= 0);
        g->passwords = xcalloc(1, sizeof(*g->passwords));
        g->passwords->loop = g->loop;
    }
    struct password_queue *q = g->passwords;
    must(password.len <= PASSWORD_BYTES_MAX);
    if (q->waiting >= PASSWORD_WAITING_MAX) {
        return E_REQUEST_TOO_MANY_REQUESTS;
    }
    struct password_job *job = xcalloc(1, sizeof(*job) + password.len);
    *job = (struct password_job){.queue = q, .done = done, .arg = arg, .len = password.len};
    if (password.len > 0) {
        memcpy(job->password, password.data, password.len);
    }
    password_cost(g->conf->bcrypt_cost, &job->passes, &job->memory);
    *(q->last != NULL ? &q->last->next : &q->first) = job;
    q->last = job;
    q->waiting++;
    queue_pump(q);
    *handle = job;
    return OK;
}

void password_forget(struct password_job *job) { job->done = NULL; }

void password_stop(struct gatewayd *g)
{
    struct password_queue *q = g->passwords;
    g->passwords = NULL;
    if (q == NULL) {
        return;
    }
    while (q->first != NULL) {
        struct password_job *job = q->first;
        q->first = job->next;
        job_free(job);
    }
    q->loop = NULL;
    if (q->running == 0) {
        free(q);
    }
}

/* "$2b$10$" and 53 characters of bcrypt's own alphabet: 22 of salt, 31 of hash. */
static bool is_bcrypt_hash(const uint8_t *h)
{
    static const char alphabet[] = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    if (memcmp(h, "$2", 2) != 0 || memchr("aby", h[2], 3) == NULL || h[3] != '$' || h[6] != '$') {
        return false;
    }
    int cost = h[4] >= '0' && h[4] <= '3' && h[5] >= '0' && h[5] <= '9' ? 10 * (h[4] - '0') + h[5] - '0' : 0;
    for (size_t i = 7; i < BCRYPT_BYTES; i++) {
        if (memchr(alphabet, h[i], sizeof(alphabet) - 1) == NULL) {
            return false;
        }
    }
    return cost >= 4 && cost <= 31;
}

bool password_is_bcrypt(struct slice text)
{
    uint8_t hash[BCRYPT_BYTES];
    size_t len = 0;
    int rv = sodium_base642bin(hash, sizeof(hash), (const char *)text.data, text.len, NULL, &len, NULL, sodium_base64_VARIANT_ORIGINAL);
    return rv == 0 && len == sizeof(hash) && is_bcrypt_hash(hash);
}
