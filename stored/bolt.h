/* bolt - the file format of bbolt, the B+tree file in which etcd keeps its state: pages are made of sorted rows, in order,
 * once each, and nothing but the page under construction on each level is held.
 *
 *   file    = meta meta freelist page*                            pages of 4096 bytes, numbered from 0; numbers little endian
 *   page    = id(8) kind(2) count(2) overflow(4) element* bytes   overflow: how many pages more it takes
 *   meta    = page header, magic(4) version(4) page size(4) flags(4) root page(8) sequence(8) freelist page(8) pages(8)
 *             transaction(8) checksum(8)                          FNV-1a over what stands before it, from the magic on
 *   leaf    = elements flags(4) pos(4) key size(4) value size(4)  pos counts from the element; flag 1: the value is a bucket
 *   branch  = elements pos(4) key size(4) child page(8)           key: the first one below the child
 *   bucket  = root page(8) sequence(8) [leaf page]                root page 0: the leaf follows inside (a small bucket)
 *
 * The meta pages stand in front and name the root, which is known only at the end: so the same rows are given twice. The first
 * time (planning) pages are only counted, the second time they are written. Rows: key size and value size at most 2^31 - 1.
 * Source: the format as files written by etcd 3.4 show it, tests/stored/test_bolt.c reads it back. */
#ifndef STORED_BOLT_H
#define STORED_BOLT_H

#include "common/buf.h"

#define BOLT_PAGE_BYTES ((size_t)4096)
#define BOLT_KEY_MAX 32768 /* bbolt takes no longer one */

struct bolt;

struct bolt *bolt_new(void);
void bolt_free(struct bolt *b); /* NULL is fine */

/* One pass: buckets in ascending order of name, in each rows in ascending order of key, then the end. */
void bolt_bucket(struct bolt *b, struct slice name); /* ends the one before */
void bolt_row(struct bolt *b, struct slice key, struct slice value);
/* After planning: the second pass may begin, 0. After writing: 0, or E_DAMAGED: the rows were not those of the plan. */
int bolt_end(struct bolt *b);

uint64_t bolt_bytes(const struct bolt *b); /* of the whole file; known after planning */
/* Pages that are ready, while writing; whoever takes them consumes or resets the buffer. */
struct buf *bolt_out(struct bolt *b);

#endif
