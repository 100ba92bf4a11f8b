/* identity - from a token or a certificate to a user, before a message reaches its handler; and the Auth service's handlers. stored
 * is played by the test: what it is asked lies in the table of pending requests, and is answered with retry_answer. */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "tests/gatewayd/rig.h"

#include "gatewayd/jwt.h"
#include "proto/pb.h"

/* --- stored ---------------------------------------------------------------------------------------------------- */

static void auth_is(struct rig *r, bool enabled, uint64_t rev)
{
    identity_on_auth(&r->g, &(struct fr_auth){.enabled = enabled, .auth_rev = rev});
}

/* The only question that waits. */
static struct pending *question(struct rig *r, struct command *c)
{
    cr_assert_eq(r->g.pending.count, 1);
    struct pending *p = r->g.pending.first;
    cr_assert_eq(command_decode(buf_slice(&p->command), c), OK);
    return p;
}

static struct pending *expect_question(struct rig *r, enum pending_via via, enum command_kind kind)
{
    struct command c;
    struct pending *p = question(r, &c);
    cr_assert_eq(p->via, via);
    cr_assert_eq(c.kind, kind, "%s", command_name(c.kind));
    return p;
}

static void answer_with(struct rig *r, int err, struct slice body)
{
    uint64_t wire = r->g.pending.first->wire;
    retry_answer(&r->g, &(struct fr_result){.req = wire, .err = (uint64_t)-err, .total = body.len, .body = body});
    rig_pump(r);
}

static void answer_user(struct rig *r, const char *name, uint64_t rev)
{
    struct buf body = BUF_INIT;
    pb_add_bytes(&body, 1, slice_str(name));
    pb_add_uint(&body, 2, rev);
    answer_with(r, OK, buf_slice(&body));
    buf_fini(&body);
}

/* --- the client ------------------------------------------------------------------------------------------------- */

static struct rig_call *call_with(struct rig *r, const char *path, const char *name, const char *value)
{
    struct rig_call *c = rig_start(r, path, name, value);
    rig_message(c, "x", 1);
    c->end = true;
    rig_pump(r);
    return c;
}

static struct rig_call *with_token(struct rig *r, const char *token) { return call_with(r, "/t.T/Hold", "token", token); }

static bool is_user(const char *name, uint64_t rev)
{
    const struct identity *who = call_identity(seen.call);
    return slice_eq(who->user, slice_str(name)) && who->auth_rev == rev;
}

/* --- tokens --------------------------------------------------------------------------------------------------------- */

Test(identity, while_auth_is_off_nobody_is_anybody)
{
    struct rig *r = rig_new();
    with_token(r, "abc.7");
    cr_expect_eq(seen.messages, 1);
    cr_expect(is_user("", 0));
    cr_expect_eq(r->g.pending.count, 0);
    rig_free(r);
}

Test(identity, a_token_is_asked_for_once_and_remembered)
{
    struct rig *r = rig_new();
    auth_is(r, true, 5);
    with_token(r, "abc.7");
    with_token(r, "abc.7");
    cr_expect_eq(seen.messages, 0);
    expect_question(r, VIA_QUERY, COMMAND_TOKEN);
    answer_user(r, "alice", 5);
    cr_expect_eq(seen.messages, 2);
    cr_expect(is_user("alice", 5));
    with_token(r, "abc.7");
    cr_expect_eq(seen.messages, 3);
    cr_expect_eq(r->g.pending.count, 0);
    /* Whatever changes in auth may have taken it away. */
    auth_is(r, true, 6);
    with_token(r, "abc.7");
    cr_expect_eq(seen.messages, 3);
    expect_question(r, VIA_QUERY, COMMAND_TOKEN);
    answer_user(r, "alice", 6);
    cr_expect(is_user("alice", 6));
    rig_free(r);
}

