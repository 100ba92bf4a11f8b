/* tls - see tls.h. The only file of the suite that knows OpenSSL's connections. From peer_conn.c (and whoever else owns a
 * socket).
 *
 * A connection takes a reference of the SSL_CTX that was in force when it began, so that a reload does not touch it. */
#include "common/tls.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"

#define FILES 4
#define WHY_BYTES 200
/* A record is at most this long. */
#define RECORD_BYTES ((size_t)16 * 1024)
#define SELF_SIGNED_DAYS 365
#define NAMES_BYTES_MAX ((size_t)4096)

/* What tells a changed file from the one that was read. */
struct stamp {
    struct timespec changed;
    off_t size;
    ino_t inode;
};

struct tls_context {
    struct tls_conf conf; /* strings are ours */
    SSL_CTX *ctx;
    X509 *own_cert; /* self_signed: made once */
    EVP_PKEY *own_key;
    struct stamp stamps[FILES];
    uint64_t reloads;
    uint8_t alpn[64]; /* in TLS's own form: length, name, ... */
    unsigned alpn_len;
};

struct tls {
    SSL *ssl;
    BIO *in, *out; /* owned by ssl */
    struct tls_context *context;
    char *name;
    bool ready;
    char why[WHY_BYTES];
};

/* --- files ---------------------------------------------------------------------------------------- */

static const char *file_of(const struct tls_conf *c, int i)
{
    const char *files[FILES] = {c->cert_file, c->key_file, c->ca_file, c->crl_file};

    return files[i];
}

static void stamps_read(const struct tls_conf *c, struct stamp *stamps)
{
    for (int i = 0; i < FILES; i++) {
        struct stat st;

        memset(&stamps[i], 0, sizeof(stamps[i]));
        if (!file_of(c, i)[0] || stat(file_of(c, i), &st) != 0)
            continue;
        stamps[i] = (struct stamp){.changed = st.st_mtim, .size = st.st_size, .inode = st.st_ino};
    }
}

static bool stamps_equal(const struct stamp *a, const struct stamp *b)
{
    for (int i = 0; i < FILES; i++) {
        if (a[i].changed.tv_sec != b[i].changed.tv_sec || a[i].changed.tv_nsec != b[i].changed.tv_nsec ||
            a[i].size != b[i].size || a[i].inode != b[i].inode)
            return false;
    }
    return true;
}

/* OpenSSL's own words for its last error, and no error left behind. */
static const char *ssl_text(char *text, size_t size)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;

    snprintf(text, size, "%s", reason ? reason : "unknown error");
    ERR_clear_error();
    return text;
}

static int say(struct buf *why, const char *what, const char *file)
{
    char text[WHY_BYTES];

    buf_printf(why, "%s%s%s: %s", what, file[0] ? " " : "", file, ssl_text(text, sizeof(text)));
    return E_INVALID;
}

/* --- a certificate of our own making ----------------------------------------------------------------- */

static bool is_address(const char *name)
{
    uint8_t bytes[16];

    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

static bool extend(X509 *x, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    bool done = e && X509_add_ext(x, e, -1) == 1;

    X509_EXTENSION_free(e);
    return done;
}

/* "IP:127.0.0.1,DNS:localhost" of "127.0.0.1,localhost". */
static bool add_names(X509 *x, const char *hosts)
{
    struct buf names = BUF_INIT;

    while (*hosts && names.len < NAMES_BYTES_MAX) {
        size_t len = strcspn(hosts, ",");
        char *host = slice_dup_str(slice_of(hosts, len));

        if (len > 0)
            buf_printf(&names, "%s%s:%s", names.len > 0 ? "," : "", is_address(host) ? "IP" : "DNS", host);
        free(host);
        hosts += len + (hosts[len] == ',');
    }
    buf_add_byte(&names, '\0');
    bool done = names.len == 1 || extend(x, NID_subject_alt_name, (const char *)names.data);
    buf_fini(&names);
    return done;
}

static int self_signed_make(struct tls_context *c, struct buf *why)
{
    X509 *x = X509_new();
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509_NAME *name = x ? X509_get_subject_name(x) : NULL;
    long days = SELF_SIGNED_DAYS * (long)MAX(c->conf.self_signed_years, 1);
    uint64_t serial = 0;

    if (!x || !key || !X509_set_version(x, 2) || RAND_bytes((unsigned char *)&serial, sizeof(serial)) != 1 ||
        !ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), serial >> 1) || !X509_gmtime_adj(X509_getm_notBefore(x), -3600) ||
        !X509_time_adj_ex(X509_getm_notAfter(x), (int)days, 0, NULL) || !X509_set_pubkey(x, key) ||
        !X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC, (const unsigned char *)"trine", -1, -1, 0) ||
        !X509_set_issuer_name(x, name) || !extend(x, NID_basic_constraints, "critical,CA:TRUE") ||
        !extend(x, NID_ext_key_usage, "serverAuth,clientAuth") || !add_names(x, c->conf.self_signed_hosts) ||
        !X509_sign(x, key, EVP_sha256())) {
        X509_free(x);
        EVP_PKEY_free(key);
        return say(why, "making a certificate", "");
    }
    c->own_cert = x;
    c->own_key = key;
    return 0;
}

