/* hand - see hand.h. Input: commit and read indexes from the core (through turn.c), credit from stored (in.c).
 * Output: out_apply and out_serve. */
#include "raftd/hand.h"
#include "raftd/mutant.h"

#include <stdlib.h>

#include "common/err.h"
#include "common/mem.h"

#define HAND_CHUNK_ENTRIES 512
#define HAND_CHUNK_BYTES ((size_t)1 << 20)
/* What an entry costs on the link beside its bytes. */
#define HAND_ENTRY_OVERHEAD 48
/* A read that waited longer for its index or for stored is called slow; etcd's measure is the same. */
#define HAND_SLOW_MS 500
#define INDEX_UNKNOWN UINT64_MAX
/* Pause before a read index is asked for again that a member refused or could not be asked for. */
#define AGAIN_MS 20

void hand_init(struct hand *h, struct raft *raft, const struct turn_ops *ops, void *arg, const struct turn_conf *conf)
{
    *h = (struct hand){.raft = raft, .ops = ops, .arg = arg, .conf = conf};
    TAILQ_INIT(&h->asked);
    TAILQ_INIT(&h->unused);
}

static void batch_free(struct hand_batch *b)
{
    if (!b)
        return;
    free(b->reads);
    buf_fini(&b->bytes);
    free(b);
}

void hand_fini(struct hand *h)
{
    struct hand_batch *b;

    while ((b = TAILQ_FIRST(&h->asked))) {
        TAILQ_REMOVE(&h->asked, b, entry);
        batch_free(b);
    }
    while ((b = TAILQ_FIRST(&h->unused))) {
        TAILQ_REMOVE(&h->unused, b, entry);
        batch_free(b);
    }
    batch_free(h->gathering);
}

/* --- reads -------------------------------------------------------------------------------------- */

static struct hand_batch *batch_take(struct hand *h, uint64_t now_ms)
{
    struct hand_batch *b = TAILQ_FIRST(&h->unused);

    if (b)
        TAILQ_REMOVE(&h->unused, b, entry);
    else
        b = xcalloc(1, sizeof(*b));
    b->tag = ++h->tag_last;
    b->index = INDEX_UNKNOWN;
    b->since_ms = now_ms;
    return b;
}

static void batch_done(struct hand *h, struct hand_batch *b)
{
    h->wait_count -= b->count;
    h->wait_bytes -= b->bytes.len;
    b->count = 0;
    buf_reset(&b->bytes);
    if (b->bytes.cap > HAND_CHUNK_BYTES)
        buf_fini(&b->bytes);
    TAILQ_INSERT_HEAD(&h->unused, b, entry);
}

static void batch_refuse(struct hand *h, struct hand_batch *b, int err)
{
    for (size_t i = 0; i < b->count; i++)
        h->ops->refuse(h->arg, b->reads[i].slot, b->reads[i].req, err);
    h->refused += b->count;
    batch_done(h, b);
}

void hand_read_add(struct hand *h, unsigned slot, uint64_t req, struct slice command, uint64_t now_ms)
{
    h->reads++;
    if (h->wait_count >= h->conf->wait_count_max || h->wait_bytes + command.len > h->conf->wait_bytes_max) {
        h->refused++;
        h->ops->refuse(h->arg, slot, req, E_REQUEST_TOO_MANY_REQUESTS);
        return;
    }
    if (!h->gathering)
        h->gathering = batch_take(h, now_ms);

    struct hand_batch *b = h->gathering;
    if (b->count == b->cap) {
        b->cap = MAX(b->cap * 2, 16);
        b->reads = xrealloc(b->reads, b->cap * sizeof(*b->reads));
    }
    b->reads[b->count++] = (struct hand_read){.slot = slot, .req = req, .offset = b->bytes.len, .len = command.len};
    buf_add_slice(&b->bytes, command);
    h->wait_count++;
    h->wait_bytes += command.len;
}

uint64_t hand_ask(struct hand *h, uint64_t now_ms, uint64_t again_ms)
{
    struct hand_batch *b = h->gathering;

    if (b) {
        h->gathering = NULL;
        b->again_ms = 0;
        TAILQ_INSERT_TAIL(&h->asked, b, entry);
    }
    TAILQ_FOREACH (b, &h->asked, entry) {
        if (b->index != INDEX_UNKNOWN || b->again_ms > now_ms)
            continue;
        b->tag = ++h->tag_last; /* an answer to an earlier question finds nobody */
        b->again_ms = again_ms;
        h->rounds++;
        return b->tag;
    }
    return 0;
}

uint64_t hand_ask_ms(const struct hand *h)
{
    const struct hand_batch *b;
    uint64_t at = UINT64_MAX;

    TAILQ_FOREACH (b, &h->asked, entry) {
        if (b->index == INDEX_UNKNOWN)
            at = MIN(at, b->again_ms);
    }
    return at;
}

static struct hand_batch *batch_find(struct hand *h, uint64_t tag)
{
    struct hand_batch *b;

    TAILQ_FOREACH (b, &h->asked, entry) {
        if (b->tag == tag)
            return b;
    }
    return NULL; /* given up meanwhile */
}

void hand_confirmed(struct hand *h, uint64_t tag, uint64_t index)
{
    struct hand_batch *b = batch_find(h, tag);

    if (b)
        b->index = index;
}

