/* log - one event, one line on stderr: time, level, program, then "module: facts as words and numbers".
 * Under systemd (JOURNAL_STREAM set) the time is left out and "<N>" priorities lead the line.
 * Thread-safe. log_warn and fatal add the text of errno, the x forms do not. fatal ends the process
 * with exit code 1 for what the world did; our own bugs use must(). */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include "common/base.h"

enum log_level { LOG_L_ERROR, LOG_L_WARN, LOG_L_INFO, LOG_L_DEBUG, LOG_L_TRACE };

void log_init(const char *program, enum log_level level);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
int log_level_parse(const char *word, enum log_level *level); /* 0 or E_INVALID */

void log_error(const char *fmt, ...) PRINTF_LIKE(1, 2); /* no errno text */
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_warnx(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_debug(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_trace(const char *fmt, ...) PRINTF_LIKE(1, 2);
_Noreturn void fatal(const char *fmt, ...) PRINTF_LIKE(1, 2);
_Noreturn void fatalx(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* Rate limit for repeated faults of others: true if this occurrence should be logged; *swallowed is then
 * how many were not since the last one that was. One struct per kind of fault, zero-initialised. */
#define LOG_LIMIT_MS 5000 /* one line of a kind in this time: enough to see that it goes on */
struct log_limit {
    uint64_t last_ms;   /* when one was logged, 0 = never */
    uint64_t swallowed; /* since then */
};
bool log_allow(struct log_limit *l, uint64_t now_ms, uint64_t *swallowed);

#endif
