/* rpc - what etcdctl cannot say: the quirk list of spec/semantics.md §20, exact codes and texts of §19, over a real node. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/sha256.h"
#include "etcd/rpc.pb-c.h"
#include "proto/api.h"
#include "proto/pb.h"
#include "tests/lib/node.h"

static struct node node;
static struct gclient *client;
static struct buf request, reply, text;

#define KV "/etcdserverpb.KV/"

static int call_bytes(const char *path, struct slice bytes)
{
    int status = gclient_unary(client, path, bytes, &reply, &text, 10000);
    buf_add_byte(&text, 0);
    return status;
}

static int call_built(const char *path)
{
    int status = call_bytes(path, buf_slice(&request));
    buf_reset(&request);
    return status;
}

static void expect_error(int line, int status, int wanted, const char *wanted_text)
{
    check_note(status == wanted && strcmp((char *)text.data, wanted_text) == 0, __FILE__, line, "error", "wanted %d \"%s\", got %d \"%s\"", wanted,
               wanted_text, status, (char *)text.data);
}
#define EXPECT_ERROR(status, wanted, message) expect_error(__LINE__, status, wanted, message)

static int64_t header_rev(const Etcdserverpb__ResponseHeader *h)
{
    return h ? h->revision : -1;
}

static int64_t put(const char *key, const char *value)
{
    api_encode_put(&request, &(struct api_put){.key = slice_str(key), .value = slice_str(value)});
    if (!CHECK(call_built(KV "Put") == 0, "%s", (char *)text.data))
        return -1;
    Etcdserverpb__PutResponse *r = etcdserverpb__put_response__unpack(NULL, reply.len, reply.data);
    int64_t rev = r ? header_rev(r->header) : -1;
    CHECK(r && r->header->cluster_id && r->header->member_id && r->header->raft_term, "the header is full");
    etcdserverpb__put_response__free_unpacked(r, NULL);
    return rev;
}

static Etcdserverpb__RangeResponse *range(const struct api_range *m)
{
    api_encode_range(&request, m);
    if (!CHECK(call_built(KV "Range") == 0, "%s", (char *)text.data))
        return NULL;
    return etcdserverpb__range_response__unpack(NULL, reply.len, reply.data);
}

static void range_free(Etcdserverpb__RangeResponse *r)
{
    etcdserverpb__range_response__free_unpacked(r, NULL);
}

static bool bytes_are(const ProtobufCBinaryData *b, const char *s)
{
    return b->len == strlen(s) && memcmp(b->data, s, b->len) == 0;
}

static void fresh_store(void)
{
    /* quirk 1: revision 1, first put 2, HashKV.compact_revision -1 */
    Etcdserverpb__RangeResponse *r = range(&(struct api_range){.key = SLICE_LIT("none")});
    CHECK(r && header_rev(r->header) == 1 && r->count == 0 && !r->more);
    range_free(r);
    CHECK(put("a", "1") == 2);
    CHECK(call_bytes("/etcdserverpb.Maintenance/HashKV", SLICE_EMPTY) == 0);
    Etcdserverpb__HashKVResponse *h = etcdserverpb__hash_kvresponse__unpack(NULL, reply.len, reply.data);
    CHECK(h && h->compact_revision == -1 && h->hash_revision == 2 && h->hash != 0);
    etcdserverpb__hash_kvresponse__free_unpacked(h, NULL);
}

