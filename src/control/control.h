/* SPDX-License-Identifier: MIT */
/*
 * The control protocol, on a Unix stream socket.
 *
 * The client sends one line, a JSON object. Behind an inject request follow the events, one a line;
 * then the client shuts down its sending side. The answer is data lines (JSON objects), then one last line
 *   {"end":true,"code":N,"message":"..."}     code: the exit status of the command line (enum control_code)
 * If the connection closes without this line, the server has crashed and the client knows nothing
 * about what was done.
 *
 * A request is {"command":NAME, ...}; the commands are in command.c.
 *   supervisor   pause, resume, restart have "source" and may have "stage"; all that change something
 *                may have "dry_run":true
 *   keeper       filters are "uids":[...], "all":true, "source", "stage", "state", "address", "type",
 *                "older_ms", "error"; beside them "limit" and "dry_run":true
 *                cursor has "source" and, to set it, "set"; show has "uids" and may have "source";
 *                inject has "source", may have "dry_run", and "line", the number of its first line
 * A member that the command does not know is refused: a misspelt filter must not select more events.
 *
 * The supervisor reads the request line, at most CONTROL_REQUEST_BYTES and nothing behind it, and
 * checks the peer (SO_PEERCRED): commands that change something need root or the daemon's own user. It
 * passes a command of the keeper on, line and client descriptor, and forgets the client.
 */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H

#include <cjson/cJSON.h>

#include "src/base/error.h"
#include "src/config/config.h"
#include "src/store/store.h"

#define CONTROL_REQUEST_BYTES 65536

enum control_code {
    CONTROL_DONE = 0,
    CONTROL_FAILED = 1,
    CONTROL_USAGE = 2,
    CONTROL_DOWN = 3,
    CONTROL_NOTHING = 4 /* nothing matched */
};

/* Send a data line, or the last line of an answer. 0, or EP_ESYSTEM: the client is gone or takes nothing.
 * Each blocks for 5 s at most. */
int control_send_line(int fd, const char *json, size_t bytes);
int control_end(int fd, enum control_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- the client's side ---- */

/* Connects to the socket at `path`. EP_ENOENT: no process listens there; EP_ESTATE: one does, but its
 * queue of connections is full and stays full for 5 s; EP_EACCESS; EP_ESYSTEM. */
int control_connect(const char *path, int *fd, struct error *error);

struct control_question {
    const char *line; /* the request, without its line feed */
    const char *body; /* inject's events, or NULL */
    size_t body_bytes;
    uint64_t patience_ms;           /* the longest silence; UINT64_MAX = no limit */
    uint64_t first_ms;              /* the longest silence before the first byte; 0 = patience_ms */
    bool (*on_silence)(void *user); /* called after such a silence: true = wait once more; NULL = give up */
    void *on_silence_user;
};
/* Called for each data line (NUL-terminated, without its line feed). Returns 0 to go on, or a negative
 * code, which ends control_ask. */
typedef int control_on_line(const char *line, size_t bytes, void *user);
/* Sends the request and reads the answer to its end. Returns the enum control_code of the last line,
 * and its message in error->message. Negative: what on_line returned; EP_ESTATE: no answer in time;
 * EP_EPROTO: a malformed answer; EP_ESYSTEM: the connection broke, and the command may have been
 * carried out in part. */
int control_ask(int fd, const struct control_question *question, control_on_line *on_line, void *user,
                struct error *error);

/* ---- the keeper's side ---- */

/* Carries out a command of the keeper and sends the whole answer to `client`. The keeper calls it with the
 * client's connection, from which it reads the events of inject. The command line calls it for
 * commands that only read, while the daemon is down. *changed_sources (NULL: not wanted) gets a bit
 * for each configured source whose events were changed (bit 63: any source from the 64th on); the
 * keeper notifies their producers. The store is a writer's handle; for commands that only read, a
 * reader's is enough. */
struct admin {
    struct store *store;
    const struct config *config;
    bool daemon_up;
};
void control_admin_serve(const struct admin *admin, const cJSON *request, int client_fd,
                         uint64_t *changed_sources);

#endif
