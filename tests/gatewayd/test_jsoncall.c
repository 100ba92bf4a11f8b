/* jsoncall, web, ws - requests over HTTP/1.1 with handlers of the test's own behind the gateway's paths; no sockets. */
#include "gatewayd/jsoncall.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "common/err.h"
#include "common/limits.h"
#include "gatewayd/http1.h"
#include "gatewayd/ws.h"
#include "proto/pb.h"

/* --- handlers -------------------------------------------------------------------------------------------------------- */

static struct {
    struct call *call;
    size_t messages, half_closes, closeds, writables;
    char token[64];
    bool pause;
} seen;

static void note(struct call *c)
{
    seen.call = c;
    seen.messages++;
    snprintf(seen.token, sizeof(seen.token), "%.*s", (int)call_token(c).len, (const char *)call_token(c).data);
    if (seen.pause) {
        call_pause(c, true);
    }
}

/* A RangeResponse of one pair whose key is the request's. */
static void range(struct call *c, struct slice bytes)
{
    struct pb_field f;
    struct buf kv = BUF_INIT, out = BUF_INIT;
    note(c);
    if (pb_next(&bytes, &f) == 1 && f.number == 1) {
        pb_add_bytes(&kv, 1, f.bytes);
        pb_add_message(&out, 2, buf_slice(&kv));
        call_reply(c, buf_slice(&out));
    } else {
        call_fail(c, E_EMPTY_KEY, NULL);
    }
    buf_fini(&kv);
    buf_fini(&out);
}

static void hold(struct call *c, struct slice bytes) { UNUSED(bytes); note(c); }

/* WatchResponse{watch_id: how many messages came} for each message. */
static void watch(struct call *c, struct slice bytes)
{
    UNUSED(bytes);
    note(c);
    uint8_t text[64];
    struct buf out = {text, 0, sizeof(text)};
    pb_add_int(&out, 2, (int64_t)seen.messages);
    call_send(c, buf_slice(&out), NULL, 0);
}

static void half_closed(struct call *c) { seen.half_closes++; call_end(c, OK, NULL); }
static void half_closed_only(struct call *c) { UNUSED(c); seen.half_closes++; }
static void writable(struct call *c) { UNUSED(c); seen.writables++; }
static void closed(struct call *c) { UNUSED(c); seen.closeds++; }

static const struct call_handler handlers[] = {
    {"/etcdserverpb.KV/Range", "t", "Range", false, false, range, NULL, NULL, closed},
    {"/etcdserverpb.KV/Put", "t", "Put", false, false, hold, NULL, writable, closed},
    {"/etcdserverpb.Watch/Watch", "t", "Watch", true, true, watch, half_closed_only, writable, closed},
    {"/etcdserverpb.Lease/LeaseKeepAlive", "t", "LeaseKeepAlive", true, true, watch, half_closed, writable, closed},
    {"/etcdserverpb.Maintenance/Snapshot", "t", "Snapshot", false, true, hold, NULL, writable, closed},
};

static const struct call_handler *find(struct slice path)
{
    for (size_t i = 0; i < ARRAY_LEN(handlers); i++) {
        if (slice_eq(path, slice_str(handlers[i].path))) {
            return &handlers[i];
        }
    }
    return NULL;
}

/* --- rig ---------------------------------------------------------------------------------------------------------------- */

struct rig {
    struct conf conf;
    struct loop *loop;
    struct gatewayd g;
    struct client client;
    struct http1 *h;
    struct buf out;
};

static void no_wake(void *arg) { UNUSED(arg); }

static struct rig *rig_new(void)
{
    struct rig *r = xcalloc(1, sizeof(*r));
    memset(&seen, 0, sizeof(seen));
    conf_init(&r->conf);
    r->loop = loop_new();
    gatewayd_init(&r->g, &r->conf, r->loop);
    r->g.find = find;
    identity_on_auth(&r->g, &(struct fr_auth){.enabled = 0});
    r->client = (struct client){.serves = SERVES_GRPC | SERVES_HTTP};
    r->h = http1_new(&r->g, no_wake, NULL);
    http1_set_client(r->h, &r->client);
    return r;
}

