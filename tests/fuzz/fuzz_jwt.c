/* fuzz_jwt - tokens that strangers send. The first byte chooses: a verifier for the rest as it is; or the rest becomes header and
 * claims (cut at its first newline) of a token with a good signature, so that what lies behind the signature is reached too. */
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/mem.h"
#include "gatewayd/jwt.h"
#include "gatewayd/jwt_key.h"

#define NOW 1700000000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    const char *method, *type, *curve;
} kinds[] = {{"HS256", NULL, NULL}, {"RS256", "RSA", NULL}, {"PS512", "RSA", NULL}, {"ES256", "EC", "P-256"}, {"ES512", "EC", "P-521"},
    {"EdDSA", "ED25519", NULL}};
#define KINDS ARRAY_LEN(kinds)

static struct jwt *verifiers[KINDS];
static struct jwt_key *secret;

static void write_key(const char *path, size_t i)
{
    FILE *f = fopen(path, "w");
    must(f != NULL);
    if (kinds[i].type == NULL) {
        fputs("a secret that everybody may know", f);
    } else {
        EVP_PKEY *key = strcmp(kinds[i].type, "RSA") == 0 ? EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048)
            : kinds[i].curve != NULL                      ? EVP_PKEY_Q_keygen(NULL, NULL, "EC", kinds[i].curve)
                                                          : EVP_PKEY_Q_keygen(NULL, NULL, kinds[i].type);
        must(key != NULL && PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1);
        EVP_PKEY_free(key);
    }
    fclose(f);
}

static void begin(void)
{
    char path[] = "/tmp/trine-fuzz-jwt-XXXXXX";
    struct buf why = BUF_INIT;
    close(mkstemp(path));
    for (size_t i = 0; i < KINDS; i++) {
        write_key(path, i);
        char *options = xasprintf("sign-method=%s,priv-key=%s", kinds[i].method, path);
        verifiers[i] = jwt_new(options, &why);
        must(verifiers[i] != NULL);
        free(options);
        if (i == 0) {
            secret = jwt_key_read(jwt_method_find(SLICE_LIT("HS256")), NULL, path, &why);
            must(secret != NULL);
        }
    }
    unlink(path);
}

static void add_base64(struct buf *out, struct slice bytes)
{
    size_t room = sodium_base64_ENCODED_LEN(bytes.len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    char *at = (char *)buf_extend(out, room);
    sodium_bin2base64(at, room, bytes.data, bytes.len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    out->len -= room - strlen(at);
}

static int verify(size_t kind, struct slice token)
{
    struct jwt_claims claims = {.user = BUF_INIT};
    int err = jwt_verify(verifiers[kind], token, NOW, &claims);
    must(err == OK || err == E_INVALID_AUTH_TOKEN);
    must((err == OK) == (claims.user.len > 0));
    must(err != OK || claims.expires_s > NOW);
    buf_fini(&claims.user);
    return err;
}

static void verify_signed(struct slice text)
{
    const uint8_t *cut = text.len > 0 ? memchr(text.data, '\n', text.len) : NULL;
    struct slice header = SLICE_LIT("{\"alg\":\"HS256\"}"), claims = text;
    struct buf token = BUF_INIT, signature = BUF_INIT;
    if (cut != NULL) {
        header = slice_of(text.data, (size_t)(cut - text.data));
        claims = slice_of(cut + 1, text.len - header.len - 1);
    }
    add_base64(&token, header);
    buf_add_byte(&token, '.');
    add_base64(&token, claims);
    must(jwt_key_sign(secret, buf_slice(&token), &signature) == OK);
    buf_add_byte(&token, '.');
    add_base64(&token, buf_slice(&signature));
    verify(0, buf_slice(&token));
    /* It is nobody else's. */
    for (size_t i = 1; i < KINDS; i++) {
        must(verify(i, buf_slice(&token)) != OK);
    }
    buf_fini(&token);
    buf_fini(&signature);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (verifiers[0] == NULL) {
        begin();
    }
    if (size == 0) {
        return 0;
    }
    struct slice rest = slice_of(data + 1, size - 1);
    if (data[0] % (KINDS + 1) == KINDS) {
        verify_signed(rest);
    } else {
        verify(data[0] % (KINDS + 1), rest);
    }
    return 0;
}
