/* The log through its front door: what was durable is there after reopening, what was not is not, and nothing that
 * is damaged is taken for good. */
#include "tests/raftd/wal_box.h"

#include "common/metrics.h"

Test(wal, a_new_log_is_empty_and_knows_who_it_belongs_to)
{
    struct box b;
    box_init(&b);

    cr_assert(!wal_exists(b.dir));
    box_create(&b);
    cr_assert(wal_exists(b.dir));
    cr_assert(box_reopen(&b), "%s", b.why.data);

    cr_assert_eq(b.found.cluster_id, BOX_CLUSTER);
    cr_assert_eq(b.found.member_id, BOX_MEMBER);
    cr_assert_eq(b.found.first_index, 1);
    cr_assert_eq(b.found.last_index, 0);
    cr_assert_eq(b.found.commit, 0);
    cr_assert(slice_eq(b.found.members, SLICE_LIT("the members")));
    box_fini(&b);
}

Test(wal, what_was_submitted_is_there_after_reopening)
{
    struct box b;
    box_init(&b);
    box_create(&b);

    box_hard(&b, 3, 77, 5);
    box_batch(&b, 3, 10, 100);
    box_batch(&b, 3, 1, 0);
    box_batch(&b, 3, 5, 333);

    cr_assert(box_reopen(&b), "%s", b.why.data);
    cr_assert_eq(b.found.term, 3);
    cr_assert_eq(b.found.vote, 77);
    cr_assert_eq(b.found.hard_seq, 5);
    cr_assert_eq(b.found.last_index, 16);
    cr_assert_eq(b.found.last_term, 3);
    cr_assert_eq(b.found.commit, 16);
    for (uint64_t i = 1; i <= 16; i++)
        box_expect_entry(&b, i, 3, i <= 10 ? 100 : i == 11 ? 0 : 333);
    box_fini(&b);
}

Test(wal, what_was_gathered_but_not_submitted_is_not)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    box_hard(&b, 1, 0, 1);
    box_batch(&b, 1, 2, 50);

    box_add(&b, 1, 50);
    box_expect_entry(&b, 3, 1, 50); /* readable from memory all the same */

    cr_assert(box_reopen(&b));
    cr_assert_eq(b.found.last_index, 2);
    box_fini(&b);
}

Test(wal, batches_that_gather_while_one_is_written_share_the_next_write)
{
    struct box b;
    struct wal_stats s;
    box_init(&b);
    box_create(&b);
    box_hard(&b, 1, 0, 1);
    wal_stats(b.wal, &s);
    uint64_t before = s.batches, first, last;

    box_add(&b, 1, 10);
    first = wal_submit(b.wal, 0);
    for (int i = 0; i < 50; i++) {
        box_add(&b, 1, 10);
        last = wal_submit(b.wal, 0);
    }
    cr_assert_eq(last, first + 50);
    wal_flush(b.wal);

    cr_assert_eq(wal_poll(b.wal), last);
    wal_stats(b.wal, &s);
    cr_assert_eq(s.batches, before + 2);
    box_fini(&b);
}

Test(wal, large_entries_are_written_whole_even_over_the_size_of_a_segment)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    box_hard(&b, 1, 0, 1);

    box_batch(&b, 1, 3, 5001);
    box_batch(&b, 1, 1, 4 * BOX_SEGMENT + 3);
    box_batch(&b, 1, 2, 7);

    cr_assert(box_reopen(&b), "%s", b.why.data);
    for (uint64_t i = 1; i <= 3; i++)
        box_expect_entry(&b, i, 1, 5001);
    box_expect_entry(&b, 4, 1, 4 * BOX_SEGMENT + 3);
    box_expect_entry(&b, 6, 1, 7);
    box_fini(&b);
}

Test(wal, a_batch_larger_than_half_a_segment_is_split_and_its_ticket_comes_last)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    box_hard(&b, 1, 0, 1);

    for (int i = 0; i < 300; i++)
        box_add(&b, 1, 200);
    uint64_t ticket = wal_submit(b.wal, 0);
    wal_flush(b.wal);

    cr_assert_eq(wal_poll(b.wal), ticket);
    cr_assert(box_reopen(&b), "%s", b.why.data);
    cr_assert_eq(b.found.last_index, 300);
    cr_assert_geq(b.found.segment_count, 4);
    for (uint64_t i = 1; i <= 300; i++)
        box_expect_entry(&b, i, 1, 200);
    box_fini(&b);
}

