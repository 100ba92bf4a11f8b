/* jwt_key - signatures of tokens with OpenSSL: RSA (PKCS#1 and PSS), ECDSA, Ed25519, HMAC. Called by jwt.c.
 * An ECDSA signature in a token is r and s, each as long as the curve's field (RFC 7518 §3.4); OpenSSL's is DER. */
#include "gatewayd/jwt_key.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/decoder.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "common/err.h"
#include "common/file.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"

#define KEY_FILE_BYTES_MAX (64 * KIB)
#define RSA_BITS_MIN 2048   /* RFC 7518 §3.3 */
#define HMAC_BYTES_SHORT 32 /* shorter secrets can be guessed: warned about */
#define SIGNATURE_BYTES_MAX ((size_t)2048)

enum family { FAMILY_RSA, FAMILY_PSS, FAMILY_EC, FAMILY_ED, FAMILY_HMAC };

struct jwt_method {
    const char *name;
    enum family family;
    const char *digest; /* NULL: the signature has its own */
    const char *curve;  /* EC */
    size_t field_bytes; /* EC: of r, and of s */
};

static const struct jwt_method methods[] = {
    {"RS256", FAMILY_RSA, "SHA256", NULL, 0},
    {"RS384", FAMILY_RSA, "SHA384", NULL, 0},
    {"RS512", FAMILY_RSA, "SHA512", NULL, 0},
    {"PS256", FAMILY_PSS, "SHA256", NULL, 0},
    {"PS384", FAMILY_PSS, "SHA384", NULL, 0},
    {"PS512", FAMILY_PSS, "SHA512", NULL, 0},
    {"ES256", FAMILY_EC, "SHA256", "prime256v1", 32},
    {"ES384", FAMILY_EC, "SHA384", "secp384r1", 48},
    {"ES512", FAMILY_EC, "SHA512", "secp521r1", 66},
    {"EdDSA", FAMILY_ED, NULL, NULL, 0},
    {"HS256", FAMILY_HMAC, "SHA256", NULL, 0},
    {"HS384", FAMILY_HMAC, "SHA384", NULL, 0},
    {"HS512", FAMILY_HMAC, "SHA512", NULL, 0},
};

struct jwt_key {
    const struct jwt_method *method;
    EVP_PKEY *public_key;  /* verifies; not HMAC */
    EVP_PKEY *private_key; /* NULL: verifies only */
    struct buf secret;     /* HMAC */
};

const struct jwt_method *jwt_method_find(struct slice name)
{
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        if (slice_eq(name, slice_str(methods[i].name))) {
            return &methods[i];
        }
    }
    return NULL;
}

const char *jwt_method_name(const struct jwt_method *m) { return m->name; }

/* --- reading ------------------------------------------------------------------------------------------- */

static int read_file(const char *path, struct buf *bytes, struct buf *why)
{
    if (file_read_all(path, KEY_FILE_BYTES_MAX, bytes) != OK || bytes->len == 0) {
        buf_printf(why, "key file %s cannot be read, or is empty", path);
        return E_INVALID;
    }
    return OK;
}

/* A key with a password cannot be asked for one. */
static int no_password(char *buf, int size, int is_writing, void *arg)
{
    UNUSED(buf);
    UNUSED(size);
    UNUSED(is_writing);
    UNUSED(arg);
    return -1;
}

static EVP_PKEY *decode_public(const struct buf *bytes)
{
    EVP_PKEY *key = NULL;
    const uint8_t *at = bytes->data;
    size_t left = bytes->len;
    OSSL_DECODER_CTX *ctx = OSSL_DECODER_CTX_new_for_pkey(&key, "PEM", NULL, NULL, EVP_PKEY_PUBLIC_KEY, NULL, NULL);
    must(ctx != NULL);
    if (OSSL_DECODER_from_data(ctx, &at, &left) != 1) {
        key = NULL;
    }
    OSSL_DECODER_CTX_free(ctx);
    return key;
}

/* Public keys also come as certificates. */
static EVP_PKEY *decode_certificate(const struct buf *bytes)
{
    BIO *bio = BIO_new_mem_buf(bytes->data, (int)bytes->len);
    X509 *cert = PEM_read_bio_X509(bio, NULL, no_password, NULL);
    EVP_PKEY *key = cert != NULL ? X509_get_pubkey(cert) : NULL;
    X509_free(cert);
    BIO_free(bio);
    return key;
}