/* Takes what an earlier start has left. False: nothing that is good. */
static bool self_signed_load(struct tls_context *c, const char *cert_path, const char *key_path)
{
    FILE *cert = fopen(cert_path, "r"), *key = fopen(key_path, "r");

    c->own_cert = cert ? PEM_read_X509(cert, NULL, NULL, NULL) : NULL;
    c->own_key = key ? PEM_read_PrivateKey(key, NULL, NULL, NULL) : NULL;
    if (cert)
        fclose(cert);
    if (key)
        fclose(key);
    if (c->own_cert && c->own_key && X509_check_private_key(c->own_cert, c->own_key) == 1 &&
        X509_cmp_current_time(X509_get0_notAfter(c->own_cert)) > 0)
        return true;
    X509_free(c->own_cert);
    EVP_PKEY_free(c->own_key);
    c->own_cert = NULL;
    c->own_key = NULL;
    ERR_clear_error();
    return false;
}

/* Under another name first, so that nobody reads half of it. */
static int self_signed_save(const char *path, X509 *cert, EVP_PKEY *key)
{
    char *temporary = xasprintf("%s.%ld", path, (long)getpid());
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    bool done = f && (cert ? PEM_write_X509(f, cert) : PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL)) == 1;

    if (f)
        done = fclose(f) == 0 && done;
    else if (fd >= 0)
        close(fd);
    done = done && rename(temporary, path) == 0;
    if (!done)
        unlink(temporary);
    free(temporary);
    return done ? 0 : E_IO;
}

static int self_signed_get(struct tls_context *c, struct buf *why)
{
    const char *dir = c->conf.self_signed_dir;

    if (!dir[0])
        return self_signed_make(c, why);
    char *cert_path = xasprintf("%s/cert.pem", dir), *key_path = xasprintf("%s/key.pem", dir);
    int err = 0;

    if (!self_signed_load(c, cert_path, key_path)) {
        err = self_signed_make(c, why);
        if (!err && (self_signed_save(key_path, NULL, c->own_key) != 0 || self_signed_save(cert_path, c->own_cert, NULL) != 0))
            log_warn("tls: the certificate that was made cannot be kept in %s", dir);
    }
    free(cert_path);
    free(key_path);
    return err;
}

/* --- contexts ------------------------------------------------------------------------------------------ */

static int load_own(struct tls_context *c, SSL_CTX *ctx, struct buf *why)
{
    const struct tls_conf *conf = &c->conf;

    if (conf->self_signed) {
        if (!c->own_cert && self_signed_get(c, why) != 0)
            return E_INVALID;
        if (SSL_CTX_use_certificate(ctx, c->own_cert) != 1 || SSL_CTX_use_PrivateKey(ctx, c->own_key) != 1)
            return say(why, "own certificate", "");
        return 0;
    }
    if (!conf->cert_file[0])
        return 0;
    if (SSL_CTX_use_certificate_chain_file(ctx, conf->cert_file) != 1)
        return say(why, "certificate file", conf->cert_file);
    if (SSL_CTX_use_PrivateKey_file(ctx, conf->key_file, SSL_FILETYPE_PEM) != 1)
        return say(why, "key file", conf->key_file);
    if (SSL_CTX_check_private_key(ctx) != 1)
        return say(why, "key and certificate do not belong together:", conf->key_file);
    return 0;
}

