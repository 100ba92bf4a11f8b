/* authorize - see authorize.h. Asked by apply.c before it runs a command, and by read.c before and, if auth has changed
 * in between, after it has read. Tables: auth.c; intervals: perm.c.
 *
 * Three questions, in etcd's order. Who: the user must be named, his token must not be older than what auth knows, he
 * must exist. Is he root: then yes. Which keys: the request is walked through, both branches of transactions and all
 * levels, and each part must be covered by what he may read or write; the first that is not ends it.
 *
 * What a gateway says is believed: it has checked the token, and it could as well say that it was root's. What stored
 * proposes itself has no user; it is known by an envelope that no gateway makes (command.h) and by its kind. */
#include "stored/authorize.h"

#include <stdlib.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/api.h"
#include "proto/pb.h"
#include "stored/auth.h"
#include "stored/stored.h"

struct asking {
    struct stored *s;
    const struct command *c;
    const struct perms *read, *write;
};

/* --- keys ----------------------------------------------------------------------------------------------- */

static int may_read(const struct asking *a, struct slice key, struct slice range_end)
{
    return perms_cover(a->read, key, range_end) ? 0 : E_PERMISSION_DENIED;
}

static int may_write(const struct asking *a, struct slice key, struct slice range_end)
{
    return perms_cover(a->write, key, range_end) ? 0 : E_PERMISSION_DENIED;
}

static bool covers_key(void *arg, struct slice key)
{
    return perms_cover(arg, key, SLICE_EMPTY);
}

/* All keys that are attached to the lease now; none, or no such lease: yes. */
static int may_lease(const struct asking *a, const struct perms *p, int64_t id)
{
    return lease_keys_all(a->s->leases, id, covers_key, (void *)(uintptr_t)p) ? 0 : E_PERMISSION_DENIED;
}

/* --- requests ------------------------------------------------------------------------------------------- */

static int ask_range(const struct asking *a, const struct api_range *rq)
{
    return may_read(a, rq->key, rq->range_end);
}

static int ask_put(const struct asking *a, const struct api_put *rq)
{
    int err = may_write(a, rq->key, SLICE_EMPTY);

    if (!err && rq->prev_kv)
        err = may_read(a, rq->key, SLICE_EMPTY);
    /* Whoever can bind a key to a lease can have others' keys end with his, and his with theirs. */
    if (!err && rq->lease)
        err = may_lease(a, a->write, rq->lease);
    return err;
}

static int ask_delete(const struct asking *a, const struct api_delete *rq)
{
    int err = may_write(a, rq->key, rq->range_end);

    return !err && rq->prev_kv ? may_read(a, rq->key, rq->range_end) : err;
}

static int ask_txn(const struct asking *a, const struct api_txn *rq);

static int ask_op(const struct asking *a, const struct api_request_op *op)
{
    switch (op->op) {
    case API_OP_RANGE:
        return ask_range(a, &op->range);
    case API_OP_PUT:
        return ask_put(a, &op->put);
    case API_OP_DELETE:
        return ask_delete(a, &op->del);
    case API_OP_TXN:
        return ask_txn(a, op->txn);
    case API_OP_NONE:
        break;
    }
    return E_KEY_NOT_FOUND; /* as api_check.c */
}

static int ask_ops(const struct asking *a, const struct api_request_op *ops, size_t count)
{
    int err = 0;

    for (size_t i = 0; !err && i < count; i++)
        err = ask_op(a, &ops[i]);
    return err;
}

/* Recursion is bounded by TXN_DEPTH_MAX, which the decoder holds. */
static int ask_txn(const struct asking *a, const struct api_txn *rq)
{
    int err = 0;

    if (rq->compare_count == API_TXN_TOO_MANY)
        return E_TOO_MANY_OPS;
    for (size_t i = 0; !err && i < rq->compare_count; i++)
        err = may_read(a, rq->compares[i].key, rq->compares[i].range_end);
    if (!err)
        err = ask_ops(a, rq->success, rq->success_count);
    return err ? err : ask_ops(a, rq->failure, rq->failure_count);
}

