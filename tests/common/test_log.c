/* log: one event is one line, whatever the text holds; levels; the end of a process; the rate limit. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/file.h"
#include "common/limits.h"
#include "common/log.h"
#include "tests/lib/child.h"

static size_t count_lines(const char *text)
{
    size_t count = 0;

    for (; *text != '\0'; text++)
        count += *text == '\n';
    return count;
}

static void say_one_of_each(void *arg)
{
    unsetenv("JOURNAL_STREAM");
    log_init("raftd", *(enum log_level *)arg);
    log_error("t: an error");
    errno = ENOENT;
    log_warn("t: a warning");
    log_warnx("t: a plain warning");
    log_info("t: an information, term %d", 7);
    log_debug("t: a detail");
    log_trace("t: a frame");
}

Test(log, levels_above_the_set_one_are_not_said)
{
    static struct child c;
    const size_t lines[] = {
        [LOG_L_ERROR] = 1, [LOG_L_WARN] = 3, [LOG_L_INFO] = 4, [LOG_L_DEBUG] = 5, [LOG_L_TRACE] = 6};

    for (int level = LOG_L_ERROR; level <= LOG_L_TRACE; level++) {
        enum log_level l = (enum log_level)level;
        child_run(&c, say_one_of_each, &l);
        cr_assert_eq(count_lines(c.err), lines[level], "level %d: %s", level, c.err);
    }
}

Test(log, a_line_has_time_level_program_and_text_and_warn_adds_errno)
{
    static struct child c;
    enum log_level level = LOG_L_INFO;

    child_run(&c, say_one_of_each, &level);

    char *line = strstr(c.err, "info  raftd t: an information, term 7\n");
    cr_assert_not_null(line, "%s", c.err);
    cr_assert_eq(line[-1], ' ');
    cr_assert_eq(line[-2], 'Z'); /* 2026-01-31T12:00:00.123Z */
    cr_assert_eq(line[-6], '.');
    cr_assert_not_null(strstr(c.err, "warn  raftd t: a warning: No such file or directory\n"), "%s", c.err);
    cr_assert_not_null(strstr(c.err, "warn  raftd t: a plain warning\n"), "%s", c.err);
}

static void say_in_the_journal(void *arg)
{
    UNUSED(arg);
    setenv("JOURNAL_STREAM", "8:1234", 1);
    log_init("stored", LOG_L_TRACE);
    log_warnx("t: slow");
    log_debug("t: detail");
}

Test(log, under_systemd_the_priority_leads_and_the_time_is_left_out)
{
    static struct child c;

    child_run(&c, say_in_the_journal, NULL);

    cr_assert_str_eq(c.err, "<4>stored t: slow\n<7>stored t: detail\n");
}

static void say_hostile(void *arg)
{
    UNUSED(arg);
    log_init("gatewayd", LOG_L_INFO);
    log_info("t: key %s", "a\n2026-01-01 forged\t\x1b[2J\x7f\xc3\xa9");
}

Test(log, control_bytes_from_outside_cannot_forge_a_line_or_reach_the_terminal)
{
    static struct child c;

    child_run(&c, say_hostile, NULL);

    cr_assert_eq(count_lines(c.err), 1);
    cr_assert_not_null(strstr(c.err, "a\\n2026-01-01 forged\\t\\x1b[2J\\x7f\xc3\xa9\n"), "%s", c.err);
}

static void say_much(void *arg)
{
    char *text = malloc(*(size_t *)arg + 1);

    memset(text, 'x', *(size_t *)arg);
    text[*(size_t *)arg] = '\0';
    log_init("gatewayd", LOG_L_INFO);
    log_info("%s", text);
    memset(text, '\n', *(size_t *)arg);
    log_info("%s", text);
    free(text);
}

Test(log, a_line_that_is_too_long_is_cut_and_says_so)
{
    static struct child c;
    size_t len = 50000;

    child_run(&c, say_much, &len);

    cr_assert_eq(count_lines(c.err), 2);
    cr_assert_lt(strlen(c.err), 8200);
    cr_assert_not_null(strstr(c.err, "...\n"));
}

static void die(void *arg)
{
    log_init("raftd", LOG_L_ERROR);
    errno = EIO;
    if (*(bool *)arg)
        fatal("wal: sync of %s", "0001.wal");
    fatalx("conf: no such thing");
}

