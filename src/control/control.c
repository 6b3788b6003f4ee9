/* SPDX-License-Identifier: MIT */
/*
 * The control protocol: how a server sends the lines of an answer, and the client's side. The
 * supervisor and the keeper send answers; the command line asks. Every descriptor belongs to the caller.
 *
 * Invariants
 *  1. A line is sent whole, or the client counts as gone. No client blocks a server for longer than
 *     SEND_MS.
 *  2. The client reads while it sends, so the two sides never wait for each other.
 *  3. An answer without its last line is an error: control_ask never takes a broken connection for success.
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

#define SEND_MS 5000
#define CONNECT_S 5
#define NS_PER_MS UINT64_C(1000000)
#define READ_BYTES 65536

/* Control protocol: returns the timeout for poll until limit_ms after start_ns, at most 60 s: 0 = the time
 * is over, -1 = no limit. Any process that sends or waits on the control socket. */
static int remaining_poll_ms(uint64_t start_ns, uint64_t limit_ms)
{
    if (limit_ms == UINT64_MAX)
        return -1;
    uint64_t passed_ms = (shm_now_ns() - start_ns) / NS_PER_MS;
    if (passed_ms >= limit_ms)
        return 0;
    uint64_t left_ms = limit_ms - passed_ms;
    return left_ms > 60000 ? 60000 : (int)left_ms;
}

/* Control protocol: sends all bytes, or fails after 5 s, so that a client that does not read cannot block
 * the supervisor or the keeper. It uses MSG_DONTWAIT and leaves the descriptor's mode alone, because the
 * supervisor and the keeper share the descriptor. */
static int send_bytes(int fd, const char *bytes, size_t count)
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
        int left = remaining_poll_ms(start_ns, SEND_MS);
        struct pollfd waiting = {.fd = fd, .events = POLLOUT};
        if (left == 0 || (poll(&waiting, 1, left) < 0 && errno != EINTR))
            return EP_ESYSTEM;
    }
    return EP_OK;
}

/* Control protocol: sends one line of an answer to the client. The keeper and the supervisor call it, also
 * a child of `eventpipe` while the daemon is down. Returns EP_ESYSTEM if the client is gone or takes
 * nothing for 5 s. */
int control_send_line(int fd, const char *json, size_t bytes)
{
    char small[1024];
    char *line = bytes < sizeof small ? small : malloc(bytes + 1);
    if (line == NULL)
        return EP_ESYSTEM;
    memcpy(line, json, bytes);
    line[bytes] = '\n';
    int result = send_bytes(fd, line, bytes + 1);
    if (line != small)
        free(line);
    return result;
}

/* Control protocol: sends the last line of an answer, with the exit status for `eventpipe` and a message.
 * The supervisor and the keeper call it exactly once per request. Without it `eventpipe` must assume that
 * the server crashed. */
int control_end(int fd, enum control_code code, const char *format, ...)
{
    char message[2048];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    struct text out = {0};
    base_text_append(&out, "{\"end\":true,\"code\":");
    json_write_uint(&out, (uint64_t)code);
    base_text_append(&out, ",\"message\":");
    json_write_string(&out, message, strlen(message));
    base_text_append(&out, "}");
    int result = out.failed ? EP_ESYSTEM : control_send_line(fd, out.text, out.bytes);
    base_text_free(&out);
    return result;
}

/* ---- the client's side ---- */

/* Control protocol: connects to the daemon's control socket. `eventpipe` calls it before each command. The
 * supervisor calls it at its start to see whether another daemon listens there. EP_ENOENT: no process
 * listens. */
int control_connect(const char *path, int *fd, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return base_error_set(error, EP_EINVAL, "the path of the control socket is too long: %s", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made < 0)
        return base_error_set(error, EP_ESYSTEM, "cannot create a socket: %s", strerror(errno));
    /* This limits connect() only; everything else here uses poll. Without it connect() would block for
     * ever on the full queue of a stopped daemon. */
    const struct timeval limit = {.tv_sec = CONNECT_S};
    setsockopt(made, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(made, (struct sockaddr *)&address, sizeof address) == 0) {
        *fd = made;
        return EP_OK;
    }
    int reason = errno;
    close(made);
    if (reason == ENOENT || reason == ECONNREFUSED || reason == ENOTDIR)
        return base_error_set(error, EP_ENOENT, "no process listens at %s (%s)", path, strerror(reason));
    if (reason == EAGAIN)
        return base_error_set(error, EP_ESTATE, "the process that listens at %s accepts no connections",
                              path);
    if (reason == EACCES || reason == EPERM)
        return base_error_set(error, EP_EACCESS, "not allowed to use %s: run as root or as the daemon's user",
                              path);
    return base_error_set(error, EP_ESYSTEM, "%s: %s", path, strerror(reason));
}

