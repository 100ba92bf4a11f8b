/* conf_finish: what spans keys, and defaults that follow from other keys. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/conf.h"
#include "common/err.h"

/* Sets key, value, key, value, ..., NULL. */
static void set_all(struct conf *c, const char *const *pairs)
{
    struct buf why = BUF_INIT;

    conf_init(c);
    for (; *pairs != NULL; pairs += 2)
        cr_assert_eq(conf_set(c, pairs[0], pairs[1], "test", &why), OK, "%s = %s", pairs[0], pairs[1]);
    buf_fini(&why);
}

#define PAIRS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void check_finish(struct conf *c, const char *reason)
{
    struct buf why = BUF_INIT;
    int err = conf_finish(c, &why);

    buf_add_byte(&why, '\0');
    cr_assert_str_eq((char *)why.data, reason);
    cr_assert_eq(err, reason[0] == '\0' ? OK : E_INVALID);
    buf_fini(&why);
}

Test(conf_finish, urls_and_cluster_follow_from_other_keys)
{
    struct conf c;

    set_all(&c, PAIRS("run-dir", "/run/t", "name", "n1", "initial-advertise-peer-urls", "http://a:1, http://b:2"));
    check_finish(&c, "");

    cr_assert_str_eq(c.raftd_url, "ipc:///run/t/raftd.ipc");
    cr_assert_str_eq(c.stored_url, "ipc:///run/t/stored.ipc");
    cr_assert_str_eq(c.native_url, "ipc:///run/t/native.ipc");
    cr_assert_str_eq(c.native_pub_url, "ipc:///run/t/events.ipc");
    cr_assert_str_eq(c.initial_cluster, "n1=http://a:1,n1=http://b:2");
    conf_fini(&c);
}

Test(conf_finish, further_gateways_have_native_urls_of_their_own)
{
    struct conf c;

    set_all(&c, PAIRS("run-dir", "/run/t", "gateway-id", "16"));
    check_finish(&c, "");

    cr_assert_str_eq(c.raftd_url, "ipc:///run/t/raftd.ipc");
    cr_assert_str_eq(c.native_url, "ipc:///run/t/native.16.ipc");
    cr_assert_str_eq(c.native_pub_url, "ipc:///run/t/events.16.ipc");
    conf_fini(&c);
}

Test(conf_finish, what_was_given_is_not_replaced)
{
    struct conf c;

    set_all(&c, PAIRS("raftd-url", "tls+tcp://10.0.0.1:7001", "initial-cluster", "x=http://x:1", "data-dir", "/d"));
    check_finish(&c, "");

    cr_assert_str_eq(c.raftd_url, "tls+tcp://10.0.0.1:7001");
    cr_assert_str_eq(c.initial_cluster, "x=http://x:1");
    cr_assert_str_eq(c.data_dir, "/d");
    conf_fini(&c);
}

Test(conf_finish, relative_directories_become_absolute)
{
    struct conf c;
    char cwd[1000], expected[1100];

    cr_assert_not_null(getcwd(cwd, sizeof(cwd)));
    set_all(&c, PAIRS("data-dir", "./d", "run-dir", "/r"));
    check_finish(&c, "");

    snprintf(expected, sizeof(expected), "%s/d", cwd);
    cr_assert_str_eq(c.data_dir, expected);

    conf_fini(&c);
    cr_assert_eq(chdir("/"), 0);
    set_all(&c, PAIRS("data-dir", "d", "run-dir", "/r"));
    check_finish(&c, "");
    cr_assert_str_eq(c.data_dir, "/d");
    conf_fini(&c);
}

Test(conf_finish, an_election_takes_at_least_five_heartbeats)
{
    struct conf c;

    set_all(&c, PAIRS("election-timeout", "500", "heartbeat-interval", "100"));
    check_finish(&c, "");
    conf_fini(&c);

    set_all(&c, PAIRS("election-timeout", "499", "heartbeat-interval", "100"));
    check_finish(&c, "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]\n");
    conf_fini(&c);
}