static EVP_PKEY *decode_private(const struct buf *bytes)
{
    BIO *bio = BIO_new_mem_buf(bytes->data, (int)bytes->len);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    BIO_free(bio);
    return key;
}

static bool key_fits(const struct jwt_method *m, const EVP_PKEY *key)
{
    char curve[64] = "";
    switch (m->family) {
    case FAMILY_RSA:
    case FAMILY_PSS: return EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA && EVP_PKEY_get_bits(key) >= RSA_BITS_MIN;
    case FAMILY_EC:
        return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC && EVP_PKEY_get_group_name(key, curve, sizeof(curve), NULL) == 1
            && strcmp(curve, m->curve) == 0;
    case FAMILY_ED: return EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519;
    case FAMILY_HMAC: break;
    }
    return false;
}

static EVP_PKEY *read_key(const struct jwt_method *m, const char *path, bool is_private, struct buf *why)
{
    struct buf bytes = BUF_INIT;
    EVP_PKEY *key = NULL;
    if (read_file(path, &bytes, why) == OK) {
        key = is_private ? decode_private(&bytes) : decode_public(&bytes);
        if (key == NULL && !is_private) {
            key = decode_certificate(&bytes);
        }
        ERR_clear_error();
        if (key == NULL) {
            buf_printf(why, "%s holds no %s key in PEM", path, is_private ? "private" : "public");
        } else if (!key_fits(m, key)) {
            buf_printf(why, "the key in %s is not one for %s", path, m->name);
            EVP_PKEY_free(key);
            key = NULL;
        }
    }
    OPENSSL_cleanse(bytes.data, bytes.len);
    buf_fini(&bytes);
    return key;
}

static bool read_pair(struct jwt_key *k, const char *public_file, const char *private_file, struct buf *why)
{
    if (public_file == NULL && private_file == NULL) {
        buf_add_str(why, "pub-key and priv-key are both missing");
        return false;
    }
    if (public_file != NULL && (k->public_key = read_key(k->method, public_file, false, why)) == NULL) {
        return false;
    }
    if (private_file == NULL) {
        return true;
    }
    k->private_key = read_key(k->method, private_file, true, why);
    if (k->private_key == NULL) {
        return false;
    }
    if (k->public_key == NULL) {
        must(EVP_PKEY_up_ref(k->private_key) == 1);
        k->public_key = k->private_key;
    } else if (EVP_PKEY_eq(k->public_key, k->private_key) != 1) {
        buf_add_str(why, "pub-key and priv-key are not a pair");
        return false;
    }
    return true;
}

static bool read_secret(struct jwt_key *k, const char *private_file, struct buf *why)
{
    if (private_file == NULL) {
        buf_printf(why, "%s needs priv-key", k->method->name);
        return false;
    }
    if (read_file(private_file, &k->secret, why) != OK) {
        return false;
    }
    if (k->secret.len < HMAC_BYTES_SHORT) {
        log_warnx("jwt: the secret in %s is only %zu bytes long", private_file, k->secret.len);
    }
    return true;
}

struct jwt_key *jwt_key_read(const struct jwt_method *m, const char *public_file, const char *private_file, struct buf *why)
{
    struct jwt_key *k = xcalloc(1, sizeof(*k));
    k->method = m;
    bool is_good = m->family == FAMILY_HMAC ? read_secret(k, private_file, why) : read_pair(k, public_file, private_file, why);
    if (!is_good) {
        jwt_key_free(k);
        return NULL;
    }
    return k;
}

void jwt_key_free(struct jwt_key *k)
{
    if (k == NULL) {
        return;
    }
    EVP_PKEY_free(k->public_key);
    EVP_PKEY_free(k->private_key);
    if (k->secret.len > 0) {
        OPENSSL_cleanse(k->secret.data, k->secret.len);
    }
    buf_fini(&k->secret);
    free(k);
}

bool jwt_key_signs(const struct jwt_key *k) { return k->method->family == FAMILY_HMAC || k->private_key != NULL; }

/* --- signatures ------------------------------------------------------------------------------------------ */

static const EVP_MD *digest_of(const struct jwt_method *m) { return m->digest != NULL ? EVP_get_digestbyname(m->digest) : NULL; }

static size_t hmac(const struct jwt_key *k, struct slice said, uint8_t mac[EVP_MAX_MD_SIZE])
{
    unsigned len = 0;
    must(HMAC(digest_of(k->method), k->secret.data, (int)k->secret.len, said.data, said.len, mac, &len) != NULL);
    return len;
}

