/* metrics - Prometheus text (version 0.0.4) and what a process knows of itself.
 * Format: https://prometheus.io/docs/instrumenting/exposition_formats/; names of process_* as in its client libraries.
 */
#include "common/metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/mem.h"

/* /proc/self/stat is one line, /proc/stat grows with the number of CPUs and interrupts. */
#define PROC_BYTES_MAX ((size_t)4 * 1024 * 1024)

void metrics_help(struct buf *b, const char *name, const char *type, const char *help)
{
    buf_printf(b, "# HELP %s ", name);
    for (; *help != '\0'; help++) {
        if (*help == '\\')
            buf_add_str(b, "\\\\");
        else if (*help == '\n')
            buf_add_str(b, "\\n");
        else
            buf_add_byte(b, (uint8_t)*help);
    }
    buf_printf(b, "\n# TYPE %s %s\n", name, type);
}

static void add_name(struct buf *b, const char *name, const char *labels)
{
    buf_add_str(b, name);
    if (labels != NULL && *labels != '\0')
        buf_printf(b, "{%s}", labels);
    buf_add_byte(b, ' ');
}

/* The shortest of a few forms that reads back as the same number: 0.001, not 0.001000000000000000021. */
static void add_double(struct buf *b, double value)
{
    char text[40];

    if (isnan(value)) {
        buf_add_str(b, "NaN");
        return;
    }
    if (isinf(value)) {
        buf_add_str(b, value > 0 ? "+Inf" : "-Inf");
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    buf_add_str(b, text);
}

void metrics_u64(struct buf *b, const char *name, const char *labels, uint64_t value)
{
    add_name(b, name, labels);
    buf_printf(b, "%" PRIu64 "\n", value);
}

void metrics_i64(struct buf *b, const char *name, const char *labels, int64_t value)
{
    add_name(b, name, labels);
    buf_printf(b, "%" PRId64 "\n", value);
}

void metrics_double(struct buf *b, const char *name, const char *labels, double value)
{
    add_name(b, name, labels);
    add_double(b, value);
    buf_add_byte(b, '\n');
}

void metrics_label(struct buf *labels, const char *name, struct slice value)
{
    if (labels->len > 0)
        buf_add_byte(labels, ',');
    buf_printf(labels, "%s=\"", name);
    for (size_t i = 0; i < value.len; i++) {
        uint8_t byte = value.data[i];
        if (byte == '\\' || byte == '"')
            buf_printf(labels, "\\%c", byte);
        else if (byte == '\n')
            buf_add_str(labels, "\\n");
        else if (byte < 0x20 || byte >= 0x7f) /* must be UTF-8, which nobody promised: '?' keeps the text valid */
            buf_add_byte(labels, '?');
        else
            buf_add_byte(labels, byte);
    }
    buf_add_byte(labels, '"');
}

/* --- histograms --------------------------------------------------------------------------------- */

void histogram_init_unit(struct histogram *h, uint64_t start, uint32_t bucket_count, double scale)
{
    must(start > 0 && bucket_count > 0 && bucket_count <= HISTOGRAM_BUCKETS_MAX);
    must(start <= UINT64_MAX >> bucket_count); /* the last bound does not overflow */
    *h = (struct histogram){.start = start, .scale = scale, .bucket_count = bucket_count};
}

void histogram_init(struct histogram *h, uint64_t start_us, uint32_t bucket_count)
{
    histogram_init_unit(h, start_us, bucket_count, 1e-6);
}

void histogram_observe(struct histogram *h, uint64_t value)
{
    uint32_t k = 0;

    while (k < h->bucket_count && value > h->start << k) /* a bound belongs to its bucket: le */
        k++;
    counter_add(&h->counts[k], 1);
    counter_add(&h->sum, value);
}

void histogram_observe_us(struct histogram *h, uint64_t us)
{
    histogram_observe(h, us);
}

/* 1e-6 is not a binary fraction: rounded to 15 digits, so that 1000 us are 0.001 and not 0.00099999999999999. */
static double scaled(uint64_t value, double scale)
{
    char text[40];

    snprintf(text, sizeof(text), "%.15g", (double)value * scale);
    return strtod(text, NULL);
}

/* One name_bucket line; le stands behind the other labels, as in Prometheus' own libraries. */
static void add_bucket(struct buf *b, const char *name, const char *labels, double bound, uint64_t count)
{
    buf_printf(b, "%s_bucket{", name);
    if (labels != NULL && *labels != '\0')
        buf_printf(b, "%s,", labels);
    buf_add_str(b, "le=\"");
    add_double(b, bound);
    buf_printf(b, "\"} %" PRIu64 "\n", count);
}

uint64_t histogram_count(const struct histogram *h)
{
    uint64_t total = 0;

    for (uint32_t k = 0; k <= h->bucket_count; k++)
        total += counter_read(&h->counts[k]);
    return total;
}

/* While another thread observes, the lines may be one observation apart; _count is made from the buckets and therefore
 * always equals the last of them, which is what readers check. */
void histogram_render(struct buf *b, const char *name, const char *labels, const struct histogram *h)
{
    uint64_t sum = counter_read(&h->sum), total = 0;

    for (uint32_t k = 0; k < h->bucket_count; k++) {
        total += counter_read(&h->counts[k]);
        add_bucket(b, name, labels, scaled(h->start << k, h->scale), total);
    }
    total += counter_read(&h->counts[h->bucket_count]);
    add_bucket(b, name, labels, INFINITY, total);

    char *sum_name = xasprintf("%s_sum", name), *count_name = xasprintf("%s_count", name);

    metrics_double(b, sum_name, labels, scaled(sum, h->scale));
    metrics_u64(b, count_name, labels, total);
    free(sum_name);
    free(count_name);
}

/* --- the process ----------------------------------------------------------------------------------- */

/* The numbers of /proc/self/stat from field first on (counted from 1 as in proc(5)) into values. The second field is
 * the program's name in parentheses, which may itself hold blanks and parentheses: counting starts behind the last one.
 */
static bool read_stat_fields(unsigned first, uint64_t *values, size_t count)
{
    struct buf text = BUF_INIT;
    bool found = false;

    if (file_read_all("/proc/self/stat", PROC_BYTES_MAX, &text) == OK) {
        buf_add_byte(&text, '\0');
        char *p = strrchr((char *)text.data, ')');
        unsigned field = 2;
        while (p != NULL && field < first) {
            p = strchr(p + 1, ' ');
            field++;
        }
        for (size_t i = 0; p != NULL && i < count; i++)
            values[i] = strtoull(p, &p, 10);
        found = p != NULL;
    }
    buf_fini(&text);
    return found;
}

/* When this machine started, in seconds since the epoch; 0 if unknown. */
static double boot_time_seconds(void)
{
    struct buf text = BUF_INIT;
    double seconds = 0;

    if (file_read_all("/proc/stat", PROC_BYTES_MAX, &text) == OK) {
        buf_add_byte(&text, '\0');
        const char *line = strstr((char *)text.data, "\nbtime ");
        if (line != NULL)
            seconds = strtod(line + strlen("\nbtime "), NULL);
    }
    buf_fini(&text);
    return seconds;
}

static uint64_t count_open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    uint64_t count = 0;

    if (dir == NULL)
        return 0;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (entry->d_name[0] != '.')
            count++;
    }
    closedir(dir);
    return count - 1; /* the directory's own */
}

