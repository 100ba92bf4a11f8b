/* wal - gathers what turn.c wants durable, lays it out in batches, and reads entries back. See wal.h for what
 * holds, wal_format.h for the bytes, wal_thread.c for who writes them.
 *
 * Everything here runs on the loop's thread. A batch is laid out at the moment it leaves, so all that gathered while
 * the one before was on its way goes into one write and one sync; that is the whole of group commit. Entries that
 * are not durable yet are read from memory (`pending`), the others from their file. */
#include "raftd/wal_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"

#define STAGE_KEEP_BYTES ((size_t)1 << 20) /* a larger buffer is given back after its batch */

/* --- life cycle --------------------------------------------------------------------------------- */

struct wal *wal_alloc(const struct wal_conf *conf)
{
    struct wal *w = xcalloc(1, sizeof(*w));

    must(conf->segment_bytes > 0 && conf->segment_bytes % 4096 == 0);
    w->dir = xstrdup(conf->dir);
    w->dirfd = open(conf->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (w->dirfd < 0)
        fatal("wal: open of %s", conf->dir);
    w->segment_bytes = conf->segment_bytes;
    w->no_fsync = conf->no_fsync;
    w->notify = conf->notify;
    w->notify_arg = conf->arg;
    return w;
}

void wal_start_threads(struct wal *w)
{
    w->writer = wal_writer_new(&(struct wal_writer_conf){
        .dirfd = w->dirfd,
        .segment_bytes = w->segment_bytes,
        .no_fsync = w->no_fsync,
        .notify = w->notify,
        .arg = w->notify_arg,
    });
}

void wal_release(struct wal *w)
{
    for (size_t i = 0; i < w->segment_count; i++)
        close(w->segments[i].fd);
    /* What was gathered and never submitted. */
    for (size_t i = 0; i < w->op_count; i++) {
        struct wal_op *op = &w->ops[w->op_head + i];

        if (op->kind == WAL_OP_ENTRY)
            entry_unref(op->entry);
        else if (op->kind == WAL_OP_DROP)
            free(op->drop.members);
    }
    for (size_t i = 0; i < w->pending_count; i++)
        entry_unref(w->pending[w->pending_head + i]);
    close(w->dirfd);
    free(w->segments);
    wal_index_fini(&w->index);
    free(w->ops);
    free(w->pending);
    free(w->pieces);
    free(w->job_entries);
    free(w->job.iov);
    buf_fini(&w->job.head);
    buf_fini(&w->stage);
    buf_fini(&w->read_buf);
    buf_fini(&w->laid.members);
    free(w->dir);
    free(w);
}

struct wal_segment *wal_segment_add(struct wal *w, uint64_t number, uint64_t first, uint64_t size, int fd)
{
    if (w->segment_count == w->segment_cap) {
        w->segment_cap = MAX(w->segment_cap * 2, 8);
        w->segments = xrealloc(w->segments, w->segment_cap * sizeof(*w->segments));
    }
    w->segments[w->segment_count] = (struct wal_segment){.number = number, .first = first, .size = size, .fd = fd};
    return &w->segments[w->segment_count++];
}

struct wal *wal_create(const struct wal_conf *conf, const struct wal_found *found)
{
    struct wal *w = wal_alloc(conf);

