/* file - flags from --config-file: YAML, of which JSON is a part, read by libyaml (the only file that knows it).
 * The grammar is etcd's: flags by name at the top, TLS and discovery in sections, durations as nanoseconds, most lists as one
 * string with commas. Values that are of the wrong kind are refused in the words of Go's JSON decoder, because etcd reads the
 * file through it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "deploy/etcd/flags.h"

/* Aliases may repeat a large part again and again; no honest file comes near this. */
#define VALUES_MAX 10000

/* Keys of sections and the flags they are. */
static const struct {
    const char *path;
    const char *flag;
    bool sequence;
} section_keys[] = {
    {"client-transport-security.cert-file", "cert-file", false},
    {"client-transport-security.key-file", "key-file", false},
    {"client-transport-security.client-cert-file", "client-cert-file", false},
    {"client-transport-security.client-key-file", "client-key-file", false},
    {"client-transport-security.client-cert-auth", "client-cert-auth", false},
    {"client-transport-security.trusted-ca-file", "trusted-ca-file", false},
    {"client-transport-security.auto-tls", "auto-tls", false},
    {"client-transport-security.allowed-hostname", "client-cert-allowed-hostname", true},
    {"peer-transport-security.cert-file", "peer-cert-file", false},
    {"peer-transport-security.key-file", "peer-key-file", false},
    {"peer-transport-security.client-cert-file", "peer-client-cert-file", false},
    {"peer-transport-security.client-key-file", "peer-client-key-file", false},
    {"peer-transport-security.client-cert-auth", "peer-client-cert-auth", false},
    {"peer-transport-security.trusted-ca-file", "peer-trusted-ca-file", false},
    {"peer-transport-security.auto-tls", "peer-auto-tls", false},
    {"peer-transport-security.allowed-cn", "peer-cert-allowed-cn", true},
    {"peer-transport-security.allowed-hostname", "peer-cert-allowed-hostname", true},
    {"peer-transport-security.skip-client-san-verification", "peer-skip-client-san-verification", false},
    {"socket-options.reuse-port", "socket-reuse-port", false},
    {"socket-options.reuse-address", "socket-reuse-address", false},
    {"discovery-config.token", "discovery-token", false},
    {"discovery-config.client.endpoints", "discovery-endpoints", true},
    {"discovery-config.client.dial-timeout", "discovery-dial-timeout", false},
    {"discovery-config.client.request-timeout", "discovery-request-timeout", false},
    {"discovery-config.client.keepalive-time", "discovery-keepalive-time", false},
    {"discovery-config.client.keepalive-timeout", "discovery-keepalive-timeout", false},
    {"discovery-config.client.secure.cert", "discovery-cert", false},
    {"discovery-config.client.secure.key", "discovery-key", false},
    {"discovery-config.client.secure.cacert", "discovery-cacert", false},
    {"discovery-config.client.secure.insecure-transport", "discovery-insecure-transport", false},
    {"discovery-config.client.secure.insecure-skip-tls-verify", "discovery-insecure-skip-tls-verify", false},
    {"discovery-config.client.auth.username", "discovery-user", false},
    {"discovery-config.client.auth.password", "discovery-password", false},
};

enum kind { KIND_NULL, KIND_BOOL, KIND_INT, KIND_FLOAT, KIND_STR, KIND_LIST, KIND_MAP };
static const char *const kind_words[] = {"null", "bool", "number", "number", "string", "array", "object"};

struct reader {
    struct flags *flags;
    struct buf *why;
    yaml_document_t *document;
    size_t values; /* looked at */
};

/* --- kinds of scalars, as YAML 1.1 resolves plain ones ----------------------------------------------- */

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words != NULL; words++) {
        if (strcmp(text, *words) == 0)
            return true;
    }
    return false;
}

static bool is_true(const char *text)
{
    return is_one_of(text, (const char *const[]){"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON", NULL});
}

static bool is_false(const char *text)
{
    return is_one_of(text, (const char *const[]){"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF", NULL});
}

static bool is_float(const char *text)
{
    char *end;

    if (strspn(text, "0123456789+-.eE") != strlen(text) || strpbrk(text, "0123456789") == NULL)
        return false;
    (void)strtod(text, &end);
    return *end == '\0';
}

