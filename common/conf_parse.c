/* conf_parse - the values of conf.h that are more than a word or a number: durations, URL lists, initial-cluster.
 * Pure text in, structs or a reason out. Where etcd refuses the same value, the reason is etcd's wording. */
#include "common/conf.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* --- durations, as Go's time.ParseDuration ------------------------------------------------------- */

/* The longer unit of two with the same beginning comes first. */
static const struct {
    const char *name;
    uint64_t ns;
} units[] = {
    {"ns", 1},
    {"us", 1000},
    {"µs", 1000},
    {"ms", 1000000},
    {"s", 1000000000},
    {"m", 60 * (uint64_t)1000000000},
    {"h", 3600 * (uint64_t)1000000000},
};

static uint64_t unit_at(const char **p)
{
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        size_t len = strlen(units[i].name);
        if (strncmp(*p, units[i].name, len) == 0) {
            *p += len;
            return units[i].ns;
        }
    }
    return 0;
}

/* One "12.5ms" at *p. false: not a number with a unit, or more than 292 years. */
static bool parse_piece(const char **p, uint64_t *ns)
{
    uint64_t whole = 0, fraction = 0, fraction_unit = 1;
    bool digits = false;

    for (; is_digit(**p); (*p)++, digits = true) {
        if (whole > INT64_MAX / 10)
            return false;
        whole = whole * 10 + (uint64_t)(**p - '0');
    }
    if (**p == '.') {
        for ((*p)++; is_digit(**p); (*p)++, digits = true) {
            if (fraction_unit >= 1000000000000) /* finer than 1 ns of an hour: no difference any more */
                continue;
            fraction = fraction * 10 + (uint64_t)(**p - '0');
            fraction_unit *= 10;
        }
    }
    uint64_t unit = digits ? unit_at(p) : 0;

    if (unit == 0 || __builtin_mul_overflow(whole, unit, ns))
        return false;
    uint64_t rest = (uint64_t)((unsigned __int128)fraction * unit / fraction_unit);

    return !__builtin_add_overflow(*ns, rest, ns) && *ns <= INT64_MAX;
}

int conf_parse_ns(const char *text, uint64_t *ns)
{
    *ns = 0;
    if (strcmp(text, "0") == 0) /* the only number that needs no unit */
        return OK;
    if (*text == '\0')
        return E_INVALID;
    while (*text != '\0') {
        uint64_t piece;
        if (!parse_piece(&text, &piece) || __builtin_add_overflow(*ns, piece, ns) || *ns > INT64_MAX)
            return E_INVALID;
    }
    return OK;
}

int conf_parse_duration(const char *text, uint64_t *ms)
{
    uint64_t ns;

    if (conf_parse_ns(text, &ns) != OK || ns % 1000000 != 0)
        return E_INVALID;
    *ms = ns / 1000000;
    return OK;
}

/* A bare number counts hours or revisions, as the mode is (etcd's auto-compaction-retention). */
int conf_parse_retention(const char *mode, const char *text, uint64_t *value)
{
    bool periodic = strcmp(mode, "periodic") == 0;
    const uint64_t hour_ms = 3600 * (uint64_t)1000;
    uint64_t number = 0;
    const char *p = text;

    for (; is_digit(*p); p++) {
        if (number > INT64_MAX / 10 - 1)
            return E_INVALID;
        number = number * 10 + (uint64_t)(*p - '0');
    }
    if (p == text || *p != '\0')
        return periodic ? conf_parse_duration(text, value) : E_INVALID;
    if (periodic && number > INT64_MAX / 1000000 / hour_ms)
        return E_INVALID;
    *value = periodic ? number * hour_ms : number;
    return OK;
}

/* --- lists ------------------------------------------------------------------------------------------ */

struct slice conf_next_item(const char **next)
{
    const char *start = *next, *end = strchr(start, ',');

    if (end == NULL) {
        end = start + strlen(start);
        *next = NULL;
    } else {
        *next = end + 1;
    }
    while (start < end && is_blank(*start))
        start++;
    while (end > start && is_blank(end[-1]))
        end--;
    return slice_of(start, (size_t)(end - start));
}

static void url_fini(struct conf_url *u)
{
    free(u->scheme);
    free(u->host);
    *u = (struct conf_url){0};
}

/* The port at the end of host_port; its text ends there. */
static bool parse_port(const char *text, uint16_t *port)
{
    unsigned value = 0;

    if (!is_digit(*text))
        return false;
    for (; is_digit(*text); text++) {
        value = value * 10 + (unsigned)(*text - '0');
        if (value > UINT16_MAX)
            return false;
    }
    *port = (uint16_t)value;
    return *text == '\0';
}

/* "host:port" or "[::1]:port" -> host (given) and port. */
static bool parse_host_port(const char *text, char **host, uint16_t *port)
{
    const char *colon = strrchr(text, ':');
    struct slice name;

    if (colon == NULL)
        return false;
    if (*text == '[') {
        if (colon[-1] != ']' || colon - text < 3)
            return false;
        name = slice_of(text + 1, (size_t)(colon - text) - 2);
    } else {
        name = slice_of(text, (size_t)(colon - text));
        if (name.len == 0 || memchr(name.data, ':', name.len) != NULL)
            return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        if (name.data[i] <= ' ' || name.data[i] == 0x7f || strchr("[]@?#%\\\"<>", name.data[i]) != NULL)
            return false;
    }
    if (!parse_port(colon + 1, port))
        return false;
    *host = slice_dup_str(name);
    return true;
}

