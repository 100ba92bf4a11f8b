/* queue - standing in line: queue.h. From lock.c and election.c; to inner.c, and to watch.c as a listener.
 *
 * What is true after restarts of siblings is found out by looking: LOOKING reads the key before ours and ours in one
 * transaction, and whatever wakes a waiting place (the deletion, a lost history, a lease that has ended) makes it look again. */
#include "gatewayd/queue.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "gatewayd/watch.h"
#include "proto/api.h"
#include "proto/pb.h"

/* After an error that will pass. */
#define QUEUE_RETRY_MS 500
/* What cannot be deleted for so often is left to its lease. */
#define QUEUE_LEAVE_TRIES 20
/* So many may be leaving with siblings away; those above it are left to their leases. */
#define QUEUE_LEAVING_MAX 16384

enum contender_state { GRANTING, ENTERING, PROCLAIMING, LOOKING, WAITING, LEAVING };

struct contender {
    enum contender_state state;
    const struct queue_kind *kind;
    struct call *call; /* NULL: gone, or answered with an error */
    struct gatewayd *g;
    struct contender *prev, *next; /* of g */
    struct inner main;
    struct buf user; /* of the call, once that is gone */
    struct identity who;
    struct buf prefix, prefix_end, value, key;
    struct buf entry; /* header of ENTERING's answer */
    int64_t lease;
    bool own_lease;
    int64_t rev;              /* create revision of our key; 0: not known to be there */
    struct listener listener; /* on the key before ours */
    struct deadline again;    /* look, or leave, once more */
    unsigned tries;
    /* the lease */
    struct inner renewal;
    struct deadline renew;
    bool renewing;
};

static void look(struct contender *p);
static void leave(struct contender *p);

static const struct identity *who_of(const struct contender *p)
{
    return p->call != NULL ? call_identity(p->call) : &p->who;
}

/* --- the lease, while waiting ------------------------------------------------------------------------------------ */

static void renew_now(struct contender *p)
{
    struct buf body = BUF_INIT;
    pb_add_int(&body, 1, p->lease);
    if (p->renewal.req != 0 || inner_send(&p->renewal, who_of(p), COMMAND_LEASE_KEEP_ALIVE, buf_slice(&body)) != OK) {
        deadline_set(p->g, &p->renew, gatewayd_now_ms(p->g) + QUEUE_RETRY_MS);
    }
    buf_fini(&body);
}

static void renew_fired(struct deadline *d, uint64_t now_ms)
{
    UNUSED(now_ms);
    renew_now(container_of(d, struct contender, renew));
}

static void renewed(struct inner *in, int err)
{
    struct contender *p = container_of(in, struct contender, renewal);
    struct slice body = buf_slice(&in->body);
    struct pb_field f;
    int64_t ttl = 0;
    while (err == OK && pb_next(&body, &f) == 1) {
        if (f.number == 3 && f.wire == PB_VARINT) {
            ttl = (int64_t)f.varint;
        }
    }
    if (err != OK && !inner_may_retry(in, err)) {
        if (p->state == WAITING) {
            deadline_set(p->g, &p->again, gatewayd_now_ms(p->g)); /* may we still stand here? */
        }
        return; /* not ours to renew */
    }
    /* An expired lease takes our key with it: better to hear of that now than when our turn comes. */
    if (err == OK && ttl <= 0 && p->state == WAITING) {
        deadline_set(p->g, &p->again, gatewayd_now_ms(p->g));
    }
    uint64_t third = (uint64_t)MAX(ttl, 0) * 1000 / 3;
    deadline_set(p->g, &p->renew, gatewayd_now_ms(p->g) + MAX(third, (uint64_t)QUEUE_RETRY_MS));
}

static void renew_start(struct contender *p)
{
    if (!p->renewing) {
        p->renewing = true;
        renew_now(p);
    }
}

/* --- birth and death ------------------------------------------------------------------------------------------------ */

static void contender_free(struct contender *p)
{
    struct gatewayd *g = p->g;
    listener_stop(&p->listener);
    deadline_stop(g, &p->again);
    deadline_stop(g, &p->renew);
    inner_fini(&p->main);
    inner_fini(&p->renewal);
    *(p->prev != NULL ? &p->prev->next : &g->contenders) = p->next;
    if (p->next != NULL) {
        p->next->prev = p->prev;
    }
    g->contender_count--;
    buf_fini(&p->user);
    buf_fini(&p->prefix);
    buf_fini(&p->prefix_end);
    buf_fini(&p->value);
    buf_fini(&p->key);
    buf_fini(&p->entry);
    free(p);
}

