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
    relay->line_limit = limit;
    relay->line_bytes = relay->tail_bytes = 0;
    relay->is_line_cut = false;
}

/* Writes how many lines of a stage were suppressed in the last window (the time for which its lines are
 * counted), and starts a new one. Does nothing before the window is over. The supervisor calls it for each
 * line that a stage prints, and once a turn while lines are suppressed. */
void relay_report_suppressed(struct relay_limit *limit, const char *name, uint64_t now_ns, relay_write *write,
                             void *user)
{
    if (limit->window_start_ns != 0 && now_ns - limit->window_start_ns < RELAY_WINDOW_NS)
        return;
    if (limit->suppressed_count > 0) {
        char line[RELAY_NAME_BYTES + 64];
        snprintf(line, sizeof line, "%s: suppressed lines=%" PRIu32, name, limit->suppressed_count);
        write(EP_LOG_WARNING, line, user);
    }
    limit->window_start_ns = 0;
    limit->line_count = limit->suppressed_count = 0;
}

/* Counts one line that a stage has printed against the stage's limit of log lines. Returns false if the
 * limit is reached and the supervisor must not log the line. */
static bool count_printed_line(struct relay *relay, uint64_t now_ns, relay_write *write, void *user)
{
    struct relay_limit *limit = relay->line_limit;
    relay_report_suppressed(limit, relay->name, now_ns, write, user);
    if (limit->window_start_ns == 0)
        limit->window_start_ns = now_ns;
    if (limit->line_count >= RELAY_BURST) {
        limit->suppressed_count++;
        return false;
    }
    limit->line_count++;
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
    while (relay->tail_bytes - dropped_bytes + bytes + 1 > RELAY_TAIL_BYTES) {
        const char *line_end = memchr(relay->tail + dropped_bytes, '\n', relay->tail_bytes - dropped_bytes);
        dropped_bytes = (size_t)(line_end - relay->tail) + 1;
    }
    memmove(relay->tail, relay->tail + dropped_bytes, relay->tail_bytes - dropped_bytes);
    relay->tail_bytes -= dropped_bytes;
    memcpy(relay->tail + relay->tail_bytes, line, bytes);
    relay->tail[relay->tail_bytes + bytes] = '\n';
    relay->tail_bytes += bytes + 1;
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
    size_t bytes = relay->line_bytes;
    bool was_cut = relay->is_line_cut;
    relay->line_bytes = 0;
    relay->is_line_cut = false;
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
void relay_feed(struct relay *relay, const char *output, size_t output_bytes, uint64_t now_ns,
                relay_write *write, void *user)
{
    while (output_bytes > 0) {
        const char *line_end = memchr(output, '\n', output_bytes);
        size_t piece_bytes = line_end != NULL ? (size_t)(line_end - output) : output_bytes;
        size_t free_bytes = RELAY_LINE_BYTES - 1 - relay->line_bytes;
        if (piece_bytes > free_bytes)
            relay->is_line_cut = true;
        memcpy(relay->line + relay->line_bytes, output, piece_bytes < free_bytes ? piece_bytes : free_bytes);
        relay->line_bytes += piece_bytes < free_bytes ? piece_bytes : free_bytes;
        if (line_end == NULL)
            return;
        write_collected_line(relay, now_ns, write, user);
        output += piece_bytes + 1;
        output_bytes -= piece_bytes + 1;
    }
}

void relay_end(struct relay *relay, uint64_t now_ns, relay_write *write, void *user)
{
    if (relay->line_bytes > 0)
        write_collected_line(relay, now_ns, write, user);
}

/* Copies the last lines that a process printed to stderr, oldest first, joined by " | ": whole lines as
 * far as they fit, otherwise the end of the last one. Empty if it printed nothing. The supervisor calls it
 * when a process has crashed, for its message about the crash. */
void relay_last_output(const struct relay *relay, char *buffer, size_t buffer_bytes)
{
    /* Each line feed but the last becomes " | ": count backwards how many whole lines fit. */
    size_t end_offset = relay->tail_bytes > 0 ? relay->tail_bytes - 1 : 0; /* without its last line feed */
    size_t start_offset = end_offset, joined_bytes = 0;
    for (size_t offset = end_offset; offset > 0; offset--) {
        joined_bytes += relay->tail[offset - 1] == '\n' ? 3 : 1;
        if (joined_bytes > buffer_bytes - 1)
            break;
        if (offset == 1 || relay->tail[offset - 2] == '\n')
            start_offset = offset - 1;
    }
    if (start_offset == end_offset &&
        end_offset > 0) { /* not one whole line fits: keep the end of the last, which says most */
        size_t kept_bytes = buffer_bytes - 1 < end_offset ? buffer_bytes - 1 : end_offset;
        start_offset = end_offset - kept_bytes;
        const char *line = memrchr(relay->tail, '\n', end_offset);
        if (line != NULL && start_offset < (size_t)(line + 1 - relay->tail))
            start_offset = (size_t)(line + 1 - relay->tail);
        start_offset = (size_t)(base_utf8_find_start(relay->tail + start_offset, relay->tail + end_offset) -
                                relay->tail);
    }
    size_t written_bytes = 0;
    for (size_t offset = start_offset; offset < end_offset; offset++) {
        if (relay->tail[offset] == '\n') {
            memcpy(buffer + written_bytes, " | ", 3);
            written_bytes += 3;
        } else {
            buffer[written_bytes++] = relay->tail[offset];
        }
    }
    buffer[written_bytes] = '\0';
}