static void ranges(void)
{
    for (int i = 0; i < 5; i++) {
        char key[16];
        snprintf(key, sizeof(key), "r/%d", i);
        put(key, "v");
    }
    int64_t last = put("r/0", "w");
    struct slice end = SLICE_LIT("r0");
    Etcdserverpb__RangeResponse *r = range(&(struct api_range){.key = SLICE_LIT("r/"), .range_end = end, .limit = 2});
    CHECK(r && r->n_kvs == 2 && r->more && r->count == 5, "quirk 2: count ignores the limit");
    range_free(r);
    r = range(&(struct api_range){.key = SLICE_LIT("r/"), .range_end = end, .min_mod = last});
    CHECK(r && r->n_kvs == 1 && r->count == 5 && bytes_are(&r->kvs[0]->key, "r/0"), "count ignores the filters");
    range_free(r);
    r = range(&(struct api_range){.key = SLICE_LIT("r/"), .range_end = end, .limit = 2, .sort_target = API_BY_MOD});
    CHECK(r && r->n_kvs == 2 && bytes_are(&r->kvs[0]->key, "r/1") && bytes_are(&r->kvs[1]->key, "r/2"),
          "quirk 3: limit + 1 keys are read in key order, then sorted, then cut");
    range_free(r);
    r = range(&(struct api_range){.key = SLICE_LIT("r/"), .range_end = end, .limit = 1, .sort_order = API_SORT_DESCEND, .sort_target = API_BY_MOD});
    CHECK(r && r->n_kvs == 1 && bytes_are(&r->kvs[0]->key, "r/0") && r->more, "a sort reads all before the limit");
    range_free(r);
    r = range(&(struct api_range){.key = SLICE_LIT("r/"), .range_end = end, .revision = last - 1, .keys_only = true});
    CHECK(r && r->n_kvs == 5 && header_rev(r->header) == last && r->kvs[0]->version == 1 && r->kvs[0]->value.len == 0,
          "quirk 5: the header tells the present");
    range_free(r);
    r = range(&(struct api_range){.key = SLICE_LIT("r/"), .range_end = end, .count_only = true, .limit = 1});
    CHECK(r && r->n_kvs == 0 && r->count == 5 && !r->more);
    range_free(r);

    api_encode_range(&request, &(struct api_range){.range_end = end});
    EXPECT_ERROR(call_built(KV "Range"), 3, "etcdserver: key is not provided");
    api_encode_range(&request, &(struct api_range){.key = SLICE_LIT("a"), .sort_order = 9});
    EXPECT_ERROR(call_built(KV "Range"), 3, "etcdserver: invalid sort option");
    api_encode_range(&request, &(struct api_range){.key = SLICE_LIT("a"), .revision = last + 1000});
    EXPECT_ERROR(call_built(KV "Range"), 11, "etcdserver: mvcc: required revision is a future revision");
    EXPECT_ERROR(call_bytes(KV "NoSuch", SLICE_EMPTY), 12, "unknown method NoSuch for service etcdserverpb.KV");
    CHECK(call_bytes(KV "Range", SLICE_LIT("\xff\xff\xff\xff")) == 13, "malformed protobuf: Internal; got %s", (char *)text.data);
}

static void stream_message(struct gcall *call, struct slice message, void *arg)
{
    UNUSED(call);
    struct pb_field f;
    struct buf *all = arg;
    while (pb_next(&message, &f) == 1)
        if (f.number == 1)
            buf_add_slice(all, f.bytes); /* protobuf merges by concatenation */
}

struct stream_end {
    struct buf all;
    bool done;
    int status;
};

static void stream_ended(struct gcall *call, int status, const char *message, void *arg)
{
    UNUSED(call);
    struct stream_end *e = arg;
    buf_reset(&text);
    buf_add_str(&text, message);
    buf_add_byte(&text, 0);
    e->status = status;
    e->done = true;
}

static int range_stream(const struct api_range *m, struct stream_end *e)
{
    static const struct gcall_ops ops = {stream_message, stream_ended};
    *e = (struct stream_end){.all = BUF_INIT};
    api_encode_range(&request, m);
    gcall_start(client, KV "RangeStream", buf_slice(&request), true, NULL, &ops, e);
    buf_reset(&request);
    gclient_run(client, &e->done, 10000);
    return e->status;
}

static void range_streams(void)
{
    struct stream_end e;
    struct slice end = SLICE_LIT("s0");
    char *value = malloc(30001), key[32];
    memset(value, 'x', 30000);
    value[30000] = '\0';
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof(key), "s/%03d", i);
        put(key, value);
    }
    free(value);
    CHECK(range_stream(&(struct api_range){.key = SLICE_LIT("s/"), .range_end = end}, &e) == 0);
    Etcdserverpb__RangeResponse *streamed = etcdserverpb__range_response__unpack(NULL, e.all.len, e.all.data);
    Etcdserverpb__RangeResponse *whole = range(&(struct api_range){.key = SLICE_LIT("s/"), .range_end = end});
    CHECK(streamed && whole && streamed->n_kvs == 200 && whole->n_kvs == 200 && streamed->count == 200 && header_rev(streamed->header) == header_rev(whole->header));
    bool same = streamed && whole && streamed->n_kvs == whole->n_kvs;
    for (size_t i = 0; same && i < whole->n_kvs; i++)
        same = whole->kvs[i]->value.len == streamed->kvs[i]->value.len && whole->kvs[i]->mod_revision == streamed->kvs[i]->mod_revision;
    CHECK(same, "the stream put together equals the unary answer");
    range_free(streamed);
    range_free(whole);
    buf_fini(&e.all);
    CHECK(range_stream(&(struct api_range){.key = SLICE_LIT("s/"), .range_end = end, .sort_order = API_SORT_DESCEND}, &e) == 12);
    CHECK(strcmp((char *)text.data, "RangeStream does not support custom sort orders") == 0, "%s", (char *)text.data);
    CHECK(range_stream(&(struct api_range){.key = SLICE_LIT("s/"), .range_end = end, .min_mod = 1}, &e) == 12);
    CHECK(strcmp((char *)text.data, "RangeStream does not support revision filters") == 0, "%s", (char *)text.data);
    CHECK(range_stream(&(struct api_range){.key = SLICE_LIT("nothing/")}, &e) == 0);
    buf_fini(&e.all);
}

