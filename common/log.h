/* log - one event, one line: time, level, program, then "module: facts as words and numbers"; or the same as JSON.
 * On stderr, until log_open (log_out.c) says otherwise. Under systemd (JOURNAL_STREAM set) lines to read on stderr go without
 * time, and "<N>" priorities lead them.
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

/* Lines as etcd's: {"level":"info","ts":"...","caller":"raftd/turn.c:33","msg":"..."}. */
void log_set_json(bool json);

#define LOG_TEXT_(x) #x
#define LOG_LINE_(x) LOG_TEXT_(x)
#define LOG_WHERE __FILE__ ":" LOG_LINE_(__LINE__)
#define log_error(...) log_say(LOG_L_ERROR, false, LOG_WHERE, __VA_ARGS__) /* no errno text */
#define log_warn(...) log_say(LOG_L_WARN, true, LOG_WHERE, __VA_ARGS__)
#define log_warnx(...) log_say(LOG_L_WARN, false, LOG_WHERE, __VA_ARGS__)
#define log_info(...) log_say(LOG_L_INFO, false, LOG_WHERE, __VA_ARGS__)
#define log_debug(...) log_say(LOG_L_DEBUG, false, LOG_WHERE, __VA_ARGS__)
#define log_trace(...) log_say(LOG_L_TRACE, false, LOG_WHERE, __VA_ARGS__)
/* where: "file:line". */
void log_say(enum log_level level, bool with_errno, const char *where, const char *fmt, ...) PRINTF_LIKE(4, 5);
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

/* --- where lines go (log_out.c) ------------------------------------------------------------------------------- */

/* When a log file is full, and what becomes of it: NAME-2026-01-31T12-00-00.000.EXT. */
struct log_rotation {
    uint64_t bytes_max;  /* of one file; 0 = it is never full */
    uint64_t days_max;   /* that an old file is kept; 0 = for ever */
    uint64_t files_max;  /* old files that are kept; 0 = all */
    bool local_time;     /* in their names */
};

/* outputs: comma list of default, stderr, stdout, systemd/journal and files. Opens them all or none: then appends the reason
 * to why without a newline and returns E_INVALID or E_IO. Once, before threads start. Several processes may have the same file,
 * with the same rotation: who finds it full sets it aside, the others follow. */
struct buf;
int log_open(const char *outputs, const struct log_rotation *rotation, struct buf *why);
/* One line, its LF included, to all outputs. A log that cannot be written is no reason to stop, and there is nobody to tell. */
void log_put(enum log_level level, const char *program, const char *line, size_t len);

#endif
