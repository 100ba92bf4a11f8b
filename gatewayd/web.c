/* web - who may ask over HTTP, and who answers: the host's name, the origin, the path. From http1.c, h2.c; to httpapi.c, jsoncall.c.
 * The order of the checks is etcd's: host, certificate, origin, preflight, path. */
#include "gatewayd/web.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/err.h"
#include "common/limits.h"
#include "gatewayd/json.h"
#include "gatewayd/jsoncall.h"

#define TEXT "text/plain; charset=utf-8"

/* --- pure --------------------------------------------------------------------------------------- */

const char *web_status_text(int status)
{
    static const struct { int status; const char *text; } texts[] = {{101, "Switching Protocols"}, {200, "OK"},
        {204, "No Content"}, {400, "Bad Request"}, {401, "Unauthorized"}, {403, "Forbidden"}, {404, "Not Found"},
        {405, "Method Not Allowed"}, {408, "Request Timeout"}, {409, "Conflict"}, {413, "Content Too Large"},
        {421, "Misdirected Request"}, {426, "Upgrade Required"}, {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"}, {499, "Client Closed Request"}, {500, "Internal Server Error"},
        {501, "Not Implemented"}, {503, "Service Unavailable"}, {504, "Gateway Timeout"}, {505, "HTTP Version Not Supported"}};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (texts[i].status == status) {
            return texts[i].text;
        }
    }
    return "Error";
}

int web_status_of_grpc(int grpc_status)
{
    static const int statuses[] = {200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401};
    return grpc_status >= 0 && (size_t)grpc_status < ARRAY_LEN(statuses) ? statuses[grpc_status] : 500;
}

bool web_query_next(struct slice *query, const char *name, struct slice *value)
{
    size_t name_len = strlen(name);
    while (query->len > 0) {
        const uint8_t *amp = memchr(query->data, '&', query->len);
        struct slice part = slice_of(query->data, amp != NULL ? (size_t)(amp - query->data) : query->len);
        size_t taken = part.len + (amp != NULL);
        *query = slice_of(query->data + taken, query->len - taken);
        if (part.len >= name_len && memcmp(part.data, name, name_len) == 0 && (part.len == name_len || part.data[name_len] == '=')) {
            *value = part.len == name_len ? SLICE_EMPTY : slice_of(part.data + name_len + 1, part.len - name_len - 1);
            return true;
        }
    }
    return false;
}

bool web_query_has(struct slice query, const char *name, const char *value)
{
    struct slice found;
    while (web_query_next(&query, name, &found)) {
        if (value == NULL || slice_eq(found, slice_str(value))) {
            return true;
        }
    }
    return false;
}

struct slice web_host_name(struct slice host)
{
    if (host.len == 0) {
        return host;
    }
    const uint8_t *colon = memrchr(host.data, ':', host.len);
    const uint8_t *bracket = memrchr(host.data, ']', host.len);
    if (colon != NULL && (bracket == NULL || bracket < colon) && (bracket != NULL || memchr(host.data, ':', host.len) == colon)) {
        host.len = (size_t)(colon - host.data);
    }
    if (host.len >= 2 && host.data[0] == '[' && host.data[host.len - 1] == ']') {
        host = slice_of(host.data + 1, host.len - 2);
    }
    return host;
}

bool web_list_has(const char *list, struct slice word)
{
    for (const char *next = list; next != NULL;) {
        struct slice item = conf_next_item(&next);
        if (slice_eq(item, SLICE_LIT("*")) || (item.len > 0 && slice_eq(item, word))) {
            return true;
        }
    }
    return false;
}

/* --- answers -------------------------------------------------------------------------------------- */

void web_header(struct web *w, const char *name, const char *value)
{
    must(w->header_count < WEB_HEADERS_MAX && !w->started);
    w->headers[w->header_count++] = (struct web_header){name, xstrdup(value)};
}

void web_respond(struct web *w, int status, const char *content_type, struct slice body)
{
    must(!w->started);
    w->started = w->ended = true;
    w->status = status;
    w->content_type = content_type;
    w->carrier->start(w, (int64_t)body.len);
    w->carrier->send(w, body);
    w->carrier->end(w);
}

void web_start(struct web *w, int status, const char *content_type)
{
    must(!w->started);
    w->started = true;
    w->status = status;
    w->content_type = content_type;
    w->carrier->start(w, -1);
}

void web_send(struct web *w, struct slice bytes)
{
    must(w->started && !w->ended);
    w->carrier->send(w, bytes);
}

void web_end(struct web *w)
{
    must(w->started && !w->ended);
    w->ended = true;
    w->carrier->end(w);
}

/* --- who may ask ------------------------------------------------------------------------------------ */

