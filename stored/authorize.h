/* authorize - may this user do this? The one place where that is decided, for every command and query, nested
 * transactions included. What is not allowed here by name is for role root alone. */
#ifndef STORED_AUTHORIZE_H
#define STORED_AUTHORIZE_H

#include "proto/command.h"

struct stored;

/* 0: yes, or auth is off; else why not, with etcd's error (spec/semantics.md §14.3 to 14.5). On the loop's thread;
 * depends on nothing but the command and the store. */
int authorize(struct stored *s, const struct command *c);
/* The same for a read that was allowed before auth changed and is about to be answered: that the command's auth
 * revision is of before is no fault of the client's, as long as the user is still the one who asked. */
int authorize_again(struct stored *s, const struct command *c);

#endif
