/* auth - the tables of auth.h, in memory and in the store.
 * Changed by auth_cmd.c inside a batch; whatever is changed is written with the batch and enters the hash that members
 * compare. Tables are hash tables: what depends on an order is done in order of names, because that is the same
 * everywhere. */
#include "stored/auth.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/pb.h"
#include "stored/password.h"
#include "stored/stored.h"

static const char STATE_KEY[] = "state";

struct state_record { /* value of META_AUTH, big endian */
    uint64_t enabled, rev;
};

/* authpb.User is etcd's: 1 name, 2 password, 3 roles, 4 options { 1 no_password }. This field is ours. */
#define USER_FIELD_SINCE 100

/* --- small things --------------------------------------------------------------------------------------- */

static struct slice slice_own(struct slice s)
{
    return slice_of(xmemdup(s.data, s.len), s.len);
}

static void slice_disown(struct slice s)
{
    free((void *)(uintptr_t)s.data);
}

/* Length and checksum of bytes, for the hash that members compare. */
static uint64_t sum_of(struct slice s)
{
    return ((uint64_t)s.len << 32) | crc32c(0, s.data, s.len);
}

static void keep(struct stored *s, char prefix, struct slice key, struct slice value)
{
    mvcc_meta_put(s->mvcc, prefix, key, value);
    mvcc_chain_add(s->mvcc, prefix, sum_of(key), sum_of(value));
}

static void forget(struct stored *s, char prefix, struct slice key)
{
    mvcc_meta_delete(s->mvcc, prefix, key);
    mvcc_chain_add(s->mvcc, prefix, sum_of(key), 0);
}

/* --- tables --------------------------------------------------------------------------------------------- */

struct auth_user *auth_user(const struct auth *a, struct slice name)
{
    struct auth_user *u;

    HASH_FIND(hh, a->users, name.data, name.len, u);
    return u;
}

struct auth_role *auth_role(const struct auth *a, struct slice name)
{
    struct auth_role *r;

    HASH_FIND(hh, a->roles, name.data, name.len, r);
    return r;
}

static int user_cmp(const void *a, const void *b)
{
    return slice_cmp((*(struct auth_user *const *)a)->name, (*(struct auth_user *const *)b)->name);
}

static int role_cmp(const void *a, const void *b)
{
    return slice_cmp((*(struct auth_role *const *)a)->name, (*(struct auth_role *const *)b)->name);
}

size_t auth_users_sorted(const struct auth *a, struct auth_user ***users)
{
    size_t count = 0;

    *users = xmalloc(HASH_COUNT(a->users) * sizeof **users);
    for (struct auth_user *u = a->users; u; u = u->hh.next)
        (*users)[count++] = u;
    qsort(*users, count, sizeof **users, user_cmp);
    return count;
}

size_t auth_roles_sorted(const struct auth *a, struct auth_role ***roles)
{
    size_t count = 0;

    *roles = xmalloc(HASH_COUNT(a->roles) * sizeof **roles);
    for (struct auth_role *r = a->roles; r; r = r->hh.next)
        (*roles)[count++] = r;
    qsort(*roles, count, sizeof **roles, role_cmp);
    return count;
}

struct auth_user *auth_user_new(struct auth *a, struct slice name)
{
    struct auth_user *u = xcalloc(1, sizeof *u);

    u->name = slice_own(name);
    TAILQ_INIT(&u->tokens);
    perms_init(&u->read);
    perms_init(&u->write);
    HASH_ADD_KEYPTR(hh, a->users, u->name.data, u->name.len, u);
    return u;
}

static void user_free(struct auth *a, struct auth_user *u)
{
    HASH_DEL(a->users, u);
    for (size_t i = 0; i < u->role_count; i++)
        slice_disown(u->roles[i]);
    free(u->roles);
    buf_fini(&u->password);
    perms_fini(&u->read);
    perms_fini(&u->write);
    slice_disown(u->name);
    free(u);
}

struct auth_role *auth_role_new(struct auth *a, struct slice name)
{
    struct auth_role *r = xcalloc(1, sizeof *r);

    r->name = slice_own(name);
    HASH_ADD_KEYPTR(hh, a->roles, r->name.data, r->name.len, r);
    return r;
}

static void perm_free(struct auth_perm *p)
{
    slice_disown(p->key);
    slice_disown(p->range_end);
}

static void role_free(struct auth *a, struct auth_role *r)
{
    HASH_DEL(a->roles, r);
    for (size_t i = 0; i < r->perm_count; i++)
        perm_free(&r->perms[i]);
    free(r->perms);
    slice_disown(r->name);
    free(r);
}

/* --- roles of a user ------------------------------------------------------------------------------------ */

/* Where role stands among u's, or would. */
static size_t role_position(const struct auth_user *u, struct slice role, bool *found)
{
    size_t i = 0;

    while (i < u->role_count && slice_cmp(u->roles[i], role) < 0)
        i++;
    *found = i < u->role_count && slice_eq(u->roles[i], role);
    return i;
}