/* The call hears nothing from us any more. */
static void let_go(struct contender *p)
{
    const struct identity *who = call_identity(p->call);
    buf_add_slice(&p->user, who->user);
    p->who = (struct identity){.user = buf_slice(&p->user), .auth_rev = who->auth_rev};
    call_set_state(p->call, NULL);
    p->call = NULL;
    listener_stop(&p->listener);
    deadline_stop(p->g, &p->again);
    deadline_stop(p->g, &p->renew);
    inner_fini(&p->renewal);
}

static void won(struct contender *p, struct slice header)
{
    struct call *c = p->call;
    struct place place = {buf_slice(&p->key), p->rev, p->lease, buf_slice(&p->entry), header};
    call_set_state(c, NULL);
    p->kind->won(c, &place);
    contender_free(p);
}

/* NULL: the text of err, or what stored says. */
static void lost(struct contender *p, int err, const char *text)
{
    struct call *c = p->call;
    char *own = text == NULL ? slice_dup_str(buf_slice(&p->main.text)) : NULL;
    let_go(p);
    inner_fail(c, err, slice_str(text != NULL ? text : own));
    free(own);
    leave(p);
}

/* --- LEAVING --------------------------------------------------------------------------------------------------------- */

static void delete_key(struct contender *p, struct buf *body)
{
    struct api_compare same = {.result = API_EQUAL, .target = API_CREATE, .key = buf_slice(&p->key), .number = p->rev};
    struct api_request_op gone = {.op = API_OP_DELETE, .del = {.key = buf_slice(&p->key)}};
    api_encode_txn(body, &(struct api_txn){.compares = &same, .compare_count = 1, .success = &gone, .success_count = 1});
}

static void leave_later(struct contender *p)
{
    if (++p->tries >= QUEUE_LEAVE_TRIES || p->g->contender_count > QUEUE_LEAVING_MAX) {
        contender_free(p);
    } else {
        deadline_set(p->g, &p->again, gatewayd_now_ms(p->g) + QUEUE_RETRY_MS);
    }
}

/* A lease of our own goes, and our key with it. Of somebody else's only the key, if it is still the one we have put. */
static void leave(struct contender *p)
{
    must(p->call == NULL && p->main.req == 0);
    p->state = LEAVING;
    bool has_lease = p->own_lease && p->lease != 0;
    if (!has_lease && p->rev == 0) {
        contender_free(p);
        return;
    }
    struct buf body = BUF_INIT;
    if (has_lease) {
        pb_add_int(&body, 1, p->lease);
    } else {
        delete_key(p, &body);
    }
    int err = inner_send(&p->main, who_of(p), has_lease ? COMMAND_LEASE_REVOKE : COMMAND_TXN, buf_slice(&body));
    buf_fini(&body);
    if (err != OK) {
        leave_later(p);
    }
}

/* --- ENTERING -------------------------------------------------------------------------------------------------------- */

static void send(struct contender *p, enum contender_state state, const struct api_txn *txn)
{
    struct buf body = BUF_INIT;
    p->state = state;
    api_encode_txn(&body, txn);
    int err = inner_send(&p->main, who_of(p), COMMAND_TXN, buf_slice(&body));
    buf_fini(&body);
    if (err != OK) {
        lost(p, err, NULL);
    }
}

static void enter(struct contender *p)
{
    char hex[20];
    uint64_t size = p->lease < 0 ? -(uint64_t)p->lease : (uint64_t)p->lease;
    snprintf(hex, sizeof(hex), "%s%" PRIx64, p->lease < 0 ? "-" : "", size);
    buf_add_slice(&p->key, buf_slice(&p->prefix));
    buf_add_str(&p->key, hex);

    struct slice key = buf_slice(&p->key);
    struct api_range oldest = inner_oldest(buf_slice(&p->prefix), buf_slice(&p->prefix_end));
    oldest.keys_only = true;
    struct api_compare is_new = {.result = API_EQUAL, .target = API_CREATE, .key = key, .number = 0};
    struct api_request_op put[] = {{.op = API_OP_PUT, .put = {.key = key, .value = buf_slice(&p->value), .lease = p->lease}},
        {.op = API_OP_RANGE, .range = oldest}};
    struct api_request_op get[] = {{.op = API_OP_RANGE, .range = {.key = key}}, {.op = API_OP_RANGE, .range = oldest}};
    send(p, ENTERING, &(struct api_txn){&is_new, 1, put, 2, get, 2});
}

