/* start - from what is on disk to a running core: opens or makes the log, and replays the membership.
 * Called by main.c once. An existing log says who we are; the initial-* keys then mean nothing, as in etcd. */
#include "raftd/raftd.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/mem.h"
#include "common/rand.h"
#include "proto/names.h"
#include "raftd/boot.h"
#include "raftd/keep.h"
#include "raftd/snap.h"
#include "raftd/join.h"

/* The log of every founder begins with the same entries, one per member, of term 1 and committed by definition: whoever
 * joins later learns the members from the log like everything else. */
static void found_cluster(struct wal *w, const struct members *members, struct wal_found *found)
{
    struct entry *entries[RAFT_MEMBERS_MAX];

    for (size_t i = 0; i < members->count; i++) {
        const struct member *m = &members->list[i];
        struct buf change = BUF_INIT;

        raft_conf_encode(&change, &(struct raft_conf_change){.op = RAFT_CONF_ADD,
                                                             .id = m->id,
                                                             .name = slice_str(m->name),
                                                             .peer_urls = slice_str(m->peer_urls)});
        entries[i] = entry_new(ENTRY_CONF, buf_slice(&change));
        entries[i]->index = i + 1;
        entries[i]->term = 1;
        buf_fini(&change);
    }
    wal_hard(w, 1, RAFT_NONE, 0);
    wal_append(w, entries, members->count);
    wal_submit(w, members->count);
    wal_flush(w);
    for (size_t i = 0; i < members->count; i++)
        entry_unref(entries[i]);
    found->term = found->last_term = 1;
    found->last_index = found->commit = members->count;
}

static struct wal *start_new(struct raftd *d, const struct wal_conf *wc, struct wal_found *found)
{
    struct boot boot;
    struct buf why = BUF_INIT, table = BUF_INIT;

    bool joins = slice_eq(slice_str(d->conf.initial_cluster_state), SLICE_LIT("existing"));
    if (boot_identity(&d->conf, &boot, &why) != 0)
        fatalx("raftd: %.*s", (int)why.len, (const char *)why.data);
    if (joins ? join_identity(&d->conf, &boot, &why) != 0
              : boot.members.count > 1 && join_check_new(&d->conf, &boot, &why) != 0)
        fatalx("raftd: %.*s", (int)why.len, (const char *)why.data);
    members_encode(&d->members, &table); /* none, before the first entry */
    *found = (struct wal_found){
        .cluster_id = boot.cluster_id,
        .member_id = boot.member_id,
        .first_index = 1,
        .members = buf_slice(&table),
    };
    if (joins)
        log_info("raftd: new member %" PRIx64 " joins cluster %" PRIx64, boot.member_id, boot.cluster_id);
    else
        log_info("raftd: new member %" PRIx64 " of new cluster %" PRIx64 " of %zu", boot.member_id, boot.cluster_id,
                 boot.members.count);
    struct wal *w = wal_create(wc, found);
    found->members = SLICE_EMPTY;
    if (!joins) /* one that joins learns the members from the log that it gets */
        found_cluster(w, &boot.members, found);
    buf_fini(&table);
    buf_fini(&why);
    boot_fini(&boot);
    return w;
}

/* A founder died between the first batch of its log and the one with the members. One that joins has an empty log too,
 * but its id is not what initial-cluster gives. */
static void start_founding_again(struct raftd *d, struct wal *w, struct wal_found *found)
{
    struct boot boot;
    struct buf why = BUF_INIT;

    if (slice_eq(slice_str(d->conf.initial_cluster_state), SLICE_LIT("new")) &&
        boot_identity(&d->conf, &boot, &why) == 0) {
        if (boot.member_id == found->member_id && boot.cluster_id == found->cluster_id)
            found_cluster(w, &boot.members, found);
        boot_fini(&boot);
    }
    buf_fini(&why);
}

/* The log is lost, in part or whole, and there are others who have it: it is set aside, and a new one begins at nothing.
 * Term and vote stay what they were. What we had acknowledged and have no more is the reason why we do not vote
 * before a leader has filled the gap (snap.h). */
static struct wal *start_repair(const struct wal_conf *wc, const struct keep_self *self, struct wal_found *found,
                                struct keep_repair *repair)
{
    *repair = (struct keep_repair){.vote_from = UINT64_MAX};
    keep_repair_write(wc->dir, repair);
    keep_set_log_aside(wc->dir);
    *found = (struct wal_found){
        .cluster_id = self->cluster_id,
        .member_id = self->member_id,
        .term = self->term,
        .vote = self->vote,
        .hard_seq = self->hard_seq,
        .first_index = 1,
        .members = buf_slice(&self->members),
    };
    struct wal *w = wal_create(wc, found);
    found->members = SLICE_EMPTY;
    repair->moved = true;
    keep_repair_write(wc->dir, repair);
    return w;
}

/* SELF can be trusted, and there is somebody to ask. */
static bool self_helps(struct raftd *d, const char *dir, struct keep_self *self)
{
    struct members members = {0};

    if (keep_self_read(dir, self) != 0)
        return false;
    if (members_decode(buf_slice(&self->members), &members) != 0 || members.count <= 1) {
        members_fini(&members);
        buf_fini(&self->members);
        return false;
    }
    members_fini(&d->members);
    d->members = members;
    d->self.written = true;
    return true;
}

