/* The log: memory and storage, what counts as on disk, where terms change. */
#include "tests/raftd/box.h"

#define TERMS(...) ((const uint64_t[]){__VA_ARGS__, 0})

static void persisted(struct box *b, uint64_t index, uint64_t term, uint64_t hard_seq)
{
    box_step(b,
             (struct raft_event){.type = RAFT_EV_PERSISTED, .index = index, .entry_term = term, .hard_seq = hard_seq});
}

Test(raft_log, terms_are_known_from_before_the_first_to_the_last_entry)
{
    struct box *b = box_new(1, 3, 5, TERMS(1, 3, 3));
    uint64_t term;

    box_recv_append(b, 2, 5, 3, 3, TERMS(5), 0);
    for (uint64_t i = 0; i <= 4; i++) {
        cr_assert(raft_log_term(&b->raft->log, i, &term));
        cr_assert_eq(term, ((uint64_t[]){0, 1, 3, 3, 5})[i]);
    }
    cr_assert(!raft_log_term(&b->raft->log, 5, &term));
    box_free(b);
}

Test(raft_log, the_floor_of_a_term_is_found)
{
    struct box *b = box_new(1, 3, 5, TERMS(1, 1, 3, 3, 3, 4));
    const struct raft_log *log = &b->raft->log;

    cr_assert_eq(raft_log_floor(log, 6, 4), 6);
    cr_assert_eq(raft_log_floor(log, 6, 3), 5);
    cr_assert_eq(raft_log_floor(log, 4, 3), 4);
    cr_assert_eq(raft_log_floor(log, 6, 2), 2);
    cr_assert_eq(raft_log_floor(log, 6, 0), 0);
    cr_assert_eq(raft_log_floor(log, 99, 9), 6);
    box_free(b);
}

Test(raft_log, memory_keeps_its_bound_and_older_entries_come_from_storage)
{
    struct box *b = box_leader(1, 0, NULL);
    struct entry *out[RAFT_MSG_ENTRIES_MAX];

    b->raft->log.cache_bytes_max = 20 * (sizeof(struct entry) + 1);
    for (uint64_t i = 2; i <= 1000; i++)
        box_propose(b, i, "x");
    cr_assert_eq(b->commit, 1000);
    cr_assert_leq(b->raft->log.last - b->raft->log.mem_first + 1, 20);

    uint64_t after = 0;

    while (after < 1000) {
        int count = raft_committed(b->raft, after, 500, out, 7);

        cr_assert(count > 0 && count <= 7);
        for (int i = 0; i < count; i++) {
            cr_assert_eq(out[i]->index, ++after);
            entry_unref(out[i]);
        }
    }
    cr_assert_eq(raft_committed(b->raft, 1000, 500, out, 7), 0);
    box_free(b);
}

Test(raft_log, a_slice_is_bounded_by_bytes_but_holds_at_least_one)
{
    struct box *b = box_leader(1, 0, NULL);
    struct entry *out[4];

    box_propose(b, 2, "a");
    cr_assert_eq(raft_committed(b->raft, 0, 1, out, 4), 1);
    entry_unref(out[0]);
    cr_assert_eq(raft_committed(b->raft, 0, 2 * sizeof(struct entry) + 1, out, 4), 2);
    entry_unref(out[0]);
    entry_unref(out[1]);
    box_free(b);
}

Test(raft_log, nothing_is_evicted_before_it_is_on_disk)
{
    struct box *b = box_leader(1, 0, NULL);

    b->raft->log.cache_bytes_max = 0;
    b->disk_stuck = true;
    for (uint64_t i = 2; i <= 600; i++)
        box_propose(b, i, "x");
    cr_assert_leq(b->raft->log.mem_first, 2); /* only the first entry was synced */
    cr_assert_eq(raft_commit(b->raft), 1);
    b->disk_stuck = false;
    box_sync(b);
    cr_assert_eq(b->raft->log.mem_first, 601);
    box_free(b);
}

