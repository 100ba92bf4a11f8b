/* log_out - where lines of the log go: stderr and stdout, systemd's journal, files that are set aside when they are full.
 *
 * A file may belong to several processes (the daemons of a node share one configuration). Each looks at the size of what it
 * has open before a line; who finds it full locks it. If the path still leads to it, it is renamed and a new one made;
 * else another process was faster, and the new one is opened. */
#include "common/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/conf.h"
#include "common/err.h"
#include "common/file.h"
#include "common/mem.h"

#define OUTPUTS_MAX 8
#define JOURNAL_SOCKET "/run/systemd/journal/socket"
#define FILE_MODE 0600
#define DAY_S (24 * 3600)

/* "-2026-01-31T12-00-00.000" */
#define STAMP_LEN 24

struct output {
    int fd;
    bool journal;
    char *path; /* of a file, absolute; NULL: anything else */
};

/* Without log_open: stderr. Changed by rotation, under the lock. */
static struct output outputs[OUTPUTS_MAX] = {{.fd = STDERR_FILENO}};
static size_t output_count = 1;
static struct log_rotation rotation;
static pthread_mutex_t rotation_lock = PTHREAD_MUTEX_INITIALIZER;

/* --- opening ----------------------------------------------------------------------------------------------------- */

static int open_file(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, FILE_MODE);
}

static int open_journal(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = JOURNAL_SOCKET};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        fd = -1;
    }
    return fd;
}

/* The working directory changes later (priv_drop). */
static char *absolute(const char *path)
{
    char cwd[4096];

    if (path[0] == '/' || getcwd(cwd, sizeof(cwd)) == NULL)
        return xstrdup(path);
    return xasprintf("%s/%s", cwd, path);
}

static int open_output(struct output *o, const char *name)
{
    *o = (struct output){.fd = -1};
    if (strcmp(name, "default") == 0 || strcmp(name, "stderr") == 0) {
        o->fd = STDERR_FILENO;
    } else if (strcmp(name, "stdout") == 0) {
        o->fd = STDOUT_FILENO;
    } else if (strcmp(name, "systemd/journal") == 0) {
        o->journal = true;
        o->fd = open_journal();
    } else {
        o->path = absolute(name);
        o->fd = open_file(o->path);
    }
    return o->fd < 0 ? E_IO : OK;
}

static void close_output(struct output *o)
{
    if (o->fd > STDERR_FILENO)
        close(o->fd);
    free(o->path);
}

int log_open(const char *list, const struct log_rotation *r, struct buf *why)
{
    struct output opened[OUTPUTS_MAX];
    size_t count = 0;
    int err = OK;

    for (const char *next = list; next != NULL && err == OK;) {
        char *name = slice_dup_str(conf_next_item(&next));
        if (count == OUTPUTS_MAX || name[0] == '\0') {
            buf_printf(why, name[0] == '\0' ? "an empty name" : "more than %d outputs", OUTPUTS_MAX);
            err = E_INVALID;
        } else if ((err = open_output(&opened[count++], name)) != OK) {
            buf_printf(why, "%s: %s", name, strerror(errno));
        }
        free(name);
    }
    if (err != OK) {
        while (count > 0)
            close_output(&opened[--count]);
        return err;
    }
    memcpy(outputs, opened, count * sizeof(*opened));
    output_count = count;
    rotation = *r;
    return OK;
}

/* --- old files ----------------------------------------------------------------------------------------------------- */

/* Where the stamp goes: before the last dot of the file's name. */
static size_t stem_len(const char *path)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');

    return dot == NULL || dot < slash || dot == slash + 1 ? strlen(path) : (size_t)(dot - path);
}

static void stamp_write(char stamp[64], int64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    char date[32];

    if (rotation.local_time)
        localtime_r(&seconds, &tm);
    else
        gmtime_r(&seconds, &tm);
    strftime(date, sizeof(date), "-%Y-%m-%dT%H-%M-%S", &tm);
    snprintf(stamp, 64, "%s.%03d", date, (int)(wall_ms % 1000));
}

static bool is_stamp(const char *text)
{
    static const char form[] = "-dddd-dd-ddTdd-dd-dd.ddd";

    for (size_t i = 0; i < STAMP_LEN; i++) {
        bool digit = text[i] >= '0' && text[i] <= '9';
        if (form[i] == 'd' ? !digit : text[i] != form[i])
            return false;
    }
    return true;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)b, *(char *const *)a); /* the newest first */
}