static void rig_free(struct rig *r)
{
    http1_free(r->h);
    cr_expect_eq(r->g.call_count, 0);
    cr_expect_eq(r->g.inbound_bytes, 0);
    cr_expect_eq(r->g.outbound_bytes, 0);
    gatewayd_fini(&r->g);
    loop_free(r->loop);
    conf_fini(&r->conf);
    buf_fini(&r->out);
    free(r);
}

/* What the server has said since the last time. */
static const char *hear(struct rig *r)
{
    buf_reset(&r->out);
    do {
        http1_write(r->h, &r->out, SIZE_MAX);
    } while (http1_has_output(r->h));
    buf_add_byte(&r->out, '\0');
    return (const char *)r->out.data;
}

static const char *send_text(struct rig *r, const char *text)
{
    cr_expect_eq(http1_receive(r->h, slice_str(text)), OK);
    return hear(r);
}

static const char *post_with(struct rig *r, const char *path, const char *headers, const char *body)
{
    char *text = xasprintf("POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n%s", path, headers, strlen(body), body);
    const char *answer = send_text(r, text);
    free(text);
    return answer;
}

static const char *post(struct rig *r, const char *path, const char *body) { return post_with(r, path, "", body); }

static bool begins(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }
static bool ends(const char *text, const char *with)
{
    return strlen(text) >= strlen(with) && strcmp(text + strlen(text) - strlen(with), with) == 0;
}

/* --- unary -------------------------------------------------------------------------------------------------------------- */

