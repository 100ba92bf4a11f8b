/* downgrade - whether the cluster is being prepared to go back one minor release, as all members know it (spec/semantics.md §15).
 * From apply.c (ENABLE, CANCEL), read.c (VALIDATE), status.c. There is no older format here that a store could be brought
 * into: the job is kept, told and taken back, and that is all that it does. */
#include "stored/stored.h"

#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "proto/pb.h"

enum downgrade_action { DOWNGRADE_VALIDATE = 0, DOWNGRADE_ENABLE = 1, DOWNGRADE_CANCEL = 2 };

/* The one key of META_DOWNGRADE; its value is the target. Absent: no job. */
#define TARGET_KEY SLICE_LIT("target")

struct version {
    unsigned major, minor;
};

/* A number without sign of at most 5 digits, off *at; false: there is none. */
static bool take_number(struct slice *at, unsigned *n)
{
    size_t digits = 0;

    *n = 0;
    while (digits < at->len && at->data[digits] >= '0' && at->data[digits] <= '9' && digits < 5)
        *n = *n * 10 + (at->data[digits++] - '0');
    *at = slice_of(at->data + digits, at->len - digits);
    return digits > 0;
}

static bool take_dot(struct slice *at)
{
    if (at->len == 0 || at->data[0] != '.')
        return false;
    *at = slice_of(at->data + 1, at->len - 1);
    return true;
}

/* "X.Y" or "X.Y.Z"; after the latter may stand what semantic versions allow ("-rc.1", "+meta"). Z does not matter. */
static bool parse_version(struct slice text, struct version *v)
{
    unsigned patch;

    if (!take_number(&text, &v->major) || !take_dot(&text) || !take_number(&text, &v->minor))
        return false;
    if (text.len == 0)
        return true;
    return take_dot(&text) && take_number(&text, &patch) && (text.len == 0 || text.data[0] == '-' || text.data[0] == '+');
}

static struct version cluster_version(void)
{
    struct version v;

    must(parse_version(slice_str(TRINE_CLUSTER_VERSION), &v));
    return v;
}

static int take_target(void *arg, struct slice key, struct slice value)
{
    struct stored *s = arg;

    if (slice_eq(key, TARGET_KEY) && value.len < sizeof s->downgrade_target)
        memcpy(s->downgrade_target, value.data, value.len);
    return 0;
}

void downgrade_load(struct stored *s)
{
    memset(s->downgrade_target, 0, sizeof s->downgrade_target);
    if (mvcc_meta_each(s->mvcc, META_DOWNGRADE, take_target, s) != 0)
        fatalx("downgrade: the job cannot be read from the store");
}

/* 0 if a job for this target could begin now. */
static int check(const struct stored *s, struct slice target, struct version *v)
{
    struct version now = cluster_version();

    if (!parse_version(target, v))
        return E_WRONG_DOWNGRADE_VERSION_FORMAT;
    if (v->major != now.major || v->minor + 1 != now.minor)
        return E_INVALID_DOWNGRADE_TARGET_VERSION;
    return s->downgrade_target[0] ? E_DOWNGRADE_IN_PROCESS : 0;
}

static void enable(struct stored *s, const struct version *v)
{
    snprintf(s->downgrade_target, sizeof s->downgrade_target, "%u.%u.0", v->major, v->minor);
    mvcc_meta_put(s->mvcc, META_DOWNGRADE, TARGET_KEY, slice_str(s->downgrade_target));
    mvcc_chain_add(s->mvcc, META_DOWNGRADE, v->major, v->minor);
    log_info("downgrade: to %s, on request", s->downgrade_target);
}

/* Without a job there is nothing to be done, and that is no error. */
static void cancel(struct stored *s)
{
    if (!s->downgrade_target[0])
        return;
    log_info("downgrade: to %s, cancelled", s->downgrade_target);
    memset(s->downgrade_target, 0, sizeof s->downgrade_target);
    mvcc_meta_delete(s->mvcc, META_DOWNGRADE, TARGET_KEY);
    mvcc_chain_add(s->mvcc, META_DOWNGRADE, 0, 0);
}

static int run(struct stored *s, struct slice body, bool is_write, struct buf *out)
{
    struct version now = cluster_version(), v;
    struct slice target = SLICE_EMPTY;
    uint64_t action = 0;
    struct pb_field f;
    char text[24];
    int err = 0, got;

    while ((got = pb_next(&body, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_VARINT)
            action = f.varint;
        else if (f.number == 2 && f.wire == PB_BYTES)
            target = f.bytes;
    }
    if (got < 0)
        return E_MALFORMED_REQUEST;
    if (action > DOWNGRADE_CANCEL || is_write != (action != DOWNGRADE_VALIDATE))
        return E_UNKNOWN_METHOD;
    if (action != DOWNGRADE_CANCEL)
        err = check(s, target, &v);
    if (err)
        return err;
    if (action == DOWNGRADE_ENABLE)
        enable(s, &v);
    else if (action == DOWNGRADE_CANCEL)
        cancel(s);
    mvcc_add_header(s->mvcc, out, -1);
    snprintf(text, sizeof text, "%u.%u", now.major, now.minor);
    pb_add_bytes(out, 2, slice_str(text));
    return 0;
}

int downgrade_apply(struct stored *s, struct slice body, struct buf *out)
{
    return run(s, body, true, out);
}

int downgrade_validate(struct stored *s, struct slice body, struct buf *out)
{
    return run(s, body, false, out);
}

/* Field 13 of StatusResponse: always there. */
void downgrade_add_info(const struct stored *s, struct buf *out)
{
    struct buf info = BUF_INIT;

    pb_add_uint(&info, 1, s->downgrade_target[0] != 0);
    pb_add_bytes(&info, 2, slice_str(s->downgrade_target));
    pb_add_message(out, 13, buf_slice(&info));
    buf_fini(&info);
}
