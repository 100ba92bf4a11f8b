/* box - one raft core with a disk in memory, and what it said as text, for the unit tests of raft_*.c.
 * box_turn does what turn.c does, in its order, with a disk that is done at once; with `disk_stuck` nothing is ever
 * synced, so `late` messages stay in the box until box_sync. Messages that leave become lines of `said`. */
#ifndef TESTS_RAFTD_BOX_H
#define TESTS_RAFTD_BOX_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "raftd/raft.h"
#include "raftd/raft_int.h"

#define BOX_LOG_MAX 4096

struct box {
    struct raft *raft;
    struct raft_conf conf;
    uint64_t now_ms;
    bool disk_stuck;
    struct entry *disk[BOX_LOG_MAX]; /* by index */
    uint64_t disk_first, disk_last;
    uint64_t hard_seq, term, vote; /* as last given out */
    struct raft_msg held[256];     /* late, until the sync */
    size_t held_count;
    uint64_t commit, drop_below;
    uint64_t deadline_ms;
    char said[16384];   /* messages that left, one per line */
    char reads[1024];   /* "tag@index " */
    char refused[1024]; /* "tag:ERROR " */
};

static bool box_term(void *arg, uint64_t index, uint64_t *term)
{
    struct box *b = arg;

    if (index < b->disk_first || index > b->disk_last)
        return false;
    *term = b->disk[index]->term;
    return true;
}

static int box_entries(void *arg, uint64_t from, uint64_t to, size_t bytes_max, struct entry **out)
{
    struct box *b = arg;
    int count = 0;
    size_t bytes = 0;

    if (from < b->disk_first)
        return 0;
    for (uint64_t i = from; i <= to; i++) {
        bytes += raft_entry_bytes(b->disk[i]);
        if (count > 0 && bytes > bytes_max)
            break;
        out[count++] = entry_ref(b->disk[i]);
    }
    return count;
}

__attribute__((unused)) static struct entry *box_entry(uint64_t index, uint64_t term, const char *text)
{
    struct entry *e = entry_new(ENTRY_COMMAND, slice_str(text));

    e->index = index;
    e->term = term;
    return e;
}

static struct entry *box_conf_entry(enum raft_conf_op op, uint64_t id)
{
    struct buf bytes = BUF_INIT;

    raft_conf_encode(&bytes, &(struct raft_conf_change){.op = op, .id = id});
    struct entry *e = entry_new(ENTRY_CONF, buf_slice(&bytes));

    buf_fini(&bytes);
    return e;
}

/* A member `id` among voters 1..voters, whose log has the given terms from index 1 on (ended by 0). */
static struct box *box_new(uint64_t id, size_t voters, uint64_t term, const uint64_t *terms)
{
    struct box *b = calloc(1, sizeof(*b));
    struct raft_member members[RAFT_MEMBERS_MAX];

    b->now_ms = 1000;
    b->disk_first = 1;
    b->term = term;
    for (; terms && *terms; terms++) {
        b->disk_last++;
        b->disk[b->disk_last] = box_entry(b->disk_last, *terms, "old");
    }
    for (size_t i = 0; i < voters; i++)
        members[i] = (struct raft_member){.id = i + 1};
    b->conf = (struct raft_conf){
        .id = id,
        .seed = id,
        .election_ms = 100,
        .heartbeat_ms = 10,
        .pre_vote = true,
        .check_quorum = true,
        .append_bytes_max = 1 * MIB,
        .inflight_bytes_max = 4 * MIB,
        .cache_bytes_max = 1 * MIB,
        .uncommitted_bytes_max = 1 * MIB,
        .storage = {box_term, box_entries, b},
    };
    b->raft = raft_new(&b->conf,
                       &(struct raft_start){.term = term,
                                            .first_index = 1,
                                            .last_index = b->disk_last,
                                            .last_term = b->disk_last > 0 ? b->disk[b->disk_last]->term : 0,
                                            .members = members,
                                            .member_count = voters},
                       b->now_ms);
    return b;
}

static void box_free(struct box *b)
{
    raft_free(b->raft);
    for (uint64_t i = 1; i <= b->disk_last; i++)
        entry_unref(b->disk[i]);
    free(b);
}

static void box_say(struct box *b, const struct raft_msg *m)
{
    size_t len = strlen(b->said);

    raft_show_msg(m, b->said + len, sizeof(b->said) - len - 1);
    strcat(b->said, "\n");
}

static void box_step(struct box *b, struct raft_event ev)
{
    ev.now_ms = b->now_ms;
    raft_step(b->raft, &ev);
}

static void box_sync(struct box *b)
{
    for (size_t i = 0; i < b->held_count; i++)
        box_say(b, &b->held[i]);
    b->held_count = 0;
    box_step(b, (struct raft_event){.type = RAFT_EV_PERSISTED,
                                    .index = b->disk_last,
                                    .entry_term = b->disk_last > 0 ? b->disk[b->disk_last]->term : 0,
                                    .hard_seq = b->hard_seq});
}

