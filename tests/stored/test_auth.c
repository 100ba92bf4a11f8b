/* test_auth - users, roles, tokens and passwords: every error of spec/semantics.md §14.1 to 14.3 in the order of the checks,
 * what counts in the auth revision, and that all of it is there again after a restart. */
#include <sodium.h>

#include "tests/stored/auth_help.h"

static uint64_t rev(const struct world *w)
{
    return w->s.auth->rev;
}

static int do_(struct world *w, enum command_kind kind, const char *one, const char *two, const char *three)
{
    struct frame f;

    return as_strings(w, w->s.auth->enabled ? "root" : NOBODY, kind, one, two, three, NULL, &f);
}

static uint64_t chain(struct world *w)
{
    struct buf points = BUF_INIT;
    uint64_t hash = mvcc_chain(w->s.mvcc, 0, &points);

    buf_fini(&points);
    return hash;
}

/* --- on and off --------------------------------------------------------------------------------------------------- */

Test(auth, it_starts_off_at_revision_one)
{
    struct world *w = world_new();
    struct frame f;

    cr_assert_eq(as_strings(w, NOBODY, COMMAND_AUTH_STATUS, NULL, NULL, NULL, NULL, &f), 0);
    cr_assert_eq(world_int(f.result.body, 2, 0, 0), 0);
    cr_assert_eq(world_int(f.result.body, 3, 0, 0), 1);
    cr_assert_eq(world_header_rev(f.result.body), 1);
    world_free(w);
}

Test(auth, enable_needs_root_with_role_root_and_does_not_count)
{
    struct world *w = world_new();

    cr_assert_eq(do_(w, COMMAND_AUTH_ENABLE, NULL, NULL, NULL), E_ROOT_USER_NOT_EXIST);
    cr_assert_eq(do_(w, COMMAND_USER_ADD, "root", NULL, NULL), 0);
    cr_assert_eq(do_(w, COMMAND_AUTH_ENABLE, NULL, NULL, NULL), E_ROOT_ROLE_NOT_EXIST);
    cr_assert_eq(do_(w, COMMAND_USER_GRANT_ROLE, "root", "root", NULL), 0, "without a role object of that name");
    cr_assert_eq(rev(w), 3);
    cr_assert_eq(do_(w, COMMAND_AUTH_ENABLE, NULL, NULL, NULL), 0);
    cr_assert(w->s.auth->enabled);
    cr_assert_eq(do_(w, COMMAND_AUTH_ENABLE, NULL, NULL, NULL), 0, "again");
    cr_assert_eq(rev(w), 3);
    world_free(w);
}

Test(auth, disable_counts_and_drops_the_tokens)
{
    struct world *w = world_new();
    struct frame f;

    cr_assert_eq(do_(w, COMMAND_AUTH_DISABLE, NULL, NULL, NULL), 0);
    cr_assert_eq(rev(w), 1, "it was off");
    auth_on(w);
    must_do(w, NOBODY, COMMAND_AUTHENTICATE, "root", "abcdefghijklmnop", NULL, NULL);
    cr_assert_eq(w->s.auth->token_count, 1);
    cr_assert_eq(do_(w, COMMAND_AUTH_DISABLE, NULL, NULL, NULL), 0);
    cr_assert_eq(rev(w), 4);
    cr_assert_eq(w->s.auth->token_count, 0);
    world_restart(w);
    cr_assert_eq(rev(w), 4);
    cr_assert_not(w->s.auth->enabled);
    cr_assert_eq(w->s.auth->token_count, 0);
    cr_assert_eq(as_strings(w, NOBODY, COMMAND_AUTHENTICATE, "root", "abcdefghijklmnop", NULL, NULL, &f), E_AUTH_NOT_ENABLED);
    world_free(w);
}

/* --- users --------------------------------------------------------------------------------------------------------- */

