/* metrics - numbers for Prometheus: histograms, and the text that all daemons answer /metrics with.
 * A counter or gauge is a plain uint64_t of its owner, rendered by metrics_u64. What one thread writes while another
 * one renders (the WAL thread's sync times) goes through counter_add and counter_read, or is a histogram: those are
 * safe with exactly one writing thread and any number of reading ones, and cost the writer nothing.
 *
 * One metric in the text is: metrics_help once, then one metrics_u64/_i64/_double/histogram_render per set of labels.
 * labels is the text between the braces, `action="put",to="1f"`, or NULL; values that come from outside go through
 * metrics_label, which escapes them. */
#ifndef COMMON_METRICS_H
#define COMMON_METRICS_H

#include "common/base.h"
#include "common/buf.h"

#define METRICS_COUNTER "counter"
#define METRICS_GAUGE "gauge"
#define METRICS_HISTOGRAM "histogram"

void metrics_help(struct buf *b, const char *name, const char *type, const char *help);
void metrics_u64(struct buf *b, const char *name, const char *labels, uint64_t value);
void metrics_i64(struct buf *b, const char *name, const char *labels, int64_t value);
void metrics_double(struct buf *b, const char *name, const char *labels, double value);

/* Appends name="value" to labels, with a comma in front unless it is the first. */
void metrics_label(struct buf *labels, const char *name, struct slice value);

/* A counter that one thread writes and others read. */
static inline void counter_add(uint64_t *counter, uint64_t more)
{
    __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

static inline uint64_t counter_read(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

#define HISTOGRAM_BUCKETS_MAX 24

/* Buckets at start * 2^k, k = 0 .. bucket_count-1, and one for what is above the last. */
struct histogram {
    uint64_t start;        /* upper bound of the first bucket, in the unit that is observed; > 0 */
    double scale;          /* one observed unit in the unit that is rendered: 1e-6 for us -> seconds */
    uint32_t bucket_count; /* 1 .. HISTOGRAM_BUCKETS_MAX */
    uint64_t sum;          /* of all observed values */
    uint64_t counts[HISTOGRAM_BUCKETS_MAX + 1]; /* per bucket, not cumulated */
};

/* Observed in microseconds, rendered in seconds: etcd's 0.001 * 2^k x 14 is histogram_init(h, 1000, 14). */
void histogram_init(struct histogram *h, uint64_t start_us, uint32_t bucket_count);
/* Any other unit: (h, 1, 24, 1.0) for etcd's lease TTLs in seconds. */
void histogram_init_unit(struct histogram *h, uint64_t start, uint32_t bucket_count, double scale);
void histogram_observe(struct histogram *h, uint64_t value);
void histogram_observe_us(struct histogram *h, uint64_t us); /* the same; says what is meant */
/* The name_bucket, name_sum and name_count lines; metrics_help comes before, by the caller. */
uint64_t histogram_count(const struct histogram *h); /* observations */
void histogram_render(struct buf *b, const char *name, const char *labels, const struct histogram *h);

/* process_resident_memory_bytes, process_virtual_memory_bytes, process_cpu_seconds_total, process_open_fds,
 * process_max_fds, process_start_time_seconds with their help lines, from /proc/self. What cannot be read is left out.
 */
void metrics_process(struct buf *b);

/* The values behind it, for a daemon that adds up its siblings. Zero where /proc says nothing. */
struct process_usage {
    uint64_t resident_bytes;
    uint64_t virtual_bytes;
    uint64_t open_fds;
    uint64_t max_fds;
    double cpu_seconds;
    double start_time_seconds; /* since the epoch */
};
void process_usage_read(struct process_usage *u);

#endif
