/* door - the native door from the client's side: nng REQ and SUB sockets, msgpack maps (the only file here that knows
 * nng). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nng/nng.h>
#include <nng/protocol/pubsub0/sub.h>
#include <nng/protocol/reqrep0/req.h>

#include "common/err.h"
#include "common/limits.h"
#include "proto/pack.h"
#include "trinectl/trinectl.h"

#define ANSWER_DEPTH_MAX 600 /* a transaction may nest 64 deep, with three maps and two lists each time */
#define RECONNECT_MS 20
#define NEVER_MS (3600 * 1000)
#define SUBSCRIBER_QUEUE 8192 /* events; what is dropped is fetched all the same */
#define TICK_MS 1000          /* nng may drop an event, and the last one of a burst is followed by none: see watch.c */

static void pack_json(struct buf *out, const json_t *v)
{
    const char *key;
    json_t *item;
    size_t i;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        pack_map(out, (uint32_t)json_object_size(v));
        json_object_foreach((json_t *)(uintptr_t)v, key, item)
        {
            pack_cstr(out, key);
            pack_json(out, item);
        }
        break;
    case JSON_ARRAY:
        pack_array(out, (uint32_t)json_array_size(v));
        json_array_foreach(v, i, item) pack_json(out, item);
        break;
    case JSON_STRING:
        pack_bin(out, slice_of(json_string_value(v), json_string_length(v)));
        break;
    case JSON_INTEGER:
        pack_i64(out, json_integer_value(v));
        break;
    case JSON_TRUE:
        pack_bool(out, true);
        break;
    case JSON_FALSE:
        pack_bool(out, false);
        break;
    default:
        pack_nil(out);
        break;
    }
}

static int unpack_json(struct slice *in, unsigned depth, json_t **out);

static int unpack_list(struct slice *in, unsigned depth, json_t **out)
{
    uint32_t count;
    int err = unpack_array(in, UINT32_MAX, &count);
    json_t *list = json_array();
    for (uint32_t i = 0; !err && i < count; i++) {
        json_t *item;
        if ((err = unpack_json(in, depth + 1, &item)) == 0)
            json_array_append_new(list, item);
    }
    if (err)
        json_decref(list);
    else
        *out = list;
    return err;
}

static int unpack_object(struct slice *in, unsigned depth, json_t **out)
{
    uint32_t count;
    int err = unpack_map(in, UINT32_MAX, &count);
    json_t *object = json_object();
    for (uint32_t i = 0; !err && i < count; i++) {
        struct slice key;
        json_t *item;
        if ((err = unpack_bytes(in, 256, &key)) != 0 || (err = unpack_json(in, depth + 1, &item)) != 0)
            break;
        char *name = slice_dup_str(key);
        json_object_set_new_nocheck(object, name, item);
        free(name);
    }
    if (err)
        json_decref(object);
    else
        *out = object;
    return err;
}

static int unpack_json(struct slice *in, unsigned depth, json_t **out)
{
    struct slice bytes;
    int64_t number;
    uint64_t big;
    bool truth;
    int err;
    if (depth > ANSWER_DEPTH_MAX)
        return E_TOO_BIG;
    switch (unpack_peek(*in)) {
    case PACK_MAP:
        return unpack_object(in, depth, out);
    case PACK_ARRAY:
        return unpack_list(in, depth, out);
    case PACK_BYTES:
        if ((err = unpack_bytes(in, SIZE_MAX, &bytes)) == 0)
            *out = json_stringn_nocheck((const char *)bytes.data, bytes.len);
        return err;
    case PACK_BOOL:
        if ((err = unpack_bool(in, &truth)) == 0)
            *out = json_boolean(truth);
        return err;
    case PACK_NIL:
        *out = json_null();
        return unpack_skip(in);
    case PACK_INT: {
        struct slice again = *in;
        if (unpack_i64(in, &number) == 0) {
            *out = json_integer(number);
            return 0;
        }
        *in = again; /* an unsigned id above 2^63: kept bit by bit, printed as unsigned */
        if ((err = unpack_u64(in, &big)) == 0)
            *out = json_integer((int64_t)big);
        return err;
    }
    default:
        return E_MALFORMED;
    }
}

_Noreturn static void unreachable(const struct ctl *ctl, const char *url, int rv)
{
    if (rv == NNG_ETIMEDOUT)
        fprintf(stderr, "Error: no answer from %s within %u ms\n", url, ctl->timeout_ms);
    else if (rv == NNG_ECONNREFUSED || rv == NNG_ENOENT)
        fprintf(stderr, "Error: nobody listens at %s: does gatewayd run there? (--run-dir or --url names another place)\n", url);
    else
        fprintf(stderr, "Error: %s: %s\n", url, nng_strerror(rv));
    exit(EXIT_UNREACHABLE);
}

/* nng sends a request again when the connection breaks before the answer. What changes something must not happen twice
 * because of that: then there is no second connection, and the answer stays out. */
