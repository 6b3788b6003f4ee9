/* SPDX-License-Identifier: MIT */
/*
 * The events of contrib/idefix-sim. They are kept as lines of JSON in the order in which they were
 * added; an event's position in that order is what a continuation ID holds. No event is ever removed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "contrib/idefix_sim.h"
#include "src/json/scan.h"

#define GENERATED_DEVICES 10
#define GENERATED_FROM INT64_C(1767225600) /* 2026-01-01 */
#define GENERATED_STEP_S 30

/* ---- the list */

static char *member_text(struct json_span event, const char *pointer)
{
    struct json_span value;
    if (!json_find(event, pointer, &value) || json_kind(value) != '"')
        return strdup("");
    return json_text(value);
}

static void event_free(struct sim_event *event)
{
    free(event->text);
    free(event->uid);
    free(event->domain);
    free(event->address);
    free(event->type);
}

int sim_events_add(struct sim_events *events, const char *text, size_t bytes, struct error *error)
{
    size_t bad = 0;
    if (!json_valid(text, bytes, &bad))
        return base_error_set(error, EP_EINVAL, "no JSON from byte %zu on", bad);
    struct json_span span = {text, bytes};
    if (json_kind(span) != '{')
        return base_error_set(error, EP_EINVAL, "an event is an object");
    struct text line = {0};
    json_write_on_one_line(&line, span);
    if (line.failed)
        return base_error_set(error, EP_ENOMEM, "no memory");
    span = (struct json_span){line.text, line.bytes};
    char *timestamp = member_text(span, "/timestamp");
    struct sim_event event = {.text = line.text,
                              .bytes = line.bytes,
                              .uid = member_text(span, "/uid"),
                              .domain = member_text(span, "/domain"),
                              .address = member_text(span, "/address"),
                              .type = member_text(span, "/type")};
    if (timestamp == NULL || !sim_time_read(timestamp, &event.at_ns))
        event.at_ns = 0;
    free(timestamp);
    if (events->count == events->room) {
        size_t room = events->room != 0 ? events->room * 2 : 1024;
        struct sim_event *list = reallocarray(events->list, room, sizeof *list);
        if (list != NULL) {
            events->list = list;
            events->room = room;
        }
    }
    if (events->count == events->room || !event.uid || !event.domain || !event.address || !event.type) {
        event_free(&event);
        return base_error_set(error, EP_ENOMEM, "no memory");
    }
    events->list[events->count++] = event;
    return 0;
}

long sim_events_load(struct sim_events *events, const char *path, struct error *error)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return base_error_set(error, EP_ESYSTEM, "%s: %s", path, strerror(errno));
    char *line = NULL;
    size_t room = 0;
    ssize_t bytes;
    long number = 0, added = 0;
    int result = 0;
    while (result == 0 && (bytes = getline(&line, &room, file)) >= 0) {
        number++;
        if (line[strspn(line, " \t\r\n")] == '\0')
            continue;
        result = sim_events_add(events, line, (size_t)bytes, error);
        added += result == 0;
    }
    if (result == 0 && ferror(file) != 0)
        result = base_error_set(error, EP_ESYSTEM, "%s", strerror(errno));
    if (result != 0)
        base_error_prefix(error, "%s, line %ld", path, number);
    free(line);
    fclose(file);
    return result != 0 ? result : added;
}

bool sim_events_has(const struct sim_events *events, const char *domain, const char *address, const char *uid)
{
    for (size_t i = events->count; i-- > 0;) { /* it is most often among the last */
        const struct sim_event *event = &events->list[i];
        if ((domain == NULL || strcmp(event->domain, domain) == 0) &&
            (address == NULL || strcmp(event->address, address) == 0) &&
            (uid == NULL || strcmp(event->uid, uid) == 0))
            return true;
    }
    return false;
}

void sim_events_free(struct sim_events *events)
{
    for (size_t i = 0; i < events->count; i++)
        event_free(&events->list[i]);
    free(events->list);
    *events = (struct sim_events){0};
}

/* ---- generated events */