    must(found->first_index > 0 && found->last_index == found->first_index - 1 && found->members_at == found->last_index);
    w->cluster_id = found->cluster_id;
    w->member_id = found->member_id;
    wal_index_init(&w->index, found->first_index);
    w->prev_term = found->prev_term;
    w->laid = (struct wal_laid){
        .term = found->term,
        .vote = found->vote,
        .seq = found->hard_seq,
        .first = found->first_index,
        .prev_term = found->prev_term,
        .last = found->last_index,
        .members_at = found->members_at,
        .commit = found->last_index,
    };
    buf_add_slice(&w->laid.members, found->members);
    wal_start_threads(w);
    /* The first batch makes the first segment, whose head holds all that was given. */
    wal_hard(w, found->term, found->vote, found->hard_seq);
    wal_submit(w, found->last_index);
    wal_flush(w);
    return w;
}

void wal_close(struct wal *w)
{
    wal_flush(w);
    wal_writer_free(w->writer);
    wal_release(w);
}

/* --- gathering ---------------------------------------------------------------------------------- */

static struct wal_op *op_add(struct wal *w, enum wal_op_kind kind)
{
    if (w->op_count == 0)
        w->op_head = 0;
    if (w->op_head + w->op_count == w->op_cap) {
        if (w->op_head > w->op_cap / 2) {
            memmove(w->ops, w->ops + w->op_head, w->op_count * sizeof(*w->ops));
            w->op_head = 0;
        } else {
            w->op_cap = MAX(w->op_cap * 2, 64);
            w->ops = xrealloc(w->ops, w->op_cap * sizeof(*w->ops));
        }
    }
    struct wal_op *op = &w->ops[w->op_head + w->op_count++];
    *op = (struct wal_op){.kind = kind};
    return op;
}

void wal_hard(struct wal *w, uint64_t term, uint64_t vote, uint64_t seq)
{
    struct wal_op *op = op_add(w, WAL_OP_HARD);

    op->hard.term = term;
    op->hard.vote = vote;
    op->hard.seq = seq;
}

void wal_truncate(struct wal *w, uint64_t from)
{
    must(from >= w->index.first && from <= wal_index_last(&w->index) + 1);
    while (w->pending_count > 0 && w->pending[w->pending_head + w->pending_count - 1]->index >= from)
        entry_unref(w->pending[w->pending_head + --w->pending_count]);
    wal_index_cut(&w->index, from);
    op_add(w, WAL_OP_TRUNCATE)->from = from;
}

static void pending_add(struct wal *w, struct entry *e)
{
    if (w->pending_count == 0)
        w->pending_head = 0;
    if (w->pending_head + w->pending_count == w->pending_cap) {
        if (w->pending_head > w->pending_cap / 2) {
            memmove(w->pending, w->pending + w->pending_head, w->pending_count * sizeof(*w->pending));
            w->pending_head = 0;
        } else {
            w->pending_cap = MAX(w->pending_cap * 2, 64);
            w->pending = xrealloc(w->pending, w->pending_cap * sizeof(*w->pending));
        }
    }
    w->pending[w->pending_head + w->pending_count++] = entry_ref(e);
}

void wal_append(struct wal *w, struct entry *const *entries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct entry *e = entries[i];

        must(e->index == wal_index_last(&w->index) + 1);
        *wal_index_add(&w->index) = (struct wal_slot){.term = e->term, .length = (uint32_t)e->len, .kind = e->kind};
        pending_add(w, e);
        op_add(w, WAL_OP_ENTRY)->entry = entry_ref(e);
    }
}

void wal_drop(struct wal *w, uint64_t below, struct slice members, uint64_t at)
{
    uint64_t term = 0;

    if (below <= w->index.first)
        return;
    must(below <= wal_index_last(&w->index) + 1 && at + 1 >= below && at <= wal_index_last(&w->index));
    must(wal_term(w, below - 1, &term));
    wal_index_drop(&w->index, below);
    w->prev_term = term;

    struct wal_op *op = op_add(w, WAL_OP_DROP);
    op->drop.below = below;
    op->drop.prev_term = term;
    op->drop.at = at;
    op->drop.members = xmemdup(members.data, members.len);
    op->members_len = (uint32_t)members.len;
}

/* --- laying out --------------------------------------------------------------------------------- */

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
    stage_record(w, (struct wal_record){.kind = WAL_MEMBERS, .index = w->laid.members_at},
                 buf_slice(&w->laid.members), salt);
}

static void lay_commit(struct wal *w, uint32_t salt)
{
    size_t before = w->stage.len;

    /* The chain that it holds covers the batch before it; it is itself covered by its header's checksum. */
    wal_record_add(&w->stage,
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
    return wal_record_bytes(WAL_HEAD_PAYLOAD_BYTES) + wal_record_bytes(WAL_HARD_PAYLOAD_BYTES) + 2 * wal_record_bytes(0) +
           wal_record_bytes(w->laid.members.len);
}

/* The job begins with a new segment: its head repeats what earlier segments said, so that they can go. */
static void lay_roll(struct wal *w, size_t need)
{
    uint64_t number = w->segment_count ? w->segments[w->segment_count - 1].number + 1 : 1;
    uint32_t salt = wal_salt(w->cluster_id, w->member_id, number);
    uint8_t payload[WAL_HEAD_PAYLOAD_BYTES];
    struct wal_head head = {.version = WAL_VERSION, .prev_chain = w->chain, .cluster_id = w->cluster_id,
                            .member_id = w->member_id, .segment = number};

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

        job->iov[i] = (struct iovec){.iov_base = p->ref ? (void *)(uintptr_t)p->ref : w->stage.data + p->offset, .iov_len = p->len};
    }
}