Test(wal, a_truncated_suffix_is_replaced)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    box_hard(&b, 1, 0, 1);
    box_batch(&b, 1, 10, 40);

    wal_hard(b.wal, 2, 0, 2);
    wal_truncate(b.wal, 6);
    for (int i = 0; i < 3; i++)
        box_add(&b, 2, 60);
    wal_submit(b.wal, 0);
    wal_flush(b.wal);

    for (int round = 0; round < 2; round++) {
        cr_assert_eq(wal_last_index(b.wal), 8);
        for (uint64_t i = 1; i <= 8; i++)
            box_expect_entry(&b, i, i < 6 ? 1 : 2, i < 6 ? 40 : 60);
        cr_assert(box_reopen(&b), "%s", b.why.data);
    }
    box_fini(&b);
}

Test(wal, a_suffix_is_truncated_while_it_is_still_on_its_way)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    box_hard(&b, 1, 0, 1);

    for (int i = 0; i < 10; i++)
        box_add(&b, 1, 40);
    wal_submit(b.wal, 0); /* on its way, not polled */
    for (int i = 0; i < 5; i++)
        box_add(&b, 1, 40); /* gathered only */
    wal_hard(b.wal, 2, 0, 2);
    wal_truncate(b.wal, 4);
    for (int i = 0; i < 4; i++)
        box_add(&b, 2, 60);
    wal_submit(b.wal, 0);
    for (uint64_t i = 1; i <= 7; i++)
        box_expect_entry(&b, i, i < 4 ? 1 : 2, i < 4 ? 40 : 60);
    wal_flush(b.wal);

    for (int round = 0; round < 2; round++) {
        for (uint64_t i = 1; i <= 7; i++)
            box_expect_entry(&b, i, i < 4 ? 1 : 2, i < 4 ? 40 : 60);
        cr_assert(box_reopen(&b), "%s", b.why.data);
        cr_assert_eq(b.found.last_index, 7);
    }
    box_fini(&b);
}

Test(wal, entries_come_in_runs_within_the_bytes_asked_for)
{
    struct box b;
    struct entry *out[1024];
    box_init(&b);
    box_create(&b);
    box_hard(&b, 1, 0, 1);
    for (int i = 0; i < 8; i++)
        box_batch(&b, 1, 20, 100);

    cr_assert_eq(wal_entries(b.wal, 161, 200, 1000, out), 0, "none after the last");
    int count = wal_entries(b.wal, 5, 160, 1, out);
    cr_assert_eq(count, 1, "at least one");
    entry_unref(out[0]);
    count = wal_entries(b.wal, 5, 160, 3000, out);
    cr_assert(count > 10 && count <= 30, "%d entries of 100 bytes in 3000", count);
    for (int i = 0; i < count; i++) {
        cr_assert_eq(out[i]->index, (uint64_t)(5 + i));
        entry_unref(out[i]);
    }
    count = wal_entries(b.wal, 1, 160, SIZE_MAX, out);
    cr_assert_eq(count, 160);
    for (int i = 0; i < count; i++)
        entry_unref(out[i]);
    box_fini(&b);
}

