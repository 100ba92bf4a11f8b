/* recorder - clients that work on a few keys of a cluster through all its endpoints, and record what they asked and
 * what they were told, for the checks of linear.h. Two kinds of clients at each endpoint: some do one operation after
 * the other (get, serializable get, put, compare-and-put, delete, a transaction of two puts); one reads every 20 ms
 * whether or not earlier reads were answered, so that a node that hangs is asked during its whole absence. One thread;
 * the caller polls. */
#ifndef TESTS_LIB_RECORDER_H
#define TESTS_LIB_RECORDER_H

#include <poll.h>

#include "common/buf.h"
#include "common/rand.h"
#include "tests/lib/gclient.h"
#include "tests/lib/linear.h"

#define ENDPOINTS_MAX 7
#define RECORDER_KEYS_MAX 16

struct endpoint {
    char host[64];
    int port;
};

struct recorder_call;
struct recorder_client {
    struct recorder *recorder;
    int endpoint;
    bool prober;
    struct gclient *client;
    size_t busy; /* calls under way */
    uint64_t next_us;
};

struct recorder {
    const struct endpoint *endpoints;
    char prefix[64]; /* of all keys; nobody else uses it */
    int key_count;
    uint64_t rate; /* operations a second of each client */
    bool pretend;  /* reads are serializable and recorded as linearizable: the checks must find out */
    bool stopped;  /* no new operations */
    struct rand rand;
    uint64_t tick; /* goes up with every beginning and end, and names the values */
    struct lin_op *ops;
    size_t op_count, op_cap;
    struct {
        uint64_t value;
        int64_t rev, seen; /* seen: header revision it is from */
    } latest[RECORDER_KEYS_MAX];
    struct recorder_call *calls;
    struct recorder_client *clients;
    size_t client_count;
    uint64_t bad_answers;
    char last_error[256];
};

/* "host:port,host:port". Returns the count, 0 if it makes no sense. */
int endpoints_parse(const char *text, struct endpoint *endpoints);

void recorder_init(struct recorder *r, const struct endpoint *endpoints, int endpoint_count, const char *prefix,
                   int clients_each);
void recorder_fini(struct recorder *r);
void recorder_go(struct recorder *r); /* begins what is due, gives up what takes too long */
size_t recorder_open(const struct recorder *r);
/* The number of the key in these bytes; -1: not one of ours. */
int recorder_key(const struct recorder *r, struct slice key);
uint64_t recorder_value(struct slice value); /* 0: not one of ours */

#endif
