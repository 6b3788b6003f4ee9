/* SPDX-License-Identifier: MIT */
/*
 * The control protocol, on a Unix stream socket. The client sends one line, a JSON object; inject's events
 * follow as lines, then the client shuts its sending side down. The answer: data lines (JSON objects), then
 * one last line
 *   {"end":true,"code":N,"message":"..."}     code: the exit status for the command line (enum control_code)
 * A connection that closes without it: the daemon crashed; nothing is known about what was done.
 *
 * Requests: {"command":V, ...}
 *   for the supervisor:   pause, resume, restart {"source":S,"stage":T?}; drain; stop; ping
 *   for the keeper:       queue, show, retry, hold, release, remove, requeue, cursor, inject, check — with
 * the selector members "uids":[...], "all":true,
 * "source","stage","state","address","type","older_ms","error",
 *                         "limit", and "dry_run":true; cursor has "source" and, to set it, "set"; show has
 * "uids" and may have "source"; inject has "source", "dry_run" and "line", the number of its first line. A
 * member that the command does not know is refused: a misspelt selector must not select more. The supervisor
 * reads the request line (at most CONTROL_REQUEST_BYTES; it must not read further) and checks the peer
 * (SO_PEERCRED): commands that change something need the daemon's own user or root. Keeper commands it passes
 * on, the line and the client's descriptor, and forgets them.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <cjson/cJSON.h>

#include "src/base/error.h"
#include "src/config/config.h"
#include "src/store/store.h"

#define CONTROL_REQUEST_BYTES 65536

enum control_code {
    CONTROL_DONE = 0,
    CONTROL_NO = 1,
    CONTROL_USAGE = 2,
    CONTROL_DOWN = 3,
    CONTROL_NOTHING = 4 /* nothing matched */
};

/* Writes a data line / the last line to a descriptor; 0 or EP_ESYSTEM (client gone). Blocks at most 5 s per
 * line. */
int control_say(int fd, const char *json, size_t bytes);
int control_end(int fd, enum control_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- the client's side ---- */

/* The protocol's socket at `path`. EP_ENOENT: nobody listens there; EP_ESTATE: somebody does, but has
 * not taken up the calls that wait already, for 5 s; EP_EACCESS; EP_ESYSTEM. */
int control_connect(const char *path, int *fd, struct error *error);

struct control_question {
    const char *line; /* the request, without its line feed */
    const char *body; /* inject's events, or NULL */
    size_t body_bytes;
    uint64_t patience_ms;      /* the longest silence, UINT64_MAX = for ever */
    uint64_t first_ms;         /* the longest before anything is received; 0 = no other than patience_ms */
    bool (*works)(void *user); /* asked when either is over: true = whoever is to answer is at it, wait once
                                * more; NULL = never */
    void *works_user;
};
/* Sees each data line (terminated, without its line feed); returns 0 to go on, or a negative code, which ends
 * it. */
typedef int control_on_line(const char *line, size_t bytes, void *user);
/*
 * Asks and reads the answer to its end. Returns the enum control_code of the last line and its message in
 * error->message; negative: what on_line returned, EP_ESTATE (no answer in time), or EP_ESYSTEM (the
 * connection broke: nothing is known).
 */
int control_ask(int fd, const struct control_question *question, control_on_line *on_line, void *user,
                struct error *error);

/* ---- the keeper's side ---- */

/*
 * Carries out a keeper command: used by the keeper (client = the connection; events of inject are read from
 * it) and by the command line itself for reading commands when the daemon is down. Writes all the answer
 * including its end. *changed_sources gets a bit for each configured source (index < 64, bit 63 for all
 * others) whose events it changed: the keeper notifies their producers. The store is a writer's handle, or a
 * reader's for reading commands.
 */
struct admin {
    struct store *store;
    const struct config *config;
    bool daemon_up;
};
void control_admin_serve(const struct admin *admin, const cJSON *request, int client,
                         uint64_t *changed_sources);

#endif
