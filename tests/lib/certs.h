/* certs - certificates for tests, made on the spot: an authority, what it signs, and what it revokes, as PEM files in a
 * directory. Header only: the tests that need it link OpenSSL anyway. */
#ifndef TESTS_LIB_CERTS_H
#define TESTS_LIB_CERTS_H

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base.h"

struct certs {
    char dir[64];
    X509 *ca;
    EVP_PKEY *ca_key;
    long serial;
};

__attribute__((unused)) static const char *certs_path(const struct certs *c, const char *name)
{
    static char paths[64][160];
    static unsigned next;
    char *path = paths[next++ % ARRAY_LEN(paths)];

    snprintf(path, sizeof(paths[0]), "%s/%s", c->dir, name);
    return path;
}

static X509 *certs_new(struct certs *c, EVP_PKEY *key, const char *cn)
{
    X509 *x = X509_new();

    must(X509_set_version(x, 2) && ASN1_INTEGER_set(X509_get_serialNumber(x), ++c->serial));
    must(X509_gmtime_adj(X509_getm_notBefore(x), -60) && X509_gmtime_adj(X509_getm_notAfter(x), 3600));
    must(X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0));
    must(X509_set_pubkey(x, key));
    return x;
}

static void certs_extend(X509 *x, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

    must(e && X509_add_ext(x, e, -1));
    X509_EXTENSION_free(e);
}

static void certs_write(const struct certs *c, const char *name, X509 *x, EVP_PKEY *key)
{
    FILE *f = fopen(certs_path(c, name), "w");

    must(f && (!x || PEM_write_X509(f, x)) && (!key || PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL)));
    fclose(f);
}

/* An authority; its certificate is ca.pem. */
__attribute__((unused)) static void certs_init(struct certs *c, const char *cn)
{
    *c = (struct certs){0};
    strcpy(c->dir, "/tmp/trine-certs.XXXXXX");
    must(mkdtemp(c->dir));
    c->ca_key = EVP_EC_gen("P-256");
    c->ca = certs_new(c, c->ca_key, cn);
    must(X509_set_issuer_name(c->ca, X509_get_subject_name(c->ca)));
    certs_extend(c->ca, NID_basic_constraints, "critical,CA:TRUE");
    certs_extend(c->ca, NID_key_usage, "keyCertSign,cRLSign");
    must(X509_sign(c->ca, c->ca_key, EVP_sha256()));
    certs_write(c, "ca.pem", c->ca, NULL);
}

/* NAME.pem and NAME.key; san like "DNS:localhost,IP:127.0.0.1", or NULL. Returns its serial number. */
__attribute__((unused)) static long certs_make(struct certs *c, const char *name, const char *cn, const char *san)
{
    char file[64];
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = certs_new(c, key, cn);

    must(X509_set_issuer_name(x, X509_get_subject_name(c->ca)));
    if (san)
        certs_extend(x, NID_subject_alt_name, san);
    must(X509_sign(x, c->ca_key, EVP_sha256()));
    snprintf(file, sizeof(file), "%s.pem", name);
    certs_write(c, file, x, NULL);
    snprintf(file, sizeof(file), "%s.key", name);
    certs_write(c, file, NULL, key);
    X509_free(x);
    EVP_PKEY_free(key);
    return c->serial;
}

/* crl.pem: this serial number is revoked; 0: none is. */
__attribute__((unused)) static void certs_revoke(struct certs *c, long serial)
{
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, -60), *next = X509_gmtime_adj(NULL, 3600);
    FILE *f = fopen(certs_path(c, "crl.pem"), "w");

    must(X509_CRL_set_version(crl, 1) && X509_CRL_set_issuer_name(crl, X509_get_subject_name(c->ca)));
    must(X509_CRL_set1_lastUpdate(crl, now) && X509_CRL_set1_nextUpdate(crl, next));
    if (serial) {
        X509_REVOKED *r = X509_REVOKED_new();
        ASN1_INTEGER *number = ASN1_INTEGER_new();

        must(ASN1_INTEGER_set(number, serial) && X509_REVOKED_set_serialNumber(r, number) &&
             X509_REVOKED_set_revocationDate(r, now) && X509_CRL_add0_revoked(crl, r));
        ASN1_INTEGER_free(number);
    }
    must(X509_CRL_sign(crl, c->ca_key, EVP_sha256()) && f && PEM_write_X509_CRL(f, crl));
    fclose(f);
    X509_CRL_free(crl);
    ASN1_TIME_free(now);
    ASN1_TIME_free(next);
}

__attribute__((unused)) static void certs_fini(struct certs *c)
{
    char *command;

    X509_free(c->ca);
    EVP_PKEY_free(c->ca_key);
    if (asprintf(&command, "rm -rf %s", c->dir) > 0 && system(command) == 0)
        free(command);
}

#endif
