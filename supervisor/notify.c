/* SPDX-License-Identifier: MIT */
/*
 * Messages to the service manager. Run by the supervisor alone; owns one datagram socket. Nothing here
 * is fatal: a message that cannot be sent is lost.
 */
#include "supervisor/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Returns the watchdog time in milliseconds that the service manager (systemd) asks the supervisor to
 * keep, 0 = none. */
static uint64_t read_watchdog_ms(void)
{
    const char *time = getenv("WATCHDOG_USEC"), *for_pid = getenv("WATCHDOG_PID");
    char *end;
    errno = 0;
    unsigned long long usec = time != NULL ? strtoull(time, &end, 10) : 0;
    if (time == NULL || errno != 0 || end == time || *end != '\0')
        return 0;
    if (for_pid != NULL && strtoll(for_pid, NULL, 10) != (long long)getpid())
        return 0;
    return usec / 1000;
}

/* eventpiped's supervisor calls this at its start: opens the socket to the service manager (systemd) and
 * removes the variables from the environment, so that no child uses them. Never fails; without a service
 * manager nothing is sent. */
void notify_open(struct notify *notify)
{
    *notify = (struct notify){.fd = -1, .address.sun_family = AF_UNIX, .watchdog_ms = read_watchdog_ms()};
    const char *path = getenv("NOTIFY_SOCKET");
    size_t bytes = path != NULL ? strlen(path) : 0;
    if (bytes > 1 && bytes < sizeof notify->address.sun_path && (path[0] == '/' || path[0] == '@')) {
        memcpy(notify->address.sun_path, path, bytes);
        if (path[0] == '@')
            notify->address.sun_path[0] = '\0'; /* an abstract name: address_bytes gives its end */
        notify->address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + bytes);
        notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    }
    if (notify->fd < 0)
        notify->watchdog_ms = 0;
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

/* Sends one message to the service manager (systemd), such as "READY=1" or "STATUS=...". The supervisor
 * calls it. Never blocks; a message that cannot be sent is lost. */
void notify_send(const struct notify *notify, const char *format, ...)
{
    if (notify->fd < 0)
        return;
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (bytes <= 0)
        return;
    if ((size_t)bytes >= sizeof message)
        bytes = sizeof message - 1;
    ssize_t sent;
    do
        sent = sendto(notify->fd, message, (size_t)bytes, MSG_NOSIGNAL,
                      (const struct sockaddr *)&notify->address, notify->address_bytes);
    while (sent < 0 && errno == EINTR);
}

/* The supervisor calls this in each turn: sends WATCHDOG=1 to the service manager (systemd) when half the
 * watchdog time is over, otherwise systemd would kill the daemon. Returns when it must be called again
 * (ns), UINT64_MAX = never. */
uint64_t notify_send_watchdog(struct notify *notify, uint64_t now_ns)
{
    if (notify->watchdog_ms == 0)
        return UINT64_MAX;
    uint64_t half_ns = notify->watchdog_ms * UINT64_C(500000);
    if (notify->sent_ns == 0 || now_ns - notify->sent_ns >= half_ns) {
        notify_send(notify, "WATCHDOG=1");
        notify->sent_ns = now_ns;
    }
    return notify->sent_ns + half_ns;
}

void notify_close(struct notify *notify)
{
    if (notify->fd >= 0)
        close(notify->fd);
    notify->fd = -1;
}
