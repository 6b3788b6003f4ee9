/* SPDX-License-Identifier: MIT */
/*
 * The control socket, server side (src/control/control.h has the protocol). Run by the supervisor's
 * loop; owns the socket, and each connection until its request is answered or passed to the keeper.
 *
 * Invariants
 *  1. It never waits for a client. It reads what has arrived, and disconnects a client that has not sent
 *     its line within 10 s. The answer is the first data sent to a client, so it fits into the socket's
 *     buffer.
 *  2. It never reads beyond the line of the request: what follows belongs to the process that serves the
 *     request.
 *  3. When a connection cannot be accepted (no descriptor, no memory), the socket is not watched until
 *     the next turn: otherwise it would wake the loop at once, again and again.
 *  4. The user of the peer decides what a request may change, before anything is done or passed on.
 *
 * Fatal: a socket that cannot be bound at the start. Survived: every client.
 */
#include "supervisor/control.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "shm/slot.h"
#include "shm/wake.h"
#include "src/base/log.h"
#include "src/control/command.h"
#include "src/control/control.h"
#include "src/json/json.h"
#include "supervisor/child.h"
#include "supervisor/phase.h"
#include "supervisor/state.h"
#include "supervisor/watch.h"

#define DEFAULT_DIRECTORY "/run/eventpipe"
#define CLIENT_TIMEOUT_NS UINT64_C(10000000000)

/* ---- the socket ---- */

/* Removes the control socket that an earlier supervisor left, before this one binds its own. Returns 0,
 * EP_EBUSY if another daemon listens there, EP_EEXIST if the path is not a socket, or EP_ESYSTEM; the
 * error says what to do. */
static int remove_old_socket(const char *path, struct error *error)
{
    struct stat status;
    if (lstat(path, &status) != 0)
        return errno == ENOENT ? 0
                               : base_error_set(error, EP_ESYSTEM, "cannot examine control socket %s: %s",
                                                path, strerror(errno));
    if (!S_ISSOCK(status.st_mode))
        return base_error_set(
            error, EP_EEXIST,
            "control socket %s: the file of that name is no socket: remove it, or choose another path", path);
    int other_fd;
    int connect_result = control_connect(path, &other_fd, NULL);
    if (connect_result == 0)
        close(other_fd);
    if (connect_result == 0 || connect_result == EP_ESTATE) {
        return base_error_set(
            error, EP_EBUSY,
            "control socket %s: another daemon listens there: stop it, or choose another path", path);
    }
    if (unlink(path) != 0 && errno != ENOENT)
        return base_error_set(error, EP_ESYSTEM, "cannot remove the old control socket %s: %s", path,
                              strerror(errno));
    return 0;
}

/* Binds the control socket, on which `eventpipe` sends its commands, and adds it to the supervisor's
 * loop. The supervisor calls it at its start. Returns 0, or an error that ends the start. Sets the mode
 * before anyone can connect. */
