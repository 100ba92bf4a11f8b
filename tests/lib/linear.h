/* linear - is a recorded history of operations what a single correct store could have answered? Two checks that know
 * nothing of each other:
 *
 *   lin_check_revisions   by witness: revisions order all changes, the events of the keys (lin_event) say what each
 *                         changed. Every answer must fit the events, and the order of revisions must fit real time,
 *                         over all keys together.
 *   lin_check_registers   by search (Wing and Gong, with Lowe's memory of what was tried): each key is a register.
 *                         Looks only at values and at when operations began and ended, so that wrong revisions and
 *                         wrong events do not mislead it.
 *
 * Values are numbers that are written once in a history; 0 means that the key is absent. Time is a counter that goes up
 * with every beginning and every end. An operation that failed, timed out or lost its connection never ended: it may
 * have happened at any time after it was called, or not at all. Keys are absent before the history. */
#ifndef TESTS_LIB_LINEAR_H
#define TESTS_LIB_LINEAR_H

#include "common/base.h"

#define LIN_OPEN UINT64_MAX

enum lin_kind { LIN_GET, LIN_SERIAL_GET, LIN_PUT, LIN_CAS, LIN_DELETE };

struct lin_op {
    enum lin_kind kind;
    int key;
    int place;              /* which endpoint, for reports */
    uint64_t called, ended; /* LIN_OPEN: no answer */
    uint64_t value;         /* PUT, CAS: what it writes */
    uint64_t expected;      /* CAS: what must be there */
    bool done;              /* CAS: it was; DELETE: there was something */
    bool told;              /* found means something */
    uint64_t found;         /* GETs, a CAS in vain: what was there; PUT: what was there before */
    int64_t rev;            /* of the answer's header */
    int64_t found_rev;      /* mod_revision of what was found; 0: absent */
};

/* A change of one key, as watchers are told. In order of rev. */
struct lin_event {
    int64_t rev;
    int key;
    uint64_t value; /* 0: deleted */
    bool has_prev;
    uint64_t prev;
    int64_t prev_rev;
};

typedef void lin_report_fn(void *arg, const char *text);

/* Both return the number of violations, each reported in words. */
uint64_t lin_check_revisions(const struct lin_op *ops, size_t op_count, const struct lin_event *events,
                             size_t event_count, lin_report_fn *report, void *arg);
/* undecided (may be NULL) counts the keys whose search took more than steps_max steps. */
uint64_t lin_check_registers(const struct lin_op *ops, size_t op_count, uint64_t steps_max, uint64_t *undecided,
                             lin_report_fn *report, void *arg);

#endif