bool auth_user_has_role(const struct auth_user *u, struct slice role)
{
    bool found;

    role_position(u, role, &found);
    return found;
}

void auth_user_add_role(struct auth_user *u, struct slice role)
{
    bool found;
    size_t at = role_position(u, role, &found);

    must(!found);
    u->roles = xrealloc(u->roles, (u->role_count + 1) * sizeof *u->roles);
    memmove(u->roles + at + 1, u->roles + at, (u->role_count - at) * sizeof *u->roles);
    u->roles[at] = slice_own(role);
    u->role_count++;
    u->is_root |= slice_eq(role, AUTH_ROOT);
}

bool auth_user_remove_role(struct auth_user *u, struct slice role)
{
    bool found;
    size_t at = role_position(u, role, &found);

    if (!found)
        return false;
    if (slice_eq(role, AUTH_ROOT))
        u->is_root = false;
    slice_disown(u->roles[at]);
    memmove(u->roles + at, u->roles + at + 1, (u->role_count - at - 1) * sizeof *u->roles);
    u->role_count--;
    return true;
}

/* --- permissions of a role ------------------------------------------------------------------------------ */

static struct auth_perm *perm_find(const struct auth_role *r, struct slice key, struct slice range_end)
{
    for (size_t i = 0; i < r->perm_count; i++)
        if (slice_eq(r->perms[i].key, key) && slice_eq(r->perms[i].range_end, range_end))
            return &r->perms[i];
    return NULL;
}

void auth_role_add_perm(struct auth_role *r, int64_t type, struct slice key, struct slice range_end)
{
    struct auth_perm *p = perm_find(r, key, range_end);
    size_t at = r->perm_count;

    if (p) {
        p->type = type;
        return;
    }
    while (at > 0 && slice_cmp(r->perms[at - 1].key, key) > 0)
        at--;
    r->perms = xrealloc(r->perms, (r->perm_count + 1) * sizeof *r->perms);
    memmove(r->perms + at + 1, r->perms + at, (r->perm_count - at) * sizeof *r->perms);
    r->perms[at] = (struct auth_perm){type, slice_own(key), slice_own(range_end)};
    r->perm_count++;
}

bool auth_role_remove_perm(struct auth_role *r, struct slice key, struct slice range_end)
{
    struct auth_perm *p = perm_find(r, key, range_end);
    size_t at;

    if (!p)
        return false;
    at = (size_t)(p - r->perms);
    perm_free(p);
    memmove(p, p + 1, (r->perm_count - at - 1) * sizeof *p);
    r->perm_count--;
    return true;
}

static void perms_make(const struct auth *a, struct auth_user *u)
{
    perms_fini(&u->read);
    perms_fini(&u->write);
    perms_init(&u->read);
    perms_init(&u->write);
    for (size_t i = 0; i < u->role_count; i++) {
        const struct auth_role *r = auth_role(a, u->roles[i]);

        for (size_t n = 0; r && n < r->perm_count; n++) {
            const struct auth_perm *p = &r->perms[n];

            if (p->type == PERM_READ || p->type == PERM_READWRITE)
                perms_add(&u->read, p->key, p->range_end);
            if (p->type == PERM_WRITE || p->type == PERM_READWRITE)
                perms_add(&u->write, p->key, p->range_end);
        }
    }
    perms_merge(&u->read);
    perms_merge(&u->write);
    u->perms_gen = a->gen;
}

const struct perms *auth_user_perms(struct auth *a, struct auth_user *u, enum perm_type type)
{
    if (u->perms_gen != a->gen)
        perms_make(a, u);
    return type == PERM_READ ? &u->read : &u->write;
}

/* --- to the store --------------------------------------------------------------------------------------- */

void auth_user_keep(struct stored *s, struct auth_user *u)
{
    struct buf value = BUF_INIT, options = BUF_INIT;

    pb_add_uint(&options, 1, u->no_password);
    pb_add_bytes(&value, 1, u->name);
    pb_add_bytes(&value, 2, buf_slice(&u->password));
    for (size_t i = 0; i < u->role_count; i++)
        pb_add_message(&value, 3, u->roles[i]);
    pb_add_message(&value, 4, buf_slice(&options));
    pb_add_uint(&value, USER_FIELD_SINCE, u->since);
    keep(s, META_USER, u->name, buf_slice(&value));
    buf_fini(&options);
    buf_fini(&value);
}

void auth_role_keep(struct stored *s, const struct auth_role *r)
{
    struct buf value = BUF_INIT, perm = BUF_INIT;

    pb_add_bytes(&value, 1, r->name);
    for (size_t i = 0; i < r->perm_count; i++) {
        buf_reset(&perm);
        pb_add_int(&perm, 1, r->perms[i].type);
        pb_add_bytes(&perm, 2, r->perms[i].key);
        pb_add_bytes(&perm, 3, r->perms[i].range_end);
        pb_add_message(&value, 2, buf_slice(&perm));
    }
    keep(s, META_ROLE, r->name, buf_slice(&value));
    buf_fini(&perm);
    buf_fini(&value);
}