Test(identity, an_unknown_token_is_looked_for_in_what_is_agreed_on_and_then_refused)
{
    struct rig *r = rig_new();
    auth_is(r, true, 5);
    struct rig_call *c = with_token(r, "new.9");
    expect_question(r, VIA_QUERY, COMMAND_TOKEN);
    answer_with(r, E_INVALID_AUTH_TOKEN, SLICE_EMPTY);
    expect_question(r, VIA_READ, COMMAND_TOKEN);
    answer_user(r, "bob", 5);
    cr_expect(is_user("bob", 5));
    c = with_token(r, "bad.9");
    answer_with(r, E_INVALID_AUTH_TOKEN, SLICE_EMPTY);
    cr_expect_eq(c->grpc_status, -1);
    answer_with(r, E_INVALID_AUTH_TOKEN, SLICE_EMPTY);
    cr_expect_eq(c->grpc_status, 16);
    cr_expect_str_eq(c->message, "etcdserver: invalid auth token");
    c = with_token(r, "bad.9");
    cr_expect_eq(c->grpc_status, 16, "remembered, too");
    c = with_token(r, "");
    cr_expect_eq(c->grpc_status, 16);
    cr_expect_eq(seen.messages, 1);
    rig_free(r);
}

Test(identity, other_errors_are_told_and_not_remembered)
{
    struct rig *r = rig_new();
    auth_is(r, true, 5);
    struct rig_call *c = with_token(r, "abc.7");
    answer_with(r, E_TIMEOUT, SLICE_EMPTY);
    cr_expect_eq(c->grpc_status, 14);
    with_token(r, "abc.7");
    answer_user(r, "alice", 5);
    cr_expect(is_user("alice", 5));
    rig_free(r);
}

Test(identity, without_a_token_the_call_is_nobodys)
{
    struct rig *r = rig_new();
    auth_is(r, true, 5);
    call_with(r, "/t.T/Hold", "x-other", "y");
    cr_expect_eq(seen.messages, 1);
    cr_expect(is_user("", 0));
    rig_free(r);
}

Test(identity, a_call_that_ends_while_it_waits_is_left_out)
{
    struct rig *r = rig_new();
    auth_is(r, true, 5);
    struct rig_call *a = with_token(r, "abc.7");
    with_token(r, "abc.7");
    nghttp2_submit_rst_stream(r->client, NGHTTP2_FLAG_NONE, a->id, NGHTTP2_CANCEL);
    rig_pump(r);
    answer_user(r, "alice", 5);
    cr_expect_eq(seen.messages, 1);
    rig_free(r);
}

Test(identity, auth_that_goes_off_meanwhile_lets_them_through)
{
    struct rig *r = rig_new();
    auth_is(r, true, 5);
    with_token(r, "abc.7");
    auth_is(r, false, 6);
    answer_with(r, E_AUTH_NOT_ENABLED, SLICE_EMPTY);
    cr_expect_eq(seen.messages, 1);
    cr_expect(is_user("", 0));
    rig_free(r);
}

/* A gateway that has not heard of stored yet. */
Test(identity, all_wait_until_it_is_known_whether_auth_is_on)
{
    struct rig *r = rig_new();
    identity_stop(&r->g);
    identity_start(&r->g);
    with_token(r, "abc.7");
    call_with(r, "/t.T/Hold", "x-other", "y");
    cr_expect_eq(seen.messages, 0, "nobody waits, too: a watch would be let in");
    expect_question(r, VIA_QUERY, COMMAND_AUTH_STATUS);
    auth_is(r, true, 5);
    answer_with(r, OK, SLICE_EMPTY);
    cr_expect_eq(seen.messages, 1);
    cr_expect(is_user("", 0));
    expect_question(r, VIA_QUERY, COMMAND_TOKEN);
    answer_user(r, "alice", 5);
    cr_expect(is_user("alice", 5));
    rig_free(r);
}