static void puts_and_deletes(void)
{
    api_encode_put(&request, &(struct api_put){.value = SLICE_LIT("v")});
    EXPECT_ERROR(call_built(KV "Put"), 3, "etcdserver: key is not provided");
    api_encode_put(&request, &(struct api_put){.key = SLICE_LIT("a"), .value = SLICE_LIT("v"), .ignore_value = true});
    EXPECT_ERROR(call_built(KV "Put"), 3, "etcdserver: value is provided");
    api_encode_put(&request, &(struct api_put){.key = SLICE_LIT("a"), .lease = 5, .ignore_lease = true});
    EXPECT_ERROR(call_built(KV "Put"), 3, "etcdserver: lease is provided");
    api_encode_put(&request, &(struct api_put){.key = SLICE_LIT("never"), .ignore_value = true});
    EXPECT_ERROR(call_built(KV "Put"), 3, "etcdserver: key not found");
    api_encode_put(&request, &(struct api_put){.key = SLICE_LIT("a"), .lease = -7});
    EXPECT_ERROR(call_built(KV "Put"), 5, "etcdserver: requested lease not found");

    int64_t before = put("d", "1");
    api_encode_delete(&request, &(struct api_delete){.key = SLICE_LIT("absent")});
    CHECK(call_built(KV "DeleteRange") == 0);
    Etcdserverpb__DeleteRangeResponse *d = etcdserverpb__delete_range_response__unpack(NULL, reply.len, reply.data);
    CHECK(d && d->deleted == 0 && header_rev(d->header) == before, "quirk 8: a delete of nothing does not bump");
    etcdserverpb__delete_range_response__free_unpacked(d, NULL);
    api_encode_delete(&request, &(struct api_delete){.key = SLICE_LIT("d"), .prev_kv = true});
    CHECK(call_built(KV "DeleteRange") == 0);
    d = etcdserverpb__delete_range_response__unpack(NULL, reply.len, reply.data);
    CHECK(d && d->deleted == 1 && d->n_prev_kvs == 1 && header_rev(d->header) == before + 1 && bytes_are(&d->prev_kvs[0]->value, "1"));
    etcdserverpb__delete_range_response__free_unpacked(d, NULL);
    put("d", "2");
    Etcdserverpb__RangeResponse *r = range(&(struct api_range){.key = SLICE_LIT("d")});
    CHECK(r && r->n_kvs == 1 && r->kvs[0]->version == 1 && r->kvs[0]->create_revision == before + 2, "a new life");
    range_free(r);
}

static int txn(const struct api_txn *m)
{
    api_encode_txn(&request, m);
    return call_built(KV "Txn");
}

static bool txn_succeeds(const struct api_txn *m)
{
    if (!CHECK(txn(m) == 0, "%s", (char *)text.data))
        return false;
    Etcdserverpb__TxnResponse *r = etcdserverpb__txn_response__unpack(NULL, reply.len, reply.data);
    bool yes = r && r->succeeded;
    etcdserverpb__txn_response__free_unpacked(r, NULL);
    return yes;
}

