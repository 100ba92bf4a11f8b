/* alarm - what is wrong with a member, as all members know it: a short list, replicated and kept in the store.
 * From apply.c (raise, clear), read.c (list) the tick of upkeep.c (is there room?), and in.c (raftd found that a member
 * has another state). Rules: spec/semantics.md §15.
 * NOSPACE is raised by a proposal, not on the spot, so that every member refuses from the same entry on. One that was raised
 * for the quota stays until somebody disarms it, as etcd's does. One that was raised for the disk is no decision of anybody's:
 * the member that raised it takes it back when the disk has room again. */
#include "stored/stored.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/pb.h"

enum alarm_action { ALARM_GET = 0, ALARM_ACTIVATE = 1, ALARM_DEACTIVATE = 2 };

/* AlarmRequest is etcd's: 1 action, 2 memberID, 3 alarm. This field is ours, in requests that stored makes. */
#define ALARM_FIELD_BY_DISK 100

struct alarm {
    uint64_t member;
    enum alarm_kind kind;
    bool by_disk; /* no part of its identity */
};

/* Sorted by (member, kind). At most two kinds per member. */
struct alarms {
    struct alarm *list;
    size_t count;
    size_t by_kind[3];     /* how many of each kind */
    uint64_t proposed_ms;  /* when NOSPACE was proposed last; 0: not, or it came back */
    struct alarm corrupt;  /* CORRUPT as it was proposed last, and when */
    uint64_t corrupt_ms;
};

struct alarm_key { /* key of META_ALARM, big endian; the value is empty, or BY_DISK */
    uint64_t member, kind;
};
#define BY_DISK SLICE_LIT("disk")

const char *alarm_name(enum alarm_kind kind)
{
    static const char *const names[] = {"NONE", "NOSPACE", "CORRUPT"};

    return names[kind];
}

static int alarm_cmp(const struct alarm *a, const struct alarm *b)
{
    if (a->member != b->member)
        return a->member < b->member ? -1 : 1;
    return (int)a->kind - (int)b->kind;
}

/* Position of a, or where it would stand. */
static size_t alarm_find(const struct alarms *as, const struct alarm *a, bool *found)
{
    size_t i = 0;

    while (i < as->count && alarm_cmp(&as->list[i], a) < 0)
        i++;
    *found = i < as->count && alarm_cmp(&as->list[i], a) == 0;
    return i;
}

static void alarm_insert(struct alarms *as, size_t pos, struct alarm a)
{
    as->list = xrealloc(as->list, (as->count + 1) * sizeof *as->list);
    memmove(as->list + pos + 1, as->list + pos, (as->count - pos) * sizeof *as->list);
    as->list[pos] = a;
    as->count++;
    as->by_kind[a.kind]++;
}

static int load_one(void *arg, struct slice key, struct slice value)
{
    struct alarms *as = arg;
    struct alarm_key k;
    struct alarm a;
    bool found;
    size_t pos;

    if (key.len != sizeof k)
        fatalx("alarm: damaged record in the store, key of %zu bytes", key.len);
    memcpy(&k, key.data, sizeof k);
    a = (struct alarm){be64toh(k.member), (enum alarm_kind)be64toh(k.kind), slice_eq(value, BY_DISK)};
    if (a.kind != ALARM_NOSPACE && a.kind != ALARM_CORRUPT)
        fatalx("alarm: damaged record in the store, kind %llu", (unsigned long long)be64toh(k.kind));
    pos = alarm_find(as, &a, &found);
    must(!found);
    alarm_insert(as, pos, a);
    log_warnx("alarm: %s of member %llx is active", alarm_name(a.kind), (unsigned long long)a.member);
    return 0;
}

void alarm_load(struct stored *s)
{
    s->alarms = xcalloc(1, sizeof *s->alarms);
    if (mvcc_meta_each(s->mvcc, META_ALARM, load_one, s->alarms) != 0)
        fatalx("alarm: alarms cannot be read from the store");
}

