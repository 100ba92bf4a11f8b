/* h2 - HTTP/2 on one connection: with h2_web.c the only files that know nghttp2. Bytes of conn.c in, streams and data to grpc.c, or
 * to h2_web.c if they are not gRPC; queued bytes and ends of calls back out.
 *
 * Flow control: nothing is acknowledged to the client (WINDOW_UPDATE) before grpc.c has taken it, so a paused call holds at most
 * one stream window. Outwards a call keeps its bytes until the client's windows and the socket have room for them.
 * Floods: nghttp2's own limits (SETTINGS, outgoing acks, CONTINUATION) stay on; resets have a rate; pings have grpc's
 * rules (keepalive enforcement); header lists a size. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "gatewayd/h2_int.h"

/* grpc-go's numbers: strikes before the connection ends, and the pace allowed while no call is open. */
#define PING_STRIKES_MAX 2
#define PING_IDLE_MS_MIN ((uint64_t)2 * 3600 * 1000)
#define NOTHING UINT64_MAX

static nghttp2_option *h2_option;
static nghttp2_session_callbacks *h2_callbacks;

#define NV_STATIC (NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE)

nghttp2_nv h2_nv(const char *name, const char *value)
{
    /* nghttp2 takes non-const pointers and never writes through them. */
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), strlen(value), NV_STATIC};
}

/* --- out ----------------------------------------------------------------------------------------- */

static size_t trailer_fields(struct call *c, nghttp2_nv *fields)
{
    static const char *const numbers[] = {
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"};
    must(c->status >= 0 && (size_t)c->status < ARRAY_LEN(numbers));
    size_t count = 0;
    fields[count++] = h2_nv("grpc-status", numbers[c->status]);
    if (c->status_text != NULL) {
        if (c->status_encoded == NULL) {
            c->status_encoded = grpc_encode_text(slice_str(c->status_text));
        }
        fields[count++] = h2_nv("grpc-message", c->status_encoded);
    }
    return count;
}

static struct h2 *h2_of(const struct call *c) { return c->owner; }

/* nghttp2 asks how many bytes the next DATA frame has. */
ssize_t h2_read_cb(nghttp2_session *session, int32_t stream_id, uint8_t *buf, size_t length, uint32_t *data_flags,
    nghttp2_data_source *source, void *user_data)
{
    UNUSED(buf);
    UNUSED(user_data);
    struct call *c = source->ptr;
    if (c->queued == 0 && !c->over) {
        return NGHTTP2_ERR_DEFERRED;
    }
    size_t n = MIN(c->queued, length);
    *data_flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (c->over && n == c->queued && c->web != NULL) {
        *data_flags |= NGHTTP2_DATA_FLAG_EOF;
    } else if (c->over && n == c->queued) {
        *data_flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_nv fields[2];
        size_t count = trailer_fields(c, fields);
        c->trailers_sent = true;
        if (nghttp2_submit_trailer(session, stream_id, fields, count) != 0) {
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
    }
    return (ssize_t)n;
}

static int send_data_cb(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t length,
    nghttp2_data_source *source, void *user_data)
{
    UNUSED(session);
    UNUSED(frame); /* we set no padding */
    struct h2 *h = user_data;
    if (h->out->len >= h->out_max) {
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    uint8_t *at = buf_extend(h->out, 9 + length);
    memcpy(at, head, 9);
    call_take(source->ptr, at + 9, length);
    return 0;
}

static ssize_t send_cb(nghttp2_session *session, const uint8_t *data, size_t length, int flags, void *user_data)
{
    UNUSED(session);
    UNUSED(flags);
    struct h2 *h = user_data;
    if (h->out->len >= h->out_max) {
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    buf_add(h->out, data, length);
    return (ssize_t)length;
}

/* Which stream goes first is ours to say: what is small (events, keepalives, short answers) before what is large, and those of a kind by
 * turns, a frame each. So no large answer keeps a watcher waiting for more than the frame that is on its way. */
static void rank(struct call *c)
{
    bool small = c->queued <= H2_SMALL_BYTES;
    if (c->is_ranked && c->is_small == small) {
        return;
    }
    c->is_ranked = true;
    c->is_small = small;
    nghttp2_extpri rank = {.urgency = small ? 1 : 4, .inc = 1};
    nghttp2_session_change_extpri_stream_priority(h2_of(c)->session, c->stream_id, &rank, 1);
}

/* Begins the response, or goes on with it. */
static void h2_submit(struct call *c)
{
    struct h2 *h = c->owner;
    int rv = 0;
    rank(c);
    if (!c->response_sent) {
        c->response_sent = true;
        const char *status = c->http_status == 200 ? "200" : c->http_status == 415 ? "415" : c->http_status == 400 ? "400" : "405";
        nghttp2_nv fields[4] = {h2_nv(":status", status), h2_nv("content-type", "application/grpc")};
        if (c->over && c->queued == 0) {
            c->trailers_sent = true;
            size_t count = 2 + trailer_fields(c, fields + 2);
            rv = nghttp2_submit_response(h->session, c->stream_id, fields, count, NULL);
        } else {
            nghttp2_data_provider provider = {.source = {.ptr = c}, .read_callback = h2_read_cb};
            rv = nghttp2_submit_response(h->session, c->stream_id, fields, 2, &provider);
        }
    } else if (!c->trailers_sent) {
        nghttp2_session_resume_data(h->session, c->stream_id); /* not deferred: it is being sent anyway */
    }
    if (rv != 0) {
        nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, c->stream_id, NGHTTP2_INTERNAL_ERROR);
    }
    h->wants_write(h->arg);
}

static void h2_consumed(struct call *c, size_t bytes)
{
    struct h2 *h = c->owner;
    if (bytes > 0) {
        nghttp2_session_consume(h->session, c->stream_id, bytes);
        h->wants_write(h->arg);
    }
}

static void h2_answers_queued(struct call *c, size_t more) { h2_of(c)->answers_bytes += more; }
static void h2_answers_taken(struct call *c, size_t less) { h2_of(c)->answers_bytes -= less; }
static size_t h2_answers_bytes(const struct call *c) { return h2_of(c)->answers_bytes; }

static void h2_writable_later(struct call *c)
{
    struct h2 *h = c->owner;
    if (!c->writable_due) {
        c->writable_due = true;
        c->writable_next = h->writable;
        h->writable = c;
    }
}

static void tell_writable(struct h2 *h)
{
    while (h->writable != NULL) {
        struct call *c = h->writable;
        h->writable = c->writable_next;
        c->writable_due = false;
        call_writable(c);
    }
}

static void h2_unlink(struct call *c)
{
    struct h2 *h = c->owner;
    if (c->web != NULL) {
        h2_web_close(h, c);
    }
    if (c->writable_due) {
        struct call **at = &h->writable;
        while (*at != c) {
            at = &(*at)->writable_next;
        }
        *at = c->writable_next;
        c->writable_due = false;
    }
    *(c->prev != NULL ? &c->prev->next : &h->calls) = c->next;
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    c->prev = c->next = NULL;
    h->call_count--;
}

static const struct call_carrier h2_carrier = {h2_submit, h2_consumed, h2_writable_later, h2_answers_queued, h2_answers_taken,
    h2_answers_bytes, h2_unlink};

/* --- in ------------------------------------------------------------------------------------------ */

static int begin_headers_cb(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2 *h = user_data;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        return 0;
    }
    buf_reset(&h->block);
    memset(h->fields, 0, sizeof(h->fields));
    struct call *c = call_open(h->gateway, &h2_carrier, h);
    if (c == NULL) {
        return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM);
    }
    c->stream_id = frame->hd.stream_id;
    c->client = h->client;
    c->next = h->calls;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    h->calls = c;
    h->call_count++;
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, c);
    return 0;
}

