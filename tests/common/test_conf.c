/* conf: values, the file, the environment; and that the sample configuration tells the truth. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/conf.h"
#include "common/err.h"
#include "common/file.h"

/* A configuration and what was said about it. */
struct fixture {
    struct conf c;
    struct buf why;
};

static void begin(struct fixture *f)
{
    conf_init(&f->c);
    f->why = BUF_INIT;
}

static void end(struct fixture *f)
{
    conf_fini(&f->c);
    buf_fini(&f->why);
}

/* What was said, as a string; forgotten afterwards. */
static const char *said(struct fixture *f)
{
    static char text[8192];
    size_t len = MIN(f->why.len, sizeof(text) - 1);

    if (len > 0)
        memcpy(text, f->why.data, len);
    text[len] = '\0';
    buf_reset(&f->why);
    return text;
}

static int read_text(struct fixture *f, const void *text, size_t len)
{
    char path[] = "/tmp/trine-test-conf.XXXXXX";
    int fd = mkstemp(path);

    cr_assert_geq(fd, 0);
    cr_assert_eq(file_write_all(fd, text, len), OK);
    close(fd);
    int err = conf_read_file(&f->c, path, &f->why);

    unlink(path);
    /* Messages name the path: make it the same in every run. */
    buf_add_byte(&f->why, '\0');
    struct buf plain = BUF_INIT;
    const char *at = (char *)f->why.data;

    for (const char *hit = strstr(at, path); hit != NULL; hit = strstr(at, path)) {
        buf_add(&plain, at, (size_t)(hit - at));
        buf_add_str(&plain, "trine.conf");
        at = hit + strlen(path);
    }
    buf_add_str(&plain, at);
    buf_fini(&f->why);
    f->why = plain;
    return err;
}

Test(conf, defaults_are_the_tables)
{
    struct fixture f;

    begin(&f);

    cr_assert_str_eq(f.c.name, "default");
    cr_assert_str_eq(f.c.listen_client_urls, "http://localhost:2379");
    cr_assert_eq(f.c.heartbeat_interval_ms, 100);
    cr_assert_eq(f.c.grpc_keepalive_interval_ms, 7200000);
    cr_assert_eq(f.c.max_concurrent_streams, 4294967295);
    cr_assert(f.c.pre_vote);
    cr_assert_not(f.c.unsafe_no_fsync);
    cr_assert_eq(f.c.given, 0);
    end(&f);
}

Test(conf, every_type_of_value_can_be_set_and_is_then_given)
{
    struct fixture f;

    begin(&f);

    cr_assert_eq(conf_set(&f.c, "name", "n1", "--name", &f.why), OK);
    cr_assert_eq(conf_set(&f.c, "name", "n2", "--name", &f.why), OK);
    cr_assert_eq(conf_set(&f.c, "cache-bytes", "18446744073709551615", "x", &f.why), OK);
    cr_assert_eq(conf_set(&f.c, "quota-backend-bytes", "-9223372036854775808", "x", &f.why), OK);
    cr_assert_eq(conf_set(&f.c, "pre-vote", "false", "x", &f.why), OK);
    cr_assert_eq(conf_set(&f.c, "watch-progress-notify-interval", "1m30s", "x", &f.why), OK);
    cr_assert_eq(conf_set(&f.c, "election-timeout", "50000", "x", &f.why), OK);

    cr_assert_str_eq(said(&f), "");
    cr_assert_str_eq(f.c.name, "n2");
    cr_assert_eq(f.c.cache_bytes, UINT64_MAX);
    cr_assert_eq(f.c.quota_backend_bytes, INT64_MIN);
    cr_assert_not(f.c.pre_vote);
    cr_assert_eq(f.c.watch_progress_notify_interval_ms, 90000);
    cr_assert_eq(f.c.election_timeout_ms, 50000);
    cr_assert(conf_is_given(&f.c, "name"));
    cr_assert_not(conf_is_given(&f.c, "data-dir"));
    end(&f);
}

