/* boot - see boot.h. Called by main.c when raft/ holds no log yet; on an existing one the initial-* keys are not
 * even looked at. The only file that knows OpenSSL's digests. SHA-1 is no security here, but a name: etcd's. */
#include "raftd/boot.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "common/err.h"
#include "common/mem.h"

/* URLs of a comma list, sorted, without spaces around them. */
struct urls {
    char **list;
    size_t count;
};

static void urls_fini(struct urls *u)
{
    for (size_t i = 0; i < u->count; i++)
        free(u->list[i]);
    free(u->list);
    *u = (struct urls){0};
}

static void urls_add(struct urls *u, const char *from, size_t len)
{
    while (len > 0 && *from == ' ') {
        from++;
        len--;
    }
    while (len > 0 && from[len - 1] == ' ')
        len--;
    if (len == 0)
        return;
    u->list = xrealloc(u->list, (u->count + 1) * sizeof(*u->list));
    u->list[u->count++] = slice_dup_str(slice_of(from, len));
}

static int text_cmp(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void urls_split(struct urls *u, const char *list)
{
    *u = (struct urls){0};
    while (*list) {
        size_t len = strcspn(list, ",");

        urls_add(u, list, len);
        list += len + (list[len] == ',');
    }
    if (u->count > 1)
        qsort(u->list, u->count, sizeof(*u->list), text_cmp);
}

static bool urls_has(const struct urls *u, const char *url)
{
    for (size_t i = 0; i < u->count; i++) {
        if (strcmp(u->list[i], url) == 0)
            return true;
    }
    return false;
}

/* --- ids ---------------------------------------------------------------------------------------- */

static uint64_t sha1_id(struct slice bytes)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    uint64_t id = 0;

    must(EVP_Digest(bytes.data, bytes.len, digest, NULL, EVP_sha1(), NULL) == 1);
    for (int i = 0; i < 8; i++)
        id = id << 8 | digest[i];
    return id;
}

uint64_t boot_member_id(const char *peer_urls, const char *token)
{
    struct urls u;
    struct buf text = BUF_INIT;

    urls_split(&u, peer_urls);
    for (size_t i = 0; i < u.count; i++)
        buf_add_str(&text, u.list[i]);
    buf_add_str(&text, token);
    uint64_t id = sha1_id(buf_slice(&text));
    buf_fini(&text);
    urls_fini(&u);
    return id;
}

uint64_t boot_cluster_id(const struct members *members)
{
    uint8_t ids[RAFT_MEMBERS_MAX * 8];

    for (size_t i = 0; i < members->count; i++) {
        for (int k = 0; k < 8; k++)
            ids[i * 8 + (size_t)k] = (uint8_t)(members->list[i].id >> (56 - 8 * k));
    }
    return sha1_id(slice_of(ids, members->count * 8));
}

/* --- initial-cluster ---------------------------------------------------------------------------- */

/* One member of initial-cluster while it is read: a name may come several times, once per URL. */
struct named {
    char *name;
    struct buf urls; /* comma list */
};

struct cluster {
    struct named list[RAFT_MEMBERS_MAX];
    size_t count;
};

static void cluster_fini(struct cluster *c)
{
    for (size_t i = 0; i < c->count; i++) {
        free(c->list[i].name);
        buf_fini(&c->list[i].urls);
    }
}

static struct named *cluster_named(struct cluster *c, struct slice name)
{
    for (size_t i = 0; i < c->count; i++) {
        if (slice_eq(slice_str(c->list[i].name), name))
            return &c->list[i];
    }
    if (c->count == RAFT_MEMBERS_MAX)
        return NULL;
    c->list[c->count] = (struct named){.name = slice_dup_str(name), .urls = BUF_INIT};
    return &c->list[c->count++];
}

static int url_check(const char *url, struct buf *why)
{
    struct conf_url *parsed = NULL;
    size_t count = 0;
    int err = conf_parse_urls(url, &parsed, &count);

    if (!err)
        conf_free_urls(parsed, count);
    if (err || count != 1) {
        buf_printf(why, "initial-cluster: '%s' is not a URL; right would be http://HOST:PORT", url);
        return E_INVALID;
    }
    return 0;
}

/* "name=url" of length len. */
static int pair_add(struct cluster *c, const char *pair, size_t len, struct buf *why)
{
    while (len > 0 && *pair == ' ') {
        pair++;
        len--;
    }
    const char *equals = memchr(pair, '=', len);
    if (!equals || equals == pair || equals + 1 == pair + len) {
        buf_printf(why, "initial-cluster: '%.*s' is not NAME=URL", (int)len, pair);
        return E_INVALID;
    }
    struct named *n = cluster_named(c, slice_of(pair, (size_t)(equals - pair)));
    if (!n) {
        buf_printf(why, "initial-cluster: more than %d members", RAFT_MEMBERS_MAX);
        return E_INVALID;
    }
    char *url = slice_dup_str(slice_of(equals + 1, (size_t)(pair + len - equals - 1)));
    size_t end = strlen(url);
    while (end > 0 && url[end - 1] == ' ')
        url[--end] = '\0';
    int err = url_check(url, why);
    if (n->urls.len > 0)
        buf_add_byte(&n->urls, ',');
    buf_add_str(&n->urls, url);
    free(url);
    return err;
}

