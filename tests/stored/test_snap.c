/* Snapshots from store to store, with the test in the place of two raftds and of what is between them. */
#include "tests/stored/fake.h"

#include <dirent.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "stored/auth.h"
#include "stored/dump.h"
#include "stored/mvcc_inner.h"
#include "stored/snap.h"
#include "stored/swap.h"

#define ID 0x123456789abcdefu

/* A frame for the other store: decoded slices live in `kept`. */
struct relayed {
    struct frame f;
    struct buf bytes;
};

static bool take_part(struct world *w, struct relayed *r)
{
    if (!fake_take_type(w->raft, FR_SNAP_PART, &r->f))
        return false;
    buf_reset(&r->bytes);
    buf_add_slice(&r->bytes, r->f.snap_part.bytes);
    r->f.snap_part.bytes = buf_slice(&r->bytes);
    return true;
}

static uint64_t save_open(struct world *w, uint64_t id)
{
    struct frame f;

    fake_drop_all(w->raft);
    cr_assert_eq(fake_in(w->raft, FRAME(snap_save, SNAP_SAVE, .id = id)), 0);
    cr_assert(fake_take_type(w->raft, FR_SNAP_SAVED, &f));
    cr_assert_eq(f.snap_saved.err, 0);
    return f.snap_saved.index;
}

static void more(struct world *w, uint64_t id, uint64_t from, uint64_t until, bool again)
{
    cr_assert_eq(fake_in(w->raft, FRAME(snap_more, SNAP_MORE, .id = id, .from = from, .until = until, .again = again)),
                 0);
}

static void load_open(struct world *w, uint64_t id, uint64_t index)
{
    fake_drop_all(w->raft);
    cr_assert_eq(fake_in(w->raft, FRAME(snap_load, SNAP_LOAD, .id = id, .index = index)), 0);
}

static uint32_t hash_of(struct world *w, int64_t rev)
{
    uint32_t hash;
    int64_t at, compact;

    cr_assert_eq(mvcc_hash(w->s.mvcc, rev, &hash, &at, &compact), 0);
    return hash;
}

static void fill_world(struct world *w, unsigned from, unsigned to, size_t value_len)
{
    char key[32], *value = xmalloc(value_len + 1);

    for (unsigned i = from; i < to; i++) {
        snprintf(key, sizeof key, "key/%06u", i);
        for (size_t k = 0; k < value_len; k++)
            value[k] = (char)('a' + (i * 7 + k * 13) % 26);
        value[value_len] = '\0';
        world_put(w, key, value);
    }
    free(value);
    fake_drop_all(w->gate);
    fake_drop_all(w->raft);
}

/* Moves frames between the two until the loading store has told how it ended: 0 or the error's number. */
static uint64_t run(struct world *from, struct world *to, uint64_t *parts)
{
    struct frame f;
    struct relayed part = {0};

    for (unsigned turn = 0; turn < 10000; turn++) {
        fake_settle(from->loop);
        fake_settle(to->loop);
        while (take_part(from, &part)) {
            ++*parts;
            cr_assert_eq(fake_in(to->raft, &part.f), 0);
        }
        fake_settle(to->loop);
        fake_advance(to->loop, 10);
        while (fake_take(to->raft, &f)) {
            if (f.type == FR_SNAP_MORE)
                more(from, f.snap_more.id, f.snap_more.from, f.snap_more.until, f.snap_more.again);
            if (f.type == FR_SNAP_LOADED) {
                buf_fini(&part.bytes);
                return f.snap_loaded.err;
            }
        }
    }
    cr_assert(false, "the transfer does not end");
    return 1;
}

