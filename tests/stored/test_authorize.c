/* test_authorize - who may do what: each command by each kind of user, keys and intervals, both branches of transactions, leases,
 * what stored does itself, and reads during which auth changes. Random requests: test_authorize_model.c. */
#include "stored/authorize.h"
#include "tests/stored/auth_help.h"

#define S SLICE_LIT

/* root, auth on, and "anna" with role "anna", which may nothing yet. */
static struct world *world_with_anna(void)
{
    struct world *w = world_new();

    auth_on(w);
    user_with_role(w, "root", "anna");
    return w;
}

static void anna_may(struct world *w, enum perm_type type, struct slice key, struct slice range_end)
{
    cr_assert_eq(grant(w, "root", "anna", type, key, range_end), 0);
}

static int get(struct world *w, const char *user, struct slice key, struct slice range_end)
{
    struct frame f;

    return range_as(w, user, (struct api_range){.key = key, .range_end = range_end}, &f);
}

static int put(struct world *w, const char *user, struct slice key)
{
    struct frame f;

    return put_as(w, user, (struct api_put){.key = key, .value = S("v")}, &f);
}

/* --- classes of commands ------------------------------------------------------------------------------------------ */

enum class { NONE, USER, ROOT, OWN, OURS };

/* Of commands that are sent without a body; another one is for role root. */
static enum class class_of(uint64_t kind)
{
    switch (kind) {
    case COMMAND_BARRIER:
    case COMMAND_AUTHENTICATE:
    case COMMAND_PASSWORD:
    case COMMAND_TOKEN:
    case COMMAND_AUTH_STATUS:
        return NONE;
    case COMMAND_TXN:
    case COMMAND_LEASE_GRANT:
    case COMMAND_LEASE_REVOKE:
    case COMMAND_LEASE_KEEP_ALIVE:
    case COMMAND_LEASE_TIME_TO_LIVE:
    case COMMAND_LEASE_LEASES:
    case COMMAND_ALARM: /* GET */
        return USER;
    case COMMAND_RANGE: /* of no key: nobody but root has that granted */
    case COMMAND_RANGE_STREAM:
    case COMMAND_PUT:
    case COMMAND_DELETE_RANGE:
        return OWN;
    case COMMAND_LEASE_EXPIRE:
        return OURS;
    default:
        return ROOT;
    }
}

static int decided(struct world *w, uint64_t kind, const char *user, uint64_t rev)
{
    return authorize(&w->s, &(struct command){.kind = kind, .origin = FAKE_MEMBER, .slot = 1, .instance = FAKE_INSTANCE,
                                              .user = slice_str(user), .auth_rev = rev});
}

Test(authorize, each_command_by_nobody_by_somebody_and_by_root)
{
#define KIND(NAME, number, body, is_write) number,
    static const uint64_t kinds[] = {COMMANDS(KIND) 9999};
    struct world *w = world_with_anna();
    uint64_t rev = w->s.auth->rev;

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        const char *name = command_name(kinds[i]);
        enum class class = class_of(kinds[i]);
        int nobody = decided(w, kinds[i], NOBODY, 0), gone = decided(w, kinds[i], "gone", rev);
        int anna = decided(w, kinds[i], "anna", rev), old = decided(w, kinds[i], "anna", rev - 1);
        int root = decided(w, kinds[i], "root", rev), old_root = decided(w, kinds[i], "root", rev - 1);

        if (class == NONE) {
            cr_assert(!nobody && !gone && !anna && !root, "%s", name);
            continue;
        }
        if (class == OURS) {
            cr_assert(nobody == E_PERMISSION_DENIED && root == E_PERMISSION_DENIED, "%s", name);
            continue;
        }
        cr_assert_eq(nobody, E_USER_EMPTY, "%s", name);
        cr_assert_eq(gone, class == ROOT ? E_USER_NOT_FOUND : E_PERMISSION_DENIED, "%s", name);
        cr_assert_eq(anna, class == USER ? 0 : E_PERMISSION_DENIED, "%s", name);
        cr_assert_eq(root, 0, "%s", name);
        cr_assert_eq(old_root, class == ROOT ? 0 : E_AUTH_OLD_REVISION, "%s", name);
        if (class != ROOT)
            cr_assert_eq(old, E_AUTH_OLD_REVISION, "%s", name);
    }
    world_free(w);
}

