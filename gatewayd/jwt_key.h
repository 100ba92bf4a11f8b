/* jwt_key - the keys of jwt.c: one signature method and the key that fits it (OpenSSL). */
#ifndef GATEWAYD_JWT_KEY_H
#define GATEWAYD_JWT_KEY_H

#include "common/buf.h"

struct jwt_method;
struct jwt_key;

const struct jwt_method *jwt_method_find(struct slice name); /* NULL: there is none of that name */
const char *jwt_method_name(const struct jwt_method *m);     /* "RS256" */

/* Files are PEM, that of an HS method raw bytes (private_file). Without a private one the key only verifies. NULL and a
 * reason in why if a file cannot be read, does not fit the method, or the two are not a pair. */
struct jwt_key *jwt_key_read(const struct jwt_method *m, const char *public_file, const char *private_file, struct buf *why);
void jwt_key_free(struct jwt_key *k);
bool jwt_key_signs(const struct jwt_key *k);
int jwt_key_sign(const struct jwt_key *k, struct slice said, struct buf *signature); /* appends; E_VERIFY_ONLY, E_IO */
bool jwt_key_verify(const struct jwt_key *k, struct slice said, struct slice signature);

#endif
