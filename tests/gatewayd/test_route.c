/* route - the table of everything that can be called, against spec/wire.md's list. */
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "gatewayd/gatewayd.h"

static const char *const rpcs[] = {
    "etcdserverpb.KV/Range", "etcdserverpb.KV/RangeStream", "etcdserverpb.KV/Put", "etcdserverpb.KV/DeleteRange",
    "etcdserverpb.KV/Txn", "etcdserverpb.KV/Compact", "etcdserverpb.Watch/Watch", "etcdserverpb.Lease/LeaseGrant",
    "etcdserverpb.Lease/LeaseRevoke", "etcdserverpb.Lease/LeaseKeepAlive", "etcdserverpb.Lease/LeaseTimeToLive",
    "etcdserverpb.Lease/LeaseLeases", "etcdserverpb.Cluster/MemberAdd", "etcdserverpb.Cluster/MemberRemove",
    "etcdserverpb.Cluster/MemberUpdate", "etcdserverpb.Cluster/MemberList", "etcdserverpb.Cluster/MemberPromote",
    "etcdserverpb.Maintenance/Alarm", "etcdserverpb.Maintenance/Status", "etcdserverpb.Maintenance/Defragment",
    "etcdserverpb.Maintenance/Hash", "etcdserverpb.Maintenance/HashKV", "etcdserverpb.Maintenance/Snapshot",
    "etcdserverpb.Maintenance/MoveLeader", "etcdserverpb.Maintenance/Downgrade", "etcdserverpb.Auth/AuthEnable",
    "etcdserverpb.Auth/AuthDisable", "etcdserverpb.Auth/AuthStatus", "etcdserverpb.Auth/Authenticate", "etcdserverpb.Auth/UserAdd",
    "etcdserverpb.Auth/UserGet", "etcdserverpb.Auth/UserList", "etcdserverpb.Auth/UserDelete",
    "etcdserverpb.Auth/UserChangePassword", "etcdserverpb.Auth/UserGrantRole", "etcdserverpb.Auth/UserRevokeRole",
    "etcdserverpb.Auth/RoleAdd", "etcdserverpb.Auth/RoleGet", "etcdserverpb.Auth/RoleList", "etcdserverpb.Auth/RoleDelete",
    "etcdserverpb.Auth/RoleGrantPermission", "etcdserverpb.Auth/RoleRevokePermission", "v3lockpb.Lock/Lock", "v3lockpb.Lock/Unlock",
    "v3electionpb.Election/Campaign", "v3electionpb.Election/Proclaim", "v3electionpb.Election/Leader",
    "v3electionpb.Election/Observe", "v3electionpb.Election/Resign", "grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch",
    "grpc.health.v1.Health/List"};

Test(route, all_49_methods_and_health_have_a_handler)
{
    cr_expect_eq(ARRAY_LEN(rpcs), 49 + 3);
    cr_expect_eq(route_count(), ARRAY_LEN(rpcs));
    for (size_t i = 0; i < ARRAY_LEN(rpcs); i++) {
        char *path = xasprintf("/%s", rpcs[i]);
        const struct call_handler *h = route_find(slice_str(path));
        cr_assert_not_null(h, "%s", path);
        cr_expect_str_eq(h->path, path);
        cr_expect_not_null(h->message);
        cr_expect_eq(route_at(route_pos(h)), h);
        char *joined = xasprintf("%s/%s", h->service, h->method);
        cr_expect_str_eq(joined, rpcs[i]);
        cr_expect(route_has_service(slice_str(h->service)));
        free(joined);
        free(path);
    }
}

Test(route, streams_are_what_the_specification_says)
{
    const char *const bidi[] = {"Watch/Watch", "LeaseKeepAlive"}, *const server[] = {"RangeStream", "Snapshot", "Observe", "v1.Health/Watch"};
    for (size_t i = 0; i < route_count(); i++) {
        const struct call_handler *h = route_at(i);
        bool is_bidi = false, is_server = false;
        for (size_t k = 0; k < ARRAY_LEN(bidi); k++) {
            is_bidi |= strstr(h->path, bidi[k]) != NULL;
        }
        for (size_t k = 0; k < ARRAY_LEN(server); k++) {
            is_server |= strstr(h->path, server[k]) != NULL;
        }
        cr_expect_eq(h->client_stream, is_bidi, "%s", h->path);
        cr_expect_eq(h->server_stream, is_bidi || is_server, "%s", h->path);
    }
}

Test(route, what_is_nearly_a_path_is_none)
{
    const char *const wrong[] = {"", "/", "etcdserverpb.KV/Put", "/etcdserverpb.KV/Put/", "/etcdserverpb.KV/put", "/etcdserverpb.KV/Pu",
        "/etcdserverpb.KV//Put"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        cr_expect_null(route_find(slice_str(wrong[i])), "%s", wrong[i]);
    }
    cr_expect_not(route_has_service(SLICE_LIT("etcdserverpb.Kv")));
    cr_expect_eq(route_pos(NULL), SIZE_MAX);
}
