/* self - keeps the file SELF (keep.h) true: term, vote and members as the log has them, a second time.
 * From out.c before a change of term or vote is told to anybody, and whenever the members changed. */
#include "raftd/keep.h"
#include "raftd/raftd.h"

static void self_write(struct raftd *d)
{
    struct keep_self k = {.cluster_id = d->cluster_id,
                          .member_id = d->member_id,
                          .term = d->self.term,
                          .vote = d->self.vote,
                          .hard_seq = d->self.hard_seq};

    /* Alone there is nobody to get a log from, and nobody to vote for. */
    if (!d->self.dir || (d->members.count <= 1 && !d->self.written))
        return;
    members_encode(&d->members, &k.members);
    keep_self_write(d->self.dir, &k);
    buf_fini(&k.members);
    d->self.written = true;
}

void self_hard(struct raftd *d, uint64_t term, uint64_t vote, uint64_t hard_seq)
{
    bool news = term != d->self.term || vote != d->self.vote;

    d->self.term = term;
    d->self.vote = vote;
    d->self.hard_seq = hard_seq;
    if (news)
        self_write(d);
}

void self_members(struct raftd *d)
{
    self_write(d);
}
