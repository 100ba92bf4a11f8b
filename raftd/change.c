/* change - see change.h. From in.c, peer frames and main.c; to the core by turn.c, to gateways and peers by out.c. */
#include "raftd/change.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/conf.h"
#include "common/err.h"
#include "common/mem.h"
#include "raftd/boot.h"
#include "raftd/entry.h"

enum ask_state { ASK_WAITS, ASK_PROPOSED, ASK_FORWARDED, ASK_AGREED, ASK_MOVING };

struct ask {
    TAILQ_ENTRY(ask) entry;
    struct change_ask is; /* its slices point into the texts */
    char *name, *peer_urls, *client_urls;
    enum ask_state state;
    uint64_t tag, until_ms;
    uint64_t index, term; /* of the entry: PROPOSED; AGREED: index only */
    uint64_t leader;      /* FORWARDED: to whom */
    uint64_t id;          /* of the member that it is about */
    int refused;          /* by the core or by the leader: ends at the next run */
};
TAILQ_HEAD(asks, ask);

struct change {
    struct change_conf conf;
    const struct change_ops *ops;
    void *arg;
    struct asks asks; /* in the order they came, which is the order of until_ms */
    size_t count;
    uint64_t tag_last;
};

/* --- life cycle --------------------------------------------------------------------------------- */

struct change *change_new(const struct change_conf *conf, const struct change_ops *ops, void *arg)
{
    struct change *c = xcalloc(1, sizeof(*c));

    c->conf = *conf;
    c->ops = ops;
    c->arg = arg;
    TAILQ_INIT(&c->asks);
    return c;
}

static void ask_free(struct change *c, struct ask *a)
{
    TAILQ_REMOVE(&c->asks, a, entry);
    c->count--;
    free(a->name);
    free(a->peer_urls);
    free(a->client_urls);
    free(a);
}

void change_free(struct change *c)
{
    struct ask *a;

    if (!c)
        return;
    while ((a = TAILQ_FIRST(&c->asks)))
        ask_free(c, a);
    free(c);
}

static void ask_end(struct change *c, struct ask *a, int err)
{
    c->ops->answer(c->arg, &a->is, err, a->id, a->index);
    ask_free(c, a);
}

static struct ask *ask_find(struct change *c, uint64_t tag)
{
    struct ask *a;

    TAILQ_FOREACH(a, &c->asks, entry)
        if (a->tag == tag)
            return a;
    return NULL;
}

/* --- URLs ----------------------------------------------------------------------------------------- */

static int slice_text_cmp(const void *a, const void *b)
{
    const struct slice *x = a, *y = b;
    int order = memcmp(x->data, y->data, MIN(x->len, y->len));

    return order ? order : (x->len > y->len) - (x->len < y->len);
}

/* What etcd's parser wants of a peer URL: http or https with host and port, and nothing behind them. */
static bool url_is_good(struct slice url)
{
    char *text = slice_dup_str(url);
    struct conf_url *parsed = NULL;
    size_t count = 0;
    bool good = strlen(text) == url.len && conf_parse_urls(text, &parsed, &count) == 0 && count == 1 &&
                strcmp(parsed->scheme, "unix") != 0;

    if (good) {
        const char *host = strstr(text, "://") + 3;

        good = !strpbrk(host, "/?#") && strrchr(host, ':') > strrchr(host, ']');
    }
    if (count > 0)
        conf_free_urls(parsed, count);
    free(text);
    return good;
}

static int urls_split(struct slice list, struct slice *urls, size_t max, size_t *count)
{
    *count = 0;
    while (list.len > 0) {
        const uint8_t *comma = memchr(list.data, ',', list.len);
        size_t len = comma ? (size_t)(comma - list.data) : list.len;
        struct slice one = slice_of(list.data, len);

        while (one.len > 0 && one.data[0] == ' ')
            one = slice_of(one.data + 1, one.len - 1);
        while (one.len > 0 && one.data[one.len - 1] == ' ')
            one.len--;
        if (one.len == 0 || *count == max)
            return E_MEMBER_BAD_URLS;
        urls[(*count)++] = one;
        list = comma ? slice_of(comma + 1, list.len - len - 1) : SLICE_EMPTY;
        if (comma && list.len == 0)
            return E_MEMBER_BAD_URLS;
    }
    return *count > 0 ? 0 : E_MEMBER_BAD_URLS;
}

