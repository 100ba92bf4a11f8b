/* recorder - see recorder.h. */
#include "tests/lib/recorder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "proto/api.h"
#include "proto/pb.h"

#define RANGE_PATH "/etcdserverpb.KV/Range"
#define PUT_PATH "/etcdserverpb.KV/Put"
#define DELETE_PATH "/etcdserverpb.KV/DeleteRange"
#define TXN_PATH "/etcdserverpb.KV/Txn"

#define CALL_US 3000000   /* then the client gives up, and the operation stays open */
#define PROBE_US 10000000 /* a read may come back late: that is what probers are for */
#define PROBE_EVERY_US 20000
#define PROBES_MAX 200
#define PAUSE_US 20000 /* after an error, and between attempts to connect */

struct recorder_call {
    struct recorder_client *client;
    struct gcall *gcall;
    struct recorder_call *prev, *next;
    uint64_t give_up_us; /* 0: it was */
    size_t op, op_count; /* positions in the record */
    struct buf reply;
};

int endpoints_parse(const char *text, struct endpoint *endpoints)
{
    int count = 0;
    while (count < ENDPOINTS_MAX) {
        int used = 0;
        struct endpoint *e = &endpoints[count];
        if (sscanf(text, "%63[^:,]:%d%n", e->host, &e->port, &used) != 2)
            return 0;
        count++;
        text += used;
        if (*text == '\0')
            return count;
        if (*text++ != ',')
            return 0;
    }
    return 0;
}

void recorder_init(struct recorder *r, const struct endpoint *endpoints, int endpoint_count, const char *prefix,
                   int clients_each)
{
    *r = (struct recorder){.endpoints = endpoints, .key_count = 4, .rate = 100};
    snprintf(r->prefix, sizeof(r->prefix), "%s", prefix);
    rand_seed(&r->rand, rand_system_u64());
    r->client_count = (size_t)endpoint_count * (size_t)(clients_each + 1);
    r->clients = xcalloc(r->client_count, sizeof(*r->clients));
    for (size_t i = 0; i < r->client_count; i++)
        r->clients[i] = (struct recorder_client){
            .recorder = r, .endpoint = (int)(i % (size_t)endpoint_count), .prober = i < (size_t)endpoint_count};
}

void recorder_fini(struct recorder *r)
{
    r->stopped = true;
    for (size_t i = 0; i < r->client_count; i++)
        gclient_free(r->clients[i].client);
    free(r->clients);
    free(r->ops);
}

int recorder_key(const struct recorder *r, struct slice key)
{
    size_t prefix = strlen(r->prefix);
    if (key.len <= prefix || key.len > prefix + 4 || memcmp(key.data, r->prefix, prefix) != 0)
        return -1;
    int number = 0;
    for (size_t i = prefix; i < key.len; i++)
        number = number * 10 + key.data[i] - '0';
    return number >= 0 && number < r->key_count ? number : -1;
}

uint64_t recorder_value(struct slice value)
{
    uint64_t number = 0;
    for (size_t i = 0; i < value.len && i < 19; i++)
        number = number * 10 + (uint64_t)(value.data[i] - '0');
    return number;
}

size_t recorder_open(const struct recorder *r)
{
    size_t open = 0;
    for (size_t i = 0; i < r->client_count; i++)
        open += r->clients[i].busy;
    return open;
}

/* --- answers ---------------------------------------------------------------------------------------- */

static int64_t header_rev(struct slice header)
{
    struct pb_field f;
    while (pb_next(&header, &f) == 1)
        if (f.number == 3)
            return (int64_t)f.varint;
    return 0;
}

static bool kv_found(struct lin_op *op, struct slice bytes)
{
    struct api_key_value kv;
    if (api_decode_key_value(bytes, &kv) != 0)
        return false;
    op->found = recorder_value(kv.value);
    op->found_rev = kv.mod_revision;
    return op->found && op->found_rev;
}

/* RangeResponse, also inside of a ResponseOp of a transaction. */
static bool range_found(struct lin_op *op, struct slice response)
{
    struct pb_field f;
    bool good = true;
    op->told = true;
    while (pb_next(&response, &f) == 1) {
        if (f.number == 1)
            op->rev = header_rev(f.bytes);
        else if (f.number == 2)
            good = good && kv_found(op, f.bytes);
    }
    return good;
}

static bool txn_found(struct lin_op *op, struct slice response)
{
    struct pb_field f, inner;
    bool good = true;
    int64_t rev = 0;
    op->done = false;
    op->told = false;
    while (pb_next(&response, &f) == 1) {
        if (f.number == 1)
            rev = header_rev(f.bytes);
        else if (f.number == 2)
            op->done = f.varint;
        else if (f.number == 3 && pb_next(&f.bytes, &inner) == 1 && inner.number == 1)
            good = good && range_found(op, inner.bytes);
    }
    op->rev = rev; /* those inside have none */
    return good && op->done != op->told;
}