Test(raft_log, a_cut_is_told_once_and_only_for_what_was_handed_out)
{
    struct box *b = box_new(1, 3, 2, TERMS(1, 1, 1));
    struct raft_ready ready;
    struct entry *e = box_entry(2, 2, "new");
    struct raft_msg m = {.type = RAFT_MSG_APPEND,
                         .from = 2,
                         .to = 1,
                         .term = 2,
                         .index = 1,
                         .log_term = 1,
                         .entries = &e,
                         .entry_count = 1};

    box_step(b, (struct raft_event){.type = RAFT_EV_RECV, .msg = &m});
    raft_ready(b->raft, &ready);
    cr_assert_eq(ready.truncate_from, 2);
    cr_assert_eq(ready.entry_count, 1);
    cr_assert(ready.hard_changed);
    raft_ready(b->raft, &ready);
    cr_assert_eq(ready.truncate_from, 0);
    cr_assert_eq(ready.entry_count, 0);
    cr_assert(!raft_has_ready(b->raft));
    entry_unref(e);
    box_free(b);
}

Test(raft_log, a_report_of_an_entry_that_was_cut_does_not_count)
{
    struct box *b = box_new(1, 3, 2, TERMS(1));

    b->disk_stuck = true;
    box_recv_append(b, 2, 2, 1, 1, TERMS(2, 2), 0);
    uint64_t seq = b->hard_seq;

    box_recv_append(b, 3, 3, 1, 1, TERMS(3), 0);
    persisted(b, 3, 2, seq);
    cr_assert_eq(b->raft->log.persisted, 1);
    persisted(b, 2, 3, b->hard_seq);
    cr_assert_eq(b->raft->log.persisted, 2);
    box_free(b);
}

/* The entry (2, term 2) is cut and comes back: the same name, but its second copy is not on disk, and the first was
 * cut there too. Only a report that is younger than the cut may speak for it. */
Test(raft_log, a_report_from_before_the_cut_does_not_count_for_the_same_entry_after_it)
{
    struct box *b = box_new(1, 3, 2, TERMS(1));

    b->disk_stuck = true;
    box_recv_append(b, 2, 2, 1, 1, TERMS(2), 0);
    uint64_t seq = b->hard_seq;

    box_recv_append(b, 3, 3, 1, 1, TERMS(3), 0);
    box_recv_append(b, 2, 4, 1, 1, TERMS(2), 0);
    persisted(b, 2, 2, seq);
    cr_assert_eq(b->raft->log.persisted, 1);
    persisted(b, 2, 2, b->hard_seq);
    cr_assert_eq(b->raft->log.persisted, 2);
    box_free(b);
}

Test(raft_log, the_log_is_dropped_below_what_stored_has_made_durable_only)
{
    struct box *b = box_leader(1, 0, NULL);

    for (uint64_t i = 2; i <= 50; i++)
        box_propose(b, i, "x");
    box_step(b, (struct raft_event){.type = RAFT_EV_APPLIED, .index = 50, .durable = 0});
    box_turn(b);
    cr_assert_eq(b->drop_below, 0);
    box_step(b, (struct raft_event){.type = RAFT_EV_APPLIED, .index = 50, .durable = 30});
    box_turn(b);
    cr_assert_eq(b->drop_below, 31); /* nobody to keep entries for */
    cr_assert_eq(b->raft->log.first, 31);
    cr_assert_eq(b->raft->log.first_prev_term, 1);
    /* stored lost what it had not synced and starts again from there */
    box_step(b, (struct raft_event){.type = RAFT_EV_APPLIED, .index = 30, .durable = 30});
    cr_assert_eq(raft_applied(b->raft), 30);
    box_free(b);
}

Test(raft_log, what_stored_has_applied_is_committed_even_if_we_forgot)
{
    struct box *b = box_new(1, 3, 2, TERMS(1, 1, 1));

    cr_assert_eq(raft_commit(b->raft), 0);
    box_step(b, (struct raft_event){.type = RAFT_EV_APPLIED, .index = 2, .durable = 1});
    cr_assert_eq(raft_commit(b->raft), 2);
    box_free(b);
}

Test(raft_log, entries_written_without_their_hard_state_are_survived)
{
    struct box *b = box_new(1, 3, 2, TERMS(1, 4));

    cr_assert_eq(raft_term(b->raft), 4);
    box_turn(b);
    cr_assert_eq(b->term, 4);
    box_free(b);
}

Test(raft_log, entries_are_counted_and_freed_by_the_last)
{
    struct entry *e = entry_new(ENTRY_COMMAND, SLICE_LIT("abc"));

    cr_assert_eq(entry_ref(e), e);
    entry_unref(e);
    cr_assert(slice_eq(entry_data(e), SLICE_LIT("abc")));
    entry_unref(e);
    entry_unref(NULL);
}
