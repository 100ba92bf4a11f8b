/* wal_format - see the grammar in wal_format.h. Used by wal.c to write, by wal_recover.c to read, and by
 * tests/fuzz/fuzz_wal.c, which is why nothing here opens a file or logs. Bytes are hostile until their checksums fit:
 * a disk may return anything. */
#include "raftd/wal_format.h"
#include "raftd/mutant.h"

#include <inttypes.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/err.h"

static void u32_put(uint8_t *at, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t u32_get(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

void wal_u64_put(uint8_t at[8], uint64_t v)
{
    u32_put(at, (uint32_t)v);
    u32_put(at + 4, (uint32_t)(v >> 32));
}

uint64_t wal_u64_get(const uint8_t at[8])
{
    return u32_get(at) | (uint64_t)u32_get(at + 4) << 32;
}

uint32_t wal_salt(uint64_t cluster_id, uint64_t member_id, uint64_t segment)
{
    uint8_t ids[24];

    wal_u64_put(ids, cluster_id);
    wal_u64_put(ids + 8, member_id);
    wal_u64_put(ids + 16, segment);
    return crc32c(0, ids, sizeof(ids));
}

void wal_header_put(uint8_t *at, const struct wal_record *r, uint32_t salt)
{
    u32_put(at, WAL_MAGIC);
    at[4] = r->kind;
    at[5] = r->entry_kind;
    at[6] = at[7] = 0;
    u32_put(at + 8, r->length);
    u32_put(at + 12, r->payload_crc);
    wal_u64_put(at + 16, r->index);
    wal_u64_put(at + 24, r->term);
    u32_put(at + 32, r->chain);
    u32_put(at + 36, crc32c(salt, at, 36));
}

bool wal_header_get(const uint8_t *at, uint32_t salt, struct wal_record *r)
{
    if (u32_get(at) != WAL_MAGIC || u32_get(at + 36) != crc32c(salt, at, 36))
        return false;
    r->kind = at[4];
    r->entry_kind = at[5];
    r->length = u32_get(at + 8);
    r->payload_crc = u32_get(at + 12);
    r->index = wal_u64_get(at + 16);
    r->term = wal_u64_get(at + 24);
    r->chain = u32_get(at + 32);
    return true;
}

uint32_t wal_record_add(struct buf *out, struct wal_record r, struct slice payload, uint32_t salt, uint32_t chain)
{
    static const uint8_t zeros[8];
    uint8_t *at;

    r.length = (uint32_t)payload.len;
    r.payload_crc = crc32c(0, payload.data, payload.len);
    at = buf_extend(out, WAL_HEADER_BYTES);
    wal_header_put(at, &r, salt);
    chain = crc32c(chain, at, WAL_HEADER_BYTES);
    buf_add(out, payload.data, payload.len);
    buf_add(out, zeros, wal_pad(payload.len));
    return chain;
}

void wal_head_put(uint8_t at[WAL_HEAD_PAYLOAD_BYTES], const struct wal_head *h)
{
    u32_put(at, h->version);
    u32_put(at + 4, h->prev_chain);
    wal_u64_put(at + 8, h->cluster_id);
    wal_u64_put(at + 16, h->member_id);
    wal_u64_put(at + 24, h->segment);
}

bool wal_head_get(struct slice payload, struct wal_head *h)
{
    if (payload.len != WAL_HEAD_PAYLOAD_BYTES)
        return false;
    h->version = u32_get(payload.data);
    h->prev_chain = u32_get(payload.data + 4);
    h->cluster_id = wal_u64_get(payload.data + 8);
    h->member_id = wal_u64_get(payload.data + 16);
    h->segment = wal_u64_get(payload.data + 24);
    return true;
}

const char *wal_kind_name(unsigned kind)
{
    static const char *const names[] = {"?", "SEGMENT", "ENTRY", "HARD", "TRUNCATE", "PREFIX", "MEMBERS", "COMMIT"};

    return kind < ARRAY_LEN(names) ? names[kind] : "?";
}

static bool all_zero(const uint8_t *p, size_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* A batch with a number above `batch` was written after `from`: whatever is wrong there was whole once. Payloads of
 * good records are stepped over, so that what a client wrote is not mistaken for a record. */
static bool has_later_batch(struct slice bytes, size_t from, uint32_t salt, uint64_t batch)
{
    for (size_t p = from; p + WAL_HEADER_BYTES <= bytes.len; p += 8) {
        struct wal_record r;

        if (!wal_header_get(bytes.data + p, salt, &r))
            continue;
        if (r.kind == WAL_COMMIT && r.term > batch)
            return true;
        size_t whole = wal_record_bytes(r.length);
        if (whole <= bytes.len - p)
            p += whole - 8;
    }
    return false;
}

/* The record at p. 0, or E_DAMAGED with the reason. */
static int record_check(struct slice bytes, size_t p, uint32_t salt, uint64_t entry, struct wal_record *r,
                        struct buf *why)
{
    if (bytes.len - p < WAL_HEADER_BYTES || !wal_header_get(bytes.data + p, salt, r)) {
        buf_printf(why, "offset %zu: no valid record header, after entry %" PRIu64, p, entry);
        return E_DAMAGED;
    }
    size_t whole = wal_record_bytes(r->length);
    if (whole > bytes.len - p) {
        buf_printf(why, "offset %zu: %s record of index %" PRIu64 " is cut short", p, wal_kind_name(r->kind), r->index);
        return E_DAMAGED;
    }
    const uint8_t *payload = bytes.data + p + WAL_HEADER_BYTES;
    if (MUTATE(WAL_PAYLOAD_UNCHECKED, crc32c(0, payload, r->length) != r->payload_crc, false) || !all_zero(payload + r->length, wal_pad(r->length))) {
        buf_printf(why, "offset %zu: payload of %s record, index %" PRIu64 " term %" PRIu64 ", %u bytes, is damaged", p,
                   wal_kind_name(r->kind), r->index, r->term, r->length);
        return E_DAMAGED;
    }
    return 0;
}

/* Walks one batch from `start`. 0: whole, *next is behind it and *chain is its chain. */
static int batch_check(const struct wal_scan *s, struct slice bytes, size_t start, uint32_t salt, size_t *next,
                       uint32_t *chain, struct buf *why)
{
    uint32_t run = s->chain;
    uint64_t entry = s->entry;

    for (size_t p = start;;) {
        struct wal_record r;
        int err = record_check(bytes, p, salt, entry, &r, why);

        if (err)
            return err;
        if (r.kind < WAL_SEGMENT || r.kind > WAL_COMMIT) {
            buf_printf(why, "offset %zu: record kind %u is of a later version", p, r.kind);
            return E_VERSION;
        }
        if (r.kind == WAL_COMMIT) {
            if (r.term != s->batch + 1 || r.chain != run || r.length != 0) {
                buf_printf(why,
                           "offset %zu: commit of batch %" PRIu64 " does not fit batch %" PRIu64 ", entry %" PRIu64, p,
                           r.term, s->batch + 1, entry);
                return E_DAMAGED;
            }
            *next = p + WAL_HEADER_BYTES;
            *chain = run;
            return 0;
        }
        if (r.kind == WAL_SEGMENT) {
            buf_printf(why, "offset %zu: segment head inside a segment", p);
            return E_DAMAGED;
        }
        if (r.kind == WAL_ENTRY)
            entry = r.index;
        run = crc32c(run, bytes.data + p, WAL_HEADER_BYTES);
        p += wal_record_bytes(r.length);
    }
}

static int batch_deliver(struct wal_scan *s, struct slice bytes, size_t start, size_t next, uint32_t salt,
                         wal_scan_cb *cb, void *arg, struct buf *why)
{
    for (size_t p = start; p < next;) {
        struct wal_record r;
        size_t reason = why->len;

        must(wal_header_get(bytes.data + p, salt, &r));
        int err = cb(arg, &r, p, slice_of(bytes.data + p + WAL_HEADER_BYTES, r.length), why);
        if (err) {
            if (why->len == reason)
                buf_printf(why, "offset %zu: %s record is out of order", p, wal_kind_name(r.kind));
            return err;
        }
        if (r.kind == WAL_ENTRY)
            s->entry = r.index;
        p += wal_record_bytes(r.length);
    }
    return 0;
}

/* The SEGMENT record at offset 0, which has no salt yet: it says what the salt is. */
static int head_check(struct wal_scan *s, uint64_t number, struct slice bytes, struct buf *why)
{
    struct wal_record r;
    struct wal_head h;
    int err = record_check(bytes, 0, 0, s->entry, &r, why);

    if (err)
        return err;
    if (r.kind != WAL_SEGMENT || !wal_head_get(slice_of(bytes.data + WAL_HEADER_BYTES, r.length), &h)) {
        buf_printf(why, "offset 0: not a segment head");
        return E_DAMAGED;
    }
    if (h.version != WAL_VERSION) {
        buf_printf(why, "offset 0: format version %u, this program knows %u", h.version, WAL_VERSION);
        return E_VERSION;
    }
    if (h.segment != number) {
        buf_printf(why, "offset 0: head of segment %" PRIx64 " in the file of another", h.segment);
        return E_DAMAGED;
    }
    if (s->started) {
        if (h.cluster_id != s->cluster_id || h.member_id != s->member_id) {
            buf_printf(why, "offset 0: belongs to member %" PRIx64 " of cluster %" PRIx64, h.member_id, h.cluster_id);
            return E_DAMAGED;
        }
        if (h.prev_chain != s->chain || r.term != s->batch + 1) {
            buf_printf(why,
                       "offset 0: batch %" PRIu64 " does not follow batch %" PRIu64 " (entry %" PRIu64
                       "), where the segment before it ends",
                       r.term, s->batch, s->entry);
            return E_DAMAGED;
        }
    } else if (r.term == 0) {
        buf_printf(why, "offset 0: batch number 0");
        return E_DAMAGED;
    }
    s->started = true;
    s->cluster_id = h.cluster_id;
    s->member_id = h.member_id;
    s->segment = number;
    s->batch = r.term - 1;
    s->chain = crc32c(h.prev_chain, bytes.data, WAL_HEADER_BYTES);
    return 0;
}

int wal_scan_segment(struct wal_scan *s, uint64_t number, struct slice bytes, wal_scan_cb *cb, void *arg, size_t *end,
                     struct buf *why)
{
    size_t at = wal_record_bytes(WAL_HEAD_PAYLOAD_BYTES);
    bool head = true;

    *end = 0;
    int err = head_check(s, number, bytes, why);
    if (err)
        return err;
    uint32_t salt = wal_salt(s->cluster_id, s->member_id, number);
    while (true) {
        size_t next = 0, reason = why->len;
        uint32_t chain = 0;

        /* No room for a header, or a zero one: the end, if only zeros follow. */
        if (!head && all_zero(bytes.data + at, bytes.len - at))
            return 0;
        err = batch_check(s, bytes, at, salt, &next, &chain, why);
        if (err == E_VERSION)
            return err;
        /* The head batch is synced before the file gets its name: it cannot be torn. */
        if (err)
            return head || MUTATE(WAL_DAMAGE_IS_TORN, has_later_batch(bytes, at, salt, s->batch + 1), false) ? E_DAMAGED : E_TRUNCATED;
        if (head) {
            struct wal_record r;

            must(wal_header_get(bytes.data, 0, &r));
            err = cb(arg, &r, 0, slice_of(bytes.data + WAL_HEADER_BYTES, r.length), why);
            if (err) {
                if (why->len == reason)
                    buf_printf(why, "offset 0: SEGMENT record is out of order");
                return err;
            }
        }
        err = batch_deliver(s, bytes, at, next, salt, cb, arg, why);
        if (err)
            return err;
        s->batch++;
        s->chain = chain;
        head = false;
        at = *end = next;
    }
}