Test(authorize, while_auth_is_off_everything_passes)
{
#define KIND_OFF(NAME, number, body, is_write) cr_assert_eq(decided(w, number, NOBODY, 0), 0, #NAME);
    struct world *w = world_new();

    COMMANDS(KIND_OFF)
    must_do(w, NOBODY, COMMAND_USER_ADD, "root", NULL, NULL, NULL);
    cr_assert_eq(decided(w, COMMAND_PUT, "gone", 0), 0);
    world_free(w);
}

Test(authorize, root_is_who_has_role_root)
{
    struct world *w = world_with_anna();

    cr_assert_eq(put(w, "anna", S("a")), E_PERMISSION_DENIED);
    must_do(w, "root", COMMAND_USER_GRANT_ROLE, "anna", "root", NULL, NULL);
    cr_assert_eq(put(w, "anna", S("a")), 0);
    cr_assert_eq(decided(w, COMMAND_COMPACT, "anna", 0), E_AUTH_OLD_REVISION, "from before there was such a user");
    cr_assert_eq(decided(w, COMMAND_COMPACT, "anna", w->s.auth->rev), 0);
    must_do(w, "anna", COMMAND_USER_REVOKE_ROLE, "anna", "root", NULL, NULL);
    cr_assert_eq(decided(w, COMMAND_COMPACT, "anna", w->s.auth->rev), E_PERMISSION_DENIED);
    world_restart(w);
    cr_assert_eq(decided(w, COMMAND_COMPACT, "root", w->s.auth->rev), 0);
    cr_assert_eq(decided(w, COMMAND_COMPACT, "anna", w->s.auth->rev), E_PERMISSION_DENIED);
    world_free(w);
}

Test(authorize, a_token_of_before_the_password_was_changed_is_old_for_root_too)
{
    struct world *w = world_with_anna();
    uint64_t before = w->s.auth->rev;

    cr_assert_eq(decided(w, COMMAND_ROLE_ADD, "root", before), 0);
    must_do(w, "root", COMMAND_ROLE_ADD, "more", NULL, NULL, NULL);
    cr_assert_eq(decided(w, COMMAND_ROLE_ADD, "root", before), 0, "his own change does not stop him");
    must_do(w, "root", COMMAND_USER_CHANGE_PASSWORD, "root", NULL, "eHg=", NULL);
    cr_assert_eq(decided(w, COMMAND_ROLE_ADD, "root", before), E_AUTH_OLD_REVISION);
    world_restart(w);
    cr_assert_eq(decided(w, COMMAND_ROLE_ADD, "root", before), E_AUTH_OLD_REVISION);
    cr_assert_eq(decided(w, COMMAND_ROLE_ADD, "root", w->s.auth->rev), 0);
    world_free(w);
}

Test(authorize, users_may_look_at_themselves_and_at_their_roles)
{
    struct world *w = world_with_anna();
    struct frame f;

    user_with_role(w, "root", "berta");
    cr_assert_eq(as_strings(w, "anna", COMMAND_USER_GET, "anna", NULL, NULL, NULL, &f), 0);
    cr_assert_eq(as_strings(w, "anna", COMMAND_USER_GET, "berta", NULL, NULL, NULL, &f), E_PERMISSION_DENIED);
    cr_assert_eq(as_strings(w, "anna", COMMAND_USER_GET, "nora", NULL, NULL, NULL, &f), E_PERMISSION_DENIED);
    cr_assert_eq(as_strings(w, "anna", COMMAND_ROLE_GET, "anna", NULL, NULL, NULL, &f), 0);
    cr_assert_eq(as_strings(w, "anna", COMMAND_ROLE_GET, "berta", NULL, NULL, NULL, &f), E_PERMISSION_DENIED);
    cr_assert_eq(as_strings(w, NOBODY, COMMAND_USER_GET, "", NULL, NULL, NULL, &f), E_USER_EMPTY);
    cr_assert_eq(as_strings(w, "gone", COMMAND_USER_GET, "gone", NULL, NULL, NULL, &f), E_USER_NOT_FOUND);
    cr_assert_eq(as_strings(w, "anna", COMMAND_USER_LIST, NULL, NULL, NULL, NULL, &f), E_PERMISSION_DENIED);
    cr_assert_eq(as_strings(w, "anna", COMMAND_ROLE_LIST, NULL, NULL, NULL, NULL, &f), E_PERMISSION_DENIED);
    world_free(w);
}

/* --- keys ---------------------------------------------------------------------------------------------------------- */

