/* auto_compact - when to compact by itself, and to which revision; pure, time is an argument.
 * Called by the tick of upkeep.c, which proposes the compaction if we lead. Rules: spec/surface.md §11.
 *
 *      revision    every 5 minutes: current - retention
 *      periodic    the revision is sampled every min(retention, 1 h) / 10; the samples cover one retention. When the window is full,
 *                  every min(retention, 1 h) the oldest sample is compacted to.
 *                  retention 30 m:  samples every 3 m, window of 10; compacts every 30 m to what was current 30 m before
 *                  retention 24 h:  samples every 6 m, window of 240; compacts every hour to what was current 24 h before
 *
 * Members that do not lead sample as well, so that a new leader knows the past. */
#include "stored/stored.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"

#define HOUR_MS 3600000u
#define REVISION_CHECK_MS 300000u
#define SAMPLES_PER_PERIOD 10

struct auto_compact {
    bool by_revision;
    int64_t retention_revs;
    uint64_t period_ms;  /* between compactions */
    uint64_t sample_ms;  /* between samples */
    uint64_t next_ms;    /* of the next sample, or check */
    uint64_t compact_ms; /* not before */
    int64_t *samples;    /* periodic: the last `window`, circular */
    size_t window, count, pos;
    int64_t done_rev; /* compacted to, as far as we know */
};

/* A bare number is hours; else Go duration text. */
static uint64_t parse_retention_ms(const char *text)
{
    char *end;
    uint64_t ms;

    errno = 0;
    ms = strtoull(text, &end, 10);
    if (*text && !*end && errno == 0)
        return ms > UINT64_MAX / HOUR_MS ? UINT64_MAX : ms * HOUR_MS;
    if (conf_parse_duration(text, &ms) != 0)
        fatalx("auto-compaction-retention: \"%s\" is neither hours nor a duration like 30m", text);
    return ms;
}

static int64_t parse_retention_revs(const char *text)
{
    char *end;
    long long revs;

    errno = 0;
    revs = strtoll(text, &end, 10);
    if (!*text || *end || errno || revs < 0)
        fatalx("auto-compaction-retention: \"%s\" is not a count of revisions", text);
    return revs;
}

struct auto_compact *auto_compact_new(const struct conf *conf, uint64_t now_ms)
{
    struct auto_compact *a = xcalloc(1, sizeof *a);
    uint64_t retention_ms;

    a->by_revision = strcmp(conf->auto_compaction_mode, "revision") == 0;
    if (a->by_revision) {
        a->retention_revs = parse_retention_revs(conf->auto_compaction_retention);
        a->sample_ms = a->retention_revs ? REVISION_CHECK_MS : 0;
        a->next_ms = now_ms + a->sample_ms;
        return a;
    }
    retention_ms = parse_retention_ms(conf->auto_compaction_retention);
    if (!retention_ms)
        return a;
    a->period_ms = MIN(retention_ms, HOUR_MS);
    a->sample_ms = MAX(a->period_ms / SAMPLES_PER_PERIOD, 1);
    a->window = (size_t)MAX(MIN(retention_ms / a->sample_ms, 1000000), 1);
    a->samples = xcalloc(a->window, sizeof *a->samples);
    a->next_ms = now_ms;
    a->compact_ms = now_ms + a->period_ms;
    return a;
}

void auto_compact_free(struct auto_compact *a)
{
    if (!a)
        return;
    free(a->samples);
    free(a);
}

static int64_t worth_it(struct auto_compact *a, int64_t target, bool leading)
{
    if (!leading || target <= a->done_rev || target <= 1)
        return 0;
    a->done_rev = target;
    return target;
}

static int64_t periodic_tick(struct auto_compact *a, uint64_t now_ms, int64_t rev, bool leading)
{
    bool full = a->count == a->window;
    int64_t oldest = a->samples[a->pos]; /* when full: about to be replaced, one window old */

    a->samples[a->pos] = rev;
    a->pos = (a->pos + 1) % a->window;
    if (!full) {
        a->count++;
        return 0;
    }
    if (now_ms < a->compact_ms)
        return 0;
    a->compact_ms = now_ms + a->period_ms;
    return worth_it(a, oldest, leading);
}

int64_t auto_compact_tick(struct auto_compact *a, uint64_t now_ms, int64_t rev, bool leading)
{
    if (!a->sample_ms || now_ms < a->next_ms)
        return 0;
    a->next_ms = now_ms + a->sample_ms;
    if (a->by_revision)
        return worth_it(a, rev - a->retention_revs, leading);
    return periodic_tick(a, now_ms, rev, leading);
}