/* One exchange with a server. */
struct conversation {
    int fd;
    const struct control_question *question;
    struct text sending;  /* the request line with its line feed */
    size_t sent;          /* of the line and the body together */
    struct text received; /* what came and is not a whole line yet */
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

/* Control protocol, in `eventpipe`: sends as much of the request and its events as the socket takes now.
 * If sending fails, the server has stopped reading; its answer says why, so this is not an error here. */
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

/* Control protocol, in `eventpipe`: handles one line of the daemon's answer. A data line goes to the
 * command's callback; the last line sets the exit status and the message. A malformed line is EP_EPROTO. */
static int handle_answer_line(struct conversation *client, char *line, size_t bytes)
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

/* Control protocol, in `eventpipe`: handles every whole line of the daemon's answer received so far and
 * keeps the rest. */
static int handle_answer_lines(struct conversation *client)
{
    size_t done = 0;
    int result = EP_OK;
    while (result == EP_OK && !client->ended) {
        char *feed = memchr(client->received.text + done, '\n', client->received.bytes - done);
        if (feed == NULL)
            break;
        *feed = '\0';
        result = handle_answer_line(client, client->received.text + done,
                                    (size_t)(feed - client->received.text) - done);
        done = (size_t)(feed - client->received.text) + 1;
    }
    memmove(client->received.text, client->received.text + done, client->received.bytes - done);
    client->received.bytes -= done;
    return result;
}

/* Control protocol, in `eventpipe`: reads what has arrived of the daemon's answer. A connection that
 * closes before the last line is an error: the daemon may have crashed in the middle of the command. */
static int receive_answer(struct conversation *client)
{
    char buffer[READ_BYTES];
    ssize_t got = recv(client->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return EP_OK;
    if (got <= 0)
        return base_error_set(
            client->error, EP_ESYSTEM,
            "the daemon closed the connection before its answer ended: it may have done part of the command");
    client->begun = true;
    base_text_append_bytes(&client->received, buffer, (size_t)got);
    if (client->received.failed)
        return base_error_set(client->error, EP_ENOMEM, "out of memory");
    return handle_answer_lines(client);
}

/* Control protocol: sends a request and reads the whole answer, for every `eventpipe` command that the
 * daemon serves. It sends and reads at the same time, because a server that answers while events are being
 * sent would otherwise wait for ever. Returns the exit status, or a negative code. */
int control_ask(int fd, const struct control_question *question, control_on_line *on_line, void *user,
                struct error *error)
{
    struct conversation client = {
        .fd = fd, .question = question, .on_line = on_line, .user = user, .error = error};
    base_text_append(&client.sending, question->line);
    base_text_append(&client.sending, "\n");
    int result = client.sending.failed ? base_error_set(error, EP_ENOMEM, "out of memory") : EP_OK;
    uint64_t last_ns = shm_now_ns();
    while (result == EP_OK && !client.ended) {
        struct pollfd socket = {.fd = fd, .events = POLLIN | (client.shut ? 0 : POLLOUT)};
        uint64_t patience_ms =
            client.begun || question->first_ms == 0 ? question->patience_ms : question->first_ms;
        int left = remaining_poll_ms(last_ns, patience_ms);
        int ready = left == 0 ? 0 : poll(&socket, 1, left);
        if (ready < 0 && errno != EINTR)
            result =
                base_error_set(error, EP_ESYSTEM, "cannot wait for the daemon's answer: %s", strerror(errno));
        bool wait_on =
            left == 0 && question->on_silence != NULL && question->on_silence(question->on_silence_user);
        if (left == 0 && !wait_on)
            result = base_error_set(error, EP_ESTATE,
                                    "no answer within %u s: the daemon may have done part of the command",
                                    (unsigned)(patience_ms / 1000));
        if (wait_on)
            last_ns = shm_now_ns();
        if (ready <= 0)
            continue;
        last_ns = shm_now_ns();
        if ((socket.revents & POLLOUT) != 0)
            send_question(&client);
        if ((socket.revents & (POLLIN | POLLHUP | POLLERR)) != 0)
            result = receive_answer(&client);
    }
    base_text_free(&client.sending);
    base_text_free(&client.received);
    return result == EP_OK ? client.code : result;
}