Test(authorize, ranges_need_read_on_all_of_the_interval)
{
    struct world *w = world_with_anna();

    anna_may(w, PERM_READ, S("b"), S("d"));
    anna_may(w, PERM_WRITE, S("d"), S("f"));
    cr_assert_eq(get(w, "anna", S("b"), SLICE_EMPTY), 0);
    cr_assert_eq(get(w, "anna", S("b"), S("d")), 0);
    cr_assert_eq(get(w, "anna", S("b"), S("d\0")), E_PERMISSION_DENIED);
    cr_assert_eq(get(w, "anna", S("d"), SLICE_EMPTY), E_PERMISSION_DENIED, "that is for writing");
    cr_assert_eq(get(w, "anna", S("a"), S("c")), E_PERMISSION_DENIED);
    cr_assert_eq(get(w, "anna", S("b"), S("\0")), E_PERMISSION_DENIED);
    anna_may(w, PERM_READWRITE, S("d"), S("\0"));
    cr_assert_eq(get(w, "anna", S("b"), S("\0")), 0, "two intervals that touch are one");
    cr_assert_eq(get(w, "gone", S("b"), SLICE_EMPTY), E_PERMISSION_DENIED);
    cr_assert_eq(get(w, NOBODY, S("b"), SLICE_EMPTY), E_USER_EMPTY);
    world_free(w);
}

Test(authorize, the_union_is_over_all_roles_and_ends_with_them)
{
    struct world *w = world_with_anna();

    anna_may(w, PERM_READ, S("a"), S("b"));
    must_do(w, "root", COMMAND_ROLE_ADD, "more", NULL, NULL, NULL);
    cr_assert_eq(grant(w, "root", "more", PERM_READ, S("b"), S("c")), 0);
    cr_assert_eq(get(w, "anna", S("a"), S("c")), E_PERMISSION_DENIED);
    must_do(w, "root", COMMAND_USER_GRANT_ROLE, "anna", "more", NULL, NULL);
    cr_assert_eq(get(w, "anna", S("a"), S("c")), 0);
    must_do(w, "root", COMMAND_ROLE_REVOKE, "more", "b", "c", NULL);
    cr_assert_eq(get(w, "anna", S("a"), S("c")), E_PERMISSION_DENIED);
    cr_assert_eq(grant(w, "root", "more", PERM_READ, S("b"), S("c")), 0);
    cr_assert_eq(get(w, "anna", S("a"), S("c")), 0);
    must_do(w, "root", COMMAND_ROLE_DELETE, "more", NULL, NULL, NULL);
    cr_assert_eq(get(w, "anna", S("a"), S("c")), E_PERMISSION_DENIED);
    cr_assert_eq(get(w, "anna", S("a"), S("b")), 0);
    world_free(w);
}

Test(authorize, a_permission_of_an_unknown_type_grants_nothing)
{
    struct world *w = world_with_anna();

    cr_assert_eq(grant(w, "root", "anna", 7, S("a"), SLICE_EMPTY), 0);
    cr_assert_eq(get(w, "anna", S("a"), SLICE_EMPTY), E_PERMISSION_DENIED);
    cr_assert_eq(put(w, "anna", S("a")), E_PERMISSION_DENIED);
    world_free(w);
}

Test(authorize, puts_and_deletes_need_write_and_read_for_what_was_there)
{
    struct world *w = world_with_anna();
    struct frame f;

    anna_may(w, PERM_WRITE, S("a"), S("c"));
    cr_assert_eq(put(w, "root", S("a")), 0);
    cr_assert_eq(put(w, "anna", S("a")), 0);
    cr_assert_eq(put(w, "anna", S("c")), E_PERMISSION_DENIED);
    cr_assert_eq(put_as(w, "anna", (struct api_put){.key = S("a"), .prev_kv = true}, &f), E_PERMISSION_DENIED);
    cr_assert_eq(f.result.body.len, 0);
    cr_assert_eq(delete_as(w, "anna", (struct api_delete){.key = S("a"), .range_end = S("d")}, &f), E_PERMISSION_DENIED);
    cr_assert_eq(delete_as(w, "anna", (struct api_delete){.key = S("a"), .range_end = S("c"), .prev_kv = true}, &f),
                 E_PERMISSION_DENIED);
    anna_may(w, PERM_READ, S("a"), S("b"));
    cr_assert_eq(put_as(w, "anna", (struct api_put){.key = S("a"), .prev_kv = true}, &f), 0);
    cr_assert_eq(delete_as(w, "anna", (struct api_delete){.key = S("a"), .range_end = S("c"), .prev_kv = true}, &f),
                 E_PERMISSION_DENIED, "a part of it may be read");
    cr_assert_eq(delete_as(w, "anna", (struct api_delete){.key = S("a"), .range_end = S("c")}, &f), 0);
    cr_assert_eq(put(w, NOBODY, S("a")), E_USER_EMPTY);
    world_free(w);
}

