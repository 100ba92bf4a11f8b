/* h2, call - a client session against the real HTTP/2 and call code, with handlers of our own and no sockets. */
#include "tests/gatewayd/rig.h"

/* --- plain calls ------------------------------------------------------------------------------------------------ */

Test(h2, a_unary_call_is_answered_with_message_and_status)
{
    struct rig *r = rig_new();
    struct rig_call *c = rig_unary(r, "/t.T/Echo", "hello");
    cr_expect_eq(c->http_status, 200);
    cr_expect_eq(c->grpc_status, 0);
    expect_body(c, "hello");
    cr_expect(c->closed);
    cr_expect_eq(seen.closeds, 1);
    rig_free(r);
}

Test(h2, the_input_may_be_cut_between_any_two_bytes)
{
    for (size_t chunk = 1; chunk < 64; chunk++) {
        struct rig *r = rig_new();
        r->chunk = chunk;
        struct rig_call *c = rig_unary(r, "/t.T/Echo", "some message of the client");
        cr_expect_eq(c->grpc_status, 0, "chunk %zu", chunk);
        expect_body(c, "some message of the client");
        rig_free(r);
    }
}

Test(h2, a_failure_is_trailers_only_with_the_text_of_the_error)
{
    struct rig *r = rig_new();
    struct rig_call *c = rig_unary(r, "/t.T/Fail", "x");
    cr_expect_eq(c->http_status, 200);
    cr_expect_eq(c->grpc_status, 3);
    cr_expect_str_eq(c->message, "etcdserver: key is not provided");
    cr_expect_eq(c->body.len, 0);
    rig_free(r);
}

Test(h2, an_unknown_method_or_service_is_unimplemented)
{
    struct rig *r = rig_new();
    struct rig_call *c = rig_unary(r, "/no.Such/Thing", "x");
    struct rig_call *d = rig_unary(r, "/etcdserverpb.KV/Nothing", "x");
    struct rig_call *e = rig_unary(r, "/nonsense", "x");
    cr_expect_eq(c->grpc_status, 12);
    cr_expect_str_eq(c->message, "unknown service no.Such");
    cr_expect_str_eq(d->message, "unknown method Nothing for service etcdserverpb.KV");
    cr_expect_str_eq(e->message, "malformed method name: \"/nonsense\"");
    rig_free(r);
}

Test(h2, many_calls_share_a_connection)
{
    struct rig *r = rig_new();
    struct rig_call *calls[500];
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        calls[i] = rig_start(r, "/t.T/Echo", NULL, NULL);
        rig_message(calls[i], &i, sizeof(i));
        calls[i]->end = true;
    }
    rig_pump(r);
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        cr_assert_eq(calls[i]->body.len, 5 + sizeof(i));
        cr_expect(memcmp(calls[i]->body.data + 5, &i, sizeof(i)) == 0);
    }
    cr_expect_eq(seen.closeds, ARRAY_LEN(calls));
    rig_free(r);
}

/* --- streams -------------------------------------------------------------------------------------------------------- */

Test(h2, a_stream_carries_messages_both_ways_until_the_half_close)
{
    struct rig *r = rig_new();
    struct rig_call *c = rig_start(r, "/t.T/Stream", NULL, NULL);
    rig_message(c, "one", 3);
    rig_pump(r);
    cr_expect_eq(c->body.len, 8);
    cr_expect_eq(c->grpc_status, -1);
    rig_message(c, "two", 3);
    rig_message(c, "", 0);
    rig_resume(r, c);
    cr_expect_eq(c->body.len, 8 + 8 + 5);
    c->end = true;
    rig_resume(r, c);
    cr_expect_eq(seen.half_closes, 1);
    cr_expect_eq(c->grpc_status, 0);
    cr_expect(c->closed);
    rig_free(r);
}

Test(h2, shared_bytes_serve_several_calls_and_are_freed_once)
{
    struct rig *r = rig_new();
    struct rig_call *a = rig_start(r, "/t.T/Open", NULL, NULL);
    rig_message(a, "x", 1);
    rig_pump(r);
    struct call *first = seen.call;
    struct rig_call *b = rig_start(r, "/t.T/Open", NULL, NULL);
    rig_message(b, "x", 1);
    rig_pump(r);
    struct shared_bytes *s = shared_bytes_new(4);
    memcpy(s->data, "tail", 4);
    call_send(first, SLICE_LIT("a-"), &s, 1);
    call_send(seen.call, SLICE_LIT("b-"), &s, 1);
    cr_expect_eq(s->refs, 3);
    rig_pump(r);
    cr_expect_eq(s->refs, 1);
    shared_bytes_unref(s);
    expect_body(a, "a-tail");
    expect_body(b, "b-tail");
    rig_free(r);
}

