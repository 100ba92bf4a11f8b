/* test_downgrade - what may be asked for, what is remembered, and what Status tells of it. */
#include "tests/stored/fake.h"

enum { VALIDATE, ENABLE, CANCEL };

static int ask(struct world *w, int64_t action, const char *version, struct frame *f)
{
    struct buf body = BUF_INIT;
    uint64_t req;

    pb_add_int(&body, 1, action);
    pb_add_bytes(&body, 2, slice_str(version));
    if (action == ENABLE || action == CANCEL)
        req = world_apply(w, COMMAND_DOWNGRADE, buf_slice(&body));
    else
        req = world_query(w, COMMAND_DOWNGRADE, buf_slice(&body), w->index);
    fake_settle(w->loop);
    buf_fini(&body);
    return world_result(w, req, f);
}

/* DowngradeInfo as Status tells it. */
static void expect_info(struct world *w, const char *target)
{
    struct buf out = BUF_INIT;
    struct slice info;

    downgrade_add_info(&w->s, &out);
    info = world_bytes(buf_slice(&out), 13, 0);
    cr_expect_eq(world_int(info, 1, 0, 0), *target != 0);
    cr_expect(slice_eq(world_bytes(info, 2, 0), slice_str(target)));
    buf_fini(&out);
}

Test(downgrade, only_the_minor_release_before_ours_will_do)
{
    static const struct {
        const char *version;
        int err;
    } rows[] = {
        {"3.6", 0}, {"3.6.0", 0}, {"3.6.5", 0}, {"3.6.0-rc.1", 0}, {"3.6.0+x", 0},
        {"3.7.0", E_INVALID_DOWNGRADE_TARGET_VERSION}, {"3.5", E_INVALID_DOWNGRADE_TARGET_VERSION},
        {"3.8", E_INVALID_DOWNGRADE_TARGET_VERSION}, {"2.6", E_INVALID_DOWNGRADE_TARGET_VERSION},
        {"", E_WRONG_DOWNGRADE_VERSION_FORMAT}, {"3", E_WRONG_DOWNGRADE_VERSION_FORMAT}, {"3.", E_WRONG_DOWNGRADE_VERSION_FORMAT},
        {"3.6.", E_WRONG_DOWNGRADE_VERSION_FORMAT}, {"3.6.x", E_WRONG_DOWNGRADE_VERSION_FORMAT},
        {"3.6.0.1", E_WRONG_DOWNGRADE_VERSION_FORMAT}, {"v3.6", E_WRONG_DOWNGRADE_VERSION_FORMAT},
        {"-3.6", E_WRONG_DOWNGRADE_VERSION_FORMAT}, {"3 .6", E_WRONG_DOWNGRADE_VERSION_FORMAT},
        {"99999999999999.6", E_WRONG_DOWNGRADE_VERSION_FORMAT},
    };
    struct world *w = world_new();
    struct frame f;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int err = ask(w, VALIDATE, rows[i].version, &f);

        cr_expect_eq(err, rows[i].err, "\"%s\": %s", rows[i].version, err_text(err));
        if (!err)
            cr_expect(slice_eq(world_bytes(f.result.body, 2, 0), SLICE_LIT("3.7")));
    }
    cr_expect_eq(ask(w, 3, "3.6", &f), E_UNKNOWN_METHOD);
    expect_info(w, "");
    world_free(w);
}

Test(downgrade, a_job_is_kept_until_it_is_cancelled)
{
    struct world *w = world_new();
    struct frame f;

    cr_expect_eq(ask(w, CANCEL, "", &f), 0, "without a job too");
    cr_expect_eq(ask(w, ENABLE, "3.5", &f), E_INVALID_DOWNGRADE_TARGET_VERSION);
    expect_info(w, "");
    cr_assert_eq(ask(w, ENABLE, "3.6", &f), 0);
    cr_expect(slice_eq(world_bytes(f.result.body, 2, 0), SLICE_LIT("3.7")));
    cr_expect_eq(world_header_rev(f.result.body), 1);
    expect_info(w, "3.6.0");
    cr_expect_eq(ask(w, ENABLE, "3.6.1", &f), E_DOWNGRADE_IN_PROCESS);
    cr_expect_eq(ask(w, VALIDATE, "3.6", &f), E_DOWNGRADE_IN_PROCESS);
    cr_expect_eq(ask(w, VALIDATE, "3.5", &f), E_INVALID_DOWNGRADE_TARGET_VERSION);
    world_restart(w);
    expect_info(w, "3.6.0");
    cr_assert_eq(ask(w, CANCEL, "", &f), 0);
    expect_info(w, "");
    world_restart(w);
    expect_info(w, "");
    cr_expect_eq(ask(w, ENABLE, "3.6", &f), 0);
    world_free(w);
}
