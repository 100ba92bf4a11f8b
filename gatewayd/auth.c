/* auth - the Auth service: users, roles, passwords and tokens. From grpc.c; to retry.c, password.c, jwt.c.
 * Most calls are one command (proto/command.h): changes are proposed, questions are read at what is agreed on. A clear password goes no
 * farther than this file and the PASSWORD query, which is a read:
 *
 *   UserAdd, UserChangePassword   password -> hash (password.c) -> proposed
 *   Authenticate                  PASSWORD -> auth revision -> AUTHENTICATE proposed with that revision -> token
 *                                              |   ^-- users have changed meanwhile: once more
 *                                              '-> with jwt: the token is signed here */
#include <stdlib.h>

#include <sodium.h>

#include "common/clock.h"
#include "common/err.h"
#include "gatewayd/gatewayd.h"
#include "gatewayd/jwt.h"
#include "proto/pb.h"

/* --- one command each ------------------------------------------------------------------------------------- */

static int check_message(struct slice body)
{
    struct pb_field f;
    int rv;
    while ((rv = pb_next(&body, &f)) == 1) {
    }
    return rv == 0 ? OK : E_MALFORMED_REQUEST;
}

static void auth_command(struct call *c, enum pending_via via, enum command_kind kind, struct slice bytes)
{
    struct gatewayd *g = call_gateway(c);
    uint64_t req = 0;
    int err = g->is_learner ? E_NOT_SUPPORTED_FOR_LEARNER : check_message(bytes);
    if (err == OK) {
        err = pending_command(g, call_identity(c), via, kind, bytes, call_answer, c, &req);
    }
    call_submitted(c, err, req);
}

void auth_enable(struct call *c, struct slice bytes) { auth_command(c, VIA_PROPOSE, COMMAND_AUTH_ENABLE, bytes); }
void auth_disable(struct call *c, struct slice bytes) { auth_command(c, VIA_PROPOSE, COMMAND_AUTH_DISABLE, bytes); }
void auth_status(struct call *c, struct slice bytes) { auth_command(c, VIA_READ, COMMAND_AUTH_STATUS, bytes); }
void auth_user_get(struct call *c, struct slice bytes) { auth_command(c, VIA_READ, COMMAND_USER_GET, bytes); }
void auth_user_list(struct call *c, struct slice bytes) { auth_command(c, VIA_READ, COMMAND_USER_LIST, bytes); }
void auth_user_delete(struct call *c, struct slice bytes) { auth_command(c, VIA_PROPOSE, COMMAND_USER_DELETE, bytes); }
void auth_user_grant_role(struct call *c, struct slice bytes) { auth_command(c, VIA_PROPOSE, COMMAND_USER_GRANT_ROLE, bytes); }
void auth_user_revoke_role(struct call *c, struct slice bytes) { auth_command(c, VIA_PROPOSE, COMMAND_USER_REVOKE_ROLE, bytes); }
void auth_role_add(struct call *c, struct slice bytes) { auth_command(c, VIA_PROPOSE, COMMAND_ROLE_ADD, bytes); }
void auth_role_get(struct call *c, struct slice bytes) { auth_command(c, VIA_READ, COMMAND_ROLE_GET, bytes); }
void auth_role_list(struct call *c, struct slice bytes) { auth_command(c, VIA_READ, COMMAND_ROLE_LIST, bytes); }
void auth_role_delete(struct call *c, struct slice bytes) { auth_command(c, VIA_PROPOSE, COMMAND_ROLE_DELETE, bytes); }
void auth_role_grant(struct call *c, struct slice bytes) { auth_command(c, VIA_PROPOSE, COMMAND_ROLE_GRANT, bytes); }
void auth_role_revoke(struct call *c, struct slice bytes) { auth_command(c, VIA_PROPOSE, COMMAND_ROLE_REVOKE, bytes); }

int auth_authorize(struct gatewayd *g, const struct identity *who, struct slice body, answer_cb *cb, void *arg, uint64_t *req)
{
    return pending_command(g, who, VIA_QUERY, COMMAND_AUTHORIZE, body, cb, arg, req);
}

/* --- with a password ---------------------------------------------------------------------------------------- */

/* What a call with a password waits for: its state. */
struct secret_call {
    struct call *call;
    enum command_kind kind;
    uint64_t req;             /* the request under way; 0: none */
    struct password_job *job; /* the hash under way; NULL: none */
    struct buf name;
    struct buf options;       /* UserAddOptions, if given */
    bool has_options;
    struct buf request;       /* AuthenticateRequest, for PASSWORD; wiped */
    size_t tries;
};

/* Fields of the three requests; borrowed. */
struct fields {
    struct slice name, password, hashed, options;
    bool has_options, no_password;
};

