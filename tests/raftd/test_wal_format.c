/* The bytes of the log. Every byte position of one segment is cut at and flipped; golden bytes of each kind of record,
 * so that the format changes only on purpose: TRINE_ACCEPT=1 writes them anew, after WAL_VERSION was raised. */
#include "tests/raftd/wal_box.h"

#include "common/crc32c.h"

/* --- golden ------------------------------------------------------------------------------------- */

static void golden_line(struct buf *out, const char *name, struct slice bytes)
{
    buf_printf(out, "%s ", name);
    for (size_t i = 0; i < bytes.len; i++)
        buf_printf(out, "%02x", bytes.data[i]);
    buf_add_byte(out, '\n');
}

static void golden_record(struct buf *out, struct wal_record r, struct slice payload, uint32_t salt)
{
    struct buf bytes = BUF_INIT;

    wal_record_add(&bytes, r, payload, salt, 0);
    golden_line(out, wal_kind_name(r.kind), buf_slice(&bytes));
    buf_fini(&bytes);
}

Test(wal_format, records_have_their_golden_bytes)
{
    struct buf now = BUF_INIT, golden = BUF_INIT;
    uint32_t salt = wal_salt(BOX_CLUSTER, BOX_MEMBER, 3);
    uint8_t head[WAL_HEAD_PAYLOAD_BYTES], vote[8];

    wal_head_put(head, &(struct wal_head){.version = WAL_VERSION,
                                          .prev_chain = 0x01020304,
                                          .cluster_id = BOX_CLUSTER,
                                          .member_id = BOX_MEMBER,
                                          .segment = 3});
    wal_u64_put(vote, BOX_MEMBER);
    golden_record(&now, (struct wal_record){.kind = WAL_SEGMENT, .index = 42, .term = 17}, slice_of(head, sizeof(head)),
                  0);
    golden_record(&now, (struct wal_record){.kind = WAL_HARD, .index = 6, .term = 5}, slice_of(vote, 8), salt);
    golden_record(&now, (struct wal_record){.kind = WAL_PREFIX, .index = 40, .term = 4}, SLICE_EMPTY, salt);
    golden_record(&now, (struct wal_record){.kind = WAL_MEMBERS, .index = 41}, SLICE_LIT("members"), salt);
    golden_record(&now, (struct wal_record){.kind = WAL_ENTRY, .entry_kind = ENTRY_COMMAND, .index = 42, .term = 5},
                  SLICE_LIT("command bytes"), salt);
    golden_record(&now, (struct wal_record){.kind = WAL_TRUNCATE, .index = 42}, SLICE_EMPTY, salt);
    golden_record(&now, (struct wal_record){.kind = WAL_COMMIT, .index = 41, .term = 18, .chain = 0xcafebabe},
                  SLICE_EMPTY, salt);

    if (getenv("TRINE_ACCEPT"))
        cr_assert_eq(file_replace("tests/golden/wal.txt", now.data, now.len), 0);
    cr_assert_eq(file_read_all("tests/golden/wal.txt", 65536, &golden), 0);
    cr_assert(slice_eq(buf_slice(&now), buf_slice(&golden)), "%.*s", (int)now.len, (char *)now.data);
    buf_fini(&now);
    buf_fini(&golden);
}

/* --- one segment, every byte -------------------------------------------------------------------- */

struct seen {
    uint64_t last;
    int entries;
};

static int see_cb(void *arg, const struct wal_record *r, uint64_t offset, struct slice payload, struct buf *why)
{
    struct seen *s = arg;

    UNUSED(offset);
    UNUSED(payload);
    UNUSED(why);
    if (r->kind == WAL_ENTRY) {
        if (r->index != s->last + 1)
            return E_DAMAGED;
        s->last = r->index;
        s->entries++;
    }
    return 0;
}

static int scan(struct slice bytes, uint64_t number, struct seen *s, size_t *end, struct buf *why)
{
    struct wal_scan sc = {0};

    *s = (struct seen){0};
    buf_reset(why);
    return wal_scan_segment(&sc, number, bytes, see_cb, s, end, why);
}

#define BATCHES 6
static struct buf image;
static size_t ends[BATCHES + 2]; /* where batch i ends; 0: head, 1: first hard state */
static size_t used;