/* Names of path's old files, the newest first. The array and the names are given. */
static size_t list_old(const char *dir, const char *path, char ***names)
{
    const char *base = strrchr(path, '/') + 1;
    size_t stem = stem_len(path) - (size_t)(base - path), count = 0;
    const char *extension = base + stem;
    DIR *d = opendir(dir);

    *names = NULL;
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (strlen(e->d_name) != strlen(base) + STAMP_LEN || strncmp(e->d_name, base, stem) != 0 ||
            !is_stamp(e->d_name + stem) || strcmp(e->d_name + stem + STAMP_LEN, extension) != 0)
            continue;
        *names = xrealloc(*names, (count + 1) * sizeof(**names));
        (*names)[count++] = xstrdup(e->d_name);
    }
    if (d != NULL)
        closedir(d);
    if (count > 0)
        qsort(*names, count, sizeof(**names), compare_names);
    return count;
}

static bool is_too_old(const char *path)
{
    struct stat st;

    return rotation.days_max > 0 && stat(path, &st) == 0 &&
           (int64_t)st.st_mtime + (int64_t)rotation.days_max * DAY_S < clock_wall_ms() / 1000;
}

static void remove_old(const char *path)
{
    char *dir = slice_dup_str(slice_of(path, (size_t)(strrchr(path, '/') - path))), **names;
    size_t count = list_old(dir, path, &names);

    for (size_t i = 0; i < count; i++) {
        char *old = xasprintf("%s/%s", dir, names[i]);
        if ((rotation.files_max > 0 && i >= rotation.files_max) || is_too_old(old))
            unlink(old);
        free(old);
        free(names[i]);
    }
    free(names);
    free(dir);
}

/* --- rotation ------------------------------------------------------------------------------------------------------- */

static bool is_full(int fd, size_t more)
{
    struct stat st;

    return fstat(fd, &st) == 0 && st.st_size > 0 && (uint64_t)st.st_size + more > rotation.bytes_max;
}

static bool leads_to(const char *path, int fd)
{
    struct stat at, st;

    return stat(path, &at) == 0 && fstat(fd, &st) == 0 && at.st_ino == st.st_ino && at.st_dev == st.st_dev;
}

/* Under the lock of this process. What cannot be done is left: the full file grows on. */
static void rotate(struct output *o)
{
    if (flock(o->fd, LOCK_EX) != 0)
        return;
    bool ours = leads_to(o->path, o->fd);

    if (ours) {
        char stamp[64];
        size_t stem = stem_len(o->path);
        stamp_write(stamp, clock_wall_ms());
        char *old = xasprintf("%.*s%s%s", (int)stem, o->path, stamp, o->path + stem);
        if (access(old, F_OK) != 0)
            (void)rename(o->path, old);
        free(old);
    }
    int fd = open_file(o->path);

    flock(o->fd, LOCK_UN);
    if (fd < 0)
        return;
    dup3(fd, o->fd, O_CLOEXEC); /* in place: other threads write to this number at this moment */
    close(fd);
    if (ours)
        remove_old(o->path);
}

static void rotate_if_full(struct output *o, size_t more)
{
    if (rotation.bytes_max == 0 || o->path == NULL || !is_full(o->fd, more))
        return;
    pthread_mutex_lock(&rotation_lock);
    if (is_full(o->fd, more)) /* not done by another thread meanwhile */
        rotate(o);
    pthread_mutex_unlock(&rotation_lock);
}

/* --- writing --------------------------------------------------------------------------------------------------------- */

static void write_fd(int fd, const char *line, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = write(fd, line + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
}

/* The journal's own protocol: fields as lines. Ours has no line break inside, the log escapes them. */
static void write_journal(int fd, enum log_level level, const char *program, const char *line, size_t len)
{
    static const int priorities[] = {3, 4, 6, 7, 7};
    struct buf b = BUF_INIT;

    buf_printf(&b, "PRIORITY=%d\nSYSLOG_IDENTIFIER=%s\nMESSAGE=", priorities[level], program);
    buf_add(&b, line, len);
    (void)!send(fd, b.data, b.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    buf_fini(&b);
}

void log_put(enum log_level level, const char *program, const char *line, size_t len)
{
    for (size_t i = 0; i < output_count; i++) {
        if (outputs[i].journal) {
            write_journal(outputs[i].fd, level, program, line, len);
        } else {
            rotate_if_full(&outputs[i], len);
            write_fd(outputs[i].fd, line, len);
        }
    }
}