Test(authorize, a_write_with_an_old_token_is_refused_and_changes_nothing)
{
    struct world *w = world_with_anna();
    struct buf body = BUF_INIT;
    struct frame f;
    int64_t before;

    anna_may(w, PERM_READWRITE, S("a"), S("c"));
    before = mvcc_rev(w->s.mvcc);
    api_encode_put(&body, &(struct api_put){.key = S("a")});
    cr_assert_eq(apply_at(w, "anna", w->s.auth->rev - 1, COMMAND_PUT, buf_slice(&body), &f), E_AUTH_OLD_REVISION);
    cr_assert_eq(mvcc_rev(w->s.mvcc), before);
    cr_assert_eq(apply_at(w, "anna", w->s.auth->rev, COMMAND_PUT, buf_slice(&body), &f), 0);
    buf_fini(&body);
    world_free(w);
}

/* --- transactions ---------------------------------------------------------------------------------------------------- */

static int txn(struct world *w, const struct api_compare *compare, const struct api_request_op *success,
               const struct api_request_op *failure)
{
    struct api_txn rq = {.compares = (struct api_compare *)(uintptr_t)compare, .compare_count = compare != NULL,
                         .success = (struct api_request_op *)(uintptr_t)success, .success_count = success != NULL,
                         .failure = (struct api_request_op *)(uintptr_t)failure, .failure_count = failure != NULL};
    struct frame f;

    return txn_as(w, "anna", &rq, &f);
}

Test(authorize, transactions_need_all_compares_both_branches_and_all_levels)
{
    struct world *w = world_with_anna();
    const struct api_compare mine = {.target = API_CREATE, .key = S("a")}, other = {.target = API_CREATE, .key = S("z")};
    const struct api_compare wide = {.target = API_CREATE, .key = S("a"), .range_end = S("d")};
    const struct api_request_op put_mine = {.op = API_OP_PUT, .put = {.key = S("a")}};
    const struct api_request_op put_other = {.op = API_OP_PUT, .put = {.key = S("z")}};
    const struct api_request_op get_other = {.op = API_OP_RANGE, .range = {.key = S("a"), .range_end = S("\0")}};
    const struct api_request_op delete_other = {.op = API_OP_DELETE, .del = {.key = S("b"), .range_end = S("d")}};
    const struct api_request_op prev_other = {.op = API_OP_PUT, .put = {.key = S("w"), .prev_kv = true}};
    const struct api_request_op *const bad[] = {&put_other, &get_other, &delete_other, &prev_other};

    anna_may(w, PERM_READWRITE, S("a"), S("c"));
    anna_may(w, PERM_WRITE, S("w"), SLICE_EMPTY);
    cr_assert_eq(txn(w, &mine, &put_mine, &put_mine), 0);
    cr_assert_eq(txn(w, &other, &put_mine, NULL), E_PERMISSION_DENIED);
    cr_assert_eq(txn(w, &wide, &put_mine, NULL), E_PERMISSION_DENIED);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct api_txn good = {.success = (struct api_request_op *)(uintptr_t)&put_mine, .success_count = 1};
        struct api_txn inner = {.failure = (struct api_request_op *)(uintptr_t)bad[i], .failure_count = 1};
        struct api_request_op nested = {.op = API_OP_TXN, .txn = &inner};
        struct api_txn middle = {.success = &nested, .success_count = 1};
        struct api_request_op twice = {.op = API_OP_TXN, .txn = &middle};
        struct api_txn with_compare = good;
        struct api_request_op compared = {.op = API_OP_TXN, .txn = &with_compare};

        with_compare.compares = (struct api_compare *)(uintptr_t)&other;
        with_compare.compare_count = 1;
        cr_assert_eq(txn(w, &mine, bad[i], NULL), E_PERMISSION_DENIED, "%zu", i);
        cr_assert_eq(txn(w, &mine, NULL, bad[i]), E_PERMISSION_DENIED, "%zu", i);
        cr_assert_eq(txn(w, NULL, &nested, NULL), E_PERMISSION_DENIED, "%zu, in a branch that is not taken", i);
        cr_assert_eq(txn(w, NULL, NULL, &twice), E_PERMISSION_DENIED, "%zu", i);
        cr_assert_eq(txn(w, NULL, &compared, NULL), E_PERMISSION_DENIED, "%zu", i);
    }
    cr_assert_eq(txn(w, NULL, NULL, NULL), 0, "nothing needs nothing");
    world_free(w);
}

