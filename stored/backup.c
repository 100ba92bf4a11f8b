/* backup - see backup.h. Opened and asked for parts by read.c, as large results are; told to clients by gatewayd/maint.c. */
#include "stored/backup.h"

#include <stdlib.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/sha256.h"
#include "stored/bolt.h"
#include "stored/stored.h"

/* One step of the plan: so much is read before others get the worker. */
#define PLAN_BYTES (16 * MIB)
#define PLAN_ROWS 100000

struct backup {
    struct rows *rows;
    struct bolt *bolt;
    struct sha256 *sha;
    bool planned, written; /* all rows went through once; twice, and the digest is behind them */
};

int backup_open(struct mvcc *m, const struct rows_facts *facts, struct backup **out)
{
    struct backup *b = xcalloc(1, sizeof *b);
    int err = rows_open(m, facts, &b->rows);

    if (err) {
        free(b);
        return err;
    }
    b->bolt = bolt_new();
    b->sha = sha256_new();
    *out = b;
    return 0;
}

/* bbolt and etcd take no row of this kind; only a user or a role of an absurd name can be one. */
static bool is_writable(const struct row *row)
{
    if (row->key.len > 0 && row->key.len <= BOLT_KEY_MAX)
        return true;
    log_warnx("backup: a row whose key has %zu bytes is left out", row->key.len);
    return false;
}

/* 1: there are more rows, 0: that was the last one. */
static int row_move(struct backup *b, size_t *bytes)
{
    struct row row;
    int got = rows_next(b->rows, &row);

    if (got != 1)
        return got;
    *bytes += row.key.len + row.value.len;
    if (row.is_bucket)
        bolt_bucket(b->bolt, row.key);
    else if (is_writable(&row))
        bolt_row(b->bolt, row.key, row.value);
    return 1;
}

static int plan(struct backup *b)
{
    size_t bytes = 0, count = 0;
    int got;

    while ((got = row_move(b, &bytes)) == 1)
        if (++count >= PLAN_ROWS || bytes >= PLAN_BYTES)
            return 0;
    if (got)
        return got;
    rows_rewind(b->rows);
    b->planned = true;
    return bolt_end(b->bolt);
}

static int end(struct backup *b)
{
    struct buf *pages = bolt_out(b->bolt);
    uint8_t digest[SHA256_BYTES];
    int err = bolt_end(b->bolt);

    if (err) {
        log_error("backup: what is in the view has changed: %s", err_text(err));
        return err;
    }
    b->written = true;
    sha256_add(b->sha, pages->data, pages->len); /* row by row only what was given out went in */
    sha256_end(b->sha, digest);
    buf_add(pages, digest, sizeof digest);
    return 0;
}

int backup_step(struct backup *b, size_t part_bytes, struct buf *out, bool *more)
{
    struct buf *pages = bolt_out(b->bolt);
    size_t ignored = 0;
    int got = 1;

    *more = true;
    if (!b->planned)
        return plan(b);
    while (!b->written && pages->len < part_bytes && got == 1)
        got = row_move(b, &ignored);
    if (got == 0)
        got = end(b);
    if (got < 0)
        return got;
    size_t len = MIN(pages->len, part_bytes);
    buf_add(out, pages->data, len);
    if (!b->written)
        sha256_add(b->sha, pages->data, len);
    buf_consume(pages, len);
    *more = !b->written || pages->len > 0;
    return 0;
}

uint64_t backup_bytes(const struct backup *b)
{
    return b->planned ? bolt_bytes(b->bolt) + SHA256_BYTES : 0;
}

void backup_close(struct backup *b)
{
    if (!b)
        return;
    rows_close(b->rows);
    bolt_free(b->bolt);
    sha256_free(b->sha);
    free(b);
}
