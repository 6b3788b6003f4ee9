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

/* Returns within how many milliseconds systemd, the service manager, expects a sign of life from the
 * supervisor; 0 = never. Reads the environment that systemd has set. */
static uint64_t read_watchdog_ms(void)
{
    const char *watchdog_usec = getenv("WATCHDOG_USEC"), *watchdog_pid = getenv("WATCHDOG_PID");
    char *number_end;
    errno = 0;
    unsigned long long watchdog_time_us =
        watchdog_usec != NULL ? strtoull(watchdog_usec, &number_end, 10) : 0;
    if (watchdog_usec == NULL || errno != 0 || number_end == watchdog_usec || *number_end != '\0')
        return 0;
    if (watchdog_pid != NULL && strtoll(watchdog_pid, NULL, 10) != (long long)getpid())
        return 0;
    return watchdog_time_us / 1000;
}

/* Opens the socket to the service manager (systemd) and removes its variables from the environment, so
 * that no child uses them. eventpiped's supervisor calls it at its start. Never fails; without a
 * service manager nothing is sent later. */
void notify_open(struct notify *notify)
{
    *notify = (struct notify){.fd = -1, .address.sun_family = AF_UNIX, .watchdog_ms = read_watchdog_ms()};
    const char *path = getenv("NOTIFY_SOCKET");
    size_t path_bytes = path != NULL ? strlen(path) : 0;
    if (path_bytes > 1 && path_bytes < sizeof notify->address.sun_path &&
        (path[0] == '/' || path[0] == '@')) {
        memcpy(notify->address.sun_path, path, path_bytes);
        if (path[0] == '@')
            notify->address.sun_path[0] = '\0'; /* an abstract name: address_bytes gives its end */
        notify->address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_bytes);
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
    int message_bytes = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (message_bytes <= 0)
        return;
    if ((size_t)message_bytes >= sizeof message)
        message_bytes = sizeof message - 1;
    ssize_t sent_bytes;
    do
        sent_bytes = sendto(notify->fd, message, (size_t)message_bytes, MSG_NOSIGNAL,
                            (const struct sockaddr *)&notify->address, notify->address_bytes);
    while (sent_bytes < 0 && errno == EINTR);
}

/* Sends WATCHDOG=1 to the service manager (systemd) when half the watchdog time is over; without it
 * systemd would kill the daemon. The supervisor calls it in each turn. Returns when it must be called
 * again (monotonic ns), UINT64_MAX = never. */
uint64_t notify_send_watchdog(struct notify *notify, uint64_t now_ns)
{
    if (notify->watchdog_ms == 0)
        return UINT64_MAX;
    uint64_t half_ns = notify->watchdog_ms * UINT64_C(500000);
    if (notify->watchdog_sent_ns == 0 || now_ns - notify->watchdog_sent_ns >= half_ns) {
        notify_send(notify, "WATCHDOG=1");
        notify->watchdog_sent_ns = now_ns;
    }
    return notify->watchdog_sent_ns + half_ns;
}

void notify_close(struct notify *notify)
{
    if (notify->fd >= 0)
        close(notify->fd);
    notify->fd = -1;
}
