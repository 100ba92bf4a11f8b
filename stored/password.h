/* password - is this the password that the hash was made of?
 * Two kinds of hashes: libsodium's argon2id string, which gateways make, and bcrypt's, which clients may bring along
 * (hashedPassword) and which restored users have. The only file of stored that knows libsodium's and libcrypt's
 * hashing. */
#ifndef STORED_PASSWORD_H
#define STORED_PASSWORD_H

#include "common/buf.h"

/* Before anything else; fatal if the library cannot start. bcrypt_cost: what gateways put into a hash. */
void password_init(uint64_t bcrypt_cost);

/* hashedPassword of a command -> what is kept: an argon2id string as it is, anything else base64-decoded. 0;
 * E_NO_PASSWORD_USER: not base64 (etcd's answer); E_INVALID: a hash whose check would take too much time or memory. */
int password_take(struct slice hashed, struct buf *hash);
/* Slow, [any] thread. A hash of neither kind is nobody's. */
bool password_is_right(struct slice hash, struct slice password);
/* The hash that is asked in place of that of a user who does not exist: checking it takes as long, and nothing matches
 * it. */
struct slice password_nobody(void);

#endif
