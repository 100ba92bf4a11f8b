/* test_wire - the public API as the generated descriptors know it, against spec/wire.md's tables.
 * tests/golden/wire.txt was made from those tables, not from proto/etcd: every rpc, message, field and enum value that
 * a client can meet, one per line, sorted. */
#include <criterion/criterion.h>
#include <protobuf-c/protobuf-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "etcd/auth.pb-c.h"
#include "etcd/election.pb-c.h"
#include "etcd/kv.pb-c.h"
#include "etcd/lock.pb-c.h"
#include "etcd/rpc.pb-c.h"

static const ProtobufCServiceDescriptor *const services[] = {
    &etcdserverpb__kv__descriptor,      &etcdserverpb__watch__descriptor,       &etcdserverpb__lease__descriptor,
    &etcdserverpb__cluster__descriptor, &etcdserverpb__maintenance__descriptor, &etcdserverpb__auth__descriptor,
    &v3lockpb__lock__descriptor,        &v3electionpb__election__descriptor,
};

/* What no rpc leads to: records of the store and of etcd's log. */
static const ProtobufCMessageDescriptor *const unreached[] = {
    &authpb__user__descriptor,
    &authpb__role__descriptor,
    &etcdserverpb__lease_checkpoint_request__descriptor,
    &etcdserverpb__lease_checkpoint_response__descriptor,
    &etcdserverpb__downgrade_version_test_request__descriptor,
};

struct walk {
    const void *seen[256];
    size_t seen_count;
    char *lines[1000];
    size_t line_count;
    unsigned rpcs, messages, fields, enums;
};

static bool seen_before(struct walk *w, const void *descriptor)
{
    for (size_t i = 0; i < w->seen_count; i++)
        if (w->seen[i] == descriptor)
            return true;
    cr_assert_lt(w->seen_count, ARRAY_LEN(w->seen));
    w->seen[w->seen_count++] = descriptor;
    return false;
}

static void add_line(struct walk *w, struct buf *text)
{
    cr_assert_lt(w->line_count, ARRAY_LEN(w->lines));
    w->lines[w->line_count++] = slice_dup_str(buf_slice(text));
    buf_reset(text);
}

static void walk_enum(struct walk *w, const ProtobufCEnumDescriptor *e)
{
    struct buf text = BUF_INIT;

    if (seen_before(w, e))
        return;
    w->enums++;
    for (unsigned i = 0; i < e->n_values; i++) {
        buf_printf(&text, "enum %s %s = %d", e->name, e->values[i].name, e->values[i].value);
        add_line(w, &text);
    }
    buf_fini(&text);
}

static const char *type_name(const ProtobufCFieldDescriptor *f)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT64:
        return "int64";
    case PROTOBUF_C_TYPE_UINT64:
        return "uint64";
    case PROTOBUF_C_TYPE_UINT32:
        return "uint32";
    case PROTOBUF_C_TYPE_BOOL:
        return "bool";
    case PROTOBUF_C_TYPE_STRING:
        return "string";
    case PROTOBUF_C_TYPE_BYTES:
        return "bytes";
    case PROTOBUF_C_TYPE_ENUM:
        return ((const ProtobufCEnumDescriptor *)f->descriptor)->name;
    case PROTOBUF_C_TYPE_MESSAGE:
        return ((const ProtobufCMessageDescriptor *)f->descriptor)->name;
    default:
        return "?";
    }
}

