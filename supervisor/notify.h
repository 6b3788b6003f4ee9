/* SPDX-License-Identifier: MIT */
/* Messages to the service manager: the datagrams that systemd's sd_notify(3) documents. */
#ifndef SUPERVISOR_NOTIFY_H
#define SUPERVISOR_NOTIFY_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct notify {
    int fd; /* -1 = no service manager */
    struct sockaddr_un address;
    socklen_t address_bytes;
    uint64_t watchdog_ms;      /* WATCHDOG=1 is due within this time, 0 = never */
    uint64_t watchdog_sent_ns; /* when WATCHDOG=1 was last sent */
};

/* Reads NOTIFY_SOCKET and WATCHDOG_USEC and removes them from the environment, so that children do not
 * use them. Never fails: without a service manager, or if it cannot be reached, nothing is sent. */
void notify_open(struct notify *notify);
/* Sends one message, such as "READY=1" or "STATUS=...". Never blocks; a message that cannot be sent is
 * lost. */
void notify_send(const struct notify *notify, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Sends WATCHDOG=1 when half the time is over. Returns when it must be called again (ns), UINT64_MAX =
 * never. */
uint64_t notify_send_watchdog(struct notify *notify, uint64_t now_ns);
void notify_close(struct notify *notify);

#endif