Test(auth, user_add)
{
    struct world *w = world_new();
    struct buf body = BUF_INIT;
    struct frame f;

    cr_assert_eq(do_(w, COMMAND_USER_ADD, "", NULL, NULL), E_USER_EMPTY);
    cr_assert_eq(do_(w, COMMAND_USER_ADD, "anna", NULL, NULL), 0);
    cr_assert_eq(do_(w, COMMAND_USER_ADD, "anna", NULL, NULL), E_USER_ALREADY_EXIST);
    cr_assert_eq(as_strings(w, NOBODY, COMMAND_USER_ADD, "anna", NULL, NULL, "not base64!", &f), E_USER_ALREADY_EXIST,
                 "before its hash is looked at");
    cr_assert_eq(as_strings(w, NOBODY, COMMAND_USER_ADD, "berta", NULL, NULL, "not base64!", &f), E_NO_PASSWORD_USER);
    cr_assert_eq(do_(w, COMMAND_USER_GET, "berta", NULL, NULL), E_USER_NOT_FOUND);
    cr_assert_eq(rev(w), 2);

    /* With no_password nobody looks at a hash. */
    pb_add_bytes(&body, 1, slice_str("carla"));
    pb_add_message(&body, 3, SLICE_LIT("\x08\x01"));
    pb_add_bytes(&body, 4, slice_str("not base64!"));
    cr_assert_eq(as(w, NOBODY, COMMAND_USER_ADD, buf_slice(&body), &f), 0);
    cr_assert(auth_user(w->s.auth, slice_str("carla"))->no_password);
    cr_assert_eq(auth_user(w->s.auth, slice_str("carla"))->password.len, 0);
    buf_fini(&body);
    world_free(w);
}

Test(auth, user_get_and_lists_are_sorted)
{
    struct world *w = world_new();
    struct frame f;

    for (const char *const *n = (const char *const[]){"mia", "anna", "Zoe", "mi", NULL}; *n; n++)
        cr_assert_eq(do_(w, COMMAND_USER_ADD, *n, NULL, NULL), 0);
    for (const char *const *n = (const char *const[]){"r2", "r1", "r10", NULL}; *n; n++) {
        cr_assert_eq(do_(w, COMMAND_ROLE_ADD, *n, NULL, NULL), 0);
        cr_assert_eq(do_(w, COMMAND_USER_GRANT_ROLE, "mia", *n, NULL), 0);
    }
    cr_assert_eq(as_strings(w, NOBODY, COMMAND_USER_LIST, NULL, NULL, NULL, NULL, &f), 0);
    cr_assert_str_eq(texts(f.result.body, 2), "Zoe anna mi mia");
    cr_assert_eq(as_strings(w, NOBODY, COMMAND_ROLE_LIST, NULL, NULL, NULL, NULL, &f), 0);
    cr_assert_str_eq(texts(f.result.body, 2), "r1 r10 r2");
    cr_assert_eq(as_strings(w, NOBODY, COMMAND_USER_GET, "mia", NULL, NULL, NULL, &f), 0);
    cr_assert_str_eq(texts(f.result.body, 2), "r1 r10 r2");
    cr_assert_eq(as_strings(w, NOBODY, COMMAND_USER_GET, "nora", NULL, NULL, NULL, &f), E_USER_NOT_FOUND);
    world_free(w);
}

Test(auth, user_delete)
{
    struct world *w = world_new();

    auth_on(w);
    cr_assert_eq(do_(w, COMMAND_USER_DELETE, "root", NULL, NULL), E_INVALID_AUTH_MGMT);
    cr_assert_eq(do_(w, COMMAND_USER_DELETE, "anna", NULL, NULL), E_USER_NOT_FOUND);
    user_with_role(w, "root", "anna");
    must_do(w, NOBODY, COMMAND_AUTHENTICATE, "anna", "abcdefghijklmnop", NULL, NULL);
    uint64_t before = rev(w);
    cr_assert_eq(do_(w, COMMAND_USER_DELETE, "anna", NULL, NULL), 0);
    cr_assert_eq(rev(w), before + 1);
    cr_assert_eq(w->s.auth->token_count, 0);
    cr_assert_eq(do_(w, COMMAND_AUTH_DISABLE, NULL, NULL, NULL), 0);
    cr_assert_eq(do_(w, COMMAND_USER_DELETE, "root", NULL, NULL), 0, "while auth is off");
    world_restart(w);
    cr_assert_eq(HASH_COUNT(w->s.auth->users), 0);
    world_free(w);
}