Test(wal, a_dropped_prefix_frees_segments_and_stays_dropped)
{
    struct box b;
    struct wal_stats s;
    uint64_t term;
    box_init(&b);
    box_create(&b);
    box_hard(&b, 4, 9, 1);
    for (int i = 0; i < 50; i++)
        box_batch(&b, 4, 10, 200);
    wal_stats(b.wal, &s);
    cr_assert_gt(s.segments, 5);

    wal_drop(b.wal, 401, SLICE_LIT("other members"), 450);
    cr_assert_eq(wal_entries(b.wal, 400, 400, 1, &(struct entry *){NULL}), 0);
    cr_assert(wal_term(b.wal, 400, &term) && term == 4, "the term before the first entry is known");
    cr_assert(!wal_term(b.wal, 399, &term));
    box_batch(&b, 4, 1, 200);
    wal_stats(b.wal, &s);
    cr_assert_lt(s.segments, 4);

    cr_assert(box_reopen(&b), "%s", b.why.data);
    cr_assert_eq(b.found.first_index, 401);
    cr_assert_eq(b.found.prev_term, 4);
    cr_assert_eq(b.found.last_index, 501);
    cr_assert_eq(b.found.term, 4);
    cr_assert_eq(b.found.vote, 9);
    cr_assert_eq(b.found.members_at, 450);
    cr_assert(slice_eq(b.found.members, SLICE_LIT("other members")));
    box_expect_entry(&b, 401, 4, 200);
    box_fini(&b);
}

Test(wal, all_entries_may_be_dropped)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    box_hard(&b, 1, 0, 1);
    box_batch(&b, 1, 10, 20);

    wal_drop(b.wal, 11, SLICE_LIT("m"), 10);
    box_hard(&b, 2, 0, 2);

    cr_assert(box_reopen(&b), "%s", b.why.data);
    cr_assert_eq(b.found.first_index, 11);
    cr_assert_eq(b.found.last_index, 10);
    cr_assert_eq(b.found.last_term, 1);
    box_batch(&b, 2, 1, 20);
    box_expect_entry(&b, 11, 2, 20);
    box_fini(&b);
}

Test(wal, recycled_segments_do_not_bring_old_entries_back)
{
    struct box b;
    uint64_t next = 0;
    box_init(&b);
    box_create(&b);
    box_hard(&b, 1, 0, 1);

    /* Many rounds of fill and drop, so that files are reused; reopened at every stage of filling. */
    for (int round = 0; round < 60; round++) {
        box_batch(&b, 1, 7, 300);
        next += 7;
        if (round % 5 == 4)
            wal_drop(b.wal, next - 3, SLICE_LIT("m"), next);
        if (round % 7 == 6) {
            cr_assert(box_reopen(&b), "%s", b.why.data);
            cr_assert_eq(b.found.last_index, next);
            cr_assert_eq(b.found.cut_bytes, 0);
        }
        for (uint64_t i = next - 3; i <= next; i++)
            box_expect_entry(&b, i, 1, 300);
    }
    box_fini(&b);
}

/* --- damage ------------------------------------------------------------------------------------- */

static void fill(struct box *b, int batches)
{
    box_hard(b, 1, 0, 1);
    for (int i = 0; i < batches; i++)
        box_batch(b, 1, 3, 90);
}

Test(wal, a_torn_tail_is_cut_and_the_log_goes_on)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    fill(&b, 5);
    box_close(&b);

    struct buf image = box_read(&b, 1);
    size_t used = image.len;
    while (image.data[used - 1] == 0)
        used--;
    memset(image.data + used - 60, 0, 60); /* the commit record, and a bit of the last entry */
    box_write(&b, 1, buf_slice(&image));

    cr_assert(box_open(&b), "%s", b.why.data);
    cr_assert_eq(b.found.last_index, 12);
    cr_assert_gt(b.found.cut_bytes, 0);
    box_batch(&b, 1, 4, 33);
    cr_assert(box_reopen(&b), "%s", b.why.data);
    cr_assert_eq(b.found.last_index, 16);
    cr_assert_eq(b.found.cut_bytes, 0);
    box_expect_entry(&b, 13, 1, 33);
    buf_fini(&image);
    box_fini(&b);
}

Test(wal, a_file_that_became_shorter_is_a_torn_tail_at_most)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    fill(&b, 5);
    box_close(&b);

    struct buf image = box_read(&b, 1);
    size_t used = image.len;
    while (image.data[used - 1] == 0)
        used--;
    box_write(&b, 1, slice_of(image.data, used - 20));

    cr_assert(box_open(&b), "%s", b.why.data);
    cr_assert_eq(b.found.last_index, 12);
    box_batch(&b, 1, 1, 33);
    cr_assert(box_reopen(&b), "%s", b.why.data);
    cr_assert_eq(b.found.last_index, 13);
    buf_fini(&image);
    box_fini(&b);
}

