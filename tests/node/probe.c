/* probe - what the shell tests of tests/node cannot do with a shell: puts at speed with a book of what was acknowledged, and
 * faults that must hit a certain byte.
 *
 *   trine-probe puts  --port P --book FILE [--prefix p/] [--from 0] [--count 1000] [--value 100] [--streams 64] [--until-error]
 *   trine-probe check --port P --book FILE [--prefix p/] [--value 100]
 *   trine-probe hash  --port P [--rev N]                 HashKV: "HASH REVISION"
 *   trine-probe flip  FILE OFFSET                        turns all bits of a byte around; a negative offset counts from the end
 *   trine-probe used  FILE                               where the zeros at its end begin
 *   trine-probe reboot SYNCED                            makes stored believe that the machine was started again since
 *   trine-probe notify SOCKET FILE                       systemd's end of NOTIFY_SOCKET: one line per message, with ms since start
 *
 * A book has one byte per number: '+' acknowledged, '-' refused, '?' unknown. `check` reads every key of the prefix: each
 * acknowledged number is there with its value, and no refused one is. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/crc32c.h"
#include "common/file.h"
#include "common/mem.h"
#include "proto/api.h"
#include "proto/pb.h"
#include "tests/lib/gclient.h"

#define STREAMS_MAX 1024
#define PAGE_KEYS 2000
#define CALL_MS 20000
#define BOOK_BYTES_MAX ((size_t)64 << 20)

static struct {
    int port;
    const char *book, *prefix;
    uint64_t from, count, value_bytes, streams;
    int64_t rev;
    bool until_error;
} opt = {.prefix = "p/", .count = 1000, .value_bytes = 100, .streams = 64};

static void value_make(struct buf *b, uint64_t number)
{
    buf_reset(b);
    buf_printf(b, "%016llu ", (unsigned long long)number);
    while (b->len < opt.value_bytes)
        buf_add_byte(b, (uint8_t)('a' + (b->len * 7 + number) % 26));
}

/* --- puts ----------------------------------------------------------------------------------------- */

static struct {
    struct gclient *client;
    uint8_t *fates;
    uint64_t next, open, acked, refused, unknown;
    char error[256];
    bool stop, turned;
} run;

static void put_end(struct gcall *call, int status, const char *text, void *arg)
{
    uint8_t *fate = arg;

    UNUSED(call);
    run.open--;
    run.turned = true;
    *fate = status == 0 ? '+' : status == 8 ? '-' : '?';
    run.acked += status == 0;
    run.refused += status == 8;
    run.unknown += status != 0 && status != 8;
    if (status == 0)
        return;
    snprintf(run.error, sizeof(run.error), "status %d: %s", status, text);
    run.stop = opt.until_error || gclient_lost(run.client);
}

static void put_one(struct buf *value, struct buf *request)
{
    static const struct gcall_ops ops = {NULL, put_end};
    char key[128];

    snprintf(key, sizeof(key), "%s%010llu", opt.prefix, (unsigned long long)run.next);
    value_make(value, run.next);
    buf_reset(request);
    api_encode_put(request, &(struct api_put){.key = slice_str(key), .value = buf_slice(value)});
    run.fates[run.next] = '?';
    if (!gcall_start(run.client, "/etcdserverpb.KV/Put", buf_slice(request), true, NULL, &ops, &run.fates[run.next])) {
        run.stop = true;
        return;
    }
    run.next++;
    run.open++;
}

/* The book so far, and room for what comes. */
static void book_load(void)
{
    struct buf old = BUF_INIT;
    size_t size = (size_t)(opt.from + opt.count);

    (void)file_read_all(opt.book, BOOK_BYTES_MAX, &old);
    run.fates = xcalloc(1, MAX(size, old.len) + 1);
    memset(run.fates, ' ', size);
    memcpy(run.fates, old.data, old.len);
    buf_fini(&old);
}

static int puts_run(void)
{
    struct buf value = BUF_INIT, request = BUF_INIT;

    book_load();
    run.next = opt.from;
    run.client = gclient_connect("127.0.0.1", opt.port);
    if (!run.client) {
        printf("acked 0, refused 0, unknown 0, no connection\n");
        return 1;
    }
    while (run.open > 0 || (!run.stop && run.next < opt.from + opt.count)) {
        while (!run.stop && run.open < opt.streams && run.next < opt.from + opt.count)
            put_one(&value, &request);
        run.turned = false;
        if (!gclient_run(run.client, &run.turned, CALL_MS)) {
            snprintf(run.error, sizeof(run.error), "%llu calls had no answer in 20 s", (unsigned long long)run.open);
            break;
        }
    }
    if (file_replace(opt.book, run.fates, (size_t)run.next) != 0)
        printf("the book could not be written\n");
    printf("acked %llu, refused %llu, unknown %llu, next %llu%s%s\n", (unsigned long long)run.acked, (unsigned long long)run.refused,
           (unsigned long long)(run.unknown + run.open), (unsigned long long)run.next, run.error[0] ? ", " : "", run.error);
    gclient_free(run.client);
    buf_fini(&value);
    buf_fini(&request);
    return run.error[0] ? 1 : 0;
}