Test(log, fatal_says_errno_and_exits_with_one)
{
    static struct child c;
    bool with_errno = true;

    child_run(&c, die, &with_errno);

    cr_assert_eq(c.code, 1);
    cr_assert_not_null(strstr(c.err, "error raftd wal: sync of 0001.wal: Input/output error\n"), "%s", c.err);
}

Test(log, fatalx_says_no_errno_and_exits_with_one)
{
    static struct child c;
    bool with_errno = false;

    child_run(&c, die, &with_errno);

    cr_assert_eq(c.code, 1);
    cr_assert_not_null(strstr(c.err, "error raftd conf: no such thing\n"), "%s", c.err);
}

Test(log, logging_leaves_errno_alone)
{
    int saved = dup(STDERR_FILENO);

    close(STDERR_FILENO); /* so that the write itself fails */
    errno = ENOSPC;
    log_warnx("t: nobody hears this");
    int after = errno;
    dup2(saved, STDERR_FILENO);

    cr_assert_eq(after, ENOSPC);
}

Test(log, level_words_are_parsed_and_others_refused)
{
    enum log_level level = LOG_L_WARN;

    cr_assert_eq(log_level_parse("trace", &level), OK);
    cr_assert_eq(level, LOG_L_TRACE);
    cr_assert_eq(log_level_parse("error", &level), OK);
    cr_assert_eq(level, LOG_L_ERROR);

    cr_assert_eq(log_level_parse("INFO", &level), E_INVALID);
    cr_assert_eq(log_level_parse("", &level), E_INVALID);
    cr_assert_eq(level, LOG_L_ERROR);
}

Test(log, a_repeated_fault_is_logged_once_per_interval_and_counts_what_was_swallowed)
{
    struct log_limit limit = {0};
    uint64_t swallowed = 99;

    cr_assert(log_allow(&limit, 1000, &swallowed));
    cr_assert_eq(swallowed, 0);
    cr_assert_not(log_allow(&limit, 1000, &swallowed));
    cr_assert_not(log_allow(&limit, 1000 + LOG_LIMIT_MS - 1, &swallowed));

    cr_assert(log_allow(&limit, 1000 + LOG_LIMIT_MS, &swallowed));
    cr_assert_eq(swallowed, 2);
    cr_assert(log_allow(&limit, 1000 + 2 * LOG_LIMIT_MS, &swallowed));
    cr_assert_eq(swallowed, 0);
}

Test(log, the_first_fault_is_logged_even_at_time_zero)
{
    struct log_limit limit = {0};
    uint64_t swallowed;

    cr_assert(log_allow(&limit, 0, &swallowed));
    cr_assert_not(log_allow(&limit, 1, &swallowed));
}

/* --- JSON, outputs, rotation ------------------------------------------------------------------------------------ */

static void say_json(void *arg)
{
    UNUSED(arg);
    unsetenv("JOURNAL_STREAM");
    log_init("raftd", LOG_L_INFO);
    log_set_json(true);
    log_info("t: a \"key\" \\ %s", "a\nb\x01\xff\xc3\xa9");
    errno = ENOENT;
    log_warn("t: gone");
    fatalx("wal: is lost");
}

Test(log, json_lines_are_those_of_etcd_and_nothing_from_outside_breaks_them)
{
    static struct child c;

    child_run(&c, say_json, NULL);

    cr_assert_eq(count_lines(c.err), 3);
    cr_assert_eq(strncmp(c.err, "{\"level\":\"info\",\"ts\":\"2", 23), 0, "%s", c.err);
    cr_assert_not_null(strstr(c.err, "Z\",\"caller\":\"tests/common/test_log.c:"), "%s", c.err);
    cr_assert_not_null(strstr(c.err, ",\"msg\":\"t: a \\\"key\\\" \\\\ a\\nb\\u0001\\ufffd\xc3\xa9\"}\n"), "%s", c.err);
    cr_assert_not_null(strstr(c.err, "\"msg\":\"t: gone\",\"error\":\"No such file or directory\"}\n"), "%s", c.err);
    cr_assert_not_null(strstr(c.err, "{\"level\":\"fatal\",\"ts\""), "%s", c.err);
    cr_assert_not_null(strstr(c.err, "\"caller\":\"raftd/wal\",\"msg\":\"wal: is lost\"}\n"), "%s", c.err);
}

