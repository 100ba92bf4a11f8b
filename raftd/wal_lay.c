/* wal_lay - turns what was gathered into the next batch: records, their places in the segment, and the vectors to
 * write. Called by wal.c when the writer is idle. All of a batch is in one segment: if it does not fit into the active
 * one, the job begins with a new one, whose head repeats what the segments before it said. */
#include "raftd/wal_impl.h"

#include <stdlib.h>

#include "common/crc32c.h"
#include "common/mem.h"

static size_t op_bytes(const struct wal_op *op)
{
    switch (op->kind) {
    case WAL_OP_ENTRY:
        return wal_record_bytes(op->entry->len);
    case WAL_OP_HARD:
        return wal_record_bytes(WAL_HARD_PAYLOAD_BYTES);
    case WAL_OP_TRUNCATE:
        return wal_record_bytes(0);
    case WAL_OP_DROP:
        return wal_record_bytes(0) + wal_record_bytes(op->members_len);
    case WAL_OP_RESET:
        return (op->drop.cut > 0 ? 2 : 1) * wal_record_bytes(0) + wal_record_bytes(op->members_len);
    case WAL_OP_END:
        return 0;
    }
    return 0;
}

static void piece_add(struct wal *w, const uint8_t *ref, size_t offset, size_t len)
{
    struct wal_piece *last = w->piece_count ? &w->pieces[w->piece_count - 1] : NULL;

    if (last && !ref && !last->ref) {
        last->len += len; /* staged bytes are contiguous */
        return;
    }
    if (w->piece_count == w->piece_cap) {
        w->piece_cap = MAX(w->piece_cap * 2, 16);
        w->pieces = xrealloc(w->pieces, w->piece_cap * sizeof(*w->pieces));
    }
    w->pieces[w->piece_count++] = (struct wal_piece){.ref = ref, .offset = offset, .len = len};
}

/* A record whose payload is small: staged whole. */
static void stage_record(struct wal *w, struct wal_record r, struct slice payload, uint32_t salt)
{
    size_t before = w->stage.len;

    w->chain = wal_record_add(&w->stage, r, payload, salt, w->chain);
    piece_add(w, NULL, before, w->stage.len - before);
}

/* A large payload is written from where it is; only its header and padding are staged. */
static void stage_large_entry(struct wal *w, struct wal_record r, const struct entry *e, uint32_t salt)
{
    static const uint8_t zeros[8];
    size_t before = w->stage.len;

    r.length = (uint32_t)e->len;
    r.payload_crc = crc32c(0, e->data, e->len);
    uint8_t *at = buf_extend(&w->stage, WAL_HEADER_BYTES);
    wal_header_put(at, &r, salt);
    w->chain = crc32c(w->chain, at, WAL_HEADER_BYTES);
    piece_add(w, NULL, before, WAL_HEADER_BYTES);
    piece_add(w, e->data, 0, e->len);
    if (wal_pad(e->len) > 0) {
        before = w->stage.len;
        buf_add(&w->stage, zeros, wal_pad(e->len));
        piece_add(w, NULL, before, wal_pad(e->len));
    }
}

static void lay_entry(struct wal *w, struct entry *e, uint64_t place, uint32_t salt)
{
    struct wal_record r = {.kind = WAL_ENTRY, .entry_kind = (uint8_t)e->kind, .index = e->index, .term = e->term};
    struct wal_slot *slot = wal_index_at(&w->index, e->index);

    /* The slot is gone or belongs to another entry if a later op of the queue drops or replaces this one; the
     * replacement is read from `pending` until it is laid out itself. */
    if (slot) {
        slot->segment = (uint32_t)w->segments[w->segment_count - 1].number;
        slot->place = (uint32_t)(place / 8);
    }
    if (e->len < WAL_COPY_BYTES_MAX)
        stage_record(w, r, entry_data(e), salt);
    else
        stage_large_entry(w, r, e, salt);
    w->laid.last = e->index;
    if (w->job_entry_count == w->job_entry_cap) {
        w->job_entry_cap = MAX(w->job_entry_cap * 2, 64);
        w->job_entries = xrealloc(w->job_entries, w->job_entry_cap * sizeof(*w->job_entries));
    }
    w->job_entries[w->job_entry_count++] = e; /* the op's reference */
}

static void lay_hard(struct wal *w, uint32_t salt)
{
    uint8_t vote[WAL_HARD_PAYLOAD_BYTES];

    wal_u64_put(vote, w->laid.vote);
    stage_record(w, (struct wal_record){.kind = WAL_HARD, .index = w->laid.seq, .term = w->laid.term},
                 slice_of(vote, sizeof(vote)), salt);
}

static void lay_prefix(struct wal *w, uint32_t salt)
{
    stage_record(w, (struct wal_record){.kind = WAL_PREFIX, .index = w->laid.first, .term = w->laid.prev_term},
                 SLICE_EMPTY, salt);
}

static void lay_members(struct wal *w, uint32_t salt)
{
    stage_record(w, (struct wal_record){.kind = WAL_MEMBERS, .index = w->laid.members_at}, buf_slice(&w->laid.members),
                 salt);
}

static void lay_commit(struct wal *w, uint32_t salt)
{
    size_t before = w->stage.len;

    /* The chain that it holds covers the batch before it; it is itself covered by its header's checksum. */
    wal_record_add(
        &w->stage,
        (struct wal_record){.kind = WAL_COMMIT, .index = w->laid.commit, .term = ++w->batch, .chain = w->chain},
        SLICE_EMPTY, salt, 0);
    piece_add(w, NULL, before, w->stage.len - before);
}

