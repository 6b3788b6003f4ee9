/* SPDX-License-Identifier: MIT */
/*
 * The log. Every process writes through it: base_log_open runs before the first fork, and each child
 * inherits what it set up. A child gives itself a name; if its stderr is the supervisor's pipe, it also
 * turns the relay mode on.
 *
 * Owns log_state, which says how this process writes its lines.
 *
 * Invariants
 *  1. A line is one write(2) of at most LINE_BYTES (no more than PIPE_BUF), so lines of different
 *     processes never mix.
 *  2. A line holds no control characters except the newline at its end (and, in relay mode, the mark at
 *     its beginning). So no text from a backend or a stage can forge a line or control a terminal.
 *  3. errno keeps its value.
 *
 * Survived: a stderr that cannot take a line now (EAGAIN) or at all. Such lines are counted, and the
 * next line that gets through says how many were lost. A blocking stderr blocks.
 */
#include "src/base/log.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/base/utf8.h"

#define LINE_BYTES 4096
#define NOTE_BYTES 64
#define RELAY_MARK '\x1e' /* marks our lines; what stages print has no mark */

static_assert(LINE_BYTES <= PIPE_BUF, "a longer write to a pipe may be torn apart");

static struct {
    enum ep_severity level;
    ep_log_function *function;
    void *user;
    char name[128];
    bool journal, relay;
    unsigned long lost;
} log_state = {.level = EP_LOG_INFO};

/* Whether stderr goes to the systemd journal, which wants priorities in place of the time. Runs once, in
 * the supervisor or the library caller's process, when the log is opened. systemd sets JOURNAL_STREAM to
 * device:inode of the stream it gave us; a shell in between may have redirected stderr. */
static bool is_stderr_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat about;
    return stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &about) == 0 && (unsigned long long)about.st_dev == device &&
           (unsigned long long)about.st_ino == inode;
}

/* Sets the level of the log and who receives its lines. Called before the first fork, by eventpiped's main
 * and by the library when an instance starts. Every process of the instance inherits these settings. */
void base_log_open(enum ep_severity level, ep_log_function *function, void *user)
{
    log_state.level = level;
    log_state.function = function;
    log_state.user = user;
    log_state.relay = false;
    log_state.journal = is_stderr_journal();
}

/* Sets the name that precedes each log line of this process, such as "quakes/locate[3]". The supervisor,
 * and each worker, producer and keeper after its fork, name themselves here. */
void base_log_name(const char *format, ...)
{
    char name[sizeof log_state.name];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    base_log_clean(name, log_state.name, sizeof log_state.name);
}

void base_log_relay_mode(bool on)
{
    log_state.relay = on;
}

bool base_log_wanted(enum ep_severity severity)
{
    return severity <= log_state.level;
}

/* Writes what precedes the text of a log line: a mark for the supervisor, a priority for the journal, or
 * the time for people. Returns its length. Runs in any process that logs. */
static size_t write_line_prefix(char *line, size_t size, enum ep_severity severity)
{
    if (log_state.relay)
        return (size_t)snprintf(line, size, "%c<%d>", RELAY_MARK, (int)severity);
    if (log_state.journal)
        return (size_t)snprintf(line, size, "<%d>", (int)severity);
    struct timespec now;
    struct tm local;
    clock_gettime(CLOCK_REALTIME, &now);
    size_t used = 0;
    if (localtime_r(&now.tv_sec, &local) != NULL)
        used = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &local);
    return used + (size_t)snprintf(line + used, size - used, ".%03d ", (int)(now.tv_nsec / 1000000));
}

/* Writes a finished log line to stderr with one write(2), so that lines of different processes never mix.
 * Returns false if stderr did not take all of it. Runs in any process that logs. */
static bool send_to_stderr(const char *line, size_t length)
{
    ssize_t written;
    do
        written = write(STDERR_FILENO, line, length);
    while (written < 0 && errno == EINTR);
    return written == (ssize_t)length;
}

