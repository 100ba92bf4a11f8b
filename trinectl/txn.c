/* txn - a transaction from stdin, in etcdctl's language:
 *
 *     mod("key") > "3"          compares, one a line: ver|version c|create m|mod val|value lease, and = != < >
 *                               (a blank line)
 *     put key "a value"         what to do if all hold: get and del with --prefix, --from-key or a range end, put with
 * --lease=ID; del and put with --prev-kv (a blank line) get key                   what to do otherwise (a blank line or
 * the end) */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "trinectl/trinectl.h"

_Noreturn static void bad_line(const char *line, const char *why)
{
    fprintf(stderr, "Error: invalid txn line: %s (%s)\n", line, why);
    exit(EXIT_INPUT);
}

/* The next line without its newline; false at a blank line or the end. */
static bool next_line(char **line)
{
    static char *text;
    static size_t cap;
    ssize_t n = getline(&text, &cap, stdin);
    if (n < 0)
        return false;
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        text[--n] = '\0';
    *line = text;
    return n > 0;
}

/* --- words ------------------------------------------------------------------------------------ */

static void skip_blanks(const char **p)
{
    while (isspace((unsigned char)**p))
        (*p)++;
}

/* The byte after a backslash, as in Go: \n \t \r \\ \" \' \xHH; anything else stands for itself. */
static char unescape(const char **p)
{
    char c = *(*p)++, digits[3] = "";
    switch (c) {
    case 'n':
        return '\n';
    case 't':
        return '\t';
    case 'r':
        return '\r';
    case 'x':
        if (!isxdigit((unsigned char)(*p)[0]) || !isxdigit((unsigned char)(*p)[1]))
            return c;
        memcpy(digits, *p, 2);
        *p += 2;
        return (char)strtoul(digits, NULL, 16);
    default:
        return c;
    }
}

/* "..." with escapes, or '...' without; the quotes must be closed. */
static bool take_quoted(const char **p, struct buf *out)
{
    char quote = *(*p)++;
    while (**p && **p != quote) {
        char c = *(*p)++;
        if (c == '\\' && quote == '"' && **p)
            c = unescape(p);
        buf_add_byte(out, (uint8_t)c);
    }
    return *(*p)++ == quote;
}

/* One word of an operation; false at the end of the line. */
static bool take_word(const char *line, const char **p, struct buf *out)
{
    buf_reset(out);
    skip_blanks(p);
    if (!**p)
        return false;
    if (**p == '"' || **p == '\'') {
        if (!take_quoted(p, out))
            bad_line(line, "a quote is not closed");
        return true;
    }
    while (**p && !isspace((unsigned char)**p))
        buf_add_byte(out, (uint8_t) * (*p)++);
    return true;
}

/* --- compares ----------------------------------------------------------------------------------- */

struct target {
    const char *word, *target, *operand;
};

static const struct target *target_of(const char *line, struct slice word)
{
    static const struct target targets[] = {{"ver", "VERSION", "version"},      {"version", "VERSION", "version"},
                                            {"c", "CREATE", "create_revision"}, {"create", "CREATE", "create_revision"},
                                            {"m", "MOD", "mod_revision"},       {"mod", "MOD", "mod_revision"},
                                            {"val", "VALUE", "value"},          {"value", "VALUE", "value"},
                                            {"lease", "LEASE", "lease"}};
    for (size_t i = 0; i < ARRAY_LEN(targets); i++)
        if (slice_eq(slice_str(targets[i].word), word))
            return &targets[i];
    bad_line(line, "unknown target");
}

static const char *result_of(const char *line, const char **p)
{
    static const struct {
        const char *word, *result;
    } results[] = {{"!=", "NOT_EQUAL"}, {"=", "EQUAL"}, {">", "GREATER"}, {"<", "LESS"}};
    for (size_t i = 0; i < ARRAY_LEN(results); i++) {
        if (strncmp(*p, results[i].word, strlen(results[i].word)) == 0) {
            *p += strlen(results[i].word);
            return results[i].result;
        }
    }
    bad_line(line, "unknown relation");
}

static json_t *operand_of(const char *line, const struct target *t, struct buf *operand)
{
    char *end;
    if (strcmp(t->operand, "value") == 0)
        return bytes_json(buf_slice(operand));
    buf_add_byte(operand, 0);
    long long v = strtoll((char *)operand->data, &end, strcmp(t->operand, "lease") == 0 ? 16 : 10);
    if (*end || operand->len == 1)
        bad_line(line, "not a number");
    return json_integer(v);
}

/* target("key") relation "operand" */
static json_t *parse_compare(const char *line)
{
    const char *p = line, *shape = "not like mod(\"key\") > \"3\"";
    struct buf key = BUF_INIT, operand = BUF_INIT;
    buf_reserve(&key, 1); /* an empty string is not NULL */
    buf_reserve(&operand, 1);
    skip_blanks(&p);
    size_t n = strcspn(p, "( \t");
    const struct target *t = target_of(line, slice_of(p, n));
    p += n;
    skip_blanks(&p);
    if (*p++ != '(')
        bad_line(line, shape);
    skip_blanks(&p);
    if (*p != '"' || !take_quoted(&p, &key))
        bad_line(line, shape);
    skip_blanks(&p);
    if (*p++ != ')')
        bad_line(line, shape);
    skip_blanks(&p);
    const char *result = result_of(line, &p);
    skip_blanks(&p);
    if (*p != '"' || !take_quoted(&p, &operand) || *p)
        bad_line(line, shape);
    json_t *c = json_pack("{s:o, s:s, s:s, s:o}", "key", bytes_json(buf_slice(&key)), "target", t->target, "result",
                          result, t->operand, operand_of(line, t, &operand));
    buf_fini(&key);
    buf_fini(&operand);
    return c;
}

