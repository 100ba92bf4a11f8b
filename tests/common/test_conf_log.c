/* conf_log: what the keys about the log come to, and etcd's refusals. */
#include <criterion/criterion.h>
#include <string.h>

#include "common/conf.h"
#include "common/err.h"
#include "common/log.h"

#define CONFIG_KEY "log-rotation-config-json"

/* Rotation into one file with this configuration; NULL: the default. */
static int rotation_of(const char *outputs, const char *config, struct log_rotation *r, struct buf *why)
{
    struct conf c;

    conf_init(&c);
    cr_assert_eq(conf_set(&c, "enable-log-rotation", "true", "test", why), OK);
    cr_assert_eq(conf_set(&c, "log-outputs", outputs, "test", why), OK);
    if (config != NULL)
        cr_assert_eq(conf_set(&c, CONFIG_KEY, config, "test", why), OK);
    int err = conf_log_rotation(&c, r, why);

    buf_add_byte(why, '\0');
    conf_fini(&c);
    return err;
}

Test(conf_log, without_rotation_a_file_is_never_full)
{
    struct buf why = BUF_INIT;
    struct log_rotation r;
    struct conf c;

    conf_init(&c);

    cr_assert_eq(conf_log_rotation(&c, &r, &why), OK);

    cr_assert_eq(r.bytes_max, 0);
    conf_fini(&c);
    buf_fini(&why);
}

Test(conf_log, the_default_is_a_hundred_megabytes_and_all_old_files)
{
    struct buf why = BUF_INIT;
    struct log_rotation r;

    cr_assert_eq(rotation_of("/a.log", NULL, &r, &why), OK, "%s", (char *)why.data);

    cr_assert_eq(r.bytes_max, 100 * MIB);
    cr_assert_eq(r.days_max, 0);
    cr_assert_eq(r.files_max, 0);
    cr_assert_not(r.local_time);
    buf_fini(&why);
}

Test(conf_log, every_number_of_it_counts)
{
    struct buf why = BUF_INIT;
    struct log_rotation r;

    cr_assert_eq(rotation_of("stderr,/a.log", "{\"maxsize\": 7, \"maxage\": 8, \"maxbackups\": 9, \"localtime\": true}", &r, &why), OK);

    cr_assert_eq(r.bytes_max, 7 * MIB);
    cr_assert_eq(r.days_max, 8);
    cr_assert_eq(r.files_max, 9);
    cr_assert(r.local_time);
    buf_fini(&why);
}

Test(conf_log, what_makes_no_sense_is_refused_with_the_reason)
{
    static const char one_file[] = "--log-outputs requires a single file path when --log-rotate-config-json is defined\n";
    static const struct {
        const char *outputs, *config, *why;
    } cases[] = {
        {"stderr", NULL, one_file},
        {"/a.log,/b.log", NULL, one_file},
        {"default,/a.log", NULL, "multi logoutput for \"default\" is not supported yet\n"},
        {"/a.log", "[]", "invalid log rotation config: not an object\n"},
        {"/a.log", "{\"maxsize\": \"1\"}", "invalid log rotation config: maxsize is not a number\n"},
        {"/a.log", "{\"maxage\": -1}", "invalid log rotation config: maxage is not a number\n"},
        {"/a.log", "{\"localtime\": 1}", "invalid log rotation config: localtime is neither true nor false\n"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf why = BUF_INIT;
        struct log_rotation r;
        cr_assert_eq(rotation_of(cases[i].outputs, cases[i].config, &r, &why), E_INVALID);
        cr_assert_str_eq((char *)why.data, cases[i].why);
        buf_fini(&why);
    }
}

Test(conf_log, a_rotation_that_is_no_json_is_refused)
{
    struct buf why = BUF_INIT;
    struct log_rotation r;

    cr_assert_eq(rotation_of("/a.log", "{", &r, &why), E_INVALID);

    cr_assert_eq(strncmp((char *)why.data, "improperly formatted log rotation config: ", 42), 0);
    buf_fini(&why);
}

Test(conf_log, levels_and_formats_are_etcds_and_our_trace)
{
    struct buf why = BUF_INIT;
    struct conf c;

    conf_init(&c);
    cr_expect_eq(conf_set(&c, "log-level", "panic", "test", &why), OK);
    cr_expect_eq(conf_set(&c, "log-level", "trace", "test", &why), OK);
    cr_expect_eq(conf_set(&c, "log-format", "json", "test", &why), OK);
    cr_expect_eq(conf_set(&c, "log-level", "INFO", "test", &why), E_INVALID);
    cr_expect_eq(conf_set(&c, "log-format", "xml", "test", &why), E_INVALID);
    cr_expect_eq(conf_set(&c, "log-outputs", "", "test", &why), E_INVALID);
    conf_fini(&c);
    buf_fini(&why);
}

Test(conf, the_range_of_a_number_is_told)
{
    uint64_t min, max;

    cr_assert(conf_range("heartbeat-interval", &min, &max));
    cr_assert_eq(min, 1);
    cr_assert_eq(max, 10000);
    cr_assert_not(conf_range("name", &min, &max));
    cr_assert_not(conf_range("nonsense", &min, &max));
    cr_assert_str_eq(conf_help("nonsense"), "");
}