void process_usage_read(struct process_usage *u)
{
    enum { UTIME, STIME, STARTTIME = 8, VSIZE, RSS, FIELDS }; /* from field 14 on */
    uint64_t fields[FIELDS];
    double ticks = (double)sysconf(_SC_CLK_TCK);
    struct rlimit limit;

    *u = (struct process_usage){0};
    if (read_stat_fields(14, fields, FIELDS)) {
        u->cpu_seconds = (double)(fields[UTIME] + fields[STIME]) / ticks;
        u->virtual_bytes = fields[VSIZE];
        u->resident_bytes = fields[RSS] * (uint64_t)sysconf(_SC_PAGESIZE);
        double boot = boot_time_seconds();
        if (boot > 0)
            u->start_time_seconds = boot + (double)fields[STARTTIME] / ticks;
    }
    u->open_fds = count_open_fds();
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        u->max_fds = limit.rlim_cur;
}

void metrics_process(struct buf *b)
{
    struct process_usage u;

    process_usage_read(&u);
    if (u.virtual_bytes > 0) {
        metrics_help(b, "process_cpu_seconds_total", METRICS_COUNTER,
                     "Total user and system CPU time spent in seconds.");
        metrics_double(b, "process_cpu_seconds_total", NULL, u.cpu_seconds);
        metrics_help(b, "process_resident_memory_bytes", METRICS_GAUGE, "Resident memory size in bytes.");
        metrics_u64(b, "process_resident_memory_bytes", NULL, u.resident_bytes);
        metrics_help(b, "process_virtual_memory_bytes", METRICS_GAUGE, "Virtual memory size in bytes.");
        metrics_u64(b, "process_virtual_memory_bytes", NULL, u.virtual_bytes);
    }
    if (u.start_time_seconds > 0) {
        metrics_help(b, "process_start_time_seconds", METRICS_GAUGE,
                     "Start time of the process since unix epoch in seconds.");
        metrics_double(b, "process_start_time_seconds", NULL, u.start_time_seconds);
    }
    if (u.open_fds > 0) {
        metrics_help(b, "process_open_fds", METRICS_GAUGE, "Number of open file descriptors.");
        metrics_u64(b, "process_open_fds", NULL, u.open_fds);
    }
    if (u.max_fds > 0) {
        metrics_help(b, "process_max_fds", METRICS_GAUGE, "Maximum number of open file descriptors.");
        metrics_u64(b, "process_max_fds", NULL, u.max_fds);
    }
}
