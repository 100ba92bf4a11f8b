/* err: the list is complete, texts are etcd's, and numbers from outside cannot lead astray. */
#include <criterion/criterion.h>
#include <limits.h>

#include "common/err.h"

Test(err, names_texts_and_statuses_come_from_one_row)
{
    cr_assert_str_eq(err_name(E_EMPTY_KEY), "E_EMPTY_KEY");
    cr_assert_str_eq(err_text(E_EMPTY_KEY), "etcdserver: key is not provided");
    cr_assert_eq(err_grpc_status(E_EMPTY_KEY), 3);
    cr_assert_str_eq(err_text(E_COMPACTED), "etcdserver: mvcc: required revision has been compacted");
    cr_assert_eq(err_grpc_status(E_COMPACTED), 11);
    cr_assert_str_eq(err_name(OK), "OK");
    cr_assert_eq(err_grpc_status(OK), 0);
}

Test(err, every_row_is_filled_and_its_status_is_one_of_grpc)
{
    for (int number = 1; number < ERR_NUMBER_COUNT; number++) {
        cr_assert_eq(err_name(-number)[0], 'E');
        cr_assert_gt(err_text(-number)[0], 0);
        cr_assert(err_grpc_status(-number) >= 1 && err_grpc_status(-number) <= 16, "%s", err_name(-number));
    }
}

Test(err, a_code_that_is_not_in_the_list_reads_as_malformed)
{
    int strangers[] = {1, INT_MAX, INT_MIN, -(int)ERR_NUMBER_COUNT, -(int)ERR_NUMBER_COUNT - 1};

    for (size_t i = 0; i < ARRAY_LEN(strangers); i++)
        cr_assert_str_eq(err_name(strangers[i]), "E_MALFORMED", "%d", strangers[i]);
    cr_assert_str_neq(err_name(-(int)ERR_NUMBER_COUNT + 1), "OK");
}

Test(err, numbers_of_other_processes_become_codes_or_malformed)
{
    cr_assert_eq(err_from_number(0), OK);
    cr_assert_eq(err_from_number(1), E_EMPTY_KEY);
    for (uint64_t number = 0; number < ERR_NUMBER_COUNT; number++)
        cr_assert_eq(err_from_number(number), -(int)number);

    cr_assert_eq(err_from_number(ERR_NUMBER_COUNT), E_MALFORMED);
    cr_assert_eq(err_from_number((uint64_t)1 << 32 | 1), E_MALFORMED);
    cr_assert_eq(err_from_number(UINT64_MAX), E_MALFORMED);
}
