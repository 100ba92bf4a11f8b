/* conf_read: the file, the environment; and that the sample configuration tells the truth. */
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

Test(conf_read, a_file_sets_keys_between_comments_and_empty_lines)
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

Test(conf_read, all_faults_of_a_file_are_told_with_their_lines)
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

Test(conf_read, bytes_that_are_no_text_are_refused_by_line)
{
    struct fixture f;
    const char text[] = "name = n\0001\nname = a\x01\n";

    begin(&f);
    cr_assert_eq(read_text(&f, text, sizeof(text) - 1), E_INVALID);

    cr_assert_str_eq(said(&f), "trine.conf line 1: holds control bytes: not a text file?\n"
                               "trine.conf line 2: holds control bytes: not a text file?\n");
    end(&f);
}

Test(conf_read, lines_of_any_length_are_read_whole)
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

Test(conf_read, a_file_that_is_missing_or_huge_is_told_by_name)
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

Test(conf_read, the_environment_sets_keys_and_empty_means_unset)
{
    struct fixture f;
    char *env[] = {"PATH=/bin",       "TRINE_NAME=n9",        "TRINE_HEARTBEAT_INTERVAL=200",
                   "TRINE_DATA_DIR=", "TRINE_CONFIG_FILE=/x", "TRINE_BUILD=build",
                   "TRINESS=1",       "no equals sign",       NULL};

    begin(&f);
    cr_assert_eq(conf_read_env(&f.c, env, &f.why), OK, "%s", said(&f));

    cr_assert_str_eq(f.c.name, "n9");
    cr_assert_eq(f.c.heartbeat_interval_ms, 200);
    cr_assert_str_eq(f.c.data_dir, "/var/lib/trine");
    cr_assert_not(conf_is_given(&f.c, "data-dir"));
    end(&f);
}

Test(conf_read, wrong_variables_are_told_all)
{
    struct fixture f;
    char *env[] = {"TRINE_DATADIR=/x", "TRINE_GATEWAY_ID=17", "TRINE_data_dir=/x",
                   "TRINE_=1",         "TRINE_MAX_TXN_OPS=5", NULL};

    begin(&f);
    cr_assert_eq(conf_read_env(&f.c, env, &f.why), E_INVALID);

    cr_assert_str_eq(said(&f), "unknown environment variable TRINE_DATADIR; did you mean TRINE_DATA_DIR?\n"
                               "environment variable TRINE_GATEWAY_ID: gateway-id: \"17\" is out of range (1..16)\n"
                               "unknown environment variable TRINE_data_dir; did you mean TRINE_DATA_DIR?\n"
                               "unknown environment variable TRINE_\n");
    cr_assert_eq(f.c.max_txn_ops, 5);
    end(&f);
}

Test(conf_read, what_is_shown_can_be_read_again)
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