static void lay_op(struct wal *w, struct wal_op *op, uint64_t place, uint32_t salt)
{
    switch (op->kind) {
    case WAL_OP_ENTRY:
        lay_entry(w, op->entry, place, salt);
        break;
    case WAL_OP_HARD:
        w->laid.term = op->hard.term;
        w->laid.vote = op->hard.vote;
        w->laid.seq = op->hard.seq;
        lay_hard(w, salt);
        break;
    case WAL_OP_TRUNCATE:
        w->laid.last = op->from - 1;
        stage_record(w, (struct wal_record){.kind = WAL_TRUNCATE, .index = op->from}, SLICE_EMPTY, salt);
        break;
    case WAL_OP_RESET:
        if (op->drop.cut > 0)
            stage_record(w, (struct wal_record){.kind = WAL_TRUNCATE, .index = op->drop.cut}, SLICE_EMPTY, salt);
        w->laid.last = op->drop.below - 1;
        __attribute__((fallthrough));
    case WAL_OP_DROP:
        w->laid.first = op->drop.below;
        w->laid.prev_term = op->drop.prev_term;
        w->laid.members_at = op->drop.at;
        buf_reset(&w->laid.members);
        buf_add(&w->laid.members, op->drop.members, op->members_len);
        free(op->drop.members);
        lay_prefix(w, salt);
        lay_members(w, salt);
        break;
    case WAL_OP_END:
        w->job_ticket = op->end.ticket;
        w->laid.commit = MAX(w->laid.commit, op->end.commit);
        break;
    }
}

/* Room for a head batch with the present membership. */
static size_t head_bytes(const struct wal *w)
{
    return wal_record_bytes(WAL_HEAD_PAYLOAD_BYTES) + wal_record_bytes(WAL_HARD_PAYLOAD_BYTES) +
           2 * wal_record_bytes(0) + wal_record_bytes(w->laid.members.len);
}

/* The job begins with a new segment: its head repeats what earlier segments said, so that they can go. */
static void lay_roll(struct wal *w, size_t need)
{
    uint64_t number = w->segment_count ? w->segments[w->segment_count - 1].number + 1 : 1;
    uint32_t salt = wal_salt(w->cluster_id, w->member_id, number);
    uint8_t payload[WAL_HEAD_PAYLOAD_BYTES];
    struct wal_head head = {.version = WAL_VERSION,
                            .prev_chain = w->chain,
                            .cluster_id = w->cluster_id,
                            .member_id = w->member_id,
                            .segment = number};

    wal_head_put(payload, &head);
    w->job.roll = true;
    w->job.number = number;
    w->job.size = MAX(w->segment_bytes, (head_bytes(w) + need + 4095) / 4096 * 4096);
    stage_record(w, (struct wal_record){.kind = WAL_SEGMENT, .index = w->laid.last + 1, .term = w->batch + 1},
                 slice_of(payload, sizeof(payload)), 0);
    lay_hard(w, salt);
    lay_prefix(w, salt);
    lay_members(w, salt);
    lay_commit(w, salt);
    buf_reset(&w->job.head);
    buf_add_slice(&w->job.head, buf_slice(&w->stage));
    buf_reset(&w->stage);
    w->piece_count = 0;
    w->offset = w->job.head.len;
    wal_segment_add(w, number, w->laid.last + 1, w->job.size, -1);
}

/* How many of the submitted ops go into the next batch, and their bytes. At least one. */
static size_t batch_size(const struct wal *w, size_t *bytes)
{
    size_t limit = MIN(WAL_BATCH_BYTES_MAX, (size_t)w->segment_bytes / 2);
    size_t count = 0;

    for (*bytes = 0; count < w->op_submitted; count++) {
        size_t more = op_bytes(&w->ops[w->op_head + count]);

        if (count > 0 && more > 0 && *bytes + more > limit)
            break;
        *bytes += more;
    }
    return count;
}

static void job_iov(struct wal *w)
{
    struct wal_job *job = &w->job;

    if (job->iov_cap < w->piece_count) {
        job->iov_cap = w->piece_cap;
        job->iov = xrealloc(job->iov, job->iov_cap * sizeof(*job->iov));
    }
    job->iov_count = w->piece_count;
    for (size_t i = 0; i < w->piece_count; i++) {
        const struct wal_piece *p = &w->pieces[i];

        job->iov[i] = (struct iovec){.iov_base = p->ref ? (void *)(uintptr_t)p->ref : w->stage.data + p->offset,
                                     .iov_len = p->len};
    }
}

void wal_job_start(struct wal *w)
{
    struct wal_job *job = &w->job;
    size_t bytes, count = batch_size(w, &bytes);
    struct wal_segment *active = w->segment_count ? &w->segments[w->segment_count - 1] : NULL;

    if (count == 0)
        return;
    bytes += WAL_HEADER_BYTES; /* COMMIT */
    buf_reset(&w->stage);
    w->piece_count = 0;
    w->job_entry_count = 0;
    job->roll = false;
    if (!active || w->offset + bytes > active->size)
        lay_roll(w, bytes);
    active = &w->segments[w->segment_count - 1];
    uint32_t salt = wal_salt(w->cluster_id, w->member_id, active->number);
    uint64_t place = w->offset;
    for (size_t i = 0; i < count; i++) {
        struct wal_op *op = &w->ops[w->op_head + i];
        size_t op_len = op_bytes(op);

        lay_op(w, op, place, salt);
        place += op_len;
    }
    lay_commit(w, salt);
    must(place + WAL_HEADER_BYTES == w->offset + bytes);
    job_iov(w);
    job->offset = w->offset;
    job->bytes = bytes;
    job->fd = active->fd;
    job->size = active->size;
    w->offset += bytes;
    w->op_head += count;
    w->op_count -= count;
    w->op_submitted -= count;
    w->busy = true;
    wal_writer_start(w->writer, job);
}
