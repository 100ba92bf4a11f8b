/* auth_cmd - the commands that change users, roles and whether auth is on, and the queries that list them.
 * From apply.c and read.c, which have asked authorize.c before; the tables are auth.c's. Errors in the order of
 * spec/semantics.md §14.2; every successful change counts one in the auth revision, but for AuthEnable and a role
 * granted twice. */
#include "stored/auth.h"

#include <stdlib.h>

#include "common/err.h"
#include "common/log.h"
#include "proto/pb.h"
#include "stored/password.h"
#include "stored/stored.h"

/* The bytes of fields 1 to 4 of a request: all that most of them consist of. */
#define FIELDS 4
struct fields {
    struct slice one, two, three, four;
};

static int decode(struct slice body, struct fields *fields)
{
    struct slice *const by_number[FIELDS + 1] = {NULL, &fields->one, &fields->two, &fields->three, &fields->four};
    struct pb_field f;
    int got;

    *fields = (struct fields){.one = SLICE_EMPTY};
    while ((got = pb_next(&body, &f)) == 1)
        if (f.wire == PB_BYTES && f.number <= FIELDS)
            *by_number[f.number] = f.bytes;
    return got;
}

/* --- on and off ----------------------------------------------------------------------------------------- */

static int enable(struct stored *s)
{
    struct auth *a = s->auth;
    const struct auth_user *root = auth_user(a, AUTH_ROOT);

    if (a->enabled)
        return 0;
    if (!root)
        return E_ROOT_USER_NOT_EXIST;
    if (!root->is_root)
        return E_ROOT_ROLE_NOT_EXIST;
    a->enabled = true;
    auth_changed(s, false);
    log_info("auth: on, revision %llu", (unsigned long long)a->rev);
    return 0;
}

static int disable(struct stored *s)
{
    struct auth *a = s->auth;

    if (!a->enabled)
        return 0;
    a->enabled = false;
    auth_tokens_drop_all(s);
    auth_changed(s, true);
    log_info("auth: off, revision %llu", (unsigned long long)a->rev);
    return 0;
}

/* --- users ---------------------------------------------------------------------------------------------- */

static bool is_no_password(struct slice options)
{
    struct pb_field f;
    bool no_password = false;

    while (pb_next(&options, &f) == 1)
        if (f.number == 1 && f.wire == PB_VARINT)
            no_password = f.varint != 0;
    return no_password;
}

/* AuthUserAddRequest: 1 name, 3 options, 4 hashedPassword. */
static int user_add(struct stored *s, const struct fields *f)
{
    struct buf hash = BUF_INIT;
    bool no_password = is_no_password(f->three);
    struct auth_user *u;
    int err = 0;

    if (f->one.len == 0)
        return E_USER_EMPTY;
    if (auth_user(s->auth, f->one))
        return E_USER_ALREADY_EXIST;
    if (!no_password)
        err = password_take(f->four, &hash);
    if (err) {
        buf_fini(&hash);
        return err;
    }
    u = auth_user_new(s->auth, f->one);
    u->password = hash;
    u->no_password = no_password;
    auth_changed(s, true);
    u->since = s->auth->rev;
    auth_user_keep(s, u);
    return 0;
}

static int user_delete(struct stored *s, struct slice name)
{
    struct auth_user *u;

    if (s->auth->enabled && slice_eq(name, AUTH_ROOT))
        return E_INVALID_AUTH_MGMT;
    u = auth_user(s->auth, name);
    if (!u)
        return E_USER_NOT_FOUND;
    auth_user_drop(s, u);
    auth_changed(s, true);
    return 0;
}

/* AuthUserChangePasswordRequest: 1 name, 3 hashedPassword. */
static int user_change_password(struct stored *s, const struct fields *f)
{
    struct auth_user *u = auth_user(s->auth, f->one);
    struct buf hash = BUF_INIT;
    int err = 0;

    if (!u)
        return E_USER_NOT_FOUND;
    if (!u->no_password)
        err = password_take(f->three, &hash);
    if (err) {
        buf_fini(&hash);
        return err;
    }
    buf_fini(&u->password);
    u->password = hash;
    auth_tokens_drop(s, u);
    auth_changed(s, true);
    u->since = s->auth->rev;
    auth_user_keep(s, u);
    return 0;
}

