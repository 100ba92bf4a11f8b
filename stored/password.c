/* password - see password.h. Called by auth_cmd.c (take) and, on worker threads, by auth_password.c.
 * Hashes come from clients with role root, but a typing error of theirs must not stop the others' logins: a hash
 * whose parameters ask for more than PASSWORD_MEMORY_MAX, PASSWORD_WORK_MAX or BCRYPT_COST_MAX is refused when it
 * comes. */
#include "stored/password.h"

#include <crypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/password_cost.h"

#define ARGON_PREFIX "$argon2id$"
#define BCRYPT_CHARS 60        /* "$2b$10$", 22 of salt, 31 of hash */
#define BCRYPT_PASSWORD_MAX 72 /* bcrypt looks at no more */

static char nobody[crypto_pwhash_STRBYTES];

void password_init(uint64_t bcrypt_cost)
{
    unsigned long long passes;
    size_t memory;

    if (sodium_init() < 0)
        fatalx("password: libsodium cannot be started");
    /* Any salt and hash of the right lengths: it is computed and compared like a true one. */
    password_cost(bcrypt_cost, &passes, &memory);
    snprintf(nobody, sizeof nobody, ARGON_PREFIX "v=19$m=%zu,t=%llu,p=1$bm9ib2R5IG5vYm9keSAhIQ$%s", memory / KIB,
             passes, "bm9ib2R5IGhhcyB0aGlzIGhhc2gsIG5vYm9keSBhdCA");
}

struct slice password_nobody(void)
{
    return slice_str(nobody);
}

static bool begins(struct slice s, const char *prefix)
{
    size_t len = strlen(prefix);

    return s.len >= len && memcmp(s.data, prefix, len) == 0;
}

static bool is_argon(struct slice hash)
{
    return begins(hash, ARGON_PREFIX) && hash.len < crypto_pwhash_STRBYTES;
}

static bool argon_is_affordable(struct slice hash)
{
    char text[crypto_pwhash_STRBYTES];
    unsigned version, memory, passes, lanes;

    memcpy(text, hash.data, hash.len);
    text[hash.len] = '\0';
    return sscanf(text, ARGON_PREFIX "v=%4u$m=%9u,t=%9u,p=%4u$", &version, &memory, &passes, &lanes) == 4 &&
           memory <= PASSWORD_MEMORY_MAX / KIB && (uint64_t)passes * memory <= PASSWORD_WORK_MAX / KIB && lanes == 1;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* "$2a$10$...": 2a, 2b and 2y differ only in bugs of old libraries. */
static bool is_bcrypt(struct slice hash, int *cost)
{
    const uint8_t *h = hash.data;

    if (hash.len != BCRYPT_CHARS || h[0] != '$' || h[1] != '2' || !strchr("aby", h[2]) || h[3] != '$' ||
        !is_digit(h[4]) || !is_digit(h[5]) || h[6] != '$' || memchr(h, 0, hash.len))
        return false;
    *cost = (h[4] - '0') * 10 + (h[5] - '0');
    return true;
}

int password_take(struct slice hashed, struct buf *hash)
{
    size_t start = hash->len, len;
    int cost;

    if (is_argon(hashed)) {
        if (!argon_is_affordable(hashed))
            return E_INVALID;
        buf_add_slice(hash, hashed);
        return 0;
    }
    buf_reserve(hash, hashed.len + 1);
    if (hashed.len && sodium_base642bin(hash->data + start, hashed.len, (const char *)hashed.data, hashed.len, NULL,
                                        &len, NULL, sodium_base64_VARIANT_ORIGINAL) != 0)
        return E_NO_PASSWORD_USER;
    hash->len = start + (hashed.len ? len : 0);
    if (is_bcrypt(buf_part(hash, start, hash->len - start), &cost) && cost > BCRYPT_COST_MAX) {
        hash->len = start;
        return E_INVALID;
    }
    return 0;
}

static bool argon_is_right(struct slice hash, struct slice password)
{
    char text[crypto_pwhash_STRBYTES];

    memcpy(text, hash.data, hash.len);
    text[hash.len] = '\0';
    return crypto_pwhash_str_verify(text, password.len ? (const char *)password.data : "", password.len) == 0;
}

static bool bcrypt_is_right(struct slice hash, struct slice password)
{
    char text[BCRYPT_CHARS + 1], secret[BCRYPT_PASSWORD_MAX + 1] = {0};
    size_t len = MIN(password.len, (size_t)BCRYPT_PASSWORD_MAX);
    struct crypt_data *data;
    const char *got;
    bool right;

    if (len && memchr(password.data, 0, len)) /* crypt_r would only see what stands before it */
        return false;
    if (len)
        memcpy(secret, password.data, len);
    memcpy(text, hash.data, hash.len);
    text[hash.len] = '\0';
    data = xcalloc(1, sizeof *data);
    got = crypt_r(secret, text, data);
    right = got && strlen(got) == BCRYPT_CHARS && sodium_memcmp(got, text, BCRYPT_CHARS) == 0;
    sodium_memzero(secret, sizeof secret);
    sodium_memzero(data, sizeof *data);
    free(data);
    return right;
}

bool password_is_right(struct slice hash, struct slice password)
{
    int cost;

    if (is_argon(hash))
        return argon_is_affordable(hash) && argon_is_right(hash, password);
    return is_bcrypt(hash, &cost) && cost <= BCRYPT_COST_MAX && bcrypt_is_right(hash, password);
}
