/* print - answers on the terminal: JSON as etcdctl writes it (bytes as base64), tables through libsmartcols. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libsmartcols/libsmartcols.h>

#include "common/mem.h"
#include "trinectl/trinectl.h"

struct slice json_bytes(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_string(v) ? slice_of(json_string_value(v), json_string_length(v)) : SLICE_EMPTY;
}

int64_t json_number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static char *base64(struct slice s)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *out = xmalloc((s.len + 2) / 3 * 4 + 1), *p = out;
    for (size_t i = 0; i < s.len; i += 3) {
        uint32_t v = (uint32_t)s.data[i] << 16 | (i + 1 < s.len ? (uint32_t)s.data[i + 1] << 8 : 0) |
                     (i + 2 < s.len ? s.data[i + 2] : 0);
        *p++ = digits[v >> 18];
        *p++ = digits[v >> 12 & 63];
        *p++ = i + 1 < s.len ? digits[v >> 6 & 63] : '=';
        *p++ = i + 2 < s.len ? digits[v & 63] : '=';
    }
    *p = '\0';
    return out;
}

/* Only these fields are bytes in the API; the other strings are text. */
static bool is_bytes_field(const char *name)
{
    static const char *const names[] = {"key", "value", "range_end", "keys"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (name && strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* Unsigned in the API; jansson has only signed numbers. */
static bool is_unsigned_field(const char *name)
{
    static const char *const names[] = {"cluster_id", "member_id", "memberID", "ID", "leader"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (name && strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static void dump_string(const char *name, struct slice s)
{
    putchar('"');
    if (is_bytes_field(name)) {
        char *text = base64(s);
        fputs(text, stdout);
        free(text);
    } else {
        for (size_t i = 0; i < s.len; i++) {
            if (s.data[i] < 0x20)
                printf("\\u%04x", s.data[i]);
            else if (s.data[i] == '"' || s.data[i] == '\\')
                printf("\\%c", s.data[i]);
            else
                putchar(s.data[i]);
        }
    }
    putchar('"');
}

static void dump(const json_t *v, const char *name)
{
    const char *key, *comma = "";
    json_t *item;
    size_t i;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        putchar('{');
        json_object_foreach((json_t *)(uintptr_t)v, key, item)
        {
            printf("%s\"%s\":", comma, key);
            dump(item, key);
            comma = ",";
        }
        putchar('}');
        break;
    case JSON_ARRAY:
        putchar('[');
        json_array_foreach(v, i, item)
        {
            fputs(comma, stdout);
            dump(item, name);
            comma = ",";
        }
        putchar(']');
        break;
    case JSON_STRING:
        dump_string(name, slice_of(json_string_value(v), json_string_length(v)));
        break;
    case JSON_INTEGER:
        if (is_unsigned_field(name))
            printf("%llu", (unsigned long long)json_integer_value(v));
        else
            printf("%lld", (long long)json_integer_value(v));
        break;
    default:
        fputs(json_is_true(v) ? "true" : json_is_false(v) ? "false" : "null", stdout);
        break;
    }
}

void print_json(const json_t *answer)
{
    dump(answer, NULL);
    putchar('\n');
}

void print_flush(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return;
    fprintf(stderr, "Error: the output cannot be written: %s\n", strerror(errno));
    _exit(EXIT_OUTPUT); /* not exit, which would try again */
}

void print_bytes(struct ctl *ctl, struct slice s)
{
    if (!ctl->hex && s.len)
        fwrite(s.data, 1, s.len, stdout);
    if (!ctl->hex)
        return;
    for (size_t i = 0; i < s.len; i++)
        printf("\\x%02x", s.data[i]);
}

struct print_table {
    struct libscols_table *table;
    size_t columns;
};

struct print_table *table_new(const char *const *columns, size_t count)
{
    struct print_table *t = xcalloc(1, sizeof(*t));
    scols_init_debug(0);
    t->table = scols_new_table();
    t->columns = count;
    must(t->table != NULL);
    scols_table_enable_maxout(t->table, 0);
    for (size_t i = 0; i < count; i++)
        scols_table_new_column(t->table, columns[i], 0, 0);
    return t;
}

void table_row(struct print_table *t, const char *const *cells)
{
    struct libscols_line *line = scols_table_new_line(t->table, NULL);
    for (size_t i = 0; i < t->columns; i++)
        scols_line_set_data(line, i, cells[i]);
}

void table_print(struct print_table *t)
{
    scols_print_table(t->table);
    scols_unref_table(t->table);
    free(t);
}
