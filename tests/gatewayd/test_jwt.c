/* jwt - signed tokens: every method there and back, and every way to be wrong. Keys are made here, in a folder of their own. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <sodium.h>

#include "common/err.h"
#include "common/file.h"
#include "common/mem.h"
#include "gatewayd/jwt.h"

#define NOW 1700000000

static char dir[] = "/tmp/trine-jwt-XXXXXX";

static char *in_dir(const char *name) { return xasprintf("%s/%s", dir, name); }

static void write_text(const char *name, struct slice text)
{
    char *path = in_dir(name);
    cr_assert_eq(file_replace(path, text.data, text.len), OK);
    free(path);
}

/* NAME.pub and NAME.key */
static void write_pair(const char *name, EVP_PKEY *key)
{
    cr_assert_not_null(key);
    char *pub = xasprintf("%s/%s.pub", dir, name), *priv = xasprintf("%s/%s.key", dir, name);
    FILE *f = fopen(pub, "w");
    cr_assert_eq(PEM_write_PUBKEY(f, key), 1);
    fclose(f);
    f = fopen(priv, "w");
    cr_assert_eq(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(f);
    EVP_PKEY_free(key);
    free(pub);
    free(priv);
}

static void make_keys(void)
{
    strcpy(dir, "/tmp/trine-jwt-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    write_pair("rsa", EVP_RSA_gen(2048));
    write_pair("ec256", EVP_EC_gen("P-256"));
    write_pair("ec384", EVP_EC_gen("P-384"));
    write_pair("ec521", EVP_EC_gen("P-521"));
    write_pair("ed", EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"));
    write_text("secret", SLICE_LIT("an example of a secret that is long enough"));
}

static void remove_keys(void)
{
    char *command = xasprintf("rm -rf %s", dir);
    cr_expect_eq(system(command), 0);
    free(command);
}

/* The options with DIR in place of every "@". */
static struct jwt *make(const char *options, struct buf *why)
{
    struct buf text = BUF_INIT;
    for (const char *p = options; *p != '\0'; p++) {
        if (*p == '@') {
            buf_printf(&text, "%s/", dir);
        } else {
            buf_add_byte(&text, (uint8_t)*p);
        }
    }
    buf_add_byte(&text, 0);
    struct jwt *j = jwt_new((char *)text.data, why);
    buf_fini(&text);
    return j;
}

static struct jwt *must_make(const char *options)
{
    struct buf why = BUF_INIT;
    struct jwt *j = make(options, &why);
    cr_assert_not_null(j, "%s: %.*s", options, (int)why.len, (char *)why.data);
    buf_fini(&why);
    return j;
}

static int verify_at(struct jwt *j, struct slice token, int64_t now_s, struct jwt_claims *claims)
{
    struct jwt_claims mine = {.user = BUF_INIT};
    int err = jwt_verify(j, token, now_s, claims != NULL ? claims : &mine);
    buf_fini(&mine.user);
    return err;
}

static int verify(struct jwt *j, struct slice token) { return verify_at(j, token, NOW, NULL); }

static void add_base64(struct buf *out, const char *text)
{
    size_t room = sodium_base64_ENCODED_LEN(strlen(text), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    char *at = (char *)buf_extend(out, room);
    sodium_bin2base64(at, room, (const uint8_t *)text, strlen(text), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    out->len -= room - strlen(at);
}

/* A token of any header and claims, signed with HMAC-SHA256 and this secret. */
static struct buf forge(const char *header, const char *claims, struct slice secret)
{
    struct buf token = BUF_INIT;
    add_base64(&token, header);
    buf_add_byte(&token, '.');
    add_base64(&token, claims);
    crypto_auth_hmacsha256_state state;
    uint8_t mac[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_init(&state, secret.data, secret.len);
    crypto_auth_hmacsha256_update(&state, token.data, token.len);
    crypto_auth_hmacsha256_final(&state, mac);
    buf_add_byte(&token, '.');
    size_t room = sodium_base64_ENCODED_LEN(sizeof(mac), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    sodium_bin2base64((char *)buf_extend(&token, room), room, mac, sizeof(mac), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    token.len--;
    return token;
}

static int verify_forged(struct jwt *j, const char *header, const char *claims)
{
    struct buf token = forge(header, claims, SLICE_LIT("an example of a secret that is long enough"));
    int err = verify(j, buf_slice(&token));
    buf_fini(&token);
    return err;
}

TestSuite(jwt, .init = make_keys, .fini = remove_keys);

static const struct {
    const char *method, *key;
} pairs[] = {{"RS256", "rsa"}, {"RS384", "rsa"}, {"RS512", "rsa"}, {"PS256", "rsa"}, {"PS384", "rsa"}, {"PS512", "rsa"},
    {"ES256", "ec256"}, {"ES384", "ec384"}, {"ES512", "ec521"}, {"EdDSA", "ed"}};

static struct jwt *make_pair(size_t i, bool with_private, bool with_public)
{
    const char *key = pairs[i].key;
    struct buf text = BUF_INIT;
    buf_printf(&text, "sign-method=%s,ttl=1m", pairs[i].method);
    if (with_private) {
        buf_printf(&text, ",priv-key=@%s.key", key);
    }
    if (with_public) {
        buf_printf(&text, ",pub-key=@%s.pub", key);
    }
    char *options = slice_dup_str(buf_slice(&text));
    buf_fini(&text);
    struct jwt *j = must_make(options);
    free(options);
    return j;
}

static void check_one(struct jwt *signer, struct jwt *verifier, const char *name)
{
    struct buf token = BUF_INIT;
    struct jwt_claims claims = {.user = BUF_INIT};
    cr_assert_eq(jwt_sign(signer, SLICE_LIT("alice \"\xc3\xa4\""), 7, NOW, &token), OK, "%s", name);
    cr_assert_eq(verify_at(verifier, buf_slice(&token), NOW, &claims), OK, "%s: %.*s", name, (int)token.len, (char *)token.data);
    cr_expect(slice_eq(buf_slice(&claims.user), SLICE_LIT("alice \"\xc3\xa4\"")));
    cr_expect_eq(claims.auth_rev, 7);
    cr_expect_eq(claims.expires_s, NOW + 60);
    cr_expect_eq(verify_at(verifier, buf_slice(&token), NOW + 60, NULL), E_INVALID_AUTH_TOKEN, "%s: it has expired", name);
    /* Every character counts. */
    for (size_t i = 0; i < token.len; i += 3) {
        uint8_t was = token.data[i];
        token.data[i] = was == 'A' ? 'B' : 'A';
        cr_expect_eq(verify(verifier, buf_slice(&token)), E_INVALID_AUTH_TOKEN, "%s: character %zu", name, i);
        token.data[i] = was;
    }
    for (size_t len = 0; len < token.len; len += 5) {
        cr_expect_eq(verify(verifier, slice_of(token.data, len)), E_INVALID_AUTH_TOKEN, "%s: cut at %zu", name, len);
    }
    buf_fini(&claims.user);
    buf_fini(&token);
}

Test(jwt, every_method_signs_what_it_verifies_and_nothing_else)
{
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        struct jwt *j = make_pair(i, true, true);
        check_one(j, j, pairs[i].method);
        jwt_free(j);
    }
    const char *hs[] = {"sign-method=HS256,priv-key=@secret,ttl=1m", "sign-method=HS384,priv-key=@secret,ttl=1m",
        "sign-method=HS512,priv-key=@secret,ttl=1m"};
    for (size_t i = 0; i < ARRAY_LEN(hs); i++) {
        struct jwt *j = must_make(hs[i]);
        check_one(j, j, hs[i]);
        jwt_free(j);
    }
}

Test(jwt, a_public_key_alone_verifies_and_does_not_sign)
{
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        struct jwt *signer = make_pair(i, true, false);
        struct jwt *verifier = make_pair(i, false, true);
        struct buf token = BUF_INIT;
        check_one(signer, verifier, pairs[i].method);
        cr_expect_eq(jwt_sign(verifier, SLICE_LIT("alice"), 7, NOW, &token), E_VERIFY_ONLY);
        cr_expect_eq(token.len, 0);
        jwt_free(signer);
        jwt_free(verifier);
    }
}

/* The old trick: an RS256 verifier that believes the header takes its public key for an HMAC secret. */
Test(jwt, the_header_does_not_choose_the_method)
{
    struct jwt *rs = must_make("sign-method=RS256,pub-key=@rsa.pub,priv-key=@rsa.key");
    struct jwt *ps = must_make("sign-method=PS256,pub-key=@rsa.pub,priv-key=@rsa.key");
    char *path = in_dir("rsa.pub");
    struct buf public_key = BUF_INIT;
    cr_assert_eq(file_read_all(path, 100000, &public_key), OK);
    struct buf token = forge("{\"alg\":\"HS256\"}", "{\"username\":\"root\",\"revision\":1}", buf_slice(&public_key));
    cr_expect_eq(verify(rs, buf_slice(&token)), E_INVALID_AUTH_TOKEN);
    buf_fini(&token);
    token = forge("{\"alg\":\"RS256\"}", "{\"username\":\"root\",\"revision\":1}", buf_slice(&public_key));
    cr_expect_eq(verify(rs, buf_slice(&token)), E_INVALID_AUTH_TOKEN);
    buf_reset(&token);
    add_base64(&token, "{\"alg\":\"none\"}");
    buf_add_byte(&token, '.');
    add_base64(&token, "{\"username\":\"root\",\"revision\":1}");
    buf_add_byte(&token, '.');
    cr_expect_eq(verify(rs, buf_slice(&token)), E_INVALID_AUTH_TOKEN);
    buf_reset(&token);
    cr_assert_eq(jwt_sign(rs, SLICE_LIT("root"), 1, NOW, &token), OK);
    cr_expect_eq(verify(ps, buf_slice(&token)), E_INVALID_AUTH_TOKEN, "the same key, but another method");
    buf_fini(&token);
    buf_fini(&public_key);
    free(path);
    jwt_free(rs);
    jwt_free(ps);
}

Test(jwt, claims_are_read_with_care)
{
    struct jwt *j = must_make("sign-method=HS256,priv-key=@secret");
    const char *head = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
    /* What others' libraries make. */
    cr_expect_eq(verify_forged(j, head, "{\"username\":\"a\",\"revision\":1}"), OK);
    cr_expect_eq(verify_forged(j, head, "{\"username\":\"a\",\"revision\":1.0,\"exp\":1700000001.5,\"sub\":[1]}"), OK);
    cr_expect_eq(verify_forged(j, head, "{\"username\":\"a\",\"revision\":1,\"nbf\":1700000000,\"iat\":1700000000}"), OK);
    const char *bad[] = {"{}", "[]", "", "null", "{\"username\":\"a\"}", "{\"revision\":1}", "{\"username\":1,\"revision\":1}",
        "{\"username\":\"\",\"revision\":1}", "{\"username\":\"a\",\"revision\":\"1\"}", "{\"username\":\"a\",\"revision\":-1}",
        "{\"username\":\"a\",\"revision\":1e300}", "{\"username\":\"a\",\"revision\":1,\"exp\":1700000000}",
        "{\"username\":\"a\",\"revision\":1,\"exp\":\"9999999999\"}", "{\"username\":\"a\",\"revision\":1,\"exp\":null}",
        "{\"username\":\"a\",\"revision\":1,\"nbf\":1700000001}", "{\"username\":\"a\",\"revision\":1,\"iat\":1700000001}",
        "{\"username\":\"a\",\"username\":\"root\",\"revision\":1}", "{\"username\":\"a\\u0000b\",\"revision\":1}",
        "{\"username\":\"a\",\"revision\":1} x"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        cr_expect_eq(verify_forged(j, head, bad[i]), E_INVALID_AUTH_TOKEN, "%s", bad[i]);
    }
    const char *heads[] = {"{}", "[]", "{\"alg\":\"hs256\"}", "{\"alg\":[\"HS256\"]}", "{\"alg\":\"HS512\"}",
        "{\"alg\":\"HS256\",\"crit\":[\"x\"]}", "{\"alg\":\"none\",\"alg\":\"HS256\"}"};
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        cr_expect_eq(verify_forged(j, heads[i], "{\"username\":\"a\",\"revision\":1}"), E_INVALID_AUTH_TOKEN, "%s", heads[i]);
    }
    const char *shapes[] = {"", ".", "..", "...", "a.b", "a.b.c", "a.b.c.d", "AbCdEfGhIjKlMnOp.17"};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        cr_expect_eq(verify(j, slice_str(shapes[i])), E_INVALID_AUTH_TOKEN, "%s", shapes[i]);
    }
    struct buf token = BUF_INIT;
    cr_expect_eq(jwt_sign(j, SLICE_LIT("\xff"), 1, NOW, &token), E_AUTH_FAILED, "not UTF-8");
    buf_fini(&token);
    jwt_free(j);
}

Test(jwt, wrong_options_and_keys_are_refused_with_a_reason)
{
    write_text("empty", SLICE_EMPTY);
    write_text("text", SLICE_LIT("this is no key"));
    write_pair("small", EVP_RSA_gen(1024));
    write_pair("other", EVP_RSA_gen(2048));
    const struct {
        const char *options, *reason;
    } bad[] = {
        {"", "NAME=VALUE"},
        {"pub-key=@rsa.pub", "sign-method is missing"},
        {"sign-method=RS256", "both missing"},
        {"sign-method=none,pub-key=@rsa.pub", "sign-method none"},
        {"sign-method=RS257,pub-key=@rsa.pub", "sign-method RS257"},
        {"sign-method=RS256,pub-key=@nothing", "cannot be read"},
        {"sign-method=RS256,priv-key=@empty", "is empty"},
        {"sign-method=RS256,priv-key=@text", "no private key"},
        {"sign-method=RS256,priv-key=@rsa.pub", "no private key"},
        {"sign-method=RS256,pub-key=@rsa.key", "no public key"},
        {"sign-method=RS256,pub-key=@ec256.pub", "not one for RS256"},
        {"sign-method=RS256,pub-key=@small.pub", "not one for RS256"},
        {"sign-method=ES256,pub-key=@ec384.pub", "not one for ES256"},
        {"sign-method=ES256,pub-key=@ed.pub", "not one for ES256"},
        {"sign-method=EdDSA,pub-key=@rsa.pub", "not one for EdDSA"},
        {"sign-method=RS256,pub-key=@rsa.pub,priv-key=@other.key", "not a pair"},
        {"sign-method=HS256", "needs priv-key"},
        {"sign-method=HS256,pub-key=@secret", "needs priv-key"},
        {"sign-method=HS256,priv-key=@empty", "is empty"},
        {"sign-method=RS256,pub-key=@rsa.pub,ttl=soon", "ttl soon"},
        {"sign-method=RS256,pub-key=@rsa.pub,ttl=0s", "ttl 0s"},
        {"sign-method=RS256,pub-key=@rsa.pub,pub-key=@rsa.pub", "twice"},
        {"sign-method=RS256,pub-key=@rsa.pub,color=red", "\"color\""},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct buf why = BUF_INIT;
        struct jwt *j = make(bad[i].options, &why);
        cr_expect_null(j, "%s", bad[i].options);
        jwt_free(j);
        buf_add_byte(&why, 0);
        cr_expect_not_null(strstr((char *)why.data, bad[i].reason), "%s: %s", bad[i].options, (char *)why.data);
        buf_fini(&why);
    }
}

Test(jwt, new_keys_come_into_force_and_bad_ones_do_not)
{
    struct jwt *j = must_make("sign-method=HS256,priv-key=@secret");
    struct buf old = BUF_INIT, new = BUF_INIT;
    cr_assert_eq(jwt_sign(j, SLICE_LIT("a"), 1, NOW, &old), OK);
    cr_expect_not(jwt_refresh(j, 10000));
    write_text("secret", SLICE_LIT("quite another secret that is long enough"));
    cr_expect_not(jwt_refresh(j, 10500), "not looked at again so soon");
    cr_expect_eq(verify(j, buf_slice(&old)), OK);
    cr_expect(jwt_refresh(j, 11000));
    cr_expect_eq(verify(j, buf_slice(&old)), E_INVALID_AUTH_TOKEN);
    cr_assert_eq(jwt_sign(j, SLICE_LIT("a"), 1, NOW, &new), OK);
    write_text("secret", SLICE_EMPTY);
    cr_expect_not(jwt_refresh(j, 12000));
    cr_expect_eq(verify(j, buf_slice(&new)), OK, "the old key stays in force");
    buf_fini(&old);
    buf_fini(&new);
    jwt_free(j);
}
