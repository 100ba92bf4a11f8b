/* jsonmap - where the JSON gateway's paths lead (spec/surface.md §1). From jsoncall.c. The types come from the services' own
 * descriptors, so a row cannot name the wrong ones. */
#include "gatewayd/jsonmap.h"

#include <string.h>

#include "etcd/election.pb-c.h"
#include "etcd/lock.pb-c.h"
#include "etcd/rpc.pb-c.h"

struct row {
    const char *path;
    const ProtobufCServiceDescriptor *service;
    const char *rpc;
};

#define KV &etcdserverpb__kv__descriptor, "/etcdserverpb.KV/"
#define WATCH &etcdserverpb__watch__descriptor, "/etcdserverpb.Watch/"
#define LEASE &etcdserverpb__lease__descriptor, "/etcdserverpb.Lease/"
#define CLUSTER &etcdserverpb__cluster__descriptor, "/etcdserverpb.Cluster/"
#define MAINTENANCE &etcdserverpb__maintenance__descriptor, "/etcdserverpb.Maintenance/"
#define AUTH &etcdserverpb__auth__descriptor, "/etcdserverpb.Auth/"
#define LOCK &v3lockpb__lock__descriptor, "/v3lockpb.Lock/"
#define ELECTION &v3electionpb__election__descriptor, "/v3electionpb.Election/"

static const struct row table[] = {
    {"/v3/kv/range", KV "Range"},
    {"/v3/kv/put", KV "Put"},
    {"/v3/kv/deleterange", KV "DeleteRange"},
    {"/v3/kv/txn", KV "Txn"},
    {"/v3/kv/compaction", KV "Compact"},
    {"/v3/watch", WATCH "Watch"},
    {"/v3/lease/grant", LEASE "LeaseGrant"},
    {"/v3/lease/revoke", LEASE "LeaseRevoke"},
    {"/v3/kv/lease/revoke", LEASE "LeaseRevoke"},
    {"/v3/lease/keepalive", LEASE "LeaseKeepAlive"},
    {"/v3/lease/timetolive", LEASE "LeaseTimeToLive"},
    {"/v3/kv/lease/timetolive", LEASE "LeaseTimeToLive"},
    {"/v3/lease/leases", LEASE "LeaseLeases"},
    {"/v3/kv/lease/leases", LEASE "LeaseLeases"},
    {"/v3/cluster/member/add", CLUSTER "MemberAdd"},
    {"/v3/cluster/member/remove", CLUSTER "MemberRemove"},
    {"/v3/cluster/member/update", CLUSTER "MemberUpdate"},
    {"/v3/cluster/member/list", CLUSTER "MemberList"},
    {"/v3/cluster/member/promote", CLUSTER "MemberPromote"},
    {"/v3/maintenance/alarm", MAINTENANCE "Alarm"},
    {"/v3/maintenance/status", MAINTENANCE "Status"},
    {"/v3/maintenance/defragment", MAINTENANCE "Defragment"},
    {"/v3/maintenance/hash", MAINTENANCE "Hash"},
    {"/v3/maintenance/hashkv", MAINTENANCE "HashKV"},
    {"/v3/maintenance/snapshot", MAINTENANCE "Snapshot"},
    {"/v3/maintenance/transfer-leadership", MAINTENANCE "MoveLeader"},
    {"/v3/maintenance/downgrade", MAINTENANCE "Downgrade"},
    {"/v3/auth/enable", AUTH "AuthEnable"},
    {"/v3/auth/disable", AUTH "AuthDisable"},
    {"/v3/auth/status", AUTH "AuthStatus"},
    {"/v3/auth/authenticate", AUTH "Authenticate"},
    {"/v3/auth/user/add", AUTH "UserAdd"},
    {"/v3/auth/user/get", AUTH "UserGet"},
    {"/v3/auth/user/list", AUTH "UserList"},
    {"/v3/auth/user/delete", AUTH "UserDelete"},
    {"/v3/auth/user/changepw", AUTH "UserChangePassword"},
    {"/v3/auth/user/grant", AUTH "UserGrantRole"},
    {"/v3/auth/user/revoke", AUTH "UserRevokeRole"},
    {"/v3/auth/role/add", AUTH "RoleAdd"},
    {"/v3/auth/role/get", AUTH "RoleGet"},
    {"/v3/auth/role/list", AUTH "RoleList"},
    {"/v3/auth/role/delete", AUTH "RoleDelete"},
    {"/v3/auth/role/grant", AUTH "RoleGrantPermission"},
    {"/v3/auth/role/revoke", AUTH "RoleRevokePermission"},
    {"/v3/lock/lock", LOCK "Lock"},
    {"/v3/lock/unlock", LOCK "Unlock"},
    {"/v3/election/campaign", ELECTION "Campaign"},
    {"/v3/election/proclaim", ELECTION "Proclaim"},
    {"/v3/election/leader", ELECTION "Leader"},
    {"/v3/election/observe", ELECTION "Observe"},
    {"/v3/election/resign", ELECTION "Resign"},
};

size_t json_method_count(void) { return ARRAY_LEN(table); }

struct json_method json_method_at(size_t pos)
{
    const struct row *row = &table[pos];
    const ProtobufCMethodDescriptor *m = protobuf_c_service_descriptor_get_method_by_name(row->service, strrchr(row->rpc, '/') + 1);
    must(m != NULL);
    return (struct json_method){row->path, row->rpc, m->input, m->output};
}

bool json_method_find(struct slice path, struct json_method *m)
{
    static const char *const versions[] = {"/v3/", "/v3beta/", "/v3alpha/"};
    for (size_t v = 0; v < ARRAY_LEN(versions); v++) {
        size_t skip = strlen(versions[v]);
        if (path.len < skip || memcmp(path.data, versions[v], skip) != 0) {
            continue;
        }
        struct slice rest = slice_of(path.data + skip, path.len - skip);
        for (size_t i = 0; i < ARRAY_LEN(table); i++) {
            if (slice_eq(rest, slice_str(table[i].path + strlen(versions[0])))) {
                *m = json_method_at(i);
                return true;
            }
        }
    }
    return false;
}