#define URLS_MAX 64 /* of one member */

int change_urls(struct slice list, struct buf *out)
{
    struct slice urls[URLS_MAX];
    size_t count;

    if (list.len > CHANGE_TEXT_BYTES_MAX || urls_split(list, urls, URLS_MAX, &count) != 0)
        return E_MEMBER_BAD_URLS;
    for (size_t i = 0; i < count; i++)
        if (!url_is_good(urls[i]))
            return E_MEMBER_BAD_URLS;
    qsort(urls, count, sizeof(urls[0]), slice_text_cmp);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_add_byte(out, ',');
        buf_add_slice(out, urls[i]);
    }
    return 0;
}

/* Does anybody but `but` use one of these URLs? */
static bool urls_in_use(const struct members *m, uint64_t but, struct slice list)
{
    struct slice wanted[URLS_MAX], theirs[URLS_MAX];
    size_t wanted_count, their_count;

    if (urls_split(list, wanted, URLS_MAX, &wanted_count) != 0)
        return false;
    for (size_t i = 0; i < m->count; i++) {
        if (m->list[i].id == but || urls_split(slice_str(m->list[i].peer_urls), theirs, URLS_MAX, &their_count) != 0)
            continue;
        for (size_t k = 0; k < wanted_count; k++)
            for (size_t n = 0; n < their_count; n++)
                if (slice_eq(wanted[k], theirs[n]))
                    return true;
    }
    return false;
}

/* --- checks -------------------------------------------------------------------------------------- */

/* Voters without `but`: how many, and how many of them have told their name, that is, have run. */
static size_t voters(const struct members *m, uint64_t but, size_t *started)
{
    size_t count = 0;

    *started = 0;
    for (size_t i = 0; i < m->count; i++) {
        if (m->list[i].is_learner || m->list[i].id == but)
            continue;
        count++;
        *started += m->list[i].name[0] != '\0';
    }
    return count;
}

/* Voters that have been connected with us for a while, ourselves included. */
static size_t healthy_voters(const struct change_state *s, const struct change_ops *ops, void *arg)
{
    size_t count = 0;

    for (size_t i = 0; i < s->members->count; i++) {
        const struct member *m = &s->members->list[i];
        uint64_t since = m->id == s->self || m->is_learner ? 0 : ops->active_since(arg, m->id);

        count += m->id == s->self ? !m->is_learner : since > 0 && since + CHANGE_HEALTH_MS <= s->now_ms;
    }
    return count;
}

/* A new voter must not be what a quorum then waits for. A lone one may get a second: that is how clusters are restored. */
static int strict_add(const struct change_state *s, const struct change_ops *ops, void *arg, bool learner)
{
    size_t started, count = voters(s->members, RAFT_NONE, &started) + 1;

    if (!learner && !(started == 1 && count == 2) && started < count / 2 + 1)
        return E_MEMBER_NOT_ENOUGH_STARTED;
    return healthy_voters(s, ops, arg) < members_voters(s->members) ? E_UNHEALTHY : 0;
}

/* Those who stay must be a quorum among themselves. Who is down anyway can go without harm. */
static int strict_remove(const struct change_state *s, const struct change_ops *ops, void *arg, uint64_t id)
{
    const struct member *m = members_find(s->members, id);
    size_t started, count = voters(s->members, id, &started);

    if (m && m->is_learner)
        return 0;
    if (started < count / 2 + 1)
        return E_MEMBER_NOT_ENOUGH_STARTED;
    if (id != s->self && (!m || ops->active_since(arg, id) == 0))
        return 0;
    return healthy_voters(s, ops, arg) < 2 + (members_voters(s->members) - 1) / 2 ? E_UNHEALTHY : 0;
}

