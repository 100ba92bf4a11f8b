/* value - numbers, truth and durations as Go's flag package reads them. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/conf.h"
#include "common/err.h"
#include "common/mem.h"
#include "deploy/etcd/flags.h"

/* 0b101, 0o17, 017, 0x1f, 31; strtoull takes blanks and signs, we do not. */
bool value_uint(const char *text, uint64_t *value)
{
    int base = 10;
    char *end;

    if (text[0] == '0' && text[1] != '\0') {
        char letter = text[1] | 0x20;
        base = letter == 'x' ? 16 : letter == 'b' ? 2 : 8;
        text += letter == 'x' || letter == 'b' || letter == 'o' ? 2 : 1;
    }
    bool starts = (*text >= '0' && *text <= '9') || (base == 16 && strchr("abcdefABCDEF", *text) != NULL);

    if (*text == '\0' || !starts || (base == 16 && (text[1] | 0x20) == 'x'))
        return false;
    errno = 0;
    *value = strtoull(text, &end, base);
    return errno == 0 && *end == '\0';
}

bool value_int(const char *text, int64_t *value)
{
    bool negative = *text == '-';
    uint64_t size;

    if (!value_uint(text + (negative || *text == '+'), &size) || size > (uint64_t)INT64_MAX + negative)
        return false;
    *value = negative ? (int64_t)(0 - size) : (int64_t)size;
    return true;
}

bool value_bool(const char *text, bool *value)
{
    static const char *const words[2][6] = {{"0", "f", "F", "false", "FALSE", "False"},
                                            {"1", "t", "T", "true", "TRUE", "True"}};

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

bool value_duration(const char *text, int64_t *ns)
{
    bool negative = *text == '-';
    uint64_t size;

    if (conf_parse_ns(text + (negative || *text == '+'), &size) != OK)
        return false;
    *ns = negative ? -(int64_t)size : (int64_t)size;
    return true;
}

char *value_duration_text(int64_t ns)
{
    uint64_t ms = ns <= 0 ? 0 : ((uint64_t)ns + 999999) / 1000000;

    return xasprintf("%" PRIu64 "ms", ms);
}