Test(authorize, a_transaction_that_only_reads_is_looked_at_alike)
{
    struct world *w = world_with_anna();
    struct api_request_op op = {.op = API_OP_RANGE, .range = {.key = S("z")}};
    struct api_txn rq = {.failure = &op, .failure_count = 1};
    struct buf body = BUF_INIT;
    struct frame f;

    anna_may(w, PERM_READ, S("a"), SLICE_EMPTY);
    api_encode_txn(&body, &rq);
    cr_assert_eq(read_at(w, "anna", w->s.auth->rev, COMMAND_TXN, buf_slice(&body), &f), E_PERMISSION_DENIED);
    buf_reset(&body);
    op.range.key = S("a");
    api_encode_txn(&body, &rq);
    cr_assert_eq(read_at(w, "anna", w->s.auth->rev, COMMAND_TXN, buf_slice(&body), &f), 0);
    buf_fini(&body);
    world_free(w);
}

/* --- leases ------------------------------------------------------------------------------------------------------------ */

Test(authorize, a_lease_is_its_keys)
{
    struct world *w = world_with_anna();
    struct frame f;

    anna_may(w, PERM_READWRITE, S("a"), S("c"));
    anna_may(w, PERM_READ, S("z"), SLICE_EMPTY);
    cr_assert_eq(as_ints(w, "anna", COMMAND_LEASE_GRANT, 100, 7, &f), 0);
    cr_assert_eq(as_ints(w, "gone", COMMAND_LEASE_GRANT, 100, 9, &f), E_PERMISSION_DENIED);
    cr_assert_eq(put_as(w, "anna", (struct api_put){.key = S("a"), .lease = 7}, &f), 0);
    cr_assert_eq(as_ints(w, "anna", COMMAND_LEASE_KEEP_ALIVE, 7, 0, &f), 0);
    cr_assert_eq(as_ints(w, "anna", COMMAND_LEASE_TIME_TO_LIVE, 7, 1, &f), 0);

    /* Somebody else binds a key of theirs to it: she may read that one. */
    cr_assert_eq(put_as(w, "root", (struct api_put){.key = S("z"), .lease = 7}, &f), 0);
    cr_assert_eq(put_as(w, "anna", (struct api_put){.key = S("b"), .lease = 7}, &f), E_PERMISSION_DENIED);
    cr_assert_eq(put_as(w, "anna", (struct api_put){.key = S("b")}, &f), 0);
    cr_assert_eq(as_ints(w, "anna", COMMAND_LEASE_REVOKE, 7, 0, &f), E_PERMISSION_DENIED);
    cr_assert_eq(as_ints(w, "anna", COMMAND_LEASE_KEEP_ALIVE, 7, 0, &f), E_PERMISSION_DENIED);
    cr_assert_eq(as_ints(w, "anna", COMMAND_LEASE_TIME_TO_LIVE, 7, 1, &f), 0);
    cr_assert_eq(as_ints(w, "anna", COMMAND_LEASE_LEASES, 0, 0, &f), 0);

    /* And one that she may not. */
    cr_assert_eq(put_as(w, "root", (struct api_put){.key = S("y"), .lease = 7}, &f), 0);
    cr_assert_eq(as_ints(w, "anna", COMMAND_LEASE_TIME_TO_LIVE, 7, 1, &f), E_PERMISSION_DENIED);
    cr_assert_eq(as_ints(w, "anna", COMMAND_LEASE_TIME_TO_LIVE, 7, 0, &f), 0, "without keys");
    cr_assert_eq(as_ints(w, "anna", COMMAND_LEASE_LEASES, 0, 0, &f), E_PERMISSION_DENIED);
    cr_assert_eq(as_ints(w, "root", COMMAND_LEASE_LEASES, 0, 0, &f), 0);
    cr_assert_eq(as_ints(w, "root", COMMAND_LEASE_KEEP_ALIVE, 7, 0, &f), 0);

    /* Unknown ones have no keys. */
    cr_assert_eq(as_ints(w, "anna", COMMAND_LEASE_REVOKE, 8, 0, &f), E_LEASE_NOT_FOUND);
    cr_assert_eq(as_ints(w, "anna", COMMAND_LEASE_KEEP_ALIVE, 8, 0, &f), 0);
    cr_assert_eq(put_as(w, "anna", (struct api_put){.key = S("b"), .lease = 8}, &f), E_LEASE_NOT_FOUND);
    cr_assert_eq(as_ints(w, NOBODY, COMMAND_LEASE_REVOKE, 8, 0, &f), E_USER_EMPTY);
    cr_assert_eq(as_ints(w, "root", COMMAND_LEASE_REVOKE, 7, 0, &f), 0);
    world_free(w);
}