Test(identity, messages_of_a_stream_keep_their_order_while_the_first_waits)
{
    struct rig *r = rig_new();
    auth_is(r, true, 5);
    struct rig_call *c = rig_start(r, "/t.T/Stream", "token", "abc.7");
    rig_message(c, "one", 3);
    rig_message(c, "", 0);
    rig_message(c, "three", 5);
    c->end = true;
    rig_pump(r);
    cr_expect_eq(seen.messages, 0);
    cr_expect_eq(seen.half_closes, 0);
    answer_user(r, "alice", 5);
    cr_expect_eq(seen.messages, 3);
    cr_expect_eq(seen.half_closes, 1);
    cr_assert_eq(c->body.len, 5 + 3 + 5 + 5 + 5);
    cr_expect(memcmp(c->body.data + 5, "one", 3) == 0);
    cr_expect(memcmp(c->body.data + 18, "three", 5) == 0);
    rig_free(r);
}

Test(identity, each_message_of_a_stream_is_of_whom_the_token_is_then)
{
    struct rig *r = rig_new();
    auth_is(r, true, 5);
    struct rig_call *c = rig_start(r, "/t.T/Stream", "token", "abc.7");
    rig_message(c, "one", 3);
    rig_pump(r);
    answer_user(r, "alice", 5);
    cr_expect(is_user("alice", 5));
    auth_is(r, true, 6);
    rig_message(c, "two", 3);
    rig_resume(r, c);
    cr_expect_eq(seen.messages, 1);
    answer_with(r, E_INVALID_AUTH_TOKEN, SLICE_EMPTY);
    answer_with(r, E_INVALID_AUTH_TOKEN, SLICE_EMPTY);
    cr_expect_eq(c->grpc_status, 16);
    cr_expect_eq(seen.messages, 1);
    rig_free(r);
}

Test(identity, tokens_that_are_asked_about_and_remembered_are_bounded)
{
    struct rig *r = rig_new();
    auth_is(r, true, 5);
    char token[32];
    for (int i = 0; i < LOGINS_ASKED_MAX; i++) {
        snprintf(token, sizeof(token), "t.%d", i);
        with_token(r, token);
    }
    struct rig_call *c = with_token(r, "one.more");
    cr_expect_str_eq(c->message, "etcdserver: too many requests");
    while (r->g.pending.count > 0) {
        answer_user(r, "alice", 5);
    }
    cr_expect_eq(seen.messages, LOGINS_ASKED_MAX);
    c = with_token(r, "one.more");
    expect_question(r, VIA_QUERY, COMMAND_TOKEN);
    rig_free(r);
}

/* --- certificates and JWT ---------------------------------------------------------------------------------------------- */

Test(identity, a_certificates_name_is_the_user_if_there_is_no_token_and_no_json_gateway)
{
    struct rig *r = rig_new();
    struct client client = {.serves = SERVES_GRPC, .is_tls = true, .common_name = (char *)(uintptr_t)"carol"};
    h2_set_client(r->h, &client);
    auth_is(r, true, 5);
    call_with(r, "/t.T/Hold", "x-other", "y");
    cr_expect(is_user("", 0), "names do not come from certificates here");
    r->conf.client_cert_auth = true;
    call_with(r, "/t.T/Hold", "x-other", "y");
    cr_expect(is_user("carol", 5));
    call_with(r, "/t.T/Hold", "grpcgateway-accept", "application/json");
    cr_expect(is_user("", 0));
    with_token(r, "abc.7");
    answer_user(r, "alice", 5);
    cr_expect(is_user("alice", 5));
    rig_free(r);
}

static struct jwt *make_jwt(struct rig *r, char path[])
{
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    cr_assert_eq(write(fd, "a secret that is long enough for HMAC", 37), 37);
    close(fd);
    identity_stop(&r->g);
    char *text = xasprintf("jwt,sign-method=HS256,priv-key=%s,ttl=1h", path);
    cr_assert_eq(conf_set(&r->conf, "auth-token", text, "test", &(struct buf){NULL, 0, 0}), OK);
    free(text);
    identity_start(&r->g);
    return identity_jwt(&r->g);
}

