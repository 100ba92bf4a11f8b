/* raft_log - the log as the core sees it: the tail in memory, older entries through storage.
 * Filled by raft_append.c and by the leader, read by everybody; what it hands out in raft_ready goes to the WAL.
 * Always: entries are contiguous from `first` to `last`, terms never fall, storage is asked only for what is below
 * mem_first, which was on disk before it left memory. */
#include "raftd/raft_int.h"

#include <stdlib.h>

#include "common/mem.h"

size_t raft_entry_bytes(const struct entry *e)
{
    return sizeof(*e) + e->len;
}

static struct raft_slot *slot(const struct raft_log *log, uint64_t index)
{
    return &log->slots[index & (log->slot_count - 1)];
}

static uint64_t bytes_end(const struct raft_log *log, uint64_t index)
{
    return index >= log->mem_first ? slot(log, index)->bytes_end : log->bytes_start;
}

void raft_log_init(struct raft_log *log, const struct raft_conf *conf, const struct raft_start *start)
{
    must(start->first_index > 0 && start->last_index >= start->first_index - 1);
    must(start->last_index >= start->first_index || start->last_term == start->first_prev_term);
    *log = (struct raft_log){
        .storage = &conf->storage,
        .first = start->first_index,
        .first_prev_term = start->first_prev_term,
        .last = start->last_index,
        .last_term = start->last_term,
        .persisted = start->last_index,
        .offered = start->last_index,
        .mem_first = start->last_index + 1,
        .slot_count = 256,
        .cache_bytes_max = conf->cache_bytes_max,
    };
    log->slots = xcalloc(log->slot_count, sizeof(*log->slots));
}

void raft_log_fini(struct raft_log *log)
{
    for (uint64_t i = log->mem_first; i <= log->last; i++)
        entry_unref(slot(log, i)->entry);
    free(log->slots);
    log->slots = NULL;
}

bool raft_log_term(const struct raft_log *log, uint64_t index, uint64_t *term)
{
    if (index + 1 < log->first || index > log->last)
        return false;
    if (index == log->last)
        *term = log->last_term;
    else if (index + 1 == log->first)
        *term = log->first_prev_term;
    else if (index >= log->mem_first)
        *term = slot(log, index)->entry->term;
    else
        return log->storage->term(log->storage->arg, index, term);
    return true;
}

static void log_grow(struct raft_log *log)
{
    uint64_t count = log->slot_count * 2;
    struct raft_slot *slots = xcalloc(count, sizeof(*slots));

    for (uint64_t i = log->mem_first; i <= log->last; i++)
        slots[i & (count - 1)] = *slot(log, i);
    free(log->slots);
    log->slots = slots;
    log->slot_count = count;
}

void raft_log_append(struct raft_log *log, struct entry *e)
{
    must(e->index == log->last + 1 && e->term >= log->last_term);
    if (e->index - log->mem_first >= log->slot_count)
        log_grow(log);

    uint64_t before = bytes_end(log, log->last);

    *slot(log, e->index) = (struct raft_slot){.entry = e, .bytes_end = before + raft_entry_bytes(e)};
    log->last = e->index;
    log->last_term = e->term;
}

void raft_log_truncate(struct raft_log *log, uint64_t from)
{
    uint64_t term;

    must(from >= log->first && from <= log->last);
    must(raft_log_term(log, from - 1, &term));
    for (uint64_t i = MAX(from, log->mem_first); i <= log->last; i++) {
        entry_unref(slot(log, i)->entry);
        slot(log, i)->entry = NULL;
    }
    log->mem_first = MIN(log->mem_first, from);
    log->last = from - 1;
    log->last_term = term;
    if (from <= log->offered) {
        /* The WAL has seen some of what goes; only then it has to cut. */
        log->truncate_from = log->truncate_from > 0 ? MIN(log->truncate_from, from) : from;
        log->offered = from - 1;
    }
    log->persisted = MIN(log->persisted, from - 1);
}

static int slice_memory(const struct raft_log *log, uint64_t from, uint64_t to, size_t bytes_max, struct entry **out)
{
    uint64_t start = from > log->mem_first ? slot(log, from - 1)->bytes_end : log->bytes_start;
    int count = 0;

    for (uint64_t i = from; i <= to; i++) {
        if (i > from && slot(log, i)->bytes_end - start > bytes_max)
            break;
        out[count++] = entry_ref(slot(log, i)->entry);
    }
    return count;
}

int raft_log_slice(const struct raft_log *log, uint64_t from, uint64_t to, size_t bytes_max, struct entry **out,
                   size_t out_max, bool *from_storage)
{
    size_t room = MIN(out_max, (size_t)RAFT_MSG_ENTRIES_MAX);

    *from_storage = false;
    to = MIN(to, log->last);
    if (from > to || from < log->first || room == 0)
        return 0;
    to = MIN(to, from + room - 1);
    if (from >= log->mem_first)
        return slice_memory(log, from, to, bytes_max, out);

    *from_storage = true;
    to = MIN(to, log->mem_first - 1);
    return log->storage->entries(log->storage->arg, from, to, bytes_max, out);
}

/* Terms never fall along the log, so halving finds the place; a walk would read the whole log from disk. */
uint64_t raft_log_floor(const struct raft_log *log, uint64_t index, uint64_t term)
{
    uint64_t low = log->first - 1, high = MIN(index, log->last);

    while (low < high) {
        uint64_t middle = high - (high - low) / 2;
        uint64_t found;

        if (raft_log_term(log, middle, &found) && found <= term)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* Thesis 3.6.1: the later term wins, then the longer log. */
bool raft_log_is_newer(const struct raft_log *log, uint64_t last_index, uint64_t last_term)
{
    return log->last_term != last_term ? log->last_term > last_term : log->last > last_index;
}

static void log_drop_front(struct raft_log *log)
{
    struct raft_slot *front = slot(log, log->mem_first);

    log->bytes_start = front->bytes_end;
    entry_unref(front->entry);
    front->entry = NULL;
    log->mem_first++;
}

void raft_log_evict(struct raft_log *log)
{
    while (log->mem_first <= log->persisted && bytes_end(log, log->last) - log->bytes_start > log->cache_bytes_max)
        log_drop_front(log);
}

void raft_log_compact(struct raft_log *log, uint64_t first)
{
    uint64_t term;

    if (first <= log->first || !raft_log_term(log, first - 1, &term))
        return;
    must(first - 1 <= log->persisted);
    while (log->mem_first < first)
        log_drop_front(log);
    log->first = first;
    log->first_prev_term = term;
}

void raft_log_replace(struct raft_log *log, uint64_t index, uint64_t term)
{
    for (uint64_t i = log->mem_first; i <= log->last; i++) {
        entry_unref(slot(log, i)->entry);
        slot(log, i)->entry = NULL;
    }
    log->first = log->mem_first = index + 1;
    log->first_prev_term = log->last_term = term;
    log->last = log->persisted = log->offered = index;
    log->bytes_start = 0;
}

uint64_t raft_log_bytes_after(const struct raft_log *log, uint64_t index)
{
    return bytes_end(log, log->last) - bytes_end(log, MIN(index, log->last));
}