Test(jsoncall, a_request_becomes_a_message_and_its_answer_json)
{
    struct rig *r = rig_new();
    for (int i = 0; i < 3; i++) { /* kept alive */
        const char *answer = post(r, "/v3/kv/range", "{\"key\":\"Zm9v\"}");
        cr_expect(begins(answer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"), "%s", answer);
        cr_expect(ends(answer, "\r\n\r\n{\"kvs\":[{\"key\":\"Zm9v\"}]}"), "%s", answer);
    }
    cr_expect(ends(post(r, "/v3beta/kv/range", "{\"key\":\"Zm9v\"}"), "{\"kvs\":[{\"key\":\"Zm9v\"}]}"));
    cr_expect(ends(post(r, "/v3alpha/kv/range", "{\"key\":\"Zm9v\"}"), "{\"kvs\":[{\"key\":\"Zm9v\"}]}"));
    cr_expect_eq(seen.messages, 5);
    cr_expect_eq(seen.closeds, 5);
    rig_free(r);
}

Test(jsoncall, errors_have_both_shapes_and_the_right_status)
{
    struct rig *r = rig_new();
    const char *answer = post(r, "/v3/kv/range", "{}");
    cr_expect(begins(answer, "HTTP/1.1 400 "));
    cr_expect(ends(answer, "{\"error\":\"etcdserver: key is not provided\",\"message\":\"etcdserver: key is not provided\",\"code\":3}"));
    answer = post(r, "/v3/kv/range", "{\"key\":");
    cr_expect(begins(answer, "HTTP/1.1 400 "));
    cr_expect_not_null(strstr(answer, "\"error\":\"invalid JSON at byte 7: "));
    cr_expect_not_null(strstr(answer, "\"code\":3"));
    cr_expect(begins(post(r, "/v3/kv/nothing", "{}"), "HTTP/1.1 404 "));
    cr_expect(begins(post(r, "/v3/kv/txn", "{}"), "HTTP/1.1 501 "), "an rpc that is not served");
    answer = send_text(r, "GET /v3/kv/range HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect(begins(answer, "HTTP/1.1 501 ") && strstr(answer, "Method Not Allowed") != NULL);
    static const int table[][2] = {{0, 200}, {1, 499}, {2, 500}, {3, 400}, {4, 504}, {5, 404}, {6, 409}, {7, 403}, {8, 429}, {9, 400},
        {10, 409}, {11, 400}, {12, 501}, {13, 500}, {14, 503}, {15, 500}, {16, 401}, {17, 500}, {-1, 500}};
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        cr_expect_eq(web_status_of_grpc(table[i][0]), table[i][1], "%d", table[i][0]);
    }
    rig_free(r);
}

Test(jsoncall, a_body_may_come_in_chunks_and_after_100_continue)
{
    struct rig *r = rig_new();
    const char *answer = send_text(r, "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
    cr_expect_str_eq(answer, "HTTP/1.1 100 Continue\r\n\r\n");
    static const char body[] = "7;note=1\r\n{\"key\":\r\n00000007\r\n\"Zm9v\"}\r\n0\r\nX-Trailer: 1\r\n\r\n";
    for (size_t i = 0; i < sizeof(body) - 2; i++) {
        cr_expect_eq(http1_receive(r->h, slice_of(body + i, 1)), OK);
    }
    cr_expect_eq(seen.messages, 0);
    answer = send_text(r, "\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect(begins(answer, "HTTP/1.1 200 OK") && strstr(answer, "\"Zm9v\"}]}HTTP/1.1 200 OK") != NULL, "%s", answer);
    rig_free(r);
}

Test(jsoncall, chunks_that_can_be_read_in_two_ways_are_refused)
{
    static const char *const bad[] = {"g\r\n", "\r\n", "0x1\r\n", "1\n", "-1\r\n", "1 2 \r\n\r\nx", "100000000\r\n", "1\r\nab\r\n", "1\r\na\n0\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct rig *r = rig_new();
        char *text = xasprintf("POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%s", bad[i]);
        const char *answer = send_text(r, text);
        cr_expect(begins(answer, "HTTP/1.1 400 ") || begins(answer, "HTTP/1.1 413 "), "%zu %s", i, answer);
        cr_expect(http1_is_finished(r->h));
        free(text);
        rig_free(r);
    }
}

Test(jsoncall, a_body_has_a_limit)
{
    struct rig *r = rig_new();
    char *part = xmalloc(65537);
    memset(part, ' ', 65536);
    cr_expect_eq(http1_receive(r->h, SLICE_LIT("POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")), OK);
    size_t sent = 0;
    while (!http1_is_finished(r->h) && sent < 2 * JSON_BODY_BYTES_MAX) {
        cr_assert_eq(http1_receive(r->h, SLICE_LIT("10000\r\n")), OK);
        http1_receive(r->h, slice_of(part, 65536));
        http1_receive(r->h, SLICE_LIT("\r\n"));
        sent += 65536;
        const char *answer = hear(r);
        cr_expect(answer[0] == '\0' || begins(answer, "HTTP/1.1 413 "));
    }
    cr_expect(sent >= JSON_BODY_BYTES_MAX && sent <= JSON_BODY_BYTES_MAX + 65536, "%zu", sent);
    free(part);
    rig_free(r);
}

Test(jsoncall, tokens_and_deadlines_are_taken_from_headers)
{
    struct rig *r = rig_new();
    post_with(r, "/v3/kv/put", "Authorization: Bearer abc.7\r\nGrpc-Timeout: 100m\r\n", "{}");
    cr_expect_str_eq(seen.token, "abc.7");
    cr_expect_eq(call_deadline_ms(seen.call), loop_now_ms(r->loop) + 100);
    gatewayd_fire_timers(&r->g, loop_now_ms(r->loop) + 100);
    cr_expect(begins(hear(r), "HTTP/1.1 504 "));
    cr_expect_eq(seen.closeds, 1);
    post_with(r, "/v3/kv/put", "authorization: plain\r\n", "{}");
    cr_expect_str_eq(seen.token, "plain");
    rig_free(r);
}

Test(jsoncall, a_client_that_goes_away_ends_its_call)
{
    struct rig *r = rig_new();
    post(r, "/v3/kv/put", "{}");
    cr_expect(http1_end_of_input(r->h), "it may still read the answer");
    cr_expect_eq(seen.closeds, 0);
    http1_free(r->h);
    cr_expect_eq(seen.closeds, 1);
    r->h = http1_new(&r->g, no_wake, NULL);
    post(r, "/v3/watch", "{}");
    cr_expect_not(http1_end_of_input(r->h), "a stream would never notice");
    rig_free(r);
}

Test(jsoncall, an_answer_in_parts_is_put_together_and_has_a_limit)
{
    struct rig *r = rig_new();
    post(r, "/v3/kv/put", "{}");
    struct buf prev = BUF_INIT, m = BUF_INIT;
    pb_add_bytes(&prev, 1, SLICE_LIT("key"));
    pb_add_message(&m, 2, buf_slice(&prev));
    call_reply_begin(seen.call, m.len);
    for (size_t i = 0; i < m.len; i++) {
        cr_expect_str_eq(hear(r), "");
        call_reply_part(seen.call, buf_part(&m, i, 1));
    }
    cr_expect(ends(hear(r), "{\"prev_kv\":{\"key\":\"a2V5\"}}"));
    post(r, "/v3/kv/put", "{}");
    call_reply_begin(seen.call, JSON_ANSWER_BYTES_MAX + 1);
    call_reply_part(seen.call, SLICE_LIT("x"));
    cr_expect(begins(hear(r), "HTTP/1.1 429 "));
    cr_expect_eq(seen.closeds, 2);
    post(r, "/v3/kv/put", "{}");
    call_reply(seen.call, SLICE_LIT("\xff\xff"));
    cr_expect(begins(hear(r), "HTTP/1.1 500 "));
    buf_fini(&prev), buf_fini(&m);
    rig_free(r);
}

/* --- streams -------------------------------------------------------------------------------------------------------------- */

Test(jsoncall, a_stream_says_one_object_a_line)
{
    struct rig *r = rig_new();
    const char *answer = post(r, "/v3/lease/keepalive", "{\"ID\":1}{\"ID\":2}\n {\"ID\":3} ");
    cr_expect(begins(answer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"));
    cr_expect_not_null(strstr(answer, "Transfer-Encoding: chunked\r\n"));
    cr_expect_eq(seen.messages, 3);
    cr_expect_eq(seen.half_closes, 1);
    cr_expect(ends(answer, "\r\n0\r\n\r\n"));
    cr_expect(begins(send_text(r, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200"), "and the connection goes on");
    rig_free(r);
}

Test(jsoncall, a_watch_goes_on_after_its_body_and_ends_with_an_error_line)
{
    struct rig *r = rig_new();
    const char *answer = post(r, "/v3/watch", "{\"create_request\":{\"key\":\"YQ==\"}}");
    cr_expect_not_null(strstr(answer, "\r\n1c\r\n{\"result\":{\"watch_id\":\"1\"}}\n\r\n"), "%s", answer);
    cr_expect_eq(seen.half_closes, 1);
    call_send(seen.call, SLICE_EMPTY, NULL, 0);
    cr_expect_not_null(strstr(hear(r), "{\"result\":{}}"));
    call_end(seen.call, E_NO_LEADER, NULL);
    answer = hear(r);
    cr_expect_not_null(strstr(answer, "{\"error\":{\"grpc_code\":14,\"http_code\":503,\"message\":\"etcdserver: no leader\","
        "\"http_status\":\"Service Unavailable\",\"code\":14}}"), "%s", answer);
    cr_expect(ends(answer, "0\r\n\r\n"));
    rig_free(r);
}

Test(jsoncall, a_stream_that_never_began_has_the_status_of_its_error)
{
    struct rig *r = rig_new();
    const char *answer = post(r, "/v3/watch", "{\"create_request\":{\"start_revision\":\"x\"}}");
    cr_expect(begins(answer, "HTTP/1.1 400 "));
    cr_expect_not_null(strstr(answer, "{\"error\":{\"grpc_code\":3,\"http_code\":400,\"message\":\"invalid JSON"));
    cr_expect(begins(post(r, "/v3/watch", "nonsense"), "HTTP/1.1 400 "));
    cr_expect(begins(post(r, "/v3/watch", "{\"create_request\":"), "HTTP/1.1 400 "), "cut off");
    rig_free(r);
}

Test(jsoncall, a_stream_body_may_come_slowly_and_is_answered_meanwhile)
{
    struct rig *r = rig_new();
    send_text(r, "POST /v3/watch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n1\r\n{\r\n");
    cr_expect_eq(seen.messages, 1);
    cr_expect_eq(http1_tick(r->h, loop_now_ms(r->loop)), OK);
    cr_expect_not_null(strstr(send_text(r, "1\r\n}\r\n"), "{\"watch_id\":\"2\"}"));
    http1_shutdown(r->h);
    const char *answer = hear(r);
    cr_expect_not_null(strstr(answer, "server stopped"), "%s", answer);
    cr_expect(http1_is_finished(r->h));
    cr_expect_eq(seen.closeds, 1);
    rig_free(r);
}

Test(jsoncall, a_paused_stream_is_given_nothing_until_it_goes_on)
{
    struct rig *r = rig_new();
    seen.pause = true;
    post(r, "/v3/watch", "{}{}{}");
    cr_expect_eq(seen.messages, 1);
    seen.pause = false;
    call_pause(seen.call, false);
    hear(r);
    cr_expect_eq(seen.messages, 3);
    cr_expect_eq(seen.half_closes, 1);
    rig_free(r);
}

Test(jsoncall, what_the_client_does_not_read_waits_in_the_call)
{
    struct rig *r = rig_new();
    post(r, "/v3/maintenance/snapshot", "{}");
    struct buf m = BUF_INIT;
    uint8_t *blob = xcalloc(1, 100000);
    pb_add_bytes(&m, 3, slice_of(blob, 100000));
    for (int i = 0; i < 20; i++) {
        call_send(seen.call, buf_slice(&m), NULL, 0);
    }
    struct buf out = BUF_INIT;
    for (int i = 0; i < 10; i++) { /* a client that takes little: no more is converted than fits */
        buf_reset(&out);
        http1_write(r->h, &out, 10);
    }
    cr_expect_gt(call_queued_bytes(seen.call), 18u * 100000);
    cr_expect_eq(seen.writables, 0);
    call_end(seen.call, OK, NULL);
    cr_expect(ends(hear(r), "0\r\n\r\n"));
    cr_expect_geq(seen.writables, 0);
    buf_fini(&out), buf_fini(&m);
    free(blob);
    rig_free(r);
}

/* --- who may ask -------------------------------------------------------------------------------------------------------------- */

static void set(struct rig *r, const char *key, const char *value)
{
    struct buf text = BUF_INIT;
    cr_assert_eq(conf_set(&r->conf, key, value, "test", &text), OK);
    buf_fini(&text);
}

Test(web, origins_are_allowed_by_cors)
{
    struct rig *r = rig_new();
    const char *answer = send_text(r, "OPTIONS /v3/kv/range HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\n\r\n");
    cr_expect(begins(answer, "HTTP/1.1 200 OK\r\n"));
    cr_expect_not_null(strstr(answer, "Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE\r\n"));
    cr_expect_not_null(strstr(answer, "Access-Control-Allow-Origin: *\r\n"));
    cr_expect_not_null(strstr(answer, "Access-Control-Allow-Headers: accept, content-type, authorization\r\n"));
    set(r, "cors", "http://a,http://b:8080");
    answer = post_with(r, "/v3/kv/range", "Origin: http://b:8080\r\n", "{}");
    cr_expect_not_null(strstr(answer, "Access-Control-Allow-Origin: http://b:8080\r\n"));
    static const char *const others[] = {"Origin: http://c\r\n", "Origin: http://b\r\n", "", "Origin: \r\n"};
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        cr_expect_null(strstr(post_with(r, "/v3/kv/range", others[i], "{}"), "Access-Control"), "%s", others[i]);
    }
    rig_free(r);
}

Test(web, hosts_are_compared_with_the_whitelist_unless_it_is_tls)
{
    struct rig *r = rig_new();
    set(r, "host-whitelist", "good.example,10.0.0.1,::1");
    const char *answer = send_text(r, "GET /version HTTP/1.1\r\nHost: evil.example:2379\r\n\r\n");
    cr_expect(begins(answer, "HTTP/1.1 421 Misdirected Request\r\n"));
    cr_expect_not_null(strstr(answer, "the Host header was unrecognized: \"evil.example\""));
    static const char *const good[] = {"good.example", "good.example:2379", "10.0.0.1:1", "[::1]:2379", "[::1]"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        char *text = xasprintf("GET /version HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]);
        cr_expect(begins(send_text(r, text), "HTTP/1.1 200 "), "%s", good[i]);
        free(text);
    }
    cr_expect(begins(post(r, "/v3/kv/range", "{\"key\":\"YQ==\"}"), "HTTP/1.1 421 "), "Host: x");
    r->client.is_tls = true;
    cr_expect(begins(post(r, "/v3/kv/range", "{\"key\":\"YQ==\"}"), "HTTP/1.1 200 "));
    rig_free(r);
}

Test(web, a_certificates_name_is_no_user_of_the_gateway)
{
    struct rig *r = rig_new();
    static char name[] = "alice";
    r->client.is_tls = true;
    r->client.common_name = name;
    set(r, "client-cert-auth", "true");
    cr_expect(begins(post(r, "/v3/kv/range", "{\"key\":\"YQ==\"}"), "HTTP/1.1 200 "), "auth is off");
    identity_on_auth(&r->g, &(struct fr_auth){.enabled = 1, .auth_rev = 5});
    const char *answer = post(r, "/v3beta/kv/range", "{\"key\":\"YQ==\"}");
    cr_expect(begins(answer, "HTTP/1.1 400 "));
    cr_expect_not_null(strstr(answer, "CommonName of client sending a request against gateway will be ignored and not used as expected\n"));
    cr_expect(begins(send_text(r, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200 "), "only the gateway");
    r->client.common_name = NULL;
    cr_expect(begins(post(r, "/v3/kv/range", "{\"key\":\"YQ==\"}"), "HTTP/1.1 200 "), "no name: stored says what nobody may");
    rig_free(r);
}

Test(web, listeners_of_metrics_serve_nothing_else)
{
    struct rig *r = rig_new();
    r->client.serves = SERVES_METRICS;
    static const char *const none[] = {"/version", "/debug/vars", "/v3/kv/range", "/v3/watch", "/"};
    for (size_t i = 0; i < ARRAY_LEN(none); i++) {
        cr_expect(begins(post(r, none[i], "{}"), "HTTP/1.1 404 "), "%s", none[i]);
    }
    cr_expect(begins(send_text(r, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 503 "));
    cr_expect(begins(send_text(r, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 503 "));
    rig_free(r);
}

Test(web, the_gateway_can_be_switched_off)
{
    struct rig *r = rig_new();
    set(r, "enable-grpc-gateway", "false");
    const char *answer = post(r, "/v3/kv/range", "{\"key\":\"YQ==\"}");
    cr_expect(begins(answer, "HTTP/1.1 404 ") && ends(answer, "404 page not found\n"));
    rig_free(r);
}

Test(web, checks_of_health_list_what_failed)
{
    struct rig *r = rig_new(); /* no sibling is there */
    const char *answer = send_text(r, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect(begins(answer, "HTTP/1.1 503 "));
    cr_expect_not_null(strstr(answer, "[-]data_corruption failed: "));
    cr_expect_not_null(strstr(answer, "[-]serializable_read failed: range error: sibling daemon not reachable\n"));
    cr_expect_not_null(strstr(answer, "[-]linearizable_read failed: range error: etcdserver: no leader\n"));
    cr_expect_not_null(strstr(answer, "[+]non_learner ok\n"));
    answer = send_text(r, "GET /readyz?exclude=data_corruption&exclude=serializable_read&exclude=linearizable_read&exclude=nonsense HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect(begins(answer, "HTTP/1.1 200 ") && ends(answer, "\r\n\r\nok\n"));
    answer = send_text(r, "GET /readyz/non_learner?verbose HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect(ends(answer, "\r\n\r\n[+]non_learner ok\nok\n"));
    r->g.is_learner = true;
    cr_expect(begins(send_text(r, "GET /readyz/non_learner HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 503 "));
    cr_expect(begins(send_text(r, "GET /livez/non_learner HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 404 "), "no check of livez");
    cr_expect(begins(send_text(r, "GET /readyz/ HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 404 "));
    static const char *const paths[] = {"/health", "/livez", "/readyz", "/livez/serializable_read"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        answer = post(r, paths[i], "");
        cr_expect(begins(answer, "HTTP/1.1 405 ") && strstr(answer, "Allow: GET\r\n") != NULL, "%s", paths[i]);
    }
    rig_free(r);
}

Test(web, queries_and_hosts_are_taken_apart)
{
    cr_expect(web_query_has(SLICE_LIT("a=1&verbose&b="), "verbose", NULL));
    cr_expect(web_query_has(SLICE_LIT("verbose=1"), "verbose", NULL));
    cr_expect_not(web_query_has(SLICE_LIT("verbosex&xverbose"), "verbose", NULL));
    cr_expect(slice_eq(web_host_name(SLICE_LIT("[::1]:80")), SLICE_LIT("::1")));
    cr_expect(slice_eq(web_host_name(SLICE_LIT("::1")), SLICE_LIT("::1")));
    cr_expect(slice_eq(web_host_name(SLICE_EMPTY), SLICE_EMPTY));
    cr_expect(web_list_has("a, b ,c", SLICE_LIT("b")) && !web_list_has("a,b", SLICE_LIT("")) && web_list_has("a,*", SLICE_LIT("z")));
}

/* --- WebSocket -------------------------------------------------------------------------------------------------------------- */

#define HANDSHAKE "GET /v3/watch HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

/* A frame as clients send it: masked, by a mask of zeros. */
static void frame(struct buf *out, uint8_t first, struct slice data, bool masked)
{
    cr_assert_lt(data.len, 126);
    buf_add_byte(out, first);
    buf_add_byte(out, (uint8_t)((masked ? 0x80 : 0) | data.len));
    buf_add(out, "\0\0\0\0", masked ? 4 : 0);
    buf_add_slice(out, data);
}

static const char *say(struct rig *r, uint8_t first, const char *text, bool masked)
{
    struct buf b = BUF_INIT;
    frame(&b, first, slice_str(text), masked);
    cr_expect_eq(http1_receive(r->h, buf_slice(&b)), OK);
    buf_fini(&b);
    return hear(r);
}

Test(ws, a_handshake_is_answered_and_messages_go_both_ways)
{
    struct rig *r = rig_new();
    const char *answer = send_text(r, HANDSHAKE "Sec-WebSocket-Protocol: Bearer, tok.1\r\n\r\n");
    cr_expect(begins(answer, "HTTP/1.1 101 Switching Protocols\r\n"));
    cr_expect_not_null(strstr(answer, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "the RFC's own example");
    cr_expect_not_null(strstr(answer, "Sec-WebSocket-Protocol: Bearer\r\n"));
    answer = say(r, 0x81, "{\"create_request\":{}}", true);
    cr_expect_str_eq(answer, "\x81\x1b{\"result\":{\"watch_id\":\"1\"}}");
    cr_expect_str_eq(seen.token, "tok.1");
    cr_expect_str_eq(say(r, 0x01, "{\"create_re", true), ""); /* a message in two fragments, with a ping between */
    cr_expect_str_eq(say(r, 0x89, "hi", true), "\x8a\x02hi");
    cr_expect_str_eq(say(r, 0x80, "quest\":{}}", true), "\x81\x1b{\"result\":{\"watch_id\":\"2\"}}");
    answer = say(r, 0x88, "\x03\xe8", true);
    cr_expect(memcmp(answer, "\x88\x02\x03\xe8", 4) == 0, "closed as it was asked");
    cr_expect(http1_is_finished(r->h));
    cr_expect_eq(seen.closeds, 1);
    rig_free(r);
}

Test(ws, an_error_is_said_before_the_close)
{
    struct rig *r = rig_new();
    send_text(r, HANDSHAKE "\r\n");
    say(r, 0x81, "{\"create_request\":7}", true);
    cr_expect_not_null(memmem(r->out.data, r->out.len, "{\"error\":{\"grpc_code\":3,", 24)); /* behind a length with a zero byte */
    cr_expect(http1_is_finished(r->h));
    cr_expect_eq(seen.closeds, 1);
    rig_free(r);
}

Test(ws, what_breaks_the_protocol_closes_the_connection)
{
    static const struct { uint8_t first; const char *text; bool masked; } bad[] = {{0x81, "{}", false}, {0x83, "{}", true}, {0xc1, "{}", true},
        {0x80, "{}", true}, {0x09, "x", true}, {0x81, "\xff", true}, {0x88, "\x01", true}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct rig *r = rig_new();
        send_text(r, HANDSHAKE "\r\n");
        say(r, bad[i].first, bad[i].text, bad[i].masked);
        cr_expect(http1_is_finished(r->h), "%zu", i);
        cr_expect_eq(seen.messages, 0, "%zu", i);
        rig_free(r);
    }
}

Test(ws, a_message_has_a_limit)
{
    struct rig *r = rig_new();
    send_text(r, HANDSHAKE "\r\n");
    uint8_t head[15] = {0x81, 0xff, 0, 0, 0, 0, 0, 0x80, 0, 1, 0, 0, 0, 0, '{'}; /* 8 MiB and one, of which this is the first */
    http1_receive(r->h, slice_of(head, sizeof(head)));
    const char *answer = hear(r);
    cr_expect(memcmp(answer, "\x88\x02\x03\xf1", 4) == 0, "1009, too big");
    cr_expect(http1_is_finished(r->h));
    rig_free(r);
}

Test(ws, other_handshakes_and_paths_are_refused)
{
    static const struct { const char *text, *answer; } cases[] = {
        {"GET /v3/kv/range HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", "HTTP/1.1 400 "},
        {"GET /v3/watch HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n\r\n", "HTTP/1.1 501 "},
        {"GET /v3/watch HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13\r\n\r\n", "HTTP/1.1 501 "},
        {"GET /v3/watch HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", "HTTP/1.1 501 "},
        {HANDSHAKE "Content-Length: 1\r\n\r\nx", "HTTP/1.1 400 "}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig *r = rig_new();
        cr_expect(begins(send_text(r, cases[i].text), cases[i].answer), "%zu", i);
        rig_free(r);
    }
    struct rig *r = rig_new();
    set(r, "cors", "http://good");
    cr_expect(begins(send_text(r, HANDSHAKE "Origin: http://evil\r\n\r\n"), "HTTP/1.1 403 "), "a page of another site");
    cr_expect(begins(send_text(r, HANDSHAKE "Origin: http://good\r\n\r\n"), "HTTP/1.1 101 "));
    rig_free(r);
}
