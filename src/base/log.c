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

/* Returns whether this process's stderr, where its log lines go, is the systemd journal, which wants a
 * priority in place of the time. base_log_open asks once in each process that opens the log. systemd sets
 * JOURNAL_STREAM to device:inode of the stream that it has opened; a shell in between may have redirected
 * stderr. */
static bool is_stderr_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat stderr_status;
    return stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &stderr_status) == 0 && (unsigned long long)stderr_status.st_dev == device &&
           (unsigned long long)stderr_status.st_ino == inode;
}

/* Sets the level of the log and, for a program that uses the library, the function that receives its
 * lines. eventpiped's main and the library call it before the first fork, so that every process of the
 * instance inherits these settings. */
void base_log_open(enum ep_severity level, ep_log_function *function, void *user)
{
    log_state.level = level;
    log_state.function = function;
    log_state.user = user;
    log_state.relay = false;
    log_state.journal = is_stderr_journal();
}

/* Sets the name that precedes each log line of this process, such as "quakes/locate[3]". The supervisor
 * calls it at its start, and each worker, producer and keeper after its fork. */
void base_log_set_name(const char *format, ...)
{
    char name[sizeof log_state.name];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    base_log_clean(name, log_state.name, sizeof log_state.name);
}

void base_log_set_relay_mode(bool is_on)
{
    log_state.relay = is_on;
}

bool base_log_is_wanted(enum ep_severity severity)
{
    return severity <= log_state.level;
}

/* Writes what precedes the text of a log line: a mark by which the supervisor knows lines of its
 * children, a priority for the systemd journal, or the time for people. Returns its length.
 * write_text_line calls it. */
static size_t write_line_prefix(char *line, size_t line_bytes, enum ep_severity severity)
{
    if (log_state.relay)
        return (size_t)snprintf(line, line_bytes, "%c<%d>", RELAY_MARK, (int)severity);
    if (log_state.journal)
        return (size_t)snprintf(line, line_bytes, "<%d>", (int)severity);
    struct timespec now;
    struct tm local_time;
    clock_gettime(CLOCK_REALTIME, &now);
    size_t used_bytes = 0;
    if (localtime_r(&now.tv_sec, &local_time) != NULL)
        used_bytes = strftime(line, line_bytes, "%Y-%m-%dT%H:%M:%S", &local_time);
    return used_bytes + (size_t)snprintf(line + used_bytes, line_bytes - used_bytes, ".%03d ",
                                         (int)(now.tv_nsec / 1000000));
}

/* Writes a finished log line to stderr with one write(2), so that lines of different processes never
 * mix. Returns false if stderr did not take all of it; write_text_line counts such lines. */
static bool send_to_stderr(const char *line, size_t line_bytes)
{
    ssize_t written_bytes;
    do
        written_bytes = write(STDERR_FILENO, line, line_bytes);
    while (written_bytes < 0 && errno == EINTR);
    return written_bytes == (ssize_t)line_bytes;
}

/* Writes one line, which begins with the name of its process, to stderr or to the function of the
 * library's caller. If stderr does not take a line, the next one says how many were lost.
 * base_log_write and base_log_pass end here. */
static void write_text_line(enum ep_severity severity, const char *text)
{
    char line[LINE_BYTES], note[NOTE_BYTES] = "";
    if (log_state.function != NULL && !log_state.relay) {
        log_state.function(severity, text, log_state.user);
        return;
    }
    if (log_state.lost > 0)
        snprintf(note, sizeof note, " (%lu lines before this were lost)", log_state.lost);
    size_t used_bytes = write_line_prefix(line, sizeof line, severity);
    base_log_clean(text, line + used_bytes, sizeof line - used_bytes - strlen(note));
    used_bytes += strlen(line + used_bytes);
    memcpy(line + used_bytes, note, strlen(note));
    used_bytes += strlen(note);
    line[used_bytes++] = '\n';
    if (send_to_stderr(line, used_bytes))
        log_state.lost = 0;
    else
        log_state.lost++;
}

/* Writes one line to the log if the log's level includes its severity. The supervisor, producers, workers
 * and the keeper call it through base_log_error and its siblings. Keeps errno, so that a caller may log
 * before it handles an error. */
void base_log_write(enum ep_severity severity, const char *format, ...)
{
    if (!base_log_is_wanted(severity))
        return;
    int saved_errno = errno;
    char message[LINE_BYTES], text[LINE_BYTES];
    size_t used_bytes = 0;
    if (log_state.name[0] != '\0')
        used_bytes = (size_t)snprintf(message, sizeof message, "%s: ", log_state.name);
    va_list arguments;
    va_start(arguments, format);
    errno = saved_errno; /* the caller may use "%m" */
    vsnprintf(message + used_bytes, sizeof message - used_bytes, format, arguments);
    va_end(arguments);
    base_log_clean(message, text, sizeof text);
    write_text_line(severity, text);
    errno = saved_errno;
}

/* Writes a line to the log that has the name of another process already. The supervisor calls it for
 * what it reads from its children's stderr. */
void base_log_pass(enum ep_severity severity, const char *line)
{
    if (!base_log_is_wanted(severity))
        return;
    int saved_errno = errno;
    char text[LINE_BYTES];
    base_log_clean(line, text, sizeof text);
    write_text_line(severity, text);
    errno = saved_errno;
}

/* Copies a text and replaces control characters and invalid UTF-8 by '?', so that it is safe in a log
 * line, a terminal or JSON. The log calls it, and so does all code that shows text from a backend, a program
 * or a configuration file: such text could otherwise forge log lines or control a terminal. */
void base_log_clean(const char *message, char *buffer, unsigned long buffer_bytes)
{
    /* 3 more: the last character that fits may be 4 bytes long */
    const char *position = message, *message_end = message + strnlen(message, buffer_bytes + 3);
    size_t used_bytes = 0;
    if (buffer_bytes == 0)
        return;
    while (position < message_end) {
        size_t character_bytes = base_utf8_length(position, message_end);
        bool is_printable = character_bytes > 0 && !base_utf8_is_control(position, character_bytes);
        size_t output_bytes = is_printable ? character_bytes : 1;
        if (used_bytes + output_bytes >= buffer_bytes)
            break; /* cut between characters */
        if (is_printable)
            memcpy(buffer + used_bytes, position, character_bytes);
        else
            buffer[used_bytes] = '?';
        used_bytes += output_bytes;
        position += character_bytes > 0 ? character_bytes : 1;
    }
    buffer[used_bytes] = '\0';
}