static void check_refused(const char *key, const char *value, const char *message)
{
    struct fixture f;
    char expected[500];

    begin(&f);
    snprintf(expected, sizeof(expected), "trine.conf line 7: %s: %s\n", key, message);
    cr_assert_eq(conf_set(&f.c, key, value, "trine.conf line 7", &f.why), E_INVALID, "%s = %s", key, value);
    cr_assert_str_eq(said(&f), expected);
    cr_assert_not(conf_is_given(&f.c, key));
    end(&f);
}

Test(conf, wrong_values_are_refused_with_what_would_be_right)
{
    check_refused("heartbeat-interval", "abc", "\"abc\" is not a number of milliseconds (1..10000)");
    check_refused("heartbeat-interval", "100ms", "\"100ms\" is not a number of milliseconds (1..10000)");
    check_refused("heartbeat-interval", "", "\"\" is not a number of milliseconds (1..10000)");
    check_refused("gateway-id", "+1", "\"+1\" is not a number (1..16)");
    check_refused("gateway-id", "1 ", "\"1 \" is not a number (1..16)");
    check_refused("max-txn-ops", "0x10", "\"0x10\" is not a number (1..1000000)");
    check_refused("max-txn-ops", "-1", "\"-1\" is not a number (1..1000000)");
    check_refused("cache-bytes", "18446744073709551616", "\"18446744073709551616\" is not a number");
    check_refused("quota-backend-bytes", "2G", "\"2G\" is not a whole number");
    check_refused("quota-backend-bytes", "9223372036854775808", "\"9223372036854775808\" is not a whole number");
    check_refused("quota-backend-bytes", "--1", "\"--1\" is not a whole number");
    check_refused("pre-vote", "maybe", "\"maybe\" is neither true nor false");
    check_refused("grpc-keepalive-timeout", "20", "\"20\" is not a duration like 10m, 1h30m or 100ms");
    check_refused("compaction-sleep-interval", "x", "\"x\" is not a duration like 10m, 1h30m or 100ms (0..1m)");
    check_refused("name", "", "must not be empty");
    check_refused("name", "a,b", "\"a,b\" must not contain blanks, commas or equals signs");
    check_refused("data-dir", "", "must not be empty");
    check_refused("raftd-url", "http://x", "\"http://x\" is not an nng URL (ipc://PATH, tcp://HOST:PORT or "
                                           "tls+tcp://HOST:PORT)");
    check_refused("listen-peer-urls", "http://example.com:2380",
                  "expected IP in URL for binding (http://example.com:2380)");
    check_refused("initial-cluster", "n1", "\"n1\" is not NAME=URL");
    check_refused("initial-cluster-state", "old", "\"old\" is neither new nor existing");
    check_refused("auto-compaction-mode", "hourly", "\"hourly\" is neither periodic nor revision");
    check_refused("log-level", "loud", "\"loud\" is not error, warn, info, debug or trace");
}

Test(conf, numbers_are_good_at_their_limits_and_refused_over_them)
{
    struct fixture f;
    const struct {
        const char *key, *at_min, *at_max, *under, *over, *range;
    } cases[] = {
        {"heartbeat-interval", "1", "10000", "0", "10001", "1..10000"},
        {"election-timeout", "5", "50000", "4", "50001", "5..50000"},
        {"gateway-id", "1", "16", "0", "17", "1..16"},
        {"max-request-bytes", "1024", "10485760", "1023", "10485761", "1024..10485760"},
        {"max-concurrent-streams", "1", "4294967295", "0", "4294967296", "1..4294967295"},
        {"wal-segment-bytes", "1048576", "1073741824", "1048575", "1073741825", "1048576..1073741824"},
        {"compaction-sleep-interval", "0", "60s", NULL, "60001ms", "0..1m"},
        {"watch-progress-notify-interval", "100ms", "2562047h", "99ms", NULL, "100ms or more"},
    };

    begin(&f);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        cr_assert_eq(conf_set(&f.c, cases[i].key, cases[i].at_min, "x", &f.why), OK, "%s", said(&f));
        cr_assert_eq(conf_set(&f.c, cases[i].key, cases[i].at_max, "x", &f.why), OK, "%s", said(&f));
        const char *wrong[] = {cases[i].under, cases[i].over};
        for (size_t w = 0; w < 2; w++) {
            char expected[200];
            if (wrong[w] == NULL)
                continue;
            snprintf(expected, sizeof(expected), "x: %s: \"%s\" is out of range (%s)\n", cases[i].key, wrong[w],
                     cases[i].range);
            cr_assert_eq(conf_set(&f.c, cases[i].key, wrong[w], "x", &f.why), E_INVALID);
            cr_assert_str_eq(said(&f), expected);
        }
    }
    end(&f);
}

