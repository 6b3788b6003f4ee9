/* SPDX-License-Identifier: MIT */
/*
 * The output of children: cuts it into lines, tags them with the process's name and limits their number.
 * Called by the supervisor; makes no system calls and reads no clock. Owns nothing; the caller holds the
 * structs.
 *
 * Invariants
 *  1. Whatever a child prints (no line feeds, zero bytes, a flood) costs bounded memory and a bounded
 *     number of log lines. Nothing is dropped without being counted or marked.
 *  2. Lines that carry the mark of our own log are neither limited nor kept as last stderr output.
 */
#include "supervisor/relay.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/base/log.h"
#include "src/base/utf8.h"

#define CUT_MARK " [cut]"

/* Prepares the struct that turns the stderr output of one process into log lines. The supervisor calls
 * it when it has started the process; `name` precedes each line, `limit` is shared by the processes of
 * a stage. */
void relay_open(struct relay *relay, const char *name, struct relay_limit *limit)
{
    relay->name = name;
    relay->limit = limit;
    relay->used = relay->tail_used = 0;
    relay->cutting = false;
}

/* Writes how many lines of a stage were suppressed in the last window of its limit, and starts a new
 * window, once the old one is over. The supervisor calls it for each line that a stage prints, and once
 * a turn while lines are suppressed. */
void relay_report_suppressed(struct relay_limit *limit, const char *name, uint64_t now_ns, relay_write *write,
                             void *user)
{
    if (limit->window_ns != 0 && now_ns - limit->window_ns < RELAY_WINDOW_NS)
        return;
    if (limit->suppressed > 0) {
        char line[RELAY_NAME_BYTES + 64];
        snprintf(line, sizeof line, "%s: suppressed lines=%" PRIu32, name, limit->suppressed);
        write(EP_LOG_WARNING, line, user);
    }
    limit->window_ns = 0;
    limit->lines = limit->suppressed = 0;
}

/* Counts one line that a stage has printed against the stage's limit of log lines. Returns false if the
 * limit is reached and the supervisor must not log the line. */
static bool count_printed_line(struct relay *relay, uint64_t now_ns, relay_write *write, void *user)
{
    struct relay_limit *limit = relay->limit;
    relay_report_suppressed(limit, relay->name, now_ns, write, user);
    if (limit->window_ns == 0)
        limit->window_ns = now_ns;
    if (limit->lines >= RELAY_BURST) {
        limit->suppressed++;
        return false;
    }
    limit->lines++;
    return true;
}

/* Keeps a line as last stderr output of a process, and drops the oldest lines if there is no room. If
 * the process crashes, the supervisor adds these lines to its message. */
static void keep_last_output(struct relay *relay, const char *line, size_t bytes)
{
    if (bytes > RELAY_TAIL_BYTES - 1) {
        const char *line_end = line + bytes;
        line = base_utf8_find_start(line_end - (RELAY_TAIL_BYTES - 1), line_end);
        bytes = (size_t)(line_end - line);
    }
    size_t dropped_bytes = 0;
    while (relay->tail_used - dropped_bytes + bytes + 1 > RELAY_TAIL_BYTES) {
        const char *line_end = memchr(relay->tail + dropped_bytes, '\n', relay->tail_used - dropped_bytes);
        dropped_bytes = (size_t)(line_end - relay->tail) + 1;
    }
    memmove(relay->tail, relay->tail + dropped_bytes, relay->tail_used - dropped_bytes);
    relay->tail_used -= dropped_bytes;
    memcpy(relay->tail + relay->tail_used, line, bytes);
    relay->tail[relay->tail_used + bytes] = '\n';
    relay->tail_used += bytes + 1;
}

/* Writes a line of a child's own log (the mark, then "<N>name: text") to the supervisor's log as it is.
 * Returns false if it is not such a line but something that a program has printed. */
static bool pass_own_log_line(const char *line, relay_write *write, void *user)
{
    if (line[0] != RELAY_MARK || line[1] != '<' || line[2] < '0' || line[2] > '7' || line[3] != '>')
        return false;
    write((enum ep_severity)(line[2] - '0'), line + 4, user);
    return true;
}

/* Writes a complete line that a process has printed to the supervisor's log, with the name of the
 * process before it. Blank lines are dropped, and lines beyond the stage's limit are only counted. */
