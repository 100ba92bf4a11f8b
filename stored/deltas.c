/* deltas - the last births and deaths of keys, so that the count of an interval a few revisions ago costs no walk:
 * count then = count now - births since + deaths since. Bounded; what is older is forgotten and says so. */
#include <stdlib.h>

#include "common/limits.h"
#include "common/mem.h"
#include "stored/mvcc_inner.h"

#define DELTAS_MAX 8192
#define DELTAS_KEY_BYTES_MAX (1 * MIB)

static void forget_oldest(struct deltas *d)
{
    struct delta *old = &d->ring[d->first++ % DELTAS_MAX];
    d->floor = old->rev;
    d->key_bytes -= old->key_len;
    free(old->key);
}

void deltas_add(struct deltas *d, int64_t rev, struct slice key, int by)
{
    if (d->ring == NULL) {
        d->ring = xcalloc(DELTAS_MAX, sizeof(*d->ring));
    }
    while (d->end > d->first && (d->end - d->first == DELTAS_MAX || d->key_bytes + key.len > DELTAS_KEY_BYTES_MAX)) {
        forget_oldest(d);
    }
    d->ring[d->end++ % DELTAS_MAX] = (struct delta){
        .rev = rev, .key_len = (uint32_t)key.len, .by = (int8_t)by, .key = xmemdup(key.data, key.len)};
    d->key_bytes += key.len;
}

void deltas_fini(struct deltas *d)
{
    while (d->end > d->first) {
        forget_oldest(d);
    }
    free(d->ring);
    *d = (struct deltas){0};
}

bool deltas_since(const struct deltas *d, int64_t rev, const struct api_interval *in, int64_t *sum)
{
    if (rev < d->floor) {
        return false;
    }
    *sum = 0;
    for (uint64_t at = d->end; at > d->first; at--) {
        const struct delta *one = &d->ring[(at - 1) % DELTAS_MAX];
        if (one->rev <= rev) {
            break;
        }
        if (api_interval_has(in, slice_of(one->key, one->key_len))) {
            *sum -= one->by;
        }
    }
    return true;
}