Test(wal, damage_before_the_tail_is_refused_with_file_offset_and_entry)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    fill(&b, 5);
    box_close(&b);

    struct buf image = box_read(&b, 1);
    struct entry *e = box_entry(5, 1, 90);
    uint8_t *at = memmem(image.data, image.len, e->data, e->len);
    cr_assert(at);
    at[17] ^= 0x20;
    box_write(&b, 1, buf_slice(&image));

    cr_assert(!box_open(&b));
    char offset[40];
    snprintf(offset, sizeof(offset), "offset %zu", (size_t)(at - image.data) - WAL_HEADER_BYTES);
    cr_assert(strstr((char *)b.why.data, "0000000000000001.wal"), "%s", b.why.data);
    cr_assert(strstr((char *)b.why.data, offset), "%s", b.why.data);
    cr_assert(strstr((char *)b.why.data, "index 5 term 1"), "%s", b.why.data);

    /* Nothing was changed: the bit put back, all is well. */
    at[17] ^= 0x20;
    struct buf now = box_read(&b, 1);
    cr_assert_eq(now.len, image.len);
    now.data[at + 17 - image.data] ^= 0x20;
    cr_assert(memcmp(now.data, image.data, image.len) == 0);
    box_write(&b, 1, buf_slice(&image));
    cr_assert(box_open(&b), "%s", b.why.data);
    entry_unref(e);
    buf_fini(&now);
    buf_fini(&image);
    box_fini(&b);
}

Test(wal, a_torn_tail_of_a_segment_that_is_not_the_last_is_damage)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    fill(&b, 100);
    box_close(&b);

    struct buf image = box_read(&b, 2);
    size_t used = image.len;
    while (image.data[used - 1] == 0)
        used--;
    memset(image.data + used - 60, 0, 60);
    box_write(&b, 2, buf_slice(&image));

    cr_assert(!box_open(&b));
    cr_assert(strstr((char *)b.why.data, "0000000000000002.wal: offset"), "%s", b.why.data);
    buf_fini(&image);
    box_fini(&b);
}

Test(wal, a_whole_batch_missing_at_the_end_of_a_segment_is_damage)
{
    struct box b;
    struct wal_scan scan = {0};
    box_init(&b);
    box_create(&b);
    fill(&b, 100);
    box_close(&b);

    /* Cut exactly at a batch's border: only the next segment's chain knows. */
    struct buf image = box_read(&b, 1);
    size_t end = 0;
    uint32_t salt = wal_salt(BOX_CLUSTER, BOX_MEMBER, 1);
    for (size_t p = 0, before = 0; p + WAL_HEADER_BYTES <= image.len; p += 8) {
        struct wal_record r;

        if (wal_header_get(image.data + p, salt, &r) && r.kind == WAL_COMMIT) {
            end = before;
            before = p + WAL_HEADER_BYTES;
        }
    }
    UNUSED(scan);
    memset(image.data + end, 0, image.len - end);
    box_write(&b, 1, buf_slice(&image));

    cr_assert(!box_open(&b));
    cr_assert(strstr((char *)b.why.data, "0000000000000002.wal: offset 0: batch"), "%s", b.why.data);
    buf_fini(&image);
    box_fini(&b);
}

Test(wal, a_missing_segment_is_refused_by_its_name)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    fill(&b, 100);
    box_close(&b);

    char *path = box_path(&b, 2);
    cr_assert_eq(unlink(path), 0);
    free(path);

    cr_assert(!box_open(&b));
    cr_assert(strstr((char *)b.why.data, "0000000000000002.wal: segment is missing"), "%s", b.why.data);
    box_fini(&b);
}

Test(wal, a_log_of_another_member_is_not_joined_on)
{
    struct box b, other;
    box_init(&b);
    box_create(&b);
    fill(&b, 60);
    box_close(&b);
    box_init(&other);
    struct wal_conf c = box_conf(&other);
    other.wal = wal_create(
        &c, &(struct wal_found){.cluster_id = 1, .member_id = 2, .first_index = 1, .members = SLICE_LIT("x")});
    fill(&other, 60);
    box_close(&other);

    struct buf image = box_read(&other, 2);
    box_write(&b, 2, buf_slice(&image));

    cr_assert(!box_open(&b));
    cr_assert(strstr((char *)b.why.data, "belongs to member 2 of cluster 1"), "%s", b.why.data);
    buf_fini(&image);
    box_fini(&other);
    box_fini(&b);
}