Test(conf, a_refused_value_leaves_the_old_one)
{
    struct fixture f;

    begin(&f);
    cr_assert_eq(conf_set(&f.c, "name", "n1", "x", &f.why), OK);
    cr_assert_eq(conf_set(&f.c, "name", "a b", "x", &f.why), E_INVALID);
    cr_assert_eq(conf_set(&f.c, "election-timeout", "1", "x", &f.why), E_INVALID);

    cr_assert_str_eq(f.c.name, "n1");
    cr_assert_eq(f.c.election_timeout_ms, 1000);
    end(&f);
}

Test(conf, a_place_that_ends_in_the_key_does_not_say_it_twice)
{
    struct fixture f;

    begin(&f);
    cr_assert_eq(conf_set(&f.c, "gateway-id", "x", "--gateway-id", &f.why), E_INVALID);
    cr_assert_str_eq(said(&f), "--gateway-id: \"x\" is not a number (1..16)\n");
    end(&f);
}

Test(conf, an_unknown_key_suggests_the_nearest_one)
{
    cr_assert_str_eq(conf_nearest_key("hartbeat-interval"), "heartbeat-interval");
    cr_assert_str_eq(conf_nearest_key("heartbeat"), "heartbeat-interval");
    cr_assert_str_eq(conf_nearest_key("data_dir"), "data-dir");
    cr_assert_str_eq(conf_nearest_key("nmae"), "name");
    cr_assert_str_eq(conf_nearest_key("listen-client-url"), "listen-client-urls");
    cr_assert_null(conf_nearest_key(""));
    cr_assert_null(conf_nearest_key("completely-different-thing-altogether"));
    cr_assert_null(conf_nearest_key("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"));
    cr_assert(conf_has_key("name"));
    cr_assert_not(conf_has_key("Name"));
    cr_assert(conf_is_bool("pre-vote"));
    cr_assert_not(conf_is_bool("name"));
    cr_assert_not(conf_is_bool("nonsense"));
}

Test(conf, a_file_sets_keys_between_comments_and_empty_lines)
{
    struct fixture f;
    const char text[] = "# comment\n"
                        "; another = one\n"
                        "\n"
                        "name = n1\n"
                        "  election-timeout=2000\t\r\n"
                        "initial-cluster = n1=http://a:1,n2=http://b:1\n"
                        "user =\n"
                        "pre-vote = false"; /* the last line without its end */

    begin(&f);
    cr_assert_eq(read_text(&f, text, sizeof(text) - 1), OK, "%s", said(&f));

    cr_assert_str_eq(said(&f), "");
    cr_assert_str_eq(f.c.name, "n1");
    cr_assert_eq(f.c.election_timeout_ms, 2000);
    cr_assert_str_eq(f.c.initial_cluster, "n1=http://a:1,n2=http://b:1");
    cr_assert_not(f.c.pre_vote);
    end(&f);
}

