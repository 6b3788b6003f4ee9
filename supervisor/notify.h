/* SPDX-License-Identifier: MIT */
/* Tells the service manager how we are: the datagrams that systemd's sd_notify(3) documents. */
#ifndef SUPERVISOR_NOTIFY_H
#define SUPERVISOR_NOTIFY_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct notify {
    int fd; /* -1: nobody wants to know */
    struct sockaddr_un address;
    socklen_t address_bytes;
    uint64_t watchdog_ms; /* a sign of life is due within this time; 0 = never */
    uint64_t said_ns;     /* the last sign of life */
};

/* Reads NOTIFY_SOCKET and WATCHDOG_USEC and takes them out of the environment: children are not asked. Never
 * fails: without a manager, or with one that cannot be reached, nothing is said. */
void notify_open(struct notify *notify);
/* One message, such as "READY=1" or "STATUS=...". Never blocks; a message that cannot be sent is lost. */
void notify_say(const struct notify *notify, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Says WATCHDOG=1 when half the time is over; returns when to be called again, UINT64_MAX = never. */
uint64_t notify_alive(struct notify *notify, uint64_t now_ns);
void notify_close(struct notify *notify);

#endif