static int decode_options(struct slice bytes, struct fields *f)
{
    struct pb_field one;
    int rv;
    f->options = bytes;
    f->has_options = true;
    f->no_password = false;
    while ((rv = pb_next(&bytes, &one)) == 1) {
        if (one.number == 1 && one.wire == PB_VARINT) {
            f->no_password = one.varint != 0;
        }
    }
    return rv;
}

/* hashedPassword's number differs; 0: there is none. */
static int decode_fields(struct slice body, uint32_t options_number, uint32_t hashed_number, struct fields *f)
{
    struct pb_field one;
    int rv;
    *f = (struct fields){.has_options = false};
    while ((rv = pb_next(&body, &one)) == 1) {
        if (one.wire != PB_BYTES) {
            continue;
        }
        if (one.number == 1) {
            f->name = one.bytes;
        } else if (one.number == 2) {
            f->password = one.bytes;
        } else if (one.number == options_number) {
            if (decode_options(one.bytes, f) != 0) {
                return E_MALFORMED_REQUEST;
            }
        } else if (one.number == hashed_number) {
            f->hashed = one.bytes;
        }
    }
    return rv == 0 ? OK : E_MALFORMED_REQUEST;
}

static struct secret_call *secret_call_new(struct call *c, enum command_kind kind, const struct fields *f)
{
    struct secret_call *s = xcalloc(1, sizeof(*s));
    s->call = c;
    s->kind = kind;
    s->has_options = f->has_options;
    buf_add_slice(&s->name, f->name);
    buf_add_slice(&s->options, f->options);
    call_set_state(c, s);
    return s;
}

void auth_closed(struct call *c)
{
    struct secret_call *s = call_state(c);
    if (s == NULL) {
        return;
    }
    call_set_state(c, NULL);
    if (s->req != 0) {
        pending_cancel(call_gateway(c), s->req);
    }
    if (s->job != NULL) {
        password_forget(s->job);
    }
    secret_wipe(s->request.data, s->request.len);
    buf_fini(&s->request);
    buf_fini(&s->name);
    buf_fini(&s->options);
    free(s);
}

bool auth_has_secret(const struct call_handler *h)
{
    return h->message == auth_authenticate || h->message == auth_user_add || h->message == auth_user_change_password;
}

static void fail(struct secret_call *s, const struct answer *a)
{
    char *text = a->text.len > 0 ? slice_dup_str(a->text) : NULL;
    call_fail(s->call, a->err, text);
    free(text);
}

static void changed(void *arg, const struct answer *a)
{
    struct secret_call *s = arg;
    s->req = 0;
    if (a->err != OK) {
        fail(s, a);
    } else {
        call_reply(s->call, a->body);
    }
}

/* hash: argon2id's text or the client's bcrypt; empty: a user without a password. */
static void propose_user(struct secret_call *s, struct slice hash)
{
    struct call *c = s->call;
    struct buf body = BUF_INIT;
    pb_add_bytes(&body, 1, buf_slice(&s->name));
    if (s->kind == COMMAND_USER_ADD) {
        if (s->has_options) {
            pb_add_message(&body, 3, buf_slice(&s->options));
        }
        pb_add_bytes(&body, 4, hash);
    } else {
        pb_add_bytes(&body, 3, hash);
    }
    int err = pending_command(call_gateway(c), call_identity(c), VIA_PROPOSE, s->kind, buf_slice(&body), changed, s, &s->req);
    buf_fini(&body);
    if (err != OK) {
        call_fail(c, err, NULL);
    }
}

static void hashed(void *arg, int err, const char *hash)
{
    struct secret_call *s = arg;
    s->job = NULL;
    if (err != OK) {
        call_fail(s->call, err, NULL);
    } else {
        propose_user(s, slice_str(hash));
    }
}

static void user_with_password(struct call *c, enum command_kind kind, const struct fields *f)
{
    struct gatewayd *g = call_gateway(c);
    int err = OK;
    if (g->is_learner) {
        err = E_NOT_SUPPORTED_FOR_LEARNER;
    } else if (identity_check_user(g, call_identity(c)) != OK) {
        err = E_USER_EMPTY; /* stored would say it; nobody shall make us hash */
    } else if (f->hashed.len > 0 && !password_is_bcrypt(f->hashed)) {
        err = E_NO_PASSWORD_USER; /* etcd's text for it */
    } else if (f->password.len > PASSWORD_BYTES_MAX) {
        err = E_REQUEST_TOO_LARGE;
    }
    if (err != OK) {
        call_fail(c, err, NULL);
        return;
    }
    struct secret_call *s = secret_call_new(c, kind, f);
    if (f->no_password || f->name.len == 0) { /* without a name it is refused */
        propose_user(s, SLICE_EMPTY);
    } else if (f->hashed.len > 0) {
        propose_user(s, f->hashed);
    } else {
        err = password_hash(g, f->password, hashed, s, &s->job);
        if (err != OK) {
            call_fail(c, err, NULL);
        }
    }
}

