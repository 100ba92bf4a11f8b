/* conf_read - the two places a configuration comes from besides options: the file and the environment.
 * The file's grammar:
 *
 *     file    = *( line LF )
 *     line    = blanks [ comment / key blanks "=" blanks value ] blanks
 *     comment = ( "#" / ";" ) anything            on a line of its own
 *     value   = anything but control bytes, without quotes
 *
 * It is read by hand, not by inih: that one tells the first faulty line only, cuts long lines, and takes more than
 * the grammar above (sections, "key: value", continued lines) without a word. */
#include "common/conf.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "common/mem.h"

#define CONF_FILE_BYTES_MAX MIB

/* --- the file ------------------------------------------------------------------------------------------- */

/* Where a key was set in this file, to name both lines when it comes again. 0 = not yet. */
struct reader {
    struct conf *c;
    const char *path;
    struct buf *why;
    unsigned line_of[CONF_KEY_COUNT];
};

static char *trim(char *text)
{
    char *end = text + strlen(text);

    while (end > text && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
        *--end = '\0';
    while (*text == ' ' || *text == '\t')
        text++;
    return text;
}

static bool has_control_byte(const char *text)
{
    for (; *text != '\0'; text++) {
        if (((unsigned char)*text < 0x20 && *text != '\t') || *text == 0x7f)
            return true;
    }
    return false;
}

/* Two habits of other formats that would become part of the value here, unseen. NULL: neither. */
static const char *find_foreign(const char *value)
{
    size_t len = strlen(value);

    if (len >= 2 && (value[0] == '"' || value[0] == '\'') && value[len - 1] == value[0])
        return "write the value without quotes";
    for (const char *p = strpbrk(value, "#;"); p != NULL; p = strpbrk(p + 1, "#;")) {
        if (p == value || p[-1] == ' ' || p[-1] == '\t')
            return "a comment needs a line of its own";
    }
    return NULL;
}

static int read_pair(struct reader *r, unsigned line, const char *where, char *key, char *value)
{
    size_t pos = conf_key_pos(key);
    const char *foreign = find_foreign(value);

    if (pos == CONF_KEY_COUNT) /* which says that, and what it may have been meant for */
        return conf_set(r->c, key, value, where, r->why);
    if (r->line_of[pos] != 0) {
        buf_printf(r->why, "%s: %s: already set in line %u\n", where, key, r->line_of[pos]);
        return E_INVALID;
    }
    r->line_of[pos] = line;
    if (foreign != NULL) {
        buf_printf(r->why, "%s: %s: %s\n", where, key, foreign);
        return E_INVALID;
    }
    return conf_set(r->c, key, value, where, r->why);
}

/* text is one line without its LF, and is changed. */
static int read_line(struct reader *r, unsigned line, char *text, bool has_nul)
{
    char *where = xasprintf("%s line %u", r->path, line);
    char *start = trim(text), *equal = strchr(start, '=');
    int err = E_INVALID;

    if (has_nul || has_control_byte(start)) {
        buf_printf(r->why, "%s: holds control bytes: not a text file?\n", where);
    } else if (*start == '\0' || *start == '#' || *start == ';') {
        err = OK;
    } else if (*start == '[') {
        buf_printf(r->why, "%s: sections are not used here: \"%s\"\n", where, start);
    } else if (equal == NULL || equal == start) {
        buf_printf(r->why, "%s: \"%s\" is not KEY = VALUE\n", where, start);
    } else {
        *equal = '\0';
        err = read_pair(r, line, where, trim(start), trim(equal + 1));
    }
    free(where);
    return err;
}

int conf_read_file(struct conf *c, const char *path, struct buf *why)
{
    struct reader r = {.c = c, .path = path, .why = why};
    struct buf bytes = BUF_INIT;
    int err = file_read_all(path, CONF_FILE_BYTES_MAX, &bytes);

    if (err != OK) {
        buf_printf(why, "cannot read %s: %s\n", path, err == E_TOO_BIG ? "it is larger than 1 MiB" : strerror(errno));
        buf_fini(&bytes);
        return err;
    }
    buf_add_byte(&bytes, '\n'); /* the last line may lack it */

    /* All faults are told, not the first alone: one look at the file mends them. */
    char *text = (char *)bytes.data, *end = text + bytes.len;

    for (unsigned line = 1; text < end; line++) {
        char *eol = memchr(text, '\n', (size_t)(end - text));
        *eol = '\0';
        if (read_line(&r, line, text, strlen(text) != (size_t)(eol - text)) != OK)
            err = E_INVALID;
        text = eol + 1;
    }
    buf_fini(&bytes);
    return err;
}

/* --- the environment -------------------------------------------------------------------------------------- */

#define ENV_PREFIX "TRINE_"

/* Names with our prefix that are no keys: the file itself (opt.c), and what the tests tell each other. */
static const char *const env_others[] = {"TRINE_CONFIG_FILE", "TRINE_BUILD"};

/* TRINE_DATA_DIR -> data-dir. Given. */
static char *key_of_variable(struct slice variable)
{
    char *key = slice_dup_str(slice_of(variable.data + strlen(ENV_PREFIX), variable.len - strlen(ENV_PREFIX)));

    for (char *p = key; *p != '\0'; p++)
        *p = *p == '_' ? '-' : (char)tolower((unsigned char)*p);
    return key;
}

static char *variable_of_key(const char *key)
{
    char *variable = xasprintf(ENV_PREFIX "%s", key);

    for (char *p = variable; *p != '\0'; p++)
        *p = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
    return variable;
}

static bool is_other_variable(const char *variable)
{
    for (size_t i = 0; i < ARRAY_LEN(env_others); i++) {
        if (strcmp(env_others[i], variable) == 0)
            return true;
    }
    return false;
}

static void add_unknown_variable(struct buf *why, const char *variable, const char *key)
{
    const char *nearest = conf_nearest_key(key);

    buf_printf(why, "unknown environment variable %s", variable);
    if (nearest != NULL) {
        char *right = variable_of_key(nearest);
        buf_printf(why, "; did you mean %s?", right);
        free(right);
    }
    buf_add_byte(why, '\n');
}

/* entry is "TRINE_X=value", equal points to the sign. */
static int read_variable(struct conf *c, const char *entry, const char *equal, struct buf *why)
{
    struct slice name = slice_of(entry, (size_t)(equal - entry));
    char *variable = slice_dup_str(name), *key = key_of_variable(name), *canonical = variable_of_key(key);
    int err = OK;

    if (is_other_variable(variable)) {
        err = OK;
    } else if (!conf_has_key(key) || strcmp(canonical, variable) != 0) { /* TRINE_data-dir is not a name of ours */
        add_unknown_variable(why, variable, key);
        err = E_INVALID;
    } else if (equal[1] != '\0') { /* empty means unset, as in etcd */
        char *where = xasprintf("environment variable %s", variable);
        err = conf_set(c, key, equal + 1, where, why);
        free(where);
    }
    free(canonical);
    free(key);
    free(variable);
    return err;
}

int conf_read_env(struct conf *c, char *const envp[], struct buf *why)
{
    int result = OK;

    for (; envp != NULL && *envp != NULL; envp++) { /* environ is NULL after clearenv() */
        const char *equal = strchr(*envp, '=');
        if (equal == NULL || strncmp(*envp, ENV_PREFIX, strlen(ENV_PREFIX)) != 0)
            continue;
        if (read_variable(c, *envp, equal, why) != OK)
            result = E_INVALID;
    }
    return result;
}