Test(conf, all_faults_of_a_file_are_told_with_their_lines)
{
    struct fixture f;
    const char text[] = "name = n1\n"
                        "\n"
                        "hartbeat-interval = 100\n"
                        "heartbeat-interval = abc\n"
                        "[raftd]\n"
                        "just words\n"
                        "= value\n"
                        "name = n2\n"
                        "pre-vote = \"true\"\n"
                        "data-dir = '/x'\n"
                        "log-level = debug # for now\n"
                        "run-dir = ; none\n"
                        "Election-Timeout = 5\n"
                        "max-txn-ops = 10\n";

    begin(&f);
    cr_assert_eq(read_text(&f, text, sizeof(text) - 1), E_INVALID);

    cr_assert_str_eq(said(&f),
                     "trine.conf line 3: unknown key \"hartbeat-interval\"; did you mean \"heartbeat-interval\"?\n"
                     "trine.conf line 4: heartbeat-interval: \"abc\" is not a number of milliseconds (1..10000)\n"
                     "trine.conf line 5: sections are not used here: \"[raftd]\"\n"
                     "trine.conf line 6: \"just words\" is not KEY = VALUE\n"
                     "trine.conf line 7: \"= value\" is not KEY = VALUE\n"
                     "trine.conf line 8: name: already set in line 1\n"
                     "trine.conf line 9: pre-vote: write the value without quotes\n"
                     "trine.conf line 10: data-dir: write the value without quotes\n"
                     "trine.conf line 11: log-level: a comment needs a line of its own\n"
                     "trine.conf line 12: run-dir: a comment needs a line of its own\n"
                     "trine.conf line 13: unknown key \"Election-Timeout\"; did you mean \"election-timeout\"?\n");
    cr_assert_str_eq(f.c.name, "n1");
    cr_assert_eq(f.c.max_txn_ops, 10); /* reading went on to the end */
    end(&f);
}

Test(conf, bytes_that_are_no_text_are_refused_by_line)
{
    struct fixture f;
    const char text[] = "name = n\0001\nname = a\x01\n";

    begin(&f);
    cr_assert_eq(read_text(&f, text, sizeof(text) - 1), E_INVALID);

    cr_assert_str_eq(said(&f), "trine.conf line 1: holds control bytes: not a text file?\n"
                               "trine.conf line 2: holds control bytes: not a text file?\n");
    end(&f);
}

Test(conf, lines_of_any_length_are_read_whole)
{
    struct fixture f;
    struct buf text = BUF_INIT;

    begin(&f);
    buf_add_str(&text, "initial-cluster-token = ");
    for (int i = 0; i < 100000; i++)
        buf_add_byte(&text, 'x');
    cr_assert_eq(read_text(&f, text.data, text.len), OK);

    cr_assert_eq(strlen(f.c.initial_cluster_token), 100000);
    buf_fini(&text);
    end(&f);
}

Test(conf, a_file_that_is_missing_or_huge_is_told_by_name)
{
    struct fixture f;
    struct buf text = BUF_INIT;

    begin(&f);
    cr_assert_eq(conf_read_file(&f.c, "/no/such/file", &f.why), E_NOT_FOUND);
    cr_assert_str_eq(said(&f), "cannot read /no/such/file: No such file or directory\n");
    cr_assert_eq(conf_read_file(&f.c, "/tmp", &f.why), E_IO);
    cr_assert_str_eq(said(&f), "cannot read /tmp: Is a directory\n");

    while (text.len < MIB)
        buf_add_str(&text, "#aaaaaaaaaaaaaa\n");
    cr_assert_eq(text.len, MIB);
    cr_assert_eq(read_text(&f, text.data, text.len), OK);
    buf_add_byte(&text, '\n');
    cr_assert_eq(read_text(&f, text.data, text.len), E_TOO_BIG);
    cr_assert_str_eq(said(&f), "cannot read trine.conf: it is larger than 1 MiB\n");
    buf_fini(&text);
    end(&f);
}

Test(conf, the_environment_sets_keys_and_empty_means_unset)
{
    struct fixture f;
    char *env[] = {"PATH=/bin", "TRINE_NAME=n9", "TRINE_HEARTBEAT_INTERVAL=200", "TRINE_DATA_DIR=",
                   "TRINE_CONFIG_FILE=/x", "TRINE_BUILD=build", "TRINESS=1", "no equals sign", NULL};

    begin(&f);
    cr_assert_eq(conf_read_env(&f.c, env, &f.why), OK, "%s", said(&f));

    cr_assert_str_eq(f.c.name, "n9");
    cr_assert_eq(f.c.heartbeat_interval_ms, 200);
    cr_assert_str_eq(f.c.data_dir, "/var/lib/trine");
    cr_assert_not(conf_is_given(&f.c, "data-dir"));
    end(&f);
}

