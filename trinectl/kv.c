/* kv - get, put, del, compaction. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"
#include "trinectl/trinectl.h"

#define STDIN_BYTES_MAX (16u << 20) /* more is refused by the server anyway */

json_t *bytes_json(struct slice s)
{
    return json_stringn_nocheck((const char *)s.data, s.len);
}

json_t *prefix_end_json(struct slice prefix)
{
    for (size_t n = prefix.len; n > 0; n--) {
        if (prefix.data[n - 1] == 0xff)
            continue;
        uint8_t *end = xmemdup(prefix.data, n);
        end[n - 1]++;
        json_t *v = bytes_json(slice_of(end, n));
        free(end);
        return v;
    }
    return bytes_json(slice_of("\0", 1));
}

int64_t number_of(const char *option, const char *text, int base)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, base);
    if (*end || end == text || errno) {
        fprintf(stderr, "Error: %s %s: is not a number\n", option, text);
        exit(EXIT_USAGE);
    }
    return v;
}

/* A word of a list, as JSON. */
static json_t *word_of(const char *option, const char *word, const char *const *list)
{
    for (size_t i = 0; list[i]; i++)
        if (strcmp(word, list[i]) == 0)
            return json_string(word);
    fprintf(stderr, "Error: %s %s: is not one of", option, word);
    for (size_t i = 0; list[i]; i++)
        fprintf(stderr, " %s", list[i]);
    fputc('\n', stderr);
    exit(EXIT_USAGE);
}

static json_t *sort_target_of(const char *word)
{
    static const char *const targets[] = {"KEY", "VERSION", "CREATE", "MODIFY", "VALUE", NULL};
    json_t *v = word_of("--sort-by", word, targets);
    if (strcmp(word, "MODIFY") == 0)
        json_string_set(v, "MOD"); /* as the API calls it */
    return v;
}

static bool is_serializable(const char *word)
{
    static const char *const levels[] = {"l", "s", NULL};
    json_decref(word_of("--consistency", word, levels));
    return word[0] == 's';
}

/* KEY [RANGE_END], --prefix and --from-key: etcd's interval. */
static void add_interval(json_t *request, int argc, char **argv, bool prefix, bool from_key, const char *words)
{
    if (argc < 1 || argc > 2 || (argc == 2 && (prefix || from_key)) || (prefix && from_key))
        usage_of(words);
    struct slice key = slice_str(argv[0]);
    bool all = key.len == 0 && (prefix || from_key);
    json_object_set_new(request, "key", all ? bytes_json(slice_of("\0", 1)) : bytes_json(key));
    if (from_key || all)
        json_object_set_new(request, "range_end", bytes_json(slice_of("\0", 1)));
    else if (prefix)
        json_object_set_new(request, "range_end", prefix_end_json(key));
    else if (argc == 2)
        json_object_set_new(request, "range_end", bytes_json(slice_str(argv[1])));
}

void print_kv(struct ctl *ctl, const json_t *kv, bool key, bool value)
{
    if (key) {
        print_bytes(ctl, json_bytes(kv, "key"));
        putchar('\n');
    }
    if (value) {
        print_bytes(ctl, json_bytes(kv, "value"));
        putchar('\n');
    }
}

static void print_kv_table(struct ctl *ctl, const json_t *kvs)
{
    static const char *const columns[] = {"KEY", "VALUE", "CREATE REV", "MOD REV", "VERSION", "LEASE"};
    struct print_table *t = table_new(columns, ARRAY_LEN(columns));
    json_t *kv;
    size_t i;
    UNUSED(ctl);
    json_array_foreach(kvs, i, kv)
    {
        char *key = slice_dup_str(json_bytes(kv, "key")), *value = slice_dup_str(json_bytes(kv, "value"));
        char numbers[4][24];
        snprintf(numbers[0], sizeof(numbers[0]), "%lld", (long long)json_number(kv, "create_revision"));
        snprintf(numbers[1], sizeof(numbers[1]), "%lld", (long long)json_number(kv, "mod_revision"));
        snprintf(numbers[2], sizeof(numbers[2]), "%lld", (long long)json_number(kv, "version"));
        snprintf(numbers[3], sizeof(numbers[3]), "%llx", (unsigned long long)json_number(kv, "lease"));
        table_row(t, (const char *const[]){key, value, numbers[0], numbers[1], numbers[2], numbers[3]});
        free(key);
        free(value);
    }
    table_print(t);
}