void auth_user_drop(struct stored *s, struct auth_user *u)
{
    auth_tokens_drop(s, u);
    forget(s, META_USER, u->name);
    user_free(s->auth, u);
}

void auth_role_drop(struct stored *s, struct auth_role *r)
{
    forget(s, META_ROLE, r->name);
    role_free(s->auth, r);
}

void auth_changed(struct stored *s, bool bump)
{
    struct auth *a = s->auth;
    struct state_record record;

    a->rev += bump;
    a->gen++;
    record = (struct state_record){htobe64(a->enabled), htobe64(a->rev)};
    keep(s, META_AUTH, slice_str(STATE_KEY), slice_of(&record, sizeof record));
}

/* --- from the store ------------------------------------------------------------------------------------- */

static int load_state(void *arg, struct slice key, struct slice value)
{
    struct auth *a = arg;
    struct state_record record;

    if (!slice_eq(key, slice_str(STATE_KEY)) || value.len != sizeof record)
        fatalx("auth: damaged state in the store, key of %zu and value of %zu bytes", key.len, value.len);
    memcpy(&record, value.data, sizeof record);
    a->enabled = record.enabled != 0;
    a->rev = be64toh(record.rev);
    return 0;
}

static int load_role(void *arg, struct slice key, struct slice value)
{
    struct auth_role *r = auth_role_new(arg, key);
    struct slice perm, first, end;
    struct pb_field f;
    int64_t type;
    int got;

    while ((got = pb_next(&value, &f)) == 1) {
        if (f.number != 2 || f.wire != PB_BYTES)
            continue;
        perm = f.bytes;
        first = end = SLICE_EMPTY;
        type = PERM_READ;
        while ((got = pb_next(&perm, &f)) == 1) {
            if (f.number == 1 && f.wire == PB_VARINT)
                type = (int64_t)f.varint;
            if (f.number == 2 && f.wire == PB_BYTES)
                first = f.bytes;
            if (f.number == 3 && f.wire == PB_BYTES)
                end = f.bytes;
        }
        if (got < 0)
            break;
        auth_role_add_perm(r, type, first, end);
    }
    if (got < 0)
        fatalx("auth: damaged role in the store");
    return 0;
}

static int load_user(void *arg, struct slice key, struct slice value)
{
    struct auth_user *u = auth_user_new(arg, key);
    struct slice options;
    struct pb_field f;
    int got;

    while ((got = pb_next(&value, &f)) == 1) {
        if (f.number == 2 && f.wire == PB_BYTES)
            buf_add_slice(&u->password, f.bytes);
        if (f.number == 3 && f.wire == PB_BYTES && !auth_user_has_role(u, f.bytes))
            auth_user_add_role(u, f.bytes);
        if (f.number == USER_FIELD_SINCE && f.wire == PB_VARINT)
            u->since = f.varint;
        if (f.number == 4 && f.wire == PB_BYTES) {
            options = f.bytes;
            while (pb_next(&options, &f) == 1)
                if (f.number == 1 && f.wire == PB_VARINT)
                    u->no_password = f.varint != 0;
        }
    }
    if (got < 0)
        fatalx("auth: damaged user in the store");
    return 0;
}

void auth_load(struct stored *s)
{
    struct auth *a = xcalloc(1, sizeof *a);

    password_init(s->conf->bcrypt_cost);
    a->rev = 1;
    /* After a snapshot a number of before must not look like one of after. */
    a->gen = a->told = ++s->auth_starts << 32; /* links are down now, and gateways are told at up */
    TAILQ_INIT(&a->token_order);
    s->auth = a;
    if (mvcc_meta_each(s->mvcc, META_AUTH, load_state, a) != 0 ||
        mvcc_meta_each(s->mvcc, META_ROLE, load_role, a) != 0 || mvcc_meta_each(s->mvcc, META_USER, load_user, a) != 0)
        fatalx("auth: users and roles cannot be read from the store");
    auth_tokens_load(s);
    log_info("auth: %s, revision %llu, users %u, roles %u, tokens %zu", a->enabled ? "on" : "off",
             (unsigned long long)a->rev, HASH_COUNT(a->users), HASH_COUNT(a->roles), a->token_count);
}

void auth_fini(struct stored *s)
{
    struct auth *a = s->auth;
    struct auth_user *u, *next_user;
    struct auth_role *r, *next_role;

    if (!a)
        return;
    auth_passwords_fini(s);
    auth_tokens_fini(a);
    HASH_ITER(hh, a->users, u, next_user)
        user_free(a, u);
    HASH_ITER(hh, a->roles, r, next_role)
        role_free(a, r);
    free(a);
    s->auth = NULL;
}