Test(auth, user_change_password)
{
    struct world *w = world_new();
    struct buf body = BUF_INIT;
    struct frame f;

    auth_on(w);
    cr_assert_eq(do_(w, COMMAND_USER_CHANGE_PASSWORD, "anna", NULL, "eHg="), E_USER_NOT_FOUND);
    must_do(w, "root", COMMAND_USER_ADD, "anna", NULL, NULL, "YWJj");
    must_do(w, NOBODY, COMMAND_AUTHENTICATE, "anna", "abcdefghijklmnop", NULL, NULL);
    cr_assert_eq(do_(w, COMMAND_USER_CHANGE_PASSWORD, "anna", NULL, "?"), E_NO_PASSWORD_USER);
    cr_assert_eq(w->s.auth->token_count, 1);
    cr_assert_eq(do_(w, COMMAND_USER_CHANGE_PASSWORD, "anna", NULL, "eHg="), 0);
    cr_assert_eq(w->s.auth->token_count, 0, "its tokens are gone");
    cr_assert(slice_eq(buf_slice(&auth_user(w->s.auth, slice_str("anna"))->password), SLICE_LIT("xx")));

    pb_add_bytes(&body, 1, slice_str("carla"));
    pb_add_message(&body, 3, SLICE_LIT("\x08\x01"));
    cr_assert_eq(as(w, "root", COMMAND_USER_ADD, buf_slice(&body), &f), 0);
    cr_assert_eq(do_(w, COMMAND_USER_CHANGE_PASSWORD, "carla", NULL, "eHg="), 0);
    cr_assert_eq(auth_user(w->s.auth, slice_str("carla"))->password.len, 0, "it stays without one");
    buf_fini(&body);
    world_free(w);
}

Test(auth, user_grant_and_revoke_role)
{
    struct world *w = world_new();

    auth_on(w);
    cr_assert_eq(do_(w, COMMAND_USER_GRANT_ROLE, "anna", "nothing", NULL), E_USER_NOT_FOUND);
    must_do(w, "root", COMMAND_USER_ADD, "anna", NULL, NULL, NULL);
    cr_assert_eq(do_(w, COMMAND_USER_GRANT_ROLE, "anna", "nothing", NULL), E_ROLE_NOT_FOUND);
    must_do(w, "root", COMMAND_ROLE_ADD, "reader", NULL, NULL, NULL);
    uint64_t before = rev(w);
    cr_assert_eq(do_(w, COMMAND_USER_GRANT_ROLE, "anna", "reader", NULL), 0);
    cr_assert_eq(do_(w, COMMAND_USER_GRANT_ROLE, "anna", "reader", NULL), 0, "twice is fine");
    cr_assert_eq(rev(w), before + 1, "and counts once");

    cr_assert_eq(do_(w, COMMAND_USER_REVOKE_ROLE, "root", "root", NULL), E_INVALID_AUTH_MGMT);
    cr_assert_eq(do_(w, COMMAND_USER_REVOKE_ROLE, "nora", "reader", NULL), E_USER_NOT_FOUND);
    cr_assert_eq(do_(w, COMMAND_USER_REVOKE_ROLE, "anna", "root", NULL), E_ROLE_NOT_GRANTED);
    cr_assert_eq(do_(w, COMMAND_USER_REVOKE_ROLE, "anna", "reader", NULL), 0);
    cr_assert_eq(do_(w, COMMAND_USER_REVOKE_ROLE, "anna", "reader", NULL), E_ROLE_NOT_GRANTED);
    cr_assert_eq(rev(w), before + 2);
    world_free(w);
}

/* --- roles --------------------------------------------------------------------------------------------------------- */

