/* SPDX-License-Identifier: MIT */
/*
 * What children print. Called by the supervisor; no system calls, no clock.
 *
 * Invariants
 *  1. Whatever a child prints - no line feeds, zero bytes, a flood - costs bounded memory and bounded log
 * lines; nothing is dropped without being counted or marked.
 *  2. Lines that carry the mark of our own log are neither limited nor kept as last stderr output.
 */
#include "supervisor/relay.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/base/log.h"

#define CUT_MARK " [cut]"

void relay_open(struct relay *relay, const char *name, struct relay_limit *limit)
{
    relay->name = name;
    relay->limit = limit;
    relay->used = relay->tail_used = 0;
    relay->cutting = false;
}

void relay_limit_turn(struct relay_limit *limit, const char *name, uint64_t now_ns, relay_write *write,
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

static bool limit_allows(struct relay *relay, uint64_t now_ns, relay_write *write, void *user)
{
    struct relay_limit *limit = relay->limit;
    relay_limit_turn(limit, relay->name, now_ns, write, user);
    if (limit->window_ns == 0)
        limit->window_ns = now_ns;
    if (limit->lines >= RELAY_BURST) {
        limit->suppressed++;
        return false;
    }
    limit->lines++;
    return true;
}

static void keep_tail(struct relay *relay, const char *line, size_t bytes)
{
    if (bytes > RELAY_TAIL_BYTES - 1) {
        line += bytes - (RELAY_TAIL_BYTES - 1);
        bytes = RELAY_TAIL_BYTES - 1;
        while (bytes > 0 &&
               ((unsigned char)*line & 0xc0) == 0x80) { /* not in the middle of a UTF-8 character */
            line++;
            bytes--;
        }
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

/* "<N>name: text" of our own log: true when it was one. */
static bool pass_own(const char *line, relay_write *write, void *user)
{
    if (line[0] != RELAY_MARK || line[1] != '<' || line[2] < '0' || line[2] > '7' || line[3] != '>')
        return false;
    write((enum ep_severity)(line[2] - '0'), line + 4, user);
    return true;
}

static void finish_line(struct relay *relay, uint64_t now_ns, relay_write *write, void *user)
{
    size_t bytes = relay->used;
    bool cut = relay->cutting;
    relay->used = 0;
    relay->cutting = false;
    while (bytes > 0 && (relay->line[bytes - 1] == '\r' || relay->line[bytes - 1] == ' '))
        bytes--;
    for (size_t i = 0; i < bytes; i++) /* a zero byte would end the line for everybody after us */
        if (relay->line[i] == '\0')
            relay->line[i] = '?';
    relay->line[bytes] = '\0';
    if (bytes == 0 || pass_own(relay->line, write, user))
        return;
    char clean[RELAY_LINE_BYTES];
    base_log_clean(relay->line, clean, sizeof clean);
    keep_tail(relay, clean, strlen(clean));
    if (!limit_allows(relay, now_ns, write, user))
        return;
    char tagged[RELAY_LINE_BYTES + RELAY_NAME_BYTES + sizeof CUT_MARK];
    snprintf(tagged, sizeof tagged, "%s: %s%s", relay->name, clean, cut ? CUT_MARK : "");
    write(EP_LOG_INFO, tagged, user);
}

void relay_feed(struct relay *relay, const char *bytes, size_t count, uint64_t now_ns, relay_write *write,
                void *user)
{
    while (count > 0) {
        const char *feed = memchr(bytes, '\n', count);
        size_t part = feed != NULL ? (size_t)(feed - bytes) : count;
        size_t room = RELAY_LINE_BYTES - 1 - relay->used;
        if (part > room)
            relay->cutting = true;
        memcpy(relay->line + relay->used, bytes, part < room ? part : room);
        relay->used += part < room ? part : room;
        if (feed == NULL)
            return;
        finish_line(relay, now_ns, write, user);
        bytes += part + 1;
        count -= part + 1;
    }
}

void relay_end(struct relay *relay, uint64_t now_ns, relay_write *write, void *user)
{
    if (relay->used > 0)
        finish_line(relay, now_ns, write, user);
}

void relay_last_output(const struct relay *relay, char *buffer, size_t size)
{
    /* Every line feed becomes " | ", but for the last: so count backwards what whole lines cost. */
    size_t end = relay->tail_used > 0 ? relay->tail_used - 1 : 0; /* without its last line feed */
    size_t start = end, cost = 0;
    for (size_t at = end; at > 0; at--) {
        cost += relay->tail[at - 1] == '\n' ? 3 : 1;
        if (cost > size - 1)
            break;
        if (at == 1 || relay->tail[at - 2] == '\n')
            start = at - 1;
    }
    if (start == end && end > 0) { /* not even one line fits: its end is what tells most */
        size_t keep = size - 1 < end ? size - 1 : end;
        start = end - keep;
        const char *line = memrchr(relay->tail, '\n', end);
        if (line != NULL && start < (size_t)(line + 1 - relay->tail))
            start = (size_t)(line + 1 - relay->tail);
        while (start < end && ((unsigned char)relay->tail[start] & 0xc0) == 0x80)
            start++; /* not in the middle of a UTF-8 character */
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