static struct wal *start_old(struct raftd *d, const struct wal_conf *wc, struct wal_found *found, struct buf *why)
{
    struct wal *w = wal_open(wc, found, why);

    if (!w)
        return NULL;
    members_fini(&d->members);
    if (members_decode(found->members, &d->members) != 0)
        fatalx("wal: %s: membership as of entry %" PRIu64 " cannot be read", wc->dir, found->members_at);
    if (found->last_index == 0 && d->members.count == 0)
        start_founding_again(d, w, found);
    return w;
}

/* --- where the log is ------------------------------------------------------------------------------------------ */

/* A member whose log is elsewhere must not begin a new one because a key was changed or a disk is not mounted: it would forget
 * what it acknowledged and whom it voted for. So DATA-DIR says where its log is, if that is not its usual place. */
static void refuse_second_log(const struct conf *c, const char *dir)
{
    char *usual = xasprintf("%s/%s", c->data_dir, NAME_RAFT_DIR), *note = xasprintf("%s/%s", c->data_dir, NAME_WAL_DIR_FILE);
    struct buf place = BUF_INIT;

    if (strcmp(dir, usual) != 0 && wal_exists(usual))
        fatalx("raftd: wal-dir: no log in %s, but this member has one in %s: move all that is there", dir, usual);
    if (access(note, F_OK) == 0) {
        if (file_read_all(note, PATH_MAX, &place) != 0)
            fatal("raftd: reading %s", note);
        fatalx("raftd: wal-dir: no log in %s, but this member had one in %.*s: is that disk mounted? To begin anew remove all of %s",
               dir, (int)place.len, (const char *)place.data, c->data_dir);
    }
    free(usual);
    free(note);
}

static void place_note(const struct conf *c, const char *dir)
{
    char *usual = xasprintf("%s/%s", c->data_dir, NAME_RAFT_DIR), *note = xasprintf("%s/%s", c->data_dir, NAME_WAL_DIR_FILE);
    struct buf place = BUF_INIT;

    if (strcmp(dir, usual) == 0) {
        if (unlink(note) != 0 && errno != ENOENT)
            fatal("raftd: removal of %s", note);
    } else if (access(note, F_OK) != 0 || file_read_all(note, PATH_MAX, &place) != 0 || !slice_eq(buf_slice(&place), slice_str(dir))) {
        if (file_replace(note, dir, strlen(dir)) != 0)
            fatal("raftd: writing %s", note);
    }
    buf_fini(&place);
    free(usual);
    free(note);
}

static void wal_notify_cb(void *arg)
{
    struct raftd *d = arg;

    loop_wake(d->wal_wake);
}

void start_log(struct raftd *d, const char *dir)
{
    struct wal_found found;
    struct wal_conf wc = {.dir = dir,
                          .segment_bytes = d->conf.wal_segment_bytes / 4096 * 4096,
                          .no_fsync = d->conf.unsafe_no_fsync,
                          .notify = wal_notify_cb,
                          .arg = d};

    if (wc.no_fsync)
        log_warnx("wal: unsafe-no-fsync: a power cut loses acknowledged writes");
    struct buf why = BUF_INIT;
    struct keep_self self = {0};
    struct keep_repair repair;
    bool help = self_helps(d, dir, &self);
    int repair_err = keep_repair_read(dir, &repair);

    if (repair_err == E_DAMAGED) /* the careful reading: nothing was told yet */
        repair = (struct keep_repair){.moved = true, .vote_from = UINT64_MAX};
    if (wal_exists(dir) && (repair_err || repair.moved)) {
        d->wal = start_old(d, &wc, &found, &why);
    } else if (!help) {
        refuse_second_log(&d->conf, dir);
        d->wal = start_new(d, &wc, &found);
    } else if (repair_err) {
        buf_printf(&why, "%s: no log here, but this member had one", dir);
    }
    if (!d->wal && !help)
        fatalx("wal: refused, nothing was changed: %.*s", (int)why.len, (const char *)why.data);
    if (!d->wal) {
        log_error("wal: the log is damaged, repairing from the other members: %.*s", (int)why.len,
                  why.len > 0 ? (const char *)why.data : "");
        d->wal = start_repair(&wc, &self, &found, &repair);
        repair_err = 0;
    }
    place_note(&d->conf, dir);
    buf_fini(&self.members);
    buf_fini(&why);
    snap_start(d, dir, repair_err == E_NOT_FOUND ? NULL : &repair);
    if (d->conf.force_new_cluster)
        force_new_cluster(d, &found);
    d->cluster_id = found.cluster_id;
    d->member_id = found.member_id;
    start_core(d, &found, loop_now_ms(d->loop));
    d->self.dir = xstrdup(dir);
    d->self.vote = UINT64_MAX; /* so that it is written now */
    self_hard(d, MAX(found.term, found.last_term), found.vote, found.hard_seq);
    log_info("raftd: member %" PRIx64 " of cluster %" PRIx64 ", term %" PRIu64 ", entries %" PRIu64 "..%" PRIu64
             " in %zu segments, at least %" PRIu64 " committed",
             d->member_id, d->cluster_id, found.term, found.first_index, found.last_index, found.segment_count,
             found.commit);
}