Test(conf_finish, who_listens_elsewhere_must_say_where_clients_go)
{
    struct conf c;

    set_all(&c, PAIRS("listen-client-urls", "http://127.0.0.2:2379"));
    check_finish(&c, "--advertise-client-urls is required when --listen-client-urls is set explicitly\n");
    conf_fini(&c);

    set_all(&c, PAIRS("listen-client-urls", "http://127.0.0.2:2379", "advertise-client-urls", "http://n1:2379"));
    check_finish(&c, "");
    conf_fini(&c);
}

Test(conf_finish, clear_text_for_the_network_must_be_asked_for)
{
    struct conf c;

    set_all(&c, PAIRS("listen-client-urls", "http://0.0.0.0:2379", "advertise-client-urls", "http://n1:2379"));
    check_finish(&c, "--listen-client-urls: http://0.0.0.0:2379 would serve clients of other machines in the clear: use https, or say "
                     "--allow-plaintext=true\n");
    conf_fini(&c);

    set_all(&c, PAIRS("listen-client-urls", "http://0.0.0.0:2379", "advertise-client-urls", "http://n1:2379", "allow-plaintext", "true"));
    check_finish(&c, "");
    conf_fini(&c);

    set_all(&c, PAIRS("listen-metrics-urls", "http://[::]:2381"));
    check_finish(&c, "--listen-metrics-urls: http://:::2381 would serve clients of other machines in the clear: use https, or say "
                     "--allow-plaintext=true\n");
    conf_fini(&c);

    set_all(&c, PAIRS("listen-client-urls", "https://0.0.0.0:2379,unix:///run/x,http://[::1]:1,http://127.9.9.9:1,http://localhost:1",
                      "advertise-client-urls", "http://n1:2379", "auto-tls", "true"));
    check_finish(&c, "");
    conf_fini(&c);
}

