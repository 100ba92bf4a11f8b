/* crc32c - isa-l's crc32_iscsi in the form everybody else means by CRC32C.
 * isa-l runs the bare polynomial division: it neither inverts the start value nor the result, and takes the
 * length as an int. Both are put right here, so that no caller has to know. */
#include "common/crc32c.h"

#include <isa-l/crc.h>

/* Far below INT_MAX, and a multiple of any block size isa-l works in. */
#define CRC32C_PIECE ((size_t)1 << 30)

uint32_t crc32c(uint32_t seed, const void *data, size_t len)
{
    /* isa-l forgot the const, it does not write. */
    unsigned char *p = (unsigned char *)(uintptr_t)data;
    uint32_t crc = ~seed;

    while (len > 0) {
        size_t piece = MIN(len, CRC32C_PIECE);
        crc = crc32_iscsi(p, (int)piece, crc);
        p += piece;
        len -= piece;
    }
    return ~crc;
}
