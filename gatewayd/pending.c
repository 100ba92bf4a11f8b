/* pending - the table behind pending.h: a slab whose positions are part of the ids, and a list by deadline.
 * req and wire are (counter << SLOT_BITS | slot): unique because the counter is, found because the slot is. */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "gatewayd/pending.h"

#define SLOT_BITS 17
#define SLOT_MASK (((uint64_t)1 << SLOT_BITS) - 1)
#define BLOCK_SLOTS 256
/* Kept by a free slot for the next request; larger memory is given back. */
#define COMMAND_KEEP_BYTES ((size_t)2048)

_Static_assert(PENDING_REQUESTS_MAX <= (1 << SLOT_BITS) - BLOCK_SLOTS, "a slot's number must fit into its bits");

void pending_init(struct pending_table *t) { *t = (struct pending_table){.next_seq = 1}; }

void pending_fini(struct pending_table *t)
{
    for (uint32_t i = 0; i < t->slot_count; i++) {
        buf_fini(&t->slots[i]->command);
        buf_fini(&t->slots[i]->change);
    }
    for (uint32_t i = 0; i < t->slot_count; i += BLOCK_SLOTS) {
        free(t->slots[i]); /* the first of a block is the block */
    }
    free(t->slots);
    pending_init(t);
}

static void slab_grow(struct pending_table *t)
{
    struct pending *block = xcalloc(BLOCK_SLOTS, sizeof(*block));
    t->slots = xrealloc(t->slots, (t->slot_count + BLOCK_SLOTS) * sizeof(*t->slots));
    for (uint32_t i = 0; i < BLOCK_SLOTS; i++) {
        t->slots[t->slot_count + i] = &block[i];
        block[i].slot = t->slot_count + i;
        block[i].next = i + 1 < BLOCK_SLOTS ? &block[i + 1] : t->free_list;
    }
    t->free_list = block;
    t->slot_count += BLOCK_SLOTS;
}

static uint64_t next_id(struct pending_table *t, uint32_t slot) { return t->next_seq++ << SLOT_BITS | slot; }

void pending_list(struct pending_table *t, struct pending *p, uint64_t deadline_ms)
{
    must(!p->listed);
    p->deadline_ms = deadline_ms;
    /* From the end: only the few requests that may take long (compaction, defragmentation) are ever passed. */
    struct pending *after = t->last;
    while (after != NULL && after->deadline_ms > deadline_ms) {
        after = after->prev;
    }
    p->prev = after;
    p->next = after != NULL ? after->next : t->first;
    *(after != NULL ? &after->next : &t->first) = p;
    *(p->next != NULL ? &p->next->prev : &t->last) = p;
    p->listed = true;
}

void pending_unlist(struct pending_table *t, struct pending *p)
{
    if (!p->listed) {
        return;
    }
    *(p->prev != NULL ? &p->prev->next : &t->first) = p->next;
    *(p->next != NULL ? &p->next->prev : &t->last) = p->prev;
    p->prev = p->next = NULL;
    p->listed = false;
}

struct pending *pending_new(struct pending_table *t, enum pending_via via, answer_cb *cb, void *arg, uint64_t deadline_ms)
{
    if (t->count >= PENDING_REQUESTS_MAX || t->bytes >= PENDING_BYTES_MAX) {
        return NULL;
    }
    if (t->free_list == NULL) {
        slab_grow(t);
    }
    struct pending *p = t->free_list;
    t->free_list = p->next;
    struct buf command = p->command;
    uint32_t slot = p->slot;
    *p = (struct pending){.via = via, .cb = cb, .arg = arg, .command = command, .slot = slot};
    p->req = p->wire = next_id(t, slot);
    pending_list(t, p, deadline_ms);
    t->count++;
    return p;
}

static struct pending *slot_of(struct pending_table *t, uint64_t id)
{
    uint64_t slot = id & SLOT_MASK;
    return id != 0 && slot < t->slot_count ? t->slots[slot] : NULL;
}

struct pending *pending_find(struct pending_table *t, uint64_t req)
{
    struct pending *p = slot_of(t, req);
    return p != NULL && p->req == req ? p : NULL;
}

struct pending *pending_find_wire(struct pending_table *t, uint64_t wire)
{
    struct pending *p = slot_of(t, wire);
    return p != NULL && p->req != 0 && p->wire == wire ? p : NULL;
}

void pending_rename(struct pending_table *t, struct pending *p) { p->wire = next_id(t, p->slot); }

void pending_keep(struct pending_table *t, struct pending *p, const struct command *command)
{
    t->bytes -= p->command.len;
    buf_reset(&p->command);
    command_encode(&p->command, command);
    p->origin = command->origin;
    p->is_secret = command->kind == COMMAND_PASSWORD;
    t->bytes += p->command.len;
}

void pending_free(struct pending_table *t, struct pending *p)
{
    must(p->req != 0 && t->count > 0);
    pending_unlist(t, p);
    t->bytes -= p->command.len + p->change.len;
    buf_fini(&p->change);
    if (p->is_secret) {
        explicit_bzero(p->command.data, p->command.len);
    }
    if (p->command.cap > COMMAND_KEEP_BYTES) {
        buf_fini(&p->command);
    } else {
        buf_reset(&p->command);
    }
    p->req = p->wire = 0;
    p->next = t->free_list;
    t->free_list = p;
    t->count--;
}

uint64_t pending_next_ms(const struct pending_table *t)
{
    return t->first != NULL ? t->first->deadline_ms : UINT64_MAX;
}