Test(identity, a_signed_token_needs_no_question)
{
    struct rig *r = rig_new();
    char path[] = "/tmp/trine-secret-XXXXXX";
    struct jwt *jwt = make_jwt(r, path);
    auth_is(r, true, 5);
    struct buf token = BUF_INIT;
    cr_assert_eq(jwt_sign(jwt, SLICE_LIT("dave"), 4, (int64_t)time(NULL), &token), OK);
    buf_add_byte(&token, 0);
    with_token(r, (char *)token.data);
    cr_expect(is_user("dave", 4), "the revision is the token's: stored compares");
    with_token(r, (char *)token.data);
    cr_expect_eq(seen.messages, 2);
    token.data[4]++;
    struct rig_call *c = with_token(r, (char *)token.data);
    cr_expect_eq(c->grpc_status, 16);
    c = with_token(r, "AbCdEfGhIjKlMnOp.17");
    cr_expect_eq(c->grpc_status, 16);
    cr_expect_eq(r->g.pending.count, 0);
    buf_fini(&token);
    rig_free(r);
    unlink(path);
}

/* --- the Auth service ---------------------------------------------------------------------------------------------------- */

static const struct call_handler *auth_find(struct slice path)
{
    const struct call_handler *h = route_find(path);
    return h != NULL ? h : rig_find(path);
}

static struct rig *rig_auth_service(void)
{
    struct rig *r = rig_new();
    r->g.find = auth_find;
    return r;
}

static struct rig_call *request(struct rig *r, const char *path, struct slice body)
{
    struct rig_call *c = rig_start(r, path, NULL, NULL);
    rig_message(c, body.data, body.len);
    c->end = true;
    rig_pump(r);
    return c;
}

#define AUTHENTICATE "/etcdserverpb.Auth/Authenticate"
#define ALICE_SECRET SLICE_LIT("\12\5alice\22\6secret")

static void answer_status(struct rig *r, uint64_t rev)
{
    struct buf body = BUF_INIT;
    pb_add_message(&body, 1, SLICE_LIT("\x18\x2a"));
    pb_add_uint(&body, 2, 1);
    pb_add_uint(&body, 3, rev);
    answer_with(r, OK, buf_slice(&body));
    buf_fini(&body);
}

Test(auth, a_password_is_checked_and_a_token_proposed_with_its_revision)
{
    struct rig *r = rig_auth_service();
    auth_is(r, true, 5);
    struct rig_call *c = request(r, AUTHENTICATE, ALICE_SECRET);
    struct command command;
    question(r, &command);
    expect_question(r, VIA_READ, COMMAND_PASSWORD);
    cr_expect(slice_eq(command.body, ALICE_SECRET));
    answer_status(r, 5);
    question(r, &command);
    expect_question(r, VIA_PROPOSE, COMMAND_AUTHENTICATE);
    cr_expect_eq(command.auth_rev, 5);
    cr_expect_eq(command.user.len, 0);
    cr_assert_eq(command.body.len, 7 + 2 + TOKEN_LETTERS);
    cr_expect(memcmp(command.body.data, "\12\5alice\22\20", 9) == 0);
    /* A change came between: all of it once more. */
    answer_with(r, E_AUTH_OLD_REVISION, SLICE_EMPTY);
    expect_question(r, VIA_READ, COMMAND_PASSWORD);
    answer_status(r, 6);
    question(r, &command);
    cr_expect_eq(command.auth_rev, 6);
    answer_with(r, OK, SLICE_LIT("\22\3t.9"));
    cr_expect_eq(c->grpc_status, 0);
    expect_body(c, "\22\3t.9");
    rig_free(r);
}