/* The learner counts as a started voter. */
static int strict_promote(const struct change_state *s)
{
    size_t started, count = voters(s->members, RAFT_NONE, &started) + 1;

    return started + 1 < count / 2 + 1 ? E_MEMBER_NOT_ENOUGH_STARTED : 0;
}

static int check_add(const struct change_conf *conf, const struct members *m, const struct raft_conf_change *change)
{
    size_t learners = m->count - members_voters(m);

    if (members_was_removed(m, change->id))
        return E_MEMBER_NOT_FOUND;
    if (members_find(m, change->id))
        return E_MEMBER_EXIST;
    if (urls_in_use(m, RAFT_NONE, change->peer_urls))
        return E_PEER_URL_EXIST;
    if (change->op == RAFT_CONF_ADD_LEARNER && learners >= conf->max_learners)
        return E_TOO_MANY_LEARNERS;
    return m->count == RAFT_MEMBERS_MAX ? E_TOO_BIG : 0;
}

/* What does not depend on who leads: etcd looks at it where the request comes in, so that it is an error at once even when nobody
 * leads. */
static int check_strict(const struct change_conf *conf, const struct change_state *s, const struct change_ops *ops, void *arg,
                        uint64_t op, uint64_t id)
{
    if (!conf->strict)
        return 0;
    if (op == RAFT_CONF_ADD || op == RAFT_CONF_ADD_LEARNER)
        return strict_add(s, ops, arg, op == RAFT_CONF_ADD_LEARNER);
    return op == RAFT_CONF_REMOVE ? strict_remove(s, ops, arg, id) : 0;
}

int change_check(const struct change_conf *conf, const struct change_state *s, const struct change_ops *ops, void *arg,
                 const struct raft_conf_change *change)
{
    const struct member *m = members_find(s->members, change->id);
    int err = check_strict(conf, s, ops, arg, change->op, change->id);

    if (err)
        return err;
    switch ((enum raft_conf_op)change->op) {
    case RAFT_CONF_ADD:
    case RAFT_CONF_ADD_LEARNER:
        return check_add(conf, s->members, change);
    case RAFT_CONF_REMOVE:
        return m ? 0 : E_MEMBER_NOT_FOUND;
    case RAFT_CONF_UPDATE:
        if (!m)
            return E_MEMBER_NOT_FOUND;
        return urls_in_use(s->members, change->id, change->peer_urls) ? E_PEER_URL_EXIST : 0;
    case RAFT_CONF_PROMOTE:
        if (!m)
            return E_MEMBER_NOT_FOUND;
        if (!m->is_learner)
            return E_MEMBER_NOT_LEARNER;
        return conf->strict ? strict_promote(s) : 0;
    }
    return E_MALFORMED;
}

/* --- requests -------------------------------------------------------------------------------------- */

static bool is_addition(uint64_t op)
{
    return op == RAFT_CONF_ADD || op == RAFT_CONF_ADD_LEARNER;
}

static int ask_check(const struct change *c, const struct change_ask *ask, struct buf *urls)
{
    bool wants_urls = is_addition(ask->op) || (ask->op == RAFT_CONF_UPDATE && (ask->fields & CHANGE_PEER_URLS));

    if (ask->op != CHANGE_MOVE_LEADER && (ask->op < RAFT_CONF_ADD || ask->op > RAFT_CONF_UPDATE))
        return E_MALFORMED_REQUEST;
    if (ask->name.len > CHANGE_TEXT_BYTES_MAX || ask->client_urls.len > CHANGE_TEXT_BYTES_MAX)
        return E_TOO_BIG;
    if (c->count == CHANGE_ASKS_MAX)
        return E_REQUEST_TOO_MANY_REQUESTS;
    return wants_urls ? change_urls(ask->peer_urls, urls) : 0;
}