/* A header list that is too long costs its stream, and to read it costs us: who sends many is not in error but up to something. */
static int list_too_long(struct h2 *h)
{
    if (++h->long_lists <= H2_LONG_LISTS_MAX) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h->session),
        NGHTTP2_ENHANCE_YOUR_CALM, NULL, 0);
    return NGHTTP2_ERR_CALLBACK_FAILURE; /* of what it has sent nothing more is read */
}

static int header_cb(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
    const uint8_t *value, size_t value_len, uint8_t flags, void *user_data)
{
    UNUSED(flags);
    struct call *c = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (c == NULL || frame->hd.type != NGHTTP2_HEADERS) {
        return 0;
    }
    int err = grpc_header(c, slice_of(name, name_len), slice_of(value, value_len));
    if (err == OK && !c->headers_done) {
        h2_web_note(user_data, slice_of(name, name_len), slice_of(value, value_len));
    }
    return err == OK ? 0 : list_too_long(user_data);
}

/* Keepalive enforcement, as grpc-go does it. */
static void ping_received(struct h2 *h)
{
    uint64_t now = gatewayd_now_ms(h->gateway);
    uint64_t allowed = h->call_count > 0 ? h->gateway->conf->grpc_keepalive_min_time_ms : PING_IDLE_MS_MIN;
    if (h->ping_forgiven) {
        h->ping_forgiven = false;
        h->ping_strikes = 0;
    } else if (h->last_ping_ms != NOTHING && now - h->last_ping_ms < allowed) {
        h->ping_strikes++;
    }
    h->last_ping_ms = now;
    if (h->ping_strikes > PING_STRIKES_MAX && !h->failed) {
        static const char why[] = "too_many_pings";
        nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h->session),
            NGHTTP2_ENHANCE_YOUR_CALM, (const uint8_t *)why, sizeof(why) - 1);
        h->failed = true;
    }
}

