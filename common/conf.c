/* conf - one table of keys, filled from defaults, a file, the environment and options, in this order.
 * Every value goes through conf_set, wherever it comes from: there is one check and one wording for each.
 * conf_read.c brings file and environment, opt.c the options; what spans keys is in conf_finish.c, how durations and
 * URLs are read in conf_parse.c. */
#include "common/conf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"

/* Words longer than this are no misspelt keys. */
#define KEY_BYTES_MAX 64

enum key_type { KEY_STR, KEY_U64, KEY_I64, KEY_BOOL, KEY_DUR, KEY_MS };

struct key {
    const char *name;
    const char *def;
    const char *help;
    size_t offset; /* of the member in struct conf */
    uint64_t min;  /* min and max of I64 are int64_t in disguise */
    uint64_t max;
    enum key_type type;
};

static const struct key keys[] = {
#define KEY_ROW(type, member, key, def, min, max, help) \
    {key, def, help, offsetof(struct conf, member), (uint64_t)(min), (uint64_t)(max), KEY_##type},
    CONF_KEYS(KEY_ROW)
#undef KEY_ROW
};
_Static_assert(ARRAY_LEN(keys) == CONF_KEY_COUNT && CONF_KEY_COUNT <= 8 * sizeof(((struct conf *)NULL)->given),
               "struct conf.given has one bit per key");

static const struct key *find_key(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    }
    return NULL;
}

bool conf_has_key(const char *key)
{
    return find_key(key) != NULL;
}

size_t conf_key_pos(const char *key)
{
    const struct key *k = find_key(key);

    return k == NULL ? CONF_KEY_COUNT : (size_t)(k - keys);
}

bool conf_is_bool(const char *key)
{
    const struct key *k = find_key(key);

    return k != NULL && k->type == KEY_BOOL;
}

const char *conf_help(const char *key)
{
    const struct key *k = find_key(key);

    return k == NULL ? "" : k->help;
}

bool conf_range(const char *key, uint64_t *min, uint64_t *max)
{
    const struct key *k = find_key(key);

    if (k == NULL || (k->type != KEY_U64 && k->type != KEY_DUR && k->type != KEY_MS))
        return false;
    *min = k->min;
    *max = k->max;
    return true;
}

bool conf_is_given(const struct conf *c, const char *key)
{
    const struct key *k = find_key(key);

    must(k != NULL);
    return (c->given[(k - keys) / 8] >> ((k - keys) % 8)) & 1;
}

/* Changes of one letter that lead from a to b (Levenshtein). Both at most KEY_BYTES_MAX long. */
static size_t distance(const char *a, const char *b)
{
    size_t row[KEY_BYTES_MAX + 1], b_len = strlen(b);

    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = MIN(replaced, MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_len];
}

const char *conf_nearest_key(const char *word)
{
    const struct key *nearest = NULL;
    size_t word_len = strlen(word), least = SIZE_MAX;

    if (word_len == 0 || word_len > KEY_BYTES_MAX)
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(keys) && word_len > 3; i++) {
        if (strstr(keys[i].name, word) != NULL) /* "heartbeat": half of the name, spelt right */
            return keys[i].name;
    }
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        size_t changes = distance(word, keys[i].name);
        if (changes < least) {
            least = changes;
            nearest = &keys[i];
        }
    }
    /* With more than a third of the letters changed it would be another word. */
    return least <= MAX(strlen(nearest->name), word_len) / 3 + 1 ? nearest->name : NULL;
}

/* --- values ------------------------------------------------------------------------------------------ */

static bool parse_u64(const char *text, uint64_t *value)
{
    *value = 0;
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(*value, 10, value) ||
            __builtin_add_overflow(*value, (uint64_t)(*text - '0'), value))
            return false;
    }
    return true;
}

static bool parse_i64(const char *text, int64_t *value)
{
    bool negative = *text == '-';
    uint64_t size;

    if (!parse_u64(text + negative, &size) || size > (uint64_t)INT64_MAX + negative)
        return false;
    *value = negative ? (int64_t)(0 - size) : (int64_t)size;
    return true;
}