Test(conf, wrong_variables_are_told_all)
{
    struct fixture f;
    char *env[] = {"TRINE_DATADIR=/x", "TRINE_GATEWAY_ID=17", "TRINE_data_dir=/x", "TRINE_=1", "TRINE_MAX_TXN_OPS=5", NULL};

    begin(&f);
    cr_assert_eq(conf_read_env(&f.c, env, &f.why), E_INVALID);

    cr_assert_str_eq(said(&f), "unknown environment variable TRINE_DATADIR; did you mean TRINE_DATA_DIR?\n"
                               "environment variable TRINE_GATEWAY_ID: gateway-id: \"17\" is out of range (1..16)\n"
                               "unknown environment variable TRINE_data_dir; did you mean TRINE_DATA_DIR?\n"
                               "unknown environment variable TRINE_\n");
    cr_assert_eq(f.c.max_txn_ops, 5);
    end(&f);
}

Test(conf, what_is_shown_can_be_read_again)
{
    struct fixture a, b;
    struct buf first = BUF_INIT, second = BUF_INIT;

    begin(&a);
    begin(&b);
    cr_assert_eq(conf_set(&a.c, "quota-backend-bytes", "-1", "x", &a.why), OK);
    cr_assert_eq(conf_set(&a.c, "grpc-keepalive-interval", "1h30m5s7ms", "x", &a.why), OK);
    cr_assert_eq(conf_set(&a.c, "socket-reuse-port", "true", "x", &a.why), OK);
    conf_show(&a.c, &first);

    cr_assert_eq(read_text(&b, first.data, first.len), OK, "%s", said(&b));
    conf_show(&b.c, &second);

    cr_assert(slice_eq(buf_slice(&first), buf_slice(&second)));
    cr_assert_eq(b.c.grpc_keepalive_interval_ms, 5405007);
    buf_fini(&first);
    buf_fini(&second);
    end(&a);
    end(&b);
}

/* --- deploy/trine.conf: read from the top of the tree, where `make check` runs the tests -------------------- */

#define SAMPLE "deploy/trine.conf"

static char *read_sample(void)
{
    struct buf text = BUF_INIT;

    cr_assert_eq(file_read_all(SAMPLE, MIB, &text), OK, "run this from the top of the tree");
    buf_add_byte(&text, '\0');
    return (char *)text.data; /* the caller frees it */
}

Test(sample, every_key_is_there_with_its_default)
{
    static const char *const pairs[][2] = {
#define PAIR(type, member, key, def, min, max, help) {key, def},
        CONF_KEYS(PAIR)
#undef PAIR
    };
    char *text = read_sample();

    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        char line[300];
        snprintf(line, sizeof(line), "\n#%s =%s%s\n", pairs[i][0], pairs[i][1][0] == '\0' ? "" : " ", pairs[i][1]);
        cr_expect_not_null(strstr(text, line), "no line \"%s\" in " SAMPLE, line + 1);
    }
    free(text);
}

Test(sample, it_is_good_as_it_stands_and_with_every_key_uncommented)
{
    struct fixture f, g;
    char *text = read_sample();
    struct buf uncommented = BUF_INIT, shown = BUF_INIT, defaults = BUF_INIT;

    begin(&f);
    begin(&g);
    cr_assert_eq(conf_read_file(&f.c, SAMPLE, &f.why), OK, "%s", said(&f));

    /* "#key = value" is a key, "# words" a comment. */
    for (const char *p = text; *p != '\0'; p++) {
        bool starts_line = p == text || p[-1] == '\n';
        if (!(starts_line && *p == '#' && p[1] >= 'a' && p[1] <= 'z'))
            buf_add_byte(&uncommented, (uint8_t)*p);
    }
    cr_assert_eq(read_text(&g, uncommented.data, uncommented.len), OK, "%s", said(&g));
    conf_show(&f.c, &defaults);
    conf_show(&g.c, &shown);
    cr_assert(slice_eq(buf_slice(&defaults), buf_slice(&shown)));

    buf_fini(&uncommented);
    buf_fini(&shown);
    buf_fini(&defaults);
    free(text);
    end(&f);
    end(&g);
}
