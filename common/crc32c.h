/* crc32c - the Castagnoli checksum of records on disk: the standard one, as iSCSI and LevelDB (unmasked) have
 * it: crc32c(0, "123456789", 9) is 0xe3069283. The only file that knows isa-l. */
#ifndef COMMON_CRC32C_H
#define COMMON_CRC32C_H

#include "common/base.h"

/* Starts with seed 0; with the result of an earlier call as seed it goes on where that one ended:
 * crc32c(crc32c(0, a), b) is the checksum of a followed by b. */
uint32_t crc32c(uint32_t seed, const void *data, size_t len);

#endif
