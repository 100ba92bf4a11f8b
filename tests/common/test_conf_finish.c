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

    set_all(&c, PAIRS("listen-client-urls", "http://0.0.0.0:2379"));
    check_finish(&c, "--advertise-client-urls is required when --listen-client-urls is set explicitly\n");
    conf_fini(&c);

    set_all(&c, PAIRS("listen-client-urls", "http://0.0.0.0:2379", "advertise-client-urls", "http://n1:2379"));
    check_finish(&c, "");
    conf_fini(&c);
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
    check_finish(&c, "--listen-peer-urls: cannot listen on TLS for 127.0.0.1:2380: KeyFile and CertFile are not presented\n");
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