static int frame_recv_cb(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2 *h = user_data;
    if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
        ping_received(h);
        return 0;
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) {
        return 0;
    }
    struct call *c = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (c == NULL) {
        return 0;
    }
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        if (h2_web_is(h, c)) {
            c->headers_done = true;
            h2_web_begin(h, c);
        } else {
            grpc_headers_done(c);
        }
    }
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
        if (c->web != NULL) {
            h2_web_end_of_data(c);
        } else {
            grpc_half_close(c);
        }
    }
    return 0;
}

static int data_chunk_cb(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t len,
    void *user_data)
{
    UNUSED(flags);
    UNUSED(user_data);
    struct call *c = nghttp2_session_get_stream_user_data(session, stream_id);
    size_t taken = len;
    if (c != NULL && c->web != NULL) {
        h2_web_data(c, slice_of(data, len));
    } else if (c != NULL) {
        taken = grpc_data(c, slice_of(data, len));
    }
    return taken > 0 ? nghttp2_session_consume(session, stream_id, taken) : 0;
}

static int frame_send_cb(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2 *h = user_data;
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR) {
        stats_dropped(h->gateway, frame->goaway.error_code == NGHTTP2_ENHANCE_YOUR_CALM ? DROP_FLOOD : DROP_MALFORMED);
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) {
        return 0;
    }
    h->ping_forgiven = true;
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
        struct call *c = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        if (c != NULL && !c->half_closed && (c->web == NULL || !h2_web_has_length(c) || (h2_web_is_stream(c) && h->gateway->stopping))) {
            /* The answer is complete, whatever else the client meant to send. (Behind an answer that tells its length what is left of
             * the request is read and dropped: curl would not look at the answer any more. Without a length it waits for this.) */
            return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
        }
    }
    return 0;
}

static int stream_close_cb(nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *user_data)
{
    UNUSED(error_code);
    UNUSED(user_data);
    struct call *c = nghttp2_session_get_stream_user_data(session, stream_id);
    if (c != NULL) {
        size_t held = c->held.len;
        nghttp2_session_set_stream_user_data(session, stream_id, NULL);
        call_close(c);
        if (held > 0) {
            nghttp2_session_consume_connection(session, held); /* the stream's window dies with it */
        }
    }
    return 0;
}

/* --- session ------------------------------------------------------------------------------------- */

static void make_static_parts(void)
{
    must(nghttp2_option_new(&h2_option) == 0);
    nghttp2_option_set_no_auto_window_update(h2_option, 1);
    nghttp2_option_set_no_closed_streams(h2_option, 1);
    /* etcdctl 3.4 sends a whole URL as :authority for commands to one endpoint, which RFC 9113 does not allow and nghttp2 would
     * reset; grpc-go's server looks at none of it. What matters of a request's headers is checked in grpc.c. */
    nghttp2_option_set_no_http_messaging(h2_option, 1);
    nghttp2_option_set_stream_reset_rate_limit(h2_option, H2_RESET_BURST, H2_RESET_RATE);
    must(nghttp2_session_callbacks_new(&h2_callbacks) == 0);
    nghttp2_session_callbacks_set_send_callback(h2_callbacks, send_cb);
    nghttp2_session_callbacks_set_send_data_callback(h2_callbacks, send_data_cb);
    nghttp2_session_callbacks_set_on_begin_headers_callback(h2_callbacks, begin_headers_cb);
    nghttp2_session_callbacks_set_on_header_callback(h2_callbacks, header_cb);
    nghttp2_session_callbacks_set_on_frame_recv_callback(h2_callbacks, frame_recv_cb);
    nghttp2_session_callbacks_set_on_frame_send_callback(h2_callbacks, frame_send_cb);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(h2_callbacks, data_chunk_cb);
    nghttp2_session_callbacks_set_on_stream_close_callback(h2_callbacks, stream_close_cb);
}

struct h2 *h2_new(struct gatewayd *g, void (*wants_write)(void *arg), void *arg)
{
    if (h2_option == NULL) {
        make_static_parts();
    }
    struct h2 *h = xcalloc(1, sizeof(*h));
    h->gateway = g;
    h->client = &CLIENT_ANY;
    h->wants_write = wants_write;
    h->arg = arg;
    h->last_ping_ms = h->ping_sent_ms = NOTHING;
    h->last_read_ms = gatewayd_now_ms(g);
    must(nghttp2_session_server_new2(&h->session, h2_callbacks, h, h2_option) == 0);
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, (uint32_t)g->conf->max_concurrent_streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEADER_LIST_BYTES_MAX},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    must(nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings)) == 0);
    must(nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0, H2_CONNECTION_WINDOW_BYTES) == 0);
    h->wants_write(h->arg);
    return h;
}

