/* force - force-new-cluster: out of one member's data a cluster of this member alone, for when the others are lost for good.
 * Everything in the log stays (whatever a client was told is in it if it is anywhere), then entries follow that remove all
 * others; all of it counts as committed from here on, since nobody is left who could say otherwise. Ids stay as they are.
 * Called by start.c between the opened log and the core. */
#include "raftd/raftd.h"

#include <inttypes.h>

#include "common/err.h"

static void force_append(struct raftd *d, struct wal_found *found, struct members *table, enum raft_conf_op op, uint64_t id)
{
    struct raft_conf_change change = {.op = op, .id = id, .name = slice_str(d->conf.name)};
    struct buf bytes = BUF_INIT;

    if (op == RAFT_CONF_ADD)
        change.peer_urls = slice_str(d->conf.initial_advertise_peer_urls);
    if (members_apply(table, &change) != 0)
        return;
    raft_conf_encode(&bytes, &change);

    struct entry *e = entry_new(ENTRY_CONF, buf_slice(&bytes));

    e->index = ++found->last_index;
    e->term = found->last_term = found->term;
    wal_append(d->wal, &e, 1);
    entry_unref(e);
    buf_fini(&bytes);
}

/* The membership as of the last entry. */
static void table_replay(struct raftd *d, const struct wal_found *found, struct members *table)
{
    members_copy(&d->members, table);
    for (uint64_t i = wal_find_kind(d->wal, found->members_at + 1, ENTRY_CONF); i > 0;
         i = wal_find_kind(d->wal, i + 1, ENTRY_CONF)) {
        struct raft_conf_change change;
        struct entry *e;

        if (wal_entries(d->wal, i, i, SIZE_MAX, &e) != 1)
            fatalx("wal: entry %" PRIu64 " cannot be read", i);
        if (raft_conf_decode(entry_data(e), &change) == 0)
            members_apply(table, &change);
        entry_unref(e);
    }
}

void force_new_cluster(struct raftd *d, struct wal_found *found)
{
    struct members table = {0};
    uint64_t self = found->member_id;

    log_warnx("raftd: force-new-cluster: this member becomes the only one of its cluster; the others must not run any more. "
              "Start without it the next time");
    table_replay(d, found, &table);
    if (members_was_removed(&table, self))
        fatalx("raftd: force-new-cluster: this member was removed from its cluster");
    if (found->term == 0) {
        wal_hard(d->wal, 1, RAFT_NONE, ++found->hard_seq);
        found->term = 1;
    }
    if (!members_find(&table, self))
        force_append(d, found, &table, RAFT_CONF_ADD, self);
    else if (members_find(&table, self)->is_learner)
        force_append(d, found, &table, RAFT_CONF_PROMOTE, self);
    for (size_t i = table.count; i > 0; i--) {
        if (table.list[i - 1].id != self)
            force_append(d, found, &table, RAFT_CONF_REMOVE, table.list[i - 1].id);
    }
    found->commit = found->last_index;
    wal_submit(d->wal, found->commit);
    wal_flush(d->wal);
    must(table.count == 1 && members_voters(&table) == 1);
    members_fini(&table);
}
