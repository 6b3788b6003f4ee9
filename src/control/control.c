/* SPDX-License-Identifier: MIT */
/*
 * The control protocol: its table of commands, the answering side's way to write a line, and the asking side
 * whole. Runs in the supervisor and the keeper (answers) and in the command line (asks). Owns no descriptor:
 * whoever calls does.
 *
 * Invariants
 *  1. A line is written whole, or the client counts as gone. Nobody blocks longer than SAY_MS on a client.
 *  2. The asking side reads while it sends: neither side can wait for the other for ever.
 *  3. An answer without its last line is no answer: control_ask never takes a broken connection for success.
 */
#include "src/control/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shm/slot.h"
#include "src/base/log.h"
#include "src/json/json.h"

#define SAY_MS 5000
#define CONNECT_S 5
#define NS_PER_MS UINT64_C(1000000)
#define READ_BYTES 65536

/* Milliseconds left of `limit_ms` since start_ns, for poll: 0 when the time is over, -1 for ever. */
static int time_left(uint64_t start_ns, uint64_t limit_ms)
{
    if (limit_ms == UINT64_MAX)
        return -1;
    uint64_t passed_ms = (shm_now_ns() - start_ns) / NS_PER_MS;
    if (passed_ms >= limit_ms)
        return 0;
    uint64_t left_ms = limit_ms - passed_ms;
    return left_ms > 60000 ? 60000 : (int)left_ms;
}

/* MSG_DONTWAIT whatever the descriptor's own mode: it is shared with the process that passed it on. */
static int send_all(int fd, const char *bytes, size_t count)
{
    uint64_t start_ns = shm_now_ns();
    while (count > 0) {
        ssize_t sent = send(fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            bytes += sent;
            count -= (size_t)sent;
            continue;
        }
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN)
            return EP_ESYSTEM;
        int left = time_left(start_ns, SAY_MS);
        struct pollfd waiting = {.fd = fd, .events = POLLOUT};
        if (left == 0 || (poll(&waiting, 1, left) < 0 && errno != EINTR))
            return EP_ESYSTEM;
    }
    return EP_OK;
}

int control_say(int fd, const char *json, size_t bytes)
{
    char small[1024];
    char *line = bytes < sizeof small ? small : malloc(bytes + 1);
    if (line == NULL)
        return EP_ESYSTEM;
    memcpy(line, json, bytes);
    line[bytes] = '\n';
    int result = send_all(fd, line, bytes + 1);
    if (line != small)
        free(line);
    return result;
}

int control_end(int fd, enum control_code code, const char *format, ...)
{
    char message[2048];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    struct json_out out = {0};
    json_write_text(&out, "{\"end\":true,\"code\":");
    json_write_uint(&out, (uint64_t)code);
    json_write_text(&out, ",\"message\":");
    json_write_string(&out, message, strlen(message));
    json_write_text(&out, "}");
    int result = out.failed ? EP_ESYSTEM : control_say(fd, out.text, out.bytes);
    json_write_free(&out);
    return result;
}

/* ---- the client's side ---- */

int control_connect(const char *path, int *fd, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return base_error_set(error, EP_EINVAL, "the path of the control socket is too long: %s", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made < 0)
        return base_error_set(error, EP_ESYSTEM, "cannot make a socket: %s", strerror(errno));
    /* Only connect() heeds it: all else here asks with poll. Without it a full queue before a stopped daemon
     * would be waited for without end. */
    const struct timeval limit = {.tv_sec = CONNECT_S};
    setsockopt(made, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(made, (struct sockaddr *)&address, sizeof address) == 0) {
        *fd = made;
        return EP_OK;
    }
    int reason = errno;
    close(made);
    if (reason == ENOENT || reason == ECONNREFUSED || reason == ENOTDIR)
        return base_error_set(error, EP_ENOENT, "nobody listens at %s (%s)", path, strerror(reason));
    if (reason == EAGAIN)
        return base_error_set(error, EP_ESTATE, "whoever listens at %s takes no calls", path);
    if (reason == EACCES || reason == EPERM)
        return base_error_set(error, EP_EACCESS, "not allowed to use %s: run as root or as the daemon's user",
                              path);
    return base_error_set(error, EP_ESYSTEM, "%s: %s", path, strerror(reason));
}

struct conversation {
    int fd;
    const struct control_question *question;
    struct json_out sending;  /* the request line with its line feed */
    size_t sent;              /* of the line and the body together */
    struct json_out received; /* what came and is not a whole line yet */
    control_on_line *on_line;
    void *user;
    struct error *error;
    bool ended, shut, begun; /* begun: something was received */
    int code;
};

static size_t bytes_to_send(const struct conversation *client)
{
    return client->sending.bytes + client->question->body_bytes;
}