/* The same value again is not put again. */
static void proclaim(struct contender *p)
{
    struct slice key = buf_slice(&p->key);
    struct api_compare same = {.result = API_EQUAL, .target = API_CREATE, .key = key, .number = p->rev};
    struct api_request_op put = {.op = API_OP_PUT, .put = {.key = key, .value = buf_slice(&p->value), .lease = p->lease}};
    send(p, PROCLAIMING, &(struct api_txn){.compares = &same, .compare_count = 1, .success = &put, .success_count = 1});
}

static bool create_revision(struct slice kv, int64_t *rev)
{
    struct api_key_value m;
    if (kv.len == 0 || api_decode_key_value(kv, &m) != OK) {
        return false;
    }
    *rev = m.create_revision;
    return true;
}

static void entered(struct contender *p)
{
    struct inner_txn t;
    struct api_key_value mine = {.create_revision = 0};
    if (!inner_txn_decode(buf_slice(&p->main.body), &t) ||
        (!t.succeeded && (t.ranges[0].kv.len == 0 || api_decode_key_value(t.ranges[0].kv, &mine) != OK))) {
        lost(p, E_MALFORMED, NULL);
        return;
    }
    p->rev = t.succeeded ? t.revision : mine.create_revision;
    buf_add_slice(&p->entry, t.header);
    int64_t oldest = p->rev;
    create_revision(t.ranges[1].kv, &oldest);
    if (!t.succeeded && p->kind->has_value && !slice_eq(mine.value, buf_slice(&p->value))) {
        proclaim(p);
    } else if (oldest == p->rev) {
        won(p, buf_slice(&p->entry));
    } else {
        look(p);
    }
}

static void proclaimed(struct contender *p)
{
    struct inner_txn t;
    if (!inner_txn_decode(buf_slice(&p->main.body), &t)) {
        lost(p, E_MALFORMED, NULL);
    } else if (!t.succeeded) {
        lost(p, E_INNER, p->kind->lost_text);
    } else {
        look(p);
    }
}

/* --- LOOKING and WAITING ------------------------------------------------------------------------------------------------ */

static void look(struct contender *p)
{
    struct slice key = buf_slice(&p->key);
    struct api_range before = inner_oldest(buf_slice(&p->prefix), buf_slice(&p->prefix_end));
    before.sort_order = API_SORT_DESCEND;
    before.max_create = p->rev - 1;
    before.keys_only = true;
    struct api_request_op get[] = {{.op = API_OP_RANGE, .range = before}, {.op = API_OP_RANGE, .range = {.key = key, .keys_only = true}}};
    listener_stop(&p->listener);
    deadline_stop(p->g, &p->again);
    renew_start(p);
    send(p, LOOKING, &(struct api_txn){.success = get, .success_count = 2});
}

static void looked(struct contender *p)
{
    struct inner_txn t;
    struct api_key_value before;
    int64_t mine = 0;
    if (!inner_txn_decode(buf_slice(&p->main.body), &t)) {
        lost(p, E_MALFORMED, NULL);
        return;
    }
    if (!create_revision(t.ranges[1].kv, &mine) || mine != p->rev) {
        p->rev = 0; /* nothing of ours is left */
        lost(p, E_INNER, p->kind->lost_text);
        return;
    }
    if (t.ranges[0].kv.len == 0) {
        won(p, t.header);
        return;
    }
    int err = api_decode_key_value(t.ranges[0].kv, &before);
    if (err == OK) {
        err = listener_start(&p->listener, p->call, before.key, SLICE_EMPTY, t.revision + 1);
    }
    if (err != OK) {
        lost(p, err, NULL);
        return;
    }
    p->state = WAITING;
}

static void look_soon(struct listener *l)
{
    struct contender *p = container_of(l, struct contender, listener);
    deadline_set(p->g, &p->again, gatewayd_now_ms(p->g));
}

static void heard(struct listener *l, bool is_delete, struct slice kv)
{
    UNUSED(kv);
    if (is_delete) {
        look_soon(l);
    }
}

static void again_fired(struct deadline *d, uint64_t now_ms)
{
    UNUSED(now_ms);
    struct contender *p = container_of(d, struct contender, again);
    if (p->state == LEAVING) {
        leave(p);
    } else {
        look(p);
    }
}

