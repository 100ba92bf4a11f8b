/* command - the envelope of a log entry or a query: who asks for what.
 * The API's own message travels inside unchanged (architecture §2), so the log speaks the public API. The
 * envelope is a msgpack array [version, kind, origin, slot, instance, req, user, auth_rev, body]. raftd never looks inside.
 *
 * Everything that must be the same on all members and is not a function of the state (a lease id the server
 * chose) is decided by the proposer and stands in the body. */
#ifndef PROTO_COMMAND_H
#define PROTO_COMMAND_H

#include "common/buf.h"

#define COMMAND_VERSION 1

/* X(NAME, number, "API message of the body", is_write) */
#define COMMANDS(X) \
    X(RANGE, 1, "RangeRequest", false) \
    X(PUT, 2, "PutRequest", true) \
    X(DELETE_RANGE, 3, "DeleteRangeRequest", true) \
    X(TXN, 4, "TxnRequest", true) /* also a query, when it only reads */ \
    X(COMPACT, 5, "CompactionRequest", true) \
    X(RANGE_STREAM, 6, "RangeRequest", false) /* parts of the result are whole RangeStreamResponse messages */ \
    X(LEASE_GRANT, 10, "LeaseGrantRequest", true) /* ID already chosen */ \
    X(LEASE_REVOKE, 11, "LeaseRevokeRequest", true) \
    X(LEASE_EXPIRE, 12, "repeated LeaseRevokeRequest as LeaseLeasesResponse.leases", true) /* by the leader's stored */ \
    X(LEASE_KEEP_ALIVE, 13, "LeaseKeepAliveRequest", false) /* READ: needs the leader's stored */ \
    X(LEASE_TIME_TO_LIVE, 14, "LeaseTimeToLiveRequest", false) /* READ: needs the leader's stored */ \
    X(LEASE_LEASES, 15, "LeaseLeasesRequest", false) \
    X(HASH_KV, 20, "HashKVRequest", false) \
    X(DEFRAGMENT, 21, "DefragmentRequest", false) \
    X(ALARM, 22, "AlarmRequest", true) /* GET is a query */ \
    X(BARRIER, 30, "empty", false) /* answered like a read; proves what came before it was applied */ \
    X(AUTH_ENABLE, 40, "AuthEnableRequest", true) \
    X(AUTH_DISABLE, 41, "AuthDisableRequest", true) \
    X(AUTH_STATUS, 42, "AuthStatusRequest", false) \
    X(AUTHENTICATE, 43, "AuthenticateRequest", true) /* see "auth" below */ \
    X(USER_ADD, 44, "AuthUserAddRequest", true) /* see "auth" */ \
    X(USER_GET, 45, "AuthUserGetRequest", false) \
    X(USER_LIST, 46, "AuthUserListRequest", false) \
    X(USER_DELETE, 47, "AuthUserDeleteRequest", true) \
    X(USER_CHANGE_PASSWORD, 48, "AuthUserChangePasswordRequest", true) /* see "auth" */ \
    X(USER_GRANT_ROLE, 49, "AuthUserGrantRoleRequest", true) \
    X(USER_REVOKE_ROLE, 50, "AuthUserRevokeRoleRequest", true) \
    X(ROLE_ADD, 51, "AuthRoleAddRequest", true) \
    X(ROLE_GET, 52, "AuthRoleGetRequest", false) \
    X(ROLE_LIST, 53, "AuthRoleListRequest", false) \
    X(ROLE_DELETE, 54, "AuthRoleDeleteRequest", true) \
    X(ROLE_GRANT, 55, "AuthRoleGrantPermissionRequest", true) \
    X(ROLE_REVOKE, 56, "AuthRoleRevokePermissionRequest", true) \
    X(PASSWORD, 57, "AuthenticateRequest", false) /* READ: is the password right? AuthStatusResponse */ \
    X(TOKEN, 58, "AuthenticateResponse", false) /* whose token? TokenAnswer below */ \
    X(AUTHORIZE, 59, "RangeRequest", false) /* may the user read this? empty: has he role root? answer: header alone */ \
    X(HASH, 60, "HashRequest", false) \
    X(SNAPSHOT, 61, "MemberListResponse", false) /* who is in the cluster; the answer is the backup's bytes themselves */ \
    X(DOWNGRADE, 62, "DowngradeRequest", true) /* VALIDATE is a query */

/* Auth. A password travels in PASSWORD alone, which is a read; it never enters the log.
 *
 *   USER_ADD, USER_CHANGE_PASSWORD   `password` is empty; `hashedPassword` is libsodium's argon2id string ("$argon2id$..."), made
 *                                    by the gateway, or what the client gave: base64 of a bcrypt hash. Empty with no_password.
 *   PASSWORD                         answer: AuthStatusResponse, whose authRevision the next command carries
 *   AUTHENTICATE                     `password` is the first half of a token: TOKEN_LETTERS random letters; auth_rev is that of
 *                                    PASSWORD's answer (older than the store's: E_AUTH_OLD_REVISION, ask PASSWORD again); no user.
 *                                    Answer: AuthenticateResponse with the whole token, letters "." index of the entry
 *   TOKEN                            body { 2 token }. Answer, TokenAnswer { 1 name, 2 auth_rev }: the user, and the auth revision at
 *                                    which that is true; or E_INVALID_AUTH_TOKEN; E_AUTH_NOT_ENABLED when auth is off here
 *
 * A command that stored proposes itself has origin, slot and instance 0. Gateways' slots begin at 1, and no part of the
 * envelope but the user comes from a client: nobody outside can make such a command. */
#define TOKEN_LETTERS 16

enum command_kind {
#define COMMAND_ENUM(NAME, number, body, is_write) COMMAND_##NAME = number,
    COMMANDS(COMMAND_ENUM)
#undef COMMAND_ENUM
};

struct command {
    uint64_t kind;     /* enum command_kind */
    uint64_t origin;   /* member id of the node whose gateway asked; 0: nobody waits for the result */
    uint64_t slot;     /* link slot of that gateway */
    uint64_t instance; /* of that gateway */
    uint64_t req;      /* unique among this instance's requests */
    struct slice user; /* authenticated user name; empty: none */
    uint64_t auth_rev; /* auth revision the user was checked at; 0 while auth is off */
    struct slice body; /* the API message, protobuf */
};

void command_encode(struct buf *out, const struct command *c);
/* Borrows bytes. E_MALFORMED, E_TRUNCATED, E_TOO_BIG, E_TRAILING, E_VERSION. A kind that is not in the list is left to
 * whoever runs the command. */
int command_decode(struct slice bytes, struct command *c);
const char *command_name(uint64_t kind); /* "PUT"; "?" when unknown */

#endif
