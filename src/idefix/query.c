/* SPDX-License-Identifier: MIT */
/*
 * Writes the data of events.get as JSON. Pure: any process, any thread.
 *
 * Keys and times are those of the Go client (eventpipe-idefix(7)). With a cursor, `since` gets its default.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/idefix/client.h"

#define SINCE_DEFAULT "1970-01-01T00:00:00Z"

/* Idefix query: writes a duration as the Go client writes it (time.Duration): 1m0s, 1.5s, 300ms, 1h0m0s,
 * 0s. Runs in a producer, or in a program that uses the library. */
static void write_duration(struct text *out, uint64_t ms)
{
    char text[64], fraction[8] = "";
    int used = 0;

    if (ms > 0 && ms < 1000) {
        snprintf(text, sizeof text, "\"%" PRIu64 "ms\"", ms);
        base_text_append(out, text);
        return;
    }
    if (ms % 1000 != 0) {
        snprintf(fraction, sizeof fraction, ".%03u", (unsigned)(ms % 1000));
        for (size_t last = strlen(fraction) - 1; fraction[last] == '0'; last--)
            fraction[last] = '\0';
    }
    uint64_t seconds = ms / 1000;
    if (seconds >= 3600)
        used += snprintf(text + used, sizeof text - (size_t)used, "%" PRIu64 "h", seconds / 3600);
    if (seconds >= 60)
        used += snprintf(text + used, sizeof text - (size_t)used, "%um", (unsigned)(seconds / 60 % 60));
    snprintf(text + used, sizeof text - (size_t)used, "%u%ss", (unsigned)(seconds % 60), fraction);
    base_text_append(out, "\"");
    base_text_append(out, text);
    base_text_append(out, "\"");
}

/* Idefix query: writes a text member of the request's data; leaves it out if it is empty. Runs in a
 * producer, or in a program that uses the library. */
static void write_text_member(struct text *out, const char *key, const char *text)
{
    if (text == NULL || text[0] == '\0')
        return;
    json_write_string(out, key, strlen(key));
    base_text_append(out, ":");
    json_write_string(out, text, strlen(text));
    base_text_append(out, ",");
}

/* Idefix query: writes the data of an events.get request as JSON: filters, page size, cursor and long-poll
 * time. A producer's fetch thread calls it for each page, a program that uses the library through its
 * ep_idefix functions. Returns 0 or EP_ENOMEM. */
int idefix_query_data(const struct idefix_query *query, struct text *out)
{
    bool has_cursor = query->cursor != NULL && query->cursor[0] != '\0';
    bool since = !has_cursor && query->since != NULL && query->since[0] != '\0';

    base_text_append(out, "{");
    write_text_member(out, "domain", query->domain);
    write_text_member(out, "address", query->address);
    write_text_member(out, "type", query->event_type);
    write_text_member(out, "since", since ? query->since : SINCE_DEFAULT);
    base_text_append(out, "\"limit\":");
    json_write_uint(out, query->limit);
    base_text_append(out, ",");
    write_text_member(out, "cid", query->cursor);
    base_text_append(out, "\"timeout\":");
    write_duration(out, query->timeout_ms);
    base_text_append(out, "}");
    return out->failed ? EP_ENOMEM : 0;
}
