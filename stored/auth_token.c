/* auth_token - the tokens that clients show instead of a password.
 * AUTHENTICATE (apply.c) makes one: letters of the gateway that checked the password, ".", the index of the entry. It
 * is replicated and kept, so it works on every member and after a restart. Gateways ask for its user with TOKEN
 * (read.c).
 *
 * How long ago a token was used is known to each member alone, so expiry is only remembered (`expired`), and what is
 * removed from the store is decided by what all members know: counts, and the order of entries. */
#include "stored/auth.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/pb.h"
#include "stored/stored.h"

#define TOKEN_TEXT_MAX (TOKEN_LETTERS + 1 + 20)

static uint64_t chain_sum(const struct auth_token *t)
{
    return ((uint64_t)t->len << 32) | crc32c(0, t->text, t->len);
}

/* The newest token. */
static struct auth_token *token_add(struct auth *a, struct auth_user *u, struct slice text, uint64_t index)
{
    struct auth_token *t = xcalloc(1, sizeof *t + text.len);

    t->user = u;
    t->index = index;
    t->len = text.len;
    memcpy(t->text, text.data, text.len);
    HASH_ADD_KEYPTR(hh, a->tokens, t->text, t->len, t);
    TAILQ_INSERT_TAIL(&a->token_order, t, all);
    TAILQ_INSERT_TAIL(&u->tokens, t, mine);
    a->token_count++;
    u->token_count++;
    return t;
}

static void token_free(struct auth *a, struct auth_token *t)
{
    HASH_DEL(a->tokens, t);
    TAILQ_REMOVE(&a->token_order, t, all);
    TAILQ_REMOVE(&t->user->tokens, t, mine);
    a->token_count--;
    t->user->token_count--;
    free(t);
}

static void token_drop(struct stored *s, struct auth_token *t)
{
    mvcc_meta_delete(s->mvcc, META_TOKEN, slice_of(t->text, t->len));
    mvcc_chain_add(s->mvcc, META_TOKEN, chain_sum(t), 0);
    token_free(s->auth, t);
}

void auth_tokens_drop(struct stored *s, struct auth_user *u)
{
    while (!TAILQ_EMPTY(&u->tokens))
        token_drop(s, TAILQ_FIRST(&u->tokens));
}

void auth_tokens_drop_all(struct stored *s)
{
    while (!TAILQ_EMPTY(&s->auth->token_order))
        token_drop(s, TAILQ_FIRST(&s->auth->token_order));
}

/* --- making one ----------------------------------------------------------------------------------------- */

static bool are_letters(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((s.data[i] < 'a' || s.data[i] > 'z') && (s.data[i] < 'A' || s.data[i] > 'Z'))
            return false;
    return s.len == TOKEN_LETTERS;
}

static void token_keep(struct stored *s, const struct auth_token *t)
{
    uint64_t index = htobe64(t->index);
    struct buf value = BUF_INIT;

    buf_add(&value, &index, sizeof index);
    buf_add_slice(&value, t->user->name);
    mvcc_meta_put(s->mvcc, META_TOKEN, slice_of(t->text, t->len), buf_slice(&value));
    mvcc_chain_add(s->mvcc, META_TOKEN, chain_sum(t), t->index);
    buf_fini(&value);
}