Test(wal, a_crash_between_spare_and_segment_leaves_nothing_behind)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    fill(&b, 5);
    box_close(&b);

    /* The head of segment 2 was written, the rename did not happen. */
    struct buf image = box_read(&b, 1);
    char *spare = xasprintf("%s/spare", b.dir);
    int fd = open(spare, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert_eq(file_write_all(fd, image.data, image.len), 0);
    close(fd);

    cr_assert(box_open(&b), "%s", b.why.data);
    for (int i = 0; i < 100; i++)
        box_batch(&b, 1, 3, 90);
    cr_assert(box_reopen(&b), "%s", b.why.data);
    cr_assert_eq(b.found.last_index, 315);
    free(spare);
    buf_fini(&image);
    box_fini(&b);
}

/* --- a snapshot takes the log's place --------------------------------------------------------------- */

static void reset_to(struct box *b, uint64_t index, uint64_t term)
{
    wal_reset(b->wal, index, term, SLICE_LIT("members of the snapshot"));
    wal_submit(b->wal, index);
}

static void expect_reset(struct box *b, uint64_t index, uint64_t term)
{
    uint64_t got = 0;

    cr_assert_eq(b->found.first_index, index + 1);
    cr_assert_eq(b->found.prev_term, term);
    cr_assert_eq(b->found.members_at, index);
    cr_assert(slice_eq(b->found.members, SLICE_LIT("members of the snapshot")));
    cr_assert_geq(b->found.commit, index);
    cr_assert(wal_term(b->wal, index, &got));
    cr_assert_eq(got, term);
}

Test(wal, a_snapshot_beyond_the_log_takes_its_place)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    box_hard(&b, 5, 9, 1);
    box_batch(&b, 3, 20, 100);

    reset_to(&b, 1000, 4);
    cr_assert_eq(wal_first_index(b.wal), 1001);
    cr_assert_eq(wal_last_index(b.wal), 1000);
    box_batch(&b, 5, 3, 50);

    cr_assert(box_reopen(&b), "%s", b.why.data);
    expect_reset(&b, 1000, 4);
    cr_assert_eq(b.found.last_index, 1003);
    cr_assert_eq(b.found.term, 5);
    cr_assert_eq(b.found.vote, 9);
    for (uint64_t i = 1001; i <= 1003; i++)
        box_expect_entry(&b, i, 5, 50);
    cr_assert(box_reopen(&b), "%s", b.why.data); /* and once more */
    expect_reset(&b, 1000, 4);
    box_fini(&b);
}

Test(wal, a_snapshot_in_the_middle_of_a_log_that_disagrees_takes_all_of_it_away)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    box_hard(&b, 5, 0, 1);
    box_batch(&b, 3, 20, 100);

    reset_to(&b, 10, 4);
    cr_assert_eq(wal_last_index(b.wal), 10);
    box_batch(&b, 5, 4, 60);

    cr_assert(box_reopen(&b), "%s", b.why.data);
    expect_reset(&b, 10, 4);
    cr_assert_eq(b.found.last_index, 14);
    for (uint64_t i = 11; i <= 14; i++)
        box_expect_entry(&b, i, 5, 60);
    box_fini(&b);
}

Test(wal, a_reset_while_entries_are_on_their_way_leaves_none_of_them)
{
    struct box b;
    box_init(&b);
    box_create(&b);
    box_hard(&b, 5, 0, 1);
    for (int i = 0; i < 30; i++) {
        box_add(&b, 3, 200);
        wal_submit(b.wal, 0);
    }
    reset_to(&b, 7, 4);
    for (int i = 0; i < 30; i++)
        box_add(&b, 5, 70);
    wal_submit(b.wal, 7);
    for (uint64_t i = 8; i <= 37; i++)
        box_expect_entry(&b, i, 5, 70); /* from memory */
    wal_flush(b.wal);
    for (uint64_t i = 8; i <= 37; i++)
        box_expect_entry(&b, i, 5, 70); /* from the file */

    cr_assert(box_reopen(&b), "%s", b.why.data);
    expect_reset(&b, 7, 4);
    cr_assert_eq(b.found.last_index, 37);
    for (uint64_t i = 8; i <= 37; i++)
        box_expect_entry(&b, i, 5, 70);
    box_fini(&b);
}

