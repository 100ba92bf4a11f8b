/* err - every error code of the suite and its text, in one list.
 * Functions return 0 or one of these (negative). Codes cross processes as their positive number in a
 * frame and reach the client as the gRPC status and text of the same row: the text is etcd's, byte for
 * byte, because clients map it back to typed errors (spec/semantics.md §19). Where etcd's own server sends a
 * plain error, the status is 2 (Unknown), as on its wire (§19.2). "Canceled" and "DeadlineExceeded" carry the raw context texts.
 *
 * The number of a row is its position: add rows only at the end, and raise FRAMES_VERSION. */
#ifndef COMMON_ERR_H
#define COMMON_ERR_H

#include "common/base.h"

/* X(name, grpc status, text) */
#define ERRORS(X) \
    X(E_EMPTY_KEY, 3, "etcdserver: key is not provided") \
    X(E_KEY_NOT_FOUND, 3, "etcdserver: key not found") \
    X(E_VALUE_PROVIDED, 3, "etcdserver: value is provided") \
    X(E_LEASE_PROVIDED, 3, "etcdserver: lease is provided") \
    X(E_TOO_MANY_OPS, 3, "etcdserver: too many operations in txn request") \
    X(E_DUPLICATE_KEY, 3, "etcdserver: duplicate key given in txn request") \
    X(E_INVALID_CLIENT_API_VERSION, 3, "etcdserver: invalid client api version") \
    X(E_INVALID_SORT_OPTION, 3, "etcdserver: invalid sort option") \
    X(E_COMPACTED, 11, "etcdserver: mvcc: required revision has been compacted") \
    X(E_FUTURE_REV, 11, "etcdserver: mvcc: required revision is a future revision") \
    X(E_NO_SPACE, 8, "etcdserver: mvcc: database space exceeded") \
    X(E_LEASE_NOT_FOUND, 5, "etcdserver: requested lease not found") \
    X(E_LEASE_EXIST, 9, "etcdserver: lease already exists") \
    X(E_LEASE_TTL_TOO_LARGE, 11, "etcdserver: too large lease TTL") \
    X(E_WATCH_CANCELED, 1, "etcdserver: watch canceled") \
    X(E_MEMBER_EXIST, 9, "etcdserver: member ID already exist") \
    X(E_PEER_URL_EXIST, 9, "etcdserver: Peer URLs already exists") \
    X(E_MEMBER_NOT_ENOUGH_STARTED, 2, "etcdserver: re-configuration failed due to not enough started members") \
    X(E_MEMBER_BAD_URLS, 3, "etcdserver: given member URLs are invalid") \
    X(E_MEMBER_NOT_FOUND, 5, "etcdserver: member not found") \
    X(E_MEMBER_NOT_LEARNER, 9, "etcdserver: can only promote a learner member") \
    X(E_LEARNER_NOT_READY, 9, "etcdserver: can only promote a learner member which is in sync with leader") \
    X(E_TOO_MANY_LEARNERS, 9, "etcdserver: too many learner members in cluster") \
    X(E_CLUSTER_ID_MISMATCH, 9, "etcdserver: cluster ID mismatch") \
    X(E_REQUEST_TOO_LARGE, 3, "etcdserver: request is too large") \
    X(E_REQUEST_TOO_MANY_REQUESTS, 2, "etcdserver: too many requests") \
    X(E_ROOT_USER_NOT_EXIST, 9, "etcdserver: root user does not exist") \
    X(E_ROOT_ROLE_NOT_EXIST, 9, "etcdserver: root user does not have root role") \
    X(E_USER_ALREADY_EXIST, 9, "etcdserver: user name already exists") \
    X(E_USER_EMPTY, 3, "etcdserver: user name is empty") \
    X(E_USER_NOT_FOUND, 9, "etcdserver: user name not found") \
    X(E_ROLE_ALREADY_EXIST, 9, "etcdserver: role name already exists") \
    X(E_ROLE_NOT_FOUND, 9, "etcdserver: role name not found") \
    X(E_ROLE_EMPTY, 3, "etcdserver: role name is empty") \
    X(E_AUTH_FAILED, 3, "etcdserver: authentication failed, invalid user ID or password") \
    X(E_PERMISSION_NOT_GIVEN, 3, "etcdserver: permission not given") \
    X(E_PERMISSION_DENIED, 7, "etcdserver: permission denied") \
    X(E_ROLE_NOT_GRANTED, 9, "etcdserver: role is not granted to the user") \
    X(E_PERMISSION_NOT_GRANTED, 9, "etcdserver: permission is not granted to the role") \
    X(E_AUTH_NOT_ENABLED, 9, "etcdserver: authentication is not enabled") \
    X(E_INVALID_AUTH_TOKEN, 16, "etcdserver: invalid auth token") \
    X(E_INVALID_AUTH_MGMT, 3, "etcdserver: invalid auth management") \
    X(E_AUTH_OLD_REVISION, 3, "etcdserver: revision of auth store is old") \
    X(E_NO_LEADER, 14, "etcdserver: no leader") \
    X(E_NOT_LEADER, 9, "etcdserver: not leader") \
    X(E_LEADER_CHANGED, 14, "etcdserver: leader changed") \
    X(E_NOT_CAPABLE, 9, "etcdserver: not capable") \
    X(E_STOPPED, 14, "etcdserver: server stopped") \
    X(E_TIMEOUT, 14, "etcdserver: request timed out") \
    X(E_TIMEOUT_DUE_TO_LEADER_FAIL, 14, "etcdserver: request timed out, possibly due to previous leader failure") \
    X(E_TIMEOUT_DUE_TO_CONNECTION_LOST, 14, "etcdserver: request timed out, possibly due to connection lost") \
    X(E_TIMEOUT_WAIT_APPLIED_INDEX, 14, "etcdserver: request timed out, waiting for the applied index took too long") \
    X(E_UNHEALTHY, 14, "etcdserver: unhealthy cluster") \
    X(E_CORRUPT, 15, "etcdserver: corrupt cluster") \
    X(E_NOT_SUPPORTED_FOR_LEARNER, 9, "etcdserver: rpc not supported for learner") \
    X(E_BAD_LEADER_TRANSFEREE, 9, "etcdserver: bad leader transferee") \
    X(E_WRONG_DOWNGRADE_VERSION_FORMAT, 3, "etcdserver: wrong downgrade target version format") \
    X(E_INVALID_DOWNGRADE_TARGET_VERSION, 3, "etcdserver: invalid downgrade target version") \
    X(E_CLUSTER_VERSION_UNAVAILABLE, 9, "etcdserver: cluster version not found during downgrade") \
    X(E_DOWNGRADE_IN_PROCESS, 9, "etcdserver: cluster has a downgrade job in progress") \
    X(E_NO_INFLIGHT_DOWNGRADE, 9, "etcdserver: no inflight downgrade job") \
    X(E_CANCELED, 1, "context canceled") \
    X(E_DEADLINE_EXCEEDED, 4, "context deadline exceeded") \
    /* etcd's texts outside the table of 63 (§19.2, §19.3) */ \
    X(E_NOT_PRIMARY_LESSOR, 2, "not a primary lessor") \
    X(E_STREAM_SORT, 12, "RangeStream does not support custom sort orders") \
    X(E_STREAM_FILTER, 12, "RangeStream does not support revision filters") \
    X(E_WATCH_DUPLICATE_ID, 2, "mvcc: duplicate watch ID provided on the WatchStream") \
    X(E_WATCH_EMPTY_RANGE, 2, "mvcc: watcher range is empty") \
    X(E_UNIMPLEMENTED, 12, "unknown method") \
    X(E_MALFORMED_REQUEST, 13, "grpc: error unmarshalling request") \
    /* ours: not etcd's, for logs, configuration and what a client cannot cause */ \
    X(E_INVALID, 3, "invalid argument") \
    X(E_MALFORMED, 13, "malformed bytes") \
    X(E_TRUNCATED, 13, "bytes end too early") \
    X(E_TRAILING, 13, "bytes left over") \
    X(E_TOO_BIG, 8, "larger than its limit") \
    X(E_FULL, 8, "queue is full") \
    X(E_IO, 13, "input or output error") \
    X(E_NO_SPACE_LEFT, 8, "no space left on device") \
    X(E_LOCKED, 9, "already in use by another process") \
    X(E_DAMAGED, 15, "stored bytes are damaged") \
    X(E_VERSION, 9, "version not understood") \
    X(E_NOT_FOUND, 5, "not found") \
    X(E_AGAIN, 14, "not ready") \
    X(E_UNREACHABLE, 14, "sibling daemon not reachable") \
    X(E_AMBIGUOUS, 14, "etcdserver: request timed out, possibly due to connection lost") \
    X(E_TIMEOUT_LEADER_TRANSFER, 2, "etcdserver: request timed out, leader transfer took too long") \
    X(E_REMOVED, 9, "the member has been permanently removed from the cluster") \
    X(E_NO_PASSWORD_USER, 2, "auth: authentication failed, password was given for no password user") \
    X(E_VERIFY_ONLY, 2, "auth: token signing attempted with verify-only key") \
    X(E_INNER, 2, "failed inside") /* of Lock and Election: the client is told another text */ \
    X(E_UNKNOWN_METHOD, 2, "etcdserver: unknown method")

enum err_number {
    ERR_NUMBER_NONE = 0,
#define ERR_ENUM(name, status, text) NUMBER_##name,
    ERRORS(ERR_ENUM)
#undef ERR_ENUM
    ERR_NUMBER_COUNT
};

enum err {
    OK = 0,
#define ERR_ENUM(name, status, text) name = -NUMBER_##name,
    ERRORS(ERR_ENUM)
#undef ERR_ENUM
};

/* All of these accept any int: a code that is not in the list is answered like E_MALFORMED. */
const char *err_name(int err);   /* "E_EMPTY_KEY"; "OK" for 0 */
const char *err_text(int err);   /* "etcdserver: key is not provided" */
int err_grpc_status(int err);    /* 3; 0 for OK */
/* A code from another process: its positive number -> code; E_MALFORMED when unknown. */
int err_from_number(uint64_t number);

#endif
