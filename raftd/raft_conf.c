/* raft_conf - membership: the payload of ENTRY_CONF, who votes, one change at a time (thesis 4.1 - 4.2).
 * The membership that counts is the latest in the log, committed or not; when a new leader cuts its entry off, the
 * one before it counts again. A leader proposes a change only when the one before it and an entry of its own term
 * are committed, so any two majorities that may act at the same time have a member in common.
 *
 *   payload = [op, id, name, peer_urls, client_urls]         msgpack; the last three are text */
#include "raftd/raft_int.h"
#include "raftd/mutant.h"

#include "common/err.h"
#include "common/limits.h"
#include "proto/pack.h"

#define CONF_FIELDS 5
#define CONF_TEXT_BYTES_MAX (64 * KIB) /* names and URL lists are read by people */

/* --- payload ----------------------------------------------------------------------------------- */

void raft_conf_encode(struct buf *out, const struct raft_conf_change *c)
{
    pack_array(out, CONF_FIELDS);
    pack_u64(out, c->op);
    pack_u64(out, c->id);
    pack_str(out, c->name);
    pack_str(out, c->peer_urls);
    pack_str(out, c->client_urls);
}

int raft_conf_decode(struct slice bytes, struct raft_conf_change *c)
{
    struct raft_conf_change change;
    uint32_t count;
    int err;

    if ((err = unpack_array(&bytes, CONF_FIELDS, &count)))
        return err;
    if (count != CONF_FIELDS)
        return E_MALFORMED;
    if ((err = unpack_u64(&bytes, &change.op)) || (err = unpack_u64(&bytes, &change.id)) ||
        (err = unpack_bytes(&bytes, CONF_TEXT_BYTES_MAX, &change.name)) ||
        (err = unpack_bytes(&bytes, CONF_TEXT_BYTES_MAX, &change.peer_urls)) ||
        (err = unpack_bytes(&bytes, CONF_TEXT_BYTES_MAX, &change.client_urls)))
        return err;
    if (bytes.len > 0)
        return E_TRAILING;
    if (change.op < RAFT_CONF_ADD || change.op > RAFT_CONF_UPDATE || change.id == RAFT_NONE)
        return E_MALFORMED;
    *c = change;
    return 0;
}

/* --- memberships ------------------------------------------------------------------------------- */

const struct raft_member *raft_config_find(const struct raft_config *c, uint64_t id)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->members[i].id == id)
            return &c->members[i];
    return NULL;
}

bool raft_config_is_voter(const struct raft_config *c, uint64_t id)
{
    const struct raft_member *m = raft_config_find(c, id);

    return m && !m->learner;
}

static size_t voter_count(const struct raft_config *c)
{
    size_t count = 0;

    for (size_t i = 0; i < c->count; i++)
        count += !c->members[i].learner;
    return count;
}

size_t raft_config_quorum(const struct raft_config *c)
{
    size_t voters = voter_count(c);

    if (voters == 0)
        return SIZE_MAX;
    return MUTATE(QUORUM_OF_HALF, MUTATE(QUORUM_OF_EVEN, voters / 2 + 1, (voters + 1) / 2), (voters + 2) / 3);
}

/* Every member must come to the same result, so what does not fit (a leader checks that it does) changes nothing. */
size_t raft_conf_apply(struct raft_member *members, size_t count, const struct raft_conf_change *c)
{
    size_t pos = 0;

    while (pos < count && members[pos].id != c->id)
        pos++;
    switch ((enum raft_conf_op)c->op) {
    case RAFT_CONF_ADD:
    case RAFT_CONF_ADD_LEARNER:
        if (pos == count && count < RAFT_MEMBERS_MAX)
            members[count++] = (struct raft_member){.id = c->id, .learner = c->op == RAFT_CONF_ADD_LEARNER};
        break;
    case RAFT_CONF_PROMOTE:
        if (pos < count)
            members[pos].learner = false;
        break;
    case RAFT_CONF_REMOVE:
        if (pos < count) {
            for (; pos + 1 < count; pos++)
                members[pos] = members[pos + 1]; /* keeps the order: it is shown to people */
            count--;
        }
        break;
    case RAFT_CONF_UPDATE:
        break;
    }
    return count;
}

/* --- the log moves ----------------------------------------------------------------------------- */

void raft_conf_joined(struct raft *r, const struct entry *e)
{
    struct raft_conf_change change;

    if (raft_conf_decode(entry_data(e), &change))
        return; /* a leader refuses such; all members skip it alike */
    r->conf_seq++;
    if (change.op == RAFT_CONF_UPDATE)
        return;
    r->config_prev = r->config;
    r->config.count = raft_conf_apply(r->config.members, r->config.count, &change);
    r->config.index = e->index;
    raft_lead_members_changed(r);
}

void raft_conf_cut(struct raft *r, uint64_t from)
{
    if (r->config.index < from || MUTATE(CONF_NOT_CUT, false, true))
        return;
    must(r->config_prev.index < from); /* committed before the later one was proposed */
    r->config = r->config_prev;
    r->conf_seq++;
}

/* --- proposals --------------------------------------------------------------------------------- */

static int check_promote(struct raft *r, const struct raft_member *m)
{
    struct raft_peer *p = raft_peer_find(r, m->id);

    if (!m->learner)
        return E_MEMBER_NOT_LEARNER;
    /* etcd's measure of "in sync": nine tenths of our log (semantics 16). */
    return p && p->match >= r->log.last - r->log.last / 10 ? 0 : E_LEARNER_NOT_READY;
}

int raft_conf_check(struct raft *r, const struct entry *e)
{
    struct raft_conf_change change;
    const struct raft_member *m;
    int err = raft_conf_decode(entry_data(e), &change);

    if (err)
        return err;
    m = raft_config_find(&r->config, change.id);
    if (!m && change.op != RAFT_CONF_ADD && change.op != RAFT_CONF_ADD_LEARNER)
        return E_MEMBER_NOT_FOUND;
    if (change.op == RAFT_CONF_UPDATE)
        return 0; /* attributes only: no quorum changes, so any number may be under way */
    if (!MUTATE(CONF_BEFORE_NOOP, raft_is_settled(r), true) ||
        MUTATE(CONF_TWO_AT_ONCE, r->config.index > r->commit, false))
        return E_UNHEALTHY; /* the caller may try again in a moment */
    switch ((enum raft_conf_op)change.op) {
    case RAFT_CONF_ADD:
    case RAFT_CONF_ADD_LEARNER:
        return m ? E_MEMBER_EXIST : r->config.count == RAFT_MEMBERS_MAX ? E_FULL : 0;
    case RAFT_CONF_PROMOTE:
        return check_promote(r, m);
    case RAFT_CONF_REMOVE:
        return !m->learner && voter_count(&r->config) == 1 ? E_MEMBER_NOT_ENOUGH_STARTED : 0;
    case RAFT_CONF_UPDATE:
        break;
    }
    return 0;
}