int get_run(struct ctl *ctl, int argc, char **argv)
{
    enum { PREFIX = 256, FROM_KEY, LIMIT, REV, KEYS_ONLY, COUNT_ONLY, VALUE_ONLY, ORDER, SORT_BY, CONSISTENCY };
    static const struct option options[] = {{"prefix", 0, 0, PREFIX},
                                            {"from-key", 0, 0, FROM_KEY},
                                            {"limit", 1, 0, LIMIT},
                                            {"rev", 1, 0, REV},
                                            {"keys-only", 0, 0, KEYS_ONLY},
                                            {"count-only", 0, 0, COUNT_ONLY},
                                            {"print-value-only", 0, 0, VALUE_ONLY},
                                            {"order", 1, 0, ORDER},
                                            {"sort-by", 1, 0, SORT_BY},
                                            {"consistency", 1, 0, CONSISTENCY},
                                            {0, 0, 0, 0}};
    static const char *const orders[] = {"ASCEND", "DESCEND", NULL};
    bool prefix = false, from_key = false, keys_only = false, count_only = false, value_only = false;
    json_t *request = json_object();
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case PREFIX:
            prefix = true;
            break;
        case FROM_KEY:
            from_key = true;
            break;
        case LIMIT:
            json_object_set_new(request, "limit", json_integer(number_of("--limit", optarg, 10)));
            break;
        case REV:
            json_object_set_new(request, "revision", json_integer(number_of("--rev", optarg, 10)));
            break;
        case KEYS_ONLY:
            keys_only = true;
            break;
        case COUNT_ONLY:
            count_only = true;
            break;
        case VALUE_ONLY:
            value_only = true;
            break;
        case ORDER:
            json_object_set_new(request, "sort_order", word_of("--order", optarg, orders));
            break;
        case SORT_BY:
            json_object_set_new(request, "sort_target", sort_target_of(optarg));
            break;
        case CONSISTENCY:
            json_object_set_new(request, "serializable", json_boolean(is_serializable(optarg)));
            break;
        default:
            usage_of("get");
        }
    }
    add_interval(request, argc - optind, argv + optind, prefix, from_key, "get");
    json_object_set_new(request, "keys_only", json_boolean(keys_only));
    json_object_set_new(request, "count_only", json_boolean(count_only));
    json_t *answer = door_call(ctl, "range", request), *kv;
    size_t i;
    if (ctl->output == OUTPUT_JSON) {
        print_json(answer);
    } else if (ctl->output == OUTPUT_TABLE && !count_only) {
        print_kv_table(ctl, json_object_get(answer, "kvs"));
    } else if (count_only) {
        printf("%lld\n", (long long)json_number(answer, "count"));
    } else {
        json_array_foreach(json_object_get(answer, "kvs"), i, kv)
            print_kv(ctl, kv, !value_only, true); /* with --keys-only the value is an empty line, as etcdctl has it */
    }
    json_decref(answer);
    return 0;
}

static json_t *read_stdin(void)
{
    struct buf b = BUF_INIT;
    for (;;) {
        uint8_t chunk[65536];
        ssize_t n = read(STDIN_FILENO, chunk, sizeof(chunk));
        if (n == 0)
            break;
        if (n < 0) {
            fprintf(stderr, "Error: reading the value from stdin: %s\n", strerror(errno));
            exit(EXIT_INPUT);
        }
        if (b.len + (size_t)n > STDIN_BYTES_MAX) {
            fprintf(stderr, "Error: more than %u bytes on stdin\n", STDIN_BYTES_MAX);
            exit(EXIT_INPUT);
        }
        buf_add(&b, chunk, (size_t)n);
    }
    json_t *v = bytes_json(slice_of(b.data ? b.data : (const uint8_t *)"", b.len));
    buf_fini(&b);
    return v;
}

