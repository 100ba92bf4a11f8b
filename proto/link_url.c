/* link_url - the URL of one slot of a daemon that serves several peers (see link.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "proto/link.h"

static bool starts_with(const char *text, const char *prefix)
{
    return !strncmp(text, prefix, strlen(prefix)) && text[strlen(prefix)] != '\0';
}

/* "tcp://host:port" -> port + slot. Strict: digits only, and the sum is still a port. */
static char *url_shift_port(const char *base, unsigned slot)
{
    const char *colon = strrchr(base, ':');
    char *end = NULL;
    unsigned long port;

    if (!colon || colon[-1] == '/' || colon[1] < '0' || colon[1] > '9')
        return NULL;
    port = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || port == 0 || port > UINT16_MAX || port + slot > UINT16_MAX)
        return NULL;
    return xasprintf("%.*s:%lu", (int)(colon - base), base, port + slot);
}

char *link_url(const char *base, unsigned slot)
{
    if (starts_with(base, "tcp://") || starts_with(base, "tls+tcp://"))
        return url_shift_port(base, slot);
    if (starts_with(base, "ipc://") || starts_with(base, "abstract://") || starts_with(base, "inproc://"))
        return slot == 0 ? xstrdup(base) : xasprintf("%s.%u", base, slot);
    return NULL;
}
