/* twin - is what api.h decoded the same as what protobuf's generated code decoded? Used by test_api and fuzz_api. */
#ifndef TESTS_PROTO_TWIN_H
#define TESTS_PROTO_TWIN_H

#include <protobuf-c/protobuf-c.h>

#include "etcd/rpc.pb-c.h"
#include "proto/api.h"

#define TWIN_OPS_MAX 1000000 /* no random message has as many */

static inline bool twin_bytes(struct slice s, ProtobufCBinaryData b)
{
    return slice_eq(s, slice_of(b.data, b.len));
}

static inline bool twin_range(const struct api_range *m, const Etcdserverpb__RangeRequest *p)
{
    return twin_bytes(m->key, p->key) && twin_bytes(m->range_end, p->range_end) && m->limit == p->limit &&
           m->revision == p->revision && m->sort_order == (int)p->sort_order && m->sort_target == (int)p->sort_target &&
           m->serializable == p->serializable && m->keys_only == p->keys_only && m->count_only == p->count_only &&
           m->min_mod == p->min_mod_revision && m->max_mod == p->max_mod_revision &&
           m->min_create == p->min_create_revision && m->max_create == p->max_create_revision;
}

static inline bool twin_put(const struct api_put *m, const Etcdserverpb__PutRequest *p)
{
    return twin_bytes(m->key, p->key) && twin_bytes(m->value, p->value) && m->lease == p->lease &&
           m->prev_kv == p->prev_kv && m->ignore_value == p->ignore_value && m->ignore_lease == p->ignore_lease;
}

static inline bool twin_delete(const struct api_delete *m, const Etcdserverpb__DeleteRangeRequest *p)
{
    return twin_bytes(m->key, p->key) && twin_bytes(m->range_end, p->range_end) && m->prev_kv == p->prev_kv;
}

static inline bool twin_key_value(const struct api_key_value *m, const Mvccpb__KeyValue *p)
{
    return twin_bytes(m->key, p->key) && twin_bytes(m->value, p->value) && m->lease == p->lease &&
           m->create_revision == p->create_revision && m->mod_revision == p->mod_revision && m->version == p->version;
}

static inline bool twin_compare(const struct api_compare *m, const Etcdserverpb__Compare *p)
{
    int64_t number = 0;
    ProtobufCBinaryData value = {0, NULL};

    if (p->target == ETCDSERVERPB__COMPARE__COMPARE_TARGET__VERSION && p->target_union_case == 4)
        number = p->version;
    if (p->target == ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE && p->target_union_case == 5)
        number = p->create_revision;
    if (p->target == ETCDSERVERPB__COMPARE__COMPARE_TARGET__MOD && p->target_union_case == 6)
        number = p->mod_revision;
    if (p->target == ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE && p->target_union_case == 7)
        value = p->value;
    if (p->target == ETCDSERVERPB__COMPARE__COMPARE_TARGET__LEASE && p->target_union_case == 8)
        number = p->lease;
    return m->result == (int)p->result && m->target == (int)p->target && twin_bytes(m->key, p->key) &&
           twin_bytes(m->range_end, p->range_end) && m->number == number && twin_bytes(m->value, value);
}

static inline bool twin_txn(const struct api_txn *m, const Etcdserverpb__TxnRequest *p);

static inline bool twin_op(const struct api_request_op *m, const Etcdserverpb__RequestOp *p)
{
    if ((int)m->op != (int)p->request_case)
        return false;
    switch (m->op) {
    case API_OP_RANGE:
        return twin_range(&m->range, p->request_range);
    case API_OP_PUT:
        return twin_put(&m->put, p->request_put);
    case API_OP_DELETE:
        return twin_delete(&m->del, p->request_delete_range);
    case API_OP_TXN:
        return twin_txn(m->txn, p->request_txn);
    case API_OP_NONE:
        break;
    }
    return true;
}

