/* jwt - tokens that carry their user, signed (RFC 7515, 7518, 7519): auth-token=jwt,pub-key=..,priv-key=..,sign-method=..,ttl=..
 * Pure: the time is an argument; only the key files are read.
 *
 *   token  = base64url(header) "." base64url(claims) "." base64url(signature)
 *   header = {"alg": METHOD, "typ": "JWT"}     claims = {"username": text, "revision": number, "exp": seconds}
 *
 * The method is the configured one: a token that names another is refused before its signature is looked at, so nobody
 * can have a public key used as an HMAC secret, or ask for no signature at all. */
#ifndef GATEWAYD_JWT_H
#define GATEWAYD_JWT_H

#include "common/buf.h"

struct jwt;

/* What a good token says. */
struct jwt_claims {
    struct buf user;
    uint64_t auth_rev; /* revision of the auth store at which it was made */
    int64_t expires_s; /* Unix time; INT64_MAX: never */
};

/* options: what follows "jwt," in auth-token. NULL and a reason in why if they, or the key files, are not good. */
struct jwt *jwt_new(const char *options, struct buf *why);
void jwt_free(struct jwt *j);
/* Reads the keys again if their files have changed; looks at most once a second. What is wrong with new ones is logged, and
 * the old ones stay in force. True: other keys are in force now. */
bool jwt_refresh(struct jwt *j, uint64_t now_ms);

/* Appends a token. E_VERIFY_ONLY without a private key; E_AUTH_FAILED if the name is not UTF-8. */
int jwt_sign(const struct jwt *j, struct slice user, uint64_t auth_rev, int64_t now_s, struct buf *token);
/* OK and the claims (user is appended to), or E_INVALID_AUTH_TOKEN. Any bytes will do as a token. */
int jwt_verify(const struct jwt *j, struct slice token, int64_t now_s, struct jwt_claims *claims);

#endif
