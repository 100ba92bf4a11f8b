/* rev - keys of records. Grammar: 'R' main(8) sub(4) ['t'], numbers big endian; main >= 1, sub >= 0. */
#include "stored/rev.h"

#include <string.h>

#include "common/err.h"

void rev_store64(uint8_t *at, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(at, &v, sizeof(v));
}

uint64_t rev_load64(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, sizeof(v));
    return __builtin_bswap64(v);
}

void rev_store32(uint8_t *at, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(at, &v, sizeof(v));
}

uint32_t rev_load32(const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, sizeof(v));
    return __builtin_bswap32(v);
}

size_t rev_key_encode(uint8_t *out, int64_t main, int32_t sub, bool tombstone)
{
    out[0] = REV_PREFIX;
    rev_store64(out + 1, (uint64_t)main);
    rev_store32(out + 9, (uint32_t)sub);
    if (!tombstone) {
        return 13;
    }
    out[13] = 't';
    return 14;
}

int rev_key_decode(struct slice key, int64_t *main, int32_t *sub, bool *tombstone)
{
    if ((key.len != 13 && key.len != 14) || key.data[0] != REV_PREFIX || (key.len == 14 && key.data[13] != 't')) {
        return E_MALFORMED;
    }
    uint64_t m = rev_load64(key.data + 1);
    uint32_t s = rev_load32(key.data + 9);
    if (m == 0 || m > INT64_MAX || s > INT32_MAX) {
        return E_MALFORMED;
    }
    *main = (int64_t)m;
    *sub = (int32_t)s;
    *tombstone = key.len == 14;
    return 0;
}

int rev_cmp(int64_t a_main, int32_t a_sub, int64_t b_main, int32_t b_sub)
{
    if (a_main != b_main) {
        return a_main < b_main ? -1 : 1;
    }
    return a_sub == b_sub ? 0 : a_sub < b_sub ? -1 : 1;
}
