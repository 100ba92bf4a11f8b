/* auth_help - commands and queries of named users in a world of fake.h, in one line each. */
#ifndef TESTS_STORED_AUTH_HELP_H
#define TESTS_STORED_AUTH_HELP_H

#include "stored/auth.h"
#include "tests/stored/fake.h"

#define NOBODY ""


/* The envelope of gateway 1 with a user whose token is of auth revision `rev`. */
static inline void envelope(struct world *w, struct buf *bytes, const char *user, uint64_t rev, enum command_kind kind,
                            struct slice body, bool origin)
{
    command_encode(bytes, &(struct command){.kind = kind, .origin = origin ? FAKE_MEMBER : 0, .slot = 1,
                                            .instance = FAKE_INSTANCE, .req = ++w->req, .user = slice_str(user),
                                            .auth_rev = rev, .body = body});
}

/* Out of the log; the answer's err, its body is left in *f. */
static inline int apply_at(struct world *w, const char *user, uint64_t rev, enum command_kind kind, struct slice body,
                           struct frame *f)
{
    struct buf bytes = BUF_INIT;

    envelope(w, &bytes, user, rev, kind, body, true);
    cr_assert_eq(fake_in(w->raft, FRAME(apply, APPLY, .index = ++w->index, .term = FAKE_TERM, .kind = APPLY_COMMAND,
                                        .command = buf_slice(&bytes))), 0);
    buf_fini(&bytes);
    return world_result(w, w->req, f);
}

/* A linearizable read; its jobs are run. */
static inline int read_at(struct world *w, const char *user, uint64_t rev, enum command_kind kind, struct slice body,
                          struct frame *f)
{
    struct buf bytes = BUF_INIT;

    envelope(w, &bytes, user, rev, kind, body, false);
    cr_assert_eq(fake_in(w->raft, FRAME(serve, SERVE, .slot = 1, .index = w->index, .req = w->req,
                                        .command = buf_slice(&bytes))), 0);
    buf_fini(&bytes);
    fake_settle(w->loop);
    return world_result(w, w->req, f);
}

static inline bool is_read(enum command_kind kind)
{
    switch (kind) {
#define IS_READ(NAME, number, body, is_write) \
    case number: \
        return !is_write;
        COMMANDS(IS_READ)
    }
    return false;
}

/* Whichever it is, with the present revision. */
static inline int as(struct world *w, const char *user, enum command_kind kind, struct slice body, struct frame *f)
{
    return (is_read(kind) ? read_at : apply_at)(w, user, w->s.auth->rev, kind, body, f);
}

/* A body of bytes fields 1 to 4, NULL: not there. */
static inline struct buf strings(const char *one, const char *two, const char *three, const char *four)
{
    const char *const all[] = {one, two, three, four};
    struct buf body = BUF_INIT;

    for (uint32_t i = 0; i < ARRAY_LEN(all); i++)
        if (all[i])
            pb_add_message(&body, i + 1, slice_str(all[i]));
    return body;
}

static inline int as_strings(struct world *w, const char *user, enum command_kind kind, const char *one, const char *two,
                             const char *three, const char *four, struct frame *f)
{
    struct buf body = strings(one, two, three, four);
    int err = as(w, user, kind, buf_slice(&body), f);

    buf_fini(&body);
    return err;
}

static inline int as_ints(struct world *w, const char *user, enum command_kind kind, int64_t one, int64_t two,
                          struct frame *f)
{
    struct buf body = world_body(one, two, 0);
    int err = as(w, user, kind, buf_slice(&body), f);

    buf_fini(&body);
    return err;
}

/* AuthRoleGrantPermissionRequest. */
static inline int grant(struct world *w, const char *user, const char *role, int64_t type, struct slice key,
                        struct slice range_end)
{
    struct buf body = BUF_INIT, perm = BUF_INIT;
    struct frame f;
    int err;

    pb_add_int(&perm, 1, type);
    pb_add_bytes(&perm, 2, key);
    pb_add_bytes(&perm, 3, range_end);
    pb_add_bytes(&body, 1, slice_str(role));
    pb_add_message(&body, 2, buf_slice(&perm));
    err = as(w, user, COMMAND_ROLE_GRANT, buf_slice(&body), &f);
    buf_fini(&perm);
    buf_fini(&body);
    return err;
}

static inline void must_do(struct world *w, const char *user, enum command_kind kind, const char *one, const char *two,
                           const char *three, const char *four)
{
    struct frame f;
    int err = as_strings(w, user, kind, one, two, three, four, &f);

    cr_assert_eq(err, 0, "%s(%s, %s): %s", command_name(kind), one ? one : "", two ? two : "", err_text(err));
}

/* root with role root, and auth on. */
static inline void auth_on(struct world *w)
{
    must_do(w, NOBODY, COMMAND_USER_ADD, "root", NULL, NULL, NULL);
    must_do(w, NOBODY, COMMAND_USER_GRANT_ROLE, "root", "root", NULL, NULL);
    must_do(w, NOBODY, COMMAND_AUTH_ENABLE, NULL, NULL, NULL, NULL);
}

/* A user with one role of his own name. */
static inline void user_with_role(struct world *w, const char *by, const char *name)
{
    must_do(w, by, COMMAND_USER_ADD, name, NULL, NULL, NULL);
    must_do(w, by, COMMAND_ROLE_ADD, name, NULL, NULL, NULL);
    must_do(w, by, COMMAND_USER_GRANT_ROLE, name, name, NULL, NULL);
}

static inline int put_as(struct world *w, const char *user, struct api_put rq, struct frame *f)
{
    struct buf body = BUF_INIT;
    int err;

    api_encode_put(&body, &rq);
    err = as(w, user, COMMAND_PUT, buf_slice(&body), f);
    buf_fini(&body);
    return err;
}

static inline int delete_as(struct world *w, const char *user, struct api_delete rq, struct frame *f)
{
    struct buf body = BUF_INIT;
    int err;

    api_encode_delete(&body, &rq);
    err = as(w, user, COMMAND_DELETE_RANGE, buf_slice(&body), f);
    buf_fini(&body);
    return err;
}

static inline int range_as(struct world *w, const char *user, struct api_range rq, struct frame *f)
{
    struct buf body = BUF_INIT;
    int err;

    api_encode_range(&body, &rq);
    err = as(w, user, COMMAND_RANGE, buf_slice(&body), f);
    buf_fini(&body);
    return err;
}

static inline int txn_as(struct world *w, const char *user, const struct api_txn *rq, struct frame *f)
{
    struct buf body = BUF_INIT;
    int err;

    api_encode_txn(&body, rq);
    err = as(w, user, COMMAND_TXN, buf_slice(&body), f);
    buf_fini(&body);
    return err;
}

/* "a b c": the bytes fields `number` of a message, in order; static memory. */
static inline const char *texts(struct slice message, uint32_t number)
{
    static char text[1024];
    struct pb_field f;
    size_t at = 0;

    text[0] = '\0';
    while (pb_next(&message, &f) == 1)
        if (f.number == number && f.wire == PB_BYTES)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%.*s", at ? " " : "", (int)f.bytes.len,
                                   (const char *)f.bytes.data);
    return text;
}

#endif