void auth_user_add(struct call *c, struct slice bytes)
{
    struct fields f;
    if (decode_fields(bytes, 3, 4, &f) != OK) {
        call_fail(c, E_MALFORMED_REQUEST, NULL);
    } else {
        user_with_password(c, COMMAND_USER_ADD, &f);
    }
}

void auth_user_change_password(struct call *c, struct slice bytes)
{
    struct fields f;
    if (decode_fields(bytes, 0, 3, &f) != OK) {
        call_fail(c, E_MALFORMED_REQUEST, NULL);
    } else {
        user_with_password(c, COMMAND_USER_CHANGE_PASSWORD, &f);
    }
}

/* --- Authenticate ----------------------------------------------------------------------------------------------- */

static int ask_password(struct secret_call *s);

/* With simple tokens: the entry is applied, the token is in force everywhere. */
static void token_made(void *arg, const struct answer *a)
{
    struct secret_call *s = arg;
    s->req = 0;
    int err = a->err;
    if (err == E_AUTH_OLD_REVISION && s->tries < AUTHENTICATE_TRIES_MAX) {
        err = ask_password(s);
        if (err == OK) {
            return;
        }
        call_fail(s->call, err, NULL);
    } else if (err != OK) {
        fail(s, a);
    } else {
        call_reply(s->call, a->body);
    }
}

static void make_letters(char letters[TOKEN_LETTERS])
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (size_t i = 0; i < TOKEN_LETTERS; i++) {
        letters[i] = alphabet[randombytes_uniform(sizeof(alphabet) - 1)];
    }
}

static int propose_token(struct secret_call *s, uint64_t auth_rev)
{
    char letters[TOKEN_LETTERS];
    make_letters(letters);
    struct buf body = BUF_INIT;
    pb_add_bytes(&body, 1, buf_slice(&s->name));
    pb_add_bytes(&body, 2, slice_of(letters, sizeof(letters)));
    struct identity checked = {.auth_rev = auth_rev};
    int err = pending_command(call_gateway(s->call), &checked, VIA_PROPOSE, COMMAND_AUTHENTICATE, buf_slice(&body), token_made, s,
        &s->req);
    secret_wipe(letters, sizeof(letters));
    secret_wipe(body.data, body.len);
    buf_fini(&body);
    return err;
}

static int reply_signed(struct secret_call *s, struct jwt *jwt, struct slice header, uint64_t auth_rev)
{
    struct buf token = BUF_INIT, out = BUF_INIT;
    int err = jwt_sign(jwt, buf_slice(&s->name), auth_rev, clock_wall_ms() / 1000, &token);
    if (err == OK) {
        pb_add_message(&out, 1, header);
        pb_add_bytes(&out, 2, buf_slice(&token));
        call_reply(s->call, buf_slice(&out));
    }
    buf_fini(&token);
    buf_fini(&out);
    return err;
}

/* The password is right, as of this auth revision. */
static void password_checked(void *arg, const struct answer *a)
{
    struct secret_call *s = arg;
    struct gatewayd *g = call_gateway(s->call);
    struct slice body = a->body, header = SLICE_EMPTY;
    uint64_t auth_rev = 0;
    struct pb_field f;
    s->req = 0;
    if (a->err != OK) {
        fail(s, a);
        return;
    }
    while (pb_next(&body, &f) == 1) {
        if (f.number == 1 && f.wire == PB_BYTES) {
            header = f.bytes;
        } else if (f.number == 3 && f.wire == PB_VARINT) {
            auth_rev = f.varint;
        }
    }
    struct jwt *jwt = identity_jwt(g);
    int err;
    if (jwt != NULL) {
        jwt_refresh(jwt, gatewayd_now_ms(g));
        err = reply_signed(s, jwt, header, auth_rev);
    } else {
        err = propose_token(s, auth_rev);
    }
    if (err != OK) {
        call_fail(s->call, err, NULL);
    }
}

static int ask_password(struct secret_call *s)
{
    s->tries++;
    return pending_command(call_gateway(s->call), &IDENTITY_NONE, VIA_READ, COMMAND_PASSWORD, buf_slice(&s->request), password_checked,
        s, &s->req);
}

void auth_authenticate(struct call *c, struct slice bytes)
{
    struct fields f;
    int err = call_gateway(c)->is_learner ? E_NOT_SUPPORTED_FOR_LEARNER : decode_fields(bytes, 0, 0, &f);
    if (err == OK && f.password.len > PASSWORD_BYTES_MAX) {
        err = E_AUTH_FAILED; /* nobody has such a one */
    }
    if (err != OK) {
        call_fail(c, err, NULL);
        return;
    }
    struct secret_call *s = secret_call_new(c, COMMAND_AUTHENTICATE, &f);
    buf_reserve(&s->request, bytes.len); /* once: growth would leave a copy */
    buf_add_slice(&s->request, bytes);
    err = ask_password(s);
    if (err != OK) {
        call_fail(c, err, NULL);
    }
}
