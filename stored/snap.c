/* snap - see snap.h. Frames come from in.c and go to raftd; bytes from and to dump.h on worker threads, one job at a time for
 * each direction; the swap itself is stored_reopen (stored.c) with swap.h inside. */
#include "stored/snap.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/crc32c.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/names.h"
#include "stored/dump.h"
#include "stored/stored.h"
#include "stored/swap.h"

#define SNAP_POLL_MS 5
/* A receiver that asks for more parts at once than this is not one of ours. */
#define SNAP_CREDIT_MAX 64
/* Parts that can be sent again; a receiver never goes back further, for it asks only behind what it has written. */
#define SNAP_PLACES (SNAP_CREDIT_MAX + 1)

struct place {
    struct buf key; /* where the part begins */
    uint32_t chain; /* of all before it */
};

struct save {
    uint64_t id; /* 0: none */
    struct dump *dump;
    uint64_t next, until;             /* parts */
    bool ended;                       /* the last part was made; next is behind it */
    struct place places[SNAP_PLACES]; /* by part number % SNAP_PLACES; of parts next - SNAP_CREDIT_MAX .. next */
    bool running, dropped;            /* a job runs; it was dropped meanwhile */
    uint64_t asked_from;              /* of a MORE that came meanwhile; UINT64_MAX: none */
    struct buf part;                  /* of the running job */
    bool more;
    int err;
};

struct load {
    uint64_t id; /* 0: none */
    uint64_t index;
    struct fill *fill;
    uint64_t got, written; /* parts: written <= got <= written + SNAP_WINDOW */
    uint32_t chain;        /* of all parts that were got */
    bool last;             /* the last one was got */
    bool refused;          /* a part, since `got` moved: said so once */
    struct buf parts[SNAP_WINDOW]; /* got and not yet written, by part number % SNAP_WINDOW */
    bool running, dropped; /* a job writes part `written`; it was dropped meanwhile */
    int err;
    struct buf why;
    uint64_t begun_ms, sync_us; /* when it began; how long it took to make it durable */
    bool closing; /* complete: waits for the moment of the swap */
    struct loop_timer *timer;
};

struct snap {
    struct save save;
    struct load load;
};

static char *store_dir(const struct stored *s)
{
    return xasprintf("%s/%s", s->conf->data_dir, NAME_STORE_DIR);
}

/* --- saving --------------------------------------------------------------------------------------------------- */

static void save_end(struct save *v)
{
    if (v->running) {
        v->dropped = true; /* by its end */
        return;
    }
    dump_close(v->dump);
    for (size_t i = 0; i < SNAP_PLACES; i++)
        buf_fini(&v->places[i].key);
    buf_fini(&v->part);
    *v = (struct save){0};
}

static void save_failed(struct stored *s, uint64_t id, int err)
{
    log_warnx("snap: the store cannot be sent: %s", err_text(err));
    link_send(s->raft, FRAME(snap_saved, SNAP_SAVED, .id = id, .err = (uint64_t)-err));
    save_end(&s->snap->save);
}

static void save_work(void *arg)
{
    struct stored *s = arg;
    struct save *v = &s->snap->save;

    buf_reset(&v->part);
    v->err = dump_part(v->dump, SNAP_PART_BYTES, &v->part, &v->more);
}

static void save_pump(struct stored *s);

static struct place *place_at(struct save *v, uint64_t part)
{
    return &v->places[part % SNAP_PLACES];
}

static void part_send(struct stored *s)
{
    struct save *v = &s->snap->save;
    struct place *now = place_at(v, v->next), *then = place_at(v, v->next + 1);

    then->chain = crc32c(now->chain, v->part.data, v->part.len);
    buf_reset(&then->key);
    buf_add_slice(&then->key, dump_place(v->dump));
    link_send(s->raft, FRAME(snap_part, SNAP_PART, .id = v->id, .part = v->next, .last = !v->more, .chain = then->chain,
                             .bytes = buf_slice(&v->part)));
    v->next++;
    v->ended = !v->more;
}

/* Parts from `from` on were lost on the way. */
static void save_go_back(struct save *v, uint64_t from)
{
    if (from >= v->next || v->next - from > SNAP_CREDIT_MAX)
        return;
    dump_go(v->dump, buf_slice(&place_at(v, from)->key));
    v->next = from;
    v->ended = false;
}

static void save_done(void *arg)
{
    struct stored *s = arg;
    struct save *v = &s->snap->save;

    v->running = false;
    if (v->dropped) {
        save_end(v);
        return;
    }
    if (v->err) {
        save_failed(s, v->id, v->err);
        return;
    }
    part_send(s);
    if (v->asked_from != UINT64_MAX)
        save_go_back(v, v->asked_from);
    v->asked_from = UINT64_MAX;
    save_pump(s);
}

static void save_pump(struct stored *s)
{
    struct save *v = &s->snap->save;

    if (!v->id || v->running || v->dropped || v->ended || v->next >= v->until || s->stopping)
        return;
    v->running = true;
    loop_work(s->loop, save_work, save_done, s);
}