static void transactions(void)
{
    struct api_compare missing_value = {.target = API_VALUE, .result = API_NOT_EQUAL, .key = SLICE_LIT("no such"), .value = SLICE_LIT("x")};
    CHECK(!txn_succeeds(&(struct api_txn){.compares = &missing_value, .compare_count = 1}), "quirk 6: false even for NOT_EQUAL");
    struct api_compare missing_create = {.target = API_CREATE, .key = SLICE_LIT("no such")};
    CHECK(txn_succeeds(&(struct api_txn){.compares = &missing_create, .compare_count = 1}));
    struct api_compare every = {.target = API_MOD, .result = API_GREATER, .key = SLICE_LIT("r/"), .range_end = SLICE_LIT("r0"), .number = 1};
    CHECK(txn_succeeds(&(struct api_txn){.compares = &every, .compare_count = 1}));
    every.number = 1 << 30;
    CHECK(!txn_succeeds(&(struct api_txn){.compares = &every, .compare_count = 1}));

    /* quirk 7: a nested compare sees the state before the transaction */
    put("n", "old");
    struct api_compare is_old = {.target = API_VALUE, .key = SLICE_LIT("n"), .value = SLICE_LIT("old")};
    struct api_request_op then = {.op = API_OP_PUT, .put = {.key = SLICE_LIT("n2"), .value = SLICE_LIT("then")}};
    struct api_request_op otherwise = {.op = API_OP_PUT, .put = {.key = SLICE_LIT("n2"), .value = SLICE_LIT("else")}};
    struct api_txn inner = {.compares = &is_old, .compare_count = 1, .success = &then, .success_count = 1, .failure = &otherwise, .failure_count = 1};
    struct api_request_op ops[3] = {{.op = API_OP_PUT, .put = {.key = SLICE_LIT("n"), .value = SLICE_LIT("new")}},
                                    {.op = API_OP_TXN, .txn = &inner},
                                    {.op = API_OP_RANGE, .range = {.key = SLICE_LIT("n2")}}};
    CHECK(txn(&(struct api_txn){.success = ops, .success_count = 3}) == 0, "%s", (char *)text.data);
    Etcdserverpb__TxnResponse *r = etcdserverpb__txn_response__unpack(NULL, reply.len, reply.data);
    if (CHECK(r && r->succeeded && r->n_responses == 3)) {
        int64_t rev = header_rev(r->header);
        Etcdserverpb__RangeResponse *got = r->responses[2]->response_range;
        Etcdserverpb__TxnResponse *nested = r->responses[1]->response_txn;
        CHECK(header_rev(r->responses[0]->response_put->header) == rev && r->responses[0]->response_put->header->cluster_id == 0, "inner headers: revision only");
        CHECK(nested->succeeded && nested->header && nested->header->revision == 0, "a nested header is empty");
        CHECK(got->n_kvs == 1 && bytes_are(&got->kvs[0]->value, "then") && got->kvs[0]->mod_revision == rev && header_rev(got->header) == rev,
              "a range sees the writes before it");
    }
    etcdserverpb__txn_response__free_unpacked(r, NULL);

    struct api_request_op twice[2] = {then, otherwise};
    EXPECT_ERROR(txn(&(struct api_txn){.success = twice, .success_count = 2}), 3, "etcdserver: duplicate key given in txn request");
    CHECK(txn(&(struct api_txn){.success = &then, .success_count = 1, .failure = &otherwise, .failure_count = 1}) == 0, "both branches may put it");
    struct api_request_op many[129];
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        many[i] = (struct api_request_op){.op = API_OP_RANGE, .range = {.key = SLICE_LIT("a")}};
    EXPECT_ERROR(txn(&(struct api_txn){.success = many, .success_count = 129}), 3, "etcdserver: too many operations in txn request");
    CHECK(txn(&(struct api_txn){.success = many, .success_count = 128}) == 0, "at the limit");
    struct api_request_op none = {.op = API_OP_NONE};
    EXPECT_ERROR(txn(&(struct api_txn){.success = &none, .success_count = 1}), 3, "etcdserver: key not found");

    /* An error found at execution leaves nothing behind. */
    struct api_request_op half[2] = {{.op = API_OP_PUT, .put = {.key = SLICE_LIT("half"), .value = SLICE_LIT("1")}},
                                     {.op = API_OP_PUT, .put = {.key = SLICE_LIT("half2"), .lease = 12345}}};
    EXPECT_ERROR(txn(&(struct api_txn){.success = half, .success_count = 2}), 5, "etcdserver: requested lease not found");
    Etcdserverpb__RangeResponse *k = range(&(struct api_range){.key = SLICE_LIT("half")});
    CHECK(k && k->n_kvs == 0);
    range_free(k);
}