/* A committed change updates the table that is shown; one that may still be cut waits in the turn. Either way the
 * core's membership has it: a change counts from the moment it is in the log (thesis 4.1). */
static void conf_replay(struct raftd *d, struct members *core, uint64_t index, uint64_t commit, struct entry *e)
{
    struct raft_conf_change change;

    if (raft_conf_decode(entry_data(e), &change) != 0)
        fatalx("wal: entry %" PRIu64 " is not a change of membership", index);
    members_apply(core, &change);
    if (index <= commit) {
        members_apply(&d->members, &change);
        entry_unref(e);
    } else {
        turn_conf_pending(d->turn, e);
    }
}

void start_core(struct raftd *d, const struct wal_found *found, uint64_t now_ms)
{
    struct raft_member now[RAFT_MEMBERS_MAX], before[RAFT_MEMBERS_MAX];
    struct members core = {0};
    struct buf table = BUF_INIT;
    struct entry **changes = NULL;
    size_t change_count = 0;
    struct raft_start start = {
        .term = found->term,
        .vote = found->vote,
        .first_index = found->first_index,
        .first_prev_term = found->prev_term,
        .last_index = found->last_index,
        .last_term = found->last_term,
        .commit = found->commit,
        .conf_index = found->members_at,
        .prev_conf_index = found->members_at,
        .members = now,
        .prev_members = before,
        .vote_from = snap_votes_from(d),
    };
    struct raft_conf rc = {
        .id = d->member_id,
        .seed = rand_system_u64(),
        .election_ms = (uint32_t)d->conf.election_timeout_ms,
        .heartbeat_ms = (uint32_t)d->conf.heartbeat_interval_ms,
        .pre_vote = d->conf.pre_vote,
        .check_quorum = true,
        .hasten = d->conf.initial_election_tick_advance,
        .keep_entries = d->conf.snapshot_catchup_entries,
        .append_bytes_max = RAFT_APPEND_BYTES,
        .inflight_bytes_max = RAFT_INFLIGHT_BYTES,
        .cache_bytes_max = RAFT_CACHE_BYTES,
        .uncommitted_bytes_max = PROPOSAL_BYTES_MAX,
        .storage = {.term = wal_term, .entries = wal_entries, .arg = d->wal},
    };
    struct turn_conf tc = {
        .tag_base = rand_system_u64() >> 3,
        .read_again_ms = 5 * d->conf.heartbeat_interval_ms,
        .wait_ms = REQUEST_TIMEOUT_BASE_MS + 2 * d->conf.election_timeout_ms,
        .backlog_max = APPLY_BACKLOG_ENTRIES_MAX,
        .backlog_ms = APPLY_BACKLOG_MS_MAX,
        .apply_bytes_max = APPLY_INFLIGHT_BYTES_MAX,
        .wait_bytes_max = PROPOSAL_BYTES_MAX,
        .wait_count_max = PENDING_REQUESTS_MAX,
    };

    /* The core wants the members as of the last entry, and one change back: first the core's table, then the turn. */
    members_encode(&d->members, &table);
    if (members_decode(buf_slice(&table), &core) != 0)
        must(!"what was encoded can be decoded");
    start.member_count = start.prev_member_count = members_raft(&core, now);
    members_raft(&core, before);
    for (uint64_t i = wal_find_kind(d->wal, found->members_at + 1, ENTRY_CONF); i > 0;
         i = wal_find_kind(d->wal, i + 1, ENTRY_CONF)) {
        struct raft_conf_change change;

        changes = xrealloc(changes, (change_count + 1) * sizeof(*changes));
        if (wal_entries(d->wal, i, i, SIZE_MAX, &changes[change_count]) != 1)
            must(!"an entry of the log can be read");
        if (raft_conf_decode(entry_data(changes[change_count++]), &change) != 0 || change.op == RAFT_CONF_UPDATE)
            continue; /* changes no quorum; any number of them may be uncommitted */
        start.prev_member_count = members_raft(&core, before);
        start.prev_conf_index = start.conf_index;
        members_apply(&core, &change);
        start.member_count = members_raft(&core, now);
        start.conf_index = i;
    }
    if (members_was_removed(&core, d->member_id) && found->commit >= start.conf_index) {
        log_error("raftd: the member has been permanently removed from the cluster; the data directory %s can be deleted",
                  d->conf.data_dir);
        exit(EXIT_REMOVED);
    }
    d->raft = raft_new(&rc, &start, now_ms);
    d->turn = turn_new(d->raft, &out_ops, d, &tc, now_ms);
    for (size_t i = 0; i < change_count; i++)
        conf_replay(d, &core, changes[i]->index, found->commit, changes[i]);
    free(changes);
    members_fini(&core);
    buf_fini(&table);
}