int sim_events_generate(struct sim_events *events, uint64_t count)
{
    static const char *const types[] = {"temperature", "humidity", "door", "application/vnd.example.raw"};
    for (uint64_t end = events->generated + count; events->generated < end;) {
        /* derived from the event's number, so every run makes the same events */
        uint64_t n = events->generated, draw = (n + 1) * UINT64_C(0x9e3779b97f4a7c15);
        draw ^= draw >> 29;
        draw *= UINT64_C(0xbf58476d1ce4e5b9);
        draw ^= draw >> 32;
        time_t at = GENERATED_FROM + (time_t)n * GENERATED_STEP_S;
        struct tm day;
        gmtime_r(&at, &day);
        char when[32], payload[160], text[640];
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &day);
        unsigned type = draw % 4;
        if (type == 3)
            snprintf(payload, sizeof payload, "\"payload:b64\":\"AAEC%c%c==\"", 'A' + (int)(draw / 4 % 26),
                     "AQgw"[draw / 104 % 4]);
        else if (type == 2)
            snprintf(payload, sizeof payload, "\"payload\":{\"open\":%s}", draw & 64 ? "true" : "false");
        else
            snprintf(payload, sizeof payload, "\"payload\":{\"value\":%d.%d,\"unit\":\"%s\"}",
                     (int)(draw / 64 % 40), (int)(draw / 4096 % 10), type == 0 ? "°C" : "%");
        int bytes =
            snprintf(text, sizeof text,
                     "{\"uid\":\"reading-%06" PRIu64 "\",\"domain\":\"acme\",\"address\":\"device-%03" PRIu64
                     "\",\"sourceId\":\"probe\",\"type\":\"%s\",\"timestamp\":\"%s\","
                     "\"meta\":{\"n\":%" PRIu64 ",\"draw\":%" PRIu64 "},%s}",
                     n, draw / 8 % GENERATED_DEVICES, types[type], when, n, draw, payload);
        int result = sim_events_add(events, text, (size_t)bytes, NULL);
        if (result != 0)
            return result;
        events->generated++;
    }
    return 0;
}

/* ---- pages */

/* Writes a continuation ID: a mark, by which an invalid one is noticed, and the position in hex.
 * Opaque to clients. */
void sim_cid_write(size_t position, char *text, size_t size)
{
    snprintf(text, size, "at%08zx-%02x", position, (unsigned)(position * 37 + 11) & 0xff);
}

bool sim_cid_read(const char *text, size_t *position)
{
    char again[32];
    if (sscanf(text, "at%8zx", position) != 1)
        return false;
    sim_cid_write(*position, again, sizeof again);
    return strcmp(again, text) == 0;
}

bool sim_time_read(const char *text, int64_t *ns)
{
    struct tm day = {0};
    int read = 0, hours = 0, minutes = 0;
    if (sscanf(text, "%4d-%2d-%2d%*1[Tt ]%2d:%2d:%2d%n", &day.tm_year, &day.tm_mon, &day.tm_mday,
               &day.tm_hour, &day.tm_min, &day.tm_sec, &read) != 6 ||
        read == 0)
        return false;
    text += read;
    int64_t fraction = 0;
    if (*text == '.') {
        int64_t unit = 100000000;
        for (text++; json_scan_is_digit(*text); text++, unit /= 10)
            fraction += unit * (*text - '0');
    }
    if (*text == '+' || *text == '-') {
        if (sscanf(text + 1, "%2d:%2d%n", &hours, &minutes, &read) != 2 || text[1 + read] != '\0')
            return false;
        hours = *text == '-' ? -hours : hours;
        minutes = *text == '-' ? -minutes : minutes;
    } else if (strcmp(text, "Z") != 0 && strcmp(text, "z") != 0) {
        return false;
    }
    day.tm_year -= 1900;
    day.tm_mon -= 1;
    int64_t seconds = (int64_t)timegm(&day) - (hours * 60 + minutes) * 60;
    if (__builtin_mul_overflow(seconds, INT64_C(1000000000), ns) || __builtin_add_overflow(*ns, fraction, ns))
        *ns = seconds < 0 ? INT64_MIN
                          : INT64_MAX; /* outside the years 1678 to 2262: before or after all others */
    return true;
}

