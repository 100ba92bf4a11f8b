/* peer_msg - see peer_msg.h. To frames for out.c, from frames for forward.c's switch. What a message says about terms and
 * indexes is checked by the core (raft_append_is_sane); here: counts, kinds, and who it is from. */
#include "raftd/peer_msg.h"

#include <stdlib.h>

#include "common/err.h"
#include "common/mem.h"

void peer_msg_fini(struct peer_msg *m)
{
    peer_msg_reset(m);
    free(m->entries);
    *m = (struct peer_msg){0};
}

void peer_msg_reset(struct peer_msg *m)
{
    for (size_t i = 0; i < m->msg.entry_count; i++)
        entry_unref(m->entries[i]);
    m->msg = (struct raft_msg){0};
    m->wanted = 0;
    m->open = false;
}

void peer_msg_encode(struct buf *out, const struct raft_msg *m)
{
    frame_encode(out, FRAME(raft, RAFT, .kind = m->type, .from = m->from, .to = m->to, .term = m->term, .index = m->index,
                            .log_term = m->log_term, .commit = m->commit, .hint = m->hint, .read_id = m->read_id,
                            .reject = m->reject, .transfer = m->transfer, .entry_count = m->entry_count));
    for (size_t i = 0; i < m->entry_count; i++) {
        const struct entry *e = m->entries[i];

        frame_encode(out, FRAME(entry, ENTRY, .index = e->index, .term = e->term, .kind = e->kind, .data = entry_data(e)));
    }
}

static int raft_add(struct peer_msg *m, uint64_t from, uint64_t to, const struct fr_raft *f)
{
    if (m->open || f->kind > RAFT_MSG_TIMEOUT_NOW || f->from != from || f->to != to ||
        f->entry_count > RAFT_MSG_ENTRIES_MAX || (f->entry_count > 0 && f->kind != RAFT_MSG_APPEND))
        return E_MALFORMED;
    peer_msg_reset(m);
    m->msg = (struct raft_msg){
        .type = (enum raft_msg_type)f->kind,
        .from = f->from,
        .to = f->to,
        .term = f->term,
        .index = f->index,
        .log_term = f->log_term,
        .commit = f->commit,
        .hint = f->hint,
        .read_id = f->read_id,
        .reject = f->reject != 0,
        .transfer = f->transfer != 0,
    };
    m->wanted = (size_t)f->entry_count;
    m->open = m->wanted > 0;
    return !m->open;
}

static int entry_add(struct peer_msg *m, const struct fr_entry *f)
{
    if (!m->open || f->kind > ENTRY_CONF)
        return E_MALFORMED;
    if (m->msg.entry_count == m->cap) {
        m->cap = MAX(m->cap * 2, 16);
        m->entries = xrealloc(m->entries, m->cap * sizeof(*m->entries));
    }
    struct entry *e = entry_new((enum entry_kind)f->kind, f->data);

    e->index = f->index;
    e->term = f->term;
    m->entries[m->msg.entry_count++] = e;
    m->msg.entries = m->entries;
    m->open = m->msg.entry_count < m->wanted;
    return !m->open;
}

int peer_msg_add(struct peer_msg *m, uint64_t from, uint64_t to, const struct frame *f)
{
    switch (f->type) {
    case FR_RAFT:
        return raft_add(m, from, to, &f->raft);
    case FR_ENTRY:
        return entry_add(m, &f->entry);
    default:
        return E_MALFORMED;
    }
}
