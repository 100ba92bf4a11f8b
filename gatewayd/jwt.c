/* jwt - signed tokens: what auth-token's options mean, and making and checking of tokens. Keys and signatures are jwt_key.c's.
 * From identity.c (checks) and auth.c (makes). */
#include "gatewayd/jwt.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>
#include <sodium.h>

#include "common/conf.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "gatewayd/jwt_key.h"

#define JWT_TTL_MS_DEFAULT ((uint64_t)5 * 60 * 1000)
#define JWT_LOOK_MS 1000 /* the files are looked at this often at most */
#define JWT_BASE64 sodium_base64_VARIANT_URLSAFE_NO_PADDING

/* As tls.c sees that a file has changed. */
struct stamp {
    struct timespec changed;
    off_t size;
    ino_t inode;
};

struct jwt {
    const struct jwt_method *method;
    char *public_file, *private_file; /* NULL: not given */
    uint64_t ttl_ms;
    struct jwt_key *key;
    struct stamp stamps[2];
    uint64_t looked_ms;
    struct buf head; /* base64url of the header, and a dot */
};

/* --- base64url -------------------------------------------------------------------------------------- */

static void add_base64(struct buf *out, struct slice bytes)
{
    size_t room = sodium_base64_ENCODED_LEN(bytes.len, JWT_BASE64); /* with its NUL */
    char *at = (char *)buf_extend(out, room);
    sodium_bin2base64(at, room, bytes.data, bytes.len, JWT_BASE64);
    out->len -= room - strlen(at);
}

/* Canonical text only: no padding, blanks or bits left over. */
static int add_decoded(struct buf *out, struct slice text)
{
    size_t len = 0;
    uint8_t *at = buf_extend(out, text.len);
    int rv = sodium_base642bin(at, text.len, (const char *)text.data, text.len, NULL, &len, NULL, JWT_BASE64);
    out->len -= text.len - (rv == 0 ? len : 0);
    return rv == 0 ? OK : E_INVALID_AUTH_TOKEN;
}

/* --- options ------------------------------------------------------------------------------------------ */

static int set_file(char **file, struct slice value, const char *name, struct buf *why)
{
    if (*file != NULL) {
        buf_printf(why, "%s is given twice", name);
        return E_INVALID;
    }
    *file = slice_dup_str(value);
    return OK;
}

static int set_method(struct jwt *j, struct slice value, struct buf *why)
{
    j->method = jwt_method_find(value);
    if (j->method == NULL) {
        buf_printf(why, "sign-method %.*s is not one of RS, PS, ES or HS with 256, 384 or 512, or EdDSA", (int)value.len,
            (const char *)value.data);
    }
    return j->method != NULL ? OK : E_INVALID;
}

static int set_ttl(struct jwt *j, struct slice value, struct buf *why)
{
    char *text = slice_dup_str(value);
    bool is_good = conf_parse_duration(text, &j->ttl_ms) == OK && j->ttl_ms > 0;
    if (!is_good) {
        buf_printf(why, "ttl %s is not a duration like 5m", text);
    }
    free(text);
    return is_good ? OK : E_INVALID;
}

static int set_option(struct jwt *j, struct slice item, struct buf *why)
{
    const uint8_t *sign = item.len > 0 ? memchr(item.data, '=', item.len) : NULL;
    if (sign == NULL) {
        buf_printf(why, "\"%.*s\" is not NAME=VALUE", (int)item.len, (const char *)item.data);
        return E_INVALID;
    }
    struct slice name = slice_of(item.data, (size_t)(sign - item.data));
    struct slice value = slice_of(sign + 1, item.len - name.len - 1);
    if (slice_eq(name, SLICE_LIT("pub-key"))) {
        return set_file(&j->public_file, value, "pub-key", why);
    }
    if (slice_eq(name, SLICE_LIT("priv-key"))) {
        return set_file(&j->private_file, value, "priv-key", why);
    }
    if (slice_eq(name, SLICE_LIT("sign-method"))) {
        return set_method(j, value, why);
    }
    if (slice_eq(name, SLICE_LIT("ttl"))) {
        return set_ttl(j, value, why);
    }
    buf_printf(why, "\"%.*s\" is not one of pub-key, priv-key, sign-method, ttl", (int)name.len, (const char *)name.data);
    return E_INVALID;
}