Test(snap, what_was_loaded_equals_what_was_saved)
{
    struct world *from = world_new(), *to = world_new();
    uint64_t parts = 0;

    fill_world(from, 0, 3000, 900);
    world_apply_ints(from, COMMAND_LEASE_GRANT, 60, 7, 0);
    world_put_lease(from, "leased", "x", 7);
    world_apply_ints(from, COMMAND_ALARM, 1, FAKE_MEMBER, ALARM_NOSPACE);
    world_apply(from, COMMAND_USER_ADD, SLICE_LIT("\x0a\x04root"));
    world_apply(from, COMMAND_USER_GRANT_ROLE, SLICE_LIT("\x0a\x04root\x12\x04root"));
    fill_world(to, 0, 10, 10); /* will be forgotten */
    world_apply(to, COMMAND_USER_ADD, SLICE_LIT("\x0a\x04" "anna"));
    uint64_t index = save_open(from, ID);
    cr_assert_eq(index, from->index);

    load_open(to, ID, index);
    cr_assert_eq(run(from, to, &parts), 0);

    cr_assert_gt(parts, 4);
    cr_assert_eq(mvcc_applied(to->s.mvcc), index);
    cr_assert_eq(to->s.applied, index);
    cr_assert_eq(mvcc_rev(to->s.mvcc), mvcc_rev(from->s.mvcc));
    cr_assert_eq(hash_of(to, 0), hash_of(from, 0));
    cr_assert_eq(leases_count(to->s.leases), 1);
    struct slice *keys;
    cr_assert_eq(lease_keys(to->s.leases, 7, &keys), 1);
    free(keys);
    cr_assert(alarm_active(&to->s, ALARM_NOSPACE));
    cr_assert_eq(to->s.member_id, FAKE_MEMBER);
    cr_assert_gt(to->s.mvcc->checkpoint_generation, 0, "its index was there to be loaded");
    cr_assert(auth_user(to->s.auth, SLICE_LIT("root"))->is_root);
    cr_assert_null(auth_user(to->s.auth, SLICE_LIT("anna")));
    cr_assert_eq(to->s.auth->rev, 3);
    /* and the log goes on there */
    to->index = index;
    cr_assert_eq(to->gate->state, LINK_DOWN);
    struct frame f;
    fake_drop_all(to->gate);
    fake_up(to->gate, FAKE_INSTANCE);
    cr_assert(fake_take_type(to->gate, FR_AUTH, &f));
    cr_assert_eq(f.auth.auth_rev, 3);
    world_apply_ints(to, COMMAND_ALARM, 2, FAKE_MEMBER, ALARM_NOSPACE);
    world_put(to, "after", "y");
    cr_assert_eq(mvcc_rev(to->s.mvcc), mvcc_rev(from->s.mvcc) + 1);
    world_restart(to);
    cr_assert_eq(mvcc_applied(to->s.mvcc), index + 2);
    world_free(from);
    world_free(to);
}

Test(snap, writes_and_compactions_go_on_while_a_store_is_saved_and_it_does_not_see_them)
{
    struct world *from = world_new(), *to = world_new();
    struct relayed part = {0};
    struct frame f;
    bool ended = false;

    fill_world(from, 0, 4000, 900);
    int64_t rev = mvcc_rev(from->s.mvcc);
    uint32_t hash = hash_of(from, 0);
    uint64_t index = save_open(from, ID);
    load_open(to, ID, index);
    for (unsigned i = 0; i < 1000 && !ended; i++) {
        fill_world(from, i % 100, i % 100 + 3, 50);
        if (i == 3)
            world_apply_ints(from, COMMAND_COMPACT, rev, 0, 0);
        fake_advance(to->loop, 10);
        while (fake_take(to->raft, &f)) {
            if (f.type == FR_SNAP_MORE)
                more(from, ID, f.snap_more.from, f.snap_more.until, f.snap_more.again);
            if (f.type == FR_SNAP_LOADED)
                ended = true;
        }
        fake_settle(from->loop);
        while (take_part(from, &part))
            cr_assert_eq(fake_in(to->raft, &part.f), 0);
        fake_settle(to->loop);
    }
    cr_assert(ended);
    cr_assert_eq(mvcc_rev(to->s.mvcc), rev);
    cr_assert_eq(mvcc_applied(to->s.mvcc), index);
    cr_assert_eq(hash_of(to, 0), hash);
    cr_assert_gt(mvcc_rev(from->s.mvcc), rev);
    buf_fini(&part.bytes);
    world_free(from);
    world_free(to);
}

