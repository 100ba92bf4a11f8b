/* identity - who asks: the token or the certificate of a call becomes a user before its message reaches its handler.
 * From grpc.c (identity_admit) and in.c (AUTH); to retry.c (TOKEN), jwt.c, and back by grpc_admitted.
 *
 * While auth is off nobody is anybody. A call without a token and a certificate is nobody's: stored says what that means. Until stored has
 * told whether auth is on, all wait: what is not stored's to refuse (watches, members) would be open to everybody.
 *
 *   a token:  remembered? -> its user            JWT: verified here
 *             else stored is asked: QUERY TOKEN (this member) -> unknown -> READ TOKEN (all that is agreed on) -> unknown: bad
 *
 * A login is what is known of one token, for LOGIN_KEEP_MS, and only while the auth revision stays; bad ones too, so that
 * they do not cost a read index each time. Calls that wait for the same token wait for one question. stored checks every
 * request again, by user and revision: what is stale here can only be refused there. */
#include "gatewayd/identity.h"

#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "gatewayd/grpc.h"
#include "gatewayd/jwt.h"
#include "proto/pb.h"

const struct identity IDENTITY_NONE = {.user = {NULL, 0}, .auth_rev = 0};

/* One token; or, without one, the question whether auth is on. */
struct login {
    struct gatewayd *gateway;
    UT_hash_handle hh; /* in the gate, oldest first */
    uint64_t req;      /* the question under way; 0: it is answered */
    bool of_all;       /* READ was asked, not only QUERY */
    int err;           /* OK: user and auth_rev are known */
    struct buf user;
    uint64_t auth_rev;
    uint64_t until_ms; /* then it is forgotten */
    struct call *waiting;
    size_t token_len;
    char token[];
};

struct auth_gate {
    bool known; /* stored has told */
    bool enabled;
    uint64_t auth_rev;
    struct jwt *jwt;
    uint64_t keep_ms;
    struct login *logins; /* hash by token */
    struct login *state;  /* asks whether auth is on; NULL: nobody does */
    size_t asked;         /* logins with a question under way */
};

/* --- beginning and end -------------------------------------------------------------------------------- */

void identity_start(struct gatewayd *g)
{
    struct auth_gate *gate = g->auth = xcalloc(1, sizeof(*gate));
    uint64_t ttl_ms = g->conf->auth_token_ttl * 1000;
    gate->keep_ms = MIN((uint64_t)LOGIN_KEEP_MS, ttl_ms / 4);
    if (strncmp(g->conf->auth_token, "jwt,", 4) == 0) {
        struct buf why = BUF_INIT;
        gate->jwt = jwt_new(g->conf->auth_token + 4, &why);
        if (gate->jwt == NULL) {
            fatalx("identity: auth-token: %.*s", (int)why.len, (const char *)why.data);
        }
        buf_fini(&why);
    }
}

static struct login *login_new(struct gatewayd *g, struct slice token)
{
    struct login *l = xcalloc(1, sizeof(*l) + token.len);
    l->gateway = g;
    l->token_len = token.len;
    if (token.len > 0) {
        memcpy(l->token, token.data, token.len);
    }
    return l;
}

static void login_free(struct login *l)
{
    must(l->waiting == NULL);
    secret_wipe(l->token, l->token_len);
    buf_fini(&l->user);
    free(l);
}

static void login_forget(struct auth_gate *gate, struct login *l)
{
    HASH_DELETE(hh, gate->logins, l);
    login_free(l);
}

void identity_stop(struct gatewayd *g)
{
    struct login *l, *next;
    HASH_ITER(hh, g->auth->logins, l, next)
    {
        login_forget(g->auth, l);
    }
    if (g->auth->state != NULL) {
        login_free(g->auth->state);
    }
    jwt_free(g->auth->jwt);
    free(g->auth);
    g->auth = NULL;
}

bool identity_auth_is_on(const struct gatewayd *g) { return g->auth->enabled; }
bool identity_auth_may_be_on(const struct gatewayd *g) { return !g->auth->known || g->auth->enabled; }
uint64_t identity_auth_rev(const struct gatewayd *g) { return g->auth->enabled ? g->auth->auth_rev : 0; }
struct jwt *identity_jwt(const struct gatewayd *g) { return g->auth->jwt; }

int identity_check_user(const struct gatewayd *g, const struct identity *who)
{
    if (!identity_auth_may_be_on(g) || who->user.len > 0) {
        return OK;
    }
    return g->auth->known ? E_USER_EMPTY : E_UNREACHABLE;
}

/* Forgets all that is answered. What is still asked will be answered as things are then. */
static void forget_answered(struct auth_gate *gate)
{
    struct login *l, *next;
    HASH_ITER(hh, gate->logins, l, next)
    {
        if (l->req == 0 && l->waiting == NULL) {
            login_forget(gate, l);
        }
    }
}

