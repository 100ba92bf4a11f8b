/* sha256 - see sha256.h: a thin cover over OpenSSL's EVP. It fails only for want of memory or of the algorithm. */
#include "common/sha256.h"

#include <openssl/evp.h>
#include <stdlib.h>

#include "common/mem.h"

struct sha256 {
    EVP_MD_CTX *ctx;
};

struct sha256 *sha256_new(void)
{
    struct sha256 *s = xcalloc(1, sizeof *s);

    s->ctx = EVP_MD_CTX_new();
    must(s->ctx != NULL && EVP_DigestInit_ex(s->ctx, EVP_sha256(), NULL) == 1);
    return s;
}

void sha256_add(struct sha256 *s, const void *data, size_t len)
{
    must(EVP_DigestUpdate(s->ctx, data, len) == 1);
}

void sha256_end(struct sha256 *s, uint8_t digest[SHA256_BYTES])
{
    unsigned len = 0;

    must(EVP_DigestFinal_ex(s->ctx, digest, &len) == 1 && len == SHA256_BYTES);
}

void sha256_free(struct sha256 *s)
{
    if (!s)
        return;
    EVP_MD_CTX_free(s->ctx);
    free(s);
}
