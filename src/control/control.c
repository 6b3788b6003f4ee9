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

/* Returns how long a process may wait for the other end of the control socket so that limit_ms have passed
 * since start_ns, at most 60 s. 0 means that the time is over, -1 that there is no limit (limit_ms is
 * UINT64_MAX). It limits how long the supervisor and the keeper send an answer, and how long `eventpipe`
 * waits for one. */
static int compute_poll_timeout_ms(uint64_t start_ns, uint64_t limit_ms)
{
    if (limit_ms == UINT64_MAX)
        return -1;
    uint64_t elapsed_ms = (shm_now_ns() - start_ns) / NS_PER_MS;
    if (elapsed_ms >= limit_ms)
        return 0;
    uint64_t remaining_ms = limit_ms - elapsed_ms;
    return remaining_ms > 60000 ? 60000 : (int)remaining_ms;
}

/* Sends all bytes to the client of the control socket, or fails with EP_ESYSTEM after 5 s, so that a
 * client that does not read cannot block the supervisor or the keeper. Uses MSG_DONTWAIT and does not
 * make the descriptor non-blocking, because the supervisor and the keeper share it. */
static int send_bytes(int fd, const char *bytes, size_t byte_count)
{
    uint64_t start_ns = shm_now_ns();
    while (byte_count > 0) {
        ssize_t sent_now_bytes = send(fd, bytes, byte_count, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent_now_bytes > 0) {
            bytes += sent_now_bytes;
            byte_count -= (size_t)sent_now_bytes;
            continue;
        }
        if (sent_now_bytes < 0 && errno == EINTR)
            continue;
        if (sent_now_bytes < 0 && errno != EAGAIN)
            return EP_ESYSTEM;
        int timeout_ms = compute_poll_timeout_ms(start_ns, SEND_MS);
        struct pollfd waiting = {.fd = fd, .events = POLLOUT};
        if (timeout_ms == 0 || (poll(&waiting, 1, timeout_ms) < 0 && errno != EINTR))
            return EP_ESYSTEM;
    }
    return EP_OK;
}

/* Sends one line of an answer, with a line feed, to the client of the control socket. Returns EP_OK, or
 * EP_ESYSTEM if the client is gone, takes nothing for 5 s, or memory is exhausted. The keeper calls it,
 * the supervisor, and the child of `eventpipe` that reads the store while the daemon is down. */
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

/* Sends the last line of an answer, with the exit status for `eventpipe` and a message. Returns EP_OK or
 * EP_ESYSTEM. The supervisor or the keeper calls it exactly once per request: without this line
 * `eventpipe` must assume that the server crashed. */