void identity_on_auth(struct gatewayd *g, const struct fr_auth *m)
{
    struct auth_gate *gate = g->auth;
    bool enabled = m->enabled != 0;
    if (gate->known && gate->enabled == enabled && gate->auth_rev == m->auth_rev) {
        return;
    }
    if (gate->enabled != enabled) {
        log_info("identity: auth is %s, revision %llu", enabled ? "on" : "off", (unsigned long long)m->auth_rev);
    }
    gate->known = true;
    gate->enabled = enabled;
    gate->auth_rev = m->auth_rev;
    forget_answered(gate);
}

/* --- calls that wait ---------------------------------------------------------------------------------------- */

static void wait_for(struct call *c, struct login *l)
{
    c->login = l;
    c->login_prev = NULL;
    c->login_next = l->waiting;
    if (c->login_next != NULL) {
        c->login_next->login_prev = c;
    }
    l->waiting = c;
}

void identity_leave(struct call *c)
{
    if (c->login == NULL) {
        return;
    }
    *(c->login_prev != NULL ? &c->login_prev->login_next : &c->login->waiting) = c->login_next;
    if (c->login_next != NULL) {
        c->login_next->login_prev = c->login_prev;
    }
    c->login = NULL;
}

static void set_identity(struct call *c, struct slice user, uint64_t auth_rev)
{
    buf_reset(&c->user);
    buf_add_slice(&c->user, user);
    c->identity = (struct identity){.user = buf_slice(&c->user), .auth_rev = auth_rev};
}

/* True: the handler may have the message. */
static bool take_answer(struct call *c, const struct login *l)
{
    if (l->err == OK) {
        set_identity(c, buf_slice(&l->user), l->auth_rev);
        return true;
    }
    if (c->handler->message == watch_message) {
        c->identity_err = l->err;
        return true;
    }
    call_abort(c, l->err, NULL);
    return false;
}

/* The question that these wait for is answered. l itself may go meanwhile, for lack of room. */
static void wake(struct login *l)
{
    struct login batch = {.gateway = l->gateway, .err = l->err, .auth_rev = l->auth_rev, .waiting = l->waiting};
    bool of_state = l->token_len == 0;
    buf_add_slice(&batch.user, buf_slice(&l->user));
    for (struct call *c = l->waiting; c != NULL; c = c->login_next) {
        c->login = &batch;
    }
    l->waiting = NULL;
    if (of_state) {
        login_free(l);
    }
    struct call *c;
    while ((c = batch.waiting) != NULL) {
        identity_leave(c);
        if (c->over) {
            continue;
        }
        bool is_moot = c->gateway->auth->known && !c->gateway->auth->enabled; /* it went off meanwhile */
        /* A watch stream outlives that stored is away, so it asks again. */
        bool admit = of_state && (batch.err == OK || c->handler->message == watch_message);
        if (admit ? identity_admit(c) : is_moot || take_answer(c, &batch)) {
            grpc_admitted(c);
        }
    }
    buf_fini(&batch.user);
}

/* --- questions --------------------------------------------------------------------------------------------------- */

static void token_answered(void *arg, const struct answer *a);

static int ask_token(struct login *l, enum pending_via via)
{
    struct buf body = BUF_INIT;
    pb_add_bytes(&body, 2, slice_of(l->token, l->token_len));
    int err = pending_command(l->gateway, &IDENTITY_NONE, via, COMMAND_TOKEN, buf_slice(&body), token_answered, l, &l->req);
    buf_fini(&body);
    return err;
}