Test(authorize, attaching_in_a_transaction_is_attaching)
{
    struct world *w = world_with_anna();
    const struct api_request_op attach = {.op = API_OP_PUT, .put = {.key = S("a"), .lease = 7}};
    struct frame f;

    anna_may(w, PERM_READWRITE, S("a"), S("c"));
    cr_assert_eq(as_ints(w, "root", COMMAND_LEASE_GRANT, 100, 7, &f), 0);
    cr_assert_eq(txn(w, NULL, &attach, NULL), 0);
    cr_assert_eq(put_as(w, "root", (struct api_put){.key = S("y"), .lease = 7}, &f), 0);
    cr_assert_eq(txn(w, NULL, NULL, &attach), E_PERMISSION_DENIED);
    world_free(w);
}

/* --- alarms, and what stored does itself --------------------------------------------------------------------------------- */

Test(authorize, alarms_are_listed_by_users_and_changed_by_root)
{
    struct world *w = world_with_anna();
    struct frame f;

    cr_assert_eq(read_at(w, "anna", w->s.auth->rev, COMMAND_ALARM, SLICE_EMPTY, &f), 0);
    cr_assert_eq(read_at(w, NOBODY, 0, COMMAND_ALARM, SLICE_EMPTY, &f), E_USER_EMPTY);
    cr_assert_eq(read_at(w, "gone", w->s.auth->rev, COMMAND_ALARM, SLICE_EMPTY, &f), E_PERMISSION_DENIED);
    cr_assert_eq(as_ints(w, "anna", COMMAND_ALARM, 1, 0xbb, &f), E_PERMISSION_DENIED);
    cr_assert_eq(as_ints(w, "anna", COMMAND_ALARM, 2, 0xbb, &f), E_PERMISSION_DENIED);
    cr_assert_eq(as_ints(w, NOBODY, COMMAND_ALARM, 2, 0xbb, &f), E_USER_EMPTY);
    cr_assert_eq(as_ints(w, "root", COMMAND_ALARM, 2, 0xbb, &f), 0);
    world_free(w);
}

Test(authorize, root_can_log_in_and_disarm_when_a_member_is_corrupt)
{
    struct world *w = world_with_anna();
    struct buf disarm = world_body(2, 0xbb, ALARM_CORRUPT);
    struct frame f;

    cr_assert_eq(grant(w, "root", "anna", PERM_READWRITE, S("a"), S("c")), 0);
    world_apply_ints(w, COMMAND_ALARM, 1, 0xbb, ALARM_CORRUPT); /* of nobody: refused */
    cr_assert_not(alarm_active(&w->s, ALARM_CORRUPT));
    struct buf raise = world_body(1, 0xbb, ALARM_CORRUPT);
    cr_assert_eq(as(w, "root", COMMAND_ALARM, buf_slice(&raise), &f), 0);
    cr_assert_eq(put(w, "anna", S("a")), E_CORRUPT);
    must_do(w, NOBODY, COMMAND_AUTHENTICATE, "root", "abcdefghijklmnop", NULL, NULL);
    must_do(w, "root", COMMAND_USER_ADD, "berta", NULL, NULL, NULL);
    cr_assert_eq(as(w, "anna", COMMAND_ALARM, buf_slice(&disarm), &f), E_PERMISSION_DENIED);
    cr_assert_eq(as(w, "root", COMMAND_ALARM, buf_slice(&disarm), &f), 0);
    cr_assert_eq(put(w, "anna", S("a")), 0);
    buf_fini(&raise);
    buf_fini(&disarm);
    world_free(w);
}

/* Takes what stored proposes itself, and lets it come out of the log. */
static void come_back(struct world *w)
{
    struct frame f;
    struct buf bytes = BUF_INIT;

    cr_assert(fake_take_type(w->raft, FR_PROPOSE, &f));
    buf_add_slice(&bytes, f.propose.command);
    cr_assert_eq(fake_in(w->raft, FRAME(apply, APPLY, .index = ++w->index, .term = FAKE_TERM, .kind = APPLY_COMMAND,
                                        .command = buf_slice(&bytes))), 0);
    buf_fini(&bytes);
}

