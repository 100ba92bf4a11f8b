/* auth - users, roles, tokens: the store of auth, replicated like keys and kept beside them.
 * auth.c has the tables and keeps them in the store; auth_cmd.c changes and lists them; auth_token.c has the tokens;
 * auth_password.c checks passwords on worker threads; authorize.c asks whether somebody may do something. All of it
 * runs on the loop's thread. Rules: spec/semantics.md §14.
 *
 * Invariants: a user's roles are sorted and without twins, and each is `root` or exists; a role's permissions are
 * sorted by key, no two for the same interval; rev grows by one with each change but AuthEnable; each token's user
 * exists.
 *
 *   'A' "state"  -> enabled(8) rev(8)            'u' name -> authpb.User, and field 100: `since`
 *   'r' name     -> authpb.Role                  't' token -> index(8) user name */
#ifndef STORED_AUTH_H
#define STORED_AUTH_H

#include <bsd/sys/queue.h>
#include <uthash.h>

#include "common/buf.h"
#include "proto/command.h"
#include "stored/perm.h"

#define AUTH_ROOT SLICE_LIT("root") /* the user and the role */

enum perm_type { PERM_READ = 0, PERM_WRITE = 1, PERM_READWRITE = 2 };

struct gateway;
struct password_queue;
struct stored;

struct auth_perm { /* owns its bytes */
    int64_t type;  /* as the client gave it; one that is not of perm_type grants nothing */
    struct slice key, range_end;
};

struct auth_role {
    UT_hash_handle hh; /* of auth.roles */
    struct slice name; /* owned */
    struct auth_perm *perms;
    size_t perm_count;
};

struct auth_token {
    UT_hash_handle hh;            /* of auth.tokens */
    TAILQ_ENTRY(auth_token) all;  /* by index */
    TAILQ_ENTRY(auth_token) mine; /* of its user, by index */
    struct auth_user *user;
    uint64_t index;   /* of the entry that made it */
    uint64_t used_ms; /* on this member; not replicated */
    bool expired;     /* it was not used for too long; it stays in the store until it is pruned */
    size_t len;
    char text[];
};
TAILQ_HEAD(auth_tokens, auth_token);

struct auth_user {
    UT_hash_handle hh;   /* of auth.users */
    struct slice name;   /* owned */
    struct buf password; /* hash; empty: none that fits */
    struct slice *roles; /* owned, each too */
    size_t role_count;
    bool no_password;
    bool is_root;   /* has role root */
    uint64_t since; /* auth revision of its creation or its last password: a token from before is of somebody else */
    struct auth_tokens tokens;
    size_t token_count;
    /* The union of its roles' permissions as of perms_gen. */
    uint64_t perms_gen; /* 0: never made */
    struct perms read, write;
};

struct auth {
    bool enabled;
    uint64_t rev; /* >= 1 */
    /* volatile */
    uint64_t gen;  /* counts changes, AuthEnable included, since the start; >= 1 */
    uint64_t told; /* gateways were told of this one */
    struct auth_user *users;
    struct auth_role *roles;
    struct auth_token *tokens;
    struct auth_tokens token_order;
    size_t token_count;
    struct password_queue *passwords;
};

/* --- auth.c --------------------------------------------------------------------------------------------- */
void auth_load(struct stored *s); /* at start, and after a snapshot */
void auth_fini(struct stored *s);
struct auth_user *auth_user(const struct auth *a, struct slice name); /* NULL: none */
struct auth_role *auth_role(const struct auth *a, struct slice name);
/* All of them in byte order of their names. Given: free(). */
size_t auth_users_sorted(const struct auth *a, struct auth_user ***users);
size_t auth_roles_sorted(const struct auth *a, struct auth_role ***roles);
bool auth_user_has_role(const struct auth_user *u, struct slice role);
/* Its permissions, made anew if anything has changed. */
const struct perms *auth_user_perms(struct auth *a, struct auth_user *u, enum perm_type type); /* READ or WRITE */

/* Changes, in a batch. Each keeps what it changed in the store; none counts in rev. */
struct auth_user *auth_user_new(struct auth *a, struct slice name);
struct auth_role *auth_role_new(struct auth *a, struct slice name);
void auth_user_keep(struct stored *s, struct auth_user *u);
void auth_role_keep(struct stored *s, const struct auth_role *r);
void auth_user_drop(struct stored *s, struct auth_user *u);         /* and its tokens */
void auth_role_drop(struct stored *s, struct auth_role *r);         /* from the table alone */
void auth_user_add_role(struct auth_user *u, struct slice role);    /* that it does not have */
bool auth_user_remove_role(struct auth_user *u, struct slice role); /* false: it had not */
/* Or sets the type of the one that is there. */
void auth_role_add_perm(struct auth_role *r, int64_t type, struct slice key, struct slice range_end);
bool auth_role_remove_perm(struct auth_role *r, struct slice key, struct slice range_end);
void auth_changed(struct stored *s, bool bump); /* after each command that changed something: state, rev, gen */

/* --- auth_cmd.c: commands of the log, and queries ------------------------------------------------------- */
/* E_UNIMPLEMENTED: none of auth's. */
int auth_apply(struct stored *s, const struct command *c, uint64_t index, struct buf *out);
int auth_query(struct stored *s, const struct command *c, struct buf *out);

/* --- auth_token.c --------------------------------------------------------------------------------------- */
void auth_tokens_load(struct stored *s); /* users are loaded */
void auth_tokens_fini(struct auth *a);
/* AUTHENTICATE: makes the token and prunes what is too much. */
int auth_token_make(struct stored *s, const struct command *c, uint64_t index, struct buf *out);
int auth_token_query(struct stored *s, struct slice body, struct buf *out); /* TOKEN: counts as a use of it */
void auth_tokens_drop(struct stored *s, struct auth_user *u);
void auth_tokens_drop_all(struct stored *s);

/* --- auth_password.c ------------------------------------------------------------------------------------ */
void auth_password_ask(struct gateway *g, uint64_t req, struct slice body); /* PASSWORD; answered later */
void auth_passwords_fini(struct stored *s); /* no worker job may be running */

#endif
