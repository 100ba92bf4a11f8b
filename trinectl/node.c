/* node - endpoint status, health and hashkv; defrag; alarms. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/mem.h"
#include "trinectl/trinectl.h"

static unsigned long long unsigned_in(const json_t *answer, const char *key)
{
    return (unsigned long long)json_number(answer, key);
}

static char *size_text(int64_t bytes)
{
    return bytes >= 1 << 20 ? xasprintf("%.1f MB", (double)bytes / (1 << 20))
                            : xasprintf("%.1f kB", (double)bytes / 1024);
}

static const char *const status_columns[] = {"ENDPOINT",   "ID",         "VERSION",   "DB SIZE",    "IN USE",
                                             "IS LEADER",  "IS LEARNER", "RAFT TERM", "RAFT INDEX", "RAFT APPLIED INDEX",
                                             "REVISION",   "ERRORS"};

static void status_print(struct ctl *ctl, const char *endpoint, const json_t *a, struct print_table *t)
{
    const json_t *header = json_object_get(a, "header");
    char *id = xasprintf("%llx", unsigned_in(header, "member_id")), *size = size_text(json_number(a, "dbSize"));
    char *used = size_text(json_number(a, "dbSizeInUse")), *version = slice_dup_str(json_bytes(a, "version"));
    char *term = xasprintf("%llu", unsigned_in(a, "raftTerm")), *index = xasprintf("%llu", unsigned_in(a, "raftIndex"));
    char *applied = xasprintf("%llu", unsigned_in(a, "raftAppliedIndex")),
         *rev = xasprintf("%lld", (long long)json_number(header, "revision"));
    const char *leader = json_number(a, "leader") == json_number(header, "member_id") ? "true" : "false";
    const char *learner = json_is_true(json_object_get(a, "isLearner")) ? "true" : "false";
    struct buf errors = BUF_INIT;
    json_t *error;
    size_t i;
    json_array_foreach(json_object_get(a, "errors"), i, error)
        buf_printf(&errors, "%s%s", i ? ", " : "", json_string_value(error));
    buf_add_byte(&errors, 0);
    const char *const cells[] = {endpoint, id, version, size, used, leader, learner, term, index, applied, rev, (const char *)errors.data};
    if (t) {
        table_row(t, cells);
    } else if (ctl->output != OUTPUT_JSON) {
        for (i = 0; i < ARRAY_LEN(cells); i++)
            printf("%s%s", i ? ", " : "", cells[i]);
        putchar('\n');
    }
    char *const given[] = {id, size, used, version, term, index, applied, rev};
    for (i = 0; i < ARRAY_LEN(given); i++)
        free(given[i]);
    buf_fini(&errors);
}

/* Every member of the cluster, by way of this node's raftd. Endpoints are their client URLs. Members that do not answer are told
 * on stderr. */
static int status_cluster(struct ctl *ctl, struct print_table *t)
{
    json_t *list = door_call(ctl, "member_list", json_object()), *out = json_array(), *m;
    uint64_t self = unsigned_in(json_object_get(list, "header"), "member_id");
    size_t i;
    int code = 0;
    json_array_foreach(json_object_get(list, "members"), i, m) {
        uint64_t id = unsigned_in(m, "ID");
        struct slice name = json_bytes(m, "name");
        const json_t *first = json_array_get(json_object_get(m, "clientURLs"), 0);
        char *endpoint = first ? xasprintf("%s", json_string_value(first)) : xasprintf("%llx", (unsigned long long)id);
        struct buf why = BUF_INIT;
        int64_t status;
        json_t *a = id == self ? door_try(ctl, "status", json_object(), &why, &status)
                               : door_try(ctl, "member_status", json_pack("{s:I}", "ID", (json_int_t)id), &why, &status);
        if (a) {
            status_print(ctl, endpoint, a, t);
            json_array_append_new(out, json_pack("{s:s, s:o}", "Endpoint", endpoint, "Status", a));
        } else {
            fprintf(stderr, "Failed to get the status of member %llx (%.*s) at %s: %.*s\n", (unsigned long long)id, (int)name.len,
                    (const char *)name.data, endpoint, (int)why.len, (const char *)why.data);
            code = EXIT_REFUSED;
        }
        buf_fini(&why);
        free(endpoint);
    }
    if (ctl->output == OUTPUT_JSON)
        print_json(out);
    json_decref(out);
    json_decref(list);
    return code;
}

int status_run(struct ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"cluster", 0, 0, 'c'}, {0, 0, 0, 0}};
    bool cluster = false;
    int code = 0;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c != 'c')
            usage_of("endpoint status");
        cluster = true;
    }
    if (argc != optind)
        usage_of("endpoint status");
    struct print_table *t = ctl->output == OUTPUT_TABLE ? table_new(status_columns, ARRAY_LEN(status_columns)) : NULL;
    if (cluster) {
        code = status_cluster(ctl, t);
    } else {
        json_t *a = door_call(ctl, "status", json_object());
        status_print(ctl, ctl->url, a, t);
        if (ctl->output == OUTPUT_JSON)
            print_json(a);
        json_decref(a);
    }
    if (t)
        table_print(t);
    return code;
}

