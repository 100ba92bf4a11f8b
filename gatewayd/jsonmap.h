/* jsonmap - the paths of the JSON gateway: one table, path -> rpc and its two message types. */
#ifndef GATEWAYD_JSONMAP_H
#define GATEWAYD_JSONMAP_H

#include <protobuf-c/protobuf-c.h>

#include "common/buf.h"

struct json_method {
    const char *path; /* "/v3/kv/range" */
    const char *rpc;  /* "/etcdserverpb.KV/Range" */
    const ProtobufCMessageDescriptor *input, *output;
};

/* Also below /v3beta/ and /v3alpha/, which older clients use. False: no such path. */
bool json_method_find(struct slice path, struct json_method *m);
size_t json_method_count(void);
struct json_method json_method_at(size_t pos);

#endif