static enum kind kind_of(const yaml_node_t *node)
{
    int64_t whole;
    uint64_t natural;

    if (node->type == YAML_SEQUENCE_NODE)
        return KIND_LIST;
    if (node->type == YAML_MAPPING_NODE)
        return KIND_MAP;
    const char *text = (const char *)node->data.scalar.value;

    if (node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return KIND_STR;
    if (is_one_of(text, (const char *const[]){"", "~", "null", "Null", "NULL", NULL}))
        return KIND_NULL;
    if (is_true(text) || is_false(text))
        return KIND_BOOL;
    if (value_int(text, &whole) || value_uint(text, &natural))
        return KIND_INT;
    return is_float(text) ? KIND_FLOAT : KIND_STR;
}

/* --- values ------------------------------------------------------------------------------------------- */

static int wrong_kind(struct reader *r, const char *path, enum kind kind, const char *wanted)
{
    buf_printf(r->why,
               "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal %s into Go struct field configYAML.%s of "
               "type %s",
               kind_words[kind], path, wanted);
    return E_INVALID;
}

static int read_list(struct reader *r, const char *path, size_t flag, const yaml_node_t *node)
{
    struct buf text = BUF_INIT;

    if (kind_of(node) != KIND_LIST)
        return wrong_kind(r, path, kind_of(node), "[]string");
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        const yaml_node_t *one = yaml_document_get_node(r->document, *item);
        if (one->type != YAML_SCALAR_NODE || ++r->values > VALUES_MAX) {
            buf_fini(&text);
            return wrong_kind(r, path, kind_of(one), "string");
        }
        buf_printf(&text, "%s%s", text.len == 0 ? "" : ",", (const char *)one->data.scalar.value);
    }
    flags_take(r->flags, flag, slice_dup_str(buf_slice(&text)), SET_FILE);
    buf_fini(&text);
    return OK;
}

static const char *go_type(enum flag_type type)
{
    switch (type) {
    case FLAG_UINT:
        return "uint";
    case FLAG_INT:
        return "int";
    case FLAG_BOOL:
        return "bool";
    case FLAG_DUR:
        return "time.Duration";
    case FLAG_STR:
    case FLAG_LIST:
    case FLAG_URLS:
    case FLAG_GONE:
        break;
    }
    return "string";
}

/* etcd's conversion makes strings of numbers and truths where a string is wanted, and nothing else of anything else. */
static bool fits(enum flag_type type, enum kind kind)
{
    switch (type) {
    case FLAG_UINT:
    case FLAG_INT:
    case FLAG_DUR:
        return kind == KIND_INT;
    case FLAG_BOOL:
        return kind == KIND_BOOL;
    case FLAG_STR:
    case FLAG_LIST:
    case FLAG_URLS:
    case FLAG_GONE:
        break;
    }
    return kind != KIND_LIST && kind != KIND_MAP;
}

static int read_scalar(struct reader *r, const char *path, size_t i, const yaml_node_t *node)
{
    const struct flag *flag = &flag_table[i];
    enum kind kind = kind_of(node);
    struct buf reason = BUF_INIT;
    int64_t ns = 0;

    if (!fits(flag->type, kind))
        return wrong_kind(r, path, kind, go_type(flag->type));
    const char *text = (const char *)node->data.scalar.value;

    if (strlen(text) != node->data.scalar.length) {
        buf_printf(r->why, "%s: holds a byte of 0", path);
        return E_INVALID;
    }
    if (flag->type == FLAG_DUR) {
        if (!value_int(text, &ns))
            return wrong_kind(r, path, kind, "time.Duration");
        flags_take(r->flags, i, value_duration_text(ns), SET_FILE);
        return OK;
    }
    if (flag->type == FLAG_BOOL)
        text = is_true(text) ? "true" : "false";
    int err = flags_set(r->flags, i, text, SET_FILE, &reason);

    if (err == OK) {
        ;
    } else if (flag->type == FLAG_URLS) {
        buf_printf(r->why, "unexpected error setting up %s: %.*s", path, (int)reason.len, (const char *)reason.data);
    } else if (strcmp(flag->name, "feature-gates") == 0) {
        buf_add_slice(r->why, buf_slice(&reason));
    } else if (flag->choices != NULL) {
        buf_printf(r->why, "unexpected clusterState \"%s\"", text);
    } else {
        err = wrong_kind(r, path, kind, go_type(flag->type));
    }
    buf_fini(&reason);
    return err;
}