static bool may_repeat(const char *op)
{
    static const char *const names[] = {"put",         "delete_range", "txn",  "compact",
                                        "lease_grant", "lease_revoke", "alarm", "member_add", "member_remove",
                                        "member_update", "member_promote", "move_leader"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(op, names[i]) == 0)
            return false;
    return true;
}

static nng_socket dial_request(struct ctl *ctl, const char *op)
{
    static nng_socket socket;
    static bool open;
    int rv;
    if (open)
        return socket;
    if ((rv = nng_req0_open(&socket)) != 0)
        unreachable(ctl, ctl->url, rv);
    nng_socket_set_ms(socket, NNG_OPT_SENDTIMEO, (nng_duration)ctl->timeout_ms);
    nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, (nng_duration)ctl->timeout_ms);
    nng_socket_set_ms(socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
    nng_socket_set_size(socket, NNG_OPT_RECVMAXSZ, 0);
    nng_socket_set_ms(socket, NNG_OPT_RECONNMINT, may_repeat(op) ? RECONNECT_MS : NEVER_MS);
    nng_socket_set_ms(socket, NNG_OPT_RECONNMAXT, may_repeat(op) ? RECONNECT_MS : NEVER_MS);
    if ((rv = nng_dial(socket, ctl->url, NULL, 0)) != 0)
        unreachable(ctl, ctl->url, rv);
    open = true;
    return socket;
}

json_t *door_try(struct ctl *ctl, const char *op, json_t *request, struct buf *why, int64_t *code)
{
    nng_socket socket = dial_request(ctl, op);
    struct buf out = BUF_INIT;
    json_object_set_new(request, "op", json_string(op));
    pack_json(&out, request);
    json_decref(request);

    void *data;
    size_t size;
    int rv = nng_send(socket, out.data, out.len, 0);
    if (rv == 0)
        rv = nng_recv(socket, &data, &size, NNG_FLAG_ALLOC);
    buf_fini(&out);
    if (rv != 0)
        unreachable(ctl, ctl->url, rv);

    json_t *answer = NULL;
    struct slice in = slice_of(data, size);
    int err = unpack_json(&in, 0, &answer);
    nng_free(data, size);
    if (err || !json_is_object(answer)) {
        fprintf(stderr, "Error: the answer of %s is not a msgpack map\n", ctl->url);
        exit(EXIT_REFUSED);
    }
    struct slice text = json_bytes(answer, "error");
    if (json_object_get(answer, "error")) {
        buf_add_slice(why, text);
        *code = json_number(answer, "code");
        json_decref(answer);
        return NULL;
    }
    return answer;
}

json_t *door_call(struct ctl *ctl, const char *op, json_t *request)
{
    struct buf why = BUF_INIT;
    int64_t code;
    json_t *answer = door_try(ctl, op, request, &why, &code);
    if (!answer) {
        fprintf(stderr, "Error: %.*s\n", (int)why.len, (const char *)why.data);
        exit(EXIT_REFUSED);
    }
    buf_fini(&why);
    return answer;
}

/* The topic leads: the key, a newline, then the map. Keys may hold newlines, so the map says how long its key is. */
static json_t *parse_event(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        struct slice in = slice_of(data + i + 1, size - i - 1);
        json_t *map = NULL;
        if (data[i] != '\n' || unpack_peek(in) != PACK_MAP || unpack_json(&in, 0, &map) != 0)
            continue;
        struct slice key = json_bytes(map, "key");
        if (in.len == 0 && key.len == i && (i == 0 || memcmp(key.data, data, i) == 0))
            return map;
        json_decref(map);
    }
    return NULL;
}

void door_subscribe(struct ctl *ctl, struct slice topic, void (*ready)(void *arg), bool (*cb)(void *arg, json_t *event),
                    void *arg)
{
    nng_socket socket;
    int rv;
    if ((rv = nng_sub0_open(&socket)) != 0 ||
        (rv = nng_socket_set(socket, NNG_OPT_SUB_SUBSCRIBE, topic.data, topic.len)) != 0 ||
        (rv = nng_socket_set_int(socket, NNG_OPT_RECVBUF, SUBSCRIBER_QUEUE)) != 0 ||
        (rv = nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, TICK_MS)) != 0 ||
        (rv = nng_socket_set_ms(socket, NNG_OPT_RECONNMINT, RECONNECT_MS)) != 0 ||
        (rv = nng_socket_set_ms(socket, NNG_OPT_RECONNMAXT, RECONNECT_MS)) != 0 ||
        (rv = nng_dial(socket, ctl->events_url, NULL, 0)) != 0)
        unreachable(ctl, ctl->events_url, rv);
    ready(arg);
    for (bool more = true; more;) {
        void *data;
        size_t size;
        rv = nng_recv(socket, &data, &size, NNG_FLAG_ALLOC);
        if (rv == NNG_ETIMEDOUT) {
            more = cb(arg, NULL);
            continue;
        }
        if (rv != 0)
            unreachable(ctl, ctl->events_url, rv);
        json_t *event = parse_event(data, size);
        nng_free(data, size);
        if (event) {
            more = cb(arg, event);
            json_decref(event);
        }
    }
    nng_close(socket);
}
