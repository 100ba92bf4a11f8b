/* tls: two ends in memory, with certificates made on the spot. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/rand.h"
#include "common/tls.h"
#include "tests/lib/certs.h"

struct ends {
    struct tls_context *server_ctx, *client_ctx;
    struct tls *server, *client;
    int server_err, client_err;
    struct buf server_in, client_in; /* plain bytes that arrived */
};

static struct certs pki;

static void made(void)
{
    certs_init(&pki, "authority");
    certs_make(&pki, "a", "member-a", "DNS:localhost,IP:127.0.0.1");
    certs_make(&pki, "b", "member-b", "DNS:localhost,IP:127.0.0.1");
}
static void unmade(void) { certs_fini(&pki); }
TestSuite(tls, .init = made, .fini = unmade);

static struct tls_conf conf_of(bool server, const char *name)
{
    static char pem[2][32], key[2][32];

    snprintf(pem[server], sizeof(pem[0]), "%s.pem", name);
    snprintf(key[server], sizeof(key[0]), "%s.key", name);
    return (struct tls_conf){.server = server,
                             .cert_file = name[0] ? certs_path(&pki, pem[server]) : "",
                             .key_file = name[0] ? certs_path(&pki, key[server]) : "",
                             .ca_file = certs_path(&pki, "ca.pem"),
                             .require_cert = true,
                             .check_address = true};
}

static struct tls_context *context_of(const struct tls_conf *conf)
{
    struct buf why = BUF_INIT;
    struct tls_context *c = tls_context_new(conf, &why);

    cr_assert_not_null(c, "%.*s", (int)why.len, (const char *)why.data);
    buf_fini(&why);
    return c;
}

/* What one end has to send, into the other. */
static bool carry(struct tls *from, struct tls *to, int *to_err, struct buf *plain)
{
    struct buf cipher = BUF_INIT;

    tls_output(from, &cipher);
    bool any = cipher.len > 0;
    if (any && !*to_err) {
        *to_err = tls_input(to, buf_slice(&cipher));
        if (!*to_err)
            *to_err = tls_handshake(to);
        if (!*to_err && tls_is_ready(to))
            *to_err = tls_read(to, plain);
    }
    buf_fini(&cipher);
    return any;
}

static void pump(struct ends *e)
{
    bool any = true;

    while (any) {
        any = carry(e->client, e->server, &e->server_err, &e->server_in);
        any = carry(e->server, e->client, &e->client_err, &e->client_in) || any;
    }
}

static void meet(struct ends *e, const char *client_is_at, const char *server_name)
{
    e->server = tls_new(e->server_ctx, client_is_at);
    e->client = tls_new(e->client_ctx, server_name);
    e->client_err = tls_handshake(e->client);
    pump(e);
}

static void part(struct ends *e)
{
    tls_free(e->server);
    tls_free(e->client);
    buf_fini(&e->server_in);
    buf_fini(&e->client_in);
    e->server_err = e->client_err = 0;
}

static struct ends ends_of(const struct tls_conf *server, const struct tls_conf *client)
{
    return (struct ends){.server_ctx = context_of(server), .client_ctx = context_of(client)};
}

static void ends_fini(struct ends *e)
{
    part(e);
    tls_context_free(e->server_ctx);
    tls_context_free(e->client_ctx);
}

/* Do they come together? */
static bool meets(const struct tls_conf *server, const struct tls_conf *client, const char *at, const char *name, const char *why)
{
    struct ends e = ends_of(server, client);

    meet(&e, at, name);
    bool yes = tls_is_ready(e.server) && tls_is_ready(e.client) && !e.server_err && !e.client_err;
    if (why)
        cr_expect(strstr(tls_why(e.server), why) || strstr(tls_why(e.client), why), "server: %s, client: %s", tls_why(e.server),
                  tls_why(e.client));
    ends_fini(&e);
    return yes;
}

Test(tls, bytes_arrive_both_ways)
{
    struct tls_conf server = conf_of(true, "a"), client = conf_of(false, "b");
    struct ends e = ends_of(&server, &client);
    static uint8_t noise[300000];
    struct rand r;

    rand_seed(&r, 1);
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (uint8_t)rand_u64(&r);
    meet(&e, "127.0.0.1", "localhost");
    cr_assert(tls_is_ready(e.server) && tls_is_ready(e.client), "%s / %s", tls_why(e.server), tls_why(e.client));
    cr_expect_str_eq(tls_version(e.server), "TLSv1.3");
    cr_expect_eq(tls_write(e.client, slice_of(noise, sizeof(noise))), 0);
    cr_expect_eq(tls_write(e.server, SLICE_LIT("hello")), 0);
    pump(&e);
    cr_assert_eq(e.server_in.len, sizeof(noise));
    cr_expect_arr_eq(e.server_in.data, noise, sizeof(noise));
    cr_expect(slice_eq(buf_slice(&e.client_in), SLICE_LIT("hello")));
    ends_fini(&e);
}