static void write_collected_line(struct relay *relay, uint64_t now_ns, relay_write *write, void *user)
{
    size_t bytes = relay->used;
    bool was_cut = relay->cutting;
    relay->used = 0;
    relay->cutting = false;
    while (bytes > 0 && (relay->line[bytes - 1] == '\r' || relay->line[bytes - 1] == ' '))
        bytes--;
    for (size_t i = 0; i < bytes; i++) /* a zero byte would end the text for all later readers */
        if (relay->line[i] == '\0')
            relay->line[i] = '?';
    relay->line[bytes] = '\0';
    if (bytes == 0 || pass_own_log_line(relay->line, write, user))
        return;
    char clean_line[RELAY_LINE_BYTES];
    base_log_clean(relay->line, clean_line, sizeof clean_line);
    keep_last_output(relay, clean_line, strlen(clean_line));
    if (!count_printed_line(relay, now_ns, write, user))
        return;
    char tagged_line[RELAY_LINE_BYTES + RELAY_NAME_BYTES + sizeof CUT_MARK];
    snprintf(tagged_line, sizeof tagged_line, "%s: %s%s", relay->name, clean_line, was_cut ? CUT_MARK : "");
    write(EP_LOG_INFO, tagged_line, user);
}

/* Takes a piece of output that the supervisor has read from a process's pipe: cuts it into lines,
 * writes the complete ones to the log and keeps the last incomplete one. A line that is too long is cut
 * and marked. */
void relay_feed(struct relay *relay, const char *bytes, size_t count, uint64_t now_ns, relay_write *write,
                void *user)
{
    while (count > 0) {
        const char *line_end = memchr(bytes, '\n', count);
        size_t piece_bytes = line_end != NULL ? (size_t)(line_end - bytes) : count;
        size_t free_bytes = RELAY_LINE_BYTES - 1 - relay->used;
        if (piece_bytes > free_bytes)
            relay->cutting = true;
        memcpy(relay->line + relay->used, bytes, piece_bytes < free_bytes ? piece_bytes : free_bytes);
        relay->used += piece_bytes < free_bytes ? piece_bytes : free_bytes;
        if (line_end == NULL)
            return;
        write_collected_line(relay, now_ns, write, user);
        bytes += piece_bytes + 1;
        count -= piece_bytes + 1;
    }
}

void relay_end(struct relay *relay, uint64_t now_ns, relay_write *write, void *user)
{
    if (relay->used > 0)
        write_collected_line(relay, now_ns, write, user);
}

/* Copies the last lines that a process printed, oldest first, joined by " | ": whole lines as far as
 * they fit, otherwise the end of the last one. Empty if it printed nothing. The supervisor calls it for
 * its message about a crash. */
void relay_last_output(const struct relay *relay, char *buffer, size_t size)
{
    /* Each line feed but the last becomes " | ": count backwards how many whole lines fit. */
    size_t end_at = relay->tail_used > 0 ? relay->tail_used - 1 : 0; /* without its last line feed */
    size_t start_at = end_at, output_bytes = 0;
    for (size_t at = end_at; at > 0; at--) {
        output_bytes += relay->tail[at - 1] == '\n' ? 3 : 1;
        if (output_bytes > size - 1)
            break;
        if (at == 1 || relay->tail[at - 2] == '\n')
            start_at = at - 1;
    }
    if (start_at == end_at &&
        end_at > 0) { /* not one whole line fits: keep the end of the last, which says most */
        size_t kept_bytes = size - 1 < end_at ? size - 1 : end_at;
        start_at = end_at - kept_bytes;
        const char *line = memrchr(relay->tail, '\n', end_at);
        if (line != NULL && start_at < (size_t)(line + 1 - relay->tail))
            start_at = (size_t)(line + 1 - relay->tail);
        start_at = (size_t)(base_utf8_find_start(relay->tail + start_at, relay->tail + end_at) - relay->tail);
    }
    size_t used_bytes = 0;
    for (size_t at = start_at; at < end_at; at++) {
        if (relay->tail[at] == '\n') {
            memcpy(buffer + used_bytes, " | ", 3);
            used_bytes += 3;
        } else {
            buffer[used_bytes++] = relay->tail[at];
        }
    }
    buffer[used_bytes] = '\0';
}