int control_end(int fd, enum control_code code, const char *format, ...)
{
    char message[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
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

/* Connects to the daemon's control socket. Returns EP_OK and sets *fd, or an error code with a message;
 * EP_ENOENT means that no process listens. `eventpipe` calls it before each command; the supervisor
 * calls it when it starts, to see whether another daemon listens there. */
int control_connect(const char *path, int *fd, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return base_error_set(error, EP_EINVAL, "the path of the control socket is too long: %s", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    int new_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (new_fd < 0)
        return base_error_set(error, EP_ESYSTEM, "cannot create a socket for %s: %s", path, strerror(errno));
    /* This limits connect() only; everything else here uses poll. Without it connect() would block for
     * ever on the full queue of a stopped daemon. */
    const struct timeval limit = {.tv_sec = CONNECT_S};
    setsockopt(new_fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(new_fd, (struct sockaddr *)&address, sizeof address) == 0) {
        *fd = new_fd;
        return EP_OK;
    }
    int connect_errno = errno;
    close(new_fd);
    if (connect_errno == ENOENT || connect_errno == ECONNREFUSED || connect_errno == ENOTDIR)
        return base_error_set(error, EP_ENOENT, "no process listens at %s (%s)", path,
                              strerror(connect_errno));
    if (connect_errno == EAGAIN)
        return base_error_set(error, EP_ESTATE, "the process that listens at %s accepts no connections",
                              path);
    if (connect_errno == EACCES || connect_errno == EPERM)
        return base_error_set(error, EP_EACCESS, "not allowed to use %s: run as root or as the daemon's user",
                              path);
    return base_error_set(error, EP_ESYSTEM, "cannot connect to %s: %s", path, strerror(connect_errno));
}

/* One exchange with a server. */
struct exchange {
    int fd;
    const struct control_question *question;
    struct text request_line; /* the request line with its line feed */
    size_t sent_bytes;        /* of the line and the body together */
    struct text received;     /* what came and is not a whole line yet */
    control_on_line *on_line;
    void *user;
    struct error *error;
    bool answer_ended, sending_ended;
    bool answer_begun; /* something was received */
    int exit_code;     /* enum control_code of the last line */
};

static size_t bytes_to_send(const struct exchange *exchange)
{
    return exchange->request_line.bytes + exchange->question->body_bytes;
}

/* Sends as much of a control request, and of the events that follow it, as the socket takes now. A failure
 * to send is not an error here: the server has stopped reading, and its answer says why. `eventpipe` calls
 * it while it waits for the answer. */
static void send_request_bytes(struct exchange *exchange)
{
    while (exchange->sent_bytes < bytes_to_send(exchange)) {
        bool is_in_request_line = exchange->sent_bytes < exchange->request_line.bytes;
        size_t offset =
            is_in_request_line ? exchange->sent_bytes : exchange->sent_bytes - exchange->request_line.bytes;
        const char *part_begin = is_in_request_line ? exchange->request_line.text : exchange->question->body;
        size_t byte_count =
            (is_in_request_line ? exchange->request_line.bytes : exchange->question->body_bytes) - offset;
        ssize_t sent_now_bytes =
            send(exchange->fd, part_begin + offset, byte_count, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent_now_bytes < 0 && errno == EINTR)
            continue;
        if (sent_now_bytes < 0 && errno == EAGAIN)
            return;
        if (sent_now_bytes <= 0) {
            exchange->sent_bytes = bytes_to_send(exchange);
            break;
        }
        exchange->sent_bytes += (size_t)sent_now_bytes;
    }
    if (!exchange->sending_ended)
        shutdown(exchange->fd, SHUT_WR);
    exchange->sending_ended = true;
}

/* Handles one line of the daemon's answer in `eventpipe`. A data line goes to the command's callback;
 * the last line sets the exit status and the message. Returns EP_OK, what the callback returned, or
 * EP_EPROTO for a malformed line. */
static int handle_answer_line(struct exchange *exchange, char *line, size_t bytes)
{
    struct json_span whole = {line, bytes}, value;
    int64_t code;
    char shown_line[201];
    base_log_clean(line, shown_line, sizeof shown_line);
    if (!json_valid(line, bytes, NULL))
        return base_error_set(exchange->error, EP_EPROTO, "the daemon's answer is not JSON: %s", shown_line);
    if (!json_find(whole, "/end", &value))
        return exchange->on_line != NULL ? exchange->on_line(line, bytes, exchange->user) : EP_OK;
    if (!json_find(whole, "/code", &value) || !json_int64(value, &code) || code < 0 || code > CONTROL_NOTHING)
        return base_error_set(exchange->error, EP_EPROTO, "the daemon's answer ends in a malformed line: %s",
                              shown_line);
    exchange->answer_ended = true;
    exchange->exit_code = (int)code;
    char *message = json_find(whole, "/message", &value) ? json_text(value) : NULL;
    base_error_set(exchange->error, EP_OK, "%s", message != NULL ? message : "");
    free(message);
    return EP_OK;
}

/* Handles every whole line of the daemon's answer that `eventpipe` has received so far, and keeps the
 * unfinished rest. Returns EP_OK, or the error code of the first line that failed. */
static int handle_received_lines(struct exchange *exchange)
{
    size_t handled_bytes = 0;
    int result = EP_OK;
    while (result == EP_OK && !exchange->answer_ended) {
        char *line_feed =
            memchr(exchange->received.text + handled_bytes, '\n', exchange->received.bytes - handled_bytes);
        if (line_feed == NULL)
            break;
        *line_feed = '\0';
        result = handle_answer_line(exchange, exchange->received.text + handled_bytes,
                                    (size_t)(line_feed - exchange->received.text) - handled_bytes);
        handled_bytes = (size_t)(line_feed - exchange->received.text) + 1;
    }
    memmove(exchange->received.text, exchange->received.text + handled_bytes,
            exchange->received.bytes - handled_bytes);
    exchange->received.bytes -= handled_bytes;
    return result;
}

/* Receives what has arrived of the daemon's answer and handles its whole lines. A connection that closes
 * before the last line is an error, because the daemon may have crashed in the middle of the command.
 * Called by `eventpipe` whenever the control socket is readable. */
static int receive_answer_bytes(struct exchange *exchange)
{
    char buffer[READ_BYTES];
    ssize_t received_bytes = recv(exchange->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (received_bytes < 0 && (errno == EINTR || errno == EAGAIN))
        return EP_OK;
    if (received_bytes <= 0)
        return base_error_set(
            exchange->error, EP_ESYSTEM,
            "the daemon closed the connection before its answer ended: it may have done part of the command");
    exchange->answer_begun = true;
    base_text_append_bytes(&exchange->received, buffer, (size_t)received_bytes);
    if (exchange->received.failed)
        return base_error_set(exchange->error, EP_ENOMEM, "out of memory");
    return handle_received_lines(exchange);
}

/* Sends a request to the daemon and reads the whole answer, for every `eventpipe` command that the
 * daemon serves. It sends and reads at the same time: a server that answers while it is still being sent
 * events would otherwise wait for ever. Returns the exit status, or a negative error code with a
 * message. */
int control_ask(int fd, const struct control_question *question, control_on_line *on_line, void *user,
                struct error *error)
{
    struct exchange exchange = {
        .fd = fd, .question = question, .on_line = on_line, .user = user, .error = error};
    base_text_append(&exchange.request_line, question->line);
    base_text_append(&exchange.request_line, "\n");
    int result = exchange.request_line.failed ? base_error_set(error, EP_ENOMEM, "out of memory") : EP_OK;
    uint64_t last_activity_ns = shm_now_ns();
    while (result == EP_OK && !exchange.answer_ended) {
        struct pollfd socket = {.fd = fd, .events = POLLIN | (exchange.sending_ended ? 0 : POLLOUT)};
        uint64_t patience_ms =
            exchange.answer_begun || question->first_ms == 0 ? question->patience_ms : question->first_ms;
        int timeout_ms = compute_poll_timeout_ms(last_activity_ns, patience_ms);
        int ready_count = timeout_ms == 0 ? 0 : poll(&socket, 1, timeout_ms);
        if (ready_count < 0 && errno != EINTR)
            result =
                base_error_set(error, EP_ESYSTEM, "cannot wait for the daemon's answer: %s", strerror(errno));
        bool must_wait_again = timeout_ms == 0 && question->on_silence != NULL &&
                               question->on_silence(question->on_silence_user);
        if (timeout_ms == 0 && !must_wait_again)
            result = base_error_set(error, EP_ESTATE,
                                    "no answer within %u s: the daemon may have done part of the command",
                                    (unsigned)(patience_ms / 1000));
        if (must_wait_again)
            last_activity_ns = shm_now_ns();
        if (ready_count <= 0)
            continue;
        last_activity_ns = shm_now_ns();
        if ((socket.revents & POLLOUT) != 0)
            send_request_bytes(&exchange);
        if ((socket.revents & (POLLIN | POLLHUP | POLLERR)) != 0)
            result = receive_answer_bytes(&exchange);
    }
    base_text_free(&exchange.request_line);
    base_text_free(&exchange.received);
    return result == EP_OK ? exchange.exit_code : result;
}