/* --- check ---------------------------------------------------------------------------------------- */

struct checking {
    struct buf book, seen, value, last;
    uint64_t keys, wrong, unexpected;
};

static void key_check(struct checking *c, const struct api_key_value *kv)
{
    size_t skip = strlen(opt.prefix);
    char digits[32] = "";

    c->keys++;
    if (kv->key.len <= skip || kv->key.len - skip >= sizeof(digits)) {
        c->unexpected++;
        return;
    }
    memcpy(digits, kv->key.data + skip, kv->key.len - skip);
    uint64_t number = strtoull(digits, NULL, 10);
    if (number >= c->book.len || c->book.data[number] == '-' || c->book.data[number] == ' ') {
        c->unexpected++;
        return;
    }
    value_make(&c->value, number);
    c->wrong += !slice_eq(kv->value, buf_slice(&c->value));
    c->seen.data[number] = 1;
}

/* False: nothing more. */
static bool page_check(struct checking *c, struct gclient *client, struct slice end)
{
    struct buf request = BUF_INIT, reply = BUF_INIT, text = BUF_INIT;
    struct pb_field f;
    uint64_t count = 0;

    api_encode_range(&request, &(struct api_range){.key = buf_slice(&c->last), .range_end = end, .limit = PAGE_KEYS});
    int status = gclient_unary(client, "/etcdserverpb.KV/Range", buf_slice(&request), &reply, &text, CALL_MS);
    if (status != 0) {
        printf("a read failed: status %d: %.*s\n", status, (int)text.len, (const char *)text.data);
        c->wrong++;
    }
    struct slice in = buf_slice(&reply);
    while (status == 0 && pb_next(&in, &f) == 1) {
        struct api_key_value kv;

        if (f.number != 2 || api_decode_key_value(f.bytes, &kv) != 0)
            continue;
        key_check(c, &kv);
        count++;
        buf_reset(&c->last);
        buf_add_slice(&c->last, kv.key);
        buf_add_byte(&c->last, 0);
    }
    buf_fini(&request);
    buf_fini(&reply);
    buf_fini(&text);
    return status == 0 && count == PAGE_KEYS;
}

static int check_run(void)
{
    struct checking c = {.book = BUF_INIT};
    struct gclient *client = gclient_connect("127.0.0.1", opt.port);
    struct buf end = BUF_INIT;
    uint64_t acked = 0, missing = 0;

    if (!client || file_read_all(opt.book, BOOK_BYTES_MAX, &c.book) != 0) {
        printf("no connection, or no book\n");
        return 1;
    }
    memset(buf_extend(&c.seen, c.book.len), 0, c.book.len);
    buf_add_str(&c.last, opt.prefix);
    buf_add_str(&end, opt.prefix);
    end.data[end.len - 1]++;
    while (page_check(&c, client, buf_slice(&end)))
        ;
    for (size_t i = 0; i < c.book.len; i++) {
        acked += c.book.data[i] == '+';
        missing += c.book.data[i] == '+' && !c.seen.data[i];
    }
    printf("acknowledged %llu, missing %llu, wrong %llu, unexpected %llu, keys %llu\n", (unsigned long long)acked,
           (unsigned long long)missing, (unsigned long long)c.wrong, (unsigned long long)c.unexpected, (unsigned long long)c.keys);
    gclient_free(client);
    return acked == 0 || missing || c.wrong || c.unexpected;
}

static int hash_run(void)
{
    struct gclient *client = gclient_connect("127.0.0.1", opt.port);
    struct buf request = BUF_INIT, reply = BUF_INIT, text = BUF_INIT;
    uint64_t hash = 0, rev = 0;
    struct pb_field f;

    if (!client)
        return 1;
    pb_add_int(&request, 1, opt.rev);
    int status = gclient_unary(client, "/etcdserverpb.Maintenance/HashKV", buf_slice(&request), &reply, &text, CALL_MS);
    if (status != 0) {
        printf("status %d: %.*s\n", status, (int)text.len, (const char *)text.data);
        return 1;
    }
    struct slice in = buf_slice(&reply);
    while (pb_next(&in, &f) == 1) {
        if (f.number == 2)
            hash = f.varint;
        if (f.number == 4)
            rev = f.varint;
    }
    printf("%08llx %llu\n", (unsigned long long)hash, (unsigned long long)rev);
    return 0;
}

/* --- faults --------------------------------------------------------------------------------------- */

