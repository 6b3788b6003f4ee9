/* SPDX-License-Identifier: MIT */
/*
 * inject: reads an operator's events as lines from the client's connection and stores them in pages,
 * each in one transaction. Runs in the keeper. A line that is not an event is reported with its number
 * and skipped. If the client falls silent or the store fails, the pages stored so far stay, and the
 * answer says how many events they had.
 *
 * The keeper has other work, so it gives up a client that sends nothing for READ_MS. That is why the
 * command line sends only events that it has read already, in requests of a bounded size.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "shm/slot.h"
#include "src/base/hash.h"
#include "src/control/admin.h"
#include "src/source/source.h"

#define READ_MS 5000
#define PAGE_EVENTS 100
#define PAGE_BYTES (8u << 20)
#define LINE_BYTES (64u << 20)
#define UID_BYTES 1024

struct injection {
    struct admin_request *request;
    int64_t source_id;
    struct page page;
    struct answer answer;
    struct text received;    /* not a whole line yet */
    bool skipping_long_line; /* a line longer than LINE_BYTES: its rest is dropped */
    uint64_t line_number, stored_count, duplicate_count, invalid_count;
    int store_code; /* the first error of the store, or EP_ENOMEM; then nothing more is stored */
};

/* Reports that a line of the control command `eventpipe inject` is no valid event: writes a data line with
 * the line's number and the reason, and counts it. The other lines are still stored. Runs in the keeper.
 * */
static void report_invalid_line(struct injection *injection, const char *message)
{
    struct text *out = &injection->answer.lines;
    injection->invalid_count++;
    base_text_append(out, "{\"line\":");
    json_write_uint(out, injection->line_number);
    control_admin_write_member(out, "error", message);
    base_text_append(out, "}");
    control_answer_end_line(&injection->answer);
}

/* Stores the events collected so far for the control command `eventpipe inject` in one transaction, counts
 * them and their duplicates, and empties the page. With --dry-run it only counts. After an error of the
 * store it does nothing. Runs in the keeper. */
static void store_page(struct injection *injection)
{
    struct page *page = &injection->page;
    if (page->count == 0 || injection->store_code != EP_OK)
        return;
    struct store_ingested ingested = {.stored = page->count};
    if (!injection->request->dry_run) {
        struct store_page events = {.events = page->events,
                                    .count = page->count,
                                    .injected = true,
                                    .now_ms = shm_realtime_ms()};
        injection->store_code =
            store_ingest(injection->request->admin->store, injection->source_id, &events, &ingested);
    }
    if (injection->store_code == EP_OK) {
        injection->stored_count += ingested.stored;
        injection->duplicate_count += ingested.duplicates;
        if (ingested.stored > 0 && !injection->request->dry_run)
            control_admin_mark_source_changed(injection->request, injection->request->select.source);
    }
    source_page_clear(page);
}

/* Returns a copy of an event's member as text if it is a string or a number; the caller frees it.
 * Returns NULL if the member is missing or null, and also if it has another type, which sets
 * *has_wrong_type. Runs in the keeper for each event that `eventpipe inject` sends. */
static char *copy_string_or_number(struct json_span event, const char *json_pointer, bool *has_wrong_type)
{
    struct json_span value;
    if (!json_find(event, json_pointer, &value) || json_kind(value) == 'n')
        return NULL;
    if (json_kind(value) != '"' && json_kind(value) != '0') {
        *has_wrong_type = true;
        return NULL;
    }
    return json_text(value);
}

/* Adds an event of the control command `eventpipe inject` to the page (the events that are stored together
 * next), with the bytes of its line. An event without a UID gets a hash of its line as UID, so that
 * injecting the same file twice creates only duplicates. Returns 0 or EP_ENOMEM. Runs in the keeper. */
static int add_event_to_page(struct injection *injection, struct json_span event, const char *uid,
                             const char *address, const char *type)
{
    if (uid != NULL)
        return source_page_add(&injection->page, uid, address, type, event.at, event.bytes);
    char hash[HASH_UID_DIGITS + 1];
    base_hash_write_hex(event.at, event.bytes, hash, HASH_UID_DIGITS);
    const char *first_member = event.at + 1, *end = event.at + event.bytes;
    while (first_member < end && strchr(" \t\r\n", *first_member) != NULL)
        first_member++;
    struct text event_with_uid = {0};
    base_text_append(&event_with_uid, "{\"uid\":\"");
    base_text_append(&event_with_uid, hash);
    base_text_append(&event_with_uid, *first_member == '}' ? "\"" : "\",");
    base_text_append_bytes(&event_with_uid, first_member, (size_t)(end - first_member));
    int code = event_with_uid.failed ? EP_ENOMEM
                                     : source_page_add(&injection->page, hash, address, type,
                                                       event_with_uid.text, event_with_uid.bytes);
    base_text_free(&event_with_uid);
    return code;
}