Test(wal, a_reset_of_an_empty_log_moves_its_beginning)
{
    struct box b;
    box_init(&b);
    box_create(&b);

    reset_to(&b, 500, 2);
    cr_assert(box_reopen(&b), "%s", b.why.data);
    expect_reset(&b, 500, 2);
    reset_to(&b, 900, 3);
    cr_assert(box_reopen(&b), "%s", b.why.data);
    expect_reset(&b, 900, 3);
    cr_assert_eq(b.found.last_index, 900);
    box_fini(&b);
}

Test(wal, old_segments_go_after_a_reset_and_the_rest_can_be_read)
{
    struct box b;
    struct wal_stats s;
    box_init(&b);
    box_create(&b);
    box_hard(&b, 9, 0, 1);
    for (int i = 0; i < 40; i++)
        box_batch(&b, 3, 4, 500); /* several segments */
    reset_to(&b, 90, 4);          /* in the middle of them */
    for (int i = 0; i < 40; i++)
        box_batch(&b, 5, 4, 500);
    for (uint64_t below = 100; below <= 240; below += 20) {
        wal_drop(b.wal, below, SLICE_LIT("members of the snapshot"), below);
        wal_submit(b.wal, 250);
        wal_flush(b.wal);
        cr_assert(box_reopen(&b), "below %d: %s", (int)below, b.why.data);
        cr_assert_eq(b.found.first_index, below);
        for (uint64_t i = below; i <= 250; i++)
            box_expect_entry(&b, i, 5, 500);
    }
    box_batch(&b, 5, 1, 10); /* a log that was closed before the old files were gone lets them go with its next batch */
    wal_stats(b.wal, &s);
    cr_assert_lt(s.segments, 8);
    box_fini(&b);
}

/* Every cut of the file through the batch that holds the reset: the old log is there, or the new one. */
Test(wal, a_crash_at_any_byte_of_a_reset_leaves_the_old_log_or_the_new_one, .timeout = 60)
{
    struct box b;
    struct wal_stats s;
    char path[128];
    box_init(&b);
    box_create(&b);
    box_hard(&b, 5, 0, 1);
    box_batch(&b, 3, 10, 100);
    wal_stats(b.wal, &s);
    uint64_t before = s.bytes;
    reset_to(&b, 1000, 4);
    wal_flush(b.wal);
    wal_stats(b.wal, &s);
    uint64_t batch = s.bytes - before;
    box_close(&b);
    snprintf(path, sizeof(path), "%s/%016x.wal", b.dir, 1);
    struct buf whole = BUF_INIT;
    cr_assert_eq(file_read_all(path, 1 << 20, &whole), 0);
    size_t end = whole.len;
    while (end > 0 && whole.data[end - 1] == 0)
        end--;
    size_t begin = (end + 7) / 8 * 8 - batch;

    size_t old = 0, new = 0;
    for (size_t cut = begin; cut <= end; cut++) {
        struct buf torn = BUF_INIT;

        buf_add(&torn, whole.data, whole.len);
        memset(torn.data + cut, 0, torn.len - cut);
        cr_assert_eq(file_replace(path, torn.data, torn.len), 0);
        buf_fini(&torn);
        cr_assert(box_open(&b), "cut at %d: %s", (int)cut, b.why.data);
        if (b.found.last_index == 10) {
            old++;
            cr_assert_eq(b.found.first_index, 1);
            box_expect_entry(&b, 10, 3, 100);
        } else {
            new++;
            expect_reset(&b, 1000, 4);
        }
        box_close(&b);
    }
    cr_assert_gt(old, 0);
    cr_assert_gt(new, 0);
    buf_fini(&whole);
    box_fini(&b);
}
