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

/* The supervisor calls this when it has started a process: prepares the struct that turns the process's
 * stderr output into log lines. */
void relay_open(struct relay *relay, const char *name, struct relay_limit *limit)
{
    relay->name = name;
    relay->limit = limit;
    relay->used = relay->tail_used = 0;
    relay->cutting = false;
}

/* Starts a new window of a stage's limit of log lines once the old one is over, and writes how many lines
 * that one suppressed. The supervisor calls it for each line that a stage prints, and once a turn while
 * lines are suppressed. */
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
 * supervisor must suppress it. */
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

/* Keeps a line as last stderr output of a process, in place of the oldest lines. The supervisor adds it to
 * the message if the process crashes. */
static void keep_last_output(struct relay *relay, const char *line, size_t bytes)
{
    if (bytes > RELAY_TAIL_BYTES - 1) {
        const char *end = line + bytes;
        line = base_utf8_start(end - (RELAY_TAIL_BYTES - 1), end);
        bytes = (size_t)(end - line);
    }
    size_t drop = 0;
    while (relay->tail_used - drop + bytes + 1 > RELAY_TAIL_BYTES) {
        const char *end = memchr(relay->tail + drop, '\n', relay->tail_used - drop);
        drop = (size_t)(end - relay->tail) + 1;
    }
    memmove(relay->tail, relay->tail + drop, relay->tail_used - drop);
    relay->tail_used -= drop;
    memcpy(relay->tail + relay->tail_used, line, bytes);
    relay->tail[relay->tail_used + bytes] = '\n';
    relay->tail_used += bytes + 1;
}

/* Writes a line of a child's own log ("<N>name: text" behind the mark) to the supervisor's log as it is.
 * Returns false if it is no such line. */
static bool pass_own_log_line(const char *line, relay_write *write, void *user)
{
    if (line[0] != RELAY_MARK || line[1] != '<' || line[2] < '0' || line[2] > '7' || line[3] != '>')
        return false;
    write((enum ep_severity)(line[2] - '0'), line + 4, user);
    return true;
}

/* Writes a line that a process has printed to the supervisor's log, with the name of the process before
 * it. Drops blank lines and, beyond the limit, lines that stages print. */
static void write_collected_line(struct relay *relay, uint64_t now_ns, relay_write *write, void *user)
{
    size_t bytes = relay->used;
    bool cut = relay->cutting;
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
    char clean[RELAY_LINE_BYTES];
    base_log_clean(relay->line, clean, sizeof clean);
    keep_last_output(relay, clean, strlen(clean));
    if (!count_printed_line(relay, now_ns, write, user))
        return;
    char tagged[RELAY_LINE_BYTES + RELAY_NAME_BYTES + sizeof CUT_MARK];
    snprintf(tagged, sizeof tagged, "%s: %s%s", relay->name, clean, cut ? CUT_MARK : "");
    write(EP_LOG_INFO, tagged, user);
}

/* The supervisor calls this with each piece of output that it reads from a process's pipe: cuts it into
 * lines and writes those that are complete to the log. Cuts and marks a line that is too long. */
void relay_feed(struct relay *relay, const char *bytes, size_t count, uint64_t now_ns, relay_write *write,
                void *user)
{
    while (count > 0) {
        const char *line_end = memchr(bytes, '\n', count);
        size_t part = line_end != NULL ? (size_t)(line_end - bytes) : count;
        size_t room = RELAY_LINE_BYTES - 1 - relay->used;
        if (part > room)
            relay->cutting = true;
        memcpy(relay->line + relay->used, bytes, part < room ? part : room);
        relay->used += part < room ? part : room;
        if (line_end == NULL)
            return;
        write_collected_line(relay, now_ns, write, user);
        bytes += part + 1;
        count -= part + 1;
    }
}

void relay_end(struct relay *relay, uint64_t now_ns, relay_write *write, void *user)
{
    if (relay->used > 0)
        write_collected_line(relay, now_ns, write, user);
}

/* The supervisor calls this after a crash, for its message: copies the last lines that the process
 * printed, whole ones if they fit, oldest first, joined by " | ". Empty if it printed nothing. */
void relay_last_output(const struct relay *relay, char *buffer, size_t size)
{
    /* Each line feed but the last becomes " | ": count backwards how many whole lines fit. */
    size_t end = relay->tail_used > 0 ? relay->tail_used - 1 : 0; /* without its last line feed */
    size_t start = end, cost = 0;
    for (size_t at = end; at > 0; at--) {
        cost += relay->tail[at - 1] == '\n' ? 3 : 1;
        if (cost > size - 1)
            break;
        if (at == 1 || relay->tail[at - 2] == '\n')
            start = at - 1;
    }
    if (start == end && end > 0) { /* not one whole line fits: keep its end, which says most */
        size_t keep = size - 1 < end ? size - 1 : end;
        start = end - keep;
        const char *line = memrchr(relay->tail, '\n', end);
        if (line != NULL && start < (size_t)(line + 1 - relay->tail))
            start = (size_t)(line + 1 - relay->tail);
        start = (size_t)(base_utf8_start(relay->tail + start, relay->tail + end) - relay->tail);
    }
    size_t used = 0;
    for (size_t at = start; at < end; at++) {
        if (relay->tail[at] == '\n') {
            memcpy(buffer + used, " | ", 3);
            used += 3;
        } else {
            buffer[used++] = relay->tail[at];
        }
    }
    buffer[used] = '\0';
}