static int set_options(struct jwt *j, const char *options, struct buf *why)
{
    for (const char *next = options; next != NULL;) {
        struct slice item = conf_next_item(&next);
        int err = set_option(j, item, why);
        if (err != OK) {
            return err;
        }
    }
    if (j->method == NULL) {
        buf_add_str(why, "sign-method is missing");
        return E_INVALID;
    }
    return OK;
}

/* --- keys ------------------------------------------------------------------------------------------------ */

static void stamps_read(const struct jwt *j, struct stamp stamps[2])
{
    const char *files[2] = {j->public_file, j->private_file};
    memset(stamps, 0, 2 * sizeof(*stamps));
    for (size_t i = 0; i < 2; i++) {
        struct stat st;
        if (files[i] != NULL && stat(files[i], &st) == 0) {
            stamps[i].changed = st.st_mtim;
            stamps[i].size = st.st_size;
            stamps[i].inode = st.st_ino;
        }
    }
}

static void make_head(struct jwt *j)
{
    struct buf header = BUF_INIT;
    buf_printf(&header, "{\"alg\":\"%s\",\"typ\":\"JWT\"}", jwt_method_name(j->method));
    add_base64(&j->head, buf_slice(&header));
    buf_add_byte(&j->head, '.');
    buf_fini(&header);
}

struct jwt *jwt_new(const char *options, struct buf *why)
{
    must(sodium_init() >= 0);
    struct jwt *j = xcalloc(1, sizeof(*j));
    j->ttl_ms = JWT_TTL_MS_DEFAULT;
    if (set_options(j, options, why) == OK) {
        stamps_read(j, j->stamps);
        j->key = jwt_key_read(j->method, j->public_file, j->private_file, why);
    }
    if (j->key == NULL) {
        jwt_free(j);
        return NULL;
    }
    make_head(j);
    return j;
}

void jwt_free(struct jwt *j)
{
    if (j == NULL) {
        return;
    }
    jwt_key_free(j->key);
    free(j->public_file);
    free(j->private_file);
    buf_fini(&j->head);
    free(j);
}

bool jwt_refresh(struct jwt *j, uint64_t now_ms)
{
    if (now_ms < j->looked_ms + JWT_LOOK_MS) {
        return false;
    }
    j->looked_ms = now_ms;
    struct stamp now[2];
    stamps_read(j, now);
    if (memcmp(now, j->stamps, sizeof(now)) == 0) {
        return false;
    }
    memcpy(j->stamps, now, sizeof(now)); /* noted even if they are no good: half-written ones change once more */
    struct buf why = BUF_INIT;
    struct jwt_key *key = jwt_key_read(j->method, j->public_file, j->private_file, &why);
    if (key == NULL) {
        log_error("jwt: the keys have changed, but the old ones stay in force: %.*s", (int)why.len, (const char *)why.data);
    } else {
        log_info("jwt: keys were read again");
        jwt_key_free(j->key);
        j->key = key;
    }
    buf_fini(&why);
    return key != NULL;
}

/* --- tokens ------------------------------------------------------------------------------------------------ */

int jwt_sign(const struct jwt *j, struct slice user, uint64_t auth_rev, int64_t now_s, struct buf *token)
{
    if (!jwt_key_signs(j->key)) {
        return E_VERIFY_ONLY;
    }
    json_t *name = json_stringn((const char *)user.data, user.len); /* NULL: not UTF-8 */
    json_t *claims = name == NULL ? NULL
                                  : json_pack("{s:o, s:I, s:I}", "username", name, "revision", (json_int_t)auth_rev, "exp",
                                        (json_int_t)(now_s + (int64_t)((j->ttl_ms + 999) / 1000)));
    char *text = claims != NULL ? json_dumps(claims, JSON_COMPACT) : NULL;
    json_decref(claims);
    if (text == NULL) {
        return E_AUTH_FAILED;
    }
    size_t begin = token->len;
    buf_add_slice(token, buf_slice(&j->head));
    add_base64(token, slice_str(text));
    free(text);
    struct buf signature = BUF_INIT;
    int err = jwt_key_sign(j->key, buf_part(token, begin, token->len - begin), &signature);
    if (err == OK) {
        buf_add_byte(token, '.');
        add_base64(token, buf_slice(&signature));
    } else {
        token->len = begin;
    }
    buf_fini(&signature);
    return err;
}