Test(auth, a_wrong_password_and_endless_changes_end_with_their_texts)
{
    struct rig *r = rig_auth_service();
    auth_is(r, true, 5);
    struct rig_call *c = request(r, AUTHENTICATE, ALICE_SECRET);
    answer_with(r, E_AUTH_FAILED, SLICE_EMPTY);
    cr_expect_eq(c->grpc_status, 3);
    cr_expect_str_eq(c->message, "etcdserver: authentication failed, invalid user ID or password");
    c = request(r, AUTHENTICATE, ALICE_SECRET);
    for (int i = 0; i < AUTHENTICATE_TRIES_MAX; i++) {
        cr_expect_eq(c->grpc_status, -1);
        answer_status(r, 5);
        answer_with(r, E_AUTH_OLD_REVISION, SLICE_EMPTY);
    }
    cr_expect_eq(c->grpc_status, 3);
    cr_expect_str_eq(c->message, "etcdserver: revision of auth store is old");
    c = request(r, AUTHENTICATE, SLICE_LIT("\12\5al"));
    cr_expect_eq(c->grpc_status, 13);
    cr_expect_eq(r->g.pending.count, 0);
    rig_free(r);
}

Test(auth, with_jwt_the_token_is_signed_at_once)
{
    struct rig *r = rig_auth_service();
    char path[] = "/tmp/trine-secret-XXXXXX";
    struct jwt *jwt = make_jwt(r, path);
    auth_is(r, true, 5);
    struct rig_call *c = request(r, AUTHENTICATE, ALICE_SECRET);
    answer_status(r, 5);
    cr_assert_eq(c->grpc_status, 0);
    cr_expect_eq(r->g.pending.count, 0);
    struct slice body = slice_of(c->body.data + 5, c->body.len - 5);
    struct pb_field f;
    cr_assert_eq(pb_next(&body, &f), 1);
    cr_expect(slice_eq(f.bytes, SLICE_LIT("\x18\x2a")), "the header is stored's");
    cr_assert_eq(pb_next(&body, &f), 1);
    struct jwt_claims claims = {.user = BUF_INIT};
    cr_assert_eq(jwt_verify(jwt, f.bytes, (int64_t)time(NULL), &claims), OK);
    cr_expect(slice_eq(buf_slice(&claims.user), SLICE_LIT("alice")));
    cr_expect_eq(claims.auth_rev, 5);
    buf_fini(&claims.user);
    rig_free(r);
    unlink(path);
}

Test(auth, authenticate_and_status_need_no_token_and_mind_no_bad_one)
{
    struct rig *r = rig_auth_service();
    auth_is(r, true, 5);
    call_with(r, AUTHENTICATE, "token", "bad.1");
    cr_expect_eq(r->g.pending.count, 0, "its message was no protobuf");
    struct rig_call *c = rig_start(r, "/etcdserverpb.Auth/AuthStatus", "token", "bad.1");
    rig_message(c, "", 0);
    c->end = true;
    rig_pump(r);
    expect_question(r, VIA_READ, COMMAND_AUTH_STATUS);
    rig_free(r);
}

static void one_turn(void *arg, uint64_t now_ms)
{
    UNUSED(now_ms);
    loop_stop(arg);
}

/* Until the worker's hash has come. */
static void run_until_asked(struct rig *r)
{
    struct loop_timer *t = loop_timer_new(r->loop, one_turn, r->loop);
    for (int i = 0; i < 1000 && r->g.pending.count == 0; i++) {
        loop_timer_set(t, loop_now_ms(r->loop) + 10);
        loop_run(r->loop);
    }
    loop_timer_free(t);
}