Test(authorize, leases_expire_whoever_has_the_keys)
{
    struct world *w = world_with_anna();
    struct frame f;

    cr_assert_eq(as_ints(w, "root", COMMAND_LEASE_GRANT, 5, 7, &f), 0);
    cr_assert_eq(put_as(w, "root", (struct api_put){.key = S("a"), .lease = 7}, &f), 0);
    fake_drop_all(w->raft);
    fake_advance(w->loop, 7000);
    come_back(w);
    cr_assert_eq(leases_count(w->s.leases), 0);
    world_free(w);
}

Test(authorize, what_is_not_stored_s_own_is_not_taken_for_it)
{
    struct world *w = world_with_anna();
    const struct command ours = {.kind = COMMAND_COMPACT};
    struct command c;

    cr_assert_eq(authorize(&w->s, &ours), 0);
    cr_assert_eq(authorize(&w->s, &(struct command){.kind = COMMAND_ALARM, .body = S("\x08\x01")}), 0);
    /* Other kinds are not among what it proposes. */
    cr_assert_eq(authorize(&w->s, &(struct command){.kind = COMMAND_PUT}), E_USER_EMPTY);
    cr_assert_eq(authorize(&w->s, &(struct command){.kind = COMMAND_USER_ADD}), E_USER_EMPTY);
    /* A gateway that does not know its member yet has a slot and an instance. */
    c = ours;
    c.slot = 1;
    cr_assert_eq(authorize(&w->s, &c), E_USER_EMPTY);
    c = ours;
    c.instance = 5;
    cr_assert_eq(authorize(&w->s, &c), E_USER_EMPTY);
    c = ours;
    c.origin = FAKE_MEMBER;
    cr_assert_eq(authorize(&w->s, &c), E_USER_EMPTY);
    c = ours;
    c.kind = COMMAND_LEASE_EXPIRE;
    c.slot = 1;
    c.user = S("root");
    c.auth_rev = w->s.auth->rev;
    cr_assert_eq(authorize(&w->s, &c), E_PERMISSION_DENIED, "nobody's");
    world_free(w);
}

/* --- watches ask first --------------------------------------------------------------------------------------------------- */

Test(authorize, the_query_asks_without_reading)
{
    struct world *w = world_with_anna();
    struct buf body = BUF_INIT;
    struct frame f;

    anna_may(w, PERM_READ, S("a"), S("c"));
    api_encode_range(&body, &(struct api_range){.key = S("a"), .range_end = S("c")});
    cr_assert_eq(as(w, "anna", COMMAND_AUTHORIZE, buf_slice(&body), &f), 0);
    cr_assert_gt(f.result.body.len, 0);
    cr_assert_eq(as(w, NOBODY, COMMAND_AUTHORIZE, buf_slice(&body), &f), E_USER_EMPTY);
    buf_reset(&body);
    api_encode_range(&body, &(struct api_range){.key = S("a"), .range_end = S("d")});
    cr_assert_eq(as(w, "anna", COMMAND_AUTHORIZE, buf_slice(&body), &f), E_PERMISSION_DENIED);
    cr_assert_eq(as(w, "gone", COMMAND_AUTHORIZE, buf_slice(&body), &f), E_PERMISSION_DENIED);
    cr_assert_eq(as(w, "root", COMMAND_AUTHORIZE, buf_slice(&body), &f), 0);
    /* Empty: is it root? */
    cr_assert_eq(as(w, "anna", COMMAND_AUTHORIZE, SLICE_EMPTY, &f), E_PERMISSION_DENIED);
    cr_assert_eq(as(w, "gone", COMMAND_AUTHORIZE, SLICE_EMPTY, &f), E_USER_NOT_FOUND);
    cr_assert_eq(as(w, NOBODY, COMMAND_AUTHORIZE, SLICE_EMPTY, &f), E_USER_EMPTY);
    cr_assert_eq(as(w, "root", COMMAND_AUTHORIZE, SLICE_EMPTY, &f), 0);
    buf_fini(&body);
    world_free(w);
}

/* --- auth changes while somebody reads -------------------------------------------------------------------------------------- */

