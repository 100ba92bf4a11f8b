/* watch - events as they happen. The PUB socket tells that something happened; what happened is fetched by the
 * `history` operation, from the revision after the last one printed; every second it is asked for anyway. So nothing is
 * missed, doubled or out of order, whatever the socket drops and whichever daemon restarts. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/mem.h"
#include "trinectl/trinectl.h"

#define STATUS_UNAVAILABLE 14 /* gRPC's: a sibling of the gateway restarts */

struct watcher {
    struct ctl *ctl;
    struct slice key;
    json_t *range_end; /* NULL: the key alone */
    bool prev_kv;
    int64_t next; /* first revision not yet printed; 0: from now on */
    int64_t left; /* events still to print; < 0: no limit */
};

static void print_event(struct watcher *w, const json_t *event)
{
    const json_t *prev = json_object_get(event, "prev_kv"), *kv = json_object_get(event, "kv");
    if (w->ctl->output == OUTPUT_JSON) {
        print_json(event);
        return;
    }
    const char *type = json_string_value(json_object_get(event, "type"));
    bool is_delete = type && type[0] == 'D';
    printf("%s\n", is_delete ? "DELETE" : "PUT");
    if (prev)
        print_kv(w->ctl, prev, true, true);
    print_kv(w->ctl, kv, true, true);
}

/* One slice. Waits while the node cannot answer for the moment. */
static json_t *ask(struct watcher *w)
{
    for (;;) {
        json_t *request = json_pack("{s:o, s:I, s:b}", "key", bytes_json(w->key), "start_revision", (json_int_t)w->next,
                                    "prev_kv", w->prev_kv);
        struct buf why = BUF_INIT;
        int64_t code = 0;
        if (w->range_end)
            json_object_set(request, "range_end", w->range_end);
        json_t *answer = door_try(w->ctl, "history", request, &why, &code);
        if (answer)
            return answer;
        if (code != STATUS_UNAVAILABLE) {
            print_flush();
            fprintf(stderr, "Error: %.*s\n", (int)why.len, (const char *)why.data);
            exit(EXIT_REFUSED);
        }
        buf_fini(&why);
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
}

/* Everything from `next` up to now. */
static void fetch(struct watcher *w)
{
    for (bool behind = true; behind && w->left != 0;) {
        json_t *answer = ask(w), *event;
        size_t i;
        if (json_number(answer, "compact_revision") > 0) {
            print_flush();
            fprintf(stderr, "Error: revision %lld is compacted; the first that can be watched is %lld\n",
                    (long long)w->next, (long long)json_number(answer, "compact_revision"));
            exit(EXIT_REFUSED);
        }
        json_array_foreach(json_object_get(answer, "events"), i, event)
        {
            if (w->left == 0)
                break;
            print_event(w, event);
            w->left -= w->left > 0;
        }
        w->next = json_number(answer, "next");
        behind = w->next <= json_number(json_object_get(answer, "header"), "revision");
        json_decref(answer);
    }
    print_flush();
}

static void watch_ready(void *arg)
{
    fetch(arg);
}

static bool watch_event(void *arg, json_t *event)
{
    struct watcher *w = arg;
    if (!event || json_number(event, "revision") >= w->next)
        fetch(w);
    return w->left != 0;
}

int watch_run(struct ctl *ctl, int argc, char **argv)
{
    enum { PREFIX = 256, REV, PREV_KV, COUNT };
    static const struct option options[] = {
        {"prefix", 0, 0, PREFIX}, {"rev", 1, 0, REV}, {"prev-kv", 0, 0, PREV_KV}, {"count", 1, 0, COUNT}, {0, 0, 0, 0}};
    struct watcher w = {.ctl = ctl, .left = -1};
    bool prefix = false, counted = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case PREFIX:
            prefix = true;
            break;
        case REV:
            w.next = number_of("--rev", optarg, 10);
            break;
        case PREV_KV:
            w.prev_kv = true;
            break;
        case COUNT:
            counted = true;
            w.left = number_of("--count", optarg, 10);
            break;
        default:
            usage_of("watch");
        }
    }
    argc -= optind;
    argv += optind;
    if (argc < 1 || argc > 2 || (prefix && argc == 2) || w.next < 0 || (counted && w.left < 1))
        usage_of("watch");
    w.key = slice_str(argv[0]);
    struct slice topic = w.key;
    if (prefix) {
        w.range_end = prefix_end_json(w.key);
        if (w.key.len == 0)
            w.key = slice_of("\0", 1);
    } else if (argc == 2) {
        w.range_end = bytes_json(slice_str(argv[1]));
        topic = SLICE_EMPTY; /* an interval has no common topic: all events are heard, those inside are fetched */
    }
    door_subscribe(ctl, topic, watch_ready, watch_event, &w);
    json_decref(w.range_end);
    return 0;
}