/* The words of Go's flag package, which etcd's users know. */
static bool parse_bool(const char *text, bool *value)
{
    static const char *const words[2][6] = {{"false", "0", "f", "F", "FALSE", "False"},
                                            {"true", "1", "t", "T", "TRUE", "True"}};

    for (size_t v = 0; v < 2; v++) {
        for (size_t i = 0; i < ARRAY_LEN(words[v]); i++) {
            if (strcmp(text, words[v][i]) == 0) {
                *value = v == 1;
                return true;
            }
        }
    }
    return false;
}

/* 5400000 -> "1h30m". */
static void add_duration(struct buf *out, uint64_t ms)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } parts[] = {{"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

    if (ms == 0)
        buf_add_str(out, "0");
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (ms >= parts[i].ms)
            buf_printf(out, "%" PRIu64 "%s", ms / parts[i].ms, parts[i].name);
        ms %= parts[i].ms;
    }
}

/* " (1..10000)", " (100ms or more)", or nothing if every value of the type is good. */
static void add_range(struct buf *out, const struct key *k)
{
    bool duration = k->type == KEY_DUR;

    if (k->type == KEY_I64 || (k->max == UINT64_MAX && k->min == 0))
        return;
    buf_add_str(out, " (");
    if (duration)
        add_duration(out, k->min);
    else
        buf_printf(out, "%" PRIu64, k->min);
    if (k->max == UINT64_MAX) {
        buf_add_str(out, " or more");
    } else {
        buf_add_str(out, "..");
        if (duration)
            add_duration(out, k->max);
        else
            buf_printf(out, "%" PRIu64, k->max);
    }
    buf_add_byte(out, ')');
}

static int out_of_range(const struct key *k, const char *value, struct buf *why)
{
    buf_printf(why, "\"%s\" is out of range", value);
    add_range(why, k);
    return E_INVALID;
}

static int bad_value(const struct key *k, const char *value, struct buf *why)
{
    static const char *const kinds[] = {
        [KEY_STR] = "is not a text",
        [KEY_U64] = "is not a number",
        [KEY_I64] = "is not a whole number",
        [KEY_BOOL] = "is neither true nor false",
        [KEY_DUR] = "is not a duration like 10m, 1h30m or 100ms",
        [KEY_MS] = "is not a number of milliseconds",
    };

    buf_printf(why, "\"%s\" %s", value, kinds[k->type]);
    if (k->type != KEY_BOOL)
        add_range(why, k);
    return E_INVALID;
}

static int check_word(const char *value, const char *first, const char *second, struct buf *why)
{
    if (strcmp(value, first) == 0 || strcmp(value, second) == 0)
        return OK;
    buf_printf(why, "\"%s\" is neither %s nor %s", value, first, second);
    return E_INVALID;
}

static int check_not_empty(const char *value, struct buf *why)
{
    if (value[0] != '\0')
        return OK;
    buf_add_str(why, "must not be empty");
    return E_INVALID;
}

/* NAME=URL pairs are separated by commas and the name ends at the equals sign. */
static int check_name(const char *value, struct buf *why)
{
    if (check_not_empty(value, why) != OK)
        return E_INVALID;
    if (strpbrk(value, ",= \t") == NULL)
        return OK;
    buf_printf(why, "\"%s\" must not contain blanks, commas or equals signs", value);
    return E_INVALID;
}

static int check_listen_urls(const char *value, struct buf *why)
{
    return conf_check_urls(value, true, why);
}

static int check_urls(const char *value, struct buf *why)
{
    return conf_check_urls(value, false, why);
}

/* Empty is the default that conf_finish puts in. */
static int check_nng_url(const char *value, struct buf *why)
{
    static const char *const schemes[] = {"ipc://", "tcp://", "tls+tcp://", "inproc://"};

    if (value[0] == '\0')
        return OK;
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        size_t len = strlen(schemes[i]);
        if (strncmp(value, schemes[i], len) == 0 && value[len] != '\0')
            return OK;
    }
    buf_printf(why, "\"%s\" is not an nng URL (ipc://PATH, tcp://HOST:PORT or tls+tcp://HOST:PORT)", value);
    return E_INVALID;
}

static int check_initial_cluster(const char *value, struct buf *why)
{
    return value[0] == '\0' ? OK : conf_check_cluster(value, why);
}

