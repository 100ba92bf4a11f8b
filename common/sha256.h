/* sha256 - the digest of a stream of bytes. OpenSSL's, which uses the processor's instructions for it. */
#ifndef COMMON_SHA256_H
#define COMMON_SHA256_H

#include "common/base.h"

#define SHA256_BYTES 32

struct sha256;

struct sha256 *sha256_new(void);
void sha256_add(struct sha256 *s, const void *data, size_t len);
void sha256_end(struct sha256 *s, uint8_t digest[SHA256_BYTES]); /* nothing can be added any more */
void sha256_free(struct sha256 *s);                              /* NULL is fine */

#endif