/* Writes one clean log text, which begins with the name of its process, to stderr or to the library
 * caller's function. Counts lines that stderr did not take and mentions them in the next line. Runs in any
 * process that logs. */
static void write_text_line(enum ep_severity severity, const char *text)
{
    char line[LINE_BYTES], note[NOTE_BYTES] = "";
    if (log_state.function != NULL && !log_state.relay) {
        log_state.function(severity, text, log_state.user);
        return;
    }
    if (log_state.lost > 0)
        snprintf(note, sizeof note, " (%lu lines before this were lost)", log_state.lost);
    size_t used = write_line_prefix(line, sizeof line, severity);
    base_log_clean(text, line + used, sizeof line - used - strlen(note));
    used += strlen(line + used);
    memcpy(line + used, note, strlen(note));
    used += strlen(note);
    line[used++] = '\n';
    if (send_to_stderr(line, used))
        log_state.lost = 0;
    else
        log_state.lost++;
}

/* Writes one line to the log if its severity is wanted (base_log_error and its siblings expand to this).
 * Runs in the supervisor, the producer, the workers and the keeper. Leaves errno as it was, so a caller
 * may log before it handles an error. */
void base_log_write(enum ep_severity severity, const char *format, ...)
{
    if (!base_log_wanted(severity))
        return;
    int error = errno;
    char message[LINE_BYTES], text[LINE_BYTES];
    size_t used = 0;
    if (log_state.name[0] != '\0')
        used = (size_t)snprintf(message, sizeof message, "%s: ", log_state.name);
    va_list arguments;
    va_start(arguments, format);
    errno = error; /* the caller may use "%m" */
    vsnprintf(message + used, sizeof message - used, format, arguments);
    va_end(arguments);
    base_log_clean(message, text, sizeof text);
    write_text_line(severity, text);
    errno = error;
}

/* Writes a line to the log that another process has named already. The supervisor calls it for what it
 * reads from its children's stderr. */
void base_log_pass(enum ep_severity severity, const char *line)
{
    if (!base_log_wanted(severity))
        return;
    int error = errno;
    char text[LINE_BYTES];
    base_log_clean(line, text, sizeof text);
    write_text_line(severity, text);
    errno = error;
}

/* Limits repeated log lines about one cause: returns whether one more may be written now, and how many
 * were suppressed before it. Any process may use it, with one struct log_limit for each cause. */
bool base_log_allowed(struct log_limit *limit, uint32_t burst, uint64_t interval_ms, uint32_t *suppressed)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    if (limit->window_ns == 0 || now_ns - limit->window_ns >= interval_ms * 1000000u) {
        limit->window_ns = now_ns;
        limit->in_window = 0;
    }
    if (limit->in_window >= burst) {
        limit->suppressed++;
        return false;
    }
    limit->in_window++;
    *suppressed = limit->suppressed;
    limit->suppressed = 0;
    return true;
}

/* Copies a text and makes it safe for a log line, a terminal or JSON: control characters and invalid UTF-8
 * become '?'. Any process calls it for text from outside (backends, programs of stages, configuration
 * files), which could otherwise forge log lines or control a terminal. */
void base_log_clean(const char *message, char *buffer, unsigned long size)
{
    /* 3 more: the last character that fits may be 4 bytes long */
    const char *at = message, *end = message + strnlen(message, size + 3);
    size_t used = 0;
    if (size == 0)
        return;
    while (at < end) {
        size_t length = base_utf8_length(at, end);
        bool shown = length > 0 && !base_utf8_is_control(at, length);
        size_t bytes = shown ? length : 1;
        if (used + bytes >= size)
            break; /* cut between characters */
        if (shown)
            memcpy(buffer + used, at, length);
        else
            buffer[used] = '?';
        used += bytes;
        at += length > 0 ? length : 1;
    }
    buffer[used] = '\0';
}
