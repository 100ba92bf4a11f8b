/* password_cost - the work put into a password's hash (argon2id), for those who make hashes and those who must not be
 * seen to check none. bcrypt-cost keeps the meaning of its steps, each doubles the work: at 10, etcd's default, two
 * passes over 64 MiB; below, the memory halves; above, the passes double, up to PASSWORD_COST_MAX. */
#ifndef COMMON_PASSWORD_COST_H
#define COMMON_PASSWORD_COST_H

#include "common/base.h"
#include "common/limits.h"

#define PASSWORD_COST_DEFAULT 10

static inline void password_cost(uint64_t bcrypt_cost, unsigned long long *passes, size_t *memory)
{
    uint64_t cost = MIN(bcrypt_cost, (uint64_t)PASSWORD_COST_MAX);

    *passes = PASSWORD_PASSES << (cost > PASSWORD_COST_DEFAULT ? cost - PASSWORD_COST_DEFAULT : 0);
    *memory = PASSWORD_MEMORY_BYTES >> (cost < PASSWORD_COST_DEFAULT ? PASSWORD_COST_DEFAULT - cost : 0);
}

#endif
