/* tls_swap - certificate, authorities and revocations of a running node are exchanged while clients with and without lasting
 * connections put: no request of a valid client fails, and what is new counts for the next connection. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/tls.h"
#include "proto/api.h"
#include "tests/lib/certs.h"
#include "tests/lib/raw.h"

#define LASTING 6
#define ROUND_MS 900
#define LOCALHOST "DNS:localhost,IP:127.0.0.1"

static struct node node;
static struct certs old, new; /* two authorities */
static int tls_port;
static struct gclient *lasting[LASTING];
static unsigned long sent;
static char files[64]; /* the directory that the node reads */

static void copy(const struct certs *from, const char *name, const char *as)
{
    char *command = NULL;
    /* Renamed, as a tool that renews certificates does it. */
    must(asprintf(&command, "cp %s %s/tmp && mv %s/tmp %s/%s", certs_path(from, name), files, files, files, as) > 0);
    must(system(command) == 0);
    free(command);
}

static void join(const char *name)
{
    char *command = NULL;
    must(asprintf(&command, "cat %s %s > %s/tmp && mv %s/tmp %s/%s", certs_path(&old, name), certs_path(&new, name), files, files, files, name) > 0);
    must(system(command) == 0);
    free(command);
}

/* Whom a client trusts: both authorities, as the clients do while one follows the other. */
static struct tls_context *client_context(const struct certs *c, const char *name)
{
    char pem[64], key[64], both[80];
    struct buf why = BUF_INIT;
    snprintf(pem, sizeof(pem), "%s.pem", name);
    snprintf(key, sizeof(key), "%s.key", name);
    snprintf(both, sizeof(both), "%s/both.pem", files);
    struct tls_conf tc = {.ca_file = both, .cert_file = c ? certs_path(c, pem) : "", .key_file = c ? certs_path(c, key) : ""};
    struct tls_context *context = tls_context_new(&tc, &why);
    must(context);
    buf_fini(&why);
    return context;
}

static bool put(struct gclient *c)
{
    struct buf request = BUF_INIT;
    char value[32];
    snprintf(value, sizeof(value), "%lu", sent++);
    api_encode_put(&request, &(struct api_put){.key = SLICE_LIT("k"), .value = slice_str(value)});
    int status = gclient_unary(c, "/etcdserverpb.KV/Put", buf_slice(&request), NULL, NULL, 10000);
    buf_fini(&request);
    return status == 0;
}

/* One request on a connection of its own. */
static bool comes_in(struct tls_context *context)
{
    struct gclient *c = gclient_connect_tls("127.0.0.1", tls_port, context);
    bool yes = c && put(c);
    gclient_free(c);
    return yes;
}

/* Lasting connections and new ones of this client put for a while. */
static void load(struct tls_context *context, const char *when)
{
    unsigned long begun = sent, failed = 0, lost = 0;
    uint64_t until = clock_now_ms() + ROUND_MS;
    while (clock_now_ms() < until) {
        for (int i = 0; i < LASTING; i++)
            lost += !put(lasting[i]);
        failed += !comes_in(context);
    }
    CHECK(lost == 0 && failed == 0, "%s: of %lu puts %lu failed on lasting connections, %lu on new ones", when, sent - begun, lost, failed);
}

/* Until the gateway has seen the new file, which it looks at when the next client comes. */
static bool refused(struct tls_context *context)
{
    for (int i = 0; i < 20; i++) {
        if (!comes_in(context))
            return true;
        usleep(20000);
    }
    return false;
}

static void make_files(void)
{
    certs_init(&old, "old authority");
    certs_init(&new, "new authority");
    strcpy(files, "/tmp/trine-swap.XXXXXX");
    must(mkdtemp(files));
    struct certs *both[] = {&old, &new};
    for (size_t i = 0; i < 2; i++) {
        certs_make(both[i], "server", "node", LOCALHOST);
        certs_make(both[i], "client", "client", NULL);
        certs_revoke(both[i], 0);
    }
    copy(&old, "server.pem", "server.pem");
    copy(&old, "server.key", "server.key");
    copy(&old, "ca.pem", "ca.pem");
    copy(&old, "crl.pem", "crl.pem");
    char *command = NULL;
    must(asprintf(&command, "cat %s %s > %s/both.pem", certs_path(&old, "ca.pem"), certs_path(&new, "ca.pem"), files) > 0);
    must(system(command) == 0);
    free(command);
}

static const char *file(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % ARRAY_LEN(paths)];
    snprintf(path, sizeof(paths[0]), "%s/%s", files, name);
    return path;
}

static void start(void)
{
    const char *options[] = {"--cert-file", file("server.pem"), "--key-file", file("server.key"), "--trusted-ca-file", file("ca.pem"),
                             "--client-crl-file", file("crl.pem"), NULL};
    node_start_tls(&node, options);
    tls_port = node.tls_port;
}

int main(void)
{
    static const char *const names[] = {"server.pem", "server.key", "ca.pem", "crl.pem", "both.pem"};
    make_files();
    start();
    long pid = node_pid(&node, "gatewayd");
    struct tls_context *with_old = client_context(&old, "client"), *with_new = client_context(&new, "client"), *with_none = client_context(NULL, "");
    for (int i = 0; i < LASTING; i++) {
        lasting[i] = gclient_connect_tls("127.0.0.1", tls_port, with_old);
        must(lasting[i]);
    }
    load(with_old, "as started");
    CHECK(!comes_in(with_new), "a client of an unknown authority");
    CHECK(!comes_in(with_none), "a client without a certificate");

    /* The node's own certificate: its file first, so that for a moment the two do not fit together. */
    copy(&new, "server.pem", "server.pem");
    load(with_old, "a certificate whose key is still to come");
    copy(&new, "server.key", "server.key");
    load(with_old, "another certificate of the node");

    join("ca.pem");
    load(with_old, "a second authority");
    load(with_new, "clients of the second authority");

    long revoked = certs_make(&old, "revoked", "client", NULL);
    struct tls_context *with_revoked = client_context(&old, "revoked");
    CHECK(comes_in(with_revoked), "before it is revoked");
    certs_revoke(&old, revoked);
    copy(&old, "crl.pem", "crl.pem");
    CHECK(refused(with_revoked), "after it was revoked");
    load(with_old, "a certificate was revoked");
    load(with_new, "and of the other authority there is no list");

    FILE *f = fopen(file("crl.pem"), "w");
    must(f && fputs("-----BEGIN X509 CRL-----\nhalf of it", f) > 0 && fclose(f) == 0);
    load(with_old, "half a list");
    CHECK(!comes_in(with_revoked), "the old one stays in force");
    join("crl.pem");
    load(with_new, "a whole one again");
    CHECK(!comes_in(with_revoked), "for both authorities");

    copy(&new, "ca.pem", "ca.pem");
    CHECK(refused(with_old), "the first authority is no longer trusted");
    load(with_new, "only the second authority: lasting connections of the first go on");

    CHECK(node_pid(&node, "gatewayd") == pid);
    CHECK(node_metric(&node, "trine_gateway_dropped_total{reason=\"tls\"}") > 0);
    CHECK(node_metric(&node, "trine_gateway_tls_reloads_total") >= 5);
    printf("%lu puts while seven files were exchanged\n", sent);
    for (int i = 0; i < LASTING; i++)
        gclient_free(lasting[i]);
    tls_context_free(with_old);
    tls_context_free(with_new);
    tls_context_free(with_none);
    tls_context_free(with_revoked);
    node_stop(&node);
    certs_fini(&old);
    certs_fini(&new);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        unlink(file(names[i]));
    rmdir(files);
    return check_summary();
}
