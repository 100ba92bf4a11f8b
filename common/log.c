/* log - one line per event, in one write(2), so that lines of threads and of daemons that share a terminal
 * do not mix. Text that comes from outside (keys, names, peers' words) may hold control bytes: they are escaped here,
 * so that nobody can forge a line or drive the reader's terminal.
 *
 *     2026-01-31T12:00:00.123Z info  raftd raft: became leader, term 7, last 1042        (terminal, file)
 *     <6>raftd raft: became leader, term 7, last 1042                                    (systemd's journal)
 *     {"level":"info","ts":"2026-01-31T12:00:00.123Z","caller":"raftd/out.c:33","msg":"raft: became leader, term 7, last 1042"} */
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
static const char *const level_zap_words[] = {"error", "warn", "info", "debug", "debug"};
static const int level_priorities[] = {3, 4, 6, 7, 7}; /* of syslog(3); it has nothing below debug */

/* Set once by main before threads start, the level also later. */
static const char *log_program = "trine";
static bool log_to_journal;
static bool log_as_json;
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

void log_set_json(bool json)
{
    log_as_json = json;
}

static void write_time(char *text, size_t size)
{
    int64_t wall_ms = clock_wall_ms();
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    char date[32];

    gmtime_r(&seconds, &tm);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text, size, "%s.%03dZ", date, (int)(wall_ms % 1000));
}

/* What stands before the program's own words; returns its length. */
static size_t write_head(char *line, size_t size, enum log_level level)
{
    char date[48];

    if (log_to_journal)
        return (size_t)snprintf(line, size, "<%d>%s ", level_priorities[level], log_program);
    write_time(date, sizeof(date));
    return (size_t)snprintf(line, size, "%s %-5s %s ", date, level_words[level], log_program);
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

/* --- JSON ----------------------------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character at text; 0: there is none. */
static size_t utf8_len(const unsigned char *text)
{
    size_t len = text[0] < 0xc2 ? 0 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : text[0] < 0xf5 ? 4 : 0;

    for (size_t i = 1; i < len; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    }
    if (len >= 3 && ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] >= 0xa0) ||
                     (text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] >= 0x90)))
        return 0;
    return len;
}

/* Appends text as the inside of a JSON string; what is over size ends in "...". */
static size_t append_json(char *line, size_t len, size_t size, const char *text)
{
    while (*text != '\0' && len + 12 < size) {
        unsigned char byte = (unsigned char)*text;
        size_t wide = byte < 0x80 ? 1 : utf8_len((const unsigned char *)text);

        if (byte == '\n')
            len += (size_t)snprintf(line + len, size - len, "\\n");
        else if (byte == '"' || byte == '\\')
            len += (size_t)snprintf(line + len, size - len, "\\%c", byte);
        else if (byte < 0x20 || byte == 0x7f)
            len += (size_t)snprintf(line + len, size - len, "\\u%04x", byte);
        else if (wide == 0)
            len += (size_t)snprintf(line + len, size - len, "\\ufffd");
        else
            len += (size_t)snprintf(line + len, size - len, "%.*s", (int)wide, text);
        text += MAX(wide, (size_t)1);
    }
    if (*text != '\0')
        len += (size_t)snprintf(line + len, size - len, "...");
    return len;
}

/* "raftd/wal" of a text that begins with "wal: ", where no file is known. */
static size_t append_caller(char *line, size_t len, size_t size, const char *where, const char *text)
{
    size_t word = strcspn(text, ": ");

    if (where != NULL)
        return append_json(line, len, size, where);
    len = append_json(line, len, size, log_program);
    if (text[word] == ':' && word > 0 && word < 32)
        len += (size_t)snprintf(line + len, size - len, "/%.*s", (int)word, text);
    return len;
}

static size_t write_json(char *line, size_t size, const char *level, const char *where, const char *text, const char *reason)
{
    char date[48];

    write_time(date, sizeof(date));
    size_t len = (size_t)snprintf(line, size, "{\"level\":\"%s\",\"ts\":\"%s\",\"caller\":\"", level, date);

    len = append_caller(line, len, size / 4, where, text);
    len += (size_t)snprintf(line + len, size - len, "\",\"msg\":\"");
    len = append_json(line, len, size - 256, text);
    if (reason != NULL)
        len += (size_t)snprintf(line + len, size - len, "\",\"error\":\"%s", reason);
    return len + (size_t)snprintf(line + len, size - len, "\"}");
}

/* --- lines ------------------------------------------------------------------------------------------------------ */

/* errnum 0: no errno text. where NULL: unknown. end: the process ends with it. */
PRINTF_LIKE(5, 0)
static void log_line(enum log_level level, int errnum, const char *where, bool end, const char *fmt, va_list args)
{
    char text[LOG_LINE_BYTES_MAX], line[LOG_LINE_BYTES_MAX + 1], room[128];
    const char *reason = errnum == 0 ? NULL : strerror_r(errnum, room, sizeof(room));
    size_t len;

    vsnprintf(text, sizeof(text), fmt, args);
    if (log_as_json) {
        len = write_json(line, sizeof(line) - 1, end ? "fatal" : level_zap_words[level], where, text, reason);
    } else {
        len = write_head(line, sizeof(line) - 1, level);
        len = append_escaped(line, MIN(len, sizeof(line) / 2), sizeof(line) - 1, text);
        if (reason != NULL) {
            len = append_escaped(line, len, sizeof(line) - 1, ": ");
            len = append_escaped(line, len, sizeof(line) - 1, reason);
        }
    }
    line[len++] = '\n';
    log_put(level, log_program, line, len);
}

/* Cheap when the level is off, errno unchanged for the caller. */
void log_say(enum log_level level, bool with_errno, const char *where, const char *fmt, ...)
{
    if ((int)level > atomic_load_explicit(&log_level_now, memory_order_relaxed))
        return;
    int saved_errno = errno;
    va_list args;

    va_start(args, fmt);
    log_line(level, with_errno ? saved_errno : 0, where, false, fmt, args);
    va_end(args);
    errno = saved_errno;
}

/* _exit, not exit: other threads still run, and nothing that is half written may be flushed as if it were whole. */
_Noreturn void fatal(const char *fmt, ...)
{
    int saved_errno = errno;
    va_list args;

    va_start(args, fmt);
    log_line(LOG_L_ERROR, saved_errno, NULL, true, fmt, args);
    va_end(args);
    _exit(1);
}

_Noreturn void fatalx(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    log_line(LOG_L_ERROR, 0, NULL, true, fmt, args);
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