static void job_start(struct wal *w)
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

static void segments_retire(struct wal *w)
{
    size_t gone = 0;

    while (gone + 1 < w->segment_count && w->segments[gone + 1].first <= w->laid.first) {
        close(w->segments[gone].fd);
        wal_writer_retire(w->writer, w->segments[gone].number);
        gone++;
    }
    w->segment_count -= gone;
    memmove(w->segments, w->segments + gone, w->segment_count * sizeof(*w->segments));
}

static void job_finish(struct wal *w)
{
    w->busy = false;
    w->batches++;
    w->ticket_durable = MAX(w->ticket_durable, w->job_ticket);
    w->segments[w->segment_count - 1].fd = w->job.fd;
    for (size_t i = 0; i < w->job_entry_count; i++) {
        struct entry *e = w->job_entries[i];

        /* Not at the front when it was truncated meanwhile. */
        if (w->pending_count > 0 && w->pending[w->pending_head] == e) {
            entry_unref(e);
            w->pending_head++;
            w->pending_count--;
        }
        entry_unref(e);
    }
    w->job_entry_count = 0;
    if (w->stage.cap > STAGE_KEEP_BYTES)
        buf_fini(&w->stage);
    segments_retire(w);
}

uint64_t wal_submit(struct wal *w, uint64_t commit)
{
    if (w->op_count > w->op_submitted) {
        struct wal_op *op = op_add(w, WAL_OP_END);

        op->end.ticket = ++w->ticket_last;
        op->end.commit = commit;
        w->op_submitted = w->op_count;
        if (!w->busy)
            job_start(w);
    }
    return w->ticket_last;
}

uint64_t wal_poll(struct wal *w)
{
    if (w->busy && wal_writer_done(w->writer)) {
        job_finish(w);
        job_start(w);
    }
    return w->ticket_durable;
}

bool wal_is_idle(const struct wal *w)
{
    return !w->busy && w->op_count == 0;
}

void wal_flush(struct wal *w)
{
    while (w->busy) {
        wal_writer_wait(w->writer);
        wal_poll(w);
    }
}

/* --- reading ------------------------------------------------------------------------------------ */

bool wal_term(void *arg, uint64_t index, uint64_t *term)
{
    const struct wal *w = arg;
    const struct wal_slot *slot = wal_index_at(&w->index, index);

    if (slot) {
        *term = slot->term;
        return true;
    }
    if (index + 1 == w->index.first) {
        *term = w->prev_term;
        return true;
    }
    return false;
}

static struct wal_segment *segment_of(const struct wal *w, const struct wal_slot *slot)
{
    uint32_t pos = slot->segment - (uint32_t)w->segments[0].number;

    must(pos < w->segment_count && slot->place > 0);
    return &w->segments[pos];
}

/* How many entries from `from` lie one behind the other in one file, and fit; and the bytes from the first record's
 * start to the last one's end. At least one. */
static size_t run_length(const struct wal *w, uint64_t from, size_t count_max, size_t bytes_max, size_t *span)
{
    const struct wal_slot *first = wal_index_at(&w->index, from);
    size_t count = 1;

    *span = wal_record_bytes(first->length);
    for (; count < count_max; count++) {
        const struct wal_slot *s = wal_index_at(&w->index, from + count);

        /* Later entries lie later, unless a truncation wrote them anew elsewhere. */
        if (s->segment != first->segment || s->place <= first->place)
            break;
        size_t end = ((size_t)s->place - first->place) * 8 + wal_record_bytes(s->length);
        if (end > bytes_max || end <= *span)
            break;
        *span = end;
    }
    return count;
}

static struct entry *entry_read(const struct wal *w, uint64_t index, const uint8_t *at, const struct wal_segment *seg)
{
    const struct wal_slot *slot = wal_index_at(&w->index, index);
    struct wal_record r;
    const uint8_t *payload = at + WAL_HEADER_BYTES;

