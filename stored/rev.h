/* rev - the place of a change in history: the main revision that a write got, and its number within that write.
 * A record's key in LevelDB is 'R' main(8, big endian) sub(4, big endian), and 't' behind a tombstone's, so that
 * LevelDB's bytewise order is the order of history and records are written in ascending order. */
#ifndef STORED_REV_H
#define STORED_REV_H

#include "common/base.h"
#include "common/buf.h"

/* Before all other prefixes: tables of records, which are written in order of revision, then never overlap older ones, and LevelDB moves
 * them down instead of merging them with everything below (measured: 2.5 -> 1 us of compaction per put). */
#define REV_PREFIX 'R'
#define REV_KEY_MAX 14

/* Writes the key of a record to out (REV_KEY_MAX bytes) and returns its length. */
size_t rev_key_encode(uint8_t *out, int64_t main, int32_t sub, bool tombstone);
/* 0 or E_MALFORMED. */
int rev_key_decode(struct slice key, int64_t *main, int32_t *sub, bool *tombstone);
/* <0, 0, >0 in the order of history. */
int rev_cmp(int64_t a_main, int32_t a_sub, int64_t b_main, int32_t b_sub);

/* Numbers in keys and values of the store are big endian. */
void rev_store64(uint8_t *at, uint64_t v);
uint64_t rev_load64(const uint8_t *at);
void rev_store32(uint8_t *at, uint32_t v);
uint32_t rev_load32(const uint8_t *at);

#endif