Test(conf_finish, what_tls_is_to_do_must_be_possible)
{
    static const struct {
        const char *key[3], *value[3], *why;
    } cases[] = {
        {{"listen-metrics-urls"}, {"https://127.0.0.1:1"},
         "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS scheme\n"},
        {{"listen-client-http-urls"}, {"unixs:///run/x"},
         "TLS key/cert (--cert-file, --key-file) must be provided for client url unixs:///run/x with HTTPS scheme\n"},
        {{"cert-file"}, {"/c"}, "--cert-file and --key-file must be given together\n"},
        {{"client-cert-allowed-cn", "client-cert-allowed-hostname"}, {"a,b", "h"},
         "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[a,b], hostnames=[h])\n"},
        {{"tls-min-version", "tls-max-version"}, {"TLS1.3", "TLS1.2"}, "min version (TLS1.3) is greater than max version (TLS1.2)\n"},
        {{"tls-min-version", "cipher-suites"}, {"TLS1.3", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"},
         "cipher suites cannot be configured when only TLS1.3 is enabled\n"},
        {{"cipher-suites"}, {"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,NONSENSE"}, "--cipher-suites: unexpected TLS cipher suite \"NONSENSE\"\n"},
        {{"cipher-suites"}, {"TLS_AES_128_GCM_SHA256"}, "--cipher-suites: unexpected TLS cipher suite \"TLS_AES_128_GCM_SHA256\"\n"},
        {{"cipher-suites"}, {"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"}, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf c;
        struct buf why = BUF_INIT;

        conf_init(&c);
        for (size_t k = 0; k < 3 && cases[i].key[k]; k++)
            cr_assert_eq(conf_set(&c, cases[i].key[k], cases[i].value[k], "test", &why), OK);
        cr_assert_eq(conf_finish(&c, &why), cases[i].why[0] ? E_INVALID : OK);
        buf_add_byte(&why, '\0');
        cr_assert_str_eq((const char *)why.data, cases[i].why);
        buf_fini(&why);
        conf_fini(&c);
    }
}

Test(conf_finish, the_retention_must_suit_its_mode)
{
    struct conf c;

    set_all(&c, PAIRS("auto-compaction-mode", "revision", "auto-compaction-retention", "10m"));
    check_finish(&c, "auto-compaction-retention: \"10m\" is not a number of revisions, as auto-compaction-mode "
                     "revision wants\n");
    conf_fini(&c);

    set_all(&c, PAIRS("auto-compaction-retention", "often"));
    check_finish(&c, "auto-compaction-retention: \"often\" is not a duration like 10m or a number of hours, as "
                     "auto-compaction-mode periodic wants\n");
    conf_fini(&c);

    set_all(&c, PAIRS("auto-compaction-mode", "revision", "auto-compaction-retention", "1000"));
    check_finish(&c, "");
    conf_fini(&c);
}

Test(conf_finish, listening_on_tls_needs_a_certificate)
{
    struct conf c;

    set_all(&c, PAIRS("listen-peer-urls", "https://127.0.0.1:2380", "peer-cert-file", "/c", "peer-key-file", "/k"));
    check_finish(&c, "");
    conf_fini(&c);
    set_all(&c, PAIRS("listen-peer-urls", "https://127.0.0.1:2380", "peer-auto-tls", "true"));
    check_finish(&c, "");
    conf_fini(&c);
    set_all(&c, PAIRS("listen-peer-urls", "https://127.0.0.1:2380"));
    check_finish(&c, "cannot listen on TLS for 127.0.0.1:2380: KeyFile and CertFile are not presented\n");
    conf_fini(&c);
    set_all(&c, PAIRS("peer-cert-file", "/c"));
    check_finish(&c, "--peer-cert-file and --peer-key-file must be given together\n");
    conf_fini(&c);
    set_all(&c, PAIRS("peer-cert-allowed-cn", "a", "peer-cert-allowed-hostname", "b"));
    check_finish(&c, "--peer-cert-allowed-cn and --peer-cert-allowed-hostname exclude each other\n");
    conf_fini(&c);
}

Test(conf_finish, all_contradictions_are_told_at_once)
{
    struct conf c;

    set_all(&c, PAIRS("election-timeout", "10", "listen-client-urls", "http://127.0.0.1:1", "auto-compaction-retention",
                      "x"));
    check_finish(&c, "--election-timeout[10ms] should be at least as 5 times as --heartbeat-interval[100ms]\n"
                     "--advertise-client-urls is required when --listen-client-urls is set explicitly\n"
                     "auto-compaction-retention: \"x\" is not a duration like 10m or a number of hours, as "
                     "auto-compaction-mode periodic wants\n");
    conf_fini(&c);
}

/* 107 bytes fit into a socket's name, 8 of them are for the slot: 99 for RUN-DIR/stored.ipc. */
Test(conf_finish, a_run_dir_too_deep_for_sockets_is_refused)
{
    struct conf c;
    char dir[128];

    memset(dir, 'x', sizeof(dir));
    dir[0] = '/';
    dir[99 - strlen("/stored.ipc")] = '\0';
    set_all(&c, PAIRS("run-dir", dir));
    check_finish(&c, "");
    conf_fini(&c);

    dir[99 - strlen("/stored.ipc")] = 'x';
    dir[100 - strlen("/stored.ipc")] = '\0';
    set_all(&c, PAIRS("run-dir", dir));
    struct buf why = BUF_INIT;
    cr_assert_eq(conf_finish(&c, &why), E_INVALID);
    buf_add_byte(&why, '\0');
    cr_assert_not_null(strstr((char *)why.data, "stored-url: the path in ipc:///xxx"));
    cr_assert_not_null(strstr((char *)why.data, "longer than the 99 bytes"));
    cr_assert_null(strstr((char *)why.data, "raftd-url"));
    buf_fini(&why);
    conf_fini(&c);
}