/* Checks uid, address and type of one event from the control command `eventpipe inject`, then adds it to
 * the page that is stored next, or rejects its line. Lack of memory is left in store_code and ends the
 * command. Runs in the keeper. */
static void check_and_add_event(struct injection *injection, struct json_span event)
{
    bool is_uid_wrong = false, is_other_wrong = false;
    struct json_span value;
    bool is_uid_null = json_find(event, "/uid", &value) && json_kind(value) == 'n';
    char *uid = copy_string_or_number(event, "/uid", &is_uid_wrong);
    char *address = copy_string_or_number(event, "/address", &is_other_wrong);
    char *type = copy_string_or_number(event, "/type", &is_other_wrong);
    if (is_uid_wrong || is_uid_null || (uid != NULL && (uid[0] == '\0' || strlen(uid) > UID_BYTES)))
        report_invalid_line(injection,
                            "\"uid\" must be a string of 1 to 1024 bytes; without it, the event gets one");
    else if (is_other_wrong)
        report_invalid_line(injection, "\"address\" and \"type\" must be strings");
    else
        injection->store_code = add_event_to_page(injection, event, uid, address, type);
    free(uid);
    free(address);
    free(type);
}

/* Parses one line of the control command `eventpipe inject` as an event. Skips an empty line, rejects a
 * line that is not a JSON object, and stores the page when it is full. Runs in the keeper. */
static void parse_event_line(struct injection *injection, const char *text, size_t bytes)
{
    while (bytes > 0 && strchr(" \t\r", text[bytes - 1]) != NULL && text[bytes - 1] != '\0')
        bytes--;
    while (bytes > 0 && (*text == ' ' || *text == '\t')) {
        text++;
        bytes--;
    }
    size_t error_offset;
    char message[128];
    if (bytes == 0)
        return;
    if (!json_valid(text, bytes, &error_offset)) {
        snprintf(message, sizeof message, "not JSON: error at byte %zu", error_offset + 1);
        report_invalid_line(injection, message);
    } else if (*text != '{') {
        report_invalid_line(injection, "expected a JSON object, such as {\"uid\":\"a-1\",\"payload\":{}}");
    } else {
        check_and_add_event(injection, (struct json_span){text, bytes});
    }
    if (injection->page.count >= PAGE_EVENTS || injection->page.data_bytes >= PAGE_BYTES)
        store_page(injection);
}

/* Handles one whole line of the control command `eventpipe inject` and counts it. If the line was longer
 * than 64 MiB, its beginning was dropped before, so it is rejected here. Runs in the keeper. */
static void handle_complete_line(struct injection *injection, const char *text, size_t bytes)
{
    if (injection->skipping_long_line)
        report_invalid_line(injection, "the line is longer than 64 MiB");
    else
        parse_event_line(injection, text, bytes);
    injection->skipping_long_line = false;
    injection->line_number++;
}

/* Handles, in the keeper, every whole line that `eventpipe inject` has sent so far over the control
 * socket, and keeps the unfinished last one. More than 64 MiB without a line end are dropped, which bounds
 * the keeper's memory. */
static void read_received_lines(struct injection *injection)
{
    struct text *received = &injection->received;
    size_t handled_bytes = 0;
    while (injection->store_code == EP_OK && !injection->answer.client_lost) {
        char *line_feed = memchr(received->text + handled_bytes, '\n', received->bytes - handled_bytes);
        if (line_feed == NULL)
            break;
        handle_complete_line(injection, received->text + handled_bytes,
                             (size_t)(line_feed - received->text) - handled_bytes);
        handled_bytes = (size_t)(line_feed - received->text) + 1;
    }
    memmove(received->text, received->text + handled_bytes, received->bytes - handled_bytes);
    received->bytes -= handled_bytes;
    if (received->bytes > LINE_BYTES) {
        injection->skipping_long_line = true;
        base_text_reset(received);
    }
}