Test(auth, role_add_and_delete)
{
    struct world *w = world_new();
    struct frame f;

    cr_assert_eq(do_(w, COMMAND_ROLE_ADD, "", NULL, NULL), E_ROLE_EMPTY);
    cr_assert_eq(do_(w, COMMAND_ROLE_ADD, "r", NULL, NULL), 0);
    cr_assert_eq(do_(w, COMMAND_ROLE_ADD, "r", NULL, NULL), E_ROLE_ALREADY_EXIST);
    cr_assert_eq(do_(w, COMMAND_ROLE_ADD, "root", NULL, NULL), 0);
    auth_on(w);
    cr_assert_eq(do_(w, COMMAND_ROLE_DELETE, "root", NULL, NULL), E_INVALID_AUTH_MGMT);
    cr_assert_eq(do_(w, COMMAND_ROLE_DELETE, "nothing", NULL, NULL), E_ROLE_NOT_FOUND);
    must_do(w, "root", COMMAND_USER_ADD, "anna", NULL, NULL, NULL);
    must_do(w, "root", COMMAND_USER_GRANT_ROLE, "anna", "r", NULL, NULL);
    uint64_t before = rev(w);
    cr_assert_eq(do_(w, COMMAND_ROLE_DELETE, "r", NULL, NULL), 0);
    cr_assert_eq(rev(w), before + 1);
    world_restart(w);
    cr_assert_eq(as_strings(w, "root", COMMAND_USER_GET, "anna", NULL, NULL, NULL, &f), 0);
    cr_assert_str_eq(texts(f.result.body, 2), "", "it was stripped from its users");
    cr_assert_eq(do_(w, COMMAND_ROLE_GET, "r", NULL, NULL), E_ROLE_NOT_FOUND);
    world_free(w);
}

static const char *perms_of(struct world *w, const char *role)
{
    static char text[512];
    struct slice perm;
    struct frame f;
    size_t at = 0;

    text[0] = '\0';
    cr_assert_eq(as_strings(w, NOBODY, COMMAND_ROLE_GET, role, NULL, NULL, NULL, &f), 0);
    for (unsigned i = 0; (perm = world_bytes(f.result.body, 2, i)).len; i++) {
        struct slice key = world_bytes(perm, 2, 0), end = world_bytes(perm, 3, 0);

        at += (size_t)snprintf(text + at, sizeof text - at, "%s%d:%.*s-%.*s", at ? " " : "", (int)world_int(perm, 1, 0, 0),
                               (int)key.len, (const char *)key.data, (int)end.len,
                               end.len == 1 && !end.data[0] ? "*" : (const char *)end.data);
    }
    return text;
}

Test(auth, role_grant_and_revoke_permission)
{
    struct world *w = world_new();

    cr_assert_eq(do_(w, COMMAND_ROLE_GRANT, "nothing", NULL, NULL), E_PERMISSION_NOT_GIVEN);
    cr_assert_eq(grant(w, NOBODY, "nothing", PERM_READ, SLICE_EMPTY, SLICE_EMPTY), E_INVALID_AUTH_MGMT);
    cr_assert_eq(grant(w, NOBODY, "nothing", PERM_READ, SLICE_LIT("b"), SLICE_LIT("a")), E_INVALID_AUTH_MGMT);
    cr_assert_eq(grant(w, NOBODY, "nothing", PERM_READ, SLICE_LIT("b"), SLICE_LIT("b")), E_INVALID_AUTH_MGMT);
    cr_assert_eq(grant(w, NOBODY, "nothing", PERM_READ, SLICE_LIT("b"), SLICE_EMPTY), E_ROLE_NOT_FOUND);
    must_do(w, NOBODY, COMMAND_ROLE_ADD, "r", NULL, NULL, NULL);
    uint64_t before = rev(w);
    cr_assert_eq(grant(w, NOBODY, "r", PERM_READ, SLICE_LIT("m"), SLICE_EMPTY), 0);
    cr_assert_eq(grant(w, NOBODY, "r", PERM_WRITE, SLICE_LIT("b"), SLICE_LIT("\0")), 0);
    cr_assert_eq(grant(w, NOBODY, "r", PERM_READWRITE, SLICE_LIT("c"), SLICE_LIT("e")), 0);
    cr_assert_str_eq(perms_of(w, "r"), "1:b-* 2:c-e 0:m-", "sorted by key");
    cr_assert_eq(grant(w, NOBODY, "r", PERM_WRITE, SLICE_LIT("m"), SLICE_EMPTY), 0);
    cr_assert_eq(grant(w, NOBODY, "r", PERM_READ, SLICE_LIT("m"), SLICE_LIT("n")), 0);
    cr_assert_str_eq(perms_of(w, "r"), "1:b-* 2:c-e 1:m- 0:m-n", "the same interval once");
    cr_assert_eq(rev(w), before + 5);
    world_restart(w);
    cr_assert_str_eq(perms_of(w, "r"), "1:b-* 2:c-e 1:m- 0:m-n");

    cr_assert_eq(do_(w, COMMAND_ROLE_REVOKE, "nothing", "m", NULL), E_ROLE_NOT_FOUND);
    cr_assert_eq(do_(w, COMMAND_ROLE_REVOKE, "r", "c", NULL), E_PERMISSION_NOT_GRANTED, "another range_end");
    cr_assert_eq(do_(w, COMMAND_ROLE_REVOKE, "r", "c", "e"), 0);
    cr_assert_eq(do_(w, COMMAND_ROLE_REVOKE, "r", "m", NULL), 0);
    cr_assert_str_eq(perms_of(w, "r"), "1:b-* 0:m-n");
    cr_assert_eq(do_(w, COMMAND_ROLE_REVOKE, "r", "m", NULL), E_PERMISSION_NOT_GRANTED);
    cr_assert_eq(do_(w, COMMAND_ROLE_GET, "nothing", NULL, NULL), E_ROLE_NOT_FOUND);
    world_free(w);
}

