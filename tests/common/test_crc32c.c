/* crc32c: the standard's numbers, in one call and in pieces. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/rand.h"

/* RFC 3720 (iSCSI), B.4, and the check value of the catalogue of CRCs. */
Test(crc32c, known_answers)
{
    uint8_t zeroes[32] = {0}, ones[32], up[32];

    memset(ones, 0xff, sizeof(ones));
    for (size_t i = 0; i < sizeof(up); i++)
        up[i] = (uint8_t)i;

    cr_assert_eq(crc32c(0, "123456789", 9), 0xe3069283);
    cr_assert_eq(crc32c(0, zeroes, 32), 0x8a9136aa);
    cr_assert_eq(crc32c(0, ones, 32), 0x62a8ab43);
    cr_assert_eq(crc32c(0, up, 32), 0x46dd794e);
    cr_assert_eq(crc32c(0, NULL, 0), 0);
}

/* Bit by bit, from the polynomial. */
static uint32_t slow_crc32c(const uint8_t *data, size_t len)
{
    uint32_t crc = ~(uint32_t)0;

    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? (crc >> 1) ^ 0x82f63b78 : crc >> 1;
    }
    return ~crc;
}

Test(crc32c, every_length_and_alignment_agrees_with_the_definition)
{
    uint8_t data[600];
    struct rand r;

    rand_seed(&r, 5);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)rand_u64(&r);

    for (size_t start = 0; start < 17; start++) {
        for (size_t len = 0; len + start < sizeof(data); len += 1 + len / 16)
            cr_assert_eq(crc32c(0, data + start, len), slow_crc32c(data + start, len), "%zu at %zu", len, start);
    }
}

Test(crc32c, pieces_give_the_checksum_of_the_whole)
{
    const char text[] = "the quick brown fox jumps over the lazy dog, twice and then once more";
    size_t len = sizeof(text) - 1;
    uint32_t whole = crc32c(0, text, len);

    for (size_t cut = 0; cut <= len; cut++)
        cr_assert_eq(crc32c(crc32c(0, text, cut), text + cut, len - cut), whole, "cut at %zu", cut);
}

Test(crc32c, one_wrong_bit_changes_it)
{
    uint8_t data[64] = {0};
    uint32_t good = crc32c(0, data, sizeof(data));

    for (size_t bit = 0; bit < 8 * sizeof(data); bit++) {
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_assert_neq(crc32c(0, data, sizeof(data)), good);
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}