static int user_grant_role(struct stored *s, struct slice name, struct slice role)
{
    struct auth_user *u = auth_user(s->auth, name);

    if (!u)
        return E_USER_NOT_FOUND;
    if (!slice_eq(role, AUTH_ROOT) && !auth_role(s->auth, role))
        return E_ROLE_NOT_FOUND;
    if (auth_user_has_role(u, role))
        return 0;
    auth_user_add_role(u, role);
    auth_user_keep(s, u);
    auth_changed(s, true);
    return 0;
}

static int user_revoke_role(struct stored *s, struct slice name, struct slice role)
{
    struct auth_user *u;

    if (s->auth->enabled && slice_eq(name, AUTH_ROOT) && slice_eq(role, AUTH_ROOT))
        return E_INVALID_AUTH_MGMT;
    u = auth_user(s->auth, name);
    if (!u)
        return E_USER_NOT_FOUND;
    if (!auth_user_remove_role(u, role))
        return E_ROLE_NOT_GRANTED;
    auth_user_keep(s, u);
    auth_changed(s, true);
    return 0;
}

/* --- roles ---------------------------------------------------------------------------------------------- */

static int role_add(struct stored *s, struct slice name)
{
    if (name.len == 0)
        return E_ROLE_EMPTY;
    if (auth_role(s->auth, name))
        return E_ROLE_ALREADY_EXIST;
    auth_role_keep(s, auth_role_new(s->auth, name));
    auth_changed(s, true);
    return 0;
}

static int role_delete(struct stored *s, struct slice name)
{
    struct auth_user **users;
    struct auth_role *r;
    size_t count;

    if (s->auth->enabled && slice_eq(name, AUTH_ROOT))
        return E_INVALID_AUTH_MGMT;
    r = auth_role(s->auth, name);
    if (!r)
        return E_ROLE_NOT_FOUND;
    count = auth_users_sorted(s->auth, &users);
    for (size_t i = 0; i < count; i++)
        if (auth_user_remove_role(users[i], name))
            auth_user_keep(s, users[i]);
    free(users);
    auth_role_drop(s, r);
    auth_changed(s, true);
    return 0;
}

static bool is_valid_interval(struct slice key, struct slice range_end)
{
    bool open = range_end.len == 1 && range_end.data[0] == 0;

    return key.len > 0 && (range_end.len == 0 || open || slice_cmp(key, range_end) < 0);
}

