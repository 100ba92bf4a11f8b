/* flags - etcd's flags as this program takes them: one table of names, types and what they mean here, and the values that were set.
 * Syntax and words of refusals are those of etcd (which takes them from Go's flag package). Where a value comes from is flags.c
 * (command line), env.c (ETCD_*), file.c (--config-file); what values must be together is check.c. */
#ifndef DROPIN_FLAGS_H
#define DROPIN_FLAGS_H

#include "common/base.h"
#include "common/buf.h"

enum flag_type {
    FLAG_STR,
    FLAG_LIST, /* comma list; a sequence of strings in the file if `sequence`, else a string too */
    FLAG_URLS,
    FLAG_UINT,
    FLAG_INT,
    FLAG_BOOL,
    FLAG_DUR, /* Go duration; a number of nanoseconds in the file */
    FLAG_GONE /* accepted and ignored, as in etcd */
};

enum flag_use {
    USE_KEY,     /* a key of common/conf.h has this name and meaning */
    USE_HERE,    /* this program's own business */
    USE_NOTHING, /* means nothing here: said when it is set */
    USE_GONE     /* etcd ignores it, too */
};

struct flag {
    const char *name;
    enum flag_type type;
    enum flag_use use;
    const char *def;
    bool top;              /* a key of the file's top level */
    bool sequence;         /* a list that is a sequence in the file */
    const char *const *choices; /* NULL-terminated; NULL: any */
    const char *help;      /* NULL: that of the key */
};

enum flag_source { SET_NOT, SET_FLAG, SET_ENV, SET_FILE };

#define FLAGS_MAX 160

struct flags {
    char *value[FLAGS_MAX]; /* normalised: 0x10 is 16, t is true, 1.5s is 1500ms; NULL: not set */
    enum flag_source source[FLAGS_MAX];
};

extern const struct flag flag_table[];
extern const size_t flag_count;

/* flag_count if there is none. */
size_t flag_find(struct slice name);

void flags_fini(struct flags *f);
/* Sets flag i from text. Otherwise appends Go's bare reason ("parse error") and returns E_INVALID. */
int flags_set(struct flags *f, size_t i, const char *text, enum flag_source source, struct buf *why);
/* The same, for a value that is known to be good. Takes text. */
void flags_take(struct flags *f, size_t i, char *text, enum flag_source source);
const char *flags_get(const struct flags *f, const char *name); /* its default if it is not set */
bool flags_is_set(const struct flags *f, const char *name);
bool flags_is_true(const struct flags *f, const char *name);

/* argv[1..]. Ends the process: 2 with usage for wrong flags, 0 for --help. first is set to the first argument that is no flag,
 * NULL if there is none. */
void flags_parse(struct flags *f, int argc, char **argv, const char **first);

/* ETCD_*. Unknown ones and those that a flag shadows: a warning, and the end. E_INVALID: a bad value, told in why. */
int env_read(struct flags *f, char *const envp[], struct buf *why);
/* YAML or JSON. text is the file's bytes. E_INVALID: told in why; what is unknown is warned of only, as etcd takes it. */
int file_read_flags(struct flags *f, struct slice text, struct buf *why);

/* What etcd refuses when flags are read; its words, one line in why without a newline. */
int check_flags(const struct flags *f, struct buf *why);

/* feature-gates (feature.c): whether they can be read, and whether they go together. Both say why not. */
int feature_parse(const char *gates, struct buf *why);
int feature_check(const char *gates, struct buf *why);

/* --- values (value.c) -------------------------------------------------------------------------- */

bool value_uint(const char *text, uint64_t *value);
bool value_int(const char *text, int64_t *value);
bool value_bool(const char *text, bool *value);
bool value_duration(const char *text, int64_t *ns);
char *value_duration_text(int64_t ns); /* for conf: whole milliseconds, rounded up, at least 0. Given. */

#endif
