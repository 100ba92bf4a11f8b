/* members - see members.h. Bytes of a table: msgpack
 *     [version, [removed id...], [id, is_learner, name, peer urls, client urls]...]
 * Version 1 had no list of removed ids. */
#include "raftd/members.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "proto/pack.h"

#define MEMBERS_VERSION 2
#define MEMBER_FIELDS 5
#define MEMBER_TEXT_BYTES_MAX (64 * 1024) /* a name or a list of URLs */

static void member_fini(struct member *m)
{
    free(m->name);
    free(m->peer_urls);
    free(m->client_urls);
}

void members_fini(struct members *m)
{
    for (size_t i = 0; i < m->count; i++)
        member_fini(&m->list[i]);
    m->count = 0;
    free(m->removed);
    m->removed = NULL;
    m->removed_count = 0;
}

struct member *members_find(const struct members *m, uint64_t id)
{
    for (size_t i = 0; i < m->count; i++) {
        if (m->list[i].id == id)
            return (struct member *)&m->list[i];
    }
    return NULL;
}

bool members_was_removed(const struct members *m, uint64_t id)
{
    for (size_t i = 0; i < m->removed_count; i++) {
        if (m->removed[i] == id)
            return true;
    }
    return false;
}

size_t members_voters(const struct members *m)
{
    size_t voters = 0;

    for (size_t i = 0; i < m->count; i++)
        voters += !m->list[i].is_learner;
    return voters;
}

static void removed_add(struct members *m, uint64_t id)
{
    if (m->removed_count == MEMBERS_REMOVED_MAX)
        memmove(m->removed, m->removed + 1, --m->removed_count * sizeof(*m->removed));
    m->removed = xrealloc(m->removed, (m->removed_count + 1) * sizeof(*m->removed));
    m->removed[m->removed_count++] = id;
}

/* Keeps the order of ids. The texts are given to the table. */
static int member_add(struct members *m, const struct member *new)
{
    size_t pos = m->count;

    if (new->id == RAFT_NONE)
        return E_MALFORMED;
    if (members_was_removed(m, new->id))
        return E_MEMBER_NOT_FOUND;
    if (members_find(m, new->id))
        return E_MEMBER_EXIST;
    if (m->count == RAFT_MEMBERS_MAX)
        return E_FULL;
    while (pos > 0 && m->list[pos - 1].id > new->id)
        pos--;
    memmove(&m->list[pos + 1], &m->list[pos], (m->count - pos) * sizeof(m->list[0]));
    m->list[pos] = *new;
    m->count++;
    return 0;
}

static void text_set(char **text, struct slice s)
{
    free(*text);
    *text = slice_dup_str(s);
}

int members_apply(struct members *m, const struct raft_conf_change *c)
{
    struct member *found = members_find(m, c->id);

    if (c->op == RAFT_CONF_ADD || c->op == RAFT_CONF_ADD_LEARNER) {
        struct member new = {.id = c->id, .is_learner = c->op == RAFT_CONF_ADD_LEARNER};

        text_set(&new.name, c->name);
        text_set(&new.peer_urls, c->peer_urls);
        text_set(&new.client_urls, c->client_urls);
        int err = member_add(m, &new);
        if (err)
            member_fini(&new);
        return err;
    }
    if (!found)
        return E_MEMBER_NOT_FOUND;
    switch (c->op) {
    case RAFT_CONF_PROMOTE:
        found->is_learner = false;
        return 0;
    case RAFT_CONF_REMOVE:
        removed_add(m, c->id);
        member_fini(found);
        m->count--;
        memmove(found, found + 1, (size_t)(&m->list[m->count] - found) * sizeof(*found));
        return 0;
    case RAFT_CONF_UPDATE:
        text_set(&found->name, c->name);
        text_set(&found->peer_urls, c->peer_urls);
        text_set(&found->client_urls, c->client_urls);
        return 0;
    default:
        return E_MALFORMED;
    }
}

void members_encode(const struct members *m, struct buf *out)
{
    pack_array(out, (uint32_t)m->count + 2);
    pack_u64(out, MEMBERS_VERSION);
    pack_array(out, (uint32_t)m->removed_count);
    for (size_t i = 0; i < m->removed_count; i++)
        pack_u64(out, m->removed[i]);
    for (size_t i = 0; i < m->count; i++) {
        const struct member *one = &m->list[i];

        pack_array(out, MEMBER_FIELDS);
        pack_u64(out, one->id);
        pack_bool(out, one->is_learner);
        pack_cstr(out, one->name);
        pack_cstr(out, one->peer_urls);
        pack_cstr(out, one->client_urls);
    }
}

static int text_decode(struct slice *in, char **text)
{
    struct slice s;
    int err = unpack_bytes(in, MEMBER_TEXT_BYTES_MAX, &s);

    if (!err)
        *text = slice_dup_str(s);
    return err;
}

static int member_decode(struct slice *in, struct member *one)
{
    uint32_t fields;
    int err = unpack_array(in, MEMBER_FIELDS, &fields);

    if (!err && fields != MEMBER_FIELDS)
        err = E_MALFORMED;
    if (!err)
        err = unpack_u64(in, &one->id);
    if (!err)
        err = unpack_bool(in, &one->is_learner);
    if (!err)
        err = text_decode(in, &one->name);
    if (!err)
        err = text_decode(in, &one->peer_urls);
    if (!err)
        err = text_decode(in, &one->client_urls);
    return err;
}

static int removed_decode(struct slice *in, struct members *m)
{
    uint32_t count;
    uint64_t id;
    int err = unpack_array(in, MEMBERS_REMOVED_MAX, &count);

    for (uint32_t i = 0; !err && i < count; i++) {
        err = unpack_u64(in, &id);
        if (!err)
            removed_add(m, id);
    }
    return err;
}

int members_decode(struct slice bytes, struct members *m)
{
    uint32_t count, heads = 1;
    uint64_t version;
    int err = unpack_array(&bytes, RAFT_MEMBERS_MAX + 2, &count);

    must(m->count == 0 && m->removed_count == 0);
    if (!err && count == 0)
        err = E_MALFORMED;
    if (!err)
        err = unpack_u64(&bytes, &version);
    if (!err && (version < 1 || version > MEMBERS_VERSION))
        err = E_VERSION;
    if (!err && version > 1) {
        heads = 2;
        err = count < heads ? E_MALFORMED : removed_decode(&bytes, m);
    }
    for (uint32_t i = heads; !err && i < count; i++) {
        struct member one = {0};

        err = member_decode(&bytes, &one);
        if (!err)
            err = member_add(m, &one);
        if (err)
            member_fini(&one);
    }
    if (!err && bytes.len > 0)
        err = E_TRAILING;
    if (err)
        members_fini(m);
    return err;
}

void members_copy(const struct members *from, struct members *to)
{
    struct buf bytes = BUF_INIT;

    members_encode(from, &bytes);
    if (members_decode(buf_slice(&bytes), to) != 0)
        must(!"what was encoded can be decoded");
    buf_fini(&bytes);
}

size_t members_raft(const struct members *m, struct raft_member *out)
{
    for (size_t i = 0; i < m->count; i++)
        out[i] = (struct raft_member){.id = m->list[i].id, .learner = m->list[i].is_learner};
    return m->count;
}