static int load_trust(struct tls_context *c, SSL_CTX *ctx, struct buf *why)
{
    const struct tls_conf *conf = &c->conf;

    if (conf->ca_file[0]) {
        if (SSL_CTX_load_verify_locations(ctx, conf->ca_file, NULL) != 1)
            return say(why, "authorities' file", conf->ca_file);
        if (conf->server)
            SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(conf->ca_file));
    } else if (!conf->self_signed && SSL_CTX_set_default_verify_paths(ctx) != 1) {
        return say(why, "the system's authorities", "");
    }
    if (conf->crl_file[0]) {
        X509_STORE *store = SSL_CTX_get_cert_store(ctx);
        X509_LOOKUP *lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());

        if (!lookup || (X509_load_crl_file(lookup, conf->crl_file, X509_FILETYPE_PEM) < 1 &&
                        X509_load_crl_file(lookup, conf->crl_file, X509_FILETYPE_ASN1) < 1))
            return say(why, "file of revoked certificates", conf->crl_file);
        ERR_clear_error();
        X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    }
    return 0;
}

/* etcd looks for a certificate's number in the list and at nothing else of it. We believe only an authority's own list, but ask neither
 * that every authority has one nor that it is the newest: a server must not shut everybody out because a list is late. */
static int verify_partial(int good, X509_STORE_CTX *store)
{
    int err = X509_STORE_CTX_get_error(store);

    if (good || (err != X509_V_ERR_UNABLE_TO_GET_CRL && err != X509_V_ERR_CRL_HAS_EXPIRED && err != X509_V_ERR_CRL_NOT_YET_VALID))
        return good;
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
}

/* --- suites ------------------------------------------------------------------------------------------------ */

/* OpenSSL's name of a suite of TLS 1.2 by IANA's, or by the short one that Go has for two of them. NULL: unknown. */
static const char *suite_name(SSL_CTX *ctx, struct slice iana)
{
    STACK_OF(SSL_CIPHER) *all = SSL_CTX_get_ciphers(ctx);

    for (int i = 0; i < sk_SSL_CIPHER_num(all); i++) {
        const SSL_CIPHER *cipher = sk_SSL_CIPHER_value(all, i);
        const char *name = SSL_CIPHER_standard_name(cipher);

        if (!name || SSL_CIPHER_get_protocol_id(cipher) >> 8 == 0x13)
            continue;
        size_t len = strlen(name), cut = len > 7 && strstr(name, "CHACHA20_POLY1305_SHA256") ? len - 7 : len;
        if (slice_eq(iana, slice_of(name, len)) || slice_eq(iana, slice_of(name, cut)))
            return SSL_CIPHER_get_name(cipher);
    }
    return NULL;
}

static int suites_translate(const char *list, struct buf *names, struct buf *why)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    int err = 0;

    must(ctx && SSL_CTX_set_cipher_list(ctx, "ALL") == 1);
    while (*list && !err) {
        size_t len = strcspn(list, ",");
        const char *name = suite_name(ctx, slice_of(list, len));

        if (name) {
            buf_printf(names, "%s%s", names->len > 0 ? ":" : "", name);
        } else {
            buf_printf(why, "unexpected TLS cipher suite \"%.*s\"", (int)MIN(len, 64), list);
            err = E_INVALID;
        }
        list += len + (list[len] == ',');
    }
    SSL_CTX_free(ctx);
    buf_add_byte(names, '\0');
    return err;
}

int tls_check_suites(const char *list, struct buf *why)
{
    struct buf names = BUF_INIT;
    int err = suites_translate(list, &names, why);

    buf_fini(&names);
    return err;
}

static int load_suites(struct tls_context *c, SSL_CTX *ctx, struct buf *why)
{
    struct buf names = BUF_INIT;

    if (!c->conf.cipher_suites[0])
        return 0;
    int err = suites_translate(c->conf.cipher_suites, &names, why);
    if (!err && SSL_CTX_set_cipher_list(ctx, (const char *)names.data) != 1)
        err = say(why, "cipher suites", "");
    buf_fini(&names);
    return err;
}