static void limits(void)
{
    size_t size = 1572864;
    uint8_t *value = malloc(3 << 20);
    memset(value, 'x', 3 << 20);
    api_encode_put(&request, &(struct api_put){.key = SLICE_LIT("big"), .value = slice_of(value, size)});
    EXPECT_ERROR(call_built(KV "Put"), 3, "etcdserver: request is too large");
    api_encode_put(&request, &(struct api_put){.key = SLICE_LIT("big"), .value = slice_of(value, 3 << 20)});
    char wanted[128];
    snprintf(wanted, sizeof(wanted), "grpc: received message larger than max (%zu vs. 2097152)", request.len);
    EXPECT_ERROR(call_built(KV "Put"), 8, wanted);
    api_encode_put(&request, &(struct api_put){.key = SLICE_LIT("big"), .value = slice_of(value, 1500000)});
    CHECK(call_built(KV "Put") == 0, "%s", (char *)text.data);
    free(value);
}

static void leases(void)
{
    pb_add_int(&request, 1, 60);
    pb_add_int(&request, 2, 777);
    CHECK(call_built("/etcdserverpb.Lease/LeaseGrant") == 0);
    Etcdserverpb__LeaseGrantResponse *g = etcdserverpb__lease_grant_response__unpack(NULL, reply.len, reply.data);
    CHECK(g && g->id == 777 && g->ttl == 60 && g->header->cluster_id);
    etcdserverpb__lease_grant_response__free_unpacked(g, NULL);
    pb_add_int(&request, 1, 60);
    pb_add_int(&request, 2, 777);
    EXPECT_ERROR(call_built("/etcdserverpb.Lease/LeaseGrant"), 9, "etcdserver: lease already exists");
    pb_add_int(&request, 1, 9000000001);
    EXPECT_ERROR(call_built("/etcdserverpb.Lease/LeaseGrant"), 11, "etcdserver: too large lease TTL");
    pb_add_int(&request, 1, 1);
    CHECK(call_built("/etcdserverpb.Lease/LeaseGrant") == 0);
    g = etcdserverpb__lease_grant_response__unpack(NULL, reply.len, reply.data);
    CHECK(g && g->id > 0 && g->ttl == 2, "quirk 11: at least 2 s");
    etcdserverpb__lease_grant_response__free_unpacked(g, NULL);

    api_encode_put(&request, &(struct api_put){.key = SLICE_LIT("l/2"), .value = SLICE_LIT("v"), .lease = 777});
    CHECK(call_built(KV "Put") == 0);
    api_encode_put(&request, &(struct api_put){.key = SLICE_LIT("l/1"), .value = SLICE_LIT("v"), .lease = 777});
    CHECK(call_built(KV "Put") == 0);
    Etcdserverpb__RangeResponse *r = range(&(struct api_range){.key = SLICE_LIT("l/1"), .keys_only = true});
    CHECK(r && r->n_kvs == 1 && r->kvs[0]->lease == 0, "quirk 4: keys_only drops the lease");
    range_free(r);
    pb_add_int(&request, 1, 777);
    pb_add_uint(&request, 2, 1);
    CHECK(call_built("/etcdserverpb.Lease/LeaseTimeToLive") == 0);
    Etcdserverpb__LeaseTimeToLiveResponse *t = etcdserverpb__lease_time_to_live_response__unpack(NULL, reply.len, reply.data);
    CHECK(t && t->grantedttl == 60 && t->ttl >= 55 && t->ttl <= 60 && t->n_keys == 2 && bytes_are(&t->keys[0], "l/1"));
    etcdserverpb__lease_time_to_live_response__free_unpacked(t, NULL);
    pb_add_int(&request, 1, 778);
    CHECK(call_built("/etcdserverpb.Lease/LeaseTimeToLive") == 0);
    t = etcdserverpb__lease_time_to_live_response__unpack(NULL, reply.len, reply.data);
    CHECK(t && t->ttl == -1 && t->id == 778, "quirk 10");
    etcdserverpb__lease_time_to_live_response__free_unpacked(t, NULL);
    pb_add_int(&request, 1, 777);
    CHECK(call_built("/etcdserverpb.Lease/LeaseRevoke") == 0);
    pb_add_int(&request, 1, 777);
    EXPECT_ERROR(call_built("/etcdserverpb.Lease/LeaseRevoke"), 5, "etcdserver: requested lease not found");
    r = range(&(struct api_range){.key = SLICE_LIT("l/"), .range_end = SLICE_LIT("l0")});
    CHECK(r && r->count == 0);
    range_free(r);
}