/* --- operations --------------------------------------------------------------------------------- */

/* An operation's words after the first, sorted out. */
struct op_words {
    struct buf places[3]; /* key, and value or range_end; the third would be too many */
    int count;
    bool prefix, from_key, prev_kv;
    int64_t lease;
};

static bool take_option(struct op_words *w, struct slice word)
{
    static const char lease[] = "--lease=";
    if (slice_eq(word, SLICE_LIT("--prefix")))
        w->prefix = true;
    else if (slice_eq(word, SLICE_LIT("--from-key")))
        w->from_key = true;
    else if (slice_eq(word, SLICE_LIT("--prev-kv")))
        w->prev_kv = true;
    else if (word.len > sizeof(lease) - 1 && memcmp(word.data, lease, sizeof(lease) - 1) == 0) {
        char *text = slice_dup_str(slice_of(word.data + sizeof(lease) - 1, word.len - (sizeof(lease) - 1)));
        w->lease = number_of("--lease", text, 16);
        free(text);
    } else
        return false;
    return true;
}

static void read_words(const char *line, const char *p, struct op_words *w)
{
    struct buf word = BUF_INIT;
    buf_reserve(&word, 1);
    for (skip_blanks(&p); *p; skip_blanks(&p)) {
        bool plain = *p != '"' && *p != '\'';
        if (!take_word(line, &p, &word))
            break;
        if (plain && word.len > 1 && word.data[0] == '-' && word.data[1] == '-') {
            if (!take_option(w, buf_slice(&word)))
                bad_line(line, "unknown option");
            continue;
        }
        if (w->count == (int)ARRAY_LEN(w->places))
            bad_line(line, "too many words");
        buf_reserve(&w->places[w->count], 1);
        buf_add_slice(&w->places[w->count++], buf_slice(&word));
    }
    buf_fini(&word);
}

static json_t *parse_op(const char *line)
{
    const char *p = line;
    struct buf verb = BUF_INIT;
    struct op_words w = {0};
    take_word(line, &p, &verb);
    bool put = slice_eq(buf_slice(&verb), SLICE_LIT("put")), get = slice_eq(buf_slice(&verb), SLICE_LIT("get"));
    if (!put && !get && !slice_eq(buf_slice(&verb), SLICE_LIT("del")))
        bad_line(line, "not get, put or del");
    read_words(line, p, &w);
    if (put ? w.count != 2 || w.prefix || w.from_key
            : w.count < 1 || w.count > 2 || (w.count == 2) + w.prefix + w.from_key > 1 || w.lease)
        bad_line(line, put ? "put takes a key and a value"
                           : "get and del take a key, and a range end or --prefix or --from-key");

    struct slice key = buf_slice(&w.places[0]);
    json_t *op = json_pack("{s:o, s:b}", "key", bytes_json(key), "prev_kv", w.prev_kv);
    if (get)
        json_object_del(op, "prev_kv");
    if (w.prefix)
        json_object_set_new(op, "range_end", prefix_end_json(key));
    else if (w.from_key)
        json_object_set_new(op, "range_end", bytes_json(slice_of("\0", 1)));
    else if (w.count == 2)
        json_object_set_new(op, put ? "value" : "range_end", bytes_json(buf_slice(&w.places[1])));
    if (w.lease)
        json_object_set_new(op, "lease", json_integer(w.lease));
    for (size_t i = 0; i < ARRAY_LEN(w.places); i++)
        buf_fini(&w.places[i]);
    buf_fini(&verb);
    return json_pack("{s:o}", put ? "request_put" : get ? "request_range" : "request_delete_range", op);
}

/* --- the command ---------------------------------------------------------------------------------- */

static void print_response(struct ctl *ctl, const json_t *response)
{
    const json_t *r;
    json_t *kv;
    size_t i;
    if ((r = json_object_get(response, "response_put"))) {
        printf("\nOK\n");
        if (json_object_get(r, "prev_kv"))
            print_kv(ctl, json_object_get(r, "prev_kv"), true, true);
    } else if ((r = json_object_get(response, "response_delete_range"))) {
        printf("\n%lld\n", (long long)json_number(r, "deleted"));
        json_array_foreach(json_object_get(r, "prev_kvs"), i, kv) print_kv(ctl, kv, true, true);
    } else if ((r = json_object_get(response, "response_range"))) {
        putchar('\n');
        json_array_foreach(json_object_get(r, "kvs"), i, kv) print_kv(ctl, kv, true, true);
    }
}

int txn_run(struct ctl *ctl, int argc, char **argv)
{
    UNUSED(argv);
    if (argc != 1)
        usage_of("txn");
    json_t *compares = json_array(), *success = json_array(), *failure = json_array(), *response;
    char *line;
    size_t i;
    while (next_line(&line))
        json_array_append_new(compares, parse_compare(line));
    while (next_line(&line))
        json_array_append_new(success, parse_op(line));
    while (next_line(&line))
        json_array_append_new(failure, parse_op(line));
    json_t *answer = door_call(
        ctl, "txn", json_pack("{s:o, s:o, s:o}", "compare", compares, "success", success, "failure", failure));
    if (ctl->output == OUTPUT_JSON) {
        print_json(answer);
    } else {
        printf("%s\n", json_is_true(json_object_get(answer, "succeeded")) ? "SUCCESS" : "FAILURE");
        json_array_foreach(json_object_get(answer, "responses"), i, response) print_response(ctl, response);
    }
    json_decref(answer);
    return 0;
}