static int version_of(const char *text)
{
    return strcmp(text, "TLS1.3") == 0 ? TLS1_3_VERSION : strcmp(text, "TLS1.2") == 0 ? TLS1_2_VERSION : 0;
}

static int alpn_select(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                       unsigned in_len, void *arg)
{
    struct tls_context *c = arg;
    unsigned char *picked;

    UNUSED(ssl);
    if (SSL_select_next_proto(&picked, out_len, c->alpn, c->alpn_len, in, in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = picked;
    return SSL_TLSEXT_ERR_OK;
}

/* "h2,http/1.1" as TLS writes it. */
static void alpn_set(struct tls_context *c, const char *list)
{
    while (*list) {
        size_t len = strcspn(list, ",");

        must(c->alpn_len + 1 + len <= sizeof(c->alpn) && len < 256);
        c->alpn[c->alpn_len++] = (uint8_t)len;
        memcpy(c->alpn + c->alpn_len, list, len);
        c->alpn_len += (unsigned)len;
        list += len + (list[len] == ',');
    }
}

static SSL_CTX *context_make(struct tls_context *c, struct buf *why)
{
    const struct tls_conf *conf = &c->conf;
    SSL_CTX *ctx = SSL_CTX_new(conf->server ? TLS_server_method() : TLS_client_method());
    int mode = SSL_VERIFY_NONE;

    must(ctx);
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_min_proto_version(ctx, MAX(version_of(conf->min_version), TLS1_2_VERSION));
    SSL_CTX_set_max_proto_version(ctx, version_of(conf->max_version));
    if (load_own(c, ctx, why) != 0 || load_trust(c, ctx, why) != 0 || load_suites(c, ctx, why) != 0) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    if (!conf->self_signed && (!conf->server || conf->require_cert))
        mode = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_verify(ctx, mode, conf->crl_partial ? verify_partial : NULL);
    if (conf->server && c->alpn_len > 0)
        SSL_CTX_set_alpn_select_cb(ctx, alpn_select, c);
    return ctx;
}

static const char *copy(const char *text)
{
    return xstrdup(text ? text : "");
}

struct tls_context *tls_context_new(const struct tls_conf *conf, struct buf *why)
{
    struct tls_context *c = xcalloc(1, sizeof(*c));
    struct tls_conf *own = &c->conf;

    *own = *conf;
    own->cert_file = copy(conf->cert_file);
    own->key_file = copy(conf->key_file);
    own->ca_file = copy(conf->ca_file);
    own->crl_file = copy(conf->crl_file);
    own->allowed_cn = copy(conf->allowed_cn);
    own->allowed_hostname = copy(conf->allowed_hostname);
    own->min_version = copy(conf->min_version);
    own->max_version = copy(conf->max_version);
    own->cipher_suites = copy(conf->cipher_suites);
    own->self_signed_dir = copy(conf->self_signed_dir);
    own->self_signed_hosts = copy(conf->self_signed_hosts);
    own->alpn = copy(conf->alpn);
    alpn_set(c, own->alpn);
    if (own->server && !own->self_signed && (!own->cert_file[0] || !own->key_file[0])) {
        buf_add_str(why, "a server needs a certificate and its key");
        tls_context_free(c);
        return NULL;
    }
    stamps_read(own, c->stamps);
    c->ctx = context_make(c, why);
    if (!c->ctx) {
        tls_context_free(c);
        return NULL;
    }
    return c;
}

void tls_context_free(struct tls_context *c)
{
    if (!c)
        return;
    const struct tls_conf *own = &c->conf;
    const char *texts[] = {own->cert_file,   own->key_file,    own->ca_file,       own->crl_file,        own->allowed_cn,       own->allowed_hostname,
                           own->min_version, own->max_version, own->cipher_suites, own->self_signed_dir, own->self_signed_hosts, own->alpn};

    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        free((char *)(uintptr_t)texts[i]);
    SSL_CTX_free(c->ctx);
    X509_free(c->own_cert);
    EVP_PKEY_free(c->own_key);
    free(c);
}

void tls_context_refresh(struct tls_context *c)
{
    struct stamp now[FILES];
    struct buf why = BUF_INIT;

    if (c->conf.self_signed)
        return;
    stamps_read(&c->conf, now);
    if (stamps_equal(now, c->stamps))
        return;
    /* Noted even if they are no good: half-written ones change once more. */
    memcpy(c->stamps, now, sizeof(now));
    SSL_CTX *ctx = context_make(c, &why);
    if (!ctx) {
        log_error("tls: the files have changed, but the old ones stay in force: %.*s", (int)why.len, (const char *)why.data);
    } else {
        log_info("tls: certificates were read again: %s", c->conf.cert_file);
        SSL_CTX_free(c->ctx);
        c->ctx = ctx;
        c->reloads++;
    }
    buf_fini(&why);
}

uint64_t tls_context_reloads(const struct tls_context *c)
{
    return c->reloads;
}

/* --- who is at the other end? ----------------------------------------------------------------------------- */

static bool cert_is_for(X509 *cert, const char *name)
{
    return is_address(name) ? X509_check_ip_asc(cert, name, 0) == 1 : X509_check_host(cert, name, 0, 0, NULL) == 1;
}

/* Calls is() for each of a comma list. */
static bool any_of(const char *list, bool (*is)(X509 *cert, const char *item), X509 *cert)
{
    while (*list) {
        size_t len = strcspn(list, ",");
        char *item = slice_dup_str(slice_of(list, len));
        bool yes = len > 0 && is(cert, item);

        free(item);
        if (yes)
            return true;
        list += len + (list[len] == ',');
    }
    return false;
}

static bool has_cn(X509 *cert, const char *cn)
{
    char own[256];
    int len = X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, own, sizeof(own));

    return len > 0 && (size_t)len == strlen(cn) && memcmp(own, cn, (size_t)len) == 0;
}

/* etcd's rule: a certificate that names addresses or hosts must name the one it comes from; one that names none may come
 * from anywhere. A host name is good if it stands for the address, which only a resolver knows: we look at addresses
 * first, and take "localhost" for the loopback. Others need peer-skip-client-san-verification. */
static bool address_fits(X509 *cert, const char *address)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    bool named = false;

    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++)
        named = named || sk_GENERAL_NAME_value(names, i)->type == GEN_IPADD || sk_GENERAL_NAME_value(names, i)->type == GEN_DNS;
    GENERAL_NAMES_free(names);
    if (!named || X509_check_ip_asc(cert, address, 0) == 1)
        return true;
    return (strncmp(address, "127.", 4) == 0 || strcmp(address, "::1") == 0) && X509_check_host(cert, "localhost", 0, 0, NULL) == 1;
}