static inline bool twin_txn(const struct api_txn *m, const Etcdserverpb__TxnRequest *p)
{
    bool same =
        m->compare_count == p->n_compare && m->success_count == p->n_success && m->failure_count == p->n_failure;

    for (size_t i = 0; same && i < m->compare_count; i++)
        same = twin_compare(&m->compares[i], p->compare[i]);
    for (size_t i = 0; same && i < m->success_count; i++)
        same = twin_op(&m->success[i], p->success[i]);
    for (size_t i = 0; same && i < m->failure_count; i++)
        same = twin_op(&m->failure[i], p->failure[i]);
    return same;
}

/* The messages that both can decode. */
enum twin { TWIN_RANGE, TWIN_PUT, TWIN_DELETE, TWIN_KEY_VALUE, TWIN_TXN, TWIN_COUNT };

static inline const ProtobufCMessageDescriptor *twin_descriptor(enum twin kind)
{
    static const ProtobufCMessageDescriptor *const all[TWIN_COUNT] = {
        &etcdserverpb__range_request__descriptor,        &etcdserverpb__put_request__descriptor,
        &etcdserverpb__delete_range_request__descriptor, &mvccpb__key_value__descriptor,
        &etcdserverpb__txn_request__descriptor,
    };

    return all[kind];
}

struct twin_decoded {
    union {
        struct api_range range;
        struct api_put put;
        struct api_delete del;
        struct api_key_value kv;
        struct api_txn *txn;
    };
};

static inline int twin_decode(enum twin kind, struct slice bytes, struct arena *arena, struct twin_decoded *d)
{
    switch (kind) {
    case TWIN_RANGE:
        return api_decode_range(bytes, &d->range);
    case TWIN_PUT:
        return api_decode_put(bytes, &d->put);
    case TWIN_DELETE:
        return api_decode_delete(bytes, &d->del);
    case TWIN_KEY_VALUE:
        return api_decode_key_value(bytes, &d->kv);
    default:
        return api_decode_txn(bytes, arena, TWIN_OPS_MAX, &d->txn);
    }
}

static inline void twin_encode(enum twin kind, struct buf *out, const struct twin_decoded *d)
{
    switch (kind) {
    case TWIN_RANGE:
        api_encode_range(out, &d->range);
        break;
    case TWIN_PUT:
        api_encode_put(out, &d->put);
        break;
    case TWIN_DELETE:
        api_encode_delete(out, &d->del);
        break;
    case TWIN_KEY_VALUE:
        api_encode_key_value(out, &d->kv);
        break;
    default:
        api_encode_txn(out, d->txn);
        break;
    }
}

static inline bool twin_same(enum twin kind, const struct twin_decoded *d, const ProtobufCMessage *p)
{
    switch (kind) {
    case TWIN_RANGE:
        return twin_range(&d->range, (const Etcdserverpb__RangeRequest *)p);
    case TWIN_PUT:
        return twin_put(&d->put, (const Etcdserverpb__PutRequest *)p);
    case TWIN_DELETE:
        return twin_delete(&d->del, (const Etcdserverpb__DeleteRangeRequest *)p);
    case TWIN_KEY_VALUE:
        return twin_key_value(&d->kv, (const Mvccpb__KeyValue *)p);
    default:
        return twin_txn(d->txn, (const Etcdserverpb__TxnRequest *)p);
    }
}

/* Forgets the unknown fields of a message and of all below, so that packing it again gives plain bytes. */
static inline void twin_drop_unknown(ProtobufCMessage *m)
{
    for (unsigned i = 0; i < m->n_unknown_fields; i++)
        free(m->unknown_fields[i].data);
    free(m->unknown_fields);
    m->n_unknown_fields = 0;
    m->unknown_fields = NULL;

    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        const uint8_t *quantifier = (const uint8_t *)m + f->quantifier_offset;
        uint8_t *member = (uint8_t *)m + f->offset;

        if (f->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            for (size_t k = 0; k < *(const size_t *)(const void *)quantifier; k++)
                twin_drop_unknown((*(ProtobufCMessage ***)(void *)member)[k]);
        } else if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0 ||
                   *(const uint32_t *)(const void *)quantifier == f->id) {
            ProtobufCMessage *sub = *(ProtobufCMessage **)(void *)member;
            if (sub != NULL)
                twin_drop_unknown(sub);
        }
    }
}

#endif