int put_run(struct ctl *ctl, int argc, char **argv)
{
    enum { LEASE = 256, PREV_KV, IGNORE_VALUE, IGNORE_LEASE };
    static const struct option options[] = {{"lease", 1, 0, LEASE},
                                            {"prev-kv", 0, 0, PREV_KV},
                                            {"ignore-value", 0, 0, IGNORE_VALUE},
                                            {"ignore-lease", 0, 0, IGNORE_LEASE},
                                            {0, 0, 0, 0}};
    bool ignore_value = false, prev = false;
    json_t *request = json_object();
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case LEASE:
            json_object_set_new(request, "lease", json_integer(number_of("--lease", optarg, 16)));
            break;
        case PREV_KV:
            prev = true;
            break;
        case IGNORE_VALUE:
            ignore_value = true;
            break;
        case IGNORE_LEASE:
            json_object_set_new(request, "ignore_lease", json_true());
            break;
        default:
            usage_of("put");
        }
    }
    argc -= optind;
    argv += optind;
    if (argc < 1 || argc > 2 || (ignore_value && argc == 2))
        usage_of("put");
    json_object_set_new(request, "key", bytes_json(slice_str(argv[0])));
    json_object_set_new(request, "prev_kv", json_boolean(prev));
    json_object_set_new(request, "ignore_value", json_boolean(ignore_value));
    if (!ignore_value)
        json_object_set_new(request, "value", argc == 2 ? bytes_json(slice_str(argv[1])) : read_stdin());
    json_t *answer = door_call(ctl, "put", request);
    if (ctl->output == OUTPUT_JSON) {
        print_json(answer);
    } else {
        printf("OK\n");
        if (json_object_get(answer, "prev_kv"))
            print_kv(ctl, json_object_get(answer, "prev_kv"), true, true);
    }
    json_decref(answer);
    return 0;
}

int del_run(struct ctl *ctl, int argc, char **argv)
{
    enum { PREFIX = 256, FROM_KEY, PREV_KV };
    static const struct option options[] = {
        {"prefix", 0, 0, PREFIX}, {"from-key", 0, 0, FROM_KEY}, {"prev-kv", 0, 0, PREV_KV}, {0, 0, 0, 0}};
    bool prefix = false, from_key = false;
    json_t *request = json_object(), *kv;
    size_t i;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case PREFIX:
            prefix = true;
            break;
        case FROM_KEY:
            from_key = true;
            break;
        case PREV_KV:
            json_object_set_new(request, "prev_kv", json_true());
            break;
        default:
            usage_of("del");
        }
    }
    add_interval(request, argc - optind, argv + optind, prefix, from_key, "del");
    json_t *answer = door_call(ctl, "delete_range", request);
    if (ctl->output == OUTPUT_JSON) {
        print_json(answer);
    } else {
        printf("%lld\n", (long long)json_number(answer, "deleted"));
        json_array_foreach(json_object_get(answer, "prev_kvs"), i, kv) print_kv(ctl, kv, true, true);
    }
    json_decref(answer);
    return 0;
}

int compaction_run(struct ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"physical", 0, 0, 'p'}, {0, 0, 0, 0}};
    json_t *request = json_object();
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c != 'p')
            usage_of("compaction");
        json_object_set_new(request, "physical", json_true());
    }
    if (argc - optind != 1)
        usage_of("compaction");
    int64_t rev = number_of("revision", argv[optind], 10);
    json_object_set_new(request, "revision", json_integer(rev));
    json_t *answer = door_call(ctl, "compact", request);
    if (ctl->output == OUTPUT_JSON)
        print_json(answer);
    else
        printf("compacted revision %lld\n", (long long)rev);
    json_decref(answer);
    return 0;
}
