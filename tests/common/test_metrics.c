/* metrics: the text is what Prometheus reads; buckets at their bounds; the process' own numbers. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/metrics.h"
#include "tests/lib/child.h"

static void check_text(struct buf *b, const char *expected)
{
    buf_add_byte(b, '\0');
    cr_assert_str_eq((const char *)b->data, expected);
    buf_fini(b);
}

Test(metrics, a_metric_is_help_type_and_values)
{
    struct buf b = BUF_INIT;

    metrics_help(&b, "etcd_server_has_leader", METRICS_GAUGE, "Whether or not a leader exists.");
    metrics_u64(&b, "etcd_server_has_leader", NULL, 1);
    metrics_u64(&b, "x_total", "action=\"put\"", UINT64_MAX);
    metrics_i64(&b, "x", "", -5);
    metrics_double(&b, "y", NULL, 0.1);

    check_text(&b, "# HELP etcd_server_has_leader Whether or not a leader exists.\n"
                   "# TYPE etcd_server_has_leader gauge\n"
                   "etcd_server_has_leader 1\n"
                   "x_total{action=\"put\"} 18446744073709551615\n"
                   "x -5\n"
                   "y 0.1\n");
}

Test(metrics, doubles_are_short_exact_and_have_words_for_what_is_no_number)
{
    struct buf b = BUF_INIT;

    metrics_double(&b, "a", NULL, 1.0 / 3);
    metrics_double(&b, "b", NULL, 1e300);
    metrics_double(&b, "c", NULL, 0);
    metrics_double(&b, "d", NULL, (double)INFINITY);
    metrics_double(&b, "e", NULL, (double)-INFINITY);
    metrics_double(&b, "f", NULL, (double)NAN);
    metrics_double(&b, "g", NULL, 1700000000.25);

    check_text(&b, "a 0.3333333333333333\nb 1e+300\nc 0\nd +Inf\ne -Inf\nf NaN\ng 1700000000.25\n");
}

Test(metrics, help_and_labels_are_escaped)
{
    struct buf b = BUF_INIT, labels = BUF_INIT;

    metrics_help(&b, "x", METRICS_COUNTER, "two\nlines and a \\");
    metrics_label(&labels, "to", SLICE_LIT("a\"b\\c\nd\x01\xff"));
    metrics_label(&labels, "empty", SLICE_EMPTY);

    check_text(&b, "# HELP x two\\nlines and a \\\\\n# TYPE x counter\n");
    check_text(&labels, "to=\"a\\\"b\\\\c\\nd??\",empty=\"\"");
}

Test(histogram, a_bound_belongs_to_its_bucket_and_counts_are_cumulated)
{
    struct histogram h;
    struct buf b = BUF_INIT;

    histogram_init(&h, 1000, 3);
    histogram_observe_us(&h, 0);
    histogram_observe_us(&h, 1000);
    histogram_observe_us(&h, 1001);
    histogram_observe_us(&h, 4000);
    histogram_observe_us(&h, 4001);
    histogram_render(&b, "d_seconds", NULL, &h);

    check_text(&b, "d_seconds_bucket{le=\"0.001\"} 2\n"
                   "d_seconds_bucket{le=\"0.002\"} 3\n"
                   "d_seconds_bucket{le=\"0.004\"} 4\n"
                   "d_seconds_bucket{le=\"+Inf\"} 5\n"
                   "d_seconds_sum 0.010002\n"
                   "d_seconds_count 5\n");
}

Test(histogram, labels_stand_before_le)
{
    struct histogram h;
    struct buf b = BUF_INIT;

    histogram_init_unit(&h, 1, 1, 1.0);
    histogram_observe(&h, 60);
    histogram_render(&b, "ttl", "to=\"1f\"", &h);

    check_text(&b, "ttl_bucket{to=\"1f\",le=\"1\"} 0\nttl_bucket{to=\"1f\",le=\"+Inf\"} 1\n"
                   "ttl_sum{to=\"1f\"} 60\nttl_count{to=\"1f\"} 1\n");
}

/* The bounds of etcd_disk_wal_fsync_duration_seconds as dashboards ask for them. */
Test(histogram, bounds_are_written_as_etcd_writes_them)
{
    const char *bounds[] = {"0.001", "0.002", "0.004", "0.008", "0.016", "0.032", "0.064",
                            "0.128", "0.256", "0.512", "1.024", "2.048", "4.096", "8.192"};
    struct histogram h;
    struct buf b = BUF_INIT;

    histogram_init(&h, 1000, 14);
    histogram_render(&b, "f", NULL, &h);
    buf_add_byte(&b, '\0');

    for (size_t i = 0; i < ARRAY_LEN(bounds); i++) {
        char line[64];
        snprintf(line, sizeof(line), "le=\"%s\"} 0\n", bounds[i]);
        cr_assert_not_null(strstr((char *)b.data, line), "%s in %s", bounds[i], (char *)b.data);
    }
    buf_fini(&b);
}

static void init_too_many(void *arg)
{
    struct histogram h;
    histogram_init_unit(&h, 1, *(uint32_t *)arg, 1.0);
}

Test(histogram, the_number_of_buckets_has_a_limit)
{
    static struct child c;
    uint32_t counts[] = {HISTOGRAM_BUCKETS_MAX, HISTOGRAM_BUCKETS_MAX + 1, 0};
    int signals[] = {0, SIGABRT, SIGABRT};

    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        child_run(&c, init_too_many, &counts[i]);
        cr_assert_eq(c.signal, signals[i], "%u", counts[i]);
    }
}

Test(metrics, the_process_knows_its_own_numbers)
{
    struct process_usage before, after;

    process_usage_read(&before);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    process_usage_read(&after);

    cr_assert_eq(after.open_fds, before.open_fds + 1);
    cr_assert_gt(after.max_fds, after.open_fds);
    cr_assert_gt(after.resident_bytes, 100000);
    cr_assert_geq(after.virtual_bytes, after.resident_bytes);
    cr_assert_geq(after.cpu_seconds, before.cpu_seconds);
    cr_assert_lt(fabs(after.start_time_seconds - (double)time(NULL)), 60.0);
    close(fd);
}

Test(metrics, all_six_process_metrics_are_rendered_with_their_types)
{
    const char *names[] = {"resident_memory_bytes gauge",
                           "virtual_memory_bytes gauge",
                           "cpu_seconds_total counter",
                           "open_fds gauge",
                           "max_fds gauge",
                           "start_time_seconds gauge"};
    struct buf b = BUF_INIT;

    metrics_process(&b);
    buf_add_byte(&b, '\0');

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char line[80];
        snprintf(line, sizeof(line), "# TYPE process_%s\n", names[i]);
        cr_assert_not_null(strstr((char *)b.data, line), "%s", names[i]);
    }
    buf_fini(&b);
}

Test(metrics, a_counter_of_another_thread_is_read_as_it_was_written)
{
    uint64_t counter = 0;

    counter_add(&counter, 2);
    counter_add(&counter, 3);

    cr_assert_eq(counter_read(&counter), 5);
}