int control_listen(struct supervisor *supervisor, struct error *error)
{
    const char *path = supervisor->config->control;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return base_error_set(error, EP_EINVAL, "control socket %s: its path is longer than %zu bytes", path,
                              sizeof address.sun_path - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (strncmp(path, DEFAULT_DIRECTORY "/", sizeof DEFAULT_DIRECTORY) == 0)
        mkdir(DEFAULT_DIRECTORY, 0755); /* if it fails, bind reports why */
    int result = remove_old_socket(path, error);
    if (result != 0)
        return result;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return base_error_set(error, EP_ESYSTEM, "cannot create the control socket: %s", strerror(errno));
    mode_t old_umask = umask(0177);
    bool is_bound = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    umask(old_umask);
    /* The mode is set before listen, so that no client connects before. */
    if (!is_bound || chmod(path, supervisor->config->control_mode) != 0 ||
        listen(fd, SUPERVISOR_CLIENTS) != 0 || supervisor_watch_fd(supervisor, fd, EVENT_LISTEN, 0) != 0) {
        int reason = errno;
        close(fd);
        if (is_bound)
            unlink(path);
        return base_error_set(error, EP_ESYSTEM, "cannot listen on control socket %s: %s", path,
                              strerror(reason));
    }
    supervisor->listen_fd = fd;
    return 0;
}

/* Closes a client's connection to the control socket and frees its entry in the supervisor's list. */
static void disconnect_client(struct supervisor *supervisor, struct client *client)
{
    supervisor_unwatch_fd(supervisor, &client->fd);
    free(client->request_line);
    *client = (struct client){.fd = -1};
}

/* Disconnects all clients of the control socket and removes the socket. The supervisor calls it at its
 * end. */
void control_close(struct supervisor *supervisor)
{
    for (uint32_t i = 0; i < SUPERVISOR_CLIENTS; i++)
        disconnect_client(supervisor, &supervisor->clients[i]);
    if (supervisor->listen_fd < 0)
        return;
    unlink(supervisor->config->control);
    supervisor_unwatch_fd(supervisor, &supervisor->listen_fd);
}

/* Closes the copies of the supervisor's control socket and of the clients' connections that a newly forked
 * worker, producer or keeper has inherited. Otherwise a client would not see that its connection was
 * closed. */
void control_close_in_child(struct supervisor *supervisor)
{
    for (uint32_t i = 0; i < SUPERVISOR_CLIENTS; i++)
        if (supervisor->clients[i].fd >= 0)
            close(supervisor->clients[i].fd);
    if (supervisor->listen_fd >= 0)
        close(supervisor->listen_fd);
}

/* Stops watching the control socket until the supervisor's next turn, because a connection could not be
 * accepted: otherwise it would wake the loop at once, again and again. Logs it only once until a
 * connection is accepted. */
static void pause_accepting(struct supervisor *supervisor, int reason)
{
    supervisor->is_accept_paused =
        epoll_ctl(supervisor->epoll_fd, EPOLL_CTL_DEL, supervisor->listen_fd, NULL) == 0;
    if (!supervisor->is_accept_pause_reported)
        base_log_warning("control-accept-paused error=\"%s\"", strerror(reason));
    supervisor->is_accept_pause_reported = true;
}

/* Accepts a connection of `eventpipe` to the control socket and notes its user, because only some users
 * may change anything. The supervisor's loop calls it when a client connects. If there are too many
 * clients, it sends the new one an error and closes the connection. */
void control_accept_client(struct supervisor *supervisor)
{
    int fd = accept4(supervisor->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            pause_accepting(supervisor, errno);
        return;
    }
    supervisor->is_accept_pause_reported = false;
    struct ucred peer;
    socklen_t bytes = sizeof peer;
    uint32_t index = 0;
    while (index < SUPERVISOR_CLIENTS && supervisor->clients[index].fd >= 0)
        index++;
    if (index == SUPERVISOR_CLIENTS) {
        control_end(fd, CONTROL_FAILED, "too many clients at once, try again");
        close(fd);
    } else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0 ||
               supervisor_watch_fd(supervisor, fd, EVENT_CLIENT, index) != 0) {
        close(fd);
    } else {
        supervisor->clients[index] = (struct client){.fd = fd, .uid = peer.uid, .since_ns = shm_now_ns()};
    }
}

/* Disconnects clients of the control socket that have sent no complete request within 10 s, and accepts
 * connections again after pause_accepting. The supervisor calls it once a turn. */
void control_run_timers(struct supervisor *supervisor, uint64_t now_ns)
{
    if (supervisor->is_accept_paused)
        supervisor->is_accept_paused =
            supervisor_watch_fd(supervisor, supervisor->listen_fd, EVENT_LISTEN, 0) != 0;
    for (uint32_t i = 0; i < SUPERVISOR_CLIENTS; i++) {
        struct client *client = &supervisor->clients[i];
        if (client->fd < 0 || now_ns - client->since_ns < CLIENT_TIMEOUT_NS)
            continue;
        control_end(client->fd, CONTROL_USAGE, "no complete request arrived within 10 s");
        disconnect_client(supervisor, client);
    }
}

/* ---- the commands that the supervisor serves ---- */

/* A member of the request, NULL if it is missing or no text. */
static const char *get_text_member(const cJSON *request, const char *member)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(request, member));
}

/* What a command acts on. */
struct target {
    struct shm_source *source;
    struct shm_stage *stage; /* NULL = the whole source */
    char name[2 * SHM_NAME_BYTES];
};

/* Finds the source and the stage that a control request names. Returns false, with an error sent to the
 * client, if there is none. The supervisor calls it for `pause`, `resume` and `restart`. */
