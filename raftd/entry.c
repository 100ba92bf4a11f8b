/* entry - see entry.h. The loop makes entries, the log's thread and the links hold on to them: hence atomic counts.
 * The last one to let go frees; acquire/release order makes its free come after everybody's last look. */
#include "raftd/entry.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

struct entry *entry_new(enum entry_kind kind, struct slice data)
{
    struct entry *e = xmalloc(sizeof(*e) + data.len);

    e->index = 0;
    e->term = 0;
    e->kind = kind;
    e->refs = 1;
    e->len = data.len;
    if (data.len > 0)
        memcpy(e->data, data.data, data.len);
    return e;
}

struct entry *entry_ref(struct entry *e)
{
    uint32_t before = __atomic_fetch_add(&e->refs, 1, __ATOMIC_RELAXED);

    must(before > 0 && before < UINT32_MAX);
    return e;
}

void entry_unref(struct entry *e)
{
    if (!e)
        return;
    uint32_t before = __atomic_fetch_sub(&e->refs, 1, __ATOMIC_ACQ_REL);

    must(before > 0);
    if (before == 1)
        free(e);
}