static void say_long_json(void *arg)
{
    static char text[20001];

    UNUSED(arg);
    log_init("raftd", LOG_L_INFO);
    log_set_json(true);
    memset(text, '\1', sizeof(text) - 1);
    log_info("%s", text);
    memset(text, '"', sizeof(text) - 1);
    log_info("%s", text);
}

Test(log, a_json_line_that_is_too_long_is_cut_and_still_ends_as_json)
{
    static struct child c;

    child_run(&c, say_long_json, NULL);

    cr_assert_eq(count_lines(c.err), 2);
    cr_assert_not_null(strstr(c.err, "\\u0001...\"}\n"));
    cr_assert_not_null(strstr(c.err, "\\\"...\"}\n"));
    cr_assert_lt(strlen(c.err), 8200);
}

struct outputs {
    const char *list;
    struct log_rotation rotation;
    unsigned lines;
};

static void say_to_outputs(void *arg)
{
    const struct outputs *o = arg;
    struct buf why = BUF_INIT;

    log_init("raftd", LOG_L_INFO);
    if (log_open(o->list, &o->rotation, &why) != OK) {
        fprintf(stderr, "%.*s\n", (int)why.len, (const char *)why.data);
        buf_fini(&why);
        exit(7);
    }
    for (unsigned i = 0; i < o->lines; i++)
        log_info("t: line %u", i);
}

static size_t count_files(const char *dir, size_t *lines)
{
    size_t count = 0;
    DIR *d = opendir(dir);

    *lines = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        struct buf text = BUF_INIT;
        char path[600];
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        cr_assert_eq(file_read_all(path, MIB, &text), OK);
        buf_add_byte(&text, '\0');
        *lines += count_lines((char *)text.data);
        buf_fini(&text);
        count++;
    }
    closedir(d);
    return count;
}

static void remove_dir(const char *dir)
{
    char command[600];

    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    cr_assert_eq(system(command), 0);
}

Test(log, lines_go_to_all_outputs_and_to_nothing_else)
{
    char dir[] = "/tmp/test-log-XXXXXX", list[100];
    static struct child c;
    size_t lines;

    cr_assert_not_null(mkdtemp(dir));
    snprintf(list, sizeof(list), "stdout, %s/a.log,%s/b.log", dir, dir);
    child_run(&c, say_to_outputs, &(struct outputs){.list = list, .lines = 3});

    cr_assert_eq(c.code, 0, "%s", c.err);
    cr_assert_str_empty(c.err);
    cr_assert_eq(count_lines(c.out), 3);
    cr_assert_eq(count_files(dir, &lines), 2);
    cr_assert_eq(lines, 6);
    remove_dir(dir);
}

Test(log, an_output_that_cannot_be_opened_is_named)
{
    static struct child c;

    child_run(&c, say_to_outputs, &(struct outputs){.list = "stderr,/nowhere/a.log", .lines = 1});

    cr_assert_eq(c.code, 7);
    cr_assert_str_eq(c.err, "/nowhere/a.log: No such file or directory\n");
}

static void say_in_two_processes(void *arg)
{
    struct outputs *o = arg;
    pid_t pid = fork();

    say_to_outputs(arg);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    UNUSED(o);
}

Test(log, a_full_file_is_set_aside_by_whom_ever_and_no_line_is_lost)
{
    char dir[] = "/tmp/test-log-XXXXXX", list[100];
    static struct child c;
    size_t lines;

    cr_assert_not_null(mkdtemp(dir));
    snprintf(list, sizeof(list), "%s/a.log", dir);
    child_run(&c, say_in_two_processes,
              &(struct outputs){.list = list, .rotation = {.bytes_max = 10000}, .lines = 1000});

    size_t files = count_files(dir, &lines);

    cr_assert_gt(files, 4);
    cr_assert_eq(lines, 2000);
    remove_dir(dir);
}

Test(log, only_so_many_old_files_are_kept)
{
    char dir[] = "/tmp/test-log-XXXXXX", list[100];
    static struct child c;
    size_t lines;

    cr_assert_not_null(mkdtemp(dir));
    snprintf(list, sizeof(list), "%s/a.log", dir);
    child_run(&c, say_to_outputs,
              &(struct outputs){.list = list, .rotation = {.bytes_max = 4000, .files_max = 2}, .lines = 2000});

    cr_assert_eq(count_files(dir, &lines), 3);
    cr_assert_lt(lines, 2000);
    remove_dir(dir);
}