static bool find_request_target(struct supervisor *supervisor, const cJSON *request, int client_fd,
                                struct target *target)
{
    const struct segment *segment = &supervisor->segment;
    const char *source = get_text_member(request, "source"), *stage = get_text_member(request, "stage");
    *target = (struct target){0};
    if (source == NULL) {
        control_end(client_fd, CONTROL_USAGE, "expected a source");
        return false;
    }
    for (uint32_t i = 0; i < segment->header->source_count && target->source == NULL; i++)
        if (strcmp(segment_source(segment, i)->id, source) == 0)
            target->source = segment_source(segment, i);
    if (target->source == NULL) {
        control_end(client_fd, CONTROL_NOTHING, "there is no source %s", source);
        return false;
    }
    snprintf(target->name, sizeof target->name, "%s", source);
    if (stage == NULL)
        return true;
    for (uint32_t i = 0; i < target->source->stage_count && target->stage == NULL; i++)
        if (strcmp(segment_stage(segment, target->source->first_stage + i)->name, stage) == 0)
            target->stage = segment_stage(segment, target->source->first_stage + i);
    if (target->stage == NULL) {
        control_end(client_fd, CONTROL_NOTHING, "source %s has no stage %s", source, stage);
        return false;
    }
    snprintf(target->name, sizeof target->name, "%s/%s", target->source->id, target->stage->name);
    return true;
}

/* Serves `eventpipe pause` and `eventpipe resume` in the supervisor: sets or clears the pause of a source
 * or stage, wakes its processes so that they see it, and answers the client. With is_dry_run it changes
 * nothing and only answers. */
static void serve_pause_or_resume(struct supervisor *supervisor, const cJSON *request, int client_fd,
                                  bool must_pause, bool is_dry_run)
{
    struct target target;
    if (!find_request_target(supervisor, request, client_fd, &target))
        return;
    _Atomic uint32_t *pause_flag = target.stage != NULL ? &target.stage->paused : &target.source->paused;
    const char *past_verb = must_pause ? "paused" : "resumed";
    if (atomic_load(pause_flag) == (uint32_t)must_pause) {
        control_end(client_fd, CONTROL_DONE, "%s was %s already", target.name,
                    must_pause ? "paused" : "running");
        return;
    }
    if (is_dry_run) {
        control_end(client_fd, CONTROL_DONE, "would have %s %s", past_verb, target.name);
        return;
    }
    atomic_store(pause_flag, (uint32_t)must_pause);
    wake_source(&supervisor->segment, target.source);
    base_log_info("%s %s", past_verb, target.name);
    control_end(client_fd, CONTROL_DONE, "%s %s", past_verb, target.name);
}

/* Sends SIGTERM to a child, so that it is started again; a child that waits for its restart is started
 * at once. Returns whether there was something to do. The supervisor calls it for each process of
 * `eventpipe restart`. */
static bool restart_process(struct child *child, bool is_dry_run)
{
    if (child->pid == 0 && child->restart_ns == SUPERVISOR_NEVER)
        return false;
    if (is_dry_run)
        return true;
    child->restart.level = 0;
    if (child->pid == 0)
        child->restart_ns = 0;
    else
        child_kill(child, ORDER_RESTART, SIGTERM, shm_now_ns());
    return true;
}

/* Serves `eventpipe restart` in the supervisor: restarts the workers of a stage, or the workers and the
 * producer of a source, and tells the client how many. With is_dry_run it only counts them. */
static void serve_restart(struct supervisor *supervisor, const cJSON *request, int client_fd, bool is_dry_run)
{
    struct target target;
    if (!find_request_target(supervisor, request, client_fd, &target))
        return;
    uint32_t process_count = 0;
    for (uint32_t i = 0; i < target.source->stage_count; i++) {
        const struct shm_stage *stage = segment_stage(&supervisor->segment, target.source->first_stage + i);
        for (uint32_t worker = 0;
             (target.stage == NULL || target.stage == stage) && worker < stage->concurrency; worker++)
            process_count += restart_process(&supervisor->children[stage->first_slot + worker], is_dry_run);
        watch_update_degraded(supervisor, target.source->first_stage + i);
    }
    if (target.stage == NULL)
        process_count += restart_process(&supervisor->children[target.source->producer_slot], is_dry_run);
    if (!is_dry_run)
        base_log_info("restart-requested target=%s processes=%u", target.name, process_count);
    control_end(client_fd, process_count > 0 ? CONTROL_DONE : CONTROL_NOTHING, "%s %u process%s of %s",
                is_dry_run ? "would have restarted" : "restarted", process_count,
                process_count == 1 ? "" : "es", target.name);
}

