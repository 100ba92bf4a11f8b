/* notify - tells systemd how we are: sd_notify, and the watchdog's pings from the loop.
 * Does nothing when not started by systemd (NOTIFY_SOCKET unset). */
#ifndef COMMON_NOTIFY_H
#define COMMON_NOTIFY_H

#include "common/base.h"

struct loop;

void notify_ready(void);    /* READY=1: once, when the daemon really serves */
void notify_stopping(void); /* STOPPING=1: an orderly end has begun */
void notify_status(const char *fmt, ...) PRINTF_LIKE(1, 2); /* the line that `systemctl status` shows */

/* Pings at half of WATCHDOG_USEC if the unit has WatchdogSec=. The pings come from the loop, so a loop that hangs
 * is restarted. The timer belongs to the loop and ends with it. */
void notify_watchdog_start(struct loop *l);

#endif
