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

/* Writes a duration as a JSON string in the form of Go's time.Duration, such as 1m0s, 1.5s, 300ms, 1h0m0s
 * or 0s, as Idefix's Go client does. Part of the Idefix client, in a producer or a library caller. */
static void write_go_duration(struct text *out, uint64_t ms)
{
    char duration[64], fraction[8] = "";
    int used_bytes = 0;

    if (ms > 0 && ms < 1000) {
        snprintf(duration, sizeof duration, "\"%" PRIu64 "ms\"", ms);
        base_text_append(out, duration);
        return;
    }
    if (ms % 1000 != 0) {
        snprintf(fraction, sizeof fraction, ".%03u", (unsigned)(ms % 1000));
        for (size_t last_digit = strlen(fraction) - 1; fraction[last_digit] == '0'; last_digit--)
            fraction[last_digit] = '\0';
    }
    uint64_t seconds = ms / 1000;
    if (seconds >= 3600)
        used_bytes += snprintf(duration + used_bytes, sizeof duration - (size_t)used_bytes, "%" PRIu64 "h",
                               seconds / 3600);
    if (seconds >= 60)
        used_bytes += snprintf(duration + used_bytes, sizeof duration - (size_t)used_bytes, "%um",
                               (unsigned)(seconds / 60 % 60));
    snprintf(duration + used_bytes, sizeof duration - (size_t)used_bytes, "%u%ss", (unsigned)(seconds % 60),
             fraction);
    base_text_append(out, "\"");
    base_text_append(out, duration);
    base_text_append(out, "\"");
}

/* Writes a text member of the data of events.get, the Idefix request for events, with a comma after it;
 * nothing if the text is empty or NULL. Part of the Idefix client, in a producer or a library caller. */
static void write_query_text_member(struct text *out, const char *key, const char *text)
{
    if (text == NULL || text[0] == '\0')
        return;
    json_write_string(out, key, strlen(key));
    base_text_append(out, ":");
    json_write_string(out, text, strlen(text));
    base_text_append(out, ",");
}

/* Writes the data of events.get, the Idefix request for a page of events, as JSON: filters, page size,
 * cursor, and how long the backend may wait for events. Returns 0 or EP_ENOMEM. A producer's fetcher
 * thread calls it for each page, ep_idefix functions for a library caller. */
int idefix_query_write_data(const struct idefix_query *query, struct text *out)
{
    bool has_cursor = query->cursor != NULL && query->cursor[0] != '\0';
    bool has_since = !has_cursor && query->since != NULL && query->since[0] != '\0';

    base_text_append(out, "{");
    write_query_text_member(out, "domain", query->domain);
    write_query_text_member(out, "address", query->address);
    write_query_text_member(out, "type", query->event_type);
    write_query_text_member(out, "since", has_since ? query->since : SINCE_DEFAULT);
    base_text_append(out, "\"limit\":");
    json_write_uint(out, query->limit);
    base_text_append(out, ",");
    write_query_text_member(out, "cid", query->cursor);
    base_text_append(out, "\"timeout\":");
    write_go_duration(out, query->timeout_ms);
    base_text_append(out, "}");
    return out->failed ? EP_ENOMEM : 0;
}