static int in_save(struct stored *s, const struct fr_snap_save *fr)
{
    struct save *v = &s->snap->save;
    uint64_t index = 0;

    if (!fr->id)
        return E_MALFORMED;
    save_end(v); /* whoever wanted that one does not any more */
    if (v->running || snap_is_closed(s)) {
        link_send(s->raft, FRAME(snap_saved, SNAP_SAVED, .id = fr->id, .err = (uint64_t)-E_AGAIN));
        return 0;
    }
    int err = dump_open(s->mvcc, &v->dump, &index);
    if (err) {
        save_failed(s, fr->id, err);
        return 0;
    }
    v->id = fr->id;
    v->asked_from = UINT64_MAX;
    place_at(v, 0)->chain = (uint32_t)v->id;
    log_info("snap: sending the store as of entry %llu", (unsigned long long)index);
    link_send(s->raft, FRAME(snap_saved, SNAP_SAVED, .id = v->id, .index = index));
    return 0;
}

/* Ids of transfers that are over are not errors: a message may have been on its way. */
static int in_more(struct stored *s, const struct fr_snap_more *fr)
{
    struct save *v = &s->snap->save;

    if (fr->id != v->id || v->dropped)
        return 0;
    if (fr->until < fr->from || fr->until - fr->from > SNAP_CREDIT_MAX)
        return E_MALFORMED;
    v->until = fr->until;
    if (fr->again && v->running)
        v->asked_from = fr->from;
    else if (fr->again)
        save_go_back(v, fr->from);
    save_pump(s);
    return 0;
}

/* --- loading -------------------------------------------------------------------------------------------------- */

static void out_more(struct stored *s, bool again)
{
    const struct load *l = &s->snap->load;

    link_send(s->raft, FRAME(snap_more, SNAP_MORE, .id = l->id, .from = l->got, .until = l->written + SNAP_WINDOW,
                             .again = again));
}

static void load_clear(struct load *l)
{
    fill_free(l->fill);
    for (size_t i = 0; i < SNAP_WINDOW; i++)
        buf_fini(&l->parts[i]);
    buf_fini(&l->why);
    loop_timer_free(l->timer);
    *l = (struct load){0};
}

static void load_end(struct stored *s)
{
    struct load *l = &s->snap->load;
    char *dir;

    if (!l->id)
        return;
    if (l->running) {
        l->dropped = true;
        return;
    }
    load_clear(l);
    dir = store_dir(s);
    swap_discard(dir);
    free(dir);
}

static void load_failed(struct stored *s, int err)
{
    struct load *l = &s->snap->load;

    log_warnx("snap: as of entry %llu, loading failed in part %llu: %s%s%.*s", (unsigned long long)l->index,
              (unsigned long long)l->written, err_text(err), l->why.len > 0 ? ": " : "", (int)l->why.len,
              l->why.len > 0 ? (const char *)l->why.data : "");
    link_send(s->raft, FRAME(snap_loaded, SNAP_LOADED, .id = l->id, .err = (uint64_t)-err, .index = l->index));
    load_end(s);
}

static void load_work(void *arg)
{
    struct stored *s = arg;
    struct load *l = &s->snap->load;

    l->err = fill_part(l->fill, buf_slice(&l->parts[l->written % SNAP_WINDOW]));
    if (!l->err && l->last && l->written + 1 == l->got) {
        uint64_t begun_us = clock_now_us();

        l->err = fill_end(l->fill, l->index, &l->why);
        l->sync_us = clock_now_us() - begun_us;
        l->fill = NULL;
    }
}

/* No job may look at the store that goes. What was begun for gateways ends; its answers reach nobody. */
static void swap_poll_cb(void *arg, uint64_t now_ms)
{
    struct stored *s = arg;
    struct load *l = &s->snap->load;
    uint64_t id = l->id, index = l->index;

    if (s->stopping)
        return; /* it is loaded again some other time */
    if (loop_work_pending(s->loop)) {
        loop_timer_set(l->timer, now_ms + SNAP_POLL_MS);
        return;
    }
    uint64_t begun_us = clock_now_us();
    histogram_observe_us(&s->stats.snap_sync, l->sync_us);
    histogram_observe_us(&s->stats.snap_save, (now_ms - l->begun_ms) * 1000);
    load_clear(l);
    save_end(&s->snap->save);
    stored_reopen(s);
    log_info("snap: the store is now as of entry %llu, revision %lld; the change took %llu ms", (unsigned long long)index,
             (long long)mvcc_rev(s->mvcc), (unsigned long long)(clock_now_us() - begun_us) / 1000);
    /* First that, then APPLIED: raftd has to know why we are where we are. */
    link_send(s->raft, FRAME(snap_loaded, SNAP_LOADED, .id = id, .index = index));
    link_pause(s->raft, false);
    snap_door(s);
    out_hello(s);
    out_applied(s);
}

static void load_complete(struct stored *s)
{
    struct load *l = &s->snap->load;

    l->closing = true;
    apply_end(s);
    link_pause(s->raft, true);
    snap_door(s);
    loop_timer_set(l->timer, loop_now_ms(s->loop) + SNAP_POLL_MS);
}

