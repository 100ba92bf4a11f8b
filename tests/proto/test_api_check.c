/* test_api_check - etcd's rules for requests, in etcd's order; transactions are written as text:
 *
 *      txn  = list '|' list        then and else
 *      list = op*                  one letter per operation, keys are one letter too
 *      op   = 'p'key  |  'd'key (one key)  |  'd'key'-'key (interval; '*' as its end: open)  |  'r'key  |  '('txn')'  |
 * '?' (none)
 */
#include <criterion/criterion.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/limits.h"
#include "proto/api.h"
#include "tests/proto/seed.h"

#define KEY(s) SLICE_LIT(s)

/* --- transactions from text -------------------------------------------------------------------------------- */

static struct api_txn *parse_txn(const char **at, struct arena *a);

static struct slice parse_key(const char **at)
{
    return slice_of((*at)++, 1);
}

static struct slice parse_end(const char **at)
{
    if (**at != '-')
        return SLICE_EMPTY;
    (*at)++;
    struct slice end = parse_key(at);
    return end.data[0] == '*' ? slice_of("", 1) : end;
}

static struct api_request_op *parse_list(const char **at, struct arena *a, size_t *count)
{
    struct api_request_op *ops = arena_zalloc(a, 64 * sizeof(ops[0]));

    while (**at != '|' && **at != ')' && **at != '\0') {
        struct api_request_op *op = &ops[*count];
        char letter = *(*at)++;

        if (letter == ' ')
            continue;
        (*count)++;
        if (letter == 'p') {
            op->op = API_OP_PUT;
            op->put.key = parse_key(at);
        } else if (letter == 'd') {
            op->op = API_OP_DELETE;
            op->del.key = parse_key(at);
            op->del.range_end = parse_end(at);
        } else if (letter == 'r') {
            op->op = API_OP_RANGE;
            op->range.key = parse_key(at);
        } else if (letter == '(') {
            op->op = API_OP_TXN;
            op->txn = parse_txn(at, a);
            (*at)++;
        } else {
            cr_assert_eq(letter, '?');
        }
    }
    return ops;
}

static struct api_txn *parse_txn(const char **at, struct arena *a)
{
    struct api_txn *txn = arena_zalloc(a, sizeof(*txn));

    txn->success = parse_list(at, a, &txn->success_count);
    if (**at == '|') {
        (*at)++;
        txn->failure = parse_list(at, a, &txn->failure_count);
    }
    return txn;
}

static int check_text(const char *text, uint64_t ops_max)
{
    struct arena arena;
    arena_init(&arena);
    int err = api_check_txn(parse_txn(&text, &arena), ops_max);
    arena_fini(&arena);
    return err;
}

/* --- single requests ------------------------------------------------------------------------------------------ */

Test(api_check, a_range_needs_a_key_first_and_known_sort_options_then)
{
    cr_assert_eq(api_check_range(&(struct api_range){.key = KEY("a")}), 0);
    cr_assert_eq(api_check_range(&(struct api_range){.key = KEY("a"), .sort_order = 2, .sort_target = 4}), 0);
    cr_assert_eq(api_check_range(&(struct api_range){.sort_order = 9}), E_EMPTY_KEY);
    cr_assert_eq(api_check_range(&(struct api_range){.key = KEY("a"), .sort_order = 3}), E_INVALID_SORT_OPTION);
    cr_assert_eq(api_check_range(&(struct api_range){.key = KEY("a"), .sort_order = -1}), E_INVALID_SORT_OPTION);
    cr_assert_eq(api_check_range(&(struct api_range){.key = KEY("a"), .sort_target = 5}), E_INVALID_SORT_OPTION);
    cr_assert_eq(api_check_range(&(struct api_range){.key = KEY("a"), .sort_target = -1}), E_INVALID_SORT_OPTION);
}

