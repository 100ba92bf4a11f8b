/* member - the members of the cluster: list, add, remove, update, promote; and who leads. Ids are hexadecimal, and texts are
 * etcdctl's, so that scripts can read both. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/conf.h"
#include "common/mem.h"
#include "trinectl/trinectl.h"

static unsigned long long unsigned_in(const json_t *answer, const char *key)
{
    return (unsigned long long)json_number(answer, key);
}

static uint64_t id_of(const char *text)
{
    char *end;
    unsigned long long id = strtoull(text, &end, 16);
    if (*end || end == text || text[0] == '-') {
        fprintf(stderr, "Error: bad member ID arg (%s), expecting ID in Hex\n", text);
        exit(EXIT_USAGE);
    }
    return id;
}

static unsigned long long cluster_in(const json_t *answer)
{
    return unsigned_in(json_object_get(answer, "header"), "cluster_id");
}

static char *joined(const json_t *list)
{
    struct buf b = BUF_INIT;
    json_t *item;
    size_t i;
    json_array_foreach(list, i, item)
        buf_printf(&b, "%s%s", i ? "," : "", json_string_value(item));
    buf_add_byte(&b, 0);
    return (char *)b.data;
}

int member_list_run(struct ctl *ctl, int argc, char **argv)
{
    static const char *const columns[] = {"ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"};
    static const struct option options[] = {{"consistency", 1, 0, 'c'}, {0, 0, 0, 0}};
    bool linearizable = true;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c != 'c' || (strcmp(optarg, "l") != 0 && strcmp(optarg, "s") != 0))
            usage_of("member list");
        linearizable = optarg[0] == 'l';
    }
    if (argc != optind)
        usage_of("member list");
    json_t *a = door_call(ctl, "member_list", json_pack("{s:b}", "linearizable", linearizable)), *m;
    struct print_table *t = ctl->output == OUTPUT_TABLE ? table_new(columns, ARRAY_LEN(columns)) : NULL;
    size_t i;
    if (ctl->output == OUTPUT_JSON)
        print_json(a);
    json_array_foreach(json_object_get(a, "members"), i, m) {
        char id[24], *name = slice_dup_str(json_bytes(m, "name"));
        char *peers = joined(json_object_get(m, "peerURLs")), *clients = joined(json_object_get(m, "clientURLs"));
        const char *learner = json_is_true(json_object_get(m, "isLearner")) ? "true" : "false";
        snprintf(id, sizeof(id), "%llx", unsigned_in(m, "ID"));
        const char *const cells[] = {id, name[0] ? "started" : "unstarted", name, peers, clients, learner};
        if (t)
            table_row(t, cells);
        else if (ctl->output == OUTPUT_SIMPLE)
            printf("%s, %s, %s, %s, %s, %s\n", cells[0], cells[1], cells[2], cells[3], cells[4], cells[5]);
        free(name);
        free(peers);
        free(clients);
    }
    if (t)
        table_print(t);
    json_decref(a);
    return 0;
}

/* A comma list as an array. */
static json_t *urls_json(const char *list)
{
    json_t *urls = json_array();
    for (const char *next = list; next;) {
        struct slice one = conf_next_item(&next);
        json_array_append_new(urls, json_stringn((const char *)one.data, one.len));
    }
    return urls;
}

/* What the new member's configuration is to say, as etcdctl prints it. */
static void print_config(const json_t *answer, const char *name, const char *urls)
{
    struct buf cluster = BUF_INIT;
    const json_t *m, *url;
    uint64_t added = unsigned_in(json_object_get(answer, "member"), "ID");
    size_t i, k;
    json_array_foreach(json_object_get(answer, "members"), i, m) {
        char *theirs = slice_dup_str(json_bytes(m, "name"));
        json_array_foreach(json_object_get(m, "peerURLs"), k, url)
            buf_printf(&cluster, "%s%s=%s", cluster.len ? "," : "", unsigned_in(m, "ID") == added ? name : theirs, json_string_value(url));
        free(theirs);
    }
    printf("\nETCD_NAME=\"%s\"\n", name);
    printf("ETCD_INITIAL_CLUSTER=\"%.*s\"\n", (int)cluster.len, (const char *)cluster.data);
    printf("ETCD_INITIAL_ADVERTISE_PEER_URLS=\"%s\"\n", urls);
    printf("ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n");
    buf_fini(&cluster);
}