Test(auth, role_root_shows_everything)
{
    struct world *w = world_new();

    cr_assert_eq(do_(w, COMMAND_ROLE_GET, "root", NULL, NULL), E_ROLE_NOT_FOUND);
    must_do(w, NOBODY, COMMAND_ROLE_ADD, "root", NULL, NULL, NULL);
    cr_assert_str_eq(perms_of(w, "root"), "2:-*");
    world_free(w);
}

/* --- tokens ---------------------------------------------------------------------------------------------------------- */

static int whose(struct world *w, const char *token, struct frame *f)
{
    struct buf body = BUF_INIT;
    int err;

    pb_add_bytes(&body, 2, slice_str(token));
    err = read_at(w, NOBODY, 0, COMMAND_TOKEN, buf_slice(&body), f);
    buf_fini(&body);
    return err;
}

static const char *login(struct world *w, const char *user, const char *letters)
{
    static char token[64];
    struct frame f;
    struct slice text;

    cr_assert_eq(as_strings(w, NOBODY, COMMAND_AUTHENTICATE, user, letters, NULL, NULL, &f), 0);
    text = world_bytes(f.result.body, 2, 0);
    snprintf(token, sizeof token, "%.*s", (int)text.len, (const char *)text.data);
    return token;
}

Test(auth, a_token_is_letters_and_the_index_of_its_entry)
{
    struct world *w = world_new();
    char want[64];
    struct frame f;

    auth_on(w);
    cr_assert_eq(as_strings(w, NOBODY, COMMAND_AUTHENTICATE, "anna", "abcdefghijklmnop", NULL, NULL, &f), E_AUTH_FAILED);
    cr_assert_eq(as_strings(w, NOBODY, COMMAND_AUTHENTICATE, "root", "abc", NULL, NULL, &f), E_INVALID);
    cr_assert_eq(as_strings(w, NOBODY, COMMAND_AUTHENTICATE, "root", "abcdefghijklmno.", NULL, NULL, &f), E_INVALID);
    const char *token = login(w, "root", "abcdefghijklmnop");
    snprintf(want, sizeof want, "abcdefghijklmnop.%llu", (unsigned long long)w->index);
    cr_assert_str_eq(token, want);
    uint64_t before = rev(w);
    cr_assert_eq(whose(w, want, &f), 0);
    cr_assert(slice_eq(world_bytes(f.result.body, 1, 0), SLICE_LIT("root")));
    cr_assert_eq(world_int(f.result.body, 2, 0, 0), (int64_t)before);
    cr_assert_eq(whose(w, "abcdefghijklmnop", &f), E_INVALID_AUTH_TOKEN);
    cr_assert_eq(whose(w, "", &f), E_INVALID_AUTH_TOKEN);
    world_free(w);
}