void h2_set_client(struct h2 *h, const struct client *client) { h->client = client; }

void h2_free(struct h2 *h)
{
    if (h == NULL) {
        return;
    }
    while (h->calls != NULL) {
        call_close(h->calls);
    }
    nghttp2_session_del(h->session);
    buf_fini(&h->block);
    free(h);
}

int h2_receive(struct h2 *h, struct slice bytes)
{
    if (h->failed) {
        return OK; /* only waits for its GOAWAY to leave */
    }
    h->last_read_ms = gatewayd_now_ms(h->gateway);
    ssize_t n = nghttp2_session_mem_recv(h->session, bytes.data, bytes.len);
    h->wants_write(h->arg);
    if (n < 0) {
        log_debug("h2: %s", nghttp2_strerror((int)n));
        stats_dropped(h->gateway, n == NGHTTP2_ERR_FLOODED ? DROP_FLOOD : DROP_MALFORMED);
        h->failed = true;
        return E_MALFORMED;
    }
    return OK;
}

int h2_write(struct h2 *h, struct buf *out, size_t max)
{
    h2_web_turn(h);
    h->out = out;
    h->out_max = max;
    int rv = nghttp2_session_send(h->session);
    h->out = NULL;
    tell_writable(h);
    return rv == 0 ? OK : E_IO;
}

bool h2_has_output(const struct h2 *h) { return nghttp2_session_want_write(h->session) != 0 || h2_web_has_more(h); }

bool h2_is_finished(const struct h2 *h)
{
    if (h2_has_output(h)) {
        return false;
    }
    return h->failed || nghttp2_session_want_read(h->session) == 0;
}

size_t h2_call_count(const struct h2 *h) { return h->call_count; }

/* --- keepalive and the end ------------------------------------------------------------------------- */

uint64_t h2_next_tick_ms(const struct h2 *h)
{
    const struct conf *conf = h->gateway->conf;
    uint64_t from = h->ping_sent_ms != NOTHING ? h->ping_sent_ms : h->last_read_ms;
    uint64_t wait = h->ping_sent_ms != NOTHING ? conf->grpc_keepalive_timeout_ms : conf->grpc_keepalive_interval_ms;
    return wait > UINT64_MAX - from ? UINT64_MAX : from + wait;
}

static bool may_be_left_alone(const struct call *c)
{
    return c->web != NULL ? h2_web_is_stream(c) : c->handler != NULL && c->handler->client_stream;
}

/* Ends calls whose client has long stopped to take their answer: it holds memory here and an open read in stored. Streams
 * of watchers are exempt, they are bounded and may be left alone for hours. */
static void end_stalled(struct h2 *h, uint64_t now_ms)
{
    for (struct call *c = h->calls; c != NULL; c = c->next) {
        if (c->queued > 0 && now_ms - c->taken_ms >= ANSWER_STALL_MS_MAX && !may_be_left_alone(c)) {
            stats_dropped(h->gateway, DROP_UNREAD);
            if (c->web == NULL) {
                call_abort(c, E_TIMEOUT, NULL);
            }
            /* Trailers would wait for the same window as the answer. */
            nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, c->stream_id, NGHTTP2_ENHANCE_YOUR_CALM);
            h->wants_write(h->arg);
        }
    }
}

int h2_tick(struct h2 *h, uint64_t now_ms)
{
    end_stalled(h, now_ms);
    if (h->ping_sent_ms != NOTHING && h->last_read_ms >= h->ping_sent_ms) {
        h->ping_sent_ms = NOTHING; /* anything read shows that the client lives */
    }
    if (now_ms < h2_next_tick_ms(h)) {
        return OK;
    }
    if (h->ping_sent_ms != NOTHING) {
        return E_TIMEOUT;
    }
    h->ping_sent_ms = now_ms;
    nghttp2_submit_ping(h->session, NGHTTP2_FLAG_NONE, NULL);
    h->wants_write(h->arg);
    return OK;
}

void h2_shutdown(struct h2 *h)
{
    nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h->session),
        NGHTTP2_NO_ERROR, NULL, 0);
    for (struct call *c = h->calls, *next; c != NULL; c = next) {
        next = c->next;
        if (c->handler != NULL && c->headers_done && (c->handler->client_stream || c->handler->server_stream)) {
            if (!c->over) {
                call_end(c, E_STOPPED, NULL);
            }
            call_told_closed(c);
        } else if (c->web != NULL) {
            h2_web_shutdown(c);
        }
    }
    h->wants_write(h->arg);
}
