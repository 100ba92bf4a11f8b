/* bolt_read - reading a bolt file (bolt.h has the format) that somebody else has written: nothing in it is believed. Every page is
 * looked at once at most, so a file that points in circles is damaged and not endless. One thread. */
#ifndef STORED_BOLT_READ_H
#define STORED_BOLT_READ_H

#include "common/buf.h"

struct bolt_file;

/* Bytes that stay where they are until bolt_close; pages beyond them are damage. The newest of the two meta pages whose checksum is right
 * counts. 0, or E_DAMAGED, E_VERSION (another format, or page size) with the reason in why. */
int bolt_open(struct slice bytes, struct bolt_file **file, struct buf *why);
/* The rows of a bucket in order. cb returns 0 to go on; else its value is returned. E_NOT_FOUND: no such bucket; E_DAMAGED with
 * the reason in why. Keys ascend, or it is damage. */
int bolt_each(struct bolt_file *f, struct slice bucket, int (*cb)(void *arg, struct slice key, struct slice value), void *arg,
              struct buf *why);
/* The same over the names of the buckets; value is empty. */
int bolt_each_bucket(struct bolt_file *f, int (*cb)(void *arg, struct slice name, struct slice value), void *arg,
                     struct buf *why);
void bolt_close(struct bolt_file *f); /* NULL is fine */

#endif
