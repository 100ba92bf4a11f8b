/* kin - see kin.h. Three lines of text and their CRC32C, replaced as a whole. */
#include "stored/kin.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"

#define KIN_NAME "KIN"
#define KIN_BYTES_MAX 4096
#define SUSPECT_NAME "SUSPECT"

static void kin_text(const struct kin *k, struct buf *out)
{
    buf_printf(out, "cluster %" PRIx64 "\nmember %" PRIx64 "\nmembers %" PRIu64 "\n", k->cluster_id, k->member_id,
               k->members);
    buf_printf(out, "crc %08x\n", crc32c(0, out->data, out->len));
}

void kin_write(const char *store_dir, const struct kin *k)
{
    char *path = xasprintf("%s/%s", store_dir, KIN_NAME);
    struct buf text = BUF_INIT;

    kin_text(k, &text);
    if (file_replace(path, text.data, text.len) != 0)
        fatal("stored: cannot write %s", path);
    buf_fini(&text);
    free(path);
}

bool kin_read(const char *store_dir, struct kin *k)
{
    char *path = xasprintf("%s/%s", store_dir, KIN_NAME);
    struct buf text = BUF_INIT, again = BUF_INIT;
    struct kin got;
    bool good = file_read_all(path, KIN_BYTES_MAX, &text) == 0;
    struct slice bytes = buf_slice(&text);

    if (good) {
        buf_add_byte(&text, 0);
        bytes = slice_of(text.data, text.len - 1);
        good = sscanf((const char *)text.data, "cluster %" SCNx64 " member %" SCNx64 " members %" SCNu64,
                      &got.cluster_id, &got.member_id, &got.members) == 3;
    }
    if (good) {
        kin_text(&got, &again); /* what was read must be what would be written, checksum included */
        good = slice_eq(buf_slice(&again), bytes);
    }
    if (good)
        *k = got;
    buf_fini(&text);
    buf_fini(&again);
    free(path);
    return good;
}

void kin_suspect(const char *store_dir)
{
    char *path = xasprintf("%s/%s", store_dir, SUSPECT_NAME);

    if (file_replace(path, "", 0) != 0)
        fatal("stored: cannot write %s", path);
    free(path);
}

bool kin_is_suspect(const char *store_dir)
{
    char *path = xasprintf("%s/%s", store_dir, SUSPECT_NAME);
    bool suspect = access(path, F_OK) == 0;

    free(path);
    return suspect;
}

void kin_trust(const char *store_dir)
{
    char *path = xasprintf("%s/%s", store_dir, SUSPECT_NAME);

    unlink(path);
    free(path);
}
