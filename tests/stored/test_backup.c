/* stored/read.c's part in backups: through the frames of a gateway, with its limits in number and time. What is in the bytes:
 * test_bolt.c. */
#include "stored/backup.h"
#include "tests/stored/auth_help.h"

static uint64_t begin(struct world *w, int wanted)
{
    uint64_t req = world_query(w, COMMAND_SNAPSHOT, SLICE_EMPTY, 0);
    struct frame f;

    cr_assert_eq(world_result(w, req, &f), wanted);
    if (!wanted)
        cr_assert(f.result.more && f.result.total == 0 && f.result.body.len == 0, "at once, before it is planned");
    return req;
}

static void more(struct world *w, uint64_t req, struct frame *f)
{
    cr_assert_eq(fake_in(w->gate, FRAME(more, MORE, .req = req)), 0);
    fake_settle(w->loop);
    cr_assert_eq(world_result(w, req, f), 0);
}

static void some_data(struct world *w)
{
    char *value = xmalloc(300001), key[16];

    memset(value, 'v', 300000);
    value[300000] = '\0';
    for (int i = 0; i < 5; i++) {
        snprintf(key, sizeof key, "k%d", i);
        world_put(w, key, value);
    }
    fake_drop_all(w->gate);
    free(value);
}

Test(backup, comes_in_parts_that_are_asked_for)
{
    struct world *w = world_new();
    struct frame f;
    uint64_t bytes = 0, parts = 0, total = 0;

    some_data(w);
    uint64_t req = begin(w, 0);
    do {
        more(w, req, &f);
        total = f.result.total;
        bytes += f.result.body.len;
        parts += f.result.body.len > 0;
        cr_assert(!f.result.more || f.result.body.len == 0 || f.result.body.len == RESULT_PART_BYTES);
    } while (f.result.more);
    cr_assert_gt(total, 1500000);
    cr_assert_eq(bytes, total);
    cr_assert_eq(parts, (total + RESULT_PART_BYTES - 1) / RESULT_PART_BYTES);
    cr_assert_null(w->s.gateways[1].opens);
    cr_assert_eq(w->s.backups, 0);
    world_free(w);
}

Test(backup, one_too_many_is_refused_until_another_is_let_go)
{
    struct world *w = world_new();
    uint64_t req[BACKUPS_MAX];

    for (size_t i = 0; i < BACKUPS_MAX; i++)
        req[i] = begin(w, 0);
    begin(w, E_REQUEST_TOO_MANY_REQUESTS);
    cr_assert_eq(fake_in(w->gate, FRAME(forget, FORGET, .req = req[1])), 0);
    begin(w, 0);
    begin(w, E_REQUEST_TOO_MANY_REQUESTS);
    /* One that a worker is at is let go when he is done. */
    cr_assert_eq(fake_in(w->gate, FRAME(more, MORE, .req = req[2])), 0);
    cr_assert_eq(fake_in(w->gate, FRAME(forget, FORGET, .req = req[2])), 0);
    begin(w, E_REQUEST_TOO_MANY_REQUESTS);
    fake_settle(w->loop);
    begin(w, 0);
    fake_down(w->gate);
    cr_assert_eq(w->s.backups, 0);
    world_free(w);
}

Test(backup, of_a_silent_reader_is_given_up)
{
    struct world *w = world_new();
    struct frame f;

    some_data(w);
    uint64_t silent = begin(w, 0), slow = begin(w, 0);
    fake_advance(w->loop, BACKUP_IDLE_MS - 1000);
    more(w, slow, &f);
    fake_advance(w->loop, 2000);
    cr_assert_eq(world_result(w, silent, &f), E_TIMEOUT);
    cr_assert_eq(w->s.backups, 1);
    more(w, slow, &f);
    cr_assert_gt(f.result.body.len, 0);
    world_free(w);
}

Test(backup, of_a_reader_that_is_slow_for_ever_is_given_up)
{
    struct world *w = world_new();
    struct frame f;

    for (int i = 0; i < 30; i++) { /* more parts than it will ask for */
        some_data(w);
        fake_settle(w->loop);
    }
    uint64_t slow = begin(w, 0);
    for (uint64_t ms = 0; ms + BACKUP_IDLE_MS / 2 < BACKUP_MS_MAX; ms += BACKUP_IDLE_MS / 2) {
        more(w, slow, &f);
        cr_assert(f.result.more);
        fake_advance(w->loop, BACKUP_IDLE_MS / 2);
    }
    fake_advance(w->loop, BACKUP_IDLE_MS / 2);
    cr_assert_eq(world_result(w, slow, &f), E_TIMEOUT);
    cr_assert_eq(w->s.backups, 0);
    world_free(w);
}

Test(backup, is_for_root_as_long_as_he_is)
{
    struct world *w = world_new();
    struct frame f;

    some_data(w);
    auth_on(w);
    cr_assert_eq(as(w, NOBODY, COMMAND_SNAPSHOT, SLICE_EMPTY, &f), E_USER_EMPTY);
    must_do(w, "root", COMMAND_USER_ADD, "anna", NULL, NULL, NULL);
    cr_assert_eq(as(w, "anna", COMMAND_SNAPSHOT, SLICE_EMPTY, &f), E_PERMISSION_DENIED);
    cr_assert_eq(as(w, "anna", COMMAND_HASH, SLICE_EMPTY, &f), E_PERMISSION_DENIED);
    must_do(w, "root", COMMAND_USER_GRANT_ROLE, "anna", "root", NULL, NULL);
    cr_assert_eq(as(w, "anna", COMMAND_SNAPSHOT, SLICE_EMPTY, &f), 0);
    uint64_t req = w->req;
    more(w, req, &f);
    more(w, req, &f);
    cr_assert_gt(f.result.body.len, 0);
    must_do(w, "root", COMMAND_USER_REVOKE_ROLE, "anna", "root", NULL, NULL);
    cr_assert_eq(fake_in(w->gate, FRAME(more, MORE, .req = req)), 0);
    fake_settle(w->loop);
    cr_assert_eq(world_result(w, req, &f), E_PERMISSION_DENIED);
    cr_assert_eq(w->s.backups, 0);
    world_free(w);
}

Test(backup, whose_members_make_no_sense_is_refused)
{
    struct world *w = world_new();
    struct frame f;

    cr_assert_eq(world_result(w, world_query(w, COMMAND_SNAPSHOT, SLICE_LIT("\x12\x7f"), 0), &f), E_MALFORMED);
    cr_assert_eq(w->s.backups, 0);
    world_free(w);
}