/* Whether any source or stage is paused. The supervisor warns of it when it answers `eventpipe drain`: the
 * events of a paused source or stage wait, so the drain does not end before an operator resumes it. */
static bool is_anything_paused(const struct supervisor *supervisor)
{
    const struct segment *segment = &supervisor->segment;
    bool has_paused = false;
    for (uint32_t i = 0; i < segment->header->source_count; i++)
        has_paused |= atomic_load(&segment_source(segment, i)->paused) != 0;
    for (uint32_t i = 0; i < segment->header->stage_count; i++)
        has_paused |= atomic_load(&segment_stage(segment, i)->paused) != 0;
    return has_paused;
}

/* Serves `eventpipe drain` in the supervisor: answers the client, then stops fetching and lets all
 * events go through their stages. With is_dry_run it only answers. */
static void serve_drain(struct supervisor *supervisor, int client_fd, bool is_dry_run)
{
    uint32_t phase = supervisor_phase(supervisor);
    if (phase != SHM_PHASE_RUNNING) {
        control_end(client_fd, phase == SHM_PHASE_DRAINING ? CONTROL_DONE : CONTROL_FAILED, "%s is %s",
                    supervisor->config->instance, shm_phase_name(phase));
        return;
    }
    control_end(client_fd, CONTROL_DONE, "%s %s%s", is_dry_run ? "would drain" : "draining",
                supervisor->config->instance,
                is_anything_paused(supervisor)
                    ? "; paused sources and stages hold it up until you resume them"
                    : "");
    if (!is_dry_run)
        phase_drain(supervisor);
}

/* Whether all members of a control request are known and of the right type; if not, sends the client an
 * error. The supervisor checks the requests that it serves itself: if it ignored a mistyped "stage", for
 * example, a restart would act on the whole source. */
static bool is_request_valid(const cJSON *request, int client_fd)
{
    const cJSON *member;
    cJSON_ArrayForEach(member, request)
    {
        const char *member_name = member->string;
        bool is_text_member = strcmp(member_name, "command") == 0 || strcmp(member_name, "source") == 0 ||
                              strcmp(member_name, "stage") == 0;
        if (!is_text_member && strcmp(member_name, "dry_run") != 0)
            control_end(client_fd, CONTROL_USAGE, "unknown member \"%.60s\"", member_name);
        else if (is_text_member ? !cJSON_IsString(member) : !cJSON_IsBool(member))
            control_end(client_fd, CONTROL_USAGE, "\"%s\" must be %s", member_name,
                        is_text_member ? "a text" : "true or false");
        else
            continue;
        return false;
    }
    return true;
}

/* Serves a control command that is the supervisor's own: ping, pause, resume, restart, drain or stop.
 * serve_request passes all others to the keeper, because only that may open the store. */
static void serve_supervisor_command(struct supervisor *supervisor, enum control_command_id command,
                                     const cJSON *request, int client_fd)
{
    bool is_dry_run = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(request, "dry_run"));
    const char *instance = supervisor->config->instance;
    if (command == CONTROL_COMMAND_PING) {
        control_end(client_fd, CONTROL_DONE, "%s is %s, process %d", instance,
                    shm_phase_name(supervisor_phase(supervisor)), (int)supervisor->pid);
    } else if (command == CONTROL_COMMAND_PAUSE) {
        serve_pause_or_resume(supervisor, request, client_fd, true, is_dry_run);
    } else if (command == CONTROL_COMMAND_RESUME) {
        serve_pause_or_resume(supervisor, request, client_fd, false, is_dry_run);
    } else if (command == CONTROL_COMMAND_RESTART) {
        serve_restart(supervisor, request, client_fd, is_dry_run);
    } else if (command == CONTROL_COMMAND_DRAIN) {
        serve_drain(supervisor, client_fd, is_dry_run);
    } else {
        control_end(client_fd, CONTROL_DONE, "%s %s", is_dry_run ? "would stop" : "stopping", instance);
        if (!is_dry_run)
            phase_stop(supervisor);
    }
}

/* ---- requests ---- */

/* Passes a control request and the client's connection to the keeper, which opens the store and
 * answers. If the keeper is busy or not running, the supervisor answers with an error. */
