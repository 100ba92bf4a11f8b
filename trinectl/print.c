/* print - answers on the terminal: JSON as etcdctl writes it (bytes as base64), tables through libsmartcols. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
        uint32_t v = (uint32_t)s.data[i] << 16 | (i + 1 < s.len ? (uint32_t)s.data[i + 1] << 8 : 0) | (i + 2 < s.len ? s.data[i + 2] : 0);
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

static json_t *printable(const json_t *v, const char *name)
{
    const char *key;
    json_t *item, *copy;
    size_t i;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        copy = json_object();
        json_object_foreach((json_t *)(uintptr_t)v, key, item)
            json_object_set_new(copy, key, printable(item, key));
        return copy;
    case JSON_ARRAY:
        copy = json_array();
        json_array_foreach(v, i, item)
            json_array_append_new(copy, printable(item, name));
        return copy;
    case JSON_STRING:
        if (is_bytes_field(name)) {
            char *text = base64(slice_of(json_string_value(v), json_string_length(v)));
            copy = json_string(text);
            free(text);
            return copy;
        }
        return json_deep_copy(v);
    default: return json_deep_copy(v);
    }
}

void print_json(const json_t *answer)
{
    json_t *copy = printable(answer, NULL);
    json_dumpf(copy, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(copy);
}

void print_bytes(struct ctl *ctl, struct slice s)
{
    if (!ctl->hex) {
        fwrite(s.data, 1, s.len, stdout);
        return;
    }
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
