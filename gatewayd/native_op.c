/* native_op - see native_op.h. Everything here comes from outside: reading costs no more than the request's bytes, and
 * whatever is wrong is an error with words. */
#include "gatewayd/native_op.h"

#include "common/err.h"
#include "etcd/rpc.pb-c.h"
#include "gatewayd/pbmap.h"
#include "proto/frames.h"
#include "proto/pack.h"

#define NAME_BYTES_MAX 256 /* of a key in a request's map */

#define MESSAGES(request, response) \
    &etcdserverpb__##request##_request__descriptor, &etcdserverpb__##response##_response__descriptor

static const struct native_op ops[] = {
    {"range", MESSAGES(range, range), NATIVE_KV, COMMAND_RANGE},
    {"put", MESSAGES(put, put), NATIVE_KV, COMMAND_PUT},
    {"delete_range", MESSAGES(delete_range, delete_range), NATIVE_KV, COMMAND_DELETE_RANGE},
    {"txn", MESSAGES(txn, txn), NATIVE_KV, COMMAND_TXN},
    {"compact", MESSAGES(compaction, compaction), NATIVE_KV, COMMAND_COMPACT},
    {"lease_grant", MESSAGES(lease_grant, lease_grant), NATIVE_LEASE, COMMAND_LEASE_GRANT},
    {"lease_revoke", MESSAGES(lease_revoke, lease_revoke), NATIVE_LEASE, COMMAND_LEASE_REVOKE},
    {"lease_keep_alive", MESSAGES(lease_keep_alive, lease_keep_alive), NATIVE_LEASE, COMMAND_LEASE_KEEP_ALIVE},
    {"lease_time_to_live", MESSAGES(lease_time_to_live, lease_time_to_live), NATIVE_LEASE, COMMAND_LEASE_TIME_TO_LIVE},
    {"lease_leases", MESSAGES(lease_leases, lease_leases), NATIVE_LEASE, COMMAND_LEASE_LEASES},
    {"status", MESSAGES(status, status), NATIVE_STATUS, 0},
    {"hash_kv", &etcdserverpb__hash_kvrequest__descriptor, &etcdserverpb__hash_kvresponse__descriptor, NATIVE_QUERY,
     COMMAND_HASH_KV},
    {"defragment", MESSAGES(defragment, defragment), NATIVE_QUERY, COMMAND_DEFRAGMENT},
    {"alarm", MESSAGES(alarm, alarm), NATIVE_ALARM, COMMAND_ALARM},
    {"member_list", MESSAGES(member_list, member_list), NATIVE_MEMBERS, 0},
    {"member_add", MESSAGES(member_add, member_add), NATIVE_CHANGE, MEMBER_ADD},
    {"member_remove", MESSAGES(member_remove, member_remove), NATIVE_CHANGE, MEMBER_REMOVE},
    {"member_update", MESSAGES(member_update, member_update), NATIVE_CHANGE, MEMBER_UPDATE},
    {"member_promote", MESSAGES(member_promote, member_promote), NATIVE_CHANGE, MEMBER_PROMOTE},
    {"member_status", MESSAGES(member_remove, status), NATIVE_MEMBER_STATUS, 0}, /* the request is {ID} */
    {"move_leader", MESSAGES(move_leader, move_leader), NATIVE_MOVE_LEADER, 0},
    {"history", &etcdserverpb__watch_create_request__descriptor, NULL, NATIVE_HISTORY, 0},
};

size_t native_op_count(void)
{
    return ARRAY_LEN(ops);
}

const struct native_op *native_op_at(size_t pos)
{
    must(pos < ARRAY_LEN(ops));
    return &ops[pos];
}

static const struct native_op *op_by_name(struct slice name, struct buf *why)
{
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        if (slice_eq(name, slice_str(ops[i].name)))
            return &ops[i];
    buf_add_str(why, "unknown op ");
    pbmap_quote(why, name);
    return NULL;
}

/* "op" may stand anywhere among the map's keys. */
static const struct native_op *find_op(struct slice in, uint32_t count, struct buf *why)
{
    for (uint32_t i = 0; i < count; i++) {
        struct slice key, name;
        if (unpack_bytes(&in, NAME_BYTES_MAX, &key) != 0) {
            buf_add_str(why, "a key of the map is not a string, or too long");
            return NULL;
        }
        if (slice_eq(key, SLICE_LIT("op"))) {
            if (unpack_bytes(&in, NAME_BYTES_MAX, &name) == 0)
                return op_by_name(name, why);
            buf_add_str(why, "\"op\" is not a string, or too long");
            return NULL;
        }
        if (unpack_skip(&in) != 0) {
            buf_add_str(why, "the value of ");
            pbmap_quote(why, key);
            buf_add_str(why, " is not msgpack, or nests too deeply to stand before \"op\"");
            return NULL;
        }
    }
    buf_add_str(why, "the map has no \"op\"");
    return NULL;
}

int native_op_read(struct slice request, size_t bytes_max, const struct native_op **op, struct buf *body,
                   struct buf *why)
{
    uint32_t count;
    if (unpack_peek(request) != PACK_MAP || unpack_map(&request, UINT32_MAX, &count) != 0) {
        buf_add_str(why, "a request is a msgpack map with the key \"op\"");
        return E_INVALID;
    }
    const struct native_op *found = find_op(request, count, why);
    if (!found)
        return E_INVALID;
    int err = pbmap_to_message(found->request, &request, count, "op", body, why);
    if (!err && request.len) {
        buf_add_str(why, "bytes left over behind the map");
        err = E_INVALID;
    }
    if (!err && body->len > bytes_max)
        err = E_REQUEST_TOO_LARGE;
    if (!err)
        *op = found;
    return err;
}
