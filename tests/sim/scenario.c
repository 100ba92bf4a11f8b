/* scenario - text scenarios on the simulated world: steps move the messages and the clock, what happens comes out in
 * the words of raft_show. A file is steps ("$ ..."), comments ("# ...") and, below each step, what it brought. Running
 * it writes the transcript anew and compares; --accept keeps the new one.
 *
 *   $ members 1 2 3            founders, up, disks done at once      $ join 4           an empty member, up
 *   $ timeout 1                its election timer runs out           $ wait 250         all clocks move on, nothing
 * moves $ go                       all messages, timers excluded         $ run 100          the clock with all timers,
 * quietly $ deliver 1 2              what is under way from 1 to 2         $ drop 1 2         the same, lost ("*":
 * anybody) $ cut 1 2 | heal | isolate 1                                     $ disk 1 stuck | disk 1 ok $ put 1 x | get
 * 1 x | conf 1 add 4 | transfer 1 2                $ pause 1 | resume 1 $ appends 1             bytes of one append,
 * before members      $ write 1 4 4 5    entries of these terms, while it is down $ crash 1 | power 1 | start 1 $ show
 * 1 | log 1 | leader */
#include <stdio.h>

#include "common/err.h"
#include "common/mem.h"
#include "tests/sim/sim.h"

struct held { /* a message under way */
    struct raft_msg *msg;
    bool dead;
};

struct scenario {
    struct sim *s;
    struct buf out;
    struct held *net;
    size_t net_count, net_cap;
    bool paused[SIM_SLOTS], stuck[SIM_SLOTS];
    size_t answers; /* operations told so far */
    bool quiet;     /* messages are not told */
};

static struct sim_node *node_at(struct scenario *c, const char *word)
{
    struct sim_node *n = word ? sim_node_of(c->s, strtoull(word, NULL, 10)) : NULL;

    if (!n)
        sim_broken(c->s, "a scenario names a member", "%s", word ? word : "(none)");
    return n;
}

/* --- moving things ----------------------------------------------------------------------------------------- */

static void held_add(struct scenario *c, struct raft_msg *m)
{
    if (c->net_count == c->net_cap) {
        c->net_cap = MAX(c->net_cap * 2, 64);
        c->net = xrealloc(c->net, c->net_cap * sizeof(*c->net));
    }
    c->net[c->net_count++] = (struct held){.msg = m};
}

static void answers_tell(struct scenario *c)
{
    buf_add_slice(&c->out, buf_slice(&c->s->said));
    buf_reset(&c->s->said);
    for (; c->answers < c->s->op_count && c->s->ops[c->answers].done; c->answers++) {
        const struct sim_op *op = &c->s->ops[c->answers];

        buf_printf(&c->out, "op %" PRIu64 ": ", op->id);
        if (op->told_err)
            buf_printf(&c->out, "%s\n", err_name(op->told_err));
        else if (op->kind == SIM_GET)
            buf_printf(&c->out, "read %" PRIu64 " of entry %" PRIu64 "\n", op->told_value, op->told_mod);
        else
            buf_printf(&c->out, "done at %" PRIu64 "\n", op->index);
    }
}

/* Everything but messages takes place at once: disks, stored, turns. Messages are taken out of the heap and held. */
static void settle(struct scenario *c)
{
    struct sim *s = c->s;

    while (s->heap_count > 0 && s->heap[0].at_us <= s->now_us) {
        struct sim_event *first = &s->heap[0];
        unsigned pos = first->node;

        if (first->kind == SIM_EV_MSG) {
            held_add(c, first->data);
            first->data = NULL;
            first->kind = SIM_EV_TURN;
            first->epoch = UINT64_MAX; /* nothing any more */
        } else if ((first->kind == SIM_EV_DISK && c->stuck[pos]) ||
                   (c->paused[pos] && first->kind != SIM_EV_CLIENT && first->kind != SIM_EV_ANSWER)) {
            sim_at(s, UINT64_MAX / 2, *first);
            first->data = NULL;
            first->kind = SIM_EV_TURN;
            first->epoch = UINT64_MAX;
        }
        sim_step(s, s->now_us);
    }
    answers_tell(c);
}