static void load_done(void *arg);

static void load_next(struct stored *s)
{
    struct load *l = &s->snap->load;

    if (l->running || l->written == l->got)
        return;
    l->running = true;
    loop_work(s->loop, load_work, load_done, s);
}

static void load_done(void *arg)
{
    struct stored *s = arg;
    struct load *l = &s->snap->load;

    l->running = false;
    if (l->dropped) {
        load_end(s);
        return;
    }
    if (l->err) {
        load_failed(s, l->err);
        return;
    }
    l->written++;
    if (!l->fill) {
        load_complete(s);
        return;
    }
    if (!l->last)
        out_more(s, false);
    load_next(s);
}

static int in_load(struct stored *s, const struct fr_snap_load *fr)
{
    struct load *l = &s->snap->load;
    char *dir, *db;
    int err;

    if (!fr->id)
        return E_MALFORMED;
    if (l->id == fr->id && !l->dropped) { /* said again: the answer was lost */
        out_more(s, true);
        return 0;
    }
    load_end(s);
    if (l->id || s->stopping) {
        link_send(s->raft, FRAME(snap_loaded, SNAP_LOADED, .id = fr->id, .err = (uint64_t)-E_AGAIN, .index = fr->index));
        return 0;
    }
    *l = (struct load){.id = fr->id, .index = fr->index, .chain = (uint32_t)fr->id, .begun_ms = loop_now_ms(s->loop)};
    l->timer = loop_timer_new(s->loop, swap_poll_cb, s);
    dir = store_dir(s);
    db = swap_prepare(dir);
    err = fill_open(&l->fill, db, &l->why);
    free(dir);
    free(db);
    if (err) {
        load_failed(s, err);
        return 0;
    }
    log_info("snap: loading a store as of entry %llu, ours has applied %llu", (unsigned long long)fr->index,
             (unsigned long long)s->applied);
    out_more(s, false);
    return 0;
}

static int in_part(struct stored *s, const struct fr_snap_part *fr)
{
    struct load *l = &s->snap->load;

    if (fr->id != l->id || l->dropped || l->closing || fr->part < l->got || l->last)
        return 0; /* of another transfer, or sent twice */
    uint32_t chain = crc32c(l->chain, fr->bytes.data, fr->bytes.len);
    if (fr->part != l->got || chain != fr->chain || l->got == l->written + SNAP_WINDOW) {
        if (!l->refused) {
            log_warnx("snap: part %llu of %zu bytes is refused: %s", (unsigned long long)fr->part, fr->bytes.len,
                      fr->part != l->got ? "it is not the next one" : chain != fr->chain ? "its checksum is wrong" :
                                                                                          "it was not asked for");
            l->refused = true;
            out_more(s, true);
        }
        return 0;
    }
    struct buf *part = &l->parts[l->got % SNAP_WINDOW];
    buf_reset(part);
    buf_add_slice(part, fr->bytes);
    l->chain = chain;
    l->last = fr->last != 0;
    l->refused = false;
    l->got++;
    load_next(s);
    return 0;
}

/* --- orders ---------------------------------------------------------------------------------------------------- */

static int in_drop(struct stored *s, const struct fr_snap_drop *fr)
{
    struct snap *n = s->snap;

    if (n->save.id == fr->id)
        save_end(&n->save);
    if (n->load.id == fr->id && !n->load.closing)
        load_end(s);
    return 0;
}

int snap_frame(struct stored *s, const struct frame *f)
{
    switch (f->type) {
    case FR_SNAP_SAVE:
        return in_save(s, &f->snap_save);
    case FR_SNAP_MORE:
        return in_more(s, &f->snap_more);
    case FR_SNAP_LOAD:
        return in_load(s, &f->snap_load);
    case FR_SNAP_PART:
        return in_part(s, &f->snap_part);
    case FR_SNAP_DROP:
        return in_drop(s, &f->snap_drop);
    default:
        return E_MALFORMED;
    }
}

/* A load that is complete goes on: the HELLO that follows tells raftd. */
void snap_raft_down(struct stored *s)
{
    save_end(&s->snap->save);
    if (!s->snap->load.closing)
        load_end(s);
}

bool snap_is_closed(const struct stored *s)
{
    return s->blank || s->snap->load.closing;
}

void snap_door(struct stored *s)
{
    bool closed = snap_is_closed(s);

    for (unsigned slot = 1; slot <= GATEWAY_SLOTS; slot++) {
        if (closed)
            link_kick(s->gateways[slot].link, "the store is replaced by a snapshot");
        link_pause(s->gateways[slot].link, closed);
    }
}

bool snap_is_loading(const struct stored *s)
{
    return s->snap->load.id != 0;
}

bool snap_is_swapping(const struct stored *s)
{
    return s->snap->load.closing;
}

void snap_init(struct stored *s)
{
    s->snap = xcalloc(1, sizeof *s->snap);
}

void snap_fini(struct stored *s)
{
    save_end(&s->snap->save);
    load_end(s);
    free(s->snap);
    s->snap = NULL;
}