Test(auth, a_token_is_not_made_from_a_password_of_before)
{
    struct world *w = world_new();
    struct buf body = strings("root", "abcdefghijklmnop", NULL, NULL);
    struct frame f;

    auth_on(w);
    cr_assert_eq(apply_at(w, NOBODY, rev(w) - 1, COMMAND_AUTHENTICATE, buf_slice(&body), &f), E_AUTH_OLD_REVISION);
    cr_assert_eq(apply_at(w, NOBODY, 0, COMMAND_AUTHENTICATE, buf_slice(&body), &f), E_AUTH_OLD_REVISION);
    cr_assert_eq(w->s.auth->token_count, 0);
    cr_assert_eq(apply_at(w, NOBODY, rev(w), COMMAND_AUTHENTICATE, buf_slice(&body), &f), 0);
    buf_fini(&body);
    world_free(w);
}

Test(auth, a_token_lives_for_a_while_after_its_last_use)
{
    struct world *w = world_new();
    char token[64];
    struct frame f;

    w->conf.auth_token_ttl = 300;
    auth_on(w);
    snprintf(token, sizeof token, "%s", login(w, "root", "abcdefghijklmnop"));
    for (int i = 0; i < 3; i++) {
        fake_advance(w->loop, 299 * 1000);
        cr_assert_eq(whose(w, token, &f), 0, "used again and again");
    }
    fake_advance(w->loop, 301 * 1000);
    cr_assert_eq(whose(w, token, &f), E_INVALID_AUTH_TOKEN);
    cr_assert_eq(whose(w, token, &f), E_INVALID_AUTH_TOKEN, "asking does not bring it back");
    cr_assert_eq(w->s.auth->token_count, 1, "what is in the store is decided by all");
    world_free(w);
}

Test(auth, tokens_survive_a_restart)
{
    struct world *w = world_new();
    char token[64];
    struct frame f;

    w->conf.auth_token_ttl = 300;
    auth_on(w);
    snprintf(token, sizeof token, "%s", login(w, "root", "abcdefghijklmnop"));
    login(w, "root", "ABCDEFGHIJKLMNOP");
    world_restart(w);
    cr_assert_eq(whose(w, token, &f), 0);
    cr_assert_eq(w->s.auth->token_count, 2);
    cr_assert_eq(TAILQ_FIRST(&w->s.auth->token_order)->text[0], 'a', "in order of their entries");
    fake_advance(w->loop, 301 * 1000);
    cr_assert_eq(whose(w, token, &f), E_INVALID_AUTH_TOKEN);
    world_free(w);
}

Test(auth, the_oldest_token_of_a_user_makes_room)
{
    struct world *w = world_new();
    struct frame f;
    char first[64];

    auth_on(w);
    snprintf(first, sizeof first, "%s", login(w, "root", "abcdefghijklmnop"));
    for (size_t i = 1; i < TOKENS_PER_USER_MAX; i++)
        must_do(w, NOBODY, COMMAND_AUTHENTICATE, "root", "abcdefghijklmnop", NULL, NULL);
    cr_assert_eq(whose(w, first, &f), 0);
    login(w, "root", "abcdefghijklmnop");
    cr_assert_eq(w->s.auth->token_count, TOKENS_PER_USER_MAX);
    cr_assert_eq(whose(w, first, &f), E_INVALID_AUTH_TOKEN);
    world_restart(w);
    cr_assert_eq(w->s.auth->token_count, TOKENS_PER_USER_MAX);
    world_free(w);
}

/* --- passwords ---------------------------------------------------------------------------------------------------------- */

static void user_with_password(struct world *w, const char *name, const char *password)
{
    char text[crypto_pwhash_STRBYTES];

    cr_assert_eq(crypto_pwhash_str_alg(text, password, strlen(password), 1, 8192, crypto_pwhash_ALG_ARGON2ID13), 0);
    must_do(w, w->s.auth->enabled ? "root" : NOBODY, COMMAND_USER_ADD, name, NULL, NULL, text);
}

static int check(struct world *w, const char *name, const char *password, struct frame *f)
{
    return as_strings(w, NOBODY, COMMAND_PASSWORD, name, password, NULL, NULL, f);
}

