/* conf_parse: durations, URLs and initial-cluster, right and wrong. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/conf.h"
#include "common/err.h"

Test(conf_parse, durations_are_those_of_go)
{
    const struct {
        const char *text;
        uint64_t ms;
    } cases[] = {
        {"0", 0},         {"0s", 0},        {"100ms", 100},    {"10m", 600000},        {"1h30m", 5400000},
        {"1.5s", 1500},   {".5s", 500},     {"1.s", 1000},     {"2h0m0.25s", 7200250}, {"3000us", 3},
        {"3000µs", 3},    {"5000000ns", 5}, {"1h1h", 7200000}, {"0.001s", 1},          {"2562047h", 9223369200000},
        {"1m1ms", 60001},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t ms = 99;
        cr_assert_eq(conf_parse_duration(cases[i].text, &ms), OK, "%s", cases[i].text);
        cr_assert_eq(ms, cases[i].ms, "%s is %llu", cases[i].text, (unsigned long long)ms);
    }
}

Test(conf_parse, what_is_no_duration_is_refused)
{
    const char *texts[] = {"",
                           " ",
                           "10",
                           "abc",
                           "ms",
                           "10 m",
                           "10m ",
                           "-10m",
                           "+1s",
                           "1d",
                           "1h30",
                           ".s",
                           "1..5s",
                           "1,5s",
                           "1e3s",
                           "0x10s",
                           "10M",
                           "2562048h",
                           "9223372036854775808ns",
                           "99999999999999999999s",
                           "100us",
                           "1.5ms",
                           "00"};

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        uint64_t ms = 99;
        cr_assert_eq(conf_parse_duration(texts[i], &ms), E_INVALID, "%s", texts[i]);
        cr_assert_eq(ms, 99, "%s", texts[i]);
    }
}

Test(conf_parse, retention_counts_hours_or_revisions)
{
    uint64_t value;

    cr_assert_eq(conf_parse_retention("periodic", "0", &value), OK);
    cr_assert_eq(value, 0);
    cr_assert_eq(conf_parse_retention("periodic", "2", &value), OK);
    cr_assert_eq(value, 7200000);
    cr_assert_eq(conf_parse_retention("periodic", "30m", &value), OK);
    cr_assert_eq(value, 1800000);
    cr_assert_eq(conf_parse_retention("revision", "1000", &value), OK);
    cr_assert_eq(value, 1000);

    cr_assert_eq(conf_parse_retention("revision", "30m", &value), E_INVALID);
    cr_assert_eq(conf_parse_retention("periodic", "-1", &value), E_INVALID);
    cr_assert_eq(conf_parse_retention("periodic", "", &value), E_INVALID);
    cr_assert_eq(conf_parse_retention("revision", "99999999999999999999", &value), E_INVALID);
    cr_assert_eq(conf_parse_retention("periodic", "9999999999999999", &value), E_INVALID);
    cr_assert_eq(value, 1000);
}

Test(conf_parse, a_list_of_urls_becomes_its_parts)
{
    struct conf_url *urls;
    size_t count;

    cr_assert_eq(
        conf_parse_urls("http://localhost:2379, https://[::1]:65535,unix:///run/x.sock,http://a.b-c:0", &urls, &count),
        OK);

    cr_assert_eq(count, 4);
    cr_assert_str_eq(urls[0].scheme, "http");
    cr_assert_str_eq(urls[0].host, "localhost");
    cr_assert_eq(urls[0].port, 2379);
    cr_assert_str_eq(urls[1].scheme, "https");
    cr_assert_str_eq(urls[1].host, "::1");
    cr_assert_eq(urls[1].port, 65535);
    cr_assert_str_eq(urls[2].scheme, "unix");
    cr_assert_str_eq(urls[2].host, "/run/x.sock");
    cr_assert_eq(urls[2].port, 0);
    cr_assert_str_eq(urls[3].host, "a.b-c");
    conf_free_urls(urls, count);
    conf_free_urls(NULL, 0);
}

static void check_reason(const char *list, bool listen, const char *reason)
{
    struct buf why = BUF_INIT;
    int err = conf_check_urls(list, listen, &why);

    buf_add_byte(&why, '\0');
    cr_assert_str_eq((char *)why.data, reason, "%s: %s", list, (char *)why.data);
    cr_assert_eq(err, reason[0] == '\0' ? OK : E_INVALID);
    buf_fini(&why);
}

Test(conf_parse, wrong_urls_are_refused_with_the_reason)
{
    check_reason("http://10.0.0.1:2379", false, "");
    check_reason("localhost:2379", false, "URL scheme must be http, https, unix, or unixs: localhost:2379");
    check_reason("", false, "URL scheme must be http, https, unix, or unixs: ");
    check_reason("http://a:1,", false, "URL scheme must be http, https, unix, or unixs: ");
    check_reason("ftp://a:1", false, "URL scheme must be http, https, unix, or unixs: ftp://a:1");
    check_reason("HTTP://a:1", false, "URL scheme must be http, https, unix, or unixs: HTTP://a:1");
    check_reason("http://a:1/", false, "URL must not contain a path: http://a:1/");
    check_reason("http://a", false, "URL address does not have the form \"host:port\": http://a");
    check_reason("unix://", false, "unix URL without a path: unix://");

    const char *bad[] = {"http://:1",   "http://a:",     "http://a:65536", "http://a:-1",
                         "http://a:+1", "http://a:1x",   "http://::1:1",   "http://[::1:1",
                         "http://[]:1", "http://[::1]1", "http://u@a:1",   "http://a b:1",
                         "http://",     "http://a:1?x",  "http://a#:1",    "http://a:99999999999999999999",
                         "http://[:1"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char reason[200];
        snprintf(reason, sizeof(reason), "URL address does not have the form \"host:port\": %s", bad[i]);
        check_reason(bad[i], false, reason);
    }
}

Test(conf_parse, one_wrong_url_in_the_middle_spoils_the_list_and_nothing_is_given)
{
    struct conf_url *urls = NULL;
    size_t count = 77;

    cr_assert_eq(conf_parse_urls("http://a:1,nonsense,http://b:2", &urls, &count), E_INVALID);
    cr_assert_null(urls);
    cr_assert_eq(count, 77);
}

Test(conf_parse, who_listens_needs_an_address)
{
    check_reason("http://127.0.0.1:1,http://localhost:2,http://[::]:3,unix:///x", true, "");
    check_reason("http://example.com:2379", true, "expected IP in URL for binding (http://example.com:2379)");
    check_reason("http://1.2.3:1", true, "expected IP in URL for binding (http://1.2.3:1)");
    check_reason("https://127.0.0.1:2379", true, "");
    check_reason("https://example.com:2379", false, "");
}

Test(conf_parse, a_cluster_is_pairs_of_name_and_url)
{
    const char *texts[] = {"n1=http://a:2380", "n1=http://a:2380, n2=http://b:2380,n1=http://a:7001",
                           "n1=https://[::1]:2380,n2=http://a:1,n3=http://aa:1"};

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct buf why = BUF_INIT;
        cr_assert_eq(conf_check_cluster(texts[i], &why), OK, "%s", texts[i]);
        cr_assert_eq(why.len, 0);
        buf_fini(&why);
    }
}

Test(conf_parse, a_wrong_cluster_is_refused_with_the_reason)
{
    const struct {
        const char *text, *reason;
    } cases[] = {
        {"", "\"\" is not NAME=URL"},
        {"http://a:2380", "\"http://a:2380\" is not NAME=URL"},
        {"=http://a:2380", "\"=http://a:2380\" is not NAME=URL"},
        {"n1=http://a:1,n2", "\"n2\" is not NAME=URL"},
        {"n1=a:2380", "URL scheme must be http, https, unix, or unixs: a:2380"},
        {"n1=unix:///x", "peers are reached by http or https: n1=unix:///x"},
        {"n1=http://a:1,n2=http://a:1", "initial cluster has duplicate url http://a:1"},
        {"n1=http://a:1, n2=http://b:1 ,n1=http://b:1", "initial cluster has duplicate url http://b:1"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf why = BUF_INIT;
        cr_assert_eq(conf_check_cluster(cases[i].text, &why), E_INVALID);
        buf_add_byte(&why, '\0');
        cr_assert_str_eq((char *)why.data, cases[i].reason);
        buf_fini(&why);
    }
}