static void walk_message(struct walk *w, const ProtobufCMessageDescriptor *m)
{
    struct buf text = BUF_INIT;

    if (seen_before(w, m))
        return;
    w->messages++;
    if (m->n_fields == 0) {
        buf_printf(&text, "message %s", m->name);
        add_line(w, &text);
    }
    for (unsigned i = 0; i < m->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->fields[i];

        w->fields++;
        buf_printf(&text, "field %s.%s = %u %s%s%s", m->name, f->name, f->id,
                   f->label == PROTOBUF_C_LABEL_REPEATED ? "repeated " : "", type_name(f),
                   (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 ? " oneof" : "");
        add_line(w, &text);
        if (f->type == PROTOBUF_C_TYPE_MESSAGE)
            walk_message(w, f->descriptor);
        if (f->type == PROTOBUF_C_TYPE_ENUM)
            walk_enum(w, f->descriptor);
    }
    buf_fini(&text);
}

static int line_cmp(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static struct walk *walk_all(void)
{
    struct walk *w = calloc(1, sizeof(*w));
    struct buf text = BUF_INIT;

    for (size_t i = 0; i < ARRAY_LEN(services); i++) {
        for (unsigned k = 0; k < services[i]->n_methods; k++) {
            const ProtobufCMethodDescriptor *method = &services[i]->methods[k];
            w->rpcs++;
            buf_printf(&text, "rpc %s/%s %s %s", services[i]->name, method->name, method->input->name,
                       method->output->name);
            add_line(w, &text);
            walk_message(w, method->input);
            walk_message(w, method->output);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(unreached); i++)
        walk_message(w, unreached[i]);
    qsort(w->lines, w->line_count, sizeof(w->lines[0]), line_cmp);
    buf_fini(&text);
    return w;
}

static void walk_free(struct walk *w)
{
    for (size_t i = 0; i < w->line_count; i++)
        free(w->lines[i]);
    free(w);
}

Test(wire, nothing_is_missing_and_nothing_is_ours)
{
    struct walk *w = walk_all();

    cr_assert_eq(ARRAY_LEN(services), 8);
    cr_assert_eq(w->rpcs, 49);
    cr_assert_eq(w->messages, 117);
    cr_assert_eq(w->fields, 261);
    cr_assert_eq(w->enums, 10);
    walk_free(w);
}

Test(wire, every_name_number_and_type_is_the_spec_s)
{
    struct walk *w = walk_all();
    FILE *f = fopen("tests/golden/wire.txt", "r");
    char line[400];
    size_t at = 0;

    cr_assert_not_null(f, "run from the top of the tree");
    for (; fgets(line, sizeof(line), f) != NULL; at++) {
        line[strcspn(line, "\n")] = '\0';
        cr_assert_lt(at, w->line_count, "missing: %s", line);
        cr_assert_str_eq(w->lines[at], line);
    }
    cr_assert_eq(at, w->line_count);
    fclose(f);
    walk_free(w);
}

static unsigned number_of(const ProtobufCMessageDescriptor *m, const char *field)
{
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(m, field);

    return f != NULL ? f->id : 0;
}

Test(wire, numbers_with_gaps_and_names_of_mixed_style_are_kept)
{
    cr_assert_eq(number_of(&etcdserverpb__watch_response__descriptor, "events"), 11);
    cr_assert_eq(number_of(&etcdserverpb__compare__descriptor, "range_end"), 64);
    cr_assert_eq(number_of(&etcdserverpb__member__descriptor, "peerURLs"), 3);
    cr_assert_eq(number_of(&etcdserverpb__lease_time_to_live_response__descriptor, "grantedTTL"), 4);
    cr_assert_eq(number_of(&etcdserverpb__lease_checkpoint__descriptor, "remaining_TTL"), 2);
    cr_assert_eq(number_of(&etcdserverpb__auth_user_revoke_role_request__descriptor, "name"), 1);
    cr_assert_eq(number_of(&etcdserverpb__auth_user_revoke_role_request__descriptor, "user"), 0);
    cr_assert_eq(number_of(&authpb__permission__descriptor, "permType"), 1);
}

Test(wire, filters_are_taken_packed_and_one_by_one)
{
    static const uint8_t packed[] = {0x2a, 0x02, 0x00, 0x01}, single[] = {0x28, 0x00, 0x28, 0x01};
    Etcdserverpb__WatchCreateRequest *a = etcdserverpb__watch_create_request__unpack(NULL, sizeof(packed), packed);
    Etcdserverpb__WatchCreateRequest *b = etcdserverpb__watch_create_request__unpack(NULL, sizeof(single), single);

    cr_assert(a != NULL && a->n_filters == 2 &&
              a->filters[1] == ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NODELETE);
    cr_assert(b != NULL && b->n_filters == 2 &&
              b->filters[1] == ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NODELETE);
    etcdserverpb__watch_create_request__free_unpacked(a, NULL);
    etcdserverpb__watch_create_request__free_unpacked(b, NULL);
}