/* Takes what stands before the next dot off *rest; false: there is no dot. */
static bool take_part(struct slice *rest, struct slice *part)
{
    const uint8_t *dot = rest->len > 0 ? memchr(rest->data, '.', rest->len) : NULL;
    if (dot == NULL) {
        return false;
    }
    *part = slice_of(rest->data, (size_t)(dot - rest->data));
    *rest = slice_of(dot + 1, rest->len - part->len - 1);
    return true;
}

static json_t *parse_part(struct slice part)
{
    struct buf text = BUF_INIT;
    json_t *root = NULL;
    if (add_decoded(&text, part) == OK && text.len > 0) {
        root = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    }
    buf_fini(&text);
    if (root != NULL && !json_is_object(root)) {
        json_decref(root);
        root = NULL;
    }
    return root;
}

/* The header names our method, and nothing that we would have to understand. */
static bool header_is_good(const struct jwt *j, struct slice part)
{
    json_t *header = parse_part(part);
    const char *alg = json_string_value(json_object_get(header, "alg"));
    bool is_good = alg != NULL && strcmp(alg, jwt_method_name(j->method)) == 0 && json_object_get(header, "crit") == NULL;
    json_decref(header);
    return is_good;
}

/* A number of seconds or a revision: whole, not negative, exact. Fractions of a second are cut off. */
static bool read_number(const json_t *v, int64_t *number)
{
    if (json_is_integer(v)) {
        *number = json_integer_value(v);
    } else if (json_is_real(v) && json_real_value(v) >= 0 && json_real_value(v) < 9007199254740992.0) {
        *number = (int64_t)json_real_value(v);
    } else {
        return false;
    }
    return *number >= 0;
}

/* Whether the time claim is absent, or a number that now_s has reached (or not yet). */
static bool time_is_good(const json_t *root, const char *name, int64_t now_s, bool must_be_reached, int64_t *at_s)
{
    const json_t *v = json_object_get(root, name);
    if (v == NULL) {
        return true;
    }
    return read_number(v, at_s) && (must_be_reached ? *at_s <= now_s : *at_s > now_s);
}

static bool claims_are_good(struct slice part, int64_t now_s, struct jwt_claims *claims)
{
    json_t *root = parse_part(part);
    const json_t *name = json_object_get(root, "username");
    int64_t rev = 0, expires_s = INT64_MAX, ignored = 0;
    bool is_good = root != NULL && json_is_string(name) && json_string_length(name) > 0
        && read_number(json_object_get(root, "revision"), &rev) && time_is_good(root, "exp", now_s, false, &expires_s)
        && time_is_good(root, "nbf", now_s, true, &ignored) && time_is_good(root, "iat", now_s, true, &ignored);
    if (is_good) {
        buf_add(&claims->user, json_string_value(name), json_string_length(name));
        claims->auth_rev = (uint64_t)rev;
        claims->expires_s = expires_s;
    }
    json_decref(root);
    return is_good;
}

int jwt_verify(const struct jwt *j, struct slice token, int64_t now_s, struct jwt_claims *claims)
{
    struct slice rest = token, header, body;
    if (!take_part(&rest, &header) || !take_part(&rest, &body)) {
        return E_INVALID_AUTH_TOKEN;
    }
    if (!header_is_good(j, header)) {
        return E_INVALID_AUTH_TOKEN;
    }
    struct buf signature = BUF_INIT;
    struct slice said = slice_of(token.data, header.len + 1 + body.len);
    bool is_good = add_decoded(&signature, rest) == OK && jwt_key_verify(j->key, said, buf_slice(&signature));
    buf_fini(&signature);
    /* Nothing of what is claimed is looked at before the signature is found right. */
    return is_good && claims_are_good(body, now_s, claims) ? OK : E_INVALID_AUTH_TOKEN;
}