void change_add(struct change *c, const struct change_ask *ask, uint64_t now_ms)
{
    struct buf urls = BUF_INIT;
    int err = ask_check(c, ask, &urls);

    if (err) {
        c->ops->answer(c->arg, ask, err, ask->id, 0);
        buf_fini(&urls);
        return;
    }
    struct ask *a = xcalloc(1, sizeof(*a));

    a->is = *ask;
    a->id = ask->id;
    a->name = slice_dup_str(ask->name);
    a->peer_urls = slice_dup_str(buf_slice(&urls));
    a->client_urls = slice_dup_str(ask->client_urls);
    a->is.name = slice_str(a->name);
    a->is.peer_urls = slice_str(a->peer_urls);
    a->is.client_urls = slice_str(a->client_urls);
    a->tag = ++c->tag_last;
    a->until_ms = now_ms + c->conf.wait_ms;
    TAILQ_INSERT_TAIL(&c->asks, a, entry);
    c->count++;
    buf_fini(&urls);
}

void change_said(struct change *c, uint64_t tag, int err, uint64_t id, uint64_t index)
{
    struct ask *a = ask_find(c, tag);

    if (!a || a->state != ASK_FORWARDED)
        return; /* it timed out */
    if (err == E_NO_LEADER) { /* whom we took for the leader is none, and did nothing */
        a->state = ASK_WAITS;
        return;
    }
    a->id = id;
    a->index = index;
    a->refused = err;
    a->state = ASK_AGREED;
}

void change_refused(struct change *c, uint64_t tag, int err)
{
    struct ask *a = ask_find(c, tag);

    if (!a)
        return;
    /* No change can be made just now: the core is not settled again, or leadership goes elsewhere. It waits. */
    if (err == E_UNHEALTHY || err == E_LEADER_CHANGED || err == E_NO_LEADER || err == E_NOT_LEADER)
        a->state = ASK_WAITS;
    else
        a->refused = err;
}

void change_committed(struct change *c, uint64_t index, uint64_t term, int err)
{
    struct ask *a;

    TAILQ_FOREACH(a, &c->asks, entry)
        if (a->state == ASK_PROPOSED && a->index == index && a->term == term) {
            a->state = ASK_AGREED;
            a->refused = err;
        }
}

/* --- what can be done now --------------------------------------------------------------------------- */

/* An id that no member has or had: URLs, token and time make it, as etcd's. */
static uint64_t new_id(const struct change *c, const struct change_state *s, const struct ask *a)
{
    uint64_t id, salt = s->wall_s;

    do {
        char *token = xasprintf("%s%llu", c->conf.token, (unsigned long long)salt++);

        id = boot_member_id(a->peer_urls, token);
        free(token);
    } while (id == RAFT_NONE || members_find(s->members, id) || members_was_removed(s->members, id));
    return id;
}

/* The change as an entry says it. An update sets some attributes; the others stay what they are in the table. */
static struct raft_conf_change change_of(const struct ask *a, const struct member *now)
{
    struct raft_conf_change change = {.op = a->is.op, .id = a->id, .peer_urls = a->is.peer_urls};

    if (a->is.op == RAFT_CONF_UPDATE && now) {
        change.name = a->is.fields & CHANGE_NAME ? a->is.name : slice_str(now->name);
        change.peer_urls = a->is.fields & CHANGE_PEER_URLS ? a->is.peer_urls : slice_str(now->peer_urls);
        change.client_urls = a->is.fields & CHANGE_CLIENT_URLS ? a->is.client_urls : slice_str(now->client_urls);
    }
    return change;
}

/* 0, or the reason why not. */
static int ask_propose(struct change *c, struct ask *a, const struct change_state *s)
{
    struct buf bytes = BUF_INIT;

    if (is_addition(a->is.op))
        a->id = new_id(c, s, a);

    struct raft_conf_change change = change_of(a, members_find(s->members, a->id));
    int err = change_check(&c->conf, s, c->ops, c->arg, &change);

    if (err)
        return err;
    raft_conf_encode(&bytes, &change);
    a->state = ASK_PROPOSED;
    a->term = s->term;
    a->refused = 0;
    a->index = c->ops->propose(c->arg, a->tag, entry_new(ENTRY_CONF, buf_slice(&bytes)));
    buf_fini(&bytes);
    if (a->index == 0 && !a->refused)
        a->state = ASK_WAITS; /* unless change_refused says that it will never be */
    return a->refused;
}