Test(api_check, a_put_is_asked_for_key_then_value_then_lease)
{
    struct api_put all_wrong = {.value = KEY("v"), .lease = 1, .ignore_value = true, .ignore_lease = true};

    cr_assert_eq(api_check_put(&all_wrong), E_EMPTY_KEY);
    all_wrong.key = KEY("k");
    cr_assert_eq(api_check_put(&all_wrong), E_VALUE_PROVIDED);
    all_wrong.value = SLICE_EMPTY;
    cr_assert_eq(api_check_put(&all_wrong), E_LEASE_PROVIDED);
    all_wrong.lease = 0;
    cr_assert_eq(api_check_put(&all_wrong), 0);
    cr_assert_eq(api_check_put(&(struct api_put){.key = KEY("k"), .value = KEY("v"), .lease = -5}), 0);
}

Test(api_check, a_delete_needs_a_key)
{
    cr_assert_eq(api_check_delete(&(struct api_delete){.range_end = KEY("z")}), E_EMPTY_KEY);
    cr_assert_eq(api_check_delete(&(struct api_delete){.key = KEY("z"), .range_end = KEY("a")}), 0);
}

Test(api_check, errors_carry_etcd_s_words)
{
    cr_assert_str_eq(err_text(E_EMPTY_KEY), "etcdserver: key is not provided");
    cr_assert_str_eq(err_text(E_INVALID_SORT_OPTION), "etcdserver: invalid sort option");
    cr_assert_str_eq(err_text(E_VALUE_PROVIDED), "etcdserver: value is provided");
    cr_assert_str_eq(err_text(E_LEASE_PROVIDED), "etcdserver: lease is provided");
    cr_assert_str_eq(err_text(E_KEY_NOT_FOUND), "etcdserver: key not found");
    cr_assert_str_eq(err_text(E_TOO_MANY_OPS), "etcdserver: too many operations in txn request");
    cr_assert_str_eq(err_text(E_DUPLICATE_KEY), "etcdserver: duplicate key given in txn request");
}

/* --- transactions: operations ----------------------------------------------------------------------------------- */

Test(api_check, a_transaction_may_have_as_many_operations_as_allowed_in_its_longest_list)
{
    struct api_compare compares[3] = {{.key = KEY("a")}, {.key = KEY("b")}, {.key = KEY("c")}};

    cr_assert_eq(check_text("papb|pc", 2), 0);
    cr_assert_eq(check_text("papb|pc", 1), E_TOO_MANY_OPS);
    cr_assert_eq(check_text("|rarbrc", 2), E_TOO_MANY_OPS);
    cr_assert_eq(check_text("|", 0), 0);
    cr_assert_eq(api_check_txn(&(struct api_txn){.compares = compares, .compare_count = 3}, 3), 0);
    cr_assert_eq(api_check_txn(&(struct api_txn){.compares = compares, .compare_count = 3}, 2), E_TOO_MANY_OPS);
}

Test(api_check, what_a_level_uses_is_missing_below)
{
    cr_assert_eq(check_text("(papb|)|", 3), 0);                /* 3 - 1 = 2 */
    cr_assert_eq(check_text("(papbpc|)|", 3), E_TOO_MANY_OPS); /* 3 > 2 */
    cr_assert_eq(check_text("(pa|) rb rc|", 3), E_TOO_MANY_OPS);
    cr_assert_eq(check_text("((pa|)|)|", 3), 0);
    cr_assert_eq(check_text("((papb|)|)|", 3), E_TOO_MANY_OPS);
    cr_assert_eq(check_text("(|)|", 1), 0); /* nothing is left, nothing is used */
}

Test(api_check, a_compare_needs_a_key_before_operations_are_looked_at)
{
    struct api_compare nameless = {.range_end = KEY("z")};
    struct api_request_op none = {.op = API_OP_NONE};
    struct api_txn txn = {.compares = &nameless, .compare_count = 1, .success = &none, .success_count = 1};

    cr_assert_eq(api_check_txn(&txn, 128), E_EMPTY_KEY);
    nameless.key = KEY("a");
    cr_assert_eq(api_check_txn(&txn, 128), E_KEY_NOT_FOUND);
}