static bool serves_all(const struct web *w) { return (w->client->serves & SERVES_HTTP) != 0; }
static bool is_api_path(struct slice path) { return path.len >= 3 && memcmp(path.data, "/v3", 3) == 0; }

/* A page of a hostile site could make a browser ask us under that site's name, which then resolves to our address. */
static bool host_is_fine(struct web *w)
{
    struct slice name = web_host_name(w->host);
    if (w->client->is_tls || w->gateway->conf->host_whitelist[0] == '\0' || web_list_has(w->gateway->conf->host_whitelist, name)) {
        return true;
    }
    struct buf text = BUF_INIT;
    buf_add_str(&text, "etcd received your request, but the Host header was unrecognized: ");
    json_add_string(&text, name);
    buf_add_str(&text, " is not in host-whitelist.\nNames are compared to prevent DNS rebinding (CVE-2018-5702). Add this one to "
                       "host-whitelist, or use https, where the certificate names the host.\n");
    web_respond(w, 421, TEXT, buf_slice(&text));
    buf_fini(&text);
    return false;
}

/* Who shows a certificate means to be somebody; but the JSON gateway takes users from tokens only, and would serve nobody. */
static bool name_is_fine(struct web *w)
{
    const struct gatewayd *g = w->gateway;
    if (!w->client->is_tls || w->client->common_name == NULL || w->client->common_name[0] == '\0' || !g->conf->client_cert_auth
        || !g->conf->enable_grpc_gateway || !is_api_path(w->path) || !identity_auth_is_on(g)) {
        return true;
    }
    web_respond(w, 400, TEXT, SLICE_LIT("CommonName of client sending a request against gateway will be ignored and not used as "
                                        "expected\n"));
    return false;
}

static void allow_origin(struct web *w)
{
    const char *origins = w->gateway->conf->cors;
    bool any = web_list_has(origins, SLICE_LIT("*"));
    if (!any && (w->origin.len == 0 || !web_list_has(origins, w->origin))) {
        return;
    }
    char *origin = any ? xstrdup("*") : slice_dup_str(w->origin);
    web_header(w, "Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE");
    web_header(w, "Access-Control-Allow-Origin", origin);
    web_header(w, "Access-Control-Allow-Headers", "accept, content-type, authorization");
    free(origin);
}

/* False: it was answered. */
static bool may_ask(struct web *w)
{
    if (!serves_all(w)) {
        return true;
    }
    if (!host_is_fine(w) || !name_is_fine(w)) {
        return false;
    }
    allow_origin(w);
    if (slice_eq(w->method, SLICE_LIT("OPTIONS"))) {
        web_respond(w, 200, NULL, SLICE_EMPTY);
        return false;
    }
    if (w->wants_socket && w->origin.len > 0 && !web_list_has(w->gateway->conf->cors, w->origin)) {
        web_respond(w, 403, TEXT, SLICE_LIT("origin not allowed\n")); /* a browser does not ask before it opens one */
        return false;
    }
    return true;
}

/* --- carrier's side ----------------------------------------------------------------------------------- */

void web_begin(struct web *w)
{
    if (!may_ask(w)) {
        return;
    }
    if (is_api_path(w->path) && w->gateway->conf->enable_grpc_gateway && serves_all(w)) {
        jsoncall_begin(w);
    }
}

int web_body(struct web *w, struct slice bytes)
{
    return w->json != NULL && !w->ended ? jsoncall_body(w->json, bytes) : OK; /* nothing else looks at a body */
}

void web_body_end(struct web *w)
{
    if (w->ended) {
        return;
    }
    if (w->json != NULL) {
        jsoncall_body_end(w->json);
    } else {
        httpapi_handle(w);
    }
}

void web_raw(struct web *w, struct slice bytes)
{
    if (w->json != NULL) {
        jsoncall_raw(w->json, bytes);
    }
}

void web_turn(struct web *w)
{
    if (w->json != NULL && !w->ended) {
        jsoncall_turn(w->json);
    }
}

bool web_has_more(const struct web *w) { return w->json != NULL && !w->ended && jsoncall_has_more(w->json); }
bool web_is_stream(const struct web *w) { return w->json != NULL && jsoncall_is_stream(w->json); }

void web_shutdown(struct web *w)
{
    if (w->json != NULL && !w->ended) {
        jsoncall_shutdown(w->json);
    }
}

void web_close(struct web *w)
{
    if (w->json != NULL) {
        jsoncall_close(w->json);
    }
    httpapi_close(w);
    for (size_t i = 0; i < w->header_count; i++) {
        free(w->headers[i].value);
    }
    buf_fini(&w->text);
    *w = (struct web){.gateway = w->gateway, .carrier = w->carrier, .owner = w->owner, .client = w->client};
}