static bool query_wants(const struct sim_query *query, const struct sim_event *event)
{
    return (query->domain == NULL || strcmp(query->domain, event->domain) == 0) &&
           (query->address == NULL || strcmp(query->address, event->address) == 0) &&
           (query->type == NULL || strcmp(query->type, event->type) == 0) &&
           (query->uid == NULL || strcmp(query->uid, event->uid) == 0) && event->at_ns >= query->since_ns;
}

int sim_events_page(const struct sim_events *events, const struct sim_query *query, size_t *position,
                    struct sim_page *page)
{
    *page = (struct sim_page){0};
    size_t at = *position < events->count ? *position : events->count;
    size_t left = events->count - at;
    page->events = calloc(left < query->limit ? left + 1 : query->limit + 1, sizeof(struct sim_event *));
    if (page->events == NULL)
        return EP_ENOMEM;
    for (; at < events->count && page->count < query->limit; at++)
        if (query_wants(query, &events->list[at]))
            page->events[page->count++] = &events->list[at];
    *position = at;
    sim_cid_write(at, page->cid, sizeof page->cid);
    return 0;
}

void sim_page_free(struct sim_page *page)
{
    free(page->events);
    *page = (struct sim_page){0};
}

/* ---- the text of events */

/* Copies JSON text without the ":b64" at the end of member names. ":string:b64" stays, since it is text. */
static void write_bare(struct json_span text, struct text *out)
{
    static const char suffix[] = ":b64\"", text_suffix[] = ":string:b64\"";
    const size_t length = sizeof suffix - 1, text_length = sizeof text_suffix - 1;
    const char *at = text.at, *end = text.at + text.bytes, *copied = at;
    while (at < end) {
        if (*at != '"') {
            at++;
            continue;
        }
        const char *open = at++;
        while (at < end && *at != '"')
            at += *at == '\\' ? 2 : 1;
        at++; /* behind the closing quote */
        const char *next = json_scan_white(at, end);
        size_t bytes = (size_t)(at - open);
        bool marked =
            next < end && *next == ':' && bytes > length && memcmp(at - length, suffix, length) == 0;
        if (marked && !(bytes > text_length && memcmp(at - text_length, text_suffix, text_length) == 0)) {
            base_text_append_bytes(out, copied, (size_t)(at - length - copied));
            copied = at - 1;
        }
    }
    base_text_append_bytes(out, copied, (size_t)(end - copied));
}

struct without_payload {
    struct text *out;
    bool some;
};

static int write_unless_payload(struct json_span key, struct json_span value, void *user)
{
    struct without_payload *walk = user;
    if (strncmp(key.at, "\"payload\"", 9) == 0 || strncmp(key.at, "\"payload:", 9) == 0)
        return 0;
    base_text_append(walk->out, walk->some ? "," : "");
    base_text_append_bytes(walk->out, key.at, key.bytes);
    base_text_append(walk->out, ":");
    base_text_append_bytes(walk->out, value.at, value.bytes);
    walk->some = true;
    return 0;
}

void sim_event_write(const struct sim_event *event, bool bare, bool no_payload, struct text *out)
{
    struct json_span text = {event->text, event->bytes};
    struct text rest = {0};
    if (no_payload) {
        struct without_payload walk = {&rest, false};
        base_text_append(&rest, "{");
        json_each_member(text, write_unless_payload, &walk);
        base_text_append(&rest, "}");
        text = (struct json_span){rest.text, rest.bytes};
        out->failed |= rest.failed;
    }
    if (!out->failed && bare)
        write_bare(text, out);
    else if (!out->failed)
        base_text_append_bytes(out, text.at, text.bytes);
    base_text_free(&rest);
}

void sim_page_write(const struct sim_page *page, bool bare, bool no_payload, const char *insert,
                    struct text *out)
{
    base_text_append(out, "{\"events\":[");
    for (size_t i = 0; i <= page->count; i++) {
        if (insert != NULL && i == page->count / 2) {
            base_text_append(out, insert);
            base_text_append(out, i < page->count ? "," : "");
        }
        if (i < page->count) {
            sim_event_write(page->events[i], bare, no_payload, out);
            base_text_append(out, i + 1 < page->count ? "," : "");
        }
    }
    base_text_append(out, "],\"cid\":");
    json_write_string(out, page->cid, strlen(page->cid));
    base_text_append(out, "}");
}