static int peer_check(struct tls *t)
{
    const struct tls_conf *conf = &t->context->conf;
    X509 *cert = SSL_get0_peer_certificate(t->ssl);
    const char *fault = NULL;

    if (!conf->server || conf->self_signed || !conf->require_cert)
        return 0; /* a client's check is in the handshake */
    if (!cert)
        fault = "it showed no certificate";
    else if (conf->allowed_cn[0] && !any_of(conf->allowed_cn, has_cn, cert))
        fault = "its certificate's common name is not among those allowed";
    else if (conf->allowed_hostname[0] && !any_of(conf->allowed_hostname, cert_is_for, cert))
        fault = "its certificate is for none of the host names allowed";
    else if (conf->check_address && !address_fits(cert, t->name))
        fault = "its certificate is for other addresses than its own";
    if (!fault)
        return 0;
    snprintf(t->why, sizeof(t->why), "%s", fault);
    return E_PERMISSION_DENIED;
}

/* --- one connection ---------------------------------------------------------------------------------------- */

struct tls *tls_new(struct tls_context *c, const char *name)
{
    struct tls *t = xcalloc(1, sizeof(*t));

    tls_context_refresh(c);
    t->context = c;
    t->name = xstrdup(name);
    t->ssl = SSL_new(c->ctx);
    t->in = BIO_new(BIO_s_mem());
    t->out = BIO_new(BIO_s_mem());
    must(t->ssl && t->in && t->out);
    SSL_set_bio(t->ssl, t->in, t->out);
    if (c->conf.server) {
        SSL_set_accept_state(t->ssl);
        return t;
    }
    SSL_set_connect_state(t->ssl);
    if (is_address(name)) {
        must(X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->ssl), name) == 1);
    } else {
        SSL_set1_host(t->ssl, name);
        SSL_set_tlsext_host_name(t->ssl, name);
    }
    return t;
}