/* What was put off because of `pos` is due now. */
static void due_now(struct scenario *c, unsigned pos)
{
    struct sim *s = c->s;
    struct sim_event kept[256];
    size_t count = 0;

    for (size_t i = 0; i < s->heap_count; i++)
        if (s->heap[i].at_us == UINT64_MAX / 2 && s->heap[i].node == pos && count < ARRAY_LEN(kept)) {
            kept[count++] = s->heap[i];
            s->heap[i].kind = SIM_EV_TURN;
            s->heap[i].epoch = UINT64_MAX;
            s->heap[i].data = NULL;
        }
    for (size_t i = 0; i < count; i++)
        sim_at(s, s->now_us, kept[i]);
    settle(c);
}

static void deliver_one(struct scenario *c, struct held *h)
{
    char text[240];
    struct sim_node *to = sim_node_of(c->s, h->msg->to), *from = sim_node_of(c->s, h->msg->from);
    struct raft_msg *m = h->msg;

    h->dead = true;
    raft_show_msg(m, text, sizeof(text));
    bool lost = !to || !to->up || !from || !sim_net_open(c->s, from->pos, to->pos);
    if (!c->quiet)
        buf_printf(&c->out, "%s%s\n", text, lost ? " (lost)" : "");
    if (lost) {
        sim_msg_free(m);
        return;
    }
    struct sim_event ev = {.kind = SIM_EV_MSG, .node = to->pos, .data = m, .at_us = c->s->now_us};
    sim_event_do(c->s, &ev);
    settle(c);
}

static bool matches(const struct held *h, uint64_t from, uint64_t to)
{
    return !h->dead && (from == 0 || h->msg->from == from) && (to == 0 || h->msg->to == to);
}

static bool is_paused(const struct scenario *c, uint64_t id)
{
    struct sim_node *n = sim_node_of(c->s, id);

    return n && c->paused[n->pos];
}

/* In the order they were sent. all: also what they lead to; else only what is under way now. */
static void deliver(struct scenario *c, uint64_t from, uint64_t to, bool all, bool lose)
{
    size_t end = c->net_count;

    for (size_t i = 0, steps = 0; i < (all ? c->net_count : end) && steps < 500; i++) {
        if (!matches(&c->net[i], from, to) || is_paused(c, c->net[i].msg->to))
            continue;
        steps++;
        if (lose) {
            char text[240];

            raft_show_msg(c->net[i].msg, text, sizeof(text));
            buf_printf(&c->out, "%s (lost)\n", text);
            sim_msg_free(c->net[i].msg);
            c->net[i].dead = true;
        } else {
            struct held h = c->net[i];

            c->net[i].dead = true; /* delivering may move the array */
            deliver_one(c, &h);
        }
    }
    size_t kept = 0;
    for (size_t i = 0; i < c->net_count; i++)
        if (!c->net[i].dead)
            c->net[kept++] = c->net[i];
    c->net_count = kept;
}

static void tick(struct scenario *c, struct sim_node *n)
{
    if (!n->up || c->paused[n->pos])
        return;
    sim_node_wake(c->s, n, 0);
    settle(c);
}

/* Timers and messages run by themselves; only what comes of it is told by later steps. */
static void run_quietly(struct scenario *c, uint64_t ms)
{
    c->quiet = true;
    for (uint64_t i = 0; i < ms; i++) {
        c->s->now_us += SIM_MS;
        for (size_t k = 0; k < c->s->node_count; k++)
            tick(c, c->s->nodes[k]);
        deliver(c, 0, 0, true, false);
    }
    c->quiet = false;
}

/* --- steps --------------------------------------------------------------------------------------------------- */

static void conf_step(struct scenario *c, struct sim_node *n, const char *op, uint64_t id)
{
    static const char *const names[] = {"", "add", "learner", "promote", "remove"};
    struct buf bytes = BUF_INIT;
    uint64_t code = 1;

    while (code < ARRAY_LEN(names) - 1 && strcmp(names[code], op) != 0)
        code++;
    raft_conf_encode(&bytes, &(struct raft_conf_change){.op = code, .id = id});
    turn_clock(n->turn, sim_node_now_ms(n));
    turn_propose(n->turn, SIM_CLIENTS, 0, entry_new(ENTRY_CONF, buf_slice(&bytes)));
    buf_fini(&bytes);
    tick(c, n);
}

static void log_step(struct scenario *c, const struct sim_node *n)
{
    const struct raft_log *log = &n->raft->log;

    buf_printf(&c->out, "member %" PRIu64 ": terms", n->id);
    for (uint64_t i = log->first, term; i <= log->last && raft_log_term(log, i, &term); i++)
        buf_printf(&c->out, " %" PRIu64 "%s", term, i == raft_commit(n->raft) ? "|" : "");
    buf_printf(&c->out, "   (| committed)\n");
}

