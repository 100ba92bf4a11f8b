/* lease - leases, the keys attached to them, and when they are due.
 * Deadlines live only in the leader's stored, on its monotonic clock; what is replicated is that a lease exists and its
 * TTL (spec/semantics.md §11). All functions run on the loop's thread; time is an argument. Attachments are not persisted: they
 * are the `lease` field of the live records, and mvcc tells them again at start. */
#ifndef STORED_LEASE_H
#define STORED_LEASE_H

#include "common/base.h"
#include "common/buf.h"

struct leases;

/* While loading (from leases_new to leases_loaded) attachments may be told before the lease that they belong to. */
struct leases *leases_new(uint64_t min_ttl_s);
void leases_free(struct leases *l);
void lease_load(struct leases *l, int64_t id, int64_t ttl_s); /* one persisted lease, as it was granted */
size_t leases_loaded(struct leases *l); /* forgets attachments to leases that nobody loaded; returns how many leases that were */

/* [apply] 0, E_LEASE_EXIST, E_LEASE_TTL_TOO_LARGE. *ttl: granted. */
int lease_grant(struct leases *l, int64_t id, int64_t ttl_s, int64_t *granted, uint64_t now_ms);
bool lease_exists(const struct leases *l, int64_t id);
/* Forgets the lease and its attachments (its keys are deleted by the caller, before). */
int lease_drop(struct leases *l, int64_t id); /* 0 or E_LEASE_NOT_FOUND */
/* Moves key to lease `id` (0: none) from `old` (0: none). Unknown ids are ignored here: mvcc checks before. */
void lease_attach(struct leases *l, struct slice key, int64_t old, int64_t id);
/* Attached keys in byte order, as an array of borrowed slices, valid until the next change; given: free(*keys). */
size_t lease_keys(const struct leases *l, int64_t id, struct slice **keys);
/* Does cb say yes to each attached key? In no order, up to the first no. No keys, no lease: true. */
bool lease_keys_all(const struct leases *l, int64_t id, bool (*cb)(void *arg, struct slice key), void *arg);

/* Leadership: on becoming leader every lease gets its full TTL + extend_ms again; not leader: nothing expires. */
void leases_lead(struct leases *l, bool leading, uint64_t now_ms, uint64_t extend_ms);
bool leases_leading(const struct leases *l);
/* Renews: 0 and *ttl, or E_LEASE_NOT_FOUND (also when due but not yet revoked), E_NOT_PRIMARY_LESSOR. */
int lease_renew(struct leases *l, int64_t id, int64_t *ttl, uint64_t now_ms);
/* Remaining whole seconds (>= 0) and granted ttl; E_LEASE_NOT_FOUND (also when due), E_NOT_PRIMARY_LESSOR. */
int lease_time_to_live(const struct leases *l, int64_t id, int64_t *remaining, int64_t *granted, uint64_t now_ms);
/* Ids of due leases, at most max, each given out once per attempt_ms until it is dropped. */
size_t leases_due(struct leases *l, int64_t *ids, size_t max, uint64_t now_ms, uint64_t attempt_ms);
/* All ids, ordered by expiry on the leader. Given: free(*ids). */
size_t leases_list(const struct leases *l, int64_t **ids);
size_t leases_count(const struct leases *l);

#endif
