/* feature - feature-gates: etcd's names, what they are by default, and what they are set to. They are read to refuse
 * what etcd refuses; none of them switches anything here (trine.conf(5) says why).
 * AllAlpha and AllBeta set the gates of their stage that are not named themselves. */
#include <string.h>

#include "common/conf.h"
#include "common/err.h"
#include "deploy/etcd/flags.h"

enum stage { ALPHA, BETA, META };

static const struct {
    const char *name;
    enum stage stage;
    bool def;
} features[] = {
    {"AllAlpha", META, false},
    {"AllBeta", META, false},
    {"CompactHashCheck", ALPHA, false},
    {"FastLeaseKeepAlive", BETA, true},
    {"InitialCorruptCheck", ALPHA, false},
    {"LeaseCheckpoint", ALPHA, false},
    {"LeaseCheckpointPersist", ALPHA, false},
    {"PriorityRequest", ALPHA, false},
    {"SetMemberLocalAddr", ALPHA, false},
    {"StopGRPCServiceOnDefrag", ALPHA, false},
    {"TxnModeWriteWithSharedBuffer", BETA, true},
};

static bool is_feature(struct slice name)
{
    for (size_t i = 0; i < ARRAY_LEN(features); i++) {
        if (slice_eq(name, slice_str(features[i].name)))
            return true;
    }
    return false;
}

static bool read_bool(struct slice text, bool *value)
{
    static const char *const words[2][6] = {{"0", "f", "F", "false", "FALSE", "False"},
                                            {"1", "t", "T", "true", "TRUE", "True"}};

    for (size_t v = 0; v < 2; v++) {
        for (size_t i = 0; i < ARRAY_LEN(words[v]); i++) {
            if (slice_eq(text, slice_str(words[v][i]))) {
                *value = v == 1;
                return true;
            }
        }
    }
    return false;
}

/* "NAME=BOOL" in parts. false: no equals sign. */
static bool split(struct slice item, struct slice *name, struct slice *value)
{
    const uint8_t *equal = memchr(item.data, '=', item.len);

    if (equal == NULL)
        return false;
    *name = slice_of(item.data, (size_t)(equal - item.data));
    *value = slice_of(equal + 1, item.len - name->len - 1);
    return true;
}

/* What gates says of name itself: the last word counts. */
static bool find(const char *gates, const char *name, bool *value)
{
    bool found = false;

    for (const char *next = gates; next != NULL;) {
        struct slice item = conf_next_item(&next), left, right;
        if (split(item, &left, &right) && slice_eq(left, slice_str(name)) && read_bool(right, value))
            found = true;
    }
    return found;
}

static bool feature_is_on(const char *gates, const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(features); i++) {
        bool on = features[i].def;
        if (strcmp(features[i].name, name) != 0)
            continue;
        if (!find(gates, name, &on) && features[i].stage != META)
            (void)find(gates, features[i].stage == ALPHA ? "AllAlpha" : "AllBeta", &on);
        return on;
    }
    must(!"a feature of the table");
    return false;
}

int feature_parse(const char *gates, struct buf *why)
{
    for (const char *next = gates; next != NULL;) {
        struct slice item = conf_next_item(&next), name, value;
        bool on;
        if (item.len == 0)
            continue;
        if (!split(item, &name, &value)) {
            buf_printf(why, "missing bool value for feature gate %.*s", (int)item.len, (const char *)item.data);
            return E_INVALID;
        }
        if (!is_feature(name)) {
            buf_printf(why, "unrecognized feature gate: %.*s", (int)name.len, (const char *)name.data);
            return E_INVALID;
        }
        if (!read_bool(value, &on)) {
            buf_printf(why, "invalid value of %.*s=%.*s, err: strconv.ParseBool: parsing \"%.*s\": invalid syntax", (int)name.len,
                       (const char *)name.data, (int)value.len, (const char *)value.data, (int)value.len,
                       (const char *)value.data);
            return E_INVALID;
        }
    }
    return OK;
}

int feature_check(const char *gates, struct buf *why)
{
    if (feature_is_on(gates, "LeaseCheckpointPersist") && !feature_is_on(gates, "LeaseCheckpoint")) {
        buf_add_str(why,
                    "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint");
        return E_INVALID;
    }
    return OK;
}
