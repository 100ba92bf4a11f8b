/* opt: which source wins, and with what code and words a wrong start ends. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/opt.h"
#include "tests/lib/child.h"

#define MAX_ARGS 16

/* In a child of Criterion's process the leak checker only complains about threads that it cannot see, on stderr. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

/* What a process is started with; file is written to trine.conf in its working directory, if there is one. */
struct start {
    const char *file;
    const char *env[5]; /* NAME=VALUE */
    char *args[MAX_ARGS];
};

static char dir[] = "/tmp/trine-test-opt.XXXXXX";

static void start_daemon(void *arg)
{
    const struct start *s = arg;
    char *argv[MAX_ARGS + 1] = {"/usr/sbin/raftd"};
    int argc = 1;
    struct conf c;

    must(chdir(dir) == 0);
    if (s->file != NULL)
        must(file_replace("trine.conf", s->file, strlen(s->file)) == OK);
    clearenv();
    for (size_t i = 0; i < ARRAY_LEN(s->env) && s->env[i] != NULL; i++)
        putenv((char *)(uintptr_t)s->env[i]);
    while (argc <= MAX_ARGS && s->args[argc - 1] != NULL) {
        argv[argc] = s->args[argc - 1];
        argc++;
    }
    opt_load(&c, argc, argv);
    printf("name=%s heartbeat=%d no_fsync=%d pre_vote=%d log=%d token=%s", c.name, (int)c.heartbeat_interval_ms,
           c.unsafe_no_fsync, c.pre_vote, (int)log_get_level(), c.initial_cluster_token);
    conf_fini(&c);
}

static struct child child;

static void make_dir(void)
{
    cr_assert_not_null(mkdtemp(dir));
}

static void remove_dir(void)
{
    char *path = xasprintf("%s/trine.conf", dir);

    unlink(path);
    rmdir(dir);
    free(path);
}

TestSuite(opt, .init = make_dir, .fini = remove_dir);

static void check_runs(struct start *s, const char *out)
{
    child_run(&child, start_daemon, s);
    cr_assert_eq(child.code, 0, "%s", child.err);
    cr_assert_str_eq(child.out, out);
}

static void check_refused(struct start *s, int code, const char *err)
{
    child_run(&child, start_daemon, s);
    cr_assert_eq(child.code, code, "%s", child.err);
    cr_assert_str_eq(child.err, err);
    cr_assert_str_eq(child.out, "");
}

Test(opt, without_anything_the_defaults_are_taken)
{
    if (access("/etc/trine/trine.conf", F_OK) == 0)
        cr_skip_test("this machine has a configuration of its own");
    struct start s = {0};

    check_runs(&s, "name=default heartbeat=100 no_fsync=0 pre_vote=1 log=2 token=etcd-cluster");
}

Test(opt, options_win_over_environment_and_that_over_the_file)
{
    struct start s = {.file = "name = file\nheartbeat-interval = 1\ninitial-cluster-token = file\n",
                      .env = {"TRINE_NAME=env", "TRINE_HEARTBEAT_INTERVAL=2", "PATH=/bin"},
                      .args = {"-c", "trine.conf", "--name", "option"}};

    check_runs(&s, "name=option heartbeat=2 no_fsync=0 pre_vote=1 log=2 token=file");
}

Test(opt, the_order_of_options_does_not_matter_but_the_last_of_a_key_wins)
{
    struct start s = {.file = "name = file\n", .args = {"--name=a", "--name", "b", "-ctrine.conf"}};

    check_runs(&s, "name=b heartbeat=100 no_fsync=0 pre_vote=1 log=2 token=etcd-cluster");
}

Test(opt, the_file_can_come_from_the_environment_and_the_option_wins)
{
    struct start from_env = {.file = "name = file\n", .env = {"TRINE_CONFIG_FILE=trine.conf"}, .args = {"-f"}};
    struct start wins = {
        .file = "name = file\n", .env = {"TRINE_CONFIG_FILE=/no/such"}, .args = {"--config-file", "trine.conf"}};

    check_runs(&from_env, "name=file heartbeat=100 no_fsync=0 pre_vote=1 log=2 token=etcd-cluster");
    check_runs(&wins, "name=file heartbeat=100 no_fsync=0 pre_vote=1 log=2 token=etcd-cluster");
}

Test(opt, booleans_may_stand_alone_or_with_a_value)
{
    struct start s = {.args = {"-c", "/dev/null", "--unsafe-no-fsync", "--pre-vote=false"}};
    struct start apart = {.args = {"-c", "/dev/null", "--unsafe-no-fsync", "true", "--pre-vote", "false", "-f"}};
    struct start before_option = {.args = {"-c", "/dev/null", "--unsafe-no-fsync", "--name", "n1"}};

    check_runs(&s, "name=default heartbeat=100 no_fsync=1 pre_vote=0 log=2 token=etcd-cluster");
    check_runs(&apart, "name=default heartbeat=100 no_fsync=1 pre_vote=0 log=2 token=etcd-cluster");
    check_runs(&before_option, "name=n1 heartbeat=100 no_fsync=1 pre_vote=1 log=2 token=etcd-cluster");
}

