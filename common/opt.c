/* opt - from argv to a finished configuration, or to an exit with a reason.
 * The command line is read twice: first for -c and the other short options, then, after file and environment, for the
 * keys, because options win. Options are not abbreviated: a new key must not change what an old line means. */
#include "common/opt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"

#define DEFAULT_FILE "/etc/trine/trine.conf"
#define FILE_VARIABLE "TRINE_CONFIG_FILE"

enum { EXIT_WRONG_CONFIG = 1, EXIT_WRONG_OPTION = 2 };

struct options {
    const char *program; /* for messages: the last part of argv[0] */
    const char *file;    /* -c; NULL if not given */
    bool check_only;     /* -t */
    int words;           /* -v, counted */
    char **pairs;        /* key, value, key, value: what stood as --KEY VALUE; keys are ours, values argv's */
    size_t pair_count;
    struct conf *conf; /* what is being filled */
    struct buf why;    /* what is wrong with it, a line each */
};

static void free_pairs(struct options *o)
{
    for (size_t i = 0; i < o->pair_count; i++)
        free(o->pairs[2 * i]);
    free(o->pairs);
    o->pairs = NULL;
    o->pair_count = 0;
}

/* The way out of all that end here. Frees, so that a leak checker has nothing to say about a wrong option. */
static _Noreturn void leave(struct options *o, int code)
{
    free_pairs(o);
    buf_fini(&o->why);
    conf_fini(o->conf);
    exit(code);
}

static _Noreturn void wrong_option(struct options *o)
{
    fprintf(stderr, "%s: try %s --help\n", o->program, o->program);
    leave(o, EXIT_WRONG_OPTION);
}

static void add_pair(struct options *o, char *key, char *value)
{
    o->pairs = xrealloc(o->pairs, (o->pair_count + 1) * 2 * sizeof(char *));
    o->pairs[2 * o->pair_count] = key;
    o->pairs[2 * o->pair_count + 1] = value;
    o->pair_count++;
}

static bool is_bool_word(const char *text)
{
    return text != NULL && (strcmp(text, "true") == 0 || strcmp(text, "false") == 0);
}

/* name is taken. */
static _Noreturn void unknown_long(struct options *o, char *name)
{
    const char *nearest = conf_nearest_key(name);

    fprintf(stderr, "%s: unknown option --%s", o->program, name);
    if (nearest != NULL)
        fprintf(stderr, "; did you mean --%s?", nearest);
    fprintf(stderr, "\n");
    free(name);
    wrong_option(o);
}

static _Noreturn void print_version(struct options *o)
{
    printf("%s %s (API of etcd %s)\n", o->program, TRINE_VERSION, TRINE_API_VERSION);
    leave(o, 0);
}

static _Noreturn void print_help(struct options *o)
{
    conf_print_help(o->program);
    leave(o, 0);
}

/* text is what stands behind the "--". Returns how many further arguments it used: 0 or 1. */
static int read_long(struct options *o, const char *text, char *next)
{
    static char word_true[] = "true";
    if (strcmp(text, "help") == 0)
        print_help(o);
    if (strcmp(text, "version") == 0)
        print_version(o);
    const char *equal = strchr(text, '=');
    char *name = equal == NULL ? xstrdup(text) : slice_dup_str(slice_of(text, (size_t)(equal - text)));
    char *value = equal == NULL ? NULL : (char *)(uintptr_t)(equal + 1);
    bool is_file = strcmp(name, "config-file") == 0;
    int used = 0;

    if (!is_file && !conf_has_key(name))
        unknown_long(o, name);

    if (value == NULL && conf_is_bool(name)) { /* --pre-vote alone is true */
        used = is_bool_word(next);
        value = used ? next : word_true;
    } else if (value == NULL) {
        if (next == NULL) {
            fprintf(stderr, "%s: option --%s needs a value\n", o->program, name);
            free(name);
            wrong_option(o);
        }
        value = next;
        used = 1;
    }
    if (is_file) {
        o->file = value;
        free(name);
    } else {
        add_pair(o, name, value);
    }
    return used;
}

