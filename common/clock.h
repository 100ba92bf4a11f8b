/* clock - the only reader of a clock. Called once per turn of a loop (see loop_now_ms); everybody else
 * is told the time as an argument, so that elections, leases and deadlines are tested by counting. */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include "common/base.h"

uint64_t clock_now_ms(void); /* CLOCK_MONOTONIC, milliseconds; never goes back */
uint64_t clock_now_us(void); /* the same clock in microseconds, for measuring durations */
int64_t clock_wall_ms(void); /* CLOCK_REALTIME, for log lines, metrics, and dates that others made */

#endif
