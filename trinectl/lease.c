/* lease - grant, revoke, timetolive, keep-alive, list. Ids are hexadecimal, as etcdctl writes them. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "trinectl/trinectl.h"

static int64_t id_of(const char *text)
{
    char *end;
    unsigned long long id = strtoull(text, &end, 16);
    if (*end || end == text) {
        fprintf(stderr, "Error: bad lease ID (%s), expecting ID in Hex\n", text);
        exit(EXIT_USAGE);
    }
    return (int64_t)id;
}

static unsigned long long id_in(const json_t *answer)
{
    return (unsigned long long)json_number(answer, "ID");
}

int lease_grant_run(struct ctl *ctl, int argc, char **argv)
{
    char *end;
    if (argc != 2)
        usage_of("lease grant");
    long long ttl = strtoll(argv[1], &end, 10);
    if (*end || end == argv[1]) {
        fprintf(stderr, "Error: bad TTL (%s)\n", argv[1]);
        return EXIT_USAGE;
    }
    json_t *answer = door_call(ctl, "lease_grant", json_pack("{s:I}", "TTL", (json_int_t)ttl));
    if (ctl->output == OUTPUT_JSON)
        print_json(answer);
    else
        printf("lease %016llx granted with TTL(%llds)\n", id_in(answer), (long long)json_number(answer, "TTL"));
    json_decref(answer);
    return 0;
}

int lease_revoke_run(struct ctl *ctl, int argc, char **argv)
{
    if (argc != 2)
        usage_of("lease revoke");
    int64_t id = id_of(argv[1]);
    json_t *answer = door_call(ctl, "lease_revoke", json_pack("{s:I}", "ID", (json_int_t)id));
    if (ctl->output == OUTPUT_JSON)
        print_json(answer);
    else
        printf("lease %016llx revoked\n", (unsigned long long)id);
    json_decref(answer);
    return 0;
}

int lease_timetolive_run(struct ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"keys", 0, 0, 'k'}, {0, 0, 0, 0}};
    bool keys = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c != 'k')
            usage_of("lease timetolive");
        keys = true;
    }
    if (argc - optind != 1)
        usage_of("lease timetolive");
    json_t *answer = door_call(ctl, "lease_time_to_live",
                               json_pack("{s:I, s:b}", "ID", (json_int_t)id_of(argv[optind]), "keys", keys)),
           *key;
    size_t i;
    int64_t ttl = json_number(answer, "TTL");
    if (ctl->output == OUTPUT_JSON) {
        print_json(answer);
    } else if (ttl == -1) {
        printf("lease %016llx already expired\n", id_in(answer));
    } else {
        printf("lease %016llx granted with TTL(%llds), remaining(%llds)", id_in(answer),
               (long long)json_number(answer, "grantedTTL"), (long long)ttl);
        if (keys) {
            printf(", attached keys([");
            json_array_foreach(json_object_get(answer, "keys"), i, key)
            {
                if (i)
                    putchar(' ');
                print_bytes(ctl, slice_of(json_string_value(key), json_string_length(key)));
            }
            printf("])");
        }
        putchar('\n');
    }
    json_decref(answer);
    return 0;
}

int lease_keep_alive_run(struct ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"once", 0, 0, 'o'}, {0, 0, 0, 0}};
    bool once = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c != 'o')
            usage_of("lease keep-alive");
        once = true;
    }
    if (argc - optind != 1)
        usage_of("lease keep-alive");
    int64_t id = id_of(argv[optind]);
    for (;;) {
        json_t *answer = door_call(ctl, "lease_keep_alive", json_pack("{s:I}", "ID", (json_int_t)id));
        int64_t ttl = json_number(answer, "TTL");
        if (ctl->output == OUTPUT_JSON)
            print_json(answer);
        else if (ttl > 0)
            printf("lease %016llx keepalived with TTL(%lld)\n", (unsigned long long)id, (long long)ttl);
        else
            printf("lease %016llx expired or revoked.\n", (unsigned long long)id);
        json_decref(answer);
        print_flush();
        if (once || ttl <= 0)
            return 0;
        struct timespec pause = {.tv_sec = ttl / 3, .tv_nsec = ttl % 3 * 333000000};
        nanosleep(&pause, NULL);
    }
}

int lease_list_run(struct ctl *ctl, int argc, char **argv)
{
    UNUSED(argv);
    if (argc != 1)
        usage_of("lease list");
    json_t *answer = door_call(ctl, "lease_leases", json_object()), *leases = json_object_get(answer, "leases"), *lease;
    size_t i;
    if (ctl->output == OUTPUT_JSON) {
        print_json(answer);
    } else {
        printf("found %zu leases\n", json_array_size(leases));
        json_array_foreach(leases, i, lease) printf("%016llx\n", id_in(lease));
    }
    json_decref(answer);
    return 0;
}
