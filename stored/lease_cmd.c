/* lease_cmd - the lease commands of the log and the lease queries of clients, over lease.h and mvcc.h.
 * From apply.c (grant, revoke, expire) and read.c (keep-alive, time-to-live, list); the messages are small and are taken
 * apart here with pb.h. Rules: spec/semantics.md §11.
 *
 * Expiry is decided by the leader and applied by all. An expire that an old leader proposed and that reaches the log under
 * a later one must not take a lease that the later one renewed: it carries the term it was decided in, and is skipped
 * if the entry's term is another. */
#include "stored/stored.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/pb.h"

struct lease_record { /* value of META_LEASE, big endian */
    uint64_t ttl_s, index;
};

static uint64_t lease_key(int64_t id)
{
    return htobe64((uint64_t)id);
}

/* Up to two varint fields, 1 and 2: what every lease request consists of. */
static int decode_two(struct slice body, int64_t *one, int64_t *two)
{
    struct pb_field f;
    int got;

    *one = *two = 0;
    while ((got = pb_next(&body, &f)) == 1) {
        if (f.wire == PB_VARINT && f.number == 1)
            *one = (int64_t)f.varint;
        if (f.wire == PB_VARINT && f.number == 2)
            *two = (int64_t)f.varint;
    }
    return got;
}

int lease_cmd_grant(struct stored *s, struct slice body, uint64_t index, struct buf *out)
{
    int64_t ttl, id, granted;
    uint64_t key;
    struct lease_record record;
    int err = decode_two(body, &ttl, &id);

    if (!err)
        err = lease_grant(s->leases, id, ttl, &granted, loop_now_ms(s->loop));
    if (err)
        return err;
    key = lease_key(id);
    record = (struct lease_record){htobe64((uint64_t)granted), htobe64(index)};
    mvcc_meta_put(s->mvcc, META_LEASE, slice_of(&key, sizeof key), slice_of(&record, sizeof record));
    /* Not what was granted: that depends on the member's own election timeout. */
    mvcc_chain_add(s->mvcc, META_LEASE, (uint64_t)id, (uint64_t)ttl);
    s->stats.leases_granted++;
    histogram_observe(&s->stats.lease_ttl, (uint64_t)granted);

    mvcc_add_header(s->mvcc, out, -1);
    pb_add_int(out, 2, id);
    pb_add_int(out, 3, granted);
    return 0;
}

/* Its keys in one revision, then the lease itself. */
static void revoke(struct stored *s, int64_t id)
{
    uint64_t key = lease_key(id);
    struct slice *keys;
    size_t count = lease_keys(s->leases, id, &keys);

    if (count) {
        /* Deleting a key detaches it, which frees the bytes that lease.c lent: the keys are copied first. */
        struct buf bytes = BUF_INIT;
        size_t at = 0;

        for (size_t i = 0; i < count; i++)
            buf_add_slice(&bytes, keys[i]);
        for (size_t i = 0; i < count; i++) {
            keys[i].data = bytes.data + at;
            at += keys[i].len;
        }
        mvcc_delete_keys(s->mvcc, keys, count);
        buf_fini(&bytes);
    }
    free(keys);
    must(lease_drop(s->leases, id) == 0);
    mvcc_chain_add(s->mvcc, META_LEASE, (uint64_t)id, 0);
    mvcc_meta_delete(s->mvcc, META_LEASE, slice_of(&key, sizeof key));
}

int lease_cmd_revoke(struct stored *s, struct slice body, struct buf *out)
{
    int64_t id, unused;
    int err = decode_two(body, &id, &unused);

    if (!err && !lease_exists(s->leases, id))
        err = E_LEASE_NOT_FOUND;
    if (err)
        return err;
    revoke(s, id);
    s->stats.leases_revoked++;
    mvcc_add_header(s->mvcc, out, -1);
    return 0;
}

/* LeaseLeasesResponse: 1 header (4 raft_term: when it was decided), 2 leases (1 ID). */
void lease_cmd_expire(struct stored *s, struct slice body, uint64_t entry_term)
{
    struct slice rest = body, header;
    struct pb_field f;
    uint64_t term = 0;

    while (pb_next(&rest, &f) == 1) {
        if (f.number != 1 || f.wire != PB_BYTES)
            continue;
        header = f.bytes;
        while (pb_next(&header, &f) == 1)
            if (f.number == 4 && f.wire == PB_VARINT)
                term = f.varint;
    }
    if (term != entry_term) {
        log_info("lease: an expiry decided in term %llu came into the log in term %llu: skipped",
                 (unsigned long long)term, (unsigned long long)entry_term);
        return;
    }
    while (pb_next(&body, &f) == 1) {
        int64_t id, unused;

        if (f.number != 2 || f.wire != PB_BYTES || decode_two(f.bytes, &id, &unused) != 0)
            continue;
        if (!lease_exists(s->leases, id)) /* revoked by a client in the meantime */
            continue;
        revoke(s, id);
        s->stats.leases_expired++;
    }
}

