/* results - what this node's gateways are told about their commands.
 * apply.c adds a result per command of this node while a batch is open; they are written with the batch (so a result
 * exists exactly if its effect does), and sent after it. The last batches' results stay in the store and are told again at
 * each `up` of a gateway's link: a restart of stored, or a message lost with a link, is then invisible to a proposal.
 * A gateway ignores what it no longer waits for, so telling twice is harmless.
 *
 *   record   'o' index(8, big endian) -> (slot instance req err body)*, msgpack
 */
#include "stored/stored.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/pack.h"

struct result {
    uint64_t slot, instance, req;
    int err;
    bool delayed; /* answered by upkeep.c, when a compaction is done; here only to be remembered */
    size_t body_at, body_len; /* in results->bodies */
};

/* A batch that is remembered. */
struct memory {
    STAILQ_ENTRY(memory) link;
    uint64_t index;
    struct buf bytes; /* as in the store */
};

struct results {
    struct result *now; /* of the open batch */
    size_t count, cap;
    struct buf bodies;
    STAILQ_HEAD(, memory) memories; /* oldest first */
    size_t memory_count, memory_bytes;
};

static void memory_add(struct results *rs, uint64_t index, struct slice bytes)
{
    struct memory *m = xcalloc(1, sizeof *m);

    m->index = index;
    buf_add_slice(&m->bytes, bytes);
    STAILQ_INSERT_TAIL(&rs->memories, m, link);
    rs->memory_count++;
    rs->memory_bytes += bytes.len;
}

static uint64_t memory_drop_oldest(struct results *rs)
{
    struct memory *m = STAILQ_FIRST(&rs->memories);
    uint64_t index = m->index;

    STAILQ_REMOVE_HEAD(&rs->memories, link);
    rs->memory_count--;
    rs->memory_bytes -= m->bytes.len;
    buf_fini(&m->bytes);
    free(m);
    return index;
}

static int load_one(void *arg, struct slice key, struct slice value)
{
    uint64_t index;

    if (key.len != sizeof index)
        fatalx("results: damaged record in the store, key of %zu bytes", key.len);
    memcpy(&index, key.data, sizeof index);
    memory_add(arg, be64toh(index), value);
    return 0;
}

void results_load(struct stored *s)
{
    struct results *rs = xcalloc(1, sizeof *rs);

    STAILQ_INIT(&rs->memories);
    s->results = rs;
    if (mvcc_meta_each(s->mvcc, META_RESULTS, load_one, rs) != 0)
        fatalx("results: cannot be read from the store");
}

void results_fini(struct stored *s)
{
    struct results *rs = s->results;

    if (!rs)
        return;
    while (!STAILQ_EMPTY(&rs->memories))
        memory_drop_oldest(rs);
    buf_fini(&rs->bodies);
    free(rs->now);
    free(rs);
    s->results = NULL;
}

void results_add(struct stored *s, const struct command *c, int err, struct slice body, bool delayed)
{
    struct results *rs = s->results;

    if (c->origin == 0 || c->origin != s->member_id)
        return;
    /* A batch may hold a thousand transactions that each read much: what they did is done, what they read is not told. */
    if (body.len > RESULT_PART_BYTES && rs->bodies.len + body.len > RESULTS_BYTES_MAX) {
        err = E_TOO_BIG;
        body = SLICE_EMPTY;
    }
    if (rs->count == rs->cap) {
        rs->cap = rs->cap ? rs->cap * 2 : 256;
        rs->now = xrealloc(rs->now, rs->cap * sizeof *rs->now);
    }
    rs->now[rs->count++] = (struct result){.slot = c->slot,
                                           .instance = c->instance,
                                           .req = c->req,
                                           .err = err,
                                           .delayed = delayed,
                                           .body_at = rs->bodies.len,
                                           .body_len = body.len};
    buf_add_slice(&rs->bodies, body);
}

void results_write(struct stored *s, uint64_t index)
{
    struct results *rs = s->results;
    struct buf bytes = BUF_INIT;
    uint64_t key;

    if (!rs->count)
        return;
    for (size_t i = 0; i < rs->count; i++) {
        const struct result *r = &rs->now[i];
        bool large = r->body_len > RESULT_MEMORY_BODY_MAX;

        pack_u64(&bytes, r->slot);
        pack_u64(&bytes, r->instance);
        pack_u64(&bytes, r->req);
        pack_u64(&bytes, (uint64_t)-(large ? E_AMBIGUOUS : r->err));
        pack_bin(&bytes, large ? SLICE_EMPTY : buf_part(&rs->bodies, r->body_at, r->body_len));
    }
    key = htobe64(index);
    mvcc_meta_put(s->mvcc, META_RESULTS, slice_of(&key, sizeof key), buf_slice(&bytes));
    memory_add(rs, index, buf_slice(&bytes));
    buf_fini(&bytes);

    /* The newest batch is always kept, however large it is. */
    while (rs->memory_count > RESULT_MEMORY_BATCHES ||
           (rs->memory_count > 1 && rs->memory_bytes > RESULT_MEMORY_BYTES_MAX)) {
        key = htobe64(memory_drop_oldest(rs));
        mvcc_meta_delete(s->mvcc, META_RESULTS, slice_of(&key, sizeof key));
    }
}

/* The gateway that asked, if it is still there and still the same. */
static struct gateway *asker(struct stored *s, uint64_t slot, uint64_t instance)
{
    struct gateway *g = stored_gateway(s, slot);

    return g && g->instance == instance ? g : NULL;
}

void results_send(struct stored *s)
{
    struct results *rs = s->results;

    for (size_t i = 0; i < rs->count; i++) {
        const struct result *r = &rs->now[i];
        struct gateway *g = asker(s, r->slot, r->instance);

        if (!g || r->delayed)
            continue;
        if (r->err)
            out_result(g, r->req, r->err, SLICE_EMPTY);
        else
            read_result(g, r->req, buf_part(&rs->bodies, r->body_at, r->body_len));
    }
    rs->count = 0;
    buf_reset(&rs->bodies);
    if (rs->bodies.cap > RESULTS_KEEP_BYTES)
        buf_fini(&rs->bodies);
}

/* Tells g its results out of one remembered batch; false if the bytes are damaged. */
static bool repeat_batch(struct gateway *g, struct slice in)
{
    while (in.len > 0) {
        uint64_t slot, instance, req, number;
        struct slice body;

        if (unpack_u64(&in, &slot) || unpack_u64(&in, &instance) || unpack_u64(&in, &req) ||
            unpack_u64(&in, &number) || unpack_bytes(&in, RESULT_MEMORY_BODY_MAX, &body))
            return false;
        if (slot != g->slot || instance != g->instance)
            continue;
        g->s->stats.results_repeated++;
        out_result(g, req, number ? err_from_number(number) : 0, body);
    }
    return true;
}

void results_repeat(struct gateway *g)
{
    struct memory *m;

    STAILQ_FOREACH(m, &g->s->results->memories, link)
        if (!repeat_batch(g, buf_slice(&m->bytes)))
            fatalx("results: damaged record in the store, batch of index %llu", (unsigned long long)m->index);
}
