/* fuzz_tls - whatever a client may send before and during a TLS handshake, and certificates, keys and lists that nobody would write.
 * The first byte says which: bytes into a server (two of its bits: does it ask for a certificate, does a client of ours begin, whose
 * words are then altered), or a file that a context is to be made of. Nothing may be left of either. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/tls.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tls_context *servers[2], *client;
static char dir[64], file[96], cert_file[96], key_file[96];

static struct tls_context *context(const struct tls_conf *conf)
{
    struct buf why = BUF_INIT;
    struct tls_context *c = tls_context_new(conf, &why);
    buf_fini(&why);
    return c;
}

static void clean(void)
{
    unlink(file);
    unlink(cert_file);
    unlink(key_file);
    rmdir(dir);
}

static void begin(void)
{
    if (client != NULL) {
        return;
    }
    log_init("fuzz", LOG_L_ERROR);
    strcpy(dir, "/tmp/fuzz-tls.XXXXXX");
    must(mkdtemp(dir) != NULL);
    snprintf(file, sizeof(file), "%s/file", dir);
    snprintf(cert_file, sizeof(cert_file), "%s/cert.pem", dir);
    snprintf(key_file, sizeof(key_file), "%s/key.pem", dir);
    atexit(clean);
    servers[0] = context(&(struct tls_conf){.server = true, .self_signed = true, .self_signed_dir = dir, .alpn = "h2,http/1.1"});
    servers[1] = context(&(struct tls_conf){.server = true, .cert_file = cert_file, .key_file = key_file, .ca_file = cert_file, .require_cert = true,
        .crl_partial = true, .allowed_cn = "a,b", .alpn = "h2,http/1.1"});
    client = context(&(struct tls_conf){.self_signed = true});
    must(servers[0] != NULL && servers[1] != NULL && client != NULL);
}

/* One turn of an end: what came, and what it says to that. */
static int turn(struct tls *t, struct slice bytes, struct buf *said)
{
    struct buf plain = BUF_INIT;
    int err = tls_input(t, bytes);
    if (err == OK) {
        err = tls_handshake(t);
    }
    if (err == OK && tls_is_ready(t)) {
        err = tls_read(t, &plain);
        free(tls_common_name(t));
        if (err == OK && plain.len > 0) {
            err = tls_write(t, buf_slice(&plain));
        }
    }
    buf_reset(said);
    tls_output(t, said);
    must(tls_output_bytes(t) == 0);
    buf_fini(&plain);
    return err;
}

static void raw_bytes(struct tls *server, const uint8_t *data, size_t size)
{
    struct buf said = BUF_INIT;
    size_t piece = size > 1 && data[0] != 0 ? data[0] : size;
    for (size_t off = 0; off < size; off += piece) {
        if (turn(server, slice_of(data + off, piece < size - off ? piece : size - off), &said) != OK) {
            break;
        }
    }
    buf_fini(&said);
}

/* A real handshake; each byte of the input alters one of what the client says, at a place that moves on. */
static void altered_handshake(struct tls *server, const uint8_t *data, size_t size)
{
    struct tls *c = tls_new(client, "localhost");
    struct buf from_client = BUF_INIT, from_server = BUF_INIT;
    size_t used = 0, at = 0;
    int err = tls_handshake(c);
    tls_output(c, &from_client);
    for (int i = 0; i < 8 && err == OK && from_client.len > 0; i++) {
        for (; used + 1 < size && at + data[used] < from_client.len; used += 2) {
            at += data[used];
            from_client.data[at] ^= data[used + 1];
        }
        at = 0;
        err = turn(server, buf_slice(&from_client), &from_server);
        if (err == OK) {
            err = turn(c, buf_slice(&from_server), &from_client);
        }
    }
    tls_free(c);
    buf_fini(&from_client);
    buf_fini(&from_server);
}

static void as_file(unsigned which, const uint8_t *data, size_t size)
{
    FILE *f = fopen(file, "w");
    must(f != NULL && fwrite(data, 1, size, f) == size && fclose(f) == 0);
    struct tls_conf conf = {.server = true, .cert_file = cert_file, .key_file = key_file, .ca_file = cert_file, .require_cert = true};
    const char **members[] = {&conf.cert_file, &conf.key_file, &conf.ca_file, &conf.crl_file};
    *members[which % 4] = file;
    tls_context_free(context(&conf));
    struct buf why = BUF_INIT;
    char *list = slice_dup_str(slice_of(data, size < 200 ? size : 200));
    (void)tls_check_suites(list, &why);
    free(list);
    buf_fini(&why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    begin();
    if (data[0] & 1) {
        as_file(data[0] >> 1, data + 1, size - 1);
        return 0;
    }
    struct tls *server = tls_new(servers[(data[0] >> 1) & 1], "127.0.0.1");
    if (data[0] & 4) {
        altered_handshake(server, data + 1, size - 1);
    } else {
        raw_bytes(server, data + 1, size - 1);
    }
    tls_free(server);
    return 0;
}