static int downgrade(uint64_t action, const char *version)
{
    pb_add_uint(&request, 1, action);
    pb_add_bytes(&request, 2, slice_str(version));
    return call_built("/etcdserverpb.Maintenance/Downgrade");
}

static void expect_downgrade(bool enabled)
{
    CHECK(call_bytes("/etcdserverpb.Auth/AuthStatus", SLICE_EMPTY) == 0);
    Etcdserverpb__AuthStatusResponse *auth = etcdserverpb__auth_status_response__unpack(NULL, reply.len, reply.data);
    CHECK(auth && auth->header && auth->header->member_id != 0 && !auth->enabled);
    etcdserverpb__auth_status_response__free_unpacked(auth, NULL);
    CHECK(call_bytes("/etcdserverpb.Maintenance/Status", SLICE_EMPTY) == 0);
    Etcdserverpb__StatusResponse *r = etcdserverpb__status_response__unpack(NULL, reply.len, reply.data);
    CHECK(r && r->downgradeinfo && r->downgradeinfo->enabled == enabled &&
          strcmp(r->downgradeinfo->targetversion, enabled ? "3.6.0" : "") == 0);
    etcdserverpb__status_response__free_unpacked(r, NULL);
}

static void downgrades(void)
{
    enum { VALIDATE, ENABLE, CANCEL };
    CHECK(downgrade(VALIDATE, "3.6.0") == 0);
    Etcdserverpb__DowngradeResponse *r = etcdserverpb__downgrade_response__unpack(NULL, reply.len, reply.data);
    CHECK(r && strcmp(r->version, "3.7") == 0 && header_rev(r->header) > 1 && r->header->cluster_id && r->header->member_id);
    etcdserverpb__downgrade_response__free_unpacked(r, NULL);
    EXPECT_ERROR(downgrade(VALIDATE, "nonsense"), 3, "etcdserver: wrong downgrade target version format");
    EXPECT_ERROR(downgrade(ENABLE, "3.5"), 3, "etcdserver: invalid downgrade target version");
    EXPECT_ERROR(downgrade(3, "3.6"), 2, "etcdserver: unknown method");
    expect_downgrade(false);
    CHECK(downgrade(CANCEL, "") == 0, "quirk 19");
    CHECK(downgrade(ENABLE, "3.6") == 0);
    expect_downgrade(true);
    EXPECT_ERROR(downgrade(ENABLE, "3.6"), 9, "etcdserver: cluster has a downgrade job in progress");
    CHECK(downgrade(CANCEL, "") == 0);
    expect_downgrade(false);
}

static void health_said(struct gcall *call, struct slice message, void *arg)
{
    UNUSED(call);
    buf_add_slice(arg, message);
}

static void health_ended(struct gcall *call, int status, const char *message, void *arg)
{
    UNUSED(call);
    UNUSED(status);
    UNUSED(message);
    buf_reset(arg);
}

/* Says the state at once and stays open; of a service that is not there it says so. */
static void health_watches(void)
{
    static const struct gcall_ops ops = {health_said, health_ended};
    static const struct {
        const char *service;
        uint8_t state;
    } rows[] = {{"", 1}, {"nosuch", 3}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf said = BUF_INIT;
        bool never = false;
        pb_add_bytes(&request, 1, slice_str(rows[i].service));
        struct gcall *call = gcall_start(client, "/grpc.health.v1.Health/Watch", buf_slice(&request), true, NULL, &ops, &said);
        buf_reset(&request);
        for (int k = 0; k < 100 && said.len == 0; k++)
            gclient_run(client, &never, 20);
        CHECK(said.len == 2 && said.data[0] == 8 && said.data[1] == rows[i].state, "%s", rows[i].service);
        gcall_cancel(call);
        for (int k = 0; k < 100 && said.len > 0; k++)
            gclient_run(client, &never, 20);
        CHECK(said.len == 0, "it lasts until the client goes");
        buf_fini(&said);
    }
}

