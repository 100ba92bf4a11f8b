/* rows - see rows.h. Two kinds of buckets: those that are a table of LevelDB under another form (key, lease, authRoles, authUsers)
 * are walked by an iterator; the others are a handful of rows, made at the beginning and kept sorted. */
#include "stored/rows.h"

#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/pb.h"
#include "stored/bolt.h"
#include "stored/mvcc_inner.h"
#include "stored/stored.h"

/* Fields of authpb.User from this one on are not etcd's (auth.h). */
#define AUTH_FIELD_OURS 100

/* Ordered as their names are. */
enum bucket_id {
    BUCKET_ALARM,
    BUCKET_AUTH,
    BUCKET_AUTH_ROLES,
    BUCKET_AUTH_USERS,
    BUCKET_CLUSTER,
    BUCKET_KEY,
    BUCKET_LEASE,
    BUCKET_MEMBERS,
    BUCKET_MEMBERS_REMOVED,
    BUCKET_META,
    BUCKET_COUNT
};

struct pair {
    struct buf key, value;
};

struct few { /* rows of a small bucket */
    struct pair *list;
    size_t count, cap;
};

struct rows {
    struct mvcc *m;
    struct db_snapshot *view;
    uint64_t index;
    int64_t rev;
    struct few few[BUCKET_COUNT];

    enum bucket_id at;
    bool named;         /* the bucket at `at` was given */
    size_t next;        /* its next row in few */
    struct db_iter *it; /* on its next row in LevelDB; NULL: to be made */
    bool given;         /* the iterator's row is in the caller's hands */
    uint8_t key[ROWS_KEY_BYTES_MAX]; /* the given row's, if the store has another form of it */
    struct buf value;
};

/* --- the small ones --------------------------------------------------------------------------------------- */

static struct pair *few_add(struct rows *r, enum bucket_id id)
{
    struct few *f = &r->few[id];

    if (f->count == f->cap) {
        f->cap = f->cap ? f->cap * 2 : 8;
        f->list = xrealloc(f->list, f->cap * sizeof *f->list);
    }
    f->list[f->count] = (struct pair){BUF_INIT, BUF_INIT};
    return &f->list[f->count++];
}

static void few_add_number(struct rows *r, enum bucket_id id, const char *name, uint64_t number)
{
    struct pair *p = few_add(r, id);

    buf_add_str(&p->key, name);
    rev_store64(buf_extend(&p->value, 8), number);
}

static void few_add_revision(struct rows *r, const char *name, int64_t main)
{
    struct pair *p = few_add(r, BUCKET_META);

    buf_add_str(&p->key, name);
    rev_store64(buf_extend(&p->value, 8), (uint64_t)main);
    buf_add_byte(&p->value, '_');
    rev_store64(buf_extend(&p->value, 8), 0);
}

static int pair_cmp(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;

    return slice_cmp(buf_slice(&x->key), buf_slice(&y->key));
}

static void few_sort(struct rows *r)
{
    for (size_t i = 0; i < BUCKET_COUNT; i++)
        if (r->few[i].count > 1)
            qsort(r->few[i].list, r->few[i].count, sizeof *r->few[i].list, pair_cmp);
}

/* One of mvcc's numbers as of the view: 0, E_NOT_FOUND, E_DAMAGED, E_IO. */
static int view_number(struct rows *r, char kind, size_t len, uint64_t *first, uint64_t *second)
{
    const uint8_t key[2] = {META_OWN, (uint8_t)kind};
    struct buf value = BUF_INIT;
    int err = db_get(r->m->db, r->view, slice_of(key, sizeof key), &value);

    if (!err && value.len != len)
        err = E_DAMAGED;
    if (!err) {
        *first = rev_load64(value.data);
        if (second)
            *second = rev_load64(value.data + 8);
    }
    buf_fini(&value);
    return err;
}

static int alarms_make(struct rows *r)
{
    const uint8_t prefix = META_ALARM;
    struct db_iter *it = db_iter_new(r->m->db, r->view, true);
    struct slice key, value;

    for (db_iter_seek(it, slice_of(&prefix, 1)); db_iter_get(it, &key, &value) && key.data[0] == prefix;
         db_iter_next(it)) {
        if (key.len != 17)
            continue;
        struct pair *p = few_add(r, BUCKET_ALARM);
        pb_add_uint(&p->key, 1, rev_load64(key.data + 1));
        pb_add_uint(&p->key, 2, rev_load64(key.data + 9));
    }
    int err = db_iter_status(it);
    db_iter_free(it);
    return err;
}

