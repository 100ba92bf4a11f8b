/* Clusters of 1, 3 and 5 members in one process, from seeds (sim.h). Environment: SIM_SEED runs one seed only,
 * SIM_SEEDS that many per test. */
#include "tests/raftd/sim.h"

static void run_seed(uint64_t seed, size_t voters, size_t nodes, struct sim_faults faults)
{
    struct sim *s = xcalloc(1, sizeof(*s));

    sim_init(s, seed, voters, nodes, faults);
    sim_run(s, 1500);
    sim_check_liveness(s);
    if (getenv("SIM_VERBOSE"))
        fprintf(stderr, "seed %d: %d commits, %d reads, %d elections, %d snapshots, %d steps\n", (int)seed,
                (int)s->commits, (int)s->reads_done, (int)s->elections, (int)s->snaps, (int)s->steps);
    sim_fini(s);
    free(s);
}

static void run_seeds(uint64_t count, size_t voters, size_t nodes, struct sim_faults faults)
{
    const char *one = getenv("SIM_SEED"), *many = getenv("SIM_SEEDS");

    if (one) {
        run_seed(strtoull(one, NULL, 10), voters, nodes, faults);
        return;
    }
    if (many)
        count = strtoull(many, NULL, 10);
    for (uint64_t seed = 1; seed <= count; seed++)
        run_seed(seed, voters, nodes, faults);
}

Test(raft_cluster, one_member_survives_crashes_of_its_own)
{
    run_seeds(40, 1, 1, (struct sim_faults){.crash = 10, .slow_disk = 100, .snapshots = true});
}

Test(raft_cluster, three_members_work_without_faults)
{
    run_seeds(10, 3, 3, (struct sim_faults){0});
}

Test(raft_cluster, three_members_keep_their_promises_in_a_bad_network)
{
    run_seeds(60, 3, 3, (struct sim_faults){.drop = 100, .twice = 50, .cut = 10, .slow_disk = 20, .transfer = true});
}

Test(raft_cluster, three_members_keep_their_promises_with_crashes)
{
    run_seeds(60, 3, 3,
              (struct sim_faults){.drop = 30, .twice = 20, .cut = 5, .crash = 6, .slow_disk = 100, .transfer = true});
}

Test(raft_cluster, five_members_keep_their_promises_with_everything_at_once)
{
    run_seeds(
        60, 5, 5,
        (struct sim_faults){
            .drop = 60, .twice = 40, .cut = 10, .crash = 4, .slow_disk = 80, .transfer = true, .snapshots = true});
}

/* With pre-vote in every seed: without it a removed member that missed its removal disturbs forever (thesis 4.2.3). */
Test(raft_cluster, members_come_and_go_with_everything_at_once)
{
    run_seeds(60, 3, 6,
              (struct sim_faults){.drop = 30,
                                  .twice = 20,
                                  .cut = 5,
                                  .crash = 3,
                                  .slow_disk = 40,
                                  .transfer = true,
                                  .snapshots = true,
                                  .members = true,
                                  .pre_vote = true});
}