Test(api_check, the_first_wrong_operation_speaks_then_before_else_and_before_duplicates)
{
    struct api_request_op success[] = {{.op = API_OP_PUT, .put = {.key = KEY("a")}},
                                       {.op = API_OP_PUT, .put = {.key = KEY("a")}}};
    struct api_request_op failure[] = {{.op = API_OP_PUT},
                                       {.op = API_OP_RANGE, .range = {.key = KEY("a"), .sort_order = 7}}};
    struct api_txn txn = {.success = success, .success_count = 2, .failure = failure, .failure_count = 2};

    cr_assert_eq(api_check_txn(&txn, 128), E_EMPTY_KEY);
    failure[0].put = (struct api_put){.key = KEY("b"), .ignore_lease = true, .lease = 1};
    cr_assert_eq(api_check_txn(&txn, 128), E_LEASE_PROVIDED);
    failure[0].put.lease = 0;
    cr_assert_eq(api_check_txn(&txn, 128), E_INVALID_SORT_OPTION);
    failure[1] = (struct api_request_op){.op = API_OP_DELETE};
    cr_assert_eq(api_check_txn(&txn, 128), E_EMPTY_KEY);
    failure[1].del.key = KEY("c");
    cr_assert_eq(api_check_txn(&txn, 128), E_DUPLICATE_KEY);
    success[1].put.key = KEY("b");
    cr_assert_eq(api_check_txn(&txn, 128), 0);
    cr_assert_eq(check_text("pa(|?)|", 128), E_KEY_NOT_FOUND);
}

/* --- transactions: duplicates ------------------------------------------------------------------------------------- */

