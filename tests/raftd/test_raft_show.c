/* The wording of logs and transcripts. */
#include "tests/raftd/box.h"

#define TERMS(...) ((const uint64_t[]){__VA_ARGS__, 0})

static char text[1024];

Test(raft_show, a_member_in_one_line)
{
    struct box *b = box_leader(2, 3, TERMS(1, 2));

    raft_show(b->raft, text, sizeof(text));
    cr_assert_str_eq(text,
                     "member 1 leader term 4 vote 1 leader 1 log 1..3 persisted 3 commit 0 applied 0 members 1,2; "
                     "2 probe match 0 next 3");
    box_free(b);
}

Test(raft_show, every_role_has_a_name)
{
    cr_assert_str_eq(raft_role_name(RAFT_FOLLOWER), "follower");
    cr_assert_str_eq(raft_role_name(RAFT_PRECANDIDATE), "precandidate");
    cr_assert_str_eq(raft_role_name(RAFT_CANDIDATE), "candidate");
    cr_assert_str_eq(raft_role_name(RAFT_LEADER), "leader");
    cr_assert_str_eq(raft_role_name((enum raft_role)77), "unknown");
}

Test(raft_show, events)
{
    const struct {
        struct raft_event ev;
        const char *text;
    } cases[] = {
        {{.type = RAFT_EV_TICK, .now_ms = 5}, "5 tick"},
        {{.type = RAFT_EV_READ, .tag = 3}, "0 read tag 3"},
        {{.type = RAFT_EV_PERSISTED, .index = 4, .entry_term = 2, .hard_seq = 1}, "0 persisted 4/2 hard 1"},
        {{.type = RAFT_EV_APPLIED, .index = 4, .durable = 2}, "0 applied 4 durable 2"},
        {{.type = RAFT_EV_TRANSFER, .member = 2}, "0 transfer to 2"},
        {{.type = RAFT_EV_SNAP_SENT, .member = 2, .index = 7, .ok = true}, "0 snap sent to 2 index 7 ok"},
        {{.type = RAFT_EV_UNREACHABLE, .member = 2}, "0 unreachable 2"},
        {{.type = RAFT_EV_GONE, .member = 2}, "0 gone 2"},
        {{.type = RAFT_EV_STOP}, "0 stop"},
        {{.type = RAFT_EV_RECV,
          .msg = &(struct raft_msg){.type = RAFT_MSG_APPEND_SAID,
                                    .from = 2,
                                    .to = 1,
                                    .term = 3,
                                    .index = 9,
                                    .reject = true,
                                    .hint = 4,
                                    .log_term = 2}},
         "0 recv APPEND_SAID 2->1 term 3 no at 9 hint 4/2"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        raft_show_event(&cases[i].ev, text, sizeof(text));
        cr_assert_str_eq(text, cases[i].text);
    }
}

Test(raft_show, a_ready_in_one_line)
{
    struct box *b = box_new(1, 2, 4, NULL);
    struct raft_ready ready;

    box_step(b, (struct raft_event){.type = RAFT_EV_READ, .tag = 6});
    box_step(b, (struct raft_event){.type = RAFT_EV_RECV,
                                    .msg = &(struct raft_msg){.type = RAFT_MSG_VOTE, .from = 2, .to = 1, .term = 5}});
    raft_ready(b->raft, &ready);
    raft_show_ready(&ready, text, sizeof(text));
    char expected[256];

    snprintf(expected, sizeof(expected),
             "commit 0; hard 1 term 5 vote 2; late VOTE_SAID 1->2 term 5 yes; refused read tag 6 err %d; soft",
             E_NO_LEADER);
    cr_assert_str_eq(text, expected);
    box_free(b);
}

Test(raft_show, a_text_that_is_too_long_ends_quietly)
{
    struct box *b = box_leader(2, 3, TERMS(1, 2));
    char little[12], one[1] = {'x'};

    raft_show(b->raft, little, sizeof(little));
    cr_assert_str_eq(little, "member 1 le");
    raft_show(b->raft, one, sizeof(one));
    cr_assert_str_eq(one, "");
    raft_show(b->raft, NULL, 0);
    box_free(b);
}