int member_add_run(struct ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"peer-urls", 1, 0, 'p'}, {"learner", 0, 0, 'l'}, {0, 0, 0, 0}};
    const char *urls = NULL;
    bool learner = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'p')
            urls = optarg;
        else if (c == 'l')
            learner = true;
        else
            usage_of("member add");
    }
    if (argc - optind != 1)
        usage_of("member add");
    if (!urls || !*urls) {
        fprintf(stderr, "Error: member peer urls not provided\n");
        return EXIT_USAGE;
    }
    json_t *a = door_call(ctl, "member_add", json_pack("{s:o, s:b}", "peerURLs", urls_json(urls), "isLearner", learner));
    if (ctl->output == OUTPUT_JSON) {
        print_json(a);
    } else {
        printf("Member %16llx added to cluster %16llx\n", unsigned_in(json_object_get(a, "member"), "ID"), cluster_in(a));
        print_config(a, argv[optind], urls);
    }
    json_decref(a);
    return 0;
}

/* One id, one sentence. */
static int by_id(struct ctl *ctl, const char *op, uint64_t id, json_t *request, const char *sentence)
{
    json_object_set_new(request, "ID", json_integer((json_int_t)id));
    json_t *a = door_call(ctl, op, request);
    if (ctl->output == OUTPUT_JSON)
        print_json(a);
    else
        printf("Member %16llx %s cluster %16llx\n", (unsigned long long)id, sentence, cluster_in(a));
    json_decref(a);
    return 0;
}

int member_remove_run(struct ctl *ctl, int argc, char **argv)
{
    if (argc != 2)
        usage_of("member remove");
    return by_id(ctl, "member_remove", id_of(argv[1]), json_object(), "removed from");
}

int member_promote_run(struct ctl *ctl, int argc, char **argv)
{
    if (argc != 2)
        usage_of("member promote");
    return by_id(ctl, "member_promote", id_of(argv[1]), json_object(), "promoted in");
}

int member_update_run(struct ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"peer-urls", 1, 0, 'p'}, {0, 0, 0, 0}};
    const char *urls = NULL;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c != 'p')
            usage_of("member update");
        urls = optarg;
    }
    if (argc - optind != 1)
        usage_of("member update");
    if (!urls || !*urls) {
        fprintf(stderr, "Error: member peer urls not provided\n");
        return EXIT_USAGE;
    }
    return by_id(ctl, "member_update", id_of(argv[optind]), json_pack("{s:o}", "peerURLs", urls_json(urls)), "updated in");
}

/* Only the leader can: when it is another node, its own socket must be asked. */
int move_leader_run(struct ctl *ctl, int argc, char **argv)
{
    if (argc != 2)
        usage_of("move-leader");
    uint64_t target = id_of(argv[1]);
    json_t *status = door_call(ctl, "status", json_object());
    unsigned long long leader = unsigned_in(status, "leader"), self = unsigned_in(json_object_get(status, "header"), "member_id");
    json_decref(status);
    if (leader != self) {
        fprintf(stderr, "Error: no leader endpoint given at [%s]; the leader is member %llx\n", ctl->url, leader);
        return EXIT_REFUSED;
    }
    json_t *a = door_call(ctl, "move_leader", json_pack("{s:I}", "targetID", (json_int_t)target));
    if (ctl->output == OUTPUT_JSON)
        print_json(a);
    else
        printf("Leadership transferred from %llx to %llx\n", leader, (unsigned long long)target);
    json_decref(a);
    return 0;
}
