/* witness - see witness.h. */
#include "tests/lib/witness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/api.h"
#include "proto/pb.h"

static const char *const daemons[3] = {"raftd", "stored", "gatewayd"};

/* Puts value, reads it back linearizably. NULL: right; else what was wrong. */
static const char *wrong(struct gclient *c, const char *value)
{
    struct buf request = BUF_INIT, reply = BUF_INIT;
    const char *why = NULL;
    api_encode_put(&request, &(struct api_put){.key = SLICE_LIT("witness"), .value = slice_str(value)});
    if (gclient_unary(c, "/etcdserverpb.KV/Put", buf_slice(&request), NULL, NULL, 20000) != 0)
        why = "its put failed";
    buf_reset(&request);
    api_encode_range(&request, &(struct api_range){.key = SLICE_LIT("witness")});
    if (!why && gclient_unary(c, "/etcdserverpb.KV/Range", buf_slice(&request), &reply, NULL, 20000) != 0)
        why = "its get failed";
    struct slice in = buf_slice(&reply);
    struct pb_field f;
    struct api_key_value kv = {0};
    while (!why && pb_next(&in, &f) == 1)
        if (f.number == 2)
            api_decode_key_value(f.bytes, &kv);
    if (!why && !slice_eq(kv.value, slice_str(value)))
        why = "it read another value";
    buf_fini(&request);
    buf_fini(&reply);
    return why;
}

void witness_start(struct witness *w, struct node *n)
{
    *w = (struct witness){.node = n, .client = node_connect(n)};
    for (size_t i = 0; i < 3; i++)
        w->pids[i] = node_pid(n, daemons[i]);
}

void witness_check(struct witness *w, const char *after)
{
    char value[32];
    if (getenv("ABUSE_VERBOSE"))
        printf("after %s\n", after);
    snprintf(value, sizeof(value), "%u", ++w->count);
    const char *old = wrong(w->client, value);
    struct gclient *fresh = gclient_connect("127.0.0.1", w->node->port);
    snprintf(value, sizeof(value), "%u", ++w->count);
    const char *new = fresh ? wrong(fresh, value) : "it was not let in";
    gclient_free(fresh);
    check_note(!old && !new, __FILE__, __LINE__, "a well-behaved client is served", "after %s: old connection: %s; new one: %s", after, old ? old : "fine",
               new ? new : "fine");
    for (size_t i = 0; i < 3; i++) {
        long pid = node_pid(w->node, daemons[i]);
        check_note(pid == w->pids[i], __FILE__, __LINE__, "the daemon lives", "after %s: %s", after, daemons[i]);
        w->pids[i] = pid; /* say it once */
    }
    if (gclient_lost(w->client)) {
        gclient_free(w->client);
        w->client = node_connect(w->node);
    }
}

void witness_stop(struct witness *w)
{
    gclient_free(w->client);
}
