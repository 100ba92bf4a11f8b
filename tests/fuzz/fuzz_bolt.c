/* fuzz_bolt - the reader of a stranger's bolt file. The meta pages have a checksum that would keep a fuzzer out: it is put right first,
 * for both places where the second one may be looked for first.
 * What must hold, whatever the bytes: no crash, no endless walk, rows in ascending order and inside the file, and the same on a
 * second walk. */
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/err.h"
#include "common/mem.h"
#include "stored/bolt_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    struct slice file, last;
    bool any;
    uint32_t sum;
};

static void meta_mend(uint8_t *data, size_t size, size_t at)
{
    uint64_t hash = 0xcbf29ce484222325ULL;

    if (size < at + 16 + 64)
        return;
    for (size_t i = 0; i < 56; i++)
        hash = (hash ^ data[at + 16 + i]) * 0x100000001b3ULL;
    for (int i = 0; i < 8; i++)
        data[at + 16 + 56 + i] = (uint8_t)(hash >> (8 * i));
}

static void inside(const struct slice *file, struct slice part)
{
    must(part.len == 0 || (part.data >= file->data && part.data + part.len <= file->data + file->len));
}

static int see(void *arg, struct slice key, struct slice value)
{
    struct seen *s = arg;

    inside(&s->file, key);
    inside(&s->file, value);
    must(!s->any || slice_cmp(s->last, key) < 0);
    s->any = true;
    s->last = key;
    s->sum = crc32c(s->sum, key.data, key.len);
    s->sum = crc32c(s->sum, value.data, value.len);
    return 0;
}

static uint32_t walk(struct bolt_file *f, struct slice file)
{
    static const char *const names[] = {"key", "lease", "meta", "authUsers"};
    struct seen buckets = {.file = file};
    struct buf why = BUF_INIT;
    uint32_t sum = (uint32_t)bolt_each_bucket(f, see, &buckets, &why);

    sum = crc32c(sum, &buckets.sum, sizeof buckets.sum);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct seen s = {.file = file};
        int err = bolt_each(f, slice_str(names[i]), see, &s, &why);

        must(err == 0 || err == E_DAMAGED || err == E_NOT_FOUND);
        sum = crc32c(sum, &s.sum, sizeof s.sum);
    }
    buf_fini(&why);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1); /* of exactly this size, so that a step beyond it is seen */
    struct buf why = BUF_INIT;
    struct bolt_file *f;

    memcpy(copy, data, size);
    meta_mend(copy, size, 0);
    meta_mend(copy, size, 512);
    meta_mend(copy, size, 4096);
    if (bolt_open(slice_of(copy, size), &f, &why) == 0) {
        uint32_t once = walk(f, slice_of(copy, size));

        must(walk(f, slice_of(copy, size)) == once);
        bolt_close(f);
    }
    buf_fini(&why);
    free(copy);
    return 0;
}