/* PSS: salts as long as the digest (RFC 7518 §3.5); any other is understood. */
static bool set_padding(const struct jwt_method *m, EVP_PKEY_CTX *ctx, bool is_signing)
{
    if (m->family != FAMILY_PSS) {
        return true;
    }
    int salt = is_signing ? RSA_PSS_SALTLEN_DIGEST : RSA_PSS_SALTLEN_AUTO;
    return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) > 0 && EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, salt) > 0;
}

/* DER -> r, s of fixed length. */
static bool raw_of_der(const struct jwt_method *m, struct slice der, struct buf *raw)
{
    const uint8_t *at = der.data;
    ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &at, (long)der.len);
    if (pair == NULL) {
        return false;
    }
    uint8_t *to = buf_extend(raw, 2 * m->field_bytes);
    bool is_good = BN_bn2binpad(ECDSA_SIG_get0_r(pair), to, (int)m->field_bytes) >= 0
        && BN_bn2binpad(ECDSA_SIG_get0_s(pair), to + m->field_bytes, (int)m->field_bytes) >= 0;
    ECDSA_SIG_free(pair);
    return is_good;
}

static bool der_of_raw(const struct jwt_method *m, struct slice raw, struct buf *der)
{
    if (raw.len != 2 * m->field_bytes) {
        return false;
    }
    ECDSA_SIG *pair = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw.data, (int)m->field_bytes, NULL);
    BIGNUM *s = BN_bin2bn(raw.data + m->field_bytes, (int)m->field_bytes, NULL);
    must(pair != NULL && r != NULL && s != NULL);
    must(ECDSA_SIG_set0(pair, r, s) == 1);
    uint8_t *bytes = NULL;
    int len = i2d_ECDSA_SIG(pair, &bytes);
    if (len > 0) {
        buf_add(der, bytes, (size_t)len);
        OPENSSL_free(bytes);
    }
    ECDSA_SIG_free(pair);
    return len > 0;
}

static bool sign_with_key(const struct jwt_key *k, struct slice said, struct buf *signature)
{
    uint8_t bytes[SIGNATURE_BYTES_MAX];
    size_t len = sizeof(bytes);
    EVP_PKEY_CTX *settings = NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    must(ctx != NULL);
    bool is_good = EVP_DigestSignInit(ctx, &settings, digest_of(k->method), NULL, k->private_key) == 1
        && set_padding(k->method, settings, true) && EVP_DigestSign(ctx, bytes, &len, said.data, said.len) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    if (!is_good) {
        return false;
    }
    if (k->method->family == FAMILY_EC) {
        return raw_of_der(k->method, slice_of(bytes, len), signature);
    }
    buf_add(signature, bytes, len);
    return true;
}

int jwt_key_sign(const struct jwt_key *k, struct slice said, struct buf *signature)
{
    if (k->method->family == FAMILY_HMAC) {
        uint8_t mac[EVP_MAX_MD_SIZE];
        buf_add(signature, mac, hmac(k, said, mac));
        return OK;
    }
    if (k->private_key == NULL) {
        return E_VERIFY_ONLY;
    }
    return sign_with_key(k, said, signature) ? OK : E_IO;
}

static bool verify_with_key(const struct jwt_key *k, struct slice said, struct slice signature)
{
    EVP_PKEY_CTX *settings = NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    must(ctx != NULL);
    bool is_good = EVP_DigestVerifyInit(ctx, &settings, digest_of(k->method), NULL, k->public_key) == 1
        && set_padding(k->method, settings, false)
        && EVP_DigestVerify(ctx, signature.data, signature.len, said.data, said.len) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return is_good;
}

bool jwt_key_verify(const struct jwt_key *k, struct slice said, struct slice signature)
{
    if (signature.len == 0 || signature.len > SIGNATURE_BYTES_MAX) {
        return false;
    }
    if (k->method->family == FAMILY_HMAC) {
        uint8_t mac[EVP_MAX_MD_SIZE];
        size_t len = hmac(k, said, mac);
        return signature.len == len && CRYPTO_memcmp(mac, signature.data, len) == 0;
    }
    if (k->method->family != FAMILY_EC) {
        return verify_with_key(k, said, signature);
    }
    struct buf der = BUF_INIT;
    bool is_good = der_of_raw(k->method, signature, &der) && verify_with_key(k, said, buf_slice(&der));
    buf_fini(&der);
    return is_good;
}
