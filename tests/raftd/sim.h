/* sim - a cluster of raft cores in one process on a false clock, network and disk, all from one seed.
 *
 * Disk: what a ready has to persist queues up and is done later, in order; a crash keeps a random prefix of the queue
 * (torn inside an append) and loses the rest. Network: messages are late, lost, doubled and overtake each other;
 * links are cut one way or both. Stored: applies late, and falls back to its durable index in a crash. Snapshots:
 * the log is dropped early, so followers that were away need them.
 *
 * After every step is checked: one leader per term; a new leader has every committed entry; no two members ever
 * commit or apply different entries at an index; logs match; a read's index is not below what anybody had committed
 * when it was asked. A violated promise prints the seed and the last steps, and ends the test. */
#ifndef TESTS_RAFTD_SIM_H
#define TESTS_RAFTD_SIM_H

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/limits.h"
#include "common/mem.h"
#include "common/rand.h"
#include "raftd/raft.h"
#include "raftd/raft_int.h"

#define SIM_NODES 7
#define SIM_INDEX_MAX 20000
#define SIM_TERM_MAX 20000
#define SIM_NET_MAX 4096
#define SIM_WRITES_MAX 512
#define SIM_READS_MAX 65536
#define SIM_ELECTION_MS 100
#define SIM_HEARTBEAT_MS 20
#define SIM_TRACE 40

struct sim_write { /* what one ready has to persist, and what waits for it */
    bool hard;
    uint64_t term, vote, hard_seq, truncate_from;
    struct entry **entries;
    size_t entry_count;
    struct raft_msg *late;
    size_t late_count;
    uint64_t done_ms;
};

struct sim_disk {
    uint64_t term, vote;
    uint64_t first, first_prev_term, last;     /* entries first..last */
    struct entry *entries[SIM_INDEX_MAX];      /* by index */
    struct raft_member base[RAFT_MEMBERS_MAX]; /* membership as of first - 1 */
    size_t base_count;
    uint64_t base_index;
    uint64_t durable; /* stored's */
};

struct sim_node {
    uint64_t id;
    bool up, was_leader;
    struct raft *raft;
    struct sim_disk disk;
    struct sim_write writes[SIM_WRITES_MAX];
    size_t write_first, write_count;
    uint64_t applied, seen_commit, deadline_ms, apply_at_ms;
};

struct sim_packet {
    uint64_t at_ms, order;
    struct raft_msg msg; /* owns its entries */
};

struct sim_faults {
    uint32_t drop, twice, cut, crash, slow_disk; /* per mille */
    bool members, transfer, snapshots, pre_vote;
};

struct sim {
    uint64_t seed, now_ms, steps, packets_sent, next_tag;
    struct rand rand;
    struct sim_faults faults;
    size_t voters;
    struct sim_node nodes[SIM_NODES];
    size_t node_count;
    bool cut[SIM_NODES][SIM_NODES];
    struct sim_packet net[SIM_NET_MAX];
    size_t net_count;
    uint64_t leader_of[SIM_TERM_MAX]; /* by term */
    struct entry *committed[SIM_INDEX_MAX];
    uint64_t committed_max, commits, reads_done, elections, snaps;
    uint64_t read_floor[SIM_READS_MAX]; /* by tag: what was committed when it was asked */
    char trace[SIM_TRACE][256];
};

