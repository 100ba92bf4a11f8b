/* tls - TLS over bytes in memory (OpenSSL): no socket, no loop. Whoever owns the socket gives what came in and sends what
 * goes out. A context holds certificates and rules; it reads its files again when they have changed, so that new connections
 * use new certificates without a restart.
 *
 *   socket -> tls_input -> tls_read -> plain bytes        plain bytes -> tls_write -> tls_output -> socket
 *
 * TLS 1.2 at least, no renegotiation, no compression, no session tickets.
 * A connection may be worked on by another thread than the context's, one thread at a time. */
#ifndef COMMON_TLS_H
#define COMMON_TLS_H

#include "common/base.h"
#include "common/buf.h"

struct tls_context;
struct tls;

/* Empty texts mean "not given". Lists are comma lists. */
struct tls_conf {
    bool server;
    const char *cert_file, *key_file; /* PEM; a client may have none */
    const char *ca_file;              /* whom to trust */
    const char *crl_file;             /* revoked certificates: checked for the whole chain */
    bool crl_partial;                 /* as etcd has it: an authority without a list revokes nothing, and an old list still counts */
    bool require_cert;                /* server: only peers with a certificate that ca_file vouches for */
    bool self_signed;                 /* a certificate of our own making, and no check of anybody's */
    const char *self_signed_dir;      /* it is kept there for the next start (cert.pem, key.pem); empty: nowhere */
    const char *self_signed_hosts;    /* whom it names (comma list of addresses and host names) */
    unsigned self_signed_years;       /* how long it is good for; 0: one */
    const char *allowed_cn;           /* server: the peer's common name must be one of them */
    const char *allowed_hostname;     /* server: the peer's certificate must be for one of them */
    bool check_address;               /* server: a peer's certificate that names addresses or hosts must name its own address */
    const char *min_version, *max_version; /* "TLS1.2", "TLS1.3" */
    const char *cipher_suites;        /* of TLS 1.2, IANA's names, in order of preference; empty: OpenSSL's choice */
    const char *alpn;                 /* protocols that a server takes, in its order of preference */
};

/* conf's strings are copied. NULL and one line in why if a file cannot be read or does not fit. */
struct tls_context *tls_context_new(const struct tls_conf *conf, struct buf *why);
void tls_context_free(struct tls_context *c);
/* Looks at the files and reads them again if they have changed. What is wrong with them is logged, and the old ones stay in
 * force. tls_new does it too. */
void tls_context_refresh(struct tls_context *c);
uint64_t tls_context_reloads(const struct tls_context *c);

/* One connection. name: whom a client wants to reach (checked against its certificate: a host name or an address); for
 * a server the peer's address. */
struct tls *tls_new(struct tls_context *c, const char *name);
void tls_free(struct tls *t);

/* All return 0 or an error that ends the connection; tls_why says why in words. After every call tls_output may have
 * something to send, an alert about an error included. */
int tls_input(struct tls *t, struct slice cipher);
int tls_read(struct tls *t, struct buf *plain);        /* appends what is there; E_IO: the peer has closed */
int tls_write(struct tls *t, struct slice plain);      /* after the handshake only (must) */
void tls_output(struct tls *t, struct buf *cipher);    /* appends */
int tls_handshake(struct tls *t);                      /* goes on with it; a client begins with it */
bool tls_is_ready(const struct tls *t);                /* the handshake is done, the peer is who it should be */
const char *tls_why(const struct tls *t);              /* of the last error */
const char *tls_version(const struct tls *t);          /* "TLSv1.3" */
struct slice tls_alpn(const struct tls *t);            /* what was agreed on; empty: nothing */

size_t tls_output_bytes(const struct tls *t);          /* what tls_output would append */
/* CommonName of the peer's certificate, if it showed one that was verified; NULL: none. Given: free() it. */
char *tls_common_name(const struct tls *t);

/* Is each of the list a suite of TLS 1.2 that is there? E_INVALID, and why not in etcd's words, without a newline. */
int tls_check_suites(const char *list, struct buf *why);

#endif
