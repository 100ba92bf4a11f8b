/* clock - the only reader of a clock. */
#include "common/clock.h"

#include <time.h>

static struct timespec read_clock(clockid_t which)
{
    struct timespec ts;

    must(clock_gettime(which, &ts) == 0); /* fails only for a wrong clock id */
    return ts;
}

uint64_t clock_now_ms(void)
{
    struct timespec ts = read_clock(CLOCK_MONOTONIC);

    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

uint64_t clock_now_us(void)
{
    struct timespec ts = read_clock(CLOCK_MONOTONIC);

    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

int64_t clock_wall_ms(void)
{
    struct timespec ts = read_clock(CLOCK_REALTIME);

    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}