/* Fills u (url_fini it) or appends the reason. text is one URL. */
static int parse_url(const char *text, struct conf_url *u, struct buf *why)
{
    const char *rest = strstr(text, "://");

    if (rest == NULL) {
        buf_printf(why, "URL scheme must be http, https, unix, or unixs: %s", text);
        return E_INVALID;
    }
    struct slice scheme = slice_of(text, (size_t)(rest - text));

    rest += strlen("://");
    *u = (struct conf_url){0};
    if (slice_eq(scheme, SLICE_LIT("unix")) || slice_eq(scheme, SLICE_LIT("unixs"))) {
        if (*rest == '\0') {
            buf_printf(why, "unix URL without a path: %s", text);
            return E_INVALID;
        }
        u->host = xstrdup(rest);
    } else if (slice_eq(scheme, SLICE_LIT("http")) || slice_eq(scheme, SLICE_LIT("https"))) {
        if (strchr(rest, '/') != NULL) {
            buf_printf(why, "URL must not contain a path: %s", text);
            return E_INVALID;
        }
        if (!parse_host_port(rest, &u->host, &u->port)) {
            buf_printf(why, "URL address does not have the form \"host:port\": %s", text);
            return E_INVALID;
        }
    } else {
        buf_printf(why, "URL scheme must be http, https, unix, or unixs: %s", text);
        return E_INVALID;
    }
    u->scheme = slice_dup_str(scheme);
    return OK;
}

/* The work behind conf_parse_urls and conf_check_urls. On failure nothing is left behind but the reason. */
static int parse_urls(const char *list, struct conf_url **urls, size_t *count, struct buf *why)
{
    struct conf_url *array = NULL;
    size_t n = 0;
    int err = OK;

    for (const char *next = list; next != NULL && err == OK;) {
        char *text = slice_dup_str(conf_next_item(&next));
        array = xrealloc(array, (n + 1) * sizeof(*array));
        err = parse_url(text, &array[n], why);
        if (err == OK)
            n++;
        free(text);
    }
    if (err != OK) {
        conf_free_urls(array, n);
        return err;
    }
    *urls = array;
    *count = n;
    return OK;
}

int conf_parse_urls(const char *list, struct conf_url **urls, size_t *count)
{
    struct buf why = BUF_INIT;
    int err = parse_urls(list, urls, count, &why);

    buf_fini(&why);
    return err;
}

void conf_free_urls(struct conf_url *urls, size_t count)
{
    for (size_t i = 0; i < count; i++)
        url_fini(&urls[i]);
    free(urls);
}

static bool is_address(const char *host)
{
    struct in6_addr address; /* room for either family */

    return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
}

bool conf_url_is_open(const struct conf_url *url)
{
    return strcmp(url->scheme, "http") == 0 && strcmp(url->host, "localhost") != 0 && strncmp(url->host, "127.", 4) != 0 &&
           strcmp(url->host, "::1") != 0;
}

static int check_listen(const struct conf_url *u, struct buf *why)
{
    if (strncmp(u->scheme, "unix", 4) == 0)
        return OK;
    if (strcmp(u->host, "localhost") != 0 && !is_address(u->host)) {
        buf_printf(why, "expected IP in URL for binding (%s://%s:%u)", u->scheme, u->host, u->port);
        return E_INVALID;
    }
    return OK; /* https: conf_finish looks for the certificate */
}

int conf_check_urls(const char *list, bool listen, struct buf *why)
{
    struct conf_url *urls;
    size_t count;
    int err = parse_urls(list, &urls, &count, why);

    if (err != OK)
        return err;
    for (size_t i = 0; i < count && listen && err == OK; i++)
        err = check_listen(&urls[i], why);
    conf_free_urls(urls, count);
    return err;
}

/* --- initial-cluster ------------------------------------------------------------------------------------ */

/* Whether text is one "NAME=URL". *url is then where the URL begins in it. */
static int check_member(const char *text, const char **url, struct buf *why)
{
    const char *equal = strchr(text, '=');
    struct conf_url parsed;

    if (equal == NULL || equal == text) {
        buf_printf(why, "\"%s\" is not NAME=URL", text);
        return E_INVALID;
    }
    int err = parse_url(equal + 1, &parsed, why);

    if (err != OK)
        return err;
    if (strncmp(parsed.scheme, "unix", 4) == 0) {
        buf_printf(why, "peers are reached by http or https: %s", text);
        err = E_INVALID;
    }
    url_fini(&parsed);
    *url = equal + 1;
    return err;
}

/* Whether url is that of one of the pairs of list before end. The pairs are good: each has its equals sign. */
static bool is_known_url(const char *list, const uint8_t *end, const char *url)
{
    for (const char *next = list; next != NULL;) {
        struct slice pair = conf_next_item(&next);
        if (pair.data >= end)
            return false;
        const uint8_t *equal = memchr(pair.data, '=', pair.len);
        struct slice known = slice_of(equal + 1, pair.len - (size_t)(equal + 1 - pair.data));
        if (slice_eq(known, slice_str(url)))
            return true;
    }
    return false;
}

int conf_check_cluster(const char *text, struct buf *why)
{
    int err = OK;

    for (const char *next = text; next != NULL && err == OK;) {
        struct slice pair = conf_next_item(&next);
        char *item = slice_dup_str(pair);
        const char *url;
        err = check_member(item, &url, why);
        if (err == OK && is_known_url(text, pair.data, url)) {
            buf_printf(why, "initial cluster has duplicate url %s", url);
            err = E_INVALID;
        }
        free(item);
    }
    return err;
}