Test(auth, a_new_password_becomes_a_hash_before_it_is_proposed)
{
    struct rig *r = rig_auth_service();
    r->conf.bcrypt_cost = 4;
    request(r, "/etcdserverpb.Auth/UserAdd", SLICE_LIT("\12\5alice\22\6secret\32\0"));
    run_until_asked(r);
    struct command command;
    question(r, &command);
    expect_question(r, VIA_PROPOSE, COMMAND_USER_ADD);
    cr_expect(memcmp(command.body.data, "\12\5alice\32\0\42", 10) == 0, "name, options, hashedPassword; no password");
    cr_expect_not_null(memmem(command.body.data, command.body.len, "$argon2id$v=19$m=1024,t=2,p=1$", 30));
    cr_expect_null(memmem(command.body.data, command.body.len, "secret", 6));
    answer_with(r, OK, SLICE_EMPTY);
    request(r, "/etcdserverpb.Auth/UserChangePassword", SLICE_LIT("\12\5alice\22\6secret"));
    run_until_asked(r);
    question(r, &command);
    expect_question(r, VIA_PROPOSE, COMMAND_USER_CHANGE_PASSWORD);
    cr_expect(memcmp(command.body.data, "\12\5alice\32", 8) == 0);
    cr_expect_not_null(memmem(command.body.data, command.body.len, "$argon2id$", 10));
    answer_with(r, E_USER_NOT_FOUND, SLICE_EMPTY);
    rig_free(r);
}

Test(auth, users_without_password_and_with_a_hash_of_their_own_are_passed_on)
{
    struct rig *r = rig_auth_service();
    struct command command;
    request(r, "/etcdserverpb.Auth/UserAdd", SLICE_LIT("\12\5alice\22\6secret\32\2\10\1"));
    question(r, &command);
    cr_expect(slice_eq(command.body, SLICE_LIT("\12\5alice\32\2\10\1")));
    answer_with(r, OK, SLICE_EMPTY);
    /* base64 of $2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy */
    static const char hash[] = "JDJhJDEwJE45cW84dUxPaWNrZ3gyWk1SWm9NeWVJalpBZ2NmbDdwOTJsZEd4YWQ2OExKWmRMMTdsaFd5";
    struct buf body = BUF_INIT;
    pb_add_bytes(&body, 1, SLICE_LIT("bob"));
    pb_add_bytes(&body, 4, slice_str(hash));
    request(r, "/etcdserverpb.Auth/UserAdd", buf_slice(&body));
    question(r, &command);
    cr_expect(slice_eq(command.body, buf_slice(&body)));
    answer_with(r, OK, SLICE_EMPTY);
    buf_fini(&body);
    const char *bad[] = {"x", "JDJhJDEw", "JGFyZ29uMmlkJHY9MTkkbT02NTUzNix0PTIscD0xJEFBQUE="};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        pb_add_bytes(&body, 1, SLICE_LIT("bob"));
        pb_add_bytes(&body, 4, slice_str(bad[i]));
        struct rig_call *c = request(r, "/etcdserverpb.Auth/UserAdd", buf_slice(&body));
        cr_expect_eq(c->grpc_status, 2);
        cr_expect_str_eq(c->message, "auth: authentication failed, password was given for no password user");
        buf_fini(&body);
    }
    rig_free(r);
}

Test(auth, with_auth_on_nobody_can_make_us_hash)
{
    struct rig *r = rig_auth_service();
    auth_is(r, true, 5);
    struct rig_call *c = request(r, "/etcdserverpb.Auth/UserAdd", SLICE_LIT("\12\5alice\22\6secret"));
    cr_expect_eq(c->grpc_status, 3);
    cr_expect_str_eq(c->message, "etcdserver: user name is empty");
    c = request(r, "/etcdserverpb.Maintenance/Status", SLICE_EMPTY);
    cr_expect_str_eq(c->message, "etcdserver: user name is empty");
    c = request(r, "/etcdserverpb.Cluster/MemberList", SLICE_EMPTY);
    cr_expect_str_eq(c->message, "etcdserver: user name is empty");
    cr_expect_eq(r->g.pending.count, 0);
    rig_free(r);
}

