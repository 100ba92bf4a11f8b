/* conf: the table, and every kind of value at, over and beside its limits. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "common/conf.h"
#include "common/err.h"

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
    for (size_t i = 0; i < sizeof(f.c.given); i++)
        cr_assert_eq(f.c.given[i], 0);
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
    check_refused("raftd-url", "http://x",
                  "\"http://x\" is not an nng URL (ipc://PATH, tcp://HOST:PORT or "
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
        {"snapshot-bytes-per-second", "0", "1099511627776", NULL, "1099511627777", "0..1099511627776"},
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
    cr_assert_null(
        conf_nearest_key("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"));
    cr_assert(conf_has_key("name"));
    cr_assert_not(conf_has_key("Name"));
    cr_assert(conf_is_bool("pre-vote"));
    cr_assert_not(conf_is_bool("name"));
    cr_assert_not(conf_is_bool("nonsense"));
}
