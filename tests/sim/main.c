/* main of sim: runs seeds in worker processes and scenarios in this one.
 *
 *   sim [--seeds=N] [--seed=FIRST] [--jobs=J] [--keep-going]      N seeds from FIRST on; 1: the last steps of what
 * fails sim --seed=S --trace                                          one seed, every step sim [--accept] --scenario
 * FILE...                             text scenarios; --accept writes what came out
 *
 * A worker takes a few seeds and ends: what a dying member leaves allocated goes with it, and a crash of the simulator
 * itself costs one worker. Exit: 0 all kept their promises, 1 not. */
#include <getopt.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/mem.h"
#include "tests/sim/sim.h"

#define CHUNK 20
#define TOLD_MAX 3 /* failures whose last steps are shown */
#define JOBS_MAX 64

struct job {
    pid_t pid;
    uint64_t end;           /* behind the last one of this worker */
    volatile uint64_t seed; /* the one that runs */
    struct sim_stats stats; /* of those that are done */
    uint64_t done;
};

static void seed_run(uint64_t seed, struct sim_stats *total)
{
    struct sim *s = xcalloc(1, sizeof(*s));

    sim_init(s, seed);
    s->voters = sim_chance(s, 600) ? 3 : 5;
    sim_fault_init(s);
    for (unsigned i = 0; i < s->voters; i++) {
        sim_node_use(s, i, i + 1, false);
        sim_at(s, s->now_us + sim_below(s, 5 * SIM_MS), (struct sim_event){.kind = SIM_EV_START, .node = i});
    }
    s->clients_until_us = UINT64_MAX;
    sim_client_start(s);
    sim_run(s, 1500 * SIM_MS + sim_below(s, 5000 * SIM_MS));
    sim_check_live(s);
    if (sim_verbose)
        sim_say(s,
                "%zu voters: %" PRIu64 " events, %" PRIu64 " elections, %" PRIu64 " entries, %" PRIu64
                " writes, %" PRIu64 " reads, %" PRIu64 " crashes, %" PRIu64 " snapshots, %" PRIu64 " damaged",
                s->voters, s->stats.events, s->stats.elections, s->stats.commits, s->stats.writes_ok, s->stats.reads_ok,
                s->stats.crashes, s->stats.snaps, s->stats.damaged);
    uint64_t *to = (uint64_t *)total, *from = (uint64_t *)&s->stats;
    for (size_t i = 0; i < sizeof(*total) / sizeof(*to); i++)
        to[i] += from[i];
    sim_fini(s);
    free(s);
}

static void worker(struct job *j, uint64_t from, uint64_t to)
{
    alarm(120); /* a seed takes a fraction of a second */
    for (uint64_t seed = from; seed < to; seed++) {
        j->seed = seed;
        seed_run(seed, &j->stats);
        j->done++;
    }
    _exit(0);
}

static void tell_failure(const char *self, uint64_t seed, int status)
{
    char command[300];

    fflush(stdout);
    fprintf(stderr, "seed %" PRIu64 " failed (%s %d); again with: make sim SEED=%" PRIu64 " TRACE=1; its last steps:\n",
            seed, WIFSIGNALED(status) ? "signal" : "code", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
            seed);
    snprintf(command, sizeof(command), "'%s' --seed=%" PRIu64 " --trace 2>&1 | tail -%d | sed 's/^/    /' >&2", self,
             seed, 40);
    if (system(command) != 0)
        fprintf(stderr, "    (no trace)\n");
}