static void others(void)
{
    static const struct {
        const char *path;
        int status;
        const char *text;
    } rows[] = {{"/etcdserverpb.Auth/AuthEnable", 9, "etcdserver: root user does not exist"}, {"/v3electionpb.Election/Leader", 2, "election: no leader"},
               {"/etcdserverpb.Cluster/MemberAdd", 3, "etcdserver: given member URLs are invalid"},
               {"/etcdserverpb.Cluster/MemberUpdate", 3, "etcdserver: given member URLs are invalid"},
               {"/etcdserverpb.Cluster/MemberRemove", 5, "etcdserver: member not found"},
               {"/etcdserverpb.Cluster/MemberPromote", 5, "etcdserver: member not found"},
               {"/etcdserverpb.Maintenance/MoveLeader", 9, "etcdserver: bad leader transferee"},
                {"/nosuch.Service/Method", 12, "unknown service nosuch.Service"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int status = call_bytes(rows[i].path, SLICE_EMPTY);
        CHECK(status == rows[i].status && (!*rows[i].text || strcmp((char *)text.data, rows[i].text) == 0), "%s: %d %s", rows[i].path, status,
              (char *)text.data);
    }
    CHECK(call_bytes("/etcdserverpb.Maintenance/Status", SLICE_EMPTY) == 0);
    Etcdserverpb__StatusResponse *s = etcdserverpb__status_response__unpack(NULL, reply.len, reply.data);
    CHECK(s && strcmp(s->version, "3.7.1") == 0 && strcmp(s->storageversion, "3.7.0") == 0 && s->leader == s->header->member_id && s->leader != 0 &&
          s->dbsize > 0 && s->dbsizequota == 2147483648 && s->raftindex >= s->raftappliedindex && s->raftterm > 0 && s->downgradeinfo && s->n_errors == 0);
    etcdserverpb__status_response__free_unpacked(s, NULL);
    CHECK(call_bytes("/etcdserverpb.Cluster/MemberList", SLICE_EMPTY) == 0);
    Etcdserverpb__MemberListResponse *m = etcdserverpb__member_list_response__unpack(NULL, reply.len, reply.data);
    CHECK(m && m->n_members == 1 && m->header->revision == 0 && strcmp(m->members[0]->name, "default") == 0 && m->members[0]->n_clienturls == 1,
          "quirk 17: no revision");
    etcdserverpb__member_list_response__free_unpacked(m, NULL);
    CHECK(call_bytes("/etcdserverpb.Maintenance/Defragment", SLICE_EMPTY) == 0 && reply.len == 0, "quirk 17: no header");
    CHECK(call_bytes("/etcdserverpb.Maintenance/Alarm", SLICE_EMPTY) == 0);
    CHECK(call_bytes("/grpc.health.v1.Health/Check", SLICE_EMPTY) == 0 && reply.len == 2 && reply.data[1] == 1, "SERVING");
    pb_add_bytes(&request, 1, SLICE_LIT("nosuch"));
    EXPECT_ERROR(call_built("/grpc.health.v1.Health/Check"), 5, "unknown service");
    CHECK(call_bytes("/grpc.health.v1.Health/List", SLICE_EMPTY) == 0 && reply.len == 8 && reply.data[7] == 1, "one entry, SERVING");
    health_watches();
}

/* §15: blobs of 32 KiB whose remaining bytes count down, then the SHA-256 of them, alone. */
struct snapshot {
    struct buf file;
    size_t messages;
    uint64_t total;
    bool fits, digest; /* so far; the digest came */
    bool done;
    int status;
};

static void snapshot_message(struct gcall *call, struct slice message, void *arg)
{
    struct snapshot *s = arg;
    Etcdserverpb__SnapshotResponse *r = etcdserverpb__snapshot_response__unpack(NULL, message.len, message.data);
    UNUSED(call);
    s->messages++;
    s->fits = s->fits && r && !r->header && !s->digest && strcmp(r->version, "3.7.0") == 0;
    if (r && s->total > 0 && s->file.len == s->total) {
        uint8_t digest[SHA256_BYTES];
        struct sha256 *sha = sha256_new();
        sha256_add(sha, s->file.data, s->file.len);
        sha256_end(sha, digest);
        sha256_free(sha);
        s->digest = r->remaining_bytes == 0 && r->blob.len == SHA256_BYTES && memcmp(r->blob.data, digest, SHA256_BYTES) == 0;
    } else if (r) {
        if (s->total == 0)
            s->total = r->remaining_bytes + r->blob.len;
        buf_add(&s->file, r->blob.data, r->blob.len);
        s->fits = s->fits && s->file.len + r->remaining_bytes == s->total && (r->blob.len == 32768 || r->remaining_bytes == 0);
    }
    etcdserverpb__snapshot_response__free_unpacked(r, NULL);
}

static void snapshot_ended(struct gcall *call, int status, const char *message, void *arg)
{
    struct snapshot *s = arg;
    UNUSED(call);
    UNUSED(message);
    s->status = status;
    s->done = true;
}

static void snapshots(void)
{
    static const struct gcall_ops ops = {snapshot_message, snapshot_ended};
    for (int i = 0; i < 2; i++) {
        struct snapshot s = {.fits = true};
        gcall_start(client, "/etcdserverpb.Maintenance/Snapshot", slice_of("", 0), true, NULL, &ops, &s);
        CHECK(gclient_run(client, &s.done, 10000) && s.status == 0 && s.fits && s.digest, "status %d after %zu messages", s.status, s.messages);
        CHECK(s.total % 4096 == 0 && s.file.len == s.total && s.messages > 100, "%zu messages", s.messages);
        buf_fini(&s.file);
    }
    /* Half-read ones are forgotten: as many as there may be at a time, and then again. */
    for (int i = 0; i < 20; i++) {
        struct snapshot s = {.fits = true};
        struct gcall *call = gcall_start(client, "/etcdserverpb.Maintenance/Snapshot", slice_of("", 0), true, NULL, &ops, &s);
        for (int k = 0; k < 1000 && s.messages == 0 && !s.done; k++)
            gclient_run(client, &s.done, 10);
        CHECK(s.messages > 0 && !s.done, "call %d: %d", i, s.status);
        gcall_cancel(call);
        CHECK(gclient_run(client, &s.done, 10000));
        buf_fini(&s.file);
    }
}

static uint32_t hash_all(void)
{
    uint32_t hash = 0;
    CHECK(call_bytes("/etcdserverpb.Maintenance/Hash", SLICE_EMPTY) == 0, "%s", (char *)text.data);
    Etcdserverpb__HashResponse *h = etcdserverpb__hash_response__unpack(NULL, reply.len, reply.data);
    if (CHECK(h && h->header && h->header->revision > 0 && h->header->member_id && h->header->raft_term))
        hash = h->hash;
    etcdserverpb__hash_response__free_unpacked(h, NULL);
    return hash;
}

static void hashes(void)
{
    uint32_t before = hash_all();
    CHECK(before != 0 && before == hash_all(), "at rest");
    put("hash", "1");
    CHECK(before != hash_all());
    before = hash_all();
    pb_add_int(&request, 1, 100);
    CHECK(call_built("/etcdserverpb.Lease/LeaseGrant") == 0);
    CHECK(before != hash_all(), "leases are part of it");
}

static void compaction(void)
{
    int64_t rev = put("c", "1");
    put("c", "2");
    int64_t now = put("c", "3");
    pb_add_int(&request, 1, rev);
    CHECK(call_built(KV "Compact") == 0, "%s", (char *)text.data);
    pb_add_int(&request, 1, rev);
    EXPECT_ERROR(call_built(KV "Compact"), 11, "etcdserver: mvcc: required revision has been compacted");
    pb_add_int(&request, 1, now + 1000);
    EXPECT_ERROR(call_built(KV "Compact"), 11, "etcdserver: mvcc: required revision is a future revision");
    api_encode_range(&request, &(struct api_range){.key = SLICE_LIT("c"), .revision = rev - 1});
    EXPECT_ERROR(call_built(KV "Range"), 11, "etcdserver: mvcc: required revision has been compacted");
    Etcdserverpb__RangeResponse *r = range(&(struct api_range){.key = SLICE_LIT("c"), .revision = rev});
    CHECK(r && r->n_kvs == 1 && bytes_are(&r->kvs[0]->value, "1"), "the compacted revision itself is readable");
    range_free(r);
    pb_add_int(&request, 1, now);
    pb_add_uint(&request, 2, 1);
    CHECK(call_built(KV "Compact") == 0, "physical: %s", (char *)text.data);
}

int main(void)
{
    node_start(&node, NULL);
    client = node_connect(&node);
    fresh_store();
    ranges();
    puts_and_deletes();
    transactions();
    leases();
    range_streams();
    limits();
    compaction();
    downgrades();
    others();
    snapshots();
    hashes();
    gclient_free(client);
    node_stop(&node);
    return check_summary();
}
