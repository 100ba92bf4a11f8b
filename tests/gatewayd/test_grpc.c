/* grpc - timeouts, percent-encoding, framing, and what is refused before a handler sees it. */
#include "tests/gatewayd/rig.h"

/* --- pure ------------------------------------------------------------------------------------------------------- */

Test(grpc, timeouts_of_every_unit_become_milliseconds)
{
    const struct { const char *text; uint64_t ms; } cases[] = {{"1H", 3600000}, {"2M", 120000}, {"7S", 7000}, {"100m", 100},
        {"1u", 1}, {"1000u", 1}, {"1001u", 2}, {"999999n", 1}, {"0S", 0}, {"99999999H", UINT64_C(99999999) * 3600000}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t ms = 12345;
        cr_expect_eq(grpc_parse_timeout(slice_str(cases[i].text), &ms), OK, "%s", cases[i].text);
        cr_expect_eq(ms, cases[i].ms, "%s", cases[i].text);
    }
}

Test(grpc, what_is_not_a_timeout_is_refused_and_touches_nothing)
{
    const char *const cases[] = {"", "1", "S", "1s", "-1S", "+1S", "1 S", "123456789S", "1.5S", "1S ", "\xffS"};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t ms = 12345;
        cr_expect_eq(grpc_parse_timeout(slice_str(cases[i]), &ms), E_INVALID, "%s", cases[i]);
        cr_expect_eq(ms, 12345);
    }
}