Test(auth, passwords)
{
    struct world *w = world_new();
    struct buf body = BUF_INIT;
    struct frame f;

    user_with_password(w, "anna", "secret");
    user_with_password(w, "emil", "");
    pb_add_bytes(&body, 1, slice_str("carla"));
    pb_add_message(&body, 3, SLICE_LIT("\x08\x01"));
    cr_assert_eq(as(w, NOBODY, COMMAND_USER_ADD, buf_slice(&body), &f), 0);
    must_do(w, NOBODY, COMMAND_USER_ADD, "otto", NULL, NULL, NULL);
    cr_assert_eq(check(w, "anna", "secret", &f), E_AUTH_NOT_ENABLED);
    auth_on(w);

    cr_assert_eq(check(w, "anna", "secret", &f), 0);
    cr_assert_eq(world_int(f.result.body, 2, 0, 0), 1);
    cr_assert_eq((uint64_t)world_int(f.result.body, 3, 0, 0), rev(w));
    cr_assert_eq(check(w, "anna", "Secret", &f), E_AUTH_FAILED);
    cr_assert_eq(check(w, "anna", "", &f), E_AUTH_FAILED);
    cr_assert_eq(check(w, "nora", "secret", &f), E_AUTH_FAILED);
    cr_assert_eq(check(w, "", "", &f), E_AUTH_FAILED);
    cr_assert_eq(check(w, "otto", "", &f), E_AUTH_FAILED, "a user without a hash");
    cr_assert_eq(check(w, "emil", "", &f), 0, "an empty password is one");
    cr_assert_eq(check(w, "carla", "", &f), E_NO_PASSWORD_USER);
    cr_assert_str_eq(err_text(E_NO_PASSWORD_USER), "auth: authentication failed, password was given for no password user");
    cr_assert_eq(err_grpc_status(E_NO_PASSWORD_USER), 2);
    buf_fini(&body);
    world_free(w);
}

/* Sends without waiting; returns the request. */
static uint64_t ask(struct world *w, const char *name, const char *password)
{
    struct buf body = strings(name, password, NULL, NULL);
    uint64_t req = world_query(w, COMMAND_PASSWORD, buf_slice(&body), w->index);

    buf_fini(&body);
    return req;
}

Test(auth, checks_run_two_at_a_time_and_a_crowd_is_sent_away)
{
    struct world *w = world_new();
    uint64_t last;
    struct frame f;

    user_with_password(w, "anna", "secret");
    auth_on(w);
    fake_settle(w->loop);
    for (int i = 0; i < PASSWORD_PARALLEL + PASSWORD_QUEUE_MAX; i++)
        last = ask(w, "anna", i % 2 ? "secret" : "wrong");
    cr_assert_eq(loop_work_pending(w->loop), PASSWORD_PARALLEL);
    cr_assert_eq(world_result(w, ask(w, "anna", "secret"), &f), E_REQUEST_TOO_MANY_REQUESTS);
    for (int i = 0; i < PASSWORD_PARALLEL + PASSWORD_QUEUE_MAX; i++) {
        cr_assert(loop_work_pending(w->loop) <= PASSWORD_PARALLEL);
        cr_assert(fake_job_run(w->loop));
        cr_assert(fake_take_type(w->gate, FR_RESULT, &f));
        cr_assert_eq(f.result.err == 0, i % 2, "in order, each its own answer");
    }
    cr_assert_eq(f.result.req, last);
    cr_assert_eq(loop_work_pending(w->loop), 0);
    world_free(w);
}

Test(auth, the_answer_tells_the_revision_of_the_hash_that_was_compared)
{
    struct world *w = world_new();
    struct frame f;
    uint64_t req, before;

    user_with_password(w, "anna", "secret");
    auth_on(w);
    before = rev(w);
    req = ask(w, "anna", "secret");
    must_do(w, "root", COMMAND_USER_CHANGE_PASSWORD, "anna", NULL, "eHg=", NULL);
    fake_settle(w->loop);
    cr_assert_eq(world_result(w, req, &f), 0);
    cr_assert_eq((uint64_t)world_int(f.result.body, 3, 0, 0), before);
    world_free(w);
}

