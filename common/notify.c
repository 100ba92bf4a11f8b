/* notify - see notify.h; the only file that knows libsystemd. */
#include "common/notify.h"

#include <stdarg.h>
#include <stdio.h>

#include <systemd/sd-daemon.h>

#include "common/loop.h"
#include "common/mem.h"

#define STATUS_BYTES_MAX 512

struct watchdog {
    struct loop_timer *timer;
    uint64_t interval_ms; /* half of what systemd waits */
};

/* One loop per process is watched, as systemd watches one process. */
static struct watchdog watchdog;

void notify_ready(void)
{
    sd_notify(0, "READY=1");
}

void notify_stopping(void)
{
    sd_notify(0, "STOPPING=1");
}

void notify_status(const char *fmt, ...)
{
    char text[STATUS_BYTES_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    sd_notifyf(0, "STATUS=%s", text);
}

static void watchdog_ping_cb(void *arg, uint64_t now_ms)
{
    UNUSED(arg);
    sd_notify(0, "WATCHDOG=1");
    loop_timer_set(watchdog.timer, now_ms + watchdog.interval_ms);
}

void notify_watchdog_start(struct loop *l)
{
    uint64_t usec = 0;

    if (sd_watchdog_enabled(0, &usec) <= 0 || usec == 0)
        return;
    watchdog.interval_ms = MAX(usec / 2000, (uint64_t)1);
    watchdog.timer = loop_timer_new(l, watchdog_ping_cb, NULL);
    watchdog_ping_cb(NULL, loop_now_ms(l));
}