Test(opt, v_says_more_words_up_to_all)
{
    struct start one = {.args = {"-c", "/dev/null", "-v"}}, many = {.args = {"-c", "/dev/null", "-vvv", "-v"}};
    struct start quiet = {.args = {"-c", "/dev/null", "--log-level", "error", "-v"}};

    check_runs(&one, "name=default heartbeat=100 no_fsync=0 pre_vote=1 log=3 token=etcd-cluster");
    check_runs(&many, "name=default heartbeat=100 no_fsync=0 pre_vote=1 log=4 token=etcd-cluster");
    check_runs(&quiet, "name=default heartbeat=100 no_fsync=0 pre_vote=1 log=1 token=etcd-cluster");
}

Test(opt, t_checks_and_exits)
{
    struct start good = {.file = "name = n1\n", .args = {"-t", "-c", "trine.conf"}};
    struct start shown = {.args = {"-c", "/dev/null", "-tv", "--name=n7"}};
    struct start bad = {.file = "\nheartbeat-interval = abc\nnaem = x\n", .args = {"-c", "trine.conf", "-t"}};

    check_runs(&good, "raftd: configuration is good (trine.conf)\n");
    child_run(&child, start_daemon, &shown);
    cr_assert_eq(child.code, 0);
    cr_assert_not_null(strstr(child.out, "name = n7\n"));
    cr_assert_not_null(strstr(child.out, "initial-cluster = n7=http://localhost:2380\n"));
    check_refused(&bad, 1,
                  "raftd: trine.conf line 2: heartbeat-interval: \"abc\" is not a number of milliseconds (1..10000)\n"
                  "raftd: trine.conf line 3: unknown key \"naem\"; did you mean \"name\"?\n");
}

Test(opt, version_and_help_exit_well)
{
    struct start v = {.args = {"-V"}}, version = {.args = {"--version"}};
    struct start h = {.args = {"-h"}}, help = {.args = {"--help", "--nonsense"}};
    struct start *helps[] = {&h, &help};

    check_runs(&v, "raftd " TRINE_VERSION " (API of etcd " TRINE_API_VERSION ")\n");
    check_runs(&version, "raftd " TRINE_VERSION " (API of etcd " TRINE_API_VERSION ")\n");
    for (size_t i = 0; i < ARRAY_LEN(helps); i++) {
        child_run(&child, start_daemon, helps[i]);
        cr_assert_eq(child.code, 0);
        cr_assert_not_null(strstr(child.out, "usage: raftd "));
#define HELP_HAS(type, member, key, def, min, max, text) \
    cr_assert_not_null(strstr(child.out, "  --" key "\n"), "%s", key);
        CONF_KEYS(HELP_HAS)
#undef HELP_HAS
    }
}

Test(opt, wrong_options_end_with_two)
{
    const struct {
        struct start s;
        const char *err;
    } cases[] = {
        {{.args = {"--nmae", "x"}}, "raftd: unknown option --nmae; did you mean --name?\n"},
        {{.args = {"--nmae=x"}}, "raftd: unknown option --nmae; did you mean --name?\n"},
        {{.args = {"-name", "x"}}, "raftd: unknown option -name; did you mean --name?\n"},
        {{.args = {"-x"}}, "raftd: unknown option -x\n"},
        {{.args = {"-tx"}}, "raftd: unknown option -tx\n"},
        {{.args = {"--name"}}, "raftd: option --name needs a value\n"},
        {{.args = {"-c"}}, "raftd: option -c needs a file\n"},
        {{.args = {"start"}}, "raftd: \"start\" is not a valid flag\n"},
        {{.args = {""}}, "raftd: \"\" is not a valid flag\n"},
        {{.args = {"--"}}, "raftd: \"--\" is not a valid flag\n"},
        {{.args = {"-"}}, "raftd: \"-\" is not a valid flag\n"},
        {{.args = {"--unsafe-no-fsync", "yes"}}, "raftd: \"yes\" is not a valid flag\n"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct start s = cases[i].s;
        char err[200];
        snprintf(err, sizeof(err), "%sraftd: try raftd --help\n", cases[i].err);
        check_refused(&s, 2, err);
    }
}

Test(opt, wrong_values_of_options_end_with_two_and_are_told_all)
{
    struct start s = {.args = {"-c", "/dev/null", "--gateway-id", "17", "--pre-vote=yes", "--name="}};

    check_refused(&s, 2,
                  "raftd: --gateway-id: \"17\" is out of range (1..16)\n"
                  "raftd: --pre-vote: \"yes\" is neither true nor false\n"
                  "raftd: --name: must not be empty\n");
}

Test(opt, a_wrong_file_or_environment_or_contradiction_ends_with_one)
{
    struct start no_file = {.args = {"-c", "/no/such/file"}};
    struct start both = {.file = "xyzzyxyzzy = 1\n", .env = {"TRINE_GATEWAY_ID=0"}, .args = {"-c", "trine.conf"}};
    struct start timing = {.args = {"-c", "/dev/null", "--election-timeout", "100"}};
    struct start listen = {.args = {"-c", "/dev/null", "--listen-client-urls", "http://127.0.0.1:1"}};

    check_refused(&no_file, 1, "raftd: cannot read /no/such/file: No such file or directory\n");
    check_refused(&both, 1,
                  "raftd: trine.conf line 1: unknown key \"xyzzyxyzzy\"\n"
                  "raftd: environment variable TRINE_GATEWAY_ID: gateway-id: \"0\" is out of range (1..16)\n");
    check_refused(&timing, 1,
                  "raftd: --election-timeout[100ms] should be at least as 5 times as --heartbeat-interval[100ms]\n");
    check_refused(&listen, 1,
                  "raftd: --advertise-client-urls is required when --listen-client-urls is set explicitly\n");
}