static bool change_found(struct lin_op *op, struct slice response)
{
    struct pb_field f;
    bool good = true;
    while (pb_next(&response, &f) == 1) {
        if (f.number == 1)
            op->rev = header_rev(f.bytes);
        else if (f.number == 2 && op->kind == LIN_PUT && op->told)
            good = good && kv_found(op, f.bytes);
        else if (f.number == 2 && op->kind == LIN_DELETE)
            op->done = f.varint != 0;
    }
    return good;
}

static bool answer_found(struct lin_op *op, struct slice reply)
{
    switch (op->kind) {
    case LIN_GET:
    case LIN_SERIAL_GET:
        return range_found(op, reply) && op->rev > 0;
    case LIN_CAS:
        return txn_found(op, reply) && op->rev > 0;
    case LIN_PUT:
    case LIN_DELETE:
        break;
    }
    return change_found(op, reply) && op->rev > 0;
}

/* What later comparisons expect. */
static void latest_note(struct recorder *r, const struct lin_op *op)
{
    if (op->rev < r->latest[op->key].seen)
        return;
    r->latest[op->key].seen = op->rev;
    if (op->kind == LIN_PUT || (op->kind == LIN_CAS && op->done)) {
        r->latest[op->key].value = op->value;
        r->latest[op->key].rev = op->rev;
    } else if (op->kind == LIN_DELETE) {
        r->latest[op->key].value = 0;
        r->latest[op->key].rev = 0;
    } else {
        r->latest[op->key].value = op->found;
        r->latest[op->key].rev = op->found_rev;
    }
}

static void call_message(struct gcall *gcall, struct slice message, void *arg)
{
    UNUSED(gcall);
    struct recorder_call *call = arg;
    buf_add_slice(&call->reply, message);
}

static void call_end(struct gcall *gcall, int status, const char *text, void *arg)
{
    UNUSED(gcall);
    struct recorder_call *call = arg;
    struct recorder *r = call->client->recorder;
    uint64_t now = clock_now_us();
    for (size_t i = call->op; status == 0 && i < call->op + call->op_count; i++) {
        struct lin_op *op = &r->ops[i];
        if (!answer_found(op, buf_slice(&call->reply))) {
            if (r->bad_answers++ == 0)
                snprintf(r->last_error, sizeof(r->last_error), "an answer to an operation of kind %d that cannot be",
                         op->kind);
            continue; /* stays open */
        }
        op->ended = ++r->tick;
        latest_note(r, op);
    }
    if (status != 0 && r->bad_answers == 0)
        snprintf(r->last_error, sizeof(r->last_error), "status %d: %s", status, text);
    call->client->busy--;
    if (!call->client->prober)
        call->client->next_us = now + (status == 0 ? 1000000 / r->rate : PAUSE_US);
    if (call->prev)
        call->prev->next = call->next;
    else
        r->calls = call->next;
    if (call->next)
        call->next->prev = call->prev;
    buf_fini(&call->reply);
    free(call);
}

/* --- questions -------------------------------------------------------------------------------------- */

static struct lin_op *op_new(struct recorder *r, enum lin_kind kind, int key, int place)
{
    if (r->op_count == r->op_cap) {
        r->op_cap = r->op_cap ? r->op_cap * 2 : 1024;
        r->ops = xrealloc(r->ops, r->op_cap * sizeof(*r->ops));
    }
    struct lin_op *op = &r->ops[r->op_count++];
    *op = (struct lin_op){.kind = kind, .key = key, .place = place, .called = r->tick, .ended = LIN_OPEN};
    if (kind == LIN_PUT || kind == LIN_CAS)
        op->value = ++r->tick; /* a number nobody else gets */
    op->called = ++r->tick;
    return op;
}

struct text {
    char bytes[96];
};

static struct slice key_text(const struct recorder *r, int key, struct text *t)
{
    int n = snprintf(t->bytes, sizeof(t->bytes), "%s%d", r->prefix, key);
    return slice_of(t->bytes, (size_t)n);
}

static struct slice value_text(uint64_t value, struct text *t)
{
    int n = snprintf(t->bytes, sizeof(t->bytes), "%llu", (unsigned long long)value);
    return slice_of(t->bytes, (size_t)n);
}

static const char *ask_get(struct recorder *r, int place, struct buf *b, bool serial)
{
    struct text key;
    struct lin_op *op =
        op_new(r, serial ? LIN_SERIAL_GET : LIN_GET, (int)rand_below(&r->rand, (uint64_t)r->key_count), place);
    api_encode_range(b, &(struct api_range){.key = key_text(r, op->key, &key), .serializable = serial || r->pretend});
    return RANGE_PATH;
}