    if (!wal_header_get(at, wal_salt(w->cluster_id, w->member_id, seg->number), &r) || r.kind != WAL_ENTRY || r.index != index ||
        r.term != slot->term || r.length != slot->length || crc32c(0, payload, r.length) != r.payload_crc)
        fatalx("wal: %s/%016" PRIx64 ".wal: offset %" PRIu64 ": entry %" PRIu64 " term %" PRIu64 " is damaged", w->dir, seg->number,
               (uint64_t)slot->place * 8, index, slot->term);
    struct entry *e = entry_new((enum entry_kind)r.entry_kind, slice_of(payload, r.length));
    e->index = r.index;
    e->term = r.term;
    return e;
}

/* Reads up to count entries from `from` with one pread. Returns how many. */
static size_t run_read(struct wal *w, uint64_t from, size_t count_max, size_t bytes_max, struct entry **out)
{
    size_t span, got = 0, count = run_length(w, from, count_max, bytes_max, &span);
    const struct wal_slot *first = wal_index_at(&w->index, from);
    const struct wal_segment *seg = segment_of(w, first);

    buf_reset(&w->read_buf);
    buf_reserve(&w->read_buf, span);
    while (got < span) {
        ssize_t n = pread(seg->fd, w->read_buf.data + got, span - got, (off_t)((uint64_t)first->place * 8 + got));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            fatal("wal: read of segment %" PRIx64, seg->number);
        got += (size_t)n;
    }
    for (size_t i = 0; i < count; i++) {
        const struct wal_slot *s = wal_index_at(&w->index, from + i);

        out[i] = entry_read(w, from + i, w->read_buf.data + ((size_t)s->place - first->place) * 8, seg);
    }
    if (w->read_buf.cap > 2 * STAGE_KEEP_BYTES)
        buf_fini(&w->read_buf);
    return count;
}

#define READ_ENTRIES_MAX 1024 /* = RAFT_MSG_ENTRIES_MAX: the room of `out` */

int wal_entries(void *arg, uint64_t from, uint64_t to, size_t bytes_max, struct entry **out)
{
    struct wal *w = arg;
    size_t count = 0, bytes = 0;

    if (from < w->index.first || from > wal_index_last(&w->index))
        return 0;
    to = MIN(to, wal_index_last(&w->index));
    uint64_t pending_first = wal_index_last(&w->index) + 1 - w->pending_count;
    while (from <= to && count < READ_ENTRIES_MAX && (count == 0 || bytes < bytes_max)) {
        size_t more, left = bytes < bytes_max ? bytes_max - bytes : 0;

        if (from >= pending_first) {
            struct entry *e = w->pending[w->pending_head + (from - pending_first)];

            if (count > 0 && e->len > left)
                break;
            out[count] = entry_ref(e);
            more = 1;
        } else {
            if (count > 0 && wal_record_bytes(wal_index_at(&w->index, from)->length) > left)
                break;
            uint64_t end = MIN(to + 1, pending_first);
            more = run_read(w, from, (size_t)MIN(end - from, (uint64_t)(READ_ENTRIES_MAX - count)), left, out + count);
        }
        for (size_t i = 0; i < more; i++)
            bytes += out[count + i]->len;
        count += more;
        from += more;
    }
    return (int)count;
}

uint64_t wal_find_kind(const struct wal *w, uint64_t from, uint32_t kind)
{
    from = MAX(from, w->index.first);
    for (const struct wal_slot *s = wal_index_at(&w->index, from); s; s = wal_index_at(&w->index, ++from)) {
        if (s->kind == kind)
            return from;
    }
    return 0;
}

uint64_t wal_first_index(const struct wal *w)
{
    return w->index.first;
}

uint64_t wal_last_index(const struct wal *w)
{
    return wal_index_last(&w->index);
}

bool wal_no_space(const struct wal *w)
{
    return wal_writer_no_space(w->writer);
}

void wal_stats(const struct wal *w, struct wal_stats *s)
{
    *s = (struct wal_stats){
        .sync_us = wal_writer_sync_us(w->writer),
        .write_us = wal_writer_write_us(w->writer),
        .bytes = wal_writer_bytes(w->writer),
        .batches = w->batches,
        .entries = w->index.count,
        .segments = w->segment_count,
        .index_bytes = w->index.cap * sizeof(*w->index.slots),
    };
}
