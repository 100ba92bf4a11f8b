/* test_results - what a gateway is told again after a restart or a lost link. */
#include "tests/stored/fake.h"

Test(results, after_a_restart_the_last_results_are_told_again_to_the_same_gateway)
{
    struct world *w = world_new();
    struct frame f;
    uint64_t put = world_put(w, "a", "1"), bad = world_put(w, "", "1");

    fake_drop_all(w->gate);
    world_restart(w);
    cr_assert_eq(world_result(w, put, &f), 0);
    cr_assert_eq(world_header_rev(f.result.body), 2);
    cr_assert_eq(world_result(w, bad, &f), E_EMPTY_KEY);
    world_free(w);
}

Test(results, another_instance_of_the_gateway_is_told_nothing)
{
    struct world *w = world_new();
    struct frame f;

    world_put(w, "a", "1");
    fake_down(w->gate);
    fake_up(w->gate, FAKE_INSTANCE + 1);
    cr_assert_not(fake_take_type(w->gate, FR_RESULT, &f));
    world_put(w, "a", "2"); /* asked by the old instance */
    cr_assert_not(fake_take_type(w->gate, FR_RESULT, &f));
    world_free(w);
}

Test(results, only_the_last_batches_are_remembered)
{
    struct world *w = world_new();
    struct frame f;
    unsigned told = 0;

    for (int i = 0; i < RESULT_MEMORY_BATCHES + 10; i++)
        world_put(w, "a", "1");
    fake_drop_all(w->gate);
    world_restart(w);
    while (fake_take_type(w->gate, FR_RESULT, &f)) {
        cr_assert_gt(f.result.req, 10);
        told++;
    }
    cr_assert_eq(told, RESULT_MEMORY_BATCHES);
    world_free(w);
}

Test(results, a_body_too_large_to_remember_ends_as_ambiguous)
{
    struct world *w = world_new();
    char *value = xmalloc(100001);
    struct api_put rq = {.key = SLICE_LIT("a"), .prev_kv = true};
    struct buf body = BUF_INIT;
    struct frame f;
    uint64_t req;

    memset(value, 'v', 100000);
    value[100000] = '\0';
    world_put(w, "a", value);
    api_encode_put(&body, &rq);
    req = world_apply(w, COMMAND_PUT, buf_slice(&body));
    cr_assert_eq(world_result(w, req, &f), 0);
    cr_assert_gt(f.result.body.len, 100000);
    fake_down(w->gate);
    fake_up(w->gate, FAKE_INSTANCE);
    cr_assert_eq(world_result(w, req, &f), E_AMBIGUOUS);
    buf_fini(&body);
    free(value);
    world_free(w);
}