void alarm_fini(struct stored *s)
{
    if (s->alarms)
        free(s->alarms->list);
    free(s->alarms);
    s->alarms = NULL;
}

bool alarm_active(const struct stored *s, enum alarm_kind kind)
{
    return s->alarms->by_kind[kind] > 0;
}

void alarm_each(const struct stored *s, void (*cb)(void *arg, uint64_t member, enum alarm_kind kind), void *arg)
{
    for (size_t i = 0; i < s->alarms->count; i++)
        cb(arg, s->alarms->list[i].member, s->alarms->list[i].kind);
}

struct alarm_request {
    uint64_t action, member, kind, by_disk;
};

static int alarm_decode(struct slice body, struct alarm_request *rq)
{
    struct pb_field f;
    int got;

    *rq = (struct alarm_request){0};
    while ((got = pb_next(&body, &f)) == 1) {
        if (f.wire != PB_VARINT)
            continue;
        if (f.number == 1)
            rq->action = f.varint;
        if (f.number == 2)
            rq->member = f.varint;
        if (f.number == 3)
            rq->kind = f.varint;
        if (f.number == ALARM_FIELD_BY_DISK)
            rq->by_disk = f.varint;
    }
    if (got == 0 && rq->kind > ALARM_CORRUPT)
        return E_INVALID;
    return got;
}

/* AlarmResponse.alarms: AlarmMember { 1 memberID, 2 alarm }. */
static void alarm_add(struct buf *out, const struct alarm *a)
{
    struct buf m = BUF_INIT;

    pb_add_uint(&m, 1, a->member);
    pb_add_uint(&m, 2, (uint64_t)a->kind);
    pb_add_message(out, 2, buf_slice(&m));
    buf_fini(&m);
}

static void alarm_raise(struct stored *s, struct alarm a)
{
    struct alarm_key k = {htobe64(a.member), htobe64((uint64_t)a.kind)};
    bool found;
    size_t pos = alarm_find(s->alarms, &a, &found);

    if (found)
        return;
    alarm_insert(s->alarms, pos, a);
    mvcc_meta_put(s->mvcc, META_ALARM, slice_of(&k, sizeof k), a.by_disk ? BY_DISK : SLICE_EMPTY);
    mvcc_chain_add(s->mvcc, META_ALARM, a.member, (uint64_t)a.kind);
    log_warnx("alarm: %s raised for member %llx", alarm_name(a.kind), (unsigned long long)a.member);
}

/* True if it was active. */
static bool alarm_clear(struct stored *s, struct alarm a)
{
    struct alarms *as = s->alarms;
    struct alarm_key k = {htobe64(a.member), htobe64((uint64_t)a.kind)};
    bool found;
    size_t pos = alarm_find(as, &a, &found);

    if (!found)
        return false;
    memmove(as->list + pos, as->list + pos + 1, (as->count - pos - 1) * sizeof *as->list);
    as->count--;
    as->by_kind[a.kind]--;
    mvcc_meta_delete(s->mvcc, META_ALARM, slice_of(&k, sizeof k));
    mvcc_chain_add(s->mvcc, META_ALARM, a.member, ALARM_NONE);
    log_info("alarm: %s cleared for member %llx", alarm_name(a.kind), (unsigned long long)a.member);
    return true;
}

int alarm_apply(struct stored *s, struct slice body, struct buf *out)
{
    struct alarm_request rq;
    struct alarm a;
    int err = alarm_decode(body, &rq);

    if (err)
        return err;
    if (rq.action != ALARM_ACTIVATE && rq.action != ALARM_DEACTIVATE)
        return alarm_get(s, body, out);
    a = (struct alarm){rq.member, (enum alarm_kind)rq.kind, rq.by_disk != 0};
    mvcc_add_header(s->mvcc, out, -1);
    if (a.kind == ALARM_NONE) /* no-op, and the list stays empty */
        return 0;
    if (rq.action == ALARM_ACTIVATE) {
        alarm_raise(s, a);
        alarm_add(out, &a);
    } else if (alarm_clear(s, a)) {
        alarm_add(out, &a);
    }
    if (a.kind == ALARM_NOSPACE && a.member == s->member_id)
        s->alarms->proposed_ms = 0;
    if (a.kind == ALARM_CORRUPT)
        s->alarms->corrupt_ms = 0;
    return 0;
}

