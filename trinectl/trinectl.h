/* trinectl - the operator's tool: a native nng client of a gateway.
 * Prototypes grouped by file; each noun has its file. Output and exit codes follow etcdctl where the command is the
 * same: 0 done, 1 the node answered with an error, 2 it could not be reached, 3 a transaction that cannot be
 * understood, 6 the output could not be written, 128 wrong arguments. */
#ifndef TRINECTL_TRINECTL_H
#define TRINECTL_TRINECTL_H

#include <jansson.h>

#include "common/base.h"
#include "common/buf.h"

enum { EXIT_REFUSED = 1, EXIT_UNREACHABLE = 2, EXIT_INPUT = 3, EXIT_OUTPUT = 6, EXIT_USAGE = 128 };
enum output { OUTPUT_SIMPLE, OUTPUT_JSON, OUTPUT_TABLE };

struct ctl {
    const char *url;        /* of the gateway's native REP socket */
    const char *events_url; /* of its PUB socket */
    enum output output;
    unsigned timeout_ms;
    bool hex;
};

/* One command: its words, what follows them, and who does it. argv[0] is the last word of the command. */
struct command_def {
    const char *words; /* "lease grant" */
    const char *usage; /* "TTL" */
    const char *help;
    int (*run)(struct ctl *ctl, int argc, char **argv);
};
_Noreturn void usage_of(const char *words); /* prints the command's usage, exits with EXIT_USAGE */
int64_t number_of(const char *option, const char *text, int base); /* exits with EXIT_USAGE if text is not a number */

/* door.c: one request, one answer. request is taken. Exits with a message when the node refuses or cannot be reached;
 * the answer is given (json_decref). Byte strings are JSON strings that may hold any byte. */
json_t *door_call(struct ctl *ctl, const char *op, json_t *request);
/* Like door_call, but when the node refuses returns NULL with the error's text in why and gRPC's status in *code. */
json_t *door_try(struct ctl *ctl, const char *op, json_t *request, struct buf *why, int64_t *code);
/* Calls cb for each event on the PUB socket whose key starts with topic, and with NULL every second without one, until
 * cb returns false. ready runs once subscribed. */
void door_subscribe(struct ctl *ctl, struct slice topic, void (*ready)(void *arg), bool (*cb)(void *arg, json_t *event),
                    void *arg);

/* print.c */
void print_json(const json_t *answer);                          /* bytes as base64, one line */
void print_flush(void);                                         /* exits with EXIT_OUTPUT if nobody takes it */
void print_bytes(struct ctl *ctl, struct slice s);              /* raw, or \x.. with --hex; no newline */
struct slice json_bytes(const json_t *object, const char *key); /* borrowed; empty if missing */
int64_t json_number(const json_t *object, const char *key);     /* 0 if missing */
struct print_table;
struct print_table *table_new(const char *const *columns, size_t count);
void table_row(struct print_table *t, const char *const *cells);
void table_print(struct print_table *t); /* prints and frees */

/* kv.c */
int get_run(struct ctl *ctl, int argc, char **argv);
int put_run(struct ctl *ctl, int argc, char **argv);
int del_run(struct ctl *ctl, int argc, char **argv);
int compaction_run(struct ctl *ctl, int argc, char **argv);
json_t *bytes_json(struct slice s); /* a byte string as JSON */
/* "a" -> "b": the end of the prefix; {0} byte when there is none. Given. */
json_t *prefix_end_json(struct slice prefix);
void print_kv(struct ctl *ctl, const json_t *kv, bool key, bool value);

/* txn.c */
int txn_run(struct ctl *ctl, int argc, char **argv);

/* watch.c */
int watch_run(struct ctl *ctl, int argc, char **argv);

/* lease.c */
int lease_grant_run(struct ctl *ctl, int argc, char **argv);
int lease_revoke_run(struct ctl *ctl, int argc, char **argv);
int lease_timetolive_run(struct ctl *ctl, int argc, char **argv);
int lease_keep_alive_run(struct ctl *ctl, int argc, char **argv);
int lease_list_run(struct ctl *ctl, int argc, char **argv);

/* node.c */
int status_run(struct ctl *ctl, int argc, char **argv);
int health_run(struct ctl *ctl, int argc, char **argv);
int hashkv_run(struct ctl *ctl, int argc, char **argv);
int defrag_run(struct ctl *ctl, int argc, char **argv);

/* snapshot.c */
int snapshot_status_run(struct ctl *ctl, int argc, char **argv);
int snapshot_restore_run(struct ctl *ctl, int argc, char **argv);

/* member.c */
int member_list_run(struct ctl *ctl, int argc, char **argv);
int member_add_run(struct ctl *ctl, int argc, char **argv);
int member_remove_run(struct ctl *ctl, int argc, char **argv);
int member_update_run(struct ctl *ctl, int argc, char **argv);
int member_promote_run(struct ctl *ctl, int argc, char **argv);
int move_leader_run(struct ctl *ctl, int argc, char **argv);
int alarm_list_run(struct ctl *ctl, int argc, char **argv);
int alarm_disarm_run(struct ctl *ctl, int argc, char **argv);

#endif