void tls_free(struct tls *t)
{
    if (!t)
        return;
    SSL_free(t->ssl);
    free(t->name);
    free(t);
    ERR_clear_error();
}

static int fail(struct tls *t, const char *what)
{
    long verdict = SSL_get_verify_result(t->ssl);
    char text[WHY_BYTES / 2];

    if (!t->ready && verdict != X509_V_OK) {
        ERR_clear_error();
        snprintf(t->why, sizeof(t->why), "%s: %s", what, X509_verify_cert_error_string(verdict));
    } else {
        snprintf(t->why, sizeof(t->why), "%s: %s", what, ssl_text(text, sizeof(text)));
    }
    return E_IO;
}

int tls_input(struct tls *t, struct slice cipher)
{
    must(cipher.len <= INT32_MAX);
    return BIO_write(t->in, cipher.data, (int)cipher.len) == (int)cipher.len ? 0 : fail(t, "TLS input");
}

int tls_handshake(struct tls *t)
{
    if (t->ready)
        return 0;
    ERR_clear_error();
    int rv = SSL_do_handshake(t->ssl);
    if (rv != 1) {
        int err = SSL_get_error(t->ssl, rv);

        return err == SSL_ERROR_WANT_READ || err == SSL_ERROR_WANT_WRITE ? 0 : fail(t, "TLS handshake");
    }
    int err = peer_check(t);
    t->ready = err == 0;
    return err;
}

int tls_read(struct tls *t, struct buf *plain)
{
    for (;;) {
        buf_reserve(plain, RECORD_BYTES);
        ERR_clear_error();
        int n = SSL_read(t->ssl, plain->data + plain->len, (int)RECORD_BYTES);

        if (n > 0) {
            plain->len += (size_t)n;
            continue;
        }
        int err = SSL_get_error(t->ssl, n);
        if (err == SSL_ERROR_WANT_READ || err == SSL_ERROR_WANT_WRITE)
            return 0;
        if (err == SSL_ERROR_ZERO_RETURN) {
            snprintf(t->why, sizeof(t->why), "closed by the other side");
            return E_IO;
        }
        return fail(t, "TLS");
    }
}

int tls_write(struct tls *t, struct slice plain)
{
    must(t->ready);
    while (plain.len > 0) {
        size_t len = MIN(plain.len, (size_t)1 << 20);

        ERR_clear_error();
        int n = SSL_write(t->ssl, plain.data, (int)len);
        if (n <= 0)
            return fail(t, "TLS"); /* memory always has room: nothing to wait for */
        plain = slice_of(plain.data + n, plain.len - (size_t)n);
    }
    return 0;
}

void tls_output(struct tls *t, struct buf *cipher)
{
    char *data;
    long len = BIO_get_mem_data(t->out, &data);

    if (len <= 0)
        return;
    buf_add(cipher, data, (size_t)len);
    (void)BIO_reset(t->out);
}

bool tls_is_ready(const struct tls *t)
{
    return t->ready;
}

const char *tls_why(const struct tls *t)
{
    return t->why;
}

const char *tls_version(const struct tls *t)
{
    return SSL_get_version(t->ssl);
}

struct slice tls_alpn(const struct tls *t)
{
    const unsigned char *data;
    unsigned len;

    SSL_get0_alpn_selected(t->ssl, &data, &len);
    return slice_of(data, len);
}

size_t tls_output_bytes(const struct tls *t)
{
    return BIO_ctrl_pending(t->out);
}

char *tls_common_name(const struct tls *t)
{
    X509 *cert = t->ready ? SSL_get0_peer_certificate(t->ssl) : NULL;
    char name[256]; /* the standard allows 64 */

    if (!cert || !(SSL_get_verify_mode(t->ssl) & SSL_VERIFY_PEER) || SSL_get_verify_result(t->ssl) != X509_V_OK)
        return NULL;
    int len = X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name, sizeof(name));
    /* A name with a zero byte in it is not the one that a text would show. */
    return len > 0 && (size_t)len < sizeof(name) - 1 && strlen(name) == (size_t)len ? xstrdup(name) : NULL;
}
