/* txn - a transaction from stdin, in etcdctl's language:
 *
 *     mod("key") > "3"          compares, one a line: ver|version c|create m|mod val|value lease, and = != < >
 *                               (a blank line)
 *     put key value             what to do if all hold: get, put, del with the words of the commands
 *                               (a blank line)
 *     get key                   what to do otherwise
 *                               (a blank line or the end) */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "trinectl/trinectl.h"

#define WORDS_MAX 16

_Noreturn static void bad_line(const char *line, const char *why)
{
    fprintf(stderr, "Error: invalid txn line: %s (%s)\n", line, why);
    exit(EXIT_USAGE);
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

static json_t *parse_compare(const char *line)
{
    static const struct {
        const char *word, *target, *operand;
    } targets[] = {{"ver", "VERSION", "version"}, {"version", "VERSION", "version"}, {"c", "CREATE", "create_revision"},
                   {"create", "CREATE", "create_revision"}, {"m", "MOD", "mod_revision"}, {"mod", "MOD", "mod_revision"},
                   {"val", "VALUE", "value"}, {"value", "VALUE", "value"}, {"lease", "LEASE", "lease"}};
    static const struct {
        const char *word, *result;
    } results[] = {{"=", "EQUAL"}, {"!=", "NOT_EQUAL"}, {">", "GREATER"}, {"<", "LESS"}};
    char target[16], key[1024], relation[3], operand[4096];
    if (sscanf(line, " %15[a-z](\"%1023[^\"]\") %2[=!<>] \"%4095[^\"]\"", target, key, relation, operand) != 4)
        bad_line(line, "not like mod(\"key\") > \"3\"");
    size_t t = 0, r = 0;
    while (t < ARRAY_LEN(targets) && strcmp(targets[t].word, target) != 0)
        t++;
    while (r < ARRAY_LEN(results) && strcmp(results[r].word, relation) != 0)
        r++;
    if (t == ARRAY_LEN(targets) || r == ARRAY_LEN(results))
        bad_line(line, "unknown target or relation");
    json_t *c = json_pack("{s:o, s:s, s:s}", "key", bytes_json(slice_str(key)), "target", targets[t].target, "result", results[r].result);
    if (strcmp(targets[t].operand, "value") == 0) {
        json_object_set_new(c, "value", bytes_json(slice_str(operand)));
    } else {
        char *end;
        long long v = strtoll(operand, &end, strcmp(targets[t].operand, "lease") == 0 ? 16 : 10);
        if (*end)
            bad_line(line, "not a number");
        json_object_set_new(c, targets[t].operand, json_integer(v));
    }
    return c;
}

/* Words of a line; quotes keep blanks together. In place. */
static int split_words(char *line, char **words)
{
    int count = 0;
    for (char *p = line; *p && count < WORDS_MAX;) {
        while (*p && isspace((unsigned char)*p))
            p++;
        if (!*p)
            break;
        char quote = *p == '"' || *p == '\'' ? *p++ : 0;
        words[count++] = p;
        while (*p && (quote ? *p != quote : !isspace((unsigned char)*p)))
            p++;
        if (*p)
            *p++ = '\0';
    }
    return count;
}

static json_t *parse_op(char *line)
{
    char *copy = xstrdup(line), *words[WORDS_MAX];
    int count = split_words(copy, words), places = 0;
    bool prefix = false, prev = false;
    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "--prefix") == 0)
            prefix = true;
        else if (strcmp(words[i], "--prev-kv") == 0)
            prev = true;
        else
            words[1 + places++] = words[i];
    }
    if (places < 1)
        bad_line(line, "no key");
    json_t *op = json_pack("{s:o}", "key", bytes_json(slice_str(words[1]))), *wrapped;
    bool put = strcmp(words[0], "put") == 0;
    if (prefix)
        json_object_set_new(op, "range_end", prefix_end_json(slice_str(words[1])));
    else if (places == 2)
        json_object_set_new(op, put ? "value" : "range_end", bytes_json(slice_str(words[2])));
    if (prev)
        json_object_set_new(op, "prev_kv", json_true());
    if (put && places == 2 && !prefix)
        wrapped = json_pack("{s:o}", "request_put", op);
    else if (strcmp(words[0], "get") == 0 && places <= 2)
        wrapped = json_pack("{s:o}", "request_range", op);
    else if (strcmp(words[0], "del") == 0 && places <= 2)
        wrapped = json_pack("{s:o}", "request_delete_range", op);
    else
        bad_line(line, "not get, put or del");
    free(copy);
    return wrapped;
}

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
        json_array_foreach(json_object_get(r, "prev_kvs"), i, kv)
            print_kv(ctl, kv, true, true);
    } else if ((r = json_object_get(response, "response_range"))) {
        putchar('\n');
        json_array_foreach(json_object_get(r, "kvs"), i, kv)
            print_kv(ctl, kv, true, true);
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
    json_t *answer = door_call(ctl, "txn", json_pack("{s:o, s:o, s:o}", "compare", compares, "success", success, "failure", failure));
    if (ctl->output == OUTPUT_JSON) {
        print_json(answer);
    } else {
        printf("%s\n", json_is_true(json_object_get(answer, "succeeded")) ? "SUCCESS" : "FAILURE");
        json_array_foreach(json_object_get(answer, "responses"), i, response)
            print_response(ctl, response);
    }
    json_decref(answer);
    return 0;
}