/* --- all answers ---------------------------------------------------------------------------------------------------------- */

static void granted(struct contender *p)
{
    struct slice body = buf_slice(&p->main.body);
    struct pb_field f;
    while (pb_next(&body, &f) == 1) {
        if (f.number == 2 && f.wire == PB_VARINT) {
            p->lease = (int64_t)f.varint;
        }
    }
}

/* The call went away while it was being found out what there is to tidy up. */
static void answered_late(struct contender *p, int err)
{
    struct inner_txn t;
    /* A key that was there already was somebody's before this call: etcd's client would delete it too, but only while waiting. */
    if (err == OK && p->state == ENTERING && inner_txn_decode(buf_slice(&p->main.body), &t) && t.succeeded) {
        p->rev = t.revision;
    }
    leave(p);
}

static void main_answered(struct inner *in, int err)
{
    struct contender *p = container_of(in, struct contender, main);
    if (p->state == LEAVING) {
        if (err != OK && inner_may_retry(in, err)) {
            leave_later(p);
        } else {
            contender_free(p);
        }
        return;
    }
    if (err == OK && p->state == GRANTING) {
        granted(p);
    }
    if (p->call == NULL) {
        answered_late(p, err);
        return;
    }
    /* Looking changes nothing, and who waits may wait until everybody is back. */
    if (err != OK && p->state == LOOKING && inner_may_retry(in, err)) {
        p->state = WAITING;
        deadline_set(p->g, &p->again, gatewayd_now_ms(p->g) + QUEUE_RETRY_MS);
        return;
    }
    if (err != OK) {
        lost(p, err, NULL);
        return;
    }
    switch (p->state) {
    case GRANTING: enter(p); break;
    case ENTERING: entered(p); break;
    case PROCLAIMING: proclaimed(p); break;
    case LOOKING: looked(p); break;
    case WAITING:
    case LEAVING: break;
    }
}

/* --- calls ------------------------------------------------------------------------------------------------------------------ */

static void grant(struct contender *p)
{
    struct buf body = BUF_INIT;
    pb_add_int(&body, 1, QUEUE_LEASE_S);
    p->own_lease = true;
    p->state = GRANTING;
    int err = inner_send(&p->main, who_of(p), COMMAND_LEASE_GRANT, buf_slice(&body));
    buf_fini(&body);
    if (err != OK) {
        lost(p, err, NULL);
    }
}

void queue_join(struct call *c, const struct queue_kind *kind, struct slice name, int64_t lease, struct slice value)
{
    struct gatewayd *g = call_gateway(c);
    struct contender *p = xcalloc(1, sizeof(*p));
    p->kind = kind;
    p->call = c;
    p->g = g;
    p->lease = lease;
    inner_init(&p->main, g, main_answered);
    inner_init(&p->renewal, g, renewed);
    p->listener = (struct listener){.event = heard, .lost = look_soon};
    p->again.fire = again_fired;
    p->renew.fire = renew_fired;
    p->next = g->contenders;
    if (p->next != NULL) {
        p->next->prev = p;
    }
    g->contenders = p;
    g->contender_count++;
    buf_add_slice(&p->prefix, name);
    buf_add_byte(&p->prefix, '/');
    inner_prefix_end(&p->prefix_end, buf_slice(&p->prefix));
    buf_add_slice(&p->value, value);
    call_set_state(c, p);
    if (lease == 0) {
        grant(p);
    } else {
        enter(p);
    }
}

void queue_closed(struct call *c)
{
    struct contender *p = call_state(c);
    if (p == NULL) {
        return;
    }
    let_go(p);
    if (p->main.req != 0 && p->state == LOOKING) {
        pending_cancel(p->g, p->main.req);
        p->main.req = 0;
    }
    if (p->main.req == 0) {
        leave(p);
    }
}

void queue_shutdown(struct gatewayd *g)
{
    struct contender *next;
    for (struct contender *p = g->contenders; p != NULL; p = next) {
        struct call *c = p->call;
        next = p->next;
        if (c != NULL) {
            queue_closed(c); /* frees at most this one */
            call_fail(c, E_STOPPED, NULL);
        }
    }
}

void queue_stop(struct gatewayd *g)
{
    while (g->contenders != NULL) {
        must(g->contenders->call == NULL);
        contender_free(g->contenders);
    }
}