/* Sends what the socket takes now. A daemon that does not want to read on will say why: that is no failure
 * here. */
static void send_question(struct conversation *client)
{
    while (client->sent < bytes_to_send(client)) {
        bool line = client->sent < client->sending.bytes;
        size_t at = line ? client->sent : client->sent - client->sending.bytes;
        const char *from = line ? client->sending.text : client->question->body;
        size_t count = (line ? client->sending.bytes : client->question->body_bytes) - at;
        ssize_t sent = send(client->fd, from + at, count, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent <= 0) {
            client->sent = bytes_to_send(client);
            break;
        }
        client->sent += (size_t)sent;
    }
    if (!client->shut)
        shutdown(client->fd, SHUT_WR);
    client->shut = true;
}

/* One line of the answer: data for the caller, or the end. */
static int receive_line(struct conversation *client, char *line, size_t bytes)
{
    struct json_span whole = {line, bytes}, value;
    int64_t code;
    char shown[201];
    base_log_clean(line, shown, sizeof shown);
    if (!json_valid(line, bytes, NULL))
        return base_error_set(client->error, EP_EPROTO, "the daemon's answer is not JSON: %s", shown);
    if (!json_find(whole, "/end", &value))
        return client->on_line != NULL ? client->on_line(line, bytes, client->user) : EP_OK;
    if (!json_find(whole, "/code", &value) || !json_int64(value, &code) || code < 0 || code > CONTROL_NOTHING)
        return base_error_set(client->error, EP_EPROTO, "the daemon's answer ends in a malformed line: %s",
                              shown);
    client->ended = true;
    client->code = (int)code;
    char *message = json_find(whole, "/message", &value) ? json_text(value) : NULL;
    base_error_set(client->error, EP_OK, "%s", message != NULL ? message : "");
    free(message);
    return EP_OK;
}

/* Every whole line received so far; the rest stays for the next time. */
static int receive_lines(struct conversation *client)
{
    size_t done = 0;
    int result = EP_OK;
    while (result == EP_OK && !client->ended) {
        char *feed = memchr(client->received.text + done, '\n', client->received.bytes - done);
        if (feed == NULL)
            break;
        *feed = '\0';
        result =
            receive_line(client, client->received.text + done, (size_t)(feed - client->received.text) - done);
        done = (size_t)(feed - client->received.text) + 1;
    }
    memmove(client->received.text, client->received.text + done, client->received.bytes - done);
    client->received.bytes -= done;
    return result;
}

static int receive(struct conversation *client)
{
    char buffer[READ_BYTES];
    ssize_t got = recv(client->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return EP_OK;
    if (got <= 0)
        return base_error_set(
            client->error, EP_ESYSTEM,
            "the daemon went away before it had answered: what it did until then is not known");
    client->begun = true;
    json_write_raw(&client->received, buffer, (size_t)got);
    if (client->received.failed)
        return base_error_set(client->error, EP_ENOMEM, "out of memory");
    return receive_lines(client);
}

int control_ask(int fd, const struct control_question *question, control_on_line *on_line, void *user,
                struct error *error)
{
    struct conversation client = {
        .fd = fd, .question = question, .on_line = on_line, .user = user, .error = error};
    json_write_text(&client.sending, question->line);
    json_write_text(&client.sending, "\n");
    int result = client.sending.failed ? base_error_set(error, EP_ENOMEM, "out of memory") : EP_OK;
    uint64_t last_ns = shm_now_ns();
    while (result == EP_OK && !client.ended) {
        struct pollfd socket = {.fd = fd, .events = POLLIN | (client.shut ? 0 : POLLOUT)};
        uint64_t patience_ms =
            client.begun || question->first_ms == 0 ? question->patience_ms : question->first_ms;
        int left = time_left(last_ns, patience_ms);
        int ready = left == 0 ? 0 : poll(&socket, 1, left);
        if (ready < 0 && errno != EINTR)
            result = base_error_set(error, EP_ESYSTEM, "poll: %s", strerror(errno));
        bool works = left == 0 && question->works != NULL && question->works(question->works_user);
        if (left == 0 && !works)
            result = base_error_set(error, EP_ESTATE,
                                    "no answer within %u s: what was done until then is not known",
                                    (unsigned)(patience_ms / 1000));
        if (works)
            last_ns = shm_now_ns();
        if (ready <= 0)
            continue;
        last_ns = shm_now_ns();
        if ((socket.revents & POLLOUT) != 0)
            send_question(&client);
        if ((socket.revents & (POLLIN | POLLHUP | POLLERR)) != 0)
            result = receive(&client);
    }
    json_write_free(&client.sending);
    json_write_free(&client.received);
    return result == EP_OK ? client.code : result;
}