Test(h2, a_paused_call_leaves_its_input_in_the_window)
{
    struct rig *r = rig_new();
    seen.pause = true;
    struct rig_call *c = rig_start(r, "/t.T/Open", NULL, NULL);
    char block[8192] = {0};
    for (int i = 0; i < 100; i++) {
        rig_message(c, block, sizeof(block)); /* 800 KiB: more than a stream's window */
    }
    rig_pump(r);
    cr_expect_eq(seen.messages, 1);
    cr_expect_lt(c->out_off, c->out.len);
    cr_expect_leq(c->out_off, H2_STREAM_WINDOW_BYTES);
    call_pause(seen.call, false);
    rig_pump(r);
    cr_expect_eq(seen.messages, 100);
    rig_free(r);
}

/* --- sizes -------------------------------------------------------------------------------------------------------------- */

Test(h2, a_message_over_the_limit_is_refused_by_its_prefix)
{
    struct rig *r = rig_new();
    r->g.message_bytes_max = 100;
    struct rig_call *c = rig_start(r, "/t.T/Echo", NULL, NULL);
    buf_add(&c->out, "\0\0\0\0\x65", 5); /* announces 101 bytes; none of them ever comes */
    rig_pump(r);
    cr_expect_eq(c->grpc_status, 8);
    cr_expect_str_eq(c->message, "grpc: received message larger than max (101 vs. 100)");
    cr_expect_eq(r->g.inbound_bytes, 0);
    cr_expect(c->closed);
    rig_free(r);
}

Test(h2, a_message_at_the_limit_passes)
{
    struct rig *r = rig_new();
    r->g.message_bytes_max = 100;
    char text[101] = {0};
    memset(text, 'x', 100);
    struct rig_call *c = rig_unary(r, "/t.T/Echo", text);
    cr_expect_eq(c->grpc_status, 0);
    expect_body(c, text);
    rig_free(r);
}

Test(h2, a_large_answer_waits_for_the_clients_window_and_tells_when_there_is_room)
{
    struct rig *r = rig_new();
    struct rig_call *c = rig_start(r, "/t.T/Hold", NULL, NULL);
    rig_message(c, "x", 1);
    c->end = true;
    rig_pump(r);
    size_t part = 512 * KIB;
    char *bytes = xcalloc(1, part);
    call_reply_begin(seen.call, 2 * part);
    call_reply_part(seen.call, slice_of(bytes, part));
    r->stop_reading = true;
    rig_pump(r);
    cr_expect_gt(call_queued_bytes(seen.call), CALL_QUEUE_LOW_BYTES); /* 64 KiB of window, no more */
    cr_expect_eq(seen.writables, 0);
    r->stop_reading = false;
    rig_pump(r);
    cr_expect_eq(seen.writables, 1);
    call_reply_part(seen.call, slice_of(bytes, part));
    rig_pump(r);
    cr_expect_eq(c->body.len, 5 + 2 * part);
    cr_expect_eq(c->grpc_status, 0);
    free(bytes);
    rig_free(r);
}

Test(h2, a_part_that_is_longer_than_announced_ends_the_call)
{
    struct rig *r = rig_new();
    struct rig_call *c = rig_start(r, "/t.T/Hold", NULL, NULL);
    rig_message(c, "x", 1);
    c->end = true;
    rig_pump(r);
    call_reply_begin(seen.call, 3);
    call_reply_part(seen.call, SLICE_LIT("four"));
    rig_pump(r);
    cr_expect_eq(c->grpc_status, 13);
    rig_free(r);
}

/* --- ends ------------------------------------------------------------------------------------------------------------------ */