static int seeds_run(const char *self, uint64_t first, uint64_t count, unsigned jobs, bool keep_going, bool quiet)
{
    struct job *j = mmap(NULL, jobs * sizeof(*j), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t next = first, end = first + count, failed = 0, done = 0, running = 0;
    uint64_t rest = 0, rest_end = 0; /* what a worker that failed has left */
    struct timespec t0, t1;

    must(j != MAP_FAILED);
    clock_gettime(CLOCK_MONOTONIC, &t0);
    while (next < end || rest > 0 || running > 0) {
        for (unsigned i = 0; i < jobs && (next < end || rest > 0); i++) {
            if (j[i].pid)
                continue;
            uint64_t from = rest > 0 ? rest : next, to = rest > 0 ? rest_end : MIN(next + CHUNK, end);

            fflush(NULL);
            j[i].seed = from;
            j[i].end = to;
            pid_t child = fork();
            if (child == 0)
                worker(&j[i], from, to);
            must(child > 0);
            j[i].pid = child; /* shared memory: the child must not write its 0 here */
            running++;
            if (rest == 0)
                next = to;
            rest = 0;
        }
        int status;
        pid_t pid = wait(&status);

        for (unsigned i = 0; i < jobs; i++) {
            if (j[i].pid != pid)
                continue;
            j[i].pid = 0;
            running--;
            if (status == 0)
                continue;
            sim_mvcc_clean(pid);
            uint64_t seed = j[i].seed;
            failed++;
            done++;
            if (quiet)
                printf("first failure: seed %" PRIu64 ", %" PRIu64 " seeds\n", seed, seed - first + 1);
            else if (failed <= TOLD_MAX)
                tell_failure(self, seed, status);
            else
                fprintf(stderr, "seed %" PRIu64 " failed\n", seed);
            if (!keep_going)
                next = end;
            else if (seed + 1 < j[i].end) {
                rest = seed + 1;
                rest_end = j[i].end;
            }
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &t1);
    double seconds = (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9;
    struct sim_stats sum = {0};

    for (unsigned i = 0; i < jobs; i++) {
        uint64_t *to = (uint64_t *)&sum, *from = (uint64_t *)&j[i].stats;

        done += j[i].done;
        for (size_t k = 0; k < sizeof(sum) / sizeof(*to); k++)
            to[k] += from[k];
    }
    if (!quiet)
        printf("sim: %" PRIu64 " seeds from %" PRIu64 " in %.1f s (%.1f/s): %" PRIu64 " events, %" PRIu64
               " elections, %" PRIu64 " entries, %" PRIu64 " writes, %" PRIu64 " reads, %" PRIu64 " crashes (%" PRIu64
               " power cuts), %" PRIu64 " snapshots, %" PRIu64 " damaged logs\n",
               done, first, seconds, (double)done / seconds, sum.events, sum.elections, sum.commits, sum.writes_ok,
               sum.reads_ok, sum.crashes, sum.powers, sum.snaps, sum.damaged);
    printf("%" PRIu64 " passed, %" PRIu64 " failed\n", done - failed, failed);
    return failed > 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seeds", required_argument, NULL, 'n'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"jobs", required_argument, NULL, 'j'},
                                            {"trace", no_argument, NULL, 't'},
                                            {"accept", no_argument, NULL, 'a'},
                                            {"scenario", no_argument, NULL, 'x'},
                                            {"keep-going", no_argument, NULL, 'k'},
                                            {"quiet", no_argument, NULL, 'q'},
                                            {NULL, 0, NULL, 0}};
    uint64_t seeds = 200, seed = 1;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned jobs = (unsigned)MIN(MAX(cores, 1), JOBS_MAX);
    bool accept = false, scenario = false, keep_going = false, quiet = false;

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'n':
            seeds = strtoull(optarg, NULL, 10);
            break;
        case 's':
            seed = strtoull(optarg, NULL, 10);
            break;
        case 'j':
            jobs = (unsigned)MIN(MAX(strtoul(optarg, NULL, 10), 1), JOBS_MAX);
            break;
        case 't':
            sim_verbose = true;
            break;
        case 'a':
            accept = true;
            break;
        case 'x':
            scenario = true;
            break;
        case 'k':
            keep_going = true;
            break;
        case 'q':
            quiet = true;
            break;
        default:
            return 2;
        }
    }
    if (scenario) {
        unsigned failed = 0;

        for (int i = optind; i < argc; i++)
            failed += scenario_run(argv[i], accept) != 0;
        printf("%u passed, %u failed\n", (unsigned)(argc - optind) - failed, failed);
        return failed > 0;
    }
    if (sim_verbose) {
        struct sim_stats stats = {0};

        seed_run(seed, &stats);
        return 0;
    }
    return seeds_run(argv[0], seed, seeds, jobs, keep_going, quiet);
}