static int check_cluster_state(const char *value, struct buf *why)
{
    return check_word(value, "new", "existing", why);
}

static int check_tls_min(const char *value, struct buf *why)
{
    return check_word(value, "TLS1.2", "TLS1.3", why);
}

static int check_tls_max(const char *value, struct buf *why)
{
    return value[0] == '\0' ? OK : check_word(value, "TLS1.2", "TLS1.3", why);
}

static int check_compaction_mode(const char *value, struct buf *why)
{
    return check_word(value, "periodic", "revision", why);
}

static int check_listen_urls_or_none(const char *value, struct buf *why)
{
    return value[0] == '\0' ? OK : conf_check_urls(value, true, why);
}

static int check_metrics(const char *value, struct buf *why)
{
    return check_word(value, "basic", "extensive", why);
}

static int check_log_format(const char *value, struct buf *why)
{
    return check_word(value, "console", "json", why);
}

/* The parameters of jwt are read by who uses them. */
static int check_auth_token(const char *value, struct buf *why)
{
    if (strcmp(value, "simple") == 0 || strncmp(value, "jwt,", 4) == 0)
        return OK;
    buf_printf(why, "auth: invalid auth options: \"%s\" is neither simple nor jwt,NAME=VALUE,...", value);
    return E_INVALID;
}

static int check_log_level(const char *value, struct buf *why)
{
    enum log_level level;

    if (log_level_parse(value, &level) == OK || strcmp(value, "panic") == 0 || strcmp(value, "fatal") == 0)
        return OK;
    buf_printf(why, "\"%s\" is not error, warn, info, debug or trace", value);
    return E_INVALID;
}

/* What a text must look like; keys that are not here take any. */
static const struct {
    const char *name;
    int (*check)(const char *value, struct buf *why);
} checks[] = {
    {"name", check_name},
    {"data-dir", check_not_empty},
    {"run-dir", check_not_empty},
    {"raftd-url", check_nng_url},
    {"stored-url", check_nng_url},
    {"native-url", check_nng_url},
    {"native-pub-url", check_nng_url},
    {"listen-client-urls", check_listen_urls},
    {"advertise-client-urls", check_urls},
    {"listen-peer-urls", check_listen_urls},
    {"initial-advertise-peer-urls", check_urls},
    {"initial-cluster", check_initial_cluster},
    {"initial-cluster-state", check_cluster_state},
    {"tls-min-version", check_tls_min},
    {"tls-max-version", check_tls_max},
    {"auto-compaction-mode", check_compaction_mode},
    {"auto-compaction-retention", check_not_empty},
    {"listen-client-http-urls", check_listen_urls_or_none},
    {"listen-metrics-urls", check_listen_urls_or_none},
    {"auth-token", check_auth_token},
    {"metrics", check_metrics},
    {"log-level", check_log_level},
    {"log-format", check_log_format},
    {"log-outputs", check_not_empty},
};

static int set_text(const struct key *k, const char **member, const char *value, struct buf *why)
{
    for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
        if (strcmp(checks[i].name, k->name) != 0)
            continue;
        int err = checks[i].check(value, why);
        if (err != OK)
            return err;
    }
    char *copy = xstrdup(value); /* first: value may be the old text itself */

    free((char *)(uintptr_t)*member);
    *member = copy;
    return OK;
}

static int set_number(const struct key *k, uint64_t *member, const char *value, struct buf *why)
{
    uint64_t number;
    bool good = k->type == KEY_DUR ? conf_parse_duration(value, &number) == OK : parse_u64(value, &number);

    if (!good)
        return bad_value(k, value, why);
    if (number < k->min || number > k->max)
        return out_of_range(k, value, why);
    *member = number;
    return OK;
}

static int set_integer(const struct key *k, int64_t *member, const char *value, struct buf *why)
{
    int64_t number;

    if (!parse_i64(value, &number))
        return bad_value(k, value, why);
    if (number < (int64_t)k->min || number > (int64_t)k->max)
        return out_of_range(k, value, why);
    *member = number;
    return OK;
}

static int set_bool(const struct key *k, bool *member, const char *value, struct buf *why)
{
    return parse_bool(value, member) ? OK : bad_value(k, value, why);
}