Test(snap, no_more_parts_are_sent_than_there_is_credit_for)
{
    struct world *w = world_new();
    struct relayed part = {0};
    unsigned count = 0;

    fill_world(w, 0, 4000, 900);
    save_open(w, ID);
    fake_settle(w->loop);
    cr_assert(!take_part(w, &part));

    more(w, ID, 0, 3, false);
    fake_settle(w->loop);
    for (; take_part(w, &part); count++)
        cr_assert_leq(part.bytes.len, SNAP_PART_BYTES);
    cr_assert_eq(count, 3);

    /* and what was lost is sent again, the same bytes with the same checksum */
    uint64_t chain = part.f.snap_part.chain;
    more(w, ID, 2, 3, true);
    fake_settle(w->loop);
    cr_assert(take_part(w, &part));
    cr_assert_eq(part.f.snap_part.part, 2);
    cr_assert_eq(part.f.snap_part.chain, chain);
    cr_assert(!take_part(w, &part));

    /* hostile credit, and an order for another transfer */
    cr_assert_neq(fake_in(w->raft, FRAME(snap_more, SNAP_MORE, .id = ID, .from = 0, .until = 1000000)), 0);
    more(w, ID + 1, 0, 10, false);
    fake_settle(w->loop);
    cr_assert(!take_part(w, &part));
    cr_assert_eq(fake_in(w->raft, FRAME(snap_drop, SNAP_DROP, .id = ID)), 0);
    more(w, ID, 3, 6, false);
    fake_settle(w->loop);
    cr_assert(!take_part(w, &part));
    buf_fini(&part.bytes);
    world_free(w);
}

Test(snap, parts_that_are_cut_damaged_doubled_or_out_of_order_are_refused_and_asked_for_again)
{
    struct world *from = world_new(), *to = world_new();
    struct relayed parts[3] = {0};
    struct frame f;
    uint64_t count = 0;

    fill_world(from, 0, 4000, 900);
    uint64_t index = save_open(from, ID);
    more(from, ID, 0, 3, false);
    fake_settle(from->loop);
    for (int i = 0; i < 3; i++)
        cr_assert(take_part(from, &parts[i]));
    load_open(to, ID, index);
    cr_assert(fake_take_type(to->raft, FR_SNAP_MORE, &f));
    cr_assert_eq(f.snap_more.from, 0);

    /* out of order */
    cr_assert_eq(fake_in(to->raft, &parts[1].f), 0);
    cr_assert(fake_take_type(to->raft, FR_SNAP_MORE, &f));
    cr_assert_eq(f.snap_more.from, 0);
    cr_assert_eq(f.snap_more.again, 1);
    cr_assert_eq(to->loop->job_count, 0); /* nothing is written */
    /* the right one, twice */
    cr_assert_eq(fake_in(to->raft, &parts[0].f), 0);
    cr_assert_eq(fake_in(to->raft, &parts[0].f), 0);
    fake_settle(to->loop);
    cr_assert(fake_take_type(to->raft, FR_SNAP_MORE, &f));
    cr_assert_eq(f.snap_more.from, 1);
    cr_assert_eq(f.snap_more.again, 0);
    /* one flipped bit */
    parts[1].bytes.data[1000] ^= 1;
    cr_assert_eq(fake_in(to->raft, &parts[1].f), 0);
    parts[1].bytes.data[1000] ^= 1;
    cr_assert(fake_take_type(to->raft, FR_SNAP_MORE, &f));
    cr_assert_eq(f.snap_more.again, 1);
    /* cut */
    parts[1].f.snap_part.bytes.len -= 1;
    cr_assert_eq(fake_in(to->raft, &parts[1].f), 0);
    parts[1].f.snap_part.bytes.len += 1;
    cr_assert_eq(to->loop->job_count, 0);
    cr_assert_eq(to->s.applied, 0);

    /* and then it goes on as if nothing had been */
    more(from, ID, 1, 5, true);
    cr_assert_eq(run(from, to, &count), 0);
    cr_assert_eq(hash_of(to, 0), hash_of(from, 0));
    for (int i = 0; i < 3; i++)
        buf_fini(&parts[i].bytes);
    world_free(from);
    world_free(to);
}

