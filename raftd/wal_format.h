/* wal_format - the bytes of the log: one grammar, shared by the writer (wal.c) and the reader (wal_recover.c). Pure.
 *
 *   log      = segment*                     files NUMBER.wal, 16 hex digits, dense
 *   segment  = batch(SEGMENT HARD PREFIX MEMBERS) batch* zero*
 *   batch    = record+ COMMIT               written by one write, made durable by one sync
 *   record   = header payload zero{0..7}    starts at a multiple of 8
 *   header   = 40 bytes, little endian:
 *              magic 4 | kind 1 | entry kind 1 | 0 2 | length 4 | payload crc 4 | index 8 | term 8 | chain 4 | header
 * crc 4
 *
 *   kind      index                  term                  payload
 *   SEGMENT   next entry's index     number of its batch   version 4, previous chain 4, cluster id, member id, segment
 * number ENTRY     index                  term                  the entry HARD      seq                    term vote
 *   TRUNCATE  from: it and all after it are gone           -
 *   PREFIX    first index            term of the one before it
 *             (beyond the last entry + 1: a snapshot took the log's place, wal_reset)
 *   MEMBERS   membership as of it    0                     table (boot.h)
 *   COMMIT    raft's commit index    number of the batch   -, chain is set
 *
 * What each check tells:
 *   header crc    seeded with (cluster, member, segment): a record of another log, or a stale one of a file that was
 *                 recycled, is not a record. Its own checksum means that a damaged payload still says which entry it
 * was. payload crc   the payload is what was written. chain         crc over the headers of the batch, seeded with the
 * chain of the batch before it: no batch can be missing, doubled, or from an earlier life of the file. batch number
 * dense over the whole log. One batch is on its way to the disk at a time, so a batch is torn only if none with a
 * higher number exists; a bad batch with a later one behind it is damage. */
#ifndef RAFTD_WAL_FORMAT_H
#define RAFTD_WAL_FORMAT_H

#include "common/base.h"
#include "common/buf.h"

#define WAL_VERSION 1
#define WAL_MAGIC 0x4c415754u /* "TWAL" */
#define WAL_HEADER_BYTES 40
#define WAL_HEAD_PAYLOAD_BYTES 32
#define WAL_HARD_PAYLOAD_BYTES 8

enum wal_kind {
    WAL_SEGMENT = 1,
    WAL_ENTRY,
    WAL_HARD,
    WAL_TRUNCATE,
    WAL_PREFIX,
    WAL_MEMBERS,
    WAL_COMMIT,
};

struct wal_record {
    uint8_t kind;       /* enum wal_kind */
    uint8_t entry_kind; /* enum entry_kind, of ENTRY */
    uint32_t length;    /* of the payload */
    uint32_t payload_crc;
    uint64_t index;
    uint64_t term;
    uint32_t chain; /* of COMMIT */
};

/* The payload of SEGMENT. */
struct wal_head {
    uint32_t version;
    uint32_t prev_chain;
    uint64_t cluster_id, member_id;
    uint64_t segment;
};

static inline size_t wal_pad(size_t length)
{
    return (8 - length % 8) % 8;
}
/* Bytes that a record with this much payload takes. */
static inline size_t wal_record_bytes(size_t length)
{
    return WAL_HEADER_BYTES + length + wal_pad(length);
}

/* The seed of header checksums in one segment. */
uint32_t wal_salt(uint64_t cluster_id, uint64_t member_id, uint64_t segment);

void wal_header_put(uint8_t *at, const struct wal_record *r, uint32_t salt);
/* Magic and checksum fit. at has WAL_HEADER_BYTES. */
bool wal_header_get(const uint8_t *at, uint32_t salt, struct wal_record *r);

/* Appends a whole record; r's length and payload_crc are taken from payload. Returns the chain over it. */
uint32_t wal_record_add(struct buf *out, struct wal_record r, struct slice payload, uint32_t salt, uint32_t chain);

void wal_head_put(uint8_t at[WAL_HEAD_PAYLOAD_BYTES], const struct wal_head *h);
bool wal_head_get(struct slice payload, struct wal_head *h);

void wal_u64_put(uint8_t at[8], uint64_t v);
uint64_t wal_u64_get(const uint8_t at[8]);

const char *wal_kind_name(unsigned kind);

/* Where reading stands: carried from one segment to the next. Zero-initialised before the first. */
struct wal_scan {
    bool started;
    uint64_t cluster_id, member_id;
    uint64_t segment; /* last one begun */
    uint64_t batch;   /* number of the last good batch */
    uint32_t chain;   /* after it */
    uint64_t entry;   /* last entry seen, for messages */
};

/* One record of a batch that is whole; payload is borrowed. Non-zero: it contradicts what came before; the reason
 * was appended to why. */
typedef int wal_scan_cb(void *arg, const struct wal_record *r, uint64_t offset, struct slice payload, struct buf *why);

/* Reads one segment's bytes. *end is where the last good batch ends. Returns
 *   0            after *end there are only zeros
 *   E_TRUNCATED  after *end there are bytes of one batch that is not whole, and nothing later
 *   E_DAMAGED    a bad batch has a good one of later number behind it, or the head is bad, or cb refused a record
 *   E_VERSION    written by a later version
 * and for all but 0 appends to why: offset, what is wrong, and which entry. number: from the file's name. */
int wal_scan_segment(struct wal_scan *s, uint64_t number, struct slice bytes, wal_scan_cb *cb, void *arg, size_t *end,
                     struct buf *why);

#endif