static int flip_run(const char *path, const char *offset)
{
    FILE *f = fopen(path, "r+b");
    long at = strtol(offset, NULL, 10);

    if (!f || fseek(f, at, at < 0 ? SEEK_END : SEEK_SET) != 0) {
        perror(path);
        return 1;
    }
    at = ftell(f);
    int byte = fgetc(f);
    if (byte == EOF || fseek(f, at, SEEK_SET) != 0 || fputc(byte ^ 0xff, f) == EOF || fclose(f) != 0) {
        fprintf(stderr, "%s: no byte at %s\n", path, offset);
        return 1;
    }
    printf("%ld\n", at);
    return 0;
}

static int used_run(const char *path)
{
    struct buf bytes = BUF_INIT;

    if (file_read_all(path, BOOK_BYTES_MAX, &bytes) != 0) {
        perror(path);
        return 1;
    }
    while (bytes.len > 0 && bytes.data[bytes.len - 1] == 0)
        bytes.len--;
    printf("%zu\n", bytes.len);
    return 0;
}

static int reboot_run(const char *path)
{
    struct buf text = BUF_INIT, out = BUF_INIT;

    if (file_read_all(path, BOOK_BYTES_MAX, &text) != 0) {
        perror(path);
        return 1;
    }
    buf_add_byte(&text, 0);
    char *rest = NULL;
    for (char *line = strtok_r((char *)text.data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (strncmp(line, "boot ", 5) == 0)
            buf_add_str(&out, "boot 00000000-dead-beef-0000-000000000000\n");
        else if (strncmp(line, "crc ", 4) != 0)
            buf_printf(&out, "%s\n", line);
    }
    buf_printf(&out, "crc %08x\n", crc32c(0, out.data, out.len));
    return file_replace(path, out.data, out.len) == 0 ? 0 : 1;
}

/* --- systemd's end -------------------------------------------------------------------------------- */

static int notify_run(const char *socket_path, const char *out_path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    uint64_t start = clock_now_us();
    FILE *out = fopen(out_path, "a");

    snprintf(at.sun_path, sizeof(at.sun_path), "%s", socket_path);
    if (fd < 0 || !out || bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0) {
        perror(socket_path);
        return 1;
    }
    setvbuf(out, NULL, _IOLBF, 0);
    while (true) {
        char text[4096];
        ssize_t n = recv(fd, text, sizeof(text) - 1, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return 1;
        text[n] = '\0';
        for (char *p = text; *p; p++)
            if (*p == '\n')
                *p = ' ';
        fprintf(out, "%llu %s\n", (unsigned long long)(clock_now_us() - start) / 1000, text);
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"port", 1, 0, 'p'},  {"book", 1, 0, 'b'},   {"prefix", 1, 0, 'x'},
                                            {"from", 1, 0, 'f'},  {"count", 1, 0, 'c'},  {"value", 1, 0, 'v'},
                                            {"streams", 1, 0, 's'}, {"rev", 1, 0, 'r'}, {"until-error", 0, 0, 'e'},
                                            {0, 0, 0, 0}};
    const char *what = argc > 1 ? argv[1] : "";

    signal(SIGPIPE, SIG_IGN);
    if (strcmp(what, "flip") == 0 && argc == 4)
        return flip_run(argv[2], argv[3]);
    if (strcmp(what, "used") == 0 && argc == 3)
        return used_run(argv[2]);
    if (strcmp(what, "reboot") == 0 && argc == 3)
        return reboot_run(argv[2]);
    if (strcmp(what, "notify") == 0 && argc == 4)
        return notify_run(argv[2], argv[3]);
    for (int c; (c = getopt_long(argc - 1, argv + 1, "", options, NULL)) != -1;) {
        switch (c) {
        case 'p': opt.port = atoi(optarg); break;
        case 'b': opt.book = optarg; break;
        case 'x': opt.prefix = optarg; break;
        case 'f': opt.from = strtoull(optarg, NULL, 10); break;
        case 'c': opt.count = strtoull(optarg, NULL, 10); break;
        case 'v': opt.value_bytes = strtoull(optarg, NULL, 10); break;
        case 's': opt.streams = MIN(MAX(strtoull(optarg, NULL, 10), 1u), STREAMS_MAX); break;
        case 'r': opt.rev = strtoll(optarg, NULL, 10); break;
        case 'e': opt.until_error = true; break;
        default: return 2;
        }
    }
    if (opt.from + opt.count > BOOK_BYTES_MAX || !opt.prefix[0])
        return 2;
    if (strcmp(what, "puts") == 0 && opt.book)
        return puts_run();
    if (strcmp(what, "check") == 0 && opt.book)
        return check_run();
    if (strcmp(what, "hash") == 0)
        return hash_run();
    fprintf(stderr, "trine-probe: see the head of tests/node/probe.c\n");
    return 2;
}
