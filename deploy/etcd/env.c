/* env - flags from the environment: --data-dir is ETCD_DATA_DIR. An empty variable is none. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "deploy/etcd/flags.h"

#define PREFIX "ETCD_"

/* ETCD_DATA_DIR -> data-dir; flag_count: no flag's variable. */
static size_t find_variable(struct slice name)
{
    for (size_t i = 0; i < flag_count; i++) {
        const char *flag = flag_table[i].name;
        size_t len = strlen(flag), k = 0;
        if (name.len != strlen(PREFIX) + len)
            continue;
        while (k < len && name.data[strlen(PREFIX) + k] == (flag[k] == '-' ? '_' : (uint8_t)toupper((unsigned char)flag[k])))
            k++;
        if (k == len)
            return i;
    }
    return flag_count;
}

/* A variable and a flag that say the same thing, perhaps not the same: etcd does not choose. */
static _Noreturn void shadowed(struct slice name)
{
    fatalx("conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or "
           "disable flag)): environment-variable=%.*s",
           (int)name.len, (const char *)name.data);
}

int env_read(struct flags *f, char *const envp[], struct buf *why)
{
    int result = OK;

    for (; envp != NULL && *envp != NULL; envp++) {
        const char *equal = strchr(*envp, '=');
        if (equal == NULL || strncmp(*envp, PREFIX, strlen(PREFIX)) != 0)
            continue;
        struct slice name = slice_of(*envp, (size_t)(equal - *envp));
        size_t i = find_variable(name);
        if (i == flag_count) {
            log_warnx("unrecognized environment variable: environment-variable=%s", *envp);
        } else if (strcmp(flag_table[i].name, "version") == 0) {
            log_warnx("cannot set special environment variable: key=ETCD_VERSION");
        } else if (f->source[i] == SET_FLAG) {
            shadowed(name);
        } else if (equal[1] != '\0') {
            struct buf reason = BUF_INIT;
            if (flags_set(f, i, equal + 1, SET_ENV, &reason) != OK && result == OK) {
                buf_printf(why, "invalid value \"%s\" for %.*s: %.*s", equal + 1, (int)name.len, (const char *)name.data,
                           (int)reason.len, (const char *)reason.data);
                result = E_INVALID;
            }
            buf_fini(&reason);
        }
    }
    return result;
}