/* Head, hard state, then BATCHES batches of 3 entries of 50 bytes. */
static void image_make(void)
{
    struct box b;
    size_t count = 0;
    uint32_t salt = wal_salt(BOX_CLUSTER, BOX_MEMBER, 1);

    box_init(&b);
    box_create(&b);
    for (int i = 0; i < BATCHES; i++)
        box_batch(&b, 0, 3, 50);
    box_close(&b);
    image = box_read(&b, 1);
    box_fini(&b);
    for (size_t p = 0; p + WAL_HEADER_BYTES <= image.len; p += 8) {
        struct wal_record r;

        if (wal_header_get(image.data + p, salt, &r) && r.kind == WAL_COMMIT)
            ends[count++] = p + WAL_HEADER_BYTES;
    }
    cr_assert_eq(count, BATCHES + 2);
    used = ends[BATCHES + 1];
}

static void image_free(void)
{
    buf_fini(&image);
}

/* Entries in the batches that end at or before `at`. */
static int entries_before(size_t at)
{
    int entries = 0;

    for (size_t i = 2; i < BATCHES + 2 && ends[i] <= at; i++)
        entries += 3;
    return entries;
}

Test(wal_format, zeros_from_any_byte_on_leave_the_batches_before_it, .init = image_make, .fini = image_free)
{
    struct buf why = BUF_INIT, copy = BUF_INIT;
    struct seen s;
    size_t end;

    for (size_t at = ends[0]; at <= used; at++) {
        buf_reset(&copy);
        buf_add(&copy, image.data, at);
        memset(buf_extend(&copy, 512), 0, 512);
        int err = scan(buf_slice(&copy), 1, &s, &end, &why);

        bool border = false;
        for (size_t i = 0; i < BATCHES + 2; i++)
            border |= ends[i] == at;
        /* A cut that takes only zeros of the last record is none. */
        cr_assert(err == E_TRUNCATED || (err == 0 && (border || entries_before(at) == s.entries)), "at %zu: %s", at,
                  err_name(err));
        if (border)
            cr_assert_eq(err, 0, "at %zu", at);
        cr_assert(s.entries == entries_before(at) || memcmp(copy.data, image.data, used) == 0, "at %zu: %d entries", at,
                  s.entries);
        cr_assert_leq(end, MAX(at, used));
    }
    buf_fini(&copy);
    buf_fini(&why);
}

Test(wal_format, a_file_that_ends_at_any_byte_leaves_the_batches_before_it, .init = image_make, .fini = image_free)
{
    struct buf why = BUF_INIT;
    struct seen s;
    size_t end;

    for (size_t at = 0; at <= used; at++) {
        int err = scan(slice_of(image.data, at), 1, &s, &end, &why);

        cr_assert_eq(err, at < ends[0] ? E_DAMAGED : err == 0 ? 0 : E_TRUNCATED, "at %zu: %s", at, err_name(err));
        cr_assert_eq(s.entries, entries_before(at), "at %zu: %d entries", at, s.entries);
    }
    buf_fini(&why);
}

Test(wal_format, a_flipped_bit_is_refused_or_cuts_the_last_batch_only, .init = image_make, .fini = image_free)
{
    struct buf why = BUF_INIT;
    struct seen s;
    size_t end;

    for (size_t at = 0; at < used; at++) {
        for (int bit = 0; bit < 8; bit++) {
            image.data[at] ^= (uint8_t)(1 << bit);
            int err = scan(buf_slice(&image), 1, &s, &end, &why);

            image.data[at] ^= (uint8_t)(1 << bit);
            if (at >= ends[BATCHES]) {
                cr_assert_eq(err, E_TRUNCATED, "byte %zu bit %d: %s", at, bit, err_name(err));
                cr_assert_eq(s.entries, 3 * (BATCHES - 1));
                cr_assert_eq(end, ends[BATCHES]);
            } else {
                cr_assert_eq(err, E_DAMAGED, "byte %zu bit %d: %s", at, bit, err_name(err));
                buf_add_byte(&why, 0);
                cr_assert(strstr((char *)why.data, "offset "), "byte %zu: %s", at, why.data);
            }
        }
    }
    buf_fini(&why);
}

Test(wal_format, bytes_behind_the_tail_are_cut, .init = image_make, .fini = image_free)
{
    struct buf why = BUF_INIT;
    struct seen s;
    size_t end;

    for (size_t at = used; at < MIN(used + 300, image.len); at++) {
        image.data[at] = 0x5a;
        cr_assert_eq(scan(buf_slice(&image), 1, &s, &end, &why), E_TRUNCATED);
        cr_assert_eq(s.entries, 3 * BATCHES);
        cr_assert_eq(end, used);
        image.data[at] = 0;
    }
    buf_fini(&why);
}

