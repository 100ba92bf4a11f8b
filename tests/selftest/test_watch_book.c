/* watch_book: a watcher that is told everything passes; each broken guarantee is found. */
#include <criterion/criterion.h>

#include "tests/lib/watch_book.h"

static const struct lin_event history[] = {{.rev = 2, .key = 0, .value = 10},
                                           {.rev = 3, .key = 1, .value = 11},
                                           {.rev = 3, .key = 2, .value = 12},
                                           {.rev = 5, .key = 0}};

static struct watch_book *book(void)
{
    static struct watch_book b;
    watch_book_fini(&b);
    watch_book_init(&b, "watcher", 1, NULL, NULL);
    return &b;
}

Test(watch_book, who_is_told_everything_once_passes)
{
    struct watch_book *b = book();

    watch_book_message(b, 2, history, 1, true);
    watch_book_message(b, 3, &history[1], 2, true);
    watch_book_message(b, 4, NULL, 0, true);
    cr_assert_eq(b->reached, 4);
    watch_book_message(b, 5, &history[3], 1, true);
    watch_book_settle(b, history, 4);

    cr_assert_eq(b->violations, 0);
    cr_assert_eq(b->bookmarks, 1);
}

Test(watch_book, an_event_again_or_backwards_is_found)
{
    struct watch_book *b = book();

    watch_book_message(b, 2, history, 1, true);
    watch_book_message(b, 2, history, 1, true);
    cr_assert_eq(b->violations, 1);

    b = book();
    struct lin_event back[] = {history[1], history[0]};
    watch_book_message(b, 3, back, 2, true);
    cr_assert_eq(b->violations, 1);
}

Test(watch_book, a_revision_in_two_messages_is_found)
{
    struct watch_book *b = book();

    watch_book_message(b, 3, history, 2, true);
    watch_book_message(b, 3, &history[2], 1, true);

    cr_assert_eq(b->violations, 1);
}

Test(watch_book, an_event_behind_a_bookmark_is_found)
{
    struct watch_book *b = book();

    watch_book_message(b, 3, NULL, 0, true);
    watch_book_message(b, 3, &history[1], 2, true);

    cr_assert_eq(b->violations, 2);
}

Test(watch_book, a_gap_and_a_missing_end_are_found)
{
    struct watch_book *b = book();
    watch_book_message(b, 2, history, 1, true);
    watch_book_message(b, 5, &history[3], 1, true);
    watch_book_settle(b, history, 4);
    cr_assert_eq(b->violations, 1);

    b = book();
    watch_book_message(b, 3, history, 3, true);
    watch_book_settle(b, history, 4);
    cr_assert_eq(b->violations, 1);
}

Test(watch_book, an_event_from_the_future_and_a_wrong_value_are_found)
{
    struct watch_book *b = book();
    struct lin_event wrong = history[0];
    wrong.value = 99;

    watch_book_message(b, 1, &wrong, 1, true);
    cr_assert_eq(b->violations, 1);
    watch_book_settle(b, history, 1);
    cr_assert_eq(b->violations, 2);
}