/* "It is gone" is only said when that is true for everybody, so that the client can take the same id again (§11). */
bool lease_cmd_renewal_waits(const struct stored *s, struct slice body)
{
    int64_t id, unused, left, granted;

    return decode_two(body, &id, &unused) == 0 && lease_exists(s->leases, id) &&
           lease_time_to_live(s->leases, id, &left, &granted, loop_now_ms(s->loop)) == E_LEASE_NOT_FOUND;
}

int lease_cmd_keep_alive(struct stored *s, struct slice body, struct buf *out)
{
    int64_t id, unused, ttl = 0;
    int err = decode_two(body, &id, &unused);

    if (err)
        return err;
    mvcc_add_header(s->mvcc, out, -1); /* before the renewal, as §1 has it */
    err = lease_renew(s->leases, id, &ttl, loop_now_ms(s->loop));
    if (err && err != E_LEASE_NOT_FOUND)
        return err;
    if (!err)
        s->stats.leases_renewed++;
    pb_add_int(out, 2, id);
    pb_add_int(out, 3, err ? 0 : ttl); /* unknown, or due: 0 */
    return 0;
}

int lease_cmd_time_to_live(struct stored *s, struct slice body, struct buf *out)
{
    int64_t id, want_keys, left, granted;
    int err = decode_two(body, &id, &want_keys);

    if (!err)
        err = lease_time_to_live(s->leases, id, &left, &granted, loop_now_ms(s->loop));
    if (err && err != E_LEASE_NOT_FOUND)
        return err;
    mvcc_add_header(s->mvcc, out, -1);
    pb_add_int(out, 2, id);
    pb_add_int(out, 3, err ? -1 : left);
    if (err)
        return 0;
    pb_add_int(out, 4, granted);
    if (want_keys) {
        struct slice *keys;
        size_t count = lease_keys(s->leases, id, &keys);

        for (size_t i = 0; i < count; i++)
            pb_add_message(out, 5, keys[i]);
        free(keys);
    }
    return 0;
}

/* Field `number`: LeaseStatus or LeaseRevokeRequest, both { 1 ID }. */
static void add_lease(struct buf *out, uint32_t number, int64_t id)
{
    pb_add_head(out, number, id ? 1 + pb_varint_size((uint64_t)id) : 0);
    pb_add_int(out, 1, id);
}

int lease_cmd_leases(struct stored *s, struct buf *out)
{
    int64_t *ids;
    size_t count = leases_list(s->leases, &ids);

    mvcc_add_header(s->mvcc, out, -1);
    for (size_t i = 0; i < count; i++)
        add_lease(out, 2, ids[i]);
    free(ids);
    return 0;
}

void lease_cmd_tick(struct stored *s, uint64_t now_ms)
{
    static int64_t ids[LEASE_EXPIRE_BATCH_MAX];
    struct buf body = BUF_INIT;
    size_t count;

    if (!stored_is_leader(s) || link_is_full(s->raft))
        return;
    count = leases_due(s->leases, ids, LEASE_EXPIRE_BATCH_MAX, now_ms, LEASE_ATTEMPT_MS);
    if (!count)
        return;
    pb_add_head(&body, 1, 1 + pb_varint_size(s->term));
    pb_add_uint(&body, 4, s->term);
    for (size_t i = 0; i < count; i++)
        add_lease(&body, 2, ids[i]);
    out_propose(s, COMMAND_LEASE_EXPIRE, buf_slice(&body));
    buf_fini(&body);
    log_debug("lease: %zu due, revoke proposed", count);
}

static int load_one(void *arg, struct slice key, struct slice value)
{
    struct stored *s = arg;
    struct lease_record record;
    uint64_t id;

    if (key.len != sizeof id || value.len != sizeof record)
        fatalx("lease: damaged record in the store, key of %zu and value of %zu bytes", key.len, value.len);
    memcpy(&id, key.data, sizeof id);
    memcpy(&record, value.data, sizeof record);
    if (be64toh(record.ttl_s) == 0 || be64toh(record.ttl_s) > LEASE_TTL_MAX)
        fatalx("lease: damaged record in the store, lease %016llx", (unsigned long long)be64toh(id));
    lease_load(s->leases, (int64_t)be64toh(id), (int64_t)be64toh(record.ttl_s));
    return 0;
}

void lease_cmd_load(struct stored *s)
{
    size_t unknown;

    if (mvcc_meta_each(s->mvcc, META_LEASE, load_one, s) != 0)
        fatalx("lease: leases cannot be read from the store");
    unknown = leases_loaded(s->leases);
    if (unknown)
        log_warnx("lease: keys name %zu leases that do not exist: they are treated as detached", unknown);
}