static const char *ask_put(struct recorder *r, int place, struct buf *b)
{
    struct text key, value;
    struct lin_op *op = op_new(r, LIN_PUT, (int)rand_below(&r->rand, (uint64_t)r->key_count), place);
    op->told = rand_below(&r->rand, 2);
    api_encode_put(b, &(struct api_put){.key = key_text(r, op->key, &key),
                                        .value = value_text(op->value, &value),
                                        .prev_kv = op->told});
    return PUT_PATH;
}

static const char *ask_delete(struct recorder *r, int place, struct buf *b)
{
    struct text key;
    struct lin_op *op = op_new(r, LIN_DELETE, (int)rand_below(&r->rand, (uint64_t)r->key_count), place);
    api_encode_delete(b, &(struct api_delete){.key = key_text(r, op->key, &key)});
    return DELETE_PATH;
}

static const char *ask_cas(struct recorder *r, int place, struct buf *b)
{
    struct text key, value;
    struct lin_op *op = op_new(r, LIN_CAS, (int)rand_below(&r->rand, (uint64_t)r->key_count), place);
    op->expected = r->latest[op->key].value;
    struct slice k = key_text(r, op->key, &key);
    struct api_compare compare = {.target = API_MOD, .result = API_EQUAL, .key = k, .number = r->latest[op->key].rev};
    struct api_request_op put = {.op = API_OP_PUT, .put = {.key = k, .value = value_text(op->value, &value)}};
    struct api_request_op get = {.op = API_OP_RANGE, .range = {.key = k}};
    api_encode_txn(b, &(struct api_txn){.compares = &compare,
                                        .compare_count = 1,
                                        .success = &put,
                                        .success_count = 1,
                                        .failure = &get,
                                        .failure_count = 1});
    return TXN_PATH;
}

/* Two puts of one revision: watchers must get both in one message. */
static const char *ask_pair(struct recorder *r, int place, struct buf *b)
{
    struct text keys[2], values[2];
    struct api_request_op puts[2];
    int first = (int)rand_below(&r->rand, (uint64_t)r->key_count);
    for (int i = 0; i < 2; i++) {
        struct lin_op *op = op_new(r, LIN_PUT, (first + i) % r->key_count, place);
        puts[i] = (struct api_request_op){
            .op = API_OP_PUT,
            .put = {.key = key_text(r, op->key, &keys[i]), .value = value_text(op->value, &values[i])}};
    }
    api_encode_txn(b, &(struct api_txn){.success = puts, .success_count = 2});
    return TXN_PATH;
}

static const char *ask_any(struct recorder *r, int place, struct buf *b)
{
    uint64_t dice = rand_below(&r->rand, 100);
    if (dice < 30)
        return ask_get(r, place, b, false);
    if (dice < 40)
        return ask_get(r, place, b, true);
    if (dice < 65)
        return ask_put(r, place, b);
    if (dice < 85)
        return ask_cas(r, place, b);
    return dice < 92 || r->key_count < 2 ? ask_delete(r, place, b) : ask_pair(r, place, b);
}

static bool client_connected(struct recorder_client *c, uint64_t now)
{
    const struct endpoint *e = &c->recorder->endpoints[c->endpoint];
    if (c->client && gclient_lost(c->client)) {
        gclient_free(c->client);
        c->client = NULL;
        c->next_us = now + PAUSE_US;
        return false;
    }
    if (!c->client && !(c->client = gclient_connect(e->host, e->port)))
        c->next_us = now + PAUSE_US;
    return c->client != NULL;
}

static void client_go(struct recorder_client *c, uint64_t now)
{
    static const struct gcall_ops ops = {call_message, call_end};
    struct recorder *r = c->recorder;
    if (r->stopped || now < c->next_us || c->busy >= (c->prober ? PROBES_MAX : 1u) || !client_connected(c, now))
        return;
    struct buf request = BUF_INIT;
    struct recorder_call *call = xcalloc(1, sizeof(*call));
    *call = (struct recorder_call){
        .client = c, .op = r->op_count, .give_up_us = now + (c->prober ? PROBE_US : CALL_US), .next = r->calls};
    const char *path = c->prober ? ask_get(r, c->endpoint, &request, false) : ask_any(r, c->endpoint, &request);
    call->op_count = r->op_count - call->op;
    if (c->prober)
        c->next_us = now + PROBE_EVERY_US;
    call->gcall = gcall_start(c->client, path, buf_slice(&request), true, NULL, &ops, call);
    if (call->gcall) {
        if (r->calls)
            r->calls->prev = call;
        r->calls = call;
        c->busy++;
    } else {
        free(call);
    }
    buf_fini(&request);
}

void recorder_go(struct recorder *r)
{
    uint64_t now = clock_now_us();
    for (size_t i = 0; i < r->client_count; i++)
        client_go(&r->clients[i], now);
    for (struct recorder_call *call = r->calls; call; call = call->next)
        if (call->give_up_us && now > call->give_up_us) {
            call->give_up_us = 0;
            gcall_cancel(call->gcall); /* its end comes with the next flush */
        }
}