Test(tls, an_address_is_as_good_as_a_name)
{
    struct tls_conf server = conf_of(true, "a"), client = conf_of(false, "b");

    cr_expect(meets(&server, &client, "127.0.0.1", "127.0.0.1", NULL));
    cr_expect_not(meets(&server, &client, "127.0.0.1", "127.0.0.2", "mismatch"));
    cr_expect_not(meets(&server, &client, "127.0.0.1", "elsewhere", "mismatch"));
}

Test(tls, who_shows_no_certificate_is_refused)
{
    struct tls_conf server = conf_of(true, "a"), client = conf_of(false, "");

    cr_expect_not(meets(&server, &client, "127.0.0.1", "localhost", "certificate"));
    server.require_cert = false;
    cr_expect(meets(&server, &client, "127.0.0.1", "localhost", NULL));
}

Test(tls, a_foreign_authority_is_not_trusted)
{
    struct certs foreign;

    certs_init(&foreign, "somebody");
    certs_make(&foreign, "a", "member-a", "DNS:localhost,IP:127.0.0.1");

    /* the client's */
    struct tls_conf server = conf_of(true, "a"), client = conf_of(false, "b");
    client.cert_file = certs_path(&foreign, "a.pem");
    client.key_file = certs_path(&foreign, "a.key");
    cr_expect_not(meets(&server, &client, "127.0.0.1", "localhost", "certificate"));

    /* the server's */
    server = conf_of(true, "a"), client = conf_of(false, "b");
    server.cert_file = certs_path(&foreign, "a.pem");
    server.key_file = certs_path(&foreign, "a.key");
    cr_expect_not(meets(&server, &client, "127.0.0.1", "localhost", "certificate"));
    certs_fini(&foreign);
}

Test(tls, only_common_names_of_the_list_are_let_in)
{
    struct tls_conf server = conf_of(true, "a"), client = conf_of(false, "b");

    server.allowed_cn = "member-x,member-b";
    cr_expect(meets(&server, &client, "127.0.0.1", "localhost", NULL));
    server.allowed_cn = "member-x,member";
    cr_expect_not(meets(&server, &client, "127.0.0.1", "localhost", "common name"));
}

Test(tls, only_host_names_of_the_list_are_let_in)
{
    struct tls_conf server = conf_of(true, "a"), client = conf_of(false, "b");

    server.allowed_hostname = "other,localhost";
    cr_expect(meets(&server, &client, "127.0.0.1", "localhost", NULL));
    server.allowed_hostname = "other";
    cr_expect_not(meets(&server, &client, "127.0.0.1", "localhost", "host names"));
}

Test(tls, a_certificate_of_another_address_is_refused_unless_told_otherwise)
{
    struct tls_conf server = conf_of(true, "a"), client = conf_of(false, "b");

    cr_expect_not(meets(&server, &client, "10.0.0.1", "localhost", "addresses"));
    server.check_address = false;
    cr_expect(meets(&server, &client, "10.0.0.1", "localhost", NULL));

    /* one that names no address may come from anywhere */
    certs_make(&pki, "c", "member-c", NULL);
    server = conf_of(true, "a"), client = conf_of(false, "c");
    cr_expect(meets(&server, &client, "10.0.0.1", "localhost", NULL));
}

Test(tls, a_revoked_certificate_is_refused)
{
    long serial = certs_make(&pki, "c", "member-c", "DNS:localhost,IP:127.0.0.1");
    struct tls_conf server = conf_of(true, "a"), client = conf_of(false, "c");

    server.crl_file = certs_path(&pki, "crl.pem");
    certs_revoke(&pki, 0);
    cr_expect(meets(&server, &client, "127.0.0.1", "localhost", NULL));
    certs_revoke(&pki, serial);
    cr_expect_not(meets(&server, &client, "127.0.0.1", "localhost", "revoked"));
}

