/* mvcc_help - a store in a directory of its own for tests, and requests in one line. Responses are decoded with the
 * generated code, so that what we append by hand is held against another reader. */
#ifndef TESTS_STORED_MVCC_HELP_H
#define TESTS_STORED_MVCC_HELP_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "etcd/rpc.pb-c.h"
#include "stored/lease.h"
#include "stored/mvcc.h"

struct store {
    char root[64], dir[80], boot[32];
    struct mvcc *m;
    struct leases *leases;
    uint64_t index; /* raft index of the last batch */
    int64_t lease; /* known again after a restart; 0: none */
};

static inline int store_try_open(struct store *s, struct buf *why)
{
    s->leases = leases_new(2);
    struct mvcc_conf conf = {.dir = s->dir, .cache_bytes = 1 << 20, .leases = s->leases, .boot_id = s->boot,
                             .checkpoint_revs_min = 1};
    int err = mvcc_open(&s->m, &conf, why);
    if (err != 0) {
        leases_free(s->leases);
        s->m = NULL;
        return err;
    }
    s->index = mvcc_applied(s->m);
    if (s->lease != 0) {
        lease_load(s->leases, s->lease, 100);
    }
    leases_loaded(s->leases);
    return 0;
}

static inline void store_open(struct store *s)
{
    struct buf why = BUF_INIT;
    int err = store_try_open(s, &why);
    cr_assert_eq(err, 0, "%.*s", (int)why.len, (char *)why.data);
    buf_fini(&why);
}

static inline void store_new(struct store *s)
{
    log_init("test", LOG_L_ERROR);
    *s = (struct store){.index = 0};
    snprintf(s->root, sizeof(s->root), "/tmp/trine-mvcc-XXXXXX");
    cr_assert_not_null(mkdtemp(s->root));
    snprintf(s->dir, sizeof(s->dir), "%s/db", s->root);
    snprintf(s->boot, sizeof(s->boot), "boot-1");
    store_open(s);
}

static inline void store_close(struct store *s)
{
    mvcc_close(s->m);
    s->m = NULL;
    leases_free(s->leases);
}

static inline void store_remove(struct store *s)
{
    char cmd[160];
    if (s->m != NULL) {
        store_close(s);
    }
    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", s->root);
    cr_assert_eq(system(cmd), 0);
}

static inline void store_reopen(struct store *s)
{
    store_close(s);
    store_open(s);
}

static inline void begin(struct store *s)
{
    mvcc_batch_begin(s->m);
}
static inline void end(struct store *s)
{
    mvcc_chain_link(s->m, ++s->index);
    mvcc_batch_end(s->m, s->index);
}

static inline uint64_t chain_of(const struct store *s)
{
    struct buf points = BUF_INIT;
    uint64_t hash = mvcc_chain(s->m, 0, &points);
    buf_fini(&points);
    return hash;
}

static inline struct slice S(const char *text)
{
    return slice_str(text);
}

static inline int64_t put_in_batch(struct store *s, const char *key, const char *value)
{
    struct buf out = BUF_INIT;
    struct api_put rq = {.key = S(key), .value = S(value)};
    cr_assert_eq(mvcc_put(s->m, &rq, &out), 0);
    buf_fini(&out);
    return mvcc_rev(s->m);
}

static inline int64_t put(struct store *s, const char *key, const char *value)
{
    begin(s);
    int64_t rev = put_in_batch(s, key, value);
    end(s);
    return rev;
}

static inline int put_rq(struct store *s, struct api_put rq, Etcdserverpb__PutResponse **response)
{
    struct buf out = BUF_INIT;
    begin(s);
    int err = mvcc_put(s->m, &rq, &out);
    end(s);
    if (response != NULL) {
        *response = err != 0 ? NULL : etcdserverpb__put_response__unpack(NULL, out.len, out.data);
        cr_assert(err != 0 || *response != NULL);
    }
    cr_assert(err == 0 || out.len == 0);
    buf_fini(&out);
    return err;
}