Test(snap, bytes_that_are_no_store_are_refused_and_the_old_store_stays)
{
    struct world *w = world_new();
    struct buf lies[4] = {0};
    static const uint8_t head[8] = {0, 0, 0, 3, 0, 0, 0, 1};
    struct frame f;

    fill_world(w, 0, 10, 10);
    uint64_t applied = w->s.applied;
    buf_add_str(&lies[0], "these bytes are no pairs at all");
    buf_add(&lies[1], head, sizeof head); /* keys that fall */
    buf_add_str(&lies[1], "zzz1");
    buf_add(&lies[1], head, sizeof head);
    buf_add_str(&lies[1], "aaa1");
    buf_add(&lies[2], head, sizeof head); /* pairs, but no store */
    buf_add_str(&lies[2], "rrr1");
    for (uint64_t i = 0; i < 4; i++) {
        load_open(w, ID + i, 1000);
        cr_assert_eq(fake_in(w->raft, FRAME(snap_part, SNAP_PART, .id = ID + i, .part = 0, .last = 1,
                                            .chain = crc32c((uint32_t)(ID + i), lies[i].data, lies[i].len),
                                            .bytes = buf_slice(&lies[i]))), 0);
        fake_settle(w->loop);
        fake_advance(w->loop, 20);
        cr_assert(fake_take_type(w->raft, FR_SNAP_LOADED, &f), "lie %d", (int)i);
        cr_assert_neq(f.snap_loaded.err, 0);
        cr_assert_eq(w->s.applied, applied);
        buf_fini(&lies[i]);
    }
    world_put(w, "still", "here");
    world_restart(w);
    cr_assert_eq(w->s.applied, applied + 1);
    world_free(w);
}

Test(snap, a_crash_in_the_middle_of_a_load_keeps_the_old_store)
{
    struct world *from = world_new(), *to = world_new();
    struct relayed part = {0};

    fill_world(from, 0, 4000, 900);
    fill_world(to, 0, 20, 10);
    uint32_t before = hash_of(to, 0);
    uint64_t index = save_open(from, ID);
    load_open(to, ID, index);
    more(from, ID, 0, 2, false);
    fake_settle(from->loop);
    while (take_part(from, &part))
        cr_assert_eq(fake_in(to->raft, &part.f), 0);
    fake_settle(to->loop);

    /* what a killed process leaves behind: new/ is there and means nothing */
    char new[128];
    snprintf(new, sizeof new, "%s/store/new/db", to->dir);
    cr_assert_eq(access(new, F_OK), 0);
    fake_down(to->raft);
    cr_assert_neq(access(new, F_OK), 0);
    world_restart(to);
    cr_assert_eq(hash_of(to, 0), before);
    buf_fini(&part.bytes);
    world_free(from);
    world_free(to);
}

/* --- the swap, step by step -------------------------------------------------------------------------------- */

static void file_put(const char *dir, const char *name, const char *text)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    for (char *slash = path + strlen(dir) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        mkdir(path, 0700);
    }
    f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
}

static bool file_is(const char *dir, const char *name, const char *text)
{
    char path[256], got[64] = "";
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "r");
    if (!f)
        return text == NULL;
    if (!fgets(got, sizeof got, f))
        got[0] = '\0';
    fclose(f);
    return text && strcmp(got, text) == 0;
}

Test(snap, a_crash_between_any_two_steps_of_the_swap_leaves_one_whole_store)
{
    /* the states that swap_commit goes through, and whose store each one is */
    static const struct {
        const char *files[6];
        const char *whose;
        const char *synced;
    } states[] = {
        {{"db/f:old", "SYNCED:old", "new/db/f:new"}, "old", "old"},           /* not decided */
        {{"db/f:old", "SYNCED:old", "next/db/f:new"}, "new", NULL},           /* decided */
        {{"old/f:old", "SYNCED:old", "next/db/f:new"}, "new", NULL},          /* the old one is aside */
        {{"old/f:old", "next/db/f:new"}, "new", NULL},                        /* SYNCED is gone */
        {{"old/f:old", "db/f:new", "next/.keep:"}, "new", NULL},              /* the new one has its place */
        {{"old/f:old", "db/f:new"}, "new", NULL},
        {{"db/f:new", "SYNCED:new"}, "new", "new"}, /* over, and in use since */
    };

    for (size_t i = 0; i < ARRAY_LEN(states); i++) {
        char dir[] = "/tmp/trine-test-swap-XXXXXX", command[64];

        cr_assert_not_null(mkdtemp(dir));
        for (size_t k = 0; states[i].files[k]; k++) {
            char name[64];
            const char *colon = strchr(states[i].files[k], ':');

            snprintf(name, sizeof name, "%.*s", (int)(colon - states[i].files[k]), states[i].files[k]);
            file_put(dir, name, colon + 1);
        }
        for (int again = 0; again < 2; again++) {
            swap_recover(dir);
            cr_assert(file_is(dir, "db/f", states[i].whose), "state %d", (int)i);
            cr_assert(file_is(dir, "SYNCED", states[i].synced), "state %d", (int)i);
            cr_assert(file_is(dir, "old/f", NULL) && file_is(dir, "next/db/f", NULL) && file_is(dir, "new/db/f", NULL));
        }
        snprintf(command, sizeof command, "rm -rf %s", dir);
        cr_assert_eq(system(command), 0);
    }
}