/* text is a run of short options, "tv" or "cFILE". Returns how many further arguments it used: 0 or 1. */
static int read_short(struct options *o, const char *text, const char *next)
{
    for (const char *p = text; *p != '\0'; p++) {
        switch (*p) {
        case 'c':
            if (p[1] != '\0') {
                o->file = p + 1;
                return 0;
            }
            if (next == NULL) {
                fprintf(stderr, "%s: option -c needs a file\n", o->program);
                wrong_option(o);
            }
            o->file = next;
            return 1;
        case 't':
            o->check_only = true;
            break;
        case 'f':
            break;
        case 'v':
            o->words++;
            break;
        case 'V':
            print_version(o);
        case 'h':
            print_help(o);
        default:
            fprintf(stderr, "%s: unknown option -%s", o->program, text);
            if (p == text && text[1] != '\0' && conf_nearest_key(text) != NULL)
                fprintf(stderr, "; did you mean --%s?", conf_nearest_key(text));
            fprintf(stderr, "\n");
            wrong_option(o);
        }
    }
    return 0;
}

static void read_options(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (strncmp(argv[i], "--", 2) == 0 && argv[i][2] != '\0') {
            i += read_long(o, argv[i] + 2, next);
        } else if (argv[i][0] == '-' && argv[i][1] != '-' && argv[i][1] != '\0') {
            i += read_short(o, argv[i] + 1, next);
        } else {
            fprintf(stderr, "%s: \"%s\" is not a valid flag\n", o->program, argv[i]);
            wrong_option(o);
        }
    }
}

/* Each line of why, led by the program's name, on stderr. */
static _Noreturn void refuse(struct options *o, int code)
{
    const char *line = (const char *)o->why.data, *end = line + o->why.len;

    while (line < end) {
        const char *eol = memchr(line, '\n', (size_t)(end - line));
        int len = (int)((eol == NULL ? end : eol) - line);
        fprintf(stderr, "%s: %.*s\n", o->program, len, line);
        line += len + 1;
    }
    leave(o, code);
}

/* -c, else the variable, else the default if it exists; NULL: none. */
static const char *find_file(const struct options *o)
{
    const char *variable = getenv(FILE_VARIABLE);

    if (o->file != NULL)
        return o->file;
    if (variable != NULL && variable[0] != '\0')
        return variable;
    return access(DEFAULT_FILE, F_OK) == 0 ? DEFAULT_FILE : NULL;
}

static void set_pairs(struct options *o)
{
    int err = OK;

    for (size_t i = 0; i < o->pair_count; i++) {
        char *where = xasprintf("--%s", o->pairs[2 * i]);
        if (conf_set(o->conf, o->pairs[2 * i], o->pairs[2 * i + 1], where, &o->why) != OK)
            err = E_INVALID;
        free(where);
    }
    if (err != OK)
        refuse(o, EXIT_WRONG_OPTION);
}

static void start_log(struct options *o)
{
    enum log_level level = LOG_L_ERROR; /* also for etcd's panic and fatal, which have no lines of their own here */

    struct log_rotation rotation;

    (void)log_level_parse(o->conf->log_level, &level);
    int err = conf_log_rotation(o->conf, &rotation, &o->why);

    must(err == OK); /* conf_finish has asked before */
    if (log_open(o->conf->log_outputs, &rotation, &o->why) != OK) {
        fprintf(stderr, "%s: log-outputs: %.*s\n", o->program, (int)o->why.len, (const char *)o->why.data);
        leave(o, EXIT_WRONG_CONFIG);
    }
    log_set_json(strcmp(o->conf->log_format, "json") == 0);
    log_init(o->program, (enum log_level)MIN((int)level + o->words, (int)LOG_L_TRACE));
}

static _Noreturn void report_good(struct options *o, const char *path)
{
    struct buf text = BUF_INIT;

    if (o->words > 0)
        conf_show(o->conf, &text);
    buf_printf(&text, "%s: configuration is good (%s)\n", o->program, path == NULL ? "no file" : path);
    fwrite(text.data, 1, text.len, stdout);
    buf_fini(&text);
    leave(o, 0);
}

void opt_load(struct conf *c, int argc, char **argv)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    struct options o = {.program = argc == 0 ? "trine" : slash == NULL ? argv[0] : slash + 1, .conf = c};

    conf_init(c);
    read_options(&o, argc, argv);
    const char *path = find_file(&o);
    int file_err = path == NULL ? OK : conf_read_file(c, path, &o.why);
    int env_err = conf_read_env(c, environ, &o.why);

    if (file_err != OK || env_err != OK)
        refuse(&o, EXIT_WRONG_CONFIG);
    set_pairs(&o);
    if (conf_finish(c, &o.why) != OK)
        refuse(&o, EXIT_WRONG_CONFIG);
    if (o.check_only)
        report_good(&o, path);
    start_log(&o);
    free_pairs(&o);
    buf_fini(&o.why);
}