Test(auth, a_gateway_that_left_gets_no_answer_and_nothing_leaks)
{
    struct world *w = world_new();
    struct frame f;

    user_with_password(w, "anna", "secret");
    auth_on(w);
    for (int i = 0; i < 5; i++)
        ask(w, "anna", "secret");
    fake_down(w->gate);
    fake_up(w->gate, FAKE_INSTANCE);
    fake_settle(w->loop);
    while (fake_take_type(w->gate, FR_RESULT, &f))
        cr_assert_neq(f.result.req, w->req);
    world_free(w);
}

/* --- gateways are told ------------------------------------------------------------------------------------------------ */

Test(auth, gateways_hear_of_every_change_before_its_result)
{
    struct world *w = world_new();
    struct frame f;

    cr_assert(fake_take_type(w->gate, FR_AUTH, &f), "at up");
    cr_assert_eq(f.auth.enabled, 0);
    cr_assert_eq(f.auth.auth_rev, 1);
    fake_drop_all(w->gate);
    world_put(w, "a", "1");
    cr_assert_not(fake_take_type(w->gate, FR_AUTH, &f));

    struct buf body = strings("root", NULL, NULL, NULL);
    world_apply(w, COMMAND_USER_ADD, buf_slice(&body));
    buf_fini(&body);
    cr_assert(fake_take(w->gate, &f) && f.type == FR_AUTH);
    cr_assert_eq(f.auth.auth_rev, 2);
    cr_assert(fake_take(w->gate, &f) && f.type == FR_RESULT);
    must_do(w, NOBODY, COMMAND_USER_GRANT_ROLE, "root", "root", NULL, NULL);
    fake_drop_all(w->gate);
    world_apply(w, COMMAND_AUTH_ENABLE, SLICE_EMPTY);
    cr_assert(fake_take(w->gate, &f) && f.type == FR_AUTH);
    cr_assert_eq(f.auth.enabled, 1);
    cr_assert_eq(f.auth.auth_rev, 3);
    world_restart(w);
    cr_assert(fake_take_type(w->gate, FR_AUTH, &f));
    cr_assert_eq(f.auth.enabled, 1);
    world_free(w);
}

/* --- what members compare, and what is damaged ---------------------------------------------------------------------------- */

Test(auth, the_same_commands_give_the_same_hash_and_others_another)
{
    struct world *a = world_new(), *b = world_new();
    struct world *const both[] = {a, b};

    for (int i = 0; i < 2; i++) {
        struct world *w = both[i];

        for (char name[] = "u0"; name[1] < '5'; name[1]++)
            must_do(w, NOBODY, COMMAND_USER_ADD, name, NULL, NULL, NULL);
        must_do(w, NOBODY, COMMAND_ROLE_ADD, "r", NULL, NULL, NULL);
        /* One of them has its table from the store, the other one as it grew. */
        if (i == 1)
            world_restart(w);
        for (char name[] = "u4"; name[1] >= '0'; name[1]--)
            must_do(w, NOBODY, COMMAND_USER_GRANT_ROLE, name, "r", NULL, NULL);
        must_do(w, NOBODY, COMMAND_ROLE_DELETE, "r", NULL, NULL, NULL);
    }
    cr_assert_eq(chain(a), chain(b));
    must_do(a, NOBODY, COMMAND_ROLE_ADD, "r", NULL, NULL, NULL);
    must_do(b, NOBODY, COMMAND_ROLE_ADD, "R", NULL, NULL, NULL);
    cr_assert_neq(chain(a), chain(b));
    world_free(a);
    world_free(b);
}

Test(auth, bodies_that_are_no_protobuf_are_refused_and_change_nothing)
{
    struct world *w = world_new();
    struct frame f;

    for (uint64_t kind = COMMAND_AUTH_ENABLE; kind <= COMMAND_AUTHORIZE; kind++) {
        uint64_t gen = w->s.auth->gen;

        cr_assert_eq(as(w, NOBODY, (enum command_kind)kind, SLICE_LIT("\x0a\x7f" "abc"), &f), E_MALFORMED, "%s",
                     command_name(kind));
        cr_assert_eq(w->s.auth->gen, gen);
    }
    world_free(w);
}