int alarm_get(struct stored *s, struct slice body, struct buf *out)
{
    const struct alarms *as = s->alarms;
    struct alarm_request rq;
    int err = alarm_decode(body, &rq);

    if (err)
        return err;
    mvcc_add_header(s->mvcc, out, -1);
    for (size_t i = 0; i < as->count; i++)
        if ((rq.member == 0 || rq.member == as->list[i].member) &&
            (rq.kind == ALARM_NONE || rq.kind == as->list[i].kind))
            alarm_add(out, &as->list[i]);
    return 0;
}

uint64_t alarm_quota(const struct stored *s)
{
    if (s->conf->quota_backend_bytes < 0)
        return 0;
    return s->conf->quota_backend_bytes ? (uint64_t)s->conf->quota_backend_bytes : QUOTA_BYTES_DEFAULT;
}

static bool over_quota(struct stored *s)
{
    struct mvcc_stats stats;
    uint64_t quota = alarm_quota(s);

    mvcc_get_stats(s->mvcc, &stats);
    return quota && stats.disk_bytes > quota;
}

static void propose_alarm(struct stored *s, enum alarm_action action, struct alarm a)
{
    struct buf body = BUF_INIT;

    pb_add_uint(&body, 1, action);
    pb_add_uint(&body, 2, a.member);
    pb_add_uint(&body, 3, a.kind);
    if (a.by_disk)
        pb_add_uint(&body, ALARM_FIELD_BY_DISK, 1);
    out_propose(s, COMMAND_ALARM, buf_slice(&body));
    buf_fini(&body);
}

/* NOSPACE on this member. */
static void propose(struct stored *s, enum alarm_action action, bool by_disk, uint64_t now_ms)
{
    s->alarms->proposed_ms = MAX(now_ms, 1);
    propose_alarm(s, action, (struct alarm){s->member_id, ALARM_NOSPACE, by_disk});
}

void alarm_differs(struct stored *s, uint64_t member, uint64_t now_ms)
{
    struct alarms *as = s->alarms;
    struct alarm a = {.member = member, .kind = ALARM_CORRUPT};
    bool found, asked = as->corrupt_ms && now_ms - as->corrupt_ms < ALARM_ATTEMPT_MS;

    alarm_find(as, &a, &found);
    if (found || !stored_is_leader(s) || (asked && alarm_cmp(&a, &as->corrupt) == 0))
        return;
    as->corrupt = a;
    as->corrupt_ms = MAX(now_ms, 1);
    log_error("alarm: member %llx has another state than this one: proposing CORRUPT", (unsigned long long)member);
    propose_alarm(s, ALARM_ACTIVATE, a);
}

void alarm_check_space(struct stored *s, uint64_t now_ms)
{
    struct alarm own = {.member = s->member_id, .kind = ALARM_NOSPACE};
    struct alarms *as = s->alarms;
    bool found;
    size_t pos;

    if (!s->raft_up || !s->leader || !s->member_id)
        return;
    if (as->proposed_ms && now_ms - as->proposed_ms < ALARM_ATTEMPT_MS)
        return;
    pos = alarm_find(as, &own, &found);
    if (found && as->list[pos].by_disk && !over_quota(s) && space_state(s) == SPACE_AMPLE) {
        log_info("alarm: the disk has room again: proposing the end of NOSPACE");
        propose(s, ALARM_DEACTIVATE, false, now_ms);
    } else if (!found && over_quota(s)) {
        log_warnx("alarm: the store is larger than quota-backend-bytes: proposing NOSPACE");
        propose(s, ALARM_ACTIVATE, false, now_ms);
    } else if (!found && space_state(s) == SPACE_FULL) {
        log_warnx("alarm: the disk is nearly full: proposing NOSPACE");
        propose(s, ALARM_ACTIVATE, true, now_ms);
    }
}