static void ask_step(struct scenario *c, struct sim_node *n, enum sim_op_kind kind, const char *key)
{
    struct sim_op *op = sim_op_new(c->s, 0, kind, (uint64_t)(key ? key[0] - 'x' : 0) % SIM_KEYS);

    op->node = n->pos;
    sim_at(c->s, c->s->now_us, (struct sim_event){.kind = SIM_EV_REQUEST, .node = n->pos, .index = op->id});
    settle(c);
}

static void cut_step(struct scenario *c, const char *a, const char *b)
{
    unsigned x = node_at(c, a)->pos;

    for (unsigned k = 0; k < SIM_SLOTS; k++)
        if (!b || k == node_at(c, b)->pos)
            c->s->net.cut[x][k] = c->s->net.cut[k][x] = x != k;
}

static void timeout_step(struct scenario *c, struct sim_node *n)
{
    n->clock_offset_us += 2 * SIM_ELECTION_MS * SIM_MS; /* only its own clock: the others do not time out */
    tick(c, n);
}

static void members_step(struct scenario *c, char **words, int count)
{
    c->s->voters = (size_t)count;
    for (int i = 0; i < count; i++)
        sim_node_use(c->s, (unsigned)i, strtoull(words[i], NULL, 10), false);
    for (int i = 0; i < count; i++)
        sim_at(c->s, c->s->now_us, (struct sim_event){.kind = SIM_EV_START, .node = (unsigned)i});
    settle(c);
}

static void write_step(struct scenario *c, char **words, int count)
{
    uint64_t terms[20];

    for (int i = 1; i < count; i++)
        terms[i - 1] = strtoull(words[i], NULL, 10);
    sim_node_write(node_at(c, words[0]), terms, (size_t)count - 1);
}

static bool step_life(struct scenario *c, const char *w, char **a)
{
    if (strcmp(w, "join") == 0) {
        unsigned pos = (unsigned)strtoul(a[0], NULL, 10) - 1;

        sim_node_use(c->s, pos, pos + 1, true);
        sim_at(c->s, c->s->now_us, (struct sim_event){.kind = SIM_EV_START, .node = pos});
    } else if (strcmp(w, "crash") == 0 || strcmp(w, "power") == 0) {
        sim_node_crash(c->s, node_at(c, a[0]), w[0] == 'p');
    } else if (strcmp(w, "start") == 0) {
        sim_at(c->s, c->s->now_us, (struct sim_event){.kind = SIM_EV_START, .node = node_at(c, a[0])->pos});
    } else if (strcmp(w, "pause") == 0 || strcmp(w, "resume") == 0) {
        c->paused[node_at(c, a[0])->pos] = w[0] == 'p';
        if (w[0] == 'r')
            due_now(c, node_at(c, a[0])->pos);
    } else if (strcmp(w, "disk") == 0) {
        c->stuck[node_at(c, a[0])->pos] = strcmp(a[1], "stuck") == 0;
        if (strcmp(a[1], "stuck") != 0)
            due_now(c, node_at(c, a[0])->pos);
    } else {
        return false;
    }
    settle(c);
    return true;
}

static bool step_net(struct scenario *c, const char *w, char **a)
{
    uint64_t from = a[0] ? strtoull(a[0], NULL, 10) : 0, to = a[0] && a[1] ? strtoull(a[1], NULL, 10) : 0;

    if (strcmp(w, "go") == 0)
        deliver(c, 0, 0, true, false);
    else if (strcmp(w, "deliver") == 0)
        deliver(c, from, to, false, false);
    else if (strcmp(w, "drop") == 0)
        deliver(c, from, to, false, true);
    else if (strcmp(w, "cut") == 0 || strcmp(w, "isolate") == 0)
        cut_step(c, a[0], w[0] == 'c' ? a[1] : NULL);
    else if (strcmp(w, "heal") == 0)
        memset(c->s->net.cut, 0, sizeof(c->s->net.cut));
    else
        return false;
    return true;
}