static void pass_request_to_keeper(struct supervisor *supervisor, const struct client *client)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec line = {.iov_base = client->request_line, .iov_len = client->request_bytes};
    struct msghdr message = {.msg_iov = &line,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
                                      .cmsg_level = SOL_SOCKET,
                                      .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &client->fd, sizeof(int));
    const struct child *keeper = &supervisor->children[supervisor->segment.header->keeper_slot];
    ssize_t sent = -1;
    if (keeper->pid != 0 && keeper->is_ready && supervisor->keeper_fd >= 0)
        sent = sendmsg(supervisor->keeper_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0)
        control_end(client->fd, CONTROL_FAILED, "the keeper is %s, try again",
                    keeper->pid != 0 && keeper->is_ready ? "busy" : "not running");
}

/* The supervisor calls this once for each client: checks a complete control request and the rights of its
 * sender, then serves it or passes it to the keeper. Only root and the daemon's user may change something. */
static void serve_request(struct supervisor *supervisor, struct client *client)
{
    /* cJSON alone accepts an object with anything behind it. */
    cJSON *request = json_valid(client->request_line, client->request_bytes, NULL)
                         ? cJSON_ParseWithLength(client->request_line, client->request_bytes)
                         : NULL;
    const char *command_name = cJSON_IsObject(request) ? get_text_member(request, "command") : NULL;
    const struct control_command *command = command_name != NULL ? control_command_find(command_name) : NULL;
    bool changes_data = command != NULL && (command->changes || cJSON_HasObjectItem(request, "set"));
    if (command_name == NULL)
        control_end(client->fd, CONTROL_USAGE, "expected one line, a JSON object with \"command\"");
    else if (command == NULL || command->server == CONTROL_BY_CLI)
        control_end(client->fd, CONTROL_USAGE, "unknown command %s", command_name);
    else if (changes_data && client->uid != geteuid() && client->uid != 0)
        control_end(client->fd, CONTROL_FAILED,
                    "not allowed to %s: only root and the daemon's user may change something", command_name);
    else if (command->server == CONTROL_BY_KEEPER)
        pass_request_to_keeper(supervisor, client);
    else if (is_request_valid(request, client->fd))
        serve_supervisor_command(supervisor, command->id, request, client->fd);
    cJSON_Delete(request);
}

/* Reads what has arrived of a client's request line on the control socket, and nothing after the line,
 * which belongs to the process that serves the request. The supervisor runs it for each client. Returns 1
 * = the line is complete, 0 = not yet, -1 = the client is gone or memory is exhausted. */
static int read_request_line(struct client *client)
{
    static char peeked[CONTROL_REQUEST_BYTES];
    ssize_t available_bytes =
        recv(client->fd, peeked, sizeof peeked - client->request_bytes, MSG_PEEK | MSG_DONTWAIT);
    if (available_bytes < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (available_bytes <= 0)
        return -1;
    const char *line_end = memchr(peeked, '\n', (size_t)available_bytes);
    size_t line_bytes = line_end != NULL ? (size_t)(line_end - peeked) + 1 : (size_t)available_bytes;
    char *request = realloc(client->request_line, client->request_bytes + line_bytes);
    if (request == NULL)
        return -1;
    client->request_line = request;
    ssize_t received_bytes = recv(client->fd, request + client->request_bytes, line_bytes, MSG_DONTWAIT);
    if (received_bytes != (ssize_t)line_bytes)
        return -1;
    client->request_bytes += line_bytes;
    if (line_end != NULL)
        client->request_bytes--; /* without its line feed */
    return line_end != NULL;
}

/* Reads from a client of the control socket, and serves its request once the line is complete. The
 * supervisor's loop calls it when the client has sent something. Never waits for the client. */
void control_read_client(struct supervisor *supervisor, uint32_t client_index)
{
    struct client *client = &supervisor->clients[client_index];
    if (client->fd < 0)
        return; /* disconnected earlier in this round of the loop */
    int line_state = read_request_line(client);
    if (line_state == 1)
        serve_request(supervisor, client);
    else if (line_state == 0 && client->request_bytes >= CONTROL_REQUEST_BYTES)
        control_end(client->fd, CONTROL_USAGE, "the request is longer than %d bytes", CONTROL_REQUEST_BYTES);
    else if (line_state == 0)
        return;
    disconnect_client(supervisor, client);
}