/* Member: 1 ID, 5 is a learner. */
static int member_add(struct slice member, struct buf *voters, struct buf *learners)
{
    uint64_t id = 0, learner = 0;
    struct pb_field f;
    int got;

    while ((got = pb_next(&member, &f)) == 1) {
        if (f.number == 1 && f.wire == PB_VARINT)
            id = f.varint;
        if (f.number == 5 && f.wire == PB_VARINT)
            learner = f.varint;
    }
    if (got < 0)
        return E_MALFORMED;
    struct buf *ids = learner ? learners : voters;
    buf_printf(ids, "%s%llu", ids->len ? "," : "", (unsigned long long)id);
    return 0;
}

static int conf_state_make(struct rows *r, const struct rows_facts *facts)
{
    struct buf voters = BUF_INIT, learners = BUF_INIT;
    struct slice rest = facts->members;
    struct pb_field f;
    int got, err = 0;

    while (!err && (got = pb_next(&rest, &f)) != 0) {
        if (got < 0)
            err = E_MALFORMED;
        else if (f.number == 2 && f.wire == PB_BYTES)
            err = member_add(f.bytes, &voters, &learners);
    }
    if (!voters.len)
        buf_printf(&voters, "%llu", (unsigned long long)facts->member_id);
    struct pair *p = few_add(r, BUCKET_META);
    buf_add_str(&p->key, "confState");
    buf_printf(&p->value, "{\"voters\":[%.*s]", (int)voters.len, (const char *)voters.data);
    if (learners.len)
        buf_printf(&p->value, ",\"learners\":[%.*s]", (int)learners.len, (const char *)learners.data);
    buf_add_str(&p->value, ",\"auto_leave\":false}");
    buf_fini(&voters);
    buf_fini(&learners);
    return err;
}

static int auth_make(struct rows *r)
{
    const uint8_t key[] = {META_AUTH, 's', 't', 'a', 't', 'e'};
    struct buf state = BUF_INIT;
    int err = db_get(r->m->db, r->view, slice_of(key, sizeof key), &state);

    if (!err && state.len != 16)
        err = E_DAMAGED;
    if (!err) {
        struct pair *p = few_add(r, BUCKET_AUTH);
        buf_add_str(&p->key, "authEnabled");
        buf_add_byte(&p->value, rev_load64(state.data) != 0);
        few_add_number(r, BUCKET_AUTH, "authRevision", rev_load64(state.data + 8));
    }
    buf_fini(&state);
    return err == E_NOT_FOUND ? 0 : err;
}

static int meta_make(struct rows *r, const struct rows_facts *facts)
{
    uint64_t rev = 1, scheduled = 0, finished = 0;
    int err = view_number(r, 'a', 16, &r->index, &rev);

    if (err == E_NOT_FOUND)
        err = 0; /* nothing was applied yet */
    r->rev = (int64_t)rev;
    few_add_number(r, BUCKET_META, "consistent_index", r->index);
    few_add_number(r, BUCKET_META, "term", facts->term);
    if (!err && (err = view_number(r, 'c', 8, &scheduled, NULL)) == 0)
        few_add_revision(r, "scheduledCompactRev", (int64_t)scheduled);
    if ((!err || err == E_NOT_FOUND) && (err = view_number(r, 's', 8, &finished, NULL)) == 0)
        few_add_revision(r, "finishedCompactRev", (int64_t)finished);
    return err == E_NOT_FOUND ? 0 : err;
}

int rows_open(struct mvcc *m, const struct rows_facts *facts, struct rows **out)
{
    struct rows *r = xcalloc(1, sizeof *r);

    r->m = m;
    r->view = db_snapshot_new(m->db);
    int err = meta_make(r, facts);
    if (!err)
        err = alarms_make(r);
    if (!err)
        err = auth_make(r);
    if (!err)
        err = conf_state_make(r, facts);
    if (err) {
        rows_close(r);
        return err;
    }
    few_sort(r);
    *out = r;
    return 0;
}

/* --- tables of LevelDB ---------------------------------------------------------------------------------------- */

static char table_of(enum bucket_id id)
{
    switch (id) {
    case BUCKET_AUTH_ROLES:
        return META_ROLE;
    case BUCKET_AUTH_USERS:
        return META_USER;
    case BUCKET_KEY:
        return REV_PREFIX;
    case BUCKET_LEASE:
        return META_LEASE;
    default:
        return 0;
    }
}

static int key_row(struct rows *r, struct slice key, struct slice record, struct row *row)
{
    struct api_key_value kv;
    int64_t main;
    int32_t sub;
    bool tombstone;
    int err = record_decode(r->m, key, record, &kv);

    if (err || (err = rev_key_decode(key, &main, &sub, &tombstone)) != 0)
        return err;
    rev_store64(r->key, (uint64_t)main);
    r->key[8] = '_';
    rev_store64(r->key + 9, (uint64_t)sub);
    r->key[17] = 't';
    row->key = slice_of(r->key, tombstone ? 18 : 17);
    row->value = record;
    if (tombstone) {
        buf_reset(&r->value);
        pb_add_bytes(&r->value, 1, kv.key);
        row->value = buf_slice(&r->value);
    }
    return 1;
}

