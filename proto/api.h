/* api - the hot messages of etcd's API, decoded in place: slices borrow the request's bytes.
 * Written by hand because generated code copies every byte; tests/proto/test_api.c holds it against the generated
 * decoder on random messages. Also the checks that need nothing but the request (spec/semantics.md §3, §5-7),
 * which gatewayd makes for its clients and stored makes again, because an entry may come from anybody. */
#ifndef PROTO_API_H
#define PROTO_API_H

#include "common/buf.h"
#include "common/mem.h"

enum api_sort_order { API_SORT_NONE, API_SORT_ASCEND, API_SORT_DESCEND };
enum api_sort_target { API_BY_KEY, API_BY_VERSION, API_BY_CREATE, API_BY_MOD, API_BY_VALUE };
enum api_compare_result { API_EQUAL, API_GREATER, API_LESS, API_NOT_EQUAL };
enum api_compare_target { API_VERSION, API_CREATE, API_MOD, API_VALUE, API_LEASE };
/* Numbers of the fields of RequestOp. */
enum api_op { API_OP_NONE, API_OP_RANGE, API_OP_PUT, API_OP_DELETE, API_OP_TXN };

struct api_range {
    struct slice key, range_end;
    int64_t limit, revision;
    int64_t sort_order, sort_target; /* unchecked enums */
    bool serializable, keys_only, count_only;
    int64_t min_mod, max_mod, min_create, max_create;
};

struct api_put {
    struct slice key, value;
    int64_t lease;
    bool prev_kv, ignore_value, ignore_lease;
};

struct api_delete {
    struct slice key, range_end;
    bool prev_kv;
};

struct api_compare {
    int64_t result, target; /* unchecked enums */
    struct slice key, range_end;
    int64_t number;     /* VERSION, CREATE, MOD, LEASE */
    struct slice value; /* VALUE */
};

struct api_txn;
struct api_request_op {
    enum api_op op;
    union {
        struct api_range range;
        struct api_put put;
        struct api_delete del;
        struct api_txn *txn; /* in the arena */
    };
};

struct api_txn {
    struct api_compare *compares; /* arrays in the arena */
    size_t compare_count;
    struct api_request_op *success;
    size_t success_count;
    struct api_request_op *failure;
    size_t failure_count;
};
/* compare_count of a nested transaction with more items than it may have: its lists are NULL, and api_check_txn refuses it. */
#define API_TXN_TOO_MANY SIZE_MAX

struct api_key_value {
    struct slice key, value;
    int64_t create_revision, mod_revision, version, lease;
};

/* 0 or E_MALFORMED. Unknown fields are skipped; the last of a repeated scalar wins. */
int api_decode_range(struct slice bytes, struct api_range *m);
int api_decode_put(struct slice bytes, struct api_put *m);
int api_decode_delete(struct slice bytes, struct api_delete *m);
int api_decode_key_value(struct slice bytes, struct api_key_value *m);
/* Arrays and nested transactions live in the arena. ops_max bounds every list as in api_check_txn, and TXN_ALL_OPS_MAX (or
 * ops_max, if that is more) the tree; what is over gets no memory. E_TOO_MANY_OPS when the root has too many, or when nested
 * deeper than TXN_DEPTH_MAX. An operand of a Compare that is not its target's is 0 or empty here, as if it were missing. */
int api_decode_txn(struct slice bytes, struct arena *arena, uint64_t ops_max, struct api_txn **m);

void api_encode_key_value(struct buf *out, const struct api_key_value *m);
size_t api_key_value_size(const struct api_key_value *m);

/* Encoders for requests that we make ourselves (native door, trinectl, tests). */
void api_encode_range(struct buf *out, const struct api_range *m);
void api_encode_put(struct buf *out, const struct api_put *m);
void api_encode_delete(struct buf *out, const struct api_delete *m);
void api_encode_txn(struct buf *out, const struct api_txn *m);

/* 0 or etcd's error, in etcd's order of checks. */
int api_check_range(const struct api_range *m);
int api_check_put(const struct api_put *m);
int api_check_delete(const struct api_delete *m);
/* The whole tree: counts, keys, duplicates (§7). ops_max: max-txn-ops. */
int api_check_txn(const struct api_txn *m, uint64_t ops_max);

/* Only Range operations in both branches and no nested transaction: never enters the log (§7). */
bool api_txn_is_read_only(const struct api_txn *m);
/* ... and all of them serializable (a transaction without operations is). */
bool api_txn_is_serializable(const struct api_txn *m);
bool api_txn_has_put(const struct api_txn *m); /* anywhere in the tree: for NOSPACE (§15) */

/* An interval by etcd's rules: key alone; [key, end); end "\0": everything >= key. */
struct api_interval {
    struct slice key, end;
    bool single; /* exactly key */
    bool open;   /* no upper bound */
};
struct api_interval api_interval(struct slice key, struct slice range_end);
bool api_interval_has(const struct api_interval *i, struct slice key);

#endif