Test(h2, a_cancelled_call_is_closed_for_its_handler)
{
    struct rig *r = rig_new();
    struct rig_call *c = rig_start(r, "/t.T/Hold", NULL, NULL);
    rig_message(c, "x", 1);
    c->end = true;
    rig_pump(r);
    cr_expect_eq(seen.closeds, 0);
    nghttp2_submit_rst_stream(r->client, NGHTTP2_FLAG_NONE, c->id, NGHTTP2_CANCEL);
    rig_pump(r);
    cr_expect_eq(seen.closeds, 1);
    cr_expect_eq(r->g.call_count, 0);
    rig_free(r);
}

Test(h2, a_deadline_ends_the_call_and_a_late_answer_does_nothing)
{
    struct rig *r = rig_new();
    struct rig_call *c = rig_start(r, "/t.T/Hold", "grpc-timeout", "50m");
    rig_message(c, "x", 1);
    c->end = true;
    rig_pump(r);
    struct call *call = seen.call;
    gatewayd_fire_timers(&r->g, call->deadline_ms - 1);
    cr_expect_eq(seen.closeds, 0);
    gatewayd_fire_timers(&r->g, call->deadline_ms);
    cr_expect_eq(seen.closeds, 1);
    call_reply(call, SLICE_LIT("late"));
    rig_pump(r);
    cr_expect_eq(c->grpc_status, 4);
    cr_expect_str_eq(c->message, "context deadline exceeded");
    cr_expect_eq(c->body.len, 0);
    rig_free(r);
}

Test(h2, a_lost_connection_closes_all_its_calls)
{
    struct rig *r = rig_new();
    for (int i = 0; i < 10; i++) {
        struct rig_call *c = rig_start(r, "/t.T/Open", NULL, NULL);
        rig_message(c, "x", 1);
    }
    rig_pump(r);
    cr_expect_eq(r->g.call_count, 10);
    h2_free(r->h);
    r->h = NULL;
    cr_expect_eq(seen.closeds, 10);
    cr_expect_eq(r->g.call_count, 0);
    rig_free(r);
}

Test(h2, a_shutdown_ends_streams_lets_unary_calls_finish_and_takes_no_new_ones)
{
    struct rig *r = rig_new();
    struct rig_call *s = rig_start(r, "/t.T/Open", NULL, NULL);
    rig_message(s, "x", 1);
    struct rig_call *u = rig_start(r, "/t.T/Hold", NULL, NULL);
    rig_message(u, "y", 1);
    u->end = true;
    rig_pump(r);
    struct call *unary = seen.call;
    r->g.stopping = true;
    h2_shutdown(r->h);
    rig_pump(r);
    cr_expect_eq(r->goaway, NGHTTP2_NO_ERROR);
    cr_expect_eq(s->grpc_status, 14);
    cr_expect_eq(u->grpc_status, -1);
    cr_expect_not(h2_is_finished(r->h));
    call_reply(unary, SLICE_LIT("done"));
    rig_pump(r);
    cr_expect_eq(u->grpc_status, 0);
    cr_expect(h2_is_finished(r->h));
    rig_free(r);
}

Test(h2, an_answer_before_the_half_close_resets_the_stream_without_error)
{
    struct rig *r = rig_new();
    struct rig_call *c = rig_start(r, "/no.Such/Thing", NULL, NULL);
    rig_pump(r);
    cr_expect_eq(c->grpc_status, 12);
    cr_expect(c->closed);
    cr_expect_eq(c->reset, NGHTTP2_NO_ERROR);
    rig_free(r);
}

/* --- those who mean us no good ------------------------------------------------------------------------------------------ */

Test(h2, garbage_instead_of_a_preface_ends_the_connection)
{
    struct rig *r = rig_new();
    cr_expect_neq(h2_receive(r->h, SLICE_LIT("GET / HTTP/1.1\r\n\r\n......................")), OK);
    rig_free(r);
}

Test(h2, pings_that_come_too_fast_end_the_connection)
{
    struct rig *r = rig_new();
    struct rig_call *c = rig_start(r, "/t.T/Open", NULL, NULL);
    rig_message(c, "x", 1);
    rig_pump(r);
    for (int i = 0; i < 3; i++) {
        nghttp2_submit_ping(r->client, NGHTTP2_FLAG_NONE, NULL);
        rig_pump(r);
    }
    cr_expect_eq(r->goaway, UINT32_MAX); /* the first one sets the clock, two strikes are allowed */
    nghttp2_submit_ping(r->client, NGHTTP2_FLAG_NONE, NULL);
    rig_pump(r);
    cr_expect_eq(r->goaway, NGHTTP2_ENHANCE_YOUR_CALM);
    cr_expect_str_eq(r->goaway_text, "too_many_pings");
    cr_expect(h2_is_finished(r->h));
    rig_free(r);
}