/* why gets the bare reason. */
static int set_value(struct conf *c, const struct key *k, const char *value, struct buf *why)
{
    void *member = (char *)c + k->offset;

    switch (k->type) {
    case KEY_STR:
        return set_text(k, member, value, why);
    case KEY_I64:
        return set_integer(k, member, value, why);
    case KEY_BOOL:
        return set_bool(k, member, value, why);
    case KEY_U64:
    case KEY_DUR:
    case KEY_MS:
        break;
    }
    return set_number(k, member, value, why);
}

void conf_init(struct conf *c)
{
    struct buf why = BUF_INIT;

    *c = (struct conf){0};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        must(set_value(c, &keys[i], keys[i].def, &why) == OK);
    buf_fini(&why);
}

void conf_fini(struct conf *c)
{
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        if (keys[i].type == KEY_STR)
            free(*(char **)(void *)((char *)c + keys[i].offset));
    }
    *c = (struct conf){0};
}

static void add_unknown(struct buf *why, const char *where, const char *key)
{
    const char *nearest = conf_nearest_key(key);

    buf_printf(why, "%s: unknown key \"%s\"", where, key);
    if (nearest != NULL)
        buf_printf(why, "; did you mean \"%s\"?", nearest);
    buf_add_byte(why, '\n');
}

static bool ends_with(const char *text, const char *end)
{
    size_t text_len = strlen(text), end_len = strlen(end);

    return text_len >= end_len && strcmp(text + text_len - end_len, end) == 0;
}

int conf_set(struct conf *c, const char *key, const char *value, const char *where, struct buf *why)
{
    const struct key *k = find_key(key);

    if (k == NULL) {
        add_unknown(why, where, key);
        return E_INVALID;
    }
    struct buf reason = BUF_INIT;
    int err = set_value(c, k, value, &reason);

    if (err == OK) {
        c->given[(k - keys) / 8] |= (uint8_t)(1u << ((k - keys) % 8));
    } else {
        buf_printf(why, "%s: ", where);
        if (!ends_with(where, key)) /* "--name: name: ..." would say it twice */
            buf_printf(why, "%s: ", key);
        buf_add_slice(why, buf_slice(&reason));
        buf_add_byte(why, '\n');
    }
    buf_fini(&reason);
    return err;
}

/* --- telling ------------------------------------------------------------------------------------------------ */

static void show_value(const struct conf *c, const struct key *k, struct buf *out)
{
    const void *member = (const char *)c + k->offset;

    switch (k->type) {
    case KEY_STR:
        buf_add_str(out, *(const char *const *)member);
        break;
    case KEY_I64:
        buf_printf(out, "%" PRId64, *(const int64_t *)member);
        break;
    case KEY_BOOL:
        buf_add_str(out, *(const bool *)member ? "true" : "false");
        break;
    case KEY_DUR:
        add_duration(out, *(const uint64_t *)member);
        break;
    case KEY_U64:
    case KEY_MS:
        buf_printf(out, "%" PRIu64, *(const uint64_t *)member);
        break;
    }
}

void conf_show(const struct conf *c, struct buf *out)
{
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        buf_printf(out, "%s = ", keys[i].name);
        show_value(c, &keys[i], out);
        buf_add_byte(out, '\n');
    }
}

void conf_print_help(const char *program)
{
    printf("usage: %s [-c FILE] [-t] [-f] [-v] [-V] [-h] [--KEY VALUE | --KEY=VALUE]...\n\n"
           "  -c FILE  configuration file (default /etc/trine/trine.conf, if there)\n"
           "  -t       check the configuration and exit; with -v print it\n"
           "  -f       stay in the foreground (always so)\n"
           "  -v       more words in the log; may be repeated\n"
           "  -V       print the version and exit\n"
           "  -h       print this and exit\n\n"
           "Every KEY is also a line KEY = VALUE of the file and an environment variable TRINE_KEY.\n\n",
           program);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        printf("  --%s\n      %s", keys[i].name, keys[i].help);
        if (keys[i].def[0] != '\0')
            printf(" [%s]", keys[i].def);
        printf("\n");
    }
}