static int ask_move(struct change *c, struct ask *a, const struct change_state *s)
{
    const struct member *m = members_find(s->members, a->id);

    if (s->leader != s->self)
        return s->leader == RAFT_NONE ? E_NO_LEADER : E_NOT_LEADER;
    if (!m || m->is_learner)
        return E_BAD_LEADER_TRANSFEREE;
    a->state = ASK_MOVING;
    if (a->id != s->self)
        c->ops->transfer(c->arg, a->id);
    return 0;
}

/* True: something may have gone to the core. */
static bool ask_try(struct change *c, struct ask *a, const struct change_state *s, bool *busy)
{
    int err = 0;
    bool did = false;

    if (a->is.op == CHANGE_MOVE_LEADER) {
        err = ask_move(c, a, s);
        did = true;
    } else if (s->leads) {
        if (*busy)
            return false;
        err = ask_propose(c, a, s);
        *busy = a->state == ASK_PROPOSED;
        did = true;
    } else if (a->is.from == CHANGE_GATEWAY && (err = check_strict(&c->conf, s, c->ops, c->arg, a->is.op, a->id)) != 0) {
        a->refused = err;
    } else if (s->leader != RAFT_NONE && s->leader != s->self && a->is.from == CHANGE_PEER) {
        err = E_NO_LEADER; /* it was sent to us as the leader: no second hop, the asker knows better by now */
    } else if (s->leader != RAFT_NONE && s->leader != s->self && c->ops->forward(c->arg, s->leader, a->tag, &a->is)) {
        a->state = ASK_FORWARDED;
        a->leader = s->leader;
    }
    if (err)
        a->refused = err;
    return did;
}

/* Ends a request that has come to its end. False: it waits on. */
static bool ask_finish(struct change *c, struct ask *a, const struct change_state *s)
{
    if (a->refused) {
        ask_end(c, a, a->refused);
        return true;
    }
    /* Our own removal does not reach our log any more. */
    if (a->state == ASK_AGREED && (a->index <= s->commit || (a->is.op == RAFT_CONF_REMOVE && a->id == s->self))) {
        ask_end(c, a, 0);
        return true;
    }
    if (a->state == ASK_MOVING && s->leader == a->id) {
        ask_end(c, a, 0);
        return true;
    }
    if (a->until_ms <= s->now_ms) {
        ask_end(c, a, a->state == ASK_MOVING ? E_TIMEOUT_LEADER_TRANSFER : E_TIMEOUT);
        return true;
    }
    return false;
}

/* What another term made of it. */
static void ask_review(struct ask *a, const struct change_state *s)
{
    /* We lead again and have settled: had its entry survived, it would be committed, and we would know. */
    if (a->state == ASK_PROPOSED && a->term != s->term && s->leads)
        a->state = ASK_WAITS;
    if (a->state == ASK_FORWARDED && a->leader != s->leader && a->is.op == RAFT_CONF_UPDATE)
        a->state = ASK_WAITS;
}

bool change_run(struct change *c, const struct change_state *s)
{
    struct ask *a, *next;
    bool busy = false, did = false;

    for (a = TAILQ_FIRST(&c->asks); a; a = next) {
        next = TAILQ_NEXT(a, entry);
        if (!a->refused)
            ask_review(a, s);
        if (ask_finish(c, a, s))
            continue;
        busy = busy || (a->state == ASK_PROPOSED && a->term == s->term);
    }
    for (a = TAILQ_FIRST(&c->asks); a; a = next) {
        next = TAILQ_NEXT(a, entry);
        if (a->state != ASK_WAITS)
            continue;
        did = ask_try(c, a, s, &busy) || did;
        ask_finish(c, a, s);
    }
    return did;
}

uint64_t change_deadline(const struct change *c)
{
    const struct ask *a = TAILQ_FIRST(&c->asks);

    return a ? a->until_ms : UINT64_MAX;
}
