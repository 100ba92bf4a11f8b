/* fuzz_command - an entry of the log that may come from anybody: the envelope of a command. */
#include "proto/command.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct command c, again;
    struct buf once = BUF_INIT, twice = BUF_INIT;

    if (command_decode(slice_of(data, size), &c) != 0)
        return 0;
    must(c.user.len + c.body.len < size);
    must(command_name(c.kind) != NULL);
    command_encode(&once, &c);
    must(command_decode(buf_slice(&once), &again) == 0);
    command_encode(&twice, &again);
    must(slice_eq(buf_slice(&once), buf_slice(&twice)));
    buf_fini(&twice);
    buf_fini(&once);
    return 0;
}
