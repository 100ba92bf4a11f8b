/* http1, httpapi - the parser by cases, and requests against a gateway whose siblings are away. */
#include "gatewayd/http1.h"
#include "gatewayd/web.h"

#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "common/err.h"
#include "common/limits.h"

/* --- parser -------------------------------------------------------------------------------------------------------- */

static int parse(const char *text, struct http1_request *r) { return http1_parse_head(slice_str(text), r); }

Test(http1, a_head_is_parsed)
{
    struct http1_request r;
    const char *text = "GET /health?serializable=true&exclude=NOSPACE HTTP/1.1\r\nHost: x:1\r\nConnection: close\r\n\r\nrest";
    cr_expect_eq(parse(text, &r), (int)strlen(text) - 4);
    cr_expect(slice_eq(r.method, SLICE_LIT("GET")));
    cr_expect(slice_eq(r.path, SLICE_LIT("/health")));
    cr_expect(web_query_has(r.query, "serializable", "true"));
    cr_expect(web_query_has(r.query, "exclude", "NOSPACE"));
    cr_expect_not(web_query_has(r.query, "exclude", "NOSPAC"));
    cr_expect_not(web_query_has(r.query, "xclude", "NOSPACE"));
    cr_expect_not(r.keep_alive);
}

Test(http1, versions_and_connection_decide_keep_alive)
{
    struct http1_request r;
    cr_expect_gt(parse("GET / HTTP/1.0\r\n\r\n", &r), 0);
    cr_expect_not(r.keep_alive);
    cr_expect_gt(parse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", &r), 0);
    cr_expect(r.keep_alive);
    cr_expect_gt(parse("GET http://h/version HTTP/1.1\r\nhOST: x\r\nconnection: upgrade, CLOSE\r\n\r\n", &r), 0);
    cr_expect_not(r.keep_alive);
    cr_expect(slice_eq(r.path, SLICE_LIT("/version")));
}

Test(http1, a_head_cut_anywhere_is_not_complete)
{
    const char *text = "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n";
    struct http1_request r;
    for (size_t n = 0; n < strlen(text); n++) {
        cr_expect_eq(http1_parse_head(slice_of(text, n), &r), 0, "%zu", n);
    }
    cr_expect_eq(parse(text, &r), (int)strlen(text));
    cr_expect_eq(r.body_len, 7);
}

Test(http1, what_can_be_read_in_two_ways_is_refused)
{
    const char *const bad[] = {
        "GET / HTTP/1.1\r\n\r\n", /* no host */
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET health HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct http1_request r;
        cr_expect_eq(parse(bad[i], &r), E_MALFORMED, "%zu: %s", i, bad[i]);
    }
}

Test(http1, sizes_and_versions_have_their_own_errors)
{
    struct http1_request r;
    cr_expect_eq(parse("GET / HTTP/2.0\r\nHost: a\r\n\r\n", &r), E_VERSION);
    cr_expect_eq(parse("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", &r), E_TOO_BIG);
    char *large = xmalloc(HTTP1_HEAD_BYTES_MAX);
    memset(large, 'a', HTTP1_HEAD_BYTES_MAX);
    cr_expect_eq(http1_parse_head(slice_of(large, HTTP1_HEAD_BYTES_MAX), &r), E_TOO_BIG);
    cr_expect_eq(http1_parse_head(slice_of(large, HTTP1_HEAD_BYTES_MAX - 1), &r), 0);
    free(large);
}

/* --- requests ---------------------------------------------------------------------------------------------------------- */

struct rig {
    struct conf conf;
    struct loop *loop;
    struct gatewayd g;
    struct http1 *h;
    struct buf out;
};

static void no_wake(void *arg) { UNUSED(arg); }

static struct rig *rig_new(void)
{
    struct rig *w = xcalloc(1, sizeof(*w));
    conf_init(&w->conf);
    w->loop = loop_new();
    gatewayd_init(&w->g, &w->conf, w->loop);
    w->h = http1_new(&w->g, no_wake, NULL);
    return w;
}

static void rig_free(struct rig *w)
{
    http1_free(w->h);
    gatewayd_fini(&w->g);
    loop_free(w->loop);
    conf_fini(&w->conf);
    buf_fini(&w->out);
    free(w);
}

/* What the server has said since the last time, as text. */
static const char *ask(struct rig *w, const char *request)
{
    cr_expect_eq(http1_receive(w->h, slice_str(request)), OK);
    buf_reset(&w->out);
    http1_write(w->h, &w->out, SIZE_MAX);
    buf_add_byte(&w->out, '\0');
    return (const char *)w->out.data;
}

static bool begins(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

Test(http1, version_answers_and_the_connection_stays)
{
    struct rig *w = rig_new();
    for (int i = 0; i < 3; i++) {
        const char *answer = ask(w, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n");
        cr_expect(begins(answer, "HTTP/1.1 200 OK\r\n"));
        cr_expect_not_null(strstr(answer, "{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"not_decided\",\"storage\":\"unknown\"}"));
        cr_expect_not(http1_is_finished(w->h));
    }
    w->g.cluster_id = 7;
    cr_expect_not_null(strstr(ask(w, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n"),
        "{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"3.7.0\",\"storage\":\"3.7.0\"}"));
    rig_free(w);
}

Test(http1, head_has_the_length_and_no_body)
{
    struct rig *w = rig_new();
    const char *answer = ask(w, "HEAD /version HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect_not_null(strstr(answer, "Content-Length: 70\r\n"));
    cr_expect_str_eq(answer + strlen(answer) - 4, "\r\n\r\n");
    rig_free(w);
}

Test(http1, unknown_paths_are_404_and_other_methods_405)
{
    struct rig *w = rig_new();
    cr_expect(begins(ask(w, "GET /v2/keys HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 404 "));
    cr_expect(begins(ask(w, "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"), "HTTP/1.1 405 "));
    cr_expect(begins(ask(w, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200 "), "the body was read and dropped");
    rig_free(w);
}

Test(http1, pipelined_requests_are_answered_in_order)
{
    struct rig *w = rig_new();
    const char *answer = ask(w, "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /n");
    cr_expect(begins(answer, "HTTP/1.1 404 "));
    cr_expect_not_null(strstr(answer, "HTTP/1.1 200 OK"));
    cr_expect(http1_is_finished(w->h));
    rig_free(w);
}

Test(http1, health_is_503_without_a_leader)
{
    struct rig *w = rig_new();
    const char *answer = ask(w, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect(begins(answer, "HTTP/1.1 503 "));
    cr_expect_not_null(strstr(answer, "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}"));
    rig_free(w);
}

Test(http1, a_bad_request_is_answered_and_closed)
{
    const struct { const char *request, *answer; } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "}, {"GET / HTTP/3.0\r\nHost: x\r\n\r\n", "HTTP/1.1 505 "},
        {"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", "HTTP/1.1 413 "},
        {"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 501 "}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig *w = rig_new();
        cr_expect(begins(ask(w, cases[i].request), cases[i].answer), "%s", cases[i].request);
        cr_expect(http1_is_finished(w->h));
        rig_free(w);
    }
}

Test(http1, a_head_that_does_not_come_and_an_idle_connection_time_out)
{
    struct rig *w = rig_new();
    uint64_t now = loop_now_ms(w->loop);
    cr_expect_eq(http1_next_tick_ms(w->h), now + HTTP1_IDLE_MS_MAX);
    ask(w, "GET /ver");
    cr_expect_eq(http1_tick(w->h, now + HTTP1_HEAD_MS_MAX - 1), OK);
    cr_expect_neq(http1_tick(w->h, now + HTTP1_HEAD_MS_MAX), OK);
    rig_free(w);
}

Test(http1, metrics_have_every_series_from_the_start)
{
    struct rig *w = rig_new();
    watch_start(&w->g);
    const char *answer = ask(w, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect(begins(answer, "HTTP/1.1 200 "));
    cr_expect_not_null(strstr(answer, "grpc_server_handled_total{grpc_code=\"Unavailable\",grpc_method=\"Put\","
                                      "grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 0\n"));
    cr_expect_not_null(strstr(answer, "grpc_type=\"bidi_stream\"} 0\n"));
    cr_expect_not_null(strstr(answer, "\netcd_network_client_grpc_sent_bytes_total 0\n"));
    cr_expect_not_null(strstr(answer, "\nprocess_resident_memory_bytes "));
    watch_stop(&w->g);
    rig_free(w);
}

Test(http1, a_body_is_thrown_away_as_it_comes)
{
    struct rig *w = rig_new();
    char *part = xcalloc(1, 100001);
    memset(part, 'b', 100000);
    ask(w, "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n");
    for (int i = 0; i < 19; i++) { /* far more than may wait in a pipeline */
        cr_expect_eq(strlen(ask(w, part)), 0);
    }
    part[99999] = '\0';
    cr_expect_eq(strlen(ask(w, part)), 0);
    const char *answer = ask(w, "bGET /version HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect(begins(answer, "HTTP/1.1 405 "));
    cr_expect_not_null(strstr(answer, "HTTP/1.1 200 OK"), "what follows the body is the next request");
    free(part);
    rig_free(w);
}

Test(http1, who_does_not_read_answers_gets_no_more_of_them)
{
    struct rig *w = rig_new();
    watch_start(&w->g);
    size_t answers = 0, most = 0;
    for (int i = 0; i < 200; i++) {
        cr_expect_eq(http1_receive(w->h, SLICE_LIT("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")), OK);
    }
    do { /* all are answered in the end, but never wait all at once */
        buf_reset(&w->out);
        http1_write(w->h, &w->out, SIZE_MAX);
        most = MAX(most, w->out.len);
        buf_add_byte(&w->out, '\0');
        for (const char *at = (const char *)w->out.data; (at = strstr(at, "HTTP/1.1 200 OK")) != NULL; at++) {
            answers++;
        }
    } while (http1_has_output(w->h));
    cr_expect_eq(answers, 200);
    cr_expect_lt(most, 4 * HTTP1_OUT_BYTES_MAX);
    watch_stop(&w->g);
    rig_free(w);
}

Test(http1, what_cannot_be_a_request_is_refused_before_its_end)
{
    struct http1_request r;
    cr_expect_eq(http1_parse_head(SLICE_LIT("\x16\x03\x01\x02"), &r), E_MALFORMED);
    cr_expect_eq(http1_parse_head(SLICE_LIT(" GET"), &r), E_MALFORMED);
    cr_expect_eq(http1_parse_head(SLICE_LIT("G"), &r), 0);
}