/* --- the tree ------------------------------------------------------------------------------------------- */

/* Is there a section whose path begins with path and a dot? */
static bool is_section(const char *path)
{
    size_t len = strlen(path);

    for (size_t i = 0; i < ARRAY_LEN(section_keys); i++) {
        if (strncmp(section_keys[i].path, path, len) == 0 && section_keys[i].path[len] == '.')
            return true;
    }
    return false;
}

/* The flag of a path; *sequence: whether it is written as one. */
static size_t flag_of_path(const char *path, bool *sequence)
{
    for (size_t i = 0; i < ARRAY_LEN(section_keys); i++) {
        if (strcmp(section_keys[i].path, path) == 0) {
            *sequence = section_keys[i].sequence;
            return flag_find(slice_str(section_keys[i].flag));
        }
    }
    size_t i = flag_find(slice_str(path));

    if (i < flag_count && !flag_table[i].top)
        return flag_count;
    *sequence = i < flag_count && flag_table[i].sequence;
    return i;
}

static int read_map(struct reader *r, const char *above, const yaml_node_t *map);

static int read_value(struct reader *r, const char *path, const yaml_node_t *node)
{
    bool sequence = false;
    size_t i = flag_of_path(path, &sequence);

    if (kind_of(node) == KIND_NULL)
        return OK;
    if (is_section(path))
        return kind_of(node) == KIND_MAP ? read_map(r, path, node) : wrong_kind(r, path, kind_of(node), "object");
    if (i == flag_count) {
        log_warnx("unknown key in the configuration file, ignored: %s", path);
        return OK;
    }
    return sequence ? read_list(r, path, i, node) : read_scalar(r, path, i, node);
}

/* above: the path of the section, "" at the top. Sections do not nest without end: a path must be one of the table. */
static int read_map(struct reader *r, const char *above, const yaml_node_t *map)
{
    int err = OK;

    for (yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top && err == OK; pair++) {
        const yaml_node_t *key = yaml_document_get_node(r->document, pair->key);
        if (key->type != YAML_SCALAR_NODE || ++r->values > VALUES_MAX) {
            buf_add_str(r->why, key->type != YAML_SCALAR_NODE ? "yaml: a key that is no text" : "yaml: more values than a configuration has");
            return E_INVALID;
        }
        char *path = xasprintf("%s%s%s", above, above[0] == '\0' ? "" : ".", (const char *)key->data.scalar.value);
        err = read_value(r, path, yaml_document_get_node(r->document, pair->value));
        free(path);
    }
    return err;
}

static int read_document(struct reader *r)
{
    const yaml_node_t *root = yaml_document_get_root_node(r->document);

    if (root == NULL || kind_of(root) == KIND_NULL) /* an empty file: all defaults */
        return OK;
    if (kind_of(root) != KIND_MAP) {
        buf_printf(r->why, "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal %s into Go value of type embed.configYAML",
                   kind_words[kind_of(root)]);
        return E_INVALID;
    }
    return read_map(r, "", root);
}

int file_read_flags(struct flags *f, struct slice text, struct buf *why)
{
    yaml_parser_t parser;
    yaml_document_t document;
    struct reader r = {.flags = f, .why = why, .document = &document};
    int err = E_INVALID;

    must(yaml_parser_initialize(&parser) == 1);
    yaml_parser_set_input_string(&parser, text.data, text.len);
    if (yaml_parser_load(&parser, &document) == 1) {
        err = read_document(&r);
        yaml_document_delete(&document);
    } else {
        buf_printf(why, "error converting YAML to JSON: yaml: line %zu: %s", parser.problem_mark.line + 1,
                   parser.problem == NULL ? "cannot be read" : parser.problem);
    }
    yaml_parser_delete(&parser);
    return err;
}
