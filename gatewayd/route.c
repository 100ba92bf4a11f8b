/* route - method path -> handler: one table of everything that can be called. From grpc.c (route_find). */
#include <string.h>

#include "gatewayd/gatewayd.h"

#define UNARY(service, method, message) {"/" service "/" method, service, method, false, false, message, NULL, NULL, NULL}
/* Unary, and its state is the req of the one request it makes. */
#define RING(service, method, message) {"/" service "/" method, service, method, false, false, message, NULL, call_more, call_forget}
/* Unary, made of requests of its own: inner.h, queue.h. */
#define INNER(service, method, message) {"/" service "/" method, service, method, false, false, message, NULL, NULL, inner_closed}
#define QUEUE(service, method, message) {"/" service "/" method, service, method, false, false, message, NULL, NULL, queue_closed}
#define SECRET(service, method, message) {"/" service "/" method, service, method, false, false, message, NULL, NULL, auth_closed}

#define KV "etcdserverpb.KV"
#define WATCH "etcdserverpb.Watch"
#define LEASE "etcdserverpb.Lease"
#define CLUSTER "etcdserverpb.Cluster"
#define MAINTENANCE "etcdserverpb.Maintenance"
#define AUTH "etcdserverpb.Auth"
#define LOCK "v3lockpb.Lock"
#define ELECTION "v3electionpb.Election"
#define HEALTH "grpc.health.v1.Health"

static const struct call_handler table[] = {
    RING(KV, "Range", kv_range),
    {"/" KV "/RangeStream", KV, "RangeStream", false, true, kv_range_stream, NULL, call_more, call_forget},
    RING(KV, "Put", kv_put),
    RING(KV, "DeleteRange", kv_delete_range),
    RING(KV, "Txn", kv_txn),
    RING(KV, "Compact", kv_compact),
    {"/" WATCH "/Watch", WATCH, "Watch", true, true, watch_message, watch_half_close, watch_writable, watch_closed},
    RING(LEASE, "LeaseGrant", lease_grant),
    RING(LEASE, "LeaseRevoke", lease_revoke),
    {"/" LEASE "/LeaseKeepAlive", LEASE, "LeaseKeepAlive", true, true, lease_keep_alive, lease_keep_alive_half_close,
        lease_keep_alive_writable, lease_keep_alive_closed},
    RING(LEASE, "LeaseTimeToLive", lease_time_to_live),
    RING(LEASE, "LeaseLeases", lease_leases),
    RING(CLUSTER, "MemberAdd", cluster_member_add),
    RING(CLUSTER, "MemberRemove", cluster_member_remove),
    RING(CLUSTER, "MemberUpdate", cluster_member_update),
    RING(CLUSTER, "MemberList", cluster_member_list),
    RING(CLUSTER, "MemberPromote", cluster_member_promote),
    RING(MAINTENANCE, "Alarm", maint_alarm),
    RING(MAINTENANCE, "Status", maint_status),
    RING(MAINTENANCE, "Defragment", maint_defragment),
    RING(MAINTENANCE, "Hash", maint_hash),
    RING(MAINTENANCE, "HashKV", maint_hash_kv),
    {"/" MAINTENANCE "/Snapshot", MAINTENANCE, "Snapshot", false, true, backup_snapshot, NULL, backup_writable, backup_closed},
    RING(MAINTENANCE, "MoveLeader", maint_move_leader),
    RING(MAINTENANCE, "Downgrade", maint_downgrade),
    RING(AUTH, "AuthEnable", auth_enable),
    RING(AUTH, "AuthDisable", auth_disable),
    RING(AUTH, "AuthStatus", auth_status),
    SECRET(AUTH, "Authenticate", auth_authenticate),
    SECRET(AUTH, "UserAdd", auth_user_add),
    RING(AUTH, "UserGet", auth_user_get),
    RING(AUTH, "UserList", auth_user_list),
    RING(AUTH, "UserDelete", auth_user_delete),
    SECRET(AUTH, "UserChangePassword", auth_user_change_password),
    RING(AUTH, "UserGrantRole", auth_user_grant_role),
    RING(AUTH, "UserRevokeRole", auth_user_revoke_role),
    RING(AUTH, "RoleAdd", auth_role_add),
    RING(AUTH, "RoleGet", auth_role_get),
    RING(AUTH, "RoleList", auth_role_list),
    RING(AUTH, "RoleDelete", auth_role_delete),
    RING(AUTH, "RoleGrantPermission", auth_role_grant),
    RING(AUTH, "RoleRevokePermission", auth_role_revoke),
    QUEUE(LOCK, "Lock", lock_lock),
    INNER(LOCK, "Unlock", lock_unlock),
    QUEUE(ELECTION, "Campaign", election_campaign),
    INNER(ELECTION, "Proclaim", election_proclaim),
    INNER(ELECTION, "Leader", election_leader),
    {"/" ELECTION "/Observe", ELECTION, "Observe", false, true, election_observe, NULL, election_observe_writable,
        election_observe_closed},
    INNER(ELECTION, "Resign", election_resign),
    UNARY(HEALTH, "Check", health_check),
    {"/" HEALTH "/Watch", HEALTH, "Watch", false, true, health_watch, NULL, NULL, NULL},
    UNARY(HEALTH, "List", health_list),
};

size_t route_count(void) { return ARRAY_LEN(table); }
const struct call_handler *route_at(size_t pos) { return &table[pos]; }

size_t route_pos(const struct call_handler *h)
{
    return h >= table && h < table + ARRAY_LEN(table) ? (size_t)(h - table) : SIZE_MAX;
}

/* The hot methods stand in front and lengths differ early: a scan finds them after one to three comparisons. */
const struct call_handler *route_find(struct slice path)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const char *p = table[i].path;
        if (strlen(p) == path.len && memcmp(p, path.data, path.len) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

bool route_has_service(struct slice service)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (slice_eq(slice_str(table[i].service), service)) {
            return true;
        }
    }
    return false;
}