Test(h2, pings_between_answers_are_forgiven)
{
    struct rig *r = rig_new();
    for (int i = 0; i < 20; i++) {
        nghttp2_submit_ping(r->client, NGHTTP2_FLAG_NONE, NULL);
        rig_pump(r);
        rig_unary(r, "/t.T/Echo", "x");
    }
    cr_expect_eq(r->goaway, UINT32_MAX);
    rig_free(r);
}

Test(h2, a_flood_of_resets_ends_the_connection)
{
    struct rig *r = rig_new();
    uint64_t sent = 0;
    while (r->goaway == UINT32_MAX && !r->server_failed && sent < 3 * H2_RESET_BURST) {
        nghttp2_session_send(r->client);
        struct rig_call *c = &r->calls[0];
        c->out_off = c->out.len = 0;
        /* HEADERS and RST_STREAM by hand: the client session would keep every stream. */
        uint32_t id = (uint32_t)(2 * sent + 1);
        uint8_t head[] = {0, 0, 5, 1, 4, (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id,
            0x83, 0x86, 0x84, 0x41, 0x00}; /* POST, http, "/", :authority "" */
        uint8_t reset[] = {0, 0, 4, 3, 0, (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id, 0, 0, 0, 8};
        buf_add(&r->to_server, head, sizeof(head));
        buf_add(&r->to_server, reset, sizeof(reset));
        r->server_failed = h2_receive(r->h, buf_slice(&r->to_server)) != OK;
        buf_reset(&r->to_server);
        h2_write(r->h, &r->to_client, SIZE_MAX);
        buf_reset(&r->to_client);
        sent++;
        if (h2_is_finished(r->h)) {
            break;
        }
    }
    cr_expect_lt(sent, 3 * H2_RESET_BURST);
    cr_expect_geq(sent, H2_RESET_BURST);
    rig_free(r);
}

Test(h2, a_header_list_over_its_limit_resets_the_stream)
{
    struct rig *r = rig_new();
    char *large = xcalloc(1, 60001);
    memset(large, 'a', 60000);
    struct rig_call *c = rig_start(r, "/t.T/Echo", "x-large", large);
    c->end = true;
    rig_pump(r);
    cr_expect_eq(seen.messages, 0);
    struct rig_call *d = rig_unary(r, "/t.T/Echo", "still there");
    cr_expect_eq(d->grpc_status, 0);
    free(large);
    rig_free(r);
}

Test(h2, a_silent_client_is_pinged_and_then_closed)
{
    struct rig *r = rig_new();
    uint64_t before = loop_now_ms(r->loop);
    rig_pump(r);
    uint64_t start = h2_next_tick_ms(r->h);
    cr_expect_geq(start, before + r->conf.grpc_keepalive_interval_ms);
    cr_expect_leq(start, loop_now_ms(r->loop) + r->conf.grpc_keepalive_interval_ms);
    r->stop_reading = true;
    cr_expect_eq(h2_tick(r->h, start), OK);
    cr_expect(h2_has_output(r->h));
    cr_expect_eq(h2_tick(r->h, start + r->conf.grpc_keepalive_timeout_ms - 1), OK);
    cr_expect_neq(h2_tick(r->h, start + r->conf.grpc_keepalive_timeout_ms), OK);
    rig_free(r);
}

Test(h2, an_answer_that_nobody_takes_is_given_up)
{
    struct rig *r = rig_new();
    char *large = xcalloc(1, 300001);
    rig_pump(r);
    seen.answer = slice_of(large, 300000);
    r->stop_reading = true;
    struct rig_call *c = rig_unary(r, "/t.T/Echo", "as much as you have");
    size_t waits = r->g.outbound_bytes;
    cr_expect_gt(waits, 200000, "the rest waits for the client's window");

    uint64_t now = loop_now_ms(r->loop);
    h2_tick(r->h, now + ANSWER_STALL_MS_MAX - 1);
    cr_expect_eq(r->g.outbound_bytes, waits);
    h2_tick(r->h, now + ANSWER_STALL_MS_MAX);
    rig_pump(r);
    cr_expect_eq(r->g.outbound_bytes, 0);
    cr_expect_eq(seen.closeds, 1, "the handler lets go of what it holds for it");

    r->stop_reading = false;
    rig_pump(r);
    cr_expect(c->closed);
    cr_expect_eq(c->reset, NGHTTP2_ENHANCE_YOUR_CALM);
    seen.answer = SLICE_LIT("small");
    cr_expect_eq(rig_unary(r, "/t.T/Echo", "again")->grpc_status, 0, "the connection goes on");
    free(large);
    rig_free(r);
}

Test(h2, a_connection_with_too_much_unread_is_refused_more_until_it_reads)
{
    struct rig *r = rig_new();
    char *large = xcalloc(1, 2 * MIB);
    rig_pump(r);
    seen.answer = slice_of(large, 2 * MIB);
    r->stop_reading = true;
    for (size_t i = 0; i <= H2_CONNECTION_ANSWERS_MAX / (2 * MIB) + 1; i++) {
        rig_unary(r, "/t.T/Echo", "more");
    }
    size_t messages = seen.messages;
    cr_expect_leq(r->g.outbound_bytes, H2_CONNECTION_ANSWERS_MAX + 2 * MIB);
    struct rig_call *c = rig_unary(r, "/t.T/Echo", "and more");
    cr_expect_eq(seen.messages, messages, "no handler is asked");
    r->stop_reading = false;
    rig_pump(r);
    cr_expect_eq(c->grpc_status, 2);
    cr_expect_str_eq(c->message, "etcdserver: too many requests");
    cr_expect_eq(rig_unary(r, "/t.T/Echo", "now?")->grpc_status, 0);
    free(large);
    rig_free(r);
}

/* The stream of DATA frame pos in bytes; 0: there is none. */
static uint32_t data_at(struct slice bytes, unsigned pos)
{
    while (bytes.len >= 9) {
        size_t len = (size_t)bytes.data[0] << 16 | (size_t)bytes.data[1] << 8 | bytes.data[2];
        uint32_t stream = (uint32_t)bytes.data[5] << 24 | (uint32_t)bytes.data[6] << 16 | (uint32_t)bytes.data[7] << 8 | bytes.data[8];
        if (bytes.data[3] == 0 && len > 0 && pos-- == 0) {
            return stream;
        }
        cr_assert_geq(bytes.len, 9 + len);
        bytes = slice_of(bytes.data + 9 + len, bytes.len - 9 - len);
    }
    return 0;
}

Test(h2, a_small_answer_goes_before_the_rest_of_large_ones_which_take_turns)
{
    struct rig *r = rig_new();
    struct buf large = BUF_INIT, wire = BUF_INIT;
    memset(buf_extend(&large, 400000), 'x', 400000);
    struct call *calls[3];
    struct rig_call *clients[3];

    /* Given two large answers, */
    for (size_t i = 0; i < 3; i++) {
        clients[i] = rig_unary(r, "/t.T/Hold", "x");
        rig_pump(r);
        calls[i] = seen.call;
    }
    for (size_t i = 0; i < 2; i++) {
        call_reply(calls[i], buf_slice(&large));
    }
    /* they take turns within the client's window, */
    cr_assert_eq(h2_write(r->h, &wire, 17000), OK);
    buf_add_slice(&r->to_client, buf_slice(&wire));
    cr_expect(data_at(buf_slice(&wire), 0) != 0 && data_at(buf_slice(&wire), 1) != 0);
    cr_expect_neq(data_at(buf_slice(&wire), 0), data_at(buf_slice(&wire), 1));
    buf_reset(&wire);

    /* and a small one goes right after the frame that had been chosen. */
    call_reply(calls[2], SLICE_LIT("small"));
    cr_assert_eq(h2_write(r->h, &wire, 20000), OK);
    buf_add_slice(&r->to_client, buf_slice(&wire));
    uint32_t small = (uint32_t)clients[2]->id;
    cr_expect(data_at(buf_slice(&wire), 0) == small || data_at(buf_slice(&wire), 1) == small);
    rig_pump(r);
    for (size_t i = 0; i < 3; i++) {
        cr_expect_eq(clients[i]->grpc_status, 0);
    }
    cr_expect_eq(clients[0]->body.len, 400005);
    buf_fini(&large);
    buf_fini(&wire);
    rig_free(r);
}