static inline int64_t delete_rq(struct store *s, struct api_delete rq, Etcdserverpb__DeleteRangeResponse **response)
{
    struct buf out = BUF_INIT;
    begin(s);
    cr_assert_eq(mvcc_delete(s->m, &rq, &out), 0);
    end(s);
    Etcdserverpb__DeleteRangeResponse *r = etcdserverpb__delete_range_response__unpack(NULL, out.len, out.data);
    cr_assert_not_null(r);
    int64_t deleted = r->deleted;
    if (response != NULL) {
        *response = r;
    } else {
        etcdserverpb__delete_range_response__free_unpacked(r, NULL);
    }
    buf_fini(&out);
    return deleted;
}

static inline int64_t del(struct store *s, const char *key)
{
    delete_rq(s, (struct api_delete){.key = S(key)}, NULL);
    return mvcc_rev(s->m);
}

static inline int compact(struct store *s, int64_t rev)
{
    struct buf out = BUF_INIT;
    begin(s);
    int err = mvcc_compact(s->m, rev, &out);
    end(s);
    buf_fini(&out);
    return err;
}

/* Until nothing is left to delete. */
static inline void compact_physically(struct store *s)
{
    mvcc_sync(s->m);
    while (mvcc_compact_step(s->m, 10, mvcc_durable(s->m))) {
    }
}

static inline int range_rq(struct store *s, struct api_range rq, size_t part, Etcdserverpb__RangeResponse **response)
{
    struct range_job *job;
    int err = range_open(s->m, &rq, false, &job);
    *response = NULL;
    if (err != 0) {
        return err;
    }
    struct buf out = BUF_INIT;
    bool more = true;
    while (more) {
        cr_assert_eq(range_next(job, part, &out, &more), 0);
    }
    cr_assert_eq(range_total(job), out.len);
    range_close(job);
    *response = etcdserverpb__range_response__unpack(NULL, out.len, out.data);
    cr_assert_not_null(*response);
    buf_fini(&out);
    return 0;
}

static inline Etcdserverpb__RangeResponse *range(struct store *s, struct api_range rq)
{
    Etcdserverpb__RangeResponse *r;
    int err = range_rq(s, rq, 1 << 20, &r);
    cr_assert_eq(err, 0, "%s", err_text(err));
    return r;
}

static inline void range_free(Etcdserverpb__RangeResponse *r)
{
    if (r != NULL) {
        etcdserverpb__range_response__free_unpacked(r, NULL);
    }
}

static inline int range_err(struct store *s, struct api_range rq)
{
    Etcdserverpb__RangeResponse *r;
    int err = range_rq(s, rq, 1 << 20, &r);
    range_free(r);
    return err;
}

static inline bool bytes_are(ProtobufCBinaryData b, const char *text)
{
    return b.len == strlen(text) && (b.len == 0 || memcmp(b.data, text, b.len) == 0);
}

/* "a=1 b=2" of a response's pairs, in order; static memory. */
static inline const char *pairs(const Etcdserverpb__RangeResponse *r)
{
    static char text[4096];
    size_t at = 0;
    text[0] = '\0';
    for (size_t i = 0; i < r->n_kvs; i++) {
        const Mvccpb__KeyValue *kv = r->kvs[i];
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%.*s=%.*s", i == 0 ? "" : " ", (int)kv->key.len,
                               (const char *)kv->key.data, (int)kv->value.len, (const char *)kv->value.data);
    }
    return text;
}

/* The pairs of [key, end) at a revision. */
static inline const char *pairs_at(struct store *s, const char *key, const char *range_end, int64_t rev)
{
    Etcdserverpb__RangeResponse *r = range(s, (struct api_range){.key = S(key), .range_end = S(range_end), .revision = rev});
    const char *text = pairs(r);
    range_free(r);
    return text;
}

#endif