Test(grpc, texts_are_percent_encoded_outside_printable_ascii)
{
    const struct { const char *text, *encoded; } cases[] = {{"", ""}, {"plain: text!", "plain: text!"}, {"100%", "100%25"},
        {"a\nb", "a%0Ab"}, {"\xc3\xa4", "%C3%A4"}, {"\x7f", "%7F"}, {" ~", " ~"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *encoded = grpc_encode_text(slice_str(cases[i].text));
        cr_expect_str_eq(encoded, cases[i].encoded);
        free(encoded);
    }
}

/* --- framing ------------------------------------------------------------------------------------------------------ */

Test(grpc, messages_split_at_every_byte_arrive_whole)
{
    for (size_t frame = 1; frame <= 40; frame++) {
        struct rig *r = rig_new();
        struct rig_call *c = rig_start(r, "/t.T/Stream", NULL, NULL);
        c->frame_max = frame;
        rig_message(c, "first message", 13);
        rig_message(c, "", 0);
        rig_message(c, "third", 5);
        c->end = true;
        rig_pump(r);
        cr_expect_eq(seen.messages, 3, "frames of %zu", frame);
        cr_expect_eq(c->body.len, 5 + 13 + 5 + 5 + 5, "frames of %zu", frame);
        cr_expect_eq(c->grpc_status, 0);
        rig_free(r);
    }
}

Test(grpc, an_empty_message_is_a_message)
{
    struct rig *r = rig_new();
    struct rig_call *c = rig_unary(r, "/t.T/Echo", "");
    cr_expect_eq(seen.messages, 1);
    cr_expect_eq(c->grpc_status, 0);
    expect_body(c, "");
    rig_free(r);
}

static struct rig_call *raw(struct rig *r, const char *path, const void *bytes, size_t len)
{
    struct rig_call *c = rig_start(r, path, NULL, NULL);
    buf_add(&c->out, bytes, len);
    c->end = true;
    rig_pump(r);
    return c;
}

Test(grpc, a_message_that_ends_early_fails_and_no_handler_runs)
{
    struct rig *r = rig_new();
    cr_expect_eq(raw(r, "/t.T/Echo", "", 0)->grpc_status, 13);
    cr_expect_eq(raw(r, "/t.T/Echo", "\0\0\0", 3)->grpc_status, 13);
    cr_expect_eq(raw(r, "/t.T/Echo", "\0\0\0\0\5abc", 8)->grpc_status, 13);
    cr_expect_eq(raw(r, "/t.T/Stream", "\0\0\0\0\5abc", 8)->grpc_status, 13);
    cr_expect_eq(seen.messages, 0);
    rig_free(r);
}

Test(grpc, a_second_message_in_a_unary_call_fails)
{
    struct rig *r = rig_new();
    cr_expect_eq(raw(r, "/t.T/Echo", "\0\0\0\0\1a\0\0\0\0\1b", 12)->grpc_status, 13);
    cr_expect_eq(seen.messages, 0);
    rig_free(r);
}

Test(grpc, compressed_messages_are_unimplemented)
{
    struct rig *r = rig_new();
    struct rig_call *c = rig_start(r, "/t.T/Echo", "grpc-encoding", "gzip");
    buf_add(&c->out, "\1\0\0\0\1a", 6);
    c->end = true;
    rig_pump(r);
    cr_expect_eq(c->grpc_status, 12);
    cr_expect_str_eq(c->message, "grpc: Decompressor is not installed for grpc-encoding \"gzip\"");
    cr_expect_eq(raw(r, "/t.T/Echo", "\2\0\0\0\1a", 6)->grpc_status, 13);
    rig_free(r);
}

/* --- metadata -------------------------------------------------------------------------------------------------------- */

static struct rig_call *with_header(struct rig *r, const char *name, const char *value)
{
    struct rig_call *c = rig_start(r, "/t.T/Hold", name, value);
    rig_message(c, "x", 1);
    c->end = true;
    rig_pump(r);
    return c;
}

Test(grpc, the_token_comes_from_token_or_from_authorization)
{
    struct rig *r = rig_new();
    with_header(r, "token", "abc.7");
    cr_expect(slice_eq(call_token(seen.call), SLICE_LIT("abc.7")));
    with_header(r, "authorization", "Bearer jwt");
    cr_expect(slice_eq(call_token(seen.call), SLICE_LIT("jwt")));
    with_header(r, "authorization", "plain");
    cr_expect(slice_eq(call_token(seen.call), SLICE_LIT("plain")));
    with_header(r, "x-other", "y");
    cr_expect_eq(call_token(seen.call).len, 0);
    rig_free(r);
}

Test(grpc, a_call_that_needs_a_leader_fails_at_once_without_one)
{
    struct rig *r = rig_new();
    struct rig_call *c = with_header(r, "hasleader", "true");
    cr_expect_eq(c->grpc_status, 14);
    cr_expect_str_eq(c->message, "etcdserver: no leader");
    gatewayd_set_leader(&r->g, 3, 77, false);
    struct rig_call *d = with_header(r, "hasleader", "true");
    cr_expect_eq(d->grpc_status, -1);
    cr_expect(call_has_leader(seen.call));
    rig_free(r);
}

Test(grpc, a_stream_that_needs_a_leader_ends_three_election_timeouts_after_the_loss)
{
    struct rig *r = rig_new();
    gatewayd_set_leader(&r->g, 3, 77, false);
    struct rig_call *c = rig_start(r, "/t.T/Open", "hasleader", "true");
    rig_message(c, "x", 1);
    rig_pump(r);
    gatewayd_set_leader(&r->g, 4, 0, false);
    uint64_t lost = r->g.no_leader_since_ms;
    gatewayd_fire_timers(&r->g, lost + 3 * r->conf.election_timeout_ms - 1);
    rig_pump(r);
    cr_expect_eq(c->grpc_status, -1);
    gatewayd_fire_timers(&r->g, lost + 3 * r->conf.election_timeout_ms);
    rig_pump(r);
    cr_expect_eq(c->grpc_status, 14);
    cr_expect_eq(seen.closeds, 1);
    rig_free(r);
}

Test(grpc, a_client_version_that_is_not_utf8_is_refused)
{
    struct rig *r = rig_new();
    cr_expect_eq(with_header(r, "client-api-version", "3.5")->grpc_status, -1);
    struct rig_call *c = with_header(r, "client-api-version", "\xc3\x28");
    cr_expect_eq(c->grpc_status, 3);
    cr_expect_str_eq(c->message, "etcdserver: invalid client api version");
    cr_expect_eq(with_header(r, "client-api-version", "\xf4\x90\x80\x80")->grpc_status, 3);
    cr_expect_eq(with_header(r, "client-api-version", "\xe2\x82\xac")->grpc_status, -1);
    rig_free(r);
}

static struct rig_call *get(struct rig *r, const char *method, const char *path)
{
    const char *fields[][2] = {{":method", method}, {":scheme", "http"}, {":path", path}, {":authority", "x"}};
    nghttp2_nv nva[4];
    for (size_t i = 0; i < 4; i++) {
        nva[i] = (nghttp2_nv){(uint8_t *)(uintptr_t)fields[i][0], (uint8_t *)(uintptr_t)fields[i][1], strlen(fields[i][0]),
            strlen(fields[i][1]), NGHTTP2_NV_FLAG_NONE};
    }
    int32_t id = nghttp2_submit_request(r->client, NULL, nva, ARRAY_LEN(nva), NULL, NULL);
    rig_pump(r);
    return rig_call_of(r, id);
}

Test(grpc, a_request_that_is_not_grpc_gets_415)
{
    struct rig *r = rig_new();
    cr_expect_eq(get(r, "GET", "/t.T/Echo")->http_status, 415);
    cr_expect_eq(r->g.call_count, 0);
    rig_free(r);
}

Test(grpc, what_else_http_offers_is_served_over_http_2_too)
{
    struct rig *r = rig_new();
    struct rig_call *c = get(r, "GET", "/version");
    cr_expect_eq(c->http_status, 200);
    cr_expect(c->closed && c->reset == 0);
    cr_expect_eq(c->body.len, strlen("{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"not_decided\",\"storage\":\"unknown\"}"));
    cr_expect_eq(get(r, "HEAD", "/version")->body.len, 0);
    cr_expect_eq(get(r, "GET", "/nothing")->http_status, 404);
    cr_expect_eq(get(r, "GET", "/v3/kv/put")->http_status, 501);
    cr_expect_eq(get(r, "OPTIONS", "/v3/kv/put")->http_status, 200);
    cr_expect_eq(get(r, "POST", "/v3/kv/nothing")->http_status, 404);
    cr_expect_eq(r->g.call_count, 0);
    rig_free(r);
}

Test(grpc, a_gateway_that_stops_takes_no_calls)
{
    struct rig *r = rig_new();
    r->g.stopping = true;
    struct rig_call *c = rig_unary(r, "/t.T/Echo", "x");
    cr_expect_eq(c->grpc_status, 14);
    cr_expect_str_eq(c->message, "etcdserver: server stopped");
    rig_free(r);
}
