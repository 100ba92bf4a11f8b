/* log - one line per event on stderr, in one write(2), so that lines of threads and of daemons that share a terminal
 * do not mix. Text that comes from outside (keys, names, peers' words) may hold control bytes: they are escaped here,
 * so that nobody can forge a line or drive the reader's terminal.
 *
 *     2026-01-31T12:00:00.123Z info  raftd raft: became leader, term 7, last 1042        (terminal, file)
 *     <6>raftd raft: became leader, term 7, last 1042                                    (systemd's journal) */
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"

/* A line that is longer ends in "..."; below PIPE_BUF, up to which a pipe takes a write whole. */
#define LOG_LINE_BYTES_MAX 4000

static const char *const level_words[] = {"error", "warn", "info", "debug", "trace"};
static const int level_priorities[] = {3, 4, 6, 7, 7}; /* of syslog(3); it has nothing below debug */

/* Set once by main before threads start, the level also later. */
static const char *log_program = "trine";
static bool log_to_journal;
static atomic_int log_level_now = LOG_L_INFO;

void log_init(const char *program, enum log_level level)
{
    log_program = program;
    log_to_journal = getenv("JOURNAL_STREAM") != NULL;
    log_set_level(level);
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&log_level_now, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
    return (enum log_level)atomic_load_explicit(&log_level_now, memory_order_relaxed);
}

int log_level_parse(const char *word, enum log_level *level)
{
    for (size_t i = 0; i < ARRAY_LEN(level_words); i++) {
        if (strcmp(word, level_words[i]) == 0) {
            *level = (enum log_level)i;
            return OK;
        }
    }
    return E_INVALID;
}

/* What stands before the program's own words; returns its length. */
static size_t write_head(char *line, size_t size, enum log_level level)
{
    if (log_to_journal)
        return (size_t)snprintf(line, size, "<%d>%s ", level_priorities[level], log_program);

    int64_t wall_ms = clock_wall_ms();
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    char date[32];

    gmtime_r(&seconds, &tm);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    return (size_t)snprintf(line, size, "%s.%03dZ %-5s %s ", date, (int)(wall_ms % 1000), level_words[level],
                            log_program);
}

/* Appends text with control bytes as \n, \t or \x1b. Bytes from 0x80 on are left: they are UTF-8, mostly. */
static size_t append_escaped(char *line, size_t len, size_t size, const char *text)
{
    for (; *text != '\0' && len + 4 < size; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '\n')
            len += (size_t)snprintf(line + len, size - len, "\\n");
        else if (byte == '\t')
            len += (size_t)snprintf(line + len, size - len, "\\t");
        else if (byte < 0x20 || byte == 0x7f)
            len += (size_t)snprintf(line + len, size - len, "\\x%02x", byte);
        else
            line[len++] = (char)byte;
    }
    if (*text != '\0')
        memcpy(line + len - 3, "...", 3); /* there is always a head of more than three bytes */
    return len;
}

/* errnum 0: no errno text. */
PRINTF_LIKE(3, 0) static void log_line(enum log_level level, int errnum, const char *fmt, va_list args)
{
    char text[LOG_LINE_BYTES_MAX], line[LOG_LINE_BYTES_MAX + 1];

    vsnprintf(text, sizeof(text), fmt, args);
    size_t len = write_head(line, sizeof(line) - 1, level);
    len = append_escaped(line, MIN(len, sizeof(line) / 2), sizeof(line) - 1, text);
    if (errnum != 0) {
        char reason[128];
        const char *words = strerror_r(errnum, reason, sizeof(reason));
        len = append_escaped(line, len, sizeof(line) - 1, ": ");
        len = append_escaped(line, len, sizeof(line) - 1, words);
    }
    line[len++] = '\n';

    /* A log that cannot be written is not a reason to stop, and there is nobody to tell. */
    for (size_t done = 0; done < len;) {
        ssize_t n = write(STDERR_FILENO, line + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
}

/* The body of each public function: cheap when the level is off, errno unchanged for the caller. */
#define LOG_BODY(level, with_errno) \
    do { \
        if ((int)(level) > atomic_load_explicit(&log_level_now, memory_order_relaxed)) \
            return; \
        int saved_errno = errno; \
        va_list args; \
        va_start(args, fmt); \
        log_line(level, (with_errno) ? saved_errno : 0, fmt, args); \
        va_end(args); \
        errno = saved_errno; \
    } while (0)

void log_error(const char *fmt, ...)
{
    LOG_BODY(LOG_L_ERROR, false);
}

void log_warn(const char *fmt, ...)
{
    LOG_BODY(LOG_L_WARN, true);
}

void log_warnx(const char *fmt, ...)
{
    LOG_BODY(LOG_L_WARN, false);
}

void log_info(const char *fmt, ...)
{
    LOG_BODY(LOG_L_INFO, false);
}

void log_debug(const char *fmt, ...)
{
    LOG_BODY(LOG_L_DEBUG, false);
}

void log_trace(const char *fmt, ...)
{
    LOG_BODY(LOG_L_TRACE, false);
}

/* _exit, not exit: other threads still run, and nothing that is half written may be flushed as if it were whole. */
_Noreturn void fatal(const char *fmt, ...)
{
    int saved_errno = errno;
    va_list args;

    va_start(args, fmt);
    log_line(LOG_L_ERROR, saved_errno, fmt, args);
    va_end(args);
    _exit(1);
}

_Noreturn void fatalx(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    log_line(LOG_L_ERROR, 0, fmt, args);
    va_end(args);
    _exit(1);
}

bool log_allow(struct log_limit *l, uint64_t now_ms, uint64_t *swallowed)
{
    if (l->last_ms != 0 && now_ms < l->last_ms + LOG_LIMIT_MS) {
        l->swallowed++;
        return false;
    }
    *swallowed = l->swallowed;
    l->swallowed = 0;
    l->last_ms = MAX(now_ms, 1); /* 0 means: never yet */
    return true;
}