/* AuthRoleGrantPermissionRequest: 1 name, 2 perm { 1 permType, 2 key, 3 range_end }. */
static int role_grant(struct stored *s, struct slice body)
{
    struct slice name = SLICE_EMPTY, key = SLICE_EMPTY, range_end = SLICE_EMPTY, perm;
    struct auth_role *r;
    struct pb_field f;
    int64_t type = PERM_READ;
    bool given = false;
    int got;

    while ((got = pb_next(&body, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_BYTES)
            name = f.bytes;
        if (f.number != 2 || f.wire != PB_BYTES)
            continue;
        given = true;
        perm = f.bytes;
        while ((got = pb_next(&perm, &f)) == 1) {
            if (f.number == 1 && f.wire == PB_VARINT)
                type = (int64_t)f.varint;
            if (f.number == 2 && f.wire == PB_BYTES)
                key = f.bytes;
            if (f.number == 3 && f.wire == PB_BYTES)
                range_end = f.bytes;
        }
        if (got < 0)
            return got;
    }
    if (got < 0)
        return got;
    if (!given)
        return E_PERMISSION_NOT_GIVEN;
    if (!is_valid_interval(key, range_end))
        return E_INVALID_AUTH_MGMT;
    r = auth_role(s->auth, name);
    if (!r)
        return E_ROLE_NOT_FOUND;
    auth_role_add_perm(r, type, key, range_end);
    auth_role_keep(s, r);
    auth_changed(s, true);
    return 0;
}

/* AuthRoleRevokePermissionRequest: 1 role, 2 key, 3 range_end. */
static int role_revoke(struct stored *s, const struct fields *f)
{
    struct auth_role *r = auth_role(s->auth, f->one);

    if (!r)
        return E_ROLE_NOT_FOUND;
    if (!auth_role_remove_perm(r, f->two, f->three))
        return E_PERMISSION_NOT_GRANTED;
    auth_role_keep(s, r);
    auth_changed(s, true);
    return 0;
}

/* --- all commands --------------------------------------------------------------------------------------- */

static int run(struct stored *s, uint64_t kind, struct slice body, const struct fields *f)
{
    switch (kind) {
    case COMMAND_AUTH_ENABLE:
        return enable(s);
    case COMMAND_AUTH_DISABLE:
        return disable(s);
    case COMMAND_USER_ADD:
        return user_add(s, f);
    case COMMAND_USER_DELETE:
        return user_delete(s, f->one);
    case COMMAND_USER_CHANGE_PASSWORD:
        return user_change_password(s, f);
    case COMMAND_USER_GRANT_ROLE:
        return user_grant_role(s, f->one, f->two);
    case COMMAND_USER_REVOKE_ROLE:
        return user_revoke_role(s, f->one, f->two);
    case COMMAND_ROLE_ADD:
        return role_add(s, f->one);
    case COMMAND_ROLE_DELETE:
        return role_delete(s, f->one);
    case COMMAND_ROLE_GRANT:
        return role_grant(s, body);
    case COMMAND_ROLE_REVOKE:
        return role_revoke(s, f);
    default:
        return E_UNIMPLEMENTED;
    }
}

int auth_apply(struct stored *s, const struct command *c, uint64_t index, struct buf *out)
{
    struct fields f;
    int err = decode(c->body, &f);

    if (err)
        return err;
    if (c->kind == COMMAND_AUTHENTICATE)
        return auth_token_make(s, c, index, out);
    err = run(s, c->kind, c->body, &f);
    if (!err)
        mvcc_add_header(s->mvcc, out, -1);
    return err;
}

/* --- queries -------------------------------------------------------------------------------------------- */

static int user_get(struct stored *s, struct slice name, struct buf *out)
{
    const struct auth_user *u = auth_user(s->auth, name);

    if (!u)
        return E_USER_NOT_FOUND;
    mvcc_add_header(s->mvcc, out, -1);
    for (size_t i = 0; i < u->role_count; i++)
        pb_add_message(out, 2, u->roles[i]);
    return 0;
}

static void add_perm(struct buf *out, int64_t type, struct slice key, struct slice range_end)
{
    struct buf perm = BUF_INIT;

    pb_add_int(&perm, 1, type);
    pb_add_bytes(&perm, 2, key);
    pb_add_bytes(&perm, 3, range_end);
    pb_add_message(out, 2, buf_slice(&perm));
    buf_fini(&perm);
}

static int role_get(struct stored *s, struct slice name, struct buf *out)
{
    const struct auth_role *r = auth_role(s->auth, name);

    if (!r)
        return E_ROLE_NOT_FOUND;
    mvcc_add_header(s->mvcc, out, -1);
    if (slice_eq(name, AUTH_ROOT)) {
        add_perm(out, PERM_READWRITE, SLICE_EMPTY, slice_of("", 1));
        return 0;
    }
    for (size_t i = 0; i < r->perm_count; i++)
        add_perm(out, r->perms[i].type, r->perms[i].key, r->perms[i].range_end);
    return 0;
}

static int user_list(struct stored *s, struct buf *out)
{
    struct auth_user **users;
    size_t count = auth_users_sorted(s->auth, &users);

    mvcc_add_header(s->mvcc, out, -1);
    for (size_t i = 0; i < count; i++)
        pb_add_message(out, 2, users[i]->name);
    free(users);
    return 0;
}

static int role_list(struct stored *s, struct buf *out)
{
    struct auth_role **roles;
    size_t count = auth_roles_sorted(s->auth, &roles);

    mvcc_add_header(s->mvcc, out, -1);
    for (size_t i = 0; i < count; i++)
        pb_add_message(out, 2, roles[i]->name);
    free(roles);
    return 0;
}

static int status(struct stored *s, struct buf *out)
{
    mvcc_add_header(s->mvcc, out, -1);
    pb_add_uint(out, 2, s->auth->enabled);
    pb_add_uint(out, 3, s->auth->rev);
    return 0;
}

int auth_query(struct stored *s, const struct command *c, struct buf *out)
{
    struct fields f;
    int err = decode(c->body, &f);

    if (err)
        return err;
    switch (c->kind) {
    case COMMAND_AUTH_STATUS:
        return status(s, out);
    case COMMAND_USER_GET:
        return user_get(s, f.one, out);
    case COMMAND_USER_LIST:
        return user_list(s, out);
    case COMMAND_ROLE_GET:
        return role_get(s, f.one, out);
    case COMMAND_ROLE_LIST:
        return role_list(s, out);
    case COMMAND_TOKEN:
        return auth_token_query(s, c->body, out);
    case COMMAND_AUTHORIZE: /* authorize.c was asked: he may */
        mvcc_add_header(s->mvcc, out, -1);
        return 0;
    default:
        return E_UNIMPLEMENTED;
    }
}
