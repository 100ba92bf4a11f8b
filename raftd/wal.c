/* wal - gathers what turn.c wants durable and follows it to the disk. See wal.h for what holds, wal_format.h for the
 * bytes, wal_lay.c for how a batch is laid out, wal_thread.c for who writes it, wal_read.c for how entries come back.
 *
 * Everything here runs on the loop's thread. A batch is laid out at the moment it leaves, so all that gathered while
 * the one before was on its way goes into one write and one sync; that is the whole of group commit. Entries that
 * are not durable yet are read from memory (`pending`), the others from their file. */
#include "raftd/wal_impl.h"
#include "raftd/mutant.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"

#define STAGE_KEEP_BYTES ((size_t)1 << 20) /* a larger buffer is given back after its batch */

/* --- life cycle --------------------------------------------------------------------------------- */

struct wal *wal_alloc(const struct wal_conf *conf)
{
    struct wal *w = xcalloc(1, sizeof(*w));

    must(conf->segment_bytes > 0 && conf->segment_bytes % 4096 == 0);
    w->dir = xstrdup(conf->dir);
    w->disk = conf->disk ? conf->disk : &disk_real;
    w->threadless = conf->threadless;
    w->dirfd = w->disk->open_dir(conf->dir);
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
        .disk = w->disk,
        .threadless = w->threadless,
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
        w->disk->close(w->segments[i].fd);
    /* What was gathered and never submitted. */
    for (size_t i = 0; i < w->op_count; i++) {
        struct wal_op *op = &w->ops[w->op_head + i];

        if (op->kind == WAL_OP_ENTRY)
            entry_unref(op->entry);
        else if (op->kind == WAL_OP_DROP || op->kind == WAL_OP_RESET)
            free(op->drop.members);
    }
    for (size_t i = 0; i < w->job_entry_count; i++)
        entry_unref(w->job_entries[i]);
    for (size_t i = 0; i < w->pending_count; i++)
        entry_unref(w->pending[w->pending_head + i]);
    w->disk->close(w->dirfd);
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

    must(found->first_index > 0 && found->last_index == found->first_index - 1 &&
         found->members_at == found->last_index);
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

void wal_abandon(struct wal *w)
{
    must(w->threadless);
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
    if (MUTATE(WAL_TRUNCATE_UNWRITTEN, true, false))
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

void wal_reset(struct wal *w, uint64_t index, uint64_t term, struct slice members)
{
    struct wal_op *op = op_add(w, WAL_OP_RESET);

    must(index + 1 >= w->index.first);
    op->drop.cut = w->index.count > 0 ? w->index.first : 0;
    op->drop.below = index + 1;
    op->drop.prev_term = term;
    op->drop.at = index;
    op->drop.members = xmemdup(members.data, members.len);
    op->members_len = (uint32_t)members.len;
    while (w->pending_count > 0)
        entry_unref(w->pending[w->pending_head + --w->pending_count]);
    wal_index_cut(&w->index, w->index.first);
    wal_index_drop(&w->index, index + 1);
    w->prev_term = term;
}

/* --- batches --------------------------------------------------------------------------------- */

static void segments_retire(struct wal *w)
{
    size_t gone = 0;

    while (gone + 1 < w->segment_count && w->segments[gone + 1].first <= w->laid.first) {
        w->disk->close(w->segments[gone].fd);
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
            wal_job_start(w);
    }
    return w->ticket_last;
}

uint64_t wal_poll(struct wal *w)
{
    if (w->busy && wal_writer_done(w->writer)) {
        job_finish(w);
        wal_job_start(w);
    }
    return w->ticket_durable;
}

bool wal_work(struct wal *w)
{
    must(w->threadless);
    return wal_writer_work(w->writer);
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

/* --- questions ------------------------------------------------------------------------------- */

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
