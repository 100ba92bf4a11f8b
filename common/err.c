/* err - the list of err.h as tables. Row 0 is OK; a row's position is the positive number of its code. */
#include "common/err.h"

struct err_row {
    const char *name;
    const char *text;
    int grpc_status;
};

static const struct err_row rows[ERR_NUMBER_COUNT] = {{"OK", "ok", 0},
#define ERR_ROW(name, status, text) {#name, text, status},
                                                      ERRORS(ERR_ROW)
#undef ERR_ROW
};

/* Callers may hold a number that came over a link: what is not in the list is a malformed answer. */
static const struct err_row *row_of(int err)
{
    if (err > 0 || err <= -(int)ERR_NUMBER_COUNT)
        err = E_MALFORMED;
    return &rows[-err];
}

const char *err_name(int err)
{
    return row_of(err)->name;
}

const char *err_text(int err)
{
    return row_of(err)->text;
}

int err_grpc_status(int err)
{
    return row_of(err)->grpc_status;
}

int err_from_number(uint64_t number)
{
    return number < ERR_NUMBER_COUNT ? -(int)number : E_MALFORMED;
}