/* A range of anna's that a worker has yet to read; its request. */
static uint64_t begin_range(struct world *w)
{
    struct buf body = BUF_INIT, bytes = BUF_INIT;

    fake_settle(w->loop);
    api_encode_range(&body, &(struct api_range){.key = S("a"), .range_end = S("c")});
    envelope(w, &bytes, "anna", w->s.auth->rev, COMMAND_RANGE, buf_slice(&body), false);
    cr_assert_eq(fake_in(w->raft, FRAME(serve, SERVE, .slot = 1, .index = w->index, .req = w->req,
                                        .command = buf_slice(&bytes))), 0);
    cr_assert_eq(loop_work_pending(w->loop), 1);
    buf_fini(&body);
    buf_fini(&bytes);
    return w->req;
}

static int end_range(struct world *w, uint64_t req)
{
    struct frame f;
    int err;

    fake_settle(w->loop);
    err = world_result(w, req, &f);
    cr_assert(!err || f.result.body.len == 0);
    return err;
}

Test(authorize, a_read_is_asked_for_again_when_auth_has_changed_meanwhile)
{
    struct world *w = world_with_anna();
    uint64_t req;

    anna_may(w, PERM_READ, S("a"), S("c"));
    req = begin_range(w);
    must_do(w, "root", COMMAND_ROLE_ADD, "something", NULL, NULL, NULL);
    cr_assert_eq(end_range(w, req), 0, "she still may");

    req = begin_range(w);
    must_do(w, "root", COMMAND_USER_CHANGE_PASSWORD, "anna", NULL, "eHg=", NULL);
    cr_assert_eq(end_range(w, req), E_AUTH_OLD_REVISION);

    req = begin_range(w);
    must_do(w, "root", COMMAND_ROLE_REVOKE, "anna", "a", "c", NULL);
    cr_assert_eq(end_range(w, req), E_PERMISSION_DENIED);

    anna_may(w, PERM_READ, S("a"), S("c"));
    req = begin_range(w);
    must_do(w, "root", COMMAND_USER_DELETE, "anna", NULL, NULL, NULL);
    must_do(w, "root", COMMAND_USER_ADD, "anna", NULL, NULL, NULL);
    must_do(w, "root", COMMAND_USER_GRANT_ROLE, "anna", "anna", NULL, NULL);
    cr_assert_eq(end_range(w, req), E_AUTH_OLD_REVISION, "this is another anna");

    req = begin_range(w);
    must_do(w, "root", COMMAND_AUTH_DISABLE, NULL, NULL, NULL, NULL);
    cr_assert_eq(end_range(w, req), 0);
    world_free(w);
}

Test(authorize, a_read_of_nobody_does_not_outlive_the_beginning_of_auth)
{
    struct world *w = world_new();
    struct buf body = BUF_INIT;
    struct frame f;
    uint64_t req;

    cr_assert_eq(put(w, NOBODY, S("a")), 0);
    fake_settle(w->loop);
    api_encode_range(&body, &(struct api_range){.key = S("a"), .range_end = S("c")});
    req = world_query(w, COMMAND_RANGE, buf_slice(&body), w->index);
    buf_fini(&body);
    auth_on(w);
    fake_settle(w->loop);
    cr_assert_eq(world_result(w, req, &f), E_USER_EMPTY);
    world_free(w);
}

Test(authorize, the_rest_of_a_large_range_is_not_sent_to_who_may_not_have_it_any_more)
{
    struct world *w = world_with_anna();
    char *big = xcalloc(1, MIB);
    struct buf body = BUF_INIT;
    struct frame f;
    uint64_t req;

    anna_may(w, PERM_READ, S("a"), S("c"));
    for (const char *key = "aaabacad"; *key; key += 2)
        cr_assert_eq(put_as(w, "root", (struct api_put){.key = slice_of(key, 2), .value = slice_of(big, MIB)}, &f), 0);
    api_encode_range(&body, &(struct api_range){.key = S("a"), .range_end = S("c")});
    cr_assert_eq(as(w, "anna", COMMAND_RANGE, buf_slice(&body), &f), 0);
    cr_assert(f.result.more);
    req = w->req;
    cr_assert_eq(fake_in(w->gate, FRAME(more, MORE, .req = req)), 0);
    fake_settle(w->loop);
    cr_assert_eq(world_result(w, req, &f), 0);
    cr_assert(f.result.more);
    must_do(w, "root", COMMAND_ROLE_REVOKE, "anna", "a", "c", NULL);
    cr_assert_eq(fake_in(w->gate, FRAME(more, MORE, .req = req)), 0);
    fake_settle(w->loop);
    cr_assert_eq(world_result(w, req, &f), E_PERMISSION_DENIED);
    cr_assert_null(w->s.gateways[1].opens, "and it is closed");
    buf_fini(&body);
    free(big);
    world_free(w);
}