void hand_again(struct hand *h, uint64_t tag, uint64_t now_ms)
{
    struct hand_batch *b = batch_find(h, tag);

    if (b && b->index == INDEX_UNKNOWN)
        b->again_ms = now_ms + AGAIN_MS;
}

void hand_leader_changed(struct hand *h)
{
    struct hand_batch *b;

    TAILQ_FOREACH (b, &h->asked, entry) {
        if (b->index == INDEX_UNKNOWN && b->again_ms != UINT64_MAX)
            b->again_ms = 0;
    }
}

void hand_refused(struct hand *h, uint64_t tag, int err)
{
    struct hand_batch *b = batch_find(h, tag);

    if (!b)
        return;
    TAILQ_REMOVE(&h->asked, b, entry);
    batch_refuse(h, b, err);
}

uint64_t hand_expire(struct hand *h, uint64_t now_ms)
{
    struct hand_batch *b;

    while ((b = TAILQ_FIRST(&h->asked)) && b->since_ms + h->conf->wait_ms <= now_ms) {
        TAILQ_REMOVE(&h->asked, b, entry);
        batch_refuse(h, b, E_TIMEOUT);
    }
    if (h->gathering && h->gathering->since_ms + h->conf->wait_ms <= now_ms) {
        b = h->gathering;
        h->gathering = NULL;
        batch_refuse(h, b, E_TIMEOUT);
    }
    b = TAILQ_FIRST(&h->asked);
    uint64_t first = b ? b->since_ms : UINT64_MAX;
    return h->gathering ? MIN(first, h->gathering->since_ms) : first;
}

/* Those at the front whose index was handed over. A batch behind an unconfirmed one waits for it: the core confirms in
 * order, so that costs nothing. */
static void reads_serve(struct hand *h, uint64_t now_ms)
{
    struct hand_batch *b;

    while ((b = TAILQ_FIRST(&h->asked)) && h->ops->apply_room(h->arg) &&
           MUTATE(READ_BEFORE_APPLY, b->index <= h->handed, b->index != INDEX_UNKNOWN)) {
        TAILQ_REMOVE(&h->asked, b, entry);
        for (size_t i = 0; i < b->count; i++) {
            const struct hand_read *r = &b->reads[i];

            h->ops->serve(h->arg, r->slot, b->index, r->req, slice_of(b->bytes.data + r->offset, r->len));
        }
        if (now_ms - b->since_ms >= HAND_SLOW_MS)
            h->slow += b->count;
        batch_done(h, b);
    }
}

/* --- entries ------------------------------------------------------------------------------------ */

void hand_up(struct hand *h, uint64_t applied)
{
    h->up = h->ever_up = true;
    h->handed = MUTATE(HAND_NOT_REWOUND, applied, MAX(h->handed, applied));
    h->applied = applied;
    h->room = h->conf->apply_bytes_max;
    h->sent_head = h->sent_count = h->sent_bytes = 0;
}

void hand_down(struct hand *h)
{
    h->up = false;
}

void hand_applied(struct hand *h, uint64_t applied, uint64_t room)
{
    h->applied = applied;
    h->room = room;
    while (h->sent_count > 0) {
        struct hand_sent *s = &h->sent[h->sent_head % HAND_SENT_MAX];

        if (s->last > applied)
            break;
        h->sent_bytes -= s->bytes;
        h->sent_head++;
        h->sent_count--;
    }
}

/* Bytes that may go now. What was sent and is not applied counts against both our limit and stored's offer; a
 * store that has applied everything gets at least one entry, however large. */
static size_t credit(const struct hand *h)
{
    size_t limit = (size_t)MIN((uint64_t)h->conf->apply_bytes_max, h->room);

    if (h->sent_count == HAND_SENT_MAX)
        return 0;
    if (h->sent_bytes == 0)
        return MAX(limit, (size_t)1);
    return h->sent_bytes < limit ? limit - h->sent_bytes : 0;
}

/* One chunk. False: nothing to send, or no credit. */
static bool chunk_send(struct hand *h)
{
    struct entry *chunk[HAND_CHUNK_ENTRIES];
    size_t bytes = 0, allowed = credit(h);

    if (allowed == 0 || !h->ops->apply_room(h->arg))
        return false;
    int count = raft_committed(h->raft, h->handed, MIN(allowed, HAND_CHUNK_BYTES), chunk, HAND_CHUNK_ENTRIES);
    must(count >= 0);
    if (count == 0)
        return false;
    /* At least one is what we get, even over the limit: only an idle store takes it. */
    if (h->sent_bytes > 0 && chunk[0]->len + HAND_ENTRY_OVERHEAD > allowed) {
        for (int i = 0; i < count; i++)
            entry_unref(chunk[i]);
        return false;
    }
    for (int i = 0; i < count; i++) {
        must(chunk[i]->index == h->handed + 1);
        h->ops->apply(h->arg, chunk[i]);
        h->handed++;
        bytes += chunk[i]->len + HAND_ENTRY_OVERHEAD;
        entry_unref(chunk[i]);
    }
    h->applies += (uint64_t)count;
    h->sent[(h->sent_head + h->sent_count++) % HAND_SENT_MAX] = (struct hand_sent){.last = h->handed, .bytes = bytes};
    h->sent_bytes += bytes;
    return true;
}

void hand_run(struct hand *h, uint64_t now_ms)
{
    if (!h->up)
        return;
    do
        reads_serve(h, now_ms);
    while (chunk_send(h));
}