/* A batch left out, doubled, or moved: each record is fine, the chain is not. */
Test(wal_format, batches_that_were_moved_are_refused, .init = image_make, .fini = image_free)
{
    struct buf why = BUF_INIT, copy = BUF_INIT;
    struct seen s;
    size_t end;

    buf_add(&copy, image.data, ends[2]);
    buf_add(&copy, image.data + ends[3], used - ends[3]); /* batch 3 is missing */
    cr_assert_eq(scan(buf_slice(&copy), 1, &s, &end, &why), E_DAMAGED);
    cr_assert_eq(s.entries, 3);

    buf_reset(&copy);
    buf_add(&copy, image.data, ends[3]);
    buf_add(&copy, image.data + ends[2], used - ends[2]); /* batch 3 comes twice */
    cr_assert_eq(scan(buf_slice(&copy), 1, &s, &end, &why), E_DAMAGED);

    buf_reset(&copy);
    buf_add(&copy, image.data, used);
    buf_add(&copy, image.data + ends[BATCHES], used - ends[BATCHES]); /* the last one comes twice: a tail */
    cr_assert_eq(scan(buf_slice(&copy), 1, &s, &end, &why), E_TRUNCATED);
    cr_assert_eq(s.entries, 3 * BATCHES);
    buf_fini(&copy);
    buf_fini(&why);
}

Test(wal_format, stale_bytes_of_a_recycled_segment_are_not_records)
{
    struct box b;
    struct buf why = BUF_INIT;
    struct seen s;
    size_t end, first_end;

    /* Two segments of the same shape: the second one's file once held the first one's bytes. */
    box_init(&b);
    box_create(&b);
    for (int i = 0; i < 100; i++)
        box_batch(&b, 0, 3, 100);
    box_close(&b);
    struct buf old = box_read(&b, 1), new = box_read(&b, 2);
    box_fini(&b);
    uint32_t salt = wal_salt(BOX_CLUSTER, BOX_MEMBER, 2);
    int batches = 0;
    for (first_end = 0; batches < 5; first_end += 8) {
        struct wal_record r;

        if (wal_header_get(new.data + first_end, salt, &r) && r.kind == WAL_COMMIT)
            batches++;
    }
    first_end += WAL_HEADER_BYTES - 8;
    memcpy(new.data + first_end, old.data + first_end, old.len - first_end);

    struct wal_scan sc = {0};
    s = (struct seen){0};
    cr_assert_eq(wal_scan_segment(&sc, 1, buf_slice(&old), see_cb, &s, &end, &why), 0);
    int in_first = s.entries;
    cr_assert_eq(wal_scan_segment(&sc, 2, buf_slice(&new), see_cb, &s, &end, &why), E_TRUNCATED);
    cr_assert_eq(end, first_end);
    cr_assert_eq(s.entries - in_first, 12);
    buf_fini(&why);
    buf_fini(&old);
    buf_fini(&new);
}

Test(wal_format, a_later_version_is_not_guessed_at, .init = image_make, .fini = image_free)
{
    struct buf why = BUF_INIT, seg = BUF_INIT;
    uint8_t head[WAL_HEAD_PAYLOAD_BYTES];
    struct seen s;
    size_t end;

    wal_head_put(head, &(struct wal_head){.version = WAL_VERSION + 1, .segment = 1});
    wal_record_add(&seg, (struct wal_record){.kind = WAL_SEGMENT, .index = 1, .term = 1}, slice_of(head, sizeof(head)),
                   0, 0);
    cr_assert_eq(scan(buf_slice(&seg), 1, &s, &end, &why), E_VERSION);

    /* A kind that we do not know, in a batch that is otherwise whole. */
    buf_reset(&seg);
    buf_add(&seg, image.data, used);
    wal_record_add(&seg, (struct wal_record){.kind = 99, .index = 1}, SLICE_LIT("?"),
                   wal_salt(BOX_CLUSTER, BOX_MEMBER, 1), 0);
    cr_assert_eq(scan(buf_slice(&seg), 1, &s, &end, &why), E_VERSION);
    buf_fini(&seg);
    buf_fini(&why);
}
