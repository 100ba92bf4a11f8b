/* conf_log - what the keys about the log mean together: outputs and rotation, with etcd's refusals. */
#include <jansson.h>
#include <string.h>

#include "common/conf.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"

static bool is_file(struct slice name)
{
    return !slice_eq(name, SLICE_LIT("default")) && !slice_eq(name, SLICE_LIT("stderr")) &&
           !slice_eq(name, SLICE_LIT("stdout")) && !slice_eq(name, SLICE_LIT("systemd/journal"));
}

static int check_outputs(const struct conf *c, struct buf *why)
{
    size_t count = 0, files = 0;
    bool with_default = false;

    for (const char *next = c->log_outputs; next != NULL; count++) {
        struct slice name = conf_next_item(&next);
        files += is_file(name);
        with_default = with_default || slice_eq(name, SLICE_LIT("default"));
    }
    if (count > 1 && with_default) {
        buf_add_str(why, "multi logoutput for \"default\" is not supported yet\n");
        return E_INVALID;
    }
    if (c->enable_log_rotation && files != 1) {
        buf_add_str(why, "--log-outputs requires a single file path when --log-rotate-config-json is defined\n");
        return E_INVALID;
    }
    return OK;
}

/* A whole number of at least 0. */
static int read_count(json_t *json, const char *key, uint64_t *value, struct buf *why)
{
    json_t *member = json_object_get(json, key);

    if (member == NULL)
        return OK;
    if (!json_is_integer(member) || json_integer_value(member) < 0) {
        buf_printf(why, "invalid log rotation config: %s is not a number\n", key);
        return E_INVALID;
    }
    *value = (uint64_t)json_integer_value(member);
    return OK;
}

static int read_rotation(json_t *json, struct log_rotation *r, struct buf *why)
{
    uint64_t megabytes = 100;
    json_t *local = json_object_get(json, "localtime");

    if (!json_is_object(json)) {
        buf_add_str(why, "invalid log rotation config: not an object\n");
        return E_INVALID;
    }
    if (read_count(json, "maxsize", &megabytes, why) != OK || read_count(json, "maxage", &r->days_max, why) != OK ||
        read_count(json, "maxbackups", &r->files_max, why) != OK)
        return E_INVALID;
    if (local != NULL && !json_is_boolean(local)) {
        buf_add_str(why, "invalid log rotation config: localtime is neither true nor false\n");
        return E_INVALID;
    }
    r->local_time = json_is_true(local);
    r->bytes_max = (megabytes == 0 ? 100 : MIN(megabytes, (uint64_t)1 << 40)) * MIB;
    return OK;
}

int conf_log_rotation(const struct conf *c, struct log_rotation *r, struct buf *why)
{
    json_error_t error;
    json_t *json;
    int err;

    *r = (struct log_rotation){0};
    if (check_outputs(c, why) != OK)
        return E_INVALID;
    if (!c->enable_log_rotation)
        return OK;
    json = json_loads(c->log_rotation_config_json, JSON_REJECT_DUPLICATES, &error);
    if (json == NULL) {
        buf_printf(why, "improperly formatted log rotation config: %s\n", error.text);
        return E_INVALID;
    }
    err = read_rotation(json, r, why);
    json_decref(json);
    return err;
}