Test(api_check, a_key_is_changed_once_on_every_way_through_a_transaction)
{
    static const struct {
        const char *txn;
        int err;
    } cases[] = {
        {"papb|papb", 0},
        {"papa|", E_DUPLICATE_KEY},
        {"|pbpapa", E_DUPLICATE_KEY},
        {"|", 0},
        {"pada|", E_DUPLICATE_KEY},
        {"dapa|", E_DUPLICATE_KEY},
        {"da|pa", 0},
        {"pcdb-d|", E_DUPLICATE_KEY},
        {"pbdb-d|", E_DUPLICATE_KEY},
        {"pddb-d|", 0}, /* the end is outside */
        {"padb-d|", 0},
        {"pzdb-*|", E_DUPLICATE_KEY},
        {"padb-*|", 0},
        {"pcdd-b|", 0},     /* an interval turned around holds nothing */
        {"pbdb-b|", 0},     /* and so does an empty one */
        {"dada-cdb-*|", 0}, /* deletes may overlap */
        {"rapara|", 0},     /* reads are free */
        {"(pa|pa)|", 0},    /* then or else, never both */
        {"(pa|da)|", 0},
        {"(papa|)|", E_DUPLICATE_KEY},
        {"(|dapa)|", E_DUPLICATE_KEY},
        {"pa(pa|)|", E_DUPLICATE_KEY},
        {"(|pa)pa|", E_DUPLICATE_KEY},
        {"pa(|da-c)|", E_DUPLICATE_KEY},
        {"da-c(|pb)|", E_DUPLICATE_KEY},
        {"(|pb)da-c|", E_DUPLICATE_KEY},
        {"(pa|)(|pa)|", E_DUPLICATE_KEY}, /* two nested ones may both run */
        {"(pa|)(|da)|", E_DUPLICATE_KEY},
        {"(pa|pb)(pc|pd)|", 0},
        {"((pa|pa)|(pa|pa))|", 0},
        {"((pa|pa)|(pa|pa))pa|", E_DUPLICATE_KEY},
        {"((pa|pb)pb|(pa|pa))|", E_DUPLICATE_KEY},
        {"((da-*|pa)|(pa|pa))|pa", 0},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        cr_assert_eq(check_text(cases[i].txn, 128), cases[i].err, "%s: %s", cases[i].txn,
                     err_name(check_text(cases[i].txn, 128)));
}

/* The rule as it is told: all pairs on all ways. What it returns are the changes that may run together. */
struct change {
    bool put;
    struct api_interval where;
};
struct changes {
    struct change at[64];
    size_t count;
};

static bool pair_collides(const struct change *x, const struct change *y)
{
    if (!x->put && !y->put)
        return false;
    return x->put ? api_interval_has(&y->where, x->where.key) : api_interval_has(&x->where, y->where.key);
}

static bool slow_branch(const struct api_request_op *ops, size_t count, struct changes *all);

/* Both branches' changes come back, having been compared each within itself. */
static bool slow_op(const struct api_request_op *op, struct changes *own)
{
    own->count = 0;
    if (op->op == API_OP_PUT)
        own->at[own->count++] = (struct change){true, api_interval(op->put.key, SLICE_EMPTY)};
    if (op->op == API_OP_DELETE)
        own->at[own->count++] = (struct change){false, api_interval(op->del.key, op->del.range_end)};
    if (op->op != API_OP_TXN)
        return false;

    struct changes other;
    if (slow_branch(op->txn->success, op->txn->success_count, own) ||
        slow_branch(op->txn->failure, op->txn->failure_count, &other))
        return true;
    memcpy(&own->at[own->count], other.at, other.count * sizeof(other.at[0]));
    own->count += other.count;
    return false;
}

static bool slow_branch(const struct api_request_op *ops, size_t count, struct changes *all)
{
    struct changes own;

    all->count = 0;
    for (size_t i = 0; i < count; i++) {
        if (slow_op(&ops[i], &own))
            return true;
        for (size_t x = 0; x < own.count; x++)
            for (size_t y = 0; y < all->count; y++)
                if (pair_collides(&own.at[x], &all->at[y]))
                    return true;
        memcpy(&all->at[all->count], own.at, own.count * sizeof(own.at[0]));
        all->count += own.count;
    }
    return false;
}

static void random_text(struct rand *r, struct buf *out, int depth, int *budget)
{
    for (int branch = 0; branch < 2; branch++) {
        for (uint64_t ops = rand_below(r, 4); ops > 0 && *budget > 0; ops--, (*budget)--) {
            uint64_t kind = rand_below(r, depth > 0 ? 5 : 3);
            char a = (char)('a' + rand_below(r, 12)), b = rand_below(r, 6) == 0 ? '*' : (char)('a' + rand_below(r, 12));

            if (kind == 0)
                buf_printf(out, "d%c-%c", a, b);
            else if (kind <= 2)
                buf_printf(out, "%c%c", kind == 1 ? 'p' : rand_below(r, 4) ? 'p' : 'd', a);
            else {
                buf_add_str(out, "(");
                random_text(r, out, depth - 1, budget);
                buf_add_str(out, ")");
            }
        }
        if (branch == 0)
            buf_add_str(out, "|");
    }
}

Test(api_check, the_sweep_finds_what_comparing_all_pairs_finds)
{
    struct rand r = seeded("api_check/sweep");
    struct buf text = BUF_INIT;
    struct arena arena;
    int found = 0, free_of = 0;
    arena_init(&arena);

    for (int i = 0; i < 30000; i++) {
        int budget = 12;
        buf_reset(&text);
        random_text(&r, &text, 3, &budget);
        buf_add_byte(&text, '\0');

        const char *at = (const char *)text.data;
        struct api_txn *txn = parse_txn(&at, &arena);
        struct changes all;
        bool slow =
            slow_branch(txn->success, txn->success_count, &all) || slow_branch(txn->failure, txn->failure_count, &all);
        int err = api_check_txn(txn, 128);
        cr_assert_eq(err, slow ? E_DUPLICATE_KEY : 0, "%s", (const char *)text.data);
        slow ? found++ : free_of++;
        arena_reset(&arena);
    }
    cr_assert(found > 1000 && free_of > 1000, "%d with, %d without", found, free_of);
    arena_fini(&arena);
    buf_fini(&text);
}

/* Half puts, half deletes of overlapping intervals, in nested transactions that exclude each other: quadratic work
 * would be 10^10 steps. */
Test(api_check, a_hundred_thousand_changes_take_a_moment)
{
    enum { COUNT = 50000 };
    static uint8_t keys[COUNT][4];
    static struct api_request_op puts[COUNT], deletes[COUNT];
    struct api_txn inner = {.success = puts, .success_count = COUNT, .failure = deletes, .failure_count = COUNT};
    struct api_request_op op = {.op = API_OP_TXN, .txn = &inner};
    struct api_txn outer = {.success = &op, .success_count = 1};

    for (size_t i = 0; i < COUNT; i++) {
        for (size_t k = 0; k < 4; k++)
            keys[i][k] = (uint8_t)(i >> (8 * (3 - k)));
        puts[i] = (struct api_request_op){.op = API_OP_PUT, .put = {.key = slice_of(keys[i], 4)}};
        deletes[i] = (struct api_request_op){.op = API_OP_DELETE,
                                             .del = {.key = slice_of(keys[i], 4), .range_end = KEY("\xff")}};
    }

    uint64_t start = clock_now_ms();
    cr_assert_eq(api_check_txn(&outer, 1000000), 0);
    cr_assert_lt(clock_now_ms() - start, 5000);

    puts[COUNT - 1].put.key = puts[0].put.key;
    cr_assert_eq(api_check_txn(&outer, 1000000), E_DUPLICATE_KEY);
}

/* --- kinds ---------------------------------------------------------------------------------------------------------
 */

static struct api_txn *txn_of(const char *text, struct arena *a)
{
    return parse_txn(&text, a);
}

Test(api_check, a_transaction_of_ranges_only_reads)
{
    struct arena a;
    arena_init(&a);

    cr_assert(api_txn_is_read_only(txn_of("rarb|rc", &a)));
    cr_assert(api_txn_is_read_only(txn_of("|", &a)));
    cr_assert(!api_txn_is_read_only(txn_of("ra|rbda", &a)));
    cr_assert(!api_txn_is_read_only(txn_of("(ra|)|", &a))); /* a nested one always goes through the log */

    struct api_txn *txn = txn_of("rarb|rc", &a);
    cr_assert(!api_txn_is_serializable(txn));
    txn->success[0].range.serializable = txn->success[1].range.serializable = true;
    cr_assert(!api_txn_is_serializable(txn));
    txn->failure[0].range.serializable = true;
    cr_assert(api_txn_is_serializable(txn));
    cr_assert(api_txn_is_serializable(txn_of("|", &a)));
    cr_assert(!api_txn_is_serializable(txn_of("|da", &a)));

    cr_assert(api_txn_has_put(txn_of("ra|(da|(|pa))", &a)));
    cr_assert(!api_txn_has_put(txn_of("ra|(da|(|db))", &a)));
    arena_fini(&a);
}

Test(api_check, intervals_follow_etcd_s_three_forms)
{
    struct api_interval one = api_interval(KEY("b"), SLICE_EMPTY), some = api_interval(KEY("b"), KEY("d"));
    struct api_interval open = api_interval(KEY("b"), SLICE_LIT("\0")), none = api_interval(KEY("d"), KEY("b"));

    cr_assert(one.single && api_interval_has(&one, KEY("b")) && !api_interval_has(&one, KEY("ba")));
    cr_assert(api_interval_has(&some, KEY("b")) && api_interval_has(&some, KEY("c\xff")));
    cr_assert(!api_interval_has(&some, KEY("d")) && !api_interval_has(&some, KEY("a")));
    cr_assert(open.open && api_interval_has(&open, KEY("\xff\xff")) && !api_interval_has(&open, KEY("a")));
    cr_assert(!api_interval_has(&none, KEY("c")) && !api_interval_has(&none, KEY("d")));
}