Test(auth, hashes_that_wait_are_bounded_and_a_client_that_goes_away_is_not_hashed_for)
{
    struct rig *r = rig_auth_service();
    r->conf.bcrypt_cost = 4;
    struct rig_call *first = NULL;
    for (int i = 0; i < PASSWORD_HASHES_MAX + PASSWORD_WAITING_MAX; i++) {
        struct rig_call *c = request(r, "/etcdserverpb.Auth/UserAdd", SLICE_LIT("\12\5alice\22\6secret"));
        first = first != NULL ? first : c;
        cr_expect_eq(c->grpc_status, -1);
        nghttp2_submit_rst_stream(r->client, NGHTTP2_FLAG_NONE, c->id, NGHTTP2_CANCEL);
    }
    struct rig_call *over = request(r, "/etcdserverpb.Auth/UserAdd", SLICE_LIT("\12\5alice\22\6secret"));
    cr_expect_str_eq(over->message, "etcdserver: too many requests");
    rig_pump(r);
    for (int i = 0; i < 20; i++) {
        struct loop_timer *t = loop_timer_new(r->loop, one_turn, r->loop);
        loop_timer_set(t, loop_now_ms(r->loop) + 10);
        loop_run(r->loop);
        loop_timer_free(t);
    }
    cr_expect_eq(r->g.pending.count, 0);
    over = request(r, "/etcdserverpb.Auth/UserAdd", SLICE_LIT("\12\5alice\22\6secret"));
    cr_expect_eq(over->grpc_status, -1);
    rig_free(r);
}

Test(auth, a_change_of_membership_asks_also_while_nothing_is_known)
{
    struct rig *r = rig_new();
    identity_stop(&r->g);
    identity_start(&r->g);
    uint64_t req;
    cr_assert_eq(pending_change(&r->g, &IDENTITY_NONE, MEMBER_REMOVE, 7, SLICE_EMPTY, NULL, NULL, &req), OK);
    expect_question(r, VIA_READ, COMMAND_AUTHORIZE);
    cr_expect_eq(identity_check_user(&r->g, &IDENTITY_NONE), E_UNREACHABLE);
    rig_free(r);
}

Test(identity, a_watch_waits_longer_than_others_for_stored_to_tell)
{
    struct rig *r = rig_auth_service();
    identity_stop(&r->g);
    identity_start(&r->g);
    struct rig_call *watch = rig_start(r, "/etcdserverpb.Watch/Watch", NULL, NULL);
    rig_message(watch, "\12\3\12\1a", 5);
    struct rig_call *other = call_with(r, "/t.T/Hold", "x-other", "y");
    expect_question(r, VIA_QUERY, COMMAND_AUTH_STATUS);
    answer_with(r, E_TIMEOUT, SLICE_EMPTY);
    cr_expect_eq(other->grpc_status, 14);
    cr_expect_eq(watch->grpc_status, -1);
    expect_question(r, VIA_QUERY, COMMAND_AUTH_STATUS);
    rig_free(r);
}

Test(auth, a_change_of_membership_asks_for_root_first)
{
    struct rig *r = rig_auth_service();
    auth_is(r, true, 5);
    struct rig_call *c = request(r, "/etcdserverpb.Cluster/MemberRemove", SLICE_LIT("\10\7"));
    expect_question(r, VIA_READ, COMMAND_AUTHORIZE);
    answer_with(r, E_PERMISSION_DENIED, SLICE_EMPTY);
    cr_expect_eq(c->grpc_status, 7);
    c = request(r, "/etcdserverpb.Cluster/MemberRemove", SLICE_LIT("\10\7"));
    answer_with(r, OK, SLICE_LIT("\12\0"));
    struct pending *p = r->g.pending.first;
    cr_assert_eq(r->g.pending.count, 1);
    cr_expect_eq(p->via, VIA_CHANGE);
    cr_expect_eq(p->what, MEMBER_REMOVE);
    cr_expect_eq(p->member, 7);
    cr_expect_eq(c->grpc_status, -1);
    retry_member_said(&r->g, &(struct fr_member_said){.req = p->wire, .id = 7});
    rig_pump(r);
    cr_expect_eq(c->grpc_status, 0);
    rig_free(r);
}