static bool step_ask(struct scenario *c, const char *w, char **a)
{
    char text[700];
    struct sim_node *n;

    if (strcmp(w, "leader") == 0) {
        n = sim_leader(c->s);
        buf_printf(&c->out, n ? "member %" PRIu64 " leads\n" : "nobody leads\n", n ? n->id : 0);
        return true;
    }
    n = node_at(c, a[0]);
    if (strcmp(w, "put") == 0 || strcmp(w, "get") == 0) {
        ask_step(c, n, w[0] == 'p' ? SIM_PUT : SIM_GET, a[1]);
    } else if (strcmp(w, "conf") == 0) {
        conf_step(c, n, a[1], strtoull(a[2], NULL, 10));
    } else if (strcmp(w, "transfer") == 0) {
        turn_clock(n->turn, sim_node_now_ms(n));
        turn_transfer(n->turn, strtoull(a[1], NULL, 10));
        tick(c, n);
    } else if (strcmp(w, "show") == 0) {
        raft_show(n->raft, text, sizeof(text));
        buf_printf(&c->out, "%s\n", text);
    } else if (strcmp(w, "log") == 0) {
        log_step(c, n);
    } else if (strcmp(w, "timeout") == 0) {
        timeout_step(c, n);
    } else if (strcmp(w, "tick") == 0) {
        tick(c, n);
    } else {
        return false;
    }
    return true;
}

static void step(struct scenario *c, const char *line)
{
    char copy[200], *words[20] = {0}, *rest = NULL;
    int count = 0;

    snprintf(copy, sizeof(copy), "%s", line + 1);
    for (char *w = strtok_r(copy, " \n", &rest); w && count < 19; w = strtok_r(NULL, " \n", &rest))
        words[count++] = w;
    buf_printf(&c->out, "$");
    for (int i = 0; i < count; i++)
        buf_printf(&c->out, " %s", words[i]);
    buf_printf(&c->out, "\n");
    if (count == 0)
        return;
    if (strcmp(words[0], "members") == 0)
        members_step(c, words + 1, count - 1);
    else if (strcmp(words[0], "wait") == 0)
        c->s->now_us += strtoull(words[1], NULL, 10) * SIM_MS;
    else if (strcmp(words[0], "appends") == 0)
        c->s->append_bytes = strtoull(words[1], NULL, 10);
    else if (strcmp(words[0], "keep") == 0)
        c->s->keep_entries = strtoull(words[1], NULL, 10);
    else if (strcmp(words[0], "write") == 0)
        write_step(c, words + 1, count - 1);
    else if (strcmp(words[0], "run") == 0)
        run_quietly(c, strtoull(words[1], NULL, 10));
    else if (!step_life(c, words[0], words + 1) && !step_net(c, words[0], words + 1) &&
             !step_ask(c, words[0], words + 1))
        sim_broken(c->s, "a scenario has known steps", "%s", words[0]);
}

/* --- files ------------------------------------------------------------------------------------------------------ */

static void text_read(const char *path, struct buf *out)
{
    FILE *f = fopen(path, "r");
    char piece[4096];
    size_t got;

    while (f && (got = fread(piece, 1, sizeof(piece), f)) > 0)
        buf_add(out, piece, got);
    if (f)
        fclose(f);
    buf_add_byte(out, 0);
}

static int compare(const char *path, const struct buf *want, const struct buf *got)
{
    const char *a = (const char *)want->data, *b = (const char *)got->data;
    unsigned line = 1;

    while (*a && *a == *b) {
        line += *a == '\n';
        a++;
        b++;
    }
    if (!*a && !*b)
        return 0;
    while (a > (const char *)want->data && a[-1] != '\n')
        a--, b--;
    printf("%s:%u: expected: %.*s\n%s:%u: came out: %.*s\n", path, line, (int)strcspn(a, "\n"), a, path, line,
           (int)strcspn(b, "\n"), b);
    return 1;
}

int scenario_run(const char *path, bool accept)
{
    struct scenario c = {.s = xcalloc(1, sizeof(*c.s))};
    struct buf want = BUF_INIT;
    char *rest = NULL;
    int failed;

    text_read(path, &want);
    char *text = xstrdup((const char *)want.data);
    sim_init(c.s, 4);
    c.s->manual = true;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (line[0] == '#')
            buf_printf(&c.out, "%s\n", line);
        else if (line[0] == '$')
            step(&c, line);
    }
    buf_add_byte(&c.out, 0);
    failed = accept ? 0 : compare(path, &want, &c.out);
    FILE *f = accept ? fopen(path, "w") : NULL;
    if (f) {
        fwrite(c.out.data, 1, c.out.len - 1, f);
        fclose(f);
    }
    printf("%-56s %s\n", path, failed ? "differs" : accept ? "written" : "as expected");
    for (size_t i = 0; i < c.net_count; i++)
        sim_msg_free(c.net[i].msg);
    free(c.net);
    free(text);
    buf_fini(&want);
    buf_fini(&c.out);
    sim_fini(c.s);
    free(c.s);
    return failed;
}