/* --- bodies --------------------------------------------------------------------------------------------- */

static int range_body(const struct asking *a)
{
    struct api_range rq;
    int err = api_decode_range(a->c->body, &rq);

    return err ? err : ask_range(a, &rq);
}

static int put_body(const struct asking *a)
{
    struct api_put rq;
    int err = api_decode_put(a->c->body, &rq);

    return err ? err : ask_put(a, &rq);
}

static int delete_body(const struct asking *a)
{
    struct api_delete rq;
    int err = api_decode_delete(a->c->body, &rq);

    return err ? err : ask_delete(a, &rq);
}

static int txn_body(const struct asking *a)
{
    struct arena arena;
    struct api_txn *rq;
    int err;

    arena_init(&arena);
    err = api_decode_txn(a->c->body, &arena, APPLY_TXN_OPS_MAX, &rq);
    if (!err)
        err = ask_txn(a, rq);
    arena_fini(&arena);
    return err;
}

/* Lease requests: 1 ID, and 2 keys of a TimeToLive. */
static int lease_body(const struct asking *a, int64_t *id, bool *keys)
{
    struct slice body = a->c->body;
    struct pb_field f;
    int got;

    *id = 0;
    *keys = false;
    while ((got = pb_next(&body, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_VARINT)
            *id = (int64_t)f.varint;
        if (f.number == 2 && f.wire == PB_VARINT)
            *keys = f.varint != 0;
    }
    return got;
}

static int all_leases(const struct asking *a)
{
    int64_t *ids;
    size_t count = leases_list(a->s->leases, &ids);
    int err = 0;

    for (size_t i = 0; !err && i < count; i++)
        err = may_lease(a, a->read, ids[i]);
    free(ids);
    return err;
}

static int lease_request(const struct asking *a)
{
    int64_t id;
    bool keys;
    int err = lease_body(a, &id, &keys);

    if (err)
        return err;
    switch (a->c->kind) {
    case COMMAND_LEASE_REVOKE:
    case COMMAND_LEASE_KEEP_ALIVE:
        return may_lease(a, a->write, id);
    case COMMAND_LEASE_TIME_TO_LIVE:
        return keys ? may_lease(a, a->read, id) : 0;
    case COMMAND_LEASE_LEASES:
        return all_leases(a);
    default: /* LEASE_GRANT: any user */
        return 0;
    }
}

static int keys_of(const struct asking *a)
{
    switch (a->c->kind) {
    case COMMAND_RANGE:
    case COMMAND_RANGE_STREAM:
    case COMMAND_AUTHORIZE:
        return range_body(a);
    case COMMAND_PUT:
        return put_body(a);
    case COMMAND_DELETE_RANGE:
        return delete_body(a);
    case COMMAND_TXN:
        return txn_body(a);
    case COMMAND_LEASE_GRANT:
    case COMMAND_LEASE_REVOKE:
    case COMMAND_LEASE_KEEP_ALIVE:
    case COMMAND_LEASE_TIME_TO_LIVE:
    case COMMAND_LEASE_LEASES:
        return lease_request(a);
    case COMMAND_ALARM: /* GET */
        return 0;
    default:
        return E_PERMISSION_DENIED;
    }
}

/* --- who ------------------------------------------------------------------------------------------------ */

/* Of the oldest revision that will do: the present one, or, for a read that has been allowed before, that of his
 * password. */
static int check_user(struct stored *s, const struct command *c, bool again, struct auth_user **u)
{
    if (c->user.len == 0)
        return E_USER_EMPTY;
    if (!again && c->auth_rev < s->auth->rev)
        return E_AUTH_OLD_REVISION;
    *u = auth_user(s->auth, c->user);
    if (!*u)
        return E_PERMISSION_DENIED;
    return c->auth_rev < (*u)->since ? E_AUTH_OLD_REVISION : 0;
}

static int need_keys(struct stored *s, const struct command *c, bool again)
{
    struct asking a = {.s = s, .c = c};
    struct auth_user *u;
    int err = check_user(s, c, again, &u);

    if (err || u->is_root)
        return err;
    a.read = auth_user_perms(s->auth, u, PERM_READ);
    a.write = auth_user_perms(s->auth, u, PERM_WRITE);
    return keys_of(&a);
}

/* An administrator's changes follow each other faster than his token is renewed: how old it is does not matter, as etcd
 * has it, as long as his password is the same. */
static int need_root(struct stored *s, const struct command *c)
{
    const struct auth_user *u;

    if (c->user.len == 0)
        return E_USER_EMPTY;
    u = auth_user(s->auth, c->user);
    if (!u)
        return E_USER_NOT_FOUND;
    if (c->auth_rev < u->since)
        return E_AUTH_OLD_REVISION;
    return u->is_root ? 0 : E_PERMISSION_DENIED;
}

/* Users may look at themselves, and at their roles. */
static int need_root_or_own(struct stored *s, const struct command *c)
{
    int err = need_root(s, c);
    struct slice body = c->body, name = SLICE_EMPTY;
    struct pb_field f;

    if (err != E_PERMISSION_DENIED)
        return err;
    while (pb_next(&body, &f) == 1)
        if (f.number == 1 && f.wire == PB_BYTES)
            name = f.bytes;
    if (c->kind == COMMAND_USER_GET)
        return slice_eq(name, c->user) ? 0 : err;
    return auth_user_has_role(auth_user(s->auth, c->user), name) ? 0 : err;
}

/* --- all ------------------------------------------------------------------------------------------------ */

/* Made by stored itself: see command.h. */
static bool is_ours(const struct command *c)
{
    return c->origin == 0 && c->slot == 0 && c->instance == 0 &&
           (c->kind == COMMAND_LEASE_EXPIRE || c->kind == COMMAND_COMPACT || c->kind == COMMAND_ALARM);
}

/* AlarmRequest: 1 action; 0 is GET. */
static bool is_alarm_get(const struct command *c)
{
    struct slice body = c->body;
    struct pb_field f;
    bool get = true;

    while (pb_next(&body, &f) == 1)
        if (f.number == 1 && f.wire == PB_VARINT)
            get = f.varint == 0;
    return get;
}

static int decide(struct stored *s, const struct command *c, bool again)
{
    if (!s->auth->enabled || is_ours(c))
        return 0;
    switch (c->kind) {
    case COMMAND_BARRIER: /* gateways' own */
    case COMMAND_AUTHENTICATE:
    case COMMAND_PASSWORD:
    case COMMAND_TOKEN:
    case COMMAND_AUTH_STATUS:
        return 0;
    case COMMAND_RANGE:
    case COMMAND_RANGE_STREAM:
    case COMMAND_PUT:
    case COMMAND_DELETE_RANGE:
    case COMMAND_TXN:
    case COMMAND_LEASE_GRANT:
    case COMMAND_LEASE_REVOKE:
    case COMMAND_LEASE_KEEP_ALIVE:
    case COMMAND_LEASE_TIME_TO_LIVE:
    case COMMAND_LEASE_LEASES:
        return need_keys(s, c, again);
    case COMMAND_AUTHORIZE:
        return c->body.len ? need_keys(s, c, again) : need_root(s, c);
    case COMMAND_ALARM:
        return is_alarm_get(c) ? need_keys(s, c, again) : need_root(s, c);
    case COMMAND_USER_GET:
    case COMMAND_ROLE_GET:
        return need_root_or_own(s, c);
    case COMMAND_LEASE_EXPIRE: /* ours, or nobody's */
        return E_PERMISSION_DENIED;
    default:
        return need_root(s, c);
    }
}

int authorize(struct stored *s, const struct command *c)
{
    return decide(s, c, false);
}

int authorize_again(struct stored *s, const struct command *c)
{
    return decide(s, c, true);
}