static void box_persist(struct box *b, const struct raft_ready *ready)
{
    if (ready->truncate_from > 0)
        while (b->disk_last >= ready->truncate_from)
            entry_unref(b->disk[b->disk_last--]);
    for (size_t i = 0; i < ready->entry_count; i++) {
        cr_assert_eq(ready->entries[i]->index, b->disk_last + 1);
        b->disk[++b->disk_last] = entry_ref(ready->entries[i]);
    }
    b->hard_seq = ready->hard_seq;
    b->term = ready->term;
    b->vote = ready->vote;
}

/* One ready, done in the order of raft.h. True if there was something to sync. */
static bool box_do(struct box *b)
{
    struct raft_ready ready;

    raft_ready(b->raft, &ready);
    for (size_t i = 0; i < ready.early_count; i++)
        box_say(b, &ready.early[i]);
    box_persist(b, &ready);
    for (size_t i = 0; i < ready.late_count; i++) {
        must(b->held_count < ARRAY_LEN(b->held));
        b->held[b->held_count++] = ready.late[i];
    }
    b->commit = ready.commit;
    b->deadline_ms = ready.deadline_ms;
    if (ready.drop_below > 0)
        b->drop_below = ready.drop_below;
    for (size_t i = 0; i < ready.read_count; i++)
        sprintf(b->reads + strlen(b->reads), "%d@%d ", (int)ready.reads[i].tag, (int)ready.reads[i].index);
    for (size_t i = 0; i < ready.refused_count; i++)
        sprintf(b->refused + strlen(b->refused), "%d:%s ", (int)ready.refused[i].tag, err_name(ready.refused[i].err));
    return ready.hard_changed || ready.entry_count > 0 || ready.truncate_from > 0;
}

static void box_turn(struct box *b)
{
    b->said[0] = b->reads[0] = b->refused[0] = '\0';
    for (int i = 0; i < 100 && (raft_has_ready(b->raft) || i == 0); i++) {
        box_do(b);
        if (!b->disk_stuck)
            box_sync(b);
    }
}

__attribute__((unused)) static void box_recv(struct box *b, struct raft_msg m)
{
    m.to = b->conf.id;
    box_step(b, (struct raft_event){.type = RAFT_EV_RECV, .msg = &m});
    box_turn(b);
}

/* An append of commands with the given terms (ended by 0) after prev. */
__attribute__((unused)) static void box_recv_append(struct box *b, uint64_t from, uint64_t term, uint64_t prev,
                                                    uint64_t prev_term, const uint64_t *terms, uint64_t commit)
{
    struct entry *entries[64];
    size_t count = 0;

    for (; terms && terms[count]; count++)
        entries[count] = box_entry(prev + 1 + count, terms[count], "new");
    box_recv(b, (struct raft_msg){.type = RAFT_MSG_APPEND,
                                  .from = from,
                                  .term = term,
                                  .index = prev,
                                  .log_term = prev_term,
                                  .commit = commit,
                                  .entries = entries,
                                  .entry_count = count});
    for (size_t i = 0; i < count; i++)
        entry_unref(entries[i]);
}

__attribute__((unused)) static void box_tick(struct box *b, uint64_t ms)
{
    b->now_ms += ms;
    box_step(b, (struct raft_event){.type = RAFT_EV_TICK});
    box_turn(b);
}

__attribute__((unused)) static void box_propose(struct box *b, uint64_t tag, const char *text)
{
    box_step(b, (struct raft_event){
                    .type = RAFT_EV_PROPOSE, .tag = tag, .entry = entry_new(ENTRY_COMMAND, slice_str(text))});
    box_turn(b);
}

__attribute__((unused)) static void box_propose_conf(struct box *b, uint64_t tag, enum raft_conf_op op, uint64_t id)
{
    box_step(b, (struct raft_event){.type = RAFT_EV_PROPOSE, .tag = tag, .entry = box_conf_entry(op, id)});
    box_turn(b);
}

__attribute__((unused)) static void box_read(struct box *b, uint64_t tag)
{
    box_step(b, (struct raft_event){.type = RAFT_EV_READ, .tag = tag});
    box_turn(b);
}

__attribute__((unused)) static void box_match(struct box *b, uint64_t from, uint64_t index)
{
    box_recv(b,
             (struct raft_msg){.type = RAFT_MSG_APPEND_SAID, .from = from, .term = raft_term(b->raft), .index = index});
}

/* Member 1 of `voters`, with this log and at this term, made leader of the next term by all others' votes. */
__attribute__((unused)) static struct box *box_leader(size_t voters, uint64_t term, const uint64_t *terms)
{
    struct box *b = box_new(1, voters, term, terms);

    box_tick(b, voters == 1 ? 0 : 200);
    for (uint64_t id = 2; id <= voters && raft_role(b->raft) == RAFT_PRECANDIDATE; id++)
        box_recv(b, (struct raft_msg){.type = RAFT_MSG_PREVOTE_SAID, .from = id, .term = term + 1});
    for (uint64_t id = 2; id <= voters && raft_role(b->raft) == RAFT_CANDIDATE; id++)
        box_recv(b, (struct raft_msg){.type = RAFT_MSG_VOTE_SAID, .from = id, .term = term + 1});
    cr_assert_eq(raft_role(b->raft), RAFT_LEADER);
    return b;
}

#endif
