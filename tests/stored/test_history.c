/* stored/history.c: past events of an interval, whole revisions, in order. */
#include "tests/stored/mvcc_help.h"

struct seen {
    char text[512];
};

static void on_event(void *arg, const struct mvcc_event *ev)
{
    struct seen *s = arg;
    struct api_key_value prev = {.value = S("-")};
    cr_assert(ev->prev.len == 0 || api_decode_key_value(ev->prev, &prev) == 0);
    size_t at = strlen(s->text);
    snprintf(s->text + at, sizeof(s->text) - at, "%s%lld.%d %.*s(%.*s) ", ev->is_delete ? "-" : "+", (long long)ev->main,
             ev->sub, (int)ev->key.len, (const char *)ev->key.data, (int)prev.value.len, (const char *)prev.value.data);
}

static void example(struct store *s)
{
    store_new(s);
    put(s, "a", "1"); /* 2 */
    put(s, "b", "2"); /* 3 */
    put(s, "a", "3"); /* 4 */
    delete_rq(s, (struct api_delete){.key = S("a"), .range_end = S("z")}, NULL); /* 5.0 5.1 */
    put(s, "a", "6"); /* 6 */
}

static int past(struct store *s, const char *key, const char *end, int64_t from, size_t revs, struct seen *seen, int64_t *next)
{
    struct api_interval in = api_interval(S(key), S(end));
    *seen = (struct seen){.text = ""};
    return mvcc_history(s->m, &in, from, mvcc_rev(s->m), true, revs, 1 << 20, on_event, seen, next);
}

Test(history, tells_the_events_of_an_interval_with_what_was_before)
{
    struct store s;
    struct seen seen;
    int64_t next;
    example(&s);
    cr_assert_eq(past(&s, "a", "z", 2, 100, &seen, &next), 0);
    cr_assert_str_eq(seen.text, "+2.0 a(-) +3.0 b(-) +4.0 a(1) -5.0 a(3) -5.1 b(2) +6.0 a(-) ");
    cr_assert_eq(next, 7);
    cr_assert_eq(past(&s, "b", "", 4, 100, &seen, &next), 0);
    cr_assert_str_eq(seen.text, "-5.1 b(2) ");
    cr_assert_eq(next, 7);
    store_remove(&s);
}

Test(history, stops_after_whole_revisions)
{
    struct store s;
    struct seen seen;
    int64_t next;
    example(&s);
    cr_assert_eq(past(&s, "a", "z", 4, 2, &seen, &next), 0);
    cr_assert_str_eq(seen.text, "+4.0 a(1) -5.0 a(3) -5.1 b(2) ");
    cr_assert_eq(next, 6);
    struct api_interval all = api_interval(S("a"), S("z"));
    seen.text[0] = '\0';
    cr_assert_eq(mvcc_history(s.m, &all, 5, 6, false, 100, 1, on_event, &seen, &next), 0);
    cr_assert_str_eq(seen.text, "-5.0 a(-) -5.1 b(-) ", "bytes are full in the middle of a revision");
    cr_assert_eq(next, 6);
    store_remove(&s);
}

Test(history, from_below_the_compacted_revision_is_refused_and_at_it_is_fine)
{
    struct store s;
    struct seen seen;
    int64_t next;
    example(&s);
    compact(&s, 5);
    compact_physically(&s);
    cr_assert_eq(past(&s, "a", "z", 4, 100, &seen, &next), E_COMPACTED);
    cr_assert_str_eq(seen.text, "");
    cr_assert_eq(past(&s, "a", "z", 5, 100, &seen, &next), 0);
    cr_assert_str_eq(seen.text, "-5.0 a(-) -5.1 b(-) +6.0 a(-) ", "the deletes at it are still told");
    store_remove(&s);
}

Test(history, from_the_future_gives_nothing)
{
    struct store s;
    struct seen seen;
    int64_t next;
    example(&s);
    cr_assert_eq(past(&s, "a", "z", 7, 100, &seen, &next), 0);
    cr_assert_eq(next, 7);
    cr_assert_str_eq(seen.text, "");
    store_remove(&s);
}
