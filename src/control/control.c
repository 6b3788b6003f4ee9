/* SPDX-License-Identifier: MIT */
/*
 * The control protocol: its table of verbs, the answering side's way to write a line, and the asking side
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
#include "src/json/json.h"
#include "src/base/log.h"

#define SAY_MS 5000
#define CONNECT_S 5
#define NS_PER_MS UINT64_C(1000000)
#define READ_BYTES 65536

static const struct control_verb verbs[] = {
#define X(name, keeper, changes) {#name, keeper, changes},
    CONTROL_VERBS(X)
#undef X
};

const struct control_verb *control_verb_find(const char *name)
{
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    return NULL;
}

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
    char words[2048];
    va_list list;
    va_start(list, format);
    vsnprintf(words, sizeof words, format, list);
    va_end(list);
    struct json_out out = {0};
    json_out_words(&out, "{\"end\":true,\"code\":");
    json_out_uint(&out, (uint64_t)code);
    json_out_words(&out, ",\"words\":");
    json_out_string(&out, words, strlen(words));
    json_out_words(&out, "}");
    int result = out.failed ? EP_ESYSTEM : control_say(fd, out.text, out.bytes);
    json_out_free(&out);
    return result;
}

/* ---- the client's side ---- */

int control_connect(const char *path, int *fd, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return error_set(error, EP_EINVAL, "the path of the control socket is too long: %s", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made < 0)
        return error_set(error, EP_ESYSTEM, "cannot make a socket: %s", strerror(errno));
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
        return error_set(error, EP_ENOENT, "nobody listens at %s (%s)", path, strerror(reason));
    if (reason == EAGAIN)
        return error_set(error, EP_ESTATE, "whoever listens at %s takes no calls", path);
    if (reason == EACCES || reason == EPERM)
        return error_set(error, EP_EACCESS, "not allowed to use %s: run as root or as the daemon's user",
                         path);
    return error_set(error, EP_ESYSTEM, "%s: %s", path, strerror(reason));
}

struct conversation {
    int fd;
    const struct control_question *question;
    struct json_out sending; /* the request line with its line feed */
    size_t sent;             /* of the line and the body together */
    struct json_out heard;   /* what came and is not a whole line yet */
    control_on_line *see;
    void *user;
    struct error *error;
    bool ended, shut, begun; /* begun: something was heard */
    int code;
};

static size_t bytes_to_send(const struct conversation *talk)
{
    return talk->sending.bytes + talk->question->body_bytes;
}

/* Sends what the socket takes now. A daemon that does not want to read on will say why: that is no failure
 * here. */
static void speak(struct conversation *talk)
{
    while (talk->sent < bytes_to_send(talk)) {
        bool line = talk->sent < talk->sending.bytes;
        size_t at = line ? talk->sent : talk->sent - talk->sending.bytes;
        const char *from = line ? talk->sending.text : talk->question->body;
        size_t count = (line ? talk->sending.bytes : talk->question->body_bytes) - at;
        ssize_t sent = send(talk->fd, from + at, count, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent <= 0) {
            talk->sent = bytes_to_send(talk);
            break;
        }
        talk->sent += (size_t)sent;
    }
    if (!talk->shut)
        shutdown(talk->fd, SHUT_WR);
    talk->shut = true;
}

/* One line of the answer: data for the caller, or the end. */
static int hear_line(struct conversation *talk, char *line, size_t bytes)
{
    struct json_span whole = {line, bytes}, value;
    int64_t code;
    char shown[201];
    log_clean(line, shown, sizeof shown);
    if (!json_valid(line, bytes, NULL))
        return error_set(talk->error, EP_EGARBAGE, "the daemon's answer is not JSON: %s", shown);
    if (!json_find(whole, "/end", &value))
        return talk->see != NULL ? talk->see(line, bytes, talk->user) : EP_OK;
    if (!json_find(whole, "/code", &value) || !json_int64(value, &code) || code < 0 || code > CONTROL_NOTHING)
        return error_set(talk->error, EP_EGARBAGE, "the daemon's answer ends in nonsense: %s", shown);
    talk->ended = true;
    talk->code = (int)code;
    char *words = json_find(whole, "/words", &value) ? json_text(value) : NULL;
    error_set(talk->error, EP_OK, "%s", words != NULL ? words : "");
    free(words);
    return EP_OK;
}

/* Every whole line heard so far; the rest stays for the next time. */
static int hear_lines(struct conversation *talk)
{
    size_t done = 0;
    int result = EP_OK;
    while (result == EP_OK && !talk->ended) {
        char *feed = memchr(talk->heard.text + done, '\n', talk->heard.bytes - done);
        if (feed == NULL)
            break;
        *feed = '\0';
        result = hear_line(talk, talk->heard.text + done, (size_t)(feed - talk->heard.text) - done);
        done = (size_t)(feed - talk->heard.text) + 1;
    }
    memmove(talk->heard.text, talk->heard.text + done, talk->heard.bytes - done);
    talk->heard.bytes -= done;
    return result;
}

static int hear(struct conversation *talk)
{
    char buffer[READ_BYTES];
    ssize_t got = recv(talk->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return EP_OK;
    if (got <= 0)
        return error_set(talk->error, EP_ESYSTEM,
                         "the daemon went away before it had answered: what it did until then is not known");
    talk->begun = true;
    json_out_raw(&talk->heard, buffer, (size_t)got);
    if (talk->heard.failed)
        return error_set(talk->error, EP_ENOMEM, "out of memory");
    return hear_lines(talk);
}

int control_ask(int fd, const struct control_question *question, control_on_line *see, void *user,
                struct error *error)
{
    struct conversation talk = {.fd = fd, .question = question, .see = see, .user = user, .error = error};
    json_out_words(&talk.sending, question->line);
    json_out_words(&talk.sending, "\n");
    int result = talk.sending.failed ? error_set(error, EP_ENOMEM, "out of memory") : EP_OK;
    uint64_t last_ns = shm_now_ns();
    while (result == EP_OK && !talk.ended) {
        struct pollfd socket = {.fd = fd, .events = POLLIN | (talk.shut ? 0 : POLLOUT)};
        uint64_t patience_ms =
            talk.begun || question->first_ms == 0 ? question->patience_ms : question->first_ms;
        int left = time_left(last_ns, patience_ms);
        int ready = left == 0 ? 0 : poll(&socket, 1, left);
        if (ready < 0 && errno != EINTR)
            result = error_set(error, EP_ESYSTEM, "poll: %s", strerror(errno));
        bool works = left == 0 && question->works != NULL && question->works(question->works_user);
        if (left == 0 && !works)
            result =
                error_set(error, EP_ESTATE, "no answer within %u s: what was done until then is not known",
                          (unsigned)(patience_ms / 1000));
        if (works)
            last_ns = shm_now_ns();
        if (ready <= 0)
            continue;
        last_ns = shm_now_ns();
        if ((socket.revents & POLLOUT) != 0)
            speak(&talk);
        if ((socket.revents & (POLLIN | POLLHUP | POLLERR)) != 0)
            result = hear(&talk);
    }
    json_out_free(&talk.sending);
    json_out_free(&talk.heard);
    return result == EP_OK ? talk.code : result;
}
