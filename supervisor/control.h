/* SPDX-License-Identifier: MIT */
/* The control socket, server side. src/control/control.h has the protocol. */
#ifndef SUPERVISOR_CONTROL_H
#define SUPERVISOR_CONTROL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/base/error.h"

#define SUPERVISOR_CLIENTS 32

struct supervisor;

/* One connection whose request is not complete yet. */
struct client {
    int fd; /* -1 = free */
    uid_t uid;
    uint64_t since_ns;
    char *request_line; /* what was read of its line, `request_bytes` long */
    size_t request_bytes;
};

/* Binds the socket and adds it to the loop. 0, or negative with a message. */
int control_listen(struct supervisor *supervisor, struct error *error);
/* Accepts one connection. Called by the loop. */
void control_accept_client(struct supervisor *supervisor);
/* Reads a client's request and serves it once it is complete. Called by the loop. */
void control_read_client(struct supervisor *supervisor, uint32_t client_index);
/* Disconnects clients that are too slow, and ends a pause of accepting. Called once a turn. */
void control_run_timers(struct supervisor *supervisor, uint64_t now_ns);
/* Disconnects all clients and removes the socket. */
void control_close(struct supervisor *supervisor);
/* In a new child: closes the inherited descriptors. */
void control_close_in_child(struct supervisor *supervisor);

#endif
