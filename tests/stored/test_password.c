/* test_password - hashes of both kinds, right and wrong, and those that are refused. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/password_cost.h"
#include "stored/password.h"

#define S SLICE_LIT
/* Of "password" with cost 5, as htpasswd and Go's bcrypt make them. */
#define BCRYPT "$2a$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe"

static void begin(void)
{
    password_init(PASSWORD_COST_DEFAULT);
}

static struct buf taken(struct slice hashed)
{
    struct buf hash = BUF_INIT;
    int err = password_take(hashed, &hash);

    cr_assert_eq(err, 0, "%s", err_text(err));
    return hash;
}

static void base64(const char *hash, char *text, size_t size)
{
    sodium_bin2base64(text, size, (const unsigned char *)hash, strlen(hash), sodium_base64_VARIANT_ORIGINAL);
}

Test(password, argon2id_is_checked, .init = begin)
{
    char text[crypto_pwhash_STRBYTES];
    struct buf hash;

    cr_assert_eq(crypto_pwhash_str_alg(text, "secret", 6, 1, 8192, crypto_pwhash_ALG_ARGON2ID13), 0);
    hash = taken(slice_str(text));
    cr_assert(password_is_right(buf_slice(&hash), S("secret")));
    cr_assert_not(password_is_right(buf_slice(&hash), S("Secret")));
    cr_assert_not(password_is_right(buf_slice(&hash), S("")));
    cr_assert_not(password_is_right(buf_slice(&hash), S("secret\0")));
    buf_fini(&hash);
}

Test(password, an_empty_password_is_a_password, .init = begin)
{
    char text[crypto_pwhash_STRBYTES];

    cr_assert_eq(crypto_pwhash_str_alg(text, "", 0, 1, 8192, crypto_pwhash_ALG_ARGON2ID13), 0);
    cr_assert(password_is_right(slice_str(text), SLICE_EMPTY));
    cr_assert_not(password_is_right(slice_str(text), S("x")));
}

Test(password, bcrypt_comes_in_base64, .init = begin)
{
    char text[128];
    struct buf hash;

    base64(BCRYPT, text, sizeof text);
    hash = taken(slice_str(text));
    cr_assert_eq(hash.len, strlen(BCRYPT));
    cr_assert(password_is_right(buf_slice(&hash), S("password")));
    cr_assert_not(password_is_right(buf_slice(&hash), S("passwore")));
    cr_assert_not(password_is_right(buf_slice(&hash), S("")));
    cr_assert_not(password_is_right(buf_slice(&hash), S("password\0more")), "not cut at a zero byte");
    hash.data[2] = 'b';
    cr_assert(password_is_right(buf_slice(&hash), S("password")));
    hash.data[2] = 'y';
    cr_assert(password_is_right(buf_slice(&hash), S("password")));
    hash.data[2] = 'z';
    cr_assert_not(password_is_right(buf_slice(&hash), S("password")));
    buf_fini(&hash);
}

Test(password, what_is_no_hash_fits_nothing, .init = begin)
{
    static const char *const hashes[] = {"", "password", "$2a$05$", "$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$", "$1$abc$def", "*",
                                         "$2a$99$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe"};

    for (size_t i = 0; i < ARRAY_LEN(hashes); i++) {
        cr_assert_not(password_is_right(slice_str(hashes[i]), S("password")), "%s", hashes[i]);
        cr_assert_not(password_is_right(slice_str(hashes[i]), S("")), "%s", hashes[i]);
    }
}

Test(password, what_cannot_be_taken_is_refused, .init = begin)
{
    struct buf hash = BUF_INIT;
    char text[128];

    cr_assert_eq(password_take(S("not base64!"), &hash), E_NO_PASSWORD_USER);
    cr_assert_eq(password_take(S("$argon2id$v=19$m=9000000,t=2,p=1$c2FsdA$aGFzaA"), &hash), E_INVALID, "too much memory");
    cr_assert_eq(password_take(S("$argon2id$v=19$m=65536,t=900,p=1$c2FsdA$aGFzaA"), &hash), E_INVALID, "too many rounds");
    cr_assert_eq(password_take(S("$argon2id$nonsense"), &hash), E_INVALID);
    base64("$2a$31$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe", text, sizeof text);
    cr_assert_eq(password_take(slice_str(text), &hash), E_INVALID, "hours of work");
    cr_assert_eq(hash.len, 0);
    cr_assert_eq(password_take(S(""), &hash), 0);
    cr_assert_eq(hash.len, 0, "a user without a password that fits");
    buf_fini(&hash);
}

/* Of this thread alone: others may be using the processor. */
static uint64_t work_us(struct slice hash)
{
    struct timespec start, end;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
    cr_assert_not(password_is_right(hash, S("y")));
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    return (uint64_t)((end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000);
}

/* The hash in place of that of an unknown user must be worked through like a true one, not fail at its form. */
Test(password, nobody_takes_as_long_as_somebody, .init = begin)
{
    char text[crypto_pwhash_STRBYTES];
    uint64_t somebody, nobody;

    cr_assert_eq(crypto_pwhash_str_alg(text, "x", 1, PASSWORD_PASSES, PASSWORD_MEMORY_BYTES, crypto_pwhash_ALG_ARGON2ID13), 0);
    cr_assert_eq(strlen(text), password_nobody().len);
    cr_assert_eq(memcmp(text, password_nobody().data, strlen("$argon2id$v=19$m=65536,t=2,p=1$")), 0, "%s", text);
    somebody = work_us(slice_str(text));
    nobody = work_us(password_nobody());
    cr_assert_gt(nobody * 5, somebody, "%llu us against %llu us", (unsigned long long)nobody, (unsigned long long)somebody);
}

Test(password, what_gateways_make_at_any_cost_is_taken, .init = begin)
{
    for (uint64_t cost = 4; cost <= 31; cost++) {
        struct buf hash = BUF_INIT;
        unsigned long long passes;
        char text[128];
        size_t memory;

        password_cost(cost, &passes, &memory);
        snprintf(text, sizeof text, "$argon2id$v=19$m=%zu,t=%llu,p=1$c2FsdA$aGFzaA", memory / KIB, passes);
        cr_assert_eq(password_take(slice_str(text), &hash), 0, "%s", text);
        cr_assert_leq(passes * memory, PASSWORD_WORK_MAX);
        buf_fini(&hash);
    }
}