static void sim_trace(struct sim *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void sim_trace(struct sim *s, const char *fmt, ...)
{
    va_list args;
    char *line = s->trace[s->steps++ % SIM_TRACE];
    int len = snprintf(line, 256, "%6" PRIu64 " ", s->now_ms);

    va_start(args, fmt);
    vsnprintf(line + len, 256 - (size_t)len, fmt, args);
    va_end(args);
}

_Noreturn static void sim_broken(struct sim *s, const char *promise)
{
    char text[512];

    fprintf(stderr, "\nbroken: %s; seed %" PRIu64 ", %zu voters; the last steps:\n", promise, s->seed, s->voters);
    for (uint64_t i = s->steps > SIM_TRACE ? s->steps - SIM_TRACE : 0; i < s->steps; i++)
        fprintf(stderr, "  %s\n", s->trace[i % SIM_TRACE]);
    for (size_t i = 0; i < s->node_count; i++)
        if (s->nodes[i].up) {
            raft_show(s->nodes[i].raft, text, sizeof(text));
            fprintf(stderr, "  %s\n", text);
        }
    abort();
}

#define sim_must(s, expr) ((expr) ? (void)0 : sim_broken(s, #expr))

static bool sim_chance(struct sim *s, uint32_t per_mille)
{
    return rand_below(&s->rand, 1000) < per_mille;
}

static struct sim_node *sim_node(struct sim *s, uint64_t id)
{
    return id >= 1 && id <= s->node_count ? &s->nodes[id - 1] : NULL;
}

/* --- disk -------------------------------------------------------------------------------------- */

static bool sim_term(void *arg, uint64_t index, uint64_t *term)
{
    struct sim_disk *d = arg;

    if (index + 1 == d->first)
        *term = d->first_prev_term;
    else if (index < d->first || index > d->last)
        return false;
    else
        *term = d->entries[index]->term;
    return true;
}

static int sim_entries(void *arg, uint64_t from, uint64_t to, size_t bytes_max, struct entry **out)
{
    struct sim_disk *d = arg;
    size_t bytes = 0;
    int count = 0;

    if (from < d->first)
        return 0;
    for (uint64_t i = from; i <= to && i <= d->last; i++) {
        bytes += raft_entry_bytes(d->entries[i]);
        if (count > 0 && bytes > bytes_max)
            break;
        out[count++] = entry_ref(d->entries[i]);
    }
    return count;
}

static void sim_disk_cut(struct sim_disk *d, uint64_t from)
{
    while (d->last >= from && d->last >= d->first) {
        entry_unref(d->entries[d->last]);
        d->entries[d->last--] = NULL;
    }
}

static void sim_conf_apply(struct raft_member *members, size_t *count, uint64_t *index, const struct entry *e)
{
    struct raft_conf_change c;

    if (e->kind != ENTRY_CONF || raft_conf_decode(entry_data(e), &c) || c.op == RAFT_CONF_UPDATE)
        return;
    *count = raft_conf_apply(members, *count, &c);
    *index = e->index;
}

static void sim_disk_drop(struct sim_disk *d, uint64_t below)
{
    while (d->first < below && d->first <= d->last) {
        struct entry *e = d->entries[d->first];

        sim_conf_apply(d->base, &d->base_count, &d->base_index, e);
        d->first_prev_term = e->term;
        d->entries[d->first++] = NULL;
        entry_unref(e);
    }
}

static void sim_write_free(struct sim_write *w)
{
    for (size_t i = 0; i < w->entry_count; i++)
        entry_unref(w->entries[i]);
    free(w->entries);
    free(w->late);
    *w = (struct sim_write){0};
}

/* The first `count` entries of a write; hard state comes last, as in raft.h. */
static void sim_write_do(struct sim *s, struct sim_disk *d, const struct sim_write *w, size_t count)
{
    if (w->truncate_from > 0)
        sim_disk_cut(d, w->truncate_from);
    for (size_t i = 0; i < count; i++) {
        sim_must(s, w->entries[i]->index == d->last + 1);
        sim_must(s, d->last + 2 < SIM_INDEX_MAX);
        d->entries[++d->last] = entry_ref(w->entries[i]);
    }
    if (count == w->entry_count && w->hard) {
        sim_must(s, w->term >= d->term);
        sim_must(s, w->term > d->term || d->vote == RAFT_NONE || d->vote == w->vote);
        d->term = w->term;
        d->vote = w->vote;
    }
}

/* --- network ------------------------------------------------------------------------------------ */

static void sim_packet_drop(struct sim *s, size_t pos)
{
    struct raft_msg *m = &s->net[pos].msg;

    for (size_t i = 0; i < m->entry_count; i++)
        entry_unref(m->entries[i]);
    free(m->entries);
    s->net[pos] = s->net[--s->net_count];
}

static void sim_send_one(struct sim *s, const struct raft_msg *m)
{
    if (s->net_count == SIM_NET_MAX)
        sim_packet_drop(s, rand_below(&s->rand, s->net_count));

    struct sim_packet *p = &s->net[s->net_count++];

    p->at_ms = s->now_ms + 1 + rand_below(&s->rand, sim_chance(s, 20) ? 150 : 6);
    p->order = s->packets_sent++;
    p->msg = *m;
    p->msg.entries = xmalloc((m->entry_count + 1) * sizeof(*p->msg.entries));
    for (size_t i = 0; i < m->entry_count; i++)
        p->msg.entries[i] = entry_ref(m->entries[i]);
}

static void sim_snap(struct sim *s, const struct raft_msg *m);

static void sim_send(struct sim *s, const struct raft_msg *m)
{
    if (m->type == RAFT_MSG_SNAP) {
        sim_snap(s, m);
        return;
    }
    if (!sim_chance(s, s->faults.drop))
        sim_send_one(s, m);
    if (sim_chance(s, s->faults.twice))
        sim_send_one(s, m);
}

/* --- promises ------------------------------------------------------------------------------------ */

static bool sim_entry_same(const struct entry *a, const struct entry *b)
{
    return a->index == b->index && a->term == b->term && a->kind == b->kind && a->len == b->len &&
           memcmp(a->data, b->data, a->len) == 0;
}

static void sim_check_committed(struct sim *s, struct sim_node *n)
{
    uint64_t commit = raft_commit(n->raft);

    while (n->seen_commit < commit) {
        uint64_t index = ++n->seen_commit;
        struct entry *e;
        bool from_storage;

        if (raft_log_slice(&n->raft->log, index, index, SIZE_MAX, &e, 1, &from_storage) != 1)
            continue; /* in a snapshot */
        if (!s->committed[index]) {
            s->committed[index] = entry_ref(e);
            s->commits++;
        }
        sim_must(s, sim_entry_same(s->committed[index], e)); /* state machine agreement */
        entry_unref(e);
    }
    s->committed_max = MAX(s->committed_max, commit);
}

static void sim_check_leader(struct sim *s, struct sim_node *n)
{
    uint64_t term = raft_term(n->raft);
    uint64_t entry_term;

    if (raft_role(n->raft) != RAFT_LEADER) {
        n->was_leader = false;
        return;
    }
    sim_must(s, term < SIM_TERM_MAX);
    sim_must(s, s->leader_of[term] == 0 || s->leader_of[term] == n->id); /* election safety */
    s->leader_of[term] = n->id;
    if (n->was_leader)
        return;
    n->was_leader = true;
    s->elections++;
    for (uint64_t i = n->raft->log.first; i <= s->committed_max; i++) {
        sim_must(s, raft_log_term(&n->raft->log, i, &entry_term)); /* leader completeness */
        sim_must(s, !s->committed[i] || entry_term == s->committed[i]->term);
    }
}

/* If two logs agree at an index, they agree before it. */
static void sim_check_matching(struct sim *s)
{
    for (size_t a = 0; a < s->node_count; a++)
        for (size_t b = a + 1; b < s->node_count; b++) {
            struct sim_node *x = &s->nodes[a], *y = &s->nodes[b];
            bool agree = false;

            if (!x->up || !y->up)
                continue;
            uint64_t low = MAX(x->raft->log.first, y->raft->log.first);

            for (uint64_t i = MIN(x->raft->log.last, y->raft->log.last); i >= low; i--) {
                uint64_t tx, ty;

                sim_must(s, raft_log_term(&x->raft->log, i, &tx) && raft_log_term(&y->raft->log, i, &ty));
                sim_must(s, tx == ty || !agree); /* log matching */
                agree = tx == ty;
            }
        }
}

static void sim_check(struct sim *s, struct sim_node *n)
{
    sim_check_committed(s, n);
    sim_check_leader(s, n);
    if (s->steps % 64 == 0)
        sim_check_matching(s);
}

/* --- a node -------------------------------------------------------------------------------------- */

static void sim_step(struct sim *s, struct sim_node *n, struct raft_event ev)
{
    char text[200];

    ev.now_ms = s->now_ms;
    raft_show_event(&ev, text, sizeof(text));
    sim_trace(s, "%" PRIu64 ": %s", n->id, text);
    raft_step(n->raft, &ev);
    sim_check(s, n);
}

/* What turn.c does with a ready. */
static void sim_turn(struct sim *s, struct sim_node *n)
{
    struct raft_ready ready;

    if (!raft_has_ready(n->raft) && sim_chance(s, 950))
        return; /* taking an empty one must not hurt */
    raft_ready(n->raft, &ready);
    for (size_t i = 0; i < ready.early_count; i++)
        sim_send(s, &ready.early[i]);
    n->deadline_ms = ready.deadline_ms;
    for (size_t i = 0; i < ready.read_count; i++) {
        sim_must(s, ready.reads[i].index >= s->read_floor[ready.reads[i].tag]); /* reads are linearizable */
        sim_must(s, ready.reads[i].index <= ready.commit);
        s->reads_done++;
    }
    if (ready.hard_changed || ready.truncate_from > 0 || ready.entry_count > 0 || ready.late_count > 0) {
        sim_must(s, n->write_count < SIM_WRITES_MAX);
        struct sim_write *w = &n->writes[(n->write_first + n->write_count++) % SIM_WRITES_MAX];

        *w = (struct sim_write){.hard = ready.hard_changed,
                                .term = ready.term,
                                .vote = ready.vote,
                                .hard_seq = ready.hard_seq,
                                .truncate_from = ready.truncate_from,
                                .entry_count = ready.entry_count,
                                .late_count = ready.late_count};
        w->entries = xmalloc((w->entry_count + 1) * sizeof(*w->entries));
        for (size_t i = 0; i < w->entry_count; i++)
            w->entries[i] = entry_ref(ready.entries[i]);
        w->late = xmemdup(ready.late, ready.late_count * sizeof(*ready.late));
        w->done_ms = s->now_ms + rand_below(&s->rand, sim_chance(s, s->faults.slow_disk) ? 80 : 3);
    }
    if (ready.drop_below > 0)
        sim_disk_drop(&n->disk, ready.drop_below);
    sim_must(s, !raft_has_ready(n->raft)); /* one ready tells all */
}

static void sim_disk_tick(struct sim *s, struct sim_node *n)
{
    while (n->write_count > 0 && n->writes[n->write_first].done_ms <= s->now_ms) {
        struct sim_write *w = &n->writes[n->write_first];
        struct raft_event ev = {.type = RAFT_EV_PERSISTED, .hard_seq = w->hard_seq};

        sim_write_do(s, &n->disk, w, w->entry_count);
        for (size_t i = 0; i < w->late_count; i++)
            sim_send(s, &w->late[i]);
        ev.index = n->disk.last;
        if (!sim_term(&n->disk, n->disk.last, &ev.entry_term))
            ev.entry_term = 0;
        sim_write_free(w);
        n->write_first = (n->write_first + 1) % SIM_WRITES_MAX;
        n->write_count--;
        if (n->write_count == 0 || sim_chance(s, 500)) /* several may be reported at once */
            sim_step(s, n, ev);
    }
}

static void sim_apply(struct sim *s, struct sim_node *n)
{
    struct entry *entries[64];
    int count = raft_committed(n->raft, n->applied, 1 + rand_below(&s->rand, 4096), entries, 64);

    sim_must(s, count >= 0);
    for (int i = 0; i < count; i++) {
        sim_must(s, entries[i]->index == n->applied + 1);
        sim_must(s, sim_entry_same(entries[i], s->committed[++n->applied]));
        entry_unref(entries[i]);
    }
    uint64_t durable = n->disk.durable;

    if (sim_chance(s, 200))
        n->disk.durable = durable = durable + rand_below(&s->rand, n->applied - durable + 1);
    sim_step(s, n, (struct raft_event){.type = RAFT_EV_APPLIED, .index = n->applied, .durable = durable});
    n->apply_at_ms = s->now_ms + rand_below(&s->rand, 30);
}

static void sim_start(struct sim *s, struct sim_node *n)
{
    struct sim_disk *d = &n->disk;
    struct raft_member members[RAFT_MEMBERS_MAX], prev[RAFT_MEMBERS_MAX];
    struct raft_start start = {.term = d->term,
                               .vote = d->vote,
                               .first_index = d->first,
                               .first_prev_term = d->first_prev_term,
                               .last_index = d->last};
    struct raft_conf conf = {.id = n->id,
                             .seed = rand_u64(&s->rand),
                             .election_ms = SIM_ELECTION_MS,
                             .heartbeat_ms = SIM_HEARTBEAT_MS,
                             .pre_vote = s->faults.pre_vote || s->seed % 8 != 7,
                             .check_quorum = s->seed % 4 != 3,
                             .append_bytes_max = 700,
                             .inflight_bytes_max = 2000,
                             .cache_bytes_max = 1500,
                             .uncommitted_bytes_max = 100000,
                             .keep_entries = s->faults.snapshots ? 10 : 0,
                             .storage = {sim_term, sim_entries, d}};

    must(sim_term(d, d->last, &start.last_term));
    memcpy(members, d->base, sizeof(members));
    memcpy(prev, d->base, sizeof(prev));
    start.members = members;
    start.member_count = d->base_count;
    start.conf_index = d->base_index;
    start.prev_members = prev;
    start.prev_member_count = d->base_count;
    start.prev_conf_index = d->base_index;
    for (uint64_t i = d->first; i <= d->last; i++) {
        uint64_t before_index = start.conf_index;
        size_t before_count = start.member_count;
        struct raft_member before[RAFT_MEMBERS_MAX];

        memcpy(before, members, sizeof(before));
        sim_conf_apply(members, &start.member_count, &start.conf_index, d->entries[i]);
        if (start.conf_index == before_index)
            continue;
        memcpy(prev, before, sizeof(prev));
        start.prev_member_count = before_count;
        start.prev_conf_index = before_index;
    }
    n->applied = MAX(d->durable, d->first - 1);
    start.commit = n->applied;
    n->seen_commit = d->first - 1;
    n->raft = raft_new(&conf, &start, s->now_ms);
    n->up = true;
    n->was_leader = false;
    n->deadline_ms = s->now_ms;
    n->apply_at_ms = s->now_ms;
}

static void sim_crash(struct sim *s, struct sim_node *n)
{
    sim_trace(s, "%" PRIu64 ": crash", n->id);
    while (n->write_count > 0) {
        struct sim_write *w = &n->writes[n->write_first];
        bool lost = sim_chance(s, 400);

        sim_write_do(s, &n->disk, w, lost ? rand_below(&s->rand, w->entry_count + 1) : w->entry_count);
        if (lost)
            break;
        sim_write_free(w);
        n->write_first = (n->write_first + 1) % SIM_WRITES_MAX;
        n->write_count--;
    }
    for (; n->write_count > 0; n->write_count--) {
        sim_write_free(&n->writes[n->write_first]);
        n->write_first = (n->write_first + 1) % SIM_WRITES_MAX;
    }
    raft_free(n->raft);
    n->raft = NULL;
    n->up = false;
}

/* A snapshot of what the sender has applied, installed at once or not at all. */
static void sim_snap(struct sim *s, const struct raft_msg *m)
{
    struct sim_node *from = sim_node(s, m->from), *to = sim_node(s, m->to);
    struct sim_disk *d = &to->disk;
    uint64_t index = from->applied, term, ours;
    struct raft_member members[RAFT_MEMBERS_MAX];
    size_t count = from->disk.base_count;
    uint64_t conf_index = from->disk.base_index;
    bool ok = to->up && !s->cut[m->from - 1][m->to - 1] && !sim_chance(s, s->faults.drop) &&
              sim_term(&from->disk, index, &term);

    s->snaps++;
    if (ok && index > raft_commit(to->raft)) {
        memcpy(members, from->disk.base, sizeof(members));
        for (uint64_t i = from->disk.first; i <= index; i++)
            sim_conf_apply(members, &count, &conf_index, from->disk.entries[i]);
        sim_crash(s, to);
        if (sim_term(d, index, &ours) && ours == term) {
            sim_disk_drop(d, index + 1);
        } else {
            sim_disk_cut(d, d->first);
            d->first = index + 1;
            d->last = index;
            d->first_prev_term = term;
        }
        memcpy(d->base, members, sizeof(members));
        d->base_count = count;
        d->base_index = conf_index;
        d->durable = MAX(d->durable, index);
        sim_start(s, to);
    }
    struct sim_packet report = {
        .msg = {
            .type = RAFT_MSG_SNAP_SAID, .from = m->to, .to = m->from, .term = m->term, .index = index, .reject = !ok}};

    sim_send_one(s, &report.msg); /* turn.c's own knowledge, so never lost */
}

/* --- the world --------------------------------------------------------------------------------------- */

/* Mild and rough seeds: some faults only meet when one kind of them is very frequent. */
static void sim_vary(struct sim *s)
{
    static const uint32_t factors[] = {1, 1, 2, 5, 10};
    struct sim_faults *f = &s->faults;

    f->drop = MIN(f->drop * factors[s->seed % 5], 300);
    f->cut = MIN(f->cut * factors[s->seed / 5 % 5], 100);
    f->crash *= factors[s->seed / 25 % 5];
    f->slow_disk = MIN(f->slow_disk * factors[s->seed / 125 % 5], 600);
}

static void sim_init(struct sim *s, uint64_t seed, size_t voters, size_t nodes, struct sim_faults faults)
{
    s->seed = seed;
    s->voters = voters;
    s->node_count = nodes;
    s->faults = faults;
    sim_vary(s);
    rand_seed(&s->rand, seed * 2654435761u + voters);
    for (size_t i = 0; i < nodes; i++) {
        struct sim_node *n = &s->nodes[i];

        n->id = i + 1;
        n->disk.first = 1;
        /* The founders' logs begin with their own membership, as etcd's do: a later member learns it from there. */
        for (size_t k = 0; k < voters && i < voters; k++) {
            struct buf bytes = BUF_INIT;

            raft_conf_encode(&bytes, &(struct raft_conf_change){.op = RAFT_CONF_ADD, .id = k + 1});
            n->disk.entries[k + 1] = entry_new(ENTRY_CONF, buf_slice(&bytes));
            n->disk.entries[k + 1]->index = k + 1;
            n->disk.entries[k + 1]->term = 1;
            buf_fini(&bytes);
        }
        n->disk.last = i < voters ? voters : 0;
        n->disk.term = i < voters ? 1 : 0;
        sim_start(s, n);
        for (size_t k = 1; k <= n->disk.last; k++)
            if (!s->committed[k])
                s->committed[k] = entry_ref(n->disk.entries[k]);
    }
    s->committed_max = voters;
}

static void sim_fini(struct sim *s)
{
    while (s->net_count > 0)
        sim_packet_drop(s, 0);
    for (size_t i = 0; i < s->node_count; i++) {
        if (s->nodes[i].up)
            sim_crash(s, &s->nodes[i]);
        sim_disk_cut(&s->nodes[i].disk, 0);
    }
    for (size_t i = 0; i < SIM_INDEX_MAX; i++)
        entry_unref(s->committed[i]);
}

static void sim_deliver(struct sim *s)
{
    for (size_t i = 0; i < s->net_count;) {
        if (s->net[i].at_ms > s->now_ms) {
            i++;
            continue;
        }
        struct sim_packet p = s->net[i];
        struct sim_node *to = sim_node(s, p.msg.to);

        s->net[i] = s->net[--s->net_count];
        if (to && to->up && p.msg.type == RAFT_MSG_SNAP_SAID)
            sim_step(s, to,
                     (struct raft_event){
                         .type = RAFT_EV_SNAP_SENT, .member = p.msg.from, .index = p.msg.index, .ok = !p.msg.reject});
        else if (to && to->up && !s->cut[p.msg.from - 1][p.msg.to - 1])
            sim_step(s, to, (struct raft_event){.type = RAFT_EV_RECV, .msg = &p.msg});
        for (size_t k = 0; k < p.msg.entry_count; k++)
            entry_unref(p.msg.entries[k]);
        free(p.msg.entries);
        if (to && to->up && sim_chance(s, 700)) /* else several events share a turn */
            sim_turn(s, to);
    }
}

static void sim_propose(struct sim *s, struct sim_node *n)
{
    char text[64];
    struct buf bytes = BUF_INIT;
    uint64_t id = 1 + rand_below(&s->rand, s->node_count);
    struct entry *e;

    if (s->faults.members && sim_chance(s, 50)) {
        uint64_t op = RAFT_CONF_ADD + rand_below(&s->rand, RAFT_CONF_UPDATE);

        raft_conf_encode(&bytes, &(struct raft_conf_change){.op = op, .id = id});
        e = entry_new(ENTRY_CONF, buf_slice(&bytes));
        buf_fini(&bytes);
    } else {
        snprintf(text, sizeof(text), "%" PRIu64 "%.*s", s->next_tag, (int)rand_below(&s->rand, 50),
                 "..................................................");
        e = entry_new(ENTRY_COMMAND, slice_str(text));
    }
    sim_step(s, n, (struct raft_event){.type = RAFT_EV_PROPOSE, .tag = s->next_tag++, .entry = e});
}

static void sim_work(struct sim *s, struct sim_node *n)
{
    if (sim_chance(s, 100))
        sim_propose(s, n);
    if (sim_chance(s, 60) && s->next_tag < SIM_READS_MAX) {
        s->read_floor[s->next_tag] = s->committed_max;
        sim_step(s, n, (struct raft_event){.type = RAFT_EV_READ, .tag = s->next_tag++});
    }
    if (s->faults.transfer && sim_chance(s, 2))
        sim_step(s, n,
                 (struct raft_event){.type = RAFT_EV_TRANSFER, .member = 1 + rand_below(&s->rand, s->node_count)});
    if (s->faults.cut && sim_chance(s, 2))
        sim_step(s, n,
                 (struct raft_event){.type = sim_chance(s, 500) ? RAFT_EV_UNREACHABLE : RAFT_EV_GONE,
                                     .member = 1 + rand_below(&s->rand, s->node_count)});
}

static void sim_node_tick(struct sim *s, struct sim_node *n)
{
    sim_disk_tick(s, n);
    if (n->deadline_ms <= s->now_ms)
        sim_step(s, n, (struct raft_event){.type = RAFT_EV_TICK});
    sim_work(s, n);
    if (n->apply_at_ms <= s->now_ms)
        sim_apply(s, n);
    sim_turn(s, n);
}

static void sim_break_something(struct sim *s)
{
    if (sim_chance(s, s->faults.cut)) {
        uint32_t mask = (uint32_t)rand_u64(&s->rand); /* two halves, one way or both; or nothing at all */
        bool both = sim_chance(s, 700), heal = sim_chance(s, 400);

        for (size_t a = 0; a < s->node_count; a++)
            for (size_t b = 0; b < s->node_count; b++)
                s->cut[a][b] = !heal && ((mask >> a & 1) != (mask >> b & 1)) && (both || (mask >> a & 1));
    }
    for (size_t i = 0; i < s->node_count; i++) {
        struct sim_node *n = &s->nodes[i];

        if (n->up && sim_chance(s, s->faults.crash))
            sim_crash(s, n);
        else if (!n->up && sim_chance(s, 15))
            sim_start(s, n);
    }
}

static void sim_run(struct sim *s, uint64_t ms)
{
    for (uint64_t end = s->now_ms + ms; s->now_ms < end; s->now_ms++) {
        sim_break_something(s);
        sim_deliver(s);
        for (size_t i = 0; i < s->node_count; i++)
            if (s->nodes[i].up)
                sim_node_tick(s, &s->nodes[i]);
    }
}

static struct sim_node *sim_leader(struct sim *s)
{
    struct sim_node *best = NULL;

    for (size_t i = 0; i < s->node_count; i++)
        if (s->nodes[i].up && raft_is_settled(s->nodes[i].raft) &&
            (!best || raft_term(s->nodes[i].raft) > raft_term(best->raft)))
            best = &s->nodes[i];
    return best;
}

/* Faults stop: all links and nodes are whole again. */
static void sim_heal(struct sim *s)
{
    s->faults = (struct sim_faults){.snapshots = s->faults.snapshots, .pre_vote = s->faults.pre_vote};
    memset(s->cut, 0, sizeof(s->cut));
    for (size_t i = 0; i < s->node_count; i++)
        if (!s->nodes[i].up)
            sim_start(s, &s->nodes[i]);
}

/* Afterwards a leader must settle within a few elections, its members must have all it has, and reads be answered. */
static void sim_check_liveness(struct sim *s)
{
    uint64_t elections, reads = s->reads_done, commits = s->commits;

    sim_heal(s);
    sim_run(s, 200); /* what is still under way */
    elections = s->elections;
    sim_run(s, 20 * SIM_ELECTION_MS);
    struct sim_node *leader = sim_leader(s);

    sim_must(s, leader);
    sim_must(s, s->elections - elections <= 5);
    sim_must(s, s->commits > commits && s->reads_done > reads);
    for (size_t i = 0; i < leader->raft->config.count; i++) {
        struct sim_node *n = sim_node(s, leader->raft->config.members[i].id);

        sim_must(s, raft_leader(n->raft) == leader->id);
        sim_must(s, raft_commit(n->raft) + 100 >= raft_commit(leader->raft));
    }
    sim_check_matching(s);
}

#endif