Test(tls, changed_files_are_read_again_and_bad_ones_are_not_used)
{
    struct tls_conf server = conf_of(true, "a"), client = conf_of(false, "b");
    struct ends e = ends_of(&server, &client);

    meet(&e, "127.0.0.1", "localhost");
    cr_assert(tls_is_ready(e.server));
    part(&e);

    /* another certificate for another name */
    certs_make(&pki, "a", "member-a", "DNS:moved");
    meet(&e, "127.0.0.1", "localhost");
    cr_expect_not(tls_is_ready(e.client));
    part(&e);
    meet(&e, "127.0.0.1", "moved");
    cr_expect(tls_is_ready(e.client), "%s", tls_why(e.client));
    cr_expect_eq(tls_context_reloads(e.server_ctx), 1);
    part(&e);

    /* a key that is none: the old pair stays in force */
    FILE *f = fopen(certs_path(&pki, "a.key"), "w");
    fputs("nonsense\n", f);
    fclose(f);
    meet(&e, "127.0.0.1", "moved");
    cr_expect(tls_is_ready(e.client), "%s", tls_why(e.client));
    cr_expect_eq(tls_context_reloads(e.server_ctx), 1);
    ends_fini(&e);
}

Test(tls, files_that_do_not_fit_are_told_at_the_start)
{
    struct tls_conf server = conf_of(true, "a");
    struct buf why = BUF_INIT;

    server.key_file = certs_path(&pki, "b.key");
    cr_expect_null(tls_context_new(&server, &why));
    cr_expect_gt(why.len, 0);
    buf_reset(&why);
    server.key_file = certs_path(&pki, "missing.key");
    cr_expect_null(tls_context_new(&server, &why));
    buf_add_byte(&why, 0);
    cr_expect_not_null(strstr((char *)why.data, "missing.key"));
    buf_reset(&why);
    server.key_file = "";
    cr_expect_null(tls_context_new(&server, &why));
    buf_fini(&why);
}

Test(tls, versions_are_kept_to)
{
    struct tls_conf server = conf_of(true, "a"), client = conf_of(false, "b");

    server.max_version = "TLS1.2";
    cr_expect(meets(&server, &client, "127.0.0.1", "localhost", NULL));
    client.min_version = "TLS1.3";
    cr_expect_not(meets(&server, &client, "127.0.0.1", "localhost", NULL));
}

Test(tls, a_certificate_of_our_own_making_encrypts_and_proves_nothing)
{
    struct tls_conf server = {.server = true, .self_signed = true}, client = {.self_signed = true};

    cr_expect(meets(&server, &client, "10.1.2.3", "anywhere", NULL));
}

Test(tls, protocols_are_agreed_on)
{
    struct tls_conf server = conf_of(true, "a"), client = conf_of(false, "b");

    server.alpn = "h2,http/1.1";
    struct ends e = ends_of(&server, &client);
    meet(&e, "127.0.0.1", "localhost"); /* a client that asks for none gets none */
    cr_expect(tls_is_ready(e.server));
    cr_expect_eq(tls_alpn(e.server).len, 0);
    ends_fini(&e);
}

Test(tls, noise_ends_a_connection_and_nothing_else)
{
    struct tls_conf server = conf_of(true, "a"), client = conf_of(false, "b");
    struct ends e = ends_of(&server, &client);
    struct rand r;

    rand_seed(&r, 7);
    for (int i = 0; i < 200; i++) {
        uint8_t noise[600];
        size_t len = 1 + (size_t)rand_below(&r, sizeof(noise));
        struct buf out = BUF_INIT;

        for (size_t k = 0; k < len; k++)
            noise[k] = (uint8_t)rand_u64(&r);
        if (i % 2)
            memcpy(noise, "\x16\x03\x01\x00\x80\x01", MIN(len, (size_t)6)); /* begins like a ClientHello */
        struct tls *t = tls_new(e.server_ctx, "127.0.0.1");
        if (tls_input(t, slice_of(noise, len)) == 0)
            (void)tls_handshake(t);
        cr_expect_not(tls_is_ready(t));
        tls_output(t, &out);
        buf_fini(&out);
        tls_free(t);
    }
    /* in the middle of a good connection */
    meet(&e, "127.0.0.1", "localhost");
    cr_assert(tls_is_ready(e.server));
    cr_expect_eq(tls_input(e.server, SLICE_LIT("\x17\x03\x03\x00\x05hello")), 0);
    cr_expect_neq(tls_read(e.server, &e.server_in), 0);
    cr_expect_neq(tls_why(e.server)[0], '\0');
    ends_fini(&e);
}