/* --- a damaged store ---------------------------------------------------------------------------------------- */

static void damage(struct world *w)
{
    char path[400];
    DIR *d;

    snprintf(path, sizeof path, "%s/store/db", w->dir);
    d = opendir(path);
    cr_assert_not_null(d);
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        if (strncmp(e->d_name, "MANIFEST", 8) != 0)
            continue;
        snprintf(path, sizeof path, "%s/store/db/%s", w->dir, e->d_name);
        FILE *f = fopen(path, "r+");
        cr_assert_not_null(f);
        for (int i = 0; i < 64; i++)
            fputc(0x55, f);
        fclose(f);
    }
    closedir(d);
}

static void lead_of(struct world *w, uint64_t members, uint64_t commit)
{
    cr_assert_eq(fake_in(w->raft, FRAME(lead, LEAD, .cluster_id = FAKE_CLUSTER, .member_id = FAKE_MEMBER,
                                        .term = FAKE_TERM, .leader = 9, .commit = commit, .members = members)), 0);
}

Test(snap, a_damaged_store_of_a_cluster_is_set_aside_and_loaded_anew)
{
    struct world *from = world_new(), *to = world_new();
    uint64_t parts = 0;

    fill_world(from, 0, 100, 100);
    fill_world(to, 0, 50, 100);
    lead_of(to, 3, 50);
    world_close(to);
    damage(to);
    stored_init(&to->s, &to->conf, to->loop);
    stored_links(&to->s);
    to->raft = to->s.raft;
    to->gate = to->s.gateways[1].link;

    /* it knows who it is, says that it has nothing, and lets no gateway see that */
    cr_assert_eq(to->raft->hello.applied, 0);
    cr_assert_eq(to->raft->hello.member_id, FAKE_MEMBER);
    fake_up(to->raft, 1);
    lead_of(to, 3, 100);
    to->gate->state = LINK_UP;
    cr_assert_neq(to->gate->ops->up(to->gate, &to->gate->peer, to->gate->arg), 0);
    to->gate->state = LINK_DOWN;

    uint64_t index = save_open(from, ID);
    load_open(to, ID, index);
    cr_assert_eq(run(from, to, &parts), 0);
    cr_assert_eq(hash_of(to, 0), hash_of(from, 0));
    fake_up(to->gate, FAKE_INSTANCE);
    world_free(from);
    world_free(to);
}

Test(snap, a_damaged_store_that_the_log_makes_whole_again_serves_from_then_on)
{
    struct world *w = world_new();

    fill_world(w, 0, 5, 100);
    lead_of(w, 3, 5);
    world_close(w);
    damage(w);
    w->index = 0;
    stored_init(&w->s, &w->conf, w->loop);
    stored_links(&w->s);
    w->raft = w->s.raft;
    w->gate = w->s.gateways[1].link;
    fake_up(w->raft, 1);
    lead_of(w, 3, 2);
    world_put(w, "a", "1");
    cr_assert(snap_is_closed(&w->s));
    world_put(w, "b", "1");
    cr_assert(!snap_is_closed(&w->s));
    fake_up(w->gate, FAKE_INSTANCE);
    world_free(w);
}

Test(snap, a_damaged_store_of_a_lone_member_is_refused, .exit_code = 1)
{
    struct world *w = world_new();

    fill_world(w, 0, 5, 100);
    lead_of(w, 1, 5);
    world_close(w);
    damage(w);
    stored_init(&w->s, &w->conf, w->loop);
}