int auth_token_make(struct stored *s, const struct command *c, uint64_t index, struct buf *out)
{
    struct slice body = c->body, name = SLICE_EMPTY, letters = SLICE_EMPTY;
    struct auth *a = s->auth;
    char text[TOKEN_TEXT_MAX + 1];
    struct auth_token *t;
    struct auth_user *u;
    struct pb_field f;
    int got;

    while ((got = pb_next(&body, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_BYTES)
            name = f.bytes;
        if (f.number == 2 && f.wire == PB_BYTES)
            letters = f.bytes;
    }
    if (got < 0)
        return got;
    if (!a->enabled)
        return E_AUTH_NOT_ENABLED;
    if (c->auth_rev < a->rev) /* the password may have been changed since it was checked */
        return E_AUTH_OLD_REVISION;
    u = auth_user(a, name);
    if (!u)
        return E_AUTH_FAILED;
    if (!are_letters(letters))
        return E_INVALID;
    snprintf(text, sizeof text, "%.*s.%" PRIu64, TOKEN_LETTERS, (const char *)letters.data, index);
    t = token_add(a, u, slice_str(text), index);
    t->used_ms = loop_now_ms(s->loop);
    token_keep(s, t);
    if (u->token_count > TOKENS_PER_USER_MAX)
        token_drop(s, TAILQ_FIRST(&u->tokens));
    if (a->token_count > TOKENS_MAX)
        token_drop(s, TAILQ_FIRST(&a->token_order));

    mvcc_add_header(s->mvcc, out, -1);
    pb_add_bytes(out, 2, slice_str(text));
    return 0;
}

/* --- asking for one ------------------------------------------------------------------------------------- */

static bool is_alive(const struct stored *s, struct auth_token *t, uint64_t now_ms)
{
    if (now_ms - t->used_ms > s->conf->auth_token_ttl * 1000)
        t->expired = true;
    return !t->expired;
}

int auth_token_query(struct stored *s, struct slice body, struct buf *out)
{
    uint64_t now_ms = loop_now_ms(s->loop);
    struct slice text = SLICE_EMPTY;
    struct auth *a = s->auth;
    struct auth_token *t;
    struct pb_field f;
    int got;

    while ((got = pb_next(&body, &f)) == 1)
        if (f.number == 2 && f.wire == PB_BYTES)
            text = f.bytes;
    if (got < 0)
        return got;
    if (!a->enabled)
        return E_AUTH_NOT_ENABLED;
    HASH_FIND(hh, a->tokens, text.data, text.len, t);
    if (!t || !is_alive(s, t, now_ms))
        return E_INVALID_AUTH_TOKEN;
    t->used_ms = now_ms;
    pb_add_bytes(out, 1, t->user->name);
    pb_add_uint(out, 2, a->rev);
    return 0;
}

/* --- load ----------------------------------------------------------------------------------------------- */

struct loaded_token {
    uint64_t index;
    struct slice text;
    struct auth_user *user;
};

struct loading {
    struct auth *auth;
    struct loaded_token *list;
    size_t count, cap;
    struct arena texts;
};

static int load_one(void *arg, struct slice key, struct slice value)
{
    struct loading *l = arg;
    struct loaded_token t;
    uint64_t index;

    if (value.len < sizeof index)
        fatalx("auth: damaged token in the store, value of %zu bytes", value.len);
    memcpy(&index, value.data, sizeof index);
    t.index = be64toh(index);
    t.text = slice_of(arena_dup(&l->texts, key.data, key.len), key.len);
    t.user = auth_user(l->auth, slice_of(value.data + sizeof index, value.len - sizeof index));
    if (!t.user)
        fatalx("auth: a token in the store is of a user who does not exist");
    if (l->count == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->list = xrealloc(l->list, l->cap * sizeof *l->list);
    }
    l->list[l->count++] = t;
    return 0;
}

static int index_cmp(const void *a, const void *b)
{
    uint64_t x = ((const struct loaded_token *)a)->index, y = ((const struct loaded_token *)b)->index;

    return x < y ? -1 : x > y;
}

/* Nobody knows when they were used last: their time begins now. */
void auth_tokens_load(struct stored *s)
{
    struct loading l = {.auth = s->auth};

    arena_init(&l.texts);
    if (mvcc_meta_each(s->mvcc, META_TOKEN, load_one, &l) != 0)
        fatalx("auth: tokens cannot be read from the store");
    if (l.count)
        qsort(l.list, l.count, sizeof *l.list, index_cmp);
    for (size_t i = 0; i < l.count; i++)
        token_add(s->auth, l.list[i].user, l.list[i].text, l.list[i].index)->used_ms = loop_now_ms(s->loop);
    free(l.list);
    arena_fini(&l.texts);
}

void auth_tokens_fini(struct auth *a)
{
    while (!TAILQ_EMPTY(&a->token_order))
        token_free(a, TAILQ_FIRST(&a->token_order));
}