static int cluster_parse(const char *text, struct cluster *c, struct buf *why)
{
    int err = 0;

    while (*text && !err) {
        size_t len = strcspn(text, ",");

        if (len > 0)
            err = pair_add(c, text, len, why);
        text += len + (text[len] == ',');
    }
    if (!err && c->count == 0) {
        buf_add_str(why, "initial-cluster: no members");
        err = E_INVALID;
    }
    return err;
}

/* Our own line of initial-cluster must say what initial-advertise-peer-urls says; the wording is etcd's. */
static int own_check(const struct conf *conf, const char *in_cluster, struct buf *why)
{
    struct urls ours, theirs;
    int err = 0;

    urls_split(&ours, conf->initial_advertise_peer_urls);
    urls_split(&theirs, in_cluster);
    for (size_t i = 0; i < theirs.count && !err; i++) {
        if (!urls_has(&ours, theirs.list[i])) {
            buf_printf(why, "--initial-cluster has %s=%s but missing from --initial-advertise-peer-urls=%s", conf->name,
                       theirs.list[i], conf->initial_advertise_peer_urls);
            err = E_INVALID;
        }
    }
    for (size_t i = 0; i < ours.count && !err; i++) {
        if (!urls_has(&theirs, ours.list[i])) {
            buf_printf(why, "--initial-advertise-peer-urls has %s but missing from --initial-cluster=%s=%s",
                       ours.list[i], conf->name, in_cluster);
            err = E_INVALID;
        }
    }
    urls_fini(&ours);
    urls_fini(&theirs);
    return err;
}

static int members_make(const struct conf *conf, struct cluster *c, struct boot *boot, struct buf *why)
{
    struct urls seen = {0};
    int err = 0;

    for (size_t i = 0; i < c->count && !err; i++) {
        char *list = slice_dup_str(buf_slice(&c->list[i].urls));
        struct urls u;

        urls_split(&u, list);
        for (size_t k = 0; k < u.count && !err; k++) {
            if (urls_has(&seen, u.list[k])) {
                buf_printf(why, "initial-cluster: %s is given twice", u.list[k]);
                err = E_INVALID;
            }
            urls_add(&seen, u.list[k], strlen(u.list[k]));
        }
        uint64_t id = boot_member_id(list, conf->initial_cluster_token);
        if (!err && members_apply(&boot->members, &(struct raft_conf_change){.op = RAFT_CONF_ADD,
                                                                             .id = id,
                                                                             .name = slice_str(c->list[i].name),
                                                                             .peer_urls = slice_str(list)}) != 0) {
            buf_printf(why, "initial-cluster: two members have the id %llx", (unsigned long long)id);
            err = E_INVALID;
        }
        if (!err && strcmp(c->list[i].name, conf->name) == 0) {
            boot->member_id = id;
            err = own_check(conf, list, why);
        }
        urls_fini(&u);
        free(list);
    }
    urls_fini(&seen);
    if (!err && boot->member_id == RAFT_NONE) {
        buf_printf(why, "couldn't find local name \"%s\" in the initial cluster configuration", conf->name);
        err = E_INVALID;
    }
    return err;
}

/* NAME=url for each of initial-advertise-peer-urls. */
static void cluster_default(const struct conf *conf, struct buf *text)
{
    struct urls u;

    urls_split(&u, conf->initial_advertise_peer_urls);
    for (size_t i = 0; i < u.count; i++)
        buf_printf(text, "%s%s=%s", i > 0 ? "," : "", conf->name, u.list[i]);
    buf_add_byte(text, 0);
    urls_fini(&u);
}

int boot_identity(const struct conf *conf, struct boot *boot, struct buf *why)
{
    struct cluster c = {0};
    struct boot made = {0};
    struct buf text = BUF_INIT;

    if (conf->initial_cluster[0])
        buf_add(&text, conf->initial_cluster, strlen(conf->initial_cluster) + 1);
    else
        cluster_default(conf, &text);
    int err = cluster_parse((const char *)text.data, &c, why);
    if (!err)
        err = members_make(conf, &c, &made, why);
    if (!err) {
        made.cluster_id = boot_cluster_id(&made.members);
        *boot = made;
    } else {
        boot_fini(&made);
    }
    buf_fini(&text);
    cluster_fini(&c);
    return err;
}

void boot_fini(struct boot *boot)
{
    members_fini(&boot->members);
}
