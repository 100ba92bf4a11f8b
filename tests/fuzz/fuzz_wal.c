/* fuzz_wal - the recovery of one segment. A checksum per record would keep a fuzzer out forever, so the first byte
 * says how much of the input is put right before it is read:
 *   bit 0: header and payload checksums of what looks like records; bit 1: also chains and batch numbers
 * What must hold, whatever the bytes: no crash, the end lies within the file, records of a batch are given in order and
 * lie before the end, and reading up to the end again gives the same and is clean. */
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/err.h"
#include "common/mem.h"
#include "raftd/wal_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    uint64_t offset; /* behind the last record given */
    uint32_t sum;    /* over all of them */
};

static int see_cb(void *arg, const struct wal_record *r, uint64_t offset, struct slice payload, struct buf *why)
{
    struct seen *s = arg;

    UNUSED(why);
    must(offset >= s->offset && payload.len == r->length);
    s->offset = offset + wal_record_bytes(r->length);
    s->sum = crc32c(s->sum, payload.data, payload.len);
    return r->kind == WAL_ENTRY && r->index == 0 ? E_DAMAGED : 0;
}

static void u32_put(uint8_t *at, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t u32_get(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Walks records as their lengths say, and makes their checksums fit. */
static void put_right(uint8_t *bytes, size_t size, bool chains)
{
    uint32_t salt = 0, chain = 0;
    uint64_t batch = 1;

    for (size_t at = 0; size - at >= WAL_HEADER_BYTES;) {
        uint8_t *h = bytes + at;
        uint32_t length = u32_get(h + 8);

        if (length > size - at - WAL_HEADER_BYTES)
            length = (uint32_t)(size - at - WAL_HEADER_BYTES);
        struct wal_record r = {.kind = h[4],
                               .entry_kind = h[5],
                               .length = length,
                               .index = wal_u64_get(h + 16),
                               .term = wal_u64_get(h + 24),
                               .chain = u32_get(h + 32)};
        if (at == 0 && length == WAL_HEAD_PAYLOAD_BYTES) {
            struct wal_head head;

            wal_head_get(slice_of(h + WAL_HEADER_BYTES, length), &head);
            u32_put(h + WAL_HEADER_BYTES, WAL_VERSION);
            chain = head.prev_chain;
            batch = r.term;
        }
        r.payload_crc = crc32c(0, h + WAL_HEADER_BYTES, length);
        if (chains && r.kind == WAL_COMMIT) {
            r.chain = chain;
            r.term = batch++;
        }
        wal_header_put(h, &r, salt);
        if (r.kind != WAL_COMMIT)
            chain = crc32c(chain, h, WAL_HEADER_BYTES);
        if (at == 0 && length == WAL_HEAD_PAYLOAD_BYTES)
            salt = wal_salt(wal_u64_get(h + WAL_HEADER_BYTES + 8), wal_u64_get(h + WAL_HEADER_BYTES + 16),
                            wal_u64_get(h + WAL_HEADER_BYTES + 24));
        at += wal_record_bytes(length);
        if (at > size)
            break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wal_scan scan = {0}, again = {0};
    struct seen first = {0}, second = {0};
    struct buf why = BUF_INIT;
    size_t end = 0, end_again = 0;

    if (size < 1)
        return 0;
    /* A copy of its own size, so that the sanitizer sees a read behind it. */
    uint8_t *bytes = xmemdup(data + 1, size - 1);
    uint64_t number = 1;
    if (data[0] & 1)
        put_right(bytes, size - 1, data[0] & 2);
    if (size - 1 >= WAL_HEADER_BYTES + WAL_HEAD_PAYLOAD_BYTES)
        number = wal_u64_get(bytes + WAL_HEADER_BYTES + 24);

    int err = wal_scan_segment(&scan, number, slice_of(bytes, size - 1), see_cb, &first, &end, &why);
    must(end <= size - 1 && end % 8 == 0);
    must(err == 0 || err == E_TRUNCATED || err == E_DAMAGED || err == E_VERSION);
    must(err == 0 || why.len > 0);
    if (err == 0 || err == E_TRUNCATED) {
        must(first.offset <= end);
        must(wal_scan_segment(&again, number, slice_of(bytes, end), see_cb, &second, &end_again, &why) == 0);
        must(end_again == end && second.sum == first.sum && again.chain == scan.chain && again.batch == scan.batch);
    }
    buf_fini(&why);
    free(bytes);
    return 0;
}