/* Receives, in the keeper, more lines from `eventpipe inject` over the control socket. Returns 1 if bytes
 * arrived, 0 if the client has sent everything, EP_ENOMEM, or EP_ESYSTEM if the client is gone or sent
 * nothing for 5 s: the keeper has other work and cannot wait longer. */
static int receive_from_client(struct injection *injection)
{
    char buffer[65536];
    for (;;) {
        ssize_t received_bytes = recv(injection->request->client_fd, buffer, sizeof buffer, MSG_DONTWAIT);
        if (received_bytes > 0) {
            base_text_append_bytes(&injection->received, buffer, (size_t)received_bytes);
            return injection->received.failed ? EP_ENOMEM : 1;
        }
        if (received_bytes == 0)
            return 0;
        if (errno == EINTR)
            continue;
        struct pollfd waiting = {.fd = injection->request->client_fd, .events = POLLIN};
        if (errno != EAGAIN || (poll(&waiting, 1, READ_MS) <= 0 && errno != EINTR))
            return EP_ESYSTEM;
    }
}

/* Ends the answer to `eventpipe inject`: sends a data line with the numbers of injected, duplicate and
 * invalid events, and then the last line, with the error if one ended the command early. Runs in the
 * keeper. */
static void end_inject_answer(struct injection *injection, int receive_code)
{
    struct text *out = &injection->answer.lines;
    const char *would_be = injection->request->dry_run ? "would be " : "";
    base_text_append(out, "{\"injected\":");
    json_write_uint(out, injection->stored_count);
    base_text_append(out, ",\"duplicates\":");
    json_write_uint(out, injection->duplicate_count);
    base_text_append(out, ",\"invalid\":");
    json_write_uint(out, injection->invalid_count);
    base_text_append(out, ",\"lines\":");
    json_write_uint(out, injection->line_number - injection->request->first_line);
    base_text_append(out, "}");
    control_answer_end_line(&injection->answer);
    control_answer_flush(&injection->answer);
    char summary[256];
    snprintf(summary, sizeof summary, "%" PRIu64 " %sinjected, %" PRIu64 " duplicate%s, %" PRIu64 " invalid",
             injection->stored_count, would_be, injection->duplicate_count,
             injection->duplicate_count == 1 ? "" : "s", injection->invalid_count);
    if (injection->store_code == EP_ENOMEM || receive_code == EP_ENOMEM)
        control_end(injection->request->client_fd, CONTROL_FAILED, "out of memory; %s", summary);
    else if (injection->store_code != EP_OK)
        control_admin_end_with_store_error(injection->request, "cannot store more events", summary);
    else if (receive_code != 0)
        control_end(injection->request->client_fd, CONTROL_FAILED, "received no more events for %d s; %s",
                    READ_MS / 1000, summary);
    else
        control_end(injection->request->client_fd,
                    injection->invalid_count > 0 ? CONTROL_FAILED : CONTROL_DONE, "%s", summary);
}

/* Serves `eventpipe inject`: reads events as lines from the client's connection and stores them page by
 * page in the given source. Pages stored before an error stay stored. Runs in the keeper. */
void control_admin_serve_inject(struct admin_request *request)
{
    struct error error;
    struct injection injection = {.request = request, .line_number = request->first_line};
    int code = control_admin_find_source_id(request, request->select.source, &injection.source_id, &error);
    if (code != EP_OK) {
        control_end(request->client_fd, code == EP_ENOENT ? CONTROL_USAGE : CONTROL_FAILED, "%s",
                    error.message);
        return;
    }
    source_page_open(&injection.page);
    control_answer_begin(&injection.answer, request->client_fd);
    int receive_result = 1;
    while (receive_result == 1 && injection.store_code == EP_OK && !injection.answer.client_lost) {
        receive_result = receive_from_client(&injection);
        if (receive_result == 1)
            read_received_lines(&injection);
    }
    if (receive_result == 0 && injection.store_code == EP_OK &&
        (injection.received.bytes > 0 || injection.skipping_long_line)) /* the last line has no line feed */
        handle_complete_line(&injection, injection.received.text, injection.received.bytes);
    store_page(&injection);
    end_inject_answer(&injection, receive_result == 1 ? 0 : receive_result);
    source_page_clear(&injection.page);
    base_text_free(&injection.received);
    control_answer_close(&injection.answer);
}
