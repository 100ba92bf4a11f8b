/* wal_read - entries and terms back from the log: for the core, when a follower or stored wants what left its memory.
 * What is not durable yet comes from memory, the rest from its file with both checksums verified: an entry that
 * does not read as it was written ends the process, because nothing that it says can be trusted. */
#include "raftd/wal_impl.h"

#include <errno.h>
#include <inttypes.h>

#include "common/crc32c.h"
#include "common/log.h"

#define READ_KEEP_BYTES ((size_t)2 << 20) /* a larger buffer is given back */

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

    if (!wal_header_get(at, wal_salt(w->cluster_id, w->member_id, seg->number), &r) || r.kind != WAL_ENTRY ||
        r.index != index || r.term != slot->term || r.length != slot->length ||
        crc32c(0, payload, r.length) != r.payload_crc)
        fatalx("wal: %s/%016" PRIx64 ".wal: offset %" PRIu64 ": entry %" PRIu64 " term %" PRIu64 " is damaged", w->dir,
               seg->number, (uint64_t)slot->place * 8, index, slot->term);
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
        ssize_t n = w->disk->pread(seg->fd, w->read_buf.data + got, span - got, (off_t)((uint64_t)first->place * 8 + got));

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
    if (w->read_buf.cap > READ_KEEP_BYTES)
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