static int lease_row(struct rows *r, struct slice key, struct slice value, struct row *row)
{
    if (key.len != 9 || value.len != 16) {
        log_error("backup: %s: the record of a lease is damaged", db_dir(r->m->db));
        return E_DAMAGED;
    }
    buf_reset(&r->value);
    pb_add_uint(&r->value, 1, rev_load64(key.data + 1));
    pb_add_uint(&r->value, 2, rev_load64(value.data));
    row->key = slice_of(key.data + 1, 8);
    row->value = buf_slice(&r->value);
    return 1;
}

/* A role or a user, without the fields that are ours. */
static int name_row(struct rows *r, struct slice key, struct slice value, struct row *row)
{
    struct slice rest = value;
    struct pb_field f;
    int got;

    buf_reset(&r->value);
    for (;;) {
        const uint8_t *from = rest.data;

        if ((got = pb_next(&rest, &f)) != 1)
            break;
        if (f.number < AUTH_FIELD_OURS)
            buf_add(&r->value, from, (size_t)(rest.data - from));
    }
    if (got < 0) {
        log_error("backup: %s: the record of a user or a role is damaged", db_dir(r->m->db));
        return E_DAMAGED;
    }
    row->key = slice_of(key.data + 1, key.len - 1);
    row->value = buf_slice(&r->value);
    return 1;
}

/* 1; 0: the table is at its end. */
static int table_next(struct rows *r, char prefix, struct row *row)
{
    struct slice key, value;

    if (!r->it) {
        r->it = db_iter_new(r->m->db, r->view, true);
        db_iter_seek(r->it, slice_of(&prefix, 1));
    } else if (r->given) {
        db_iter_next(r->it);
    }
    r->given = true;
    if (!db_iter_get(r->it, &key, &value))
        return db_iter_status(r->it);
    if (key.data[0] != (uint8_t)prefix)
        return 0;
    if (r->at == BUCKET_KEY)
        return key_row(r, key, value, row);
    return r->at == BUCKET_LEASE ? lease_row(r, key, value, row) : name_row(r, key, value, row);
}

/* --- all ---------------------------------------------------------------------------------------------------------- */

static struct slice bucket_name(enum bucket_id id)
{
    static const char *const names[BUCKET_COUNT] = {"alarm", "auth",  "authRoles", "authUsers",       "cluster",
                                                    "key",   "lease", "members",   "members_removed", "meta"};

    return slice_str(names[id]);
}

static int bucket_next(struct rows *r, struct row *row)
{
    const struct few *f = &r->few[r->at];

    if (table_of(r->at))
        return table_next(r, table_of(r->at), row);
    if (r->next == f->count)
        return 0;
    row->key = buf_slice(&f->list[r->next].key);
    row->value = buf_slice(&f->list[r->next].value);
    r->next++;
    return 1;
}

static void bucket_leave(struct rows *r)
{
    db_iter_free(r->it);
    r->it = NULL;
    r->given = r->named = false;
    r->next = 0;
}

int rows_next(struct rows *r, struct row *row)
{
    while (r->at < BUCKET_COUNT) {
        *row = (struct row){.is_bucket = !r->named, .key = bucket_name(r->at)};
        if (!r->named) {
            r->named = true;
            return 1;
        }
        int got = bucket_next(r, row);
        if (got != 0)
            return got;
        bucket_leave(r);
        r->at++;
    }
    return 0;
}

void rows_rewind(struct rows *r)
{
    bucket_leave(r);
    r->at = 0;
}

void rows_close(struct rows *r)
{
    if (!r)
        return;
    bucket_leave(r);
    for (size_t i = 0; i < BUCKET_COUNT; i++) {
        for (size_t k = 0; k < r->few[i].count; k++) {
            buf_fini(&r->few[i].list[k].key);
            buf_fini(&r->few[i].list[k].value);
        }
        free(r->few[i].list);
    }
    db_snapshot_free(r->m->db, r->view);
    buf_fini(&r->value);
    free(r);
}

int64_t rows_rev(const struct rows *r)
{
    return r->rev;
}

uint64_t rows_index(const struct rows *r)
{
    return r->index;
}

int rows_hash(struct mvcc *m, uint32_t *hash, int64_t *rev)
{
    const struct rows_facts nobody = {0};
    struct rows *r;
    struct row row;
    int got = rows_open(m, &nobody, &r);

    if (got)
        return got;
    *hash = 0;
    *rev = rows_rev(r);
    while ((got = rows_next(r, &row)) == 1) {
        if (r->at == BUCKET_META || r->at == BUCKET_MEMBERS || r->at == BUCKET_CLUSTER)
            continue;
        *hash = crc32c(*hash, row.key.data, row.key.len);
        *hash = crc32c(*hash, row.value.data, row.value.len);
    }
    rows_close(r);
    return got;
}