static int read_token_answer(struct login *l, struct slice body)
{
    struct pb_field f;
    int rv;
    buf_reset(&l->user);
    while ((rv = pb_next(&body, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_BYTES) {
            buf_reset(&l->user);
            buf_add_slice(&l->user, f.bytes);
        } else if (f.number == 2 && f.wire == PB_VARINT) {
            l->auth_rev = f.varint;
        }
    }
    return rv == 0 && l->user.len > 0 ? OK : E_INVALID_AUTH_TOKEN;
}

/* Lasting answers are kept for a while; of others, only who waits hears. */
static void login_settle(struct login *l, int err)
{
    struct auth_gate *gate = l->gateway->auth;
    uint64_t now_ms = gatewayd_now_ms(l->gateway);
    l->req = 0;
    l->err = err;
    gate->asked--;
    l->until_ms = err == OK || err == E_INVALID_AUTH_TOKEN ? now_ms + gate->keep_ms : 0;
    if (err == OK && l->auth_rev != gate->auth_rev) {
        l->until_ms = 0; /* it was true a moment ago; the next call asks again */
    }
    wake(l);
}

static void token_answered(void *arg, const struct answer *a)
{
    struct login *l = arg;
    int err = a->err != OK ? a->err : read_token_answer(l, a->body);
    if (err == E_INVALID_AUTH_TOKEN && !l->of_all && l->gateway->auth->enabled) {
        /* Made on another member a moment ago? What is agreed on by now tells. */
        l->of_all = true;
        err = ask_token(l, VIA_READ);
        if (err == OK) {
            return;
        }
    }
    login_settle(l, err);
}

static void state_answered(void *arg, const struct answer *a)
{
    struct login *l = arg;
    struct auth_gate *gate = l->gateway->auth;
    gate->state = NULL;
    l->err = a->err != OK ? a->err : gate->known ? OK : E_AGAIN;
    wake(l);
}

/* stored has not told yet whether auth is on: its first answer comes after that. */
static bool wait_for_state(struct call *c)
{
    struct gatewayd *g = c->gateway;
    struct auth_gate *gate = g->auth;
    if (gate->state == NULL) {
        struct login *l = login_new(g, SLICE_EMPTY);
        int err = pending_command(g, &IDENTITY_NONE, VIA_QUERY, COMMAND_AUTH_STATUS, SLICE_EMPTY, state_answered, l, &l->req);
        if (err != OK) {
            login_free(l);
            call_abort(c, err, NULL);
            return false;
        }
        gate->state = l;
    }
    wait_for(c, gate->state);
    return false;
}

/* --- logins ------------------------------------------------------------------------------------------------------- */

/* Room for one more: the oldest that nobody waits for goes. */
static void make_room(struct auth_gate *gate)
{
    struct login *l, *next;
    if (HASH_COUNT(gate->logins) < LOGINS_MAX) {
        return;
    }
    HASH_ITER(hh, gate->logins, l, next)
    {
        if (l->req == 0 && l->waiting == NULL) {
            login_forget(gate, l);
            return;
        }
    }
}

static struct login *login_find(struct auth_gate *gate, struct slice token)
{
    struct login *l;
    HASH_FIND(hh, gate->logins, token.data, token.len, l);
    return l;
}

static struct login *login_add(struct gatewayd *g, struct slice token)
{
    make_room(g->auth);
    struct login *l = login_new(g, token);
    HASH_ADD_KEYPTR(hh, g->auth->logins, l->token, l->token_len, l);
    return l;
}

static void verify_jwt(struct login *l, uint64_t now_ms)
{
    struct jwt_claims claims = {.user = BUF_INIT};
    int64_t wall_ms = clock_wall_ms();
    l->err = jwt_verify(l->gateway->auth->jwt, slice_of(l->token, l->token_len), wall_ms / 1000, &claims);
    l->until_ms = now_ms + LOGIN_KEEP_MS;
    if (l->err == OK) {
        l->user = claims.user;
        l->auth_rev = claims.auth_rev;
        if (claims.expires_s < wall_ms / 1000 + LOGIN_KEEP_MS / 1000 + 1) {
            l->until_ms = now_ms + (uint64_t)(claims.expires_s * 1000 - wall_ms);
        }
    } else {
        buf_fini(&claims.user);
    }
}

/* NULL: the call is over. */
static struct login *login_of(struct call *c, struct slice token, uint64_t now_ms)
{
    struct gatewayd *g = c->gateway;
    struct auth_gate *gate = g->auth;
    struct login *l = login_find(gate, token);
    if (l != NULL && (l->req != 0 || now_ms < l->until_ms)) {
        return l;
    }
    if (l != NULL) {
        login_forget(gate, l);
    }
    if (gate->jwt != NULL) {
        l = login_add(g, token);
        verify_jwt(l, now_ms);
        return l;
    }
    if (gate->asked >= LOGINS_ASKED_MAX) {
        call_abort(c, E_REQUEST_TOO_MANY_REQUESTS, NULL);
        return NULL;
    }
    l = login_add(g, token);
    int err = ask_token(l, VIA_QUERY);
    if (err != OK) {
        login_forget(gate, l);
        call_abort(c, err, NULL);
        return NULL;
    }
    gate->asked++;
    return l;
}

/* --- admission ---------------------------------------------------------------------------------------------------- */

/* spec/semantics.md §14.5, class "none". */
static bool needs_nobody(const struct call_handler *h)
{
    return h->message == auth_authenticate || h->message == auth_status || h->message == health_check || h->message == health_watch
        || h->message == health_list;
}

/* The name in the certificate that the client has shown, if names come from there. */
static struct slice certified_name(const struct call *c)
{
    return c->gateway->conf->client_cert_auth && !c->by_json ? call_common_name(c) : SLICE_EMPTY;
}

bool identity_admit(struct call *c)
{
    struct auth_gate *gate = c->gateway->auth;
    c->identity = IDENTITY_NONE;
    c->identity_err = OK;
    if ((gate->known && !gate->enabled) || needs_nobody(c->handler)) {
        return true;
    }
    if (!gate->known) {
        return wait_for_state(c);
    }
    struct slice name = c->token == NULL ? certified_name(c) : SLICE_EMPTY;
    if (c->token == NULL && name.len == 0) {
        return true;
    }
    if (c->token == NULL) {
        set_identity(c, name, gate->auth_rev);
        return true;
    }
    if (c->token[0] == '\0') { /* none is like it */
        return take_answer(c, &(struct login){.err = E_INVALID_AUTH_TOKEN});
    }
    uint64_t now_ms = gatewayd_now_ms(c->gateway);
    if (gate->jwt != NULL && jwt_refresh(gate->jwt, now_ms)) {
        forget_answered(gate);
    }
    struct login *l = login_of(c, slice_str(c->token), now_ms);
    if (l != NULL && l->req != 0) {
        wait_for(c, l);
        return false;
    }
    return l != NULL && take_answer(c, l);
}
