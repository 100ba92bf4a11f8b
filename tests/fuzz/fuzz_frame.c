/* fuzz_frame - a message from a hostile sibling: a batch of frames.
 * Nothing is read past its end; what is taken for a frame says the same when we send it on. */
#include <stdlib.h>
#include <string.h>

#include "proto/frames.h"
#include "proto/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_frame(const struct frame *frame)
{
    struct buf once = BUF_INIT, twice = BUF_INIT;
    struct frame again;
    char line[256];

    frame_show(frame, line, sizeof(line));
    must(strlen(line) < sizeof(line));
    frame_encode(&once, frame);
    struct slice message = buf_slice(&once);
    must(frame_decode(&message, &again) == 1 && message.len == 0);
    frame_encode(&twice, &again);
    must(slice_eq(buf_slice(&once), buf_slice(&twice)));
    buf_fini(&twice);
    buf_fini(&once);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice message = slice_of(data, size), items = message;
    struct frame frame;

    while (frame_decode(&message, &frame) == 1)
        check_frame(&frame);
    while (unpack_skip(&items) == 0) {
    }
    must(items.len <= size && message.len <= size);
    return 0;
}
