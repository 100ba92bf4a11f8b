/* fuzz_dropin - the configuration file and the variables of the program that takes etcd's place.
 * Byte 0 says which: a file; or variables, one a line. What was read passes or fails the checks, and can be read once more. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "deploy/etcd/flags.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Each value that was taken is one that would be taken again, as it is. */
static void read_again(const struct flags *f)
{
    struct flags again = {0};
    struct buf why = BUF_INIT;

    for (size_t i = 0; i < flag_count; i++) {
        if (f->value[i] == NULL)
            continue;
        must(flags_set(&again, i, f->value[i], SET_FLAG, &why) == OK);
        must(strcmp(again.value[i], f->value[i]) == 0);
    }
    flags_fini(&again);
    buf_fini(&why);
}

static int read_lines(struct flags *f, char *text, struct buf *why)
{
    char *lines[65] = {NULL}, *rest = NULL;
    size_t count = 0;

    for (char *line = strtok_r(text, "\n", &rest); line != NULL && count < 64; line = strtok_r(NULL, "\n", &rest))
        lines[count++] = line;
    return env_read(f, lines, why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flags f = {0};
    struct buf why = BUF_INIT;
    int err;

    log_init("fuzz", LOG_L_ERROR);
    if (size == 0)
        return 0;
    if (data[0] % 4 != 0) {
        err = file_read_flags(&f, slice_of(data + 1, size - 1), &why);
    } else {
        char *text = slice_dup_str(slice_of(data + 1, size - 1));
        err = read_lines(&f, text, &why);
        free(text);
    }
    must((err == OK) == (why.len == 0));
    if (err == OK) {
        read_again(&f);
        err = check_flags(&f, &why);
        must((err == OK) == (why.len == 0));
    }
    flags_fini(&f);
    buf_fini(&why);
    return 0;
}