/* Healthy means what etcdctl means: a linearizable read of the key "health" is answered. */
int health_run(struct ctl *ctl, int argc, char **argv)
{
    UNUSED(argv);
    if (argc != 1)
        usage_of("endpoint health");
    struct timespec from, to;
    struct buf why = BUF_INIT;
    clock_gettime(CLOCK_MONOTONIC, &from);
    int64_t status = 0;
    json_t *a = door_try(ctl, "range", json_pack("{s:s}", "key", "health"), &why, &status);
    clock_gettime(CLOCK_MONOTONIC, &to);
    double ms = (double)(to.tv_sec - from.tv_sec) * 1e3 + (double)(to.tv_nsec - from.tv_nsec) / 1e6;
    buf_add_byte(&why, 0);
    const char *text = (const char *)why.data;
    if (ctl->output == OUTPUT_JSON) {
        char *took = xasprintf("%.3fms", ms);
        json_t *list = json_pack("[{s:s, s:b, s:s}]", "endpoint", ctl->url, "health", a != NULL, "took", took);
        if (!a)
            json_object_set_new(json_array_get(list, 0), "error", json_string(text));
        print_json(list);
        json_decref(list);
        free(took);
    } else if (ctl->output == OUTPUT_TABLE) {
        static const char *const columns[] = {"ENDPOINT", "HEALTH", "TOOK", "ERROR"};
        char *took = xasprintf("%.3fms", ms);
        struct print_table *t = table_new(columns, ARRAY_LEN(columns));
        table_row(t, (const char *const[]){ctl->url, a ? "true" : "false", took, text});
        table_print(t);
        free(took);
    } else if (a) {
        printf("%s is healthy: successfully committed proposal: took = %.3fms\n", ctl->url, ms);
    } else {
        printf("%s is unhealthy: failed to commit proposal: %s\n", ctl->url, text);
    }
    int code = a ? 0 : EXIT_REFUSED;
    if (a)
        json_decref(a);
    buf_fini(&why);
    return code;
}

int hashkv_run(struct ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"rev", 1, 0, 'r'}, {0, 0, 0, 0}};
    int64_t rev = 0;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c != 'r')
            usage_of("endpoint hashkv");
        rev = number_of("--rev", optarg, 10);
    }
    if (argc != optind)
        usage_of("endpoint hashkv");
    json_t *a = door_call(ctl, "hash_kv", json_pack("{s:I}", "revision", (json_int_t)rev));
    char hash[24];
    snprintf(hash, sizeof(hash), "%llu", unsigned_in(a, "hash"));
    if (ctl->output == OUTPUT_JSON) {
        print_json(a);
    } else if (ctl->output == OUTPUT_TABLE) {
        static const char *const columns[] = {"ENDPOINT", "HASH"};
        struct print_table *t = table_new(columns, ARRAY_LEN(columns));
        table_row(t, (const char *const[]){ctl->url, hash});
        table_print(t);
    } else {
        printf("%s, %s\n", ctl->url, hash);
    }
    json_decref(a);
    return 0;
}

int defrag_run(struct ctl *ctl, int argc, char **argv)
{
    UNUSED(argv);
    if (argc != 1)
        usage_of("defrag");
    json_t *a = door_call(ctl, "defragment", json_object());
    if (ctl->output == OUTPUT_JSON)
        print_json(a);
    else
        printf("Finished defragmenting etcd member[%s]\n", ctl->url);
    json_decref(a);
    return 0;
}

static int print_alarms(struct ctl *ctl, json_t *answer)
{
    json_t *alarm;
    size_t i;
    if (ctl->output == OUTPUT_JSON)
        print_json(answer);
    else
        json_array_foreach(json_object_get(answer, "alarms"), i, alarm)
            printf("memberID:%llu alarm:%s\n", unsigned_in(alarm, "memberID"),
                   json_string_value(json_object_get(alarm, "alarm")));
    json_decref(answer);
    return 0;
}

int alarm_list_run(struct ctl *ctl, int argc, char **argv)
{
    UNUSED(argv);
    if (argc != 1)
        usage_of("alarm list");
    return print_alarms(ctl, door_call(ctl, "alarm", json_object()));
}

/* All that are raised, one by one, as etcd's client does it. */
int alarm_disarm_run(struct ctl *ctl, int argc, char **argv)
{
    UNUSED(argv);
    if (argc != 1)
        usage_of("alarm disarm");
    json_t *raised = door_call(ctl, "alarm", json_object()), *alarm;
    size_t i;
    json_array_foreach(json_object_get(raised, "alarms"), i, alarm)
    {
        json_t *request =
            json_pack("{s:s, s:I}", "action", "DEACTIVATE", "memberID", (json_int_t)json_number(alarm, "memberID"));
        json_object_set(request, "alarm", json_object_get(alarm, "alarm"));
        print_alarms(ctl, door_call(ctl, "alarm", request));
    }
    json_decref(raised);
    return 0;
}
